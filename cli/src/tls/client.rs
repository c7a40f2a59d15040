//! TLS of a client: whom it trusts, and what it offers.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use finale::Target;
use finale_tls::Tls;
use finale_tls::rustls::client::Resumption;
use finale_tls::rustls::pki_types::ServerName;
use finale_tls::rustls::{ClientConfig, RootCertStore};

use crate::errors::Error;

/// TLS of a client. The last options of a command: the heading is also for what follows.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct ClientTls {
    /// Speak TLS 1.2 or 1.3. The roots of the system are trusted
    #[arg(long)]
    tls: bool,
    /// Trust the roots in this file in PEM format instead
    #[arg(long, value_name = "FILE", requires = "tls", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// Accept any certificate. Then anyone on the path can read and change everything
    #[arg(long, requires = "tls")]
    insecure: bool,
    /// The name for which the server's certificate must be, and that the server is asked for (SNI)
    /// [default: the host of the address]
    #[arg(long, value_name = "NAME", requires = "tls")]
    servername: Option<String>,
    /// The application protocols to offer, separated by commas, the preferred one first: h2,http/1.1
    #[arg(long, value_name = "LIST", requires = "tls", value_delimiter = ',', value_parser = super::protocol)]
    alpn: Vec<String>,
}

/// What a client needs for its connections.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
    resumes: bool,
}

impl Client {
    /// Whether sessions are resumed, if the server permits it.
    pub(crate) const fn resumes(&self) -> bool {
        self.resumes
    }

    /// The same for a probe.
    pub(crate) fn for_probe(&self) -> finale_probe::TlsOptions {
        finale_probe::TlsOptions::new(Arc::clone(&self.config), self.server_name.clone())
    }

    /// Connections to this target begin with a handshake.
    pub(crate) fn connect_to(&self, tls: &mut Tls, target: Target) -> Result<(), Error> {
        tls.connect_to(target, &self.config, self.server_name.clone())
            .map_err(|error| Error::io("begin with TLS", io::Error::other(error)))
    }
}

impl ClientTls {
    /// Whether connections have TLS.
    pub(crate) const fn is_on(&self) -> bool {
        self.tls
    }

    /// Whether the server's certificate is checked.
    pub(crate) const fn verifies(&self) -> bool {
        !self.insecure
    }

    /// Reads the roots. `None` without TLS.
    pub(crate) fn open(&self, target: &str, resumes: bool) -> Result<Option<Client>, Error> {
        if !self.tls {
            return Ok(None);
        }
        let server_name = self.server_name(target)?;
        let read = match &self.ca {
            _ if self.insecure => finale_tls::trust_any_server(),
            Some(path) => finale_tls::client_config(path).map_err(|error| Error::usage(format!("--ca {error}")))?,
            None => finale_tls::client_config_with(roots_of_system()?),
        };
        let mut config = ClientConfig::clone(&read);
        config.alpn_protocols = super::protocols(&self.alpn);
        if resumes {
            config.resumption = Resumption::default();
        }
        if let Some(key_log) = super::key_log() {
            config.key_log = key_log;
        }
        Ok(Some(Client { config: Arc::new(config), server_name, resumes }))
    }

    fn server_name(&self, target: &str) -> Result<ServerName<'static>, Error> {
        if let Some(name) = &self.servername {
            return ServerName::try_from(name.clone()).map_err(|_why| {
                Error::usage(format!("--servername {name}: it is neither a host name nor an IP address"))
            });
        }
        let parsed = Target::try_from(target).map_err(|source| Error::Connect { target: target.to_owned(), source })?;
        let name = match parsed {
            Target::Addr(addr) => return Ok(ServerName::from(addr.ip())),
            // The dot at the end of an absolute name is not part of a certificate's.
            Target::Name { host, .. } => ServerName::try_from(host.trim_end_matches('.').to_owned()).ok(),
            _ => None,
        };
        name.ok_or_else(|| {
            Error::usage(format!("'{target}' has no host name for the certificate; give one with --servername"))
        })
    }
}

/// The roots that this machine trusts. SSL_CERT_FILE and SSL_CERT_DIR replace them, as for OpenSSL.
fn roots_of_system() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
    Err(Error::usage(format!(
        "no roots were found on this system{why}; name those of the server with --ca, or check no certificate with \
         --insecure"
    )))
}
