//! A TCP network in memory with a virtual clock. Every run follows from one seed.
//!
//! Invariant: the same seed and the same calls give the same run, to the nanosecond. Nothing
//! sleeps, no socket of the machine is opened, and the real clock is read only for the base of the
//! virtual one.
//!
//! It does not depend on the reactor: a [`Host`] is a [`Net`](crate::net::Net), and the code that
//! runs on it is the code that ships. A [`Peer`] is the other side without a reactor: a test or a
//! [`Script`] moves it.
//!
//! A server on this network, and a peer that sends half a request, waits, and resets:
//!
//! ```
//! use std::time::Duration;
//! use finale::sim::{Network, Script};
//! use finale::{ConnectionErrorKind, Event, EndingKind, ListenOptions, Reactor};
//!
//! let network = Network::new(7); // One seed, one run.
//! let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
//! let listener = reactor.listen("10.0.0.1:80", ListenOptions::default())?;
//! let rude = Script::new().send(b"GET /").wait(Duration::from_secs(5)).reset();
//! network.peer([10, 0, 0, 2].into()).play(listener.addr, rude).expect("a route");
//!
//! let mut request = Vec::new();
//! while let Some((_, event)) = reactor.next()? {
//!     match event {
//!         Event::Data(bytes) => request.extend_from_slice(bytes),
//!         Event::Close(ending) => {
//!             assert!(matches!(ending.kind, EndingKind::Failed(ref failure) if failure.kind == ConnectionErrorKind::Reset));
//!             reactor.close_listener(listener.id)?;
//!         }
//!         _ => {}
//!     }
//! }
//! assert_eq!(request, b"GET /");
//! assert_eq!(network.elapsed(), Duration::from_millis(5_003)); // Three packets' latency, and no computing time.
//! # Ok::<(), finale::Error>(())
//! ```
//!
//! To try *every* ending of a conversation, at every byte, see
//! [`check::Endings`](crate::check::Endings).
//!
//! ```text
//! mod     Network, the handle          world   clock, agenda, hosts, the way of a packet
//! host    the trait Net                tcp     handshake, segments, timers
//! peer    sockets moved by hand        calls   what the kernel answers to a call
//! script  what a peer does alone       end     one end of a connection: its state and buffers
//! play    peers that do it             news    edges, and the wait for them
//! faults  what goes wrong on purpose   truth   what really happened, for a judge
//! fault   the faults' names, counted   unix    Unix domain sockets
//! deaf    ends that drop what arrives
//! packet  a packet, for people         time_wait  the minute after the last FIN
//! ```
//!
//! # How it differs from Linux
//!
//! Two tests compare it with the machine's own network; `docs/simulation.md` lists what they omit
//! and what they found.
//!
//! - No segment size, congestion control, Nagle or delayed acknowledgement: only latency, buffers
//!   and windows. (On Linux the edge at the step to FIN-WAIT-2 may be some 40 ms later because of
//!   that.)
//! - Packets of one direction overtake each other only where an RST does
//!   ([`Faults::reset_overtakes`]). They are lost only then, while an address is
//!   [vanished](Network::vanish) or the receiver [deaf](Network::set_deaf), and on
//!   [request](Network::lose_next).
//! - Buffers hold exactly the requested size; Linux doubles the number, and grows buffers by
//!   itself.
//! - A SYN takes a slot in the listen queue, not the end of the handshake.
//! - TIME-WAIT holds no port. It lasts a minute, and answers a repeated FIN, which is its purpose.
//! - MSG_MORE holds back everything that it was given, not only the last partial segment, unless
//!   the buffer was full.
//! - A machine has one address besides the loopback ones, and no IPv4-mapped IPv6.
//! - A local shutdown(2) for reading does not exist.
//! - A Unix domain socket has a receive buffer; on Linux unread bytes count in the sender's.
//! - On loopback an acknowledgement takes the latency too. With a [latency](Network::set_latency)
//!   of zero it has arrived at the next call, as on Linux.

mod arena;
mod calls;
mod deaf;
pub(crate) mod end;
mod fault;
mod faults;
mod host;
mod news;
mod packet;
mod peer;
mod play;
#[cfg(test)]
pub(crate) mod sabotage;
pub(crate) mod script;
mod splice;
mod tcp;
mod time;
mod time_wait;
mod traced_host;
pub(crate) mod truth;
mod unix;
mod world;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

pub use crate::rng::Rng;
pub use fault::{Fault, FaultCounts, UnknownFault};
pub use faults::Faults;
pub use host::BareHost;
pub use packet::{PacketKind, SentPacket};
pub use peer::{Peer, PeerListener, PeerSocket};
pub use play::Play;
pub use script::Script;
pub use traced_host::Host;

use crate::error::LookupErrorKind;
use crate::lifecycle::Coverage;
use crate::net::KernelView;
use crate::table::Waits;
use crate::trace::Recorder;
use time::nanos;
use world::{Name, World};

/// What happens to a connection attempt to an address.
///
/// ```
/// use finale::sim::{Network, Reach};
/// let network = Network::new(1);
/// network.set_reach([10, 0, 0, 9].into(), Reach::BlackHole);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Reach {
    /// The SYN arrives; without a listener it is refused. The default, also for machines that do
    /// not exist.
    #[default]
    Open,
    /// The SYN is dropped and repeated, until ETIMEDOUT after 127 s.
    BlackHole,
    /// A router answers every SYN with ICMP: EHOSTUNREACH, while the handshake continues
    /// underneath, as on Linux.
    Unreachable,
    /// connect(2) itself fails with ENETUNREACH.
    NoRoute,
    /// connect(2) itself fails with EACCES.
    Prohibited,
}

/// The addresses of one end of a connection and of the other.
pub(crate) type Endpoints = (SocketAddr, SocketAddr);

/// The handle of a simulated network. Clones are the same network; it is dropped with its last
/// handle, host and peer. Single-threaded: only a host's waker may be used on another thread, and
/// then the run no longer depends on the seed alone.
///
/// ```
/// use finale::{ListenOptions, Reactor, sim::Network};
/// let network = Network::new(1);
/// let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
/// let listener = reactor.listen("10.0.0.1:80", ListenOptions::default())?;
/// let client = network.peer([10, 0, 0, 2].into()).connect(listener.addr).expect("there is a route");
/// let (socket, event) = reactor.next()?.expect("a client comes");
/// println!("{event} from {:?}", socket.peer_addr());
/// # Ok::<(), finale::Error>(())
/// ```
#[derive(Clone)]
pub struct Network {
    world: Rc<RefCell<World>>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network")
            .field("elapsed", &self.elapsed())
            .field("open_connections", &self.open_connections())
            .finish_non_exhaustive()
    }
}

impl Network {
    /// An empty network: latency 1 ms one way, send buffers of 256 KiB, receive buffers of 128 KiB,
    /// no faults.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { world: Rc::new(RefCell::new(World::new(seed))) }
    }

    /// A new program on the machine with this address.
    #[must_use]
    pub fn host(&self, ip: IpAddr) -> Host {
        let recorder = self.world.borrow().recorder.clone();
        recorder.around(BareHost::new(Rc::clone(&self.world), ip))
    }

    /// A scripted program on the machine with this address.
    #[must_use]
    pub fn peer(&self, ip: IpAddr) -> Peer {
        Peer::new(Rc::clone(&self.world), ip)
    }
}

/// Time.
impl Network {
    /// The virtual clock. It moves in [`advance`](Self::advance) and [`spend`](Self::spend), in a
    /// host's `poll`, and in its other calls if they have a [cost](Self::set_call_cost).
    #[must_use]
    pub fn now(&self) -> Instant {
        let world = self.world.borrow();
        world.instant(world.now)
    }

    /// Virtual time since the network began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.world.borrow().now)
    }

    /// Lets this much time pass. Everything that is due in it happens, in order. The clock stops at
    /// 100 years; what would happen later does not happen.
    pub fn advance(&self, time: Duration) {
        let mut world = self.world.borrow_mut();
        let until = world.now + nanos(time);
        world.advance(until);
    }

    /// How long each call of a host takes for which a real net makes a system call: this much time
    /// passes before the call looks at anything. Default 0: time stands still while a program
    /// works, and a peer that sends without a pause is read to the last byte before its next packet
    /// arrives. With a cost of some microseconds a flood keeps a program busy, as on a real
    /// machine.
    pub fn set_call_cost(&self, time: Duration) {
        self.world.borrow_mut().call_cost = nanos(time);
    }

    /// The program works for this long: time passes as in [`advance`](Self::advance), and counts as
    /// [busy](Self::busy). For a handler that computes, between an event and the next call of
    /// [`next`](crate::Reactor::next).
    ///
    /// ```
    /// use std::time::Duration;
    /// use finale::sim::Network;
    /// use finale::{Event, Reactor};
    ///
    /// let network = Network::new(1);
    /// let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    /// let start = network.now();
    /// reactor.set_timer(Duration::from_millis(10));
    /// reactor.set_timer(Duration::from_millis(11));
    /// let mut late = Vec::new();
    /// while let Some((_, Event::Timer(_))) = reactor.next()? {
    ///     late.push(network.now() - start);
    ///     network.spend(Duration::from_millis(50)); // A slow handler: the second timer is late for it.
    /// }
    /// assert_eq!(late, [Duration::from_millis(10), Duration::from_millis(60)]);
    /// # Ok::<(), finale::Error>(())
    /// ```
    pub fn spend(&self, time: Duration) {
        self.world.borrow_mut().spend(nanos(time));
    }

    /// How much of the [elapsed](Self::elapsed) time programs have spent in calls and handlers, and
    /// stopped. In the rest of the time all of them waited.
    #[must_use]
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.world.borrow().busy)
    }

    /// What the kernel of this machine says of its connections: also of those whose program has
    /// closed them or has died, and at the end of those in TIME-WAIT, for 60 s.
    #[must_use]
    pub fn kernel_views(&self, ip: IpAddr) -> Vec<KernelView> {
        let world = self.world.borrow();
        let own = world.ends.iter().filter(|(_, end)| end.machine == ip && !end.ends_in_time_wait());
        let waits = world.time_waits.count(world.now, ip);
        own.map(|(_, end)| end.kernel_view()).chain(std::iter::repeat_n(end::End::TIME_WAIT, waits)).collect()
    }

    /// When the network will next do something by itself, at once if readiness waits for a host;
    /// `None` if never. It may turn out to be nothing: a timer stays entered until its time, even
    /// if it is no longer needed.
    ///
    /// With several reactors: run each without waiting until none has work, then `advance` to the
    /// earliest of this and their deadlines.
    #[must_use]
    pub fn next_event(&self) -> Option<Instant> {
        let world = self.world.borrow();
        let has_news = |program: &world::Program| {
            if program.is_frozen {
                return false;
            }
            let woken = program.woken.load(std::sync::atomic::Ordering::Relaxed);
            woken || !program.ready.is_empty() || !program.answers.is_empty()
        };
        if world.programs.iter().any(has_news) {
            return Some(world.instant(world.now));
        }
        drop(world);
        self.next_happening()
    }

    /// The same, but readiness that waits does not count: it may be for a reactor that has nothing
    /// left.
    pub(crate) fn next_happening(&self) -> Option<Instant> {
        let world = self.world.borrow();
        world.next_at().map(|at| world.instant(at))
    }
}

/// The network conditions.
impl Network {
    /// The time of a packet from one end to the other, for packets sent from now on, loopback
    /// included. Default 1 ms.
    pub fn set_latency(&self, one_way: Duration) {
        self.world.borrow_mut().latency = nanos(one_way);
    }

    /// How much longer a packet takes to or from this address, each way, for packets sent from now
    /// on. Default 0.
    pub fn set_delay(&self, ip: IpAddr, one_way: Duration) {
        self.world.borrow_mut().delays.insert(ip, nanos(one_way));
    }

    /// Sets the faults from now on. Default [`Faults::none`].
    pub fn set_faults(&self, faults: Faults) {
        self.world.borrow_mut().faults = faults;
    }

    /// The present faults.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.world.borrow().faults
    }

    /// The buffer sizes of connections made from now on that do not choose their own, in bytes: from
    /// 1 to 1 GiB, and the nearest of these for any other number.
    pub fn set_buffers(&self, send_bytes: usize, receive_bytes: usize) {
        let mut world = self.world.borrow_mut();
        (world.send_bytes, world.receive_bytes) = (send_bytes, receive_bytes);
    }

    /// The ports that the kernel chooses from, without 0. Default 32768 to 60999, as on Linux. It
    /// chooses no port that a listener of the machine has, nor one in use to the same address; if
    /// none is left the error is EADDRNOTAVAIL.
    pub fn set_ports(&self, ports: RangeInclusive<u16>) {
        self.world.borrow_mut().ports = 1.max(*ports.start())..=*ports.end();
    }

    /// What happens to connection attempts to this address from now on. Established connections are
    /// not changed.
    pub fn set_reach(&self, ip: IpAddr, reach: Reach) {
        self.world.borrow_mut().reach.insert(ip, reach);
    }

    /// Drops every packet from and to this address, including those in flight: the machine is gone,
    /// and no end is notified. With a loopback address: all loopback traffic by that address.
    pub fn vanish(&self, ip: IpAddr) {
        self.world.borrow_mut().vanished.insert(ip);
    }

    /// Ends [`vanish`](Self::vanish). What was lost is repeated when its sender's timer expires,
    /// not at once.
    pub fn heal(&self, ip: IpAddr) {
        self.world.borrow_mut().vanished.remove(&ip);
    }

    /// This many of the next packets that this address sends are lost, whatever they are.
    pub fn lose_next(&self, ip: IpAddr, packets: u64) {
        self.world.borrow_mut().losses.insert(ip, packets);
    }

    /// Packets that are sent from now on wait on the wire until this time, and continue then in
    /// their order. What is already on its way arrives as it would.
    pub fn hold_until(&self, time: Instant) {
        let mut world = self.world.borrow_mut();
        world.held_until = nanos(time.saturating_duration_since(world.instant(0)));
    }

    /// A router reports by ICMP that this established connection's peer can't be reached, as if
    /// that had been so for a moment: SO_ERROR of the end named by its addresses is EHOSTUNREACH
    /// until something is acknowledged, without any flag, and the connection continues. Returns
    /// whether there was one. Visits every connection once.
    pub fn unreachable(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let mut world = self.world.borrow_mut();
        let named = |end: &end::End| end.local == local && end.remote == remote && end.phase == end::Phase::Open;
        let found = world.ends.iter().find(|(_, end)| named(end)).map(|(id, _)| id);
        if let Some(end) = found.and_then(|id| world.ends.get_mut(id)) {
            end.soft_error = Some(Errno::HOSTUNREACH);
        }
        found.is_some()
    }

    /// The programs of this machine die, as by kill -9: their kernel closes what they have. A peer
    /// sees a FIN, or a reset if bytes of its own were not read. Their reactors find no socket any
    /// more.
    pub fn kill(&self, ip: IpAddr) {
        let mut world = self.world.borrow_mut();
        world.programs_on(ip).into_iter().for_each(|host| world.end_program(host));
    }

    /// The programs of this machine are stopped, as by SIGSTOP, or run again: while they are, the
    /// caller must not call their reactors, and readiness that waits for them is no
    /// [event](Self::next_event). Their kernel continues to answer.
    pub fn freeze(&self, ip: IpAddr, frozen: bool) {
        let mut world = self.world.borrow_mut();
        for host in world.programs_on(ip) {
            world.program(host).is_frozen = frozen;
        }
    }

    /// The machine loses its power and is back at once: its programs are gone, as after
    /// [`kill`](Self::kill), but its connections are forgotten without a packet. Whatever arrives
    /// for them is answered with an RST. Visits every connection once.
    pub fn forget(&self, ip: IpAddr) {
        let mut world = self.world.borrow_mut();
        world.empty_queues(ip);
        for host in world.programs_on(ip) {
            world.take_sockets(host);
        }
        let is_forgotten = |end: &end::End| end.machine == ip;
        let gone: Vec<_> = world.ends.iter().filter(|(_, end)| is_forgotten(end)).map(|(id, _)| id).collect();
        for id in gone {
            world.remove(id);
        }
        world.time_waits.forget(ip);
    }

    /// Ends a connection from outside (`ss -K`), named by one end's addresses: ECONNABORTED there,
    /// an RST to the other end. Not for a Unix domain socket. Returns whether there was one. Visits
    /// every connection once.
    pub fn abort(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let mut world = self.world.borrow_mut();
        let is_open = |end: &end::End| end.phase != end::Phase::Closed && !end.is_unix();
        let named = |end: &end::End| (end.local, end.remote) == (local, remote) && is_open(end);
        let found = world.ends.iter().find(|(_, end)| named(end)).map(|(id, _)| id);
        if let Some(id) = found {
            world.rows.mark(Fault::Aborted);
            world.send_reset(id);
            world.kill(id, Errno::CONNABORTED);
        }
        found.is_some()
    }
}

/// The resolver.
impl Network {
    /// From now on this name has these addresses; without an address it exists without one
    /// (`NoAddress`). A name that was not defined is `NotFound`. An IP address as a name is itself.
    pub fn name(&self, host: &str, ips: Vec<IpAddr>) {
        self.world.borrow_mut().names.insert(host.to_owned(), Name::Known(ips));
    }

    /// From now on the lookup of this name fails.
    pub fn name_fails(&self, host: &str, cause: LookupErrorKind) {
        self.world.borrow_mut().names.insert(host.to_owned(), Name::Fails(cause));
    }

    /// From now on the lookup of this name never ends.
    pub fn name_hangs(&self, host: &str) {
        self.world.borrow_mut().names.insert(host.to_owned(), Name::Hangs);
    }
}

/// What a test may expect to be zero in the end.
impl Network {
    /// Ends of connections that a kernel still knows: held by a host or peer, waiting to be
    /// accepted, or closed and not yet delivered. An established connection has two.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.world.borrow().ends.len()
    }

    /// Sockets and listeners that hosts hold open. Visits every slot once.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        let world = self.world.borrow();
        let held = |endpoints: &[Option<arena::Id>]| endpoints.iter().flatten().count();
        world.programs.iter().map(|program| held(&program.slots) + held(&program.listeners)).sum()
    }

    /// The highest cost of one turn of a host so far, the present one included, in nanoseconds: the
    /// time of its calls and handlers, those of other hosts meanwhile, and the time in which it was
    /// stopped.
    pub(crate) fn longest_turn(&self, host: u32) -> u64 {
        let world = self.world.borrow();
        let program = &world.programs[host as usize];
        program.longest_turn.max(world.busy - program.turn_began)
    }

    /// How many things have happened that a program may have calls for: packets, timers, late
    /// readiness, and reads that have found bytes.
    #[must_use]
    pub(crate) fn happenings(&self) -> u64 {
        self.world.borrow().happenings
    }

    /// The addresses of a host's connection and of the other end, or those that a Unix domain
    /// socket has instead.
    pub(crate) fn endpoints(&self, host: u32, slot: u32) -> Option<Endpoints> {
        let world = self.world.borrow();
        world.held(host, slot).and_then(|id| world.ends.get(id)).map(|end| (end.local, end.remote))
    }

    /// What a waiting socket could have at once, although no readiness of it is on its way: an edge
    /// was lost or forgotten.
    pub(crate) fn overlooked(&self, host: u32, waits: &Waits) -> Option<&'static str> {
        self.world.borrow().overlooked(host, waits)
    }

    /// Connections that wait for a host to accept them.
    pub(crate) fn waiting(&self) -> usize {
        let world = self.world.borrow();
        let listeners = world.listeners.iter().map(|(_, listener)| listener);
        listeners.filter(|one| matches!(one.owner, end::Owner::Host { .. })).map(|one| one.queue.len()).sum()
    }

    /// From now on it breaks its contract, see [`sabotage`].
    #[cfg(test)]
    pub(crate) fn sabotage(&self, kind: sabotage::Sabotage) {
        self.world.borrow_mut().sabotage = Some(kind);
    }

    /// A program was notified: the last polls were not in vain.
    pub(crate) fn told(&self) {
        self.world.borrow_mut().programs.iter_mut().for_each(|program| program.idle_polls = 0);
    }

    /// Counts a situation of the catalogue that a program played itself.
    pub(crate) fn mark(&self, row: Fault) {
        self.world.borrow_mut().rows.mark(row);
    }

    /// How often a fault was played so far.
    pub(crate) fn count(&self, row: Fault) -> u64 {
        self.world.borrow().rows.count(row)
    }

    /// How often each fault of the catalogue was played so far.
    #[must_use]
    pub fn fault_counts(&self) -> FaultCounts {
        self.world.borrow().rows.clone()
    }

    /// How often each pair of the lifecycle occurred, in all reactors on this network.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        self.world.borrow().pairs.clone()
    }

    /// Calls that all hosts have made, see [`Host::calls`].
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.world.borrow().programs.iter().map(|program| program.calls).sum()
    }

    /// Records what the reactors of all hosts do that are created from now on. A recorded run is the
    /// same as one that is not recorded.
    ///
    /// ```
    /// use finale::sim::Network;
    /// use finale::trace::Recorder;
    /// use finale::{ConnectOptions, Reactor};
    /// let (network, recorder) = (Network::new(1), Recorder::new(100));
    /// network.trace(&recorder);
    /// let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    /// reactor.connect("10.0.0.2:80", ConnectOptions::default())?;
    /// while reactor.next()?.is_some() {}
    /// let lines: Vec<_> = recorder.records().iter().map(ToString::to_string).collect();
    /// assert!(lines[1].ends_with("connect 10.0.0.2:80"), "{lines:#?}");
    /// # Ok::<(), finale::Error>(())
    /// ```
    pub fn trace(&self, recorder: &Recorder) {
        self.world.borrow_mut().recorder = recorder.clone();
    }

    /// Begins to record every packet, one line each, from the time it is sent. The memory for this
    /// is unbounded.
    pub fn record(&self) {
        self.world.borrow_mut().sent = Some(Vec::new());
    }

    /// The packets that were sent since [`record`](Self::record) or the last call; empty if nothing
    /// is recorded.
    #[must_use]
    pub fn take_packets(&self) -> Vec<SentPacket> {
        self.world.borrow_mut().sent.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The same as lines of text. They are for people: the wording is not guaranteed.
    #[must_use]
    pub fn take_transcript(&self) -> Vec<String> {
        self.take_packets().iter().map(ToString::to_string).collect()
    }
}
