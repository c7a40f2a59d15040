//! The confirmed close while the acknowledgement is held back, in a network of the test's own,
//! where nft drops packets.
//!
//! On plain loopback the acknowledgement arrives inside shutdown(2), and a reactor that takes
//! EPOLLHUP for the proof passes every test there.

use std::time::Duration;

use finale::{ConnectionErrorKind, FirstFin, ListenOptions, TimeoutKind};
use support::alone::{alone_in_a_network, shell};
use support::{Way, held_back, ms};

/// Promise: close is confirmed: it waits for the acknowledgement, although epoll reports HUP at
/// once (CL01).
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

/// Promise: a close is not confirmed if the kernel has given the connection up: state closed alone
/// proves nothing (CL04).
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

/// Promise: a close fails if the peer sends a reset instead of the last acknowledgement (CL05).
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

/// Promise: a hand-off waits for no acknowledgement: `close` is delivered at once, and claims none.
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
