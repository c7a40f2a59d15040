//! Bytes in kernel pipes: limits count them, the death of a peer on either side is noticed at once, and
//! the counts of an ending are right. A call that fails for a while is repeated.

use std::time::Duration;

use finale::sim::{Network, PeerSocket};
use finale::{
    Backpressure, ConnectionErrorKind, Ending, EndingKind, Event, ListenOptions, Reactor, SocketId, TimeoutKind,
};
use rustix::io::Errno;

use support::faulty::{Faulty, FaultyNet};
use support::scene::{HERE, Scene, THERE};
use support::{ms, pattern};

const SECOND: Duration = Duration::from_secs(1);

/// A source and a sink without `Pipes`: the program passes on kernel pipes itself.
struct Pair {
    network: Network,
    reactor: Reactor<FaultyNet>,
    ids: Vec<SocketId>,
    source: Option<PeerSocket>,
    sink: Option<PeerSocket>,
    forwarded: usize,
    read: usize,
    /// When each was closed, and how.
    closes: Vec<(Duration, Ending)>,
    lines: Vec<String>,
    faulty: Faulty,
}

impl Pair {
    fn new(options: ListenOptions) -> Self {
        let network = Network::new(5);
        network.set_buffers(64 * 1024, 64 * 1024);
        let (net, faulty) = FaultyNet::new(&network);
        let mut reactor = Reactor::with_net(net);
        let listener = reactor.listen((HERE, 80), options).expect("a free port");
        let peer = network.peer(THERE);
        let source = Some(peer.connect(listener.addr).expect("begun"));
        let mut pair = Self {
            network: network.clone(),
            reactor,
            ids: Vec::new(),
            source,
            sink: None,
            forwarded: 0,
            read: 0,
            closes: Vec::new(),
            lines: Vec::new(),
            faulty,
        };
        pair.run(ms(100));
        pair.sink = Some(peer.connect(listener.addr).expect("begun"));
        pair.run(ms(100));
        pair.reactor.close_listener(listener.id).expect("open");
        assert_eq!(pair.ids.len(), 2);
        pair
    }

    /// The source is held while the sink is full.
    fn run(&mut self, time: Duration) {
        let until = self.network.now() + time;
        while let Some((mut socket, event)) = self.reactor.next_before(until).expect("it continues") {
            let id = socket.id();
            match event {
                Event::Connection => {
                    self.ids.push(id);
                    socket.splice_next();
                }
                Event::Spliced(count) if id == self.ids[0] => {
                    let sink = self.ids[1];
                    match socket.forward(sink) {
                        Ok(Backpressure::Full) => {
                            self.forwarded += count;
                            socket.hold();
                        }
                        Ok(Backpressure::Room) => self.forwarded += count,
                        Err(_) => {}
                    }
                    socket.splice_next();
                }
                Event::Data(bytes) => self.read += bytes.len(),
                Event::Drain => self.ids[0..1].iter().for_each(|id| {
                    if let Some(mut source) = socket.get(*id) {
                        source.release();
                    }
                }),
                Event::Close(ending) => self.closes.push((self.network.elapsed(), ending.clone())),
                _ => {}
            }
            let name = event.to_string().split([',', ':']).next().expect("a name").to_owned();
            self.lines.push(name);
        }
    }

    fn stall(&mut self, count: usize) {
        self.source.as_ref().expect("it lives").send(&pattern(count));
        self.run(SECOND);
    }
}

/// The bytes in a pipe are in a queue like others: the write timeout counts from the first.
#[test]
fn the_write_timeout_counts_from_the_first_byte_in_a_kernel_pipe() {
    let mut pair = Pair::new(ListenOptions::default().write_timeout(3 * SECOND));
    pair.run(5 * SECOND);
    pair.stall(400_000);
    let stalled = pair.network.elapsed();
    pair.run(10 * SECOND);
    let (at, ending) = pair.closes.first().expect("the sink is closed").clone();
    let EndingKind::Failed(failure) = &ending.kind else { panic!("{ending}") };
    assert_eq!(failure.kind, ConnectionErrorKind::TimedOut(TimeoutKind::Write));
    assert!((stalled + 2 * SECOND..stalled + 4 * SECOND).contains(&at), "{stalled:?} {at:?}");
    assert_eq!(ending.bytes_written + ending.bytes_unsent, pair.forwarded as u64, "{ending}");
}

#[test]
fn a_peer_that_takes_some_bytes_of_a_kernel_pipe_restarts_the_write_timeout() {
    let mut pair = Pair::new(ListenOptions::default().write_timeout(3 * SECOND));
    pair.stall(400_000);
    for _ in 0..20 {
        pair.run(SECOND);
        if pair.network.elapsed().as_secs().is_multiple_of(2) {
            drop(pair.sink.as_ref().map(PeerSocket::read));
        }
    }
    assert!(pair.closes.is_empty(), "{:?}", pair.closes);
}

/// Otherwise our kernel would hold the bytes back, or send our FIN in a segment of its own.
#[test]
fn only_the_last_kernel_pipe_before_our_fin_is_sent_with_the_promise_of_more() {
    let mut pair = Pair::new(ListenOptions::default());
    pair.stall(500);
    assert_eq!(std::mem::take(&mut pair.faulty.orders().sent), [(500, false)]);
    pair.faulty.always("splice_out", Errno::NOBUFS);
    pair.stall(600);
    pair.stall(700);
    pair.reactor.socket(pair.ids[1]).expect("it lives").end();
    pair.run(SECOND);
    pair.faulty.heal();
    pair.run(SECOND);
    assert_eq!(pair.faulty.orders().sent, [(600, false), (700, true)]);
}

#[test]
fn without_bytes_in_a_pipe_forward_is_a_write_of_nothing() {
    let (mut scene, _peer) = Scene::served(ListenOptions::default().high_water_mark(100).write_limit(100));
    scene.with(|socket| {
        let id = socket.id();
        assert_eq!(socket.forward(id), Ok(Backpressure::Room));
        assert_eq!(socket.write(&[0; 100]), Ok(Backpressure::Full));
        assert_eq!(socket.forward(id), Ok(Backpressure::Full), "and not refused");
        assert_eq!(socket.queued_bytes(), 100);
    });
}

#[test]
fn a_dead_peer_of_a_paused_socket_with_a_request_for_a_pipe_is_an_error_at_once() {
    for is_unread in [false, true] {
        let (mut scene, peer) = Scene::served(ListenOptions::default());
        scene.with(|socket| {
            socket.splice_next();
            socket.hold();
        });
        scene.expect(&[]);
        if is_unread {
            peer.send(b"unread");
            scene.expect(&[]);
        }
        peer.reset();
        if is_unread {
            scene.expect(&["peerended(reset)"]);
            scene.with(|socket| socket.release());
            scene.expect(&["spliced(6)", "data unread", "error reset by the peer", "close"]);
        } else {
            scene.expect(&["error reset by the peer", "close"]);
        }
        scene.rest();
    }
}

/// The bytes in the pipe were all that was unread, and they are passed on while it is paused.
#[test]
fn a_dead_paused_socket_whose_pipe_is_passed_on_fails_at_once() {
    for is_held in [false, true] {
        let network = Network::new(3);
        let mut reactor = Reactor::with_net(network.host(HERE));
        let options = ListenOptions::default().half_closed_timeout(None).ending_timeout(None);
        let listener = reactor.listen((HERE, 80), options).expect("a free port");
        let peer = network.peer(THERE);
        let (mut source, sink) =
            (Some(peer.connect(listener.addr).expect("begun")), peer.connect(listener.addr).expect("begun"));
        let (mut ids, mut lines) = (Vec::new(), Vec::new());
        for turn in 0..10 {
            while let Some((mut socket, event)) = reactor.next_before(network.now() + SECOND).expect("it continues") {
                match event {
                    Event::Connection => {
                        ids.push(socket.id());
                        socket.splice_next();
                    }
                    Event::Spliced(_) if is_held => socket.hold(),
                    Event::Spliced(_) => socket.pause(),
                    Event::PeerEnded(_) => assert_eq!(socket.forward(ids[1]), Ok(Backpressure::Room)),
                    _ => {}
                }
                lines.push(event.to_string().split([',', ':']).next().expect("a name").to_owned());
            }
            match turn {
                0 => source.as_ref().expect("it lives").send(b"some bytes"),
                1 => source.take().expect("it lives").reset(),
                _ => {}
            }
        }
        assert_eq!(sink.read(), b"some bytes");
        assert_eq!(lines[2..], ["data", "peer-ended by a reset", "error", "close"]);
    }
}

#[test]
fn a_dead_sink_with_kernel_pipes_is_an_error_at_once_and_its_counts_are_right() {
    let mut pair = Pair::new(ListenOptions::default());
    pair.stall(400_000);
    let died = pair.network.elapsed();
    pair.sink.take().expect("it lives").reset();
    pair.run(SECOND);
    let (at, ending) = pair.closes.first().expect("the sink is closed").clone();
    assert!(at < died + ms(100), "{at:?} {died:?}");
    assert!(ending.bytes_unsent > 50_000, "{ending}");
    assert_eq!(ending.bytes_written + ending.bytes_unsent, pair.forwarded as u64, "{ending}");
}

#[test]
fn a_dead_held_source_is_noticed_at_once() {
    let mut pair = Pair::new(ListenOptions::default().half_closed_timeout(None));
    pair.stall(400_000);
    pair.source.take().expect("it lives").reset();
    pair.run(SECOND);
    assert_eq!(pair.lines.last().map(String::as_str), Some("peer-ended by a reset"));
}

#[test]
fn a_call_of_a_kernel_pipe_that_lacks_memory_is_repeated() {
    for (call, errno) in [
        ("splice_in", Errno::NOBUFS),
        ("splice_in", Errno::NOMEM),
        ("splice_out", Errno::NOBUFS),
        ("splice_out", Errno::NOMEM),
        ("splice_out", Errno::INVAL),
        ("splice_in", Errno::INTR),
        ("splice_out", Errno::INTR),
    ] {
        let mut pair = Pair::new(ListenOptions::default());
        (0..5).for_each(|_| pair.faulty.once(call, errno));
        let stream = pattern(50_000);
        pair.source.as_ref().expect("it lives").send(&stream);
        let mut got = Vec::new();
        for _ in 0..10 {
            pair.run(ms(100));
            got.extend(pair.sink.as_ref().expect("it lives").read());
        }
        assert!(got.len() + pair.read == stream.len() && stream.starts_with(&got), "{call} {errno}: {}", got.len());
        assert!(pair.closes.is_empty() && pair.faulty.failures(call) > 0, "{call} {errno}: {:?}", pair.closes);
    }
}

#[test]
fn a_kernel_pipe_that_takes_a_few_bytes_at_a_time_keeps_their_order_and_their_end() {
    for bite in [1, 100, 1_000] {
        let mut pair = Pair::new(ListenOptions::default());
        pair.faulty.orders().bite = Some(bite);
        let stream = pattern(3_000 * bite.min(50));
        pair.source.as_ref().expect("it lives").send(&stream);
        pair.run(SECOND);
        pair.source.as_ref().expect("it lives").finish();
        let sink = pair.ids[1];
        pair.reactor.socket(sink).expect("it lives").end();
        let mut got = Vec::new();
        for _ in 0..100 {
            pair.run(ms(100));
            got.extend(pair.sink.as_ref().expect("it lives").read());
        }
        assert!(got == stream && pair.sink.as_ref().is_some_and(PeerSocket::has_fin), "{bite}: {}", got.len());
    }
}

#[test]
fn a_request_for_a_pipe_after_the_edge_and_one_that_a_buffer_replaces_lose_nothing() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.with(|socket| socket.pause());
    peer.send(b"0123");
    scene.expect(&[]);
    scene.with(|socket| {
        socket.splice_next();
        socket.fill(Vec::new(), 2).expect("it can be read");
        socket.resume();
    });
    scene.expect(&["filled", "data 23"]);
    scene.with(|socket| socket.splice_next());
    scene.expect(&[]);
    peer.send(b"45");
    scene.expect(&["spliced(2)", "data 45"]);
    scene.with(|socket| socket.splice_next());
    peer.finish();
    scene.expect(&["end"]);
    scene.with(|socket| socket.end());
    scene.expect(&["close"]);
    scene.rest();
}
