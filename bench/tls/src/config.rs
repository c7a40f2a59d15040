//! One configuration of TLS for all: TLS 1.3 with AES-128-GCM and X25519, a P-256 certificate, and
//! no resumption, so that each handshake is a full one.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The files of a certificate in a folder.
pub const FILES: [&str; 2] = ["cert.pem", "key.pem"];

/// Only AES-128-GCM and X25519.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![ring::kx_group::X25519],
        ..ring::default_provider()
    })
}

/// An error of a library as one of the system, with its words.
pub fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

/// Writes a certificate for `localhost`, signed by itself, and its key into a folder.
///
/// # Errors
/// If the folder can't be written.
pub fn write_certificate(folder: &Path) -> io::Result<()> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(other)?;
    std::fs::write(folder.join(FILES[0]), made.cert.pem())?;
    std::fs::write(folder.join(FILES[1]), made.signing_key.serialize_pem())
}

/// A server with the certificate of a folder.
///
/// # Errors
/// If the files can't be read.
pub fn server(folder: &Path) -> io::Result<ServerConfig> {
    let chain = vec![CertificateDer::from_pem_file(folder.join(FILES[0])).map_err(other)?];
    let key = PrivateKeyDer::from_pem_file(folder.join(FILES[1])).map_err(other)?;
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(other)?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(other)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.enable_secret_extraction = true;
    Ok(config)
}

/// A client that trusts the certificate of a folder.
///
/// # Errors
/// If the file can't be read.
pub fn client(folder: &Path) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join(FILES[0])).map_err(other)?).map_err(other)?;
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(other)?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_secret_extraction = true;
    Ok(config)
}
