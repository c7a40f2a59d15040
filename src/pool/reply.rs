//! What a pool returns: results of requests, and what an event is for the program.

use crate::id::SocketId;

/// The id of one request for a socket, and then of its lease. No two requests have the same one,
/// also of different pools.
///
/// ```
/// use finale::{Context, Pool, PoolReply};
/// fn request(pool: &mut Pool, context: &mut Context<'_>) {
///     let ticket = pool.request(context);
///     while let Some((answered, reply)) = pool.next_reply(context) {
///         if answered == ticket && let PoolReply::Leased(socket) = reply {
///             println!("{socket} is ours");
///         }
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    pub(super) pool: u32,
    pub(super) number: u64,
}

/// The result of a request for a socket.
///
/// ```
/// use finale::{Context, Pool, PoolReply, Ticket};
/// fn send_requests(pool: &mut Pool, context: &mut Context<'_>, body: &[u8]) -> Vec<Ticket> {
///     let mut failed = Vec::new();
///     while let Some((ticket, reply)) = pool.next_reply(context) {
///         match reply {
///             PoolReply::Leased(id) => {
///                 if let Some(mut socket) = context.socket(id) {
///                     let _ = socket.write(body);
///                 }
///             }
///             PoolReply::TimedOut | PoolReply::QueueFull | PoolReply::Closed => failed.push(ticket),
///         }
///     }
///     failed
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolReply {
    /// The program has this socket until it [gives it back](super::Pool::give_back).
    Leased(SocketId),
    /// The request has waited for longer than the [limit](super::PoolOptions::wait_limit).
    TimedOut,
    /// As many requests wait as [may](super::PoolOptions::max_waiting).
    QueueFull,
    /// The pool is closed.
    Closed,
}

/// What an event is for the program.
///
/// ```
/// use finale::{Event, Pool, PoolEvent, Socket};
/// fn on_event(pool: &mut Pool, socket: &mut Socket<'_>, event: Event<'_>) {
///     match pool.handle(socket, &event) {
///         PoolEvent::Leased(ticket) => println!("a part of the answer to {ticket:?}, or its end"),
///         PoolEvent::Lost(ticket, safety) => println!("{ticket:?} is lost: {safety:?}"),
///         PoolEvent::Internal | PoolEvent::Foreign => {}
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolEvent {
    /// It belongs to another socket, or to none.
    Foreign,
    /// It belongs to a socket of the pool that is not leased. Nothing has to be done.
    Internal,
    /// It belongs to the socket of this lease: the program handles it.
    Leased(Ticket),
    /// The `close` of the socket of this lease, and whether its request can be sent again. It is not
    /// delivered after the lease has ended, for example by [`Pool::discard`](crate::Pool::discard).
    Lost(Ticket, RetrySafety),
}

/// Whether a request can be sent again: its socket was lost ([`PoolEvent::Lost`]), or the program
/// has given up its answer ([`Pool::discard`](crate::Pool::discard)).
///
/// ```
/// use finale::RetrySafety;
/// fn may_repeat(safety: RetrySafety, method: &str) -> bool {
///     match safety {
///         RetrySafety::Safe => true,
///         RetrySafety::IfIdempotent => method == "GET",
///         RetrySafety::Unsafe => false,
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetrySafety {
    /// No byte of it has reached our kernel, so the server can't have seen it.
    Safe,
    /// Bytes of it have left, and no byte of an answer has arrived. The server may have processed
    /// it, so it can be sent again only if processing it twice does no harm. (The kernel does not
    /// report whether the bytes were acknowledged.)
    IfIdempotent,
    /// A part of the answer has arrived.
    Unsafe,
}
