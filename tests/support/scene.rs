//! The driver of the directed tests on the simulated network: a reactor, a scripted peer on another machine, and the story
//! so far in words, every event of it checked against the language of events.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use finale::check::Life;
use finale::sim::{Host, Network, Peer, PeerSocket};
use finale::{Cause, Ending, Event, How, Listen, Reactor, SocketId};

pub(crate) const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
pub(crate) const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

/// A reactor, a scripted peer on another machine, and the story so far in words.
pub(crate) struct Scene {
    pub(crate) network: Network,
    pub(crate) reactor: Reactor<Host>,
    pub(crate) peer: Peer,
    lives: HashMap<SocketId, Life>,
    pub(crate) story: Vec<String>,
    pub(crate) ending: Option<Ending>,
    pub(crate) socket: Option<SocketId>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let network = Network::new(7);
        let (reactor, peer) = (Reactor::with_net(network.host(HERE)), network.peer(THERE));
        Self { network, reactor, peer, lives: Default::default(), story: vec![], ending: None, socket: None }
    }

    /// A listener here and a connection of the peer to it, told as far as `connection`.
    pub(crate) fn served(options: Listen) -> (Self, PeerSocket) {
        let mut scene = Self::new();
        let listener = scene.reactor.listen((HERE, 80), options).expect("a free port");
        let peer = scene.peer.connect(listener.addr).expect("begun");
        scene.expect(&["connection"]);
        scene.reactor.close_listener(listener.id).expect("open");
        (scene, peer)
    }

    /// Runs for so long, and writes down what is told.
    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.network.now() + time;
        while let Some((socket, event)) = self.reactor.next_before(until).expect("a network that goes on") {
            let life = self.lives.entry(socket.id()).or_insert_with(|| Life::of(&socket));
            life.tell(&socket, &event).expect("the language of events");
            self.socket = Some(socket.id());
            self.story.push(match event {
                Event::Data(bytes) => format!("data {}", String::from_utf8_lossy(bytes)),
                Event::Error(failure) => format!("error {failure}"),
                Event::Close(ending) => {
                    self.ending = Some(ending);
                    "close".into()
                }
                Event::Lookup(ip) => format!("lookup {ip}"),
                other => format!("{other:?}").to_lowercase(),
            });
        }
    }

    /// Runs for a second and expects exactly this.
    #[track_caller]
    pub(crate) fn expect(&mut self, story: &[&str]) {
        self.run(Duration::from_secs(1));
        assert_eq!(std::mem::take(&mut self.story), story);
    }

    pub(crate) fn with(&mut self, act: impl FnOnce(&mut finale::Socket<'_>)) {
        let id = self.socket.expect("a socket has told something");
        act(&mut self.reactor.socket(id).expect("it lives"));
    }

    pub(crate) fn how(&self) -> &How {
        &self.ending.as_ref().expect("close was told").how
    }

    pub(crate) fn cause(&self) -> Cause {
        let How::Failed(failure) = self.how() else { panic!("it has not failed") };
        failure.cause
    }
}
