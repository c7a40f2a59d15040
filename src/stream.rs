//! What pipes, pools and other code that serves any connection need of a socket: an interface that
//! a layer on a socket can have too, such as TLS.
//!
//! Invariant: for [`Socket`] and [`Context`] each method is their own one of the same name.

use crate::buffer::Buffer;
use crate::error::Error;
use crate::id::SocketId;
use crate::lifecycle::State;
use crate::options::ConnectOptions;
use crate::socket::{Backpressure, Context, Socket};
use crate::target::Target;

/// One stream of bytes in each direction: a [`Socket`], or a layer on one, such as a TLS session.
/// A handler for it serves both, and so do [`Pipes`](crate::Pipes) and [`Pool`](crate::Pool).
///
/// The events are the same, too. A layer translates them: `ready` after its own handshake, `data`
/// with its own bytes, `end` for its own end.
///
/// ```
/// use finale::{Error, Event, Stream};
/// fn echo(stream: &mut impl Stream, event: Event<'_>) -> Result<(), Error> {
///     match event {
///         Event::Data(bytes) => drop(stream.write(bytes)?),
///         Event::End => stream.end(),
///         Event::Timeout => stream.destroy(),
///         _ => {}
///     }
///     Ok(())
/// }
/// ```
pub trait Stream {
    /// Another stream of the same reactor.
    type Other<'a>: Stream
    where
        Self: 'a;
    /// The reactor, as this layer sees it.
    type Context<'a>: Streams
    where
        Self: 'a;

    /// The socket below, for its limits, addresses and timers. What is written there is not the
    /// layer's.
    fn socket(&mut self) -> Socket<'_>;
    /// See [`Socket::get`].
    fn get(&mut self, id: SocketId) -> Option<Self::Other<'_>>;
    /// See [`Socket::context`].
    fn context(&mut self) -> Self::Context<'_>;
    /// See [`Socket::id`].
    fn id(&self) -> SocketId;
    /// The state of the stream: it is connected when the layer's handshake is done, and the peer
    /// has finished when `end` was delivered.
    fn state(&self) -> State;

    /// See [`Socket::write`].
    ///
    /// # Errors
    /// As `Socket::write`.
    fn write(&mut self, bytes: &[u8]) -> Result<Backpressure, Error> {
        self.write_parts(&[bytes])
    }
    /// See [`Socket::write_owned`]. A layer that changes the bytes copies them.
    ///
    /// # Errors
    /// As `Socket::write`.
    fn write_owned(&mut self, buffer: impl Into<Buffer>) -> Result<Backpressure, Error> {
        self.write(buffer.into().as_ref())
    }
    /// See [`Socket::write_parts`].
    ///
    /// # Errors
    /// As `Socket::write`.
    fn write_parts(&mut self, parts: &[&[u8]]) -> Result<Backpressure, Error>;
    /// See [`Socket::end`].
    fn end(&mut self);
    /// See [`Socket::end_called`].
    fn end_called(&self) -> bool;
    /// See [`Socket::peer_ended`].
    fn peer_ended(&self) -> bool;
    /// See [`Socket::destroy`].
    fn destroy(&mut self) {
        self.socket().destroy();
    }
    /// See [`Socket::destroy_called`].
    fn destroy_called(&self) -> bool;

    /// See [`Socket::pause`].
    fn pause(&mut self);
    /// See [`Socket::resume`].
    fn resume(&mut self);
    /// See [`Socket::hold`].
    fn hold(&mut self);
    /// See [`Socket::release`].
    fn release(&mut self);
    /// See [`Socket::discard`].
    fn discard(&mut self);
    /// See [`Socket::is_paused`].
    fn is_paused(&self) -> bool;
    /// See [`Socket::is_discarding`].
    fn is_discarding(&self) -> bool;

    /// See [`Socket::bytes_read`].
    fn bytes_read(&self) -> u64;
    /// See [`Socket::bytes_written`].
    fn bytes_written(&self) -> u64;
    /// See [`Socket::queued_bytes`].
    fn queued_bytes(&self) -> usize;
    /// See [`Socket::has_unread`]. `None` if bytes have arrived that may be no data of this layer: if
    /// they are, or an end, an event follows.
    fn has_unread(&self) -> Option<bool>;
    /// See [`Socket::request_drain`].
    fn request_drain(&mut self) -> bool;
    /// [`Socket::splice_next`], if the bytes can go to this sink without this process seeing them.
    fn splice_next(&mut self, sink: SocketId);
    /// [`Socket::forward`], if the bytes can go to this sink as they are. A layer that changes them
    /// refuses, also in front of the sink, and they are delivered as `data`.
    ///
    /// # Errors
    /// As `Socket::forward`, and [`Error::Gone`] for such a layer.
    fn forward(&mut self, sink: SocketId) -> Result<Backpressure, Error>;
}

/// The reactor, as a layer on its sockets sees it: a [`Context`], or what finds and opens the
/// sessions of a layer.
///
/// ```
/// use finale::{ConnectOptions, Error, Reactor, SocketId, Stream, Streams};
/// fn greet(streams: &mut impl Streams) -> Result<SocketId, Error> {
///     let id = streams.connect("127.0.0.1:7000".try_into()?, ConnectOptions::default())?;
///     if let Some(mut stream) = streams.stream(id) {
///         stream.write(b"hello")?;
///     }
///     Ok(id)
/// }
/// greet(&mut Reactor::new()?.context())?;
/// # Ok::<(), Error>(())
/// ```
pub trait Streams {
    /// A stream of this reactor.
    type Stream<'a>: Stream
    where
        Self: 'a;

    /// The context below, for timers and the time.
    fn context(&mut self) -> Context<'_>;
    /// See [`Context::socket`].
    fn stream(&mut self, id: SocketId) -> Option<Self::Stream<'_>>;
    /// See [`Context::connect`].
    ///
    /// # Errors
    /// As `Context::connect`.
    fn connect(&mut self, target: Target, options: ConnectOptions) -> Result<SocketId, Error>;
}

impl Streams for Context<'_> {
    type Stream<'a>
        = Socket<'a>
    where
        Self: 'a;

    fn context(&mut self) -> Context<'_> {
        Context { table: &mut *self.table, net: self.net }
    }

    fn stream(&mut self, id: SocketId) -> Option<Socket<'_>> {
        self.socket(id)
    }

    fn connect(&mut self, target: Target, options: ConnectOptions) -> Result<SocketId, Error> {
        Context::connect(self, target, options)
    }
}

impl Stream for Socket<'_> {
    type Other<'a>
        = Socket<'a>
    where
        Self: 'a;
    type Context<'a>
        = Context<'a>
    where
        Self: 'a;

    fn socket(&mut self) -> Socket<'_> {
        self.by_ref()
    }

    fn get(&mut self, id: SocketId) -> Option<Socket<'_>> {
        Socket::get(self, id)
    }

    fn context(&mut self) -> Context<'_> {
        Socket::context(self)
    }

    fn id(&self) -> SocketId {
        Socket::id(self)
    }

    fn state(&self) -> State {
        Socket::state(self)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<Backpressure, Error> {
        Socket::write(self, bytes)
    }

    fn write_owned(&mut self, buffer: impl Into<Buffer>) -> Result<Backpressure, Error> {
        Socket::write_owned(self, buffer)
    }

    fn write_parts(&mut self, parts: &[&[u8]]) -> Result<Backpressure, Error> {
        Socket::write_parts(self, parts)
    }

    fn end(&mut self) {
        Socket::end(self);
    }

    fn end_called(&self) -> bool {
        Socket::end_called(self)
    }

    fn peer_ended(&self) -> bool {
        Socket::peer_ended(self)
    }

    fn destroy_called(&self) -> bool {
        Socket::destroy_called(self)
    }

    fn pause(&mut self) {
        Socket::pause(self);
    }

    fn resume(&mut self) {
        Socket::resume(self);
    }

    fn hold(&mut self) {
        Socket::hold(self);
    }

    fn release(&mut self) {
        Socket::release(self);
    }

    fn discard(&mut self) {
        Socket::discard(self);
    }

    fn is_paused(&self) -> bool {
        Socket::is_paused(self)
    }

    fn is_discarding(&self) -> bool {
        Socket::is_discarding(self)
    }

    fn bytes_read(&self) -> u64 {
        Socket::bytes_read(self)
    }

    fn bytes_written(&self) -> u64 {
        Socket::bytes_written(self)
    }

    fn queued_bytes(&self) -> usize {
        Socket::queued_bytes(self)
    }

    fn has_unread(&self) -> Option<bool> {
        Some(Socket::has_unread(self))
    }

    fn request_drain(&mut self) -> bool {
        Socket::request_drain(self)
    }

    fn splice_next(&mut self, _sink: SocketId) {
        Socket::splice_next(self);
    }

    fn forward(&mut self, sink: SocketId) -> Result<Backpressure, Error> {
        Socket::forward(self, sink)
    }
}
