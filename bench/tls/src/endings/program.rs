//! The programs: how each is started, and where it prints what it reports.

use std::path::{Path, PathBuf};

/// Where a program connects, or what it serves with.
pub(super) struct Place<'a> {
    pub(super) port: u16,
    /// The folder of the certificate that a client trusts, or of a server's own.
    pub(super) folder: &'a Path,
    /// A client ends its direction first.
    pub(super) half_close: bool,
    /// This program, which has the ones in Rust.
    pub(super) me: &'a Path,
    /// The folder of the scripts.
    pub(super) scripts: &'a Path,
}

impl Place<'_> {
    fn certificate(&self) -> String {
        self.folder.join(crate::config::FILES[0]).display().to_string()
    }

    fn key(&self) -> String {
        self.folder.join(crate::config::FILES[1]).display().to_string()
    }

    fn script(&self, name: &str) -> String {
        self.scripts.join(name).display().to_string()
    }

    /// The arguments of a client that is a script.
    fn client(&self, interpreter: &str, script: &str, kind: Option<&str>) -> Vec<String> {
        let mut words = vec![interpreter.to_owned(), self.script(script), self.port.to_string(), self.certificate()];
        words.extend(kind.map(str::to_owned));
        words.extend(self.half_close.then(|| "half-close".to_owned()));
        words
    }

    /// The arguments of a client in Rust.
    fn own_client(&self, kind: &str) -> Vec<String> {
        let mut words = vec![self.me.display().to_string(), "client".to_owned(), kind.to_owned()];
        words.extend([format!("127.0.0.1:{}", self.port), self.folder.display().to_string()]);
        words.extend(self.half_close.then(|| "--half-close".to_owned()));
        words
    }

    fn own_server(&self, kind: &str) -> Vec<String> {
        let (me, folder) = (self.me.display().to_string(), self.folder.display().to_string());
        vec![me, "server".to_owned(), kind.to_owned(), folder]
    }

    fn server_script(&self, interpreter: &str, script: &str, kind: Option<&str>) -> Vec<String> {
        let folder = self.folder.display().to_string();
        [interpreter.to_owned(), self.script(script), folder].into_iter().chain(kind.map(str::to_owned)).collect()
    }
}

/// Where a program says what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    /// In the last line that begins with "report: ".
    Report,
    /// In the lines that contain one of these words, and in its exit code.
    Lines(&'static [&'static str]),
}

/// One program.
#[derive(Clone, Copy)]
pub(super) struct Program {
    pub(super) name: &'static str,
    /// The command that prints its version; the first line is taken.
    pub(super) version: &'static [&'static str],
    pub(super) voice: Voice,
    /// A client reads the request from its stdin. It ends when the client is to end first.
    pub(super) feeds: bool,
    /// A client can end its direction and read on; the reason if not.
    pub(super) half_closes: Result<(), &'static str>,
    pub(super) command: fn(&Place<'_>) -> Vec<String>,
}

const NODE: &[&str] = &["node", "--version"];
const PYTHON: &[&str] =
    &["python3", "-c", "import ssl, sys; print(f'{sys.version.split()[0]}, {ssl.OPENSSL_VERSION}')"];
const OPENSSL: &[&str] = &["openssl", "version"];
const OWN: &[&str] = &[];

impl Program {
    const fn new(name: &'static str, version: &'static [&'static str], command: fn(&Place<'_>) -> Vec<String>) -> Self {
        Self { name, version, voice: Voice::Report, feeds: false, half_closes: Ok(()), command }
    }
}

const S_CLIENT: Program = Program {
    voice: Voice::Lines(&["error", "errno", "closed", "alert"]),
    feeds: true,
    half_closes: Err("at the end of its input it closes"),
    ..Program::new("openssl s_client", OPENSSL, |place| {
        let words = [
            "openssl",
            "s_client",
            "-quiet",
            "-verify_return_error",
            "-verify_hostname",
            "localhost",
            "-servername",
            "localhost",
            "-connect",
        ];
        let rest = [format!("127.0.0.1:{}", place.port), "-CAfile".to_owned(), place.certificate()];
        words.map(str::to_owned).into_iter().chain(rest).collect()
    })
};

const CURL: Program = Program {
    voice: Voice::Lines(&["curl: "]),
    half_closes: Err("it ends no direction"),
    ..Program::new("curl", &["curl", "--version"], |place| {
        let words = ["curl", "-sS", "--http1.1", "--cacert"].map(str::to_owned);
        let address = [format!("localhost:{}:127.0.0.1", place.port), format!("https://localhost:{}/", place.port)];
        let rest = [place.certificate(), "--resolve".to_owned()].into_iter().chain(address);
        words.into_iter().chain(rest).collect()
    })
};

const GNUTLS_CLI: Program = Program {
    voice: Voice::Lines(&["*** ", "Peer has closed", "Status:"]),
    feeds: true,
    ..Program::new("gnutls-cli", &["gnutls-cli", "--version"], |place| {
        let words = ["gnutls-cli", "--sni-hostname=localhost", "--verify-hostname=localhost", "--port"];
        let rest = [place.port.to_string(), "--x509cafile".to_owned(), place.certificate(), "127.0.0.1".to_owned()];
        words.map(str::to_owned).into_iter().chain(rest).collect()
    })
};

/// The clients of the first table.
pub(super) const CLIENTS: &[Program] = &[
    S_CLIENT,
    GNUTLS_CLI,
    CURL,
    Program::new("Node tls", NODE, |place| place.client("node", "client.js", None)),
    Program {
        half_closes: Err("its API has no half-close"),
        ..Program::new("Python ssl", PYTHON, |place| place.client("python3", "client.py", Some("plain")))
    },
    Program {
        half_closes: Err("its API has no half-close"),
        ..Program::new("Python ssl, strict", PYTHON, |place| place.client("python3", "client.py", Some("strict")))
    },
    Program {
        half_closes: Err("its API has no half-close"),
        ..Program::new("Python asyncio", PYTHON, |place| place.client("python3", "client.py", Some("asyncio")))
    },
    Program::new("tokio-rustls", OWN, |place| place.own_client("tokio")),
    Program::new("finale-tls", OWN, |place| place.own_client("finale")),
];

/// The clients of HTTP.
pub(super) const HTTP_CLIENTS: &[Program] = &[
    CURL,
    Program::new("Node https", NODE, |place| place.client("node", "https.js", None)),
    Program::new("Python urllib", PYTHON, |place| place.client("python3", "client.py", Some("urllib"))),
];

/// The servers.
pub(super) const SERVERS: &[Program] = &[
    Program {
        voice: Voice::Lines(&["error", "ERROR", "errno", "closed", "DONE", "alert"]),
        half_closes: Err("it reads its answer from a terminal"),
        ..Program::new("openssl s_server", OPENSSL, |place| {
            let words = ["openssl", "s_server", "-naccept", "1", "-accept", "0", "-cert"].map(str::to_owned);
            words.into_iter().chain([place.certificate(), "-key".to_owned(), place.key()]).collect()
        })
    },
    Program::new("Node tls", NODE, |place| place.server_script("node", "server.js", None)),
    Program::new("Python ssl", PYTHON, |place| place.server_script("python3", "server.py", Some("plain"))),
    Program::new("Python ssl, strict", PYTHON, |place| place.server_script("python3", "server.py", Some("strict"))),
    Program::new("Python asyncio", PYTHON, |place| place.server_script("python3", "server.py", Some("asyncio"))),
    Program::new("tokio-rustls", OWN, |place| place.own_server("tokio")),
    Program::new("finale-tls", OWN, |place| place.own_server("finale")),
];

/// The folder of the scripts, in the sources.
pub(super) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs")
}
