//! Each fault of the zoo is found, and no correct server is accused.

#[path = "../examples/zoo/answers.rs"]
mod answers;
#[path = "../examples/zoo/bulk.rs"]
mod bulk;
#[path = "../examples/zoo/control.rs"]
mod control;
#[path = "../examples/zoo/correct.rs"]
mod correct;
#[path = "../examples/zoo/deadlines.rs"]
mod deadlines;
#[path = "../examples/zoo/deaths.rs"]
mod deaths;
#[path = "../examples/zoo/endings.rs"]
mod endings;
#[allow(dead_code, reason = "the program of the zoo uses the rest")]
#[path = "../examples/zoo/keeper.rs"]
mod keeper;
#[path = "../examples/zoo/kept.rs"]
mod kept;
#[path = "../examples/zoo/odd.rs"]
mod odd;
#[path = "../examples/zoo/punctual.rs"]
mod punctual;
#[path = "../examples/zoo/reading.rs"]
mod reading;
#[path = "../examples/zoo/stops.rs"]
mod stops;
#[path = "../examples/zoo/talkers.rs"]
mod talkers;
#[path = "../examples/zoo/tls.rs"]
mod tls;

use std::fs;
use std::net::SocketAddr;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use finale_probe::{CaseReport, Verdict};
use keeper::{Server, is_expected, probe_with};

/// Cases with thousands of connections. All servers at once with them would test the machine, whose
/// kernel drops what it has no room for: they are tried on one server after the other.
const STORMS: [&str; 2] = ["churn", "abort-storm"];
/// How many servers are probed at the same time. Each probe waits for most of its time.
const AT_ONCE: usize = 32;

/// Probes servers, some at a time, and returns what is not as expected. The machine is busy with
/// it: what surprises then is tried again alone, as a user would try it.
fn surprises(
    servers: impl Iterator<Item = Server>,
    cases: impl Fn(&Server) -> Vec<&'static str> + Sync,
) -> Vec<String> {
    let servers = Mutex::new(servers.collect::<Vec<_>>());
    let next = || servers.lock().expect("no thread panics with it").pop();
    thread::scope(|scope| {
        let work = || {
            let mut surprises = Vec::new();
            while let Some(server) = next() {
                surprises.extend(surprises_of(&server, &cases(&server)).into_iter().map(|(id, _)| (server, id)));
            }
            surprises
        };
        let probing: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let surprises = probing.into_iter().flat_map(|thread| thread.join().expect("the probe has a report"));
        surprises.flat_map(|(server, id)| surprises_of(&server, &[id])).map(|(_, what)| what).collect()
    })
}

/// The cases whose verdict is not as expected, and what they say.
fn surprises_of(server: &Server, cases: &[&str]) -> Vec<(&'static str, String)> {
    let report = probe_with(server, cases);
    let wrong = report.cases.iter().filter(|case| !is_expected(server, case.id, case.verdict));
    let say =
        |case: &CaseReport| format!("{}: {} {}: {} {:?}", server.name, case.verdict, case.id, case.summary, case.seen);
    wrong.map(|case| (case.id, say(case))).collect()
}

#[test]
fn each_fault_is_found_by_its_cases() {
    let faulty = keeper::all().into_iter().filter(|server| !server.found_by.is_empty());
    let surprises = surprises(faulty, |server| server.found_by.iter().map(|(case, _)| *case).collect());
    assert!(surprises.is_empty(), "{surprises:#?}");
}

fn correct_servers() -> impl Iterator<Item = Server> {
    keeper::all().into_iter().filter(|server| server.found_by.is_empty())
}

#[test]
fn no_correct_server_is_accused() {
    let quiet: Vec<&str> = finale_probe::cases().map(|case| case.id).filter(|id| !STORMS.contains(id)).collect();
    let surprises = surprises(correct_servers(), |_| quiet.clone());
    assert!(surprises.is_empty(), "{surprises:#?}");
}

/// Those whose author had the deaths of clients in mind, and the simplest.
#[test]
fn no_correct_server_is_accused_after_a_storm() {
    let own = |server: &Server| deaths::SERVERS.iter().chain(correct::SERVERS).any(|it| it.name == server.name);
    let surprises: Vec<_> = correct_servers().filter(own).flat_map(|server| surprises_of(&server, &STORMS)).collect();
    assert!(surprises.is_empty(), "{surprises:#?}");
}

#[test]
fn each_case_finds_a_fault() {
    let found: Vec<&str> = keeper::all().iter().flat_map(|server| server.found_by).map(|(case, _)| *case).collect();
    for case in finale_probe::cases() {
        assert!(found.contains(&case.id), "no server of the zoo has what {} looks for", case.id);
    }
    assert!(keeper::all().iter().all(|server| server.found_by.iter().all(|(_, verdict)| *verdict >= Verdict::Warn)));
}

#[test]
fn the_page_of_the_zoo_is_what_it_prints() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/zoo.md");
    let page = fs::read_to_string(path).expect("it is in the repository");
    assert_eq!(page, keeper::page(), "write it again: cargo run -p finale-probe --example zoo -- page >docs/zoo.md");
}

fn server(name: &str) -> Server {
    keeper::all().into_iter().find(|server| server.name == name).expect("it is in the zoo")
}

#[test]
fn clients_that_vanish_are_still_held_by_a_server_without_a_deadline() {
    let report = probe_with(&server("has-no-deadline"), &["vanish"]);
    let stages = &report.cases[0].seen;
    assert_eq!(stages.len(), 3, "{stages:?}");
    assert!(stages.values().all(|stage| stage["vanished"] == 6 && stage["held"] == 6), "{stages:?}");
}

#[test]
fn a_penalty_is_no_failure_and_ends_the_hostile_cases() {
    let report = probe_with(&server("penalizes"), &["reset-after-request", "churn", "abort-storm"]);
    let verdicts: Vec<Verdict> = report.cases.iter().map(|case| case.verdict).collect();
    assert_eq!(verdicts, [Verdict::Info, Verdict::Skip, Verdict::Skip], "{:#?}", report.cases);
    assert!(report.cases[0].summary.starts_with("we are being limited"), "{}", report.cases[0].summary);
}

/// The connections from or to a port that the kernel still has, without those in TIME-WAIT.
fn connections(addr: SocketAddr) -> Vec<String> {
    let port = format!(":{:04X}", addr.port());
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    let is_open = |line: &&str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let ends = columns.get(1..3).is_some_and(|ends| ends.iter().any(|end| end.ends_with(&port)));
        // LISTEN is 0A, TIME-WAIT 06 (proc_net_tcp in the documentation of the kernel).
        ends && !matches!(columns.get(3), Some(&("0A" | "06")))
    };
    table.lines().filter(is_open).map(str::to_owned).collect()
}

#[test]
fn nothing_stays_open_after_a_probe() {
    let server = server("has-no-deadline");
    let addr = keeper::start(&server);
    let options = keeper::options(&server);
    finale_probe::probe(&addr.to_string(), &options, |_| {}).expect("it answers");
    // The server ends its side a moment after it has seen the end of ours.
    let (_kept, never) = mpsc::channel::<()>();
    for _ in 0..100 {
        if connections(addr).is_empty() {
            return;
        }
        let _ = never.recv_timeout(Duration::from_millis(20));
    }
    panic!("{:#?}", connections(addr));
}
