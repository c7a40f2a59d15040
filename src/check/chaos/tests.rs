//! Each rule can fail: on a network that lies, the judge says which promise was broken.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::run::Run;
use crate::check::{Rule, Violation};
use crate::sim::Fault;
use crate::sim::sabotage::Lie;

/// The rules that a lie breaks, seed by seed, with a fault that it needs.
fn broken_by(lie: Option<Lie>, favoured: Option<Fault>) -> impl Iterator<Item = Rule> {
    let seeds = 0..if favoured.is_some() { 600 } else { 60 };
    seeds.filter_map(move |seed| {
        let mut run = Run::new(seed, favoured, false);
        if let Some(lie) = lie {
            run.book.network.lie(lie);
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            run.begin_all();
            run.go()
        }));
        let _ = catch_unwind(AssertUnwindSafe(|| drop(run)));
        // A debug build may be so surprised that it panics, which says as much.
        if let Ok(Err(Violation { rule, .. })) = outcome { Some(rule) } else { None }
    })
}

#[test]
fn an_honest_network_breaks_no_rule() {
    assert_eq!(broken_by(None, None).collect::<Vec<_>>(), []);
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
        let stalls = (lie == Lie::LateClock).then_some(Fault::Stalled);
        assert!(broken_by(Some(lie), stalls).any(|broken| broken == rule), "{lie:?} never broke {rule:?}");
    }
}
