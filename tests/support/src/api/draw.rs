//! How calls are drawn. The same numbers give the same calls.

use std::time::Duration;

use finale::sim::Reach;
use finale::{CloseMode, KeepAlive};

use super::op::{Act, At, Call, Dice, MapCall, Op, Setting, To, Weather, Who};

const MS: Duration = Duration::from_millis(1);
const TIMES: &[Duration] = &[
    MS,
    Duration::ZERO,
    Duration::from_millis(10),
    Duration::from_micros(2_500),
    Duration::from_millis(300),
    Duration::from_secs(2),
    Duration::from_secs(20),
];
const LIMITS: &[Option<Duration>] = &[
    Some(Duration::from_secs(2)),
    Some(MS),
    Some(Duration::ZERO),
    Some(Duration::from_millis(50)),
    Some(Duration::from_secs(20)),
    None,
    Some(Duration::MAX),
];
const SIZES: &[usize] = &[10, 0, 1, 300, 5_000, 20_000, 70_000];

/// Addresses to listen at: free, taken, of another machine, of no machine.
const HERE: &[&str] = &[
    "10.0.0.1:80",
    "10.0.0.1:0",
    "0.0.0.0:80",
    "[::]:80",
    "127.0.0.1:81",
    "10.0.0.2:80",
    "1.2.3.4:80",
    "[::1]:0",
    "localhost:80",
    "nonsense",
    ":80",
];

/// Targets that are names: see the world's resolver.
const NAMES: &[&str] =
    &["peer:9000", "both:9000", "mixed:9000", "empty:1", "hangs:1", "fails:1", "unknown:1", "again:9000"];

impl Op {
    pub fn draw(dice: &mut impl Dice) -> Self {
        let at: At = usize::from(dice.chance(4));
        let n = |dice: &mut dyn FnMut(u32) -> u32| dice(6) as usize;
        match dice.below(40) {
            0..=4 => Self::run(at, dice),
            5..=8 => Self::Converse { rounds: dice.of(&[3, 1, 30]), answer: answer(dice) },
            9..=18 => Self::Socket { at, who: Who::draw(dice), call: Call::draw(dice, true) },
            19..=22 => {
                let which = n(&mut |bound| dice.below(bound));
                Self::Peer { which, act: Act::draw(dice) }
            }
            23 | 24 => Self::PeerConnects { to: n(&mut |bound| dice.below(bound)) },
            25 => Self::PeerAccepts,
            26 | 27 => Self::Listen { at, addr: dice.of(HERE), settings: settings(dice) },
            28..=30 => Self::Connect { at, to: To::draw(dice), settings: settings(dice) },
            31 => Self::CloseListener { at, which: n(&mut |bound| dice.below(bound)) },
            32 => Self::LocalAddr { at, who: Who::draw(dice) },
            33 => {
                let count: usize = dice.of(&[2, 1, 4, 8]);
                Self::Map { at, calls: (0..count).map(|_| map_call(dice)).collect() }
            }
            34 => Self::timer(at, dice),
            35 => Self::remote(at, dice),
            36 | 37 => Self::Weather(Weather::draw(dice)),
            _ if dice.chance(4) => Self::Restart { at },
            _ => Self::Next { at },
        }
    }

    /// The possible beginnings of a script: a listener, and connections both ways.
    pub fn opening(dice: &mut impl Dice) -> Vec<Self> {
        let meet = || Self::Converse { rounds: 2, answer: None };
        vec![
            Self::Listen { at: 0, addr: "10.0.0.1:8000", settings: settings(dice) },
            Self::Connect { at: 0, to: To::Peer, settings: settings(dice) },
            Self::PeerConnects { to: 0 },
            meet(),
            Self::PeerAccepts,
            Self::Connect { at: 1, to: To::Ours(0), settings: settings(dice) },
            meet(),
        ]
    }

    fn run(at: At, dice: &mut impl Dice) -> Self {
        match dice.below(8) {
            7 => Self::RunInThePast { at },
            _ => Self::Run { at, time: dice.of(TIMES), events: dice.of(&[100, 1, 2, 5]), answer: answer(dice) },
        }
    }

    fn timer(at: At, dice: &mut impl Dice) -> Self {
        match dice.below(3) {
            0 => Self::SetTimer { at, after: dice.of(TIMES) },
            1 => Self::CancelTimer { at, which: dice.below(4) as usize, foreign: dice.chance(4) },
            _ => Self::SetTimer { at, after: dice.of(&[Duration::MAX, MS * u32::MAX, MS / 3]) },
        }
    }

    fn remote(at: At, dice: &mut impl Dice) -> Self {
        let which = dice.below(3) as usize;
        match dice.below(4) {
            0 => Self::Remote { at },
            1 | 2 => Self::Wake { at, which },
            _ => Self::DropRemote { at, which },
        }
    }
}

/// What a program does with each event, if anything.
fn answer(dice: &mut impl Dice) -> Option<Call> {
    match dice.below(8) {
        0..=4 => None,
        5 => Some(Call::Write(dice.of(SIZES))),
        _ => Some(Call::draw(dice, true)),
    }
}

/// Usually with ids that may be stale: values of a live socket must not be affected by them.
fn map_call(dice: &mut impl Dice) -> (Who, MapCall) {
    let who = if dice.chance(4) { Who::draw(dice) } else { Who::Any(dice.below(12) as usize) };
    (who, dice.of(&[MapCall::Insert, MapCall::Insert, MapCall::OrDefault, MapCall::Remove]))
}

impl Who {
    fn draw(dice: &mut impl Dice) -> Self {
        let n = dice.below(8) as usize;
        match dice.below(8) {
            0..=5 => Self::Live(n),
            6 => Self::Any(n),
            _ => Self::Foreign(n),
        }
    }
}

impl Call {
    fn draw(dice: &mut impl Dice, may_nest: bool) -> Self {
        match dice.below(22) {
            0 => Self::Look,
            1..=4 => Self::Write(dice.of(SIZES)),
            5 | 6 => Self::WriteOwned(dice.of(SIZES)),
            7 | 8 => Self::End,
            9 => Self::WriteAndEnd(dice.of(SIZES)),
            10 | 11 => Self::Pause,
            12 | 13 => Self::Resume,
            14 => Self::Discard,
            15 => Self::Destroy,
            16 | 17 => Self::SetTimeout(dice.of(LIMITS)),
            18 => Self::SetClose(dice.of(&[CloseMode::HandOff, CloseMode::Confirmed])),
            19 => Self::SetNodelay(dice.chance(2)),
            20 => Self::SetKeepAlive(dice.chance(2).then(|| keep_alive(dice))),
            _ if may_nest => Self::Get(Who::draw(dice), Box::new(Self::draw(dice, false))),
            _ => Self::Look,
        }
    }
}

impl Act {
    fn draw(dice: &mut impl Dice) -> Self {
        match dice.below(12) {
            0..=3 => Self::Read,
            4..=6 => Self::Send(dice.of(SIZES)),
            7 | 8 => Self::Finish,
            9 => Self::Urgent,
            10 => Self::Close,
            _ => Self::Reset,
        }
    }
}

impl To {
    fn draw(dice: &mut impl Dice) -> Self {
        match dice.below(10) {
            0..=3 => Self::Peer,
            4 | 5 => Self::Ours(dice.below(3) as usize),
            6 | 7 => Self::Text(dice.of(NAMES).into()),
            8 => Self::Pair(dice.of(&["10.0.0.9", "both", "::1", "[::1]", ""]), dice.of(&[9000, 0, 65535])),
            _ => {
                let letters: Vec<char> = "10.:[]aé% \n-+9f".chars().collect();
                let length = dice.below(9);
                Self::Text((0..length).map(|_| dice.of(&letters)).collect())
            }
        }
    }
}

impl Weather {
    fn draw(dice: &mut impl Dice) -> Self {
        match dice.below(12) {
            0 | 1 => Self::Advance(dice.of(TIMES)),
            2 | 3 => Self::Faults(dice.below(65_536) as u16),
            4 => Self::Latency(dice.of(&[Duration::ZERO, MS, MS * 200])),
            5 => Self::Buffers(dice.of(&[3_000, 50, 100_000]), dice.of(&[3_000, 50, 100_000])),
            6 => Self::Ports(dice.of(&[1_000, 0, 2])),
            7 => Self::Vanish,
            8 => Self::Heal,
            9 => Self::Forget,
            10 => Self::Abort { at: usize::from(dice.chance(4)), who: Who::draw(dice) },
            _ => Self::Reach(dice.of(&[
                Reach::Open,
                Reach::BlackHole,
                Reach::Unreachable,
                Reach::NoRoute,
                Reach::Prohibited,
            ])),
        }
    }
}

fn keep_alive(dice: &mut impl Dice) -> KeepAlive {
    let seconds = Duration::from_secs;
    let times = [seconds(1), seconds(0), seconds(5), seconds(32_767), seconds(32_768)];
    KeepAlive { idle: dice.of(&times), interval: dice.of(&times), count: dice.of(&[3, 1, 127, 2, 0, 128]) }
}

fn settings(dice: &mut impl Dice) -> Vec<Setting> {
    let count: usize = dice.of(&[0, 0, 1, 2, 3, 5]);
    (0..count).map(|_| setting(dice)).collect()
}

fn setting(dice: &mut impl Dice) -> Setting {
    match dice.below(24) {
        0 | 1 => Setting::Idle(dice.of(LIMITS)),
        2 | 3 => Setting::HalfClosed(dice.of(LIMITS)),
        4 | 5 => Setting::Linger(dice.of(LIMITS)),
        6 | 7 => {
            Setting::ConnectTimeout(dice.of(&[LIMITS[4], None, Some(Duration::MAX), LIMITS[0], LIMITS[3], LIMITS[1]]))
        }
        8 => Setting::HighWater(dice.of(&[300, 1, 1_000, 10_000, 0, usize::MAX])),
        9 => Setting::WriteLimit(dice.of(&[200_000, 130_000, usize::MAX, 6_000, 0])),
        10 | 11 => Setting::Close(CloseMode::HandOff),
        12 | 13 => Setting::HalfOpen(false),
        14 => Setting::EarlyNotice(true),
        15 => Setting::Paused(true),
        16 => Setting::Nodelay(false),
        17 => Setting::KeepAlive(keep_alive(dice)),
        18 => Setting::UserTimeout(dice.of(&[Duration::from_secs(1), MS * 10, MS, Duration::ZERO, Duration::MAX])),
        19 => Setting::SendBuffer(dice.of(&[1_000, 10_000, 50, 7, 0, usize::MAX])),
        20 => Setting::ReceiveBuffer(dice.of(&[1_000, 10_000, 50, 7, 0, usize::MAX])),
        21 => Setting::Backlog(dice.of(&[1, 0, u32::MAX])),
        22 => dice.of(&[Setting::ReusePort(true), Setting::Ipv6Only(true)]),
        _ => Setting::LocalAddr(dice.of(&["0.0.0.0:0", "10.0.0.1:0", "10.0.0.1:5", "9.9.9.9:0", "[::1]:0"])),
    }
}
