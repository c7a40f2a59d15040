//! The bridge between tasks and the reactor's thread.
//!
//! What crosses it is `Send`: the [`Sender`](finale::Sender) of the inbox, the request, and the
//! oneshot channel for its answer. The reactor, its sockets and the pool stay on their thread.

use std::collections::HashMap;
use std::fmt;
use std::thread::JoinHandle;
use std::time::Duration;

use finale::{
    ConnectOptions, Error, Event, Inbox, Pool, PoolEvent, PoolOptions, PoolReply, Reactor, SendError, Sender, Socket,
    Ticket,
};
use tokio::sync::oneshot;

/// A request must be answered this long after it has got a connection.
const LIMIT: Duration = Duration::from_secs(5);

/// An answer is given up above this.
const ANSWER_BYTES: usize = 64 * 1024;

/// What tasks send to the reactor.
pub(crate) enum Message {
    Request(Request),
    Close,
}

/// A line, and where its answer goes.
pub(crate) struct Request {
    line: String,
    reply: oneshot::Sender<Result<String, Failed>>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The inbox is full: the reactor is behind. Try again later, or refuse your own client.
    Busy,
    /// The reactor's thread has ended.
    Gone,
    /// There was no connection in time, or it was lost.
    Lost,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "too many requests wait",
            Self::Gone => "the reactor has ended",
            Self::Lost => "the connection was lost",
        })
    }
}

impl std::error::Error for Failed {}

/// The side of the tasks. It is cheap to clone, `Send` and `Sync`.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    sender: Sender<Message>,
}

impl Client {
    /// Starts the thread with the reactor. It ends after [`close`](Self::close).
    pub(crate) fn start(server: &str, capacity: usize) -> Result<(Self, JoinHandle<Result<(), Error>>), Error> {
        let reactor = Reactor::new()?;
        let pool = Pool::new(server, ConnectOptions::default(), PoolOptions::default())?;
        let (sender, inbox) = reactor.inbox(capacity);
        // A reactor is `Send`: it is made here, where an error can be returned, and moved.
        let thread = std::thread::spawn(move || Worker::new(pool, inbox).run(reactor));
        Ok((Self { sender }, thread))
    }

    /// For tests: the side of the tasks, with a reactor that does not run.
    #[allow(dead_code, reason = "used by the tests")]
    pub(crate) const fn with(sender: Sender<Message>) -> Self {
        Self { sender }
    }

    /// Sends a line and waits for its answer. The call never blocks the thread. Dropping the future
    /// cancels the request: if it was not sent yet, it never is.
    pub(crate) async fn request(&self, line: String) -> Result<String, Failed> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Request(Request { line, reply }))?;
        answer.await.unwrap_or(Err(Failed::Gone))
    }

    /// Ends the connections of the pool when their requests are done. The thread ends when all
    /// clients are dropped too: a reactor waits as long as a sender of its inbox lives.
    pub(crate) fn close(&self) -> Result<(), Failed> {
        self.send(Message::Close)
    }

    fn send(&self, message: Message) -> Result<(), Failed> {
        self.sender.send(message).map_err(|error| match error {
            SendError::Full(_) => Failed::Busy,
            SendError::Gone(_) => Failed::Gone,
        })
    }
}

/// The side of the reactor.
struct Worker {
    pool: Pool,
    inbox: Inbox<Message>,
    waiting: HashMap<Ticket, Request>,
    running: HashMap<Ticket, (Request, Vec<u8>)>,
}

impl Worker {
    fn new(pool: Pool, inbox: Inbox<Message>) -> Self {
        Self { pool, inbox, waiting: HashMap::new(), running: HashMap::new() }
    }

    fn run(mut self, mut reactor: Reactor) -> Result<(), Error> {
        while let Some((mut socket, event)) = reactor.next()? {
            self.handle(&mut socket, &event);
        }
        Ok(())
    }

    fn handle(&mut self, socket: &mut Socket<'_>, event: &Event<'_>) {
        match (self.pool.handle(socket, event), *event) {
            (PoolEvent::Foreign, Event::Woken) => {
                while let Some(message) = self.inbox.take() {
                    match message {
                        Message::Request(request) => {
                            let ticket = self.pool.request(&mut socket.context());
                            self.waiting.insert(ticket, request);
                        }
                        Message::Close => self.pool.close(&mut socket.context()),
                    }
                }
            }
            (PoolEvent::Leased(ticket), Event::Data(bytes)) => {
                let Some((_, answer)) = self.running.get_mut(&ticket) else { return };
                answer.extend_from_slice(bytes);
                if answer.ends_with(b"\n") {
                    let Some((request, answer)) = self.running.remove(&ticket) else { return };
                    // An error means that the task no longer waits.
                    let _ = request.reply.send(Ok(String::from_utf8_lossy(&answer).trim_end().to_owned()));
                    self.pool.give_back(ticket, &mut socket.context());
                } else if answer.len() > ANSWER_BYTES {
                    self.lost(ticket);
                    self.pool.discard(ticket, &mut socket.context());
                }
            }
            (PoolEvent::Leased(ticket), Event::End) => {
                self.lost(ticket);
                self.pool.discard(ticket, &mut socket.context());
            }
            (PoolEvent::Lost(ticket, _), _) => self.lost(ticket),
            _ => {}
        }
        self.start(socket);
    }

    fn lost(&mut self, ticket: Ticket) {
        if let Some((request, _)) = self.running.remove(&ticket) {
            let _ = request.reply.send(Err(Failed::Lost));
        }
    }

    fn start(&mut self, socket: &mut Socket<'_>) {
        while let Some((ticket, reply)) = self.pool.next_reply(&mut socket.context()) {
            let Some(request) = self.waiting.remove(&ticket) else { continue };
            let PoolReply::Leased(id) = reply else {
                let _ = request.reply.send(Err(Failed::Lost));
                continue;
            };
            let Some(mut leased) = socket.get(id) else { continue };
            if request.reply.is_closed() {
                // The task was cancelled while its request waited. Nothing of it was sent.
                self.pool.give_back(ticket, &mut socket.context());
                continue;
            }
            leased.set_deadline(LIMIT);
            let _ = leased.write(format!("{}\n", request.line).as_bytes());
            self.running.insert(ticket, (request, Vec::new()));
        }
    }
}
