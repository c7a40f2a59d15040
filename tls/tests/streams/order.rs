//! The order of events, however the peer's bytes are cut.

use std::time::Duration;

use finale::{ConnectOptions, Event, ListenOptions, Stream};
use finale_tls::TlsSocket;

use crate::scene::{Configs, Scene};

/// Reads everything, and answers at the end.
fn answer_at_end(socket: &mut TlsSocket<'_>, event: Event<'_>) {
    if matches!(event, Event::End) {
        socket.write(b"answer").expect("room");
        socket.end();
    }
}

/// The events without sizes, and with the pieces of data as one event.
fn kinds(scene: &Scene) -> Vec<&str> {
    let mut kinds: Vec<_> =
        scene.events().iter().map(|event| event.split([',', ':']).next().unwrap_or_default()).collect();
    kinds.dedup();
    kinds
}

/// How the last bytes of the peer are cut.
const PIECES: [usize; 5] = [usize::MAX, 1000, 7, 2, 1];

#[test]
fn a_server_sees_the_same_events_however_the_peer_cuts_its_bytes() {
    for configs in [Configs::tls13(), Configs::tls12()] {
        for size in PIECES {
            let (mut scene, mut peer) = Scene::server(&configs, ListenOptions::default());
            scene.handshake(&mut peer, &mut answer_at_end);
            // With TLS 1.3 the last message of the handshake is in it, too.
            let mut bytes = peer.records(b"request");
            bytes.extend(peer.close_record());
            scene.drip(&mut peer, &bytes, size, &mut answer_at_end);
            peer.fin();
            scene.play(&mut peer, &mut answer_at_end);
            assert_eq!(kinds(&scene), ["connection", "ready", "data", "end", "close"], "pieces of {size}");
            assert_eq!((&scene.data[..], &peer.data[..]), (&b"request"[..], &b"answer"[..]));
            assert!(peer.has_close_notify && peer.has_fin && !peer.is_reset);
            assert!(scene.last().contains("7 bytes read, 6 written"), "{}", scene.last());
        }
    }
}

#[test]
fn a_client_sees_the_same_events_however_the_peer_cuts_its_bytes() {
    for configs in [Configs::tls13(), Configs::tls12()] {
        for size in PIECES {
            let (mut scene, _, mut peer) = Scene::client(&configs, ConnectOptions::default());
            let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| match event {
                Event::Ready => drop(socket.write(b"question")),
                Event::End => socket.end(),
                _ => {}
            };
            // Every flight of the handshake in pieces, too.
            for _ in 0..20 {
                let out = peer.output();
                scene.drip(&mut peer, &out, size, &mut program);
                scene.step(Duration::from_millis(5), &mut program);
                peer.turn();
            }
            assert_eq!(peer.data, b"question");
            let mut bytes = peer.records(b"answer");
            bytes.extend(peer.close_record());
            scene.drip(&mut peer, &bytes, size, &mut program);
            peer.fin();
            scene.play(&mut peer, &mut program);
            assert_eq!(kinds(&scene), ["ready", "data", "end", "close"], "pieces of {size}");
            assert!(peer.has_close_notify && peer.has_fin && !peer.is_reset);
        }
    }
}

#[test]
fn data_of_any_size_arrives_whole_and_in_order() {
    for configs in [Configs::tls13(), Configs::tls12()] {
        for count in [0, 1, 16_383, 16_384, 16_385, 100_000] {
            let sent: Vec<u8> = (0..count).map(|at: u32| (at % 251) as u8).collect();
            let (mut scene, mut peer) = Scene::server(&configs, ListenOptions::default());
            let mut echo = |socket: &mut TlsSocket<'_>, event: Event<'_>| match event {
                Event::Data(bytes) => drop(socket.write(bytes)),
                Event::End => socket.end(),
                _ => {}
            };
            scene.handshake(&mut peer, &mut echo);
            let bytes = peer.records(&sent);
            scene.drip(&mut peer, &bytes, 5000, &mut echo);
            peer.close_notify();
            peer.fin();
            scene.play(&mut peer, &mut echo);
            assert!(scene.data == sent && peer.data == sent, "{count} bytes");
            assert!(peer.has_close_notify && scene.last().starts_with("close: clean"), "{}", scene.last());
        }
    }
}

#[test]
fn what_the_program_does_not_take_is_delivered_later() {
    // The program takes one event of each result and leaves the loop.
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
    scene.handshake(&mut peer, &mut |_, _| {});
    scene.seen.clear();
    let mut bytes = peer.records(b"request");
    bytes.extend(peer.close_record());
    peer.raw(&bytes);
    let until = scene.network.now() + Duration::from_secs(1);
    while let Some((mut socket, event)) = scene.reactor.next_before(until).expect("it continues") {
        let mut events = scene.tls.handle(&mut socket, event);
        if let Some((mut socket, event)) = events.next() {
            scene.seen.push(event.to_string());
            if matches!(event, Event::End) {
                socket.end();
            }
        }
    }
    assert_eq!(scene.events(), ["ready", "data, 7 bytes", "end"]);
    peer.fin();
    scene.play(&mut peer, &mut |_, _| {});
    assert!(scene.last().starts_with("close: clean"), "{}", scene.last());
}

#[test]
fn an_event_that_the_program_does_not_take_changes_nothing() {
    // Early writes and an early end, and results that are dropped without one call of `next`.
    let (mut scene, id, mut peer) = Scene::client(&Configs::tls13(), ConnectOptions::default());
    {
        let mut context = scene.tls.context(scene.reactor.context());
        let mut socket = finale::Streams::stream(&mut context, id).expect("it is open");
        socket.write(b"question").expect("room");
        socket.end();
    }
    for _ in 0..20 {
        let until = scene.network.now() + Duration::from_millis(5);
        while let Some((mut socket, event)) = scene.reactor.next_before(until).expect("it continues") {
            if !matches!(event, Event::Timer(_)) {
                drop(scene.tls.handle(&mut socket, event));
            }
        }
        peer.turn();
        if !peer.tls.is_handshaking() && peer.data.is_empty() {
            peer.write(b"0");
        }
    }
    assert_eq!((peer.error.as_deref(), &peer.data[..]), (None, &b"question"[..]));
    assert!(peer.has_close_notify && peer.has_fin);
}

#[test]
fn after_destroy_there_is_nothing_but_close() {
    for when in ["connection", "ready", "data", "end"] {
        let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
        let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
            if event.to_string().starts_with(when) {
                socket.destroy();
            }
        };
        if when == "connection" {
            scene.play(&mut peer, &mut program);
        } else {
            scene.handshake(&mut peer, &mut program);
            let mut bytes = peer.records(b"request");
            bytes.extend(peer.close_record());
            peer.raw(&bytes);
            scene.play(&mut peer, &mut program);
        }
        let all = ["connection", "ready", "data, 7 bytes", "end"];
        let count = all.iter().position(|event| event.starts_with(when)).expect("it is one") + 1;
        assert_eq!(scene.events()[..count], all[..count]);
        assert_eq!(scene.seen.len(), count + 1, "{:?}", scene.seen);
        assert!(scene.last().starts_with("close: "), "{:?}", scene.seen);
        assert!(peer.is_reset && scene.tls.is_empty());
    }
}

#[test]
fn what_follows_close_notify_is_ignored() {
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
    scene.handshake(&mut peer, &mut answer_at_end);
    let mut bytes = peer.records(b"request");
    bytes.extend(peer.close_record());
    bytes.extend(b"this is no record at all, and follows the end");
    peer.raw(&bytes);
    scene.play(&mut peer, &mut answer_at_end);
    peer.raw(b"and more");
    peer.fin();
    scene.play(&mut peer, &mut answer_at_end);
    assert_eq!(kinds(&scene), ["connection", "ready", "data", "end", "close"]);
    assert!(peer.has_close_notify && scene.last().starts_with("close: clean"), "{}", scene.last());
}
