//! The loads: clients on blocking sockets, without an event loop, so that they share no code with
//! what they measure.
//!
//! Invariant: every byte that is read is compared with the expected one. Any other outcome counts
//! the connection as failed, and the load continues with the next one.

pub mod answer;
pub mod echo;
pub mod half_close;
pub mod idle;
pub mod pinned;

use std::fmt;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::answer::piece;

/// Source addresses alternate, so that TIME_WAIT can't use up the ports.
const SOURCES: u64 = 64;
/// A server that is silent for this long has failed: without a limit the load would hang.
const LIMIT: Duration = Duration::from_secs(30);

/// The result of a load. Its `Display` is the line to print.
#[derive(Debug)]
pub struct Summary {
    /// What was counted, in words.
    pub done: String,
    /// How long it took from the first connect to the last end.
    pub took: Duration,
    /// Connections that failed.
    pub failed: u64,
    /// What was wrong with the first of them.
    pub why: Option<String>,
}

impl Summary {
    fn of(done: String, began: Instant, failures: Failures) -> Self {
        Self { done, took: began.elapsed(), failed: failures.count, why: failures.first }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {:.3} s, {} failed", self.done, self.took.as_secs_f64(), self.failed)
    }
}

/// Raises the limit of descriptors to what the system allows: 19,000 idle connections exceed the
/// usual one. The servers use it too.
///
/// # Errors
/// If the system refuses the maximum that it has reported.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Counts what failed, and keeps the first reason: the others usually repeat it.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    first: Option<String>,
}

impl Failures {
    /// The value, if there is one.
    fn sift<T>(&mut self, number: u64, result: io::Result<T>) -> Option<T> {
        if let Err(error) = &result {
            self.count += 1;
            self.first.get_or_insert_with(|| format!("connection {number}: {error}"));
        }
        result.ok()
    }
}

/// A connection from the source address for this number.
fn connect(addr: SocketAddr, number: u64) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let source = Ipv4Addr::new(127, 0, 1, (number % SOURCES) as u8 + 1);
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.set_tcp_nodelay(true)?;
    // It has no time limit yet: with one, an interrupted connect would have to be waited for in
    // another way.
    socket.connect(&addr.into())?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    Ok(socket.into())
}

/// Reads to the server's FIN: exactly the bytes of the answer must arrive.
fn read_answer(stream: &TcpStream, answer: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut received = 0;
    loop {
        let read = read_some(stream, buffer)?;
        if read == 0 {
            break;
        }
        let expected = piece(received, answer);
        if !expected.starts_with(&buffer[..read]) {
            let what = if expected.len() < read { "more than the answer" } else { "a byte that is wrong" };
            return Err(wrong(format!("{what} at {received} of {answer}")));
        }
        received += read as u64;
    }
    if received < answer {
        return Err(wrong(format!("the end came at {received} of {answer}")));
    }
    Ok(())
}

/// The kernel does not restart a call with a time limit after an interruption.
fn read_some(mut stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

fn wrong(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
