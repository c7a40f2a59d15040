//! A net with faults: the simulated host, except that a test can make a call fail or take less than
//! it could, invent readiness, stop the process after a poll, make reads cost time, or let a peer
//! send without a pause. It also records what the reactor calls.

use std::cell::{RefCell, RefMut};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use finale::lifecycle::{Input, State};
use finale::net::{KernelPipe, LookupAnswer, Net, Polled, Readiness, Received, SystemOptions, Token, Unread};
use finale::sim::{Host, Network, PeerSocket, Rng};
use finale::{KeepAlive, ListenOptions, SocketId, UnixAddr};
use rustix::io::Errno;

use crate::scene::{HERE, Scene};

/// More failures of one call than any test requests: the reactor repeats the call without a pause.
const SPIN: usize = 100_000;

/// What the test has requested, and what has happened so far.
#[derive(Default)]
pub struct Orders {
    /// Failures to come. Each is used once, by the next call of its name.
    once: VecDeque<(&'static str, Errno)>,
    /// Failures of every call of these names.
    lasting: HashMap<&'static str, Errno>,
    /// The next call of this name does not fail.
    spared: Option<&'static str>,
    /// Calls of any name that sometimes fail with ENOBUFS or ENOMEM: the random numbers, and how
    /// often.
    random: Option<(Rng, f64)>,
    /// How long the process is stopped after the next poll that waits.
    stall: Option<Duration>,
    /// The peers of all connections except the quiet ones send without a pause: each read fills its
    /// buffer.
    flood: bool,
    /// A read of a flood is one byte less than the buffer has room for.
    short: bool,
    quiet: HashSet<u32>,
    /// How long a read takes.
    read_cost: Duration,
    /// The kernel does not report when a peer last took bytes.
    hides_acks: bool,
    /// Every poll takes this long and reports that there is more.
    endless: Option<Duration>,
    /// The connection of which no poll reports anything until it is registered.
    unregistered: Option<Token>,
    /// How often each call has failed on request.
    failures: HashMap<&'static str, usize>,
    /// Reported by the next poll, with its own readiness.
    news: Vec<(Token, Readiness)>,
    /// A send takes at most this many bytes.
    pub bite: Option<usize>,
    /// The names of the calls.
    pub log: Vec<&'static str>,
    /// Every send that took something: how many bytes, and whether more was announced.
    pub sent: Vec<(usize, bool)>,
    /// Every vectored send: how many pieces it had.
    pub pieces: Vec<usize>,
    /// The size of every buffer that was read into.
    pub read_into: Vec<usize>,
    /// The tokens under which connections were registered.
    pub tokens: Vec<Token>,
}

impl Orders {
    /// The error of a call that lacks memory at random.
    fn shortage(&mut self) -> Option<Errno> {
        let (rng, probability) = self.random.as_mut()?;
        let errno = if rng.chance(0.5) { Errno::NOBUFS } else { Errno::NOMEM };
        rng.chance(*probability).then_some(errno)
    }
}

/// The test's handle on a [`FaultyNet`].
#[derive(Clone, Default)]
pub struct Faulty(Rc<RefCell<Orders>>);

impl Faulty {
    pub fn orders(&self) -> RefMut<'_, Orders> {
        self.0.borrow_mut()
    }

    /// The next poll reports these flags for the connection that was registered last but `back`.
    pub fn news(&self, back: usize, readiness: Readiness) {
        let mut orders = self.orders();
        let token = orders.tokens[orders.tokens.len() - 1 - back];
        orders.news.push((token, readiness));
    }

    /// How often this was called.
    pub fn count(&self, call: &str) -> usize {
        self.orders().log.iter().filter(|name| **name == call).count()
    }

    /// Every call since the last `take_log`, by its name.
    pub fn take_log(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.orders().log)
    }

    /// The next call of this name fails.
    pub fn once(&self, call: &'static str, errno: Errno) {
        self.orders().once.push_back((call, errno));
    }

    /// Every call of this name fails, until [`heal`](Self::heal).
    pub fn always(&self, call: &'static str, errno: Errno) {
        self.orders().lasting.insert(call, errno);
    }

    /// The next call of this name succeeds, and every other fails.
    pub fn always_after_one(&self, call: &'static str, errno: Errno) {
        self.always(call, errno);
        self.orders().spared = Some(call);
    }

    /// From now on each call that can lack memory does so with this probability.
    pub fn random(&self, rng: Rng, probability: f64) {
        self.orders().random = Some((rng, probability));
    }

    /// No call fails any more.
    pub fn heal(&self) {
        let mut orders = self.orders();
        orders.once.clear();
        orders.lasting.clear();
        orders.random = None;
    }

    /// How often this call has failed on request.
    pub fn failures(&self, call: &str) -> usize {
        self.orders().failures.get(call).copied().unwrap_or(0)
    }

    /// The process is stopped for this long after the next poll that waits.
    pub fn stall(&self, time: Duration) {
        self.orders().stall = Some(time);
    }

    /// From now on all peers send without a pause, and each read takes this long.
    pub fn flood(&self, read_cost: Duration) {
        let mut orders = self.orders();
        (orders.flood, orders.read_cost) = (true, read_cost);
    }

    /// From now on each poll takes this long, and there is always more readiness than it has
    /// reported.
    pub fn never_report_all(&self, cost: Duration) {
        self.orders().endless = Some(cost);
    }

    /// From now on each read of the flood is a short one, and the stream is not drained.
    pub fn read_short(&self) {
        self.orders().short = true;
    }

    /// The peer of the connection in this slot does not take part in the flood.
    pub fn keep_quiet(&self, slot: u32) {
        self.orders().quiet.insert(slot);
    }

    /// From now on the kernel does not report when a peer last took bytes.
    pub fn hide_acks(&self) {
        self.orders().hides_acks = true;
    }

    /// Records a call that can lack memory, and applies what was requested for it.
    fn enter(&self, call: &'static str) -> io::Result<()> {
        self.enter_other(call)?;
        let shortage = self.orders().shortage();
        shortage.map_or(Ok(()), |errno| self.fail(call, errno))
    }

    /// The same for another call.
    fn enter_other(&self, call: &'static str) -> io::Result<()> {
        let mut orders = self.orders();
        orders.log.push(call);
        if orders.spared.take_if(|spared| *spared == call).is_some() {
            return Ok(());
        }
        let next = orders.once.iter().position(|(name, _)| *name == call);
        let once = next.and_then(|at| orders.once.remove(at)).map(|(_, errno)| errno);
        let ordered = once.or_else(|| orders.lasting.get(call).copied());
        drop(orders);
        ordered.map_or(Ok(()), |errno| self.fail(call, errno))
    }

    fn fail(&self, call: &'static str, errno: Errno) -> io::Result<()> {
        let mut orders = self.orders();
        let failures = orders.failures.entry(call).or_default();
        *failures += 1;
        assert!(*failures < SPIN, "{call} is repeated without a pause");
        Err(errno.into())
    }
}

pub struct FaultyNet {
    network: Network,
    host: Host,
    faulty: Faulty,
}

impl FaultyNet {
    pub fn new(network: &Network) -> (Self, Faulty) {
        let (host, faulty) = (network.host(HERE), Faulty::default());
        (Self { network: network.clone(), host, faulty: faulty.clone() }, faulty)
    }

    /// Spurious readiness, see [`Host::make_up`].
    pub fn make_up(&self, slot: u32, readiness: Readiness) {
        assert!(self.host.make_up(slot, readiness), "it is registered");
    }

    /// Whether the peer of this connection sends without a pause; if so, the cost of a read has
    /// passed.
    fn is_flooded(&self, slot: u32) -> bool {
        let orders = self.faulty.orders();
        let (cost, is_flooded) = (orders.read_cost, orders.flood && !orders.quiet.contains(&slot));
        drop(orders);
        self.network.advance(cost);
        is_flooded
    }
}

/// A scene on a faulty net.
pub fn faulty_on(network: Network) -> (Scene<FaultyNet>, Faulty) {
    let (net, faulty) = FaultyNet::new(&network);
    (Scene::on(network, net), faulty)
}

/// A scene on a faulty net, with a connection of the peer, accepted and registered.
pub fn faulty_served(options: ListenOptions) -> (Scene<FaultyNet>, PeerSocket, Faulty) {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    let peer = scene.serve(options);
    (scene, peer, faulty)
}

/// The same, registered. What was recorded so far is dropped.
pub fn faulty_registered(options: ListenOptions) -> (Scene<FaultyNet>, PeerSocket, Faulty) {
    let (mut scene, peer, faulty) = faulty_served(options);
    scene.expect(&[]);
    faulty.take_log();
    (scene, peer, faulty)
}

impl Net for FaultyNet {
    fn now(&self) -> Instant {
        self.host.now()
    }

    fn poll(
        &mut self,
        now: Instant,
        timeout: Option<Duration>,
        ready: &mut dyn FnMut(Token, Readiness),
    ) -> io::Result<Polled> {
        let news = std::mem::take(&mut self.faulty.orders().news);
        self.faulty.enter_other("poll")?;
        let timeout = if news.is_empty() { timeout } else { Some(Duration::ZERO) };
        news.into_iter().for_each(|(token, readiness)| ready(token, readiness));
        let waits = timeout.is_none_or(|timeout| timeout > Duration::ZERO);
        let unregistered = self.faulty.orders().unregistered;
        let mut polled = self.host.poll(now, timeout, &mut |token, readiness| {
            if unregistered != Some(token) {
                ready(token, readiness);
            }
        })?;
        let endless = self.faulty.orders().endless;
        if let Some(cost) = endless {
            self.network.advance(cost);
            polled.more = true;
        }
        if waits && let Some(stall) = self.faulty.orders().stall.take() {
            self.network.advance(stall);
        }
        Ok(polled)
    }

    fn waker(&self) -> Box<dyn Fn() + Send + Sync> {
        self.host.waker()
    }

    fn listen(&mut self, listener: u32, addr: SocketAddr, options: &ListenOptions) -> io::Result<SocketAddr> {
        self.host.listen(listener, addr, options)
    }

    fn listen_unix(&mut self, listener: u32, addr: &UnixAddr, options: &ListenOptions) -> io::Result<()> {
        self.host.listen_unix(listener, addr, options)
    }

    fn accept(&mut self, listener: u32, slot: u32) -> io::Result<Option<SocketAddr>> {
        self.faulty.enter("accept")?;
        self.host.accept(listener, slot)
    }

    fn set_accepting(&mut self, listener: u32, accepting: bool) -> io::Result<()> {
        self.faulty.enter_other("set_accepting")?;
        self.host.set_accepting(listener, accepting)
    }

    fn unlisten(&mut self, listener: u32) {
        self.host.unlisten(listener);
    }

    fn connect(
        &mut self,
        slot: u32,
        token: Token,
        addr: SocketAddr,
        options: &SystemOptions,
        local: Option<SocketAddr>,
    ) -> io::Result<()> {
        self.faulty.enter("connect")?;
        self.faulty.orders().tokens.push(token);
        self.host.connect(slot, token, addr, options, local)
    }

    fn connect_unix(&mut self, slot: u32, token: Token, addr: &UnixAddr, options: &SystemOptions) -> io::Result<()> {
        self.faulty.enter("connect")?;
        self.host.connect_unix(slot, token, addr, options)
    }

    fn connected(&mut self, slot: u32) -> io::Result<bool> {
        self.faulty.enter_other("connected")?;
        self.host.connected(slot)
    }

    /// A call that fails has moved the connection, which is not registered any more.
    fn promote(&mut self, from: u32, to: u32, token: Token) -> io::Result<()> {
        let entered = self.faulty.enter("promote");
        self.host.promote(from, to, token)?;
        self.faulty.orders().unregistered = entered.is_err().then_some(token);
        entered
    }

    fn register(&mut self, slot: u32, token: Token) -> io::Result<()> {
        self.faulty.enter("register")?;
        self.faulty.orders().tokens.push(token);
        if self.faulty.orders().unregistered.take_if(|other| *other == token).is_some() {
            return self.host.promote(slot, slot, token);
        }
        self.host.register(slot, token)
    }

    fn recv(&mut self, slot: u32, buffer: &mut [u8]) -> io::Result<Received> {
        self.faulty.enter("recv")?;
        self.faulty.orders().read_into.push(buffer.len());
        if self.is_flooded(slot) {
            let short = usize::from(self.faulty.orders().short);
            return Ok(Received { bytes: buffer.len() - short, drained: false });
        }
        self.host.recv(slot, buffer)
    }

    fn peek(&mut self, slot: u32) -> io::Result<Unread> {
        self.faulty.enter("peek")?;
        self.host.peek(slot)
    }

    fn is_readable(&self, slot: u32) -> bool {
        self.host.is_readable(slot)
    }

    fn send(&mut self, slot: u32, bytes: &[u8], more: bool) -> io::Result<usize> {
        self.faulty.enter("send")?;
        let bite = self.faulty.orders().bite.unwrap_or(usize::MAX).min(bytes.len());
        let sent = self.host.send(slot, &bytes[..bite], more)?;
        self.faulty.orders().sent.push((sent, more));
        Ok(sent)
    }

    fn send_vectored(&mut self, slot: u32, pieces: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        self.faulty.orders().pieces.push(pieces.len());
        if self.faulty.orders().bite.is_some() {
            return self.send(slot, &pieces.iter().map(|piece| &**piece).collect::<Vec<_>>().concat(), more);
        }
        self.faulty.enter("send")?;
        let sent = self.host.send_vectored(slot, pieces, more)?;
        self.faulty.orders().sent.push((sent, more));
        Ok(sent)
    }

    /// A flood is read as if there were no pipes.
    fn splice_in(&mut self, slot: u32, pipe: &mut Option<Box<KernelPipe>>, limit: usize) -> io::Result<usize> {
        self.faulty.enter("splice_in")?;
        if self.is_flooded(slot) { Ok(0) } else { self.host.splice_in(slot, pipe, limit) }
    }

    fn splice_out(&mut self, slot: u32, pipe: &mut KernelPipe, limit: usize, more: bool) -> io::Result<usize> {
        self.faulty.enter("splice_out")?;
        let bite = self.faulty.orders().bite.unwrap_or(usize::MAX).min(limit);
        let sent = self.host.splice_out(slot, pipe, bite, more && bite == limit)?;
        self.faulty.orders().sent.push((sent, more));
        Ok(sent)
    }

    fn finish(&mut self, slot: u32) -> io::Result<()> {
        self.faulty.enter("finish")?;
        self.host.finish(slot)
    }

    fn acknowledged(&mut self, slot: u32) -> io::Result<bool> {
        self.faulty.enter("acknowledged")?;
        self.host.acknowledged(slot)
    }

    fn time_since_acked(&mut self, slot: u32) -> io::Result<Option<Duration>> {
        self.faulty.enter("time_since_acked")?;
        if self.faulty.orders().hides_acks { Ok(None) } else { self.host.time_since_acked(slot) }
    }

    fn take_error(&mut self, slot: u32) -> Option<io::Error> {
        self.faulty.enter_other("take_error").err().or_else(|| self.host.take_error(slot))
    }

    fn drop_unread(&mut self, slot: u32) {
        self.host.drop_unread(slot);
    }

    fn close(&mut self, slot: u32) {
        self.faulty.orders().log.push("close");
        self.host.close(slot);
    }

    fn reset(&mut self, slot: u32) {
        self.faulty.orders().log.push("reset");
        self.host.reset(slot);
    }

    fn set_nodelay(&mut self, slot: u32, on: bool) -> io::Result<()> {
        self.faulty.enter_other("set_nodelay")?;
        self.host.set_nodelay(slot, on)
    }

    fn set_keep_alive(&mut self, slot: u32, times: Option<KeepAlive>) -> io::Result<()> {
        self.faulty.enter_other("set_keep_alive")?;
        self.host.set_keep_alive(slot, times)
    }

    fn local_addr(&self, slot: u32) -> io::Result<SocketAddr> {
        self.host.local_addr(slot)
    }

    fn lookup(&mut self, token: Token, host: &str, port: u16) -> io::Result<()> {
        self.faulty.enter("lookup")?;
        self.host.lookup(token, host, port)
    }

    fn seed(&self) -> u64 {
        self.host.seed()
    }

    fn looked_up(&mut self) -> Option<(Token, LookupAnswer)> {
        self.host.looked_up()
    }

    fn stepped(&mut self, socket: SocketId, state: State, input: Input) {
        self.host.stepped(socket, state, input);
    }
}

/// Flags in epoll's words, as the library's own tests have them: in, out, rdhup, hup, err.
pub fn flags(words: &str) -> Readiness {
    let has = |word| words.split(' ').any(|other| other == word);
    Readiness {
        readable: has("in"),
        writable: has("out"),
        read_closed: has("rdhup"),
        write_closed: has("hup"),
        error: has("err"),
    }
}
