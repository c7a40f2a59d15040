//! Connecting, and the addresses of names.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use finale::sim::{PeerListener, Reach};
use finale::{ConnectOptions, ConnectionErrorKind, Error, Event, ListenOptions, TimeoutKind};

use super::{AT, Pair, SECOND, Who, idle, ms, write};
use support::scene::{HERE, Scene, THERE};

fn dead(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 9, 0, last))
}

/// N10: never as a return value of the connect call.
#[test]
fn n10_a_network_without_a_way_is_told_as_an_event_with_its_errno() {
    let mut scene = Scene::new();
    scene.network.set_reach(THERE, Reach::NoRoute);
    scene.reactor.connect(AT, ConnectOptions::default()).expect("the call itself succeeds");
    scene.run(SECOND);
    assert_eq!(scene.cause(), ConnectionErrorKind::Unreachable);
    assert!(scene.story[1].contains("os error 101"), "{:?}", scene.story);
}

/// N11: the kernel gives up after some two minutes, and that has a kind of its own.
#[test]
fn n11_a_syn_that_is_never_answered_fails_when_the_kernel_gives_up() {
    let mut scene = Scene::new();
    scene.network.set_reach(THERE, Reach::BlackHole);
    scene.reactor.connect(AT, ConnectOptions::default().connect_timeout(None)).expect("a good target");
    scene.run(120 * SECOND);
    assert_eq!(scene.story, ["lookup 10.0.0.2"]);
    scene.run(20 * SECOND);
    assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::Kernel));
}

/// N12: the connect timeout ends it; the idle time does not run before the connection is
/// established.
#[test]
fn n12_the_connect_timer_ends_the_socket_and_no_timeout_is_told() {
    let mut scene = Scene::new();
    scene.network.set_reach(THERE, Reach::BlackHole);
    let options = ConnectOptions::default().connect_timeout(5 * SECOND).idle_timeout(SECOND);
    scene.reactor.connect(AT, options).expect("a good target");
    scene.run(6 * SECOND);
    let error = "error timed out: not connected in time [10.0.0.2:80]";
    assert_eq!(scene.story, ["lookup 10.0.0.2", error, "close"]);
}

/// N15: text is a host and a port, or it is refused; port 0 is refused.
#[test]
fn n15_a_bad_port_is_refused_and_port_0_is_an_error_of_the_socket() {
    let mut scene = Scene::new();
    for text in ["10.0.0.2:-1", "10.0.0.2:65536", "10.0.0.2:http", "10.0.0.2", "10.0.0.2:"] {
        assert!(
            matches!(scene.reactor.connect(text, ConnectOptions::default()), Err(Error::InvalidAddress(_))),
            "{text}"
        );
    }
    scene.reactor.connect((THERE, 0), ConnectOptions::default()).expect("an address");
    scene.run(SECOND);
    assert_eq!(scene.cause(), ConnectionErrorKind::Refused);
}

/// N16: a second connection is a second socket.
#[test]
fn n16_one_id_has_one_life() {
    let mut scene = Scene::new();
    let first = scene.reactor.connect(AT, ConnectOptions::default()).expect("a good target");
    scene.run(SECOND);
    let second = scene.reactor.connect(AT, ConnectOptions::default()).expect("a good target");
    assert!(first != second && scene.reactor.socket(first).is_none());
    scene.run(SECOND);
    assert_eq!(scene.story.iter().filter(|line| *line == "close").count(), 2);
}

/// N17: it is used; an address that is taken is an event, too.
#[test]
fn n17_a_local_address_is_used_and_a_taken_one_is_an_error() {
    let mut scene = Scene::new();
    let _listener = scene.peer.listen(AT).expect("a free port");
    let local = SocketAddr::new(HERE, 5000);
    let id = scene.reactor.connect(AT, ConnectOptions::default().local_addr(local)).expect("a good target");
    scene.run(SECOND);
    assert_eq!(scene.reactor.local_addr(id), Some(local));
    scene.reactor.connect(AT, ConnectOptions::default().local_addr(local)).expect("a good target");
    scene.run(SECOND);
    assert_eq!(scene.cause(), ConnectionErrorKind::NoLocalAddress);
}

/// N18: each once, families in turn, all before `connect`.
#[test]
fn n18_every_distinct_address_is_told_once_before_connect() {
    let mut scene = Scene::new();
    let v6: IpAddr = "fd00::9".parse().expect("an address");
    scene.network.name("host.example", vec![THERE, THERE, dead(1), v6]);
    let _listener = scene.peer.listen(AT).expect("a free port");
    scene.reactor.connect(("host.example", 80), ConnectOptions::default()).expect("a good target");
    scene.expect(&["lookup 10.0.0.2", "lookup fd00::9", "lookup 10.9.0.1", "connect", "ready"]);
}

/// A name whose first address takes `slow` for its handshake and whose second takes a millisecond.
/// Returns the events up to then.
fn race(slow: Duration, until: Duration) -> (Scene, PeerListener, PeerListener) {
    let mut scene = Scene::new();
    let far = dead(7);
    scene.network.set_delay(far, slow);
    scene.network.name("host.example", vec![far, THERE]);
    let listen = |ip| scene.network.peer(ip).listen(SocketAddr::new(ip, 80)).expect("a free port");
    let (first, second) = (listen(far), listen(THERE));
    scene.reactor.connect(("host.example", 80), ConnectOptions::default()).expect("a good target");
    scene.run(until);
    (scene, first, second)
}

/// N21: it stays in the race, and may still be established first.
#[test]
fn n21_the_slow_attempt_goes_on_and_is_kept_if_it_is_the_first_to_be_there() {
    let (mut scene, first, second) = race(ms(260), ms(600));
    assert_eq!(scene.story, ["lookup 10.9.0.7", "lookup 10.0.0.2", "connect", "ready"]);
    scene.with(|socket| assert_eq!(socket.peer_addr(), Some(AT), "520 ms against 250 and 2"));
    assert!(first.accept().is_none() && second.accept().is_some());
    let (mut scene, first, second) = race(Duration::from_micros(124_500), ms(600));
    assert_eq!(scene.story, ["lookup 10.9.0.7", "lookup 10.0.0.2", "connect", "ready"]);
    scene
        .with(|socket| assert_eq!(socket.peer_addr().map(|peer| peer.ip()), Some(dead(7)), "251 ms against 250 and 2"));
    assert!(first.accept().is_some() && second.accept().is_none());
}

/// N22: over all addresses.
#[test]
fn n22_the_connect_timer_covers_every_address() {
    let mut scene = Scene::new();
    for last in [1, 2] {
        scene.network.set_reach(dead(last), Reach::BlackHole);
    }
    scene.network.name("host.example", vec![dead(1), dead(2)]);
    let options = ConnectOptions::default().connect_timeout(6 * SECOND);
    scene.reactor.connect(("host.example", 80), options).expect("a good target");
    scene.run(6 * SECOND - ms(1));
    assert_eq!(scene.story.len(), 2, "{:?}", scene.story);
    scene.run(ms(2));
    assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::Connect));
}

/// N23: Node's message is empty here.
#[test]
fn n23_when_all_addresses_fail_the_error_names_each_with_its_reason() {
    let mut scene = Scene::new();
    scene.network.set_reach(dead(1), Reach::NoRoute);
    scene.network.name("host.example", vec![dead(1), THERE]);
    scene.reactor.connect(("host.example", 80), ConnectOptions::default()).expect("a good target");
    scene.run(SECOND);
    let error = scene.story.iter().find(|line| line.starts_with("error")).expect("it fails");
    assert!(error.contains("10.9.0.1:80: unreachable") && error.contains("10.0.0.2:80: refused"), "{error}");
    assert_eq!(scene.cause(), ConnectionErrorKind::Unreachable, "the first failure names the whole");
}

/// N24: bytes and FIN are sent when the connection is established.
#[test]
fn n24_end_before_the_connection_is_up_sends_what_was_written_and_a_fin() {
    let mut pair = Pair::new(ListenOptions::default(), ConnectOptions::default());
    write(&mut pair.client(), b"early");
    pair.client().end();
    pair.run(SECOND, idle);
    assert_eq!(pair.of(Who::S), ["connection", "data early", "end"]);
}

/// N26: the queue contains them at once; written is what the kernel took; `drain` after `ready`.
#[test]
fn n26_bytes_written_before_connect_are_queued_and_counted_as_that() {
    let mut pair = Pair::new(ListenOptions::default(), ConnectOptions::default().high_water_mark(5));
    write(&mut pair.client(), b"12345");
    assert_eq!((pair.client().queued_bytes(), pair.client().bytes_written()), (5, 0));
    pair.run(SECOND, |who, socket, event| {
        if (who, event) == (Who::C, &Event::Drain) {
            assert_eq!((socket.queued_bytes(), socket.bytes_written()), (0, 5));
        }
    });
    assert_eq!(pair.of(Who::C)[2..], ["ready", "drain"]);
}

/// N27: the report counts them.
#[test]
fn n27_bytes_written_before_a_refusal_are_reported_as_never_sent() {
    let mut scene = Scene::new();
    let id = scene.reactor.connect(AT, ConnectOptions::default()).expect("a good target");
    write(&mut scene.reactor.socket(id).expect("it lives"), b"12345");
    scene.run(SECOND);
    let ending = scene.ending.expect("delivered");
    assert_eq!((ending.bytes_written, ending.bytes_unsent), (0, 5));
}
