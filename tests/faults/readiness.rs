//! Readiness: the rows RY01 and following of docs/faults.md.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use finale::lifecycle::State;
use finale::net::Readiness;
use finale::sim::{Faults, PeerSocket, Reach};
use finale::{Backpressure, CloseMode, ConnectOptions, ConnectionErrorKind, Event, ListenOptions, SocketId};

use support::alone::{alone_with_connections, shell};
use support::scene::{HERE, Scene, THERE};
use support::{Transcript, What, cpu_time, dial, dial_narrow, ms, pattern, reset};

const SECOND: Duration = Duration::from_secs(1);

/// The flags whose bits are set.
fn subset(bits: u32) -> Readiness {
    let bit = |place: u32| bits >> place & 1 == 1;
    Readiness { readable: bit(0), writable: bit(1), read_closed: bit(2), write_closed: bit(3), error: bit(4) }
}

/// A registered socket in this state, and its peer: the peer's window is closed while we flush, and
/// its machine is vanished while our FIN waits to be acknowledged.
fn scene_in(state: State) -> (Scene, PeerSocket) {
    let (mut scene, peer) = Scene::served(ListenOptions::default().half_closed_timeout(None).close_timeout(None));
    if matches!(state, State::PeerFinished | State::LastFlush | State::Closing) {
        peer.finish();
        scene.expect(&["end"]);
    }
    if state == State::Closing {
        scene.network.vanish(THERE);
    }
    let ends = matches!(state, State::Flushing | State::LastFlush | State::LocalFinished | State::Closing);
    scene.with(|socket| {
        if matches!(state, State::Flushing | State::LastFlush) {
            socket.write(&vec![1; 1 << 20]).expect("below the limit");
        }
        if ends {
            socket.end();
        }
    });
    scene.expect(&[]);
    scene.with(|socket| assert_eq!(socket.state(), state));
    (scene, peer)
}

/// Injects these flags for the scene's socket.
fn make_up(scene: &Scene, flags: Readiness) {
    let slot = scene.socket.expect("delivered").index();
    assert!(scene.reactor.net().make_up(slot, flags), "it is registered");
}

const STATES: [State; 6] =
    [State::Open, State::Flushing, State::LocalFinished, State::PeerFinished, State::LastFlush, State::Closing];

/// RY01: every subset of the flags in every connected state, without a reason: nothing is
/// delivered, and nothing is lost of what arrives then.
#[test]
fn flags_without_a_reason_tell_nothing_in_any_state() {
    for state in STATES {
        for bits in 0..32 {
            let (mut scene, peer) = scene_in(state);
            make_up(&scene, subset(bits));
            scene.expect(&[]);
            scene.with(|socket| {
                assert_eq!(socket.state(), state, "{bits:06b}");
                assert_eq!(socket.peer_ended(), !state.can_read(), "{bits:06b}: taken back when nothing was found");
            });
            if state == State::Closing {
                scene.network.heal(THERE);
                scene.run(9 * SECOND);
                assert_eq!(scene.story, ["close"], "{state:?} {bits:06b}");
                continue;
            }
            peer.send(b"x");
            peer.reset();
            let told = if state.can_read() {
                &["data x", "error reset by the peer", "close"][..]
            } else {
                &["error reset by the peer", "close"]
            };
            scene.expect(told);
        }
    }
}

/// RY01: every subset of the flags together with a real cause, bytes with a FIN or a reset: `data`,
/// then `end` or `error`, then `close`.
#[test]
fn flags_with_a_reason_are_told_in_order_whichever_they_are() {
    for state in [State::Open, State::Flushing, State::LocalFinished] {
        for bits in 0..32 {
            for resets in [false, true] {
                let (mut scene, peer) = scene_in(state);
                peer.send(b"x");
                peer.finish();
                if resets {
                    peer.reset();
                }
                scene.network.advance(SECOND); // All has arrived, with its own edge.
                make_up(&scene, subset(bits));
                let told: &[&str] = match (resets, state) {
                    // Our write meets the reset first, and after an error a zero-length read means
                    // nothing.
                    (true, State::Flushing) => &["data x", "error reset by the peer", "close"],
                    (true, State::Open) => &["data x", "end", "error reset by the peer", "close"],
                    // Both FINs were exchanged and acknowledged: a reset after them has no effect.
                    (_, State::LocalFinished) => &["data x", "end", "close"],
                    (_, _) => &["data x", "end"],
                };
                scene.expect(told);
            }
        }
    }
}

/// RY01: every subset of the flags while a handshake is in flight: nothing is delivered, and the
/// handshake continues.
#[test]
fn flags_without_a_reason_decide_no_handshake() {
    for bits in 0..32 {
        let mut scene = Scene::new();
        scene.network.set_reach(THERE, Reach::BlackHole);
        let listener = scene.peer.listen((THERE, 80).into()).expect("a free port");
        scene.reactor.connect((THERE, 80), ConnectOptions::default()).expect("a good target");
        scene.run(ms(100));
        make_up(&scene, subset(bits));
        scene.run(ms(100));
        assert_eq!(std::mem::take(&mut scene.story), ["lookup 10.0.0.2"], "{bits:06b}");
        scene.network.set_reach(THERE, Reach::Open);
        scene.run(2 * SECOND);
        assert_eq!(scene.story, ["connect", "ready"], "{bits:06b}");
        assert!(listener.accept().is_some());
    }
}

/// RY01: all flags at once on a real kernel: bytes and a reset before the poll, with a write
/// waiting.
#[test]
fn all_flags_at_once_are_told_in_order() {
    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default().send_buffer_size(16 * 1024));
    let mut peer = dial_narrow(addr);
    let socket = story.connection();
    story.socket(socket).write(&vec![1; 1 << 20]).expect("below the limit");
    story.turn();
    peer.write_all(b"x").expect("connected");
    reset(peer);
    assert_eq!(story.data(socket, 1), b"x");
    assert_eq!(story.error(socket).kind, ConnectionErrorKind::Reset);
    story.close(socket);
    story.rest();
}

/// RY02: readable and writable without a reason: nothing is delivered, the idle time is not
/// restarted, and after one look in each direction it is asleep again.
#[test]
fn spurious_readiness_touches_no_idle_time_and_costs_one_call() {
    let (mut scene, _peer) = Scene::served(ListenOptions::default().idle_timeout(10 * SECOND));
    scene.run(8 * SECOND);
    let calls = scene.network.calls();
    make_up(&scene, Readiness { readable: true, writable: true, ..Readiness::default() });
    scene.run(ms(900));
    assert!(scene.story.is_empty());
    // One poll that reports it, one read that finds nothing, one poll that waits.
    assert_eq!(scene.network.calls() - calls, 3);
    scene.run(ms(200));
    assert_eq!(scene.story, ["timeout"], "ten seconds after the connection, whatever was made up since");
}

/// RY02: the same on a real kernel: an urgent byte alone makes a socket readable, and there is
/// nothing to read.
#[test]
fn a_real_readiness_without_bytes_touches_no_idle_time() {
    let (mut story, socket, peer) = Transcript::pair(ListenOptions::default());
    story.turn();
    story.socket(socket).set_idle_timeout(ms(1000));
    let began = Instant::now();
    story.silence(ms(800));
    socket2::SockRef::from(&peer).send_out_of_band(b"!").expect("connected");
    story.expect(socket, What::Timeout);
    let silent = began.elapsed();
    assert!((ms(1000)..ms(1600)).contains(&silent), "delivered after {silent:?}: not the silence that it was");
    let cpu = cpu_time();
    story.silence(ms(200));
    assert!(cpu_time() - cpu < ms(50), "it spins");
    story.socket(socket).destroy();
    story.close(socket);
    story.rest();
}

/// RY03: two arrivals for one edge are both read; and every arrival repeats that there is room,
/// which is no `drain`.
#[test]
fn merged_edges_lose_nothing_and_repeated_ones_are_no_drain() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.expect(&[]);
    for _ in 0..3 {
        peer.send(b"one ");
        scene.network.advance(ms(10));
        peer.send(b"two");
        scene.network.advance(ms(10));
        scene.expect(&["data one two"]);
    }
    scene.with(|socket| assert_eq!(socket.write(b"below the mark"), Ok(Backpressure::Room)));
    scene.expect(&[]);
    peer.send(b"three");
    scene.expect(&["data three"]);

    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    story.turn();
    for _ in 0..3 {
        peer.write_all(b"one ").expect("connected");
        peer.write_all(b"two").expect("connected");
        assert_eq!(story.data(socket, 7), b"one two");
        story.socket(socket).write(b"below the mark").expect("open");
        story.silence(ms(10));
    }
    story.socket(socket).destroy();
    story.close(socket);
    story.rest();
}

/// RY04: HUP and ERR are reported whether requested or not. On a paused socket with unread bytes
/// they are remembered, and don't cost a turn each time; delivered when it resumes, once.
#[test]
fn a_hang_up_on_a_paused_socket_does_not_spin() {
    let options = ListenOptions::default().start_paused(true).half_closed_timeout(None).ending_timeout(None);
    let (mut scene, peer) = Scene::served(options);
    scene.expect(&[]);
    peer.send(b"unread");
    peer.reset();
    scene.expect(&["peerended(reset)"]);
    let calls = scene.network.calls();
    for _ in 0..100 {
        scene.expect(&[]);
    }
    // A wait for each of the hundred seconds, and the few calls that look into it.
    assert!(scene.network.calls() - calls <= 104, "{} calls", scene.network.calls() - calls);
    scene.with(|socket| socket.resume());
    scene.expect(&["data unread", "error reset by the peer", "close"]);

    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default().start_paused(true));
    story.turn();
    peer.write_all(b"unread").expect("connected");
    reset(peer);
    story.expect(socket, What::PeerEnded);
    let cpu = cpu_time();
    story.silence(ms(300));
    assert!(cpu_time() - cpu < ms(60), "it spins");
    story.socket(socket).resume();
    assert_eq!(story.data(socket, 6), b"unread");
    assert_eq!(story.error(socket).kind, ConnectionErrorKind::Reset);
    story.close(socket);
    story.rest();
}

/// RY05: the peer's FIN is known although we wait only to write and don't read; and flags that are
/// reported separately, or a wake without the flag, hide no `end`.
#[test]
fn a_fin_is_known_while_we_only_write() {
    for split_edge in [0.0, 1.0] {
        let (mut scene, peer) = Scene::served(ListenOptions::default().start_paused(true));
        scene.network.set_faults(Faults { split_edge, ..Faults::none() });
        scene.with(|socket| drop(socket.write(&vec![1; 1 << 20])));
        scene.expect(&[]);
        peer.finish();
        scene.expect(&[]);
        scene.with(|socket| {
            assert!(socket.peer_ended() && socket.queued_bytes() > 0);
            socket.resume();
        });
        scene.expect(&["end"]);
    }
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.expect(&[]);
    peer.finish();
    scene.network.advance(SECOND);
    make_up(&scene, Readiness { writable: true, ..Readiness::default() });
    scene.expect(&["end"]);

    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default().start_paused(true).send_buffer_size(16 * 1024));
    let peer = dial_narrow(addr);
    let socket = story.connection();
    story.socket(socket).write(&vec![1; 1 << 20]).expect("below the limit");
    story.turn();
    peer.shutdown(Shutdown::Write).expect("connected");
    story.turn();
    assert!(story.socket(socket).peer_ended() && story.socket(socket).queued_bytes() > 0);
    story.socket(socket).resume();
    story.expect(socket, What::End);
    story.socket(socket).destroy();
    story.close(socket);
    story.rest();
}

/// RY06: what arrived while we were paused needs no new edge: bytes, a FIN and a reset are
/// delivered when we resume.
#[test]
fn what_came_during_a_pause_needs_no_new_edge() {
    for resets in [false, true] {
        let (mut scene, peer) = Scene::served(ListenOptions::default().start_paused(true));
        scene.expect(&[]);
        peer.send(b"meanwhile");
        if resets {
            peer.reset()
        } else {
            peer.finish()
        }
        scene.expect(if resets { &["peerended(reset)"] } else { &[] });
        scene.with(|socket| socket.resume());
        let rest: &[&str] = if resets { &["error reset by the peer", "close"] } else { &["end"] };
        scene.expect(&[&["data meanwhile"][..], rest].concat());
    }
}

/// RY07: an event buffer of one, and many ready sockets. 1,000 with a piece each are all served;
/// 60, which is as many as such a buffer reports in one turn, are each served once before any is
/// served twice.
#[test]
fn all_ready_sockets_are_served_though_the_event_buffer_holds_one() {
    for (sockets, bytes) in [(1000, 1), (60, 200_000)] {
        let mut scene = Scene::new();
        let options = ListenOptions::default().receive_buffer_size(1 << 20).close_mode(CloseMode::HandOff);
        let listener = scene.reactor.listen((HERE, 80), options).expect("a free port");
        let peers: Vec<_> = (0..sockets).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
        scene.run(SECOND);
        assert_eq!(scene.story.len(), sockets);
        scene.network.set_faults(Faults { small_batch: 1.0, ..Faults::none() });
        peers.iter().for_each(|peer| peer.send(&vec![1; bytes]));
        scene.network.advance(SECOND);
        let mut served: HashMap<SocketId, usize> = HashMap::new();
        let until = scene.network.now() + SECOND;
        let mut got = 0;
        while let Some((socket, event)) = scene.reactor.next_before(until).expect("it continues") {
            let Event::Data(piece) = event else { panic!("{event:?}") };
            got += piece.len();
            *served.entry(socket.id()).or_default() += 1;
            let again = served.values().any(|times| *times > 1);
            assert!(!again || served.len() == sockets, "one was served twice before all were");
        }
        assert_eq!((served.len(), got), (sockets, sockets * bytes));
    }
}

/// RY07: the same with more ready sockets than one call of epoll_wait(2) reports (1,024): 1,100 of
/// them, each with more bytes than one read takes.
#[test]
fn all_ready_sockets_are_served_though_one_call_does_not_bring_them() {
    alone_with_connections(
        "readiness::all_ready_sockets_are_served_though_one_call_does_not_bring_them",
        1_100,
        100,
        |count| {
            shell(&format!("prlimit --pid {} --nofile=4096:", std::process::id()));
            let mut story = Transcript::new();
            let addr = story.listen(ListenOptions::default().start_paused(true).receive_buffer_size(256 * 1024));
            let mut peers: Vec<TcpStream> = Vec::new();
            let mut ids = Vec::new();
            for _ in 0..count {
                peers.push(dial(addr));
                ids.push(story.connection());
            }
            ids.iter().for_each(|id| story.socket(*id).resume());
            story.silence(ms(20));
            let bytes = pattern(70_000);
            peers.iter_mut().for_each(|peer| peer.write_all(&bytes).expect("room"));
            let mut served: HashMap<SocketId, usize> = HashMap::new();
            let (mut got, mut twice) = (0, 0);
            story.until(|socket, event| {
                let Event::Data(piece) = event else { panic!("{event:?}") };
                got += piece.len();
                let times = served.entry(socket.id()).or_default();
                *times += 1;
                twice += usize::from(*times == 2);
                assert!(twice == 0 || served.len() == count, "one was served twice before all were");
                got == count * bytes.len()
            });
            assert_eq!(served.len(), count);
            ids.iter().for_each(|id| story.socket(*id).destroy());
            ids.iter().for_each(|id| assert!(matches!(story.next(*id), What::Close(_))));
            story.rest();
        },
    );
}
