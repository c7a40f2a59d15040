//! An embeddable TCP reactor that gets the *ending* of a connection right.
//!
//! A [`Reactor`] returns one [`Event`] at a time, with its [`Socket`]. The events of one socket
//! have a guaranteed order. The last one, `close`, contains an [`Ending`] that reports how the
//! connection ended.
//!
//! # A first program
//!
//! A server and a client in one loop. The client finishes sending, and the server still answers.
//!
//! ```
//! use finale::{ConnectOptions, Event, ListenOptions, Reactor};
//!
//! # fn main() -> Result<(), finale::Error> {
//! let mut reactor = Reactor::new()?;
//! let listener = reactor.listen("127.0.0.1:0", ListenOptions::default())?;
//! let client = reactor.connect(listener.addr, ConnectOptions::default())?;
//! let mut answer = Vec::new();
//!
//! while let Some((mut socket, event)) = reactor.next()? {
//!     match event {
//!         Event::Ready => {
//!             socket.write(b"ping")?;
//!             socket.end();
//!         }
//!         Event::Data(bytes) if socket.id() == client => answer.extend_from_slice(bytes),
//!         Event::End if socket.id() != client => {
//!             socket.write(b"pong")?;
//!             socket.end();
//!         }
//!         Event::Close(ending) => {
//!             assert!(ending.is_acknowledged());
//!             if socket.id() == client {
//!                 reactor.close_listener(listener.id)?; // The loop ends: nothing is left.
//!             }
//!         }
//!         _ => {}
//!     }
//! }
//! assert_eq!(answer, b"pong");
//! # Ok(())
//! # }
//! ```
//!
//! # Events
//!
//! ```text
//! client = lookup* ( connect ready flow* )? error? close
//! server = connection flow* error? close
//! flow   = data | drain | timeout | peer-ended | end      (end at most once, no data after it)
//! ```
//!
//! `peer-ended` is optional for a FIN ([`ListenOptions::notify_peer_ended`]). A paused socket gets
//! it in any case when its connection is dead and bytes are unread ([`PeerEnd::Reset`]).
//!
//! No action of a handler changes the order of the other events. Calls on a socket take effect in
//! the next call of [`Reactor::next`]. So an answer and its FIN leave in one segment, and a handler
//! can use another socket of the same reactor ([`Socket::get`]) without cloning or a cell.
//!
//! # Ending a connection
//!
//! - [`Socket::end`] is graceful: the queue is sent, and then our FIN. Reading continues until the
//!   peer has finished too. What is read is delivered, or dropped after [`Socket::discard`]. Only
//!   then is the descriptor closed: if it were closed over unread bytes, the kernel would reset the
//!   connection and could destroy the answer on its way.
//! - [`Socket::destroy`] resets the connection.
//! - `close` is delivered by default when the peer's kernel has acknowledged our FIN, with one
//!   exception: see [`CloseMode::Confirmed`]. With [`CloseMode::HandOff`] our kernel delivers the
//!   rest, and its result is unknown.
//! - When the system reports an error while bytes are unread, the write queue is dropped, the bytes
//!   are delivered, and then the error. If the program has paused the socket, see [`Socket::pause`].
//!
//! # Default limits
//!
//! By default a connection ends in bounded time once its end has begun: a limit of silence applies
//! in each state, and [`ending_timeout`](ListenOptions::ending_timeout) bounds the whole ending,
//! whatever the peer sends or takes. An open connection has no limit by default.
//!
//! | option | default | applies | reason |
//! |---|---|---|---|
//! | [`ConnectOptions::connect_timeout`] | 30 s | until the connection is established | longer than four repeated SYNs, shorter than a person waits |
//! | [`ConnectOptions::attempt_delay`] | 250 ms | until the next address joins the race | RFC 8305: a dead address costs little, and a slow one stays in the race |
//! | [`ListenOptions::idle_timeout`] | none | while established, without a byte: an event | the meaning of a silence depends on the protocol |
//! | [`ListenOptions::write_timeout`] | none | while bytes wait and the peer takes none | the write limit bounds the cost of a slow peer |
//! | [`ListenOptions::deadline`] | none | from the event `connection` or `connect`, whatever moves | how long a request may take depends on the protocol |
//! | [`ListenOptions::half_closed_timeout`] | 5 min | one side has finished, and no byte moves | a peer that never sends its FIN holds the descriptor; its kernel answers keep-alive |
//! | [`ListenOptions::close_timeout`] (close timeout) | 30 s | after our end, and the peer takes nothing | about eight retransmissions on a fast network |
//! | [`ListenOptions::ending_timeout`] | 4 h | from the first FIN or `end()`, whatever moves | at 2.3 KB/s enough for all that can wait; ends peers that send or take a byte now and then |
//! | [`StopOptions::grace`] | 1 s | idle connections of a stopped listener | a request in flight has arrived by then |
//! | [`StopOptions::limit`] | 30 s | all connections of a stopped listener | systemd and Kubernetes wait at least this long before SIGKILL |
//!
//! # Other defaults
//!
//! | option | default | reason |
//! |---|---|---|
//! | [`ListenOptions::close_mode`] | confirmed | an ending that claims less is a guess; hand-off saves three system calls |
//! | [`ListenOptions::allow_half_open`] | `true` | a request that ends with a FIN still needs its answer |
//! | [`ListenOptions::notify_peer_ended`] | off | most programs need only `end` |
//! | [`ListenOptions::nodelay`] | on | finale sends once per event, so small segments are intended |
//! | [`ListenOptions::keep_alive`] | off | it detects machines lost while nothing is in flight, not frozen programs; an idle timeout detects both |
//! | [`ListenOptions::high_water_mark`] | 128 KiB | two receive buffers: an echo meets back-pressure only with a slow peer |
//! | [`ListenOptions::low_water_mark`] | 0 | `drain` means empty |
//! | [`ListenOptions::write_limit`] | 16 MiB | whole answers fit; a thousand peers that don't read are noticed |
//! | [`ListenOptions::backlog`] | 4096 | Linux's own maximum; 128 overflows at the first burst |
//! | [`ListenOptions::max_connections`] | none | descriptors are a limit already |
//!
//! # Testing
//!
//! [`Reactor::with_net`] takes any `net::Net`. [`sim`][sim page] has a network in memory with a
//! virtual clock, on which the same reactor and the same handlers run. [`check::Endings`][endings
//! page] runs a handler there against every ending at every byte of a conversation. Start with
//! that. Both need the feature `sim`; enable it in `[dev-dependencies]`.
//!
//! # Optional features
//!
//! - `sim`: the modules [`sim`][sim page] and [`check`][check page].
//! - `serde`: [`Event`] and [`Metrics`] can be serialized. [`Ending`], [`ConnectionError`] and
//!   their parts can also be deserialized. Names of events are those of the grammar above, and ids
//!   are written as in the log.
//! - `tracing`: each transition of a socket and each ending is also an event of the `tracing` crate,
//!   at debug level, with fields (`socket`, `side`, `peer`, `from`, `input`, `to`, `events`;
//!   `acknowledged`, `bytes_written` ...). The lines of `log`, one for each transition, are the same
//!   with and without the feature. A subscriber that also gets the lines of `log` (`tracing-log`)
//!   gets each transition once, with fields. Only tracing's own feature `log-always` writes each
//!   event to `log` a second time.
//!
//! # Not guaranteed
//!
//! - An order of the events of *different* sockets, beyond the phases of a turn.
//! - That the peer's program has read the bytes: `acknowledged` means that its kernel has them.
//! - Which of several addresses is used if two connections are established at about the same time.
//! - That time counts while the machine is suspended: on Linux the monotonic clock stands still
//!   then. Setting the wall clock changes nothing.
//! - That a FIN proves health: the kernel of a program that was killed with SIGKILL sends one too.
//!
// Targets of links on the page above. Without the feature `sim` its modules have no pages.
#![cfg_attr(feature = "sim", doc = "[sim page]: crate::sim\n[check page]: crate::check")]
#![cfg_attr(feature = "sim", doc = "[endings page]: crate::check::Endings")]
#![cfg_attr(not(feature = "sim"), doc = "[sim page]: ../finale/index.html#optional-features")]
#![cfg_attr(not(feature = "sim"), doc = "[check page]: ../finale/index.html#optional-features")]
#![cfg_attr(not(feature = "sim"), doc = "[endings page]: ../finale/index.html#optional-features")]
// docs.rs shows which feature an item needs; that takes a nightly compiler.
#![cfg_attr(docsrs, feature(doc_cfg))]
// Code that only the simulated network calls is checked for use in builds that have it.
#![cfg_attr(not(feature = "sim"), allow(dead_code, unreachable_pub, unused_imports))]
// A match on one of our own enums lists every variant, so that a new one is considered everywhere.
#![warn(clippy::wildcard_enum_match_arm)]

#[cfg(any(feature = "sim", test))]
#[cfg_attr(docsrs, doc(cfg(feature = "sim")))]
pub mod check;
mod kernel_pipe;
pub mod lifecycle;
mod metrics;
// Hidden until it is stable: a later version may change it without notice.
#[doc(hidden)]
pub mod net;
#[cfg(any(feature = "sim", test))]
#[cfg_attr(docsrs, doc(cfg(feature = "sim")))]
pub mod sim;

// Declared before the other modules that add methods to it: rustdoc shows methods in this order.
mod reactor;

mod buffer;
mod error;
mod event;
mod id;
mod inbox;
mod options;
mod parse;
mod pipe;
mod pool;
mod report;
mod rng;
mod shard;
mod socket;
mod socket_map;
mod stream;
mod table;
mod target;
mod ticks;
pub mod trace;
mod unix_addr;
mod wheel;

pub use buffer::Buffer;
pub use error::{
    AddressError, ConnectAttempt, ConnectionError, ConnectionErrorKind, Error, InvalidOption, LayerErrorKind,
    LookupErrorKind, OsError, TimeoutKind,
};
pub use event::{Ending, EndingKind, Event, FirstFin, PeerEnd};
pub use id::{ListenerId, SocketId, TimerId};
pub use inbox::{Inbox, SendError, Sender};
pub use metrics::Metrics;
pub use options::{CloseMode, ConnectOptions, IdleDirection, KeepAlive, ListenOptions, OverflowPolicy, StopOptions};
pub use pipe::Pipes;
pub use pool::{Pool, PoolEvent, PoolOptions, PoolReply, PoolStats, RetrySafety, Ticket};
pub use reactor::{Listener, Reactor, RecordedReactor, SocketInfo, Sockets, Waker};
pub use shard::{Shard, ShardEnd, ShardStopper, Shards};
pub use socket::{Backpressure, Context, Socket};
pub use socket_map::SocketMap;
pub use stream::{Stream, Streams};
pub use target::{BoundAddr, Target};
pub use unix_addr::UnixAddr;

/// The programs in the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/limits.md")]
#[doc = include_str!("../docs/node.md")]
struct Readme;
