//! Clients that keep their connections and are always busy.

use std::thread;
use std::time::{Duration, Instant};

use super::pipeline::patience;
use super::{Case, Finding, Need, Tally};
use crate::client::{Client, Seen, Stage};
use crate::report::{Verdict, millis};
use crate::session::{Broken, Fate, Open, Session};

pub(super) const CASES: &[Case] = &[
    Case {
        id: "recycle",
        does: "sends 2000 requests on four busy connections, and counts those that are lost",
        source: "RFC 9112 sections 9.3 and 9.6",
        cure: "Announce the end of a connection in its last answer, finish with a FIN, and read on until the client's: \
               a request that was read is answered.",
        cost: "2000 requests on 4 connections at a time, 200 if the server is not local; at most 20 s",
        needs: &[Need::Reuse],
        run: recycle,
    },
    Case {
        id: "greedy-keepalive",
        does: "keeps some clients busy on connections that they keep, and expects a new client to be served",
        source: "RFC 9112 section 9.4; listen(2)",
        cure: "Between two requests of one connection let others have their turn: a connection that is kept must \
               not keep a worker.",
        cost: "up to 16 busy connections at a time for 1 s, 6 if the server is not local; 2 s",
        needs: &[Need::Reuse],
        run: greedy,
    },
];

/// Requests of `recycle`: some servers replace a worker after a thousand.
const REQUESTS: u32 = 2_000;
/// To a server that must not be harmed: what a reader causes in some minutes.
const POLITE: u32 = 200;
/// Connections of `recycle`.
const LANES: usize = 4;
/// On a slow server `recycle` sends fewer requests.
const LONGEST: Duration = Duration::from_secs(20);
/// After this many losses the rest would show nothing new.
const ENOUGH: u32 = 20;

fn recycle(session: &mut Session) -> Result<Finding, Broken> {
    let mut tally = Tally::default();
    let (mut sent, mut ended, mut announced) = (0, 0, 0);
    let most = if session.options.may_be_hostile(session.target) { REQUESTS } else { POLITE };
    let deadline = session.now() + LONGEST;
    let mut lanes: Vec<Client> = Vec::new();
    while sent < most && tally.wrong() < ENOUGH && session.now() < deadline {
        while lanes.len() < LANES {
            lanes.push(session.open_persistent()?);
        }
        if lanes.iter().any(|lane| session.seen(*lane).failed.is_some()) {
            // The bystander shows whether the server is gone.
            break;
        }
        keep_busy(session, &lanes, deadline, |session, lane| {
            sent += 1;
            session.ask(lane).map(|()| sent < most)
        })?;
        let (over, open): (Vec<_>, Vec<_>) = lanes.iter().partition(|lane| is_over(session, **lane));
        lanes = open;
        for lane in over {
            session.settle(lane)?;
            ended += 1;
            announced += u32::from(session.is_close_announced(lane));
            judge(session, &mut tally, lane);
            session.finish(lane);
        }
    }
    let limit = patience(session);
    session.wait_until(limit, |session| lanes.iter().all(|lane| session.fate(*lane) != Fate::Silent))?;
    for lane in &lanes {
        judge(session, &mut tally, *lane);
    }
    session.leave_all(&lanes)?;
    let wrong = tally.wrong();
    let mut finding = tally.finding().with("requests", sent).with("connections ended by the server", ended);
    finding = finding.with("of these announced", announced);
    finding.summary = match wrong {
        0 => format!("{sent} requests on {LANES} connections at a time, none lost; the server ended {ended} of them"),
        _ => format!("{wrong} of {sent} requests lost; {}", finding.summary),
    };
    Ok(finding)
}

/// Lets each client that has its answer ask again, until one of them is over, `ask` returns
/// `false`, or the time is up.
fn keep_busy(
    session: &mut Session,
    clients: &[Client],
    deadline: Instant,
    mut ask: impl FnMut(&mut Session, Client) -> Result<bool, Broken>,
) -> Result<(), Broken> {
    let mut result = Ok(true);
    let limit = deadline.saturating_duration_since(session.now());
    session.wait_until(limit, |session| {
        for client in clients {
            if is_over(session, *client) {
                return true;
            }
            if session.can_ask(*client) {
                result = ask(session, *client);
                if result != Ok(true) {
                    return true;
                }
            }
        }
        false
    })?;
    result.map(|_| ())
}

/// No further request is sent on this connection.
fn is_over(session: &Session, client: Client) -> bool {
    session.seen(client).has_ended() || session.is_close_announced(client)
}

/// Counts what became of the last request on a connection.
fn judge(session: &Session, tally: &mut Tally, lane: Client) {
    let fate = session.fate(lane);
    let verdict = match &fate {
        Fate::Lost(_) | Fate::Cut(_) | Fate::Silent | Fate::Other(_) => Verdict::Fail,
        Fate::Answered | Fate::Crossed | Fate::Refused => Verdict::Pass,
    };
    tally.add(session, "last request of a connection", lane, verdict, fate);
}

/// More would be a storm, and more than a browser has for a server that must not be harmed.
const MOST: usize = 16;
const BROWSER: usize = 6;
/// A server that works on one request at a time can have as many as it answers in this time, and
/// two.
const QUEUE: Duration = Duration::from_secs(1);
/// How long they are busy at least.
const BUSY: Duration = Duration::from_secs(1);
/// New clients, one after the other.
const NEW: usize = 3;

fn greedy(session: &mut Session) -> Result<Finding, Broken> {
    // Servers often have one worker or four for each core, and a local one has our cores.
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let most = if session.options.may_be_hostile(session.target) { MOST } else { BROWSER };
    let usual = session.persistent.as_ref().map_or(Duration::ZERO, |it| it.time);
    let answered = usize::try_from(QUEUE.as_micros() / usual.as_micros().max(1)).unwrap_or(usize::MAX);
    let count = (cores * 4).min(most).min(answered.max(2));
    let mut busy = Vec::new();
    for _ in 0..count {
        let client = session.start(&Open::default())?;
        busy.push(Busy { client, answers: 0 });
    }
    let now = session.now();
    // Each of them may be before it in a queue that is fair, with a healthy client.
    let limit = patience(session) + usual * u32::try_from(count + 1).unwrap_or(1);
    let mut watch = Watch { begun: now, busy, next_open: now, news: Vec::new(), limit };
    let limit = (limit + BUSY) * 2;
    let mut result = Ok(());
    session.wait_until(limit, |session| match watch.step(session) {
        Ok(is_over) => is_over,
        Err(broken) => {
            result = Err(broken);
            true
        }
    })?;
    result?;
    let finding = watch.judge(session, count);
    let busy: Vec<Client> = watch.busy.iter().map(|busy| busy.client).collect();
    session.leave_all(&busy)?;
    Ok(finding)
}

/// A client that always has a request.
struct Busy {
    client: Client,
    /// Answers on its connections before this one.
    answers: u32,
}

/// Some greedy clients, and the new ones beside them.
struct Watch {
    begun: Instant,
    busy: Vec<Busy>,
    next_open: Instant,
    news: Vec<Client>,
    /// A new client that waits for longer starves.
    limit: Duration,
}

impl Watch {
    /// Lets all of them continue. Returns whether it is over.
    fn step(&mut self, session: &mut Session) -> Result<bool, Broken> {
        for index in 0..self.busy.len() {
            self.keep_busy(session, index)?;
        }
        let elapsed = session.now().saturating_duration_since(self.begun);
        if elapsed < BUSY / 5 {
            return Ok(false);
        }
        let limit = self.limit;
        let is_over = self.news.last().is_none_or(|new| {
            let seen = session.seen(*new);
            let waited = session.now().saturating_duration_since(seen.opened);
            seen.has_ended() || (seen.asked > 0 && session.fate(*new) == Fate::Answered) || waited > limit
        });
        if is_over && !self.news.is_empty() && (self.news.len() >= NEW || elapsed > BUSY) {
            return Ok(elapsed > BUSY);
        }
        if is_over {
            let new = session.start_now(&Open::default())?;
            self.news.push(new);
        }
        let new = self.news[self.news.len() - 1];
        if session.seen(new).stage == Stage::Ready && session.seen(new).asked == 0 {
            session.ask(new)?;
        }
        Ok(false)
    }

    /// The next request of a greedy client, on another connection if the server has ended this one.
    fn keep_busy(&mut self, session: &mut Session, index: usize) -> Result<(), Broken> {
        let busy = &mut self.busy[index];
        let now = session.now();
        if is_over(session, busy.client) {
            if now >= self.next_open {
                self.next_open = now + Duration::from_secs(1) / session.options.rate.max(1);
                busy.answers += session.answered(busy.client);
                session.finish(busy.client);
                busy.client = session.start_now(&Open::default())?;
            }
        } else if session.can_ask(busy.client) {
            session.ask(busy.client)?;
        }
        Ok(())
    }

    fn judge(&self, session: &Session, count: usize) -> Finding {
        let answers: Vec<u32> = self.busy.iter().map(|busy| busy.answers + session.answered(busy.client)).collect();
        let starved = answers.iter().filter(|answers| **answers == 0).count();
        let mut tally = Tally::default();
        let mut slowest = Duration::ZERO;
        for new in &self.news {
            let seen: &Seen = session.seen(*new);
            let fate = session.fate(*new);
            let is_served = seen.asked > 0 && fate == Fate::Answered;
            let verdict = if is_served { Verdict::Pass } else { Verdict::Fail };
            let what = if is_served { "served".to_owned() } else { format!("not served: {fate}") };
            tally.add(session, "new client", *new, verdict, what);
            let last = seen.last_byte.unwrap_or_else(|| session.now());
            slowest = slowest.max(last.saturating_duration_since(seen.opened));
        }
        let wrong = tally.wrong();
        let all: u32 = answers.iter().sum();
        let mut finding = tally.finding().with("busy clients", count).with("their requests", all);
        finding = finding.with("busy clients without an answer", starved);
        let slowest_ms = millis(slowest);
        finding = finding.with("slowest new client, ms", slowest_ms);
        finding.summary = match (wrong, starved) {
            (0, 0) => format!("with {count} busy clients a new one is served within {slowest_ms} ms"),
            (0, _) => format!("{starved} of {count} busy clients got no answer at all while others were served"),
            (wrong, _) => format!("{wrong} of {} new clients starved while {count} others were busy", self.news.len()),
        };
        if wrong == 0 && starved > 0 {
            (finding.verdict, finding.wrong) = (Verdict::Fail, 1);
        }
        finding
    }
}
