use super::*;

const CONDITIONS: [Flags; 20] = [
    Flags::MOVED,
    Flags::QUEUED,
    Flags::REGISTERED,
    Flags::READABLE,
    Flags::WRITABLE,
    Flags::READ_CLOSED,
    Flags::LOOK,
    Flags::BROKEN,
    Flags::FULL,
    Flags::PAUSED,
    Flags::DISCARD,
    Flags::END,
    Flags::DESTROY,
    Flags::TOUCHED,
    Flags::IDLE_TOLD,
    Flags::NOTICED,
    Flags::US_FIRST,
    Flags::PEER_FIRST,
    Flags::IPV6,
    Flags::ATTEMPT,
];

/// Every combination of these conditions.
fn combinations(of: &[Flags]) -> impl Iterator<Item = Flags> {
    (0..1_u32 << of.len()).map(|mask| {
        let set = of.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1);
        set.fold(Flags::NONE, |flags, (_, &flag)| flags | flag)
    })
}

fn entry(state: State, flags: Flags) -> Entry {
    Entry { state, flags, ..Entry::free() }
}

#[test]
fn no_two_conditions_share_a_bit() {
    for (one, &flag) in CONDITIONS.iter().enumerate() {
        let mut flags = Flags::NONE;
        flags.set(flag, true);
        for (other, &asked) in CONDITIONS.iter().enumerate() {
            assert_eq!(flags.has(asked), one == other, "{flags:?}");
        }
        assert_eq!(flags.owed(), None, "{flags:?} is no event");
        assert!(flags.replace(flag, false) && !flags.replace(flag, true) && flags.replace(flag, true));
        assert!(format!("{flags:?}").contains(&format!("{:b}", 1 << one)));
        flags.set(flag, false);
        assert_eq!(flags, Flags::NONE);
    }
}

#[test]
fn several_conditions_are_set_and_cleared_together_and_others_stay() {
    let mut flags = Flags::READABLE | Flags::LOOK;
    flags.set(Flags::LOOK | Flags::PAUSED, true);
    assert!(flags.has(Flags::READABLE) && flags.has(Flags::LOOK) && flags.has(Flags::PAUSED));
    assert_eq!(flags | Flags::LOOK, flags, "a condition that holds goes on to hold");
    flags.set(Flags::READABLE | Flags::LOOK, false);
    assert_eq!(flags, Flags::PAUSED);
    assert!(flags.has(Flags::PAUSED | Flags::LOOK), "any of them");
}

#[test]
fn events_are_owed_in_the_order_of_the_grammar_and_paid_once() {
    let mut flags = Flags::QUEUED;
    for &tell in Tell::ALL.iter().rev() {
        assert!(!flags.owes(tell));
        flags.owe_all(1 << tell as u16);
        flags.owe_all(1 << tell as u16);
        assert!(flags.owes(tell));
        assert_eq!(flags.owed(), Some(tell), "it comes before all that are owed already");
    }
    for &tell in Tell::ALL {
        assert_eq!(flags.owed(), Some(tell));
        flags.paid(tell);
        flags.paid(tell);
    }
    assert_eq!((flags.owed(), flags), (None, Flags::QUEUED));
}

#[test]
fn forgiven_events_are_told_no_more_and_conditions_stay() {
    let all = CONDITIONS.into_iter().fold(Flags::NONE, |flags, flag| flags | flag);
    let mut owing = all;
    Tell::ALL.iter().for_each(|&tell| owing.owe_all(1 << tell as u16));
    let mut ready_left = owing;
    ready_left.forgive_all_but_ready();
    assert_eq!(ready_left.owed(), Some(Tell::Ready));
    ready_left.paid(Tell::Ready);
    assert_eq!(ready_left, all);
    owing.forgive_all();
    assert_eq!(owing, all);
    let mut nothing = Flags::NONE;
    nothing.forgive_all_but_ready();
    assert_eq!(nothing, Flags::NONE, "ready is kept, not invented");
}

#[test]
fn there_is_input_while_their_fin_was_not_read_unless_the_caller_has_paused() {
    for &state in State::ALL {
        for flags in combinations(&[Flags::READABLE, Flags::PAUSED, Flags::READ_CLOSED]) {
            let may = matches!(state, State::Open | State::Flushing | State::Finished);
            let has = may && flags.has(Flags::READABLE) && !flags.has(Flags::PAUSED);
            assert_eq!(entry(state, flags).has_input(), has, "{state:?} {flags:?}");
        }
    }
}

#[test]
fn a_verdict_is_asked_for_where_no_read_would_bring_it() {
    for &state in State::ALL {
        for flags in combinations(&[Flags::LOOK, Flags::READABLE]) {
            let asks = matches!(state, State::Ended | State::LastFlush | State::Closing) && flags.has(Flags::LOOK);
            assert_eq!(entry(state, flags).has_verdict(), asks, "{state:?} {flags:?}");
        }
    }
}

#[test]
fn a_silence_is_told_once_and_only_while_somebody_waits_for_bytes() {
    for &state in State::ALL {
        for flags in combinations(&[Flags::IDLE_TOLD, Flags::DISCARD, Flags::PAUSED]) {
            let both_ways = matches!(state, State::Open | State::Flushing | State::Ended | State::LastFlush);
            let waits = both_ways || (state == State::Finished && !flags.has(Flags::DISCARD));
            assert_eq!(entry(state, flags).may_idle(), waits && !flags.has(Flags::IDLE_TOLD), "{state:?} {flags:?}");
        }
    }
}

#[test]
fn each_state_is_ruled_by_one_limit_or_by_none() {
    let settings = Settings { connect_ms: Some(1), half_closed_ms: Some(2), linger_ms: Some(3), ..Settings::default() };
    let none = Settings { connect_ms: None, half_closed_ms: None, linger_ms: None, ..Settings::default() };
    for &state in State::ALL {
        for flags in combinations(&[Flags::READ_CLOSED, Flags::DISCARD]) {
            let limit = match (state, flags.has(Flags::READ_CLOSED), flags.has(Flags::DISCARD)) {
                (State::Created | State::Resolving | State::Connecting, ..) => Some((1, Timer::Connect)),
                (State::Open, true, _) | (State::Finished, _, false) | (State::Ended, ..) => {
                    Some((2, Timer::HalfClosed))
                }
                (State::Finished, _, true) | (State::Flushing | State::LastFlush | State::Closing, ..) => {
                    Some((3, Timer::Linger))
                }
                _ => None,
            };
            assert_eq!(entry(state, flags).limit(&settings), limit, "{state:?} {flags:?}");
            assert_eq!(entry(state, flags).limit(&none), None, "without a time there is no limit");
        }
    }
}

#[test]
fn who_finished_first_is_what_was_seen_and_no_claim_is_made_of_what_was_not() {
    for &state in State::ALL {
        let first = |flags| entry(state, flags).first(state);
        assert_eq!(first(Flags::US_FIRST), First::Us);
        assert_eq!(first(Flags::PEER_FIRST), First::Peer);
        assert_eq!(first(Flags::US_FIRST | Flags::PEER_FIRST), First::Both);
        let both_finished = matches!(state, State::Confirmed | State::HandedOff);
        assert_eq!(first(Flags::NONE), if both_finished { First::Unknown } else { First::Nobody }, "{state:?}");
    }
}

#[test]
fn activity_is_remembered_for_17_years() {
    let mut entry = Entry::free();
    for tick in [0, 1, 255, 256, 0x01_23_45_67_89, (1 << 39) - 1] {
        for heard in [true, false] {
            entry.set_heard_last(heard);
            entry.touch(tick);
            assert_eq!((entry.touched(), entry.heard_last()), (tick, heard));
        }
    }
}

#[test]
fn a_place_begins_anew_with_the_generation_that_it_has_reached() {
    let mut place = Entry { generation: 8, bytes_read: 9, ..Entry::free() };
    assert!(!place.is_used());
    place.begin(3, true);
    assert!(place.is_used() && place.flags == Flags::PAUSED && place.state == State::Created);
    assert_eq!((place.generation, place.settings, place.bytes_read), (8, 3, 0));
    assert!(place.forget(), "it can be used again");
    assert!(!place.is_used() && place.state == State::Closed && place.flags == Flags::NONE);
    assert_eq!(place.generation, 9);
    place.begin(4, false);
    assert_eq!(place.flags, Flags::NONE);
    place.generation = u32::MAX;
    assert!(!place.forget() && place.generation == 0, "generation 0 is nobody's");
}
