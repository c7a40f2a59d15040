//! The clock, timers, and a network that is down.

use super::*;

#[test]
fn a_wait_that_nothing_can_end_is_an_error() {
    let network = Network::new(1);
    let mut host = network.host(SERVER);
    host.listen(0, AT, &ListenOptions::default()).expect("free");
    let endless = |host: &mut Host| host.poll(host.now(), None, &mut |_, _| panic!("there is no news"));
    assert_eq!(endless(&mut host).expect_err("deadlock").kind(), io::ErrorKind::Deadlock);
    host.waker()();
    assert!(!endless(&mut host).expect("woken").more);
    assert_eq!(endless(&mut host).expect_err("the wake is used up").kind(), io::ErrorKind::Deadlock);
    // Probes of a closed window never end, and are no reason to wait.
    let peer = network.peer(CLIENT).connect(AT).expect("a route");
    network.set_buffers(10, 10);
    assert_eq!(news(&mut host, SECOND), [(LISTENER, flags("in"))]);
    host.accept(0, 0).expect("one");
    peer.send(&[1; 100_000]);
    assert_eq!(endless(&mut host).expect_err("the peer does not read").kind(), io::ErrorKind::Deadlock);
}

#[test]
fn a_wait_ends_exactly_at_its_time_and_looks_at_the_network_first() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    let begun = network.elapsed();
    assert_eq!(edge(&mut host, Duration::from_nanos(700_001)), flags(""));
    assert_eq!(network.elapsed() - begun, Duration::from_nanos(700_001));
    peer.send(b"in the same nanosecond");
    assert_eq!(edge(&mut host, MS), flags("in out"));
}

#[test]
fn no_host_sleeps_past_the_deadline_or_the_news_of_another() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    let mut other = network.host(CLIENT);
    assert_eq!(news(&mut other, SECOND), []);
    let begun = network.elapsed();
    peer.send(b"for the first host");
    assert_eq!(news(&mut other, SECOND), []);
    assert_eq!(network.elapsed() - begun, MS);
    assert_eq!(edge(&mut host, Duration::ZERO), flags("in out"));
    assert_eq!(edge(&mut host, 5 * SECOND), flags(""));
    assert_eq!(network.elapsed() - begun, SECOND, "the other host wanted to wake then");
}

#[test]
fn a_vanished_machine_is_found_by_keep_alive_only_when_nothing_is_in_flight() {
    let times = KeepAlive { idle: SECOND, interval: SECOND, count: 2 };
    let (network, mut host, peer) = accepted(&ListenOptions::default().keep_alive(times));
    assert_eq!(edge(&mut host, 50 * SECOND), flags(""), "a living kernel answers, whatever its program does");
    let begun = network.elapsed();
    network.vanish(CLIENT);
    assert_eq!(edge(&mut host, 50 * SECOND), flags("in out rdhup hup err"));
    assert_eq!(read(&mut host), Err(Errno::TIMEDOUT));
    let waited = network.elapsed() - begun;
    assert!((2 * SECOND..=3 * SECOND + 10 * MS).contains(&waited), "{waited:?}");
    drop(peer);

    let (network, mut host, peer) = accepted(&ListenOptions::default().keep_alive(times));
    assert!(network.unreachable(AT, peer.local_addr().expect("open")));
    network.vanish(CLIENT);
    assert_eq!(edge(&mut host, 50 * SECOND), flags("in out rdhup hup err"));
    assert_eq!(read(&mut host), Err(Errno::HOSTUNREACH), "what a router has reported is the cause");

    let (network, mut host, peer) = accepted(&ListenOptions::default().keep_alive(times));
    assert!(network.unreachable(AT, peer.local_addr().expect("open")));
    peer.send(b"I am here");
    assert_eq!(edge(&mut host, MS), flags("in out"));
    network.vanish(CLIENT);
    assert_eq!(edge(&mut host, 50 * SECOND), flags("in out rdhup hup err"));
    assert_eq!(read(&mut host), Ok(b"I am here".to_vec()));
    assert_eq!(read(&mut host), Err(Errno::TIMEDOUT), "the peer was reached again");

    let (network, mut host, _peer) = accepted(&ListenOptions::default().keep_alive(times));
    network.vanish(CLIENT);
    host.send(0, b"x", false).expect("room");
    assert_eq!(edge(&mut host, 60 * SECOND), flags(""));
    assert_eq!(edge(&mut host, 3000 * SECOND), flags("in out rdhup hup err"));
    assert_eq!(host.take_error(0).as_ref().map(errno), Some(Errno::TIMEDOUT));
}

#[test]
fn what_was_lost_is_repeated_after_the_network_heals() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    network.vanish(CLIENT);
    host.send(0, b"answer", false).expect("room");
    host.finish(0).expect("open");
    network.advance(10 * SECOND);
    assert_eq!((peer.read(), peer.has_fin()), (vec![], false));
    network.heal(CLIENT);
    network.advance(10 * SECOND);
    assert_eq!((peer.read(), peer.has_fin()), (b"answer".to_vec(), true));
}

#[test]
fn a_lost_last_acknowledgement_is_given_again_by_a_peer_that_is_gone() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    peer.finish();
    network.advance(SECOND);
    host.finish(0).expect("open");
    // Our FIN arrives; its acknowledgement does not.
    network.advance(MS);
    network.vanish(CLIENT);
    network.advance(SECOND);
    peer.close();
    assert!(!host.acknowledged(0).expect("no error"));
    network.heal(CLIENT);
    network.advance(SECOND);
    assert!(host.acknowledged(0).expect("clean"));
}

#[test]
fn a_restarted_peer_answers_the_next_bytes_with_a_reset() {
    let (network, mut host, _peer) = accepted(&ListenOptions::default());
    network.forget(CLIENT);
    assert_eq!(edge(&mut host, 60 * SECOND), flags(""));
    host.send(0, b"x", false).expect("room");
    assert_eq!(edge(&mut host, SECOND), flags("in out rdhup hup err"));
    assert_eq!(read(&mut host), Err(Errno::CONNRESET));
}

#[test]
fn a_program_of_a_restarted_machine_is_gone_without_a_packet() {
    let (network, _host, peer) = accepted(&ListenOptions::default());
    network.record();
    network.forget(SERVER);
    network.advance(60 * SECOND);
    assert!(network.take_packets().is_empty());
    peer.send(b"x");
    network.advance(SECOND);
    assert!(peer.is_reset());
}

#[test]
fn as_many_packets_are_lost_as_was_wished_and_then_repeated() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    network.record();
    network.lose_next(SERVER, 2);
    host.send(0, b"answer", false).expect("room");
    network.advance(10 * SECOND);
    let packets = network.take_packets();
    let lost = packets.iter().filter(|packet| packet.arrives.is_none()).count();
    assert_eq!((lost, peer.read()), (2, b"answer".to_vec()));
}

#[test]
fn packets_that_are_held_on_the_wire_go_on_at_their_time() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    network.hold_until(network.now() + SECOND / 10);
    host.send(0, b"answer", false).expect("room");
    network.advance(SECOND / 10);
    assert_eq!(peer.read(), b"");
    network.advance(MS);
    assert_eq!(peer.read(), b"answer");
}

#[test]
fn readiness_of_a_frozen_program_is_no_event_until_it_runs_again() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    network.freeze(SERVER, true);
    peer.send(b"x");
    network.advance(SECOND);
    assert!(peer.is_acknowledged(), "the kernel answers");
    assert_eq!(network.next_event(), None);
    network.freeze(SERVER, false);
    assert_eq!(network.next_event(), Some(network.now()));
    assert_eq!(read(&mut host), Ok(b"x".to_vec()));
}

/// Also without one from the queue of a listener, whose clients a program that ends resets.
#[test]
fn a_client_that_waits_for_a_restarted_machine_gets_no_packet() {
    let network = Network::new(1);
    let mut host = network.host(SERVER);
    host.listen(0, AT, &ListenOptions::default()).expect("the port is free");
    let peer = network.peer(CLIENT).connect(AT).expect("there is a route");
    network.advance(SECOND);
    network.record();
    network.forget(SERVER);
    network.advance(60 * SECOND);
    assert_eq!((network.take_packets(), peer.is_reset()), (vec![], false));
}

/// Those whose handshake is under way at 1 ms, and those that wait to be accepted.
#[test]
fn a_power_cut_takes_no_room_in_the_queue_of_a_scripted_listener() {
    for until in [MS, SECOND] {
        let network = Network::new(1);
        let listener = network.peer(SERVER).listen_with(AT, &ListenOptions::default().backlog(1)).expect("it is free");
        for _ in 0..3 {
            let _client = network.peer(CLIENT).connect(AT).expect("there is a route");
            network.advance(until);
            network.forget(CLIENT);
            network.forget(SERVER);
            assert!(listener.accept().is_none(), "it is forgotten");
        }
        let _client = network.peer(CLIENT).connect(AT).expect("there is a route");
        network.advance(3 * MS);
        assert!(listener.accept().is_some(), "after {until:?}");
    }
}

#[test]
fn a_reset_that_overtakes_what_was_sent_before_it_is_held_on_the_wire_too() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    network.set_faults(Faults { reset_overtakes: 1.0, ..Faults::none() });
    network.hold_until(network.now() + SECOND);
    host.reset(0);
    network.advance(SECOND - MS);
    assert!(!peer.is_reset());
    network.advance(MS);
    assert!(peer.is_reset());
}
