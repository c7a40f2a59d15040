//! The services of `finale serve`, as one shard runs them.
//!
//! Invariant: whatever one client does, the server continues for the others.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use finale::net::Net;
use finale::trace::Recorder;
use finale::{
    Backpressure, ConnectionErrorKind, Event, Inbox, Shard, SocketId, SocketMap, Sockets, Stream, TimeoutKind,
};
use finale_tls::Tls;

use super::ladder;
use super::metrics::{Counts, Last, Request};
use super::options::{ServeOptions, Service};
use super::proxy_header::{self, NoHeader};

/// 1 MiB. A request is text of a person or a script, and a thousand such requests fit into memory.
pub(crate) const REQUEST_LIMIT_BYTES: usize = 1 << 20;
/// What `answer` repeats. Its length divides the usual sizes, so a cut or a shift is easy to see.
pub(crate) const LINE: &[u8; 64] = b"finale: 64 bytes that say nothing but that the answer is whole.\n";
/// 64 KiB, which stay in the processor's cache while they are sent repeatedly.
const PIECE_BYTES: usize = 64 << 10;
/// `answer` queues eight pieces, which one system call takes. All are the same copy in memory.
pub(super) const ANSWER_MARK_BYTES: usize = 8 * PIECE_BYTES;

/// A balancer sends its header with the first bytes.
const HEADER_LIMIT: Duration = Duration::from_secs(10);
/// Why a connection fails then.
const HEADER_LATE: ConnectionErrorKind = ConnectionErrorKind::TimedOut(TimeoutKind::Deadline);
/// How many clients a stop names.
const NAMED: usize = 20;

/// Warnings, at most one per second: what one client causes, thousands can.
#[derive(Default)]
struct Warnings {
    warned: Option<Instant>,
    held_back: u64,
}

impl Warnings {
    fn warn(&mut self, warning: fmt::Arguments<'_>) {
        match self.is_due(Instant::now()) {
            None => log::debug!("{warning}"),
            Some(0) => log::warn!("{warning}"),
            Some(held_back) => log::warn!("{warning} (warnings before it that were not printed: {held_back})"),
        }
    }

    /// Whether a warning may be printed, and how many were held back since the last one.
    fn is_due(&mut self, now: Instant) -> Option<u64> {
        if self.warned.is_some_and(|warned| now - warned < Duration::from_secs(1)) {
            self.held_back += 1;
            return None;
        }
        self.warned = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

/// What one shard does.
pub(super) struct Work {
    pub(super) handler: Handler,
    /// The sessions, if connections have TLS.
    pub(super) tls: Option<Tls>,
    /// Requests for its metrics.
    pub(super) requests: Inbox<Request>,
    /// For its metrics at its end.
    pub(super) last: Last,
}

/// Serves until the shard stops or fails, and answers requests for its metrics.
pub(super) fn run<N: Net>(mut shard: Shard<N>, mut work: Work) -> Result<(), finale::Error> {
    let served = serve(&mut shard, &mut work);
    // Before the requests that are left are dropped.
    let _ = work.last.set(Counts::new(shard.reactor().metrics(), work.tls.as_ref()));
    served
}

fn serve<N: Net>(shard: &mut Shard<N>, work: &mut Work) -> Result<(), finale::Error> {
    let Work { handler, tls, requests, .. } = work;
    let mut is_stopping = false;
    while let Some((mut socket, event)) = shard.next()? {
        match event {
            Event::Woken => {
                while let Some(answer) = requests.take() {
                    // The receiver may be gone.
                    let _ = answer.send(Counts::new(shard.reactor().metrics(), tls.as_ref()));
                }
                if shard.is_stopping() && !std::mem::replace(&mut is_stopping, true) {
                    handler.name_clients(&shard.reactor().sockets());
                }
            }
            Event::AcceptFailed(_, error) => {
                handler.warnings.warn(format_args!("accept failed, and will be retried: {error}"));
            }
            event => match tls {
                None => handler.serve(&mut socket, event),
                Some(tls) => {
                    let mut events = tls.handle(&mut socket, event);
                    while let Some((mut stream, event)) = events.next() {
                        handler.serve(&mut stream, event);
                    }
                }
            },
        }
    }
    Ok(())
}

/// What is known of a connection besides what its reactor knows, once there is something.
#[derive(Default)]
struct Client {
    /// From a PROXY header.
    addr: Option<SocketAddr>,
    /// The bytes of a PROXY header that is not complete.
    header: Option<Vec<u8>>,
    header_bytes: u64,
    /// `upper`: what has arrived so far.
    request: Vec<u8>,
    /// `answer`: bytes that are still to be written, of an answer that is larger than the queue.
    left_bytes: u64,
    /// Why we have reset it, if we have.
    reason: Option<&'static str>,
}

/// A client in a message. It has no address on a Unix domain socket.
struct Name(SocketId, Option<SocketAddr>);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(_, Some(addr)) => addr.fmt(f),
            Self(id, None) => write!(f, "{id} on a Unix domain socket"),
        }
    }
}

/// One service, with the data of its connections.
pub(super) struct Handler {
    service: Service,
    /// The connections of all shards that have not delivered `close`.
    live: Arc<AtomicUsize>,
    /// Most connections need no entry.
    clients: SocketMap<Client>,
    warnings: Warnings,
    /// Whether each connection begins with a PROXY header.
    has_header: bool,
    answer_bytes: u64,
    /// `answer`: the bytes after which it answers. `None`: at the FIN.
    after_bytes: Option<u64>,
    /// One copy for all clients, until the program ends.
    piece: &'static [u8],
    /// What --trace records of this shard's connections.
    recorder: Option<Recorder>,
}

impl Handler {
    pub(super) fn new(options: &ServeOptions, live: &Arc<AtomicUsize>, recorder: Recorder) -> Self {
        Self {
            service: options.service,
            live: Arc::clone(live),
            clients: SocketMap::new(),
            warnings: Warnings::default(),
            has_header: options.proxy_protocol,
            answer_bytes: options.bytes.unwrap_or(64),
            after_bytes: options.after,
            piece: LINE.repeat(PIECE_BYTES / LINE.len()).leak(),
            recorder: options.trace.map(|_| recorder),
        }
    }

    /// A refused write ends its connection, and not the server.
    fn serve(&mut self, socket: &mut impl Stream, event: Event<'_>) {
        if let Err(error) = self.try_serve(socket, event) {
            log::debug!("{}: {error}", socket.id());
            socket.destroy();
        }
    }

    fn try_serve(&mut self, socket: &mut impl Stream, event: Event<'_>) -> Result<(), finale::Error> {
        match event {
            Event::Connection => {
                self.live.fetch_add(1, Ordering::Relaxed);
                if self.has_header {
                    self.clients.insert(socket.id(), Client { header: Some(Vec::new()), ..Client::default() });
                    socket.socket().set_deadline(HEADER_LIMIT);
                } else {
                    self.answer_if_due(socket)?;
                }
            }
            Event::Data(bytes) if self.awaits_header(socket) => self.take_header(socket, bytes)?,
            // A balancer's check that the port is open.
            Event::End if socket.bytes_read() == 0 && self.awaits_header(socket) => socket.end(),
            Event::End | Event::Timeout if self.awaits_header(socket) => self.without_header(socket),
            Event::Timeout => {
                self.reset(socket, "no byte moved for the idle timeout");
            }
            Event::Error(failure) => {
                log::debug!("{}: {failure}", socket.id());
                if self.awaits_header(socket) && failure.kind == HEADER_LATE {
                    self.without_header(socket);
                }
            }
            Event::Close(ending) => {
                self.live.fetch_sub(1, Ordering::Relaxed);
                let id = socket.id();
                let client = self.clients.remove(id);
                let name = Name(id, client.as_ref().and_then(|client| client.addr).or(ending.peer));
                if let Some(recorder) = &self.recorder {
                    ladder::print(recorder, id, &name, ending);
                }
                match client.and_then(|client| client.reason) {
                    Some(reason) => log::info!("{name}: {ending} ({reason})"),
                    None => log::info!("{name}: {ending}"),
                }
            }
            event => self.answer_event(socket, event)?,
        }
        Ok(())
    }

    /// What the service does with the client's bytes.
    fn answer_event(&mut self, socket: &mut impl Stream, event: Event<'_>) -> Result<(), finale::Error> {
        match (self.service, event) {
            (Service::Upper, Event::Data(bytes)) => self.collect(socket, bytes),
            (Service::Upper, Event::End) => {
                let client = self.clients.get_mut(socket.id());
                let request = client.map(|client| std::mem::take(&mut client.request)).unwrap_or_default();
                socket.write(upper(&request).as_bytes())?;
                socket.end();
            }
            (Service::Answer, Event::End) if self.after_bytes.is_none() => self.answer(socket, self.answer_bytes)?,
            (Service::Answer, Event::End) => self.without_request(socket),
            (Service::Answer, Event::Data(_)) => self.answer_if_due(socket)?,
            (Service::Answer, Event::Drain) => {
                let client = self.clients.get_mut(socket.id());
                let left_bytes = client.map_or(0, |client| std::mem::take(&mut client.left_bytes));
                self.answer(socket, left_bytes)?;
            }
            (Service::Echo, Event::Data(bytes)) => echo(socket, bytes)?,
            (Service::Echo, Event::Drain) => socket.resume(),
            (Service::Echo | Service::Discard, Event::End) => socket.end(),
            _ => {}
        }
        Ok(())
    }

    fn awaits_header(&self, socket: &impl Stream) -> bool {
        self.has_header && self.clients.get(socket.id()).is_some_and(|client| client.header.is_some())
    }

    /// The bytes after the header are the client's.
    fn take_header(&mut self, socket: &mut impl Stream, bytes: &[u8]) -> Result<(), finale::Error> {
        let Some(client) = self.clients.get_mut(socket.id()) else { return Ok(()) };
        let mut header = client.header.take().unwrap_or_default();
        header.extend_from_slice(bytes);
        match proxy_header::parse(&header) {
            Ok(Some(parsed)) => {
                client.addr = parsed.client;
                client.header_bytes = parsed.bytes as u64;
                socket.socket().set_deadline(None);
                self.answer_if_due(socket)?;
                match &header[parsed.bytes..] {
                    [] => Ok(()),
                    rest => self.answer_event(socket, Event::Data(rest)),
                }
            }
            Ok(None) => {
                client.header = Some(header);
                Ok(())
            }
            Err(NoHeader) => {
                self.without_header(socket);
                Ok(())
            }
        }
    }

    fn without_header(&mut self, socket: &mut impl Stream) {
        let name = Name(socket.id(), socket.socket().peer_addr());
        self.warnings.warn(format_args!("{name}: the connection begins without a PROXY header, resetting it"));
        self.reset(socket, "no PROXY header");
    }

    fn reset(&mut self, socket: &mut impl Stream, reason: &'static str) {
        self.clients.or_default(socket.id()).reason = Some(reason);
        socket.destroy();
    }

    /// What a stop waits for.
    fn name_clients(&self, sockets: &Sockets) {
        for socket in sockets.iter().take(NAMED) {
            let addr = self.clients.get(socket.id).and_then(|client| client.addr).or(socket.peer);
            log::info!("stopping: waiting for {}", Name(socket.id, addr));
        }
        let more = sockets.len().saturating_sub(NAMED);
        if more > 0 {
            log::info!("stopping: waiting for {more} more");
        }
    }

    fn collect(&mut self, socket: &mut impl Stream, bytes: &[u8]) {
        let client = self.clients.or_default(socket.id());
        if client.request.len() + bytes.len() <= REQUEST_LIMIT_BYTES {
            client.request.extend_from_slice(bytes);
            return;
        }
        client.request = Vec::new();
        let name = Name(socket.id(), client.addr.or(socket.socket().peer_addr()));
        self.warnings.warn(format_args!("{name}: the request exceeds {REQUEST_LIMIT_BYTES} bytes, resetting it"));
        self.reset(socket, "the request is too long");
    }

    /// Answers a client that has sent enough, if it has no answer yet.
    fn answer_if_due(&mut self, socket: &mut impl Stream) -> Result<(), finale::Error> {
        let enough = self.after_bytes.is_some_and(|after_bytes| self.bytes_read(socket) >= after_bytes);
        if enough && !self.has_begun_to_answer(socket) {
            self.answer(socket, self.answer_bytes)?;
        }
        Ok(())
    }

    /// Without the header.
    fn bytes_read(&self, socket: &impl Stream) -> u64 {
        let header_bytes = self.clients.get(socket.id()).map_or(0, |client| client.header_bytes);
        socket.bytes_read().saturating_sub(header_bytes)
    }

    /// A client that has finished before its request was complete gets no answer.
    fn without_request(&self, socket: &mut impl Stream) {
        if !self.has_begun_to_answer(socket) {
            socket.end();
        }
    }

    fn has_begun_to_answer(&self, socket: &impl Stream) -> bool {
        socket.end_called() || self.clients.get(socket.id()).is_some_and(|client| client.left_bytes > 0)
    }

    /// Writes until the queue is full or the answer is complete. Only the rest is remembered.
    fn answer(&mut self, socket: &mut impl Stream, mut left_bytes: u64) -> Result<(), finale::Error> {
        while left_bytes > 0 {
            let now = usize::try_from(left_bytes).unwrap_or(usize::MAX).min(self.piece.len());
            let queue = socket.write_owned(&self.piece[..now])?;
            left_bytes -= now as u64;
            if queue == Backpressure::Full && left_bytes > 0 {
                self.clients.or_default(socket.id()).left_bytes = left_bytes;
                return Ok(());
            }
        }
        socket.end();
        Ok(())
    }
}

/// Stops reading while the client does not read its echo.
fn echo(socket: &mut impl Stream, bytes: &[u8]) -> Result<(), finale::Error> {
    if socket.write(bytes)? == Backpressure::Full {
        socket.pause();
    }
    Ok(())
}

fn upper(request: &[u8]) -> String {
    format!("Processed: {}", String::from_utf8_lossy(request).trim().to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_come_once_per_second_with_the_number_of_those_held_back() {
        let (mut warnings, begun) = (Warnings::default(), Instant::now());
        let due = [0, 1, 999, 1_000, 1_001, 2_500].map(|ms| warnings.is_due(begun + Duration::from_millis(ms)));
        assert_eq!(due, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
