//! The report of a probe that is interrupted.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use finale_probe::{Options, ProbeError, Progress, Report, probe};

/// Answers a line with a line, and ends.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut client = client;
                let _ = BufReader::new(&client).read_line(&mut String::new());
                let _ = client.write_all(b"hello\n");
            });
        }
    });
    addr
}

/// Probes a server, and interrupts that when this is so.
fn interrupted(when: impl Fn(Progress<'_>) -> bool) -> Result<Report, ProbeError> {
    let set = Arc::new(AtomicBool::new(false));
    let mut options = Options::new("hello\n");
    (options.cases, options.runs) = (vec!["half-close".to_owned()], 1);
    options.interrupt = Some(Arc::clone(&set));
    let addr = server().to_string();
    probe(&addr, &options, |progress| set.store(when(progress), Ordering::Release))
}

#[test]
fn an_interrupted_probe_reports_what_it_has() {
    let report = interrupted(|progress| matches!(progress, Progress::Case(..))).expect("there is a baseline");
    assert!(report.interrupted && report.cases.is_empty() && report.baseline.bytes == 6, "{report:?}");
    let too_late = interrupted(|progress| matches!(progress, Progress::Done(_))).expect("there is a baseline");
    assert!(!too_late.interrupted && too_late.cases.len() == 1, "{too_late:?}");
    let nothing = interrupted(|progress| matches!(progress, Progress::Baseline));
    assert_eq!(nothing.expect_err("there is no baseline"), ProbeError::Interrupted);
}
