//! `finale probe` on servers that end well, badly, or not at all.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::common::{Outcome, PATIENCE, Server, command, finish, pid, run};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

/// Serves each client on a thread of its own. Returns the address.
fn server(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound").to_string();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(client));
        }
    });
    addr
}

fn read_line(client: &TcpStream) -> String {
    let mut line = String::new();
    let _ = BufReader::new(client).read_line(&mut line);
    line
}

/// Answers a line with a line.
fn correct(mut client: TcpStream) {
    read_line(&client);
    let _ = client.write_all(b"hello\n");
}

/// The same, but a client that has ended is gone for it.
fn ends_at_fin(client: TcpStream) {
    read_line(&client);
    if !has_ended(&client) {
        let _ = (&client).write_all(b"hello\n");
    }
}

/// Whether the client sends its FIN within 200 ms: much more than the 5 ms of the probe on a busy
/// machine. A reset is none.
fn has_ended(client: &TcpStream) -> bool {
    let time = Timespec::try_from(Duration::from_millis(200)).expect("it is short");
    let mut looked = [PollFd::new(client, PollFlags::RDHUP)];
    poll(&mut looked, Some(&time)).expect("it is open");
    looked[0].revents() == PollFlags::RDHUP
}

/// One case, twice.
fn probe(addr: &str, options: &[&str]) -> Outcome {
    let quickly = ["--preset", "line", "--case", "half-close", "--runs", "2"];
    run(&[&["probe", addr], &quickly[..], options].concat())
}

fn json(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
}

/// A file of this test.
fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("finale-probe-{name}-{}", std::process::id()))
}

/// Probes with `--junit`, and returns what was written.
fn junit(name: &str, addr: &str, options: &[&str]) -> (Outcome, String) {
    let path = file(name);
    let outcome = probe(addr, &[&["--junit", path.to_str().expect("it is text")], options].concat());
    let text = std::fs::read_to_string(&path).expect("it was written");
    std::fs::remove_file(&path).expect("it is ours");
    (outcome, text)
}

/// The names of the fields of an object and of those in it: `cases[].verdict`. Those of `seen` are
/// the case's own.
fn fields(prefix: &str, value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                names.insert(name.clone());
                if key != "seen" {
                    fields(&name, value, names);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields(&format!("{prefix}[]"), item, names)),
        _ => {}
    }
}

#[test]
fn a_server_that_ends_well_passes_and_the_guide_describes_each_field_of_the_json() {
    let addr = server(correct);
    let outcome = probe(&addr, &["--json"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    let report = json(&outcome);
    assert_eq!(report["schema"], 1);
    assert_eq!([&report["target"], &report["address"]], [addr.as_str(); 2]);
    assert_eq!([&report["baseline"]["first"], &report["baseline"]["end"]], ["server", "fin"]);
    assert_eq!(report["baseline"]["bytes"], 6);
    let case = &report["cases"][0];
    assert_eq!([&case["id"], &case["verdict"], &case["cure"]], [&"half-close".into(), &"pass".into(), &Value::Null]);
    assert!(case["runs"].as_u64() >= Some(12), "{case}");

    let mut names = BTreeSet::new();
    fields("", &report, &mut names);
    let guide = include_str!("../../../docs/probe.md");
    let table = guide.split("## The JSON").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a section");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    // Of the object without a report.
    let described: BTreeSet<String> = rows.filter(|name| *name != "error").map(str::to_owned).collect();
    assert_eq!(described, names, "docs/probe.md describes other fields");
}

#[test]
fn the_page_has_a_head_a_line_per_case_and_the_counts() {
    let addr = server(correct);
    let outcome = probe(&addr, &[]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines[1], format!("  target      {addr}"));
    assert!(lines[2].starts_with("  path        ") && lines[2].contains("round trip "), "{outcome:?}");
    assert!(lines[3].starts_with("  baseline    6 bytes in ") && lines[3].ends_with(" ms: \"hello\""), "{outcome:?}");
    assert!(lines[4].starts_with("              the server finishes first, with a FIN "), "{outcome:?}");
    assert!(lines[6].starts_with("  pass half-close  whole, then FIN in "), "{outcome:?}");
    assert!(lines[8].starts_with("1 passed; ") && lines.len() == 9, "{outcome:?}");
}

#[test]
fn a_lost_answer_is_a_failure_with_its_variants_its_cure_and_its_ladder() {
    let addr = server(ends_at_fin);
    let (outcome, xml) = junit("fail", &addr, &["--expect", "half-close", "--trace"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(1), ""), "{outcome:?}");
    let summary = "14 of 14 runs, the worst: FIN with the request: no byte, then FIN";
    for words in [
        &format!("\n  fail half-close  {summary}\n"),
        "\nhalf-close fail\n  done        sends the request and its FIN, and reads the answer\n",
        "  seen        FIN 0 ms later: no byte, then FIN (2)\n              FIN 0.2 ms later",
        "  source      RFC 9293 section 3.6 (case 2); ",
        "  cure        After a read of 0 bytes finish the answer",
        "\n1 failed; ",
        &format!("\nfail half-close: {summary}\n\n         time  client\n"),
        "recv 0: the peer's FIN",
    ] {
        assert!(outcome.stdout.contains(words), "{words}: {}", outcome.stdout);
    }
    for words in [
        r#"<testsuites name="finale probe" tests="1" skipped="0" failures="1" errors="0">"#,
        &format!(r#"<testsuite name="{addr}" tests="1" skipped="0" errors="0" failures="1" time=""#),
        r#"<testcase name="half-close" classname="finale.probe" time=""#,
        &format!(r#"<failure message="{summary}" type="fail">"#),
        "\nseen: FIN 1 ms later: no byte, then FIN (2)\n",
        "\ncure: After a read of 0 bytes finish",
        "recv 0: the peer&apos;s FIN",
    ] {
        assert!(xml.contains(words), "{words}: {xml}");
    }
}

#[test]
fn a_warning_is_a_failure_only_if_that_is_strict() {
    let addr = server(ends_at_fin);
    let (outcome, xml) = junit("warn", &addr, &[]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let summary = "half-close is not supported: 14 of 14 runs, the worst: FIN with the request: no byte, then FIN";
    let unwrapped = outcome.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(unwrapped.contains(summary), "{outcome:?}");
    assert!(outcome.stdout.contains("\n1 warned; "), "{outcome:?}");
    assert!(xml.contains(r#"failures="0""#) && xml.contains("<system-out>warn: half-close is not"), "{xml}");
    let (outcome, xml) = junit("strict", &addr, &["--strict"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(xml.contains(&format!(r#"<failure message="{summary}" type="warn">"#)), "{xml}");
}

#[test]
fn a_server_that_can_not_be_probed_is_exit_code_3_and_the_reason() {
    let (_held, closed) = finale_test_support::dead_port();
    let refused = closed.to_string();
    let reason = "a polite client could not connect: refused: nothing listens there";
    probe(&refused, &[]).refused_with(3, &format!("{refused} could not be probed: {reason}"));
    let outcome = probe(&refused, &["--json"]);
    assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(3), 1), "{outcome:?}");
    assert_eq!(json(&outcome), serde_json::json!({ "schema": 1, "error": reason }));
    let (outcome, xml) = junit("refused", &refused, &[]);
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    assert!(xml.contains(r#"<testcase name="baseline" classname="finale.probe">"#), "{xml}");
    assert!(xml.contains(&format!(r#"<error message="{reason}"/>"#)), "{xml}");

    let silent = server(|client| while !read_line(&client).is_empty() {});
    let silence = probe(&silent, &["--timeout", "100ms"]);
    silence.refused_with(3, "a polite client got no byte within 100ms; is it the right request?");
    let wrong = probe("nowhere.invalid:80", &[]);
    wrong.refused_with(3, "nowhere.invalid:80 could not be probed: no address was found for nowhere.invalid:80: ");
}

#[test]
fn an_answer_that_does_not_end_as_expected_is_no_baseline() {
    let addr = server(correct);
    let kept = server(|mut client| while !read_line(&client).is_empty() && client.write_all(b"hello\n").is_ok() {});
    let got = "a polite client got 6 bytes";
    for (addr, option, value, reason) in [
        (&addr, "--expect-until", "bye", "and then the server's end instead of the expected end \"bye\""),
        (&addr, "--expect-bytes", "7", "and then the server's end instead of the rest of the 7 that are expected"),
        (&addr, "--expect-bytes", "5", "more than the 5 that are expected"),
        (&kept, "--expect-until", r"\x00", "and then silence for 100ms instead of the expected end \"\\x00\""),
    ] {
        let outcome = probe(addr, &[option, value, "--timeout", "100ms"]);
        outcome.refused_with(3, &format!("{addr} could not be probed: {got}, {reason}"));
    }
    let ends = server(|client| drop(read_line(&client)));
    probe(&ends, &[]).refused_with(3, "a polite client got no byte, and the server ended its connection; is it");
    let lacks_a_line_end = probe(&kept, &["--send", "hello", "--timeout", "100ms"]);
    lacks_a_line_end.refused_with(
        3,
        "and 6 bytes after its FIN: a server that answers only then can't be probed. Is it the right request? It does \
         not end with a line feed (\\n).",
    );
}

#[test]
fn a_command_that_fails_is_no_result_but_exit_code_3_and_an_error() {
    let addr = server(correct);
    let reason = "the command failed (exit status: 7)";
    let args = ["--case", "half-close,stop-idle", "--on-stop", "exit 7", "--timeout", "1s"];
    let (outcome, xml) = junit("command", &addr, &args);
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    assert_eq!(outcome.stderr, format!("finale: stop-idle could not be tried: {reason}\n"));
    assert!(outcome.stdout.contains(&format!("  skip stop-idle   {reason}\n")), "{outcome:?}");
    assert!(xml.contains(&format!(r#"<error message="{reason}"/>"#)), "{xml}");
    let failed = probe(&server(ends_at_fin), &[&["--expect", "half-close"], &args[..]].concat());
    assert_eq!((failed.code, failed.stderr.as_str()), (Some(1), ""), "{failed:?}");
}

#[test]
fn a_healthy_client_waits_for_the_answer_to_the_preface_before_its_request() {
    let addr = server(|mut client| {
        let mut lines = BufReader::new(client.try_clone().expect("descriptors are free")).lines();
        while let Some(Ok(line)) = lines.next() {
            let answer: &[u8] = if line == "login" { b"ok\n" } else { b"hello\n" };
            let _ = client.write_all(answer);
        }
    });
    let outcome = probe(&addr, &["--preface", r"login\n", "--json"]);
    let report = json(&outcome);
    let bystander = &report["cases"][0]["bystander"];
    assert_eq!((outcome.code, &bystander["failed"], &bystander["harm"]), (Some(0), &0.into(), &Value::Null));
    assert!(bystander["served"].as_u64() > Some(0), "{bystander}");
}

#[test]
fn a_signal_ends_the_probe_with_what_it_has_and_its_connections() {
    // A client that has ended waits for an answer that does not come.
    let (held, holds) = channel();
    let clients = Arc::new(AtomicU32::new(0));
    let addr = server(move |client| {
        read_line(&client);
        // The first ones are those of the baseline and of the path.
        let is_of_case = clients.fetch_add(1, Ordering::Relaxed) > 20;
        if is_of_case && has_ended(&client) {
            let _ = held.send(client);
        } else {
            let _ = (&client).write_all(b"hello\n");
        }
    });
    let args = ["probe", &addr, "--preset", "line", "--case", "half-close", "--timeout", "1h", "--json"];
    let child = command(&args).spawn().expect("it starts");
    let client = holds.recv_timeout(PATIENCE).expect("a client ends first");
    kill_process(pid(&child), Signal::INT).expect("it runs");
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(130), "{outcome:?}");
    assert_eq!(outcome.stderr, "finale: interrupted by SIGINT; 0 cases done\n");
    let report = json(&outcome);
    assert_eq!((&report["interrupted"], &report["cases"]), (&true.into(), &serde_json::json!([])));
    assert_eq!(report["baseline"]["bytes"], 6);
    assert!(client.take_error().expect("it is open").is_some(), "the client was not reset");
}

#[test]
fn the_list_says_what_each_case_does_and_needs_no_server() {
    let outcome = run(&["probe", "--list"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    let listed = outcome.stdout.lines().filter(|line| !line.starts_with(' '));
    let listed: Vec<_> = listed.map(|line| line.trim_end_matches(" (hostile)")).collect();
    let ids: Vec<_> = finale_probe::cases().map(|case| case.id).collect();
    assert_eq!(listed, ids);
    assert_eq!(outcome.stdout.matches("\n  does        ").count(), ids.len());
    assert_eq!(outcome.stdout.matches("\n  costs       ").count(), ids.len());
    let chosen = run(&["probe", "--list", "--case", "half-close", "--json"]);
    let chosen = json(&chosen);
    assert_eq!(
        (&chosen[0]["id"], &chosen[0]["hostile"], &chosen[1]),
        (&"half-close".into(), &false.into(), &Value::Null)
    );
}

/// A server of each preset's protocol, which checks the request.
#[test]
fn the_presets_speak_their_protocols() {
    let presets: [(&str, &str, &str, &str); 5] = [
        ("redis", "", "*1\r\n$4\r\nPING\r\n", "+PONG\r\n"),
        ("memcached", "", "version\r\n", "VERSION 1.6.0\r\n"),
        ("smtp", "220 mail.example ESMTP\r\n", "NOOP\r\n", "250 OK\r\n"),
        ("echo", "", "finale probe\r\n", "finale probe\r\n"),
        ("line", "", "finale probe\r\n", "hello\n"),
    ];
    for (preset, greeting, request, answer) in presets {
        let addr = server(move |mut client| {
            let _ = client.write_all(greeting.as_bytes());
            let mut lines = BufReader::new(client.try_clone().expect("descriptors are free"));
            let mut read = String::new();
            while lines.read_line(&mut read).is_ok_and(|bytes| bytes > 0) {
                if read == request {
                    let _ = client.write_all(answer.as_bytes());
                    read.clear();
                }
            }
        });
        let outcome = run(&["probe", &addr, "--preset", preset, "--case", "half-close", "--runs", "1", "--json"]);
        assert_eq!(outcome.code, Some(0), "{preset}: {outcome:?}");
        let baseline = &json(&outcome)["baseline"];
        assert_eq!((&baseline["bytes"], &baseline["first"]), (&answer.len().into(), &"client".into()), "{preset}");
        assert_eq!(baseline["reusable"], true, "{preset}");
    }
    let addr = server(|mut client| {
        let mut lines = BufReader::new(client.try_clone().expect("descriptors are free")).lines();
        let head: Vec<_> = lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        if head[0] == "GET / HTTP/1.1" && head.contains(&"Connection: close".to_owned()) {
            let _ = client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let outcome = run(&["probe", &addr, "--preset", "http", "--case", "half-close", "--runs", "1", "--json"]);
    assert_eq!((outcome.code, &json(&outcome)["baseline"]["status"]), (Some(0), &200.into()), "{outcome:?}");
}

#[test]
fn what_is_given_replaces_that_of_the_preset() {
    let path = file("request");
    std::fs::write(&path, b"from a file\n").expect("it can be written");
    let path_text = path.to_str().expect("it is text").to_owned();
    for (option, request) in [
        (["--send", r"from\x20an argument\n"], "from an argument\n"),
        (["--send-file", path_text.as_str()], "from a file\n"),
    ] {
        let addr = server(move |mut client| {
            let answer = if read_line(&client) == request { "right." } else { "wrong!!" };
            let _ = client.write_all(answer.as_bytes());
        });
        let outcome = probe(&addr, &[&option[..], &["--expect-until", ".", "--json"]].concat());
        assert_eq!((outcome.code, &json(&outcome)["baseline"]["bytes"]), (Some(0), &6.into()), "{outcome:?}");
    }
    std::fs::remove_file(&path).expect("it is ours");
}

/// The example for a shell, with another port and one case.
#[test]
fn the_example_of_the_guide_for_ci_probes_a_server_and_writes_its_report() {
    let programs = ["python3", "curl"];
    let exists = |program: &&str| Command::new(program).arg("--version").output().is_ok();
    if !programs.iter().all(exists) {
        return; // They are not here.
    }
    let guide = include_str!("../../../docs/probe.md");
    let example = guide.split("In a shell:\n\n```sh\n").nth(1).and_then(|rest| rest.split("```").next());
    // Below the ports that the system chooses: no other test can get it before the server of the example does.
    let first = 10_000 + (std::process::id() % 20_000) as u16;
    let port = (first..first + 100).find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok());
    let script = example.expect("the guide has it").replace("8000", &port.expect("one is free").to_string());
    let script = script.replace("--preset http", "--preset http --case half-close --runs 2");
    let folder = file("ci");
    std::fs::create_dir(&folder).expect("it can be made");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("finale() {{ \"$FINALE\" \"$@\"; }}\n{script}")]).current_dir(&folder);
    shell.env("FINALE", env!("CARGO_BIN_EXE_finale")).stdin(Stdio::null());
    let child = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("there is a shell");
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("pass half-close"), "{outcome:?}");
    let xml = std::fs::read_to_string(folder.join("probe.xml")).expect("it was written");
    assert!(xml.contains(r#"tests="1" skipped="0" failures="0" errors="0""#), "{xml}");
    std::fs::remove_dir_all(&folder).expect("it is ours");
}

#[test]
fn the_servers_of_finale_pass() {
    let echo = Server::start(&["echo"]);
    let outcome = run(&["probe", &echo.addr.to_string(), "--preset", "echo", "--case", "half-close", "--runs", "2"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("the client finishes first, and the server with a FIN"), "{outcome:?}");
    echo.stop_quietly();
}
