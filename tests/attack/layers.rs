//! What layers and stops do with a socket: farewells, answers, shares of a stop. What a program sets in
//! its handlers: timers, deadlines, messages. No limit is early or put off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use finale::sim::PeerSocket;
use finale::{ConnectionErrorKind, EndingKind, Event, ListenOptions, ListenerId, StopOptions, TimeoutKind};

use support::scene::{HERE, Scene};
use support::{Transcript, ms};

const SECOND: Duration = Duration::from_secs(1);

/// A listener that has begun to stop, and a connection whose layer says farewell.
fn stopping(stop: StopOptions) -> (Scene, ListenerId, PeerSocket) {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let peer = scene.peer.connect(listener.addr).expect("begun");
    scene.expect(&["connection"]);
    scene.with(|socket| socket.set_farewell(true));
    scene.expect(&[]);
    scene.reactor.stop_listener(listener.id, stop).expect("open");
    (scene, listener.id, peer)
}

fn is_due(scene: &mut Scene) -> bool {
    let mut is_due = false;
    scene.with(|socket| is_due = socket.is_farewell_due());
    is_due
}

// --- farewells ---

#[test]
fn a_farewell_is_due_after_the_grace_and_the_limit_destroys_a_connection_that_does_not_end() {
    for drips in [false, true] {
        let (mut scene, _, peer) = stopping(StopOptions::default().grace(2 * SECOND).limit(10 * SECOND));
        scene.run(ms(1_950));
        assert!(scene.story.is_empty() && !is_due(&mut scene), "early: {:?}", scene.story);
        scene.run(ms(100));
        assert!(scene.story == ["timeout"] && is_due(&mut scene) && !peer.has_fin());
        for _ in 0..78 {
            if drips {
                peer.send(b"x");
                scene.with(|socket| {
                    socket.write(b"y").expect("open");
                });
            }
            scene.run(ms(100));
        }
        assert!(!scene.story.contains(&"close".to_owned()), "early: {:?}", scene.story);
        scene.story.clear();
        scene.run(ms(300));
        assert_eq!(scene.story.last().map(String::as_str), Some("listener closed"));
        assert_eq!(scene.how(), &EndingKind::Destroyed);
    }
}

#[test]
fn a_postponed_farewell_is_due_one_grace_after_the_answer_and_does_not_put_off_the_limit() {
    let (mut scene, _, peer) = stopping(StopOptions::default().grace(SECOND).limit(20 * SECOND));
    scene.expect(&["timeout"]);
    scene.with(|socket| socket.postpone_farewell());
    assert!(!is_due(&mut scene));
    scene.run(5 * SECOND);
    assert!(scene.story.is_empty(), "nothing was answered: {:?}", scene.story);
    scene.with(|socket| {
        socket.write(b"answer").expect("open");
    });
    scene.run(ms(950));
    assert!(scene.story.is_empty(), "early: {:?}", scene.story);
    scene.run(ms(100));
    assert!(std::mem::take(&mut scene.story) == ["timeout"] && is_due(&mut scene));
    scene.with(|socket| socket.postpone_farewell());
    scene.run(20 * SECOND);
    assert_eq!(scene.story, ["close", "listener closed"]);
    scene.network.advance(SECOND);
    assert!(peer.is_reset());
}

#[test]
fn a_postponed_farewell_of_a_socket_that_fills_a_buffer_or_is_held_waits_for_both() {
    let (mut scene, _, peer) = stopping(StopOptions::default().grace(SECOND));
    scene.with(|socket| {
        socket.fill(Vec::new(), 4).expect("it can be read");
        socket.hold();
    });
    scene.run(5 * SECOND);
    assert!(scene.story.is_empty(), "held: {:?}", scene.story);
    scene.with(|socket| socket.release());
    scene.run(ms(900));
    assert!(scene.story.is_empty(), "early: {:?}", scene.story);
    scene.run(ms(200));
    assert_eq!(std::mem::take(&mut scene.story), ["timeout"]);
    scene.with(|socket| socket.postpone_farewell());
    peer.send(b"whole");
    scene.expect(&["filled", "data e"]);
    scene.run(5 * SECOND);
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    scene.with(|socket| socket.set_answered());
    scene.run(ms(950));
    assert!(scene.story.is_empty(), "early: {:?}", scene.story);
    scene.run(ms(100));
    assert_eq!(scene.story, ["timeout"]);
}

#[test]
fn a_peer_that_dies_or_ends_while_a_farewell_is_due_is_noticed_at_once() {
    for is_postponed in [false, true] {
        for is_dead in [false, true] {
            let (mut scene, _, peer) = stopping(StopOptions::default());
            scene.run(SECOND + ms(100));
            scene.story.clear();
            if is_postponed {
                scene.with(|socket| socket.postpone_farewell());
            }
            match is_dead {
                true => {
                    peer.reset();
                    scene.expect(&["error reset by the peer", "close", "listener closed"]);
                }
                false => {
                    peer.finish();
                    scene.expect(&["end"]);
                    scene.with(|socket| socket.end());
                    scene.expect(&["close", "listener closed"]);
                }
            }
        }
    }
}

#[test]
fn a_farewell_that_is_set_after_the_stop_began_neither_restarts_nor_shortens_the_grace() {
    for on in [true, false] {
        let (mut scene, _, peer) = stopping(StopOptions::default().grace(2 * SECOND));
        scene.run(SECOND);
        scene.with(|socket| socket.set_farewell(on));
        scene.run(ms(950));
        assert!(scene.story.is_empty() && !peer.has_fin());
        scene.run(ms(100));
        assert_eq!((scene.story.len(), peer.has_fin()), if on { (1, false) } else { (0, true) });
    }
}

#[test]
fn a_socket_whose_peer_waits_for_nothing_is_idle_from_its_last_byte() {
    for is_set_before in [false, true] {
        let mut scene = Scene::new();
        let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
        let peer = scene.peer.connect(listener.addr).expect("begun");
        scene.expect(&["connection"]);
        peer.send(b"ping");
        scene.expect(&["data ping"]);
        if is_set_before {
            scene.with(|socket| socket.set_answered());
        }
        scene.reactor.stop_listener(listener.id, StopOptions::default().grace(2 * SECOND)).expect("open");
        if !is_set_before {
            scene.run(5 * SECOND);
            assert!(!peer.has_fin(), "it was not answered");
            scene.with(|socket| socket.set_answered());
        }
        scene.run(ms(1_950));
        assert!(!peer.has_fin(), "early");
        scene.run(ms(100));
        assert!(peer.has_fin());
    }
}

// --- the peer's end as a layer sees it ---

#[test]
fn a_peer_that_has_finished_without_a_fin_has_the_half_closed_and_the_ending_timeout() {
    for (takes_bytes, seconds, timer) in [(false, 300, TimeoutKind::HalfClosed), (true, 1000, TimeoutKind::Ending)] {
        let (mut scene, peer) = Scene::served(ListenOptions::default().ending_timeout(1000 * SECOND));
        scene.run(1000 * SECOND);
        assert!(scene.story.is_empty(), "an open connection has no limit: {:?}", scene.story);
        let begun = scene.network.now();
        scene.with(|socket| socket.set_peer_finished());
        while scene.story.is_empty() {
            scene.run(SECOND);
            if takes_bytes && scene.story.is_empty() {
                scene.with(|socket| drop(socket.write(b"a part")));
                let _ = peer.read();
            }
        }
        assert!(scene.story.len() == 2 && scene.story[0].starts_with("error"), "{:?}", scene.story);
        assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(timer));
        assert_eq!((scene.network.now() - begun).as_secs(), seconds);
    }
}

#[test]
fn without_these_timeouts_a_peer_that_has_finished_without_a_fin_is_not_ended() {
    let (mut scene, _peer) = Scene::served(ListenOptions::default().half_closed_timeout(None).ending_timeout(None));
    scene.with(|socket| socket.set_peer_finished());
    scene.run(100_000 * SECOND);
    assert!(scene.story.is_empty() && scene.reactor.next_deadline().is_none(), "{:?}", scene.story);
}

#[test]
fn a_layer_gets_what_is_discarded_and_that_puts_off_no_limit() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.with(|socket| {
        socket.write(b"answer").expect("open");
        socket.end();
        socket.discard_late();
    });
    let begun = scene.network.now();
    while !scene.story.contains(&"close".to_owned()) {
        peer.send(b"x");
        scene.run(SECOND);
    }
    assert_eq!((scene.network.now() - begun).as_secs(), 30);
    assert_eq!(scene.story.iter().filter(|event| *event == "data x").count(), 30, "{:?}", scene.story);
    assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::Close));
}

#[test]
fn a_layer_raises_the_write_limit_for_its_last_message() {
    let options = ListenOptions::default().high_water_mark(10).write_limit(20);
    let (mut scene, _peer) = Scene::served(options);
    scene.with(|socket| {
        socket.set_write_limit(1);
        assert_eq!(socket.write_limit(), 10, "not below the high-water mark");
        socket.set_write_limit(usize::MAX);
        for _ in 0..100 {
            socket.write(&[1; 100]).expect("no limit");
        }
        assert_eq!(socket.queued_bytes(), 10_000);
    });
}

// --- stops ---

/// When the peers of a stopping listener get a FIN, of this many connections of which some are busy.
fn fins(count: usize, busy: usize, stop: StopOptions) -> Vec<Duration> {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let peers: Vec<PeerSocket> = (0..count).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    scene.run(SECOND);
    peers.iter().take(busy).for_each(|peer| peer.send(b"request"));
    scene.run(SECOND);
    scene.reactor.stop_listener(listener.id, stop).expect("open");
    let (mut fins, begun) = (vec![Duration::MAX; count], scene.network.now());
    for _ in 0..2_000 {
        scene.run(ms(10));
        for (fin, peer) in fins.iter_mut().zip(&peers).filter(|(fin, _)| **fin == Duration::MAX) {
            if peer.has_fin() {
                *fin = scene.network.now() - begun;
            }
        }
    }
    fins
}

#[test]
fn a_spread_ends_no_idle_connection_before_its_grace_and_all_within_it() {
    for count in [1, 3, 300] {
        let stop = StopOptions::default().grace(SECOND).spread(8 * SECOND).limit(None);
        let fins = fins(count, 0, stop);
        let (first, last) = (fins.iter().min().expect("some"), fins.iter().max().expect("some"));
        assert!(*first >= SECOND - ms(20) && *last <= 9 * SECOND + ms(50), "{first:?} {last:?}");
        assert!(count == 1 || *last > 5 * SECOND, "{last:?}");
    }
}

#[test]
fn a_spread_of_any_length_ends_no_busy_connection() {
    for spread in [Duration::ZERO, SECOND, Duration::MAX] {
        let fins = fins(10, 4, StopOptions::default().spread(spread).limit(None));
        assert!(fins[..4].iter().all(|fin| *fin == Duration::MAX), "{fins:?}");
        assert!(fins[4..].iter().any(|fin| *fin < 2 * SECOND), "{fins:?}");
    }
}

#[test]
fn a_second_stop_replaces_the_shares_of_the_first() {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let peers: Vec<PeerSocket> = (0..20).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    scene.run(SECOND);
    let stop = StopOptions::default().limit(None);
    scene.reactor.stop_listener(listener.id, stop.spread(1_000 * SECOND)).expect("open");
    scene.run(SECOND / 2);
    scene.reactor.stop_listener(listener.id, stop.accept_backlog(false)).expect("open");
    scene.run(SECOND + ms(50));
    assert!(peers.iter().all(PeerSocket::has_fin));
}

#[test]
fn a_stop_that_leaves_the_backlog_closes_at_once_and_its_sockets_keep_their_grace() {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let peer = scene.peer.connect(listener.addr).expect("begun");
    scene.expect(&["connection"]);
    scene.reactor.pause_accepting(listener.id).expect("open");
    let waiting = scene.peer.connect(listener.addr).expect("begun");
    scene.expect(&[]);
    scene.reactor.stop_listener(listener.id, StopOptions::default().accept_backlog(false)).expect("open");
    scene.run(ms(900));
    assert!(waiting.is_reset() && !peer.has_fin());
    scene.run(ms(200));
    assert!(peer.has_fin());
    peer.finish();
    scene.expect(&["end", "close", "listener closed"]);
}

// --- messages and timers ---

#[test]
fn a_flood_of_messages_delays_neither_a_timer_nor_a_socket() {
    let (mut story, _, mut peer) = Transcript::pair(ListenOptions::default());
    let (sender, mut inbox) = story.reactor.inbox::<u32>(64);
    let stop = Arc::new(AtomicBool::new(false));
    let floods = [(); 2].map(|()| {
        let (sender, stop) = (sender.clone(), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let _ = sender.send(1);
            }
        })
    });
    let due = Instant::now() + ms(100);
    let timer = story.reactor.set_timer(ms(100));
    std::io::Write::write_all(&mut peer, b"bytes").expect("connected");
    let (mut late, mut read) = (None, None);
    while late.is_none() || read.is_none() {
        story.run_for(ms(20), |_, event| match event {
            Event::Woken => while inbox.take().is_some() {},
            Event::Timer(id) if *id == timer => late = Some(due.elapsed()),
            Event::Data(_) => read = Some(due.elapsed()),
            _ => {}
        });
        assert!(due.elapsed() < 20 * SECOND, "{late:?} {read:?}");
    }
    stop.store(true, Ordering::Relaxed);
    floods.into_iter().for_each(|flood| flood.join().expect("no panic"));
    assert!(late.is_some_and(|late| late < SECOND), "{late:?}");
}

#[test]
fn timers_that_are_set_again_in_their_own_handlers_delay_neither_sockets_nor_limits() {
    for after in [Duration::ZERO, Duration::from_micros(1), ms(1)] {
        let mut scene = Scene::new();
        let listener =
            scene.reactor.listen((HERE, 80), ListenOptions::default().deadline(SECOND)).expect("a free port");
        let peer = scene.peer.connect(listener.addr).expect("begun");
        let begun = scene.network.now();
        (0..3_000).for_each(|_| _ = scene.reactor.set_timer(after));
        let (mut closed, mut read) = (None, None);
        peer.send(b"bytes");
        while closed.is_none() {
            let until = begun + 10 * SECOND;
            let (mut socket, event) = scene.reactor.next_before(until).expect("it continues").expect("it closes");
            match event {
                Event::Timer(_) => _ = socket.set_timer(after),
                Event::Data(_) => read = Some(scene.network.now() - begun),
                Event::Close(ending) => {
                    let EndingKind::Failed(failure) = &ending.kind else { panic!("{ending}") };
                    assert_eq!(failure.kind, ConnectionErrorKind::TimedOut(TimeoutKind::Deadline));
                    closed = Some(scene.network.now() - begun);
                }
                _ => {}
            }
            scene.network.spend(Duration::from_micros(10));
        }
        assert!(closed.is_some_and(|at| at >= SECOND && at < 2 * SECOND), "{after:?}: {closed:?}");
        assert!(read.is_some_and(|at| at < SECOND / 2), "{after:?}: {read:?}");
    }
}

/// The deadline counts from the next call of `next`, however long the handler continues.
#[test]
fn a_deadline_that_a_slow_handler_sets_is_not_early() {
    for name in ["filled", "data", "spliced"] {
        let (mut scene, peer) = Scene::served(ListenOptions::default());
        scene.with(|socket| match name {
            "filled" => socket.fill(Vec::new(), 4).expect("it can be read"),
            "spliced" => socket.splice_next(),
            _ => {}
        });
        scene.run(SECOND);
        peer.send(b"some");
        let mut set = None;
        let ended = loop {
            let until = scene.network.now() + 10 * SECOND;
            let (mut socket, event) = scene.reactor.next_before(until).expect("it continues").expect("it ends");
            match event {
                Event::Error(_) => break scene.network.now(),
                _ if set.is_none() => {
                    socket.set_deadline(SECOND);
                    scene.network.advance(5 * SECOND);
                    set = Some(scene.network.now());
                }
                _ => {}
            }
        };
        let after = ended - set.expect("an event comes");
        assert!((SECOND..SECOND + ms(5)).contains(&after), "{name}: {after:?}");
    }
}
