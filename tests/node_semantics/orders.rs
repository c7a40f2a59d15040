//! Orders of events.

use finale::{ConnectOptions, Event, ListenOptions};

use super::{AT, Pair, SECOND, Who, idle, write};
use support::scene::Scene;

/// A request and its answer, the client ending first.
fn conversation() -> Pair {
    let mut pair = Pair::new(ListenOptions::default(), ConnectOptions::default());
    pair.run(SECOND, |who, socket, event| match (who, event) {
        (Who::C, Event::Ready) => {
            write(socket, b"question");
            socket.end();
        }
        (Who::S, Event::End) => {
            write(socket, b"answer");
            socket.end();
        }
        _ => {}
    });
    pair
}

/// N1: also for an IP literal there is a `lookup`; no attempts, no `finish`.
#[test]
fn n01_a_client_that_ends_first_tells_its_life_in_this_order() {
    assert_eq!(conversation().of(Who::C), ["lookup 10.0.0.1", "connect", "ready", "data answer", "end", "close"]);
}

/// N2: the first event of an accepted socket is `connection`.
#[test]
fn n02_the_server_of_that_connection_tells_no_lookup_connect_or_ready() {
    assert_eq!(conversation().of(Who::S), ["connection", "data question", "end", "close"]);
}

/// N3: a drain that is pending for bytes written before comes after both.
#[test]
fn n03_ready_follows_connect_directly_and_drain_comes_after() {
    let mut pair = Pair::new(ListenOptions::default(), ConnectOptions::default().high_water_mark(4));
    write(&mut pair.client(), b"more than the mark");
    pair.run(SECOND, idle);
    assert_eq!(pair.of(Who::C), ["lookup 10.0.0.1", "connect", "ready", "drain"]);
}

/// N4: every byte, then `end` once.
#[test]
fn n04_data_and_fin_that_arrive_together_are_told_one_after_the_other() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.send(b"all there is");
    peer.finish();
    scene.expect(&["data all there is", "end"]);
}

/// N5: between them events of the other socket may be delivered.
#[test]
fn n05_end_and_close_are_two_steps() {
    let (listen, connect) =
        (ListenOptions::default().allow_half_open(false), ConnectOptions::default().allow_half_open(false));
    let mut pair = Pair::new(listen, connect);
    pair.run(SECOND, |who, socket, event| {
        if (who, event) == (Who::C, &Event::Ready) {
            socket.end();
        }
    });
    let at = |line: &str| pair.lines.iter().position(|told| told == line).unwrap_or_else(|| panic!("no {line}"));
    assert!(at("S end") < at("S close") && at("C end") < at("C close"));
    assert!(at("C end") < at("S close"), "the other's end comes between: {:?}", pair.lines);
}

/// N6: no event of this socket is between them.
#[test]
fn n06_close_is_the_very_next_event_after_error() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.send(b"some");
    peer.reset();
    scene.expect(&["data some", "error reset by the peer", "close"]);
}

/// N7: whether it had a connection or not, and an error or not.
#[test]
fn n07_close_always_carries_a_whole_report() {
    let mut scene = Scene::new();
    scene.reactor.connect(AT, ConnectOptions::default()).expect("a good target");
    scene.run(SECOND);
    let refused = scene.ending.take().expect("delivered");
    assert!(refused.had_error() && refused.peer == Some(AT), "{refused}");
    let pair = conversation();
    assert!(!pair.ending(Who::C).had_error() && pair.ending(Who::C).is_clean());
    let id = scene.reactor.connect(AT, ConnectOptions::default()).expect("a good target");
    scene.reactor.socket(id).expect("it lives").destroy();
    scene.run(SECOND);
    let destroyed = scene.ending.take().expect("delivered");
    assert!(!destroyed.had_error() && destroyed.peer.is_none(), "{destroyed}");
}

/// N8: an event is a value; no listener is needed.
#[test]
fn n08_an_error_that_nobody_looks_at_ends_nothing() {
    let mut pair = Pair::new(ListenOptions::default(), ConnectOptions::default());
    pair.run(SECOND, idle);
    pair.client().destroy();
    pair.run(SECOND, idle);
    assert_eq!(pair.of(Who::S), ["connection", "error reset by the peer", "close"]);
    assert!(pair.reactor.next_before(pair.network.now()).is_ok(), "the reactor continues");
}
