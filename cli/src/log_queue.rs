//! The log of a server on its way to stderr: a bounded queue, and a thread that writes it.
//!
//! Invariant: the server runs and stops, whether its log is read or not. A bounded number of bytes
//! waits in memory; lines beyond that are lost and counted. Other commands have no queue.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

/// 256 KiB: some thousand lines, more than a reader that works leaves unread.
const LIMIT_BYTES: usize = 256 << 10;
/// A reader that works takes a line within this time.
const FLUSH: Duration = Duration::from_millis(500);

/// The queue of a server.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// From now on lines wait here, and a thread writes them by this function. Its own lines begin with
/// this name.
///
/// # Errors
/// If the system has no thread left.
pub(crate) fn start(name: &'static str, write: fn(&[u8]) -> io::Result<usize>) -> io::Result<()> {
    let queue = QUEUE.get_or_init(Queue::default);
    thread::Builder::new().name("log".to_owned()).spawn(move || queue.run(name, write)).map(drop)
}

/// Adds lines to the queue. Returns whether there is one.
pub(crate) fn push(lines: &[u8]) -> bool {
    QUEUE.get().map(|queue| queue.push(lines.to_vec())).is_some()
}

/// Waits until the thread has written all lines, but not for a reader that takes none for a while.
pub(crate) fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH);
    }
}

/// Lines on their way to a thread.
#[derive(Default)]
struct Queue {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    waiting: VecDeque<Vec<u8>>,
    /// Of those that wait or are being written.
    bytes: usize,
    /// Lost since the last report.
    lost: u64,
}

impl Queue {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: Vec<u8>) {
        let mut lines = self.lines();
        if lines.bytes + line.len() > LIMIT_BYTES {
            lines.lost += 1;
            return;
        }
        lines.bytes += line.len();
        lines.waiting.push_back(line);
        self.changed.notify_all();
    }

    /// Writes until the process ends. What can't be written is dropped: nothing reads it any more.
    fn run(&self, name: &str, mut write: impl FnMut(&[u8]) -> io::Result<usize>) {
        let mut lines = self.lines();
        loop {
            let Some(line) = lines.waiting.pop_front() else {
                lines = self.changed.wait(lines).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(lines);
            let mut rest = &line[..];
            while !rest.is_empty() {
                let Ok(written @ 1..) = write(rest) else { break };
                rest = &rest[written..];
            }
            lines = self.lines();
            lines.bytes -= line.len();
            if lines.lost > 0 && lines.waiting.is_empty() {
                let lost = std::mem::take(&mut lines.lost);
                let report = format!("{name}: {lost} lines of the log were lost: stderr was not read\n").into_bytes();
                lines.bytes += report.len();
                lines.waiting.push_back(report);
            }
            self.changed.notify_all();
        }
    }

    fn flush(&self, limit: Duration) {
        let mut lines = self.lines();
        while lines.bytes > 0 {
            let before = lines.bytes;
            let waited = self.changed.wait_timeout_while(lines, limit, |lines| lines.bytes == before);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
            if lines.bytes == before {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn lines_that_are_not_read_are_bounded_and_their_number_is_reported_once() {
        let queue = Arc::new(Queue::default());
        let line = vec![b'x'; 1 << 10];
        let fit = LIMIT_BYTES / line.len();
        (0..fit + 7).for_each(|_| queue.push(line.clone()));
        queue.flush(Duration::ZERO);
        assert_eq!(queue.lines().waiting.len(), fit);
        let (to, written) = channel();
        let writer = Arc::clone(&queue);
        thread::spawn(move || {
            writer.run("finale", |line| to.send(line.to_vec()).map(|()| line.len()).map_err(io::Error::other));
        });
        queue.flush(Duration::from_secs(60));
        queue.push(b"later\n".to_vec());
        let mut lines: Vec<_> = (0..fit + 2).map(|_| written.recv().expect("it is written")).collect();
        assert_eq!(lines.pop().expect("the last"), b"later\n");
        let report = b"finale: 7 lines of the log were lost: stderr was not read\n";
        assert_eq!(lines.pop().expect("the one before"), report);
        assert!(lines.iter().all(|written| *written == line));
    }
}
