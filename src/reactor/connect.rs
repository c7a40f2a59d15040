//! How an outgoing connection begins: lookup, attempts that race each other, their results.
//!
//! Invariant: each attempt in flight has a slot of its own in the net, the first of them the
//! socket's; all have the socket's token, so that readiness of any makes the socket check each. The
//! one that is established first is promoted to the socket's slot.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Reactor;
use super::step::is_transient;
use rustix::io::Errno;

use crate::error::{ConnectAttempt, ConnectionError, ConnectionErrorKind, Error, LookupErrorKind};
use crate::id::SocketId;
use crate::lifecycle::{Emits, Input, State};
use crate::net::{LookupAnswer, Net, Token};
use crate::options::ConnectOptions;
use crate::table::entry::Flags;
use crate::table::extra::{Connecting, Deadline, Flight};
use crate::target::Target;

impl<N: Net> Reactor<N> {
    /// Begins a connection to an address or a host name: `"example.org:80"`, a [`SocketAddr`], a
    /// pair of address or name and port, a list of addresses; or to a [Unix domain
    /// socket](crate::UnixAddr), `"unix:/run/app.sock"`, which has no `lookup`. Several addresses
    /// race each other (RFC 8305, see [`ConnectOptions::attempt_delay`]): the first that is
    /// connected is kept. Later failures are delivered as events. A connection that was reset
    /// before finale saw it established counts as a failed attempt, and bytes that it had received
    /// are lost.
    ///
    /// # Errors
    /// [`Error::InvalidAddress`] for text that is not an address, [`Error::InvalidOption`] for
    /// invalid options.
    #[doc(alias = "createConnection")]
    #[doc(alias = "uv_tcp_connect")]
    #[doc(alias = "happy eyeballs")]
    pub fn connect<T>(&mut self, target: T, options: ConnectOptions) -> Result<SocketId, Error>
    where
        T: TryInto<Target>,
        Error: From<T::Error>,
    {
        self.context().connect(target, options)
    }

    fn connecting(&mut self, slot: u32) -> Option<&mut Connecting> {
        let extra = self.table.entry(slot).extra;
        self.table.extras.get_mut(extra)?.connecting.as_deref_mut()
    }

    /// The first step: an address needs no resolver.
    pub(super) fn begin(&mut self, slot: u32) {
        let token = self.token(slot);
        let Some(connecting) = self.table.extra_mut(slot).connecting.as_deref_mut() else { return };
        match &connecting.target {
            Target::Addr(addr) => connecting.addrs.push(*addr),
            Target::Addrs(addrs) => connecting.addrs.extend_from_slice(addrs),
            Target::Name { host, port } => {
                let begun = self.net.lookup(token, host, *port);
                // There may be no thread for it now.
                if begun.as_ref().is_err_and(|error| has_to_wait(error, false)) {
                    return self.table.extra_mut(slot).retry_later();
                }
                self.apply(slot, Input::LookupStarted);
                if begun.is_err() {
                    let failure = ConnectionErrorKind::Lookup(LookupErrorKind::Failed);
                    self.fail_connecting(slot, ConnectionError::of(failure));
                }
                return;
            }
            Target::Unix(_) => {
                // It has no address that `lookup` could deliver.
                self.apply(slot, Input::Resolved);
                return self.table.entry_mut(slot).flags.take_pending(Emits::Lookup);
            }
        }
        if connecting.addrs.is_empty() {
            self.apply(slot, Input::LookupStarted);
        }
        self.resolved(slot, LookupErrorKind::NoAddress);
    }

    /// A result of the resolver. Its socket may be closed already.
    pub(super) fn looked_up(&mut self, token: Token, answer: LookupAnswer) {
        let Some(slot) = self.table.find_here(token.index, token.generation) else { return };
        let entry = self.table.entry(slot);
        if entry.state != State::Resolving || entry.flags.has(Flags::DESTROY) {
            return;
        }
        let cause = answer.as_ref().err().copied().unwrap_or(LookupErrorKind::NoAddress);
        if let (Ok(addrs), Some(connecting)) = (answer, self.connecting(slot)) {
            connecting.addrs.extend(in_order(addrs));
        }
        self.resolved(slot, cause);
        self.table.wake(slot);
    }

    /// The addresses are known, or why there are none.
    fn resolved(&mut self, slot: u32, cause: LookupErrorKind) {
        match self.connecting(slot).and_then(|connecting| connecting.addrs.first().copied()) {
            Some(first) => {
                self.table.set_peer(slot, first);
                self.apply(slot, Input::Resolved);
            }
            None => self.fail_connecting(slot, ConnectionError::of(ConnectionErrorKind::Lookup(cause))),
        }
    }

    /// All addresses are delivered: checks the attempts in flight, and begins the next if one has
    /// failed, if none is in flight, or if its time has come.
    pub(super) fn continue_connecting(&mut self, slot: u32) {
        let Some(extra) = self.table.extra(slot) else { return };
        let Some(connecting) = &extra.connecting else { return };
        let waits = connecting.held_up.is_some() || connecting.in_flight.is_empty();
        let joins = connecting.attempt_due.is_some_and(|due| due <= self.turn.now);
        let is_due = joins || (waits && extra.retry_at.is_none());
        if self.check_attempts(slot) || is_due {
            self.attempt(slot);
        }
    }

    /// The connect timeout has expired: no other handshake begins, but a result that the system
    /// knows already comes first.
    pub(super) fn expire_connecting(&mut self, slot: u32, failure: ConnectionError) {
        let has_failed = self.check_attempts(slot);
        let Some(connecting) = self.connecting(slot) else { return };
        let is_left = connecting.tried < connecting.addrs.len().max(1) || !connecting.in_flight.is_empty();
        if has_failed && !is_left { self.attempt(slot) } else { self.fail_connecting(slot, failure) }
    }

    /// Checks each attempt in flight, if there is readiness. Returns whether one has failed.
    fn check_attempts(&mut self, slot: u32) -> bool {
        let flags = self.table.entry(slot).flags;
        if !flags.has(Flags::REGISTERED) || !flags.has(Flags::READINESS) {
            return false;
        }
        let (mut index, mut failed) = (0, false);
        while let Some(flight) = self.connecting(slot).and_then(|connecting| connecting.in_flight.get(index).copied()) {
            match self.net.connected(flight.slot) {
                Ok(true) => {
                    self.promote(slot, flight);
                    return false;
                }
                // The readiness was spurious, or its reason has passed: the handshake continues.
                Ok(false) => index += 1,
                Err(error) => {
                    failed = true;
                    self.drop_flight(slot, flight, ConnectionError::from_os(&error));
                }
            }
        }
        self.table.entry_mut(slot).flags.set(Flags::READINESS, false);
        failed
    }

    /// The slots that are reserved for attempts of this socket.
    pub(super) fn reserved_slots(&self, slot: u32) -> impl Iterator<Item = u32> + '_ {
        let connecting = self.table.extra(slot).and_then(|extra| extra.connecting.as_ref());
        let flights = connecting.into_iter().flat_map(|connecting| &connecting.in_flight);
        flights.map(|flight| flight.slot).filter(move |other| *other != slot)
    }

    /// The first established handshake becomes the connection; the others are dropped without an
    /// event.
    fn promote(&mut self, slot: u32, winner: Flight) {
        let Some(connecting) = self.connecting(slot) else { return };
        let was_alone = connecting.tried == 1;
        connecting.in_flight.retain(|flight| *flight != winner);
        let addr = connecting.addrs.get(winner.addr).copied();
        self.end_race(slot);
        if let Some(addr) = addr {
            self.table.set_peer(slot, addr);
        }
        if !was_alone {
            // The recorded readiness may belong to another attempt, also to one that has failed.
            self.table.entry_mut(slot).flags.set(Flags::READINESS, false);
            let token = self.token(slot);
            if self.net.promote(winner.slot, slot, token).is_err() {
                // It is connected anyway, and is registered later, like an accepted one.
                let flags = &mut self.table.entry_mut(slot).flags;
                flags.set(Flags::READABLE, true);
                flags.set(Flags::REGISTERED, false);
            }
            self.unreserve(slot, winner);
        }
        self.established(slot);
    }

    fn established(&mut self, slot: u32) {
        self.table.extra_mut(slot).retry_at = None;
        let extra = self.table.entry(slot).extra;
        self.table.extras.connected(extra);
        self.table.entry_mut(slot).flags.set(Flags::WRITABLE | Flags::IDLE, true);
        self.apply(slot, Input::Established);
        self.counts.connected += 1;
        if let Some(ms) = self.table.settings_of(slot).deadline_ms {
            self.begin_deadline(slot, ms);
        }
    }

    /// Starts the deadline of the options. A deadline that runs already stays if it is earlier.
    #[inline(never)]
    pub(super) fn begin_deadline(&mut self, slot: u32, ms: u64) {
        // Only the total deadline can run already: a deadline that the program sets removes that of
        // the options.
        let total = self.table.extra(slot).and_then(|extra| extra.deadline);
        let is_earlier = |at: u64| at <= self.table.epoch.tick_after(self.net.now()).saturating_add(ms);
        if !matches!(total, Some(Deadline::At(at)) if is_earlier(at)) {
            self.table.extra_mut(slot).deadline = Some(Deadline::In(ms));
        }
    }

    /// Begins the next handshake, if an address is left. If it fails at once, the one after it has a
    /// step of its own: a name can have thousands of addresses.
    fn attempt(&mut self, slot: u32) {
        let Some(connecting) = self.connecting(slot) else { return };
        (connecting.held_up, connecting.attempt_due) = (None, None);
        let is_first = connecting.in_flight.is_empty();
        let (addr, count) = (connecting.tried, connecting.addrs.len());
        if addr >= count.max(1) {
            if is_first {
                let first = connecting.failed.first().map(|(_, failure)| failure.clone());
                self.fail_connecting(slot, first.unwrap_or(ConnectionError::of(ConnectionErrorKind::Unreachable)));
            }
            return;
        }
        match self.begin_attempt(slot, addr) {
            Ok(()) => self.table.entry_mut(slot).flags.set(Flags::REGISTERED, true),
            Err(error) if self.frees_descriptor(&error) => self.attempt(slot),
            // The failure does not depend on the address: it is tried again after a pause, or when an
            // attempt has failed, which frees a descriptor.
            Err(error) if has_to_wait(&error, count > 1) => {
                let cause = ConnectionErrorKind::from_os(&error);
                self.connecting(slot).into_iter().for_each(|connecting| connecting.held_up = Some(cause));
                self.table.extra_mut(slot).retry_later();
            }
            Err(error) => {
                self.failed(slot, addr, ConnectionError::from_os(&error));
                self.connecting(slot).into_iter().for_each(|connecting| connecting.attempt_due = Some(0));
                self.table.entry_mut(slot).flags.set(Flags::SOON, true);
            }
        }
    }

    /// A call lacks a descriptor: closes kernel pipes that are not used. Returns whether there were
    /// any, so that the call can be repeated.
    pub(super) fn frees_descriptor(&mut self, error: &io::Error) -> bool {
        lacks_descriptor(error) && self.table.extras.pipes().close()
    }

    /// Begins one handshake, which is in flight unless this returns an error.
    fn begin_attempt(&mut self, slot: u32, index: usize) -> io::Result<()> {
        let (token, now) = (self.token(slot), self.table.epoch.tick_after(self.net.now()));
        let Some(connecting) = self.connecting(slot) else { return Ok(()) };
        let is_taken = connecting.in_flight.iter().any(|flight| flight.slot == slot);
        let flight = Flight { slot: if is_taken { self.table.reserve() } else { slot }, addr: index };
        let Some(connecting) = self.table.extra_mut(slot).connecting.as_deref_mut() else { return Ok(()) };
        let addr = connecting.addrs.get(index).copied();
        let begun = match (&connecting.target, addr) {
            (Target::Unix(addr), _) => self.net.connect_unix(flight.slot, token, addr, &connecting.system),
            // Nothing can listen there. Linux would send a SYN, and a silent host would not answer it.
            (_, Some(addr)) if addr.port() == 0 => Err(Errno::CONNREFUSED.into()),
            (_, Some(addr)) => self.net.connect(flight.slot, token, addr, &connecting.system, connecting.local),
            (_, None) => Err(Errno::ADDRNOTAVAIL.into()),
        };
        if begun.is_err() {
            self.unreserve(slot, flight);
            return begun;
        }
        connecting.tried += 1;
        connecting.in_flight.push(flight);
        let has_next = connecting.tried < connecting.addrs.len();
        connecting.attempt_due = connecting.delay_ms.filter(|_| has_next).map(|ms| now.saturating_add(ms));
        if let Some(addr) = addr {
            self.table.set_peer(slot, addr);
        }
        begun
    }

    /// One of the attempts in flight has failed.
    fn drop_flight(&mut self, slot: u32, flight: Flight, failure: ConnectionError) {
        self.connecting(slot).into_iter().for_each(|connecting| connecting.in_flight.retain(|other| *other != flight));
        self.net.close(flight.slot);
        self.listeners.retry();
        self.unreserve(slot, flight);
        self.failed(slot, flight.addr, failure);
    }

    /// An attempt has failed, or could not be begun.
    fn failed(&mut self, slot: u32, addr: usize, failure: ConnectionError) {
        let Some(connecting) = self.connecting(slot) else { return };
        connecting.tried = connecting.tried.max(addr + 1);
        connecting.failed.push((addr, failure));
        if connecting.in_flight.is_empty() {
            self.table.entry_mut(slot).flags.set(Flags::REGISTERED, false);
        }
        self.apply(slot, Input::NextAddress);
    }

    fn unreserve(&mut self, slot: u32, flight: Flight) {
        if flight.slot != slot {
            self.table.unreserve(flight.slot);
        }
    }

    /// The connection is not wanted any more.
    pub(super) fn give_up_connecting(&mut self, slot: u32) {
        if self.table.entry(slot).state == State::Resolving {
            let token = self.token(slot);
            self.net.forget_lookup(token);
        }
        self.end_race(slot);
        // What the attempts have reported says nothing of a peer.
        self.table.entry_mut(slot).flags.set(Flags::READINESS, false);
    }

    /// Drops every attempt in flight with a reset: an orderly end would look to its peer like a
    /// connection without data.
    fn end_race(&mut self, slot: u32) {
        while let Some(flight) = self.connecting(slot).and_then(|connecting| connecting.in_flight.pop()) {
            self.net.reset(flight.slot);
            self.listeners.retry();
            self.unreserve(slot, flight);
        }
    }

    /// The socket was never connected. Its failure lists every address that was tried, including
    /// those in flight and the one that could not be begun.
    fn fail_connecting(&mut self, slot: u32, mut failure: ConnectionError) {
        if let Some(connecting) = self.connecting(slot) {
            let failed = connecting.failed.iter().map(|(addr, failure)| (*addr, failure.kind));
            let in_flight = connecting.in_flight.iter().map(|flight| (flight.addr, failure.kind));
            let held_up = connecting.held_up.map(|kind| (connecting.tried, kind));
            // A Unix domain socket has one attempt, without an address.
            let attempt = |(addr, kind)| connecting.addrs.get(addr).map(|&addr| ConnectAttempt { addr, kind });
            failure.attempts = failed.chain(in_flight).chain(held_up).filter_map(attempt).collect();
        }
        self.give_up_connecting(slot);
        self.table.extra_mut(slot).connecting = None;
        self.at(slot).fail(failure);
    }
}

impl Reactor {
    /// Resolves host names with `resolve` instead of the system's getaddrinfo(3). Given a host and
    /// a port it returns all addresses, the preferred one first, or the reason why there are none.
    /// It runs on at most four resolver threads, so it may block. A lookup that waits for a thread
    /// has its socket's connect timeout, and is dropped with the socket. If `resolve` panics, the
    /// lookup has failed ([`LookupErrorKind::Failed`](crate::LookupErrorKind)).
    ///
    /// A program that does not want threads looks names up itself, and connects to a list of
    /// addresses ([`Target::Addrs`]). On the [simulated network](crate#testing) names are defined by
    /// `sim::Network::name`.
    ///
    /// ```
    /// # use finale::{LookupErrorKind, Reactor};
    /// # use std::net::SocketAddr;
    /// let mut reactor = Reactor::new()?;
    /// reactor.set_resolver(|host, port| match host {
    ///     "backend" => Ok(vec![SocketAddr::from(([10, 0, 0, 7], port)), SocketAddr::from(([10, 0, 0, 8], port))]),
    ///     _ => Err(LookupErrorKind::NotFound),
    /// });
    /// # Ok::<(), finale::Error>(())
    /// ```
    #[doc(alias = "getaddrinfo")]
    #[doc(alias = "dns.lookup")]
    #[doc(alias = "uv_getaddrinfo")]
    pub fn set_resolver(
        &mut self,
        resolve: impl Fn(&str, u16) -> Result<Vec<SocketAddr>, LookupErrorKind> + Send + Sync + 'static,
    ) {
        self.net.set_resolver(Arc::new(resolve));
    }
}

/// Whether an attempt could not be begun for a temporary reason (no memory, an interruption, a full
/// queue of a Unix listener), or for lack of a descriptor while several addresses are tried. With
/// one address the lack is reported to the program, because its own connections hold all
/// descriptors.
fn has_to_wait(error: &io::Error, is_race: bool) -> bool {
    let passes = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
    passes || is_transient(error) || (lacks_descriptor(error) && is_race)
}

fn lacks_descriptor(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Every distinct address once, alternating between the families, beginning with the family of the
/// first address (RFC 8305 section 4): an unreachable family does not delay the other by all its
/// addresses.
fn in_order(mut answer: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut seen = HashSet::new();
    answer.retain(|addr| seen.insert(*addr));
    let first_is_v6 = answer.first().is_some_and(SocketAddr::is_ipv6);
    let (first, other): (Vec<_>, Vec<_>) = answer.into_iter().partition(|addr| addr.is_ipv6() == first_is_v6);
    let (mut first, mut other, mut ordered) = (first.into_iter(), other.into_iter(), Vec::new());
    while first.len() + other.len() > 0 {
        ordered.extend(first.next().into_iter().chain(other.next()));
    }
    ordered
}

#[cfg(test)]
mod tests;
