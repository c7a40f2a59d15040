//! How an outgoing connection begins: look-up, attempts that race each other, the verdict.
//!
//! Invariant: each attempt under way has a place of its own in the net, the first of them the socket's own; all have the socket's
//! token, so that news of any makes the socket ask after each. When one has won it is moved into the socket's place.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Reactor;
use super::work::input_for;
use crate::error::{Attempt, Cause, Error, Failure};
use crate::id::SocketId;
use crate::lifecycle::{Input, State, Tell};
use crate::net::{LookupAnswer, Net, Token};
use crate::options::Connect;
use crate::table::entry::Flags;
use crate::table::extra::{Connecting, Racer};
use crate::target::Target;

/// What can be known of a handshake before its verdict.
const NEWS: Flags = Flags::READABLE.and(Flags::WRITABLE).and(Flags::READ_CLOSED).and(Flags::LOOK);

impl Reactor {
    /// Has host names looked up by `resolve` in place of the system's getaddrinfo(3): given a host and a port it answers all
    /// addresses, the preferred first, or why there are none. It runs on the threads that look-ups have, four at the most, so it may
    /// block; what waits for a thread has its socket's connect timeout, and is dropped with the socket. One that panics has failed
    /// ([`LookupCause::Failed`](crate::LookupCause)).
    ///
    /// A program that does not want threads looks names up itself, and connects to a list of addresses
    /// ([`Target::Addrs`]). On the [simulated network](crate::sim) names are given by
    /// [`Network::name`](crate::sim::Network::name).
    ///
    /// ```
    /// # use finale::{LookupCause, Reactor};
    /// # use std::net::SocketAddr;
    /// let mut reactor = Reactor::new()?;
    /// reactor.set_resolver(|host, port| match host {
    ///     "backend" => Ok(vec![SocketAddr::from(([10, 0, 0, 7], port)), SocketAddr::from(([10, 0, 0, 8], port))]),
    ///     _ => Err(LookupCause::NotFound),
    /// });
    /// # Ok::<(), finale::Error>(())
    /// ```
    pub fn set_resolver(&mut self, resolve: impl Fn(&str, u16) -> LookupAnswer + Send + Sync + 'static) {
        self.net.set_resolver(Arc::new(resolve));
    }
}

impl<N: Net> Reactor<N> {
    /// Begins a connection to an address or a host name: `"example.org:80"`, a [`SocketAddr`], a pair of address or name
    /// and port, a list of addresses; or to a [Unix domain socket](crate::UnixAddr), `"unix:/run/app.sock"`, which tells no `lookup`. Several addresses race each other (RFC 8305, see
    /// [`Connect::attempt_delay`]): the first that is connected is kept. Whatever goes
    /// wrong on the way is told as an event; a connection that was reset before this side had seen it established counts
    /// as an attempt that failed, and what it had brought is lost with it.
    ///
    /// # Errors
    /// [`Error::BadAddress`] for text that is no address, [`Error::BadOption`] for options that the system can't honour.
    pub fn connect<T>(&mut self, target: T, options: Connect) -> Result<SocketId, Error>
    where
        T: TryInto<Target>,
        Error: From<T::Error>,
    {
        let target = target.try_into()?;
        options.check()?;
        let Connect { system, settings, local, attempt_delay_ms } = options;
        let settings = self.table.settings.intern(settings);
        let slot = self.table.insert(settings);
        self.counts.begun += 1;
        let connecting = self.table.extras.connecting(target, system, local, attempt_delay_ms);
        self.table.extra_mut(slot).connecting = Some(connecting);
        let now = self.tick_after(self.net.now());
        self.table.arm(slot, now);
        self.table.push_ready(slot);
        Ok(self.table.id(slot))
    }

    fn connecting(&mut self, slot: u32) -> Option<&mut Connecting> {
        self.table.extra_mut(slot).connecting.as_deref_mut()
    }

    /// The first step: an address needs no resolver.
    pub(super) fn begin(&mut self, slot: u32) {
        let token = self.token(slot);
        let Some(connecting) = self.table.extra_mut(slot).connecting.as_deref_mut() else { return };
        match &connecting.target {
            Target::Addr(addr) => {
                let addr = *addr;
                self.resolved(slot, &[addr]);
            }
            Target::Addrs(addrs) if addrs.is_empty() => {
                self.apply(slot, Input::LookupStarted);
                self.fail(slot, Failure::of(Cause::Lookup(crate::LookupCause::NoAddress)), Input::LookupFailed);
            }
            Target::Addrs(addrs) => {
                let addrs = addrs.clone();
                self.resolved(slot, &addrs);
            }
            Target::Name { host, port } => {
                self.net.lookup(token, host, *port);
                self.apply(slot, Input::LookupStarted);
            }
            Target::Unix(_) => {
                // No address to be told.
                self.apply(slot, Input::Resolved);
                self.table.entry_mut(slot).flags.paid(Tell::Lookup);
            }
        }
    }

    /// An answer of the resolver, perhaps for a socket that is gone.
    pub(super) fn looked_up(&mut self, token: Token, answer: LookupAnswer) {
        let Some(slot) = self.table.find(SocketId::new(token.index, token.generation)) else { return };
        let entry = self.table.entry(slot);
        if entry.state != State::Resolving || entry.flags.has(Flags::DESTROY) {
            return;
        }
        match answer.map(in_order) {
            Ok(addrs) if !addrs.is_empty() => self.resolved(slot, &addrs),
            Ok(_) => self.fail(slot, Failure::of(Cause::Lookup(crate::LookupCause::NoAddress)), Input::LookupFailed),
            Err(cause) => self.fail(slot, Failure::of(Cause::Lookup(cause)), Input::LookupFailed),
        }
        self.table.push_ready(slot);
    }

    fn resolved(&mut self, slot: u32, addrs: &[SocketAddr]) {
        self.table.set_peer(slot, addrs[0]);
        if let Some(connecting) = self.connecting(slot) {
            connecting.addrs.extend_from_slice(addrs);
        }
        self.apply(slot, Input::Resolved);
    }

    /// All addresses are told: asks for the verdict on each attempt under way, and begins the next where one has failed.
    pub(super) fn go_on_connecting(&mut self, slot: u32) {
        if !self.table.entry(slot).flags.has(Flags::ATTEMPT) || self.ask_for_verdicts(slot) {
            self.attempt(slot);
        }
    }

    /// The connect timeout has run out: no handshake begins any more, but a verdict that waits to be asked for comes first.
    pub(super) fn ask_for_last_verdicts(&mut self, slot: u32) {
        let has_failed = self.table.entry(slot).flags.has(Flags::ATTEMPT) && self.ask_for_verdicts(slot);
        let is_left = |way: &Connecting| way.tried < way.addrs.len() || !way.racers.is_empty();
        if has_failed && self.connecting(slot).is_some_and(|way| !is_left(way)) {
            self.no_address_left(slot);
        }
    }

    /// Asks for the verdict on each attempt under way, if there is news. Whether one has failed.
    fn ask_for_verdicts(&mut self, slot: u32) -> bool {
        if !self.table.entry(slot).flags.has(NEWS) {
            return false;
        }
        let (mut place, mut failed) = (0, false);
        while let Some(racer) = self.racer(slot, place) {
            match self.net.connected(racer.place) {
                Ok(true) => {
                    self.won(slot, racer, failed);
                    return false;
                }
                // The flag had no reason, or its reason has passed: the handshake goes on.
                Ok(false) => place += 1,
                Err(error) => {
                    failed = true;
                    self.lost(slot, place, Failure::from_os(&error));
                }
            }
        }
        self.table.entry_mut(slot).flags.set(NEWS, false);
        failed
    }

    /// How many places the attempts under way have beside the socket's own.
    pub(super) fn places_of_racers(&self, slot: u32) -> usize {
        let connecting = self.table.extra(slot).and_then(|extra| extra.connecting.as_ref());
        connecting.map_or(0, |way| way.racers.iter().filter(|racer| racer.place != slot).count())
    }

    fn racer(&self, slot: u32, place: usize) -> Option<Racer> {
        self.table.extra(slot)?.connecting.as_ref()?.racers.get(place).copied()
    }

    /// The first handshake that is done is the connection's; the others are dropped, and tell nothing.
    fn won(&mut self, slot: u32, winner: Racer, was_contested: bool) {
        let Some(connecting) = self.connecting(slot) else { return };
        let was_contested = was_contested || connecting.racers.len() > 1 || winner.place != slot;
        connecting.racers.retain(|racer| *racer != winner);
        let addr = connecting.addrs.get(winner.addr).copied();
        self.end_race(slot);
        if let Some(addr) = addr {
            self.table.set_peer(slot, addr);
        }
        if was_contested {
            // What was told may have been news of another.
            self.table.entry_mut(slot).flags.set(NEWS, false);
            let token = self.token(slot);
            let handed_over = self.net.promote(winner.place, slot, token);
            if winner.place != slot {
                self.table.unreserve(winner.place);
            }
            if let Err(error) = handed_over {
                let failure = Failure::from_os(&error);
                let input = input_for(failure.cause, Input::ConnectFailed);
                return self.fail(slot, failure, input);
            }
        }
        self.established(slot);
    }

    fn established(&mut self, slot: u32) {
        self.table.connected(slot);
        let flags = &mut self.table.entry_mut(slot).flags;
        flags.set(Flags::ATTEMPT, false);
        flags.set(Flags::WRITABLE | Flags::TOUCHED, true);
        self.apply(slot, Input::Established);
        self.counts.connected += 1;
        if self.table.settings_of(slot).deadline_ms.is_some() {
            self.give_deadline(slot);
        }
    }

    /// Begins handshakes until one more is under way or no address is left.
    fn attempt(&mut self, slot: u32) {
        while self.table.entry(slot).state == State::Connecting {
            let token = self.token(slot);
            let is_taken = |racer: &Racer| racer.place == slot;
            let Some(connecting) = self.table.extra_mut(slot).connecting.as_deref_mut() else { return };
            let is_first = connecting.racers.is_empty();
            let addr = connecting.tried;
            if addr >= connecting.addrs.len().max(1) {
                return if is_first { self.no_address_left(slot) } else { self.set_attempt_due(slot) };
            }
            connecting.tried += 1;
            let place = if connecting.racers.iter().any(is_taken) { self.table.reserve() } else { slot };
            let Some(connecting) = self.table.extra_mut(slot).connecting.as_deref_mut() else { return };
            let started = match (&connecting.target, connecting.addrs.get(addr)) {
                (Target::Unix(addr), _) => self.net.connect_unix(place, token, addr, &connecting.system),
                (_, None) => return self.no_address_left(slot),
                // The kernel would ask for one of its own.
                (_, Some(addr)) if addr.port() == 0 => Err(rustix::io::Errno::CONNREFUSED.into()),
                (_, Some(&addr)) => self.net.connect(place, token, addr, &connecting.system, connecting.local),
            };
            connecting.racers.push(Racer { place, addr });
            let newest = connecting.racers.len() - 1;
            if let Some(&addr) = connecting.addrs.get(addr) {
                self.table.set_peer(slot, addr);
            }
            match started {
                Ok(()) => {
                    let flags = &mut self.table.entry_mut(slot).flags;
                    if is_first {
                        // Nothing is known of this one, whatever the last one has left.
                        flags.set(NEWS, false);
                    }
                    flags.set(Flags::ATTEMPT | Flags::REGISTERED, true);
                    return self.set_attempt_due(slot);
                }
                Err(error) => self.lost(slot, newest, Failure::from_os(&error)),
            }
        }
    }

    /// When the next address joins the attempts under way, if there is one.
    fn set_attempt_due(&mut self, slot: u32) {
        let now = self.tick_after(self.net.now());
        let Some(connecting) = self.connecting(slot) else { return };
        let has_next = connecting.tried < connecting.addrs.len();
        connecting.attempt_due = connecting.delay_ms.filter(|_| has_next).map(|ms| now.saturating_add(ms));
    }

    /// The last attempt has been alone for long enough.
    pub(super) fn next_attempt(&mut self, slot: u32) {
        if let Some(connecting) = self.connecting(slot) {
            connecting.attempt_due = None;
        }
        self.attempt(slot);
        self.table.push_ready(slot);
    }

    /// One of the attempts under way has failed, or could not be begun.
    fn lost(&mut self, slot: u32, place: usize, failure: Failure) {
        let Some(connecting) = self.table.extra_mut(slot).connecting.as_deref_mut() else { return };
        let racer = connecting.racers.remove(place);
        // A Unix domain socket has one way, and no address that would say which.
        if let Some(&addr) = connecting.addrs.get(racer.addr) {
            connecting.failed.push(Attempt { addr, cause: failure.cause });
        }
        connecting.first_failure.get_or_insert(failure);
        connecting.attempt_due = None;
        let was_last = connecting.racers.is_empty();
        self.net.close(racer.place);
        self.freed();
        if racer.place != slot {
            self.table.unreserve(racer.place);
        }
        if was_last {
            self.table.entry_mut(slot).flags.set(Flags::ATTEMPT | Flags::REGISTERED, false);
        }
        self.apply(slot, Input::NextAddress);
    }

    /// Nobody wants the connection any more.
    pub(super) fn give_up_connecting(&mut self, slot: u32) {
        if self.table.entry(slot).state == State::Resolving {
            let token = self.token(slot);
            self.net.forget_lookup(token);
        }
        self.end_race(slot);
    }

    /// Drops every attempt under way, and tells nobody: not even their peers, to whom an orderly end would be a conversation
    /// without a word.
    fn end_race(&mut self, slot: u32) {
        while let Some(racer) = self.racer(slot, 0) {
            self.net.reset(racer.place);
            self.freed();
            if racer.place != slot {
                self.table.unreserve(racer.place);
            }
            if let Some(connecting) = self.connecting(slot) {
                connecting.racers.remove(0);
            }
        }
    }

    /// Every address that was tried, those under way included, for the report of a socket that was never connected. Ends the race.
    pub(super) fn attempts(&mut self, slot: u32, cause: Cause) -> Vec<Attempt> {
        if let Some(connecting) = self.connecting(slot) {
            for racer in &connecting.racers {
                let addr = connecting.addrs.get(racer.addr);
                connecting.failed.extend(addr.map(|&addr| Attempt { addr, cause }));
            }
        }
        self.give_up_connecting(slot);
        let connecting = self.table.extra_mut(slot).connecting.take();
        connecting.map_or(Vec::new(), |connecting| connecting.failed)
    }

    fn no_address_left(&mut self, slot: u32) {
        let first = self.connecting(slot).and_then(|connecting| connecting.first_failure.take());
        let failure = first.unwrap_or(Failure::of(Cause::Unreachable));
        let input = input_for(failure.cause, Input::ConnectFailed);
        self.fail(slot, failure, input);
    }
}

/// Every distinct address once, families alternating from the first answer's (RFC 8305 section 4): a dead family does not
/// delay the other by all its addresses.
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
mod tests {
    use super::in_order;

    #[test]
    fn addresses_are_tried_once_each_with_families_alternating() {
        let addr = |text: &str| text.parse().expect("an address");
        let (a, b, c) = (addr("1.1.1.1:1"), addr("2.2.2.2:1"), addr("[::3]:1"));
        assert_eq!(in_order(vec![a, a, b, c]), [a, c, b]);
        assert_eq!(in_order(vec![c, a, b]), [c, a, b]);
        assert_eq!(in_order(vec![]), []);
    }
}
