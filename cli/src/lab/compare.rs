//! A simulated run beside the same run on real sockets: where the two stories differ.

use serde::Serialize;

use crate::trace::{Ladder, RowKind, Side};

/// What is compared of each side: transitions and endings. More is not looked at.
const MOST: usize = 500;

#[derive(Debug, Serialize)]
pub(super) struct Compared {
    simulated: Ladder,
    real: Ladder,
    /// The rows of each that the other does not have.
    only_simulated: Vec<usize>,
    only_real: Vec<usize>,
}

impl Compared {
    pub(super) fn of(simulated: Ladder, real: Ladder) -> Self {
        let (mut only_simulated, mut only_real) = (Vec::new(), Vec::new());
        for side in Side::BOTH {
            // A real run is not watched to the end of its limits, which can be hours later.
            let is_over = real.sides.iter().any(|end| end.side == side && end.ending.is_some());
            let until_us = if is_over { u64::MAX } else { real.end_us };
            let (ours, theirs) = (story(&simulated, side, until_us), story(&real, side, u64::MAX));
            let common = common(&ours, &theirs);
            let rest = |story: &[(usize, String)], known: &[usize]| {
                let unknown = (0..story.len()).filter(|at| !known.contains(at));
                unknown.map(|at| story[at].0).collect::<Vec<_>>()
            };
            only_simulated.extend(rest(&ours, &common.iter().map(|(at, _)| *at).collect::<Vec<_>>()));
            only_real.extend(rest(&theirs, &common.iter().map(|(_, at)| *at).collect::<Vec<_>>()));
        }
        Self { simulated, real, only_simulated, only_real }
    }
}

/// The rows of a side that are compared, until this time, with what they say. Bytes arrive in pieces
/// of any size, so a row that repeats the one before it does not count.
fn story(ladder: &Ladder, side: Side, until_us: u64) -> Vec<(usize, String)> {
    let rows = ladder.rows.iter().enumerate().filter(|(_, row)| row.side == side && row.at_us <= until_us);
    let said = rows.filter(|(_, row)| matches!(row.what, RowKind::Step { .. } | RowKind::Ending { .. }));
    let mut story: Vec<_> = said.map(|(at, row)| (at, row.line.clone())).collect();
    story.dedup_by(|next, before| next.1 == before.1);
    story.truncate(MOST);
    story
}

/// The places of the longest common part of both.
fn common(ours: &[(usize, String)], theirs: &[(usize, String)]) -> Vec<(usize, usize)> {
    // The length of it from each pair of places on.
    let mut lengths = vec![vec![0_usize; theirs.len() + 1]; ours.len() + 1];
    for one in (0..ours.len()).rev() {
        for other in (0..theirs.len()).rev() {
            lengths[one][other] = match ours[one].1 == theirs[other].1 {
                true => lengths[one + 1][other + 1] + 1,
                false => lengths[one + 1][other].max(lengths[one][other + 1]),
            };
        }
    }
    let (mut one, mut other, mut pairs) = (0, 0, Vec::new());
    while one < ours.len() && other < theirs.len() {
        if ours[one].1 == theirs[other].1 {
            pairs.push((one, other));
            (one, other) = (one + 1, other + 1);
        } else if lengths[one + 1][other] >= lengths[one][other + 1] {
            one += 1;
        } else {
            other += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::trace::{Row, SideEnd};

    #[test]
    fn what_follows_after_the_real_run_was_watched_is_no_difference() {
        let row =
            |at, text: &str| Row::new(Duration::from_secs(at), Side::Client, RowKind::Ending { text: text.into() });
        let ladder = |rows: Vec<Row>, end_us| Ladder { rows, end_us, ..Ladder::default() };
        let simulated = || ladder(vec![row(1, "a"), row(300, "b")], 300_000_000);
        let compared = Compared::of(simulated(), ladder(vec![row(1, "a")], 3_000_000));
        assert!(compared.only_simulated.is_empty() && compared.only_real.is_empty(), "{compared:?}");
        // What is over on real sockets can be over sooner.
        let end = SideEnd { side: Side::Client, state: "Closed", ending: Some("b".to_owned()) };
        let over = Ladder { sides: vec![end], ..ladder(vec![row(1, "a"), row(2, "b")], 3_000_000) };
        let compared = Compared::of(simulated(), over);
        assert!(compared.only_simulated.is_empty() && compared.only_real.is_empty(), "{compared:?}");
        let compared = Compared::of(simulated(), ladder(vec![row(1, "a"), row(2, "c")], 301_000_000));
        assert_eq!((compared.only_simulated, compared.only_real), (vec![1], vec![1]));
    }

    #[test]
    fn what_one_story_has_more_is_found_wherever_it_is() {
        let story = |text: &str| text.split(' ').map(|word| (0, word.to_owned())).collect::<Vec<_>>();
        assert_eq!(common(&story("a b c d"), &story("a c x d")), [(0, 0), (2, 1), (3, 3)]);
        assert_eq!(common(&story("a"), &story("b")), []);
        assert_eq!(common(&story("a b"), &story("a b")), [(0, 0), (1, 1)]);
    }
}
