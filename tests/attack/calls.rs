//! What the reactor asks of the system: no read in vain, and not too many accepts in a row.

use finale::sim::Network;
use finale::{Event, ListenOptions, OverflowPolicy, Socket};

use rustix::io::Errno;

use support::faulty::{Faulty, faulty_on, faulty_registered};
use support::ms;
use support::scene::HERE;

#[test]
fn a_message_that_is_shorter_than_the_buffer_costs_one_read() {
    let (mut scene, peer, faulty) = faulty_registered(ListenOptions::default());
    for size in 1..=20 {
        peer.send(&[7; 20][..size]);
        scene.run(ms(10));
        assert_eq!(faulty.count("recv"), size);
    }
}

#[test]
fn an_end_that_comes_with_the_last_bytes_costs_one_read_more() {
    let (mut scene, peer, faulty) = faulty_registered(ListenOptions::default());
    peer.send(b"all of it");
    peer.finish();
    scene.run(ms(10));
    assert_eq!(scene.story, ["data all of it", "end"]);
    assert_eq!(faulty.count("recv"), 2);
}

/// How many accepts there were between two polls, where there were any.
fn accepts(faulty: &Faulty) -> Vec<usize> {
    let log = faulty.take_log();
    let turns = log.split(|call| *call == "poll").map(|turn| turn.iter().filter(|call| **call == "accept").count());
    turns.filter(|count| *count > 0).collect()
}

#[test]
fn at_most_sixteen_connections_are_accepted_between_two_polls() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    let options = ListenOptions::default().backlog(100);
    let listeners = [80, 81].map(|port| scene.reactor.listen((HERE, port), options.clone()).expect("a free port"));
    let _peers: Vec<_> = (0..100).map(|n| scene.peer.connect(listeners[n % 2].addr).expect("begun")).collect();
    scene.network.advance(ms(100));
    scene.run(ms(100));
    let accepts = accepts(&faulty);
    assert!(accepts.iter().all(|count| *count <= 16 + listeners.len()), "{accepts:?}");
    assert!(accepts.iter().sum::<usize>() >= 100, "{accepts:?}");
}

#[test]
fn a_socket_reports_its_marks_and_whether_it_fills_a_buffer() {
    let options = ListenOptions::default().high_water_mark(7_000).write_limit(9_000);
    let (mut scene, peer, _) = faulty_registered(options);
    let marks = |socket: &Socket<'_>| (socket.high_water_mark(), socket.write_limit());
    let id = scene.socket.expect("connected");
    let mut socket = scene.reactor.socket(id).expect("open");
    assert_eq!((marks(&socket), socket.is_filling()), ((7_000, 9_000), false));
    socket.fill(Vec::new(), 10).expect("nothing else is read");
    assert!(socket.is_filling());
    peer.send(&[7; 10]);
    let end = scene.network.now() + ms(100);
    let (mut socket, event) = scene.reactor.next_before(end).expect("it continues").expect("an event");
    assert_eq!((event, socket.is_filling()), (Event::Filled, false), "it is full, and was not taken yet");
    assert_eq!(socket.take_filled(), Some(vec![7; 10]));
}

#[test]
fn at_most_sixteen_clients_beyond_a_maximum_are_reset_between_two_polls() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    let options = ListenOptions::default().backlog(100).max_connections(1).overflow_policy(OverflowPolicy::Reset);
    let listener = scene.reactor.listen((HERE, 80), options).expect("a free port");
    let _peers: Vec<_> = (0..100).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    scene.network.advance(ms(100));
    scene.run(ms(100));
    let accepts = accepts(&faulty);
    assert!(accepts.iter().all(|count| *count <= 16 + 1) && accepts.iter().sum::<usize>() >= 100, "{accepts:?}");
}

/// Only failures in a row are a reason to pause, and between these a client was accepted and reset.
#[test]
fn clients_beyond_a_maximum_are_no_failures_of_accept() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    let options = ListenOptions::default().max_connections(0).overflow_policy(OverflowPolicy::Reset);
    let listener = scene.reactor.listen((HERE, 80), options).expect("a free port");
    for _ in 0..100 {
        faulty.once("accept", Errno::CONNABORTED);
        let _peer = scene.peer.connect(listener.addr).expect("begun");
        scene.run(ms(10));
    }
    assert_eq!(scene.story, ["dropped 10.0.0.2"; 100]);
}

#[test]
fn a_connection_that_the_system_refuses_to_watch_fails_and_is_not_tried_again() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    faulty.always("register", Errno::PERM);
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let _peer = scene.peer.connect(listener.addr).expect("begun");
    scene.run(ms(100));
    assert_eq!(faulty.failures("register"), 1);
    assert!(matches!(&*scene.story, [_, error, close] if error.starts_with("error") && close == "close"));
}
