use std::collections::{BTreeSet, VecDeque};

use super::print::arrows;
use super::{Cell, Input, State, Tell, step};

#[test]
fn every_pair_is_a_transition_or_a_stated_refusal() {
    let mut counts = [0; 3];
    for &state in State::ALL {
        for &input in Input::ALL {
            match step(state, input) {
                Cell::Go(next, tells) => {
                    counts[0] += 1;
                    check_transition(state, input, next, tells);
                }
                Cell::Ignored => counts[1] += 1,
                Cell::Impossible => counts[2] += 1,
            }
        }
    }
    assert_eq!(counts, [62, 78, 180], "a pair was added or lost: look at it, then mend this line");
}

/// What must hold of any transition whatever.
fn check_transition(state: State, input: Input, next: State, tells: &[Tell]) {
    let pair = format!("{state:?} × {input:?}");
    assert_ne!(state, State::Closed, "{pair}: nothing leaves Closed");
    assert_ne!(next, State::Created, "{pair}: nothing comes back to Created");
    assert!(tells.windows(2).all(|two| (two[0] as u8) < two[1] as u8), "{pair}: events in the order of Tell");
    assert_eq!(tells.contains(&Tell::Close), next == State::Closed, "{pair}: close is told on the way into Closed");
    if state.is_final() {
        assert_eq!(next, State::Closed, "{pair}: a final state leads to Closed only");
    }
    if tells.contains(&Tell::Error) {
        assert!(next.is_final(), "{pair}: after error only close is owed");
    }
    if tells.contains(&Tell::End) {
        assert!(state.can_read() && !next.can_read(), "{pair}: end is told once, by closing the read half");
    }
    if tells.contains(&Tell::Data) {
        assert!(state.can_read() && next == state, "{pair}: data only while the read half is open");
    }
    assert!(!(state.is_connected() && !next.is_connected() && !next.is_final()), "{pair}: nothing is connected twice");
}

#[test]
fn every_state_is_reachable_from_created() {
    let mut seen = BTreeSet::from([State::Created as u8]);
    let mut queue = VecDeque::from([State::Created]);
    while let Some(state) = queue.pop_front() {
        for (_, next, _) in arrows(state) {
            if seen.insert(next as u8) {
                queue.push_back(next);
            }
        }
    }
    assert_eq!(seen.len(), State::ALL.len());
}

#[test]
fn every_path_can_end_in_closed() {
    for &start in State::ALL {
        let mut seen = BTreeSet::from([start as u8]);
        let mut queue = VecDeque::from([start]);
        while let Some(state) = queue.pop_front() {
            for (_, next, _) in arrows(state) {
                if seen.insert(next as u8) {
                    queue.push_back(next);
                }
            }
        }
        assert!(seen.contains(&(State::Closed as u8)), "{start:?} has no way out");
    }
}

/// The language of `event.rs`, as a recogniser: what was told so far decides what may be told next.
fn may_follow(told: &BTreeSet<u8>, last: Option<Tell>, tell: Tell) -> bool {
    let has = |tell: Tell| told.contains(&(tell as u8));
    if has(Tell::Close) || (last == Some(Tell::Error) && tell != Tell::Close) {
        return false;
    }
    let open = has(Tell::Ready) || has(Tell::Connection);
    match tell {
        Tell::Lookup => !has(Tell::Connect),
        Tell::Connect => has(Tell::Lookup) && !has(Tell::Connect),
        Tell::Ready => last == Some(Tell::Connect),
        Tell::Connection => last.is_none(),
        Tell::Data | Tell::PeerEnded => open && !has(Tell::End),
        Tell::Drain | Tell::Timeout => open,
        Tell::End => open && !has(Tell::End),
        Tell::Error => !has(Tell::Error),
        Tell::Close => true,
    }
}

/// Walks every path of the table, remembering only what the grammar can see; repeats of a loop add nothing new.
#[test]
fn every_path_tells_a_word_of_the_language_with_exactly_one_close() {
    let mut seen = BTreeSet::new();
    let mut stack = vec![(State::Created, BTreeSet::new(), None::<Tell>)];
    let mut ends = 0;
    while let Some((state, told, last)) = stack.pop() {
        if !seen.insert((state as u8, told.clone(), last.map(|tell| tell as u8))) {
            continue;
        }
        if state == State::Closed {
            assert!(told.contains(&(Tell::Close as u8)));
            ends += 1;
        }
        for (input, next, tells) in arrows(state) {
            let (mut told, mut last) = (told.clone(), last);
            for &tell in tells {
                assert!(may_follow(&told, last, tell), "{state:?} × {input:?}: {tell:?} after {told:?}");
                told.insert(tell as u8);
                last = Some(tell);
            }
            stack.push((next, told, last));
        }
    }
    assert!(ends > 0);
}

#[test]
fn every_connected_state_can_be_reset_destroyed_and_timed_out() {
    for &state in State::ALL.iter().filter(|state| state.is_connected()) {
        for (input, into) in [
            (Input::Reset, State::ResetByPeer),
            (Input::DestroyCalled, State::ResetByUs),
            (Input::Expired, State::TimedOut),
        ] {
            assert!(matches!(step(state, input), Cell::Go(next, _) if next == into), "{state:?} × {input:?}");
        }
    }
}
