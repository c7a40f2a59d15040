//! rustls as its own examples drive it: `read_tls` and `write_tls` directly on the socket, and the
//! session's own buffers.
//!
//! Fair, because a connection reads on while the kernel has bytes, writes only what the session can
//! buffer, and reads nothing while an answer waits for room.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::{ServerConfig, ServerConnection};

use super::ready::{self, Handler};
use crate::config::other;
use crate::service::{PIECE_BYTES, Service};

pub(super) fn run(listener: std::net::TcpListener, config: Arc<ServerConfig>) -> io::Result<()> {
    ready::run(listener, Buffered { config, buffer: vec![0; PIECE_BYTES] })
}

struct Buffered {
    config: Arc<ServerConfig>,
    /// Plaintext of all connections.
    buffer: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    session: ServerConnection,
    service: Service,
    /// The client's close_notify was received.
    ended: bool,
}

impl Handler for Buffered {
    type Connection = Connection;

    fn open(&mut self, stream: TcpStream) -> io::Result<Connection> {
        let session = ServerConnection::new(Arc::clone(&self.config)).map_err(other)?;
        Ok(Connection { stream, session, service: Service::default(), ended: false })
    }

    fn serve(&mut self, connection: &mut Connection, _read_closed: bool) -> io::Result<()> {
        loop {
            connection.send()?;
            if connection.ended {
                connection.session.send_close_notify();
                return connection.flush();
            }
            if connection.session.read_tls(&mut connection.stream)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let state = match connection.session.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    // The alert.
                    connection.flush()?;
                    return Err(other(error));
                }
            };
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let read = connection.session.reader().read(&mut self.buffer)?;
                connection.service.receive(&self.buffer[..read]);
                left -= read;
            }
            connection.ended = state.peer_has_closed();
        }
    }
}

impl Connection {
    /// Sends what the session and the service have, or would block.
    fn send(&mut self) -> io::Result<()> {
        self.flush()?;
        while !self.service.piece().is_empty() {
            let taken = self.session.writer().write(self.service.piece())?;
            self.service.sent(taken);
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.stream)?;
        }
        Ok(())
    }
}
