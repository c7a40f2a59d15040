//! Destroying: a reset, and nothing more is delivered.

use std::time::Duration;

use finale::{ConnectOptions, EndingKind, Event, ListenOptions};

use super::{AT, Pair, SECOND, Who, idle, ms, write};
use support::scene::Scene;

/// N28: the server may see a connection that ends by a reset.
#[test]
fn n28_destroyed_before_the_connection_is_up_it_tells_close_alone() {
    let mut scene = Scene::new();
    let id = scene.reactor.connect(AT, ConnectOptions::default()).expect("a good target");
    scene.reactor.socket(id).expect("it lives").destroy();
    scene.expect(&["close"]);
    assert!(!scene.ending.expect("delivered").had_error());
}

/// N29: the two are one pair.
#[test]
fn n29_destroyed_in_connect_it_still_tells_ready() {
    let mut pair = Pair::new(ListenOptions::default(), ConnectOptions::default());
    pair.run(SECOND, |who, socket, event| {
        if (who, event) == (Who::C, &Event::Connect) {
            socket.destroy();
        }
    });
    assert_eq!(pair.of(Who::C), ["lookup 10.0.0.1", "connect", "ready", "close"]);
    assert_eq!(pair.of(Who::S), ["connection", "error reset by the peer", "close"]);
}

/// N31, N35: Node sends a FIN here, unless it is `resetAndDestroy()`.
#[test]
fn n31_destroyed_with_everything_read_it_resets_all_the_same() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.send(b"all of it");
    scene.expect(&["data all of it"]);
    scene.with(|socket| socket.destroy());
    scene.run(SECOND);
    scene.network.advance(ms(10));
    assert!(peer.is_reset() && !peer.has_fin());
    assert_eq!(scene.ending.expect("delivered").kind, EndingKind::Destroyed);
}

/// N32: dropped, and counted as never sent; the peer can't take the cut stream for a complete one.
#[test]
fn n32_destroyed_with_bytes_queued_it_reports_them_as_never_sent() {
    for ended in [false, true] {
        let mut scene = Scene::new();
        scene.network.set_buffers(1000, 1000);
        let peer = scene.serve(ListenOptions::default());
        scene.with(|socket| {
            write(socket, &[0; 50_000]);
            if ended {
                socket.end();
            }
        });
        scene.run(ms(100));
        scene.with(|socket| socket.destroy());
        scene.run(SECOND);
        let ending = scene.ending.take().expect("delivered");
        assert_eq!(ending.bytes_written + ending.bytes_unsent, 50_000);
        assert!(ending.bytes_unsent > 40_000 && !ending.had_error(), "{ending}");
        scene.network.advance(ms(10));
        assert!(peer.is_reset() && !peer.has_fin());
    }
}

/// N33: one `close`.
#[test]
fn n33_destroying_twice_changes_nothing() {
    let (mut scene, _peer) = Scene::served(ListenOptions::default());
    scene.with(|socket| socket.destroy());
    scene.with(|socket| socket.destroy());
    scene.expect(&["close"]);
}

/// N36: at once, without a connection first.
#[test]
fn n36_destroyed_while_connecting_it_does_not_wait_for_the_connection() {
    let mut scene = Scene::new();
    let _listener = scene.peer.listen(AT).expect("a free port");
    let id = scene.reactor.connect(AT, ConnectOptions::default()).expect("a good target");
    scene.run(Duration::ZERO);
    scene.reactor.socket(id).expect("it lives").destroy();
    scene.expect(&["lookup 10.0.0.2", "close"]);
}

/// N96: for any order of the calls.
#[test]
fn n96_after_close_nothing_comes() {
    let mut pair = Pair::new(ListenOptions::default(), ConnectOptions::default());
    pair.client().end();
    pair.client().destroy();
    pair.client().resume();
    pair.run(SECOND, idle);
    pair.run(10 * SECOND, idle);
    assert_eq!(pair.lines, ["C close"]);
}

/// N95: by id, from anywhere in the program; a waker wakes the loop for that.
#[test]
fn n95_a_socket_is_aborted_by_its_id_from_a_woken_loop() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    let id = scene.socket.expect("accepted");
    scene.reactor.waker().wake().expect("it lives");
    let (_, event) = scene.reactor.next().expect("it continues").expect("a wake");
    assert_eq!(event, Event::Woken);
    scene.reactor.socket(id).expect("it lives").destroy();
    scene.expect(&["close"]);
    scene.network.advance(ms(10));
    assert!(peer.is_reset());
}
