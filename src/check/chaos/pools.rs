//! The pools of random runs: programs that lease a socket for a while, and proxies that detach one.
//!
//! Invariant: a socket belongs to its pool unless it is leased. What a pool does to its own sockets
//! is noted from their state.

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

/// A pool and its expected state.
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
    /// Connections that it has started and that have a model.
    started: u64,
    /// Since when a request waits while no socket is ready or being opened.
    starved_since: Option<u64>,
}

/// Longer than any back-off of these pools, in nanoseconds.
const MAX_STARVATION: u64 = 3_000_000_000;

/// A request for a socket.
struct PendingRequest {
    ticket: Ticket,
    at: u64,
    /// The proxy's client that waits for it.
    front: Option<SocketId>,
}

/// A lease, and the counts of its socket when it began.
struct Lease {
    ticket: Ticket,
    id: SocketId,
    read: u64,
    written: u64,
}

/// How a program gives up a leased socket.
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
        let ticket = self.pool.request(&mut reactor.context());
        self.waiting.push(PendingRequest { ticket, at: now, front });
    }

    /// No request waits while a socket is ready, none waits longer than the limit, no more wait than
    /// may, and there are at most `size` sockets, or twice as many with those that are ending.
    fn check(&mut self, now: u64, late: u64) -> Result<(), Violation> {
        let stats = self.pool.stats();
        let there = stats.opening + stats.ready + stats.leased;
        let is_bounded = there <= self.size && there + stats.leaving <= 2 * self.size;
        must(is_bounded, Rule::Resources, || format!("a pool of {} has {stats:?}", self.size))?;
        must(stats.waiting <= self.max_waiting, Rule::Resources, || format!("too many wait: {stats:?}"))?;
        must(stats.leased == self.leased.len(), Rule::Identity, || {
            format!("{} are leased: {stats:?}", self.leased.len())
        })?;
        must(stats.waiting == self.waiting.len(), Rule::Identity, || {
            format!("{} wait: {stats:?}", self.waiting.len())
        })?;
        let idle = stats.ready > 0 && stats.waiting > 0;
        must(!idle, Rule::Progress, || format!("a request waits, and a socket is ready: {stats:?}"))?;
        let is_full = there == self.size || there + stats.leaving == 2 * self.size;
        let is_starved = stats.waiting > 0 && !is_full && stats.opening == 0;
        let since = *self.starved_since.get_or_insert(now);
        self.starved_since = self.starved_since.filter(|_| is_starved);
        must(!is_starved || now <= since + MAX_STARVATION + late, Rule::Progress, || {
            format!("a request waits, and no socket was opened for {} ns: {stats:?}", now - since)
        })?;
        let overdue = |request: &PendingRequest| self.wait_limit.is_some_and(|limit| now > request.at + limit + late);
        must(!self.waiting.iter().any(overdue), Rule::Timers, || "a request waits longer than the limit".to_owned())
    }

    /// A leased socket has closed: checks whether the pool allows to send its request again.
    fn check_lost(
        &mut self,
        (id, ticket): (SocketId, Ticket),
        ending: &Ending,
        safety: RetrySafety,
    ) -> Result<(), Violation> {
        let Some(index) = self.leased.iter().position(|lease| (lease.id, lease.ticket) == (id, ticket)) else {
            return Err(Violation::new(Rule::Identity, format!("{id} is lost, and was not leased as {ticket:?}")));
        };
        let lease = self.leased.swap_remove(index);
        let expected = lease.retry_safety(ending.bytes_read, ending.bytes_written);
        must(safety == expected, Rule::HonestClose, || format!("{safety:?} for a socket that was lost as: {ending}"))
    }

    fn lease_of(&self, id: SocketId) -> Option<&Lease> {
        self.leased.iter().find(|lease| lease.id == id)
    }
}

impl Lease {
    const fn retry_safety(&self, bytes_read: u64, bytes_written: u64) -> RetrySafety {
        match (bytes_read > self.read, bytes_written > self.written) {
            (true, _) => RetrySafety::Unsafe,
            (false, true) => RetrySafety::IfIdempotent,
            (false, false) => RetrySafety::Safe,
        }
    }
}

impl RunState {
    /// When something was done to a socket that is seen now. A reactor ends what a dropped pool has
    /// left before it waits, and may then wait for long without an event.
    pub(super) fn done_at(&self, model: &SocketModel) -> u64 {
        if model.driver == Driver::Orphaned { self.dropped_at } else { self.now() }
    }

    /// Whether an event without a socket belongs to a pool.
    pub(super) fn is_pools(&mut self, host: u32, socket: &mut Socket<'_>, event: &Event<'_>) -> bool {
        let own = self.pool_models.iter_mut().filter(|pool_model| pool_model.host == host as usize);
        own.into_iter().any(|pool_model| pool_model.pool.handle(socket, event) == PoolEvent::Internal)
    }

    /// Passes an event of a pool's socket to the pool. Returns whether the event is for the program
    /// that leased the socket.
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
            (PoolEvent::Leased(ticket), true) => {
                let is_own = pool_model.lease_of(model.id).is_some_and(|lease| lease.ticket == ticket);
                is_own && !matches!(event, Event::Close(_))
            }
            (PoolEvent::Lost(ticket, safety), true) => {
                if let Event::Close(ending) = event {
                    pool_model.check_lost((model.id, ticket), ending, safety)?;
                }
                matches!(event, Event::Close(_))
            }
            _ => false,
        };
        must(is_right, Rule::Identity, || {
            format!("{} is leased: {is_leased}, and the pool returned {handled:?}", model.id)
        })?;
        if matches!(event, Event::Ready) && !is_leased {
            model.deadline = None; // The pool has removed it.
        }
        self.observe(model, socket);
        if !is_leased {
            model.note_automatic_end(socket, event, self.now());
        }
        Ok(is_leased)
    }

    /// After an event the program may give up its leased socket.
    pub(super) fn perhaps_return(&mut self, model: &mut SocketModel, socket: &mut Socket<'_>) -> Result<(), Violation> {
        let what = match self.rng.below(30) {
            0..6 => Release::GiveBack,
            6 => Release::Discard,
            7 => Release::Detach,
            _ => return Ok(()),
        };
        let (host, number) = (model.host as usize, model.stream.0);
        let Some(pool_model) = self.pool_models.iter_mut().find(|it| it.host == host && it.number == number) else {
            return Ok(());
        };
        let Some(index) = pool_model.leased.iter().position(|lease| lease.id == model.id) else { return Ok(()) };
        let lease = pool_model.leased.swap_remove(index);
        let text = match what {
            Release::GiveBack => {
                model.give_back(&mut pool_model.pool, lease.ticket, socket);
                "  is given back"
            }
            Release::Discard => {
                let expected = lease.retry_safety(socket.bytes_read(), socket.bytes_written());
                let safety = pool_model.pool.discard(lease.ticket, &mut socket.context());
                must(safety == Some(expected), Rule::HonestClose, || format!("{safety:?} for a discarded socket"))?;
                model.driver = Driver::Pooled;
                "  is discarded"
            }
            Release::Detach => {
                pool_model.pool.detach(lease.ticket, &mut socket.context());
                model.driver = Driver::Random;
                "  is detached"
            }
        };
        // The lease is over: nothing more can be done with its ticket.
        let again = pool_model.pool.discard(lease.ticket, &mut socket.context());
        must(again.is_none(), Rule::Identity, || format!("{:?} was given up twice", lease.ticket))?;
        self.note_line(model.label(), text.to_owned());
        self.observe(model, socket);
        Ok(())
    }
}

impl SocketModel {
    /// Gives the socket back. That removes its deadline, unless the pool discards it; or it does both,
    /// if it has enough of them.
    fn give_back(&mut self, pool: &mut Pool, ticket: Ticket, socket: &mut Socket<'_>) {
        pool.give_back(ticket, &mut socket.context());
        self.driver = Driver::Pooled;
        self.deadline = self.deadline.filter(|_| socket.is_discarding());
        self.may_lack_deadline = socket.is_discarding();
    }
}

impl Run {
    /// Between two events: notes the sockets that a pool has started and ended, and checks its
    /// replies.
    pub(super) fn update_pools(&mut self, host: usize) -> Result<(), Violation> {
        for index in 0..self.state.pool_models.len() {
            if self.state.pool_models[index].host != host {
                continue;
            }
            let Some(reactor) = &mut self.reactors[host] else { continue };
            self.state.pool_models[index].pool.open(&mut reactor.context());
            self.add_models(host, index);
            self.observe_pooled(host);
            while let Some(reactor) = &mut self.reactors[host] {
                let reply = self.state.pool_models[index].pool.next_reply(&mut reactor.context());
                // A socket that was found to be lost, detached or given back is replaced at once.
                self.add_models(host, index);
                self.observe_pooled(host);
                let Some((ticket, reply)) = reply else { break };
                self.check_reply(host, index, ticket, reply)?;
                self.add_models(host, index);
            }
            let clock = self.state.clock(host as u32);
            self.state.pool_models[index].check(clock.now, clock.late)?;
        }
        Ok(())
    }

    /// Notes what pools did to their own sockets, and a reactor to those of dropped pools.
    pub(super) fn observe_pooled(&mut self, host: usize) {
        let Self { reactors, state, .. } = self;
        let Some(reactor) = &mut reactors[host] else { return };
        for index in 0..state.models.len() {
            let model = &state.models[index];
            let has_owner = matches!(model.driver, Driver::Pooled | Driver::Orphaned);
            let is_here = model.host as usize == host && has_owner;
            let Some(socket) = reactor.socket(model.id).filter(|_| is_here) else { continue };
            let at = state.done_at(model);
            for what in state.models[index].observe(&socket, at) {
                state.note_line(state.models[index].label(), format!("  {what}"));
            }
        }
    }

    /// Adds models for the sockets that a pool has started.
    fn add_models(&mut self, host: usize, index: usize) {
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
            let target = state.conversations[number].backend_target.as_ref();
            model.addrs = target.and_then(|target| state.network.addresses(target));
            model.driver = Driver::Pooled;
            state.models.push(model);
        }
    }

    fn check_reply(&mut self, host: usize, index: usize, ticket: Ticket, reply: PoolReply) -> Result<(), Violation> {
        let (now, clock) = (self.state.now(), self.state.clock(host as u32));
        let Self { reactors, state, .. } = self;
        let pool_model = &mut state.pool_models[index];
        let Some(request) = pool_model.waiting.iter().position(|request| request.ticket == ticket) else {
            return Err(Violation::new(Rule::Identity, format!("a reply for {ticket:?}, which does not wait")));
        };
        let request = pool_model.waiting.remove(request);
        let is_due = match reply {
            PoolReply::Leased(_) => true,
            PoolReply::TimedOut => pool_model.wait_limit.is_some_and(|limit| now >= request.at + limit),
            // As many others wait.
            PoolReply::QueueFull => pool_model.pool.stats().waiting >= pool_model.max_waiting,
            PoolReply::Closed => state.end_requested,
        };
        must(is_due, Rule::Timers, || format!("{reply:?} for a request at {} ns", request.at))?;
        let (Some(reactor), PoolReply::Leased(id)) = (&mut reactors[host], reply) else {
            self.refuse(host, request.front);
            return Ok(());
        };
        let Some(socket) = reactor.socket(id) else {
            return Err(Violation::new(Rule::Identity, format!("{id} is leased, and was not found")));
        };
        let is_open = socket.state() == State::Open && !socket.end_called() && !socket.peer_ended();
        let is_new = !socket.is_paused() && !socket.is_discarding() && socket.queued_bytes() == 0;
        // The program may have destroyed it in the event in which it was leased.
        let is_ours = |model: &&SocketModel| model.host as usize == host && model.id == id;
        let was_destroyed = state.models.iter().find(is_ours).is_some_and(|model| model.destroy_called);
        let is_good = is_open && is_new && !socket.destroy_called();
        must(is_good || was_destroyed, Rule::Language, || format!("{socket:?} is leased"))?;
        let kernel = state.network.truth(host as u32, id.index()).kernel;
        let is_news = |is: bool, at: u64| is && at + clock.cost <= now;
        let is_lost = is_news(kernel.unread > 0, kernel.unread_since.unwrap_or(now))
            || is_news(kernel.peer_finished, kernel.fin_at)
            || is_news(kernel.died, kernel.gone_at);
        must(!is_lost || was_destroyed, Rule::Language, || format!("{id} is leased, and in the network: {kernel:?}"))?;
        let (read, written) = (socket.bytes_read(), socket.bytes_written());
        let Some(model) = state.models.iter_mut().find(|model| model.host as usize == host && model.id == id) else {
            return Err(Violation::new(Rule::Identity, format!("{id} is leased, and has no model")));
        };
        must(model.driver == Driver::Pooled, Rule::Identity, || format!("{id} is leased twice"))?;
        model.driver = Driver::Leased;
        // The idle time restarts with each lease.
        (model.idle_from, model.reported_idle) = (now, None);
        pool_model.leased.push(Lease { ticket, id, read, written });
        if let Some(front) = request.front {
            self.join(host, index, front, (id, ticket));
        }
        Ok(())
    }

    /// Joins a proxy's client with its connection to the server.
    fn join(&mut self, host: usize, index: usize, front: SocketId, (back, ticket): (SocketId, Ticket)) {
        let now = self.state.now();
        let Self { reactors, state, .. } = self;
        let Some(reactor) = &mut reactors[host] else { return };
        let pool_model = &mut state.pool_models[index];
        pool_model.leased.retain(|lease| lease.id != back);
        let is_open = reactor.socket(front).is_some_and(|socket| !socket.destroy_called());
        let of = |model: &&mut SocketModel, id| model.host as usize == host && model.id == id;
        if !is_open {
            for model in state.models.iter_mut().filter(|model| of(model, back)) {
                if let Some(mut socket) = reactor.socket(back) {
                    model.give_back(&mut pool_model.pool, ticket, &mut socket);
                }
            }
            return;
        }
        pool_model.pool.detach(ticket, &mut reactor.context());
        state.pipes.join(&mut reactor.context(), front, back).expect("Unix sinks are permitted");
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

    /// Destroys a proxy's client that gets no connection.
    fn refuse(&mut self, host: usize, front: Option<SocketId>) {
        let Self { reactors, state, .. } = self;
        let model = state.models.iter_mut().find(|model| model.host as usize == host && Some(model.id) == front);
        let socket = front.zip(reactors[host].as_mut()).and_then(|(front, reactor)| reactor.socket(front));
        if let (Some(model), Some(mut socket)) = (model, socket) {
            model.destroy(&mut socket);
        }
    }

    /// Requests a socket from the pool of a conversation.
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

    /// At the end of the run each pool is closed, and every third one is dropped, with what it has.
    pub(super) fn end_pools(&mut self) {
        let seed = self.state.events;
        for pool_model in &mut self.state.pool_models {
            if let Some(reactor) = &mut self.reactors[pool_model.host]
                && !(seed + pool_model.number as u64).is_multiple_of(3)
            {
                pool_model.pool.close(&mut reactor.context());
            }
        }
        let is_dropped = |it: &mut PoolModel| (seed + it.number as u64).is_multiple_of(3);
        self.state.dropped_at = self.state.now();
        let dropped: Vec<PoolModel> = self.state.pool_models.extract_if(.., is_dropped).collect();
        for PoolModel { host, number, waiting, pool, .. } in dropped {
            self.state.note_both("a pool is dropped");
            drop(pool);
            let models = self.state.models.iter_mut();
            for model in models.filter(|model| (model.host as usize, model.stream.0) == (host, number)) {
                if matches!(model.driver, Driver::Pooled | Driver::Leased) {
                    model.driver = Driver::Orphaned;
                }
            }
            waiting.into_iter().for_each(|request| self.refuse(host, request.front));
        }
    }
}
