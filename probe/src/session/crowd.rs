//! Calls for several clients at once, and for clients that nothing more is asked of.

use std::time::Duration;

use super::{Broken, Client, Open, Session, Stage};
use crate::held::Held;

/// A reset of ours takes a turn of the loop; a thousand of them take some.
const ENDED: Duration = Duration::from_secs(1);
/// How long a reset is awaited that answers a byte.
const ANSWERED: Duration = Duration::from_millis(300);

impl Session {
    /// Opens clients at the allowed rate, and waits until each can send its request or has failed.
    pub(crate) fn open_all(&mut self, count: usize, open: &Open) -> Result<Vec<Client>, Broken> {
        let clients = (0..count).map(|_| self.start(open)).collect::<Result<Vec<_>, _>>()?;
        self.wait_until_ready(&clients)?;
        Ok(clients)
    }

    /// Waits until each of these can send its request or has failed.
    pub(crate) fn wait_until_ready(&mut self, clients: &[Client]) -> Result<(), Broken> {
        let limit = self.options.timeout;
        self.wait_until(limit, |session| {
            clients.iter().all(|client| {
                let seen = session.seen(*client);
                seen.stage == Stage::Ready || seen.has_ended()
            })
        })?;
        Ok(())
    }

    /// Whether the server still has connections that were deaf and hear again: each sends `byte`.
    ///
    /// Keep-alive is not enough for them. A server that has closed repeats its FIN ever more
    /// rarely, and its kernel answers keep-alive meanwhile. A byte is reset as soon as the program
    /// has closed (RFC 9293 section 3.6.1), and acknowledged before.
    pub(crate) fn ask_with_byte(&mut self, clients: &[Client], byte: &[u8]) -> Result<Vec<Held>, Broken> {
        for client in clients {
            self.send(*client, byte);
        }
        let time = ANSWERED + self.round_trip.unwrap_or_default() * 3;
        self.wait_until(time, |session| clients.iter().all(|client| session.seen(*client).reset.is_some()))?;
        let all = clients.iter().map(|client| {
            let seen = self.seen(*client).clone();
            let unacked = self.engine.kernel_view(seen.id).map(|view| view.unacked);
            match (seen.reset, seen.fin, unacked) {
                (Some(_), ..) | (_, _, None) => Held::Gone,
                (_, Some(_), _) => Held::Ended,
                (_, _, Some(0)) => Held::Held,
                (_, _, Some(_)) => Held::Silent,
            }
        });
        Ok(all.collect())
    }

    /// Whether the server's kernel has everything that the client sent.
    pub(crate) fn is_acked(&mut self, client: Client) -> bool {
        if self.queued(client) > 0 {
            return false;
        }
        let id = self.seen(client).id;
        self.engine.kernel_view(id).is_none_or(|view| view.unacked == 0)
    }

    /// Drops the connection, if it is still open, and what was seen of it: a long case with many
    /// clients needs no more memory than a short one.
    pub(crate) fn forget(&mut self, client: Client) {
        if self.clients.contains_key(&client.0) {
            self.reset(client);
        }
        if let Some(entry) = self.clients.remove(&client.0) {
            self.by_socket.remove(entry.seen.id);
        }
    }

    /// All clients that are open leave, except the bystander's: politely, since a reset is the
    /// death of a client, which is for the cases of it. Those that do not hear the server's end are
    /// reset.
    pub(crate) fn end_all(&mut self) -> Result<(), Broken> {
        let kept: Vec<Client> = self.bystander.clients().collect();
        let all = self.clients.iter().map(|(client, entry)| (Client(*client), &entry.seen));
        let open = all.filter(|(client, seen)| !kept.contains(client) && !seen.is_over());
        let (deaf, polite): (Vec<_>, Vec<_>) = open.partition(|(_, seen)| seen.is_deaf);
        let [deaf, polite] = [deaf, polite].map(|some| some.into_iter().map(|(client, _)| client).collect::<Vec<_>>());
        for client in &deaf {
            self.reset(*client);
        }
        self.leave_all(&polite)?;
        self.wait_until(ENDED, |session| {
            [&deaf, &polite].into_iter().flatten().all(|client| session.seen(*client).is_over())
        })?;
        Ok(())
    }
}
