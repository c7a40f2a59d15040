//! No stream is half-closed or closing for ever, whatever the peer does, by the default limits.

use std::time::Duration;

use finale::lifecycle::State;
use finale::{Backpressure, Event, ListenOptions, StopOptions, Stream};
use finale_tls::TlsSocket;

use crate::scene::{Configs, Peer, Scene};

const SECOND: Duration = Duration::from_secs(1);

/// The close and the half-closed timeout, in seconds, and what the simulation adds.
const CLOSE: std::ops::RangeInclusive<u64> = 29..=32;
const HALF_CLOSED: std::ops::RangeInclusive<u64> = 299..=303;

/// Runs the program alone until its stream is closed, for ten minutes at most. Returns the seconds.
fn lifetime(scene: &mut Scene, program: &mut dyn FnMut(&mut TlsSocket<'_>, Event<'_>)) -> u64 {
    let begun = scene.network.now();
    for _ in 0..600 {
        if scene.seen.iter().any(|event| event.starts_with("close")) {
            break;
        }
        scene.step(SECOND, program);
    }
    (scene.network.now() - begun).as_secs()
}

/// Sends the peer's part of the handshake, and reads nothing from then on.
fn handshake_and_freeze(scene: &mut Scene, peer: &mut Peer, program: &mut dyn FnMut(&mut TlsSocket<'_>, Event<'_>)) {
    scene.handshake(peer, program);
    let finished = peer.output();
    peer.raw(&finished);
}

#[test]
fn an_end_at_a_full_queue_is_closing_although_the_peer_takes_nothing() {
    let options = ListenOptions::default().high_water_mark(1000).write_limit(1000);
    let (mut scene, mut peer) = Scene::narrow_server(&Configs::tls13(), options);
    let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
        if matches!(event, Event::Ready) {
            assert_eq!(socket.write(&[9; 200_000]), Ok(Backpressure::Full));
            assert!(socket.write(&[9; 1]).is_err());
            socket.end();
        }
    };
    handshake_and_freeze(&mut scene, &mut peer, &mut program);
    let took = lifetime(&mut scene, &mut program);
    assert!(CLOSE.contains(&took), "{took} s: {:?}", scene.seen);
    assert!(scene.last().starts_with("close: error: timed out"), "{:?}", scene.seen);
}

/// The tickets of the handshake have filled the queue.
#[test]
fn an_end_before_the_handshake_is_closing_after_it_although_the_peer_takes_nothing() {
    for is_taken in [false, true] {
        let mut configs = Configs::tls13();
        configs.server.send_tls13_tickets = 100;
        configs.server.session_storage = finale_tls::rustls::server::ServerSessionMemoryCache::new(100);
        let options = ListenOptions::default().high_water_mark(100).write_limit(100);
        let (mut scene, mut peer) = Scene::narrow_server(&configs, options);
        let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
            if matches!(event, Event::Connection) {
                socket.write(b"early").expect("room");
                socket.end();
            }
        };
        handshake_and_freeze(&mut scene, &mut peer, &mut program);
        if is_taken {
            scene.play(&mut peer, &mut program);
            assert!(peer.data == b"early" && peer.has_close_notify && peer.has_fin, "{:?}", scene.seen);
        } else {
            let took = lifetime(&mut scene, &mut program);
            assert!(CLOSE.contains(&took), "{took} s: {:?}", scene.seen);
        }
    }
}

/// Answers a request, and refuses the rest of it.
fn refuse(bytes: usize) -> impl FnMut(&mut TlsSocket<'_>, Event<'_>) {
    move |socket, event| {
        if matches!(event, Event::Data(_)) && !socket.end_called() {
            socket.write(&vec![9; bytes]).expect("room");
            socket.end();
            socket.discard();
        }
    }
}

#[test]
fn a_lingering_close_lasts_while_a_slow_reader_takes_bytes() {
    const BYTES: usize = 200_000;
    // They wait in our queue, or in our kernel, before our FIN.
    for send_bytes in [3000, 300_000] {
        let (mut scene, mut peer) = Scene::server_with_buffers(&Configs::tls13(), ListenOptions::default(), send_bytes);
        let mut program = refuse(BYTES);
        scene.play(&mut peer, &mut program);
        peer.write(b"request");
        let begun = scene.network.now();
        while !peer.has_fin && !peer.is_reset {
            scene.step(SECOND, &mut program);
            // What it sends meanwhile restarts nothing.
            peer.write(b"and more");
            peer.turn();
        }
        let took = (scene.network.now() - begun).as_secs();
        assert!(took > 60, "{took} s: {:?}", scene.seen);
        assert_eq!(scene.events(), ["connection", "ready", "data, 7 bytes"], "{send_bytes}");
        assert!(peer.data.len() == BYTES && peer.has_close_notify, "{send_bytes}: {} bytes", peer.data.len());
        scene.step(SECOND * 20, &mut program);
        peer.close_notify();
        peer.fin();
        scene.play(&mut peer, &mut program);
        assert!(scene.last().starts_with("close: clean"), "{send_bytes}: {:?}", scene.seen);
        assert!(scene.tls.is_empty());
    }
}

#[test]
fn a_lingering_close_is_bounded_whatever_was_begun_before_it() {
    for begins_record in [false, true] {
        for has_close_notify in [false, true] {
            let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
            let mut program = refuse(100);
            scene.play(&mut peer, &mut program);
            let mut bytes = peer.records(b"request");
            let next = peer.records(b"and more");
            if begins_record {
                bytes.extend(&next[..10]);
            }
            peer.raw(&bytes);
            scene.step(SECOND, &mut program);
            if has_close_notify {
                if begins_record {
                    peer.raw(&next[10..]);
                } else {
                    peer.raw(&next);
                }
                peer.close_notify();
            }
            let took = lifetime(&mut scene, &mut program);
            let case = format!("record: {begins_record}, close_notify: {has_close_notify}: {:?}", scene.seen);
            assert!((28..=32).contains(&took), "{took} s, {case}");
            assert!(scene.last().starts_with("close: error: timed out"), "{case}");
            assert_eq!(scene.events().contains(&"end"), has_close_notify, "{case}");
            assert!(scene.tls.is_empty(), "{case}");
        }
    }
}

#[test]
fn a_client_that_ends_without_a_fin_is_half_closed() {
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Program {
        Waits,
        Answers,
        IsPaused,
    }
    for case in [Program::Waits, Program::Answers, Program::IsPaused] {
        for is_stopped in [false, true] {
            let (mut scene, mut peer) = Scene::narrow_server(&Configs::tls13(), ListenOptions::default());
            let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| match event {
                Event::Data(_) if case == Program::IsPaused => socket.pause(),
                Event::End => {
                    // What waits in a paused stream is delivered when it is closed.
                    let is_over = case == Program::IsPaused;
                    assert_eq!(socket.state(), if is_over { State::Closed } else { State::PeerFinished });
                    if case == Program::Answers {
                        assert_eq!(socket.write(&vec![9; 200_000]), Ok(Backpressure::Full));
                    }
                }
                _ => {}
            };
            scene.play(&mut peer, &mut program);
            let mut bytes = peer.records(b"request");
            bytes.extend(peer.close_record());
            peer.raw(&bytes);
            scene.step(Duration::from_millis(10), &mut program);
            if is_stopped {
                let listener = scene.listener.expect("a server");
                scene.reactor.stop_listener(listener, StopOptions::default().limit(None)).expect("it listens");
            }
            let took = lifetime(&mut scene, &mut program);
            assert!(HALF_CLOSED.contains(&took), "{took} s, {case:?}: {:?}", scene.seen);
            let ending = scene.seen.iter().find(|event| event.starts_with("close")).expect("it is closed");
            assert!(
                ending.starts_with("close: error: timed out: half-closed and silent"),
                "{case:?}: {:?}",
                scene.seen
            );
            assert!(scene.tls.is_empty(), "{case:?}");
        }
    }
}

#[test]
fn a_client_that_ends_without_a_fin_and_takes_a_byte_now_and_then_has_the_ending_timeout() {
    let options = ListenOptions::default().ending_timeout(SECOND * 100).idle_timeout(SECOND * 30);
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), options);
    let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
        if matches!(event, Event::End | Event::Timeout) {
            socket.write(b"a part of the answer").expect("room");
        }
    };
    scene.play(&mut peer, &mut program);
    peer.write(b"request");
    peer.close_notify();
    let begun = scene.network.now();
    while !scene.last().starts_with("close") && (scene.network.now() - begun).as_secs() < 200 {
        scene.step(SECOND, &mut program);
        peer.turn();
    }
    let took = (scene.network.now() - begun).as_secs();
    assert!((99..=102).contains(&took), "{took} s: {:?}", scene.seen);
    assert_eq!(peer.data.len(), 4 * "a part of the answer".len());
    assert!(scene.last().starts_with("close: error"), "{:?}", scene.seen);
}

/// By default a layer's limit of its own counts for bytes that cause no event.
#[test]
fn what_a_client_sends_after_its_end_is_not_read_as_a_record() {
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
    let mut program = |_: &mut TlsSocket<'_>, _: Event<'_>| {};
    scene.play(&mut peer, &mut program);
    peer.write(b"request");
    let mut bytes = peer.close_record();
    bytes.extend(b"\x17\x03\x03\x00\x05he");
    peer.raw(&bytes);
    let took = lifetime(&mut scene, &mut program);
    assert!(HALF_CLOSED.contains(&took), "{took} s: {:?}", scene.seen);
}

/// A valid record, and one that is not, in one segment: the program has the first when the stream
/// has failed already.
#[test]
fn a_producer_that_writes_to_a_failed_stream_until_it_is_full_reads_on() {
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
    let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| match event {
        Event::Data(_) => {
            let pieces = (0..1000).take_while(|_| socket.write(&[b'x'; 32 * 1024]) == Ok(Backpressure::Room));
            assert!(pieces.count() < 100, "it is full at some time");
            socket.pause();
        }
        Event::Drain => socket.resume(),
        _ => {}
    };
    scene.play(&mut peer, &mut program);
    let mut bytes = peer.records(b"request");
    bytes.extend(b"\x17\x03\x03\x00\x05hello");
    peer.raw(&bytes);
    let took = lifetime(&mut scene, &mut program);
    let seen: Vec<_> = scene.seen.iter().map(|line| line.split([':', ',', ' ']).next().unwrap_or_default()).collect();
    assert!(seen.ends_with(&["data", "drain", "error", "close"]), "{took} s: {:?}", scene.seen);
}

/// It exceeds the limit of the queue by itself.
#[test]
fn close_notify_follows_what_was_written_before_the_handshake_however_much_it_is() {
    let options = ListenOptions::default().high_water_mark(1000).write_limit(1000);
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), options);
    let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
        if matches!(event, Event::Connection) {
            assert_eq!(socket.write(&[7; 900]), Ok(Backpressure::Room));
            assert_eq!(socket.write(&[7; 900]), Ok(Backpressure::Full));
            socket.end();
        }
    };
    scene.play(&mut peer, &mut program);
    assert_eq!(peer.data.len(), 1800);
    assert!(peer.has_close_notify && peer.has_fin, "{:?}", scene.seen);
}

/// The documented loop, with more unread bytes than two full queues.
#[test]
fn an_echo_that_is_paused_for_a_dead_client_reads_what_had_arrived() {
    let options = ListenOptions::default().high_water_mark(1000).low_water_mark(0).write_limit(20_000);
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), options);
    let mut read = 0;
    let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| match event {
        Event::Ready => socket.pause(),
        Event::PeerEnded(_) | Event::Drain => socket.resume(),
        Event::Data(bytes) => {
            read += bytes.len();
            if socket.write(bytes) == Ok(Backpressure::Full) {
                socket.pause();
            }
        }
        _ => {}
    };
    scene.play(&mut peer, &mut program);
    for _ in 0..12 {
        peer.write(&[b'x'; 10_000]);
    }
    scene.play(&mut peer, &mut program);
    peer.reset();
    let took = lifetime(&mut scene, &mut program);
    assert!(took < 5, "{took} s: {:?}", scene.seen);
    assert_eq!(read, 120_000, "{:?}", scene.seen);
}
