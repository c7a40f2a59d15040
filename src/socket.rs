//! The program's view of one socket.
//!
//! Invariant: what changes a connection makes no system call and reads no clock. A call changes the
//! table and puts the socket into a list; the next call of `next` does the rest. So an answer and
//! its FIN leave in one segment, and the same code runs on the simulated network.

mod context;
mod layer;
mod passing;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use context::Context;

use crate::buffer::Buffer;
use crate::error::Error;
use crate::id::{ListenerId, SocketId, TimerId};
use crate::lifecycle::State;
use crate::options::{CloseMode, ConnectOptions, KeepAlive, Settings, millis};
use crate::table::Table;
use crate::table::entry::{Entry, Flags, NIL};
use crate::table::extra::{Deadline, Fill};
use crate::target::Target;

/// One socket of a reactor, borrowed: from [`Reactor::next`](crate::Reactor::next) with each of its
/// events, from [`Reactor::socket`](crate::Reactor::socket), or from another socket by
/// [`get`](Socket::get).
///
/// Everything that changes the connection (`write`, `end`, `destroy` ...) takes effect in the next
/// call of `next`. Events that belong to no socket, such as a timer, have a placeholder as their
/// `Socket`, which behaves like one that is closed.
///
/// ```
/// use finale::{Error, Socket};
/// fn answer(socket: &mut Socket<'_>) -> Result<(), Error> {
///     socket.write(b"HTTP/1.1 204 No Content\r\n\r\n")?;
///     socket.end(); // The answer and the FIN leave in one segment.
///     Ok(())
/// }
/// ```
#[doc(alias = "TcpStream")]
#[doc(alias = "net.Socket")]
#[doc(alias = "uv_tcp_t")]
pub struct Socket<'a> {
    context: Context<'a>,
    slot: u32,
}

impl std::fmt::Debug for Socket<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:?})", self.id(), self.state())
    }
}

/// The state of the write queue after a `write`.
///
/// ```
/// use finale::{Backpressure, Error, Socket};
/// fn copy(from: &mut Socket<'_>, bytes: &[u8]) -> Result<(), Error> {
///     if from.write(bytes)? == Backpressure::Full {
///         from.pause(); // Until `Event::Drain`.
///     }
///     Ok(())
/// }
/// ```
#[doc(alias = "writableNeedDrain")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backpressure {
    /// Below the high-water mark.
    Room,
    /// At or above the high-water mark: wait for [`Event::Drain`](crate::Event::Drain). Further
    /// writes are accepted up to the write limit.
    Full,
}

impl<'a> Socket<'a> {
    pub(crate) const fn new(context: Context<'a>, slot: u32) -> Self {
        Self { context, slot }
    }

    fn entry(&self) -> Option<&Entry> {
        (self.slot != NIL).then(|| self.context.table.entry(self.slot))
    }

    /// The entry, if the program can still change anything.
    fn living(&mut self) -> Option<&mut Entry> {
        let entry = (self.slot != NIL).then(|| self.context.table.entry_mut(self.slot));
        entry.filter(|entry| entry.is_living())
    }

    /// Sets a flag, and makes a step of the socket due in the next call of `next`.
    fn request(&mut self, flag: Flags) {
        if self.living().is_some() {
            self.context.table.wake_with(self.slot, flag);
        }
    }

    /// The socket's id. It finds nothing after the `next` call that follows the socket's `close`.
    #[must_use]
    pub fn id(&self) -> SocketId {
        if self.slot == NIL { SocketId::NONE } else { self.context.table.id(self.slot) }
    }

    /// Queues a copy of the bytes. They leave in the next call of `next`, together with everything
    /// else that is written until then. Bytes that are written before the connection is established
    /// leave when it is. An empty slice changes nothing.
    ///
    /// If the connection has broken (an [`Event::PeerEnded`](crate::Event::PeerEnded) with
    /// [`Reset`](crate::PeerEnd::Reset), or a write that failed while bytes are unread), nothing
    /// can leave any more. The bytes count as [unsent](crate::Ending::bytes_unsent), and the error
    /// follows the unread bytes. Each time as many were written as the high-water mark says, the
    /// result is [`Backpressure::Full`]. For its `drain` see [`pause`](Socket::pause).
    ///
    /// # Errors
    /// [`Error::WriteAfterEnd`] after [`end`](Socket::end). Otherwise [`Error::Gone`] after
    /// `destroy`, `error` or `close`, and [`Error::QueueFull`] at the write limit. Nothing is
    /// queued then, and the connection continues.
    #[doc(alias = "uv_write")]
    #[doc(alias = "send")]
    pub fn write(&mut self, bytes: &[u8]) -> Result<Backpressure, Error> {
        self.queue(bytes.len(), |table, slot| table.push(slot, bytes))
    }

    /// Queues an owned or shared buffer without copying it. Below 2 KiB it is copied, because that
    /// is cheaper. Otherwise it works like [`write`](Socket::write), and calls of both keep their
    /// order. The buffer is dropped when the kernel has its last byte or the connection is over.
    ///
    /// # Errors
    /// As `write`. A refused buffer is dropped: check [`queued_bytes`](Socket::queued_bytes) first
    /// if you can't lose it, or clone a shared one.
    pub fn write_owned(&mut self, buffer: impl Into<Buffer>) -> Result<Backpressure, Error> {
        let buffer = buffer.into();
        self.queue(buffer.len(), |table, slot| table.push_given(slot, buffer))
    }

    /// Queues copies of several pieces as one: all of them, or none. A frame of header, value and
    /// trailer is never cut by the [write limit](crate::ListenOptions::write_limit) in between.
    ///
    /// # Errors
    /// As [`write`](Socket::write), for all pieces together.
    #[doc(alias = "writev")]
    #[doc(alias = "cork")]
    pub fn write_parts(&mut self, parts: &[&[u8]]) -> Result<Backpressure, Error> {
        let count = parts.iter().map(|part| part.len()).sum();
        self.queue(count, |table, slot| parts.iter().fold(0, |_, part| table.push(slot, part)))
    }

    /// The same for owned or shared buffers, which are not copied (see
    /// [`write_owned`](Socket::write_owned)).
    ///
    /// # Errors
    /// As [`write`](Socket::write), for all pieces together.
    pub fn write_owned_parts<const N: usize>(&mut self, parts: [Buffer; N]) -> Result<Backpressure, Error> {
        let count = parts.iter().map(Buffer::len).sum();
        self.queue(count, |table, slot| parts.into_iter().fold(0, |_, part| table.push_given(slot, part)))
    }

    /// The common part of all writes. `push` queues the bytes and returns how many wait then.
    #[inline]
    fn queue(&mut self, count: usize, push: impl FnOnce(&mut Table, u32) -> usize) -> Result<Backpressure, Error> {
        let Some(entry) = self.entry() else { return Err(Error::Gone) };
        if entry.flags.has(Flags::END) {
            return Err(Error::WriteAfterEnd);
        }
        if !entry.is_living() {
            return Err(Error::Gone);
        }
        if entry.state == State::Broken {
            return Ok(self.queue_in_vain(count));
        }
        let settings = self.context.table.settings.get(entry.settings);
        let (high_water, limit_bytes) = (settings.high_water_bytes, settings.limit_bytes);
        let queued_bytes = self.context.table.queued_bytes(self.slot);
        if count == 0 {
            return Ok(if queued_bytes >= high_water { Backpressure::Full } else { Backpressure::Room });
        }
        if queued_bytes >= limit_bytes {
            return Err(Error::QueueFull { queued_bytes, limit_bytes });
        }
        let full = push(self.context.table, self.slot) >= high_water;
        // The first byte that waits starts the write clock.
        let write = if queued_bytes == 0 { Flags::WRITE } else { Flags::NONE };
        self.context.table.wake_with(self.slot, write | if full { Flags::FULL } else { Flags::NONE });
        Ok(if full { Backpressure::Full } else { Backpressure::Room })
    }

    /// Nothing can be sent any more, and the error follows what can still be read. A caller that
    /// writes until it is full must leave other sockets their turns, and must not do so without a
    /// pause: the drain comes as late as a repeated call.
    fn queue_in_vain(&mut self, count: usize) -> Backpressure {
        let high_water = self.high_water_mark().max(1) as u64;
        let extra = self.context.table.extra_mut(self.slot);
        let before = extra.void_bytes;
        extra.void_bytes = before.saturating_add(count as u64);
        if before / high_water == extra.void_bytes / high_water {
            return Backpressure::Room;
        }
        extra.retry_later();
        self.context.table.wake_with(self.slot, Flags::FULL);
        Backpressure::Full
    }

    /// Finishes our side: our FIN follows the last queued byte. Reading continues until the peer's
    /// FIN. Before the connection is established the call is deferred until it is. A second call
    /// changes nothing, and later writes are refused.
    #[doc(alias = "shutdown")]
    #[doc(alias = "uv_shutdown")]
    pub fn end(&mut self) {
        self.request(Flags::END);
    }

    /// Resets the connection (RST). Bytes that are queued or in flight are dropped, and the peer
    /// gets an error, so that it can't take a truncated stream for a complete one. The socket's
    /// next event is `close`, without an `error` (after `ready`, if this is `connect`). (Node's
    /// `destroy` sends a FIN.) A Unix domain socket has no reset: its peer reads an end, unless
    /// bytes of its own are unread.
    #[doc(alias = "abort")]
    #[doc(alias = "resetAndDestroy")]
    #[doc(alias = "uv_tcp_close_reset")]
    pub fn destroy(&mut self) {
        self.request(Flags::DESTROY);
    }

    /// Stops reading: no `data` and no `end` is delivered, and the closed window slows the peer
    /// down. Limits continue to count.
    ///
    /// The end of the peer is still noticed: [`peer_ended`](Socket::peer_ended) returns
    /// `true`, and the half-closed and ending timeouts start. If the connection dies with nothing
    /// unread, `error` is delivered at once. If bytes are unread,
    /// [`Event::PeerEnded`](crate::Event::PeerEnded) with [`Reset`](crate::PeerEnd::Reset) is
    /// delivered, and after `resume` the bytes and the error, unless a limit or the
    /// [grace](crate::StopOptions::grace) of a stop expires first. If the queue was full, `drain`
    /// is delivered too, so a program that resumes at `drain` needs no extra code for this case.
    /// Nor does one that first continues an answer: while the queue is filled again and again, and
    /// nothing is read, 16 `drain`s follow, 20 ms apart, and then `error` without the unread bytes.
    #[doc(alias = "uv_read_stop")]
    pub fn pause(&mut self) {
        self.stop_reading(Flags::PAUSED);
    }

    /// Continues reading after [`pause`](Socket::pause). A socket that is [held](Socket::hold), for
    /// example because the sink of its pipe is full, continues when it is
    /// [released](Socket::release).
    #[doc(alias = "uv_read_start")]
    pub fn resume(&mut self) {
        self.continue_reading(Flags::PAUSED);
    }

    /// Whether the socket is paused or [held](Socket::hold).
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.entry().is_some_and(|entry| entry.flags.has(Flags::STOPPED))
    }

    /// Whether [`discard`](Socket::discard) was called.
    #[must_use]
    pub fn is_discarding(&self) -> bool {
        self.entry().is_some_and(|entry| entry.flags.has(Flags::DISCARD))
    }

    /// Discards what is read from now on: no more `data`, but `end` is still delivered. It ends a
    /// [`pause`](Socket::pause) and a [`hold`](Socket::hold). After `end()` this is the lingering
    /// close: our side does not reset the answer over unread bytes, and the peer has the [close
    /// timeout](crate::ListenOptions::close_timeout) to finish, counted from our FIN, from this
    /// call after our FIN, or from the last byte that it took.
    pub fn discard(&mut self) {
        if let Some(entry) = self.living()
            && entry.flags.replace(Flags::FILL, false)
        {
            let extra = self.context.table.extra_mut(self.slot);
            (extra.fill, extra.spliced) = (None, None);
        }
        self.continue_reading(Flags::STOPPED);
        self.request(Flags::DISCARD);
    }

    /// Has the next bytes read into a buffer of the program's, without a copy: for a large body
    /// whose length is known. `buffer` may contain its first bytes already. When it has `len` bytes
    /// in all, or when the peer ends or the connection breaks before, [`Event::Filled`] is
    /// delivered, and [`take_filled`](Socket::take_filled) returns it; not if it is empty. Until
    /// then no `data` is delivered. Bytes after the body follow as `data`.
    ///
    /// A second call replaces the buffer and drops what the first has read: take a filled one
    /// first. After [`discard`](Socket::discard), `destroy` or a limit the buffer is dropped, and no
    /// event follows.
    ///
    /// Memory for `len` bytes is reserved at once. Check the length that a peer has announced before.
    ///
    /// The part of a body that arrives with its head is copied. A small [receive
    /// buffer](crate::Reactor::set_receive_buffer), for example 4 KiB, keeps that part small: it
    /// saves a quarter of a server's CPU time for bodies of 64 KiB (`bench/values/`).
    ///
    /// # Errors
    /// The buffer, if it has `len` bytes already, if there is no memory for them, if nothing more can
    /// be read, or in [`Event::Spliced`] before `forward`. No event follows, and an earlier buffer stays.
    ///
    /// [`Event::Filled`]: crate::Event::Filled
    /// [`Event::Spliced`]: crate::Event::Spliced
    #[doc(alias = "read_exact")]
    pub fn fill(&mut self, mut buffer: Vec<u8>, len: usize) -> Result<(), Vec<u8>> {
        let filled = buffer.len();
        let state = self.state();
        let is_readable = state.can_read() || !(state.is_connected() || state.is_final());
        if filled >= len || !is_readable || self.living().is_none() || self.is_discarding() || self.has_spliced() {
            return Err(buffer);
        }
        if buffer.try_reserve_exact(len - filled).is_err() {
            return Err(buffer);
        }
        self.context.table.extra_mut(self.slot).fill = Some(Box::new(Fill { buffer, filled, len }));
        // What a broken connection had read into the buffer may have been its last unread bytes.
        self.request(if state == State::Broken { Flags::FILL | Flags::HANGUP } else { Flags::FILL });
        Ok(())
    }

    /// Whether bytes are being read into a buffer of [`fill`](Socket::fill).
    #[must_use]
    pub fn is_filling(&self) -> bool {
        let has_buffer =
            |entry: &Entry| self.context.table.extras.get(entry.extra).is_some_and(|extra| extra.fill.is_some());
        self.entry().is_some_and(|entry| entry.flags.has(Flags::FILL) && has_buffer(entry))
    }

    /// The buffer of [`fill`](Socket::fill), with what was read, in [`Event::Filled`]. `None` at
    /// other times. If it is not taken, the next bytes are `data` again.
    ///
    /// [`Event::Filled`]: crate::Event::Filled
    pub fn take_filled(&mut self) -> Option<Vec<u8>> {
        self.entry()?;
        let extra = self.context.table.entry(self.slot).extra;
        if self.context.table.entry(self.slot).flags.has(Flags::FILL) {
            return None;
        }
        let mut fill = self.context.table.extras.get_mut(extra)?.fill.take()?;
        fill.buffer.truncate(fill.filled);
        Some(fill.buffer)
    }

    /// Sets the [idle timeout](crate::ListenOptions::idle_timeout), and restarts it at the next
    /// call of `next`. `None` switches it off. It changes no other limit.
    #[doc(alias = "setTimeout")]
    pub fn set_idle_timeout(&mut self, limit: impl Into<Option<Duration>>) {
        if self.living().is_some() {
            self.context.table.change_settings(self.slot, |settings| settings.idle_ms = limit.into().and_then(millis));
            self.restart_idle_timeout();
        }
    }

    /// Restarts the idle timeout at the next call of `next`.
    pub(crate) fn restart_idle_timeout(&mut self) {
        if self.living().is_some() {
            self.request(Flags::IDLE);
            self.context.table.file_later(self.slot);
        }
    }

    /// Sets the deadline: the socket fails after this time, counted from the next call of `next`,
    /// whatever moves, in each state up to `close`. It replaces the deadlines of the options
    /// ([`deadline`](crate::ListenOptions::deadline),
    /// [`total_deadline`](crate::ConnectOptions::total_deadline)), also before the connection is
    /// established. `None` removes them. To limit one request, set it at the first byte and remove
    /// it at the last.
    pub fn set_deadline(&mut self, limit: impl Into<Option<Duration>>) {
        if self.living().is_none() {
            return;
        }
        if !self.state().is_connected() {
            self.context.table.change_settings(self.slot, |settings| settings.deadline_ms = None);
        }
        self.context.table.extra_mut(self.slot).deadline = limit.into().and_then(millis).map(Deadline::In);
        self.context.table.wake(self.slot);
        self.context.table.file_later(self.slot);
    }

    /// Requests [`Event::Drain`](crate::Event::Drain) for when the queue has gone down to the
    /// low-water mark, even if it was never full. With a mark of 0, everything that was written
    /// until now is with our kernel then. Returns `false`, and no event follows, if the queue is
    /// not above the mark, after `end()`, or if the connection has failed. After `true` none
    /// follows if our side ends before, by a call or by itself, or if the connection fails.
    pub fn request_drain(&mut self) -> bool {
        let (queued_bytes, ended) = (self.queued_bytes(), self.end_called());
        let low = self.settings().map_or(0, |settings| settings.low_water_bytes);
        let waits = !ended && queued_bytes > low && self.living().is_some() && !self.state().is_final();
        if waits {
            self.context.table.entry_mut(self.slot).flags.set(Flags::FULL, true);
        }
        waits
    }

    /// Sets [`allow_half_open`](crate::ListenOptions::allow_half_open) for this socket. With
    /// `false` after the peer's `end`, our side ends in the next call of `next`.
    #[doc(alias = "allowHalfOpen")]
    pub fn set_allow_half_open(&mut self, allow: bool) {
        if self.living().is_some() {
            self.context.table.change_settings(self.slot, |settings| settings.half_open = allow);
            self.context.table.wake(self.slot);
        }
    }

    /// Sets the [low-water mark](crate::ListenOptions::low_water_mark) in bytes; here it may reach
    /// the high-water mark. If a full queue is not above it, `drain` follows.
    pub fn set_low_water_mark(&mut self, bytes: usize) {
        if self.living().is_some() {
            self.context.table.change_settings(self.slot, |settings| settings.low_water_bytes = bytes);
            self.context.table.wake(self.slot);
        }
    }

    /// Sets both marks of back-pressure, for a check that tries small ones.
    #[cfg(feature = "sim")]
    pub(crate) fn set_marks(&mut self, high: usize, low: usize) {
        self.context.table.change_settings(self.slot, |settings| {
            settings.high_water_bytes = settings.high_water_bytes.min(high);
            settings.low_water_bytes = settings.low_water_bytes.min(low);
        });
    }

    /// Sets how this socket is closed
    /// ([`ListenOptions::close_mode`](crate::ListenOptions::close_mode)). A socket that waits for
    /// the acknowledgement is handed off in the next call of `next`.
    pub fn set_close_mode(&mut self, mode: CloseMode) {
        if self.living().is_some() {
            self.context.table.change_settings(self.slot, |settings| settings.close = mode);
            if self.state() == State::Closing {
                self.request(Flags::HANGUP); // The wait may be over.
            }
        }
    }

    /// Sets TCP_NODELAY with one system call. In the options of the listener it costs nothing per
    /// connection.
    #[doc(alias = "setNoDelay")]
    #[doc(alias = "uv_tcp_nodelay")]
    #[doc(alias = "TCP_NODELAY")]
    pub fn set_nodelay(&mut self, on: bool) {
        if self.living().is_some() {
            self.context.table.extra_mut(self.slot).nodelay = Some(on);
            self.context.table.wake(self.slot);
        }
    }

    /// Sets TCP keep-alive, or switches it off, with a few system calls. In the options of the
    /// listener it costs nothing per connection.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for values that the kernel does not accept, [`Error::Gone`] after
    /// `destroy`, `error` or `close`.
    #[doc(alias = "setKeepAlive")]
    #[doc(alias = "uv_tcp_keepalive")]
    #[doc(alias = "SO_KEEPALIVE")]
    pub fn set_keep_alive(&mut self, times: impl Into<Option<KeepAlive>>) -> Result<(), Error> {
        let times = times.into();
        times.as_ref().map_or(Ok(()), KeepAlive::check)?;
        if self.living().is_none() {
            return Err(Error::Gone);
        }
        self.context.table.extra_mut(self.slot).keep_alive = Some(times);
        self.context.table.wake(self.slot);
        Ok(())
    }

    /// Our own address of the connection, with one call of getsockname(2). `None` before the
    /// connection is established and once it is closed, and for Unix domain sockets.
    #[doc(alias = "localAddress")]
    #[doc(alias = "getsockname")]
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        let is_connected = self.entry().is_some_and(|entry| entry.state.is_connected());
        is_connected.then(|| self.context.net.local_addr(self.slot)).flatten()
    }

    /// Whether something has arrived that was not delivered: bytes, the peer's end, or an error.
    /// Costs one poll(2), and takes nothing: the events follow as usual. `false` where nothing can
    /// be read, such as before the connection is established. Bytes in a buffer that is being
    /// [filled](Socket::fill) don't count: see [`is_filling`](Socket::is_filling). For a program that
    /// is about to write to a connection that was unused: see [`Pool`](crate::Pool).
    #[must_use]
    pub fn has_unread(&self) -> bool {
        self.state().can_read() && (self.has_spliced() || self.context.net.is_readable(self.slot))
    }

    /// The listener that accepted the connection; `None` for an outgoing one.
    #[must_use]
    pub fn listener(&self) -> Option<ListenerId> {
        self.entry().and_then(|entry| self.context.table.settings.get(entry.settings).listener)
    }

    /// Whether it was accepted although its listener had its maximum of connections
    /// ([`OverflowPolicy::Admit`](crate::OverflowPolicy::Admit)): write a short answer, then `end`
    /// and `discard`.
    #[must_use]
    pub fn is_overflow(&self) -> bool {
        self.entry().is_some_and(|entry| entry.flags.has(Flags::OVERFLOW))
    }

    /// The state of the lifecycle. `end` and `destroy` change it in the next call of `next`.
    #[must_use]
    pub fn state(&self) -> State {
        self.entry().map_or(State::Closed, |entry| entry.state)
    }

    /// The peer's address, from `connection` or the first connection attempt up to and in `close`.
    /// A Unix domain socket has none.
    #[doc(alias = "remoteAddress")]
    #[doc(alias = "getpeername")]
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.entry().and_then(|_| self.context.table.peer(self.slot))
    }

    /// Bytes delivered as `data` or discarded so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.entry().map_or(0, |entry| entry.bytes_read)
    }

    /// Bytes that our kernel has accepted so far.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.entry().map_or(0, |entry| entry.bytes_written)
    }

    /// Bytes that the program has written and our kernel has not accepted yet. 0 when the
    /// connection has broken.
    #[doc(alias = "writableLength")]
    #[doc(alias = "bufferSize")]
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.entry().map_or(0, |_| self.context.table.queued_bytes(self.slot))
    }

    /// Whether `end` was called.
    #[must_use]
    pub fn end_called(&self) -> bool {
        self.entry().is_some_and(|entry| entry.flags.has(Flags::END))
    }

    /// Its settings; `None` for a placeholder.
    pub(crate) fn settings(&self) -> Option<&Settings> {
        self.entry().map(|entry| self.context.table.settings.get(entry.settings))
    }

    /// Whether `destroy` was called.
    #[must_use]
    pub fn destroy_called(&self) -> bool {
        self.entry().is_some_and(|entry| entry.flags.has(Flags::DESTROY))
    }

    /// Whether the peer is known to have finished or reset, even if bytes before that are unread.
    /// Also known while paused.
    #[must_use]
    pub fn peer_ended(&self) -> bool {
        // Of an attempt that has failed it says nothing.
        let is_peers = |entry: &Entry| entry.flags.has(Flags::READ_CLOSED) && entry.state != State::Connecting;
        self.entry().is_some_and(is_peers)
    }

    /// Another socket of the same reactor, for example the other side of a proxy.
    pub fn get(&mut self, id: SocketId) -> Option<Socket<'_>> {
        self.context.socket(id)
    }

    /// Access to the reactor, for code that also runs between two events: connections, timers, the
    /// clock and other sockets. Listeners are opened and stopped by the reactor alone.
    pub fn context(&mut self) -> Context<'_> {
        Context { table: &mut *self.context.table, net: self.context.net }
    }

    /// Begins another connection, as [`Reactor::connect`](crate::Reactor::connect) does: a proxy
    /// connects to its backend in the handler of the client.
    ///
    /// # Errors
    /// As for `Reactor::connect`.
    pub fn connect<T>(&mut self, target: T, options: ConnectOptions) -> Result<SocketId, Error>
    where
        T: TryInto<Target>,
        Error: From<T::Error>,
    {
        self.context.connect(target, options)
    }

    /// Sets a timer, as [`Reactor::set_timer`](crate::Reactor::set_timer) does. It does not belong
    /// to this socket: store the [`SocketId`] with the [`TimerId`], and cancel the timer when the
    /// socket closes.
    pub fn set_timer(&mut self, after: Duration) -> TimerId {
        self.context.set_timer(after)
    }

    /// Cancels a timer. Returns whether it was still running; if so its event is not delivered.
    pub fn cancel_timer(&mut self, id: TimerId) -> bool {
        self.context.cancel_timer(id)
    }

    /// The time of the net's clock: on a [simulated network](crate#testing) the virtual time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.context.now()
    }
}
