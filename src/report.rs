//! How a step of a socket's life is written down, at debug level: as a line of `log`, or with the feature `tracing` as an event
//! with fields. (Without a subscriber, tracing hands its events on to `log`.)
//!
//! Invariant: while nobody listens it costs a comparison.

use std::net::SocketAddr;

use crate::event::Ending;
use crate::id::SocketId;
use crate::lifecycle::{Input, State};

/// Whether anybody listens.
#[inline]
pub(crate) fn is_on() -> bool {
    let heard = log::log_enabled!(log::Level::Debug);
    #[cfg(feature = "tracing")]
    let heard = heard || tracing::enabled!(tracing::Level::DEBUG);
    heard
}

/// A transition, with the events that it tells.
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

/// How a socket ended. The lines of `log` leave that to the program, which has the same in its `close`.
#[inline]
pub(crate) fn ending(_id: SocketId, _ending: &Ending) {
    #[cfg(feature = "tracing")]
    tracing::debug!(
        socket = %_id,
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
