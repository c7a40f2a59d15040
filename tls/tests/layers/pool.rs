//! A pool of TLS connections, and servers on the simulated network.

use std::time::Duration;

use finale::sim::{Host, Network, PeerListener};
use finale::{
    ConnectOptions, Pool, PoolEvent, PoolOptions, PoolReply, Reactor, RetrySafety, SocketId, Stream, Streams, Ticket,
};
use finale_tls::Tls;

use crate::ends::{Configs, End, HERE, THERE};

struct Scene {
    network: Network,
    reactor: Reactor<Host>,
    tls: Tls,
    pool: Pool,
    listener: PeerListener,
    /// Of the servers.
    configs: Configs,
    servers: Vec<End>,
    /// Servers do nothing while it is set.
    is_silent: bool,
    /// The events of leased sockets.
    seen: Vec<String>,
    leased: Vec<(Ticket, SocketId)>,
    lost: Vec<RetrySafety>,
}

impl Scene {
    fn new(options: PoolOptions) -> Self {
        let configs = Configs::new(2);
        Self::with(options, &configs, configs.clone())
    }

    /// The pool trusts `trusted`, and the servers have `configs`.
    fn with(options: PoolOptions, trusted: &Configs, configs: Configs) -> Self {
        let network = Network::new(1);
        let reactor = Reactor::with_net(network.host(HERE));
        let mut tls = Tls::new();
        let addr = std::net::SocketAddr::new(THERE, 443);
        let name = "localhost".try_into().expect("a name");
        tls.connect_to(addr.into(), &trusted.client, name).expect("a good configuration");
        let listener = network.peer(THERE).listen(addr).expect("a free port");
        let pool = Pool::new(addr, ConnectOptions::default(), options).expect("good options");
        Self {
            network,
            reactor,
            tls,
            pool,
            listener,
            configs,
            servers: Vec::new(),
            is_silent: false,
            seen: Vec::new(),
            leased: Vec::new(),
            lost: Vec::new(),
        }
    }

    fn request(&mut self) -> Ticket {
        self.pool.request(&mut self.tls.context(self.reactor.context()))
    }

    /// Runs for this time.
    fn play(&mut self, time: Duration) {
        let until = self.network.now() + time;
        while self.network.now() < until {
            self.step();
            while let Some(socket) = self.listener.accept() {
                self.servers.push(End::new(socket, Some(self.configs.server())));
            }
            if !self.is_silent {
                self.servers.iter_mut().for_each(End::turn);
            }
        }
    }

    fn step(&mut self) {
        let until = self.network.now() + Duration::from_millis(1);
        while let Some((mut socket, event)) = self.reactor.next_before(until).expect("it continues") {
            let mut events = self.tls.handle(&mut socket, event);
            while let Some((mut socket, event)) = events.next() {
                match self.pool.handle(&mut socket, &event) {
                    PoolEvent::Leased(_) => self.seen.push(event.to_string()),
                    PoolEvent::Lost(_, safety) => {
                        self.seen.push(event.to_string());
                        self.lost.push(safety);
                    }
                    PoolEvent::Foreign | PoolEvent::Internal => {}
                }
                while let Some((ticket, reply)) = self.pool.next_reply(&mut socket.context()) {
                    let PoolReply::Leased(id) = reply else { panic!("{reply:?}") };
                    self.leased.push((ticket, id));
                }
            }
        }
        // An empty reactor waits for nothing.
        self.network.advance(until.saturating_duration_since(self.network.now()));
    }

    fn write(&mut self, id: SocketId, bytes: &[u8]) {
        let mut context = self.tls.context(self.reactor.context());
        context.stream(id).expect("it is open").write(bytes).expect("there is room");
    }

    fn give_back(&mut self, ticket: Ticket) {
        self.pool.give_back(ticket, &mut self.tls.context(self.reactor.context()));
    }
}

const LONG: Duration = Duration::from_millis(200);

#[test]
fn a_request_that_waits_gets_the_connection_that_was_opened_for_it_after_the_handshake() {
    let mut scene = Scene::new(PoolOptions::default().size(1));
    scene.request();
    scene.is_silent = true;
    scene.play(LONG);
    assert!(scene.leased.is_empty(), "TCP is connected, and TLS is not");
    scene.is_silent = false;
    scene.play(LONG);
    let [(ticket, id)] = scene.leased[..] else { panic!("{:?}", scene.pool.stats()) };
    scene.write(id, b"question");
    scene.play(LONG);
    assert_eq!(scene.servers[0].data, b"question");
    scene.servers[0].write(b"answer");
    scene.play(LONG);
    assert_eq!(scene.seen, ["data, 6 bytes"]);
    scene.give_back(ticket);
    scene.request();
    scene.play(LONG);
    // The same one, whatever the server has sent after its handshake, such as tickets.
    let stats = scene.pool.stats();
    assert_eq!((stats.granted, stats.started, stats.lost_unused), (1, 1, 0), "{stats:?}");
    let reply = scene.pool.next_reply(&mut scene.tls.context(scene.reactor.context()));
    assert!(matches!(reply, Some((_, PoolReply::Leased(again))) if again == id), "{reply:?}");
}

#[test]
fn tickets_that_have_arrived_and_are_unread_cost_no_connection() {
    let mut scene = Scene::new(PoolOptions::default().size(1));
    scene.pool.open(&mut scene.tls.context(scene.reactor.context()));
    scene.is_silent = true;
    scene.play(LONG);
    // Two turns of the server: its handshake is done, and its tickets are on their way.
    scene.servers[0].turn();
    scene.play(Duration::from_millis(20));
    scene.servers[0].turn();
    assert_eq!(scene.pool.stats().ready, 1);
    scene.network.advance(LONG);
    scene.request();
    let reply = scene.pool.next_reply(&mut scene.tls.context(scene.reactor.context()));
    assert!(reply.is_none(), "what has arrived may be an end: {reply:?}");
    scene.is_silent = false;
    scene.play(LONG);
    let stats = scene.pool.stats();
    assert_eq!((stats.granted, stats.started, stats.lost_unused), (1, 1, 0), "{stats:?}");
    assert_eq!(scene.leased.len(), 1, "the program has not to call again by itself");
}

#[test]
fn a_connection_on_which_the_server_speaks_first_is_not_leased() {
    let mut scene = Scene::new(PoolOptions::default().size(1));
    // Its words are in one segment with the end of the handshake: `ready` comes before `data`.
    let mut server = finale_tls::rustls::ServerConfig::clone(&scene.configs.server);
    server.send_half_rtt_data = true;
    scene.configs.server = server.into();
    scene.is_silent = true;
    scene.request();
    scene.play(LONG);
    scene.servers[0].write(b"welcome");
    scene.servers[0].turn();
    scene.play(LONG);
    assert_eq!((scene.leased.len(), scene.pool.stats().lost_unused), (0, 1), "{:?}", scene.seen);
}

#[test]
fn an_unused_connection_ends_with_close_notify() {
    for is_closed in [true, false] {
        let mut scene = Scene::new(PoolOptions::default().size(1).max_idle(Duration::from_secs(1)));
        scene.pool.open(&mut scene.tls.context(scene.reactor.context()));
        scene.play(LONG);
        assert_eq!(scene.pool.stats().ready, 1);
        if is_closed {
            scene.pool.close(&mut scene.tls.context(scene.reactor.context()));
        } else {
            while scene.pool.stats().expired == 0 {
                scene.play(Duration::from_millis(5));
            }
        }
        scene.play(LONG);
        assert!(scene.servers[0].has_end(), "{:?}", scene.pool.stats());
        // What the server does then is no loss.
        scene.servers[0].fin();
        scene.play(LONG);
        let stats = scene.pool.stats();
        assert_eq!((stats.lost_unused, stats.leaving, scene.tls.len()), (0, 0, stats.ready), "{stats:?}");
    }
}

#[test]
fn an_unused_connection_that_the_server_ends_is_replaced() {
    for how in ["close_notify", "fin", "reset"] {
        let mut scene = Scene::new(PoolOptions::default().size(1));
        scene.pool.open(&mut scene.tls.context(scene.reactor.context()));
        scene.play(LONG);
        match how {
            "close_notify" => scene.servers[0].end(),
            "fin" => scene.servers[0].fin(),
            _ => scene.servers[0].reset(),
        }
        scene.play(Duration::from_secs(5));
        let stats = scene.pool.stats();
        assert_eq!((stats.lost_unused, stats.ready, stats.leaving), (1, 1, 0), "{how}: {stats:?}");
    }
}

/// What is known of a request when its connection is cut: after this was written, and this was
/// answered.
fn safety(question: &[u8], answer: &[u8], is_reset: bool) -> (RetrySafety, Vec<String>) {
    let mut scene = Scene::new(PoolOptions::default().size(1));
    scene.request();
    scene.play(LONG);
    let [(_, id)] = scene.leased[..] else { panic!("{:?}", scene.pool.stats()) };
    scene.servers[0].is_slow = true;
    scene.write(id, question);
    scene.play(LONG);
    scene.servers[0].write(answer);
    scene.play(LONG);
    if is_reset {
        scene.servers[0].reset()
    } else {
        scene.servers[0].fin()
    }
    scene.play(Duration::from_secs(60));
    assert_eq!(scene.lost.len(), 1, "{:?}", scene.seen);
    (scene.lost[0], scene.seen)
}

#[test]
fn a_lost_request_can_be_sent_again_only_if_the_server_can_have_nothing_of_it() {
    for is_reset in [false, true] {
        assert_eq!(safety(b"", b"", is_reset).0, RetrySafety::Safe);
        assert_eq!(safety(b"question", b"", is_reset).0, RetrySafety::IfIdempotent);
        assert_eq!(safety(b"question", b"ans", is_reset).0, RetrySafety::Unsafe);
        // The kernel has taken a part of this one, and the server may have read some of that.
        let (safety, seen) = safety(&vec![7; 8 * 1024 * 1024], b"", is_reset);
        assert_eq!(safety, RetrySafety::IfIdempotent, "{seen:?}");
    }
}

#[test]
fn handshakes_that_fail_back_off_and_the_pool_says_why() {
    let mut scene = Scene::with(PoolOptions::default().size(1), &Configs::new(0), Configs::new(0));
    scene.request();
    scene.play(Duration::from_secs(10));
    let stats = scene.pool.stats();
    assert!(scene.leased.is_empty() && stats.failed == stats.started - stats.opening as u64, "{stats:?}");
    // The servers keep their connections open after the alert. Without a delay there were thousands,
    // and a pool that waits for them would have one.
    assert!((4..=12).contains(&stats.started), "{stats:?}");
    let error = scene.pool.last_error().expect("it has failed").to_string();
    assert!(error.starts_with("the handshake failed: the issuer of the peer's certificate"), "{error}");
}
