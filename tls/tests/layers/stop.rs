//! Where the reactor ends a connection by itself, the stream ends with close_notify.

use std::time::Duration;

use finale::sim::{Host, Network};
use finale::{
    ConnectOptions, Event, ListenOptions, ListenerId, Pool, PoolEvent, PoolOptions, PoolReply, Reactor, SocketId,
    StopOptions, Stream, Streams,
};
use finale_tls::Tls;

use crate::ends::{Configs, End, HERE, THERE};

struct Server {
    network: Network,
    reactor: Reactor<Host>,
    tls: Tls,
    listener: ListenerId,
    /// Requests are answered after this time.
    delay: Duration,
    seen: Vec<String>,
    asked: Vec<SocketId>,
}

impl Server {
    fn new(tickets: usize) -> (Self, End) {
        let configs = Configs::new(tickets);
        let network = Network::new(1);
        let mut reactor = Reactor::with_net(network.host(HERE));
        let listener = reactor.listen((HERE, 443), ListenOptions::default()).expect("a free port");
        let mut tls = Tls::new();
        tls.accept_on(listener.id, &configs.server).expect("a good configuration");
        let client = End::new(network.peer(THERE).connect(listener.addr).expect("begun"), Some(configs.client()));
        let (listener, delay) = (listener.id, Duration::ZERO);
        (Self { network, reactor, tls, listener, delay, seen: Vec::new(), asked: Vec::new() }, client)
    }

    fn stop(&mut self, grace: Duration) {
        let stop = StopOptions::default().grace(grace).limit(Duration::from_secs(60));
        self.reactor.stop_listener(self.listener, stop).expect("it is open");
    }

    fn play(&mut self, client: &mut End, time: Duration) {
        let until = self.network.now() + time;
        while self.network.now() < until {
            self.step();
            client.turn();
        }
    }

    fn step(&mut self) {
        let until = self.network.now() + Duration::from_millis(1);
        while let Some((mut socket, event)) = self.reactor.next_before(until).expect("it continues") {
            let mut events = self.tls.handle(&mut socket, event);
            while let Some((mut socket, event)) = events.next() {
                self.seen.push(event.to_string());
                match event {
                    Event::Data(_) => {
                        self.asked.push(socket.id());
                        socket.socket().set_timer(self.delay);
                    }
                    Event::Timer(_) => {
                        let id = self.asked.remove(0);
                        socket.get(id).expect("it is open").write(b"answer").expect("it can be answered");
                    }
                    Event::End => socket.end(),
                    _ => {}
                }
            }
        }
        self.network.advance(until.saturating_duration_since(self.network.now()));
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_stop_ends_idle_streams_with_close_notify() {
    for tickets in [0, 2] {
        for is_served in [false, true] {
            let (mut server, mut client) = Server::new(tickets);
            server.play(&mut client, SECOND);
            if is_served {
                client.write(b"question");
                server.play(&mut client, SECOND);
                assert_eq!(client.data, b"answer");
            }
            server.stop(SECOND);
            server.play(&mut client, SECOND * 2);
            assert!(client.has_end(), "{tickets} tickets, {is_served}: {:?}", server.seen);
            client.end();
            server.play(&mut client, SECOND);
            assert!(server.tls.is_empty() && !server.seen.iter().any(|event| event.starts_with("timeout")));
            assert!(server.seen.iter().any(|event| event.starts_with("close: clean")), "{:?}", server.seen);
        }
    }
}

#[test]
fn a_request_that_came_before_a_stop_is_answered_first() {
    for (tickets, grace) in [(0, SECOND), (2, SECOND), (2, Duration::ZERO)] {
        let (mut server, mut client) = Server::new(tickets);
        server.delay = SECOND * 5;
        // With the end of the handshake: tickets are the last bytes that the server has sent.
        client.write(b"question");
        server.play(&mut client, SECOND);
        assert_eq!(server.asked.len(), 1, "{:?}", server.seen);
        server.stop(grace);
        server.play(&mut client, SECOND * 3);
        assert!(client.data.is_empty() && !client.has_fin());
        server.play(&mut client, SECOND * 4);
        assert_eq!(client.data, b"answer", "{tickets} tickets, {grace:?}: {:?}", server.seen);
        assert!(client.has_end(), "{:?}", server.seen);
    }
}

#[test]
fn a_stop_ends_a_silent_handshake() {
    let (mut server, mut client) = Server::new(0);
    client.is_slow = true;
    let until = server.network.now() + SECOND / 2;
    while server.network.now() < until {
        server.step();
    }
    server.stop(SECOND);
    let until = server.network.now() + SECOND * 2;
    while server.network.now() < until {
        server.step();
    }
    assert!(client.has_fin(), "{:?}", server.seen);
}

#[test]
fn a_pool_that_is_dropped_ends_its_unused_streams_with_close_notify() {
    for is_served in [false, true] {
        let configs = Configs::new(2);
        let network = Network::new(1);
        let mut reactor = Reactor::with_net(network.host(HERE));
        let mut tls = Tls::new();
        let addr = std::net::SocketAddr::new(THERE, 443);
        tls.connect_to(addr.into(), &configs.client, "localhost".try_into().expect("a name")).expect("a good one");
        let listener = network.peer(THERE).listen(addr).expect("a free port");
        let mut pool = Some(Pool::new(addr, ConnectOptions::default(), PoolOptions::default().size(1)).expect("good"));
        pool.iter_mut().for_each(|pool| pool.open(&mut tls.context(reactor.context())));
        let mut server: Option<End> = None;
        let mut seen = Vec::new();
        for turn in 0..1000 {
            let until = network.now() + Duration::from_millis(1);
            while let Some((mut socket, event)) = reactor.next_before(until).expect("it continues") {
                let mut events = tls.handle(&mut socket, event);
                while let Some((mut socket, event)) = events.next() {
                    let Some(pool) = &mut pool else {
                        seen.push(event.to_string());
                        continue;
                    };
                    if let PoolEvent::Leased(ticket) = pool.handle(&mut socket, &event) {
                        pool.give_back(ticket, &mut socket.context());
                    }
                }
            }
            network.advance(until.saturating_duration_since(network.now()));
            if let Some(socket) = listener.accept() {
                server = Some(End::new(socket, Some(configs.server())));
            }
            server.iter_mut().for_each(End::turn);
            match (turn, &mut pool, &mut server) {
                (200, Some(pool), _) if is_served => {
                    let mut context = tls.context(reactor.context());
                    pool.request(&mut context);
                    let reply = pool.next_reply(&mut context);
                    let Some((_, PoolReply::Leased(id))) = reply else { panic!("{reply:?}") };
                    context.stream(id).expect("it is open").write(b"question").expect("room");
                }
                (300, _, Some(server)) if is_served => server.write(b"answer"),
                (500, Some(alive), _) => {
                    assert_eq!((alive.stats().ready, alive.stats().granted), (1, u64::from(is_served)));
                    pool = None;
                }
                // Its pool is gone: what the server still sends is dropped.
                (600, _, Some(server)) => server.write(b"and more"),
                (700, _, Some(server)) => server.end(),
                _ => {}
            }
        }
        let server = server.expect("it was connected");
        assert!(server.has_end(), "served: {is_served}, {seen:?}");
        assert!(tls.is_empty() && !seen.iter().any(|event| event.starts_with("data")), "{seen:?}");
    }
}
