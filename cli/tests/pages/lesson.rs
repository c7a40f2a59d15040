//! The lessons.

use std::io::{BufRead as _, BufReader};

use crate::common::{command, finish, run};

#[test]
fn the_lesson_prints_the_lessons_output_to_the_byte() {
    let outcome = run(&["lesson"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    let (_, rest) = outcome.stdout.split_once("connection: from 127.0.0.1:").expect("a connection is printed");
    let port = rest.lines().next().expect("the line has an end");
    assert!(port.parse::<u16>().is_ok_and(|port| port != 0), "{port}");
    assert_eq!(outcome.stdout, include_str!("../lesson.txt").replace("<port>", port));
}

#[test]
fn the_crash_lesson_prints_the_same_page_every_time() {
    let outcome = run(&["lesson", "crash"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    assert_eq!(outcome.stdout, include_str!("../crash.txt"));
    expect_a_page(&outcome.stdout);
}

/// Without ports and times: what a line says.
fn has_lines(ladder: &str, lines: &[&str]) {
    for line in lines {
        assert!(ladder.contains(line), "{line}: {ladder}");
    }
}

#[test]
fn the_lessons_ladder_has_the_connections_of_both_sides() {
    let outcome = run(&["lesson", "--trace"]);
    assert_eq!(outcome.code, Some(0));
    let (_, rest) = outcome.stdout.split_once("connection: from 127.0.0.1:").expect("a connection is printed");
    let port = rest.lines().next().expect("the line has an end");
    assert_eq!(outcome.stdout, include_str!("../lesson.txt").replace("<port>", port), "the page is the same");
    has_lines(&outcome.stderr, &["  #0 connect 127.0.0.1:", &format!("  #1 accept 127.0.0.1:{port}")]);
    has_lines(&outcome.stderr, &["  #0 recv 0: the peer's FIN", "  #5 Idle, event timeout", "  #4 CloseDue"]);
    let column = |words: &str| {
        let line = outcome.stderr.lines().find(|line| line.contains(words)).expect("a line");
        line.find('#')
    };
    assert!(column("#0 connect") < column("#1 accept"), "the server is on the right: {}", outcome.stderr);
}

#[test]
fn the_crash_lessons_ladders_show_each_scene_from_our_side() {
    let outcome = run(&["lesson", "crash", "--trace"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), include_str!("../crash.txt")));
    let ladders: Vec<_> = outcome.stderr.split("\n\n         time  server\n").collect();
    assert_eq!(ladders.len(), 1 + 4, "{}", outcome.stderr);
    has_lines(ladders[1], &["accept 127.0.0.1:", "recv 0: the peer's FIN", "ended clean"]);
    has_lines(ladders[2], &["we kill the peer", "recv 0: the peer's FIN", "ended clean"]);
    has_lines(ladders[3], &["we kill the peer", "reset by peer", "Reset: Open -> ResetByPeer, event error"]);
    has_lines(ladders[4], &["we stop the peer", "Idle, event timeout", "close with SO_LINGER 0"]);
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
    assert!(outcome.stdout.contains("of 20 round trips") || outcome.stdout.contains("No round trip stalled"));
    expect_a_page(&outcome.stdout);
}

#[test]
fn a_reader_that_leaves_early_is_not_an_error() {
    for args in [&["lesson"] as &[_], &["lesson", "crash"], &["lesson", "nodelay", "--rounds", "3"], &["states"]] {
        let mut child = command(args).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("it prints a line");
        let outcome = finish(child);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

/// For all choices of the server: each request is answered once, and the sums agree with the lines.
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
        assert!(count("connect was refused") > 0, "{}", outcome.stdout);
        let sum = |name: &str| {
            let line = outcome.stdout.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok())
        };
        let repeated = count("; repeated");
        let sums = ["requests answered", "requests repeated", "requests lost"].map(sum);
        assert_eq!(sums, [Some(40), Some(repeated), Some(0)], "{}", outcome.stdout);
        expect_a_page(&outcome.stdout);
    }
}

/// A lesson fits a terminal of 80 columns, and ends with what was learned.
#[track_caller]
fn expect_a_page(page: &str) {
    let long = page.lines().find(|line| line.chars().count() > 80 || line.ends_with(' '));
    assert_eq!(long, None);
    let end = page.rsplit_once("\n=== ").map(|(_, end)| end);
    assert!(end.is_some_and(|end| end.starts_with("What you have learned ===\n\n- ")), "{page}");
}
