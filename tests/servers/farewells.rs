//! What a stop does to a socket whose program has a last message: it gets a `timeout` at the end of
//! the grace, when the peer waits for nothing, and only then.

use std::time::Duration;

use finale::sim::PeerSocket;
use finale::{ListenOptions, Listener, StopOptions};
use support::ms;
use support::scene::{HERE, Scene};

const SECOND: Duration = Duration::from_secs(1);

/// A socket whose program says farewell, and whose listener has stopped, with a grace of a second.
fn stopped() -> (Scene, PeerSocket) {
    let (mut scene, listener, peer) = connected();
    scene.with(|socket| socket.set_farewell(true));
    stop(&mut scene, listener);
    (scene, peer)
}

fn connected() -> (Scene, Listener, PeerSocket) {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let peer = scene.peer.connect(listener.addr).expect("begun");
    scene.expect(&["connection"]);
    (scene, listener, peer)
}

fn stop(scene: &mut Scene, listener: Listener) {
    scene.reactor.stop_listener(listener.id, StopOptions::default().grace(SECOND).limit(60 * SECOND)).expect("open");
}

/// Nothing happens before this time, and then this.
#[track_caller]
fn expect_after(scene: &mut Scene, time: Duration, line: &str) {
    scene.run(time - ms(20));
    assert!(scene.story.is_empty(), "too early: {:?}", scene.story);
    scene.run(ms(40));
    assert_eq!(std::mem::take(&mut scene.story), [line]);
}

#[test]
fn a_peer_whose_bytes_need_no_answer_has_the_grace_from_then() {
    let (mut scene, peer) = stopped();
    scene.run(ms(500));
    peer.send(b"ping");
    scene.run(2 * SECOND);
    assert_eq!(std::mem::take(&mut scene.story), ["data ping"], "it is taken for a request");
    scene.with(|socket| socket.set_answered());
    expect_after(&mut scene, SECOND, "timeout");
}

#[test]
fn a_program_that_says_again_and_again_that_all_is_answered_does_not_put_off_the_grace() {
    let (mut scene, _peer) = stopped();
    for _ in 0..4 {
        scene.run(ms(240));
        scene.with(|socket| socket.set_answered());
    }
    expect_after(&mut scene, ms(40), "timeout");
}

#[test]
fn a_farewell_that_is_postponed_comes_again_one_grace_after_the_answer() {
    let (mut scene, peer) = stopped();
    expect_after(&mut scene, SECOND, "timeout");
    scene.with(|socket| socket.postpone_farewell());
    for _ in 0..5 {
        scene.run(SECOND);
        // Whatever has the deadline filed again.
        scene.with(|socket| socket.set_allow_half_open(true));
    }
    assert!(scene.story.is_empty(), "the peer waits: {:?}", scene.story);
    scene.with(|socket| {
        assert!(!socket.is_farewell_due());
        socket.write(b"answer").expect("open");
    });
    expect_after(&mut scene, SECOND, "timeout");
    assert!(peer.read() == b"answer" && !peer.has_fin());
}

#[test]
fn a_farewell_comes_once_whatever_the_program_sets_after_it() {
    for on in [true, false] {
        let (mut scene, peer) = stopped();
        expect_after(&mut scene, SECOND, "timeout");
        scene.with(|socket| socket.set_farewell(on));
        peer.send(b"more");
        scene.run(SECOND);
        scene.with(|socket| {
            assert!(socket.is_farewell_due());
            socket.write(b"answer").expect("open");
        });
        scene.run(10 * SECOND);
        assert_eq!(scene.story, ["data more"]);
        assert!(!peer.has_fin());
    }
}

#[test]
fn a_farewell_that_is_not_due_can_not_be_postponed() {
    let (mut scene, peer) = stopped();
    scene.run(ms(500));
    scene.with(|socket| socket.postpone_farewell());
    expect_after(&mut scene, ms(500), "timeout");
    assert!(!peer.has_fin());

    let (mut scene, listener, peer) = connected();
    stop(&mut scene, listener);
    scene.with(|socket| socket.postpone_farewell());
    scene.run(SECOND + ms(40));
    assert!(scene.story.is_empty() && peer.has_fin(), "a program without a last message: {:?}", scene.story);
}
