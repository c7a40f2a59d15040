//! The probe on the simulated network: servers are scripts, and the time is virtual.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use finale::sim::{Faults, Network, Script};
use finale_probe::{CaseReport, Options, Progress, Report, Verdict, probe_simulated};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 80);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// More than the window of a client takes.
fn answer() -> Vec<u8> {
    let body = vec![b'x'; 1 << 20];
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
}

/// Reads the whole request, answers, and ends after the client.
fn correct() -> Script {
    Script::new().receive(REQUEST.len() as u64).send(&answer()).finish().receive_end()
}

/// Reads one segment of the request, answers, and closes over the bytes that it has not read.
fn reads_one_segment() -> Script {
    let answers = Script::new().receive(1).stop_reading().wait(Duration::from_millis(10)).send(&answer());
    answers.close()
}

/// The report, and the virtual time that it took.
fn probe(script: Script, seed: u64) -> (Report, Duration) {
    let network = Network::new(seed);
    let server = network.peer(SERVER.ip()).listen(SERVER).expect("a free port");
    server.play_each(script);
    let mut options = Options::new(REQUEST);
    options.cases = vec!["half-close".to_owned()];
    let report = probe_simulated(&network, CLIENT, SERVER, &options, |_| {});
    (report.unwrap_or_else(|error| panic!("{error}")), network.elapsed())
}

#[test]
fn a_script_that_reads_the_whole_request_passes() {
    let (report, _) = probe(correct(), 1);
    let case = &report.cases[0];
    assert_eq!((case.verdict, case.runs, case.wrong), (Verdict::Pass, 140, 0), "{case:?}");
    assert!(report.path.can_be_deaf);
    assert_eq!(report.path.round_trip_us, 2_000);
    assert_eq!(case.bystander.as_ref().map(|bystander| bystander.failed), Some(0), "{case:?}");
}

#[test]
fn a_script_that_closes_over_the_second_segment_loses_the_answer() {
    let (report, _) = probe(reads_one_segment(), 1);
    let case = &report.cases[0];
    assert_eq!((case.verdict, case.wrong), (Verdict::Fail, 20), "{case:?}");
    let cut = case.seen["request in two segments, FIN with the second"].as_object().expect("counts");
    assert!(cut.len() == 1 && cut.keys().all(|what| what.starts_with("cut at ")), "{case:?}");
    assert!(!case.ladder.is_empty());
}

#[test]
fn the_same_seed_gives_the_same_report_in_the_same_virtual_time() {
    let once = || {
        let (report, time) = probe(reads_one_segment(), 7);
        (serde_json::to_string(&report).expect("it is data"), time)
    };
    let first = once();
    assert_eq!(first, once());
    assert!(first.1 > Duration::from_secs(1), "{:?}", first.1);
}

#[test]
fn a_server_that_cuts_the_answer_of_polite_clients_is_not_probed() {
    let network = Network::new(1);
    let server = network.peer(SERVER.ip()).listen(SERVER).expect("a free port");
    server.play_each(Script::new().receive(REQUEST.len() as u64).send(&answer()[..1000]).finish().receive_end());
    let error =
        probe_simulated(&network, CLIENT, SERVER, &Options::new(REQUEST), |_| {}).expect_err("there is no measure");
    assert!(error.to_string().starts_with("a polite client got 1000 bytes"), "{error}");
}

/// Answers one request after the other.
fn keeps() -> Script {
    const KEPT: usize = REQUEST.len() - b"Connection: close\r\n".len();
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    (0..300).fold(Script::new(), |script, _| script.receive(KEPT as u64).send(answer)).finish().receive_end()
}

#[test]
fn a_long_way_accuses_no_server() {
    for (one_way, script) in [(50, correct()), (150, correct()), (50, keeps()), (150, keeps())] {
        let network = Network::new(1);
        network.set_latency(Duration::from_millis(one_way));
        let server = network.peer(SERVER.ip()).listen(SERVER).expect("a free port");
        server.play_each(script);
        let report = probe_simulated(&network, CLIENT, SERVER, &Options::new(REQUEST), |_| {}).expect("it answers");
        // A script counts bytes, and takes those of a bad request for a good one.
        let is_accused = |case: &&CaseReport| case.verdict >= Verdict::Warn && case.id != "reuse-after-error";
        let accused: Vec<_> = report.cases.iter().filter(is_accused).collect();
        let accused: Vec<_> =
            accused.iter().map(|case| format!("{} {}: {}", case.verdict, case.id, case.summary)).collect();
        assert!(accused.is_empty(), "{one_way} ms: {accused:#?}");
    }
}

#[test]
fn what_this_machine_lacks_for_one_case_costs_no_other_its_result() {
    let network = Network::new(1);
    let server = network.peer(SERVER.ip()).listen(SERVER).expect("a free port");
    server.play_each(correct());
    let mut options = Options::new(REQUEST);
    options.cases = ["half-close", "slow-reader", "connect-only"].map(str::to_owned).into();
    let report = probe_simulated(&network, CLIENT, SERVER, &options, |progress| {
        if let Progress::Case(number, ..) = progress {
            let connect_exhausted = if number == 2 { 1.0 } else { 0.0 };
            network.set_faults(Faults { connect_exhausted, ..Faults::none() });
        }
    });
    let report = report.expect("two of the three have a result");
    let verdicts: Vec<_> = report.cases.iter().map(|case| case.verdict).collect();
    assert_eq!(verdicts, [Verdict::Pass, Verdict::Skip, Verdict::Info]);
    assert!(report.cases[1].summary.contains("this machine"), "{}", report.cases[1].summary);
    assert!(report.cases[1].bystander.is_none());
}

/// In virtual time its five seconds pass at once.
#[test]
fn a_command_of_the_consequence_that_hangs_has_failed() {
    let network = Network::new(1);
    let server = network.peer(SERVER.ip()).listen(SERVER).expect("a free port");
    let slow = Script::new().receive(REQUEST.len() as u64).wait(Duration::from_secs(3)).send(&answer());
    server.play_each(slow.finish().receive_end());
    let mut options = Options::new(REQUEST);
    options.cases = vec!["abandon-slow".to_owned()];
    options.slow_request = Some(REQUEST.to_vec());
    options.consequence = Some("sleep 600".to_owned());
    let report = probe_simulated(&network, CLIENT, SERVER, &options, |_| {}).expect("the others are served");
    let case = &report.cases[0];
    assert!(case.option_failed && case.verdict == Verdict::Skip, "{case:?}");
    assert_eq!(case.summary, "the command of --consequence took more than 5s, and was killed");
}
