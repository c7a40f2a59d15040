//! The arguments.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Notes with a page, an API and live events.
#[derive(Debug, Clone, clap::Parser)]
#[command(version)]
pub(crate) struct Options {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8443", value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    /// The file of the database; it is created if it does not exist
    #[arg(long, default_value = "notes.db", value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// The certificate with those above it, in PEM format; SIGHUP reads both files again. Without
    /// one, the service makes its own for localhost
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of the certificate, in PEM format
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// HTTP without TLS, behind a proxy or for a test
    #[arg(long, conflicts_with = "tls_cert")]
    pub(crate) plain: bool,
    /// Connections at a time; further ones wait in the backlog
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(crate) max_connections: usize,
    /// Requests that wait for the database; further ones get 503
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) max_pending: u16,
    /// The longest attachment, in bytes
    #[arg(long, default_value_t = 1024 * 1024, value_name = "BYTES")]
    pub(crate) max_attachment: u32,
}
