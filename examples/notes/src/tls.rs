//! The certificate, from files or made at the start.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;

use finale_tls::rustls::ServerConfig;
use finale_tls::rustls::crypto::ring::{cipher_suite, default_provider};
use finale_tls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use finale_tls::rustls::server::ServerSessionMemoryCache;

use crate::options::Options;

/// Sessions that clients can resume. Each saves a signature, and needs some hundred bytes.
const SESSIONS: usize = 4096;

/// What the service shows to its clients.
pub(crate) struct Certificate {
    pub(crate) config: Arc<ServerConfig>,
    /// In words, for the log.
    pub(crate) name: String,
}

impl Certificate {
    /// The certificate of the options: `None` without TLS.
    pub(crate) fn of(options: &Options) -> Result<Option<Self>, Box<dyn Error>> {
        let certificate = match (&options.tls_cert, &options.tls_key) {
            _ if options.plain => return Ok(None),
            (Some(certificate), Some(key)) => Self {
                config: finale_tls::server_config(certificate, key)?,
                name: format!("certificate {}", certificate.display()),
            },
            _ => Self::own()?,
        };
        let mut config = ServerConfig::clone(&certificate.config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        config.send_tls13_tickets = 1;
        Ok(Some(Self { config: Arc::new(config), ..certificate }))
    }

    /// A certificate of its own, which no client trusts unless it knows the fingerprint.
    fn own() -> Result<Self, Box<dyn Error>> {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names)?;
        let certificate = made.cert.der().clone();
        let name = format!("own certificate, SHA-256 {}", fingerprint(&certificate));
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        let config = Arc::new(builder.with_single_cert(vec![certificate], key.into())?);
        Ok(Self { config, name })
    }
}

/// As `openssl x509 -fingerprint -sha256` prints it.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let suite = cipher_suite::TLS13_AES_128_GCM_SHA256.tls13();
    let hash = suite.map(|suite| suite.common.hash_provider.hash(certificate));
    let mut text = String::new();
    for (place, byte) in hash.iter().flat_map(AsRef::as_ref).enumerate() {
        let _ = write!(text, "{}{byte:02X}", if place == 0 { "" } else { ":" });
    }
    text
}
