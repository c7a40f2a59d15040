//! Sockets of a pool that no program uses: what ends them, and what does not.

use std::net::SocketAddr;
use std::time::Duration;

use finale::sim::{Host, Network, PeerSocket, Reach};
use finale::{ConnectOptions, Event, Pool, PoolOptions, PoolReply, Reactor, Socket};

/// A pool of one on a simulated network where a server only listens, for a while.
fn with_a_silent_server(options: ConnectOptions, mut act: impl FnMut(&mut Pool, &mut finale::Socket<'_>)) -> Pool {
    let network = finale::sim::Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let at: SocketAddr = "10.0.0.2:80".parse().expect("an address");
    let _kept = network.peer([10, 0, 0, 2].into()).listen(at).expect("a free port");
    let mut pool = Pool::new(at, options, PoolOptions::default().size(1)).expect("good options");
    pool.request(&mut reactor.context());
    let until = network.now() + Duration::from_secs(5);
    while let Some((mut socket, event)) = reactor.next_before(until).expect("it can wait") {
        pool.handle(&mut socket, &event);
        act(&mut pool, &mut socket);
    }
    pool
}

#[test]
fn a_deadline_of_the_options_ends_no_unused_connection() {
    let limit = Duration::from_millis(100);
    let options = ConnectOptions::default().total_deadline(limit).deadline(limit);
    let pool = with_a_silent_server(options, |pool, socket| {
        if let Some((ticket, PoolReply::Leased(_))) = pool.next_reply(&mut socket.context()) {
            pool.give_back(ticket, &mut socket.context());
        }
    });
    assert_eq!((pool.stats().started, pool.stats().ready), (1, 1), "{:?}", pool.stats());
}

#[test]
fn a_socket_that_is_given_back_while_it_fills_a_buffer_is_replaced() {
    let pool = with_a_silent_server(ConnectOptions::default(), |pool, socket| {
        if let Some((ticket, PoolReply::Leased(id))) = pool.next_reply(&mut socket.context()) {
            socket.get(id).expect("it lives").fill(Vec::new(), 100).expect("it can read");
            pool.give_back(ticket, &mut socket.context());
        }
    });
    assert_eq!((pool.stats().started, pool.stats().ready), (2, 1), "{:?}", pool.stats());
}

/// A connection that a pool keeps ready, and that may want to say farewell. The other end is the
/// server's.
fn ready(says_farewell: bool) -> (Network, Reactor<Host>, Pool, PeerSocket) {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let at: SocketAddr = "10.0.0.2:80".parse().expect("an address");
    let listener = network.peer([10, 0, 0, 2].into()).listen(at).expect("a free port");
    let mut pool = Pool::new(at, ConnectOptions::default(), PoolOptions::default().size(1)).expect("good options");
    pool.open(&mut reactor.context());
    lines(&network, &mut reactor, |socket, event| {
        pool.handle(socket, event);
        socket.set_farewell(says_farewell);
    });
    assert_eq!(pool.stats().ready, 1);
    let server = listener.accept().expect("it is connected");
    (network, reactor, pool, server)
}

/// The events of a second.
fn lines(
    network: &Network,
    reactor: &mut Reactor<Host>,
    mut act: impl FnMut(&mut Socket<'_>, &Event<'_>),
) -> Vec<String> {
    let (mut lines, until) = (Vec::new(), network.now() + Duration::from_secs(1));
    while let Some((mut socket, event)) = reactor.next_before(until).expect("it can wait") {
        act(&mut socket, &event);
        lines.push(event.to_string());
    }
    lines
}

#[test]
fn the_timer_of_a_pool_that_is_dropped_in_the_same_turn_does_not_fire() {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    network.set_reach([10, 0, 0, 2].into(), Reach::BlackHole);
    let at: SocketAddr = "10.0.0.2:80".parse().expect("an address");
    let limit = Duration::from_millis(500);
    let options = PoolOptions::default().size(1).wait_limit(limit);
    let mut pool = Pool::new(at, ConnectOptions::default(), options).expect("good options");
    pool.request(&mut reactor.context());
    // In one tick the timer that was set last fires first.
    let own = reactor.set_timer(limit);
    let mut pool = Some(pool);
    let fired = lines(&network, &mut reactor, |socket, event| {
        match (event, &mut pool) {
            (Event::Timer(id), _) if *id == own => pool = None,
            (_, Some(pool)) => _ = pool.handle(socket, event),
            _ => {}
        };
    });
    assert_eq!(fired.iter().filter(|line| line.starts_with("timer")).count(), 1, "{fired:?}");
}

#[test]
fn what_a_server_sends_to_an_unused_connection_of_a_dropped_pool_is_nobodys_data() {
    let (network, mut reactor, pool, server) = ready(false);
    drop(pool);
    assert_eq!(lines(&network, &mut reactor, |_, _| {}), [""; 0]);
    assert!(server.has_fin());
    server.send(b"late");
    server.finish();
    let seen = lines(&network, &mut reactor, |_, _| {});
    assert!(seen.len() == 2 && seen[0] == "end" && seen[1].starts_with("close"), "{seen:?}");
}

#[test]
fn an_unused_connection_says_farewell_when_its_pool_is_dropped_and_reads_on() {
    let (network, mut reactor, pool, server) = ready(true);
    drop(pool);
    let said = lines(&network, &mut reactor, |socket, _| assert!(socket.is_farewell_due() && !socket.is_discarding()));
    assert_eq!(said, ["timeout"]);
    server.send(b"goodbye");
    assert_eq!(lines(&network, &mut reactor, |_, _| {}), ["data, 7 bytes"]);
    assert!(!server.has_fin());
}

#[test]
fn an_unused_connection_whose_peer_has_finished_ends_with_its_pool_and_says_no_farewell() {
    let (network, mut reactor, pool, server) = ready(true);
    server.finish();
    let mut pool = Some(pool);
    let seen = lines(&network, &mut reactor, |_, event| {
        if *event == Event::End {
            pool = None;
        }
    });
    assert_eq!(seen[0], "end");
    assert!(seen.len() == 2 && seen[1].starts_with("close") && server.has_fin(), "{seen:?}");
}
