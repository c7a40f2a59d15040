//! A script on the simulated network: a client and a server, each a reactor of its own, whose
//! programs do what the script says and nothing by themselves.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use finale::sim::{Host, Network, PacketKind, SentPacket};
use finale::trace::{KernelView, Recorder, Traced, What};
use finale::{ConnectOptions, Event, ListenOptions, Reactor, Socket, SocketId};

use super::ladder::{KernelNow, Ladder, Moment, Row, RowKind, SideEnd, SideNow, Step, micros};
use super::script::{Action, STEP, Script, Side, Verb};
use super::setting;
use crate::errors::Error;

/// The rows that are kept: the newest.
pub(crate) const ROWS: usize = 4_000;
/// What a side records between two looks at its record.
const RECORDS: usize = 4_000;
/// After the last step, the run continues for at most this long: longer than every default limit.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// The turns of a run, some seconds of CPU time at most: a limit for scripts that make the two sides
/// send for ever, as by a probe each second for days.
const TURNS: u32 = 600_000;
const PORT: u16 = 80;
/// What a kernel says of a connection that it does not know any more.
const CLOSED: KernelView = KernelView { state: "CLOSED", unread: 0, unacked: 0 };
/// tcp_fin_timeout of Linux, in microseconds.
const MINUTE: u64 = 60_000_000;

/// One side: its program, and what is known of its connection.
struct Program {
    reactor: Reactor<Traced<Host>>,
    fate: Fate,
    /// How many processes have its descriptor.
    holders: u32,
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
    /// It has died, or has closed the connection behind finale's back.
    Over,
    /// It is stopped by SIGSTOP.
    Frozen,
    LostPower,
}

impl Fate {
    const fn name(self) -> &'static str {
        match self {
            Self::Runs => "runs",
            Self::Over => "over",
            Self::Frozen => "frozen",
            Self::LostPower => "no power",
        }
    }
}

struct Run {
    network: Network,
    begun: Instant,
    programs: [Program; 2],
    /// In the order in which they happened.
    rows: VecDeque<Row>,
    lost: u64,
    moments: Vec<Moment>,
    /// What was last said of each side.
    now: [SideNow; 2],
    /// When the wire is released, if it is held.
    releases: Vec<Duration>,
    settings: [Vec<setting::Setting>; 2],
    wire_is_cut: bool,
    /// From when until when no packet arrived, in microseconds.
    cuts: Vec<(u64, Option<u64>)>,
    /// Of both sides and of the network, since the run began.
    turns: u32,
}

const fn ip(side: Side) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, if matches!(side, Side::Client) { 2 } else { 1 }))
}

/// Runs the script to the end of the connection.
///
/// # Errors
/// Where the script does what can't be done at that moment.
pub(crate) fn run(script: &Script) -> Result<Ladder, Error> {
    let mut run = Run::new(script)?;
    for step in &script.0 {
        for action in step {
            run.act(*action)?;
        }
        if !matches!(step[..], [Action::Wait(_)]) {
            run.pass(STEP)?;
        }
    }
    run.finish()?;
    Ok(run.ladder(script))
}

impl Run {
    fn new(script: &Script) -> Result<Self, Error> {
        let network = Network::new(1);
        network.record();
        let programs = Side::BOTH.map(|side| {
            let recorder = Recorder::new(RECORDS);
            let reactor = Reactor::with_net(recorder.around(network.host(ip(side))));
            Program { reactor, fate: Fate::Runs, holders: 1, recorder, next: 0, socket: None, ending: None }
        });
        let steps = script.0.iter().zip(script.times());
        let releases = steps.filter(|(step, _)| step.contains(&Action::Release)).map(|(_, at)| at).collect();
        let settings = Side::BOTH.map(|side| script.settings(side));
        let options = setting::listen_options(ListenOptions::default(), &settings[Side::Server as usize]);
        let mut run = Self {
            begun: network.now(),
            network,
            programs,
            rows: VecDeque::new(),
            lost: 0,
            moments: Vec::new(),
            now: [SideNow::default(), SideNow::default()],
            releases,
            settings,
            wire_is_cut: false,
            cuts: Vec::new(),
            turns: 0,
        };
        run.programs[Side::Server as usize].reactor.listen((ip(Side::Server), PORT), options)?;
        Ok(run)
    }

    fn add(&mut self, side: Side, what: RowKind) {
        self.keep(Row::new(self.network.elapsed(), side, what));
    }

    fn keep(&mut self, row: Row) {
        if self.rows.len() == ROWS {
            self.rows.pop_front();
            self.lost += 1;
            if self.lost.is_multiple_of(ROWS as u64) {
                self.drop_old_moments();
            }
        }
        let side = row.side;
        self.rows.push_back(row);
        let row = &self.rows[self.rows.len() - 1];
        if self.now[side as usize].change(row) {
            self.note_moment(side);
        }
    }

    /// Keeps how each side stood at the first row that is kept, and what followed.
    fn drop_old_moments(&mut self) {
        let mut last = [None; 2];
        for (at, moment) in self.moments.iter().enumerate().filter(|(_, moment)| moment.rows <= self.lost) {
            last[moment.side as usize] = Some(at);
        }
        let (lost, mut at) = (self.lost, 0..);
        self.moments.retain(|moment| {
            let is_last = last.contains(&at.next());
            is_last || moment.rows > lost
        });
    }

    /// Notes how a side stands, with the rows that are there.
    fn note_moment(&mut self, side: Side) {
        let rows = self.lost + self.rows.len() as u64;
        let at_us = micros(self.network.elapsed());
        self.moments.push(Moment { rows, at_us, side, now: self.now[side as usize].clone() });
    }

    /// Looks at the socket of a side, as its program could.
    fn look_at_socket(&mut self, side: Side) {
        let program = &self.programs[side as usize];
        let runs = Some(program).filter(|program| program.fate == Fate::Runs);
        let sockets = runs.map(|program| program.reactor.sockets());
        let sockets = sockets.as_deref().unwrap_or_default();
        let elapsed_ms = micros(self.network.elapsed()) / 1000;
        let now = SideNow { program: program.fate.name(), ..self.now[side as usize].clone() };
        let now = now.of_socket(program.socket, sockets, elapsed_ms);
        if now != self.now[side as usize] {
            self.now[side as usize] = now;
            self.note_moment(side);
        }
    }

    /// Adds the packets that were sent since the last call. A machine without power sends none.
    fn collect_packets(&mut self) {
        let packets = self.network.take_packets();
        self.keep_packets(&packets);
    }

    fn keep_packets(&mut self, packets: &[SentPacket]) {
        for packet in packets {
            let side = Side::BOTH.into_iter().find(|side| ip(*side) == packet.source.ip()).unwrap_or(Side::Client);
            if self.programs[side as usize].fate != Fate::LostPower {
                self.keep(Row::of_packet(packet, side, ""));
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
                What::Kernel(view) if self.kernel(side) == Some(view) => continue,
                _ => {}
            }
            let state = self.now[side as usize].state;
            self.keep(Row::of_record(record, self.begun, side, state));
        }
        self.look(side);
        self.collect_packets();
        self.look_at_socket(side);
    }

    /// What was last said of a side's kernel.
    fn kernel(&self, side: Side) -> Option<KernelView> {
        let KernelNow { state, unread, unacked, .. } = self.now[side as usize].kernel?;
        Some(KernelView { state, unread, unacked })
    }

    /// Adds what a side's kernel says, if that has changed: also while its program does nothing, or
    /// is dead.
    fn look(&mut self, side: Side) {
        let views = self.network.kernel_views(ip(side));
        let known = self.kernel(side);
        let gone = known.map(|_| CLOSED);
        let view = views.first().copied().or(gone);
        let changed = view.filter(|_| view != known && self.programs[side as usize].fate != Fate::LostPower);
        if let Some(view) = changed {
            let why = self.forgotten(side).filter(|_| view.state == "CLOSED");
            self.add(side, view.into());
            if let Some(text) = why {
                self.add(side, RowKind::Note { text: text.to_owned() });
            }
        }
    }

    /// Why a side's kernel has forgotten its connection, if a timer of its own did that.
    fn forgotten(&self, side: Side) -> Option<&'static str> {
        let kernel = self.now[side as usize].kernel?;
        let now = micros(self.network.elapsed());
        let last = self.moments.iter().rev().find(|moment| moment.side == side);
        let is_over = self.programs[side as usize].fate == Fate::Over;
        match kernel.state {
            "FIN-WAIT-2" if is_over && last.is_some_and(|last| now - last.at_us >= MINUTE) => {
                Some("its kernel forgets what no program owns (tcp_fin_timeout)")
            }
            "TIME-WAIT" if kernel.until_us.is_some_and(|until| until <= now) => {
                Some("a minute has passed: TIME-WAIT is over")
            }
            _ => None,
        }
    }

    fn act(&mut self, action: Action) -> Result<(), Error> {
        let text = action.to_string();
        match action {
            Action::Of(_, Verb::Set(_)) => {}
            Action::Of(side, verb) => {
                self.add(side, RowKind::Action { text: text.replacen(side.name(), "", 1).trim().to_owned() });
                self.call(side, verb)?;
            }
            Action::Wait(time) => {
                self.pass(time)?;
                // When it is over: what was before it does not depend on how long it is.
                self.add(Side::Client, RowKind::Action { text });
            }
            Action::Cut | Action::Restore => {
                self.wire_is_cut = action == Action::Cut;
                self.set_losses();
                self.add(Side::Client, RowKind::Action { text });
            }
            Action::Delay(time) => {
                self.network.set_latency(time);
                self.add(Side::Client, RowKind::Action { text });
            }
            Action::Lose(side) => {
                self.network.lose_next(ip(side), 1);
                self.add(side, RowKind::Action { text });
            }
            Action::Hold => {
                let now = self.network.elapsed();
                let until = self.releases.iter().find(|at| **at > now).copied().unwrap_or(2 * LONGEST);
                self.network.hold_until(self.begun + until);
                self.add(Side::Client, RowKind::Action { text });
            }
            // The packets are on their way: the time of the release was known when they were held.
            Action::Release => self.add(Side::Client, RowKind::Action { text }),
        }
        Ok(())
    }

    /// Makes the network lose what a cut wire loses, and what a machine without power does.
    fn set_losses(&mut self) {
        let has_power = |side: Side| self.programs[side as usize].fate != Fate::LostPower;
        let mut is_cut = self.wire_is_cut;
        for side in Side::BOTH {
            if has_power(side) && !self.wire_is_cut {
                self.network.heal(ip(side));
            } else {
                self.network.vanish(ip(side));
                is_cut = true;
            }
        }
        let now = micros(self.network.elapsed());
        match self.cuts.last_mut() {
            Some((_, until @ None)) if !is_cut => *until = Some(now),
            Some((_, None)) => {}
            _ if is_cut => self.cuts.push((now, None)),
            _ => {}
        }
    }

    /// Another process has lost the descriptor: the program of this side has died or has closed it.
    fn lose_holder(&mut self, side: Side, why: &str) {
        let program = &mut self.programs[side as usize];
        program.fate = Fate::Over;
        program.holders -= 1;
        if program.holders > 0 {
            self.network.freeze(ip(side), true);
            let text = "a child has a copy of the descriptor: the kernel closes nothing".to_owned();
            return self.add(side, RowKind::Note { text });
        }
        program.ending.get_or_insert_with(|| why.to_owned());
        let is_accepted = program.socket.is_some();
        let unread = self.kernel(side).map_or(0, |kernel| kernel.unread);
        self.network.kill(ip(side));
        let packets = self.network.take_packets();
        if packets.iter().any(|packet| packet.kind == PacketKind::Reset) {
            let text = match is_accepted {
                true => format!("its kernel closes the socket over {unread} unread: a reset"),
                false => "its kernel resets what was not accepted".to_owned(),
            };
            self.add(side, RowKind::Note { text });
        }
        self.look(side);
        self.keep_packets(&packets);
    }

    /// What is done to the machine or the process of a side.
    fn strike(&mut self, side: Side, verb: Verb) -> Result<(), Error> {
        // What its program did before in this step has reached its kernel.
        self.turn(side)?;
        let program = &mut self.programs[side as usize];
        let refused = |why: &str| Err(Error::usage(format!("the script: the {} {why}", side.name())));
        match verb {
            Verb::Reboot => {
                program.fate = Fate::Over;
                program.holders = 0;
                program.ending.get_or_insert_with(|| "its machine was restarted".to_owned());
                self.network.forget(ip(side));
                self.set_losses();
                // This one it does not forget by itself.
                if self.kernel(side).is_some_and(|known| known != CLOSED) {
                    self.add(side, CLOSED.into());
                }
            }
            _ if program.fate == Fate::LostPower => return refused("does something after its machine lost power"),
            Verb::Vanish => {
                program.fate = Fate::LostPower;
                program.ending.get_or_insert_with(|| "its machine lost power".to_owned());
                self.set_losses();
            }
            Verb::Freeze | Verb::Thaw if program.fate == Fate::Over => return refused("has no program any more"),
            Verb::Freeze | Verb::Thaw => {
                let is_frozen = verb == Verb::Freeze;
                program.fate = if is_frozen { Fate::Frozen } else { Fate::Runs };
                self.network.freeze(ip(side), is_frozen);
            }
            _ if program.holders == 0 => return refused("has no process left that could do this"),
            Verb::Fork => program.holders += 1,
            Verb::Close if program.socket.is_none() => return refused("has no connection yet"),
            Verb::Close => self.lose_holder(side, "its program called close(2)"),
            _ => self.lose_holder(side, "its program died"),
        }
        self.look_at_socket(side);
        Ok(())
    }

    fn call(&mut self, side: Side, verb: Verb) -> Result<(), Error> {
        if matches!(
            verb,
            Verb::Reboot | Verb::Vanish | Verb::Fork | Verb::Close | Verb::Crash | Verb::Freeze | Verb::Thaw
        ) {
            return self.strike(side, verb);
        }
        let options = setting::connect_options(ConnectOptions::default(), &self.settings[side as usize]);
        let program = &mut self.programs[side as usize];
        let refused = |why: &str| Err(Error::usage(format!("the script: the {} {why}", side.name())));
        match (program.fate, verb) {
            (Fate::LostPower, _) => return refused("does something after its machine lost power"),
            (Fate::Frozen, _) => return refused("makes a call while its program is frozen"),
            (Fate::Over, _) => return refused("makes a call after its program died or called close(2)"),
            (Fate::Runs, Verb::Connect) if program.socket.is_some() => {
                return refused("connects twice; one connection is enough to study");
            }
            (Fate::Runs, Verb::Connect) => {
                program.socket = Some(program.reactor.connect((ip(Side::Server), PORT), options)?);
            }
            (Fate::Runs, Verb::Destroy) if program.holders > 1 => {
                return refused("destroys what a child has a copy of, which is not simulated");
            }
            (Fate::Runs, _) => {
                let Some(id) = program.socket else { return refused("has no connection yet") };
                let Some(socket) = program.reactor.socket(id) else {
                    let text = "the connection is over: the call does nothing".to_owned();
                    self.add(side, RowKind::Note { text });
                    return Ok(());
                };
                if let Err(error) = apply(socket, verb) {
                    self.add(side, RowKind::Note { text: format!("write: {error}") });
                }
            }
        }
        Ok(())
    }

    /// Lets this much time pass.
    fn pass(&mut self, time: Duration) -> Result<(), Error> {
        let until = self.network.now() + time;
        self.run_until(until, |_| false)?;
        if self.turns >= TURNS {
            let why = "the script: so much happens in it that the run does not end; shorten its waits, or write less";
            return Err(Error::usage(why.to_owned()));
        }
        self.network.advance(until.saturating_duration_since(self.network.now()));
        self.collect_packets();
        Ok(())
    }

    /// Lets time pass until both connections are over.
    fn finish(&mut self) -> Result<(), Error> {
        let is_over = |program: &Program| program.ending.is_some() || program.socket.is_none();
        // Rows are dropped while the script runs, but not for what follows it.
        let is_full = |run: &Self| run.rows.len() == ROWS;
        self.run_until(self.network.now() + LONGEST, |run| run.programs.iter().all(is_over) || is_full(run))
    }

    fn run_until(&mut self, until: Instant, is_over: impl Fn(&Self) -> bool) -> Result<(), Error> {
        while self.turns < TURNS {
            self.turns += 1;
            for side in Side::BOTH {
                self.turn(side)?;
            }
            if is_over(self) {
                return Ok(());
            }
            let time_wait = self.end_of_time_wait();
            let alive = self.programs.iter_mut().filter(|program| program.fate == Fate::Runs);
            let deadlines = alive.filter_map(|program| program.reactor.next_deadline());
            let next = deadlines.chain(self.network.next_event()).chain(time_wait).min().filter(|next| *next <= until);
            let Some(next) = next else { return Ok(()) };
            self.network.advance(next.saturating_duration_since(self.network.now()));
            Side::BOTH.into_iter().for_each(|side| self.look(side));
            self.collect_packets();
        }
        Ok(())
    }

    /// When a kernel will next forget what is in TIME-WAIT.
    fn end_of_time_wait(&self) -> Option<Instant> {
        let elapsed = self.network.elapsed();
        let ends = self.now.iter().filter_map(|now| now.kernel?.until_us).map(Duration::from_micros);
        ends.filter(|end| *end > elapsed).min().map(|end| self.begun + end)
    }

    /// What a side can do now.
    fn turn(&mut self, side: Side) -> Result<(), Error> {
        let now = self.network.now();
        while self.programs[side as usize].fate == Fate::Runs {
            self.turns += 1;
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
        self.drop_old_moments();
        let steps = Step::all(script);
        let end_us = micros(self.network.elapsed());
        let sides = Side::BOTH.map(|side| self.end_of(side)).into();
        let mut rows: Vec<_> = std::mem::take(&mut self.rows).into();
        for row in &mut rows {
            let is_cut =
                |at: u64| self.cuts.iter().any(|(from, until)| *from < at && until.is_none_or(|until| at <= until));
            if matches!(row.what, RowKind::Packet { arrives_us: Some(at), .. } if is_cut(at)) {
                row.lose_packet();
            }
        }
        let (title, moments) = (script.to_string(), self.moments);
        Ladder { title, rows, lost: self.lost, sides, steps, moments, end_us, has_several: false }
    }

    fn end_of(&self, side: Side) -> SideEnd {
        SideEnd { side, state: self.now[side as usize].state, ending: self.programs[side as usize].ending.clone() }
    }
}

/// A call of the program on its socket.
pub(crate) fn apply(mut socket: Socket<'_>, verb: Verb) -> Result<(), finale::Error> {
    match verb {
        Verb::Write(bytes) => {
            return socket.write(&vec![b'x'; usize::try_from(bytes).unwrap_or(usize::MAX)]).map(drop);
        }
        Verb::End => socket.end(),
        Verb::Destroy => socket.destroy(),
        Verb::Pause => socket.pause(),
        Verb::Resume => socket.resume(),
        Verb::Discard => socket.discard(),
        _ => {}
    }
    Ok(())
}
