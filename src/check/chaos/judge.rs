//! The rules, where the network knows what a program can't: each event of a socket against the truth.

use rustix::io::Errno;

use super::side::Side;
use super::{ending, pattern};
use crate::check::{Broken, Rule, must};
use crate::error::{Cause, Failure, Timer};
use crate::event::{Event, PeerEnd};
use crate::lifecycle::State;
use crate::options::Settings;
use crate::sim::truth::Truth;
use crate::socket::Socket;
use crate::table::AT_ONCE_TICKS;

/// A deadline is rounded up to a tick, and so is the time that it counts from.
const LATE: u64 = 2_000_000;
/// What the peer's kernel takes so soon counts as taken when it was written.
const AT_ONCE: u64 = AT_ONCE_TICKS * 1_000_000;

/// Looks at an event before the program sees it.
pub(super) fn judge(
    side: &mut Side,
    socket: &Socket<'_>,
    event: &Event<'_>,
    truth: &Truth,
    now: u64,
) -> Result<(), Broken> {
    side.life.tell(socket, event).map_err(|wrong| Broken::new(Rule::Language, wrong))?;
    must(!side.is_destroyed || matches!(event, Event::Close(_) | Event::Ready), Rule::Language, || {
        format!("{event:?} after destroy")
    })?;
    standing(side, socket, event, truth, now)?;
    match event {
        Event::Connect => side.attempt_errors = truth.errors.len(),
        Event::Data(bytes) => {
            must(!side.discards, Rule::Language, || "data after discard".to_owned())?;
            let wrong = pattern::mismatch(side.theirs(), side.read, bytes);
            must(wrong.is_none(), Rule::Bytes, || format!("byte {wrong:?} is not the peer's"))?;
            side.read += bytes.len() as u64;
        }
        Event::Drain => {
            let owed = std::mem::take(&mut side.owes_drain);
            must(owed, Rule::Language, || "a drain that nobody is owed".to_owned())?;
        }
        Event::Timeout => silence(side, socket.settings(), truth, now)?,
        Event::PeerEnded(how) => {
            let asked = socket.settings().is_some_and(|settings| settings.early_notice);
            let unasked = *how == PeerEnd::Reset && socket.is_paused();
            must(asked || unasked, Rule::Language, || "peer-ended, and nobody has asked for it".to_owned())?;
            let knows = *how == PeerEnd::Fin || truth.kernel.died;
            must(knows, Rule::HonestClose, || "a reset, and the connection lives".to_owned())?;
            let gone = truth.kernel.peer_finished || truth.kernel.died;
            must(gone, Rule::HonestClose, || "peer-ended, and the peer has not".to_owned())?;
        }
        Event::End => {
            side.had_end = true;
            their_end(side, truth)?;
        }
        Event::Error(failure) => {
            side.had_error = true;
            cause(side, socket, failure, truth, now)?;
        }
        Event::Close(ending) => ending::judge(side, socket, ending, truth)?,
        Event::Lookup(_) | Event::Ready | Event::Connection => {}
        Event::Timer(_) | Event::Woken | Event::ListenerRests(..) | Event::Dropped(..) | Event::ListenerClosed(_) => {}
    }
    if matches!(event, Event::Connect | Event::Connection | Event::PeerEnded(_) | Event::End) {
        side.changed_at = now;
    }
    if matches!(event, Event::Connect | Event::Connection) {
        side.deadline = socket.settings().and_then(|settings| settings.deadline_ms).map(|ms| now + ms * 1_000_000);
    }
    Ok(())
}

/// What holds of a socket at every event.
fn standing(side: &Side, socket: &Socket<'_>, event: &Event<'_>, truth: &Truth, now: u64) -> Result<(), Broken> {
    let dead = socket.state() == State::Broken || socket.state().is_final();
    let over = matches!(event, Event::Error(_) | Event::Close(_));
    let sent_fin = matches!(socket.state(), State::Finished | State::Closing);
    must(!sent_fin || truth.kernel.finished, Rule::HonestClose, || "our FIN counts as sent, and was not".to_owned())?;
    let unasked = truth.kernel.finished && !side.has_ended && !over;
    must(!unasked, Rule::HonestClose, || "our FIN was sent, and nobody has ended".to_owned())?;
    must(over || socket.is_paused() == side.is_paused, Rule::Isolation, || {
        format!("paused: {}, and the program has set {}", socket.is_paused(), side.is_paused)
    })?;
    let drained = side.owes_drain && socket.queued_bytes() == 0 && !over && !dead && !matches!(event, Event::Drain);
    must(!drained, Rule::Progress, || format!("{event:?}, and a drain is owed"))?;
    let overdue = side.deadline.is_some_and(|due| now > due + LATE) && !over;
    must(!overdue, Rule::Timers, || format!("{event:?}, and the deadline has passed"))?;
    let missed = !over && !matches!(event, Event::Timeout) && silence_is_overdue(side, socket, truth, now);
    must(!missed, Rule::Timers, || "the silence before this was not told".to_owned())
}

/// Whether a `timeout` should have come before this event. Bytes that have just moved end the silence unseen.
fn silence_is_overdue(side: &Side, socket: &Socket<'_>, truth: &Truth, now: u64) -> bool {
    let Some(settings) = socket.settings() else { return false };
    let open = side.life.was_connected() && socket.state() == State::Open;
    let moved_at = truth.broke_silence_at(settings.idle_of);
    let counts = open && truth.moved_at < now && side.told_silence_at < moved_at;
    let Some(idle_ms) = settings.idle_ms.filter(|_| counts) else { return false };
    let since = side.silent_at(truth, settings.idle_of);
    now > since.saturating_add(idle_ms.saturating_mul(1_000_000)).saturating_add(LATE)
}

/// `timeout` comes one idle time after the last byte, or after it was set.
fn silence(side: &mut Side, settings: Option<&Settings>, truth: &Truth, now: u64) -> Result<(), Broken> {
    let idle = settings.and_then(|settings| Some((settings.idle_ms?, settings.idle_of)));
    let Some((idle_ms, idle_of)) = idle else {
        return Err(Broken::new(Rule::Timers, "a timeout, and no idle time is set"));
    };
    let idle = idle_ms.saturating_mul(1_000_000);
    let taken_at = truth.took_in_silence_at(idle_of).saturating_sub(AT_ONCE);
    let due = truth.broke_silence_at(idle_of).max(taken_at).max(side.silent_from).saturating_add(idle);
    let latest = side.silent_at(truth, idle_of).saturating_add(idle).saturating_add(LATE);
    side.silent_from = now;
    side.told_silence_at = now;
    must(now >= due, Rule::Timers, || format!("a timeout {} ns early", due - now))?;
    must(now <= latest, Rule::Timers, || format!("a timeout {} ns late", now - latest))
}

/// `end` is their FIN, behind their last byte.
fn their_end(side: &Side, truth: &Truth) -> Result<(), Broken> {
    let kernel = truth.kernel;
    must(kernel.peer_finished, Rule::HonestClose, || "an end, and the peer has not finished".to_owned())?;
    must(kernel.unread == 0, Rule::HonestClose, || format!("an end before {} bytes of theirs", kernel.unread))?;
    must(side.discards || side.read == truth.given, Rule::Bytes, || {
        format!("{} bytes were told, and {} taken from the kernel", side.read, truth.given)
    })
}

/// Every error has one cause, and the failure names it.
fn cause(side: &Side, socket: &Socket<'_>, failure: &Failure, truth: &Truth, now: u64) -> Result<(), Broken> {
    if let Some(os) = failure.os {
        // What came with a reset before we had seen the handshake is lost with it (CN09), and that is said.
        let connected = side.life.was_connected();
        let was_paused = side.is_paused || side.paused_until >= truth.closed_at;
        let lost = truth.kernel.unread > 0 && connected && !was_paused && !side.discards;
        must(!lost, Rule::Bytes, || format!("\"{failure}\", and {} bytes were not read", truth.kernel.unread))?;
        let known = truth.errors.iter().find(|error| error.raw_os_error() == os.raw());
        let Some(errno) = known else {
            return Err(Broken::new(Rule::Cause, format!("\"{failure}\": the system has said {:?}", truth.errors)));
        };
        let meant = meaning(*errno);
        return must(failure.cause == meant, Rule::Cause, || {
            format!("\"{failure}\" for {errno:?}, which is {meant:?}")
        });
    }
    let Some(settings) = socket.settings() else {
        return Err(Broken::new(Rule::Cause, "an error of no socket"));
    };
    let (limit_ms, since) = match failure.cause {
        Cause::TimedOut(Timer::Connect) => (settings.connect_ms, side.born_at),
        Cause::TimedOut(Timer::HalfClosed) => (settings.half_closed_ms, truth.moved_at),
        Cause::TimedOut(Timer::Linger) => (settings.linger_ms, side.ended_at),
        Cause::TimedOut(Timer::Write) => (settings.write_ms, truth.sent_at.max(side.queued_from)),
        Cause::TimedOut(Timer::Deadline) => return deadline(side, now),
        Cause::TimedOut(Timer::Ending) => (settings.ending_ms, side.born_at),
        Cause::Lookup(_) => return Ok(()),
        Cause::TimedOut(Timer::Kernel)
        | Cause::Reset
        | Cause::Refused
        | Cause::Unreachable
        | Cause::NoLocalAddress
        | Cause::OutOfResources
        | Cause::Aborted
        | Cause::System => {
            return Err(Broken::new(Rule::Cause, format!("\"{failure}\", and the system has said nothing")));
        }
    };
    let Some(limit_ms) = limit_ms else {
        return Err(Broken::new(Rule::Timers, format!("\"{failure}\", and no such limit is set")));
    };
    let is_connect = failure.cause == Cause::TimedOut(Timer::Connect);
    // What the peer takes of what our kernel holds is no silence.
    let since = if is_connect { since } else { since.max(truth.kernel.taken_at.saturating_sub(AT_ONCE)) };
    let due = since + limit_ms * 1_000_000;
    must(now >= due, Rule::Timers, || format!("\"{failure}\" {} ns early", due - now))?;
    let anew = if is_connect { since } else { side.counts_anew_at(truth) };
    let latest = anew + limit_ms * 1_000_000 + LATE;
    must(now <= latest, Rule::Timers, || format!("\"{failure}\" {} ns late", now - latest))
}

/// The program's own deadline has come, and moves for nothing.
fn deadline(side: &Side, now: u64) -> Result<(), Broken> {
    let Some(due) = side.deadline else {
        return Err(Broken::new(Rule::Timers, "the socket has met a deadline that nobody has set"));
    };
    must(now >= due, Rule::Timers, || format!("a deadline {} ns early", due - now))?;
    must(now <= due + LATE, Rule::Timers, || format!("a deadline {} ns late", now - due))
}

/// What an error of the system means, as a second opinion.
fn meaning(errno: Errno) -> Cause {
    match errno {
        Errno::CONNRESET | Errno::PIPE | Errno::NOTCONN => Cause::Reset,
        Errno::TIMEDOUT => Cause::TimedOut(Timer::Kernel),
        Errno::CONNREFUSED => Cause::Refused,
        Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::ACCESS | Errno::INVAL => Cause::Unreachable,
        Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => Cause::NoLocalAddress,
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::NOSPC => Cause::OutOfResources,
        Errno::CONNABORTED => Cause::Aborted,
        _ => Cause::System,
    }
}
