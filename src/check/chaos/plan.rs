//! What a run does: drawn from its seed before it begins.

use std::time::Duration;

use super::draw::{self, mostly};
use super::pattern;
use super::races::Race;
use super::topology::{Machines, Transport};
use crate::pool::PoolOptions;
use crate::sim::{Fault, Faults, Rng, Script};

pub(super) struct Plan {
    /// The clients have their own reactor, perhaps on their own machine.
    pub(super) two_reactors: bool,
    pub(super) machines: Machines,
    /// Of each conversation.
    pub(super) transports: Vec<Transport>,
    /// Of each conversation whose client has several addresses.
    pub(super) races: Vec<Option<Race>>,
    pub(super) latency: Duration,
    pub(super) buffers: (usize, usize),
    pub(super) faults: Faults,
    /// The virtual time that each call and each handler takes.
    pub(super) costs: Costs,
    pub(super) probabilities: Probabilities,
    /// No limit is longer, in milliseconds.
    pub(super) longest_ms: u64,
    /// Some peers send without a pause for this long, unless something else stops them.
    pub(super) flood: Option<Duration>,
    /// No single write of a program is larger, in bytes.
    pub(super) largest_write: u64,
    pub(super) conversations: Vec<Kind>,
    pub(super) disturbances: Vec<(Duration, Disturbance)>,
    /// When all faults stop.
    pub(super) heal_after: Duration,
    /// A reactor is dropped after this many events.
    pub(super) drop_after: Option<u64>,
    /// There are only two local ports.
    pub(super) few_ports: bool,
    /// The size of the receive buffer, if it is a small one.
    pub(super) receive_bytes: Option<usize>,
    /// Over which time a stop distributes its ends.
    pub(super) spread: Duration,
    /// The programs of accepted sockets say farewell at the end of a stop's grace.
    pub(super) says_farewell: bool,
}

/// The virtual time that a program takes; none in half of the runs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Costs {
    pub(super) call: Duration,
    pub(super) handler: Duration,
}

impl Costs {
    fn draw(rng: &mut Rng) -> Self {
        if rng.chance(0.5) {
            return Self::default();
        }
        // A system call takes microseconds, and a thousand times as long on a busy machine.
        let call = Duration::from_nanos(mostly(rng, 20_000, 2_000_000));
        let handler = if rng.chance(0.5) { Duration::from_nanos(mostly(rng, 200_000, 10_000_000)) } else { call };
        Self { call, handler }
    }
}

/// How probable each action of a program is, in each event of a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probabilities {
    pub(super) write: f64,
    pub(super) end: f64,
    pub(super) destroy: f64,
    pub(super) pause: f64,
    /// To discard, after `end`.
    pub(super) discard: f64,
}

impl Probabilities {
    const USUAL: Self = Self { write: 0.5, end: 0.12, destroy: 0.02, pause: 0.1, discard: 0.0 };

    /// A flood brings a thousand events, and the socket should survive many of them.
    fn during_flood(rng: &mut Rng) -> Self {
        let write = [0.3, 0.05, 0.005][rng.below(3) as usize];
        Self { write, end: 0.05, destroy: 0.001, pause: 0.01, discard: 0.1 }
    }
}

/// The two ends of a conversation.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// A client and a server on finale.
    Both,
    /// A scripted client and a server on finale.
    PeerClient(Script),
    /// A client on finale and a script that accepts it; `None` never accepts.
    PeerServer(Option<Script>),
    /// A client on finale and a scripted server whose Unix domain socket has a full queue. `None`
    /// never has room.
    FullQueue { script: Script, room_after: Option<Duration> },
    /// A proxy on finale.
    Proxy(Proxy),
    /// A pool on finale, programs that use it, and a server.
    Pool(PoolUsers),
    /// A client on finale and a target that does not answer, or rarely.
    BadTarget(BadTarget),
}

/// The client and the server of a proxy: scripts, or programs on finale.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    pub(super) client: Option<Script>,
    pub(super) server: Option<Script>,
    /// To the server.
    pub(super) transport: Transport,
    /// Its connections to the server come from a pool.
    pub(super) pool: Option<PoolPlan>,
}

/// Programs that request the sockets of a pool.
#[derive(Clone, Debug)]
pub(super) struct PoolUsers {
    pub(super) pool: PoolPlan,
    /// When they request one.
    pub(super) request_times: Vec<Duration>,
    /// A script for each connection of the server; empty for a server on finale.
    pub(super) servers: Vec<Script>,
}

/// The size and the limits of a pool.
#[derive(Clone, Debug)]
pub(super) struct PoolPlan {
    pub(super) size: usize,
    pub(super) wait_limit: Option<Duration>,
    pub(super) max_waiting: usize,
    pub(super) options: PoolOptions,
}

impl PoolPlan {
    fn draw(rng: &mut Rng) -> Self {
        let size = 1 + rng.below(3) as usize;
        let wait_limit = draw::ms(rng, 3_000).filter(|_| rng.chance(0.7));
        let max_waiting = if rng.chance(0.2) { 1 } else { 10 };
        let options = PoolOptions::default()
            .size(size)
            .wait_limit(wait_limit)
            .max_waiting(max_waiting)
            .max_idle(draw::ms(rng, 3_000).filter(|_| rng.chance(0.3)))
            .max_age(draw::ms(rng, 10_000).filter(|_| rng.chance(0.3)))
            .back_off(Duration::from_millis(10 + rng.below(100)), Duration::from_millis(200 + rng.below(2_000)))
            .seed(rng.next_u64());
        Self { size, wait_limit, max_waiting, options }
    }
}

/// A target that is unreachable, or that has unreachable addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadTarget {
    DeadPort,
    BlackHole,
    Unreachable,
    NoRoute,
    Prohibited,
    UnknownName,
    FailingName,
    HangingName,
    EmptyName,
    /// A Unix domain socket that does not exist.
    NoFile {
        is_file: bool,
    },
    /// Several unreachable addresses, and perhaps a reachable one after them.
    Name {
        dead: u8,
        alive: bool,
    },
}

impl BadTarget {
    const ALL: [Self; 13] = [
        Self::DeadPort,
        Self::BlackHole,
        Self::Unreachable,
        Self::NoRoute,
        Self::Prohibited,
        Self::UnknownName,
        Self::FailingName,
        Self::HangingName,
        Self::EmptyName,
        Self::NoFile { is_file: true },
        Self::NoFile { is_file: false },
        Self::Name { dead: 2, alive: false },
        Self::Name { dead: 2, alive: true },
    ];
}

/// What happens at a drawn time, whatever the programs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disturbance {
    /// The peers' machine becomes unreachable.
    Vanish,
    Return,
    /// The peers' machine loses its connections, as after a restart.
    Forget,
    /// A connection is aborted from outside, as by `ss --kill`.
    Abort,
    /// A listener on finale stops.
    Stop {
        grace: Option<Duration>,
        limit: Option<Duration>,
    },
}

impl Plan {
    pub(super) fn draw(rng: &mut Rng, preferred: Option<Fault>) -> Self {
        // Most runs are small: the number of different runs finds bugs.
        let large = rng.chance(0.05);
        let buffer = if rng.chance(0.3) { 1 } else { 1_000 };
        let largest_write = if large { 100 * buffer + 100 } else { 300 };
        let mut bytes = || (buffer + rng.below(70 * buffer)) as usize;
        let buffers = (bytes(), bytes());
        let mut faults = if rng.chance(0.7) { Faults::random(rng) } else { Faults::none() };
        if rng.chance(0.3) {
            faults.stall = 0.04 * rng.below(1001) as f64 / 1000.0;
        }
        let mut plan = Self {
            two_reactors: rng.chance(0.3),
            machines: Machines::draw(rng),
            transports: Vec::new(),
            races: Vec::new(),
            latency: Duration::from_micros(rng.below(3_000)),
            buffers,
            faults,
            costs: Costs::draw(rng),
            probabilities: Probabilities::USUAL,
            longest_ms: 20_000,
            flood: None,
            largest_write,
            conversations: Vec::new(),
            disturbances: Vec::new(),
            heal_after: Duration::from_millis(rng.below(40_000)),
            drop_after: rng.chance(0.03).then(|| rng.below(20)),
            few_ports: rng.chance(0.02),
            receive_bytes: None,
            spread: Duration::ZERO,
            says_farewell: false,
        };
        let count = if rng.chance(0.7) { 1 } else { 2 + rng.below(2) };
        for number in 0..count as usize {
            let kind = Kind::draw(rng, number, largest_write);
            plan.conversations.push(kind);
        }
        plan.draw_transports(rng);
        if rng.chance(0.08) {
            plan.draw_flood(rng);
        }
        plan.draw_disturbances(rng);
        plan.draw_stop(rng);
        // From a second generator: the draws of the first stay as they are.
        plan.draw_additions(&mut Rng::new(rng.clone().next_u64()), large);
        if let Some(fault) = preferred {
            plan.prefer(fault, rng);
            plan.races = vec![None; plan.conversations.len()];
            plan.receive_bytes = None;
            plan.transports = vec![Transport::Network; plan.conversations.len()];
        }
        plan
    }

    /// Races, small receive buffers in proxies, farewells and the spread of stops.
    fn draw_additions(&mut self, rng: &mut Rng, large: bool) {
        let conversations = self.conversations.iter().zip(&self.transports);
        self.races = conversations.map(|(kind, transport)| Race::draw(rng, kind, *transport)).collect();
        let has_proxy = self.conversations.iter().any(|kind| matches!(kind, Kind::Proxy(_)));
        // Many bytes in small reads would look like a reactor that spins.
        if has_proxy && !large && self.flood.is_none() && rng.chance(0.5) {
            self.receive_bytes = Some(1 + mostly(rng, 20, 2_000) as usize);
        }
        if self.disturbances.iter().any(|(_, disturbance)| matches!(disturbance, Disturbance::Stop { .. })) {
            self.says_farewell = rng.chance(0.5);
            self.spread = Duration::from_millis(mostly(rng, 1, self.longest_ms / 4));
        }
    }

    /// Loopback and Unix domain sockets connect one machine with itself; two machines need the
    /// network.
    fn draw_transports(&mut self, rng: &mut Rng) {
        let apart = self.two_reactors && self.machines.servers != self.machines.clients;
        for kind in &self.conversations {
            let transport = Transport::draw(rng);
            self.transports.push(match kind {
                Kind::Both | Kind::Pool(_) | Kind::Proxy(Proxy { client: None, .. }) if apart => Transport::Network,
                Kind::FullQueue { .. } => Transport::Unix { is_file: rng.chance(0.5) },
                Kind::Both | Kind::PeerClient(_) | Kind::PeerServer(_) | Kind::Proxy(_) | Kind::Pool(_) => transport,
                Kind::BadTarget(_) => transport,
            });
        }
    }

    /// Some peers send without a pause to programs whose calls take time, so that there is always
    /// more to read and the clock advances. Limits are shorter than the flood, so that they expire
    /// during it.
    fn draw_flood(&mut self, rng: &mut Rng) {
        let call = 50_000 + mostly(rng, 100_000, 1_000_000);
        let handler = mostly(rng, 500_000, 4_000_000);
        self.costs = Costs { call: Duration::from_nanos(call), handler: Duration::from_nanos(handler) };
        // About as many events as this.
        const EVENTS: u64 = 1_000;
        let flood = Duration::from_nanos(EVENTS * (3 * call + handler)).min(Duration::from_secs(4));
        self.flood = Some(flood);
        self.longest_ms = (flood.as_millis() as u64 / 2).max(2);
        self.probabilities = Probabilities::during_flood(rng);
        self.latency = Duration::from_micros(mostly(rng, 30, 500));
        self.heal_after = flood + Duration::from_micros(rng.below(1_000_000));
        if rng.chance(0.6) {
            // More than both buffers hold.
            self.largest_write = 2 * (self.buffers.0 + self.buffers.1) as u64;
        }
        let largest_write = self.largest_write;
        for number in 0..self.conversations.len() {
            // The first conversation, and half of the others.
            if number == 0 || rng.chance(0.5) {
                let by_client = rng.chance(0.6);
                let script = draw::flood(rng, (number, by_client), largest_write, flood);
                self.conversations[number] =
                    if by_client { Kind::PeerClient(script) } else { Kind::PeerServer(Some(script)) };
            }
        }
    }

    fn draw_disturbances(&mut self, rng: &mut Rng) {
        let within = self.heal_after.as_millis() as u64;
        let at = |rng: &mut Rng| {
            // More often early than late: most happens early.
            let most = if rng.chance(0.7) { within.min(50) } else { within };
            Duration::from_micros(rng.below(1000 * most + 1))
        };
        if rng.chance(0.15) {
            let from = at(rng);
            self.disturbances.push((from, Disturbance::Vanish));
            if rng.chance(0.5) {
                self.disturbances.push((from + at(rng), Disturbance::Return));
            }
        }
        for (probability, disturbances) in [(0.05, Disturbance::Forget), (0.05, Disturbance::Abort)] {
            if rng.chance(probability) {
                self.disturbances.push((at(rng), disturbances));
            }
        }
    }

    fn draw_stop(&mut self, rng: &mut Rng) {
        if rng.chance(if self.flood.is_some() { 0.3 } else { 0.06 }) {
            let within = self.heal_after.as_millis() as u64;
            let at = Duration::from_millis(mostly(rng, 50.min(within + 1), within + 1));
            let grace = draw::ms(rng, self.longest_ms / 4).filter(|_| rng.chance(0.9));
            let limit = draw::ms(rng, self.longest_ms).filter(|_| rng.chance(0.9));
            self.disturbances.push((at, Disturbance::Stop { grace, limit }));
        }
    }

    /// Arranges for one fault to occur. Many occur without a change of the plan, and the caller
    /// tries several seeds.
    #[allow(clippy::wildcard_enum_match_arm, reason = "most faults need no change of the plan")]
    fn prefer(&mut self, fault: Fault, rng: &mut Rng) {
        let only = |kind| vec![kind];
        match fault {
            Fault::Refused => self.conversations = only(Kind::BadTarget(BadTarget::DeadPort)),
            Fault::SynLost => self.conversations = only(Kind::BadTarget(BadTarget::BlackHole)),
            Fault::IcmpRefusal => self.conversations = only(Kind::BadTarget(BadTarget::Unreachable)),
            Fault::ConnectCallFails => self.conversations = only(Kind::BadTarget(BadTarget::NoRoute)),
            Fault::LookupFails => self.conversations = only(Kind::BadTarget(BadTarget::FailingName)),
            Fault::LookupHangs => self.conversations = only(Kind::BadTarget(BadTarget::HangingName)),
            Fault::FirstAddressDead => self.conversations = only(Kind::BadTarget(BadTarget::ALL[12])),
            Fault::AllAddressesFail => self.conversations = only(Kind::BadTarget(BadTarget::ALL[11])),
            Fault::OneEdgeManyClients | Fault::QueueOverflows => {
                let polite = Script::new().finish().receive_end().close();
                self.conversations = (0..3).map(|_| Kind::PeerClient(polite.clone())).collect();
            }
            Fault::NeverAccepted => self.conversations = only(Kind::PeerServer(None)),
            Fault::Spurious | Fault::SpuriousInHandshake => self.faults.spurious = 0.5,
            Fault::StaleNews => self.faults.stale_news = 0.9,
            Fault::Interrupted => self.faults.interrupted = 0.5,
            Fault::Stalled => self.faults.stall = 0.3,
            Fault::Floods => self.draw_flood(rng),
            Fault::Drips => {
                let drip =
                    Script::new().drip(&pattern::bytes((0, true), 0, 20), Duration::from_millis(rng.below(2_000)));
                self.conversations = only(Kind::PeerClient(drip.finish().receive_end().close()));
            }
            Fault::FewSlots => self.faults.small_batch = 0.9,
            Fault::ShortWrite => self.faults.short_write = 0.8,
            Fault::AcceptExhausted => self.faults.accept_exhausted = 0.6,
            Fault::AcceptAborted => self.faults.accept_aborted = 0.6,
            Fault::NotRegistrable => self.faults.register_exhausted = 0.5,
            Fault::NoDescriptorForConnect => self.faults.connect_exhausted = 0.7,
            Fault::MergedEdges => self.faults.late_edge = 0.6,
            Fault::NoLocalPort => self.few_ports = true,
            Fault::DroppedWithSockets => self.drop_after = Some(1 + rng.below(8)),
            Fault::Aborted => {
                self.disturbances.push((Duration::from_micros(3_000 + rng.below(9_000)), Disturbance::Abort))
            }
            Fault::SlowPeerKilled | Fault::PeerNeverReads => {
                self.conversations = only(Kind::PeerServer(Some(Script::new().stop_reading())));
                self.buffers = (1 + rng.below(8) as usize, 1);
                self.heal_after = Duration::from_secs(40);
            }
            Fault::PeerRestarted => {
                self.conversations = only(Kind::PeerClient(Script::new().send(b"?")));
                self.disturbances.push((Duration::from_micros(5_000 + rng.below(9_000)), Disturbance::Forget));
            }
            _ => {}
        }
    }
}

impl PoolUsers {
    fn draw(rng: &mut Rng, number: usize, largest_write: u64) -> Self {
        let request_times =
            (0..1 + rng.below(6)).map(|_| Duration::from_micros(mostly(rng, 50_000, 10_000_000))).collect();
        let count = if rng.chance(0.5) { 1 + rng.below(6) } else { 0 };
        let servers = (0..count).map(|_| draw::script(rng, (number, false), largest_write)).collect();
        Self { pool: PoolPlan::draw(rng), request_times, servers }
    }
}

impl Kind {
    fn draw(rng: &mut Rng, number: usize, largest_write: u64) -> Self {
        match rng.below(100) {
            0..31 => Self::Both,
            31..36 => Self::Pool(PoolUsers::draw(rng, number, largest_write)),
            36..45 => {
                let client = draw::script(rng, (number, true), largest_write);
                let server = draw::script(rng, (number, false), largest_write);
                Self::Proxy(Proxy {
                    client: Some(client).filter(|_| rng.chance(0.6)),
                    server: Some(server).filter(|_| rng.chance(0.6)),
                    transport: Transport::draw(rng),
                    pool: Some(PoolPlan::draw(rng)).filter(|_| rng.chance(0.3)),
                })
            }
            45..70 => Self::PeerClient(draw::script(rng, (number, true), largest_write)),
            70..86 => Self::PeerServer(Some(draw::script(rng, (number, false), largest_write))),
            86..88 => Self::PeerServer(None),
            88 | 89 => {
                let script = draw::script(rng, (number, false), largest_write);
                let room_after = Duration::from_micros(mostly(rng, 500_000, 30_000_000));
                Self::FullQueue { script, room_after: Some(room_after).filter(|_| rng.chance(0.7)) }
            }
            _ => Self::BadTarget(BadTarget::ALL[rng.below(BadTarget::ALL.len() as u64) as usize]),
        }
    }
}
