//! One end of a connection, as its machine's kernel sees it.
//!
//! Invariant: `acked <= next <= written + FIN`, and `outgoing` holds the bytes from `acked` to
//! `written`. Positions in a stream are counted from 0 and in `u64`, so that nothing wraps; the FIN
//! counts as one byte after the last.
//!
//! This module knows no other end, no network and no clock: times are arguments, in nanoseconds
//! since the network began.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;

use super::arena::Id;
use super::fault::{Fault, FaultCounts};
use super::time::nanos;
use super::unix::UNIX;
use crate::net::{KernelView, Readiness, Token};
use crate::options::{KeepAlive, MAX_BUFFER, SystemOptions};

/// What holds the descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    Host {
        host: u32,
        slot: u32,
    },
    /// Waits to be accepted, or for the last step of the handshake.
    Queue(Id),
    /// A scripted peer.
    Script,
    /// Closed: no descriptor is left, and the kernel delivers the rest alone.
    Orphan,
}

/// RFC 9293 section 3.3.2, as far as the flags of an [`End`] don't distinguish the states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    SynSent,
    SynReceived,
    /// ESTABLISHED to LAST-ACK: `finished` and `peer_finished` distinguish them.
    Open,
    /// CLOSED, or our side of TIME-WAIT.
    Closed,
}

/// Whose FIN was first, as the kernel saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum FinOrder {
    #[default]
    Nobody,
    Us,
    Peer,
    /// The peer's FIN came without acknowledging ours.
    Crossed,
}

/// Keep-alive in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probing {
    pub(super) idle: u64,
    pub(super) interval: u64,
    pub(super) count: u32,
}

impl From<KeepAlive> for Probing {
    fn from(times: KeepAlive) -> Self {
        // The kernel's unit is the second, and it does not accept 0.
        let seconds = |time| nanos(time).div_ceil(1_000_000_000).max(1).saturating_mul(1_000_000_000);
        Self { idle: seconds(times.idle), interval: seconds(times.interval), count: times.count }
    }
}

/// The options that matter here, with this network's defaults filled in.
#[derive(Clone, Debug)]
pub(super) struct Tuning {
    pub(super) probing: Option<Probing>,
    pub(super) user_timeout: Option<u64>,
    pub(super) send_bytes: usize,
    pub(super) receive_bytes: usize,
}

impl Tuning {
    /// A Unix domain socket has no timers of TCP.
    fn without_timers(self) -> Self {
        Self { probing: None, user_timeout: None, ..self }
    }

    pub(super) fn new(options: &SystemOptions, send_bytes: usize, receive_bytes: usize) -> Self {
        Self {
            probing: options.keep_alive.map(Probing::from),
            user_timeout: options.user_timeout.map(nanos),
            send_bytes: options.send_buffer_bytes.unwrap_or(send_bytes).clamp(1, MAX_BUFFER),
            receive_bytes: options.receive_buffer_bytes.unwrap_or(receive_bytes).clamp(1, MAX_BUFFER),
        }
    }
}

/// Among the calls that can lack memory, the numbers of the queries for unread bytes and for what
/// the peer has taken.
pub(super) const PEEK: u8 = 1;
pub(super) const TAKEN: u8 = 6;

pub(super) struct End {
    pub(super) owner: Owner,
    pub(super) machine: IpAddr,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// The other end, once the handshake has identified it.
    pub(super) peer: Option<Id>,
    pub(super) phase: Phase,
    pub(super) error: Option<Errno>,
    /// An ICMP error of an established connection (Linux: sk_err_soft). It raises no flag and fails
    /// no call, but SO_ERROR returns it, and it becomes the error of the connection if that times
    /// out.
    pub(super) soft_error: Option<Errno>,
    /// Its kernel drops what arrives for it.
    pub(super) is_deaf: bool,
    /// It was reset or timed out: Closed, but not after both FINs.
    pub(super) died: bool,
    /// An error that came in the handshake and did not end it leaves epoll's flag set (checked on
    /// Linux).
    pub(super) error_flag_stuck: bool,
    pub(super) tuning: Tuning,

    /// The script that plays it.
    pub(super) play: Option<u32>,
    /// Set while registered.
    pub(super) token: Option<Token>,
    /// The calls that lacked memory when they were last made: one bit for each.
    pub(super) short: u8,
    /// Readiness of this end waits in its host's queue, or is on its way there.
    pub(super) queued: bool,

    pub(super) outgoing: VecDeque<u8>,
    pub(super) acked: u64,
    pub(super) next: u64,
    pub(super) written: u64,
    /// The end of the peer's window.
    pub(super) window_end: u64,
    /// Our FIN is queued after `written`, and since when.
    pub(super) finished: bool,
    pub(super) finished_at: u64,
    /// MSG_MORE: from this position on, bytes are held back, until this time.
    pub(super) corked: Option<(u64, u64)>,
    /// The position of our urgent byte.
    pub(super) urgent_out: Option<u64>,
    /// An edge is pending until there is room (Linux: SOCK_NOSPACE).
    pub(super) wants_room: bool,

    pub(super) incoming: VecDeque<u8>,
    pub(super) received: u64,
    /// Since when the first unread byte can be read.
    pub(super) unread_since: Option<u64>,
    /// The end of the window that was last sent to the peer.
    pub(super) advertised_end: u64,
    pub(super) peer_finished: bool,
    /// A read has taken the peer's FIN: one that returns 0, or the last bytes before it, with which
    /// Linux counts it as read.
    pub(super) fin_taken: bool,
    /// Whose FIN was first, and when the peer's came, or the error that killed the connection.
    pub(super) fin_order: FinOrder,
    pub(super) gone_at: u64,
    /// When our program finished, bytes were unread, or the last query for them lacked memory; and no
    /// read has found nothing since.
    pub(super) order_hidden: bool,
    /// When the peer's FIN came.
    pub(super) fin_at: u64,
    /// Where a read stops, because of an urgent byte.
    pub(super) urgent_in: Option<u64>,

    /// When the SYN, the oldest unacknowledged byte or a window probe is repeated.
    pub(super) retry_at: Option<u64>,
    /// Doubles the time to the next repetition.
    pub(super) backoff: u32,
    /// Repetitions since the peer last answered.
    pub(super) unanswered: u32,
    /// Since when nothing was acknowledged although something should be.
    pub(super) stalled_since: Option<u64>,
    pub(super) heard_at: u64,
    /// When the peer last took bytes of ours.
    pub(super) taken_at: u64,
    pub(super) alive_at: Option<u64>,
    pub(super) probes: u32,
    /// When an orphan in FIN-WAIT-2 is forgotten.
    pub(super) forget_at: Option<u64>,
    /// The time of the earliest entry in the agenda.
    pub(super) timer_at: Option<u64>,
    /// When the last packet we sent arrives: the next one does not overtake it.
    pub(super) last_arrival: u64,
}

impl End {
    /// On Linux it is a socket of its own, without queues.
    pub(super) const TIME_WAIT: KernelView = KernelView { state: "TIME-WAIT", unread: 0, unacked: 0 };

    pub(super) fn new(owner: Owner, machine: IpAddr, local: SocketAddr, remote: SocketAddr, tuning: Tuning) -> Self {
        let tuning = if local.ip() == UNIX { tuning.without_timers() } else { tuning };
        Self {
            owner,
            machine,
            local,
            remote,
            peer: None,
            phase: Phase::SynSent,
            error: None,
            soft_error: None,
            is_deaf: false,
            died: false,
            error_flag_stuck: false,
            advertised_end: tuning.receive_bytes as u64,
            tuning,
            play: None,
            token: None,
            short: 0,
            queued: false,
            outgoing: VecDeque::new(),
            acked: 0,
            next: 0,
            written: 0,
            window_end: 0,
            finished: false,
            finished_at: 0,
            corked: None,
            urgent_out: None,
            wants_room: false,
            incoming: VecDeque::new(),
            received: 0,
            unread_since: None,
            peer_finished: false,
            fin_taken: false,
            fin_order: FinOrder::Nobody,
            gone_at: 0,
            order_hidden: false,
            fin_at: 0,
            urgent_in: None,
            retry_at: None,
            backoff: 0,
            unanswered: 0,
            stalled_since: None,
            heard_at: 0,
            taken_at: 0,
            alive_at: None,
            probes: 0,
            forget_at: None,
            timer_at: None,
            last_arrival: 0,
        }
    }

    /// The end of our stream as far as it is known: the bytes, and the FIN.
    pub(super) fn stream_end(&self) -> u64 {
        self.written + u64::from(self.finished)
    }

    /// What ss(8) would print of it.
    pub(super) fn kernel_view(&self) -> KernelView {
        let state = match (self.phase, self.finished, self.peer_finished) {
            (Phase::SynSent, ..) => "SYN-SENT",
            (Phase::SynReceived, ..) => "SYN-RECEIVED",
            (Phase::Closed, ..) => "CLOSED",
            (Phase::Open, false, false) => "ESTABLISHED",
            (Phase::Open, false, true) => "CLOSE-WAIT",
            (Phase::Open, true, false) if self.is_fin_acked() => "FIN-WAIT-2",
            (Phase::Open, true, false) => "FIN-WAIT-1",
            (Phase::Open, true, true) if self.fin_order == FinOrder::Peer => "LAST-ACK",
            (Phase::Open, true, true) => "CLOSING",
        };
        // The SYN counts as one.
        let unacked = self.stream_end() - self.acked + u64::from(self.phase == Phase::SynSent);
        let unread = self.incoming.len() as u32 + u32::from(self.peer_finished && !self.fin_taken);
        KernelView { state, unread, unacked: u32::try_from(unacked).unwrap_or(u32::MAX) }
    }

    pub(super) fn is_fin_acked(&self) -> bool {
        self.finished && self.acked == self.stream_end()
    }

    /// Both FINs were exchanged and ours was acknowledged: TIME-WAIT in RFC 9293, or CLOSED after
    /// LAST-ACK.
    pub(super) fn is_done(&self) -> bool {
        self.peer_finished && self.is_fin_acked()
    }

    /// Something was sent and is not acknowledged, or waits for the window.
    pub(super) fn is_pending(&self) -> bool {
        self.acked < self.stream_end()
    }

    /// On Linux a socket is writable from a third of its buffer on (sk_stream_is_writeable), and a Unix
    /// domain socket from three quarters on (unix_writable).
    pub(super) fn has_room(&self) -> bool {
        let (all, used) = (self.tuning.send_bytes, self.outgoing.len());
        if self.is_unix() { used * 4 <= all } else { all.saturating_sub(used) * 3 >= all }
    }

    /// Whether a write would succeed.
    pub(super) fn may_write(&self) -> bool {
        self.phase != Phase::Closed && !self.finished && self.error.is_none()
    }

    /// The end of our window now.
    pub(super) fn own_window_end(&self) -> u64 {
        let free = self.tuning.receive_bytes.saturating_sub(self.incoming.len()) as u64;
        (self.received + free).max(self.advertised_end)
    }

    /// What epoll would report (tcp_poll), as mio converts it. A query while there is no room makes
    /// an edge pending.
    pub(super) fn readiness(&mut self) -> Readiness {
        let error = self.error.is_some() || self.error_flag_stuck;
        if matches!(self.phase, Phase::SynSent | Phase::SynReceived) {
            // mio reports ERR alone as write-closed.
            return Readiness { error, write_closed: error, ..Readiness::default() };
        }
        let closed = self.phase == Phase::Closed;
        let read_closed = closed || self.peer_finished;
        let writable = if self.is_unix() { self.has_room() } else { closed || self.finished || self.has_room() };
        self.wants_room |= !writable;
        let urgent = self.urgent_in.is_some();
        Readiness {
            readable: urgent || read_closed || !self.incoming.is_empty(),
            writable,
            read_closed,
            write_closed: closed || (self.finished && self.peer_finished) || (writable && error),
            error,
        }
    }

    /// The faults of the catalogue that an edge with these flags is.
    pub(super) fn mark_edge(&self, rows: &mut FaultCounts, readiness: Readiness) {
        let unread = !self.incoming.is_empty();
        if unread && self.peer_finished {
            rows.mark(Fault::DataWithFin);
        }
        if self.phase == Phase::Open && readiness.write_closed && !self.is_fin_acked() {
            rows.mark(Fault::HangUpBeforeAck);
            if self.acked < self.written {
                rows.mark(Fault::HangUpWithDataUnsent);
            }
        }
        if readiness.write_closed && unread && !self.died {
            rows.mark(Fault::HangUpWithInputUnread);
        }
        if self.peer_finished && !self.finished && !readiness.writable {
            rows.mark(Fault::FinWhileBufferFull);
        }
    }

    /// Copies bytes of ours out of the send buffer, for a segment.
    pub(super) fn copy_out(&self, from: u64, to: u64) -> Vec<u8> {
        let (start, stop) = ((from - self.acked) as usize, (to - self.acked) as usize);
        let mut bytes = Vec::with_capacity(stop - start);
        let (front, back) = self.outgoing.as_slices();
        let split = front.len();
        bytes.extend_from_slice(&front[start.min(split)..stop.min(split)]);
        bytes.extend_from_slice(&back[start.max(split) - split..stop.max(split) - split]);
        bytes
    }

    /// Moves received bytes to a reader; a read stops at an urgent byte.
    pub(super) fn take_in(&mut self, buffer: &mut [u8]) -> usize {
        let mut length = buffer.len().min(self.incoming.len());
        let position = self.received - u64::from(self.peer_finished) - self.incoming.len() as u64;
        if let Some(mark) = self.urgent_in {
            match mark > position {
                true => length = length.min((mark - position) as usize),
                false => self.urgent_in = None,
            }
        }
        let (front, back) = self.incoming.as_slices();
        let first = length.min(front.len());
        buffer[..first].copy_from_slice(&front[..first]);
        buffer[first..length].copy_from_slice(&back[..length - first]);
        self.incoming.drain(..length);
        self.fin_taken |= self.peer_finished && self.incoming.is_empty();
        length
    }

    /// Takes what SO_ERROR returns once the connection has ended; nothing while it lives, as the real
    /// net does.
    pub(super) fn take_error(&mut self) -> Option<Errno> {
        let has_ended = self.phase != Phase::Open || self.is_unix();
        has_ended.then(|| self.error.take().or_else(|| self.soft_error.take())).flatten()
    }

    /// What the kernel keeps of a dead connection: the bytes that have already arrived, and the
    /// error.
    pub(super) fn die(&mut self, error: Errno) {
        self.phase = Phase::Closed;
        self.error = Some(error);
        self.died = true;
        self.rest();
    }

    /// Nothing is sent and no timer runs any more.
    pub(super) fn rest(&mut self) {
        self.outgoing = VecDeque::new();
        self.acked = self.stream_end();
        self.next = self.acked;
        self.corked = None;
        self.retry_at = None;
        self.alive_at = None;
        self.forget_at = None;
    }

    /// The next time at which something is due.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let cork = self.corked.map(|(_, until)| until);
        [self.retry_at, self.alive_at, self.forget_at, cork].into_iter().flatten().min()
    }
}

/// What a segment brings.
impl End {
    /// Handles an acknowledgement. Returns whether an edge is due: there is room again, or our FIN
    /// has arrived (Linux wakes at the step to FIN-WAIT-2 too).
    pub(super) fn take_ack(&mut self, acked: u64, window_end: u64) -> bool {
        self.soft_error = None; // The peer can be reached.
        let opened = window_end > self.window_end;
        self.window_end = self.window_end.max(window_end);
        if opened && self.next == self.acked {
            // Window probes end here; the bytes that waited for the window are sent now.
            self.start_afresh();
        }
        if acked <= self.acked {
            return false;
        }
        let bytes = acked.min(self.written) - self.acked.min(self.written);
        self.outgoing.drain(..bytes as usize);
        shrink(&mut self.outgoing);
        self.acked = acked;
        self.next = self.next.max(acked);
        self.urgent_out = self.urgent_out.filter(|mark| *mark >= acked);
        self.start_afresh();
        let room = self.wants_room && self.has_room();
        self.wants_room &= !room;
        room || self.is_fin_acked()
    }

    /// Progress: timeouts are counted from here.
    fn start_afresh(&mut self) {
        self.backoff = 0;
        self.stalled_since = None;
        self.retry_at = None;
    }

    /// Takes bytes and FIN if they are the next ones and there is room. Returns whether anything
    /// was new.
    pub(super) fn take_bytes(&mut self, position: u64, bytes: &[u8], fin: bool, urgent: Option<u64>) -> bool {
        let before = self.received;
        if position > before {
            // A gap: an earlier segment was lost. The acknowledgement contains the position to
            // repeat from.
            return false;
        }
        if let Some(mark) = urgent.filter(|mark| *mark >= before && !self.peer_finished) {
            self.urgent_in = Some(mark);
        }
        let fresh = bytes.get((before - position) as usize..).unwrap_or_default();
        let room = self.tuning.receive_bytes.saturating_sub(self.incoming.len());
        let taken = fresh.len().min(room);
        self.incoming.extend(&fresh[..taken]);
        self.received += taken as u64;
        if fin && !self.peer_finished && position + bytes.len() as u64 == self.received {
            self.peer_finished = true;
            self.received += 1;
        }
        self.received > before || (urgent.is_some() && self.urgent_in == urgent)
    }
}

/// An idle connection keeps no buffer, so that a hundred thousand of them cost little.
pub(super) fn shrink(buffer: &mut VecDeque<u8>) {
    const KEPT_BYTES: usize = 256;
    if buffer.is_empty() && buffer.capacity() > KEPT_BYTES {
        *buffer = VecDeque::new();
    }
}
