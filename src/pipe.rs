//! From one socket to another: what a proxy does, with half-closes, failures and back-pressure carried through.
//!
//! Invariant: built on the public face alone. A socket is paused by a pipe only while the one that it feeds is full, so what waits is
//! never more than that one's high-water mark and a read.

use std::time::Duration;

use crate::error::Error;
use crate::event::{Ending, Event, PeerEnd};
use crate::id::SocketId;
use crate::lifecycle::State;
use crate::socket::{Queue, Socket};
use crate::socket_map::SocketMap;

/// Pipes between sockets of one reactor. It is shown every event, and does with those of its sockets what a pipe does.
///
/// - Bytes are copied from the receive buffer into the other's write queue: one copy, as `write` makes it. While that is
///   [full](Queue::Full), reading is paused; a socket that is not connected yet holds the other one back in the same way.
/// - An end is carried behind the last byte: half-close passes through, and each direction goes on by itself.
/// - A failure, or a [`destroy`](Socket::destroy), of one side destroys the other, so that a cut stream doesn't look whole: at once if nothing
///   of it waits, else as soon as our kernel has taken what had come before, or after 30 s (in place of a deadline that it had). Whether the peer
///   gets those bytes is its kernel's to say: a reset may overtake them there. One to whom an end was carried already has its whole stream: it is reset
///   when it says something to nobody.
/// - A sink that closes before its source has ended (by the program's `end()`, or without [`allow_half_open`](crate::Listen::allow_half_open))
///   takes the source along: nobody is left to take what that still says. Here, too, what is owed to the source goes first; if its end was
///   carried, it has its linger time to finish.
/// - A silence (`timeout`) is nobody's end: what it means is the program's to say. A socket that it destroys takes the
///   other with it.
///
/// ```
/// # use finale::{Connect, Event, Listen, Pipes, Reactor};
/// # fn proxy(front: &str, back: &str) -> Result<(), finale::Error> {
/// let mut reactor = Reactor::new()?;
/// reactor.listen(front, Listen::default())?;
/// let mut pipes = Pipes::new();
/// while let Some((mut socket, event)) = reactor.next()? {
///     if pipes.handle(&mut socket, &event) {
///         continue;
///     }
///     if let Event::Connection = event {
///         let client = socket.id();
///         let backend = reactor.connect(back, Connect::default())?;
///         pipes.join(client, backend);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Pipes {
    /// Where the bytes of a socket go.
    ways: SocketMap<SocketId>,
    /// Where the bytes of a socket come from.
    sources: SocketMap<SocketId>,
    /// Sockets whose other side is gone, and that go when their queue is empty.
    doomed: SocketMap<()>,
}

/// A peer that reads nothing must not hold a socket whose other side is gone: as long as the default of
/// [`linger`](crate::Listen::linger), which has the same reason.
const DOOMED: Duration = Duration::from_secs(30);

impl Pipes {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Both ways between two sockets: a proxy. Whoever is paused stays so, also one that waited for a sink that is replaced.
    pub fn join(&mut self, one: SocketId, other: SocketId) {
        self.pipe(one, other);
        self.pipe(other, one);
    }

    /// One way: what comes from `source` goes to `sink`, its end included. A pipe that either of them had in this direction is
    /// replaced.
    pub fn pipe(&mut self, source: SocketId, sink: SocketId) {
        if let Some(old) = self.ways.insert(source, sink) {
            self.sources.remove(old);
        }
        if let Some(old) = self.sources.insert(sink, source)
            && old != source
        {
            self.ways.remove(old);
        }
    }

    /// Takes a socket out of its pipes, and leaves it and the others as they are. Whoever was paused stays so.
    pub fn part(&mut self, id: SocketId) {
        if let Some(sink) = self.ways.remove(id) {
            self.sources.remove(sink);
        }
        if let Some(source) = self.sources.remove(id) {
            self.ways.remove(source);
        }
        self.doomed.remove(id);
    }

    /// Where the bytes of this socket go.
    #[must_use]
    pub fn sink_of(&self, source: SocketId) -> Option<SocketId> {
        self.ways.get(source).copied()
    }

    /// Where the bytes for this socket come from.
    #[must_use]
    pub fn source_of(&self, sink: SocketId) -> Option<SocketId> {
        self.sources.get(sink).copied()
    }

    /// Does what a pipe does with this event. Answers whether it was one of a pipe's: `data`, `end`, `drain` of its sockets;
    /// everything else (`connection`, `ready`, `timeout`, `error`, `close` ...) the program may want to know of, too, and gets
    /// the answer `false`.
    pub fn handle(&mut self, socket: &mut Socket<'_>, event: &Event<'_>) -> bool {
        let id = socket.id();
        match event {
            Event::Data(bytes) => match self.sink_of(id) {
                Some(sink) => {
                    pass_on(socket, sink, bytes);
                    true
                }
                None => self.to_nobody(socket),
            },
            Event::End => {
                let sink = self.sink_of(id);
                if let Some(mut sink) = sink.and_then(|sink| socket.get(sink)) {
                    sink.end();
                }
                sink.is_some() || self.doomed.get(id).is_some()
            }
            Event::Drain => self.drained(socket),
            // A connection that is dead, with bytes that nobody takes: they have as long as those of one that is over.
            Event::PeerEnded(PeerEnd::Reset) => {
                if let Some(mut sink) = self.sink_of(id).and_then(|sink| socket.get(sink)) {
                    sink.set_deadline(Some(DOOMED));
                }
                false
            }
            Event::Close(ending) => {
                self.closed(socket, ending);
                false
            }
            Event::Lookup(_)
            | Event::Connect
            | Event::Ready
            | Event::Connection
            | Event::Timeout
            | Event::PeerEnded(PeerEnd::Fin)
            | Event::Error(_)
            | Event::Timer(_)
            | Event::Woken
            | Event::ListenerRests(..)
            | Event::Dropped(..)
            | Event::ListenerClosed(_) => false,
        }
    }

    /// The other side of a doomed socket is gone: whoever speaks to it learns so, if everything that it is owed has left.
    fn to_nobody(&self, socket: &mut Socket<'_>) -> bool {
        let is_doomed = self.doomed.get(socket.id()).is_some();
        if is_doomed && socket.queued_bytes() == 0 {
            socket.destroy();
        }
        is_doomed
    }

    /// There is room again: whoever waited for it reads on.
    fn drained(&mut self, socket: &mut Socket<'_>) -> bool {
        if self.doomed.remove(socket.id()).is_some() {
            socket.destroy();
            return true;
        }
        let source = self.source_of(socket.id());
        if let Some(mut source) = source.and_then(|source| socket.get(source)) {
            source.resume();
        }
        source.is_some()
    }

    /// One side is over, and takes along who is left with nobody.
    fn closed(&mut self, socket: &mut Socket<'_>, ending: &Ending) {
        let id = socket.id();
        let (sink, source) = (self.sink_of(id), self.source_of(id));
        self.part(id);
        if ending.is_clean() {
            // What it had to say was carried. Whoever still gave to it is left.
            if let Some(mut source) = source.and_then(|source| socket.get(source)) {
                self.leave(&mut source);
            }
            return;
        }
        if let Some(mut sink) = sink.and_then(|sink| socket.get(sink)) {
            self.doom(&mut sink);
        }
        // One that only gave has nothing to wait for.
        if let Some(mut source) = source.filter(|_| source != sink).and_then(|source| socket.get(source)) {
            if source.state() == State::Broken {
                source.discard();
            } else {
                source.destroy();
            }
        }
    }

    /// Nobody takes what this one may still say; what is owed to it goes first, and its end, if one was carried.
    fn leave(&mut self, source: &mut Socket<'_>) {
        let state = source.state();
        if state.is_final() || (state.is_connected() && !state.can_read()) {
            return; // It has said everything.
        }
        if source.has_ended() {
            source.discard();
            self.doomed.insert(source.id(), ());
        } else {
            self.doom(source);
        }
    }

    /// What had come before goes first, and then a reset.
    fn doom(&mut self, sink: &mut Socket<'_>) {
        if sink.state() == State::Broken {
            return sink.discard(); // It is dead already, and reports its own error.
        }
        sink.set_low_water_mark(0);
        if sink.ask_for_drain() || (sink.has_ended() && sink.queued_bytes() > 0) {
            self.doomed.insert(sink.id(), ());
            sink.set_deadline(Some(DOOMED));
            // An end of its own after the peer's would make a whole of what was cut.
            sink.set_half_open(true);
            // Whoever it was held back for is gone.
            sink.resume();
        } else {
            sink.destroy();
        }
    }
}

/// Gives bytes to the sink, and stops reading while it is full.
fn pass_on(socket: &mut Socket<'_>, sink: SocketId, bytes: &[u8]) {
    let written = socket.get(sink).map(|mut sink| sink.write(bytes));
    match written {
        Some(Ok(Queue::Room)) => {}
        Some(Ok(Queue::Full)) => socket.pause(),
        // It has failed, or was destroyed, and its `close` will say what becomes of us.
        Some(Err(Error::Gone)) => {}
        // Nobody takes them any more: they would be lost, and nobody would know.
        Some(Err(_)) | None => socket.destroy(),
    }
}
