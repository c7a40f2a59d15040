//! One TLS stream: what arrives on its socket becomes events, what the program writes becomes
//! records.
//!
//! Invariant: all input is processed before the program sees the first event of it. So a write finds
//! rustls ready to write, and only events can wait here, never ciphertext that is complete.

mod view;
mod write;

use std::time::{Duration, Instant};

use finale::{ConnectionError, ConnectionErrorKind, Event, PeerEnd, Socket};

use rustls::InvalidMessage;

use crate::failure::TlsFailure;
use crate::ledger::Ledger;
use crate::record::{Connection, Output, Progress, record_end};
use crate::server_name;
use write::is_broken;

/// How many records in a row may have no data. OpenSSL's limit for empty ones is the same.
const MAX_EMPTY_RECORDS: u32 = 32;

/// The longest handshake, all messages together. A certificate chain has a few KiB.
const MAX_HANDSHAKE_BYTES: usize = 256 * 1024;

/// Longer writes get memory of their own, which the socket's queue takes over.
const SHARED_BYTES: usize = 64 * 1024;

/// From here on the queue shares the memory of the output. Below, it would hold much more memory
/// than it has bytes.
const GIVEN_BYTES: usize = 32 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// TCP is not connected yet.
    Connecting,
    Handshaking,
    /// The handshake is done.
    Ready,
}

/// What must be over in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Handshake,
    /// An incomplete record, after this many complete ones.
    Record(u64),
}

/// How long a record may be incomplete while nothing else arrives. Its bytes cause no event, so a
/// program has no deadline for them. 16 KiB in this time are 273 bytes per second.
pub(crate) const RECORD: Duration = Duration::from_secs(60);

/// Events that the program has not seen.
#[derive(Debug, Default)]
struct Owed {
    ready: bool,
    drain: bool,
    /// Plaintext that came before the program stopped reading.
    plain: Vec<u8>,
    end: bool,
    error: bool,
    close: bool,
}

/// The next event of a session. What it contains is elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Ready,
    Drain,
    Data,
    End,
    Error,
    Close,
}

/// Buffers that all sessions share, since only one works at a time.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// Input, which rustls decrypts in place.
    pub(crate) incoming: Vec<u8>,
    /// Plaintext of the session at hand.
    pub(crate) plain: Vec<u8>,
}

pub(crate) struct Session {
    pub(crate) connection: Connection,
    phase: Phase,
    /// An incomplete record or message.
    incoming: Vec<u8>,
    /// How much of it is complete records, which rustls has seen. It must see at least these again.
    seen: usize,
    /// Plaintext that was written before the handshake was done.
    early: Vec<u8>,
    owed: Owed,
    pub(crate) failure: Option<TlsFailure>,
    pub(crate) server_name: Option<Box<str>>,
    /// Its entry in the deadlines, and what for.
    pub(crate) due: Option<(Instant, Limit)>,
    ledger: Ledger,
    /// By the program.
    is_destroyed: bool,
    /// What was written and will never be sent: before a handshake that failed, or after a failure
    /// that the program doesn't know yet.
    in_vain: u64,
    /// Plaintext that has arrived, and what of it was delivered or discarded.
    received: u64,
    bytes_read: u64,
    /// Plaintext has arrived since the program wrote last.
    awaits_answer: bool,
    /// Complete ones.
    pub(crate) records: u64,
    empty_records: u32,
    handshake_bytes: usize,
    peer_closed: bool,
    /// What the program had written when the peer's close_notify arrived.
    written_before_end: u64,
    /// The socket has delivered its `close`.
    pub(crate) is_closed: bool,
    pub(crate) end_called: bool,
    /// Without half-open: our end follows the peer's. The socket must not end by itself, because
    /// close_notify comes before the FIN.
    ends_with_peer: bool,
    is_discarding: bool,
    /// The socket itself is paused only after the handshake, for which it has to be read.
    is_paused: bool,
    is_held: bool,
}

impl Session {
    pub(crate) fn new(connection: Connection) -> Self {
        Self {
            connection,
            phase: Phase::Connecting,
            incoming: Vec::new(),
            seen: 0,
            early: Vec::new(),
            owed: Owed::default(),
            failure: None,
            server_name: None,
            due: None,
            ledger: Ledger::default(),
            is_destroyed: false,
            in_vain: 0,
            received: 0,
            bytes_read: 0,
            awaits_answer: false,
            records: 0,
            empty_records: 0,
            handshake_bytes: 0,
            peer_closed: false,
            written_before_end: 0,
            is_closed: false,
            end_called: false,
            ends_with_peer: false,
            is_discarding: false,
            is_paused: false,
            is_held: false,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.phase == Phase::Handshaking && self.failure.is_none()
    }
}

/// What happens on the socket.
impl Session {
    /// TCP is connected.
    pub(crate) fn begin(&mut self, socket: &mut Socket<'_>, out: &mut Output) {
        self.phase = Phase::Handshaking;
        self.is_paused |= socket.is_paused();
        socket.resume();
        socket.release();
        socket.set_farewell(true);
        out.clear();
        let progress = self.connection.receive(&mut [], &mut Vec::new(), out);
        self.after(socket, out, progress);
    }

    /// An event of the socket. Returns whether it is one of the stream, too.
    pub(crate) fn handle(
        &mut self,
        socket: &mut Socket<'_>,
        event: &Event<'_>,
        buffers: &mut Buffers,
        out: &mut Output,
    ) -> bool {
        let is_usable = self.phase == Phase::Ready && self.failure.is_none();
        self.ledger.settle(socket.bytes_written());
        match event {
            Event::Ready => {
                self.begin(socket, out);
                false
            }
            Event::Data(bytes) => {
                self.receive(socket, bytes, buffers, out);
                false
            }
            Event::Drain if is_usable && !self.early.is_empty() => {
                self.flush_early(socket, out);
                false
            }
            Event::Timeout if socket.is_farewell_due() => {
                self.stopped(socket, out);
                false
            }
            // The program has not begun, and could not end it.
            Event::Timeout if self.is_handshaking() => {
                out.clear();
                self.fail(socket, TlsFailure::HandshakeTimeout, out);
                false
            }
            Event::Drain | Event::Timeout | Event::PeerEnded(PeerEnd::Reset) => is_usable,
            Event::PeerEnded(PeerEnd::Fin) => false,
            Event::End => {
                if !socket.allows_half_open() {
                    self.ends_with_peer = true;
                    socket.set_allow_half_open(true);
                }
                self.ended(socket, None, out);
                false
            }
            Event::Error(error) => {
                self.broke(socket, error, out);
                false
            }
            Event::Close(_) => {
                self.is_closed = true;
                self.owed.close = true;
                false
            }
            _ => true,
        }
    }

    /// Bytes of the peer.
    fn receive(&mut self, socket: &mut Socket<'_>, bytes: &[u8], buffers: &mut Buffers, out: &mut Output) {
        if self.failure.is_some() || self.peer_closed {
            return;
        }
        let incoming = &mut buffers.incoming;
        incoming.clear();
        incoming.append(&mut self.incoming);
        incoming.extend_from_slice(bytes);
        out.clear();
        let (mut start, mut seen, mut end) = (0, self.seen, self.seen);
        let mut progress = Progress::default();
        let received = self.received;
        while end < incoming.len() && progress.error.is_none() && !progress.peer_closed {
            // An incomplete one is passed on too: it may be invalid already.
            let record = record_end(incoming, end);
            end = record.unwrap_or(incoming.len());
            seen = record.unwrap_or(seen);
            self.records += u64::from(record.is_some());
            let before = buffers.plain.len();
            progress = self.connection.receive(&mut incoming[start..end], &mut buffers.plain, out);
            start += progress.consumed;
            let data = buffers.plain.len() - before;
            self.received += data as u64;
            if data > 0 {
                self.empty_records = 0;
            } else if record.is_some() && self.phase == Phase::Ready {
                self.empty_records += 1;
            }
            self.notice_ready(socket);
        }
        // Its memory is released when it is empty: `append` has taken what it had.
        self.incoming = if start < incoming.len() { incoming[start..].to_vec() } else { Vec::new() };
        self.seen = seen.saturating_sub(start);
        if self.phase == Phase::Handshaking {
            self.handshake_bytes += bytes.len();
        }
        self.awaits_answer |= self.received > received;
        // A record that is not complete may have a request.
        if !self.awaits_answer && (self.phase != Phase::Ready || self.incoming.is_empty()) {
            socket.set_answered();
        }
        self.after(socket, out, progress);
    }

    /// What a piece of input, or its absence, has brought.
    fn after(&mut self, socket: &mut Socket<'_>, out: &mut Output, progress: Progress) {
        // Always: a client's second message would leave it to the next session.
        if let Some(name) = server_name::take() {
            self.server_name = Some(name);
        }
        if let Some(error) = progress.error {
            return self.fail(socket, TlsFailure::of(error, self.phase != Phase::Ready), out);
        }
        if self.handshake_bytes > MAX_HANDSHAKE_BYTES {
            let error = rustls::Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge);
            return self.fail(socket, TlsFailure::Local { error, in_handshake: true }, out);
        }
        if self.empty_records > MAX_EMPTY_RECORDS {
            return self.fail(socket, TlsFailure::Flood, out);
        }
        // A peer that takes nothing gets no answers without a bound.
        if !self.send_records(socket, out) {
            return self.fail(socket, TlsFailure::Flood, out);
        }
        self.notice_ready(socket);
        if self.owed.ready {
            self.flush_early(socket, out);
        }
        if progress.peer_closed {
            self.peer_closed = true;
            socket.set_peer_finished();
            self.written_before_end = self.ledger.total() + self.early.len() as u64;
            self.owed.end = true;
            self.incoming = Vec::new();
        }
    }

    fn notice_ready(&mut self, socket: &mut Socket<'_>) {
        if self.phase != Phase::Handshaking || self.connection.common().is_handshaking() {
            return;
        }
        self.phase = Phase::Ready;
        self.owed.ready = true;
        if self.is_paused {
            socket.pause();
        }
        if self.is_held {
            socket.hold();
        }
    }

    /// Its listener was stopped, and its grace is over; or the pool of a client was dropped.
    fn stopped(&mut self, socket: &mut Socket<'_>, out: &mut Output) {
        // The next `timeout` is the program's.
        socket.postpone_farewell();
        let is_client = socket.listener().is_none();
        // Tickets were the last bytes, and not an answer; or the answer is not complete.
        let is_busy = self.awaits_answer || self.peer_closed || !self.incoming.is_empty();
        if self.failure.is_some() {
            return;
        }
        if self.phase != Phase::Ready {
            out.clear();
            self.fail(socket, TlsFailure::Stopped, out);
        } else if is_client || !is_busy {
            if is_client {
                self.discard(socket);
            }
            self.end(socket, out);
        }
    }

    /// The peer's FIN, or a failure of the connection.
    fn ended(&mut self, socket: &mut Socket<'_>, cause: Option<ConnectionError>, out: &mut Output) {
        if self.peer_closed || self.failure.is_some() {
            return;
        }
        out.clear();
        let failure = match self.phase {
            Phase::Ready => {
                TlsFailure::Truncated { after_bytes: self.received, in_record: !self.incoming.is_empty(), cause }
            }
            Phase::Connecting | Phase::Handshaking => TlsFailure::Interrupted { cause },
        };
        self.fail(socket, failure, out);
    }

    /// The connection has failed.
    fn broke(&mut self, socket: &mut Socket<'_>, error: &ConnectionError, out: &mut Output) {
        let is_ours = matches!(error.kind, ConnectionErrorKind::TimedOut(_));
        if error.kind == ConnectionErrorKind::Reset && self.is_complete(socket) {
            return;
        }
        if self.failure.is_none() && (self.phase == Phase::Connecting || self.peer_closed || is_ours) {
            out.clear();
            return self.fail(socket, TlsFailure::Connection(error.clone()), out);
        }
        self.ended(socket, Some(error.clone()), out);
    }

    /// Both sides have ended, and the program has written nothing after the peer's end. Many clients
    /// close their socket after their close_notify: the reset answers ours, and cuts nothing.
    fn is_complete(&self, socket: &Socket<'_>) -> bool {
        let total = self.ledger.total();
        let is_taken = self.early.is_empty() && self.in_vain == 0 && self.ledger.taken(socket.bytes_written()) == total;
        self.peer_closed && self.end_called && is_taken && self.written_before_end == total
    }

    /// The stream has failed. `out` has what rustls wants to send about it.
    pub(crate) fn fail(&mut self, socket: &mut Socket<'_>, failure: TlsFailure, out: &mut Output) {
        self.send_records(socket, out);
        self.owed.error = true;
        self.incoming = Vec::new();
        self.in_vain += std::mem::take(&mut self.early).len() as u64;
        if failure.destroys() {
            socket.destroy();
        }
        self.failure = Some(failure);
        // An alert, and an answer that is on its way, are not destroyed by a reset. Without our
        // close_notify the peer knows that it is cut.
        socket.end();
        socket.discard();
    }
}

/// What the program does.
impl Session {
    pub(crate) fn stop_reading(&mut self, socket: &mut Socket<'_>, is_hold: bool) {
        self.is_held |= is_hold;
        self.is_paused |= !is_hold;
        match self.phase {
            // What is left is the peer's FIN, which must be seen.
            Phase::Ready if self.is_over() => {}
            Phase::Ready if is_hold => socket.hold(),
            Phase::Ready => socket.pause(),
            Phase::Connecting | Phase::Handshaking => {}
        }
    }

    pub(crate) fn continue_reading(&mut self, socket: &mut Socket<'_>, is_release: bool) {
        self.is_held &= !is_release;
        self.is_paused &= is_release;
        match self.phase {
            Phase::Ready if is_release => socket.release(),
            Phase::Ready => socket.resume(),
            Phase::Connecting | Phase::Handshaking => {}
        }
    }

    /// The program destroys the socket: the next event is `close`, and a failure that it has not seen
    /// is no reason for the ending.
    pub(crate) fn destroyed(&mut self) {
        self.is_destroyed = true;
        if self.owed.error {
            self.failure = None;
        }
        self.owed = Owed { close: self.owed.close, ..Owed::default() };
    }

    /// The program has seen all that the peer sends.
    const fn is_over(&self) -> bool {
        self.failure.is_some() || (self.peer_closed && !self.owed.end)
    }

    /// The end was delivered.
    pub(crate) fn after_end(&mut self, socket: &mut Socket<'_>, out: &mut Output) {
        // What follows is not part of the stream.
        socket.discard();
        if self.ends_with_peer || !socket.allows_half_open() {
            self.end(socket, out);
        }
    }

    /// The socket has the limits of a lingering close, and is read on: it still has to be decrypted,
    /// up to close_notify.
    pub(crate) fn discard(&mut self, socket: &mut Socket<'_>) {
        (self.is_discarding, self.is_paused, self.is_held) = (true, false, false);
        socket.discard_late();
    }

    pub(crate) fn request_drain(&mut self, socket: &mut Socket<'_>) -> bool {
        if self.phase == Phase::Ready && self.early.is_empty() {
            return !self.end_called && socket.request_drain();
        }
        // The socket gets the request with these bytes (`flush_early`).
        let waits = !self.early.is_empty() && !self.end_called && !is_broken(socket);
        self.owed.drain |= waits;
        waits
    }
}
