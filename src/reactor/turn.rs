//! One pass of the loop: poll, sockets, listeners, timers, closes, in this order. While connections
//! arrive, sockets and listeners alternate before the pass continues.
//!
//! Sockets come before listeners, so that a client's `connect` is delivered before the server's
//! `connection`. Timers come after sockets, so that bytes that arrived in the millisecond of a
//! deadline count. ARCHITECTURE.md says why closes come last, and which of them.

use std::time::{Duration, Instant};

use super::emit::{Emit, EmitKind};
use super::step::{Step, is_transient};
use super::{Reactor, earlier, system};
use crate::error::{ConnectionError, ConnectionErrorKind, Error, TimeoutKind};
use crate::lifecycle::{Emits, Input, State};
use crate::net::{Net, Readiness, Token};
use crate::options::{Farewell, IdleDirection};
use crate::table::entry::{Entry, Flags, NIL, Next};
use crate::table::{Due, Table};
use crate::ticks::{ticks, ticks_up};

/// Polls and reports of one turn, besides two for each token, while more readiness waits than fits
/// into a poll: without them an idle timer could fire although its data has arrived.
const MORE_POLLS: usize = 64;

/// Steps of one socket in a turn: its data, its end, the answer to them.
const STEPS_EACH: usize = 3;

/// Steps of all sockets in one turn: `STEPS_EACH` for each that was ready when it began and for
/// each that is accepted in it, and some for programs with few sockets.
const fn steps(ready: usize) -> usize {
    STEPS_EACH * ready + 64
}

/// Steps between two looks at the clock while a deadline is filed. A deadline may be late by the
/// handlers of twice as many steps, and of the connections that are accepted meanwhile, however many
/// sockets wait: it can pass just after a look, and the next turn takes as many steps before it
/// looks.
const STEPS_PER_LOOK: usize = 16;

/// Timers examined in one turn, of sockets and free ones each: a million that are due together are
/// spread over a thousand turns, with the sockets served in between.
const TIMERS_PER_TURN: u32 = 1024;

/// Connections accepted from one poll to the next, over all listeners: enough to spread the cost of
/// a poll, and few enough that sockets that are served already don't wait.
pub(super) const ACCEPTS_PER_POLL: usize = 16;

#[derive(Debug, Clone, Copy, Default)]
enum Phase {
    #[default]
    Poll,
    Sockets,
    Listeners,
    Timers,
    Closes,
}

/// The phase of the present turn, and what it may still do.
#[derive(Debug, Default)]
pub(super) struct Turn {
    phase: Phase,
    /// Steps that sockets may take before the next look at the clock, and after it.
    steps: usize,
    left: usize,
    /// Connections that may be accepted before the next poll.
    accepts: usize,
    /// This round has accepted a connection.
    accepted: bool,
    /// A deadline has passed: no other round begins.
    interrupted: bool,
    timers: u32,
    free_timers: u32,
    closes: usize,
    /// There was a wake before this turn, not delivered yet. A later one belongs to the next turn.
    woken: bool,
    /// The tick up to which the readiness of this turn is complete.
    pub(super) now: u64,
}

impl Turn {
    /// Allows the steps up to the next look at the clock.
    fn take_steps(&mut self) {
        self.steps = self.left.min(STEPS_PER_LOOK);
        self.left -= self.steps;
    }

    pub(super) const fn accepted(&mut self) {
        self.accepts -= 1;
        self.steps += STEPS_EACH;
        self.accepted = true;
    }

    /// A connection was accepted and reset.
    pub(super) const fn dropped(&mut self) {
        self.accepts -= 1;
    }

    /// Whether phases of the present turn remain.
    pub(super) const fn is_under_way(&self) -> bool {
        !matches!(self.phase, Phase::Poll)
    }
}

impl<N: Net> Reactor<N> {
    /// Continues with the socket at hand, with the turn, and with the next turn, up to the next
    /// event.
    #[inline]
    pub(super) fn advance(&mut self, until: Option<Instant>) -> Option<Emit> {
        if let Some(slot) = self.at_hand()
            && let Some(emit) = self.serve(slot)
        {
            return Some(emit);
        }
        self.go_on(until)
    }

    /// Continues with the turn, and with the next turn, up to the next event.
    #[inline(never)]
    fn go_on(&mut self, until: Option<Instant>) -> Option<Emit> {
        let mut turns = 0;
        loop {
            let emit = match self.turn.phase {
                Phase::Poll => {
                    self.end_orphans();
                    if self.nothing_is_left() || (turns > 0 && until.is_some_and(|until| until <= self.net.now())) {
                        // The caller may not call again for a long time.
                        self.look_at_clock();
                        return None;
                    }
                    if let Err(error) = self.poll(until) {
                        self.cant_wait = Some(error);
                        return None;
                    }
                    turns += 1;
                    None
                }
                Phase::Sockets => match self.next_ready() {
                    Some(slot) => self.serve(slot),
                    None => {
                        self.turn.phase = Phase::Listeners;
                        None
                    }
                },
                // Most turns have none.
                Phase::Listeners if !self.turn.accepted && !self.listeners.has_work() => {
                    self.turn.phase = Phase::Timers;
                    None
                }
                Phase::Listeners => self.accept(),
                Phase::Timers => self.expire(),
                Phase::Closes => self.close(),
            };
            if emit.is_some() {
                return emit;
            }
        }
    }

    /// The socket whose event the caller has handled, unless that was its last event.
    #[inline]
    fn at_hand(&mut self) -> Option<u32> {
        let slot = self.table.at_hand;
        if slot == NIL {
            return None;
        }
        // In this phase there is no other event.
        if matches!(self.turn.phase, Phase::Closes) {
            self.table.at_hand = NIL;
            self.forget(slot);
            return None;
        }
        Some(slot)
    }

    /// The next socket to serve, if sockets may take more steps.
    #[inline]
    fn next_ready(&mut self) -> Option<u32> {
        if self.turn.steps > 0 || self.may_go_on() { self.table.pop_ready() } else { None }
    }

    /// The rare cases of [`serve`](Self::serve).
    #[inline(never)]
    fn serve_due(&mut self, slot: u32) -> Option<Emit> {
        self.serve(slot)
    }

    /// Takes steps of one socket up to its next event, or until it needs none in this turn.
    #[inline(always)]
    fn serve(&mut self, slot: u32) -> Option<Emit> {
        loop {
            let Self { table, net, buffer, turn, .. } = self;
            let step = Step::new(table, net, buffer, slot);
            let taken = if step.is_connected() {
                step.run(&mut turn.steps)
            } else {
                match step.needs(&mut turn.steps) {
                    Ok(()) => match self.step_unconnected(slot) {
                        Some(emit) => Ok(emit),
                        None => continue,
                    },
                    Err(next) => Err(next),
                }
            };
            match taken {
                Ok(emit) => {
                    self.table.at_hand = slot;
                    return Some(emit);
                }
                Err(next) if self.put_aside(slot, next) => return None,
                Err(_) => {}
            }
        }
    }

    /// The step of a socket that is not connected yet, or no longer.
    #[inline(never)]
    fn step_unconnected(&mut self, slot: u32) -> Option<Emit> {
        let entry = self.table.entry_mut(slot);
        entry.flags.set(Flags::SOON, false);
        let (state, flags) = (entry.state, entry.flags);
        if !flags.has(Flags::DESTROY.and(Flags::PENDING)) {
            if state == State::Created {
                self.begin(slot);
            } else if state == State::Connecting {
                self.continue_connecting(slot);
            }
        } else if flags.has(Flags::DESTROY) && !state.is_final() {
            self.give_up_connecting(slot);
        }
        // The rest is the same in all states: apply `destroy`, and deliver.
        self.at(slot).before_output()
    }

    /// Puts aside a socket that needs no step now: into a list, or it waits for readiness and for
    /// its deadline. Returns whether that succeeded: a socket that can't be watched may have an
    /// error to deliver.
    #[inline(always)]
    fn put_aside(&mut self, slot: u32, next: Next) -> bool {
        self.table.spill(slot);
        self.table.at_hand = NIL;
        if next == Next::Close {
            // Its descriptor is closed: no timer outlives the connection, and a listener may wait
            // for the descriptor.
            self.table.wheel.cancel(&mut self.table.entries, slot);
            self.listeners.retry();
        } else {
            self.table.tidy(slot);
            if !self.watch(slot, next) {
                return false;
            }
            self.table.file_later(slot);
        }
        self.table.put(slot, next);
        true
    }

    /// Registers a connection that has to wait for readiness; many never have to. Room and input are
    /// reported only for a registered socket, so one that always has the other needs it too. Returns
    /// `false` if the system refuses permanently.
    #[inline]
    fn watch(&mut self, slot: u32, next: Next) -> bool {
        let entry = self.table.entry(slot);
        let (state, flags) = (entry.state, entry.flags);
        if flags.has(Flags::REGISTERED) || !state.is_connected() || state == State::Broken {
            return true;
        }
        (next != Next::Wait && entry.is_busy()) || self.register(slot)
    }

    #[inline(never)]
    fn register(&mut self, slot: u32) -> bool {
        let token = self.token(slot);
        match self.net.register(slot, token) {
            Ok(()) => self.table.entry_mut(slot).flags.set(Flags::REGISTERED, true),
            Err(error) if is_transient(&error) => self.table.extra_mut(slot).retry_later(),
            Err(error) => {
                // It can't be watched. That error does not come from the peer.
                self.at(slot).lose(&error);
                return false;
            }
        }
        true
    }

    /// Whether no further event is possible.
    fn nothing_is_left(&self) -> bool {
        self.table.len() == 0
            && self.listeners.entries.is_empty()
            && self.table.timers.is_empty()
            && !self.table.shared.may_wake()
    }

    /// Whether a turn has work that needs no readiness.
    pub(super) fn has_work(&self) -> bool {
        self.table.has_work() || self.listeners.has_work()
    }

    /// Waits for readiness, records it, and begins a turn.
    #[inline(never)]
    fn poll(&mut self, until: Option<Instant>) -> Result<(), Error> {
        let now = self.net.now();
        let since_epoch = self.table.epoch.elapsed(now);
        self.table.file_all(ticks_up(since_epoch));
        let mut timeout = self.timeout(now, since_epoch, until);
        // No token is reported twice before all that were ready at the first call were reported
        // once. So after as many reports as there are tokens, every one of these is known, and later
        // ones can wait. A poll may report only one, or none after a signal.
        let tokens = self.table.len() + self.table.reserved + self.listeners.entries.len();
        let (mut is_first, mut left) = (true, 2 * tokens + MORE_POLLS);
        loop {
            let (table, listeners) = (&mut self.table, &mut self.listeners);
            let ready = &mut |token: Token, readiness: Readiness| {
                left = left.saturating_sub(1);
                match token.generation {
                    0 => listeners.ready(token.index),
                    _ => note(table, token, readiness),
                }
            };
            let polled = self.net.poll(now, timeout, ready).map_err(|error| system("epoll_wait", &error))?;
            // Deadlines are compared with the time up to which the readiness is complete, and not
            // with the present time: what arrives between the system call's return and the look at
            // the clock has arrived in time.
            if is_first || !polled.more {
                let is_now = polled.complete_until == now;
                self.turn.now =
                    if is_now { ticks(since_epoch) } else { self.table.epoch.tick_before(polled.complete_until) };
            }
            left = left.saturating_sub(1);
            if !polled.more || left == 0 {
                break;
            }
            (is_first, timeout) = (false, Some(Duration::ZERO));
        }
        while let Some((token, answer)) = self.net.looked_up() {
            self.looked_up(token, answer);
        }
        self.counts.turns += 1;
        if self.listeners.retry_at.is_some_and(|at| at <= self.turn.now) {
            self.listeners.retry();
        }
        self.turn.closes = self.table.closes.len();
        self.turn.woken = self.table.shared.take_woken();
        self.turn.timers = TIMERS_PER_TURN;
        self.turn.free_timers = TIMERS_PER_TURN;
        self.turn.accepts = ACCEPTS_PER_POLL;
        self.turn.interrupted = false;
        // Sockets that were put off come after those that are ready.
        if !self.table.later.is_empty() {
            self.table.ready.append(&mut self.table.later);
        }
        self.turn.left = steps(self.table.ready.len());
        self.turn.take_steps();
        self.begin_round();
        Ok(())
    }

    /// One round of the two phases that alternate while connections arrive.
    const fn begin_round(&mut self) {
        self.turn.accepted = false;
        self.turn.phase = Phase::Sockets;
    }

    /// How long a poll may wait.
    fn timeout(&mut self, now: Instant, since_epoch: Duration, until: Option<Instant>) -> Option<Duration> {
        if self.has_work() {
            return Some(Duration::ZERO);
        }
        let until = until.map(|until| until.saturating_duration_since(now));
        let due = self.next_due().map(|due| Duration::from_millis(due).saturating_sub(since_epoch));
        earlier(due, until)
    }

    /// Whether the sockets may take more steps in this turn: no deadline has passed, and some steps
    /// are left.
    #[inline(never)]
    fn may_go_on(&mut self) -> bool {
        if self.turn.left == 0 {
            return false;
        }
        self.turn.take_steps();
        self.turn.interrupted = self.is_due();
        !self.turn.interrupted
    }

    /// Looks at the clock, if a deadline is filed or has to be. Returns whether one has passed.
    fn is_due(&mut self) -> bool {
        if self.table.unfiled.is_empty() && self.next_due().is_none() {
            return false;
        }
        let now = self.net.now();
        self.table.file_all(self.table.epoch.tick_after(now));
        self.next_due().is_some_and(|due| due <= self.table.epoch.tick_before(now))
    }

    #[inline(never)]
    fn accept(&mut self) -> Option<Emit> {
        while self.turn.accepts > 0
            && let Some(listener) = self.listeners.next_ready()
        {
            let emit = self.accept_from(listener);
            if emit.is_some() {
                return emit;
            }
        }
        // Accepted sockets are served, and more are accepted, before the next poll, unless a socket
        // was put off to the next turn, or a deadline has passed.
        if self.turn.accepted && !self.turn.interrupted && self.table.later.is_empty() {
            self.begin_round();
        } else {
            self.turn.phase = Phase::Timers;
        }
        None
    }

    #[inline(never)]
    fn expire(&mut self) -> Option<Emit> {
        // No timer fires for an owner that was dropped in this turn.
        self.end_orphans();
        if std::mem::take(&mut self.turn.woken) {
            return Some(Emit::new(EmitKind::Woken, 0));
        }
        self.stops_due(self.turn.now);
        if self.table.wheel.next_due().is_some_and(|due| due <= self.turn.now)
            && let Some(emit) = self.expire_sockets()
        {
            return Some(emit);
        }
        if let Some(timer) = self.table.timers.pop_due(self.turn.now, &mut self.turn.free_timers) {
            self.fired = timer;
            return Some(Emit::new(EmitKind::Timer, 0));
        }
        // After the timers, since many listeners can be stopped at once.
        if let Some(listener) = self.listeners.done.front().copied() {
            return Some(self.listener_closed(listener));
        }
        if self.table.outgoing == 0 {
            self.turn.closes = self.table.closes.len();
        }
        self.turn.phase = Phase::Closes;
        None
    }

    #[inline(never)]
    fn expire_sockets(&mut self) -> Option<Emit> {
        self.look_at_clock();
        while let Some(slot) = self.table.pop_due(self.turn.now, &mut self.turn.timers) {
            self.due(slot);
            // Its event is delivered at once if there is one; otherwise the socket is put aside, or
            // waits in its list, where another deadline can strike it.
            let flags = self.table.entry(slot).flags;
            if flags.has(Flags::QUEUED) && !flags.has(Flags::PENDING) {
                self.table.refile(slot);
            } else if let Some(emit) = self.serve_due(slot) {
                return Some(emit);
            }
        }
        None
    }

    /// A socket's filed time has passed; its true deadline may be later.
    fn due(&mut self, slot: u32) {
        let deadline = self.table.deadline(slot).filter(|(due, _)| *due <= self.turn.now);
        let Some((due, what)) = deadline else { return };
        let (entry, settings, _) = self.table.parts(slot);
        if entry.flags.has(Flags::DESTROY) {
            return; // It is queued, and delivers no event of a timer.
        }
        let is_known = what.is_for(IdleDirection::Write, settings) && self.query_taken(slot);
        if self.table.deadline(slot) != deadline {
            // The new deadline, or another, may have passed, too.
            return self.due(slot);
        }
        if !matches!(what, Due::Attempt | Due::Retry) {
            self.counts.struck(self.turn.now - due);
        }
        match what {
            Due::Limit(timer) => self.expired(slot, timer, deadline, is_known),
            Due::Attempt => self.continue_connecting(slot),
            Due::Retry => self.table.retry(slot, self.turn.now),
            Due::Grace if self.table.entry(slot).state == State::Broken => self.at(slot).fail_broken(),
            Due::Grace => self.end_idle(slot),
            Due::Idle => {
                self.table.entry_mut(slot).stop_idle_clock();
                self.apply(slot, Input::Idle);
            }
        }
    }

    /// Ends an idle socket, or lets it say farewell first.
    pub(super) fn end_idle(&mut self, slot: u32) {
        let (settings, state) = (self.table.settings_of(slot), self.table.entry(slot).state);
        if settings.farewell == Farewell::Fin || state != State::Open {
            self.table.entry_mut(slot).flags.set(Flags::END, true);
        } else {
            self.table.change_settings(slot, |settings| settings.farewell = Farewell::Due);
            self.apply(slot, Input::Idle);
        }
        self.table.wake(slot);
    }

    /// A limit of silence has passed, as far as finale can see: restarts it if the peer has taken
    /// bytes meanwhile. Our kernel may hold megabytes, and reports when the peer last took some; if
    /// it can't, it may have room for bytes that wait. If a call lacks memory, the limit waits for
    /// its repetition. Returns whether the kernel has reported.
    fn query_taken(&mut self, slot: u32) -> bool {
        let before = |entry: &Entry| (entry.bytes_written, entry.state);
        let (written, state) = before(self.table.entry(slot));
        if !state.is_connected() || state == State::Broken {
            return false;
        }
        let query = |net: &mut N| if written > 0 { net.time_since_acked(slot) } else { Ok(None) };
        let mut taken = query(&mut self.net);
        if taken.as_ref().is_err_and(|error| self.frees_descriptor(error)) {
            taken = query(&mut self.net);
        }
        if let Ok(Some(ago)) = taken {
            let now = self.net.now();
            let at = self.table.epoch.tick_after(now.checked_sub(ago).unwrap_or(now));
            self.table.peer_took(slot, at);
            return true;
        }
        if taken.is_err_and(|error| is_transient(&error)) {
            self.table.extra_mut(slot).retry_later();
        }
        if self.table.queued_bytes(slot) > 0 {
            // If there was no room at the last write and there is now, the peer has taken bytes.
            self.table.entry_mut(slot).flags.set(Flags::WRITABLE, true);
            self.at(slot).flush();
            if before(self.table.entry(slot)) != (written, state) {
                self.table.wake(slot);
            }
        }
        false
    }

    /// A limit has expired. A connection that was dead already reports its own error; while that is
    /// unknown, because the query lacked memory, the deadline waits. `is_known`: the kernel has
    /// reported what the peer has taken.
    fn expired(&mut self, slot: u32, timer: TimeoutKind, deadline: Option<(u64, Due)>, is_known: bool) {
        let failure = ConnectionError::of(ConnectionErrorKind::TimedOut(timer));
        if !self.table.entry(slot).state.is_connected() {
            self.expire_connecting(slot, failure);
        } else if !self.at(slot).ends_by_itself() && self.table.deadline(slot) == deadline {
            self.at(slot).expire(failure, is_known);
        }
    }

    fn close(&mut self) -> Option<Emit> {
        if self.turn.closes > 0
            && let Some(slot) = self.table.pop_close()
        {
            self.turn.closes -= 1;
            if self.turn.closes > 0 && self.turn.closes.is_multiple_of(STEPS_PER_LOOK) && self.is_due() {
                // The others are delivered in the next turn.
                self.turn.closes = 0;
            }
            self.report_ending(slot);
            return Some(self.emit(slot, Input::CloseDue, Emits::Close));
        }
        self.turn.phase = Phase::Poll;
        None
    }

    /// The socket has delivered `close`, and the caller has handled it.
    fn forget(&mut self, slot: u32) {
        if let (Some(listener), was_overflow) = self.table.remove(slot) {
            self.listeners.closed(listener, was_overflow);
        }
    }
}

/// Records the readiness of one connection. A flag is only a hint.
#[inline]
fn note(table: &mut Table, token: Token, readiness: Readiness) {
    let Some(slot) = table.find_here(token.index, token.generation) else { return };
    let over = readiness.error || readiness.write_closed;
    let when = |is: bool, flag: Flags| if is { flag } else { Flags::NONE };
    let mut flags = when(readiness.readable || readiness.read_closed || over, Flags::READABLE)
        | when(readiness.writable || over, Flags::WRITABLE)
        | when(readiness.write_closed, Flags::HANGUP)
        | when(readiness.error, Flags::ERROR);
    if readiness.read_closed {
        let entry = table.entry(slot);
        // The limit of a half-closed socket starts, whether the FIN was read or not.
        let is_new = entry.state.is_connected() && !entry.flags.has(Flags::READ_CLOSED);
        flags = flags | Flags::READ_CLOSED | when(is_new, Flags::LIMIT);
    }
    table.wake_with(slot, flags);
}
