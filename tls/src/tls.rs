//! All sessions of one reactor: which sockets have one, and in which order events are delivered.
//!
//! Invariant: an event of a socket is translated completely before the first result is delivered.
//! What can't be delivered stays with its session, which is due as soon as it can.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use finale::{
    ConnectOptions, ConnectionError, Context, Ending, Error, Event, ListenerId, Socket, SocketId, SocketMap, Target,
};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, ServerConfig};

use crate::deadlines::Deadlines;
use crate::failure::{ConnectError, TlsFailure};
use crate::metrics::TlsMetrics;
use crate::record::{Connection, Output};
use crate::server_name::NotesName;
use crate::session::{Buffers, Limit, Next, RECORD, Session};
use crate::socket::{TlsContext, TlsSocket};

/// The default of [`Tls::set_handshake_timeout`].
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What a socket of this layer needs. `Tls` has in addition what is delivered.
pub(crate) struct Core {
    pub(crate) sessions: SocketMap<Box<Session>>,
    pub(crate) out: Output,
    listeners: HashMap<ListenerId, Arc<ServerConfig>>,
    targets: HashMap<Target, (Arc<ClientConfig>, ServerName<'static>)>,
    deadlines: Deadlines,
    handshake_timeout: Option<Duration>,
    metrics: TlsMetrics,
}

/// The TLS sessions of one reactor.
///
/// ```no_run
/// use finale::{ConnectOptions, Event, Reactor, Stream};
/// use finale_tls::Tls;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = finale_tls::client_config("roots.pem")?;
/// let mut reactor = Reactor::new()?;
/// let mut tls = Tls::new();
/// tls.connect(&mut reactor.context(), "example.org:443", ConnectOptions::default(), &config, "example.org".try_into()?)?;
/// while let Some((mut socket, event)) = reactor.next()? {
///     let mut events = tls.handle(&mut socket, event);
///     while let Some((mut socket, event)) = events.next() {
///         match event {
///             Event::Ready => drop(socket.write(b"GET / HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n")?),
///             Event::Data(bytes) => println!("{} bytes", bytes.len()),
///             Event::End => socket.end(),
///             Event::Close(ending) => println!("{ending}"), // "truncated" if there was no close_notify
///             _ => {}
///         }
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Tls {
    core: Core,
    buffers: Buffers,
    error: ConnectionError,
    ending: Option<Ending>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("sessions", &self.sessions.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("sessions", &self.core.sessions.len()).finish_non_exhaustive()
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self::new()
    }
}

impl Tls {
    /// No sessions yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            core: Core {
                sessions: SocketMap::new(),
                out: Output::default(),
                listeners: HashMap::new(),
                targets: HashMap::new(),
                deadlines: Deadlines::default(),
                handshake_timeout: Some(HANDSHAKE),
                metrics: TlsMetrics::default(),
            },
            buffers: Buffers::default(),
            error: TlsFailure::Flood.to_error(),
            ending: None,
        }
    }

    /// Connections of this listener begin with a handshake from now on. A second call replaces the
    /// configuration, for example by one with a new certificate; connections that exist keep theirs.
    ///
    /// Early data is switched off.
    ///
    /// # Errors
    /// If no connection can be made with this configuration.
    pub fn accept_on(&mut self, listener: ListenerId, config: &Arc<ServerConfig>) -> Result<(), rustls::Error> {
        let mut config = ServerConfig::clone(config);
        config.cert_resolver = Arc::new(NotesName(config.cert_resolver));
        config.max_early_data_size = 0;
        let config = Arc::new(config);
        UnbufferedServerConnection::new(Arc::clone(&config))?;
        self.core.listeners.insert(listener, config);
        Ok(())
    }

    /// Connections that are opened through this layer to `target` begin with a handshake: for
    /// [`Pool`](finale::Pool), which opens its connections by itself.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use finale::{ConnectOptions, Pool, PoolOptions, Reactor};
    /// use finale_tls::{Tls, rustls::ClientConfig};
    /// # fn pool(config: Arc<ClientConfig>) -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut reactor, mut tls) = (Reactor::new()?, Tls::new());
    /// tls.connect_to("127.0.0.1:8443".try_into()?, &config, "localhost".try_into()?)?;
    /// let mut pool = Pool::new("127.0.0.1:8443", ConnectOptions::default(), PoolOptions::default())?;
    /// let ticket = pool.request(&mut tls.context(reactor.context()));
    /// // For each event of `tls.handle`: pool.handle(&mut socket, &event)
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If no connection can be made with this configuration.
    pub fn connect_to(
        &mut self,
        target: Target,
        config: &Arc<ClientConfig>,
        server_name: ServerName<'static>,
    ) -> Result<(), rustls::Error> {
        UnbufferedClientConnection::new(Arc::clone(config), server_name.clone())?;
        self.core.targets.insert(target, (Arc::clone(config), server_name));
        Ok(())
    }

    /// Begins a connection with a handshake. The server's certificate must be for `server_name`.
    ///
    /// # Errors
    /// As [`Reactor::connect`](finale::Reactor::connect), and if no connection can be made with this
    /// configuration.
    pub fn connect<T>(
        &mut self,
        context: &mut Context<'_>,
        target: T,
        options: ConnectOptions,
        config: &Arc<ClientConfig>,
        server_name: ServerName<'static>,
    ) -> Result<SocketId, ConnectError>
    where
        T: TryInto<Target>,
        Error: From<T::Error>,
    {
        let connection =
            UnbufferedClientConnection::new(Arc::clone(config), server_name).map_err(ConnectError::Config)?;
        let id = context.connect(target, options).map_err(ConnectError::Socket)?;
        self.core.add_client(id, connection);
        Ok(id)
    }

    /// How long a handshake may take, from the established connection on. `None`: as long as the
    /// limits of the socket permit. Default: 10 s. The [idle
    /// timeout](finale::ListenOptions::idle_timeout) of the socket ends a handshake, too.
    pub fn set_handshake_timeout(&mut self, limit: impl Into<Option<Duration>>) {
        self.core.handshake_timeout = limit.into();
    }

    /// Counts of handshakes and failures.
    #[must_use]
    pub const fn metrics(&self) -> TlsMetrics {
        self.core.metrics
    }

    /// How many sessions exist.
    #[must_use]
    pub fn len(&self) -> usize {
        self.core.sessions.len()
    }

    /// Whether no session exists.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.core.sessions.is_empty()
    }

    /// The reactor of this context, with its sessions.
    pub fn context<'a>(&'a mut self, context: Context<'a>) -> TlsContext<'a> {
        TlsContext::new(context, &mut self.core)
    }

    /// This socket with its session, if it has one: for a program that has a socket at hand.
    ///
    /// ```
    /// use finale::{Context, SocketId, Stream};
    /// use finale_tls::Tls;
    /// fn hang_up(context: &mut Context<'_>, tls: &mut Tls, id: SocketId) {
    ///     if let Some(socket) = context.socket(id) {
    ///         tls.socket(socket).end();
    ///     }
    /// }
    /// ```
    pub const fn socket<'a>(&'a mut self, socket: Socket<'a>) -> TlsSocket<'a> {
        TlsSocket::new(socket, &mut self.core)
    }

    /// Handles an event of the reactor. The result has the events for the program: the same one if
    /// the socket has no session, otherwise those of the TLS stream that it has caused, from none to
    /// a few. An [`Event::Timer`] can be one of this layer's own; then it is not delivered.
    ///
    /// What the program does not take is delivered at a later event. Lost are the event itself, if it
    /// passes through unchanged, and what is not taken of [`Event::Close`].
    pub fn handle<'a, 's>(&'a mut self, socket: &'a mut Socket<'s>, event: Event<'a>) -> Events<'a, 's> {
        self.buffers.plain.clear();
        let id = socket.id();
        let mut events = Events { tls: self, socket, passing: None, current: None, last: None, expired_at: None };
        if let Event::Timer(timer) = event
            && events.tls.core.deadlines.is_own(timer)
        {
            events.expired_at = Some(events.socket.now());
            return events;
        }
        if matches!(event, Event::Connection) {
            events.tls.core.accept(events.socket);
        }
        if events.tls.core.sessions.get(id).is_none() {
            events.passing = Some(event);
            return events;
        }
        events.enter(id);
        events.receive(event);
        events
    }
}

impl Core {
    /// A session for a new connection, if its listener has TLS.
    fn accept(&mut self, socket: &mut Socket<'_>) {
        let Some(config) = socket.listener().and_then(|listener| self.listeners.get(&listener)) else { return };
        match UnbufferedServerConnection::new(Arc::clone(config)) {
            Ok(connection) => {
                let mut session = Box::new(Session::new(Connection::Server(Box::new(connection))));
                session.begin(socket, &mut self.out);
                self.sessions.insert(socket.id(), session);
                self.limit_handshake(socket);
            }
            // It was tried when the configuration was set.
            Err(_) => socket.destroy(),
        }
    }

    fn add_client(&mut self, id: SocketId, connection: UnbufferedClientConnection) {
        self.sessions.insert(id, Box::new(Session::new(Connection::Client(Box::new(connection)))));
    }

    pub(crate) fn connect(
        &mut self,
        context: &mut Context<'_>,
        target: Target,
        options: ConnectOptions,
    ) -> Result<SocketId, Error> {
        let found = self.targets.get(&target);
        let connection = found.map(|(config, name)| UnbufferedClientConnection::new(Arc::clone(config), name.clone()));
        let id = context.connect(target, options)?;
        match connection {
            Some(Ok(connection)) => self.add_client(id, connection),
            // It was tried when the configuration was set.
            Some(Err(_)) => context.socket(id).into_iter().for_each(|mut socket| socket.destroy()),
            None => {}
        }
        Ok(id)
    }

    /// From now on the session has this long for something.
    fn limit(&mut self, socket: &Socket<'_>, time: Duration, limit: Limit) {
        let due = socket.now() + time;
        if let Some(session) = self.sessions.get_mut(socket.id()) {
            session.due = Some((due, limit));
            self.deadlines.insert(due, socket.id());
        }
    }

    fn limit_handshake(&mut self, socket: &Socket<'_>) {
        if let Some(time) = self.handshake_timeout {
            self.limit(socket, time, Limit::Handshake);
        }
    }

    /// One entry for many records in a row: whether another one was complete meanwhile is looked up
    /// when the limit is over.
    fn limit_record(&mut self, socket: &Socket<'_>) {
        if let Some(session) = self.sessions.get(socket.id())
            && session.due.is_none()
            && session.has_incomplete_record()
        {
            self.limit(socket, RECORD, Limit::Record(session.records));
        }
    }

    /// Events of this socket wait, and may be deliverable now.
    pub(crate) fn deliver_soon(&mut self, socket: &mut Socket<'_>) {
        if let Some(session) = self.sessions.get(socket.id())
            && session.owes()
            && !session.is_paused()
        {
            self.deadlines.insert(socket.now(), socket.id());
            self.deadlines.arm(&mut socket.context());
        }
    }

    /// Counts what the next event shows.
    fn count(&mut self, id: SocketId, next: Next) {
        let Some(session) = self.sessions.get(id) else { return };
        let TlsMetrics { handshakes, resumed, failed_handshakes, truncated, failed } = &mut self.metrics;
        match (next, &session.failure) {
            (Next::Ready, _) => {
                *handshakes += 1;
                let kind = session.connection.common().handshake_kind();
                *resumed += u64::from(kind == Some(rustls::HandshakeKind::Resumed));
            }
            (Next::Error, Some(TlsFailure::Truncated { .. })) => *truncated += 1,
            (Next::Error, Some(_)) if !session.is_ready() => *failed_handshakes += 1,
            (Next::Error, Some(_)) => *failed += 1,
            _ => {}
        }
    }
}

/// The events that one event of the reactor has caused, from [`Tls::handle`].
///
/// ```
/// use finale::{Event, Socket, Stream};
/// use finale_tls::Tls;
/// fn echo(tls: &mut Tls, socket: &mut Socket<'_>, event: Event<'_>) {
///     let mut events = tls.handle(socket, event);
///     while let Some((mut socket, event)) = events.next() {
///         match event {
///             Event::Data(bytes) => drop(socket.write(bytes)),
///             Event::End => socket.end(),
///             _ => {}
///         }
///     }
/// }
/// ```
pub struct Events<'a, 's> {
    tls: &'a mut Tls,
    socket: &'a mut Socket<'s>,
    /// The reactor's event, if it is one for the program, too. It is the first.
    passing: Option<Event<'a>>,
    /// The session whose events are delivered.
    current: Option<SocketId>,
    /// The event that was delivered last.
    last: Option<Next>,
    /// The time, if the timer of the deadlines has expired: then other sessions follow.
    expired_at: Option<Instant>,
}

impl fmt::Debug for Events<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl<'a> Events<'a, '_> {
    /// The next event with its socket. Both are borrowed until the next call.
    #[expect(clippy::should_implement_trait, reason = "an iterator can't lend its items")]
    pub fn next(&mut self) -> Option<(TlsSocket<'_>, Event<'_>)> {
        self.after_last();
        if let Some(event) = self.passing.take() {
            return Some((TlsSocket::new(self.socket.by_ref(), &mut self.tls.core), event));
        }
        let next = self.choose()?;
        let Tls { core, buffers, error, ending } = &mut *self.tls;
        let event = match next {
            Next::Ready => Event::Ready,
            Next::Drain => Event::Drain,
            Next::Data => Event::Data(&buffers.plain),
            Next::End => Event::End,
            Next::Error => Event::Error(error),
            Next::Close => Event::Close(ending.as_ref()?),
        };
        Some((TlsSocket::new(self.socket.get(self.current?)?, core), event))
    }

    /// The next event of the current session, or else of one that is due.
    fn choose(&mut self) -> Option<Next> {
        loop {
            if let Some(id) = self.current {
                let core = &mut self.tls.core;
                if let Some(session) = core.sessions.get_mut(id) {
                    self.last = session.next(self.socket.get(id).as_ref(), &mut self.tls.buffers.plain);
                    match (self.last, &session.failure, &mut self.tls.ending) {
                        (Some(Next::Error), Some(failure), _) => self.tls.error = failure.to_error(),
                        // Not earlier: what was delivered since then counts.
                        (Some(Next::Close), _, Some(ending)) => *ending = session.ending(ending),
                        _ => {}
                    }
                }
                if let Some(next) = self.last {
                    core.count(id, next);
                    return Some(next);
                }
                self.leave();
            }
            let now = self.expired_at?;
            let due = self.tls.core.deadlines.expired(now)?;
            self.enter(due);
            self.expire(due, now);
        }
    }

    /// Turns to a session. The plaintext that waits comes first.
    fn enter(&mut self, id: SocketId) {
        self.current = Some(id);
        if let Some(session) = self.tls.core.sessions.get_mut(id) {
            self.tls.buffers.plain.append(&mut session.take_plain());
        }
    }

    /// Leaves a session. What could not be delivered waits there.
    fn leave(&mut self) {
        let Some(id) = self.current.take() else { return };
        let Tls { core, buffers, .. } = &mut *self.tls;
        if let Some(session) = core.sessions.get_mut(id)
            && !buffers.plain.is_empty()
        {
            // A copy, since the shared buffer is far larger than what may wait there for hours.
            session.keep_plain(buffers.plain.drain(..).collect());
        }
        if let Some(mut socket) = self.socket.get(id) {
            core.deliver_soon(&mut socket);
        }
    }

    /// The current session gets an event of its socket.
    fn receive(&mut self, event: Event<'a>) {
        let Tls { core, buffers, ending, .. } = &mut *self.tls;
        let Some(session) = self.current.and_then(|id| core.sessions.get_mut(id)) else { return };
        if session.handle(self.socket, &event, buffers, &mut core.out) {
            self.passing = Some(event);
        }
        if let Event::Close(tcp) = event {
            *ending = Some(tcp.clone());
        }
        if matches!(event, Event::Ready) {
            core.limit_handshake(self.socket);
        }
        self.update_deadline();
    }

    /// What is over has no deadline. What begins has one.
    fn update_deadline(&mut self) {
        let Some(id) = self.current else { return };
        let core = &mut self.tls.core;
        if let Some(session) = core.sessions.get_mut(id)
            && let Some((due, limit)) = session.due
            && !session.is_within(limit, self.socket)
        {
            session.due = None;
            core.deadlines.remove(due, id);
        }
        core.limit_record(self.socket);
    }

    /// A session is due: its handshake or a record takes too long, or its events can be delivered.
    fn expire(&mut self, id: SocketId, now: Instant) {
        let core = &mut self.tls.core;
        if let (Some(session), Some(mut socket)) = (core.sessions.get_mut(id), self.socket.get(id))
            && let Some((_, limit)) = session.due.take_if(|(due, _)| *due <= now)
            && session.is_within(limit, &socket)
        {
            if let Limit::Record(records) = limit
                && (session.is_paused() || session.records > records || !session.has_incomplete_record())
            {
                return core.limit_record(&socket);
            }
            core.out.clear();
            let failure = match limit {
                Limit::Handshake => TlsFailure::HandshakeTimeout,
                Limit::Record(_) => TlsFailure::SlowRecord,
            };
            session.fail(&mut socket, failure, &mut core.out);
        }
    }

    /// What follows from the event that was delivered last.
    fn after_last(&mut self) {
        let (Some(last), Some(id)) = (self.last.take(), self.current) else { return };
        let core = &mut self.tls.core;
        match last {
            Next::Data => self.tls.buffers.plain.clear(),
            Next::End => {
                if let (Some(session), Some(mut socket)) = (core.sessions.get_mut(id), self.socket.get(id)) {
                    session.after_end(&mut socket, &mut core.out);
                }
            }
            Next::Close => drop(core.sessions.remove(id)),
            Next::Ready | Next::Drain | Next::Error => {}
        }
    }
}

impl Drop for Events<'_, '_> {
    fn drop(&mut self) {
        self.after_last();
        let core = &mut self.tls.core;
        // The program has not taken the last event. Its socket is gone with the reactor's next one.
        if let Some(id) = self.current
            && core.sessions.get(id).is_some_and(|session| session.is_closed)
        {
            core.sessions.remove(id);
        }
        self.leave();
        self.tls.core.deadlines.arm(&mut self.socket.context());
    }
}
