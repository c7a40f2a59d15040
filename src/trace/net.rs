//! The network that records what is done with it.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::{Begun, Call, KernelView, Recorder, What};
use crate::id::SocketId;
use crate::kernel_pipe::KernelPipe;
use crate::lifecycle::{self, Cell, Input, State};
use crate::net::{LookupAnswer, Net, Polled, Readiness, Received, Token, Unread};
use crate::options::{KeepAlive, ListenOptions, SystemOptions};
use crate::target::BoundAddr;
use crate::unix_addr::UnixAddr;

/// A network whose connections a [`Recorder`] records.
///
/// ```
/// use finale::Reactor;
/// use finale::trace::{Recorder, Traced};
/// let recorder = Recorder::new(100);
/// let mut reactor: Reactor<Traced<_>> = recorder.reactor()?;
/// assert!(reactor.next()?.is_none(), "nothing is left that could happen");
/// # Ok::<(), finale::Error>(())
/// ```
#[derive(Debug)]
pub struct Traced<N> {
    net: N,
    recorder: Recorder,
    /// By slot.
    slots: Vec<Option<Slot>>,
}

/// What is known of the connection in a slot.
#[derive(Debug, Clone)]
struct Slot {
    /// One that is not recorded is beyond the number per second, or at a time.
    begun: Option<Begun>,
    /// The socket of the reactor, from its first transition on.
    socket: Option<SocketId>,
    /// It is a socket of the reactor, and not a further attempt of one.
    is_socket: bool,
    /// Without one, a close is no system call.
    has_descriptor: bool,
    /// It has had one: the next one is another connection.
    was_open: bool,
    peer: Option<SocketAddr>,
    kernel: Option<KernelView>,
}

impl Slot {
    const fn new(begun: Option<Begun>) -> Self {
        Self { begun, socket: None, is_socket: false, has_descriptor: false, was_open: false, peer: None, kernel: None }
    }
}

impl<N: Net> Traced<N> {
    pub(super) const fn new(net: N, recorder: Recorder) -> Self {
        Self { net, recorder, slots: Vec::new() }
    }

    #[cfg(feature = "sim")]
    pub(crate) const fn net(&self) -> &N {
        &self.net
    }

    /// The connection in a slot, which begins if there was none.
    fn slot(&mut self, slot: u32) -> &mut Slot {
        let slot = slot as usize;
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, None);
        }
        let (recorder, net) = (&self.recorder, &self.net);
        self.slots[slot].get_or_insert_with(|| Slot::new(recorder.begin(net.now())))
    }

    fn is_recorded(&mut self, slot: u32) -> bool {
        !self.recorder.keeps_nothing() && self.slot(slot).begun.is_some()
    }

    fn add(&mut self, slot: u32, what: What) {
        let at = self.net.now();
        if let Slot { begun: Some(Begun { connection, .. }), socket, .. } = *self.slot(slot) {
            self.recorder.add(at, connection, socket, what);
        }
    }

    /// Records a call that has moved this many bytes, and what the kernel says after it.
    fn call(&mut self, slot: u32, call: Call, bytes: u64, error: Option<&io::Error>) {
        if !self.is_recorded(slot) {
            return;
        }
        let peer = self.slot(slot).peer.filter(|_| matches!(call, Call::Connect | Call::Accept));
        self.add(slot, What::Call { call, bytes, peer, error: error.map(Into::into) });
        if !matches!(call, Call::Close | Call::Reset | Call::Lookup) {
            self.look(slot);
        }
    }

    /// Records what the kernel says, if that has changed.
    fn look(&mut self, slot: u32) {
        if !self.is_recorded(slot) {
            return;
        }
        let peer = self.slot(slot).peer;
        let kernel = self.net.kernel_view(slot, peer);
        let known = &mut self.slot(slot).kernel;
        if kernel != *known {
            *known = kernel;
            if let Some(kernel) = kernel {
                self.add(slot, What::Kernel(kernel));
            }
        }
    }

    /// Records the call that gives a slot its descriptor.
    fn opens(&mut self, slot: u32, call: Call, peer: Option<SocketAddr>, result: Result<(), &io::Error>) {
        if self.recorder.keeps_nothing() {
            return;
        }
        let known = self.slot(slot);
        if known.was_open {
            let Slot { is_socket, socket, .. } = *known;
            *self.slot(slot) = Slot { is_socket, socket, ..Slot::new(self.recorder.begin(self.net.now())) };
        }
        let known = self.slot(slot);
        (known.peer, known.has_descriptor, known.was_open) = (peer, result.is_ok(), result.is_ok());
        self.call(slot, call, 0, result.err());
    }

    /// The connection in a slot is an attempt of the socket with this token.
    fn attempts(&mut self, slot: u32, token: Token) {
        if let Some(Some(Slot { socket, .. })) = self.slots.get(token.index as usize) {
            let socket = *socket;
            self.slot(slot).socket = socket;
        }
    }

    /// Records a call that moves bytes. One for which there is nothing to do is left out.
    fn moves<T>(&mut self, slot: u32, call: Call, result: &io::Result<T>, bytes: impl Fn(&T) -> usize) {
        match result {
            Ok(moved) => self.call(slot, call, bytes(moved) as u64, None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.call(slot, call, 0, Some(error)),
        }
    }

    /// Records close(2). The socket's last transition follows; that of an attempt does not.
    fn closes(&mut self, slot: u32, call: Call) {
        let Some(known) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let is_socket = known.is_socket;
        if std::mem::take(&mut known.has_descriptor) {
            self.call(slot, call, 0, None);
        }
        if !is_socket {
            self.slots[slot as usize] = None;
        }
    }
}

impl<N: Net> Net for Traced<N> {
    fn accept(&mut self, listener: u32, slot: u32) -> io::Result<Option<SocketAddr>> {
        let accepted = self.net.accept(listener, slot);
        if let Ok(peer) = accepted {
            self.opens(slot, Call::Accept, peer, Ok(()));
        }
        accepted
    }

    fn connect(
        &mut self,
        slot: u32,
        token: Token,
        addr: SocketAddr,
        options: &SystemOptions,
        local: Option<SocketAddr>,
    ) -> io::Result<()> {
        let begun = self.net.connect(slot, token, addr, options, local);
        self.attempts(slot, token);
        self.opens(slot, Call::Connect, Some(addr), begun.as_ref().copied());
        if begun.is_err()
            && slot != token.index
            && let Some(slot) = self.slots.get_mut(slot as usize)
        {
            // An attempt of a race: it has no descriptor that would be closed.
            *slot = None;
        }
        begun
    }

    fn connect_unix(&mut self, slot: u32, token: Token, addr: &UnixAddr, options: &SystemOptions) -> io::Result<()> {
        let begun = self.net.connect_unix(slot, token, addr, options);
        self.opens(slot, Call::Connect, None, begun.as_ref().copied());
        begun
    }

    fn connected(&mut self, slot: u32) -> io::Result<bool> {
        let connected = self.net.connected(slot);
        match &connected {
            Ok(true) => self.look(slot),
            Ok(false) => {}
            Err(error) => self.call(slot, Call::Connect, 0, Some(error)),
        }
        connected
    }

    fn promote(&mut self, from: u32, to: u32, token: Token) -> io::Result<()> {
        if from != to
            && let Some(winner) = self.slots.get_mut(from as usize).and_then(Option::take)
        {
            *self.slot(to) = Slot { is_socket: true, ..winner };
        }
        self.net.promote(from, to, token)
    }

    fn recv(&mut self, slot: u32, buffer: &mut [u8]) -> io::Result<Received> {
        let received = self.net.recv(slot, buffer);
        self.moves(slot, Call::Recv, &received, |received| received.bytes);
        received
    }

    fn recv_spare(&mut self, slot: u32, buffer: &mut Vec<u8>) -> io::Result<Received> {
        let received = self.net.recv_spare(slot, buffer);
        self.moves(slot, Call::Recv, &received, |received| received.bytes);
        received
    }

    fn splice_in(&mut self, slot: u32, pipe: &mut Option<Box<KernelPipe>>, limit: usize) -> io::Result<usize> {
        let moved = self.net.splice_in(slot, pipe, limit);
        // 0: nothing was moved, and recv(2) finds out why.
        if !matches!(moved, Ok(0)) {
            self.moves(slot, Call::Recv, &moved, |bytes| *bytes);
        }
        moved
    }

    fn send(&mut self, slot: u32, bytes: &[u8], more: bool) -> io::Result<usize> {
        let sent = self.net.send(slot, bytes, more);
        self.moves(slot, Call::Send, &sent, |bytes| *bytes);
        sent
    }

    fn send_vectored(&mut self, slot: u32, pieces: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        let sent = self.net.send_vectored(slot, pieces, more);
        self.moves(slot, Call::Send, &sent, |bytes| *bytes);
        sent
    }

    fn splice_out(&mut self, slot: u32, pipe: &mut KernelPipe, limit: usize, more: bool) -> io::Result<usize> {
        let sent = self.net.splice_out(slot, pipe, limit, more);
        self.moves(slot, Call::Send, &sent, |bytes| *bytes);
        sent
    }

    fn take_error(&mut self, slot: u32) -> Option<io::Error> {
        let error = self.net.take_error(slot);
        if error.is_some() {
            self.call(slot, Call::TakeError, 0, error.as_ref());
        }
        error
    }

    fn finish(&mut self, slot: u32) -> io::Result<()> {
        let finished = self.net.finish(slot);
        self.call(slot, Call::Shutdown, 0, finished.as_ref().err());
        finished
    }

    fn drop_unread(&mut self, slot: u32) {
        self.net.drop_unread(slot);
    }

    fn close(&mut self, slot: u32) {
        self.net.close(slot);
        self.closes(slot, Call::Close);
    }

    fn reset(&mut self, slot: u32) {
        self.net.reset(slot);
        self.closes(slot, Call::Reset);
    }

    fn lookup(&mut self, token: Token, host: &str, port: u16) -> io::Result<()> {
        self.call(token.index, Call::Lookup, 0, None);
        self.net.lookup(token, host, port)
    }

    fn stepped(&mut self, socket: SocketId, state: State, input: Input) {
        self.net.stepped(socket, state, input);
        if self.recorder.keeps_nothing() {
            return;
        }
        let slot = socket.index();
        let known = self.slot(slot);
        let is_new = known.socket != Some(socket);
        (known.is_socket, known.socket) = (true, Some(socket));
        if let (true, &mut Slot { begun: Some(Begun { connection, first, .. }), .. }) = (is_new, known) {
            self.recorder.is_of(socket, connection, first);
        }
        if let Cell::Go(to, events) = lifecycle::step(state, input) {
            self.add(slot, What::Step { from: state, input, to, events });
        }
        if input == Input::CloseDue {
            self.slots[slot as usize] = None;
        }
    }

    // What follows is passed on.

    fn now(&self) -> Instant {
        self.net.now()
    }

    fn poll(
        &mut self,
        now: Instant,
        timeout: Option<Duration>,
        ready: &mut dyn FnMut(Token, Readiness),
    ) -> io::Result<Polled> {
        self.net.poll(now, timeout, ready)
    }

    fn waker(&self) -> Box<dyn Fn() + Send + Sync> {
        self.net.waker()
    }

    fn listen(&mut self, listener: u32, addr: SocketAddr, options: &ListenOptions) -> io::Result<SocketAddr> {
        self.net.listen(listener, addr, options)
    }

    fn listen_unix(&mut self, listener: u32, addr: &UnixAddr, options: &ListenOptions) -> io::Result<()> {
        self.net.listen_unix(listener, addr, options)
    }

    fn adopt(&mut self, listener: u32, fd: OwnedFd, options: &ListenOptions) -> io::Result<BoundAddr> {
        self.net.adopt(listener, fd, options)
    }

    fn set_accepting(&mut self, listener: u32, accepting: bool) -> io::Result<()> {
        self.net.set_accepting(listener, accepting)
    }

    fn unlisten(&mut self, listener: u32) {
        self.net.unlisten(listener);
    }

    fn register(&mut self, slot: u32, token: Token) -> io::Result<()> {
        self.net.register(slot, token)
    }

    fn peek(&mut self, slot: u32) -> io::Result<Unread> {
        self.net.peek(slot)
    }

    fn is_readable(&self, slot: u32) -> bool {
        self.net.is_readable(slot)
    }

    fn acknowledged(&mut self, slot: u32) -> io::Result<bool> {
        self.net.acknowledged(slot)
    }

    fn time_since_acked(&mut self, slot: u32) -> io::Result<Option<Duration>> {
        self.net.time_since_acked(slot)
    }

    fn kernel_view(&mut self, slot: u32, peer: Option<SocketAddr>) -> Option<KernelView> {
        self.net.kernel_view(slot, peer)
    }

    fn descriptor(&self, slot: u32) -> Option<BorrowedFd<'_>> {
        self.net.descriptor(slot)
    }

    fn set_nodelay(&mut self, slot: u32, on: bool) -> io::Result<()> {
        self.net.set_nodelay(slot, on)
    }

    fn set_keep_alive(&mut self, slot: u32, times: Option<KeepAlive>) -> io::Result<()> {
        self.net.set_keep_alive(slot, times)
    }

    fn local_addr(&self, slot: u32) -> io::Result<SocketAddr> {
        self.net.local_addr(slot)
    }

    fn forget_lookup(&mut self, token: Token) {
        self.net.forget_lookup(token);
    }

    fn looked_up(&mut self) -> Option<(Token, LookupAnswer)> {
        self.net.looked_up()
    }

    fn seed(&self) -> u64 {
        self.net.seed()
    }
}
