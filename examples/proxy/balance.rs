//! Which client is joined with which backend.
//!
//! Invariant: each connection to a backend has one client, and is never given to another. A client
//! is not read before it has a backend that is connected, so no byte of it is lost with a backend
//! that is down.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::header::Header;
use super::health::Health;
use finale::lifecycle::State;
use finale::{
    ConnectOptions, Context, Ending, EndingKind, Error, Event, KeepAlive, ListenOptions, Pipes, Pool, PoolEvent,
    PoolOptions, PoolReply, Socket, SocketId, SocketMap,
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
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    /// The backend, as an index.
    backend: usize,
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
            Ok(Backend { name: name.clone(), pool, live: 0, health: Health::default() })
        };
        let backends = backends.iter().map(backend).collect::<Result<_, Error>>()?;
        let (waiting, leases) = (VecDeque::new(), SocketMap::new());
        Ok(Self { backends, waiting, leases, header, pipes, next: 0 })
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
            let header_bytes = self.begin(client, id, context);
            if self.pipes.join(context, client, id).is_err() {
                // A Unix domain socket: its peer would take a cut stream for a whole one. Or the other
                // side is lost already.
                for id in [client, id] {
                    context.socket(id).into_iter().for_each(|mut socket| socket.destroy());
                }
            }
            self.leases.insert(id, Lease { backend: chosen, header_bytes });
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

    /// Handles one event. Returns a line for the log if something has failed.
    pub(crate) fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) -> Option<String> {
        let line = self.sees(socket, event);
        self.assign(&mut socket.context());
        line
    }

    fn sees(&mut self, socket: &mut Socket<'_>, event: Event<'_>) -> Option<String> {
        for backend in &mut self.backends {
            if backend.pool.handle(socket, &event) == PoolEvent::Internal {
                return backend.sees_unused(event);
            }
        }
        let is_passed_on = self.pipes.handle(socket, &event);
        if let Some(lease) = self.leases.get(socket.id()).filter(|_| socket.bytes_read() > 0) {
            self.backends[lease.backend].health.answers();
        }
        match event {
            Event::Connection => self.waiting.push_back(socket.id()),
            Event::Close(ending) => return self.closed(socket, ending),
            _ => debug_assert!(is_passed_on || !matches!(event, Event::Data(_)), "data for nobody"),
        }
        None
    }

    fn closed(&mut self, socket: &Socket<'_>, ending: &Ending) -> Option<String> {
        // A health check connects and sends nothing: that is no news of either side.
        let Some(lease) = self.leases.remove(socket.id()) else {
            let is_news = !ending.is_clean() && ending.bytes_read > 0;
            return is_news.then(|| {
                let client = ending.peer.map_or_else(|| "on a Unix socket".to_owned(), |addr| addr.to_string());
                format!("client {client}: {ending}")
            });
        };
        let is_news = ending.had_error() || (!ending.is_clean() && ending.bytes_written > lease.header_bytes);
        let backend = &mut self.backends[lease.backend];
        backend.live -= 1;
        let left_out = backend.health.ends(ending, lease.header_bytes, socket.now());
        let left_out = left_out.map_or_else(String::new, |time| format!("; left out for {} s", time.as_secs()));
        (is_news || !left_out.is_empty()).then(|| format!("{}: {ending}{left_out}", backend.name))
    }
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
    /// about the next one.
    fn sees_unused(&self, event: Event<'_>) -> Option<String> {
        let Event::Close(Ending { kind: EndingKind::Failed(error), .. }) = event else { return None };
        let what = if self.pool.last_error() == Some(error) { "can't be reached" } else { "unused connection" };
        Some(format!("{} {what}: {error}", self.name))
    }
}
