//! TLS over the events of a socket.
//!
//! Invariant: what rustls wants to send is written at once, and no answer is sent before the
//! client's close_notify has arrived.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use finale::{Event, ListenOptions, Socket, SocketMap};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

/// A longer request is reset.
const REQUEST_BYTES: usize = 1024 * 1024;

/// The options of the server's listener.
pub(crate) fn options(listen: ListenOptions) -> ListenOptions {
    listen.max_connections(10_000).idle_timeout(Duration::from_secs(10)).deadline(Duration::from_secs(60))
}

/// A new key and certificate for `localhost`.
pub(crate) fn self_signed() -> Result<(Arc<ServerConfig>, CertificateDer<'static>), Box<dyn std::error::Error>> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)?;
    Ok((Arc::new(config), certificate))
}

/// Whether a request was complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The client has sent close_notify.
    Whole,
    /// The connection ended without close_notify.
    Truncated,
    /// The bytes were not TLS, or were changed on the way.
    NoTls,
}

/// All sessions.
pub(crate) struct Tls {
    config: Arc<ServerConfig>,
    sessions: SocketMap<Session>,
}

struct Session {
    tls: ServerConnection,
    request: Vec<u8>,
    verdict: Verdict,
}

impl Tls {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Self {
        Self { config, sessions: SocketMap::new() }
    }

    /// Handles one event. Returns the verdict with the last event of each socket.
    pub(crate) fn handle(&mut self, socket: &mut Socket<'_>, event: &Event<'_>) -> Option<Verdict> {
        let id = socket.id();
        match event {
            Event::Connection => match ServerConnection::new(Arc::clone(&self.config)) {
                Ok(tls) => {
                    let session = Session { tls, request: Vec::new(), verdict: Verdict::Truncated };
                    self.sessions.insert(id, session);
                }
                Err(_) => socket.destroy(),
            },
            Event::Data(bytes) => {
                if let Some(session) = self.sessions.get_mut(id) {
                    session.receive(socket, bytes);
                }
            }
            // A FIN before close_notify, perhaps an attacker's: a reset instead of an answer.
            Event::End if !socket.end_called() => socket.destroy(),
            Event::Timeout => socket.destroy(),
            Event::Close(_) => return self.sessions.remove(id).map(|session| session.verdict),
            _ => {}
        }
        None
    }
}

impl Session {
    fn receive(&mut self, socket: &mut Socket<'_>, mut bytes: &[u8]) {
        while !bytes.is_empty() && !socket.end_called() {
            // Reading from memory fails only when rustls has no room. It has room again when the
            // packets are processed.
            let _ = self.tls.read_tls(&mut bytes);
            let is_whole = match self.tls.process_new_packets() {
                Ok(state) => state.peer_has_closed(),
                Err(_) => {
                    // rustls has an alert for the client, with the reason.
                    self.verdict = Verdict::NoTls;
                    self.flush(socket);
                    return end(socket);
                }
            };
            self.take_plaintext();
            if self.request.len() > REQUEST_BYTES {
                return socket.destroy();
            }
            if is_whole {
                self.verdict = Verdict::Whole;
                self.answer(socket);
                return end(socket);
            }
        }
        self.flush(socket);
    }

    fn take_plaintext(&mut self) {
        match self.tls.reader().read_to_end(&mut self.request) {
            Ok(_) => {}
            // Everything that has arrived was read.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.verdict = Verdict::NoTls,
        }
    }

    /// The client has finished its direction (RFC 8446, section 6.1); ours is still open.
    fn answer(&mut self, socket: &mut Socket<'_>) {
        let answer = self.request.to_ascii_uppercase();
        for piece in answer.chunks(16 * 1024) {
            // rustls buffers a limited number of bytes until they are sent.
            let _ = self.tls.writer().write_all(piece);
            self.flush(socket);
        }
        self.tls.send_close_notify();
        self.flush(socket);
    }

    /// Writes everything that rustls has for the client.
    fn flush(&mut self, socket: &mut Socket<'_>) {
        let mut out = Vec::new();
        while self.tls.wants_write() && self.tls.write_tls(&mut out).is_ok() {}
        if !out.is_empty() && socket.write_owned(out).is_err() {
            socket.destroy();
        }
    }
}

/// Ends our side. Further input is dropped.
fn end(socket: &mut Socket<'_>) {
    socket.end();
    socket.discard();
}
