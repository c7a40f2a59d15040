//! Peers on the simulated network, with TLS or without, played by hand.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use finale::sim::PeerSocket;
use finale_tls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use finale_tls::rustls::{
    self, ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
};

pub(crate) const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
pub(crate) const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

/// Configurations of both roles for one certificate.
#[derive(Clone)]
pub(crate) struct Configs {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
}

impl Configs {
    /// A server sends this many tickets after the handshake.
    pub(crate) fn new(tickets: usize) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let certificate: CertificateDer<'static> = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("a known version")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .expect("a key of this certificate");
        server.send_tls13_tickets = tickets;
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("a certificate");
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("a known version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { server: Arc::new(server), client: Arc::new(client) }
    }

    pub(crate) fn client(&self) -> Connection {
        let name = "localhost".try_into().expect("a name");
        ClientConnection::new(Arc::clone(&self.client), name).expect("a good configuration").into()
    }

    pub(crate) fn server(&self) -> Connection {
        ServerConnection::new(Arc::clone(&self.server)).expect("a good configuration").into()
    }
}

/// One end of a connection with the program.
pub(crate) struct End {
    socket: Option<PeerSocket>,
    tls: Option<Connection>,
    /// What has arrived.
    pub(crate) data: Vec<u8>,
    has_close_notify: bool,
    /// Nothing is read while it is set.
    pub(crate) is_slow: bool,
}

impl End {
    pub(crate) fn new(socket: PeerSocket, tls: Option<Connection>) -> Self {
        Self { socket: Some(socket), tls, data: Vec::new(), has_close_notify: false, is_slow: false }
    }

    /// Sends what TLS wants to send, and reads what has arrived.
    pub(crate) fn turn(&mut self) {
        self.flush();
        let Some(socket) = self.socket.as_ref().filter(|_| !self.is_slow) else { return };
        let bytes = socket.read();
        let Some(tls) = &mut self.tls else { return self.data.extend_from_slice(&bytes) };
        let mut rest = &bytes[..];
        while !rest.is_empty() && tls.read_tls(&mut rest).is_ok() {
            let Ok(state) = tls.process_new_packets() else { break };
            self.has_close_notify |= state.peer_has_closed();
            let _ = tls.reader().read_to_end(&mut self.data);
        }
        self.flush();
    }

    fn flush(&mut self) {
        let (Some(tls), Some(socket)) = (&mut self.tls, &self.socket) else { return };
        let mut out = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut out).expect("memory");
        }
        if !out.is_empty() {
            socket.send(&out);
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if self.tls.is_none() {
            return self.socket.iter().for_each(|socket| socket.send(bytes));
        }
        // No more than rustls keeps.
        for piece in bytes.chunks(16 * 1024) {
            self.tls.iter_mut().for_each(|tls| tls.writer().write_all(piece).expect("room"));
            self.flush();
        }
    }

    /// Bytes that are no record of this stream.
    pub(crate) fn raw(&self, bytes: &[u8]) {
        self.socket.iter().for_each(|socket| socket.send(bytes));
    }

    /// Ends in order.
    pub(crate) fn end(&mut self) {
        self.close_notify();
        self.fin();
    }

    /// Ends the stream, if it has TLS, and not the connection.
    pub(crate) fn close_notify(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.flush();
    }

    /// A FIN and nothing else: with TLS the stream is truncated.
    pub(crate) fn fin(&mut self) {
        self.socket.iter().for_each(PeerSocket::finish);
    }

    pub(crate) fn reset(&mut self) {
        self.socket.take().into_iter().for_each(PeerSocket::reset);
    }

    /// The program has ended its direction, and that shows that the data is complete.
    pub(crate) fn has_end(&self) -> bool {
        self.has_fin() && (self.tls.is_none() || self.has_close_notify)
    }

    pub(crate) fn has_fin(&self) -> bool {
        self.socket.as_ref().is_some_and(|socket| socket.has_fin() && !socket.is_reset())
    }

    pub(crate) fn is_reset(&self) -> bool {
        self.socket.as_ref().is_some_and(PeerSocket::is_reset)
    }

    /// It can't take what it has for complete.
    pub(crate) fn knows_that_it_is_cut(&self) -> bool {
        !self.has_close_notify && (self.is_reset() || (self.tls.is_some() && self.has_fin()))
    }

    pub(crate) fn unread_bytes(&self) -> usize {
        self.socket.as_ref().map_or(0, PeerSocket::unread_bytes)
    }
}
