//! Pipes from one socket to another, as in a proxy: half-closes, failures and back-pressure pass
//! through.
//!
//! Invariant: built on the public API, but for two calls of [`Pipes::ended`]: it reads the limits
//! of a sink, and switches the half-closed timeout of its source off. A pipe holds a socket only
//! while the queue of its sink is full, so at most the sink's high-water mark and one read wait
//! there.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::event::{Event, PeerEnd};
use crate::id::SocketId;
use crate::lifecycle::State;
use crate::socket::Backpressure;
use crate::socket_map::SocketMap;
use crate::stream::{Stream, Streams};

/// Pipes between the sockets of one reactor. Pass every event to [`handle`](Pipes::handle).
///
/// - Bytes are copied once, from the receive buffer into the write queue of the sink, as `write`
///   does. Long streams are moved in the kernel where the system can do that
///   ([`Socket::splice_next`](crate::Socket::splice_next)): after a read of 16 KiB or more the next one is an
///   [`Event::Spliced`] instead of an [`Event::Data`].
/// - While the queue of the sink is [full](Backpressure::Full), the source is [held](crate::Socket::hold).
///   A sink that is not connected yet works in the same way. A source that the program has paused
///   stays paused until the program resumes it.
/// - `end` is passed on after the last byte. Half-close passes through, and each direction works
///   independently.
/// - If one side fails or is [destroyed](crate::Socket::destroy), the other is destroyed, so that a
///   truncated stream does not look complete. (A Unix domain socket can't be cut in this way: see
///   [`allow_unix_sinks`](Pipes::allow_unix_sinks).) This happens at once if none of its bytes
///   wait, otherwise when our kernel has accepted them, and after 30 s at the latest, which
///   replaces a deadline of its own. A reset can overtake bytes that are still in our kernel. A
///   side to which an end was passed has its complete stream: it is reset only when it sends more,
///   or after these 30 s.
/// - If one side is dead while it is paused with unread bytes ([`PeerEnd::Reset`]), its sink has 30
///   s to take them, by a deadline of the dead side that replaces its own. Then both are destroyed.
///   (If the program has paused it, this ends when its sink has sent 16 full queues: see
///   [`Socket::pause`](crate::Socket::pause).)
/// - If a sink ends before its source (the program called `end()`, or
///   [`allow_half_open`](crate::ListenOptions::allow_half_open) is off), the source is destroyed
///   when it sends more, or when the sink closes, because its bytes have no destination. What waits
///   for the source is sent first. If an end was passed to it already, it has its close timeout to
///   finish.
/// - A side whose end was passed on waits for the other side of the pair, which may take its bytes
///   slowly. So its [half-closed timeout](crate::ListenOptions::half_closed_timeout) is off from then
///   on, if the other side has a close and a half-closed timeout: these bound the pair, and so does
///   the [ending timeout](crate::ListenOptions::ending_timeout). A side whose end is unread while it
///   is held keeps its own: the other side has that time to drain its queue to the low-water mark,
///   from the high-water mark and one read at most.
/// - `timeout` closes nothing: the program decides what it means. If it destroys a socket, the
///   other side follows. A side is also silent while the other one takes what our kernel has for it.
///   So give both an [idle timeout](crate::ListenOptions::idle_timeout), restart the one that expires
///   first ([`set_idle_timeout`](crate::Socket::set_idle_timeout)), and destroy when the other has
///   expired, too.
/// - [Stop](crate::Reactor::stop_listener) a listener with [`grace(None)`](crate::StopOptions::grace):
///   a side whose source is silent looks idle, and its stream would end before it is complete. The
///   [limit](crate::StopOptions::limit) destroys clients; what was for their other sides still has
///   the 30 s above. A program that must end sooner destroys those itself.
///
/// ```
/// # use finale::{ConnectOptions, Event, ListenOptions, Pipes, Reactor};
/// # fn proxy(front: &str, back: &str) -> Result<(), finale::Error> {
/// let mut reactor = Reactor::new()?;
/// reactor.listen(front, ListenOptions::default())?;
/// let mut pipes = Pipes::new();
/// while let Some((mut socket, event)) = reactor.next()? {
///     if pipes.handle(&mut socket, &event) {
///         continue;
///     }
///     if let Event::Connection = event {
///         let client = socket.id();
///         let backend = reactor.connect(back, ConnectOptions::default())?;
///         pipes.join(&mut reactor.context(), client, backend)?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[doc(alias = "copy_bidirectional")]
#[doc(alias = "pipeline")]
#[derive(Debug)]
pub struct Pipes {
    /// Where the bytes of a socket go.
    ways: SocketMap<SocketId>,
    /// Where the bytes of a socket come from.
    sources: SocketMap<SocketId>,
    /// Sockets whose other side is closed, and that are destroyed when their queue is empty.
    doomed: SocketMap<()>,
    /// Sockets that are dead, with bytes that are unread because they are paused or held: when
    /// their sinks must have taken them.
    unread: SocketMap<Instant>,
    allow_unix_sinks: bool,
    /// See [`BULK_BYTES`].
    bulk_bytes: usize,
}

/// A peer that reads nothing must not hold a socket whose other side is closed. The same time as
/// the default of [`close_timeout`](crate::ListenOptions::close_timeout), for the same reason.
const DOOMED: Duration = Duration::from_secs(30);

/// After a read of this many bytes the next one is moved in the kernel. Below, two more system
/// calls cost more than the copies.
const BULK_BYTES: usize = 16 * 1024;

impl Default for Pipes {
    fn default() -> Self {
        Self {
            ways: SocketMap::new(),
            sources: SocketMap::new(),
            doomed: SocketMap::new(),
            unread: SocketMap::new(),
            allow_unix_sinks: false,
            bulk_bytes: BULK_BYTES,
        }
    }
}

impl Pipes {
    /// No pipes yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves everything in the kernel, for a check on the simulated network.
    #[cfg(any(feature = "sim", test))]
    pub(crate) const fn always_splicing(mut self) -> Self {
        self.bulk_bytes = 0;
        self
    }

    /// Permits pipes into Unix domain sockets, for example to a backend on this machine. Default:
    /// not permitted.
    ///
    /// Linux has no reset for a Unix domain socket. If the source of such a pipe fails, the peer of
    /// the sink reads an end after the bytes that have arrived, as if the stream were complete
    /// (unless it has sent bytes that we have not read). Permit this only for protocols that
    /// recognize a truncated message by themselves, for example by a length in front of it. In
    /// HTTP/1.1 such a message has a `Content-Length` or is chunked; a response that ends with the
    /// connection has neither.
    ///
    /// ```
    /// # use finale::{ConnectOptions, Error, ListenOptions, Pipes, Reactor};
    /// let mut reactor = Reactor::new()?;
    /// let backend = reactor.connect("unix:/run/app.sock", ConnectOptions::default())?;
    /// # let client = backend;
    /// assert_eq!(Pipes::new().join(&mut reactor.context(), client, backend), Err(Error::UnixSink));
    /// let mut pipes = Pipes::new().allow_unix_sinks(true);
    /// pipes.join(&mut reactor.context(), client, backend)?;
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub const fn allow_unix_sinks(mut self, allow: bool) -> Self {
        self.allow_unix_sinks = allow;
        self
    }

    /// Pipes in both directions between two sockets, as in a proxy. A socket that the program has
    /// paused stays paused.
    ///
    /// # Errors
    /// [`Error::Gone`] if one of them has delivered `close`: no later event would end the other.
    /// [`Error::UnixSink`] if one of them is a Unix domain socket, unless
    /// [`allow_unix_sinks`](Pipes::allow_unix_sinks) is on.
    pub fn join(&mut self, context: &mut impl Streams, one: SocketId, other: SocketId) -> Result<(), Error> {
        self.check_sink(context, one)?;
        self.pipe(context, one, other)?;
        self.pipe(context, other, one)?;
        // Its end may have been passed on before there was a pair.
        self.catch_up(context, one);
        Ok(())
    }

    /// A pipe in one direction: `sink` gets the bytes and the end of `source`. An end that was
    /// delivered before this call is passed on at once, so write to the sink first what you have
    /// read yourself.
    ///
    /// It replaces a pipe that either of them has in this direction: a source that was held for
    /// another sink continues with this one, and one that has lost its sink stays held until
    /// [`release`](crate::Socket::release). If the queue of the sink is full already, the source is
    /// held until it has drained.
    ///
    /// # Errors
    /// [`Error::Gone`] if one of them has delivered `close`. [`Error::UnixSink`] if the sink is a
    /// Unix domain socket, unless [`allow_unix_sinks`](Pipes::allow_unix_sinks) is on.
    pub fn pipe(&mut self, context: &mut impl Streams, source: SocketId, sink: SocketId) -> Result<(), Error> {
        check_open(context, source)?;
        self.check_sink(context, sink)?;
        if let Some(old) = self.ways.insert(source, sink)
            && old != sink
        {
            self.sources.remove(old);
            if let Some(mut source) = context.stream(source) {
                source.release();
            }
        }
        if let Some(old) = self.sources.insert(sink, source)
            && old != source
        {
            self.ways.remove(old);
        }
        if context.stream(sink).is_some_and(|mut sink| is_full(&mut sink) && sink.request_drain())
            && let Some(mut source) = context.stream(source)
        {
            source.hold();
        }
        self.catch_up(context, source);
        Ok(())
    }

    /// Passes on what was delivered before there was a pipe.
    fn catch_up(&mut self, context: &mut impl Streams, source: SocketId) {
        let Some(mut source) = context.stream(source) else { return };
        match source.state() {
            State::Broken => self.wait_for_sink(&mut source),
            State::PeerFinished | State::LastFlush | State::Closing | State::Confirmed | State::HandedOff => {
                self.ended(&mut source);
            }
            State::Created
            | State::Resolving
            | State::Connecting
            | State::Open
            | State::Flushing
            | State::LocalFinished
            | State::Lingering
            | State::ResetByPeer
            | State::ResetByUs
            | State::TimedOut
            | State::NotConnected
            | State::Closed => {}
        }
    }

    /// Whether a pipe may end in this socket.
    fn check_sink(&self, context: &mut impl Streams, sink: SocketId) -> Result<(), Error> {
        check_open(context, sink)?;
        let is_unix = !self.allow_unix_sinks && context.stream(sink).is_some_and(|mut sink| sink.socket().is_unix());
        if is_unix { Err(Error::UnixSink) } else { Ok(()) }
    }

    /// Removes a socket from its pipes, and changes neither it nor the others. A source that was
    /// held because its sink was full stays held until [`release`](crate::Socket::release), and one whose
    /// other side is closed keeps the deadline that it got with that. One whose end was passed on
    /// has no half-closed timeout any more; its ending timeout stays.
    pub fn unpipe(&mut self, id: SocketId) {
        if let Some(sink) = self.ways.remove(id) {
            self.sources.remove(sink);
        }
        if let Some(source) = self.sources.remove(id) {
            self.ways.remove(source);
        }
        self.doomed.remove(id);
        self.unread.remove(id);
    }

    /// The socket that gets the bytes of this one.
    #[must_use]
    pub fn sink_of(&self, source: SocketId) -> Option<SocketId> {
        self.ways.get(source).copied()
    }

    /// The socket whose bytes this one gets.
    #[must_use]
    pub fn source_of(&self, sink: SocketId) -> Option<SocketId> {
        self.sources.get(sink).copied()
    }

    /// Handles an event. Returns `true` if the event was for a pipe alone: `data` (in memory or in
    /// a kernel pipe), `end` or `drain` of its sockets. Returns `false` for all others
    /// (`connection`, `ready`, `timeout`, `error`, `close` ...), which the program may have to
    /// handle too.
    pub fn handle(&mut self, socket: &mut impl Stream, event: &Event<'_>) -> bool {
        let id = socket.id();
        match event {
            Event::Data(bytes) => match self.sink_of(id) {
                Some(sink) => {
                    let written = socket.get(sink).map_or(Err(Error::Gone), |mut sink| sink.write(bytes));
                    self.passed_on(socket, sink, bytes.len(), &written);
                    true
                }
                None => self.to_nobody(socket),
            },
            Event::Spliced(count) => match self.sink_of(id) {
                Some(sink) => {
                    let written = socket.forward(sink);
                    self.passed_on(socket, sink, *count, &written);
                    true
                }
                None => self.to_nobody(socket),
            },
            Event::End => self.ended(socket),
            Event::Drain => self.drained(socket),
            Event::PeerEnded(PeerEnd::Reset) => {
                if self.sink_of(id).is_some() {
                    self.wait_for_sink(socket);
                }
                false
            }
            // The stream of a layer has failed, and its socket may need some time to close.
            Event::Error(_) if !socket.state().is_final() => {
                self.closed(socket, false);
                false
            }
            Event::Close(ending) => {
                self.closed(socket, ending.is_clean());
                false
            }
            Event::Lookup(_)
            | Event::Connect
            | Event::Ready
            | Event::Connection
            | Event::Filled
            | Event::Timeout
            | Event::PeerEnded(PeerEnd::Fin)
            | Event::Error(_)
            | Event::Timer(_)
            | Event::Woken
            | Event::AcceptFailed(..)
            | Event::Overflow(..)
            | Event::ListenerClosed(_) => false,
        }
    }

    /// This source is dead, with unread bytes. Its sink has the same time for them as for those of a
    /// closed connection. The deadline is not set on the sink, which may be unpiped from it.
    fn wait_for_sink(&mut self, source: &mut impl Stream) {
        self.unread.insert(source.id(), source.socket().now() + DOOMED);
        source.socket().set_deadline(DOOMED);
    }

    /// Bytes were written to the sink. The source is held while it is full.
    fn passed_on(
        &mut self,
        socket: &mut impl Stream,
        sink: SocketId,
        count: usize,
        written: &Result<Backpressure, Error>,
    ) {
        match written {
            Ok(Backpressure::Room) => {}
            Ok(Backpressure::Full) => socket.hold(),
            // It has failed or was destroyed. Its `close` decides about this side.
            Err(Error::Gone) if socket.get(sink).is_some() => {}
            // It has ended, and will close: what waits for this side is sent first.
            Err(Error::WriteAfterEnd) if socket.get(sink).is_some() => {
                if !self.to_nobody(socket) {
                    self.leave(socket);
                }
            }
            // The bytes would be lost without a trace.
            Err(_) => socket.destroy(),
        }
        if count >= self.bulk_bytes {
            socket.splice_next(sink);
        }
    }

    /// The end of a source is passed on. If the sink sends to the source in turn, it bounds the pair:
    /// when one of its limits ends it, the source is ended, too.
    fn ended(&mut self, socket: &mut impl Stream) -> bool {
        let id = socket.id();
        let sink = self.sink_of(id);
        let bounds_both = sink.and_then(|sink| socket.get(sink)).is_some_and(|mut sink| {
            sink.end();
            self.sink_of(sink.id()) == Some(id) && sink.socket().is_bounded_after_end()
        });
        if bounds_both && socket.state() == State::PeerFinished {
            socket.socket().switch_half_closed_timeout_off();
        }
        sink.is_some() || self.doomed.get(id).is_some()
    }

    /// Bytes of a doomed socket have no destination: its peer gets a reset, unless bytes for it
    /// still wait.
    fn to_nobody(&self, socket: &mut impl Stream) -> bool {
        let is_doomed = self.doomed.get(socket.id()).is_some();
        if is_doomed && socket.queued_bytes() == 0 {
            socket.destroy();
        }
        is_doomed
    }

    /// There is room again: the source continues.
    fn drained(&mut self, socket: &mut impl Stream) -> bool {
        if self.doomed.remove(socket.id()).is_some() {
            socket.destroy();
            return true;
        }
        let source = self.source_of(socket.id());
        if let Some(mut source) = source.and_then(|source| socket.get(source)) {
            source.release();
        }
        source.is_some()
    }

    /// One side is closed or has failed, and the others that depend on it follow.
    fn closed(&mut self, socket: &mut impl Stream, is_clean: bool) {
        let id = socket.id();
        let (sink, source) = (self.sink_of(id), self.source_of(id));
        // It was held up to its deadline. The last bytes of a source may fill its sink, too.
        let is_unread = socket.is_paused() && self.unread.get(id).is_some_and(|until| *until <= socket.socket().now());
        self.unpipe(id);
        if is_clean {
            // Its bytes were passed on. Its source has no sink any more.
            if let Some(mut source) = source.and_then(|source| socket.get(source)) {
                self.leave(&mut source);
            }
            return;
        }
        if let Some(mut sink) = sink.and_then(|sink| socket.get(sink)) {
            // A sink that has not taken what its source had left has used up its time.
            if is_unread { sink.destroy() } else { self.doom(&mut sink) }
        }
        if let Some(mut source) = source.filter(|_| source != sink).and_then(|source| socket.get(source)) {
            self.doom(&mut source);
        }
    }

    /// The bytes of this source have no destination any more. What waits for it is sent first, and
    /// its end if one was passed on.
    fn leave(&mut self, source: &mut impl Stream) {
        let state = source.state();
        if state.is_final() || (state.is_connected() && !state.can_read()) {
            return; // It has ended.
        }
        if source.end_called() {
            source.discard();
            self.doomed.insert(source.id(), ());
        } else if self.doomed.get(source.id()).is_none() {
            // Its sink has not ended before it has closed.
            self.doom(source);
        }
    }

    /// What waits is sent first, and then a reset.
    fn doom(&mut self, side: &mut impl Stream) {
        if side.state() == State::Broken {
            return side.discard(); // It is dead already, and reports its own error.
        }
        side.socket().set_low_water_mark(0);
        if side.request_drain() || side.end_called() {
            self.doomed.insert(side.id(), ());
            side.socket().set_deadline(DOOMED);
            // Our end after the peer's would make the truncated stream look complete.
            side.socket().set_allow_half_open(true);
            // The sink for which it was held is closed.
            side.release();
        } else {
            side.destroy();
        }
    }
}

/// Whether this socket has events to come.
fn check_open(context: &mut impl Streams, id: SocketId) -> Result<(), Error> {
    let is_open = context.stream(id).is_some_and(|socket| socket.state() != State::Closed);
    if is_open { Ok(()) } else { Err(Error::Gone) }
}

/// Whether the queue of this sink is full.
fn is_full(sink: &mut impl Stream) -> bool {
    sink.queued_bytes() >= sink.socket().high_water_mark()
}
