//! Pipes between two sockets of one reactor: half-closes, failures and back-pressure pass through.
//! On the simulated network.

use std::net::SocketAddr;
use std::time::Duration;

use finale::sim::{Faults, Host, Network, Peer, PeerListener, PeerSocket};
use finale::{ConnectOptions, Error, Event, ListenOptions, Listener, Pipes, Reactor, SocketId, UnixAddr};
use support::scene::{HERE, THERE};

const SECOND: Duration = Duration::from_secs(1);

/// A proxy: clients connect to port 80 of ours, and are joined with a backend at port 90 of theirs.
pub(crate) struct Proxy {
    pub(crate) network: Network,
    pub(crate) peer: Peer,
    pub(crate) reactor: Reactor<Host>,
    pub(crate) listener: Listener,
    pub(crate) backends: PeerListener,
    pub(crate) pipes: Pipes,
    pub(crate) closes: Vec<String>,
    connect: ConnectOptions,
    /// The most bytes that ever waited in one socket's queue.
    most_queued: usize,
    /// Bytes that were moved in the kernel.
    pub(crate) spliced: usize,
    /// Whether sockets may be in no pipe, and what these have received.
    pub(crate) collects: bool,
    pub(crate) collected: Vec<u8>,
}

const BACKEND: SocketAddr = SocketAddr::new(THERE, 90);

impl Proxy {
    pub(crate) fn new(network: Network) -> Self {
        Self::with(network, ListenOptions::default(), ConnectOptions::default())
    }

    fn with(network: Network, listen: ListenOptions, connect: ConnectOptions) -> Self {
        let peer = network.peer(THERE);
        let mut reactor = Reactor::with_net(network.host(HERE));
        let listener = reactor.listen((HERE, 80), listen).expect("a free port");
        let backends = peer.listen(BACKEND).expect("a free port");
        let (pipes, closes) = (Pipes::new(), Vec::new());
        Self {
            network,
            peer,
            reactor,
            listener,
            backends,
            pipes,
            closes,
            connect,
            most_queued: 0,
            spliced: 0,
            collects: false,
            collected: Vec::new(),
        }
    }

    /// A client, and the backend's end of what the proxy has opened for it.
    pub(crate) fn joined() -> (Self, PeerSocket, PeerSocket) {
        Self::joined_with(ListenOptions::default(), ConnectOptions::default())
    }

    pub(crate) fn joined_with(listen: ListenOptions, connect: ConnectOptions) -> (Self, PeerSocket, PeerSocket) {
        let mut proxy = Self::with(Network::new(5), listen, connect);
        proxy.network.set_buffers(64 * 1024, 64 * 1024);
        let client = proxy.peer.connect(proxy.listener.addr).expect("begun");
        proxy.run(SECOND);
        let backend = proxy.backends.accept().expect("the proxy connects");
        (proxy, client, backend)
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.network.now() + time;
        while let Some((mut socket, event)) = self.reactor.next_before(until).expect("it continues") {
            let is_ours = self.pipes.handle(&mut socket, &event);
            let sink = self.pipes.sink_of(socket.id()).and_then(|sink| socket.get(sink));
            self.most_queued = self.most_queued.max(sink.map_or(0, |sink| sink.queued_bytes()));
            match event {
                Event::Connection => {
                    let client = socket.id();
                    let backend = self.reactor.connect(BACKEND, self.connect.clone()).expect("begun");
                    self.pipes.join(&mut self.reactor.context(), client, backend).expect("TCP");
                }
                Event::Data(bytes) if self.collects && !is_ours => self.collected.extend_from_slice(bytes),
                Event::Spliced(count) => self.spliced += count,
                Event::Data(_) | Event::End | Event::Drain => assert!(is_ours || self.collects, "{event:?}"),
                Event::Close(ending) => self.closes.push(ending.to_string()),
                _ => {}
            }
        }
    }

    /// What a peer gets of what waits for it, reading once per second.
    pub(crate) fn read_all(&mut self, peer: &PeerSocket, seconds: usize) -> usize {
        let read_one = |_| {
            let bytes = peer.read().len();
            self.run(SECOND);
            bytes
        };
        (0..seconds).map(read_one).sum()
    }

    pub(crate) fn ids(&self) -> Vec<SocketId> {
        self.reactor.sockets().iter().map(|socket| socket.id).collect()
    }
}

#[test]
fn half_closes_pass_through_one_direction_after_the_other() {
    let (mut proxy, client, backend) = Proxy::joined();
    client.send(b"question");
    client.finish();
    proxy.run(SECOND);
    assert_eq!(backend.read(), b"question");
    assert!(backend.has_fin() && !client.has_fin(), "one direction has ended");
    backend.send(b"answer");
    proxy.run(SECOND);
    assert_eq!(client.read(), b"answer");
    backend.finish();
    proxy.run(SECOND);
    assert!(client.has_fin());
    assert!(proxy.closes.iter().all(|close| close.starts_with("clean and acknowledged")), "{:?}", proxy.closes);
    assert_eq!((proxy.closes.len(), proxy.reactor.len()), (2, 0));
}

#[test]
fn a_reset_of_either_side_is_a_reset_of_the_other() {
    let (mut proxy, client, backend) = Proxy::joined();
    client.reset();
    proxy.run(SECOND);
    assert!(backend.is_reset());
    let (mut other, client, backend) = Proxy::joined();
    backend.reset();
    other.run(SECOND);
    assert!(client.is_reset());
    assert_eq!((proxy.reactor.len(), other.reactor.len()), (0, 0));
}

#[test]
fn a_backend_that_refuses_is_a_reset_for_the_client() {
    let mut proxy = Proxy::new(Network::new(5));
    let client = proxy.peer.connect(proxy.listener.addr).expect("begun");
    client.send(b"eager");
    let elsewhere = proxy.peer.listen(SocketAddr::new(THERE, 91)).expect("a free port");
    std::mem::replace(&mut proxy.backends, elsewhere).close();
    proxy.run(SECOND);
    proxy.network.advance(SECOND);
    assert!(client.is_reset());
    assert_eq!(proxy.reactor.len(), 0);
}

#[test]
fn what_came_before_a_reset_is_given_to_the_kernel_first() {
    let (mut proxy, client, backend) = Proxy::joined();
    // More than the backend's window and the proxy's buffer take: some of it waits in the proxy's
    // own queue.
    client.send(&[b'x'; 300_000]);
    proxy.run(SECOND);
    client.reset();
    proxy.run(SECOND);
    assert!(!backend.is_reset(), "something still waits");
    let mut got = 0;
    while !backend.is_reset() {
        let bytes = backend.read().len();
        got += bytes;
        proxy.run(SECOND);
        assert!(bytes > 0 || backend.is_reset(), "it stands still after {got} bytes");
    }
    assert!(got > 64 * 1024, "{got}");
    assert_eq!(proxy.reactor.len(), 0);
}

#[test]
fn a_peer_that_reads_nothing_does_not_hold_a_socket_whose_other_side_is_gone() {
    let (mut proxy, client, backend) = Proxy::joined();
    client.send(&[b'x'; 300_000]);
    proxy.run(SECOND);
    client.reset();
    // The client's side is dead, with unread bytes: the backend has half a minute to take them.
    proxy.run(20 * SECOND);
    assert_eq!((proxy.reactor.len(), backend.is_reset()), (2, false), "it may still read");
    proxy.run(15 * SECOND);
    proxy.network.advance(SECOND);
    assert_eq!((proxy.reactor.len(), backend.is_reset()), (0, true));
}

#[test]
fn a_slow_reader_slows_the_sender_down_and_costs_the_high_water_mark() {
    let (mut proxy, client, backend) = Proxy::joined();
    const MUCH: usize = 5 << 20;
    client.send(&vec![b'x'; MUCH]);
    client.finish();
    proxy.run(SECOND);
    let mut got = backend.read().len();
    while !backend.has_fin() {
        proxy.run(SECOND);
        got += backend.read().len();
    }
    assert_eq!(got, MUCH, "not a byte is lost");
    let mark = 128 * 1024 + 64 * 1024;
    assert!((1..=mark).contains(&proxy.most_queued), "{} bytes waited", proxy.most_queued);
}

#[test]
fn a_backend_that_is_still_connecting_holds_its_client_back() {
    let mut proxy = Proxy::new(Network::new(5));
    proxy.network.set_reach(THERE, finale::sim::Reach::BlackHole);
    let client = proxy.peer.connect(proxy.listener.addr).expect("begun");
    client.send(&vec![b'x'; 5 << 20]);
    proxy.run(SECOND);
    assert!(proxy.most_queued <= 128 * 1024 + 64 * 1024);
    proxy.network.set_reach(THERE, finale::sim::Reach::Open);
    proxy.run(10 * SECOND);
    let backend = proxy.backends.accept().expect("a SYN was repeated");
    assert!(!backend.read().is_empty());
}

#[test]
fn a_socket_that_the_program_destroys_takes_the_other_along() {
    let (mut proxy, client, backend) = Proxy::joined();
    let id = proxy.ids()[0];
    proxy.reactor.socket(id).expect("it lives").destroy();
    proxy.run(SECOND);
    assert!(client.is_reset() && backend.is_reset());
}

#[test]
fn a_socket_that_was_taken_out_lives_on_by_itself() {
    let (mut proxy, client, backend) = Proxy::joined();
    let ids = proxy.ids();
    proxy.pipes.unpipe(ids[0]);
    assert_eq!((proxy.pipes.sink_of(ids[1]), proxy.pipes.source_of(ids[1])), (None, None));
    client.reset();
    proxy.run(SECOND);
    assert!(!backend.is_reset());
}

#[test]
fn one_way_carries_its_end_and_leaves_the_other_direction_to_the_program() {
    let network = Network::new(5);
    let peer = network.peer(THERE);
    let mut reactor = Reactor::with_net(network.host(HERE));
    let listener = reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let backends = peer.listen(BACKEND).expect("a free port");
    let client = peer.connect(listener.addr).expect("begun");
    client.send(b"one way");
    client.finish();
    let (mut pipes, mut back) = (Pipes::new(), Vec::new());
    let mut run = || {
        let until = network.now() + SECOND;
        while let Some((mut socket, event)) = reactor.next_before(until).expect("it continues") {
            if pipes.handle(&mut socket, &event) {
                continue;
            }
            match event {
                Event::Connection => {
                    let source = socket.id();
                    let sink = reactor.connect(BACKEND, ConnectOptions::default()).expect("begun");
                    pipes.pipe(&mut reactor.context(), source, sink).expect("TCP");
                }
                Event::Data(bytes) => back.extend_from_slice(bytes),
                _ => {}
            }
        }
    };
    run();
    let backend = backends.accept().expect("connected");
    backend.send(b"not carried");
    run();
    assert_eq!((backend.read(), back.as_slice(), client.read()), (b"one way".to_vec(), &b"not carried"[..], vec![]));
    assert!(backend.has_fin());
}

/// Under all network conditions, a stream that ends is complete.
#[test]
fn under_faults_a_stream_either_arrives_whole_or_is_cut_by_a_reset() {
    let faults =
        Faults { short_read: 0.3, short_write: 0.3, spurious: 0.3, late_edge: 0.2, interrupted: 0.2, ..Faults::none() };
    for seed in 0..200 {
        let network = Network::new(seed);
        network.set_buffers(3000 + 17 * seed as usize, 5000 + 13 * seed as usize);
        network.set_faults(faults);
        let mut proxy = Proxy::new(network);
        let client = proxy.peer.connect(proxy.listener.addr).expect("begun");
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n * 7 + n / 251) as u8).collect();
        client.send(&bytes);
        client.finish();
        proxy.run(SECOND);
        let backend = proxy.backends.accept().expect("the proxy connects");
        backend.send(&bytes);
        backend.finish();
        let (mut there, mut back) = (Vec::new(), Vec::new());
        for _ in 0..10_000 {
            proxy.run(Duration::from_millis(20));
            there.extend(backend.read());
            back.extend(client.read());
            if proxy.reactor.is_empty() {
                break;
            }
        }
        assert!(there == bytes && back == bytes, "seed {seed}: {} and {} bytes", there.len(), back.len());
        assert!(backend.has_fin() && client.has_fin(), "seed {seed}");
    }
}

/// A server that answers early and resets: what the client still sends must not cost it the answer.
#[test]
fn what_came_before_a_reset_arrives_though_the_other_side_goes_on_sending() {
    for is_said_first in [false, true] {
        let (mut proxy, client, backend) = Proxy::joined();
        backend.send(&[b'x'; 250_000]);
        proxy.run(SECOND);
        if is_said_first {
            client.send(b"still going on");
        }
        backend.reset();
        client.send(b"and on");
        proxy.run(SECOND);
        let got = proxy.read_all(&client, 20);
        // The proxy's queue and the kernel's buffers; the rest was with the backend's kernel.
        assert!(got > 190_000 && client.is_reset(), "{got}");
        assert_eq!(proxy.reactor.len(), 0);
    }
}

#[test]
fn a_stream_that_was_whole_before_a_reset_arrives_with_its_end() {
    let (mut proxy, client, backend) = Proxy::joined();
    client.send(&[b'x'; 150_000]);
    client.finish();
    proxy.run(SECOND);
    client.reset();
    proxy.run(SECOND);
    assert_eq!(proxy.read_all(&backend, 20), 150_000);
    assert!(backend.has_fin() && !backend.is_reset());
    backend.send(b"an answer for nobody");
    proxy.run(SECOND);
    assert!(backend.is_reset(), "and it learns so");
    assert_eq!(proxy.reactor.len(), 0);
}

#[test]
fn what_waits_below_a_low_water_mark_is_not_thrown_away() {
    let (mut proxy, client, backend) =
        Proxy::joined_with(ListenOptions::default(), ConnectOptions::default().low_water_mark(100_000));
    client.send(&[b'x'; 200_000]);
    proxy.run(SECOND);
    client.reset();
    proxy.run(SECOND);
    assert!(!backend.is_reset(), "something still waits");
    let got = proxy.read_all(&backend, 20);
    assert!(got > 130_000 && backend.is_reset(), "{got}");
}

#[test]
fn a_sink_that_closes_early_takes_its_source_along() {
    let (mut proxy, client, backend) =
        Proxy::joined_with(ListenOptions::default().allow_half_open(false), ConnectOptions::default());
    backend.send(&vec![b'x'; 1_000_000]);
    proxy.run(SECOND);
    client.finish();
    proxy.run(SECOND);
    proxy.read_all(&client, 20);
    assert!(client.has_fin(), "as it was asked for");
    assert!(!backend.is_reset(), "it may have to read what was said to it");
    proxy.run(40 * SECOND);
    assert!(backend.is_reset(), "but the rest is not taken");
    assert_eq!(proxy.reactor.len(), 0);
}

/// Both directions are complete: that one side closes by itself, as requested, must not cost the
/// other what waits for it.
#[test]
fn without_half_open_what_was_ended_arrives_whole() {
    let one_sided = ListenOptions::default().allow_half_open(false);
    let (mut proxy, client, backend) = Proxy::joined_with(one_sided, ConnectOptions::default());
    client.send(&[b'x'; 150_000]);
    client.finish();
    proxy.run(SECOND);
    assert_eq!(proxy.read_all(&backend, 20), 150_000);
    assert!(backend.has_fin() && !backend.is_reset());
    let (mut proxy, client, backend) =
        Proxy::joined_with(ListenOptions::default(), ConnectOptions::default().allow_half_open(false));
    client.send(b"question");
    proxy.run(SECOND);
    backend.send(&[b'x'; 150_000]);
    backend.finish();
    proxy.run(SECOND);
    assert_eq!(proxy.read_all(&client, 20), 150_000);
    assert!(client.has_fin() && !client.is_reset());
}

#[test]
fn a_cut_stream_does_not_look_whole_to_a_peer_that_has_finished() {
    let one_sided = ListenOptions::default().allow_half_open(false);
    let (mut proxy, client, backend) = Proxy::joined_with(one_sided, ConnectOptions::default());
    backend.send(&[b'x'; 250_000]);
    proxy.run(SECOND);
    backend.reset();
    proxy.run(SECOND);
    client.finish();
    proxy.run(SECOND);
    let got = proxy.read_all(&client, 20);
    assert!(got < 250_000 && client.is_reset(), "{got}");
}

#[test]
fn a_backend_whose_client_has_gone_before_it_was_connected_gets_what_the_client_has_said() {
    let mut proxy =
        Proxy::with(Network::new(5), ListenOptions::default().allow_half_open(false), ConnectOptions::default());
    proxy.network.set_reach(THERE, finale::sim::Reach::BlackHole);
    let client = proxy.peer.connect(proxy.listener.addr).expect("begun");
    client.send(b"hello");
    client.finish();
    proxy.run(SECOND / 2);
    assert!(client.has_fin(), "it has gone");
    proxy.network.set_reach(THERE, finale::sim::Reach::Open);
    proxy.run(10 * SECOND);
    let backend = proxy.backends.accept().expect("a SYN was repeated");
    assert!(backend.read() == b"hello" && backend.has_fin());
    backend.finish();
    proxy.run(SECOND);
    assert_eq!(proxy.reactor.len(), 0);
}

/// A program may pause a socket for reasons of its own, also while the pipe holds it.
#[test]
fn a_pause_of_the_program_outlives_a_drain_and_a_resume_ends_it() {
    let (mut proxy, client, backend) = Proxy::joined();
    let source = proxy.ids()[0];
    client.send(&[b'x'; 1_000_000]);
    proxy.run(SECOND);
    assert!(proxy.reactor.socket(source).expect("it lives").is_paused(), "its sink is full");
    proxy.reactor.socket(source).expect("it lives").pause();
    let got = proxy.read_all(&backend, 20);
    assert!((64 * 1024..=400_000).contains(&got), "only what had been read: {got}");
    proxy.reactor.socket(source).expect("it lives").resume();
    assert_eq!(got + proxy.read_all(&backend, 40), 1_000_000);
}

/// A limit on the rate of a source, as a program makes it of pauses.
#[test]
fn a_source_that_is_resumed_while_its_sink_is_full_does_not_fill_it_further() {
    let (mut proxy, client, backend) =
        Proxy::joined_with(ListenOptions::default(), ConnectOptions::default().write_limit(200_000));
    client.send(&[b'x'; 1_000_000]);
    let source = proxy.ids()[0];
    for _ in 0..10 {
        proxy.run(SECOND);
        proxy.reactor.socket(source).expect("it lives").pause();
        proxy.reactor.socket(source).expect("it lives").resume();
    }
    assert_eq!(proxy.read_all(&backend, 40), 1_000_000);
}

#[test]
fn a_side_that_the_program_has_paused_does_not_outlive_the_other() {
    for is_paused in [false, true] {
        let (mut proxy, client, backend) = Proxy::joined();
        backend.send(&[b'x'; 250_000]);
        proxy.run(SECOND);
        if is_paused {
            let side = proxy.ids()[0];
            proxy.reactor.socket(side).expect("it lives").pause();
        }
        backend.reset();
        proxy.run(SECOND);
        assert!(proxy.read_all(&client, 20) > 100_000 && client.is_reset(), "what had come before arrives");
        assert_eq!(proxy.reactor.len(), 0);
    }
}

#[test]
fn a_source_that_was_held_for_a_sink_that_is_replaced_continues_with_the_new_one() {
    let (mut proxy, client, old) = Proxy::joined();
    client.send(&[b'x'; 1_000_000]);
    proxy.run(SECOND);
    let source = proxy.ids()[0];
    let sink = proxy.reactor.connect(BACKEND, ConnectOptions::default()).expect("begun");
    proxy.pipes.join(&mut proxy.reactor.context(), source, sink).expect("TCP");
    proxy.run(SECOND);
    let new = proxy.backends.accept().expect("it connects");
    // The old sink is in no pipe any more, and what its peer sends is not passed on.
    proxy.collects = true;
    let got = proxy.read_all(&new, 40);
    assert_eq!(got + proxy.read_all(&old, 20), 1_000_000);
    old.send(b"late");
    proxy.run(SECOND);
    assert_eq!((client.read(), proxy.collected.as_slice()), (vec![], &b"late"[..]));
    old.reset();
    proxy.run(SECOND);
    assert!(!client.is_reset() && !new.is_reset());
}

/// Linux has no reset for a Unix domain socket.
#[test]
fn a_pipe_into_a_unix_domain_socket_is_refused_until_the_program_permits_it() {
    let (mut proxy, client, _backend) = Proxy::joined();
    let client_side = proxy.ids()[0];
    let at = UnixAddr::path("/run/app.sock");
    let machine = proxy.network.peer(HERE);
    let backends = machine.listen_unix(&at, &ListenOptions::default()).expect("a new name");
    let sink = proxy.reactor.connect(at, ConnectOptions::default()).expect("begun");
    for situation in ["before it is connected", "once it is connected"] {
        let mut context = proxy.reactor.context();
        assert!(context.socket(sink).is_some_and(|sink| sink.is_unix()), "{situation}");
        assert!(context.socket(client_side).is_some_and(|client| !client.is_unix()), "{situation}");
        let refused = Err(Error::UnixSink);
        assert_eq!(proxy.pipes.join(&mut context, client_side, sink), refused, "{situation}");
        assert_eq!(proxy.pipes.join(&mut context, sink, client_side), refused, "{situation}");
        assert_eq!(proxy.pipes.pipe(&mut context, client_side, sink), refused, "{situation}");
        assert_eq!(proxy.pipes.source_of(sink), None, "a refused call changes nothing");
        assert_eq!(Pipes::new().pipe(&mut context, sink, client_side), Ok(()), "the other direction can be cut");
        proxy.run(SECOND);
    }
    proxy.pipes = Pipes::new().allow_unix_sinks(true);
    proxy.pipes.join(&mut proxy.reactor.context(), client_side, sink).expect("permitted");
    client.send(b"half of it");
    proxy.run(SECOND);
    client.reset();
    proxy.run(SECOND);
    let backend = backends.accept().expect("connected");
    assert_eq!((backend.read(), backend.has_fin(), backend.is_reset()), (b"half of it".to_vec(), true, false));
}

#[test]
fn a_client_of_a_unix_domain_socket_is_a_sink_too() {
    let mut proxy = Proxy::new(Network::new(5));
    let at = UnixAddr::path("/run/front.sock");
    proxy.reactor.listen(at.clone(), ListenOptions::default()).expect("a new name");
    let _client = proxy.network.peer(HERE).connect_unix(&at).expect("it listens");
    let until = proxy.network.now() + SECOND;
    while let Some((socket, event)) = proxy.reactor.next_before(until).expect("it continues") {
        if let Event::Connection = event {
            let client = socket.id();
            let backend = proxy.reactor.connect(BACKEND, ConnectOptions::default()).expect("begun");
            let joined = proxy.pipes.join(&mut proxy.reactor.context(), client, backend);
            assert_eq!(joined, Err(Error::UnixSink));
            return;
        }
    }
    panic!("no connection");
}

/// What waits for a sink whose source has failed is sent for half a minute, however long the
/// connection of the sink could live.
#[test]
fn a_sink_that_takes_nothing_does_not_outlive_its_failed_source_by_more_than_half_a_minute() {
    let forever = ConnectOptions::default().half_closed_timeout(None).ending_timeout(None);
    let (mut proxy, client, backend) = Proxy::joined_with(ListenOptions::default(), forever);
    client.send(&[b'x'; 200_000]);
    proxy.run(SECOND);
    let source = proxy.ids()[0];
    assert!(!proxy.reactor.socket(source).expect("it lives").is_paused(), "everything was read");
    client.reset();
    proxy.run(20 * SECOND);
    assert_eq!((proxy.reactor.len(), backend.is_reset()), (1, false), "it may still read");
    proxy.run(15 * SECOND);
    assert_eq!((proxy.reactor.len(), backend.is_reset()), (0, true));
}

/// A server that reads on only when its answer was taken, as in blocking code, gets what came
/// before the reset: its answer has no destination any more, and is read and dropped.
#[test]
fn a_sink_that_was_held_for_its_failed_source_is_read_on() {
    let (mut proxy, client, backend) = Proxy::joined();
    client.send(&[b'x'; 200_000]);
    backend.send(&[b'y'; 600_000]);
    proxy.run(SECOND);
    let [source, sink] = [0, 1].map(|at| proxy.ids()[at]);
    assert!(!proxy.reactor.socket(source).expect("it lives").is_paused(), "everything was read");
    assert!(proxy.reactor.socket(sink).expect("it lives").is_paused(), "the client takes nothing");
    client.reset();
    let mut got = 0;
    for _ in 0..20 {
        proxy.run(SECOND);
        if backend.is_acknowledged() {
            got += backend.read().len();
        }
    }
    // The reset overtakes what is still in our kernel.
    assert!(got > 120_000 && backend.is_reset(), "{got}");
}
