//! 64 MiB for a client that reads slowly: by a program that waits for `drain`, and by one that does
//! not.

use std::time::Duration;

use finale::sim::{Network, Script};
use finale::{Backpressure, Error, Event, ListenOptions, Reactor, Socket};

const PIECE: usize = 1 << 16;
const PIECES: usize = 1024;

pub(crate) fn main() -> Result<(), Error> {
    serve("writes until the queue is full, and continues at drain", true)?;
    serve("writes everything at once", false)
}

/// Writes the pieces from this one on, and returns how many were written.
fn write_from(socket: &mut Socket<'_>, mut next: usize, waits: bool) -> Result<usize, Error> {
    while next < PIECES {
        let room = socket.write(&[b'x'; PIECE])?;
        next += 1;
        if room == Backpressure::Full && waits {
            return Ok(next);
        }
    }
    socket.end();
    Ok(next)
}

fn serve(title: &str, waits: bool) -> Result<(), Error> {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let listener = reactor.listen("10.0.0.1:80", ListenOptions::default())?;
    let script = Script::new().finish().sip(1 << 20, Duration::from_millis(100));
    let client = network.peer([10, 0, 0, 2].into()).play(listener.addr, script).expect("a route");

    let (mut next, mut most_queued) = (0, 0);
    println!("{title}");
    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Connection | Event::Drain => match write_from(&mut socket, next, waits) {
                Ok(written) => next = written,
                Err(error) => {
                    println!("    write: {error}, with {} MiB in the queue", socket.queued_bytes() >> 20);
                    socket.end();
                }
            },
            Event::Close(ending) => {
                println!("    {ending}");
                reactor.close_listener(listener.id)?;
                continue;
            }
            _ => {}
        }
        most_queued = most_queued.max(socket.queued_bytes());
    }
    println!("    most in the queue: {} KiB", most_queued >> 10);
    println!("    the client has {} MiB", client.received().len() >> 20);
    Ok(())
}
