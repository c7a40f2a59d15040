//! The caller's view of one socket.
//!
//! Invariant: nothing here does a system call or looks at the clock. A call changes the table and queues the socket; the
//! next `next()` does the rest. That is what lets an answer and its FIN leave in one segment, and the same code run in
//! the simulated network.

use std::net::SocketAddr;
use std::time::Duration;

use crate::buffer::Buffer;
use crate::error::Error;
use crate::id::{ListenerId, SocketId};
use crate::lifecycle::{Emits, State};
use crate::options::{Close, KeepAlive, Settings, millis};
use crate::table::Table;
use crate::table::entry::{Entry, Flags, NIL};
use crate::table::extra::Deadline;

/// One socket of a reactor, borrowed: from [`Reactor::next`](crate::Reactor::next) with each of its events, from
/// [`Reactor::socket`](crate::Reactor::socket), or from another socket by [`get`](Socket::get).
///
/// Everything that changes the connection (`write`, `end`, `destroy` ...) takes effect when `next` is called again. The
/// events of no socket come with a view that stands for none: it answers like a socket that is gone.
pub struct Socket<'a> {
    table: &'a mut Table,
    slot: u32,
}

impl std::fmt::Debug for Socket<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:?})", self.id(), self.state())
    }
}

/// What `write` says of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Queue {
    /// Below the high-water mark.
    Room,
    /// At or above the high-water mark: better wait for [`Event::Drain`](crate::Event::Drain). More is accepted up to the
    /// write limit.
    Full,
}

impl<'a> Socket<'a> {
    pub(crate) const fn new(table: &'a mut Table, slot: u32) -> Self {
        Self { table, slot }
    }

    fn entry(&self) -> Option<&Entry> {
        (self.slot != NIL).then(|| self.table.entry(self.slot))
    }

    /// The entry, if anything can still be done to it. To the caller a socket that has failed lives until it is told so.
    fn living(&mut self) -> Option<&mut Entry> {
        let lives = |entry: &Entry| !entry.state.is_final() || entry.flags.is_pending(Emits::Error);
        let alive = self.entry().is_some_and(|entry| lives(entry) && !entry.flags.has(Flags::DESTROY));
        alive.then(|| self.table.entry_mut(self.slot))
    }

    /// Sets a flag and has the socket looked at by the next turn.
    fn ask(&mut self, flag: Flags) {
        if let Some(entry) = self.living() {
            entry.flags.set(flag, true);
            self.table.wake(self.slot);
        }
    }

    /// The socket's name. It finds nothing once `close` was told and `next` called again.
    #[must_use]
    pub fn id(&self) -> SocketId {
        if self.slot == NIL { SocketId::NONE } else { self.table.id(self.slot) }
    }

    /// Another socket of the same reactor: a proxy's other side.
    pub fn get(&mut self, id: SocketId) -> Option<Socket<'_>> {
        let slot = self.table.find(id)?;
        Some(Socket { table: self.table, slot })
    }

    /// The listener that accepted it; `None` for an outgoing connection.
    #[must_use]
    pub fn listener(&self) -> Option<ListenerId> {
        self.entry().and_then(|entry| self.table.settings.get(entry.settings).listener)
    }

    /// Where the socket is in its life. `end` and `destroy` show when `next` is called again.
    #[must_use]
    pub fn state(&self) -> State {
        self.entry().map_or(State::Closed, |entry| entry.state)
    }

    /// The other end: known from `connection` or the first connection attempt on, up to and in `close`.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.entry().and_then(|_| self.table.peer(self.slot))
    }

    /// Queues bytes; they are copied. They leave when `next` is called again, together with whatever else is written
    /// until then. Before the connection is established they wait for it. An empty slice changes nothing.
    ///
    /// # Errors
    /// [`Error::WriteAfterEnd`] after [`end`](Socket::end), whatever came then; otherwise [`Error::Gone`] after `destroy`,
    /// `error` or `close`, [`Error::QueueFull`] at the write limit. Nothing is queued then, and the connection goes on.
    pub fn write(&mut self, bytes: &[u8]) -> Result<Queue, Error> {
        self.queue(bytes.len(), |table, slot| table.push(slot, bytes))
    }

    /// Queues bytes that are given away or shared: without copying, unless they are so few that copying is cheaper (below
    /// 2 KiB). Otherwise it is like [`write`](Socket::write), and the order is that of the calls to both. Once its last byte
    /// is with the kernel, or the connection is over, the buffer is dropped.
    ///
    /// # Errors
    /// As `write`. A buffer that is refused is dropped: who can't afford that asks [`queued_bytes`](Socket::queued_bytes)
    /// first, or clones a shared one.
    pub fn write_owned(&mut self, buffer: impl Into<Buffer>) -> Result<Queue, Error> {
        let buffer = buffer.into();
        self.queue(buffer.len(), |table, slot| table.push_given(slot, buffer))
    }

    /// What every kind of write has in common. `push` queues the bytes and answers how many wait then.
    #[inline]
    fn queue(&mut self, count: usize, push: impl FnOnce(&mut Table, u32) -> usize) -> Result<Queue, Error> {
        if self.has_ended() {
            return Err(Error::WriteAfterEnd);
        }
        if self.living().is_none() {
            return Err(Error::Gone);
        }
        let queued_bytes = self.table.queued_bytes(self.slot);
        let (entry, settings, _) = self.table.parts(self.slot);
        let (high_water, limit_bytes) = (settings.high_water_bytes, settings.limit_bytes);
        if entry.state == State::Broken {
            // Nothing leaves any more: the error follows what can still be read.
            self.table.extra_mut(self.slot).void_bytes += count as u64;
            return Ok(Queue::Room);
        }
        if count == 0 {
            return Ok(if queued_bytes >= high_water { Queue::Full } else { Queue::Room });
        }
        if queued_bytes >= limit_bytes {
            return Err(Error::QueueFull { queued_bytes, limit_bytes });
        }
        let full = push(self.table, self.slot) >= high_water;
        let flags = &mut self.table.entry_mut(self.slot).flags;
        // The first byte that waits starts the write clock.
        flags.set(Flags::WRITE, queued_bytes == 0 || flags.has(Flags::WRITE));
        flags.set(Flags::FULL, full || flags.has(Flags::FULL));
        self.table.wake(self.slot);
        Ok(if full { Queue::Full } else { Queue::Room })
    }

    /// Finishes our side: our FIN follows the last byte queued. Reading goes on until the peer's FIN. A second call changes
    /// nothing; a write after it is refused.
    pub fn end(&mut self) {
        self.ask(Flags::END);
    }

    /// Resets the connection (RST): what is queued or in flight is dropped, and the peer sees an error, so that a cut stream
    /// can't pass for a whole one. `close` is the next event, without an `error`. (Node's `destroy` sends a FIN.)
    pub fn destroy(&mut self) {
        self.ask(Flags::DESTROY);
    }

    /// Stops reading: no `data`, no `end`, and the peer is slowed down by the window. That the peer has left is known all
    /// the same, see [`peer_has_ended`](Socket::peer_has_ended).
    pub fn pause(&mut self) {
        self.ask(Flags::PAUSED);
    }

    /// Reads on.
    pub fn resume(&mut self) {
        if let Some(entry) = self.living()
            && entry.flags.replace(Flags::PAUSED, false)
        {
            self.table.wake(self.slot);
        }
    }

    /// Whether `pause` is in force.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.entry().is_some_and(|entry| entry.flags.has(Flags::PAUSED))
    }

    /// Whether [`discard`](Socket::discard) is in force.
    #[must_use]
    pub fn is_discarding(&self) -> bool {
        self.entry().is_some_and(|entry| entry.flags.has(Flags::DISCARD))
    }

    /// From now on reads into the bin: no more `data`, `end` still comes. After `end()` this is the lingering close: the
    /// answer is safe from our own reset, and the peer has the linger time, from when it has taken our last byte, to finish.
    pub fn discard(&mut self) {
        self.resume();
        self.ask(Flags::DISCARD);
    }

    /// Tells `timeout` after a silence of this length, counted from now, once per silence. `None` switches it off.
    pub fn set_timeout(&mut self, idle: Option<Duration>) {
        if self.living().is_some() {
            self.table.change_settings(self.slot, |settings| settings.idle_ms = idle.and_then(millis));
            self.ask(Flags::IDLE);
        }
    }

    /// From the next call of `next` on the socket has so long to live, whatever moves: then it fails. `None` takes the deadline back,
    /// also the one that came with the [options](crate::Listen::deadline). The limit of one request: set it when the first byte
    /// has come, take it back when the last has. Before the connection is there it counts from then.
    pub fn set_deadline(&mut self, limit: Option<Duration>) {
        let limit_ms = limit.and_then(millis);
        if self.living().is_none() {
            return;
        }
        if !self.state().is_connected() {
            return self.table.change_settings(self.slot, |settings| settings.deadline_ms = limit_ms);
        }
        self.table.extra_mut(self.slot).deadline = limit_ms.map(Deadline::In);
        self.table.wake(self.slot);
    }

    /// Has [`Event::Drain`](crate::Event::Drain) told when the queue has gone down to the low-water mark, though it never was full:
    /// then everything written until now is with our kernel, but for so many bytes. Answers `false` if that is so already, or
    /// after `end()`, which says more when it has come to its end: no event comes for it then.
    pub fn ask_for_drain(&mut self) -> bool {
        let (queued_bytes, ended) = (self.queued_bytes(), self.has_ended());
        let low = self.settings().map_or(0, |settings| settings.low_water_bytes);
        let waits = !ended && queued_bytes > low && self.living().is_some();
        if waits {
            self.table.entry_mut(self.slot).flags.set(Flags::FULL, true);
        }
        waits
    }

    /// Whether this socket stays open for our half after the peer's end ([`allow_half_open`](crate::Listen::allow_half_open)), from now on.
    pub fn set_half_open(&mut self, allow: bool) {
        if self.living().is_some() {
            self.table.change_settings(self.slot, |settings| settings.half_open = allow);
            self.table.wake(self.slot);
        }
    }

    /// The [low-water mark](crate::Listen::low_water_mark) from now on.
    pub fn set_low_water_mark(&mut self, bytes: usize) {
        if self.living().is_some() {
            self.table.change_settings(self.slot, |settings| settings.low_water_bytes = bytes);
            self.table.wake(self.slot);
        }
    }

    /// How this socket is closed at the end.
    pub fn set_close(&mut self, close: Close) {
        if self.living().is_some() {
            self.table.change_settings(self.slot, |settings| settings.close = close);
            if self.state() == State::Closing {
                self.ask(Flags::HANGUP); // It may end the waiting.
            }
        }
    }

    /// TCP_NODELAY. Better set it with the listener's or the connection's options: there it costs nothing.
    pub fn set_nodelay(&mut self, on: bool) {
        if self.living().is_some() {
            self.table.extra_mut(self.slot).nodelay = Some(on);
            self.table.wake(self.slot);
        }
    }

    /// TCP keep-alive, or `None` to end it. Better set it with the options, likewise.
    ///
    /// # Errors
    /// [`Error::BadOption`] for times that the kernel can't have, [`Error::Gone`].
    pub fn set_keep_alive(&mut self, times: Option<KeepAlive>) -> Result<(), Error> {
        times.as_ref().map_or(Ok(()), KeepAlive::check)?;
        if self.living().is_none() {
            return Err(Error::Gone);
        }
        self.table.extra_mut(self.slot).keep_alive = Some(times);
        self.table.wake(self.slot);
        Ok(())
    }

    /// Bytes told as `data` or discarded so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.entry().map_or(0, |entry| entry.bytes_read)
    }

    /// Bytes that our kernel has taken so far.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.entry().map_or(0, |entry| entry.bytes_written)
    }

    /// Bytes written by the caller that our kernel has not taken yet.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.entry().map_or(0, |_| self.table.queued_bytes(self.slot))
    }

    /// Whether `end` was called.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.entry().is_some_and(|entry| entry.flags.has(Flags::END))
    }

    /// What was chosen for it; `None` for the socket that stands for none.
    pub(crate) fn settings(&self) -> Option<&Settings> {
        self.entry().map(|entry| self.table.settings.get(entry.settings))
    }

    pub(crate) fn allows_half_open(&self) -> bool {
        self.settings().is_some_and(|settings| settings.half_open)
    }

    /// Whether `destroy` was called.
    #[must_use]
    pub fn is_destroyed(&self) -> bool {
        self.entry().is_some_and(|entry| entry.flags.has(Flags::DESTROY))
    }

    /// Whether the peer is known to have finished or reset, read or not: a paused socket learns it at once.
    #[must_use]
    pub fn peer_has_ended(&self) -> bool {
        self.entry().is_some_and(|entry| entry.flags.has(Flags::READ_CLOSED))
    }
}
