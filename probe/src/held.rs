//! The keep-alive question: does the server's kernel still have a connection? Its program notices
//! nothing of it.

use std::time::{Duration, Instant};

use finale::{KeepAlive, Stream as _};

use crate::client::Client;
use crate::session::{Broken, Session};

/// Whether the server still has a connection ([`Session::is_held`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "it is the answer to `is_held`")]
pub(crate) enum Held {
    /// Its kernel has answered keep-alive, and it has not ended.
    Held,
    /// It has sent its FIN.
    Ended,
    /// It was reset, or its kernel no longer has it.
    Gone,
    /// Its kernel does not answer.
    Silent,
}

impl Held {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Ended => "ended",
            Self::Gone => "gone",
            Self::Silent => "silent",
        }
    }
}

/// Two probes without an answer, each after a second, and some time for a busy machine.
const LIMIT: Duration = Duration::from_millis(3_500);
/// The first probe leaves after a silence of a second (tcp(7): TCP_KEEPIDLE).
const FIRST: Duration = Duration::from_secs(1);

impl Session {
    /// Whether the server's kernel still has the connection. Takes about three seconds where there
    /// is no answer, up to one where there is.
    pub(crate) fn is_held(&mut self, client: Client) -> Result<Held, Broken> {
        Ok(self.are_held(&[client])?.pop().unwrap_or(Held::Silent))
    }

    /// The same for several at once: it takes no longer.
    pub(crate) fn are_held(&mut self, clients: &[Client]) -> Result<Vec<Held>, Broken> {
        let times = KeepAlive { idle: FIRST, interval: Duration::from_secs(1), count: 2 };
        let begun = self.now();
        for client in clients {
            if let Some(mut socket) = self.socket(*client) {
                let _ = socket.socket().set_keep_alive(times);
            }
        }
        self.wait_until(LIMIT, |session| {
            clients.iter().all(|client| {
                let seen = session.seen(*client);
                let is_gone = seen.reset.is_some() || seen.failed.is_some() || seen.is_over();
                is_gone || session.was_heard_since(*client, begun) == Some(true)
            })
        })?;
        let held = clients.iter().map(|client| self.held_as_seen(*client, begun)).collect();
        for client in clients {
            if let Some(mut socket) = self.socket(*client) {
                let _ = socket.socket().set_keep_alive(None);
            }
        }
        Ok(held)
    }

    /// Whether the server's kernel has acknowledged something since then, if ours says it.
    fn was_heard_since(&self, client: Client, begun: Instant) -> Option<bool> {
        let elapsed = self.now().saturating_duration_since(begun);
        // The kernel counts in milliseconds.
        let is_younger = |ago: Duration| ago + Duration::from_millis(2) < elapsed;
        self.engine.since_last_ack(self.seen(client).id).map(is_younger)
    }

    fn held_as_seen(&self, client: Client, begun: Instant) -> Held {
        let seen = self.seen(client);
        match (seen.reset, seen.fin, seen.failed) {
            (Some(_), ..) => Held::Gone,
            (_, Some(_), _) => Held::Ended,
            (_, _, Some(_)) => Held::Silent,
            // Keep-alive is not sent while other bytes are not acknowledged: that is a silence,
            // too.
            _ if self.was_heard_since(client, begun) == Some(false) => Held::Silent,
            _ => Held::Held,
        }
    }

    /// Gives a client that was opened with a small window a larger buffer.
    pub(crate) fn widen(&mut self, client: Client, bytes: usize) {
        let id = self.seen(client).id;
        self.engine.set_receive_buffer(id, bytes);
    }

    /// How many clients a storm may have at the same time: as many as this machine has descriptors
    /// and ports for, and half of that, since others need them, too.
    pub(crate) const fn most_clients(&self) -> usize {
        self.room / 2
    }
}
