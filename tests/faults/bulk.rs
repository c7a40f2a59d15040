//! Writing much, and from one copy: what is sent in which call, and that no memory is held for what
//! was sent or can't be sent any more.

use std::sync::Arc;
use std::time::Duration;

use finale::{Backpressure, Buffer, Error, Event, ListenOptions};

use support::faulty::faulty_registered;
use support::scene::Scene;
use support::{Transcript, alone::alone, pattern};

const SECOND: Duration = Duration::from_secs(1);

/// WR01: the peer gets the exact bytes of copied and given pieces, wherever in them a send stops.
#[test]
fn short_vectored_writes_end_in_any_piece_and_arrive_to_the_byte() {
    for bite in [Some(97), Some(3_000), Some(20_000), None] {
        let (mut scene, peer, faulty) = faulty_registered(ListenOptions::default());
        faulty.orders().bite = bite;
        if bite.is_none() {
            scene.network.set_faults(finale::sim::Faults { short_write: 0.9, ..finale::sim::Faults::none() });
        }
        let answer = Arc::new(pattern(60_000));
        scene.with(|socket| {
            let mut at = 0;
            for count in [10, 3_000, 20_000, 5, 7_000, 2_048, 27_937] {
                let written = match count % 2 {
                    0 => socket.write_owned(Buffer::shared(&answer, at..at + count)),
                    _ => socket.write(&answer[at..at + count]),
                };
                assert_eq!(written, Ok(Backpressure::Room));
                at += count;
            }
            assert_eq!((at, socket.queued_bytes()), (60_000, 60_000));
            socket.end();
        });
        let mut got = Vec::new();
        while !peer.has_fin() {
            scene.run(Duration::from_millis(10));
            got.extend(peer.read());
            assert!(scene.network.elapsed() < 1000 * SECOND, "{bite:?}: {} bytes", got.len());
        }
        assert!(got == *answer, "{bite:?}: not the same bytes");
        let orders = faulty.orders();
        assert_eq!(orders.sent.iter().map(|(bytes, _)| bytes).sum::<usize>(), 60_000);
        assert!(orders.pieces[0] >= 6, "the first send has all pieces: {:?}", orders.pieces);
        drop(orders);
        assert_eq!(Arc::strong_count(&answer), 1, "what was sent is dropped");
        peer.close();
        scene.expect(&["end", "close"]);
        scene.rest();
    }
}

/// WR09: what is written in one event is one call and, if it fits, one segment, which includes our
/// FIN.
#[test]
fn many_writes_and_an_end_are_one_call_and_one_segment() {
    let (mut scene, peer, faulty) = faulty_registered(ListenOptions::default());
    scene.network.record();
    scene.with(|socket| {
        (0..20).for_each(|_| drop(socket.write(b"piece ")));
        assert_eq!(socket.write_owned("and the last"), Ok(Backpressure::Room));
        socket.end();
    });
    scene.run(SECOND);
    assert_eq!(peer.read(), ["piece ".repeat(20), "and the last".to_owned()].concat().into_bytes());
    assert_eq!(faulty.orders().sent, [(132, true)]);
    assert_eq!(faulty.orders().pieces, [0; 0], "one piece needs no vectored call");
    let ours: Vec<String> =
        scene.network.take_transcript().into_iter().filter(|line| line.contains("132 bytes")).collect();
    assert!(ours.len() == 1 && ours[0].contains("FIN"), "{ours:?}");
    peer.close();
    scene.expect(&["end", "close"]);
    scene.rest();
}

/// WR09: a head, a body and a tail are sent in one call; only what our FIN follows may be held
/// back.
#[test]
fn pieces_leave_in_one_call_and_only_the_last_call_promises_more() {
    let (mut scene, peer, faulty) = faulty_registered(ListenOptions::default().send_buffer_size(1 << 20));
    let body = Arc::new(pattern(5_000));
    scene.with(|socket| {
        drop(socket.write(b"head"));
        drop(socket.write_owned(Arc::clone(&body)));
        drop(socket.write(b"tail"));
    });
    scene.run(SECOND);
    assert_eq!(faulty.orders().sent, [(5_008, false)]);
    assert_eq!(faulty.orders().pieces, [3]);
    assert_eq!(peer.read(), [b"head", &body[..], b"tail"].concat());
    // More pieces than one call takes.
    scene.with(|socket| {
        (0..100).for_each(|_| drop(socket.write_owned(Buffer::shared(&body, ..2_048))));
        socket.end();
    });
    scene.run(SECOND);
    assert_eq!(faulty.orders().pieces[1..], [64, 36]);
    assert_eq!(faulty.orders().sent[1..], [(64 * 2_048, false), (36 * 2_048, true)]);
    let mut got = 0;
    while !peer.has_fin() {
        got += peer.read().len();
        scene.run(Duration::from_millis(10));
    }
    assert_eq!(got + peer.read().len(), 100 * 2_048);
    peer.close();
    scene.expect(&["end", "close"]);
    scene.rest();
}

/// Promise: one turn sends at most a mebibyte of one socket, in any number of pieces.
#[test]
fn one_turn_sends_no_more_than_its_quantum_in_whatever_pieces() {
    for piece in [2_048, 30_000, 3 << 20] {
        let (mut scene, _peer, faulty) = faulty_registered(ListenOptions::default().send_buffer_size(16 << 20));
        let all = Arc::new(pattern(3 << 20));
        scene.with(|socket| {
            for at in (0..3 << 20).step_by(piece) {
                let part = Buffer::shared(&all, at..(at + piece).min(3 << 20));
                assert!(socket.write_owned(part).is_ok());
            }
        });
        scene.run(SECOND);
        let mut turns = vec![0];
        let mut sent = faulty.orders().sent.clone().into_iter();
        for call in faulty.take_log() {
            match call {
                "poll" => turns.push(0),
                "send" => *turns.last_mut().expect("one") += sent.next().map_or(0, |(bytes, _)| bytes),
                _ => {}
            }
        }
        turns.retain(|bytes| *bytes > 0);
        assert_eq!(turns, [1 << 20; 3], "pieces of {piece}");
    }
}

/// Promise: a hundred clients get one answer from one copy of it, and however they end, the copy is
/// released.
#[test]
fn an_answer_to_many_is_one_copy_and_is_let_go_however_they_end() {
    let mut scene = Scene::new();
    let listener = scene
        .reactor
        .listen((support::scene::HERE, 80), ListenOptions::default().send_buffer_size(5_000))
        .expect("free");
    let answer = Arc::new(pattern(300_000));
    let peers: Vec<_> = (0..100).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    scene.run(SECOND);
    let sockets: Vec<_> = scene.stories.keys().copied().collect();
    assert_eq!(sockets.len(), 100);
    for id in &sockets {
        let mut socket = scene.reactor.socket(*id).expect("it lives");
        assert_eq!(socket.write_owned(Arc::clone(&answer)), Ok(Backpressure::Full));
        socket.end();
    }
    scene.run(SECOND);
    assert_eq!(Arc::strong_count(&answer), 101, "each waits for room");
    let mut left = Vec::new();
    for (number, (peer, socket)) in peers.into_iter().zip(sockets).enumerate() {
        match number % 3 {
            0 => peer.reset(),
            1 => scene.reactor.socket(socket).expect("it lives").destroy(),
            _ => {
                peer.finish();
                left.push(peer);
            }
        }
    }
    for _ in 0..3000 {
        left.iter().for_each(|peer| drop(peer.read()));
        scene.run(Duration::from_millis(10));
    }
    scene.reactor.close_listener(listener.id).expect("open");
    scene.run(SECOND);
    assert!(scene.reactor.is_empty(), "{}", scene.reactor.sockets());
    assert_eq!(Arc::strong_count(&answer), 1);
}

/// AP01: a buffer that is refused changes nothing and is dropped.
#[test]
fn a_refused_buffer_is_dropped_and_changes_nothing() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().high_water_mark(10_000).write_limit(10_000));
    let large = Arc::new(pattern(10_000));
    scene.with(|socket| {
        assert_eq!(socket.write_owned(Arc::clone(&large)), Ok(Backpressure::Full));
        let full = Error::QueueFull { queued_bytes: 10_000, limit_bytes: 10_000 };
        assert_eq!(socket.write_owned(Arc::clone(&large)), Err(full));
        assert_eq!(
            socket.write_owned(Buffer::shared(&large, 5..5)),
            Ok(Backpressure::Full),
            "nothing is always accepted"
        );
        socket.end();
        assert_eq!(socket.write_owned(Arc::clone(&large)), Err(Error::WriteAfterEnd));
        assert_eq!(socket.queued_bytes(), 10_000);
    });
    assert_eq!(Arc::strong_count(&large), 2);
    scene.run(SECOND);
    assert_eq!((peer.read(), Arc::strong_count(&large)), (large.to_vec(), 1));
    scene.with(|socket| socket.destroy());
    scene.with(|socket| assert_eq!(socket.write_owned(Arc::clone(&large)), Err(Error::WriteAfterEnd)));
    scene.expect(&["close"]);
}

/// OV02: a gibibyte passes through one real socket, given away and copied by turns, and the process
/// holds what the high-water mark allows and a little more; at the end the memory is released.
#[test]
fn a_gibibyte_through_one_socket_holds_the_high_water_mark_and_no_more() {
    const GIBIBYTE: usize = 1 << 30;
    const PIECE: usize = 64 * 1024;
    alone("bulk::a_gibibyte_through_one_socket_holds_the_high_water_mark_and_no_more", || {
        let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
        let reading = std::thread::spawn(move || std::io::copy(&mut peer, &mut std::io::sink()));
        let piece = pattern(PIECE);
        let (mut left, mut queued) = (GIBIBYTE, 0);
        let before = resident_kib("VmRSS");
        let mut fill = |socket: &mut finale::Socket<'_>| {
            while left > 0 {
                let copied = (left / PIECE).is_multiple_of(2);
                let answer = if copied { socket.write(&piece) } else { socket.write_owned(piece.clone()) };
                left -= PIECE;
                queued = queued.max(socket.queued_bytes());
                if answer.expect("below the limit") == Backpressure::Full {
                    return;
                }
            }
            socket.end();
        };
        fill(&mut story.socket(socket));
        let mut ended = false;
        story.until(|socket, event| {
            match event {
                Event::Drain => fill(socket),
                Event::End => ended = true,
                _ => {}
            }
            ended
        });
        assert_eq!(reading.join().expect("no panic").expect("a clean end"), GIBIBYTE as u64);
        story.after_end_of(socket);
        assert!(queued <= 128 * 1024 + PIECE, "{queued} bytes queued");
        let (most, after) =
            (resident_kib("VmHWM").saturating_sub(before), resident_kib("VmRSS").saturating_sub(before));
        println!("{most} KiB more at most, {after} KiB more afterwards");
        assert!(most < 4 * 1024 && after < 4 * 1024, "{most} KiB more at most, {after} KiB more afterwards");
        story.rest();
    });
}

/// What the kernel reports about our memory.
fn resident_kib(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with(name)).expect("it is there");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}
