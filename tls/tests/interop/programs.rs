//! The other programs: how each is started as a client and as a server.

use std::process::Command;

use crate::stage::Files;

/// Node and Python, as a client that writes a line, ends its side if the last argument is `end`, and
/// prints what it reads up to the end. It exits with 0 if that was clean.
const NODE_CLIENT: &str = "
const [cert, port, version, how] = process.argv.slice(1);
const ca = require('fs').readFileSync(cert);
const options = { port, host: '127.0.0.1', servername: 'localhost', ca, minVersion: version, maxVersion: version };
const socket = require('tls').connect(options, () => {
  socket.write('request\\n');
  if (how == 'end') socket.end();
});
socket.on('data', data => process.stdout.write(data));
socket.on('error', error => { console.error(error.code); process.exitCode = 1; });
";

const PYTHON_CLIENT: &str = "
import socket, ssl, sys
cert, port, version, how = sys.argv[1:]
context = ssl.create_default_context(cafile=cert)
context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version.replace('.', '_'))
raw = socket.create_connection(('127.0.0.1', int(port)))
stream = context.wrap_socket(raw, server_hostname='localhost', suppress_ragged_eofs=False)
stream.sendall(b'request\\n')
while data := stream.recv(65536):
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
stream.unwrap()
";

/// As servers they answer each line at once, and end when the client has.
const NODE_SERVER: &str = "
const [cert, key, port, version] = process.argv.slice(1);
const read = require('fs').readFileSync;
const options = { cert: read(cert), key: read(key), allowHalfOpen: true, minVersion: version, maxVersion: version };
require('tls').createServer(options, socket => {
  socket.on('error', error => console.error(error.code));
  socket.on('data', data => socket.write(data));
  socket.on('end', () => socket.end('goodbye'));
}).listen(port, '127.0.0.1', () => console.log('listening'));
";

const PYTHON_SERVER: &str = "
import socket, ssl, sys
cert, key, port, version = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version.replace('.', '_'))
listener = socket.create_server(('127.0.0.1', int(port)))
print('listening', flush=True)
raw, _ = listener.accept()
stream = context.wrap_socket(raw, server_side=True, suppress_ragged_eofs=False)
while data := stream.recv(65536):
    stream.sendall(data)
stream.sendall(b'goodbye')
stream.unwrap()
";

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Tls12,
    Tls13,
}

impl Version {
    pub(crate) const ALL: [Self; 2] = [Self::Tls12, Self::Tls13];

    const fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }

    const fn openssl(self) -> &'static str {
        match self {
            Self::Tls12 => "-tls1_2",
            Self::Tls13 => "-tls1_3",
        }
    }

    const fn gnutls(self) -> &'static str {
        match self {
            Self::Tls12 => "NORMAL:-VERS-ALL:+VERS-TLS1.2",
            Self::Tls13 => "NORMAL:-VERS-ALL:+VERS-TLS1.3",
        }
    }
}

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Other {
    OpenSsl,
    Curl,
    Node,
    Python,
    GnuTls,
}

impl Other {
    /// As a client of a port on this machine. It writes a line, or what is on its standard input.
    pub(crate) fn client(self, files: &Files, port: u16, version: Version, ends: bool) -> Command {
        let port_text = port.to_string();
        let how = if ends { "end" } else { "wait" };
        match self {
            Self::OpenSsl => {
                let mut command = Command::new("openssl");
                command.args(["s_client", "-quiet", "-verify_return_error", "-nocommands", version.openssl()]);
                command.args(["-servername", "localhost", "-connect", &format!("127.0.0.1:{port}")]);
                command.arg("-CAfile").arg(&files.certificate).arg(if ends { "-no_ign_eof" } else { "-ign_eof" });
                command
            }
            Self::Curl => {
                let mut command = Command::new("curl");
                command.args(["--silent", "--show-error", "--http1.1", "--max-time", "30", "--cacert"]);
                command.arg(&files.certificate);
                command.args(if version == Version::Tls12 { &["--tls-max", "1.2"][..] } else { &["--tlsv1.3"][..] });
                command.args(["--resolve", &format!("localhost:{port}:127.0.0.1")]);
                command.arg(format!("https://localhost:{port}/"));
                command
            }
            Self::Node => {
                let mut command = Command::new("node");
                command.args(["-e", NODE_CLIENT, "--"]).arg(&files.certificate);
                command.args([&port_text, version.name(), how]);
                command
            }
            Self::Python => {
                let mut command = Command::new("python3");
                command.args(["-c", PYTHON_CLIENT]).arg(&files.certificate);
                command.args([&port_text, version.name(), how]);
                command
            }
            Self::GnuTls => {
                let mut command = Command::new("gnutls-cli");
                command.args(["--logfile", "/dev/null", "--priority", version.gnutls(), "--port", &port_text]);
                command.args(["--verify-hostname", "localhost", "--x509cafile"]).arg(&files.certificate);
                command.arg("127.0.0.1");
                command
            }
        }
    }

    /// As a server on this port. `None` if it is none.
    pub(crate) fn server(self, files: &Files, port: u16, version: Version) -> Option<Command> {
        let port_text = port.to_string();
        let command = match self {
            Self::OpenSsl => {
                let mut command = Command::new("openssl");
                command.args(["s_server", "-rev", version.openssl(), "-accept", &format!("127.0.0.1:{port}")]);
                command.arg("-cert").arg(&files.certificate).arg("-key").arg(&files.key);
                command
            }
            Self::Node => {
                let mut command = Command::new("node");
                command.args(["-e", NODE_SERVER, "--"]).arg(&files.certificate).arg(&files.key);
                command.args([&port_text, version.name()]);
                command
            }
            Self::Python => {
                let mut command = Command::new("python3");
                command.args(["-c", PYTHON_SERVER]).arg(&files.certificate).arg(&files.key);
                command.args([&port_text, version.name()]);
                command
            }
            Self::GnuTls => {
                let mut command = Command::new("gnutls-serv");
                command.args(["--echo", "--priority", version.gnutls(), "--port", &port_text]);
                command.arg("--x509certfile").arg(&files.certificate).arg("--x509keyfile").arg(&files.key);
                command
            }
            Self::Curl => return None,
        };
        Some(command)
    }

    /// What it prints when it listens.
    pub(crate) const fn listening(self) -> &'static str {
        match self {
            Self::OpenSsl => "ACCEPT",
            Self::GnuTls => "Server listening",
            Self::Curl | Self::Node | Self::Python => "listening",
        }
    }
}
