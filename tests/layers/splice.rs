//! Pipes whose bulk is moved in the kernel: nothing is lost, out of order or left over. On the
//! simulated network, whose faults decide how much a kernel pipe takes, and on the real one.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use finale::sim::{Faults, Network};
use finale::{ConnectOptions, Error, Event, ListenOptions, Pipes, Reactor, Socket};
use proptest::prelude::*;
use support::scene::{HERE, THERE};

use crate::pipe::Proxy;

const SECOND: Duration = Duration::from_secs(1);

/// A stream that differs at each place, for a while.
pub(crate) fn bytes(count: usize) -> Vec<u8> {
    (0..count as u32).map(|n| (n * 7 + n / 251) as u8).collect()
}

// --- on the simulated network ---

#[test]
fn long_streams_are_moved_in_the_kernel_and_short_messages_are_copied() {
    let (mut proxy, client, backend) = Proxy::joined();
    for _ in 0..20 {
        client.send(&[b'x'; 64]);
        proxy.run(SECOND);
    }
    assert_eq!((backend.read().len(), proxy.spliced), (20 * 64, 0));
    let stream = bytes(1_000_000);
    client.send(&stream);
    client.finish();
    let mut got = Vec::new();
    while !backend.has_fin() {
        proxy.run(SECOND);
        got.extend(backend.read());
    }
    assert!(got == stream && proxy.spliced > 500_000, "{} of {} bytes were spliced", proxy.spliced, got.len());
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1..100_usize, 1..5_000_usize, 20_000..120_000_usize], 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        max_shrink_iters: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_stream_in_any_pieces_arrives_whole_and_a_cut_one_arrives_in_part_and_is_cut(
        seed in any::<u64>(),
        pieces in pieces(),
        buffers in (2_000..200_000_usize, 2_000..200_000_usize),
        fault in prop_oneof![Just(0.0), 0.0..0.5_f64],
        reads_every in 1..30_u64,
        is_cut in any::<bool>(),
    ) {
        let network = Network::new(seed);
        network.set_buffers(buffers.0, buffers.1);
        network.set_faults(Faults { short_read: fault, short_write: fault, late_edge: fault, ..Faults::none() });
        let mut proxy = Proxy::new(network);
        let client = proxy.peer.connect(proxy.listener.addr).expect("begun");
        proxy.run(SECOND);
        let backend = proxy.backends.accept().expect("the proxy connects");
        let stream = bytes(pieces.iter().sum());
        let (mut sent, mut got, mut client) = (0, Vec::new(), Some(client));
        for (step, piece) in pieces.iter().enumerate() {
            client.as_ref().expect("it sends").send(&stream[sent..sent + piece]);
            sent += piece;
            proxy.run(Duration::from_millis(5));
            if (step as u64).is_multiple_of(reads_every) {
                got.extend(backend.read());
            }
        }
        match is_cut {
            true => client.take().expect("it lives").reset(),
            false => client.as_ref().expect("it lives").finish(),
        }
        for _ in 0..2_000 {
            proxy.run(Duration::from_millis(reads_every));
            got.extend(backend.read());
            if backend.has_fin() || backend.is_reset() {
                break;
            }
        }
        prop_assert!(stream.starts_with(&got), "{} bytes are not the beginning of the stream", got.len());
        prop_assert_eq!((backend.has_fin(), backend.is_reset()), (!is_cut, is_cut));
        prop_assert!(is_cut || got == stream, "{} of {} bytes", got.len(), stream.len());
    }
}

/// A program that requests each read in a kernel pipe: what it gets of a client that sends this
/// stream and then acts.
fn spliced_server(
    stream: &[u8],
    faults: Faults,
    then: impl FnOnce(finale::sim::PeerSocket),
    mut handle: impl FnMut(&mut Socket<'_>, &Event<'_>),
) -> (Vec<u8>, Vec<String>) {
    let network = Network::new(3);
    network.set_faults(faults);
    let mut reactor = Reactor::with_net(network.host(HERE));
    let listener = reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let client = network.peer(THERE).connect(listener.addr).expect("begun");
    client.send(stream);
    let (mut then, mut data, mut lines) = (Some((then, client)), Vec::new(), Vec::new());
    for _ in 0..100 {
        let until = network.now() + SECOND;
        while let Some((mut socket, event)) = reactor.next_before(until).expect("it continues") {
            socket.splice_next();
            handle(&mut socket, &event);
            match event {
                Event::Data(bytes) => data.extend_from_slice(bytes),
                Event::End => socket.end(),
                _ => {}
            }
            let name = event.to_string().split([',', ':']).next().expect("a name").to_owned();
            if lines.last() != Some(&name) {
                lines.push(name);
            }
        }
        if let Some((then, client)) = then.take() {
            then(client);
        }
    }
    (data, lines)
}

#[test]
fn bytes_in_a_kernel_pipe_that_are_not_passed_on_are_delivered_as_data() {
    let stream = bytes(300_000);
    for fault in [0.0, 0.4] {
        let faults = Faults { short_read: fault, ..Faults::none() };
        let mut spliced = 0;
        let (data, lines) = spliced_server(
            &stream,
            faults,
            |client| client.finish(),
            |socket, event| {
                if let Event::Spliced(count) = event {
                    spliced += count;
                    assert!(socket.bytes_read() >= *count as u64);
                    assert_eq!(socket.fill(Vec::new(), 10), Err(Vec::new()), "not before they are delivered");
                }
            },
        );
        assert!(data == stream && spliced > 100_000, "{} bytes, {spliced} were in a pipe", data.len());
        assert_eq!(lines, ["connection", "data", "end", "close"]);
    }
}

#[test]
fn a_paused_socket_keeps_the_bytes_in_a_kernel_pipe_and_delivers_them_before_the_error() {
    let mut count = 0;
    let (data, lines) = spliced_server(
        &bytes(5_000),
        Faults::none(),
        |client| client.reset(),
        |socket, event| match event {
            Event::Spliced(bytes) => {
                count += bytes;
                socket.pause();
            }
            Event::PeerEnded(_) => socket.resume(),
            _ => {}
        },
    );
    assert!(data == bytes(5_000) && count == 5_000);
    assert_eq!(lines, ["connection", "data", "peer-ended by a reset", "data", "error", "close"]);
}

#[test]
fn discard_drops_the_bytes_in_a_kernel_pipe() {
    let mut spliced = 0;
    let (data, lines) = spliced_server(
        &bytes(300_000),
        Faults::none(),
        |client| client.finish(),
        |socket, event| {
            if let Event::Spliced(_) = event {
                socket.discard();
                socket.splice_next();
                spliced += 1;
            }
        },
    );
    assert!(data.is_empty() && spliced == 1);
    assert_eq!(lines, ["connection", "data", "end", "close"]);
}

#[test]
fn a_request_for_a_kernel_pipe_takes_no_buffer_of_the_program_and_is_for_one_read() {
    let mut filled = Vec::new();
    let (data, _) = spliced_server(
        &bytes(300_000),
        Faults::none(),
        |client| client.finish(),
        |socket, event| match event {
            Event::Connection => socket.fill(Vec::new(), 1_000).expect("it can be read"),
            // The request is made before this.
            Event::Filled => filled = socket.take_filled().expect("it is full"),
            _ => {}
        },
    );
    assert!(filled == bytes(1_000) && data == bytes(300_000)[1_000..]);

    let mut spliced_first = 0;
    for seed in 0..50 {
        let network = Network::new(seed);
        network.set_faults(Faults { short_read: 0.8, ..Faults::none() });
        let mut reactor = Reactor::with_net(network.host(HERE));
        let listener = reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
        let client = network.peer(THERE).connect(listener.addr).expect("begun");
        client.send(&bytes(100_000));
        let (mut spliced, mut read) = (0, 0);
        while let Some((mut socket, event)) = reactor.next_before(network.now() + SECOND).expect("it continues") {
            match event {
                Event::Connection => socket.splice_next(),
                Event::Spliced(count) if read == 0 => spliced = count,
                Event::Data(bytes) => read += bytes.len(),
                _ => panic!("{event}"),
            }
        }
        assert_eq!(read, 100_000);
        spliced_first += usize::from(spliced > 0);
    }
    assert!((10..50).contains(&spliced_first), "{spliced_first}");
}

#[test]
fn bytes_in_a_kernel_pipe_come_in_pieces_of_the_receive_buffer() {
    let network = Network::new(3);
    let mut reactor = Reactor::with_net(network.host(HERE));
    reactor.set_receive_buffer(1_000).expect("a size that is allowed");
    let listener = reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let client = network.peer(THERE).connect(listener.addr).expect("begun");
    client.send(&bytes(10_500));
    let (mut data, mut lines) = (Vec::new(), Vec::new());
    while let Some((mut socket, event)) = reactor.next_before(network.now() + SECOND).expect("it continues") {
        match event {
            Event::Connection => socket.splice_next(),
            Event::Data(bytes) => data.extend_from_slice(bytes),
            _ => {}
        }
        lines.push(event.to_string());
    }
    assert!(data == bytes(10_500), "{lines:?}");
    assert!(lines[1].ends_with("in a kernel pipe") && lines.len() >= 12, "{lines:?}");
}

/// The bytes of the first read go to the sink, and the next are the program's again.
#[test]
fn a_request_that_was_fulfilled_and_passed_on_is_for_one_read() {
    let network = Network::new(3);
    let mut reactor = Reactor::with_net(network.host(HERE));
    let listener = reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let client = network.peer(THERE).connect(listener.addr).expect("begun");
    let mut lines = Vec::new();
    for part in [&b"first"[..], b"second"] {
        client.send(part);
        while let Some((mut socket, event)) = reactor.next_before(network.now() + SECOND).expect("it continues") {
            let id = socket.id();
            match event {
                Event::Connection => socket.splice_next(),
                Event::Spliced(_) => drop(socket.forward(id).expect("it is open")),
                _ => {}
            }
            lines.push(format!("{event:?}"));
        }
    }
    assert_eq!(lines, ["Connection", "Spliced(5)", &format!("{:?}", Event::Data(b"second"))]);
    assert_eq!(client.read(), b"first");
}

#[test]
fn bytes_that_the_sink_refuses_are_delivered_as_data() {
    let mut elsewhere = Reactor::with_net(Network::new(9).host(HERE));
    let unknown = elsewhere.connect((THERE, 80), ConnectOptions::default()).expect("an address");
    let mut refused = 0;
    let (data, _) = spliced_server(
        &bytes(5_000),
        Faults::none(),
        |client| client.finish(),
        |socket, event| {
            if let Event::Spliced(_) = event {
                assert_eq!(socket.forward(unknown), Err(Error::Gone));
                let id = socket.id();
                socket.end();
                assert_eq!(socket.forward(id), Err(Error::WriteAfterEnd));
                refused += 1;
            }
        },
    );
    assert!(data == bytes(5_000) && refused > 0);
}

#[test]
fn a_socket_that_leaves_its_pipe_in_a_long_stream_loses_nothing() {
    let (mut proxy, client, backend) = Proxy::joined();
    let stream = bytes(600_000);
    client.send(&stream);
    proxy.run(SECOND);
    let mut got = backend.read();
    proxy.run(SECOND);
    let source = proxy.ids()[0];
    proxy.pipes.unpipe(source);
    proxy.reactor.socket(source).expect("it lives").release();
    client.finish();
    proxy.collects = true;
    for _ in 0..20 {
        proxy.run(SECOND);
        got.extend(backend.read());
    }
    assert!(got.len() > 100_000 && proxy.spliced > 100_000 && proxy.collected.len() > 100_000);
    got.append(&mut proxy.collected);
    assert!(got == stream, "{} bytes", got.len());
}

#[test]
fn a_socket_that_is_joined_with_itself_echoes_a_long_stream() {
    let network = Network::new(5);
    network.set_buffers(64 * 1024, 64 * 1024);
    let mut reactor = Reactor::with_net(network.host(HERE));
    let listener = reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let client = network.peer(THERE).connect(listener.addr).expect("begun");
    let stream = bytes(2_000_000);
    client.send(&stream);
    client.finish();
    let (mut pipes, mut got, mut most_queued, mut spliced) = (Pipes::new(), Vec::new(), 0, 0);
    while !client.has_fin() && network.elapsed() < 600 * SECOND {
        let until = network.now() + Duration::from_millis(20);
        while let Some((mut socket, event)) = reactor.next_before(until).expect("it continues") {
            pipes.handle(&mut socket, &event);
            most_queued = most_queued.max(socket.queued_bytes());
            match event {
                Event::Connection => {
                    let id = socket.id();
                    pipes.join(&mut socket.context(), id, id).expect("TCP");
                }
                Event::Spliced(count) => spliced += count,
                _ => {}
            }
        }
        got.extend(client.read());
    }
    assert!(got == stream && spliced > 1_000_000, "{} bytes, {spliced} spliced", got.len());
    assert!(most_queued <= 192 * 1024, "{most_queued} bytes waited");
}

/// Also in the handler of the sink itself, whose writes wait in a buffer that all sockets share.
#[test]
fn what_a_program_writes_keeps_its_place_among_bytes_in_kernel_pipes() {
    let stream = bytes(400_000);
    for seed in 0..20 {
        let network = Network::new(seed);
        network.set_buffers(20_000, 30_000);
        network.set_faults(Faults { short_write: 0.5, ..Faults::none() });
        let mut reactor = Reactor::with_net(network.host(HERE));
        let listener = reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
        let client = network.peer(THERE).connect(listener.addr).expect("begun");
        client.send(&stream);
        client.finish();
        let (mut pipes, mut read, mut spliced, mut expected, mut got) = (Pipes::new(), 0, 0, Vec::new(), Vec::new());
        while !client.has_fin() && network.elapsed() < 600 * SECOND {
            let until = network.now() + Duration::from_millis(20);
            while let Some((mut socket, event)) = reactor.next_before(until).expect("it continues") {
                let count = match event {
                    Event::Connection => {
                        let id = socket.id();
                        pipes.join(&mut socket.context(), id, id).expect("TCP");
                        0
                    }
                    Event::Data(bytes) => bytes.len(),
                    Event::Spliced(count) => count,
                    _ => 0,
                };
                let (before, after) = (format!("<{count}"), format!("{count}>"));
                if count > 0 {
                    socket.write(before.as_bytes()).expect("open");
                }
                pipes.handle(&mut socket, &event);
                if count > 0 {
                    socket.write(after.as_bytes()).expect("open");
                    expected.extend([before.as_bytes(), &stream[read..read + count], after.as_bytes()].concat());
                    spliced += usize::from(matches!(event, Event::Spliced(_)));
                    read += count;
                }
            }
            got.extend(client.read());
        }
        assert!(got == expected && spliced > 5, "seed {seed}: {} bytes, {spliced} spliced", got.len());
    }
}

// --- on the real network ---

/// Runs the proxy of `Pipes` until this many sockets are closed. If it stands still, dropping the
/// reactor ends the threads of the peers.
pub(crate) fn run_proxy(mut reactor: Reactor, back: SocketAddr, closes: usize) {
    let (mut pipes, mut closed) = (Pipes::new(), 0);
    // Twenty megabytes in small reads take half a minute if the machine is busy.
    let guard = Instant::now() + Duration::from_secs(120);
    while closed < closes {
        let (mut socket, event) = reactor.next_before(guard).expect("it continues").expect("it ends");
        if pipes.handle(&mut socket, &event) {
            continue;
        }
        match event {
            Event::Connection => {
                let client = socket.id();
                let backend = reactor.connect(back, ConnectOptions::default()).expect("an address");
                pipes.join(&mut reactor.context(), client, backend).expect("TCP");
            }
            Event::Close(_) => closed += 1,
            _ => {}
        }
    }
}

/// What a peer reads up to the end or the error, in large and small pieces.
pub(crate) fn read_slowly(mut stream: &TcpStream, is_slow: bool) -> (Vec<u8>, io::Result<()>) {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 100_000]);
    loop {
        let room = if is_slow && all.len() % 3 == 0 { 777 } else { buffer.len() };
        match stream.read(&mut buffer[..room]) {
            Ok(0) => return (all, Ok(())),
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) => return (all, Err(error)),
        }
        if is_slow {
            thread::yield_now();
        }
    }
}

pub(crate) fn listening() -> (Reactor, SocketAddr, TcpListener) {
    let mut reactor = Reactor::new().expect("epoll");
    let front = reactor.listen("127.0.0.1:0", ListenOptions::default()).expect("a free port").addr.ip().expect("IP");
    (reactor, front, TcpListener::bind("127.0.0.1:0").expect("a free port"))
}

#[test]
fn long_streams_in_both_directions_with_a_slow_reader_and_half_closes_arrive_whole() {
    let (reactor, front, backend) = listening();
    let back = backend.local_addr().expect("bound");
    let (question, answer) = (bytes(20_000_000), bytes(12_345_678));
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (mut stream, _) = backend.accept().expect("the proxy connects");
            let (got, end) = read_slowly(&stream, true);
            end.expect("an end");
            stream.write_all(&answer).expect("it reads");
            got
        });
        let client = scope.spawn(|| {
            let mut stream = TcpStream::connect(front).expect("it listens");
            stream.write_all(&question).expect("it reads");
            stream.shutdown(Shutdown::Write).expect("open");
            read_slowly(&stream, false)
        });
        run_proxy(reactor, back, 2);
        assert!(server.join().expect("no panic") == question);
        let (got, end) = client.join().expect("no panic");
        assert!(got == answer && end.is_ok());
    });
}

#[test]
fn an_urgent_byte_in_a_long_stream_stops_nothing() {
    let (reactor, front, backend) = listening();
    let back = backend.local_addr().expect("bound");
    let stream = bytes(3_000_000);
    thread::scope(|scope| {
        let server = scope.spawn(|| read_slowly(&backend.accept().expect("the proxy connects").0, false));
        scope.spawn(|| {
            let client = socket2::Socket::from(TcpStream::connect(front).expect("it listens"));
            let (before, after) = stream.split_at(1_500_000);
            (&client).write_all(before).expect("it reads");
            client.send_out_of_band(b"!").expect("it is open");
            (&client).write_all(after).expect("it reads");
            client.shutdown(Shutdown::Write).expect("open");
            while (&client).read(&mut [0; 10]).is_ok_and(|count| count > 0) {}
        });
        run_proxy(reactor, back, 2);
        let (got, end) = server.join().expect("no panic");
        assert!(got == stream && end.is_ok(), "{} bytes, {end:?}", got.len());
    });
}

#[test]
fn a_stream_that_is_reset_in_the_middle_is_a_reset_of_the_other_side() {
    let (reactor, front, backend) = listening();
    let back = backend.local_addr().expect("bound");
    let stream = bytes(8_000_000);
    thread::scope(|scope| {
        let server = scope.spawn(|| read_slowly(&backend.accept().expect("the proxy connects").0, false));
        scope.spawn(|| {
            let mut client = TcpStream::connect(front).expect("it listens");
            client.write_all(&stream).expect("it reads");
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("an option");
        });
        run_proxy(reactor, back, 2);
        let (got, end) = server.join().expect("no panic");
        assert!(stream.starts_with(&got), "{} bytes", got.len());
        assert_eq!(end.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
    });
}
