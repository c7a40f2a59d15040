//! `finale serve` with TLS: its services, certificates that change, endings, metrics.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::process::Stdio;

use crate::common::certificates::Certificates;
use crate::common::{self, Outcome, command, run_with};
use crate::harness::{self, LINE, signal, upgraded_to};
use rustix::process::Signal;
use serde_json::{Value, json};

/// The options of a server as words.
fn words(options: &[String; 4]) -> Vec<&str> {
    options.iter().map(String::as_str).collect()
}

#[track_caller]
fn connect(certificates: &Certificates, port: u16, options: &[&str], input: &[u8]) -> Outcome {
    let (ca, addr) = (certificates.path("ca.pem"), format!("localhost:{port}"));
    run_with(&[&["connect", "--tls", "--ca", &ca, &addr], options].concat(), input.to_vec())
}

/// The names of the certificate that a client sees.
#[track_caller]
fn names(certificates: &Certificates, port: u16) -> Value {
    let outcome = connect(certificates, port, &["--json"], b"");
    let object: Value = serde_json::from_str(outcome.last_line()).expect("it is JSON");
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    object["tls"]["certificate"]["names"].clone()
}

#[test]
fn each_service_answers_over_tls_and_ends_with_close_notify() {
    let certificates = Certificates::new("tls-services");
    let options = certificates.serve();
    let line = String::from_utf8_lossy(LINE).into_owned();
    for (service, answer) in [("upper", "Processed: HELLO"), ("answer", &line), ("echo", "hello"), ("discard", "")] {
        let server = common::Server::start(&[&[service, "--shards", "2"], &words(&options)[..]].concat());
        let outcome = connect(&certificates, server.addr.port(), &[], b"hello");
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), answer), "{service}: {outcome:?}");
        assert!(outcome.stderr.contains("; ended by close_notify\n"), "{outcome:?}");
        server.stop_quietly();
    }
}

#[test]
fn large_answers_arrive_whole() {
    let certificates = Certificates::new("tls-large");
    let options = certificates.serve();
    let server = common::Server::start(&[&["answer", "--bytes", "8MiB"], &words(&options)[..]].concat());
    let outcome = connect(&certificates, server.addr.port(), &[], b"");
    assert_eq!((outcome.code, outcome.stdout.len()), (Some(0), 8 << 20), "{}", outcome.stderr);
    server.stop_quietly();
}

#[test]
fn a_request_that_was_cut_gets_no_answer_and_the_log_says_so() {
    let certificates = Certificates::new("tls-cut");
    let options = certificates.serve();
    let server = common::Server::start(&[&["upper", "-v"], &words(&options)[..]].concat());
    let mut client = certificates.client(server.connect());
    client.write_all(b"half of").expect("it reads");
    client.sock.shutdown(Shutdown::Write).expect("connected");
    let mut answer = Vec::new();
    // rustls reports the missing close_notify as an error.
    let result = client.read_to_end(&mut answer);
    assert!(result.is_err() && answer.is_empty(), "{answer:?}");
    let text = {
        let mut plain = server.connect();
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it reads");
        let mut alert = Vec::new();
        let _ = plain.read_to_end(&mut alert);
        assert_eq!(alert.first(), Some(&21), "an alert: {alert:?}");
        server.signal(Signal::TERM);
        server.finish().1
    };
    let cut = "error: truncated: a FIN of the peer without close_notify, after 7 bytes";
    assert!(text.contains(cut) && text.contains("7 bytes read, 0 written"), "{text}");
    assert!(text.contains("the peer does not speak TLS here"), "{text}");
}

#[test]
fn a_new_certificate_is_used_after_sighup_and_a_bad_one_is_refused() {
    let certificates = Certificates::new("tls-reload");
    let options = certificates.serve();
    let mut server = harness::Server::start(env!("CARGO_BIN_EXE_finale"), &words(&options));
    let port = server.addr.port();
    assert_eq!(names(&certificates, port), json!(["localhost", "127.0.0.1"]));
    certificates.sign(&["localhost", "second.example"], |_| {});
    server.restart();
    assert_eq!(names(&certificates, port), json!(["localhost", "second.example"]));
    std::fs::write(certificates.path("cert.pem"), "no certificate").expect("writable");
    signal(server.successor, Signal::HUP);
    let line = server.line_with("not restarted");
    assert!(line.contains("continues to serve: ") && line.contains("cert.pem: it has no certificate"), "{line}");
    assert_eq!(names(&certificates, port), json!(["localhost", "second.example"]));
    // A key of another certificate.
    certificates.sign(&["localhost", "third.example"], |_| {});
    std::fs::write(certificates.path("key.pem"), rcgen::KeyPair::generate().expect("a key").serialize_pem())
        .expect("writable");
    signal(server.successor, Signal::HUP);
    let line = server.line_with("not restarted");
    assert!(line.contains("key.pem"), "{line}");
    assert_eq!(names(&certificates, port), json!(["localhost", "second.example"]));
    server.stop();
}

#[test]
fn a_new_certificate_is_used_also_if_the_restart_fails() {
    let certificates = Certificates::new("tls-no-restart");
    let options = certificates.serve();
    let (mut server, folder) = upgraded_to("#!/bin/sh\nexit 3\n", "tls-upgrade", &words(&options));
    certificates.sign(&["localhost", "second.example"], |_| {});
    signal(server.successor, Signal::HUP);
    let line = server.line_with(" again, for the next handshakes");
    assert!(line.contains("cert.pem"), "{line}");
    server.line_with("not restarted");
    assert_eq!(names(&certificates, server.addr.port()), json!(["localhost", "second.example"]));
    server.stop();
    std::fs::remove_dir_all(folder).expect("it is ours");
}

#[test]
fn metrics_have_the_handshakes() {
    let certificates = Certificates::new("tls-metrics");
    let options = certificates.serve();
    let mut server =
        harness::Server::start(env!("CARGO_BIN_EXE_finale"), &[&["--json"], &words(&options)[..]].concat());
    let port = server.addr.port();
    assert_eq!(connect(&certificates, port, &[], b"").code, Some(0));
    let untrusted =
        run_with(&["connect", "--tls", "--ca", &certificates.path("cert.pem"), &format!("127.0.0.2:{port}")], vec![]);
    assert_eq!(untrusted.code, Some(1), "nothing listens there: {untrusted:?}");
    let stranger = Certificates::new("tls-stranger");
    assert_eq!(connect(&stranger, port, &[], b"").code, Some(1));
    signal(server.successor, Signal::USR1);
    let object: Value = serde_json::from_str(&server.line_with("handshakes")).expect("it is JSON");
    let expected = json!({"handshakes": 1, "resumed": 0, "failed_handshakes": 1, "truncated": 0, "failed": 0});
    assert_eq!(object["tls"], expected, "{object}");
    server.stop();
}

#[test]
fn a_stop_ends_idle_clients_with_close_notify() {
    let certificates = Certificates::new("tls-stop");
    let options = certificates.serve();
    let server = common::Server::start(&[&["echo", "--grace", "500ms"], &words(&options)[..]].concat());
    let (ca, addr) = (certificates.path("ca.pem"), format!("localhost:{}", server.addr.port()));
    let mut client = command(&["connect", "--tls", "--no-half-close", "--json", "--ca", &ca, &addr])
        .stdin(Stdio::piped())
        .spawn()
        .expect("it starts");
    client.stdin.as_mut().expect("piped").write_all(b"hello").expect("it reads");
    let mut echo = [0; 5];
    client.stdout.as_mut().expect("piped").read_exact(&mut echo).expect("an echo");
    server.signal(Signal::TERM);
    assert_eq!(server.finish(), (Some(0), String::new()));
    drop(client.stdin.take());
    let outcome = common::finish(client);
    let object: Value = serde_json::from_str(outcome.last_line()).expect("it is JSON");
    assert_eq!((&object["clean"], &object["tls"]["close_notify"]), (&json!(true), &json!(true)), "{outcome:?}");
}
