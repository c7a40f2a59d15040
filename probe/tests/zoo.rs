//! Each fault of the zoo is found, and no correct server is accused.

#[path = "../examples/zoo/control.rs"]
mod control;
#[path = "../examples/zoo/correct.rs"]
mod correct;
#[path = "../examples/zoo/endings.rs"]
mod endings;
#[path = "../examples/zoo/keeper.rs"]
mod keeper;
#[path = "../examples/zoo/kept.rs"]
mod kept;
#[path = "../examples/zoo/stops.rs"]
mod stops;

use std::thread;

use finale_probe::Verdict;
use keeper::{Server, is_expected, probe_with};

/// Probes servers, each on a thread of its own, and returns what is not as expected.
fn surprises(servers: impl Iterator<Item = Server>) -> Vec<String> {
    let probed = servers.map(|server| thread::spawn(move || surprises_of(&server)));
    let probed: Vec<_> = probed.collect();
    probed.into_iter().flat_map(|thread| thread.join().expect("the probe has a report")).collect()
}

fn surprises_of(server: &Server) -> Vec<String> {
    let cases: Vec<&str> = server.found_by.iter().map(|(case, _)| *case).collect();
    let report = probe_with(server, &cases);
    let wrong = report.cases.iter().filter(|case| !is_expected(server, case.id, case.verdict));
    wrong
        .map(|case| format!("{}: {} {}: {} {:?}", server.name, case.verdict, case.id, case.summary, case.seen))
        .collect()
}

#[test]
fn each_fault_is_found_by_its_cases() {
    let surprises = surprises(keeper::all().into_iter().filter(|server| !server.found_by.is_empty()));
    assert!(surprises.is_empty(), "{surprises:#?}");
}

#[test]
fn no_correct_server_is_accused() {
    let surprises = surprises(keeper::all().into_iter().filter(|server| server.found_by.is_empty()));
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
