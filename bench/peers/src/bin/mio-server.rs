//! The server on bare mio, as its community writes it: one loop, a slab of small structs, each
//! socket registered once for both directions, read and written until it would block.
//!
//! Fair, because it does the least that mio requires: one registration per connection and no
//! deregistration before the close, options inherited from the listener, a first read right after
//! the accept, one buffer for all, a short read taken for a drained socket unless the read side was
//! seen closed, and no shutdown(2) where the close sends the FIN just as well.
//!
//! `mio-server answer BYTES | first REQUEST ANSWER | echo`

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::time::Duration;

use finale_load::answer::{PIECE_BYTES, piece};
use finale_peers::server::{Mode, announce, listen};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);
/// A listener that could not accept (usually out of descriptors) is tried again after this time: no
/// new edge would be reported for it.
const REST: Duration = Duration::from_millis(10);

fn main() -> io::Result<()> {
    let mode = Mode::from_args();
    let listener = listen()?;
    announce(&listener)?;
    let mut listener = TcpListener::from_std(listener);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut server = Server { mode, connections: Slab::new(), buffer: vec![0; PIECE_BYTES] };
    let mut rests = false;

    loop {
        match poll.poll(&mut events, rests.then_some(REST)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            match event.token() {
                LISTENER => rests = true,
                Token(place) => server.turn(place, event.is_read_closed()),
            }
        }
        rests = rests && server.accept(&listener, poll.registry()).is_err();
    }
}

/// What a connection does next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Reading,
    Answering,
    /// We have finished; the client's FIN has not arrived.
    Leaving,
}

struct Connection {
    stream: TcpStream,
    phase: Phase,
    /// The client's FIN may be among what can be read, so a short read does not mean that all was
    /// read.
    may_have_ended: bool,
    /// All was read, until the next edge.
    drained: bool,
    /// Bytes of the request while reading, of the answer while answering.
    count: u64,
    /// `echo`: what the client has not taken. Absent on nearly all, so it is stored separately.
    rest: Option<Box<Rest>>,
}

struct Rest {
    bytes: Vec<u8>,
    sent: usize,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self { stream, phase: Phase::Reading, may_have_ended: true, drained: false, count: 0, rest: None }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.drained {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let read = self.stream.read(buffer)?;
        self.drained = read > 0 && read < buffer.len() && !self.may_have_ended;
        Ok(read)
    }

    /// The edges during a pause of reading are gone, so a read must find what they reported.
    fn read_again(&mut self) {
        (self.may_have_ended, self.drained) = (true, false);
    }
}

struct Server {
    mode: Mode,
    connections: Slab<Connection>,
    buffer: Vec<u8>,
}

impl Server {
    /// Accepts all that wait; returns the error that stopped it, if any.
    fn accept(&mut self, listener: &TcpListener, registry: &Registry) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let place = self.connections.vacant_key();
            registry.register(&mut stream, Token(place), Interest::READABLE | Interest::WRITABLE)?;
            self.connections.insert(Connection::new(stream));
            self.serve(place);
        }
    }

    fn turn(&mut self, place: usize, read_closed: bool) {
        if let Some(connection) = self.connections.get_mut(place) {
            (connection.may_have_ended, connection.drained) = (read_closed, false);
            self.serve(place);
        }
    }

    fn serve(&mut self, place: usize) {
        let connection = &mut self.connections[place];
        let done = match self.mode {
            Mode::Answer { answer } => finish_last(connection, answer, &mut self.buffer),
            Mode::First { request, answer } => finish_first(connection, request, answer, &mut self.buffer),
            Mode::Echo => echo(connection, &mut self.buffer),
        };
        match done {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(()) | Err(_) => drop(self.connections.remove(place)),
        }
    }
}

fn finish_last(connection: &mut Connection, answer: u64, buffer: &mut [u8]) -> io::Result<()> {
    if connection.phase == Phase::Reading {
        while connection.read(buffer)? > 0 {}
        connection.phase = Phase::Answering;
    }
    send(connection, answer)
}

fn finish_first(connection: &mut Connection, request: u64, answer: u64, buffer: &mut [u8]) -> io::Result<()> {
    if connection.phase == Phase::Reading {
        while connection.count < request {
            match connection.read(buffer)? {
                0 => return Ok(()),
                read => connection.count += read as u64,
            }
        }
        (connection.phase, connection.count) = (Phase::Answering, 0);
    }
    if connection.phase == Phase::Answering {
        send(connection, answer)?;
        connection.stream.shutdown(Shutdown::Write)?;
        connection.phase = Phase::Leaving;
        connection.read_again();
    }
    while connection.read(buffer)? > 0 {}
    Ok(())
}

fn echo(connection: &mut Connection, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        while let Some(rest) = &mut connection.rest {
            rest.sent += connection.stream.write(&rest.bytes[rest.sent..])?;
            if rest.sent == rest.bytes.len() {
                connection.rest = None;
                connection.read_again();
            }
        }
        let read = connection.read(buffer)?;
        if read == 0 {
            return Ok(());
        }
        let sent = match connection.stream.write(&buffer[..read]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            sent => sent?,
        };
        if sent < read {
            connection.rest = Some(Box::new(Rest { bytes: buffer[sent..read].to_vec(), sent: 0 }));
        }
    }
}

fn send(connection: &mut Connection, answer: u64) -> io::Result<()> {
    while connection.count < answer {
        connection.count += connection.stream.write(piece(connection.count, answer))? as u64;
    }
    Ok(())
}
