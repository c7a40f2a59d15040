use std::collections::{BTreeSet, VecDeque};

use super::print::arrows;
use super::{Cell, Emits, Format, Input, ROWS, State, View, compact, print, step};

#[test]
fn every_pair_is_a_transition_or_a_stated_refusal() {
    let mut counts = [0; 4];
    for &state in State::ALL {
        for &input in Input::ALL {
            match step(state, input) {
                Cell::Go(next, emits) => {
                    counts[0] += 1;
                    check_transition(state, input, next, emits);
                }
                Cell::Deferred => counts[1] += 1,
                Cell::Ignored => counts[2] += 1,
                Cell::Impossible => counts[3] += 1,
            }
        }
    }
    // Transitions, deferred pairs, ignored ones, impossible ones.
    assert_eq!(counts, [79, 3, 93, 221], "a pair was added or removed: check it, then correct this line");
    let written: usize = ROWS.iter().map(|row| row.own.len() + row.common.len()).sum();
    assert_eq!(written, counts[..3].iter().sum::<usize>(), "a pair is written twice");
}

/// What must hold for every transition.
fn check_transition(state: State, input: Input, next: State, emits: &[Emits]) {
    let pair = format!("{state:?} × {input:?}");
    assert_ne!(state, State::Closed, "{pair}: nothing leaves Closed");
    assert_ne!(next, State::Created, "{pair}: nothing comes back to Created");
    assert!(emits.windows(2).all(|two| (two[0] as u8) < two[1] as u8), "{pair}: events in the order of Emits");
    assert_eq!(emits.contains(&Emits::Close), next == State::Closed, "{pair}: close comes on the way into Closed");
    if state.is_final() {
        assert_eq!(next, State::Closed, "{pair}: a final state leads to Closed only");
    }
    let has_failed = matches!(next, State::ResetByPeer | State::TimedOut | State::NotConnected);
    assert_eq!(emits.contains(&Emits::Error), has_failed, "{pair}: error comes on the way into a failure");
    if emits.contains(&Emits::End) {
        assert!(state.can_read() && !next.can_read(), "{pair}: end comes once, by closing the read half");
    }
    if emits.contains(&Emits::Data) {
        assert!(state.can_read() && next == state, "{pair}: data only while the read half is open");
    }
    assert!(!(state.is_connected() && !next.is_connected() && !next.is_final()), "{pair}: nothing is connected twice");
}

#[test]
fn the_compact_form_is_the_same_table_in_which_a_refusal_keeps_the_state_and_emits_nothing() {
    for &state in State::ALL {
        for &input in Input::ALL {
            let compact = compact(state, input);
            let emits: Vec<Emits> =
                Emits::ALL.iter().copied().filter(|&e| compact.emits >> e as u16 & 1 == 1).collect();
            let (to, expected) = match step(state, input) {
                Cell::Go(to, expected) => (to, expected),
                Cell::Deferred | Cell::Ignored | Cell::Impossible => (state, &[][..]),
            };
            assert_eq!((compact.to, emits.as_slice()), (to, expected), "{state:?} × {input:?}");
        }
    }
}

// --- what holds for every cell of the table ---

/// The states that a socket can reach from this one, itself included.
fn reachable(from: State) -> Vec<State> {
    let (mut seen, mut queue) = (vec![from], VecDeque::from([from]));
    while let Some(state) = queue.pop_front() {
        for (_, next, _) in arrows(state) {
            if !seen.contains(&next) {
                seen.push(next);
                queue.push_back(next);
            }
        }
    }
    seen.sort_by_key(|state| *state as u8);
    seen
}

#[test]
fn every_state_is_reachable_from_created() {
    assert_eq!(reachable(State::Created), State::ALL);
}

#[test]
fn every_path_can_end_in_closed() {
    for &start in State::ALL {
        assert!(reachable(start).contains(&State::Closed), "{start:?} has no way out");
    }
}

#[test]
fn a_broken_connection_ends_with_an_error_or_by_us_and_never_clean() {
    let ends = [State::Broken, State::ResetByPeer, State::ResetByUs, State::TimedOut, State::Closed];
    assert_eq!(reachable(State::Broken), ends);
}

#[test]
fn a_clean_end_takes_the_end_of_both_sides_and_an_acknowledgement_takes_our_fin() {
    let (mut seen, mut stack) = (BTreeSet::new(), vec![(State::Created, false, false, false)]);
    while let Some((state, ended, finished, peer_ended)) = stack.pop() {
        if !seen.insert((state as u8, ended, finished, peer_ended)) {
            continue;
        }
        let is_clean = matches!(state, State::Confirmed | State::HandedOff);
        assert!(!is_clean || (ended && peer_ended), "{state:?}, the caller has ended: {ended}, the peer: {peer_ended}");
        assert!(state != State::Confirmed || finished, "our FIN has left");
        for (input, next, emits) in arrows(state) {
            assert!(ended || input != Input::FinSent, "{state:?}: our FIN leaves only after the caller has ended");
            let (ended, finished) = (ended || input == Input::EndCalled, finished || input == Input::FinSent);
            stack.push((next, ended, finished, peer_ended || emits.contains(&Emits::End)));
        }
    }
}

#[test]
fn only_an_end_that_comes_early_is_deferred_and_then_it_ends_the_connection() {
    for &state in State::ALL {
        let is_early = !state.is_connected() && !state.is_final();
        for &input in Input::ALL {
            let is_deferred = step(state, input) == Cell::Deferred;
            assert_eq!(is_deferred, is_early && input == Input::EndCalled, "{state:?} × {input:?}");
        }
        for (_, next, _) in arrows(state).filter(|(_, next, _)| is_early && next.is_connected()) {
            assert!(matches!(step(next, Input::EndCalled), Cell::Go(..)), "{next:?} takes it up");
        }
    }
}

#[test]
fn a_lingering_socket_is_a_finished_one_that_delivers_neither_data_nor_a_silence() {
    for &input in Input::ALL {
        let expected = match (input, step(State::LocalFinished, input)) {
            (Input::Data | Input::DiscardCalled, _) => Cell::Impossible,
            (Input::Idle, _) => Cell::Ignored,
            (_, Cell::Go(State::LocalFinished, emits)) => Cell::Go(State::Lingering, emits),
            (_, cell) => cell,
        };
        assert_eq!(step(State::Lingering, input), expected, "{input:?}");
    }
}

#[test]
fn no_drain_is_delivered_once_our_side_has_ended() {
    for end in State::ALL.iter().filter_map(|&state| match step(state, Input::EndCalled) {
        Cell::Go(next, _) => Some(next),
        Cell::Deferred | Cell::Ignored | Cell::Impossible => None,
    }) {
        // A connection that breaks wakes a caller that waits for room.
        for state in reachable(end).into_iter().filter(|state| *state != State::Broken) {
            assert!(!matches!(step(state, Input::Drained), Cell::Go(..)), "{state:?}");
        }
    }
}

#[test]
fn a_socket_that_is_over_ignores_all_that_may_be_on_its_way_whatever_its_end_was() {
    let finals: Vec<State> = State::ALL.iter().copied().filter(|state| state.is_final()).collect();
    for &input in Input::ALL.iter().filter(|&&input| input != Input::CloseDue) {
        let cells: Vec<Cell> = finals.iter().map(|&state| step(state, input)).collect();
        assert!(cells.iter().all(|cell| *cell == cells[0]), "{input:?}: {cells:?}");
        let can_be_late =
            State::ALL.iter().any(|&state| state.is_connected() && step(state, input) != Cell::Impossible);
        let is_ours = matches!(input, Input::FinSent | Input::LeftToKernel | Input::Acknowledged);
        assert_eq!(cells[0] == Cell::Ignored, can_be_late && !is_ours, "{input:?}");
    }
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

#[test]
fn an_error_breaks_exactly_the_states_in_which_the_peers_fin_was_not_read() {
    for &state in State::ALL.iter().filter(|state| state.is_connected() && **state != State::Broken) {
        let breaks = step(state, Input::ErrorSeen) == Cell::Go(State::Broken, &[]);
        assert_eq!(breaks, state.can_read(), "{state:?}");
    }
}

#[test]
fn what_a_state_says_of_itself_is_what_the_table_lets_happen_to_it() {
    for &state in State::ALL {
        let goes = |input| matches!(step(state, input), Cell::Go(..));
        assert_eq!(state.is_final(), goes(Input::CloseDue) || state == State::Closed, "{state:?}: only close is due");
        assert_eq!(state.can_read(), goes(Input::Data) || goes(Input::Fin), "{state:?}: there may be more to read");
        assert_eq!(state.is_flushing(), goes(Input::FinSent), "{state:?}: our FIN waits");
        let may_end = matches!(step(state, Input::EndCalled), Cell::Go(next, _) if next.is_flushing());
        assert_eq!(state.can_send(), may_end || goes(Input::FinSent), "{state:?}: our FIN has not left");
        let is_connected = goes(Input::Expired) && !goes(Input::Resolved) && !goes(Input::Established);
        assert_eq!(state.is_connected(), is_connected, "{state:?}: established, and not over");
        let before_or_after = ["CLOSED", "SYN-SENT", "SYN-RECEIVED"];
        let is_synchronized = !state.rfc9293().iter().any(|name| before_or_after.contains(name));
        let is_alive = is_connected && state != State::Broken;
        assert_eq!(is_synchronized, is_alive, "{state:?}: RFC 9293 would say synchronized");
    }
}

// --- the events ---

/// The language of `event.rs`, as a recogniser: the events so far decide which can follow.
fn may_follow(seen: &BTreeSet<u8>, last: Option<Emits>, emits: Emits) -> bool {
    let has = |emits: Emits| seen.contains(&(emits as u8));
    if has(Emits::Close) || (last == Some(Emits::Error) && emits != Emits::Close) {
        return false;
    }
    let is_open = has(Emits::Ready) || has(Emits::Connection);
    match emits {
        Emits::Lookup => !has(Emits::Connect),
        Emits::Connect => has(Emits::Lookup) && !has(Emits::Connect),
        Emits::Ready => last == Some(Emits::Connect),
        Emits::Connection => last.is_none(),
        Emits::Data | Emits::PeerEnded => is_open && !has(Emits::End),
        Emits::Drain | Emits::Timeout => is_open,
        Emits::End => is_open && !has(Emits::End),
        Emits::Error => !has(Emits::Error),
        Emits::Close => true,
    }
}

/// Follows every path of the table. It keeps only what the grammar distinguishes: repeating a loop
/// adds nothing.
#[test]
fn every_path_emits_a_word_of_the_language_with_exactly_one_close() {
    let mut seen = BTreeSet::new();
    let mut stack = vec![(State::Created, BTreeSet::new(), None::<Emits>)];
    let mut ends = 0;
    while let Some((state, emitted, last)) = stack.pop() {
        if !seen.insert((state as u8, emitted.clone(), last.map(|emits| emits as u8))) {
            continue;
        }
        if state == State::Closed {
            assert!(emitted.contains(&(Emits::Close as u8)));
            ends += 1;
        }
        for (input, next, emits) in arrows(state) {
            let (mut emitted, mut last) = (emitted.clone(), last);
            for &emits in emits {
                assert!(may_follow(&emitted, last, emits), "{state:?} × {input:?}: {emits:?} after {emitted:?}");
                emitted.insert(emits as u8);
                last = Some(emits);
            }
            stack.push((next, emitted, last));
        }
    }
    assert!(ends > 0);
}

#[test]
fn every_event_has_a_name_of_its_own() {
    let names: BTreeSet<&str> = Emits::ALL.iter().map(|emits| emits.name()).collect();
    assert_eq!(names.len(), Emits::ALL.len());
    assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '-')));
    assert!(names.contains("data") && names.contains("peer-ended"), "the names of the documentation");
}

// --- the printed forms ---

/// The arrows of the table in words: state, input, next state, events.
fn all_arrows() -> Vec<[String; 4]> {
    let words = |state: State, (input, next, emits): (Input, State, &[Emits])| {
        let emits: Vec<&str> = emits.iter().map(|emits| emits.name()).collect();
        [state.name(), input.name(), next.name(), &emits.join(" ")].map(str::to_owned)
    };
    State::ALL.iter().flat_map(|&state| arrows(state).map(move |arrow| words(state, arrow))).collect()
}

/// The pairs of this kind, in words.
fn all_pairs(cell: Cell) -> Vec<[String; 2]> {
    let pairs = State::ALL.iter().flat_map(|&state| Input::ALL.iter().map(move |&input| (state, input)));
    let of_this_kind = pairs.filter(|&(state, input)| step(state, input) == cell);
    of_this_kind.map(|(state, input)| [state.name(), input.name()].map(str::to_owned)).collect()
}

#[test]
fn the_text_form_read_back_is_the_table() {
    let text = print(Format::Text, View::All);
    let (mut read, mut deferred, mut ignored, mut state) = (Vec::new(), Vec::new(), Vec::new(), String::new());
    for line in text.lines().filter(|line| !line.is_empty()) {
        let pairs =
            |inputs: &str| inputs.split(", ").map(|input| [state.clone(), input.to_owned()]).collect::<Vec<_>>();
        if let Some(inputs) = line.strip_prefix("  takes up later: ") {
            deferred.extend(pairs(inputs));
        } else if let Some(inputs) = line.strip_prefix("  ignores: ") {
            ignored.extend(pairs(inputs));
        } else if line.starts_with("  ") {
            let (input, rest) = line.split_once("->").expect("an arrow");
            let (next, emits) = rest.split_once("  emits ").unwrap_or((rest, ""));
            read.push([&state, input, next, emits].map(|word| word.trim().to_owned()));
        } else {
            let (name, rfc9293) = line.split_once(" RFC 9293: ").expect("a heading");
            name.trim().clone_into(&mut state);
            assert!(!rfc9293.is_empty());
        }
    }
    assert_eq!(read, all_arrows());
    assert_eq!((deferred, ignored), (all_pairs(Cell::Deferred), all_pairs(Cell::Ignored)));
    assert!(text.ends_with('\n') && !text.ends_with("\n\n"));
}

/// The arrows of a diagram, of which those between two states are joined.
fn read_diagram(format: Format, view: View) -> Vec<[String; 4]> {
    let (label_from, line) = if format == Format::Mermaid { (" : ", "<br/>") } else { (" [label=\"", "\\n") };
    let text = print(format, view);
    let arrows = |line_of_text: &str| {
        let (state, rest) = line_of_text.trim().split_once("->").expect("an arrow");
        let (next, label) = rest.split_once(label_from).expect("a label");
        let label = label.split('"').next().expect("a first part");
        let arrow = |words: &str| {
            let (input, emits) = words.split_once(" / ").unwrap_or((words, ""));
            [state.trim_end_matches('-'), input, next.trim_start_matches('>'), emits].map(|word| word.trim().to_owned())
        };
        label.split(line).map(arrow).collect::<Vec<_>>()
    };
    let is_arrow = |line: &&str| line.contains("->") && !line.contains("[*]");
    let mut read: Vec<_> = text.lines().filter(is_arrow).flat_map(arrows).collect();
    read.sort();
    read
}

#[test]
fn the_diagrams_read_back_are_the_table_and_join_the_arrows_between_two_states() {
    let mut all = all_arrows();
    all.sort();
    for format in [Format::Mermaid, Format::Dot] {
        assert_eq!(read_diagram(format, View::All), all);
        let text = print(format, View::All);
        let ends = text.lines().filter_map(|line| line.split_once("->").map(|(from, to)| (from, to.split(' ').nth(1))));
        let ends: Vec<_> = ends.collect();
        assert!(ends.iter().enumerate().all(|(at, pair)| !ends[..at].contains(pair)), "one line per pair: {text}");
        assert!(State::ALL.iter().all(|state| text.contains(state.rfc9293()[0]) && text.contains(state.name())));
    }
    assert!(print(Format::Mermaid, View::All).starts_with("stateDiagram-v2\n"));
    assert!(print(Format::Mermaid, View::All).ends_with("Closed --> [*]\n"));
    assert!(print(Format::Dot, View::All).starts_with("digraph") && print(Format::Dot, View::All).ends_with("}\n"));
}

#[test]
fn a_view_has_the_states_and_arrows_of_its_side_only() {
    let beginnings = ["LookupStarted", "Resolved", "Established", "Accepted"];
    for (view, absent, begins_by) in [
        (View::Client, &[][..], &beginnings[..3]),
        (View::Server, &["Resolving", "Connecting", "NotConnected"][..], &beginnings[3..]),
    ] {
        let expected: Vec<_> = State::ALL.iter().filter(|state| !absent.contains(&state.name())).copied().collect();
        assert_eq!(view.states(), expected);
        for format in [Format::Mermaid, Format::Dot] {
            let read = read_diagram(format, view);
            for input in beginnings {
                assert_eq!(read.iter().any(|arrow| arrow[1] == input), begins_by.contains(&input), "{view:?} {input}");
            }
            assert!(read.iter().all(|arrow| !absent.contains(&arrow[0].as_str())), "{view:?}");
        }
        let text = print(Format::Text, view);
        assert_eq!(
            beginnings.map(|input| text.contains(&format!("  {input}"))),
            beginnings.map(|input| begins_by.contains(&input))
        );
    }
}
