//! The deadlines of a socket, and the time from which each counts.
//!
//! ARCHITECTURE.md lists the four clocks. When something happens, a flag marks a clock to be
//! restarted. The restart itself is here, with one look at the time, soon after the socket was put
//! aside. Deadlines count from one moment, and nothing restarts them.
//!
//! Invariant: a socket that is put aside has its nearest deadline filed, or an earlier one; or it
//! is among those that are filed at the next look at the clock.

use super::Table;
use super::entry::{Entry, Flags, NIL};
use super::extra::{Deadline, Extra};
use crate::error::TimeoutKind;
use crate::lifecycle::State;
use crate::options::{Farewell, IdleDirection, Settings};

/// Bytes that the peer's kernel takes within this time after they were written count as taken at
/// once. The real kernel reports the time to within two of its ticks of 10 ms at most. Such bytes
/// restart no clock.
pub(crate) const AT_ONCE_TICKS: u64 = 20;

/// How long a call waits after the system had no memory or no room for it, in ticks.
pub(super) const RETRY_TICKS: u64 = 20;

/// Where a deadline comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    /// A limit that ends the socket.
    Limit(TimeoutKind),
    /// The next address joins the race.
    Attempt,
    /// A call is tried again.
    Retry,
    /// Our side ends: the listener stops, and the socket is idle.
    Grace,
    /// The caller's idle time: an event.
    Idle,
}

impl Due {
    /// Its name for people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Limit(TimeoutKind::Connect) => "connect timeout",
            Self::Limit(TimeoutKind::HalfClosed) => "half-closed timeout",
            Self::Limit(TimeoutKind::Close) => "close timeout",
            Self::Limit(TimeoutKind::Write) => "write timeout",
            Self::Limit(TimeoutKind::Deadline) => "deadline",
            Self::Limit(TimeoutKind::Ending) => "ending timeout",
            Self::Limit(TimeoutKind::Kernel) => "kernel",
            Self::Attempt => "next address",
            Self::Retry => "retry",
            Self::Grace => "grace of the stop",
            Self::Idle => "idle timeout",
        }
    }

    /// The clock that it counts by, if any.
    pub(crate) const fn clock(self) -> Flags {
        match self {
            Self::Limit(TimeoutKind::Write) => Flags::WRITE,
            Self::Limit(TimeoutKind::HalfClosed | TimeoutKind::Close) => Flags::LIMIT,
            Self::Grace => Flags::GRACE,
            Self::Idle => Flags::IDLE,
            Self::Limit(_) | Self::Attempt | Self::Retry => Flags::NONE,
        }
    }

    /// Whether it counts from a clock, and not from one moment.
    pub(crate) fn is_relative(self) -> bool {
        self.clock() != Flags::NONE
    }

    /// Whether bytes could postpone it that are read, or that the peer takes.
    pub(crate) fn is_for(self, direction: IdleDirection, settings: &Settings) -> bool {
        match self {
            Self::Limit(TimeoutKind::HalfClosed) | Self::Grace => true,
            Self::Limit(TimeoutKind::Close | TimeoutKind::Write) => direction == IdleDirection::Write,
            Self::Idle => settings.idle_direction.includes(direction),
            Self::Limit(_) | Self::Attempt | Self::Retry => false,
        }
    }
}

impl Entry {
    /// The limit of the present state, in milliseconds.
    fn limit(&self, settings: &Settings) -> Option<(u64, TimeoutKind)> {
        let (ms, timer) = match self.state {
            State::Created | State::Resolving | State::Connecting => (settings.connect_ms, TimeoutKind::Connect),
            // Open, unless the peer is known to have finished: the caller does not read on, or a
            // layer has read another end than a FIN.
            State::Open if !self.flags.has(Flags::READ_CLOSED) && !settings.peer_finished => return None,
            State::Open | State::LocalFinished | State::PeerFinished | State::Broken => {
                (settings.half_closed_ms, TimeoutKind::HalfClosed)
            }
            State::Flushing | State::Lingering | State::LastFlush | State::Closing => {
                (settings.close_ms, TimeoutKind::Close)
            }
            State::Confirmed
            | State::HandedOff
            | State::ResetByPeer
            | State::ResetByUs
            | State::TimedOut
            | State::NotConnected
            | State::Closed => return None,
        };
        ms.map(|ms| (ms, timer))
    }

    /// Whether our side has not ended, and the peer waits for nothing.
    pub(crate) fn is_idle(&self, extra: Option<&Extra>) -> bool {
        // A peer that has finished waits for the rest of its answer; a paused one waits for the
        // program.
        let is_busy = self.heard_last || extra.is_some_and(Extra::has_bytes);
        self.state == State::Open && !is_busy && !self.flags.has(Flags::END | Flags::STOPPED)
    }

    /// The stop's grace, while it applies.
    fn grace(&self, settings: &Settings, extra: Option<&Extra>) -> Option<u64> {
        let counts = || settings.farewell != Farewell::Due && self.is_idle(extra);
        settings.grace_ms.filter(|_| counts() || self.state == State::Broken)
    }

    /// The write timeout, while it applies. After `end()` the close timeout applies instead.
    fn write_limit(&self, settings: &Settings, extra: Option<&Extra>) -> Option<u64> {
        let counts = || extra.is_some_and(Extra::has_bytes) && matches!(self.state, State::Open | State::PeerFinished);
        settings.write_ms.filter(|_| counts())
    }

    /// Whether a `timeout` event may be delivered.
    fn may_idle(&self) -> bool {
        self.state.is_connected() && !matches!(self.state, State::Closing | State::Lingering)
    }

    /// Whether one side has ended: the ending timeout applies.
    fn is_ending(&self, settings: &Settings) -> bool {
        let has_end = || self.flags.has(Flags::READ_CLOSED) || settings.peer_finished;
        self.state.is_connected() && (self.state != State::Open || has_end())
    }

    /// The usual case: an open connection, to which no deadline but that of its idle time can apply.
    /// After `Socket::set_peer_finished` its limits are in the extra.
    #[inline]
    fn can_only_idle(&self, settings: &Settings) -> bool {
        self.state == State::Open
            && self.extra == NIL
            && settings.grace_ms.is_none()
            && !self.flags.has(Flags::READ_CLOSED)
    }

    /// Bytes moved in a direction: marks the clocks that they restart.
    #[inline]
    pub(crate) fn moved(&mut self, direction: IdleDirection, settings: &Settings) {
        let idle = settings.idle_direction.includes(direction);
        self.flags.set(Flags::IDLE, idle || self.flags.has(Flags::IDLE));
        self.heard_last = direction == IdleDirection::Read;
        if direction == IdleDirection::Write {
            self.flags.set(Flags::LIMIT | Flags::WRITE | Flags::GRACE, true);
        } else if !self.state.is_flushing() && self.state != State::Lingering {
            // A peer that only sends does not postpone our end.
            self.flags.set(Flags::LIMIT | Flags::GRACE, true);
        }
    }
}

impl Table {
    /// The nearest deadline that can strike a socket now, in ticks, and where it comes from. If the
    /// socket is queued, its next step comes before those that this step can postpone: by bytes that
    /// have arrived, by `end` or `discard`, or by bytes that there may be room for.
    #[inline]
    pub(crate) fn deadline(&self, slot: u32) -> Option<(u64, Due)> {
        let (entry, settings, extra) = self.parts(slot);
        // A call that lacked memory is repeated first: the peer may have acted in time.
        let waits = extra.is_some_and(|extra| extra.retry_at.is_some() && !extra.has_waited);
        let is_postponed = |due: Due| {
            let has_input = entry.has_input() && due.is_for(IdleDirection::Read, settings);
            let is_queued = entry.flags.has(Flags::QUEUED);
            let has_call = || due.is_relative() && (entry.has_end_due(settings) || entry.has_discard_due());
            let has_output = || due.is_for(IdleDirection::Write, settings) && entry.has_output(extra);
            let is_next = || has_input || entry.flags.has(due.clock()) || has_call() || has_output();
            (waits && due.is_relative()) || (is_queued && is_next())
        };
        self.nearest(slot, None, |due| !is_postponed(due))
    }

    /// Whether a deadline that counts from a clock has passed.
    fn is_over(&self, slot: u32, now: u64) -> bool {
        self.nearest(slot, None, Due::is_relative).is_some_and(|(due, _)| due <= now)
    }

    /// The pause before a repeated call is over: a step is needed at once. A deadline that has passed
    /// meanwhile waits for no other repetition.
    pub(crate) fn retry(&mut self, slot: u32, now: u64) {
        let has_waited = self.is_over(slot, now);
        let extra = self.extra_mut(slot);
        (extra.retry_at, extra.has_waited) = (None, has_waited);
        let entry = self.entry_mut(slot);
        let mut flags = Flags::SOON;
        if entry.state.is_connected() {
            flags = flags | Flags::READABLE | Flags::WRITABLE;
            if matches!(entry.state, State::Closing | State::Broken) {
                flags = flags | Flags::HANGUP;
            }
            // Nothing has reported an error of one that could not be registered.
            if !entry.flags.has(Flags::REGISTERED) {
                flags = flags | Flags::ERROR;
            }
        }
        entry.flags.set(flags, true);
    }

    /// The nearest deadline of those that count, with the clocks that are marked counted from `now`.
    pub(crate) fn nearest(&self, slot: u32, now: Option<u64>, counts: impl Fn(Due) -> bool) -> Option<(u64, Due)> {
        let (entry, settings, extra) = self.parts(slot);
        if entry.state.is_final() {
            return None;
        }
        let since = |since: Option<u64>, ms: u64, due: Due| {
            let since = now.filter(|_| entry.flags.has(due.clock())).or(since);
            since.map(|since| (since.saturating_add(ms), due))
        };
        let limit_since = extra.and_then(|extra| extra.limit_since);
        let limit = entry.limit(settings).and_then(|(ms, timer)| since(limit_since, ms, Due::Limit(timer)));
        let write_since = extra.and_then(|extra| extra.write_since);
        let write =
            entry.write_limit(settings, extra).and_then(|ms| since(write_since, ms, Due::Limit(TimeoutKind::Write)));
        let grace_since = extra.and_then(|extra| extra.grace_since);
        let grace = entry.grace(settings, extra).and_then(|ms| since(grace_since, ms, Due::Grace));
        let idle_ms = settings.idle_ms.filter(|_| entry.may_idle());
        let idle = idle_ms.and_then(|ms| since(entry.idle_since(), ms, Due::Idle));
        let at = |at: Option<u64>, due: Due| at.map(|at| (at, due));
        let (mut deadline, mut ending, mut retry, mut attempt) = (None, None, None, None);
        if let Some(extra) = extra {
            deadline = at(extra.deadline.and_then(Deadline::at), Due::Limit(TimeoutKind::Deadline));
            ending = at(extra.ending_at, Due::Limit(TimeoutKind::Ending));
            retry = at(extra.retry_at.and_then(Deadline::at), Due::Retry);
            attempt = at(extra.connecting.as_ref().and_then(|connecting| connecting.attempt_due), Due::Attempt);
        }
        // At the same tick a limit that ends the socket takes precedence over an event about its
        // silence.
        let all = [deadline, ending, limit, write, attempt, retry, grace, idle].into_iter().flatten();
        all.filter(|(_, due)| counts(*due)).min_by_key(|(at, _)| *at)
    }

    /// The deadline of a socket that is put aside, or that the program has changed, is filed at the
    /// next look at the clock, if it can have one.
    #[inline]
    pub(crate) fn file_later(&mut self, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        let settings = self.settings.get(entry.settings);
        if settings.idle_ms.is_none() && entry.can_only_idle(settings) {
            entry.flags.set(Flags::CLOCKS, false);
            self.wheel.cancel(&mut self.entries, slot);
        } else {
            self.unfiled.push(slot);
        }
    }

    #[inline(always)]
    pub(crate) fn file_all(&mut self, now: u64) {
        while let Some(slot) = self.unfiled.pop() {
            self.file(slot, now);
        }
    }

    /// Restarts the marked clocks from `now`, and files the nearest deadline. A socket that was
    /// removed leaves nothing to do; if its slot has another socket, filing that does no harm.
    #[inline(always)]
    pub(super) fn file(&mut self, slot: u32, now: u64) {
        let Some(entry) = self.entries.get_mut(slot as usize) else { return };
        // A reserved slot has none.
        let Some(settings) = self.settings.find(entry.settings) else { return };
        if let Some(ms) = settings.idle_ms
            && entry.can_only_idle(settings)
            && entry.flags.has(Flags::IDLE)
            && entry.timer.put_off(now.saturating_add(ms))
        {
            entry.set_idle_since(now);
            entry.flags.set(Flags::CLOCKS, false);
        } else {
            self.file_any(slot, now);
        }
    }

    #[inline(never)]
    fn file_any(&mut self, slot: u32, now: u64) {
        let (entry, settings, extra) = self.parts(slot);
        let has_limit = entry.limit(settings).is_some();
        let has_grace = entry.grace(settings, extra).is_some();
        let has_write = entry.write_limit(settings, extra).is_some();
        let ending_ms = settings.ending_ms.filter(|_| entry.is_ending(settings));
        let has_ending = extra.is_some_and(|extra| extra.ending_at.is_some());
        let ending_changes = ending_ms.is_some() != has_ending;
        // A clock that no longer applies keeps no time.
        let is_stale = extra.is_some_and(|extra| {
            let clocks =
                [(extra.limit_since, has_limit), (extra.write_since, has_write), (extra.grace_since, has_grace)];
            clocks.into_iter().any(|(since, applies)| since.is_some() && !applies)
        });
        if entry.flags.has(Flags::CLOCKS) || ending_changes || is_stale || extra.is_some_and(Extra::has_relative) {
            let flags = entry.flags;
            let entry = &mut self.entries[slot as usize];
            entry.flags.set(Flags::CLOCKS, false);
            if flags.has(Flags::IDLE) {
                entry.set_idle_since(now);
            }
            if has_limit || has_write || has_grace || ending_changes || entry.extra != NIL {
                let extra = self.extras.get_or_make(&mut entry.extra);
                let restart = |clock: &mut Option<u64>, flag: Flags, applies: bool| {
                    let since = clock.filter(|_| !flags.has(flag)).unwrap_or(now);
                    *clock = applies.then_some(since);
                };
                restart(&mut extra.limit_since, Flags::LIMIT, has_limit);
                restart(&mut extra.write_since, Flags::WRITE, has_write);
                restart(&mut extra.grace_since, Flags::GRACE, has_grace);
                extra.ending_at = ending_ms.map(|ms| extra.ending_at.unwrap_or(now.saturating_add(ms)));
                extra.begin(now);
                self.extras.release_if_empty(&mut entry.extra);
            }
        }
        if self.extra(slot).is_some_and(|extra| extra.has_waited) && !self.is_over(slot, now) {
            self.extra_mut(slot).has_waited = false;
            self.tidy(slot);
        }
        self.refile(slot);
    }

    /// Files the nearest deadline as it is, or takes the timer out of the wheel.
    pub(crate) fn refile(&mut self, slot: u32) {
        match self.deadline(slot) {
            Some((due, _)) => self.wheel.file(&mut self.entries, slot, due),
            None => self.wheel.cancel(&mut self.entries, slot),
        }
    }

    /// The peer's kernel has taken bytes from ours at this tick. They count as if they had been
    /// written then.
    pub(crate) fn peer_took(&mut self, slot: u32, at: u64) {
        let later = |since: &mut u64| *since = if at > since.saturating_add(AT_ONCE_TICKS) { at } else { *since };
        let idle_direction = self.settings_of(slot).idle_direction;
        let entry = &mut self.entries[slot as usize];
        if let Some(mut since) = entry.idle_since().filter(|_| idle_direction != IdleDirection::Read) {
            later(&mut since);
            entry.set_idle_since(since);
        }
        if self.extras.get(entry.extra).is_some() {
            let extra = self.extras.get_or_make(&mut entry.extra);
            let clocks = [&mut extra.limit_since, &mut extra.write_since, &mut extra.grace_since];
            clocks.into_iter().flatten().for_each(later);
        }
    }

    /// A layer has read the peer's end, which is no FIN, at this tick.
    pub(crate) fn peer_finished(&mut self, slot: u32, now: u64) {
        self.change_settings(slot, |settings| settings.peer_finished = true);
        // With an extra it is no longer a socket that can only be idle.
        self.extra_mut(slot).limit_since = Some(now);
        self.file_later(slot);
    }

    /// The next socket whose filed time has passed; its true deadline may be later.
    pub(crate) fn pop_due(&mut self, now: u64, budget: &mut u32) -> Option<u32> {
        self.wheel.pop_due(&mut self.entries, now, budget)
    }
}

impl Extra {
    /// Whether a time has to be counted from the next look at the clock.
    pub(super) fn has_relative(&self) -> bool {
        matches!(self.deadline, Some(Deadline::In(_))) || matches!(self.retry_at, Some(Deadline::In(_)))
    }

    /// Counts such times from this tick.
    fn begin(&mut self, now: u64) {
        for deadline in [&mut self.deadline, &mut self.retry_at].into_iter().flatten() {
            if let Deadline::In(ms) = *deadline {
                *deadline = Deadline::At(now.saturating_add(ms));
            }
        }
    }
}

impl Deadline {
    fn at(self) -> Option<u64> {
        if let Self::At(tick) = self { Some(tick) } else { None }
    }
}

#[cfg(test)]
mod tests;
