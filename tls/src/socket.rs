//! The program's view of one stream, and of the reactor with its sessions.
//!
//! Invariant: for a socket without a session each method is the socket's own.

use finale::lifecycle::State;
use finale::{Backpressure, Buffer, ConnectOptions, Context, Error, Socket, SocketId, Stream, Streams, Target};
use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, HandshakeKind, ProtocolVersion};

use crate::failure::TlsFailure;
use crate::session::Session;
use crate::tls::Core;

/// A socket with TLS, or a socket without. It has the methods of [`Stream`].
///
/// ```
/// use finale::{Event, Stream};
/// use finale_tls::TlsSocket;
/// fn on_event(socket: &mut TlsSocket<'_>, event: Event<'_>) {
///     match event {
///         Event::Ready => println!("{:?}", socket.handshake().and_then(|handshake| handshake.alpn())),
///         Event::Data(bytes) => println!("{} bytes of plaintext", bytes.len()),
///         Event::End => socket.end(),
///         _ => {}
///     }
/// }
/// ```
#[derive(Debug)]
pub struct TlsSocket<'a> {
    socket: Socket<'a>,
    core: &'a mut Core,
}

impl<'a> TlsSocket<'a> {
    pub(crate) const fn new(socket: Socket<'a>, core: &'a mut Core) -> Self {
        Self { socket, core }
    }

    fn session(&self) -> Option<&Session> {
        self.core.sessions.get(self.socket.id()).map(|session| &**session)
    }

    /// Whether it has a TLS session, complete or not.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.session().is_some()
    }

    /// What was negotiated, from `ready` on. `None` without TLS.
    #[must_use]
    pub fn handshake(&self) -> Option<Handshake<'_>> {
        self.session().filter(|session| session.is_ready()).map(|session| Handshake { session })
    }

    /// Why the stream failed. `None` if it has not, and without TLS.
    #[must_use]
    pub fn failure(&self) -> Option<&TlsFailure> {
        self.session()?.failure.as_ref()
    }

    /// Whether bytes go from here to this sink as they are: they have to be encrypted if either has a
    /// session.
    fn is_plain_to(&self, sink: SocketId) -> bool {
        !self.is_tls() && self.core.sessions.get(sink).is_none()
    }

    /// Calls the session, or the socket if there is none.
    fn with<T>(
        &mut self,
        session: impl FnOnce(&mut Session, &mut Socket<'a>) -> T,
        socket: impl FnOnce(&mut Socket<'a>) -> T,
    ) -> T {
        match self.core.sessions.get_mut(self.socket.id()) {
            Some(found) => session(found, &mut self.socket),
            None => socket(&mut self.socket),
        }
    }

    /// What waits can be delivered now.
    fn deliver(&mut self) {
        self.core.deliver_soon(&mut self.socket);
    }
}

/// What was negotiated in a handshake.
///
/// ```
/// use finale_tls::TlsSocket;
/// fn log(socket: &TlsSocket<'_>) {
///     let Some(handshake) = socket.handshake() else { return };
///     let again = if handshake.is_resumed() { ", resumed" } else { "" };
///     println!("{:?}, {:?}{again}", handshake.version(), handshake.server_name());
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Handshake<'a> {
    session: &'a Session,
}

impl<'a> Handshake<'a> {
    /// The application protocol (RFC 7301), if both sides have offered it.
    #[must_use]
    pub fn alpn(self) -> Option<&'a [u8]> {
        self.session.connection.common().alpn_protocol()
    }

    /// The server name that the client asked for (SNI, RFC 6066 section 3). `None` for a client.
    #[must_use]
    pub fn server_name(self) -> Option<&'a str> {
        self.session.server_name.as_deref()
    }

    /// The peer's certificate and those above it.
    #[must_use]
    pub fn peer_certificates(self) -> Option<&'a [CertificateDer<'static>]> {
        self.session.connection.common().peer_certificates()
    }

    /// Whether an earlier session was resumed: no certificate was sent.
    #[must_use]
    pub fn is_resumed(self) -> bool {
        self.session.connection.common().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The version of TLS.
    #[must_use]
    pub fn version(self) -> Option<ProtocolVersion> {
        self.session.connection.common().protocol_version()
    }

    /// The cipher suite.
    #[must_use]
    pub fn cipher_suite(self) -> Option<CipherSuite> {
        self.session.connection.common().negotiated_cipher_suite().map(|suite| suite.suite())
    }
}

impl std::fmt::Debug for Handshake<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake")
            .field("version", &self.version())
            .field("cipher_suite", &self.cipher_suite())
            .field("alpn", &self.alpn())
            .field("server_name", &self.server_name())
            .field("is_resumed", &self.is_resumed())
            .finish_non_exhaustive()
    }
}

impl Stream for TlsSocket<'_> {
    type Other<'b>
        = TlsSocket<'b>
    where
        Self: 'b;
    type Context<'b>
        = TlsContext<'b>
    where
        Self: 'b;

    fn socket(&mut self) -> Socket<'_> {
        self.socket.by_ref()
    }

    fn get(&mut self, id: SocketId) -> Option<TlsSocket<'_>> {
        Some(TlsSocket { socket: self.socket.get(id)?, core: &mut *self.core })
    }

    fn context(&mut self) -> TlsContext<'_> {
        TlsContext { context: self.socket.context(), core: &mut *self.core }
    }

    fn id(&self) -> SocketId {
        self.socket.id()
    }

    fn state(&self) -> State {
        let tcp = self.socket.state();
        self.session().map_or(tcp, |session| session.state(tcp))
    }

    fn write_owned(&mut self, buffer: impl Into<Buffer>) -> Result<Backpressure, Error> {
        if self.is_tls() { self.write(buffer.into().as_ref()) } else { self.socket.write_owned(buffer) }
    }

    fn write_parts(&mut self, parts: &[&[u8]]) -> Result<Backpressure, Error> {
        match self.core.sessions.get_mut(self.socket.id()) {
            Some(session) => session.write(&mut self.socket, parts, &mut self.core.out),
            None => self.socket.write_parts(parts),
        }
    }

    fn end(&mut self) {
        match self.core.sessions.get_mut(self.socket.id()) {
            Some(session) => session.end(&mut self.socket, &mut self.core.out),
            None => self.socket.end(),
        }
    }

    fn end_called(&self) -> bool {
        self.session().map_or_else(|| self.socket.end_called(), |session| session.end_called)
    }

    fn peer_ended(&self) -> bool {
        self.socket.peer_ended() || self.session().is_some_and(Session::peer_closed)
    }

    fn destroy(&mut self) {
        self.with(|session, _| session.destroyed(), |_| {});
        self.socket.destroy();
    }

    fn destroy_called(&self) -> bool {
        self.socket.destroy_called() || self.session().is_some_and(Session::is_destroyed)
    }

    fn pause(&mut self) {
        self.with(|session, socket| session.stop_reading(socket, false), Socket::pause);
    }

    fn resume(&mut self) {
        self.with(|session, socket| session.continue_reading(socket, false), Socket::resume);
        self.deliver();
    }

    fn hold(&mut self) {
        self.with(|session, socket| session.stop_reading(socket, true), Socket::hold);
    }

    fn release(&mut self) {
        self.with(|session, socket| session.continue_reading(socket, true), Socket::release);
        self.deliver();
    }

    fn discard(&mut self) {
        self.with(Session::discard, Socket::discard);
        self.deliver();
    }

    fn is_paused(&self) -> bool {
        self.session().map_or_else(|| self.socket.is_paused(), Session::is_paused)
    }

    fn is_discarding(&self) -> bool {
        self.session().map_or_else(|| self.socket.is_discarding(), Session::is_discarding)
    }

    fn bytes_read(&self) -> u64 {
        self.session().map_or_else(|| self.socket.bytes_read(), Session::bytes_read)
    }

    fn bytes_written(&self) -> u64 {
        self.session().map_or_else(|| self.socket.bytes_written(), |session| session.bytes_written(&self.socket))
    }

    fn queued_bytes(&self) -> usize {
        self.session().map_or_else(|| self.socket.queued_bytes(), |session| session.queued_bytes(&self.socket))
    }

    fn request_drain(&mut self) -> bool {
        self.with(Session::request_drain, Socket::request_drain)
    }

    fn has_unread(&self) -> Option<bool> {
        match self.session() {
            None => Some(self.socket.has_unread()),
            Some(session) if session.has_unread() => Some(true),
            // It may be a ticket, or a part of a record.
            Some(_) => (!self.socket.has_unread()).then_some(false),
        }
    }

    fn splice_next(&mut self, sink: SocketId) {
        if self.is_plain_to(sink) {
            self.socket.splice_next();
        }
    }

    /// The request may have been for another sink.
    fn forward(&mut self, sink: SocketId) -> Result<Backpressure, Error> {
        if self.is_plain_to(sink) { self.socket.forward(sink) } else { Err(Error::Gone) }
    }
}

/// A reactor with its sessions, for [`Pool`](finale::Pool) and [`Pipes`](finale::Pipes): from
/// [`Tls::context`](crate::Tls::context).
///
/// ```
/// use finale::{Error, Pipes, Reactor, SocketId};
/// use finale_tls::Tls;
/// fn join(reactor: &mut Reactor, tls: &mut Tls, pipes: &mut Pipes, one: SocketId, other: SocketId) -> Result<(), Error> {
///     pipes.join(&mut tls.context(reactor.context()), one, other)
/// }
/// ```
#[derive(Debug)]
pub struct TlsContext<'a> {
    context: Context<'a>,
    core: &'a mut Core,
}

impl<'a> TlsContext<'a> {
    pub(crate) const fn new(context: Context<'a>, core: &'a mut Core) -> Self {
        Self { context, core }
    }
}

impl Streams for TlsContext<'_> {
    type Stream<'b>
        = TlsSocket<'b>
    where
        Self: 'b;

    fn context(&mut self) -> Context<'_> {
        Streams::context(&mut self.context)
    }

    fn stream(&mut self, id: SocketId) -> Option<TlsSocket<'_>> {
        Some(TlsSocket { socket: self.context.socket(id)?, core: &mut *self.core })
    }

    /// Begins a TLS connection, if the target was passed to [`Tls::connect_to`](crate::Tls::connect_to).
    fn connect(&mut self, target: Target, options: ConnectOptions) -> Result<SocketId, Error> {
        self.core.connect(&mut self.context, target, options)
    }
}
