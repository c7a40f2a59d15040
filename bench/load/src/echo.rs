//! The load on connections that are kept open: each sends this many bytes and gets them back, round
//! after round, and then finishes and expects the server's FIN.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Instant;

use super::{Failures, Summary, connect, read_some, wrong};

/// More in one round trip might not fit between two peers that both write first, so it would
/// measure their buffers.
pub const LARGEST_BYTES: usize = 64 << 10;

/// The load's size and shape.
#[derive(Debug, Clone, Copy)]
pub struct Echo {
    /// The server's address.
    pub addr: SocketAddr,
    /// How many connections are open all the time; each has one round trip in flight.
    pub connections: u64,
    /// How many round trips each of them makes.
    pub rounds: u64,
    /// How many bytes are sent each way, up to [`LARGEST_BYTES`].
    pub bytes: usize,
}

impl Echo {
    /// Runs it to the end.
    #[must_use]
    pub fn run(&self) -> Summary {
        let began = Instant::now();
        let mut failures = Failures::default();
        let mut open: Vec<(u64, TcpStream)> = (0..self.connections)
            .filter_map(|number| failures.sift(number, connect(self.addr, number)).map(|stream| (number, stream)))
            .collect();
        let (mut message, mut buffer) = (vec![0; self.bytes], vec![0; self.bytes]);
        for round in 0..self.rounds {
            open.retain(|(number, stream)| {
                fill(&mut message, *number, round);
                failures.sift(*number, (&*stream).write_all(&message)).is_some()
            });
            open.retain(|(number, stream)| {
                fill(&mut message, *number, round);
                failures.sift(*number, expect(stream, &message, &mut buffer)).is_some()
            });
        }
        for (number, stream) in open {
            failures.sift(number, leave(&stream));
        }
        let done = format!("{} connections, {} round trips", self.connections, self.connections * self.rounds);
        Summary::of(done, began, failures)
    }
}

/// No two connections or rounds send the same, so that an answer to another one is noticed.
fn fill(message: &mut [u8], number: u64, round: u64) {
    let stamp = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(round).to_le_bytes();
    for chunk in message.chunks_mut(stamp.len()) {
        chunk.copy_from_slice(&stamp[..chunk.len()]);
    }
}

fn expect(mut stream: &TcpStream, message: &[u8], buffer: &mut [u8]) -> io::Result<()> {
    stream.read_exact(buffer)?;
    if buffer == message { Ok(()) } else { Err(wrong("other bytes than were sent".to_owned())) }
}

fn leave(stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    match read_some(stream, &mut [0])? {
        0 => Ok(()),
        _ => Err(wrong("more bytes than were sent".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_of_every_connection_sends_something_else() {
        let message = |number, round| {
            let mut message = [0; 20];
            fill(&mut message, number, round);
            message
        };
        let sent = [message(0, 0), message(0, 1), message(1, 0), message(1, 1), message(2, 0)];
        for (at, one) in sent.iter().enumerate() {
            assert!(!sent[at + 1..].contains(one), "number {at}");
        }
    }
}
