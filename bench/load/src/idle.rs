//! The idle load: connections that stay open and silent until the server was examined.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Instant;

use super::{Failures, Summary, connect};

/// Connections that are held.
#[derive(Debug)]
pub struct Idle {
    began: Instant,
    failures: Failures,
    open: Vec<(u64, TcpStream)>,
}

impl Idle {
    /// Opens them. They are in the server's backlog or accepted when this returns.
    #[must_use]
    pub fn open(addr: SocketAddr, count: u64) -> Self {
        let mut idle = Self { began: Instant::now(), failures: Failures::default(), open: Vec::new() };
        for number in 0..count {
            let stream = idle.failures.sift(number, connect(addr, number));
            idle.open.extend(stream.map(|stream| (number, stream)));
        }
        idle
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Ends each with a FIN.
    #[must_use]
    pub fn leave(mut self) -> Summary {
        let done = format!("{} connections held", self.open.len());
        for (number, stream) in self.open {
            // A connection that the server has reset meanwhile can't be shut down, and is noticed
            // here.
            self.failures.sift(number, stream.shutdown(Shutdown::Write));
        }
        Summary::of(done, self.began, self.failures)
    }
}
