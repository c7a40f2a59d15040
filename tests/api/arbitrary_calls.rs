//! Arbitrary calls on arbitrary sockets: every public method, in every state, on live sockets,
//! stale ids and ids of other reactors, while a scripted peer and the network act too.
//!
//! The cases are the same in every run. `PROPTEST_CASES=100000` runs more of them,
//! `PROPTEST_RNG_SEED=N` others. A failing case is shrunk and printed as calls, one per line; add
//! it as a test below.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use support::api::{Dice, Op, Script};

/// Cases without PROPTEST_CASES: a few seconds.
const CASES: u32 = 256;

/// The seed without PROPTEST_RNG_SEED, so that a gate does not fail by chance.
const SEED: u64 = 1;

/// The numbers for one call, used one after the other.
struct Numbers<'a>(std::slice::Iter<'a, u16>);

impl Dice for Numbers<'_> {
    fn below(&mut self, bound: u32) -> u32 {
        let number = self.0.next().copied().unwrap_or(0);
        // The larger the number, the larger the choice: shrinking one shrinks the other.
        ((u64::from(number) * u64::from(bound)) >> 16) as u32
    }
}

fn scripts() -> impl Strategy<Value = Script> {
    let numbers = any::<[u16; 24]>;
    (0..1000_u64, option::weighted(0.8, numbers()), vec(numbers(), 1..100)).prop_map(|(seed, opening, calls)| {
        let mut ops = opening.map_or(vec![], |numbers| Op::opening(&mut Numbers(numbers.iter())));
        ops.extend(calls.iter().map(|numbers| Op::draw(&mut Numbers(numbers.iter()))));
        Script { seed, ops }
    })
}

fn has(variable: &str) -> bool {
    std::env::var_os(variable).is_some()
}

#[test]
fn whatever_is_called_on_whatever_socket_the_rules_hold_and_the_story_is_the_same_twice() {
    let mut config = ProptestConfig::default();
    if !has("PROPTEST_CASES") {
        config.cases = CASES;
    }
    if !has("PROPTEST_RNG_SEED") {
        config.rng_seed = RngSeed::Fixed(SEED);
    }
    config.failure_persistence = None;
    let outcome = TestRunner::new(config).run(&scripts(), |script| {
        let story = script.play();
        prop_assert_eq!(story, script.play(), "the same calls tell another story");
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
