//! Programs that write again as soon as there is room, to a peer that keeps up: what the peer sends,
//! its end, and the limits that depend on them do not wait for the end of the output.

use std::time::{Duration, Instant};

use finale::sim::PeerSocket;
use finale::{Backpressure, ConnectOptions, Event, IdleDirection, ListenOptions, Socket};

use support::ms;
use support::scene::{HERE, Scene, THERE};

/// How long a handler takes.
const HANDLER: Duration = ms(1);
/// Some events of the producer, or the steps up to two looks at the clock.
const LATE: Duration = ms(70);
const LIMIT: Duration = ms(500);
const CHUNK: usize = 64 * 1024;

/// How a program produces.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Until the queue is full.
    Full,
    /// One buffer of its own after the other.
    Owned,
    /// One small write, and a request for the next drain.
    Requested,
}

impl Way {
    fn produce(self, socket: &mut Socket<'_>) {
        match self {
            Self::Full => while socket.write(&[b'x'; CHUNK]) == Ok(Backpressure::Room) {},
            Self::Owned => while socket.write_owned(vec![b'x'; CHUNK]) == Ok(Backpressure::Room) {},
            Self::Requested => {
                let _ = socket.write(b"x");
                let _ = socket.request_drain();
            }
        }
    }
}

/// A program that produces from its first event on, and a peer that reads all of it.
struct Producer {
    scene: Scene,
    peer: PeerSocket,
    way: Way,
}

/// The queue is small, or one step can't send all of it.
const MARKS: [(usize, usize); 2] = [(2 * CHUNK, CHUNK), (4 << 20, 3 << 20)];

/// With large kernels: no write meets a full one.
fn scene() -> Scene {
    let scene = Scene::new();
    scene.network.set_buffers(1 << 26, 1 << 26);
    scene.network.set_latency(Duration::from_micros(10));
    scene
}

impl Producer {
    fn accepted(way: Way, options: ListenOptions) -> Self {
        let mut scene = scene();
        let listener = scene.reactor.listen((HERE, 80), options).expect("a free port");
        let peer = scene.peer.connect(listener.addr).expect("begun");
        let mut producer = Self { scene, peer, way };
        let story = producer.run(ms(50));
        assert!(matches!(&story[..], [(_, event)] if event == "Connection"), "{story:?}");
        producer
    }

    fn connected(way: Way, options: ConnectOptions) -> Self {
        let mut scene = scene();
        let listener = scene.peer.listen((THERE, 80).into()).expect("a free port");
        scene.reactor.connect((THERE, 80), options).expect("begun");
        scene.run(ms(10));
        let peer = listener.accept().expect("connected");
        scene.with(|socket| way.produce(socket));
        Self { scene, peer, way }
    }

    /// Produces for this long. Returns the events but `drain`, each with its time.
    fn run(&mut self, time: Duration) -> Vec<(Instant, String)> {
        let (mut story, end) = (Vec::new(), self.scene.network.now() + time);
        while let Some((mut socket, event)) = self.scene.reactor.next_before(end).expect("it continues") {
            if matches!(event, Event::Drain | Event::Connection) {
                self.way.produce(&mut socket);
            }
            if event != Event::Drain {
                story.push((self.scene.network.now(), format!("{event:?}")));
            }
            self.scene.network.spend(HANDLER);
            drop(self.peer.read());
            if self.scene.network.now() >= end {
                break;
            }
        }
        story
    }

    /// The only event of the next time is this one, and it comes at once. Returns when.
    #[track_caller]
    fn expect(&mut self, event: &str, what: &str) -> Instant {
        let begun = self.scene.network.now();
        let story = self.run(ms(200));
        let [(at, seen)] = &story[..] else { panic!("{what}: {story:?}") };
        let late = *at - begun;
        assert!(seen.starts_with(event) && late < LATE, "{what}: {seen}, {late:?} late");
        *at
    }
}

/// Each way to produce, on a connection that was accepted and on one that was not.
fn each(options: &ListenOptions, mut test: impl FnMut(Producer, &str)) {
    for way in [Way::Full, Way::Owned, Way::Requested] {
        for (high, low) in MARKS {
            let options = options.clone().high_water_mark(high).low_water_mark(low);
            test(Producer::accepted(way, options), &format!("accepted, {way:?}, {high}"));
            let options = ConnectOptions::default().high_water_mark(high).low_water_mark(low);
            test(Producer::connected(way, options), &format!("connected, {way:?}, {high}"));
        }
    }
}

#[test]
fn a_caller_that_writes_again_at_each_drain_gets_what_the_peer_sends_and_its_end() {
    each(&ListenOptions::default(), |mut producer, what| {
        producer.peer.send(b"more");
        producer.expect("Data([109, 111, 114, 101])", what);
        producer.peer.finish();
        producer.expect("End", what);
    });
}

#[test]
fn a_caller_that_has_paused_and_writes_again_at_each_drain_learns_that_the_peer_has_ended() {
    for (high, low) in MARKS {
        let options = ListenOptions::default().high_water_mark(high).low_water_mark(low).start_paused(true);
        let options = options.notify_peer_ended(true).ending_timeout(Some(LIMIT));
        let mut producer = Producer::accepted(Way::Full, options);
        producer.peer.send(b"unread");
        assert!(producer.run(ms(100)).is_empty());
        producer.peer.finish();
        let noticed = producer.expect("PeerEnded(Fin)", "paused");
        let story = producer.run(LIMIT);
        let (at, error) = &story[0];
        let late = at.saturating_duration_since(noticed + LIMIT);
        assert!(error.contains("TimedOut(Ending)") && late < LATE, "{late:?} {story:?}");
    }
}

/// A byte that arrives does not put the limit off for as long as the output lasts.
#[test]
fn the_idle_time_of_a_peer_that_is_silent_ends_though_the_caller_writes_again_at_each_drain() {
    for way in [Way::Full, Way::Owned, Way::Requested] {
        for (high, low) in MARKS {
            let options = ListenOptions::default().high_water_mark(high).low_water_mark(low);
            let options = options.idle_timeout(LIMIT).idle_direction(IdleDirection::Read);
            let mut producer = Producer::accepted(way, options);
            producer.peer.send(b"x");
            let what = format!("{way:?}, {high}");
            let story = producer.run(2 * LIMIT);
            let [(read, data), (at, timeout)] = &story[..] else { panic!("{what}: {story:?}") };
            assert!(data.starts_with("Data") && timeout == "Timeout", "{what}: {story:?}");
            let late = at.saturating_duration_since(*read + LIMIT);
            assert!(*at >= *read + LIMIT && late < LATE, "{what}: {late:?}");
        }
    }
}

/// One poll reports room, bytes, the peer's end, and a deadline that has passed after all of them.
#[test]
fn bytes_that_came_before_a_deadline_are_delivered_behind_the_drain_and_the_notice_of_the_end() {
    let mut scene = Scene::new();
    scene.network.set_buffers(1000, 1000);
    let peer = scene.serve(ListenOptions::default().high_water_mark(1000).notify_peer_ended(true));
    scene.with(|socket| {
        assert_eq!(socket.write(&[b'x'; 2500]), Ok(Backpressure::Full));
        socket.set_deadline(ms(500));
    });
    scene.run(ms(400));
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    while !peer.read().is_empty() {}
    peer.send(b"in time");
    peer.finish();
    scene.network.advance(ms(200));
    scene.run(ms(10));
    assert_eq!(scene.story[..4], ["drain", "peerended(fin)", "data in time", "end"], "{:?}", scene.story);
}

/// About the number of events of one turn: it can end between the drain and the read after it.
#[test]
fn the_notice_of_a_reset_is_none_of_a_fin_though_a_read_is_due() {
    for events in 70..100 {
        let options = ListenOptions::default().notify_peer_ended(true);
        let mut producer = Producer::accepted(Way::Requested, options);
        producer.peer.send(&vec![b'x'; (events as usize + 16) * CHUNK / 2]);
        producer.run(HANDLER * events);
        producer.peer.reset();
        let (reactor, network) = (&mut producer.scene.reactor, &producer.scene.network);
        let (mut story, end) = (String::new(), network.now() + ms(1000));
        network.advance(ms(1));
        while let Some((mut socket, event)) = reactor.next_before(end).expect("it continues") {
            if event == Event::Drain {
                Way::Requested.produce(&mut socket);
            } else if !matches!(event, Event::Data(_)) {
                story += &format!("{event:?} ");
            }
        }
        assert!(!story.contains("PeerEnded(Fin)") && story.contains("Reset"), "after {events}: {story}");
    }
}
