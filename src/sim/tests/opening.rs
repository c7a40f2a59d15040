//! Listening, connecting, accepting, names.

use super::*;

#[test]
fn a_handshake_takes_a_round_trip_for_the_client_and_half_of_one_more_for_the_server() {
    let network = Network::new(1);
    let mut host = network.host(SERVER);
    host.listen(3, AT, &ListenOptions::default()).expect("free");
    host.connect(0, TOKEN, AT, &SystemOptions::default(), None).expect("a route");
    assert!(!host.connected(0).expect("under way"));
    assert_eq!(news(&mut host, MS), []);
    assert_eq!(news(&mut host, SECOND), [(TOKEN, flags("out"))]);
    assert_eq!(network.elapsed(), 2 * MS);
    assert!(host.connected(0).expect("established"));
    assert_eq!(failed(host.accept(3, 1)), Errno::WOULDBLOCK);
    assert_eq!(news(&mut host, SECOND), [(Token { index: 3, generation: 0 }, flags("in"))]);
    assert_eq!(network.elapsed(), 3 * MS);
    assert_eq!(host.accept(3, 1).expect("one waits"), Some(host.local_addr(0).expect("bound")));
    assert_eq!(host.local_addr(1).expect("bound"), AT);
    assert_eq!(news(&mut host, SECOND), []);
}

#[test]
fn nobody_listening_is_a_refusal_told_once() {
    let network = Network::new(1);
    let mut host = network.host(CLIENT);
    host.connect(0, TOKEN, AT, &SystemOptions::default(), None).expect("a route");
    assert_eq!(edge(&mut host, SECOND), flags("in out rdhup hup err"));
    assert_eq!(network.elapsed(), 2 * MS);
    assert_eq!(failed(host.connected(0)), Errno::CONNREFUSED);
    assert!(!host.connected(0).expect("delivered already"));
    host.close(0);
    assert_eq!((network.open_connections(), network.descriptors()), (0, 0));
}

#[test]
fn unreachable_addresses_fail_in_four_ways() {
    let network = Network::new(1);
    let mut host = network.host(CLIENT);
    let mut try_it = |reach| {
        network.set_reach(SERVER, reach);
        let result = host.connect(0, TOKEN, AT, &SystemOptions::default(), None);
        result.map(|()| (edge(&mut host, Duration::from_secs(200)), failed(host.connected(0))))
    };
    assert_eq!(failed(try_it(Reach::NoRoute)), Errno::NETUNREACH);
    assert_eq!(failed(try_it(Reach::Prohibited)), Errno::ACCESS);
    // ERR without OUT; mio calls that write-closed.
    assert_eq!(try_it(Reach::Unreachable).expect("late"), (flags("err hup"), Errno::HOSTUNREACH));
    host.close(0);
    let begun = network.elapsed();
    network.set_reach(SERVER, Reach::BlackHole);
    host.connect(0, TOKEN, AT, &SystemOptions::default(), None).expect("late");
    assert_eq!(edge(&mut host, Duration::from_secs(200)), flags("in out rdhup hup err"));
    assert_eq!(failed(host.connected(0)), Errno::TIMEDOUT);
    assert_eq!(network.elapsed() - begun, Duration::from_secs(127));
}

#[test]
fn an_icmp_error_that_nobody_reads_does_not_stop_the_handshake() {
    let network = Network::new(1);
    let mut host = network.host(CLIENT);
    let _listener = network.peer(SERVER).listen(AT).expect("free");
    network.set_reach(SERVER, Reach::Unreachable);
    host.connect(0, TOKEN, AT, &SystemOptions::default(), None).expect("late");
    assert_eq!(edge(&mut host, SECOND), flags("err hup"));
    network.set_reach(SERVER, Reach::Open);
    assert_eq!(edge(&mut host, 2 * SECOND), flags("out err hup"));
    assert!(host.connected(0).expect("connected after all"));
    assert!(host.take_error(0).is_none());
}

#[test]
fn an_overflowing_backlog_delays_by_a_second_and_loses_nobody() {
    let network = Network::new(1);
    let mut host = network.host(SERVER);
    host.listen(0, AT, &ListenOptions::default().backlog(1)).expect("free");
    let peers: Vec<PeerSocket> = (0..3).map(|_| network.peer(CLIENT).connect(AT).expect("a route")).collect();
    network.advance(500 * MS);
    let connected = |peers: &[PeerSocket]| peers.iter().filter(|peer| peer.is_connected()).count();
    assert_eq!(connected(&peers), 2);
    assert_eq!(news(&mut host, Duration::ZERO), [(LISTENER, flags("in"))]);
    host.accept(0, 0).expect("one");
    network.advance(400 * MS);
    assert_eq!(connected(&peers), 2);
    network.advance(200 * MS);
    assert_eq!(connected(&peers), 3);
    host.accept(0, 1).expect("two");
    host.accept(0, 2).expect("three");
    assert_eq!(failed(host.accept(0, 3)), Errno::WOULDBLOCK);
}

#[test]
fn closing_a_listener_resets_those_who_wait_and_spares_the_accepted() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    let waiting = network.peer(CLIENT).connect(AT).expect("a route");
    network.advance(SECOND);
    host.unlisten(0);
    network.advance(SECOND);
    assert!(waiting.is_reset());
    assert!(peer.is_connected());
    host.listen(0, AT, &ListenOptions::default()).expect("the port is free again");
}

#[test]
fn a_client_dead_in_the_queue_is_accepted_and_then_fails() {
    let network = Network::new(1);
    let mut host = network.host(SERVER);
    host.listen(0, AT, &ListenOptions::default()).expect("free");
    let peer = network.peer(CLIENT).connect(AT).expect("a route");
    network.advance(SECOND);
    peer.reset();
    network.advance(SECOND);
    host.accept(0, 0).expect("one");
    assert_eq!(read(&mut host), Err(Errno::CONNRESET));
}

#[test]
fn an_address_is_taken_once_unless_both_want_to_share_it() {
    let network = Network::new(1);
    let (mut one, mut two) = (network.host(SERVER), network.host(SERVER));
    one.listen(0, AT, &ListenOptions::default()).expect("free");
    assert_eq!(failed(two.listen(0, AT, &ListenOptions::default().reuse_port(true))), Errno::ADDRINUSE);
    drop(one);
    let mut one = network.host(SERVER);
    one.listen(0, AT, &ListenOptions::default().reuse_port(true)).expect("free");
    two.listen(0, AT, &ListenOptions::default().reuse_port(true)).expect("shared");
    let elsewhere = SocketAddr::new(CLIENT, 7000);
    assert_eq!(failed(two.listen(1, elsewhere, &ListenOptions::default())), Errno::ADDRNOTAVAIL);
}

#[test]
fn local_ports_run_out_and_come_back() {
    let network = Network::new(1);
    network.set_ports(5000..=5001);
    let mut host = network.host(CLIENT);
    network.set_reach(SERVER, Reach::BlackHole);
    for slot in 0..2 {
        host.connect(slot, TOKEN, AT, &SystemOptions::default(), None).expect("a port");
    }
    assert_eq!(failed(host.connect(2, TOKEN, AT, &SystemOptions::default(), None)), Errno::ADDRNOTAVAIL);
    host.close(0);
    host.connect(2, TOKEN, AT, &SystemOptions::default(), None).expect("a port");
}

#[test]
fn a_dead_port_that_is_given_out_as_its_own_connects_to_itself() {
    let network = Network::new(1);
    network.set_ports(5000..=5000);
    network.record();
    let mut host = network.host(CLIENT);
    let addr = SocketAddr::from(([127, 0, 0, 1], 5000));
    host.connect(0, TOKEN, addr, &SystemOptions::default(), None).expect("a port");
    assert_eq!(edge(&mut host, SECOND), flags("out"));
    assert_eq!(failed(host.connected(0)), Errno::CONNREFUSED);
    assert!(network.take_transcript().iter().all(|line| !line.contains("RST")));
    host.close(0);
    network.advance(200 * SECOND);
    assert_eq!((network.open_connections(), network.next_event()), (0, None));
}

#[test]
fn names_are_looked_up_in_their_own_time() {
    let network = Network::new(1);
    let mut host = network.host(CLIENT);
    network.name("two.test", vec![SERVER, CLIENT]);
    network.name("empty.test", vec![]);
    network.name_fails("later.test", LookupErrorKind::TryAgain);
    network.name_hangs("slow.test");
    for name in ["two.test", "empty.test", "later.test", "slow.test", "unknown.test", "10.0.0.1"] {
        host.lookup(TOKEN, name, 80).expect("it begins");
    }
    assert_eq!(host.looked_up(), None);
    assert_eq!(news(&mut host, SECOND), []);
    assert_eq!(network.elapsed(), MS, "the answers have ended the wait");
    let mut answers = Vec::new();
    while let Some((_, answer)) = host.looked_up() {
        answers.push(answer);
    }
    let both = vec![SocketAddr::new(SERVER, 80), SocketAddr::new(CLIENT, 80)];
    let causes = [LookupErrorKind::NoAddress, LookupErrorKind::TryAgain, LookupErrorKind::NotFound].map(Err);
    assert_eq!(answers[0], Ok(both));
    assert_eq!(answers[1..4], causes);
    assert_eq!(answers[4], Ok(vec![SocketAddr::new(SERVER, 80)]));
    assert_eq!(answers.len(), 5);
}

#[test]
fn a_full_machine_fails_calls_and_loses_nothing() {
    let network = Network::new(1);
    let mut host = network.host(SERVER);
    host.listen(0, AT, &ListenOptions::default()).expect("free");
    let _peer = network.peer(CLIENT).connect(AT).expect("a route");
    network.advance(SECOND);
    network.set_faults(Faults { accept_exhausted: 1.0, connect_exhausted: 1.0, ..Faults::none() });
    assert!(host.accept(0, 0).is_err());
    assert_eq!(failed(host.connect(0, TOKEN, AT, &SystemOptions::default(), None)), Errno::MFILE);
    network.set_faults(Faults { register_exhausted: 1.0, ..Faults::none() });
    host.accept(0, 0).expect("still there");
    assert_eq!(failed(host.register(0, TOKEN)), Errno::NOSPC);
    host.close(0);
    assert_eq!(network.descriptors(), 1);
}

#[test]
fn a_machine_without_memory_fails_each_call_once() {
    let network = Network::new(1);
    let mut host = network.host(SERVER);
    host.listen(0, AT, &ListenOptions::default()).expect("free");
    network.set_faults(Faults { no_memory: 1.0, ..Faults::none() });
    let is_short = |error| matches!(error, Errno::NOBUFS | Errno::NOMEM);
    assert!(is_short(failed(host.connect(0, TOKEN, AT, &SystemOptions::default(), None))));
    host.connect(0, TOKEN, AT, &SystemOptions::default(), None).expect("a route");
    host.set_accepting(0, false).expect("this needs no memory");
    assert!(is_short(failed(host.set_accepting(0, true))));
    network.advance(SECOND);
    assert_eq!(news(&mut host, Duration::ZERO), [(TOKEN, flags("out"))], "the listener is not watched");
    host.set_accepting(0, true).expect("there is memory");
    assert_eq!(news(&mut host, Duration::ZERO), [(LISTENER, flags("in"))]);
    assert!(is_short(failed(host.promote(0, 1, TOKEN))));
    assert_eq!(news(&mut host, Duration::ZERO), [(LISTENER, flags("in"))], "what has moved is not registered");
    host.register(1, TOKEN).expect("there is memory");
    assert!(is_short(failed(host.splice_in(1, &mut None, 10))));
    assert_eq!(host.splice_in(1, &mut None, 10).expect("there is memory"), 0, "and no byte");
}

#[test]
fn a_connection_that_was_forgotten_in_the_queue_does_not_hide_the_next_one() {
    let network = Network::new(1);
    let listener = network.peer(SERVER).listen(AT).expect("free");
    let _first = network.peer(CLIENT).connect(AT).expect("a route");
    network.advance(SECOND);
    network.forget(SERVER);
    let second = network.peer(CLIENT).connect(AT).expect("a route");
    network.advance(SECOND);
    assert!(second.is_connected());
    assert!(listener.accept().is_some_and(|accepted| accepted.is_connected()), "the second waits");
    assert!(listener.accept().is_none());
}

/// As on Linux, which reports nothing of what is closed.
#[test]
fn late_flags_of_an_attempt_that_has_lost_are_not_those_of_a_winner_without_memory() {
    let network = Network::new(1);
    let _listener = network.peer(SERVER).listen(AT).expect("the port is free");
    let mut host = network.host(CLIENT);
    for slot in [0, 1] {
        host.connect(slot, TOKEN, AT, &SystemOptions::default(), None).expect("begun");
    }
    network.advance(10 * MS);
    assert_eq!(news(&mut host, Duration::ZERO), [(TOKEN, flags("out")); 2]);
    assert!(host.connected(1).expect("no error"));
    network.set_faults(Faults { stale_news: 1.0, no_memory: 1.0, ..Faults::none() });
    host.reset(0);
    assert!(host.promote(1, 0, TOKEN).is_err(), "there is no memory");
    network.set_faults(Faults::none());
    assert_eq!(news(&mut host, Duration::ZERO), []);
    host.register(0, TOKEN).expect("there is memory again");
    assert_eq!(news(&mut host, Duration::ZERO), [(TOKEN, flags("out"))]);
}
