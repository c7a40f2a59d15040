//! Peers that play a [`Script`] by themselves while time passes.
//!
//! Invariant: a play does its steps in order, each as soon as it can, and reads bytes as soon as
//! they arrive, unless a step limits that. Its kernel acts as any other.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::Endpoints;
use super::arena::Id;
use super::end::{Owner, Phase};
use super::fault::Fault;
use super::peer::{Peer, PeerListener, PeerSocket};
use super::script::{PACE, Script, Step};
use super::time::nanos;
use super::unix::UNIX;
use super::world::{Happening, World};
use crate::event::Bytes;
use crate::net::UnixAddr;
use crate::options::ConnectOptions;
use crate::target::BoundAddr;

/// How much a play reads.
#[derive(Clone, Copy, Default)]
enum Reading {
    #[default]
    All,
    Nothing,
    /// At most this many bytes at once, the next ones not before `again`.
    Sips {
        bytes: u64,
        every: u64,
        again: u64,
    },
}

/// The state of a script that is played.
#[derive(Default)]
pub(super) struct Playing {
    steps: Vec<Step>,
    /// The next step.
    next: usize,
    end: Option<Id>,
    endpoints: Option<Endpoints>,
    /// It is scheduled for the present time.
    queued: bool,
    /// The earliest time for which it is scheduled.
    wakes: Option<u64>,
    /// When the present step ends, if it takes time and has begun.
    until: Option<u64>,
    /// How many bytes the present step has written, and when it may write again.
    written: usize,
    writes_at: u64,
    reading: Reading,
    received: Vec<u8>,
    sent: Vec<u8>,
    /// How many bytes the steps so far have waited for.
    awaited: u64,
    /// The first step that the end of the connection cut short.
    cut_short: Option<usize>,
    seen_fin: bool,
    seen_reset: bool,
    /// It has closed or reset the connection.
    left: bool,
    /// When it has reset the connection.
    reset_at: Option<u64>,
    log: Vec<(u64, String)>,
    /// The reads that the last line of the log stands for, and their bytes.
    reads: (u32, usize),
}

impl Playing {
    /// Consecutive reads are one line: a small window makes thousands of them.
    fn log_read(&mut self, now: u64, bytes: usize) {
        let (pieces, sum) = self.reads;
        self.reads = (pieces + 1, sum + bytes);
        let sum = self.reads.1;
        match self.log.last_mut().filter(|_| pieces > 0) {
            None => self.log.push((now, format!("receives {}", Bytes(sum as u64)))),
            Some((_, line)) => *line = format!("receives {} in {} pieces", Bytes(sum as u64), pieces + 1),
        }
    }

    fn log(&mut self, now: u64, line: String) {
        self.reads = (0, 0);
        self.log.push((now, line));
    }

    /// Whether no byte can arrive any more.
    const fn receives_no_more(&self) -> bool {
        self.seen_fin || self.seen_reset || self.left
    }

    /// Ends a step that takes time.
    const fn finish_step(&mut self) {
        (self.until, self.written, self.writes_at) = (None, 0, 0);
    }
}

impl Peer {
    /// Connects and plays a script.
    ///
    /// # Errors
    /// Those of connect(2), such as no route or no free port.
    pub fn play(&self, addr: impl Into<BoundAddr>, script: Script) -> io::Result<Play> {
        self.play_with(addr, &ConnectOptions::default(), script)
    }

    /// Connects and plays a script. Of the options, those of the operating system's socket and the
    /// local address apply.
    ///
    /// # Errors
    /// Those of connect(2), such as no route or no free port.
    pub fn play_with(&self, addr: impl Into<BoundAddr>, options: &ConnectOptions, script: Script) -> io::Result<Play> {
        Ok(self.begin(&self.connect_with(addr, options)?, script))
    }

    /// Connects to a Unix domain socket of this machine and plays a script.
    ///
    /// # Errors
    /// As for [`connect_unix`](Self::connect_unix).
    pub fn play_unix(&self, addr: &UnixAddr, script: Script) -> io::Result<Play> {
        Ok(self.begin(&self.connect_unix(addr)?, script))
    }

    fn begin(&self, socket: &PeerSocket, script: Script) -> Play {
        let mut world = self.world.borrow_mut();
        let index = world.begin_play(script);
        world.give_play(index, socket.id);
        drop(world);
        Play { world: Rc::clone(&self.world), index }
    }
}

impl PeerListener {
    /// Plays a script with the next connection without one.
    #[must_use]
    pub fn play(&self, script: Script) -> Play {
        let mut world = self.world.borrow_mut();
        let play = world.begin_play(script);
        match world.accept(self.id, Owner::Script) {
            Ok(id) => world.give_play(play, id),
            Err(_no_connection) => {
                if let Some(listener) = world.listeners.get_mut(self.id) {
                    listener.plays.push_back(play);
                }
            }
        }
        drop(world);
        Play { world: Rc::clone(&self.world), index: play }
    }

    /// Plays a script with each later connection that no other [`play`](Self::play) takes.
    pub fn play_each(&self, script: Script) {
        if let Some(listener) = self.world.borrow_mut().listeners.get_mut(self.id) {
            listener.each = Some(script);
        }
    }
}

/// A script that is being played.
///
/// ```
/// use finale::sim::{Network, Script};
/// use finale::{Event, ListenOptions, Reactor};
///
/// let network = Network::new(1);
/// let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
/// let listener = reactor.listen("10.0.0.1:80", ListenOptions::default())?;
/// let script = Script::new().send(b"ping").finish().receive(4).receive_end();
/// let play = network.peer([10, 0, 0, 2].into()).play(listener.addr, script).expect("a route");
///
/// while let Some((mut socket, event)) = reactor.next()? {
///     match event {
///         Event::End => {
///             socket.write(b"pong")?;
///             socket.end();
///         }
///         Event::Close(_) => reactor.close_listener(listener.id)?,
///         _ => {}
///     }
/// }
/// assert_eq!(play.received(), b"pong");
/// assert!(play.is_over() && play.has_end(), "{:?}", play.undone());
/// # Ok::<(), finale::Error>(())
/// ```
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
    fn with<T>(&self, read: impl FnOnce(&Playing) -> T) -> T {
        read(&self.world.borrow().plays[self.index as usize])
    }

    /// All bytes that it has received.
    #[must_use]
    pub fn received(&self) -> Vec<u8> {
        self.with(|play| play.received.clone())
    }

    /// The play's own address. `None` before it has a connection, after the connection was removed,
    /// and for a Unix domain socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        let end = self.with(|play| play.end)?;
        self.world.borrow().ends.get(end).map(|end| end.local).filter(|addr| addr.ip() != UNIX)
    }

    /// The addresses of the connection, if it has or had one.
    pub(crate) fn endpoints(&self) -> Option<Endpoints> {
        self.with(|play| play.endpoints)
    }

    /// Whether it is connected by a Unix domain socket.
    pub(crate) fn is_unix(&self) -> bool {
        self.endpoints().is_some_and(|(local, _)| local.ip() == UNIX)
    }

    /// Whether every step was done.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.with(|play| play.next == play.steps.len())
    }

    /// The first step that was not done, or that ended without result because the connection was
    /// over.
    #[must_use]
    pub fn undone(&self) -> Option<String> {
        let step = |play: &Playing| play.cut_short.or((play.next < play.steps.len()).then_some(play.next));
        self.with(|play| step(play).map(|step| play.steps[step].to_string()))
    }

    /// The bytes that the steps so far have written, without those of [floods](Script::flood).
    #[must_use]
    pub fn sent(&self) -> Vec<u8> {
        self.with(|play| play.sent.clone())
    }

    /// Whether it read the other end's FIN, after its last byte.
    #[must_use]
    pub fn has_end(&self) -> bool {
        self.with(|play| play.seen_fin)
    }

    /// Whether the connection was reset, refused, or timed out.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.with(|play| play.seen_reset)
    }

    /// When its script reset the connection, since the network began.
    pub(crate) fn reset_at(&self) -> Option<Duration> {
        self.with(|play| play.reset_at.map(Duration::from_nanos))
    }

    /// What happened at this end, with the time since the network began. For people: the wording is
    /// not guaranteed.
    #[must_use]
    pub fn transcript(&self) -> Vec<(Duration, String)> {
        self.with(|play| play.log.iter().map(|(at, line)| (Duration::from_nanos(*at), line.clone())).collect())
    }
}

impl World {
    pub(super) fn begin_play(&mut self, script: Script) -> u32 {
        self.plays.push(Playing { steps: script.steps, ..Playing::default() });
        (self.plays.len() - 1) as u32
    }

    /// Gives the play its connection.
    pub(super) fn give_play(&mut self, play: u32, id: Id) {
        self.plays[play as usize].end = Some(id);
        if let Some(end) = self.ends.get_mut(id) {
            end.play = Some(play);
            self.plays[play as usize].endpoints = Some((end.local, end.remote));
        }
        self.schedule_play(play);
    }

    /// Schedules the play after a change of its end.
    pub(super) fn schedule_play(&mut self, play: u32) {
        if !std::mem::replace(&mut self.plays[play as usize].queued, true) {
            self.schedule(self.now, Happening::Play(play));
        }
    }

    /// When the present step ends: this long after it has begun.
    fn play_until(&mut self, index: u32, time: Duration) -> u64 {
        if let Some(until) = self.plays[index as usize].until {
            return until;
        }
        let until = self.now + nanos(time);
        self.plays[index as usize].until = Some(until);
        self.schedule(until, Happening::Play(index));
        until
    }

    /// Schedules the play for this time. If it continues earlier, it schedules itself again.
    fn schedule_play_at(&mut self, index: u32, at: u64) {
        let now = self.now;
        let wakes = &mut self.plays[index as usize].wakes;
        if wakes.is_none_or(|earlier| earlier <= now || earlier > at) {
            *wakes = Some(at);
            self.schedule(at, Happening::Play(index));
        }
    }

    pub(super) fn run_play(&mut self, index: u32) {
        self.plays[index as usize].queued = false;
        let Some(id) = self.plays[index as usize].end else { return };
        if self.ends.get(id).is_some_and(|end| end.phase == Phase::SynSent) {
            return;
        }
        self.play_read(index, id);
        while self.play_step(index, id) {
            self.play_read(index, id);
        }
    }

    /// Reads what has arrived.
    fn play_read(&mut self, index: u32, id: Id) {
        let now = self.now;
        let Some(end) = self.ends.get_mut(id) else { return };
        let (unread, finished, died) = (end.incoming.len(), end.peer_finished, end.died);
        let most = self.plays[index as usize].readable_now(now).min(unread);
        let mut left = unread;
        if most > 0 {
            end.urgent_in = None;
            let mut bytes = vec![0; most];
            let read = self.recv(id, &mut bytes).unwrap_or(0);
            left = unread - read;
            let play = &mut self.plays[index as usize];
            play.received.extend_from_slice(&bytes[..read]);
            play.log_read(now, read);
            if let Reading::Sips { every, again, .. } = &mut play.reading {
                *again = now.saturating_add(*every);
            }
        }
        let play = &mut self.plays[index as usize];
        let reads = !matches!(play.reading, Reading::Nothing);
        if finished && reads && left == 0 && !std::mem::replace(&mut play.seen_fin, true) {
            play.log(now, "receives FIN".into());
        }
        if died && !std::mem::replace(&mut play.seen_reset, true) {
            play.log(now, "finds its connection broken".into());
        }
        if let (Reading::Sips { bytes: 1.., again, .. }, true) = (play.reading, left > 0) {
            self.schedule_play_at(index, again);
        }
    }

    /// Does one step. Returns whether there may be another one at once.
    fn play_step(&mut self, index: u32, id: Id) -> bool {
        let now = self.now;
        let play = &mut self.plays[index as usize];
        let Some(step) = play.steps.get(play.next).cloned() else { return false };
        let receives_no_more = play.receives_no_more();
        match &step {
            Step::Wait(time) => {
                if self.play_until(index, *time) > now {
                    return false;
                }
                self.plays[index as usize].finish_step();
            }
            Step::Drip { bytes, every } => {
                if self.drip(index, id, bytes, nanos(*every)) {
                    return false;
                }
            }
            Step::Flood { bytes, time } => {
                if self.flood(index, id, bytes, *time) {
                    return false;
                }
            }
            Step::Receive(bytes) => {
                if (play.received.len() as u64) < play.awaited.saturating_add(*bytes) && !receives_no_more {
                    return false;
                }
                play.awaited = play.awaited.saturating_add(*bytes);
                if (play.received.len() as u64) < play.awaited {
                    play.cut_short.get_or_insert(play.next);
                }
            }
            Step::AwaitUnread(bytes) => {
                let end = self.ends.get(id).filter(|end| !end.peer_finished && !end.died);
                if end.is_some_and(|end| ((play.received.len() + end.incoming.len()) as u64) < *bytes) {
                    return false;
                }
                play.awaited = *bytes;
            }
            Step::ReceiveEnd if !receives_no_more => return false,
            Step::ReceiveEnd if !play.seen_fin => drop(play.cut_short.get_or_insert(play.next)),
            Step::ReceiveEnd => {}
            Step::StopReading => play.reading = Reading::Nothing,
            Step::Sip { bytes, every } => {
                play.reading = Reading::Sips { bytes: *bytes, every: nanos(*every), again: now };
            }
            Step::ReadOn => play.reading = Reading::All,
            Step::Close => play.left = true,
            Step::Reset => (play.left, play.reset_at) = (true, play.reset_at.or(Some(now))),
            Step::Send(_) | Step::Urgent | Step::Finish | Step::Vanish => {}
        }
        let play = &mut self.plays[index as usize];
        play.next += 1;
        if let Step::Send(bytes) = &step {
            play.sent.extend_from_slice(bytes);
        }
        if !step.takes_time() {
            play.log(now, step.to_string());
        }
        self.play_call(id, step);
        true
    }

    /// Writes one byte at a time, each when it is due. Returns whether more will follow.
    fn drip(&mut self, index: u32, id: Id, bytes: &[u8], every: u64) -> bool {
        let now = self.now;
        loop {
            let play = &mut self.plays[index as usize];
            let byte = bytes.get(play.written).copied().filter(|_| !play.seen_reset && !play.left);
            let Some(byte) = byte else {
                play.finish_step();
                return false;
            };
            if play.writes_at > now {
                let at = play.writes_at;
                self.schedule_play_at(index, at);
                return true;
            }
            if play.written == 0 {
                play.log(now, format!("drips {}", Bytes(bytes.len() as u64)));
            }
            play.written += 1;
            play.writes_at = now.saturating_add(every);
            play.sent.push(byte);
            self.rows.mark(Fault::Drips);
            let _ = self.send(id, &[byte], false, true);
        }
    }

    /// Writes as much as there is room for. Returns whether the flood continues.
    fn flood(&mut self, index: u32, id: Id, bytes: &[u8], time: Duration) -> bool {
        let now = self.now;
        if self.plays[index as usize].until.is_none() {
            self.plays[index as usize].log(now, "begins to flood".to_owned());
        }
        let until = self.play_until(index, time);
        let play = &mut self.plays[index as usize];
        if until <= now || play.seen_reset || play.left {
            play.log(now, format!("has flooded {}", Bytes(play.written as u64)));
            play.finish_step();
            return false;
        }
        let (written, writes_at) = (play.written, play.writes_at);
        if writes_at > now {
            self.schedule_play_at(index, writes_at);
            return true;
        }
        let room = self.ends.get(id).map_or(0, |end| end.tuning.send_bytes.saturating_sub(end.outgoing.len()));
        // One byte more than there is room for, so that the kernel reports when there is room
        // again.
        let piece = repeated(bytes, written, room + 1);
        if let Ok(sent) = self.send(id, &piece, false, false) {
            self.rows.mark(Fault::Floods);
            let play = &mut self.plays[index as usize];
            (play.written, play.writes_at) = (written + sent, now + PACE);
        }
        true
    }

    /// Makes the system call of a step. The play finds out by itself whether it has failed.
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
            Step::Wait(_) | Step::Receive(_) | Step::AwaitUnread(_) | Step::ReceiveEnd => {}
            Step::StopReading | Step::ReadOn => {}
            Step::Drip { .. } | Step::Flood { .. } | Step::Sip { .. } => {}
        }
    }
}

/// This many bytes of a repeated pattern, from an offset.
fn repeated(bytes: &[u8], offset: usize, count: usize) -> Vec<u8> {
    let mut piece = Vec::with_capacity(count);
    let mut from = offset.checked_rem(bytes.len()).unwrap_or(0);
    while piece.len() < count && !bytes.is_empty() {
        let to = bytes.len().min(from + count - piece.len());
        piece.extend_from_slice(&bytes[from..to]);
        from = 0;
    }
    piece
}

impl Playing {
    /// How many bytes it may read now.
    fn readable_now(&self, now: u64) -> usize {
        match self.reading {
            Reading::All => usize::MAX,
            Reading::Nothing => 0,
            Reading::Sips { bytes, again, .. } if again <= now => usize::try_from(bytes).unwrap_or(usize::MAX),
            Reading::Sips { .. } => 0,
        }
    }
}
