//! A script on the simulated network: a client and a server, each a reactor of its own, whose
//! programs do what the script says and nothing by themselves.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use finale::lifecycle::State;
use finale::sim::{Host, Network};
use finale::trace::{KernelView, Recorder, Traced, What};
use finale::{ConnectOptions, Event, ListenOptions, Reactor, SocketId};

use super::ladder::{Ladder, Row, RowKind, SideEnd, micros};
use super::script::{Action, STEP, Script, Side, Verb};
use crate::errors::Error;

/// The rows that are kept: the newest.
const ROWS: usize = 10_000;
/// What a side records between two looks at its record.
const RECORDS: usize = 4_000;
/// After the last step, the run continues for at most this long: longer than every default limit.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Turns without an end: a limit for scripts that make the two sides send for ever.
const TURNS: usize = 200_000;
const PORT: u16 = 80;

/// One side: its program, and what is known of its connection.
struct Program {
    reactor: Reactor<Traced<Host>>,
    fate: Fate,
    recorder: Recorder,
    /// The number of its next record.
    next: u64,
    socket: Option<SocketId>,
    ending: Option<String>,
}

/// Whether a program runs. The reactor of one that does not is not called any more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Runs,
    Crashed,
    LostPower,
}

struct Run {
    network: Network,
    begun: Instant,
    programs: [Program; 2],
    /// In the order in which they happened.
    rows: VecDeque<Row>,
    lost: u64,
    /// What was last said of each side's kernel.
    kernels: [Option<KernelView>; 2],
    /// From when until when no packet arrived, in microseconds.
    cuts: Vec<(u64, Option<u64>)>,
}

const fn ip(side: Side) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, if matches!(side, Side::Client) { 2 } else { 1 }))
}

/// Runs the script to the end of the connection.
///
/// # Errors
/// Where the script does what can't be done at that moment.
pub(crate) fn run(script: &Script) -> Result<Ladder, Error> {
    let mut run = Run::new()?;
    for step in &script.0 {
        for action in step {
            run.act(*action)?;
        }
        run.pass(STEP)?;
    }
    run.finish()?;
    Ok(run.ladder(script))
}

impl Run {
    fn new() -> Result<Self, Error> {
        let network = Network::new(1);
        network.record();
        let programs = Side::BOTH.map(|side| {
            let recorder = Recorder::new(RECORDS);
            let reactor = Reactor::with_net(recorder.around(network.host(ip(side))));
            Program { reactor, fate: Fate::Runs, recorder, next: 0, socket: None, ending: None }
        });
        let (begun, rows) = (network.now(), VecDeque::new());
        let mut run = Self { begun, network, programs, rows, lost: 0, cuts: Vec::new(), kernels: [None; 2] };
        let server = &mut run.programs[Side::Server as usize].reactor;
        server.listen((ip(Side::Server), PORT), ListenOptions::default())?;
        Ok(run)
    }

    fn add(&mut self, side: Side, what: RowKind) {
        self.keep(Row::new(self.network.elapsed(), side, what));
    }

    fn keep(&mut self, row: Row) {
        if self.rows.len() == ROWS {
            self.rows.pop_front();
            self.lost += 1;
        }
        self.rows.push_back(row);
    }

    /// Adds the packets that were sent since the last call. A machine without power sends none.
    fn collect_packets(&mut self) {
        for packet in self.network.take_packets() {
            let side = Side::BOTH.into_iter().find(|side| ip(*side) == packet.source.ip()).unwrap_or(Side::Client);
            if self.programs[side as usize].fate != Fate::LostPower {
                self.keep(Row::of_packet(&packet, side));
            }
        }
    }

    /// Adds what a side has recorded since the last call, and the packets that this has sent.
    fn collect(&mut self, side: Side) {
        let program = &mut self.programs[side as usize];
        let records = program.recorder.since(program.next);
        if let (Some(first), Some(last)) = (records.first(), records.last()) {
            self.lost += first.number - program.next;
            program.next = last.number + 1;
        }
        for record in &records {
            match record.what {
                What::Kernel(view) if self.kernels[side as usize] == Some(view) => continue,
                What::Kernel(view) => self.kernels[side as usize] = Some(view),
                _ => {}
            }
            self.keep(Row::of_record(record, self.begun, side));
        }
        self.look(side);
        self.collect_packets();
    }

    /// Adds what a side's kernel says, if that has changed: also while its program does nothing, or
    /// is dead.
    fn look(&mut self, side: Side) {
        let views = self.network.kernel_views(ip(side));
        let known = self.kernels[side as usize];
        let gone = known.map(|_| KernelView { state: "CLOSED", unread: 0, unacked: 0 });
        let view = views.first().copied().or(gone);
        if view != known && self.programs[side as usize].fate != Fate::LostPower {
            self.kernels[side as usize] = view;
            if let Some(view) = view {
                self.add(side, view.into());
            }
        }
    }

    fn act(&mut self, action: Action) -> Result<(), Error> {
        let text = action.to_string();
        match action {
            Action::Of(side, verb) => {
                self.add(side, RowKind::Action { text: text.replacen(side.name(), "", 1).trim().to_owned() });
                self.call(side, verb)?;
            }
            Action::Wait(time) => self.pass(time)?,
            Action::Cut => {
                self.cut(Side::Client);
                self.add(Side::Client, RowKind::Action { text });
            }
            Action::Restore => {
                self.restore();
                self.add(Side::Client, RowKind::Action { text });
            }
            Action::Delay(time) => {
                self.network.set_latency(time);
                self.add(Side::Client, RowKind::Action { text });
            }
        }
        Ok(())
    }

    /// From now on no packet of this side arrives, and none at it.
    fn cut(&mut self, side: Side) {
        self.network.vanish(ip(side));
        if self.cuts.last().is_none_or(|(_, until)| until.is_some()) {
            self.cuts.push((micros(self.network.elapsed()), None));
        }
    }

    /// The wire works again. A machine without power does not.
    fn restore(&mut self) {
        if self.programs.iter().any(|program| program.fate == Fate::LostPower) {
            return;
        }
        self.network.heal(ip(Side::Client));
        let now = micros(self.network.elapsed());
        if let Some((_, until @ None)) = self.cuts.last_mut() {
            *until = Some(now);
        }
    }

    fn call(&mut self, side: Side, verb: Verb) -> Result<(), Error> {
        let program = &mut self.programs[side as usize];
        let refused = |why: &str| Err(Error::usage(format!("the script: the {} {why}", side.name())));
        match verb {
            _ if program.fate == Fate::LostPower => return refused("does something after its machine lost power"),
            Verb::Vanish => {
                program.fate = Fate::LostPower;
                program.ending = Some("its machine lost power".to_owned());
                self.cut(side);
            }
            _ if program.fate == Fate::Crashed => return refused("makes a call after its program died"),
            Verb::Crash => {
                self.network.kill(ip(side));
                program.fate = Fate::Crashed;
                program.ending = Some("its program died".to_owned());
                let unread = self.kernels[side as usize].map_or(0, |kernel| kernel.unread);
                if unread > 0 {
                    let text = format!("its kernel closes the socket over {unread} unread: a reset");
                    self.add(side, RowKind::Note { text });
                }
                self.look(side);
            }
            Verb::Connect if program.socket.is_some() => {
                return refused("connects twice; one connection is enough to study");
            }
            Verb::Connect => {
                let target = (ip(Side::Server), PORT);
                program.socket = Some(program.reactor.connect(target, ConnectOptions::default())?);
            }
            _ => {
                let Some(id) = program.socket else { return refused("has no connection yet") };
                // After its close every call does nothing.
                let Some(mut socket) = program.reactor.socket(id) else { return Ok(()) };
                match verb {
                    Verb::Write(bytes) => {
                        let written = socket.write(&vec![b'x'; usize::try_from(bytes).unwrap_or(usize::MAX)]);
                        if let Err(error) = written {
                            self.add(side, RowKind::Note { text: format!("write: {error}") });
                        }
                    }
                    Verb::End => socket.end(),
                    Verb::Destroy => socket.destroy(),
                    Verb::Pause => socket.pause(),
                    Verb::Resume => socket.resume(),
                    Verb::Discard => socket.discard(),
                    Verb::Connect | Verb::Crash | Verb::Vanish => {}
                }
            }
        }
        Ok(())
    }

    /// Lets this much time pass.
    fn pass(&mut self, time: Duration) -> Result<(), Error> {
        let until = self.network.now() + time;
        self.run_until(until, |_| false)?;
        self.network.advance(until.saturating_duration_since(self.network.now()));
        self.collect_packets();
        Ok(())
    }

    /// Lets time pass until both connections are over.
    fn finish(&mut self) -> Result<(), Error> {
        let is_over = |program: &Program| program.ending.is_some() || program.socket.is_none();
        self.run_until(self.network.now() + LONGEST, |run| run.programs.iter().all(is_over))
    }

    fn run_until(&mut self, until: Instant, is_over: impl Fn(&Self) -> bool) -> Result<(), Error> {
        for _ in 0..TURNS {
            for side in Side::BOTH {
                self.turn(side)?;
            }
            if is_over(self) {
                return Ok(());
            }
            let alive = self.programs.iter_mut().filter(|program| program.fate == Fate::Runs);
            let deadlines = alive.filter_map(|program| program.reactor.next_deadline());
            let next = deadlines.chain(self.network.next_event()).min().filter(|next| *next <= until);
            let Some(next) = next else { return Ok(()) };
            self.network.advance(next.saturating_duration_since(self.network.now()));
            Side::BOTH.into_iter().for_each(|side| self.look(side));
            self.collect_packets();
        }
        Ok(())
    }

    /// What a side can do now.
    fn turn(&mut self, side: Side) -> Result<(), Error> {
        let now = self.network.now();
        while self.programs[side as usize].fate == Fate::Runs {
            let program = &mut self.programs[side as usize];
            let mut ending = None;
            let next = program.reactor.next_before(now)?;
            let is_idle = next.is_none();
            if let Some((socket, event)) = next {
                match event {
                    Event::Connection if program.socket.is_none() => program.socket = Some(socket.id()),
                    Event::Close(report) if program.socket == Some(socket.id()) => ending = Some(report.to_string()),
                    _ => {}
                }
            }
            self.collect(side);
            if let Some(text) = ending {
                self.programs[side as usize].ending = Some(text.clone());
                self.add(side, RowKind::Ending { text });
            }
            if is_idle {
                break;
            }
        }
        Ok(())
    }

    fn ladder(mut self, script: &Script) -> Ladder {
        let sides = Side::BOTH.map(|side| self.end_of(side)).into();
        let mut rows: Vec<_> = std::mem::take(&mut self.rows).into();
        for row in &mut rows {
            if let RowKind::Packet { arrives_us, .. } = &mut row.what {
                let is_cut =
                    |at: u64| self.cuts.iter().any(|(from, until)| *from < at && until.is_none_or(|until| at <= until));
                *arrives_us = arrives_us.filter(|at| !is_cut(*at));
            }
        }
        Ladder { title: script.to_string(), rows, lost: self.lost, sides, has_several: false }
    }

    fn end_of(&self, side: Side) -> SideEnd {
        let program = &self.programs[side as usize];
        let steps = program.recorder.records().into_iter().rev();
        let last =
            steps.filter_map(|record| if let What::Step { to, .. } = record.what { Some(to) } else { None }).next();
        SideEnd { side, state: last.unwrap_or(State::Created).name(), ending: program.ending.clone() }
    }
}
