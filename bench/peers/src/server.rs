//! The command line of every server, and the socket that the ones in Rust listen on.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::exit;

use finale_load::raise_descriptor_limit;
use socket2::{Domain, Socket, Type};

/// How many connections may wait to be accepted; the kernel reduces it to its own limit.
const BACKLOG: i32 = 4096;

/// What a server does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Reads to the client's FIN, answers, closes.
    Answer { answer: u64 },
    /// Answers and finishes as soon as the request has arrived, reads to the client's FIN, closes.
    /// A client whose FIN arrives before its complete request gets no answer.
    First { request: u64, answer: u64 },
    /// Sends back what arrives, ends after the client's FIN.
    Echo,
}

impl Mode {
    /// From the command line; without a valid one the program ends here.
    #[must_use]
    pub fn from_args() -> Self {
        let args: Vec<String> = std::env::args().skip(1).collect();
        Self::parse(&args).unwrap_or_else(|| {
            eprintln!("usage: answer BYTES | first REQUEST ANSWER | echo");
            exit(2)
        })
    }

    fn parse(args: &[String]) -> Option<Self> {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match args.as_slice() {
            ["answer", answer] => Some(Self::Answer { answer: answer.parse().ok()? }),
            ["first", request, answer] => {
                Some(Self::First { request: request.parse().ok()?, answer: answer.parse().ok()? })
            }
            ["echo"] => Some(Self::Echo),
            _ => None,
        }
    }
}

/// A non-blocking listener on a free port. TCP_NODELAY is inherited by what it accepts, and costs
/// no call there.
///
/// # Errors
/// When the system has no socket or no port to give.
pub fn listen() -> io::Result<TcpListener> {
    raise_descriptor_limit()?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Prints the line that the parent process waits for.
///
/// # Errors
/// When stdout is closed.
pub fn announce(listener: &TcpListener) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {}", listener.local_addr()?)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_taken_whole_or_not_at_all() {
        let parse = |line: &str| Mode::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(parse("answer 64"), Some(Mode::Answer { answer: 64 }));
        assert_eq!(parse("first 0 1048576"), Some(Mode::First { request: 0, answer: 1 << 20 }));
        assert_eq!(parse("echo"), Some(Mode::Echo));
        for wrong in ["", "answer", "answer -1", "answer 64 64", "first 64", "echo 64", "discard"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
