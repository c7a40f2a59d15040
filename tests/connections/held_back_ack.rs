//! The confirmed close, with the acknowledgement held back: in a network of its own, where nft drops packets.
//!
//! On plain loopback the acknowledgement comes inside shutdown(2), and a reactor that takes EPOLLHUP for the proof passes
//! every test there.

use std::time::Duration;

use finale::{ConnectionErrorKind, FirstFin, ListenOptions, TimeoutKind};
use support::alone::{alone_in_a_network, shell};
use support::{Transcript, Way, What, held_back, ms};

/// Promise: close is confirmed: it waits for the acknowledgement, though epoll says HUP at once (CL01).
#[test]
fn close_waits_for_the_acknowledgement_and_comes_with_it() {
    alone_in_a_network("held_back_ack::close_waits_for_the_acknowledgement_and_comes_with_it", || {
        let (mut story, socket, mut peer) = held_back(ListenOptions::default(), Way::ToPeer);
        story.silence(ms(300));
        assert_eq!(story.socket(socket).state(), finale::lifecycle::State::Closing);
        shell("nft delete table ip held");
        let ending = story.close(socket);
        assert!(ending.is_acknowledged() && ending.first_fin == FirstFin::Peer, "{ending}");
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut peer, &mut bytes).expect("a clean end");
        assert_eq!(bytes, b"answer");
        story.rest();
    });
}

/// Promise: a FIN that is never acknowledged is no clean ending: the linger time ends it (CL04, CL14).
#[test]
fn a_fin_that_is_never_acknowledged_fails_at_the_linger_time() {
    alone_in_a_network("held_back_ack::a_fin_that_is_never_acknowledged_fails_at_the_linger_time", || {
        let (mut story, socket, _peer) = held_back(ListenOptions::default().close_timeout(ms(400)), Way::ToPeer);
        assert_eq!(story.error(socket).kind, ConnectionErrorKind::TimedOut(TimeoutKind::Close));
        assert!(!story.close(socket).is_acknowledged());
        story.rest();
    });
}

/// Promise: nor is one that the kernel has given up: state closed alone proves nothing (CL04).
#[test]
fn a_fin_that_the_kernel_gives_up_fails_as_timed_out_by_the_kernel() {
    alone_in_a_network("held_back_ack::a_fin_that_the_kernel_gives_up_fails_as_timed_out_by_the_kernel", || {
        let (mut story, socket, _peer) =
            held_back(ListenOptions::default().user_timeout(Duration::from_secs(1)), Way::ToPeer);
        assert_eq!(story.error(socket).kind, ConnectionErrorKind::TimedOut(TimeoutKind::Kernel));
        assert!(!story.close(socket).is_acknowledged());
        story.rest();
    });
}

/// Promise: nor is one that the peer resets in place of the last acknowledgement (CL05).
#[test]
fn a_reset_in_place_of_the_acknowledgement_is_no_clean_ending() {
    alone_in_a_network("held_back_ack::a_reset_in_place_of_the_acknowledgement_is_no_clean_ending", || {
        let (mut story, socket, peer) = held_back(ListenOptions::default(), Way::ToPeer);
        story.turn();
        support::reset(peer);
        assert_eq!(story.error(socket).kind, ConnectionErrorKind::Reset);
        assert!(!story.close(socket).is_acknowledged());
        story.rest();
    });
}

/// Promise: hand-off asks nobody: it is told at once, and claims nothing.
#[test]
fn a_hand_off_close_does_not_wait_for_it() {
    alone_in_a_network("held_back_ack::a_hand_off_close_does_not_wait_for_it", || {
        let (mut story, socket, _peer) =
            held_back(ListenOptions::default().close_mode(finale::CloseMode::HandOff), Way::ToPeer);
        let ending = story.close(socket);
        assert!(ending.is_clean() && !ending.is_acknowledged());
        shell("nft delete table ip held");
        story.rest();
    });
}

/// Promise: a connection refused by ICMP, for which epoll reports ERR alone, is told as what it is (CN03).
#[test]
fn a_handshake_that_a_filter_rejects_is_unreachable() {
    alone_in_a_network("held_back_ack::a_handshake_that_a_filter_rejects_is_unreachable", || {
        shell("nft add table ip held && nft 'add chain ip held in { type filter hook input priority 0; }'");
        for (icmp, cause) in
            [("host-unreachable", ConnectionErrorKind::Unreachable), ("port-unreachable", ConnectionErrorKind::Refused)]
        {
            shell(&format!(
                "nft flush chain ip held in && nft add rule ip held in tcp dport 9 reject with icmp {icmp}"
            ));
            let mut story = Transcript::new();
            let client = story.reactor.connect("127.0.0.1:9", finale::ConnectOptions::default()).expect("an address");
            assert!(matches!(story.next(client), What::Lookup(_)));
            assert_eq!(story.error(client).kind, cause);
            story.close(client);
            story.rest();
        }
    });
}
