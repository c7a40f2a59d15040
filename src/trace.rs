//! What a reactor does, call by call: a bounded record that can be read while the program runs.
//!
//! A [`Recorder`] stands between the reactor and its network, so a reactor without one does nothing
//! for it. It records the system calls on connections with their results, the transitions of the
//! sockets with their events, and what the kernel says of a connection after each call.
//!
//! ```
//! use finale::trace::{Call, Recorder, What};
//! use finale::{Event, ListenOptions, Reactor};
//! # use std::io::{Read, Write};
//! let recorder = Recorder::new(1_000);
//! let mut reactor = recorder.reactor()?;
//! let listener = reactor.listen("127.0.0.1:0", ListenOptions::default())?;
//! # let client = std::thread::spawn(move || {
//! #     let mut client = std::net::TcpStream::connect(listener.addr).unwrap();
//! #     client.shutdown(std::net::Shutdown::Write).unwrap();
//! #     client.read_to_end(&mut Vec::new()).unwrap();
//! # });
//! while let Some((mut socket, event)) = reactor.next()? {
//!     match event {
//!         Event::End => socket.end(),
//!         Event::Close(_) => reactor.close_listener(listener.id)?,
//!         _ => {}
//!     }
//! }
//! # client.join().unwrap();
//! let records = recorder.records();
//! let call = |record: &finale::trace::Record| match record.what {
//!     What::Call { call, .. } => Some(call),
//!     _ => None,
//! };
//! let calls: Vec<Call> = records.iter().filter_map(call).collect();
//! assert_eq!(calls, [Call::Accept, Call::Recv, Call::Shutdown, Call::Close]);
//! # Ok::<(), finale::Error>(())
//! ```
//!
//! Invariant: the record never holds more than its capacity; what it loses is counted.

mod net;
mod print;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use net::Traced;

use crate::error::OsError;
use crate::id::SocketId;
use crate::lifecycle::{Emits, Input, State};
pub use crate::net::KernelView;
use crate::net::Net;

/// A bounded record. Clones share it; another thread can read it.
///
/// ```
/// use finale::trace::Recorder;
/// let recorder = Recorder::new(100);
/// let reactor = recorder.reactor()?;
/// recorder.note(reactor.now(), 0, "the program begins");
/// assert_eq!(recorder.records().len(), 1);
/// # Ok::<(), finale::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Recorder {
    shared: Arc<Mutex<Ring>>,
    capacity: usize,
    per_second: Option<u32>,
}

#[derive(Debug, Default)]
struct Ring {
    records: VecDeque<Record>,
    /// How many there are of each socket: most sockets have none if few are recorded.
    lines: HashMap<SocketId, usize>,
    /// How many were recorded in all.
    total: u64,
    /// How many connections were named in all.
    connections: u64,
    /// When the present second began, and how many connections have begun in it.
    second: Option<Instant>,
    begun: u32,
    /// Has a copy in each connection that is recorded now.
    live: Arc<()>,
}

/// With a limit per second: this many times as many are recorded at a time, so that those that live
/// for long do not become all.
const AT_A_TIME: usize = 100;

/// One line of a record. `Display` prints it without its time: the reader knows what to count from.
///
/// ```
/// use finale::trace::Recorder;
/// use finale::{ConnectOptions, Event, Reactor};
/// let recorder = Recorder::new(100);
/// let mut reactor = recorder.reactor()?;
/// let begun = reactor.now();
/// # let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
/// # let addr = server.local_addr().unwrap();
/// let id = reactor.connect(addr, ConnectOptions::default())?;
/// while let Some((mut socket, event)) = reactor.next()? {
///     if matches!(event, Event::Ready) {
///         socket.destroy();
///     }
/// }
/// let records = recorder.records();
/// for record in &records {
///     println!("{:>9.3?} {record}", record.at - begun);
/// }
/// assert_eq!(records[0].socket, Some(id));
/// assert_eq!(records[0].to_string(), format!("#0 {id}: Resolved: Created -> Connecting, event lookup"));
/// # Ok::<(), finale::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Counts from 0, without a gap.
    pub number: u64,
    /// The time, of the clock of the network: a simulated one has its own.
    pub at: Instant,
    /// The connection. They are counted in the order in which they begin, from 0, by all reactors
    /// of a recorder together. Each address that a client tries next to another counts, and the
    /// socket continues with the number of the one that was established.
    pub connection: u64,
    /// The socket, as [`Socket::id`](crate::Socket::id) returns it. `None` for a
    /// [note](What::Note).
    pub socket: Option<SocketId>,
    /// What happened.
    pub what: What,
}

/// What happened to a connection. `Display` prints one line.
///
/// ```
/// use finale::lifecycle::{Emits, Input, State};
/// use finale::trace::{Call, KernelView, What};
/// let recv = What::Call { call: Call::Recv, bytes: 0, peer: None, error: None };
/// assert_eq!(recv.to_string(), "recv 0: the peer's FIN");
/// let (from, to) = (State::Open, State::PeerFinished);
/// let step = What::Step { from, input: Input::Fin, to, events: &[Emits::End] };
/// assert_eq!(step.to_string(), "Fin: Open -> PeerFinished, event end");
/// let kernel = What::Kernel(KernelView { state: "CLOSE-WAIT", unread: 9, unacked: 0 });
/// assert_eq!(kernel.to_string(), "kernel: CLOSE-WAIT, 9 unread");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// A system call. A read that finds nothing is left out.
    Call {
        /// Which.
        call: Call,
        /// How many bytes it has moved.
        bytes: u64,
        /// The peer's address, of [`Call::Connect`] and [`Call::Accept`] on TCP.
        peer: Option<SocketAddr>,
        /// Its error. `None` also for a handshake that has begun: if it fails, a second record of
        /// the call has its error.
        error: Option<OsError>,
    },
    /// A transition of the socket's lifecycle.
    Step {
        /// The state before it.
        from: State,
        /// Its cause.
        input: Input,
        /// The state after it.
        to: State,
        /// The events that it delivers.
        events: &'static [Emits],
    },
    /// What the kernel says of the connection after a call or a handshake, if that has changed.
    /// Nothing where the system gives no result: not on Linux, of a Unix domain socket, of a dead
    /// connection.
    Kernel(KernelView),
    /// A line of the program's own: [`Recorder::note`].
    Note(String),
}

/// A system call on a connection.
///
/// ```
/// assert_eq!(finale::trace::Call::Shutdown.name(), "shutdown");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// The host name was handed to the resolver.
    Lookup,
    /// connect(2).
    Connect,
    /// accept(2).
    Accept,
    /// recv(2), or splice(2) into a pipe. 0 bytes: the peer's FIN.
    Recv,
    /// send(2), or splice(2) from a pipe.
    Send,
    /// shutdown(2) of our direction: our FIN.
    Shutdown,
    /// close(2).
    Close,
    /// close(2) with SO_LINGER 0: a reset.
    Reset,
    /// getsockopt(2) with SO_ERROR, which has returned an error of the connection.
    TakeError,
}

impl Call {
    /// The name of the call in the manual.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Connect => "connect",
            Self::Accept => "accept",
            Self::Recv => "recv",
            Self::Send => "send",
            Self::Shutdown => "shutdown",
            Self::Close => "close",
            Self::Reset => "reset",
            Self::TakeError => "getsockopt",
        }
    }
}

impl Recorder {
    /// A record of at most this many lines: what comes after them replaces the oldest. With 0
    /// nothing is recorded, and a call costs nothing more.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { shared: Arc::default(), capacity, per_second: None }
    }

    /// Records at most this many of the connections that begin in one second, and 100 times as many
    /// at a time; each address that a client tries counts, and each client that is accepted only to
    /// be reset. The others cost a lookup per call, and not the queries of the kernel: for a server
    /// under load.
    ///
    /// ```
    /// use finale::trace::Recorder;
    /// use finale::{Event, ListenOptions};
    /// # use std::net::TcpStream;
    /// let recorder = Recorder::new(1_000).per_second(1);
    /// let mut reactor = recorder.reactor()?;
    /// let listener = reactor.listen("127.0.0.1:0", ListenOptions::default())?;
    /// # let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(listener.addr).unwrap()).collect();
    /// # drop(clients);
    /// # let mut left = 3;
    /// while let Some((mut socket, event)) = reactor.next()? {
    ///     match event {
    ///         Event::End => socket.end(),
    ///         Event::Close(ending) => {
    ///             // Empty for a connection that was not recorded.
    ///             for record in recorder.records_of(socket.id()) {
    ///                 println!("{record}");
    ///             }
    /// #           left -= 1;
    /// #           if left == 0 { break }
    ///         }
    ///         _ => {}
    ///     }
    /// }
    /// # Ok::<(), finale::Error>(())
    /// ```
    #[must_use]
    pub const fn per_second(mut self, connections: u32) -> Self {
        self.per_second = Some(connections);
        self
    }

    /// A network whose connections are recorded, for
    /// [`Reactor::with_net`](crate::Reactor::with_net).
    pub fn around<N: Net>(&self, net: N) -> Traced<N> {
        Traced::new(net, self.clone())
    }

    /// What is in it, the oldest first.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.since(0)
    }

    /// What is in it from this number on.
    #[must_use]
    pub fn since(&self, number: u64) -> Vec<Record> {
        let ring = self.lock();
        let first = ring.total - ring.records.len() as u64;
        let skip = usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX);
        ring.records.iter().skip(skip).cloned().collect()
    }

    /// What is in it of one socket. Looks at every line if there is any.
    #[must_use]
    pub fn records_of(&self, socket: SocketId) -> Vec<Record> {
        let ring = self.lock();
        if !ring.lines.contains_key(&socket) {
            return Vec::new();
        }
        ring.records.iter().filter(|record| record.socket == Some(socket)).cloned().collect()
    }

    /// How many lines were lost since newer ones have replaced them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let ring = self.lock();
        ring.total - ring.records.len() as u64
    }

    /// Adds a line of the program's own: what it decides, or a call that a reader should see.
    pub fn note(&self, at: Instant, connection: u64, text: impl Into<String>) {
        self.add(at, connection, None, What::Note(text.into()));
    }

    /// How many lines were recorded in all: the number of the next one.
    #[cfg(feature = "sim")]
    pub(crate) fn total(&self) -> u64 {
        self.lock().total
    }

    const fn keeps_nothing(&self) -> bool {
        self.capacity == 0
    }

    fn add(&self, at: Instant, connection: u64, socket: Option<SocketId>, what: What) {
        if self.keeps_nothing() {
            return;
        }
        let mut ring = self.lock();
        let number = ring.total;
        ring.total += 1;
        if ring.records.len() >= self.capacity {
            let oldest = ring.records.pop_front();
            ring.has_lost(oldest.and_then(|record| record.socket));
        }
        ring.has_got(socket);
        ring.records.push_back(Record { number, at, connection, socket, what });
    }

    /// A connection begins. `None`: it is not recorded.
    fn begin(&self, now: Instant) -> Option<Begun> {
        let mut ring = self.lock();
        if let Some(most) = self.per_second {
            // The ring has a copy of its own.
            if Arc::strong_count(&ring.live) > (most as usize).saturating_mul(AT_A_TIME) {
                return None;
            }
            if ring.second.is_none_or(|second| now.saturating_duration_since(second) >= Duration::from_secs(1)) {
                (ring.second, ring.begun) = (Some(now), 0);
            }
            if ring.begun >= most {
                return None;
            }
            ring.begun += 1;
        }
        ring.connections += 1;
        Some(Begun { connection: ring.connections - 1, first: ring.total, _live: Arc::clone(&ring.live) })
    }

    /// The connection is this socket's, which is known only after its first system call.
    fn is_of(&self, socket: SocketId, connection: u64, first: u64) {
        let mut ring = self.lock();
        let Ring { records, lines, .. } = &mut *ring;
        let recent = records.iter_mut().rev().take_while(|record| record.number >= first);
        let own = recent.filter(|record| record.connection == connection && !matches!(record.what, What::Note(_)));
        for record in own.filter(|record| record.socket.is_none()) {
            record.socket = Some(socket);
            *lines.entry(socket).or_insert(0) += 1;
        }
    }

    /// A thread that has panicked while it held the lock has left a whole record.
    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// A record of this socket.
    fn has_got(&mut self, socket: Option<SocketId>) {
        if let Some(socket) = socket {
            *self.lines.entry(socket).or_insert(0) += 1;
        }
    }

    fn has_lost(&mut self, socket: Option<SocketId>) {
        if let Some(socket) = socket
            && let Some(left) = self.lines.get_mut(&socket)
        {
            *left -= 1;
            if *left == 0 {
                self.lines.remove(&socket);
            }
        }
    }
}

/// A connection that is recorded.
#[derive(Debug, Clone)]
struct Begun {
    /// Its number.
    connection: u64,
    /// That of its first record.
    first: u64,
    /// Counts those that are recorded now.
    _live: Arc<()>,
}
