//! Each rule can fail: on a network that lies, the judge says which promise was broken.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::run::Run;
use crate::check::{Broken, Rule};
use crate::sim::Row;
use crate::sim::lie::Lie;

/// The rules that a lie breaks, in the first seeds, with a fault that it needs.
fn broken_by(lie: Option<Lie>, favoured: Option<Row>) -> Vec<Rule> {
    let mut broken = Vec::new();
    for seed in 0..if favoured.is_some() { 600 } else { 60 } {
        let mut run = Run::new(seed, favoured, false);
        if let Some(lie) = lie {
            run.book.network.lie(lie);
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            run.begin_all();
            run.go()
        }));
        // A debug build may be so surprised that it panics, which says as much.
        if let Ok(Err(Broken { rule, .. })) = outcome {
            broken.push(rule);
        }
        let _ = catch_unwind(AssertUnwindSafe(|| drop(run)));
    }
    broken
}

#[test]
fn an_honest_network_breaks_no_rule() {
    assert_eq!(broken_by(None, None), []);
}

#[test]
fn each_lie_breaks_the_rule_that_it_is_against() {
    for (lie, rule) in [
        (Lie::WrongByte, Rule::Bytes),
        (Lie::EndFromNowhere, Rule::HonestClose),
        (Lie::AcknowledgedTooSoon, Rule::HonestClose),
        (Lie::ErrorFromNowhere, Rule::Cause),
        (Lie::EdgeForgotten, Rule::Progress),
        (Lie::DescriptorKept, Rule::Resources),
        (Lie::FastClock, Rule::Timers),
        (Lie::WaitForNothing, Rule::NoSpin),
        (Lie::LateClock, Rule::Timers),
    ] {
        let stalls = (lie == Lie::LateClock).then_some(Row::Stalled);
        let broken = broken_by(Some(lie), stalls);
        assert!(broken.contains(&rule), "{lie:?} broke {broken:?}, and not {rule:?}");
    }
}
