//! Draws scripts and options: anything that a peer may do, and every option of a socket.

use std::time::Duration;

use super::pattern::{self, Stream};
use super::plan::Plan;
use crate::options::{CloseMode, ConnectOptions, IdleDirection, KeepAlive, ListenOptions, OverflowPolicy};
use crate::sim::{Rng, Script};

/// A peer that does anything.
pub(super) fn script(rng: &mut Rng, stream: Stream, largest_write: u64) -> Script {
    let mut script = Script::new();
    let mut sent = 0;
    for _ in 0..1 + rng.below(6) {
        script = match rng.below(22) {
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
            20 => {
                let count = 1 + rng.below(20);
                sent += count;
                let every = Duration::from_micros(mostly(rng, 20_000, 2_000_000));
                script.drip(&pattern::bytes(stream, sent - count, count), every)
            }
            21 => {
                let every = Duration::from_micros(mostly(rng, 5_000, 1_000_000));
                let time = Duration::from_micros(mostly(rng, 100_000, 5_000_000));
                script.sip(1 + rng.below(20), every).wait(time).read_on()
            }
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

/// A peer that sends without a pause for this long, with other steps before and after.
pub(super) fn flood(rng: &mut Rng, stream: Stream, largest_write: u64, time: Duration) -> Script {
    let mut script = Script::new();
    let mut sent = 0;
    if rng.chance(0.3) {
        sent = rng.below(largest_write);
        script = script.send(&pattern::bytes(stream, 0, sent));
    }
    script = match rng.below(6) {
        0 => script.wait(Duration::from_micros(rng.below(20_000))),
        1 => script.sip(1 + rng.below(50), Duration::from_micros(rng.below(100_000))),
        2 | 3 => script.stop_reading(),
        _ => script,
    };
    // A whole period, so that it can be repeated.
    script = script.flood(&pattern::bytes(stream, sent, pattern::PERIOD as u64), time);
    match rng.below(6) {
        0 => script.reset(),
        1 => script.close(),
        2 => script.vanish(),
        3 => script.read_on(),
        _ => script.read_on().finish().receive_end().close(),
    }
}

/// A number below the first bound in four of five cases, otherwise below the second.
pub(super) fn mostly(rng: &mut Rng, usual: u64, rare: u64) -> u64 {
    let bound = if rng.chance(0.8) { usual } else { rare };
    rng.below(bound)
}

fn time(rng: &mut Rng, most_ms: u64) -> Duration {
    Duration::from_micros(1_000 + rng.below(1_000 * most_ms))
}

pub(super) fn ms(rng: &mut Rng, most_ms: u64) -> Option<Duration> {
    Some(time(rng, most_ms))
}

fn close(rng: &mut Rng) -> CloseMode {
    if rng.chance(0.3) { CloseMode::HandOff } else { CloseMode::Confirmed }
}

fn keep_alive(rng: &mut Rng) -> KeepAlive {
    let mut seconds = || Duration::from_secs(1 + rng.below(3));
    let (idle, interval) = (seconds(), seconds());
    KeepAlive { idle, interval, count: 1 + rng.below(3) as u32 }
}

/// The options of a server. The limits are small: long ones would only make the run longer.
pub(super) fn listen(rng: &mut Rng, plan: &Plan) -> ListenOptions {
    let longest_ms = plan.longest_ms;
    let listen = ListenOptions::default()
        .idle_timeout(ms(rng, longest_ms).filter(|_| rng.chance(0.3)))
        .half_closed_timeout(ms(rng, longest_ms))
        .close_timeout(ms(rng, longest_ms))
        .high_water_mark(1 + rng.below(50_000) as usize)
        .allow_half_open(rng.chance(0.7))
        .notify_peer_ended(rng.chance(0.5))
        .start_paused(rng.chance(0.1))
        .backlog(if rng.chance(0.1) { 1 } else { 100 })
        .close_mode(close(rng));
    let listen = if rng.chance(0.2) { listen.keep_alive(keep_alive(rng)) } else { listen };
    let listen = if rng.chance(0.1) { listen.user_timeout(time(rng, 5_000)) } else { listen };
    let number = listen.settings.high_water_bytes;
    let Limits { low, idle_direction, write, deadline, ending } = Limits::of(number, plan);
    // Some allow one or two connections.
    let listen = listen.max_connections(number.is_multiple_of(6).then_some(1 + number / 6 % 2)).overflow_policy(
        match number % 4 {
            0 => OverflowPolicy::Reset,
            2 => OverflowPolicy::Admit(number / 6 % 3),
            _ => OverflowPolicy::Wait,
        },
    );
    listen
        .low_water_mark(low)
        .idle_direction(idle_direction)
        .write_timeout(write)
        .deadline(deadline)
        .ending_timeout(ending)
}

/// Options that only some sockets have. They follow from another number, and use no draw of their
/// own.
struct Limits {
    low: usize,
    idle_direction: IdleDirection,
    write: Option<Duration>,
    deadline: Option<Duration>,
    ending: Option<Duration>,
}

impl Limits {
    fn of(number: usize, plan: &Plan) -> Self {
        let ms = |number: usize| Some(Duration::from_millis(1 + number as u64 % plan.longest_ms));
        let few = if plan.flood.is_some() { 2 } else { 5 };
        Self {
            low: if number.is_multiple_of(4) { number / 3 } else { 0 },
            idle_direction: [IdleDirection::Both, IdleDirection::Read, IdleDirection::Write, IdleDirection::Both]
                [number % 7 % 4],
            write: ms(number / 5).filter(|_| number.is_multiple_of(few)),
            deadline: ms(number / 11).filter(|_| number.is_multiple_of(11)),
            ending: ms(number / 7).filter(|_| number.is_multiple_of(7)),
        }
    }
}

/// The options of a client.
pub(super) fn connect(rng: &mut Rng, plan: &Plan) -> ConnectOptions {
    let longest_ms = plan.longest_ms;
    let connect_timeout = Duration::from_micros(1_000 + mostly(rng, 20_000_000, 10_000));
    let connect = ConnectOptions::default()
        .connect_timeout(connect_timeout)
        .half_closed_timeout(ms(rng, longest_ms))
        .close_timeout(ms(rng, longest_ms))
        .high_water_mark(1 + rng.below(50_000) as usize)
        .allow_half_open(rng.chance(0.8))
        .notify_peer_ended(rng.chance(0.5))
        .close_mode(close(rng));
    let connect = if rng.chance(0.2) { connect.keep_alive(keep_alive(rng)) } else { connect };
    let connect = if rng.chance(0.1) { connect.user_timeout(time(rng, 5_000)) } else { connect };
    let Limits { low, idle_direction, write, deadline, ending } = Limits::of(connect.settings.high_water_bytes, plan);
    let (total, deadline) = match connect.settings.high_water_bytes % 3 {
        0 => (None, deadline),
        1 => (deadline, None),
        _ => (deadline.map(|limit| limit * 2), deadline),
    };
    let connect = connect.deadline(deadline).total_deadline(total);
    connect.low_water_mark(low).idle_direction(idle_direction).write_timeout(write).ending_timeout(ending)
}
