//! Servers with TLS: what the report says of a version, a protocol, and a certificate.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use finale_probe::finale_tls::rustls::pki_types::PrivateKeyDer;
use finale_probe::finale_tls::rustls::{
    ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion, crypto, version,
};
use finale_probe::finale_tls::{client_config_with, trust_any_server};
use finale_probe::{Options, ProbeError, TlsOptions, Verdict, probe};

/// Answers a line, and ends with close_notify. Returns its address.
fn server(versions: &[&'static SupportedProtocolVersion]) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let mut config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .expect("known versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("the key of this certificate");
    config.alpn_protocols = vec![b"upper".to_vec()];
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let addr = listener.local_addr().expect("it is bound").to_string();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            thread::spawn(move || serve(client, config));
        }
    });
    addr
}

fn serve(client: TcpStream, config: Arc<ServerConfig>) {
    let _ = client.set_read_timeout(Some(Duration::from_secs(5)));
    let mut client = StreamOwned::new(ServerConnection::new(config).expect("a good configuration"), client);
    let (mut byte, mut line) = ([0], Vec::new());
    while !line.ends_with(b"\n") && matches!(client.read(&mut byte), Ok(1)) {
        line.push(byte[0]);
    }
    if line.ends_with(b"\n") {
        let _ = client.write_all(&line.to_ascii_uppercase());
        client.conn.send_close_notify();
        let _ = client.flush();
        let _ = client.sock.shutdown(Shutdown::Write);
        while matches!(client.sock.read(&mut [0; 1024]), Ok(1..)) {}
    }
}

fn options(config: Arc<ClientConfig>, cases: &[&str]) -> Options {
    let mut options = Options::new("hello\n");
    options.tls = Some(TlsOptions::new(config, "localhost".try_into().expect("a name")));
    options.cases = cases.iter().map(ToString::to_string).collect();
    (options.runs, options.timeout) = (2, Duration::from_secs(2));
    options
}

#[test]
fn the_baseline_has_the_version_the_protocol_and_the_end() {
    let mut config = ClientConfig::clone(&trust_any_server());
    config.alpn_protocols = vec![b"upper".to_vec()];
    let addr = server(&[&version::TLS13]);
    let report = probe(&addr, &options(config.into(), &["half-close", "close-notify"]), |_| {}).expect("it answers");
    let baseline = &report.baseline;
    assert_eq!((baseline.tls, baseline.alpn.as_deref()), (Some("1.3"), Some("upper")));
    assert_eq!((baseline.close_notify, baseline.end, baseline.bytes), (Some(true), "fin", 6));
    assert_eq!(report.count(Verdict::Pass), 2, "{report}");
}

#[test]
fn tls_1_2_permits_what_half_close_looks_for() {
    let addr = server(&[&version::TLS12]);
    let report =
        probe(&addr, &options(trust_any_server(), &["half-close", "close-notify"]), |_| {}).expect("it answers");
    assert_eq!(report.baseline.tls, Some("1.2"));
    assert_eq!([report.cases[0].verdict, report.cases[1].verdict], [Verdict::Skip, Verdict::Pass], "{report}");
    assert!(report.cases[0].summary.contains("RFC 5246"), "{report}");
}

#[test]
fn without_tls_its_cases_are_left_out_or_skipped_with_the_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound").to_string();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = client.read(&mut [0; 64]);
            let _ = client.write_all(b"HELLO\n");
        }
    });
    let mut options = Options::new("hello\n");
    options.cases = vec!["close-notify".to_owned()];
    let report = probe(&addr, &options, |_| {}).expect("it answers");
    assert_eq!((report.cases[0].verdict, report.cases[0].summary.as_str()), (Verdict::Skip, "only over TLS (--tls)"));
    assert_eq!((report.baseline.tls, report.baseline.close_notify), (None, None));
}

#[test]
fn a_certificate_that_is_not_trusted_is_no_baseline_and_the_reason_is_in_words() {
    let addr = server(&[&version::TLS13]);
    let nobody = client_config_with(RootCertStore::empty());
    let error = probe(&addr, &options(nobody, &[]), |_| {}).expect_err("it is not trusted");
    let ProbeError::NoBaseline(reason) = error else { panic!("{error:?}") };
    assert!(reason.contains("not among the roots"), "{reason}");
}

#[test]
fn a_server_with_tls_that_is_probed_without_is_no_baseline() {
    let addr = server(&[&version::TLS13]);
    let error = probe(&addr, &Options::new("GET / HTTP/1.1\r\n\r\n"), |_| {}).expect_err("it wants TLS");
    assert!(error.to_string().contains("--tls"), "{error}");
}
