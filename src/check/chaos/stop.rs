//! A listener that stops during a run: when its grace and its limit are due.
//!
//! Invariant: a stop calls `end` after the grace and resets at the limit, and does nothing else to
//! a socket.

use super::limits::{self, Clock};
use super::socket_model::SocketModel;
use crate::check::{Rule, Violation, must};
use crate::lifecycle::State;
use crate::sim::truth::Truth;
use crate::socket::Socket;

/// The times of a stop, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct StopTimes {
    pub(super) at: u64,
    pub(super) grace: Option<u64>,
    pub(super) limit: Option<u64>,
}

impl StopTimes {
    /// From when a socket counts as idle for the grace, at the earliest and at the latest.
    fn idle_from(&self, model: &SocketModel, truth: &Truth) -> (u64, u64) {
        let earliest = self.at.max(truth.moved_at);
        let latest = earliest.max(truth.kernel.taken_at).max(model.connected_at).max(model.end_at);
        let latest = latest.max(model.paused_until);
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
        let (earliest, _) = stop.idle_from(model, truth);
        let due = stop.grace.map(|grace| earliest.saturating_add(grace));
        let at = truth.kernel.finished_at;
        // If bytes have moved since, the time of the last ones before it is unknown.
        let in_time = truth.moved_at >= at || due.is_some_and(|due| at >= due);
        must(in_time, Rule::Timers, || format!("a stop ended it at {at} ns, and its grace was due at {due:?}"))?;
        // Our FIN may have left later than `end` was called.
        (model.end_called, model.ended_at, model.drain_pending) = (true, at.saturating_sub(clock.retry), false);
    }
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
    let is_busy = socket.is_paused() || truth.heard_last || truth.kernel.unread > 0 || truth.kernel.died;
    let idle = may_end && !is_busy && socket.queued_bytes() == 0;
    let late = over_for(stop.idle_from(model, truth).1, stop.grace.filter(|_| idle))?;
    Some(format!("the grace of its listener's stop was due {late} ns ago"))
}
