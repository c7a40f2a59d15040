use super::*;

#[test]
fn each_pair_is_counted_by_itself_and_counts_add_up() {
    let (mut one, mut two) = (Coverage::default(), Coverage::default());
    for _ in 0..3 {
        one.note(State::Open, Input::Fin);
    }
    two.note(State::Open, Input::Fin);
    two.note(State::Closed, Input::CloseDue);
    one.add(&two);
    for &state in State::ALL {
        for &input in Input::ALL {
            let expected = match (state, input) {
                (State::Open, Input::Fin) => 4,
                (State::Closed, Input::CloseDue) => 1,
                _ => 0,
            };
            assert_eq!(one.count(state, input), expected, "{state:?} × {input:?}");
        }
    }
}

#[test]
fn the_pairs_of_the_table_are_its_transitions_and_its_refusals_but_not_what_cannot_happen() {
    let all = State::ALL.iter().flat_map(|&state| Input::ALL.iter().map(move |&input| (state, input)));
    let (go, rest): (Vec<_>, Vec<_>) = all.partition(|&(state, input)| matches!(step(state, input), Cell::Go(..)));
    let refused = rest.into_iter().filter(|&(state, input)| step(state, input) != Cell::Impossible);
    assert!(Coverage::of_the_table(true).eq(go));
    assert!(Coverage::of_the_table(false).eq(refused));
    assert!(Coverage::of_the_table(false).any(|pair| pair == (State::Created, Input::EndCalled)), "a deferred one");
}

#[test]
fn a_pair_that_cannot_happen_is_named() {
    let mut seen = Coverage::default();
    for (state, input) in Coverage::of_the_table(true).chain(Coverage::of_the_table(false)) {
        seen.note(state, input);
    }
    assert_eq!(seen.impossible(), None);
    seen.note(State::Closing, Input::Data);
    assert_eq!(seen.impossible(), Some((State::Closing, Input::Data)));
}
