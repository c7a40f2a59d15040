//! Bytes as calls: the scripts of `tests/api/arbitrary_calls.rs`, guided by coverage instead of random.

#![no_main]

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use support::api::{Dice, Op, Script};

/// At most this many calls per script: two shorter scripts replace a longer one.
const CALLS: usize = 80;

struct Bytes<'a>(Unstructured<'a>);

impl Dice for Bytes<'_> {
    fn below(&mut self, bound: u32) -> u32 {
        // Without bytes left it is 0, the simplest choice.
        self.0.int_in_range(0..=bound - 1).unwrap_or(0)
    }
}

fuzz_target!(|data: &[u8]| {
    let mut dice = Bytes(Unstructured::new(data));
    let seed = u64::from(dice.below(1000));
    let mut ops = if dice.below(4) == 0 { Vec::new() } else { Op::opening(&mut dice) };
    while !dice.0.is_empty() && ops.len() < CALLS {
        ops.push(Op::draw(&mut dice));
    }
    let script = Script { seed, ops };
    let story = script.play();
    // Some scripts are played again: the same calls must give the same transcript.
    if data.len() % 8 == 0 {
        assert_eq!(story, script.play());
    }
});
