//! Timeouts and options.

use std::time::Duration;

use finale::sim::Network;
use finale::{Event, KeepAlive, ListenOptions};

use super::{SECOND, ms, write};
use support::faulty::faulty_on;
use support::scene::{HERE, Scene, THERE};

fn idle_for(time: Duration) -> (Scene, finale::sim::PeerSocket) {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.with(|socket| socket.set_idle_timeout(time));
    (scene, peer)
}

/// N70: nothing is closed.
#[test]
fn n70_a_timeout_is_an_event_and_the_connection_lives_on() {
    let (mut scene, peer) = idle_for(5 * SECOND);
    scene.run(6 * SECOND);
    assert_eq!(scene.story, ["timeout"]);
    scene.story.clear();
    peer.send(b"still here");
    scene.expect(&["data still here"]);
}

/// N71: the next byte restarts it.
#[test]
fn n71_a_timeout_is_told_once_per_silence() {
    let (mut scene, peer) = idle_for(5 * SECOND);
    scene.run(60 * SECOND);
    assert_eq!(scene.story, ["timeout"]);
    peer.send(b"x");
    scene.run(60 * SECOND);
    assert_eq!(scene.story, ["timeout", "data x", "timeout"]);
}

/// N72: bytes received and bytes that the kernel took; a write that is only queued is no sign of
/// life of the peer.
#[test]
fn n72_bytes_that_move_arm_it_anew_and_queued_ones_do_not() {
    let mut scene = Scene::new();
    scene.network.set_buffers(100, 100);
    let _peer = scene.serve(ListenOptions::default().idle_timeout(5 * SECOND));
    scene.with(|socket| write(socket, &[0; 1000]));
    scene.run(SECOND);
    for _ in 0..4 {
        scene.run(SECOND);
        scene.with(|socket| write(socket, b"queued, not taken"));
    }
    scene.run(SECOND);
    assert_eq!(scene.story, ["timeout"]);
}

/// N73: the later value replaces the earlier; `None` switches it off.
#[test]
fn n73_setting_it_again_replaces_it_and_none_switches_it_off() {
    let (mut scene, _peer) = idle_for(5 * SECOND);
    scene.with(|socket| socket.set_idle_timeout(20 * SECOND));
    scene.run(19 * SECOND);
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    scene.with(|socket| socket.set_idle_timeout(None));
    scene.run(3600 * SECOND);
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    scene.with(|socket| socket.set_idle_timeout(SECOND));
    scene.with(|socket| socket.destroy());
    scene.run(10 * SECOND);
    assert_eq!(scene.story, ["close"], "no timer outlives the close");
}

/// N74: what Node cuts at 2^31 ms is exact here.
#[test]
fn n74_a_far_deadline_is_exact() {
    let month = 60 * 24 * 3600 * SECOND;
    let (mut scene, _peer) = idle_for(month);
    let begun = scene.network.elapsed();
    scene.run(month - ms(2));
    assert!(scene.story.is_empty());
    scene.run(ms(4));
    assert_eq!(scene.story, ["timeout"]);
    assert!(scene.network.elapsed() - begun >= month);
}

/// N75: Node swallows the first expiry here.
#[test]
fn n75_a_write_that_is_stuck_counts_from_the_last_byte_that_was_taken() {
    let mut scene = Scene::new();
    scene.network.set_buffers(100, 100);
    let _peer = scene.serve(ListenOptions::default());
    scene.with(|socket| {
        socket.set_idle_timeout(ms(60));
        write(socket, &[0; 1000]);
    });
    scene.run(ms(75));
    assert_eq!(scene.story, ["timeout"], "not doubled");
}

/// N76: a paused socket moves no byte, even if the peer sends.
#[test]
fn n76_the_idle_time_goes_on_while_paused() {
    let (mut scene, peer) = idle_for(5 * SECOND);
    scene.with(|socket| socket.pause());
    for _ in 0..6 {
        peer.send(b"more");
        scene.run(SECOND);
    }
    assert_eq!(scene.story, ["timeout"]);
}

/// N77: half-closed sockets are what it is for.
#[test]
fn n77_the_idle_time_runs_after_our_end() {
    let (mut scene, _peer) = idle_for(5 * SECOND);
    scene.with(|socket| socket.end());
    scene.run(6 * SECOND);
    assert_eq!(scene.story, ["timeout"]);
}

/// N78: Node's fires up to 0.7 ms early.
#[test]
fn n78_a_timer_is_never_early_and_late_by_a_tick_or_two() {
    for micros in [1, 999, 1_000, 1_001, 49_700, 50_000, 333_333] {
        let (mut scene, peer) = idle_for(Duration::from_micros(micros));
        peer.send(b"x");
        scene.network.advance(ms(7));
        let mut from = Duration::ZERO;
        let until = scene.network.now() + SECOND;
        while let Some((_, event)) = scene.reactor.next_before(until).expect("it continues") {
            match event {
                Event::Data(_) => from = scene.network.elapsed(),
                Event::Timeout => {
                    let took = scene.network.elapsed() - from;
                    let limit = Duration::from_micros(micros);
                    assert!(took >= limit && took <= limit + ms(2), "{took:?} for {limit:?}");
                    break;
                }
                _ => {}
            }
        }
        assert!(from > Duration::ZERO);
    }
}

/// N79: set on the listener, inherited, no call per connection.
#[test]
fn n79_nagle_is_off_by_inheritance() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    let _peer = scene.serve(ListenOptions::default().nodelay(true));
    scene.run(SECOND);
    assert_eq!(faulty.count("set_nodelay"), 0);
    scene.with(|socket| socket.set_nodelay(false));
    scene.run(SECOND);
    assert_eq!(faulty.count("set_nodelay"), 1);
}

/// N80: idle, interval and count are settings; below a second is rounded up, and nothing is refused
/// silently.
#[test]
fn n80_keep_alive_below_a_second_is_a_second_and_not_two_hours() {
    let times = KeepAlive { idle: ms(10), interval: ms(10), count: 2 };
    let (mut scene, _peer) = Scene::served(ListenOptions::default().keep_alive(times));
    scene.network.vanish(THERE);
    scene.run(2 * SECOND);
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    scene.run(2 * SECOND);
    assert_eq!(scene.story.last().map(String::as_str), Some("close"));
    let bad = KeepAlive { count: 0, ..times };
    assert!(scene.reactor.listen((HERE, 81), ListenOptions::default().keep_alive(bad)).is_err());
}
