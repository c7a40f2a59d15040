//! From the greeting of a client to its tunnel.
//!
//! Invariant: a client is read only for its greeting and its request, of which at most one read
//! waits; then it is paused until its tunnel exists.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use finale::{
    ConnectOptions, ConnectionErrorKind, Ending, EndingKind, Event, Pipes, Socket, SocketId, SocketMap, Target,
};

/// How long a client may take for its request, and we for its connection.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Replies (RFC 1928 section 6).
const SUCCEEDED: u8 = 0;
const FAILED: u8 = 1;
const UNREACHABLE: u8 = 4;
const REFUSED: u8 = 5;
const TIMED_OUT: u8 = 6;
const NOT_SUPPORTED: u8 = 7;
const BAD_ADDRESS: u8 = 8;
/// In a reply that has no address.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

#[derive(Default)]
pub(crate) struct Proxy {
    /// What clients without a request have sent, and whether they are greeted.
    clients: SocketMap<(Vec<u8>, bool)>,
    /// The client of a connection that is not established yet, and the other way round.
    waiting: SocketMap<SocketId>,
    pipes: Pipes,
}

/// A message and its length, nothing while a part is missing, or the reply to a wrong one.
type Parsed<T> = Result<Option<(T, usize)>, u8>;

impl Proxy {
    /// One event. Returns a line for the log when a connection has ended in another way than clean.
    pub(crate) fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) -> Option<String> {
        if self.pipes.handle(socket, &event) {
            return None;
        }
        match event {
            Event::Connection => drop(self.clients.insert(socket.id(), Default::default())),
            Event::Data(bytes) => self.read(socket, bytes),
            // A client that has finished before its tunnel exists can't use one.
            Event::End if self.clients.remove(socket.id()).is_some() => socket.destroy(),
            Event::Ready => self.connected(socket),
            Event::Close(ending) => {
                self.clients.remove(socket.id());
                if let Some(other) = self.waiting.remove(socket.id()) {
                    self.waiting.remove(other);
                    let is_backend = socket.listener().is_none();
                    match socket.get(other) {
                        Some(mut client) if is_backend => self.refuse(&mut client, &reply(reply_for(ending), UNKNOWN)),
                        Some(mut backend) => backend.destroy(),
                        None => {}
                    }
                }
                // A health check connects and sends nothing.
                let is_news = !ending.is_clean() && ending.bytes_read > 0;
                return is_news.then(|| format!("{}: {ending}", socket.id()));
            }
            _ => {}
        }
        None
    }

    /// Bytes of a client that has no tunnel.
    fn read(&mut self, socket: &mut Socket<'_>, bytes: &[u8]) {
        let Some((buffer, is_greeted)) = self.clients.get_mut(socket.id()) else { return };
        buffer.extend_from_slice(bytes);
        if !*is_greeted {
            match greeting(buffer) {
                Ok(None) => return,
                Ok(Some((true, length))) if socket.write(&[5, 0]).is_ok() => {
                    buffer.drain(..length);
                    *is_greeted = true;
                }
                Ok(Some((false, _))) => return self.refuse(socket, &[5, 0xff]),
                _ => return socket.destroy(),
            }
        }
        match request(buffer) {
            Ok(None) => {}
            Err(code) => self.refuse(socket, &reply(code, UNKNOWN)),
            Ok(Some((target, length))) => {
                let early = buffer.split_off(length);
                self.connect(socket, target, &early);
            }
        }
    }

    /// Opens the connection for a client, which waits unread.
    fn connect(&mut self, client: &mut Socket<'_>, target: Target, early: &[u8]) {
        let options = ConnectOptions::default().connect_timeout(PATIENCE);
        let Ok(id) = client.connect(target, options) else {
            return self.refuse(client, &reply(BAD_ADDRESS, UNKNOWN));
        };
        self.clients.remove(client.id());
        if let Some(mut backend) = client.get(id) {
            let _ = backend.write(early); // Empty, unless the client has not waited for our reply.
        }
        client.pause();
        client.set_deadline(None); // The connect timeout rules.
        self.waiting.insert(id, client.id());
        self.waiting.insert(client.id(), id);
    }

    /// The connection is established: the tunnel begins.
    fn connected(&mut self, backend: &mut Socket<'_>) {
        let Some(id) = self.waiting.remove(backend.id()) else { return };
        self.waiting.remove(id);
        let bound = backend.local_addr().unwrap_or(UNKNOWN);
        let Some(mut client) = backend.get(id) else { return backend.destroy() };
        if client.write(&reply(SUCCEEDED, bound)).is_err() {
            client.destroy(); // Its `close` comes after the tunnel, which takes the other along.
        }
        client.resume();
        let server = backend.id();
        if self.pipes.join(&mut backend.context(), id, server).is_err() {
            // A client of a Unix domain socket would take a cut stream for a whole one.
            backend.get(id).into_iter().for_each(|mut client| client.destroy());
            backend.destroy();
        }
    }

    /// The last answer to a client, which is not read any more.
    fn refuse(&mut self, client: &mut Socket<'_>, answer: &[u8]) {
        self.clients.remove(client.id());
        let _ = client.write(answer);
        client.end();
        client.discard();
    }
}

fn reply_for(ending: &Ending) -> u8 {
    let EndingKind::Failed(error) = &ending.kind else { return FAILED };
    match error.kind {
        ConnectionErrorKind::Refused => REFUSED,
        ConnectionErrorKind::Unreachable | ConnectionErrorKind::Lookup(_) => UNREACHABLE,
        ConnectionErrorKind::TimedOut(_) => TIMED_OUT,
        _ => FAILED,
    }
}

fn reply(code: u8, bound: SocketAddr) -> Vec<u8> {
    let mut reply = vec![5, code, 0];
    match bound.ip() {
        IpAddr::V4(ip) => reply.extend([&[1], &ip.octets()[..]].concat()),
        IpAddr::V6(ip) => reply.extend([&[4], &ip.octets()[..]].concat()),
    }
    reply.extend(bound.port().to_be_bytes());
    reply
}

/// Whether "no authentication" is among the methods of a greeting.
fn greeting(bytes: &[u8]) -> Parsed<bool> {
    match bytes {
        [] | [5] => Ok(None),
        [5, count, methods @ ..] => {
            let length = usize::from(*count);
            Ok(methods.get(..length).map(|methods| (methods.contains(&0), 2 + length)))
        }
        _ => Err(FAILED),
    }
}

/// The target of a request.
fn request(bytes: &[u8]) -> Parsed<Target> {
    let (skip, length) = match bytes {
        [] | [5] | [5, _] | [5, _, 0] | [5, 1, 0, 3] => return Ok(None),
        [5, 1, 0, 1, ..] => (4, 4),
        [5, 1, 0, 4, ..] => (4, 16),
        [5, 1, 0, 3, length, ..] => (5, usize::from(*length)),
        [5, 1, 0, ..] => return Err(BAD_ADDRESS),
        [5, _, 0, ..] => return Err(NOT_SUPPORTED),
        _ => return Err(FAILED),
    };
    let Some(&[ref addr @ .., high, low]) = bytes.get(skip..skip + length + 2) else { return Ok(None) };
    let port = u16::from_be_bytes([high, low]);
    let target = match (<[u8; 4]>::try_from(addr), <[u8; 16]>::try_from(addr), bytes[3]) {
        (Ok(ip), _, 1) => Target::from((IpAddr::from(ip), port)),
        (_, Ok(ip), 4) => Target::from((IpAddr::from(ip), port)),
        _ => {
            let host = std::str::from_utf8(addr).map_err(|_| BAD_ADDRESS)?;
            Target::try_from((host, port)).map_err(|_| BAD_ADDRESS)?
        }
    };
    Ok(Some((target, skip + length + 2)))
}
