//! The whole network as one value: the clock, the agenda of what will happen, the hosts, and the way of a packet.
//!
//! Invariant: time moves only here, from one entry of the agenda to the next, and never past one; what is due has
//! happened before any call looks. An idle connection has no entry, so it costs nothing but memory.
//!
//! Knows no call of the trait `Net` (see `host`), and no rule of TCP (see `tcp`).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicBool};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::Reach;
use super::arena::{Arena, Id};
use super::end::{End, Owner, Phase};
use super::faults::Faults;
use super::rng::Rng;
use super::row::{Row, Rows};
use super::script::Playing;
use super::truth::Truth;
use crate::error::LookupCause;
use crate::lifecycle::Pairs;
use crate::net::{LookupAnswer, Readiness, Token};

/// Pieces of news handed out by one poll: as many as the real net's, so that the same batching is seen.
const BATCH: usize = 1024;

/// Entries of the agenda that one poll lets pass without news before it calls that for ever: years of window probes to
/// a peer that never reads, in well under a second.
const PATIENCE: usize = 1_000_000;

/// Idle polls in a row that no program needs: it would go on for ever, and nothing here could end it.
const SPIN: u32 = 100_000;

/// How late a late edge may be, in nanoseconds: long enough for anything to happen meanwhile.
const LATE_EDGE: u64 = 20_000_000;

/// A later time than this is for ever: 500 years, so that sums of two times do not wrap.
const FOR_EVER: u64 = 500 * 365 * 86_400 * 1_000_000_000;

/// Nanoseconds, cut at [`FOR_EVER`].
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(FOR_EVER).min(FOR_EVER)
}

/// A packet. What a router sees of it: where it comes from and goes to.
pub(super) struct Packet {
    pub(super) from: Id,
    /// `None` for a SYN, whose receiver is found by its address.
    pub(super) to: Option<Id>,
    pub(super) source: SocketAddr,
    pub(super) target: SocketAddr,
    pub(super) what: What,
}

pub(super) enum What {
    Syn {
        machine: IpAddr,
        window_end: u64,
    },
    SynAck {
        window_end: u64,
    },
    Segment(Segment),
    Reset,
    /// ICMP on behalf of the target.
    Unreachable(Errno),
}

#[derive(Default)]
pub(super) struct Segment {
    pub(super) position: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) fin: bool,
    pub(super) acked: u64,
    pub(super) window_end: u64,
    pub(super) urgent: Option<u64>,
    /// A probe: wants an acknowledgement although it carries nothing new.
    pub(super) probe: bool,
}

pub(super) enum Happening {
    Packet(Packet),
    Timer(Id),
    News {
        host: u32,
        source: Source,
    },
    Lookup {
        host: u32,
        token: Token,
        answer: LookupAnswer,
    },
    /// A script goes on.
    Play(u32),
}

/// What a piece of news is about.
pub(super) enum Source {
    End(Id),
    Listener(u32),
    /// The second half of a split edge.
    Rest(Id, Token, Readiness),
    /// News of a connection that is closed. Not if its token is in use again, by another attempt to connect: no kernel
    /// brings that, since closing takes a descriptor out of epoll.
    Stale(Token, Readiness),
}

struct Entry {
    at: u64,
    order: u64,
    happening: Happening,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        // Reversed: the heap's greatest is the earliest, and of two at one time the one that was entered first.
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

/// A listening socket.
pub(super) struct Listener {
    pub(super) owner: Owner,
    pub(super) machine: IpAddr,
    pub(super) addr: SocketAddr,
    pub(super) options: crate::options::Listen,
    pub(super) queue: VecDeque<Id>,
    /// News of it waits in its host's queue, or is on the way there.
    pub(super) queued: bool,
    /// Handshakes under way; they hold a place in the queue already.
    pub(super) pending: usize,
    /// Scripts that wait for a connection.
    pub(super) plays: VecDeque<u32>,
}

/// A program on a machine: a reactor's share of the network.
pub(super) struct Program {
    pub(super) machine: IpAddr,
    pub(super) slots: Vec<Option<Id>>,
    pub(super) listeners: Vec<Option<Id>>,
    pub(super) ready: VecDeque<Source>,
    pub(super) woken: Arc<AtomicBool>,
    pub(super) answers: VecDeque<(Token, LookupAnswer)>,
    pub(super) calls: u64,
    /// Polls in a row, at one and the same time, that brought nothing and between which nothing was done.
    pub(super) idle_polls: u32,
    idle_at: u64,
    pub(super) most_idle_polls: u32,
    pub(super) truths: Vec<Truth>,
    /// Until when it wants to sleep; others must not sleep past it.
    sleeps_until: Option<u64>,
}

/// What the resolver says about a name.
pub(super) enum Name {
    Known(Vec<IpAddr>),
    Fails(LookupCause),
    Hangs,
}

pub(super) struct World {
    base: Instant,
    pub(super) now: u64,
    order: u64,
    agenda: BinaryHeap<Entry>,
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    /// One way, in nanoseconds.
    pub(super) latency: u64,
    pub(super) send_bytes: usize,
    pub(super) receive_bytes: usize,
    pub(super) ports: RangeInclusive<u16>,
    pub(super) next_port: BTreeMap<IpAddr, u16>,
    pub(super) ends: Arena<End>,
    pub(super) listeners: Arena<Listener>,
    /// By machine, local and remote address: loopback addresses exist on every machine.
    pub(super) flows: BTreeMap<(IpAddr, SocketAddr, SocketAddr), Id>,
    pub(super) listening: BTreeMap<(IpAddr, u16), Vec<Id>>,
    pub(super) reach: BTreeMap<IpAddr, Reach>,
    pub(super) vanished: BTreeSet<IpAddr>,
    pub(super) names: BTreeMap<String, Name>,
    pub(super) programs: Vec<Program>,
    pub(super) plays: Vec<Playing>,
    pub(super) rows: Rows,
    pub(super) pairs: Pairs,
    /// RSTs that were sent, or would have been if there had been a peer.
    pub(super) resets: u64,
    pub(super) happenings: u64,
    sleepers: BTreeSet<(u64, u32)>,
    /// The program that polls, and whether another has got news since.
    polling: u32,
    others_roused: bool,
    pub(super) story: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            base: crate::net::os::clock_base(),
            now: 0,
            order: 0,
            agenda: BinaryHeap::new(),
            rng: Rng::new(seed),
            faults: Faults::none(),
            latency: 1_000_000,
            send_bytes: 256 * 1024,
            receive_bytes: 128 * 1024,
            ports: 32_768..=60_999,
            next_port: BTreeMap::new(),
            ends: Arena::new(),
            listeners: Arena::new(),
            flows: BTreeMap::new(),
            listening: BTreeMap::new(),
            reach: BTreeMap::new(),
            vanished: BTreeSet::new(),
            names: BTreeMap::new(),
            programs: Vec::new(),
            plays: Vec::new(),
            rows: Rows::default(),
            pairs: Pairs::default(),
            resets: 0,
            happenings: 0,
            sleepers: BTreeSet::new(),
            polling: 0,
            others_roused: false,
            story: None,
        }
    }

    pub(super) fn add_program(&mut self, machine: IpAddr) -> u32 {
        let index = u32::try_from(self.programs.len()).expect("a simulated network has fewer than 2^32 hosts");
        self.programs.push(Program {
            machine,
            slots: Vec::new(),
            listeners: Vec::new(),
            ready: VecDeque::new(),
            woken: Arc::new(AtomicBool::new(false)),
            answers: VecDeque::new(),
            calls: 0,
            idle_polls: 0,
            idle_at: 0,
            most_idle_polls: 0,
            truths: Vec::new(),
            sleeps_until: None,
        });
        index
    }

    pub(super) fn program(&mut self, host: u32) -> &mut Program {
        &mut self.programs[host as usize]
    }

    pub(super) fn instant(&self, at: u64) -> Instant {
        self.base + Duration::from_nanos(at)
    }

    // --- the agenda ---------------------------------------------------------------------------------------------

    pub(super) fn schedule(&mut self, at: u64, happening: Happening) {
        self.order += 1;
        self.agenda.push(Entry { at: at.max(self.now), order: self.order, happening });
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        self.agenda.peek().map(|entry| entry.at)
    }

    /// Lets everything happen that is due.
    pub(super) fn run_due(&mut self) {
        while self.agenda.peek().is_some_and(|entry| entry.at <= self.now) {
            let Some(entry) = self.agenda.pop() else { return };
            self.happenings += 1;
            match entry.happening {
                Happening::Packet(packet) => self.arrive(packet),
                Happening::Timer(id) => self.timer(id, entry.at),
                Happening::News { host, source } => self.deliver(host, source),
                Happening::Play(play) => self.play_on(play),
                Happening::Lookup { host, token, answer } => {
                    self.program(host).answers.push_back((token, answer));
                    self.wake(host);
                }
            }
        }
    }

    pub(super) fn advance(&mut self, until: u64) {
        self.run_due();
        while let Some(at) = self.next_at().filter(|at| *at <= until) {
            self.now = at;
            self.run_due();
        }
        self.now = self.now.max(until);
    }

    // --- news ---------------------------------------------------------------------------------------------------

    /// Something changed at this end: an edge, if it is registered.
    pub(super) fn edge(&mut self, id: Id) {
        let Some(end) = self.ends.get_mut(id) else { return };
        match end.owner {
            Owner::Host { host, .. } if end.token.is_some() => {
                if std::mem::replace(&mut end.queued, true) {
                    self.rows.mark(Row::MergedEdges);
                } else {
                    self.notify(host, Source::End(id));
                }
            }
            Owner::Script => {
                if let Some(play) = end.play {
                    self.rouse_play(play);
                }
            }
            Owner::Host { .. } | Owner::Queue(_) | Owner::Orphan => {}
        }
    }

    /// A connection has come into this listener's queue.
    pub(super) fn listener_edge(&mut self, id: Id) {
        let Some(listener) = self.listeners.get_mut(id) else { return };
        let Owner::Host { host, slot } = listener.owner else {
            if let Some(play) = listener.plays.pop_front()
                && let Ok(end) = self.accept(id, Owner::Script)
            {
                self.give_play(play, end);
            }
            return;
        };
        if !std::mem::replace(&mut listener.queued, true) {
            self.notify(host, Source::Listener(slot));
        }
    }

    pub(super) fn notify(&mut self, host: u32, source: Source) {
        if self.rng.chance(self.faults.late_edge) {
            let at = self.now + self.rng.below(LATE_EDGE);
            self.schedule(at, Happening::News { host, source });
        } else {
            self.deliver(host, source);
        }
    }

    fn deliver(&mut self, host: u32, source: Source) {
        self.program(host).ready.push_back(source);
        self.others_roused |= host != self.polling;
    }

    pub(super) fn wake(&mut self, host: u32) {
        self.program(host).woken.store(true, atomic::Ordering::Relaxed);
        self.others_roused |= host != self.polling;
    }

    /// The wait of `Net::poll`. Fills `batch`, and returns whether there is more.
    pub(super) fn wait(
        &mut self,
        host: u32,
        timeout: Option<Duration>,
        batch: &mut Vec<(Token, Readiness)>,
    ) -> io::Result<bool> {
        self.run_due();
        self.set_sleep(host, None);
        self.polling = host;
        self.others_roused = false;
        let began = self.now;
        let until = timeout.map(nanos).filter(|wait| *wait < FOR_EVER).map(|wait| self.now.saturating_add(wait));
        let until = self.interrupt(until);
        self.spurious(host, batch);
        for _ in 0..PATIENCE {
            let more = self.collect(host, batch);
            let woken = self.program(host).woken.swap(false, atomic::Ordering::Relaxed);
            if batch.is_empty() && more {
                // A split edge whose first piece was empty: nothing to tell, and yet no reason to wait.
                self.program(host).woken.fetch_or(woken, atomic::Ordering::Relaxed);
                continue;
            }
            if !batch.is_empty() || woken || until.is_some_and(|until| until <= self.now) {
                return self.count_idle(host, began, batch.is_empty() && !woken).map(|()| more);
            }
            if self.others_roused || self.pass_sleepers() {
                // Another reactor has work now; as far as this one can see, a signal ended its wait.
                self.set_sleep(host, until);
                return Ok(false);
            }
            let sleeper = self.sleepers.first().map(|(at, _)| *at);
            let Some(next) = [until, sleeper, self.next_at()].into_iter().flatten().min() else {
                return Err(deadlock());
            };
            self.now = self.now.max(next);
            self.run_due();
        }
        Err(deadlock())
    }

    /// Counts the polls that were for nothing. Without end they are a program that spins: ELOOP ends it.
    fn count_idle(&mut self, host: u32, began: u64, idle: bool) -> io::Result<()> {
        let now = self.now;
        let program = self.program(host);
        let before = if program.idle_at == now { program.idle_polls } else { 0 };
        program.idle_at = now;
        program.idle_polls = if idle && began == now { before + 1 } else { 0 };
        program.most_idle_polls = program.most_idle_polls.max(program.idle_polls);
        if program.idle_polls > SPIN { Err(Errno::LOOP.into()) } else { Ok(()) }
    }

    /// A fault: the wait ends early.
    fn interrupt(&mut self, until: Option<u64>) -> Option<u64> {
        match until.filter(|until| *until > self.now) {
            Some(late) if self.rng.chance(self.faults.interrupted) => {
                self.rows.mark(Row::Interrupted);
                Some(self.now + self.rng.below(late - self.now))
            }
            _ => until,
        }
    }

    /// A fault: flags without a reason.
    fn spurious(&mut self, host: u32, batch: &mut Vec<(Token, Readiness)>) {
        if !self.rng.chance(self.faults.spurious) {
            return;
        }
        let (place, flags) = (self.rng.next_u64() as usize, self.rng.next_u64());
        let slots = &self.programs[host as usize].slots;
        let end = slots.get(place % slots.len().max(1)).copied().flatten().and_then(|id| self.ends.get(id));
        if let Some(token) = end.and_then(|end| end.token) {
            let in_handshake = end.is_some_and(|end| end.phase == Phase::SynSent);
            self.rows.mark(if in_handshake { Row::SpuriousInHandshake } else { Row::Spurious });
            // That the peer has finished is a fact, and no flag says it without reason.
            let read_closed = end.is_some_and(|end| end.peer_finished || end.phase == Phase::Closed);
            batch.push((token, subset(Readiness { read_closed, ..ALL_FLAGS }, flags)));
        }
    }

    fn collect(&mut self, host: u32, batch: &mut Vec<(Token, Readiness)>) -> bool {
        let limit = match !self.programs[host as usize].ready.is_empty() && self.rng.chance(self.faults.small_batch) {
            true => 1,
            false => BATCH,
        };
        // What a split edge leaves behind is for the next poll, so only what waits now is looked at.
        for _ in 0..self.programs[host as usize].ready.len() {
            if batch.len() >= limit {
                self.rows.mark(Row::FewSlots);
                return true;
            }
            let Some(source) = self.program(host).ready.pop_front() else { break };
            let id = if let Source::End(id) = source { Some(id) } else { None };
            let Some((token, readiness)) = self.news_of(host, source) else { continue };
            if let Some(id) = id
                && self.rng.chance(self.faults.split_edge)
            {
                let chosen = self.rng.next_u64();
                let rest = Source::Rest(id, token, subset(readiness, !chosen));
                self.program(host).ready.push_back(rest);
                let first = subset(readiness, chosen);
                batch.extend((first != Readiness::default()).then_some((token, first)));
            } else {
                batch.push((token, readiness));
            }
        }
        !self.programs[host as usize].ready.is_empty()
    }

    /// As epoll does, the flags are those of now, not those of when the edge came; no flag, no news.
    fn news_of(&mut self, host: u32, source: Source) -> Option<(Token, Readiness)> {
        let (token, readiness) = match source {
            Source::End(id) => {
                let end = self.ends.get_mut(id)?;
                end.queued = false;
                let readiness = end.readiness();
                end.mark_edge(&mut self.rows, readiness);
                (end.token?, readiness)
            }
            Source::Listener(index) => {
                let id = self.programs[host as usize].listeners.get(index as usize).copied().flatten()?;
                let listener = self.listeners.get_mut(id)?;
                listener.queued = false;
                let readable = !listener.queue.is_empty();
                (Token { index, generation: 0 }, Readiness { readable, ..Readiness::default() })
            }
            Source::Rest(id, token, readiness) => {
                let same = self.ends.get(id).is_some_and(|end| end.token == Some(token));
                same.then_some((token, readiness))?
            }
            Source::Stale(token, readiness) => {
                let slots = &self.programs[host as usize].slots;
                let end = slots.get(token.index as usize).copied().flatten().and_then(|id| self.ends.get(id));
                (Some(token) != end.and_then(|end| end.token)).then_some((token, readiness))?
            }
        };
        (readiness != Readiness::default()).then_some((token, readiness))
    }

    pub(super) fn set_sleep(&mut self, host: u32, until: Option<u64>) {
        if let Some(old) = self.program(host).sleeps_until.take() {
            self.sleepers.remove(&(old, host));
        }
        if let Some(until) = until {
            self.program(host).sleeps_until = Some(until);
            self.sleepers.insert((until, host));
        }
    }

    /// Forgets the deadlines of other programs that have come; whether there were any.
    fn pass_sleepers(&mut self) -> bool {
        let mut passed = false;
        while let Some((until, host)) = self.sleepers.first().copied().filter(|(until, _)| *until <= self.now) {
            let _ = until;
            self.set_sleep(host, None);
            passed = true;
        }
        passed
    }

    // --- the way of a packet ------------------------------------------------------------------------------------

    /// Sends a packet. It arrives behind everything that its sender has sent before.
    pub(super) fn send_packet(&mut self, packet: Packet) {
        let overtakes = matches!(packet.what, What::Reset) && self.rng.chance(self.faults.reset_overtakes);
        let jitter = match nanos(self.faults.jitter) {
            0 => 0,
            most => self.rng.below(most),
        };
        let mut at = self.now + self.latency + jitter;
        if overtakes {
            at = self.now;
        } else if let Some(sender) = self.ends.get_mut(packet.from) {
            at = at.max(sender.last_arrival);
            sender.last_arrival = at;
        }
        let lost = self.is_lost(&packet);
        self.tell(&packet, if lost { " (lost)" } else { "" });
        if !lost {
            self.schedule(at, Happening::Packet(packet));
        }
    }

    fn arrive(&mut self, packet: Packet) {
        // A machine that has vanished meanwhile takes what is in flight with it.
        if !self.is_lost(&packet) {
            self.take(packet);
        }
    }

    fn is_lost(&self, packet: &Packet) -> bool {
        !self.vanished.is_empty()
            && (self.vanished.contains(&packet.source.ip()) || self.vanished.contains(&packet.target.ip()))
    }

    fn tell(&mut self, packet: &Packet, fate: &str) {
        let Some(story) = &mut self.story else { return };
        let what = match &packet.what {
            What::Syn { .. } => "SYN".to_owned(),
            What::SynAck { .. } => "SYN-ACK".to_owned(),
            What::Reset => "RST".to_owned(),
            What::Unreachable(errno) => format!("ICMP unreachable ({errno})"),
            What::Segment(segment) => {
                let Segment { position, bytes, fin, acked, window_end, urgent, probe } = segment;
                let fin = if *fin { ", FIN" } else { "" };
                let urgent = if urgent.is_some() { ", URG" } else { "" };
                let probe = if *probe { ", probe" } else { "" };
                format!("{} bytes at {position}{fin}{urgent}{probe}, ACK {acked}, window to {window_end}", bytes.len())
            }
        };
        let (source, target) = (packet.source, packet.target);
        let (seconds, micros) = (self.now / 1_000_000_000, self.now / 1000 % 1_000_000);
        story.push(format!("{seconds}.{micros:06} s  {source} > {target}  {what}{fate}"));
    }
}

const ALL_FLAGS: Readiness =
    Readiness { readable: true, writable: true, read_closed: true, write_closed: true, error: true, urgent: false };

/// The flags whose bit is set in `chosen`.
fn subset(flags: Readiness, chosen: u64) -> Readiness {
    let bit = |place: u32| chosen >> place & 1 == 1;
    Readiness {
        readable: flags.readable && bit(0),
        writable: flags.writable && bit(1),
        read_closed: flags.read_closed && bit(2),
        write_closed: flags.write_closed && bit(3),
        error: flags.error && bit(4),
        urgent: flags.urgent && bit(5),
    }
}

/// Nothing is left that could end this poll: a real program would sleep for ever. EDEADLK, since the reactor keeps numbers.
fn deadlock() -> io::Error {
    Errno::DEADLK.into()
}
