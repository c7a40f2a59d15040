//! Shards on real sockets, each with its own sessions.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use finale::{Error, Event, ListenOptions, Reactor, Shards, Stream};
use finale_tls::Tls;
use finale_tls::rustls::{ClientConnection, ServerConfig, StreamOwned};

use crate::ends::Configs;

/// Answers each line on its own, and ends when the client has.
fn serve(mut reactor: impl FnMut(&mut Tls) -> Result<bool, Error>, tls: &mut Tls) -> Result<(), Error> {
    while reactor(tls)? {}
    Ok(())
}
