//! What a close claims, against the truth.

use super::limits::{self, Clock};
use super::rules::passes;
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
    must(numbers, Rule::Bytes, || format!("\"{ending}\", and in truth {} read, {} written", truth.given, truth.sent))?;
    // What was read into a buffer that a limit or `destroy` has caught half full is dropped.
    must(model.discards || model.fills || model.read == truth.given, Rule::Bytes, || {
        format!("\"{ending}\", of which {} bytes were told", model.read)
    })?;
    must(ending.had_error() == model.had_error, Rule::Language, || format!("\"{ending}\" with another error told"))?;
    let sum = ending.bytes_written + ending.bytes_unsent;
    must(sum == model.written, Rule::Bytes, || format!("\"{ending}\", of {} that were written", model.written))?;
    if model.grammar.was_connected() {
        must(ending.peer == truth.kernel.remote, Rule::Identity, || {
            format!("its peer is {:?}, and in truth {:?}", ending.peer, truth.kernel.remote)
        })?;
        check_first_fin(ending, truth, clock)?;
        check_close_call(model, ending, socket, truth, clock)?;
    }
    match ending.kind {
        EndingKind::Destroyed => {
            let is_wanted = model.destroy_called || stop::destroys(model, socket, truth, clock);
            must(is_wanted, Rule::Cause, || "destroyed, and nobody has".to_owned())
        }
        EndingKind::Failed(_) => Ok(()),
        EndingKind::Confirmed | EndingKind::HandedOff => check_clean(model, ending, truth),
    }
}

/// Whose FIN was first: a side may not have seen it, and then must not claim the other's was.
fn check_first_fin(ending: &Ending, truth: &Truth, clock: Clock) -> Result<(), Violation> {
    let order = truth.kernel.fin_order;
    // Who is first is looked at right before our FIN leaves: theirs may come between the two calls.
    let came_between = truth.kernel.gone_at + clock.cost > truth.kernel.finished_at;
    let holds = match ending.first_fin {
        FirstFin::Neither => !ending.is_clean(),
        FirstFin::Local => truth.kernel.finished && (order != FinOrder::Peer || came_between),
        // Destroyed or failed, its own FIN may never have left.
        FirstFin::Peer => matches!(order, FinOrder::Peer) || (truth.kernel.died && !ending.is_clean()),
        // It may have come before ours left, and been told late.
        FirstFin::Both => matches!(order, FinOrder::Crossed | FinOrder::Peer),
        FirstFin::Unknown => true,
    };
    must(holds, Rule::HonestClose, || format!("\"{ending}\", and in truth the order was {order:?}"))
}

/// A connection in good order is closed quietly, as its settings say; every other is reset, so that
/// no cut stream looks whole.
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
            format!("\"{ending}\", and a reset may have destroyed what the peer was taking")
        })?;
        // A stream that has ended in order can't look cut: the kernel may be left alone with it,
        // where nobody knows what the peer has taken.
        let quietly = reset || truth.kernel.died || truth.kernel.finished;
        return must(quietly, Rule::HonestClose, || format!("\"{ending}\", and no RST was sent"));
    }
    must(!reset, Rule::HonestClose, || format!("\"{ending}\", and our close has reset it"))?;
    let asked = socket.settings().is_some_and(|settings| settings.close == CloseMode::HandOff);
    let handed = ending.kind == EndingKind::HandedOff;
    if handed && !asked && is_left_to_kernel(model, socket, truth, clock) {
        return Ok(());
    }
    must(asked == handed, Rule::HonestClose, || format!("\"{ending}\", and hand-off was asked for: {asked}"))
}

/// Whether a silence has ended a stream that was whole, and nobody knows what of it the peer has
/// taken: then the kernel is left alone with it.
fn may_still_take(ending: &Ending, truth: &Truth) -> bool {
    let is_silence =
        |cause| matches!(cause, ConnectionErrorKind::TimedOut(TimeoutKind::Close | TimeoutKind::HalfClosed));
    let was_silent = matches!(&ending.kind, EndingKind::Failed(failure) if is_silence(failure.kind));
    let kernel = truth.kernel;
    // Acknowledged between the question and the reset, which sends nothing then.
    let is_over = kernel.fin_acked && kernel.remote.is_some();
    // With bytes unread close(2) is a reset.
    was_silent && !is_over && kernel.finished && !kernel.died && !kernel.can_ask && kernel.unread == 0 && truth.sent > 0
}

/// Whether the close limit has run out of a socket whose bytes the peer may still be taking, and
/// whose kernel does not say: then the kernel goes on alone.
fn is_left_to_kernel(model: &SocketModel, socket: &Socket<'_>, truth: &Truth, clock: Clock) -> bool {
    let cant_ask = truth.kernel.finished && !truth.kernel.can_ask;
    // It was closed when the limit struck, and `close` is delivered a turn later.
    let then = Clock { now: truth.closed_at, ..clock };
    let may_have_expired =
        |settings: &Settings| limits::check_expired(model, settings, truth, TimeoutKind::Close, then).is_ok();
    cant_ask && truth.sent > 0 && socket.settings().is_some_and(may_have_expired)
}

/// Both have finished, and everything that was written is where the ending says.
fn check_clean(model: &SocketModel, ending: &Ending, truth: &Truth) -> Result<(), Violation> {
    let kernel = truth.kernel;
    let whole = model.had_end && kernel.peer_finished && kernel.unread == 0 && ending.bytes_unsent == 0;
    must(whole && ending.bytes_written == model.written, Rule::HonestClose, || {
        format!("\"{ending}\" of {} written; {kernel:?}", model.written)
    })?;
    let errors = &truth.errors[model.attempt_errors.min(truth.errors.len())..];
    let passed = errors.iter().all(|error| passes(*error));
    must(passed, Rule::Cause, || format!("\"{ending}\" in spite of {errors:?}"))?;
    let acked = kernel.fin_acked && kernel.acked == ending.bytes_written;
    must(ending.kind == EndingKind::HandedOff || acked, Rule::HonestClose, || format!("\"{ending}\"; {kernel:?}"))
}
