//! A changed setting takes effect at once, even if nothing else happens to the socket.

use std::io::Read;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use finale::sim::PeerSocket;
use finale::{Backpressure, CloseMode, EndingKind, Event, ListenOptions};

use support::scene::Scene;
use support::{Transcript, What, dial_narrow, ms};

const SECOND: Duration = Duration::from_secs(1);

/// A connection whose kernels hold 1000 bytes each, with a high-water mark of the same size.
fn narrow() -> (Scene, PeerSocket) {
    let mut scene = Scene::new();
    scene.network.set_buffers(1000, 1000);
    let peer = scene.serve(ListenOptions::default().high_water_mark(1000));
    (scene, peer)
}

// --- close mode ---

#[test]
fn a_socket_that_waits_for_the_acknowledgement_is_handed_off_at_once() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.answer_into_the_void(&peer);
    scene.expect(&[]);
    scene.with(|socket| socket.set_close_mode(CloseMode::HandOff));
    scene.run(ms(1));
    assert_eq!((scene.story.as_slice(), scene.how()), (["close".to_owned()].as_slice(), &EndingKind::HandedOff));
}

// --- half open ---

#[test]
fn a_socket_that_may_not_stay_half_open_ends_at_once_after_the_peers_end() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.finish();
    scene.expect(&["end"]);
    scene.run(10 * SECOND);
    scene.with(|socket| socket.set_allow_half_open(false));
    scene.run(ms(10));
    assert_eq!(scene.story, ["close"]);
    assert_eq!(scene.how(), &EndingKind::Confirmed);
}

#[test]
fn a_socket_that_may_not_stay_half_open_sends_what_waits_and_ends() {
    let (mut scene, peer) = narrow();
    peer.finish();
    scene.expect(&["end"]);
    scene.with(|socket| {
        socket.write(&[b'x'; 2900]).expect("open");
    });
    scene.run(SECOND);
    scene.with(|socket| socket.set_allow_half_open(false));
    let read: usize = (0..5)
        .map(|_| {
            scene.run(SECOND);
            peer.read().len()
        })
        .sum();
    scene.run(SECOND);
    assert_eq!((read, peer.has_fin()), (2900, true));
    assert_eq!(scene.how(), &EndingKind::Confirmed);
}

#[test]
fn a_socket_that_may_stay_half_open_again_before_the_reactor_looks_goes_on() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.finish();
    scene.expect(&["end"]);
    scene.with(|socket| {
        socket.set_allow_half_open(false);
        socket.set_allow_half_open(true);
    });
    scene.run(10 * SECOND);
    assert!(scene.story.is_empty() && !peer.has_fin(), "{:?}", scene.story);
}

#[test]
fn half_open_before_the_peers_end_changes_nothing_until_then() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.with(|socket| socket.set_allow_half_open(false));
    scene.run(10 * SECOND);
    assert!(scene.story.is_empty() && !peer.has_fin(), "{:?}", scene.story);
    peer.finish();
    scene.expect(&["end", "close"]);
}

#[test]
fn a_real_socket_that_may_not_stay_half_open_ends_at_once_after_the_peers_end() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    peer.shutdown(Shutdown::Write).expect("connected");
    story.expect(socket, What::End);
    story.silence(ms(20));
    story.socket(socket).set_allow_half_open(false);
    let mut closed = false;
    let changed = Instant::now();
    while !closed && changed.elapsed() < 2 * SECOND {
        story.run_for(ms(20), |_, event| closed |= matches!(event, Event::Close(_)));
    }
    assert!(closed, "it stays half-open");
    assert_eq!(peer.read(&mut [0]).expect("no reset"), 0);
    story.rest();
}

// --- the low-water mark ---

#[test]
fn a_low_water_mark_that_is_raised_over_what_waits_delivers_drain() {
    let (mut scene, _peer) = narrow();
    scene.with(|socket| assert_eq!(socket.write(&[b'x'; 2900]), Ok(Backpressure::Full)));
    scene.run(10 * SECOND);
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    scene.with(|socket| socket.set_low_water_mark(socket.queued_bytes() - 1));
    scene.run(SECOND);
    assert!(scene.story.is_empty(), "it is below what waits: {:?}", scene.story);
    scene.with(|socket| socket.set_low_water_mark(socket.queued_bytes()));
    scene.run(ms(10));
    assert_eq!(scene.story, ["drain"]);
    scene.run(10 * SECOND);
    assert_eq!(scene.story, ["drain"], "once");
}

#[test]
fn a_low_water_mark_over_what_waits_delivers_a_requested_drain() {
    let (mut scene, _peer) = narrow();
    scene.with(|socket| assert_eq!(socket.write(&[b'x'; 1100]), Ok(Backpressure::Full)));
    scene.expect(&["drain"]);
    scene.with(|socket| assert_eq!(socket.write(&[b'x'; 950]), Ok(Backpressure::Room)));
    scene.run(SECOND);
    scene.with(|socket| assert!(socket.request_drain(), "{} wait", socket.queued_bytes()));
    scene.run(SECOND);
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    scene.with(|socket| socket.set_low_water_mark(999));
    scene.run(ms(10));
    assert_eq!(scene.story, ["drain"]);
}

#[test]
fn a_low_water_mark_delivers_no_drain_of_a_queue_that_was_not_full_or_after_our_end() {
    let (mut scene, _peer) = narrow();
    scene.with(|socket| assert_eq!(socket.write(&[b'x'; 900]), Ok(Backpressure::Room)));
    scene.run(SECOND);
    scene.with(|socket| assert_eq!(socket.write(&[b'x'; 900]), Ok(Backpressure::Room)));
    scene.run(SECOND);
    scene.with(|socket| socket.set_low_water_mark(999));
    scene.run(SECOND);
    assert!(scene.story.is_empty(), "it was not full: {:?}", scene.story);
    let (mut scene, _peer) = narrow();
    scene.with(|socket| {
        assert_eq!(socket.write(&[b'x'; 2900]), Ok(Backpressure::Full));
        socket.end();
    });
    scene.run(SECOND);
    scene.with(|socket| socket.set_low_water_mark(2900));
    scene.run(SECOND);
    assert!(scene.story.is_empty(), "there is nothing more to write: {:?}", scene.story);
}

#[test]
fn a_real_low_water_mark_that_is_raised_over_what_waits_delivers_drain() {
    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default().send_buffer_size(4096).high_water_mark(1000));
    let _peer = dial_narrow(addr);
    let socket = story.connection();
    assert_eq!(story.socket(socket).write_owned(vec![0; 4 << 20]), Ok(Backpressure::Full));
    story.silence(ms(20));
    let mut view = story.socket(socket);
    view.set_low_water_mark(view.queued_bytes());
    let (mut drained, changed) = (0, Instant::now());
    while drained == 0 && changed.elapsed() < 2 * SECOND {
        story.run_for(ms(20), |_, event| drained += u32::from(*event == Event::Drain));
    }
    assert_eq!(drained, 1);
    story.socket(socket).destroy();
    assert_eq!(story.close(socket).kind, EndingKind::Destroyed);
    story.rest();
}
