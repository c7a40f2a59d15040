//! Which client is joined with which backend.
//!
//! Invariant: each connection to a backend has one client, and is never given to another. A client
//! is not read before it has a backend that is connected, so no byte of it is lost with a backend
//! that is down.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::header::Header;
use super::health::Health;
use finale::lifecycle::State;
use finale::{
    ConnectOptions, ConnectionError, Context, Ending, EndingKind, Error, Event, KeepAlive, ListenOptions, Pipes, Pool,
    PoolEvent, PoolOptions, PoolReply, Socket, SocketId, SocketMap,
};

/// How long a client waits for a backend before it is reset.
const PATIENCE: Duration = Duration::from_secs(5);

/// A pair may be silent for any time. Keep-alive detects a machine that is lost.
const ALIVE: KeepAlive = KeepAlive::after(Duration::from_secs(60));

/// How long a backend may acknowledge or take nothing of what was sent to it. Then its machine is
/// lost, or it hangs.
const VANISHED: Duration = Duration::from_secs(30);

/// The options of the proxy's listener: the port is shared with the next proxy, and a client is not
/// read until it has a backend.
pub(crate) fn options(listen: ListenOptions) -> ListenOptions {
    listen.reuse_port(true).start_paused(true).deadline(PATIENCE).keep_alive(ALIVE)
}

/// The pool of a backend: this many connections are kept ready.
pub(crate) fn pool(ahead: usize) -> PoolOptions {
    PoolOptions::default().size(ahead).back_off(Duration::from_millis(50), Duration::from_secs(2))
}

/// The backends and their clients.
pub(crate) struct Balance {
    backends: Vec<Backend>,
    /// Clients without a backend, in the order of their arrival.
    waiting: VecDeque<SocketId>,
    /// Connections to backends that have a client.
    leases: SocketMap<Lease>,
    /// The backend of each client that has one, as an index.
    clients: SocketMap<usize>,
    /// What each connection to a backend begins with.
    header: Option<Header>,
    pipes: Pipes,
    /// The backend that is tried first, so that equal ones take turns.
    next: usize,
}

struct Backend {
    name: String,
    pool: Pool,
    /// How many clients it has.
    live: usize,
    health: Health,
    /// Why it can't be reached, as the log has said.
    unreachable: Option<ConnectionError>,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    /// The backend, as an index.
    backend: usize,
    client: Option<SocketAddr>,
    header_bytes: u64,
}

impl Balance {
    /// `pipes` permits Unix domain sockets or not.
    pub(crate) fn new(
        backends: &[String],
        pool: &PoolOptions,
        header: Option<Header>,
        pipes: Pipes,
    ) -> Result<Self, Error> {
        let connect = ConnectOptions::default().connect_timeout(PATIENCE).keep_alive(ALIVE).user_timeout(VANISHED);
        let backend = |name: &String| {
            let pool = Pool::new(name.as_str(), connect.clone(), pool.clone())?;
            Ok(Backend { name: name.clone(), pool, live: 0, health: Health::default(), unreachable: None })
        };
        let backends = backends.iter().map(backend).collect::<Result<_, Error>>()?;
        let (waiting, leases, clients) = (VecDeque::new(), SocketMap::new(), SocketMap::new());
        Ok(Self { backends, waiting, leases, clients, header, pipes, next: 0 })
    }

    /// Opens the connections that are kept ready, before the first client connects.
    pub(crate) fn open(&mut self, context: &mut Context<'_>) {
        self.backends.iter_mut().for_each(|backend| backend.pool.open(context));
    }

    /// Opens no further connection.
    pub(crate) fn close(&mut self, context: &mut Context<'_>) {
        self.backends.iter_mut().for_each(|backend| backend.pool.close(context));
    }

    /// Gives a backend to each client that waits for one.
    fn assign(&mut self, context: &mut Context<'_>) {
        while let Some(client) = self.waiting.front().copied() {
            if context.socket(client).is_none_or(|mut client| is_lost(&mut client)) {
                self.waiting.pop_front();
                continue;
            }
            let Some(chosen) = self.choose(context.now()) else { return };
            let backend = &mut self.backends[chosen];
            let ticket = backend.pool.request(context);
            let Some((_, PoolReply::Leased(id))) = backend.pool.next_reply(context) else {
                // The connection has just been lost. Another backend may have one.
                backend.pool.cancel(ticket);
                continue;
            };
            backend.pool.detach(ticket, context);
            backend.live += 1;
            self.waiting.pop_front();
            let addr = context.socket(client).and_then(|client| client.peer_addr());
            let header_bytes = self.begin(client, id, context);
            if self.pipes.join(context, client, id).is_err() {
                // A Unix domain socket: its peer would take a cut stream for a whole one. Or the other
                // side is lost already.
                for id in [client, id] {
                    context.socket(id).into_iter().for_each(|mut socket| socket.destroy());
                }
            }
            self.leases.insert(id, Lease { backend: chosen, client: addr, header_bytes });
            self.clients.insert(client, chosen);
        }
    }

    /// Sends the header to the backend and lets the client speak. Returns the length of the header.
    fn begin(&self, client: SocketId, backend: SocketId, context: &mut Context<'_>) -> u64 {
        let Some(mut client) = context.socket(client) else { return 0 };
        client.set_deadline(None);
        client.resume();
        let Some(header) = self.header else { return 0 };
        let header = header.bytes(client.peer_addr(), client.local_addr());
        let length = header.len() as u64;
        if let Some(mut backend) = client.get(backend)
            && backend.write_owned(header).is_err()
        {
            backend.destroy();
        }
        length
    }

    /// Of the backends with a ready connection, the one with the fewest clients. A backend that is
    /// down has no ready connection. One that fails is left out, unless no other can be reached: it
    /// may still be better than none.
    fn choose(&mut self, now: Instant) -> Option<usize> {
        let is_allowed = |backend: &Backend| backend.health.allows(backend.live, now);
        let has_better = self.backends.iter().any(|backend| is_allowed(backend) && !backend.is_down());
        let can_have = |backend: &Backend| backend.pool.stats().ready > 0 && (!has_better || is_allowed(backend));
        let count = self.backends.len();
        let chosen = (0..count)
            .map(|step| (self.next + step) % count)
            .filter(|place| can_have(&self.backends[*place]))
            .min_by_key(|place| self.backends[*place].live)?;
        self.next = (chosen + 1) % count;
        Some(chosen)
    }

    /// Handles one event. Returns lines for the log if something has failed, or works again.
    pub(crate) fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) -> Vec<String> {
        let lines = self.sees(socket, event);
        self.assign(&mut socket.context());
        lines
    }

    fn sees(&mut self, socket: &mut Socket<'_>, event: Event<'_>) -> Vec<String> {
        let mut lines = Vec::new();
        for backend in &mut self.backends {
            if backend.pool.handle(socket, &event) == PoolEvent::Internal {
                lines.extend(backend.sees_unused(event));
                return lines;
            }
        }
        let is_passed_on = self.pipes.handle(socket, &event);
        if let Some(lease) = self.leases.get(socket.id()).filter(|_| socket.bytes_read() > 0) {
            let backend = &mut self.backends[lease.backend];
            lines.extend(backend.health.answers().then(|| format!("{} is back: it answers", backend.name)));
        }
        match event {
            Event::Connection => self.waiting.push_back(socket.id()),
            Event::Close(ending) => lines.extend(self.closed(socket, ending)),
            _ => debug_assert!(is_passed_on || !matches!(event, Event::Data(_)), "data for nobody"),
        }
        lines
    }

    fn closed(&mut self, socket: &Socket<'_>, ending: &Ending) -> Option<String> {
        // A health check connects and sends nothing: that is no news of either side.
        let Some(lease) = self.leases.remove(socket.id()) else {
            let backend = self.clients.remove(socket.id()).map(|backend| &self.backends[backend]);
            let is_news = !ending.is_clean() && ending.bytes_read > 0;
            return is_news.then(|| {
                let at = backend.map_or_else(String::new, |backend| format!(" at {}", backend.name));
                format!("{}{at}: {ending}", client_name(ending.peer))
            });
        };
        let is_news = ending.had_error() || (!ending.is_clean() && ending.bytes_written > lease.header_bytes);
        let backend = &mut self.backends[lease.backend];
        backend.live -= 1;
        let left_out = backend.health.ends(ending, lease.header_bytes, socket.now());
        let left_out = left_out.map_or_else(String::new, |time| format!("; left out for {} s", time.as_secs()));
        let is_news = is_news || !left_out.is_empty();
        is_news.then(|| format!("{} for {}: {ending}{left_out}", backend.name, client_name(lease.client)))
    }

    /// One line for the clients, and one for each backend.
    pub(crate) fn state(&self, context: &mut Context<'_>) -> Vec<String> {
        let waiting = self.waiting.iter().filter(|client| context.socket(**client).is_some()).count();
        let clients = format!("clients: {} with a backend, {waiting} waiting for one", self.clients.len());
        let now = context.now();
        std::iter::once(clients).chain(self.backends.iter().map(|backend| backend.state(now))).collect()
    }
}

/// A Unix domain socket has no address.
fn client_name(addr: Option<SocketAddr>) -> String {
    addr.map_or_else(|| "client on a Unix socket".to_owned(), |addr| format!("client {addr}"))
}

/// Whether a client that waits has failed or was destroyed. What it has sent has no reader.
fn is_lost(client: &mut Socket<'_>) -> bool {
    if client.state() == State::Broken {
        client.discard();
    }
    client.state() == State::Broken || client.state().is_final() || client.destroy_called()
}

impl Backend {
    /// The last attempt to connect has failed.
    fn is_down(&self) -> bool {
        self.pool.last_error().is_some()
    }

    /// An event of its unused connections. One that is lost, or does not end in time, says nothing
    /// about the next one. A backend that is down is one line, and not one for each attempt.
    fn sees_unused(&mut self, event: Event<'_>) -> Option<String> {
        let name = &self.name;
        if self.pool.last_error().is_none() && self.unreachable.take().is_some() {
            return Some(format!("{name} is back: it can be reached"));
        }
        let Event::Close(Ending { kind: EndingKind::Failed(error), .. }) = event else { return None };
        if self.pool.last_error() != Some(error) {
            return Some(format!("{name} unused connection: {error}"));
        }
        let is_known = self.unreachable.replace(error.clone()).as_ref() == Some(error);
        (!is_known).then(|| format!("{name} can't be reached: {error}"))
    }

    fn state(&self, now: Instant) -> String {
        let stats = self.pool.stats();
        let is = match (self.health.left_out(now), self.pool.last_error()) {
            (Some(time), _) => format!("left out for {:.1} s", time.as_secs_f64()),
            (None, Some(error)) => format!("can't be reached: {error}"),
            (None, None) if self.health.is_on_trial() => "on trial until it answers".to_owned(),
            (None, None) => "in use".to_owned(),
        };
        let (name, live) = (&self.name, self.live);
        format!("{name}: {is}; {live} clients, {} since the start; {} connections ready", stats.granted, stats.ready)
    }
}
