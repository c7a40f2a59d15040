//! TIME-WAIT: the minute in which the side that finished first still answers its peer.
//!
//! Invariant: it needs neither an end, which is removed when no program has its descriptor, nor an
//! entry in the agenda: a network in which nothing else will happen does nothing more.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use super::arena::Id;
use super::end::{End, FinOrder, Phase};
use super::fault::Fault;
use super::unix::UNIX;
use super::world::{Packet, Segment, What, World};

/// tcp_fin_timeout and the length of TIME-WAIT on Linux.
pub(super) const MINUTE: u64 = 60_000_000_000;

/// What a kernel keeps of a connection in TIME-WAIT: enough to acknowledge the peer's FIN again.
struct TimeWait {
    machine: IpAddr,
    until: u64,
    position: u64,
    acked: u64,
    window_end: u64,
}

/// The connections in TIME-WAIT.
#[derive(Default)]
pub(super) struct TimeWaits {
    by_end: BTreeMap<Id, TimeWait>,
    /// From when on each may be removed, in this order, if it has not begun again.
    checks: VecDeque<(u64, Id)>,
}

impl TimeWaits {
    fn insert(&mut self, now: u64, id: Id, wait: TimeWait) {
        while let Some((_, due)) = self.checks.front().copied().filter(|(at, _)| *at <= now) {
            self.checks.pop_front();
            match self.contains(now, due) {
                // It has begun again.
                true => self.checks.push_back((now + MINUTE, due)),
                false => drop(self.by_end.remove(&due)),
            }
        }
        self.checks.push_back((wait.until, id));
        self.by_end.insert(id, wait);
    }

    pub(super) fn contains(&self, now: u64, id: Id) -> bool {
        self.by_end.get(&id).is_some_and(|wait| wait.until > now)
    }

    /// How many this machine has.
    pub(super) fn count(&self, now: u64, machine: IpAddr) -> usize {
        self.by_end.values().filter(|wait| wait.machine == machine && wait.until > now).count()
    }

    /// A machine that was restarted knows none.
    pub(super) fn forget(&mut self, machine: IpAddr) {
        self.by_end.retain(|_, wait| wait.machine != machine);
    }
}

impl World {
    /// Both FINs were exchanged, and ours was acknowledged.
    pub(super) fn begin_time_wait(&mut self, id: Id) {
        let now = self.now;
        let Some(end) = self.ends.get(id).filter(|end| end.ends_in_time_wait()) else { return };
        let (position, acked, window_end) = (end.next, end.received, end.own_window_end());
        let wait = TimeWait { machine: end.machine, until: now + MINUTE, position, acked, window_end };
        self.time_waits.insert(now, id, wait);
    }

    /// An RST ends it on Linux, unless tcp_rfc1337 is set.
    pub(super) fn end_time_wait(&mut self, id: Id) {
        self.time_waits.by_end.remove(&id);
    }

    /// RFC 9293 section 3.10.7.1: whatever arrives for a connection that does not exist is answered
    /// with an RST. TIME-WAIT acknowledges what is repeated, since its last acknowledgement was
    /// lost, and begins again (section 3.10.7.4).
    pub(super) fn answer_unknown(&mut self, packet: Packet) {
        let Packet { from, to, source, target, what } = packet;
        if source.ip() == UNIX {
            return;
        }
        let (source, target) = (target, source);
        let now = self.now;
        let waits = to.and_then(|id| self.time_waits.by_end.get_mut(&id).map(|wait| (id, wait)));
        let Some((id, wait)) = waits.filter(|(_, wait)| wait.until > now) else {
            if to.is_none_or(|id| self.ends.get(id).is_none()) {
                self.rows.mark(Fault::PeerRestarted);
            }
            return self.send_packet(Packet { from, to: Some(from), source, target, what: What::Reset });
        };
        if matches!(&what, What::Segment(segment) if segment.is_acknowledgement()) {
            return;
        }
        wait.until = now + MINUTE;
        let TimeWait { position, acked, window_end, .. } = *wait;
        let what = What::Segment(Segment { position, acked, window_end, ..Segment::default() });
        self.send_packet(Packet { from: id, to: Some(from), source, target, what });
    }
}

impl End {
    /// Closed after both FINs, and the peer's was not first.
    pub(super) fn ends_in_time_wait(&self) -> bool {
        let is_done = self.phase == Phase::Closed && !self.died && self.is_done();
        is_done && self.fin_order != FinOrder::Peer && !self.is_unix()
    }
}

impl Segment {
    fn is_acknowledgement(&self) -> bool {
        self.bytes.is_empty() && !self.fin && !self.probe
    }
}
