//! Model checking: two lifecycles and a network between them, composed, and searched to the last
//! state.
//!
//! The table in `src/lifecycle/mod.rs` is the model. Only the inputs that can occur are written
//! here: two kernels with a handshake, data, FIN, RST and acknowledgements in flight, two callers
//! that may do anything at any time, timers, and kernels that give up. One piece of data is the
//! whole window and another fills the write queue, which is enough for every order of events and
//! keeps the number of states finite.
//!
//! Checked in every state: no input that can occur is impossible in the table; the events of each
//! socket are a word of the language; a confirmed close means that both kernels have the other's
//! FIN; `end` means that the peer finished; no descriptor outlives its socket; something can happen
//! until both sides have delivered `close`. And, by a search backwards from there: the states from
//! which a close can be reached, and by whose actions.

mod moves;
mod search;
mod world;

use std::sync::OnceLock;

use finale::lifecycle::{Cell, Emits, Input, State, step};

use moves::{Actor, bit, both};
use search::{Found, search};
use world::{CLIENT, Composed, END, FIN_IN, Kernel, SERVER};

/// Whether the client and the server hand their close off, in every combination.
const EVERY_WAY_TO_CLOSE: [[bool; 2]; 4] = [[false, false], [false, true], [true, false], [true, true]];

/// The search with the table that ships, made once for all tests.
fn found() -> &'static Found {
    static FOUND: OnceLock<Found> = OnceLock::new();
    FOUND.get_or_init(|| search(&step, &EVERY_WAY_TO_CLOSE).unwrap_or_else(|wrong| panic!("{wrong}")))
}

#[test]
fn every_promise_holds_in_every_state_that_two_sockets_can_reach_together() {
    let found = found();
    println!("{} states, {} steps, depth {}", found.states.len(), found.edges.len(), found.depth);
    assert_eq!(
        (found.states.len(), found.depth),
        (850_017, 34),
        "the table or the model has changed: look at what it is, then mend this line"
    );
}

/// The part of the table that the search reaches: every transition of a socket that begins, is
/// connecting, or is established. None is left out, so there is no list of exceptions.
#[test]
fn every_transition_of_the_table_is_taken() {
    for &state in State::ALL {
        for &input in Input::ALL {
            let goes = matches!(step(state, input), Cell::Go(..));
            assert_eq!(found().taken[state as usize][input as usize], goes, "{state:?} × {input:?}");
        }
    }
}

// --- a close can be reached ---

const ORDERLY: u16 = both(Actor::Reactor) | both(Actor::Caller) | both(Actor::Wire);

/// The first few of them, for a failure message.
fn shown(stuck: &[Composed]) -> String {
    stuck.iter().take(5).map(|state| format!("\n    {state:?}")).collect()
}

#[test]
fn from_every_state_both_sockets_can_come_to_their_close_without_any_timer() {
    let stuck = found().stuck(ORDERLY | both(Actor::Destroyer), Composed::is_over);
    assert_eq!(stuck.len(), 0, "{}", shown(&stuck));
}

/// Two callers that only end, and kernels that do not give up: no timer is needed. If one has given
/// up silently, the other side may have finished and wait for a FIN that will never be sent; only
/// its own deadline ends that.
#[test]
fn orderly_callers_need_a_timer_only_when_a_kernel_has_given_up_without_a_word() {
    let stuck = found().stuck(ORDERLY, Composed::is_over);
    println!("{} states, of {}, need the half-closed deadline", stuck.len(), found().states.len());
    assert!(!stuck.is_empty());
    for state in &stuck {
        let waits = |side: usize| {
            let (it, peer) = (&state.sides[side], &state.sides[1 - side]);
            matches!(it.state, State::LocalFinished | State::Lingering)
                && !it.has(FIN_IN)
                && matches!(peer.kernel, Kernel::Dead | Kernel::Gone)
        };
        assert!(waits(CLIENT) || waits(SERVER), "{state:?}");
    }
    let stuck = found().stuck(ORDERLY | both(Actor::Timer), Composed::is_over);
    assert_eq!(stuck.len(), 0, "{}", shown(&stuck));
}

/// The peer's program is stopped, its kernel continues to acknowledge. Our caller is orderly: it
/// ends, and does not destroy.
#[test]
fn with_a_peer_that_stands_still_only_the_deadlines_end_a_socket() {
    for me in [CLIENT, SERVER] {
        let mine = bit(Actor::Reactor, me) | bit(Actor::Caller, me) | both(Actor::Wire);
        let is_over = |state: &Composed| state.sides[me].is_over();
        let stuck = found().stuck(mine, is_over);
        let in_state = |state| stuck.iter().filter(|stuck| stuck.sides[me].state == state).count();
        let name = ["client", "server"][me];
        println!("{name}, peer stands still: {} states have no way out but a deadline:", stuck.len());
        for &state in State::ALL.iter().filter(|state| in_state(**state) > 0) {
            println!("    {:6} in {}", in_state(state), state.name());
        }
        // The half-closed timeout is for these, and the close timeout for what can't even finish.
        assert!(in_state(State::LocalFinished) > 0 && in_state(State::Flushing) > 0);
        // Both have finished: the peer's kernel alone can end it, and does.
        assert_eq!(in_state(State::Closing), 0);
        let stuck = found().stuck(mine | bit(Actor::Timer, me), is_over);
        assert_eq!(stuck.len(), 0, "{}", shown(&stuck));
    }
}

/// No packet arrives any more and no caller does anything: only the deadlines are left.
#[test]
fn without_a_network_every_socket_whose_caller_has_ended_or_that_has_lost_its_peer_still_comes_to_its_close() {
    for me in [CLIENT, SERVER] {
        let alone = bit(Actor::Reactor, me) | bit(Actor::Timer, me);
        let stuck = found().stuck(alone, |state| state.sides[me].is_over());
        for state in &stuck {
            let it = &state.sides[me];
            let is_idle = it.state == State::Open && !it.has(END | FIN_IN) && it.kernel == Kernel::Open;
            // A connection in the listener's queue, or on its way there, is no socket yet.
            assert!(is_idle || (me == SERVER && it.is_unborn()), "{state:?}");
        }
        assert!(!stuck.is_empty(), "an open connection has no limit while no side has ended");
    }
}

/// Both callers are silent for ever: a connection stays open only while neither side's FIN is in
/// flight.
#[test]
fn silent_callers_keep_only_a_connection_that_nobody_has_ended() {
    let stuck = found().stuck(both(Actor::Reactor) | both(Actor::Wire) | both(Actor::Timer), Composed::is_over);
    for state in &stuck {
        let keeps = |side: usize| {
            let it = &state.sides[side];
            !it.has(END | FIN_IN) && matches!(it.kernel, Kernel::Open | Kernel::SynReceived)
        };
        assert!(keeps(CLIENT) || keeps(SERVER), "{state:?}");
    }
}

// --- the search detects mistakes ---

/// The table with one cell changed, a client that hands off, a server that confirms, and what the
/// search reports about it.
fn sabotaged(state: State, input: Input, cell: Cell) -> String {
    let table = move |at: State, with: Input| if (at, with) == (state, input) { cell } else { step(at, with) };
    search(&table, &[[true, false]]).map(|_| "nothing".to_owned()).unwrap_or_else(|wrong| wrong)
}

#[track_caller]
fn finds(state: State, input: Input, cell: Cell, expected: &str) {
    let wrong = sabotaged(state, input, cell);
    println!("{state:?} × {input:?} = {cell:?}: {}", wrong.lines().next().unwrap_or_default());
    assert!(wrong.contains(expected), "{state:?} × {input:?} = {cell:?}:\n{wrong}");
}

#[test]
fn a_table_that_calls_something_impossible_is_found_out() {
    finds(State::PeerFinished, Input::Reset, Cell::Impossible, "PeerFinished × Reset can occur");
    finds(State::LocalFinished, Input::PeerEnded, Cell::Impossible, "LocalFinished × PeerEnded can occur");
    finds(State::Flushing, Input::Drained, Cell::Impossible, "Flushing × Drained can occur");
    finds(State::Closing, Input::LeftToKernel, Cell::Impossible, "Closing × LeftToKernel can occur");
    finds(State::HandedOff, Input::EndCalled, Cell::Impossible, "HandedOff × EndCalled can occur");
}

#[test]
fn a_table_that_tells_events_out_of_order_is_found_out() {
    let end_again = Cell::Go(State::LastFlush, &[Emits::End]);
    finds(State::PeerFinished, Input::EndCalled, end_again, "end after Ended is no word");
    let data_late = Cell::Go(State::LastFlush, &[Emits::Data]);
    finds(State::LastFlush, Input::Idle, data_late, "data after Ended is no word");
    finds(State::Connecting, Input::Established, Cell::Go(State::Open, &[Emits::Connect]), "after Before is no word");
    let twice = Cell::Go(State::Confirmed, &[Emits::Close]);
    finds(State::Closing, Input::Acknowledged, twice, "close after Closed is no word");
}

#[test]
fn a_table_that_closes_dishonestly_is_found_out() {
    let too_early = Cell::Go(State::Confirmed, &[Emits::End]);
    finds(State::LocalFinished, Input::Fin, too_early, "confirmed, and a kernel lacks the other's FIN");
    let no_fin = Cell::Go(State::Closing, &[]);
    finds(State::Flushing, Input::FinSent, no_fin, "handed off before the peer had finished");
    let leaks = Cell::Go(State::HandedOff, &[]);
    finds(State::LastFlush, Input::FinSent, leaks, "over with an open descriptor");
}

#[test]
fn a_table_with_a_dead_end_is_found_out() {
    finds(State::Confirmed, Input::CloseDue, Cell::Ignored, "nothing can happen any more");
    finds(State::Closed, Input::DestroyCalled, Cell::Impossible, "Closed × DestroyCalled can occur");
}
