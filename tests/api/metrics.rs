//! The metrics of a reactor, in runs whose numbers are known.

use std::time::Duration;

use finale::lifecycle::State;
use finale::{CloseMode, ConnectOptions, ConnectionErrorKind, ListenOptions, OverflowPolicy, TimeoutKind};
use support::scene::{HERE, Scene, THERE};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn every_ending_is_counted_by_its_kind() {
    let mut scene = Scene::new();
    let listen = ListenOptions::default().half_closed_timeout(5 * SECOND).close_mode(CloseMode::HandOff);
    let listener = scene.reactor.listen((HERE, 80), listen).expect("a free port");
    let client = || scene.peer.connect(listener.addr).expect("begun");
    let (clean, reset, destroyed, silent) = (client(), client(), client(), client());
    scene.run(SECOND);
    let ids: Vec<_> = scene.stories.keys().copied().collect();
    clean.send(b"hello");
    clean.finish();
    scene.run(SECOND);
    scene.reactor.socket(ids[0]).expect("it lives").write(b"bye").expect("half-open");
    scene.reactor.socket(ids[0]).expect("it lives").end();
    reset.reset();
    scene.reactor.socket(ids[2]).expect("it lives").destroy();
    silent.finish();
    scene.run(10 * SECOND);
    scene.reactor.connect((THERE, 81), ConnectOptions::default()).expect("begun");
    scene.run(SECOND);
    drop(destroyed);

    let metrics = scene.reactor.metrics();
    assert_eq!((metrics.accepted, metrics.connects, metrics.connected), (4, 1, 0), "{metrics}");
    assert_eq!((metrics.handed_off, metrics.confirmed, metrics.destroyed), (1, 0, 1), "{metrics}");
    let failures: Vec<_> = metrics.failures().collect();
    let half_closed = ConnectionErrorKind::TimedOut(TimeoutKind::HalfClosed);
    assert_eq!(
        failures,
        [(ConnectionErrorKind::Reset, 1), (half_closed, 1), (ConnectionErrorKind::Refused, 1)],
        "{metrics}"
    );
    assert_eq!((metrics.closed(), metrics.live(), metrics.listeners), (5, 0, 1), "{metrics}");
    assert_eq!((metrics.bytes_read, metrics.bytes_written), (5, 3), "{metrics}");
    assert_eq!((metrics.timeouts, metrics.max_timer_lag_ms <= 1), (1, true), "{metrics}");
}

#[test]
fn each_connection_that_is_established_is_counted() {
    let mut scene = Scene::new();
    let _listener = scene.peer.listen((THERE, 80).into()).expect("a free port");
    for port in [80, 81, 80] {
        scene.reactor.connect((THERE, port), ConnectOptions::default()).expect("an address");
    }
    scene.run(SECOND);
    let metrics = scene.reactor.metrics();
    assert_eq!((metrics.connects, metrics.connected), (3, 2), "{metrics}");
}

#[test]
fn what_lives_is_counted_by_its_state_with_its_bytes() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.network.set_buffers(1000, 1000);
    let narrow = scene.serve_another();
    scene.with(|socket| {
        socket.write(&[0; 100_000]).expect("room");
    });
    peer.send(b"hello");
    peer.finish();
    scene.run(SECOND);
    let metrics = scene.reactor.metrics();
    let live: Vec<_> = metrics.live_by_state().collect();
    assert_eq!(live, [(State::Open, 1), (State::PeerFinished, 1)], "{metrics}");
    assert_eq!((metrics.bytes_read, metrics.bytes_written + metrics.queued_bytes), (5, 100_000), "{metrics}");
    assert!(metrics.queued_bytes > 90_000, "{metrics}");
    drop(narrow);
}

#[test]
fn who_was_dropped_and_when_a_listener_rested_is_counted() {
    let mut scene = Scene::new();
    let options = ListenOptions::default().max_connections(0).overflow_policy(OverflowPolicy::Reset);
    let listener = scene.reactor.listen((HERE, 80), options).expect("a free port");
    let _clients: Vec<_> = (0..3).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    scene.run(SECOND);
    assert_eq!(scene.reactor.metrics().overflowed, 3);
    scene.network.set_faults(finale::sim::Faults { accept_exhausted: 1.0, ..finale::sim::Faults::none() });
    let _client = scene.peer.connect(listener.addr).expect("begun");
    scene.run(SECOND);
    assert!((9..=11).contains(&scene.reactor.metrics().accept_failures), "{}", scene.reactor.metrics());
}

#[test]
fn a_program_that_keeps_the_loop_waiting_shows_in_the_lag() {
    let (mut scene, _peer) = Scene::served(ListenOptions::default());
    scene.with(|socket| socket.set_idle_timeout(Duration::from_millis(100)));
    scene.run(Duration::from_millis(1));
    scene.network.advance(Duration::from_millis(350));
    scene.run(Duration::from_millis(1));
    let metrics = scene.reactor.metrics();
    assert_eq!((metrics.timeouts, metrics.timer_lag_ms), (1, metrics.max_timer_lag_ms), "{metrics}");
    assert!((249..=251).contains(&metrics.max_timer_lag_ms), "{metrics}");
}
