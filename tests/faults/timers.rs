//! Timers and clock: the rows TM01 and following of docs/faults.md.

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use finale::sim::{Faults, Host, Network, Rng};
use finale::{Event, ListenOptions, Reactor, SocketId};

use support::alone::alone;
use support::scene::{HERE, Scene};
use support::{Transcript, What, cpu_time, ms};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const NS: Duration = Duration::from_nanos(1);

/// The ticks of one turn of the timer wheel.
const ROTATION_MS: u64 = 16_384;

/// A reactor on a network where nothing else happens.
fn quiet() -> (Network, Reactor<Host>) {
    let network = Network::new(7);
    let reactor = Reactor::with_net(network.host(HERE));
    (network, reactor)
}

/// When the next event, which must be a timer, is delivered.
#[track_caller]
fn fires(network: &Network, reactor: &mut Reactor<Host>) -> Instant {
    let told = reactor.next().expect("a timer is running");
    assert!(matches!(told, Some((_, Event::Timer(_)))), "{told:?}");
    network.now()
}

/// TM01: ten thousand timers of 1 ms, set at random fractions of a millisecond: never early, and at
/// most a tick late.
#[test]
fn a_timer_set_at_any_fraction_of_a_tick_is_never_early_and_at_most_a_tick_late() {
    let (network, mut reactor) = quiet();
    let mut rng = Rng::new(7);
    for _ in 0..10_000 {
        network.advance(Duration::from_nanos(rng.below(1_000_000)));
        let length = if rng.chance(0.5) { MS } else { Duration::from_nanos(rng.below(5_000_000)) };
        let due = network.now() + length;
        reactor.set_timer(length);
        let fired = fires(&network, &mut reactor);
        assert!((due..due + MS).contains(&fired), "{length:?}, {:?} late", fired.saturating_duration_since(due));
    }
}

/// TM02: a handler that takes 50 ms sets a timer of 10 ms: it counts from the call, not from the
/// beginning of the turn.
#[test]
fn a_time_counts_from_its_arming_and_not_from_the_beginning_of_the_turn() {
    let (network, mut reactor) = quiet();
    reactor.set_timer(MS);
    fires(&network, &mut reactor);
    network.advance(50 * MS);
    let armed = network.now();
    reactor.set_timer(10 * MS);
    let fired = fires(&network, &mut reactor);
    assert!((armed + 10 * MS..armed + 11 * MS).contains(&fired));

    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.send(b"work");
    scene.expect(&["data work"]);
    scene.network.advance(50 * MS);
    scene.with(|socket| socket.set_idle_timeout(10 * MS));
    scene.run(10 * MS - NS);
    assert!(scene.story.is_empty());
    scene.run(MS + NS);
    assert_eq!(scene.story, ["timeout"]);
}

/// TM03: a wait of less than a millisecond, at every fraction: rounded up, and over in a turn or
/// two.
#[test]
fn a_wait_below_a_tick_takes_one_turn_or_two() {
    let (network, mut reactor) = quiet();
    for micros in 1..1000 {
        network.advance(Duration::from_micros(7)); // Drifts through all fractions.
        reactor.set_timer(Duration::from_micros(micros));
        let calls = network.calls();
        fires(&network, &mut reactor);
        assert!(network.calls() - calls <= 2, "{} calls for {micros} us", network.calls() - calls);
    }
}

/// TM03: the same on the real clock, asleep, 500 times.
#[test]
fn waits_below_a_tick_are_spent_asleep() {
    let mut story = Transcript::new();
    let (began, cpu) = (Instant::now(), cpu_time());
    for _ in 0..500 {
        story.reactor.set_timer(Duration::from_micros(400));
        story.next_of_none();
    }
    let (took, used) = (began.elapsed(), cpu_time() - cpu);
    assert!(took >= 500 * Duration::from_micros(400) && used < took / 2, "{used:?} of {took:?} at work");
    story.rest();
}

/// TM04: zero, a nanosecond, a tick, and a deadline that has passed: delivered by the next turns,
/// not by the call that sets it, and not after a rotation.
#[test]
fn the_shortest_times_fire_in_the_next_turn() {
    for length in [Duration::ZERO, NS, MS] {
        let (network, mut reactor) = quiet();
        for _ in 0..100 {
            network.advance(Duration::from_micros(77));
            let set = network.now();
            reactor.set_timer(length);
            let fired = fires(&network, &mut reactor);
            assert!((set + length..=set + length + MS).contains(&fired));
        }
        reactor.set_timer(length);
        network.advance(100 * MS); // It expired long before it is examined.
        let late = network.now();
        assert_eq!(fires(&network, &mut reactor), late);
    }
    for idle in [Duration::ZERO, NS, MS] {
        let (mut scene, _peer) = Scene::served(ListenOptions::default());
        scene.with(|socket| socket.set_idle_timeout(idle));
        scene.run(2 * MS);
        assert_eq!(scene.story, ["timeout"]);
    }
}

/// TM05: enormous times never fire and do not hide a near one; a time of 2^31 ms fires after 2^31
/// ms, and the same for 2^32.
#[test]
fn enormous_times_fire_in_their_time_or_never() {
    let (network, mut reactor) = quiet();
    let bits = [31, 32].map(|bits| Duration::from_millis(1 << bits));
    let never = [Duration::MAX, Duration::from_millis(u64::MAX), Duration::from_secs(u64::MAX)];
    for length in never.iter().chain(&bits) {
        reactor.set_timer(*length);
    }
    let began = network.now();
    reactor.set_timer(20 * MS);
    assert!(fires(&network, &mut reactor) <= began + 21 * MS);
    for length in bits {
        assert!(reactor.next_before(began + length - NS).expect("nothing fails").is_none(), "early");
        let fired = fires(&network, &mut reactor);
        assert!((began + length..=began + length + MS).contains(&fired));
    }
    assert!(reactor.next_before(began + Duration::from_millis(1 << 33)).expect("nothing fails").is_none());

    // For one that never comes the reactor does not wake.
    let (_, mut reactor) = quiet();
    let never = reactor.set_timer(Duration::MAX);
    assert_eq!(reactor.next_deadline(), None);
    assert!(reactor.cancel_timer(never));

    let forever = Some(Duration::MAX);
    let options = ListenOptions::default()
        .idle_timeout(forever)
        .half_closed_timeout(forever)
        .close_timeout(forever)
        .ending_timeout(forever);
    let (mut scene, peer) = Scene::served(options);
    scene.with(|socket| socket.end());
    scene.run(Duration::from_millis(1 << 33));
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    peer.finish();
    scene.expect(&["end", "close"]);
}

/// TM06: one rotation of the wheel, a tick more, ten rotations, each alone and all together:
/// delivered once, in the order of their deadlines, none a rotation early.
#[test]
fn deadlines_beyond_a_rotation_fire_once_in_their_time() {
    let lengths = [ROTATION_MS, ROTATION_MS + 1, 2 * ROTATION_MS, 10 * ROTATION_MS, 10 * ROTATION_MS + 1];
    let (network, mut reactor) = quiet();
    let began = network.now();
    for ms in lengths.iter().rev() {
        reactor.set_timer(Duration::from_millis(*ms));
    }
    for ms in lengths {
        assert_eq!(fires(&network, &mut reactor) - began, Duration::from_millis(ms));
    }
    assert!(reactor.next().expect("nothing fails").is_none());
}

/// TM06: the process is stopped for ten rotations: every timer that became due is delivered, once,
/// and no later one with it. (The order of timers of different rotations is not promised then, see
/// `src/wheel.rs`; within a rotation it is.)
#[test]
fn after_a_standstill_of_ten_rotations_none_is_overlooked_and_none_early() {
    let (network, mut reactor) = quiet();
    let mut due = HashMap::new();
    for step in 1..=120 {
        let length = Duration::from_millis(step * ROTATION_MS / 8);
        due.insert(reactor.set_timer(length), network.now() + length);
    }
    network.advance(Duration::from_millis(10 * ROTATION_MS + ROTATION_MS / 16));
    let woke = network.now();
    while let Some((_, Event::Timer(id))) = reactor.next_before(woke).expect("nothing fails") {
        assert!(due.remove(&id).expect("once") <= woke, "early");
    }
    assert_eq!(due.len(), 40);
    assert!(due.values().all(|due| *due > woke), "overlooked");
    let mut rest: Vec<Instant> = due.values().copied().collect();
    rest.sort();
    for due in rest {
        assert_eq!(fires(&network, &mut reactor), due);
    }
}

/// What a handler of `timeout` does to a socket.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Nothing,
    Again,
    Earlier,
    Later,
    Off,
    Destroy,
}

const ACTS: [Act; 6] = [Act::Nothing, Act::Again, Act::Earlier, Act::Later, Act::Off, Act::Destroy];

impl Act {
    fn on(self, socket: &mut finale::Socket<'_>) {
        match self {
            Act::Nothing => {}
            Act::Again => socket.set_idle_timeout(100 * MS),
            Act::Earlier => socket.set_idle_timeout(30 * MS),
            Act::Later => socket.set_idle_timeout(Duration::from_millis(ROTATION_MS + 100)),
            Act::Off => socket.set_idle_timeout(None),
            Act::Destroy => socket.destroy(),
        }
    }

    /// What is delivered after it, and how long after: the neighbour's own timeout is due in the
    /// same tick.
    fn leads_to(self, is_neighbour: bool) -> Option<(&'static str, Duration)> {
        match self {
            Act::Nothing => is_neighbour.then_some(("timeout", Duration::ZERO)),
            Act::Again => Some(("timeout", 100 * MS)),
            Act::Earlier => Some(("timeout", 30 * MS)),
            Act::Later => Some(("timeout", Duration::from_millis(ROTATION_MS + 100))),
            Act::Off => None,
            Act::Destroy => Some(("close", Duration::ZERO)),
        }
    }
}

/// TM07: in `timeout` the timers of the socket and of its neighbour in the same slot are set again,
/// earlier, later, off, or the sockets destroyed; all pairs: nothing is lost or delivered twice.
#[test]
fn timers_may_be_changed_in_the_timeout_of_a_neighbour() {
    for own in ACTS {
        for others in ACTS {
            let mut scene = Scene::new();
            let listen = ListenOptions::default().idle_timeout(100 * MS);
            let listener = scene.reactor.listen((HERE, 80), listen).expect("a free port");
            let peers = [(); 2].map(|()| scene.peer.connect(listener.addr).expect("begun"));
            let mut told: Vec<(SocketId, &str, Instant)> = Vec::new();
            let until = scene.network.now() + 60 * SECOND;
            let mut sockets = Vec::new();
            while let Some((mut socket, event)) = scene.reactor.next_before(until).expect("it continues") {
                let (id, now) = (socket.id(), scene.network.now());
                match event {
                    Event::Connection => sockets.push(id),
                    Event::Timeout => {
                        if told.is_empty() {
                            let neighbour = if id == sockets[0] { sockets[1] } else { sockets[0] };
                            own.on(&mut socket);
                            others.on(&mut socket.get(neighbour).expect("it lives"));
                        }
                        told.push((id, "timeout", now));
                    }
                    Event::Close(_) => told.push((id, "close", now)),
                    other => panic!("{other:?}"),
                }
            }
            check_pair((own, others), &told);
            drop(peers);
        }
    }
}

fn check_pair(acts: (Act, Act), told: &[(SocketId, &str, Instant)]) {
    let (first, _, began) = told[0];
    for (act, is_neighbour) in [(acts.0, false), (acts.1, true)] {
        let of_it: Vec<_> = told[1..].iter().filter(|(id, ..)| (*id != first) == is_neighbour).collect();
        let got = of_it.first().map(|(_, what, at)| (*what, *at - began));
        let expected = act.leads_to(is_neighbour);
        assert_eq!(got.map(|(what, _)| what), expected.map(|(what, _)| what), "{acts:?}: {told:?}");
        if let (Some((_, at)), Some((_, after))) = (got, expected) {
            assert!((after..=after + MS).contains(&at), "{acts:?}: after {at:?}, not {after:?}");
        }
        assert!(of_it.len() <= 1, "{acts:?}: delivered twice: {told:?}");
    }
}

/// TM08: bytes that arrive in the very millisecond of the idle deadline are read first: `data`, and
/// no `timeout`.
#[test]
fn bytes_in_the_millisecond_of_the_deadline_come_before_it() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.with(|socket| socket.set_idle_timeout(100 * MS));
    scene.run(98 * MS);
    peer.send(b"just in time");
    scene.network.advance(50 * MS); // Both are due when we look.
    scene.run(50 * MS);
    assert_eq!(scene.story, ["data just in time"]);
    scene.run(60 * MS);
    assert_eq!(scene.story, ["data just in time", "timeout"]);
}

/// TM09: 10 KiB per second of a download are activity, although no byte arrives; when the peer
/// stops reading, one `timeout` is delivered, once, and not before a period after the last byte was
/// sent.
#[test]
fn a_slow_download_is_no_silence_until_it_stands() {
    let options = ListenOptions::default().send_buffer_size(8 * 1024).idle_timeout(SECOND);
    let mut scene = Scene::new();
    scene.network.set_buffers(8 * 1024, 8 * 1024);
    let listener = scene.reactor.listen((HERE, 80), options).expect("a free port");
    let peer = scene.peer.connect(listener.addr).expect("begun");
    scene.run(10 * MS);
    scene.with(|socket| drop(socket.write(&vec![1; 1 << 20])));
    scene.story.clear();
    for _ in 0..40 {
        scene.run(800 * MS);
        assert!(!peer.read().is_empty());
    }
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    // It reads nothing from here on.
    let (mut queued_bytes, mut moved) = (0, scene.network.now());
    while scene.story.is_empty() {
        scene.run(MS);
        let now = scene.network.now();
        scene.with(|socket| {
            if std::mem::replace(&mut queued_bytes, socket.queued_bytes()) != socket.queued_bytes() {
                moved = now;
            }
        });
    }
    let silent = scene.network.now() - moved;
    assert!((SECOND - MS..=SECOND + 2 * MS).contains(&silent), "delivered after {silent:?}");
    scene.run(60 * SECOND);
    assert_eq!(scene.story, ["timeout"]);
}

/// TM10: waits that are interrupted are no error, and the rest of the wait is computed again: the
/// timer is on time, and after a bounded number of calls.
#[test]
fn an_interrupted_wait_goes_on_to_its_end() {
    let (network, mut reactor) = quiet();
    network.set_faults(Faults { interrupted: 0.9, ..Faults::none() });
    for _ in 0..100 {
        let due = network.now() + SECOND;
        reactor.set_timer(SECOND);
        let fired = fires(&network, &mut reactor);
        assert!((due..due + MS).contains(&fired));
    }
    assert!(network.calls() < 100 * 200, "{} calls", network.calls());
}

/// TM10: the process is stopped for ten seconds while peers write: a socket with input gets no
/// `timeout`, one without does; and a turn delivers a bounded number of timers.
#[test]
fn after_a_standstill_input_comes_before_silences() {
    const SOCKETS: usize = 3000;
    let mut scene = Scene::new();
    let options = ListenOptions::default().idle_timeout(5 * SECOND);
    let listener = scene.reactor.listen((HERE, 80), options).expect("a free port");
    let peers: Vec<_> = (0..SOCKETS).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    scene.run(SECOND);
    assert_eq!(std::mem::take(&mut scene.story).len(), SOCKETS);
    peers.iter().step_by(2).for_each(|peer| peer.send(b"x"));
    scene.network.advance(10 * SECOND);
    scene.run(10 * MS);
    let count = |line: &str| scene.story.iter().filter(|other| *other == line).count();
    assert_eq!((count("data x"), count("timeout")), (SOCKETS / 2, SOCKETS / 2), "each delivers one or the other");
    assert_eq!(scene.story.len(), SOCKETS);
    // The process is stopped again, with all peers silent: a peer may write before the next turn,
    // and is read in between.
    scene.story.clear();
    peers.iter().for_each(|peer| peer.send(b"y"));
    scene.run(SECOND);
    scene.story.clear();
    scene.network.advance(10 * SECOND);
    scene.network.set_latency(Duration::ZERO);
    let now = scene.network.now();
    let mut before = 0;
    while let Some((_, event)) = scene.reactor.next_before(now).expect("nothing fails") {
        match event {
            Event::Timeout if before == 0 => peers[SOCKETS - 1].send(b"z"),
            Event::Data(_) => break,
            _ => {}
        }
        before += 1;
    }
    assert!(before <= 1024 + 1, "{before} timers before the input of the next turn");
}

/// TM10: our own process is stopped for longer than the idle time while its peer writes, and then
/// continues: no error, and `data` instead of `timeout`.
#[test]
fn a_stopped_process_goes_on_with_its_input() {
    alone("timers::a_stopped_process_goes_on_with_its_input", || {
        let (mut story, socket, peer) = Transcript::pair(ListenOptions::default().idle_timeout(ms(800)));
        story.turn();
        let stop = format!(
            "sleep 0.1; kill -STOP {0}; sleep 0.3; echo written; sleep 1.2; kill -CONT {0}",
            std::process::id()
        );
        let began = Instant::now();
        let output = Stdio::from(std::os::fd::OwnedFd::from(peer));
        let mut child = Command::new("sh").args(["-c", &stop]).stdout(output).spawn().expect("a shell");
        assert_eq!(story.data(socket, 8), b"written\n");
        assert!(began.elapsed() >= ms(1200), "we stood still");
        story.expect(socket, What::End);
        child.wait().expect("ours");
        story.socket(socket).end();
        assert!(story.close(socket).is_acknowledged());
        story.rest();
    });
}
