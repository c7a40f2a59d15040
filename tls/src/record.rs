//! rustls, one record at a time: bytes from the peer in, plaintext and bytes for the peer out.
//!
//! Invariant: nothing here knows a socket. rustls keeps no input: what it has not consumed stays
//! with the caller, at the same place, until it has.

use std::sync::Arc;

use finale::Buffer;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{CommonState, Error};

/// Type, version and length (RFC 8446 section 5.1).
const HEADER_BYTES: usize = 5;

/// A connection in either role.
pub(crate) enum Connection {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// Bytes for the peer. The memory is kept and not cleared, because clearing costs as much as copying.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Shared with the queue of a socket after [`give`](Output::give), until the kernel has it.
    bytes: Arc<Vec<u8>>,
    len: usize,
    /// Memory that was given away, and can be used again when it has come back.
    given: Vec<Arc<Vec<u8>>>,
}

/// How many pieces of memory are kept. A socket that does not send its own keeps it from the others.
const GIVEN: usize = 4;

impl Output {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Arc::new(vec![0; bytes]), len: 0, given: Vec::new() }
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
        if Arc::get_mut(&mut self.bytes).is_some() {
            return;
        }
        let back = self.given.iter_mut().position(|given| Arc::get_mut(given).is_some());
        let next = back.map_or_else(Arc::default, |back| self.given.swap_remove(back));
        let old = std::mem::replace(&mut self.bytes, next);
        if self.given.len() < GIVEN {
            self.given.push(old);
        }
    }

    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The same bytes without a copy. The next [`clear`](Output::clear) takes other memory.
    pub(crate) fn give(&self) -> Buffer {
        Buffer::shared(&self.bytes, ..self.len)
    }

    /// Room for this many bytes.
    fn room(&mut self, count: usize) -> &mut [u8] {
        // It is not shared since it was cleared.
        let bytes = Arc::make_mut(&mut self.bytes);
        if bytes.len() < self.len + count {
            bytes.resize(self.len + count, 0);
        }
        &mut bytes[self.len..]
    }

    fn fill(&mut self, wanted: usize, mut write: impl FnMut(&mut [u8]) -> Result<usize, Failed>) -> Result<(), Error> {
        let mut room = wanted;
        loop {
            match write(self.room(room)) {
                Ok(count) => {
                    self.len += count;
                    return Ok(());
                }
                Err(Failed::NeedsRoom(more)) if more > room => room = more,
                Err(Failed::NeedsRoom(_)) => return Err(Error::General("rustls needs no more room".into())),
                Err(Failed::For(error)) => return Err(error),
            }
        }
    }
}

enum Failed {
    NeedsRoom(usize),
    For(Error),
}

impl From<EncodeError> for Failed {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(size) => Self::NeedsRoom(size.required_size),
            EncodeError::AlreadyEncoded => Self::For(Error::General("a record was encoded twice".into())),
        }
    }
}

impl From<EncryptError> for Failed {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(size) => Self::NeedsRoom(size.required_size),
            EncryptError::EncryptExhausted => Self::For(Error::EncryptError),
        }
    }
}

/// The two roles of rustls, which have the same calls and no common type.
trait Role {
    type Data;
    fn common(&self) -> &CommonState;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Role for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn common(&self) -> &CommonState {
        self
    }
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Role for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn common(&self) -> &CommonState {
        self
    }
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

/// What some input has brought.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// How many bytes were used.
    pub(crate) consumed: usize,
    /// The peer's close_notify has arrived.
    pub(crate) peer_closed: bool,
    pub(crate) error: Option<Error>,
}

impl Connection {
    /// What was negotiated.
    pub(crate) fn common(&self) -> &CommonState {
        match self {
            Self::Client(connection) => connection,
            Self::Server(connection) => connection,
        }
    }

    /// Processes all of the input that is complete. Plaintext and bytes for the peer are appended,
    /// also those of an alert after an error.
    pub(crate) fn receive(&mut self, incoming: &mut [u8], plain: &mut Vec<u8>, out: &mut Output) -> Progress {
        match self {
            Self::Client(connection) => receive(&mut **connection, incoming, plain, out),
            Self::Server(connection) => receive(&mut **connection, incoming, plain, out),
        }
    }

    /// Encrypts something for the peer. `incoming` is the input that is not consumed yet.
    pub(crate) fn send(&mut self, incoming: &mut Vec<u8>, what: What<'_>, out: &mut Output) -> Result<(), Error> {
        match self {
            Self::Client(connection) => send(&mut **connection, incoming, what, out),
            Self::Server(connection) => send(&mut **connection, incoming, what, out),
        }
    }
}

/// What is encrypted for the peer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum What<'a> {
    Data(&'a [u8]),
    CloseNotify,
}

impl What<'_> {
    /// Room that suffices, if no other record waits: per record of 16 KiB a header, a tag, and what
    /// TLS 1.2 needs in addition.
    const fn room(self) -> usize {
        match self {
            Self::Data(plain) => plain.len() + (plain.len() / RECORD_BYTES + 1) * 64,
            Self::CloseNotify => 64,
        }
    }

    fn write<D>(self, traffic: &mut WriteTraffic<'_, D>, room: &mut [u8]) -> Result<usize, EncryptError> {
        match self {
            Self::Data(plain) => traffic.encrypt(plain, room),
            Self::CloseNotify => traffic.queue_close_notify(room),
        }
    }
}

fn receive<R: Role>(role: &mut R, incoming: &mut [u8], plain: &mut Vec<u8>, out: &mut Output) -> Progress {
    let mut progress = Progress::default();
    loop {
        let UnbufferedStatus { mut discard, state } = role.process(&mut incoming[progress.consumed..]);
        let mut is_over = false;
        let result = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let mut result = Ok(());
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            discard += record.discard;
                            plain.extend_from_slice(record.payload);
                        }
                        Err(error) => result = Err(error),
                    }
                }
                result
            }
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out),
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(())
            }
            Ok(ConnectionState::PeerClosed) => {
                progress.peer_closed = true;
                Ok(())
            }
            Ok(ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake | ConnectionState::Closed) => {
                is_over = true;
                Ok(())
            }
            // Early data is switched off (`Tls::accept_on`).
            Ok(_) => Err(Error::General("rustls is in a state that this program does not know".into())),
            Err(error) => Err(error),
        };
        progress.consumed += discard;
        if let Err(error) = result {
            progress.error.get_or_insert(error);
        }
        // After an error only the alert for the peer is taken: rustls must not see the same input
        // again, with which it would fail again.
        is_over |= progress.error.is_some() && !role.common().wants_write();
        if is_over {
            return progress;
        }
    }
}

fn send<R: Role>(role: &mut R, incoming: &mut Vec<u8>, what: What<'_>, out: &mut Output) -> Result<(), Error> {
    loop {
        let UnbufferedStatus { discard, state } = role.process(incoming);
        let mut is_written = false;
        match state? {
            ConnectionState::EncodeTlsData(data) => encode(data, out)?,
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::WriteTraffic(mut traffic) => {
                out.fill(what.room(), |room| what.write(&mut traffic, room).map_err(Failed::from))?;
                is_written = true;
            }
            // All input is processed before anything is written.
            state => return Err(Error::General(format!("nothing can be sent in the state {state:?}"))),
        }
        incoming.drain(..discard);
        if is_written {
            return Ok(());
        }
    }
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, out: &mut Output) -> Result<(), Error> {
    // A flight of a handshake: a certificate chain can be longer.
    out.fill(4096, |room| data.encode(room).map_err(Failed::from))
}

/// Where the record at `at` ends, if all of it has arrived.
pub(crate) fn record_end(bytes: &[u8], at: usize) -> Option<usize> {
    let header = bytes.get(at..at + HEADER_BYTES)?;
    let end = at + HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]]));
    (end <= bytes.len()).then_some(end)
}

/// The largest plaintext of one record (RFC 8446 section 5.1).
pub(crate) const RECORD_BYTES: usize = 16 * 1024;
