//! `finale sim`: its page, its transcripts and its JSON objects.

use std::time::Instant;

use crate::common::{PATIENCE, command, finish, pid, run};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

#[test]
fn seeds_are_run_and_reported() {
    let outcome = run(&["sim", "--seeds", "0..300", "--threads", "2"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "nothing on a pipe but the report");
    assert!(outcome.stdout.starts_with("300 seeds, and every rule was kept: "), "{}", outcome.stdout);
    for part in [
        "seeds per second",
        "on 2 threads",
        "of 79 transitions occurred",
        "faults, and how often",
        "CN01 nobody-listens",
    ] {
        assert!(outcome.stdout.contains(part), "no {part:?} in\n{}", outcome.stdout);
    }
}

#[test]
fn a_seed_is_replayed_with_a_transcript_in_two_columns() {
    let one = run(&["sim", "--replay", "3"]);
    assert_eq!(one.code, Some(0));
    assert!(one.stdout.starts_with("seed 3: ") && one.stdout.ends_with("every rule was kept\n"), "{}", one.stdout);
    assert!(one.stdout.lines().any(|line| line.contains("client") && line.ends_with("| server")), "{}", one.stdout);
    assert_eq!(one.stdout, run(&["sim", "--replay", "3"]).stdout, "the same seed, the same transcript");
}

#[test]
fn a_fault_is_preferred_by_name_or_by_row() {
    for name in ["syn-lost", "CN02", "cn02"] {
        let outcome = run(&["sim", "--seeds", "0..200", "--fault", name]);
        assert_eq!(outcome.code, Some(0));
        let line = outcome.stdout.lines().find(|line| line.starts_with("syn-lost (CN02) occurred in "));
        let struck = line.and_then(|line| line.split(" in ").nth(1)?.split(" run").next()?.parse::<u32>().ok());
        assert!(struck.is_some_and(|runs| runs > 150), "{}", outcome.stdout);
    }
    let list = run(&["sim", "--fault", "list"]);
    assert!(list.stdout.contains("CN02  syn-lost\n"), "{}", list.stdout);
}

#[test]
fn numbers_agree_with_their_nouns() {
    let outcome = run(&["sim", "--seeds", "0..1", "--threads", "1"]);
    assert!(outcome.stdout.starts_with("1 seed, and every rule was kept: "), "{}", outcome.stdout);
    assert!(outcome.stdout.contains(" on 1 thread: "), "{}", outcome.stdout);
}

/// The result as a program reads it.
#[track_caller]
fn json(args: &[&str]) -> Value {
    let outcome = run(&[&["sim", "--json"], args].concat());
    assert_eq!(
        (outcome.code, outcome.stderr.as_str(), outcome.stdout.lines().count()),
        (Some(0), "", 1),
        "{outcome:?}"
    );
    serde_json::from_str(&outcome.stdout).expect("it is JSON")
}

#[test]
fn the_object_of_many_seeds_has_the_numbers_of_the_page() {
    let object = json(&["--seeds", "0..300", "-j", "2", "--fault", "syn-lost"]);
    let page = run(&["sim", "--seeds", "0..300", "-j", "1", "--fault", "syn-lost"]).stdout;
    let transitions = &object["transitions"];
    let lines = [
        format!("  {} of {} transitions occurred", transitions["seen"], transitions["total"]),
        format!(
            "syn-lost (CN02) occurred in {} runs; see finale sim --replay {}",
            object["fault"]["runs"], object["fault"]["first_seed"]
        ),
        format!("CN02 syn-lost {:>19}", object["faults"]["syn-lost"].as_u64().expect("a count")),
    ];
    for line in lines {
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeeze(&page).contains(&squeeze(&line)), "{line} in {page}");
    }
    assert_eq!(
        (&object["seeds"], &object["threads"], &object["broken"]),
        (&300.into(), &2.into(), &Value::Array(vec![]))
    );
    let missing = transitions["never"].as_array().expect("a list").len() as u64;
    assert_eq!(transitions["seen"].as_u64().map(|seen| seen + missing), transitions["total"].as_u64());
}

#[test]
fn the_object_of_one_seed_has_its_transcript() {
    let object = json(&["--replay", "3"]);
    let page = run(&["sim", "--replay", "3"]).stdout;
    assert!(page.contains(object["transcript"].as_str().expect("text")) && object["broken"].is_null(), "{object}");
    assert!(page.starts_with(&format!("seed 3: {} sockets, ", object["sockets"])), "{page}");
    let faults = json(&["--fault", "list"]);
    assert!(
        faults.as_array().is_some_and(|all| all.contains(&serde_json::json!({ "id": "CN02", "name": "syn-lost" })))
    );
}

/// It watches for signals when its two threads run.
#[track_caller]
fn interrupt_when_it_runs(child: &std::process::Child, signal: Signal) {
    let threads = format!("/proc/{}/task", child.id());
    let begun = Instant::now();
    while std::fs::read_dir(&threads).expect("it runs").count() < 4 {
        assert!(begun.elapsed() < PATIENCE, "its threads do not start");
    }
    kill_process(pid(child), signal).expect("it runs");
}

#[test]
fn a_signal_ends_it_with_what_was_run_and_the_command_that_continues() {
    for (signal, name, code) in [(Signal::INT, "SIGINT", 130), (Signal::TERM, "SIGTERM", 143)] {
        let args = ["sim", "--seeds", "640..1000000000", "--threads", "2", "--all", "--json"];
        let child = command(&args).spawn().expect("it starts");
        interrupt_when_it_runs(&child, signal);
        let outcome = finish(child);
        let object: Value = serde_json::from_str(&outcome.stdout).expect("it is JSON");
        let (seeds, left) = (object["seeds"].as_u64().expect("a count"), object["left"].as_str().expect("a range"));
        assert_eq!((outcome.code, left), (Some(code), &*format!("{}..1000000000", 640 + seeds)), "{outcome:?}");
        let (begin, end) = (format!("finale: interrupted by {name}; "), " --threads 2 --all --json\n");
        assert!(outcome.stderr.starts_with(&begin) && outcome.stderr.ends_with(end), "{outcome:?}");
        assert!(outcome.stderr.contains(&format!("; continue with: finale sim --seeds {left} ")), "{outcome:?}");
    }
}

#[test]
fn the_page_of_an_interrupted_run_names_the_seeds_that_are_left() {
    let seeds = ["--seeds", "0..1000000000", "--threads", "2"];
    let child = command(&[["sim", "--quiet"].as_slice(), &seeds].concat()).spawn().expect("it starts");
    interrupt_when_it_runs(&child, Signal::INT);
    let outcome = finish(child);
    let line = outcome.stdout.lines().nth(2).unwrap_or_default();
    let left = line.strip_prefix("interrupted: the seeds ").and_then(|line| line.strip_suffix(" were not run"));
    let left = left.expect("the line names them");
    assert!(outcome.stderr.contains(&format!("; continue with: finale sim --seeds {left} ")), "{outcome:?}");
}
