//! An embeddable TCP reactor that gets the *ending* of a connection right.
//!
//! A [`Reactor`] hands out one [`Event`] at a time, with the [`Socket`] it happened to. The events of one socket form a
//! language with a guaranteed order, and its last event, `close`, carries an [`Ending`] that says how it ended.
//!
//! # A first program
//!
//! A server and a client in one loop. The client says "done sending"; the server answers all the same.
//!
//! ```
//! use finale::{Connect, Event, Listen, Reactor};
//!
//! # fn main() -> Result<(), finale::Error> {
//! let mut reactor = Reactor::new()?;
//! let listener = reactor.listen("127.0.0.1:0", Listen::default())?;
//! let client = reactor.connect(listener.addr, Connect::default())?;
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
//!                 reactor.close_listener(listener.id)?; // Nothing is left, so the loop ends.
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
//! Whatever a handler does with an event, the order of the others stands. What it asks of a socket is done when
//! [`Reactor::next`] is called again, which is why an answer and its FIN leave in one segment, and why another socket of the
//! same reactor can be had from inside a handler ([`Socket::get`]) without cloning or a cell.
//!
//! # Ending a connection
//!
//! - [`Socket::end`] is the graceful way: what is queued leaves, then our FIN. Reading goes on, as events or, after
//!   [`Socket::discard`], into the bin, until the peer has finished too. Only then is the descriptor closed: closing with
//!   unread bytes would make the kernel reset the connection and could destroy the answer on its way.
//! - [`Socket::destroy`] resets.
//! - `close` comes by default when the peer's kernel has acknowledged our FIN ([`Close::Confirmed`]); with
//!   [`Close::HandOff`] our kernel is trusted with the rest.
//!
//! # Why each default
//!
//! | option | default | reason |
//! |---|---|---|
//! | [`Listen::close`] | confirmed | an ending that says less is a guess; hand-off saves three system calls |
//! | [`Listen::allow_half_open`] | `true` | a request that ends with FIN still wants its answer |
//! | [`Connect::connect_timeout`] | 30 s | longer than four repeated SYNs, shorter than a person waits |
//! | [`Connect::attempt_delay`] | 250 ms | RFC 8305: a dead address costs a blink, a slow one stays in the race |
//! | [`Listen::half_closed_timeout`] | 5 min of silence | a peer that forgets its FIN holds the descriptor otherwise; its kernel answers keep-alive |
//! | [`Listen::linger`] | 30 s without progress | some eight retransmissions on a fast network |
//! | [`Listen::idle_timeout`] | none | how long a silence is too long only the protocol knows |
//! | [`Listen::nodelay`] | on | finale sends once per event, so small segments are meant |
//! | [`Listen::keep_alive`] | off | it finds machines lost while nothing is in flight, not frozen programs; an idle time finds both |
//! | [`Listen::high_water_mark`] | 128 KiB | two receive buffers: an echo meets back-pressure only with a slow peer |
//! | [`Listen::write_limit`] | 16 MiB | whole answers fit; a thousand peers that don't read are noticed |
//! | [`Listen::backlog`] | 4096 | Linux's own ceiling; 128 overflows at the first burst |
//!
//! # Testing
//!
//! [`Reactor::with_net`] takes any [`net::Net`]; [`sim`] has a network in memory with a virtual clock, on which the very same
//! reactor and the very same handlers run. [`check::Endings`] runs a handler there against every ending at every byte of a
//! conversation: start with that.
//!
//! # Optional features
//!
//! - `serde`: [`Event`] and [`Metrics`] can be serialized; [`Ending`], [`Failure`] and what they are made of come back, too. Names are
//!   those of the grammar above, ids are written as in the log.
//! - `tracing`: each step of a socket's life and each ending is an event of the `tracing` crate, at debug level, with fields
//!   (`socket`, `peer`, `from`, `input`, `to`, `events`; `acknowledged`, `bytes_written` ...). Without the feature, steps are lines of
//!   `log`; with it they still are where no subscriber was set.
//!
//! # Not guaranteed
//!
//! - Events of *different* sockets have no order among each other beyond the phases of a turn.
//! - `acknowledged` says that the peer's kernel has the bytes, not that its program has read them.
//! - Which of several addresses is connected to, where two are there at about the same time.
//! - Time goes by the monotonic clock: setting the wall clock changes nothing, and on Linux the time in which the machine is
//!   suspended does not count.
//! - A FIN is no proof of health: the kernel of a program killed with SIGKILL sends one for it.

// Over our own enums every variant is written out, so that a new one is looked at everywhere.
#![warn(clippy::wildcard_enum_match_arm)]

pub mod check;
pub mod lifecycle;
mod metrics;
pub mod net;
pub mod sim;

mod buffer;
mod error;
mod event;
mod id;
mod inbox;
mod options;
mod pipe;
mod pool;
mod reactor;
mod report;
mod shard;
mod socket;
mod socket_map;
mod table;
mod target;
mod unix_addr;
mod wheel;

pub use buffer::Buffer;
pub use error::{Attempt, BadAddress, BadOption, Cause, Error, Failure, LookupCause, OsError, Timer};
pub use event::{Ending, Event, First, How, PeerEnd};
pub use id::{ListenerId, SocketId, TimerId};
pub use inbox::{Inbox, SendError, Sender};
pub use metrics::Metrics;
pub use options::{Close, Connect, Excess, Idle, KeepAlive, Listen, Stop};
pub use pipe::Pipes;
pub use pool::{Grant, Handled, Pool, PoolOptions, PoolStats, Repeat, Ticket};
pub use reactor::{Listener, Reactor, Remote, SocketInfo, Sockets};
pub use shard::{Orders, Shard, Shards};
pub use socket::{Queue, Socket};
pub use socket_map::SocketMap;
pub use target::Target;
pub use unix_addr::UnixAddr;

/// The programs in the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/limits.md")]
#[doc = include_str!("../docs/node.md")]
struct Readme;
