//! One socket of a run: its random program, and its expected state.

use std::net::IpAddr;
use std::time::Duration;

use super::draw::mostly;
use super::limits::{self, ReportedIdle};
use super::pattern::{self, Stream};
use super::plan::Plan;
use super::stop::{Farewell, StopTimes};
use crate::buffer::Buffer;
use crate::check::{EventGrammar, Rule, Violation, must};
use crate::error::Error;
use crate::event::Event;
use crate::id::{ListenerId, SocketId};
use crate::lifecycle::State;
use crate::net::LookupAnswer;
use crate::options::{CloseMode, IdleDirection};
use crate::sim::truth::{Kernel, Truth};
use crate::sim::{Endpoints, Fault, Network, Rng};
use crate::socket::{Backpressure, Socket};

/// A fault delays readiness by at most this long, in nanoseconds.
pub(super) const LATE_EDGE: u64 = 20_000_000;

pub(super) struct SocketModel {
    pub(super) id: SocketId,
    /// The number of its reactor.
    pub(super) host: u32,
    /// The addresses of its connection, once it has one.
    pub(super) endpoints: Option<Endpoints>,
    /// The listener that accepted it.
    pub(super) listener: Option<ListenerId>,
    /// The stream that it writes.
    pub(super) stream: Stream,
    pub(super) driver: Driver,
    pub(super) grammar: EventGrammar,
    /// Bytes that were delivered as data, and bytes that `write` took.
    pub(super) read: u64,
    /// Of these, bytes in a kernel pipe that were not passed on, and are delivered again.
    pub(super) unspliced: u64,
    pub(super) written: u64,
    pub(super) end_called: bool,
    pub(super) destroy_called: bool,
    pub(super) discards: bool,
    /// When `discard` was called; 0 if it was not.
    pub(super) discarded_at: u64,
    pub(super) is_paused: bool,
    /// When it was last paused.
    pub(super) paused_from: u64,
    /// When it was last resumed; 0 if it never was.
    pub(super) paused_until: u64,
    /// When an event last showed a change of its state, and when it was connected.
    pub(super) changed_at: u64,
    pub(super) connected_at: u64,
    pub(super) had_error: bool,
    pub(super) had_end: bool,
    /// It knows that the peer has finished, whether `end` was delivered or not.
    pub(super) knows_fin: bool,
    /// When `end` was delivered; 0 if it was not.
    pub(super) end_at: u64,
    pub(super) drain_pending: bool,
    /// When a drain was requested last, or a queue was full.
    pub(super) full_at: u64,
    /// In nanoseconds since the network began, as all times here.
    pub(super) created_at: u64,
    pub(super) ended_at: u64,
    pub(super) idle_from: u64,
    /// The last idle time whose `timeout` was delivered, unless the limit was set again.
    pub(super) reported_idle: Option<ReportedIdle>,
    /// When a write last found the queue empty.
    pub(super) queued_from: u64,
    /// It was accepted beyond its listener's limit.
    pub(super) is_overflow: bool,
    /// It fills a buffer with this many bytes.
    pub(super) fills: Option<usize>,
    /// When the deadline is due.
    pub(super) deadline: Option<u64>,
    /// A pool may have removed it.
    pub(super) may_lack_deadline: bool,
    /// When the full queue that it connects to had room.
    pub(super) room_at: Option<u64>,
    /// Its listener stops.
    pub(super) stop: Option<StopTimes>,
    pub(super) farewell: Farewell,
    /// Errors of the system that belong to its attempts to connect.
    pub(super) attempt_errors: usize,
    /// What it connects to. `None` if that has no address, or none that is known.
    pub(super) addrs: Option<LookupAnswer>,
    /// The addresses that `lookup` has delivered.
    pub(super) looked_up: Vec<IpAddr>,
    /// The FINs crossed, and `end` was delivered before ours was acknowledged.
    pub(super) saw_crossing: bool,
}

/// What acts on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    /// The random program.
    Random,
    /// A pipe.
    Piped,
    /// Its pool.
    Pooled,
    /// The random program, which has leased it.
    Leased,
    /// Its reactor: its pool was dropped.
    Orphaned,
}

/// The socket of a line in the transcript.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label {
    pub(super) stream: Stream,
    pub(super) driver: Driver,
}

/// What the run does for a program.
pub(super) enum Command {
    Nothing,
    /// Resume this socket after this time.
    ResumeAfter(Duration),
    /// Resume or destroy other sockets.
    TouchOthers,
    /// Wake the reactor, as another thread does.
    Wake,
    /// Connect a proxy to its server.
    ConnectBackend,
}

/// What a random program acts with.
pub(super) struct ActContext<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) network: &'a Network,
    pub(super) plan: &'a Plan,
    pub(super) now: u64,
}

impl SocketModel {
    pub(super) fn new(host: u32, stream: Stream, socket: &Socket<'_>, now: u64) -> Self {
        Self {
            id: socket.id(),
            host,
            endpoints: None,
            listener: socket.listener(),
            stream,
            driver: Driver::Random,
            grammar: EventGrammar::new(socket),
            read: 0,
            unspliced: 0,
            written: 0,
            end_called: false,
            destroy_called: false,
            discards: false,
            discarded_at: 0,
            is_paused: socket.is_paused(),
            paused_from: now,
            paused_until: 0,
            changed_at: now,
            connected_at: now,
            had_error: false,
            had_end: false,
            knows_fin: false,
            end_at: 0,
            drain_pending: false,
            full_at: 0,
            created_at: now,
            ended_at: now,
            idle_from: now,
            reported_idle: None,
            queued_from: now,
            fills: None,
            is_overflow: socket.is_overflow(),
            deadline: None,
            may_lack_deadline: false,
            room_at: None,
            stop: None,
            farewell: Farewell::default(),
            attempt_errors: 0,
            addrs: None,
            looked_up: Vec::new(),
            saw_crossing: false,
        }
    }

    /// Whether nothing is known that prevents a clean end.
    pub(super) fn can_end_cleanly(&self, socket: &Socket<'_>) -> bool {
        const ENOUGH_MS: u64 = 8_000;
        let long = socket.settings().is_some_and(|settings| {
            let limits = [settings.close_ms, settings.half_closed_ms, settings.write_ms, settings.ending_ms];
            limits.into_iter().flatten().all(|ms| ms > ENOUGH_MS) && self.deadline.is_none()
        });
        long && self.stop.is_none()
            && socket.state() == State::Open
            && !self.destroy_called
            && self.grammar.was_connected()
    }

    /// The latest time from which the idle time counts: a change of state moves no byte.
    pub(super) fn idle_since(&self, truth: &Truth, idle_direction: IdleDirection) -> u64 {
        let moved_at = truth.broke_silence_at(idle_direction).max(truth.took_in_silence_at(idle_direction));
        let counted_at = moved_at.max(self.connected_at).max(self.idle_from);
        // The peer's FIN may count too, when it comes and when `end` is delivered.
        if idle_direction == IdleDirection::Write {
            counted_at
        } else {
            counted_at.max(self.peer_end_known_at(truth)).max(self.end_at)
        }
    }

    /// The latest time of a change of its state. A failed write changes it too, and the reactor may
    /// learn late that the peer has finished.
    pub(super) fn state_known_at(&self, truth: &Truth) -> u64 {
        self.changed_at.max(self.ended_at).max(truth.failed_at).max(self.peer_end_known_at(truth))
    }

    /// The latest time at which the reactor knows that the peer has finished or the connection
    /// died.
    pub(super) fn peer_end_known_at(&self, truth: &Truth) -> u64 {
        let gone = truth.kernel.peer_finished || truth.kernel.died;
        let gone_at = truth.kernel.gone_at.max(self.created_at).max(limits::unwatched_until(truth));
        if gone { gone_at + LATE_EDGE } else { 0 }
    }

    /// The earliest time at which the state began that it had last after `end`: the close timeout
    /// counts from there.
    pub(super) fn ending_since(&self, kernel: &Kernel) -> u64 {
        let our_fin = if kernel.finished { kernel.finished_at } else { 0 };
        // Without a FIN of the peer it was lingering.
        let lingering = if kernel.finished && !self.had_end { self.discarded_at } else { 0 };
        self.ended_at.max(self.connected_at).max(our_fin).max(self.end_at).max(lingering)
    }

    /// The same for the state with a limit that it had while one side had finished.
    pub(super) fn half_closed_since(&self, kernel: &Kernel) -> Option<u64> {
        let ours = kernel.finished.then_some(kernel.finished_at);
        let theirs = self.had_end.then_some(self.end_at);
        // It was paused, or broken.
        let noticed = || {
            let ends = [(kernel.peer_finished, kernel.fin_at), (kernel.died, kernel.gone_at)];
            ends.into_iter().filter_map(|(is, at)| is.then_some(at)).min()
        };
        Some(ours.max(theirs).or_else(noticed)?.max(self.connected_at))
    }

    /// After a call that may have resumed it.
    pub(super) fn update_paused(&mut self, socket: &Socket<'_>, now: u64) {
        if self.is_paused && !socket.is_paused() {
            self.paused_until = now;
        } else if !self.is_paused && socket.is_paused() {
            self.paused_from = now;
        }
        self.is_paused = socket.is_paused();
    }

    pub(super) const fn label(&self) -> Label {
        Label { stream: self.stream, driver: self.driver }
    }

    /// Notes what something else did to the socket, and returns it.
    pub(super) fn observe(&mut self, socket: &Socket<'_>, now: u64) -> Vec<&'static str> {
        let mut seen = Vec::new();
        if !self.end_called && socket.end_called() {
            (self.end_called, self.ended_at, self.drain_pending) = (true, now, false);
            seen.push("is ended");
        }
        if !self.destroy_called && socket.destroy_called() {
            self.destroy_called = true;
            seen.push("is destroyed");
        }
        if !self.discards && socket.is_discarding() {
            (self.discards, self.discarded_at, self.changed_at) = (true, now, now);
            seen.push("discards");
        }
        if self.is_paused != socket.is_paused() {
            seen.push(if self.is_paused { "is resumed" } else { "is paused" });
            self.update_paused(socket, now);
        }
        seen
    }

    /// The stream of the other end.
    pub(super) const fn peer_stream(&self) -> Stream {
        (self.stream.0, !self.stream.1)
    }

    pub(super) fn end(&mut self, socket: &mut Socket<'_>, now: u64) {
        if !self.end_called {
            self.ended_at = now;
        }
        socket.end();
        self.end_called = socket.end_called();
        self.drain_pending = false;
    }

    /// Without half-open connections a socket calls `end` itself after the peer's `end` was
    /// handled.
    pub(super) fn note_automatic_end(&mut self, socket: &Socket<'_>, event: &Event<'_>, now: u64) {
        if matches!(event, Event::End) && !socket.allows_half_open() && !self.end_called {
            (self.end_called, self.ended_at, self.drain_pending) = (true, now, false);
        }
    }

    pub(super) fn destroy(&mut self, socket: &mut Socket<'_>) {
        socket.destroy();
        self.destroy_called = true;
    }

    fn expect_drain(&mut self, is_requested: bool, now: u64) {
        if is_requested {
            (self.drain_pending, self.full_at) = (true, now);
        }
    }

    fn write(&mut self, socket: &mut Socket<'_>, context: &mut ActContext<'_>) -> Result<(), Violation> {
        let most = if context.rng.chance(0.2) { context.plan.largest_write } else { 40 };
        let count = context.rng.below(most);
        let before = socket.queued_bytes();
        if before == 0 {
            self.queued_from = context.now;
        }
        let bytes = pattern::bytes(self.stream, self.written, count);
        // The length decides between a copy, an owned and a shared buffer, without a draw.
        let answer = match count % 3 {
            0 => socket.write_owned(bytes),
            1 => socket.write_owned(Buffer::shared(&bytes.into(), ..)),
            _ => socket.write(&bytes),
        };
        let refused = match answer {
            Ok(queue) => {
                self.written += count;
                self.expect_drain(queue == Backpressure::Full && count > 0, context.now);
                return must(!self.end_called, Rule::Language, || "a write after end was taken".to_owned());
            }
            Err(refused) => refused,
        };
        must(socket.queued_bytes() == before, Rule::Bytes, || "a refused write has queued bytes".to_owned())?;
        let (ended, gone) = (refused == Error::WriteAfterEnd, refused == Error::Gone);
        if ended {
            context.network.mark(Fault::WriteAfterEnd);
        }
        must(ended == socket.end_called(), Rule::Language, || format!("a write was refused: {refused}"))?;
        must(!gone || self.destroy_called || self.had_error, Rule::Language, || {
            format!("a write was refused: {refused}")
        })
    }

    /// The random program's reaction to an event.
    pub(super) fn act(
        &mut self,
        socket: &mut Socket<'_>,
        event: &Event<'_>,
        context: &mut ActContext<'_>,
    ) -> Result<Command, Violation> {
        let is_end = matches!(event, Event::End);
        let probabilities = context.plan.probabilities;
        if is_end && !socket.allows_half_open() && !self.end_called {
            context.network.mark(Fault::HalfOpenNotAllowed);
        }
        if context.rng.chance(probabilities.write) {
            self.write(socket, context)?;
        }
        if context.rng.chance(if is_end { 0.8 } else { probabilities.end }) {
            if matches!(event, Event::Connection) {
                context.network.mark(Fault::EndInConnection);
            }
            self.end(socket, context.now);
        }
        if context.rng.chance(probabilities.destroy) {
            if matches!(event, Event::Data(_)) {
                context.network.mark(Fault::DestroyInData);
            }
            self.destroy(socket);
        }
        if context.plan.says_farewell {
            self.say_farewell(socket, event, context);
        }
        self.note_automatic_end(socket, event, context.now);
        if self.end_called && !self.discards && context.rng.chance(probabilities.discard) {
            self.discard(socket, context.now);
        }
        self.change_options(socket, matches!(event, Event::Timeout), context);
        if matches!(event, Event::Data(_) | Event::Connection) && !self.discards && context.rng.chance(0.1) {
            let most = if context.rng.chance(0.5) { 20 } else { 20_000 };
            let length = 1 + context.rng.below(most) as usize;
            // The length decides how much room the buffer has, without a draw.
            let buffer = Vec::with_capacity(length % 3 * length);
            // It is refused where nothing more can be read.
            if socket.fill(buffer, length).is_ok() {
                self.fills = Some(length);
            }
        }
        Ok(self.command(socket, context))
    }

    /// What concerns a stop with a farewell.
    fn say_farewell(&mut self, socket: &mut Socket<'_>, event: &Event<'_>, context: &mut ActContext<'_>) {
        if matches!(event, Event::Connection) {
            self.farewell.want(socket);
        } else if matches!(event, Event::Timeout) && self.farewell.is_due() {
            match context.rng.below(4) {
                0 => {}
                1 => self.farewell.postpone(socket, context.now),
                _ => self.end(socket, context.now),
            }
        } else if context.rng.chance(0.2) {
            self.farewell.answered(socket, context.now);
        }
    }

    fn discard(&mut self, socket: &mut Socket<'_>, now: u64) {
        socket.discard();
        // The first call starts the lingering.
        if !std::mem::replace(&mut self.discards, true) {
            (self.discarded_at, self.changed_at) = (now, now);
        }
        self.update_paused(socket, now);
    }

    /// Changes options at any time.
    fn change_options(&mut self, socket: &mut Socket<'_>, is_timeout: bool, context: &mut ActContext<'_>) {
        match context.rng.below(60) {
            0 => self.discard(socket, context.now),
            1..4 => {
                let longest = 250 * context.plan.longest_ms;
                let (time, fault) = match context.rng.below(10) {
                    0 => (Duration::MAX, Some(Fault::EnormousTimeout)),
                    1 | 2 => {
                        (Duration::from_millis(16_000 + context.rng.below(20_000)), Some(Fault::BeyondOneRotation))
                    }
                    _ => (Duration::from_micros(context.rng.below(longest)), None),
                };
                if let Some(fault) = fault {
                    context.network.mark(fault);
                }
                socket.set_idle_timeout(Some(time).filter(|_| context.rng.chance(0.9)));
                (self.idle_from, self.reported_idle) = (context.now, None);
                if is_timeout {
                    context.network.mark(Fault::ChangedWhileFiring);
                }
            }
            4 => socket.set_close_mode(if context.rng.chance(0.5) { CloseMode::HandOff } else { CloseMode::Confirmed }),
            5 => socket.set_nodelay(context.rng.chance(0.5)),
            6 => drop(socket.set_keep_alive(None)),
            7 => {
                let limit = Some(context.rng.below(context.plan.longest_ms / 2)).filter(|_| context.rng.chance(0.7));
                socket.set_deadline(limit.map(Duration::from_millis));
                if !self.destroy_called && !self.had_error {
                    self.deadline = limit.map(|ms| context.now + ms * 1_000_000);
                }
            }
            8 => self.expect_drain(socket.request_drain(), context.now),
            _ => {}
        }
    }

    fn command(&mut self, socket: &mut Socket<'_>, context: &mut ActContext<'_>) -> Command {
        let rng = &mut *context.rng;
        if rng.chance(context.plan.probabilities.pause) || (socket.is_paused() && rng.chance(0.5)) {
            socket.pause();
            self.update_paused(socket, context.now);
            return Command::ResumeAfter(Duration::from_micros(mostly(rng, 20_000, 250 * context.plan.longest_ms)));
        }
        match rng.below(150) {
            0 => Command::TouchOthers,
            1 => Command::Wake,
            _ => Command::Nothing,
        }
    }
}
