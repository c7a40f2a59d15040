//! The peer's reset, and a peer that vanishes.

use finale::{ConnectOptions, ConnectionErrorKind, KeepAlive, ListenOptions, TimeoutKind};

use super::{Pair, SECOND, Who, idle, ms, write};
use support::scene::{Scene, THERE};

/// N50: never `end`; the address is in the error and in the close.
#[test]
fn n50_a_reset_of_an_idle_socket_is_error_and_close_and_no_end() {
    let mut pair = Pair::new(ListenOptions::default(), ConnectOptions::default());
    pair.run(SECOND, idle);
    pair.client().destroy();
    let mut peers = Vec::new();
    pair.run(SECOND, |who, socket, _| {
        if who == Who::S {
            peers.push(socket.peer_addr().is_some());
        }
    });
    assert_eq!(pair.of(Who::S), ["connection", "error reset by the peer", "close"]);
    assert_eq!(peers, [true, true]);
}

/// N51: in Node this is a clean end.
#[test]
fn n51_data_with_a_reset_behind_it_is_data_and_then_an_error() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.send(b"cut o");
    peer.reset();
    scene.network.advance(ms(50));
    scene.expect(&["data cut o", "error reset by the peer", "close"]);
}

/// N52: the bytes that were never sent are counted.
#[test]
fn n52_a_reset_during_a_large_write_reports_what_was_never_sent() {
    let mut scene = Scene::new();
    scene.network.set_buffers(1000, 1000);
    let peer = scene.serve(ListenOptions::default());
    scene.with(|socket| write(socket, &[0; 50_000]));
    scene.run(ms(100));
    peer.reset();
    scene.expect(&["error reset by the peer", "close"]);
    assert!(scene.ending.expect("delivered").bytes_unsent > 40_000);
}

/// N53: we had ended and waited for the peer's answer.
#[test]
fn n53_a_reset_after_our_end_is_an_error() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.with(|socket| socket.end());
    scene.run(SECOND);
    peer.reset();
    scene.expect(&["error reset by the peer", "close"]);
}

/// N54: Node no longer looks there.
#[test]
fn n54_a_reset_after_their_fin_is_told_without_a_write() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.finish();
    scene.expect(&["end"]);
    peer.reset();
    scene.expect(&["error reset by the peer", "close"]);
}

/// N55: nothing precedes it.
#[test]
fn n55_a_reset_of_a_paused_socket_with_nothing_unread_is_told_at_once() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().start_paused(true));
    scene.run(ms(10));
    peer.reset();
    scene.expect(&["error reset by the peer", "close"]);
}

/// N60: each of the three has its own ending.
#[test]
fn n60_a_cable_that_is_cut_shows_by_keep_alive_user_timeout_or_an_idle_time() {
    let (mut scene, _peer) = Scene::served(ListenOptions::default());
    scene.network.vanish(THERE);
    scene.run(24 * 3600 * SECOND);
    assert!(scene.story.is_empty(), "without any of them nothing is ever delivered");

    let (mut scene, _peer) = Scene::served(ListenOptions::default().keep_alive(KeepAlive::after(5 * SECOND)));
    scene.network.vanish(THERE);
    scene.run(120 * SECOND);
    assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::Kernel));

    let (mut scene, _peer) = Scene::served(ListenOptions::default().user_timeout(5 * SECOND));
    scene.network.vanish(THERE);
    scene.with(|socket| write(socket, b"into the void"));
    scene.run(30 * SECOND);
    assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::Kernel));

    let (mut scene, _peer) = Scene::served(ListenOptions::default().idle_timeout(5 * SECOND));
    scene.network.vanish(THERE);
    scene.run(6 * SECOND);
    assert_eq!(scene.story, ["timeout"]);
}
