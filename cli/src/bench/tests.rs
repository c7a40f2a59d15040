//! The load on the simulated network, where a stall takes exactly the time of the server's script.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::time::{Duration, Instant};

use finale::Reactor;
use finale::sim::{Host, Network, Script};

use super::expected::{Expected, Source};
use super::load::{Environment, Finisher, Load, Plan};
use super::page;
use super::report::{Measured, Report};
use super::schedule::Schedule;
use super::tally::Tally;

const US: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const THEM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The clock of the network, and no progress bar.
struct Simulated {
    network: Network,
    interrupted: bool,
}

impl Environment<Host> for Simulated {
    fn now(&self) -> Instant {
        self.network.now()
    }

    fn doze(&mut self, _reactor: &mut Reactor<Host>, _until: Instant) {}

    fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    fn progress_interval(&self) -> Option<Duration> {
        None
    }

    fn show(&mut self, _finished: u64, _elapsed: Duration) {}
}

/// One connection at a time, 64 bytes each way, a limit of 5 seconds.
fn plan(schedule: Schedule) -> Plan {
    Plan {
        target: SocketAddr::new(THEM, 80).into(),
        sources: Vec::new(),
        schedule,
        duration: None,
        in_flight: 1,
        request_bytes: 64,
        expected: Expected::new(Source::Line, 64),
        first: Finisher::Client,
        timeout: Duration::from_secs(5),
        tls: None,
    }
}

fn closed(connections: u64) -> Schedule {
    Schedule::new(None, connections, None)
}

fn open(rate: u32, connections: u64) -> Schedule {
    Schedule::new(NonZero::new(rate), connections, None)
}

/// Reads to the FIN, waits, answers correctly and finishes.
fn after(wait: Duration) -> Script {
    Script::new().receive_end().wait(wait).send(crate::serve::LINE).finish()
}

/// The time of a connection without a stall.
const QUICK: Duration = ms(4);

/// A network whose server follows these scripts, one per connection.
fn run(plan: &Plan, scripts: impl IntoIterator<Item = Script>) -> Tally {
    let network = Network::new(1);
    let listener = network.peer(THEM).listen(SocketAddr::new(THEM, 80)).expect("the port is free");
    for script in scripts {
        let _played = listener.play(script);
    }
    run_on(plan, network, false)
}

fn run_on(plan: &Plan, network: Network, interrupted: bool) -> Tally {
    let mut reactor = Reactor::with_net(network.host(US));
    let remote = reactor.waker();
    remote.wake().expect("the reactor lives");
    Load::run(plan, &mut reactor, &mut Simulated { network, interrupted }).expect("a simulated system can always wait")
}

#[track_caller]
fn expect_latencies(tally: &Tally, expected: &[Duration]) {
    assert_eq!(tally.latency.len(), expected.len() as u64, "{tally:?}");
    for latency in expected {
        let nanos = latency.as_nanos() as u64;
        assert!(tally.latency.count_at(nanos) > 0, "none of {latency:?}: {:?}", recorded(tally));
    }
}

fn recorded(tally: &Tally) -> Vec<(u64, u64)> {
    tally.latency.iter_recorded().map(|one| (one.value_iterated_to(), one.count_at_value())).collect()
}

#[test]
fn with_a_rate_a_stall_counts_for_all_connections_that_were_due_meanwhile() {
    let scripts = [ms(50), ms(0), ms(0), ms(0), ms(0)].map(after);
    let tally = run(&plan(open(1000, 5)), scripts);
    // The n-th is due after n ms; each but the first waits for the one before, and takes 4 ms.
    expect_latencies(&tally, &[ms(54), ms(57), ms(60), ms(63), ms(66)]);
    assert_eq!((tally.finished, tally.failed(), tally.late), (5, 0, 4));
}

#[test]
fn without_a_rate_a_stall_counts_for_one_connection() {
    let scripts = [ms(50), ms(0), ms(0), ms(0), ms(0)].map(after);
    let tally = run(&plan(closed(5)), scripts);
    expect_latencies(&tally, &[ms(54), QUICK, QUICK, QUICK, QUICK]);
    assert_eq!((tally.finished, tally.late, tally.took), (5, 0, ms(54) + 4 * QUICK), "one at a time");
}

#[test]
fn below_the_limit_in_flight_each_connection_begins_when_it_is_due() {
    let tally = run(&Plan { in_flight: 100, ..plan(open(2000, 9)) }, [(); 9].map(|()| after(ms(0))));
    expect_latencies(&tally, &[QUICK; 9]);
    assert_eq!((tally.late, tally.took), (0, ms(4) + QUICK), "the last one was due after 4 ms");
}

#[test]
fn the_limit_in_flight_is_reached_at_once_and_never_exceeded() {
    let tally = run(&Plan { in_flight: 40, ..plan(closed(100)) }, [(); 100].map(|()| after(ms(0))));
    assert_eq!((tally.finished, tally.took), (100, 3 * QUICK), "40, 40, and 20");
}

#[test]
fn after_its_duration_none_is_begun_and_those_in_flight_are_finished() {
    let schedule = Schedule::new(None, u64::MAX, Some(ms(18)));
    let tally = run(&Plan { duration: Some(ms(18)), ..plan(schedule) }, [(); 9].map(|()| after(ms(0))));
    assert_eq!((tally.finished, tally.took), (5, 5 * QUICK), "the last was begun after 16 ms");
}

#[test]
fn the_server_may_finish_first() {
    let server_first = Script::new().receive(64).send(crate::serve::LINE).finish().receive_end();
    let tally = run(&Plan { first: Finisher::Server, ..plan(closed(3)) }, [(); 3].map(|()| server_first.clone()));
    expect_latencies(&tally, &[QUICK; 3]);
    assert_eq!((tally.finished, tally.failed(), tally.peer_first, tally.acknowledged), (3, 0, 3, 3));
}

#[test]
fn a_request_larger_than_the_queue_is_sent_whole() {
    let request_bytes = 1 << 20;
    let tally = run(&Plan { request_bytes, ..plan(closed(2)) }, [(); 2].map(|()| after(ms(0))));
    assert_eq!((tally.finished, tally.failed(), tally.bytes_sent), (2, 0, 2 * request_bytes));
}

/// The failures, by the names of their kinds.
fn kinds(tally: &Tally) -> Vec<(&'static str, u64)> {
    tally.failures().map(|(kind, count)| (kind.name(), count)).collect()
}

#[test]
fn failures_are_counted_by_kind() {
    let mut wrong = *crate::serve::LINE;
    wrong[63] ^= 1;
    let answers = |bytes: &[u8]| Script::new().receive_end().send(bytes).finish();
    let scripts = [
        Script::new().receive_end().send(b"half").reset(),
        answers(b"short"),
        answers(&[crate::serve::LINE.as_slice(), b"!"].concat()),
        answers(&wrong),
        after(ms(0)),
        Script::new(),
    ];
    let tally = run(&plan(closed(6)), scripts);
    assert_eq!(
        kinds(&tally),
        [("reset", 1), ("timed-out", 1), ("too-short", 1), ("too-long", 1), ("wrong-content", 1)]
    );
    expect_latencies(&tally, &[QUICK]);
    assert!(tally.first_failure.as_deref().is_some_and(|first| first == "reset by the peer"));
}

#[test]
fn a_connection_fails_at_its_limit_and_not_before() {
    let scripts = [Script::new(), after(ms(4_900)), Script::new(), after(ms(0))];
    let limited = Plan { in_flight: 4, ..plan(closed(4)) };
    let tally = run(&limited, scripts);
    assert_eq!(kinds(&tally), [("timed-out", 2)]);
    expect_latencies(&tally, &[ms(4_904), QUICK]);
    let page = plain(&page::page(&measured(&limited, &tally, None)));
    let beside = "to the end of the answer\n  NOT INCLUDED: 2 that took longer than 5s, 50.0 % of these and";
    assert!(page.contains(beside), "{page}");
    assert!((ms(5_000)..ms(5_003)).contains(&tally.took), "{:?}", tally.took);
}

#[test]
fn a_connection_that_begins_late_has_its_whole_time() {
    let plan = Plan { timeout: ms(100), ..plan(open(1000, 3)) };
    let tally = run(&plan, [after(ms(50)), after(ms(40)), Script::new()]);
    // Begun at 54 and 98 ms, though due at 1 and 2.
    expect_latencies(&tally, &[ms(54), ms(97)]);
    assert_eq!(kinds(&tally), [("timed-out", 1)]);
    assert!((ms(198)..ms(201)).contains(&tally.took), "{:?}", tally.took);
}

#[test]
fn where_no_server_listens_all_are_refused() {
    let tally = run_on(&plan(closed(50)), Network::new(1), false);
    assert_eq!((kinds(&tally), tally.finished, tally.successful()), (vec![("refused", 50)], 50, 0));
}

#[test]
fn an_interrupted_run_keeps_what_was_measured() {
    let network = Network::new(1);
    let plan = Plan { in_flight: 7, ..plan(closed(1000)) };
    let _listener = network.peer(THEM).listen(SocketAddr::new(THEM, 80)).expect("the port is free");
    let tally = run_on(&plan, network, true);
    assert_eq!((tally.interrupted, tally.finished, tally.failed(), tally.cut_off), (true, 0, 0, 7));
    let page = plain(&page::page(&measured(&plan, &tally, None)));
    assert!(page.contains(", none failed; interrupted with 7 in flight\n"), "{page}");
}

fn measured(plan: &Plan, tally: &Tally, rate: Option<u32>) -> Report {
    let unknown = Err("name its process with --server-pid".to_owned());
    let client_cpu = Ok(Duration::from_nanos(41_200));
    Report::new(Measured {
        plan,
        name: None,
        rate,
        warm_up: None,
        tally,
        server: None,
        server_cpu: unknown,
        client_cpu,
    })
}

/// Without the styles.
fn plain(page: &str) -> String {
    anstream::adapter::strip_str(page).to_string()
}

#[test]
fn the_page_shows_where_the_latencies_lie() {
    let plan = plan(open(1000, 5));
    let tally = run(&plan, [ms(50), ms(0), ms(0), ms(0), ms(0)].map(after));
    let expected = "
  target      10.0.0.2:80
  connection  send 64 B, finish, read 64 B to the end, close
  pace        1,000 connections per second, up to 1 in flight

  71 connections per second
  5 in 70.0 ms, none failed
  rate not reached: 61 connections per second began
  4 connections began more than 1 ms late: too many in flight, or no core was free

  latency, from the intended start to the end of the answer

       p50       p90       p99     p99.9       max
   60.0 ms   66.0 ms   66.0 ms   66.0 ms   66.0 ms

      from │
     50 ms │████████████████████████████████████ 5 100.0 %  p50 p90 p99 p99.9 max

  endings     all acknowledged; we finished first in all
  bytes       320 B sent, 320 B received
  per second  4.5 KiB sent, 4.5 KiB received
  server CPU  unknown: name its process with --server-pid
  client CPU  41.2 µs per connection
";
    assert_eq!(plain(&page::page(&measured(&plan, &tally, Some(1000)))), expected);
}

#[test]
fn the_page_of_a_run_that_failed_shows_what_failed_and_no_latencies() {
    let plan = plan(closed(1500));
    let tally = run_on(&plan, Network::new(1), false);
    let page = plain(&page::page(&measured(&plan, &tally, None)));
    assert!(page.contains("\n  0 connections per second\n  200 in "), "{page}");
    assert!(
        page.contains(", 200 FAILED; given up, since the first 200 failed\n\n  failures    200 refused\n  bytes "),
        "{page}"
    );
    assert_eq!(tally.never_begun, Some(1300));
    assert!(page.contains("pace        1 in flight, the next as soon as one has closed\n"), "{page}");
}

#[test]
fn a_run_that_was_given_up_stays_so_if_the_last_in_flight_are_successful() {
    let slow = [(); 3].map(|()| after(ms(50)));
    let plan = Plan { in_flight: 203, ..plan(closed(1500)) };
    let tally = run(&plan, slow.into_iter().chain(vec![Script::new().reset(); 1000]));
    assert_eq!((tally.successful(), tally.never_begun), (3, Some(1497 - tally.failed())));
    let page = plain(&page::page(&measured(&plan, &tally, None)));
    assert!(page.contains(" FAILED; given up, since the first 200 failed\n"), "{page}");
    let endings = "  endings     of the 3 that succeeded, all acknowledged; we finished first in all\n";
    assert!(page.contains(endings), "{page}");
}

#[test]
fn a_latency_next_to_an_edge_is_in_the_first_row() {
    let mut tally = Tally::new(ms(5_000)).expect("the range is valid");
    tally.finished = 1;
    tally.latency.record(9_999_000).expect("it is in the range");
    tally.longest = Duration::from_nanos(9_999_000);
    let page = plain(&page::page(&measured(&plan(closed(1)), &tally, None)));
    let rows: Vec<&str> =
        page.lines().skip_while(|line| !line.ends_with("from │")).take_while(|line| line.contains('│')).collect();
    assert!(rows.len() == 2 && rows[1].starts_with("     10 ms │█"), "{page}");
}

#[test]
fn the_rows_of_a_histogram_are_as_many_as_a_screen_shows_and_hold_everything() {
    let waits = [0, 1, 3, 10, 30, 100, 300, 1_000, 4_000].map(|wait| after(ms(wait)));
    let plan = Plan { in_flight: 9, ..plan(closed(9)) };
    let tally = run(&plan, waits);
    let page = plain(&page::page(&measured(&plan, &tally, None)));
    let rows: Vec<&str> = page.lines().filter(|line| line.contains('%') && line.contains('│')).collect();
    let count = |row: &&str| -> u64 {
        let behind = row.split('│').nth(1).expect("a bar").trim_start_matches(|c: char| !c.is_ascii_digit());
        behind.split(' ').next().and_then(|count| count.parse().ok()).expect("a count")
    };
    assert_eq!(rows.iter().map(count).collect::<Vec<_>>(), [1, 2, 1, 1, 0, 1, 1, 0, 1, 1], "{page}");
    assert!(page.contains("   34.0 ms    4.00 s    4.00 s    4.00 s    4.00 s"), "{page}");
    assert!(rows[0].starts_with("      2 ms │") && rows[9].ends_with("p90 p99 p99.9 max"), "{page}");
    let columns: Vec<_> = rows.iter().map(|row| row.chars().position(|c| c == '%')).collect();
    assert!(columns.windows(2).all(|pair| pair[0] == pair[1]), "{page}");
}

#[test]
fn an_overloaded_rate_leaves_out_connections_that_are_later_than_the_timeout() {
    let plan = Plan { timeout: ms(60), ..plan(open(1000, 20)) };
    let tally = run(&plan, [ms(30); 3].map(after));
    // Begun at 0, 34 and 68 ms. The last was due at 8 ms; at 102 ms all others are too late.
    expect_latencies(&tally, &[ms(34), ms(67), ms(94)]);
    assert_eq!((tally.finished, tally.overloaded, tally.never_begun), (3, 17, Some(17)));
    assert_eq!((tally.took, tally.failed()), (ms(102), 0));
    let report = measured(&plan, &tally, Some(1000));
    let page = plain(&page::page(&report));
    for words in ["\n  OVERLOADED: 17 connections could not begin within 60ms", "\n  NOT INCLUDED: 17 that", "85.0 %"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let error = super::result(&report, None).expect_err("it is a failure").to_string();
    assert!(error.starts_with("overloaded: 17 of 20 connections could not begin within 60ms of the time"), "{error}");
}

#[test]
fn where_ports_run_out_the_error_names_the_ways_out() {
    let plan = plan(closed(50));
    let mut report = measured(&plan, &run_on(&plan, Network::new(1), false), None);
    let error = |report: &Report| super::result(report, None).expect_err("it has failed").to_string();
    assert!(!error(&report).contains("TIME_WAIT"), "refused");
    report.failures.insert(super::tally::Kind::NoLocalAddress.name().to_owned(), 1);
    assert!(error(&report).contains("(TIME_WAIT): use --first server, a lower --rate"), "{}", error(&report));
}

#[test]
fn a_result_is_read_back_as_it_was_written() {
    let plan = plan(open(1000, 5));
    let report = measured(&plan, &run(&plan, [ms(50), ms(0), ms(0), ms(0), ms(0)].map(after)), Some(1000));
    let text = serde_json::to_string(&report).expect("it is JSON");
    let mut read: Report = serde_json::from_str(&text).expect("it is a result");
    assert_eq!(serde_json::to_string(&read).expect("it is JSON"), text);
    read.unknown = report.unknown.clone();
    assert_eq!(page::page(&read), page::page(&report));
}
