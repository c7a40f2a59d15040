//! rustls without its buffers: one buffer for what all connections read, one for what they write.
//! A connection has bytes of its own only while a record is incomplete or the client does not read.
//!
//! Fair, because it reads up to 64 KiB at once, decrypts in place, encrypts a whole piece into one
//! write, and takes a short read for a drained socket unless the read side was seen closed.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};

use super::ready::{self, Handler};
use crate::config::other;
use crate::service::{PIECE_BYTES, Service};

/// What is read at once, after what was left of an incomplete record (at most 18 KiB).
const INPUT_BYTES: usize = PIECE_BYTES + 20 * 1024;
/// A piece as records, or the server's part of a handshake.
const OUTPUT_BYTES: usize = PIECE_BYTES + 4 * 1024;

pub(super) fn run(listener: std::net::TcpListener, config: Arc<ServerConfig>) -> io::Result<()> {
    ready::run(listener, Unbuffered { config, input: vec![0; INPUT_BYTES], output: vec![0; OUTPUT_BYTES] })
}

struct Unbuffered {
    config: Arc<ServerConfig>,
    input: Vec<u8>,
    output: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    session: UnbufferedServerConnection,
    service: Service,
    /// An incomplete record.
    partial: Vec<u8>,
    /// What the client does not take yet.
    unsent: Vec<u8>,
    /// The client's close_notify was received.
    ended: bool,
}

impl Handler for Unbuffered {
    type Connection = Connection;

    fn open(&mut self, stream: TcpStream) -> io::Result<Connection> {
        let session = UnbufferedServerConnection::new(Arc::clone(&self.config)).map_err(other)?;
        let (partial, unsent) = (Vec::new(), Vec::new());
        Ok(Connection { stream, session, service: Service::default(), partial, unsent, ended: false })
    }

    fn serve(&mut self, connection: &mut Connection, read_closed: bool) -> io::Result<()> {
        if !connection.unsent.is_empty() {
            connection.send_unsent()?;
            connection.process(&mut [], &mut self.output)?;
        }
        while connection.unsent.is_empty() && !connection.ended {
            let kept = connection.partial.len();
            self.input[..kept].copy_from_slice(&connection.partial);
            let room = &mut self.input[kept..kept + PIECE_BYTES];
            let read = connection.stream.read(room)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let input = &mut self.input[..kept + read];
            let used = connection.process(input, &mut self.output)?;
            connection.partial.clear();
            connection.partial.extend_from_slice(&input[used..]);
            if connection.partial.is_empty() {
                connection.partial = Vec::new();
            }
            if read < PIECE_BYTES && !read_closed {
                break;
            }
        }
        if connection.ended && connection.unsent.is_empty() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }
}

impl Connection {
    /// Handles the complete records of the input, and sends what is due. Returns how much of the
    /// input is done.
    fn process(&mut self, input: &mut [u8], output: &mut [u8]) -> io::Result<usize> {
        let (mut used, mut encoded) = (0, 0);
        loop {
            let UnbufferedStatus { mut discard, state } = self.session.process_tls_records(&mut input[used..]);
            match state.map_err(other)? {
                ConnectionState::EncodeTlsData(mut data) => {
                    encoded += data.encode(&mut output[encoded..]).map_err(other)?;
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    send(&mut self.stream, &mut self.unsent, &output[..encoded])?;
                    encoded = 0;
                }
                ConnectionState::ReadTraffic(mut data) => {
                    while let Some(record) = data.next_record() {
                        let record = record.map_err(other)?;
                        self.service.receive(record.payload);
                        discard += record.discard;
                    }
                }
                ConnectionState::WriteTraffic(mut traffic) => {
                    let piece = self.service.piece();
                    if !self.unsent.is_empty() || piece.is_empty() {
                        used += discard;
                        break;
                    }
                    let bytes = traffic.encrypt(piece, output).map_err(other)?;
                    self.service.sent(piece.len());
                    send(&mut self.stream, &mut self.unsent, &output[..bytes])?;
                }
                ConnectionState::PeerClosed => self.ended = true,
                _ => {
                    used += discard;
                    break;
                }
            }
            used += discard;
        }
        if self.ended && self.unsent.is_empty() {
            self.close_notify(output)?;
        }
        Ok(used)
    }

    fn close_notify(&mut self, output: &mut [u8]) -> io::Result<()> {
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = self.session.process_tls_records(&mut []).state {
            let bytes = traffic.queue_close_notify(output).map_err(other)?;
            send(&mut self.stream, &mut self.unsent, &output[..bytes])?;
        }
        Ok(())
    }

    fn send_unsent(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            let sent = self.stream.write(&self.unsent)?;
            self.unsent.drain(..sent);
        }
        self.unsent = Vec::new();
        Ok(())
    }
}

/// Sends, and keeps what the client does not take.
fn send(stream: &mut TcpStream, unsent: &mut Vec<u8>, mut bytes: &[u8]) -> io::Result<()> {
    while unsent.is_empty() && !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    unsent.extend_from_slice(bytes);
    Ok(())
}
