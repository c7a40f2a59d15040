//! Sockets of a pool that no program uses: what ends them, and what does not.

use std::net::SocketAddr;
use std::time::Duration;

use finale::{ConnectOptions, Pool, PoolOptions, PoolReply, Reactor};

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
