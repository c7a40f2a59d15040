//! The load: clients of rustls on blocking sockets, without an event loop. All bytes are counted,
//! and every end must be a close_notify.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use finale_load::pinned::wrong;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::config::other;
use crate::service::{PIECE_BYTES, command};

/// A server that is silent for this long has failed.
const LIMIT: Duration = Duration::from_secs(60);
/// Clients that shake hands at the same time: the server is never idle, and accepts in small
/// batches.
const THREADS: usize = 4;

/// An open connection.
pub(super) struct Client(StreamOwned<ClientConnection, TcpStream>);

impl Client {
    /// Connects, and completes the handshake.
    pub(super) fn open(addr: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let name = ServerName::try_from("localhost").map_err(other)?;
        let session = ClientConnection::new(Arc::clone(config), name).map_err(other)?;
        let mut tls = StreamOwned::new(session, stream);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        Ok(Self(tls))
    }

    /// A byte in each direction.
    pub(super) fn ping(&mut self) -> io::Result<()> {
        self.0.write_all(b"p")?;
        self.0.read_exact(&mut [0])
    }

    pub(super) fn download(&mut self, bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.write_all(&command(b'd', bytes))?;
        let mut left = bytes;
        while left > 0 {
            match self.0.read(buffer)? as u64 {
                0 => return Err(wrong(format!("the end came {left} bytes too early"))),
                read => left = left.checked_sub(read).ok_or_else(|| wrong("more than the answer".to_owned()))?,
            }
        }
        Ok(())
    }

    pub(super) fn upload(&mut self, bytes: u64, piece: &[u8]) -> io::Result<()> {
        self.0.write_all(&command(b'u', bytes))?;
        let mut left = bytes;
        while left > 0 {
            let size = left.min(piece.len() as u64);
            self.0.write_all(&piece[..size as usize])?;
            left -= size;
        }
        self.0.read_exact(&mut [0])
    }

    /// A close_notify in each direction, and the FINs.
    pub(super) fn close(mut self) -> io::Result<()> {
        self.0.conn.send_close_notify();
        self.0.flush()?;
        // An end without close_notify is an error of the read.
        match self.0.read(&mut [0])? {
            0 => {}
            _ => return Err(wrong("a byte after the answer".to_owned())),
        }
        match self.0.sock.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(wrong("a byte after the close_notify".to_owned())),
        }
    }
}

/// Connect, full handshake, a byte in each direction, both close_notify, close: this many times.
pub(super) fn handshakes(addr: SocketAddr, config: &Arc<ClientConfig>, count: usize) -> io::Result<()> {
    let next = AtomicUsize::new(0);
    let work = || -> io::Result<()> {
        while next.fetch_add(1, Ordering::Relaxed) < count {
            let mut client = Client::open(addr, config)?;
            client.ping()?;
            client.close()?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| wrong("a panic".to_owned()))?)
    })
}

/// A buffer for downloads, and the piece of an upload.
pub(super) fn piece() -> Vec<u8> {
    vec![0x5a; PIECE_BYTES]
}
