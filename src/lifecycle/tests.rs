use std::collections::{BTreeSet, VecDeque};

use super::print::arrows;
use super::{Cell, Format, Input, State, Tell, print, step};

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

#[test]
fn what_a_state_says_of_itself_is_what_the_table_lets_happen_to_it() {
    for &state in State::ALL {
        let goes = |input| matches!(step(state, input), Cell::Go(..));
        assert_eq!(state.is_final(), goes(Input::CloseDue) || state == State::Closed, "{state:?}: only close is owed");
        assert_eq!(state.can_read(), goes(Input::Fin), "{state:?}: their FIN can be read");
        assert_eq!(state.is_flushing(), goes(Input::FinSent), "{state:?}: our FIN waits");
        let may_end = matches!(step(state, Input::EndCalled), Cell::Go(next, _) if next.is_flushing());
        assert_eq!(state.can_send(), may_end || goes(Input::FinSent), "{state:?}: our FIN has not left");
        let before_or_after = ["CLOSED", "SYN-SENT", "SYN-RECEIVED"];
        let synchronized = !state.rfc9293().iter().any(|name| before_or_after.contains(name));
        assert_eq!(state.is_connected(), synchronized, "{state:?}: RFC 9293 would say synchronized");
    }
}

/// The arrows of the table in words: state, input, next state, events.
fn all_arrows() -> Vec<[String; 4]> {
    let words = |state: State, (input, next, tells): (Input, State, &[Tell])| {
        let tells: Vec<&str> = tells.iter().map(|tell| tell.event()).collect();
        [state.name(), input.name(), next.name(), &tells.join(" ")].map(str::to_owned)
    };
    State::ALL.iter().flat_map(|&state| arrows(state).map(move |arrow| words(state, arrow))).collect()
}

#[test]
fn every_event_has_a_name_of_its_own() {
    let names: BTreeSet<&str> = Tell::ALL.iter().map(|tell| tell.event()).collect();
    assert_eq!(names.len(), Tell::ALL.len());
    assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '-')));
    assert!(names.contains("data") && names.contains("peer-ended"), "the names of the documentation");
}

#[test]
fn the_text_form_read_back_is_the_table() {
    let text = print(Format::Text);
    let (mut read, mut state) = (Vec::new(), String::new());
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(inputs) = line.strip_prefix("  changed by nothing of: ") {
            for name in inputs.split(", ") {
                let input = Input::ALL.iter().find(|input| input.name() == name).expect("an input");
                let of = State::ALL.iter().find(|other| other.name() == state).expect("a state");
                assert_eq!(step(*of, *input), Cell::Ignored, "{line}");
                read.push([state.clone(), name.to_owned(), "ignored".to_owned(), String::new()]);
            }
        } else if line.starts_with("  ") {
            let (input, rest) = line.split_once("->").expect("an arrow");
            let (next, tells) = rest.split_once("  tells ").unwrap_or((rest, ""));
            read.push([&state, input, next, tells].map(|word| word.trim().to_owned()));
        } else {
            let (name, rfc9293) = line.split_once(" RFC 9293: ").expect("a heading");
            state = name.trim().to_owned();
            assert!(!rfc9293.is_empty());
        }
    }
    let ignored: usize = read.iter().filter(|arrow| arrow[2] == "ignored").count();
    assert_eq!(ignored, 78, "every pair that is ignored is told");
    read.retain(|arrow| arrow[2] != "ignored");
    assert_eq!(read, all_arrows());
    assert!(!text.contains("nothing of: \n") && text.ends_with('\n') && !text.ends_with("\n\n"));
}

#[test]
fn the_diagrams_read_back_are_the_table() {
    let read = |form, label_from: &str, label_to: &str, events: &str| {
        let text = print(form);
        let arrow = |line: &str| {
            let (state, rest) = line.trim().split_once("->").expect("an arrow");
            let (next, label) = rest.split_once(label_from).expect("a label");
            let label = label.strip_suffix(label_to).expect("the label's end");
            let (input, tells) = label.split_once(events).unwrap_or((label, ""));
            [state.trim_end_matches('-'), input, next.trim_start_matches('>'), tells].map(|word| word.trim().to_owned())
        };
        let is_arrow = |line: &&str| line.contains("->") && !line.contains("[*]");
        text.lines().filter(is_arrow).map(arrow).collect::<Vec<_>>()
    };
    assert_eq!(read(Format::Mermaid, " : ", "", " / "), all_arrows());
    assert_eq!(read(Format::Dot, " [label=\"", "\"];", "\\n"), all_arrows());
    for (form, begin, end) in
        [(Format::Mermaid, "stateDiagram-v2\n", "Closed --> [*]\n"), (Format::Dot, "digraph", "}\n")]
    {
        let text = print(form);
        assert!(text.starts_with(begin) && text.ends_with(end), "{form:?}");
        assert!(State::ALL.iter().all(|state| text.contains(state.rfc9293()[0]) && text.contains(state.name())));
    }
}
