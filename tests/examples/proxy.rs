//! The proxy and its backends: which one gets a client, and what it learns about it. What passes
//! through is in `programs` and `random_proxy`.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use finale::sim::{Host, Network, PeerListener, PeerSocket, Reach};
use finale::{ListenOptions, Listener, Pipes, Reactor};
use support::alone::alone;

use crate::balance::{self, Balance};
use crate::header::Header;
use crate::program::{Program, with_descriptors};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const CLIENTS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const STEP: Duration = Duration::from_millis(1);

/// What a backend does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Answers after 20 ms.
    Answers,
    Resets,
    /// After 300 ms.
    ResetsLate,
    Finishes,
    /// Sends a part of an answer, and resets later.
    Breaks,
}

struct Backend {
    listener: PeerListener,
    manner: Manner,
    /// Connections without a request, and requests with the time of their answer.
    unused: Vec<PeerSocket>,
    busy: Vec<(PeerSocket, Duration)>,
    requests: usize,
}

/// A proxy in a simulated network, with backends on 10.0.1.0, 10.0.1.1 ...
struct World {
    network: Network,
    reactor: Reactor<Host>,
    balance: Balance,
    proxy: Listener,
    backends: Vec<Backend>,
    clients: Vec<Option<PeerSocket>>,
    answered: usize,
    failed: usize,
    log: Vec<String>,
}

impl World {
    fn new(manners: &[Manner], header: Option<Header>) -> Self {
        let network = Network::new(7);
        let mut reactor = Reactor::with_net(network.host(HERE));
        let proxy = reactor.listen((HERE, 80), balance::options(ListenOptions::default())).expect("a free port");
        let addrs: Vec<SocketAddr> = (0..manners.len() as u8).map(|it| ([10, 0, 1, it], 90).into()).collect();
        let backend = |(addr, manner): (&SocketAddr, &Manner)| Backend {
            listener: network.peer(addr.ip()).listen(*addr).expect("a free port"),
            manner: *manner,
            unused: Vec::new(),
            busy: Vec::new(),
            requests: 0,
        };
        let backends = addrs.iter().zip(manners).map(backend).collect();
        let names: Vec<String> = addrs.iter().map(SocketAddr::to_string).collect();
        let mut balance = Balance::new(&names, &balance::pool(2).seed(1), header, Pipes::new()).expect("addresses");
        balance.open(&mut reactor.context());
        let (clients, log) = (Vec::new(), Vec::new());
        Self { network, reactor, balance, proxy, backends, clients, answered: 0, failed: 0, log }
    }

    fn step(&mut self) {
        let until = self.network.now() + STEP;
        while let Some((mut socket, event)) = self.reactor.next_before(until).expect("it continues") {
            self.log.extend(self.balance.handle(&mut socket, event));
        }
        let now = self.network.elapsed();
        self.backends.iter_mut().for_each(|backend| backend.step(now));
    }

    fn state(&mut self) -> Vec<String> {
        self.balance.state(&mut self.reactor.context())
    }

    /// Whether it has no client.
    fn proxy_is_empty(&self) -> bool {
        self.reactor.sockets().iter().all(|socket| socket.peer.is_none_or(|peer| peer.ip() != CLIENTS))
    }

    fn connect(&self) -> PeerSocket {
        self.network.peer(CLIENTS).connect(self.proxy.addr).expect("begun")
    }

    /// This many clients, each with request after request, for this long.
    fn run(&mut self, clients: usize, time: Duration) {
        let until = self.network.elapsed() + time;
        self.clients.resize_with(clients, || None);
        while self.network.elapsed() < until {
            for place in 0..clients {
                let Some(socket) = &self.clients[place] else {
                    let socket = self.connect();
                    socket.send(b"q");
                    self.clients[place] = Some(socket);
                    continue;
                };
                if socket.is_reset() || socket.has_fin() {
                    let is_answer = !socket.is_reset() && socket.read() == b"fine";
                    *(if is_answer { &mut self.answered } else { &mut self.failed }) += 1;
                    self.clients[place].take().into_iter().for_each(PeerSocket::close);
                }
            }
            self.step();
        }
    }
}

impl Backend {
    fn step(&mut self, now: Duration) {
        self.unused.extend(std::iter::from_fn(|| self.listener.accept()));
        for socket in std::mem::take(&mut self.unused) {
            if socket.unread_bytes() == 0 {
                self.unused.push(socket);
                continue;
            }
            assert_eq!(socket.read(), b"q");
            self.requests += 1;
            match self.manner {
                Manner::Answers => self.busy.push((socket, now + Duration::from_millis(20))),
                Manner::ResetsLate => self.busy.push((socket, now + Duration::from_millis(300))),
                Manner::Resets => socket.reset(),
                Manner::Finishes => socket.finish(),
                Manner::Breaks => {
                    socket.send(b"fi");
                    self.busy.push((socket, now + Duration::from_millis(3)));
                }
            }
        }
        for (socket, due) in std::mem::take(&mut self.busy) {
            match self.manner {
                _ if now < due => self.busy.push((socket, due)),
                Manner::Breaks | Manner::ResetsLate => socket.reset(),
                _ => {
                    socket.send(b"fine");
                    socket.finish();
                }
            }
        }
    }
}

#[test]
fn a_backend_that_fails_fast_gets_fewer_clients_and_not_more_and_returns_when_it_answers() {
    for manner in [Manner::Resets, Manner::ResetsLate, Manner::Finishes, Manner::Breaks] {
        let mut world = World::new(&[Manner::Answers, manner], None);
        world.run(8, Duration::from_secs(10));
        let [good, bad] = [0, 1].map(|it| world.backends[it].requests);
        // Until it is left out, each of 8 clients can meet it. Then one, after 1, 3 and 7 s; or a
        // few, if the one has got a part of an answer.
        let most = if manner == Manner::Breaks { 18 } else { 12 };
        assert!(bad <= most && good > 1000, "{manner:?}: {good} and {bad}");
        assert!(world.failed <= most && world.answered > 1000, "{manner:?}: {} failed", world.failed);
        assert!(world.log.iter().any(|line| line.ends_with("left out for 1 s")), "{:?}", world.log);
        let back = "10.0.1.1:90 is back: it answers".to_owned();
        assert_eq!(world.log.contains(&back), manner == Manner::Breaks, "a part is an answer: {:?}", world.log);

        world.log.clear();
        world.backends[1].manner = Manner::Answers;
        world.run(8, Duration::from_secs(16));
        let returns = world.log.iter().filter(|line| **line == back).count();
        assert_eq!(returns, usize::from(manner != Manner::Breaks), "{manner:?}: {:?}", world.log);
        let [good, again] = [world.backends[0].requests - good, world.backends[1].requests - bad];
        assert!(again > good / 4, "{manner:?}: it works again, and had {again} clients of {}", good + again);
    }
}

#[test]
fn while_every_backend_fails_clients_still_reach_one() {
    let mut world = World::new(&[Manner::Resets, Manner::Finishes], None);
    world.run(4, Duration::from_secs(5));
    assert!(world.failed > 200, "clients fail at once, and do not wait: {}", world.failed);
    // The only one that works.
    world.backends[1].manner = Manner::Answers;
    world.run(4, Duration::from_secs(20));
    let failed = world.failed;
    world.run(4, Duration::from_secs(10));
    assert!(world.failed - failed <= 1 && world.answered > 1000, "{} {}", world.failed - failed, world.answered);
}

#[test]
fn a_backend_whose_client_resets_is_not_blamed() {
    let mut world = World::new(&[Manner::Answers, Manner::Answers], None);
    for _ in 0..20 {
        let client = world.connect();
        client.send(b"q");
        (0..5).for_each(|_| world.step());
        client.reset();
        (0..30).for_each(|_| world.step());
    }
    assert!(!world.log.iter().any(|line| line.contains("left out")), "{:?}", world.log);
}

/// The first backend is left out, and the second one is still being connected to. So the client
/// waits, until it resets when the first one may have clients again.
#[test]
fn a_client_that_is_lost_while_it_waits_gets_no_backend() {
    for sends in [false, true] {
        let mut world = World::new(&[Manner::Resets, Manner::Answers], None);
        world.network.set_reach([10, 0, 1, 1].into(), Reach::BlackHole);
        world.run(1, Duration::from_millis(500));
        assert!(
            world.failed == 3 && world.log.iter().any(|line| line.ends_with("left out for 1 s")),
            "{:?}",
            world.log
        );
        let mut client = world.clients[0].take().expect("it waits");
        if !sends {
            std::mem::replace(&mut client, world.connect()).reset();
        }
        world.run(0, Duration::from_secs(1));
        client.reset();
        (0..20).for_each(|_| world.step());
        assert!(world.proxy_is_empty(), "{}", world.reactor.sockets());
        let unused = &world.backends[0].unused;
        assert!(unused.len() == 2 && !unused.iter().any(PeerSocket::is_reset), "{:?}", world.log);
        assert_eq!(world.backends[0].requests, 3, "{:?}", world.log);
    }
}

#[test]
fn a_connection_that_is_lost_unused_is_no_backend_that_can_not_be_reached() {
    let mut world = World::new(&[Manner::Answers], None);
    world.run(0, Duration::from_secs(1));
    world.backends[0].unused.remove(0).reset();
    world.run(0, Duration::from_secs(1));
    assert_eq!(world.log, ["10.0.1.0:90 unused connection: reset by the peer"]);
    let elsewhere = world.network.peer(CLIENTS).listen(([10, 0, 0, 2], 90).into()).expect("a free port");
    std::mem::replace(&mut world.backends[0].listener, elsewhere).close();
    world.backends[0].unused.remove(0).reset();
    world.run(0, Duration::from_millis(200));
    let last = world.log.last().expect("a line");
    assert!(last.starts_with("10.0.1.0:90 can't be reached: refused"), "{:?}", world.log);
}

#[test]
fn a_backend_that_is_down_is_one_line_and_its_return_another() {
    let mut world = World::new(&[Manner::Answers], None);
    let addr = world.backends[0].listener.addr().expect("it listens");
    let elsewhere = world.network.peer(CLIENTS).listen(([10, 0, 0, 2], 90).into()).expect("a free port");
    std::mem::replace(&mut world.backends[0].listener, elsewhere).close();
    world.run(1, Duration::from_secs(4));
    assert_eq!(world.log.len(), 1, "{:?}", world.log);
    assert!(world.log[0].starts_with("10.0.1.0:90 can't be reached: refused"), "{:?}", world.log);
    let state = world.state();
    assert!(state[1].starts_with("10.0.1.0:90: can't be reached: refused"), "{state:?}");
    world.log.clear();
    world.backends[0].listener = world.network.peer(addr.ip()).listen(addr).expect("free again");
    world.run(1, Duration::from_secs(3));
    assert_eq!(world.log, ["10.0.1.0:90 is back: it can be reached"]);
}

/// A failure of either side is a line that names both.
#[test]
fn a_line_about_a_client_names_its_backend_and_the_other_way_round() {
    for is_client in [true, false] {
        let mut world = World::new(&[Manner::Answers, Manner::Answers], None);
        world.run(0, Duration::from_millis(10));
        let client = world.connect();
        client.send(b"q");
        world.run(0, Duration::from_millis(10));
        let name = format!("client {}", client.local_addr().expect("connected"));
        if is_client {
            client.reset();
        } else {
            world.backends[0].busy.remove(0).0.reset();
        }
        world.run(0, Duration::from_millis(50));
        world.log.sort();
        let starts = [format!("10.0.1.0:90 for {name}: "), format!("{name} at 10.0.1.0:90: ")];
        let ends = if is_client { ["destroyed by us", "error: reset"] } else { ["error: reset", "destroyed by us"] };
        assert_eq!(world.log.len(), 2, "{:?}", world.log);
        for (line, (start, end)) in world.log.iter().zip(starts.iter().zip(ends)) {
            assert!(line.starts_with(&format!("{start}{end}")), "{line}");
        }
    }
}

#[test]
fn the_state_has_a_line_for_the_clients_and_one_for_each_backend() {
    let mut world = World::new(&[Manner::Answers, Manner::Resets], None);
    world.run(0, Duration::from_millis(10));
    assert_eq!(
        world.state(),
        [
            "clients: 0 with a backend, 0 waiting for one",
            "10.0.1.0:90: in use; 0 clients, 0 since the start; 2 connections ready",
            "10.0.1.1:90: in use; 0 clients, 0 since the start; 2 connections ready",
        ]
    );
    world.run(8, Duration::from_millis(500));
    let state = world.state();
    assert!(state[2].starts_with("10.0.1.1:90: left out for 0."), "{state:?}");
    world.run(0, Duration::from_secs(1));
    let state = world.state();
    assert!(state[2].starts_with("10.0.1.1:90: on trial until it answers; 0 clients, "), "{state:?}");
}

#[test]
fn a_backend_that_vanishes_is_noticed_and_new_clients_get_another() {
    let mut world = World::new(&[Manner::Answers, Manner::Answers], None);
    world.run(8, Duration::from_secs(1));
    assert_eq!(world.failed, 0);
    world.network.vanish([10, 0, 1, 1].into());
    // The requests that are on their way, and those of the two connections that were ready.
    let before = world.backends[0].requests;
    world.run(16, Duration::from_secs(29));
    assert!(world.failed <= 2, "not yet: {}", world.failed);
    world.run(16, Duration::from_secs(10));
    assert!((1..=18).contains(&world.failed), "{}", world.failed);
    assert!(world.backends[0].requests - before > 2000, "{}", world.backends[0].requests - before);
    assert!(world.log.iter().any(|line| line.contains("no longer answers")), "{:?}", world.log);
}

#[test]
fn each_backend_learns_the_address_of_its_client_before_the_first_byte() {
    for (header, expected) in [
        (Header::V1, b"PROXY TCP4 10.0.0.2 10.0.0.1 PORT 80\r\nq".to_vec()),
        (Header::V2, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x02\x0a\0\0\x01PORT\0\x50q".to_vec()),
    ] {
        let mut world = World::new(&[Manner::Answers], Some(header));
        let client = world.connect();
        client.send(b"q");
        let mut received = Vec::new();
        while !received.ends_with(b"q") {
            let until = world.network.now() + STEP;
            while let Some((mut socket, event)) = world.reactor.next_before(until).expect("it continues") {
                world.balance.handle(&mut socket, event);
            }
            let backend = &mut world.backends[0];
            backend.unused.extend(std::iter::from_fn(|| backend.listener.accept()));
            received.extend(backend.unused.iter().flat_map(PeerSocket::read));
        }
        let port = client.local_addr().expect("connected").port();
        let port = if header == Header::V1 { port.to_string().into_bytes() } else { port.to_be_bytes().to_vec() };
        let at = expected.windows(4).position(|word| word == b"PORT").expect("a place");
        assert_eq!(received, [&expected[..at], &port, &expected[at + 4..]].concat(), "{header:?}");
    }
}

#[test]
fn a_header_has_one_family_of_addresses_or_none() {
    let v4 = SocketAddr::from(([192, 0, 2, 1], 1234));
    let v6 = SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 443));
    let mapped = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 2).to_ipv6_mapped(), 80));
    let text = |client, server| String::from_utf8(Header::V1.bytes(client, server)).expect("text");
    assert_eq!(text(Some(v4), Some(mapped)), "PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n");
    assert_eq!(text(Some(v6), Some(v6)), "PROXY TCP6 2001:db8::1 2001:db8::1 443 443\r\n");
    assert_eq!(text(Some(mapped), Some(v6)), "PROXY TCP6 ::ffff:192.0.2.2 2001:db8::1 80 443\r\n");
    assert_eq!(text(None, None), "PROXY UNKNOWN\r\n");
    assert_eq!(text(Some(v4), None), "PROXY UNKNOWN\r\n");
    let bytes = Header::V2.bytes(Some(v6), Some(v6));
    assert_eq!((bytes.len(), &bytes[12..16]), (16 + 36, &[0x21, 0x21, 0, 36][..]));
    assert_eq!(&bytes[48..], [1, 0xbb, 1, 0xbb]);
    assert_eq!(Header::V2.bytes(None, None)[12..], [0x21, 0x00, 0, 0]);
}

/// All at once, and a backend that answers only when each has sent its request.
#[test]
fn more_clients_than_descriptors_wait_and_none_of_them_fails() {
    const CLIENTS: usize = 100;
    alone("proxy::more_clients_than_descriptors_wait_and_none_of_them_fails", || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound").to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        let proxy = Program::start_with_descriptors(40, "proxy", &["127.0.0.1:0", &addr]);
        let clients: Vec<_> = (0..CLIENTS).map(|_| proxy.connect()).collect();
        for (number, mut client) in clients.into_iter().enumerate() {
            client.write_all(b"hello").expect("open");
            let mut answer = [0; 5];
            client.read_exact(&mut answer).unwrap_or_else(|error| panic!("client {number}: {error}"));
        }
        let few = with_descriptors(20, "proxy", &["127.0.0.1:0", &addr]).output().expect("it ends");
        let error = String::from_utf8_lossy(&few.stderr).into_owned();
        assert_eq!((few.status.code(), error.lines().count()), (Some(1), 1), "{error}");
        assert!(error.starts_with("proxy: 20 descriptors are too few: it needs 21;"), "{error}");
    });
}
