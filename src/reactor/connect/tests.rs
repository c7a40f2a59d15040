use std::time::Duration;

use super::*;
use crate::event::Event;
use crate::sim::{Network, Reach};

#[test]
fn addresses_are_tried_once_each_with_families_alternating() {
    let addr = |text: &str| text.parse().expect("an address");
    let (a, b, c) = (addr("1.1.1.1:1"), addr("2.2.2.2:1"), addr("[::3]:1"));
    assert_eq!(in_order(vec![a, a, b, c]), [a, c, b]);
    assert_eq!(in_order(vec![c, a, b]), [c, a, b]);
    assert_eq!(in_order(vec![]), []);
}

#[test]
fn an_attempt_waits_for_what_passes_and_for_a_descriptor_only_if_there_are_other_addresses() {
    for (errno, alone, in_a_race) in [
        (Errno::NOMEM, true, true),
        (Errno::NOBUFS, true, true),
        (Errno::AGAIN, true, true),
        (Errno::MFILE, false, true),
        (Errno::NFILE, false, true),
        (Errno::CONNREFUSED, false, false),
        (Errno::ADDRNOTAVAIL, false, false),
    ] {
        let waits = [false, true].map(|is_race| has_to_wait(&errno.into(), is_race));
        assert_eq!(waits, [alone, in_a_race], "{errno:?}");
    }
}

#[test]
fn the_slots_of_the_other_attempts_are_free_after_a_race() {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let addrs = [2, 3, 4].map(|host| SocketAddr::from(([10, 0, 0, host], 80)));
    addrs[..2].iter().for_each(|addr| network.set_reach(addr.ip(), Reach::BlackHole));
    let _listener = network.peer(addrs[2].ip()).listen(addrs[2]).expect("a free port");
    for _ in 0..2 {
        let options = ConnectOptions::default().attempt_delay(Duration::from_millis(20));
        reactor.connect(addrs.to_vec(), options).expect("a list of addresses");
        let until = network.now() + Duration::from_millis(39);
        while reactor.next_before(until).expect("the network can wait").is_some() {}
        assert_eq!(reactor.table.reserved, 1, "the second attempt is in flight, the third not yet");
        loop {
            let (mut socket, event) = reactor.next().expect("the network can wait").expect("a socket lives");
            if event == Event::Ready {
                socket.destroy();
            } else if matches!(event, Event::Close(_)) {
                break;
            }
        }
        assert_eq!(reactor.table.reserved, 0);
        assert_eq!(reactor.table.entries.len(), 1, "the socket whose close is being handled");
    }
}

#[test]
fn what_an_attempt_reports_is_not_the_end_of_a_peer() {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    network.set_reach([10, 0, 0, 2].into(), Reach::BlackHole);
    let target = SocketAddr::from(([10, 0, 0, 2], 80));
    let id = reactor.connect(target, ConnectOptions::default()).expect("an address");
    let until = network.now() + Duration::from_millis(10);
    while reactor.next_before(until).expect("the network can wait").is_some() {}
    let slot = reactor.table.find(id).expect("it connects");
    reactor.table.entry_mut(slot).flags.set(Flags::READ_CLOSED | Flags::ERROR, true);
    let mut socket = reactor.socket(id).expect("it connects");
    assert!(!socket.peer_ended());
    socket.destroy();
    let (socket, event) = reactor.next().expect("the network can wait").expect("it is destroyed");
    assert!(matches!(event, Event::Close(_)) && !socket.peer_ended(), "{event:?}");
}
