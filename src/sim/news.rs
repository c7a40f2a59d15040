//! Readiness for hosts: edges, wakes, the wait of `Net::poll`, and how faults change them.
//!
//! Invariant: an edge is reported once, with the flags of the moment at which it is reported, as
//! epoll does.

use std::io;
use std::sync::atomic;

use rustix::io::Errno;

use super::arena::Id;
use super::end::{Owner, Phase};
use super::fault::Fault;
use super::time::FOR_EVER;
use super::world::{Happening, Source, World};
use crate::net::{Readiness, Token};

/// The most readiness that one poll reports: as much as the real net's, so that the batching is the
/// same.
const BATCH: usize = 1024;

/// Entries of the agenda that one poll lets pass without readiness before it treats the wait as
/// endless: years of window probes to a peer that never reads, in well under a second.
const MAX_ENTRIES: usize = 1_000_000;

/// Idle polls in a row that no program needs: it would continue for ever, and nothing here could
/// end it.
const SPIN: u32 = 100_000;

/// How late a late edge may be, in nanoseconds: long enough for anything to happen meanwhile.
const LATE_EDGE: u64 = 20_000_000;

/// How long a process is stopped at most, in nanoseconds: longer than many limits.
const LONGEST_STALL: u64 = 3_000_000_000;

impl World {
    /// Something changed at this end: an edge, if it is registered.
    pub(super) fn edge(&mut self, id: Id) {
        let Some(end) = self.ends.get_mut(id) else { return };
        match end.owner {
            #[cfg(test)]
            Owner::Host { .. } if self.sabotage == Some(super::sabotage::Sabotage::EdgeForgotten) => {}
            Owner::Host { host, .. } if end.token.is_some() => {
                if std::mem::replace(&mut end.queued, true) {
                    self.rows.mark(Fault::MergedEdges);
                } else {
                    self.notify(host, Source::End(id));
                }
            }
            Owner::Script => {
                if let Some(play) = end.play {
                    self.schedule_play(play);
                }
            }
            Owner::Host { .. } | Owner::Queue(_) | Owner::Orphan => {}
        }
    }

    /// A connection has entered this listener's queue.
    pub(super) fn listener_edge(&mut self, id: Id) {
        let Some(listener) = self.listeners.get_mut(id) else { return };
        let Owner::Host { host, slot } = listener.owner else {
            let play = match listener.plays.pop_front() {
                Some(play) => Some(play),
                None => listener.each.clone().map(|script| self.begin_play(script)),
            };
            if let Some(play) = play
                && let Ok(end) = self.accept(id, Owner::Script)
            {
                self.give_play(play, end);
            }
            return;
        };
        if listener.accepting && !std::mem::replace(&mut listener.queued, true) {
            self.notify(host, Source::Listener(slot));
        }
    }

    /// Listeners are level-triggered: every poll reports them while a connection waits.
    fn listener_levels(&mut self, host: u32) {
        for index in 0..self.programs[host as usize].listeners.len() {
            let waits = |world: &Self, id: &Id| world.listeners.get(*id).is_some_and(|it| !it.queue.is_empty());
            if let Some(id) = self.held_listener(host, index as u32).filter(|id| waits(self, id)) {
                self.listener_edge(id);
            }
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

    pub(super) fn deliver(&mut self, host: u32, source: Source) {
        if self.program(host).is_gone {
            return;
        }
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
        until: Option<u64>,
        batch: &mut Vec<(Token, Readiness)>,
    ) -> io::Result<bool> {
        self.run_due();
        self.set_sleep(host, None);
        self.polling = host;
        self.others_roused = false;
        let began = self.now;
        let until = until.filter(|until| *until < FOR_EVER);
        let until = self.interrupt(until);
        self.spurious(host, batch);
        self.listener_levels(host);
        for _ in 0..MAX_ENTRIES {
            let more = self.collect(host, batch);
            let woken = self.program(host).woken.swap(false, atomic::Ordering::Relaxed);
            if woken {
                self.program(host).vain_polls = 0;
            }
            if batch.is_empty() && more {
                // A split edge whose first piece was empty: there is nothing to report, and yet no
                // reason to wait.
                self.program(host).woken.fetch_or(woken, atomic::Ordering::Relaxed);
                continue;
            }
            if !batch.is_empty() || woken || until.is_some_and(|until| until <= self.now) {
                self.program(host).has_more = more;
                return self.count_idle(host, began, batch.is_empty() && !woken).map(|()| more);
            }
            if self.others_roused || self.pass_sleepers() {
                // Another reactor has work now; from this one's view, a signal ended its wait.
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

    /// Records the cost of the previous turn, if this poll begins another.
    pub(super) fn begin_turn(&mut self, host: u32) {
        let busy = self.busy;
        let program = self.program(host);
        if !std::mem::take(&mut program.has_more) {
            program.longest_turn = program.longest_turn.max(busy - program.turn_began);
            program.turn_began = busy;
        }
    }

    /// Up to when a poll's readiness is complete: now, or the time at which it began if a fault
    /// reads the clock then.
    pub(super) fn complete_until(&mut self, began: u64) -> u64 {
        let is_old = self.now > began && self.rng.chance(self.faults.old_clock);
        if is_old { began } else { self.now }
    }

    /// A fault: the process is stopped.
    pub(super) fn stall(&mut self) {
        if self.rng.chance(self.faults.stall) {
            self.rows.mark(Fault::Stalled);
            let time = self.rng.below(LONGEST_STALL);
            self.spend(time);
        }
    }

    /// Counts the polls that reported nothing, and those between which no call did anything,
    /// whether they reported something or not. A program that continues so spins: ELOOP ends it.
    fn count_idle(&mut self, host: u32, began: u64, idle: bool) -> io::Result<()> {
        // The cost of the polls themselves does not count: the time that a program spends spinning
        // is no progress.
        let waited = self.now - self.busy;
        let now = self.now;
        let program = self.program(host);
        if program.idle_at != waited {
            (program.idle_polls, program.vain_polls, program.idle_at) = (0, 0, waited);
        }
        program.vain_polls += 1;
        program.idle_polls = if idle && began == now { program.idle_polls + 1 } else { 0 };
        program.most_idle_polls = program.most_idle_polls.max(program.idle_polls);
        if program.vain_polls > SPIN { Err(Errno::LOOP.into()) } else { Ok(()) }
    }

    /// A fault: the wait ends early.
    fn interrupt(&mut self, until: Option<u64>) -> Option<u64> {
        match until.filter(|until| *until > self.now) {
            Some(late) if self.rng.chance(self.faults.interrupted) => {
                self.rows.mark(Fault::Interrupted);
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
        let places = self.programs[host as usize].slots.len().max(1);
        let end = self.held(host, (place % places) as u32).and_then(|id| self.ends.get(id));
        if let Some(token) = end.and_then(|end| end.token) {
            let in_handshake = end.is_some_and(|end| end.phase == Phase::SynSent);
            self.rows.mark(if in_handshake { Fault::SpuriousInHandshake } else { Fault::Spurious });
            // That the peer has finished is a fact: the flag for it is never spurious.
            let read_closed = end.is_some_and(|end| end.peer_finished || end.phase == Phase::Closed);
            batch.push((token, subset(Readiness { read_closed, ..ALL_FLAGS }, flags)));
        }
    }

    fn collect(&mut self, host: u32, batch: &mut Vec<(Token, Readiness)>) -> bool {
        let limit = match !self.programs[host as usize].ready.is_empty() && self.rng.chance(self.faults.small_batch) {
            true => 1,
            false => BATCH,
        };
        // What a split edge leaves is for the next poll, so only what waits now is examined.
        for _ in 0..self.programs[host as usize].ready.len() {
            if batch.len() >= limit {
                self.rows.mark(Fault::FewSlots);
                return true;
            }
            let Some(source) = self.program(host).ready.pop_front() else { break };
            let id = if let Source::End(id) = source { Some(id) } else { None };
            let Some((token, readiness)) = self.readiness_of(host, source) else { continue };
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

    /// As with epoll, the flags are the present ones, not those at the time of the edge. Without a
    /// flag nothing is reported.
    fn readiness_of(&mut self, host: u32, source: Source) -> Option<(Token, Readiness)> {
        let (token, readiness) = match source {
            Source::End(id) => {
                let end = self.ends.get_mut(id)?;
                end.queued = false;
                let readiness = end.readiness();
                end.mark_edge(&mut self.rows, readiness);
                (end.token?, readiness)
            }
            Source::Listener(index) => {
                let id = self.held_listener(host, index)?;
                let listener = self.listeners.get_mut(id)?;
                listener.queued = false;
                let readable = listener.accepting && !listener.queue.is_empty();
                (Token { index, generation: 0 }, Readiness { readable, ..Readiness::default() })
            }
            Source::Rest(id, token, readiness) => {
                let same = self.ends.get(id).is_some_and(|end| end.token == Some(token));
                same.then_some((token, readiness))?
            }
            Source::Stale(token, readiness) => (!self.is_open(host, token)).then_some((token, readiness))?,
        };
        (readiness != Readiness::default()).then_some((token, readiness))
    }

    /// Whether a connection in the slot of this token has it: it is registered, or it has won a race
    /// and could not be.
    fn is_open(&self, host: u32, token: Token) -> bool {
        let Some(end) = self.held(host, token.index).and_then(|id| self.ends.get(id)) else { return false };
        let truth = self.programs[host as usize].truths.get(token.index as usize);
        end.token == Some(token) || truth.is_some_and(|truth| truth.is_of(token.generation))
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

    /// Forgets the deadlines of other programs that have passed; returns whether there were any.
    fn pass_sleepers(&mut self) -> bool {
        let mut passed = false;
        while let Some((_, host)) = self.sleepers.first().copied().filter(|(until, _)| *until <= self.now) {
            self.set_sleep(host, None);
            passed = true;
        }
        passed
    }
}

const ALL_FLAGS: Readiness =
    Readiness { readable: true, writable: true, read_closed: true, write_closed: true, error: true };

/// The flags whose bit is set in `chosen`.
fn subset(flags: Readiness, chosen: u64) -> Readiness {
    let bit = |place: u32| chosen >> place & 1 == 1;
    Readiness {
        readable: flags.readable && bit(0),
        writable: flags.writable && bit(1),
        read_closed: flags.read_closed && bit(2),
        write_closed: flags.write_closed && bit(3),
        error: flags.error && bit(4),
    }
}

/// Nothing is left that could end this poll: a real program would sleep for ever. The error is
/// EDEADLK, since the reactor stores error numbers.
fn deadlock() -> io::Error {
    Errno::DEADLK.into()
}
