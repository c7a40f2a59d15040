//! TCP, as far as a stream shows it: handshake, windows, acknowledgement, repetition, FIN and RST.
//!
//! Invariant: segments of one direction arrive in order or not at all, so a gap means loss, and
//! repeating from the oldest unacknowledged byte is always right. Only an RST may overtake them, and
//! then nothing is repeated.
//!
//! There is no congestion control, no Nagle, no delayed acknowledgement and no segment size: they
//! change only when an application sees something, not what it sees.

use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;

use super::Reach;
use super::arena::Id;
use super::end::{End, FinOrder, Owner, Phase, Tuning};
use super::fault::{Fault, FaultCounts};
use super::time::{FOR_EVER, nanos};
use super::time_wait::MINUTE;
use super::world::{Happening, Packet, Segment, What, World};

/// Bytes of one segment at most: as large as a large offload packet of Linux, to keep the agenda
/// short.
const SEGMENT_BYTES: u64 = 64 * 1024;
/// The first SYN is repeated after 1 s (RFC 6298 section 2).
const SYN_RETRY: u64 = 1_000_000_000;
/// tcp_syn_retries: a connection attempt fails after 127 s.
const SYN_RETRIES: u32 = 6;
/// tcp_synack_retries.
const SYN_ACK_RETRIES: u32 = 5;
/// tcp_retries2: some 15 minutes.
const RETRIES: u32 = 15;
/// tcp_orphan_retries: fewer for a connection without a descriptor.
const ORPHAN_RETRIES: u32 = 8;
/// Linux's TCP_RTO_MIN; the round trip is added.
const RETRY_LEAST: u64 = 200_000_000;
/// Linux's TCP_RTO_MAX.
const RETRY_MOST: u64 = 120_000_000_000;

impl World {
    /// A packet has reached its target.
    pub(super) fn take(&mut self, packet: Packet) {
        let is_known = packet.to.is_some_and(|id| self.ends.get(id).is_some());
        if !is_known && matches!(packet.what, What::SynAck { .. } | What::Segment(_)) {
            return self.answer_unknown(packet);
        }
        let Packet { from, to, source, target, what } = packet;
        match (what, to) {
            (What::Syn { machine, window_end }, _) => self.on_syn(from, machine, source, target, window_end),
            (What::Reset, Some(id)) => self.on_reset(id),
            (What::Unreachable(errno), Some(id)) => self.on_unreachable(id, errno),
            (What::SynAck { window_end }, Some(id)) => self.on_syn_ack(id, from, window_end),
            (What::Segment(segment), Some(id)) => self.on_segment(id, from, segment),
            (What::SynAck { .. } | What::Segment(_) | What::Reset | What::Unreachable(_), None) => {}
        }
    }

    // --- the handshake
    // ------------------------------------------------------------------------------------------

    pub(super) fn send_syn(&mut self, id: Id) {
        let now = self.now;
        let Some(end) = self.ends.get_mut(id) else { return };
        end.stalled_since.get_or_insert(now);
        end.retry_at = Some(clamped(now + (SYN_RETRY << end.backoff), end));
        let (source, target) = (end.local, end.remote);
        let window_end = end.tuning.receive_bytes as u64;
        let machine = match target.ip().is_loopback() {
            true => end.machine,
            false => target.ip(),
        };
        match self.reach.get(&target.ip()).copied().unwrap_or_default() {
            Reach::Open => {
                let what = What::Syn { machine, window_end };
                self.send_packet(Packet { from: id, to: None, source, target, what });
            }
            Reach::Unreachable => {
                let what = What::Unreachable(Errno::HOSTUNREACH);
                self.send_packet(Packet { from: id, to: Some(id), source: target, target: source, what });
            }
            Reach::BlackHole | Reach::NoRoute | Reach::Prohibited => self.rows.mark(Fault::SynLost),
        }
        self.arm(id);
    }

    fn on_syn(&mut self, from: Id, machine: IpAddr, source: SocketAddr, target: SocketAddr, window_end: u64) {
        let known = self.flows.get(&(machine, target, source)).copied();
        if known == Some(from) {
            // Its own port was its target: RFC 9293 section 3.5 calls it a simultaneous open, with
            // itself.
            return self.on_syn_ack(from, from, window_end);
        }
        if let Some(child) = known {
            match self.ends.get(child).is_some_and(|end| end.peer == Some(from)) {
                // A repeated SYN: our answer was lost.
                true => self.send_syn_ack(child),
                // A new connection from an old one's port. RFC 9293 section 3.10.7.4: the old one
                // gets a challenge ACK, does not know the connection, and resets; the next SYN
                // finds the port free.
                false => self.on_reset(child),
            }
            return;
        }
        let Some(listener) = self.listener_for(machine, target) else {
            self.rows.mark(Fault::Refused);
            self.send_packet(Packet { from, to: Some(from), source: target, target: source, what: What::Reset });
            return;
        };
        let Some(queue) = self.listeners.get_mut(listener) else { return };
        // As Linux's sk_acceptq_is_full: the backlog plus one.
        if queue.queue.len() + queue.pending > queue.options.backlog as usize {
            self.rows.mark(Fault::QueueOverflows);
            return;
        }
        queue.pending += 1;
        let tuning = Tuning::new(&queue.options.system, self.send_bytes, self.receive_bytes);
        let mut child = End::new(Owner::Queue(listener), machine, target, source, tuning);
        child.phase = Phase::SynReceived;
        child.peer = Some(from);
        child.window_end = window_end;
        let child = self.ends.insert(child);
        self.flows.insert((machine, target, source), child);
        self.send_syn_ack(child);
    }

    fn send_syn_ack(&mut self, id: Id) {
        let now = self.now;
        let Some(end) = self.ends.get_mut(id).filter(|end| end.phase == Phase::SynReceived) else { return };
        end.retry_at = Some(now + (SYN_RETRY << end.backoff));
        let what = What::SynAck { window_end: end.tuning.receive_bytes as u64 };
        let packet = Packet { from: id, to: end.peer, source: end.local, target: end.remote, what };
        self.send_packet(packet);
        self.arm(id);
    }

    fn on_syn_ack(&mut self, id: Id, from: Id, window_end: u64) {
        let now = self.now;
        let Some(end) = self.ends.get_mut(id) else { return };
        match end.phase {
            Phase::SynSent => {
                end.peer = Some(from);
                end.window_end = window_end;
                end.open(now);
                // An ICMP error that turned out to be wrong; its flag stays (FAULTS: error flag
                // without a result).
                end.error_flag_stuck = end.error.take().is_some();
                self.send_ack(id);
                self.edge(id);
                self.transmit(id, usize::MAX);
            }
            Phase::Open => self.send_ack(id),
            Phase::SynReceived | Phase::Closed => {}
        }
        self.arm(id);
    }

    /// The third step of the handshake: the child waits to be accepted. `false` if the listener was
    /// closed.
    fn establish(&mut self, id: Id) -> bool {
        let now = self.now;
        let Some(end) = self.ends.get_mut(id) else { return false };
        let Owner::Queue(listener) = end.owner else { return false };
        end.open(now);
        let Some(queue) = self.listeners.get_mut(listener) else {
            self.send_reset(id);
            self.remove(id);
            return false;
        };
        queue.pending -= 1;
        queue.queue.push_back(id);
        self.listener_edge(listener);
        true
    }

    // --- segments
    // -----------------------------------------------------------------------------------------------

    fn on_segment(&mut self, id: Id, from: Id, segment: Segment) {
        let Some(end) = self.ends.get(id) else { return };
        let (phase, source, target) = (end.phase, end.remote, end.local);
        match phase {
            Phase::SynSent => return,
            Phase::SynReceived if !self.establish(id) => return,
            Phase::SynReceived | Phase::Open => {}
            // Only its descriptor is left.
            Phase::Closed => {
                let what = What::Segment(segment);
                return self.answer_unknown(Packet { from, to: Some(id), source, target, what });
            }
        }
        let now = self.now;
        let Some(end) = self.ends.get_mut(id) else { return };
        end.heard_at = now;
        end.probes = 0;
        let Segment { position, bytes, fin, acked, window_end, urgent, probe } = segment;
        let had_bytes = end.received;
        if end.unanswered_before(acked) {
            self.rows.mark(Fault::PathHeals);
        }
        if fin && end.finished && !end.peer_finished && acked < end.stream_end() {
            self.rows.mark(Fault::FinsCross);
        }
        end.unanswered = 0;
        let wanted_room = end.wants_room;
        let had_taken = end.acked;
        let mut changed = end.take_ack(acked, window_end);
        if end.acked.min(end.written) > had_taken {
            end.taken_at = now;
        }
        if wanted_room && !end.wants_room {
            self.rows.mark(Fault::WouldBlockThenRoom);
        }
        let had_fin = end.peer_finished;
        let had_unread = !end.incoming.is_empty();
        changed |= end.take_bytes(position, &bytes, fin, urgent);
        if !had_unread && !end.incoming.is_empty() {
            end.unread_since = Some(now);
        }
        if end.peer_finished && !had_fin {
            end.note_their_fin(now);
        }
        if end.owner == Owner::Orphan && end.received - u64::from(end.peer_finished) > had_bytes {
            // RFC 9293 section 3.10.7.4: no program is left to read it.
            self.rows.mark(Fault::WriteIntoClosed);
            self.send_reset(id);
            self.remove(id);
            return;
        }
        let sent = self.transmit(id, usize::MAX);
        if !sent && (!bytes.is_empty() || fin || probe) {
            self.send_ack(id);
        }
        if changed {
            self.edge(id);
        }
        self.settle(id);
    }

    /// Checks whether the connection is done, or only waits for the peer's FIN without a
    /// descriptor.
    pub(super) fn settle(&mut self, id: Id) {
        let now = self.now;
        let Some(end) = self.ends.get_mut(id) else { return };
        let orphan = end.owner == Owner::Orphan;
        if end.phase == Phase::Open && end.is_done() {
            end.phase = Phase::Closed;
            end.rest();
            self.begin_time_wait(id);
            self.unhash(id);
            return if orphan { self.remove(id) } else { self.edge(id) };
        }
        if orphan && end.is_fin_acked() {
            end.forget_at.get_or_insert(now + MINUTE);
        }
        self.arm(id);
    }

    /// Sends what the window allows, in at most this many segments. Returns whether anything was
    /// sent.
    pub(super) fn transmit(&mut self, id: Id, segments: usize) -> bool {
        let mut sent = false;
        for _ in 0..segments {
            let Some(end) = self.ends.get_mut(id).filter(|end| end.phase == Phase::Open) else { return sent };
            let limit = end.corked.map_or(u64::MAX, |(from, _)| from).min(end.window_end).min(end.stream_end());
            if end.next >= limit {
                break;
            }
            let position = end.next;
            let stop = limit.min(end.written).min(position + SEGMENT_BYTES);
            let fin = end.finished && stop == end.written && limit > stop;
            let bytes = if stop > position { end.copy_out(position, stop) } else { Vec::new() };
            end.next = stop + u64::from(fin);
            let urgent = end.urgent_out.filter(|mark| (position..=stop).contains(mark));
            self.send_segment(id, Segment { position, bytes, fin, urgent, ..Segment::default() });
            sent = true;
        }
        self.time_retry(id);
        sent
    }

    fn time_retry(&mut self, id: Id) {
        let (now, retry_first) = (self.now, self.retry_first());
        let Some(end) = self.ends.get_mut(id).filter(|end| end.phase == Phase::Open) else { return };
        let waits_for_window = end.corked.is_none() && end.is_pending();
        if end.next > end.acked || waits_for_window {
            if end.retry_at.is_none() {
                end.stalled_since.get_or_insert(now);
                let wait = backed_off(retry_first, end.backoff).min(RETRY_MOST.max(retry_first));
                end.retry_at = Some(clamped(now + wait, end));
            }
        } else {
            end.retry_at = None;
            end.stalled_since = None;
            end.backoff = 0;
        }
        self.arm(id);
    }

    /// Two round trips and Linux's minimum: never so early that a packet in time is sent twice.
    fn retry_first(&self) -> u64 {
        let trips = (self.latency + nanos(self.faults.jitter)).saturating_mul(4);
        RETRY_LEAST.saturating_add(trips).min(FOR_EVER)
    }

    pub(super) fn send_ack(&mut self, id: Id) {
        let Some(end) = self.ends.get(id) else { return };
        let position = end.next;
        self.send_segment(id, Segment { position, ..Segment::default() });
    }

    fn send_probe(&mut self, id: Id) {
        let Some(end) = self.ends.get(id) else { return };
        let position = end.acked;
        self.send_segment(id, Segment { position, probe: true, ..Segment::default() });
    }

    /// Sends a segment with our acknowledgement and window, which every segment contains.
    pub(super) fn send_segment(&mut self, id: Id, mut segment: Segment) {
        let Some(end) = self.ends.get_mut(id) else { return };
        segment.acked = end.received;
        segment.window_end = end.own_window_end();
        end.advertised_end = segment.window_end;
        let what = What::Segment(segment);
        let packet = Packet { from: id, to: end.peer, source: end.local, target: end.remote, what };
        self.send_packet(packet);
    }

    // --- endings
    // ------------------------------------------------------------------------------------------------

    pub(super) fn send_reset(&mut self, id: Id) {
        self.resets += 1;
        let Some(end) = self.ends.get(id).filter(|end| end.peer.is_some()) else { return };
        let packet = Packet { from: id, to: end.peer, source: end.local, target: end.remote, what: What::Reset };
        self.send_packet(packet);
    }

    /// Counts the result of a handshake that a program queries.
    pub(super) fn mark_result(&mut self, id: Id, answer: Result<bool, Errno>) {
        let Some(end) = self.ends.get(id) else { return };
        match answer {
            Ok(true) if end.peer_finished => self.rows.mark(Fault::EndedBeforeLooked),
            Err(Errno::CONNRESET) => self.rows.mark(Fault::ResetBeforeLooked),
            Ok(_) | Err(_) => {}
        }
    }

    /// Linux's tcp_reset.
    fn on_reset(&mut self, id: Id) {
        let Some(end) = self.ends.get(id) else { return self.end_time_wait(id) };
        end.mark_reset(&mut self.rows);
        let errno = match end.phase {
            Phase::Closed => return self.end_time_wait(id),
            Phase::SynSent => Errno::CONNREFUSED,
            Phase::SynReceived => Errno::CONNRESET,
            // CLOSE-WAIT: the peer's FIN counts, so a reader sees a clean end and only a writer
            // sees the reset.
            Phase::Open if end.peer_finished && !end.finished => Errno::PIPE,
            Phase::Open => Errno::CONNRESET,
        };
        self.kill(id, errno);
    }

    fn on_unreachable(&mut self, id: Id, errno: Errno) {
        let Some(end) = self.ends.get_mut(id).filter(|end| end.phase == Phase::SynSent) else { return };
        // The attempt continues (RFC 1122 section 4.2.3.9): the caller may decide otherwise.
        end.error = Some(errno);
        self.rows.mark(Fault::IcmpRefusal);
        self.edge(id);
    }

    /// The connection is dead, for this reason.
    pub(super) fn kill(&mut self, id: Id, errno: Errno) {
        let now = self.now;
        let Some(end) = self.ends.get_mut(id) else { return };
        end.gone_at = now;
        if end.phase == Phase::SynReceived {
            if let Owner::Queue(listener) = end.owner
                && let Some(queue) = self.listeners.get_mut(listener)
            {
                queue.pending -= 1;
            }
            self.remove(id);
        } else if end.owner == Owner::Orphan {
            self.remove(id);
        } else {
            end.die(errno);
            self.unhash(id);
            self.edge(id);
        }
    }

    /// The addresses are free for another connection.
    pub(super) fn unhash(&mut self, id: Id) {
        let Some(end) = self.ends.get(id) else { return };
        let flow = (end.machine, end.local, end.remote);
        if self.flows.get(&flow) == Some(&id) {
            self.flows.remove(&flow);
        }
    }

    pub(super) fn remove(&mut self, id: Id) {
        self.unhash(id);
        self.ends.remove(id);
    }

    // --- timers
    // -------------------------------------------------------------------------------------------------

    /// Enters the end's nearest deadline into the agenda, unless an earlier entry will check it
    /// anyway.
    pub(super) fn arm(&mut self, id: Id) {
        let now = self.now;
        let Some(end) = self.ends.get_mut(id) else { return };
        let Some(at) = end.next_deadline().map(|at| at.max(now)) else { return };
        if end.timer_at.is_none_or(|entered| entered > at) {
            end.timer_at = Some(at);
            self.schedule(at, Happening::Timer(id));
        }
    }

    pub(super) fn timer(&mut self, id: Id, at: u64) {
        let now = self.now;
        let Some(end) = self.ends.get_mut(id).filter(|end| end.timer_at == Some(at)) else { return };
        end.timer_at = None;
        if end.corked.is_some_and(|(_, until)| until <= now) {
            end.corked = None;
            self.transmit(id, usize::MAX);
        }
        if self.ends.get(id).and_then(|end| end.retry_at).is_some_and(|at| at <= now) {
            self.retry(id);
        }
        if self.ends.get(id).and_then(|end| end.alive_at).is_some_and(|at| at <= now) {
            self.probe_peer(id);
        }
        if self.ends.get(id).and_then(|end| end.forget_at).is_some_and(|at| at <= now) {
            self.remove(id);
        }
        self.arm(id);
    }

    fn retry(&mut self, id: Id) {
        let (now, retry_first) = (self.now, self.retry_first());
        let Some(end) = self.ends.get_mut(id) else { return };
        // Without a descriptor the window is awaited until the timer is at its longest, whatever the
        // peer acknowledges (tcp_probe_timer).
        let is_given_up = end.owner == Owner::Orphan
            && end.phase == Phase::Open
            && end.next == end.acked
            && backed_off(retry_first, end.backoff) >= RETRY_MOST;
        let limit = match (end.phase, end.owner) {
            (Phase::SynSent, _) => SYN_RETRIES,
            (Phase::SynReceived, _) => SYN_ACK_RETRIES,
            (_, Owner::Orphan) => ORPHAN_RETRIES,
            (Phase::Open | Phase::Closed, _) => RETRIES,
        };
        let overdue = end.user_deadline().map(|deadline| deadline <= now);
        let counted_out = end.unanswered >= limit && !(end.phase == Phase::Open && overdue.is_some());
        if counted_out || is_given_up || overdue == Some(true) {
            let errno = end.soft_error.take();
            if end.phase == Phase::Open {
                let window_shut = end.next == end.acked && end.heard_at + RETRY_LEAST > now;
                let (finished, row) =
                    (end.finished, if window_shut { Fault::SlowPeerKilled } else { Fault::GoneWithDataInFlight });
                self.rows.mark(if finished { Fault::FinNeverAcked } else { row });
            }
            let errno = errno.unwrap_or(Errno::TIMEDOUT);
            self.kill(id, errno);
            return;
        }
        end.unanswered += 1;
        end.backoff += 1;
        end.retry_at = None;
        match end.phase {
            Phase::SynSent => self.send_syn(id),
            Phase::SynReceived => self.send_syn_ack(id),
            Phase::Open if end.next > end.acked => {
                end.next = end.acked;
                self.transmit(id, 1);
            }
            Phase::Open => {
                self.rows.mark(Fault::PeerNeverReads);
                self.send_probe(id);
                self.time_retry(id);
            }
            Phase::Closed => {}
        }
    }

    /// Linux's tcp_keepalive_timer.
    fn probe_peer(&mut self, id: Id) {
        let now = self.now;
        let Some(end) = self.ends.get_mut(id) else { return };
        let Some(times) = end.tuning.probing else { return end.alive_at = None };
        if end.is_pending() {
            // While something is unacknowledged its own timer does the same.
            end.alive_at = Some(now + times.idle);
            return;
        }
        let silent = now - end.heard_at;
        let due = times.interval.saturating_mul(u64::from(end.probes)).saturating_add(times.idle);
        let dead = match end.tuning.user_timeout {
            Some(limit) => end.probes > 0 && silent >= limit,
            None => end.probes >= times.count,
        };
        if silent < due {
            end.alive_at = Some(end.heard_at.saturating_add(due));
        } else if dead {
            let errno = end.soft_error.take().unwrap_or(Errno::TIMEDOUT);
            self.rows.mark(Fault::KeepAliveFails);
            self.send_reset(id);
            self.kill(id, errno);
        } else {
            end.probes += 1;
            end.alive_at = Some(now + times.interval);
            self.send_probe(id);
        }
    }
}

impl End {
    /// The handshake is done.
    fn open(&mut self, now: u64) {
        self.phase = Phase::Open;
        self.retry_at = None;
        self.stalled_since = None;
        self.backoff = 0;
        self.unanswered = 0;
        self.heard_at = now;
        self.alive_at = self.tuning.probing.map(|times| now.saturating_add(times.idle));
    }

    /// The peer's FIN has arrived.
    pub(super) fn note_their_fin(&mut self, now: u64) {
        (self.gone_at, self.fin_at) = (now, now);
        self.fin_order = match self.fin_order {
            FinOrder::Us if !self.is_fin_acked() => FinOrder::Crossed,
            FinOrder::Us | FinOrder::Crossed => FinOrder::Us,
            FinOrder::Nobody | FinOrder::Peer => FinOrder::Peer,
        };
    }

    /// Whether this is the first acknowledgement after a repetition.
    fn unanswered_before(&self, acked: u64) -> bool {
        self.unanswered > 0 && acked > self.acked
    }

    /// The faults of the catalogue that a reset in this state is.
    pub(super) fn mark_reset(&self, rows: &mut FaultCounts) {
        if self.phase != Phase::Open {
            return;
        }
        rows.mark(match (self.finished, self.peer_finished) {
            (true, true) => Fault::ResetForLastAck,
            (_, true) => Fault::FinThenReset,
            _ if !self.incoming.is_empty() => Fault::ResetBehindData,
            _ if self.next > self.acked => Fault::ResetCrossesWrite,
            _ => Fault::ResetWhenIdle,
        });
    }

    /// When TCP_USER_TIMEOUT ends the connection (RFC 5482), a closed window included.
    fn user_deadline(&self) -> Option<u64> {
        Some(self.stalled_since?.saturating_add(self.tuning.user_timeout?))
    }
}

/// Linux's tcp_clamp_rto_to_user_timeout: a repetition is not later than the user's limit.
fn clamped(at: u64, end: &End) -> u64 {
    end.user_deadline().map_or(at, |deadline| at.min(deadline))
}

/// The first wait, doubled this many times.
const fn backed_off(first: u64, backoff: u32) -> u64 {
    first.saturating_mul(1 << if backoff < 20 { backoff } else { 20 })
}
