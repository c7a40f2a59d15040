//! A program with TLS on the simulated network, and a peer that plays rustls by hand: it can end at
//! any byte, in any way.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use finale::sim::{Host, Network, PeerSocket};
use finale::{ConnectOptions, Event, ListenOptions, Reactor, SocketId};
use finale_tls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use finale_tls::rustls::{
    self, ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
};
use finale_tls::{Tls, TlsSocket};

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
    pub(crate) fn new(versions: &[&'static rustls::SupportedProtocolVersion]) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let certificate: CertificateDer<'static> = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .expect("known versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .expect("a key of this certificate");
        server.send_tls13_tickets = 0;
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("a certificate");
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("known versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { server, client }
    }

    pub(crate) fn tls13() -> Self {
        Self::new(&[&rustls::version::TLS13])
    }
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
}

impl Scene {
    fn new() -> Self {
        let network = Network::new(1);
        let reactor = Reactor::with_net(network.host(HERE));
        Self { network, reactor, tls: Tls::new(), seen: Vec::new(), data: Vec::new() }
    }

    /// The program is a server with these options.
    pub(crate) fn server(configs: &Configs, options: ListenOptions) -> (Self, Peer) {
        let mut scene = Self::new();
        let listener = scene.reactor.listen((HERE, PORT), options).expect("a free port");
        scene.tls.accept_on(listener.id, &Arc::new(configs.server.clone())).expect("a good configuration");
        let socket = scene.network.peer(THERE).connect(listener.addr).expect("begun");
        let name = "localhost".try_into().expect("a name");
        let tls = ClientConnection::new(Arc::new(configs.client.clone()), name).expect("a good configuration");
        (scene, Peer::new(socket, tls.into()))
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

    /// The events without `lookup` and `connect`.
    pub(crate) fn events(&self) -> Vec<&str> {
        self.seen.iter().map(String::as_str).filter(|event| !event.starts_with("lookup")).collect()
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
        let Some(socket) = &self.socket else { return };
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
    }

    pub(crate) fn write(&mut self, plain: &[u8]) {
        self.tls.writer().write_all(plain).expect("room");
        let out = self.output();
        self.raw(&out);
    }

    pub(crate) fn close_notify(&mut self) {
        self.tls.send_close_notify();
        let out = self.output();
        self.raw(&out);
    }

    pub(crate) fn fin(&self) {
        self.socket.iter().for_each(PeerSocket::finish);
    }

    pub(crate) fn reset(&mut self) {
        self.socket.take().into_iter().for_each(PeerSocket::reset);
    }
}
