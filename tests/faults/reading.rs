//! Reading: the rows RD01 and following of docs/faults.md.

use std::io::Write;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use finale::{ConnectionErrorKind, EndingKind, Event, ListenOptions, TimeoutKind};

use support::alone::alone_with_connections;
use support::faulty::{faulty_registered, flags};
use support::scene::{HERE, Scene};
use support::{PATIENCE, Transcript, What, cpu_time, dial, ms, pattern};

const SECOND: Duration = Duration::from_secs(1);

/// What one read takes at most.
const QUANTUM: usize = 64 * 1024;

/// RD01: bytes and FIN in one readiness, around the size of a read: every byte, then `end`.
#[test]
fn bytes_and_fin_together_are_data_and_end() {
    for bytes in [1, 3, QUANTUM - 1, QUANTUM, QUANTUM + 1, 2 * QUANTUM] {
        let (mut scene, peer) = Scene::served(ListenOptions::default().receive_buffer_size(1 << 20));
        scene.expect(&[]); // Registered by now.
        peer.send(&vec![b'x'; bytes]);
        peer.finish();
        scene.network.advance(ms(10));
        scene.run(ms(1));
        assert_eq!(scene.story.pop().as_deref(), Some("end"));
        let got: usize = scene.story.iter().map(|line| line.len() - "data ".len()).sum();
        assert_eq!(got, bytes);
        scene.story.clear();
        scene.with(|socket| socket.end());
        scene.expect(&["close"]);
        assert_eq!(scene.how(), &EndingKind::Confirmed);
        scene.rest();
    }
}

/// RD01 and RD02: the same on a real kernel, where no edge is reported for what a read leaves.
#[test]
fn real_bytes_and_fin_together_are_data_and_end() {
    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default().receive_buffer_size(1 << 20));
    for bytes in [1, 3, QUANTUM - 1, QUANTUM, QUANTUM + 1, 3 * QUANTUM] {
        let mut peer = dial(addr);
        let socket = story.connection();
        story.turn();
        peer.write_all(&pattern(bytes)).expect("room");
        peer.shutdown(Shutdown::Write).expect("connected");
        assert!(story.until_end(socket) == pattern(bytes), "{bytes}");
        story.socket(socket).end();
        assert!(story.close(socket).is_acknowledged());
    }
    story.rest();
}

/// RD02: three bytes and the FIN: the zero-length read follows in the same turn, because it is
/// known to be due.
#[test]
fn a_short_read_with_the_fin_behind_it_is_followed_at_once() {
    let (mut scene, peer, faulty) = faulty_registered(ListenOptions::default());
    peer.send(b"abc");
    peer.finish();
    scene.network.advance(ms(10));
    let begun = scene.network.elapsed();
    let mut told = Vec::new();
    while let Some((_, event)) = scene.reactor.next_before(scene.network.now()).expect("it continues") {
        told.push(format!("{event:?}"));
    }
    assert_eq!((told.len(), told[1].as_str()), (2, "End"), "{told:?}");
    assert_eq!((faulty.count("recv"), scene.network.elapsed()), (2, begun));
}

/// RD03: what follows an urgent byte arrives without another packet, and without a spin.
#[test]
fn what_follows_an_urgent_byte_needs_no_packet_and_no_spin() {
    let (mut scene, peer, faulty) = faulty_registered(ListenOptions::default());
    for _ in 0..10 {
        peer.send(b"abc");
        peer.send_urgent();
        peer.send(b"def");
        scene.run(ms(10));
        assert_eq!(std::mem::take(&mut scene.story).concat().replace("data ", ""), "abcdef");
    }
    assert!(faulty.take_log().len() <= 200);
    scene.run(3600 * SECOND);
    assert!(faulty.take_log().len() <= 4, "asleep");
}

/// RD04: more than one read takes, and then silence: the rest is read in later turns, after the
/// others.
#[test]
fn what_a_read_leaves_behind_comes_in_later_turns() {
    let mut scene = Scene::new();
    let options = ListenOptions::default().receive_buffer_size(1 << 20);
    let listener = scene.reactor.listen((HERE, 80), options).expect("a free port");
    let [large, small] = [0; 2].map(|_| scene.peer.connect(listener.addr).expect("begun"));
    scene.expect(&["connection", "connection"]);
    large.send(&vec![b'x'; QUANTUM + 64 * 1024]);
    small.send(b"line");
    scene.network.advance(ms(10));
    let begun = scene.network.elapsed();
    scene.run(Duration::ZERO);
    assert_eq!(scene.story.iter().map(String::len).collect::<Vec<_>>(), [5 + QUANTUM, 9, 5 + QUANTUM]);
    assert_eq!((scene.story[1].as_str(), scene.network.elapsed()), ("data line", begun));
}

/// RD05: one peer sends without a pause, a hundred others a line each. No socket waits longer than
/// a round, and timers are on time. Each event takes 20 microseconds of virtual time, so that time
/// passes although there is always input.
#[test]
fn a_fast_sender_holds_nobody_up() {
    let mut scene = Scene::new();
    scene.network.set_latency(Duration::ZERO);
    let options = ListenOptions::default().receive_buffer_size(1 << 20);
    let listener = scene.reactor.listen((HERE, 80), options).expect("a free port");
    let fast = scene.peer.connect(listener.addr).expect("begun");
    scene.expect(&["connection"]);
    let fast_id = scene.socket.expect("delivered");
    let others: Vec<_> = (0..100).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    scene.run(SECOND);
    let timer = scene.reactor.set_timer(ms(50));
    let due = scene.network.now() + ms(50);
    others.iter().for_each(|other| other.send(b"line"));
    fast.send(&vec![0; 8 * QUANTUM]);
    scene.network.advance(ms(2));
    let (mut lines, mut reads, mut fired) = (0, 0, None);
    while fired.is_none() || lines < 100 {
        let now = scene.network.now();
        let (socket, event) = scene.reactor.next_before(now).expect("it continues").expect("there is always input");
        match event {
            Event::Data(_) if socket.id() == fast_id => {
                fast.send(&vec![0; 8 * QUANTUM]);
                reads += u32::from(lines < 100);
            }
            Event::Data(_) => lines += 1,
            Event::Timer(id) => fired = Some((id, scene.network.now())),
            other => panic!("{other:?}"),
        }
        scene.network.advance(Duration::from_micros(20));
    }
    assert!(reads <= 2, "the others waited for {reads} reads of the fast one");
    let (id, at) = fired.expect("it fired");
    assert!(id == timer && (ms(0)..ms(3)).contains(&(at - due)), "{:?} late", at - due);
}

/// RD05: the same on real sockets: the lines and the timer are delivered while the fast sender is
/// at work.
#[test]
fn a_real_fast_sender_holds_nobody_up() {
    alone_with_connections("reading::a_real_fast_sender_holds_nobody_up", 100, 10, |count| {
        let (mut story, fast, mut sender) = Transcript::pair(ListenOptions::default());
        let addr = sender.peer_addr().expect("connected");
        let mut others: Vec<_> = (0..count).map(|_| dial(addr)).collect();
        for _ in 0..count {
            story.connection();
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sending = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                sender.write_all(&[7; 256 * 1024]).expect("it is read");
            }
        });
        others.iter_mut().for_each(|other| other.write_all(b"line").expect("room"));
        story.reactor.set_timer(ms(20));
        let (mut lines, mut timer, began) = (0, false, Instant::now());
        story.until(|socket, event| {
            match event {
                Event::Data(bytes) if socket.id() != fast => lines += bytes.len(),
                Event::Timer(_) => timer = true,
                _ => {}
            }
            assert!(began.elapsed() < PATIENCE / 2, "{lines} bytes of the others, timer: {timer}");
            lines == 4 * count && timer
        });
        stop.store(true, Ordering::Relaxed);
        story.until(|socket, event| socket.id() == fast && *event == Event::End);
        sending.join().expect("no panic");
    });
}

/// RD06: paused with bytes and FIN waiting: neither is delivered before `resume`, and both after
/// it.
#[test]
fn a_paused_socket_keeps_data_and_end_until_it_resumes() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.with(|socket| socket.pause());
    peer.send(b"abc");
    peer.finish();
    scene.run(60 * SECOND);
    assert!(scene.story.is_empty());
    scene.with(|socket| socket.resume());
    scene.expect(&["data abc", "end"]);
    scene.with(|socket| socket.end());
    scene.expect(&["close"]);
    scene.rest();
}

/// RD06: it does not stay for ever: its timers run.
#[test]
fn a_paused_socket_is_ended_by_its_timers() {
    let options = ListenOptions::default().half_closed_timeout(9 * SECOND).idle_timeout(4 * SECOND);
    let (mut scene, peer) = Scene::served(options);
    scene.with(|socket| socket.pause());
    peer.send(b"abc");
    peer.finish();
    scene.run(8 * SECOND);
    assert_eq!(std::mem::take(&mut scene.story), ["timeout"]);
    scene.run(2 * SECOND);
    assert_eq!(std::mem::take(&mut scene.story), ["error timed out: half-closed and silent", "close"]);
    assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::HalfClosed));
    scene.rest();
}

/// RD07: nothing is ever read into an empty buffer, where zero would look like the end.
#[test]
fn nothing_is_read_into_an_empty_buffer() {
    let (mut scene, peer, faulty) = faulty_registered(ListenOptions::default());
    for bytes in [0, 1, QUANTUM, 0, QUANTUM + 1, 0] {
        peer.send(&vec![b'x'; bytes]);
        faulty.news(0, flags("in out"));
        scene.run(ms(10));
    }
    peer.finish();
    scene.run(ms(10));
    assert_eq!(scene.story.iter().filter(|line| *line == "end").count(), 1);
    assert_eq!(scene.story.last().map(String::as_str), Some("end"));
    assert!(faulty.orders().read_into.iter().all(|bytes| *bytes == QUANTUM));
}

/// RD08: after the peer's FIN a socket is readable for ever: it is read no more, and the loop
/// sleeps.
#[test]
fn the_end_is_read_once() {
    let options = ListenOptions::default().half_closed_timeout(None).ending_timeout(None);
    let (mut scene, peer, faulty) = faulty_registered(options);
    peer.finish();
    scene.expect(&["end"]);
    faulty.take_log();
    for _ in 0..100 {
        faulty.news(0, flags("in out rdhup"));
        scene.run(ms(1));
    }
    assert_eq!(faulty.count("recv"), 0);
    faulty.take_log();
    scene.run(3600 * SECOND);
    assert!(faulty.take_log().len() <= 2 && scene.story.is_empty(), "asleep");
}

/// RD08: on a real kernel, where epoll would report it with every poll.
#[test]
fn a_half_closed_socket_sleeps() {
    let (mut story, socket, peer) = Transcript::pair(ListenOptions::default());
    peer.shutdown(Shutdown::Write).expect("connected");
    story.expect(socket, What::End);
    let before = cpu_time();
    story.silence(ms(300));
    assert!(cpu_time() - before < ms(100), "{:?} of processor time", cpu_time() - before);
    story.socket(socket).end();
    assert!(story.close(socket).is_acknowledged());
    story.rest();
}
