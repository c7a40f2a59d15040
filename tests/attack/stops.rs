//! A listener that stops: its grace and its limit apply whatever the program sets and whatever the
//! peers send.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use finale::sim::{Network, PeerSocket};
use finale::{
    Backpressure, EndingKind, Event, IdleDirection, ListenOptions, Listener, ListenerId, Socket, StopOptions,
};

use crate::floods::send_without_pause;
use crate::real_floods::Writers;
use support::faulty::faulty_on;
use support::scene::{HERE, Scene, THERE};
use support::{Transcript, dial, ms};

const SECOND: Duration = Duration::from_secs(1);

/// A listener, and one connection to it.
fn listening(options: ListenOptions) -> (Scene, Listener, PeerSocket) {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 80), options).expect("a free port");
    let peer = scene.peer.connect(listener.addr).expect("begun");
    scene.expect(&["connection"]);
    (scene, listener, peer)
}

/// The peer sends a request and the program answers it; `act` is what else the program does.
fn exchange(scene: &mut Scene, peer: &PeerSocket, act: impl FnOnce(&mut Socket<'_>)) {
    peer.send(b"question");
    scene.run(ms(10));
    scene.with(|socket| {
        socket.write(b"answer").expect("open");
        act(socket);
    });
    scene.run(ms(10));
}

/// How long after now the peer has received our FIN; `None` if not within half a minute. `act` runs
/// before each `step`.
fn fin_after(scene: &mut Scene, peer: &PeerSocket, step: Duration, act: impl Fn(&mut Socket<'_>)) -> Option<Duration> {
    let begun = scene.network.now();
    while scene.network.now() - begun < 30 * SECOND {
        scene.with(&act);
        for _ in 0..step.as_millis() / 10 {
            scene.run(ms(10));
            if peer.has_fin() {
                return Some(scene.network.now() - begun);
            }
        }
    }
    None
}

fn stop(scene: &mut Scene, listener: ListenerId, grace: Option<Duration>) {
    scene.reactor.stop_listener(listener, StopOptions::default().grace(grace).limit(60 * SECOND)).expect("open");
}

/// The connection is idle, and is ended exactly after its grace.
#[track_caller]
fn ends_after_its_grace(fin_after: Option<Duration>, grace: Duration, what: &str) {
    let after = fin_after.unwrap_or_else(|| panic!("{what}: it continues"));
    assert!(after + ms(30) >= grace && after <= grace + ms(50), "{what}: it ended after {after:?}");
}

#[test]
fn an_idle_time_that_is_set_during_a_stop_does_not_replace_the_grace() {
    for idle in [None, Some(60 * SECOND), Some(3 * SECOND), Some(10 * SECOND), Some(Duration::ZERO)] {
        for grace in [SECOND, 5 * SECOND] {
            let (mut scene, listener, peer) = listening(ListenOptions::default().idle_timeout(60 * SECOND));
            stop(&mut scene, listener.id, Some(grace));
            scene.run(SECOND / 2);
            exchange(&mut scene, &peer, |socket| socket.set_idle_timeout(idle));
            let after = fin_after(&mut scene, &peer, SECOND, |_| ());
            ends_after_its_grace(after, grace, &format!("idle time {idle:?}, grace {grace:?}"));
        }
    }
}

#[test]
fn an_idle_time_that_is_set_again_and_again_does_not_put_off_the_grace() {
    let (mut scene, listener, peer) = listening(ListenOptions::default());
    stop(&mut scene, listener.id, Some(SECOND));
    exchange(&mut scene, &peer, |_| ());
    let after = fin_after(&mut scene, &peer, ms(300), |socket| socket.set_idle_timeout(60 * SECOND));
    ends_after_its_grace(after, SECOND, "set each 300 ms");
}

#[test]
fn an_idle_time_during_a_stop_without_a_grace_ends_nothing() {
    let (mut scene, listener, peer) = listening(ListenOptions::default());
    stop(&mut scene, listener.id, None);
    exchange(&mut scene, &peer, |socket| socket.set_idle_timeout(SECOND));
    assert_eq!(fin_after(&mut scene, &peer, SECOND, |_| ()), None, "the program ends its sockets itself");
}

#[test]
fn the_idle_time_of_the_options_does_not_replace_the_grace() {
    for idle_direction in [IdleDirection::Both, IdleDirection::Read, IdleDirection::Write] {
        let options = ListenOptions::default().idle_direction(idle_direction).idle_timeout(2 * SECOND);
        let (mut scene, listener, peer) = listening(options);
        stop(&mut scene, listener.id, Some(5 * SECOND));
        exchange(&mut scene, &peer, |_| ());
        ends_after_its_grace(fin_after(&mut scene, &peer, SECOND, |_| ()), 5 * SECOND, &format!("{idle_direction:?}"));
    }
}

/// A request that arrives within the grace may take long to answer: the grace counts again from the
/// answer, whichever bytes the idle time counts.
#[test]
fn a_request_within_the_grace_has_the_time_that_its_answer_takes() {
    for idle_direction in [IdleDirection::Both, IdleDirection::Read, IdleDirection::Write] {
        let options = ListenOptions::default().idle_direction(idle_direction).idle_timeout(60 * SECOND);
        let (mut scene, listener, peer) = listening(options);
        stop(&mut scene, listener.id, Some(SECOND));
        scene.run(SECOND / 2);
        peer.send(b"question");
        scene.run(10 * SECOND);
        assert!(!peer.has_fin(), "it has not been answered");
        scene.with(|socket| drop(socket.write(b"answer")));
        let after = fin_after(&mut scene, &peer, SECOND, |_| ());
        ends_after_its_grace(after, SECOND, &format!("after the answer, {idle_direction:?}"));
    }
}

/// The acknowledgement of the peer's kernel would restart the grace, too.
#[test]
fn bytes_that_are_written_within_the_grace_restart_it_whichever_bytes_the_idle_time_counts() {
    for idle_direction in [IdleDirection::Both, IdleDirection::Read, IdleDirection::Write] {
        let options = ListenOptions::default().idle_direction(idle_direction).idle_timeout(60 * SECOND);
        let (mut scene, listener, _peer) = listening(options);
        stop(&mut scene, listener.id, Some(SECOND));
        scene.run(SECOND / 2);
        scene.network.vanish(THERE);
        scene.with(|socket| assert_eq!(socket.write(b"news"), Ok(Backpressure::Room)));
        for (time, has_ended) in [(ms(950), false), (ms(100), true)] {
            scene.run(time);
            scene.with(|socket| assert_eq!(socket.end_called(), has_ended, "{idle_direction:?}"));
        }
    }
}

/// Its idle time counts the same bytes as that of a connection from before the stop.
#[test]
fn a_connection_that_a_stop_accepts_has_the_options_of_its_listener() {
    for (idle_direction, expected) in
        [(IdleDirection::Both, false), (IdleDirection::Read, false), (IdleDirection::Write, true)]
    {
        let options = ListenOptions::default().idle_direction(idle_direction).idle_timeout(2 * SECOND);
        let mut scene = Scene::new();
        let listener = scene.reactor.listen((HERE, 80), options).expect("a free port");
        scene.reactor.pause_accepting(listener.id).expect("open");
        let peer = scene.peer.connect(listener.addr).expect("begun");
        scene.run(SECOND);
        stop(&mut scene, listener.id, None);
        for _ in 0..6 {
            scene.run(SECOND);
            peer.send(b"x");
        }
        assert_eq!(scene.story[0], "connection");
        let timeout = scene.story.iter().any(|event| event == "timeout");
        assert_eq!(timeout, expected, "{idle_direction:?}: {:?}", scene.story);
    }
}

/// A graceful stop cuts no answer: a peer that has finished waits for the rest of it.
#[test]
fn a_peer_that_has_finished_is_not_ended_by_the_grace_in_the_middle_of_its_answer() {
    let (mut scene, listener, peer) = listening(ListenOptions::default());
    peer.send(b"question");
    peer.finish();
    scene.expect(&["data question", "end"]);
    scene.with(|socket| assert_eq!(socket.write(b"part"), Ok(Backpressure::Room)));
    scene.run(SECOND);
    stop(&mut scene, listener.id, Some(SECOND));
    assert_eq!(fin_after(&mut scene, &peer, SECOND, |_| ()), None);
    scene.with(|socket| assert_eq!(socket.write(b" and rest"), Ok(Backpressure::Room)));
    scene.with(|socket| socket.end());
    scene.run(ms(100));
    assert_eq!(peer.read(), b"part and rest");
    assert!(peer.has_fin());
}

#[test]
fn a_connection_that_the_program_has_paused_has_the_grace_when_it_is_resumed() {
    let (mut scene, listener, peer) = listening(ListenOptions::default());
    exchange(&mut scene, &peer, |socket| socket.pause());
    peer.send(b"another");
    stop(&mut scene, listener.id, Some(5 * SECOND));
    assert_eq!(fin_after(&mut scene, &peer, SECOND, |_| ()), None, "it is paused");
    scene.story.clear();
    scene.with(|socket| socket.resume());
    scene.expect(&["data another"]);
    scene.with(|socket| assert_eq!(socket.write(b"answer"), Ok(Backpressure::Room)));
    ends_after_its_grace(fin_after(&mut scene, &peer, SECOND, |_| ()), 5 * SECOND, "after the answer");
}

#[test]
fn a_connection_that_is_paused_within_the_grace_has_all_of_it_again_when_it_is_resumed() {
    let (mut scene, listener, peer) = listening(ListenOptions::default());
    stop(&mut scene, listener.id, Some(2 * SECOND));
    scene.run(SECOND);
    scene.with(|socket| socket.pause());
    scene.run(5 * SECOND);
    assert!(!peer.has_fin(), "it is paused");
    scene.with(|socket| socket.resume());
    let after = fin_after(&mut scene, &peer, SECOND, |_| {});
    ends_after_its_grace(after, 2 * SECOND, "resumed");
}

/// The limit and the reset are noticed in one turn, or the connection is dead and paused for long.
#[test]
fn a_connection_that_is_dead_at_the_limit_of_a_stop_reports_its_own_error() {
    for is_paused in [false, true] {
        let (mut scene, listener, peer) = listening(ListenOptions::default());
        let stop = StopOptions::default().grace(None).limit(5 * SECOND);
        scene.reactor.stop_listener(listener.id, stop).expect("open");
        scene.run(SECOND);
        if is_paused {
            scene.with(|socket| socket.pause());
            peer.send(b"unread");
        }
        scene.run(SECOND);
        peer.reset();
        if is_paused {
            scene.expect(&["peerended(reset)"]);
        }
        scene.network.advance(5 * SECOND);
        scene.expect(&["error reset by the peer", "close", "listener closed"]);
    }
}

#[test]
fn a_listener_that_is_closed_during_its_stop_keeps_the_limit_and_reports_its_end() {
    for accept_backlog in [false, true] {
        let (mut scene, listener, peer) = listening(ListenOptions::default());
        let stop = StopOptions::default().grace(None).limit(5 * SECOND).accept_backlog(accept_backlog);
        scene.reactor.stop_listener(listener.id, stop).expect("open");
        scene.reactor.close_listener(listener.id).expect("stopping");
        exchange(&mut scene, &peer, |_| ());
        scene.run(3 * SECOND);
        scene.expect(&["data question"]);
        scene.run(SECOND);
        scene.expect(&["close", "listener closed"]);
    }
}

#[test]
fn a_stop_with_a_late_limit_does_not_put_off_that_of_another() {
    let mut scene = Scene::new();
    let mut peers = Vec::new();
    for (port, limit) in [(80, 2), (81, 60)] {
        let listener = scene.reactor.listen((HERE, port), ListenOptions::default()).expect("a free port");
        peers.push(scene.peer.connect(listener.addr).expect("begun"));
        scene.run(ms(10));
        let stop = StopOptions::default().grace(None).limit(limit * SECOND);
        scene.reactor.stop_listener(listener.id, stop).expect("open");
        scene.run(ms(10));
        scene.reactor.stop_listener(listener.id, stop).expect("it has a socket");
    }
    scene.run(3 * SECOND);
    assert_eq!(scene.story, ["connection", "connection", "close", "listener closed"]);
    assert!(peers[0].is_reset() && !peers[1].is_reset());
}

#[test]
fn a_dead_connection_with_unread_bytes_has_the_grace_to_read_them() {
    for resumes_after in [SECOND, 6 * SECOND] {
        let (mut scene, listener, peer) = listening(ListenOptions::default());
        scene.with(|socket| socket.pause());
        peer.send(b"last words");
        scene.expect(&[]);
        peer.reset();
        scene.expect(&["peerended(reset)"]);
        scene.run(60 * SECOND);
        stop(&mut scene, listener.id, Some(5 * SECOND));
        scene.run(resumes_after);
        let is_in_time = resumes_after < 5 * SECOND;
        if is_in_time {
            scene.with(|socket| socket.resume());
        }
        scene.run(SECOND);
        let end = ["error reset by the peer", "close", "listener closed"];
        let story: Vec<_> = is_in_time.then_some("data last words").into_iter().chain(end).collect();
        assert_eq!(scene.story, story);
    }
}

/// The grace counted before the pause; the time in which it was paused is no part of it.
#[test]
fn a_paused_connection_that_dies_long_after_the_stop_has_the_whole_grace_to_be_read() {
    let (mut scene, listener, peer) = listening(ListenOptions::default());
    stop(&mut scene, listener.id, Some(5 * SECOND));
    scene.run(SECOND);
    scene.with(|socket| socket.pause());
    scene.run(50 * SECOND);
    peer.send(b"last words");
    peer.reset();
    scene.run(4 * SECOND);
    scene.with(|socket| socket.resume());
    scene.run(SECOND);
    let read = ["peerended(reset)", "data last words", "error reset by the peer", "close", "listener closed"];
    assert_eq!(scene.story, read);
}

/// The same if the step that applies the pause is the one that sees the reset.
#[test]
fn a_connection_that_is_paused_as_it_dies_has_the_whole_grace_to_be_read() {
    let (mut scene, listener, peer) = listening(ListenOptions::default());
    let id = scene.socket.expect("served");
    let other = scene.peer.connect(listener.addr).expect("begun");
    scene.expect(&["connection"]);
    stop(&mut scene, listener.id, Some(5 * SECOND));
    scene.run(ms(4900));
    other.send(b"x");
    peer.send(b"last words");
    peer.reset();
    scene.network.advance(ms(50));
    let (socket, event) = scene.reactor.next_before(scene.network.now()).expect("open").expect("both are ready");
    assert!(socket.id() != id && matches!(event, Event::Data(_)));
    scene.reactor.socket(id).expect("its step comes next").pause();
    scene.story.clear();
    scene.run(4 * SECOND);
    assert_eq!(scene.story, ["peerended(reset)"]);
    scene.reactor.socket(id).expect("its grace has begun again").resume();
    scene.run(ms(10));
    assert_eq!(scene.story, ["peerended(reset)", "data last words", "error reset by the peer", "close"]);
}

/// One quiet connection among some whose peers send without a pause: it ends after the grace, and
/// the others at the limit.
#[test]
fn a_flood_puts_off_neither_grace_nor_limit_of_a_stop() {
    const GRACE: Duration = Duration::from_secs(2);
    for flooding in [1, 6, 1000] {
        let (mut scene, faulty) = faulty_on(Network::new(7));
        let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
        let quiet = scene.peer.connect(listener.addr).expect("begun");
        let flood: Vec<_> = (0..flooding).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
        let (mut connections, mut stopped, mut fin) = (0, None, None);
        let closed = loop {
            let (socket, event) = scene.reactor.next().expect("it continues").expect("a peer sends");
            match event {
                Event::Connection => {
                    connections += 1;
                    if socket.peer_addr() == quiet.local_addr() {
                        faulty.keep_quiet(socket.id().index());
                    }
                }
                Event::Close(ending) => {
                    let is_quiet = ending.peer == quiet.local_addr();
                    assert!(is_quiet || ending.kind == EndingKind::Destroyed, "with {flooding} that flood: {ending}");
                }
                Event::ListenerClosed(_) => break scene.network.now(),
                _ => {}
            }
            if connections == flooding + 1 && stopped.is_none() {
                stopped = Some(scene.network.now());
                send_without_pause(&faulty, &flood);
                let stop = StopOptions::default().grace(GRACE).limit(2 * GRACE);
                scene.reactor.stop_listener(listener.id, stop).expect("open");
            }
            if fin.is_none() && quiet.has_fin() {
                fin = Some(scene.network.now());
            }
            let runs_for = stopped.map_or(Duration::ZERO, |stopped| scene.network.now() - stopped);
            assert!(runs_for < 3 * GRACE, "with {flooding} that flood, it does not stop");
        };
        let after = |at: Option<Instant>| at.zip(stopped).map(|(at, stopped)| at - stopped);
        let fin = after(fin).unwrap_or_else(|| panic!("with {flooding} that flood, the quiet one was not ended"));
        assert!((GRACE..GRACE * 3 / 2).contains(&fin), "with {flooding} that flood, the grace was {fin:?}");
        let closed = after(Some(closed)).expect("it has stopped");
        assert!((2 * GRACE..GRACE * 5 / 2).contains(&closed), "with {flooding} that flood, the limit was {closed:?}");
    }
}

/// On Linux the queue of a listener holds its backlog and another connection (listen(2)).
#[test]
fn a_stop_accepts_all_connections_that_a_full_backlog_holds() {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default().backlog(3)).expect("a free port");
    scene.reactor.pause_accepting(listener.id).expect("open");
    let _peers: Vec<_> = (0..4).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    scene.run(SECOND);
    assert_eq!(scene.story, [""; 0], "it is paused");
    stop(&mut scene, listener.id, None);
    scene.expect(&["connection"; 4]);
}

/// Three clients wait at a listener with a backlog of two that is paused.
fn with_three_waiting() -> (Scene, Listener, Vec<PeerSocket>) {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default().backlog(2)).expect("a free port");
    scene.reactor.pause_accepting(listener.id).expect("open");
    let peers = (0..3).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    scene.run(SECOND);
    assert_eq!(scene.story, [""; 0], "it is paused");
    (scene, listener, peers)
}

#[test]
fn connections_that_a_stop_accepts_have_its_grace() {
    let (mut scene, listener, peers) = with_three_waiting();
    stop(&mut scene, listener.id, Some(5 * SECOND));
    scene.run(5 * SECOND - ms(50));
    assert!(!peers.iter().any(PeerSocket::has_fin));
    scene.run(ms(100));
    assert!(peers.iter().all(PeerSocket::has_fin));
}

#[test]
fn a_stop_that_leaves_the_backlog_to_another_process_accepts_none_of_it() {
    let (mut scene, listener, peers) = with_three_waiting();
    let stop = StopOptions::default().accept_backlog(false);
    scene.reactor.stop_listener(listener.id, stop).expect("open");
    scene.run(ms(10));
    scene.network.advance(ms(10));
    assert_eq!(scene.story, ["listener closed"]);
    assert!(peers.iter().all(PeerSocket::is_reset), "there is no other process");
}

/// Clients that continue to connect take the places that become free in the backlog.
#[test]
fn a_second_stop_accepts_no_more_of_the_backlog_than_the_first() {
    let (mut scene, listener, _peers) = with_three_waiting();
    stop(&mut scene, listener.id, None);
    let mut accepted = 0;
    let mut late = Vec::new();
    let until = scene.network.now() + SECOND;
    while let Some((_, event)) = scene.reactor.next_before(until).expect("it continues") {
        assert_eq!(event, Event::Connection);
        accepted += 1;
        late.extend((0..2).map(|_| scene.peer.connect(listener.addr).expect("begun")));
        scene.network.advance(ms(5));
        stop(&mut scene, listener.id, None);
    }
    assert_eq!(accepted, 3, "and {} have connected later", late.len());
}

#[test]
fn the_limit_of_a_second_stop_replaces_that_of_the_first() {
    for second in [Some(20 * SECOND), None] {
        let (mut scene, listener, peer) = listening(ListenOptions::default());
        let stop = StopOptions::default().grace(None);
        scene.reactor.stop_listener(listener.id, stop.limit(2 * SECOND)).expect("open");
        scene.run(SECOND);
        scene.reactor.stop_listener(listener.id, stop.limit(second)).expect("open");
        scene.run(15 * SECOND);
        assert!(!peer.is_reset(), "{second:?}");
        scene.run(15 * SECOND);
        scene.network.advance(ms(10));
        assert_eq!(peer.is_reset(), second.is_some());
    }
}

/// How many of these have received our FIN by each second.
fn ended_each_second(scene: &mut Scene, peers: &[PeerSocket], seconds: usize) -> Vec<usize> {
    let count = |_| {
        scene.run(SECOND);
        peers.iter().filter(|peer| peer.has_fin()).count()
    };
    (0..seconds).map(count).collect()
}

/// Clients that lose their connections together would connect again together.
#[test]
fn the_ends_of_idle_connections_are_distributed_evenly_after_the_grace() {
    const CLIENTS: usize = 1_000;
    // Of all clients, the first ones, which are the first in the table, too, wait for an answer.
    for busy in [0, 500, 900] {
        let mut scene = Scene::new();
        let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
        let peers: Vec<_> = (0..CLIENTS).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
        let (busy, idle) = peers.split_at(busy);
        scene.run(SECOND);
        busy.iter().for_each(|peer| peer.send(b"question"));
        scene.run(ms(10));
        let stop = StopOptions::default().grace(SECOND).spread(10 * SECOND).limit(60 * SECOND);
        scene.reactor.stop_listener(listener.id, stop).expect("open");
        let expect_even_ends = |scene: &mut Scene, peers: &[PeerSocket]| {
            let ended = ended_each_second(scene, peers, 12);
            assert_eq!(ended[0], 0, "no connection ends before the grace");
            let (least, most) = (peers.len() * 9 / 100, peers.len() * 11 / 100);
            for (second, counts) in ended[..11].windows(2).enumerate() {
                let now = counts[1] - counts[0];
                assert!((least..=most).contains(&now), "second {second} after the grace: {ended:?}");
            }
            assert_eq!(ended[11], peers.len(), "{ended:?}");
        };
        expect_even_ends(&mut scene, idle);
        assert!(!busy.iter().any(PeerSocket::has_fin), "they wait for their answers");
        // Their answers come together.
        for info in scene.reactor.sockets().iter() {
            if let Some(mut socket) = scene.reactor.socket(info.id).filter(|socket| !socket.end_called()) {
                socket.write(b"answer").expect("open");
            }
        }
        if !busy.is_empty() {
            expect_even_ends(&mut scene, busy);
        }
    }
}

#[test]
fn a_spread_that_never_ends_keeps_all_connections_but_the_first() {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let peers: Vec<_> = (0..4).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    scene.run(SECOND);
    let stop = StopOptions::default().grace(SECOND).spread(Duration::MAX).limit(None);
    scene.reactor.stop_listener(listener.id, stop).expect("open");
    assert_eq!(ended_each_second(&mut scene, &peers, 20).pop(), Some(1));
}

/// The same with plain clients that only write.
#[test]
fn clients_that_only_write_put_off_neither_grace_nor_limit_of_a_stop() {
    const GRACE: Duration = ms(300);
    const LIMIT: Duration = ms(700);
    let mut story = Transcript::new();
    let listener = story
        .reactor
        .listen("127.0.0.1:0", ListenOptions::default().receive_buffer_size(1 << 20))
        .expect("a free port");
    let mut quiet = dial(listener.addr);
    quiet.set_nonblocking(true).expect("a socket");
    let _writers = Writers::new(listener.addr, 3);
    let mut connections = 0;
    story.until(|_, event| {
        connections += u32::from(*event == Event::Connection);
        connections == 4
    });
    story.reactor.stop_listener(listener.id, StopOptions::default().grace(GRACE).limit(LIMIT)).expect("open");
    let (stopped, mut fin, mut closed) = (Instant::now(), None, None);
    while closed.is_none() && stopped.elapsed() < 4 * LIMIT {
        story.run_for(ms(5), |_, event| {
            if matches!(event, Event::ListenerClosed(_)) {
                closed = Some(stopped.elapsed());
            }
        });
        match quiet.read(&mut [0; 1]) {
            Ok(0) => drop(fin.get_or_insert(stopped.elapsed())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(fin.is_some_and(|fin| (GRACE..2 * GRACE).contains(&fin)), "the grace was {fin:?}");
    assert!(closed.is_some_and(|closed| (LIMIT..2 * LIMIT).contains(&closed)), "the limit was {closed:?}");
}
