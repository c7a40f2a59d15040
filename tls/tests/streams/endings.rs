//! How streams end, in both roles.

use std::time::Duration;

use finale::{ConnectOptions, Event, ListenOptions, Stream};
use finale_tls::TlsSocket;

use crate::forge::{DATA, HANDSHAKE};
use crate::scene::{Configs, Scene};

/// Answers each piece at once, and ends when the peer has.
fn echo(socket: &mut TlsSocket<'_>, event: Event<'_>) {
    match event {
        Event::Data(bytes) => drop(socket.write(bytes)),
        Event::End => socket.end(),
        _ => {}
    }
}

#[test]
fn a_server_echoes_and_both_end_with_close_notify() {
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
    scene.play(&mut peer, &mut echo);
    peer.write(b"hello");
    scene.play(&mut peer, &mut echo);
    assert_eq!(peer.data, b"hello");
    peer.close_notify();
    scene.play(&mut peer, &mut echo);
    assert!(peer.has_close_notify && peer.has_fin && !peer.is_reset);
    peer.fin();
    scene.play(&mut peer, &mut echo);
    assert_eq!(
        scene.events(),
        [
            "connection",
            "ready",
            "data, 5 bytes",
            "end",
            "close: clean and acknowledged; we finished first, TIME_WAIT is ours; 5 bytes read, 5 written"
        ]
    );
    assert!(scene.tls.is_empty());
}

#[test]
fn a_peer_that_sends_for_ever_does_not_postpone_the_end_of_a_stream_that_is_discarded() {
    for when in ["data", "ready"] {
        let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
        let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
            if event.to_string().starts_with(when) && !socket.end_called() {
                socket.write(b"too large").expect("room");
                socket.end();
                socket.discard();
            }
        };
        scene.play(&mut peer, &mut program);
        let begun = scene.network.now();
        for _ in 0..600 {
            peer.write(b"and more");
            scene.step(Duration::from_secs(1), &mut program);
            peer.turn();
            if scene.last().starts_with("close") {
                break;
            }
        }
        let took = (scene.network.now() - begun).as_secs();
        assert!((29..=32).contains(&took), "{took} s: {:?}", scene.seen);
        assert!(peer.data == b"too large" && peer.has_close_notify && peer.has_fin);
        assert!(scene.last().contains("timed out"), "{}", scene.last());
        assert!(scene.tls.is_empty());
    }
}

#[test]
fn a_peer_that_ends_in_time_after_a_refusal_is_seen_to_end_or_to_be_cut() {
    for is_cut in [false, true] {
        let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
        let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
            if matches!(event, Event::Ready) {
                socket.write(b"too large").expect("room");
                socket.end();
                socket.discard();
            }
        };
        scene.play(&mut peer, &mut program);
        peer.write(&[1; 50_000]);
        scene.step(Duration::from_secs(20), &mut program);
        if !is_cut {
            peer.close_notify();
        }
        peer.fin();
        scene.play(&mut peer, &mut program);
        assert_eq!(scene.last().contains("clean"), !is_cut, "{}", scene.last());
        assert_eq!(scene.last().contains("truncated"), is_cut, "{}", scene.last());
        // No deadline is left.
        scene.step(Duration::from_secs(100), &mut program);
        assert!(scene.tls.is_empty() && scene.last().starts_with("close"));
    }
}

#[test]
fn a_client_gets_its_answer_and_the_end() {
    let (mut scene, _, mut peer) = Scene::client(&Configs::tls13(), ConnectOptions::default());
    let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| match event {
        Event::Ready => drop(socket.write(b"question")),
        Event::End => socket.end(),
        _ => {}
    };
    scene.play(&mut peer, &mut program);
    assert_eq!(peer.data, b"question");
    peer.write(b"answer");
    peer.close_notify();
    peer.fin();
    scene.play(&mut peer, &mut program);
    assert_eq!(scene.data, b"answer");
    assert!(scene.last().starts_with("close: clean and acknowledged"), "{:?}", scene.seen);
}

#[test]
fn a_fin_or_a_reset_without_close_notify_is_a_truncation_and_no_end() {
    for is_reset in [false, true] {
        let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
        scene.play(&mut peer, &mut echo);
        peer.write(b"hello");
        scene.play(&mut peer, &mut echo);
        if is_reset {
            peer.reset()
        } else {
            peer.fin()
        }
        scene.play(&mut peer, &mut echo);
        let how = if is_reset { "a reset by the peer" } else { "a FIN of the peer" };
        let error = format!("error: truncated: {how} without close_notify, after 5 bytes");
        assert_eq!(scene.events()[..4], ["connection", "ready", "data, 5 bytes", error.as_str()]);
        if !is_reset {
            assert!(peer.has_fin && !peer.has_close_notify && peer.data == b"hello", "its answer is not destroyed");
        }
        assert!(scene.last().starts_with(&format!("close: {error}")), "{:?}", scene.seen);
        assert_eq!(scene.tls.metrics().truncated, 1);
    }
}

#[test]
fn a_stop_ends_an_idle_stream_with_close_notify_and_lets_an_unanswered_one_be_answered() {
    for asks in [false, true] {
        let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
        let mut quiet = |_: &mut TlsSocket<'_>, _: Event<'_>| {};
        scene.play(&mut peer, &mut quiet);
        if asks {
            peer.write(b"question");
            scene.play(&mut peer, &mut quiet);
        }
        scene.stop();
        scene.step(Duration::from_secs(2), &mut quiet);
        peer.turn();
        assert_eq!((peer.has_close_notify, peer.has_fin), (!asks, !asks), "asks: {asks}");
        peer.close_notify();
        peer.fin();
        scene.play(&mut peer, &mut echo);
        assert!(scene.seen.iter().any(|event| event.starts_with("close: clean")), "{:?}", scene.seen);
        assert!(peer.has_close_notify && !peer.is_reset);
    }
}

#[test]
fn a_stop_ends_a_handshake_that_is_not_done_and_says_so() {
    let (mut scene, peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
    let mut quiet = |_: &mut TlsSocket<'_>, _: Event<'_>| {};
    scene.step(Duration::from_millis(10), &mut quiet);
    scene.stop();
    scene.step(Duration::from_secs(2), &mut quiet);
    peer.fin();
    scene.step(Duration::from_secs(1), &mut quiet);
    let events = scene.events();
    assert_eq!(events[1], "error: the handshake failed: the listener was stopped before it was done");
    assert!(events[2].starts_with("close: error: the handshake failed"), "{events:?}");
}

/// rustls asserts in builds for tests that it sends one alert.
#[test]
fn bytes_that_are_no_tls_get_one_alert_and_a_fin_at_any_time() {
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\xff\xff", b"\x17\x03\x03\x00\x05hello", &[0; 100]] {
        for is_ready in [false, true] {
            let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
            if is_ready {
                scene.play(&mut peer, &mut echo);
            }
            let socket = peer.socket.as_ref().expect("it is connected");
            drop(socket.read());
            socket.send(bytes);
            scene.step(Duration::from_millis(5), &mut echo);
            let alert = socket.read();
            assert!(!alert.is_empty() && alert.len() < 40, "one record: {alert:?}");
            assert!(is_ready || alert[0] == 21, "an alert: {alert:?}");
            assert!(scene.last().starts_with("error"), "{:?}", scene.seen);
            assert!(socket.has_fin(), "{:?}", scene.seen);
        }
    }
}

#[test]
fn a_reset_that_answers_our_close_notify_is_no_failure_unless_it_can_have_cut_an_answer() {
    for answers_after_the_end in [false, true] {
        let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
        let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| match event {
            Event::Data(_) if !answers_after_the_end => drop(socket.write(b"answer")),
            Event::End => {
                if answers_after_the_end {
                    socket.write(b"answer").expect("room");
                }
                socket.end();
            }
            _ => {}
        };
        scene.play(&mut peer, &mut program);
        peer.write(b"question");
        scene.play(&mut peer, &mut program);
        peer.close_notify();
        peer.fin();
        // Our end is on its way when the peer resets.
        while scene.last() != "end" {
            scene.step(Duration::from_millis(1), &mut program);
        }
        peer.reset();
        scene.play(&mut peer, &mut program);
        let events = scene.events();
        let tail = &events[events.len() - 2..];
        if answers_after_the_end {
            assert_eq!(tail[0], "error: reset by the peer");
            assert!(tail[1].starts_with("close: error: reset by the peer"), "{tail:?}");
        } else {
            assert_eq!(tail[0], "end");
            assert!(tail[1].starts_with("close: clean, handed off"), "{tail:?}");
            assert!(!tail[1].contains("TIME_WAIT"), "{tail:?}");
        }
    }
}

#[test]
fn a_fin_after_the_end_was_given_up_is_no_clean_ending() {
    for has_close_notify in [false, true] {
        let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
        let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
            if matches!(event, Event::Ready) {
                socket.write(b"too large").expect("room");
                socket.end();
                socket.discard();
            }
        };
        scene.play(&mut peer, &mut program);
        for _ in 0..40 {
            peer.write(b"and more");
            scene.step(Duration::from_secs(1), &mut program);
        }
        if has_close_notify {
            peer.close_notify();
        }
        peer.fin();
        scene.play(&mut peer, &mut program);
        // What was not read can't be known to be complete.
        assert!(!scene.events().contains(&"end"));
        assert!(scene.last().starts_with("close: error: timed out"), "{:?}", scene.events());
        assert!(scene.tls.is_empty());
    }
}

#[test]
fn an_ending_has_an_error_only_if_it_was_delivered() {
    for is_flood in [false, true] {
        let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
        let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
            if matches!(event, Event::Data(_)) {
                socket.destroy();
            }
        };
        scene.handshake(&mut peer, &mut program);
        scene.play(&mut peer, &mut program);
        let mut forger = peer.forger();
        let mut bytes = forger.record(DATA, b"request");
        // In the same read: the program has not seen the failure when it destroys the socket.
        if is_flood {
            bytes.extend((0..40).flat_map(|_| forger.record(HANDSHAKE, &[24, 0, 0, 1, 0])));
        } else {
            bytes.extend(b"this is no record");
        }
        peer.raw(&bytes);
        scene.play(&mut peer, &mut program);
        assert_eq!(scene.events()[2], "data, 7 bytes");
        assert_eq!(scene.events().len(), 4, "{:?}", scene.events());
        assert!(scene.last().starts_with("close: destroyed"), "{:?}", scene.events());
        let metrics = scene.tls.metrics();
        assert_eq!((metrics.failed, metrics.truncated), (0, 0));
    }
}
