//! Clients that are watched while something is done to the server from outside.

use std::time::{Duration, Instant};

use finale::trace::Record;

use crate::answer::End;
use crate::client::{Client, Stage};
use crate::control::{Control, Step};
use crate::session::{Broken, Fate, Open, Session};

/// What a client was about when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Its request was being answered.
    InFlight,
    /// It sends one request after the other on its connection.
    Racing,
    /// It has no complete request.
    Idle,
    /// It connects meanwhile, with one request.
    Queued,
}

/// A client that is watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lane {
    pub(crate) role: Role,
    pub(crate) name: &'static str,
    pub(crate) client: Client,
    /// The bytes of its answer, if it is not that of the baseline.
    pub(crate) expected: Option<u64>,
}

/// What was seen of a client.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) role: Role,
    pub(crate) name: &'static str,
    pub(crate) fate: Fate,
    pub(crate) end: End,
    /// When the server has ended it, and when its last byte arrived, after the begin.
    pub(crate) ended: Option<Duration>,
    pub(crate) last_byte: Option<Duration>,
    pub(crate) records: Vec<Record>,
}

/// The time between two requests on one connection, and between two new clients.
const PERIOD: Duration = Duration::from_millis(5);
/// Requests and new clients end after this time, if the server did not end them.
const LONGEST: Duration = Duration::from_millis(1_500);
/// They continue for this long after the command or the call is over: it may only have begun.
const AFTER: Duration = Duration::from_secs(1);
/// After this many refusals no more clients come.
const REFUSALS: usize = 3;
/// A client that has read a part of its answer reads on after this time.
const READS_ON: Duration = Duration::from_millis(200);

/// The clients, and what is done to the server.
pub(crate) struct Watch {
    begun: Instant,
    control: Control,
    lanes: Vec<Lane>,
    /// Clients whose connections were over before it began are not watched.
    queued: Vec<Client>,
    next_client: Instant,
    next_request: Vec<Instant>,
    /// When it was over, and how.
    pub(crate) done: Option<(Duration, Step)>,
    /// Clients come on after some were refused: the server is expected to be back.
    continues: bool,
}

impl Watch {
    pub(crate) fn new(session: &Session, control: Control, lanes: Vec<Lane>, queued: Vec<Client>) -> Self {
        let now = session.now();
        let next_request = vec![now; lanes.len()];
        Self { begun: now, control, lanes, queued, next_client: now, next_request, done: None, continues: false }
    }

    /// Clients that are refused do not end the stream of new ones.
    pub(crate) const fn expects_return(&mut self) {
        self.continues = true;
    }

    /// Watches for at most `limit`, or until all clients are over and what was done is done.
    pub(crate) fn run(&mut self, session: &mut Session, limit: Duration) -> Result<(), Broken> {
        let mut result = Ok(());
        session.wait_until(limit, |session| match self.step(session) {
            Ok(is_over) => is_over,
            Err(broken) => {
                result = Err(broken);
                true
            }
        })?;
        result
    }

    fn step(&mut self, session: &mut Session) -> Result<bool, Broken> {
        let elapsed = session.now().saturating_duration_since(self.begun);
        if self.done.is_none() {
            let step = self.control.step();
            self.done = (step != Step::Running).then_some((elapsed, step));
        }
        let is_new = self.done.as_ref().map_or(elapsed < LONGEST, |(done, _)| elapsed < (*done + AFTER));
        let is_refused = !self.continues && self.refusals(session).count() >= REFUSALS;
        if is_new && !is_refused {
            self.open_next(session)?;
        }
        for index in 0..self.lanes.len() {
            self.advance_lane(session, index, elapsed, is_new)?;
        }
        for client in self.queued.clone() {
            let seen = session.seen(client);
            if seen.stage == Stage::Ready && seen.asked == 0 && !seen.has_ended() {
                let request = session.options.request.clone();
                session.ask_with(client, &request, 1)?;
            }
            end_with_server(session, client);
        }
        let is_over = |client: Client| {
            let seen = session.seen(client);
            // A connection that is kept survives what is no stop.
            seen.has_ended() || (self.continues && seen.answers.is_some() && session.fate(client) == Fate::Answered)
        };
        let are_over = self.clients().all(is_over);
        Ok(are_over && self.done.is_some() && (is_refused || !is_new))
    }

    /// A new client, at the allowed rate.
    fn open_next(&mut self, session: &mut Session) -> Result<(), Broken> {
        let now = session.now();
        if now >= self.next_client {
            self.queued.push(session.start_now(&Open::default())?);
            self.next_client = now + (PERIOD * 2).max(Duration::from_secs(1) / session.options.rate.max(1));
        }
        Ok(())
    }

    fn advance_lane(
        &mut self,
        session: &mut Session,
        index: usize,
        elapsed: Duration,
        is_new: bool,
    ) -> Result<(), Broken> {
        let lane = self.lanes[index];
        let now = session.now();
        match lane.role {
            Role::Racing if is_new && now >= self.next_request[index] => {
                if session.can_ask(lane.client) {
                    session.ask(lane.client)?;
                    self.next_request[index] = now + PERIOD;
                }
            }
            Role::InFlight if elapsed >= READS_ON => session.resume(lane.client),
            Role::InFlight | Role::Racing | Role::Idle | Role::Queued => {}
        }
        end_with_server(session, lane.client);
        Ok(())
    }

    fn clients(&self) -> impl Iterator<Item = Client> {
        self.lanes.iter().map(|lane| lane.client).chain(self.queued.iter().copied())
    }

    /// The new clients that could not connect, and when they tried.
    fn refusals(&self, session: &Session) -> impl Iterator<Item = Instant> {
        let refused = |client: &&Client| {
            let seen = session.seen(**client);
            seen.connected.is_none() && seen.has_ended()
        };
        self.queued.iter().filter(refused).map(|client| session.seen(*client).opened)
    }

    /// When the first client could not connect.
    pub(crate) fn refused(&self, session: &Session) -> Option<Duration> {
        self.refusals(session).min().map(|at| at.saturating_duration_since(self.begun))
    }

    /// When the first client tried to connect that was served, of those that came after this time.
    pub(crate) fn served_after(&self, session: &Session, after: Duration) -> Option<Duration> {
        let served = self.queued.iter().filter(|client| session.fate_of_single(**client) == Fate::Answered);
        let opened = served.map(|client| session.seen(*client).opened.saturating_duration_since(self.begun));
        opened.filter(|opened| *opened > after).min()
    }

    pub(crate) fn elapsed(&self, session: &Session) -> Duration {
        session.now().saturating_duration_since(self.begun)
    }

    /// What was seen of all clients.
    pub(crate) fn watched(&self, session: &Session) -> Vec<Watched> {
        let queued = self.queued.iter().map(|client| Lane {
            role: Role::Queued,
            name: "new client",
            client: *client,
            expected: None,
        });
        self.lanes.iter().copied().chain(queued).map(|lane| self.watched_of(session, lane)).collect()
    }

    fn watched_of(&self, session: &Session, lane: Lane) -> Watched {
        let seen = session.seen(lane.client);
        let bytes = seen.answer.bytes;
        // Words before the request and then a FIN: a server that declines new clients in its
        // protocol.
        let is_declined = seen.stage != Stage::Ready && seen.total > 0 && seen.fin.is_some();
        let fate = match (lane.role, lane.expected) {
            (Role::Queued, _) if is_declined => Fate::Refused,
            (Role::Racing, _) => session.fate(lane.client),
            (_, Some(expected)) if bytes > 0 && bytes.abs_diff(expected) <= expected / 50 => Fate::Answered,
            (_, Some(_)) if bytes > 0 && seen.has_ended() => Fate::Cut(seen.end()),
            (_, Some(_)) if bytes > 0 => Fate::Silent,
            _ => session.fate_of_single(lane.client),
        };
        let after = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(self.begun));
        // A ladder is kept where something may be wrong: there can be hundreds of new clients.
        let is_plain = lane.role == Role::Queued && matches!(fate, Fate::Answered | Fate::Refused);
        let records = if is_plain { Vec::new() } else { session.records(lane.client) };
        let (ended, last_byte) = (after(seen.ended_by_server()), after(seen.last_byte));
        Watched { role: lane.role, name: lane.name, fate, end: seen.end(), ended, last_byte, records }
    }
}

/// A polite client ends when its server has: otherwise the server would wait for it.
fn end_with_server(session: &mut Session, client: Client) {
    let seen = session.seen(client);
    if seen.ended.is_some() {
        return;
    }
    let is_single = seen.asked > 0 && seen.answers.is_none();
    if seen.fin.is_some() || (is_single && session.has_answer(client)) {
        session.finish(client);
    }
}
