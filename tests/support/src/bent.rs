//! A faulty net: the simulated host, except where a test makes it return what another system would.
//! It also records what the reactor calls.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use finale::lifecycle::{Input, State};
use finale::net::{LookupAnswer, Net, Polled, Readiness, Received, SystemOptions, Token, Unread};
use finale::sim::{Host, Network, PeerSocket};
use finale::{KeepAlive, ListenOptions, SocketId};
use rustix::io::Errno;

use crate::scene::{HERE, Scene};

/// What the test has requested, and what it may examine.
#[derive(Default)]
pub struct ShardStopper {
    /// The next call of this name returns this; each entry is used once, in order.
    once: VecDeque<(&'static str, Errno)>,
    /// Every call of this name returns this.
    always: Option<(&'static str, Errno)>,
    /// Reported by the next poll, with its own readiness.
    news: Vec<(Token, Readiness)>,
    /// A send takes at most this many bytes.
    pub bite: Option<usize>,
    /// The names of all calls.
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

/// The test's handle on a [`Bent`] net.
#[derive(Clone, Default)]
pub struct Bend(Rc<RefCell<ShardStopper>>);

impl Bend {
    pub fn look(&self) -> std::cell::RefMut<'_, ShardStopper> {
        self.0.borrow_mut()
    }

    pub fn once(&self, call: &'static str, errno: Errno) {
        self.look().once.push_back((call, errno));
    }

    pub fn always(&self, order: Option<(&'static str, Errno)>) {
        self.look().always = order;
    }

    /// The next poll reports these flags for the connection that was registered last but `back`.
    pub fn news(&self, back: usize, readiness: Readiness) {
        let mut orders = self.look();
        let token = orders.tokens[orders.tokens.len() - 1 - back];
        orders.news.push((token, readiness));
    }

    /// How often this was called.
    pub fn count(&self, call: &str) -> usize {
        self.look().log.iter().filter(|name| **name == call).count()
    }

    /// Every call since the last `take_log`, by its name.
    pub fn take_log(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.look().log)
    }

    /// Records the call, and applies what was requested for it.
    fn enter(&self, call: &'static str) -> io::Result<()> {
        let mut orders = self.look();
        orders.log.push(call);
        if orders.once.front().is_some_and(|(name, _)| *name == call) {
            let (_, errno) = orders.once.pop_front().expect("it was there");
            return Err(errno.into());
        }
        match orders.always {
            Some((name, errno)) if name == call => Err(errno.into()),
            _ => Ok(()),
        }
    }
}

pub struct Bent {
    host: Host,
    bend: Bend,
}

/// A scene on a faulty net.
pub fn bent() -> (Scene<Bent>, Bend) {
    let (network, bend) = (Network::new(7), Bend::default());
    let host = network.host(HERE);
    (Scene::on(network, Bent { host, bend: bend.clone() }), bend)
}

/// The same with a connection of the peer, accepted and registered.
pub fn bent_served(options: ListenOptions) -> (Scene<Bent>, PeerSocket, Bend) {
    let (mut scene, bend) = bent();
    let peer = scene.serve(options);
    scene.expect(&[]);
    bend.take_log();
    (scene, peer, bend)
}

impl Net for Bent {
    fn now(&self) -> Instant {
        self.host.now()
    }

    fn poll(
        &mut self,
        now: Instant,
        timeout: Option<Duration>,
        ready: &mut dyn FnMut(Token, Readiness),
    ) -> io::Result<Polled> {
        let ordered = std::mem::take(&mut self.bend.look().news);
        self.bend.enter("poll")?;
        let timeout = if ordered.is_empty() { timeout } else { Some(Duration::ZERO) };
        ordered.into_iter().for_each(|(token, readiness)| ready(token, readiness));
        self.host.poll(now, timeout, ready)
    }

    fn waker(&self) -> Box<dyn Fn() + Send + Sync> {
        self.host.waker()
    }

    fn listen(&mut self, listener: u32, addr: SocketAddr, options: &ListenOptions) -> io::Result<SocketAddr> {
        self.host.listen(listener, addr, options)
    }

    fn accept(&mut self, listener: u32, slot: u32) -> io::Result<Option<SocketAddr>> {
        self.bend.enter("accept")?;
        self.host.accept(listener, slot)
    }

    fn set_accepting(&mut self, listener: u32, accepting: bool) -> io::Result<()> {
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
        self.bend.enter("connect")?;
        self.bend.look().tokens.push(token);
        self.host.connect(slot, token, addr, options, local)
    }

    fn time_since_acked(&mut self, slot: u32) -> Option<Duration> {
        self.host.time_since_acked(slot)
    }

    fn connected(&mut self, slot: u32) -> io::Result<bool> {
        self.bend.enter("connected")?;
        self.host.connected(slot)
    }

    fn promote(&mut self, from: u32, to: u32, token: Token) -> io::Result<()> {
        self.bend.enter("promote")?;
        self.host.promote(from, to, token)
    }

    fn register(&mut self, slot: u32, token: Token) -> io::Result<()> {
        self.bend.enter("register")?;
        self.bend.look().tokens.push(token);
        self.host.register(slot, token)
    }

    fn recv(&mut self, slot: u32, buffer: &mut [u8]) -> io::Result<Received> {
        self.bend.enter("recv")?;
        self.bend.look().read_into.push(buffer.len());
        self.host.recv(slot, buffer)
    }

    fn peek(&mut self, slot: u32) -> io::Result<Unread> {
        self.bend.enter("peek")?;
        self.host.peek(slot)
    }

    fn is_readable(&self, slot: u32) -> bool {
        self.host.is_readable(slot)
    }

    fn send(&mut self, slot: u32, bytes: &[u8], more: bool) -> io::Result<usize> {
        self.bend.enter("send")?;
        let bite = self.bend.look().bite.unwrap_or(usize::MAX).min(bytes.len());
        let sent = self.host.send(slot, &bytes[..bite], more)?;
        self.bend.look().sent.push((sent, more));
        Ok(sent)
    }

    fn send_vectored(&mut self, slot: u32, pieces: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        self.bend.look().pieces.push(pieces.len());
        self.send(slot, &pieces.iter().map(|piece| &**piece).collect::<Vec<_>>().concat(), more)
    }

    fn finish(&mut self, slot: u32) -> io::Result<()> {
        self.bend.enter("finish")?;
        self.host.finish(slot)
    }

    fn acknowledged(&mut self, slot: u32) -> io::Result<bool> {
        self.bend.enter("acknowledged")?;
        self.host.acknowledged(slot)
    }

    fn take_error(&mut self, slot: u32) -> Option<io::Error> {
        self.bend.enter("take_error").err().or_else(|| self.host.take_error(slot))
    }

    fn close(&mut self, slot: u32) {
        self.bend.look().log.push("close");
        self.host.close(slot);
    }

    fn reset(&mut self, slot: u32) {
        self.bend.look().log.push("reset");
        self.host.reset(slot);
    }

    fn set_nodelay(&mut self, slot: u32, on: bool) -> io::Result<()> {
        self.bend.enter("set_nodelay")?;
        self.host.set_nodelay(slot, on)
    }

    fn set_keep_alive(&mut self, slot: u32, times: Option<KeepAlive>) -> io::Result<()> {
        self.bend.enter("set_keep_alive")?;
        self.host.set_keep_alive(slot, times)
    }

    fn local_addr(&self, slot: u32) -> io::Result<SocketAddr> {
        self.host.local_addr(slot)
    }

    fn lookup(&mut self, token: Token, host: &str, port: u16) {
        self.host.lookup(token, host, port);
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
