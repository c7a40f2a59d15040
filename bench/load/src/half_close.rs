//! The load that half-closes. For each connection it connects, sends the request, finishes, reads
//! the answer to its end, and closes. If the server finishes first, it connects, sends the request,
//! reads the answer to its end, finishes, and closes.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Instant;

use super::{Failures, Summary, connect, read_answer};
use crate::answer::PIECE_BYTES;

/// The side that finishes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// The client, after its request.
    Client,
    /// The server, after its answer.
    Server,
}

/// The load's size and shape.
#[derive(Debug, Clone, Copy)]
pub struct HalfClose {
    /// The server's address.
    pub addr: SocketAddr,
    /// How many connections there are in total.
    pub connections: u64,
    /// How many are open at a time.
    pub in_flight: usize,
    /// How many bytes the client sends.
    pub request: usize,
    /// How many bytes must be returned.
    pub answer: u64,
    /// The side that finishes first.
    pub first: First,
}

impl HalfClose {
    /// Runs it to the end.
    #[must_use]
    pub fn run(&self) -> Summary {
        let began = Instant::now();
        let request = vec![b'q'; self.request];
        let mut buffer = vec![0; PIECE_BYTES];
        let mut failures = Failures::default();
        let mut open = VecDeque::with_capacity(self.in_flight);
        for number in 0..self.connections {
            if open.len() == self.in_flight {
                self.finish(open.pop_front(), &mut buffer, &mut failures);
            }
            let begun = self.begin(number, &request);
            open.extend(failures.sift(number, begun).map(|stream| (number, stream)));
        }
        while !open.is_empty() {
            self.finish(open.pop_front(), &mut buffer, &mut failures);
        }
        Summary::of(format!("{} connections", self.connections), began, failures)
    }

    fn begin(&self, number: u64, request: &[u8]) -> io::Result<TcpStream> {
        let mut stream = connect(self.addr, number)?;
        stream.write_all(request)?;
        if self.first == First::Client {
            stream.shutdown(Shutdown::Write)?;
        }
        Ok(stream)
    }

    /// Dropping the stream closes it, which finishes if that is still to be done.
    fn finish(&self, open: Option<(u64, TcpStream)>, buffer: &mut [u8], failures: &mut Failures) {
        if let Some((number, stream)) = open {
            failures.sift(number, read_answer(&stream, self.answer, buffer));
        }
    }
}
