//! A host: the trait [`Net`] in front of the simulated kernel. The call faults are drawn here.
//!
//! Invariant: before a call looks, everything that is due has happened. Knows no TCP.

use std::cell::{RefCell, RefMut};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, atomic};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::arena::Id;
use super::end::{Owner, Phase, Probing};
use super::world::{Happening, Name, Source, World, nanos};
use crate::error::LookupCause;
use crate::net::{LookupAnswer, Net, Readiness, Token, Unread};
use crate::options::{KeepAlive, Listen, SystemOptions};

/// How long an ordinary look-up takes, in nanoseconds.
const LOOKUP: u64 = 1_000_000;

/// One program on one machine of a [`Network`](super::Network): what a reactor needs of the world.
///
/// Several hosts may have the same address: then they are programs on one machine, and share its ports. Dropping a host
/// closes all it has open, as the kernel does for a process that ends.
pub struct Host {
    world: Rc<RefCell<World>>,
    index: u32,
    /// Kept between polls for its memory only.
    batch: Vec<(Token, Readiness)>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let machine = self.world.borrow().programs[self.index as usize].machine;
        f.debug_struct("Host").field("ip", &machine).field("calls", &self.calls()).finish_non_exhaustive()
    }
}

impl Host {
    pub(super) fn new(world: Rc<RefCell<World>>, machine: IpAddr) -> Self {
        let index = world.borrow_mut().add_program(machine);
        Self { world, index, batch: Vec::new() }
    }

    /// How many calls of the trait this host has answered; `now`, `waker` and `looked_up` don't count. Not the number of
    /// system calls that a real net would have made: some methods need two.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.world.borrow().programs[self.index as usize].calls
    }

    /// Begins a call: counts it, and lets happen what is due.
    fn enter(&self) -> RefMut<'_, World> {
        let mut world = self.world.borrow_mut();
        world.program(self.index).calls += 1;
        world.run_due();
        world
    }

    /// Begins a call on a connection.
    fn on(&self, slot: u32) -> Result<(RefMut<'_, World>, Id), Errno> {
        let world = self.enter();
        let id = world.programs[self.index as usize].slots.get(slot as usize).copied().flatten();
        id.map(|id| (world, id)).ok_or(Errno::BADF)
    }

    fn put(world: &mut World, host: u32, slot: u32, id: Id) {
        place(&mut world.program(host).slots, slot, id);
    }

    /// Takes the descriptor away from its place.
    fn take(&self, slot: u32) -> Option<(RefMut<'_, World>, Id)> {
        let (mut world, id) = self.on(slot).ok()?;
        world.program(self.index).slots[slot as usize] = None;
        let stale = world.faults.stale_news;
        if let Some(token) = world.ends.get(id).and_then(|end| end.token)
            && world.rng.chance(stale)
        {
            let all = Readiness { readable: true, writable: true, read_closed: true, ..Readiness::default() };
            world.notify(self.index, Source::Given(token, Readiness { write_closed: true, error: true, ..all }));
        }
        Some((world, id))
    }

    /// What getpeername(2) and SO_ERROR say together: `Ok(true)` if the phase is the one asked for, `Ok(false)` if not,
    /// and the error first if the connection has no peer.
    fn verdict(&self, slot: u32, asked: Phase) -> io::Result<bool> {
        let (mut world, id) = self.on(slot)?;
        let end = world.ends.get_mut(id).ok_or(Errno::BADF)?;
        match end.phase {
            Phase::Open => Ok(asked == Phase::Open),
            Phase::SynSent | Phase::SynReceived | Phase::Closed => match end.error.take() {
                Some(error) => Err(error.into()),
                None => Ok(end.phase == asked),
            },
        }
    }

    fn resolve(world: &mut World, host: &str, port: u16) -> Option<LookupAnswer> {
        let failure = world.faults.lookup_failure;
        if world.rng.chance(failure) {
            return Some(Err(LookupCause::TryAgain));
        }
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(Ok(vec![SocketAddr::new(ip, port)]));
        }
        Some(match world.names.get(host) {
            None => Err(LookupCause::NotFound),
            Some(Name::Hangs) => return None,
            Some(Name::Fails(cause)) => Err(*cause),
            Some(Name::Known(ips)) if ips.is_empty() => Err(LookupCause::NoAddress),
            Some(Name::Known(ips)) => Ok(ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect()),
        })
    }
}

impl Net for Host {
    fn now(&self) -> Instant {
        let world = self.world.borrow();
        world.instant(world.now)
    }

    fn poll(&mut self, timeout: Option<Duration>, news: &mut dyn FnMut(Token, Readiness)) -> io::Result<bool> {
        let mut batch = std::mem::take(&mut self.batch);
        let outcome = self.enter().wait(self.index, timeout, &mut batch);
        // The world is free again: whoever gets the news may look at it.
        for (token, readiness) in batch.drain(..) {
            news(token, readiness);
        }
        self.batch = batch;
        outcome
    }

    fn waker(&self) -> Box<dyn Fn() + Send + Sync> {
        let woken = Arc::clone(&self.world.borrow().programs[self.index as usize].woken);
        Box::new(move || woken.store(true, atomic::Ordering::Relaxed))
    }

    fn listen(&mut self, listener: u32, addr: SocketAddr, options: &Listen) -> io::Result<SocketAddr> {
        let mut world = self.enter();
        let machine = world.program(self.index).machine;
        let owner = Owner::Host { host: self.index, slot: listener };
        let id = world.listen(machine, owner, addr, options)?;
        place(&mut world.program(self.index).listeners, listener, id);
        Ok(world.listeners.get(id).map_or(addr, |listener| listener.addr))
    }

    fn accept(&mut self, listener: u32, slot: u32) -> io::Result<SocketAddr> {
        let mut world = self.enter();
        let id = world.program(self.index).listeners.get(listener as usize).copied().flatten().ok_or(Errno::BADF)?;
        let faults = world.faults;
        if world.rng.chance(faults.accept_exhausted) {
            let errors = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
            return Err(errors[world.rng.below(errors.len() as u64) as usize].into());
        }
        if world.rng.chance(faults.accept_aborted) {
            return Err(Errno::CONNABORTED.into());
        }
        let id = world.accept(id, Owner::Host { host: self.index, slot })?;
        Self::put(&mut world, self.index, slot, id);
        world.ends.get(id).map(|end| end.remote).ok_or_else(|| Errno::BADF.into())
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
        let mut world = self.enter();
        let exhausted = world.faults.connect_exhausted;
        if world.rng.chance(exhausted) {
            return Err(Errno::MFILE.into());
        }
        let machine = world.program(self.index).machine;
        let id = world.dial(machine, Owner::Host { host: self.index, slot }, addr, local, options)?;
        if let Some(end) = world.ends.get_mut(id) {
            end.token = Some(token);
        }
        Self::put(&mut world, self.index, slot, id);
        Ok(())
    }

    fn connected(&mut self, slot: u32) -> io::Result<bool> {
        self.verdict(slot, Phase::Open)
    }

    fn register(&mut self, slot: u32, token: Token) -> io::Result<()> {
        let (mut world, id) = self.on(slot)?;
        let exhausted = world.faults.register_exhausted;
        if world.rng.chance(exhausted) {
            return Err(Errno::NOSPC.into());
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

    fn recv(&mut self, slot: u32, buffer: &mut [u8]) -> io::Result<usize> {
        let (mut world, id) = self.on(slot)?;
        let faults = world.faults;
        let there = world.ends.get(id).map_or(0, |end| end.incoming.len()).min(buffer.len());
        if there > 1 && world.rng.chance(faults.short_read) {
            let part = 1 + world.rng.below(there as u64 - 1) as usize;
            let read = world.recv(id, &mut buffer[..part])?;
            // A reader may take a short read for drained, so the rest comes with an edge of its own.
            world.edge(id);
            return Ok(read);
        }
        Ok(world.recv(id, buffer)?)
    }

    fn peek(&mut self, slot: u32) -> io::Result<Unread> {
        let (mut world, id) = self.on(slot)?;
        Ok(world.peek(id)?)
    }

    fn send(&mut self, slot: u32, bytes: &[u8], more: bool) -> io::Result<usize> {
        let (mut world, id) = self.on(slot)?;
        let faults = world.faults;
        if bytes.len() > 1 && world.rng.chance(faults.short_write) {
            let part = 1 + world.rng.below(bytes.len() as u64 - 1) as usize;
            let sent = world.send(id, &bytes[..part], more, false)?;
            if sent == part {
                // As if the buffer had been full for a moment.
                world.edge(id);
            }
            return Ok(sent);
        }
        Ok(world.send(id, bytes, more, false)?)
    }

    fn finish(&mut self, slot: u32) -> io::Result<()> {
        let (mut world, id) = self.on(slot)?;
        Ok(world.finish(id)?)
    }

    fn acknowledged(&mut self, slot: u32) -> io::Result<bool> {
        self.verdict(slot, Phase::Closed)
    }

    fn take_error(&mut self, slot: u32) -> Option<io::Error> {
        match self.on(slot) {
            Ok((mut world, id)) => world.ends.get_mut(id)?.error.take().map(io::Error::from),
            Err(error) => Some(error.into()),
        }
    }

    fn close(&mut self, slot: u32) {
        if let Some((mut world, id)) = self.take(slot) {
            world.close(id);
        }
    }

    fn reset(&mut self, slot: u32) {
        if let Some((mut world, id)) = self.take(slot) {
            world.reset(id);
        }
    }

    /// Nothing to do: Nagle's algorithm is not simulated.
    fn set_nodelay(&mut self, slot: u32, _on: bool) -> io::Result<()> {
        Ok(self.on(slot).map(drop)?)
    }

    fn set_keep_alive(&mut self, slot: u32, times: Option<KeepAlive>) -> io::Result<()> {
        let (mut world, id) = self.on(slot)?;
        let now = world.now;
        let end = world.ends.get_mut(id).ok_or(Errno::BADF)?;
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
        Ok(world.ends.get(id).map(|end| end.local).ok_or(Errno::BADF)?)
    }

    fn lookup(&mut self, token: Token, host: &str, port: u16) {
        let mut world = self.enter();
        let most = nanos(world.faults.lookup_delay);
        let at = world.now + LOOKUP + world.rng.below(most);
        if let Some(answer) = Self::resolve(&mut world, host, port) {
            world.schedule(at, Happening::Lookup { host: self.index, token, answer });
        }
    }

    fn looked_up(&mut self) -> Option<(Token, LookupAnswer)> {
        let mut world = self.world.borrow_mut();
        world.run_due();
        world.program(self.index).answers.pop_front()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let mut world = self.world.borrow_mut();
        world.set_sleep(self.index, None);
        let program = world.program(self.index);
        program.ready.clear();
        let (slots, listeners) = (std::mem::take(&mut program.slots), std::mem::take(&mut program.listeners));
        for id in listeners.into_iter().flatten() {
            world.unlisten(id);
        }
        for id in slots.into_iter().flatten() {
            world.close(id);
        }
    }
}

fn place(places: &mut Vec<Option<Id>>, index: u32, id: Id) {
    let index = index as usize;
    if places.len() <= index {
        places.resize(index + 1, None);
    }
    places[index] = Some(id);
}
