//! The kernel's calls on one end, by its id: what `host` and `peer` have in common.
//!
//! Invariant: a call returns what Linux returns in the same state, with the same errno. No fault is
//! drawn here.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use rustix::io::Errno;

use super::Reach;
use super::arena::Id;
use super::end::{End, FinOrder, Owner, PEEK, Phase, Tuning, shrink};
use super::fault::{Fault, FaultCounts};
use super::unix::UNIX;
use super::world::{Listener, Name, Segment, World};
use crate::error::LookupErrorKind;
use crate::net::{LookupAnswer, Unread};
use crate::options::{ListenOptions, ReusePort, SystemOptions};

/// How long MSG_MORE holds bytes back (tcp(7), TCP_CORK).
const CORK: u64 = 200_000_000;

/// A reader that frees this much, or half of its buffer, sends a window update (RFC 9293 section
/// 3.8.6.2.2, with the segment size of Ethernet).
const WINDOW_STEP_BYTES: usize = 1460;

type Call<T> = Result<T, Errno>;

impl World {
    // --- listening
    // ----------------------------------------------------------------------------------------------

    pub(super) fn listen(
        &mut self,
        machine: IpAddr,
        owner: Owner,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> Call<Id> {
        if !is_local(machine, addr.ip()) && !addr.ip().is_unspecified() {
            return Err(Errno::ADDRNOTAVAIL);
        }
        let addr = match addr.port() {
            0 => SocketAddr::new(addr.ip(), self.free_listen_port(machine, addr.ip())?),
            _ => addr,
        };
        let others = self.listening.get(&(machine, addr.port())).map_or(&[][..], Vec::as_slice);
        let clashes = |id: &Id| {
            self.listeners.get(*id).is_some_and(|other| {
                let both_share = other.options.reuse_port != ReusePort::Off && options.reuse_port == ReusePort::On;
                let only_v6 = other.options.ipv6_only && other.addr.is_ipv6() && addr.is_ipv4()
                    || options.ipv6_only && addr.is_ipv6() && other.addr.is_ipv4();
                overlap(other.addr.ip(), addr.ip()) && !both_share && !only_v6
            })
        };
        if others.iter().any(clashes) {
            return Err(Errno::ADDRINUSE);
        }
        let options = options.clone();
        let listener = Listener {
            owner,
            machine,
            addr,
            options,
            queue: VecDeque::new(),
            queued: false,
            accepting: true,
            pending: 0,
            short: false,
            answers: 0,
            plays: VecDeque::new(),
            each: None,
        };
        let id = self.listeners.insert(listener);
        self.listening.entry((machine, addr.port())).or_default().push(id);
        Ok(id)
    }

    fn free_listen_port(&mut self, machine: IpAddr, ip: IpAddr) -> Call<u16> {
        for _ in self.ports_of(ip) {
            let port = self.turn_port(machine, ip);
            if !self.listening.contains_key(&(machine, port)) {
                return Ok(port);
            }
        }
        Err(Errno::ADDRINUSE)
    }

    /// The ports to choose from. Those of Unix domain sockets are not ports, and are never
    /// exhausted.
    fn ports_of(&self, ip: IpAddr) -> RangeInclusive<u16> {
        if ip == UNIX { 1..=u16::MAX } else { self.ports.clone() }
    }

    /// Ports are assigned in turn, so that one is reused as late as possible.
    fn turn_port(&mut self, machine: IpAddr, ip: IpAddr) -> u16 {
        let (first, last) = self.ports_of(ip).into_inner();
        let next = self.next_port.entry((machine, ip == UNIX)).or_insert(first);
        let port = (*next).clamp(first, last);
        *next = if port == last { first } else { port + 1 };
        port
    }

    /// The listener that gets a SYN. Several on one port share it at random, as with SO_REUSEPORT.
    pub(super) fn listener_for(&mut self, machine: IpAddr, target: SocketAddr) -> Option<Id> {
        let ids = self.listening.get(&(machine, target.port()))?;
        let fits = |id: &&Id| {
            self.listeners.get(**id).is_some_and(|listener| match listener.addr.ip() {
                IpAddr::V6(ip) if ip.is_unspecified() => target.is_ipv6() || !listener.options.ipv6_only,
                ip if ip.is_unspecified() => target.is_ipv4(),
                IpAddr::V4(_) | IpAddr::V6(_) => listener.addr.ip() == target.ip(),
            })
        };
        let ids: Vec<Id> = ids.iter().filter(fits).copied().collect();
        match ids.as_slice() {
            [] => None,
            [only] => Some(*only),
            several => several.get(self.rng.below(several.len() as u64) as usize).copied(),
        }
    }

    pub(super) fn accept(&mut self, listener: Id, owner: Owner) -> Call<Id> {
        let Listener { queue, answers, .. } = self.listeners.get_mut(listener).ok_or(Errno::BADF)?;
        *answers += 1;
        let several = queue.len() > 1;
        let id = queue.pop_front().ok_or(Errno::WOULDBLOCK)?;
        if several {
            self.rows.mark(Fault::OneEdgeManyClients);
        }
        let end = self.ends.get_mut(id).ok_or(Errno::CONNABORTED)?;
        end.owner = owner;
        Ok(id)
    }

    pub(super) fn unlisten(&mut self, listener: Id) {
        let Some(gone) = self.listeners.remove(listener) else { return };
        let port = (gone.machine, gone.addr.port());
        if let Some(ids) = self.listening.get_mut(&port) {
            ids.retain(|id| *id != listener);
            if ids.is_empty() {
                self.listening.remove(&port);
            }
        }
        for id in gone.queue {
            self.rows.mark(Fault::ListenerClosedWithQueue);
            self.reset(id);
        }
    }

    /// Empties the queues of this machine's listeners without a packet: the clients in them are to be
    /// forgotten, too.
    pub(super) fn empty_queues(&mut self, machine: IpAddr) {
        for listener in self.listeners.iter_mut().filter(|listener| listener.machine == machine) {
            listener.queue.clear();
            listener.pending = 0;
        }
    }

    // --- connecting
    // ---------------------------------------------------------------------------------------------

    pub(super) fn dial(
        &mut self,
        machine: IpAddr,
        owner: Owner,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        options: &SystemOptions,
    ) -> Call<Id> {
        match self.reach.get(&remote.ip()).copied().unwrap_or_default() {
            Reach::NoRoute => return Err(self.call_fails(Errno::NETUNREACH)),
            Reach::Prohibited => return Err(self.call_fails(Errno::ACCESS)),
            Reach::Open | Reach::BlackHole | Reach::Unreachable => {}
        }
        let local = self.local_for(machine, remote, local).map_err(|error| self.call_fails(error))?;
        let tuning = Tuning::new(options, self.send_bytes, self.receive_bytes);
        let id = self.ends.insert(End::new(owner, machine, local, remote, tuning));
        self.flows.insert((machine, local, remote), id);
        self.send_syn(id);
        Ok(id)
    }

    fn call_fails(&mut self, error: Errno) -> Errno {
        let ports = error == Errno::ADDRNOTAVAIL;
        self.rows.mark(if ports { Fault::NoLocalPort } else { Fault::ConnectCallFails });
        error
    }

    fn local_for(&mut self, machine: IpAddr, remote: SocketAddr, wish: Option<SocketAddr>) -> Call<SocketAddr> {
        let route = match remote.ip().is_loopback() {
            true => remote.ip(),
            false if machine.is_ipv4() == remote.is_ipv4() => machine,
            false => return Err(Errno::NETUNREACH),
        };
        let ip = match wish.map(|addr| addr.ip()).filter(|ip| !ip.is_unspecified()) {
            Some(ip) if !is_local(machine, ip) => return Err(Errno::ADDRNOTAVAIL),
            Some(ip) => ip,
            None => route,
        };
        let is_free = |world: &Self, local| !world.flows.contains_key(&(machine, local, remote));
        if let Some(port) = wish.map(|addr| addr.port()).filter(|port| *port != 0) {
            let local = SocketAddr::new(ip, port);
            return is_free(self, local).then_some(local).ok_or(Errno::ADDRNOTAVAIL);
        }
        for _ in self.ports_of(ip) {
            let local = SocketAddr::new(ip, self.turn_port(machine, ip));
            if is_free(self, local) && !self.listening.contains_key(&(machine, local.port())) {
                return Ok(local);
            }
        }
        Err(Errno::ADDRNOTAVAIL)
    }

    // --- a connection
    // -------------------------------------------------------------------------------------------

    /// tcp_sendmsg. Bytes beyond the buffer are not taken, unless it is `unbounded`.
    pub(super) fn send(&mut self, id: Id, bytes: &[u8], more: bool, unbounded: bool) -> Call<usize> {
        let now = self.now;
        let end = self.ends.get_mut(id).ok_or(Errno::BADF)?;
        if !end.may_write() {
            self.rows.mark(Fault::ResetSeenByWrite);
            if !end.incoming.is_empty() {
                self.rows.mark(Fault::WriteErrorWithInput);
            }
            if end.is_unix() {
                // It leaves the error, and is the first news that the other end is closed.
                end.died |= !end.finished;
                return Err(Errno::PIPE);
            }
            return Err(end.error.take().unwrap_or(Errno::PIPE));
        }
        if end.peer_finished {
            self.rows.mark(Fault::WriteAfterTheirFin);
        }
        let free = end.tuning.send_bytes.saturating_sub(end.outgoing.len());
        let taken = match unbounded {
            true => bytes.len(),
            false if end.phase == Phase::SynSent => 0,
            false => bytes.len().min(free),
        };
        end.wants_room |= taken < bytes.len();
        if taken == 0 && !bytes.is_empty() {
            return Err(Errno::WOULDBLOCK);
        }
        // Bytes that fill the buffer are not held back (tcp_sendmsg pushes before it waits for
        // room).
        end.corked = match more && taken == bytes.len() && !end.is_unix() {
            true => end.corked.or(Some((end.written, now + CORK))),
            false => None,
        };
        end.outgoing.extend(&bytes[..taken]);
        end.written += taken as u64;
        self.transmit(id, usize::MAX);
        self.arm(id);
        Ok(taken)
    }

    /// What is dropped was not read by the program: nothing of it is recorded, nor that it was all.
    pub(super) fn drop_unread(&mut self, id: Id) {
        let (mut buffer, mut reads) = (vec![0; 1 << 16], 0..16);
        while reads.next().is_some() && self.ends.get(id).is_some_and(|end| !end.incoming.is_empty()) {
            let _ = self.recv(id, &mut buffer);
        }
    }

    /// tcp_recvmsg. Bytes first; then a FIN, which hides an error that came after it; then the
    /// error, once.
    pub(super) fn recv(&mut self, id: Id, buffer: &mut [u8]) -> Call<usize> {
        let end = self.ends.get_mut(id).ok_or(Errno::BADF)?;
        if buffer.is_empty() {
            return Ok(0);
        }
        if end.incoming.is_empty() {
            end.urgent_in = None;
            let zero_after_error = end.died && end.error.is_none() && !end.peer_finished;
            if zero_after_error {
                self.rows.mark(Fault::ZeroAfterError);
            }
            let at_end = end.at_end_of_bytes();
            end.order_hidden &= at_end != Err(Errno::WOULDBLOCK);
            at_end?;
            end.fin_taken |= end.peer_finished;
            return Ok(0);
        }
        let taken = end.take_in(buffer);
        // A program with a small buffer needs many calls, though no event may follow: it discards.
        self.happenings += u64::from(taken > 0);
        // What is left could have been read now.
        end.unread_since = Some(self.now);
        end.mark_read(&mut self.rows, taken, buffer.len());
        shrink(&mut end.incoming);
        let free = end.tuning.receive_bytes.saturating_sub(end.incoming.len());
        let left = end.advertised_end.saturating_sub(end.received) as usize;
        let step = WINDOW_STEP_BYTES.min(end.tuning.receive_bytes.div_ceil(2));
        let worth_telling = free >= left + step.max(end.tuning.receive_bytes / 2) || (left == 0 && free >= step);
        if end.phase == Phase::Open && !end.peer_finished && worth_telling {
            self.send_ack(id);
        }
        Ok(taken)
    }

    /// Marks the position after all that was sent as urgent.
    pub(super) fn send_urgent(&mut self, id: Id) {
        let Some(end) = self.ends.get_mut(id).filter(|end| end.phase == Phase::Open && !end.finished) else { return };
        let urgent = Some(end.written);
        end.urgent_out = urgent;
        let position = end.next;
        self.send_segment(id, Segment { position, urgent, ..Segment::default() });
    }

    pub(super) fn peek(&mut self, id: Id) -> Call<Unread> {
        let end = self.ends.get_mut(id).ok_or(Errno::BADF)?;
        if !end.incoming.is_empty() {
            return Ok(Unread::Bytes);
        }
        match end.at_end_of_bytes() {
            Ok(()) => Ok(Unread::End),
            Err(Errno::WOULDBLOCK) => Ok(Unread::Nothing),
            Err(error) => Err(error),
        }
    }

    /// poll(2) without waiting, for POLLIN.
    pub(super) fn is_readable(&self, id: Id) -> bool {
        let has_input = |end: &End| {
            let is_over = end.peer_finished || end.error.is_some() || end.phase == Phase::Closed;
            !end.incoming.is_empty() || is_over
        };
        self.ends.get(id).is_some_and(has_input)
    }

    /// shutdown(SHUT_WR).
    pub(super) fn finish(&mut self, id: Id) -> Call<()> {
        let end = self.ends.get_mut(id).ok_or(Errno::BADF)?;
        match end.phase {
            // Its peer is closed, or has finished too: on Linux this returns 0, and wakes.
            Phase::Closed if end.is_unix() => {
                end.finish(self.now);
                end.rest();
                self.edge(id);
                return Ok(());
            }
            Phase::Closed => {
                self.rows.mark(Fault::ShutdownFails);
                // inet_shutdown wakes in this case too.
                self.edge(id);
                return Err(Errno::NOTCONN);
            }
            Phase::SynSent if end.owner == Owner::Script => {
                end.finish(self.now);
                return Ok(());
            }
            Phase::SynSent | Phase::SynReceived => {
                // inet_shutdown disconnects here: the handshake is aborted.
                end.die(Errno::CONNRESET);
                self.edge(id);
                return Ok(());
            }
            Phase::Open => {}
        }
        if !end.outgoing.is_empty() {
            self.rows.mark(Fault::EndWithDataQueued);
        }
        end.finish(self.now);
        match end.is_unix() {
            true => self.finish_unix(id),
            false => _ = self.transmit(id, usize::MAX),
        }
        self.edge(id);
        Ok(())
    }

    /// tcp_close.
    pub(super) fn close(&mut self, id: Id) {
        let Some(end) = self.ends.get_mut(id) else { return };
        match end.phase {
            _ if end.is_unix() => return self.close_unix(id),
            Phase::Closed | Phase::SynSent => return self.remove(id),
            Phase::SynReceived => return self.reset(id),
            Phase::Open => {}
        }
        if !end.incoming.is_empty() {
            // RFC 2525 section 2.17: the peer must learn that its bytes were not read.
            self.rows.mark(Fault::ClosedWithInputUnread);
            self.send_reset(id);
            return self.remove(id);
        }
        end.owner = Owner::Orphan;
        end.token = None;
        end.finish(self.now);
        self.transmit(id, usize::MAX);
        self.settle(id);
    }

    /// Closing with SO_LINGER and 0 seconds (tcp_disconnect): nothing is sent if both FINs were
    /// sent already and nothing is unread.
    pub(super) fn reset(&mut self, id: Id) {
        let Some(end) = self.ends.get(id) else { return };
        if end.is_unix() {
            // SO_LINGER has no effect on it: it is only closed.
            return self.close_unix(id);
        }
        let needed = match end.phase {
            Phase::Closed | Phase::SynSent => false,
            Phase::SynReceived => true,
            Phase::Open => {
                !(end.finished && end.peer_finished) || end.next < end.stream_end() || !end.incoming.is_empty()
            }
        };
        if needed {
            if !end.outgoing.is_empty() {
                self.rows.mark(Fault::DestroyDiscards);
            }
            self.send_reset(id);
        }
        self.remove(id);
    }

    /// The answer to a lookup; `None` if it hangs.
    pub(super) fn resolve(&mut self, host: &str, port: u16) -> Option<LookupAnswer> {
        let failure = self.faults.lookup_failure;
        if self.rng.chance(failure) {
            self.rows.mark(Fault::LookupFails);
            return Some(Err(LookupErrorKind::TryAgain));
        }
        if host.parse::<IpAddr>().is_err() && !matches!(self.names.get(host), Some(Name::Known(ips)) if !ips.is_empty())
        {
            let hangs = matches!(self.names.get(host), Some(Name::Hangs));
            self.rows.mark(if hangs { Fault::LookupHangs } else { Fault::LookupFails });
        }
        self.known(host, port)
    }

    /// The same without faults.
    pub(super) fn known(&self, host: &str, port: u16) -> Option<LookupAnswer> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(Ok(vec![SocketAddr::new(ip, port)]));
        }
        Some(match self.names.get(host) {
            None => Err(LookupErrorKind::NotFound),
            Some(Name::Hangs) => return None,
            Some(Name::Fails(cause)) => Err(*cause),
            Some(Name::Known(ips)) if ips.is_empty() => Err(LookupErrorKind::NoAddress),
            Some(Name::Known(ips)) => Ok(ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect()),
        })
    }
}

impl End {
    /// Queues our FIN. A second call changes nothing.
    fn finish(&mut self, now: u64) {
        if !self.finished {
            (self.finished, self.finished_at) = (true, now);
            self.order_hidden = !self.incoming.is_empty() || self.short & 1 << PEEK != 0;
            self.fin_order = if self.peer_finished { FinOrder::Peer } else { FinOrder::Us };
            self.corked = None;
        }
    }

    /// The faults of the catalogue that apply to a read of this many bytes into a buffer of this
    /// size.
    fn mark_read(&self, rows: &mut FaultCounts, taken: usize, asked: usize) {
        if self.finished {
            rows.mark(Fault::InputAfterOurFin);
        }
        match (self.incoming.is_empty(), taken < asked) {
            (true, true) if self.peer_finished => rows.mark(Fault::ShortReadBeforeFin),
            (false, true) => rows.mark(Fault::UrgentSplits),
            (false, false) => rows.mark(Fault::QuantumUsedUp),
            (true, _) => {}
        }
    }

    /// The result of a read when no bytes are left: `Ok` is the end of the stream.
    fn at_end_of_bytes(&mut self) -> Call<()> {
        // The error of a Unix domain socket is that its own bytes were lost, and comes first.
        if self.peer_finished && !self.is_unix() {
            return Ok(());
        }
        match (self.error.take(), self.phase) {
            (Some(error), _) => Err(error),
            (None, _) if self.peer_finished => Ok(()),
            (None, Phase::Closed) => Ok(()),
            (None, Phase::SynSent | Phase::SynReceived | Phase::Open) => Err(Errno::WOULDBLOCK),
        }
    }
}

fn is_local(machine: IpAddr, ip: IpAddr) -> bool {
    ip == machine || ip.is_loopback()
}

fn overlap(one: IpAddr, other: IpAddr) -> bool {
    let is_any = |ip: IpAddr, other: IpAddr| ip.is_unspecified() && other != UNIX;
    one == other || is_any(one, other) || is_any(other, one)
}
