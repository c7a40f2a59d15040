//! The same server on bare mio, as its community would write it: read to the peer's FIN, answer, shut down, close.
//!
//! `mio-server ANSWER_BYTES`

use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use socket2::{Domain, Socket, Type};

const LISTENER: Token = Token(usize::MAX);

struct Connection {
    stream: TcpStream,
    ended: bool,
    sent: usize,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let answer = vec![b'a'; std::env::args().nth(1).ok_or("usage: mio-server ANSWER_BYTES")?.parse()?];
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut listener = listen()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("listening on {}", listener.local_addr()?);
    let mut connections: Slab<Connection> = Slab::new();
    let mut buffer = vec![0; 64 * 1024];

    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut connections)?;
            } else if let Some(connection) = connections.get_mut(event.token().0)
                && serve(connection, &answer, &mut buffer).unwrap_or(true)
            {
                connections.remove(event.token().0);
            }
        }
    }
}

fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(4096)?;
    Ok(TcpListener::from_std(socket.into()))
}

fn accept(listener: &TcpListener, poll: &Poll, connections: &mut Slab<Connection>) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                let place = connections.vacant_entry();
                poll.registry().register(
                    &mut stream,
                    Token(place.key()),
                    Interest::READABLE | Interest::WRITABLE,
                )?;
                place.insert(Connection { stream, ended: false, sent: 0 });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Whether the connection is done with.
fn serve(connection: &mut Connection, answer: &[u8], buffer: &mut [u8]) -> io::Result<bool> {
    while !connection.ended {
        match connection.stream.read(buffer) {
            Ok(read) => connection.ended = read == 0,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    while connection.sent < answer.len() {
        match connection.stream.write(&answer[connection.sent..]) {
            Ok(written) => connection.sent += written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    connection.stream.shutdown(Shutdown::Write)?;
    Ok(true)
}
