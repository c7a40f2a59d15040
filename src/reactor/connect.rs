//! How an outgoing connection begins: lookup, attempts that race each other, their results.
//!
//! Invariant: each attempt in flight has a slot of its own in the net, the first of them the
//! socket's; all have the socket's token, so that readiness of any makes the socket check each. The
//! one that is established first is promoted to the socket's slot.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Reactor;
use super::step::{RETRY_TICKS, is_transient};
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
        self.table.extra_mut(slot).connecting.as_deref_mut()
    }

    /// The first step: an address needs no resolver.
    pub(super) fn begin(&mut self, slot: u32) {
        let token = self.token(slot);
        let Some(connecting) = self.table.extra_mut(slot).connecting.as_deref_mut() else { return };
        match &connecting.target {
            Target::Addr(addr) => connecting.addrs.push(*addr),
            Target::Addrs(addrs) => connecting.addrs.extend_from_slice(addrs),
            Target::Name { host, port } => {
                self.net.lookup(token, host, *port);
                return self.apply(slot, Input::LookupStarted);
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
        self.resolved(slot);
    }

    /// A result of the resolver. Its socket may be closed already.
    pub(super) fn looked_up(&mut self, token: Token, answer: LookupAnswer) {
        let Some(slot) = self.table.find_here(token.index, token.generation) else { return };
        let entry = self.table.entry(slot);
        if entry.state != State::Resolving || entry.flags.has(Flags::DESTROY) {
            return;
        }
        match (answer, self.connecting(slot)) {
            (Ok(addrs), Some(connecting)) => {
                connecting.addrs.extend(in_order(addrs));
                self.resolved(slot);
            }
            (Err(cause), _) => self.fail_connecting(slot, ConnectionError::of(ConnectionErrorKind::Lookup(cause))),
            (Ok(_), None) => {}
        }
        self.table.wake(slot);
    }

    /// The addresses are known, unless there are none.
    fn resolved(&mut self, slot: u32) {
        match self.connecting(slot).and_then(|connecting| connecting.addrs.first().copied()) {
            Some(first) => {
                self.table.set_peer(slot, first);
                self.apply(slot, Input::Resolved);
            }
            None => {
                self.fail_connecting(slot, ConnectionError::of(ConnectionErrorKind::Lookup(LookupErrorKind::NoAddress)))
            }
        }
    }

    /// All addresses are delivered: checks the attempts in flight, and begins the next if one
    /// failed.
    pub(super) fn continue_connecting(&mut self, slot: u32) {
        let waits = self.table.extra(slot).is_some_and(|extra| extra.retry_at.is_some());
        let is_in_flight = self.table.entry(slot).flags.has(Flags::REGISTERED);
        if (is_in_flight && self.check_attempts(slot)) || (!is_in_flight && !waits) {
            self.attempt(slot);
        }
    }

    /// The connect timeout has expired: no other handshake begins, but a result that the system
    /// knows already comes first.
    pub(super) fn expire_connecting(&mut self, slot: u32, failure: ConnectionError) {
        let has_failed = self.check_attempts(slot);
        let Some(connecting) = self.connecting(slot) else { return };
        let is_left = connecting.tried < connecting.addrs.len().max(1) || !connecting.in_flight.is_empty();
        if has_failed && !is_left {
            self.no_address_left(slot);
        } else {
            self.fail_connecting(slot, failure);
        }
    }

    /// Checks each attempt in flight, if there is readiness. Returns whether one has failed.
    fn check_attempts(&mut self, slot: u32) -> bool {
        let entry = self.table.entry(slot);
        if entry.state != State::Connecting || !entry.flags.has(Flags::REGISTERED) || !entry.flags.has(Flags::READINESS)
        {
            return false;
        }
        let (mut index, mut failed) = (0, false);
        while let Some(flight) = self.flight(slot, index) {
            match self.net.connected(flight.slot) {
                Ok(true) => {
                    self.promote(slot, flight, failed);
                    return false;
                }
                // The readiness was spurious, or its reason has passed: the handshake continues.
                Ok(false) => index += 1,
                Err(error) => {
                    failed = true;
                    self.drop_flight(slot, index, ConnectionError::from_os(&error));
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

    fn flight(&self, slot: u32, index: usize) -> Option<Flight> {
        self.table.extra(slot)?.connecting.as_ref()?.in_flight.get(index).copied()
    }

    /// The first established handshake becomes the connection; the others are dropped without an
    /// event.
    fn promote(&mut self, slot: u32, winner: Flight, was_contested: bool) {
        let Some(connecting) = self.connecting(slot) else { return };
        let was_contested = was_contested || connecting.in_flight.len() > 1 || winner.slot != slot;
        connecting.in_flight.retain(|flight| *flight != winner);
        let addr = connecting.addrs.get(winner.addr).copied();
        self.end_race(slot);
        if let Some(addr) = addr {
            self.table.set_peer(slot, addr);
        }
        if was_contested {
            // The recorded readiness may belong to another attempt.
            self.table.entry_mut(slot).flags.set(Flags::READINESS, false);
            let token = self.token(slot);
            let promoted = self.net.promote(winner.slot, slot, token);
            self.unreserve(slot, winner);
            match promoted {
                Ok(()) => {}
                // It is connected anyway, and is registered later, like an accepted one.
                Err(error) if passes(&error) => {
                    let flags = &mut self.table.entry_mut(slot).flags;
                    flags.set(Flags::READABLE, true);
                    flags.set(Flags::REGISTERED, false);
                }
                Err(error) => return self.fail_connecting(slot, ConnectionError::from_os(&error)),
            }
        }
        self.established(slot);
    }

    fn established(&mut self, slot: u32) {
        let extra = self.table.entry(slot).extra;
        self.table.extras.connected(extra);
        self.table.entry_mut(slot).flags.set(Flags::WRITABLE | Flags::IDLE, true);
        self.apply(slot, Input::Established);
        self.counts.connected += 1;
        self.begin_deadline(slot);
    }

    /// Starts the deadline of the options. A deadline that runs already stays if it is earlier.
    #[inline]
    pub(super) fn begin_deadline(&mut self, slot: u32) {
        if let Some(ms) = self.table.settings_of(slot).deadline_ms {
            self.begin_deadline_in(slot, ms);
        }
    }

    #[inline(never)]
    fn begin_deadline_in(&mut self, slot: u32, ms: u64) {
        // Only the total deadline can run already: a deadline that the program sets removes that of
        // the options.
        let total = self.table.extra(slot).and_then(|extra| extra.deadline);
        let is_earlier = |at: u64| at <= self.table.epoch.tick_after(self.net.now()).saturating_add(ms);
        if !matches!(total, Some(Deadline::At(at)) if is_earlier(at)) {
            self.table.extra_mut(slot).deadline = Some(Deadline::In(ms));
        }
    }

    /// Begins handshakes until another one is in flight or no address is left.
    fn attempt(&mut self, slot: u32) {
        while self.table.entry(slot).state == State::Connecting {
            let Some(connecting) = self.connecting(slot) else { return };
            let is_first = connecting.in_flight.is_empty();
            let (addr, count) = (connecting.tried, connecting.addrs.len());
            if addr >= count.max(1) {
                return if is_first { self.no_address_left(slot) } else { self.set_attempt_due(slot) };
            }
            connecting.tried += 1;
            connecting.held_up = None;
            let is_taken = connecting.in_flight.iter().any(|flight| flight.slot == slot);
            let flight = Flight { slot: if is_taken { self.table.reserve() } else { slot }, addr };
            match self.begin_attempt(slot, flight) {
                Ok(()) => {
                    let flags = &mut self.table.entry_mut(slot).flags;
                    if is_first {
                        // Nothing is known of this attempt, whatever flags the last one has left.
                        flags.set(Flags::READINESS, false);
                    }
                    flags.set(Flags::REGISTERED, true);
                    return self.set_attempt_due(slot);
                }
                // An unused kernel pipe had the descriptor that is needed.
                Err(error) if lacks_descriptor(&error) && self.table.extras.pipes().close() => {
                    self.unreserve(slot, flight);
                    self.connecting(slot).into_iter().for_each(|connecting| connecting.tried -= 1);
                }
                // The failure does not depend on the address: it is tried again after a pause.
                Err(error) if has_to_wait(&error, count > 1) => {
                    self.unreserve(slot, flight);
                    return self.attempt_again(slot, is_first, ConnectionErrorKind::from_os(&error));
                }
                Err(error) => {
                    if let Some(connecting) = self.connecting(slot) {
                        connecting.in_flight.push(flight);
                        let newest = connecting.in_flight.len() - 1;
                        self.drop_flight(slot, newest, ConnectionError::from_os(&error));
                    }
                }
            }
        }
    }

    /// Begins one handshake, which is in flight unless this returns an error.
    fn begin_attempt(&mut self, slot: u32, flight: Flight) -> io::Result<()> {
        let token = self.token(slot);
        let Some(connecting) = self.table.extra_mut(slot).connecting.as_deref_mut() else { return Ok(()) };
        let addr = connecting.addrs.get(flight.addr).copied();
        match (&connecting.target, addr) {
            (Target::Unix(addr), _) => self.net.connect_unix(flight.slot, token, addr, &connecting.system),
            // Nothing can listen there. Linux would send a SYN, and a silent host would not answer it.
            (_, Some(addr)) if addr.port() == 0 => Err(Errno::CONNREFUSED.into()),
            (_, Some(addr)) => self.net.connect(flight.slot, token, addr, &connecting.system, connecting.local),
            (_, None) => Err(Errno::ADDRNOTAVAIL.into()),
        }?;
        connecting.in_flight.push(flight);
        if let Some(addr) = addr {
            self.table.set_peer(slot, addr);
        }
        Ok(())
    }

    /// The last address is tried again. The next attempt that fails frees a descriptor.
    fn attempt_again(&mut self, slot: u32, is_first: bool, cause: ConnectionErrorKind) {
        let Some(connecting) = self.connecting(slot) else { return };
        connecting.tried -= 1;
        connecting.held_up = Some(cause);
        connecting.attempt_due = None;
        if is_first {
            self.table.retry_later(slot, RETRY_TICKS);
        } else {
            self.set_attempt_due(slot);
            let earliest = self.table.epoch.tick_after(self.net.now()) + RETRY_TICKS;
            if let Some(due) = self.connecting(slot).and_then(|connecting| connecting.attempt_due.as_mut()) {
                *due = earliest.max(*due);
            }
        }
    }

    /// When the next address joins the attempts in flight, if there is one.
    fn set_attempt_due(&mut self, slot: u32) {
        let now = self.table.epoch.tick_after(self.net.now());
        let Some(connecting) = self.connecting(slot) else { return };
        let has_next = connecting.tried < connecting.addrs.len();
        connecting.attempt_due = connecting.delay_ms.filter(|_| has_next).map(|ms| now.saturating_add(ms));
    }

    /// The attempt delay has passed: the next address joins.
    pub(super) fn next_attempt(&mut self, slot: u32) {
        if let Some(connecting) = self.connecting(slot) {
            connecting.attempt_due = None;
        }
        self.check_attempts(slot);
        self.attempt(slot);
    }

    /// One of the attempts in flight has failed, or could not be begun.
    fn drop_flight(&mut self, slot: u32, index: usize, failure: ConnectionError) {
        let Some(connecting) = self.connecting(slot) else { return };
        let flight = connecting.in_flight.remove(index);
        // A Unix domain socket has one attempt, without an address to record.
        if let Some(&addr) = connecting.addrs.get(flight.addr) {
            connecting.failed.push(ConnectAttempt { addr, kind: failure.kind });
        }
        connecting.first_failure.get_or_insert(failure);
        connecting.attempt_due = None;
        let was_last = connecting.in_flight.is_empty();
        self.net.close(flight.slot);
        self.listeners.retry();
        self.unreserve(slot, flight);
        if was_last {
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
    }

    /// Drops every attempt in flight with a reset: an orderly end would look to its peer like a
    /// connection without data.
    fn end_race(&mut self, slot: u32) {
        while let Some(flight) = self.flight(slot, 0) {
            self.net.reset(flight.slot);
            self.listeners.retry();
            self.unreserve(slot, flight);
            if let Some(connecting) = self.connecting(slot) {
                connecting.in_flight.remove(0);
            }
        }
    }

    /// The socket was never connected. Its failure lists every address that was tried, including
    /// those in flight and the one that could not be begun.
    fn fail_connecting(&mut self, slot: u32, mut failure: ConnectionError) {
        if let Some(connecting) = self.connecting(slot) {
            let in_flight = connecting.in_flight.iter().map(|flight| (flight.addr, failure.kind));
            for (addr, kind) in in_flight.chain(connecting.held_up.map(|kind| (connecting.tried, kind))) {
                connecting.failed.extend(connecting.addrs.get(addr).map(|&addr| ConnectAttempt { addr, kind }));
            }
        }
        self.give_up_connecting(slot);
        let connecting = self.table.extra_mut(slot).connecting.take();
        failure.attempts = connecting.map_or(Vec::new(), |connecting| connecting.failed);
        self.at(slot).fail(failure);
    }

    fn no_address_left(&mut self, slot: u32) {
        let first = self.connecting(slot).and_then(|connecting| connecting.first_failure.take());
        self.fail_connecting(slot, first.unwrap_or(ConnectionError::of(ConnectionErrorKind::Unreachable)));
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

/// Whether an attempt could not be begun for a temporary reason, or for lack of a descriptor while
/// several addresses are tried. With one address the lack is reported to the program, because its
/// own connections hold all descriptors.
fn has_to_wait(error: &io::Error, is_race: bool) -> bool {
    passes(error) || (lacks_descriptor(error) && is_race)
}

pub(super) fn lacks_descriptor(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Whether the reason is temporary: no memory, an interruption, a full queue of a Unix listener.
fn passes(error: &io::Error) -> bool {
    is_transient(error) || matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Every distinct address once, alternating between the families, beginning with the family of the
/// first address (RFC 8305 section 4): an unreachable family does not delay the other by all its
/// addresses.
fn in_order(answer: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut distinct: Vec<SocketAddr> = Vec::with_capacity(answer.len());
    for addr in answer {
        if !distinct.contains(&addr) {
            distinct.push(addr);
        }
    }
    let first_is_v6 = distinct.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = distinct.into_iter().partition(|addr| addr.is_ipv6() == first_is_v6);
    let mut ordered = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        match (first.next(), second.next()) {
            (None, None) => return ordered,
            (one, other) => ordered.extend(one.into_iter().chain(other)),
        }
    }
}

#[cfg(test)]
mod tests;
