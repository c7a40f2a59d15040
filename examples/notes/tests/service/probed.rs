//! `finale probe` finds nothing.

use std::time::Duration;

use finale_probe::{Options, Verdict, probe};

use crate::harness::{Notes, folder, request};

#[test]
fn the_probe_finds_no_failure() {
    let notes = Notes::start(&folder("probed"), &["--plain", "--max-attachment", "16777216"]);
    let mut client = notes.client();
    let path = format!("/api/notes/{}/attachment", client.note("POST", "/api/notes", "big").id());
    client.send(request("PUT", &path, "", &"x".repeat(10_000_000)));
    assert_eq!(client.answer().status, 204);

    let mut options = Options::new(request("GET", "/api/notes", "Connection: close\r\n", ""));
    options.big_request = Some(request("GET", &path, "Connection: close\r\n", "").into_bytes());
    options.upload =
        Some(b"PUT /api/notes/1/attachment HTTP/1.1\r\nHost: x\r\nContent-Length: 28000000\r\n\r\n".to_vec());
    options.timeout = Duration::from_secs(2);
    options.runs = 5;
    let report = probe(&notes.at.addr.to_string(), &options, |_| {}).expect("it answers");
    assert_eq!(report.failures(), 0, "{report}");
    assert!(report.count(Verdict::Pass) > 10, "{report}");
}
