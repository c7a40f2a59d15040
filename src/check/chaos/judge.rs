//! The rules, where the network knows what a program can't: each event of a socket against the truth.

use super::pattern;
use super::side::Side;
use crate::check::{Broken, Rule, must};
use crate::error::{Cause, Failure, Timer};
use crate::event::{Ending, Event, How};
use crate::lifecycle::State;
use crate::options::Settings;
use crate::sim::truth::{Closed, Truth};
use crate::socket::Socket;

/// A deadline is rounded up to a tick, and so is the time that it counts from.
const LATE: u64 = 2_000_000;

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
    let sent_fin = matches!(socket.state(), State::Finished | State::Closing);
    must(!sent_fin || truth.kernel.finished, Rule::HonestClose, || "our FIN counts as sent, and was not".to_owned())?;
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
        Event::PeerEnded => {
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
        Event::Close(ending) => close(side, ending, truth)?,
        Event::Lookup(_) | Event::Ready | Event::Connection => {}
        Event::Timer(_) | Event::Woken | Event::ListenerRests(..) => {}
    }
    Ok(())
}

/// `timeout` comes one idle time after the last byte, or after it was set.
fn silence(side: &mut Side, settings: Option<&Settings>, truth: &Truth, now: u64) -> Result<(), Broken> {
    let Some(idle_ms) = settings.and_then(|settings| settings.idle_ms) else {
        return Err(Broken::new(Rule::Timers, "a timeout, and no idle time is set"));
    };
    let since = truth.moved_at.max(side.silent_from);
    let due = since.saturating_add(idle_ms.saturating_mul(1_000_000));
    side.silent_from = now;
    must(now >= due, Rule::Timers, || format!("a timeout {} ns early", due - now))
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
        let lost = truth.kernel.unread > 0 && connected && !socket.is_paused() && !side.discards;
        must(!lost, Rule::Bytes, || format!("\"{failure}\", and {} bytes were not read", truth.kernel.unread))?;
        let known = truth.errors.iter().any(|error| error.raw_os_error() == os.raw());
        return must(known, Rule::Cause, || format!("\"{failure}\": the system has said {:?}", truth.errors));
    }
    let Some(settings) = socket.settings() else {
        return Err(Broken::new(Rule::Cause, "an error of no socket"));
    };
    let (limit_ms, since) = match failure.cause {
        // One of several addresses has only its share of the time.
        Cause::TimedOut(Timer::Connect) if failure.attempts.len() > 1 => return Ok(()),
        Cause::TimedOut(Timer::Connect) => (settings.connect_ms, side.born_at),
        Cause::TimedOut(Timer::HalfClosed) => (settings.half_closed_ms, truth.moved_at),
        Cause::TimedOut(Timer::Linger) => (settings.linger_ms, side.ended_at),
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
    let due = since + limit_ms * 1_000_000;
    must(now >= due, Rule::Timers, || format!("\"{failure}\" {} ns early", due - now))?;
    let late = matches!(failure.cause, Cause::TimedOut(Timer::Connect)) && now > due + LATE;
    must(!late, Rule::Timers, || format!("\"{failure}\" {} ns late", now - due))
}

/// What a close claims is so.
fn close(side: &Side, ending: &Ending, truth: &Truth) -> Result<(), Broken> {
    let numbers = (ending.bytes_read, ending.bytes_written) == (truth.given, truth.sent);
    must(numbers, Rule::Bytes, || format!("\"{ending}\", and in truth {} read, {} written", truth.given, truth.sent))?;
    must(ending.had_error() == side.had_error, Rule::Language, || format!("\"{ending}\" with another error told"))?;
    let sum = ending.bytes_written + ending.bytes_unsent;
    must(sum == side.written, Rule::Bytes, || format!("\"{ending}\", of {} that were written", side.written))?;
    let kernel = truth.kernel;
    match ending.how {
        How::Destroyed => must(side.is_destroyed, Rule::Cause, || "destroyed, and nobody has".to_owned()),
        How::Failed(_) => Ok(()),
        How::Confirmed | How::HandedOff => {
            let whole = side.had_end && kernel.peer_finished && kernel.unread == 0 && ending.bytes_unsent == 0;
            must(whole && ending.bytes_written == side.written, Rule::HonestClose, || {
                format!("\"{ending}\" of {} written; {kernel:?}", side.written)
            })?;
            must(truth.closed == Some(Closed::Quietly), Rule::HonestClose, || {
                format!("\"{ending}\", and our close has reset it")
            })?;
            let errors = &truth.errors[side.attempt_errors.min(truth.errors.len())..];
            must(errors.is_empty(), Rule::Cause, || format!("\"{ending}\" in spite of {errors:?}"))?;
            let acked = kernel.fin_acked && kernel.acked == ending.bytes_written;
            must(ending.how == How::HandedOff || acked, Rule::HonestClose, || format!("\"{ending}\"; {kernel:?}"))
        }
    }
}
