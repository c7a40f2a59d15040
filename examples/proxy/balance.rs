//! Which client is joined with which backend.
//!
//! Invariant: a client is not read before it has a backend that is connected, so no byte of it is
//! lost with a backend that is down.

use std::collections::VecDeque;
use std::time::Duration;

use finale::{
    ConnectOptions, Context, Error, Event, KeepAlive, ListenOptions, Pipes, Pool, PoolEvent, PoolOptions, PoolReply,
    Socket, SocketId, SocketMap,
};

/// How long a client waits for a backend before it is reset.
const PATIENCE: Duration = Duration::from_secs(5);

/// A pair may be silent for any time. Keep-alive detects a machine that is lost.
const ALIVE: KeepAlive = KeepAlive::after(Duration::from_secs(60));

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
    /// The backend of each connection to one.
    whose: SocketMap<usize>,
    pipes: Pipes,
    /// The backend that is tried first, so that equal ones take turns.
    next: usize,
}

struct Backend {
    name: String,
    pool: Pool,
    live: usize,
}

impl Balance {
    pub(crate) fn new(backends: &[String], options: &PoolOptions) -> Result<Self, Error> {
        let backend = |name: &String| {
            let connect = ConnectOptions::default().connect_timeout(PATIENCE).keep_alive(ALIVE);
            Ok(Backend { name: name.clone(), pool: Pool::new(name.as_str(), connect, options.clone())?, live: 0 })
        };
        let backends = backends.iter().map(backend).collect::<Result<_, Error>>()?;
        let (waiting, whose, pipes) = (VecDeque::new(), SocketMap::new(), Pipes::new());
        Ok(Self { backends, waiting, whose, pipes, next: 0 })
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
            if context.socket(client).is_none_or(|socket| socket.destroy_called()) {
                self.waiting.pop_front();
                continue;
            }
            let Some(place) = self.choose() else { return };
            let backend = &mut self.backends[place];
            let ticket = backend.pool.request(context);
            let Some((_, PoolReply::Leased(id))) = backend.pool.next_reply() else {
                // The connection has just been lost. Another backend may have one.
                backend.pool.cancel(ticket);
                continue;
            };
            backend.pool.detach(id, context);
            backend.live += 1;
            self.waiting.pop_front();
            self.whose.insert(id, place);
            if self.pipes.join(context, client, id).is_err() {
                // A Unix domain socket: its peer would take a cut stream for a whole one.
                for id in [client, id] {
                    context.socket(id).into_iter().for_each(|mut socket| socket.destroy());
                }
            } else if let Some(mut socket) = context.socket(client) {
                socket.set_deadline(None);
                socket.resume();
            }
        }
    }

    /// Of the backends with a ready connection, the one with the fewest clients. A backend that is
    /// down has no ready connection.
    fn choose(&mut self) -> Option<usize> {
        let count = self.backends.len();
        let places = (0..count).map(|step| (self.next + step) % count);
        let ready = places.filter(|place| self.backends[*place].pool.stats().ready > 0);
        let chosen = ready.min_by_key(|place| self.backends[*place].live)?;
        self.next = (chosen + 1) % count;
        Some(chosen)
    }

    /// Handles one event. Returns a line for the log if a connection did not end clean.
    pub(crate) fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) -> Option<String> {
        let line = self.sees(socket, event);
        self.assign(&mut socket.context());
        line
    }

    fn sees(&mut self, socket: &mut Socket<'_>, event: Event<'_>) -> Option<String> {
        for backend in &mut self.backends {
            if backend.pool.handle(socket, &event) == PoolEvent::Internal {
                let failed = matches!(&event, Event::Close(ending) if ending.had_error());
                return failed.then(|| format!("{} is not there", backend.name));
            }
        }
        let is_passed_on = self.pipes.handle(socket, &event);
        match event {
            Event::Connection => self.waiting.push_back(socket.id()),
            Event::Close(ending) => {
                let place = self.whose.remove(socket.id());
                if let Some(place) = place {
                    self.backends[place].live -= 1;
                }
                let who = place.map_or("a client", |place| self.backends[place].name.as_str());
                return (!ending.is_clean()).then(|| format!("{who}: {ending}"));
            }
            _ => debug_assert!(is_passed_on || !matches!(event, Event::Data(_)), "data for nobody"),
        }
        None
    }
}
