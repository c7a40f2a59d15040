//! Help, manual pages, completions, colours, and mistakes in the arguments.

use crate::common::{command, finish, run};

/// Every command that has a help text.
const COMMANDS: [&[&str]; 14] = [
    &[],
    &["lesson"],
    &["lesson", "crash"],
    &["lesson", "pool"],
    &["lesson", "nodelay"],
    &["serve"],
    &["connect"],
    &["bench"],
    &["bench", "merge"],
    &["probe"],
    &["sim"],
    &["states"],
    &["completions"],
    &["man"],
];

#[test]
fn a_mistake_in_the_arguments_is_reported_in_one_line_with_exit_code_2() {
    let mistakes: [(&[&str], &str); 36] = [
        (&["dance"], "unrecognized subcommand 'dance'; choose from lesson, serve, connect, bench, probe, sim,"),
        (&["serv", "echo"], "a similar subcommand exists: 'serve'; see finale --help"),
        (&["--colour"], "a similar argument exists: '--color'; see finale --help"),
        (&["--color", "pink", "states"], "possible values: auto, always, never; see finale states --help"),
        (
            &["lesson", "nodelay", "--rounds", "0"],
            "write a whole number from 1 to 10000; see finale lesson nodelay --help",
        ),
        (&["lesson", "pool", "--seed", "-1"], "write a whole number, 0 or more; see finale lesson pool --help"),
        (&["serve"], "missing argument: <SERVICE>; see finale serve --help"),
        (&["serve", "shout"], "possible values: upper, answer, echo, discard; see finale serve --help"),
        (&["serve", "answer", "--bytes", "-5"], "it is not a size; write a number of bytes, as 64, 16KiB"),
        (&["serve", "answer", "--bytes", "lots"], "it is not a size; write a number of bytes, as 64, 16KiB"),
        (&["serve", "answer", "--bytes", "99999999999999999999GiB"], "it is more than 1 TiB"),
        (
            &["serve", "echo", "--grace", "-1s"],
            "it is not a duration; write a number and a unit (ms, s, m, h or d), as 250ms",
        ),
        (
            &["serve", "echo", "--grace", "5"],
            "the unit is missing; write a number and a unit (ms, s, m, h or d), as 250ms",
        ),
        (&["serve", "echo", "--idle-timeout", "0s"], "it must be longer than zero"),
        (&["serve", "echo", "--idle-timeout", "99y"], "it is longer than a year"),
        (&["serve", "echo", "--close", "abruptly"], "possible values: confirmed, hand-off"),
        (&["serve", "echo", "--shards", "257"], "write a whole number from 1 to 256"),
        (&["serve", "echo", "--lisen", "x"], "a similar argument exists: '--listen'"),
        (&["serve", "answer", "--defer-accept", "0s"], "it must be longer than zero"),
        (
            &["serve", "echo", "--after", "5"],
            "--after works with `serve answer`, not with `serve echo`; see finale serve",
        ),
        (
            &["serve", "upper", "--bytes", "5"],
            "--bytes works with `serve answer`, not with `serve upper`; see finale serve",
        ),
        (&["connect"], "missing argument: <HOST:PORT>; see finale connect --help"),
        (&["connect", "a:1", "--json", "--json"], "'--json' is given more than once; see finale connect --help"),
        (&["connect", "a:1", "-w", "3"], "the unit is missing; write a number and a unit (ms, s, m, h or d)"),
        (&["connect", "a\nb"], "'a\\nb': not an address: it has no port"),
        (&["connect", "a:1", "-q", "--json"], "'--quiet' can't be used with '--json'; see finale connect"),
        (&["bench", "-n", "many"], "write a whole number, 1 or more, as 500, 10k or 2M; see finale bench --help"),
        (&["bench", "-R", "0"], "write a whole number from 1 to 4294967295"),
        (
            &["states", "--format", "png"],
            "possible values: text, svg, html, json, mermaid, dot; see finale states --help",
        ),
        (&["sim", "--seeds", "5..2"], "the range is empty; write FROM..TO"),
        (&["sim", "--seeds", "many"], "it is not a range of seeds; write FROM..TO"),
        (&["sim", "--fault", "gremlins"], "there is no such fault; `finale sim --fault list`"),
        (&["sim", "--replay", "1", "--seeds", "0..9"], "can't be used with '--seeds <FROM..TO>'"),
        (&["completions", "tcsh"], "possible values: bash, elvish, fish, powershell, zsh"),
        (&["man", "sing"], "'sing' is not a subcommand of finale; choose from lesson, serve, connect,"),
        (&["man", "serve", "echo"], "'echo': finale serve has no subcommands; see finale man --help"),
    ];
    for (args, words) in mistakes {
        run(args).refused_with(2, words);
    }
}

#[test]
fn a_mistake_in_the_arguments_for_tls_is_reported_before_anything_is_opened() {
    let mistakes: [(&[&str], &str); 17] = [
        (&["serve", "echo", "--tls-key", "a.key"], "missing argument: --tls-cert <FILE>; see finale serve --help"),
        (&["serve", "echo", "--tls-cert", "a.pem"], "missing argument: --tls-key <FILE>; see finale serve --help"),
        (&["serve", "echo", "--alpn", "h2"], "missing argument: --tls-key <FILE>, --tls-cert <FILE>; see finale serve"),
        (&["serve", "echo", "--tls-resumption"], "missing argument: --tls-key <FILE>, --tls-cert <FILE>; see"),
        (
            &["serve", "echo", "--tls-cert", "/nowhere/a.pem", "--tls-key", "a.key"],
            "can't serve TLS: /nowhere/a.pem: No such file or directory (os error 2); see finale serve --help",
        ),
        (
            &["serve", "echo", "--tls-cert", "/dev/null", "--tls-key", "a.key"],
            "can't serve TLS: /dev/null: it has no certificate in PEM format (BEGIN CERTIFICATE); see finale serve",
        ),
        (
            &["serve", "echo", "--tls-cert", "a.pem", "--tls-key", "a.key", "--proxy-protocol"],
            "'--tls-cert <FILE>' can't be used with '--proxy-protocol'; see finale serve --help",
        ),
        (&["connect", "a:1", "--ca", "ca.pem"], "missing argument: --tls; see finale connect --help"),
        (&["connect", "a:1", "--insecure"], "missing argument: --tls; see finale connect --help"),
        (&["connect", "a:1", "--alpn", "h2"], "missing argument: --tls; see finale connect --help"),
        (
            &["connect", "a:1", "--tls", "--ca", "/nowhere/x"],
            "--ca /nowhere/x: No such file or directory (os error 2);",
        ),
        (
            &["connect", "a:1", "--tls", "--ca", "x", "--insecure"],
            "'--ca <FILE>' can't be used with '--insecure'; see finale connect --help",
        ),
        (
            &["connect", "unix:/x", "--tls"],
            "'unix:/x' has no host name for the certificate; give one with --servername",
        ),
        (
            &["connect", "a:1", "--tls", "--servername", "a..b"],
            "--servername a..b: it is neither a host name nor an IP address; see finale connect",
        ),
        (
            &["connect", "a:1", "--tls", "--alpn", "h2,"],
            "a protocol has 1 to 255 bytes; write them separated by commas",
        ),
        (&["bench", "--tls"], "--tls measures another server; name it with --target; see finale bench --help"),
        (&["bench", "--tls-resumption", "--target", "a:1"], "missing argument: --tls; see finale bench --help"),
    ];
    for (args, words) in mistakes {
        run(args).refused_with(2, words);
    }
}

#[test]
fn a_mistake_in_the_arguments_of_a_probe_is_reported_before_anything_is_opened() {
    let mistakes: [(&[&str], &str); 20] = [
        (&["probe"], "missing argument: <HOST:PORT>; see finale probe --help"),
        (&["probe", "a:1"], "a request is missing: give --send, --send-file or --preset http; see finale probe --help"),
        (&["probe", "a", "--preset", "http"], "'a': not an address: it has no port"),
        (&["probe", "unix:/run/x", "--preset", "http"], "only TCP can be probed; write HOST:PORT"),
        (&["probe", "a:1", "--send", ""], "the request is empty; give bytes that the server answers"),
        (&["probe", "a:1", "--send", r"\q"], r"\q is no escape; write \r, \n, \t, \0, \\ or \x and two hexadecimal"),
        (&["probe", "a:1", "--send-file", "/nowhere/x"], "--send-file /nowhere/x: can't read it: No such file"),
        (&["probe", "a:1", "--preset", "ftp"], "possible values: http, redis, memcached, smtp, echo, line"),
        (&["probe", "a:1", "--case", "half"], "there is no such case; `finale probe --list` prints all"),
        (&["probe", "a:1", "--claim", "idle"], "write NAME=DUR, separated by commas; NAME is idle, header,"),
        (
            &["probe", "a:1", "--preset", "http", "--claim", "idle=1s,idle=2s"],
            "--claim idle is given more than once; see finale probe",
        ),
        (
            &["probe", "a:1", "--expect-bytes", "1", "--expect-until", "x"],
            "can't be used with '--expect-until <BYTES>'",
        ),
        (
            &["probe", "127.0.0.1:1", "--preset", "line", "--expect-until", ""],
            "the end of an answer has 1 to 64 bytes, and not 0; see finale probe --help",
        ),
        (&["probe", "a:1", "--on-stop", "x", "--pid", "1"], "can't be used with"),
        (&["probe", "http://a:1/b", "--preset", "http"], "'http://a:1/b' is a URL; write HOST:PORT, as a:1; see"),
        (&["probe", "https://a/b", "--preset", "http"], "is a URL; write HOST:PORT, as a:443, with --tls; see"),
        (
            &["probe", "a:1", "--preset", "http", "--pid", "2147483647"],
            "--pid 2147483647: it can't be stopped: No such",
        ),
        (
            &["probe", "a:1", "--preset", "http", "--claim", "idle=1s,drain=1s"],
            "--claim drain is checked only with a way to stop the server: --on-stop or --pid; see",
        ),
        (&["probe", "a:1", "--preset", "http", "--consequence", "x"], "missing argument: --slow-request <BYTES>"),
        (
            &["probe", "a:1", "--preset", "http", "--junit", "/nowhere/x"],
            "--junit /nowhere/x: can't write it: No such file or directory (os error 2); see finale probe",
        ),
    ];
    for (args, words) in mistakes {
        run(args).refused_with(2, words);
    }
}

#[test]
fn a_promise_that_no_chosen_case_of_a_probe_checks_is_refused() {
    let mistakes: [(&[&str], &str); 5] = [
        (
            &["probe", "a:1", "--preset", "line", "--case", "half-close", "--claim", "idle=5s"],
            "--claim idle is checked only by --case idle, connect-only, half-closed-hold,",
        ),
        (
            &["probe", "a:1", "--preset", "http", "--case", "connect-only", "--claim", "idle=5s"],
            "--claim idle is checked only by --case idle, half-closed-hold, vanish; choose one of them",
        ),
        (
            &["probe", "a:1", "--preset", "line", "--case", "reload", "--claim", "drain=5s", "--on-stop", "x"],
            "--claim drain is checked only by --case stop-in-flight, stop-race, stop-idle; choose one",
        ),
        (
            &["probe", "a:1", "--preset", "line", "--claim", "body=5s"],
            "--claim body is checked only with a request of HTTP: others have no body; see finale probe --help",
        ),
        (
            &["probe", "a:1", "--preset", "line", "--case", "idle", "--expect", "half-close"],
            "--expect half-close is checked only by --case half-close, pipeline-fin; choose one of them;",
        ),
    ];
    for (args, words) in mistakes {
        run(args).refused_with(2, words);
    }
}

#[test]
fn a_wrong_subcommand_is_refused_with_those_that_exist() {
    let mistakes: [(&[&str], &str); 6] = [
        (
            &["lesson", "two"],
            "unrecognized subcommand 'two'; choose from crash, pool, nodelay; see finale lesson --help",
        ),
        (&["lesson", "foo"], "'foo'; choose from crash, pool, nodelay; see finale lesson --help"),
        (
            &["lesson", "pol"],
            "'pol'; choose from crash, pool, nodelay; a similar subcommand exists: 'pool'; see finale",
        ),
        (&["help", "sing"], "unrecognized subcommand 'sing'; choose from lesson, serve, connect, bench, probe, sim,"),
        (
            &["help", "lesson", "two"],
            "unrecognized subcommand 'two'; choose from crash, pool, nodelay; see finale lesson",
        ),
        (&["bench", "many"], "unrecognized subcommand 'many'; choose from merge; see finale bench --help"),
    ];
    for (args, words) in mistakes {
        run(args).refused_with(2, words);
    }
}

#[test]
fn a_command_without_its_subcommand_prints_the_help_on_stderr() {
    let outcome = run(&[]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""));
    assert!(outcome.stderr.contains("Usage: finale"), "{outcome:?}");
}

#[test]
fn help_fits_the_terminal_and_describes_every_option() {
    for args in COMMANDS {
        for columns in [60, 80] {
            let args = [args, &["--help"]].concat();
            let child = command(&args).env("COLUMNS", columns.to_string()).spawn().expect("it starts");
            let outcome = finish(child);
            assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{args:?}");
            let long = outcome.stdout.lines().find(|line| line.chars().count() > columns);
            assert_eq!(long, None, "{args:?} at {columns} columns");
            let lines: Vec<_> = outcome.stdout.lines().collect();
            let options =
                lines.windows(2).filter(|pair| pair[0].trim_start().starts_with('-') && !pair[0].contains(':'));
            assert!(options.clone().count() > 0 && options.clone().all(|pair| !pair[1].is_empty()), "{args:?}");
        }
    }
    for args in [&["--version"] as &[_], &["serve", "-h"]] {
        let outcome = run(args);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn every_command_has_a_manual_page_with_its_name_and_options() {
    for args in COMMANDS {
        let page = run(&[&["man"], args].concat());
        assert_eq!((page.code, page.stderr.as_str()), (Some(0), ""), "{args:?}");
        let name = [&["finale"], args].concat().join("\\-");
        assert!(page.stdout.contains(&format!(".SH NAME\n{name} \\- ")), "{args:?}: {}", page.stdout);
        assert!(page.stdout.contains("\n.SH OPTIONS\n") && page.stdout.contains("\\-\\-color"), "{args:?}");
    }
    let page = run(&["man", "serve"]).stdout;
    for words in [".TH finale-serve 1", "\\-\\-grace", "SIGHUP restarts the server"] {
        assert!(page.contains(words), "{words}: {page}");
    }
}

#[test]
fn completions_name_the_commands_and_options_and_nothing_hidden() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let outcome = run(&["completions", shell]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{shell}");
        for word in ["nodelay", "half-close", "in-flight"] {
            assert!(outcome.stdout.contains(word), "{shell} does not complete {word}");
        }
        for word in ["leaves-unread", "parent"] {
            assert!(!outcome.stdout.contains(word), "{shell} completes {word}");
        }
    }
}

#[test]
fn bash_can_read_its_script_and_completes_a_subcommand() {
    let script = run(&["completions", "bash"]).stdout;
    let line = r#"eval "$1"; COMP_WORDS=(finale sta); COMP_CWORD=1; _finale finale sta finale; echo "${COMPREPLY[@]}""#;
    let Ok(output) = std::process::Command::new("bash").args(["-c", line, "bash", &script]).output() else {
        return; // There is no bash here.
    };
    assert_eq!(String::from_utf8_lossy(&output.stdout), "states\n", "{output:?}");
}

#[test]
fn colours_are_printed_on_request_and_never_on_a_pipe_by_themselves() {
    let refused = ["connect", "nowhere"];
    for (color, has_colors) in [("auto", false), ("never", false), ("always", true)] {
        for args in [&["--color", color, "states", "--help"] as &[_], &["serve", "--help", "--color", color]] {
            assert_eq!(run(args).stdout.contains('\x1b'), has_colors, "{args:?}");
        }
        let outcome = run(&[&refused[..], &["--color", color]].concat());
        assert_eq!((outcome.code, outcome.stderr.contains("\x1b[")), (Some(2), has_colors), "{outcome:?}");
    }
}
