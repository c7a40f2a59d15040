//! Connections to one address, opened ahead, leased and given back.
//!
//! Invariant: a member is opening, ready, leased or leaving, and is counted once. Only a ready
//! member is leased, and a member that had an event while it was ready is no longer ready.
//!
//! Built on the public API: `handle` gets each event, and opens and ends sockets through the
//! event's own [`Context`].

mod back_off;
mod options;
mod reply;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use back_off::BackOff;
pub use options::{PoolOptions, PoolStats};
pub use reply::{PoolEvent, PoolReply, RetrySafety, Ticket};

use crate::error::Error;
use crate::event::{Ending, Event};
use crate::id::{SocketId, TimerId};
use crate::lifecycle::State;
use crate::options::ConnectOptions;
use crate::socket::Context;
use crate::socket::Socket;
use crate::socket_map::SocketMap;
use crate::target::Target;

/// Sockets of one reactor, connected ahead to one address.
///
/// A program requests a socket, gets a lease, sends its request, reads the answer, and gives the
/// socket back. The pool watches its ready sockets: if the peer of one ends, resets, or sends bytes
/// without a request, the socket is discarded and replaced at once. While the server is down, the
/// pool retries with a growing delay. When a leased socket is lost, the pool reports whether its
/// request can be sent again ([`RetrySafety`]).
///
/// | event of a leased socket ([`PoolEvent::Leased`]) | what the program does |
/// |---|---|
/// | `data`, the answer is incomplete | waits |
/// | `data`, the answer is complete | [`give_back`](Pool::give_back) |
/// | `end`, and the end of the answer is the end of the connection | `give_back`, which ends it |
/// | `end` before that, `timeout`, an answer that can't be right | [`discard`](Pool::discard), and perhaps a retry |
/// | `error` | waits for `close`, which comes as [`PoolEvent::Lost`] |
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
///         (PoolEvent::Leased, Event::Data(bytes)) => {
///             answer.extend_from_slice(bytes);
///             pool.give_back(&mut socket);
///             pool.close(&mut socket.context());
///         }
///         // The server of this example: it echoes.
///         (PoolEvent::Foreign, Event::Data(bytes)) => drop(socket.write(bytes)?),
///         (PoolEvent::Foreign, Event::End) => socket.end(),
///         _ => {}
///     }
///     while let Some((_ticket, grant)) = pool.next_reply() {
///         if let PoolReply::Leased(id) = grant
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
    target: Target,
    connect: ConnectOptions,
    options: PoolOptions,
    members: SocketMap<Member>,
    /// Ready sockets, the last used last. That one is leased first, so that surplus sockets expire.
    ready: Vec<SocketId>,
    waiting: VecDeque<Waiting>,
    grants: VecDeque<(Ticket, PoolReply)>,
    tickets: u64,
    back_off: BackOff,
    /// The timer that is set, and for when.
    timer: Option<(TimerId, Instant)>,
    stats: PoolStats,
    is_closed: bool,
    /// Something has changed since the last [`open`](Pool::open).
    is_changed: bool,
}

/// One socket of the pool.
#[derive(Debug, Clone, Copy)]
enum Member {
    Opening,
    Ready(Age),
    Lent(Lease),
    /// It is closing, and is not counted.
    Leaving,
}

/// Since when a ready socket is established, and unused. `None`: since the next look at the clock.
#[derive(Debug, Clone, Copy, Default)]
struct Age {
    born: Option<Instant>,
    unused: Option<Instant>,
    /// The server has sent bytes on it.
    has_served: bool,
}

/// The state of a socket when it was leased.
#[derive(Debug, Clone, Copy)]
struct Lease {
    age: Age,
    /// What it had read and written.
    read: u64,
    written: u64,
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    until: Option<Instant>,
}

impl Pool {
    /// A pool of connections to this address. It opens them at the first
    /// [`request`](Pool::request) or [`open`](Pool::open). A deadline of `connect` ends only
    /// attempts to connect.
    ///
    /// # Errors
    /// [`Error::InvalidAddress`] and [`Error::InvalidOption`], as for
    /// [`Reactor::connect`](crate::Reactor::connect).
    pub fn new<T>(target: T, connect: ConnectOptions, options: PoolOptions) -> Result<Self, Error>
    where
        T: TryInto<Target>,
        Error: From<T::Error>,
    {
        let target = target.try_into()?;
        connect.check()?;
        let back_off = BackOff::new(options.back_off, options.seed);
        Ok(Self {
            target,
            connect,
            options,
            members: SocketMap::new(),
            ready: Vec::new(),
            waiting: VecDeque::new(),
            grants: VecDeque::new(),
            tickets: 0,
            back_off,
            timer: None,
            stats: PoolStats::default(),
            is_closed: false,
            is_changed: true,
        })
    }

    /// Requests a socket. [`next_reply`](Pool::next_reply) returns the result: at once if a socket
    /// is ready, and in the order of the requests.
    pub fn request(&mut self, context: &mut Context<'_>) -> Ticket {
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        self.stats.requested += 1;
        self.is_changed = true;
        if self.is_closed {
            self.refuse(ticket, PoolReply::Closed);
        } else if self.waiting.len() >= self.options.max_waiting {
            self.refuse(ticket, PoolReply::QueueFull);
        } else {
            let until = self.options.wait_limit.and_then(|limit| context.now().checked_add(limit));
            self.waiting.push_back(Waiting { ticket, until });
        }
        self.open(context);
        ticket
    }

    /// Withdraws a request that still waits. Returns whether it did: a request that has a socket
    /// already gets its reply from [`next_reply`](Self::next_reply), and the socket must be given
    /// back.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| waiting.ticket != ticket);
        self.is_changed = true;
        self.waiting.len() < before
    }

    /// The next result of a request.
    pub fn next_reply(&mut self) -> Option<(Ticket, PoolReply)> {
        self.grants.pop_front()
    }

    /// Counts of what it has done, and its present sockets.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        PoolStats { ready: self.ready.len(), waiting: self.waiting.len(), ..self.stats }
    }

    /// Ends its sockets; leased ones end when they are given back. Waiting requests are refused,
    /// and no socket is opened any more.
    pub fn close(&mut self, context: &mut Context<'_>) {
        (self.is_closed, self.is_changed) = (true, true);
        while let Some(waiting) = self.waiting.pop_front() {
            self.refuse(waiting.ticket, PoolReply::Closed);
        }
        self.open(context);
    }

    fn refuse(&mut self, ticket: Ticket, why: PoolReply) {
        self.stats.refused += 1;
        self.grants.push_back((ticket, why));
    }

    // --- what every call ends with ---

    /// Opens missing connections. All other calls with a context or a socket do that too, so this
    /// is for a program that wants connections ready before its first request. It costs nothing if
    /// nothing has changed.
    pub fn open(&mut self, context: &mut Context<'_>) {
        if !std::mem::take(&mut self.is_changed) {
            return;
        }
        let now = context.now();
        self.back_off.count(now, self.options.size);
        self.expire(context, now);
        self.grant(context, now);
        while self.wants_another(now) {
            // The options were checked when the pool was made.
            let Ok(id) = context.connect(self.target.clone(), self.connect.clone()) else { break };
            self.members.insert(id, Member::Opening);
            self.back_off.tries();
            self.stats.opening += 1;
            self.stats.started += 1;
        }
        if self.is_closed {
            self.give_up_opening(context);
        }
        self.set_timer(context, now);
    }

    fn wants_another(&self, now: Instant) -> bool {
        let there = self.stats.opening + self.ready.len() + self.stats.leased;
        let may = if self.back_off.is_on() { self.stats.opening == 0 && self.back_off.is_over(now) } else { true };
        !self.is_closed && there < self.options.size && may
    }

    /// Ends sockets that are too old, and refuses requests that have waited for too long.
    fn expire(&mut self, context: &mut Context<'_>, now: Instant) {
        while let Some(waiting) = self.waiting.front()
            && waiting.until.is_some_and(|until| until <= now)
        {
            let ticket = waiting.ticket;
            self.waiting.pop_front();
            self.refuse(ticket, PoolReply::TimedOut);
        }
        for place in (0..self.ready.len()).rev() {
            let id = self.ready[place];
            let Some(Member::Ready(age)) = self.members.get_mut(id) else { continue };
            let (born, unused) = (*age.born.get_or_insert(now), *age.unused.get_or_insert(now));
            let over = |since: Instant, limit: Option<Duration>| limit.is_some_and(|limit| now - since >= limit);
            if self.is_closed || over(born, self.options.max_age) || over(unused, self.options.max_idle) {
                self.stats.expired += u64::from(!self.is_closed);
                self.ready.remove(place);
                self.members.insert(id, Member::Leaving);
                if let Some(mut socket) = context.socket(id) {
                    leave(&mut socket);
                }
            }
        }
    }

    /// A closed pool completes no connection attempt.
    fn give_up_opening(&mut self, context: &mut Context<'_>) {
        let is_opening = |(id, member): (SocketId, &Member)| matches!(member, Member::Opening).then_some(id);
        let opening: Vec<SocketId> = self.members.iter().filter_map(is_opening).collect();
        for id in opening {
            self.members.insert(id, Member::Leaving);
            self.stats.opening -= 1;
            if let Some(mut socket) = context.socket(id) {
                socket.destroy();
            }
        }
    }

    fn grant(&mut self, context: &mut Context<'_>, now: Instant) {
        while !self.waiting.is_empty()
            && let Some(id) = self.ready.pop()
        {
            let Some(mut socket) = context.socket(id) else { continue };
            // Its end may be known already, and not delivered yet.
            if socket.state() != State::Open || socket.peer_ended() || socket.destroy_called() {
                self.ready_was_lost(id);
                leave(&mut socket);
                continue;
            }
            let age = match self.members.get(id) {
                Some(Member::Ready(age)) => *age,
                _ => Age::default(),
            };
            let age = Age { born: age.born.or(Some(now)), ..age };
            let lease = Lease { age, read: socket.bytes_read(), written: socket.bytes_written() };
            self.members.insert(id, Member::Lent(lease));
            self.stats.leased += 1;
            self.stats.granted += 1;
            let ticket = self.waiting.pop_front().map(|waiting| waiting.ticket);
            self.grants.extend(ticket.map(|ticket| (ticket, PoolReply::Leased(id))));
        }
    }

    /// Sets a timer for the next time at which something has to be done.
    fn set_timer(&mut self, context: &mut Context<'_>, now: Instant) {
        let old = |id: &SocketId| {
            let Some(Member::Ready(age)) = self.members.get(*id) else { return None };
            let due = |since: Option<Instant>, limit: Option<Duration>| since?.checked_add(limit?);
            [due(age.born, self.options.max_age), due(age.unused, self.options.max_idle)].into_iter().flatten().min()
        };
        let waits = self.waiting.front().and_then(|waiting| waiting.until);
        // Once its time has come, the next missing socket triggers the retry, not the clock.
        let retry = self.back_off.retry_at().filter(|at| *at > now && !self.is_closed && self.stats.opening == 0);
        let due = self.ready.iter().filter_map(old).chain(waits).chain(retry).min();
        if due == self.timer.map(|(_, at)| at) {
            return;
        }
        if let Some((id, _)) = self.timer.take() {
            context.cancel_timer(id);
        }
        self.timer = due.map(|at| (context.set_timer(at.saturating_duration_since(now)), at));
    }

    // --- events ---

    /// Handles an event, before the program does. Pass every event of the reactor.
    pub fn handle(&mut self, socket: &mut Socket<'_>, event: &Event<'_>) -> PoolEvent {
        let handled = self.sees(socket, event);
        self.open(&mut socket.context());
        handled
    }

    fn sees(&mut self, socket: &mut Socket<'_>, event: &Event<'_>) -> PoolEvent {
        if let Event::Timer(id) = event {
            let ours = self.timer.is_some_and(|(own, _)| own == *id);
            if ours {
                (self.timer, self.is_changed) = (None, true);
            }
            return if ours { PoolEvent::Internal } else { PoolEvent::Foreign };
        }
        let id = socket.id();
        let Some(member) = self.members.get(id).copied() else { return PoolEvent::Foreign };
        if let Event::Close(ending) = event {
            let handled = self.closed(id, member, ending);
            self.members.remove(id);
            self.is_changed = true;
            return handled;
        }
        match member {
            Member::Lent(_) => PoolEvent::Leased,
            Member::Opening => {
                if *event == Event::Ready {
                    self.stats.opening -= 1;
                    self.back_off.has_connected();
                    // Deadlines are for requests, and this one may stay unused for long.
                    socket.set_deadline(None);
                    self.members.insert(id, Member::Ready(Age::default()));
                    self.ready.push(id);
                    self.is_changed = true;
                }
                PoolEvent::Internal
            }
            Member::Ready(_) => {
                match event {
                    Event::End | Event::PeerEnded(_) => {
                        self.ready_was_lost(id);
                        leave(socket);
                    }
                    // Bytes without a request: the next request would take them for its answer.
                    Event::Data(_) | Event::Filled | Event::Spliced(_) => {
                        self.ready_was_lost(id);
                        socket.destroy();
                    }
                    Event::Error(_) => self.ready_was_lost(id),
                    Event::Lookup(_)
                    | Event::Connect
                    | Event::Ready
                    | Event::Connection
                    | Event::Drain
                    | Event::Timeout
                    | Event::Close(_)
                    | Event::Timer(_)
                    | Event::Woken
                    | Event::AcceptFailed(..)
                    | Event::Overflow(..)
                    | Event::ListenerClosed(_) => {}
                }
                PoolEvent::Internal
            }
            Member::Leaving => PoolEvent::Internal,
        }
    }

    fn closed(&mut self, id: SocketId, member: Member, ending: &Ending) -> PoolEvent {
        match member {
            Member::Opening => {
                self.stats.opening -= 1;
                self.stats.failed += 1;
                self.back_off.has_failed();
            }
            // The program has destroyed it.
            Member::Ready(_) => self.ready_was_lost(id),
            Member::Lent(lease) => {
                self.stats.leased -= 1;
                self.stats.lost_leased += 1;
                self.lease_is_over(lease, ending.bytes_read, false);
                return PoolEvent::Lost(lease.repeat(ending));
            }
            Member::Leaving => {}
        }
        PoolEvent::Internal
    }

    /// A ready socket can't be leased any more.
    fn ready_was_lost(&mut self, id: SocketId) {
        self.ready.retain(|ready| *ready != id);
        self.is_changed = true;
        let before = self.members.insert(id, Member::Leaving);
        self.stats.lost_unused += 1;
        if let Some(Member::Ready(Age { has_served: false, born, .. })) = before {
            self.back_off.was_lost_unserved(born);
        }
    }

    /// Gives a leased socket back. A socket that can't serve the next request (it has ended or was
    /// destroyed, its peer has ended, it is paused or discards, or bytes of the last request still
    /// wait) is ended and replaced. Its deadline is removed; its idle timeout stays.
    pub fn give_back(&mut self, socket: &mut Socket<'_>) {
        let id = socket.id();
        let Some(lease) = self.end_lease(id) else { return };
        let has_served = self.lease_is_over(lease, socket.bytes_read(), can_serve(socket));
        if can_serve(socket) && !self.is_closed {
            // It belonged to the request.
            socket.set_deadline(None);
            self.members.insert(id, Member::Ready(Age { unused: None, has_served, ..lease.age }));
            self.ready.push(id);
        } else {
            leave(socket);
        }
        self.open(&mut socket.context());
    }

    /// Notes whether the server has answered in this lease. Returns whether it ever has on this
    /// socket.
    fn lease_is_over(&mut self, lease: Lease, bytes_read: u64, is_whole: bool) -> bool {
        if bytes_read > lease.read {
            self.back_off.has_served(lease.age.born);
            return true;
        }
        if !is_whole && !lease.age.has_served {
            self.back_off.was_lost_unserved(lease.age.born);
        }
        lease.age.has_served
    }

    /// Ends a lease. The socket is leaving unless the caller does something else with it.
    fn end_lease(&mut self, id: SocketId) -> Option<Lease> {
        let Some(Member::Lent(lease)) = self.members.get(id).copied() else { return None };
        self.members.insert(id, Member::Leaving);
        self.stats.leased -= 1;
        self.is_changed = true;
        Some(lease)
    }

    /// Removes a leased socket from the pool, which opens another one. For programs that use each
    /// connection once, such as a proxy, and want it ready.
    pub fn detach(&mut self, id: SocketId, context: &mut Context<'_>) {
        if self.end_lease(id).is_some() {
            self.members.remove(id);
        }
        self.open(context);
    }

    /// Resets a leased socket whose request has failed on a higher level, such as a wrong answer.
    /// The pool opens another one. Further events of the socket are [`PoolEvent::Internal`].
    pub fn discard(&mut self, socket: &mut Socket<'_>) {
        let Some(lease) = self.end_lease(socket.id()) else { return };
        self.lease_is_over(lease, socket.bytes_read(), false);
        socket.destroy();
        self.open(&mut socket.context());
    }
}

/// Whether a socket can serve another request.
fn can_serve(socket: &Socket<'_>) -> bool {
    let is_open = socket.state() == State::Open && !socket.end_called() && !socket.peer_ended();
    let is_read = !socket.is_paused() && !socket.is_discarding() && !socket.is_filling();
    is_open && is_read && !socket.destroy_called() && socket.queued_bytes() == 0
}

/// Ends it in order. What the peer still sends is dropped.
fn leave(socket: &mut Socket<'_>) {
    socket.resume();
    socket.discard();
    socket.end();
}

impl Lease {
    fn repeat(&self, ending: &Ending) -> RetrySafety {
        if ending.bytes_read > self.read {
            RetrySafety::Unsafe
        } else if ending.bytes_written > self.written {
            RetrySafety::IfIdempotent
        } else {
            RetrySafety::Safe
        }
    }
}
