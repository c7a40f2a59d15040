//! Logs the transitions of sockets at debug level, as lines of `log`. The feature `tracing` adds
//! events with fields, and changes no line.
//!
//! Invariant: without a logger a transition costs one comparison.

use std::net::SocketAddr;

use crate::event::Ending;
use crate::id::SocketId;
use crate::lifecycle::{Input, State};

/// Whether there is a logger or a subscriber at debug level.
#[inline]
pub(crate) fn is_on() -> bool {
    let is_on = log::log_enabled!(log::Level::Debug);
    #[cfg(feature = "tracing")]
    let is_on = is_on || is_subscribed();
    is_on
}

/// Whether a subscriber wants transitions. Without one no event is created, since tracing's own
/// feature `log` would turn it into a second line of `log`.
#[cfg(feature = "tracing")]
#[inline]
fn is_subscribed() -> bool {
    tracing::event_enabled!(tracing::Level::DEBUG, socket, peer, from, input, to, events)
}

/// Logs a transition, with the events that it emits.
pub(crate) fn transition(id: SocketId, peer: Option<SocketAddr>, from: State, input: Input, to: State, events: &str) {
    let line = || {
        let peer = || peer.map_or_else(|| "-".to_owned(), |peer| peer.to_string());
        log::debug!("{id} {}: {from:?} -- {input:?} -> {to:?} [{events}]", peer());
    };
    #[cfg(feature = "tracing")]
    if is_subscribed() {
        tracing::debug!(
            socket = %id,
            peer = peer.map(tracing::field::display),
            from = from.name(),
            input = input.name(),
            to = to.name(),
            events,
            "transition"
        );
        // A logger that passes its lines to tracing (`tracing_log::LogTracer`) would deliver the
        // transition to the same subscriber again. In this scope it finds no subscriber.
        return tracing::dispatcher::with_default(&tracing::Dispatch::none(), line);
    }
    line();
}

/// Adds an event for the end of a socket, with `tracing` only: with `log` the program can log its
/// `close` itself.
#[inline]
pub(crate) fn ending(_id: impl FnOnce() -> SocketId, _ending: &Ending) {
    #[cfg(feature = "tracing")]
    if tracing::event_enabled!(
        tracing::Level::DEBUG,
        socket,
        peer,
        had_error,
        acknowledged,
        bytes_read,
        bytes_written,
        bytes_unsent,
        ending
    ) {
        tracing::debug!(
            socket = %_id(),
            peer = _ending.peer.map(tracing::field::display),
            had_error = _ending.had_error(),
            acknowledged = _ending.is_acknowledged(),
            bytes_read = _ending.bytes_read,
            bytes_written = _ending.bytes_written,
            bytes_unsent = _ending.bytes_unsent,
            ending = %_ending,
            "close"
        );
    }
}
