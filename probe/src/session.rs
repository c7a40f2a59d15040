//! Clients on one reactor, and the calls with which a case plays them: open, send, wait, look,
//! leave.
//!
//! Invariant: every wait has a limit, and while anything waits the bystander is served. A call that
//! waits returns `Broken` only for what makes the whole probe worthless.

mod crowd;
mod events;
mod pace;
mod persistent;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use finale::trace::{Call, What};
use finale::{ConnectOptions, SocketId, SocketMap, Stream as _};
use finale_tls::{Tls, TlsSocket};

use crate::answer::{Framing, Length, Outcome};
use crate::baseline::Baseline;
use crate::bystander::Bystander;
use crate::client::{Client, Seen, Stage};
use crate::engine::Engine;
use crate::options::Options;
use crate::stop::Stopped;
use crate::tls::{self, TlsSeen};
pub(crate) use persistent::{Fate, Persistent};

/// Why a probe can't continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Polite clients have no answer that others could be compared with.
    NoBaseline(String),
    /// This machine, not the server.
    Own(String),
    /// A command or a process that an option names did not do its part.
    Option(String),
    /// [`Options::interrupt`].
    Interrupted,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBaseline(reason) | Self::Own(reason) | Self::Option(reason) => f.write_str(reason),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// How a client is opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Open {
    /// SO_RCVBUF, set before connect(2): what the server can send without a read.
    pub(crate) window: Option<usize>,
    /// Nothing is read until [`Session::resume`] or [`Session::sip`].
    pub(crate) paused: bool,
    /// Not before the greeting and the preface: the bare connection.
    pub(crate) bare: bool,
    /// The local address, where it is not the system's choice.
    pub(crate) source: Option<IpAddr>,
    /// Without TLS, also where the others have it.
    pub(crate) raw: bool,
}

struct Entry {
    seen: Seen,
    open: Open,
    /// One delivery, then pause.
    is_sipping: bool,
}

/// A silence after which the answer to a preface is over.
const PREFACE_QUIET: Duration = Duration::from_millis(50);
/// A silence after which an answer is over that is shorter than the first one.
const SHORTER: Duration = Duration::from_secs(1);
/// How long after a FIN a reset is awaited: one round trip is enough, and this is a thousand of
/// loopback.
const SETTLE: Duration = Duration::from_millis(30);
/// How long a polite client waits for the server's FIN after its own.
pub(crate) const LEAVE: Duration = Duration::from_millis(500);

/// Clients on one reactor.
pub(crate) struct Session {
    pub(crate) engine: Box<dyn Engine>,
    /// Those of clients with TLS. Others pass through it.
    tls: Tls,
    pub(crate) target: SocketAddr,
    pub(crate) options: Options,
    /// How the end of an answer is found, as far as it is known.
    pub(crate) framing: Framing,
    /// What a polite client sees: from the first case on.
    pub(crate) baseline: Option<Baseline>,
    /// What a client sees that keeps its connection; `None` if no connection can be used twice.
    pub(crate) persistent: Option<Persistent>,
    /// The stop of the server, once it has happened.
    pub(crate) stopped: Option<Result<Stopped, Broken>>,
    /// A socket can be made deaf.
    pub(crate) can_be_deaf: bool,
    pub(crate) bystander: Bystander,
    /// By the number of the client.
    clients: BTreeMap<usize, Entry>,
    by_socket: SocketMap<usize>,
    next_client: usize,
    next_open: Option<Instant>,
    /// Its connections are ended: an interrupt is no longer looked at.
    is_ending: bool,
    /// The shortest handshake.
    pub(crate) round_trip: Option<Duration>,
    /// For how long this process was not scheduled while it waited: the machine may have been as
    /// slow to the server.
    pub(crate) stalled: Duration,
    /// The case after which the server ended polite connections without an answer for a while.
    pub(crate) limited_since: Option<&'static str>,
    /// Why no further case makes sense.
    pub(crate) down: Option<String>,
    /// The deadlines that were found.
    pub(crate) deadlines: Deadlines,
    /// Routers between, if the TTL of the server's packets shows it.
    pub(crate) hops: Option<u8>,
    /// How many clients this machine has descriptors and ports for.
    pub(crate) room: usize,
}

/// The deadlines of the server, as far as a case has found them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deadlines {
    /// Of a client that has sent nothing.
    pub(crate) silent: Option<Duration>,
    /// Of the head of a request, or of a part of a request that has no head.
    pub(crate) head: Option<Duration>,
    /// Of the body of a request.
    pub(crate) body: Option<Duration>,
    /// Between two requests.
    pub(crate) idle: Option<Duration>,
}

impl Session {
    pub(crate) fn new(engine: Box<dyn Engine>, target: SocketAddr, options: Options) -> Self {
        Self {
            engine,
            tls: tls::sessions(&options),
            target,
            framing: options.framing.clone(),
            options,
            baseline: None,
            persistent: None,
            stopped: None,
            can_be_deaf: false,
            bystander: Bystander::default(),
            clients: BTreeMap::new(),
            by_socket: SocketMap::new(),
            next_client: 0,
            next_open: None,
            is_ending: false,
            round_trip: None,
            stalled: Duration::ZERO,
            limited_since: None,
            down: None,
            deadlines: Deadlines::default(),
            hops: None,
            room: usize::MAX,
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.engine.now()
    }

    // --- opening ---

    /// Opens a client and waits until its request can be sent, or until it has failed: see
    /// [`Seen::failed`].
    pub(crate) fn open(&mut self, open: &Open) -> Result<Client, Broken> {
        let client = self.start(open)?;
        self.wait_until_ready(&[client])?;
        Ok(client)
    }

    /// Begins to open a client, at the allowed rate.
    pub(crate) fn start(&mut self, open: &Open) -> Result<Client, Broken> {
        if let Some(next) = self.next_open {
            self.wait(next.saturating_duration_since(self.now()))?;
        }
        self.next_open = Some(self.now() + Duration::from_secs(1) / self.options.rate.max(1));
        self.start_now(open)
    }

    /// The same without a look at the rate: for the bystander, and for storms.
    pub(crate) fn start_now(&mut self, open: &Open) -> Result<Client, Broken> {
        let mut options = ConnectOptions::default()
            .connect_timeout(self.options.timeout)
            .half_closed_timeout(None)
            .close_timeout(None)
            .ending_timeout(None)
            .start_paused(open.paused && !self.has_prelude(open));
        if open.paused {
            options = options.notify_peer_ended(true);
        }
        if let Some(bytes) = open.window {
            options = options.receive_buffer_size(bytes);
        }
        if let Some(source) = open.source {
            options = options.local_addr(SocketAddr::new(source, 0));
        }
        let id = self.connect(options, open.raw)?;
        let client = self.next_client;
        self.next_client += 1;
        self.by_socket.insert(id, client);
        let mut seen = Seen::new(id, self.now());
        seen.tls = self.options.tls.as_ref().filter(|_| !open.raw).map(|_| TlsSeen::default());
        self.clients.insert(client, Entry { seen, open: *open, is_sipping: false });
        Ok(Client(client))
    }

    fn connect(&mut self, options: ConnectOptions, is_raw: bool) -> Result<SocketId, Broken> {
        let Some(with) = self.options.tls.as_ref().filter(|_| !is_raw) else {
            return self.engine.connect(self.target, options).map_err(|error| Broken::Own(error.to_string()));
        };
        let (mut context, name) = (self.engine.context(), with.server_name.clone());
        let begun = self.tls.connect(&mut context, self.target, options, &with.config, name);
        begun.map_err(|error| Broken::Own(error.to_string()))
    }

    /// Whether something is exchanged before the request.
    fn has_prelude(&self, open: &Open) -> bool {
        !open.bare && (self.options.server_first || !self.options.preface.is_empty())
    }

    // --- what a client does ---

    /// Its socket; `None` once its connection is over.
    pub(crate) fn socket(&mut self, client: Client) -> Option<TlsSocket<'_>> {
        let id = self.entry(client).seen.id;
        self.engine.socket(id).map(|socket| self.tls.socket(socket))
    }

    /// Sends bytes. What is sent and ended without a wait between leaves in one segment.
    pub(crate) fn send(&mut self, client: Client, bytes: &[u8]) {
        let now = self.now();
        if let Some(mut socket) = self.socket(client) {
            // A dead connection takes nothing; that is seen anyway.
            let _ = socket.write(bytes);
        }
        let seen = &mut self.entry_mut(client).seen;
        seen.written = Some(now);
        if bytes.starts_with(b"HEAD ") {
            seen.answer.set_to_head();
            if let Some(answers) = &mut seen.answers {
                answers.is_to_head = true;
            }
        }
    }

    /// Sends its FIN, after everything sent.
    pub(crate) fn finish(&mut self, client: Client) {
        let now = self.now();
        if let Some(mut socket) = self.socket(client) {
            socket.end();
        }
        self.entry_mut(client).seen.ended.get_or_insert(now);
    }

    /// Drops the connection with a reset.
    pub(crate) fn reset(&mut self, client: Client) {
        let now = self.now();
        if let Some(mut socket) = self.socket(client) {
            socket.destroy();
        }
        self.entry_mut(client).seen.ended.get_or_insert(now);
    }

    pub(crate) fn pause(&mut self, client: Client) {
        if let Some(mut socket) = self.socket(client) {
            socket.pause();
        }
    }

    pub(crate) fn resume(&mut self, client: Client) {
        self.entry_mut(client).is_sipping = false;
        if let Some(mut socket) = self.socket(client) {
            socket.resume();
        }
    }

    /// Reads once, what has arrived, and pauses again.
    pub(crate) fn sip(&mut self, client: Client) {
        self.resume(client);
        self.entry_mut(client).is_sipping = true;
    }

    /// Makes the connection deaf: what the server sends is dropped, and nothing answers it. The
    /// kernel of the client has nothing unacknowledged then, so it sends nothing either. `false`
    /// where the system can't.
    pub(crate) fn deafen(&mut self, client: Client) -> Result<bool, Broken> {
        if !self.can_be_deaf {
            return Ok(false);
        }
        let id = self.entry(client).seen.id;
        let limit = self.options.timeout;
        // What was sent before leaves in a turn, and is acknowledged: otherwise its own
        // retransmissions would betray the client.
        self.wait(Duration::ZERO)?;
        self.wait_until(limit, |session| session.is_acked(client))?;
        let done = self.engine.set_min_ttl(id, self.target, 255).is_ok();
        self.entry_mut(client).seen.is_deaf = done;
        self.note(client, "the client is deaf from here: IP_MINTTL 255");
        Ok(done)
    }

    /// Ends the deafness.
    pub(crate) fn hear(&mut self, client: Client) {
        let id = self.entry(client).seen.id;
        let _ = self.engine.set_min_ttl(id, self.target, 0);
        self.entry_mut(client).seen.is_deaf = false;
        self.note(client, "the client hears again: IP_MINTTL 0");
    }

    /// Drops what arrives with a TTL below this: for the search for the path's TTL.
    pub(crate) fn set_min_ttl(&mut self, client: Client, ttl: u8) -> bool {
        let id = self.entry(client).seen.id;
        self.engine.set_min_ttl(id, self.target, ttl).is_ok()
    }

    /// Leaves politely: its FIN, then the server's, within half a second; else a reset.
    pub(crate) fn leave(&mut self, client: Client) -> Result<(), Broken> {
        self.resume(client);
        self.finish(client);
        if !self.wait_until(LEAVE, |session| session.seen(client).is_over())? {
            self.reset(client);
        }
        Ok(())
    }

    // --- what is seen ---

    pub(crate) fn seen(&self, client: Client) -> &Seen {
        &self.entry(client).seen
    }

    /// What arrives from now on is the answer to another request.
    pub(crate) fn mark(&mut self, client: Client) {
        self.entry_mut(client).seen.mark();
    }

    /// How the client's answer compares with a polite client's.
    pub(crate) fn outcome(&self, client: Client) -> Outcome {
        let seen = self.seen(client);
        self.baseline
            .as_ref()
            .map_or(Outcome { got: crate::answer::Got::Nothing, end: seen.end() }, |it| it.compare(seen))
    }

    /// The median time of a polite client.
    pub(crate) fn usual_time(&self) -> Duration {
        self.baseline.as_ref().map_or(Duration::ZERO, Baseline::time)
    }

    /// What the kernel says of the connection; `None` if it no longer has it.
    pub(crate) fn kernel_state(&mut self, client: Client) -> Option<&'static str> {
        let id = self.entry(client).seen.id;
        self.engine.kernel_view(id).map(|view| view.state)
    }

    /// When its FIN was with the kernel, which can be later than the call of
    /// [`finish`](Self::finish).
    pub(crate) fn fin_left(&self, client: Client) -> Option<Instant> {
        let is_fin = |what: &What| matches!(what, What::Call { call: Call::Shutdown, .. });
        let records = self.engine.recorder().records_of(self.seen(client).id);
        records.iter().find(|record| is_fin(&record.what)).map(|record| record.at)
    }

    // --- waiting ---

    /// Waits for this long.
    pub(crate) fn wait(&mut self, time: Duration) -> Result<(), Broken> {
        self.wait_until(time, |_| false).map(|_| ())
    }

    /// Waits until a client was seen to be so, for at most `limit`. Returns whether it was.
    pub(crate) fn wait_for(
        &mut self,
        client: Client,
        limit: Duration,
        is_so: impl Fn(&Seen) -> bool,
    ) -> Result<bool, Broken> {
        self.wait_until(limit, |session| is_so(session.seen(client)))
    }

    /// Waits until the answer is complete or the connection has ended, for at most the timeout. An
    /// answer of unknown length is complete after a silence of `quiet`.
    pub(crate) fn wait_for_answer(&mut self, client: Client, quiet: Duration) -> Result<(), Broken> {
        let limit = self.options.timeout;
        self.wait_until(limit, |session| {
            let seen = session.seen(client);
            let is_quiet = || seen.last_byte.is_some_and(|last| session.now().saturating_duration_since(last) >= quiet);
            let may_be_quiet = session.framing == Framing::Auto && seen.answer.http().is_none();
            seen.has_ended() || session.has_answer(client) || (may_be_quiet && is_quiet())
        })?;
        Ok(())
    }

    /// Whether the bytes of the answer are complete by themselves.
    pub(crate) fn has_answer(&self, client: Client) -> bool {
        let seen = self.seen(client);
        match self.framing {
            Framing::Auto => seen.answer.is_complete(&Framing::Http),
            // The length was learned from one answer: another may be shorter.
            Framing::Bytes(_) if self.options.framing == Framing::Auto => {
                let is_over = |last| self.now().saturating_duration_since(last) >= SHORTER;
                seen.answer.is_complete(&self.framing) || seen.last_byte.is_some_and(is_over)
            }
            _ => seen.answer.is_complete(&self.framing),
        }
    }

    /// Waits for what may follow an end: a reset after the FIN.
    pub(crate) fn settle(&mut self, client: Client) -> Result<(), Broken> {
        let time = SETTLE + self.round_trip.unwrap_or_default() * 3;
        self.wait_until(time, |session| session.seen(client).reset.is_some())?;
        Ok(())
    }

    /// Waits until something is so, for at most `limit`, and serves all clients meanwhile. Returns
    /// whether it was.
    pub(crate) fn wait_until(
        &mut self,
        limit: Duration,
        mut is_so: impl FnMut(&mut Self) -> bool,
    ) -> Result<bool, Broken> {
        let deadline = self.now() + limit;
        loop {
            if is_so(self) {
                return Ok(true);
            }
            if self.options.is_interrupted() && !self.is_ending {
                return Err(Broken::Interrupted);
            }
            let now = self.now();
            // What was sent just before leaves in a turn of its own, even if there is no time left.
            let left = deadline.saturating_duration_since(now);
            let until = if left < self.engine.shortest_wait() { now } else { deadline.min(now + TICK) };
            self.pump(until)?;
            let late = self.now().saturating_duration_since(until);
            self.stalled += late.saturating_sub(TICK);
            if now >= deadline {
                return Ok(is_so(self));
            }
            self.advance_stages();
            Bystander::advance(self)?;
        }
    }

    /// Takes clients past the greeting and the preface.
    fn advance_stages(&mut self) {
        if !self.has_prelude(&Open::default()) {
            return;
        }
        let now = self.now();
        for entry in self.clients.values_mut() {
            let quiet = entry.seen.last_byte.is_some_and(|last| now.saturating_duration_since(last) >= PREFACE_QUIET);
            let line = entry.seen.answer.head.contains(&b'\n');
            let next = match entry.seen.stage {
                Stage::Greeting if (line || quiet) && self.options.preface.is_empty() => Stage::Ready,
                Stage::Greeting if line || quiet => Stage::Preface,
                Stage::Preface if quiet => Stage::Ready,
                _ => continue,
            };
            entry.seen.stage = next;
            entry.seen.mark();
            let Some(socket) = self.engine.socket(entry.seen.id) else { continue };
            let mut socket = self.tls.socket(socket);
            if next == Stage::Preface {
                let _ = socket.write(&self.options.preface);
            } else if entry.open.paused {
                socket.pause();
            }
        }
    }

    /// Learns from a first answer how the end of the others is found.
    pub(crate) fn learn_framing(&mut self, seen: &Seen) {
        if self.framing != Framing::Auto {
            return;
        }
        let server_ended = seen.fin.is_some_and(|fin| seen.ended.is_none_or(|ended| fin <= ended));
        self.framing = match seen.answer.http().map(|http| http.length) {
            Some(Length::Bytes(_) | Length::Chunks) => Framing::Http,
            _ if server_ended => Framing::End,
            _ if seen.answer.is_a_line() => Framing::Until(b"\n".to_vec()),
            _ => Framing::Bytes(seen.answer.bytes),
        };
    }

    /// Forgets all clients, and resets those that are open: between two cases.
    pub(crate) fn clear(&mut self) -> Result<(), Broken> {
        self.end_all()?;
        self.clients.clear();
        self.by_socket = SocketMap::new();
        Ok(())
    }

    /// Ends all connections: nothing more is tried.
    pub(crate) fn end(&mut self) -> Result<(), Broken> {
        self.is_ending = true;
        self.clear()
    }

    /// How many connections were begun.
    pub(crate) fn connections(&self) -> u32 {
        u32::try_from(self.next_client).unwrap_or(u32::MAX)
    }

    fn entry(&self, client: Client) -> &Entry {
        &self.clients[&client.0]
    }

    fn entry_mut(&mut self, client: Client) -> &mut Entry {
        self.clients.get_mut(&client.0).expect("a client lives until its case is over")
    }
}

/// A wait looks again after this time, even if nothing has happened.
const TICK: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests;
