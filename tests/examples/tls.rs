//! TLS: a complete request is distinguished from one that was cut off, wherever it was cut.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use finale::sim::{Network, PeerSocket};
use finale::{Event, ListenOptions, Reactor};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

use super::program::{Program, client};
use super::session::{self, Tls, Verdict};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cut {
    Fin,
    Reset,
    /// A byte is changed.
    Tampered,
}

/// The result of one session.
#[derive(Debug)]
struct Outcome {
    verdict: Verdict,
    /// The client's view: what it could read, and whether the server had sent that this was all.
    answer: Vec<u8>,
    answer_is_whole: bool,
    /// Bytes that the client had for the server.
    sent: usize,
}

struct Ends {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Ends {
    fn new() -> Self {
        let (server, certificate) = session::self_signed().expect("a certificate");
        Self { server, client: Arc::new(client_config(certificate)) }
    }

    /// The client sends `hello` and its end, and is cut after this many of its bytes.
    fn session(&self, cut: Option<(usize, Cut)>) -> Outcome {
        let network = Network::new(1);
        let mut reactor = Reactor::with_net(network.host(HERE));
        let listener = reactor.listen((HERE, 443), session::options(ListenOptions::default())).expect("a free port");
        let mut tls = Tls::new(Arc::clone(&self.server));
        let mut talker = Talker::new(&self.client, network.peer(THERE).connect(listener.addr).expect("begun"), cut);
        // Accepted: a connection that was not accepted has no result.
        network.advance(Duration::from_millis(5));
        for _ in 0..20_000 {
            talker.speak();
            let until = network.now() + Duration::from_millis(5);
            while let Some((mut socket, event)) = reactor.next_before(until).expect("it continues") {
                let verdict = tls.handle(&mut socket, &event);
                if let (Event::Close(_), Some(verdict)) = (event, verdict) {
                    return talker.outcome(verdict);
                }
            }
            talker.listen();
        }
        panic!("{cut:?}: it does not end")
    }
}

/// The client.
struct Talker {
    tls: ClientConnection,
    /// Until it has reset.
    peer: Option<PeerSocket>,
    cut: Option<(usize, Cut)>,
    has_spoken: bool,
    sent: usize,
    answer: Vec<u8>,
    answer_is_whole: bool,
}

impl Talker {
    fn new(config: &Arc<ClientConfig>, peer: PeerSocket, cut: Option<(usize, Cut)>) -> Self {
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = ClientConnection::new(Arc::clone(config), name).expect("good options");
        let (answer, peer) = (Vec::new(), Some(peer));
        Self { tls, peer, cut, has_spoken: false, sent: 0, answer, answer_is_whole: false }
    }

    /// Sends what there is to send, up to the cut.
    fn speak(&mut self) {
        if !self.tls.is_handshaking() && !std::mem::replace(&mut self.has_spoken, true) {
            self.tls.writer().write_all(b"hello").expect("room");
            self.tls.send_close_notify();
        }
        let mut out = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut out).expect("memory");
        }
        let place = self.cut.map(|(at, _)| at.wrapping_sub(self.sent)).filter(|place| *place < out.len());
        self.sent += out.len();
        match (place, self.cut) {
            (Some(place), Some((_, Cut::Tampered))) => out[place] ^= 0x40,
            (Some(place), _) => out.truncate(place),
            // Nothing is sent after the cut.
            (None, Some((at, Cut::Fin | Cut::Reset))) if self.sent > at => return,
            (None, _) => {}
        }
        let Some(peer) = &self.peer else { return };
        peer.send(&out);
        match (place, self.cut) {
            (Some(_), Some((_, Cut::Fin))) => peer.finish(),
            (Some(_), Some((_, Cut::Reset))) => self.peer.take().into_iter().for_each(PeerSocket::reset),
            _ => {}
        }
    }

    fn listen(&mut self) {
        let Some(peer) = &self.peer else { return };
        let bytes = peer.read();
        let mut rest = &bytes[..];
        while !rest.is_empty() && self.tls.read_tls(&mut rest).is_ok() {
            let Ok(state) = self.tls.process_new_packets() else { break };
            self.answer_is_whole = state.peer_has_closed();
            let _ = self.tls.reader().read_to_end(&mut self.answer);
        }
        if peer.has_fin() || peer.is_reset() {
            peer.finish();
        }
    }

    fn outcome(mut self, verdict: Verdict) -> Outcome {
        self.listen();
        let Self { sent, answer, answer_is_whole, .. } = self;
        Outcome { verdict, answer, answer_is_whole, sent }
    }
}

fn client_config(certificate: CertificateDer<'static>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("known")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[test]
fn a_client_that_says_that_it_is_done_still_gets_its_answer() {
    let outcome = Ends::new().session(None);
    assert_eq!((outcome.verdict, outcome.answer.as_slice()), (Verdict::Whole, b"HELLO".as_slice()));
    assert!(outcome.answer_is_whole, "and our close_notify after it");
}

#[test]
fn a_fin_or_a_reset_at_any_byte_before_close_notify_is_a_truncation_without_an_answer() {
    let ends = Ends::new();
    let whole = ends.session(None).sent;
    // Every byte of the end, where it matters most, and some of the handshake.
    let places = (0..whole - 60).step_by(61).chain(whole - 60..whole);
    for place in places {
        for cut in [Cut::Fin, Cut::Reset] {
            let outcome = ends.session(Some((place, cut)));
            assert_eq!(outcome.verdict, Verdict::Truncated, "{cut:?} behind {place} of {whole} bytes");
            assert!(outcome.answer.is_empty() && !outcome.answer_is_whole, "{outcome:?}");
        }
    }
}

#[test]
fn a_byte_that_was_changed_is_noticed_wherever_it_is() {
    let ends = Ends::new();
    let whole = ends.session(None).sent;
    for place in (whole - 60..whole).step_by(3) {
        let outcome = ends.session(Some((place, Cut::Tampered)));
        assert_ne!(outcome.verdict, Verdict::Whole, "byte {place} of {whole}");
        assert!(outcome.answer.is_empty(), "{outcome:?}");
    }
}

#[test]
fn openssl_and_node_speak_with_it() {
    let mut program = Program::start("tls", &["127.0.0.1:0"]);
    let addr = program.addr.to_string();
    if let Some(output) = client("openssl", &["s_client", "-connect", &addr, "-brief"]) {
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("TLSv1.3"), "{output:?}");
        assert!(program.line().contains("the request was whole"), "it says close_notify when its input ends");
    }
    let script = format!(
        "const s=require('tls').connect({{port:{},rejectUnauthorized:false}},()=>s.end('hello'));s.on('data',d=>process.stdout.write(d))",
        program.addr.port()
    );
    if let Some(output) = client("node", &["-e", &script]) {
        assert_eq!(String::from_utf8_lossy(&output.stdout), "HELLO", "{output:?}");
        assert!(program.line().contains("the request was whole; clean"), "and it ends well");
    }
}
