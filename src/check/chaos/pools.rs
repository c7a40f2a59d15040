//! Pools of random runs, and those who borrow from them: sides that are lent for a while, and
//! proxies that take a connection for good.
//!
//! Invariant: a side is its pool's until it is lent, and again when it was given back; what a pool
//! does to its sockets, the judge learns by looking at them.

use super::run::Run;
use super::run_state::Book;
use super::socket_model::{Program, Side};
use crate::check::{Rule, Violation, must};
use crate::event::{Ending, Event};
use crate::id::SocketId;
use crate::lifecycle::State;
use crate::pool::{Pool, PoolEvent, PoolReply, RetrySafety, Ticket};
use crate::reactor::Reactor;
use crate::sim::Host;
use crate::socket::Socket;

/// A pool of ours.
pub(super) struct Lending {
    pub(super) host: usize,
    pub(super) number: usize,
    pub(super) pool: Pool,
    pub(super) size: usize,
    /// In nanoseconds.
    pub(super) wait_limit: Option<u64>,
    pub(super) max_waiting: usize,
    waiting: Vec<Asked>,
    lent: Vec<Lease>,
    /// Sockets that it has begun, as far as they are known as sides.
    begun: u64,
    /// Since when somebody waits, and nothing is there or being opened.
    starved_since: Option<u64>,
}

/// Longer than any back-off of a pool here.
const STARVED: u64 = 3_000_000_000;

/// A request for a socket.
struct Asked {
    ticket: Ticket,
    at: u64,
    was_crowded: bool,
    /// The proxy's client that waits for it.
    front: Option<SocketId>,
}

/// What a socket was when it was lent.
struct Lease {
    id: SocketId,
    read: u64,
    written: u64,
}

/// What a borrower does with its socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Return {
    GiveBack,
    ThrowOut,
    GiveAway,
}

impl Lending {
    pub(super) fn new(
        (host, number): (usize, usize),
        pool: Pool,
        size: usize,
        wait_limit: Option<u64>,
        max_waiting: usize,
    ) -> Self {
        let (waiting, lent) = (Vec::new(), Vec::new());
        Self { host, number, pool, size, wait_limit, max_waiting, waiting, lent, begun: 0, starved_since: None }
    }

    pub(super) fn ask(&mut self, reactor: &mut Reactor<Host>, now: u64, front: Option<SocketId>) {
        let was_crowded = self.pool.stats().waiting >= self.max_waiting;
        let ticket = self.pool.request(&mut reactor.context());
        self.waiting.push(Asked { ticket, at: now, was_crowded, front });
    }

    /// Nobody waits for what is there, nobody waits for too long, and there are no more than there
    /// may be.
    fn check(&mut self, now: u64, late: u64) -> Result<(), Violation> {
        let stats = self.pool.stats();
        let there = stats.opening + stats.ready + stats.leased;
        must(there <= self.size, Rule::Resources, || format!("a pool of {} has {stats:?}", self.size))?;
        must(stats.leased == self.lent.len(), Rule::Identity, || format!("{} are lent: {stats:?}", self.lent.len()))?;
        must(stats.waiting == self.waiting.len(), Rule::Identity, || {
            format!("{} wait: {stats:?}", self.waiting.len())
        })?;
        let idle = stats.ready > 0 && stats.waiting > 0;
        must(!idle, Rule::Progress, || format!("somebody waits for a socket of a pool that has one: {stats:?}"))?;
        let is_starved = stats.waiting > 0 && there < self.size && stats.opening == 0;
        let since = *self.starved_since.get_or_insert(now);
        self.starved_since = self.starved_since.filter(|_| is_starved);
        must(!is_starved || now <= since + STARVED + late, Rule::Progress, || {
            format!("somebody waits for a socket, and none was opened for {} ns: {stats:?}", now - since)
        })?;
        let overdue = |asked: &Asked| self.wait_limit.is_some_and(|limit| now > asked.at + limit + late);
        must(!self.waiting.iter().any(overdue), Rule::Timers, || "a pool lets somebody wait for too long".to_owned())
    }

    /// A lent socket is over: whether its request may be sent again.
    fn check_lost(&mut self, id: SocketId, ending: &Ending, repeat: RetrySafety) -> Result<(), Violation> {
        let Some(place) = self.lent.iter().position(|lease| lease.id == id) else {
            return Err(Violation::new(Rule::Identity, format!("{id} is lost, and was not lent")));
        };
        let lease = self.lent.swap_remove(place);
        let expected = match (ending.bytes_read > lease.read, ending.bytes_written > lease.written) {
            (true, _) => RetrySafety::Unsafe,
            (false, true) => RetrySafety::IfIdempotent,
            (false, false) => RetrySafety::Safe,
        };
        must(repeat == expected, Rule::HonestClose, || format!("{repeat:?} for a socket that was lost as: {ending}"))
    }
}

impl Book {
    /// Whether an event without a socket is one of a pool's.
    pub(super) fn is_pools(&mut self, host: u32, socket: &mut Socket<'_>, event: &Event<'_>) -> bool {
        let own = self.lendings.iter_mut().filter(|lending| lending.host == host as usize);
        own.into_iter().any(|lending| lending.pool.handle(socket, event) == PoolEvent::Internal)
    }

    /// Shows an event of a pool's socket to the pool. Answers whether it is for whoever has
    /// borrowed it.
    pub(super) fn pooled(
        &mut self,
        side: &mut Side,
        socket: &mut Socket<'_>,
        event: &Event<'_>,
    ) -> Result<bool, Violation> {
        let (host, number, is_lent) = (side.host as usize, side.stream.0, side.program == Program::Lent);
        let Some(lending) = self.lendings.iter_mut().find(|it| it.host == host && it.number == number) else {
            return Ok(true);
        };
        let handled = lending.pool.handle(socket, event);
        let is_right = match (handled, is_lent) {
            (PoolEvent::Internal, false) => true,
            (PoolEvent::Leased, true) => !matches!(event, Event::Close(_)),
            (PoolEvent::Lost(repeat), true) => {
                if let Event::Close(ending) = event {
                    lending.check_lost(side.id, ending, repeat)?;
                }
                matches!(event, Event::Close(_))
            }
            _ => false,
        };
        must(is_right, Rule::Identity, || format!("{} is lent: {is_lent}, and the pool says {handled:?}", side.id))?;
        if matches!(event, Event::Ready) && !is_lent {
            side.deadline = None; // The pool has removed it.
        }
        self.observe(side, socket);
        if !is_lent {
            side.ends_by_itself(socket, event, self.now());
        }
        Ok(is_lent)
    }

    /// A borrower has had an event: perhaps that is all it wanted.
    pub(super) fn perhaps_return(&mut self, side: &mut Side, socket: &mut Socket<'_>) {
        let what = match self.rng.below(30) {
            0..6 => Return::GiveBack,
            6 => Return::ThrowOut,
            7 => Return::GiveAway,
            _ => return,
        };
        let (host, number) = (side.host as usize, side.stream.0);
        let Some(lending) = self.lendings.iter_mut().find(|it| it.host == host && it.number == number) else { return };
        lending.lent.retain(|lease| lease.id != side.id);
        let text = match what {
            Return::GiveBack => {
                side.give_back(&mut lending.pool, socket);
                "  is given back"
            }
            Return::ThrowOut => {
                lending.pool.discard(socket);
                side.program = Program::Pooled;
                "  is thrown out"
            }
            Return::GiveAway => {
                lending.pool.detach(side.id, &mut socket.context());
                side.program = Program::Random;
                "  is given away"
            }
        };
        self.note_line(side.label(), text.to_owned());
        self.observe(side, socket);
    }
}

impl Side {
    /// Its pool takes it back, and the borrower's deadline with it, unless it is of no use any
    /// more.
    fn give_back(&mut self, pool: &mut Pool, socket: &mut Socket<'_>) {
        pool.give_back(socket);
        self.program = Program::Pooled;
        self.deadline = self.deadline.filter(|_| socket.is_discarding());
    }
}

impl Run {
    /// Between two events: notes what the pools of a reactor have begun, ended and granted.
    pub(super) fn tend(&mut self, host: usize) -> Result<(), Violation> {
        for place in 0..self.book.lendings.len() {
            if self.book.lendings[place].host != host {
                continue;
            }
            let Some(reactor) = &mut self.reactors[host] else { continue };
            self.book.lendings[place].pool.open(&mut reactor.context());
            self.adopt(host, place);
            self.observe_pooled(host);
            while let Some((ticket, grant)) = self.book.lendings[place].pool.next_reply() {
                self.granted(host, place, ticket, grant)?;
                // One that was given away, or back, is replaced at once.
                self.adopt(host, place);
            }
            let clock = self.book.clock(host as u32);
            self.book.lendings[place].check(clock.now, clock.late)?;
        }
        Ok(())
    }

    /// Notes what pools have done to their own sockets.
    fn observe_pooled(&mut self, host: usize) {
        let Self { reactors, book, .. } = self;
        let Some(reactor) = &mut reactors[host] else { return };
        for place in 0..book.sides.len() {
            let side = &book.sides[place];
            let is_here = side.host as usize == host && side.program == Program::Pooled;
            let Some(socket) = reactor.socket(side.id).filter(|_| is_here) else { continue };
            let now = book.now();
            for what in book.sides[place].observe(&socket, now) {
                book.note_line(book.sides[place].label(), format!("  {what}"));
            }
        }
    }

    /// The sockets that a pool has begun are sides from now on.
    fn adopt(&mut self, host: usize, place: usize) {
        let Self { reactors, book, .. } = self;
        let Some(reactor) = &mut reactors[host] else { return };
        let begun = book.lendings[place].pool.stats().started;
        if std::mem::replace(&mut book.lendings[place].begun, begun) == begun {
            return;
        }
        let (now, number) = (book.now(), book.lendings[place].number);
        for id in reactor.sockets().iter().map(|info| info.id).collect::<Vec<_>>() {
            let is_known = book.sides.iter().any(|side| side.host as usize == host && side.id == id);
            let Some(socket) = reactor.socket(id).filter(|socket| !is_known && socket.state() == State::Created) else {
                continue;
            };
            let mut side = Side::new(host as u32, (number, true), &socket, now);
            side.program = Program::Pooled;
            book.sides.push(side);
        }
    }

    fn granted(&mut self, host: usize, place: usize, ticket: Ticket, grant: PoolReply) -> Result<(), Violation> {
        let now = self.book.now();
        let Self { reactors, book, .. } = self;
        let lending = &mut book.lendings[place];
        let Some(asked) = lending.waiting.iter().position(|asked| asked.ticket == ticket) else {
            return Err(Violation::new(Rule::Identity, format!("{ticket:?} is answered, and does not wait")));
        };
        let asked = lending.waiting.remove(asked);
        let is_due = match grant {
            PoolReply::Leased(_) => true,
            PoolReply::TimedOut => lending.wait_limit.is_some_and(|limit| now >= asked.at + limit),
            PoolReply::QueueFull => asked.was_crowded,
            PoolReply::Closed => book.is_called,
        };
        must(is_due, Rule::Timers, || format!("{grant:?} for who has asked at {} ns", asked.at))?;
        let (Some(reactor), PoolReply::Leased(id)) = (&mut reactors[host], grant) else {
            self.refuse(host, asked.front);
            return Ok(());
        };
        let Some(socket) = reactor.socket(id) else {
            return Err(Violation::new(Rule::Identity, format!("{id} is lent, and is gone")));
        };
        let is_open = socket.state() == State::Open && !socket.end_called() && !socket.peer_ended();
        let is_new = !socket.is_paused() && !socket.is_discarding() && socket.queued_bytes() == 0;
        // The program may have destroyed it in the event in which it was granted.
        let is_ours = |side: &&Side| side.host as usize == host && side.id == id;
        let was_destroyed = book.sides.iter().find(is_ours).is_some_and(|side| side.destroy_called);
        let is_good = is_open && is_new && !socket.destroy_called();
        must(is_good || was_destroyed, Rule::Language, || format!("{socket:?} is lent"))?;
        let (read, written) = (socket.bytes_read(), socket.bytes_written());
        let Some(side) = book.sides.iter_mut().find(|side| side.host as usize == host && side.id == id) else {
            return Err(Violation::new(Rule::Identity, format!("{id} is lent, and nobody has begun it")));
        };
        must(side.program == Program::Pooled, Rule::Identity, || format!("{id} is lent twice"))?;
        side.program = Program::Lent;
        lending.lent.push(Lease { id, read, written });
        if let Some(front) = asked.front {
            self.join(host, place, front, id);
        }
        Ok(())
    }

    /// A proxy's client has its connection to the server, for good.
    fn join(&mut self, host: usize, place: usize, front: SocketId, back: SocketId) {
        let now = self.book.now();
        let Self { reactors, book, .. } = self;
        let Some(reactor) = &mut reactors[host] else { return };
        let lending = &mut book.lendings[place];
        lending.lent.retain(|lease| lease.id != back);
        let lives = reactor.socket(front).is_some_and(|socket| !socket.destroy_called());
        let of = |side: &&mut Side, id| side.host as usize == host && side.id == id;
        if !lives {
            for side in book.sides.iter_mut().filter(|side| of(side, back)) {
                if let Some(mut socket) = reactor.socket(back) {
                    side.give_back(&mut lending.pool, &mut socket);
                }
            }
            return;
        }
        lending.pool.detach(back, &mut reactor.context());
        book.pipes.join(front, back);
        for side in book.sides.iter_mut().filter(|side| of(side, back)) {
            side.program = Program::Piped;
        }
        for side in book.sides.iter_mut().filter(|side| of(side, front)) {
            if let Some(mut socket) = reactor.socket(front) {
                socket.resume();
                side.look_paused(&socket, now);
            }
        }
    }

    /// A proxy's client gets nobody.
    fn refuse(&mut self, host: usize, front: Option<SocketId>) {
        let Self { reactors, book, .. } = self;
        let side = book.sides.iter_mut().find(|side| side.host as usize == host && Some(side.id) == front);
        let socket = front.zip(reactors[host].as_mut()).and_then(|(front, reactor)| reactor.socket(front));
        if let (Some(side), Some(mut socket)) = (side, socket) {
            side.destroy(&mut socket);
        }
    }

    /// Somebody asks for a socket of this conversation's pool.
    pub(super) fn ask(&mut self, number: usize, front: Option<SocketId>) {
        let now = self.book.now();
        let Self { reactors, book, .. } = self;
        let Some(lending) = book.lendings.iter_mut().find(|lending| lending.number == number) else { return };
        if let Some(reactor) = &mut reactors[lending.host] {
            lending.ask(reactor, now, front);
        }
    }

    /// Nothing is borrowed any more.
    pub(super) fn close_pools(&mut self) {
        for lending in &mut self.book.lendings {
            if let Some(reactor) = &mut self.reactors[lending.host] {
                lending.pool.close(&mut reactor.context());
            }
        }
    }
}
