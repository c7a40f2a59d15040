//! Connections to one address, opened ahead, lent and taken back.
//!
//! Invariant: a member is opening, ready, lent or leaving, and is counted as that once; only a
//! ready one is lent, and one that has told anything while it was ready is not ready any more.
//!
//! Built on the public face: `handle` sees each event, and opens and ends sockets by the event's
//! own [`Context`].

mod back_off;
mod options;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use back_off::BackOff;
pub use options::{PoolOptions, PoolStats};

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
/// A program asks for a socket, is granted one, says what it has to say, and gives it back. Sockets
/// that lie ready are watched: one whose peer ends, resets, or says something unasked is thrown out
/// and replaced at once. When the server is down, the pool tries again less and less often. When a
/// lent socket is lost, the pool says whether its request may be [repeated](RetrySafety).
///
/// | a lent socket tells ([`PoolEvent::Leased`]) | its borrower |
/// |---|---|
/// | `data`, the answer is not whole | waits |
/// | `data`, the answer is whole | [`give_back`](Pool::give_back) |
/// | `end`, and the end of the answer is the end of the connection | `give_back`, which ends it |
/// | `end` before that, `timeout`, an answer that can't be right | [`discard`](Pool::discard), and repeats the request or not |
/// | `error` | waits for `close`, which is told as [`PoolEvent::Lost`] |
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
    /// Those that are ready, the last used last: it is lent first, so that those that are not
    /// needed grow old.
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
    /// It is on its way out, and counts no more.
    Leaving,
}

/// Since when a ready socket is there, and unused. `None`: since the last look at the clock, which
/// is to come.
#[derive(Debug, Clone, Copy, Default)]
struct Age {
    born: Option<Instant>,
    unused: Option<Instant>,
    /// The server has said something on it.
    has_served: bool,
}

/// What a socket was when it was lent.
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

/// Names one request for a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What has become of a request for a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolReply {
    /// It has one, which is its own until it is [given back](Pool::give_back).
    Leased(SocketId),
    /// It has waited for too long ([`PoolOptions::wait_limit`]).
    TimedOut,
    /// Too many wait already ([`PoolOptions::max_waiting`]).
    QueueFull,
    /// The pool is closed.
    Closed,
}

/// Whose an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolEvent {
    /// Not the pool's: another socket, or none.
    Foreign,
    /// The pool's own: there is nothing to be done.
    Internal,
    /// A lent socket's: the event is for whoever has it.
    Leased,
    /// A lent socket's last one. Whether its request may be repeated.
    Lost(RetrySafety),
}

/// Whether a request whose socket was lost may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetrySafety {
    /// Not a byte of it has left this program: nobody can have seen it.
    Safe,
    /// Bytes of it have left, and none of an answer has come. The peer may have acted on it, so it
    /// may be repeated only if acting twice does no harm. (Whether its kernel has acknowledged them
    /// can't be asked.)
    IfIdempotent,
    /// A part of the answer has come.
    Unsafe,
}

impl Pool {
    /// A pool of connections to this address. It opens them at the first [`request`](Pool::request) or
    /// [`open`](Pool::open).
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

    /// Asks for a socket. The answer comes out of [`next_reply`](Pool::next_reply), at once if a
    /// socket is ready, in the order in which they were asked for.
    pub fn request(&mut self, context: &mut Context<'_>) -> Ticket {
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        self.stats.asked += 1;
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

    /// Takes a request back that was not granted yet. Answers whether it waited.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| waiting.ticket != ticket);
        self.is_changed = true;
        self.waiting.len() < before
    }

    /// The next answer to a request.
    pub fn next_reply(&mut self) -> Option<(Ticket, PoolReply)> {
        self.grants.pop_front()
    }

    /// What it has done, and what it has.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        PoolStats { ready: self.ready.len(), waiting: self.waiting.len(), ..self.stats }
    }

    /// Ends its sockets, those that are lent when they are given back. Whoever waits is refused.
    /// Nothing is opened any more.
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

    /// Opens what is missing, as all other calls with a context or a socket do: for a program that
    /// wants connections ready before it asks for the first. When nothing has changed it costs
    /// nothing.
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
            self.stats.begun += 1;
        }
        if self.is_closed {
            self.give_up_opening(context);
        }
        self.set_timer(context, now);
    }

    fn wants_another(&self, now: Instant) -> bool {
        let there = self.stats.opening + self.ready.len() + self.stats.lent;
        let may = if self.back_off.is_on() { self.stats.opening == 0 && self.back_off.is_over(now) } else { true };
        !self.is_closed && there < self.options.size && may
    }

    /// Ends what is too old, refuses who has waited for too long.
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

    /// A closed pool opens nothing to its end.
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
            // Its end may be known already, and not told yet.
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
            self.stats.lent += 1;
            self.stats.granted += 1;
            let ticket = self.waiting.pop_front().map(|waiting| waiting.ticket);
            self.grants.extend(ticket.map(|ticket| (ticket, PoolReply::Leased(id))));
        }
    }

    /// Has the reactor tell a timer when there is something to be done.
    fn set_timer(&mut self, context: &mut Context<'_>, now: Instant) {
        let old = |id: &SocketId| {
            let Some(Member::Ready(age)) = self.members.get(*id) else { return None };
            let due = |since: Option<Instant>, limit: Option<Duration>| since?.checked_add(limit?);
            [due(age.born, self.options.max_age), due(age.unused, self.options.max_idle)].into_iter().flatten().min()
        };
        let waits = self.waiting.front().and_then(|waiting| waiting.until);
        // Once its time has come, it is for a socket to be missed, not for the clock.
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

    /// Sees an event before the program does, and says whose it is. It has to see every event of
    /// the reactor.
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
                    // Nobody has asked: whatever it is, the next request would take it for its
                    // answer.
                    Event::Data(_) => {
                        self.ready_was_lost(id);
                        socket.destroy();
                    }
                    Event::Error(_) => self.ready_was_lost(id),
                    Event::Lookup(_)
                    | Event::Connect
                    | Event::Ready
                    | Event::Connection
                    | Event::Filled
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
            // Destroyed by somebody else.
            Member::Ready(_) => self.ready_was_lost(id),
            Member::Lent(lease) => {
                self.stats.lent -= 1;
                self.stats.lost_lent += 1;
                self.lease_is_over(lease, ending.bytes_read, false);
                return PoolEvent::Lost(lease.repeat(ending));
            }
            Member::Leaving => {}
        }
        PoolEvent::Internal
    }

    /// A ready socket is of no use any more.
    fn ready_was_lost(&mut self, id: SocketId) {
        self.ready.retain(|ready| *ready != id);
        self.is_changed = true;
        let before = self.members.insert(id, Member::Leaving);
        self.stats.lost_unused += 1;
        if let Some(Member::Ready(Age { has_served: false, born, .. })) = before {
            self.back_off.was_lost_unserved(born);
        }
    }

    /// Takes a lent socket back. One that can't serve the next request (it has ended or was
    /// destroyed, or its peer has ended, or it is paused or discards, or bytes of the last request
    /// still wait) is ended, and replaced. The borrower's deadline is taken away; a
    /// `set_idle_timeout` of its own stays.
    pub fn give_back(&mut self, socket: &mut Socket<'_>) {
        let id = socket.id();
        let Some(lease) = self.end_lease(id) else { return };
        let has_served = self.lease_is_over(lease, socket.bytes_read(), can_serve(socket));
        if can_serve(socket) && !self.is_closed {
            // The request's, not the next one's.
            socket.set_deadline(None);
            self.members.insert(id, Member::Ready(Age { unused: None, has_served, ..lease.age }));
            self.ready.push(id);
        } else {
            leave(socket);
        }
        self.open(&mut socket.context());
    }

    /// What one lease says of the server. Answers whether it has ever served on this socket.
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

    /// A lent socket is lent no more; without a word more it is leaving.
    fn end_lease(&mut self, id: SocketId) -> Option<Lease> {
        let Some(Member::Lent(lease)) = self.members.get(id).copied() else { return None };
        self.members.insert(id, Member::Leaving);
        self.stats.lent -= 1;
        self.is_changed = true;
        Some(lease)
    }

    /// Lets a lent socket go for good: it is its borrower's from now on, and the pool opens another
    /// in its place. For those who need each connection once, and would have it ready.
    pub fn detach(&mut self, id: SocketId, context: &mut Context<'_>) {
        if self.end_lease(id).is_some() {
            self.members.remove(id);
        }
        self.open(context);
    }

    /// Resets a lent socket whose request has failed in a way that the socket does not know of.
    /// Another takes its place.
    pub fn discard(&mut self, socket: &mut Socket<'_>) {
        let Some(lease) = self.end_lease(socket.id()) else { return };
        self.lease_is_over(lease, socket.bytes_read(), false);
        socket.destroy();
        self.open(&mut socket.context());
    }
}

/// Whether a socket is as good as new.
fn can_serve(socket: &Socket<'_>) -> bool {
    let is_open = socket.state() == State::Open && !socket.end_called() && !socket.peer_ended();
    let is_read = !socket.is_paused() && !socket.is_discarding();
    is_open && is_read && !socket.destroy_called() && socket.queued_bytes() == 0
}

/// In good order; whatever the peer still says, nobody has asked.
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
