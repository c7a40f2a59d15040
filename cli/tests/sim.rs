//! `finale sim`: what it prints, and what it says of a mistake.

mod common;

use common::run;

#[test]
fn seeds_are_run_and_reported() {
    let outcome = run(&["sim", "--seeds", "0..300", "--threads", "2"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "nothing on a pipe but the report");
    assert!(outcome.stdout.starts_with("300 seeds, and every rule was kept: "), "{}", outcome.stdout);
    for part in ["seeds a second", "lifecycle\n", "of 79 transitions", "faults, how often\n", "CN01 nobody-listens"] {
        assert!(outcome.stdout.contains(part), "no {part:?} in\n{}", outcome.stdout);
    }
}

#[test]
fn a_seed_is_told_in_two_columns() {
    let one = run(&["sim", "--replay", "3"]);
    assert_eq!(one.code, Some(0));
    assert!(one.stdout.starts_with("seed 3: ") && one.stdout.ends_with("every rule was kept\n"), "{}", one.stdout);
    assert!(one.stdout.lines().any(|line| line.contains("client") && line.ends_with("| server")), "{}", one.stdout);
    assert_eq!(one.stdout, run(&["sim", "--replay", "3"]).stdout, "the same seed, the same story");
}

#[test]
fn a_fault_is_favoured_by_name_or_by_row() {
    for name in ["syn-lost", "CN02", "cn02"] {
        let outcome = run(&["sim", "--seeds", "0..200", "--fault", name]);
        assert_eq!(outcome.code, Some(0));
        let line = outcome.stdout.lines().find(|line| line.starts_with("syn-lost (CN02) struck in "));
        let struck = line.and_then(|line| line.split(" in ").nth(1)?.split(" of").next()?.parse::<u32>().ok());
        assert!(struck.is_some_and(|runs| runs > 150), "{}", outcome.stdout);
    }
    let list = run(&["sim", "--fault", "list"]);
    assert!(list.stdout.contains("CN02  syn-lost\n"), "{}", list.stdout);
}

#[test]
fn mistakes_are_said_in_one_line() {
    let mistakes: [(&[&str], &str); 4] = [
        (&["--seeds", "5..2"], "there is no seed in it"),
        (&["--seeds", "many"], "not a range of seeds"),
        (&["--fault", "gremlins"], "no such fault"),
        (&["--replay", "1", "--seeds", "0..9"], "cannot be used with"),
    ];
    for (args, expected) in mistakes {
        let outcome = run(&[&["sim"], args].concat());
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(outcome.stderr.contains(expected) && outcome.stderr.lines().count() == 1, "{}", outcome.stderr);
    }
}
