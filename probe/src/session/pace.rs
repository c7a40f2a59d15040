//! Clients that send much, or read slowly.

use std::time::Duration;

use finale::Stream as _;

use super::{Broken, Session};
use crate::client::Client;

/// One write of an upload.
const PIECE: usize = 64 * 1024;
/// An upload of which the server's kernel takes nothing for this long is over.
const STALL: Duration = Duration::from_millis(500);
/// A slow reader looks this often whether it may read again.
const LOOK: Duration = Duration::from_millis(5);

impl Session {
    /// Uploads this many bytes, one piece after each `gap`, until the connection is dead, the
    /// server takes no more, or `is_enough`. The server's FIN does not stop it.
    pub(crate) fn upload(
        &mut self,
        client: Client,
        bytes: usize,
        gap: Duration,
        is_enough: impl Fn(&Self) -> bool,
    ) -> Result<(), Broken> {
        // Letters, so that a protocol of lines sees one long line and no odd bytes.
        let piece = vec![b'x'; PIECE.min(bytes)];
        let mut handed = 0;
        loop {
            let before = self.queued(client);
            if handed == bytes && before == 0 {
                return Ok(());
            }
            if handed < bytes && before == 0 {
                let next = piece.len().min(bytes - handed);
                self.send(client, &piece[..next]);
                handed += next;
            }
            let was_handed = self.queued(client).min(handed);
            let over = |session: &mut Self| session.seen(client).is_dead() || is_enough(session);
            let moved = |session: &mut Self| session.queued(client) < was_handed.max(1);
            if self.wait_until(gap, over)? || !self.wait_until(STALL, |it| over(it) || moved(it))? || over(self) {
                return Ok(());
            }
        }
    }

    /// Reads at this rate, until `time` is over or the end was read.
    pub(crate) fn read_slowly(&mut self, client: Client, bytes_per_second: u64, time: Duration) -> Result<(), Broken> {
        let (begun, before) = (self.now(), self.seen(client).total);
        loop {
            let passed = self.now().saturating_duration_since(begun);
            if passed >= time || self.seen(client).is_read {
                return Ok(());
            }
            let read = self.seen(client).total - before;
            let due = u128::from(bytes_per_second) * passed.as_micros() / 1_000_000;
            if u128::from(read) <= due {
                self.sip(client);
            }
            self.wait(LOOK)?;
        }
    }

    /// Bytes that wait for the client's kernel.
    pub(super) fn queued(&mut self, client: Client) -> usize {
        self.socket(client).map_or(0, |mut socket| socket.socket().queued_bytes())
    }
}
