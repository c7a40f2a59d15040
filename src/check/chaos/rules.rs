//! Checks each event of a socket against what the network knows of it.

use std::net::IpAddr;

use rustix::io::Errno;

use super::limits::{self, Clock};
use super::socket_model::SocketModel;
use super::{close, pattern, stop};
use crate::check::{Rule, Violation, must};
use crate::error::{ConnectionError, ConnectionErrorKind, LookupErrorKind, TimeoutKind};
use crate::event::{Event, PeerEnd};
use crate::lifecycle::State;
use crate::sim::end::FinOrder;
use crate::sim::truth::{Kernel, Truth};
use crate::socket::Socket;

/// Checks an event before the program handles it.
pub(super) fn check_event(
    model: &mut SocketModel,
    socket: &Socket<'_>,
    event: &Event<'_>,
    truth: &Truth,
    clock: Clock,
) -> Result<(), Violation> {
    model.grammar.check(socket, event).map_err(|wrong| Violation::new(Rule::Language, wrong))?;
    must(!model.destroy_called || matches!(event, Event::Close(_) | Event::Ready), Rule::Language, || {
        format!("{event} after destroy")
    })?;
    note_times(model, event, clock.now);
    stop::update(model, socket, truth, clock)?;
    check_state(model, socket, event, truth, clock)?;
    match event {
        Event::Lookup(ip) => check_lookup(model, *ip)?,
        Event::Connect => {
            model.attempt_errors = truth.errors.len();
            check_all_looked_up(model)?;
        }
        Event::Data(bytes) => check_data(model, bytes, bytes.len())?,
        // The check sees what the process does not.
        Event::Spliced(count) => check_data(model, socket.spliced().unwrap_or_default(), *count)?,
        Event::Drain => {
            let was_pending = std::mem::take(&mut model.drain_pending);
            must(was_pending, Rule::Language, || "drain, and none was pending".to_owned())?;
        }
        Event::Timeout if stop::is_farewell(model, socket) => stop::check_farewell(model, truth, clock)?,
        Event::Timeout => limits::check_idle_timeout(model, socket.settings(), truth, clock)?,
        Event::PeerEnded(how) => check_peer_ended(model, socket, *how, truth, clock)?,
        Event::End => {
            model.had_end = true;
            model.saw_crossing = saw_crossing(truth);
            check_end(model, truth)?;
        }
        Event::Error(failure) => {
            model.had_error = true;
            check_error(model, socket, failure, truth, clock)?;
        }
        Event::Close(ending) => close::check(model, socket, ending, truth, clock)?,
        Event::Ready | Event::Connection | Event::Filled => {}
        Event::Timer(_) | Event::Woken | Event::AcceptFailed(..) | Event::Overflow(..) | Event::ListenerClosed(_) => {}
    }
    if matches!(event, Event::Connect | Event::Connection) {
        let limit_ms = socket.settings().and_then(|settings| settings.deadline_ms);
        let own = limit_ms.map(|ms| clock.now + ms * 1_000_000);
        model.deadline = model.deadline.into_iter().chain(own).min();
    }
    Ok(())
}

/// `peer-ended` is true, wanted, and not instead of an error that could be delivered.
fn check_peer_ended(
    model: &SocketModel,
    socket: &Socket<'_>,
    how: PeerEnd,
    truth: &Truth,
    clock: Clock,
) -> Result<(), Violation> {
    let is_enabled = socket.settings().is_some_and(|settings| settings.notify_peer_ended);
    // A pending drain may have resumed it since.
    let was_paused = socket.is_paused() || model.paused_until >= truth.failed_at;
    let must_notify = how == PeerEnd::Reset && was_paused;
    must(is_enabled || must_notify, Rule::Language, || "peer-ended, and it is switched off".to_owned())?;
    // Without unread bytes an error is delivered at once. (The last bytes may have been
    // read since.)
    let may_wait = is_enabled || model.fills.is_some() || truth.kernel.unread > 0 || truth.given_at >= truth.failed_at;
    must(may_wait, Rule::Progress, || "peer-ended instead of an error, and nothing is unread".to_owned())?;
    let gone = match how {
        PeerEnd::Fin => truth.kernel.peer_finished || close::seems_finished(truth, clock),
        PeerEnd::Reset => truth.kernel.died,
    };
    must(gone, Rule::HonestClose, || format!("{how:?}, and in the network: {:?}", truth.kernel))?;
    // A program that has paused until there is room need not wait any longer. (What it has written
    // in vain since can have filled the queue again.)
    let since = model.paused_from.max(model.full_at);
    let was_stopped = model.is_paused && since < truth.kernel.gone_at && !model.end_called;
    let is_lost = how == PeerEnd::Reset && was_stopped && model.drain_pending;
    must(!is_lost, Rule::Progress, || format!("{how:?} of a paused socket, and its drain is lost"))
}

/// `lookup` delivers each address of the target once, and first the one that the resolver prefers.
fn check_lookup(model: &mut SocketModel, ip: IpAddr) -> Result<(), Violation> {
    let Some(Ok(addrs)) = &model.addrs else {
        return Err(Violation::new(Rule::Cause, format!("lookup {ip}, and the target has no address")));
    };
    let is_first = model.looked_up.is_empty();
    // Several may differ in their ports.
    let is_ip = |other: &&IpAddr| **other == ip;
    let count = addrs.iter().filter(|addr| addr.ip() == ip).count();
    let is_its_own = model.looked_up.iter().filter(is_ip).count() < count;
    let is_in_order = !is_first || addrs.first().is_some_and(|addr| addr.ip() == ip);
    must(is_its_own && is_in_order, Rule::Cause, || {
        format!("lookup {ip} after {:?}, and the target has {addrs:?}", model.looked_up)
    })?;
    model.looked_up.push(ip);
    Ok(())
}

/// `lookup` has delivered every address.
fn check_all_looked_up(model: &SocketModel) -> Result<(), Violation> {
    let Some(Ok(addrs)) = &model.addrs else { return Ok(()) };
    let is_all = model.looked_up.len() == addrs.len();
    must(is_all, Rule::Progress, || format!("{:?} were delivered, and the target has {addrs:?}", model.looked_up))
}

/// An error of the system ends an attempt to connect after every address has failed.
fn check_attempts(model: &SocketModel, failure: &ConnectionError) -> Result<(), Violation> {
    let Some(Ok(addrs)) = model.addrs.as_ref().filter(|_| !model.grammar.was_connected()) else { return Ok(()) };
    check_all_looked_up(model)?;
    let tried = failure.attempts.iter().map(|attempt| attempt.addr);
    let is_all = failure.attempts.len() == addrs.len() && tried.into_iter().all(|addr| addrs.contains(&addr));
    must(is_all, Rule::Progress, || format!("\"{failure}\" after {:?}, and the target has {addrs:?}", failure.attempts))
}

/// `data` is the next bytes of the peer's stream.
fn check_data(model: &mut SocketModel, bytes: &[u8], count: usize) -> Result<(), Violation> {
    must(!model.discards, Rule::Language, || "data after discard".to_owned())?;
    must(bytes.len() == count && count > 0, Rule::Bytes, || format!("{} bytes instead of {count}", bytes.len()))?;
    let wrong = pattern::mismatch(model.peer_stream(), model.read - model.unspliced, bytes);
    must(wrong.is_none(), Rule::Bytes, || format!("byte {wrong:?} is not the peer's"))?;
    let again = model.unspliced.min(bytes.len() as u64);
    model.unspliced -= again;
    model.read += bytes.len() as u64 - again;
    Ok(())
}

/// While a buffer is filled, no `data` comes, and `filled` comes with as much as was asked for, unless
/// the stream is over.
pub(super) fn check_filled(
    model: &mut SocketModel,
    event: &Event<'_>,
    filled: Option<&[u8]>,
    truth: &Truth,
) -> Result<(), Violation> {
    let asked = model.fills;
    must(asked.is_none() || !matches!(event, Event::Data(_)), Rule::Language, || {
        format!("data, and a buffer for {asked:?} bytes is not full")
    })?;
    let Some(filled) = filled else { return Ok(()) };
    model.fills = None;
    let is_over = truth.kernel.peer_finished || truth.kernel.died;
    let is_full = asked.is_some_and(|asked| filled.len() == asked || (filled.len() < asked && is_over));
    must(is_full, Rule::Language, || format!("a buffer with {} bytes, and {asked:?} were asked for", filled.len()))
}

/// Notes the times of the changes of state that an event shows.
fn note_times(model: &mut SocketModel, event: &Event<'_>, now: u64) {
    if matches!(event, Event::Connect | Event::Connection | Event::PeerEnded(_) | Event::End) {
        model.changed_at = now;
    }
    if matches!(event, Event::Connect | Event::Connection) {
        model.connected_at = now;
    }
    if matches!(event, Event::End) {
        model.end_at = now;
    }
}

/// What holds at every event.
fn check_state(
    model: &SocketModel,
    socket: &Socket<'_>,
    event: &Event<'_>,
    truth: &Truth,
    clock: Clock,
) -> Result<(), Violation> {
    let dead = socket.state() == State::Broken || socket.state().is_final();
    let over = matches!(event, Event::Error(_) | Event::Close(_));
    let sent_fin = matches!(socket.state(), State::LocalFinished | State::Closing);
    must(!sent_fin || truth.kernel.finished, Rule::HonestClose, || {
        "the state says that our FIN was sent, and it was not".to_owned()
    })?;
    let without_end = truth.kernel.finished && !model.end_called && !over;
    must(!without_end, Rule::HonestClose, || "our FIN was sent without a call of end".to_owned())?;
    must(over || socket.is_paused() == model.is_paused, Rule::Isolation, || {
        format!("paused: {}, and the program has set {}", socket.is_paused(), model.is_paused)
    })?;
    let low_water = socket.settings().map_or(0, |settings| settings.low_water_bytes);
    let is_low = socket.queued_bytes() <= low_water;
    let drained = model.drain_pending && is_low && !over && !dead && !matches!(event, Event::Drain);
    must(!drained, Rule::Progress, || format!("{event}, and a drain is pending"))?;
    let is_due = over || matches!(event, Event::Timeout);
    let overdue = if is_due { None } else { limits::overdue(model, socket, truth, clock) };
    must(overdue.is_none(), Rule::Timers, || format!("{event}, and {}", overdue.unwrap_or_default()))
}

/// `end` is the peer's FIN, after its last byte.
fn check_end(model: &SocketModel, truth: &Truth) -> Result<(), Violation> {
    let kernel = truth.kernel;
    must(kernel.peer_finished, Rule::HonestClose, || "end, and the peer has not finished".to_owned())?;
    must(kernel.unread == 0, Rule::HonestClose, || format!("end, and {} bytes are unread", kernel.unread))?;
    must(model.discards || model.read == truth.given, Rule::Bytes, || {
        format!("{} bytes were delivered, and {} read from the kernel", model.read, truth.given)
    })
}

/// Whether the query after the peer's FIN was read has shown that ours was not acknowledged.
fn saw_crossing(truth: &Truth) -> bool {
    let Kernel { fin_order, fin_acked, died, .. } = truth.kernel;
    // A query that lacked memory, or found an error, has not shown it.
    let is_known = !died && !truth.errors.iter().any(|error| is_shortage(*error));
    fin_order == FinOrder::Crossed && !fin_acked && is_known
}

/// Whether an error of the system was delivered, and earlier bytes were not.
fn has_lost(model: &SocketModel, socket: &Socket<'_>, truth: &Truth, clock: Clock) -> bool {
    // Bytes that came with a reset before the handshake was seen are lost with it (CN09). That is
    // documented.
    let connected = model.grammar.was_connected();
    let was_paused = model.is_paused || model.paused_until >= truth.closed_at;
    // Some limits don't wait for bytes.
    let had_time = !limits::may_have_expired(model, socket, truth, clock) && !stop::may_have_expired(model, clock);
    // If the connection is alive, the peer may have sent more since the last read.
    let came_before =
        truth.kernel.died || truth.kernel.unread_since.is_some_and(|since| since + clock.cost <= truth.closed_at);
    truth.kernel.unread > 0 && connected && !was_paused && !model.discards && had_time && came_before
}

/// Every error has one cause, and the failure names it.
fn check_error(
    model: &SocketModel,
    socket: &Socket<'_>,
    failure: &ConnectionError,
    truth: &Truth,
    clock: Clock,
) -> Result<(), Violation> {
    if let Some(os) = failure.os {
        must(!has_lost(model, socket, truth, clock), Rule::Bytes, || {
            format!("\"{failure}\", and {} bytes were not read", truth.kernel.unread)
        })?;
        check_attempts(model, failure)?;
        // An established connection does not fail for what has failed an attempt.
        let begun = if model.grammar.was_connected() { model.attempt_errors.min(truth.errors.len()) } else { 0 };
        let known = truth.errors[begun..].iter().find(|error| error.raw_os_error() == os.raw());
        let Some(errno) = known else {
            return Err(Violation::new(Rule::Cause, format!("\"{failure}\": the system returned {:?}", truth.errors)));
        };
        must(!is_shortage(*errno), Rule::Cause, || format!("\"{failure}\" for {errno:?}, which ends no connection"))?;
        let meant = meaning(*errno);
        return must(failure.kind == meant, Rule::Cause, || format!("\"{failure}\" for {errno:?}, which is {meant:?}"));
    }
    let Some(settings) = socket.settings() else {
        return Err(Violation::new(Rule::Cause, "an error without a socket"));
    };
    match failure.kind {
        ConnectionErrorKind::Lookup(cause) => {
            let is_its_own = matches!(&model.addrs, Some(Err(known)) if *known == cause)
                || (matches!(&model.addrs, Some(Ok(addrs)) if addrs.is_empty()) && cause == LookupErrorKind::NoAddress)
                || (clock.fails_lookups && cause == LookupErrorKind::TryAgain);
            must(is_its_own, Rule::Cause, || format!("\"{failure}\", and the lookup has {:?}", model.addrs))
        }
        ConnectionErrorKind::TimedOut(timer) if timer != TimeoutKind::Kernel => {
            limits::check_expired(model, settings, truth, timer, clock)
        }
        ConnectionErrorKind::TimedOut(_)
        | ConnectionErrorKind::Reset
        | ConnectionErrorKind::Refused
        | ConnectionErrorKind::Unreachable
        | ConnectionErrorKind::NoLocalAddress
        | ConnectionErrorKind::OutOfResources
        | ConnectionErrorKind::Aborted
        | ConnectionErrorKind::System
        | ConnectionErrorKind::Layer(_) => {
            Err(Violation::new(Rule::Cause, format!("\"{failure}\", and the system returned no error")))
        }
    }
}

/// Whether an error only means that memory or space is short now, and ends no connection.
pub(super) const fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::NOBUFS | Errno::NOMEM)
}

/// The meaning of an error of the system, independent of the library's own table.
fn meaning(errno: Errno) -> ConnectionErrorKind {
    match errno {
        Errno::CONNRESET | Errno::PIPE | Errno::NOTCONN => ConnectionErrorKind::Reset,
        Errno::TIMEDOUT => ConnectionErrorKind::TimedOut(TimeoutKind::Kernel),
        Errno::CONNREFUSED | Errno::NOENT => ConnectionErrorKind::Refused,
        Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::ACCESS | Errno::INVAL => ConnectionErrorKind::Unreachable,
        Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => ConnectionErrorKind::NoLocalAddress,
        Errno::MFILE | Errno::NFILE => ConnectionErrorKind::OutOfResources,
        Errno::CONNABORTED => ConnectionErrorKind::Aborted,
        _ => ConnectionErrorKind::System,
    }
}
