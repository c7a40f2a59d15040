//! The page: bench/RESULTS.md, made from the raw data only. Losses are in the same places as wins.

use std::fmt::Write as _;

use crate::counts::{PERF, STRACE, VALGRIND};
use crate::goals::{self, Verdict, short};
use crate::plan::{self, Part};
use crate::raw::{Bench, Counts, Experiment, Memory, Raw, Row, Sample};
use crate::roster::{self, BLOCKING, EPOLL, HAND_OFF};
use crate::stats::Spread;

/// The half-closing loads, with the head of their column in the overview.
const LOADS: &[(Part, &str)] = &[
    (Part::Main, "64 B"),
    (Part::Answer16k, "16 KiB"),
    (Part::Answer1m, "1 MiB"),
    (Part::Request0, "no request"),
    (Part::ServerFirst, "server first"),
    (Part::InFlight1, "1 in flight"),
    (Part::InFlight4096, "4,096 in flight"),
];

/// The whole page. `notes` is text by a person, unchanged.
pub(crate) fn page(raw: &Raw, notes: &str) -> String {
    let sections = [
        head(raw),
        goals_table(raw),
        overview(raw),
        details(raw),
        counts(raw),
        memory(raw),
        echo(raw),
        bulk(raw),
        idle(raw),
        shards(raw),
        ablation(raw),
        cross(raw),
        micro(raw),
        method(raw),
        where_it_ran(raw),
        notes.to_owned(),
    ];
    let written = sections.iter().map(|section| section.trim()).filter(|section| !section.is_empty());
    written.collect::<Vec<_>>().join("\n\n") + "\n"
}

/// A table; all columns but the first hold figures and stand to the right.
fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut text = format!("| {} |\n|---|{}\n", head.join(" | "), "---:|".repeat(head.len() - 1));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

const NONE: &str = "–";

fn or_none(words: Option<String>) -> String {
    words.unwrap_or_else(|| NONE.into())
}

fn median(spread: Option<Spread>) -> String {
    or_none(spread.map(|spread| format!("{:.2}", spread.median)))
}

/// Median, quartiles and extremes, a cell each.
fn cells(spread: Option<Spread>) -> [String; 3] {
    let cell = |words: fn(Spread) -> String| or_none(spread.map(words));
    [
        cell(|s| format!("**{:.2}**", s.median)),
        cell(|s| format!("{:.2}–{:.2}", s.lower, s.upper)),
        cell(|s| format!("{:.2}–{:.2}", s.min, s.max)),
    ]
}

fn label(raw: &Raw, name: &str) -> String {
    raw.titles.get(name).cloned().unwrap_or_else(|| roster::label(name))
}

/// A failure in one line of a table.
fn failed(why: &str) -> String {
    format!("**failed**: {}", why.replace(['\n', '|'], " "))
}

fn head(raw: &Raw) -> String {
    let fact = |name: &str| raw.machine.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let [date, kernel, cpu] = ["date", "kernel", "CPU"].map(|name| fact(name).unwrap_or("unknown"));
    let mut text = format!(
        "# What a connection costs\n\nMade by `{}` on {date}: Linux {kernel}, {cpu}; it took {} min {} s. This page is \
         written by that command; edit `bench/NOTES.md` in its place.\n",
        raw.command,
        raw.seconds / 60,
        raw.seconds % 60,
    );
    if !raw.whole {
        text += "\n**A trial, not a result**: few rounds, small loads, or a part of the experiments.\n";
    }
    let failures = raw.failures();
    if !failures.is_empty() {
        text += "\n**This run has failed.** What went wrong:\n";
        failures.iter().for_each(|line| {
            let _ = writeln!(text, "- {}", line.replace('\n', " "));
        });
    }
    // A trial of other rows has no chart, and must not show an earlier one.
    if raw.experiment(Part::Main.id()).and_then(|main| main.row(BLOCKING)).is_none() {
        return text;
    }
    text + "\n![CPU time per connection against a blocking loop in C, for each server, with its spread](results.svg)\n"
}

fn goals_table(raw: &Raw) -> String {
    let row = |goal: goals::Goal| {
        let verdict = match goal.verdict {
            // Few rounds of small loads judge nothing.
            Verdict::Met | Verdict::Missed if !raw.whole => "trial: not judged",
            Verdict::Met => "met",
            Verdict::Missed => "**missed**",
            Verdict::NotMeasured => NONE,
        };
        vec![goal.what, goal.goal, goal.measured, verdict.to_owned()]
    };
    let rows = goals::goals(raw).into_iter().map(row).collect();
    let how = match raw.whole {
        true => "A ratio is judged by its median.",
        false => "A trial judges no goal. A ratio is told by its median.",
    };
    format!("## Goals\n\n{how}\n\n{}", table(&["what", "goal", "measured", ""], rows))
}

/// Rows from the cheapest up, by the median against a reference; what has no ratio comes last.
fn sorted<'a>(experiment: &'a Experiment, against: &str) -> Vec<&'a Row> {
    let cost = |row: &Row| experiment.cpu_ratio(&row.name, against).map_or(f64::INFINITY, |spread| spread.median);
    let mut rows: Vec<&Row> = experiment.rows.iter().collect();
    rows.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
    rows
}

fn overview(raw: &Raw) -> String {
    let here: Vec<(&Experiment, &str)> =
        LOADS.iter().filter_map(|(part, head)| Some((raw.experiment(part.id())?, *head))).collect();
    let Some((first, _)) = here.first() else { return String::new() };
    let cell = |experiment: &Experiment, name: &str| {
        let out = experiment.rows.iter().any(|row| row.name == name && row.failure.is_some());
        if out { "**failed**".into() } else { median(experiment.cpu_ratio(name, BLOCKING)) }
    };
    let row = |row: &&Row| {
        let ratios = here.iter().map(|(experiment, _)| cell(experiment, &row.name));
        std::iter::once(label(raw, &row.name)).chain(ratios).collect()
    };
    let head: Vec<&str> = std::iter::once("server").chain(here.iter().map(|(_, head)| *head)).collect();
    let rows = sorted(first, BLOCKING).iter().map(row).collect();
    format!(
        "## Half-closing connections\n\nServer CPU time per connection as a ratio to the blocking loop in C, median of \
         interleaved rounds. 64 B are asked and answered, 256 connections are in flight and the client ends first, unless \
         the column says otherwise.\n\n{}",
        table(&head, rows)
    )
}

fn details(raw: &Raw) -> String {
    LOADS.iter().filter_map(|(part, _)| raw.experiment(part.id())).map(|found| detail(raw, found)).collect()
}

fn detail(raw: &Raw, experiment: &Experiment) -> String {
    let row = |row: &&Row| {
        let name = label(raw, &row.name);
        if let Some(why) = &row.failure {
            return vec![name, failed(why)];
        }
        let mut cells = cells(experiment.cpu_ratio(&row.name, BLOCKING)).to_vec();
        cells.push(median(experiment.cpu_ratio(&row.name, EPOLL)));
        cells.push(or_none(row.cpu_us().map(|spread| short(spread.median))));
        cells.push(or_none(row.per_second().map(|spread| format!("{:.0}", spread.median))));
        cells.push(median(row.segments()));
        std::iter::once(name).chain(cells).collect()
    };
    let head = ["server", "to blocking", "quartiles", "all rounds", "to epoll", "CPU µs", "connections/s", "segments"];
    let rounds = experiment.rows.iter().map(|row| row.samples.len()).max().unwrap_or(0);
    format!(
        "<details{}><summary>{}: {rounds} rounds of {}</summary>\n\n{}\n</details>\n",
        if experiment.id == Part::Main.id() { " open" } else { "" },
        experiment.title,
        experiment.load,
        table(&head, sorted(experiment, BLOCKING).iter().map(row).collect())
    )
}

fn counts(raw: &Raw) -> String {
    let main = raw.experiment(Part::Main.id());
    let mut counted: Vec<_> = raw.counts.iter().filter(|counts| !raw.titles.contains_key(&counts.name)).collect();
    let row = |counts: &&Counts| {
        let name = label(raw, &counts.name);
        if let Some(why) = &counts.failure {
            return vec![name, failed(why)];
        }
        let segments = main.and_then(|main| main.row(&counts.name)?.segments());
        let calls = counts.by_call.iter().filter(|(_, each)| each.abs() >= 0.005);
        let calls: Vec<String> = calls.map(|(name, each)| format!("{name} {each:.2}")).collect();
        vec![
            name,
            counted_by(STRACE, counts, counts.system_calls, 2),
            counted_by(PERF, counts, counts.calls_at_speed, 2),
            median(segments),
            counted_by(VALGRIND, counts, counts.instructions, 0),
            calls.join(", "),
        ]
    };
    // From the fewest calls up; servers that were not counted are last.
    counted.sort_by(|a, b| fewest(a).total_cmp(&fewest(b)));
    let rows: Vec<Vec<String>> = counted.iter().map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let head =
        ["server", "calls, loaded", "calls, at full speed", "segments, both ends", "instructions", "which calls"];
    format!(
        "## What one connection asks for\n\nThe main load. System calls are counted twice: by strace, under which every server is slow and so always has \
         the next connection waiting, and by the kernel (perf stat) at full speed, when each server is faster than the client, \
         and wakes and asks in vain more often. The second depends on how fast the client is; \"which calls\" are the first. Instructions are those in user space.\n\n{}",
        table(&head, rows)
    )
}

/// A count, or why a tool has counted nothing.
fn counted_by(tool: &str, counts: &Counts, figure: Option<f64>, decimals: usize) -> String {
    let why = || counts.uncounted.get(tool).map(|why| format!("not counted: {}", why.replace(['\n', '|'], " ")));
    or_none(figure.map(|figure| format!("{figure:.decimals$}")).or_else(why))
}

fn fewest(counts: &Counts) -> f64 {
    counts.system_calls.filter(|_| counts.failure.is_none()).unwrap_or(f64::INFINITY)
}

fn memory(raw: &Raw) -> String {
    if raw.memory.is_empty() {
        return String::new();
    }
    let mut rows: Vec<_> = raw.memory.iter().collect();
    let cost = |memory: &Memory| if memory.failure.is_some() { f64::INFINITY } else { memory.bytes_each() };
    rows.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    let row = |memory: &Memory| match &memory.failure {
        Some(why) => vec![label(raw, &memory.name), failed(why)],
        None => vec![
            label(raw, &memory.name),
            format!("{:.0}", memory.bytes_each()),
            mib(memory.before_bytes),
            mib(memory.after_bytes),
        ],
    };
    let head = ["server", "bytes per idle connection", "MiB before", "MiB with 19,000"];
    format!(
        "## Memory of an idle connection\n\nThe blocking loop is not here: it holds one connection at a time.\n\n{}",
        table(&head, rows.into_iter().map(row).collect())
    )
}

fn echo(raw: &Raw) -> String {
    let Some(echo) = raw.experiment(Part::Echo.id()) else { return String::new() };
    let text = format!("Server CPU time per round trip as a ratio to C with epoll; {}.", echo.load);
    let head = ["server", "to epoll", "quartiles", "all rounds", "CPU µs"];
    against_epoll(raw, &sorted(echo, EPOLL), "## Echo", &text, &head, |row| {
        [&cells(echo.cpu_ratio(&row.name, EPOLL))[..], &[or_none(row.cpu_us().map(|spread| short(spread.median)))]]
            .concat()
    })
}

fn bulk(raw: &Raw) -> String {
    let Some(bulk) = raw.experiment(Part::Bulk.id()) else { return String::new() };
    let text = "Throughput as a ratio to C with epoll (more is better) and server CPU time per byte (less is better).";
    let head = ["server", "throughput", "quartiles", "all rounds", "GiB/s", "CPU to epoll"];
    let rate = |row: &Row| {
        let per_second = |sample: &Sample| sample.units as f64 / 1024.0 / (sample.wall_ns as f64 / 1e9);
        or_none(row.spread(per_second).map(|spread| format!("{:.2}", spread.median)))
    };
    let slowness = |row: &Row| bulk.rate_ratio(&row.name, EPOLL).map_or(f64::INFINITY, |spread| -spread.median);
    let mut rows: Vec<&Row> = bulk.rows.iter().collect();
    rows.sort_by(|a, b| slowness(a).total_cmp(&slowness(b)));
    against_epoll(raw, &rows, "## 1 GiB through one connection", text, &head, |row| {
        let more = [rate(row), median(bulk.cpu_ratio(&row.name, EPOLL))];
        [&cells(bulk.rate_ratio(&row.name, EPOLL))[..], &more].concat()
    })
}

/// A section with one table whose reference is the epoll server.
fn against_epoll(
    raw: &Raw,
    rows: &[&Row],
    title: &str,
    text: &str,
    head: &[&str],
    figures: impl Fn(&Row) -> Vec<String>,
) -> String {
    let row = |row: &&Row| {
        let rest = row.failure.as_ref().map_or_else(|| figures(row), |why| vec![failed(why)]);
        std::iter::once(label(raw, &row.name)).chain(rest).collect()
    };
    let rows = rows.iter().map(row).collect();
    format!("{title}\n\n{text}\n\n{}", table(head, rows))
}

/// Rows that are each compared with another of the same experiment.
fn pairs(raw: &Raw, experiment: &Experiment, pairs: &[(&str, String)]) -> String {
    let row = |(base, name): &(&str, String)| {
        let why = experiment.rows.iter().filter(|row| [*base, name].contains(&row.name.as_str()));
        if let Some(why) = why.filter_map(|row| row.failure.as_ref()).next() {
            return vec![label(raw, base), failed(why)];
        }
        let us = |name: &str| or_none(experiment.row(name).and_then(Row::cpu_us).map(|spread| short(spread.median)));
        let ratio = cells(experiment.cpu_ratio(name, base)).to_vec();
        [vec![label(raw, base)], ratio, vec![us(base), us(name)]].concat()
    };
    let here = |name: &str| experiment.rows.iter().any(|row| row.name == name);
    let rows = pairs.iter().filter(|(base, _)| here(base)).map(row).collect();
    table(&["server", "ratio", "quartiles", "all rounds", "CPU µs without", "CPU µs with"], rows)
}

fn idle(raw: &Raw) -> String {
    let Some(idle) = raw.experiment(Part::Idle.id()) else { return String::new() };
    let both = [HAND_OFF, EPOLL].map(|name| (name, plan::with_idle(name)));
    format!(
        "## With 19,000 idle connections beside it\n\nThe main load on a server that holds them, against the same server without \
         any, in the same round. The ratio of C with epoll is what the kernel itself takes for them.\n\n{}",
        pairs(raw, idle, &both)
    )
}

fn shards(raw: &Raw) -> String {
    let Some(shards) = raw.experiment(Part::Shards.id()) else { return String::new() };
    format!(
        "## Two shards\n\nTwo processes on one port (SO_REUSEPORT), one on each core, each with a client of its own \
         beside it on that core; only the servers' CPU time counts. Against one process that shares a core with one client.\n\n{}",
        pairs(raw, shards, &[(HAND_OFF, plan::TWO_SHARDS.into())])
    )
}

fn ablation(raw: &Raw) -> String {
    let Some(ablation) = raw.experiment(Part::Ablation.id()) else { return String::new() };
    let echo = raw.experiment(plan::ABLATION_ECHO);
    let row = |row: &Row| {
        let title = raw.titles.get(&row.name).cloned().unwrap_or_else(|| "*nothing: finale as it is, hand-off*".into());
        if let Some(why) = &row.failure {
            return vec![title, failed(why)];
        }
        let counts = raw.counts.iter().find(|counts| counts.name == row.name && counts.failure.is_none());
        let counted = |tool, figure: fn(&Counts) -> Option<f64>, decimals| {
            or_none(counts.map(|counts| counted_by(tool, counts, figure(counts), decimals)))
        };
        let [median_there, quartiles, _] = cells(ablation.cpu_ratio(&row.name, HAND_OFF));
        let [echo_median, echo_quartiles, _] = cells(echo.and_then(|echo| echo.cpu_ratio(&row.name, HAND_OFF)));
        let out = echo.and_then(|echo| echo.rows.iter().find(|other| other.name == row.name)?.failure.as_ref());
        vec![
            title,
            median_there,
            quartiles,
            out.map_or(echo_median, |why| failed(why)),
            echo_quartiles,
            counted(STRACE, |counts| counts.system_calls, 2),
            median(row.segments()),
            counted(VALGRIND, |counts| counts.instructions, 0),
        ]
    };
    let head =
        ["switched off", "half-close", "quartiles", "echo", "quartiles", "system calls", "segments", "instructions"];
    let rounds = |experiment: &Experiment| experiment.rows.iter().map(|row| row.samples.len()).max().unwrap_or(0);
    let echoed = echo
        .map_or_else(String::new, |echo| format!(", and in the echo load ({} rounds: {})", rounds(echo), echo.load));
    format!(
        "## What each trick is worth\n\nServer CPU time of finale with one trick switched off (`bench/ablation/`), as a ratio to \
         finale as it is, in the main load ({} rounds){echoed}. A ratio above 1 is what the trick saves; where the quartiles lie \
         on both sides of 1, these rounds do not tell. Calls, segments and instructions are those of the main load.\n\n{}",
        rounds(ablation),
        table(&head, ablation.rows.iter().map(row).collect())
    )
}

fn cross(raw: &Raw) -> String {
    let Some(cross) = raw.experiment(Part::Cross.id()) else { return String::new() };
    let main = raw.experiment(Part::Main.id());
    let row = |row: &&Row| {
        if let Some(why) = &row.failure {
            return vec![label(raw, &row.name), failed(why)];
        }
        let each = |figure: fn(&Bench) -> f64| {
            let seen = row.samples.iter().filter_map(|sample| sample.bench.as_ref()).map(figure);
            or_none(Spread::of(seen).map(|spread| short(spread.median)))
        };
        let [blocking, blocking_quartiles, _] = cells(main.and_then(|main| main.cpu_ratio(&row.name, BLOCKING)));
        let [bench, bench_quartiles, _] = cells(cross.cpu_ratio(&row.name, BLOCKING));
        vec![
            label(raw, &row.name),
            blocking,
            blocking_quartiles,
            bench,
            bench_quartiles,
            each(|bench| bench.per_second),
            each(|bench| bench.latency_us.p50),
            each(|bench| bench.latency_us.p99),
            each(|bench| bench.latency_us.p999),
        ]
    };
    let head = [
        "server",
        "blocking client",
        "quartiles",
        "finale bench",
        "quartiles",
        "connections/s",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
    ];
    format!(
        "## The other load generator\n\nThe main load once more, from `finale bench`: server CPU time as a ratio to the blocking loop \
         in C, under each client, side by side. The clients are two loads, not two measurements of one: the blocking client \
         sends each request right after its connect, while `finale bench` is an event loop, which connects a good many \
         before it sends their requests, so that a server that is awake finds less to read at once. So a server may stand \
         differently under the two, and the goals above are judged under the blocking client alone. Rate and latency are those \
         of `finale bench`; latency is from connect to the end of the answer with 256 in flight, so it is mostly waiting for \
         one's turn.\n\n{}",
        table(&head, sorted(cross, BLOCKING).iter().map(row).collect())
    )
}

fn micro(raw: &Raw) -> String {
    if raw.micro.is_empty() {
        return String::new();
    }
    let rows = raw.micro.iter().map(|(name, ns)| vec![format!("`{name}`"), short(*ns)]).collect();
    format!(
        "## Inside\n\nMedians of `cargo bench`, run as the last part of this run, on the server's core; not interleaved with anything.\n\n<details><summary>{} \
         benchmarks</summary>\n\n{}\n</details>",
        raw.micro.len(),
        table(&["benchmark", "ns"], rows)
    )
}

/// The method in words, with the numbers of this run.
fn method(raw: &Raw) -> String {
    let lengths = raw.lengths;
    let numbers = [
        ("{long}", lengths.long),
        ("{short}", lengths.short),
        ("{more}", lengths.long - lengths.short),
        ("{long at speed}", lengths.long_at_speed),
        ("{short at speed}", lengths.short_at_speed),
        ("{echo warm-up}", plan::ECHO_WARM_UP),
        ("{idle}", plan::IDLE),
    ];
    numbers
        .iter()
        .fold(include_str!("method.md").to_owned(), |text, (mark, number)| text.replace(mark, &thousands(*number)))
}

/// With separators: 12,000.
fn thousands(number: u64) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", thousands(number / 1000), number % 1000) }
}

fn where_it_ran(raw: &Raw) -> String {
    let network = match raw.own_network {
        true => {
            "Each load had a network namespace of its own: no other traffic, an empty TIME_WAIT table, counters of its own."
        }
        false => {
            "All loads used this machine's own network (a namespace for each needs root): segments of other traffic are \
             counted too, and each load waited until TIME_WAIT had room for it."
        }
    };
    let mut text = format!("## This run\n\n{network}\n\n");
    for (name, value) in &raw.machine {
        let _ = writeln!(text, "- {name}: {value}");
    }
    for line in &raw.skipped {
        let _ = writeln!(text, "- not run: {line}");
    }
    text
}

#[cfg(test)]
mod tests;
