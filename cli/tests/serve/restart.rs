//! `finale serve`: restarts without refusing a client, inherited sockets, and metrics.

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::Command;
use std::thread;

use crate::common::{command, finish, patient, run};
use crate::harness::{LINE, Load, Server, ask, is_gone, pass, shell, signal, upgraded_to, with_sockets};
use rustix::process::Signal;

#[test]
fn sigusr1_prints_the_metrics_of_all_shards_as_one_sum() {
    for shards in ["1", "3"] {
        let mut server = Server::start(env!("CARGO_BIN_EXE_finale"), &["--shards", shards]);
        for _ in 0..50 {
            ask(server.addr);
        }
        signal(server.successor, Signal::USR1);
        let mut numbers = Vec::new();
        while !numbers.last().is_some_and(|line: &String| line.contains("ms late at most")) {
            numbers.push(server.line());
        }
        let listeners = format!("{shards} listeners");
        for expected in ["50 accepted", "0 reset at the maximum of connections", "400 bytes read", &listeners] {
            assert!(numbers.iter().any(|line| line.trim() == expected), "{expected}: {numbers:?}");
        }
    }
}

#[test]
fn sigusr1_prints_the_metrics_as_one_json_object_on_request() {
    let mut server = Server::start(env!("CARGO_BIN_EXE_finale"), &["--shards", "2", "--json"]);
    (0..20).for_each(|_| ask(server.addr));
    signal(server.successor, Signal::USR1);
    let metrics: serde_json::Value = serde_json::from_str(&server.line()).expect("a line of JSON");
    let counts = ["accepted", "confirmed", "bytes_read", "listeners"].map(|name| metrics[name].as_u64());
    assert_eq!(counts, [Some(20), Some(20), Some(20 * 8), Some(2)], "{metrics}");
}

#[test]
fn a_quiet_server_restarts_without_a_word_and_reports_a_failure() {
    let (mut server, folder) = upgraded_to("#!/bin/sh\nexit 7\n", "quiet", &["-q"]);
    signal(server.successor, Signal::HUP);
    assert!(server.line().starts_with("finale: not restarted, this process continues to serve: "));
    fs::remove_dir_all(&folder).expect("it is ours");
}

#[test]
fn three_restarts_under_load_fail_no_connection() {
    restart_three_times_under_load(&[]);
}

#[test]
fn neither_do_three_restarts_of_two_shards() {
    restart_three_times_under_load(&["--shards", "2"]);
}

fn restart_three_times_under_load(args: &[&str]) {
    let mut server = Server::start(env!("CARGO_BIN_EXE_finale"), args);
    let load = Load::on(server.addr);
    load.go_on(200);
    for _ in 0..3 {
        server.restart();
        load.go_on(500);
    }
    assert!(server.child.wait().expect("it can be waited for").success(), "the first has gone");
    let done = load.stop();
    assert!(done >= 1700, "{done}");
}

#[test]
fn connections_from_before_the_restart_end_with_the_old_process() {
    let mut server = Server::start(env!("CARGO_BIN_EXE_finale"), &["-v", "--grace", "1h"]);
    let mut old = [(); 2].map(|()| patient(TcpStream::connect(server.addr).expect("it listens")));
    for old in &mut old {
        old.write_all(b"a question that takes its time").expect("connected");
    }
    ask(server.addr);
    server.line_with("clean");
    let line = server.restart();
    assert!(line.ends_with("serves; 2 connections left to this process\n"), "{line}");
    ask(server.addr);
    assert!(server.child.try_wait().expect("it is ours").is_none(), "it still has clients");
    for mut old in old {
        old.shutdown(Shutdown::Write).expect("connected");
        let mut answer = Vec::new();
        old.read_to_end(&mut answer).expect("no reset");
        assert_eq!(answer, LINE);
    }
    assert!(server.child.wait().expect("it can be waited for").success(), "now it has gone");
}

#[test]
fn a_server_that_is_stopped_while_the_new_process_starts_ends_that_too() {
    for ignore in ["", "trap '' TERM; "] {
        let script = format!("#!/bin/sh\n{ignore}echo $$ >&2\nexec sleep 1000\n");
        let (mut server, folder) = upgraded_to(&script, "restart-and-stop", &[]);
        signal(server.successor, Signal::HUP);
        // In either order: both processes have this stderr.
        let lines = [server.line(), server.line()];
        assert!(lines.iter().any(|line| line.starts_with("finale: restarting: starting /")), "{lines:?}");
        let new: Option<u32> = lines.iter().find_map(|line| line.trim_end().parse().ok());
        let new = new.expect("the number of the new process");
        signal(server.successor, Signal::TERM);
        assert_eq!(server.line(), "finale: not restarted: this process was stopped, and stops the new one, too\n");
        assert!(server.child.wait().expect("it can be waited for").success());
        assert!(is_gone(new), "{ignore}: it did not end");
        let mut rest = String::new();
        server.stderr.read_to_string(&mut rest).expect("it is text");
        assert_eq!(rest, "", "no process has this stderr any more");
        fs::remove_dir_all(&folder).expect("it is ours");
    }
}

/// The new process may have read the old certificate. It waits until this test writes to a pipe.
#[test]
fn a_restart_that_is_requested_during_another_one_follows_it() {
    for (name, end) in [("again", "exec \"$program\" \"$@\""), ("again-after-a-failure", "exit 7")] {
        let pipe = std::env::temp_dir().join(format!("finale-{name}-pipe-{}", std::process::id()));
        let (path, program) = (pipe.display(), env!("CARGO_BIN_EXE_finale"));
        let script = format!("#!/bin/sh\nread line <{path}\nprogram={program}\n{end}\n");
        shell("mkfifo \"$1\"", &[pipe.to_str().expect("text")]);
        let (mut server, folder) = upgraded_to(&script, name, &[]);
        signal(server.successor, Signal::HUP);
        server.line_with("restarting: starting /");
        for _ in 0..2 {
            signal(server.successor, Signal::HUP);
            server.line_with("restarting already");
        }
        // This waits until the script runs.
        let mut pipe_end = fs::OpenOptions::new().write(true).open(&pipe).expect("the script reads it");
        let copy = folder.join("copy");
        shell("ln -s \"$1\" \"$2\"", &[program, copy.to_str().expect("text")]);
        fs::rename(&copy, folder.join("finale")).expect("it replaces the script");
        pipe_end.write_all(b"\n").expect("the script reads it");
        if end == "exit 7" {
            server.line_with("not restarted");
        } else {
            // The line of the next process that it starts another may come before this one.
            server.successor_line();
        }
        server.successor_line();
        ask(server.addr);
        let rest = server.stop();
        assert_eq!(rest, "", "two requests are one");
        fs::remove_file(&pipe).and_then(|()| fs::remove_dir_all(&folder)).expect("they are ours");
    }
}

/// Descriptor 3 is the listening socket, 4 the stream on which a new process reports.
#[test]
fn only_the_whole_line_of_a_new_process_means_that_it_serves() {
    for (report, serves) in [
        ("READY=1\\n", true),
        ("READY=10\\n", false),
        ("READY=1\\n0", false),
        ("READY=1", false),
        ("XREADY=1\\n", false),
    ] {
        let script = format!("#!/bin/sh\nprintf '{report}' >&4\nexec 4>&-\nread line <&0\n");
        let (mut server, folder) = upgraded_to(&script, "ready", &[]);
        signal(server.successor, Signal::HUP);
        server.line();
        let line = server.line();
        let expected = if serves { "finale: process " } else { "finale: not restarted" };
        assert!(line.starts_with(expected), "{report}: {line}");
        fs::remove_dir_all(&folder).expect("it is ours");
        server.successor = server.child.id();
    }
}

/// `current` is switched from one release to the next, whose program then runs.
#[cfg(target_os = "linux")]
#[test]
fn an_upgrade_by_a_symbolic_link_is_started() {
    let folder = std::env::temp_dir().join(format!("finale-releases-{}", std::process::id()));
    let path = folder.to_str().expect("text");
    shell(
        "for v in 1 2; do mkdir -p \"$1/$v\" && cp \"$2\" \"$1/$v/finale\"; done; ln -s 1 \"$1/current\"",
        &[path, env!("CARGO_BIN_EXE_finale")],
    );
    let mut server = Server::start(folder.join("current/finale").to_str().expect("text"), &[]);
    shell("ln -sfn 2 \"$1/current\" && rm -r \"$1/1\"", &[path]);
    for _ in 0..2 {
        server.restart();
        let runs = fs::read_link(format!("/proc/{}/exe", server.successor)).expect("it runs");
        assert_eq!(runs, folder.join("2/finale"));
        ask(server.addr);
    }
    server.stop();
    fs::remove_dir_all(&folder).expect("it is ours");
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_that_was_started_from_a_descriptor_is_not_restarted() {
    for path in ["/proc/self/fd/9", "/dev/fd/9"] {
        let line = format!("exec 9<\"$0\"; exec {path} serve answer --listen 127.0.0.1:0");
        let mut server = Server::spawn(Command::new("sh").args(["-c", &line, env!("CARGO_BIN_EXE_finale")]));
        signal(server.successor, Signal::HUP);
        let line = server.line();
        assert!(line.starts_with("finale: not restarted") && line.contains("has no path"), "{line}");
        ask(server.addr);
        assert_eq!(server.stop(), "");
    }
}

/// A server with this many descriptors, all of which are in use.
#[cfg(target_os = "linux")]
#[test]
fn a_server_without_free_descriptors_restarts() {
    let limited = "ulimit -n 40; exec \"$0\" serve answer --listen 127.0.0.1:0";
    let mut server = Server::spawn(Command::new("sh").args(["-c", limited, env!("CARGO_BIN_EXE_finale")]));
    let idle: Vec<_> = (0..60).map(|_| TcpStream::connect(server.addr).expect("it has a queue")).collect();
    server.line_with("accept failed");
    server.restart();
    drop(idle);
    ask(server.addr);
}

/// With their LISTEN_PID the new process would take its own sockets for another's.
#[test]
fn a_server_that_found_sockets_of_another_process_restarts_with_its_own() {
    let mut command = command(&["serve", "answer", "--listen", "127.0.0.1:0"]);
    let mut server = Server::spawn(command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1"));
    server.restart();
    ask(server.addr);
    server.stop();
}

/// The number of the first passed descriptor, and the socket file that a process has to remove.
#[test]
fn what_the_environment_says_about_another_restart_is_not_passed_on() {
    let path = std::env::temp_dir().join(format!("finale-foreign-{}", std::process::id()));
    drop(UnixListener::bind(&path).expect("a new file"));
    let file = fs::metadata(&path).expect("it is there");
    let variable = format!("{}:{}:{}", file.dev(), file.ino(), path.display());
    let mut command = command(&["serve", "answer", "--listen", "127.0.0.1:0"]);
    let mut server = Server::spawn(command.env("LISTEN_FDS_FIRST_FD", "9").env("FINALE_SOCKET_FILE", variable));
    server.restart();
    ask(server.addr);
    server.stop();
    fs::remove_file(&path).expect("it is not removed");
}

#[test]
fn a_server_that_a_manager_has_started_restarts_with_its_sockets() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = socket.local_addr().expect("bound");
    let mut shell = Command::new("sh");
    shell.args(["-c", "LISTEN_PID=$$ exec \"$0\" serve answer --reuse-port", env!("CARGO_BIN_EXE_finale")]);
    let mut server = Server::spawn(&mut pass(shell, vec![socket.into()]));
    assert_eq!(server.addr, addr);
    let line = server.line();
    assert!(line.contains("--reuse-port has no effect"), "{line}");
    server.restart();
    server.restart();
    ask(addr);
    let rest = server.stop();
    assert!(!rest.contains("has no effect"), "said once: {rest}");
}

#[test]
fn a_restart_has_a_grace_of_its_own() {
    for (grace, restart_grace, goes_on) in [("0s", "1h", true), ("1h", "0s", false)] {
        let args = ["--grace", grace, "--restart-grace", restart_grace];
        let mut server = Server::start(env!("CARGO_BIN_EXE_finale"), &args);
        let mut old = patient(TcpStream::connect(server.addr).expect("it listens"));
        old.write_all(b"a question that takes its time").expect("connected");
        ask(server.addr);
        server.restart();
        if goes_on {
            old.shutdown(Shutdown::Write).expect("connected");
        }
        let mut answer = Vec::new();
        let end = old.read_to_end(&mut answer).map_err(|error| error.kind());
        let expected = if goes_on { Ok(LINE.len()) } else { Err(ErrorKind::ConnectionReset) };
        assert_eq!(end, expected, "{restart_grace}");
    }
}

/// nohup(1) starts a program so.
#[cfg(target_os = "linux")]
#[test]
fn a_hang_up_that_was_ignored_at_the_start_stays_ignored() {
    let ignored = "trap '' HUP; exec \"$0\" serve answer --listen 127.0.0.1:0";
    let mut server = Server::spawn(Command::new("sh").args(["-c", ignored, env!("CARGO_BIN_EXE_finale")]));
    signal(server.successor, Signal::HUP);
    ask(server.addr);
    signal(server.successor, Signal::USR1);
    let line = server.line();
    assert!(!line.contains("restarting"), "{line}");
    let rest = server.stop();
    assert!(!rest.contains("restarting"), "{rest}");
}

#[test]
fn a_service_that_would_end_with_its_main_process_is_not_restarted() {
    let shell = "SYSTEMD_EXEC_PID=$$ exec \"$0\" serve answer --listen 127.0.0.1:0";
    let mut server = Server::spawn(Command::new("sh").args(["-c", shell, env!("CARGO_BIN_EXE_finale")]));
    signal(server.successor, Signal::HUP);
    let line = server.line();
    assert!(line.starts_with("finale: not restarted") && line.contains("Type=notify"), "{line}");
    ask(server.addr);
    assert_eq!(server.stop(), "");
}

#[test]
fn a_restart_that_fails_leaves_the_server_as_it_was() {
    let (mut server, folder) = upgraded_to("#!/bin/sh\nexit 7\n", "restart", &[]);
    let program = folder.join("finale");
    signal(server.successor, Signal::HUP);
    server.line();
    let line = server.line();
    assert!(
        line.starts_with("finale: not restarted, this process continues to serve: the new process ended before it was ready: exit status: 7"),
        "{line}"
    );
    ask(server.addr);
    fs::remove_file(&program).expect("it is there");
    signal(server.successor, Signal::HUP);
    server.line();
    let line = server.line();
    assert!(
        line.starts_with("finale: not restarted, this process continues to serve: /") && line.contains("No such file"),
        "{line}"
    );
    ask(server.addr);
    fs::remove_dir_all(&folder).expect("it is ours");
}

#[test]
fn sockets_that_are_passed_are_served_whatever_their_kind() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = tcp.local_addr().expect("bound");
    let path = std::env::temp_dir().join(format!("finale-inherited-{}", std::process::id()));
    let unix = UnixListener::bind(&path).expect("a new file");
    let mut command = with_sockets(vec![tcp.into(), unix.into()]);
    let mut child = command.args(["--user-timeout", "5s"]).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().expect("a line").expect("text");
    assert_eq!(line(), format!("listening on {addr}"));
    assert_eq!(line(), format!("listening on unix:{}", path.display()));
    ask(addr);
    let mut stream = UnixStream::connect(&path).expect("it listens");
    stream.shutdown(Shutdown::Write).expect("connected");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("no reset");
    assert_eq!(answer, LINE);
    signal(child.id(), Signal::TERM);
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(0));
    assert!(outcome.stderr.contains("--user-timeout has no effect on a Unix domain socket"), "{outcome:?}");
    assert!(path.exists(), "the file is its manager's");
    fs::remove_file(&path).expect("it is there");
}

#[test]
fn a_descriptor_that_is_no_listener_is_refused_in_one_line() {
    let file: OwnedFd = fs::File::open("/dev/null").expect("it is there").into();
    finish(with_sockets(vec![file]).spawn().expect("it starts")).refused_with(2, "LISTEN_FDS");
}

#[test]
fn a_socket_file_is_removed_by_the_last_process_that_serves_and_not_at_a_restart() {
    let path = std::env::temp_dir().join(format!("finale-serve-{}", std::process::id()));
    let listen = format!("unix:{}", path.display());
    let mut child = command(&["serve", "answer", "--listen", &listen]).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it is text");
    assert_eq!(line, format!("listening on {listen}\n"));
    run(&["serve", "answer", "--listen", &listen]).refused_with(1, "Address already in use");
    let outcome = crate::common::run_with(&["connect", "--half-close", &listen], b"question".to_vec());
    assert_eq!(outcome.stdout.as_bytes(), LINE, "{outcome:?}");

    signal(child.id(), Signal::HUP);
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut printed = String::new();
    stderr.read_line(&mut printed).and_then(|_| stderr.read_line(&mut printed)).expect("it is text");
    let successor =
        printed.split("process ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("a successor");
    assert_eq!(finish(child).code, Some(0));
    let outcome = crate::common::run_with(&["connect", "--half-close", &listen], b"question".to_vec());
    assert_eq!(outcome.stdout.as_bytes(), LINE, "{outcome:?}");
    signal(successor, Signal::TERM);
    let begun = std::time::Instant::now();
    while path.exists() {
        assert!(begun.elapsed() < crate::common::PATIENCE, "the successor has removed it");
        thread::yield_now();
    }
}

/// The parent plays the old process. It ends the new one at the moment at which that has become
/// ready, or it has gone, or it has not looked yet and another has sent the signal.
#[test]
fn a_new_process_leaves_the_socket_file_to_an_old_one_that_has_ended_it() {
    let folder = std::env::temp_dir().join(format!("finale-taken-back-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a new folder");
    let (path, manager) = (folder.join("socket"), folder.join("manager"));
    let messages = UnixDatagram::bind(&manager).expect("a new file");
    for (ends_it, has_gone) in [(true, false), (true, true), (false, true), (false, false)] {
        let listener = UnixListener::bind(&path).expect("a new file");
        let file = fs::metadata(&path).expect("it is there");
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        let mut command = with_sockets(vec![listener.try_clone().expect("a copy").into(), theirs.into()]);
        command.env("LISTEN_FDNAMES", "finale:finale-ready").env("NOTIFY_SOCKET", &manager);
        command.env("FINALE_SOCKET_FILE", format!("{}:{}:{}", file.dev(), file.ino(), path.display()));
        let child = command.spawn().expect("it starts");
        drop(command);
        let mut line = [0; 8];
        ours.read_exact(&mut line).expect("it serves");
        assert_eq!(&line, b"READY=1\n");
        if ends_it {
            let _ = ours.write_all(b"\n");
        }
        let ours = Some(ours).filter(|_| !has_gone);
        signal(child.id(), Signal::TERM);
        assert_eq!(finish(child).code, Some(0));
        assert_eq!(path.exists(), ends_it, "{ends_it} {has_gone}");
        messages.set_nonblocking(true).expect("it is open");
        let stopping = messages.recv(&mut [0; 64]).is_ok();
        assert_eq!(stopping, !ends_it, "the old process is the service still, or it is not");
        drop((ours, listener));
        let _ = fs::remove_file(&path);
    }
    fs::remove_dir_all(&folder).expect("it is ours");
}

#[cfg(target_os = "linux")]
#[test]
fn an_abstract_name_is_printed_and_served() {
    let listen = format!("unix:@finale-serve-{}", std::process::id());
    let mut child = command(&["serve", "answer", "--listen", &listen]).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it is text");
    assert_eq!(line, format!("listening on {listen}\n"));
    let outcome = crate::common::run_with(&["connect", "--half-close", &listen], b"question".to_vec());
    assert_eq!(outcome.stdout.as_bytes(), LINE, "{outcome:?}");
    assert!(!outcome.stderr.contains("TIME_WAIT"), "{outcome:?}");
    signal(child.id(), Signal::TERM);
    assert_eq!(finish(child).code, Some(0));
}
