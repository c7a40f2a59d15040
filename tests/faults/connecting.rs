//! Connecting: the rows CN01 and following of docs/faults.md.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use finale::sim::{Network, Reach};
use finale::{ConnectOptions, ConnectionErrorKind, EndingKind, FirstFin, SocketId, TimeoutKind};
use rustix::io::Errno;

use support::alone::{alone, alone_in_a_network, shell};
use support::faulty::{faulty_on, flags};
use support::scene::{Scene, THERE};
use support::{PATIENCE, Transcript, What, as_free, cpu_time, descriptors, ms, own_ip, reset, work_for};

const AT: SocketAddr = SocketAddr::new(THERE, 80);
const SECOND: Duration = Duration::from_secs(1);

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    (listener, addr)
}

/// A connection that the real kernel has begun and the reactor has not examined: a timer is due
/// between the call and the next poll.
fn begun_unseen(story: &mut Transcript, addr: SocketAddr) -> SocketId {
    story.reactor.set_timer(Duration::ZERO);
    work_for(ms(2)); // So that its tick has come.
    let client = story.reactor.connect(addr, ConnectOptions::default()).expect("an address");
    let mut lines = Vec::new();
    story.until(|_, event| {
        lines.push(format!("{event:?}"));
        matches!(event, finale::Event::Timer(_))
    });
    assert!(lines.len() == 2 && lines[0].starts_with("Lookup"), "{lines:?}");
    client
}

/// A rule in a new chain for packets that arrive.
fn filter(rule: &str) {
    shell("nft add table ip held && nft 'add chain ip held in { type filter hook input priority 0; }'");
    shell(&format!("nft add rule ip held in {rule}"));
}

/// CN01: one descriptor is opened for the attempt, and closed with it.
#[test]
fn a_refusal_costs_one_descriptor_for_a_moment() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    scene.reactor.connect(AT, ConnectOptions::default()).expect("a good target");
    scene.run(Duration::ZERO);
    assert_eq!(scene.network.descriptors(), 1);
    scene.expect(&["lookup 10.0.0.2", "error refused: nothing listens there [10.0.0.2:80]", "close"]);
    assert_eq!(scene.cause(), ConnectionErrorKind::Refused);
    assert_eq!((faulty.count("connect"), faulty.count("close")), (1, 1));
    assert_eq!(scene.ending.as_ref().and_then(|ending| ending.peer), Some(AT));
    scene.rest();
}

/// CN01: the same on a real kernel.
#[test]
fn many_refusals_leave_no_descriptor() {
    alone("connecting::many_refusals_leave_no_descriptor", || {
        let mut story = Transcript::new();
        let (_, addr) = listener();
        let before = descriptors();
        for _ in 0..100 {
            let client = story.reactor.connect(addr, ConnectOptions::default()).expect("an address");
            story.expect(client, What::Lookup(addr.ip()));
            assert_eq!(story.error(client).kind, ConnectionErrorKind::Refused);
            story.close(client);
        }
        assert_eq!(descriptors(), before);
        story.rest();
    });
}

/// CN02: nothing before the timer, to the millisecond, and no SYN after it.
#[test]
fn a_swallowed_syn_ends_at_the_timer_and_is_not_repeated_afterwards() {
    let mut scene = Scene::new();
    scene.network.record();
    scene.network.vanish(THERE);
    let options = ConnectOptions::default().connect_timeout(4 * SECOND);
    scene.reactor.connect(AT, options).expect("a good target");
    scene.run(ms(3999));
    assert_eq!(std::mem::take(&mut scene.story), ["lookup 10.0.0.2"]);
    assert_eq!(scene.network.take_transcript().len(), 3, "SYNs at 0, 1 and 3 s");
    scene.run(ms(2));
    assert_eq!(std::mem::take(&mut scene.story), ["error timed out: not connected in time [10.0.0.2:80]", "close"]);
    scene.rest();
    scene.network.advance(200 * SECOND);
    assert_eq!(scene.network.take_transcript(), [""; 0]);
}

/// CN02: the same on a real kernel, with the SYNs counted by the filter that drops them.
#[test]
fn a_dropped_syn_ends_at_the_timer_and_is_not_repeated_afterwards() {
    alone_in_a_network("connecting::a_dropped_syn_ends_at_the_timer_and_is_not_repeated_afterwards", || {
        filter("tcp dport 9 counter drop");
        let syns = || {
            let list = std::process::Command::new("nft").args(["list", "chain", "ip", "held", "in"]).output();
            let text = String::from_utf8_lossy(&list.expect("nft runs").stdout).into_owned();
            let count = text.split("packets ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
            count.unwrap_or_else(|| panic!("no counter: {text}"))
        };
        let mut story = Transcript::new();
        let before = descriptors();
        let began = Instant::now();
        let options = ConnectOptions::default().connect_timeout(ms(1500));
        let client = story.reactor.connect("127.0.0.1:9", options).expect("an address");
        assert!(matches!(story.next(client), What::Lookup(_)));
        let failure = story.error(client);
        assert_eq!(failure.kind, ConnectionErrorKind::TimedOut(TimeoutKind::Connect));
        assert!(began.elapsed() >= ms(1500), "after {:?}", began.elapsed());
        story.close(client);
        assert_eq!(descriptors(), before);
        let sent = syns();
        assert!(sent >= 2, "it is repeated after a second: {sent}");
        story.silence(ms(2500)); // Two more would be due.
        assert_eq!(syns(), sent);
        story.rest();
    });
}

/// CN03: the error flag alone, without writable, is reason enough for a query; each reason has its
/// cause.
#[test]
fn an_error_flag_alone_is_an_answer_to_the_handshake() {
    let reasons = [
        (Errno::HOSTUNREACH, ConnectionErrorKind::Unreachable),
        (Errno::NETUNREACH, ConnectionErrorKind::Unreachable),
        (Errno::CONNREFUSED, ConnectionErrorKind::Refused),
    ];
    for (errno, cause) in reasons {
        let (mut scene, faulty) = faulty_on(Network::new(7));
        scene.network.set_reach(THERE, Reach::BlackHole);
        scene.reactor.connect(AT, ConnectOptions::default()).expect("a good target");
        scene.expect(&["lookup 10.0.0.2"]);
        faulty.once("connected", errno);
        faulty.news(0, flags("err hup"));
        let begun = scene.network.elapsed();
        scene.run(ms(1));
        assert_eq!(scene.story.pop().as_deref(), Some("close"));
        assert_eq!(scene.story.len(), 1, "{:?}", scene.story);
        assert!(scene.network.elapsed() - begun <= ms(1), "nothing waits for writable");
        assert_eq!(scene.cause(), cause);
        scene.story.clear();
        scene.rest();
    }
}

/// CN03: a filter's answers by ICMP, for which epoll reports the error flag alone.
#[test]
fn each_refusal_by_icmp_has_its_cause() {
    alone_in_a_network("connecting::each_refusal_by_icmp_has_its_cause", || {
        let reasons = [
            ("host-unreachable", ConnectionErrorKind::Unreachable, Errno::HOSTUNREACH),
            ("port-unreachable", ConnectionErrorKind::Refused, Errno::CONNREFUSED),
            ("net-unreachable", ConnectionErrorKind::Unreachable, Errno::NETUNREACH),
        ];
        for (icmp, cause, errno) in reasons {
            filter(&format!("tcp dport 9 reject with icmp {icmp}"));
            let mut story = Transcript::new();
            let client = story.reactor.connect("127.0.0.1:9", ConnectOptions::default()).expect("an address");
            assert!(matches!(story.next(client), What::Lookup(_)));
            let failure = story.error(client);
            assert_eq!((failure.kind, failure.os.map(finale::OsError::raw)), (cause, Some(errno.raw_os_error())));
            story.close(client);
            story.rest();
            shell("nft delete table ip held");
        }
    });
}

/// CN04: an error flag without an error, before the handshake and after, delivers nothing and does
/// not keep the loop busy.
#[test]
fn an_error_flag_without_an_error_changes_nothing() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    let listener = scene.peer.listen(AT).expect("free");
    scene.network.set_latency(ms(100));
    scene.reactor.connect(AT, ConnectOptions::default()).expect("a good target");
    scene.run(ms(1));
    assert_eq!(std::mem::take(&mut scene.story), ["lookup 10.0.0.2"]);
    for _ in 0..10 {
        faulty.news(0, flags("err hup"));
        scene.run(ms(5));
    }
    assert!(scene.story.is_empty() && faulty.count("connected") <= 10);
    scene.expect(&["connect", "ready"]);
    let server = listener.accept().expect("connected");
    faulty.take_log();
    for _ in 0..10 {
        faulty.news(0, flags("out err hup"));
        scene.run(ms(5));
    }
    assert!(scene.story.is_empty());
    assert!(faulty.count("poll") <= 30 && faulty.count("recv") <= 10, "{:?}", faulty.take_log());
    faulty.take_log();
    scene.run(3600 * SECOND);
    assert!(faulty.take_log().len() <= 2, "asleep");
    server.send(b"alive");
    scene.expect(&["data alive"]);
    scene.with(|socket| socket.destroy());
    scene.expect(&["close"]);
    scene.rest();
}

/// CN04: without readiness the handshake is not checked, and the next address does not join early.
#[test]
fn a_call_of_the_program_during_the_handshake_changes_nothing() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    scene.network.set_reach(THERE, Reach::BlackHole);
    let addrs = vec![AT, SocketAddr::new(THERE, 81)];
    scene.reactor.connect(addrs, ConnectOptions::default().attempt_delay(SECOND)).expect("good targets");
    for _ in 0..10 {
        scene.run(ms(50));
        scene.with(|socket| assert!(socket.write(b"later").is_ok()));
    }
    scene.run(ms(50));
    assert_eq!((faulty.count("connect"), faulty.count("connected")), (1, 0));
}

/// CN04: an ICMP error that was no longer true when the reactor looked: the connection is
/// established, although the flag stays.
#[test]
fn an_error_that_was_overtaken_by_the_handshake_is_forgotten() {
    let mut scene = Scene::new();
    let listener = scene.peer.listen(AT).expect("free");
    scene.network.set_reach(THERE, Reach::Unreachable);
    scene.reactor.connect(AT, ConnectOptions::default()).expect("a good target");
    scene.run(Duration::ZERO);
    scene.network.set_reach(THERE, Reach::Open);
    scene.network.advance(2 * SECOND); // The second SYN gets through; the reactor has not looked meanwhile.
    scene.expect(&["lookup 10.0.0.2", "connect", "ready"]);
    let server = listener.accept().expect("connected");
    let calls = scene.network.calls();
    scene.run(3600 * SECOND);
    assert!(scene.network.calls() - calls <= 4, "the flag that stays does not keep the loop busy");
    server.send(b"alive");
    scene.expect(&["data alive"]);
    scene.with(|socket| socket.destroy());
    scene.expect(&["close"]);
    scene.rest();
}

/// CN04: the same on a real kernel: the filter is removed before the SYN is repeated, and the
/// reactor has not looked in between.
#[test]
fn a_rejection_that_was_overtaken_by_the_handshake_is_forgotten() {
    alone_in_a_network("connecting::a_rejection_that_was_overtaken_by_the_handshake_is_forgotten", || {
        let (listener, addr) = listener();
        filter(&format!("tcp dport {} reject with icmp host-unreachable", addr.port()));
        let mut story = Transcript::new();
        let client = begun_unseen(&mut story, addr);
        shell("nft delete table ip held");
        let (mut server, _) = listener.accept().expect("the repeated SYN arrives");
        story.connected(client);
        let before = cpu_time();
        story.silence(ms(300));
        assert!(cpu_time() - before < ms(100), "the flag that stays does not keep the loop busy");
        server.write_all(b"alive").expect("connected");
        assert_eq!(story.data(client, 5), b"alive");
        drop(server);
        story.expect(client, What::End);
        story.socket(client).end();
        assert!(story.close(client).is_acknowledged());
        story.rest();
    });
}

/// CN04: once its failure is delivered it is closed: the kernel does not repeat the SYN.
#[test]
fn a_rejection_that_was_told_stays_true() {
    alone_in_a_network("connecting::a_rejection_that_was_told_stays_true", || {
        let (listener, addr) = listener();
        filter(&format!("tcp dport {} reject with icmp host-unreachable", addr.port()));
        let mut story = Transcript::new();
        let client = story.reactor.connect(addr, ConnectOptions::default()).expect("an address");
        assert!(matches!(story.next(client), What::Lookup(_)));
        assert_eq!(story.error(client).kind, ConnectionErrorKind::Unreachable);
        story.close(client);
        shell("nft delete table ip held");
        story.silence(ms(1500));
        listener.set_nonblocking(true).expect("a socket");
        assert!(listener.accept().is_err(), "nobody has connected");
        story.rest();
    });
}

/// CN05: a connect that fails in the call is delivered by `next`, with the same events for each
/// error number.
#[test]
fn a_connect_that_fails_in_the_call_is_told_as_an_event() {
    for errno in [Errno::HOSTUNREACH, Errno::ACCESS, Errno::INVAL, Errno::NETUNREACH] {
        let (mut scene, faulty) = faulty_on(Network::new(7));
        faulty.once("connect", errno);
        scene.reactor.connect(AT, ConnectOptions::default()).expect("the call that asks never fails");
        scene.run(Duration::ZERO);
        assert_eq!((scene.story[0].as_str(), scene.story.len()), ("lookup 10.0.0.2", 3), "{:?}", scene.story);
        assert!(scene.story[1].starts_with("error unreachable ("), "{:?}", scene.story);
        assert_eq!(scene.cause(), ConnectionErrorKind::Unreachable);
        scene.story.clear();
        scene.rest();
    }
}

/// CN05: routes that prohibit it, and no route at all.
#[test]
fn routes_that_say_no_are_told_as_events() {
    alone_in_a_network("connecting::routes_that_say_no_are_told_as_events", || {
        shell("ip route add unreachable 10.9.0.1 && ip route add prohibit 10.9.0.2 && ip route add blackhole 10.9.0.3");
        let mut story = Transcript::new();
        let before = descriptors();
        for (last, errno) in [(1, Errno::HOSTUNREACH), (2, Errno::ACCESS), (3, Errno::INVAL), (4, Errno::NETUNREACH)] {
            let addr = SocketAddr::from(([10, 9, 0, last], 80));
            let client =
                story.reactor.connect(addr, ConnectOptions::default()).expect("the call that asks never fails");
            story.expect(client, What::Lookup(addr.ip()));
            let failure = story.error(client);
            let os = failure.os.map(finale::OsError::raw);
            assert_eq!((failure.kind, os), (ConnectionErrorKind::Unreachable, Some(errno.raw_os_error())));
            let ending = story.close(client);
            assert!(ending.to_string().starts_with("error: unreachable ("), "{ending}");
        }
        assert_eq!(descriptors(), before);
        story.rest();
    });
}

/// CN06: writable in the middle of the handshake does not mean connected.
#[test]
fn writable_is_not_connected() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    let _listener = scene.peer.listen(AT).expect("free");
    scene.network.set_latency(ms(100));
    scene.reactor.connect(AT, ConnectOptions::default()).expect("a good target");
    scene.run(ms(1));
    for words in ["out", "out hup", "in out rdhup hup err"] {
        faulty.news(0, flags(words));
        scene.run(ms(20));
    }
    assert_eq!(std::mem::take(&mut scene.story), ["lookup 10.0.0.2"]);
    scene.expect(&["connect", "ready"]);
    scene.with(|socket| {
        assert_eq!(socket.peer_addr(), Some(AT));
        assert!(!socket.peer_ended(), "what a flag said before there was a peer means nothing");
        socket.destroy();
    });
    scene.expect(&["close"]);
    scene.rest();
}

/// CN07: the kernel chose the port without a listener as our own local port.
#[test]
fn a_connection_with_itself_is_refused() {
    let mut scene = Scene::new();
    scene.network.set_ports(5000..=5000);
    let own: IpAddr = [127, 0, 0, 1].into();
    scene.reactor.connect((own, 5000), ConnectOptions::default()).expect("a good target");
    scene.expect(&["lookup 127.0.0.1", "error refused: nothing listens there [127.0.0.1:5000]", "close"]);
    scene.network.advance(200 * SECOND);
    assert_eq!(scene.network.open_connections(), 0);
    scene.rest();
}

/// CN07: on the real kernel, bound to the port that it connects to.
#[test]
fn a_real_connection_with_itself_is_refused() {
    let addr = SocketAddr::new(own_ip(), 5000);
    let mut story = Transcript::new();
    let client = story.reactor.connect(addr, ConnectOptions::default().local_addr(addr)).expect("an address");
    story.expect(client, What::Lookup(addr.ip()));
    assert_eq!(story.error(client).kind, ConnectionErrorKind::Refused);
    let ending = story.close(client);
    assert_eq!((ending.first_fin, ending.bytes_read), (FirstFin::Neither, 0));
    story.rest();
    // Without SO_REUSEADDR: nothing of the connection is left, not even TIME_WAIT.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a descriptor");
    as_free(|| socket.bind(&addr.into()));
}

/// CN08: handshake, data and FIN in one readiness.
#[test]
fn a_server_that_was_done_before_we_looked_is_told_in_order() {
    let mut scene = Scene::new();
    let listener = scene.peer.listen(AT).expect("free");
    scene.reactor.connect(AT, ConnectOptions::default()).expect("a good target");
    scene.run(Duration::ZERO);
    scene.network.advance(ms(10));
    let server = listener.accept().expect("the kernels have shaken hands");
    server.send(b"hello");
    server.finish();
    scene.network.advance(ms(10));
    scene.expect(&["lookup 10.0.0.2", "connect", "ready", "data hello", "end"]);
    scene.with(|socket| socket.end());
    scene.expect(&["close"]);
    assert_eq!(scene.how(), &EndingKind::Confirmed);
    scene.rest();
}

/// CN08: the same on a real kernel, in one event.
#[test]
fn a_real_server_that_was_done_before_we_looked_is_told_in_order() {
    let (listener, addr) = listener();
    let mut story = Transcript::new();
    let client = begun_unseen(&mut story, addr);
    assert!(story.reactor.descriptor(client).is_none() && story.reactor.local_addr(client).is_none());
    let (mut server, _) = listener.accept().expect("the kernel has shaken hands");
    server.write_all(b"hello").expect("connected");
    drop(server);
    story.expect(client, What::Connect);
    story.expect(client, What::Ready);
    assert_eq!(story.data(client, 5), b"hello");
    story.expect(client, What::End);
    story.socket(client).end();
    assert_eq!(story.close(client).first_fin, FirstFin::Peer);
    story.rest();
}

/// CN09: handshake and reset in one readiness: a failure to connect, without a `connect` before it.
/// Bytes that arrived between the two are lost with the connection.
#[test]
fn a_reset_before_we_looked_is_a_failure_to_connect() {
    for bytes in [&b""[..], b"lost"] {
        let mut scene = Scene::new();
        let listener = scene.peer.listen(AT).expect("free");
        scene.reactor.connect(AT, ConnectOptions::default()).expect("a good target");
        scene.run(Duration::ZERO);
        scene.network.advance(ms(10));
        let accepted = listener.accept().expect("the kernels have shaken hands");
        accepted.send(bytes);
        accepted.reset();
        scene.network.advance(ms(10));
        scene.expect(&["lookup 10.0.0.2", "error reset by the peer [10.0.0.2:80]", "close"]);
        assert_eq!(scene.cause(), ConnectionErrorKind::Reset);
        listener.close();
        scene.rest();
    }
}

/// CN09: the same on a real kernel.
#[test]
fn a_real_reset_before_we_looked_is_a_failure_to_connect() {
    let (listener, addr) = listener();
    let mut story = Transcript::new();
    let client = begun_unseen(&mut story, addr);
    reset(listener.accept().expect("the kernel has shaken hands").0);
    let failure = story.error(client);
    assert_eq!((failure.kind, failure.attempts.len()), (ConnectionErrorKind::Reset, 1));
    assert!(story.close(client).had_error());
    story.rest();
}

/// CN10: a program that never accepts: its kernel connects two and lets the third wait. Only timers
/// end any of them, and no report claims that a program has read a byte.
#[test]
fn connections_that_nobody_accepts_are_ended_by_timers() {
    let mut scene = Scene::new();
    let _listener = scene.peer.listen_with(AT, &finale::ListenOptions::default().backlog(1)).expect("free");
    let options =
        ConnectOptions::default().connect_timeout(10 * SECOND).half_closed_timeout(10 * SECOND).close_timeout(None);
    let sockets = [0; 3].map(|_| scene.reactor.connect(AT, options.clone()).expect("a good target"));
    scene.run(SECOND);
    for id in &sockets[..2] {
        assert_eq!(scene.stories[id], ["lookup 10.0.0.2", "connect", "ready"]);
        let mut socket = scene.reactor.socket(*id).expect("it lives");
        socket.write(b"is anybody there?").expect("writes are taken");
        socket.end();
    }
    scene.run(8 * SECOND);
    assert_eq!(scene.stories[&sockets[2]], ["lookup 10.0.0.2"]);
    scene.run(10 * SECOND);
    let timed_out = "error timed out: not connected in time [10.0.0.2:80]";
    assert_eq!(scene.stories[&sockets[2]], ["lookup 10.0.0.2", timed_out, "close"]);
    for id in &sockets[..2] {
        assert_eq!(scene.stories[id][3..], ["error timed out: half-closed and silent", "close"]);
    }
    let ending = scene.ending.take().expect("delivered");
    assert!(!ending.is_acknowledged() && ending.bytes_written == 17, "{ending}");
    scene.story.clear();
    scene.rest();
}

/// CN10: the same on a real kernel, for one that is connected.
#[test]
fn a_connection_that_nobody_accepts_is_ended_by_its_timer() {
    let (listener, addr) = listener();
    let mut story = Transcript::new();
    let options = ConnectOptions::default().half_closed_timeout(ms(200));
    let client = story.reactor.connect(addr, options).expect("an address");
    story.connected(client);
    story.socket(client).write(b"is anybody there?").expect("writes are taken");
    story.socket(client).end();
    assert_eq!(story.error(client).kind, ConnectionErrorKind::TimedOut(TimeoutKind::HalfClosed));
    let ending = story.close(client);
    assert!(!ending.is_acknowledged() && ending.bytes_written == 17, "{ending}");
    drop(listener);
    story.rest();
}

/// CN11: `end()` and `destroy()` at every half millisecond of lookup and handshake.
#[test]
fn ending_and_destroying_work_at_every_moment_of_the_way() {
    for half_ms in 0..10 {
        for destroys in [false, true] {
            for target in ["10.0.0.2:80", "server:80"] {
                let mut scene = Scene::new();
                scene.network.name("server", vec![THERE]);
                let listener = scene.peer.listen(AT).expect("free");
                let id = scene.reactor.connect(target, ConnectOptions::default()).expect("a good target");
                scene.run(Duration::from_micros(500) * half_ms);
                let mut socket = scene.reactor.socket(id).expect("it lives");
                if destroys {
                    socket.destroy()
                } else {
                    socket.end()
                }
                scene.run(SECOND);
                if !destroys {
                    let server = listener.accept().expect("it has connected");
                    assert!(server.has_fin() && !server.is_reset());
                    server.close();
                    scene.run(SECOND);
                    assert_eq!(scene.story, ["lookup 10.0.0.2", "connect", "ready", "end", "close"], "{half_ms}");
                    assert_eq!(scene.how(), &EndingKind::Confirmed);
                }
                if destroys {
                    assert_eq!(scene.how(), &EndingKind::Destroyed);
                    scene.network.advance(SECOND);
                    assert!(listener.accept().is_none_or(|server| server.is_reset()), "{half_ms}");
                }
                assert_eq!(scene.story.iter().filter(|line| *line == "close").count(), 1);
                scene.story.clear();
                scene.rest();
            }
        }
    }
}

/// CN11: `end()` in each step, on real sockets.
#[test]
fn ending_works_in_each_step_of_connecting() {
    for step in 0..4 {
        let (listener, addr) = listener();
        let mut story = Transcript::new();
        let client = story.reactor.connect(addr, ConnectOptions::default()).expect("an address");
        for told in 0..4 {
            if told == step {
                story.socket(client).end();
            }
            let expected = [What::Lookup(addr.ip()), What::Connect, What::Ready];
            if let Some(expected) = expected.into_iter().nth(told) {
                story.expect(client, expected);
            }
        }
        let server: TcpStream = listener.accept().expect("it has connected").0;
        server.set_read_timeout(Some(PATIENCE)).expect("not zero");
        story.turn();
        assert_eq!(server.peek(&mut [0]).expect("a clean end"), 0, "step {step}");
        drop(server);
        story.expect(client, What::End);
        assert_eq!(story.close(client).kind, EndingKind::Confirmed);
        story.rest();
    }
}
