//! Coverage: how often each pair of state and input of the table occurred in a simulation.

use super::{Cell, Input, State, step};

/// A count for each pair of state and input.
///
/// ```
/// use finale::lifecycle::{Coverage, Input, State};
/// let mut seen = Coverage::default();
/// seen.note(State::ALL[0], Input::ALL[0]);
/// assert_eq!(seen.count(State::ALL[0], Input::ALL[0]), 1);
/// ```
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Coverage([[u64; Input::ALL.len()]; State::ALL.len()]);

impl Coverage {
    /// Counts one occurrence.
    pub const fn note(&mut self, state: State, input: Input) {
        self.0[state as usize][input as usize] += 1;
    }

    /// Adds another count to this one.
    pub fn add(&mut self, other: &Self) {
        for (own, theirs) in self.0.iter_mut().flatten().zip(other.0.iter().flatten()) {
            *own += theirs;
        }
    }

    /// How often this pair occurred.
    #[must_use]
    pub const fn count(&self, state: State, input: Input) -> u64 {
        self.0[state as usize][input as usize]
    }

    /// A pair that occurred and can't happen by the table.
    #[cfg(any(feature = "sim", test))]
    pub(crate) fn impossible(&self) -> Option<(State, Input)> {
        let pairs = State::ALL.iter().flat_map(|&state| Input::ALL.iter().map(move |&input| (state, input)));
        pairs.into_iter().find(|&(state, input)| self.count(state, input) > 0 && step(state, input) == Cell::Impossible)
    }

    /// All pairs that can happen: the transitions if `go`, otherwise the refusals.
    pub fn of_the_table(go: bool) -> impl Iterator<Item = (State, Input)> {
        let pairs = State::ALL.iter().flat_map(|&state| Input::ALL.iter().map(move |&input| (state, input)));
        pairs.filter(move |&(state, input)| match step(state, input) {
            Cell::Go(..) => go,
            Cell::Deferred | Cell::Ignored => !go,
            Cell::Impossible => false,
        })
    }
}

#[cfg(test)]
mod tests;
