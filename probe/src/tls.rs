//! TLS for the clients of a probe: what they offer, and what was negotiated.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use finale_tls::rustls::ClientConfig;
use finale_tls::rustls::client::UnbufferedClientConnection;
use finale_tls::rustls::pki_types::ServerName;
use finale_tls::rustls::unbuffered::ConnectionState;
use finale_tls::rustls::{self, ProtocolVersion};
use finale_tls::{Handshake, Tls};

use crate::options::Options;

/// TLS for all clients of a probe: [`Options::tls`].
///
/// ```
/// use finale_probe::{Options, TlsOptions, finale_tls};
/// let mut options = Options::new("hello\n");
/// let config = finale_tls::trust_any_server();
/// options.tls = Some(TlsOptions::new(config, "localhost".try_into()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TlsOptions {
    /// Whom the clients trust, and what they offer, such as protocols (ALPN). Without resumption,
    /// since each client is a new one: see [`finale_tls::client_config`].
    pub config: Arc<ClientConfig>,
    /// The name for which the server's certificate must be.
    pub server_name: ServerName<'static>,
}

impl TlsOptions {
    /// These values.
    #[must_use]
    pub const fn new(config: Arc<ClientConfig>, server_name: ServerName<'static>) -> Self {
        Self { config, server_name }
    }

    /// The first bytes of a client.
    pub(crate) fn client_hello(&self) -> Result<Vec<u8>, rustls::Error> {
        let mut client = UnbufferedClientConnection::new(Arc::clone(&self.config), self.server_name.clone())?;
        let mut hello = vec![0; 16 * 1024];
        let written = match client.process_tls_records(&mut []).state? {
            ConnectionState::EncodeTlsData(mut data) => data.encode(&mut hello),
            state => return Err(rustls::Error::General(format!("no ClientHello in the state {state:?}"))),
        };
        let written = written.map_err(|error| rustls::Error::General(error.to_string()))?;
        hello.truncate(written);
        Ok(hello)
    }
}

/// The sessions of a probe.
pub(crate) fn sessions(options: &Options) -> Tls {
    let mut tls = Tls::new();
    tls.set_handshake_timeout(options.timeout);
    tls
}

/// What is known of a client with TLS.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsSeen {
    pub(crate) version: Option<Version>,
    /// The application protocol.
    pub(crate) alpn: Option<String>,
    /// The server's close_notify.
    pub(crate) close_notify: Option<Instant>,
    /// Why the stream failed, in words.
    pub(crate) failure: Option<String>,
}

impl TlsSeen {
    /// The handshake is done.
    pub(crate) fn negotiated(&mut self, handshake: Handshake<'_>) {
        self.version = handshake.version().map(Version::of);
        self.alpn = handshake.alpn().map(|name| String::from_utf8_lossy(name).into_owned());
    }
}

/// The version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Tls12,
    Tls13,
}

impl Version {
    /// rustls has no other.
    fn of(version: ProtocolVersion) -> Self {
        if version == ProtocolVersion::TLSv1_2 { Self::Tls12 } else { Self::Tls13 }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
