//! The handler of the line server. It knows no reactor, so the tests run it on a simulated network.

use std::time::{Duration, Instant};

use finale::{Backpressure, Event, ListenOptions, Socket, SocketMap};

/// A longer line is refused.
pub(crate) const LINE_BYTES: usize = 1024;
/// A line must be complete this long after its first byte.
const LINE_TIME: Duration = Duration::from_secs(10);
/// A connection is over after this time, whatever it does.
const LIFE: Duration = Duration::from_secs(60 * 60);

/// Limits for clients that the server does not trust.
pub(crate) fn options(options: ListenOptions) -> ListenOptions {
    options
        .max_connections(10_000)
        .idle_timeout(Duration::from_secs(60))
        .write_timeout(Duration::from_secs(30))
        // Room for the answers to one read of 64 KiB, and no more.
        .high_water_mark(64 * 1024)
        .write_limit(256 * 1024)
}

/// All clients.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) clients: SocketMap<Client>,
}

/// A client: its incomplete line, and the end of its life.
#[derive(Debug, Default)]
pub(crate) struct Client {
    partial: Vec<u8>,
    until: Option<Instant>,
}

impl Lines {
    pub(crate) fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        match event {
            Event::Connection => {
                let until = Some(socket.now() + LIFE);
                self.clients.insert(socket.id(), Client { until, ..Client::default() });
                socket.set_deadline(LIFE);
            }
            // After our end, which a stop can bring, there is no answer any more: `write` would fail,
            // and a reset could destroy the last one.
            Event::Data(bytes) if !socket.end_called() => self.received(socket, bytes),
            Event::Drain => {
                // The client reads again, and so do we.
                socket.resume();
                let client = self.clients.or_default(socket.id());
                if !client.partial.is_empty() {
                    client.limit(socket, LINE_TIME);
                }
            }
            // An incomplete last line was cut off: it gets no answer.
            Event::End => socket.end(),
            // An idle client gets our FIN. What it sends from now on is dropped.
            Event::Timeout => self.clients.or_default(socket.id()).leave(socket),
            Event::Close(_) => drop(self.clients.remove(socket.id())),
            _ => {}
        }
    }

    fn received(&mut self, socket: &mut Socket<'_>, bytes: &[u8]) {
        let client = self.clients.or_default(socket.id());
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if client.partial.len() + part.len() > LINE_BYTES {
                send(socket, b"line too long\n");
                return client.leave(socket);
            }
            let begins = client.partial.is_empty();
            client.partial.extend_from_slice(part);
            if client.partial.ends_with(b"\n") {
                client.limit(socket, LIFE);
                if !send(socket, &client.partial.to_ascii_uppercase()) {
                    return;
                }
                client.partial.clear();
            } else if begins {
                // Only the first byte sets the deadline: later ones don't put it off.
                client.limit(socket, LINE_TIME);
            }
        }
        if socket.is_paused() {
            // The rest of the line waits for us. The write timeout bounds the pause.
            client.limit(socket, LIFE);
        }
    }
}

impl Client {
    /// A socket has one deadline, and a later call replaces it: the nearer of this time and the end
    /// of the client's life.
    fn limit(&self, socket: &mut Socket<'_>, time: Duration) {
        let life = self.until.map(|until| until.saturating_duration_since(socket.now()));
        // Zero, if the life is over, expires at once.
        socket.set_deadline(time.min(life.unwrap_or(time)));
    }

    /// Ends our side. What was written still leaves, within the client's life; what still comes is
    /// dropped.
    fn leave(&self, socket: &mut Socket<'_>) {
        self.limit(socket, LIFE);
        socket.end();
        socket.discard();
    }
}

/// Sends an answer. Returns whether the connection can continue.
fn send(socket: &mut Socket<'_>, answer: &[u8]) -> bool {
    match socket.write(answer) {
        Ok(Backpressure::Room) => true,
        Ok(Backpressure::Full) => {
            // The client sends and does not read. Until it reads, we read nothing either.
            socket.pause();
            true
        }
        Err(_) => {
            // One client is lost, and not the loop.
            socket.destroy();
            false
        }
    }
}
