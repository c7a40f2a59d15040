//! Opening listeners, accepting, and resting when the system has nothing left to accept with.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;

use super::emit::{Emit, EmitKind};
use super::listeners::{Entry, Listener};
use super::{Reactor, system};
use crate::error::{Error, OsError};
use crate::id::ListenerId;
use crate::lifecycle::{Emits, Input};
use crate::net::Net;
use crate::options::{Listen, Settings};
use crate::table::entry::Flags;
use crate::table::extra::Deadline;
use crate::target::Target;
use crate::unix_addr::UnixAddr;

/// How long a listener rests when accepting fails for want of resources, unless a descriptor of ours is freed before: a
/// tenth of a second is no spin, and short beside the second after which a client repeats its SYN.
const REST_TICKS: u64 = 100;

/// Connections that fail in accept(2) one after the other: one that says no to every one, as a security module may, must
/// not keep the loop awake.
const SKIPS: u32 = 64;

/// What an error of accept(2) means for the listener.
enum Trouble {
    Nobody,
    /// This one connection is gone; the next may be fine.
    Skip,
    /// Nothing can be accepted for now.
    Rest,
}

/// accept(2): network errors that are already pending on the new socket are passed on; they are not the listener's. Nor is
/// what macOS says of a client that has gone meanwhile: EINVAL, or an address that is none.
fn trouble(error: &io::Error) -> Trouble {
    match Errno::from_io_error(error) {
        Some(Errno::WOULDBLOCK) => Trouble::Nobody,
        Some(
            Errno::INTR
            | Errno::INVAL
            | Errno::CONNABORTED
            | Errno::PROTO
            | Errno::PERM
            | Errno::NETDOWN
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::AFNOSUPPORT
            | Errno::NETUNREACH,
        )
        | None => Trouble::Skip,
        Some(_) => Trouble::Rest,
    }
}

impl Reactor {
    /// Takes over a listener that was opened elsewhere: one inherited from a parent process (socket activation), or one with
    /// an option set that finale does not know. It is made non-blocking, for all who share it. What `options` turns on of the
    /// system's options is set on it; what it has already is left as it is, and so is what had to be said before it listened:
    /// the backlog, `reuse_port`, `ipv6_only`. If it can't be used, it is closed.
    ///
    /// ```
    /// # use finale::{Listen, Reactor};
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    /// let mut reactor = Reactor::new()?;
    /// assert_ne!(reactor.listen_on(listener, Listen::default())?.addr.port(), 0);
    /// # Ok::<(), finale::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::BadOption`], or [`Error::System`] with what the system said.
    pub fn listen_on(&mut self, listener: std::net::TcpListener, options: Listen) -> Result<Listener, Error> {
        let (id, addr) = self.add_listener(options, |net, place, options| {
            net.listen_on(place, listener, options).map_err(|error| system("listen", &error))
        })?;
        Ok(Listener { id, addr })
    }
}

impl Reactor {
    /// Takes over a listener on a Unix domain socket that was opened elsewhere, as [`listen_on`](Reactor::listen_on) does. Its file
    /// is not removed with it: that is for whoever has opened it.
    ///
    /// # Errors
    /// [`Error::BadOption`], or [`Error::System`] with what the system said.
    pub fn listen_on_unix(
        &mut self,
        listener: std::os::unix::net::UnixListener,
        options: Listen,
    ) -> Result<ListenerId, Error> {
        let (id, ()) = self.add_listener(options, |net, place, _| {
            net.listen_on_unix(place, listener).map_err(|error| system("listen", &error))
        })?;
        Ok(id)
    }
}

impl<N: Net> Reactor<N> {
    /// Opens a listener on an IP address with a port; port 0 lets the kernel choose. Its connections come out of
    /// [`next`](Reactor::next).
    ///
    /// # Errors
    /// [`Error::BadAddress`], [`Error::BadOption`], or [`Error::Listen`] with what the system said: most often that the
    /// address is in use.
    pub fn listen<T>(&mut self, addr: T, options: Listen) -> Result<Listener, Error>
    where
        T: TryInto<Target>,
        Error: From<T::Error>,
    {
        let addr = addr.try_into()?.addr()?;
        let (id, addr) = self.add_listener(options, |net, listener, options| {
            net.listen(listener, addr, options).map_err(|error| Error::Listen { addr, source: OsError::from(&error) })
        })?;
        Ok(Listener { id, addr })
    }

    /// Opens a listener on a Unix domain socket. Its connections live as all others do, with the same events; they have no addresses,
    /// TCP's own options mean nothing to them, and there is no reset: a peer takes `destroy()` for an end, unless
    /// something of its own was left unread. The file is removed with the listener.
    ///
    /// # Errors
    /// [`Error::BadOption`], or [`Error::ListenUnix`] with what the system said: that the address is in use, also of a file
    /// that a dead server has left, unless [`replace_stale`](Listen::replace_stale) is on.
    pub fn listen_unix(&mut self, addr: impl Into<UnixAddr>, options: Listen) -> Result<ListenerId, Error> {
        let addr = addr.into();
        let open = |net: &mut N, listener: u32, options: &Listen| net.listen_unix(listener, &addr, options);
        let (id, ()) = self.add_listener(options, |net, listener, options| {
            open(net, listener, options)
                .map_err(|error| Error::ListenUnix { addr: addr.clone(), source: OsError::from(&error) })
        })?;
        Ok(id)
    }

    fn add_listener<T>(
        &mut self,
        options: Listen,
        open: impl FnOnce(&mut N, u32, &Listen) -> Result<T, Error>,
    ) -> Result<(ListenerId, T), Error> {
        options.check()?;
        let id = self.listeners.new_id();
        let opened = open(&mut self.net, id.index(), &options)?;
        let settings = self.table.settings.intern(Settings { listener: Some(id), ..options.settings.clone() });
        self.listeners.entries.insert(Entry::new(id, settings, &options));
        Ok((id, opened))
    }

    /// Closes a listener. Its sockets live on; connections that wait to be accepted are reset by the kernel.
    /// [`stop_listener`](Reactor::stop_listener) serves them first, and has its sockets end.
    ///
    /// # Errors
    /// [`Error::Gone`] if it is closed already.
    pub fn close_listener(&mut self, id: ListenerId) -> Result<(), Error> {
        self.listeners.find_mut(id).ok_or(Error::Gone)?;
        if self.listeners.is_open(id.index()) {
            self.net.unlisten(id.index());
        }
        let entry = self.listeners.remove(id.index());
        self.table.settings.release(entry.settings);
        self.listeners.retry();
        Ok(())
    }

    /// Accepts nobody until [`resume_accepting`](Reactor::resume_accepting): clients wait in the backlog.
    ///
    /// # Errors
    /// [`Error::Gone`] if the listener is closed, or stopped.
    pub fn pause_accepting(&mut self, id: ListenerId) -> Result<(), Error> {
        self.listeners.accepting_mut(id).ok_or(Error::Gone)?.paused = true;
        Ok(())
    }

    /// Accepts again.
    ///
    /// # Errors
    /// [`Error::Gone`] if the listener is closed, or stopped.
    pub fn resume_accepting(&mut self, id: ListenerId) -> Result<(), Error> {
        self.listeners.accepting_mut(id).ok_or(Error::Gone)?.paused = false;
        self.listeners.go_on(id.index());
        Ok(())
    }

    /// Every open listener.
    pub(crate) fn listener_ids(&self) -> Vec<ListenerId> {
        self.listeners.ids().collect()
    }

    /// Whether it was told to stop.
    pub(crate) fn is_stopping(&self, id: ListenerId) -> bool {
        self.listeners.find(id).is_some_and(|entry| entry.stop.is_some())
    }

    /// Tries to accept one connection.
    pub(super) fn accept_from(&mut self, listener: u32) -> Option<Emit> {
        if self.listeners.entries[listener as usize].waits_in_vain() {
            self.close_stopped(listener);
            return None;
        }
        if self.listeners.entries[listener as usize].must_wait() {
            self.mute(listener);
            self.listeners.served(listener);
            return None;
        }
        let slot = self.table.vacant();
        match self.net.accept(listener, slot) {
            Ok(peer) if self.listeners.entries[listener as usize].drops() => {
                Some(self.drop_excess(listener, slot, peer))
            }
            Ok(peer) => Some(self.accepted(listener, peer)),
            Err(error) => match trouble(&error) {
                Trouble::Nobody => {
                    self.nobody_waits(listener);
                    None
                }
                Trouble::Skip if self.listeners.entries[listener as usize].skips < SKIPS => {
                    self.listeners.entries[listener as usize].skips += 1;
                    None
                }
                Trouble::Skip => self.rest(listener, &error),
                Trouble::Rest => self.rest(listener, &error),
            },
        }
    }

    fn accepted(&mut self, listener: u32, peer: Option<SocketAddr>) -> Emit {
        let entry = self.listeners.came(listener);
        entry.skips = 0;
        let settings = entry.settings;
        if entry.was_the_last() {
            self.close_stopped(listener);
        } else if entry.batch.accepted() && !entry.muted {
            self.listeners.served(listener);
        }
        self.turn.accepted();
        self.counts.accepted += 1;
        self.table.settings.hold(settings);
        let slot = self.table.insert(settings);
        if let Some(peer) = peer {
            self.table.set_peer(slot, peer);
        }
        // Its first bytes are often there already: read before registering, which may never be needed.
        let flags = &mut self.table.entry_mut(slot).flags;
        flags.set(Flags::READABLE | Flags::WRITABLE | Flags::IDLE | Flags::SOON, true);
        if let Some(ms) = self.table.settings_of(slot).deadline_ms {
            self.table.extra_mut(slot).deadline = Some(Deadline::In(ms));
        }
        self.emit(slot, Input::Accepted, Emits::Connection)
    }

    /// One client too many, who is not to wait.
    fn drop_excess(&mut self, listener: u32, slot: u32, peer: Option<SocketAddr>) -> Emit {
        self.net.reset(slot);
        self.turn.dropped();
        self.counts.dropped += 1;
        self.dropped = peer;
        if self.listeners.entries[listener as usize].was_the_last() {
            self.close_stopped(listener);
        }
        Emit::new(EmitKind::Dropped, listener)
    }

    /// Nothing can be accepted: whoever waits goes on waiting, and wakes nobody.
    fn rest(&mut self, listener: u32, error: &io::Error) -> Option<Emit> {
        self.mute(listener);
        self.counts.rests += 1;
        let until = self.tick_after(self.net.now()) + REST_TICKS;
        self.listeners.rest(listener, until);
        let entry = &mut self.listeners.entries[listener as usize];
        entry.skips = 0;
        if std::mem::replace(&mut entry.reported, true) {
            return None;
        }
        self.accept_error = OsError::from(error);
        Some(Emit::new(EmitKind::ListenerRests, listener))
    }

    /// No news from now on: it has to leave somebody waiting, who would keep every poll awake.
    pub(super) fn mute(&mut self, listener: u32) {
        let entry = &mut self.listeners.entries[listener as usize];
        if std::mem::replace(&mut entry.muted, true) {
            return;
        }
        if let Err(error) = self.net.set_accepting(listener, false) {
            log::warn!("a listener that leaves somebody waiting can't be silenced: {error}");
        }
    }

    /// Nobody waits: from now on news says who comes, and a trouble is over. One that is stopped has served everybody.
    fn nobody_waits(&mut self, listener: u32) {
        let entry = &mut self.listeners.entries[listener as usize];
        entry.batch.asked_in_vain();
        entry.reported = false;
        if entry.stop.is_some() {
            return self.close_stopped(listener);
        }
        if entry.muted {
            match self.net.set_accepting(listener, true) {
                Ok(()) => entry.muted = false,
                Err(error) => {
                    log::warn!("a listener can't be watched again, and rests on: {error}");
                    let until = self.tick_after(self.net.now()) + REST_TICKS;
                    return self.listeners.rest(listener, until);
                }
            }
        }
        self.listeners.served(listener);
    }
}
