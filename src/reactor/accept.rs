//! Listeners: accepting who is known to wait, in small batches, and resting when the system has nothing left to accept with.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use slab::Slab;

use super::tell::{Told, What};
use super::turn::ACCEPTS_PER_POLL;
use super::{Reactor, system};
use crate::error::{Error, OsError};
use crate::id::ListenerId;
use crate::lifecycle::{Input, Tell};
use crate::net::Net;
use crate::options::{Listen, Settings};
use crate::table::entry::Flags;
use crate::target::Target;

/// How long a listener rests when accepting fails for want of resources, unless a descriptor of ours is freed before: a
/// tenth of a second is no spin, and short beside the second after which a client repeats its SYN.
const REST_TICKS: u64 = 100;

/// Connections that fail in accept(2) one after the other: one that says no to every one, as a security module may, must
/// not keep the loop awake.
const SKIPS: u32 = 64;

/// Connections accepted one at a time after somebody was asked for in vain: the vain call costs a sixtieth of itself.
const SINGLES: u32 = 64;

/// A listener: what [`Reactor::listen`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Its name.
    pub id: ListenerId,
    /// The address it is bound to, with the port that the kernel chose for port 0.
    pub addr: SocketAddr,
}

struct Entry {
    generation: u32,
    settings: u32,
    /// In the queue of those that may have somebody waiting.
    queued: bool,
    batch: Batch,
    /// Resting until this tick.
    rest: Option<u64>,
    /// Accepting has failed, which was told, and nobody was found missing since. It brings no news, and is asked until then.
    in_trouble: bool,
    /// Connections skipped in a row.
    skips: u32,
}

/// How many are accepted for one piece of news. To ask whether one more waits costs more than the poll that would tell, so
/// it is one as a rule, and more where asking has paid.
struct Batch {
    size: usize,
    left: usize,
    /// News for which one is accepted, before more are tried again.
    singles: u32,
}

impl Batch {
    const fn new() -> Self {
        Self { size: 1, left: 0, singles: 0 }
    }

    /// One was accepted. Whether that was the last of the batch.
    const fn accepted(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        if self.left > 0 {
            return false;
        }
        if self.singles > 0 {
            self.singles -= 1;
        } else if self.size < ACCEPTS_PER_POLL {
            self.size *= 2;
        }
        true
    }

    /// Nobody waited.
    const fn asked_in_vain(&mut self) {
        self.size = 1;
        self.singles = SINGLES;
    }
}

pub(super) struct Listeners {
    entries: Slab<Entry>,
    queue: VecDeque<u32>,
    resting: usize,
    generation: u32,
}

impl Listeners {
    pub(super) const fn new() -> Self {
        Self { entries: Slab::new(), queue: VecDeque::new(), resting: 0, generation: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Somebody may be waiting at this listener.
    pub(super) fn ready(&mut self, listener: u32) {
        if let Some(entry) = self.entries.get_mut(listener as usize)
            && entry.rest.is_none()
            && !std::mem::replace(&mut entry.queued, true)
        {
            entry.batch.left = entry.batch.size;
            self.queue.push_back(listener);
        }
    }

    /// The next one to accept from: each in turn, one connection at a time. It stays in the queue until it is
    /// [`served`](Self::served).
    #[inline]
    pub(super) fn next_ready(&mut self) -> Option<u32> {
        if self.queue.len() > 1 {
            self.queue.rotate_left(1);
        }
        self.queue.back().copied()
    }

    /// Nobody waits at the listener that [`next_ready`](Self::next_ready) has named last, or nobody can be served.
    fn served(&mut self, listener: u32) {
        let last = self.queue.pop_back();
        debug_assert_eq!(last, Some(listener), "it was the last to be asked");
        self.entries[listener as usize].queued = false;
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        if self.resting == 0 {
            return None;
        }
        self.entries.iter().filter_map(|(_, entry)| entry.rest).min()
    }

    /// Wakes those whose rest is over.
    pub(super) fn rested(&mut self, now: u64) {
        if self.resting == 0 {
            return;
        }
        let rested = |entry: &Entry| entry.rest.is_some_and(|until| until <= now);
        let over: Vec<_> = self.entries.iter().filter(|(_, e)| rested(e)).map(|(index, _)| index).collect();
        for index in over {
            self.entries[index].rest = None;
            self.resting -= 1;
            self.ready(index as u32);
        }
    }

    /// A descriptor was freed: all try again at once.
    pub(super) fn retry(&mut self) {
        if self.resting > 0 {
            self.rested(u64::MAX);
        }
    }

    fn rest(&mut self, listener: u32, until: u64) {
        self.served(listener);
        if let Some(entry) = self.entries.get_mut(listener as usize)
            && entry.rest.replace(until).is_none()
        {
            self.resting += 1;
        }
    }

    /// The name of the listener in this place.
    pub(super) fn id(&self, listener: u32) -> ListenerId {
        ListenerId::new(listener, self.entries[listener as usize].generation)
    }

    fn find(&self, id: ListenerId) -> Option<&Entry> {
        self.entries.get(id.index() as usize).filter(|entry| entry.generation == id.generation())
    }
}

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
        self.add_listener(options, |net, place, options| {
            net.listen_on(place, listener, options).map_err(|error| system("listen", &error))
        })
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
        self.add_listener(options, |net, listener, options| {
            net.listen(listener, addr, options).map_err(|error| Error::Listen { addr, source: OsError::from(&error) })
        })
    }

    fn add_listener(
        &mut self,
        options: Listen,
        open: impl FnOnce(&mut N, u32, &Listen) -> Result<SocketAddr, Error>,
    ) -> Result<Listener, Error> {
        options.check()?;
        self.listeners.generation += 1;
        let generation = self.listeners.generation;
        let place = self.listeners.entries.vacant_entry();
        let id = ListenerId::new(place.key() as u32, generation);
        let addr = open(&mut self.net, id.index(), &options)?;
        let settings = self.table.settings.intern(Settings { listener: Some(id), ..options.settings });
        place.insert(Entry {
            generation,
            settings,
            queued: false,
            batch: Batch::new(),
            rest: None,
            in_trouble: false,
            skips: 0,
        });
        Ok(Listener { id, addr })
    }

    /// Closes a listener. Its sockets live on; connections that wait to be accepted are reset by the kernel.
    ///
    /// # Errors
    /// [`Error::Gone`] if it is closed already.
    pub fn close_listener(&mut self, id: ListenerId) -> Result<(), Error> {
        self.listeners.find(id).ok_or(Error::Gone)?;
        let entry = self.listeners.entries.remove(id.index() as usize);
        self.listeners.queue.retain(|&listener| listener != id.index());
        self.listeners.resting -= usize::from(entry.rest.is_some());
        self.net.unlisten(id.index());
        self.table.settings.release(entry.settings);
        self.freed();
        Ok(())
    }

    /// Every open listener.
    pub(crate) fn listener_ids(&self) -> Vec<ListenerId> {
        let entries = self.listeners.entries.iter();
        entries.map(|(index, entry)| ListenerId::new(index as u32, entry.generation)).collect()
    }

    /// Tries to accept one connection.
    pub(super) fn accept_from(&mut self, listener: u32) -> Option<Told> {
        let slot = self.table.vacant();
        match self.net.accept(listener, slot) {
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

    fn accepted(&mut self, listener: u32, peer: SocketAddr) -> Told {
        let entry = &mut self.listeners.entries[listener as usize];
        entry.skips = 0;
        let settings = entry.settings;
        if entry.batch.accepted() && !entry.in_trouble {
            self.listeners.served(listener);
        }
        self.turn.accepted();
        self.table.settings.hold(settings);
        let slot = self.table.insert(settings);
        self.table.set_peer(slot, peer);
        // Its first bytes are often there already: read before registering, which may never be needed.
        let flags = &mut self.table.entry_mut(slot).flags;
        flags.set(Flags::READABLE | Flags::WRITABLE | Flags::TOUCHED, true);
        self.apply(slot, Input::Accepted);
        self.table.push_ready(slot);
        self.table.entry_mut(slot).flags.paid(Tell::Connection);
        self.tell(slot, What::Tell(Tell::Connection))
    }

    /// Nothing can be accepted: whoever waits goes on waiting, and wakes nobody.
    fn rest(&mut self, listener: u32, error: &io::Error) -> Option<Told> {
        self.listeners.rest(listener, self.turn.now + REST_TICKS);
        let entry = &mut self.listeners.entries[listener as usize];
        entry.skips = 0;
        if std::mem::replace(&mut entry.in_trouble, true) {
            return None;
        }
        if let Err(error) = self.net.set_accepting(listener, false) {
            log::warn!("a listener that rests can't be silenced: {error}");
        }
        Some(Told::of_none(What::Rests(listener, OsError::from(error))))
    }

    /// Nobody waits: from now on news says who comes, and a trouble is over.
    fn nobody_waits(&mut self, listener: u32) {
        let entry = &mut self.listeners.entries[listener as usize];
        entry.batch.asked_in_vain();
        if entry.in_trouble {
            match self.net.set_accepting(listener, true) {
                Ok(()) => entry.in_trouble = false,
                Err(error) => {
                    log::warn!("a listener can't be watched again, and rests on: {error}");
                    self.listeners.rest(listener, self.turn.now + REST_TICKS);
                    return;
                }
            }
        }
        self.listeners.served(listener);
    }
}
