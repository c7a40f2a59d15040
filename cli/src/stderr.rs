//! Standard error: written at once by most commands, and by a thread of its own for a server.
//!
//! Invariant: the server runs and stops, whether its log is read or not. A
//! bounded number of bytes waits in memory; lines beyond that are lost and counted.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

/// 256 KiB: some thousand lines, more than a reader that works leaves unread.
const LIMIT_BYTES: usize = 256 << 10;
/// A reader that works takes what is left within this time.
const FLUSH: Duration = Duration::from_millis(500);

/// The queue of a server. Without one, lines are written at once.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// From now on a thread writes the lines.
///
/// # Errors
/// If the system has no thread left.
pub(crate) fn use_thread() -> io::Result<()> {
    let queue = QUEUE.get_or_init(Queue::default);
    thread::Builder::new().name("stderr".to_owned()).spawn(|| queue.run(|line| anstream::stderr().write_all(line)))?;
    Ok(())
}

/// Writes one line, or passes it to the thread. Unlike `eprintln!` it doesn't panic when stderr is
/// closed.
pub(crate) fn write_line(line: &str) {
    match QUEUE.get() {
        Some(queue) => queue.push(format!("{line}\n").into_bytes()),
        None => drop(writeln!(anstream::stderr(), "{line}")),
    }
}

/// Waits until the thread has written all lines, but not for a reader that does not read.
pub(crate) fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH);
    }
}

/// The log's way to the same place. Each `write` is one record.
pub(crate) struct Log;

impl Write for Log {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        match QUEUE.get() {
            Some(queue) => queue.push(record.to_vec()),
            None => anstream::stderr().write_all(record)?,
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
    fn run(&self, mut write: impl FnMut(&[u8]) -> io::Result<()>) {
        let mut lines = self.lines();
        loop {
            let Some(line) = lines.waiting.pop_front() else {
                lines = self.changed.wait(lines).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(lines);
            let _ = write(&line);
            lines = self.lines();
            lines.bytes -= line.len();
            if lines.lost > 0 && lines.waiting.is_empty() {
                let lost = std::mem::take(&mut lines.lost);
                let report = format!("finale: {lost} lines of the log were lost: stderr was not read\n").into_bytes();
                lines.bytes += report.len();
                lines.waiting.push_back(report);
            }
            self.changed.notify_all();
        }
    }

    fn flush(&self, limit: Duration) {
        let lines = self.lines();
        let _ = self.changed.wait_timeout_while(lines, limit, |lines| lines.bytes > 0);
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
        thread::spawn(move || writer.run(|line| to.send(line.to_vec()).map_err(io::Error::other)));
        queue.flush(Duration::from_secs(60));
        queue.push(b"later\n".to_vec());
        let mut lines: Vec<_> = (0..fit + 2).map(|_| written.recv().expect("it is written")).collect();
        assert_eq!(lines.pop().expect("the last"), b"later\n");
        let report = b"finale: 7 lines of the log were lost: stderr was not read\n";
        assert_eq!(lines.pop().expect("the one before"), report);
        assert!(lines.iter().all(|written| *written == line));
    }
}
