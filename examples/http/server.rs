//! The handler of the HTTP server.
//!
//! Invariant: answers leave complete and in the order of their requests, unless the connection is
//! lost, and are the same however the requests were cut into pieces. After the last answer further
//! input is read and dropped, so that our close does not reset the connection and destroy the
//! answer.

use std::time::Duration;

use finale::lifecycle::State;
use finale::{Backpressure, Buffer, Event, ListenOptions, Socket, SocketMap};
use finale_http::{Answer, CONTINUE, Head, Parser, Part};

/// How long a connection may be silent, between requests or in the middle of one.
const IDLE: Duration = Duration::from_secs(15);
/// More clients wait in the backlog.
const CONNECTIONS: usize = 10_000;
/// How long a request may take from its first byte. It ends clients that send byte by byte, also
/// those that send only empty lines.
const REQUEST: Duration = Duration::from_secs(30);
/// The answer to `/`.
const LINE: &[u8] = b"finale: every ending, on purpose\n";
/// A piece of `/bytes/N`.
static PIECE: [u8; 32 * 1024] = [b'.'; 32 * 1024];

/// The options of the server's listener.
pub(crate) fn options(listen: ListenOptions) -> ListenOptions {
    listen.idle_timeout(IDLE).max_connections(CONNECTIONS)
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Http {
    connections: SocketMap<Connection>,
    /// Each answer is the last of its connection.
    pub(crate) is_stopping: bool,
}

#[derive(Debug, Default)]
struct Connection {
    parser: Parser,
    /// The request whose body is not complete yet.
    request: Option<Head>,
    /// A deadline is set for the request that is incomplete.
    has_deadline: bool,
    /// Bytes of `/bytes/N` that are still to be written.
    left: u64,
    /// The client takes its answers too slowly. Until it has caught up, nothing more is answered or
    /// read.
    is_full: bool,
    /// Whether the present answer is the last.
    is_last: bool,
    /// The client has finished: no further request will arrive.
    end_called: bool,
}

impl Http {
    /// One event of a connection. If an answer can't be written, its connection is reset.
    pub(crate) fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        let id = socket.id();
        match event {
            Event::Data(bytes) if !socket.end_called() => {
                self.connections.or_default(id).parser.push(bytes);
                self.go_on(socket);
            }
            Event::Drain if !socket.end_called() => {
                self.connections.or_default(id).is_full = false;
                self.go_on(socket);
            }
            Event::End => {
                self.connections.or_default(id).end_called = true;
                self.go_on(socket);
            }
            Event::Timeout => self.is_silent(socket),
            Event::Close(_) => drop(self.connections.remove(id)),
            _ => {}
        }
    }

    /// Answers all complete requests.
    fn go_on(&mut self, socket: &mut Socket<'_>) {
        if socket.state() == State::Broken {
            // No answer can leave any more: the error follows, and not what it still had to say.
            return socket.discard();
        }
        let is_stopping = self.is_stopping;
        let connection = self.connections.or_default(socket.id());
        while !socket.end_called() && !socket.destroy_called() {
            if connection.is_full {
                // The next request waits in the kernel and at the client.
                return socket.pause();
            }
            if connection.left > 0 {
                connection.write_bytes(socket);
                connection.end_if_last(socket);
                continue;
            }
            socket.resume();
            match connection.parser.next() {
                Ok(Some(Part::Head(head))) => connection.request = Some(head),
                Ok(Some(Part::Expectation)) => connection.send(socket, CONTINUE),
                Ok(Some(Part::Body(body))) => {
                    if std::mem::take(&mut connection.has_deadline) {
                        socket.set_deadline(None);
                    }
                    let Some(head) = connection.request.take() else { return socket.destroy() };
                    connection.is_last = is_stopping || !head.keep_alive();
                    connection.answer(socket, &head, &body);
                }
                Ok(None) if connection.end_called => return socket.end(),
                Ok(None) => return connection.wait_for_rest(socket),
                Err(error) => connection.last_words(socket, error.status()),
            }
        }
    }

    /// Nothing has moved for a while.
    fn is_silent(&mut self, socket: &mut Socket<'_>) {
        let connection = self.connections.or_default(socket.id());
        if socket.end_called() || connection.is_full {
            // The client does not take its answer, or does not finish.
            socket.destroy();
        } else if connection.parser.is_between_requests() {
            // A request that is in flight gets no answer and no reset. The client can repeat it. It is
            // dropped, so the limit of a close applies, and not the longer one of a half-closed
            // connection.
            socket.end();
            socket.discard();
        } else {
            connection.last_words(socket, 408);
        }
    }
}

impl Connection {
    /// Sets the deadline of a request that has begun.
    fn wait_for_rest(&mut self, socket: &mut Socket<'_>) {
        let has_begun = self.parser.has_begun();
        if std::mem::replace(&mut self.has_deadline, has_begun) != has_begun {
            socket.set_deadline(has_begun.then_some(REQUEST));
        }
    }

    fn answer(&mut self, socket: &mut Socket<'_>, head: &Head, body: &[u8]) {
        let bytes = head.path().strip_prefix("/bytes/").filter(|count| count.bytes().all(|it| it.is_ascii_digit()));
        let bytes = bytes.and_then(|count| count.parse().ok());
        let allowed = match head.path() {
            "/" => "GET, HEAD",
            "/echo" => "POST",
            _ if bytes.is_some() => "GET, HEAD",
            _ => "",
        };
        let is_known = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"];
        match head.method() {
            method if !is_known.contains(&method) => self.respond(socket, head, Answer::new(501), b"not known\n"),
            _ if allowed.is_empty() => self.respond(socket, head, Answer::new(404), b"nothing here\n"),
            method if !allowed.split(", ").any(|it| it == method) => {
                self.respond(socket, head, Answer::new(405).header("Allow", allowed), b"not that\n");
            }
            "POST" => self.respond(socket, head, Answer::new(200), body),
            method => match bytes {
                None => self.respond(socket, head, Answer::new(200), LINE),
                Some(count) => {
                    self.left = if method == "GET" { count } else { 0 };
                    let answer = Answer::new(200).length(count).connection(head, self.is_last);
                    self.send(socket, answer.into_bytes());
                }
            },
        }
        if self.left == 0 {
            self.end_if_last(socket);
        }
    }

    /// Sends bytes to the client. If a piece can't be sent, the connection is reset, so that the
    /// stream has no gap.
    fn send(&mut self, socket: &mut Socket<'_>, bytes: impl Into<Buffer>) {
        match socket.write_owned(bytes) {
            Ok(Backpressure::Room) => {}
            Ok(Backpressure::Full) => self.is_full = true,
            Err(_) => socket.destroy(),
        }
    }

    fn respond(&mut self, socket: &mut Socket<'_>, request: &Head, answer: Answer, body: &[u8]) {
        let mut answer = answer.length(body.len() as u64).connection(request, self.is_last).into_bytes();
        if request.method() != "HEAD" {
            answer.extend_from_slice(body);
        }
        self.send(socket, answer);
    }

    /// Writes until the queue is full or all is written.
    fn write_bytes(&mut self, socket: &mut Socket<'_>) {
        while self.left > 0 && !self.is_full && !socket.destroy_called() {
            let now = usize::try_from(self.left).unwrap_or(usize::MAX).min(PIECE.len());
            self.send(socket, &PIECE[..now]);
            self.left -= now as u64;
        }
    }

    fn end_if_last(&mut self, socket: &mut Socket<'_>) {
        if self.is_last && self.left == 0 {
            socket.end();
            socket.discard();
        }
    }

    /// An answer before its request is complete. The rest of the request is dropped until the
    /// client has finished. Otherwise our close would reset the connection and could destroy the
    /// answer.
    fn last_words(&mut self, socket: &mut Socket<'_>, status: u16) {
        self.is_last = true;
        self.send(socket, Answer::new(status).length(0).close().into_bytes());
        socket.end();
        socket.discard();
        // Even a client that never finishes to send.
        socket.set_deadline(REQUEST);
    }
}
