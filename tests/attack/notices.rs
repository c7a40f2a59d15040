//! A dead connection with unread bytes that the program has paused for its own reason: the bytes
//! can still be read, and `peer-ended` reports the reset even without `notify_peer_ended`. A FIN is
//! reported only with that option.

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use finale::sim::Network;
use finale::{Backpressure, ConnectionErrorKind, Event, ListenOptions, PeerEnd, Reactor, SocketId, TimeoutKind};

use support::scene::{HERE, Scene, THERE};
use support::{PATIENCE, Transcript, ms, reset};

const SECOND: Duration = Duration::from_secs(1);

fn paused() -> ListenOptions {
    ListenOptions::default().start_paused(true)
}

// --- a reset ---

#[test]
fn a_reset_after_unread_bytes_is_delivered_without_early_notice_and_the_bytes_stay_readable() {
    for notify_peer_ended in [false, true] {
        let (mut scene, peer) = Scene::served(paused().notify_peer_ended(notify_peer_ended));
        peer.send(b"unread");
        scene.expect(&[]);
        peer.reset();
        scene.expect(&["peerended(reset)"]);
        scene.with(|socket| assert!(socket.peer_ended() && socket.is_paused() && socket.bytes_read() == 0));
        scene.run(60 * SECOND);
        assert!(scene.story.is_empty(), "once, and nothing more: {:?}", scene.story);
        scene.with(|socket| socket.resume());
        scene.expect(&["data unread", "error reset by the peer", "close"]);
        assert_eq!(scene.cause(), ConnectionErrorKind::Reset);
        scene.rest();
    }
}

#[test]
fn a_reset_after_unread_bytes_is_delivered_though_our_queue_waits() {
    let mut scene = Scene::new();
    scene.network.set_buffers(1000, 1000);
    let peer = scene.serve(paused());
    peer.send(b"unread");
    scene.with(|socket| drop(socket.write(&[b'x'; 10_000])));
    scene.expect(&[]);
    peer.reset();
    scene.expect(&["peerended(reset)"]);
    scene.with(|socket| socket.resume());
    scene.expect(&["data unread", "error reset by the peer", "close"]);
    let ending = scene.ending.as_ref().expect("closed");
    assert_eq!((ending.bytes_read, ending.bytes_written + ending.bytes_unsent), (6, 10_000), "{ending}");
    scene.rest();
}

/// Its queue was full too: a `drain` may be delivered for that, and resumes nothing here.
#[test]
fn a_reset_after_unread_bytes_is_delivered_though_our_queue_was_full() {
    let mut scene = Scene::new();
    scene.network.set_buffers(1000, 1000);
    let peer = scene.serve(paused().high_water_mark(1000));
    peer.send(b"unread");
    scene.with(|socket| assert_eq!(socket.write(&[b'x'; 10_000]), Ok(Backpressure::Full)));
    scene.expect(&[]);
    peer.reset();
    scene.run(SECOND);
    scene.story.retain(|line| line != "drain");
    scene.expect(&["peerended(reset)"]);
    scene.with(|socket| socket.resume());
    scene.expect(&["data unread", "error reset by the peer", "close"]);
    scene.rest();
}

/// A write finds the reset before any flag is reported.
#[test]
fn a_write_into_a_reset_over_unread_bytes_is_delivered_likewise() {
    let (mut scene, peer) = Scene::served(paused());
    peer.send(b"unread");
    scene.expect(&[]);
    peer.reset();
    scene.network.advance(ms(5));
    scene.with(|socket| {
        socket.write(b"into the void").expect("the reset is not known yet");
        socket.end();
    });
    scene.expect(&["peerended(reset)"]);
    scene.with(|socket| socket.resume());
    scene.expect(&["data unread", "error reset by the peer", "close"]);
    scene.rest();
}

#[test]
fn a_lost_peer_of_a_paused_connection_is_reported_without_early_notice() {
    let (mut scene, peer) = Scene::served(paused().user_timeout(5 * SECOND));
    peer.send(b"unread");
    scene.expect(&[]);
    scene.network.vanish(THERE);
    scene.with(|socket| drop(socket.write(b"hello?")));
    scene.run(10 * SECOND);
    assert!(scene.story.len() == 1 && scene.story[0].starts_with("peerended"), "{:?}", scene.story);
    scene.story.clear();
    scene.with(|socket| socket.resume());
    scene.run(SECOND);
    assert_eq!(scene.story[0], "data unread");
    assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::Kernel));
}

/// A program may resume reading as soon as it has the notice.
#[test]
fn a_program_that_resumes_when_the_reset_is_delivered_is_done_at_once() {
    let network = Network::new(7);
    let mut reactor = Reactor::with_net(network.host(HERE));
    let listener = reactor.listen((HERE, 80), paused()).expect("a free port");
    let peer = network.peer(THERE).connect(listener.addr).expect("begun");
    peer.send(b"unread");
    network.advance(SECOND);
    let mut peer = Some(peer);
    let mut lines = Vec::new();
    while let Some((mut socket, event)) = reactor.next_before(network.now() + SECOND).expect("it continues") {
        match event {
            Event::Connection => peer.take().expect("one").reset(),
            Event::PeerEnded(PeerEnd::Reset) => socket.resume(),
            Event::Data(bytes) => lines.push(format!("data {}", String::from_utf8_lossy(bytes))),
            other => lines.push(format!("{other:?}").chars().take(5).collect()),
        }
    }
    assert_eq!(lines, ["data unread", "Error", "Close"]);
}

#[test]
fn a_reset_that_is_never_read_ends_with_its_own_cause_at_the_half_closed_limit() {
    let (mut scene, peer) = Scene::served(paused().half_closed_timeout(10 * SECOND));
    peer.send(b"unread");
    scene.expect(&[]);
    peer.reset();
    scene.expect(&["peerended(reset)"]);
    scene.run(8 * SECOND);
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    scene.run(2 * SECOND);
    assert_eq!(scene.story, ["error reset by the peer", "close"]);
    assert_eq!(scene.cause(), ConnectionErrorKind::Reset);
}

#[test]
fn a_reset_without_unread_bytes_is_an_error_at_once() {
    for options in [paused(), ListenOptions::default()] {
        let (mut scene, peer) = Scene::served(options);
        peer.reset();
        scene.expect(&["error reset by the peer", "close"]);
        scene.rest();
    }
}

#[test]
fn a_reset_of_a_socket_that_reads_needs_no_notice() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.send(b"read");
    peer.reset();
    scene.expect(&["data read", "error reset by the peer", "close"]);
    scene.rest();
}

#[test]
fn the_early_notice_of_a_reset_does_not_name_a_fin() {
    for options in [ListenOptions::default(), paused()] {
        let (mut scene, peer) = Scene::served(options.notify_peer_ended(true));
        peer.reset();
        scene.expect(&["error reset by the peer", "close"]);
    }
}

// --- a FIN ---

#[test]
fn a_fin_of_a_paused_connection_is_delivered_only_with_early_notice() {
    for notify_peer_ended in [false, true] {
        let (mut scene, peer) = Scene::served(paused().notify_peer_ended(notify_peer_ended));
        peer.send(b"unread");
        peer.finish();
        scene.run(10 * SECOND);
        let notice: &[&str] = if notify_peer_ended { &["peerended(fin)"] } else { &[] };
        assert_eq!(std::mem::take(&mut scene.story), notice);
        scene.with(|socket| assert!(socket.peer_ended()));
        scene.with(|socket| socket.resume());
        scene.expect(&["data unread", "end"]);
    }
}

/// The connection was half-closed, and now it is dead.
#[test]
fn a_reset_after_a_fin_that_was_delivered_early_is_delivered_too() {
    let (mut scene, peer) = Scene::served(paused().notify_peer_ended(true));
    peer.send(b"unread");
    peer.finish();
    scene.expect(&["peerended(fin)"]);
    peer.reset();
    scene.expect(&["peerended(reset)"]);
    scene.with(|socket| socket.resume());
    scene.expect(&["data unread", "error reset by the peer", "close"]);
}

#[test]
fn the_early_notice_of_a_socket_that_reads_names_a_fin() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().notify_peer_ended(true));
    scene.expect(&[]);
    peer.send(b"question");
    peer.finish();
    scene.run(SECOND);
    assert_eq!(scene.story.iter().filter(|line| *line == "peerended(fin)").count(), 1, "{:?}", scene.story);
    assert_eq!(scene.story.last().map(String::as_str), Some("end"));
}

// --- on the real network ---

/// The next event of the socket, in words.
fn next(story: &mut Transcript, id: SocketId) -> String {
    let mut line = String::new();
    story.until(|socket, event| {
        assert_eq!(socket.id(), id);
        line = match event {
            Event::Data(bytes) => format!("data {}", String::from_utf8_lossy(bytes)),
            Event::Error(failure) => format!("error {}", failure),
            Event::Close(_) => "close".into(),
            other => format!("{other:?}"),
        };
        true
    });
    line
}

/// No event is delivered for this long.
fn quiet(story: &mut Transcript, time: Duration) {
    story.run_for(time, |_, event| panic!("{event:?}"));
}

#[test]
fn a_real_reset_after_unread_bytes_is_delivered_without_early_notice_and_the_bytes_stay_readable() {
    for notify_peer_ended in [false, true] {
        let (mut story, socket, mut peer) = Transcript::pair(paused().notify_peer_ended(notify_peer_ended));
        story.turn();
        peer.write_all(b"unread").expect("room");
        quiet(&mut story, ms(20));
        reset(peer);
        assert_eq!(next(&mut story, socket), "PeerEnded(Reset)");
        assert_eq!(story.socket(socket).bytes_read(), 0);
        quiet(&mut story, ms(50));
        story.socket(socket).resume();
        assert_eq!(next(&mut story, socket), "data unread");
        assert_eq!(next(&mut story, socket), "error reset by the peer");
        assert_eq!(next(&mut story, socket), "close");
        story.rest();
    }
}

#[test]
fn the_early_notice_of_a_real_reset_does_not_name_a_fin() {
    for options in [ListenOptions::default(), paused()] {
        let (mut story, socket, peer) = Transcript::pair(options.notify_peer_ended(true));
        quiet(&mut story, ms(20));
        reset(peer);
        assert_eq!(next(&mut story, socket), "error reset by the peer");
        assert_eq!(next(&mut story, socket), "close");
        story.rest();
    }
}

#[test]
fn a_real_reset_over_queued_bytes_is_delivered_without_early_notice() {
    // Below the high-water mark, so that no `drain` is pending.
    let (mut story, socket, mut peer) = Transcript::pair(paused().high_water_mark(16 << 20));
    peer.write_all(b"unread").expect("room");
    story.socket(socket).write_owned(vec![0; 12 << 20]).expect("below the limit");
    quiet(&mut story, ms(50));
    assert!(story.socket(socket).queued_bytes() > 0);
    reset(peer);
    assert_eq!(next(&mut story, socket), "PeerEnded(Reset)");
    story.socket(socket).resume();
    assert_eq!(next(&mut story, socket), "data unread");
    assert_eq!(next(&mut story, socket), "error reset by the peer");
    assert_eq!(next(&mut story, socket), "close");
    story.rest();
}

#[test]
fn a_real_fin_of_a_paused_connection_is_delivered_only_with_early_notice() {
    for notify_peer_ended in [false, true] {
        let (mut story, socket, mut peer) = Transcript::pair(paused().notify_peer_ended(notify_peer_ended));
        story.turn();
        peer.write_all(b"unread").expect("room");
        peer.shutdown(Shutdown::Write).expect("connected");
        if notify_peer_ended {
            assert_eq!(next(&mut story, socket), "PeerEnded(Fin)");
        }
        quiet(&mut story, ms(50));
        assert!(story.socket(socket).peer_ended());
        story.socket(socket).resume();
        assert_eq!(next(&mut story, socket), "data unread");
        assert_eq!(next(&mut story, socket), "End");
        story.socket(socket).set_deadline(PATIENCE);
        story.socket(socket).end();
        assert_eq!(next(&mut story, socket), "close");
        story.rest();
    }
}
