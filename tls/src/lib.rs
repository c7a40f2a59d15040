//! TLS on finale's sockets, by rustls, with the same events and the same care for the ending.
//!
//! A FIN does not prove that everything has arrived: a crash sends one, and anyone on the path can
//! forge one. TLS proves it with close_notify. So [`Event::End`](finale::Event::End) is the peer's
//! close_notify and nothing else. A FIN or a reset without it is the error
//! [`Truncated`](finale::LayerErrorKind::Truncated).
//!
//! [`Tls`] has the sessions of one reactor. Pass every event to [`Tls::handle`], and handle what it
//! returns: the same [`Event`](finale::Event)s, with a [`TlsSocket`] instead of a `Socket`. Sockets
//! without TLS pass through it unchanged.
//!
//! ```no_run
//! use finale::{Event, ListenOptions, Reactor, Stream};
//! use finale_tls::Tls;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = finale_tls::server_config("cert.pem", "key.pem")?;
//! let mut reactor = Reactor::new()?;
//! let listener = reactor.listen("127.0.0.1:8443", ListenOptions::default())?;
//! let mut tls = Tls::new();
//! tls.accept_on(listener.id, &config)?;
//! while let Some((mut socket, event)) = reactor.next()? {
//!     let mut events = tls.handle(&mut socket, event);
//!     while let Some((mut socket, event)) = events.next() {
//!         match event {
//!             Event::Data(bytes) => drop(socket.write(bytes)?),
//!             Event::End => socket.end(), // close_notify and FIN, after the last record
//!             Event::Close(ending) => println!("{ending}"),
//!             _ => {}
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Events
//!
//! | event | of a TLS stream |
//! |---|---|
//! | `lookup`, `connect`, `connection` | of TCP |
//! | `ready` | the handshake is done, for both roles: [`TlsSocket::handshake`] |
//! | `data` | plaintext |
//! | `drain`, `timeout` | as without TLS, after `ready` |
//! | `end` | the peer's close_notify |
//! | `error` | the [kind](finale::ConnectionErrorKind) is `Layer`, or one of TCP's; [`TlsSocket::failure`] |
//! | `close` | the [`Ending`](finale::Ending), with the stream's own numbers of bytes |
//!
//! [`end`](finale::Stream::end) sends close_notify and a FIN in one segment, after the last record.
//! The peer's direction continues (RFC 8446 section 6.1). In TLS 1.2 the peer may drop what it has
//! not sent yet (RFC 5246 section 7.2.1).
//!
//! Many clients send close_notify and close their socket at once. Our close_notify then meets a
//! reset. If the program has written nothing after the peer's end, that reset cuts nothing: no
//! `error` is delivered, and the ending is [`HandedOff`](finale::EndingKind::HandedOff).
//!
//! What waits in a paused stream is delivered, although it is paused, when its socket closes: later
//! it would be lost.
//!
//! # Bounds
//!
//! - The handshake must be done within [10 s](Tls::set_handshake_timeout), and has at most 256 KiB.
//! - A stream holds at most one incomplete record (16 KiB) or message (64 KiB), what the program has
//!   not read of one read of the reactor (64 KiB by default), and what it wrote, up to the
//!   [write limit](finale::ListenOptions::write_limit). An idle stream holds none of these.
//! - The [limits of a socket](finale::ListenOptions::half_closed_timeout) apply to the stream: a peer
//!   that has sent close_notify and no FIN is half-closed, and after `end` and `discard` the [close
//!   timeout](finale::ListenOptions::close_timeout) counts from the last byte that the peer took,
//!   whatever it sends. `end` waits for no room in the queue.
//! - A record that was begun must be complete within 60 s, unless the program has paused.
//! - After 32 records in a row without data the stream fails. rustls permits 4 warning alerts, 1
//!   attempt to renegotiate and 32 key updates in a row.
//! - What a peer sends can't panic, with one exception in a build with debug assertions: an assertion
//!   of rustls fails if an invalid record arrives after our close_notify. Set `debug-assertions =
//!   false` in `[profile.dev.package.rustls]`, as this project does.
//! - Early data (RFC 8446 section 2.3) is refused: it can be replayed.

mod config;
mod deadlines;
mod failure;
mod ledger;
mod metrics;
mod record;
mod server_name;
mod session;
mod socket;
mod tls;

pub use config::{ConfigError, client_config, client_config_with, server_config, trust_any_server};
pub use failure::{ConnectError, TlsFailure};
pub use metrics::TlsMetrics;
pub use rustls;
pub use socket::{Handshake, TlsContext, TlsSocket};
pub use tls::{Events, Tls};
