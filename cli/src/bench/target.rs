//! The address of the target. A name is looked up once: the resolver is not part of the measurement.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use finale::{ConnectOptions, ConnectionErrorKind, EndingKind, Event, Reactor, Target};

use super::environment::Terminal;
use crate::errors::Error;

/// The address that this text means.
pub(super) fn resolve(
    text: &str,
    reactor: &mut Reactor,
    terminal: &Terminal,
    timeout: Duration,
) -> Result<Target, Error> {
    if text.contains("://") {
        return Err(Error::usage(format!(
            "--target '{text}': a URL is not an address; write HOST:PORT, as 127.0.0.1:80"
        )));
    }
    let target = Target::try_from(text).map_err(|source| Error::Connect { target: text.to_owned(), source })?;
    match target {
        Target::Addr(addr) if addr.port() == 0 => Err(no_port(text)),
        Target::Name { port: 0, .. } => Err(no_port(text)),
        Target::Name { .. } => Ok(race(text, reactor, terminal, timeout)?.into()),
        known => Ok(known),
    }
}

fn no_port(text: &str) -> Error {
    Error::usage(format!("--target '{text}': no server can listen on port 0; write the server's port"))
}

/// A server that does not close the connection of the race is left alone after this time.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The address of this name to which a connection is established first. If there is none, the first
/// address: the run shows how it fails.
fn race(name: &str, reactor: &mut Reactor, terminal: &Terminal, timeout: Duration) -> Result<SocketAddr, Error> {
    let how = ConnectOptions::default().connect_timeout(timeout).close_timeout(CLOSE_TIMEOUT);
    reactor.connect(name, how)?;
    let mut winner = None;
    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Woken => {
                if let Some(signal) = terminal.signal() {
                    return Err(Error::Interrupted { signal, what: "nothing was measured".to_owned() });
                }
            }
            Event::Ready => {
                winner = socket.peer_addr();
                socket.end();
                socket.discard();
            }
            Event::Close(ending) => {
                let EndingKind::Failed(error) = &ending.kind else { break };
                let why = match error.kind {
                    ConnectionErrorKind::Lookup(why) => why.to_string(),
                    _ => error.to_string(),
                };
                let tried = error.attempts.first().map(|attempt| attempt.addr);
                let failed = || Error::io(format!("look up '{name}'"), io::Error::other(why));
                return winner.or(tried).ok_or_else(failed);
            }
            _ => {}
        }
    }
    winner.ok_or_else(|| Error::io(format!("connect to '{name}'"), io::ErrorKind::NotConnected.into()))
}
