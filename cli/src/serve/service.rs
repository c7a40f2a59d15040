//! The services of `finale serve`, as one shard runs them.
//!
//! Invariant: whatever one client does, the server continues for the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use finale::{Backpressure, Event, Inbox, Metrics, Shard, Socket, SocketMap};

use super::options::{ServeOptions, Service};

/// 1 MiB. A request is text of a person or a script, and a thousand such requests fit into memory.
pub(crate) const REQUEST_LIMIT_BYTES: usize = 1 << 20;
/// What `answer` repeats. Its length divides the usual sizes, so a cut or a shift is easy to see.
pub(crate) const LINE: &[u8; 64] = b"finale: 64 bytes that say nothing but that the answer is whole.\n";
/// 64 KiB, which stay in the processor's cache while they are sent repeatedly.
const PIECE_BYTES: usize = 64 << 10;
/// `answer` queues eight pieces, which one system call takes. All are the same copy in memory.
pub(super) const ANSWER_MARK_BYTES: usize = 8 * PIECE_BYTES;

/// A server without free descriptors accepts one connection for each that ends, and stops accepting
/// again at once. So it prints at most one warning per second.
struct AcceptWarnings {
    warned: Option<Instant>,
}

impl AcceptWarnings {
    fn warn(&mut self, error: finale::OsError) {
        let is_recent = self.warned.is_some_and(|warned| warned.elapsed() < Duration::from_secs(1));
        if is_recent {
            log::debug!("accept failed, and will be retried: {error}");
        } else {
            log::warn!("accept failed, and will be retried: {error}");
            self.warned = Some(Instant::now());
        }
    }
}

/// Serves until the shard stops, and answers requests for its metrics.
pub(super) fn run(
    mut shard: Shard,
    mut handler: Handler,
    mut requests: Inbox<mpsc::Sender<Metrics>>,
) -> Result<(), finale::Error> {
    let mut warnings = AcceptWarnings { warned: None };
    while let Some((mut socket, event)) = shard.next()? {
        match event {
            Event::Woken => {
                while let Some(answer) = requests.take() {
                    // The receiver may be gone.
                    let _ = answer.send(shard.reactor().metrics());
                }
            }
            Event::AcceptFailed(_, error) => warnings.warn(error),
            event => handler.serve(&mut socket, event),
        }
    }
    Ok(())
}

/// One service, with the data of its connections.
pub(super) struct Handler {
    service: Service,
    /// The connections of all shards that have not delivered `close`.
    live: Arc<AtomicUsize>,
    answer_bytes: u64,
    /// `answer`: the bytes after which it answers. `None`: at the FIN.
    after_bytes: Option<u64>,
    /// `upper`: what has arrived so far.
    requests: SocketMap<Vec<u8>>,
    /// `answer`: bytes that are still to be written, of answers that are larger than the queue.
    left_bytes: SocketMap<u64>,
    /// One copy for all clients, until the program ends.
    piece: &'static [u8],
}

impl Handler {
    pub(super) fn new(options: &ServeOptions, live: &Arc<AtomicUsize>) -> Self {
        Self {
            service: options.service,
            live: Arc::clone(live),
            answer_bytes: options.bytes.unwrap_or(64),
            after_bytes: options.after,
            requests: SocketMap::new(),
            left_bytes: SocketMap::new(),
            piece: LINE.repeat(PIECE_BYTES / LINE.len()).leak(),
        }
    }

    /// A refused write ends its connection, and not the server.
    fn serve(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        if let Err(error) = self.try_serve(socket, event) {
            log::debug!("{}: {error}", socket.id());
            socket.destroy();
        }
    }

    fn try_serve(&mut self, socket: &mut Socket<'_>, event: Event<'_>) -> Result<(), finale::Error> {
        let id = socket.id();
        match (self.service, event) {
            (Service::Upper, Event::Data(bytes)) => self.collect(socket, bytes),
            (Service::Upper, Event::End) => {
                let request = self.requests.remove(id).unwrap_or_default();
                socket.write(upper(&request).as_bytes())?;
                socket.end();
            }
            (Service::Answer, Event::End) if self.after_bytes.is_none() => self.answer(socket, self.answer_bytes)?,
            (Service::Answer, Event::End) => self.without_request(socket),
            (Service::Answer, Event::Data(_)) => self.answer_if_due(socket)?,
            (Service::Answer, Event::Drain) => {
                if let Some(left_bytes) = self.left_bytes.remove(id) {
                    self.answer(socket, left_bytes)?;
                }
            }
            (Service::Echo, Event::Data(bytes)) => echo(socket, bytes)?,
            (Service::Echo, Event::Drain) => socket.resume(),
            (Service::Echo | Service::Discard, Event::End) => socket.end(),
            (_, Event::Connection) => {
                self.live.fetch_add(1, Ordering::Relaxed);
                self.answer_if_due(socket)?;
            }
            (_, Event::Timeout) => {
                log::debug!("{id}: no byte moved for the idle time, resetting it");
                socket.destroy();
            }
            (_, Event::Error(failure)) => log::debug!("{id}: {failure}"),
            (_, Event::Close(ending)) => {
                log::debug!("{id}: {ending}");
                self.live.fetch_sub(1, Ordering::Relaxed);
                self.requests.remove(id);
                self.left_bytes.remove(id);
            }
            _ => {}
        }
        Ok(())
    }

    fn collect(&mut self, socket: &mut Socket<'_>, bytes: &[u8]) {
        let request = self.requests.or_default(socket.id());
        if request.len() + bytes.len() <= REQUEST_LIMIT_BYTES {
            request.extend_from_slice(bytes);
            return;
        }
        log::warn!("{}: the request exceeds {REQUEST_LIMIT_BYTES} bytes, resetting it", socket.id());
        self.requests.remove(socket.id());
        socket.destroy();
    }

    /// Answers a client that has sent enough, if it has no answer yet.
    fn answer_if_due(&mut self, socket: &mut Socket<'_>) -> Result<(), finale::Error> {
        let enough = self.after_bytes.is_some_and(|after_bytes| socket.bytes_read() >= after_bytes);
        if enough && !self.has_begun_to_answer(socket) {
            self.answer(socket, self.answer_bytes)?;
        }
        Ok(())
    }

    /// A client that has finished before its request was complete gets no answer.
    fn without_request(&self, socket: &mut Socket<'_>) {
        if !self.has_begun_to_answer(socket) {
            socket.end();
        }
    }

    fn has_begun_to_answer(&self, socket: &Socket<'_>) -> bool {
        socket.end_called() || self.left_bytes.get(socket.id()).is_some()
    }

    /// Writes until the queue is full or the answer is complete. Only the rest is remembered.
    fn answer(&mut self, socket: &mut Socket<'_>, mut left_bytes: u64) -> Result<(), finale::Error> {
        while left_bytes > 0 {
            let now = usize::try_from(left_bytes).unwrap_or(usize::MAX).min(self.piece.len());
            let queue = socket.write_owned(&self.piece[..now])?;
            left_bytes -= now as u64;
            if queue == Backpressure::Full && left_bytes > 0 {
                self.left_bytes.insert(socket.id(), left_bytes);
                return Ok(());
            }
        }
        socket.end();
        Ok(())
    }
}

/// Stops reading while the client does not read its echo.
fn echo(socket: &mut Socket<'_>, bytes: &[u8]) -> Result<(), finale::Error> {
    if socket.write(bytes)? == Backpressure::Full {
        socket.pause();
    }
    Ok(())
}

fn upper(request: &[u8]) -> String {
    format!("Processed: {}", String::from_utf8_lossy(request).trim().to_uppercase())
}
