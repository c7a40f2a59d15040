//! The lessons, as people run them.

mod common;

use std::io::{BufRead as _, BufReader};

use common::{command, finish, run};

#[test]
fn the_lesson_prints_the_lessons_output_to_the_byte() {
    let outcome = run(&["lesson"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    let (_, rest) = outcome.stdout.split_once("connection: from 127.0.0.1:").expect("a connection is told");
    let port = rest.lines().next().expect("the line has an end");
    assert!(port.parse::<u16>().is_ok_and(|port| port != 0), "{port}");
    assert_eq!(outcome.stdout, include_str!("lesson.txt").replace("<port>", port));
}

#[test]
fn the_crash_lesson_tells_the_same_story_every_time() {
    let outcome = run(&["lesson", "crash"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    assert_eq!(outcome.stdout, include_str!("crash.txt"));
}

#[test]
fn the_nodelay_lesson_shows_every_round_trip_in_its_table() {
    let outcome = run(&["lesson", "nodelay", "--rounds", "20"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    let tables: Vec<_> = outcome.stdout.split("\n=== ").skip(1).take(2).collect();
    assert_eq!(tables.len(), 2, "{}", outcome.stdout);
    for table in tables {
        let rows = table.lines().filter_map(|line| line.split_once('|'));
        let counts = rows.map(|(_, bar)| bar.split_whitespace().next().and_then(|n| n.parse::<u32>().ok()));
        assert_eq!(counts.sum::<Option<u32>>(), Some(20), "{table}");
    }
    assert!(outcome.stdout.contains("When to disable it"));
}

#[test]
fn a_reader_who_leaves_early_is_no_trouble() {
    for args in [&["lesson"] as &[_], &["lesson", "crash"], &["lesson", "nodelay", "--rounds", "3"], &["states"]] {
        let mut child = command(args).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("it prints a line");
        let outcome = finish(child);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

/// Whatever the server's dice say: each request is answered once, and the sums agree with the lines.
#[test]
fn the_pool_loses_no_request_though_its_server_breaks_connections_and_is_restarted() {
    for seed in ["1", "2", "3"] {
        let outcome = run(&["lesson", "pool", "--requests", "40", "--seed", seed]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
        let count = |words: &str| outcome.stdout.lines().filter(|line| line.contains(words)).count();
        for number in 1..=40 {
            assert_eq!(count(&format!("request  {number} answered")), 1, "{}", outcome.stdout);
        }
        assert_eq!((count("is restarted"), count("listens again")), (1, 1), "{}", outcome.stdout);
        assert!(count("nobody listens there") > 0, "{}", outcome.stdout);
        let retries = format!("retries: {}", count("is sent again"));
        assert!(outcome.stdout.ends_with("\nlost: 0\n") && outcome.stdout.contains(&retries), "{}", outcome.stdout);
    }
}
