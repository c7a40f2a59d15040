//! Connections to one address, opened ahead, leased and given back.
//!
//! Invariant: a member is opening, ready, leased or leaving, and is counted once. A ready member is
//! leased when the program takes the reply, after a look at its connection, and is named by the
//! ticket of its request from then on.
//!
//! `handle` gets each event, and opens and ends sockets through the event's own [`Context`]. Only
//! what a dropped pool leaves goes another way: see `src/table/shared.rs`.

mod back_off;
mod events;
mod member;
mod options;
mod reply;
mod upkeep;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use back_off::BackOff;
use member::{Age, Clock, Lease, Member, can_serve, leave, was_dropped};
pub use options::{PoolOptions, PoolStats};
pub use reply::{PoolEvent, PoolReply, RetrySafety, Ticket};

use crate::error::{ConnectionError, Error};
use crate::event::Event;
use crate::id::{SocketId, TimerId};
use crate::options::ConnectOptions;
use crate::rng::Rng;
use crate::socket_map::SocketMap;
use crate::stream::{Stream, Streams};
use crate::table::shared::{Orphan, Shared};
use crate::target::Target;

/// Sockets of one reactor, connected ahead to one address.
///
/// A program requests a socket, gets a lease, sends its request, reads the answer, and gives the
/// socket back. The pool watches its ready sockets: if the peer of one ends, resets, or sends bytes
/// without a request, the socket is discarded and replaced. It checks once more when it leases one.
/// While the server is down, the pool retries with a growing delay. When a leased socket is lost,
/// the pool reports whether its request can be sent again ([`RetrySafety`]).
///
/// A lease is named by the [`Ticket`] of its request, until it is given back, discarded, detached
/// or lost. Later calls with that ticket change nothing, and calls with one of another pool neither.
///
/// | event of a leased socket ([`PoolEvent::Leased`]) | what the program does |
/// |---|---|
/// | `data`, the answer is incomplete | waits |
/// | `data`, the answer is complete | [`give_back`](Pool::give_back) |
/// | `end`, and the end of the answer is the end of the connection | `give_back`, which ends it |
/// | `end` before that, `timeout`, an answer that can't be right | [`discard`](Pool::discard), which returns whether a retry is safe |
/// | `error` | waits for `close`, which comes as [`PoolEvent::Lost`] |
///
/// # What a lease guarantees
///
/// When the program takes the reply, the socket is open, nothing has arrived on it that was not
/// read, and its last request was answered as far as the pool can see: bytes were read after the
/// last bytes that were written. So a request gets the answer of another one only if that answer
/// had begun when the socket was given back, and a part of it was still on its way. Give back
/// after the last byte of the answer. With several requests in one lease, give back after the
/// last answer.
///
/// # Its reactor
///
/// A pool belongs to the reactor of the first call with a context or a socket. Calls with those of
/// another reactor open, lease and end nothing: a request waits for the next call with the right
/// one.
///
/// # When it is dropped
///
/// A dropped pool leaves nothing open: the reactor ends its ready sockets, and resets those that
/// are leased or being opened, in its next turn. Their last events belong to no pool then. To
/// finish the leases, [`close`](Pool::close) it and drop it when they were given back.
///
/// ```
/// use finale::{ConnectOptions, Event, PoolReply, PoolEvent, ListenOptions, Pool, PoolOptions, Reactor};
///
/// # fn main() -> Result<(), finale::Error> {
/// let mut reactor = Reactor::new()?;
/// let server = reactor.listen("127.0.0.1:0", ListenOptions::default())?;
/// let mut pool = Pool::new(server.addr, ConnectOptions::default(), PoolOptions::default().size(2))?;
/// pool.request(&mut reactor.context());
/// let mut answer = Vec::new();
/// while let Some((mut socket, event)) = reactor.next()? {
///     match (pool.handle(&mut socket, &event), event) {
///         (PoolEvent::Leased(ticket), Event::Data(bytes)) => {
///             answer.extend_from_slice(bytes);
///             pool.give_back(ticket, &mut socket.context());
///             pool.close(&mut socket.context());
///         }
///         // The server of this example: it echoes.
///         (PoolEvent::Foreign, Event::Data(bytes)) => drop(socket.write(bytes)?),
///         (PoolEvent::Foreign, Event::End) => socket.end(),
///         _ => {}
///     }
///     while let Some((_ticket, reply)) = pool.next_reply(&mut reactor.context()) {
///         if let PoolReply::Leased(id) = reply
///             && let Some(mut socket) = reactor.socket(id)
///         {
///             socket.write(b"ping")?;
///         }
///     }
///     if !answer.is_empty() && reactor.is_empty() {
///         break;
///     }
/// }
/// assert_eq!(answer, b"ping");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Pool {
    /// Its number, for the tickets.
    number: u32,
    target: Target,
    connect: ConnectOptions,
    options: PoolOptions,
    members: SocketMap<Member>,
    /// Ready sockets, the last used last. That one is leased first, so that surplus sockets expire.
    ready: Vec<SocketId>,
    leases: BTreeMap<Ticket, SocketId>,
    waiting: VecDeque<Waiting>,
    refusals: VecDeque<(Ticket, PoolReply)>,
    tickets: u64,
    back_off: BackOff,
    dice: Rng,
    /// The timer that is set, and for when.
    timer: Option<(TimerId, Instant)>,
    /// What its reactor shares, from the first call on.
    shared: Option<Arc<Shared>>,
    last_error: Option<ConnectionError>,
    stats: PoolStats,
    is_closed: bool,
    /// A request waits because a ready socket has bytes that may be no data: the timer follows at
    /// once.
    looks_again: bool,
    /// Something has changed since the last [`open`](Pool::open).
    is_changed: bool,
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    until: Option<Instant>,
}

impl Pool {
    /// A pool of connections to this address. It opens them at the first call with a context or a
    /// socket, also [`handle`](Pool::handle). A deadline of `connect` ends only
    /// attempts to connect, and [`start_paused`](ConnectOptions::start_paused) changes nothing,
    /// since a ready socket is read: pause it when it is leased.
    ///
    /// # Errors
    /// [`Error::InvalidAddress`] and [`Error::InvalidOption`], as for
    /// [`Reactor::connect`](crate::Reactor::connect).
    pub fn new<T>(target: T, connect: ConnectOptions, options: PoolOptions) -> Result<Self, Error>
    where
        T: TryInto<Target>,
        Error: From<T::Error>,
    {
        static NUMBERS: AtomicU32 = AtomicU32::new(0);
        let target = target.try_into()?;
        connect.check()?;
        // A paused one would not notice its end, and can't be leased.
        let connect = connect.start_paused(false);
        Ok(Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            target,
            connect,
            members: SocketMap::new(),
            ready: Vec::new(),
            leases: BTreeMap::new(),
            waiting: VecDeque::new(),
            refusals: VecDeque::new(),
            tickets: 0,
            back_off: BackOff::new(options.back_off),
            dice: Rng::new(options.seed.unwrap_or(0)),
            options,
            timer: None,
            shared: None,
            last_error: None,
            stats: PoolStats::default(),
            is_closed: false,
            looks_again: false,
            is_changed: true,
        })
    }

    /// Requests a socket. [`next_reply`](Pool::next_reply) returns the result: at once if a socket
    /// is ready. Sockets are leased in the order of the requests; a refusal can overtake a lease.
    pub fn request(&mut self, context: &mut impl Streams) -> Ticket {
        let ticket = Ticket { pool: self.number, number: self.tickets };
        self.tickets += 1;
        self.stats.requested += 1;
        self.is_changed = true;
        let until = self.options.wait_limit.and_then(|limit| context.context().now().checked_add(limit));
        self.waiting.push_back(Waiting { ticket, until });
        if self.is_closed {
            self.refuse(0..1, PoolReply::Closed);
        }
        self.open(context);
        ticket
    }

    /// Withdraws a request that has no reply yet. Returns whether it did.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| waiting.ticket != ticket);
        self.is_changed = true;
        self.waiting.len() < before
    }

    /// The next result of a request. Call it after each event until it returns `None`, and after
    /// [`request`](Pool::request) if the program does not wait for an event. A socket is leased
    /// here, after one poll(2) that shows whether it was lost a moment ago.
    pub fn next_reply(&mut self, context: &mut impl Streams) -> Option<(Ticket, PoolReply)> {
        self.open(context);
        let refusal = self.refusals.pop_front();
        let reply = refusal.or_else(|| self.lease(context));
        // A socket that was found to be lost is missing now.
        self.open(context);
        reply.or_else(|| self.refusals.pop_front())
    }

    /// Leases a ready socket to the first request that waits.
    fn lease(&mut self, context: &mut impl Streams) -> Option<(Ticket, PoolReply)> {
        let ticket = self.waiting.front().filter(|_| self.is_own(context))?.ticket;
        for index in (0..self.ready.len()).rev() {
            let id = self.ready[index];
            let Some(mut socket) = context.stream(id) else {
                // Its `close` was not passed to the pool.
                self.put(id, None);
                continue;
            };
            let has_unread = socket.has_unread();
            if !can_serve(&mut socket) || has_unread == Some(true) {
                self.ready_was_lost(id);
                leave(&mut socket);
                continue;
            }
            if has_unread.is_none() {
                // It is read in the next turn.
                (self.looks_again, self.is_changed) = (true, true);
                continue;
            }
            let Some(Member::Ready(age)) = self.members.get(id).copied() else { return None };
            // It counts for the request from now on. A `timeout` before was the pool's.
            socket.socket().restart_idle_timeout();
            self.put(id, Some(Member::Leased(Lease::new(ticket, age, &socket))));
            self.waiting.pop_front();
            self.stats.granted += 1;
            return Some((ticket, PoolReply::Leased(id)));
        }
        None
    }

    /// Handles an event, before the program does. Pass every event of the reactor.
    pub fn handle(&mut self, socket: &mut impl Stream, event: &Event<'_>) -> PoolEvent {
        let handled = self.sees(socket, event);
        self.open(&mut socket.context());
        handled
    }

    /// Opens missing connections. All other calls with a context or a socket do that too, so this
    /// is for a program that wants connections ready before its first request. It costs nothing if
    /// nothing has changed.
    pub fn open(&mut self, context: &mut impl Streams) {
        if self.is_changed && self.is_own(context) {
            self.keep_up(context);
        }
    }

    /// Whether this is the pool's reactor, or the pool has none yet. Another one has none of its
    /// sockets, and would get new ones that are not ended with the pool.
    fn is_own(&self, context: &mut impl Streams) -> bool {
        self.shared.as_ref().is_none_or(|shared| Arc::ptr_eq(shared, context.context().shared()))
    }

    /// Counts of what it has done, and its present sockets.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        PoolStats { waiting: self.waiting.len(), ..self.stats }
    }

    /// Why the last attempt to connect has failed; `None` after one has succeeded. It explains a
    /// request that has [waited for too long](PoolReply::TimedOut).
    #[must_use]
    pub const fn last_error(&self) -> Option<&ConnectionError> {
        self.last_error.as_ref()
    }

    /// Ends its sockets; leased ones end when they are given back. Waiting requests are refused,
    /// and no socket is opened any more.
    pub fn close(&mut self, context: &mut impl Streams) {
        (self.is_closed, self.is_changed) = (true, true);
        self.refuse(0..self.waiting.len(), PoolReply::Closed);
        self.open(context);
    }

    /// Refuses these of the requests that wait, in their order.
    fn refuse(&mut self, which: Range<usize>, why: PoolReply) {
        self.stats.refused += which.len() as u64;
        self.refusals.extend(self.waiting.drain(which).map(|waiting| (waiting.ticket, why)));
    }

    /// Gives a leased socket back: the answer is complete, or nothing was written. A socket that
    /// can't serve the next request is ended in order and replaced:
    ///
    /// - it has ended or was destroyed, or its peer has ended;
    /// - it is paused, discards, or fills a buffer;
    /// - bytes of the last request still wait, or no byte was read since the last one left: the
    ///   answer, if there is one, would go to the next request. So a protocol without answers needs
    ///   a connection for each request.
    ///
    /// The socket's deadline is removed. Its idle timeout stays, and restarts with each lease.
    pub fn give_back(&mut self, ticket: Ticket, context: &mut impl Streams) {
        let Some((lease, mut socket)) = self.find_lease(ticket, context) else { return };
        let id = socket.id();
        let (can_serve, is_unanswered) = (can_serve(&mut socket), lease.is_unanswered(&socket));
        // A program that does not wait for its answer, or ends by itself, says nothing about the server.
        let has_served = self.lease_is_over(&lease, socket.bytes_read(), !was_dropped(&socket));
        if can_serve && !is_unanswered && !self.is_closed {
            // It belonged to the request.
            socket.socket().set_deadline(None);
            self.put(id, Some(Member::Ready(Age { unused: Clock::default(), has_served, ..lease.age })));
        } else {
            self.put(id, Some(Member::Leaving));
            leave(&mut socket);
        }
        drop(socket);
        self.open(context);
    }

    /// Removes a leased socket from the pool, which opens another one. For programs that use each
    /// connection once, such as a proxy, and want it ready.
    pub fn detach(&mut self, ticket: Ticket, context: &mut impl Streams) {
        if let Some((_, socket)) = self.find_lease(ticket, context) {
            self.put(socket.id(), None);
        }
        self.open(context);
    }

    /// Resets a leased socket whose request has failed on a higher level: the server has ended
    /// before the answer was complete, it takes too long, or the answer is wrong. The pool opens
    /// another one. Further events of the socket are [`PoolEvent::Internal`]. Returns whether the
    /// request can be sent again, and `None` if the lease is over.
    pub fn discard(&mut self, ticket: Ticket, context: &mut impl Streams) -> Option<RetrySafety> {
        let (lease, mut socket) = self.find_lease(ticket, context)?;
        let safety = lease.retry_safety(socket.bytes_read(), socket.bytes_written());
        self.lease_is_over(&lease, socket.bytes_read(), false);
        self.put(socket.id(), Some(Member::Leaving));
        socket.destroy();
        drop(socket);
        self.open(context);
        Some(safety)
    }

    /// The lease of this ticket and its socket.
    fn find_lease<'a, S: Streams>(&mut self, ticket: Ticket, context: &'a mut S) -> Option<(Lease, S::Stream<'a>)> {
        let id = self.leases.get(&ticket).copied().filter(|_| self.is_own(context))?;
        let Member::Leased(lease) = *self.members.get(id)? else { return None };
        let socket = context.stream(id);
        if socket.is_none() {
            // Its `close` was not passed to the pool.
            self.put(id, None);
        }
        Some((lease, socket?))
    }

    /// Notes whether the server has answered in this lease. Returns whether it ever has on this
    /// socket.
    fn lease_is_over(&mut self, lease: &Lease, bytes_read: u64, is_whole: bool) -> bool {
        let age = lease.age;
        if lease.has_served(bytes_read) {
            self.back_off.has_served(age.established.since);
            return true;
        }
        if !is_whole && !age.has_served {
            self.back_off.was_lost_unserved(age.established.since);
        }
        age.has_served
    }

    /// Every change of a member. `None`: it is the pool's no longer.
    fn put(&mut self, id: SocketId, member: Option<Member>) {
        let before = match member {
            Some(member) => self.members.insert(id, member),
            None => self.members.remove(id),
        };
        match &before {
            Some(Member::Ready(_)) => self.ready.retain(|ready| *ready != id),
            Some(Member::Leased(lease)) => drop(self.leases.remove(&lease.ticket)),
            Some(Member::Opening | Member::Leaving | Member::Spent) | None => {}
        }
        match &member {
            Some(Member::Ready(_)) => self.ready.push(id),
            Some(Member::Leased(lease)) => drop(self.leases.insert(lease.ticket, id)),
            Some(Member::Opening | Member::Leaving | Member::Spent) | None => {}
        }
        self.stats.count(before.as_ref(), |count| *count -= 1);
        self.stats.count(member.as_ref(), |count| *count += 1);
        self.is_changed = true;
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else { return };
        let orphan = |(id, member): (SocketId, &Member)| match member {
            Member::Opening | Member::Leased(_) => Some(Orphan::Used(id)),
            Member::Ready(_) => Some(Orphan::Unused(id)),
            Member::Leaving | Member::Spent => None,
        };
        let timer = self.timer.map(|(id, _)| Orphan::Timer(id));
        shared.leave(self.members.iter().filter_map(orphan).chain(timer));
    }
}
