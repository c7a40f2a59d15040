//! A process that is stopped, between the return of a poll and the next reading of the clock or in
//! a handler. Bytes that arrived in time meanwhile count: no timeout is delivered and no limit ends
//! the connection.

use std::time::Duration;

use finale::sim::{Faults, Network, PeerSocket};
use finale::{ConnectOptions, EndingKind, Event, IdleDirection, ListenOptions, Socket, StopOptions};

use support::faulty::{Faulty, FaultyNet, faulty_on, faulty_served};
use support::ms;
use support::scene::{HERE, Scene, THERE};

const SECOND: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(5);
/// What a packet takes from one end to the other while the process is stopped.
const LATENCY: Duration = ms(100);

/// The process runs for the last time two tenths of a second before the limit. What the peer does
/// now arrives while the process is stopped, a tenth of a second before the limit. Two seconds
/// later it continues.
fn stand_still(scene: &mut Scene<FaultyNet>, faulty: &Faulty, act: impl FnOnce()) {
    scene.run(LIMIT - 2 * LATENCY);
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    act();
    // A poll that ends before anything arrives.
    scene.reactor.set_timer(ms(10));
    faulty.stall(2 * SECOND);
    let before = scene.network.now();
    scene.run(SECOND);
    assert!(scene.network.now() - before >= 2 * SECOND, "it has stood still");
    scene.story.retain(|line| !line.starts_with("timer"));
}

fn served(options: ListenOptions) -> (Scene<FaultyNet>, PeerSocket, Faulty) {
    let (mut scene, peer, faulty) = faulty_served(options);
    scene.network.set_latency(LATENCY);
    peer.send(b"x");
    // Every clock begins with this byte.
    scene.run(LATENCY + ms(1));
    assert_eq!(std::mem::take(&mut scene.story), ["data x"]);
    (scene, peer, faulty)
}

#[test]
fn bytes_that_came_in_time_are_no_silence() {
    for idle_direction in [IdleDirection::Both, IdleDirection::Read] {
        let (mut scene, peer, faulty) =
            served(ListenOptions::default().idle_direction(idle_direction).idle_timeout(LIMIT));
        stand_still(&mut scene, &faulty, || peer.send(b"in time"));
        assert_eq!(scene.story, ["data in time"], "{idle_direction:?}");
        scene.run(LIMIT + ms(10));
        assert_eq!(scene.story, ["data in time", "timeout"], "{idle_direction:?}");
    }
}

#[test]
fn bytes_that_came_in_time_keep_a_half_closed_connection() {
    let (mut scene, peer, faulty) = served(ListenOptions::default().half_closed_timeout(LIMIT));
    scene.with(|socket| socket.end());
    stand_still(&mut scene, &faulty, || peer.send(b"in time"));
    assert_eq!(scene.story, ["data in time"]);
    peer.finish();
    scene.run(SECOND);
    assert_eq!(scene.how(), &EndingKind::Confirmed);
}

/// With and without a kernel that reports when the peer last took bytes.
#[test]
fn bytes_that_were_taken_in_time_keep_a_connection_whose_queue_waits() {
    for is_hidden in [false, true] {
        let (waiting, flushing) =
            (ListenOptions::default().write_timeout(LIMIT), ListenOptions::default().close_timeout(LIMIT));
        for (options, ends) in [(waiting, false), (flushing, true)] {
            let network = Network::new(7);
            network.set_buffers(1000, 1000);
            let (mut scene, faulty) = faulty_on(network);
            if is_hidden {
                faulty.hide_acks();
            }
            let peer = scene.serve(options);
            scene.network.set_latency(LATENCY);
            scene.with(|socket| {
                socket.write(&[b'x'; 10_000]).expect("open");
                if ends {
                    socket.end();
                }
            });
            // Until the peer has taken what it has room for.
            scene.run(2 * LATENCY + ms(1));
            stand_still(&mut scene, &faulty, || assert_eq!(peer.read().len(), 1000));
            assert!(scene.story.is_empty(), "acks hidden: {is_hidden}: {:?}", scene.story);
            assert!(!peer.is_reset());
        }
    }
}

#[test]
fn an_end_that_came_in_time_ends_a_lingering_close_cleanly() {
    let (mut scene, peer, faulty) = served(ListenOptions::default().close_timeout(LIMIT));
    scene.with(|socket| {
        socket.write(b"answer").expect("open");
        socket.end();
        socket.discard();
    });
    stand_still(&mut scene, &faulty, || peer.finish());
    scene.run(SECOND);
    assert_eq!(scene.story, ["end", "close"]);
    assert_eq!(scene.how(), &EndingKind::Confirmed);
}

#[test]
fn an_acknowledgement_that_came_in_time_confirms_the_close() {
    let (mut scene, peer, faulty) = served(ListenOptions::default().close_timeout(LIMIT));
    peer.finish();
    scene.expect(&["end"]);
    // Our FIN and its acknowledgement take nearly the whole limit.
    scene.network.set_latency((LIMIT - LATENCY) / 2);
    scene.with(|socket| socket.end());
    scene.run(ms(1));
    stand_still(&mut scene, &faulty, || ());
    scene.run(SECOND);
    assert_eq!(scene.how(), &EndingKind::Confirmed);
}

#[test]
fn a_handshake_that_was_done_in_time_connects() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    let listener = scene.peer.listen((THERE, 80).into()).expect("a free port");
    scene.network.set_latency((LIMIT - LATENCY) / 2);
    scene.reactor.connect((THERE, 80), ConnectOptions::default().connect_timeout(LIMIT)).expect("an address");
    scene.run(Duration::ZERO);
    assert_eq!(std::mem::take(&mut scene.story), ["lookup 10.0.0.2"]);
    stand_still(&mut scene, &faulty, || ());
    assert_eq!(scene.story, ["connect", "ready"]);
    scene.run(SECOND);
    assert!(listener.accept().is_some());
}

#[test]
fn a_request_that_came_within_the_grace_of_a_stop_can_be_answered() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let peer = scene.peer.connect(listener.addr).expect("begun");
    scene.expect(&["connection"]);
    scene.network.set_latency(LATENCY);
    scene.reactor.stop_listener(listener.id, StopOptions::default().grace(LIMIT)).expect("open");
    scene.run(ms(1));
    stand_still(&mut scene, &faulty, || peer.send(b"in time"));
    scene.run(SECOND);
    assert_eq!(scene.story, ["data in time"]);
    assert!(!peer.has_fin());
}

/// A handler that works beyond the deadlines of two hundred connections, whose bytes have arrived
/// meanwhile, and a system that reports one token per poll.
#[test]
fn a_poll_that_does_not_hand_over_everything_makes_no_silence_of_the_rest() {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default().idle_timeout(LIMIT)).expect("a free port");
    let peers: Vec<_> = (0..200).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    scene.run(SECOND);
    assert_eq!(std::mem::take(&mut scene.story), ["connection"; 200]);
    scene.run(LIMIT - 2 * SECOND);
    scene.network.set_faults(Faults { small_batch: 1.0, ..Faults::none() });
    peers.iter().for_each(|peer| peer.send(b"in time"));
    scene.network.advance(2 * SECOND);
    scene.run(SECOND);
    assert_eq!(scene.story, ["data in time"; 200]);
}

/// The peer took our bytes a little after they were written, so the deadline is later than it was
/// filed, and has passed nevertheless. One poll without a result is enough to find that.
#[test]
fn a_deadline_that_the_peer_postponed_and_that_has_passed_too_is_delivered_at_once() {
    let mut scene = Scene::new();
    let _peer = scene.serve(ListenOptions::default().idle_timeout(LIMIT));
    scene.network.set_latency(LATENCY);
    scene.with(|socket| {
        socket.write(b"answer").expect("open");
    });
    scene.run(2 * LATENCY + ms(1));
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    scene.network.spend(2 * LIMIT);
    scene.expect(&["timeout"]);
    assert!(scene.reactor.net().most_idle_polls() <= 1);
}

/// A millisecond before the limit of one connection strikes, the handler of another calls it. Many
/// others wait for their step before it, and each has a handler that takes a millisecond. Returns
/// what was delivered for it up to half of the limit later.
fn called_in_time(
    options: ListenOptions,
    before: impl Fn(&PeerSocket, &mut Socket<'_>),
    call: impl Fn(&mut Socket<'_>),
) -> (Scene, PeerSocket, Vec<String>) {
    const HANDLER: Duration = ms(1);
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 81), ListenOptions::default().backlog(1000)).expect("a free port");
    let others: Vec<_> = (0..200).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    scene.run(ms(100));
    scene.story.clear();
    let peer = scene.serve(options);
    let id = scene.socket.expect("served");
    before(&peer, &mut scene.reactor.socket(id).expect("open"));
    // The peer's FIN, if it sends one, arrives a little later.
    let due = scene.network.now() + LIMIT;
    scene.run(LIMIT - ms(100));
    others.iter().for_each(|other| other.send(b"x"));
    scene.network.advance(ms(50));
    scene.story.clear();
    let (mut is_called, mut story) = (false, Vec::new());
    while let Some((socket, event)) = scene.reactor.next_before(due + LIMIT / 2).expect("it continues") {
        let present = socket.id();
        if present == id {
            story.push(format!("{event:?}"));
            let is_late = scene.network.now() > due + HANDLER * 50;
            assert!(event != Event::Timeout || !is_late, "it waited for its step");
        }
        if !is_called && scene.network.now() + HANDLER * 3 > due {
            call(&mut scene.reactor.socket(id).expect("its limit has not struck"));
            // The socket that was written to last has the next step.
            scene.reactor.socket(present).expect("open").write(b"y").expect("room");
            is_called = true;
        }
        scene.network.spend(HANDLER);
    }
    assert!(is_called);
    (scene, peer, story)
}

#[test]
fn an_end_that_was_called_in_time_is_not_cut_by_the_half_closed_timeout() {
    for answers in [false, true] {
        let before = |peer: &PeerSocket, socket: &mut Socket<'_>| {
            peer.finish();
            socket.write(b"wait; ").expect("open");
        };
        let (_scene, peer, story) =
            called_in_time(ListenOptions::default().half_closed_timeout(LIMIT), before, |socket| {
                if answers {
                    socket.write(b"the answer").expect("open");
                }
                socket.end();
            });
        assert_eq!(story.len(), 1, "{story:?}");
        assert!(story[0].starts_with("Close"), "{story:?}");
        assert!(peer.has_fin() && !peer.is_reset());
        assert_eq!(peer.read(), if answers { &b"wait; the answer"[..] } else { b"wait; " });
    }
}

#[test]
fn a_discard_that_was_called_in_time_ends_the_half_closed_timeout() {
    let before = |_: &PeerSocket, socket: &mut Socket<'_>| socket.end();
    let options = ListenOptions::default().half_closed_timeout(LIMIT).close_timeout(LIMIT);
    let (_scene, peer, story) = called_in_time(options, before, |socket| socket.discard());
    assert!(story.is_empty(), "{story:?}");
    assert!(!peer.is_reset());
}

#[test]
fn bytes_that_were_written_in_time_are_no_silence() {
    let options = ListenOptions::default().idle_timeout(LIMIT);
    let before = |_: &PeerSocket, socket: &mut Socket<'_>| drop(socket.write(b"no "));
    let (_scene, peer, story) = called_in_time(options, before, |socket| drop(socket.write(b"news")));
    assert!(story.is_empty(), "{story:?}");
    assert_eq!(peer.read(), b"no news");

    let options = ListenOptions::default().idle_timeout(LIMIT).idle_direction(IdleDirection::Read);
    let before = |peer: &PeerSocket, socket: &mut Socket<'_>| {
        peer.send(b"x");
        socket.write(b"no ").expect("open");
    };
    let (_scene, _peer, story) = called_in_time(options, before, |socket| drop(socket.write(b"news")));
    assert_eq!(story, ["Timeout"], "the peer is silent");
}
