//! Configurations of rustls from files in PEM format.
//!
//! Invariant: the provider is ring, named and not the process's default, so that two of them in one
//! program are no conflict.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme};

/// A file that can't be used.
///
/// ```
/// let error = finale_tls::client_config("/no/such/file").expect_err("there is none");
/// assert!(error.to_string().starts_with("/no/such/file: "));
/// ```
#[derive(Debug)]
pub struct ConfigError {
    path: PathBuf,
    reason: String,
}

impl ConfigError {
    fn new(path: &Path, reason: impl fmt::Display) -> Self {
        Self { path: path.to_owned(), reason: reason.to_string() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

impl std::error::Error for ConfigError {}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Why a file has nothing that can be used. `what` completes "it has no".
fn unusable(path: &Path, error: pem::Error, what: &str) -> ConfigError {
    match error {
        pem::Error::Io(error) => ConfigError::new(path, error),
        pem::Error::NoItemsFound => ConfigError::new(path, format!("it has no {what}")),
        // A key with a password in the old format is no base 64.
        pem::Error::Base64Decode(_) => ConfigError::new(path, format!("it has no readable {what}")),
        error => ConfigError::new(path, error),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let failed = |error| unusable(path, error, "certificate in PEM format (BEGIN CERTIFICATE)");
    let found = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(failed)?;
    if found.is_empty() {
        return Err(ConfigError::new(path, "it has no certificate in PEM format (BEGIN CERTIFICATE)"));
    }
    Ok(found)
}

/// A server's configuration from files in PEM format: its certificate with those above it, and its
/// key. TLS 1.2 and 1.3, no client certificates, no resumption, no ALPN. Change the fields of a clone
/// for others: `alpn_protocols`, `key_log`, and for resumption `session_storage`, `ticketer` and
/// `send_tls13_tickets`.
///
/// # Errors
/// If a file can't be read or has no certificate or key, or if the key is not the certificate's.
pub fn server_config(certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Arc<ServerConfig>, ConfigError> {
    let (path, key_path) = (certificate.as_ref(), key.as_ref());
    let chain = certificates(path)?;
    let no_key = "private key in PEM format without a password (BEGIN PRIVATE KEY)";
    let key = PrivateKeyDer::from_pem_file(key_path).map_err(|error| unusable(key_path, error, no_key))?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::new(path, error))?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(|error| match error {
        Error::InconsistentKeys(_) => {
            ConfigError::new(path, format!("the key in {} is another certificate's", key_path.display()))
        }
        error => ConfigError::new(path, format!("with {}: {error}", key_path.display())),
    })?;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A client's configuration that trusts the roots in this file in PEM format. TLS 1.2 and 1.3, no
/// client certificate, no resumption, no ALPN. Change the fields of a clone for others:
/// `alpn_protocols`, `key_log`, `resumption`.
///
/// # Errors
/// If the file can't be read or has no certificate that can be a root.
pub fn client_config(roots: impl AsRef<Path>) -> Result<Arc<ClientConfig>, ConfigError> {
    let path = roots.as_ref();
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| ConfigError::new(path, error))?;
    }
    Ok(client_config_with(store))
}

/// The same with these roots, for example those of the system.
///
/// ```
/// use finale_tls::rustls::RootCertStore;
/// let config = finale_tls::client_config_with(RootCertStore::empty());
/// assert!(config.alpn_protocols.is_empty());
/// ```
///
/// # Panics
/// Never: ring supports the default versions of TLS.
#[must_use]
pub fn client_config_with(roots: RootCertStore) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring supports TLS 1.2 and 1.3");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// A client's configuration that trusts any server. An attacker on the path can read and change
/// everything: for tests only.
///
/// # Panics
/// Never: ring supports the default versions of TLS.
#[must_use]
pub fn trust_any_server() -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring supports TLS 1.2 and 1.3");
    let verifier = Arc::new(AnyServer(provider()));
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// Checks that the server has the key of its certificate, and nothing else.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
