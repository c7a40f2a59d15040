//! Which experiments there are: the loads, the servers in each, and how often.

use clap::ValueEnum;

use crate::raw::Unit;
use crate::roster::{self, Contestant, Service, Tree};

/// What `--only` chooses from, in the order of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// 64 B each way, 256 in flight: the load of the goals
    Main,
    /// The answer is 16 KiB
    Answer16k,
    /// The answer is 1 MiB, so that writes are partial
    Answer1m,
    /// No request at all, only the FIN
    Request0,
    /// The server ends first
    ServerFirst,
    /// One connection in flight
    InFlight1,
    /// 4,096 connections in flight
    InFlight4096,
    /// The main load again, from `finale bench`, with latencies
    Cross,
    /// System calls and user-space instructions for each connection
    Counts,
    /// Resident memory of an idle connection
    Memory,
    /// Round trips on connections that stay open
    Echo,
    /// 1 GiB through one connection
    Bulk,
    /// The main load while 19,000 idle connections are open
    Idle,
    /// Two processes on one port, one on each core
    Shards,
    /// finale without one of its tricks
    Ablation,
    /// What its parts cost inside: `cargo bench`
    Micro,
}

/// Idle connections held: with the load's own they stay below the usual 20,000 descriptors, on both
/// sides.
pub(crate) const IDLE: u64 = 19_000;

/// One thing to measure in interleaved rounds.
pub(crate) struct Plan {
    pub(crate) id: &'static str,
    pub(crate) title: String,
    pub(crate) entries: Vec<Entry>,
    pub(crate) load: Load,
    pub(crate) warm_up: Load,
    pub(crate) rounds: u32,
    pub(crate) loads: Loads,
}

/// Where the loads run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loads {
    /// One, on the other core.
    OnTheirOwnCore,
    /// One on each server's core, where the servers have both.
    BesideEachServer,
}

/// One row: a server, and the idle connections on it.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) argv: Vec<String>,
    pub(crate) idle: u64,
    pub(crate) shards: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    HalfClose(HalfClose),
    Echo {
        connections: u64,
        rounds: u64,
        bytes: u64,
    },
    /// The same as half-closing, from finale's own load generator.
    Bench(HalfClose),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HalfClose {
    pub(crate) connections: u64,
    pub(crate) in_flight: u64,
    pub(crate) request: u64,
    pub(crate) answer: u64,
    pub(crate) server_first: bool,
}

pub(crate) const MAIN: HalfClose =
    HalfClose { connections: 8000, in_flight: 256, request: 64, answer: 64, server_first: false };

impl Load {
    /// The command line of the client.
    pub(crate) fn argv(self, tree: &Tree, addr: &str, server: u32) -> Vec<String> {
        let load = tree.load().to_string_lossy().into_owned();
        let finale = tree.finale().to_string_lossy().into_owned();
        let line = match self {
            Self::HalfClose(half) => {
                let first = if half.server_first { "server" } else { "client" };
                let HalfClose { connections, in_flight, request, answer, .. } = half;
                format!("{load} half-close {addr} {connections} {in_flight} {request} {answer} {first}")
            }
            Self::Echo { connections, rounds, bytes } => format!("{load} echo {addr} {connections} {rounds} {bytes}"),
            Self::Bench(HalfClose { connections, in_flight, request, answer, .. }) => format!(
                "{finale} bench --json --target {addr} --server-pid {server} --connections {connections} \
                 --in-flight {in_flight} --request {request} --answer {answer}"
            ),
        };
        line.split_whitespace().map(str::to_owned).collect()
    }

    pub(crate) const fn units(self) -> u64 {
        match self {
            Self::HalfClose(half) if half.answer >= 1 << 30 => half.connections * (half.answer >> 20),
            Self::HalfClose(half) | Self::Bench(half) => half.connections,
            Self::Echo { connections, rounds, .. } => connections * rounds,
        }
    }

    pub(crate) const fn unit(self) -> Unit {
        match self {
            Self::HalfClose(half) if half.answer >= 1 << 30 => Unit::Mebibyte,
            Self::HalfClose(_) | Self::Bench(_) => Unit::Connection,
            Self::Echo { .. } => Unit::RoundTrip,
        }
    }

    pub(crate) const fn connections(self) -> u64 {
        match self {
            Self::HalfClose(half) | Self::Bench(half) => half.connections,
            Self::Echo { connections, .. } => connections,
        }
    }

    /// In words, for the page.
    pub(crate) fn words(self) -> String {
        match self {
            Self::HalfClose(half) => half.words(),
            Self::Bench(half) => format!("{}, from `finale bench`", half.words()),
            Self::Echo { connections, rounds, bytes } => {
                format!("{connections} connections, {rounds} round trips of {} on each", size(bytes))
            }
        }
    }
}

impl HalfClose {
    fn words(self) -> String {
        let Self { connections, in_flight, request, answer, server_first } = self;
        let first = if server_first { "the server" } else { "the client" };
        let (request, answer) = (size(request), size(answer));
        format!("{connections} connections, {in_flight} in flight, {request} there, {answer} back, {first} ends first")
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 30 && bytes % (1 << 30) == 0 => format!("{} GiB", bytes >> 30),
        bytes if bytes >= 1 << 20 && bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 && bytes % (1 << 10) == 0 => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} B"),
    }
}

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) quick: bool,
    pub(crate) rounds: Option<u32>,
}

impl Effort {
    pub(crate) fn rounds(self, usual: u32) -> u32 {
        self.rounds.unwrap_or(if self.quick { 2 } else { usual })
    }

    pub(crate) fn less(self, connections: u64) -> u64 {
        if self.quick { (connections / 8).max(1) } else { connections }
    }
}

/// The plan of a part, or why it can't be run here. Counts and memory are not measured in rounds
/// and have none.
pub(crate) fn plan(part: Part, tree: &Tree, all: &[Contestant], effort: Effort) -> Result<Option<Plan>, String> {
    let half = |rounds, title: &str, half: HalfClose| Ok(Some(half_closing(part, all, effort, rounds, title, half)));
    match part {
        Part::Main => half(15, "64 B request, 64 B answer, 256 in flight", MAIN),
        Part::Answer16k => half(7, "16 KiB answer", HalfClose { connections: 4000, answer: 16 << 10, ..MAIN }),
        Part::Answer1m => half(7, "1 MiB answer", HalfClose { connections: 400, answer: 1 << 20, ..MAIN }),
        Part::Request0 => half(7, "no request, only the FIN", HalfClose { connections: 5000, request: 0, ..MAIN }),
        Part::ServerFirst if !roster::finale_knows(tree, "--after") => Err("finale serve has no --after".into()),
        Part::ServerFirst => {
            half(7, "the server ends first", HalfClose { connections: 5000, server_first: true, ..MAIN })
        }
        Part::InFlight1 => half(7, "1 in flight", HalfClose { connections: 3000, in_flight: 1, ..MAIN }),
        Part::InFlight4096 => half(7, "4,096 in flight", HalfClose { connections: 8192, in_flight: 4096, ..MAIN }),
        Part::Cross if !roster::finale_has_bench(tree) => Err("this finale has no bench".into()),
        Part::Cross => Ok(Some(cross(all, effort))),
        Part::Echo => Ok(Some(echo(all, effort))),
        Part::Bulk => Ok(Some(bulk(all, effort))),
        Part::Idle => Ok(Some(idle(all, effort))),
        Part::Shards if !roster::finale_knows(tree, "--reuse-port") => Err("finale serve has no --reuse-port".into()),
        Part::Shards => Ok(Some(shards(all, effort))),
        // Ablation has rows of its own and is planned where the patches are known.
        Part::Counts | Part::Memory | Part::Ablation | Part::Micro => Ok(None),
    }
}

fn half_closing(part: Part, all: &[Contestant], effort: Effort, rounds: u32, title: &str, half: HalfClose) -> Plan {
    // Fewer connections than are to be in flight would be another load than the one that the row is
    // named for.
    let load = HalfClose { connections: effort.less(half.connections).max(half.in_flight), ..half };
    let service = match half.server_first {
        true => Service::First { request: half.request, answer: half.answer },
        false => Service::Answer { bytes: half.answer },
    };
    Plan {
        id: part.id(),
        title: title.into(),
        entries: all.iter().filter_map(|one| Entry::of(one, service)).collect(),
        load: Load::HalfClose(load),
        warm_up: Load::HalfClose(HalfClose { connections: (load.connections / 4).max(1), ..load }),
        rounds: effort.rounds(rounds),
        loads: Loads::OnTheirOwnCore,
    }
}

fn cross(all: &[Contestant], effort: Effort) -> Plan {
    let plan = half_closing(Part::Cross, all, effort, 5, "the main load from finale bench", MAIN);
    let again = |load: Load| match load {
        Load::HalfClose(half) => Load::Bench(half),
        Load::Bench(_) | Load::Echo { .. } => load,
    };
    Plan { load: again(plan.load), ..plan }
}

fn echo(all: &[Contestant], effort: Effort) -> Plan {
    let mut plan = echoing(Part::Echo.id(), all, effort, 7, "echo on connections that stay open");
    plan.entries.retain(|entry| entry.name != roster::DEFERRED);
    plan
}

/// Round trips on each connection before the load that counts, in the echo load.
pub(crate) const ECHO_WARM_UP: u64 = 50;

fn echoing(id: &'static str, all: &[Contestant], effort: Effort, rounds: u32, title: &str) -> Plan {
    let of = |rounds| Load::Echo { connections: 64, rounds, bytes: 64 };
    Plan {
        id,
        title: title.into(),
        entries: all.iter().filter_map(|one| Entry::of(one, Service::Echo)).collect(),
        load: of(effort.less(1000)),
        warm_up: of(ECHO_WARM_UP),
        rounds: effort.rounds(rounds),
        loads: Loads::OnTheirOwnCore,
    }
}

fn bulk(all: &[Contestant], effort: Effort) -> Plan {
    let half = HalfClose { connections: 1, in_flight: 1, answer: 1 << 30, ..MAIN };
    let plan = half_closing(Part::Bulk, all, effort, 7, "1 GiB through one connection", half);
    // Deferred accept changes how a connection begins, and there is one.
    let entries = plan.entries.into_iter().filter(|entry| entry.name != roster::DEFERRED).collect();
    Plan { entries, ..plan }
}

fn idle(all: &[Contestant], effort: Effort) -> Plan {
    let title = format!("{IDLE} idle connections beside the main load");
    let mut plan = half_closing(Part::Idle, all, effort, 7, &title, MAIN);
    plan.entries.retain(|entry| [roster::HAND_OFF, roster::EPOLL].contains(&entry.name.as_str()));
    let beside = |entry: &Entry| Entry {
        name: with_idle(&entry.name),
        argv: entry.argv.clone(),
        idle: IDLE,
        shards: entry.shards,
    };
    let with: Vec<Entry> = plan.entries.iter().map(beside).collect();
    plan.entries.extend(with);
    plan
}

/// The name of a server's row with idle connections.
pub(crate) fn with_idle(name: &str) -> String {
    format!("{name}+idle")
}

/// The name of the row of two shards.
pub(crate) const TWO_SHARDS: &str = "finale-two-shards";

fn shards(all: &[Contestant], effort: Effort) -> Plan {
    let mut plan = half_closing(Part::Shards, all, effort, 9, "two shards on two cores", MAIN);
    plan.entries.retain(|entry| entry.name == roster::HAND_OFF);
    for entry in &mut plan.entries {
        entry.argv.push("--reuse-port".into());
    }
    let two = |entry: &Entry| Entry { name: TWO_SHARDS.into(), argv: entry.argv.clone(), idle: 0, shards: 2 };
    let with: Vec<Entry> = plan.entries.iter().map(two).collect();
    plan.entries.extend(with);
    Plan { loads: Loads::BesideEachServer, ..plan }
}

/// The name of the ablation's second experiment in the raw data.
pub(crate) const ABLATION_ECHO: &str = "ablation-echo";

/// The shipped finale and one build for each patch, under the main load, and again where
/// connections stay open: some tricks act at the end of a connection, others at each read.
pub(crate) fn ablation(shipped: &Contestant, without: &[Contestant], effort: Effort) -> [Plan; 2] {
    let all: Vec<Contestant> = std::iter::once(shipped).chain(without).cloned().collect();
    [
        half_closing(Part::Ablation, &all, effort, 9, "one trick switched off at a time", MAIN),
        echoing(ABLATION_ECHO, &all, effort, 7, "one trick switched off at a time, echo"),
    ]
}

impl Entry {
    fn of(contestant: &Contestant, service: Service) -> Option<Self> {
        Some(Self { name: contestant.name.clone(), argv: contestant.argv(service)?, idle: 0, shards: 1 })
    }
}

impl Part {
    /// What has to be built for it besides finale and the loads, in the words of `bench/compare`.
    pub(crate) const fn needs(self) -> Option<&'static str> {
        match self {
            Self::Ablation => Some("ablation"),
            Self::Micro => Some("micro"),
            Self::Shards => None,
            Self::Main
            | Self::Answer16k
            | Self::Answer1m
            | Self::Request0
            | Self::ServerFirst
            | Self::InFlight1
            | Self::InFlight4096
            | Self::Cross
            | Self::Counts
            | Self::Memory
            | Self::Echo
            | Self::Bulk
            | Self::Idle => Some("peers"),
        }
    }

    /// Its name in the raw data: the same as on the command line.
    pub(crate) const fn id(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Answer16k => "answer16k",
            Self::Answer1m => "answer1m",
            Self::Request0 => "request0",
            Self::ServerFirst => "server-first",
            Self::InFlight1 => "in-flight1",
            Self::InFlight4096 => "in-flight4096",
            Self::Cross => "cross",
            Self::Counts => "counts",
            Self::Memory => "memory",
            Self::Echo => "echo",
            Self::Bulk => "bulk",
            Self::Idle => "idle",
            Self::Shards => "shards",
            Self::Ablation => "ablation",
            Self::Micro => "micro",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_on_the_command_line_is_the_one_in_the_data() {
        for part in Part::value_variants() {
            assert_eq!(part.to_possible_value().unwrap().get_name(), part.id());
        }
    }

    #[test]
    fn a_load_names_all_that_its_client_has_to_know() {
        let tree = Tree { root: "/r".into() };
        assert_eq!(
            Load::HalfClose(MAIN).argv(&tree, "127.0.0.1:9", 5).join(" "),
            "/r/bench/target/release/load half-close 127.0.0.1:9 8000 256 64 64 client"
        );
        assert_eq!(
            Load::Bench(MAIN).argv(&tree, "127.0.0.1:9", 5).join(" "),
            "/r/target/release/finale bench --json --target 127.0.0.1:9 --server-pid 5 --connections 8000 \
             --in-flight 256 --request 64 --answer 64"
        );
    }

    #[test]
    fn bulk_is_counted_in_mebibytes_and_echo_in_round_trips() {
        let bulk = Load::HalfClose(HalfClose { connections: 1, answer: 1 << 30, ..MAIN });
        assert_eq!((bulk.units(), bulk.unit()), (1024, Unit::Mebibyte));
        let echo = Load::Echo { connections: 64, rounds: 10, bytes: 64 };
        assert_eq!((echo.units(), echo.unit()), (640, Unit::RoundTrip));
    }

    #[test]
    fn a_trial_holds_as_many_connections_as_its_row_says() {
        let tree = Tree { root: "/r".into() };
        let quick = Effort { quick: true, rounds: None };
        for part in [Part::InFlight4096, Part::Main] {
            let Load::HalfClose(half) = plan(part, &tree, &[], quick).unwrap().unwrap().load else {
                panic!("{} half-closes", part.id())
            };
            assert!(half.connections >= half.in_flight, "{}: {}", part.id(), half.words());
        }
    }

    #[test]
    fn a_size_is_told_in_the_largest_unit_that_divides_it() {
        assert_eq!([0, 64, 16 << 10, 1 << 20, 1 << 30].map(size), ["0 B", "64 B", "16 KiB", "1 MiB", "1 GiB"]);
    }
}
