//! How an outgoing connection begins: look-up, attempts one after the other, the verdict.

use std::net::SocketAddr;

use super::Reactor;
use super::work::input_for;
use crate::error::{Attempt, Cause, Error, Failure, Timer};
use crate::id::SocketId;
use crate::lifecycle::{Input, State, Tell};
use crate::net::{LookupAnswer, Net, Token};
use crate::options::Connect;
use crate::table::entry::Flags;
use crate::table::extra::Connecting;
use crate::target::Target;

/// What one of several addresses gets when there is no connect timeout to be shared: a SYN, and its repeats after 1, 3 and
/// 7 seconds.
const ATTEMPT_MS: u64 = 10_000;

/// What can be known of a handshake before its verdict.
const NEWS: Flags = Flags::READABLE.and(Flags::WRITABLE).and(Flags::READ_CLOSED).and(Flags::LOOK);

impl<N: Net> Reactor<N> {
    /// Begins a connection to an address or a host name: `"example.org:80"`, a [`SocketAddr`], a pair of address or name
    /// and port; or to a [Unix domain socket](crate::UnixAddr), `"unix:/run/app.sock"`, which tells no `lookup`. Several addresses are tried one after the other, each with its share of the connect timeout. Whatever goes
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
        let settings = self.table.settings.intern(options.settings);
        let slot = self.table.insert(settings);
        self.counts.begun += 1;
        let connecting = self.table.extras.connecting(target, options.system, options.local);
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

    /// All addresses are told: tries the next one, or asks for the verdict on the attempt under way.
    pub(super) fn go_on_connecting(&mut self, slot: u32) {
        let flags = self.table.entry(slot).flags;
        if !flags.has(Flags::ATTEMPT) {
            return self.attempt(slot);
        }
        if !flags.has(NEWS) {
            return;
        }
        match self.net.connected(slot) {
            // The flag had no reason, or its reason has passed: the handshake goes on.
            Ok(false) => self.table.entry_mut(slot).flags.set(NEWS, false),
            Ok(true) => self.established(slot),
            Err(error) => {
                self.net.close(slot);
                self.freed();
                self.attempt_failed(slot, Failure::from_os(&error));
                self.attempt(slot);
            }
        }
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

    /// Begins handshakes until one is under way or no address is left.
    fn attempt(&mut self, slot: u32) {
        while self.table.entry(slot).state == State::Connecting {
            let token = self.token(slot);
            let Some(connecting) = self.table.extra_mut(slot).connecting.as_deref_mut() else { return };
            let place = connecting.tried;
            connecting.tried += 1;
            let started = match (&connecting.target, connecting.addrs.get(place)) {
                (Target::Unix(addr), _) if place == 0 => self.net.connect_unix(slot, token, addr, &connecting.system),
                (_, None) => return self.no_address_left(slot),
                // The kernel would ask for one of its own.
                (_, Some(addr)) if addr.port() == 0 => Err(rustix::io::Errno::CONNREFUSED.into()),
                (_, Some(&addr)) => self.net.connect(slot, token, addr, &connecting.system, connecting.local),
            };
            if let Some(&addr) = connecting.addrs.get(place) {
                self.table.set_peer(slot, addr);
            }
            match started {
                Ok(()) => {
                    let flags = &mut self.table.entry_mut(slot).flags;
                    // Nothing is known of this one, whatever the last one has left.
                    flags.set(NEWS, false);
                    flags.set(Flags::ATTEMPT | Flags::REGISTERED, true);
                    return self.share_time(slot);
                }
                Err(error) => self.attempt_failed(slot, Failure::from_os(&error)),
            }
        }
    }

    /// Gives the attempt under way its share of the time, if others wait behind it: a silent address must not use it up.
    fn share_time(&mut self, slot: u32) {
        let now = self.tick_after(self.net.now());
        let started = self.table.entry(slot).touched();
        let limit_ms = self.table.settings_of(slot).connect_ms;
        let Some(connecting) = self.connecting(slot) else { return };
        let behind = connecting.addrs.len().saturating_sub(connecting.tried) as u64;
        let left_ms = limit_ms.map(|ms| started.saturating_add(ms).saturating_sub(now));
        let share_ms = left_ms.map_or(ATTEMPT_MS, |left| left / (behind + 1));
        connecting.attempt_due = (behind > 0).then(|| now.saturating_add(share_ms));
    }

    /// The attempt under way has used its share up.
    pub(super) fn next_attempt(&mut self, slot: u32) {
        self.net.close(slot);
        self.freed();
        self.attempt_failed(slot, Failure::of(Cause::TimedOut(Timer::Connect)));
        self.table.push_ready(slot);
    }

    fn attempt_failed(&mut self, slot: u32, failure: Failure) {
        if let Some(connecting) = self.connecting(slot) {
            connecting.attempt_due = None;
            // A Unix domain socket has one way, and no address that would say which.
            if let Some(&addr) = connecting.addrs.get(connecting.tried - 1) {
                connecting.failed.push(Attempt { addr, cause: failure.cause });
            }
            connecting.first_failure.get_or_insert(failure);
        }
        self.table.entry_mut(slot).flags.set(Flags::ATTEMPT | Flags::REGISTERED, false);
        self.apply(slot, Input::NextAddress);
    }

    /// Every address that was tried, the one under way included, for the report of a socket that was never connected.
    pub(super) fn attempts(&mut self, slot: u32, cause: Cause) -> Vec<Attempt> {
        let under_way = self.table.entry(slot).flags.has(Flags::ATTEMPT);
        let Some(connecting) = self.table.extra_mut(slot).connecting.take() else {
            return Vec::new();
        };
        let mut attempts = connecting.failed;
        if under_way && let Some(&addr) = connecting.addrs.get(connecting.tried - 1) {
            attempts.push(Attempt { addr, cause });
        }
        attempts
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
