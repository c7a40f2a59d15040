//! The peer: one trait for a socket of the machine and for a scripted peer of the simulated
//! network.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use finale::sim::{Network, Peer, PeerListener, PeerSocket};
use finale::{ConnectOptions, ListenOptions};
use socket2::{Domain, Socket, Type};

pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ANY: SocketAddr = SocketAddr::new(LOOPBACK, 0);
const SMALL_BYTES: usize = 4096;

/// How long Linux may take over anything here before it counts as a difference.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// What the peer knows of its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) bytes: usize,
    pub(crate) fin: bool,
    pub(crate) reset: bool,
}

/// The other side of the connection, without a reactor. Once it is closed or reset, the rest of the
/// script has no effect on it.
pub(crate) trait Remote {
    fn now(&self) -> Instant;
    fn connect(&mut self, addr: SocketAddr, small: bool);
    fn listen(&mut self, backlog: u32) -> SocketAddr;
    /// An address without a listener, now or later.
    fn nobody(&mut self) -> SocketAddr;
    fn accept(&mut self);
    fn unlisten(&mut self);
    fn send(&mut self, bytes: &[u8]);
    fn finish(&mut self);
    fn close(&mut self);
    fn reset(&mut self);
    /// Sends what waits to be sent, and reads what has arrived, if it reads.
    fn go_on(&mut self, reads: bool) -> Vec<u8>;
    /// Our end of the stream, or our reset, as far as reading has shown them to the peer.
    fn fin_and_reset(&self) -> (bool, bool);
}

// --- a socket of this machine ---

#[derive(Default)]
pub(crate) struct RealPeer {
    listener: Option<Socket>,
    /// Bound, and not listening: its port is refused, and no other process has it.
    nobody: Option<Socket>,
    socket: Option<Socket>,
    unsent: VecDeque<u8>,
    finished: bool,
    /// Our FIN follows the unsent bytes.
    finishes: bool,
    /// A write has taken the connection's error; reading finds only zero then.
    broken: bool,
    fin: bool,
    reset: bool,
}

impl RealPeer {
    fn take(&mut self, socket: Socket) {
        socket.set_nonblocking(true).expect("a socket");
        socket.set_tcp_nodelay(true).expect("a socket");
        self.socket = Some(socket);
    }

    fn flush(&mut self) {
        let Some(socket) = &mut self.socket else { return };
        while !self.unsent.is_empty() {
            match socket.write(self.unsent.make_contiguous()) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.broken = true;
                    self.unsent.clear();
                }
            }
        }
        if std::mem::take(&mut self.finishes) {
            // Refused on a connection that was reset, which reading reports too.
            let _ = socket.shutdown(Shutdown::Write);
        }
    }
}

impl Remote for RealPeer {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn connect(&mut self, addr: SocketAddr, small: bool) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
        if small {
            socket.set_send_buffer_size(SMALL_BYTES).expect("a socket");
            socket.set_recv_buffer_size(SMALL_BYTES).expect("a socket");
        }
        socket.connect(&addr.into()).expect("the listener's queue has room");
        self.take(socket);
    }

    fn listen(&mut self, backlog: u32) -> SocketAddr {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
        socket.bind(&ANY.into()).expect("loopback has a free port");
        socket.listen(backlog as i32).expect("it is bound");
        socket.set_nonblocking(true).expect("a socket");
        let addr = socket.local_addr().expect("it is bound").as_socket().expect("IPv4");
        self.listener = Some(socket);
        addr
    }

    fn nobody(&mut self) -> SocketAddr {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
        socket.bind(&ANY.into()).expect("loopback has a free port");
        let addr = socket.local_addr().expect("it is bound").as_socket().expect("IPv4");
        self.nobody = Some(socket);
        addr
    }

    fn accept(&mut self) {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            match self.listener.as_ref().map(Socket::accept) {
                Some(Ok((socket, _))) => return self.take(socket),
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                _ => return,
            }
        }
    }

    fn unlisten(&mut self) {
        self.listener = None;
    }

    fn send(&mut self, bytes: &[u8]) {
        if !self.finished {
            self.unsent.extend(bytes);
            self.flush();
        }
    }

    fn finish(&mut self) {
        self.finishes |= !std::mem::replace(&mut self.finished, true);
        self.flush();
    }

    fn close(&mut self) {
        self.socket = None;
    }

    fn reset(&mut self) {
        if let Some(socket) = self.socket.take() {
            socket.set_linger(Some(Duration::ZERO)).expect("a socket");
        }
    }

    fn go_on(&mut self, reads: bool) -> Vec<u8> {
        self.flush();
        let (mut all, mut buffer) = (Vec::new(), [0; 65_536]);
        let Some(socket) = self.socket.as_mut().filter(|_| reads) else { return all };
        loop {
            match socket.read(&mut buffer) {
                Ok(0) => {
                    self.fin = true;
                    // Only a query shows a reset after the FIN.
                    self.reset |= self.broken || !matches!(socket.take_error(), Ok(None));
                    return all;
                }
                Ok(read) => all.extend_from_slice(&buffer[..read]),
                Err(error) => {
                    self.reset |= error.kind() != io::ErrorKind::WouldBlock;
                    return all;
                }
            }
        }
    }

    fn fin_and_reset(&self) -> (bool, bool) {
        (self.fin, self.reset)
    }
}

// --- a scripted peer of the simulated network ---

pub(crate) struct SimulatedPeer {
    network: Network,
    peer: Peer,
    listener: Option<PeerListener>,
    socket: Option<PeerSocket>,
    fin: bool,
    reset: bool,
}

impl SimulatedPeer {
    pub(crate) fn new(network: &Network) -> Self {
        let (network, peer) = (network.clone(), network.peer(LOOPBACK));
        Self { network, peer, listener: None, socket: None, fin: false, reset: false }
    }

    /// Without latency a packet has arrived before the next call, as on loopback.
    fn arrive(&self) {
        self.network.advance(Duration::ZERO);
    }
}

impl Remote for SimulatedPeer {
    fn now(&self) -> Instant {
        self.network.now()
    }

    fn connect(&mut self, addr: SocketAddr, small: bool) {
        let options = ConnectOptions::default();
        let options =
            if small { options.send_buffer_size(SMALL_BYTES).receive_buffer_size(SMALL_BYTES) } else { options };
        self.socket = Some(self.peer.connect_with(addr, &options).expect("there is a route"));
        self.arrive();
    }

    fn listen(&mut self, backlog: u32) -> SocketAddr {
        let listener = self.peer.listen_with(ANY, &ListenOptions::default().backlog(backlog)).expect("a free port");
        let addr = listener.addr().expect("it listens");
        self.listener = Some(listener);
        addr
    }

    fn nobody(&mut self) -> SocketAddr {
        SocketAddr::new(LOOPBACK, 9)
    }

    fn accept(&mut self) {
        self.socket = self.listener.as_ref().and_then(PeerListener::accept);
    }

    fn unlisten(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.close();
        }
        self.arrive();
    }

    fn send(&mut self, bytes: &[u8]) {
        if let Some(socket) = &self.socket {
            socket.send(bytes);
        }
        self.arrive();
    }

    fn finish(&mut self) {
        if let Some(socket) = &self.socket {
            socket.finish();
        }
        self.arrive();
    }

    fn close(&mut self) {
        if let Some(socket) = self.socket.take() {
            socket.close();
        }
        self.arrive();
    }

    fn reset(&mut self) {
        if let Some(socket) = self.socket.take() {
            socket.reset();
        }
        self.arrive();
    }

    fn go_on(&mut self, reads: bool) -> Vec<u8> {
        self.arrive();
        let Some(socket) = self.socket.as_ref().filter(|_| reads) else { return Vec::new() };
        let bytes = socket.read();
        (self.fin, self.reset) = (self.fin | socket.has_fin(), self.reset | socket.is_reset());
        bytes
    }

    fn fin_and_reset(&self) -> (bool, bool) {
        (self.fin, self.reset)
    }
}
