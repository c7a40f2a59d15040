//! Pools of random runs, and those who borrow from them: sides that are lent for a while, and
//! proxies that take a connection for good.
//!
//! Invariant: a side is its pool's until it is lent, and again when it was given back; what a pool
//! does to its sockets, the judge learns by looking at them.

use super::run::Run;
use super::run_state::RunState;
use super::socket_model::{Driver, SocketModel};
use crate::check::{Rule, Violation, must};
use crate::event::{Ending, Event};
use crate::id::SocketId;
use crate::lifecycle::State;
use crate::pool::{Pool, PoolEvent, PoolReply, RetrySafety, Ticket};
use crate::reactor::Reactor;
use crate::sim::Host;
use crate::socket::Socket;

/// A pool of ours.
pub(super) struct PoolModel {
    pub(super) host: usize,
    pub(super) number: usize,
    pub(super) pool: Pool,
    pub(super) size: usize,
    /// In nanoseconds.
    pub(super) wait_limit: Option<u64>,
    pub(super) max_waiting: usize,
    waiting: Vec<PendingRequest>,
    leased: Vec<Lease>,
    /// Sockets that it has started, as far as they are known as sides.
    started: u64,
    /// Since when somebody waits, and nothing is there or being opened.
    starved_since: Option<u64>,
}

/// Longer than any back-off of a pool here.
const MAX_STARVATION: u64 = 3_000_000_000;

/// A request for a socket.
struct PendingRequest {
    ticket: Ticket,
    at: u64,
    queue_was_full: bool,
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
enum Release {
    GiveBack,
    Discard,
    Detach,
}

impl PoolModel {
    pub(super) fn new(
        (host, number): (usize, usize),
        pool: Pool,
        size: usize,
        wait_limit: Option<u64>,
        max_waiting: usize,
    ) -> Self {
        let (waiting, leased) = (Vec::new(), Vec::new());
        Self { host, number, pool, size, wait_limit, max_waiting, waiting, leased, started: 0, starved_since: None }
    }

    pub(super) fn request(&mut self, reactor: &mut Reactor<Host>, now: u64, front: Option<SocketId>) {
        let queue_was_full = self.pool.stats().waiting >= self.max_waiting;
        let ticket = self.pool.request(&mut reactor.context());
        self.waiting.push(PendingRequest { ticket, at: now, queue_was_full, front });
    }

    /// Nobody waits for what is there, nobody waits for too long, and there are no more than there
    /// may be.
    fn check(&mut self, now: u64, late: u64) -> Result<(), Violation> {
        let stats = self.pool.stats();
        let there = stats.opening + stats.ready + stats.leased;
        must(there <= self.size, Rule::Resources, || format!("a pool of {} has {stats:?}", self.size))?;
        must(stats.leased == self.leased.len(), Rule::Identity, || {
            format!("{} are lent: {stats:?}", self.leased.len())
        })?;
        must(stats.waiting == self.waiting.len(), Rule::Identity, || {
            format!("{} wait: {stats:?}", self.waiting.len())
        })?;
        let idle = stats.ready > 0 && stats.waiting > 0;
        must(!idle, Rule::Progress, || format!("somebody waits for a socket of a pool that has one: {stats:?}"))?;
        let is_starved = stats.waiting > 0 && there < self.size && stats.opening == 0;
        let since = *self.starved_since.get_or_insert(now);
        self.starved_since = self.starved_since.filter(|_| is_starved);
        must(!is_starved || now <= since + MAX_STARVATION + late, Rule::Progress, || {
            format!("somebody waits for a socket, and none was opened for {} ns: {stats:?}", now - since)
        })?;
        let overdue = |request: &PendingRequest| self.wait_limit.is_some_and(|limit| now > request.at + limit + late);
        must(!self.waiting.iter().any(overdue), Rule::Timers, || "a pool lets somebody wait for too long".to_owned())
    }

    /// A lent socket is over: whether its request may be sent again.
    fn check_lost(&mut self, id: SocketId, ending: &Ending, repeat: RetrySafety) -> Result<(), Violation> {
        let Some(index) = self.leased.iter().position(|lease| lease.id == id) else {
            return Err(Violation::new(Rule::Identity, format!("{id} is lost, and was not lent")));
        };
        let lease = self.leased.swap_remove(index);
        let expected = match (ending.bytes_read > lease.read, ending.bytes_written > lease.written) {
            (true, _) => RetrySafety::Unsafe,
            (false, true) => RetrySafety::IfIdempotent,
            (false, false) => RetrySafety::Safe,
        };
        must(repeat == expected, Rule::HonestClose, || format!("{repeat:?} for a socket that was lost as: {ending}"))
    }
}

impl RunState {
    /// Whether an event without a socket is one of a pool's.
    pub(super) fn is_pools(&mut self, host: u32, socket: &mut Socket<'_>, event: &Event<'_>) -> bool {
        let own = self.pool_models.iter_mut().filter(|pool_model| pool_model.host == host as usize);
        own.into_iter().any(|pool_model| pool_model.pool.handle(socket, event) == PoolEvent::Internal)
    }

    /// Shows an event of a pool's socket to the pool. Answers whether it is for whoever has
    /// borrowed it.
    pub(super) fn pooled(
        &mut self,
        model: &mut SocketModel,
        socket: &mut Socket<'_>,
        event: &Event<'_>,
    ) -> Result<bool, Violation> {
        let (host, number, is_leased) = (model.host as usize, model.stream.0, model.driver == Driver::Leased);
        let Some(pool_model) = self.pool_models.iter_mut().find(|it| it.host == host && it.number == number) else {
            return Ok(true);
        };
        let handled = pool_model.pool.handle(socket, event);
        let is_right = match (handled, is_leased) {
            (PoolEvent::Internal, false) => true,
            (PoolEvent::Leased, true) => !matches!(event, Event::Close(_)),
            (PoolEvent::Lost(repeat), true) => {
                if let Event::Close(ending) = event {
                    pool_model.check_lost(model.id, ending, repeat)?;
                }
                matches!(event, Event::Close(_))
            }
            _ => false,
        };
        must(is_right, Rule::Identity, || format!("{} is lent: {is_leased}, and the pool says {handled:?}", model.id))?;
        if matches!(event, Event::Ready) && !is_leased {
            model.deadline = None; // The pool has removed it.
        }
        self.observe(model, socket);
        if !is_leased {
            model.note_automatic_end(socket, event, self.now());
        }
        Ok(is_leased)
    }

    /// A borrower has had an event: perhaps that is all it wanted.
    pub(super) fn perhaps_return(&mut self, model: &mut SocketModel, socket: &mut Socket<'_>) {
        let what = match self.rng.below(30) {
            0..6 => Release::GiveBack,
            6 => Release::Discard,
            7 => Release::Detach,
            _ => return,
        };
        let (host, number) = (model.host as usize, model.stream.0);
        let Some(pool_model) = self.pool_models.iter_mut().find(|it| it.host == host && it.number == number) else {
            return;
        };
        pool_model.leased.retain(|lease| lease.id != model.id);
        let text = match what {
            Release::GiveBack => {
                model.give_back(&mut pool_model.pool, socket);
                "  is given back"
            }
            Release::Discard => {
                pool_model.pool.discard(socket);
                model.driver = Driver::Pooled;
                "  is thrown out"
            }
            Release::Detach => {
                pool_model.pool.detach(model.id, &mut socket.context());
                model.driver = Driver::Random;
                "  is given away"
            }
        };
        self.note_line(model.label(), text.to_owned());
        self.observe(model, socket);
    }
}

impl SocketModel {
    /// Its pool takes it back, and the borrower's deadline with it, unless it is of no use any
    /// more.
    fn give_back(&mut self, pool: &mut Pool, socket: &mut Socket<'_>) {
        pool.give_back(socket);
        self.driver = Driver::Pooled;
        self.deadline = self.deadline.filter(|_| socket.is_discarding());
    }
}

impl Run {
    /// Between two events: notes what the pools of a reactor have started, ended and granted.
    pub(super) fn update_pools(&mut self, host: usize) -> Result<(), Violation> {
        for index in 0..self.state.pool_models.len() {
            if self.state.pool_models[index].host != host {
                continue;
            }
            let Some(reactor) = &mut self.reactors[host] else { continue };
            self.state.pool_models[index].pool.open(&mut reactor.context());
            self.adopt(host, index);
            self.observe_pooled(host);
            while let Some((ticket, grant)) = self.state.pool_models[index].pool.next_reply() {
                self.check_reply(host, index, ticket, grant)?;
                // One that was given away, or back, is replaced at once.
                self.adopt(host, index);
            }
            let clock = self.state.clock(host as u32);
            self.state.pool_models[index].check(clock.now, clock.late)?;
        }
        Ok(())
    }

    /// Notes what pools have done to their own sockets.
    fn observe_pooled(&mut self, host: usize) {
        let Self { reactors, state, .. } = self;
        let Some(reactor) = &mut reactors[host] else { return };
        for index in 0..state.models.len() {
            let model = &state.models[index];
            let is_here = model.host as usize == host && model.driver == Driver::Pooled;
            let Some(socket) = reactor.socket(model.id).filter(|_| is_here) else { continue };
            let now = state.now();
            for what in state.models[index].observe(&socket, now) {
                state.note_line(state.models[index].label(), format!("  {what}"));
            }
        }
    }

    /// The sockets that a pool has started are sides from now on.
    fn adopt(&mut self, host: usize, index: usize) {
        let Self { reactors, state, .. } = self;
        let Some(reactor) = &mut reactors[host] else { return };
        let started = state.pool_models[index].pool.stats().started;
        if std::mem::replace(&mut state.pool_models[index].started, started) == started {
            return;
        }
        let (now, number) = (state.now(), state.pool_models[index].number);
        for id in reactor.sockets().iter().map(|info| info.id).collect::<Vec<_>>() {
            let is_known = state.models.iter().any(|model| model.host as usize == host && model.id == id);
            let Some(socket) = reactor.socket(id).filter(|socket| !is_known && socket.state() == State::Created) else {
                continue;
            };
            let mut model = SocketModel::new(host as u32, (number, true), &socket, now);
            model.driver = Driver::Pooled;
            state.models.push(model);
        }
    }

    fn check_reply(&mut self, host: usize, index: usize, ticket: Ticket, grant: PoolReply) -> Result<(), Violation> {
        let now = self.state.now();
        let Self { reactors, state, .. } = self;
        let pool_model = &mut state.pool_models[index];
        let Some(request) = pool_model.waiting.iter().position(|request| request.ticket == ticket) else {
            return Err(Violation::new(Rule::Identity, format!("{ticket:?} is answered, and does not wait")));
        };
        let request = pool_model.waiting.remove(request);
        let is_due = match grant {
            PoolReply::Leased(_) => true,
            PoolReply::TimedOut => pool_model.wait_limit.is_some_and(|limit| now >= request.at + limit),
            PoolReply::QueueFull => request.queue_was_full,
            PoolReply::Closed => state.end_requested,
        };
        must(is_due, Rule::Timers, || format!("{grant:?} for who has request at {} ns", request.at))?;
        let (Some(reactor), PoolReply::Leased(id)) = (&mut reactors[host], grant) else {
            self.refuse(host, request.front);
            return Ok(());
        };
        let Some(socket) = reactor.socket(id) else {
            return Err(Violation::new(Rule::Identity, format!("{id} is lent, and is gone")));
        };
        let is_open = socket.state() == State::Open && !socket.end_called() && !socket.peer_ended();
        let is_new = !socket.is_paused() && !socket.is_discarding() && socket.queued_bytes() == 0;
        // The program may have destroyed it in the event in which it was granted.
        let is_ours = |model: &&SocketModel| model.host as usize == host && model.id == id;
        let was_destroyed = state.models.iter().find(is_ours).is_some_and(|model| model.destroy_called);
        let is_good = is_open && is_new && !socket.destroy_called();
        must(is_good || was_destroyed, Rule::Language, || format!("{socket:?} is lent"))?;
        let (read, written) = (socket.bytes_read(), socket.bytes_written());
        let Some(model) = state.models.iter_mut().find(|model| model.host as usize == host && model.id == id) else {
            return Err(Violation::new(Rule::Identity, format!("{id} is lent, and nobody has started it")));
        };
        must(model.driver == Driver::Pooled, Rule::Identity, || format!("{id} is lent twice"))?;
        model.driver = Driver::Leased;
        pool_model.leased.push(Lease { id, read, written });
        if let Some(front) = request.front {
            self.join(host, index, front, id);
        }
        Ok(())
    }

    /// A proxy's client has its connection to the server, for good.
    fn join(&mut self, host: usize, index: usize, front: SocketId, back: SocketId) {
        let now = self.state.now();
        let Self { reactors, state, .. } = self;
        let Some(reactor) = &mut reactors[host] else { return };
        let pool_model = &mut state.pool_models[index];
        pool_model.leased.retain(|lease| lease.id != back);
        let lives = reactor.socket(front).is_some_and(|socket| !socket.destroy_called());
        let of = |model: &&mut SocketModel, id| model.host as usize == host && model.id == id;
        if !lives {
            for model in state.models.iter_mut().filter(|model| of(model, back)) {
                if let Some(mut socket) = reactor.socket(back) {
                    model.give_back(&mut pool_model.pool, &mut socket);
                }
            }
            return;
        }
        pool_model.pool.detach(back, &mut reactor.context());
        state.pipes.join(front, back);
        for model in state.models.iter_mut().filter(|model| of(model, back)) {
            model.driver = Driver::Piped;
        }
        for model in state.models.iter_mut().filter(|model| of(model, front)) {
            if let Some(mut socket) = reactor.socket(front) {
                socket.resume();
                model.update_paused(&socket, now);
            }
        }
    }

    /// A proxy's client gets nobody.
    fn refuse(&mut self, host: usize, front: Option<SocketId>) {
        let Self { reactors, state, .. } = self;
        let model = state.models.iter_mut().find(|model| model.host as usize == host && Some(model.id) == front);
        let socket = front.zip(reactors[host].as_mut()).and_then(|(front, reactor)| reactor.socket(front));
        if let (Some(model), Some(mut socket)) = (model, socket) {
            model.destroy(&mut socket);
        }
    }

    /// Somebody asks for a socket of this conversation's pool.
    pub(super) fn request_socket(&mut self, number: usize, front: Option<SocketId>) {
        let now = self.state.now();
        let Self { reactors, state, .. } = self;
        let Some(pool_model) = state.pool_models.iter_mut().find(|pool_model| pool_model.number == number) else {
            return;
        };
        if let Some(reactor) = &mut reactors[pool_model.host] {
            pool_model.request(reactor, now, front);
        }
    }

    /// Nothing is borrowed any more.
    pub(super) fn close_pools(&mut self) {
        for pool_model in &mut self.state.pool_models {
            if let Some(reactor) = &mut self.reactors[pool_model.host] {
                pool_model.pool.close(&mut reactor.context());
            }
        }
    }
}
