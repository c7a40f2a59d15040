//! `finale sim`: random programs under random faults on the simulated network, by the million.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use finale::check::chaos::{self, Outcome};
use finale::lifecycle::Coverage;
use finale::sim::{Fault, FaultCounts};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::trouble::Trouble;

#[derive(Debug, Args)]
pub(crate) struct Sim {
    /// The seeds to run, from the first up to but without the second
    #[arg(long, value_name = "A..B", default_value = "0..100000", value_parser = seeds, conflicts_with = "replay")]
    seeds: Seeds,
    /// One seed again, told as a story in two columns; with the same --fault it was found with
    #[arg(long, value_name = "SEED", value_parser = seed)]
    replay: Option<u64>,
    /// Favour one fault, by name or by its row in docs/faults.md, where that can be arranged;
    /// `list` shows them all
    #[arg(long, value_name = "NAME", value_parser = fault)]
    fault: Option<FaultChoice>,
    /// Run all seeds and list those that broke a rule, instead of stopping at the first
    #[arg(long, conflicts_with = "replay")]
    all: bool,
    /// Threads to run on; default: one for each core
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<NonZero<usize>>,
}

#[derive(Debug, Clone, Copy)]
struct Seeds {
    from: u64,
    to: u64,
}

#[derive(Debug, Clone, Copy)]
enum FaultChoice {
    List,
    One(Fault),
}

fn seeds(text: &str) -> Result<Seeds, String> {
    let number = |text: &str| seed(text).ok();
    let ends = text.split_once("..").and_then(|(from, to)| number(from).zip(number(to)));
    match ends {
        Some((from, to)) if from < to => Ok(Seeds { from, to }),
        Some(_) => Err("there is no seed in it; write FROM..TO with FROM below TO, as 0..1000".to_owned()),
        None => Err("not a range of seeds; write FROM..TO, as 0..1000".to_owned()),
    }
}

fn seed(text: &str) -> Result<u64, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number.ok_or_else(|| "not a seed; write a number from 0 up".to_owned())
}

fn threads(text: &str) -> Result<NonZero<usize>, String> {
    text.parse().map_err(|_wrong| "not a number of threads; write 1 or more".to_owned())
}

fn fault(text: &str) -> Result<FaultChoice, String> {
    if text == "list" {
        return Ok(FaultChoice::List);
    }
    text.parse().map(FaultChoice::One).map_err(|()| "no such fault; finale sim --fault list shows them all".to_owned())
}

pub(crate) fn run(options: &Sim) -> Result<(), Trouble> {
    let favoured = match options.fault {
        Some(FaultChoice::List) => return list(),
        Some(FaultChoice::One(row)) => Some(row),
        None => None,
    };
    match options.replay {
        Some(seed) => replay(seed, favoured),
        None => many(options, favoured),
    }
}

fn list() -> Result<(), Trouble> {
    let lines: String = Fault::ALL.iter().map(|row| format!("{}  {}\n", row.id(), row.name())).collect();
    io::stdout().write_all(lines.as_bytes()).map_err(Trouble::Stdout)
}

/// The command that runs one seed again.
fn again(seed: u64, favoured: Option<Fault>) -> String {
    let fault = favoured.map_or(String::new(), |row| format!(" --fault {}", row.name()));
    format!("finale sim --replay {seed}{fault}")
}

fn replay(seed: u64, favoured: Option<Fault>) -> Result<(), Trouble> {
    quietly();
    let (outcome, story) = chaos::tell(seed, favoured);
    let mut out = io::stdout().lock();
    let Outcome { events, sockets, .. } = outcome;
    let played: Vec<_> = Fault::ALL.iter().filter(|&&row| outcome.rows.count(row) > 0).map(|row| row.name()).collect();
    let page = format!(
        "seed {seed}: {sockets} sockets, {events} events\nfaults: {}\n\n{story}\n",
        if played.is_empty() { "none".to_owned() } else { played.join(", ") }
    );
    let told = out.write_all(page.as_bytes());
    if let Some(broken) = outcome.broken {
        // A broken rule is a failure, whether anybody reads its story or not.
        return Err(Trouble::Broken { seed, broken: broken.to_string() });
    }
    told.and_then(|()| out.write_all(b"every rule was kept\n")).map_err(Trouble::Stdout)
}

/// A panic is one of the things that a run may find: the report prints it with its seed, and the
/// thread that panics prints nothing.
fn quietly() {
    std::panic::set_hook(Box::new(|_| {}));
}

/// What all threads have come to together.
#[derive(Default)]
struct Sum {
    rows: FaultCounts,
    pairs: Coverage,
    events: u64,
    sockets: u64,
    /// Runs in which the favoured fault struck, and the first of them.
    struck: u64,
    first_struck: Option<u64>,
    /// The seeds that broke a rule, and how.
    broken: BTreeMap<u64, String>,
}

impl Sum {
    fn add(&mut self, seed: u64, outcome: &Outcome, favoured: Option<Fault>) {
        self.rows.add(&outcome.rows);
        self.pairs.add(&outcome.pairs);
        self.events += outcome.events;
        self.sockets += outcome.sockets;
        if favoured.is_some_and(|row| outcome.rows.count(row) > 0) {
            self.struck += 1;
            self.first_struck = Some(self.first_struck.map_or(seed, |first| first.min(seed)));
        }
        if let Some(broken) = &outcome.broken {
            self.broken.insert(seed, broken.to_string());
        }
    }

    fn merge(&mut self, other: Self) {
        self.rows.add(&other.rows);
        self.pairs.add(&other.pairs);
        self.events += other.events;
        self.sockets += other.sockets;
        self.struck += other.struck;
        self.first_struck = self.first_struck.into_iter().chain(other.first_struck).min();
        self.broken.extend(other.broken);
    }
}

/// Seeds that a thread takes at a time.
const BATCH: u64 = 64;

/// Every so many seeds are run twice, and must tell the same story.
const TWICE: u64 = 64;

fn many(options: &Sim, favoured: Option<Fault>) -> Result<(), Trouble> {
    quietly();
    let Seeds { from, to } = options.seeds;
    let batches = usize::try_from((to - from).div_ceil(BATCH)).unwrap_or(usize::MAX);
    let threads = options.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZero::get);
    let threads = threads.min(batches);
    let (next, stop, sum) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(Sum::default()));
    let bar = progress(to - from);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let own = work(&next, options, &stop, favoured, &bar);
                sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner).merge(own);
            });
        }
    });
    let (took, run) = (began.elapsed(), bar.position());
    bar.finish_and_clear();
    let sum = sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((&seed, broken)) = sum.broken.first_key_value() {
        let page = match options.all {
            true => list_of_broken(&sum.broken, run),
            false => format!("{}\nagain: {}\n", chaos::tell(seed, favoured).1, again(seed, favoured)),
        };
        // A broken rule is a failure, whether anybody reads its story or not.
        let _ = io::stdout().write_all(page.as_bytes());
        return Err(Trouble::Broken { seed, broken: broken.clone() });
    }
    let page = report(&sum, run, took, threads, favoured);
    io::stdout().write_all(page.as_bytes()).map_err(Trouble::Stdout)
}

/// The seeds that broke a rule, by rule, and a line on each.
fn list_of_broken(broken: &BTreeMap<u64, String>, run: u64) -> String {
    let mut rules = BTreeMap::<_, Vec<_>>::new();
    for (seed, line) in broken {
        let rule = line.split('"').nth(1).unwrap_or_default();
        rules.entry(rule).or_default().push((seed, line.lines().next().unwrap_or_default()));
    }
    let mut page = format!("{} of {run} seeds broke a rule\n", broken.len());
    for (rule, seeds) in rules {
        page += &format!("\n{rule}: {} seeds\n", seeds.len());
        page += &seeds.iter().map(|(seed, line)| format!("  {seed}  {line}\n")).collect::<String>();
    }
    page
}

/// One thread's share.
fn work(next: &AtomicU64, options: &Sim, stop: &AtomicBool, favoured: Option<Fault>, bar: &ProgressBar) -> Sum {
    let (mut sum, seeds) = (Sum::default(), options.seeds);
    while !stop.load(Ordering::Relaxed) {
        let batch = next.fetch_add(1, Ordering::Relaxed);
        let Some(first) = batch.checked_mul(BATCH).and_then(|offset| seeds.from.checked_add(offset)) else { break };
        if first >= seeds.to {
            break;
        }
        let last = first.saturating_add(BATCH).min(seeds.to);
        for seed in first..last {
            let outcome = chaos::run(seed, favoured);
            sum.add(seed, &outcome, favoured);
            if seed % TWICE == 0 && chaos::run(seed, favoured).digest != outcome.digest {
                let line = "rule \"identity and replay\": two runs of one seed told two stories";
                sum.broken.insert(seed, line.to_owned());
            }
            if !options.all && !sum.broken.is_empty() {
                stop.store(true, Ordering::Relaxed);
                return sum;
            }
        }
        bar.inc(last - first);
    }
    sum
}

fn progress(seeds: u64) -> ProgressBar {
    // Nothing on a pipe: indicatif looks for itself.
    let bar = ProgressBar::with_draw_target(Some(seeds), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} seeds, {rate} a second, {eta} left");
    let style = style.unwrap_or_else(|_wrong| ProgressStyle::default_bar());
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{:.0}", state.per_sec());
    };
    bar.with_style(style.with_key("rate", rate))
}

fn report(sum: &Sum, seeds: u64, took: Duration, threads: usize, favoured: Option<Fault>) -> String {
    let rate = seeds as f64 / took.as_secs_f64().max(1e-9);
    let mut page = format!(
        "{seeds} seeds, and every rule was kept: {} sockets, {} events\n{:.1} s on {threads} threads: {rate:.0} seeds a second, {:.0} on each\n",
        sum.sockets,
        sum.events,
        took.as_secs_f64(),
        rate / threads as f64,
    );
    if let Some(row) = favoured {
        page += &format!("{} ({}) struck in {} of them", row.name(), row.id(), sum.struck);
        page += &sum.first_struck.map_or("\n".to_owned(), |seed| format!("; see {}\n", again(seed, favoured)));
    }
    page += "\nlifecycle\n";
    let all: Vec<_> = Coverage::of_the_table(true).collect();
    let missing: Vec<_> = all.iter().filter(|(state, input)| sum.pairs.count(*state, *input) == 0).collect();
    page += &format!("  {} of {} transitions of the table\n", all.len() - missing.len(), all.len());
    for (state, input) in missing {
        page += &format!("    never: {} x {}\n", state.name(), input.name());
    }
    let refusals: Vec<_> = Coverage::of_the_table(false).collect();
    let asked = refusals.iter().filter(|(state, input)| sum.pairs.count(*state, *input) > 0).count();
    let all = refusals.len();
    page += &format!(
        "  {asked} of the {all} inputs that change nothing; most are not asked: the state is looked at first\n"
    );
    page += "\nfaults, how often\n";
    let cell = |row: &Fault| format!("{} {:<28} {:>10}", row.id(), row.name(), sum.rows.count(*row));
    let half = Fault::ALL.len().div_ceil(2);
    for place in 0..half {
        let right = Fault::ALL.get(half + place).map_or(String::new(), cell);
        page += format!("  {}    {right}", cell(&Fault::ALL[place])).trim_end();
        page.push('\n');
    }
    page
}
