//! One socket of a run: what its program does with each event, and what is remembered of it for the
//! judge.

use std::time::Duration;

use super::draw::mostly;
use super::limits::{self, ToldSilence};
use super::pattern::{self, Stream};
use super::plan::Plan;
use super::stop::Stopping;
use crate::buffer::Buffer;
use crate::check::{EventGrammar, Rule, Violation, must};
use crate::error::Error;
use crate::event::Event;
use crate::id::{ListenerId, SocketId};
use crate::lifecycle::State;
use crate::options::{CloseMode, IdleDirection};
use crate::sim::truth::Truth;
use crate::sim::{Fault, Network, Places, Rng};
use crate::socket::{Backpressure, Socket};

/// An edge that a fault has put off is no later than this.
pub(super) const LATE_EDGE: u64 = 20_000_000;

pub(super) struct Side {
    pub(super) id: SocketId,
    /// Whose reactor has it.
    pub(super) host: u32,
    /// What names its connection in the network, once it has one.
    pub(super) places: Option<Places>,
    /// Who has accepted it.
    pub(super) listener: Option<ListenerId>,
    /// What it writes; the other side's differs in the second half.
    pub(super) stream: Stream,
    pub(super) program: Program,
    pub(super) life: EventGrammar,
    /// Bytes told as data, and taken by `write`.
    pub(super) read: u64,
    pub(super) written: u64,
    pub(super) end_called: bool,
    pub(super) destroy_called: bool,
    pub(super) discards: bool,
    pub(super) is_paused: bool,
    /// When it last was, if it is not now.
    pub(super) paused_until: u64,
    /// When its state last changed, as far as was told; and when it was connected.
    pub(super) changed_at: u64,
    pub(super) connected_at: u64,
    pub(super) had_error: bool,
    pub(super) had_end: bool,
    /// When `end` was told; 0 if it was not.
    pub(super) end_at: u64,
    pub(super) owes_drain: bool,
    /// In nanoseconds since the network began.
    pub(super) born_at: u64,
    pub(super) ended_at: u64,
    pub(super) silent_from: u64,
    /// The silence that was told last, unless the idle time was set since.
    pub(super) told_silence: Option<ToldSilence>,
    /// When the queue last was empty before a write.
    pub(super) queued_from: u64,
    /// It was accepted beyond its listener's maximum.
    pub(super) is_overflow: bool,
    /// It waits for bytes in a buffer of its own.
    pub(super) fills: bool,
    /// When the program's own deadline is.
    pub(super) deadline: Option<u64>,
    /// When there was room in the full queue that it wants to get into.
    pub(super) room_at: Option<u64>,
    /// Its listener stops.
    pub(super) stop: Option<Stopping>,
    /// How many errors of the system were its attempts' to connect.
    pub(super) attempt_errors: usize,
}

/// Who decides what is done with a side's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// The dice.
    Random,
    /// A pipe, to another side.
    Piped,
    /// Its pool.
    Pooled,
    /// Whoever has borrowed it: the dice.
    Lent,
}

/// Whose line it is in a story.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label {
    pub(super) stream: Stream,
    pub(super) program: Program,
}

/// What a program wants done that it can't do itself.
pub(super) enum Wish {
    Nothing,
    /// To be resumed after so long.
    ResumeAfter(Duration),
    /// Another socket to be destroyed or paused.
    Meddle,
    /// A wake from another thread.
    Wake,
    /// A connection to the server behind a proxy.
    Backend,
}

/// What a program acts with.
pub(super) struct Dice<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) network: &'a Network,
    pub(super) plan: &'a Plan,
    pub(super) now: u64,
}

impl Side {
    pub(super) fn new(host: u32, stream: Stream, socket: &Socket<'_>, now: u64) -> Self {
        Self {
            id: socket.id(),
            host,
            places: None,
            listener: socket.listener(),
            stream,
            program: Program::Random,
            life: EventGrammar::new(socket),
            read: 0,
            written: 0,
            end_called: false,
            destroy_called: false,
            discards: false,
            is_paused: socket.is_paused(),
            paused_until: 0,
            changed_at: now,
            connected_at: now,
            had_error: false,
            had_end: false,
            end_at: 0,
            owes_drain: false,
            born_at: now,
            ended_at: now,
            silent_from: now,
            told_silence: None,
            queued_from: now,
            fills: false,
            is_overflow: socket.is_overflow(),
            deadline: None,
            room_at: None,
            stop: None,
            attempt_errors: 0,
        }
    }

    /// Whether nothing is known against an end in good order.
    pub(super) fn is_fine(&self, socket: &Socket<'_>) -> bool {
        const ENOUGH_MS: u64 = 8_000;
        let long = socket.settings().is_some_and(|settings| {
            let limits = [settings.close_ms, settings.half_closed_ms, settings.write_ms, settings.ending_ms];
            limits.into_iter().flatten().all(|ms| ms > ENOUGH_MS) && self.deadline.is_none()
        });
        long && self.stop.is_none()
            && socket.state() == State::Open
            && !self.destroy_called
            && self.life.was_connected()
    }

    /// From when a silence of this kind counts at the latest: a state that changes moves no byte.
    pub(super) fn silent_at(&self, truth: &Truth, idle_direction: IdleDirection) -> u64 {
        let moved_at = truth.broke_silence_at(idle_direction).max(truth.took_in_silence_at(idle_direction));
        let counted_at = moved_at.max(self.connected_at).max(self.silent_from);
        // The peer's FIN may count as well, when it comes and when it is told.
        if idle_direction == IdleDirection::Write {
            counted_at
        } else {
            counted_at.max(self.heard_at(truth)).max(self.end_at)
        }
    }

    /// When its state last changed: a write that fails changes it as well. Of the peer's leaving it
    /// may have heard late.
    pub(super) fn changed_or_heard_at(&self, truth: &Truth) -> u64 {
        self.changed_at.max(self.ended_at).max(truth.failed_at).max(self.heard_at(truth))
    }

    /// When it has heard at the latest that the peer is gone, if it is.
    pub(super) fn heard_at(&self, truth: &Truth) -> u64 {
        let gone = truth.kernel.peer_finished || truth.kernel.died;
        let gone_at = truth.kernel.gone_at.max(self.born_at).max(limits::unwatched_until(truth));
        if gone { gone_at + LATE_EDGE } else { 0 }
    }

    /// After a call that may have resumed it.
    pub(super) fn look_paused(&mut self, socket: &Socket<'_>, now: u64) {
        if self.is_paused && !socket.is_paused() {
            self.paused_until = now;
        }
        self.is_paused = socket.is_paused();
    }

    pub(super) const fn label(&self) -> Label {
        Label { stream: self.stream, program: self.program }
    }

    /// Takes note of what somebody else has done to the socket, and answers what it was.
    pub(super) fn observe(&mut self, socket: &Socket<'_>, now: u64) -> Vec<&'static str> {
        let mut seen = Vec::new();
        if !self.end_called && socket.end_called() {
            (self.end_called, self.ended_at, self.owes_drain) = (true, now, false);
            seen.push("is ended");
        }
        if !self.destroy_called && socket.destroy_called() {
            self.destroy_called = true;
            seen.push("is destroyed");
        }
        if !self.discards && socket.is_discarding() {
            (self.discards, self.changed_at) = (true, now);
            seen.push("is to discard");
        }
        if self.is_paused != socket.is_paused() {
            seen.push(if self.is_paused { "is resumed" } else { "is paused" });
            self.look_paused(socket, now);
        }
        seen
    }

    /// The other side's stream.
    pub(super) const fn theirs(&self) -> Stream {
        (self.stream.0, !self.stream.1)
    }

    pub(super) fn end(&mut self, socket: &mut Socket<'_>, now: u64) {
        if !self.end_called {
            self.ended_at = now;
        }
        socket.end();
        self.end_called = socket.end_called();
        self.owes_drain = false;
    }

    /// Without half-open connections a socket ends by itself as soon as the peer's end was handled.
    pub(super) fn ends_by_itself(&mut self, socket: &Socket<'_>, event: &Event<'_>, now: u64) {
        if matches!(event, Event::End) && !socket.allows_half_open() && !self.end_called {
            (self.end_called, self.ended_at, self.owes_drain) = (true, now, false);
        }
    }

    pub(super) fn destroy(&mut self, socket: &mut Socket<'_>) {
        socket.destroy();
        self.destroy_called = true;
    }

    fn write(&mut self, socket: &mut Socket<'_>, dice: &mut Dice<'_>) -> Result<(), Violation> {
        let most = if dice.rng.chance(0.2) { dice.plan.largest_write } else { 40 };
        let count = dice.rng.below(most);
        let before = socket.queued_bytes();
        if before == 0 {
            self.queued_from = dice.now;
        }
        let bytes = pattern::bytes(self.stream, self.written, count);
        // Copied, given away, or shared: as the length says, so that it needs no draw of its own.
        let answer = match count % 3 {
            0 => socket.write_owned(bytes),
            1 => socket.write_owned(Buffer::shared(&bytes.into(), ..)),
            _ => socket.write(&bytes),
        };
        let refused = match answer {
            Ok(queue) => {
                self.written += count;
                self.owes_drain |= queue == Backpressure::Full && count > 0;
                return must(!self.end_called, Rule::Language, || "a write after end was taken".to_owned());
            }
            Err(refused) => refused,
        };
        must(socket.queued_bytes() == before, Rule::Bytes, || "a refused write has left something".to_owned())?;
        let (ended, gone) = (refused == Error::WriteAfterEnd, refused == Error::Gone);
        if ended {
            dice.network.mark(Fault::WriteAfterEnd);
        }
        must(ended == socket.end_called(), Rule::Language, || format!("a write was refused: {refused}"))?;
        must(!gone || self.destroy_called || self.had_error, Rule::Language, || {
            format!("a write was refused: {refused}")
        })
    }

    /// What the program does in one event.
    pub(super) fn act(
        &mut self,
        socket: &mut Socket<'_>,
        event: &Event<'_>,
        dice: &mut Dice<'_>,
    ) -> Result<Wish, Violation> {
        let is_end = matches!(event, Event::End);
        let temper = dice.plan.temper;
        if is_end && !socket.allows_half_open() && !self.end_called {
            dice.network.mark(Fault::HalfOpenNotAllowed);
        }
        if dice.rng.chance(temper.write) {
            self.write(socket, dice)?;
        }
        if dice.rng.chance(if is_end { 0.8 } else { temper.end }) {
            if matches!(event, Event::Connection) {
                dice.network.mark(Fault::EndInConnection);
            }
            self.end(socket, dice.now);
        }
        if dice.rng.chance(temper.destroy) {
            if matches!(event, Event::Data(_)) {
                dice.network.mark(Fault::DestroyInData);
            }
            self.destroy(socket);
        }
        self.ends_by_itself(socket, event, dice.now);
        if self.end_called && !self.discards && dice.rng.chance(temper.linger) {
            self.discard(socket, dice.now);
        }
        self.tune(socket, matches!(event, Event::Timeout), dice);
        if matches!(event, Event::Data(_) | Event::Connection) && !self.discards && dice.rng.chance(0.1) {
            let most = if dice.rng.chance(0.5) { 20 } else { 20_000 };
            let length = 1 + dice.rng.below(most);
            socket.fill(Vec::new(), length as usize);
            self.fills |= !self.destroy_called;
        }
        Ok(self.wish(socket, dice))
    }

    fn discard(&mut self, socket: &mut Socket<'_>, now: u64) {
        socket.discard();
        // The first one begins the lingering.
        self.changed_at = if self.discards { self.changed_at } else { now };
        self.discards = true;
        self.look_paused(socket, now);
    }

    /// Changes options in the middle of everything.
    fn tune(&mut self, socket: &mut Socket<'_>, is_timeout: bool, dice: &mut Dice<'_>) {
        match dice.rng.below(60) {
            0 => self.discard(socket, dice.now),
            1..4 => {
                let longest = 250 * dice.plan.longest_ms;
                let (time, row) = match dice.rng.below(10) {
                    0 => (Duration::MAX, Some(Fault::EnormousTimeout)),
                    1 | 2 => (Duration::from_millis(16_000 + dice.rng.below(20_000)), Some(Fault::BeyondOneRotation)),
                    _ => (Duration::from_micros(dice.rng.below(longest)), None),
                };
                if let Some(row) = row {
                    dice.network.mark(row);
                }
                socket.set_idle_timeout(Some(time).filter(|_| dice.rng.chance(0.9)));
                (self.silent_from, self.told_silence) = (dice.now, None);
                if is_timeout {
                    dice.network.mark(Fault::ChangedWhileFiring);
                }
            }
            4 => socket.set_close_mode(if dice.rng.chance(0.5) { CloseMode::HandOff } else { CloseMode::Confirmed }),
            5 => socket.set_nodelay(dice.rng.chance(0.5)),
            6 => drop(socket.set_keep_alive(None)),
            7 => {
                let limit = Some(dice.rng.below(dice.plan.longest_ms / 2)).filter(|_| dice.rng.chance(0.7));
                socket.set_deadline(limit.map(Duration::from_millis));
                if !self.destroy_called && !self.had_error {
                    self.deadline = limit.map(|ms| dice.now + ms * 1_000_000);
                }
            }
            8 => self.owes_drain |= socket.request_drain(),
            _ => {}
        }
    }

    fn wish(&mut self, socket: &mut Socket<'_>, dice: &mut Dice<'_>) -> Wish {
        let rng = &mut *dice.rng;
        if rng.chance(dice.plan.temper.pause) || (socket.is_paused() && rng.chance(0.5)) {
            socket.pause();
            self.is_paused = socket.is_paused();
            return Wish::ResumeAfter(Duration::from_micros(mostly(rng, 20_000, 250 * dice.plan.longest_ms)));
        }
        match rng.below(150) {
            0 => Wish::Meddle,
            1 => Wish::Wake,
            _ => Wish::Nothing,
        }
    }
}
