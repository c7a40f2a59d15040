//! What a handful of rounds shows: the middle, and how far apart the rounds were.

/// The spread of one figure over the rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) lower: f64,
    pub(crate) median: f64,
    pub(crate) upper: f64,
    pub(crate) max: f64,
    pub(crate) rounds: usize,
}

impl Spread {
    /// Without rounds there is none, nor for a figure that is not a number.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        if sorted.is_empty() || sorted.iter().any(|figure| !figure.is_finite()) {
            return None;
        }
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| quantile(&sorted, share);
        Some(Self {
            min: at(0.0),
            lower: at(0.25),
            median: at(0.5),
            upper: at(0.75),
            max: at(1.0),
            rounds: sorted.len(),
        })
    }
}

/// Between two figures it interpolates, so that the median of an even number is their middle.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_number_of_rounds_has_one_in_the_middle() {
        let spread = Spread::of([5.0, 1.0, 3.0, 2.0, 4.0]).unwrap();
        assert_eq!(spread, Spread { min: 1.0, lower: 2.0, median: 3.0, upper: 4.0, max: 5.0, rounds: 5 });
    }

    #[test]
    fn an_even_number_of_rounds_has_its_median_between_two() {
        let spread = Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!((spread.lower, spread.median, spread.upper), (1.75, 2.5, 3.25));
    }

    #[test]
    fn one_round_is_all_there_is() {
        let spread = Spread::of([7.0]).unwrap();
        assert_eq!((spread.min, spread.median, spread.max, spread.rounds), (7.0, 7.0, 7.0, 1));
    }

    #[test]
    fn no_rounds_and_no_numbers_have_no_spread() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([1.0, f64::NAN]), None);
        assert_eq!(Spread::of([1.0, f64::INFINITY]), None);
    }
}
