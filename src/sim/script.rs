//! A peer that plays a script by itself while time passes: connect, send this, wait, finish, then reset.
//!
//! Invariant: a play does its steps in order, each as soon as it can, and reads what comes as soon as it comes unless it
//! was told to stop. Its kernel acts alone, like any other's.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::arena::Id;
use super::end::{Owner, Phase};
use super::peer::{Peer, PeerListener};
use super::time::nanos;
use super::world::{Happening, World};
use crate::options::Connect;

/// What a scripted peer does, step by step.
///
/// ```
/// use std::time::Duration;
/// use finale::sim::Script;
/// let rude = Script::new().send(b"GET").wait(Duration::from_secs(1)).finish().receive(2).reset();
/// assert_eq!(rude.to_string(), "send 3 bytes, wait 1s, finish, receive 2 bytes, reset");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    pub(crate) steps: Vec<Step>,
}

/// One step of a [`Script`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Send(Vec<u8>),
    Urgent,
    Wait(Duration),
    Receive(u64),
    ReceiveEnd,
    StopReading,
    ReadOn,
    Finish,
    Close,
    Reset,
    Vanish,
}

impl Script {
    /// Connects, or accepts, and nothing more: reads what comes, and never ends.
    #[must_use]
    pub const fn new() -> Self {
        Self { steps: Vec::new() }
    }

    /// Bytes that are sent and waited for.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes = |step: &Step| match step {
            Step::Send(bytes) => bytes.len() as u64,
            Step::Receive(bytes) => *bytes,
            Step::Urgent | Step::Wait(_) | Step::ReceiveEnd | Step::StopReading | Step::ReadOn => 0,
            Step::Finish | Step::Close | Step::Reset | Step::Vanish => 0,
        };
        self.steps.iter().map(bytes).sum()
    }

    fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Writes these bytes, all of them: they leave as the window lets them.
    #[must_use]
    pub fn send(self, bytes: &[u8]) -> Self {
        self.then(Step::Send(bytes.to_vec()))
    }

    /// Marks the place behind all that was sent as urgent, see [`PeerSocket::send_urgent`](super::PeerSocket::send_urgent).
    #[must_use]
    pub fn send_urgent(self) -> Self {
        self.then(Step::Urgent)
    }

    /// Lets this much time pass.
    #[must_use]
    pub fn wait(self, time: Duration) -> Self {
        self.then(Step::Wait(time))
    }

    /// Waits until so many bytes more have been received, or nothing can come any more.
    #[must_use]
    pub fn receive(self, bytes: u64) -> Self {
        self.then(Step::Receive(bytes))
    }

    /// Waits until the other end has finished, or is gone.
    #[must_use]
    pub fn receive_end(self) -> Self {
        self.then(Step::ReceiveEnd)
    }

    /// From here on reads nothing: the window closes when the receive buffer is full.
    #[must_use]
    pub fn stop_reading(self) -> Self {
        self.then(Step::StopReading)
    }

    /// Reads again.
    #[must_use]
    pub fn read_on(self) -> Self {
        self.then(Step::ReadOn)
    }

    /// Sends FIN behind everything sent, and goes on reading.
    #[must_use]
    pub fn finish(self) -> Self {
        self.then(Step::Finish)
    }

    /// close(2): FIN if everything that came was read, RST if not, and RST to what comes later.
    #[must_use]
    pub fn close(self) -> Self {
        self.then(Step::Close)
    }

    /// RST.
    #[must_use]
    pub fn reset(self) -> Self {
        self.then(Step::Reset)
    }

    /// The machine disappears, with everything that is in flight from and to it: nobody is told.
    #[must_use]
    pub fn vanish(self) -> Self {
        self.then(Step::Vanish)
    }
}

/// A number of bytes, in words.
pub(crate) fn count(bytes: u64) -> String {
    if bytes == 1 { "1 byte".to_owned() } else { format!("{bytes} bytes") }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Send(bytes) => write!(f, "send {}", count(bytes.len() as u64)),
            Self::Urgent => f.write_str("send an urgent byte"),
            Self::Wait(time) => write!(f, "wait {time:?}"),
            Self::Receive(bytes) => write!(f, "receive {}", count(*bytes)),
            Self::ReceiveEnd => f.write_str("receive the end"),
            Self::StopReading => f.write_str("stop reading"),
            Self::ReadOn => f.write_str("read on"),
            Self::Finish => f.write_str("finish"),
            Self::Close => f.write_str("close"),
            Self::Reset => f.write_str("reset"),
            Self::Vanish => f.write_str("vanish"),
        }
    }
}

impl std::fmt::Display for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, step) in self.steps.iter().enumerate() {
            write!(f, "{}{step}", if number > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// A script on its way.
#[derive(Default)]
pub(super) struct Playing {
    steps: Vec<Step>,
    /// The next step.
    next: usize,
    end: Option<Id>,
    /// It is entered to be played on at this very time.
    queued: bool,
    waits_until: Option<u64>,
    reads_not: bool,
    received: Vec<u8>,
    sent: Vec<u8>,
    /// How many bytes the steps so far have asked for.
    wanted: u64,
    /// The first step that was waited for in vain.
    missed: Option<usize>,
    seen_fin: bool,
    seen_reset: bool,
    /// Closed or reset by itself.
    left: bool,
    log: Vec<(u64, String)>,
    /// How many reads the last line of the log stands for, and how many bytes.
    reads: (u32, usize),
}

impl Playing {
    /// Reads that follow each other are one line: a small window makes thousands.
    fn log_read(&mut self, now: u64, bytes: usize) {
        let (pieces, sum) = self.reads;
        self.reads = (pieces + 1, sum + bytes);
        let sum = self.reads.1;
        match self.log.last_mut().filter(|_| pieces > 0) {
            None => self.log.push((now, format!("receives {}", count(sum as u64)))),
            Some((_, line)) => *line = format!("receives {} in {} pieces", count(sum as u64), pieces + 1),
        }
    }

    fn log(&mut self, now: u64, line: String) {
        self.reads = (0, 0);
        self.log.push((now, line));
    }
}

impl Peer {
    /// Connects and plays a script.
    ///
    /// # Errors
    /// What connect(2) would say at once: no route, no free port.
    pub fn play(&self, addr: SocketAddr, script: Script) -> io::Result<Play> {
        self.play_with(addr, &Connect::default(), script)
    }

    /// Connects and plays a script. Only the options of the system's socket and the local address count.
    ///
    /// # Errors
    /// What connect(2) would say at once: no route, no free port.
    pub fn play_with(&self, addr: SocketAddr, options: &Connect, script: Script) -> io::Result<Play> {
        let socket = self.connect_with(addr, options)?;
        let play = self.world.borrow_mut().begin_play(script);
        self.world.borrow_mut().give_play(play, socket.id);
        Ok(Play { world: Rc::clone(&self.world), index: play })
    }
}

impl PeerListener {
    /// Plays a script with the next connection that comes and has none yet.
    #[must_use]
    pub fn play(&self, script: Script) -> Play {
        let mut world = self.world.borrow_mut();
        let play = world.begin_play(script);
        match world.accept(self.id, Owner::Script) {
            Ok(id) => world.give_play(play, id),
            Err(_nobody) => {
                if let Some(listener) = world.listeners.get_mut(self.id) {
                    listener.plays.push_back(play);
                }
            }
        }
        drop(world);
        Play { world: Rc::clone(&self.world), index: play }
    }
}

/// A script that is being played.
pub struct Play {
    world: Rc<RefCell<World>>,
    index: u32,
}

impl std::fmt::Debug for Play {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Play").field("received", &self.received().len()).field("is_over", &self.is_over()).finish()
    }
}

impl Play {
    fn look<T>(&self, look: impl FnOnce(&Playing) -> T) -> T {
        look(&self.world.borrow().plays[self.index as usize])
    }

    /// Everything that was received so far.
    #[must_use]
    pub fn received(&self) -> Vec<u8> {
        self.look(|play| play.received.clone())
    }

    /// The play's own address; `None` before it has a connection, and when that is gone.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        let end = self.look(|play| play.end)?;
        self.world.borrow().ends.get(end).map(|end| end.local)
    }

    /// Whether every step was done.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.look(|play| play.next == play.steps.len())
    }

    /// The first step that was not done, or waited for in vain: the connection was over before.
    #[must_use]
    pub fn undone(&self) -> Option<String> {
        let step = |play: &Playing| play.missed.or((play.next < play.steps.len()).then_some(play.next));
        self.look(|play| step(play).map(|place| play.steps[place].to_string()))
    }

    /// What the steps so far have written.
    #[must_use]
    pub fn sent(&self) -> Vec<u8> {
        self.look(|play| play.sent.clone())
    }

    /// Whether the other end's FIN was read, behind its last byte.
    #[must_use]
    pub fn has_end(&self) -> bool {
        self.look(|play| play.seen_fin)
    }

    /// Whether the connection was reset, refused, or timed out.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.look(|play| play.seen_reset)
    }

    /// What happened here, with the time since the network began. For people: the wording is not guaranteed.
    #[must_use]
    pub fn story(&self) -> Vec<(Duration, String)> {
        self.look(|play| play.log.iter().map(|(at, line)| (Duration::from_nanos(*at), line.clone())).collect())
    }
}

impl World {
    fn begin_play(&mut self, script: Script) -> u32 {
        self.plays.push(Playing { steps: script.steps, ..Playing::default() });
        (self.plays.len() - 1) as u32
    }

    /// The play has its connection.
    pub(super) fn give_play(&mut self, play: u32, id: Id) {
        self.plays[play as usize].end = Some(id);
        if let Some(end) = self.ends.get_mut(id) {
            end.play = Some(play);
        }
        self.rouse_play(play);
    }

    /// Something changed at the play's end.
    pub(super) fn rouse_play(&mut self, play: u32) {
        if !std::mem::replace(&mut self.plays[play as usize].queued, true) {
            self.schedule(self.now, Happening::Play(play));
        }
    }

    pub(super) fn play_on(&mut self, index: u32) {
        self.plays[index as usize].queued = false;
        let Some(id) = self.plays[index as usize].end else { return };
        if self.ends.get(id).is_some_and(|end| end.phase == Phase::SynSent) {
            return;
        }
        self.play_reads(index, id);
        while self.play_step(index, id) {
            self.play_reads(index, id);
        }
    }

    /// Looks at what has come.
    fn play_reads(&mut self, index: u32, id: Id) {
        let now = self.now;
        let Some(end) = self.ends.get_mut(id) else { return };
        let play = &mut self.plays[index as usize];
        let (there, finished, died) = (end.incoming.len(), end.peer_finished, end.died);
        if !play.reads_not && there > 0 {
            end.urgent_in = None;
            let mut bytes = vec![0; there];
            let read = self.recv(id, &mut bytes).unwrap_or(0);
            let play = &mut self.plays[index as usize];
            play.received.extend_from_slice(&bytes[..read]);
            play.log_read(now, read);
        }
        let play = &mut self.plays[index as usize];
        if finished && !play.reads_not && !std::mem::replace(&mut play.seen_fin, true) {
            play.log(now, "receives FIN".into());
        }
        if died && !std::mem::replace(&mut play.seen_reset, true) {
            play.log(now, "finds its connection dead".into());
        }
    }

    /// Does one step. Answers whether there may be another at once.
    fn play_step(&mut self, index: u32, id: Id) -> bool {
        let now = self.now;
        let play = &mut self.plays[index as usize];
        let Some(step) = play.steps.get(play.next).cloned() else { return false };
        let nothing_comes = play.seen_fin || play.seen_reset || play.left;
        match &step {
            Step::Wait(time) => match play.waits_until {
                None => {
                    let until = now.saturating_add(nanos(*time));
                    play.waits_until = Some(until);
                    self.schedule(until, Happening::Play(index));
                    return false;
                }
                Some(until) if until > now => return false,
                Some(_) => play.waits_until = None,
            },
            Step::Receive(bytes) => {
                if (play.received.len() as u64) < play.wanted + bytes && !nothing_comes {
                    return false;
                }
                play.wanted += bytes;
                if (play.received.len() as u64) < play.wanted {
                    play.missed.get_or_insert(play.next);
                }
            }
            Step::ReceiveEnd if !nothing_comes => return false,
            Step::ReceiveEnd if !play.seen_fin => drop(play.missed.get_or_insert(play.next)),
            Step::ReceiveEnd => {}
            Step::StopReading => play.reads_not = true,
            Step::ReadOn => play.reads_not = false,
            Step::Close | Step::Reset => play.left = true,
            Step::Send(_) | Step::Urgent | Step::Finish | Step::Vanish => {}
        }
        play.next += 1;
        if let Step::Send(bytes) = &step {
            play.sent.extend_from_slice(bytes);
        }
        if !matches!(step, Step::Wait(_) | Step::Receive(_) | Step::ReceiveEnd) {
            play.log(now, step.to_string());
        }
        self.play_call(id, step);
        true
    }

    /// The call of the kernel that a step makes. One that fails says nothing new: the play sees it by itself.
    fn play_call(&mut self, id: Id, step: Step) {
        match step {
            Step::Send(bytes) => drop(self.send(id, &bytes, false, true)),
            Step::Urgent => self.send_urgent(id),
            Step::Finish => drop(self.finish(id)),
            Step::Close => self.close(id),
            Step::Reset => self.reset(id),
            Step::Vanish => {
                if let Some(end) = self.ends.get(id) {
                    let machine = end.machine;
                    self.vanished.insert(machine);
                }
            }
            Step::Wait(_) | Step::Receive(_) | Step::ReceiveEnd | Step::StopReading | Step::ReadOn => {}
        }
    }
}
