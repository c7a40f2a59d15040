//! TLS of a server: its certificate, which can be replaced while it serves.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use finale::ListenerId;
use finale_tls::rustls::crypto::ring::Ticketer;
use finale_tls::rustls::server::{ClientHello, ResolvesServerCert};
use finale_tls::rustls::sign::CertifiedKey;
use finale_tls::rustls::{self, ServerConfig};
use finale_tls::{ConfigError, Tls, server_config};

use crate::errors::Error;

/// TLS of a server. The last options of the command: the heading is also for what follows.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct ServerTls {
    /// Serve TLS 1.2 and 1.3 with the certificate in this file in PEM format, and those above it.
    /// SIGHUP reads it again
    #[arg(long, value_name = "FILE", requires = "tls_key", conflicts_with = "proxy_protocol")]
    tls_cert: Option<PathBuf>,
    /// The file with the private key of --tls-cert, in PEM format without a password
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The application protocols to accept, separated by commas, the preferred one first: h2,http/1.1.
    /// A client that offers only others is refused; one that offers none is not [default: any]
    #[arg(long, value_name = "LIST", requires = "tls_cert", value_delimiter = ',', value_parser = super::protocol)]
    alpn: Vec<String>,
    /// Give clients tickets with which they resume their session in a shorter handshake. The keys of
    /// tickets are new every 6 hours, and after a restart
    #[arg(long, requires = "tls_cert")]
    tls_resumption: bool,
}

/// The TLS of all listeners of a process.
#[derive(Debug)]
pub(crate) struct Served {
    certificate: PathBuf,
    key: PathBuf,
    current: Arc<Current>,
    config: Arc<ServerConfig>,
}

/// The certificate for the next handshake.
#[derive(Debug)]
struct Current(RwLock<Arc<dyn ResolvesServerCert>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).resolve(hello)
    }
}

impl ServerTls {
    /// Reads the files. `None` without TLS.
    pub(crate) fn open(&self) -> Result<Option<Served>, Error> {
        let Some((certificate, key)) = self.tls_cert.clone().zip(self.tls_key.clone()) else { return Ok(None) };
        let read =
            server_config(&certificate, &key).map_err(|error| Error::usage(format!("can't serve TLS: {error}")))?;
        let current = Arc::new(Current(RwLock::new(Arc::clone(&read.cert_resolver))));
        let mut config = ServerConfig::clone(&read);
        config.cert_resolver = Arc::<Current>::clone(&current);
        config.alpn_protocols = super::protocols(&self.alpn);
        if self.tls_resumption {
            config.ticketer = Ticketer::new().map_err(|error| failed("make keys for tickets", error))?;
            config.send_tls13_tickets = 2;
        }
        if let Some(key_log) = super::key_log() {
            config.key_log = key_log;
        }
        Ok(Some(Served { certificate, key, current, config: Arc::new(config) }))
    }
}

fn failed(action: &'static str, error: rustls::Error) -> Error {
    Error::io(action, io::Error::other(error))
}

impl Served {
    /// The sessions of a reactor with these listeners.
    pub(crate) fn accept_on(&self, listeners: &[ListenerId]) -> Result<Tls, Error> {
        let mut tls = Tls::new();
        for listener in listeners {
            tls.accept_on(*listener, &self.config).map_err(|error| failed("begin with TLS", error))?;
        }
        Ok(tls)
    }

    /// Reads the files again, for the next handshakes of all listeners.
    ///
    /// # Errors
    /// As for the first time. Then nothing has changed.
    pub(crate) fn reload(&self) -> Result<(), ConfigError> {
        let read = server_config(&self.certificate, &self.key)?;
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&read.cert_resolver);
        Ok(())
    }

    /// The file with the certificate.
    pub(crate) fn certificate(&self) -> &Path {
        &self.certificate
    }
}
