//! The handler of the HTTP server.
//!
//! Invariant: answers leave complete and in the order of their requests, unless the connection is
//! lost. After the last answer further input is read and dropped, so that our close does not reset
//! the connection and destroy the answer.

use std::time::Duration;

use finale::{Backpressure, Buffer, Event, ListenOptions, Socket, SocketMap};

use super::request::{BODY_BYTES, Bad, Body, Head};

/// How long a connection may be silent, between requests or in the middle of one.
const IDLE: Duration = Duration::from_secs(15);
/// How long a request may take from its first byte. It ends clients that send byte by byte.
const REQUEST: Duration = Duration::from_secs(30);
/// The answer to `/`.
const LINE: &[u8] = b"finale: every ending, on purpose\n";
/// A piece of `/bytes/N`.
static PIECE: [u8; 32 * 1024] = [b'.'; 32 * 1024];

/// The options of the server's listener.
pub(crate) fn options(listen: ListenOptions) -> ListenOptions {
    listen.idle_timeout(IDLE)
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
    /// Input that was not parsed yet.
    input: Vec<u8>,
    /// A request whose body is incomplete, and its body so far.
    request: Option<(Head, Vec<u8>)>,
    /// A deadline is set for that request or for its head.
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
                self.connections.or_default(id).input.extend_from_slice(bytes);
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
            match connection.next_request() {
                Ok(Some((head, body))) => {
                    if std::mem::take(&mut connection.has_deadline) {
                        socket.set_deadline(None);
                    }
                    connection.is_last = is_stopping || !head.keep_alive;
                    connection.answer(socket, &head, &body);
                }
                Ok(None) if connection.end_called => return socket.end(),
                Ok(None) => return connection.wait_for_rest(socket),
                Err(bad) => connection.refuse(socket, bad),
            }
        }
    }

    /// Nothing has moved for a while.
    fn is_silent(&mut self, socket: &mut Socket<'_>) {
        let connection = self.connections.or_default(socket.id());
        if socket.end_called() || connection.is_full {
            // The client does not take its answer, or does not finish.
            socket.destroy();
        } else if connection.is_between_requests() {
            // A request that is in flight gets no answer and no reset. The client can repeat it.
            socket.end();
        } else {
            connection.last_words(socket, "408 Request Timeout");
        }
    }
}

impl Connection {
    /// The next complete request.
    fn next_request(&mut self) -> Result<Option<(Head, Vec<u8>)>, Refusal> {
        if self.request.is_none() {
            self.request = Head::take(&mut self.input)?.map(|head| (head, Vec::new()));
        }
        let Some((head, body)) = &mut self.request else { return Ok(None) };
        // Checked before the body is read: a client that announces too much need not send it.
        if matches!(head.body, Body::Bytes(left) | Body::Chunk(left) if left + body.len() as u64 > BODY_BYTES) {
            return Err(Refusal::BodyTooLong);
        }
        head.body.take(&mut self.input, body)?;
        if body.len() as u64 > BODY_BYTES {
            return Err(Refusal::BodyTooLong);
        }
        if !head.body.is_whole() {
            return Ok(None);
        }
        Ok(self.request.take())
    }

    const fn is_between_requests(&self) -> bool {
        self.input.is_empty() && self.request.is_none()
    }

    /// Sets the deadline of a request that has begun. A client that waits for `100 Continue` gets
    /// it once.
    fn wait_for_rest(&mut self, socket: &mut Socket<'_>) {
        if !self.is_between_requests() && !std::mem::replace(&mut self.has_deadline, true) {
            socket.set_deadline(REQUEST);
        }
        if let Some((head, _)) = &mut self.request
            && std::mem::take(&mut head.expects_continue)
        {
            self.say(socket, b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }

    fn answer(&mut self, socket: &mut Socket<'_>, head: &Head, body: &[u8]) {
        let count = head.path.strip_prefix("/bytes/").and_then(|count| count.parse().ok());
        match (head.method.as_str(), head.path.as_str(), count) {
            ("GET", "/", _) => self.respond(socket, "200 OK", LINE),
            ("HEAD", "/", _) => self.head_of(socket, "200 OK", LINE.len() as u64),
            ("POST", "/echo", _) => self.respond(socket, "200 OK", body),
            ("GET", _, Some(count)) => {
                self.left = count;
                self.head_of(socket, "200 OK", count);
            }
            ("HEAD", _, Some(count)) => self.head_of(socket, "200 OK", count),
            ("HEAD", ..) => self.head_of(socket, "404 Not Found", 0),
            ("GET" | "POST", ..) => self.respond(socket, "404 Not Found", b"nothing here\n"),
            _ => self.respond(socket, "405 Method Not Allowed", b"not that\n"),
        }
        if self.left == 0 {
            self.end_if_last(socket);
        }
    }

    /// Sends bytes to the client. If a piece can't be sent, the connection is reset, so that the
    /// stream has no gap.
    fn say(&mut self, socket: &mut Socket<'_>, words: impl Into<Buffer>) {
        match socket.write_owned(words) {
            Ok(Backpressure::Room) => {}
            Ok(Backpressure::Full) => self.is_full = true,
            Err(_) => socket.destroy(),
        }
    }

    fn head_of(&mut self, socket: &mut Socket<'_>, status: &str, length: u64) {
        let connection = if self.is_last { "Connection: close\r\n" } else { "" };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{connection}\r\n");
        self.say(socket, head.into_bytes());
    }

    fn respond(&mut self, socket: &mut Socket<'_>, status: &str, body: &[u8]) {
        self.head_of(socket, status, body.len() as u64);
        self.say(socket, body.to_vec());
    }

    /// Writes until the queue is full or all is written.
    fn write_bytes(&mut self, socket: &mut Socket<'_>) {
        while self.left > 0 && !self.is_full && !socket.destroy_called() {
            let now = usize::try_from(self.left).unwrap_or(usize::MAX).min(PIECE.len());
            self.say(socket, &PIECE[..now]);
            self.left -= now as u64;
        }
    }

    fn end_if_last(&mut self, socket: &mut Socket<'_>) {
        if self.is_last && self.left == 0 {
            socket.end();
            socket.discard();
        }
    }

    fn refuse(&mut self, socket: &mut Socket<'_>, refusal: Refusal) {
        self.last_words(
            socket,
            match refusal {
                Refusal::BodyTooLong => "413 Content Too Large",
                Refusal::Bad(Bad::HeadTooLong) => "431 Request Header Fields Too Large",
                Refusal::Bad(Bad::Encoding) => "501 Not Implemented",
                Refusal::Bad(Bad::Syntax) => "400 Bad Request",
            },
        );
    }

    /// An answer before its request is complete. The rest of the request is dropped until the
    /// client has finished. Otherwise our close would reset the connection and could destroy the
    /// answer.
    fn last_words(&mut self, socket: &mut Socket<'_>, status: &str) {
        self.is_last = true;
        self.respond(socket, status, b"");
        socket.end();
        socket.discard();
    }
}

/// Why a request is refused, after which the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Bad(Bad),
    BodyTooLong,
}

impl From<Bad> for Refusal {
    fn from(bad: Bad) -> Self {
        Self::Bad(bad)
    }
}
