//! A Unix domain socket whose backlog is full: connection attempts wait for room, as over TCP. Each
//! scene is played on a real kernel and on the simulated network.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use finale::net::Net;
use finale::sim::Network;
use finale::{
    ConnectOptions, ConnectionErrorKind, EndingKind, Error, Event, ListenOptions, ListenerId, Reactor, SocketId,
    TimeoutKind, UnixAddr,
};

use support::scene::HERE;
use support::{PATIENCE, cpu_time, ms};

fn new_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("finale-backlog-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// What has happened to the sockets of a reactor.
#[derive(Debug, Default)]
struct Record {
    ready: Vec<SocketId>,
    connections: Vec<SocketId>,
    bytes: usize,
    failures: Vec<ConnectionErrorKind>,
    closes: Vec<(SocketId, EndingKind)>,
}

impl Record {
    /// Runs until `done`, or for this long.
    fn run<N: Net>(&mut self, reactor: &mut Reactor<N>, time: Duration, done: impl Fn(&Self) -> bool) {
        let until = reactor.net().now() + time;
        while !done(self)
            && let Some((socket, event)) = reactor.next_before(until).expect("it continues")
        {
            match event {
                Event::Ready => self.ready.push(socket.id()),
                Event::Connection => self.connections.push(socket.id()),
                Event::Data(bytes) => self.bytes += bytes.len(),
                Event::Error(failure) => self.failures.push(failure.kind),
                Event::Close(ending) => self.closes.push((socket.id(), ending.kind.clone())),
                _ => {}
            }
        }
    }
}

/// A listener that does not accept, and five clients: its queue has room for two.
fn crowded<N: Net>(reactor: &mut Reactor<N>, options: &ConnectOptions) -> (ListenerId, Vec<SocketId>, Record) {
    let addr = UnixAddr::abstract_name(new_name());
    let listener = reactor.listen(addr.clone(), ListenOptions::default().backlog(1)).expect("a new name").id;
    reactor.pause_accepting(listener).expect("open");
    let connect = |_| reactor.connect(addr.clone(), options.clone()).expect("begun");
    let clients: Vec<_> = (0..5).map(connect).collect();
    let mut record = Record::default();
    record.run(reactor, PATIENCE, |record| record.ready.len() == 2 || !record.failures.is_empty());
    assert_eq!((record.ready.len(), record.failures.as_slice()), (2, &[][..]), "three wait");
    (listener, clients, record)
}

fn real() -> Reactor {
    Reactor::new().expect("a machine with epoll")
}

fn waiting_clients_are_connected<N: Net>(reactor: &mut Reactor<N>) {
    let (listener, clients, mut record) = crowded(reactor, &ConnectOptions::default());
    for client in &clients {
        reactor.socket(*client).expect("it waits").write(b"hello").expect("it waits");
    }
    record.run(reactor, ms(50), |_| false);
    assert_eq!((record.ready.len(), record.failures.len()), (2, 0), "{record:?}");
    reactor.resume_accepting(listener).expect("open");
    record.run(reactor, PATIENCE, |record| record.bytes == 25 && record.ready.len() == 5);
    assert_eq!((record.ready.len(), record.connections.len(), record.bytes), (5, 5, 25), "{record:?}");
    assert!(record.failures.is_empty() && record.closes.is_empty(), "{record:?}");
}

#[test]
fn clients_of_a_full_backlog_are_connected_when_there_is_room() {
    waiting_clients_are_connected(&mut real());
    waiting_clients_are_connected(&mut Reactor::with_net(Network::new(3).host(HERE)));
}

/// One slot after the other: none is left unused while a client waits.
fn every_place_is_used<N: Net>(reactor: &mut Reactor<N>) {
    let (listener, _, mut record) = crowded(reactor, &ConnectOptions::default());
    for accepted in 1..=3 {
        reactor.resume_accepting(listener).expect("open");
        record.run(reactor, PATIENCE, |record| record.connections.len() >= accepted);
        reactor.pause_accepting(listener).expect("open");
        record.run(reactor, PATIENCE, |record| record.ready.len() >= 2 + accepted);
        assert!(record.ready.len() >= 2 + accepted && record.failures.is_empty(), "{record:?}");
    }
}

#[test]
fn each_place_that_is_free_in_a_backlog_is_taken_by_a_client_that_waits() {
    every_place_is_used(&mut real());
    every_place_is_used(&mut Reactor::with_net(Network::new(3).host(HERE)));
}

fn waiting_clients_time_out<N: Net>(reactor: &mut Reactor<N>) {
    const LIMIT: Duration = ms(150);
    let begun = reactor.net().now();
    let (_, _, mut record) = crowded(reactor, &ConnectOptions::default().connect_timeout(LIMIT));
    record.run(reactor, PATIENCE, |record| !record.failures.is_empty());
    let after = reactor.net().now() - begun;
    assert!((LIMIT..5 * LIMIT).contains(&after), "after {after:?}");
    record.run(reactor, PATIENCE, |record| record.closes.len() == 3);
    assert_eq!(record.failures, [ConnectionErrorKind::TimedOut(TimeoutKind::Connect); 3]);
    assert_eq!(record.ready.len(), 2, "the others have nothing to do with it");
}

#[test]
fn clients_of_a_full_backlog_fail_at_their_connect_timeout() {
    waiting_clients_time_out(&mut real());
    waiting_clients_time_out(&mut Reactor::with_net(Network::new(3).host(HERE)));
}

fn waiting_clients_are_refused<N: Net>(reactor: &mut Reactor<N>) {
    let (listener, _, mut record) = crowded(reactor, &ConnectOptions::default());
    reactor.close_listener(listener).expect("open");
    record.run(reactor, PATIENCE, |record| record.failures.len() == 3 + 2);
    let refused = record.failures.iter().filter(|cause| **cause == ConnectionErrorKind::Refused).count();
    assert_eq!((refused, record.failures.len()), (3, 5), "two were reset in the queue: {record:?}");
}

#[test]
fn clients_of_a_full_backlog_are_refused_when_its_listener_goes() {
    waiting_clients_are_refused(&mut real());
    waiting_clients_are_refused(&mut Reactor::with_net(Network::new(3).host(HERE)));
}

fn waiting_clients_can_be_destroyed<N: Net>(reactor: &mut Reactor<N>) {
    let (listener, clients, mut record) = crowded(reactor, &ConnectOptions::default());
    for client in clients {
        reactor.socket(client).expect("it lives").destroy();
    }
    record.run(reactor, PATIENCE, |record| record.closes.len() == 5);
    assert!(record.closes.iter().all(|(_, how)| *how == EndingKind::Destroyed), "{record:?}");
    reactor.close_listener(listener).expect("open");
    assert!(reactor.next().expect("it continues").is_none() && reactor.next_deadline().is_none(), "nothing is left");
}

#[test]
fn clients_of_a_full_backlog_can_be_destroyed() {
    waiting_clients_can_be_destroyed(&mut real());
    let network = Network::new(3);
    waiting_clients_can_be_destroyed(&mut Reactor::with_net(network.host(HERE)));
    assert_eq!(network.descriptors(), 0);
}

#[test]
fn clients_of_a_full_backlog_wait_asleep() {
    let mut reactor = real();
    let (_, _, mut record) = crowded(&mut reactor, &ConnectOptions::default());
    let (began, cpu) = (Instant::now(), cpu_time());
    record.run(&mut reactor, ms(300), |_| false);
    let (took, used) = (began.elapsed(), cpu_time() - cpu);
    assert!(took >= ms(300) && used < took / 4, "{used:?} of {took:?} at work");

    let network = Network::new(3);
    let mut reactor = Reactor::with_net(network.host(HERE));
    let (_, _, mut record) = crowded(&mut reactor, &ConnectOptions::default());
    let calls = network.calls();
    record.run(&mut reactor, Duration::from_secs(1), |_| false);
    assert!(network.calls() - calls < 5000, "{} calls in a second", network.calls() - calls);
}

/// A server of another program, in blocking code, that accepts late.
#[test]
fn a_client_of_another_programs_full_backlog_is_connected_when_that_accepts() {
    let name = new_name();
    let addr = socket2::SockAddr::unix(format!("\0{name}")).expect("short");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("a descriptor");
    socket.bind(&addr).expect("a new name");
    socket.listen(0).expect("bound");
    let listener = UnixListener::from(socket);
    let own = SocketAddr::from_abstract_name(&name).expect("short");
    let _first = UnixStream::connect_addr(&own).expect("there is room for one");
    let mut reactor = real();
    let client = reactor.connect(UnixAddr::abstract_name(&name), ConnectOptions::default()).expect("begun");
    let mut record = Record::default();
    record.run(&mut reactor, ms(50), |record| !record.failures.is_empty());
    assert!(record.ready.is_empty() && record.failures.is_empty(), "{record:?}");
    let _accepted = listener.accept().expect("one waits");
    record.run(&mut reactor, PATIENCE, |record| !record.ready.is_empty());
    assert_eq!(record.ready, [client]);
}

/// The check whether a server still listens at the file does not wait for room in its backlog.
#[test]
fn a_listener_over_the_file_of_a_living_server_with_a_full_backlog_fails_at_once() {
    let path = std::env::temp_dir().join(new_name());
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("a descriptor");
    socket.bind(&socket2::SockAddr::unix(&path).expect("short")).expect("a new file");
    socket.listen(0).expect("bound");
    let living = UnixListener::from(socket);
    let _client = UnixStream::connect(&path).expect("there is room for one");
    let (result, wait) = channel();
    let addr = UnixAddr::path(&path);
    let thread = std::thread::spawn(move || {
        let listening = real().listen(addr, ListenOptions::default().replace_stale(true));
        let _ = result.send(listening);
    });
    let listening = wait.recv_timeout(ms(2000));
    // Everything that waits for the live server continues now.
    drop(living);
    thread.join().expect("no panic");
    let is_still_there = path.exists();
    let _ = std::fs::remove_file(&path);
    let refused = listening.expect("it does not wait").expect_err("the address is in use");
    assert!(matches!(refused, Error::Listen { .. }), "{refused}");
    assert!(is_still_there, "the file is the other's");
}
