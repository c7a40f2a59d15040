//! The random numbers: the only source of randomness in the crate.
//!
//! Invariant: the same seed gives the same numbers, on every machine and in every version. The
//! module does not depend on what the numbers are used for.

/// A small seeded generator (SplitMix64): fast, and good enough for faults. Not for secrets.
///
/// ```
/// use finale::sim::Rng;
/// let (mut one, mut other) = (Rng::new(7), Rng::new(7));
/// assert_eq!(one.below(100), other.below(100));
/// assert!(!one.chance(0.0) && one.chance(1.0));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A generator whose numbers depend on `seed` alone.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0. Uniform to within `bound / 2^64`.
    pub const fn below(&mut self, bound: u64) -> u64 {
        // Multiplying and keeping the upper half needs no division and has no visible bias.
        ((self.next_u64() as u128 * bound as u128) >> 64) as u64
    }

    /// `true` with this probability, from 0.0 (never, and no number is taken) to 1.0 (always).
    pub fn chance(&mut self, probability: f64) -> bool {
        const STEPS: f64 = (1_u64 << 53) as f64;
        probability > 0.0 && ((self.next_u64() >> 11) as f64) < probability * STEPS
    }
}
