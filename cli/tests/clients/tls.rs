//! `finale connect` and `finale bench` with TLS.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::thread;

use crate::common::certificates::Certificates;
use crate::common::{Outcome, Server, patient, run, run_with};
use crate::connect::server;
use serde_json::{Value, json};

fn object(outcome: &Outcome) -> Value {
    serde_json::from_str(outcome.last_line()).expect("it is JSON")
}

#[test]
fn the_report_says_what_was_negotiated_and_that_the_stream_was_complete() {
    let certificates = Certificates::new("connect-tls");
    let accept = certificates.server();
    let (addr, peer) = server(move |stream| {
        let (mut tls, mut request) = (accept(stream), Vec::new());
        tls.read_to_end(&mut request).expect("a complete request");
        tls.write_all(b"answer").expect("it reads");
        tls.conn.send_close_notify();
        tls.flush().expect("it reads");
        request
    });
    let outcome = run_with(&["connect", "--tls", "--ca", &certificates.path("ca.pem"), &addr], b"question".to_vec());
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "answer"), "{outcome:?}");
    let lines: Vec<_> = outcome.stderr.lines().collect();
    let negotiated =
        format!("finale: {addr}: TLS 1.3, TLS_AES_256_GCM_SHA384; certificate for localhost, 127.0.0.1, valid");
    assert!(lines[0].starts_with(&negotiated) && lines[0].ends_with("; ended by close_notify"), "{outcome:?}");
    let ending = "clean and acknowledged; we finished first, TIME_WAIT is ours; 6 bytes read, 8 written";
    assert_eq!(lines[1..], [format!("finale: {addr}: {ending}")]);
    assert_eq!(peer.join().expect("the server ends"), b"question");
}

#[test]
fn the_object_has_what_was_negotiated() {
    let certificates = Certificates::new("connect-json");
    let options = certificates.serve();
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let server = Server::start(&[&["echo", "--alpn", "h2,x"], &options[..]].concat());
    let (ca, addr) = (certificates.path("ca.pem"), format!("localhost:{}", server.addr.port()));
    let outcome = run_with(&["connect", "--json", "--tls", "--ca", &ca, "--alpn", "x", &addr], b"hello".to_vec());
    let found = object(&outcome);
    let tls = &found["tls"];
    assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(0), 1), "{outcome:?}");
    for (name, value) in [
        ("version", json!("TLS 1.3")),
        ("alpn", json!("x")),
        ("resumed", json!(false)),
        ("verified", json!(true)),
        ("close_notify", json!(true)),
    ] {
        assert_eq!(tls[name], value, "{name}: {found}");
    }
    assert_eq!(tls["certificate"]["names"], json!(["localhost", "127.0.0.1"]));
    assert!(tls["certificate"]["not_after"].as_str().is_some_and(|date| date.ends_with('Z')), "{found}");
    let without = run_with(&["connect", "--json", &addr], b"hello".to_vec());
    assert_eq!(object(&without)["tls"], Value::Null);
    server.signal(rustix::process::Signal::TERM);
}

#[test]
fn an_answer_that_was_cut_is_a_failure_whose_report_says_so() {
    let certificates = Certificates::new("connect-cut");
    let accept = certificates.server();
    let (addr, peer) = server(move |stream| {
        let mut tls = accept(stream);
        tls.write_all(b"half of").expect("it reads");
        tls.sock.shutdown(Shutdown::Write).expect("connected");
        let _ = tls.sock.read_to_end(&mut Vec::new());
    });
    let outcome = run(&["connect", "--tls", "--ca", &certificates.path("ca.pem"), "--no-half-close", &addr]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), "half of"), "{outcome:?}");
    assert!(outcome.stderr.contains("; no close_notify\n"), "{outcome:?}");
    let cut = "error: truncated: a FIN of the peer without close_notify, after 7 bytes";
    assert!(outcome.last_line().contains(cut), "{outcome:?}");
    peer.join().expect("the server ends");
}

#[test]
fn a_certificate_that_does_not_fit_is_refused_with_the_reason() {
    let certificates = Certificates::new("connect-refused");
    let ca = certificates.path("ca.pem");
    let options = certificates.serve();
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let attempt = |client: &[&str]| {
        let server = Server::start(&[&["echo"], &options[..]].concat());
        let addr = format!("localhost:{}", server.addr.port());
        let outcome = run(&[&["connect", "--tls", &addr], client].concat());
        server.stop_quietly();
        outcome
    };
    let own = ["--ca", &ca];
    let wrong_name = attempt(&[&own[..], &["--servername", "example.org"]].concat());
    let wrong_alpn = attempt(&[&own[..], &["--alpn", "h2"]].concat());
    assert_eq!(wrong_alpn.code, Some(0), "a server without --alpn takes any: {wrong_alpn:?}");
    let stranger = Certificates::new("connect-stranger");
    let untrusted = attempt(&["--ca", &stranger.path("ca.pem")]);
    certificates.sign(&["localhost"], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let expired = attempt(&own);
    for (outcome, words) in [
        (&wrong_name, "the peer's certificate is for another name than the one that we connect to"),
        (&untrusted, "the issuer of the peer's certificate is not among the roots that we trust"),
        (&expired, "the peer's certificate has expired"),
    ] {
        assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(1), 1), "{outcome:?}");
        assert!(
            outcome.stderr.contains("error: the handshake failed: ") && outcome.stderr.contains(words),
            "{outcome:?}"
        );
    }
    let unchecked = attempt(&["--insecure"]);
    assert_eq!(unchecked.code, Some(0), "{unchecked:?}");
    assert!(
        unchecked.stderr.contains("EXPIRED on 2020-01-01") && unchecked.stderr.contains("NOT VERIFIED"),
        "{unchecked:?}"
    );
}

#[test]
fn keys_are_written_where_the_environment_says_and_a_warning_says_so() {
    let certificates = Certificates::new("connect-keys");
    let options = certificates.serve();
    let server = Server::start(&[&["echo"], &options.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
    let keys = certificates.path("keys.txt");
    let addr = format!("localhost:{}", server.addr.port());
    let mut client = crate::common::command(&["connect", "--tls", "--insecure", &addr]);
    let outcome = crate::common::finish(client.env("SSLKEYLOGFILE", &keys).spawn().expect("it starts"));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("SSLKEYLOGFILE is set"), "{outcome:?}");
    let text = std::fs::read_to_string(&keys).expect("it was written");
    assert!(text.contains("CLIENT_TRAFFIC_SECRET_0 "), "{text}");
    server.stop_quietly();
}

#[track_caller]
fn bench(args: &[&str]) -> (Outcome, Value) {
    let outcome = run(&[&["bench", "--json", "--tls", "-c", "8"], args].concat());
    let found = serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("no JSON: {outcome:?}"));
    (outcome, found)
}

#[test]
fn a_load_with_tls_counts_its_handshakes_and_resumes_where_both_sides_permit_it() {
    let certificates = Certificates::new("bench-tls");
    let ca = certificates.path("ca.pem");
    let options = certificates.serve();
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let server = Server::start(&[&["answer", "--tls-resumption"], &options[..]].concat());
    let addr = server.addr.to_string();
    for (resumption, resumes) in [(&[] as &[&str], false), (&["--tls-resumption"], true)] {
        let (outcome, found) = bench(&[&["--target", &addr, "--ca", &ca, "-n", "100"], resumption].concat());
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
        assert_eq!((&found["tls"]["handshakes"], &found["failed"]), (&json!(100), &json!(0)), "{found}");
        assert_eq!(found["tls"]["resumption"], json!(resumes), "{found}");
        assert_eq!(found["tls"]["resumed"].as_u64().is_some_and(|count| count >= 80), resumes, "{found}");
        assert_eq!(found["bytes_received"], 6400, "plaintext: {found}");
    }
    let page = run(&["bench", "--tls", "--insecure", "--target", &addr, "-n", "50"]).stdout;
    assert!(page.contains("connection  TLS: send 64 B") && page.contains("handshakes  50\n"), "{page}");
    server.stop_quietly();
}

#[test]
fn answers_without_close_notify_and_failed_handshakes_are_failures_of_their_own_kind() {
    let certificates = Certificates::new("bench-cut");
    let accept = certificates.server();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let addr = listener.local_addr().expect("bound").to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut tls = accept(patient(stream));
            let _ = tls.read_to_end(&mut Vec::new());
            let _ = tls.write_all(&[b'x'; 64]);
            // All of the answer, and no close_notify.
        }
    });
    let (outcome, found) = bench(&["--target", &addr, "--insecure", "-n", "20"]);
    assert_eq!((outcome.code, &found["failures"]), (Some(1), &json!({"truncated": 20})), "{outcome:?}");
    assert!(outcome.stderr.contains("without close_notify"), "{outcome:?}");
    let stranger = Certificates::new("bench-stranger");
    let (outcome, found) = bench(&["--target", &addr, "--ca", &stranger.path("ca.pem"), "-n", "20"]);
    assert_eq!((outcome.code, &found["failures"]), (Some(1), &json!({"handshake": 20})), "{outcome:?}");
}
