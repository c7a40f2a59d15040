//! How a server is stopped: by a signal, a shell command, a function.

mod lines;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use finale_probe::{CaseReport, Stop, Verdict, probe};

fn stop_cases(target: &str, stop: Stop) -> Vec<CaseReport> {
    let mut options = lines::options();
    options.timeout = Duration::from_secs(2);
    // Its answer is small.
    options.big_request = Some(b"big\n".to_vec());
    options.cases = finale_probe::cases().map(|case| case.id.to_owned()).filter(|id| id.starts_with("stop-")).collect();
    options.stop = Some(stop);
    probe(target, &options, |_| {}).expect("it is served").cases
}

/// All are skipped, for this reason.
fn assert_skipped(stop: Stop, reason: &str) {
    for case in stop_cases(&lines::serve().to_string(), stop) {
        assert_eq!(case.verdict, Verdict::Skip, "{case:?}");
        assert!(case.summary.contains(reason), "{}: {}", case.id, case.summary);
    }
}

#[test]
fn a_command_that_fails_is_no_verdict_and_its_words_are_reported() {
    let command = "echo no such unit >&2; exit 5";
    assert_skipped(Stop::Command(command.to_owned()), "the command failed (exit status: 5): no such unit");
}

#[test]
fn a_command_that_takes_too_long_is_killed_and_no_verdict() {
    assert_skipped(Stop::Command("exec sleep 600".to_owned()), "the server did not stop within");
}

#[test]
fn a_stop_that_stops_nothing_is_no_verdict() {
    assert_skipped(Stop::call(|| {}), "the server did not stop within");
}

#[test]
fn a_process_that_does_not_exist_is_no_verdict() {
    assert_skipped(Stop::Pid(0), "no process has the number 0");
    assert_skipped(Stop::Pid(-1), "no process has the number -1");
    // Greater than the greatest number of a process that Linux allows.
    assert_skipped(Stop::Pid(i32::MAX), "SIGTERM to process 2147483647: ESRCH");
}

/// A server in a process of its own.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_process_that_gets_sigterm_is_watched_until_it_is_gone() {
    let (mut served, addr) = own_process();
    let cases = stop_cases(&addr, Stop::Pid(i32::try_from(served.0.id()).expect("it is a number")));
    let idle = cases.iter().find(|case| case.id == "stop-idle").expect("it was chosen");
    // A process that ends by the signal ends its connections with a FIN if nothing is unread.
    assert_eq!(idle.verdict, Verdict::Pass, "{idle:?}");
    assert!(idle.seen["stop_done_ms"].is_number(), "{idle:?}");
    assert!(served.0.try_wait().is_ok_and(|status| status.is_some()));
    let in_flight = cases.iter().find(|case| case.id == "stop-in-flight").expect("it was chosen");
    assert!(!in_flight.seen.contains_key("a half-read answer"), "it had been read: {in_flight:?}");
    let restart = cases.iter().find(|case| case.id == "stop-restart").expect("it was chosen");
    assert_eq!(restart.verdict, Verdict::Skip, "{restart:?}");
}

/// This test program again, as a server.
fn own_process() -> (Served, String) {
    const SERVES: &str = "FINALE_PROBE_TEST_SERVES";
    if std::env::var_os(SERVES).is_some() {
        // Written as a line of its own: the test harness prints, too.
        println!("\nserving {}", lines::serve());
        loop {
            thread::park();
        }
    }
    let program = std::env::current_exe().expect("it runs");
    let args = ["a_process_that_gets_sigterm_is_watched_until_it_is_gone", "--exact", "--nocapture"];
    let mut child =
        Command::new(program).args(args).env(SERVES, "1").stdout(Stdio::piped()).spawn().expect("it can run again");
    let stdout = child.stdout.take().expect("it is a pipe");
    let served = Served(child);
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    let addr = lines.find_map(|line| line.strip_prefix("serving ").map(str::to_owned)).expect("it serves");
    (served, addr)
}
