//! Logs the transitions of sockets at debug level: as lines of `log`, or with the feature `tracing`
//! as events with fields. (Without a subscriber, tracing passes its events to `log`.)
//!
//! Invariant: without a logger it costs a comparison.

use std::net::SocketAddr;

use crate::event::Ending;
use crate::id::SocketId;
use crate::lifecycle::{Input, State};

/// Whether there is a logger or a subscriber at debug level.
#[inline]
pub(crate) fn is_on() -> bool {
    let heard = log::log_enabled!(log::Level::Debug);
    #[cfg(feature = "tracing")]
    let heard = heard || tracing::enabled!(tracing::Level::DEBUG);
    heard
}

/// Logs a transition, with the events that it emits.
pub(crate) fn transition(id: SocketId, peer: Option<SocketAddr>, from: State, input: Input, to: State, events: &str) {
    #[cfg(feature = "tracing")]
    tracing::debug!(
        socket = %id,
        peer = peer.map(tracing::field::display),
        from = from.name(),
        input = input.name(),
        to = to.name(),
        events,
        "transition"
    );
    #[cfg(not(feature = "tracing"))]
    {
        let peer = peer.map_or_else(|| "-".to_owned(), |peer| peer.to_string());
        log::debug!("{id} {peer}: {from:?} -- {input:?} -> {to:?} [{events}]");
    }
}

/// Logs how a socket ended, with `tracing` only: with `log` the program can log its `close` itself.
#[inline]
pub(crate) fn ending(_id: impl FnOnce() -> SocketId, _ending: &Ending) {
    #[cfg(feature = "tracing")]
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
