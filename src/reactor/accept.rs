//! Opening listeners, accepting, and backing off when the system lacks resources to accept.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::emit::{Emit, EmitKind};
use super::listeners::{Entry, Listener};
use super::{Reactor, system};
use crate::error::{AddressError, Error, OsError};
use crate::id::ListenerId;
use crate::lifecycle::{Emits, Input};
use crate::net::Net;
use crate::options::{ListenOptions, Settings};
use crate::table::entry::Flags;
use crate::target::{BoundAddr, Target};

/// How long a listener backs off when it can't accept, unless one of our descriptors is freed
/// before. A tenth of a second does not spin, and a client repeats its SYN only after a second.
const BACK_OFF_TICKS: u64 = 100;

/// Connections in a row that fail in accept(2): a security module that refuses all must not keep us
/// busy.
const SKIPS: u32 = 64;

/// Errors of accept(2) that concern only one connection; the next may succeed. accept(2) passes on
/// pending network errors of the new socket. macOS adds EINVAL, or an address of no family, for a
/// client that has disconnected.
#[rustfmt::skip]
const OF_ONE_CONNECTION: &[Errno] = &[
    Errno::INTR, Errno::INVAL, Errno::CONNABORTED, Errno::PROTO, Errno::PERM, Errno::NETDOWN, Errno::NOPROTOOPT,
    Errno::HOSTDOWN, Errno::HOSTUNREACH, Errno::OPNOTSUPP, Errno::AFNOSUPPORT, Errno::NETUNREACH,
    #[cfg(target_os = "linux")]
    Errno::NONET,
];

impl<N: Net> Reactor<N> {
    /// Opens a listener on an IP address, where port 0 lets the kernel choose a port, or on a Unix
    /// domain socket: `"127.0.0.1:7000"`, `"unix:/run/app.sock"`, a [`SocketAddr`], a
    /// [`UnixAddr`](crate::UnixAddr), a [`Target`].
    ///
    /// The file of a Unix domain socket is removed with the listener. Its connections have the same
    /// events as others and no addresses; the options of TCP don't apply. There is no reset: to a
    /// peer `destroy()` is an end, unless bytes of the peer were left unread.
    ///
    /// # Errors
    /// [`Error::InvalidAddress`], also for a host name; [`Error::InvalidOption`]; or
    /// [`Error::Listen`], mostly EADDRINUSE. A file that a dead server has left is in use, too,
    /// unless [`replace_stale`](ListenOptions::replace_stale) is on.
    #[doc(alias = "createServer")]
    #[doc(alias = "bind")]
    #[doc(alias = "uv_listen")]
    pub fn listen<T>(&mut self, addr: T, options: ListenOptions) -> Result<Listener, Error>
    where
        T: TryInto<Target>,
        Error: From<T::Error>,
    {
        let refused = |addr, error| Error::Listen { addr, source: OsError::from(&error) };
        match addr.try_into()? {
            Target::Addr(addr) => self.add_listener(options, |net, slot, options| {
                let bound = net.listen(slot, addr, options).map_err(|error| refused(addr.into(), error))?;
                Ok(BoundAddr::Ip(bound))
            }),
            Target::Unix(addr) => self.add_listener(options, |net, slot, options| {
                net.listen_unix(slot, &addr, options).map_err(|error| refused(Target::Unix(addr), error))?;
                Ok(BoundAddr::Unix)
            }),
            Target::Addrs(_) | Target::Name { .. } => Err(Error::InvalidAddress(AddressError::NotAnAddress)),
        }
    }

    fn add_listener(
        &mut self,
        options: ListenOptions,
        open: impl FnOnce(&mut N, u32, &ListenOptions) -> Result<BoundAddr, Error>,
    ) -> Result<Listener, Error> {
        options.check()?;
        let id = self.listeners.new_id();
        let addr = open(&mut self.net, id.index(), &options)?;
        let settings = self.table.settings.intern(Settings { listener: Some(id), ..options.settings.clone() });
        self.listeners.entries.insert(Entry::new(id, settings, &options));
        Ok(Listener { id, addr })
    }

    /// Closes a listener. Its sockets continue; the kernel resets connections that wait to be
    /// accepted. [`stop_listener`](Reactor::stop_listener) accepts them first, and ends its
    /// sockets; if it was called before, that continues, and accepts no more.
    ///
    /// # Errors
    /// [`Error::Gone`] if it is closed already.
    #[doc(alias = "uv_close")]
    pub fn close_listener(&mut self, id: ListenerId) -> Result<(), Error> {
        let is_stopped = self.listeners.find(id).ok_or(Error::Gone)?.is_stopped();
        self.close_descriptor(id.index());
        if !is_stopped {
            self.table.settings.release(self.listeners.remove(id.index()));
        }
        Ok(())
    }

    /// Accepts no connection until [`resume_accepting`](Reactor::resume_accepting). Clients wait in
    /// the backlog.
    ///
    /// # Errors
    /// [`Error::Gone`] if the listener is closed, or stopped.
    pub fn pause_accepting(&mut self, id: ListenerId) -> Result<(), Error> {
        self.listeners.accepting_mut(id).ok_or(Error::Gone)?.paused = true;
        Ok(())
    }

    /// Accepts again after [`pause_accepting`](Reactor::pause_accepting).
    ///
    /// # Errors
    /// [`Error::Gone`] if the listener is closed, or stopped.
    pub fn resume_accepting(&mut self, id: ListenerId) -> Result<(), Error> {
        self.listeners.accepting_mut(id).ok_or(Error::Gone)?.paused = false;
        self.listeners.unblock(id.index());
        Ok(())
    }

    /// Every listener that is not closed, including those that stop: for a program that did not open
    /// them itself, such as that of a [`Shard`](crate::Shard).
    #[must_use]
    pub fn listener_ids(&self) -> Vec<ListenerId> {
        self.listeners.ids().collect()
    }

    /// Whether [`stop_listener`](Reactor::stop_listener) was called for it.
    pub(crate) fn is_stopping(&self, id: ListenerId) -> bool {
        self.listeners.find(id).is_some_and(Entry::is_stopped)
    }

    /// Tries to accept one connection.
    pub(super) fn accept_from(&mut self, listener: u32) -> Option<Emit> {
        let entry = &mut self.listeners.entries[listener as usize];
        if entry.must_wait() {
            if entry.is_stopped() && entry.live == 0 {
                // No socket can make room: the maximum is 0.
                self.close_descriptor(listener);
            } else {
                self.mute(listener);
                self.listeners.served(listener);
            }
            return None;
        }
        let error = match self.net.accept(listener, self.table.vacant()) {
            Ok(peer) => {
                entry.skips = 0;
                let (drops, is_last) = (entry.drops(), entry.was_the_last());
                let emit = if drops { self.drop_excess(listener, peer) } else { self.accepted(listener, peer) };
                if is_last {
                    self.close_descriptor(listener);
                }
                return Some(emit);
            }
            Err(error) => error,
        };
        let is_of_one = |errno: Option<Errno>| errno.is_none_or(|errno| OF_ONE_CONNECTION.contains(&errno));
        match Errno::from_io_error(&error) {
            Some(Errno::WOULDBLOCK) => return self.nobody_waits(listener),
            errno if entry.skips < SKIPS && is_of_one(errno) => entry.skips += 1,
            _ if self.frees_descriptor(&error) => {}
            _ => return self.back_off(listener, &error),
        }
        None
    }

    fn accepted(&mut self, listener: u32, peer: Option<SocketAddr>) -> Emit {
        let (entry, is_overflow) = self.listeners.opened(listener);
        let settings = entry.settings;
        let overflow = if is_overflow { Flags::OVERFLOW } else { Flags::NONE };
        if entry.batch.accepted() && !entry.muted {
            self.listeners.served(listener);
        }
        self.turn.accepted();
        self.counts.accepted += 1;
        let deadline_ms = self.table.settings.hold(settings).deadline_ms;
        // Its first bytes have often arrived: they are read before it is registered, which may
        // never be needed.
        let flags = Flags::READABLE | Flags::WRITABLE | Flags::IDLE | Flags::SOON | overflow;
        let slot = self.table.insert(settings, peer, flags);
        if let Some(ms) = deadline_ms {
            self.begin_deadline(slot, ms);
        }
        self.emit(slot, Input::Accepted, Emits::Connection)
    }

    /// Accounts for a client beyond the maximum, which is reset.
    fn drop_excess(&mut self, listener: u32, peer: Option<SocketAddr>) -> Emit {
        self.net.reset(self.table.vacant());
        self.turn.dropped();
        self.counts.overflowed += 1;
        self.dropped = peer;
        Emit::new(EmitKind::Overflow, listener)
    }

    /// Nothing can be accepted for now: clients wait, and the listener is not watched.
    fn back_off(&mut self, listener: u32, error: &io::Error) -> Option<Emit> {
        self.mute(listener);
        self.counts.accept_failures += 1;
        self.listeners.back_off(listener, self.table.epoch.tick_after(self.net.now()) + BACK_OFF_TICKS);
        let entry = &mut self.listeners.entries[listener as usize];
        entry.skips = 0;
        if std::mem::replace(&mut entry.reported, true) {
            return None;
        }
        self.accept_error = OsError::from(error);
        self.turn.dropped();
        Some(Emit::new(EmitKind::AcceptFailed, listener))
    }

    /// Reports no readiness of this listener from now on: clients that have to wait would end every
    /// poll at once.
    pub(super) fn mute(&mut self, listener: u32) {
        let entry = &mut self.listeners.entries[listener as usize];
        if !std::mem::replace(&mut entry.muted, true)
            && let Err(error) = self.net.set_accepting(listener, false)
        {
            log::warn!("a listener that has to leave clients waiting can't be muted: {error}");
        }
    }

    /// No client waits. The system reports the next one, and the last error is over. A stopped
    /// listener is done.
    fn nobody_waits(&mut self, listener: u32) -> Option<Emit> {
        let entry = &mut self.listeners.entries[listener as usize];
        entry.batch.was_vain();
        if entry.is_stopped() {
            self.close_descriptor(listener);
            return None;
        }
        if entry.muted
            && let Err(error) = self.net.set_accepting(listener, true)
        {
            return self.back_off(listener, &error);
        }
        (entry.muted, entry.reported) = (false, false);
        self.listeners.served(listener);
        None
    }
}

impl<N: Net> Reactor<N> {
    /// Takes over a listening socket that was opened elsewhere: a
    /// [`TcpListener`](std::net::TcpListener), a [`UnixListener`](std::os::unix::net::UnixListener),
    /// or a descriptor that was inherited from a parent process (socket activation). So it can have
    /// options that finale does not know.
    ///
    /// It becomes close-on-exec, and non-blocking for all processes that share it. The system's
    /// options that are on in `options` are set. Those that must be set before it listens are not:
    /// `reuse_port`, `ipv6_only`, and the backlog, which only bounds what a
    /// [stop](Reactor::stop_listener) accepts. The file of a Unix domain socket is not removed with
    /// it. After an error the descriptor is closed.
    ///
    /// ```
    /// use finale::{ListenOptions, Reactor};
    /// let mut reactor = Reactor::new()?;
    /// let opened = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    /// let listener = reactor.adopt(opened, ListenOptions::default())?;
    /// println!("listening on {}", listener.addr);
    /// # Ok::<(), finale::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidOption`]; or [`Error::System`], also for a descriptor that is not a stream
    /// socket of TCP or of a Unix domain (EPROTOTYPE, EAFNOSUPPORT) or does not listen (EINVAL), and
    /// on a simulated network.
    #[doc(alias = "from_std")]
    #[doc(alias = "uv_tcp_open")]
    #[doc(alias = "listen_fd")]
    #[doc(alias = "socket activation")]
    pub fn adopt(&mut self, listener: impl Into<OwnedFd>, options: ListenOptions) -> Result<Listener, Error> {
        let listener = listener.into();
        self.add_listener(options, |net, slot, options| {
            net.adopt(slot, listener, options).map_err(|error| system("adopting a listening stream socket", &error))
        })
    }
}
