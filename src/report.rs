//! Logs the transitions of sockets at debug level, as lines of `log`. The feature `tracing` adds
//! events with fields, and changes no line.
//!
//! Invariant: without a logger a transition costs one comparison.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

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
    tracing::event_enabled!(
        tracing::Level::DEBUG,
        socket,
        side,
        peer,
        from,
        input,
        to,
        events,
        bytes_read,
        bytes_written
    )
}

/// A transition of a socket, with the events that it emits.
pub(crate) struct Transition<'a> {
    pub(crate) id: SocketId,
    /// Since the reactor began.
    pub(crate) at: Duration,
    /// `client` or `server`: which of them this socket is.
    pub(crate) side: &'static str,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) from: State,
    pub(crate) input: Input,
    pub(crate) to: State,
    pub(crate) events: &'a str,
    /// Up to now.
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
}

impl fmt::Display for Transition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, at, side, from, input, to, events, bytes_read, bytes_written, .. } = self;
        write!(f, "{}.{:03} ms {id} {side} ", at.as_millis(), at.subsec_micros() % 1000)?;
        match self.peer {
            Some(peer) => write!(f, "{peer}")?,
            None => f.write_str("-")?,
        }
        write!(f, ": {from} -- {input} -> {to} [{events}] {bytes_read} read, {bytes_written} written")
    }
}

/// Logs a transition.
pub(crate) fn transition(transition: &Transition<'_>) {
    let line = || log::debug!("{transition}");
    #[cfg(feature = "tracing")]
    if is_subscribed() {
        tracing::debug!(
            socket = %transition.id,
            side = transition.side,
            peer = transition.peer.map(tracing::field::display),
            from = transition.from.name(),
            input = transition.input.name(),
            to = transition.to.name(),
            events = transition.events,
            bytes_read = transition.bytes_read,
            bytes_written = transition.bytes_written,
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
