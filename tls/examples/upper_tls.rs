//! A TLS server that answers a complete request in upper case, and gives no answer to one that was
//! cut off. Run it: `cargo run --release -p finale-tls --example upper_tls -- 127.0.0.1:8443`, or with
//! the files of a certificate and a key after the address. SIGTERM stops it gracefully, a second one
//! at once.
//!
//! A FIN does not prove that everything has arrived: anyone on the path can forge one. TLS proves it
//! with close_notify, and `Event::End` is just that. So the server looks like one without TLS.

#[path = "../../examples/common/log.rs"]
mod log;
#[path = "../../examples/common/program.rs"]
mod program;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use finale::{Event, ListenOptions, Reactor, SocketMap, StopOptions, Stream};
use finale_tls::rustls::ServerConfig;
use finale_tls::rustls::pki_types::PrivateKeyDer;
use finale_tls::{Tls, TlsSocket};
use log::{Log, is_health_check};
use program::{Stop, StopSignals, status, usage};

/// A longer request is reset.
const REQUEST_BYTES: usize = 1024 * 1024;

fn main() -> ExitCode {
    let args: Vec<String> = program::args().collect();
    match args.as_slice() {
        [addr] => status("upper_tls", self_signed().and_then(|config| run(addr, &config))),
        [addr, certificate, key] => {
            let config = finale_tls::server_config(certificate, key).map_err(Box::from);
            status("upper_tls", config.and_then(|config| run(addr, &config)))
        }
        _ => usage("upper_tls LISTEN [CERTIFICATE KEY], for example 127.0.0.1:8443"),
    }
}

/// A new key and certificate for `localhost`.
fn self_signed() -> Result<Arc<ServerConfig>, Box<dyn Error>> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let provider = Arc::new(finale_tls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok(Arc::new(config))
}

fn run(addr: &str, config: &Arc<ServerConfig>) -> Result<(), Box<dyn Error>> {
    let mut reactor = Reactor::new()?;
    let limits = ListenOptions::default().max_connections(10_000).idle_timeout(Duration::from_secs(10));
    let listener = reactor.listen(addr, limits.deadline(Duration::from_secs(60)))?;
    let mut signals = StopSignals::new(&reactor)?;
    let mut log = Log::new();
    log.line(format_args!("listening on {}", listener.addr));

    let mut tls = Tls::new();
    tls.accept_on(listener.id, config)?;
    let mut requests = SocketMap::new();
    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Woken => match signals.take() {
                Some(Stop::Gracefully) => reactor.stop_listener(listener.id, StopOptions::default())?,
                Some(Stop::AtOnce) => break,
                None => {}
            },
            Event::ListenerClosed(_) => break,
            event => {
                let mut events = tls.handle(&mut socket, event);
                while let Some((mut socket, event)) = events.next() {
                    answer(&mut requests, &mut socket, &event);
                    if let Event::Close(ending) = event
                        && !is_health_check(ending)
                    {
                        log.line(format_args!("{}: {ending}", socket.id()));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Collects a request, and answers it when it is complete.
fn answer(requests: &mut SocketMap<Vec<u8>>, socket: &mut TlsSocket<'_>, event: &Event<'_>) {
    let id = socket.id();
    match event {
        Event::Data(bytes) => {
            let request = requests.or_default(id);
            request.extend_from_slice(bytes);
            if request.len() > REQUEST_BYTES {
                socket.destroy();
            }
        }
        Event::End => {
            let request = requests.remove(id).unwrap_or_default();
            // An error here is this connection's own: its `close` says how it ended.
            let _ = socket.write(&request.to_ascii_uppercase());
            socket.end();
        }
        Event::Timeout => socket.destroy(),
        Event::Close(_) => drop(requests.remove(id)),
        _ => {}
    }
}
