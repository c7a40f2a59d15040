//! TLS without anything random: the random bytes are constant, and so is the secret of the key
//! exchange; Ed25519 signs in the same way each time.

use finale_tls::rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use finale_tls::rustls::{self, NamedGroup, SupportedProtocolVersion};
use rcgen::{CertificateParams, KeyPair};

use crate::scene::{Configs, provider};

#[derive(Debug)]
struct Constant;

impl SecureRandom for Constant {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        buffer.fill(7);
        Ok(())
    }
}

/// An exchange of keys that are known.
impl SupportedKxGroup for Constant {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        Ok(Box::new(Self))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for Constant {
    fn complete(self: Box<Self>, _peer: &[u8]) -> Result<SharedSecret, rustls::Error> {
        Ok(SharedSecret::from(&[9; 32][..]))
    }

    fn pub_key(&self) -> &[u8] {
        &[8; 32]
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

pub(crate) fn configs(version: &'static SupportedProtocolVersion) -> Configs {
    let key = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIP5mX5pDXCNa2YgP+a38sd4W1/XtQi1fA3VpUOU1A4hV\n\
        -----END PRIVATE KEY-----\n";
    let key = KeyPair::from_pem(key).expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate").der().clone();
    let constant = CryptoProvider { secure_random: &Constant, kx_groups: vec![&Constant], ..provider() };
    let key = key.serialize_der().try_into().expect("a key");
    let mut configs = Configs::of(&[version], constant, certificate, key);
    configs.client.resumption = rustls::client::Resumption::disabled();
    configs
}
