//! Each rule can fail: on a network with sabotage, the rules report what was broken.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::run::Run;
use crate::check::{Rule, Violation};
use crate::sim::Fault;
use crate::sim::sabotage::Sabotage;
use crate::trace::Recorder;

/// The rules that a sabotage breaks, one seed after the other, with a fault that it needs.
fn broken_by(sabotage: Option<Sabotage>, preferred: Option<Fault>) -> impl Iterator<Item = Rule> {
    let seeds = 0..if preferred.is_some() { 600 } else { 60 };
    seeds.filter_map(move |seed| {
        let mut run = Run::new(seed, preferred, false, None);
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

/// So the ladder of a seed is that of the run that has failed.
#[test]
fn a_recorded_run_is_the_same_run() {
    for (seed, preferred) in (0..60).zip([None, Some(Fault::Stalled), Some(Fault::ShortWrite)].into_iter().cycle()) {
        let recorder = Recorder::new(100_000);
        let recorded = super::run_recorded(seed, preferred, &recorder);
        assert_eq!(recorded.outcome.digest, super::run(seed, preferred).digest, "seed {seed}");
        let records = recorder.records();
        assert!(recorded.outcome.sockets == 0 || !records.is_empty(), "seed {seed}");
        assert!(records.iter().all(|record| record.at >= recorded.begun), "seed {seed}");
        let places = recorded.packets.iter().map(|packet| packet.next_record);
        assert!(places.is_sorted(), "seed {seed}");
    }
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
        (Sabotage::ResetForgotten, Rule::HonestClose),
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
