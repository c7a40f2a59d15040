//! Overload and abuse: the rows OV01 and following of docs/faults.md.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use finale::sim::{Host, PeerSocket};
use finale::{
    Backpressure, ConnectOptions, ConnectionErrorKind, EndingKind, Error, Event, ListenOptions, Listener, Reactor,
    SocketId, TimeoutKind,
};

use support::alone::{alone_in_a_network, alone_with_connections, shell};
use support::scene::{HERE, Scene, THERE};
use support::{PATIENCE, Transcript, What, dial, ms, reset};

const SECOND: Duration = Duration::from_secs(1);

/// A listener here with these options, and this many connections to it, delivered up to
/// `connection`.
fn crowd(options: ListenOptions, peers: usize) -> (Scene, Listener, Vec<PeerSocket>, Vec<SocketId>) {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 80), options).expect("a free port");
    let peers: Vec<_> = (0..peers).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    let mut ids = Vec::new();
    let until = scene.network.now() + SECOND;
    while let Some((socket, event)) = scene.reactor.next_before(until).expect("it continues") {
        assert_eq!(event, Event::Connection);
        ids.push(socket.id());
    }
    assert_eq!(ids.len(), peers.len());
    (scene, listener, peers, ids)
}

/// OV01: a thousand clients that send a byte every ten seconds and never a whole request. They are
/// never idle for fifteen seconds, but reach their deadline; meanwhile each costs a slot in the
/// table and nothing that grows.
#[test]
fn clients_that_drip_are_never_idle_and_end_at_their_deadline() {
    let options = ListenOptions::default().idle_timeout(15 * SECOND).deadline(60 * SECOND);
    let (mut scene, _, peers, ids) = crowd(options, 1000);
    assert_eq!(ids.len(), 1000);
    let (mut bytes, mut failed) = (0, 0);
    let descriptors = scene.network.descriptors();
    for _ in 0..7 {
        peers.iter().for_each(|peer| peer.send(b"x"));
        let until = scene.network.now() + 10 * SECOND;
        while let Some((_, event)) = scene.reactor.next_before(until).expect("it continues") {
            match event {
                Event::Data(piece) => bytes += piece.len(),
                Event::Error(failure) => assert_eq!(failure.kind, ConnectionErrorKind::TimedOut(TimeoutKind::Deadline)),
                Event::Close(ending) => {
                    assert_eq!(ending.bytes_read, 6);
                    failed += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(scene.network.descriptors() <= descriptors);
    }
    assert_eq!((bytes, failed, scene.reactor.len()), (6000, 1000, 0));
}

/// OV01: the same on a real kernel, with fifty clients and a byte every tenth of the idle time.
#[test]
fn real_clients_that_drip_end_at_the_programs_own_limit() {
    alone_with_connections("overload::real_clients_that_drip_end_at_the_programs_own_limit", 50, 10, |count| {
        let mut story = Transcript::new();
        let addr = story.listen(ListenOptions::default().idle_timeout(ms(2000)));
        let mut peers: Vec<TcpStream> = (0..count).map(|_| dial(addr)).collect();
        let mut limits = HashMap::new();
        for _ in 0..count {
            let id = story.connection();
            limits.insert(story.reactor.set_timer(ms(1000)), id);
        }
        let (mut over, mut destroyed) = (Vec::new(), 0);
        let began = Instant::now();
        while destroyed < count {
            peers.iter_mut().for_each(|peer| drop(peer.write(b"x")));
            story.run_for(ms(200), |_, event| match event {
                Event::Timer(limit) => over.push(limits[limit]),
                Event::Close(ending) => {
                    assert!(ending.kind == EndingKind::Destroyed && ending.bytes_read > 1, "{ending}");
                    destroyed += 1;
                }
                Event::Data(_) => {}
                other => panic!("{other:?}"),
            });
            over.drain(..).for_each(|id| story.socket(id).destroy());
            assert!(began.elapsed() < PATIENCE);
        }
        story.rest();
    });
}

/// OV02: two hundred peers request a large answer and read nothing of it. A program that stops at
/// `Full` has a queue of at most the high-water mark and one write, for any time, and `timeout` is
/// delivered after the idle time.
#[test]
fn peers_that_never_read_cost_the_high_water_mark_and_no_more() {
    const MARK: usize = 64 * 1024;
    const PIECE: usize = 16 * 1024;
    let options = ListenOptions::default().high_water_mark(MARK).idle_timeout(30 * SECOND);
    let (mut scene, _, peers, ids) = crowd(options, 200);
    for id in &ids {
        let mut socket = scene.reactor.socket(*id).expect("it lives");
        while socket.write(&[1; PIECE]) == Ok(Backpressure::Room) {}
    }
    let (mut drains, mut closed) = (0, 0);
    let until = scene.network.now() + 1000 * SECOND;
    while let Some((mut socket, event)) = scene.reactor.next_before(until).expect("it continues") {
        match event {
            Event::Drain => {
                drains += 1;
                while socket.write(&[1; PIECE]) == Ok(Backpressure::Room) {}
            }
            Event::Timeout => socket.destroy(),
            Event::Close(ending) => {
                assert!((MARK as u64..(MARK + PIECE) as u64).contains(&ending.bytes_unsent), "{ending}");
                closed += 1;
            }
            other => panic!("{other:?}"),
        }
        assert!(socket.queued_bytes() < MARK + PIECE);
    }
    // What the kernels hold was taken, and nothing more.
    assert!(closed == 200 && drains < 200 * 10, "{drains} drains");
    scene.network.advance(SECOND);
    assert!(peers.iter().all(PeerSocket::is_reset));
}

/// OV03: connections that open and end, are reset, or die before they are seen, two thousand at a
/// time, thirty thousand in total (a million of them takes half a minute). Each delivers one
/// `connection` and one `close`, no id occurs twice, and everything is as it was at the start.
#[test]
fn a_flood_leaves_nothing_behind() {
    let (mut scene, listener, _, _) = crowd(ListenOptions::default(), 0);
    let before = (scene.network.descriptors(), scene.network.open_connections());
    let (mut ids, mut closes) = (HashSet::new(), 0);
    for round in 0..15 {
        let peers: Vec<_> = (0..2000).map(|_| scene.peer.connect(listener.addr).expect("a port")).collect();
        if round % 3 == 0 {
            scene.network.advance(SECOND); // These die in the queue.
        } else {
            flood(&mut scene.reactor, scene.network.now() + ms(4), &mut ids, &mut closes);
        }
        for (place, peer) in peers.into_iter().enumerate() {
            if place % 2 == 0 { peer.close() } else { peer.reset() }
        }
        flood(&mut scene.reactor, scene.network.now() + SECOND, &mut ids, &mut closes);
        assert!(scene.reactor.is_empty());
    }
    assert_eq!((ids.len(), closes), (30_000, 30_000));
    scene.network.advance(100 * SECOND);
    assert_eq!((scene.network.descriptors(), scene.network.open_connections()), before);
}

fn flood(reactor: &mut Reactor<Host>, until: Instant, ids: &mut HashSet<SocketId>, closes: &mut usize) {
    while let Some((mut socket, event)) = reactor.next_before(until).expect("it continues") {
        match event {
            Event::Connection => assert!(ids.insert(socket.id()), "an id comes twice"),
            Event::End => socket.end(),
            Event::Close(_) => *closes += 1,
            Event::Error(failure) => assert_eq!(failure.kind, ConnectionErrorKind::Reset),
            other => panic!("{other:?}"),
        }
    }
}

/// OV04: the program does not accept while five clients connect and the queue holds two: the others
/// are late, and not lost, once it accepts again.
#[test]
fn clients_of_a_full_queue_are_late_and_not_lost() {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default().backlog(1)).expect("a free port");
    let peers: Vec<_> = (0..5).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    scene.network.advance(5 * SECOND); // The process is stopped.
    assert_eq!(peers.iter().filter(|peer| peer.is_connected()).count(), 2);
    scene.run(20 * SECOND); // A SYN is repeated after 1, 3, 7, 15 seconds.
    assert_eq!(scene.story, ["connection"; 5]);
    assert!(peers.iter().all(PeerSocket::is_connected));
}

/// OV04: the same on a real kernel; and `ss` reports the backlog in effect: the requested one,
/// limited by the system's own.
#[test]
fn real_clients_of_a_full_queue_are_late_and_not_lost() {
    alone_in_a_network("overload::real_clients_of_a_full_queue_are_late_and_not_lost", || {
        // With cookies a client whose last handshake packet was dropped is accepted only when it
        // writes.
        shell("sysctl -qw net.ipv4.tcp_syncookies=0");
        let mut story = Transcript::new();
        let addr = story.listen(ListenOptions::default().backlog(1));
        let wide = story.listen(ListenOptions::default().backlog(1_000_000));
        let most: u32 =
            std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("Linux").trim().parse().expect("a number");
        assert_eq!((queue(addr), queue(wide)), ((0, 1), (0, most)));
        let clients: Vec<_> = (0..5).map(|_| std::thread::spawn(move || dial(addr))).collect();
        // What the clients see does not count: a third one's last packet of the handshake can be dropped.
        let guard = Instant::now() + PATIENCE;
        while queue(addr).0 < 2 {
            assert!(Instant::now() < guard, "the queue holds two");
        }
        assert_eq!(queue(addr).0, 2, "and no more");
        let sockets: Vec<_> = (0..5).map(|_| story.connection()).collect();
        let peers: Vec<_> = clients.into_iter().map(|client| client.join().expect("not lost")).collect();
        sockets.iter().for_each(|id| story.socket(*id).destroy());
        sockets.iter().for_each(|id| assert_eq!(story.close(*id).kind, EndingKind::Destroyed));
        drop(peers);
        story.rest();
    });
}

/// How many connections wait for accept(2), and the backlog in effect: the Recv-Q and the Send-Q of
/// a listener.
fn queue(addr: SocketAddr) -> (u32, u32) {
    let output = Command::new("ss").args(["-Hltn", "sport", "=", &format!(":{}", addr.port())]).output().expect("ss");
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |nth| line.split_whitespace().nth(nth).and_then(|word| word.parse().ok());
    number(1).zip(number(2)).unwrap_or_else(|| panic!("{line:?}"))
}

/// OV05: no local port is left: an error of its own kind, not a refusal; and it works again when
/// one is free.
#[test]
fn a_connect_without_a_free_port_is_told_and_can_be_tried_again() {
    let mut scene = Scene::new();
    scene.network.set_ports(5000..=5003);
    let listener = scene.peer.listen(SocketAddr::new(THERE, 80)).expect("a free port");
    let ids: Vec<_> =
        (0..5).map(|_| scene.reactor.connect((THERE, 80), ConnectOptions::default()).expect("an address")).collect();
    scene.run(SECOND);
    assert_eq!(scene.story.iter().filter(|line| *line == "ready").count(), 4);
    assert!(scene.story.contains(&"error no local address or port is free [10.0.0.2:80]".to_owned()));
    assert_eq!(scene.cause(), ConnectionErrorKind::NoLocalAddress);
    scene.reactor.socket(ids[0]).expect("it lives").destroy();
    scene.run(SECOND);
    scene.story.clear();
    scene.reactor.connect((THERE, 80), ConnectOptions::default()).expect("an address");
    scene.expect(&["lookup 10.0.0.2", "connect", "ready"]);
    assert!(listener.accept().is_some());
}

/// OV05: the same on a real kernel with four ports.
#[test]
fn a_real_connect_without_a_free_port_is_told_and_can_be_tried_again() {
    alone_in_a_network("overload::a_real_connect_without_a_free_port_is_told_and_can_be_tried_again", || {
        let mut story = Transcript::new();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound");
        shell("sysctl -qw net.ipv4.ip_local_port_range='40000 40003'");
        let clients: Vec<_> =
            (0..4).map(|_| story.reactor.connect(addr, ConnectOptions::default()).expect("an address")).collect();
        clients.iter().for_each(|id| story.connected(*id));
        let fifth = story.reactor.connect(addr, ConnectOptions::default()).expect("delivered later");
        assert!(matches!(story.next(fifth), What::Lookup(_)));
        assert_eq!(story.error(fifth).kind, ConnectionErrorKind::NoLocalAddress);
        story.close(fifth);
        let refused = story.reactor.listen("127.0.0.1:0", ListenOptions::default()).map(drop);
        assert!(matches!(refused, Ok(()) | Err(Error::Listen { .. })), "{refused:?}");
        story.socket(clients[0]).destroy(); // A reset leaves no TIME_WAIT.
        story.close(clients[0]);
        let again = story.reactor.connect(addr, ConnectOptions::default()).expect("an address");
        story.connected(again);
        drop(story);
    });
}

/// OV07: two thousand clients wait to be accepted, and more connect all the time: a client that is
/// served already is answered after one turn's share of them (sixteen).
#[test]
fn a_flood_of_connects_does_not_starve_the_living() {
    let (mut scene, listener, peers, ids) = crowd(ListenOptions::default(), 100);
    let mut flood = Vec::new();
    for round in 0..20 {
        let good = &peers[round * 5];
        flood.extend((0..100).map(|_| scene.peer.connect(listener.addr).expect("a port")));
        good.send(b"echo");
        scene.network.advance(ms(5));
        let (mut before, mut echoed) = (0, false);
        while !echoed {
            let until = scene.network.now() + SECOND;
            let (mut socket, event) =
                scene.reactor.next_before(until).expect("it continues").expect("the echo is pending");
            match event {
                Event::Connection => before += 1,
                Event::Data(bytes) => {
                    assert!(ids.contains(&socket.id()));
                    socket.write(bytes).expect("open");
                    echoed = true;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(before <= 16, "{before} were accepted first");
    }
    drop(flood);
}

/// OV07: the same on a real kernel with three hundred waiting.
#[test]
fn a_real_flood_of_connects_does_not_starve_the_living() {
    alone_with_connections("overload::a_real_flood_of_connects_does_not_starve_the_living", 300, 40, |count| {
        let (mut story, good, mut peer) = Transcript::pair(ListenOptions::default());
        story.turn();
        let addr = peer.peer_addr().expect("connected");
        let flood: Vec<_> = (0..count).map(|_| dial(addr)).collect();
        peer.write_all(b"echo").expect("connected");
        let mut before = 0;
        story.until(|socket, event| match event {
            Event::Connection => {
                before += 1;
                false
            }
            Event::Data(bytes) => {
                assert_eq!(socket.id(), good);
                socket.write(bytes).expect("open");
                true
            }
            other => panic!("{other:?}"),
        });
        assert!(before <= 32, "{before} were accepted first");
        flood.into_iter().for_each(reset);
        reset(peer);
        let mut closed = 0;
        story.until(|_, event| {
            closed += usize::from(matches!(event, Event::Close(_)));
            closed == count + 1
        });
        story.rest();
    });
}
