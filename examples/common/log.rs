//! A log that never holds up the program: lines wait in a bounded queue, and a thread writes them.
//!
//! Invariant: no call waits for the reader of the log. If it is stuck, lines are lost, and the log
//! says how many. If it is gone, all further lines are lost. `println!` would wait, or panic.

use std::fmt::Display;
use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use finale::Ending;

/// Lines that wait for the thread. Enough for a burst, and less than 1 MiB.
const LINES: usize = 4096;
/// How long the end of the program waits until the last lines are written.
const FLUSH: Duration = Duration::from_millis(500);

/// Whether a connection carried no byte: a health check, which deserves no line.
#[allow(dead_code, reason = "some programs have no health checks, or report each connection")]
pub(crate) const fn is_health_check(ending: &Ending) -> bool {
    ending.bytes_read == 0 && ending.bytes_written == 0
}

/// A log. It is flushed when it is dropped.
pub(crate) struct Log {
    /// `None` while it is dropped.
    lines: Option<SyncSender<String>>,
    /// The thread's half is dropped when everything is written.
    written: Receiver<()>,
    lost: u64,
}

impl Log {
    /// A log on the standard output.
    pub(crate) fn new() -> Self {
        Self::to(std::io::stdout())
    }

    pub(crate) fn to(mut out: impl Write + Send + 'static) -> Self {
        let (lines, queue) = sync_channel::<String>(LINES);
        let (done, written) = sync_channel(0);
        std::thread::spawn(move || {
            for line in queue {
                if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
                    break; // The reader is gone.
                }
            }
            drop(done);
        });
        Self { lines: Some(lines), written, lost: 0 }
    }

    /// Writes a line, or drops it if too many wait.
    pub(crate) fn line(&mut self, line: impl Display) {
        if self.lost > 0 && self.send(format!("{} lines were lost", self.lost)) {
            self.lost = 0;
        }
        if !self.send(line.to_string()) {
            self.lost += 1;
        }
    }

    /// Returns whether the thread can write it. If the reader is gone, no line counts as lost.
    fn send(&self, line: String) -> bool {
        let Some(lines) = &self.lines else { return false };
        !matches!(lines.try_send(line), Err(TrySendError::Full(_)))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.lines = None;
        let _ = self.written.recv_timeout(FLUSH);
    }
}
