//! Servers with TLS, on rustls and threads.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use finale_probe::finale_tls::rustls::pki_types::PrivateKeyDer;
use finale_probe::finale_tls::rustls::{ServerConfig, ServerConnection, StreamOwned, crypto};
use finale_probe::finale_tls::trust_any_server;
use finale_probe::{Options, TlsOptions, Verdict};

use crate::correct::ANSWER;
use crate::keeper::{Server, each};

pub(crate) const SERVERS: &[Server] = &[
    Server {
        name: "tls-closes-each",
        about: "correct: one answer per connection, then close_notify and FIN, and it reads on until the client's",
        found_by: &[],
        run: |listener| each(&listener, |client| serve(client, Some(LIMIT), Duration::ZERO, true)),
        probed: with_tls,
    },
    Server {
        name: "tls-no-close-notify",
        about: "ends its answers with a FIN and no close_notify",
        found_by: &[("close-notify", Verdict::Warn)],
        run: |listener| each(&listener, |client| serve(client, Some(LIMIT), Duration::ZERO, false)),
        probed: with_tls,
    },
    Server {
        name: "tls-ends-at-close-notify",
        about: "takes the client's close_notify for its departure, and drops the answer that it works on",
        found_by: &[("half-close", Verdict::Fail)],
        run: |listener| each(&listener, |client| serve(client, Some(LIMIT), Duration::from_millis(200), true)),
        probed: |options| {
            with_tls(options);
            options.expect_half_close = true;
        },
    },
    Server {
        name: "tls-waits-for-ever",
        about: "has no deadline for a handshake, and claims one",
        found_by: &[("half-handshake", Verdict::Fail)],
        run: |listener| each(&listener, |client| serve(client, None, Duration::ZERO, true)),
        probed: |options| {
            with_tls(options);
            options.claims.header = Some(Duration::from_millis(500));
            options.late = Duration::from_secs(1);
        },
    },
];

/// From the accepted connection to the end of the request.
const LIMIT: Duration = Duration::from_secs(1);

type Client = StreamOwned<ServerConnection, TcpStream>;

fn with_tls(options: &mut Options) {
    let name = "localhost".try_into().expect("a name");
    options.tls = Some(TlsOptions::new(trust_any_server(), name));
}

/// A configuration with a certificate of its own.
fn config() -> Arc<ServerConfig> {
    static CONFIG: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    let make = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("it has all versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key);
        Arc::new(config.expect("the key of this certificate"))
    };
    Arc::clone(CONFIG.get_or_init(make))
}

/// Answers one request. `work`: the answer takes this long, and is dropped if the client ends
/// meanwhile.
fn serve(client: TcpStream, limit: Option<Duration>, work: Duration, says_goodbye: bool) {
    let tls = ServerConnection::new(config()).expect("a good configuration");
    let mut client = StreamOwned::new(tls, client);
    if head(&mut client, limit).is_err() || (!work.is_zero() && has_ended(&mut client, work)) {
        return;
    }
    let _ = client.write_all(ANSWER);
    if says_goodbye {
        client.conn.send_close_notify();
    }
    let _ = client.flush();
    let socket = &mut client.sock;
    let _ = socket.shutdown(Shutdown::Write);
    let _ = socket.set_read_timeout(Some(LIMIT));
    while matches!(socket.read(&mut [0; 4096]), Ok(1..)) {}
}

/// Reads the head of a request, in one time for all of it.
fn head(client: &mut Client, limit: Option<Duration>) -> io::Result<()> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        client.sock.set_read_timeout(left)?;
        match client.read(&mut byte)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => head.push(byte[0]),
        }
    }
    Ok(())
}

/// Whether the client ends within this time.
fn has_ended(client: &mut Client, work: Duration) -> bool {
    let _ = client.sock.set_read_timeout(Some(work));
    matches!(client.read(&mut [0]), Ok(0))
}
