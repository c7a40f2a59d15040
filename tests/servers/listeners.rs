//! What a server needs around its connections: limits, pauses, stopping, and the deadlines of its
//! clients. On the simulated network; the kernel's decisions are tested at the end, on the real
//! one.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use finale::sim::PeerSocket;
use finale::{
    ConnectionErrorKind, Error, Event, IdleDirection, ListenOptions, Listener, OverflowPolicy, StopOptions, TimeoutKind,
};
use support::scene::{HERE, Scene};
use support::{Transcript, dial};

const SECOND: Duration = Duration::from_secs(1);

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A scene with a listener, and this many clients, which have connected one after the other.
fn scene(options: ListenOptions, clients: usize) -> (Scene, Listener, Vec<PeerSocket>) {
    let mut scene = Scene::new();
    scene.network.set_buffers(64 * 1024, 64 * 1024);
    let listener = scene.reactor.listen((HERE, 80), options).expect("a free port");
    let peers = (0..clients).map(|_| client(&mut scene, listener)).collect();
    (scene, listener, peers)
}

fn client(scene: &mut Scene, listener: Listener) -> PeerSocket {
    let peer = scene.peer.connect(listener.addr).expect("begun");
    scene.network.advance(ms(10));
    peer
}

// --- how many ---

#[test]
fn clients_beyond_the_limit_wait_until_another_has_gone() {
    let (mut scene, listener, mut peers) = scene(ListenOptions::default().max_connections(2), 5);
    scene.expect(&["connection"; 2]);
    assert!(peers.iter().all(PeerSocket::is_connected), "the kernel has taken them in");
    peers.remove(0).reset();
    scene.expect(&["error reset by the peer", "close", "connection"]);
    peers.remove(0).reset();
    scene.expect(&["error reset by the peer", "close", "connection"]);
    peers.remove(0).reset();
    scene.expect(&["error reset by the peer", "close", "connection"]);
    scene.reactor.close_listener(listener.id).expect("open");
}

#[test]
fn a_full_listener_does_not_keep_the_reactor_awake() {
    let (mut scene, _listener, _peers) = scene(ListenOptions::default().max_connections(1), 3);
    scene.expect(&["connection"]);
    let calls = scene.network.calls();
    scene.run(60 * SECOND);
    assert!(scene.network.calls() - calls < 10, "{} calls in a minute", scene.network.calls() - calls);
}

#[test]
fn with_a_limit_of_none_at_all_nobody_is_accepted() {
    let (mut scene, _listener, _peers) = scene(ListenOptions::default().max_connections(0), 3);
    scene.expect(&[]);
}

#[test]
fn some_clients_beyond_the_limit_are_admitted_for_an_answer_and_the_rest_wait() {
    let options = ListenOptions::default().max_connections(1).overflow_policy(OverflowPolicy::Admit(2));
    let (mut scene, _listener, peers) = scene(options, 5);
    let mut served = Vec::new();
    let until = scene.network.now() + SECOND;
    while let Some((mut socket, event)) = scene.reactor.next_before(until).expect("it can wait") {
        if event == Event::Connection {
            served.push(socket.is_overflow());
            if socket.is_overflow() {
                socket.write(b"too many clients").expect("it lives");
                socket.end();
                socket.discard();
            }
        }
    }
    assert_eq!(served, [false, true, true], "two more than the limit, and the others wait");
    for peer in &peers[1..3] {
        assert_eq!((peer.read(), peer.has_fin()), (b"too many clients".to_vec(), true));
        peer.finish();
    }
    assert_eq!((peers[0].read(), peers[3].read()), (Vec::new(), Vec::new()));
    scene.network.advance(ms(10));
    let until = scene.network.now() + SECOND;
    let mut again = Vec::new();
    while let Some((socket, event)) = scene.reactor.next_before(until).expect("it can wait") {
        if event == Event::Connection {
            again.push(socket.is_overflow());
        }
    }
    assert_eq!(again, [true, true], "their places are free again");
}

#[test]
fn an_admitted_client_that_lingers_takes_no_place_of_a_regular_one() {
    let options = ListenOptions::default().max_connections(1).overflow_policy(OverflowPolicy::Admit(1));
    let (mut scene, listener, mut peers) = scene(options, 2);
    let mut served = Vec::new();
    for round in 0..2 {
        let until = scene.network.now() + ms(100);
        while let Some((mut socket, event)) = scene.reactor.next_before(until).expect("it can wait") {
            if event == Event::Connection {
                served.push(socket.is_overflow());
                if socket.is_overflow() {
                    socket.end();
                    socket.discard();
                }
            }
        }
        if round == 0 {
            peers.remove(0).reset();
            peers.push(client(&mut scene, listener));
        }
    }
    assert_eq!(served, [false, true, false]);
}

#[test]
fn clients_beyond_the_limit_are_dropped_if_so_wished() {
    let options = ListenOptions::default().max_connections(1).overflow_policy(OverflowPolicy::Reset);
    let (mut scene, listener, mut peers) = scene(options, 3);
    scene.expect(&["connection", "dropped 10.0.0.2", "dropped 10.0.0.2"]);
    assert!(peers[1].is_reset() && peers[2].is_reset() && !peers[0].is_reset(), "and they know it");
    assert_eq!(scene.network.descriptors(), 2, "the listener, and the one that is served");
    peers.remove(0).reset();
    scene.expect(&["error reset by the peer", "close"]);
    let _next = client(&mut scene, listener);
    scene.expect(&["connection"]);
}

#[test]
fn a_half_closed_connection_counts_until_its_close_was_told() {
    let (mut scene, listener, peers) = scene(ListenOptions::default().max_connections(1), 1);
    peers[0].finish();
    scene.expect(&["connection", "end"]);
    let _next = client(&mut scene, listener);
    scene.expect(&[]);
    scene.with(|socket| socket.end());
    scene.expect(&["close", "connection"]);
}

// --- pausing ---

#[test]
fn a_paused_listener_accepts_nobody_and_then_everybody() {
    let (mut scene, listener, _first) = scene(ListenOptions::default(), 1);
    scene.expect(&["connection"]);
    scene.reactor.pause_accepting(listener.id).expect("open");
    let _others: Vec<_> = (0..3).map(|_| client(&mut scene, listener)).collect();
    let calls = scene.network.calls();
    scene.run(60 * SECOND);
    assert!(scene.story.is_empty() && scene.network.calls() - calls < 10, "{:?}", scene.story);
    scene.reactor.resume_accepting(listener.id).expect("open");
    scene.expect(&["connection"; 3]);
    let _last = client(&mut scene, listener);
    scene.expect(&["connection"]);
}

#[test]
fn pausing_a_listener_that_is_closed_is_refused() {
    let (mut scene, listener, _peers) = scene(ListenOptions::default(), 0);
    scene.reactor.close_listener(listener.id).expect("open");
    assert_eq!(scene.reactor.pause_accepting(listener.id), Err(Error::Gone));
    assert_eq!(scene.reactor.resume_accepting(listener.id), Err(Error::Gone));
    assert_eq!(scene.reactor.stop_listener(listener.id, StopOptions::default()), Err(Error::Gone));
}

// --- stopping ---

#[test]
fn a_stopped_listener_serves_who_waits_and_nobody_else() {
    let (mut scene, listener, peers) = scene(ListenOptions::default(), 3);
    scene.reactor.stop_listener(listener.id, StopOptions::default().grace(None).limit(None)).expect("open");
    scene.expect(&["connection"; 3]);
    let late = client(&mut scene, listener);
    scene.expect(&[]);
    assert!(late.is_reset(), "refused");
    for (index, peer) in peers.into_iter().enumerate() {
        peer.reset();
        let closed: &[&str] = if index == 2 { &["listener closed"] } else { &[] };
        scene.expect(&[&["error reset by the peer", "close"], closed].concat());
    }
    scene.rest();
    assert_eq!(scene.reactor.close_listener(listener.id), Err(Error::Gone));
}

#[test]
fn a_stopped_listener_closes_though_clients_go_on_coming() {
    for options in
        [ListenOptions::default(), ListenOptions::default().max_connections(0).overflow_policy(OverflowPolicy::Reset)]
    {
        let (mut scene, listener, mut peers) = scene(options.backlog(4), 2);
        scene.reactor.stop_listener(listener.id, StopOptions::default().grace(None).limit(None)).expect("open");
        // Whenever one is accepted another has connected.
        let (mut served, mut is_closed) = (0, false);
        while let Some((mut socket, event)) = scene.reactor.next().expect("it continues") {
            if matches!(event, Event::Connection | Event::Overflow(..)) {
                served += 1;
                assert!(served < 100, "it serves one after the other");
                socket.destroy();
                peers.push(client(&mut scene, listener));
            } else {
                is_closed |= matches!(event, Event::ListenerClosed(_));
            }
        }
        assert!((2..=5).contains(&served) && is_closed, "{served} were served");
    }
}

#[test]
fn a_stopped_listener_without_sockets_is_closed_at_once() {
    let (mut scene, listener, _peers) = scene(ListenOptions::default(), 0);
    scene.reactor.stop_listener(listener.id, StopOptions::default()).expect("open");
    scene.expect(&["listener closed"]);
    scene.rest();
}

#[test]
fn a_stopped_listener_that_may_accept_nobody_waits_for_nobody() {
    for clients in [0, 2] {
        let (mut scene, listener, peers) = scene(ListenOptions::default().max_connections(0), clients);
        scene.reactor.stop_listener(listener.id, StopOptions::default().limit(None)).expect("open");
        scene.run(SECOND);
        assert_eq!(scene.story, ["listener closed"], "{clients}");
        scene.network.advance(SECOND);
        assert!(peers.iter().all(PeerSocket::is_reset));
    }
}

#[test]
fn an_idle_connection_ends_after_the_grace_and_a_request_just_sent_is_answered() {
    let (mut scene, listener, peers) = scene(ListenOptions::default(), 2);
    scene.expect(&["connection"; 2]);
    scene.reactor.stop_listener(listener.id, StopOptions::default().grace(ms(500))).expect("open");
    peers[1].send(b"just sent");
    scene.expect(&["data just sent"]);
    assert!(peers[0].has_fin(), "the idle one has our FIN");
    assert!(!peers[1].has_fin(), "the other waits for its answer, however long that takes");
    scene.run(10 * SECOND);
    scene.with(|socket| {
        socket.write(b"answer").expect("open for writing");
    });
    scene.run(ms(400));
    assert!(!peers[1].has_fin(), "and after the answer it has the grace again");
    scene.run(ms(200));
    assert!(peers[1].has_fin(), "then it is idle");
    scene.story.clear();
    peers.iter().for_each(PeerSocket::finish);
    scene.expect(&["end", "end", "close", "close", "listener closed"]);
    scene.rest();
}

#[test]
fn a_program_with_a_last_message_gets_a_timeout_at_the_end_of_the_grace() {
    let (mut scene, listener, peers) = scene(ListenOptions::default(), 1);
    scene.expect(&["connection"]);
    scene.with(|socket| socket.set_farewell(true));
    // What it sends needs no answer, so the stop does not wait for one.
    peers[0].send(b"ping");
    scene.run(ms(10));
    scene.expect(&["data ping"]);
    scene.with(|socket| socket.set_answered());
    scene.reactor.stop_listener(listener.id, StopOptions::default()).expect("open");
    scene.run(ms(900));
    scene.with(|socket| assert!(!socket.is_farewell_due()));
    scene.run(ms(200));
    scene.expect(&["timeout"]);
    scene.with(|socket| {
        assert!(socket.is_farewell_due());
        socket.write(b"goodbye").expect("open");
        socket.end();
    });
    scene.run(ms(100));
    assert_eq!((peers[0].read().as_slice(), peers[0].has_fin()), (&b"goodbye"[..], true));
    peers[0].finish();
    scene.expect(&["end", "close", "listener closed"]);
}

#[test]
fn whoever_lives_at_the_limit_is_destroyed() {
    let (mut scene, listener, peers) = scene(ListenOptions::default(), 2);
    scene.expect(&["connection"; 2]);
    peers[0].send(b"busy");
    scene.expect(&["data busy"]);
    scene.reactor.stop_listener(listener.id, StopOptions::default().grace(None).limit(5 * SECOND)).expect("open");
    scene.run(5 * SECOND - ms(1));
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    scene.expect(&["close", "close", "listener closed"]);
    scene.network.advance(ms(10));
    assert!(peers.iter().all(PeerSocket::is_reset));
    scene.rest();
}

#[test]
fn a_second_stop_replaces_the_first() {
    let (mut scene, listener, _peers) = scene(ListenOptions::default(), 1);
    scene.expect(&["connection"]);
    scene.reactor.stop_listener(listener.id, StopOptions::default().grace(None).limit(None)).expect("open");
    scene.run(60 * SECOND);
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    scene.reactor.stop_listener(listener.id, StopOptions::default().limit(Duration::ZERO)).expect("stopping");
    scene.expect(&["close", "listener closed"]);
    scene.rest();
}

#[test]
fn clients_who_wait_for_a_place_are_served_by_a_listener_that_stops() {
    let (mut scene, listener, mut peers) = scene(ListenOptions::default().max_connections(1), 2);
    scene.expect(&["connection"]);
    scene.reactor.stop_listener(listener.id, StopOptions::default().grace(None)).expect("open");
    scene.expect(&[]);
    peers.remove(0).reset();
    scene.expect(&["error reset by the peer", "close", "connection"]);
    peers.remove(0).reset();
    scene.expect(&["error reset by the peer", "close", "listener closed"]);
    scene.rest();
}

#[test]
fn clients_that_still_wait_for_a_place_at_the_limit_of_a_stop_are_reset_without_an_event() {
    let (mut scene, listener, peers) = scene(ListenOptions::default().max_connections(1), 2);
    scene.expect(&["connection"]);
    scene.reactor.stop_listener(listener.id, StopOptions::default().grace(None).limit(5 * SECOND)).expect("open");
    scene.run(6 * SECOND);
    assert_eq!(std::mem::take(&mut scene.story), ["close", "listener closed"]);
    scene.network.advance(ms(10));
    assert!(peers.iter().all(PeerSocket::is_reset));
    scene.rest();
}

#[test]
fn a_stopped_listener_that_is_closed_reports_its_end_once() {
    let (mut scene, listener, mut peers) = scene(ListenOptions::default(), 1);
    scene.expect(&["connection"]);
    scene.reactor.stop_listener(listener.id, StopOptions::default().grace(None)).expect("open");
    scene.expect(&[]);
    for _ in 0..2 {
        scene.reactor.close_listener(listener.id).expect("stopping");
    }
    peers.remove(0).reset();
    scene.expect(&["error reset by the peer", "close", "listener closed"]);
    assert_eq!(scene.reactor.close_listener(listener.id), Err(Error::Gone));
    scene.rest();
}

#[test]
fn stopping_spares_the_sockets_of_other_listeners() {
    let (mut scene, listener, _peers) = scene(ListenOptions::default(), 0);
    let second = scene.reactor.listen((HERE, 81), ListenOptions::default()).expect("a free port");
    let other = client(&mut scene, second);
    scene.expect(&["connection"]);
    scene.reactor.stop_listener(listener.id, StopOptions::default().limit(Duration::ZERO)).expect("open");
    scene.run(10 * SECOND);
    assert_eq!(scene.story, ["listener closed"]);
    assert!(!other.has_fin() && !other.is_reset());
}

// --- deadlines ---

#[test]
fn a_client_that_drips_its_request_meets_its_deadline() {
    let (mut scene, _listener, peers) = scene(ListenOptions::default().deadline(5 * SECOND), 1);
    scene.run(ms(1));
    for _ in 0..49 {
        peers[0].send(b"x");
        scene.run(ms(100));
    }
    assert_eq!(scene.story.last().map(String::as_str), Some("data x"));
    scene.story.clear();
    scene.expect(&["error timed out: not done by its deadline", "close"]);
    assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::Deadline));
    assert!(peers[0].is_reset());
}

#[test]
fn a_client_that_never_stops_sending_meets_its_deadline() {
    let (mut scene, _listener, peers) = scene(ListenOptions::default().deadline(ms(200)), 1);
    for _ in 0..25 {
        peers[0].send(&[b'x'; 200_000]);
        scene.run(ms(10));
    }
    assert_eq!(scene.story[scene.story.len() - 2..], ["error timed out: not done by its deadline", "close"]);
    assert!(scene.ending.expect("delivered").bytes_read > 2_000_000);
}

#[test]
fn a_deadline_is_set_for_each_request_and_taken_back() {
    let (mut scene, _listener, _peers) = scene(ListenOptions::default().deadline(SECOND), 1);
    scene.run(ms(500));
    scene.with(|socket| socket.set_deadline(None));
    scene.run(60 * SECOND);
    assert_eq!(scene.story, ["connection"]);
    scene.with(|socket| socket.set_deadline(2 * SECOND));
    scene.run(2 * SECOND - ms(1));
    assert_eq!(scene.story, ["connection"], "not early");
    scene.story.clear();
    scene.expect(&["error timed out: not done by its deadline", "close"]);
}

#[test]
fn a_peer_that_takes_nothing_meets_the_write_timeout() {
    let (mut scene, _listener, _peers) = scene(ListenOptions::default().write_timeout(5 * SECOND), 1);
    scene.expect(&["connection"]);
    scene.run(60 * SECOND);
    assert!(scene.story.is_empty(), "nothing waits: {:?}", scene.story);
    scene.with(|socket| {
        socket.write(&vec![0; 4 << 20]).expect("room");
    });
    scene.run(5 * SECOND - ms(1));
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    scene.expect(&["error timed out: the peer took nothing for too long", "close"]);
}

#[test]
fn a_peer_that_takes_a_little_puts_the_write_timeout_off() {
    let (mut scene, _listener, peers) = scene(ListenOptions::default().write_timeout(5 * SECOND), 1);
    scene.expect(&["connection"]);
    scene.with(|socket| {
        socket.write(&vec![0; 4 << 20]).expect("room");
    });
    for _ in 0..5 {
        scene.run(4 * SECOND);
        assert!(!peers[0].read().is_empty(), "it takes a little");
    }
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    scene.run(6 * SECOND);
    assert_eq!(scene.story, ["error timed out: the peer took nothing for too long", "close"]);
}

#[test]
fn a_silence_of_the_peer_is_not_broken_by_what_we_send() {
    for (idle_direction, told) in
        [(IdleDirection::Read, true), (IdleDirection::Write, false), (IdleDirection::Both, false)]
    {
        let options = ListenOptions::default().idle_timeout(5 * SECOND).idle_direction(idle_direction);
        let (mut scene, _listener, _peers) = scene(options, 1);
        scene.run(ms(1));
        for _ in 0..6 {
            scene.with(|socket| {
                socket.write(b"news").expect("room");
            });
            scene.run(SECOND);
        }
        assert_eq!(scene.story.contains(&"timeout".to_owned()), told, "{idle_direction:?}: {:?}", scene.story);
    }
}

#[test]
fn a_silence_of_ours_is_not_broken_by_what_the_peer_sends() {
    for (idle_direction, told) in
        [(IdleDirection::Read, false), (IdleDirection::Write, true), (IdleDirection::Both, false)]
    {
        let options = ListenOptions::default().idle_timeout(5 * SECOND).idle_direction(idle_direction);
        let (mut scene, _listener, peers) = scene(options, 1);
        scene.run(ms(1));
        for _ in 0..6 {
            peers[0].send(b"news");
            scene.run(SECOND);
        }
        assert_eq!(scene.story.contains(&"timeout".to_owned()), told, "{idle_direction:?}: {:?}", scene.story);
    }
}

// --- the queue ---

#[test]
fn a_full_queue_drains_at_its_low_water_mark() {
    let options = ListenOptions::default().high_water_mark(2 << 20).low_water_mark(1 << 20);
    let (mut scene, _listener, peers) = scene(options, 1);
    scene.expect(&["connection"]);
    scene.with(|socket| {
        socket.write(&vec![0; 4 << 20]).expect("room");
    });
    scene.expect(&[]);
    let mut queued = usize::MAX;
    while scene.story.is_empty() {
        scene.with(|socket| queued = socket.queued_bytes());
        assert!(queued > 1 << 20, "it is delivered late");
        assert!(!peers[0].read().is_empty(), "it takes a little");
        scene.run(SECOND);
    }
    assert_eq!(scene.story, ["drain"]);
    scene.with(|socket| queued = socket.queued_bytes());
    assert!((1..=1 << 20).contains(&queued), "{queued} bytes wait");
}

#[test]
fn when_a_write_is_with_the_kernel_can_be_asked_for() {
    let (mut scene, _listener, _peers) = scene(ListenOptions::default(), 1);
    scene.expect(&["connection"]);
    scene.with(|socket| {
        assert!(!socket.request_drain(), "nothing waits");
        socket.write(b"a few bytes").expect("room");
        assert!(socket.request_drain());
    });
    scene.expect(&["drain"]);
    scene.with(|socket| {
        socket.write(b"the last").expect("room");
        socket.end();
        assert!(!socket.request_drain(), "the close will say more");
    });
    scene.expect(&[]);
}

#[test]
fn a_low_water_mark_that_is_not_below_the_high_one_is_refused() {
    let mut scene = Scene::new();
    let refused = scene.reactor.listen((HERE, 80), ListenOptions::default().high_water_mark(10).low_water_mark(10));
    assert_eq!(
        refused.expect_err("refused").to_string(),
        "an option's value can't be set: the low-water mark must be below the high-water mark"
    );
}

// --- the real kernel ---

#[test]
fn a_real_listener_stops_without_a_reset_for_who_waits() {
    let mut story = Transcript::new();
    let listener = story.reactor.listen("127.0.0.1:0", ListenOptions::default()).expect("loopback has a free port");
    let mut clients: Vec<_> = (0..20).map(|_| dial(listener.addr)).collect();
    story.reactor.stop_listener(listener.id, StopOptions::default().grace(ms(1))).expect("open");
    for client in &mut clients {
        client.write_all(b"hello").expect("connected");
        client.shutdown(Shutdown::Write).expect("connected");
    }
    story.until(|socket, event| {
        if let Event::End = event {
            socket.write(b"answer").expect("half-open");
            socket.end();
        }
        *event == Event::ListenerClosed(listener.id)
    });
    for client in &mut clients {
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("no reset");
        assert_eq!(answer, b"answer");
    }
    TcpStream::connect(listener.addr).expect_err("nothing listens any more");
}

#[test]
fn real_clients_beyond_the_limit_wait_in_the_backlog() {
    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default().max_connections(1));
    let (first, second) = (dial(addr), dial(addr));
    let socket = story.connection();
    story.turn();
    assert_eq!(story.reactor.len(), 1, "the second waits");
    drop(first);
    story.until_end(socket);
    story.socket(socket).end();
    story.close(socket);
    let socket = story.connection();
    assert_eq!(story.socket(socket).peer_addr(), second.local_addr().ok());
}
