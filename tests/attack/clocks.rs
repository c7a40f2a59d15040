//! What restarts which clock, on the simulated network. Bytes that arrive restart the idle time and
//! the limit of the state, but not the limit while we flush or linger. Bytes that we send, and
//! bytes that the peer takes, restart both, and the write timeout. A new state restarts only its
//! own limit. The first queued byte starts the write timeout.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use finale::net::{Net, Readiness};
use finale::sim::{Network, PeerSocket, Reach};
use finale::{
    CloseMode, ConnectOptions, ConnectionErrorKind, Event, IdleDirection, KeepAlive, ListenOptions, Socket, TimeoutKind,
};
use rustix::io::Errno;

use support::faulty::{faulty_on, faulty_served, flags};
use support::scene::{Scene, THERE};
use support::{PATIENCE, Transcript, dial_narrow, ms};

const SECOND: Duration = Duration::from_secs(1);
/// What the kernels of both sides hold together, each half of it.
const HELD: usize = 2000;

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

/// The time of the next event that begins with this word, to the millisecond.
#[track_caller]
fn when<N: Net>(scene: &mut Scene<N>, word: &str) -> Duration {
    for _ in 0..60_000 {
        if scene.story.iter().any(|line| line.starts_with(word)) {
            return scene.network.elapsed();
        }
        scene.run(ms(1));
    }
    panic!("no {word} within a minute: {:?}", scene.story);
}

/// A clock expired on time, within the milliseconds of a step and of the network.
#[track_caller]
fn is_about(time: Duration, expected: Duration, what: &str) {
    assert!(time + ms(1) >= expected && time <= expected + ms(10), "{what}: after {time:?}, not {expected:?}");
}

/// A connection whose kernels hold little.
fn narrow(options: ListenOptions) -> (Scene, PeerSocket) {
    let mut scene = Scene::new();
    scene.network.set_buffers(HELD / 2, HELD / 2);
    let peer = scene.serve(options);
    (scene, peer)
}

fn write<N: Net>(scene: &mut Scene<N>, bytes: usize) {
    scene.with(|socket| {
        socket.write(&vec![b'x'; bytes]).expect("open");
    });
}

// --- idle ---

/// How long after the last byte `timeout` is delivered, if `act` is done four seconds after it. The
/// idle time is five seconds.
fn silence(idle_direction: IdleDirection, act: impl FnOnce(&mut Scene, &PeerSocket)) -> Duration {
    let (mut scene, peer) =
        Scene::served(ListenOptions::default().idle_direction(idle_direction).idle_timeout(seconds(5)));
    let last = if idle_direction == IdleDirection::Write {
        write(&mut scene, 1);
        scene.network.elapsed()
    } else {
        peer.send(b"x");
        when(&mut scene, "data")
    };
    scene.run(4 * SECOND);
    scene.story.clear();
    act(&mut scene, &peer);
    when(&mut scene, "timeout") - last
}

#[test]
fn an_end_moves_no_byte_and_restarts_no_silence() {
    for idle_direction in [IdleDirection::Both, IdleDirection::Read, IdleDirection::Write] {
        let silence = silence(idle_direction, |scene, _| scene.with(|socket| socket.end()));
        is_about(silence, 5 * SECOND, &format!("{idle_direction:?}"));
    }
}

#[test]
fn a_discard_moves_no_byte_and_restarts_no_silence() {
    for idle_direction in [IdleDirection::Both, IdleDirection::Read, IdleDirection::Write] {
        let silence = silence(idle_direction, |scene, _| scene.with(|socket| socket.discard()));
        is_about(silence, 5 * SECOND, &format!("{idle_direction:?}"));
    }
}

#[test]
fn the_peers_fin_moves_no_byte_and_restarts_no_silence() {
    for idle_direction in [IdleDirection::Both, IdleDirection::Read, IdleDirection::Write] {
        let silence = silence(idle_direction, |_, peer| peer.finish());
        is_about(silence, 5 * SECOND, &format!("{idle_direction:?}"));
    }
}

#[test]
fn the_peers_fin_restarts_no_silence_of_a_paused_connection() {
    let act = |scene: &mut Scene, peer: &PeerSocket| {
        scene.with(|socket| socket.pause());
        peer.finish();
    };
    is_about(silence(IdleDirection::Both, act), 5 * SECOND, "paused");
}

#[test]
fn no_call_that_moves_no_byte_restarts_a_silence() {
    type Call = (&'static str, fn(&mut Socket<'_>));
    let calls: [Call; 9] = [
        ("pause", |socket| socket.pause()),
        ("pause, resume", |socket| {
            socket.pause();
            socket.resume();
        }),
        ("set_nodelay", |socket| socket.set_nodelay(false)),
        ("set_keep_alive", |socket| socket.set_keep_alive(Some(KeepAlive::after(SECOND))).expect("open")),
        ("set_allow_half_open", |socket| socket.set_allow_half_open(false)),
        ("set_low_water_mark", |socket| socket.set_low_water_mark(10)),
        ("set_deadline", |socket| socket.set_deadline(seconds(100))),
        ("set_close_mode", |socket| socket.set_close_mode(CloseMode::HandOff)),
        ("write of nothing", |socket| drop(socket.write(b""))),
    ];
    for (name, call) in calls {
        is_about(silence(IdleDirection::Both, |scene, _| scene.with(call)), 5 * SECOND, name);
    }
}

#[test]
fn bytes_of_the_other_direction_restart_no_silence_whatever_state_comes_with_them() {
    let answered = silence(IdleDirection::Read, |scene, _| write(scene, 10));
    is_about(answered, 5 * SECOND, "the peer is silent, and we write");
    let ended = silence(IdleDirection::Read, |scene, _| {
        write(scene, 10);
        scene.with(|socket| socket.end());
    });
    is_about(ended, 5 * SECOND, "the peer is silent, and we write and end");
    let asked = silence(IdleDirection::Write, |_, peer| peer.send(b"question"));
    is_about(asked, 5 * SECOND, "we are silent, and the peer writes");
    let finished = silence(IdleDirection::Write, |_, peer| {
        peer.send(b"question");
        peer.finish();
    });
    is_about(finished, 5 * SECOND, "we are silent, and the peer writes and ends");
}

#[test]
fn bytes_restart_a_silence_whatever_state_comes_with_them() {
    let written = silence(IdleDirection::Both, |scene, _| {
        write(scene, 10);
        scene.with(|socket| socket.end());
    });
    is_about(written, 9 * SECOND, "we write and end");
    let read = silence(IdleDirection::Both, |_, peer| {
        peer.send(b"question");
        peer.finish();
    });
    is_about(read, 9 * SECOND, "the peer writes and ends");
}

// --- the limit of a state ---

#[test]
fn bytes_in_restart_the_half_closed_limit() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().half_closed_timeout(seconds(10)));
    scene.with(|socket| socket.end());
    let mut last = scene.network.elapsed();
    for _ in 0..3 {
        scene.run(8 * SECOND);
        peer.send(b"x");
        last = when(&mut scene, "data");
        scene.story.clear();
    }
    is_about(when(&mut scene, "error") - last, 10 * SECOND, "after the last byte");
    assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::HalfClosed));
}

#[test]
fn bytes_in_do_not_restart_the_limit_while_we_flush_or_linger() {
    for bytes in [100, 2 * HELD] {
        let (mut scene, peer) = narrow(ListenOptions::default().close_timeout(seconds(10)));
        write(&mut scene, bytes);
        scene.with(|socket| {
            socket.end();
            socket.discard();
        });
        let ended = scene.network.elapsed();
        for _ in 0..4 {
            scene.run(2 * SECOND);
            peer.send(b"x");
        }
        is_about(when(&mut scene, "error") - ended, 10 * SECOND, &format!("with {bytes} bytes to be taken"));
        assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::Close));
    }
}

#[test]
fn bytes_that_the_peer_takes_restart_every_clock() {
    let half_closed = ListenOptions::default().half_closed_timeout(seconds(10));
    let waiting = ListenOptions::default().write_timeout(seconds(10));
    let flushing = ListenOptions::default().close_timeout(seconds(10));
    let silent = ListenOptions::default().idle_timeout(seconds(10));
    for (name, options, word) in [
        ("half-closed", half_closed, "error"),
        ("write", waiting, "error"),
        ("flush", flushing, "error"),
        ("idle", silent, "timeout"),
    ] {
        let (mut scene, peer) = narrow(options);
        if name == "half-closed" {
            peer.finish();
            scene.run(SECOND);
            scene.story.clear();
        }
        write(&mut scene, 100 * HELD);
        if name == "flush" {
            scene.with(|socket| socket.end());
        }
        scene.run(8 * SECOND);
        assert!(!peer.read().is_empty());
        let taken = scene.network.elapsed();
        is_about(when(&mut scene, word) - taken, 10 * SECOND, name);
    }
}

#[test]
fn a_new_state_restarts_its_limit_and_no_silence() {
    let options = ListenOptions::default().half_closed_timeout(seconds(10)).idle_timeout(seconds(12));
    let (mut scene, peer) = Scene::served(options);
    peer.send(b"x");
    let last = when(&mut scene, "data");
    scene.run(4 * SECOND);
    scene.with(|socket| socket.end());
    is_about(when(&mut scene, "timeout") - last, 12 * SECOND, "the silence");
    is_about(when(&mut scene, "error") - last, 14 * SECOND, "the limit");
}

#[test]
fn each_new_state_has_its_whole_limit() {
    let (mut scene, peer) =
        narrow(ListenOptions::default().half_closed_timeout(seconds(10)).close_timeout(seconds(10)));
    peer.finish();
    when(&mut scene, "end");
    scene.run(8 * SECOND);
    write(&mut scene, 2 * HELD);
    scene.with(|socket| socket.end());
    let ended = scene.network.elapsed();
    is_about(when(&mut scene, "error") - ended, 10 * SECOND, "the flush");
    assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::Close));
}

#[test]
fn a_new_state_does_not_restart_the_write_timeout() {
    let (mut scene, peer) = narrow(ListenOptions::default().write_timeout(seconds(10)));
    write(&mut scene, 2 * HELD);
    let queued = scene.network.elapsed();
    scene.run(6 * SECOND);
    peer.finish();
    is_about(when(&mut scene, "error") - queued, 10 * SECOND, "after the peer's end");
    assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::Write));
}

#[test]
fn a_program_that_sets_its_idle_time_again_and_again_puts_off_no_limit() {
    let half_closed = ListenOptions::default().half_closed_timeout(seconds(10));
    let waiting = ListenOptions::default().write_timeout(seconds(10));
    for (options, bytes, timer) in [(half_closed, 0, TimeoutKind::HalfClosed), (waiting, 2 * HELD, TimeoutKind::Write)]
    {
        let (mut scene, peer) = narrow(options);
        write(&mut scene, bytes);
        peer.finish();
        let begun = scene.network.elapsed();
        for _ in 0..9 {
            scene.run(SECOND);
            scene.with(|socket| socket.set_idle_timeout(seconds(60)));
        }
        is_about(when(&mut scene, "error") - begun, 10 * SECOND, &format!("{timer:?}"));
        assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(timer));
    }
}

// --- the write timeout ---

#[test]
fn the_write_timeout_counts_from_the_first_byte_that_waits() {
    let (mut scene, _peer) = narrow(ListenOptions::default().write_timeout(seconds(5)));
    // The kernels of both sides are full, and our queue is empty.
    write(&mut scene, HELD / 2);
    scene.run(SECOND);
    write(&mut scene, HELD / 2);
    scene.run(60 * SECOND);
    scene.with(|socket| assert_eq!(socket.queued_bytes(), 0));
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    write(&mut scene, 10);
    let queued = scene.network.elapsed();
    is_about(when(&mut scene, "error") - queued, 5 * SECOND, "the first bytes that wait");
}

#[test]
fn bytes_that_are_queued_later_do_not_restart_the_write_timeout() {
    let (mut scene, _peer) = narrow(ListenOptions::default().write_timeout(seconds(5)));
    write(&mut scene, 2 * HELD);
    let queued = scene.network.elapsed();
    for _ in 0..4 {
        scene.run(SECOND);
        write(&mut scene, 10);
    }
    is_about(when(&mut scene, "error") - queued, 5 * SECOND, "the first bytes that wait");
}

#[test]
fn a_queue_that_was_empty_has_its_whole_write_timeout_again() {
    let (mut scene, peer) = narrow(ListenOptions::default().write_timeout(seconds(5)));
    write(&mut scene, HELD + 100);
    scene.run(4 * SECOND);
    assert_eq!(peer.read().len(), HELD / 2);
    scene.run(SECOND);
    scene.with(|socket| assert_eq!(socket.queued_bytes(), 0));
    scene.run(30 * SECOND);
    assert!(scene.story.is_empty(), "nothing waits: {:?}", scene.story);
    write(&mut scene, HELD);
    let queued = scene.network.elapsed();
    is_about(when(&mut scene, "error") - queued, 5 * SECOND, "the second queue");
}

/// Until the connection is established only the connect timeout applies.
#[test]
fn bytes_that_wait_for_a_connection_do_not_start_the_write_timeout() {
    let mut scene = Scene::new();
    let listener = scene.peer.listen((THERE, 80).into()).expect("a free port");
    scene.network.set_delay(THERE, 6 * SECOND);
    let id =
        scene.reactor.connect((THERE, 80), ConnectOptions::default().write_timeout(seconds(5))).expect("an address");
    scene.reactor.socket(id).expect("begun").write(b"hello").expect("it waits");
    scene.run(60 * SECOND);
    assert_eq!(scene.story, ["lookup 10.0.0.2", "connect", "ready"]);
    assert_eq!(listener.accept().expect("connected").read(), b"hello");
}

/// On the real network, to a peer that reads nothing: one message after the other, with more than
/// the limit between them, until the kernels of both sides take no more.
#[test]
fn a_real_message_that_waits_has_its_whole_write_timeout() {
    const LIMIT: Duration = ms(30);
    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default().send_buffer_size(4096).write_timeout(LIMIT));
    let _peer = dial_narrow(addr);
    let socket = story.connection();
    for sent in 0..200 {
        story.silence(LIMIT * 3 / 2);
        story.socket(socket).write(&[b'x'; 1000]).expect("open");
        let queued = Instant::now();
        let event = story.reactor.next_before(queued).expect("it continues").map(|(_, event)| format!("{event:?}"));
        assert_eq!(event, None, "message {sent} has waited for {:?}", queued.elapsed());
        if story.socket(socket).queued_bytes() > 0 {
            assert_eq!(story.error(socket).kind, ConnectionErrorKind::TimedOut(TimeoutKind::Write));
            let waited = queued.elapsed();
            assert!((LIMIT..PATIENCE).contains(&waited), "message {sent} has waited for {waited:?}");
            return;
        }
    }
    panic!("the kernels take more and more");
}

/// An idle time that only reading restarts is due at the same tick as the write timeout, which the
/// peer has postponed: it has taken bytes, and sent none.
#[test]
fn a_limit_that_the_peer_has_put_off_does_not_strike_with_another_that_is_due() {
    let mut scene = Scene::new();
    // The kernel does not report room for the bytes that the peer takes here.
    scene.network.set_buffers(50_000, 1000);
    let options =
        ListenOptions::default().idle_direction(IdleDirection::Read).idle_timeout(seconds(5)).write_timeout(seconds(5));
    let peer = scene.serve(options);
    peer.send(b"question");
    let until = scene.network.now() + Duration::from_secs(1);
    let (mut socket, event) = scene.reactor.next_before(until).expect("it continues").expect("a question");
    assert_eq!(event, Event::Data(b"question"));
    socket.write(&[b'x'; 100_000]).expect("below the limit");
    let written = scene.network.elapsed();
    scene.run(Duration::from_secs(2));
    assert!(!peer.read().is_empty());
    is_about(when(&mut scene, "timeout") - written, Duration::from_secs(5), "the idle time");
    is_about(when(&mut scene, "error") - written, Duration::from_secs(7), "the write timeout");
    assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::Write));
}

/// A flag reported that the peer had ended. The read that would have shown that this was wrong had
/// no memory at first.
#[test]
fn the_ending_timeout_of_an_end_that_was_none_does_not_strike() {
    for tries in [1, 10] {
        let (mut scene, _peer, faulty) = faulty_served(ListenOptions::default().ending_timeout(seconds(5)));
        for _ in 0..tries {
            faulty.once("recv", Errno::NOBUFS);
        }
        let slot = scene.socket.expect("accepted").index();
        scene.reactor.net().make_up(slot, Readiness { read_closed: true, ..Readiness::default() });
        scene.run(60 * Duration::from_secs(1));
        assert_eq!((faulty.failures("recv"), scene.story.len()), (tries, 0), "{:?}", scene.story);
    }
}

/// A program with a loop of its own calls the reactor now and then, and may never query when to
/// call it again.
#[test]
fn a_clock_starts_before_the_reactor_returns_to_a_loop_that_stays_away() {
    let mut scene = Scene::new();
    let _peer = scene.serve(ListenOptions::default());
    let id = scene.socket.expect("accepted");
    scene.reactor.socket(id).expect("it lives").set_deadline(seconds(1));
    let now = scene.network.now();
    assert!(scene.reactor.next_before(now).expect("it continues").is_none(), "one turn, for nothing");
    scene.network.advance(Duration::from_secs(10));
    let now = scene.network.now();
    let (_, event) = scene.reactor.next_before(now).expect("it continues").expect("it is long over");
    assert!(matches!(event, Event::Error(_)), "{event:?}");
}

/// Our FIN leaves without an event, in the last turn before that.
#[test]
fn the_limit_of_a_state_counts_from_the_last_turn_before_a_loop_stays_away() {
    let mut scene = Scene::new();
    let _peer = scene.serve(ListenOptions::default().half_closed_timeout(SECOND));
    let id = scene.socket.expect("accepted");
    scene.reactor.socket(id).expect("it lives").end();
    let now = scene.network.now();
    assert!(scene.reactor.next_before(now).expect("it continues").is_none(), "one turn");
    scene.network.advance(10 * SECOND);
    let now = scene.network.now();
    let (_, event) = scene.reactor.next_before(now).expect("it continues").expect("it is long over");
    assert!(matches!(event, Event::Error(_)), "{event:?}");
}

/// No byte has moved so far: neither end has said anything.
#[test]
fn the_silence_of_a_connection_that_we_have_opened_counts_from_its_beginning() {
    let mut scene = Scene::new();
    let at = SocketAddr::new(THERE, 80);
    let _listening = scene.peer.listen(at).expect("a free port");
    let options = ConnectOptions::default().idle_timeout(5 * SECOND);
    scene.reactor.connect(at, options).expect("an address");
    scene.run(SECOND);
    assert_eq!(scene.story.last().map(String::as_str), Some("ready"));
    scene.story.clear();
    scene.run(3 * SECOND);
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    scene.run(2 * SECOND);
    assert_eq!(scene.story, ["timeout"]);
}

/// Also that a peer has finished, which restarts the limit of a connection.
#[test]
fn nothing_that_is_reported_of_a_handshake_puts_off_the_connect_timeout() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    scene.network.set_reach(THERE, Reach::BlackHole);
    scene.reactor.connect((THERE, 80), ConnectOptions::default().connect_timeout(5 * SECOND)).expect("an address");
    let began = scene.network.elapsed();
    for words in ["rdhup", "in out rdhup", "hup", "in err"] {
        scene.run(SECOND);
        faulty.news(0, flags(words));
    }
    is_about(when(&mut scene, "error") - began, 5 * SECOND, "connect");
    scene.run(SECOND);
    assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::Connect));
}
