//! A pool on the simulated network, the server that it connects to, and what its program received.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use finale::sim::{Host, Network, Peer, PeerListener, PeerSocket};
use finale::{
    ConnectOptions, Pool, PoolEvent, PoolOptions, PoolReply, PoolStats, Reactor, RetrySafety, SocketId, Ticket,
};

pub(crate) const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
pub(crate) const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
pub(crate) const SERVER: SocketAddr = SocketAddr::new(THERE, 80);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) struct Scene {
    pub(crate) network: Network,
    pub(crate) peer: Peer,
    pub(crate) listener: Option<PeerListener>,
    pub(crate) reactor: Reactor<Host>,
    pub(crate) pool: Pool,
    pub(crate) grants: Vec<(Ticket, PoolReply)>,
    /// The ticket of the last lease of each socket.
    pub(crate) tickets: HashMap<SocketId, Ticket>,
    /// The events of leased sockets, in words.
    pub(crate) told: Vec<String>,
    pub(crate) lost: Vec<RetrySafety>,
}

impl Scene {
    pub(crate) fn new(options: PoolOptions) -> Self {
        Self::with(options, ConnectOptions::default())
    }

    pub(crate) fn with(options: PoolOptions, connect: ConnectOptions) -> Self {
        let network = Network::new(11);
        let peer = network.peer(THERE);
        let listener = Some(peer.listen(SERVER).expect("a free port"));
        let reactor = Reactor::with_net(network.host(HERE));
        let pool = Pool::new(SERVER, connect, options.seed(1)).expect("good options");
        let (grants, told, lost) = (Vec::new(), Vec::new(), Vec::new());
        Self { network, peer, listener, reactor, pool, grants, tickets: HashMap::new(), told, lost }
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.network.now() + time;
        loop {
            self.take_replies();
            let Some((mut socket, event)) = self.reactor.next_before(until).expect("it continues") else { return };
            match self.pool.handle(&mut socket, &event) {
                PoolEvent::Leased(ticket) => {
                    assert_eq!(self.tickets.get(&socket.id()), Some(&ticket));
                    self.told.push(format!("{event:?}"));
                }
                PoolEvent::Lost(ticket, repeat) => {
                    assert_eq!(self.tickets.get(&socket.id()), Some(&ticket));
                    self.lost.push(repeat);
                }
                PoolEvent::Internal | PoolEvent::Foreign => {}
            }
        }
    }

    /// Another pool, which opens nothing, takes its place.
    pub(crate) fn drop_pool(&mut self) {
        let next = Pool::new(SERVER, ConnectOptions::default(), PoolOptions::default()).expect("good options");
        drop(std::mem::replace(&mut self.pool, next));
        self.pool.close(&mut self.reactor.context());
    }

    pub(crate) fn take_replies(&mut self) {
        while let Some((ticket, reply)) = self.pool.next_reply(&mut self.reactor.context()) {
            if let PoolReply::Leased(id) = reply {
                self.tickets.insert(id, ticket);
            }
            self.grants.push((ticket, reply));
        }
    }

    /// The listener closes.
    pub(crate) fn go_down(&mut self) {
        self.listener.take().expect("it listened").close();
    }

    /// The server's ends of the connections that were accepted, in their order.
    pub(crate) fn accepted(&self) -> Vec<PeerSocket> {
        let listener = self.listener.as_ref().expect("it listens");
        std::iter::from_fn(|| listener.accept()).collect()
    }

    pub(crate) fn ask(&mut self) -> Ticket {
        self.pool.request(&mut self.reactor.context())
    }

    /// A socket that is ready to be leased.
    #[track_caller]
    pub(crate) fn lend(&mut self) -> SocketId {
        let ticket = self.ask();
        self.run(ms(10));
        match self.grants.pop() {
            Some((granted, PoolReply::Leased(id))) if granted == ticket => id,
            other => panic!("not granted: {other:?}, {:?}", self.pool.stats()),
        }
    }

    pub(crate) fn ticket(&self, id: SocketId) -> Ticket {
        self.tickets[&id]
    }

    pub(crate) fn give_back(&mut self, id: SocketId) {
        self.pool.give_back(self.tickets[&id], &mut self.reactor.context());
    }

    pub(crate) fn discard(&mut self, id: SocketId) -> Option<RetrySafety> {
        self.pool.discard(self.tickets[&id], &mut self.reactor.context())
    }

    pub(crate) fn stats(&self) -> PoolStats {
        self.pool.stats()
    }

    pub(crate) fn write(&mut self, id: SocketId, bytes: &[u8]) {
        self.reactor.socket(id).expect("it lives").write(bytes).expect("room");
    }
}
