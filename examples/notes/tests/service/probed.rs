//! `finale probe` finds nothing.

use std::time::Duration;

use finale_probe::{Options, Stop, Verdict, probe};

use crate::harness::{Notes, folder, request};

/// Those that don't wait for a deadline.
const CASES: [&str; 14] = [
    "half-close",
    "late-input",
    "early-answer",
    "pipeline",
    "pipeline-fin",
    "request-plus-partial",
    "reuse-after-error",
    "reset-after-request",
    "reset-mid-answer",
    "fin-then-reset",
    "stop-in-flight",
    "stop-race",
    "stop-idle",
    "stop-queued",
];

#[test]
fn the_probe_finds_no_failure_also_at_a_stop() {
    let notes = Notes::start(&folder("probed"), &["--plain", "--max-attachment", "16777216"]);
    let mut client = notes.client();
    let path = format!("/api/notes/{}/attachment", client.note("POST", "/api/notes", "big").id());
    client.send(request("PUT", &path, "", &"x".repeat(10_000_000)));
    assert_eq!(client.answer().status, 204);

    let mut options = Options::new(request("GET", "/api/notes", "Connection: close\r\n", ""));
    options.big_request = Some(request("GET", &path, "Connection: close\r\n", "").into_bytes());
    options.upload =
        Some(b"PUT /api/notes/1/attachment HTTP/1.1\r\nHost: x\r\nContent-Length: 28000000\r\n\r\n".to_vec());
    options.timeout = Duration::from_secs(5);
    options.runs = 3;
    options.cases = CASES.map(str::to_owned).into();
    options.stop = Some(Stop::Pid(i32::try_from(notes.child.id()).expect("a process id")));
    let report = probe(&notes.at.addr.to_string(), &options, |_| {}).expect("it answers");
    assert_eq!(report.failures(), 0, "{report}");
    assert_eq!(report.count(Verdict::Skip), 0, "{report}");
    // Half a request at a stop may still be completed, which the probe warns of.
    assert!(report.count(Verdict::Warn) <= 1, "{report}");
}
