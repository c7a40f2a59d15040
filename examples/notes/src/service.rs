//! Connections and their requests.
//!
//! Invariant: a connection has one request at a time. While it waits for the database, or while the
//! client does not take its answer, the socket is paused: further requests wait in the kernel and
//! at the client. After the last answer input is read and dropped, so that our close does not reset
//! the connection and destroy the answer.

use std::fmt::Display;
use std::time::{Duration, Instant, SystemTime};

use finale::{Backpressure, Event, Inbox, ListenOptions, Reactor, SocketId, SocketMap, Stream as _, Streams as _};
use finale_http::{Answer, CONTINUE, Head, Parser, Part};
use finale_tls::{Tls, TlsContext};

use crate::Sock;
use crate::database::{Database, Following, Message, Outcome, Work};
use crate::events::Events;
use crate::log::{Log, is_health_check};
use crate::metrics::{Metrics, Now};
use crate::options::Options;
use crate::reply::Reply;
use crate::routes::{Next, Route};

/// How long a connection may be silent, between requests or in the middle of one.
const IDLE: Duration = Duration::from_secs(15);
/// How long a request may take from its first byte to its last. It ends clients that send byte by
/// byte.
const REQUEST: Duration = Duration::from_secs(30);
/// How long a client may take no byte of its answer, or its machine may be gone.
const WRITE: Duration = Duration::from_secs(30);
/// Attachments that are received or sent at a time: they are whole in memory.
const HEAVY: usize = 64;

pub(crate) fn listen_options(options: &Options) -> ListenOptions {
    let listen = ListenOptions::default().idle_timeout(IDLE).write_timeout(WRITE).user_timeout(WRITE);
    listen.max_connections(options.max_connections)
}

#[derive(Debug)]
struct Request {
    head: Head,
    /// `None`: it was refused.
    route: Option<Route>,
    begun: Instant,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    /// Requests are read.
    #[default]
    Reading,
    /// The database or the metrics have to answer.
    Waiting,
    /// It follows the events, and sends no further request.
    Following,
}

#[derive(Debug, Default)]
struct Connection {
    parser: Parser,
    /// From its head to its answer.
    request: Option<Request>,
    state: State,
    /// A deadline is set for the request that is incomplete.
    has_deadline: bool,
    /// The client takes its answer too slowly.
    is_full: bool,
    /// The present answer is the last.
    is_last: bool,
    /// The client has finished: no further request will arrive.
    end_called: bool,
}

pub(crate) struct Service {
    options: Options,
    connections: SocketMap<Connection>,
    database: Database,
    answers: Inbox<Message>,
    events: Events,
    metrics: Metrics,
    /// Connections that wait for the numbers of the reactor.
    wants_metrics: Vec<SocketId>,
    log: Log,
    is_stopping: bool,
}

impl Service {
    pub(crate) fn new(options: &Options, database: Database, answers: Inbox<Message>, log: Log) -> Self {
        Self {
            options: options.clone(),
            connections: SocketMap::new(),
            database,
            answers,
            events: Events::default(),
            metrics: Metrics::default(),
            wants_metrics: Vec::new(),
            log,
            is_stopping: false,
        }
    }

    /// One event of a connection.
    pub(crate) fn handle(&mut self, socket: &mut Sock<'_>, event: Event<'_>) {
        let id = socket.id();
        match event {
            Event::Connection => {
                self.connections.or_default(id);
            }
            Event::Data(bytes) if !socket.end_called() => {
                let connection = self.connections.or_default(id);
                // A client that follows has nothing to send.
                if connection.state != State::Following {
                    connection.parser.push(bytes);
                    self.proceed(socket);
                }
            }
            Event::Drain if !socket.end_called() => {
                self.connections.or_default(id).is_full = false;
                self.proceed(socket);
            }
            Event::End => {
                self.connections.or_default(id).end_called = true;
                if self.events.remove(id) {
                    socket.end();
                }
                self.proceed(socket);
            }
            Event::Timeout => self.is_silent(socket),
            Event::Close(ending) => {
                self.connections.remove(id);
                self.events.remove(id);
                if !is_health_check(ending) || socket.failure().is_some() {
                    self.log(format_args!("{id}: {ending}"));
                }
            }
            _ => {}
        }
    }

    /// Answers all complete requests, one after the other.
    fn proceed(&mut self, socket: &mut Sock<'_>) {
        while !socket.end_called() && !socket.destroy_called() {
            let connection = self.connections.or_default(socket.id());
            if connection.is_full || connection.state == State::Waiting {
                return socket.pause();
            }
            socket.resume();
            if connection.state == State::Following {
                return;
            }
            match connection.parser.next() {
                Ok(Some(Part::Head(head))) => self.begin(socket, head),
                Ok(Some(Part::Expectation)) => send(socket, connection, &[CONTINUE]),
                Ok(Some(Part::Body(body))) => self.work(socket, body),
                Ok(None) if connection.end_called => return socket.end(),
                Ok(None) => return connection.wait_for_rest(socket),
                Err(error) => self.refuse(socket, Reply::error(error.status(), error)),
            }
        }
    }

    /// The head of a request is complete.
    fn begin(&mut self, socket: &mut Sock<'_>, head: Head) {
        let route = Route::find(&head, &self.options).and_then(|route| match route {
            Route::Events(_) if !self.events.has_room() => Err(Reply::busy()),
            route if route.is_heavy() && self.heavy() >= HEAVY => Err(Reply::busy()),
            route => Ok(route),
        });
        let connection = self.connections.or_default(socket.id());
        let has_body = !head.length().is_empty();
        let mut request = Request { head, route: None, begun: socket.socket().now() };
        match route {
            Ok(route) => {
                connection.parser.limit_body(route.body_limit(&self.options));
                request.route = Some(route);
                connection.request = Some(request);
            }
            Err(reply) => {
                connection.request = Some(request);
                if has_body {
                    // Its body is not read at all.
                    self.refuse(socket, reply);
                } else {
                    // The next part is the empty body, which has no route then.
                    self.respond(socket, reply);
                }
            }
        }
    }

    /// The body of a request is complete, too.
    fn work(&mut self, socket: &mut Sock<'_>, body: Vec<u8>) {
        let id = socket.id();
        let connection = self.connections.or_default(id);
        if std::mem::take(&mut connection.has_deadline) {
            socket.socket().set_deadline(None);
        }
        let Some(route) = connection.request.as_ref().and_then(|request| request.route.as_ref()) else { return };
        match route.begin(body) {
            Next::Reply(reply) => return self.respond(socket, reply),
            Next::Work(work) => {
                if !self.database.begin(Some(id), work) {
                    return self.respond(socket, Reply::busy());
                }
            }
            Next::Metrics => self.wants_metrics.push(id),
        }
        connection.state = State::Waiting;
    }

    /// Attachments that are in memory.
    fn heavy(&self) -> usize {
        let is_heavy = |connection: &Connection| {
            let route = connection.request.as_ref().and_then(|request| request.route.as_ref());
            connection.is_full || route.is_some_and(Route::is_heavy)
        };
        self.connections.iter().filter(|(_, connection)| is_heavy(connection)).count()
    }

    /// Takes what the database has sent. Any socket of the reactor finds the others.
    pub(crate) fn take_answers(&mut self, any: &mut Sock<'_>) {
        while let Some(message) = self.answers.take() {
            match message {
                Message::Done { to, outcome, took } => {
                    self.database.taken();
                    self.metrics.count_latency(took);
                    // The client may be gone: then its id finds nothing.
                    if let Some(mut socket) = to.and_then(|id| any.get(id)) {
                        self.answer(&mut socket, outcome);
                    }
                }
                Message::Changed(changes) => self.events.publish(any, &changes),
            }
        }
    }

    fn answer(&mut self, socket: &mut Sock<'_>, outcome: Outcome) {
        let Some(connection) = self.connections.get_mut(socket.id()) else { return };
        connection.state = State::Reading;
        match outcome {
            Outcome::Following(following) if !socket.end_called() => self.follow(socket, following),
            outcome => self.respond(socket, outcome.into()),
        }
        self.proceed(socket);
    }

    /// Begins an answer that has no end of its own.
    fn follow(&mut self, socket: &mut Sock<'_>, following: Following) {
        let Some(connection) = self.connections.get_mut(socket.id()) else { return };
        let Some(request) = connection.request.take() else { return };
        let is_chunked = !request.head.is_http10();
        let answer = Answer::new(200).header("Content-Type", "text/event-stream").header("Cache-Control", "no-store");
        let answer = if is_chunked { answer.chunked() } else { answer };
        send(socket, connection, &[&answer.date(SystemTime::now()).close().into_bytes()]);
        connection.state = State::Following;
        // Both sides may be silent; the heartbeats show whether the client is there.
        socket.socket().set_idle_timeout(None);
        self.count(socket.id(), &request, 200);
        self.events.add(socket, following, is_chunked);
        if self.is_stopping {
            self.events.end_all(socket);
        }
    }

    /// Answers `GET /metrics`. Call it after each event.
    pub(crate) fn answer_metrics(&mut self, reactor: &mut Reactor, tls: &mut Tls) {
        for id in std::mem::take(&mut self.wants_metrics) {
            let now = Now {
                in_flight: self.connections.iter().filter(|(_, connection)| connection.request.is_some()).count(),
                pending: self.database.pending(),
                followers: self.events.len(),
                dropped_followers: self.events.dropped,
            };
            let text = self.metrics.print(&now, &reactor.metrics(), &tls.metrics());
            let mut context = tls.context(reactor.context());
            let Some(mut socket) = context.stream(id) else { continue };
            self.connections.or_default(id).state = State::Reading;
            let reply = Reply::new(200, "text/plain; version=0.0.4; charset=utf-8", text.into_bytes());
            self.respond(&mut socket, reply.with("Cache-Control", "no-store"));
            self.proceed(&mut socket);
        }
    }

    /// Nothing has moved for a while.
    fn is_silent(&mut self, socket: &mut Sock<'_>) {
        let connection = self.connections.or_default(socket.id());
        if socket.end_called() {
            socket.destroy(); // The client does not finish.
        } else if connection.state != State::Reading || connection.is_full {
            // The silence is ours, or `WRITE` ends it.
        } else if connection.parser.is_between_requests() {
            // A request that is in flight gets no answer and no reset. The client can repeat it. It is
            // dropped, so the limit of a close applies, and not the longer one of a half-closed
            // connection.
            socket.end();
            socket.discard();
        } else {
            self.refuse(socket, Reply::error(408, "the request was not complete in time"));
        }
    }

    /// An answer before its request is complete. The rest of the request is dropped until the
    /// client has finished. Otherwise our close would reset the connection and could destroy the
    /// answer.
    fn refuse(&mut self, socket: &mut Sock<'_>, reply: Reply) {
        self.connections.or_default(socket.id()).is_last = true;
        self.respond(socket, reply);
        // Even a client that never finishes to send.
        socket.socket().set_deadline(REQUEST);
    }

    /// Sends the answer to the present request.
    fn respond(&mut self, socket: &mut Sock<'_>, reply: Reply) {
        let connection = self.connections.or_default(socket.id());
        let request = connection.request.take();
        let answer = reply.head().date(SystemTime::now());
        let is_head = request.as_ref().is_some_and(|request| request.head.method() == "HEAD");
        let is_last = connection.is_last || self.is_stopping;
        let (answer, is_last) = match &request {
            Some(Request { head, .. }) => {
                let is_last = is_last || !head.keep_alive();
                (answer.connection(head, is_last), is_last)
            }
            None => (answer.close(), true),
        };
        let status = reply.status;
        let body = if is_head { &[] } else { &reply.body[..] };
        send(socket, connection, &[&answer.into_bytes(), body]);
        if is_last {
            socket.end();
            socket.discard();
        }
        match request {
            Some(request) => self.count(socket.id(), &request, status),
            None => {
                self.metrics.count_answer(status);
                self.log(format_args!("{}: no request: {status}", socket.id()));
            }
        }
    }

    /// Counts an answer, and writes its line.
    fn count(&mut self, id: SocketId, request: &Request, status: u16) {
        self.metrics.count_answer(status);
        let Request { head, begun, .. } = request;
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        self.log(format_args!("{id}: {} {}: {status} after {took:.1} ms", head.method(), head.path()));
    }

    pub(crate) fn log(&mut self, line: impl Display) {
        self.log.line(format_args!("notes[{}]: {line}", std::process::id()));
    }

    /// Once per second.
    pub(crate) fn tick(&mut self, any: &mut Sock<'_>) {
        self.events.tick(any);
        if self.events.len() > 0 {
            // If there is no room, the next job finds the changes.
            let _ = self.database.begin(None, Work::Look);
        }
    }

    /// From now on each answer is the last of its connection.
    pub(crate) fn stop(&mut self, streams: &mut TlsContext<'_>) {
        self.is_stopping = true;
        let any = self.connections.iter().next();
        if let Some(mut any) = any.and_then(|(id, _)| streams.stream(id)) {
            self.events.end_all(&mut any);
        }
    }
}

impl Connection {
    /// Sets the deadline of a request that has begun.
    fn wait_for_rest(&mut self, socket: &mut Sock<'_>) {
        let has_begun = self.parser.has_begun();
        if std::mem::replace(&mut self.has_deadline, has_begun) != has_begun {
            socket.socket().set_deadline(has_begun.then_some(REQUEST));
        }
    }
}

/// Sends bytes to the client. If they can't be sent, the connection is reset, so that the stream
/// has no gap.
fn send(socket: &mut Sock<'_>, connection: &mut Connection, parts: &[&[u8]]) {
    match socket.write_parts(parts) {
        Ok(Backpressure::Room) => {}
        Ok(Backpressure::Full) => connection.is_full = true,
        Err(_) => socket.destroy(),
    }
}
