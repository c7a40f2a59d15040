//! How connections begin, or fail to; listeners; wakes; a reactor inside another event loop.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use finale::{
    AddressError, ConnectOptions, ConnectionErrorKind, EndingKind, Error, Event, FirstFin, InvalidOption, KeepAlive,
    ListenOptions, LookupErrorKind, Reactor, Socket, SocketId, Target,
};
use support::alone::alone_with_connections;
use support::{PATIENCE, Transcript, What, as_free, dead_port, dial, ms, own_ip};

fn connect(story: &mut Transcript, target: &str) -> SocketId {
    story.reactor.connect(target, ConnectOptions::default()).expect("an address")
}

/// A client of ours and its blocking server, connected.
fn client_pair() -> (Transcript, SocketId, std::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut story = Transcript::new();
    let client = connect(&mut story, &listener.local_addr().expect("bound").to_string());
    story.connected(client);
    let (server, _) = listener.accept().expect("a peer connected");
    server.set_read_timeout(Some(PATIENCE)).expect("not zero");
    (story, client, server)
}

// --- what fails ---

/// Promise: refused is `error` and `close`, with the address that was tried (CN01).
#[test]
fn nobody_listens() {
    let mut story = Transcript::new();
    let (_held, addr) = dead_port();
    let client = connect(&mut story, &addr.to_string());
    story.expect(client, What::Lookup(addr.ip()));
    let failure = story.error(client);
    assert_eq!(failure.kind, ConnectionErrorKind::Refused);
    assert_eq!(failure.attempts.iter().map(|attempt| attempt.addr).collect::<Vec<_>>(), [addr]);
    let ending = story.close(client);
    assert_eq!(
        (ending.kind, ending.first_fin, ending.peer),
        (EndingKind::Failed(failure), FirstFin::Neither, Some(addr))
    );
    story.rest();
}

/// Promise: a name without an address is `error` and `close`, delivered as events (LK01).
#[test]
fn an_unknown_name_is_told_as_an_event() {
    let mut story = Transcript::new();
    let client = connect(&mut story, "nosuchhost.invalid:80");
    let failure = story.error(client);
    let known = [LookupErrorKind::NotFound, LookupErrorKind::TryAgain].map(ConnectionErrorKind::Lookup);
    assert!(known.contains(&failure.kind), "{failure}");
    assert_eq!(story.close(client).peer, None);
    story.rest();
}

/// Promise: `lookup` is delivered for names and for literals; the addresses of a name are tried in
/// turn (LK04).
#[test]
fn localhost_is_looked_up_and_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let mut story = Transcript::new();
    let client = connect(&mut story, &format!("localhost:{port}"));
    assert!(matches!(story.next(client), What::Lookup(ip) if ip.is_loopback()));
    story.connected(client);
    assert_eq!(story.socket(client).peer_addr(), Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
    story.socket(client).destroy();
    story.close(client);
    story.rest();
}

/// Promise: port 0 is refused: nothing can listen there.
#[test]
fn port_0_is_refused() {
    let mut story = Transcript::new();
    let client = connect(&mut story, "127.0.0.1:0");
    assert!(matches!(story.next(client), What::Lookup(_)));
    assert_eq!(story.error(client).kind, ConnectionErrorKind::Refused);
    story.close(client);
    story.rest();
}

/// Promise: a local address that is taken, or not ours, has its own kind in the report (OV05).
#[test]
fn a_local_address_that_can_not_be_had_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = other.local_addr().expect("bound");
    let mut story = Transcript::new();
    for local in [taken.local_addr().expect("bound"), SocketAddr::from(([192, 0, 2, 1], 0))] {
        let client = story.reactor.connect(target, ConnectOptions::default().local_addr(local)).expect("an address");
        assert!(matches!(story.next(client), What::Lookup(_)));
        assert_eq!(story.error(client).kind, ConnectionErrorKind::NoLocalAddress);
        story.close(client);
    }
    story.rest();
}

/// A free local address is used.
#[test]
fn a_local_address_is_used() {
    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default());
    let local = SocketAddr::from(([127, 0, 0, 9], 0));
    let client = story.reactor.connect(addr, ConnectOptions::default().local_addr(local)).expect("an address");
    let server = story.connection();
    assert_eq!(story.socket(server).peer_addr().map(|peer| peer.ip()), Some(local.ip()));
    story.connected(client);
    story.socket(client).destroy();
    story.close(client);
    story.error(server);
    story.close(server);
    story.rest();
}

/// Promise: text that is not an address is refused at once, and nothing is begun.
#[test]
fn bad_addresses_are_refused_by_the_call() {
    let mut story = Transcript::new();
    let bad = [
        ("", AddressError::NoPort),
        ("localhost", AddressError::NoPort),
        ("::1", AddressError::NoPort),
        ("localhost:", AddressError::NoPort),
        ("localhost:http", AddressError::InvalidPort),
        ("localhost:65536", AddressError::InvalidPort),
        ("localhost:-1", AddressError::InvalidPort),
        (":80", AddressError::NoHost),
    ];
    for (text, why) in bad {
        let refused = story.reactor.connect(text, ConnectOptions::default());
        assert_eq!(refused, Err(Error::InvalidAddress(why)), "{text:?}");
    }
    let name = story.reactor.listen("localhost:0", ListenOptions::default());
    assert_eq!(name, Err(Error::InvalidAddress(AddressError::NotAnAddress)));
    assert!(Target::try_from("127.0.0.1:1").is_ok());
    story.rest();
}

/// Promise: options that the system can't use are refused at once.
#[test]
fn bad_options_are_refused_by_the_call() {
    let mut story = Transcript::new();
    let hour = Duration::from_secs(3600);
    let keep_alive = |idle, interval, count| KeepAlive { idle, interval, count };
    let bad = [
        (ConnectOptions::default().keep_alive(KeepAlive::after(hour * 10)), InvalidOption::KeepAliveTime),
        (ConnectOptions::default().keep_alive(keep_alive(hour, hour * 10, 3)), InvalidOption::KeepAliveTime),
        (ConnectOptions::default().keep_alive(keep_alive(hour, hour, 0)), InvalidOption::KeepAliveCount),
        (ConnectOptions::default().keep_alive(keep_alive(hour, hour, 128)), InvalidOption::KeepAliveCount),
        (ConnectOptions::default().user_timeout(Duration::ZERO), InvalidOption::UserTimeout),
        (ConnectOptions::default().user_timeout(Duration::MAX), InvalidOption::UserTimeout),
        (ConnectOptions::default().send_buffer_size(0), InvalidOption::BufferSize),
        (ConnectOptions::default().receive_buffer_size(usize::MAX), InvalidOption::BufferSize),
        (ConnectOptions::default().high_water_mark(0), InvalidOption::HighWaterMark),
        (ConnectOptions::default().high_water_mark(10).write_limit(9), InvalidOption::HighWaterMark),
    ];
    for (options, why) in bad {
        assert_eq!(story.reactor.connect("127.0.0.1:1", options), Err(Error::InvalidOption(why)));
    }
    let refused = story.reactor.listen("127.0.0.1:0", ListenOptions::default().send_buffer_size(0));
    assert_eq!(refused, Err(Error::InvalidOption(InvalidOption::BufferSize)));
    assert!(story.reactor.is_empty());
    story.rest();
}

// --- calls before the connection is established ---

/// Promise: what is written before `connect` is sent after it, and `end()` follows it (CN11).
#[test]
fn writing_and_ending_wait_for_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut story = Transcript::new();
    let client = connect(&mut story, &listener.local_addr().expect("bound").to_string());
    story.socket(client).write(b"early ").expect("it waits");
    assert!(matches!(story.next(client), What::Lookup(_)));
    story.socket(client).write(b"bird").expect("it waits");
    story.socket(client).end();
    assert_eq!(story.socket(client).write(b"late"), Err(Error::WriteAfterEnd));
    story.connected(client);
    story.turn();
    let (mut server, _) = listener.accept().expect("a peer connected");
    let mut got = Vec::new();
    server.read_to_end(&mut got).expect("clean");
    assert_eq!(got, b"early bird");
    drop(server);
    story.expect(client, What::End);
    let ending = story.close(client);
    assert_eq!((ending.kind, ending.first_fin, ending.bytes_written), (EndingKind::Confirmed, FirstFin::Local, 10));
    story.rest();
}

/// Promise: `destroy()` works in each step of connecting: one `close`, after `ready` if `connect`
/// was delivered (CN11, LK03).
#[test]
fn destroying_works_in_each_step_of_connecting() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    let is_connect = |event: &Event<'_>| *event == Event::Connect;
    let is_ready = |event: &Event<'_>| *event == Event::Ready;
    let is_lookup = |event: &Event<'_>| matches!(event, Event::Lookup(_));
    let steps: [&dyn Fn(&Event<'_>) -> bool; 3] = [&is_lookup, &is_connect, &is_ready];
    for step in steps {
        for target in [addr.to_string(), format!("localhost:{}", addr.port())] {
            let mut story = Transcript::new();
            let client = connect(&mut story, &target);
            let destroyed_at = |socket: &mut Socket<'_>, event: &Event<'_>| {
                if step(event) {
                    socket.destroy();
                }
                step(event)
            };
            story.until(destroyed_at);
            let mut told = story.next(client);
            if told == What::Ready {
                told = story.next(client);
            }
            assert!(matches!(told, What::Close(ending) if ending.kind == EndingKind::Destroyed));
            story.rest();
        }
    }
    for target in [addr.to_string(), "nosuchhost.invalid:1".into()] {
        let mut story = Transcript::new();
        let client = connect(&mut story, &target);
        story.socket(client).destroy();
        assert_eq!(story.close(client).kind, EndingKind::Destroyed, "before anything was done");
        story.rest();
    }
}

/// Promise: IPv6 works like IPv4.
#[test]
fn ipv6_works_where_the_machine_has_it() {
    let mut story = Transcript::new();
    let Ok(listener) = story.reactor.listen("[::1]:0", ListenOptions::default()) else {
        println!("skipped: no IPv6 loopback here");
        return;
    };
    let client = story.reactor.connect(listener.addr, ConnectOptions::default()).expect("an address");
    story.connected(client);
    assert_eq!(story.socket(client).peer_addr(), listener.addr.ip());
    let server = story.connection();
    let peer = story.socket(server).peer_addr().expect("accept gave it");
    assert!(peer.is_ipv6() && peer.ip().is_loopback());
    story.socket(client).end();
    story.expect(server, What::End);
    story.socket(server).end();
    story.expect(client, What::End);
    assert_eq!(story.close(server).peer, Some(peer));
    assert_eq!(story.close(client).peer, listener.addr.ip());
    story.reactor.close_listener(listener.id).expect("open");
    story.rest();
}

/// Promise: an IPv4 client of an IPv6 listener has its IPv4 address.
#[test]
fn a_listener_on_all_addresses_serves_both_families() {
    let mut story = Transcript::new();
    let Ok(listener) = story.reactor.listen("[::]:0", ListenOptions::default()) else {
        println!("skipped: no IPv6 here");
        return;
    };
    let peer = dial((Ipv4Addr::LOCALHOST, listener.addr.port().expect("an IP address")));
    let server = story.connection();
    assert_eq!(story.socket(server).peer_addr(), peer.local_addr().ok());
    story.socket(server).destroy();
    story.close(server);
    story.reactor.close_listener(listener.id).expect("open");
    story.rest();
}

// --- listeners ---

/// Promise: a port in use is an error that names it; the reactor continues (OV06).
#[test]
fn a_port_in_use_is_refused_with_its_address() {
    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default());
    let refused = story.reactor.listen(addr, ListenOptions::default()).expect_err("it is taken");
    assert!(matches!(&refused, Error::Listen { addr: named, .. } if *named == addr.into()));
    assert_eq!(refused.to_string().lines().count(), 1);
    let peer = dial(addr);
    let server = story.connection();
    drop(peer);
    story.expect(server, What::End);
    story.socket(server).end();
    story.close(server);
    story.rest();
}

/// Promise: after our side ended first, the port can be listened on again at once (TIME_WAIT,
/// OV06).
#[test]
fn a_listener_can_be_opened_again_over_time_wait() {
    let mut story = Transcript::new();
    let addr = story.listen_at(own_ip(), ListenOptions::default());
    let peer = dial(addr);
    let server = story.connection();
    story.socket(server).end();
    story.turn();
    drop(peer);
    story.expect(server, What::End);
    assert_eq!(story.close(server).time_wait(), FirstFin::Local);
    story.rest();
    let again = as_free(|| story.reactor.listen(addr, ListenOptions::default()));
    story.reactor.close_listener(again.id).expect("open");
    story.rest();
}

/// Promise: each socket knows its listener; closing a listener affects neither its sockets nor the
/// other listener (AC09).
#[test]
fn closing_a_listener_leaves_its_sockets_alone() {
    let mut story = Transcript::new();
    let first = story.reactor.listen((own_ip(), 0), ListenOptions::default()).expect("a port");
    let second = story.reactor.listen("127.0.0.1:0", ListenOptions::default()).expect("a port");
    let mut peer = dial(first.addr);
    let socket = story.connection();
    assert_eq!(story.socket(socket).listener(), Some(first.id));
    let queued = dial(first.addr);
    story.reactor.close_listener(first.id).expect("open");
    assert_eq!(story.reactor.close_listener(first.id), Err(Error::Gone));
    assert!(std::net::TcpStream::connect(first.addr).is_err(), "nothing listens any more");
    let other_peer = dial(second.addr);
    let other = story.connection();
    assert_eq!(story.socket(other).listener(), Some(second.id));
    peer.write_all(b"still here").expect("connected");
    assert_eq!(story.data(socket, 10), b"still here");
    for (id, peer) in [(socket, peer), (other, other_peer)] {
        drop(peer);
        story.expect(id, What::End);
        story.socket(id).end();
        story.close(id);
    }
    story.reactor.close_listener(second.id).expect("open");
    story.rest();
    drop(queued);
}

/// Promise: one edge for many clients is enough (AC07).
#[test]
fn many_clients_behind_one_edge_are_all_accepted() {
    alone_with_connections("connecting::many_clients_behind_one_edge_are_all_accepted", 100, 10, |count| {
        let mut story = Transcript::new();
        let addr = story.listen(ListenOptions::default());
        let peers: Vec<_> = (0..count).map(|_| dial(addr)).collect();
        let sockets: Vec<_> = (0..count).map(|_| story.connection()).collect();
        drop(peers);
        for socket in sockets {
            story.expect(socket, What::End);
            story.socket(socket).end();
            story.close(socket);
        }
        story.rest();
    });
}

// --- the loop ---

/// Promise: `next` returns `None` at once when nothing is left, and continues when something is
/// added.
#[test]
fn an_empty_reactor_has_nothing_to_wait_for() {
    let mut reactor = Reactor::new().expect("a machine with epoll");
    assert!(reactor.next().expect("never fails").is_none());
    assert_eq!(reactor.next_deadline(), None);
    reactor.set_timer(ms(1));
    assert!(matches!(reactor.next().expect("never fails"), Some((_, Event::Timer(_)))));
    assert!(reactor.next().expect("never fails").is_none());
}

/// Promise: `next_before` waits until its time, and with a time in the past still does what can be
/// done.
#[test]
fn next_before_waits_no_longer_than_told() {
    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default());
    let began = Instant::now();
    assert!(story.reactor.next_before(began + ms(50)).expect("never fails").is_none());
    assert!(began.elapsed() >= ms(50), "after {:?}", began.elapsed());
    let _peer = dial(addr);
    let told = story.reactor.next_before(began).expect("never fails");
    assert!(matches!(told, Some((_, Event::Connection))));
}

/// Promise: a wake is never lost, even if the last waker is dropped before the reactor looks.
#[test]
fn a_wake_outlives_its_handle() {
    let mut story = Transcript::new();
    let remote = story.reactor.waker();
    remote.wake().expect("the reactor lives");
    drop(remote);
    let told = story.reactor.next().expect("never fails");
    assert!(matches!(told, Some((_, Event::Woken))));
    story.rest();
}

/// Promise: a million wakes are merged, and none is lost: after the last of them `woken` is
/// delivered (TH01).
#[test]
fn wakes_are_merged_and_never_lost() {
    let mut story = Transcript::new();
    let remote = story.reactor.waker();
    let sent = Arc::new(AtomicU64::new(0));
    let sender = Arc::clone(&sent);
    let thread = thread::spawn(move || {
        for _ in 0..1_000_000 {
            sender.fetch_add(1, Ordering::Release);
            remote.wake().expect("the reactor lives");
        }
    });
    let (mut seen, mut told) = (0, 0_u64);
    while seen < 1_000_000 {
        assert_eq!(story.next_of_none(), What::Woken);
        seen = sent.load(Ordering::Acquire);
        told += 1;
    }
    thread.join().expect("no panic");
    assert!(told <= 1_000_000);
    // Perhaps a wake that arrived between our look and its end.
    while story.reactor.next().expect("never fails").is_some() {}
}

/// Promise: commands and answers alternate, and each wake is waited for: a lost one would hang.
#[test]
fn every_single_wake_arrives() {
    let mut story = Transcript::new();
    let remote = story.reactor.waker();
    let (send, receive) = std::sync::mpsc::channel();
    let thread = thread::spawn(move || {
        for _ in 0..20_000 {
            remote.wake().expect("the reactor lives");
            receive.recv_timeout(PATIENCE).expect("the wake arrived");
        }
    });
    for _ in 0..20_000 {
        assert_eq!(story.next_of_none(), What::Woken);
        send.send(()).expect("the thread waits");
    }
    thread.join().expect("no panic");
    story.rest();
}

/// Promise: endless wakes keep no socket from being served (TH02). Here the next wake arrives
/// before `woken` is handled.
#[test]
fn endless_wakes_starve_neither_sockets_nor_timers() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    let remote = story.reactor.waker();
    story.turn();
    remote.wake().expect("the reactor lives");
    story.reactor.set_timer(Duration::ZERO);
    peer.write_all(b"served").expect("connected");
    let (mut woken, mut data, mut timer) = (0, false, false);
    story.until(|_, event| {
        match event {
            Event::Woken => {
                woken += 1;
                remote.wake().expect("the reactor lives");
            }
            Event::Data(_) => data = true,
            Event::Timer(_) => timer = true,
            other => panic!("{other:?}"),
        }
        woken == 1000 || (data && timer && woken > 10)
    });
    assert!(data, "the socket was not served");
    assert!(timer, "the timer was not served");
    drop(remote);
    assert_eq!(story.next_of_none(), What::Woken);
    story.socket(socket).destroy();
    story.close(socket);
    story.rest();
}

/// Promise: a waker keeps `next` waiting; when the last is dropped elsewhere, `next` returns `None`
/// (TH03).
#[test]
fn the_last_handle_dropped_lets_the_loop_end() {
    let mut reactor = Reactor::new().expect("a machine with epoll");
    let remote = reactor.waker();
    let second = remote.clone();
    assert!(reactor.next_before(Instant::now() + ms(20)).expect("never fails").is_none());
    drop(remote);
    let thread = thread::spawn(move || drop(second));
    assert!(reactor.next().expect("never fails").is_none());
    thread.join().expect("no panic");
    let orphan = reactor.waker();
    drop(reactor);
    assert_eq!(orphan.wake(), Err(Error::ReactorGone));
}

/// Waits as another event loop does: on the descriptor, and at most until the next deadline.
fn wait_outside(reactor: &mut Reactor) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let wait = reactor.next_deadline().map_or(PATIENCE, |at| at.saturating_duration_since(Instant::now()));
    let wait = Timespec::try_from(wait.min(PATIENCE)).expect("20 s fit");
    let mut fds = [PollFd::new(reactor, PollFlags::IN)];
    poll(&mut fds, Some(&wait)).expect("poll works");
}

/// Promise: inside another event loop the descriptor and `next_deadline` are enough, even if only
/// one event is taken each time and no new edge is reported for the rest (RD04).
#[test]
fn the_descriptor_and_the_deadline_are_enough_for_another_loop() {
    let mut reactor = Reactor::new().expect("a machine with epoll");
    let listener =
        reactor.listen("127.0.0.1:0", ListenOptions::default().receive_buffer_size(1 << 20)).expect("a port");
    let mut peer = dial(listener.addr);
    peer.write_all(&[1; 200_000]).expect("room");
    drop(peer);
    let timer = reactor.set_timer(ms(20));
    let (mut bytes, mut told, mut waits) = (0, Vec::new(), 0);
    let began = Instant::now();
    while told.len() < 4 {
        wait_outside(&mut reactor);
        waits += 1;
        assert!(began.elapsed() < PATIENCE / 2, "it got no deadline: {bytes} bytes, {told:?}");
        match reactor.next_before(Instant::now()).expect("never fails") {
            Some((_, Event::Data(more))) => bytes += more.len(),
            Some((mut socket, event)) => {
                if event == Event::End {
                    socket.end();
                }
                assert!(!matches!(event, Event::Timer(id) if id != timer));
                told.push(format!("{event:?}").chars().take(5).collect::<String>());
            }
            None => {}
        }
    }
    told.sort();
    assert_eq!((bytes, told), (200_000, ["Close", "Conne", "End", "Timer"].map(str::to_owned).into()));
    assert!(waits < 100, "{waits} waits: it spins");
}

/// Promise: the descriptor wakes the other event loop for a wake from another thread.
#[test]
fn the_descriptor_shows_a_wake() {
    let mut reactor = Reactor::new().expect("a machine with epoll");
    let remote = reactor.waker();
    assert!(reactor.next_before(Instant::now()).expect("never fails").is_none());
    let thread = thread::spawn(move || remote.wake());
    let began = Instant::now();
    wait_outside(&mut reactor);
    assert!(began.elapsed() < PATIENCE / 2);
    assert!(matches!(reactor.next_before(Instant::now()).expect("never fails"), Some((_, Event::Woken))));
    thread.join().expect("no panic").expect("the reactor lives");
}

/// Promise: with paused sockets, options of a live socket can be changed and take effect.
#[test]
fn options_of_a_live_socket_can_be_changed() {
    let (mut story, client, server) = client_pair();
    let mut socket = story.socket(client);
    socket.set_nodelay(false);
    assert_eq!(socket.set_keep_alive(Some(KeepAlive::after(ms(1500)))), Ok(()));
    let bad = KeepAlive { count: 0, ..KeepAlive::after(ms(1)) };
    assert_eq!(socket.set_keep_alive(Some(bad)), Err(Error::InvalidOption(InvalidOption::KeepAliveCount)));
    story.turn();
    drop(server);
    story.expect(client, What::End);
    story.socket(client).end();
    story.close(client);
    story.rest();
}
