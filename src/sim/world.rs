//! The whole network as one value: the clock, the agenda of what will happen, the hosts, and the
//! path of a packet.
//!
//! Invariant: time moves only here, from one entry of the agenda to the next, and never past one;
//! what is due has happened before any call looks at anything. An idle connection has no entry, so
//! it costs nothing but memory.
//!
//! This module knows no call of the trait `Net` (see `host`), and no rule of TCP (see `tcp`).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicBool};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::Reach;
use super::arena::{Arena, Id};
use super::end::{End, Owner};
use super::fault::FaultCounts;
use super::faults::Faults;
use super::packet::SentPacket;
use super::play::Playing;
use super::time::{FOR_EVER, nanos};
use super::time_wait::TimeWaits;
use super::truth::Truth;
use super::unix::UNIX;
use crate::error::LookupErrorKind;
use crate::lifecycle::Coverage;
use crate::net::{LookupAnswer, Readiness, Token, UnixAddr};
use crate::rng::Rng;
use crate::trace::Recorder;

/// A packet, as a router sees it: where it comes from and where it goes.
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
    /// A probe: requests an acknowledgement although it contains nothing new.
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
    /// A script continues.
    Play(u32),
}

/// What the readiness is about.
pub(super) enum Source {
    End(Id),
    Listener(u32),
    /// The second half of a split edge.
    Rest(Id, Token, Readiness),
    /// Readiness of a connection that is closed. It is dropped if another attempt to connect uses
    /// its token again: no kernel reports that, since closing removes a descriptor from epoll.
    Stale(Token, Readiness),
}

struct Entry {
    at: u64,
    order: u64,
    happening: Happening,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        // Reversed: the heap's greatest is the earliest, and of two at one time the one that was
        // entered first.
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
    pub(super) options: crate::options::ListenOptions,
    pub(super) queue: VecDeque<Id>,
    /// Its readiness waits in its host's queue, or is on its way there.
    pub(super) queued: bool,
    /// Its host wants it to be reported.
    pub(super) accepting: bool,
    /// Handshakes in flight; each already takes a slot in the queue.
    pub(super) pending: usize,
    /// Its last call lacked memory.
    pub(super) short: bool,
    /// How often accept(2) has returned a connection, or that none waits.
    pub(super) answers: u64,
    /// Scripts that wait for a connection.
    pub(super) plays: VecDeque<u32>,
    /// The script of a connection that finds none waiting.
    pub(super) each: Option<super::Script>,
}

/// A program on a machine: a reactor's part of the network.
pub(super) struct Program {
    pub(super) machine: IpAddr,
    pub(super) slots: Vec<Option<Id>>,
    pub(super) listeners: Vec<Option<Id>>,
    pub(super) ready: VecDeque<Source>,
    pub(super) woken: Arc<AtomicBool>,
    pub(super) answers: VecDeque<(Token, LookupAnswer)>,
    /// Its host was dropped: nothing is reported to it any more.
    pub(super) is_gone: bool,
    /// It is stopped, as by SIGSTOP.
    pub(super) is_frozen: bool,
    pub(super) calls: u64,
    /// Its last connect lacked memory.
    pub(super) short: bool,
    /// Polls in a row at the same time that reported nothing and between which nothing was done.
    pub(super) idle_polls: u32,
    /// Polls in a row at the same time between which nothing was done, whatever they reported.
    pub(super) vain_polls: u32,
    pub(super) idle_at: u64,
    pub(super) most_idle_polls: u32,
    /// What was [busy](World::busy) when its present turn began, and whether its last poll left
    /// readiness unreported: then the next one belongs to the same turn.
    pub(super) turn_began: u64,
    pub(super) has_more: bool,
    /// The highest cost of one of its turns, in nanoseconds.
    pub(super) longest_turn: u64,
    pub(super) truths: Vec<Truth>,
    /// Until when it wants to sleep; others must not sleep past it.
    pub(super) sleeps_until: Option<u64>,
}

/// The result of a lookup of this name.
pub(super) enum Name {
    Known(Vec<IpAddr>),
    Fails(LookupErrorKind),
    Hangs,
}

pub(super) struct World {
    base: Instant,
    pub(super) now: u64,
    /// What each call of a host costs, and what programs have cost so far, in nanoseconds.
    pub(super) call_cost: u64,
    pub(super) busy: u64,
    order: u64,
    agenda: BinaryHeap<Entry>,
    pub(super) rng: Rng,
    /// The seeds that programs get.
    pub(super) seeds: Rng,
    /// The shortages of memory of calls that had none at first: drawing them from `rng` would change
    /// what earlier seeds do.
    shortages: Rng,
    pub(super) faults: Faults,
    /// One way, in nanoseconds.
    pub(super) latency: u64,
    /// On top of it, to and from these addresses.
    pub(super) delays: BTreeMap<IpAddr, u64>,
    pub(super) send_bytes: usize,
    pub(super) receive_bytes: usize,
    pub(super) ports: RangeInclusive<u16>,
    /// By machine, and whether it is for Unix domain sockets.
    pub(super) next_port: BTreeMap<(IpAddr, bool), u16>,
    pub(super) ends: Arena<End>,
    pub(super) listeners: Arena<Listener>,
    /// Names of Unix domain sockets, and their listeners.
    pub(super) unix_names: Vec<(IpAddr, UnixAddr, Id)>,
    pub(super) time_waits: TimeWaits,
    /// By machine, local and remote address: loopback addresses exist on every machine.
    pub(super) flows: BTreeMap<(IpAddr, SocketAddr, SocketAddr), Id>,
    pub(super) listening: BTreeMap<(IpAddr, u16), Vec<Id>>,
    pub(super) reach: BTreeMap<IpAddr, Reach>,
    pub(super) vanished: BTreeSet<IpAddr>,
    /// How many of the next packets from these addresses are lost.
    pub(super) losses: BTreeMap<IpAddr, u64>,
    /// Until then packets wait on the wire, in nanoseconds.
    pub(super) held_until: u64,
    pub(super) names: BTreeMap<String, Name>,
    pub(super) programs: Vec<Program>,
    pub(super) plays: Vec<Playing>,
    pub(super) rows: FaultCounts,
    pub(super) pairs: Coverage,
    /// RSTs that were sent, or would have been if there had been a peer.
    pub(super) resets: u64,
    #[cfg(test)]
    pub(super) sabotage: Option<super::sabotage::Sabotage>,
    pub(super) happenings: u64,
    pub(super) sleepers: BTreeSet<(u64, u32)>,
    /// The program that polls, and whether another has got readiness since.
    pub(super) polling: u32,
    pub(super) others_roused: bool,
    /// The packets, while they are recorded.
    pub(super) sent: Option<Vec<SentPacket>>,
    /// Records what the reactors of new hosts do.
    pub(super) recorder: Recorder,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            base: crate::net::os::clock_base(),
            now: 0,
            call_cost: 0,
            busy: 0,
            order: 0,
            agenda: BinaryHeap::new(),
            rng: Rng::new(seed),
            // Drawing them from `rng` would change what the seed does to programs without a pool.
            seeds: Rng::new(!seed),
            shortages: Rng::new(!seed.rotate_left(32)),
            faults: Faults::none(),
            latency: 1_000_000,
            delays: BTreeMap::new(),
            send_bytes: 256 * 1024,
            receive_bytes: 128 * 1024,
            ports: 32_768..=60_999,
            next_port: BTreeMap::new(),
            ends: Arena::new(),
            listeners: Arena::new(),
            unix_names: Vec::new(),
            time_waits: TimeWaits::default(),
            flows: BTreeMap::new(),
            listening: BTreeMap::new(),
            reach: BTreeMap::new(),
            vanished: BTreeSet::new(),
            losses: BTreeMap::new(),
            held_until: 0,
            names: BTreeMap::new(),
            programs: Vec::new(),
            plays: Vec::new(),
            rows: FaultCounts::default(),
            pairs: Coverage::default(),
            resets: 0,
            #[cfg(test)]
            sabotage: None,
            happenings: 0,
            sleepers: BTreeSet::new(),
            polling: 0,
            others_roused: false,
            sent: None,
            recorder: Recorder::new(0),
        }
    }

    /// A program ends: its kernel closes what it has.
    pub(super) fn end_program(&mut self, host: u32) {
        for id in self.take_sockets(host) {
            self.close(id);
        }
    }

    /// The program is gone, and its listeners with it. Returns the connections that it had.
    pub(super) fn take_sockets(&mut self, host: u32) -> Vec<Id> {
        self.set_sleep(host, None);
        let program = self.program(host);
        program.is_gone = true;
        program.ready.clear();
        program.answers.clear();
        program.woken.store(false, atomic::Ordering::Relaxed);
        let (slots, listeners) = (std::mem::take(&mut program.slots), std::mem::take(&mut program.listeners));
        for id in listeners.into_iter().flatten() {
            self.unlisten(id);
        }
        slots.into_iter().flatten().collect()
    }

    /// The programs that were started on this machine.
    pub(super) fn programs_on(&self, machine: IpAddr) -> Vec<u32> {
        (0..).zip(&self.programs).filter(|(_, it)| it.machine == machine).map(|(host, _)| host).collect()
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
            is_gone: false,
            is_frozen: false,
            calls: 0,
            short: false,
            idle_polls: 0,
            vain_polls: 0,
            idle_at: 0,
            most_idle_polls: 0,
            turn_began: 0,
            has_more: false,
            longest_turn: 0,
            truths: Vec::new(),
            sleeps_until: None,
        });
        index
    }

    pub(super) fn program(&mut self, host: u32) -> &mut Program {
        &mut self.programs[host as usize]
    }

    /// Draws a shortage of memory, unless the same call had one when it was last made.
    pub(super) fn shortage(&mut self, was_short: bool) -> Option<Errno> {
        let is_short = self.shortages.chance(self.faults.no_memory) && !was_short;
        is_short.then(|| if self.shortages.chance(0.5) { Errno::NOBUFS } else { Errno::NOMEM })
    }

    /// The connection that this host holds in this slot.
    pub(super) fn held(&self, host: u32, slot: u32) -> Option<Id> {
        self.programs[host as usize].slots.get(slot as usize).copied().flatten()
    }

    /// The listener that this host holds in this slot.
    pub(super) fn held_listener(&self, host: u32, listener: u32) -> Option<Id> {
        self.programs[host as usize].listeners.get(listener as usize).copied().flatten()
    }

    pub(super) fn instant(&self, at: u64) -> Instant {
        self.base + Duration::from_nanos(at)
    }

    // --- the agenda
    // ---------------------------------------------------------------------------------------------

    /// What would happen when the clock has stopped does not happen.
    pub(super) fn schedule(&mut self, at: u64, happening: Happening) {
        if at > self.now && at >= FOR_EVER {
            return;
        }
        self.order += 1;
        self.agenda.push(Entry { at: at.max(self.now), order: self.order, happening });
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        self.agenda.peek().map(|entry| entry.at)
    }

    /// Runs everything that is due.
    pub(super) fn run_due(&mut self) {
        while self.agenda.peek().is_some_and(|entry| entry.at <= self.now) {
            let Some(entry) = self.agenda.pop() else { return };
            self.happenings += 1;
            match entry.happening {
                Happening::Packet(packet) => self.arrive(packet),
                Happening::Timer(id) => self.timer(id, entry.at),
                Happening::News { host, source } => self.deliver(host, source),
                Happening::Play(play) => self.run_play(play),
                Happening::Lookup { host, .. } if self.program(host).is_gone => {}
                Happening::Lookup { host, token, answer } => {
                    self.program(host).answers.push_back((token, answer));
                    self.wake(host);
                }
            }
        }
    }

    pub(super) fn advance(&mut self, until: u64) {
        let until = until.min(FOR_EVER);
        self.run_due();
        while let Some(at) = self.next_at().filter(|at| *at <= until) {
            self.now = at;
            self.run_due();
        }
        self.now = self.now.max(until);
    }

    /// A program works for this long. What is due meanwhile happens.
    pub(super) fn spend(&mut self, time: u64) {
        let began = self.now;
        if time > 0 {
            self.advance(began + time);
            self.busy += self.now - began;
        }
    }

    // --- the path of a packet
    // ------------------------------------------------------------------------------------

    /// Sends a packet. It arrives after everything that its sender has sent before.
    pub(super) fn send_packet(&mut self, packet: Packet) {
        let overtakes = matches!(packet.what, What::Reset) && self.rng.chance(self.faults.reset_overtakes);
        let jitter = match nanos(self.faults.jitter) {
            0 => 0,
            most => self.rng.below(most),
        };
        let farther = |end: SocketAddr| self.delays.get(&end.ip()).copied().unwrap_or(0);
        let way = self.latency + farther(packet.source).max(farther(packet.target));
        let leaves = self.now.max(self.held_until);
        let mut at = leaves + way + jitter;
        if packet.source.ip() == UNIX {
            at = self.now;
        } else if overtakes {
            at = leaves;
        } else if let Some(sender) = self.ends.get_mut(packet.from) {
            at = at.max(sender.last_arrival);
            sender.last_arrival = at;
        }
        let lost = self.is_lost(&packet) | self.takes_loss(packet.source.ip());
        // A Unix domain socket has none: its connection only works like one on loopback.
        if let Some(sent) = &mut self.sent
            && packet.source.ip() != UNIX
        {
            sent.push(SentPacket::of(&packet, self.now, (!lost).then_some(at), self.recorder.total()));
        }
        if !lost {
            self.schedule(at, Happening::Packet(packet));
        }
    }

    fn arrive(&mut self, packet: Packet) {
        // A machine that has vanished meanwhile loses what is in flight to it.
        if !self.is_lost(&packet) && !self.is_unheard(&packet) {
            self.take(packet);
        }
    }

    /// Whether the wish for a loss covers the packet that this address sends now.
    fn takes_loss(&mut self, source: IpAddr) -> bool {
        let left = self.losses.get_mut(&source).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    }

    fn is_lost(&self, packet: &Packet) -> bool {
        !self.vanished.is_empty()
            && (self.vanished.contains(&packet.source.ip()) || self.vanished.contains(&packet.target.ip()))
    }
}
