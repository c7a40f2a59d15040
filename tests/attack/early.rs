//! No limit is early, not by a nanosecond of the simulated clock and not by a microsecond of the
//! real one, for any length and any moment at which it begins.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use finale::sim::{Network, Reach, Rng};
use finale::{
    ConnectOptions, ConnectionErrorKind, EndingKind, Event, ListenOptions, Reactor, Socket, SocketId, StopOptions,
    TimeoutKind,
};

use support::scene::{HERE, THERE};
use support::{Transcript, What, dial_narrow, ms, work_for};

/// More than what the kernels of both sides hold, on the simulated network.
const MUCH: usize = 10_000;

/// How long after `begin` the connection failed or delivered `timeout`, on the simulated network.
fn struck_after(
    rng: &mut Rng,
    options: ListenOptions,
    begin: fn(&mut Socket<'_>, Duration),
    limit: Duration,
) -> Duration {
    let network = Network::new(rng.next_u64());
    network.set_buffers(1000, 1000);
    network.set_latency(Duration::from_nanos(rng.below(500_000)));
    let mut reactor = Reactor::with_net(network.host(HERE));
    let listener = reactor.listen((HERE, 80), options).expect("a free port");
    let _peer = network.peer(THERE).connect(listener.addr).expect("begun");
    let mut begun = None;
    while let Some((mut socket, event)) = reactor.next().expect("it continues") {
        match event {
            Event::Connection => {
                network.advance(Duration::from_nanos(rng.below(2_000_000)));
                begun = Some(network.now());
                begin(&mut socket, limit);
            }
            Event::Timeout | Event::Error(_) => return network.now() - begun.expect("it has begun"),
            other => panic!("{other:?}"),
        }
    }
    panic!("nothing happens any more");
}

fn write(socket: &mut Socket<'_>) {
    socket.write(&[0; MUCH]).expect("open");
}

fn lingering(socket: &mut Socket<'_>, _: Duration) {
    socket.end();
    socket.discard();
}

fn flushing(socket: &mut Socket<'_>, _: Duration) {
    write(socket);
    socket.end();
}

fn ended_with_a_deadline(socket: &mut Socket<'_>, _: Duration) {
    socket.set_deadline(ms(100));
    socket.end();
}

#[test]
fn no_limit_is_early_on_the_simulated_clock() {
    type Case = (&'static str, fn(ListenOptions, Duration) -> ListenOptions, fn(&mut Socket<'_>, Duration));
    let half_closed = |options: ListenOptions, limit| options.half_closed_timeout(limit);
    let closing = |options: ListenOptions, limit| options.close_timeout(limit);
    let cases: [Case; 7] = [
        ("half-closed", half_closed, |socket, _| socket.end()),
        ("lingering", closing, lingering),
        ("flushing", closing, flushing),
        ("writing", |options, limit| options.write_timeout(limit), |socket, _| write(socket)),
        ("deadline", |options, _| options, |socket, limit| socket.set_deadline(limit)),
        ("idle", |options, _| options, |socket, limit| socket.set_idle_timeout(limit)),
        ("ended with a deadline", half_closed, ended_with_a_deadline),
    ];
    let mut rng = Rng::new(7);
    for (name, with_limit, begin) in cases {
        for _ in 0..100 {
            let limit = Duration::from_nanos(1 + rng.below(4_000_000));
            let after = struck_after(&mut rng, with_limit(ListenOptions::default(), limit), begin, limit);
            assert!(after >= limit, "{name}: {:?} early", limit - after);
            assert!(after < limit + ms(10), "{name}: {:?} late", after - limit);
        }
    }
}

#[test]
fn no_connect_timeout_is_early_on_the_simulated_clock() {
    let mut rng = Rng::new(7);
    for _ in 0..100 {
        let network = Network::new(rng.next_u64());
        network.set_reach(THERE, Reach::BlackHole);
        let mut reactor = Reactor::with_net(network.host(HERE));
        network.advance(Duration::from_nanos(rng.below(2_000_000)));
        let limit = Duration::from_nanos(1 + rng.below(4_000_000));
        let begun = network.now();
        reactor.connect((THERE, 80), ConnectOptions::default().connect_timeout(limit)).expect("an address");
        while let Some((_, event)) = reactor.next().expect("it continues") {
            if let Event::Error(failure) = event {
                assert_eq!(failure.kind, ConnectionErrorKind::TimedOut(TimeoutKind::Connect));
                assert!(network.now() - begun >= limit, "{:?} early", limit - (network.now() - begun));
            }
        }
    }
}

#[test]
fn neither_grace_nor_limit_of_a_stop_is_early_on_the_simulated_clock() {
    let mut rng = Rng::new(7);
    for _ in 0..100 {
        let network = Network::new(rng.next_u64());
        network.set_latency(Duration::ZERO);
        let mut reactor = Reactor::with_net(network.host(HERE));
        let listener = reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
        let peer = network.peer(THERE).connect(listener.addr).expect("begun");
        reactor.next().expect("it continues");
        network.advance(Duration::from_nanos(rng.below(2_000_000)));
        let (grace, limit) = (Duration::from_nanos(rng.below(4_000_000)), Duration::from_nanos(rng.below(8_000_000)));
        let begun = network.now();
        let stop = StopOptions::default().grace(grace).limit(limit);
        reactor.stop_listener(listener.id, stop).expect("open");
        loop {
            let step = network.now() + Duration::from_micros(10);
            let closed = match reactor.next_before(step).expect("it continues") {
                Some((_, Event::Close(ending))) => Some(ending.clone()),
                _ => None,
            };
            let after = network.now() - begun;
            assert!(after >= grace.min(limit) || !(peer.has_fin() || peer.is_reset()), "{:?} early", grace - after);
            if let Some(ending) = closed {
                assert_eq!(ending.kind, EndingKind::Destroyed);
                assert!(after >= limit, "{:?} early", limit - after);
                break;
            }
        }
    }
}

/// Lengths that are not whole milliseconds, and moments between the ticks, from a seed that is the
/// same in each run.
fn lengths() -> impl Iterator<Item = Duration> {
    let mut rng = Rng::new(11);
    (0..20).map(move |_| {
        work_for(Duration::from_nanos(rng.below(1_000_000)));
        Duration::from_nanos(1 + rng.below(4_000_000))
    })
}

/// The connection fails because of this timer, not before `limit` has passed from the call of `act`:
/// from before it, since the process may be stopped behind it.
#[track_caller]
fn fails_in_time(
    story: &mut Transcript,
    socket: SocketId,
    timer: TimeoutKind,
    limit: Duration,
    act: impl FnOnce(&mut Socket<'_>),
) {
    let begun = Instant::now();
    act(&mut story.socket(socket));
    assert_eq!(story.error(socket).kind, ConnectionErrorKind::TimedOut(timer));
    let after = begun.elapsed();
    assert!(after >= limit, "{timer:?} of {limit:?} is {:?} early", limit - after);
}

#[test]
fn no_half_closed_limit_is_early_on_the_real_clock() {
    for limit in lengths() {
        let (mut story, socket, _peer) = Transcript::pair(ListenOptions::default().half_closed_timeout(limit));
        fails_in_time(&mut story, socket, TimeoutKind::HalfClosed, limit, |socket| socket.end());
        let (mut story, socket, peer) = Transcript::pair(ListenOptions::default().half_closed_timeout(limit));
        let finished = Instant::now();
        peer.shutdown(Shutdown::Write).expect("connected");
        story.expect(socket, What::End);
        assert_eq!(story.error(socket).kind, ConnectionErrorKind::TimedOut(TimeoutKind::HalfClosed));
        assert!(finished.elapsed() >= limit, "{limit:?} after {:?}", finished.elapsed());
    }
}

#[test]
fn no_close_timeout_is_early_on_the_real_clock() {
    for limit in lengths() {
        let (mut story, socket, _peer) = Transcript::pair(ListenOptions::default().close_timeout(limit));
        fails_in_time(&mut story, socket, TimeoutKind::Close, limit, |socket| {
            socket.end();
            socket.discard();
        });
    }
}

#[test]
fn no_write_timeout_is_early_on_the_real_clock() {
    for limit in lengths() {
        let mut story = Transcript::new();
        let addr = story.listen(ListenOptions::default().send_buffer_size(4096).write_timeout(limit));
        let _peer = dial_narrow(addr);
        let socket = story.connection();
        fails_in_time(&mut story, socket, TimeoutKind::Write, limit, |socket| {
            socket.write_owned(vec![0; 1 << 20]).expect("open");
        });
    }
}

#[test]
fn no_deadline_is_early_on_the_real_clock() {
    for limit in lengths() {
        let (mut story, socket, _peer) = Transcript::pair(ListenOptions::default());
        fails_in_time(&mut story, socket, TimeoutKind::Deadline, limit, |socket| socket.set_deadline(limit));
    }
}

#[test]
fn no_limit_of_a_stop_is_early_on_the_real_clock() {
    for limit in lengths() {
        let mut story = Transcript::new();
        let listener = story.reactor.listen("127.0.0.1:0", ListenOptions::default()).expect("a free port");
        let _peer = dial_narrow(listener.addr);
        let socket = story.connection();
        let begun = Instant::now();
        story.reactor.stop_listener(listener.id, StopOptions::default().limit(limit)).expect("open");
        assert_eq!(story.close(socket).kind, EndingKind::Destroyed);
        assert!(begun.elapsed() >= limit, "{limit:?} after {:?}", begun.elapsed());
    }
}
