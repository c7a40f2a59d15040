//! The ending timeout: it counts from the first FIN of either side, or from our `end()`, and bytes
//! that move do not postpone it.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use finale::sim::{Network, PeerSocket, Rng};
use finale::{ConnectOptions, ConnectionErrorKind, Event, ListenOptions, Socket, TimeoutKind};

use crate::floods::{self, Strike};
use crate::real_floods;
use support::scene::{HERE, Scene, THERE};
use support::{Transcript, What, ms, work_for};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// The default.
const BOUND: Duration = Duration::from_secs(4 * 3600);
const ENDING: ConnectionErrorKind = ConnectionErrorKind::TimedOut(TimeoutKind::Ending);

/// A connection whose kernels hold this much.
fn with_buffers(send: usize, receive: usize, options: ListenOptions) -> (Scene, PeerSocket) {
    let mut scene = Scene::new();
    scene.network.set_buffers(send, receive);
    let peer = scene.serve(options);
    (scene, peer)
}

/// How long after now it was closed; `None` if it is still live after `limit`. `act` runs before
/// each `step`.
fn closed_after(scene: &mut Scene, step: Duration, limit: Duration, act: impl Fn(&mut Scene)) -> Option<Duration> {
    let begun = scene.network.now();
    while scene.network.now() - begun < limit {
        act(scene);
        scene.run(step);
        if scene.ending.is_some() {
            return Some(scene.network.now() - begun);
        }
    }
    None
}

/// It was closed at the bound, within a step of it.
#[track_caller]
fn is_bounded(scene: &Scene, after: Option<Duration>, bound: Duration, step: Duration) {
    let after = after.expect("it is closed");
    assert!((bound..bound + 2 * step).contains(&after), "after {after:?}");
    assert_eq!(scene.cause(), ENDING);
}

// --- with the default options ---

/// A byte every four minutes: the half-closed timeout of five minutes never expires.
#[test]
fn a_peer_that_drips_after_our_end_is_bounded() {
    const STEP: Duration = Duration::from_secs(240);
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.with(|socket| {
        socket.write(b"answer").expect("open");
        socket.end();
    });
    let after = closed_after(&mut scene, STEP, 2 * BOUND, |_| peer.send(b"x"));
    is_bounded(&scene, after, BOUND, STEP);
}

/// Ten bytes every 29 seconds: the close timeout of 30 seconds never expires.
#[test]
fn a_peer_that_sips_after_both_ends_is_bounded() {
    const STEP: Duration = Duration::from_secs(29);
    let (mut scene, peer) = with_buffers(50_000, 10, ListenOptions::default());
    peer.finish();
    scene.expect(&["end"]);
    scene.with(|socket| {
        socket.write(&[b'x'; 50_000]).expect("open");
        socket.end();
    });
    let after = closed_after(&mut scene, STEP, 2 * BOUND, |_| drop(peer.read()));
    // The peer's FIN came a second earlier.
    is_bounded(&scene, after.map(|after| after + SECOND), BOUND, STEP);
}

#[test]
fn a_peer_that_sips_while_we_flush_is_bounded_from_our_end_on() {
    const STEP: Duration = Duration::from_secs(29);
    let (mut scene, peer) = with_buffers(100, 10, ListenOptions::default());
    scene.with(|socket| {
        socket.write(&[b'x'; 50_000]).expect("open");
        socket.end();
    });
    let after = closed_after(&mut scene, STEP, 2 * BOUND, |_| drop(peer.read()));
    is_bounded(&scene, after, BOUND, STEP);
}

/// A program that never ends and writes a byte every four minutes.
#[test]
fn a_program_that_drips_after_the_peers_end_is_bounded() {
    const STEP: Duration = Duration::from_secs(240);
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.finish();
    scene.expect(&["end"]);
    let after = closed_after(&mut scene, STEP, 2 * BOUND, |scene| {
        scene.with(|socket| drop(socket.write(b"x")));
        drop(peer.read());
    });
    is_bounded(&scene, after.map(|after| after + SECOND), BOUND, STEP);
}

#[test]
fn a_connection_that_neither_side_has_ended_is_not_bounded() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    let after = closed_after(&mut scene, HOUR, 100 * HOUR, |_| peer.send(b"x"));
    assert_eq!(after, None);
}

// --- with a bound of the program ---

#[test]
fn without_a_bound_a_dripping_peer_is_never_closed() {
    const STEP: Duration = Duration::from_secs(240);
    let (mut scene, peer) = Scene::served(ListenOptions::default().ending_timeout(None));
    scene.with(|socket| socket.end());
    let after = closed_after(&mut scene, STEP, 48 * HOUR, |_| peer.send(b"x"));
    assert_eq!(after, None);
    peer.finish();
    scene.run(SECOND);
    assert!(scene.ending.as_ref().is_some_and(finale::Ending::is_clean));
}

#[test]
fn an_outgoing_connection_is_bounded_too() {
    let mut scene = Scene::new();
    let listener = scene.peer.listen((THERE, 80).into()).expect("a free port");
    let options = ConnectOptions::default().ending_timeout(10 * SECOND);
    scene.reactor.connect((THERE, 80), options).expect("an address");
    scene.run(SECOND);
    let server = listener.accept().expect("connected");
    scene.with(|socket| socket.end());
    let after = closed_after(&mut scene, ms(100), HOUR, |_| server.send(b"x"));
    is_bounded(&scene, after, 10 * SECOND, ms(100));
}

#[test]
fn the_bound_counts_from_the_first_fin_and_not_from_the_second() {
    let bounded = || ListenOptions::default().ending_timeout(10 * SECOND);
    // The peer's FIN is first, then our `end()`.
    let (mut scene, peer) = with_buffers(1000, 1000, bounded());
    peer.finish();
    scene.run(6 * SECOND);
    scene.with(|socket| {
        socket.write(&[b'x'; 10_000]).expect("open");
        socket.end();
    });
    let after = closed_after(&mut scene, ms(100), HOUR, |_| ());
    is_bounded(&scene, after.map(|after| after + 6 * SECOND), 10 * SECOND, ms(100));
    // Our `end()` is first, then the peer's FIN.
    let (mut scene, peer) = with_buffers(1000, 1000, bounded());
    scene.with(|socket| {
        socket.write(&[b'x'; 10_000]).expect("open");
        socket.end();
    });
    scene.run(6 * SECOND);
    peer.finish();
    let after = closed_after(&mut scene, ms(100), HOUR, |_| ());
    is_bounded(&scene, after.map(|after| after + 6 * SECOND), 10 * SECOND, ms(100));
}

#[test]
fn an_unread_fin_of_a_paused_connection_starts_the_bound() {
    let options = ListenOptions::default().start_paused(true).half_closed_timeout(None).ending_timeout(10 * SECOND);
    let (mut scene, peer) = Scene::served(options);
    peer.send(b"unread");
    peer.finish();
    let after = closed_after(&mut scene, ms(100), HOUR, |_| ());
    is_bounded(&scene, after, 10 * SECOND, ms(100));
}

#[test]
fn no_call_puts_the_bound_off() {
    let options = ListenOptions::default().half_closed_timeout(None).ending_timeout(10 * SECOND);
    let (mut scene, _peer) = Scene::served(options);
    scene.with(|socket| socket.end());
    let after = closed_after(&mut scene, ms(500), HOUR, |scene| {
        scene.with(|socket| {
            socket.set_idle_timeout(HOUR);
            socket.set_deadline(HOUR);
            socket.end();
        });
    });
    is_bounded(&scene, after, 10 * SECOND, ms(500));
}

#[test]
fn the_nearest_limit_of_an_ending_wins() {
    let lingering = |socket: &mut Socket<'_>| {
        socket.end();
        socket.discard();
    };
    for (bound, linger, cause) in [(3, 10, ENDING), (10, 3, ConnectionErrorKind::TimedOut(TimeoutKind::Close))] {
        let options = ListenOptions::default().ending_timeout(bound * SECOND).close_timeout(linger * SECOND);
        let (mut scene, _peer) = Scene::served(options);
        scene.with(lingering);
        let after = closed_after(&mut scene, ms(100), HOUR, |_| ()).expect("it is closed");
        assert!((3 * SECOND..3 * SECOND + ms(200)).contains(&after), "after {after:?}");
        assert_eq!(scene.cause(), cause);
    }
}

#[test]
fn an_ending_within_the_bound_is_clean() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().ending_timeout(10 * SECOND));
    scene.with(|socket| socket.end());
    scene.run(9 * SECOND);
    peer.finish();
    scene.expect(&["end", "close"]);
    assert!(scene.ending.as_ref().is_some_and(finale::Ending::is_acknowledged));
    scene.rest();
}

// --- floods ---

#[test]
fn a_flood_does_not_put_the_bound_off() {
    let options = ListenOptions::default().ending_timeout(floods::LIMIT);
    floods::strikes_in_time(&options, |socket| socket.end(), Strike::Failed(TimeoutKind::Ending));
}

#[test]
fn clients_that_only_write_do_not_put_the_bound_off() {
    for (clients, work) in [(1, Duration::ZERO), (6, ms(1))] {
        let options = real_floods::wide().ending_timeout(real_floods::LIMIT);
        real_floods::strikes_in_time(clients, options, work, Some(TimeoutKind::Ending), |socket| socket.end());
    }
}

// --- never early ---

#[test]
fn the_bound_is_not_early_on_the_simulated_clock() {
    let mut rng = Rng::new(7);
    for _ in 0..100 {
        let network = Network::new(rng.next_u64());
        network.set_latency(Duration::from_nanos(rng.below(500_000)));
        let mut reactor = finale::Reactor::with_net(network.host(HERE));
        let limit = Duration::from_nanos(1 + rng.below(4_000_000));
        let listener = reactor.listen((HERE, 80), ListenOptions::default().ending_timeout(limit)).expect("a free port");
        let _peer = network.peer(THERE).connect(listener.addr).expect("begun");
        let mut begun = None;
        loop {
            let (mut socket, event) = reactor.next().expect("it continues").expect("something happens");
            match event {
                Event::Connection => {
                    network.advance(Duration::from_nanos(rng.below(2_000_000)));
                    begun = Some(network.now());
                    socket.end();
                }
                Event::Error(failure) => {
                    assert_eq!(failure.kind, ENDING);
                    let after = network.now() - begun.expect("it has begun");
                    assert!(after >= limit, "{:?} early", limit - after);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn the_bound_is_not_early_on_the_real_clock() {
    let mut rng = Rng::new(11);
    for _ in 0..20 {
        work_for(Duration::from_nanos(rng.below(1_000_000)));
        let limit = Duration::from_nanos(1 + rng.below(4_000_000));
        let (mut story, socket, _peer) = Transcript::pair(ListenOptions::default().ending_timeout(limit));
        let begun = Instant::now();
        story.socket(socket).end();
        assert_eq!(story.error(socket).kind, ENDING);
        assert!(begun.elapsed() >= limit, "{limit:?} after {:?}", begun.elapsed());
        let (mut story, socket, peer) = Transcript::pair(ListenOptions::default().ending_timeout(limit));
        let finished = Instant::now();
        peer.shutdown(Shutdown::Write).expect("connected");
        story.expect(socket, What::End);
        assert_eq!(story.error(socket).kind, ENDING);
        assert!(finished.elapsed() >= limit, "{limit:?} after {:?}", finished.elapsed());
    }
}
