//! A peer that ends in a certain way: rustls for the handshake, records by hand, and the socket
//! itself for FIN and RST.

use std::io::{self, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use socket2::SockRef;

use super::records::{self, ALERT, DATA, Records};
use crate::config::other;

/// "Later" in the page.
pub(super) const LATER: Duration = Duration::from_millis(100);
/// A program that does not get further within this time waits.
const LIMIT: Duration = Duration::from_secs(15);

/// What the program did at the end of its own direction.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Plaintext.
    pub(super) received: Vec<u8>,
    /// The alerts that it sent, close_notify among them, and its FIN or reset.
    pub(super) ends: Vec<String>,
    /// It neither finished nor reset its direction in time.
    pub(super) waits: bool,
}

/// One connection of the peer.
pub(super) struct Peer {
    stream: TcpStream,
    session: Option<Connection>,
    records: Option<Records>,
    seen: Seen,
    tcp_ended: bool,
}

impl Peer {
    fn new(stream: TcpStream, session: Connection) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Self { stream, session: Some(session), records: None, seen: Seen::default(), tcp_ended: false })
    }

    pub(super) fn server(stream: TcpStream, config: &Arc<ServerConfig>) -> io::Result<Self> {
        Self::new(stream, ServerConnection::new(Arc::clone(config)).map_err(other)?.into())
    }

    pub(super) fn client(stream: TcpStream, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from("localhost").map_err(other)?;
        Self::new(stream, ClientConnection::new(Arc::clone(config), name).map_err(other)?.into())
    }

    /// Completes the handshake. From here on the records are ours.
    pub(super) fn handshake(&mut self) -> io::Result<()> {
        let mut session = self.session.take().ok_or_else(|| other("a second handshake"))?;
        while session.is_handshaking() || session.wants_write() {
            while session.wants_write() {
                session.write_tls(&mut self.stream)?;
            }
            if session.is_handshaking() {
                self.take_record(&mut session)?;
            }
        }
        self.records = Some(Records::new(session.dangerous_extract_secrets().map_err(other)?)?);
        Ok(())
    }

    /// Gives one record to rustls. It never has more, so nothing is lost when its keys are taken.
    fn take_record(&mut self, session: &mut Connection) -> io::Result<()> {
        let Some(record) = records::read(&mut self.stream)? else {
            self.note("FIN");
            self.tcp_ended = true;
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let mut rest = &record[..];
        while !rest.is_empty() {
            session.read_tls(&mut rest)?;
        }
        if let Err(error) = session.process_new_packets() {
            self.note(&error.to_string());
            return Err(other(error));
        }
        Ok(())
    }

    /// Sends only the first half of what the handshake has to say first.
    pub(super) fn half_handshake(&mut self) -> io::Result<()> {
        let mut session = self.session.take().ok_or_else(|| other("a second handshake"))?;
        if matches!(session, Connection::Server(_)) {
            self.take_record(&mut session)?;
        }
        let mut bytes = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut bytes)?;
        }
        self.stream.write_all(&bytes[..bytes.len() / 2])
    }

    /// A record of application data.
    pub(super) fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let record = self.seal(DATA, bytes)?;
        self.stream.write_all(&record)
    }

    fn seal(&mut self, kind: u8, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.records.as_mut().ok_or_else(|| other("no handshake"))?.seal(kind, bytes)
    }

    /// Data and the close_notify in one segment.
    pub(super) fn data_and_close_notify(&mut self, bytes: &[u8]) -> io::Result<()> {
        let both = [self.seal(DATA, bytes)?, self.seal(ALERT, &[1, 0])?];
        self.stream.write_all(&both.concat())
    }

    /// Data and a fatal internal_error in one segment.
    pub(super) fn data_and_internal_error(&mut self, bytes: &[u8]) -> io::Result<()> {
        let both = [self.seal(DATA, bytes)?, self.seal(ALERT, &[2, 80])?];
        self.stream.write_all(&both.concat())
    }

    /// Data, and a second record with one changed byte, in one segment.
    pub(super) fn data_and_damaged(&mut self, bytes: &[u8], changed: &[u8]) -> io::Result<()> {
        let (good, mut bad) = (self.seal(DATA, bytes)?, self.seal(DATA, changed)?);
        bad[8] ^= 1;
        self.stream.write_all(&[good, bad].concat())
    }

    /// The first half of a record.
    pub(super) fn half_record(&mut self, bytes: &[u8]) -> io::Result<()> {
        let record = self.seal(DATA, bytes)?;
        self.stream.write_all(&record[..record.len() / 2])
    }

    pub(super) fn fin(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Sends an RST. Nothing can be sent or received afterwards.
    pub(super) fn reset(&mut self) -> io::Result<()> {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?;
        // The close of the only descriptor sends it.
        let unconnected = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        self.stream = unconnected.into();
        self.tcp_ended = true;
        Ok(())
    }

    /// Reads for this time, or until the program ends its direction of TCP.
    pub(super) fn watch(&mut self, time: Duration) -> io::Result<()> {
        let began = Instant::now();
        while !self.tcp_ended {
            let left = time.saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.receive() {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
                received => received?,
            }
        }
        self.stream.set_read_timeout(Some(LIMIT))
    }

    /// Reads until this text has arrived, or an end.
    pub(super) fn until(&mut self, text: &[u8]) -> io::Result<()> {
        while self.seen.ends.is_empty() && !self.seen.received.windows(text.len()).any(|bytes| bytes == text) {
            self.receive()?;
        }
        Ok(())
    }

    /// Reads until the program has ended its direction, of TLS or of TCP.
    pub(super) fn until_end(&mut self) -> io::Result<()> {
        while self.seen.ends.is_empty() {
            self.receive()?;
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        let record = match records::read(&mut self.stream) {
            Ok(Some(record)) => record,
            Ok(None) => {
                self.note("FIN");
                self.tcp_ended = true;
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                self.note("RST");
                self.tcp_ended = true;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let (kind, content) = match &mut self.records {
            Some(records) => records.open(&record)?,
            None => (record[0], record[5..].to_vec()),
        };
        match (kind, content.as_slice()) {
            (ALERT, [_, 0]) => self.note("close_notify"),
            (ALERT, [_, number]) => self.note(&format!("alert {number}")),
            (DATA, content) => self.seen.received.extend(content),
            _ => {}
        }
        Ok(())
    }

    fn note(&mut self, end: &str) {
        self.seen.ends.push(end.to_owned());
    }

    /// Keeps the connection open until the program has ended its direction, or the time is over.
    pub(super) fn finish(&mut self, time: Duration) -> Seen {
        // What the program does after its peer's end can be anything.
        let _ = self.watch(time);
        self.seen.waits = !self.tcp_ended;
        self.seen.clone()
    }
}
