//! `finale lesson pool`: requests that go on while their server breaks connections and is restarted
//! (challenge 2).
//!
//! Invariant: a request is counted once, when its whole answer is there; what was sent again for it
//! is counted as that. A request that is never answered is lost, and the lesson fails.

mod server;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use finale::{
    ConnectOptions, Context, Event, Inbox, Pool, PoolEvent, PoolOptions, PoolReply, PoolStats, Reactor, RetrySafety,
    SocketMap, Ticket,
};
use server::{News, Server};

use crate::trouble::Trouble;

/// Sockets that are kept ready.
const SIZE: usize = 3;
/// A request every so often: slowly enough that sockets lie unused in between, and are lost there,
/// too.
const PACE: Duration = Duration::from_millis(15);
/// What a request is given before the lesson has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs it, prints a line for each event, and the sums.
pub(crate) fn run(requests: u32, seed: u64) -> Result<(), Trouble> {
    let mut reactor = Reactor::new()?;
    let (news, inbox) = reactor.inbox(1 << 16);
    let server = Server::start(requests / 2, seed, news)?;
    let mut lesson = Lesson::new(server.addr, requests, seed)?;
    lesson.print(&format!(
        "A pool of {SIZE} connections to {}, and {requests} requests; the server breaks connections by its dice (seed {seed})",
        server.addr
    ))?;
    lesson.go(&mut reactor, inbox)?;
    server.stop();
    lesson.sums()
}

/// One request, by its number, until it is answered.
#[derive(Clone, Copy)]
struct Request {
    number: u32,
    asked_at: Instant,
    tries: u32,
}

struct Lesson {
    pool: Pool,
    began: Instant,
    total: u32,
    begun: u32,
    answered: u32,
    sent_again: u32,
    waiting: BTreeMap<Ticket, Request>,
    /// What each lent socket is used for, and what has come of the answer.
    asked: SocketMap<(Request, Vec<u8>)>,
    /// What the pool has said so far.
    told: PoolStats,
}

impl Lesson {
    fn new(addr: SocketAddr, total: u32, seed: u64) -> Result<Self, Trouble> {
        let options = PoolOptions::default().size(SIZE).back_off(Duration::from_millis(20), Duration::from_millis(200));
        Ok(Self {
            pool: Pool::new(addr, ConnectOptions::default(), options.seed(seed))?,
            began: Instant::now(),
            total,
            begun: 0,
            answered: 0,
            sent_again: 0,
            waiting: BTreeMap::new(),
            asked: SocketMap::new(),
            told: PoolStats::default(),
        })
    }

    fn go(&mut self, reactor: &mut Reactor, mut inbox: Inbox<News>) -> Result<(), Trouble> {
        let mut pace = reactor.set_timer(Duration::ZERO);
        while self.answered < self.total {
            self.tell_pool()?;
            self.send_granted(reactor)?;
            let Some((mut socket, event)) = reactor.next()? else { break };
            match (self.pool.handle(&mut socket, &event), event) {
                (_, Event::Timer(timer)) if timer == pace && self.begun < self.total => {
                    self.begun += 1;
                    let request = Request { number: self.begun, asked_at: Instant::now(), tries: 0 };
                    self.ask(&mut socket.context(), request);
                    pace = socket.set_timer(PACE);
                }
                (_, Event::Woken) => {
                    while let Some(news) = inbox.take() {
                        self.print(&format!("server   {news}"))?;
                    }
                }
                (PoolEvent::Leased, Event::Data(bytes)) => {
                    if let Some((request, answer)) = self.asked.get_mut(socket.id()) {
                        answer.extend_from_slice(bytes);
                        if answer.ends_with(b"\n") {
                            let (request, right) = (*request, *answer == right_answer(*request));
                            self.asked.remove(socket.id());
                            self.pool.give_back(&mut socket);
                            self.has_answer(request, right)?;
                        }
                    }
                }
                // The answer will not come any more: our end, and `close` says the rest.
                (PoolEvent::Leased, Event::End) => socket.end(),
                (PoolEvent::Lost(repeat), Event::Close(_)) => {
                    if let Some((request, _)) = self.asked.remove(socket.id()) {
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

    fn send_granted(&mut self, reactor: &mut Reactor) -> Result<(), Trouble> {
        while let Some((ticket, grant)) = self.pool.next_reply() {
            let Some(request) = self.waiting.remove(&ticket) else { continue };
            if let PoolReply::Leased(id) = grant
                && let Some(mut socket) = reactor.socket(id)
            {
                socket.write(format!("request {}\n", request.number).as_bytes())?;
                self.asked.insert(id, (request, Vec::new()));
            } else if request.asked_at.elapsed() > PATIENCE {
                return Err(Trouble::Scene(
                    "a request has waited for twenty seconds, and the server is on this machine",
                ));
            } else {
                self.ask(&mut reactor.context(), request);
            }
        }
        Ok(())
    }

    fn has_answer(&mut self, request: Request, right: bool) -> Result<(), Trouble> {
        if !right {
            return Err(Trouble::Scene("an answer belongs to another request"));
        }
        self.answered += 1;
        let after = match request.tries {
            0 => String::new(),
            1 => ", sent twice".to_owned(),
            tries => format!(", sent {} times", tries + 1),
        };
        let took = request.asked_at.elapsed().as_secs_f64() * 1e3;
        self.print(&format!("request  {} answered after {took:.1} ms{after}", request.number))
    }

    /// Acting twice does no harm here: the server answers with the same text in upper case.
    fn repeat(&mut self, context: &mut Context<'_>, request: Request, repeat: RetrySafety) -> Result<(), Trouble> {
        self.sent_again += 1;
        self.print(&format!(
            "request  {} lost its connection, {}, and is sent again",
            request.number,
            match repeat {
                RetrySafety::Safe => "before a byte of it had left",
                RetrySafety::IfIdempotent => "unanswered",
                RetrySafety::Unsafe => "with half an answer",
            }
        ))?;
        self.ask(context, Request { tries: request.tries + 1, ..request });
        Ok(())
    }

    /// What has changed in the pool since the last time.
    fn tell_pool(&mut self) -> Result<(), Trouble> {
        let stats = self.pool.stats();
        for _ in self.told.lost_unused..stats.lost_unused {
            self.print("pool     an unused connection was lost, and is replaced")?;
        }
        for _ in self.told.failed..stats.failed {
            self.print("pool     nobody listens there; the next try comes later")?;
        }
        self.told = stats;
        Ok(())
    }

    /// A line, with the time since the lesson began.
    fn print(&self, line: &str) -> Result<(), Trouble> {
        let mut out = io::stdout().lock();
        writeln!(out, "{:>8.3} s  {line}", self.began.elapsed().as_secs_f64()).map_err(Trouble::Stdout)
    }

    fn sums(&self) -> Result<(), Trouble> {
        let stats = self.pool.stats();
        let replaced = stats.lost_unused + stats.lost_lent;
        let lost = self.total - self.answered;
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "\nrequests: {}\nretries: {}\nreplacements: {replaced} ({} unused, {} in use)\nconnections that nobody took: {}\nlost: {lost}",
            self.total, self.sent_again, stats.lost_unused, stats.lost_lent, stats.failed
        )
        .map_err(Trouble::Stdout)?;
        if lost > 0 { Err(Trouble::Scene("requests were lost")) } else { Ok(()) }
    }
}

fn right_answer(request: Request) -> Vec<u8> {
    format!("REQUEST {}\n", request.number).into_bytes()
}
