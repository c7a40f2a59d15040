//! What a socket can report.

use finale::lifecycle::State;
use finale::{ConnectOptions, Event, ListenOptions};

use super::{Pair, SECOND, Who};

/// N82: from connect or accept up to `close`, and in the report.
#[test]
fn n82_the_peers_address_is_known_up_to_close() {
    let mut pair = Pair::new(ListenOptions::default(), ConnectOptions::default());
    let mut all = Vec::new();
    pair.run(SECOND, |who, socket, event| {
        if matches!((who, event), (Who::C, Event::Ready) | (Who::S, Event::End)) {
            socket.end();
        }
        all.push(socket.peer_addr());
    });
    assert!(all.len() > 7 && all.iter().all(Option::is_some), "{all:?}");
    assert!(pair.endings.iter().all(|(_, ending)| ending.peer.is_some()));
}

/// N83: one state of the table at each moment, closed only with `close`.
#[test]
fn n83_the_state_says_where_the_socket_is() {
    let mut pair = Pair::new(ListenOptions::default(), ConnectOptions::default());
    assert_eq!(pair.client().state(), State::Created);
    let mut states = Vec::new();
    pair.run(SECOND, |who, socket, event| {
        if who == Who::C && states.last() != Some(&socket.state()) {
            states.push(socket.state());
        }
        if matches!((who, event), (Who::C, Event::Ready) | (Who::S, Event::End)) {
            socket.end();
        }
    });
    assert_eq!(states, [State::Connecting, State::Open, State::Confirmed, State::Closed]);
}
