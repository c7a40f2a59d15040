//! Interleaved rounds: A B C, then B C A, and so on, a fresh server for each load.
//!
//! Each server is fresh, so that no round inherits memory or TIME_WAIT from another; the first load
//! on it is the warm-up and not counted.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;

use crate::plan::{Entry, Load, Loads, Plan};
use crate::process::{self, Idle, Network, Server, Start};
use crate::raw::{Bench, Experiment, Latency, Row, Sample};
use crate::roster::Tree;

/// What all measurements share.
pub(crate) struct Bed {
    pub(crate) tree: Tree,
    pub(crate) server_core: u32,
    pub(crate) client_core: u32,
    pub(crate) network: Network,
    pub(crate) log: PathBuf,
}

/// A bar on a terminal, a line elsewhere. It is drawn between measurements only, so it costs none
/// of them anything.
pub(crate) fn progress(title: &str, steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>44} [{bar:24}] {pos}/{len} {elapsed} {msg}");
    if !io::stderr().is_terminal() {
        eprintln!("{title}: {steps} steps");
    }
    let bar = ProgressBar::new(steps).with_prefix(title.to_owned());
    style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style.progress_chars("=> ")))
}

/// Runs a plan. A row that fails once is out: its other rounds are not run.
pub(crate) fn run(bed: &Bed, plan: &Plan) -> Experiment {
    let name = |entry: &Entry| Row { name: entry.name.clone(), samples: Vec::new(), failure: None };
    let mut rows: Vec<Row> = plan.entries.iter().map(name).collect();
    let count = rows.len();
    let bar = progress(&plan.title, u64::from(plan.rounds) * count as u64);
    for round in 0..plan.rounds {
        for at in shuffled(count, u64::from(round)) {
            bar.set_message(rows[at].name.clone());
            if rows[at].failure.is_none() {
                match sample(bed, plan, &plan.entries[at], round) {
                    Ok(sample) => rows[at].samples.push(sample),
                    Err(error) => rows[at].failure = Some(format!("{error:#}")),
                }
            }
            bar.inc(1);
        }
    }
    bar.finish_with_message("");
    Experiment { id: plan.id.into(), title: plan.title.clone(), load: plan.load.words(), unit: plan.load.unit(), rows }
}

/// The order of a round, from its number: a different one each time, so that no server always
/// follows the same one.
fn shuffled(count: usize, round: u64) -> Vec<usize> {
    // SplitMix64: good enough to shuffle a dozen.
    let mut state = round.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut random = move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ (mixed >> 27)
    };
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, (random() % (last as u64 + 1)) as usize);
    }
    order
}

fn sample(bed: &Bed, plan: &Plan, entry: &Entry, round: u32) -> Result<Sample> {
    let mut servers = start(bed, entry)?;
    let first = servers.first().context("there is a server")?;
    let idle = match entry.idle {
        0 => None,
        count => {
            let argv =
                [bed.tree.load().to_string_lossy().into_owned(), "idle".into(), first.addr.clone(), count.to_string()];
            Some(Idle::hold(&argv, Some(bed.client_core), first, count)?)
        }
    };
    first.wait_for_room(plan.load.connections() + plan.warm_up.connections())?;
    let cores = load_cores(bed, plan, entry);
    let run = |load: Load| {
        let argv = load.argv(&bed.tree, &first.addr, first.pid());
        at_once(&cores, |core| process::load(&argv, core, first.network()))
    };
    run(plan.warm_up).context("warm-up")?;
    settle(&servers)?;
    let (cpu, segments) = (cpu_ns(&servers)?, first.segments_sent()?);
    let done = run(plan.load)?;
    settle(&servers)?;
    let cpu = cpu_ns(&servers)?.checked_sub(cpu).context("a thread of the server has ended with its CPU time")?;
    let (cpu, segments) = (cpu, first.segments_sent()? - segments);
    // A wrapper that runs its server as a child would be measured instead of it, and would look
    // wonderful.
    ensure!(cpu > 0, "the load has cost the server no time: is the process that was started not the server itself?");
    let bench = matches!(plan.load, Load::Bench(_)).then(|| seen(&done.stdout)).transpose()?;
    for server in &mut servers {
        server.ensure_alive()?;
    }
    drop(idle);
    for server in servers {
        server.stop()?;
    }
    let segments = Some(segments);
    let units = plan.load.units() * cores.len() as u64;
    Ok(Sample { round, units, cpu_ns: cpu, wall_ns: done.wall_ns, segments, bench })
}

/// Where loads run, one for each core that is listed: on the client's core, or one on each server's
/// core.
fn load_cores(bed: &Bed, plan: &Plan, entry: &Entry) -> Vec<u32> {
    match plan.loads {
        Loads::OnTheirOwnCore => vec![bed.client_core],
        Loads::BesideEachServer if entry.shards > 1 => vec![bed.server_core, bed.client_core],
        Loads::BesideEachServer => vec![bed.server_core],
    }
}

/// The same load on several cores at once: the output of the last, and the time of the slowest.
fn at_once(cores: &[u32], load: impl Fn(Option<u32>) -> Result<process::Done> + Sync) -> Result<process::Done> {
    std::thread::scope(|scope| {
        let loads: Vec<_> = cores
            .iter()
            .map(|&core| {
                scope.spawn({
                    let load = &load;
                    move || load(Some(core))
                })
            })
            .collect();
        let mut all = process::Done { wall_ns: 0, stdout: String::new() };
        for load in loads {
            let done = load.join().map_err(|_| anyhow::anyhow!("the load's thread has panicked"))??;
            all = process::Done { wall_ns: all.wall_ns.max(done.wall_ns), ..done };
        }
        Ok(all)
    })
}

/// The first shard chooses the port, the others share it; each has a core of its own.
fn start(bed: &Bed, entry: &Entry) -> Result<Vec<Server>> {
    let of = |argv: &[String], core, network| {
        Server::start(&Start { argv, tool: &[], core: Some(core), network, log: &bed.log })
    };
    let first = of(&entry.argv, bed.server_core, bed.network)?;
    let argv: Vec<String> = entry.argv.iter().map(|word| word.replace("127.0.0.1:0", &first.addr)).collect();
    let network = first.network();
    let mut servers = vec![first];
    for _ in 1..entry.shards {
        servers.push(of(&argv, bed.client_core, network)?);
    }
    Ok(servers)
}

fn cpu_ns(servers: &[Server]) -> Result<u64> {
    servers.iter().map(Server::cpu_ns).sum()
}

fn settle(servers: &[Server]) -> Result<()> {
    servers.iter().try_for_each(Server::settle)
}

/// The part of `finale bench --json` that the page shows.
#[derive(Deserialize)]
struct Seen {
    failed: u64,
    per_second: f64,
    latency_us: Latency,
}

fn seen(json: &str) -> Result<Bench> {
    let seen: Seen = serde_json::from_str(json).context("finale bench has not printed its JSON object")?;
    ensure!(seen.failed == 0, "{} failed", seen.failed);
    Ok(Bench { per_second: seen.per_second, latency_us: seen.latency_us })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_everybody_once_in_an_order_of_its_own() {
        let orders: std::collections::BTreeSet<Vec<usize>> = (0..15).map(|round| shuffled(12, round)).collect();
        assert_eq!(orders.len(), 15);
        for mut order in orders {
            order.sort_unstable();
            assert_eq!(order, (0..12).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_finale_bench_says_is_read_and_its_failures_are_failures() {
        let json = |failed| {
            format!(
                "{{\"failed\": {failed}, \"per_second\": 20000.5, \"in_flight\": 256, \
                 \"latency_us\": {{\"p50\": 1, \"p90\": 2, \"p99\": 3.5, \"p999\": 4, \"max\": 5}}}}"
            )
        };
        let bench = seen(&json(0)).unwrap();
        assert_eq!((bench.per_second, bench.latency_us.p99), (20_000.5, 3.5));
        assert_eq!(seen(&json(2)).unwrap_err().to_string(), "2 failed");
        assert!(seen("nothing").is_err());
    }
}
