//! The lifecycle as the command prints it, and arguments that are none.

mod common;

use common::run;
use finale::lifecycle::{Format, print};

#[test]
fn states_prints_the_table_that_runs_in_each_format() {
    let formats = [("text", Format::Text), ("mermaid", Format::Mermaid), ("dot", Format::Dot)];
    for (name, format) in formats {
        let outcome = run(&["states", "--format", name]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{name}");
        assert_eq!(outcome.stdout, print(format), "{name}");
    }
    assert_eq!(run(&["states"]).stdout, print(Format::Text));
}

#[test]
fn a_mistake_in_the_arguments_is_told_in_one_line_with_exit_2() {
    let mistakes: [(&[&str], &str); 18] = [
        (&["sing"], "unrecognized subcommand 'sing'"),
        (&["lesson", "two"], "unrecognized subcommand 'two'"),
        (&["lesson", "nodelay", "--rounds", "0"], "--rounds"),
        (&["serve"], "<SERVICE>"),
        (&["serve", "shout"], "possible values: upper, answer, echo, discard"),
        (&["serve", "answer", "--bytes", "-5"], "write it as 64, 16KiB"),
        (&["serve", "answer", "--bytes", "lots"], "write it as 64, 16KiB"),
        (&["serve", "answer", "--bytes", "99999999999999999999GiB"], "1 TiB"),
        (&["serve", "echo", "--grace", "-1s"], "write it as 250ms, 2s"),
        (&["serve", "echo", "--grace", "5"], "time unit needed"),
        (&["serve", "echo", "--idle-timeout", "0s"], "longer than nothing"),
        (&["serve", "echo", "--idle-timeout", "9999999999999999y"], "write it as 250ms, 2s"),
        (&["serve", "echo", "--close", "abruptly"], "possible values: confirmed, hand-off"),
        (&["connect"], "<HOST:PORT>; see finale connect --help"),
        (&["serve", "answer", "--defer-accept", "0s"], "longer than nothing"),
        (&["bench", "--connections", "many"], "it is not a whole number; see finale bench --help"),
        (&["bench", "--rate", "0"], "it must be at least 1"),
        (&["states", "--format", "png"], "possible values: text, mermaid, dot"),
    ];
    for (args, word) in mistakes {
        run(args).refused_with(2, word);
    }
}

#[test]
fn help_goes_to_stdout_and_is_no_mistake() {
    for args in [&["--help"] as &[_], &["serve", "--help"], &["connect", "-h"], &["--version"]] {
        let outcome = run(args);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{args:?}");
        assert!(outcome.stdout.contains("finale"), "{args:?}");
    }
}
