//! The real operating system: epoll with mio, options with socket2, send flags with rustix.
//!
//! Invariant: a descriptor has one owner here, by the slot of its connection or listener. It is
//! closed without being deregistered: the generation of late readiness matches nothing.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Waker};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrAny, getpeername, recv, send, sendmsg,
};
use socket2::{Domain, Socket, Type};

use super::resolver::{Resolve, Resolver};
use super::unix::{self, SocketFile};
use super::{LookupAnswer, Net, Polled, Readiness, Received, Token, UnixAddr, Unread, tcp};
use crate::options::{KeepAlive, ListenOptions, ReusePort, SystemOptions};
use crate::target::BoundAddr;

/// Events taken by one call of epoll_wait(2), 12 KiB: a thousand ready sockets cost one call.
const EVENTS: usize = 1024;

/// Beyond `FEW` connections there is room for `MANY`, 128 KiB. Untouched pages cost nothing.
const FEW: usize = 64;
const MANY: usize = 32 * 1024;

/// No other token has this value: listeners have small numbers, connections a generation.
const WAKER: mio::Token = mio::Token(u32::MAX as usize);

#[cfg(not(target_pointer_width = "64"))]
compile_error!("finale packs a slot and a generation into mio's token and needs 64 bits for it");

/// The net that [`Reactor::new`](crate::Reactor::new) uses.
pub struct Os {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    /// By slot.
    streams: Vec<Option<Socket>>,
    /// Slots whose stream may be split without a new edge, so that a short read does not mean
    /// drained: by an urgent byte (TCP), or a message with descriptors or credentials (Unix).
    split: HashSet<u32>,
    listeners: BTreeMap<u32, Listening>,
    resolver: Resolver,
    #[cfg(target_os = "linux")]
    sock_diag: super::sock_diag::SockDiag,
    #[cfg(target_os = "linux")]
    pipes: super::splice::Pipes,
}

struct Listening {
    /// Removed before the socket is closed: until then no other file can have its inode.
    _file: Option<SocketFile>,
    socket: Socket,
    /// The options of a Unix domain socket, which the accepted ones do not inherit.
    unix: Option<SystemOptions>,
    watched: bool,
}

impl Os {
    /// Opens an epoll instance and an eventfd to wake it, if descriptors are left.
    pub(crate) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Self {
            events: Events::with_capacity(EVENTS),
            resolver: Resolver::new(Arc::clone(&waker)),
            waker,
            streams: Vec::new(),
            split: HashSet::new(),
            listeners: BTreeMap::new(),
            #[cfg(target_os = "linux")]
            sock_diag: super::sock_diag::SockDiag::default(),
            #[cfg(target_os = "linux")]
            pipes: super::splice::Pipes::default(),
            poll,
        })
    }

    /// Looks names up with this function from now on, on the threads of the resolver.
    pub(crate) fn set_resolver(&mut self, resolve: Arc<Resolve>) {
        self.resolver.resolve = resolve;
    }

    /// The connection in this slot. The reactor names only open ones.
    fn stream(&self, slot: u32) -> io::Result<&Socket> {
        self.streams.get(slot as usize).and_then(Option::as_ref).ok_or_else(|| Errno::BADF.into())
    }

    /// What a read has brought. After a short read nothing is left, unless messages end reads early.
    fn received(&self, slot: u32, bytes: usize, room: usize) -> Received {
        Received { bytes, drained: bytes < room && !self.split.contains(&slot) }
    }

    fn put(&mut self, slot: u32, stream: Socket) {
        let slot = slot as usize;
        if slot >= self.streams.len() {
            if slot == FEW {
                self.streams.reserve_exact(MANY);
            }
            self.streams.resize_with(slot + 1, || None);
        }
        self.streams[slot] = Some(stream);
    }

    fn take(&mut self, slot: u32) -> Option<Socket> {
        if !self.split.is_empty() {
            self.split.remove(&slot);
        }
        self.streams.get_mut(slot as usize).and_then(Option::take)
    }

    fn add(&mut self, listener: u32, listening: Listening) -> io::Result<()> {
        watch(&self.poll, listener, &listening.socket)?;
        self.listeners.insert(listener, listening);
        Ok(())
    }

    fn register_fd(&self, stream: &Socket, token: Token) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&stream.as_raw_fd()), pack(token), interest())
    }
}

/// The base of a virtual clock. Only this and [`Os::now`] read the real clock.
pub(crate) fn clock_base() -> Instant {
    Instant::now()
}

impl AsFd for Os {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }
}

impl Net for Os {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn poll(
        &mut self,
        now: Instant,
        timeout: Option<Duration>,
        ready: &mut dyn FnMut(Token, Readiness),
    ) -> io::Result<Polled> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            // The wait was interrupted, and nothing was reported.
            Err(error) if tcp::is(&error, Errno::INTR) => return Ok(Polled { complete_until: now, more: true }),
            Err(error) => return Err(error),
        }
        let mut count = 0;
        for event in &self.events {
            count += 1;
            if event.token() == WAKER {
                continue;
            }
            let token = unpack(event.token());
            if event.is_priority() {
                self.split.insert(token.index);
            }
            let readiness = Readiness {
                readable: event.is_readable(),
                writable: event.is_writable(),
                read_closed: event.is_read_closed(),
                write_closed: event.is_write_closed(),
                error: event.is_error(),
            };
            ready(token, readiness);
        }
        Ok(Polled { complete_until: now, more: count == EVENTS })
    }

    fn waker(&self) -> Box<dyn Fn() + Send + Sync> {
        let waker = Arc::clone(&self.waker);
        Box::new(move || {
            if let Err(error) = waker.wake() {
                log::warn!("can't wake the reactor: {error}");
            }
        })
    }

    fn listen(&mut self, listener: u32, addr: SocketAddr, options: &ListenOptions) -> io::Result<SocketAddr> {
        let socket = tcp::open(Domain::for_address(addr), &options.system)?;
        // Otherwise connections in TIME_WAIT would hinder a restart (socket(7)).
        socket.set_reuse_address(true)?;
        if options.reuse_port == ReusePort::On {
            socket.set_reuse_port(true)?;
        }
        if addr.is_ipv6() {
            socket.set_only_v6(options.ipv6_only)?;
        }
        socket.bind(&addr.into())?;
        if options.reuse_port == ReusePort::AfterBind {
            socket.set_reuse_port(true)?;
        }
        socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
        let bound = socket.local_addr()?.as_socket().ok_or(Errno::AFNOSUPPORT)?;
        self.add(listener, Listening { _file: None, socket, unix: None, watched: true })?;
        Ok(bound)
    }

    fn listen_unix(&mut self, listener: u32, addr: &UnixAddr, options: &ListenOptions) -> io::Result<()> {
        let (socket, file) = unix::listen(addr, options)?;
        self.add(listener, Listening { _file: file, socket, unix: Some(options.system.clone()), watched: true })
    }

    fn accept(&mut self, listener: u32, slot: u32) -> io::Result<Option<SocketAddr>> {
        let listening = self.listeners.get(&listener).ok_or(Errno::BADF)?;
        // One system call: accept4(2) sets the flags that `open` sets; the options are inherited.
        #[cfg(target_os = "linux")]
        let (stream, peer) = {
            use rustix::net::{SocketFlags, acceptfrom_with};
            let (stream, peer) = acceptfrom_with(&listening.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
            (Socket::from(stream), peer.and_then(|peer| SocketAddr::try_from(peer).ok()))
        };
        #[cfg(not(target_os = "linux"))]
        let (stream, peer) = {
            if listening.watched {
                // mio reports it once more after it was registered again, if another connection
                // waits.
                let mut fd = SourceFd(&listening.socket.as_raw_fd());
                self.poll.registry().reregister(&mut fd, listener_token(listener), Interest::READABLE)?;
            }
            let (stream, peer) = listening.socket.accept()?;
            stream.set_nonblocking(true)?;
            (stream, peer.as_socket())
        };
        if let Some(options) = &listening.unix {
            tcp::prepare(&stream, Domain::UNIX, options)?;
            self.put(slot, stream);
            self.split.insert(slot);
            return Ok(None);
        }
        let peer = unmapped(peer.ok_or(Errno::AFNOSUPPORT)?);
        self.put(slot, stream);
        Ok(Some(peer))
    }

    fn set_accepting(&mut self, listener: u32, accepting: bool) -> io::Result<()> {
        let listening = self.listeners.get_mut(&listener).ok_or(Errno::BADF)?;
        match accepting {
            true => watch(&self.poll, listener, &listening.socket)?,
            false => self.poll.registry().deregister(&mut SourceFd(&listening.socket.as_raw_fd()))?,
        }
        listening.watched = accepting;
        Ok(())
    }

    fn adopt(&mut self, listener: u32, fd: OwnedFd, options: &ListenOptions) -> io::Result<BoundAddr> {
        let socket = Socket::from(fd);
        let addr = socket.local_addr()?;
        if socket.r#type()? != Type::STREAM {
            return Err(Errno::PROTOTYPE.into());
        }
        // macOS does not know the option.
        #[cfg(not(target_vendor = "apple"))]
        if !rustix::net::sockopt::socket_acceptconn(&socket)? {
            return Err(Errno::INVAL.into());
        }
        let is_unix = addr.is_unix();
        let bound = match addr.as_socket() {
            Some(addr) => BoundAddr::Ip(addr),
            None if is_unix => BoundAddr::Unix,
            None => return Err(Errno::AFNOSUPPORT.into()),
        };
        // Only now: other processes may share it.
        socket.set_nonblocking(true)?;
        // An inherited descriptor has lost it.
        socket.set_cloexec(true)?;
        // Accepted sockets inherit SO_LINGER, and with a time close(2) blocks.
        socket.set_linger(None)?;
        tcp::prepare(&socket, if is_unix { Domain::UNIX } else { Domain::IPV4 }, &options.system)?;
        self.add(
            listener,
            Listening { _file: None, socket, unix: is_unix.then(|| options.system.clone()), watched: true },
        )?;
        Ok(bound)
    }

    fn unlisten(&mut self, listener: u32) {
        if let Some(listening) = self.listeners.remove(&listener)
            && listening.watched
        {
            // A copy in another process keeps the socket alive, and with it its registration
            // (epoll(7), question 6).
            let _ = self.poll.registry().deregister(&mut SourceFd(&listening.socket.as_raw_fd()));
        }
    }

    fn connect(
        &mut self,
        slot: u32,
        token: Token,
        addr: SocketAddr,
        options: &SystemOptions,
        local: Option<SocketAddr>,
    ) -> io::Result<()> {
        let stream = tcp::connect(addr, options, local, |stream| self.register_fd(stream, token))?;
        self.put(slot, stream);
        Ok(())
    }

    fn connect_unix(&mut self, slot: u32, token: Token, addr: &UnixAddr, options: &SystemOptions) -> io::Result<()> {
        let stream = unix::connect(addr, options, |stream| self.register_fd(stream, token))?;
        self.put(slot, stream);
        self.split.insert(slot);
        Ok(())
    }

    fn connected(&mut self, slot: u32) -> io::Result<bool> {
        let stream = self.stream(slot)?;
        let Some(peer) = peer(stream)? else { return Ok(false) };
        let is_unix = peer.address_family() == AddressFamily::UNIX;
        if !is_unix && stream.local_addr()?.as_socket() == SocketAddr::try_from(peer).ok() {
            // A connection with itself: a port without a listener became our own local port. Closed
            // without a reset, it would keep the port for a minute.
            stream.set_linger(Some(Duration::ZERO))?;
            return Err(Errno::CONNREFUSED.into());
        }
        Ok(true)
    }

    fn promote(&mut self, from: u32, to: u32, token: Token) -> io::Result<()> {
        let stream = self.take(from).ok_or(Errno::BADF)?;
        // EPOLL_CTL_MOD reports the present state again.
        let registry = self.poll.registry();
        let registered = registry.reregister(&mut SourceFd(&stream.as_raw_fd()), pack(token), interest());
        if registered.is_err() {
            let _ = registry.deregister(&mut SourceFd(&stream.as_raw_fd()));
        }
        self.put(to, stream);
        registered
    }

    fn register(&mut self, slot: u32, token: Token) -> io::Result<()> {
        self.register_fd(self.stream(slot)?, token)
    }

    fn recv(&mut self, slot: u32, buffer: &mut [u8]) -> io::Result<Received> {
        let room = buffer.len();
        let (_, bytes) = recv(self.stream(slot)?, buffer, RecvFlags::empty())?;
        Ok(self.received(slot, bytes, room))
    }

    fn recv_spare(&mut self, slot: u32, buffer: &mut Vec<u8>) -> io::Result<Received> {
        let room = buffer.capacity() - buffer.len();
        let (bytes, _) = recv(self.stream(slot)?, spare_capacity(buffer), RecvFlags::empty())?;
        Ok(self.received(slot, bytes, room))
    }

    #[cfg(target_os = "linux")]
    fn splice_in(&mut self, slot: u32, pipe: &mut Option<Box<super::KernelPipe>>, limit: usize) -> io::Result<usize> {
        let stream = self.streams.get(slot as usize).and_then(Option::as_ref).ok_or(Errno::BADF)?;
        self.pipes.fill(stream, pipe, limit)
    }

    fn peek(&mut self, slot: u32) -> io::Result<Unread> {
        match recv(self.stream(slot)?, &mut [0_u8; 1], RecvFlags::PEEK) {
            Ok((_, 0)) => Ok(Unread::End),
            Ok(_) => Ok(Unread::Bytes),
            Err(Errno::WOULDBLOCK) => Ok(Unread::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    fn is_readable(&self, slot: u32) -> bool {
        let Ok(stream) = self.stream(slot) else { return false };
        let mut polled = [PollFd::new(stream, PollFlags::IN)];
        // Without a result, such as after a signal, only a read shows what there is.
        rustix::event::poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    fn send(&mut self, slot: u32, bytes: &[u8], more: bool) -> io::Result<usize> {
        sent(send(self.stream(slot)?, bytes, send_flags(more)))
    }

    fn send_vectored(&mut self, slot: u32, pieces: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        let mut nothing = SendAncillaryBuffer::default();
        sent(sendmsg(self.stream(slot)?, pieces, &mut nothing, send_flags(more)))
    }

    #[cfg(target_os = "linux")]
    fn splice_out(&mut self, slot: u32, pipe: &mut super::KernelPipe, limit: usize, more: bool) -> io::Result<usize> {
        super::splice::empty(pipe, self.stream(slot)?, limit, more)
    }

    fn finish(&mut self, slot: u32) -> io::Result<()> {
        self.stream(slot)?.shutdown(std::net::Shutdown::Write)
    }

    fn acknowledged(&mut self, slot: u32) -> io::Result<bool> {
        // The kernel enters TCP_CLOSE when everything is acknowledged or an error is set; in that
        // state, and in no other after a handshake, getpeername(2) fails with ENOTCONN.
        let stream = self.stream(slot)?;
        match peer(stream)? {
            None => Ok(true),
            // What was sent is in the peer's own queue, and can't be lost on the way.
            Some(peer) if peer.address_family() == AddressFamily::UNIX => {
                socket_error(stream)?.map_or_else(|error| Err(error.into()), |()| Ok(true))
            }
            Some(_) => Ok(false),
        }
    }

    #[cfg(target_os = "linux")]
    fn time_since_acked(&mut self, slot: u32) -> io::Result<Option<Duration>> {
        let stream = self.streams.get(slot as usize).and_then(Option::as_ref).ok_or(Errno::BADF)?;
        self.sock_diag.query(stream, None, super::sock_diag::time_since_acked)
    }

    #[cfg(target_os = "linux")]
    fn kernel_view(&mut self, slot: u32, peer: Option<SocketAddr>) -> Option<super::KernelView> {
        let stream = self.streams.get(slot as usize)?.as_ref()?;
        self.sock_diag.query(stream, peer, super::sock_diag::kernel_view).ok().flatten()
    }

    fn descriptor(&self, slot: u32) -> Option<BorrowedFd<'_>> {
        self.stream(slot).ok().map(AsFd::as_fd)
    }

    fn take_error(&mut self, slot: u32) -> Option<io::Error> {
        let stream = match self.stream(slot) {
            Ok(stream) => stream,
            Err(error) => return Some(error),
        };
        match getpeername(stream) {
            // It lives: its SO_ERROR could only be that of an ICMP message.
            Ok(Some(peer)) if peer.address_family() != AddressFamily::UNIX => None,
            _ => stream.take_error().unwrap_or_else(Some),
        }
    }

    fn close(&mut self, slot: u32) {
        drop(self.take(slot));
    }

    fn reset(&mut self, slot: u32) {
        if let Some(stream) = self.take(slot)
            && let Err(error) = stream.set_linger(Some(Duration::ZERO))
        {
            log::warn!("can't reset a connection, it is closed instead: {error}");
        }
    }

    fn set_nodelay(&mut self, slot: u32, on: bool) -> io::Result<()> {
        of_tcp(self.stream(slot)?.set_tcp_nodelay(on))
    }

    fn set_keep_alive(&mut self, slot: u32, times: Option<KeepAlive>) -> io::Result<()> {
        let stream = self.stream(slot)?;
        match times {
            Some(times) => of_tcp(stream.set_tcp_keepalive(&tcp::keep_alive(times))),
            None => stream.set_keepalive(false),
        }
    }

    fn local_addr(&self, slot: u32) -> io::Result<SocketAddr> {
        let addr = self.stream(slot)?.local_addr()?.as_socket();
        addr.map(unmapped).ok_or_else(|| Errno::AFNOSUPPORT.into())
    }

    fn lookup(&mut self, token: Token, host: &str, port: u16) -> io::Result<()> {
        self.resolver.lookup(token, host, port)
    }

    fn forget_lookup(&mut self, token: Token) {
        self.resolver.forget(token);
    }

    #[inline]
    fn looked_up(&mut self) -> Option<(Token, LookupAnswer)> {
        self.resolver.answer()
    }
}

/// The address of the peer, or the pending error. There is neither before nor after the connection.
#[inline]
fn peer(stream: &Socket) -> rustix::io::Result<Option<SocketAddrAny>> {
    match getpeername(stream) {
        Err(Errno::NOTCONN) => socket_error(stream)?.map(|()| None),
        peer => peer,
    }
}

/// Registers a listener, level-triggered, which mio can't do: it is ready as long as a connection
/// waits, so no accept(2) is needed to find out. mio uses a token unchanged as epoll's data.
#[cfg(target_os = "linux")]
fn watch(poll: &Poll, listener: u32, socket: &Socket) -> io::Result<()> {
    use rustix::event::epoll::{EventData, EventFlags, add};
    let data = EventData::new_u64(listener_token(listener).0 as u64);
    Ok(add(poll.registry(), socket, data, EventFlags::IN)?)
}

/// Registers a listener, which mio reports once: `accept` registers it again.
#[cfg(not(target_os = "linux"))]
fn watch(poll: &Poll, listener: u32, socket: &Socket) -> io::Result<()> {
    poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), listener_token(listener), Interest::READABLE)
}

/// Prevents SIGPIPE, which a program in C may not ignore. On Apple's systems that is an option of
/// each socket, which socket2 sets when it opens or accepts one.
fn send_flags(more: bool) -> SendFlags {
    #[cfg(target_os = "linux")]
    let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
    #[cfg(target_vendor = "apple")]
    let flags = SendFlags::empty();
    #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
    let flags = SendFlags::NOSIGNAL;
    let _ = more;
    flags
}

/// Apple's kernel gives EPROTOTYPE to a send that races with the peer's reset.
fn sent(result: rustix::io::Result<usize>) -> io::Result<usize> {
    let is_reset = |errno| cfg!(target_vendor = "apple") && errno == Errno::PROTOTYPE;
    Ok(result.map_err(|errno| if is_reset(errno) { Errno::PIPE } else { errno })?)
}

/// Of an option of TCP: a Unix domain socket has none of them, and holds nothing back.
fn of_tcp(set: io::Result<()>) -> io::Result<()> {
    set.or_else(|error| if tcp::is(&error, Errno::OPNOTSUPP) { Ok(()) } else { Err(error) })
}

/// Read and write interest: RDHUP is reported only with read interest. Also urgent bytes, see
/// `Os::split`.
fn interest() -> Interest {
    let interest = Interest::READABLE | Interest::WRITABLE;
    #[cfg(target_os = "linux")]
    let interest = interest | Interest::PRIORITY;
    interest
}

fn listener_token(listener: u32) -> mio::Token {
    pack(Token { index: listener, generation: 0 })
}

fn pack(token: Token) -> mio::Token {
    mio::Token((token.generation as usize) << 32 | token.index as usize)
}

fn unpack(token: mio::Token) -> Token {
    Token { index: token.0 as u32, generation: (token.0 >> 32) as u32 }
}

/// The IPv4 address of an IPv4 peer of an IPv6 listener.
#[inline]
fn unmapped(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, addr.port()),
        IpAddr::V6(_) => addr,
    }
}

/// Each connection needs four bytes here, in addition to the table's 64.
const _: () = assert!(size_of::<Option<Socket>>() == 4);
