//! What a run is: drawn from its seed before it begins.

use std::time::Duration;

use super::pattern;
use crate::options::{Close, Connect, Excess, Idle, KeepAlive, Listen};
use crate::sim::{Faults, Rng, Row, Script};

pub(super) struct Plan {
    /// The client's reactor is another one, on a machine of its own.
    pub(super) two_reactors: bool,
    pub(super) latency: Duration,
    pub(super) buffers: (usize, usize),
    pub(super) faults: Faults,
    /// What each call and each handler takes.
    pub(super) costs: Costs,
    /// No single write of a program is larger.
    pub(super) largest_write: u64,
    pub(super) conversations: Vec<Kind>,
    pub(super) weather: Vec<(Duration, Weather)>,
    /// When everything heals.
    pub(super) heal_after: Duration,
    /// One reactor is dropped after so many events.
    pub(super) drop_after: Option<u64>,
    /// So few ports that they run out.
    pub(super) few_ports: bool,
}

/// What a program's work takes of virtual time; nothing in half of the runs.
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
        // A system call takes microseconds; on a machine that has other things to do, a thousand times as long.
        let call = Duration::from_nanos(mostly(rng, 20_000, 2_000_000));
        let handler = if rng.chance(0.5) { Duration::from_nanos(mostly(rng, 200_000, 10_000_000)) } else { call };
        Self { call, handler }
    }
}

/// Who talks to whom.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Two sockets of ours.
    Both,
    /// A script, and a server of ours.
    PeerClient(Script),
    /// A client of ours, and a script that accepts it; `None` never accepts.
    PeerServer(Option<Script>),
    /// A client of ours, and nobody.
    Nowhere(Nowhere),
}

/// Where a connection can lead that leads nowhere, or nearly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nowhere {
    DeadPort,
    BlackHole,
    Unreachable,
    NoRoute,
    Prohibited,
    UnknownName,
    FailingName,
    HangingName,
    EmptyName,
    /// Several dead addresses, and perhaps a living one behind them.
    Name {
        dead: u8,
        alive: bool,
    },
}

impl Nowhere {
    const ALL: [Self; 11] = [
        Self::DeadPort,
        Self::BlackHole,
        Self::Unreachable,
        Self::NoRoute,
        Self::Prohibited,
        Self::UnknownName,
        Self::FailingName,
        Self::HangingName,
        Self::EmptyName,
        Self::Name { dead: 2, alive: false },
        Self::Name { dead: 2, alive: true },
    ];
}

/// What happens to everybody at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    /// The peers' machine is not reachable, and is again.
    Vanish,
    Return,
    /// The peers' machine has forgotten its connections.
    Forget,
    /// Somebody ends a connection of ours from outside.
    Abort,
}

impl Plan {
    pub(super) fn draw(rng: &mut Rng, favoured: Option<Row>) -> Self {
        // Most runs are small: it is the number of different runs that finds bugs.
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
            latency: Duration::from_micros(rng.below(3_000)),
            buffers,
            faults,
            costs: Costs::draw(rng),
            largest_write,
            conversations: Vec::new(),
            weather: Vec::new(),
            heal_after: Duration::from_millis(rng.below(40_000)),
            drop_after: rng.chance(0.03).then(|| rng.below(20)),
            few_ports: rng.chance(0.02),
        };
        let count = if rng.chance(0.7) { 1 } else { 2 + rng.below(2) };
        for number in 0..count as usize {
            let kind = Kind::draw(rng, number, largest_write);
            plan.conversations.push(kind);
        }
        plan.draw_weather(rng);
        if let Some(row) = favoured {
            plan.favour(row, rng);
        }
        plan
    }

    fn draw_weather(&mut self, rng: &mut Rng) {
        let within = self.heal_after.as_millis() as u64;
        let at = |rng: &mut Rng| {
            // Early more often than late: that is when most happens.
            let most = if rng.chance(0.7) { within.min(50) } else { within };
            Duration::from_micros(rng.below(1000 * most + 1))
        };
        if rng.chance(0.15) {
            let from = at(rng);
            self.weather.push((from, Weather::Vanish));
            if rng.chance(0.5) {
                self.weather.push((from + at(rng), Weather::Return));
            }
        }
        for (probability, weather) in [(0.05, Weather::Forget), (0.05, Weather::Abort)] {
            if rng.chance(probability) {
                self.weather.push((at(rng), weather));
            }
        }
    }

    /// Arranges for one fault to strike. Many need nothing: a run strikes them by itself, and the caller looks for it.
    #[allow(clippy::wildcard_enum_match_arm, reason = "most faults strike by themselves")]
    fn favour(&mut self, row: Row, rng: &mut Rng) {
        let only = |kind| vec![kind];
        match row {
            Row::Refused => self.conversations = only(Kind::Nowhere(Nowhere::DeadPort)),
            Row::SynLost => self.conversations = only(Kind::Nowhere(Nowhere::BlackHole)),
            Row::IcmpRefusal => self.conversations = only(Kind::Nowhere(Nowhere::Unreachable)),
            Row::ConnectCallFails => self.conversations = only(Kind::Nowhere(Nowhere::NoRoute)),
            Row::LookupFails => self.conversations = only(Kind::Nowhere(Nowhere::FailingName)),
            Row::LookupHangs => self.conversations = only(Kind::Nowhere(Nowhere::HangingName)),
            Row::FirstAddressDead => self.conversations = only(Kind::Nowhere(Nowhere::ALL[10])),
            Row::AllAddressesFail => self.conversations = only(Kind::Nowhere(Nowhere::ALL[9])),
            Row::OneEdgeManyClients | Row::QueueOverflows => {
                let polite = Script::new().finish().receive_end().close();
                self.conversations = (0..3).map(|_| Kind::PeerClient(polite.clone())).collect();
            }
            Row::NeverAccepted => self.conversations = only(Kind::PeerServer(None)),
            Row::Spurious | Row::SpuriousInHandshake => self.faults.spurious = 0.5,
            Row::StaleNews => self.faults.stale_news = 0.9,
            Row::Interrupted => self.faults.interrupted = 0.5,
            Row::Stalled => self.faults.stall = 0.3,
            Row::FewSlots => self.faults.small_batch = 0.9,
            Row::ShortWrite => self.faults.short_write = 0.8,
            Row::AcceptExhausted => self.faults.accept_exhausted = 0.6,
            Row::AcceptAborted => self.faults.accept_aborted = 0.6,
            Row::NotRegistrable => self.faults.register_exhausted = 0.5,
            Row::NoDescriptorForConnect => self.faults.connect_exhausted = 0.7,
            Row::MergedEdges => self.faults.late_edge = 0.6,
            Row::NoLocalPort => self.few_ports = true,
            Row::DroppedWithSockets => self.drop_after = Some(1 + rng.below(8)),
            Row::Aborted => self.weather.push((Duration::from_micros(3_000 + rng.below(9_000)), Weather::Abort)),
            Row::SlowPeerKilled | Row::PeerNeverReads => {
                self.conversations = only(Kind::PeerServer(Some(Script::new().stop_reading())));
                self.buffers = (1 + rng.below(8) as usize, 1);
                self.heal_after = Duration::from_secs(40);
            }
            Row::PeerRestarted => {
                self.conversations = only(Kind::PeerClient(Script::new().send(b"?")));
                self.weather.push((Duration::from_micros(5_000 + rng.below(9_000)), Weather::Forget));
            }
            _ => {}
        }
    }
}

impl Kind {
    fn draw(rng: &mut Rng, number: usize, largest_write: u64) -> Self {
        match rng.below(100) {
            0..45 => Self::Both,
            45..70 => Self::PeerClient(script(rng, (number, true), largest_write)),
            70..86 => Self::PeerServer(Some(script(rng, (number, false), largest_write))),
            86..89 => Self::PeerServer(None),
            _ => Self::Nowhere(Nowhere::ALL[rng.below(Nowhere::ALL.len() as u64) as usize]),
        }
    }
}

/// What a peer does: anything.
fn script(rng: &mut Rng, stream: pattern::Stream, largest_write: u64) -> Script {
    let mut script = Script::new();
    let mut sent = 0;
    for _ in 0..1 + rng.below(6) {
        script = match rng.below(20) {
            0..6 => {
                let count = 1 + mostly(rng, 30, largest_write);
                sent += count;
                script.send(&pattern::bytes(stream, sent - count, count))
            }
            6..9 => script.wait(Duration::from_micros(mostly(rng, 5_000, 30_000_000))),
            9..12 => script.receive(rng.below(300)),
            12 => script.receive_end(),
            13 => script.stop_reading(),
            14 => script.read_on(),
            15 => script.send_urgent(),
            16 | 17 => script.finish(),
            18 => return script.reset(),
            _ => return script.close(),
        };
    }
    match rng.below(10) {
        0 => script,
        1 => script.vanish(),
        2 => script.reset(),
        3 => script.close(),
        _ => script.finish().receive_end().close(),
    }
}

/// A number below the first bound four times in five, else below the second.
pub(super) fn mostly(rng: &mut Rng, usual: u64, rare: u64) -> u64 {
    let bound = if rng.chance(0.8) { usual } else { rare };
    rng.below(bound)
}

fn time(rng: &mut Rng, most_ms: u64) -> Duration {
    Duration::from_micros(1_000 + rng.below(1_000 * most_ms))
}

fn ms(rng: &mut Rng, most_ms: u64) -> Option<Duration> {
    Some(time(rng, most_ms))
}

fn close(rng: &mut Rng) -> Close {
    if rng.chance(0.3) { Close::HandOff } else { Close::Confirmed }
}

fn keep_alive(rng: &mut Rng) -> KeepAlive {
    let mut seconds = || Duration::from_secs(1 + rng.below(3));
    let (idle, interval) = (seconds(), seconds());
    KeepAlive { idle, interval, count: 1 + rng.below(3) as u32 }
}

/// The options of a server of ours. With small limits: a silence that nothing ends would only make the run longer.
pub(super) fn listen(rng: &mut Rng) -> Listen {
    let listen = Listen::default()
        .idle_timeout(ms(rng, 20_000).filter(|_| rng.chance(0.3)))
        .half_closed_timeout(ms(rng, 20_000))
        .linger(ms(rng, 20_000))
        .high_water_mark(1 + rng.below(50_000) as usize)
        .allow_half_open(rng.chance(0.7))
        .early_notice(rng.chance(0.5))
        .paused(rng.chance(0.1))
        .backlog(if rng.chance(0.1) { 1 } else { 100 })
        .close(close(rng));
    let listen = if rng.chance(0.2) { listen.keep_alive(keep_alive(rng)) } else { listen };
    let listen = if rng.chance(0.1) { listen.user_timeout(time(rng, 5_000)) } else { listen };
    let number = listen.settings.high_water_bytes;
    let Limits { low, idle_of, write, deadline } = Limits::of(number);
    // Some may have one or two connections, and the next waits, or is dropped.
    let listen = listen
        .max_connections(number.is_multiple_of(6).then_some(1 + number / 6 % 2))
        .excess(if number.is_multiple_of(4) { Excess::Drop } else { Excess::Wait });
    listen.low_water_mark(low).idle_of(idle_of).write_timeout(write).deadline(deadline)
}

/// What only some sockets have. As another number says, so that it needs no draw of its own.
struct Limits {
    low: usize,
    idle_of: Idle,
    write: Option<Duration>,
    deadline: Option<Duration>,
}

impl Limits {
    fn of(number: usize) -> Self {
        let ms = |number: usize| Some(Duration::from_millis(1 + number as u64 % 20_000));
        Self {
            low: if number.is_multiple_of(4) { number / 3 } else { 0 },
            idle_of: [Idle::Both, Idle::Read, Idle::Write, Idle::Both][number % 7 % 4],
            write: ms(number / 5).filter(|_| number.is_multiple_of(5)),
            deadline: ms(number / 11).filter(|_| number.is_multiple_of(11)),
        }
    }
}

/// The options of a client of ours.
pub(super) fn connect(rng: &mut Rng) -> Connect {
    let patience = Duration::from_micros(1_000 + mostly(rng, 20_000_000, 10_000));
    let connect = Connect::default()
        .connect_timeout(Some(patience))
        .half_closed_timeout(ms(rng, 20_000))
        .linger(ms(rng, 20_000))
        .high_water_mark(1 + rng.below(50_000) as usize)
        .allow_half_open(rng.chance(0.8))
        .early_notice(rng.chance(0.5))
        .close(close(rng));
    let connect = if rng.chance(0.2) { connect.keep_alive(keep_alive(rng)) } else { connect };
    let connect = if rng.chance(0.1) { connect.user_timeout(time(rng, 5_000)) } else { connect };
    let Limits { low, idle_of, write, deadline } = Limits::of(connect.settings.high_water_bytes);
    connect.low_water_mark(low).idle_of(idle_of).write_timeout(write).deadline(deadline)
}
