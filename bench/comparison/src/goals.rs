//! The goals, each with what was measured for it. A goal that was not measured is neither met nor
//! missed.

use crate::plan::{self, Part};
use crate::raw::{Counts, Experiment, Memory, Raw};
use crate::roster::{BLOCKING, CONFIRMED, EPOLL, HAND_OFF, LIBUV, THREADED, TOKIO, USOCKETS, label};
use crate::stats::Spread;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Met,
    Missed,
    NotMeasured,
}

/// A row of the goals' table.
#[derive(Debug, Clone)]
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) goal: String,
    pub(crate) measured: String,
    pub(crate) verdict: Verdict,
}

/// What a figure must not exceed, or must reach.
#[derive(Debug, Clone, Copy)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    fn holds(self, figure: f64) -> bool {
        match self {
            Self::AtMost(limit) => figure <= limit,
            Self::AtLeast(limit) => figure >= limit,
        }
    }

    /// Ratios are written with the decimals that they are judged by.
    fn ratio(self) -> String {
        match self {
            Self::AtMost(limit) => format!("≤ {limit:.2}"),
            Self::AtLeast(limit) => format!("≥ {limit:.2}"),
        }
    }

    fn words(self, unit: &str) -> String {
        match self {
            Self::AtMost(limit) => format!("≤ {limit}{unit}"),
            Self::AtLeast(limit) => format!("≥ {limit}{unit}"),
        }
    }
}

/// All of them, in the order in which they were set.
pub(crate) fn goals(raw: &Raw) -> Vec<Goal> {
    [ratios(raw), counts(raw), timers(raw), beside(raw)].concat()
}

fn ratio(what: &str, limit: Limit, measured: Option<Spread>) -> Goal {
    let words = measured.map(|s| format!("{:.2} (quartiles {:.2}–{:.2})", s.median, s.lower, s.upper));
    let goal = judge(what, limit, "", measured.map(|spread| spread.median), words);
    Goal { goal: limit.ratio(), ..goal }
}

fn figure(what: &str, limit: Limit, unit: &str, measured: Option<f64>) -> Goal {
    judge(what, limit, unit, measured, measured.map(|figure| format!("{}{unit}", short(figure))))
}

fn judge(what: &str, limit: Limit, unit: &str, measured: Option<f64>, words: Option<String>) -> Goal {
    let verdict = match measured.map(|figure| limit.holds(figure)) {
        Some(true) => Verdict::Met,
        Some(false) => Verdict::Missed,
        None => Verdict::NotMeasured,
    };
    let measured = words.unwrap_or_else(|| "not measured".into());
    Goal { what: what.into(), goal: limit.words(unit), measured, verdict }
}

/// Two decimals below ten, one below a hundred: more would be noise.
pub(crate) fn short(figure: f64) -> String {
    match figure.abs() {
        size if size < 10.0 => format!("{figure:.2}"),
        size if size < 100.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}

fn ratios(raw: &Raw) -> Vec<Goal> {
    let main = raw.experiment(Part::Main.id());
    let of = |name, against| main.and_then(|main| main.cpu_ratio(name, against));
    let best = main.and_then(best_reactor);
    let named = best.map_or_else(String::new, |best| format!(": {}", label(best)));
    vec![
        ratio(
            &format!("CPU per connection, hand-off, against the best of libuv, tokio and uSockets{named}"),
            Limit::AtMost(0.75),
            best.and_then(|best| of(HAND_OFF, best)),
        ),
        ratio("CPU per connection, hand-off, against the C blocking loop", Limit::AtMost(0.90), of(HAND_OFF, BLOCKING)),
        ratio(
            "CPU per connection, confirmed close, against C with epoll, which confirms nothing",
            Limit::AtMost(1.00),
            of(CONFIRMED, EPOLL),
        ),
    ]
}

/// The one with the lowest median against the blocking loop, or against the first of them where
/// that was not run.
fn best_reactor(main: &Experiment) -> Option<&'static str> {
    let here: Vec<&'static str> =
        [LIBUV, TOKIO, USOCKETS].into_iter().filter(|name| main.row(name).is_some()).collect();
    let reference = main.row(BLOCKING).map(|_| BLOCKING).or(here.first().copied())?;
    let median = |name: &str| main.cpu_ratio(name, reference).map_or(f64::INFINITY, |spread| spread.median);
    here.into_iter().min_by(|a, b| median(a).total_cmp(&median(b)))
}

fn counts(raw: &Raw) -> Vec<Goal> {
    let of = |name: &str| raw.counts.iter().find(|counts| counts.name == name && counts.failure.is_none());
    let calls = |name: &str| of(name).and_then(|counts: &Counts| counts.system_calls);
    let at_speed = |name: &str| of(name).and_then(|counts: &Counts| counts.calls_at_speed);
    let main = raw.experiment(Part::Main.id());
    let segments = |name| main?.row(name)?.segments().map(|spread| spread.median);
    let idle = raw.memory.iter().find(|memory| memory.name == HAND_OFF && memory.failure.is_none());
    // Sometimes there is another segment: an acknowledgement without data to go with.
    let eight = Limit::AtMost(8.05);
    let round = |mut goal: Goal| {
        goal.goal = "8 (up to 8.05)".into();
        goal
    };
    vec![
        figure("system calls per connection, hand-off, loaded (strace)", Limit::AtMost(5.2), "", calls(HAND_OFF)),
        figure("the same at full speed, hardly loaded (perf stat)", Limit::AtMost(5.2), "", at_speed(HAND_OFF)),
        figure(
            "system calls per connection, confirmed close, loaded (strace)",
            Limit::AtMost(8.2),
            "",
            calls(CONFIRMED),
        ),
        figure("the same at full speed, hardly loaded (perf stat)", Limit::AtMost(8.2), "", at_speed(CONFIRMED)),
        round(figure("segments per connection, both ends, hand-off", eight, "", segments(HAND_OFF))),
        round(figure("segments per connection, both ends, confirmed close", eight, "", segments(CONFIRMED))),
        figure(
            "user-space instructions per connection, hand-off",
            Limit::AtMost(400.0),
            "",
            of(HAND_OFF).and_then(|counts| counts.instructions),
        ),
        figure("memory per idle connection", Limit::AtMost(72.0), " B", idle.map(Memory::bytes_each)),
    ]
}

/// By the names of `cargo bench`. Of uniform, far and crowded deadlines the slowest is judged, in
/// each order: hot timers are the few that were just served, as a touched socket is in a reactor;
/// in random order nearly all of the time is cache misses.
fn timers(raw: &Raw) -> Vec<Goal> {
    let slowest = |call: &str, order: &str| {
        let fits = |name: &str| name.starts_with("timers") && name.contains(call) && name.ends_with(order);
        raw.micro.iter().filter(|(name, _)| fits(name)).map(|(_, ns)| *ns).reduce(f64::max)
    };
    let calls = [("touch", "touch", 2.0), ("cancel + schedule", "schedule and cancel", 20.0), ("/fire", "fire", 30.0)];
    let in_each_order = |(call, words, limit): (&str, &str, f64)| {
        // A timer that fires was not just served.
        let hot = (call != "/fire").then_some("hot");
        let orders = hot.into_iter().chain(["in memory order", "in random order"]);
        let of = |order| {
            let what = format!("timers, a million live: {words}, {order}");
            figure(&what, Limit::AtMost(limit), " ns", slowest(call, order))
        };
        orders.map(of).collect::<Vec<_>>()
    };
    calls.into_iter().flat_map(in_each_order).collect()
}

/// A whole event with a million idle sockets, compared with one with a thousand: the largest ratio
/// of several such pairs.
fn event_ratio(raw: &Raw) -> Option<f64> {
    let ratio = |(name, many): (&String, &f64)| {
        let group = name.strip_suffix("/1 M").filter(|group| group.contains("event"))?;
        Some(many / raw.micro.get(&format!("{group}/1 k"))?)
    };
    raw.micro.iter().filter_map(ratio).reduce(f64::max)
}

fn beside(raw: &Raw) -> Vec<Goal> {
    let cpu = |part: Part, name: &str, against: &str| raw.experiment(part.id())?.cpu_ratio(name, against);
    let bulk = raw.experiment(Part::Bulk.id());
    let (rate, bulk_cpu) =
        (bulk.and_then(|bulk| bulk.rate_ratio(HAND_OFF, EPOLL)), bulk.and_then(|bulk| bulk.cpu_ratio(HAND_OFF, EPOLL)));
    vec![
        ratio(
            "echo, CPU per round trip, against C with epoll and a second thread",
            Limit::AtMost(1.04),
            cpu(Part::Echo, HAND_OFF, THREADED),
        ),
        ratio("1 GiB through one connection, throughput against C with epoll", Limit::AtLeast(0.97), rate),
        ratio(
            "the same in CPU time (the client, which compares every byte, limits the throughput)",
            Limit::AtMost(1.03),
            bulk_cpu,
        ),
        ratio(
            "CPU per connection with 19,000 idle ones beside it, against none",
            Limit::AtMost(1.05),
            cpu(Part::Idle, &plan::with_idle(HAND_OFF), HAND_OFF),
        ),
        figure(
            "a whole event with 1,000,000 simulated idle sockets beside it, against 1,000",
            Limit::AtMost(1.15),
            "",
            event_ratio(raw),
        ),
        ratio(
            "two shards on two cores, CPU per connection against one shard",
            Limit::AtMost(1.05),
            cpu(Part::Shards, plan::TWO_SHARDS, HAND_OFF),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::tests::{experiment, row};

    fn find<'a>(goals: &'a [Goal], what: &str) -> &'a Goal {
        goals.iter().find(|goal| goal.what.contains(what)).unwrap_or_else(|| panic!("no goal about {what}"))
    }

    #[test]
    fn nothing_measured_meets_no_goal_and_misses_none() {
        let goals = goals(&Raw::default());
        assert_eq!(goals.len(), 25);
        assert!(goals.iter().all(|goal| goal.verdict == Verdict::NotMeasured && goal.measured == "not measured"));
    }

    #[test]
    fn the_best_of_the_three_is_the_one_to_beat() {
        let rows = vec![
            row(BLOCKING, &[30.0, 60.0]),
            row(HAND_OFF, &[24.0, 48.0]),
            row(LIBUV, &[48.0, 96.0]),
            row(TOKIO, &[30.0, 60.0]),
        ];
        let raw = Raw { experiments: vec![experiment("main", rows)], ..Raw::default() };
        let goals = goals(&raw);
        let best = find(&goals, "the best of");
        assert!(best.what.ends_with("tokio, current_thread"), "{}", best.what);
        assert_eq!((best.verdict, best.measured.as_str()), (Verdict::Missed, "0.80 (quartiles 0.80–0.80)"));
        assert_eq!(find(&goals, "C blocking loop").verdict, Verdict::Met);
    }

    #[test]
    fn a_goal_of_at_least_is_missed_from_below() {
        let mut slow = row(HAND_OFF, &[10.0]);
        slow.samples[0].wall_ns = 100_000_000;
        let raw = Raw { experiments: vec![experiment("bulk", vec![row(EPOLL, &[10.0]), slow])], ..Raw::default() };
        let bulk = goals(&raw).into_iter().find(|goal| goal.what.contains("throughput")).unwrap();
        assert_eq!((bulk.verdict, bulk.goal.as_str()), (Verdict::Missed, "≥ 0.97"));
        assert!(bulk.measured.starts_with("0.50"), "{}", bulk.measured);
    }

    #[test]
    fn counts_are_judged_as_they_were_measured() {
        let counts =
            Counts { name: HAND_OFF.into(), system_calls: Some(5.21), instructions: Some(400.0), ..Counts::default() };
        let failed =
            Counts { name: CONFIRMED.into(), system_calls: Some(1.0), failure: Some("x".into()), ..Counts::default() };
        let memory =
            Memory { name: HAND_OFF.into(), connections: 100, before_bytes: 1000, after_bytes: 8200, failure: None };
        let raw = Raw { counts: vec![counts, failed], memory: vec![memory], ..Raw::default() };
        let goals = goals(&raw);
        assert_eq!(find(&goals, "system calls per connection, hand-off").verdict, Verdict::Missed);
        assert_eq!(find(&goals, "system calls per connection, confirmed").verdict, Verdict::NotMeasured);
        assert_eq!(find(&goals, "instructions").verdict, Verdict::Met);
        assert_eq!(find(&goals, "memory").measured, "72.0 B");
    }

    #[test]
    fn the_slowest_of_a_kind_is_judged_and_an_event_by_its_own_small_sibling() {
        let names = [
            ("timers, 1 M live/touch_uniform_in memory order", 1.5),
            ("timers, 1 M live/touch_far_in memory order", 2.5),
            ("timers, 1 M live/touch_uniform_hot", 9.0),
            ("timers, 1 M live/fire_far_in random order", 25.0),
            ("an event beside idle sockets, quiet/1 M", 110.0),
            ("an event beside idle sockets, quiet/1 k", 100.0),
            ("an event beside idle sockets, with an idle time/1 M", 240.0),
            ("an event beside idle sockets, with an idle time/1 k", 200.0),
        ];
        let micro = names.into_iter().map(|(name, ns)| (name.to_owned(), ns)).collect();
        let goals = goals(&Raw { micro, ..Raw::default() });
        assert_eq!(find(&goals, "touch, in memory order").measured, "2.50 ns");
        assert_eq!(find(&goals, "touch, in memory order").verdict, Verdict::Missed);
        assert_eq!(find(&goals, "touch, in random order").verdict, Verdict::NotMeasured);
        assert_eq!(find(&goals, "fire, in random order").verdict, Verdict::Met);
        assert_eq!(find(&goals, "a whole event").measured, "1.20");
    }
}
