//! Plays a script on one network, and records the events and what can be seen each time when it has
//! settled.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use finale::check::EventGrammar;
use finale::lifecycle::State;
use finale::net::Net;
use finale::{ConnectionError, Ending, EndingKind, Event, Reactor, Socket, SocketId};

use crate::remote::{PATIENCE, Remote, Seen};
use crate::script::{Opt, Role, Script, Step, connect_options, listen_options};
use support::pattern;

/// The events so far and what can be seen now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Settled {
    /// The step before which everything settled.
    pub(crate) after: String,
    pub(crate) told: Vec<String>,
    pub(crate) state: String,
    pub(crate) peer: Seen,
}

/// One event. Consecutive pieces of data are one.
enum Told {
    Data { bytes: usize, sum: u64 },
    Line(String),
}

pub(crate) struct Play<'a, N: Net, R: Remote> {
    script: &'a Script,
    reactor: Reactor<N>,
    remote: R,
    listener: Option<finale::ListenerId>,
    socket: Option<SocketId>,
    lives: HashMap<SocketId, EventGrammar>,
    told: Vec<Told>,
    drains: usize,
    peer_reads: bool,
    seen: Seen,
    seen_sum: u64,
    sent: usize,
    written: usize,
    /// Another connection, which fills a listener's queue.
    filler: Option<SocketId>,
}

/// The transcript of a script. `expected` is another network's: then each wait is for that to come
/// true.
pub(crate) fn play<N: Net, R: Remote>(
    reactor: Reactor<N>,
    remote: R,
    script: &Script,
    expected: Option<&[Settled]>,
) -> Vec<Settled> {
    let mut play = Play {
        script,
        reactor,
        remote,
        listener: None,
        socket: None,
        lives: HashMap::new(),
        told: Vec::new(),
        drains: 0,
        peer_reads: false,
        seen: Seen::default(),
        seen_sum: 0,
        sent: 0,
        written: 0,
        filler: None,
    };
    play.begin();
    let mut story: Vec<Settled> = Vec::new();
    let mut since = Vec::new();
    for step in &script.steps {
        since.push(format!("{step:?}"));
        let wait = match *step {
            Step::Settle => Duration::ZERO,
            Step::Wait(ms) => Duration::from_millis(ms),
            _ => {
                play.perform(*step);
                continue;
            }
        };
        let after = std::mem::take(&mut since).join(" ");
        story.push(play.settle(after, wait, expected.map(|expected| &expected[story.len()])));
    }
    play.rest(&mut story);
    story
}

impl<N: Net, R: Remote> Play<'_, N, R> {
    fn begin(&mut self) {
        let any = "127.0.0.1:0";
        let script = self.script;
        let addr = match script.role {
            Role::Serves => {
                let listener = self.reactor.listen(any, listen_options(script)).expect("loopback has a free port");
                self.listener = Some(listener.id);
                return self.remote.connect(listener.addr.ip().expect("an IP address"), script.has(Opt::SmallBuffers));
            }
            Role::Dials => self.remote.listen(16),
            Role::DialsFull => self.fill(),
            Role::DialsNobody => self.remote.nobody(),
        };
        self.socket = Some(self.reactor.connect(addr, connect_options(script)).expect("options as they should be"));
    }

    /// A listener with a queue for one connection, which is taken.
    fn fill(&mut self) -> SocketAddr {
        let addr = self.remote.listen(0);
        let filler = self.reactor.connect(addr, finale::ConnectOptions::default()).expect("an address");
        self.filler = Some(filler);
        let deadline = self.remote.now() + PATIENCE;
        while let Ok(Some((_, event))) = self.reactor.next_before(deadline) {
            if matches!(event, Event::Ready) {
                return addr;
            }
        }
        panic!("the first connection finds room in the queue");
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::PeerSend(bytes) => {
                self.remote.send(&pattern(self.sent + bytes)[self.sent..]);
                self.sent += bytes;
            }
            Step::PeerFinish => self.remote.finish(),
            Step::PeerClose => self.remote.close(),
            Step::PeerReset => self.remote.reset(),
            Step::PeerReads => self.peer_reads = true,
            Step::PeerAccepts => self.remote.accept(),
            Step::PeerUnlistens => self.remote.unlisten(),
            Step::Unlisten => self.unlisten(),
            Step::Write(_) | Step::Give(_) | Step::End | Step::Destroy => self.ask(step),
            Step::Pause | Step::Resume | Step::Discard => self.ask(step),
            Step::Settle | Step::Wait(_) => {}
        }
    }

    fn ask(&mut self, step: Step) {
        let written = &mut self.written;
        let Some(mut socket) = self.socket.and_then(|id| self.reactor.socket(id)) else { return };
        match step {
            Step::Give(bytes) => match socket.write_owned(pattern(*written + bytes).split_off(*written)) {
                Ok(_) => *written += bytes,
                Err(error) => self.told.push(Told::Line(format!("write refused: {error:?}"))),
            },
            Step::Write(bytes) => match socket.write(&pattern(*written + bytes)[*written..]) {
                Ok(_) => *written += bytes,
                Err(error) => self.told.push(Told::Line(format!("write refused: {error:?}"))),
            },
            Step::End => socket.end(),
            Step::Destroy => socket.destroy(),
            Step::Pause => socket.pause(),
            Step::Resume => socket.resume(),
            Step::Discard => socket.discard(),
            _ => {}
        }
    }

    fn unlisten(&mut self) {
        if let Some(listener) = self.listener.take() {
            self.reactor.close_listener(listener).expect("it is open");
        }
    }

    // --- time ---

    fn settle(&mut self, after: String, wait: Duration, expected: Option<&Settled>) -> Settled {
        match expected {
            None => self.settle_by_itself(wait),
            Some(expected) => {
                // The calls are made in any case, seen or not.
                self.round(Duration::ZERO);
                let began = Instant::now();
                while !self.is_like(expected) && began.elapsed() < PATIENCE + wait {
                    self.round(Duration::from_millis(1));
                }
            }
        }
        self.settled(after)
    }

    /// Until several rounds have moved nothing.
    fn settle_by_itself(&mut self, wait: Duration) {
        if !wait.is_zero() {
            self.round(wait);
        }
        let mut still = 0;
        while still < 4 {
            still = if self.round(Duration::ZERO) { 0 } else { still + 1 };
        }
    }

    /// First what is there already, then a wait. Returns whether anything moved.
    fn round(&mut self, wait: Duration) -> bool {
        let moved = |play: &mut Self| {
            let socket = play.socket.and_then(|id| play.reactor.socket(id));
            let bytes = socket.map_or(0, |socket| socket.bytes_written() + socket.bytes_read());
            (play.told.len(), play.drains, bytes, play.seen)
        };
        let before = moved(self);
        for until in [Duration::ZERO, wait] {
            let until = self.remote.now() + until;
            while self.next(until) {}
            let bytes = self.remote.go_on(self.peer_reads);
            self.seen.bytes += bytes.len();
            self.seen_sum = sum(self.seen_sum, &bytes);
            let (fin, reset) = self.remote.fin_and_reset();
            // Whether a FIN arrived before the reset can't be determined when a write has taken the
            // error.
            (self.seen.fin, self.seen.reset) = (fin && !reset, reset);
        }
        moved(self) != before
    }

    /// Handles one event; `false` if there was none in time.
    fn next(&mut self, until: Instant) -> bool {
        let answer = self.script.answer_at_end();
        let Some((mut socket, event)) = self.reactor.next_before(until).expect("a net that works") else {
            return false;
        };
        if self.filler == Some(socket.id()) {
            return true;
        }
        let life = self.lives.entry(socket.id()).or_insert_with(|| EventGrammar::new(&socket));
        life.check(&socket, &event).expect("the language of events");
        if let (Event::End, Some(bytes)) = (&event, answer)
            && socket.write(&pattern(self.written + bytes)[self.written..]).is_ok()
        {
            self.written += bytes;
            socket.end();
        }
        self.socket = Some(socket.id());
        match event {
            Event::Data(bytes) => match self.told.last_mut() {
                Some(Told::Data { bytes: count, sum: total }) => {
                    *count += bytes.len();
                    *total = sum(*total, bytes);
                }
                _ => self.told.push(Told::Data { bytes: bytes.len(), sum: sum(0, bytes) }),
            },
            // When a queue empties depends on the sizes of buffers, and with it the order of this
            // event and the others.
            Event::Drain => self.drains += usize::from(!self.script.much),
            event => self.told.push(Told::Line(line(&event, self.script))),
        }
        true
    }

    /// Everything that is still delivered when listeners and peer are gone: it must be nothing that
    /// was not seen.
    fn rest(mut self, story: &mut Vec<Settled>) {
        self.unlisten();
        if let Some(filler) = self.filler
            && let Some(mut socket) = self.reactor.socket(filler)
        {
            socket.destroy();
        }
        if self.socket.is_none_or(|id| self.reactor.socket(id).is_none()) {
            let until = self.remote.now() + PATIENCE;
            while self.next(until) {}
            story.push(self.settled("the rest".to_owned()));
            assert!(
                self.reactor.is_empty(),
                "{}: something still lives:\n{}",
                self.script.name,
                self.reactor.sockets()
            );
        }
    }

    // --- what can be seen ---

    fn is_like(&mut self, expected: &Settled) -> bool {
        self.settled(expected.after.clone()) == *expected
    }

    fn settled(&mut self, after: String) -> Settled {
        let socket = self.socket.and_then(|id| self.reactor.socket(id));
        let state =
            socket.filter(|socket| socket.state() != State::Closed).map_or("gone".to_owned(), |socket| shown(&socket));
        let lines = self.told.iter().map(|told| match told {
            Told::Data { bytes, sum } => format!("data {bytes} bytes, sum {sum:x}"),
            Told::Line(line) => line.clone(),
        });
        let peer = format!("drains {}, the peer's sum {:x}", self.drains, self.seen_sum);
        Settled { after, told: lines.collect(), state: format!("{state}; {peer}"), peer: self.seen }
    }
}

fn shown(socket: &Socket<'_>) -> String {
    let peer = if socket.peer_ended() { ", the peer has ended" } else { "" };
    format!("{:?}, {} read{peer}", socket.state(), socket.bytes_read())
}

/// A sum in which the order counts.
fn sum(so_far: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(so_far, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte) + 1))
}

fn line(event: &Event<'_>, script: &Script) -> String {
    match event {
        Event::Lookup(ip) => format!("lookup {ip}"),
        Event::Error(failure) => format!("error: {}", failed(failure)),
        Event::Close(ending) => format!("close: {}", ended(ending, script)),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn failed(failure: &ConnectionError) -> String {
    let causes: Vec<_> = failure.attempts.iter().map(|attempt| attempt.kind).collect();
    format!("{:?} {:?} {causes:?}", failure.kind, failure.os)
}

/// The report without ports. How much a kernel had taken of what it could not deliver depends on
/// the buffers.
fn ended(ending: &Ending, script: &Script) -> String {
    let how = match &ending.kind {
        EndingKind::Failed(failure) => failed(failure),
        other => format!("{other:?}"),
    };
    let peer = ending.peer.map(|peer| peer.ip());
    let bytes = ending.bytes_written + ending.bytes_unsent;
    let whole = ending.bytes_unsent == 0;
    let first = if script.much { "not compared".to_owned() } else { format!("{:?}", ending.first_fin) };
    let written = if ending.is_clean() { format!("{bytes} written, whole {whole}") } else { format!("{bytes} given") };
    format!("{how}, first {first}, peer {peer:?}, {} read, {written}", ending.bytes_read)
}
