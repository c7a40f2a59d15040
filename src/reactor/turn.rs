//! One pass of the loop: poll, sockets, listeners, timers, closes; in this order, again and again. While connections come,
//! sockets and listeners take turns before it goes on.
//!
//! Sockets come before listeners, so that a client's `connect` is told before the server's `connection`; timers after
//! sockets, so that bytes that came in the millisecond of a deadline count; closes last, and only those that fell due in
//! an earlier turn, so that a poll lies between: the other side's `data` and `end` are told before our `close`. Where no
//! socket is an outgoing one, no other side can be here, and a `close` waits for no poll.

use std::time::{Duration, Instant};

use super::tell::{Told, What};
use super::{Reactor, system};
use crate::error::{Error, Failure, Timer};
use crate::lifecycle::{Input, State, Tell};
use crate::net::{Net, Readiness, Token};
use crate::table::Due;
use crate::table::entry::Flags;

/// Calls of poll that one turn makes at the most while more news waits than fits into one: without them an idle timer
/// could fire for a socket whose data lies behind the first thousand. With fewer than 64 Ki ready sockets all are seen.
const POLLS_PER_TURN: u32 = 64;

/// Steps of one socket in a turn: its data, its end, the answer to them.
const STEPS_EACH: usize = 3;

/// Steps of all sockets in one turn: so many for each that was ready when it began, as many for each that is accepted in it,
/// and some more for programs with few sockets that write to each other.
const fn steps(ready: usize) -> usize {
    STEPS_EACH * ready + 64
}

/// Timers looked at in one turn, of sockets and free ones each: a million that are due together are spread over a thousand turns, with the sockets served
/// in between.
const TIMERS_PER_TURN: u32 = 1024;

/// Connections accepted from one poll to the next, over all listeners: enough to spread the cost of a poll, few enough that
/// those who are served already don't wait.
pub(super) const ACCEPTS_PER_POLL: usize = 16;

#[derive(Debug, Clone, Copy)]
enum Phase {
    Poll,
    Sockets,
    Listeners,
    Timers,
    Closes,
}

/// Where the present turn is, and what it may still do.
#[derive(Debug)]
pub(super) struct Turn {
    phase: Phase,
    steps: usize,
    /// Connections that may be accepted before the next poll.
    accepts: usize,
    /// This round has accepted somebody.
    accepted: bool,
    timers: u32,
    free_timers: u32,
    closes: usize,
    /// There was a wake before this turn, not told yet. One that comes now is the next turn's.
    woken: bool,
    /// The tick of this turn's look at the clock, after poll.
    pub(super) now: u64,
}

impl Turn {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::Poll,
            steps: 0,
            accepts: 0,
            accepted: false,
            timers: 0,
            free_timers: 0,
            closes: 0,
            woken: false,
            now: 0,
        }
    }
}

impl Turn {
    /// A connection was accepted.
    pub(super) const fn accepted(&mut self) {
        self.accepts -= 1;
        self.steps += STEPS_EACH;
        self.accepted = true;
    }

    /// A connection was accepted and reset.
    pub(super) const fn dropped(&mut self) {
        self.accepts -= 1;
    }

    /// Whether phases of the present turn are still to come.
    pub(super) const fn is_under_way(&self) -> bool {
        !matches!(self.phase, Phase::Poll)
    }
}

impl<N: Net> Reactor<N> {
    /// Goes on with the turn, and with the next, up to the next event.
    pub(super) fn advance(&mut self, until: Option<Instant>) -> Option<Told> {
        self.settle_told();
        let mut turns = 0;
        loop {
            let told = match self.turn.phase {
                Phase::Poll => {
                    if self.nothing_is_left() || (turns > 0 && until.is_some_and(|until| until <= self.net.now())) {
                        return None;
                    }
                    if let Err(error) = self.poll(until) {
                        self.cant_wait = Some(error);
                        return None;
                    }
                    turns += 1;
                    None
                }
                Phase::Sockets => self.serve(),
                Phase::Listeners => self.accept(),
                Phase::Timers => self.expire(),
                Phase::Closes => self.close(),
            };
            if told.is_some() {
                return told;
            }
        }
    }

    /// Whether no event can ever come any more.
    fn nothing_is_left(&self) -> bool {
        self.table.len() == 0 && self.listeners.is_empty() && self.timers.is_empty() && !self.shared.may_wake()
    }

    /// Whether a turn has something to do without any news.
    pub(super) fn has_work(&self) -> bool {
        self.table.has_work() || self.listeners.has_work()
    }

    /// Waits for news, takes it in, and begins a turn.
    #[inline(never)]
    fn poll(&mut self, until: Option<Instant>) -> Result<(), Error> {
        let mut wait_until = self.wait_until(until);
        for _ in 0..POLLS_PER_TURN {
            let (table, listeners) = (&mut self.table, &mut self.listeners);
            let ready = &mut |token: Token, readiness: Readiness| match token.generation {
                0 => listeners.ready(token.index),
                _ => take_in(table, token, readiness),
            };
            let polled = self.net.poll(wait_until, ready).map_err(|error| system("epoll_wait", &error))?;
            // Deadlines are compared with the time up to which the readiness is complete, and not with the present one:
            // what arrives between the system's answer and a look at the clock has arrived in time.
            self.turn.now = self.tick_before(polled.complete_until);
            if !polled.more {
                break;
            }
            wait_until = Some(polled.complete_until);
        }
        while let Some((token, answer)) = self.net.looked_up() {
            self.looked_up(token, answer);
        }
        self.counts.turns += 1;
        self.listeners.rested(self.turn.now);
        self.listeners_due(self.turn.now);
        self.turn.closes = self.table.closes_len();
        self.turn.woken = self.shared.take_woken();
        self.turn.timers = TIMERS_PER_TURN;
        self.turn.free_timers = TIMERS_PER_TURN;
        self.turn.accepts = ACCEPTS_PER_POLL;
        self.table.begin_turn();
        self.turn.steps = steps(self.table.ready_len());
        self.begin_round();
        Ok(())
    }

    /// One round of the two phases that take turns while connections come.
    const fn begin_round(&mut self) {
        self.turn.accepted = false;
        self.turn.phase = Phase::Sockets;
    }

    /// Until when poll may wait.
    fn wait_until(&self, until: Option<Instant>) -> Option<Instant> {
        if self.has_work() {
            return Some(self.epoch);
        }
        let due = self.next_due().and_then(|due| self.epoch.checked_add(Duration::from_millis(due)));
        [due, until].into_iter().flatten().min()
    }

    #[inline]
    fn serve(&mut self) -> Option<Told> {
        while self.turn.steps > 0
            && let Some(slot) = self.table.pop_ready()
        {
            self.turn.steps -= 1;
            match self.work(slot) {
                None => self.settle(slot),
                told => return told,
            }
        }
        self.turn.phase = Phase::Listeners;
        None
    }

    fn accept(&mut self) -> Option<Told> {
        while self.turn.accepts > 0
            && let Some(listener) = self.listeners.next_ready()
        {
            let told = self.accept_from(listener);
            if told.is_some() {
                return told;
            }
        }
        // Who was accepted is served, and more are looked for, before there is a poll, unless somebody was put off to the next
        // turn.
        if self.turn.accepted && !self.table.has_later() {
            self.begin_round();
        } else {
            self.turn.phase = Phase::Timers;
        }
        None
    }

    #[inline(never)]
    fn expire(&mut self) -> Option<Told> {
        if std::mem::take(&mut self.turn.woken) {
            return Some(Told::of_none(What::Woken));
        }
        if let Some(listener) = self.listeners.next_closed() {
            return Some(self.listener_closed(listener));
        }
        let now = self.turn.now;
        while let Some(slot) = self.table.pop_due(now, &mut self.turn.timers) {
            if let Some(told) = self.due(slot) {
                return Some(told);
            }
        }
        if let Some(timer) = self.timers.pop_due(now, &mut self.turn.free_timers) {
            return Some(Told::of_none(What::Timer(timer)));
        }
        if self.table.outgoing() == 0 {
            self.turn.closes = self.table.closes_len();
        }
        self.turn.phase = Phase::Closes;
        None
    }

    /// A socket's filed time has come: perhaps only that.
    fn due(&mut self, slot: u32) -> Option<Told> {
        let entry = self.table.entry(slot);
        if entry.flags.has(Flags::DESTROY) {
            return None; // It is queued, and tells nothing any more.
        }
        let unread = entry.flags.has(Flags::QUEUED) && entry.has_input();
        let deadline = self.table.deadline_at(slot);
        if let Some(due) = deadline.filter(|due| *due <= self.turn.now) {
            self.counts.struck(self.turn.now - due);
            self.expired(slot, Timer::Deadline);
            return self.tell_owed(slot);
        }
        let entry = self.table.entry(slot);
        if entry.flags.has(Flags::TOUCHED) || unread {
            // Bytes have moved since it was filed, or may be waiting to be read: it is filed again when that is done. A deadline
            // does not wait for that.
            self.table.file_deadline(slot);
            return None;
        }
        if let Some((due, Due::Idle | Due::Limit(_))) = self.table.deadline(slot)
            && due <= self.turn.now
        {
            self.look_what_was_taken(slot);
        }
        match self.table.deadline(slot) {
            Some((due, Due::Idle)) if due <= self.turn.now => {
                self.counts.struck(self.turn.now - due);
                self.idle(slot);
            }
            Some((due, Due::Limit(timer))) if due <= self.turn.now => {
                self.counts.struck(self.turn.now - due);
                self.expired(slot, timer);
            }
            Some((due, Due::Attempt)) if due <= self.turn.now => self.next_attempt(slot),
            _ => {}
        }
        self.table.refile(slot);
        self.tell_owed(slot)
    }

    /// A silence has lasted for as long as it may, as far as can be seen from here. If our kernel, which may hold megabytes, has passed some of
    /// them on meanwhile, it has not.
    fn look_what_was_taken(&mut self, slot: u32) {
        let entry = self.table.entry(slot);
        if !entry.state.is_connected() || entry.bytes_written == 0 {
            return;
        }
        let Some(ago) = self.net.time_since_acked(slot) else { return };
        let now = self.net.now();
        let at = self.tick_after(now.checked_sub(ago).unwrap_or(now));
        self.table.taken(slot, at);
    }

    /// Nothing has moved for the idle time.
    fn idle(&mut self, slot: u32) {
        self.table.entry_mut(slot).flags.set(Flags::IDLE_TOLD, true);
        if !self.table.settings_of(slot).stopping {
            self.apply(slot, Input::Idle);
        } else if !self.table.entry(slot).heard_last() && self.table.queued_bytes(slot) == 0 {
            self.table.entry_mut(slot).flags.set(Flags::END, true);
            self.table.push_ready(slot);
        }
    }

    /// A limit has run out. A connection that was dead already, behind bytes that nobody read, says what it died of.
    fn expired(&mut self, slot: u32, timer: Timer) {
        if self.table.entry(slot).state == State::Connecting {
            self.ask_for_last_verdicts(slot);
            if self.table.entry(slot).state == State::Connecting {
                self.fail(slot, Failure::of(crate::error::Cause::TimedOut(timer)), Input::Expired);
            }
            return;
        }
        let flags = self.table.entry(slot).flags;
        if flags.has(Flags::BROKEN) {
            self.fail_broken(slot);
        } else if flags.has(Flags::LOOK)
            && let Some(error) = self.net.take_error(slot)
        {
            self.fail_with(slot, &error);
        } else {
            self.fail(slot, Failure::of(crate::error::Cause::TimedOut(timer)), Input::Expired);
        }
    }

    fn close(&mut self) -> Option<Told> {
        if self.turn.closes > 0
            && let Some(slot) = self.table.pop_close()
        {
            self.turn.closes -= 1;
            let ended_in = self.table.entry(slot).state;
            self.apply(slot, Input::CloseDue);
            self.table.entry_mut(slot).flags.paid(Tell::Close);
            return Some(self.tell(slot, What::Close(ended_in)));
        }
        self.turn.phase = Phase::Poll;
        None
    }

    /// The socket has told `close`, and the caller has handled it.
    #[inline]
    fn forget(&mut self, slot: u32) {
        let listener = self.table.settings_of(slot).listener;
        self.table.remove(slot);
        if let Some(listener) = listener {
            self.listeners.gone(listener);
        }
    }

    /// Looks after the socket whose event the caller had.
    #[inline]
    fn settle_told(&mut self) {
        if let Some(slot) = self.told.take() {
            if self.table.entry(slot).state == State::Closed {
                self.forget(slot);
            } else {
                self.settle(slot);
            }
        }
    }
}

/// Notes the news of one connection. A flag is a reason to ask, never an answer.
fn take_in(table: &mut crate::table::Table, token: Token, news: Readiness) {
    let Some(slot) = table.find(crate::id::SocketId::new(token.index, token.generation)) else {
        return;
    };
    let over = news.error || news.write_closed;
    let entry = table.entry_mut(slot);
    if news.readable || news.read_closed || over {
        entry.flags.set(Flags::READABLE, true);
    }
    if news.writable || over {
        entry.flags.set(Flags::WRITABLE, true);
    }
    if over {
        entry.flags.set(Flags::LOOK, true);
    }
    // A handshake that is under way has no peer that could have finished; its verdict is asked for later.
    if news.read_closed && !entry.flags.replace(Flags::READ_CLOSED, true) {
        // The limit of a half-closed socket begins to count, read or not.
        entry.flags.set(Flags::TOUCHED, true);
        table.renew_limit(slot);
    }
    table.push_ready(slot);
}
