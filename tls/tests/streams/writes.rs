//! Writes and `end` before, at and after the limits.

use finale::{Backpressure, ConnectOptions, Error, Event, ListenOptions, Stream, Streams};
use finale_tls::TlsSocket;

use crate::scene::{Configs, Scene};

#[test]
fn what_is_written_before_ready_arrives_first_and_ends_before_ready() {
    for configs in [Configs::tls13(), Configs::tls12()] {
        let (mut scene, id, mut peer) = Scene::client(&configs, ConnectOptions::default());
        {
            let mut context = scene.tls.context(scene.reactor.context());
            let mut socket = context.stream(id).expect("it is open");
            assert_eq!(socket.write(b"one, "), Ok(Backpressure::Room));
            assert_eq!(socket.write_parts(&[b"two", b", "]), Ok(Backpressure::Room));
            assert_eq!(socket.queued_bytes(), 10);
        }
        scene.play(&mut peer, &mut |socket, event| {
            if matches!(event, Event::Ready) {
                socket.write(b"three").expect("room");
                socket.end();
            }
        });
        assert_eq!(peer.data, b"one, two, three");
        assert!(peer.has_close_notify && peer.has_fin);
        peer.close_notify();
        peer.fin();
        scene.play(&mut peer, &mut |_, _| {});
        assert!(scene.last().contains("clean") && scene.last().contains("15 written"), "{}", scene.last());
    }
}

#[test]
fn an_end_before_ready_follows_what_was_written() {
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
    let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
        if matches!(event, Event::Connection) {
            socket.write(b"greeting").expect("room");
            socket.end();
            socket.end();
            assert!(socket.end_called());
            assert_eq!(socket.write(b"more"), Err(Error::WriteAfterEnd));
        }
    };
    scene.play(&mut peer, &mut program);
    assert_eq!(peer.data, b"greeting");
    assert!(peer.has_close_notify && peer.has_fin);
    peer.write(b"still read");
    peer.close_notify();
    peer.fin();
    scene.play(&mut peer, &mut program);
    assert_eq!(scene.events()[..4], ["connection", "ready", "data, 10 bytes", "end"]);
    assert!(scene.last().contains("clean"), "{}", scene.last());
}

#[test]
fn early_writes_fill_the_queue_and_drain_after_ready() {
    let options = ListenOptions::default().high_water_mark(1000).low_water_mark(0).write_limit(2000);
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), options);
    let mut results = Vec::new();
    let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
        if matches!(event, Event::Connection) {
            for _ in 0..3 {
                results.push(socket.write(&[7; 999]));
            }
            results.push(socket.write(&[7; 1]));
        }
    };
    scene.play(&mut peer, &mut program);
    assert_eq!(results[..3], [Ok(Backpressure::Room), Ok(Backpressure::Full), Ok(Backpressure::Full)]);
    assert_eq!(results[3], Err(Error::QueueFull { queued_bytes: 2997, limit_bytes: 2000 }));
    assert_eq!(peer.data.len(), 2997);
    assert_eq!(scene.events(), ["connection", "ready", "drain"]);
}

#[test]
fn a_small_write_limit_loses_nothing_that_was_accepted() {
    for limit in [1, 10, 100] {
        let options = ConnectOptions::default().high_water_mark(1).low_water_mark(0).write_limit(limit);
        let (mut scene, id, mut peer) = Scene::client(&Configs::tls13(), options);
        {
            let mut context = scene.tls.context(scene.reactor.context());
            let mut socket = context.stream(id).expect("it is open");
            assert_eq!(socket.write(b"question"), Ok(Backpressure::Full));
        }
        scene.play(&mut peer, &mut |socket, event| {
            if matches!(event, Event::Drain) && !socket.end_called() {
                socket.write(b", another").expect("room after drain");
                socket.end();
            }
        });
        assert_eq!((peer.error.as_deref(), &peer.data[..]), (None, &b"question, another"[..]), "limit {limit}");
        assert!(peer.has_close_notify && peer.has_fin, "{:?}", scene.seen);
    }
}

#[test]
fn an_end_at_a_full_queue_sends_close_notify_after_the_last_byte() {
    for half_open in [true, false] {
        let options = ListenOptions::default()
            .high_water_mark(1000)
            .low_water_mark(0)
            .write_limit(1000)
            .allow_half_open(half_open);
        let (mut scene, mut peer) = Scene::narrow_server(&Configs::tls13(), options);
        let mut results = Vec::new();
        let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
            if matches!(event, Event::Data(_)) {
                results.push(socket.write(&[9; 200_000]).map(|_| ()));
                results.push(socket.write(&[9; 1]).map(|_| ()).map_err(|_| Error::Gone));
                if half_open {
                    socket.end();
                }
            }
        };
        scene.handshake(&mut peer, &mut program);
        peer.write(b"request");
        peer.close_notify();
        peer.fin();
        scene.play(&mut peer, &mut program);
        assert_eq!(results, [Ok(()), Err(Error::Gone)]);
        assert_eq!(peer.data.len(), 200_000);
        assert!(peer.has_close_notify && peer.has_fin, "{half_open}: {:?}", scene.seen);
        assert!(scene.last().contains("clean") && scene.last().contains("200000 written"), "{}", scene.last());
    }
}

#[test]
fn parts_arrive_as_one_stream() {
    let sizes = [[0, 0, 5], [16_384, 1, 0], [16_383, 2, 16_384], [40_000, 0, 40_000], [3, 70_000, 3], [1, 16_383, 1]];
    for configs in [Configs::tls13(), Configs::tls12()] {
        for sizes in sizes {
            let (mut scene, mut peer) = Scene::server(&configs, ListenOptions::default());
            let parts: Vec<Vec<u8>> =
                sizes.iter().zip(1..).map(|(size, number): (&usize, u8)| vec![number; *size]).collect();
            scene.play(&mut peer, &mut |socket, event| {
                if matches!(event, Event::Ready) {
                    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                    socket.write_parts(&parts).expect("room");
                    socket.end();
                }
            });
            assert!(peer.data == parts.concat(), "{sizes:?}: {} bytes", peer.data.len());
            assert!(peer.has_close_notify);
        }
    }
}

#[test]
fn the_numbers_of_bytes_are_those_of_the_stream() {
    let options = ListenOptions::default().high_water_mark(1000).low_water_mark(0).write_limit(100_000);
    let (mut scene, mut peer) = Scene::narrow_server(&Configs::tls13(), options);
    scene.handshake(&mut peer, &mut |_, _| {});
    peer.write(b"request");
    scene.step(std::time::Duration::from_millis(50), &mut |socket, event| {
        if matches!(event, Event::Data(_)) {
            assert_eq!(socket.bytes_read(), 7);
            socket.write(&[1; 2000]).expect("room");
            socket.write(&[2; 50_000]).expect("room");
            assert_eq!(socket.bytes_written(), 0);
        }
    });
    // The peer does not read: the kernels have the first write, and 6,000 bytes in all.
    peer.reset();
    scene.step(std::time::Duration::from_millis(50), &mut |_, _| {});
    assert!(scene.last().contains("7 bytes read, 5971 written, 46029 never sent"), "{}", scene.last());
}

#[test]
fn close_notify_and_fin_leave_in_one_segment_after_the_last_record() {
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
    scene.handshake(&mut peer, &mut |_, _| {});
    scene.play(&mut peer, &mut |_, _| {});
    scene.network.record();
    peer.write(b"request");
    scene.play(&mut peer, &mut |socket, event| {
        if matches!(event, Event::Data(_)) {
            socket.write(b"answer").expect("room");
            socket.end();
        }
    });
    let sent: Vec<_> = scene.network.take_transcript();
    let sent: Vec<_> =
        sent.iter().filter(|line| line.contains("10.0.0.1:443 >") && !line.contains(" 0 bytes")).collect();
    assert!(sent.len() == 1 && sent[0].contains("FIN"), "{sent:#?}");
}

#[test]
fn a_drain_that_is_requested_while_tickets_fill_the_queue_is_delivered() {
    let mut configs = Configs::tls13();
    configs.server.send_tls13_tickets = 40;
    configs.server.session_storage = finale_tls::rustls::server::ServerSessionMemoryCache::new(100);
    let options = ListenOptions::default().high_water_mark(100).write_limit(100);
    let (mut scene, mut peer) = Scene::narrow_server(&configs, options);
    let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| match event {
        Event::Connection => drop(socket.write(b"early").expect("room")),
        Event::Ready => assert!(socket.request_drain(), "{} bytes wait", socket.queued_bytes()),
        Event::Drain => assert_eq!(socket.queued_bytes(), 0),
        _ => {}
    };
    scene.play(&mut peer, &mut program);
    assert_eq!(peer.data, b"early");
    assert_eq!(scene.events(), ["connection", "ready", "drain"]);
}
