//! Several addresses of one host race each other, with any resolver: on the simulated network, and
//! on loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use finale::sim::{PeerListener, Reach};
use finale::{ConnectOptions, ConnectionErrorKind, EndingKind, ListenOptions, LookupErrorKind, Target, TimeoutKind};
use support::scene::{HERE, Scene, THERE};
use support::{Transcript, What};

const SECOND: Duration = Duration::from_secs(1);
const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3));
const FARTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 4));

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn at(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 80)
}

/// A race over these addresses, each with the time of a packet from us to it and with a listener.
fn race(ways: &[(IpAddr, Duration)], options: ConnectOptions) -> (Scene, Vec<PeerListener>) {
    let mut scene = Scene::new();
    scene.network.set_latency(Duration::ZERO);
    let listeners = ways.iter().map(|(ip, way)| {
        scene.network.set_delay(*ip, *way);
        scene.network.peer(*ip).listen(at(*ip)).expect("a free port")
    });
    let listeners = listeners.collect();
    let addrs: Vec<_> = ways.iter().map(|(ip, _)| at(*ip)).collect();
    scene.reactor.connect(addrs, options).expect("a list of addresses");
    (scene, listeners)
}

fn winner(scene: &mut Scene) -> Option<IpAddr> {
    let id = scene.socket?;
    scene.reactor.socket(id)?.peer_addr().map(|peer| peer.ip())
}

#[test]
fn two_handshakes_that_are_done_at_one_moment_make_one_connection() {
    // The first began 250 ms earlier, and takes 250 ms longer.
    let (mut scene, listeners) = race(&[(FAR, ms(130)), (THERE, ms(5))], ConnectOptions::default());
    scene.run(ms(259));
    assert_eq!(scene.story, ["lookup 10.0.0.3", "lookup 10.0.0.2"]);
    scene.run(ms(500));
    assert_eq!(scene.story[2..], ["connect", "ready"]);
    assert_eq!(winner(&mut scene), Some(FAR), "the one that began first");
    assert_eq!(scene.network.descriptors(), 1);
    let loser = listeners[1].accept().expect("its handshake was done");
    assert!(loser.is_reset(), "an end would be a conversation without a word");
    assert!(listeners[0].accept().is_some());
}

#[test]
fn what_is_told_of_a_loser_is_not_taken_for_the_winners() {
    for (refused, there) in [(130, 5), (5, 130)] {
        // Refused and connected at the same moment, in either order.
        let (refused, there) = ((FAR, ms(refused)), (THERE, ms(there)));
        let ways = if refused.1 > there.1 { [refused, there] } else { [there, refused] };
        let (mut scene, listeners) = race(&ways, ConnectOptions::default().notify_peer_ended(true));
        for listener in listeners.into_iter().filter(|listener| listener.addr() == Some(at(FAR))) {
            listener.close();
        }
        scene.run(SECOND);
        assert_eq!(scene.story[2..], ["connect", "ready"], "and no end that is none");
        assert_eq!(winner(&mut scene), Some(THERE));
        scene.with(|socket| assert!(!socket.peer_ended()));
    }
}

#[test]
fn bytes_and_an_end_that_came_while_nobody_looked_are_not_lost_with_the_race() {
    let (mut scene, listeners) = race(&[(FAR, ms(400)), (THERE, ms(5))], ConnectOptions::default());
    let _play = listeners[1].play(finale::sim::Script::new().send(b"hello").finish());
    scene.run(ms(251));
    scene.network.advance(ms(100));
    scene.run(ms(1));
    assert_eq!(scene.story[2..], ["connect", "ready", "data hello", "end"]);
}

#[test]
fn a_socket_that_is_destroyed_in_the_race_leaves_nothing_open() {
    let (mut scene, listeners) = race(&[(FAR, SECOND), (FARTHER, SECOND), (THERE, SECOND)], ConnectOptions::default());
    scene.run(ms(600));
    assert_eq!(scene.network.descriptors(), 3, "three attempts are under way");
    scene.with(|socket| socket.destroy());
    scene.story.clear();
    scene.expect(&["close"]);
    scene.run(5 * SECOND);
    assert!(listeners.iter().all(|listener| listener.accept().is_none()));
    scene.rest();
}

#[test]
fn when_the_time_is_up_the_error_names_every_attempt_under_way() {
    let options = ConnectOptions::default().connect_timeout(ms(700));
    let (mut scene, _listeners) = race(&[(FAR, SECOND), (FARTHER, SECOND), (THERE, SECOND)], options);
    scene.run(ms(699));
    assert_eq!(scene.story.len(), 3);
    scene.run(ms(10));
    let EndingKind::Failed(failure) = scene.how() else { panic!("it has failed") };
    assert_eq!(failure.kind, ConnectionErrorKind::TimedOut(TimeoutKind::Connect));
    let attempts: Vec<_> = failure.attempts.iter().map(|attempt| (attempt.addr.ip(), attempt.kind)).collect();
    assert_eq!(attempts, [FAR, FARTHER, THERE].map(|ip| (ip, ConnectionErrorKind::TimedOut(TimeoutKind::Connect))));
    scene.story.clear();
    scene.rest();
}

#[test]
fn a_reactor_that_is_dropped_in_the_race_leaves_nothing_open() {
    let (mut scene, _listeners) = race(&[(FAR, SECOND), (THERE, SECOND)], ConnectOptions::default());
    scene.run(ms(400));
    let network = scene.network.clone();
    assert_eq!(network.descriptors(), 2);
    drop(scene);
    assert_eq!(network.descriptors(), 0);
}

#[test]
fn an_attempt_that_fails_lets_the_next_begin_at_once_while_others_go_on() {
    let mut scene = Scene::new();
    scene.network.set_reach(FAR, Reach::BlackHole);
    let _listener = scene.peer.listen(at(THERE)).expect("a free port");
    // The second is refused, the third is reachable.
    scene.reactor.connect(vec![at(FAR), at(HERE), at(THERE)], ConnectOptions::default()).expect("a list of addresses");
    scene.run(ms(250));
    assert_eq!(scene.story.len(), 3, "the first is alone");
    scene.run(ms(10));
    assert_eq!(scene.story[3..], ["connect", "ready"], "not 250 ms more");
    assert_eq!(scene.network.descriptors(), 1);
}

#[test]
fn without_a_delay_the_next_address_waits_until_the_one_before_has_failed() {
    let (mut scene, listeners) =
        race(&[(FAR, 3 * SECOND), (THERE, ms(5))], ConnectOptions::default().attempt_delay(None));
    scene.run(5 * SECOND);
    assert_eq!((scene.story.len(), scene.network.descriptors()), (2, 1));
    scene.run(2 * SECOND);
    assert_eq!((winner(&mut scene), listeners[1].accept().is_none()), (Some(FAR), true));
}

#[test]
fn the_delay_can_be_chosen() {
    let (mut scene, _listeners) =
        race(&[(FAR, SECOND), (THERE, Duration::ZERO)], ConnectOptions::default().attempt_delay(ms(40)));
    scene.run(ms(39));
    assert_eq!(scene.network.descriptors(), 1);
    scene.run(ms(5));
    assert_eq!(winner(&mut scene), Some(THERE));
}

/// Connects to these addresses with a timeout of 300 ms. The first refuses after 200 ms; handlers of
/// other sockets keep the reactor busy until the timeout has expired. Returns the kind of the error.
fn refused_while_busy(addrs: Vec<SocketAddr>, delay: Option<Duration>) -> ConnectionErrorKind {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 81), ListenOptions::default()).expect("a free port");
    let clients: Vec<_> = (0..40).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    scene.run(ms(50));
    scene.network.set_latency(Duration::ZERO);
    scene.network.set_delay(FAR, ms(100));
    scene.network.set_reach(FARTHER, Reach::BlackHole);
    let options = ConnectOptions::default().connect_timeout(ms(300)).attempt_delay(delay);
    let id = scene.reactor.connect(addrs, options).expect("a list of addresses");
    scene.run(ms(50));
    clients.iter().for_each(|client| client.send(b"hello"));
    scene.network.advance(ms(400));
    scene.run(ms(1));
    let story = &scene.stories[&id];
    assert_eq!(story.last().map(String::as_str), Some("close"), "{story:?}");
    scene.cause()
}

#[test]
fn a_refusal_before_the_connect_timeout_is_the_error_although_it_is_noticed_later() {
    assert_eq!(refused_while_busy(vec![at(FAR)], None), ConnectionErrorKind::Refused);
}

#[test]
fn a_refusal_before_the_connect_timeout_is_not_the_error_if_another_address_is_left() {
    let timeout = ConnectionErrorKind::TimedOut(TimeoutKind::Connect);
    for (delay, left) in [(None, "not tried"), (Some(ms(20)), "in flight")] {
        assert_eq!(refused_while_busy(vec![at(FAR), at(FARTHER)], delay), timeout, "it is {left}");
    }
}

#[test]
fn port_0_is_refused_at_once_whatever_its_host_does() {
    let mut scene = Scene::new();
    scene.network.set_reach(FAR, Reach::BlackHole);
    scene.reactor.connect(SocketAddr::new(FAR, 0), ConnectOptions::default()).expect("an address");
    scene.run(Duration::ZERO);
    assert_eq!(scene.story, ["lookup 10.0.0.3", "error refused: nothing listens there [10.0.0.3:0]", "close"]);
}

#[test]
fn a_list_without_an_address_is_a_host_without_one() {
    let mut scene = Scene::new();
    scene.reactor.connect(Vec::new(), ConnectOptions::default()).expect("delivered later");
    scene.expect(&["error lookup failed: the name has no address", "close"]);
    assert_eq!(Target::from(vec![at(HERE), at(THERE)]).to_string(), "10.0.0.1:80,10.0.0.2:80");
    scene.rest();
}

#[test]
fn a_resolver_of_the_programs_own_answers_for_its_names_on_a_thread_of_the_look_ups() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    let mut story = Transcript::new();
    let threads = Arc::new(Mutex::new(Vec::new()));
    let names = Arc::clone(&threads);
    story.reactor.set_resolver(move |host, port| {
        names.lock().expect("whole").push(std::thread::current().name().map(str::to_owned));
        match host {
            "backend" => Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]),
            "panics" => panic!("a bug of the program's"),
            _ => Err(LookupErrorKind::NotFound),
        }
    });
    let backend = story.reactor.connect(("backend", addr.port()), ConnectOptions::default()).expect("a name");
    story.connected(backend);
    for (name, cause) in [("panics", LookupErrorKind::Failed), ("nobody", LookupErrorKind::NotFound)] {
        let client = story.reactor.connect((name, 80), ConnectOptions::default()).expect("a name");
        assert_eq!(story.error(client).kind, ConnectionErrorKind::Lookup(cause));
        story.close(client);
    }
    story.socket(backend).destroy();
    story.close(backend);
    let threads = threads.lock().expect("whole");
    assert!(threads.iter().all(|name| name.as_deref() == Some("finale-lookup")), "{threads:?}");
}

#[test]
fn a_look_up_whose_socket_is_gone_before_it_begins_is_not_made() {
    let mut story = Transcript::new();
    let (open, gate) = channel::<()>();
    let (gate, asked) = (Mutex::new(gate), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    story.reactor.set_resolver(move |host, _| {
        count.fetch_add(1, Ordering::Relaxed);
        if host == "slow" {
            let _ = gate.lock().expect("whole").recv();
        }
        Err(LookupErrorKind::NotFound)
    });
    let mut connect = |host: &str| story.reactor.connect((host, 80), ConnectOptions::default()).expect("a name");
    let slow: Vec<_> = (0..4).map(|_| connect("slow")).collect();
    let unwanted: Vec<_> = (0..100).map(|_| connect("unwanted")).collect();
    let last = connect("last");
    let unwanted_too: Vec<_> = (0..100).map(|_| connect("unwanted")).collect();
    story.turn();
    // In the order of their requests, and the last one first.
    for client in unwanted.into_iter().chain(unwanted_too.into_iter().rev()) {
        story.socket(client).destroy();
        assert_eq!(story.close(client).kind, EndingKind::Destroyed);
    }
    drop(open);
    for client in slow.into_iter().chain([last]) {
        assert!(matches!(story.next(client), What::Error(_)));
        story.close(client);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 5, "four that were slow, and the last");
    story.rest();
}
