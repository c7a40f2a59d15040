//! TIME-WAIT: which side has it, for how long, and what ends it.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// The states of the connections that the kernel of this machine knows.
fn states(network: &Network, machine: IpAddr) -> Vec<&'static str> {
    network.kernel_views(machine).iter().map(|view| view.state).collect()
}

/// The server has closed, and its peer's FIN comes later.
fn closed_by_the_server() -> (Network, Host, PeerSocket) {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    host.close(0);
    network.advance(SECOND);
    assert_eq!((states(&network, SERVER), states(&network, CLIENT)), (vec!["FIN-WAIT-2"], vec!["CLOSE-WAIT"]));
    (network, host, peer)
}

#[test]
fn the_side_that_finished_first_is_in_time_wait_for_a_minute_also_without_its_program() {
    let (network, host, peer) = closed_by_the_server();
    peer.close();
    network.advance(MS);
    assert_eq!(states(&network, SERVER), ["TIME-WAIT"]);
    network.advance(MS);
    assert_eq!((states(&network, CLIENT), network.open_connections()), (vec![], 0));
    drop(host);
    network.advance(MINUTE - 2 * MS);
    assert_eq!(states(&network, SERVER), ["TIME-WAIT"]);
    network.advance(MS);
    assert_eq!(states(&network, SERVER), [""; 0]);
}

#[test]
fn a_descriptor_does_not_prolong_time_wait() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    host.finish(0).expect("open");
    network.advance(SECOND);
    peer.finish();
    network.advance(2 * MS);
    let state = |host: &mut Host| host.kernel_view(0, None).map(|view| view.state);
    assert_eq!((states(&network, SERVER), state(&mut host)), (vec!["TIME-WAIT"], Some("TIME-WAIT")));
    assert_eq!(states(&network, CLIENT), ["CLOSED"], "after LAST-ACK only the descriptor is left");
    network.advance(MINUTE);
    assert_eq!((states(&network, SERVER), state(&mut host)), (vec![], Some("CLOSED")));
}

#[test]
fn both_sides_are_in_time_wait_after_fins_that_cross() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    host.close(0);
    peer.close();
    network.advance(SECOND);
    assert_eq!((states(&network, SERVER), states(&network, CLIENT)), (vec!["TIME-WAIT"], vec!["TIME-WAIT"]));
}

/// RFC 9293 section 3.6.1, case 3: CLOSING, and then TIME-WAIT on both sides.
#[test]
fn a_close_after_fins_that_have_crossed_changes_no_state() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    host.finish(0).expect("open");
    peer.finish();
    network.advance(MS);
    assert_eq!((states(&network, SERVER), states(&network, CLIENT)), (vec!["CLOSING"], vec!["CLOSING"]));
    host.finish(0).expect("the second call has no effect");
    host.close(0);
    peer.close();
    assert_eq!((states(&network, SERVER), states(&network, CLIENT)), (vec!["CLOSING"], vec!["CLOSING"]));
    network.advance(MS);
    assert_eq!((states(&network, SERVER), states(&network, CLIENT)), (vec!["TIME-WAIT"], vec!["TIME-WAIT"]));
}

/// The server has finished first, and the acknowledgement of the peer's FIN will be lost. `is_held`:
/// a program still has the descriptor.
fn lost_acknowledgement(is_held: bool) -> (Network, Host, PeerSocket) {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    host.finish(0).expect("open");
    network.advance(SECOND);
    if !is_held {
        host.close(0);
    }
    network.lose_next(SERVER, 1);
    peer.finish();
    (network, host, peer)
}

/// Its last acknowledgement was lost: the peer repeats its FIN.
#[test]
fn time_wait_lasts_from_the_last_repetition() {
    for is_held in [false, true] {
        let (network, _host, peer) = lost_acknowledgement(is_held);
        network.advance(SECOND);
        assert!(peer.is_acknowledged(), "after 204 ms and a round trip");
        network.advance(MINUTE - SECOND + 100 * MS);
        assert_eq!(states(&network, SERVER), ["TIME-WAIT"], "held: {is_held}");
        network.advance(200 * MS);
        assert_eq!(states(&network, SERVER), [""; 0], "held: {is_held}");
    }
}

#[test]
fn a_machine_that_is_restarted_forgets_time_wait_and_answers_with_a_reset() {
    for is_held in [false, true] {
        let (network, _host, peer) = lost_acknowledgement(is_held);
        network.advance(10 * MS);
        assert_eq!(states(&network, SERVER), ["TIME-WAIT"]);
        network.forget(SERVER);
        assert_eq!(states(&network, SERVER), [""; 0]);
        network.advance(SECOND);
        assert!(peer.is_reset() && !peer.is_acknowledged(), "held: {is_held}");
    }
}

/// It repeats its FIN, and is gone before the acknowledgement comes.
#[test]
fn a_reset_ends_time_wait() {
    let (network, _host, peer) = closed_by_the_server();
    network.lose_next(SERVER, 1);
    peer.finish();
    network.advance(204 * MS + MS / 2);
    assert_eq!(states(&network, SERVER), ["TIME-WAIT"]);
    network.forget(CLIENT);
    network.record();
    network.advance(2 * MS);
    assert_eq!(states(&network, SERVER), ["TIME-WAIT"]);
    network.advance(MS);
    assert_eq!(states(&network, SERVER), [""; 0]);
    assert_eq!(network.take_packets().len(), 2, "the acknowledgement, and the reset");
}
