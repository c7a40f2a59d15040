//! Requests over a pool, each with a deadline, and again where that is safe.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use finale::{
    ConnectOptions, Context, Error, Event, Pool, PoolEvent, PoolOptions, PoolReply, RetrySafety, Socket, Ticket,
};

/// From the call of `request` to the answer, with all attempts.
const TOTAL: Duration = Duration::from_secs(10);
/// From the moment at which it has a connection.
const ATTEMPT: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 3;

#[derive(Debug)]
struct Job {
    line: String,
    until: Instant,
    attempts: u32,
    answer: Vec<u8>,
}

/// It sees every event of its reactor first, as the pool inside it must.
#[derive(Debug)]
pub(crate) struct Client {
    pool: Pool,
    waiting: HashMap<Ticket, Job>,
    running: HashMap<Ticket, Job>,
    /// Each line, with its answer or the reason why there is none.
    pub(crate) results: VecDeque<(String, Result<String, String>)>,
}

impl Client {
    pub(crate) fn new(server: &str, options: PoolOptions) -> Result<Self, Error> {
        // A server that does not finish does not hold up the end of the program for longer.
        let connect = ConnectOptions::default().connect_timeout(ATTEMPT).close_timeout(ATTEMPT);
        let pool = Pool::new(server, connect, options.wait_limit(TOTAL))?;
        Ok(Self { pool, waiting: HashMap::new(), running: HashMap::new(), results: VecDeque::new() })
    }

    pub(crate) fn request(&mut self, context: &mut Context<'_>, line: String) {
        let until = context.now() + TOTAL;
        self.enqueue(context, Job { line, until, attempts: 0, answer: Vec::new() });
        self.start(context);
    }

    /// Ends the connections. Without it, the end of the program would reset them.
    pub(crate) fn close(&mut self, context: &mut Context<'_>) {
        self.pool.close(context);
    }

    fn enqueue(&mut self, context: &mut Context<'_>, job: Job) {
        let ticket = self.pool.request(context);
        self.waiting.insert(ticket, job);
    }

    pub(crate) fn handle(&mut self, socket: &mut Socket<'_>, event: &Event<'_>) {
        match self.pool.handle(socket, event) {
            PoolEvent::Leased(ticket) => self.leased(&mut socket.context(), ticket, event),
            PoolEvent::Lost(ticket, safety) => {
                // The request's deadline is also an end of its connection.
                if let Some(job) = self.running.remove(&ticket) {
                    self.repeat(&mut socket.context(), job, safety);
                }
            }
            PoolEvent::Internal | PoolEvent::Foreign => {}
        }
        self.start(&mut socket.context());
    }

    fn leased(&mut self, context: &mut Context<'_>, ticket: Ticket, event: &Event<'_>) {
        let Some(job) = self.running.get_mut(&ticket) else { return };
        match event {
            Event::Data(bytes) => {
                job.answer.extend_from_slice(bytes);
                let is_complete = job.answer.ends_with(b"\n");
                if !is_complete && job.answer.len() < 64 * 1024 {
                    return; // The rest is on its way.
                }
                let Some(job) = self.running.remove(&ticket) else { return };
                if is_complete {
                    let answer = String::from_utf8_lossy(&job.answer).trim_end().to_owned();
                    self.results.push_back((job.line, Ok(answer)));
                    self.pool.give_back(ticket, context);
                } else {
                    self.results.push_back((job.line, Err("the answer is too long".to_owned())));
                    self.pool.discard(ticket, context);
                }
            }
            // The server ends before it has answered in full.
            Event::End => {
                let Some(job) = self.running.remove(&ticket) else { return };
                let safety = self.pool.discard(ticket, context).unwrap_or(RetrySafety::Unsafe);
                self.repeat(context, job, safety);
            }
            // After an error comes the close, as `PoolEvent::Lost`.
            _ => {}
        }
    }

    /// Sends it again if that is safe and there is time for it.
    fn repeat(&mut self, context: &mut Context<'_>, job: Job, safety: RetrySafety) {
        let why = match safety {
            RetrySafety::Unsafe => "lost in the middle of the answer",
            // Upper case changes nothing on the server, so it may act on a line twice.
            RetrySafety::Safe | RetrySafety::IfIdempotent if job.attempts >= ATTEMPTS => "lost too often",
            RetrySafety::Safe | RetrySafety::IfIdempotent if context.now() >= job.until => "out of time",
            RetrySafety::Safe | RetrySafety::IfIdempotent => return self.enqueue(context, job),
        };
        self.results.push_back((job.line, Err(why.to_owned())));
    }

    /// Sends the requests that have got a connection.
    fn start(&mut self, context: &mut Context<'_>) {
        while let Some((ticket, reply)) = self.pool.next_reply(context) {
            let Some(mut job) = self.waiting.remove(&ticket) else { continue };
            let id = match reply {
                PoolReply::Leased(id) => id,
                PoolReply::TimedOut => {
                    let why = self.pool.last_error().map_or_else(String::new, |error| format!(": {error}"));
                    self.results.push_back((job.line, Err(format!("no connection in time{why}"))));
                    continue;
                }
                PoolReply::QueueFull | PoolReply::Closed => {
                    self.results.push_back((job.line, Err("too many requests".to_owned())));
                    continue;
                }
            };
            let left = job.until.saturating_duration_since(context.now());
            let Some(mut socket) = context.socket(id) else { continue };
            job.attempts += 1;
            // A refused write leaves nothing half done: the deadline ends the connection.
            let _ = socket.write(format!("{}\n", job.line).as_bytes());
            socket.set_deadline(ATTEMPT.min(left));
            self.running.insert(ticket, job);
        }
    }
}
