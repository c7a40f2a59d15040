//! The driver of the directed tests on the simulated network: a reactor, a scripted peer on another
//! machine, and the transcript so far. Every event is checked against the grammar.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use finale::check::EventGrammar;
use finale::net::Net;
use finale::sim::{Host, Network, Peer, PeerSocket};
use finale::{ConnectionErrorKind, Ending, EndingKind, Event, ListenOptions, Reactor, SocketId};

pub const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
pub const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

/// A reactor, a scripted peer on another machine, and the transcript so far in words.
pub struct Scene<N: Net = Host> {
    pub network: Network,
    pub reactor: Reactor<N>,
    pub peer: Peer,
    lives: HashMap<SocketId, EventGrammar>,
    pub story: Vec<String>,
    /// The same by socket, and never cleared.
    pub stories: BTreeMap<SocketId, Vec<String>>,
    pub ending: Option<Ending>,
    pub socket: Option<SocketId>,
}

impl Scene {
    pub fn new() -> Self {
        let network = Network::new(7);
        let host = network.host(HERE);
        Self::on(network, host)
    }

    /// A listener here and a connection of the peer to it, delivered up to `connection`.
    pub fn served(options: ListenOptions) -> (Self, PeerSocket) {
        let mut scene = Self::new();
        let peer = scene.serve(options);
        (scene, peer)
    }
}

impl<N: Net> Scene<N> {
    /// A scene on a net of the test, which is part of this network.
    pub fn on(network: Network, net: N) -> Self {
        let (reactor, peer) = (Reactor::with_net(net), network.peer(THERE));
        let (lives, story, stories) = (HashMap::new(), Vec::new(), BTreeMap::new());
        Self { network, reactor, peer, lives, story, stories, ending: None, socket: None }
    }

    /// A connection of the peer to a listener here that is closed again, delivered up to
    /// `connection`.
    pub fn serve(&mut self, options: ListenOptions) -> PeerSocket {
        let listener = self.reactor.listen((HERE, 80), options).expect("a free port");
        let peer = self.peer.connect(listener.addr).expect("begun");
        self.expect(&["connection"]);
        self.reactor.close_listener(listener.id).expect("open");
        peer
    }

    /// Another connection, delivered up to `connection`; nothing has waited for it yet.
    pub fn serve_another(&mut self) -> PeerSocket {
        let listener = self.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
        let peer = self.peer.connect(listener.addr).expect("begun");
        let before = self.story.len();
        for _ in 0..10 {
            self.run(Duration::from_millis(1));
            if self.story.len() > before {
                break;
            }
        }
        assert_eq!(self.story.get(before).map(String::as_str), Some("connection"));
        self.story.remove(before);
        self.reactor.close_listener(listener.id).expect("open");
        peer
    }

    /// Runs for this long, and records the events.
    pub fn run(&mut self, time: Duration) {
        let until = self.network.now() + time;
        while let Some((socket, event)) = self.reactor.next_before(until).expect("the network continues") {
            if event.is_socket_event() {
                let life = self.lives.entry(socket.id()).or_insert_with(|| EventGrammar::new(&socket));
                life.check(&socket, &event).expect("the language of events");
                self.socket = Some(socket.id());
            }
            let line = match event {
                Event::AcceptFailed(_, error) => format!("rests {error}"),
                Event::Overflow(_, peer) => {
                    format!("dropped {}", peer.map_or("a client".into(), |peer| peer.ip().to_string()))
                }
                Event::ListenerClosed(_) => "listener closed".into(),
                Event::Data(bytes) => format!("data {}", String::from_utf8_lossy(bytes)),
                Event::Error(failure) => format!("error {failure}"),
                Event::Close(ending) => {
                    self.ending = Some(ending.clone());
                    "close".into()
                }
                Event::Lookup(ip) => format!("lookup {ip}"),
                other => format!("{other:?}").to_lowercase(),
            };
            self.stories.entry(socket.id()).or_default().push(line.clone());
            self.story.push(line);
        }
    }

    /// Runs for a second and expects exactly this.
    #[track_caller]
    pub fn expect(&mut self, story: &[&str]) {
        self.run(Duration::from_secs(1));
        assert_eq!(std::mem::take(&mut self.story), story);
    }

    pub fn with(&mut self, act: impl FnOnce(&mut finale::Socket<'_>)) {
        let id = self.socket.expect("a socket had an event");
        act(&mut self.reactor.socket(id).expect("it lives"));
    }

    /// The peer has finished; then its machine vanishes, and we answer and end.
    pub fn answer_into_the_void(&mut self, peer: &PeerSocket) {
        peer.finish();
        self.expect(&["end"]);
        self.network.vanish(THERE);
        self.with(|socket| {
            socket.write(b"answer").expect("open");
            socket.end();
        });
    }

    pub fn how(&self) -> &EndingKind {
        &self.ending.as_ref().expect("close was delivered").kind
    }

    pub fn cause(&self) -> ConnectionErrorKind {
        let EndingKind::Failed(failure) = self.how() else { panic!("it has not failed") };
        failure.kind
    }

    /// Everything is over: no event is left, and nothing is open, filed or queued.
    #[track_caller]
    pub fn rest(&mut self) {
        self.expect(&[]);
        assert!(self.reactor.is_empty(), "{}", self.reactor.sockets());
        assert_eq!(self.reactor.next_deadline(), None, "a timer is left");
        assert_eq!(self.network.descriptors(), 0, "a descriptor is left");
    }
}
