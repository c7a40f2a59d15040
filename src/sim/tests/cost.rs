//! Calls and handlers that take time, and a process that is stopped.

use super::*;
use crate::reactor::Reactor;

const COST: Duration = Duration::from_micros(30);

#[test]
fn each_call_that_a_real_net_makes_of_the_system_takes_its_time_and_no_other_does() {
    let (network, mut host, _peer) = accepted(&ListenOptions::default());
    network.set_call_cost(COST);
    let took = |call: &mut dyn FnMut(&mut Host), host: &mut Host| {
        let before = network.elapsed();
        call(host);
        network.elapsed() - before
    };
    let free: [&mut dyn FnMut(&mut Host); 3] =
        [&mut |host| _ = host.now(), &mut |host| drop(host.waker()), &mut |host| drop(host.looked_up())];
    for call in free {
        assert_eq!(took(call, &mut host), Duration::ZERO);
    }
    let costly: [&mut dyn FnMut(&mut Host); 6] = [
        &mut |host| drop(host.send(0, b"x", false)),
        &mut |host| drop(host.recv(0, &mut [0; 9])),
        &mut |host| drop(host.take_error(0)),
        &mut |host| drop(host.accept(0, 1)),
        &mut |host| drop(host.finish(0)),
        &mut |host| host.close(0),
    ];
    for call in costly {
        assert_eq!(took(call, &mut host), COST);
    }
    assert_eq!(network.busy(), 6 * COST);
}

#[test]
fn what_falls_into_a_call_has_happened_when_it_looks() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    peer.send(b"late");
    assert_eq!(read(&mut host), Err(Errno::WOULDBLOCK));
    network.set_call_cost(2 * MS);
    assert_eq!(read(&mut host), Ok(b"late".to_vec()), "its packet took one of the two milliseconds");
}

#[test]
fn a_poll_that_costs_ends_its_wait_at_its_time_and_has_handed_everything_over() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    network.set_call_cost(COST);
    let until = host.now() + SECOND;
    let polled = host.poll(host.now(), Some(SECOND), &mut |_, _| panic!("nothing happens")).expect("it can wait");
    assert_eq!((polled.complete_until, host.now()), (until, until), "the cost is a part of the wait");
    peer.send(b"x");
    network.spend(10 * MS);
    assert_eq!(network.busy(), COST + 10 * MS);
    let before = host.now();
    let mut told = 0;
    let polled = host.poll(before, Some(Duration::ZERO), &mut |_, _| told += 1).expect("it need not wait");
    assert_eq!((polled.complete_until, told), (before + COST, 1));
}

#[test]
fn a_stall_lies_between_the_answer_and_the_next_step() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    network.set_faults(Faults { stall: 1.0, ..Faults::none() });
    let until = host.now() + SECOND;
    let polled = host.poll(host.now(), Some(SECOND), &mut |_, _| panic!("nothing happens")).expect("it can wait");
    let stalled = host.now() - until;
    assert!(stalled > MS && stalled < 3 * SECOND, "{stalled:?}");
    assert_eq!(polled.complete_until, until, "what came during the stall was not handed over");
    assert_eq!(network.busy(), stalled);
    peer.send(b"x");
    network.set_faults(Faults::none());
    assert_eq!(edge(&mut host, SECOND), flags("in out"));
}

#[test]
fn an_old_clock_says_when_the_wait_began() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    network.set_faults(Faults { old_clock: 1.0, ..Faults::none() });
    peer.send(b"x");
    let began = host.now();
    let polled = host.poll(began, Some(SECOND), &mut |_, _| {}).expect("it can wait");
    assert_eq!((polled.complete_until, host.now()), (began, began + MS));
    let polled = host.poll(host.now(), Some(Duration::ZERO), &mut |_, _| {}).expect("it need not wait");
    assert_eq!(polled.complete_until, began + MS, "without a wait the clock is not old");
}

#[test]
fn a_program_that_spins_is_found_although_its_polls_take_time() {
    let (network, mut host, _peer) = accepted(&ListenOptions::default());
    network.set_call_cost(COST);
    let spun = (0..200_000).find_map(|_| host.poll(host.now(), Some(Duration::ZERO), &mut |_, _| {}).err());
    assert_eq!(spun.map(|error| errno(&error)), Some(Errno::LOOP));
}

#[test]
fn a_turn_costs_what_is_spent_from_one_poll_to_the_next() {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host(SERVER));
    network.set_call_cost(COST);
    for ms in 1..5 {
        reactor.set_timer(ms * MS);
    }
    for ms in 1..5 {
        reactor.next().expect("it can wait").expect("a timer");
        network.spend(Duration::from_micros(ms));
        assert_eq!(network.longest_turn(0), (COST + Duration::from_micros(ms)).as_nanos() as u64);
    }
}
