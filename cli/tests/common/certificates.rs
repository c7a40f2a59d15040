//! A root of our own, certificates that it has signed, and rustls by hand.
#![allow(dead_code, reason = "each test file uses its part")]

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use finale_tls::rustls::{self, ClientConnection, ServerConnection, StreamOwned};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// A folder with a root and what it has signed, removed when dropped.
pub(crate) struct Certificates {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificates {
    pub(crate) fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("finale-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a new folder");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let root = params.self_signed(&key).expect("a root");
        std::fs::write(folder.join("ca.pem"), root.pem()).expect("a new file");
        let certificates = Self { folder, issuer: Issuer::new(params, key) };
        certificates.sign(&["localhost", "127.0.0.1"], |_| {});
        certificates
    }

    /// Writes a certificate for these names, and its key. They replace the ones before.
    pub(crate) fn sign(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).expect("names");
        params.distinguished_name.push(rcgen::DnType::CommonName, names[0]);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate");
        std::fs::write(self.path("cert.pem"), signed.pem()).expect("writable");
        std::fs::write(self.path("key.pem"), key.serialize_pem()).expect("writable");
    }

    pub(crate) fn path(&self, file: &str) -> String {
        self.folder.join(file).to_str().expect("text").to_owned()
    }

    /// The options of a server.
    pub(crate) fn serve(&self) -> [String; 4] {
        ["--tls-cert".to_owned(), self.path("cert.pem"), "--tls-key".to_owned(), self.path("key.pem")]
    }

    /// Connects a TLS client of rustls' own.
    pub(crate) fn client(&self, stream: TcpStream) -> StreamOwned<ClientConnection, TcpStream> {
        let config = finale_tls::client_config(Path::new(&self.path("ca.pem"))).expect("a root");
        let tls = ClientConnection::new(config, "localhost".try_into().expect("a name")).expect("a configuration");
        StreamOwned::new(tls, stream)
    }

    /// The server's side, by rustls' own blocking calls.
    pub(crate) fn server(
        &self,
    ) -> impl Fn(TcpStream) -> StreamOwned<ServerConnection, TcpStream> + Send + Sync + 'static {
        let config = finale_tls::server_config(self.path("cert.pem"), self.path("key.pem")).expect("a certificate");
        move |stream| {
            let tls = ServerConnection::new(Arc::<rustls::ServerConfig>::clone(&config)).expect("a configuration");
            StreamOwned::new(tls, stream)
        }
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
