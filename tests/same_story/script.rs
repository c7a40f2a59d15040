//! The parts of a script: which side connects, with which options, and what the two sides do.

use std::time::Duration;

use finale::sim::Rng;
use finale::{CloseMode, ConnectOptions, ListenOptions};

/// The side that opens the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// The peer connects to our listener.
    Serves,
    /// We connect to the peer's listener.
    Dials,
    /// We connect to a port without a listener.
    DialsNobody,
    /// We connect to a listener whose queue is full with another connection.
    DialsFull,
}

/// An option that is not the default.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Opt {
    HandOff,
    NoHalfOpen,
    EarlyNotice,
    Paused,
    SmallBuffers,
    /// The handler of `end` writes this many bytes and ends.
    AnswerAtEnd(usize),
    /// Times in milliseconds.
    Idle(u64),
    HalfClosed(u64),
    Linger(u64),
    ConnectWithin(u64),
}

/// One step of one side. Our calls take effect in the next [`Step::Settle`]; the peer's at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Write(usize),
    /// The same without a copy.
    Give(usize),
    End,
    Destroy,
    Pause,
    Resume,
    Discard,
    Unlisten,
    PeerSend(usize),
    PeerFinish,
    PeerClose,
    PeerReset,
    /// From now on the peer reads all that arrives; it does not before.
    PeerReads,
    /// The peer takes a connection out of its listener's queue.
    PeerAccepts,
    PeerUnlistens,
    /// Until nothing happens any more.
    Settle,
    /// This many milliseconds.
    Wait(u64),
}

#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) options: Vec<Opt>,
    pub(crate) steps: Vec<Step>,
    /// More is in flight than the buffers hold when a side ends. Whether the other FIN was seen
    /// then, and whether the queue had emptied, depends on the buffers.
    pub(crate) much: bool,
}

impl Script {
    pub(crate) fn has(&self, option: Opt) -> bool {
        self.options.contains(&option)
    }

    pub(crate) fn answer_at_end(&self) -> Option<usize> {
        self.options.iter().find_map(|option| if let Opt::AnswerAtEnd(bytes) = option { Some(*bytes) } else { None })
    }
}

macro_rules! with_options {
    ($options:expr, $chosen:expr) => {
        $chosen.iter().fold($options, |options, option| match *option {
            Opt::HandOff => options.close_mode(CloseMode::HandOff),
            Opt::NoHalfOpen => options.allow_half_open(false),
            Opt::EarlyNotice => options.notify_peer_ended(true),
            Opt::Paused => options.start_paused(true),
            Opt::SmallBuffers => options.send_buffer_size(4096).receive_buffer_size(4096),
            Opt::Idle(ms) => options.idle_timeout(Duration::from_millis(ms)),
            Opt::HalfClosed(ms) => options.half_closed_timeout(Duration::from_millis(ms)),
            Opt::Linger(ms) => options.close_timeout(Duration::from_millis(ms)),
            Opt::AnswerAtEnd(_) | Opt::ConnectWithin(_) => options,
        })
    };
}

pub(crate) fn listen_options(script: &Script) -> ListenOptions {
    with_options!(ListenOptions::default(), script.options)
}

pub(crate) fn connect_options(script: &Script) -> ConnectOptions {
    let options = with_options!(ConnectOptions::default(), script.options);
    script.options.iter().fold(options, |options, option| match *option {
        Opt::ConnectWithin(ms) => options.connect_timeout(Duration::from_millis(ms)),
        _ => options,
    })
}

/// A script drawn from a seed, with a common ending: both sides end, if they still can. One in four
/// moves so much that no buffer holds it: then both sides read from the beginning, and no side cuts
/// the stream off or requests the early notice, because how far the bytes have arrived at the time
/// of the FIN depends on the buffers.
pub(crate) fn random(seed: u64) -> Script {
    let mut rng = Rng::new(seed);
    let large = rng.below(4) == 0;
    let role = if rng.below(3) == 0 { Role::Dials } else { Role::Serves };
    let mut steps = Vec::new();
    if role == Role::Dials {
        steps.extend([Step::Settle, Step::PeerAccepts]);
    }
    if large || rng.below(3) > 0 {
        steps.push(Step::PeerReads);
    }
    let most = if large { 200_000 } else { 3000 };
    let drawn: Vec<Step> = (0..2 + rng.below(9)).map(|_| random_step(&mut rng, most)).collect();
    let cuts = |step: &Step| matches!(step, Step::Destroy | Step::Pause | Step::PeerClose | Step::PeerReset);
    steps.extend(drawn.into_iter().filter(|step| !(large && cuts(step))));
    steps.extend([Step::Settle, Step::PeerReads, Step::Resume, Step::Settle, Step::End, Step::Settle]);
    steps.extend([Step::PeerFinish, Step::Settle]);
    Script { name: format!("seed {seed}"), role, options: random_options(&mut rng, large), steps, much: large }
}

fn random_options(rng: &mut Rng, large: bool) -> Vec<Opt> {
    let chances = [
        (5, Opt::HandOff),
        (6, Opt::NoHalfOpen),
        (5, Opt::AnswerAtEnd(7)),
        if large { (2, Opt::SmallBuffers) } else { (4, Opt::EarlyNotice) },
    ];
    let paused = (6, Opt::Paused);
    let chances = chances.iter().chain((!large).then_some(&paused));
    chances.filter(|(one_in, _)| rng.below(*one_in) == 0).map(|(_, option)| *option).collect()
}

fn random_step(rng: &mut Rng, most: u64) -> Step {
    let bytes = 1 + rng.below(most) as usize;
    match rng.below(26) {
        0..=1 => Step::Write(bytes),
        2 => Step::Give(bytes),
        3..=4 => Step::End,
        5 => Step::Destroy,
        6 => Step::Pause,
        7..=8 => Step::Resume,
        9 => Step::Discard,
        10..=12 => Step::PeerSend(bytes),
        13..=14 => Step::PeerFinish,
        15 => Step::PeerClose,
        16 => Step::PeerReset,
        17 => Step::PeerReads,
        _ => Step::Settle,
    }
}
