//! Peers that play a [`Script`] by themselves while time passes.
//!
//! Invariant: a play does its steps in order, each as soon as it can, and reads what comes as soon
//! as it comes unless it was told to read less. Its kernel acts alone, like any other's.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::Places;
use super::arena::Id;
use super::end::{Owner, Phase};
use super::fault::Fault;
use super::peer::{Peer, PeerListener, PeerSocket};
use super::script::{PACE, Script, Step, count};
use super::time::{FOR_EVER, nanos};
use super::unix::UNIX;
use super::world::{Happening, World};
use crate::net::UnixAddr;
use crate::options::ConnectOptions;
use crate::target::BoundAddr;

/// How much of what comes a play reads.
#[derive(Clone, Copy, Default)]
enum Reading {
    #[default]
    All,
    Nothing,
    /// So many bytes at once, and nothing before `again`.
    Sips {
        bytes: u64,
        every: u64,
        again: u64,
    },
}

/// A script on its way.
#[derive(Default)]
pub(super) struct Playing {
    steps: Vec<Step>,
    /// The next step.
    next: usize,
    end: Option<Id>,
    places: Option<Places>,
    /// It is entered to be played on at this very time.
    queued: bool,
    /// The earliest time at which it is entered to be played on.
    wakes: Option<u64>,
    /// When the present step is over, if it is one that takes time and has begun.
    until: Option<u64>,
    /// How many bytes the present step has written, and when it may write again.
    written: usize,
    writes_at: u64,
    reading: Reading,
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
    /// When it reset by itself.
    reset_at: Option<u64>,
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

    /// Whether nothing can come any more.
    const fn hears_nothing(&self) -> bool {
        self.seen_fin || self.seen_reset || self.left
    }

    /// The step that takes time is over, with so many bytes written.
    const fn finish_step(&mut self) {
        (self.until, self.written, self.writes_at) = (None, 0, 0);
    }
}

impl Peer {
    /// Connects and plays a script.
    ///
    /// # Errors
    /// What connect(2) would say at once: no route, no free port.
    pub fn play(&self, addr: impl Into<BoundAddr>, script: Script) -> io::Result<Play> {
        self.play_with(addr, &ConnectOptions::default(), script)
    }

    /// Connects and plays a script. Only the options of the system's socket and the local address
    /// count.
    ///
    /// # Errors
    /// What connect(2) would say at once: no route, no free port.
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

    /// Plays a script with each later connection for which there is no other.
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
    fn look<T>(&self, look: impl FnOnce(&Playing) -> T) -> T {
        look(&self.world.borrow().plays[self.index as usize])
    }

    /// Everything that was received so far.
    #[must_use]
    pub fn received(&self) -> Vec<u8> {
        self.look(|play| play.received.clone())
    }

    /// The play's own address; `None` before it has a connection, when that is gone, and of a Unix
    /// domain socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        let end = self.look(|play| play.end)?;
        self.world.borrow().ends.get(end).map(|end| end.local).filter(|addr| addr.ip() != UNIX)
    }

    /// What names the play's connection in the network, if it has or had one.
    pub(crate) fn places(&self) -> Option<Places> {
        self.look(|play| play.places)
    }

    /// Whether it is connected by a Unix domain socket.
    pub(crate) fn is_unix(&self) -> bool {
        self.places().is_some_and(|(local, _)| local.ip() == UNIX)
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

    /// What the steps so far have written, but for [floods](Script::flood).
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

    /// When its script reset the connection, since the network began.
    pub(crate) fn reset_at(&self) -> Option<Duration> {
        self.look(|play| play.reset_at.map(Duration::from_nanos))
    }

    /// What happened here, with the time since the network began. For people: the wording is not
    /// guaranteed.
    #[must_use]
    pub fn transcript(&self) -> Vec<(Duration, String)> {
        self.look(|play| play.log.iter().map(|(at, line)| (Duration::from_nanos(*at), line.clone())).collect())
    }
}

impl World {
    pub(super) fn begin_play(&mut self, script: Script) -> u32 {
        self.plays.push(Playing { steps: script.steps, ..Playing::default() });
        (self.plays.len() - 1) as u32
    }

    /// The play has its connection.
    pub(super) fn give_play(&mut self, play: u32, id: Id) {
        self.plays[play as usize].end = Some(id);
        if let Some(end) = self.ends.get_mut(id) {
            end.play = Some(play);
            self.plays[play as usize].places = Some((end.local, end.remote));
        }
        self.rouse_play(play);
    }

    /// Something changed at the play's end.
    pub(super) fn rouse_play(&mut self, play: u32) {
        if !std::mem::replace(&mut self.plays[play as usize].queued, true) {
            self.schedule(self.now, Happening::Play(play));
        }
    }

    /// When the present step is over: so much time after it has begun.
    fn play_until(&mut self, index: u32, time: Duration) -> u64 {
        if let Some(until) = self.plays[index as usize].until {
            return until;
        }
        let until = self.now.saturating_add(nanos(time));
        self.plays[index as usize].until = Some(until);
        if until < FOR_EVER {
            self.schedule(until, Happening::Play(index));
        }
        until
    }

    /// The play goes on at this time, if nothing makes it go on before; then it asks again.
    fn wake_play(&mut self, index: u32, at: u64) {
        let now = self.now;
        let wakes = &mut self.plays[index as usize].wakes;
        if wakes.is_none_or(|earlier| earlier <= now || earlier > at) {
            *wakes = Some(at);
            self.schedule(at, Happening::Play(index));
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
        let (there, finished, died) = (end.incoming.len(), end.peer_finished, end.died);
        let most = self.plays[index as usize].may_read(now).min(there);
        let mut left = there;
        if most > 0 {
            end.urgent_in = None;
            let mut bytes = vec![0; most];
            let read = self.recv(id, &mut bytes).unwrap_or(0);
            left = there - read;
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
            play.log(now, "finds its connection dead".into());
        }
        if let (Reading::Sips { again, .. }, true) = (play.reading, left > 0) {
            self.wake_play(index, again);
        }
    }

    /// Does one step. Answers whether there may be another at once.
    fn play_step(&mut self, index: u32, id: Id) -> bool {
        let now = self.now;
        let play = &mut self.plays[index as usize];
        let Some(step) = play.steps.get(play.next).cloned() else { return false };
        let nothing_comes = play.hears_nothing();
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
                if (play.received.len() as u64) < play.wanted + bytes && !nothing_comes {
                    return false;
                }
                play.wanted += bytes;
                if (play.received.len() as u64) < play.wanted {
                    play.missed.get_or_insert(play.next);
                }
            }
            Step::Gather(bytes) => {
                let end = self.ends.get(id).filter(|end| !end.peer_finished && !end.died);
                if end.is_some_and(|end| ((play.received.len() + end.incoming.len()) as u64) < *bytes) {
                    return false;
                }
                play.wanted = *bytes;
            }
            Step::ReceiveEnd if !nothing_comes => return false,
            Step::ReceiveEnd if !play.seen_fin => drop(play.missed.get_or_insert(play.next)),
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

    /// Writes one byte after the other, each in its time. Answers whether there are more to come.
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
                self.wake_play(index, at);
                return true;
            }
            if play.written == 0 {
                play.log(now, format!("drips {}", count(bytes.len() as u64)));
            }
            play.written += 1;
            play.writes_at = now.saturating_add(every);
            play.sent.push(byte);
            self.rows.mark(Fault::Drips);
            let _ = self.send(id, &[byte], false, true);
        }
    }

    /// Writes as much as there is room for. Answers whether the flood goes on.
    fn flood(&mut self, index: u32, id: Id, bytes: &[u8], time: Duration) -> bool {
        let now = self.now;
        if self.plays[index as usize].until.is_none() {
            self.plays[index as usize].log(now, "begins to flood".to_owned());
        }
        let until = self.play_until(index, time);
        let play = &mut self.plays[index as usize];
        if until <= now || play.seen_reset || play.left {
            play.log(now, format!("has flooded {}", count(play.written as u64)));
            play.finish_step();
            return false;
        }
        let (written, writes_at) = (play.written, play.writes_at);
        if writes_at > now {
            self.wake_play(index, writes_at);
            return true;
        }
        let room = self.ends.get(id).map_or(0, |end| end.tuning.send_bytes.saturating_sub(end.outgoing.len()));
        // One more than there is room for: so the kernel says when there is room again.
        let piece = again_and_again(bytes, written, room + 1);
        if let Ok(sent) = self.send(id, &piece, false, false) {
            self.rows.mark(Fault::Floods);
            let play = &mut self.plays[index as usize];
            (play.written, play.writes_at) = (written + sent, now + PACE);
        }
        true
    }

    /// The call of the kernel that a step makes. One that fails says nothing new: the play sees it
    /// by itself.
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
            Step::Wait(_) | Step::Receive(_) | Step::Gather(_) | Step::ReceiveEnd => {}
            Step::StopReading | Step::ReadOn => {}
            Step::Drip { .. } | Step::Flood { .. } | Step::Sip { .. } => {}
        }
    }
}

/// So many bytes from a place on of the same bytes, again and again.
fn again_and_again(bytes: &[u8], place: usize, count: usize) -> Vec<u8> {
    let mut piece = Vec::with_capacity(count);
    let mut from = place.checked_rem(bytes.len()).unwrap_or(0);
    while piece.len() < count && !bytes.is_empty() {
        let to = bytes.len().min(from + count - piece.len());
        piece.extend_from_slice(&bytes[from..to]);
        from = 0;
    }
    piece
}

impl Playing {
    /// How many bytes it may read now.
    fn may_read(&self, now: u64) -> usize {
        match self.reading {
            Reading::All => usize::MAX,
            Reading::Nothing => 0,
            Reading::Sips { bytes, again, .. } if again <= now => usize::try_from(bytes).unwrap_or(usize::MAX),
            Reading::Sips { .. } => 0,
        }
    }
}
