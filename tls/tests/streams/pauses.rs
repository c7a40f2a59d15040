//! Pause, hold and discard, before, in and after each event.

use finale::{ConnectOptions, Event, ListenOptions, Stream, Streams};
use finale_tls::TlsSocket;

use crate::scene::{Configs, Peer, Scene};

/// Calls something on the socket of the first connection.
fn with(scene: &mut Scene, id: finale::SocketId, change: impl FnOnce(&mut TlsSocket<'_>)) {
    let mut context = scene.tls.context(scene.reactor.context());
    change(&mut context.stream(id).expect("it is open"));
}

/// A request, close_notify and a FIN at once.
fn send_all(peer: &mut Peer) {
    let mut bytes = peer.records(b"request");
    bytes.extend(peer.close_record());
    peer.raw(&bytes);
    peer.fin();
}

#[test]
fn a_pause_in_any_event_holds_back_what_follows_until_resume() {
    for is_hold in [false, true] {
        for (when, rest) in [
            ("connection", &["data, 7 bytes", "end"][..]),
            ("ready", &["data, 7 bytes", "end"][..]),
            ("data", &["end"][..]),
        ] {
            let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
            let mut id = None;
            let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
                id = Some(socket.id());
                if event.to_string().starts_with(when) {
                    if is_hold { socket.hold() } else { socket.pause() }
                }
                if matches!(event, Event::End) {
                    socket.end();
                }
            };
            scene.handshake(&mut peer, &mut program);
            send_all(&mut peer);
            scene.play(&mut peer, &mut program);
            let id = id.expect("connected");
            with(&mut scene, id, |socket| assert!(socket.is_paused()));
            let held = scene.seen.len();
            let all = ["connection", "ready", "data, 7 bytes", "end"];
            assert_eq!(scene.events(), all[..4 - rest.len()], "paused in {when}");
            with(&mut scene, id, |socket| if is_hold { socket.release() } else { socket.resume() });
            scene.play(&mut peer, &mut |socket, event| {
                if matches!(event, Event::End) {
                    socket.end();
                }
            });
            assert_eq!(scene.events()[held..held + rest.len()], *rest, "paused in {when}");
            assert!(scene.last().starts_with("close: clean"), "{:?}", scene.seen);
            assert!(peer.has_close_notify && !peer.is_reset);
        }
    }
}

#[test]
fn a_paused_stream_does_not_end_by_itself() {
    // Our side has ended, the peer too: what it sent still waits for the program.
    for when in ["connection", "ready"] {
        let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
        let mut id = None;
        let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
            id = Some(socket.id());
            if event.to_string() == when {
                socket.pause();
                socket.end();
            }
        };
        scene.handshake(&mut peer, &mut program);
        send_all(&mut peer);
        scene.play(&mut peer, &mut program);
        assert_eq!(scene.events(), ["connection", "ready"]);
        with(&mut scene, id.expect("connected"), |socket| socket.resume());
        scene.play(&mut peer, &mut |_, _| {});
        assert_eq!(scene.events()[2..4], ["data, 7 bytes", "end"]);
        assert!(scene.last().starts_with("close: clean"), "{:?}", scene.seen);
    }
}

#[test]
fn a_hold_and_a_pause_are_independent() {
    for first_release in [true, false] {
        let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
        let mut id = None;
        let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
            id = Some(socket.id());
            if matches!(event, Event::Connection) {
                socket.pause();
                socket.hold();
            }
        };
        scene.handshake(&mut peer, &mut program);
        peer.write(b"request");
        scene.play(&mut peer, &mut program);
        let id = id.expect("connected");
        with(&mut scene, id, |socket| if first_release { socket.release() } else { socket.resume() });
        scene.play(&mut peer, &mut |_, _| {});
        assert!(scene.data.is_empty());
        with(&mut scene, id, |socket| assert!(socket.is_paused()));
        with(&mut scene, id, |socket| if first_release { socket.resume() } else { socket.release() });
        scene.play(&mut peer, &mut |_, _| {});
        assert_eq!(scene.data, b"request");
    }
}

#[test]
fn a_pause_after_the_end_does_not_keep_the_socket_open() {
    for is_failed in [false, true] {
        let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
        let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
            if matches!(event, Event::End | Event::Error(_)) {
                socket.pause();
                socket.end();
            }
        };
        scene.handshake(&mut peer, &mut program);
        peer.write(b"request");
        if is_failed {
            peer.raw(b"this is no record");
        } else {
            peer.close_notify();
        }
        scene.play(&mut peer, &mut program);
        peer.fin();
        scene.play(&mut peer, &mut program);
        assert!(scene.last().starts_with("close: "), "{:?}", scene.seen);
        assert!(!scene.last().contains("timed out"), "{:?}", scene.seen);
    }
}

#[test]
fn a_listener_that_starts_paused_makes_the_handshake_and_nothing_more() {
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default().start_paused(true));
    let mut id = None;
    let mut program = |socket: &mut TlsSocket<'_>, _: Event<'_>| id = Some(socket.id());
    scene.handshake(&mut peer, &mut program);
    peer.write(b"request");
    scene.play(&mut peer, &mut program);
    assert_eq!(scene.events(), ["connection", "ready"]);
    with(&mut scene, id.expect("connected"), |socket| socket.resume());
    scene.play(&mut peer, &mut |_, _| {});
    assert_eq!(scene.data, b"request");
}

#[test]
fn discarded_data_is_counted_and_the_end_is_delivered() {
    for when in ["connection", "ready", "data"] {
        let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
        let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
            if event.to_string().starts_with(when) {
                socket.pause();
                socket.discard();
                assert!(socket.is_discarding() && !socket.is_paused());
            }
            if matches!(event, Event::End) {
                socket.end();
            }
        };
        scene.handshake(&mut peer, &mut program);
        peer.write(b"request");
        scene.play(&mut peer, &mut program);
        peer.write(&[0; 40_000]);
        peer.close_notify();
        peer.fin();
        scene.play(&mut peer, &mut program);
        let data = scene.seen.iter().filter(|event| event.starts_with("data")).count();
        assert_eq!(data, usize::from(when == "data"), "{:?}", scene.seen);
        assert_eq!(scene.seen[scene.seen.len() - 2], "end");
        assert!(scene.last().contains("40007 bytes read"), "{}", scene.last());
    }
}

#[test]
fn a_truncation_is_found_also_by_a_program_that_discards() {
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
    let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
        if matches!(event, Event::Ready) {
            socket.end();
            socket.discard();
        }
    };
    scene.handshake(&mut peer, &mut program);
    peer.write(b"request");
    peer.fin();
    scene.play(&mut peer, &mut program);
    assert!(scene.last().starts_with("close: error: truncated"), "{:?}", scene.seen);
    assert!(!scene.seen.contains(&"end".to_owned()));
}

#[test]
fn our_end_follows_theirs_without_half_open_also_after_a_pause() {
    for paused_in in ["", "connection", "ready"] {
        let is_paused = !paused_in.is_empty();
        let options = ListenOptions::default().allow_half_open(false);
        let (mut scene, mut peer) = Scene::server(&Configs::tls13(), options);
        let mut id = None;
        let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
            id = Some(socket.id());
            if event.to_string() == paused_in {
                socket.pause();
            }
            if matches!(event, Event::Data(_)) {
                socket.write(b"answer").expect("room");
            }
        };
        scene.handshake(&mut peer, &mut program);
        send_all(&mut peer);
        scene.play(&mut peer, &mut program);
        assert_eq!(peer.has_fin, !is_paused, "{:?}", scene.seen);
        with_if_open(&mut scene, id, |socket| socket.resume());
        scene.play(&mut peer, &mut |socket, event| {
            if matches!(event, Event::Data(_)) {
                socket.write(b"answer").expect("room");
            }
        });
        assert!(peer.has_close_notify && peer.has_fin && peer.data == b"answer", "{:?}", scene.seen);
        assert_eq!(scene.events()[2..4], ["data, 7 bytes", "end"]);
    }
}

fn with_if_open(scene: &mut Scene, id: Option<finale::SocketId>, change: impl FnOnce(&mut TlsSocket<'_>)) {
    let mut context = scene.tls.context(scene.reactor.context());
    if let Some(mut socket) = id.and_then(|id| context.stream(id)) {
        change(&mut socket);
    }
}

#[test]
fn a_reset_while_paused_is_known_and_follows_what_was_not_read() {
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
    let mut id = None;
    let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
        id = Some(socket.id());
        if matches!(event, Event::Ready) {
            socket.pause();
        }
    };
    scene.play(&mut peer, &mut program);
    peer.write(b"request");
    scene.play(&mut peer, &mut program);
    peer.reset();
    scene.play(&mut peer, &mut program);
    assert_eq!(scene.events()[..2], ["connection", "ready"]);
    assert!(scene.events().len() == 3 && scene.events()[2].contains("reset"), "{:?}", scene.seen);
    with(&mut scene, id.expect("connected"), |socket| {
        assert!(socket.peer_ended());
        socket.resume();
    });
    scene.play(&mut peer, &mut |_, _| {});
    assert_eq!(scene.events()[3], "data, 7 bytes");
    assert!(scene.events()[4].starts_with("error: truncated: a reset"), "{:?}", scene.seen);
    assert_eq!(scene.events().len(), 6);
}

#[test]
fn two_streams_that_are_resumed_at_once_get_all_their_events() {
    let configs = Configs::tls13();
    let (mut scene, mut first) = Scene::server(&configs, ListenOptions::default());
    let mut second = scene.another(&configs);
    let mut ids = Vec::new();
    let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| match event {
        Event::Ready => ids.push(socket.id()),
        Event::Data(_) => socket.pause(),
        _ => {}
    };
    scene.handshake(&mut first, &mut program);
    scene.handshake(&mut second, &mut program);
    for peer in [&mut first, &mut second] {
        let mut bytes = peer.records(b"request");
        bytes.extend(peer.close_record());
        peer.raw(&bytes);
    }
    scene.play(&mut first, &mut program);
    assert_eq!(scene.events().iter().filter(|event| **event == "end").count(), 0);
    for id in ids {
        with(&mut scene, id, |socket| socket.resume());
    }
    // One event of each result is taken.
    let until = scene.network.now() + std::time::Duration::from_secs(1);
    while let Some((mut socket, event)) = scene.reactor.next_before(until).expect("it continues") {
        let mut events = scene.tls.handle(&mut socket, event);
        if let Some((_, event)) = events.next() {
            scene.seen.push(event.to_string());
        }
    }
    assert_eq!(scene.events().iter().filter(|event| **event == "end").count(), 2);
}

#[test]
fn a_client_can_be_paused_before_it_is_connected() {
    let (mut scene, id, mut peer) = Scene::client(&Configs::tls13(), ConnectOptions::default());
    with(&mut scene, id, |socket| socket.pause());
    scene.play(&mut peer, &mut |_, _| {});
    send_all(&mut peer);
    scene.play(&mut peer, &mut |_, _| {});
    assert_eq!(scene.events(), ["ready"]);
    with(&mut scene, id, |socket| socket.resume());
    scene.play(&mut peer, &mut |socket, event| {
        if matches!(event, Event::End) {
            socket.end();
        }
    });
    assert_eq!(scene.events()[1..3], ["data, 7 bytes", "end"]);
}

#[test]
fn what_is_delivered_just_before_the_close_counts_as_read() {
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
    let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
        if matches!(event, Event::Ready) {
            socket.pause();
            socket.socket().set_deadline(std::time::Duration::from_secs(5));
        }
    };
    scene.handshake(&mut peer, &mut program);
    peer.write(b"request");
    scene.play(&mut peer, &mut program);
    scene.step(std::time::Duration::from_secs(10), &mut program);
    assert_eq!(scene.events()[2], "data, 7 bytes", "{:?}", scene.seen);
    assert!(scene.last().contains("7 bytes read"), "{:?}", scene.seen);
}
