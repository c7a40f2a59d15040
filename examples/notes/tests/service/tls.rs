//! What differs with TLS, and without it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use finale_tls::rustls::HandshakeKind;
use rustix::process::Signal;

use crate::harness::{Address, Client, Notes, Stream, folder};

/// Writes a new certificate for localhost with its key.
fn write_certificate(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("written");
    fs::write(folder.join("cert.pem"), made.cert.pem()).expect("written");
}

/// A client that trusts the certificate in the file, and no other.
fn strict(notes: &Notes, folder: &Path) -> Client {
    let config = finale_tls::client_config(folder.join("cert.pem")).expect("a certificate");
    Client::connect(&Address { config: Some(config), ..notes.at.clone() })
}

#[test]
fn new_connections_get_the_new_certificate_after_sighup_and_a_wrong_file_changes_nothing() {
    let folder = folder("tls_reload");
    write_certificate(&folder);
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let mut notes = Notes::start(&folder, &["--tls-cert", &path(&cert), "--tls-key", &path(&key)]);
    notes.wait_for_line(": certificate ");
    let mut first = strict(&notes, &folder);
    assert_eq!(first.get("/health").status, 200);

    write_certificate(&folder);
    assert!(strict(&notes, &folder).try_send("GET / HTTP/1.1\r\n").is_err(), "it was not read yet");
    notes.signal(Signal::HUP);
    notes.wait_for_line(": certificate ");
    assert_eq!(strict(&notes, &folder).get("/health").status, 200);
    assert_eq!(first.get("/health").status, 200, "connections keep theirs");

    fs::write(&key, "nothing").expect("written");
    notes.signal(Signal::HUP);
    let line = notes.wait_for_line("the certificate stays as it was");
    assert!(line.contains("key.pem"), "{line}");
    assert_eq!(strict(&notes, &folder).get("/health").status, 200);
}

#[test]
fn a_session_is_resumed_and_the_protocol_is_named() {
    let notes = Notes::new("tls_resumption");
    let mut config = (*finale_tls::trust_any_server()).clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.resumption = finale_tls::rustls::client::Resumption::in_memory_sessions(8);
    let at = Address { config: Some(Arc::new(config)), ..notes.at.clone() };
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut client = Client::connect(&at);
        assert_eq!(client.get("/health").status, 200);
        let Stream::Tls(stream) = client.stream.get_ref() else { panic!("it is TLS") };
        assert_eq!(stream.conn.handshake_kind(), Some(kind));
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        client.finish();
        assert_eq!(client.rest(), b"");
    }
    assert!((notes.metric("notes_tls_handshakes_total{kind=\"resumed\"}") - 1.0).abs() < 0.1);
}

#[test]
fn a_client_that_speaks_no_tls_and_one_that_is_cut_off_are_in_the_log() {
    let mut notes = Notes::new("tls_endings");
    let mut plain = Client::connect(&Address { config: None, ..notes.at.clone() });
    plain.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let alert = plain.rest();
    assert!(alert.starts_with(&[21, 3, 3]), "an alert (RFC 8446 section 6): {alert:?}");
    drop(plain);
    let line = notes.wait_for_line(": socket");
    assert!(line.contains("TLS"), "{line}");

    let mut cut = notes.client();
    assert_eq!(cut.get("/health").status, 200);
    // No close_notify.
    drop(cut);
    let line = notes.wait_for_line("close_notify");
    assert!(notes.metric("notes_tls_truncated_total") > 0.5, "{line}");
}

#[test]
fn without_tls_the_service_is_the_same() {
    let notes = Notes::start(&folder("tls_plain"), &["--plain"]);
    let mut client = notes.client();
    assert_eq!(client.note("POST", "/api/notes", "plain").status, 201);
    client.send("PUT /api/notes/1/attachment HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n");
    client.send(vec![b'x'; 1_000_000]);
    assert_eq!(client.answer().status, 413);
    assert_eq!(client.rest(), b"");
}
