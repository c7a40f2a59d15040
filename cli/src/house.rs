//! The services of `finale serve`, as one shard runs them.
//!
//! Invariant: whatever one client does, the server goes on for the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use finale::{Backpressure, Event, Inbox, Metrics, Shard, Socket, SocketMap};

use crate::serve::{Serve, Service};

/// 1 MiB: a request is text that a person or a script made; a thousand such clients still fit into
/// memory.
pub(crate) const REQUEST_LIMIT_BYTES: usize = 1 << 20;
/// What `answer` repeats: its length divides the usual sizes, so that a cut or a shift is seen at
/// once.
pub(crate) const LINE: &[u8; 64] = b"finale: 64 bytes that say nothing but that the answer is whole.\n";
/// 64 KiB that stay in the processor's cache while they are sent again and again.
const PIECE_BYTES: usize = 64 << 10;
/// `answer` writes eight pieces ahead, which one system call takes. They are one and the same copy
/// in memory.
pub(crate) const ANSWER_MARK_BYTES: usize = 8 * PIECE_BYTES;

/// A server short of descriptors takes one connection for each that ends and rests again at once,
/// so it could warn a thousand times: it prints at most one warning per second.
struct Rests {
    warned: Option<Instant>,
}

impl Rests {
    fn tell(&mut self, error: finale::OsError) {
        let quiet = self.warned.is_some_and(|warned| warned.elapsed() < Duration::from_secs(1));
        if quiet {
            log::debug!("accepting nothing for now: accept failed: {error}");
        } else {
            log::warn!("accepting nothing for now: accept failed: {error}");
            self.warned = Some(Instant::now());
        }
    }
}

/// Serves until the shards are told to stop, and answers whoever asks for numbers meanwhile.
pub(crate) fn run(
    mut shard: Shard,
    mut house: House,
    mut asked: Inbox<mpsc::Sender<Metrics>>,
) -> Result<(), finale::Error> {
    let mut rests = Rests { warned: None };
    while let Some((mut socket, event)) = shard.next()? {
        match event {
            Event::Woken => {
                while let Some(answer) = asked.take() {
                    // Who has asked may not wait any more.
                    let _ = answer.send(shard.reactor().metrics());
                }
            }
            Event::AcceptFailed(_, error) => rests.tell(error),
            event => house.serve(&mut socket, event),
        }
    }
    Ok(())
}

/// One service and what it remembers of its clients.
pub(crate) struct House {
    service: Service,
    /// Connections that have not told `close`, of all shards.
    live: Arc<AtomicUsize>,
    answer_bytes: u64,
    /// `answer`: the bytes after which it answers, if it does not wait for the FIN.
    after_bytes: Option<u64>,
    /// `upper`: what has come so far.
    requests: SocketMap<Vec<u8>>,
    /// `answer`: bytes still to be written, of answers that are larger than what may be queued at
    /// once.
    left_bytes: SocketMap<u64>,
    /// One copy of it for all clients, and for as long as the program runs.
    piece: &'static [u8],
}

impl House {
    pub(crate) fn new(options: &Serve, live: &Arc<AtomicUsize>) -> Self {
        Self {
            service: options.service,
            live: Arc::clone(live),
            answer_bytes: options.bytes,
            after_bytes: options.after,
            requests: SocketMap::new(),
            left_bytes: SocketMap::new(),
            piece: LINE.repeat(PIECE_BYTES / LINE.len()).leak(),
        }
    }

    /// A refused write is the end of one connection, never of the server.
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
                log::debug!("{id}: silent for too long, resetting it");
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
        log::warn!("{}: a request of more than {REQUEST_LIMIT_BYTES} bytes, resetting it", socket.id());
        self.requests.remove(socket.id());
        socket.destroy();
    }

    /// Answers a client that has said enough, if it has no answer yet.
    fn answer_if_due(&mut self, socket: &mut Socket<'_>) -> Result<(), finale::Error> {
        let enough = self.after_bytes.is_some_and(|after_bytes| socket.bytes_read() >= after_bytes);
        if enough && !self.has_begun_to_answer(socket) {
            self.answer(socket, self.answer_bytes)?;
        }
        Ok(())
    }

    /// Who has finished before its request was whole gets none.
    fn without_request(&self, socket: &mut Socket<'_>) {
        if !self.has_begun_to_answer(socket) {
            socket.end();
        }
    }

    fn has_begun_to_answer(&self, socket: &Socket<'_>) -> bool {
        socket.end_called() || self.left_bytes.get(socket.id()).is_some()
    }

    /// Writes until the queue is full or the answer is whole. Only what is left over needs to be
    /// remembered.
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

/// Reads no more while the client doesn't take what it is owed.
fn echo(socket: &mut Socket<'_>, bytes: &[u8]) -> Result<(), finale::Error> {
    if socket.write(bytes)? == Backpressure::Full {
        socket.pause();
    }
    Ok(())
}

fn upper(request: &[u8]) -> String {
    format!("Processed: {}", String::from_utf8_lossy(request).trim().to_uppercase())
}
