//! A program with TLS on the simulated network, and a peer that plays rustls by hand: it can end at
//! any byte, in any way.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use finale::sim::{Host, Network, PeerSocket};
use finale::{ConnectOptions, Event, ListenOptions, ListenerId, Reactor, SocketId, StopOptions};
use finale_tls::rustls::crypto::ring::cipher_suite;
use finale_tls::rustls::crypto::{CryptoProvider, SupportedKxGroup};
use finale_tls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use finale_tls::rustls::server::WebPkiClientVerifier;
use finale_tls::rustls::{
    self, ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    SupportedCipherSuite,
};
use finale_tls::{Tls, TlsSocket};
use rcgen::{CertificateParams, KeyPair};

use crate::forge::Forger;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const PORT: u16 = 443;

/// Configurations of both roles for one certificate.
#[derive(Clone)]
pub(crate) struct Configs {
    pub(crate) server: ServerConfig,
    pub(crate) client: ClientConfig,
}

impl Configs {
    /// With one cipher suite for each version, so that records can be forged.
    pub(crate) fn new(versions: &[&'static rustls::SupportedProtocolVersion]) -> Self {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        Self::with(versions, params)
    }

    pub(crate) fn with(versions: &[&'static rustls::SupportedProtocolVersion], params: CertificateParams) -> Self {
        let (certificate, key) = certificate(&params);
        Self::of(versions, provider(), certificate, key)
    }

    pub(crate) fn of(
        versions: &[&'static rustls::SupportedProtocolVersion],
        provider: CryptoProvider,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Self {
        let provider = Arc::new(provider);
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .expect("known versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .expect("a key of this certificate");
        server.send_tls13_tickets = 0;
        server.enable_secret_extraction = true;
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("a certificate");
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("known versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.enable_secret_extraction = true;
        Self { server, client }
    }

    pub(crate) fn tls13() -> Self {
        Self::new(&[&rustls::version::TLS13])
    }

    pub(crate) fn tls12() -> Self {
        Self::new(&[&rustls::version::TLS12])
    }

    /// A client that trusts others.
    pub(crate) fn with_roots(&self, roots: RootCertStore) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::clone(self.client.crypto_provider()))
            .with_safe_default_protocol_versions()
            .expect("known versions")
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    /// A client with these cipher suites of TLS 1.3.
    pub(crate) fn with_suites(&self, suites: &[SupportedCipherSuite]) -> ClientConfig {
        let mut provider = CryptoProvider::clone(self.client.crypto_provider());
        provider.cipher_suites = suites.to_vec();
        ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("known versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth()
    }

    /// The groups for the key exchange of TLS 1.3, in each role.
    pub(crate) fn with_groups(
        self,
        server: &[&'static dyn SupportedKxGroup],
        client: &[&'static dyn SupportedKxGroup],
    ) -> Self {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let (certificate, key) = certificate(&params);
        let provider = |groups: &[&'static dyn SupportedKxGroup]| {
            let mut provider = CryptoProvider::clone(self.client.crypto_provider());
            provider.kx_groups = groups.to_vec();
            provider
        };
        let versions = [&rustls::version::TLS13];
        let of = |groups| Self::of(&versions, provider(groups), certificate.clone(), key.clone_key());
        Self { server: of(server).server, client: of(client).client }
    }

    /// The server wants a certificate of the client, which has none.
    pub(crate) fn with_client_auth(mut self) -> Self {
        let mut roots = RootCertStore::empty();
        let (root, _) = certificate(&CertificateParams::default());
        roots.add(root).expect("a certificate");
        let provider = Arc::clone(self.server.crypto_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let old = self.server;
        self.server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("known versions")
            .with_client_cert_verifier(verifier.build().expect("it has roots"))
            .with_cert_resolver(old.cert_resolver);
        self
    }
}

/// With one cipher suite for each version, so that records can be forged.
pub(crate) fn provider() -> CryptoProvider {
    let cipher_suites =
        vec![cipher_suite::TLS13_CHACHA20_POLY1305_SHA256, cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256];
    CryptoProvider { cipher_suites, ..rustls::crypto::ring::default_provider() }
}

/// A certificate that is its own issuer, and its key.
pub(crate) fn certificate(params: &CertificateParams) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
}

/// The program under test with its network.
pub(crate) struct Scene {
    pub(crate) network: Network,
    pub(crate) reactor: Reactor<Host>,
    pub(crate) tls: Tls,
    /// All events for the program, as they are printed.
    pub(crate) seen: Vec<String>,
    /// All plaintext for the program.
    pub(crate) data: Vec<u8>,
    pub(crate) listener: Option<ListenerId>,
}

impl Scene {
    fn new() -> Self {
        let network = Network::new(1);
        let reactor = Reactor::with_net(network.host(HERE));
        Self { network, reactor, tls: Tls::new(), seen: Vec::new(), data: Vec::new(), listener: None }
    }

    /// The program is a server with these options.
    pub(crate) fn server(configs: &Configs, options: ListenOptions) -> (Self, Peer) {
        Self::new().with_server(configs, options)
    }

    /// The same with little room in the kernels, so that much has to wait.
    pub(crate) fn narrow_server(configs: &Configs, options: ListenOptions) -> (Self, Peer) {
        Self::server_with_buffers(configs, options, 3000)
    }

    /// The same with this much room in the kernel of a sender.
    pub(crate) fn server_with_buffers(configs: &Configs, options: ListenOptions, send_bytes: usize) -> (Self, Peer) {
        let scene = Self::new();
        scene.network.set_buffers(send_bytes, 3000);
        scene.with_server(configs, options)
    }

    fn with_server(self, configs: &Configs, options: ListenOptions) -> (Self, Peer) {
        let mut scene = self;
        let listener = scene.reactor.listen((HERE, PORT), options).expect("a free port");
        scene.tls.accept_on(listener.id, &Arc::new(configs.server.clone())).expect("a good configuration");
        scene.listener = Some(listener.id);
        let peer = scene.another(configs);
        (scene, peer)
    }

    /// Another client of the server.
    pub(crate) fn another(&self, configs: &Configs) -> Peer {
        let socket = self.network.peer(THERE).connect(SocketAddr::new(HERE, PORT)).expect("begun");
        let name = "localhost".try_into().expect("a name");
        let tls = ClientConnection::new(Arc::new(configs.client.clone()), name).expect("a good configuration");
        Peer::new(socket, tls.into())
    }

    /// The program is a client with these options.
    pub(crate) fn client(configs: &Configs, options: ConnectOptions) -> (Self, SocketId, Peer) {
        let mut scene = Self::new();
        let addr = SocketAddr::new(THERE, PORT);
        let listener = scene.network.peer(THERE).listen(addr).expect("a free port");
        let name = "localhost".try_into().expect("a name");
        let config = Arc::new(configs.client.clone());
        let id = scene.tls.connect(&mut scene.reactor.context(), addr, options, &config, name).expect("begun");
        let socket = loop {
            scene.step(Duration::from_millis(1), &mut |_, _| {});
            if let Some(socket) = listener.accept() {
                break socket;
            }
        };
        let tls = ServerConnection::new(Arc::new(configs.server.clone())).expect("a good configuration");
        (scene, id, Peer::new(socket, tls.into()))
    }

    /// Stops the listener of a server, with a grace of a second.
    pub(crate) fn stop(&mut self) {
        let listener = self.listener.expect("a server");
        self.reactor.stop_listener(listener, StopOptions::default()).expect("it listens");
    }

    /// Runs the program for this time.
    pub(crate) fn step(&mut self, time: Duration, program: &mut dyn FnMut(&mut TlsSocket<'_>, Event<'_>)) {
        let until = self.network.now() + time;
        while let Some((mut socket, event)) = self.reactor.next_before(until).expect("it continues") {
            let mut events = self.tls.handle(&mut socket, event);
            while let Some((mut socket, event)) = events.next() {
                self.seen.push(event.to_string());
                if let Event::Data(bytes) = event {
                    self.data.extend_from_slice(bytes);
                }
                program(&mut socket, event);
            }
        }
        // A reactor without sockets does not wait.
        self.network.advance(until.saturating_duration_since(self.network.now()));
    }

    /// Runs program and peer until nothing has happened for 50 ms.
    pub(crate) fn play(&mut self, peer: &mut Peer, program: &mut dyn FnMut(&mut TlsSocket<'_>, Event<'_>)) {
        let mut quiet = 0;
        while quiet < 10 {
            let before = (self.seen.len(), peer.progress());
            self.step(Duration::from_millis(5), program);
            peer.turn();
            quiet = if (self.seen.len(), peer.progress()) == before { quiet + 1 } else { 0 };
        }
    }

    /// Runs both until the handshake is done for the peer. What it has to send then is not sent.
    pub(crate) fn handshake(&mut self, peer: &mut Peer, program: &mut dyn FnMut(&mut TlsSocket<'_>, Event<'_>)) {
        for _ in 0..100 {
            self.step(Duration::from_millis(5), program);
            peer.turn();
            if !peer.tls.is_handshaking() {
                return;
            }
        }
        panic!("the handshake takes too long: {:?}, {:?}", self.seen, peer.error);
    }

    /// Sends these bytes of the peer in pieces of `size`, and lets the program run after each.
    pub(crate) fn drip(
        &mut self,
        peer: &mut Peer,
        bytes: &[u8],
        size: usize,
        program: &mut dyn FnMut(&mut TlsSocket<'_>, Event<'_>),
    ) {
        for piece in bytes.chunks(size) {
            peer.raw(piece);
            self.step(Duration::from_millis(1), program);
        }
    }

    /// The events without `lookup` and `connect`.
    pub(crate) fn events(&self) -> Vec<&str> {
        self.seen
            .iter()
            .map(String::as_str)
            .filter(|event| !event.starts_with("lookup") && *event != "connect")
            .collect()
    }

    pub(crate) fn last(&self) -> &str {
        self.seen.last().map_or("", String::as_str)
    }
}

/// A peer that plays rustls by hand.
pub(crate) struct Peer {
    pub(crate) socket: Option<PeerSocket>,
    pub(crate) tls: Connection,
    /// Plaintext of the program.
    pub(crate) data: Vec<u8>,
    /// The program's close_notify, its FIN, its reset, and the error that rustls has found.
    pub(crate) has_close_notify: bool,
    pub(crate) has_fin: bool,
    pub(crate) is_reset: bool,
    pub(crate) error: Option<String>,
    sent: usize,
}

impl Peer {
    fn new(socket: PeerSocket, tls: Connection) -> Self {
        Self {
            socket: Some(socket),
            tls,
            data: Vec::new(),
            has_close_notify: false,
            has_fin: false,
            is_reset: false,
            error: None,
            sent: 0,
        }
    }

    fn progress(&self) -> (usize, usize, bool, bool) {
        (self.sent, self.data.len(), self.has_fin, self.has_close_notify)
    }

    /// What rustls wants to send, without sending it.
    pub(crate) fn output(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut out).expect("memory");
        }
        out
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.sent += bytes.len();
        if let Some(socket) = &self.socket
            && !bytes.is_empty()
        {
            socket.send(bytes);
        }
    }

    /// Sends what rustls has, and reads what has arrived.
    pub(crate) fn turn(&mut self) {
        let out = self.output();
        self.raw(&out);
        self.read();
    }

    /// Reads what has arrived, and returns it.
    pub(crate) fn read(&mut self) -> Vec<u8> {
        let Some(socket) = &self.socket else { return Vec::new() };
        let bytes = socket.read();
        self.has_fin |= socket.has_fin();
        self.is_reset |= socket.is_reset();
        let mut rest = &bytes[..];
        while !rest.is_empty() && self.tls.read_tls(&mut rest).is_ok() {
            match self.tls.process_new_packets() {
                Ok(state) => self.has_close_notify |= state.peer_has_closed(),
                Err(error) => {
                    self.error = Some(error.to_string());
                    break;
                }
            }
            let _ = self.tls.reader().read_to_end(&mut self.data);
        }
        bytes
    }

    /// The records of these bytes, without sending them.
    pub(crate) fn records(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut out = self.output();
        for piece in plain.chunks(16 * 1024) {
            self.tls.writer().write_all(piece).expect("room");
            out.extend(self.output());
        }
        out
    }

    /// The record of close_notify, without sending it.
    pub(crate) fn close_record(&mut self) -> Vec<u8> {
        self.tls.send_close_notify();
        self.output()
    }

    pub(crate) fn write(&mut self, plain: &[u8]) {
        let out = self.records(plain);
        self.raw(&out);
    }

    pub(crate) fn close_notify(&mut self) {
        let out = self.close_record();
        self.raw(&out);
    }

    /// Reads what has arrived, and returns the answer without sending it.
    pub(crate) fn answer(&mut self) -> Vec<u8> {
        let bytes = self.socket.as_ref().map(PeerSocket::read).unwrap_or_default();
        self.tls.read_tls(&mut &bytes[..]).expect("it is short");
        self.tls.process_new_packets().expect("a good message");
        self.output()
    }

    /// Takes the keys of the connection, which has nothing to send: from now on records are forged.
    pub(crate) fn forger(&mut self) -> Forger {
        let is_tls13 = self.tls.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
        let dummy = ServerConnection::new(Arc::new(Configs::tls13().server)).expect("a good configuration");
        Forger::new(std::mem::replace(&mut self.tls, dummy.into()), is_tls13)
    }

    pub(crate) fn fin(&self) {
        self.socket.iter().for_each(PeerSocket::finish);
    }

    pub(crate) fn reset(&mut self) {
        self.socket.take().into_iter().for_each(PeerSocket::reset);
    }
}
