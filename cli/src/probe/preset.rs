//! Requests of known protocols, and how their answers end.

use clap::ValueEnum;
use finale_probe::{Framing, Options};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Preset {
    /// GET / of the target, with Connection: close
    Http,
    /// PING
    Redis,
    /// version
    Memcached,
    /// NOOP, after the server's greeting
    Smtp,
    /// "finale probe\r\n", which comes back
    Echo,
    /// "finale probe\r\n", which is answered by a line
    Line,
}

/// The line of `echo` and `line`.
const LINE: &[u8] = b"finale probe\r\n";

impl Preset {
    /// The request for this target, and how its answer ends.
    pub(super) fn options(self, target: &str) -> Options {
        let (request, end) = match self {
            Self::Http => {
                let version = env!("CARGO_PKG_VERSION");
                let head = format!(
                    "GET / HTTP/1.1\r\nHost: {target}\r\nUser-Agent: finale-probe/{version}\r\nAccept: */*\r\n\
                     Connection: close\r\n\r\n"
                );
                return Options::new(head);
            }
            // As clients send it: an array of one string.
            Self::Redis => (b"*1\r\n$4\r\nPING\r\n".as_slice(), b"\r\n".as_slice()),
            Self::Memcached => (b"version\r\n".as_slice(), b"\r\n".as_slice()),
            // Allowed at any time (RFC 5321 section 4.1.4).
            Self::Smtp => (b"NOOP\r\n".as_slice(), b"\r\n".as_slice()),
            Self::Echo | Self::Line => (LINE, b"\n".as_slice()),
        };
        let mut options = Options::new(request);
        options.framing = match self {
            Self::Echo => Framing::Bytes(LINE.len() as u64),
            _ => Framing::Until(end.to_vec()),
        };
        if self == Self::Smtp {
            options.server_first = true;
            // Without it a client may not send several commands at once (RFC 2920 section 3).
            options.preface = b"EHLO finale-probe.invalid\r\n".to_vec();
        }
        options
    }
}
