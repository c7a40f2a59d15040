//! TLS in the commands: arguments, configurations, and what was negotiated.
//!
//! Invariant: without TLS nothing here is called for a connection.

mod client;
mod peer;
mod server;

use std::env;
use std::sync::Arc;

use finale_tls::rustls::{KeyLog, KeyLogFile};

pub(crate) use client::{Client, ClientTls};
pub(crate) use peer::Negotiated;
pub(crate) use server::{Served, ServerTls};

/// The file that gets the keys of all sessions, as browsers and curl have it: for Wireshark.
const KEY_LOG: &str = "SSLKEYLOGFILE";

/// What writes the keys of sessions, if the environment names a file for them.
fn key_log() -> Option<Arc<dyn KeyLog>> {
    let path = env::var_os(KEY_LOG).filter(|path| !path.is_empty())?;
    log::warn!(
        "{KEY_LOG} is set: the keys of all TLS sessions are written to {}; whoever has them can read everything",
        path.display()
    );
    Some(Arc::new(KeyLogFile::new()))
}

/// A name of an application protocol, for ALPN.
fn protocol(text: &str) -> Result<String, String> {
    match text.len() {
        1..=255 => Ok(text.to_owned()),
        _ => Err("a protocol has 1 to 255 bytes; write them separated by commas, as h2,http/1.1".to_owned()),
    }
}

fn protocols(names: &[String]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.clone().into_bytes()).collect()
}
