//! A machine without a reactor, which a test moves line by line.
//!
//! Invariant: a peer does only what its script says. Only its kernel acts alone (it acknowledges,
//! repeats and answers probes), exactly as for a stopped program. Its calls have no faults.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use rustix::io::Errno;

use super::arena::Id;
use super::end::{Owner, Phase};
use super::unix::UNIX;
use super::world::World;
use crate::net::UnixAddr;
use crate::options::{ConnectOptions, ListenOptions};
use crate::target::BoundAddr;

/// A machine whose program is a test script. Its calls take no time; their effects take the
/// network's latency.
///
/// ```
/// use finale::{Event, ListenOptions, Reactor, sim::Network};
/// let network = Network::new(1);
/// let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
/// let listener = reactor.listen("10.0.0.1:80", ListenOptions::default())?;
/// let client = network.peer([10, 0, 0, 2].into()).connect(listener.addr).expect("there is a route");
/// client.send(b"hello");
/// assert!(matches!(reactor.next()?, Some((_, Event::Connection))));
/// assert!(matches!(reactor.next()?, Some((_, Event::Data(b"hello")))));
/// # Ok::<(), finale::Error>(())
/// ```
#[derive(Clone)]
pub struct Peer {
    pub(super) world: Rc<RefCell<World>>,
    machine: IpAddr,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("ip", &self.machine).finish_non_exhaustive()
    }
}

impl Peer {
    pub(super) const fn new(world: Rc<RefCell<World>>, machine: IpAddr) -> Self {
        Self { world, machine }
    }

    /// Begins to connect with default options. The handshake continues while time passes.
    ///
    /// # Errors
    /// The immediate error of connect(2): no route, no free port.
    pub fn connect(&self, addr: impl Into<BoundAddr>) -> io::Result<PeerSocket> {
        self.connect_with(addr, &ConnectOptions::default())
    }

    /// Begins to connect. Only the options of the system's socket and the local address count.
    ///
    /// # Errors
    /// The immediate error of connect(2): no route, no free port.
    pub fn connect_with(&self, addr: impl Into<BoundAddr>, options: &ConnectOptions) -> io::Result<PeerSocket> {
        let addr = addr.into().ip().ok_or(Errno::AFNOSUPPORT)?;
        let mut world = self.world.borrow_mut();
        world.run_due();
        let id = world.dial(self.machine, Owner::Script, addr, options.local, &options.system)?;
        Ok(PeerSocket { world: Rc::clone(&self.world), id })
    }

    /// Connects to a Unix domain socket of this machine, at once or not at all.
    ///
    /// # Errors
    /// The error of connect(2): there is no listener (`NotFound` for a file, `ConnectionRefused`
    /// for another name), or the queue is full (`WouldBlock`).
    pub fn connect_unix(&self, addr: &UnixAddr) -> io::Result<PeerSocket> {
        let mut world = self.world.borrow_mut();
        world.run_due();
        let id = world.dial_unix(self.machine, Owner::Script, addr, &ConnectOptions::default().system)?;
        Ok(PeerSocket { world: Rc::clone(&self.world), id })
    }

    /// Listens on a Unix domain socket of this machine. Only the backlog and the options of the
    /// system's socket count.
    ///
    /// # Errors
    /// The name is in use.
    pub fn listen_unix(&self, addr: &UnixAddr, options: &ListenOptions) -> io::Result<PeerListener> {
        let mut world = self.world.borrow_mut();
        let id = world.listen_unix(self.machine, Owner::Script, addr, options)?;
        Ok(PeerListener { world: Rc::clone(&self.world), id })
    }

    /// Listens with default options. Port 0 takes a free one.
    ///
    /// # Errors
    /// The address is in use, or is not an address of this machine.
    pub fn listen(&self, addr: SocketAddr) -> io::Result<PeerListener> {
        self.listen_with(addr, &ListenOptions::default())
    }

    /// Listens. Only the backlog and the options of the system's socket count.
    ///
    /// # Errors
    /// The address is in use, or is not an address of this machine.
    pub fn listen_with(&self, addr: SocketAddr, options: &ListenOptions) -> io::Result<PeerListener> {
        let mut world = self.world.borrow_mut();
        let id = world.listen(self.machine, Owner::Script, addr, options)?;
        Ok(PeerListener { world: Rc::clone(&self.world), id })
    }
}

/// A listening socket of a [`Peer`]. Dropping it changes nothing; [`close`](Self::close) closes it.
///
/// ```
/// use finale::sim::Network;
/// let peer = Network::new(1).peer([10, 0, 0, 2].into());
/// let listener = peer.listen("10.0.0.2:0".parse().unwrap()).expect("a free port");
/// assert!(listener.addr().is_some_and(|addr| addr.port() != 0));
/// assert!(listener.accept().is_none());
/// ```
pub struct PeerListener {
    pub(super) world: Rc<RefCell<World>>,
    pub(super) id: Id,
}

impl std::fmt::Debug for PeerListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerListener").field("addr", &self.addr()).finish_non_exhaustive()
    }
}

impl PeerListener {
    /// The address that it listens on; `None` once it is closed, and for a Unix domain socket.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        let world = self.world.borrow();
        world.listeners.get(self.id).map(|listener| listener.addr).filter(|addr| addr.ip() != UNIX)
    }

    /// The next connection whose handshake is done.
    #[must_use]
    pub fn accept(&self) -> Option<PeerSocket> {
        let mut world = self.world.borrow_mut();
        world.run_due();
        loop {
            match world.accept(self.id, Owner::Script) {
                Ok(id) => return Some(PeerSocket { world: Rc::clone(&self.world), id }),
                // A connection that was forgotten in the queue does not hide the ones after it.
                Err(Errno::CONNABORTED) => {}
                Err(_) => return None,
            }
        }
    }

    /// Closes it, and resets what waits to be accepted.
    pub fn close(self) {
        self.world.borrow_mut().unlisten(self.id);
    }
}

/// A connection of a [`Peer`].
///
/// A test that does not [`read`](Self::read) is a slow reader: bytes stay in the receive buffer
/// until it is full and the window closes. Dropping the value changes nothing: the program is
/// stopped, and its kernel continues.
///
/// ```
/// use finale::sim::Network;
/// use std::time::Duration;
/// let network = Network::new(1);
/// let (one, other) = (network.peer([10, 0, 0, 1].into()), network.peer([10, 0, 0, 2].into()));
/// let listener = one.listen("10.0.0.1:80".parse().unwrap()).expect("a free port");
/// let client = other.connect(listener.addr().expect("open")).expect("there is a route");
/// client.send(b"hello");
/// network.advance(Duration::from_secs(1));
/// assert_eq!(listener.accept().expect("it has connected").read(), b"hello");
/// ```
pub struct PeerSocket {
    world: Rc<RefCell<World>>,
    pub(super) id: Id,
}

impl std::fmt::Debug for PeerSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let world = self.world.borrow();
        let end = world.ends.get(self.id);
        f.debug_struct("PeerSocket")
            .field("local", &end.map(|end| end.local))
            .field("remote", &end.map(|end| end.remote))
            .field("phase", &end.map(|end| end.phase))
            .finish_non_exhaustive()
    }
}

impl PeerSocket {
    /// Writes all bytes, however small the send buffer: they are sent when the handshake is done
    /// and the window is open. On a connection that is reset, or after `finish`, nothing happens.
    pub fn send(&self, bytes: &[u8]) {
        // A script can check `is_reset`.
        let _ = self.world.borrow_mut().send(self.id, bytes, false, true);
    }

    /// Marks the position after all that was sent as urgent (MSG_OOB): a read of the other end
    /// stops there once, without a new edge. The urgent byte itself is not delivered, and the mark
    /// is not repeated if it is lost.
    pub fn send_urgent(&self) {
        self.world.borrow_mut().send_urgent(self.id);
    }

    /// Sends a FIN after everything that was sent, as shutdown(2) for writing. Before the end of
    /// the handshake it waits for that (where shutdown(2) would abort the handshake).
    pub fn finish(&self) {
        let _ = self.world.borrow_mut().finish(self.id);
    }

    /// Resets the connection, as closing with a linger time of 0.
    pub fn reset(self) {
        self.world.borrow_mut().reset(self.id);
    }

    /// close(2): sends a FIN if everything that arrived was read, an RST if not; before the end of
    /// the handshake it sends nothing. A program that ends or is killed does the same.
    pub fn close(self) {
        self.world.borrow_mut().close(self.id);
    }

    /// Takes everything that has arrived, and thereby opens the window.
    #[must_use]
    pub fn read(&self) -> Vec<u8> {
        let mut world = self.world.borrow_mut();
        world.run_due();
        let Some(end) = world.ends.get_mut(self.id) else { return Vec::new() };
        end.urgent_in = None;
        let mut bytes = vec![0; end.incoming.len()];
        let read = match bytes.is_empty() {
            true => 0,
            false => world.recv(self.id, &mut bytes).unwrap_or(0),
        };
        bytes.truncate(read);
        bytes
    }

    /// How many unread bytes are in the receive buffer.
    #[must_use]
    pub fn unread_bytes(&self) -> usize {
        self.look().ends.get(self.id).map_or(0, |end| end.incoming.len())
    }

    /// Whether the handshake is done. Stays `true` until the connection is over.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.look().ends.get(self.id).is_some_and(|end| end.phase == Phase::Open)
    }

    /// Whether the other end's FIN has arrived, and so every byte before it (perhaps still unread).
    #[must_use]
    pub fn has_fin(&self) -> bool {
        self.look().ends.get(self.id).is_some_and(|end| end.peer_finished)
    }

    /// Whether the connection died: reset, refused, or timed out. The query does not take the
    /// error.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.look().ends.get(self.id).is_some_and(|end| end.died)
    }

    /// Whether the other kernel has acknowledged every byte sent, and the FIN if there was one;
    /// `false` after a reset.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.look().ends.get(self.id).is_some_and(|end| !end.died && !end.is_pending())
    }

    /// Our address; `None` once the connection is gone, and of a Unix domain socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.look().ends.get(self.id).filter(|end| !end.is_unix()).map(|end| end.local)
    }

    fn look(&self) -> std::cell::RefMut<'_, World> {
        let mut world = self.world.borrow_mut();
        world.run_due();
        world
    }
}
