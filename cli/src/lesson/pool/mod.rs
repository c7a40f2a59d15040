//! `finale lesson pool`: requests that continue while their server breaks connections and is
//! restarted (challenge 2).
//!
//! Invariant: a request is counted once, when its complete answer has arrived; each repetition is
//! counted as one. A request without an answer is lost, and the lesson fails.

mod server;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use finale::{
    BoundAddr, ConnectOptions, Context, Event, Inbox, Pool, PoolEvent, PoolOptions, PoolReply, PoolStats, Reactor,
    RetrySafety, SocketMap, Ticket,
};
use server::{DOWN, Report, Server};

use super::page::{heading, learned, line, paragraph};
use crate::errors::Error;
use crate::output::{self, count};
use crate::values;

/// Challenge 2: a pool of connections to a server that breaks them and is restarted once
///
/// A client sends requests over a pool of connections. The server resets and finishes connections
/// at random, and is restarted halfway. Each line is an event; no request is lost.
#[derive(Debug, clap::Args)]
pub(super) struct PoolLessonOptions {
    /// How many requests to make
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = values::number::<u32>(1..=10_000))]
    #[arg(allow_hyphen_values = true)]
    requests: u32,
    /// The seed of the server's random numbers: a number, 0 or more
    #[arg(long, value_name = "SEED", default_value_t = 1, value_parser = values::number::<u64>(0..=u64::MAX))]
    #[arg(allow_hyphen_values = true)]
    seed: u64,
}

/// Sockets that are kept ready.
const SIZE: usize = 3;
/// The time between two requests. It is long enough that sockets are unused in between, and some
/// are lost there.
const PACE: Duration = Duration::from_millis(15);
/// If a request takes longer, the lesson fails.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);
/// The first and the longest pause between two attempts to connect.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(200)];

/// Runs the lesson: an explanation, a line for each event, the sums, and what was learned.
pub(super) fn run(options: &PoolLessonOptions) -> Result<(), Error> {
    let PoolLessonOptions { requests, seed } = *options;
    let mut reactor = Reactor::new()?;
    let (reports, inbox) = reactor.inbox(1 << 16);
    let server = Server::start(requests / 2, seed, reports)?;
    let mut lesson = Lesson::new(server.addr, requests, seed)?;
    introduce(server.addr, requests, seed)?;
    lesson.run(&mut reactor, inbox)?;
    server.stop();
    lesson.sums()?;
    learned(&[
        "A connection that is kept ready can be lost at any time, also between two requests. The pool reads its \
         unused connections too, so it notices this at once and replaces them. A request that got a dead connection \
         would have to fail first.",
        "When a connection is lost during a request, the client can't know whether the server has acted. The pool \
         reports what is known. If no byte was sent, the request is safe to repeat. Otherwise repeat it only if \
         acting twice does no harm, as here, where the server only answers in upper case.",
        "While no server listens, the pool tries again after a pause that grows, and requests wait. So a restart \
         delays requests and loses none.",
    ])
}

fn introduce(addr: BoundAddr, requests: u32, seed: u64) -> Result<(), Error> {
    paragraph(&format!(
        "A client keeps {SIZE} connections to a server ready and sends {} over them, one every {} ms. The server at \
         {addr} breaks connections on purpose. With each request it chooses at random (seed {seed}): it answers, it \
         resets or finishes the connection without an answer, it answers only half, or it breaks the connection \
         shortly after its answer, when it is unused. Halfway it is restarted: it resets all connections, and for \
         {} ms no server listens.",
        count(u64::from(requests), "request"),
        PACE.as_millis(),
        DOWN.as_millis(),
    ))?;
    paragraph("")?;
    paragraph(
        "A line begins with the time since the start. `server` is what the server does, `pool` what the pool notices \
         without a request, and `request` what happens to a request.",
    )?;
    heading("What happens")
}

/// One request, by its number, until it is answered.
#[derive(Clone, Copy)]
struct Request {
    number: u32,
    since: Instant,
    tries: u32,
}

struct Lesson {
    pool: Pool,
    began: Instant,
    total: u32,
    begun: u32,
    answered: u32,
    repeated: u32,
    waiting: BTreeMap<Ticket, Request>,
    /// The request of each lent socket, and what has arrived of its answer.
    lent: SocketMap<(Request, Vec<u8>)>,
    /// The counts that were printed already.
    printed: PoolStats,
}

impl Lesson {
    fn new(addr: BoundAddr, total: u32, seed: u64) -> Result<Self, Error> {
        let options = PoolOptions::default().size(SIZE).back_off(BACK_OFF[0], BACK_OFF[1]);
        Ok(Self {
            pool: Pool::new(addr, ConnectOptions::default(), options.seed(seed))?,
            began: Instant::now(),
            total,
            begun: 0,
            answered: 0,
            repeated: 0,
            waiting: BTreeMap::new(),
            lent: SocketMap::new(),
            printed: PoolStats::default(),
        })
    }

    fn run(&mut self, reactor: &mut Reactor, mut inbox: Inbox<Report>) -> Result<(), Error> {
        let mut pace = reactor.set_timer(Duration::ZERO);
        while self.answered < self.total {
            self.print_pool()?;
            self.send_granted(reactor)?;
            let Some((mut socket, event)) = reactor.next()? else { break };
            match (self.pool.handle(&mut socket, &event), event) {
                (_, Event::Timer(timer)) if timer == pace && self.begun < self.total => {
                    self.begun += 1;
                    let request = Request { number: self.begun, since: Instant::now(), tries: 0 };
                    self.ask(&mut socket.context(), request);
                    pace = socket.set_timer(PACE);
                }
                (_, Event::Woken) => {
                    while let Some(report) = inbox.take() {
                        self.print("server", &report)?;
                    }
                }
                (PoolEvent::Leased(ticket), Event::Data(bytes)) => {
                    if let Some((request, answer)) = self.lent.get_mut(socket.id()) {
                        answer.extend_from_slice(bytes);
                        if answer.ends_with(b"\n") {
                            let (request, right) = (*request, *answer == right_answer(*request));
                            self.lent.remove(socket.id());
                            self.pool.give_back(ticket, &mut socket.context());
                            self.has_answer(request, right)?;
                        }
                    }
                }
                // No answer will arrive. `close` reports the rest.
                (PoolEvent::Leased(_), Event::End) => socket.end(),
                (PoolEvent::Lost(_, repeat), Event::Close(_)) => {
                    if let Some((request, _)) = self.lent.remove(socket.id()) {
                        self.repeat(&mut socket.context(), request, repeat)?;
                    }
                }
                _ => {}
            }
        }
        self.pool.close(&mut reactor.context());
        Ok(())
    }

    fn ask(&mut self, context: &mut Context<'_>, request: Request) {
        let ticket = self.pool.request(context);
        self.waiting.insert(ticket, request);
    }

    fn send_granted(&mut self, reactor: &mut Reactor) -> Result<(), Error> {
        while let Some((ticket, grant)) = self.pool.next_reply(&mut reactor.context()) {
            let Some(request) = self.waiting.remove(&ticket) else { continue };
            if let PoolReply::Leased(id) = grant
                && let Some(mut socket) = reactor.socket(id)
            {
                socket.write(format!("request {}\n", request.number).as_bytes())?;
                self.lent.insert(id, (request, Vec::new()));
            } else if request.since.elapsed() > REQUEST_LIMIT {
                return Err(Error::Scene("a request has waited for 20 seconds; is the machine overloaded?"));
            } else {
                self.ask(&mut reactor.context(), request);
            }
        }
        Ok(())
    }

    fn has_answer(&mut self, request: Request, right: bool) -> Result<(), Error> {
        if !right {
            return Err(Error::Scene("a request got the answer of another request"));
        }
        self.answered += 1;
        let after = match request.tries {
            0 => String::new(),
            tries => format!(", sent {} times", tries + 1),
        };
        let took = request.since.elapsed().as_secs_f64() * 1e3;
        self.print("request", &format!("{} answered after {took:.1} ms{after}", request.number))
    }

    /// A repetition does no harm here: the server only answers in upper case.
    fn repeat(&mut self, context: &mut Context<'_>, request: Request, repeat: RetrySafety) -> Result<(), Error> {
        self.repeated += 1;
        let when = match repeat {
            RetrySafety::Safe => "before a byte was sent",
            RetrySafety::IfIdempotent => "without an answer",
            RetrySafety::Unsafe => "with half an answer",
        };
        self.print("request", &format!("{} lost its connection {when}; repeated", request.number))?;
        self.ask(context, Request { tries: request.tries + 1, ..request });
        Ok(())
    }

    /// What has changed in the pool since the last call.
    fn print_pool(&mut self) -> Result<(), Error> {
        let stats = self.pool.stats();
        for _ in self.printed.lost_unused..stats.lost_unused {
            self.print("pool", "an unused connection was lost, and is replaced")?;
        }
        for _ in self.printed.failed..stats.failed {
            self.print("pool", "the connect was refused; the pool waits and tries again")?;
        }
        self.printed = stats;
        Ok(())
    }

    /// A line, with the time since the lesson began.
    fn print(&self, who: &str, text: &str) -> Result<(), Error> {
        line(&format!("{:>7.3} s  {who:<9}", self.began.elapsed().as_secs_f64()), text)
    }

    fn sums(&self) -> Result<(), Error> {
        let stats = self.pool.stats();
        let replaced = stats.lost_unused + stats.lost_leased;
        let lost = self.total - self.answered;
        heading("The sums")?;
        output::print(&format!(
            "requests answered      {:>5} of {}\nrequests repeated      {:>5}\n\
             connections replaced   {replaced:>5}: {} unused, {} with a request\n\
             connects refused       {:>5}\nrequests lost          {lost:>5}\n",
            self.answered, self.total, self.repeated, stats.lost_unused, stats.lost_leased, stats.failed
        ))?;
        if lost > 0 { Err(Error::Scene("requests were lost")) } else { Ok(()) }
    }
}

fn right_answer(request: Request) -> Vec<u8> {
    format!("REQUEST {}\n", request.number).into_bytes()
}
