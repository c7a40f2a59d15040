//! A proxy: TLS on one side, on both, or on the other. What one end does arrives at the other with
//! the same meaning.

use std::time::Duration;

use finale::sim::{Host, Network, PeerListener};
use finale::{ConnectOptions, Event, ListenOptions, Pipes, Reactor, SocketId, Stream, Streams, Target};
use finale_tls::rustls::Connection;
use finale_tls::{Tls, TlsSocket};

use crate::ends::{Configs, End, HERE, THERE};

/// Where TLS is: towards the client, towards the backend.
const SIDES: [(bool, bool); 3] = [(true, false), (true, true), (false, true)];

/// The most that waits for a slow sink: the high-water mark (128 KiB), one read (64 KiB), and what
/// TLS adds.
const MOST: usize = 200_000;

/// A proxy with one client and one backend.
struct Proxy {
    network: Network,
    reactor: Reactor<Host>,
    tls: Tls,
    pipes: Pipes,
    backend: Target,
    /// The events of the program, each with the socket's number: 0 for the client's, 1 for the
    /// backend's.
    seen: Vec<(usize, String)>,
    ids: Vec<SocketId>,
    /// The most that waited in both sockets together.
    peak: usize,
}

impl Proxy {
    /// With a client and a backend that have connected. Sides with TLS have done their handshakes.
    fn new(sides: (bool, bool)) -> (Self, End, End) {
        let (mut proxy, mut client, listener, configs) = Self::begun(sides);
        let backend = proxy.backend(&mut client, &listener, sides.1.then(|| configs.server()));
        (proxy, client, backend)
    }

    /// The backend, when both sides have connected.
    fn backend(&mut self, client: &mut End, listener: &PeerListener, tls: Option<Connection>) -> End {
        let socket = loop {
            self.step();
            client.turn();
            if let Some(socket) = listener.accept() {
                break socket;
            }
        };
        let mut backend = End::new(socket, tls);
        self.play(&mut [client, &mut backend]);
        backend
    }

    fn begun((front, back): (bool, bool)) -> (Self, End, PeerListener, Configs) {
        let configs = Configs::new(2);
        let network = Network::new(1);
        let mut reactor = Reactor::with_net(network.host(HERE));
        let mut tls = Tls::new();
        let listener = reactor.listen((HERE, 443), ListenOptions::default()).expect("a free port");
        if front {
            tls.accept_on(listener.id, &configs.server).expect("a good configuration");
        }
        let backend: Target = std::net::SocketAddr::new(THERE, 80).into();
        if back {
            let name = "localhost".try_into().expect("a name");
            tls.connect_to(backend.clone(), &configs.client, name).expect("a good configuration");
        }
        let server = network.peer(THERE).listen((THERE, 80).into()).expect("a free port");
        let socket = network.peer(THERE).connect(listener.addr).expect("begun");
        let client = End::new(socket, front.then(|| configs.client()));
        let pipes = Pipes::new();
        let proxy = Self { network, reactor, tls, pipes, backend, seen: Vec::new(), ids: Vec::new(), peak: 0 };
        (proxy, client, server, configs)
    }

    fn step(&mut self) {
        self.run(Duration::from_millis(5));
    }

    fn run(&mut self, time: Duration) {
        let until = self.network.now() + time;
        while let Some((mut socket, event)) = self.reactor.next_before(until).expect("it continues") {
            let mut events = self.tls.handle(&mut socket, event);
            while let Some((mut socket, event)) = events.next() {
                if matches!(event, Event::Connection) {
                    let client = socket.id();
                    let backend = socket.context().connect(self.backend.clone(), ConnectOptions::default());
                    let backend = backend.expect("begun");
                    self.pipes.join(&mut socket.context(), client, backend).expect("both are open");
                    self.ids = vec![client, backend];
                }
                let side = self.ids.iter().position(|id| *id == socket.id()).unwrap_or(usize::MAX);
                self.seen.push((side, event.to_string()));
                self.pipes.handle(&mut socket, &event);
                let waiting = |id: &SocketId| queued(&mut socket, *id);
                self.peak = self.peak.max(self.ids.iter().map(waiting).sum());
            }
        }
    }

    /// Until nothing has happened for 100 ms.
    fn play(&mut self, ends: &mut [&mut End]) {
        let mut quiet = 0;
        while quiet < 20 {
            let state = |seen: usize, ends: &[&mut End]| {
                (seen, ends.iter().map(|end| (end.data.len(), end.has_end(), end.is_reset())).collect::<Vec<_>>())
            };
            let before = state(self.seen.len(), ends);
            self.step();
            ends.iter_mut().for_each(|end| end.turn());
            quiet = if state(self.seen.len(), ends) == before { quiet + 1 } else { 0 };
        }
    }

    /// The last event of this side.
    fn last(&self, side: usize) -> &str {
        self.seen.iter().rev().find(|(of, _)| *of == side).map_or("", |(_, event)| event)
    }
}

fn queued(socket: &mut TlsSocket<'_>, id: SocketId) -> usize {
    socket.get(id).map_or(0, |mut socket| socket.socket().queued_bytes())
}

#[test]
fn bytes_and_ends_pass_in_both_directions_whichever_ends_first() {
    for sides in SIDES {
        for is_client_first in [true, false] {
            let (mut proxy, mut client, mut backend) = Proxy::new(sides);
            client.write(b"question");
            proxy.play(&mut [&mut client, &mut backend]);
            backend.write(b"answer");
            proxy.play(&mut [&mut client, &mut backend]);
            assert_eq!((&*backend.data, &*client.data), (&b"question"[..], &b"answer"[..]), "{sides:?}");

            let (one, other) = if is_client_first { (&mut client, &mut backend) } else { (&mut backend, &mut client) };
            one.end();
            proxy.play(&mut [&mut *one, &mut *other]);
            assert!(other.has_end() && !one.has_fin(), "{sides:?}: only one direction has ended: {:?}", proxy.seen);
            other.write(b", and more");
            proxy.play(&mut [&mut *one, &mut *other]);
            assert!(one.data.ends_with(b", and more"), "{sides:?}: {:?}", proxy.seen);
            other.end();
            proxy.play(&mut [&mut *one, &mut *other]);
            assert!(one.has_end(), "{sides:?}: {:?}", proxy.seen);
            for side in 0..2 {
                assert!(proxy.last(side).starts_with("close: clean"), "{sides:?}: {:?}", proxy.seen);
            }
            assert!(proxy.tls.is_empty() && proxy.reactor.socket(proxy.ids[0]).is_none());
        }
    }
}

#[test]
fn the_last_bytes_come_with_the_end() {
    for sides in SIDES {
        let (mut proxy, mut client, mut backend) = Proxy::new(sides);
        client.write(b"question");
        client.end();
        backend.write(&vec![7; 300_000]);
        backend.end();
        proxy.play(&mut [&mut client, &mut backend]);
        assert_eq!((backend.data.len(), client.data.len()), (8, 300_000), "{sides:?}: {:?}", proxy.seen);
        assert!(client.has_end() && backend.has_end(), "{sides:?}: {:?}", proxy.seen);
        assert!(proxy.last(0).starts_with("close: clean") && proxy.last(1).starts_with("close: clean"));
    }
}

#[test]
fn a_cut_on_one_side_never_looks_complete_on_the_other() {
    for sides in SIDES {
        for is_client in [true, false] {
            for is_reset in [false, true] {
                // Without TLS a FIN is an end.
                let has_tls = if is_client { sides.0 } else { sides.1 };
                if !is_reset && !has_tls {
                    continue;
                }
                let (mut proxy, mut client, mut backend) = Proxy::new(sides);
                let (one, other) = if is_client { (&mut client, &mut backend) } else { (&mut backend, &mut client) };
                one.write(b"the first half");
                proxy.play(&mut [&mut *one, &mut *other]);
                assert_eq!(other.data, b"the first half");
                if is_reset {
                    one.reset()
                } else {
                    one.fin()
                }
                let begun = proxy.network.now();
                proxy.play(&mut [&mut *one, &mut *other]);
                let case = format!("{sides:?}, client: {is_client}, reset: {is_reset}: {:?}", proxy.seen);
                assert!(other.knows_that_it_is_cut(), "{case}");
                assert!(proxy.network.now() - begun < Duration::from_secs(1), "{case}");
                assert!(proxy.tls.is_empty(), "{case}");
            }
        }
    }
}

#[test]
fn a_slow_sink_holds_its_source_and_gets_every_byte() {
    const BYTES: usize = 4 * 1024 * 1024;
    for sides in SIDES {
        for is_client in [true, false] {
            let (mut proxy, mut client, mut backend) = Proxy::new(sides);
            let (one, other) = if is_client { (&mut client, &mut backend) } else { (&mut backend, &mut client) };
            other.is_slow = true;
            let bytes: Vec<u8> = (0..BYTES).map(|index| (index % 251) as u8).collect();
            one.write(&bytes);
            one.end();
            proxy.play(&mut [&mut *one, &mut *other]);
            assert!(other.unread_bytes() > 0 && !other.has_end());
            assert!(proxy.peak < MOST, "{sides:?}: {} bytes waited", proxy.peak);
            other.is_slow = false;
            proxy.play(&mut [&mut *one, &mut *other]);
            assert!(other.data == bytes, "{sides:?}: {} bytes arrived", other.data.len());
            assert!(other.has_end(), "{sides:?}");
            other.end();
            proxy.play(&mut [&mut *one, &mut *other]);
            assert!(one.has_end() && proxy.tls.is_empty(), "{sides:?}");
            assert!(proxy.peak < MOST, "{sides:?}: {} bytes waited", proxy.peak);
        }
    }
}

#[test]
fn a_source_that_is_held_and_dies_gives_its_bytes_and_no_end() {
    for sides in SIDES {
        for is_reset in [false, true] {
            if !is_reset && !sides.0 {
                continue;
            }
            let (mut proxy, mut client, mut backend) = Proxy::new(sides);
            backend.is_slow = true;
            client.write(&vec![7; 4 * 1024 * 1024]);
            proxy.play(&mut [&mut client, &mut backend]);
            if is_reset {
                client.reset()
            } else {
                client.fin()
            }
            proxy.play(&mut [&mut client, &mut backend]);
            backend.is_slow = false;
            proxy.play(&mut [&mut client, &mut backend]);
            let case = format!("{sides:?}, reset: {is_reset}: {:?}", proxy.seen.last());
            assert!(!backend.has_end() && backend.knows_that_it_is_cut(), "{case}");
            assert!(proxy.tls.is_empty(), "{case}");
        }
    }
}

#[test]
fn bytes_that_come_before_the_backends_handshake_wait_in_the_client() {
    for sides in [(true, true), (false, true)] {
        let (mut proxy, mut client, listener, configs) = Proxy::begun(sides);
        let socket = loop {
            proxy.step();
            client.turn();
            if let Some(socket) = listener.accept() {
                break socket;
            }
        };
        // The backend has accepted, and says nothing.
        client.write(&vec![7; 4 * 1024 * 1024]);
        client.end();
        proxy.play(&mut [&mut client]);
        assert!(proxy.peak < MOST && proxy.tls.context(proxy.reactor.context()).stream(proxy.ids[0]).is_some());
        let waiting =
            proxy.tls.context(proxy.reactor.context()).stream(proxy.ids[1]).expect("it is open").queued_bytes();
        assert!((128 * 1024..MOST).contains(&waiting), "{waiting} bytes wait");
        let mut backend = End::new(socket, Some(configs.server()));
        proxy.play(&mut [&mut client, &mut backend]);
        assert_eq!(backend.data.len(), 4 * 1024 * 1024, "{sides:?}: {:?}", proxy.seen.last());
        assert!(backend.has_end());
    }
}

#[test]
fn a_handshake_that_fails_resets_the_other_side_and_says_why() {
    // The backend has another certificate than the one that is trusted.
    for front in [true, false] {
        let (mut proxy, mut client, listener, _) = Proxy::begun((front, true));
        client.write(b"question");
        let socket = loop {
            proxy.step();
            client.turn();
            if let Some(socket) = listener.accept() {
                break socket;
            }
        };
        let mut backend = End::new(socket, Some(Configs::new(0).server()));
        proxy.play(&mut [&mut client, &mut backend]);
        let error = "error: the handshake failed: the issuer of the peer's certificate";
        let is_there = proxy.seen.iter().any(|(side, event)| *side == 1 && event.starts_with(error));
        assert!(is_there, "{:?}", proxy.seen);
        // The backend keeps its connection open after the alert: the client does not wait for that.
        assert!(client.knows_that_it_is_cut(), "front: {front}: {:?}", proxy.seen);
    }
}

#[test]
fn a_record_that_was_changed_cuts_the_other_side_although_the_peer_stays() {
    let (mut proxy, mut client, mut backend) = Proxy::new((true, false));
    client.write(b"the first half");
    proxy.play(&mut [&mut client, &mut backend]);
    client.raw(&[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
    let begun = proxy.network.now();
    proxy.play(&mut [&mut client, &mut backend]);
    assert!(backend.knows_that_it_is_cut(), "{:?}", proxy.seen);
    assert!(proxy.network.now() - begun < Duration::from_secs(1));
    assert!(client.has_fin() && !client.has_end());
}

/// The next bytes were requested in a kernel pipe while the sink had no TLS.
#[test]
fn a_long_stream_that_is_piped_elsewhere_is_encrypted_from_there_on() {
    let (mut proxy, mut client, listener, configs) = Proxy::begun((false, false));
    let accept = |proxy: &mut Proxy, listener: &PeerListener, client: &mut End| loop {
        proxy.step();
        client.turn();
        if let Some(socket) = listener.accept() {
            return socket;
        }
    };
    let mut backend = End::new(accept(&mut proxy, &listener, &mut client), None);
    client.write(&vec![7; 100_000]);
    proxy.play(&mut [&mut client, &mut backend]);
    assert_eq!(backend.data.len(), 100_000);

    let elsewhere = std::net::SocketAddr::new(THERE, 81);
    let listener = proxy.network.peer(THERE).listen(elsewhere).expect("a free port");
    let name = "localhost".try_into().expect("a name");
    proxy.tls.connect_to(elsewhere.into(), &configs.client, name).expect("a good configuration");
    let mut context = proxy.tls.context(proxy.reactor.context());
    let sink = context.connect(elsewhere.into(), ConnectOptions::default()).expect("begun");
    proxy.pipes.pipe(&mut context, proxy.ids[0], sink).expect("both are open");
    let mut secure = End::new(accept(&mut proxy, &listener, &mut client), Some(configs.server()));
    proxy.play(&mut [&mut client, &mut secure]);
    client.write(&vec![8; 100_000]);
    client.end();
    proxy.play(&mut [&mut client, &mut secure]);
    assert_eq!((secure.data.len(), secure.has_end()), (100_000, true), "{:?}", proxy.seen.last());
    assert!(secure.data.iter().all(|byte| *byte == 8));
}

/// By the default limits: the client has finished, and its stream is taken slowly.
#[test]
fn a_stream_that_has_ended_is_not_given_up_while_the_other_side_takes_it() {
    const BYTES: usize = 125_000;
    for (sides, has_fin) in [(SIDES[0], true), (SIDES[0], false), (SIDES[1], true), (SIDES[1], false), (SIDES[2], true)]
    {
        let (mut proxy, mut client, listener, configs) = Proxy::begun(sides);
        proxy.network.set_buffers(16 * 1024, 8 * 1024);
        let mut backend = proxy.backend(&mut client, &listener, sides.1.then(|| configs.server()));
        backend.is_slow = true;
        client.write(&vec![7; BYTES]);
        client.close_notify();
        if has_fin {
            client.fin();
        }
        let begun = proxy.network.now();
        while !backend.has_end() && !backend.is_reset() {
            proxy.run(Duration::from_secs(25));
            backend.is_slow = false;
            backend.turn();
            backend.is_slow = true;
            client.turn();
        }
        let lived = proxy.network.now() - begun;
        assert_eq!((backend.data.len(), backend.has_end()), (BYTES, true), "{sides:?}, {lived:?}: {:?}", proxy.seen);
        assert!(lived > Duration::from_secs(330), "{sides:?}: {lived:?}");
        backend.end();
        proxy.play(&mut [&mut client, &mut backend]);
        assert!(client.has_end() && proxy.tls.is_empty() == has_fin, "{sides:?}");
        proxy.run(Duration::from_secs(31));
        assert!(proxy.tls.is_empty(), "{sides:?}: {:?}", proxy.seen);
    }
}

#[test]
fn a_pair_whose_client_ends_without_a_fin_is_over_when_its_backend_is_silent() {
    for sides in [(true, false), (true, true)] {
        let (mut proxy, mut client, mut backend) = Proxy::new(sides);
        client.write(b"question");
        client.close_notify();
        proxy.play(&mut [&mut client, &mut backend]);
        assert!(backend.has_end(), "{sides:?}: {:?}", proxy.seen);
        proxy.run(Duration::from_secs(290));
        assert!((0..2).all(|side| !proxy.last(side).starts_with("close")), "{sides:?}: {:?}", proxy.seen);
        proxy.run(Duration::from_secs(20));
        assert!((0..2).all(|side| proxy.last(side).starts_with("close")), "{sides:?}: {:?}", proxy.seen);
        assert!(proxy.tls.is_empty(), "{sides:?}");
    }
}
