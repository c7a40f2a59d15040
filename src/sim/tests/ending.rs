//! FIN, RST, close: which end notices what, and how often.

use super::*;

#[test]
fn half_close_works_in_both_directions() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    peer.send(b"request");
    peer.finish();
    assert_eq!(edge(&mut host, SECOND), flags("in out rdhup"));
    assert_eq!(read(&mut host), Ok(b"request".to_vec()));
    assert_eq!(read(&mut host), Ok(vec![]));
    network.advance(SECOND);
    host.send(0, b"answer", false).expect("room");
    network.advance(MS);
    assert_eq!(peer.read(), b"answer");
    assert!(!peer.has_fin());

    let (_network, mut host, peer) = accepted(&ListenOptions::default());
    host.finish(0).expect("open");
    assert_eq!(failed(host.send(0, b"x", false)), Errno::PIPE);
    assert_eq!(edge(&mut host, SECOND), flags("out"));
    assert!(!peer.has_fin());
    // The step to FIN-WAIT-2.
    assert_eq!(edge(&mut host, SECOND), flags("out"));
    assert!(peer.has_fin());
    peer.send(b"late");
    assert_eq!(edge(&mut host, SECOND), flags("in out"));
    assert!(!host.acknowledged(0).expect("alive"));
    peer.finish();
    assert_eq!(edge(&mut host, SECOND), flags("in out rdhup hup"));
    // Both FINs were exchanged, and the answer can still be read.
    assert!(host.acknowledged(0).expect("clean"));
    assert_eq!(read(&mut host), Ok(b"late".to_vec()));
    assert_eq!(read(&mut host), Ok(vec![]));
}

#[test]
fn the_hang_up_comes_before_the_acknowledgement_and_again_with_it() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    peer.finish();
    assert_eq!(edge(&mut host, SECOND), flags("in out rdhup"));
    host.finish(0).expect("open");
    assert_eq!(edge(&mut host, Duration::ZERO), flags("in out rdhup hup"));
    assert!(!host.acknowledged(0).expect("no error"));
    network.vanish(CLIENT);
    assert_eq!(edge(&mut host, SECOND), flags(""));
    assert!(!host.acknowledged(0).expect("no error"));
    network.heal(CLIENT);
    assert_eq!(edge(&mut host, 2 * SECOND), flags("in out rdhup hup"));
    assert!(host.acknowledged(0).expect("clean"));
    assert_eq!(edge(&mut host, 99 * SECOND), flags(""));
    drop(peer);
}

#[test]
fn without_latency_the_acknowledgement_is_there_when_finish_returns() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    network.set_latency(Duration::ZERO);
    peer.finish();
    assert_eq!(edge(&mut host, SECOND), flags("in out rdhup"));
    host.finish(0).expect("open");
    assert!(host.acknowledged(0).expect("clean"));
    assert_eq!(edge(&mut host, SECOND), flags("in out rdhup hup"));
    assert_eq!(edge(&mut host, SECOND), flags(""));
}

#[test]
fn crossing_fins_end_cleanly_on_both_sides() {
    let (_network, mut host, peer) = accepted(&ListenOptions::default());
    host.finish(0).expect("open");
    peer.finish();
    assert_eq!(edge(&mut host, Duration::ZERO), flags("out"));
    assert_eq!(edge(&mut host, SECOND), flags("in out rdhup hup"));
    assert!(!host.acknowledged(0).expect("CLOSING"));
    assert_eq!(edge(&mut host, SECOND), flags("in out rdhup hup"));
    assert!(host.acknowledged(0).expect("clean"));
    assert!(peer.has_fin() && peer.is_acknowledged() && !peer.is_reset());
}

#[test]
fn closing_with_unread_bytes_resets_and_loses_the_answer() {
    let (network, mut host, peer) = accepted(&ListenOptions::default().receive_buffer_size(100));
    peer.send(b"unread");
    assert_eq!(edge(&mut host, SECOND), flags("in out"));
    host.send(0, b"answer", false).expect("room");
    host.close(0);
    network.advance(MS);
    // What was in its buffer before the RST arrived survives.
    assert!(peer.is_reset());
    assert_eq!(peer.read(), b"answer");
    peer.reset();
    assert_eq!(network.open_connections(), 0);
}

#[test]
fn a_closed_connection_is_delivered_by_the_kernel_alone() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    host.send(0, &[1; 200_000], false).expect("room");
    host.close(0);
    assert_eq!(network.descriptors(), 1);
    let mut got = 0;
    while !peer.has_fin() {
        network.advance(MS);
        got += peer.read().len();
    }
    assert_eq!(got + peer.read().len(), 200_000);
    peer.close();
    network.advance(SECOND);
    assert_eq!(network.open_connections(), 0);
}

#[test]
fn bytes_for_a_closed_socket_are_answered_with_a_reset() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    host.close(0);
    network.advance(SECOND);
    assert!(peer.has_fin());
    peer.send(b"too late");
    network.advance(SECOND);
    assert!(peer.is_reset());
    peer.reset();
    assert_eq!(network.open_connections(), 0);
}

#[test]
fn an_orphan_is_forgotten_after_a_minute_and_a_later_fin_is_reset() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    host.close(0);
    network.advance(Duration::from_secs(70));
    assert_eq!(network.open_connections(), 1);
    peer.finish();
    network.advance(SECOND);
    assert!(peer.has_fin() && peer.is_reset());
}

/// Linux's tcp_probe_timer, for the usual tcp_orphan_retries: the waits of 0.2 s and so on double until
/// one of 120 s was in vain.
#[test]
fn an_orphan_awaits_a_window_for_five_minutes_whatever_its_peer_acknowledges() {
    for (pause, is_reset) in [(300, false), (400, true)] {
        let (network, mut host, peer) = accepted(&ListenOptions::default());
        network.set_buffers(1_000_000, 1000);
        let written = host.send(0, &[b'x'; 200_000], false).expect("room");
        host.close(0);
        network.advance(Duration::from_secs(pause));
        assert_eq!(network.open_connections(), 2 - usize::from(is_reset));
        let mut got = 0;
        for _ in 0..1000 {
            got += peer.read().len();
            network.advance(SECOND);
        }
        assert_eq!((peer.is_reset(), got < written), (is_reset, is_reset));
    }
}

#[test]
fn a_reset_over_unread_bytes_is_sent_although_both_fins_were() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    peer.send(b"unread");
    peer.finish();
    network.advance(SECOND);
    network.lose_next(AT.ip(), 1);
    host.finish(0).expect("open");
    host.reset(0);
    network.advance(SECOND);
    assert!(peer.is_reset() && !peer.has_fin());
}

#[test]
fn a_reset_keeps_what_was_received_and_is_told_once() {
    let (_network, mut host, peer) = accepted(&ListenOptions::default());
    peer.send(b"abc");
    peer.reset();
    assert_eq!(edge(&mut host, SECOND), flags("in out rdhup hup err"));
    assert_eq!(read(&mut host), Ok(b"abc".to_vec()));
    assert_eq!(read(&mut host), Err(Errno::CONNRESET));
    assert_eq!(read(&mut host), Ok(vec![]));
    assert!(host.take_error(0).is_none());
    assert_eq!(failed(host.send(0, b"x", false)), Errno::PIPE);
    assert_eq!(failed(host.finish(0)), Errno::NOTCONN);
    // A shutdown(2) that fails also wakes (checked on Linux 6.18); nothing follows.
    assert_eq!(edge(&mut host, SECOND), flags("in out rdhup hup"));
    assert_eq!(edge(&mut host, SECOND), flags(""));
}

#[test]
fn whoever_reads_the_error_first_holds_the_only_proof() {
    let (_network, mut host, peer) = accepted(&ListenOptions::default());
    peer.send(b"abc");
    peer.reset();
    assert_eq!(edge(&mut host, SECOND), flags("in out rdhup hup err"));
    assert_eq!(failed(host.send(0, b"x", false)), Errno::CONNRESET);
    assert_eq!(failed(host.send(0, b"x", false)), Errno::PIPE);
    assert_eq!(read(&mut host), Ok(b"abc".to_vec()));
    assert_eq!(read(&mut host), Ok(vec![]));
}

#[test]
fn an_overtaking_reset_destroys_what_is_in_flight() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    network.set_faults(Faults { reset_overtakes: 1.0, ..Faults::none() });
    peer.send(b"abc");
    peer.reset();
    assert_eq!(edge(&mut host, SECOND), flags("in out rdhup hup err"));
    assert_eq!(read(&mut host), Err(Errno::CONNRESET));
}

#[test]
fn a_reset_behind_their_fin_is_hidden_from_readers() {
    let (_network, mut host, peer) = accepted(&ListenOptions::default());
    host.send(0, b"never read", false).expect("room");
    peer.send(b"answer");
    peer.finish();
    assert_eq!(edge(&mut host, 5 * MS), flags("in out rdhup"));
    peer.close();
    assert_eq!(edge(&mut host, SECOND), flags("in out rdhup hup err"));
    assert_eq!(read(&mut host), Ok(b"answer".to_vec()));
    assert_eq!(read(&mut host), Ok(vec![]));
    assert_eq!(host.take_error(0).as_ref().map(errno), Some(Errno::PIPE));
}

#[test]
fn a_reset_instead_of_the_last_acknowledgement_is_an_error() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    peer.finish();
    assert_eq!(edge(&mut host, SECOND), flags("in out rdhup"));
    network.vanish(CLIENT);
    host.finish(0).expect("open");
    assert_eq!(edge(&mut host, Duration::ZERO), flags("in out rdhup hup"));
    peer.reset();
    network.heal(CLIENT);
    assert_eq!(edge(&mut host, SECOND), flags("in out rdhup hup err"));
    assert_eq!(failed(host.acknowledged(0)), Errno::CONNRESET);
}

#[test]
fn the_first_write_into_a_closed_peer_succeeds() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    peer.close();
    assert_eq!(edge(&mut host, SECOND), flags("in out rdhup"));
    assert_eq!(host.send(0, b"one", false).expect("taken"), 3);
    assert_eq!(edge(&mut host, SECOND), flags("in out rdhup hup err"));
    assert_eq!(failed(host.send(0, b"two", false)), Errno::PIPE);
    host.close(0);
    assert_eq!(network.open_connections(), 0);
}

#[test]
fn an_aborted_connection_says_so_here_and_resets_there() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    assert!(network.abort(AT, peer.local_addr().expect("open")));
    assert_eq!(edge(&mut host, SECOND), flags("in out rdhup hup err"));
    assert_eq!(read(&mut host), Err(Errno::CONNABORTED));
    network.advance(SECOND);
    assert!(peer.is_reset());
}

#[test]
fn an_icmp_error_on_a_living_connection_shows_in_no_flag_and_is_not_taken_for_its_end() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    let client = peer.local_addr().expect("open");
    assert!(network.unreachable(AT, client));
    assert_eq!(edge(&mut host, SECOND), flags(""));
    assert_eq!(host.send(0, b"x", false).expect("it lives"), 1);
    assert!(host.take_error(0).is_none());
    assert!(!network.unreachable(client, client));
}

#[test]
fn a_deaf_end_drops_what_arrives_and_still_sends() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    let client = peer.local_addr().expect("open");
    assert!(network.set_deaf(AT, client, true));
    peer.send(b"unheard");
    peer.finish();
    assert_eq!(host.send(0, b"answer", false).expect("it lives"), 6);
    assert_eq!(edge(&mut host, SECOND), flags(""));
    assert_eq!(peer.read(), b"answer");
    // Neither end knows that the other has its bytes.
    let unacked = |views: Vec<crate::net::KernelView>| views.iter().map(|view| view.unacked).collect::<Vec<_>>();
    assert_eq!((unacked(network.kernel_views(SERVER)), unacked(network.kernel_views(CLIENT))), (vec![6], vec![8]));
    assert!(network.set_deaf(AT, client, false));
    assert_eq!(edge(&mut host, Duration::from_secs(10)), flags("in out rdhup"));
    assert!(!network.set_deaf(client, client, true));
}

#[test]
fn news_can_be_made_up() {
    let (_network, mut host, _peer) = accepted(&ListenOptions::default());
    assert!(host.make_up(0, flags("err")));
    assert_eq!(edge(&mut host, SECOND), flags("err"));
    assert_eq!(edge(&mut host, SECOND), flags(""));
    host.close(0);
    assert!(!host.make_up(0, flags("err")), "there is no connection to report");
}
