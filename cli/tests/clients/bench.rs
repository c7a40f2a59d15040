//! `finale bench` against its own servers, other servers, and no server.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::thread::{self, JoinHandle};

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::{Outcome, PATIENCE, Server, command, finish, patient, run};
use finale_test_support::dead_port;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A run whose result is read as a program would read it.
#[track_caller]
fn json(args: &[&str]) -> (Outcome, Value) {
    let outcome = run(&[&["bench", "--json"], args].concat());
    assert_eq!(outcome.stdout.lines().count(), 1, "one object and nothing else: {outcome:?}");
    let object = serde_json::from_str(&outcome.stdout).expect("it is JSON");
    (outcome, object)
}

#[track_caller]
fn number(object: &Value, name: &str) -> f64 {
    object[name].as_f64().unwrap_or_else(|| panic!("{name} is no number: {object}"))
}

/// A run without failures, and with nothing on stderr.
#[track_caller]
fn expect_well(args: &[&str], connections: u64, answer_bytes: u64) -> Value {
    let (outcome, object) = json(args);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{args:?}: {outcome:?}");
    assert_eq!(object["connections"], connections, "{args:?}");
    assert_eq!((&object["failed"], &object["interrupted"]), (&Value::from(0), &Value::from(false)), "{args:?}");
    assert!(object["failures"].as_object().is_some_and(serde_json::Map::is_empty), "{args:?}: {object}");
    assert_eq!(object["answer_bytes"], answer_bytes, "{args:?}");
    assert_eq!(object["bytes_received"], connections * answer_bytes, "{args:?}");
    object
}

#[test]
fn each_of_its_servers_answers_correctly_whichever_side_finishes_first() {
    for close in ["confirmed", "hand-off"] {
        for (mode, answer) in [("upper", 81), ("answer", 64), ("echo", 70), ("discard", 0)] {
            let args = ["--serve", mode, "--close", close, "--connections", "300", "--request", "70"];
            let object = expect_well(&args, 300, answer);
            assert_eq!((&object["first"], &object["bytes_sent"]), (&Value::from("client"), &Value::from(300 * 70)));
        }
        let args = ["--first", "server", "--close", close, "--connections", "300", "--request", "70", "--answer", "9"];
        assert_eq!(expect_well(&args, 300, 9)["first"], "server");
        expect_well(&["--first", "server", "--close", close, "--connections", "300", "--request", "0"], 300, 64);
    }
}

#[test]
fn large_requests_and_answers_arrive_whole() {
    expect_well(&["--serve", "echo", "--request", "1MiB", "--connections", "30", "--in-flight", "8"], 30, 1 << 20);
    expect_well(&["--answer", "1MiB", "--request", "0", "--connections", "30", "--in-flight", "8"], 30, 1 << 20);
    let server_first = ["--first", "server", "--answer", "1MiB", "--request", "300KiB", "--connections", "30"];
    expect_well(&server_first, 30, 1 << 20);
}

#[test]
fn the_numbers_of_the_object_add_up() {
    let object = expect_well(&["--connections", "500", "--in-flight", "32"], 500, 64);
    let latency = |name: &str| number(&object["latency_us"], name);
    let rising = ["p50", "p90", "p99", "p999", "max"].map(latency);
    assert!(rising[0] > 0.0 && rising.is_sorted(), "{object}");
    assert!(latency("max") <= number(&object, "seconds") * 1e6, "{object}");
    let counted = number(&object, "per_second") * number(&object, "seconds");
    assert!((counted - 500.0).abs() < 1.0, "{object}");
    assert_eq!((&object["in_flight"], &object["request_bytes"]), (&Value::from(32), &Value::from(64)));
    assert!(object["rate"].is_null() && number(&object, "client_cpu_us_per_connection") > 0.0, "{object}");
    assert!(number(&object, "server_cpu_us_per_connection") > 0.0, "{object}");
    assert!(object["server"].as_str().is_some_and(|words| words.contains("serve answer")), "{object}");
}

#[test]
fn the_page_is_for_people() {
    let outcome = run(&["bench", "--connections", "200"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "no bar on a pipe: {outcome:?}");
    for words in [" per second\n  200 in ", ", none failed\n", "p99.9       max\n", "│", "all acknowledged"] {
        assert!(outcome.stdout.contains(words), "{words}: {}", outcome.stdout);
    }
    let clean = |line: &&str| line.trim_end() == *line && line.chars().count() <= 100;
    assert!(outcome.stdout.lines().all(|line| clean(&line)), "{}", outcome.stdout);
}

#[test]
fn two_shards_lose_no_connection() {
    let outcome = run(&["bench", "--shards", "2", "--connections", "1000", "--json"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("--shards 2"), "{outcome:?}");
    run(&["bench", "--shards", "2", "--target", "127.0.0.1:1"]).refused_with(2, "--shards");
}

#[test]
fn a_target_is_measured_with_the_process_that_serves_it() {
    let server = Server::start(&["answer"]);
    let (addr, pid) = (server.addr.to_string(), server.pid().to_string());
    let object = expect_well(&["--target", &addr, "--connections", "200", "--server-pid", &pid], 200, 64);
    assert!(number(&object, "server_cpu_us_per_connection") > 0.0 && object["server"].is_null(), "{object}");
    let object = expect_well(&["--target", &addr, "--connections", "200"], 200, 64);
    assert!(object["server_cpu_us_per_connection"].is_null(), "{object}");
    let page = run(&["bench", "--target", &addr, "--connections", "50"]).stdout;
    assert!(page.contains("server CPU  unknown: ") && page.contains("--server-pid"), "{page}");
    server.stop_quietly();
}

#[test]
fn a_wrong_answer_is_a_failure_of_its_kind() {
    let server = Server::start(&["answer", "--bytes", "63"]);
    let (outcome, object) = json(&["--target", &server.addr.to_string(), "--connections", "200"]);
    assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(1), 1), "{outcome:?}");
    assert!(
        outcome.stderr.contains(
            "200 of 200 connections failed; the first failure: an answer of 63 bytes, where 64 were expected"
        ),
        "{outcome:?}"
    );
    assert_eq!((&object["failed"], &object["failures"]["too-short"]), (&Value::from(200), &Value::from(200)));
    assert!(object["latency_us"]["p50"].is_null() && object["per_second"] == 0.0, "{object}");
    server.stop_quietly();
}

#[test]
fn where_no_server_listens_everything_is_refused_and_nothing_hangs() {
    let (_held, unused) = dead_port();
    let (outcome, object) = json(&["--target", &unused.to_string(), "--connections", "1000000"]);
    let count = |name: &str| object[name].as_u64().expect("a count");
    assert_eq!((outcome.code, &object["failures"]["refused"]), (Some(1), &object["connections"]), "{outcome:?}");
    assert!((200..500).contains(&count("connections")), "it gives up: {outcome:?}");
    assert_eq!(count("connections") + count("never_begun"), 1_000_000);
    assert!(outcome.last_line().contains("refused"), "{outcome:?}");
}

/// A server of another kind: this many clients, one after the other, each given to the closure.
fn strange(clients: usize, mut serve: impl FnMut(TcpStream) + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let addr = listener.local_addr().expect("it is bound");
    let thread = thread::spawn(move || {
        for _ in 0..clients {
            let (client, _) = listener.accept().expect("a client comes");
            serve(patient(client));
        }
    });
    (addr, thread)
}

#[test]
fn resets_and_silence_are_counted_apart() {
    let mut held = Vec::new();
    let (addr, thread) = strange(6, move |client| match held.len() {
        0..3 => held.push(client), // Neither answered nor closed, until the last one has come.
        _ => crate::common::reset(client),
    });
    let one_by_one = ["--connections", "6", "--in-flight", "1", "--timeout", "500ms"];
    let (outcome, object) = json(&[&["--target", &addr.to_string()], one_by_one.as_slice()].concat());
    assert_eq!(object["failures"], serde_json::json!({ "reset": 3, "timed-out": 3 }), "{outcome:?}");
    assert_eq!(outcome.code, Some(1));
    thread.join().expect("the server has seen all six");
}

#[test]
fn on_loopback_the_source_address_changes_from_connection_to_connection() {
    let (sender, peers) = std::sync::mpsc::channel();
    let (addr, thread) = strange(65, move |mut client| {
        let _ = sender.send(client.peer_addr().expect("connected").ip());
        client.read_to_end(&mut Vec::new()).expect("the request ends");
        client.write_all(&[b'!'; 64]).expect("the client reads");
    });
    expect_well(&["--target", &addr.to_string(), "--connections", "65", "--in-flight", "1"], 65, 64);
    thread.join().expect("the server has seen all");
    let expected = (0..65).map(|number| Ipv4Addr::new(127, 0, 1, number % 64 + 1));
    assert_eq!(peers.iter().collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

#[test]
fn with_the_server_first_we_finish_only_when_it_has() {
    let (addr, thread) = strange(3, |mut client| {
        client.read_exact(&mut [0; 64]).expect("a request comes");
        client.set_nonblocking(true).expect("it can be");
        let error = client.read(&mut [0]).expect_err("it has not finished");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        client.set_nonblocking(false).expect("it can be");
        client.write_all(&[b'!'; 64]).expect("the client reads");
        client.shutdown(Shutdown::Write).expect("half-closed");
        assert_eq!(client.read(&mut [0]).expect("the client finishes"), 0);
    });
    expect_well(&["--target", &addr.to_string(), "--first", "server", "--connections", "3"], 3, 64);
    thread.join().expect("no client finished before the server");
}

#[test]
fn a_rate_is_kept_and_a_duration_is_a_number_of_connections() {
    let object = expect_well(&["--rate", "1000", "--duration", "200ms"], 200, 64);
    assert_eq!(object["rate"], 1000);
    assert!(number(&object, "seconds") >= 0.199, "the last one is not begun before it is due: {object}");
    let (outcome, object) = json(&["--duration", "100ms", "--in-flight", "8"]);
    assert!(outcome.code == Some(0) && number(&object, "seconds") >= 0.1, "{outcome:?}");
}

/// Waits until a process has ended, reaped or not: any process may reap it.
#[track_caller]
fn wait_until_gone(pid: i32) {
    let runs = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.starts_with(" Z")))
    };
    let begun = std::time::Instant::now();
    while runs() {
        assert!(begun.elapsed() < PATIENCE, "it still runs");
        thread::yield_now();
    }
}

const ENDLESS: [&str; 4] = ["bench", "--duration", "1h", "--json"];

/// Waits until the server of a run serves: it is the only child of our child.
#[track_caller]
fn server_of(bench: &mut Child) -> i32 {
    let path = format!("/proc/{0}/task/{0}/children", bench.id());
    let begun = std::time::Instant::now();
    while begun.elapsed() < PATIENCE {
        let children = std::fs::read_to_string(&path).expect("it runs");
        let pid = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
        // It serves when it has accepted a client, and so has more descriptors than at the start.
        let serves = |pid: &i32| std::fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|fds| fds.count() > 20);
        if let Some(pid) = pid.filter(serves) {
            return pid;
        }
        thread::yield_now();
    }
    let _ = bench.kill();
    panic!("its server does not start");
}

#[test]
fn a_signal_ends_it_with_what_was_measured_and_its_server_is_gone() {
    for (signal, name, code) in [(Signal::INT, "SIGINT", 130), (Signal::TERM, "SIGTERM", 143)] {
        let mut child = command(&ENDLESS).spawn().expect("it starts");
        let server = server_of(&mut child);
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid is an i32")).expect("a pid is not zero");
        kill_process(pid, signal).expect("it runs");
        let outcome = finish(child);
        wait_until_gone(server);
        let object: Value = serde_json::from_str(&outcome.stdout).expect("it is JSON");
        assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(code), 1), "{outcome:?}");
        assert!(outcome.stderr.starts_with(&format!("finale: interrupted by {name}; ")), "{outcome:?}");
        assert_eq!((&object["interrupted"], &object["failed"]), (&Value::from(true), &Value::from(0)), "{outcome:?}");
    }
}

#[test]
fn a_server_ends_with_the_bench_that_was_killed() {
    let mut child = command(&ENDLESS).spawn().expect("it starts");
    let server = server_of(&mut child);
    child.kill().expect("it runs");
    child.wait().expect("it can be waited for");
    wait_until_gone(server);
}

#[test]
fn arguments_that_do_not_fit_are_reported_in_one_line() {
    let refused = |args: &[&str], code, word: &str| run(&[&["bench"], args].concat()).refused_with(code, word);
    refused(&["--connections", "0"], 2, "--connections");
    refused(&["--in-flight", "0"], 2, "--in-flight");
    refused(&["--in-flight", "16001"], 2, "16000");
    refused(&["--rate", "0"], 2, "--rate");
    refused(&["--duration", "0s"], 2, "--duration");
    refused(&["--request", "-1"], 2, "--request");
    refused(&["--duration", "1s", "--connections", "5"], 2, "can't be used with");
    refused(&["--target", "127.0.0.1:9", "--serve", "echo"], 2, "can't be used with");
    refused(&["--target", "127.0.0.1:9", "--close", "hand-off"], 2, "can't be used with");
    refused(&["--server-pid", "1"], 2, "--target");
    refused(&["--target", "127.0.0.1"], 2, "no port");
    refused(&["--target", "http://127.0.0.1:80"], 2, "a URL is not an address; write HOST:PORT");
    refused(&["--target", "127.0.0.1:0"], 2, "port 0");
    refused(&["--target", "localhost:0"], 2, "port 0");
    refused(&["--target", "unix:"], 2, "no path");
    refused(&["--connections", "1.5k"], 2, "as 500, 10k or 2M");
    refused(&["--warm-up", "0s"], 2, "longer than zero");
    refused(&["--target", "127.0.0.1:9", "--server-pid", "4194305"], 2, "No such process");
    refused(&["--target", "127.0.0.1:9", "--server-pid", "1,2,1"], 2, "--server-pid 1 is named twice");
    refused(&["--target", "nowhere.invalid:1"], 1, "can't look up 'nowhere.invalid:1'");
    refused(&["--serve", "echo", "--answer", "5"], 2, "--answer");
    refused(&["--serve", "echo", "--first", "server"], 2, "--serve echo can't finish first");
    refused(&["--serve", "upper", "--request", "2MiB"], 2, "1MiB");
}

#[test]
fn more_connections_than_descriptors_are_refused_before_anything_is_begun() {
    let shell = |limits: &str| {
        let program = env!("CARGO_BIN_EXE_finale");
        let line = format!("{limits} && exec {program} bench --in-flight 200 --connections 400 --json");
        let mut shell = std::process::Command::new("sh");
        let shell = shell.args(["-c", &line]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(shell.spawn().expect("there is a shell"))
    };
    shell("ulimit -n 100")
        .refused_with(1, "--in-flight 200 needs 264 descriptors, and the limit is 100; lower --in-flight");
    let raised = shell("ulimit -Sn 100");
    assert_eq!((raised.code, raised.stderr.as_str()), (Some(0), ""), "the soft limit is raised: {raised:?}");
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let mut child = command(&["bench", "--connections", "50"]).spawn().expect("it starts");
    drop(child.stdout.take());
    let outcome = finish(child);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_result_that_could_not_be_printed_is_reported_also_if_the_run_failed() {
    for args in ["bench -n 5 --target 127.0.0.1:1", "bench -n 5"] {
        let outcome = crate::common::shell(&format!("$FINALE {args} >/dev/full"));
        assert!(outcome.stderr.starts_with("finale: can't write to stdout: No space left"), "{outcome:?}");
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
    }
}

#[test]
fn the_short_options_are_those_of_other_load_generators() {
    let object = expect_well(&["-n", "40", "-c", "4", "-t", "20s", "-R", "1000", "-q"], 40, 64);
    assert_eq!(
        (&object["in_flight"], &object["timeout_ms"], &object["rate"]),
        (&4.into(), &20_000.into(), &1000.into())
    );
    let (_, object) = json(&["-z", "50ms"]);
    assert_eq!(object["duration_ms"], 50);
}

#[test]
fn one_connection_is_one_connection() {
    let outcome = run(&["bench", "-n", "1", "--target", "127.0.0.1:1", "-q"]);
    assert!(outcome.last_line().starts_with("finale: 1 of 1 connection failed; "), "{outcome:?}");
}

#[test]
fn counts_may_have_a_suffix() {
    let object = expect_well(&["-n", "1k", "-R", "20k"], 1000, 64);
    assert_eq!(object["rate"], 20_000);
}

#[test]
fn an_overloaded_rate_ends_soon_and_is_a_failure() {
    let (outcome, object) = json(&["-R", "1M", "-z", "100ms", "-t", "100ms", "-c", "1"]);
    let count = |name: &str| object[name].as_u64().expect("a count");
    assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(1), 1), "{outcome:?}");
    assert!(outcome.stderr.starts_with("finale: overloaded: "), "{outcome:?}");
    assert_eq!((count("connections") + count("never_begun"), count("overloaded")), (100_000, count("never_begun")));
}

#[test]
fn an_overloaded_rate_is_reported_next_to_failures() {
    let (addr, _thread) = strange(usize::MAX, {
        let mut held = Vec::new();
        move |client| held.push(client)
    });
    let (outcome, _) = json(&["--target", &addr.to_string(), "-R", "1k", "-n", "300", "-c", "1", "-t", "50ms"]);
    assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(1), 1), "{outcome:?}");
    let words =
        ["no end of the answer within 50ms; and overloaded: ", " of 300 connections could not begin within 50ms"];
    assert!(words.iter().all(|words| outcome.stderr.contains(words)), "{outcome:?}");
}

#[test]
fn a_name_is_measured_at_the_address_that_answers() {
    let (addr, thread) = strange(21, |mut client| {
        let mut request = Vec::new();
        client.read_to_end(&mut request).expect("the request ends");
        if !request.is_empty() {
            client.write_all(&[b'!'; 64]).expect("the client reads");
        }
    });
    let name = format!("localhost:{}", addr.port());
    let object = expect_well(&["--target", &name, "-n", "20"], 20, 64);
    assert_eq!((&object["target"], &object["name"]), (&addr.to_string().into(), &name.as_str().into()));
    thread.join().expect("the server has seen all, and the one that chose the address");
    let (outcome, object) = json(&["--target", &name, "-n", "20"]);
    assert_eq!((outcome.code, &object["failures"]["refused"]), (Some(1), &20.into()), "{outcome:?}");
}

#[test]
fn a_unix_domain_socket_is_measured() {
    let path = std::env::temp_dir().join(format!("finale-bench-{}", std::process::id()));
    let _of_a_run_that_was_killed = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).expect("the path is free");
    let thread = thread::spawn(move || {
        for client in listener.incoming().take(300) {
            let mut client = client.expect("a client comes");
            client.read_to_end(&mut Vec::new()).expect("the request ends");
            client.write_all(&[b'!'; 64]).expect("the client reads");
        }
    });
    let target = format!("unix:{}", path.display());
    let object = expect_well(&["--target", &target, "-n", "300", "-c", "200"], 300, 64);
    assert_eq!((&object["target"], &object["name"]), (&target.as_str().into(), &Value::Null));
    thread.join().expect("the server has seen all");
    std::fs::remove_file(&path).expect("it is ours");
}

#[test]
fn a_warm_up_makes_connections_that_do_not_count() {
    let served = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&served);
    let (addr, _thread) = strange(usize::MAX, move |mut client| {
        counter.fetch_add(1, Ordering::Relaxed);
        client.read_to_end(&mut Vec::new()).expect("the request ends");
        client.write_all(&[b'!'; 64]).expect("the client reads");
    });
    let target = addr.to_string();
    let object = expect_well(&["--target", &target, "-n", "40", "-c", "2", "--warm-up", "50ms"], 40, 64);
    assert_eq!((&object["warm_up_ms"], &object["bytes_sent"]), (&50.into(), &(40 * 64).into()));
    assert!(served.load(Ordering::Relaxed) > 40, "{served:?}");
    let page = run(&["bench", "-n", "40", "--warm-up", "20ms"]).stdout;
    assert!(page.contains("as soon as one has closed, after a warm-up of 20ms\n"), "{page}");
}

#[test]
fn a_warm_up_in_which_all_fail_is_the_result() {
    let (_held, unused) = dead_port();
    let (outcome, object) = json(&["--target", &unused.to_string(), "-n", "5k", "--warm-up", "1h"]);
    assert_eq!((outcome.code, &object["given_up"], &object["never_begun"]), (Some(1), &true.into(), &5_000.into()));
}

#[test]
fn throughput_is_in_bytes_per_second() {
    let object = expect_well(&["-n", "200", "--request", "1KiB", "--answer", "2KiB"], 200, 2048);
    for direction in ["bytes_sent", "bytes_received"] {
        let total = number(&object, &format!("{direction}_per_second")) * number(&object, "seconds");
        assert!((total / number(&object, direction) - 1.0).abs() < 0.001, "{object}");
    }
}

/// A file for the output of one run.
struct Output(std::path::PathBuf);

impl Output {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("finale-{name}-{}", std::process::id()));
        std::fs::write(&path, text).expect("it can be written");
        Self(path)
    }

    fn of(name: &str, args: &[&str]) -> Self {
        Self::new(name, &json(args).0.stdout)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("it is text")
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn the_results_of_several_loads_become_one() {
    let (one, other) = (Output::of("one", &["-n", "300"]), Output::of("other", &["-n", "200", "-c", "8"]));
    let both =
        Output::new("both", &[&one, &other].map(|file| std::fs::read_to_string(&file.0).expect("it exists")).concat());
    for files in [&[one.path(), other.path()] as &[&str], &[both.path()]] {
        let outcome = run(&[&["bench", "merge", "--json"], files].concat());
        let object: Value = serde_json::from_str(&outcome.stdout).expect("it is JSON");
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
        let sums = [("connections", 500), ("loads", 2), ("in_flight", 264), ("bytes_sent", 500 * 64), ("failed", 0)];
        for (name, sum) in sums {
            assert_eq!(object[name], sum, "{name}: {object}");
        }
        let counted = number(&object, "per_second") * number(&object, "seconds");
        assert!((counted - 500.0).abs() < 1.0 && number(&object["latency_us"], "p50") > 0.0, "{object}");
        assert!(object["server_cpu_us_per_connection"].is_null(), "{object}");
        // It is a result like any other.
        let merged = Output::new("merged", &outcome.stdout);
        let again = run(&["bench", "merge", merged.path(), one.path()]);
        assert_eq!((again.code, again.stderr.as_str()), (Some(0), ""));
        for words in ["\n  800 in ", "\n  loads       3, merged as if they ran at the same time\n", "all acknowledged"]
        {
            assert!(again.stdout.contains(words), "{words}: {}", again.stdout);
        }
    }
}

#[test]
fn failures_of_merged_loads_are_added_up_and_are_a_failure() {
    let (_held, unused) = dead_port();
    let unused = unused.to_string();
    let (good, bad) = (Output::of("good", &["-n", "30"]), Output::of("bad", &["-n", "20", "--target", &unused]));
    let outcome = run(&["bench", "merge", "--json", good.path(), bad.path()]);
    let object: Value = serde_json::from_str(&outcome.stdout).expect("it is JSON");
    assert_eq!((outcome.code, &object["failures"]), (Some(1), &serde_json::json!({ "refused": 20 })), "{outcome:?}");
    assert!(
        outcome.stderr.starts_with("finale: 20 of 50 connections failed; the first failure: refused"),
        "{outcome:?}"
    );
    assert!(object["target"].as_str().is_some_and(|targets| targets.ends_with(&format!(", {unused}"))), "{object}");
}

#[test]
fn what_can_not_be_merged_is_refused_in_one_line() {
    let one = Output::of("mine", &["-n", "3"]);
    let text = std::fs::read_to_string(&one.0).expect("it exists");
    let merge = |text: &str, code, words: &str| {
        let other = Output::new("theirs", text);
        run(&["bench", "merge", one.path(), other.path()]).refused_with(code, words);
    };
    for (from, to, words) in [
        (
            "\"request_bytes\":64",
            "\"request_bytes\":65",
            "can't be merged, since their latencies mean different things: request_bytes is 64 and 65",
        ),
        ("\"first\":\"client\"", "\"first\":\"server\"", "first is client and server"),
        ("\"timeout_ms\":10000", "\"timeout_ms\":9", "timeout_ms is 10000 and 9"),
        ("\"rate\":null", "\"rate\":5", "rate is no rate and a rate"),
        ("\"tls\":null", "\"tls\":{\"handshakes\":3,\"resumed\":0,\"resumption\":false}", "tls is off and on"),
        ("\"tls\":null", "\"tls\":{\"handshakes\":3,\"resumed\":4,\"resumption\":true}", "more sessions were resumed"),
        ("\"connections\":3", "\"connections\":4", "the histogram has not as many latencies"),
        ("\"histogram\":\"", "\"histogram\":\"?", "the histogram is not base64"),
        ("\"histogram\":\"", "\"histogram\":\"AAAA", "the histogram can't be read"),
        ("\"seconds\"", "\"hours\"", "missing field `seconds`"),
        ("\"failed\":0", "\"failed\":4", "more connections have failed than have ended"),
        ("\"failures\":{}", "\"failures\":{\"reset\":1}", "the failures by kind are not as many"),
        ("\"first_failure\":null", "\"first_failure\":\"reset\"", "the first failure does not fit"),
        ("\"acknowledged\":3", "\"acknowledged\":4", "more connections were acknowledged"),
        ("\"peer\":0", "\"peer\":18446744073709551615", "first_fin has not each successful connection once"),
        ("\"seconds\":", "\"seconds\":-1,\"was\":", "the time is negative"),
        ("\"loads\":1", "\"loads\":0", "it is the result of no load"),
        ("\"first\":\"client\"", "\"first\":\"nobody\"", "first is neither client nor server"),
        ("\"max\":", "\"max\":null,\"was\":", "the longest latency does not fit the histogram"),
    ] {
        assert!(text.contains(from), "{from}: {text}");
        merge(&text.replace(from, to), 1, words);
    }
    let endless = Output::new("endless", &text.replace("\"seconds\":", "\"seconds\":1e300,\"was\":"));
    assert_eq!(run(&["bench", "merge", one.path(), endless.path()]).code, Some(0), "any number can be printed");
    let most = Output::new("most", &text.replace("\"overloaded\":0", &format!("\"overloaded\":{}", u64::MAX)));
    let outcome = run(&["bench", "merge", most.path()]);
    assert!(outcome.code == Some(1) && outcome.stderr.starts_with("finale: overloaded: 18446744073709551615 of"));
    merge("", 1, "is no output of finale bench --json: it is empty");
    merge("hello", 1, "is no output of finale bench --json: expected");
    merge("{}", 1, "missing field");
    run(&["bench", "merge", "/nowhere"]).refused_with(1, "can't read '/nowhere': No such file");
    run(&["bench", "merge", "/"]).refused_with(1, "can't read '/': Is a directory");
    run(&["bench", "merge", one.path(), one.path()]).refused_with(2, "is named twice, and would count twice");
    let alias = one.path().replacen('/', "/./", 1);
    run(&["bench", "merge", one.path(), &alias]).refused_with(2, "is the same file as");
    run(&["bench", "merge", "/dev/zero"])
        .refused_with(1, "is no output of finale bench --json: it is larger than 64 MiB");
    run(&["bench", "merge"]).refused_with(2, "missing argument: <FILE>...; see finale bench merge --help");
    run(&["bench", "-n", "5", "merge", one.path()]).refused_with(2, "merge");
}
