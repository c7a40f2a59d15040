//! Servers.

use std::net::{IpAddr, SocketAddr};

use finale::{Error, ListenOptions, StopOptions};

use super::{SECOND, ms};
use support::scene::{HERE, Scene};

/// N84: at once, without an event.
#[test]
fn n84_listen_returns_the_bound_address() {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 0), ListenOptions::default()).expect("a free port");
    assert!(listener.addr.ip().is_some_and(|addr| addr.port() != 0 && addr.ip() == HERE));
    scene.expect(&[]);
}

/// N85: the call returns an error.
#[test]
fn n85_a_port_in_use_and_an_address_of_others_are_refused_by_listen() {
    let mut scene = Scene::new();
    let _first = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    for addr in [SocketAddr::new(HERE, 80), "10.99.0.1:80".parse().expect("an address")] {
        let refused = scene.reactor.listen(addr, ListenOptions::default()).expect_err("taken, or not ours");
        assert!(matches!(refused, Error::Listen { .. }), "{refused}");
    }
}

/// N86: each is a listener of its own.
#[test]
fn n86_listening_twice_makes_two_listeners() {
    let mut scene = Scene::new();
    let one = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let two = scene.reactor.listen((HERE, 81), ListenOptions::default()).expect("a free port");
    assert_ne!(one.id, two.id);
}

/// N88: no event for it.
#[test]
fn n88_closing_a_listener_twice_is_an_error_value() {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    scene.reactor.close_listener(listener.id).expect("open");
    assert_eq!(scene.reactor.close_listener(listener.id), Err(Error::Gone));
    scene.expect(&[]);
}

/// N89: another id.
#[test]
fn n89_a_port_can_be_listened_on_again() {
    let mut scene = Scene::new();
    let first = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    scene.reactor.close_listener(first.id).expect("open");
    let second = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("free again");
    assert_ne!(first.id, second.id);
}

/// N90: reset by `close_listener`, served by `stop_listener`.
#[test]
fn n90_clients_in_the_backlog_are_reset_by_closing_and_served_by_stopping() {
    for stop in [false, true] {
        let mut scene = Scene::new();
        let listener = scene.reactor.listen((HERE, 80), ListenOptions::default().backlog(10)).expect("a free port");
        let peers: Vec<_> = (0..3).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
        scene.network.advance(ms(10));
        match stop {
            true => scene.reactor.stop_listener(listener.id, StopOptions::default()).expect("open"),
            false => scene.reactor.close_listener(listener.id).expect("open"),
        }
        scene.run(ms(10));
        scene.network.advance(ms(10));
        assert_eq!(scene.story.iter().filter(|line| *line == "connection").count(), if stop { 3 } else { 0 });
        assert!(peers.iter().all(|peer| peer.is_reset() != stop));
    }
}

/// N93: an explicit option; mapped addresses are delivered as IPv4 addresses.
#[test]
fn n93_ipv6_only_leaves_the_ipv4_port_free() {
    let any: IpAddr = "::".parse().expect("an address");
    let mut scene = Scene::new();
    scene.reactor.listen((any, 80), ListenOptions::default().ipv6_only(true)).expect("a free port");
    let client = scene.peer.connect(SocketAddr::new(HERE, 80)).expect("begun");
    scene.expect(&[]);
    assert!(client.is_reset(), "IPv4 clients are refused");
    scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("the IPv4 port is free");

    let mut scene = Scene::new();
    scene.reactor.listen((any, 80), ListenOptions::default()).expect("a free port");
    let _client = scene.peer.connect(SocketAddr::new(HERE, 80)).expect("begun");
    scene.expect(&["connection"]);
    let mut peer = None;
    scene.with(|socket| peer = socket.peer_addr());
    assert!(peer.is_some_and(|peer| peer.is_ipv4()), "{peer:?}");
}

/// N94: several reactors share a port, if all request it.
#[test]
fn n94_two_listeners_share_a_port_only_if_both_say_so() {
    let mut scene = Scene::new();
    let shared = || ListenOptions::default().reuse_port(true);
    scene.reactor.listen((HERE, 80), shared()).expect("a free port");
    scene.reactor.listen((HERE, 80), shared()).expect("shared");
    assert!(scene.reactor.listen((HERE, 80), ListenOptions::default()).is_err());
}

/// N98: stop, let idle ones end, destroy the rest at the limit.
#[test]
fn n98_a_graceful_stop_ends_idle_connections_and_lets_busy_ones_finish() {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let (idle, busy) =
        (scene.peer.connect(listener.addr).expect("begun"), scene.peer.connect(listener.addr).expect("begun"));
    scene.run(SECOND);
    busy.send(b"a request");
    scene.run(SECOND);
    scene.reactor.stop_listener(listener.id, StopOptions::default().limit(20 * SECOND)).expect("open");
    scene.run(5 * SECOND);
    assert!(idle.has_fin() && !busy.has_fin());
    scene.run(20 * SECOND);
    scene.network.advance(ms(10));
    assert!(busy.is_reset());
    assert_eq!(scene.story.last().map(String::as_str), Some("listener closed"));
}
