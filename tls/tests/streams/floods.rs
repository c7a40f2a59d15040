//! Peers that send much and say nothing.

use std::time::Duration;

use finale::{Backpressure, ConnectOptions, Event, LayerErrorKind, ListenOptions, Stream};
use finale_tls::{TlsFailure, TlsSocket};

use crate::forge::{ALERT, DATA, HANDSHAKE, plain};
use crate::scene::{Configs, Peer, Scene};

/// A server and a client of both versions after the handshake.
fn scenes(play: impl Fn(&mut Scene, &mut Peer, &str)) {
    for (version, configs) in [("1.3", Configs::tls13()), ("1.2", Configs::tls12())] {
        let (mut scene, mut peer) = Scene::server(&configs, ListenOptions::default());
        scene.play(&mut peer, &mut |_, _| {});
        play(&mut scene, &mut peer, &format!("server, {version}"));
        let (mut scene, _, mut peer) = Scene::client(&configs, ConnectOptions::default());
        scene.play(&mut peer, &mut |_, _| {});
        play(&mut scene, &mut peer, &format!("client, {version}"));
    }
}

/// Sends `count` records, and returns how the stream failed.
fn flood(scene: &mut Scene, peer: &mut Peer, count: usize, mut record: impl FnMut() -> Vec<u8>) -> Option<String> {
    let mut found = None;
    let bytes: Vec<u8> = (0..count).flat_map(|_| record()).collect();
    scene.drip(peer, &bytes, 4000, &mut |socket: &mut TlsSocket<'_>, event| {
        if let Event::Error(error) = event {
            assert!(socket.failure().is_some());
            found = Some(error.to_string());
        }
    });
    found
}

#[test]
fn empty_records_are_bounded() {
    scenes(|scene, peer, name| {
        let mut forger = peer.forger();
        assert_eq!(flood(scene, peer, 30, || forger.record(DATA, b"")), None, "{name}: some are permitted");
        assert_eq!(flood(scene, peer, 1, || forger.record(DATA, b"x")), None, "{name}");
        assert_eq!(scene.data, b"x");
        let found = flood(scene, peer, 200, || forger.record(DATA, b"")).expect("it fails");
        assert!(found.contains("TooManyEmptyFragments"), "{name}: {found}");
    });
}

#[test]
fn alerts_are_bounded() {
    scenes(|scene, peer, name| {
        let mut forger = peer.forger();
        // user_canceled, the only warning that TLS 1.3 permits.
        let found = flood(scene, peer, 100, || forger.record(ALERT, &[1, 90])).expect("it fails");
        assert!(found.contains("TooManyWarningAlertsReceived"), "{name}: {found}");
        assert!(!scene.seen.iter().any(|event| event == "end"), "{name}: {:?}", scene.seen);
    });
}

#[test]
fn key_updates_are_bounded() {
    let configs = Configs::tls13();
    let (mut scene, mut peer) = Scene::server(&configs, ListenOptions::default());
    let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
        if let Event::Data(bytes) = event {
            socket.write(bytes).expect("room");
        }
    };
    scene.play(&mut peer, &mut program);
    // Some, with data between them, work in both directions.
    for _ in 0..100 {
        peer.tls.refresh_traffic_keys().expect("after the handshake");
        peer.write(b"x");
        scene.step(Duration::from_millis(1), &mut program);
        peer.turn();
    }
    scene.play(&mut peer, &mut program);
    assert_eq!((scene.data.len(), peer.data.len(), peer.error.clone()), (100, 100, None), "{:?}", scene.last());
    for _ in 0..100 {
        peer.tls.refresh_traffic_keys().expect("after the handshake");
        let bytes = peer.output();
        peer.raw(&bytes);
        scene.step(Duration::from_millis(1), &mut program);
    }
    let error = scene.events().into_iter().find(|event| event.starts_with("error")).expect("it fails").to_owned();
    assert!(error.contains("TooManyKeyUpdateRequests") || error.contains("too many"), "{error}");
}

#[test]
fn tickets_are_bounded() {
    let (mut scene, _, mut peer) = Scene::client(&Configs::tls13(), ConnectOptions::default());
    scene.play(&mut peer, &mut |_, _| {});
    let mut forger = peer.forger();
    // lifetime, age_add, a nonce, a ticket, no extensions.
    let ticket = [&[4, 0, 0, 4 + 4 + 2 + 3 + 2][..], &[0, 0, 1, 0], &[0; 4], &[1, 9], &[0, 1, 7], &[0, 0]].concat();
    let found = flood(&mut scene, &mut peer, 1000, || forger.record(HANDSHAKE, &ticket)).expect("it fails");
    assert!(found.contains("too many"), "{found}");
}

#[test]
fn renegotiation_is_refused_and_bounded() {
    let (mut scene, _, mut peer) = Scene::client(&Configs::tls12(), ConnectOptions::default());
    scene.play(&mut peer, &mut |_, _| {});
    let mut forger = peer.forger();
    assert_eq!(flood(&mut scene, &mut peer, 1, || forger.record(HANDSHAKE, &[0, 0, 0, 0])), None);
    assert_eq!(flood(&mut scene, &mut peer, 1, || forger.record(DATA, b"goes on")), None);
    assert_eq!(scene.data, b"goes on");
    let found = flood(&mut scene, &mut peer, 100, || forger.record(HANDSHAKE, &[0, 0, 0, 0])).expect("it fails");
    assert!(!found.is_empty());
}

/// Its refusal has no room. The answer to a key update waits in rustls for the next data instead.
#[test]
fn a_renegotiation_at_a_full_queue_fails_with_that_reason_and_a_key_update_does_not() {
    for (configs, message, fails) in
        [(Configs::tls12(), &[0, 0, 0, 0][..], true), (Configs::tls13(), &[24, 0, 0, 1, 1], false)]
    {
        let options = ConnectOptions::default().high_water_mark(1000).write_limit(1000);
        let (mut scene, _, mut peer) = Scene::client(&configs, options);
        scene.play(&mut peer, &mut |_, _| {});
        let mut forger = peer.forger();
        let mut error = None;
        let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| match event {
            Event::Data(_) => assert_eq!(socket.write(&[9; 4_000_000]), Ok(Backpressure::Full)),
            Event::Error(found) => error = Some(found.to_string()),
            _ => {}
        };
        for record in [forger.record(DATA, b"a request"), forger.record(HANDSHAKE, message)] {
            scene.drip(&mut peer, &record, 4000, &mut program);
        }
        assert_eq!(error.is_some(), fails, "{error:?}");
        assert!(error.is_none_or(|error| error.contains("had to be answered while the queue was full")));
    }
}

#[test]
fn a_message_that_never_ends_is_bounded() {
    scenes(|scene, peer, name| {
        let mut forger = peer.forger();
        let head = forger.record(HANDSHAKE, &[4, 0, 0xff, 0xff]);
        assert_eq!(flood(scene, peer, 1, || head.clone()), None, "{name}");
        let found = flood(scene, peer, 100_000, || forger.record(HANDSHAKE, &[0])).expect("it fails");
        assert!(!found.is_empty(), "{name}: {found}");
    });
}

#[test]
fn a_handshake_that_never_ends_is_bounded_in_bytes() {
    for size in [1, 100, 16_384] {
        let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
        scene.step(Duration::from_millis(5), &mut |_, _| {});
        let _ = peer.output();
        let head = plain(HANDSHAKE, &[1, 0, 0xff, 0xff]);
        assert_eq!(flood(&mut scene, &mut peer, 1, || head.clone()), None);
        let found = flood(&mut scene, &mut peer, 300_000 / size, || plain(HANDSHAKE, &vec![0; size]));
        let found = found.expect("it fails");
        assert!(found.contains("handshake"), "{size}: {found}");
    }
}

#[test]
fn a_flood_is_reset_and_a_handshake_in_pieces_is_not() {
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
    let hello = peer.output();
    // Each byte of the first message in a record of its own.
    let bytes: Vec<u8> = hello[5..].chunks(1).flat_map(|byte| plain(HANDSHAKE, byte)).collect();
    scene.drip(&mut peer, &bytes, 1000, &mut |_, _| {});
    scene.play(&mut peer, &mut |_, _| {});
    assert_eq!(scene.events(), ["connection", "ready"]);
    let mut forger = peer.forger();
    let mut kind = None;
    let bytes: Vec<u8> = (0..200).flat_map(|_| forger.record(DATA, b"")).collect();
    scene.drip(&mut peer, &bytes, 4000, &mut |socket, event| {
        if let Event::Error(error) = event {
            kind = Some((error.kind, matches!(socket.failure(), Some(TlsFailure::Flood | TlsFailure::Local { .. }))));
        }
    });
    assert_eq!(kind, Some((finale::ConnectionErrorKind::Layer(LayerErrorKind::Protocol), true)));
    assert!(scene.tls.is_empty() || !scene.seen.is_empty());
}
