//! Rule 5: when a limit or an idle timeout of a socket is due, at the earliest and at the latest.
//!
//! Invariant: a limit expires at its time, whatever else the socket does. It is never early, and
//! late by at most two ticks and the cost of four turns of its reactor. A turn is one poll with the
//! calls and handlers up to the next, and includes the time for which the process is stopped.
//! Without costs four turns take no time.

use rustix::io::Errno;

use super::socket_model::{LATE_EDGE, SocketModel};
use super::stop;
use crate::check::{Rule, Violation, must};
use crate::error::TimeoutKind;
use crate::lifecycle::State;
use crate::options::{IdleDirection, Settings};
use crate::sim::truth::{Kernel, Truth};
use crate::sim::{Faults, Network};
use crate::socket::Socket;
use crate::table::AT_ONCE_TICKS;

/// A deadline is rounded up to a tick, and so is the time from which it counts.
const TICKS: u64 = 2_000_000;
/// The turn at whose end a limit begins to count and the one before it, in which the bytes moved;
/// the turn in which the limit is due, and the next, in which it expires.
const TURNS: u64 = 4;
/// What the peer's kernel acknowledges this soon counts as acknowledged when it was written.
const AT_ONCE: u64 = AT_ONCE_TICKS * 1_000_000;

/// An idle time whose `timeout` was delivered.
#[derive(Clone, Copy)]
pub(super) struct ReportedIdle {
    at: u64,
    /// The number of bytes that had moved.
    moved: u64,
}

/// A connect to a full queue is tried again before there was room in it for this long.
const ROOM: u64 = 1_500_000_000;

/// A call that failed for a shortage of memory or space is made again after this time.
const AGAIN: u64 = 20_000_000;
/// The same, rounded up to a tick.
const RETRY: u64 = AGAIN + TICKS / 2;

/// The time, with the tolerances of the rules.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    pub(super) now: u64,
    /// How late a limit may be, and the part of it that turns cost.
    pub(super) late: u64,
    pub(super) cost: u64,
    /// How much later a call may be that failed for a shortage.
    pub(super) retry: u64,
    /// How late readiness and the read after it may be, if a fault delays them.
    pub(super) edge: u64,
    /// A fault may fail a lookup.
    pub(super) fails_lookups: bool,
    /// A fault may report that a connection is over before it reports the error.
    pub(super) splits_flags: bool,
}

impl Clock {
    pub(super) fn of(network: &Network, host: u32, faults: &Faults) -> Self {
        let now = network.elapsed().as_nanos() as u64;
        let retry = if faults.no_memory.max(faults.register_exhausted) > 0.0 { RETRY } else { 0 };
        let edge = if faults.late_edge > 0.0 { LATE_EDGE } else { 0 };
        let cost = TURNS * network.longest_turn(host);
        // A limit may wait for the repetition of a call, which is late like any timer.
        let late = if retry > 0 { 2 * (TICKS + cost) + retry } else { TICKS + cost };
        let fails_lookups = faults.lookup_failure > 0.0;
        let splits_flags = faults.split_edge.max(faults.spurious) > 0.0;
        Self { now, late, cost, retry, edge: edge + retry, fails_lookups, splits_flags }
    }

    /// The earliest time from which an acknowledgement counts, if the reactor may have queried it:
    /// not if it came in the turn in which the limit expired.
    pub(super) const fn acknowledged_from(self, truth: &Truth) -> u64 {
        let taken_at = truth.kernel.taken_at;
        let may_have = truth.kernel.can_ask && taken_at + self.cost / TURNS <= self.now;
        if may_have { taken_at.saturating_sub(AT_ONCE) } else { 0 }
    }

    /// For how long something has been overdue that is due at `latest`, if it is.
    pub(super) fn over_for(self, latest: u64) -> Option<u64> {
        self.now.checked_sub(latest.saturating_add(self.late)).filter(|late| *late > 0)
    }
}

/// When something is due.
struct Due {
    earliest: u64,
    latest: u64,
}

impl Due {
    fn after(ms: u64, earliest: u64, latest: u64) -> Self {
        let limit = ms.saturating_mul(1_000_000);
        Self { earliest: earliest.saturating_add(limit), latest: latest.max(earliest).saturating_add(limit) }
    }

    fn check(&self, what: &str, clock: Clock) -> Result<(), Violation> {
        let now = clock.now;
        must(now >= self.earliest, Rule::Timers, || format!("{what} {} ns early", self.earliest - now))?;
        let latest = self.latest.saturating_add(clock.late);
        must(now <= latest, Rule::Timers, || format!("{what} {} ns late", now - latest))
    }
}

/// The time at which a limit ends the socket, if it is set.
fn limit(model: &SocketModel, settings: &Settings, truth: &Truth, timer: TimeoutKind, clock: Clock) -> Option<Due> {
    let taken_at = truth.kernel.taken_at;
    // Bytes that the peer takes from our kernel's buffer count as activity.
    let taken = clock.acknowledged_from(truth);
    let (ms, earliest, latest) = match timer {
        TimeoutKind::Connect => (settings.connect_ms?, model.created_at, model.created_at),
        TimeoutKind::HalfClosed => {
            let latest = truth.moved_at.max(taken_at).max(model.state_known_at(truth));
            let since = model.half_closed_since(&truth.kernel)?;
            (settings.half_closed_ms?, truth.moved_at.max(taken).max(since), latest)
        }
        // Received bytes don't extend it: a peer may send for ever and read nothing.
        TimeoutKind::Close => {
            let latest = truth.sent_at.max(taken_at).max(model.state_known_at(truth));
            let since = model.ending_since(&truth.kernel);
            (settings.close_ms?, truth.sent_at.max(taken).max(since), latest)
        }
        TimeoutKind::Write => {
            let since = truth.sent_at.max(model.queued_from);
            (settings.write_ms?, since.max(taken), since.max(taken_at).max(model.connected_at))
        }
        TimeoutKind::Deadline => return model.deadline.map(|due| Due { earliest: due, latest: due }),
        TimeoutKind::Ending => {
            let (earliest, latest) = ending_from(model, truth)?;
            (settings.ending_ms?, earliest, latest)
        }
        TimeoutKind::Kernel => return None,
    };
    Some(Due::after(ms, earliest, latest))
}

/// From when the ending timeout counts, at the earliest and at the latest: from the first FIN of
/// either end, or from the failure.
fn ending_from(model: &SocketModel, truth: &Truth) -> Option<(u64, u64)> {
    let Kernel { peer_finished, fin_at, died, gone_at, .. } = truth.kernel;
    let ours = model.end_called.then_some(model.ended_at);
    let peers = [(peer_finished, fin_at), (died, gone_at)].into_iter().find_map(|(is, at)| is.then_some(at));
    let earliest = ours.into_iter().chain(peers).min()?;
    // While it reads, it may not know yet what comes after the bytes.
    let known_at = |at: u64| at.max(unwatched_until(truth)).max(truth.given_at) + LATE_EDGE;
    let latest = ours.into_iter().chain(peers.map(known_at)).min()?;
    Some((earliest.max(model.created_at), latest.max(model.connected_at)))
}

/// The limit that applies in the present state.
fn limit_of_state(socket: &Socket<'_>) -> Option<TimeoutKind> {
    match socket.state() {
        State::Created | State::Resolving | State::Connecting => Some(TimeoutKind::Connect),
        State::Open if !socket.peer_ended() => None,
        State::Open | State::LocalFinished | State::PeerFinished | State::Broken => Some(TimeoutKind::HalfClosed),
        State::Flushing | State::Lingering | State::LastFlush | State::Closing => Some(TimeoutKind::Close),
        State::Confirmed
        | State::HandedOff
        | State::ResetByPeer
        | State::ResetByUs
        | State::TimedOut
        | State::NotConnected
        | State::Closed => None,
    }
}

/// A limit that should have expired by now and has not.
pub(super) fn overdue(model: &SocketModel, socket: &Socket<'_>, truth: &Truth, clock: Clock) -> Option<String> {
    if model.destroy_called || model.had_error {
        return None;
    }
    let settings = socket.settings()?;
    let state = socket.state();
    let waits = state.can_send() && !model.end_called && socket.queued_bytes() > 0;
    let deadline = Some(TimeoutKind::Deadline).filter(|_| !state.is_final() && !model.may_lack_deadline);
    let ending = Some(TimeoutKind::Ending).filter(|_| state.is_connected());
    let limits = [deadline, ending, limit_of_state(socket), Some(TimeoutKind::Write).filter(|_| waits)];
    for timer in limits.into_iter().flatten() {
        if let Some(late) = limit(model, settings, truth, timer, clock).and_then(|due| clock.over_for(due.latest)) {
            return Some(format!("its {} was due {late} ns ago", name(timer)));
        }
    }
    if let Some(overdue) = stop::overdue(model, socket, truth, clock) {
        return Some(overdue);
    }
    let may_idle = state.is_connected() && !matches!(state, State::Closing | State::Lingering);
    let due = idle(model, settings, truth, clock).filter(|_| may_idle && !was_reported(model, settings, truth));
    let late = due.and_then(|due| clock.over_for(due.latest))?;
    Some(format!("its idle timeout was due {late} ns ago"))
}

const fn name(timer: TimeoutKind) -> &'static str {
    match timer {
        TimeoutKind::Connect => "connect timeout",
        TimeoutKind::HalfClosed => "half-closed timeout",
        TimeoutKind::Close => "close timeout",
        TimeoutKind::Write => "write timeout",
        TimeoutKind::Deadline => "deadline",
        TimeoutKind::Ending => "ending timeout",
        TimeoutKind::Kernel => "kernel's limit",
    }
}

/// Whether a limit may have ended the socket that bytes from the peer do not extend.
pub(super) fn may_have_expired(model: &SocketModel, socket: &Socket<'_>, truth: &Truth, clock: Clock) -> bool {
    let Some(settings) = socket.settings() else { return false };
    let may_have = |timer| limit(model, settings, truth, timer, clock).is_some_and(|due| due.earliest <= clock.now);
    let waits = !model.end_called && model.written > truth.sent;
    may_have(TimeoutKind::Deadline)
        || may_have(TimeoutKind::Ending)
        || (waits && may_have(TimeoutKind::Write))
        || (model.end_called && may_have(TimeoutKind::Close))
        || may_have_missed(model, settings, truth, clock)
}

/// Whether the half-closed timeout may have expired before the unread bytes were noticed.
fn may_have_missed(model: &SocketModel, settings: &Settings, truth: &Truth, clock: Clock) -> bool {
    let due = limit(model, settings, truth, TimeoutKind::HalfClosed, clock).filter(|due| due.earliest <= clock.now);
    due.is_some_and(|due| came_in_time(model, truth, &due, "", clock).is_ok())
}

/// Whether a limit may have ended the socket when it was closed.
pub(super) fn may_have_failed(model: &SocketModel, socket: &Socket<'_>, truth: &Truth, clock: Clock) -> bool {
    let Some(settings) = socket.settings() else { return false };
    let then = Clock { now: truth.closed_at, ..clock };
    let may_have = |timer| limit(model, settings, truth, timer, then).is_some_and(|due| due.earliest <= then.now);
    [TimeoutKind::Deadline, TimeoutKind::Ending, TimeoutKind::HalfClosed, TimeoutKind::Close, TimeoutKind::Write]
        .into_iter()
        .any(may_have)
}

/// The time of the idle timeout, if one is set.
fn idle(model: &SocketModel, settings: &Settings, truth: &Truth, clock: Clock) -> Option<Due> {
    let (idle_ms, idle_direction) = (settings.idle_ms?, settings.idle_direction);
    let seen_at = if idle_direction == IdleDirection::Read { 0 } else { clock.acknowledged_from(truth) };
    let earliest = truth.broke_silence_at(idle_direction).max(seen_at).max(model.idle_from);
    let mut due = Due::after(idle_ms, earliest, model.idle_since(truth, idle_direction));
    if model.discards && truth.kernel.died {
        // No `timeout` is delivered while it lingers. One may be after it is broken.
        due.latest = due.latest.max(truth.failed_at);
    }
    Some(due)
}

/// Whether `timeout` was delivered for this idle time: no byte that ends it has moved since.
fn was_reported(model: &SocketModel, settings: &Settings, truth: &Truth) -> bool {
    model.reported_idle.is_some_and(|reported| reported.moved == truth.moved(settings.idle_direction))
}

/// `timeout` comes one idle time after the last byte or after it was set, and once in each idle
/// time.
pub(super) fn check_idle_timeout(
    model: &mut SocketModel,
    settings: Option<&Settings>,
    truth: &Truth,
    clock: Clock,
) -> Result<(), Violation> {
    let due = settings.and_then(|settings| Some((idle(model, settings, truth, clock)?, settings)));
    let Some((due, settings)) = due else {
        return Err(Violation::new(Rule::Timers, "a timeout, and no idle timeout is set"));
    };
    // The peer's FIN is not a byte, but it may end the idle time.
    let finished = model.reported_idle.is_some_and(|reported| model.end_at >= reported.at);
    let again = was_reported(model, settings, truth) && !finished;
    must(!again, Rule::Timers, || "a second timeout for one idle time".to_owned())?;
    due.check("a timeout", clock)?;
    if settings.idle_direction != IdleDirection::Write {
        came_in_time(model, truth, &due, "a timeout", clock)?;
    }
    model.idle_from = clock.now;
    model.reported_idle = Some(ReportedIdle { at: clock.now, moved: truth.moved(settings.idle_direction) });
    Ok(())
}

/// Checks the error of a limit.
pub(super) fn check_expired(
    model: &SocketModel,
    settings: &Settings,
    truth: &Truth,
    timer: TimeoutKind,
    clock: Clock,
) -> Result<(), Violation> {
    let what = format!("the {}", name(timer));
    let Some(due) = limit(model, settings, truth, timer, clock) else {
        return Err(Violation::new(Rule::Timers, format!("{what} has expired, and is not set")));
    };
    due.check(&what, clock)?;
    if timer == TimeoutKind::Connect {
        let room_for = clock.now - model.room_at.unwrap_or(clock.now);
        // While the process is stopped, it makes no calls.
        return must(room_for < ROOM + clock.cost, Rule::Progress, || {
            format!("{what}, and there was room for {room_for} ns")
        });
    }
    if timer == TimeoutKind::HalfClosed { came_in_time(model, truth, &due, &what, clock) } else { Ok(()) }
}

/// Until when a connection is not watched because epoll had no room for it.
pub(super) fn unwatched_until(truth: &Truth) -> u64 {
    let had_no_room = truth.errors.contains(&Errno::NOSPC);
    if had_no_room { truth.failed_at + AGAIN + TICKS } else { 0 }
}

/// Bytes that arrive before a limit is due are read before it expires.
fn came_in_time(model: &SocketModel, truth: &Truth, due: &Due, what: &str, clock: Clock) -> Result<(), Violation> {
    let Some(unread_since) = truth.kernel.unread_since.filter(|_| !model.is_paused) else { return Ok(()) };
    let told_at = unread_since.max(model.paused_until).max(unwatched_until(truth)) + clock.edge;
    must(told_at >= due.earliest, Rule::Timers, || {
        format!("{what}, and bytes had come {} ns before it was due", due.earliest - told_at)
    })
}
