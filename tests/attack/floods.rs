//! Peers that send without a pause, on the simulated network: one, six, and a thousand. A limit
//! that their bytes do not restart ends the connection on time.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use finale::sim::{Network, PeerSocket, Script};
use finale::{
    ConnectOptions, ConnectionErrorKind, EndingKind, Event, IdleDirection, ListenOptions, Socket, SocketId, TimeoutKind,
};

use support::faulty::{Faulty, FaultyNet, faulty_on};
use support::ms;
use support::scene::{HERE, Scene, THERE};

pub(crate) const LIMIT: Duration = Duration::from_secs(2);

/// How long a read takes: a turn with a thousand connections takes a fifth of a second.
const fn read_cost(peers: usize) -> Duration {
    Duration::from_micros(if peers > 10 { 200 } else { 1000 })
}

/// More than what the kernels of both sides hold.
const MUCH: usize = 10_000;

/// What a limit has done to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strike {
    Timeout,
    Failed(TimeoutKind),
    Destroyed,
}

/// What happened to the connections of a flood.
#[derive(Default)]
struct Record {
    begun: HashMap<SocketId, Instant>,
    strikes: Vec<(Duration, Strike)>,
    struck: HashSet<SocketId>,
}

impl Record {
    fn strike(&mut self, id: SocketId, now: Instant, strike: Strike) {
        if self.struck.insert(id) {
            self.strikes.push((now - self.begun[&id], strike));
        }
    }

    fn note(&mut self, socket: &mut Socket<'_>, event: &Event<'_>, now: Instant) {
        match event {
            Event::Timeout => {
                self.strike(socket.id(), now, Strike::Timeout);
                socket.destroy();
            }
            Event::Error(failure) => {
                let ConnectionErrorKind::TimedOut(timer) = failure.kind else { panic!("{failure}") };
                self.strike(socket.id(), now, Strike::Failed(timer));
            }
            Event::Close(ending) if ending.kind == EndingKind::Destroyed => {
                self.strike(socket.id(), now, Strike::Destroyed);
            }
            _ => {}
        }
    }
}

/// A network whose kernels hold little.
fn narrow() -> (Scene<FaultyNet>, Faulty) {
    let network = Network::new(7);
    network.set_buffers(1000, 1000);
    faulty_on(network)
}

/// From now on these peers send without a pause.
pub(crate) fn send_without_pause(faulty: &Faulty, peers: &[PeerSocket]) {
    faulty.flood(read_cost(peers.len()));
    // A first byte, which brings the edge.
    peers.iter().for_each(|peer| peer.send(b"x"));
}

/// Connections to a listener. The peers of the first few of them are quiet, all others send without
/// a pause as soon as the last is accepted. `begin` runs for each quiet connection, or for every
/// connection if none is quiet. Runs until the limits of all of these have expired.
fn flood(
    peers: usize,
    quiet: usize,
    options: ListenOptions,
    begin: impl Fn(&mut Socket<'_>),
) -> Vec<(Duration, Strike)> {
    let (mut scene, faulty) = narrow();
    let listener = scene.reactor.listen((HERE, 80), options).expect("a free port");
    let clients: Vec<PeerSocket> = (0..peers).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    let expected = if quiet > 0 { quiet } else { peers };
    let (mut record, mut accepted) = (Record::default(), 0);
    let until = scene.network.now() + 4 * LIMIT;
    while record.strikes.len() < expected && scene.network.now() < until {
        let Some((mut socket, event)) = scene.reactor.next_before(until).expect("it continues") else { break };
        let now = scene.network.now();
        if event == Event::Connection {
            if accepted < expected {
                begin(&mut socket);
                record.begun.insert(socket.id(), now);
            }
            if accepted < quiet {
                faulty.keep_quiet(socket.id().index());
            }
            accepted += 1;
            if accepted == peers {
                send_without_pause(&faulty, &clients[quiet..]);
            }
        }
        record.note(&mut socket, &event, now);
    }
    record.strikes
}

#[track_caller]
fn check(peers: usize, expected: usize, strikes: &[(Duration, Strike)], strike: Strike) {
    assert_eq!(strikes.len(), expected, "with {peers} peers, not every connection was struck");
    for (after, by) in strikes {
        assert_eq!(*by, strike, "with {peers} peers");
        assert!((LIMIT..LIMIT * 3 / 2).contains(after), "with {peers} peers, {strike:?} after {after:?}");
    }
}

/// The limit of every connection of a flood expires on time.
#[track_caller]
pub(crate) fn strikes_in_time(options: &ListenOptions, begin: impl Fn(&mut Socket<'_>), strike: Strike) {
    for peers in [1, 6, 1000] {
        let strikes = flood(peers, 0, options.clone(), &begin);
        check(peers, peers, &strikes, strike);
    }
}

/// The limit of a quiet connection expires on time, whatever the others of the flood do.
#[track_caller]
fn strikes_a_quiet_one_in_time(options: &ListenOptions, begin: impl Fn(&mut Socket<'_>), strike: Strike) {
    for peers in [2, 7, 1001] {
        let strikes = flood(peers, 1, options.clone(), &begin);
        check(peers, 1, &strikes, strike);
    }
}

fn write(socket: &mut Socket<'_>, bytes: usize) {
    socket.write(&vec![b'x'; bytes]).expect("open");
}

#[test]
fn a_flood_does_not_put_off_the_end_of_a_lingering_close() {
    let begin = |socket: &mut Socket<'_>| {
        write(socket, 100);
        socket.end();
        socket.discard();
    };
    strikes_in_time(&ListenOptions::default().close_timeout(LIMIT), begin, Strike::Failed(TimeoutKind::Close));
}

#[test]
fn a_flood_does_not_put_off_the_end_of_a_flush() {
    let begin = |socket: &mut Socket<'_>| {
        write(socket, MUCH);
        socket.end();
    };
    strikes_in_time(&ListenOptions::default().close_timeout(LIMIT), begin, Strike::Failed(TimeoutKind::Close));
}

#[test]
fn a_flood_that_is_discarded_does_not_put_off_the_end_of_a_flush() {
    let begin = |socket: &mut Socket<'_>| {
        write(socket, MUCH);
        socket.end();
        socket.discard();
    };
    strikes_in_time(&ListenOptions::default().close_timeout(LIMIT), begin, Strike::Failed(TimeoutKind::Close));
}

#[test]
fn a_flood_does_not_put_off_the_write_timeout() {
    let options = ListenOptions::default().write_timeout(LIMIT);
    strikes_in_time(&options, |socket| write(socket, MUCH), Strike::Failed(TimeoutKind::Write));
}

#[test]
fn a_flood_that_is_discarded_does_not_put_off_the_write_timeout() {
    let begin = |socket: &mut Socket<'_>| {
        socket.discard();
        write(socket, MUCH);
    };
    strikes_in_time(&ListenOptions::default().write_timeout(LIMIT), begin, Strike::Failed(TimeoutKind::Write));
}

#[test]
fn a_flood_does_not_put_off_the_idle_time_of_our_own_bytes() {
    let options = ListenOptions::default().idle_direction(IdleDirection::Write).idle_timeout(LIMIT);
    strikes_in_time(&options, |_| (), Strike::Timeout);
    strikes_in_time(&options, |socket| write(socket, MUCH), Strike::Timeout);
}

#[test]
fn a_flood_does_not_put_off_a_deadline() {
    let options = ListenOptions::default().deadline(LIMIT);
    strikes_in_time(&options, |_| (), Strike::Failed(TimeoutKind::Deadline));
    strikes_in_time(&options, |socket| socket.discard(), Strike::Failed(TimeoutKind::Deadline));
    let set = |socket: &mut Socket<'_>| socket.set_deadline(LIMIT);
    strikes_in_time(&ListenOptions::default(), set, Strike::Failed(TimeoutKind::Deadline));
}

#[test]
fn a_flood_does_not_put_off_the_idle_time_of_a_quiet_neighbour() {
    strikes_a_quiet_one_in_time(&ListenOptions::default().idle_timeout(LIMIT), |_| (), Strike::Timeout);
}

#[test]
fn a_flood_does_not_put_off_the_half_closed_limit_of_a_quiet_neighbour() {
    let options = ListenOptions::default().half_closed_timeout(LIMIT);
    strikes_a_quiet_one_in_time(&options, |socket| socket.end(), Strike::Failed(TimeoutKind::HalfClosed));
}

/// The same for an outgoing connection.
#[test]
fn a_flood_of_a_server_does_not_put_off_the_end_of_its_clients() {
    for clients in [1, 6, 1000] {
        let (mut scene, faulty) = narrow();
        faulty.flood(read_cost(clients));
        let listener = scene.peer.listen((THERE, 80).into()).expect("a free port");
        for _ in 0..clients {
            scene.reactor.connect((THERE, 80), ConnectOptions::default().close_timeout(LIMIT)).expect("an address");
            let _play = listener.play(Script::new().stop_reading().send(b"a first byte"));
        }
        let mut record = Record::default();
        let until = scene.network.now() + 4 * LIMIT;
        while record.strikes.len() < clients && scene.network.now() < until {
            let Some((mut socket, event)) = scene.reactor.next_before(until).expect("it continues") else { break };
            if event == Event::Ready {
                write(&mut socket, 100);
                socket.end();
                socket.discard();
                record.begun.insert(socket.id(), scene.network.now());
            }
            record.note(&mut socket, &event, scene.network.now());
        }
        check(clients, clients, &record.strikes, Strike::Failed(TimeoutKind::Close));
    }
}

#[test]
fn a_flood_does_not_put_off_a_timer_of_no_socket() {
    for peers in [1, 6, 1000] {
        let (mut scene, faulty) = narrow();
        let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
        let peers: Vec<_> = (0..peers).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
        scene.run(Duration::from_millis(100));
        assert_eq!(scene.story, vec!["connection"; peers.len()]);
        send_without_pause(&faulty, &peers);
        let set = scene.network.now();
        let timer = scene.reactor.set_timer(LIMIT);
        loop {
            let event = scene.reactor.next_before(set + 2 * LIMIT).expect("it continues");
            let after = scene.network.now() - set;
            assert!(after < LIMIT * 3 / 2, "with {} peers", peers.len());
            if event.is_some_and(|(_, event)| event == Event::Timer(timer)) {
                assert!(after >= LIMIT, "after {after:?}");
                break;
            }
        }
    }
}

/// With more readiness than one turn polls for, everything that was there when it began is known.
#[test]
fn readiness_that_never_ends_puts_off_no_limit() {
    let options = ListenOptions::default().deadline(LIMIT);
    for cost in [1, 100, 1000].map(Duration::from_micros) {
        let (mut scene, faulty) = faulty_on(Network::new(7));
        let _peer = scene.serve(options.clone());
        faulty.never_report_all(cost);
        let timer = scene.reactor.set_timer(LIMIT / 10);
        scene.run(LIMIT / 10 + ms(150));
        assert_eq!(scene.story, [format!("timer({timer})")], "{cost:?}");
        scene.run(LIMIT);
        assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::Deadline), "{cost:?}");
    }
}

/// Each poll reports each of them again while clients wait, and so leaves something for the next.
#[test]
fn many_listeners_whose_clients_wait_put_no_timer_off() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    let mut clients = Vec::new();
    let mut connect = |scene: &mut Scene<_>, port, count| {
        let listener = scene.reactor.listen((HERE, port), ListenOptions::default()).expect("a free port");
        clients.extend((0..count).map(|_| scene.peer.connect(listener.addr).expect("begun")));
    };
    connect(&mut scene, 80, 200);
    scene.run(ms(100));
    (1000..1100).for_each(|port| connect(&mut scene, port, 20));
    scene.network.advance(ms(10));
    faulty.never_report_all(ms(1));
    let set = scene.network.now();
    let timer = scene.reactor.set_timer(LIMIT / 10);
    while scene.reactor.next().expect("it continues").is_some_and(|(_, event)| event != Event::Timer(timer)) {}
    let late = scene.network.now() - set - LIMIT / 10;
    assert!(late < ms(50), "by {late:?}");
}

/// It is at most due directly after a look at the clock, and the next turn takes as many steps
/// before it looks again: steps of many sockets, or of one whose short reads are repeated in the
/// same turn.
#[test]
fn a_flood_delays_a_timer_by_some_thirty_reads_however_many_peers_send() {
    for (peers, is_short) in [(100, false), (100, true), (6, true), (1, true)] {
        const COST: Duration = ms(1);
        let (mut scene, faulty) = narrow();
        let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
        let peers: Vec<_> = (0..peers).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
        scene.run(ms(100));
        faulty.flood(COST);
        if is_short {
            faulty.read_short();
        }
        peers.iter().for_each(|peer| peer.send(b"x"));
        let mut latest = Duration::ZERO;
        for number in 0..100 {
            let due = scene.network.now() + ms(200) + ms(7) * number / 10;
            let timer = scene.reactor.set_timer(due - scene.network.now());
            loop {
                let event = scene.reactor.next_before(due + LIMIT).expect("it continues");
                if event.expect("a peer sends").1 == Event::Timer(timer) {
                    break;
                }
            }
            latest = latest.max(scene.network.now() - due);
        }
        // The last tick is the one that a deadline is rounded up to.
        assert!(latest <= COST * 33, "{latest:?} with {} peers", peers.len());
        assert!(latest >= COST * 15, "{latest:?} with {} peers", peers.len());
    }
}

/// A socket whose limit expires while it is queued does not wait for its turn to deliver the error.
/// Its deadline counts from a look at the clock, and is late by the steps up to two more looks.
#[test]
fn the_error_of_a_socket_that_is_queued_is_delivered_when_its_limit_strikes() {
    const COST: Duration = ms(1);
    let (mut scene, faulty) = narrow();
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let peers: Vec<_> = (0..300).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    scene.run(ms(100));
    send_without_pause(&faulty, &peers);
    faulty.flood(COST);
    let (mut due, mut latest) = (HashMap::new(), Duration::ZERO);
    let end = scene.network.now() + ms(5000);
    while let Some((mut socket, event)) = scene.reactor.next_before(end).expect("it continues") {
        match event {
            Event::Data(_) if !due.contains_key(&socket.id()) => {
                let limit = ms(500) + ms(10) * due.len() as u32;
                socket.set_deadline(limit);
                due.insert(socket.id(), scene.network.now() + limit);
            }
            Event::Error(_) => latest = latest.max(scene.network.now() - due[&socket.id()]),
            _ => {}
        }
    }
    assert_eq!(due.len(), peers.len());
    assert!(latest > Duration::ZERO && latest <= COST * 50, "{latest:?}");
}

/// The rest of a turn waits for a deadline that has passed meanwhile.
#[test]
fn a_deadline_is_late_by_some_handlers_however_many_sockets_are_ready() {
    const HANDLER: Duration = Duration::from_millis(1);
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default().backlog(1000)).expect("a free port");
    let peers: Vec<_> = (0..1000).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    scene.run(Duration::from_millis(100));
    assert_eq!(scene.story.len(), peers.len());
    peers.iter().for_each(|peer| peer.send(b"x"));
    scene.network.advance(Duration::from_millis(10));
    let due = scene.network.now() + 50 * HANDLER;
    let timer = scene.reactor.set_timer(50 * HANDLER);
    let mut served = 0;
    while let Some((_, event)) = scene.reactor.next_before(due + 2 * LIMIT).expect("it continues") {
        if event == Event::Timer(timer) {
            break;
        }
        served += 1;
        scene.network.spend(HANDLER);
    }
    let late = scene.network.now().duration_since(due);
    assert!((50..peers.len()).contains(&served), "{served} were served before it");
    assert!(late < 40 * HANDLER, "it is {late:?} late");
}
