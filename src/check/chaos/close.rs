//! Whether the report of a close agrees with the network.

use super::limits::{self, Clock};
use super::rules::is_shortage;
use super::socket_model::SocketModel;
use super::stop;
use crate::check::{Rule, Violation, must};
use crate::error::{ConnectionErrorKind, TimeoutKind};
use crate::event::{Ending, EndingKind, FirstFin};
use crate::options::{CloseMode, Settings};
use crate::sim::end::FinOrder;
use crate::sim::truth::{Closed, Truth};
use crate::socket::Socket;

pub(super) fn check(
    model: &SocketModel,
    socket: &Socket<'_>,
    ending: &Ending,
    truth: &Truth,
    clock: Clock,
) -> Result<(), Violation> {
    let numbers = (ending.bytes_read, ending.bytes_written) == (truth.given, truth.sent);
    must(numbers, Rule::Bytes, || {
        format!("\"{ending}\", and the network has {} read, {} written", truth.given, truth.sent)
    })?;
    let may_drop = model.discards || (model.fills.is_some() && drops_its_buffer(model, ending, socket, truth, clock));
    must(may_drop || model.read == truth.given, Rule::Bytes, || {
        format!("\"{ending}\", of which {} bytes were delivered", model.read)
    })?;
    must(ending.had_error() == model.had_error, Rule::Language, || {
        format!("\"{ending}\", and an error was delivered: {}", model.had_error)
    })?;
    let sum = ending.bytes_written + ending.bytes_unsent;
    must(sum == model.written, Rule::Bytes, || format!("\"{ending}\", of {} bytes written", model.written))?;
    if model.grammar.was_connected() {
        must(ending.peer == truth.kernel.remote, Rule::Identity, || {
            format!("its peer is {:?}, and in the network {:?}", ending.peer, truth.kernel.remote)
        })?;
        check_first_fin(model, ending, truth, clock)?;
        check_close_call(model, ending, socket, truth, clock)?;
    }
    match ending.kind {
        EndingKind::Destroyed => {
            let is_wanted = model.destroy_called || stop::destroys(model, socket, truth, clock);
            must(is_wanted, Rule::Cause, || "destroyed without a call of destroy".to_owned())
        }
        EndingKind::Failed(_) => Ok(()),
        EndingKind::Confirmed | EndingKind::HandedOff => check_clean(model, ending, truth),
    }
}

/// Whether a partly filled buffer is dropped: if `destroy` or a limit ends the socket.
fn drops_its_buffer(model: &SocketModel, ending: &Ending, socket: &Socket<'_>, truth: &Truth, clock: Clock) -> bool {
    match &ending.kind {
        EndingKind::Destroyed => true,
        // A limit takes the error of a dead connection first.
        EndingKind::Failed(failure) => {
            let may_have = limits::may_have_failed(model, socket, truth, clock);
            let may_have = may_have || stop::may_have_expired(model, clock);
            failure.os.is_none() || may_have || stop::may_end_a_dead_one(model, truth, clock)
        }
        EndingKind::Confirmed | EndingKind::HandedOff => false,
    }
}

/// Whose FIN was first. A socket that did not see the order must not claim that the other FIN was
/// first.
fn check_first_fin(model: &SocketModel, ending: &Ending, truth: &Truth, clock: Clock) -> Result<(), Violation> {
    let kernel = truth.kernel;
    // A flag of a fault may have looked like an error.
    let is_known = model.had_end || (model.knows_fin && !kernel.died && !clock.splits_flags);
    // The reactor queries this right before our FIN leaves: the peer's may come between the two
    // calls.
    let came_between = kernel.fin_order == FinOrder::Peer && kernel.fin_at + clock.cost > kernel.finished_at;
    let holds = match ending.first_fin {
        FirstFin::Neither => !kernel.finished && !is_known,
        // After a hand-off it is not queried whether the FINs crossed.
        FirstFin::Local if model.saw_crossing => ending.kind == EndingKind::HandedOff,
        FirstFin::Local => kernel.finished && (kernel.fin_order != FinOrder::Peer || came_between),
        FirstFin::Peer => kernel.fin_order == FinOrder::Peer || seems_finished(truth, clock),
        FirstFin::Both => kernel.fin_order == FinOrder::Crossed || came_between,
        FirstFin::Unknown => kernel.order_hidden,
    };
    must(holds, Rule::HonestClose, || format!("\"{ending}\", and in the network: {kernel:?}"))
}

/// Whether the flags of a dead connection may have come without the error, as if the peer had
/// finished.
pub(super) const fn seems_finished(truth: &Truth, clock: Clock) -> bool {
    truth.kernel.died && clock.splits_flags
}

/// A clean connection is closed without an RST, in the mode that its settings say. Every other
/// connection is reset, so that a cut stream does not look complete.
fn check_close_call(
    model: &SocketModel,
    ending: &Ending,
    socket: &Socket<'_>,
    truth: &Truth,
    clock: Clock,
) -> Result<(), Violation> {
    let reset = truth.closed == Some(Closed::WithReset);
    if !ending.is_clean() {
        must(!reset || !may_still_take(ending, truth), Rule::HonestClose, || {
            format!("\"{ending}\", and a reset may have destroyed bytes that the peer was reading")
        })?;
        // A stream whose FIN was sent can't look cut: after a silence the kernel finishes it alone if
        // it can't say what the peer has acknowledged.
        let is_left = was_silent(ending) && truth.kernel.finished && !truth.kernel.can_ask && truth.sent > 0;
        return must(reset || is_left, Rule::HonestClose, || format!("\"{ending}\", and no RST was sent"));
    }
    must(!reset, Rule::HonestClose, || format!("\"{ending}\", and our close sent an RST"))?;
    let is_set = socket.settings().is_some_and(|settings| settings.close == CloseMode::HandOff);
    let handed_off = ending.kind == EndingKind::HandedOff;
    if handed_off && !is_set && is_left_to_kernel(model, socket, truth, clock) {
        return Ok(());
    }
    must(is_set == handed_off, Rule::HonestClose, || format!("\"{ending}\", and hand-off was set: {is_set}"))
}

/// Whether a limit of silence ended it.
fn was_silent(ending: &Ending) -> bool {
    let is_silence =
        |cause| matches!(cause, ConnectionErrorKind::TimedOut(TimeoutKind::Close | TimeoutKind::HalfClosed));
    matches!(&ending.kind, EndingKind::Failed(failure) if is_silence(failure.kind))
}

/// Whether a limit ended a complete stream, and the kernel could not say what the peer has
/// acknowledged: then the kernel finishes alone.
fn may_still_take(ending: &Ending, truth: &Truth) -> bool {
    let kernel = truth.kernel;
    // Acknowledged between the query and the reset, which then sends nothing.
    let is_over = kernel.fin_acked && kernel.remote.is_some();
    // With unread bytes close(2) sends an RST.
    let cant_query = kernel.finished && !kernel.died && !kernel.can_ask;
    was_silent(ending) && !is_over && cant_query && kernel.unread == 0 && truth.sent > 0
}

/// Whether the close timeout expired, the peer may still be reading, and the kernel can't be
/// queried: then the kernel finishes alone.
fn is_left_to_kernel(model: &SocketModel, socket: &Socket<'_>, truth: &Truth, clock: Clock) -> bool {
    let cant_query = truth.kernel.finished && !truth.kernel.can_ask;
    // The descriptor was closed when the limit expired, and `close` is delivered a turn later.
    let then = Clock { now: truth.closed_at, ..clock };
    let may_have_expired =
        |settings: &Settings| limits::check_expired(model, settings, truth, TimeoutKind::Close, then).is_ok();
    cant_query && truth.sent > 0 && socket.settings().is_some_and(may_have_expired)
}

/// Both have finished, and every byte that was written is where the ending says.
fn check_clean(model: &SocketModel, ending: &Ending, truth: &Truth) -> Result<(), Violation> {
    let kernel = truth.kernel;
    let whole = model.had_end && kernel.peer_finished && kernel.unread == 0 && ending.bytes_unsent == 0;
    must(whole && ending.bytes_written == model.written, Rule::HonestClose, || {
        format!("\"{ending}\" of {} written; {kernel:?}", model.written)
    })?;
    let errors = &truth.errors[model.attempt_errors.min(truth.errors.len())..];
    let passed = errors.iter().all(|error| is_shortage(*error));
    must(passed, Rule::Cause, || format!("\"{ending}\" after {errors:?}"))?;
    let acked = kernel.fin_acked && kernel.acked == ending.bytes_written;
    must(ending.kind == EndingKind::HandedOff || acked, Rule::HonestClose, || format!("\"{ending}\"; {kernel:?}"))
}
