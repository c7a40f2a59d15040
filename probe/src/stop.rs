//! One stop of the server, and all clients that are watched during it: several cases judge it.

use std::time::Duration;

use crate::baseline::polite;
use crate::cases::{BIG, Owed, measure_big};
use crate::client::Client;
use crate::control::{Control, Step};
use crate::options::Stop;
use crate::session::{Broken, Open, Session};
use crate::watch::{Lane, Role, Watch, Watched};

/// What was seen of a stop. Times are after its begin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stopped {
    /// Why nothing can be judged.
    pub(crate) failed: Option<String>,
    pub(crate) watched: Vec<Watched>,
    /// The process was gone, or the command or the call was over.
    pub(crate) done: Option<Duration>,
    /// How long it was watched.
    pub(crate) watched_for: Duration,
    /// The first sign of it: a connection that ended, or a client that was refused.
    pub(crate) first_sign: Option<Duration>,
    /// The first client that was refused, and the first one that was served after it.
    pub(crate) refused: Option<Duration>,
    pub(crate) served_again: Option<Duration>,
    /// A request was given that takes long enough to be in flight for certain.
    pub(crate) has_slow: bool,
}

/// Clients that send one request after the other.
const RACERS: usize = 4;
/// Clients that connect at the moment of the stop, at once.
const BURST: usize = 4;
/// Clients that send their request at the moment of the stop.
const SENT: usize = 3;
pub(crate) const HALF: &str = "half a request";
pub(crate) const JUST_SENT: &str = "a request just sent";
/// Until a request that was sent is being worked on.
const BEGUN: Duration = Duration::from_millis(100);
/// After a drain that takes as long as claimed, what is still to be seen.
const MARGIN: Duration = Duration::from_secs(2);
/// The receive window of a client that reads a part of a big answer.
const WINDOW: usize = 16 * 1024;

impl Session {
    /// The stop of the server: it happens at the first call.
    pub(crate) fn stopped(&mut self) -> Result<Stopped, Broken> {
        if self.stopped.is_none() {
            let Some(stop) = self.options.stop.clone() else { return Ok(Stopped::default()) };
            let clients = open_clients(self)?;
            // The server is stopped once, also if this machine can't see what follows.
            self.stopped = Some(stop_now(self, &stop, clients));
        }
        self.stopped.clone().unwrap_or_else(|| Ok(Stopped::default()))
    }
}

/// The clients of a stop, before it.
struct Clients {
    lanes: Vec<Lane>,
    queued: Vec<Client>,
    has_slow: bool,
    /// How long the slow request takes.
    slow_time: Duration,
}

fn open_clients(session: &mut Session) -> Result<Clients, Broken> {
    let slow = session.options.slow_request.clone();
    let big = session.options.big_request.clone();
    let (slow_bytes, slow_time) = reference(session, slow.as_deref())?;
    let big_bytes = big.as_ref().map_or(Ok(0), |big| measure_big(session, big).map(|(bytes, _)| bytes))?;
    let mut lanes = Vec::new();
    open_racers(session, &mut lanes)?;
    open_idle(session, &mut lanes)?;
    let mut add = |role, name, client, expected| lanes.push(Lane { role, name, client, expected });
    if let Some(slow) = slow {
        let client = session.open(&Open::default())?;
        session.ask_with(client, &slow, 1)?;
        add(Role::InFlight, "a slow request", client, Some(slow_bytes));
    }
    // A smaller answer is in the kernels at the stop, and no work of the server.
    let has_big = big_bytes >= BIG;
    if let Some(big) = big.filter(|_| has_big) {
        let client = session.open(&Open { window: Some(WINDOW), paused: true, ..Open::default() })?;
        session.ask_with(client, &big, 1)?;
        session.wait(BEGUN)?;
        session.sip(client);
        add(Role::InFlight, "a half-read answer", client, Some(big_bytes));
    }
    session.wait(BEGUN)?;
    let mut sent = Vec::new();
    for _ in 0..SENT {
        let client = session.open(&Open::default())?;
        add(Role::InFlight, JUST_SENT, client, None);
        sent.push(client);
    }
    // What has ended before has nothing to do with the stop.
    lanes.retain(|lane| !session.seen(lane.client).has_ended());
    let queued = (0..BURST).map(|_| session.start_now(&Open::default())).collect::<Result<Vec<Client>, _>>()?;
    let request = session.options.request.clone();
    for client in sent {
        session.ask_with(client, &request, 1)?;
    }
    session.wait(Duration::ZERO)?;
    let has_slow = session.options.slow_request.is_some() || has_big;
    Ok(Clients { lanes, queued, has_slow, slow_time })
}

fn stop_now(session: &mut Session, stop: &Stop, clients: Clients) -> Result<Stopped, Broken> {
    let control = match Control::stop(stop) {
        Ok(control) => control,
        Err(reason) => return Ok(Stopped { failed: Some(reason), ..Stopped::default() }),
    };
    let mut watch = Watch::new(session, control, clients.lanes, clients.queued);
    let drain = session.options.claims.drain.map(|drain| drain + MARGIN);
    let limit = drain.unwrap_or(session.options.timeout) + clients.slow_time * 2;
    watch.run(session, limit)?;
    let mut stopped = Stopped { has_slow: clients.has_slow, ..collect(session, &watch) };
    if stopped.failed.is_none() {
        stopped.served_again = served_again(session, &watch, &stopped)?;
    }
    Ok(stopped)
}

/// The length and the time of the answer to another request than the baseline's.
fn reference(session: &mut Session, request: Option<&[u8]>) -> Result<(u64, Duration), Broken> {
    let Some(request) = request else { return Ok((0, Duration::ZERO)) };
    let (_, _, seen) = Owed::measure(session, request)?;
    Ok((seen.answer.bytes, seen.time().unwrap_or_default()))
}

/// Opens clients that send one request after the other, and one that is idle after its first.
pub(crate) fn open_racers(session: &mut Session, lanes: &mut Vec<Lane>) -> Result<(), Broken> {
    if session.persistent.is_none() {
        return Ok(());
    }
    for number in 0..=RACERS {
        let client = session.open_persistent()?;
        session.ask(client)?;
        let limit = session.options.timeout;
        session.wait_for_answers(client, 1, limit)?;
        let (role, name) = if number == RACERS { (Role::Idle, "kept, idle") } else { (Role::Racing, "kept, busy") };
        lanes.push(Lane { role, name, client, expected: None });
    }
    Ok(())
}

fn open_idle(session: &mut Session, lanes: &mut Vec<Lane>) -> Result<(), Broken> {
    let unused = session.open(&Open::default())?;
    lanes.push(Lane { role: Role::Idle, name: "unused", client: unused, expected: None });
    let half = session.open(&Open::default())?;
    let request = session.options.request.clone();
    session.ask_with(half, &request[..request.len() / 2], 1)?;
    lanes.push(Lane { role: Role::Idle, name: HALF, client: half, expected: None });
    Ok(())
}

fn collect(session: &Session, watch: &Watch) -> Stopped {
    let watched = watch.watched(session);
    let refused = watch.refused(session);
    let ends = watched.iter().filter(|it| matches!(it.role, Role::Idle | Role::Racing)).filter_map(|it| it.ended);
    let first_sign = ends.chain(refused).min();
    let failed = match &watch.done {
        Some((_, Step::Failed(reason))) => Some(reason.clone()),
        _ if first_sign.is_none() => Some(format!(
            "the server did not stop within {} ms: no connection ended, and no client was refused",
            watch.elapsed(session).as_millis()
        )),
        _ => None,
    };
    let done = watch.done.as_ref().map(|(at, _)| *at);
    let watched_for = watch.elapsed(session);
    Stopped { failed, watched, done, watched_for, first_sign, refused, ..Stopped::default() }
}

/// Waits until clients are served again.
fn served_again(session: &mut Session, watch: &Watch, stopped: &Stopped) -> Result<Option<Duration>, Broken> {
    let since = stopped.refused.unwrap_or_default();
    if let Some(served) = watch.served_after(session, since) {
        return Ok(Some(served));
    }
    let limit = session.options.claims.restart.map_or(session.options.timeout, |claim| claim + MARGIN);
    let deadline = session.now() + limit;
    while session.now() < deadline {
        let client = polite(session)?;
        if session.outcome(client).is_clean() {
            return Ok(Some(watch.elapsed(session)));
        }
        session.wait(BEGUN)?;
    }
    Ok(None)
}
