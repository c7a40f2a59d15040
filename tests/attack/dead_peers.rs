//! Peers that die while a program has paused reading for back-pressure: neither the documented loop
//! (pause at `Full`, resume at `Drain`) nor a pipe keeps anything of a dead connection.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use finale::sim::{Host, Network, PeerSocket, Script};
use finale::{
    Backpressure, ConnectOptions, ConnectionErrorKind, Ending, EndingKind, Event, ListenOptions, Pipes, Reactor,
    Socket, StopOptions, TimeoutKind,
};

use support::scene::{HERE, Scene, THERE};
use support::{Transcript, dial, ms, reset};

const SECOND: Duration = Duration::from_secs(1);

/// The documented loop, as an echo.
fn echo(socket: &mut Socket<'_>, event: &Event<'_>) {
    match event {
        Event::Data(bytes) => {
            let queue = socket.write(bytes);
            if queue == Ok(Backpressure::Full) {
                socket.pause();
            }
        }
        Event::Drain => socket.resume(),
        Event::End => socket.end(),
        _ => {}
    }
}

/// The same with a high-water mark that the program sets.
fn echo_with_a_mark_of_its_own(socket: &mut Socket<'_>, event: &Event<'_>) {
    match event {
        Event::Data(bytes) => {
            socket.write(bytes).expect("below the limit");
            if socket.queued_bytes() > 10_000 && socket.request_drain() {
                socket.pause();
            }
        }
        Event::Drain => socket.resume(),
        Event::End => socket.end(),
        _ => {}
    }
}

/// A peer that sends a lot, reads nothing, and is stalled after a second.
fn stalled() -> Script {
    Script::new().stop_reading().send(&vec![b'x'; 1_000_000]).wait(SECOND)
}

/// Serves peers that play this script. Returns when each `close` was delivered, and how it ended.
/// Fails after a minute.
fn play(
    options: ListenOptions,
    peers: usize,
    script: Script,
    handle: fn(&mut Socket<'_>, &Event<'_>),
) -> Vec<(Duration, Ending)> {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host(HERE));
    let listener = reactor.listen((HERE, 80), options).expect("a free port");
    let peer = network.peer(THERE);
    let _plays: Vec<_> = (0..peers).map(|_| peer.play(listener.addr, script.clone()).expect("begun")).collect();
    let (mut closes, until) = (Vec::new(), network.now() + 60 * SECOND);
    while closes.len() < peers
        && let Some((mut socket, event)) = reactor.next_before(until).expect("it continues")
    {
        match event {
            Event::Close(ending) => closes.push((network.elapsed(), ending.clone())),
            event => handle(&mut socket, &event),
        }
    }
    closes
}

/// All are closed within a second after the death of their peers, for this reason.
#[track_caller]
fn are_over(closes: &[(Duration, Ending)], peers: usize, death: Duration, cause: ConnectionErrorKind) {
    assert_eq!(closes.len(), peers, "after a minute they are still held");
    for (at, ending) in closes {
        let EndingKind::Failed(failure) = &ending.kind else { panic!("{ending}") };
        assert_eq!(failure.kind, cause, "{ending}");
        assert!(*at < death + SECOND, "the peer is dead since {death:?}, and it is over after {at:?}");
    }
}

#[test]
fn the_documented_loop_is_over_soon_after_a_reset() {
    for peers in [1, 20] {
        are_over(
            &play(ListenOptions::default(), peers, stalled().reset(), echo),
            peers,
            SECOND,
            ConnectionErrorKind::Reset,
        );
    }
}

#[test]
fn the_documented_loop_without_a_half_closed_limit_is_over_soon_after_a_reset() {
    let options = ListenOptions::default().half_closed_timeout(None);
    are_over(&play(options, 1, stalled().reset(), echo), 1, SECOND, ConnectionErrorKind::Reset);
}

#[test]
fn the_documented_loop_with_a_low_water_mark_is_over_soon_after_a_reset() {
    let options = ListenOptions::default().low_water_mark(64 * 1024);
    are_over(&play(options, 1, stalled().reset(), echo), 1, SECOND, ConnectionErrorKind::Reset);
}

#[test]
fn a_loop_with_a_mark_of_its_own_is_over_soon_after_a_reset() {
    are_over(
        &play(ListenOptions::default(), 1, stalled().reset(), echo_with_a_mark_of_its_own),
        1,
        SECOND,
        ConnectionErrorKind::Reset,
    );
}

/// A program that is killed: its kernel resets, since some bytes were unread.
#[test]
fn the_documented_loop_is_over_soon_after_a_close_over_unread_bytes() {
    are_over(&play(ListenOptions::default(), 1, stalled().close(), echo), 1, SECOND, ConnectionErrorKind::Reset);
}

#[test]
fn the_documented_loop_is_over_soon_after_the_kernel_gives_up_a_lost_machine() {
    let options = ListenOptions::default().user_timeout(5 * SECOND);
    let closes = play(options, 1, stalled().vanish(), echo);
    // The window was closed from the beginning, and then the probes are not answered.
    are_over(&closes, 1, 6 * SECOND, ConnectionErrorKind::TimedOut(TimeoutKind::Kernel));
}

/// The bytes that arrived before the death are not lost if the program does not hold them back.
#[test]
fn the_documented_loop_reads_what_arrived_before_the_reset() {
    let script = Script::new().stop_reading().send(&[b'x'; 150_000]).wait(SECOND).reset();
    let closes = play(ListenOptions::default(), 1, script, echo);
    are_over(&closes, 1, SECOND, ConnectionErrorKind::Reset);
    assert_eq!(closes[0].1.bytes_read, 150_000, "{}", closes[0].1);
}

/// Its unread byte keeps the connection; nothing that is written to it can leave.
#[test]
fn a_producer_that_writes_to_a_dead_connection_until_it_is_full_leaves_others_their_turns() {
    let produce = |socket: &mut Socket<'_>| {
        let pieces = (0..1000).take_while(|_| socket.write(&[b'x'; 32 * 1024]) == Ok(Backpressure::Room));
        assert!(pieces.count() < 100, "it is full at some time");
        socket.pause();
    };
    let mut scene = Scene::new();
    let peer = scene.serve(ListenOptions::default());
    // More than the two kernels hold.
    scene.with(|socket| {
        assert_eq!(socket.write(&vec![b'x'; 4 * 1024 * 1024]), Ok(Backpressure::Full));
        socket.pause();
    });
    peer.send(b"?");
    scene.run(ms(10));
    peer.reset();
    let (mut story, mut drains) = (Vec::new(), 0);
    while !story.last().is_some_and(|last: &String| last.starts_with("close")) {
        let (mut socket, event) = scene.reactor.next().expect("it continues").expect("the socket lives");
        story.push(event.to_string());
        if event == Event::Drain {
            drains += 1;
            if drains < 2 { produce(&mut socket) } else { socket.resume() }
        }
    }
    let shown: Vec<_> = story.iter().map(|line| line.split([':', ' ']).next().unwrap_or_default()).collect();
    assert_eq!(shown, ["drain", "peer-ended", "drain", "data,", "error", "close"], "{story:?}");
}

/// One reads on all the time, the other pauses at each full queue and never resumes.
#[test]
fn a_producer_that_never_stops_is_done_with_a_dead_connection() {
    for pauses in [false, true] {
        let produce = |socket: &mut Socket<'_>| {
            while socket.write(&[b'x'; 32 * 1024]) == Ok(Backpressure::Room) {}
            if pauses {
                socket.pause();
            }
        };
        let mut scene = Scene::new();
        let peer = scene.serve(ListenOptions::default());
        scene.with(produce);
        peer.send(&[b'?'; 200_000]);
        scene.network.advance(ms(10));
        peer.reset();
        let (begun, mut events) = (scene.network.now(), 0);
        loop {
            let (mut socket, event) = scene.reactor.next().expect("it continues").expect("the socket lives");
            match event {
                Event::Data(_) | Event::Drain => produce(&mut socket),
                Event::Close(_) => break,
                _ => {}
            }
            events += 1;
            assert!(events < 100_000, "{event:?}");
        }
        assert!(scene.network.now() - begun < SECOND, "{pauses}");
    }
}

#[test]
fn a_client_with_the_documented_loop_is_over_soon_after_a_reset() {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host(HERE));
    let listener = network.peer(THERE).listen((THERE, 80).into()).expect("a free port");
    let _play = listener.play(stalled().reset());
    reactor.connect((THERE, 80), ConnectOptions::default()).expect("an address");
    let (mut closes, until) = (Vec::new(), network.now() + 60 * SECOND);
    while let Some((mut socket, event)) = reactor.next_before(until).expect("it continues") {
        match event {
            Event::Close(ending) => closes.push((network.elapsed(), ending.clone())),
            event => echo(&mut socket, &event),
        }
    }
    are_over(&closes, 1, SECOND, ConnectionErrorKind::Reset);
}

#[test]
fn a_stop_is_over_soon_after_the_reset_of_its_last_peer_and_reports_the_reset() {
    for stops_at in [SECOND / 2, 2 * SECOND] {
        let network = Network::new(1);
        let mut reactor = Reactor::with_net(network.host(HERE));
        let listener = reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
        let _play = network.peer(THERE).play(listener.addr, stalled().reset()).expect("begun");
        let timer = reactor.set_timer(stops_at);
        let mut closes = Vec::new();
        while let Some((mut socket, event)) = reactor.next().expect("it continues") {
            match event {
                Event::Timer(id) => {
                    assert_eq!(id, timer);
                    reactor.stop_listener(listener.id, StopOptions::default()).expect("open");
                }
                Event::Close(ending) => closes.push((network.elapsed(), ending.clone())),
                event => echo(&mut socket, &event),
            }
        }
        are_over(&closes, 1, SECOND, ConnectionErrorKind::Reset);
        assert!(network.elapsed() < 3 * SECOND, "it has stopped after {:?}", network.elapsed());
    }
}

// --- pipes ---

fn was_reset(ending: &Ending) -> bool {
    matches!(&ending.kind, EndingKind::Failed(failure) if failure.kind == ConnectionErrorKind::Reset)
}

/// A proxy with one client and one backend, joined by pipes.
struct Proxy {
    network: Network,
    reactor: Reactor<Host>,
    pipes: Pipes,
    /// When each side was closed, and how it ended.
    closes: Vec<(Duration, Ending)>,
    client: Option<PeerSocket>,
    backend: Option<PeerSocket>,
}

const BACKEND: SocketAddr = SocketAddr::new(THERE, 90);

impl Proxy {
    fn joined(listen: ListenOptions, connect: ConnectOptions) -> Self {
        let network = Network::new(5);
        network.set_buffers(64 * 1024, 64 * 1024);
        let peer = network.peer(THERE);
        let mut reactor = Reactor::with_net(network.host(HERE));
        let listener = reactor.listen((HERE, 80), listen).expect("a free port");
        let backends = peer.listen(BACKEND).expect("a free port");
        let client = peer.connect(listener.addr).expect("begun");
        let mut pipes = Pipes::new();
        let until = network.now() + SECOND;
        while let Some((socket, event)) = reactor.next_before(until).expect("it continues") {
            if event == Event::Connection {
                let one = socket.id();
                let other = reactor.connect(BACKEND, connect.clone()).expect("an address");
                pipes.join(&mut reactor.context(), one, other).expect("TCP");
            }
        }
        reactor.close_listener(listener.id).expect("open");
        let backend = backends.accept().expect("the proxy connects");
        Self { network, reactor, pipes, closes: Vec::new(), client: Some(client), backend: Some(backend) }
    }

    fn run(&mut self, time: Duration) {
        let until = self.network.now() + time;
        while let Some((mut socket, event)) = self.reactor.next_before(until).expect("it continues") {
            self.pipes.handle(&mut socket, &event);
            if let Event::Close(ending) = event {
                self.closes.push((self.network.elapsed(), ending.clone()));
            }
        }
    }

    /// One side sends a lot, and reads nothing.
    fn stall(&mut self, from: fn(&Self) -> &Option<PeerSocket>) {
        from(self).as_ref().expect("connected").send(&[b'x'; 400_000]);
        self.run(SECOND);
    }

    /// The client or the backend dies. Both sides close in time: the dead one reports the reset,
    /// and the other is reset, since its stream was cut.
    #[track_caller]
    fn ends_after_the_death_of(mut self, dead: fn(&mut Self) -> &mut Option<PeerSocket>) {
        dead(&mut self).take().expect("connected").reset();
        let died = self.network.elapsed();
        self.run(40 * SECOND);
        assert_eq!(self.closes.len(), 2, "after forty seconds:\n{}", self.reactor.sockets());
        assert!(self.closes.iter().any(|(_, ending)| was_reset(ending)), "{:?}", self.closes);
        // Bytes that wait for the survivor have half a minute to be sent.
        assert!(self.closes.iter().all(|(at, _)| *at < died + 32 * SECOND), "{:?}", self.closes);
        self.network.advance(SECOND);
        let survivor = self.client.or(self.backend).expect("one of them lives");
        assert!(survivor.is_reset());
    }
}

/// Both with the default options, and without a limit on half-closed connections.
fn all_options() -> [(ListenOptions, ConnectOptions); 2] {
    let without =
        (ListenOptions::default().half_closed_timeout(None), ConnectOptions::default().half_closed_timeout(None));
    [(ListenOptions::default(), ConnectOptions::default()), without]
}

#[test]
fn a_pipe_does_not_hold_a_dead_client_of_a_stalled_backend() {
    for (listen, connect) in all_options() {
        let mut proxy = Proxy::joined(listen, connect);
        proxy.stall(|proxy| &proxy.client);
        proxy.ends_after_the_death_of(|proxy| &mut proxy.client);
    }
}

#[test]
fn a_pipe_does_not_hold_a_dead_backend_of_a_stalled_client() {
    for (listen, connect) in all_options() {
        let mut proxy = Proxy::joined(listen, connect);
        proxy.stall(|proxy| &proxy.backend);
        proxy.ends_after_the_death_of(|proxy| &mut proxy.backend);
    }
}

#[test]
fn a_pipe_does_not_hold_the_dead_reader_of_a_sender_that_is_paused_for_it() {
    for (listen, connect) in all_options() {
        let mut proxy = Proxy::joined(listen, connect);
        proxy.stall(|proxy| &proxy.backend);
        proxy.ends_after_the_death_of(|proxy| &mut proxy.client);
    }
}

#[test]
fn a_pipe_does_not_hold_a_pair_that_is_stalled_both_ways_when_one_dies() {
    for (listen, connect) in all_options() {
        let mut proxy = Proxy::joined(listen, connect);
        proxy.stall(|proxy| &proxy.client);
        proxy.stall(|proxy| &proxy.backend);
        proxy.ends_after_the_death_of(|proxy| &mut proxy.client);
    }
}

/// What the backend still sends can't leave, and is no reason to drop what waits for it.
#[test]
fn the_bytes_of_a_dead_source_are_passed_on_whatever_its_sink_sends() {
    let passed_on = |floods| {
        let mut proxy = Proxy::joined(ListenOptions::default(), ConnectOptions::default());
        proxy.stall(|proxy| &proxy.client);
        proxy.client.take().expect("connected").reset();
        for _ in 0..floods {
            proxy.backend.as_ref().expect("connected").send(&[b'y'; 128 * 1024]);
            proxy.run(ms(50));
        }
        let mut count = 0;
        for _ in 0..20 {
            count += proxy.backend.as_ref().expect("connected").read().len();
            proxy.run(ms(50));
        }
        count
    };
    assert!(passed_on(0) > 200_000, "what fills both kernels, and the queue");
    assert_eq!(passed_on(40), passed_on(0));
}

/// Drains while it is held count, too.
#[test]
fn a_producer_that_has_held_a_dead_connection_is_done_when_it_pauses_it() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    let fill = |socket: &mut Socket<'_>| while socket.write(&[b'x'; 32 * 1024]) == Ok(Backpressure::Room) {};
    scene.with(|socket| socket.hold());
    peer.send(&[b'?'; 1000]);
    scene.run(ms(10));
    peer.reset();
    scene.run(ms(10));
    for _ in 0..20 {
        scene.with(fill);
        scene.run(ms(30));
    }
    assert_eq!(scene.story.iter().filter(|line| *line == "drain").count(), 20, "{:?}", scene.story);
    scene.with(|socket| {
        socket.pause();
        fill(socket);
    });
    scene.story.clear();
    scene.expect(&["error reset by the peer", "close"]);
}

/// Each side of a stalled pipe in turn is unpiped after the death of its source, and continues.
#[test]
fn a_sink_that_is_parted_from_a_dead_source_has_no_deadline() {
    for parts_the_sink in [true, false] {
        let [_, (listen, connect)] = all_options();
        let mut proxy = Proxy::joined(listen, connect);
        proxy.stall(|proxy| &proxy.client);
        let dead = proxy.client.take().expect("connected");
        let dead_addr = dead.local_addr();
        dead.reset();
        proxy.run(SECOND);
        let sockets: Vec<_> =
            proxy.reactor.sockets().iter().map(|socket| (socket.peer == dead_addr, socket.id)).collect();
        let of = |dead| sockets.iter().find(|(is_dead, _)| *is_dead == dead).expect("it lives").1;
        let sink = of(false);
        proxy.pipes.unpipe(if parts_the_sink { sink } else { of(true) });
        proxy.run(100 * SECOND);
        assert!(proxy.closes.iter().all(|(_, ending)| was_reset(ending)), "{:?}", proxy.closes);
        let mut socket = proxy.reactor.socket(sink).expect("it lives on");
        socket.write(b"and more").expect("open");
        let backend = proxy.backend.as_ref().expect("connected");
        assert!(!backend.is_reset());
    }
}

/// Its stream is complete: the later death of its source is no reason to cut it.
#[test]
fn the_death_of_a_source_whose_end_was_passed_on_does_not_cut_what_its_sink_still_gets() {
    let [(listen, connect), _] = all_options();
    let mut proxy = Proxy::joined(listen, connect);
    let client = proxy.client.take().expect("connected");
    client.send(&[7; 150_000]);
    client.finish();
    proxy.run(SECOND);
    client.reset();
    proxy.run(SECOND);
    assert!(proxy.closes.iter().all(|(_, ending)| was_reset(ending)) && proxy.closes.len() == 1, "{:?}", proxy.closes);
    let backend = proxy.backend.take().expect("connected");
    let mut bytes = 0;
    for _ in 0..10 {
        bytes += backend.read().len();
        proxy.run(SECOND);
    }
    assert_eq!((bytes, backend.has_fin(), backend.is_reset()), (150_000, true, false));
}

// --- on the real network ---

/// The peers write until the kernels take no more, while `handle` serves them.
fn stall(story: &mut Transcript, peers: &mut [TcpStream], mut handle: impl FnMut(&mut Socket<'_>, &Event<'_>)) {
    let block = vec![b'x'; 65536];
    peers.iter().for_each(|peer| peer.set_nonblocking(true).expect("a socket"));
    let mut quiet = 0;
    while quiet < 3 {
        let mut sent = 0;
        for peer in &mut *peers {
            loop {
                match peer.write(&block) {
                    Ok(bytes) => sent += bytes,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        quiet = if sent == 0 { quiet + 1 } else { 0 };
        story.run_for(ms(10), &mut handle);
    }
}

#[test]
fn real_clients_of_the_documented_loop_are_over_soon_after_their_resets() {
    const PEERS: usize = 10;
    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default().send_buffer_size(64 * 1024).receive_buffer_size(64 * 1024));
    let mut peers: Vec<_> = (0..PEERS).map(|_| dial(addr)).collect();
    stall(&mut story, &mut peers, echo);
    peers.into_iter().for_each(reset);
    let (died, mut closes) = (Instant::now(), 0);
    while closes < PEERS && died.elapsed() < 2 * SECOND {
        story.run_for(ms(20), |socket, event| match event {
            Event::Close(ending) => {
                assert!(ending.had_error(), "{ending}");
                closes += 1;
            }
            event => echo(socket, event),
        });
    }
    assert_eq!(closes, PEERS, "{:?} after their resets, the others are still held", died.elapsed());
    story.rest();
}

#[test]
fn a_real_pipe_does_not_hold_a_dead_client_of_an_echoing_backend() {
    let backend = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let backend_addr = backend.local_addr().expect("bound");
    // It blocks in each write until the proxy reads, and until its connection is over.
    let echoing = std::thread::spawn(move || {
        let (stream, _) = backend.accept().expect("the proxy connects");
        let _ = std::io::copy(&mut &stream, &mut &stream);
        let _ = stream.shutdown(Shutdown::Both);
    });
    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default());
    let mut peers = [dial(addr)];
    let mut pipes = Pipes::new();
    let client = story.connection();
    let other = story.reactor.connect(backend_addr, ConnectOptions::default()).expect("an address");
    pipes.join(&mut story.reactor.context(), client, other).expect("TCP");
    stall(&mut story, &mut peers, |socket, event| {
        pipes.handle(socket, event);
    });
    let [peer] = peers;
    reset(peer);
    let (died, mut closes) = (Instant::now(), 0);
    while closes < 2 && died.elapsed() < 5 * SECOND {
        story.run_for(ms(20), |socket, event| {
            pipes.handle(socket, event);
            closes += u32::from(matches!(event, Event::Close(_)));
        });
    }
    assert_eq!(closes, 2, "{:?} after its death:\n{}", died.elapsed(), story.reactor.sockets());
    echoing.join().expect("no panic");
    story.rest();
}
