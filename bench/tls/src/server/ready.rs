//! The loop of the two servers on bare mio: one registration per connection, edge-triggered.

use std::io;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);
/// A listener that could not accept (usually out of descriptors) is tried again after this time: no
/// new edge would be reported for it.
const REST: Duration = Duration::from_millis(10);

/// What a server does with its connections.
pub(super) trait Handler {
    type Connection;

    /// A connection for an accepted stream.
    fn open(&mut self, stream: TcpStream) -> io::Result<Self::Connection>;

    /// The stream may be ready; `read_closed` if the client's FIN may be among what can be read. An
    /// error of any kind but `WouldBlock`, and `Ok`, end the connection.
    fn serve(&mut self, connection: &mut Self::Connection, read_closed: bool) -> io::Result<()>;
}

pub(super) fn run<H: Handler>(listener: std::net::TcpListener, mut handler: H) -> io::Result<()> {
    let mut listener = TcpListener::from_std(listener);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut connections = Slab::new();
    let mut rests = false;
    loop {
        match poll.poll(&mut events, rests.then_some(REST)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            match event.token() {
                LISTENER => rests = true,
                Token(place) => serve(&mut connections, place, event.is_read_closed(), &mut handler),
            }
        }
        rests = rests && accept(&mut connections, &listener, poll.registry(), &mut handler).is_err();
    }
}

fn serve<H: Handler>(connections: &mut Slab<H::Connection>, place: usize, read_closed: bool, handler: &mut H) {
    let Some(connection) = connections.get_mut(place) else { return };
    match handler.serve(connection, read_closed) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Ok(()) | Err(_) => drop(connections.remove(place)),
    }
}

/// Accepts all that wait; returns the error that stopped it, if any.
fn accept<H: Handler>(
    connections: &mut Slab<H::Connection>,
    listener: &TcpListener,
    registry: &Registry,
    handler: &mut H,
) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        let token = Token(connections.vacant_key());
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        connections.insert(handler.open(stream)?);
        serve(connections, token.0, true, handler);
    }
}
