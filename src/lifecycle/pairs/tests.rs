use super::*;

#[test]
fn each_pair_is_counted_by_itself_and_counts_add_up() {
    let (mut one, mut two) = (Pairs::default(), Pairs::default());
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
fn transitions_and_refusals_are_told_apart_and_what_cannot_happen_is_neither() {
    for (go, count) in [(true, 62), (false, 78)] {
        let pairs: Vec<_> = Pairs::of_the_table(go).collect();
        assert_eq!(pairs.len(), count);
        assert!(pairs.iter().all(|&(state, input)| matches!(step(state, input), Cell::Go(..)) == go));
        assert!(pairs.iter().all(|&(state, input)| step(state, input) != Cell::Impossible));
    }
}
