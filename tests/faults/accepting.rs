//! Accepting: the rows AC01 and following of docs/faults.md.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use finale::sim::{Faults, Network, PeerSocket};
use finale::{ConnectionErrorKind, ListenOptions, Listener, OverflowPolicy, Reactor, StopOptions};
use rustix::io::Errno;

use support::faulty::{Faulty, FaultyNet, faulty_on, faulty_registered};
use support::scene::{HERE, Scene, THERE};
use support::{PATIENCE, Transcript, dial, ms, reset};

const SECOND: Duration = Duration::from_secs(1);

fn exhausted() -> Faults {
    Faults { accept_exhausted: 1.0, ..Faults::none() }
}

/// A scene with a listener and this many clients of the peer, which have all connected before the
/// reactor looks.
fn waiting(clients: usize, options: ListenOptions) -> (Scene, Listener, Vec<PeerSocket>) {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 80), options).expect("a free port");
    let peers = (0..clients).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    scene.network.advance(ms(10));
    (scene, listener, peers)
}

/// A faulty scene with one client in the queue.
fn faulty_waiting() -> (Scene<FaultyNet>, Listener, PeerSocket, Faulty) {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let peer = scene.peer.connect(listener.addr).expect("begun");
    scene.network.advance(ms(10));
    (scene, listener, peer, faulty)
}

/// AC01: out of descriptors: one report in total, ten tries per second, and every client is served
/// afterwards.
#[test]
fn a_listener_that_can_not_accept_reports_once_and_tries_ten_times_a_second() {
    let (mut scene, listener, peers) = waiting(10, ListenOptions::default());
    scene.network.set_faults(exhausted());
    let calls = scene.network.calls();
    scene.run(10 * SECOND);
    assert_eq!(scene.story.len(), 1, "{:?}", scene.story);
    assert!(scene.story[0].starts_with("rests "), "{:?}", scene.story);
    let calls = scene.network.calls() - calls;
    assert!((100..=250).contains(&calls), "{calls} calls in 10 s");
    scene.network.set_faults(Faults::none());
    scene.story.clear();
    scene.expect(&["connection"; 10]);
    scene.reactor.close_listener(listener.id).expect("open");
    peers.into_iter().for_each(PeerSocket::reset);
    scene.run(SECOND);
    scene.story.clear();
    scene.rest();
}

/// AC02: no edge is reported when a descriptor is freed elsewhere; our own try follows within a
/// tenth of a second. A descriptor that we free ourselves is used at once.
#[test]
fn clients_that_waited_for_a_descriptor_are_accepted_without_an_edge() {
    let (mut scene, listener, _peers) = waiting(3, ListenOptions::default());
    scene.network.set_faults(exhausted());
    scene.run(ms(250));
    scene.story.clear();
    scene.network.set_faults(Faults::none());
    scene.run(ms(100));
    assert_eq!(std::mem::take(&mut scene.story), ["connection"; 3]);

    let _late = scene.peer.connect(listener.addr).expect("begun");
    scene.network.set_faults(exhausted());
    scene.run(ms(50));
    assert!(scene.story.pop().is_some_and(|line| line.starts_with("rests")), "a new error is delivered again");
    scene.network.set_faults(Faults::none());
    scene.with(|socket| socket.destroy());
    scene.run(Duration::ZERO);
    scene.run(Duration::ZERO);
    assert_eq!(scene.story, ["connection", "close"]);
}

/// AC03: out of files, of buffers or of memory: as out of descriptors, and the listener continues.
#[test]
fn every_shortage_of_the_system_is_a_rest() {
    for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
        let (mut scene, _listener, _peer, faulty) = faulty_waiting();
        faulty.once("accept", errno);
        faulty.once("accept", errno);
        scene.run(ms(99));
        assert_eq!(scene.story.len(), 1, "{errno}: {:?}", scene.story);
        scene.run(ms(102));
        assert_eq!(scene.story[1..], ["connection"], "{errno}: the second try is not delivered");
        assert_eq!(faulty.count("accept"), 4, "two that fail, one client, and no other");
    }
}

/// AC03: epoll has no memory for a listener that is to be watched again: it tries to accept until
/// there is, so that no later client waits for ever.
#[test]
fn a_listener_that_can_not_be_watched_again_accepts_later_clients() {
    let (mut scene, listener, _peers) = waiting(1, ListenOptions::default());
    scene.network.set_faults(exhausted());
    scene.run(ms(50));
    scene.network.set_faults(Faults { no_memory: 1.0, ..Faults::none() });
    scene.run(ms(100));
    assert_eq!(scene.story.pop().as_deref(), Some("connection"));
    scene.network.set_faults(Faults::none());
    let _late = scene.peer.connect(listener.addr).expect("begun");
    scene.run(ms(30));
    assert_eq!(scene.story.len(), 1, "one error, and nothing reports the late client: {:?}", scene.story);
    scene.run(ms(100));
    assert_eq!(scene.story[1..], ["connection"]);
}

/// AC03: the descriptor of a listener that is closed, or closes after a stop, is one that another
/// can use: it does not wait for its next try.
#[test]
fn a_listener_that_closes_lets_another_that_lacks_descriptors_try_at_once() {
    for accepts_backlog in [None, Some(false), Some(true)] {
        let (mut scene, _listener, _peer, faulty) = faulty_waiting();
        let other = scene.reactor.listen((HERE, 81), ListenOptions::default()).expect("a free port");
        faulty.once("accept", Errno::MFILE);
        scene.run(ms(1));
        assert!(matches!(&scene.story[..], [rests] if rests.starts_with("rests")), "{:?}", scene.story);
        scene.story.clear();
        let mut expected = vec!["connection"];
        if let Some(accepts_backlog) = accepts_backlog {
            let stop = StopOptions::default().accept_backlog(accepts_backlog);
            scene.reactor.stop_listener(other.id, stop).expect("open");
            expected.push("listener closed");
        } else {
            scene.reactor.close_listener(other.id).expect("open");
        }
        scene.run(ms(1));
        scene.story.sort();
        assert_eq!(scene.story, expected, "{accepts_backlog:?}");
    }
}

/// AC04: a client that reset before it was accepted: delivered with its address; the next one is
/// served.
#[test]
fn a_client_that_was_dead_in_the_queue_is_told_and_the_listener_lives() {
    let (mut scene, listener, mut peers) = waiting(1, ListenOptions::default());
    let addr = peers[0].local_addr();
    peers.remove(0).reset();
    scene.network.advance(ms(10));
    scene.expect(&["connection", "error reset by the peer", "close"]);
    assert_eq!(scene.ending.take().expect("delivered").peer, addr);
    let next = scene.peer.connect(listener.addr).expect("begun");
    next.send(b"hello");
    scene.expect(&["connection", "data hello"]);
    next.reset();
    scene.expect(&["error reset by the peer", "close"]);
    scene.reactor.close_listener(listener.id).expect("open");
    scene.rest();
}

/// AC04: the same on a real kernel, also if bytes came before the reset.
#[test]
fn a_real_client_that_was_dead_in_the_queue_is_told_and_the_listener_lives() {
    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default());
    for bytes in [&b""[..], b"abc"] {
        let mut dead = dial(addr);
        let dead_addr = dead.local_addr().ok();
        dead.write_all(bytes).expect("room");
        reset(dead);
        let socket = story.connection();
        assert_eq!(story.socket(socket).peer_addr(), dead_addr);
        assert_eq!(story.data(socket, bytes.len()), bytes);
        assert_eq!(story.error(socket).kind, ConnectionErrorKind::Reset);
        assert_eq!(story.close(socket).peer, dead_addr);
    }
    let mut peer = dial(addr);
    let socket = story.connection();
    peer.write_all(b"hello").expect("connected");
    assert_eq!(story.data(socket, 5), b"hello");
    story.socket(socket).destroy();
    story.close(socket);
    story.rest();
}

/// AC05: errors that concern one client are skipped; the next one is accepted in the same turn.
/// Endless failures do not keep the loop busy.
#[test]
fn a_client_that_fails_in_accept_is_skipped() {
    let (mut scene, listener, _peer, faulty) = faulty_waiting();
    for errno in [Errno::CONNABORTED, Errno::PROTO, Errno::INTR, Errno::PERM] {
        faulty.once("accept", errno);
    }
    let polls = faulty.count("poll");
    scene.run(Duration::ZERO);
    assert_eq!(std::mem::take(&mut scene.story), ["connection"]);
    assert!(faulty.count("poll") - polls <= 2);
    faulty.always("accept", Errno::CONNABORTED);
    let _late = scene.peer.connect(listener.addr).expect("begun");
    faulty.take_log();
    scene.run(10 * SECOND);
    assert_eq!(scene.story.len(), 1, "delivered once: {:?}", scene.story);
    let accepts = faulty.count("accept");
    assert!((65 * 99..=65 * 101).contains(&accepts), "{accepts} in 10 s: as many after each pause");
    assert!(faulty.count("poll") <= 1000, "{} in 10 s", faulty.count("poll"));
    faulty.heal();
    scene.story.clear();
    scene.expect(&["connection"]);
}

/// AC05: more failures than are skipped in a row, each followed by a client.
#[test]
fn clients_that_fail_now_and_then_keep_no_listener_from_accepting() {
    let (mut scene, listener, _first, faulty) = faulty_waiting();
    scene.expect(&["connection"]);
    let mut clients = Vec::new();
    for _ in 0..100 {
        faulty.once("accept", Errno::CONNABORTED);
        clients.push(scene.peer.connect(listener.addr).expect("begun"));
        scene.run(ms(10));
        assert_eq!(std::mem::take(&mut scene.story), ["connection"], "after {} of them", clients.len());
    }
}

/// AC05: a client that is reset counts like one that is accepted.
#[test]
fn clients_beyond_the_maximum_do_not_keep_the_loop_from_the_others() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    let options = ListenOptions::default().max_connections(0).overflow_policy(OverflowPolicy::Reset);
    let listener = scene.reactor.listen((HERE, 80), options).expect("a free port");
    let _clients: Vec<_> = (0..100).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    scene.network.advance(ms(10));
    scene.run(SECOND);
    assert_eq!(scene.story, vec![format!("dropped {THERE}"); 100]);
    let log = faulty.take_log();
    let most =
        log.split(|call| *call == "poll").map(|turn| turn.iter().filter(|call| **call == "accept").count()).max();
    assert!(most.is_some_and(|most| (2..=16).contains(&most)), "{most:?} from one poll to the next");
}

/// AC06: a client that has disconnected before accept(2) can name it is skipped like the others: no
/// back-off, no report.
#[test]
fn a_client_without_an_address_is_skipped() {
    let (mut scene, _listener, _peer, faulty) = faulty_waiting();
    faulty.once("accept", Errno::INVAL);
    scene.run(Duration::ZERO);
    assert_eq!(scene.story, ["connection"]);
    // An option that a dying connection refuses does not end it: the connection reports its own
    // end.
    faulty.once("set_nodelay", Errno::INVAL);
    scene.with(|socket| socket.set_nodelay(false));
    scene.expect(&["connection"]);
    assert_eq!(faulty.count("set_nodelay"), 1);
}

/// AC07: twenty clients for one edge, with more than one turn accepts: the listener keeps its
/// position in the queue.
#[test]
fn a_listener_with_more_clients_than_a_turn_accepts_stays_ready() {
    let (mut scene, _listener, _peers) = waiting(100, ListenOptions::default());
    let begun = scene.network.elapsed();
    let mut turns = 0;
    while scene.story.len() < 100 {
        scene.run(Duration::ZERO);
        turns += 1;
        assert!(turns < 50, "{} accepted", scene.story.len());
        assert!(scene.story.len() == 100 || scene.reactor.next_deadline().is_some_and(|at| at <= scene.network.now()));
    }
    assert_eq!((scene.story, scene.network.elapsed()), (vec!["connection".to_owned(); 100], begun));
}

/// A single client costs one accept: another accept(2) costs more than another report.
#[test]
fn clients_that_come_one_by_one_are_accepted_without_asking_for_another() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    for _ in 0..200 {
        let peer = scene.peer.connect(listener.addr).expect("begun");
        scene.network.advance(ms(10));
        scene.expect(&["connection"]);
        peer.reset();
        scene.expect(&["error reset by the peer", "close"]);
    }
    let vain = faulty.count("accept") - 200;
    assert!(vain <= 4, "{vain} accepts found no client");
}

/// A crowd costs neither an accept(2) without a client nor a poll for each.
#[test]
fn a_crowd_is_accepted_in_batches() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let _peers: Vec<_> = (0..400).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    scene.network.advance(ms(10));
    faulty.take_log();
    scene.expect(&["connection"; 400]);
    let (accepts, polls) = (faulty.count("accept"), faulty.count("poll"));
    assert!(accepts <= 402 && polls <= 60, "{accepts} accepts, {polls} polls");
}

/// AC08: no room in epoll for one connection: it is read without, and registered after a pause; the
/// others continue.
#[test]
fn a_connection_that_can_not_be_watched_is_served_without() {
    let (mut scene, good, faulty) = faulty_registered(ListenOptions::default());
    faulty.once("register", Errno::NOSPC);
    let bad = scene.serve_another();
    bad.send(b"unwatched");
    scene.expect(&["data unwatched"]);
    good.send(b"undisturbed");
    scene.expect(&["data undisturbed"]);
    for id in scene.reactor.sockets().iter().map(|socket| socket.id).collect::<Vec<_>>() {
        scene.reactor.socket(id).expect("it lives").destroy();
    }
    scene.expect(&["close", "close"]);
    scene.rest();
}

/// AC09: closing a listener resets only the clients that wait in its queue.
#[test]
fn closing_a_listener_resets_its_queue_and_spares_the_accepted() {
    let (mut scene, listener, mut peers) = waiting(1, ListenOptions::default());
    scene.expect(&["connection"]);
    peers.extend((0..3).map(|_| scene.peer.connect(listener.addr).expect("begun")));
    scene.network.advance(ms(10));
    scene.reactor.close_listener(listener.id).expect("open");
    scene.network.advance(ms(10));
    let late = scene.peer.connect(listener.addr).expect("begun");
    scene.network.advance(ms(10));
    assert!(late.is_reset(), "new clients are refused");
    assert_eq!(peers.iter().map(PeerSocket::is_reset).collect::<Vec<_>>(), [false, true, true, true]);
    peers[0].send(b"still here");
    scene.expect(&["data still here"]);
    assert_eq!(scene.reactor.len(), 1, "the socket, and no listener");
    scene.with(|socket| socket.destroy());
    scene.expect(&["close"]);
    scene.rest();
}

/// AC09: with two listeners on one port each has its own queue, and only that of the closed one is
/// lost.
#[test]
fn with_two_listeners_on_one_port_the_queue_of_one_is_lost_with_it() {
    let mut story = Transcript::new();
    let shared = ListenOptions::default().reuse_port(true);
    let first = story.reactor.listen("127.0.0.1:0", shared.clone()).expect("a port");
    let second = story.reactor.listen(first.addr, shared).expect("shared");
    let peers: Vec<TcpStream> = (0..40).map(|_| dial(first.addr)).collect();
    story.reactor.close_listener(first.id).expect("open");
    // A short look at each peer: a reset, which is reported once, or nothing yet.
    let is_reset = |peer: &TcpStream| {
        peer.set_nonblocking(true).expect("a socket");
        matches!(peer.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::ConnectionReset)
    };
    // Another test's child that has not called exec(2) yet may have a copy of the listener, and
    // hold the resets back.
    let (began, mut kept, mut unsure) = (Instant::now(), 0, peers.iter().collect::<Vec<_>>());
    while unsure.len() > kept {
        assert!(began.elapsed() < PATIENCE, "{kept} of 40 were accepted, and the others are not reset");
        unsure.retain(|peer| !is_reset(peer));
        story.turn();
        kept = story.reactor.len();
    }
    assert!((1..40).contains(&kept), "{kept} of 40 in the queue of the second");
    for _ in 0..kept {
        let socket = story.connection();
        assert_eq!(story.socket(socket).listener(), Some(second.id));
        story.socket(socket).destroy();
        story.close(socket);
    }
    story.silence(ms(20));
    story.reactor.close_listener(second.id).expect("open");
    story.rest();
}

/// AC10: a connection that the kernel holds back is delivered late, and its silence counts from
/// then.
#[test]
fn a_connection_that_comes_late_has_its_whole_idle_time() {
    let mut scene = Scene::new();
    let options = ListenOptions::default().idle_timeout(2 * SECOND);
    let listener = scene.reactor.listen((HERE, 80), options).expect("a free port");
    let _peer = scene.peer.connect(listener.addr).expect("begun");
    scene.network.advance(Duration::from_micros(2500));
    scene.network.vanish(THERE); // The third step of the handshake is lost; the second is repeated after a second.
    scene.network.advance(ms(10));
    scene.network.heal(THERE);
    scene.run(ms(900));
    assert!(scene.story.is_empty(), "the client is connected, and the reactor has not seen it");
    scene.run(ms(200));
    assert_eq!(std::mem::take(&mut scene.story), ["connection"]);
    scene.run(ms(1800));
    assert!(scene.story.is_empty(), "nearly three seconds after the client began");
    scene.run(ms(300));
    assert_eq!(scene.story, ["timeout"]);
}

/// AC09: dropping the reactor also leaves no client waiting.
#[test]
fn a_dropped_reactor_resets_its_queue() {
    let mut reactor = Reactor::new().expect("a machine with epoll");
    let listener = reactor.listen("127.0.0.1:0", ListenOptions::default()).expect("a port");
    let mut peer = dial(listener.addr);
    drop(reactor);
    assert_eq!(peer.read(&mut [0]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
}
