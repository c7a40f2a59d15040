//! How many descriptors the kernel pipes of a reactor use, and what happens without them.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use finale::{ConnectOptions, Event, Pipes, Reactor};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::alone::alone;
use support::descriptors;

use crate::splice::{bytes, listening, read_slowly, run_proxy};

/// Clients that send much to backends that read nothing, and the proxy after each had its share.
fn stalled(count: usize) -> (Reactor, Vec<TcpStream>) {
    let (mut reactor, front, backend) = listening();
    let back = backend.local_addr().expect("bound");
    backend.set_nonblocking(true).expect("open");
    let (mut pipes, mut streams) = (Pipes::new(), Vec::new());
    for _ in 0..count {
        let client = TcpStream::connect(front).expect("it listens");
        client.set_nonblocking(true).expect("open");
        streams.push(client);
    }
    let is_stalled = |reactor: &Reactor| {
        let full = reactor.sockets().iter().filter(|socket| socket.queued_bytes >= 128 * 1024).count();
        full == count
    };
    let guard = Instant::now() + Duration::from_secs(60);
    while !is_stalled(&reactor) {
        assert!(Instant::now() < guard, "{}", reactor.sockets());
        for mut client in streams.iter().take(count) {
            let _ = client.write(&[b'x'; 256 * 1024]);
        }
        streams.extend(backend.accept().into_iter().map(|(stream, _)| stream));
        while let Some((mut socket, event)) = reactor.next_before(Instant::now()).expect("it continues") {
            pipes.handle(&mut socket, &event);
            if let Event::Connection = event {
                let client = socket.id();
                let sink = reactor.connect(back, ConnectOptions::default()).expect("an address");
                pipes.join(&mut reactor.context(), client, sink).expect("TCP");
            }
        }
    }
    (reactor, streams)
}

fn kernel_pipes() -> usize {
    let list = std::fs::read_dir("/proc/self/fd").expect("Linux has it").filter_map(Result::ok);
    let is_pipe = |target: &std::path::PathBuf| target.to_string_lossy().starts_with("pipe:");
    list.filter_map(|entry| std::fs::read_link(entry.path()).ok()).filter(is_pipe).count() / 2
}

/// Uses up all descriptors but these, under a limit that permits kernel pipes.
fn all_descriptors_but(free: usize) -> Vec<std::fs::File> {
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), ..getrlimit(Resource::Nofile) }).expect("lower");
    let mut used: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    used.truncate(used.len() - free);
    used
}

#[test]
fn kernel_pipes_of_stalled_connections_are_few_and_end_with_the_reactor() {
    alone("kernel_pipes::kernel_pipes_of_stalled_connections_are_few_and_end_with_the_reactor", || {
        let (open, pipes) = (descriptors(), kernel_pipes());
        let (reactor, streams) = stalled(100);
        let used = kernel_pipes() - pipes;
        assert!((1..=64).contains(&used), "{used} pipes");
        drop((reactor, streams));
        assert_eq!(descriptors(), open);
    });
}

#[test]
fn without_descriptors_for_a_kernel_pipe_streams_are_copied() {
    alone("kernel_pipes::without_descriptors_for_a_kernel_pipe_streams_are_copied", || {
        let (reactor, front, backend) = listening();
        let back = backend.local_addr().expect("bound");
        let stream = bytes(3_000_000);
        let mut client = TcpStream::connect(front).expect("it listens");
        // Two for the proxy, one for the backend.
        let _used = all_descriptors_but(3);
        let (sent, (accepted, is_accepted)) = (&stream, mpsc::channel());
        thread::scope(|scope| {
            let server = scope.spawn(move || {
                let (stream, _) = backend.accept().expect("the proxy connects");
                accepted.send(()).expect("the client waits");
                read_slowly(&stream, false)
            });
            scope.spawn(move || {
                is_accepted.recv().expect("there is a backend");
                client.write_all(sent).expect("it reads");
                drop(client);
            });
            run_proxy(reactor, back, 2);
            assert!(server.join().expect("no panic").0 == stream);
        });
    });
}

#[test]
fn kernel_pipes_of_stalled_connections_leave_the_descriptors_to_sockets() {
    alone("kernel_pipes::kernel_pipes_of_stalled_connections_leave_the_descriptors_to_sockets", || {
        setrlimit(Resource::Nofile, Rlimit { current: Some(160), ..getrlimit(Resource::Nofile) }).expect("lower");
        let pipes = kernel_pipes();
        let (reactor, streams) = stalled(20);
        let used = kernel_pipes() - pipes;
        assert!((1..=5).contains(&used), "{used} pipes");
        drop((reactor, streams));
    });
}

/// As the shards of one process.
#[test]
fn kernel_pipes_of_several_reactors_leave_the_descriptors_to_sockets() {
    alone("kernel_pipes::kernel_pipes_of_several_reactors_leave_the_descriptors_to_sockets", || {
        setrlimit(Resource::Nofile, Rlimit { current: Some(512), ..getrlimit(Resource::Nofile) }).expect("lower");
        let pipes = kernel_pipes();
        let all: Vec<_> = (0..6).map(|_| stalled(6)).collect();
        let used = kernel_pipes() - pipes;
        assert!((1..=16).contains(&used), "{used} pipes");
        drop(all);
        assert_eq!(kernel_pipes(), pipes);
        let next = stalled(6);
        assert!(kernel_pipes() > pipes, "others may have them now");
        drop(next);
    });
}

/// A long stream that is over, and has left its kernel pipe.
fn leave_a_pipe(reactor: &mut Reactor, front: SocketAddr) {
    let pipes = kernel_pipes();
    let mut client = TcpStream::connect(front).expect("it listens");
    thread::scope(|scope| {
        scope.spawn(move || client.write_all(&bytes(3_000_000)).expect("it reads"));
        let guard = Instant::now() + Duration::from_secs(30);
        let mut spliced = false;
        while !(spliced && reactor.is_empty()) {
            let (mut socket, event) = reactor.next_before(guard).expect("it continues").expect("it ends");
            spliced |= matches!(event, Event::Spliced(_));
            socket.splice_next();
            if let Event::End = event {
                socket.end();
            }
        }
    });
    assert_eq!(kernel_pipes(), pipes + 1, "all reads had the same one, and it is kept for the next stream");
}

#[test]
fn a_connection_gets_the_descriptor_of_an_unused_kernel_pipe() {
    alone("kernel_pipes::a_connection_gets_the_descriptor_of_an_unused_kernel_pipe", || {
        let (mut reactor, front, backend) = listening();
        let back = backend.local_addr().expect("bound");
        leave_a_pipe(&mut reactor, front);
        let _used = all_descriptors_but(0);
        reactor.connect(back, ConnectOptions::default()).expect("an address");
        let guard = Instant::now() + Duration::from_secs(30);
        loop {
            let (_, event) = reactor.next_before(guard).expect("it continues").expect("it connects");
            match event {
                Event::Ready => break,
                Event::Lookup(_) | Event::Connect => {}
                _ => panic!("{event}"),
            }
        }
    });
}

#[test]
fn a_client_gets_the_descriptor_of_an_unused_kernel_pipe() {
    alone("kernel_pipes::a_client_gets_the_descriptor_of_an_unused_kernel_pipe", || {
        let (mut reactor, front, _backend) = listening();
        leave_a_pipe(&mut reactor, front);
        let _client = TcpStream::connect(front).expect("it listens");
        let _used = all_descriptors_but(0);
        let guard = Instant::now() + Duration::from_secs(30);
        let (_, event) = reactor.next_before(guard).expect("it continues").expect("it is accepted");
        assert_eq!(event, Event::Connection, "without a failure before it");
    });
}

#[test]
fn a_socket_that_discards_has_no_kernel_pipe_any_more() {
    alone("kernel_pipes::a_socket_that_discards_has_no_kernel_pipe_any_more", || {
        let (mut reactor, front, _backend) = listening();
        let pipes = kernel_pipes();
        let mut client = TcpStream::connect(front).expect("it listens");
        client.write_all(b"some bytes").expect("it is open");
        let guard = Instant::now() + Duration::from_secs(30);
        loop {
            let (mut socket, event) = reactor.next_before(guard).expect("it continues").expect("bytes come");
            socket.splice_next();
            if let Event::Spliced(_) = event {
                assert_eq!(kernel_pipes(), pipes + 1);
                socket.discard();
                return assert_eq!(kernel_pipes(), pipes);
            }
        }
    });
}
