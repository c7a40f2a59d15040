//! Each rule can fail: on a network with sabotage, the rules report what was broken.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::run::Run;
use crate::check::{Rule, Violation};
use crate::sim::Fault;
use crate::sim::sabotage::Sabotage;

/// The rules that a sabotage breaks, one seed after the other, with a fault that it needs.
fn broken_by(sabotage: Option<Sabotage>, preferred: Option<Fault>) -> impl Iterator<Item = Rule> {
    let seeds = 0..if preferred.is_some() { 600 } else { 60 };
    seeds.filter_map(move |seed| {
        let mut run = Run::new(seed, preferred, false);
        if let Some(sabotage) = sabotage {
            run.state.network.sabotage(sabotage);
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            run.begin_all();
            run.go()
        }));
        let _ = catch_unwind(AssertUnwindSafe(|| drop(run)));
        // A debug build may panic, which reports the same.
        if let Ok(Err(Violation { rule, .. })) = outcome { Some(rule) } else { None }
    })
}

#[test]
fn an_honest_network_breaks_no_rule() {
    assert_eq!(broken_by(None, None).collect::<Vec<_>>(), []);
}

#[test]
fn each_lie_breaks_the_rule_that_it_is_against() {
    for (sabotage, rule) in [
        (Sabotage::WrongByte, Rule::Bytes),
        (Sabotage::EndFromNowhere, Rule::HonestClose),
        (Sabotage::AcknowledgedTooSoon, Rule::HonestClose),
        (Sabotage::ErrorFromNowhere, Rule::Cause),
        (Sabotage::EdgeForgotten, Rule::Progress),
        (Sabotage::DescriptorKept, Rule::Resources),
        (Sabotage::FastClock, Rule::Timers),
        (Sabotage::WaitForNothing, Rule::NoSpin),
        (Sabotage::LateClock, Rule::Timers),
    ] {
        let stalls = (sabotage == Sabotage::LateClock).then_some(Fault::Stalled);
        assert!(
            broken_by(Some(sabotage), stalls).any(|violation| violation == rule),
            "{sabotage:?} never broke {rule:?}"
        );
    }
}
