//! Random programs and a random server against a pool, and what must hold always.
//!
//! The server answers each request with its number, late, never or in two pieces; it also resets,
//! finishes, sends bytes without a request, disappears and returns. A program makes one request per
//! lease. It may give back before its answer, give up, detach, end, destroy, pause, and use a
//! ticket again.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use finale::sim::{Faults, Host, Network, Peer, PeerListener, PeerSocket, Reach, Rng};
use finale::{ConnectOptions, Event, Pool, PoolEvent, PoolOptions, PoolReply, Reactor, RetrySafety, SocketId, Ticket};

use super::pool_scene::{HERE, SERVER, THERE, ms};

/// Bytes of a request and of its answer.
const LEN: usize = 8;

/// What the server sends without a request. No request has one of these bytes.
const UNASKED: &[u8] = b"unasked!";

/// A lease, from the view of its program.
struct Lease {
    id: SocketId,
    /// When it was sent. Its answer are the same bytes.
    request: Option<String>,
    answer: Vec<u8>,
}

impl Lease {
    /// What has arrived, without bytes that belong to no request.
    fn answer(&self) -> Vec<u8> {
        self.answer.iter().copied().filter(|byte| !UNASKED.contains(byte)).collect()
    }

    /// A half answer, and bytes that are none, are no reason to give back.
    fn may_give_back(&self) -> bool {
        self.answer.is_empty() || self.is_complete()
    }

    fn is_complete(&self) -> bool {
        self.request.as_ref().is_some_and(|request| self.answer == request.as_bytes())
    }
}

/// One connection of the server.
struct Served {
    peer: PeerSocket,
    input: Vec<u8>,
    /// Answers, or parts of them, that are still to be sent.
    owed: Vec<u8>,
}

struct Run {
    rng: Rng,
    network: Network,
    peer: Peer,
    listener: Option<PeerListener>,
    reactor: Reactor<Host>,
    pool: Pool,
    size: usize,
    max_waiting: usize,
    /// Requests without a reply, in their order.
    waiting: Vec<Ticket>,
    leases: BTreeMap<Ticket, Lease>,
    /// Tickets that are good for nothing any more.
    old: Vec<Ticket>,
    detached: HashMap<SocketId, ()>,
    served: Vec<Served>,
    requests: u64,
    answered: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let network = Network::new(seed);
        let peer = network.peer(THERE);
        let listener = Some(peer.listen(SERVER).expect("a free port"));
        let reactor = Reactor::with_net(network.host(HERE));
        let (size, max_waiting) = (1 + rng.below(4) as usize, rng.below(12) as usize);
        let limit = |rng: &mut Rng, most: u64| Some(ms(50 + rng.below(most))).filter(|_| rng.chance(0.5));
        let options = PoolOptions::default()
            .size(size)
            .max_waiting(max_waiting)
            .wait_limit(limit(&mut rng, 1000))
            .max_idle(limit(&mut rng, 500))
            .max_age(limit(&mut rng, 1000))
            .back_off(ms(rng.below(100)), ms(500));
        let limits = ConnectOptions::default().connect_timeout(ms(400)).close_timeout(ms(300));
        let pool = Pool::new(SERVER, limits.half_closed_timeout(ms(300)), options).expect("good options");
        let (waiting, leases, old, detached) = (Vec::new(), BTreeMap::new(), Vec::new(), HashMap::new());
        Self {
            rng,
            network,
            peer,
            listener,
            reactor,
            pool,
            size,
            max_waiting,
            waiting,
            leases,
            old,
            detached,
            served: Vec::new(),
            requests: 0,
            answered: 0,
        }
    }

    fn serve(&mut self, is_calm: bool) {
        if let Some(listener) = &self.listener {
            let new = std::iter::from_fn(|| listener.accept());
            self.served.extend(new.map(|peer| Served { peer, input: Vec::new(), owed: Vec::new() }));
        }
        let mut index = 0;
        while index < self.served.len() {
            let served = &mut self.served[index];
            served.input.extend(served.peer.read());
            while served.input.len() >= LEN {
                let request: Vec<u8> = served.input.drain(..LEN).collect();
                served.owed.extend(request);
            }
            let what = if is_calm { 20 } else { self.rng.below(100) };
            match what {
                0..2 => self.served.swap_remove(index).peer.close(),
                2..4 => self.served.swap_remove(index).peer.reset(),
                4..6 => served.peer.finish(),
                6 => served.peer.send(UNASKED),
                7..15 => {
                    let part = self.rng.below(served.owed.len() as u64 + 1) as usize;
                    served.peer.send(&served.owed.drain(..part).collect::<Vec<_>>());
                }
                15..70 => {
                    served.peer.send(&std::mem::take(&mut served.owed));
                    if served.peer.has_fin() {
                        served.peer.finish();
                    }
                }
                _ => {}
            }
            index += 1;
        }
    }

    fn change_network(&mut self) {
        match self.rng.below(60) {
            0 => self.listener.take().into_iter().for_each(|listener| listener.close()),
            1 | 2 => self.come_back(),
            3 => self.network.set_reach(THERE, Reach::BlackHole),
            4..6 => self.network.set_reach(THERE, Reach::Open),
            _ => {}
        }
    }

    fn come_back(&mut self) {
        if self.listener.is_none() {
            self.listener = Some(self.peer.listen(SERVER).expect("a free port"));
        }
    }

    /// The program does something with one of its leases.
    fn use_lease(&mut self, ticket: Ticket) {
        let lease = self.leases.get_mut(&ticket).expect("it was listed");
        let mut socket = self.reactor.socket(lease.id).expect("a leased socket lives until it is lost");
        match self.rng.below(16) {
            0..8 if lease.request.is_none() => {
                self.requests += 1;
                let request = format!("q{:07}", self.requests);
                let _ = socket.write(request.as_bytes());
                lease.request = Some(request);
            }
            0..8 if lease.is_complete() => self.give_back(ticket),
            8 if lease.may_give_back() => self.give_back(ticket),
            8 | 9 => self.discard(ticket),
            10 => {
                self.detached.insert(lease.id, ());
                socket.destroy();
                self.pool.detach(ticket, &mut self.reactor.context());
                self.is_over(ticket);
            }
            11 => socket.pause(),
            12 => socket.end(),
            13 => socket.destroy(),
            _ => {}
        }
    }

    fn discard(&mut self, ticket: Ticket) {
        let lease = &self.leases[&ticket];
        let (read, written) = (lease.answer.len(), lease.request.is_some());
        let safety = self.pool.discard(ticket, &mut self.reactor.context()).expect("the lease lasts");
        let is_right = match safety {
            RetrySafety::Unsafe => read > 0,
            RetrySafety::IfIdempotent => read == 0 && written,
            RetrySafety::Safe => read == 0,
        };
        assert!(is_right, "{safety:?} after {read} bytes; sent: {written}");
        self.is_over(ticket);
    }

    fn give_back(&mut self, ticket: Ticket) {
        self.pool.give_back(ticket, &mut self.reactor.context());
        self.is_over(ticket);
    }

    fn is_over(&mut self, ticket: Ticket) {
        self.leases.remove(&ticket);
        self.old.push(ticket);
    }

    /// An old ticket changes nothing.
    fn use_old_ticket(&mut self) {
        let Some(&ticket) = self.old.get(self.rng.below(self.old.len() as u64) as usize) else { return };
        let before = self.pool.stats();
        let mut context = self.reactor.context();
        match self.rng.below(4) {
            0 => self.pool.give_back(ticket, &mut context),
            1 => self.pool.detach(ticket, &mut context),
            2 => assert_eq!(self.pool.discard(ticket, &mut context), None),
            _ => assert!(!self.pool.cancel(ticket)),
        }
        let after = self.pool.stats();
        assert_eq!((before.leased, before.waiting), (after.leased, after.waiting));
    }

    fn request(&mut self) {
        let ticket = self.pool.request(&mut self.reactor.context());
        self.waiting.push(ticket);
        if self.rng.below(20) == 0 {
            let index = self.rng.below(self.waiting.len() as u64) as usize;
            if self.pool.cancel(self.waiting[index]) {
                self.old.push(self.waiting.remove(index));
            }
        }
    }

    fn take_replies(&mut self) {
        while let Some((ticket, reply)) = self.pool.next_reply(&mut self.reactor.context()) {
            let place = self.waiting.iter().position(|waiting| *waiting == ticket);
            let place = place.unwrap_or_else(|| panic!("a second reply to {ticket:?}"));
            self.waiting.remove(place);
            let PoolReply::Leased(id) = reply else {
                self.old.push(ticket);
                continue;
            };
            assert!(place == 0 || self.waiting.is_empty(), "{place} others were first");
            assert!(!self.leases.values().any(|lease| lease.id == id), "{id} is leased twice");
            let socket = self.reactor.socket(id).expect("a leased socket lives");
            let is_good = !socket.destroy_called() && !socket.end_called() && !socket.peer_ended();
            assert!(is_good && !socket.is_paused() && !socket.has_unread() && socket.queued_bytes() == 0);
            self.leases.insert(ticket, Lease { id, request: None, answer: Vec::new() });
        }
        let stats = self.pool.stats();
        let used = stats.opening + stats.ready + stats.leased;
        assert!(used <= self.size && used + stats.leaving <= 2 * self.size, "{stats:?}");
        assert!(stats.waiting == 0 || stats.ready == 0, "a request waits, and a socket is ready: {stats:?}");
        assert!(stats.waiting <= self.max_waiting, "{stats:?}");
        assert_eq!((stats.leased, stats.waiting), (self.leases.len(), self.waiting.len()));
    }

    fn run(&mut self, time: Duration) {
        let until = self.network.now() + time;
        for events in 0.. {
            assert!(events < 20_000, "it spins: {:?}", self.pool.stats());
            self.take_replies();
            let Some((mut socket, event)) = self.reactor.next_before(until).expect("it continues") else { return };
            let id = socket.id();
            let is_leased = self.leases.values().any(|lease| lease.id == id);
            match (self.pool.handle(&mut socket, &event), event) {
                (PoolEvent::Leased(ticket), event) => {
                    let lease = self.leases.get_mut(&ticket).expect("the lease lasts");
                    assert_eq!(lease.id, id);
                    if let Event::Data(bytes) = event {
                        lease.answer.extend_from_slice(bytes);
                        self.answered += u64::from(lease.is_complete());
                    }
                    let (request, answer) = (lease.request.clone().unwrap_or_default(), lease.answer());
                    assert!(request.as_bytes().starts_with(&answer), "{:?} for {request}", lease.answer);
                }
                (PoolEvent::Lost(ticket, safety), Event::Close(_)) => {
                    let lease = self.leases.remove(&ticket).expect("the lease lasts");
                    assert_eq!(lease.answer.is_empty(), safety != RetrySafety::Unsafe);
                    assert!(lease.request.is_some() || safety != RetrySafety::IfIdempotent);
                    self.old.push(ticket);
                }
                (PoolEvent::Lost(..), event) => panic!("lost at {event:?}"),
                (PoolEvent::Internal, event) => assert!(!is_leased || matches!(event, Event::Timer(_)), "{event:?}"),
                (PoolEvent::Foreign, _) => assert!(self.detached.contains_key(&id)),
            }
        }
    }

    /// The server is well again, all is given back, and the pool is closed or dropped.
    fn finish(mut self, is_dropped: bool) -> u64 {
        self.network.set_faults(Faults::none());
        self.network.set_reach(THERE, Reach::Open);
        self.come_back();
        for _ in 0..1000 {
            for ticket in self.leases.keys().copied().collect::<Vec<_>>() {
                if self.leases[&ticket].may_give_back() {
                    self.give_back(ticket);
                } else {
                    self.discard(ticket);
                }
            }
            self.run(ms(20));
            self.serve(true);
        }
        let stats = self.pool.stats();
        assert_eq!((stats.waiting, stats.leased), (0, 0), "{stats:?}");
        assert!(stats.ready + stats.opening >= 1, "{stats:?}, size {}", self.size);
        let (mut reactor, mut pool) = (self.reactor, Some(self.pool));
        match is_dropped {
            true => drop(pool.take()),
            false => pool.iter_mut().for_each(|pool| pool.close(&mut reactor.context())),
        }
        for _ in 0..100 {
            let until = self.network.now() + ms(20);
            while let Some((mut socket, event)) = reactor.next_before(until).expect("it continues") {
                if let Some(pool) = &mut pool {
                    pool.handle(&mut socket, &event);
                }
            }
            self.served.iter().filter(|served| served.peer.has_fin()).for_each(|served| served.peer.finish());
        }
        assert!(reactor.is_empty(), "{}", reactor.sockets());
        assert!(reactor.next().expect("it ends").is_none(), "no timer is left");
        self.answered
    }
}

#[test]
fn a_random_program_never_gets_the_answer_of_another_request() {
    let mut answered = 0;
    for seed in 0..60 {
        let mut run = Run::new(seed);
        for _ in 0..400 {
            run.serve(false);
            run.change_network();
            for _ in 0..run.rng.below(3) {
                run.request();
            }
            run.take_replies();
            for ticket in run.leases.keys().copied().collect::<Vec<_>>() {
                run.use_lease(ticket);
            }
            if run.rng.chance(0.2) {
                run.use_old_ticket();
            }
            let time = ms(1 + run.rng.below(30));
            run.run(time);
        }
        answered += run.finish(seed % 2 == 0);
    }
    assert!(answered > 1000, "{answered} answers");
}
