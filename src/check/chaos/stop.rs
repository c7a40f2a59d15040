//! A listener that stops during a run: when its grace and its limit are due.
//!
//! Invariant: a stop calls `end` after the grace, or delivers `timeout` to a program that says
//! farewell. After the grace it also ends a connection that is dead, read to its end or not, and at
//! the limit every other one with a reset. It does nothing else to a socket.

use super::limits::{self, Clock};
use super::rules::is_shortage;
use super::socket_model::SocketModel;
use crate::check::{Rule, Violation, must};
use crate::lifecycle::State;
use crate::options::IdleDirection;
use crate::sim::truth::Truth;
use crate::socket::Socket;

/// The times of a stop, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct StopTimes {
    pub(super) at: u64,
    pub(super) grace: Option<u64>,
    pub(super) spread: u64,
    pub(super) limit: Option<u64>,
}

/// What a program has said about the end of the grace.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Farewell {
    /// It gets a `timeout` instead of our FIN.
    wanted: bool,
    /// That was delivered.
    due: bool,
    /// How many bytes had moved when it last said whether the peer waits, what it said, and when.
    said: Option<(u64, bool)>,
    said_at: u64,
}

impl Farewell {
    pub(super) fn want(&mut self, socket: &mut Socket<'_>) {
        socket.set_farewell(true);
        self.wanted = true;
    }

    /// The peer waits for nothing.
    pub(super) fn answered(&mut self, socket: &mut Socket<'_>, now: u64) {
        socket.set_answered();
        self.say(false, socket, now);
    }

    /// In the `timeout`: the peer waits for an answer.
    pub(super) fn postpone(&mut self, socket: &mut Socket<'_>, now: u64) {
        socket.postpone_farewell();
        if std::mem::take(&mut self.due) {
            self.say(true, socket, now);
        }
    }

    fn say(&mut self, waits: bool, socket: &Socket<'_>, now: u64) {
        (self.said, self.said_at) = (Some((socket.bytes_read() + socket.bytes_written(), waits)), now);
    }

    pub(super) const fn is_due(&self) -> bool {
        self.due
    }

    /// Whether the peer waits for an answer.
    fn has_request(&self, truth: &Truth) -> bool {
        let said = self.said.filter(|(moved, _)| *moved == truth.moved(IdleDirection::Both));
        said.map_or(truth.heard_last, |(_, waits)| waits)
    }
}

impl StopTimes {
    /// From when a socket counts as idle for the grace, at the earliest and at the latest.
    fn idle_from(&self, model: &SocketModel, truth: &Truth) -> (u64, u64) {
        let earliest = self.at.max(truth.moved_at).max(model.connected_at).max(model.paused_until);
        let latest = earliest.max(truth.kernel.taken_at).max(model.end_at).max(model.farewell.said_at);
        (earliest, latest.max(model.peer_end_known_at(truth)))
    }
}

/// Notes what the stop of its listener did to a socket.
pub(super) fn update(
    model: &mut SocketModel,
    socket: &Socket<'_>,
    truth: &Truth,
    clock: Clock,
) -> Result<(), Violation> {
    let Some(stop) = model.stop else { return Ok(()) };
    if !model.end_called && socket.end_called() && truth.kernel.finished {
        let at = truth.kernel.finished_at;
        // What the peer takes counts, as far as it was known when the grace was over.
        let was_late = truth.errors.iter().any(|error| is_shortage(*error));
        let is_known = !was_late && truth.kernel.taken_at + clock.cost < at;
        let taken = if is_known { clock.acknowledged_from(truth) } else { 0 };
        let earliest = stop.idle_from(model, truth).0.max(taken);
        let due = stop.grace.map(|grace| earliest.saturating_add(grace));
        // If bytes have moved since, the time of the last ones before it is unknown.
        let in_time = truth.moved_at >= at || due.is_some_and(|due| at >= due);
        must(in_time, Rule::Timers, || format!("a stop ended it at {at} ns, and its grace was due at {due:?}"))?;
        must(!model.farewell.wanted, Rule::Language, || "a stop ended it without a farewell".to_owned())?;
        // While our FIN waited for memory, the peer may have sent a request and the program paused.
        let is_busy = truth.moved_at < at && (model.is_paused || model.farewell.has_request(truth));
        must(was_late || !is_busy, Rule::Timers, || "a stop ended a socket that is not idle".to_owned())?;
        // Our FIN may have left later than `end` was called.
        (model.end_called, model.ended_at, model.drain_pending) = (true, at.saturating_sub(clock.retry), false);
    }
    Ok(())
}

/// Whether this `timeout` is the farewell.
pub(super) fn is_farewell(model: &SocketModel, socket: &Socket<'_>) -> bool {
    socket.is_farewell_due() && !model.farewell.due
}

/// A farewell comes once, at the end of the grace, and where it is wanted.
pub(super) fn check_farewell(model: &mut SocketModel, truth: &Truth, clock: Clock) -> Result<(), Violation> {
    let due = model.stop.and_then(|stop| stop.idle_from(model, truth).0.checked_add(stop.grace?));
    let in_time = model.farewell.wanted && due.is_some_and(|due| clock.now >= due);
    must(in_time, Rule::Timers, || format!("a farewell, and the grace of a stop is due at {due:?}"))?;
    let is_busy = model.is_paused || model.end_called || model.farewell.has_request(truth);
    must(!is_busy, Rule::Timers, || "a farewell of a socket that is not idle".to_owned())?;
    model.farewell.due = true;
    Ok(())
}

/// When the limit of its listener's stop is due.
fn limit(model: &SocketModel) -> Option<u64> {
    model.stop.and_then(|stop| stop.at.checked_add(stop.limit?))
}

/// Whether that limit has expired: then it waits for no byte.
pub(super) fn may_have_expired(model: &SocketModel, clock: Clock) -> bool {
    limit(model).is_some_and(|due| clock.now >= due)
}

/// Whether the grace has expired, which ends a dead connection that the program has paused. It counts
/// from the death, which the last call that failed has found, or an earlier one.
pub(super) fn may_end_a_dead_one(model: &SocketModel, truth: &Truth, clock: Clock) -> bool {
    let found = if truth.errors.len() == 1 { truth.failed_at } else { 0 };
    let grace = model.stop.and_then(|stop| stop.at.max(found).checked_add(stop.grace?));
    grace.is_some_and(|due| clock.now >= due)
}

/// Whether the limit of a stop explains that the socket was destroyed. A socket whose error was not
/// delivered yet counts as destroyed.
pub(super) fn destroys(model: &SocketModel, socket: &Socket<'_>, truth: &Truth, clock: Clock) -> bool {
    let Some(due) = limit(model) else { return false };
    let had_failed = truth.kernel.died || limits::may_have_failed(model, socket, truth, clock);
    truth.closed_at >= due || (clock.now >= due && had_failed)
}

/// What a stop should have done by now and has not.
pub(super) fn overdue(model: &SocketModel, socket: &Socket<'_>, truth: &Truth, clock: Clock) -> Option<String> {
    let stop = model.stop?;
    let over_for = |since: u64, limit: Option<u64>| clock.over_for(since.saturating_add(limit?));
    if let Some(late) = over_for(stop.at, stop.limit) {
        return Some(format!("the limit of its listener's stop was due {late} ns ago"));
    }
    let may_end = socket.state() == State::Open && !model.end_called && !socket.end_called();
    let is_busy =
        socket.is_paused() || model.farewell.has_request(truth) || truth.kernel.unread > 0 || truth.kernel.died;
    let idle = may_end && !is_busy && socket.queued_bytes() == 0 && !model.farewell.due;
    let is_broken = socket.state() == State::Broken;
    let grace = stop.grace.filter(|_| idle || is_broken).map(|grace| grace.saturating_add(stop.spread));
    let since = stop.idle_from(model, truth).1.max(if is_broken { truth.failed_at } else { 0 });
    let late = over_for(since, grace)?;
    Some(format!("the grace of its listener's stop was due {late} ns ago"))
}
