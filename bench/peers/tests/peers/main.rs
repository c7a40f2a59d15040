//! Every server that is compared does the same in every mode, byte for byte, whatever its clients do.

mod checks;
mod running;

use std::io::Write as _;

use running::Peer;

macro_rules! peers {
    ($($name:ident: $program:expr, one_at_a_time: $one_at_a_time:expr;)*) => {
        const PEERS: &[Peer] = &[$(Peer {
            name: stringify!($name),
            program: $program,
            one_at_a_time: $one_at_a_time,
        }),*];

        $(mod $name {
            use crate::{checks, running::Peer};

            const PEER: Peer = Peer {
                name: stringify!($name),
                program: $program,
                one_at_a_time: $one_at_a_time,
            };

            #[test]
            fn every_answer_is_whole_and_right() {
                checks::answers(PEER);
            }

            #[test]
            fn every_answer_is_whole_when_the_server_finishes_first() {
                checks::finishes_first(PEER);
            }

            #[test]
            fn what_was_sent_comes_back() {
                checks::echoes(PEER);
            }

            #[test]
            fn two_hundred_clients_at_once_are_served() {
                checks::two_hundred_at_once(PEER);
            }

            #[test]
            fn half_a_request_waits_for_the_rest_and_keeps_nobody_waiting() {
                checks::half_a_request(PEER);
            }

            #[test]
            fn clients_that_reset_do_no_harm_to_others() {
                checks::resets(PEER);
            }

            #[test]
            fn a_long_answer_takes_little_memory() {
                checks::long_answers_from_little_memory(PEER);
            }

            #[test]
            fn a_client_that_does_not_read_its_echo_is_not_read_either() {
                checks::back_pressure(PEER);
            }

            #[test]
            fn sigterm_ends_it() {
                checks::ends_when_told(PEER);
            }

            #[test]
            fn a_wrong_command_line_is_refused() {
                checks::refuses_a_wrong_command_line(PEER);
            }
        })*
    };
}

peers! {
    tokio: Some(env!("CARGO_BIN_EXE_tokio-server")), one_at_a_time: false;
    mio: Some(env!("CARGO_BIN_EXE_mio-server")), one_at_a_time: false;
    smol: Some(env!("CARGO_BIN_EXE_smol-server")), one_at_a_time: false;
    epoll: None, one_at_a_time: false;
    threaded: None, one_at_a_time: false;
    blocking: None, one_at_a_time: true;
    libuv: None, one_at_a_time: false;
    usockets: None, one_at_a_time: false;
    node: None, one_at_a_time: false;
    go: None, one_at_a_time: false;
}

/// Printed past the test runner's own capture, so that a green result shows which servers it
/// covers.
#[test]
fn what_is_not_built_is_named() {
    for peer in PEERS.iter().filter(|peer| peer.path().is_none()) {
        let line = format!("skipped: {} is not built; bench/peers/build says why", peer.name);
        writeln!(std::io::stderr(), "{line}").expect("stderr is there");
    }
}
