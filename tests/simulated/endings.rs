//! Endings that plain loopback can't show, each provoked on the simulated network: lost
//! acknowledgements, lost machines, resets between two looks, lookups that hang.

use std::time::Duration;

use finale::{ConnectOptions, ConnectionErrorKind, EndingKind, FirstFin, KeepAlive, ListenOptions, TimeoutKind};
use support::scene::{Scene, THERE};

#[test]
fn a_confirmed_close_waits_for_the_peers_kernel_to_acknowledge() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.answer_into_the_void(&peer);
    scene.expect(&[]); // Both directions are shut down, and epoll reports it; nothing is acknowledged.
    scene.network.heal(THERE);
    scene.run(Duration::from_secs(5));
    assert_eq!(scene.story, ["close"]);
    assert_eq!(scene.how(), &EndingKind::Confirmed);
    assert_eq!(peer.read(), b"answer");
    assert_eq!(scene.ending.expect("delivered").first_fin, FirstFin::Peer);
}

#[test]
fn a_handed_off_close_does_not_wait() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().close_mode(finale::CloseMode::HandOff));
    peer.finish();
    scene.expect(&["end"]);
    scene.network.vanish(THERE);
    scene.with(|socket| socket.end());
    scene.expect(&["close"]);
    assert_eq!(scene.how(), &EndingKind::HandedOff);
}

#[test]
fn a_write_into_a_reset_tells_the_waiting_bytes_first_and_no_end() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.send(b"last words");
    peer.reset();
    // It has arrived, and the reactor has not looked: our write takes the error.
    scene.network.advance(Duration::from_millis(100));
    scene.with(|socket| {
        socket.write(b"too late").expect("not known yet");
    });
    scene.expect(&["data last words", "error reset by the peer", "close"]);
    assert_eq!(scene.ending.expect("delivered").bytes_unsent, 8);
}

#[test]
fn a_half_closed_peer_that_stays_silent_does_not_stay_for_ever() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().half_closed_timeout(Duration::from_secs(9)));
    scene.with(|socket| socket.end()); // The peer never ends.
    scene.run(Duration::from_secs(5));
    peer.send(b"x"); // A byte restarts the time.
    scene.run(Duration::from_secs(8));
    assert_eq!(std::mem::take(&mut scene.story), ["data x"]);
    scene.run(Duration::from_secs(2));
    assert_eq!(scene.story, ["error timed out: half-closed and silent", "close"]);
    scene.network.advance(Duration::from_millis(10));
    assert!(peer.is_reset(), "the peer gets a reset when we give up");
}

#[test]
fn discarding_lingers_for_its_time_and_no_longer_though_the_peer_drips() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().close_timeout(Duration::from_secs(5)));
    scene.with(|socket| {
        socket.write(b"goodbye").expect("open");
        socket.end();
        socket.discard();
    });
    for _ in 0..12 {
        peer.send(b"and another thing");
        scene.run(Duration::from_millis(500));
    }
    assert_eq!(scene.story, ["error timed out: the end was not completed in time", "close"]);
    assert_eq!(peer.read(), b"goodbye");
}

#[test]
fn a_flood_from_a_peer_that_takes_nothing_does_not_put_off_the_end() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().close_timeout(Duration::from_secs(3)));
    scene.with(|socket| {
        socket.write(&vec![0; 8 << 20]).expect("below the limit");
        socket.end();
    });
    for _ in 0..100 {
        peer.send(&[b'x'; 200_000]); // More than one read, every time.
        scene.run(Duration::from_millis(50));
    }
    scene.story.retain(|line| !line.starts_with("data"));
    assert_eq!(scene.story, ["error timed out: the end was not completed in time", "close"]);
}

#[test]
fn a_socket_destroyed_as_its_lookup_fails_tells_close_alone() {
    let mut scene = Scene::new();
    let id = scene.reactor.connect("nobody:80", ConnectOptions::default()).expect("a good target");
    scene.run(Duration::ZERO); // The resolver has the request.
    scene.network.advance(Duration::from_secs(60)); // The result waits.
    scene.reactor.socket(id).expect("it lives").destroy();
    scene.expect(&["close"]);
    assert_eq!(scene.how(), &EndingKind::Destroyed);
}

#[test]
fn a_reset_behind_a_pause_is_told_as_what_it_is_when_the_limit_comes() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().half_closed_timeout(Duration::from_secs(5)));
    scene.with(|socket| socket.pause());
    peer.send(b"unread");
    peer.reset();
    for _ in 0..10 {
        scene.run(Duration::from_millis(500));
        let id = scene.socket.expect("delivered");
        if let Some(mut socket) = scene.reactor.socket(id) {
            let _ = socket.write(b"ping"); // Writing does not postpone the limit either.
        }
    }
    scene.run(Duration::from_secs(2));
    assert_eq!(scene.story, ["peerended(reset)", "error reset by the peer", "close"]);
}

#[test]
fn a_timeout_is_told_once_in_a_silence_though_we_end_in_it() {
    let (mut scene, _peer) = Scene::served(ListenOptions::default().idle_timeout(Duration::from_secs(2)));
    scene.run(Duration::from_secs(3));
    assert_eq!(std::mem::take(&mut scene.story), ["timeout"]);
    scene.with(|socket| socket.end());
    scene.run(Duration::from_secs(10));
    assert!(scene.story.is_empty(), "{:?}", scene.story);
}

#[test]
fn an_upload_is_no_silence_though_our_answer_does_not_move() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().idle_timeout(Duration::from_secs(2)));
    scene.with(|socket| {
        socket.write(&vec![0; 8 << 20]).expect("below the limit");
        socket.end();
    });
    for _ in 0..20 {
        peer.send(b"more");
        scene.run(Duration::from_millis(500));
    }
    assert!(scene.story.iter().all(|line| line.starts_with("data")), "{:?}", scene.story);
}

#[test]
fn what_a_connection_died_of_is_told_though_we_notice_by_ending() {
    let times = KeepAlive { idle: Duration::from_secs(5), interval: Duration::from_secs(1), count: 3 };
    let (mut scene, _peer) = Scene::served(ListenOptions::default().keep_alive(times));
    scene.network.vanish(THERE);
    scene.network.advance(Duration::from_secs(20));
    scene.with(|socket| socket.end());
    scene.run(Duration::from_secs(1));
    assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::Kernel));
}

#[test]
fn asking_for_a_silence_again_and_again_puts_the_half_closed_limit_off_by_nothing() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().half_closed_timeout(Duration::from_secs(3)));
    peer.finish();
    scene.expect(&["end"]);
    for _ in 0..2 {
        scene.with(|socket| socket.set_idle_timeout(Duration::from_secs(60)));
        scene.expect(&[]);
    }
    scene.expect(&["error timed out: half-closed and silent", "close"]);
}

#[test]
fn discarding_twice_lingers_no_longer_than_once() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().close_timeout(Duration::from_secs(3)));
    scene.expect(&[]);
    scene.with(|socket| {
        socket.end();
        socket.discard();
    });
    scene.expect(&[]);
    for _ in 0..2 {
        scene.with(|socket| socket.discard());
        scene.run(Duration::from_millis(900));
    }
    scene.expect(&["error timed out: the end was not completed in time", "close"]);
    drop(peer);
}

#[test]
fn a_reset_with_nothing_unread_is_delivered_as_the_error_without_a_notice() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().notify_peer_ended(true));
    scene.expect(&[]);
    peer.reset();
    scene.expect(&["error reset by the peer", "close"]);
}

#[test]
fn lingering_counts_from_discard_though_a_silence_was_asked_for_before() {
    let (mut scene, _peer) = Scene::served(ListenOptions::default().close_timeout(Duration::from_secs(5)));
    scene.expect(&[]);
    scene.with(|socket| socket.end());
    scene.run(Duration::from_secs(10));
    scene.with(|socket| socket.set_idle_timeout(Duration::from_secs(3600)));
    scene.run(Duration::from_secs(10));
    scene.with(|socket| socket.discard());
    scene.run(Duration::from_secs(4));
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    scene.run(Duration::from_secs(2));
    assert_eq!(scene.story, ["error timed out: the end was not completed in time", "close"]);
}

#[test]
fn the_half_closed_limit_counts_from_their_fin_though_a_silence_was_asked_for_before() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().half_closed_timeout(Duration::from_secs(30)));
    scene.expect(&[]);
    scene.with(|socket| {
        socket.end();
        socket.pause();
    });
    scene.run(Duration::from_secs(10));
    scene.with(|socket| socket.set_idle_timeout(None));
    scene.run(Duration::from_secs(10));
    peer.finish();
    scene.run(Duration::from_secs(25));
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    scene.run(Duration::from_secs(6));
    assert_eq!(scene.story, ["error timed out: half-closed and silent", "close"]);
}
