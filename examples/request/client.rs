//! One request, with a deadline for the whole of it, and with retries by hand.

use std::fmt;
use std::time::Duration;

use finale::net::Net;
use finale::{ConnectOptions, Ending, Error, Event, Reactor, RetrySafety, SocketId};

/// How long it may take, and how often it may be tried.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// All attempts and the pauses between them.
    pub(crate) total: Duration,
    /// One attempt: lookup, handshake, request and answer.
    pub(crate) attempt: Duration,
    pub(crate) attempts: u32,
    /// The first pause; each one after it is twice as long.
    pub(crate) back_off: Duration,
    /// Whether the server may act on the request twice.
    pub(crate) is_idempotent: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total: Duration::from_secs(10),
            attempt: Duration::from_secs(3),
            attempts: 3,
            back_off: Duration::from_millis(100),
            is_idempotent: false,
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// A call was refused, for example for a wrong address.
    Call(Error),
    /// The last attempt ended like this.
    Attempt { ending: Ending, attempts: u32 },
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(error) => write!(f, "{error}"),
            Self::Attempt { ending, attempts } => write!(f, "no answer in {attempts} attempts; the last one: {ending}"),
        }
    }
}

/// Sends a line and returns the answer without its line break. The reactor must have no other
/// sockets: their events would be lost here.
pub(crate) fn ask<N: Net>(
    reactor: &mut Reactor<N>,
    server: &str,
    line: &str,
    limits: &Limits,
) -> Result<String, Failed> {
    let begun = reactor.context().now();
    let mut pause = limits.back_off;
    for attempts in 1.. {
        let left = limits.total.saturating_sub(reactor.context().now() - begun);
        let options = ConnectOptions::default().total_deadline(limits.attempt.min(left));
        let id = reactor.connect(server, options)?;
        if let Some(mut socket) = reactor.socket(id) {
            // Both take effect when the connection is established.
            socket.write(format!("{line}\n").as_bytes())?;
            socket.end();
        }
        let (answer, ending) = result(reactor, id)?;
        if let Some(answer) = answer.strip_suffix(b"\n") {
            // The answer is complete. However the connection ended after it, it counts.
            return Ok(String::from_utf8_lossy(answer).into_owned());
        }
        let used = reactor.context().now() - begun;
        let may_repeat = match safety(&ending) {
            RetrySafety::Safe => true,
            RetrySafety::IfIdempotent => limits.is_idempotent,
            RetrySafety::Unsafe => false,
        };
        if !may_repeat || attempts == limits.attempts || used + pause >= limits.total {
            return Err(Failed::Attempt { ending, attempts });
        }
        wait(reactor, pause)?;
        pause *= 2;
    }
    unreachable!("the loop has no end of its own")
}

/// What was received, and how it ended.
fn result<N: Net>(reactor: &mut Reactor<N>, id: SocketId) -> Result<(Vec<u8>, Ending), Error> {
    let mut answer = Vec::new();
    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Data(bytes) if socket.id() == id => {
                answer.extend_from_slice(bytes);
                if answer.len() > 64 * 1024 {
                    socket.destroy(); // No answer of this protocol is longer.
                }
            }
            Event::Close(ending) if socket.id() == id => return Ok((answer, ending.clone())),
            _ => {}
        }
    }
    Err(Error::Gone)
}

/// Whether a request whose connection ended like this can be sent again. `Pool` decides in the same
/// way.
pub(crate) fn safety(ending: &Ending) -> RetrySafety {
    if ending.bytes_read > 0 {
        RetrySafety::Unsafe // The server has acted on it.
    } else if ending.bytes_written > 0 {
        RetrySafety::IfIdempotent // The server may have received it.
    } else {
        RetrySafety::Safe // Not a byte of it has left this process.
    }
}

/// Waits on the clock of the reactor, which can be a virtual one.
fn wait<N: Net>(reactor: &mut Reactor<N>, time: Duration) -> Result<(), Error> {
    let timer = reactor.set_timer(time);
    while let Some((_, event)) = reactor.next()? {
        if event == Event::Timer(timer) {
            break;
        }
    }
    Ok(())
}
