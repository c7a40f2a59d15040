//! A script on the simulated network: a client and a server, each a reactor of its own, whose
//! programs do what the script says and nothing by themselves.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use finale::lifecycle::State;
use finale::sim::{Host, Network};
use finale::trace::{Recorder, Traced, What};
use finale::{ConnectOptions, Event, ListenOptions, Reactor, SocketId};

use super::ladder::{Ladder, Row, RowKind, SideEnd};
use super::script::{Action, STEP, Script, Side, Verb};
use crate::errors::Error;

/// The rows that each side keeps.
const ROWS: usize = 4_000;
/// After the last step, the run continues for at most this long: longer than every default limit.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Turns without an end: a limit for scripts that make the two sides send for ever.
const TURNS: usize = 200_000;
const PORT: u16 = 80;

/// One side: its program, and what is known of its connection.
struct Program {
    reactor: Reactor<Traced<Host>>,
    /// It has crashed: its reactor is not called any more.
    is_dead: bool,
    recorder: Recorder,
    socket: Option<SocketId>,
    ending: Option<String>,
}

struct Run {
    network: Network,
    begun: Instant,
    programs: [Program; 2],
    rows: Vec<Row>,
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
    run.pass(LONGEST)?;
    Ok(run.ladder(script))
}

impl Run {
    fn new() -> Result<Self, Error> {
        let network = Network::new(1);
        network.record();
        let programs = Side::BOTH.map(|side| {
            let recorder = Recorder::new(ROWS);
            let reactor = Reactor::with_net(recorder.around(network.host(ip(side))));
            Program { reactor, is_dead: false, recorder, socket: None, ending: None }
        });
        let mut run = Self { begun: network.now(), network, programs, rows: Vec::new() };
        let server = &mut run.programs[Side::Server as usize].reactor;
        server.listen((ip(Side::Server), PORT), ListenOptions::default())?;
        Ok(run)
    }

    fn add(&mut self, side: Side, what: RowKind) {
        self.rows.push(Row::new(self.network.elapsed(), side, what));
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
                self.network.vanish(ip(Side::Client));
                self.add(Side::Client, RowKind::Action { text });
            }
            Action::Restore => {
                self.network.heal(ip(Side::Client));
                self.add(Side::Client, RowKind::Action { text });
            }
            Action::Delay(time) => {
                self.network.set_latency(time);
                self.add(Side::Client, RowKind::Action { text });
            }
        }
        Ok(())
    }

    fn call(&mut self, side: Side, verb: Verb) -> Result<(), Error> {
        let program = &mut self.programs[side as usize];
        let refused = |why: &str| Err(Error::usage(format!("the script: the {} {why}", side.name())));
        match verb {
            Verb::Vanish => self.network.vanish(ip(side)),
            _ if program.is_dead => return refused("makes a call after its program died"),
            Verb::Crash => {
                self.network.kill(ip(side));
                program.is_dead = true;
                program.ending = Some("its program died".to_owned());
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

    /// Lets this much time pass, or less if both connections are over.
    fn pass(&mut self, time: Duration) -> Result<(), Error> {
        let until = self.network.now() + time;
        for _ in 0..TURNS {
            for side in Side::BOTH {
                self.turn(side)?;
            }
            let is_over = |program: &Program| program.ending.is_some() || program.socket.is_none();
            if time == LONGEST && self.programs.iter().all(is_over) {
                return Ok(());
            }
            let alive = self.programs.iter_mut().filter(|program| !program.is_dead);
            let deadlines = alive.filter_map(|program| program.reactor.next_deadline());
            let next = deadlines.chain(self.network.next_event()).min().filter(|next| *next <= until);
            let Some(next) = next else {
                if time < LONGEST {
                    self.network.advance(until.saturating_duration_since(self.network.now()));
                }
                return Ok(());
            };
            self.network.advance(next.saturating_duration_since(self.network.now()));
        }
        Ok(())
    }

    /// What a side can do now.
    fn turn(&mut self, side: Side) -> Result<(), Error> {
        let now = self.network.now();
        let program = &mut self.programs[side as usize];
        if program.is_dead {
            return Ok(());
        }
        while let Some((socket, event)) = program.reactor.next_before(now)? {
            match event {
                Event::Connection if program.socket.is_none() => program.socket = Some(socket.id()),
                Event::Close(ending) if program.socket == Some(socket.id()) => {
                    program.ending = Some(ending.to_string());
                    let text = ending.to_string();
                    self.rows.push(Row::new(self.network.elapsed(), side, RowKind::Ending { text }));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn ladder(mut self, script: &Script) -> Ladder {
        let mut rows = Vec::new();
        let mut lost = 0;
        for side in Side::BOTH {
            let recorder = &self.programs[side as usize].recorder;
            rows.extend(recorder.records().iter().map(|record| Row::of_record(record, self.begun, side)));
            lost += recorder.lost();
        }
        let side_of = |ip_of: IpAddr| Side::BOTH.into_iter().find(|side| ip(*side) == ip_of).unwrap_or(Side::Client);
        let packets = self.network.take_packets();
        rows.extend(packets.iter().take(ROWS).map(|packet| Row::of_packet(packet, side_of(packet.source.ip()))));
        lost += packets.len().saturating_sub(ROWS) as u64;
        // A call causes what else happens at its time, and a report follows it.
        let (endings, actions): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.rows).into_iter().partition(|row| matches!(row.what, RowKind::Ending { .. }));
        let rows = actions.into_iter().chain(rows).chain(endings).collect();
        let sides = Side::BOTH.map(|side| self.end_of(side)).into();
        let mut ladder = Ladder { title: script.to_string(), rows, lost, sides };
        ladder.sort();
        ladder
    }

    fn end_of(&self, side: Side) -> SideEnd {
        let program = &self.programs[side as usize];
        let steps = program.recorder.records().into_iter().rev();
        let last =
            steps.filter_map(|record| if let What::Step { to, .. } = record.what { Some(to) } else { None }).next();
        SideEnd { side, state: last.unwrap_or(State::Created).name(), ending: program.ending.clone() }
    }
}
