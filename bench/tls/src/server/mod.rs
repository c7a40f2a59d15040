//! The servers: one protocol ([`crate::service`]), one configuration ([`crate::config`]), and a
//! module per event loop. All of them are one program, so allocator, profile and TLS library are
//! the same.
//!
//! The socket they listen on is the one of the other peers in Rust: TCP_NODELAY, which what is
//! accepted inherits, and a backlog of 4,096.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ::finale::CloseMode;
use clap::{Parser, ValueEnum};
use finale_peers::server::{announce, listen};

mod buffered;
mod finale;
mod ready;
mod tokio;
mod unbuffered;

/// A TLS server on one of several event loops.
#[derive(Parser)]
pub struct Args {
    /// The event loop
    kind: Kind,
    /// The folder of cert.pem and key.pem
    folder: PathBuf,
}

/// An event loop, and how it drives rustls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Bare mio, with rustls' ServerConnection reading and writing the socket itself
    Buffered,
    /// Bare mio, with rustls' UnbufferedServerConnection and one buffer for all connections
    Unbuffered,
    /// tokio-rustls on the current-thread runtime
    Tokio,
    /// finale-tls, which closes as the others do
    Finale,
    /// finale-tls with finale's default: it closes when the client has acknowledged everything
    FinaleConfirmed,
}

/// Runs until the process is killed.
///
/// # Errors
/// If the files can't be read, or the event loop fails as a whole.
pub fn run(args: &Args) -> io::Result<()> {
    let config = Arc::new(crate::config::server(&args.folder)?);
    let listener = listen()?;
    announce(&listener)?;
    match args.kind {
        Kind::Buffered => buffered::run(listener, config),
        Kind::Unbuffered => unbuffered::run(listener, config),
        Kind::Tokio => tokio::run(listener, config),
        Kind::Finale => finale::run(listener, &config, CloseMode::HandOff),
        Kind::FinaleConfirmed => finale::run(listener, &config, CloseMode::Confirmed),
    }
}
