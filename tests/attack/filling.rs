//! Buffers of the program that are being filled: no limit is early or put off by them, the death of a
//! peer is noticed at once, and no edge is lost.

use std::time::{Duration, Instant};

use finale::sim::{Network, PeerSocket};
use finale::{
    ConnectOptions, ConnectionErrorKind, EndingKind, Event, IdleDirection, ListenOptions, LookupErrorKind, Socket,
    SocketId, StopOptions, TimeoutKind,
};
use rustix::io::Errno;

use crate::floods::send_without_pause;
use crate::real_floods::{Writers, wide};
use support::faulty::{faulty_on, faulty_registered};
use support::scene::{HERE, Scene};
use support::{Transcript, ms};

const SECOND: Duration = Duration::from_secs(1);

/// A connection whose next bytes fill a buffer of this length.
fn filling(options: ListenOptions, len: usize) -> (Scene, PeerSocket) {
    let (mut scene, peer) = Scene::served(options);
    scene.with(|socket| socket.fill(Vec::new(), len).expect("it can be read"));
    scene.expect(&[]);
    (scene, peer)
}

/// Sends a byte each `step`, for this many steps.
fn drip(scene: &mut Scene, peer: &PeerSocket, steps: usize, step: Duration) {
    for _ in 0..steps {
        peer.send(b"x");
        scene.run(step);
    }
}

// --- limits ---

#[test]
fn bytes_of_a_buffer_that_is_filled_restart_the_idle_time() {
    for direction in [IdleDirection::Both, IdleDirection::Read] {
        let (mut scene, peer) =
            filling(ListenOptions::default().idle_direction(direction).idle_timeout(2 * SECOND), 99);
        drip(&mut scene, &peer, 20, SECOND);
        assert!(scene.story.is_empty(), "{:?}", scene.story);
        scene.run(ms(950));
        assert!(scene.story.is_empty(), "early: {:?}", scene.story);
        scene.run(ms(100));
        assert_eq!(scene.story, ["timeout"]);
    }
}

#[test]
fn bytes_of_a_buffer_that_is_filled_do_not_restart_the_idle_time_of_our_bytes() {
    let options = ListenOptions::default().idle_direction(IdleDirection::Write).idle_timeout(3 * SECOND);
    let (mut scene, peer) = filling(options, 99);
    drip(&mut scene, &peer, 5, SECOND);
    assert_eq!(scene.story, ["timeout"]);
}

#[test]
fn a_peer_that_drips_into_a_buffer_is_ended_by_the_ending_timeout() {
    let (mut scene, peer) = filling(ListenOptions::default().ending_timeout(10 * SECOND).half_closed_timeout(None), 99);
    scene.with(|socket| socket.end());
    drip(&mut scene, &peer, 9, SECOND);
    assert!(scene.story.is_empty(), "early: {:?}", scene.story);
    drip(&mut scene, &peer, 2, SECOND);
    assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::Ending));
}

#[test]
fn a_half_closed_peer_that_is_silent_in_a_buffer_is_ended_by_its_limit_and_not_before() {
    let (mut scene, peer) = filling(ListenOptions::default().half_closed_timeout(5 * SECOND), 99);
    scene.with(|socket| socket.end());
    drip(&mut scene, &peer, 8, SECOND);
    scene.run(ms(3_900));
    assert!(scene.story.is_empty(), "early: {:?}", scene.story);
    scene.run(ms(200));
    assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::HalfClosed));
    assert_eq!(scene.ending.as_ref().map(|ending| ending.bytes_read), Some(8));
}

#[test]
fn a_stop_leaves_a_buffer_that_is_being_filled_until_its_limit() {
    for is_dripped in [false, true] {
        let mut scene = Scene::new();
        let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
        let peer = scene.peer.connect(listener.addr).expect("begun");
        scene.expect(&["connection"]);
        scene.with(|socket| socket.fill(Vec::new(), 1000).expect("it can be read"));
        peer.send(b"half");
        scene.run(SECOND);
        let stop = StopOptions::default().grace(SECOND).limit(10 * SECOND);
        scene.reactor.stop_listener(listener.id, stop).expect("open");
        drip(&mut scene, &peer, if is_dripped { 9 } else { 0 }, SECOND);
        scene.run(if is_dripped { ms(900) } else { ms(9_900) });
        assert!(scene.story.is_empty() && !peer.has_fin(), "early: {:?}", scene.story);
        scene.run(ms(200));
        assert_eq!(scene.story, ["close", "listener closed"]);
        assert_eq!(scene.how(), &EndingKind::Destroyed);
    }
}

#[test]
fn the_grace_of_a_stop_counts_from_the_answer_to_what_has_filled_a_buffer() {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let peer = scene.peer.connect(listener.addr).expect("begun");
    scene.expect(&["connection"]);
    scene.with(|socket| socket.fill(Vec::new(), 4).expect("it can be read"));
    scene.reactor.stop_listener(listener.id, StopOptions::default().grace(2 * SECOND)).expect("open");
    scene.run(SECOND);
    peer.send(b"whole");
    scene.run(5 * SECOND);
    assert!(scene.story == ["filled", "data e"] && !peer.has_fin(), "{:?}", scene.story);
    scene.with(|socket| {
        socket.write(b"answer").expect("open");
    });
    scene.run(ms(1_900));
    assert!(!peer.has_fin());
    scene.run(ms(200));
    assert!(peer.has_fin());
}

// --- floods ---

/// Fills one buffer after the other.
fn fill_again(socket: &mut Socket<'_>, event: &Event<'_>, len: usize) {
    if matches!(event, Event::Filled) {
        drop(socket.take_filled());
        drop(socket.fill(Vec::new(), len));
    }
}

/// When a timer comes, and when another peer is served, beside one that fills buffer after buffer.
#[test]
fn a_flood_that_fills_buffers_delays_neither_a_timer_nor_another_peer() {
    for len in [1, 100, 64 * 1024, 64 * 1024 + 1, 1 << 20, 1 << 30] {
        for is_short in [false, true] {
            let network = Network::new(7);
            let (mut scene, faulty) = faulty_on(network);
            let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
            let peers = [(); 2].map(|()| scene.peer.connect(listener.addr).expect("begun"));
            scene.run(SECOND);
            let ids: Vec<SocketId> = scene.reactor.sockets().iter().map(|socket| socket.id).collect();
            faulty.keep_quiet(ids[1].index());
            let mut flooded = scene.reactor.socket(ids[0]).expect("it lives");
            flooded.fill(Vec::new(), len).expect("it can be read");
            if is_short {
                faulty.read_short();
            }
            send_without_pause(&faulty, &peers[..1]);
            peers[1].send(b"quiet");
            let due = scene.network.now() + ms(50);
            let timer = scene.reactor.set_timer(ms(50));
            let (mut served, mut late) = (None, None);
            while (served.is_none() || late.is_none()) && scene.network.now() < due + SECOND {
                let until = due + SECOND;
                let Some((mut socket, event)) = scene.reactor.next_before(until).expect("it continues") else { break };
                fill_again(&mut socket, &event, len);
                match event {
                    Event::Timer(id) if id == timer => late = Some(scene.network.now() - due),
                    Event::Data(b"quiet") => served = Some(scene.network.now()),
                    _ => {}
                }
            }
            let late = late.unwrap_or_else(|| panic!("len {len}, short {is_short}: no timer"));
            assert!(late < ms(100), "len {len}, short {is_short}: {late:?}");
            assert!(served.is_some_and(|at| at < due + ms(100)), "len {len}, short {is_short}: not served in time");
        }
    }
}

/// The same on the real network: clients that only write into buffers of the program, with a limit.
#[track_caller]
fn real_flood_strikes(peers: usize, options: ListenOptions, begin: fn(&mut Socket<'_>), cause: TimeoutKind) {
    const LIMIT: Duration = ms(500);
    for len in [1000, 300_000, 1 << 30] {
        let mut story = Transcript::new();
        let addr = story.listen(options.clone());
        let _writers = Writers::new(addr, peers);
        let (mut begun, mut strikes) = (std::collections::HashMap::new(), Vec::new());
        let began = Instant::now();
        while strikes.len() < peers && began.elapsed() < 40 * LIMIT {
            story.run_for(ms(50), |socket, event| match event {
                Event::Connection => {
                    begin(socket);
                    socket.fill(Vec::new(), len).expect("it can be read");
                    begun.insert(socket.id(), Instant::now());
                }
                Event::Error(failure) => {
                    assert_eq!(failure.kind, ConnectionErrorKind::TimedOut(cause));
                    strikes.push(begun[&socket.id()].elapsed());
                }
                event => fill_again(socket, event, len),
            });
        }
        assert_eq!(strikes.len(), peers, "not every connection was struck: {strikes:?}");
        assert!(strikes.iter().all(|after| (LIMIT..10 * LIMIT).contains(after)), "{len}: {strikes:?}");
    }
}

#[test]
fn clients_that_fill_buffers_without_a_pause_put_off_neither_a_flush_nor_the_write_timeout() {
    let flushing = |socket: &mut Socket<'_>| {
        socket.write_owned(vec![0; 12 << 20]).expect("open");
        socket.end();
    };
    let writing = |socket: &mut Socket<'_>| _ = socket.write_owned(vec![0; 12 << 20]).expect("open");
    real_flood_strikes(1, wide().close_timeout(ms(500)), flushing, TimeoutKind::Close);
    real_flood_strikes(3, wide().write_timeout(ms(500)), writing, TimeoutKind::Write);
    real_flood_strikes(3, wide().deadline(ms(500)), |_| (), TimeoutKind::Deadline);
}

// --- peers that die ---

/// A paused or held socket whose peer has died in the middle of a buffer.
#[test]
fn a_dead_peer_with_a_part_of_a_buffer_is_noticed_at_once_and_fails_when_that_is_given_up() {
    type Act = fn(&mut Socket<'_>);
    let stops: [(Act, Act); 2] =
        [(|socket| socket.pause(), |socket| socket.resume()), (|socket| socket.hold(), |socket| socket.release())];
    for (stop, go_on) in stops {
        let rest = ["filled", "error reset by the peer", "close"];
        let error: &[&str] = &rest[1..];
        let acts: [(Act, &[&str]); 4] = [
            (go_on, &rest),
            (|socket| socket.discard(), error),
            (|socket| socket.fill(Vec::new(), 5).expect("it can be read"), error),
            (|socket| socket.destroy(), &["close"]),
        ];
        for (act, expected) in acts {
            let (mut scene, peer) = filling(ListenOptions::default().half_closed_timeout(None), 99);
            peer.send(b"half");
            scene.expect(&[]);
            scene.with(stop);
            scene.expect(&[]);
            peer.reset();
            scene.expect(&["peerended(reset)"]);
            scene.with(act);
            scene.expect(expected);
            scene.rest();
        }
    }
}

/// Whatever the read that follows returns.
#[test]
fn a_single_byte_of_a_buffer_comes_before_the_end_or_the_error() {
    let reads = [None, Some(Errno::AGAIN), Some(Errno::CONNRESET)];
    for (is_paused, is_reset) in [(false, false), (false, true), (true, false), (true, true)] {
        for errno in if is_paused && is_reset { &reads[..] } else { &reads[..1] } {
            let (mut scene, peer, faulty) = faulty_registered(ListenOptions::default());
            scene.with(|socket| socket.fill(Vec::new(), 99).expect("it can be read"));
            peer.send(b"x");
            scene.expect(&[]);
            if is_paused {
                scene.with(|socket| socket.pause());
                scene.expect(&[]);
            }
            if is_reset {
                peer.reset()
            } else {
                peer.finish()
            }
            if is_paused {
                scene.expect(if is_reset { &["peerended(reset)"] } else { &[] });
                errno.iter().for_each(|errno| faulty.once("recv", *errno));
                scene.with(|socket| socket.resume());
            }
            scene.expect(if is_reset { &["filled", "error reset by the peer", "close"] } else { &["filled", "end"] });
        }
    }
}

#[test]
fn an_empty_buffer_of_a_broken_connection_is_not_filled_whatever_the_read_returns() {
    for errno in [Errno::AGAIN, Errno::CONNRESET] {
        let (mut scene, peer, faulty) = faulty_registered(ListenOptions::default());
        scene.with(|socket| socket.pause());
        scene.expect(&[]);
        peer.send(b"x");
        peer.reset();
        scene.expect(&["peerended(reset)"]);
        faulty.once("recv", errno);
        scene.with(|socket| {
            socket.fill(Vec::new(), 9).expect("it can be read");
            socket.resume();
        });
        scene.expect(&["error reset by the peer", "close"]);
    }
}

#[test]
fn a_dead_peer_of_an_empty_buffer_is_an_error_at_once_paused_or_not() {
    for stop in
        [|_: &mut Socket<'_>| (), |socket: &mut Socket<'_>| socket.pause(), |socket: &mut Socket<'_>| socket.hold()]
    {
        let (mut scene, peer) = filling(ListenOptions::default(), 99);
        scene.with(stop);
        scene.expect(&[]);
        peer.reset();
        scene.expect(&["error reset by the peer", "close"]);
        scene.rest();
    }
}

#[test]
fn a_read_into_a_buffer_that_lacks_memory_is_repeated_and_keeps_what_was_read() {
    for errno in [Errno::NOBUFS, Errno::NOMEM] {
        let (mut scene, peer, faulty) = faulty_registered(ListenOptions::default());
        scene.with(|socket| socket.fill(b"0".to_vec(), 9).expect("it can be read"));
        for piece in [b"12".as_slice(), b"34", b"5678"] {
            faulty.once("recv", errno);
            peer.send(piece);
            scene.run(SECOND);
        }
        assert_eq!((scene.story.as_slice(), faulty.failures("recv")), (["filled".to_owned()].as_slice(), 3));
        scene.story.clear();
        // And it dies in another one.
        scene.with(|socket| socket.fill(Vec::new(), 9).expect("it can be read"));
        peer.send(b"half");
        scene.expect(&[]);
        faulty.once("peek", errno);
        faulty.once("recv", errno);
        peer.reset();
        scene.expect(&["filled", "error reset by the peer", "close"]);
        scene.rest();
    }
}

// --- wakes ---

#[test]
fn a_buffer_that_is_given_replaced_or_resumed_after_the_edge_is_filled() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.with(|socket| socket.pause());
    peer.send(b"0123456789");
    scene.expect(&[]);
    scene.with(|socket| socket.fill(Vec::new(), 3).expect("it can be read"));
    scene.expect(&[]);
    scene.with(|socket| socket.fill(Vec::new(), 4).expect("it can be read"));
    scene.with(|socket| socket.resume());
    scene.expect(&["filled", "data 456789"]);
    // All is read, and no edge comes before the next byte.
    scene.with(|socket| socket.fill(b"ab".to_vec(), 4).expect("it can be read"));
    scene.expect(&[]);
    peer.send(b"c");
    scene.expect(&[]);
    scene.with(|socket| {
        socket.hold();
        socket.pause();
    });
    peer.send(b"d");
    scene.expect(&[]);
    scene.with(|socket| socket.release());
    scene.expect(&[]);
    scene.with(|socket| socket.resume());
    scene.expect(&["filled"]);
    scene.with(|socket| assert_eq!(socket.take_filled().map(|buffer| buffer.len()), None, "it was not taken in time"));
    peer.finish();
    scene.expect(&["end"]);
}

/// A lookup fails, and before its error is delivered another socket has an event.
#[test]
fn a_socket_whose_error_is_to_come_takes_no_buffer_and_will_not_drain() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.network.name_fails("nowhere", LookupErrorKind::NotFound);
    let options = ConnectOptions::default().low_water_mark(0);
    let id = scene.reactor.connect("nowhere:80", options).expect("a name");
    scene.reactor.socket(id).expect("begun").write(b"question").expect("room");
    scene.run(Duration::ZERO);
    peer.send(b"x");
    scene.network.advance(SECOND);
    let until = scene.network.now() + SECOND;
    let mut refused = None;
    while let Some((mut socket, event)) = scene.reactor.next_before(until).expect("it continues") {
        let mut other = socket.get(id).filter(|other| other.state().is_final());
        if let (Event::Data(_), Some(other)) = (event, &mut other) {
            refused = Some((other.fill(b"the first part".to_vec(), 100), other.request_drain()));
        }
        assert!(!matches!(event, Event::Filled | Event::Drain), "{event}");
    }
    assert_eq!(refused, Some((Err(b"the first part".to_vec()), false)));
}

/// A peer can announce any length.
#[test]
fn a_length_for_which_there_is_no_memory_is_refused() {
    let mut scene = Scene::new();
    let peer = scene.serve(ListenOptions::default());
    for len in [usize::MAX, 1 << 63, 1 << 62] {
        scene.with(|socket| assert_eq!(socket.fill(b"head".to_vec(), len), Err(b"head".to_vec()), "{len}"));
    }
    peer.send(b"x");
    scene.expect(&["data x"]);
}
