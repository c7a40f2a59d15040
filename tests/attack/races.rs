//! A race of addresses without a free descriptor: an attempt that could not begin leaves its
//! address untried.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use finale::net::Readiness;
use finale::sim::{Faults, Network, PeerListener, Reach, Script};
use finale::{ConnectOptions, ConnectionErrorKind, EndingKind, Event, TimeoutKind};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use support::alone::alone;
use support::faulty::{Faulty, FaultyNet, faulty_on};
use support::scene::{Scene, THERE};
use support::{Transcript, What, dial, ms};

const SECOND: Duration = Duration::from_secs(1);
const SHORTAGES: [Errno; 3] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS];

/// Some addresses that do not respond, and the good one last.
fn addrs(network: &Network, silent: u8) -> Vec<SocketAddr> {
    let silent = (0..silent).map(|host| IpAddr::V4(Ipv4Addr::new(10, 9, 0, host)));
    let silent: Vec<_> = silent.inspect(|ip| network.set_reach(*ip, Reach::BlackHole)).collect();
    silent.into_iter().chain([THERE]).map(|ip| SocketAddr::new(ip, 80)).collect()
}

fn race(silent: u8, options: ConnectOptions) -> (Scene<FaultyNet>, Faulty, PeerListener) {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    let listener = scene.peer.listen((THERE, 80).into()).expect("a free port");
    let addrs = addrs(&scene.network, silent);
    scene.reactor.connect(addrs, options).expect("a list of addresses");
    (scene, faulty, listener)
}

/// It is connected to the good address within three seconds from now.
#[track_caller]
fn reaches_the_good_one(scene: &mut Scene<FaultyNet>, silent: u8, what: &str) {
    scene.run(3 * SECOND + ms(20) * u32::from(silent));
    let story: Vec<_> = scene.story.iter().filter(|line| !line.starts_with("lookup")).collect();
    assert_eq!(story, ["connect", "ready"], "{what}");
    let peer = scene.socket.and_then(|id| scene.reactor.socket(id)?.peer_addr());
    assert_eq!(peer, Some(SocketAddr::new(THERE, 80)), "{what}");
    assert_eq!(scene.network.descriptors(), 1, "{what}");
}

fn fast() -> ConnectOptions {
    ConnectOptions::default().attempt_delay(ms(20))
}

#[test]
fn a_shortage_of_descriptors_after_the_first_attempt_uses_up_no_address() {
    for errno in SHORTAGES {
        for silent in [1, 2, 20] {
            let (mut scene, faulty, _listener) = race(silent, fast());
            scene.run(ms(5));
            faulty.always("connect", errno);
            scene.run(SECOND);
            assert!(faulty.failures("connect") > 0, "an attempt was made");
            assert!(scene.story.iter().all(|line| line.starts_with("lookup")), "{:?}", scene.story);
            faulty.heal();
            reaches_the_good_one(&mut scene, silent, &format!("{errno:?}, {silent} that do not respond"));
        }
    }
}

#[test]
fn a_shortage_of_descriptors_from_the_beginning_uses_up_no_address() {
    for errno in SHORTAGES {
        for silent in [1, 2, 20] {
            let (mut scene, faulty, _listener) = race(silent, fast());
            faulty.always("connect", errno);
            scene.run(SECOND);
            let lookups = scene.story.iter().all(|line| line.starts_with("lookup"));
            assert!(lookups, "{errno:?}, {silent} that do not respond: {:?}", scene.story);
            faulty.heal();
            reaches_the_good_one(&mut scene, silent, &format!("{errno:?}, {silent} that do not respond"));
        }
    }
}

#[test]
fn an_attempt_that_fails_once_for_lack_of_a_descriptor_is_made_again() {
    for errno in SHORTAGES {
        for good in 0..3 {
            let (mut scene, faulty) = faulty_on(Network::new(7));
            let listener = scene.peer.listen((THERE, 80).into()).expect("a free port");
            let mut addrs = addrs(&scene.network, 2);
            addrs.swap(good, 2);
            scene.reactor.connect(addrs, fast()).expect("a list of addresses");
            if good > 0 {
                // The attempts before it have begun.
                scene.run(ms(20) * good as u32 - ms(5));
            }
            faulty.once("connect", errno);
            reaches_the_good_one(&mut scene, 2, &format!("{errno:?}, the good one at {good}"));
            assert!(listener.accept().is_some());
        }
    }
}

/// The connect timeout applies, and the reactor does not spin meanwhile.
#[test]
fn a_shortage_that_lasts_ends_at_the_connect_timeout() {
    let (mut scene, faulty, _listener) = race(2, fast().connect_timeout(5 * SECOND));
    scene.run(ms(5));
    faulty.always("connect", Errno::MFILE);
    scene.run(5 * SECOND - ms(10));
    assert!(scene.ending.is_none(), "{:?}", scene.story);
    scene.run(ms(20));
    assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::Connect));
    assert!(faulty.failures("connect") <= 5000, "{} attempts in five seconds", faulty.failures("connect"));
    scene.story.clear();
    scene.rest();
}

/// With a delay of zero the next attempt is always due. The lack of a descriptor still leads to a
/// pause.
#[test]
fn a_shortage_of_descriptors_does_not_spin_without_a_delay_between_attempts() {
    for first in [true, false] {
        let (mut scene, faulty, _listener) = race(1, ConnectOptions::default().attempt_delay(Duration::ZERO));
        if first {
            faulty.always("connect", Errno::MFILE);
        } else {
            // The first attempt begins when both addresses were delivered.
            let until = scene.network.now() + SECOND;
            for _ in 0..2 {
                let lookup = scene.reactor.next_before(until).expect("it continues").map(|(_, event)| event);
                assert!(matches!(lookup, Some(Event::Lookup(_))), "{lookup:?}");
            }
            faulty.always_after_one("connect", Errno::MFILE);
        }
        let calls = scene.network.calls();
        scene.run(SECOND);
        let (tries, calls) = (faulty.failures("connect"), scene.network.calls() - calls);
        assert!((2..=60).contains(&tries) && calls <= 500, "{tries} attempts in a second, with {calls} calls");
        faulty.heal();
        reaches_the_good_one(&mut scene, 1, "no delay");
    }
}

// --- the failure of a race ---

/// The connect timeout expires, and each address has its own reason.
#[test]
fn the_failure_of_a_race_names_the_address_that_could_not_be_tried_and_why() {
    let good = SocketAddr::new(THERE, 80);
    let refusing = SocketAddr::new(THERE, 81);
    for (addrs, errno) in [(vec![refusing, good], Errno::MFILE), (vec![good, refusing], Errno::NFILE)] {
        let (mut scene, faulty) = faulty_on(Network::new(7));
        let _listener = scene.peer.listen(good).expect("a free port");
        let is_first = addrs[0] == good;
        scene.reactor.connect(addrs, fast().connect_timeout(5 * SECOND)).expect("addresses");
        if is_first {
            faulty.always("connect", errno);
        } else {
            faulty.always_after_one("connect", errno);
        }
        scene.run(6 * SECOND);
        let EndingKind::Failed(failure) = scene.how() else { panic!("{:?}", scene.story) };
        assert_eq!(failure.kind, ConnectionErrorKind::TimedOut(TimeoutKind::Connect));
        let refused = (refusing, ConnectionErrorKind::Refused);
        let held_up = (good, ConnectionErrorKind::OutOfResources);
        let attempts: Vec<_> = failure.attempts.iter().map(|attempt| (attempt.addr, attempt.kind)).collect();
        assert_eq!(attempts, if is_first { vec![held_up] } else { vec![refused, held_up] });
        assert!(failure.to_string().ends_with("10.0.0.2:80: out of descriptors or memory]"), "{failure}");
    }
}

/// An address that was tried later has only the reason of its failure.
#[test]
fn a_shortage_that_has_passed_is_no_reason_of_a_failure() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    let mut addrs = addrs(&scene.network, 1);
    addrs.insert(0, SocketAddr::new(THERE, 81));
    let options = ConnectOptions::default().attempt_delay(None).connect_timeout(5 * SECOND);
    scene.reactor.connect(addrs, options).expect("addresses");
    faulty.once("connect", Errno::MFILE);
    scene.run(6 * SECOND);
    let EndingKind::Failed(failure) = scene.how() else { panic!("{:?}", scene.story) };
    let causes: Vec<_> = failure.attempts.iter().map(|attempt| attempt.kind).collect();
    assert_eq!(
        causes,
        [ConnectionErrorKind::Refused, ConnectionErrorKind::TimedOut(TimeoutKind::Connect)],
        "the third was not tried"
    );
}

// --- the winner of a race ---

/// It is not registered at that moment: what has arrived meanwhile is found, and what arrives later
/// is reported.
#[test]
fn a_winner_that_finds_no_memory_for_its_place_loses_nothing() {
    for errno in [Errno::NOBUFS, Errno::NOMEM, Errno::INTR, Errno::AGAIN] {
        for pauses in [false, true] {
            let (mut scene, faulty, listener) = race(1, fast());
            let _play = listener.play(Script::new().send(b"greeting").finish());
            faulty.once("promote", errno);
            scene.run(ms(21));
            if pauses {
                scene.with(|socket| socket.pause());
            }
            // Established, with all that the peer has sent, before the reactor looks again.
            scene.network.advance(SECOND);
            scene.run(SECOND);
            assert_eq!(faulty.failures("promote"), 1, "{errno:?}: {:?}", scene.story);
            if pauses {
                assert_eq!(scene.story.last().map(String::as_str), Some("ready"), "{errno:?}");
                scene.with(|socket| socket.resume());
                scene.run(SECOND);
            }
            assert_eq!(scene.story[2..], ["connect", "ready", "data greeting", "end"], "{errno:?}");
            scene.with(|socket| socket.end());
            scene.story.clear();
            scene.expect(&["close"]);
            assert_eq!(scene.how(), &EndingKind::Confirmed);
        }
    }
}

/// The system refuses to watch it, for good: it was connected, and what has arrived is delivered.
#[test]
fn a_winner_that_the_system_refuses_to_watch_is_connected_and_fails() {
    for (greets, pauses) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut scene, faulty, listener) = race(1, fast().start_paused(pauses));
        let script = if greets { Script::new().send(b"greeting") } else { Script::new() };
        let _play = listener.play(script.receive_end());
        faulty.once("promote", Errno::PERM);
        faulty.always("register", Errno::PERM);
        scene.run(ms(21));
        // Established, with all that the peer has sent, before the reactor looks again.
        scene.network.advance(SECOND);
        scene.run(SECOND);
        assert_eq!((faulty.failures("promote"), faulty.failures("register")), (1, 1));
        let mut story = scene.story.split_off(2);
        if greets && pauses {
            assert_eq!(story.pop().as_deref(), Some("peerended(reset)"), "its bytes are unread");
            scene.with(|socket| socket.resume());
            scene.run(SECOND);
            story.append(&mut scene.story.split_off(2));
        }
        let error = story.iter().position(|line| line.starts_with("error")).expect("it has failed");
        let before: &[&str] = if greets { &["connect", "ready", "data greeting"] } else { &["connect", "ready"] };
        assert_eq!(&story[..error], before);
        assert_eq!(&story[error + 1..], ["close"]);
        scene.story.clear();
        scene.rest();
    }
}

/// Its peer has accepted the attempt, which has a slot of its own, and the reactor has not looked
/// again.
#[test]
fn an_attempt_of_a_race_ends_with_its_reactor_as_every_connection_does() {
    for is_abandoned in [false, true] {
        let (mut scene, _, listener) = race(1, fast());
        scene.run(ms(21));
        scene.network.advance(SECOND);
        let peer = listener.accept().expect("the second attempt was established");
        let Scene { reactor, network, .. } = scene;
        assert_eq!((reactor.len(), network.descriptors()), (1, 2), "both attempts are in flight");
        match is_abandoned {
            true => reactor.abandon(),
            false => drop(reactor),
        }
        network.advance(SECOND);
        assert_eq!((peer.has_fin(), peer.is_reset()), (is_abandoned, !is_abandoned));
        assert_eq!(network.descriptors(), 0);
    }
}

/// The same through the network's own faults.
#[test]
fn connects_that_find_no_descriptor_for_a_second_use_up_no_address() {
    let mut scene = Scene::new();
    let _listener = scene.peer.listen((THERE, 80).into()).expect("a free port");
    let addrs = addrs(&scene.network, 5);
    scene.reactor.connect(addrs, fast()).expect("a list of addresses");
    scene.run(ms(5));
    scene.network.set_faults(Faults { connect_exhausted: 1.0, ..Faults::none() });
    scene.run(SECOND);
    scene.network.set_faults(Faults::none());
    scene.run(3 * SECOND);
    assert_eq!(scene.story.last().map(String::as_str), Some("ready"), "{:?}", scene.story);
}

/// A listener with a full backlog: handshakes with it are not answered.
fn silent() -> (TcpListener, TcpStream) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a descriptor");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    socket.listen(0).expect("bound");
    let listener = TcpListener::from(socket);
    let first = dial(listener.local_addr().expect("bound"));
    (listener, first)
}

/// Uses all descriptors of this process but this many, until the files are dropped.
fn leave_descriptors(count: usize) -> Vec<File> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum }).expect("lower");
    let mut hogs = Vec::new();
    while let Ok(hog) = File::open("/dev/null") {
        hogs.push(hog);
    }
    hogs.truncate(hogs.len() - count);
    hogs
}

/// On the real network, with a limit on descriptors: eight addresses do not respond, and there is
/// room for three attempts.
#[test]
fn a_real_shortage_of_descriptors_uses_up_no_address() {
    alone("races::a_real_shortage_of_descriptors_uses_up_no_address", || {
        let silent: Vec<_> = (0..8).map(|_| silent()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let good = listener.local_addr().expect("bound");
        let addrs = silent.iter().map(|(listener, _)| listener.local_addr().expect("bound"));
        let addrs: Vec<_> = addrs.chain([good]).collect();
        let mut story = Transcript::new();
        let hogs = leave_descriptors(3);
        let client = story.reactor.connect(addrs, fast().connect_timeout(3 * SECOND)).expect("addresses");
        story.run_for(ms(400), |_, event| assert!(matches!(event, Event::Lookup(_)), "{event:?}"));
        drop(hogs);
        let next = story.next(client);
        assert_eq!(next, What::Connect, "its descriptors are free again");
        story.expect(client, What::Ready);
        assert_eq!(story.socket(client).peer_addr(), Some(good));
    });
}

/// On the real network, with one descriptor left.
#[test]
fn the_choice_of_a_local_port_needs_no_descriptor_that_the_connection_needs() {
    alone("races::the_choice_of_a_local_port_needs_no_descriptor_that_the_connection_needs", || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let mut story = Transcript::new();
        let _hogs = leave_descriptors(1);
        let options = ConnectOptions::default().local_addr(SocketAddr::from(([127, 0, 0, 1], 0)));
        let client = story.reactor.connect(addr, options).expect("an address");
        story.connected(client);
    });
}

/// It comes while the next has not begun, and while it is in flight.
#[test]
fn late_news_of_an_attempt_that_has_failed_says_nothing_of_the_next() {
    for is_late in [false, true] {
        let (mut scene, faulty) = faulty_on(Network::new(7));
        let _listener = scene.peer.listen((THERE, 80).into()).expect("a free port");
        let addrs = [SocketAddr::new(THERE, 81), SocketAddr::new(THERE, 80)];
        scene.reactor.connect(&addrs[..], fast().notify_peer_ended(true)).expect("a list of addresses");
        faulty.always_after_one("connect", Errno::MFILE);
        scene.run(ms(5));
        assert_eq!(faulty.failures("connect"), 1, "the first was refused");
        faulty.heal();
        scene.network.set_latency(ms(10));
        if is_late {
            scene.run(ms(20));
            assert_eq!(faulty.orders().tokens.len(), 2, "the second is in flight");
            scene.network.advance(ms(20));
        }
        let gone = Readiness { read_closed: true, write_closed: true, error: true, ..Default::default() };
        faulty.news(0, gone);
        reaches_the_good_one(&mut scene, 0, "late news");
    }
}
