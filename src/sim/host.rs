//! A host: the trait [`Net`] for the simulated kernel. The faults of calls are drawn here.
//!
//! Invariant: everything that is due has happened before a call. This module knows no TCP.

use std::cell::{RefCell, RefMut};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, atomic};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::arena::{Id, place};
use super::end::{End, Owner, PEEK, Phase, Probing, TAKEN};
use super::fault::Fault;
use super::time::nanos;
use super::truth::Closed;
use super::world::{Happening, Source, World};
use crate::id::SocketId;
use crate::lifecycle::{Input, State};
use crate::net::{KernelPipe, KernelView, LookupAnswer, Net, Polled, Readiness, Received, Token, UnixAddr, Unread};
use crate::options::{KeepAlive, ListenOptions, SystemOptions};

/// The number of the call that fills a kernel pipe.
pub(super) const FILL: u8 = 5;

/// How long an ordinary lookup takes, in nanoseconds.
const LOOKUP: u64 = 1_000_000;

/// The net of a [`Host`](super::Host), without the recorder.
///
/// ```
/// use finale::sim::{BareHost, Host};
/// use finale::trace::Traced;
/// fn is_a_recorded_host(host: Host) -> Traced<BareHost> {
///     host
/// }
/// ```
pub struct BareHost {
    pub(super) world: Rc<RefCell<World>>,
    pub(super) index: u32,
    /// Kept between polls only to reuse its memory.
    batch: Vec<(Token, Readiness)>,
}

impl std::fmt::Debug for BareHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let machine = self.world.borrow().programs[self.index as usize].machine;
        f.debug_struct("Host")
            .field("ip", &machine)
            .field("calls", &self.world.borrow().programs[self.index as usize].calls)
            .finish_non_exhaustive()
    }
}

impl BareHost {
    pub(super) fn new(world: Rc<RefCell<World>>, machine: IpAddr) -> Self {
        let index = world.borrow_mut().add_program(machine);
        Self { world, index, batch: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn is_sabotaged(&self, sabotage: super::sabotage::Sabotage) -> bool {
        self.world.borrow().is_sabotaged(sabotage)
    }

    #[cfg(test)]
    fn has_finished(&self, slot: u32) -> bool {
        let world = self.world.borrow();
        world.held(self.index, slot).and_then(|id| world.ends.get(id)).is_some_and(|end| end.finished)
    }

    /// Begins a call: counts it, lets its cost in time pass, and runs what is due.
    fn enter(&self) -> RefMut<'_, World> {
        let mut world = self.world.borrow_mut();
        world.program(self.index).calls += 1;
        let cost = world.call_cost;
        world.spend(cost);
        world.run_due();
        world
    }

    /// A time of the world on this host's clock.
    fn clock(world: &World, at: u64) -> Instant {
        #[cfg(test)]
        if world.is_sabotaged(super::sabotage::Sabotage::FastClock) {
            return world.instant(at + at / 100);
        }
        world.instant(at)
    }

    /// Begins a call on a connection.
    pub(super) fn on(&self, slot: u32) -> Result<(RefMut<'_, World>, Id), Errno> {
        let world = self.enter();
        let id = world.held(self.index, slot);
        id.map(|id| (world, id)).ok_or(Errno::BADF)
    }

    /// Begins a call that can lack memory. `call` is its number.
    pub(super) fn on_with_memory(&self, slot: u32, call: u8) -> Result<(RefMut<'_, World>, Id), Errno> {
        let (mut world, id) = self.on(slot)?;
        let probability = world.faults.no_memory;
        let bit = 1 << call;
        let was_short = world.ends.get(id).is_some_and(|end| end.short & bit != 0);
        let shortage = match call {
            FILL => world.shortage(was_short),
            _ if !world.rng.chance(probability) || was_short => None,
            _ => Some(if world.rng.chance(0.5) { Errno::NOBUFS } else { Errno::NOMEM }),
        };
        if shortage.is_some() || was_short {
            // Neither the failure nor the repetition counts as a turn without work.
            world.program(self.index).idle_polls = 0;
            world.ends.get_mut(id).ok_or(Errno::BADF)?.short ^= bit;
        }
        world.answered(self.index, slot, shortage.map_or(Ok(()), Err))?;
        Ok((world, id))
    }

    fn put(world: &mut World, host: u32, slot: u32, id: Id) {
        place(&mut world.program(host).slots, slot, id);
    }

    /// Reads, and records what the judge needs to know of it.
    pub(super) fn read(&self, world: &mut World, slot: u32, id: Id, buffer: &mut [u8]) -> io::Result<usize> {
        let answer = world.recv(id, buffer);
        let read = world.answered(self.index, slot, answer)?;
        let now = world.now;
        if read > 0 {
            let truth = world.truth(self.index, slot);
            truth.given += read as u64;
            (truth.given_at, truth.moved_at, truth.heard_last) = (now, now, true);
            world.progress(self.index);
        }
        Ok(read)
    }

    /// Writes, and records the same.
    fn write(&self, world: &mut World, slot: u32, id: Id, bytes: &[u8], more: bool) -> io::Result<usize> {
        let answer = world.send(id, bytes, more, false);
        let sent = world.answered(self.index, slot, answer)?;
        if sent < bytes.len() {
            world.rows.mark(Fault::ShortWrite);
        }
        let now = world.now;
        let truth = world.truth(self.index, slot);
        truth.sent += sent as u64;
        (truth.sent_at, truth.moved_at, truth.heard_last) = (now, now, false);
        world.progress(self.index);
        Ok(sent)
    }

    /// Writes, perhaps fewer bytes because of a fault.
    pub(super) fn transmit(&self, world: &mut World, slot: u32, id: Id, bytes: &[u8], more: bool) -> io::Result<usize> {
        #[cfg(test)]
        if world.is_sabotaged(super::sabotage::Sabotage::ErrorFromNowhere) {
            return Err(Errno::CONNRESET.into());
        }
        let faults = world.faults;
        let may_write = world.ends.get(id).is_some_and(End::may_write);
        if may_write && !bytes.is_empty() && world.rng.chance(faults.short_write) {
            let part = world.rng.below(bytes.len() as u64) as usize;
            if part == 0 {
                world.edge(id);
                return Err(Errno::WOULDBLOCK.into());
            }
            let sent = self.write(world, slot, id, &bytes[..part], more)?;
            if sent == part {
                // As if the buffer had been full for a moment.
                world.edge(id);
            }
            return Ok(sent);
        }
        self.write(world, slot, id, bytes, more)
    }

    /// A connection of this program, begun by `dial` unless a fault prevents it.
    fn dial(
        &self,
        slot: u32,
        token: Token,
        dial: impl FnOnce(&mut World, IpAddr, Owner) -> Result<Id, Errno>,
    ) -> io::Result<()> {
        let mut world = self.enter();
        // Several attempts of one socket have several slots and share one truth.
        world.begin_truth(self.index, token.index, Some(token));
        let exhausted = world.faults.connect_exhausted;
        let machine = world.program(self.index).machine;
        let was_short = world.program(self.index).short;
        let shortage = world.shortage(was_short);
        world.program(self.index).short = shortage.is_some();
        let began = match (world.rng.chance(exhausted), shortage) {
            (true, _) => {
                world.rows.mark(Fault::NoDescriptorForConnect);
                Err(Errno::MFILE)
            }
            (false, Some(errno)) => Err(errno),
            (false, None) => dial(&mut world, machine, Owner::Host { host: self.index, slot }),
        };
        // Repeating the call for a full queue counts as a turn with work.
        world.program(self.index).idle_polls = 0;
        let id = world.answered(self.index, token.index, began)?;
        world.progress(self.index);
        Self::put(&mut world, self.index, slot, id);
        let end = world.ends.get_mut(id).ok_or(Errno::BADF)?;
        end.token = Some(token);
        // A Unix domain socket is connected already.
        if end.readiness() != Readiness::default() {
            world.edge(id);
        }
        Ok(())
    }

    /// Removes the descriptor from its slot.
    fn take(&self, slot: u32) -> Option<(RefMut<'_, World>, Id)> {
        let (mut world, id) = self.on(slot).ok()?;
        world.program(self.index).slots[slot as usize] = None;
        let stale = world.faults.stale_news;
        if let Some(token) = world.ends.get(id).and_then(|end| end.token)
            && world.rng.chance(stale)
        {
            world.rows.mark(Fault::StaleNews);
            let all = Readiness { readable: true, writable: true, read_closed: true, ..Readiness::default() };
            world.notify(self.index, Source::Stale(token, Readiness { write_closed: true, error: true, ..all }));
        }
        Some((world, id))
    }

    /// getpeername(2) and SO_ERROR: whether the phase is the one `asked`, or the pending error.
    fn phase_or_error(&self, on: (RefMut<'_, World>, Id), slot: u32, asked: Phase) -> io::Result<bool> {
        let (mut world, id) = on;
        let end = world.ends.get_mut(id).ok_or(Errno::BADF)?;
        let answer = match end.phase {
            // What was sent is in the peer's own queue, and getpeername(2) always succeeds.
            _ if end.is_unix() && asked == Phase::Open => Ok(true),
            _ if end.is_unix() => end.take_error().map_or(Ok(true), Err),
            // A connection with itself: there is no listener; the real net returns the same error.
            Phase::Open if asked == Phase::Open && end.local == end.remote => Err(Errno::CONNREFUSED),
            Phase::Open => Ok(asked == Phase::Open),
            Phase::SynSent | Phase::SynReceived | Phase::Closed => match end.take_error() {
                Some(error) => Err(error),
                None => Ok(end.phase == asked),
            },
        };
        if asked == Phase::Open {
            world.mark_result(id, answer);
        }
        Ok(world.answered(self.index, slot, answer)?)
    }
}

impl Net for BareHost {
    fn now(&self) -> Instant {
        let world = self.world.borrow();
        Self::clock(&world, world.now)
    }

    fn poll(
        &mut self,
        now: Instant,
        timeout: Option<Duration>,
        ready: &mut dyn FnMut(Token, Readiness),
    ) -> io::Result<Polled> {
        let mut batch = std::mem::take(&mut self.batch);
        let now = nanos(now.saturating_duration_since(self.world.borrow().instant(0)));
        let until = timeout.map(|timeout| now.saturating_add(nanos(timeout)));
        #[cfg(test)]
        let until = if self.is_sabotaged(super::sabotage::Sabotage::WaitForNothing) { Some(0) } else { until };
        self.world.borrow_mut().begin_turn(self.index);
        let mut world = self.enter();
        let began = world.now;
        let outcome = world.wait(self.index, until, &mut batch);
        let complete_until = world.complete_until(began);
        world.stall();
        #[cfg(test)]
        let complete_until =
            if world.is_sabotaged(super::sabotage::Sabotage::LateClock) { world.now } else { complete_until };
        let complete_until = Self::clock(&world, complete_until);
        drop(world);
        // The world is no longer borrowed, so code that gets the readiness may use it.
        for (token, readiness) in batch.drain(..) {
            ready(token, readiness);
        }
        self.batch = batch;
        outcome.map(|more| Polled { complete_until, more })
    }

    fn waker(&self) -> Box<dyn Fn() + Send + Sync> {
        let woken = Arc::clone(&self.world.borrow().programs[self.index as usize].woken);
        Box::new(move || woken.store(true, atomic::Ordering::Relaxed))
    }

    fn listen(&mut self, listener: u32, addr: SocketAddr, options: &ListenOptions) -> io::Result<SocketAddr> {
        let mut world = self.enter();
        let machine = world.program(self.index).machine;
        let owner = Owner::Host { host: self.index, slot: listener };
        let id = world.listen(machine, owner, addr, options)?;
        place(&mut world.program(self.index).listeners, listener, id);
        Ok(world.listeners.get(id).map_or(addr, |listener| listener.addr))
    }

    fn listen_unix(&mut self, listener: u32, addr: &UnixAddr, options: &ListenOptions) -> io::Result<()> {
        let mut world = self.enter();
        let machine = world.program(self.index).machine;
        let id = world.listen_unix(machine, Owner::Host { host: self.index, slot: listener }, addr, options)?;
        place(&mut world.program(self.index).listeners, listener, id);
        Ok(())
    }

    fn accept(&mut self, listener: u32, slot: u32) -> io::Result<Option<SocketAddr>> {
        let mut world = self.enter();
        let id = world.held_listener(self.index, listener).ok_or(Errno::BADF)?;
        let faults = world.faults;
        if world.rng.chance(faults.accept_exhausted) {
            world.rows.mark(Fault::AcceptExhausted);
            let errors = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
            return Err(errors[world.rng.below(errors.len() as u64) as usize].into());
        }
        if world.rng.chance(faults.accept_aborted) {
            world.rows.mark(Fault::AcceptAborted);
            return Err(Errno::CONNABORTED.into());
        }
        let id = world.accept(id, Owner::Host { host: self.index, slot })?;
        world.begin_truth(self.index, slot, None);
        world.progress(self.index);
        if world.ends.get(id).is_some_and(|end| end.died) {
            world.rows.mark(Fault::ResetBeforeAccept);
        }
        Self::put(&mut world, self.index, slot, id);
        let end = world.ends.get(id).ok_or(Errno::BADF)?;
        Ok((!end.is_unix()).then_some(end.remote))
    }

    fn set_accepting(&mut self, listener: u32, accepting: bool) -> io::Result<()> {
        let mut world = self.enter();
        let id = world.held_listener(self.index, listener).ok_or(Errno::BADF)?;
        let was_short = world.listeners.get(id).is_some_and(|listener| listener.short);
        // To remove a descriptor from epoll takes no memory.
        let shortage = if accepting { world.shortage(was_short) } else { None };
        if shortage.is_some() {
            world.rows.mark(Fault::AcceptExhausted);
        }
        let listener = world.listeners.get_mut(id).ok_or(Errno::BADF)?;
        listener.short = shortage.is_some();
        listener.accepting = accepting && shortage.is_none();
        Ok(shortage.map_or(Ok(()), Err)?)
    }

    fn unlisten(&mut self, listener: u32) {
        let mut world = self.enter();
        let place = world.program(self.index).listeners.get_mut(listener as usize);
        if let Some(id) = place.and_then(Option::take) {
            world.unlisten(id);
        }
    }

    fn connect(
        &mut self,
        slot: u32,
        token: Token,
        addr: SocketAddr,
        options: &SystemOptions,
        local: Option<SocketAddr>,
    ) -> io::Result<()> {
        self.dial(slot, token, |world, machine, owner| world.dial(machine, owner, addr, local, options))
    }

    fn connect_unix(&mut self, slot: u32, token: Token, addr: &UnixAddr, options: &SystemOptions) -> io::Result<()> {
        self.dial(slot, token, |world, machine, owner| world.dial_unix(machine, owner, addr, options))
    }

    fn connected(&mut self, slot: u32) -> io::Result<bool> {
        self.phase_or_error(self.on(slot)?, slot, Phase::Open)
    }

    /// If it fails, the connection has moved and is not registered, as on the real net.
    fn promote(&mut self, from: u32, to: u32, token: Token) -> io::Result<()> {
        let (mut world, id) = self.on(from)?;
        let shortage = world.shortage(false);
        world.program(self.index).slots[from as usize] = None;
        Self::put(&mut world, self.index, to, id);
        world.truth(self.index, to).closed = None;
        let end = world.ends.get_mut(id).ok_or(Errno::BADF)?;
        end.owner = Owner::Host { host: self.index, slot: to };
        end.token = shortage.is_none().then_some(token);
        if end.readiness() != Readiness::default() {
            world.edge(id);
        }
        Ok(world.answered(self.index, to, shortage.map_or(Ok(()), Err))?)
    }

    fn register(&mut self, slot: u32, token: Token) -> io::Result<()> {
        let (mut world, id) = self.on(slot)?;
        let exhausted = world.faults.register_exhausted;
        if world.rng.chance(exhausted) {
            world.rows.mark(Fault::NotRegistrable);
            return Ok(world.answered(self.index, slot, Err(Errno::NOSPC))?);
        }
        let end = world.ends.get_mut(id).ok_or(Errno::BADF)?;
        if end.token.replace(token).is_some() {
            return Err(Errno::EXIST.into());
        }
        if end.readiness() != Readiness::default() {
            world.edge(id);
        }
        Ok(())
    }

    fn recv(&mut self, slot: u32, buffer: &mut [u8]) -> io::Result<Received> {
        let (mut world, id) = self.on_with_memory(slot, 0)?;
        let whole = world.ends.get(id).is_some_and(|end| end.urgent_in.is_none() && !end.is_unix());
        let faults = world.faults;
        let there = world.ends.get(id).map_or(0, |end| end.incoming.len()).min(buffer.len());
        if there > 1 && world.rng.chance(faults.short_read) {
            let part = 1 + world.rng.below(there as u64 - 1) as usize;
            let read = self.read(&mut world, slot, id, &mut buffer[..part])?;
            // A reader may take a short read for drained, so an edge of its own announces the rest.
            world.edge(id);
            return Ok(Received { bytes: read, drained: whole });
        }
        let answer = self.read(&mut world, slot, id, buffer);
        #[cfg(test)]
        let answer = {
            drop(world);
            let answer = answer.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
            self.sabotage_read(answer, buffer).map_err(io::Error::from)
        };
        answer.map(|bytes| Received { bytes, drained: bytes < buffer.len() && whole })
    }

    fn splice_in(&mut self, slot: u32, pipe: &mut Option<Box<KernelPipe>>, limit: usize) -> io::Result<usize> {
        self.fill_pipe(slot, pipe, limit)
    }

    fn splice_out(&mut self, slot: u32, pipe: &mut KernelPipe, limit: usize, more: bool) -> io::Result<usize> {
        self.empty_pipe(slot, pipe, limit, more)
    }

    fn peek(&mut self, slot: u32) -> io::Result<Unread> {
        let (mut world, id) = self.on_with_memory(slot, PEEK)?;
        let answer = world.peek(id);
        Ok(world.answered(self.index, slot, answer)?)
    }

    fn is_readable(&self, slot: u32) -> bool {
        self.on(slot).is_ok_and(|(world, id)| world.is_readable(id))
    }

    fn send(&mut self, slot: u32, bytes: &[u8], more: bool) -> io::Result<usize> {
        let (mut world, id) = self.on_with_memory(slot, 2)?;
        self.transmit(&mut world, slot, id, bytes, more)
    }

    /// Sends the pieces as one; a fault can cut it. Bytes beyond the buffer are not looked at.
    fn send_vectored(&mut self, slot: u32, pieces: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        let (mut world, id) = self.on_with_memory(slot, 2)?;
        let most = world.ends.get(id).map_or(0, |end| end.tuning.send_bytes).saturating_add(1);
        let mut bytes = Vec::new();
        for piece in pieces {
            bytes.extend_from_slice(&piece[..piece.len().min(most - bytes.len())]);
        }
        self.transmit(&mut world, slot, id, &bytes, more)
    }

    fn time_since_acked(&mut self, slot: u32) -> io::Result<Option<Duration>> {
        let (world, id) = self.on_with_memory(slot, TAKEN)?;
        let end = world.ends.get(id).filter(|end| end.phase == Phase::Open && !end.is_unix());
        Ok(end.map(|end| Duration::from_nanos(world.now - end.taken_at)))
    }

    fn finish(&mut self, slot: u32) -> io::Result<()> {
        let (mut world, id) = self.on_with_memory(slot, 3)?;
        let again = world.ends.get(id).is_some_and(|end| end.finished);
        let answer = world.finish(id);
        if !again && answer.is_ok() {
            world.progress(self.index);
        }
        Ok(world.answered(self.index, slot, answer)?)
    }

    fn acknowledged(&mut self, slot: u32) -> io::Result<bool> {
        #[cfg(test)]
        if self.is_sabotaged(super::sabotage::Sabotage::AcknowledgedTooSoon) {
            return Ok(true);
        }
        self.phase_or_error(self.on_with_memory(slot, 4)?, slot, Phase::Closed)
    }

    fn take_error(&mut self, slot: u32) -> Option<io::Error> {
        match self.on(slot) {
            Ok((mut world, id)) => {
                let error = world.ends.get_mut(id)?.take_error()?;
                // This call returns an error although it succeeds.
                world.answered(self.index, slot, Err::<(), _>(error)).err().map(io::Error::from)
            }
            Err(error) => Some(error.into()),
        }
    }

    fn drop_unread(&mut self, slot: u32) {
        let _ = self.on(slot).map(|(mut world, id)| world.drop_unread(id));
    }

    fn close(&mut self, slot: u32) {
        if let Some((mut world, id)) = self.take(slot) {
            world.record_close(self.index, slot, id);
            let resets = world.resets;
            world.close(id);
            let closed = if world.resets > resets { Closed::WithReset } else { Closed::Quietly };
            world.truth(self.index, slot).closed = Some(closed);
            #[cfg(test)]
            if world.is_sabotaged(super::sabotage::Sabotage::DescriptorKept) {
                world.program(self.index).listeners.push(Some(id));
            }
        }
    }

    fn reset(&mut self, slot: u32) {
        #[cfg(test)]
        if self.is_sabotaged(super::sabotage::Sabotage::ResetForgotten) && self.has_finished(slot) {
            return self.close(slot);
        }
        if let Some((mut world, id)) = self.take(slot) {
            world.record_close(self.index, slot, id);
            world.reset(id);
            world.truth(self.index, slot).closed = Some(Closed::WithReset);
        }
    }

    /// Has no effect: Nagle's algorithm is not simulated.
    fn set_nodelay(&mut self, slot: u32, _on: bool) -> io::Result<()> {
        Ok(self.on(slot).map(drop)?)
    }

    fn set_keep_alive(&mut self, slot: u32, times: Option<KeepAlive>) -> io::Result<()> {
        let (mut world, id) = self.on(slot)?;
        let now = world.now;
        let end = world.ends.get_mut(id).ok_or(Errno::BADF)?;
        if end.is_unix() && times.is_some() {
            return Err(Errno::OPNOTSUPP.into());
        }
        end.tuning.probing = times.map(Probing::from);
        end.probes = 0;
        if end.phase == Phase::Open {
            end.alive_at = end.tuning.probing.map(|times| now.saturating_add(times.idle));
        }
        world.arm(id);
        Ok(())
    }

    fn local_addr(&self, slot: u32) -> io::Result<SocketAddr> {
        let (world, id) = self.on(slot)?;
        let end = world.ends.get(id).ok_or(Errno::BADF)?;
        if end.is_unix() { Err(io::ErrorKind::Unsupported.into()) } else { Ok(end.local) }
    }

    fn lookup(&mut self, token: Token, host: &str, port: u16) -> io::Result<()> {
        let mut world = self.enter();
        let most = nanos(world.faults.lookup_delay);
        let at = world.now + LOOKUP + world.rng.below(most);
        if let Some(answer) = world.resolve(host, port) {
            world.schedule(at, Happening::Lookup { host: self.index, token, answer });
        }
        Ok(())
    }

    fn seed(&self) -> u64 {
        self.world.borrow_mut().seeds.next_u64()
    }

    fn looked_up(&mut self) -> Option<(Token, LookupAnswer)> {
        let mut world = self.world.borrow_mut();
        world.run_due();
        let answer = world.program(self.index).answers.pop_front()?;
        world.progress(self.index);
        Some(answer)
    }

    fn kernel_view(&mut self, slot: u32, _peer: Option<SocketAddr>) -> Option<KernelView> {
        // No call of the program: a recorded run is the run that was not recorded.
        let world = self.world.borrow();
        let id = world.held(self.index, slot)?;
        if world.time_waits.contains(world.now, id) {
            return Some(End::TIME_WAIT);
        }
        // As on Linux, where a Unix domain socket has no such state.
        world.ends.get(id).filter(|end| !end.is_unix()).map(End::kernel_view)
    }

    fn stepped(&mut self, _socket: SocketId, state: State, input: Input) {
        self.world.borrow_mut().pairs.note(state, input);
    }
}

impl Drop for BareHost {
    fn drop(&mut self) {
        self.world.borrow_mut().end_program(self.index);
    }
}
