//! A peer that slowly takes what our kernel holds for it is not silent: no limit of silence
//! expires, and its answer is complete. A limit expires for a peer that takes nothing. On the
//! simulated network; `src/net/sock_diag.rs` shows that the real kernel reports what is needed for
//! this.

use std::time::Duration;

use finale::sim::{Network, PeerSocket};
use finale::{ConnectionErrorKind, EndingKind, IdleDirection, ListenOptions, TimeoutKind};
use support::scene::{HERE, Scene};

const SECOND: Duration = Duration::from_secs(1);
/// What our kernel holds, while the peer's takes 1000 bytes at once.
const ANSWER: usize = 50_000;

fn limit(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

/// A connection whose kernel takes the whole answer at once, and whose peer has little room.
fn served(options: ListenOptions) -> (Scene, PeerSocket) {
    let network = Network::new(7);
    network.set_buffers(ANSWER, 1000);
    let host = network.host(HERE);
    let mut scene = Scene::on(network, host);
    let peer = scene.serve(options);
    (scene, peer)
}

fn write(scene: &mut Scene, bytes: usize) {
    scene.with(|socket| {
        socket.write(&vec![b'x'; bytes]).expect("open");
    });
}

/// The peer reads what it has once per second, for this many seconds.
fn read_slowly(scene: &mut Scene, peer: &PeerSocket, seconds: usize) -> usize {
    (0..seconds).map(|_| read_after(scene, peer, SECOND)).sum()
}

fn read_after(scene: &mut Scene, peer: &PeerSocket, time: Duration) -> usize {
    scene.run(time);
    peer.read().len()
}

#[test]
fn after_our_end_a_slow_reader_gets_its_answer_though_it_takes_longer_than_the_linger_time() {
    let (mut scene, peer) = served(ListenOptions::default().close_timeout(limit(3)));
    scene.with(|socket| {
        socket.write(&[b'x'; ANSWER]).expect("open");
        socket.end();
        socket.discard();
    });
    assert_eq!(read_slowly(&mut scene, &peer, 60), ANSWER);
    assert!(peer.has_fin() && !peer.is_reset());
}

#[test]
fn a_reader_that_stops_is_given_up_one_linger_time_after_it_took_its_last_byte() {
    let (mut scene, peer) = served(ListenOptions::default().close_timeout(limit(3)));
    scene.with(|socket| {
        socket.write(&[b'x'; ANSWER]).expect("open");
        socket.end();
        socket.discard();
    });
    assert_eq!(read_slowly(&mut scene, &peer, 10), 10_000);
    // The last read made room, which our kernel learns 1 ms later.
    scene.run(Duration::from_millis(2990));
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    scene.run(Duration::from_millis(20));
    assert_eq!(scene.story, ["error timed out: the end was not completed in time", "close"]);
}

#[test]
fn when_both_have_finished_a_slow_reader_is_waited_for() {
    let (mut scene, peer) = served(ListenOptions::default().close_timeout(limit(3)));
    peer.finish();
    scene.expect(&["end"]);
    scene.with(|socket| {
        socket.write(&[b'x'; ANSWER]).expect("open");
        socket.end();
    });
    assert_eq!(read_slowly(&mut scene, &peer, 60), ANSWER);
    assert_eq!(scene.story, ["close"]);
    assert_eq!(scene.how(), &EndingKind::Confirmed);
}

#[test]
fn a_half_closed_reader_is_not_silent_while_it_takes() {
    let (mut scene, peer) = served(ListenOptions::default().half_closed_timeout(limit(3)));
    peer.finish();
    scene.expect(&["end"]);
    write(&mut scene, ANSWER);
    assert_eq!(read_slowly(&mut scene, &peer, 60), ANSWER);
    assert_eq!(
        scene.cause(),
        ConnectionErrorKind::TimedOut(TimeoutKind::HalfClosed),
        "and then it is: we have not ended"
    );
}

#[test]
fn bytes_that_wait_behind_a_slow_reader_wait_for_it() {
    let (mut scene, peer) = served(ListenOptions::default().write_timeout(limit(3)));
    // The kernel has no room before a third of its buffer is free: that takes 17 seconds.
    write(&mut scene, 2 * ANSWER);
    assert_eq!(read_slowly(&mut scene, &peer, 120), 2 * ANSWER);
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    write(&mut scene, 2 * ANSWER);
    scene.run(4 * SECOND);
    assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::Write));
}

#[test]
fn a_slow_download_is_no_silence_except_to_who_asks_whether_the_peer_says_anything() {
    for (idle_direction, timeouts) in [(IdleDirection::Both, 0), (IdleDirection::Write, 0), (IdleDirection::Read, 1)] {
        let (mut scene, peer) = served(ListenOptions::default().idle_timeout(limit(3)).idle_direction(idle_direction));
        write(&mut scene, ANSWER);
        assert_eq!(read_slowly(&mut scene, &peer, 40), 40_000);
        assert_eq!(scene.story.len(), timeouts, "{idle_direction:?}: {:?}", scene.story);
        // It stops: `timeout` is delivered once, three seconds after the last byte.
        scene.run(2 * SECOND);
        assert_eq!(scene.story.len(), timeouts, "{idle_direction:?}: {:?}", scene.story);
        scene.run(2 * SECOND);
        assert_eq!(scene.story, ["timeout"], "{idle_direction:?}");
    }
}

/// The limit has expired, and the last byte was taken just before: from then on the peer has its
/// time to finish.
#[test]
fn the_linger_time_counts_from_the_last_byte_though_nothing_is_left_to_take() {
    let (mut scene, peer) = served(ListenOptions::default().close_timeout(limit(3)));
    scene.with(|socket| {
        socket.write(&[b'x'; 3_000]).expect("open");
        socket.end();
        socket.discard();
    });
    scene.run(Duration::from_millis(2_800));
    let read: usize = (0..3).map(|_| read_after(&mut scene, &peer, Duration::from_millis(10))).sum();
    assert_eq!(read, 3_000);
    scene.run(Duration::from_millis(2_900));
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    peer.finish();
    scene.run(SECOND);
    assert_eq!(scene.how(), &EndingKind::Confirmed);
}

/// A limit that was postponed does not expire because another time is due at the same moment.
#[test]
fn a_silence_of_the_peer_that_is_due_with_a_limit_is_told_and_ends_nothing() {
    for ms in 2_990..3_010 {
        let options = ListenOptions::default().half_closed_timeout(limit(3)).idle_direction(IdleDirection::Read);
        let (mut scene, peer) = served(options.idle_timeout(Duration::from_millis(ms)));
        peer.finish();
        scene.expect(&["end"]);
        write(&mut scene, 5_000);
        assert_eq!(read_slowly(&mut scene, &peer, 5), 5_000);
        assert_eq!(scene.story, ["timeout"], "{ms}");
    }
}
