//! `finale serve`: restarts without refusing a client, inherited sockets, and metrics.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crate::common::{command, finish, patient, run};
use command_fds::{CommandFdExt as _, FdMapping};
use rustix::process::{Pid, Signal, kill_process};

const LINE: &[u8; 64] = b"finale: 64 bytes that say nothing but that the answer is whole.\n";

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid is an i32")).expect("a pid is not zero");
    kill_process(pid, signal).expect("it runs");
}

/// A server whose stderr is read line by line. When this is dropped the last successor is stopped.
struct Server {
    child: Child,
    stderr: BufReader<ChildStderr>,
    addr: SocketAddr,
    /// The process that serves.
    successor: u32,
}

impl Server {
    fn start(program: &str, args: &[&str]) -> Self {
        let mut command = std::process::Command::new(program);
        command.args(["serve", "answer", "--listen", "127.0.0.1:0"]).args(args);
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.env_remove("RUST_LOG").spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it says where it listens");
        let addr = line.trim_end().strip_prefix("listening on ").expect("the line").parse().expect("an address");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let successor = child.id();
        Self { child, stderr, addr, successor }
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).expect("it is text");
        line
    }

    /// Makes the process that serves start its successor. All share one stderr.
    #[track_caller]
    fn restart(&mut self) {
        signal(self.successor, Signal::HUP);
        let line = self.line();
        assert!(line.starts_with("finale: restarting: starting /"), "{line}");
        let line = self.line();
        let pid = line.strip_prefix("finale: process ").and_then(|rest| rest.split(' ').next());
        self.successor = pid.and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("no successor: {line}"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.successor == self.child.id() {
            let _ = self.child.kill();
        } else {
            signal(self.successor, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Half-closing connections, one after the other, until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(addr: SocketAddr) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..4).map(|_| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    ask(addr);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        Self { threads: threads.collect(), stop, done }
    }

    /// Waits until this many more are done.
    fn go_on(&self, count: u64) {
        let until = self.done.load(Ordering::Relaxed) + count;
        while self.done.load(Ordering::Relaxed) < until && !self.threads.iter().any(JoinHandle::is_finished) {
            thread::yield_now();
        }
    }

    #[track_caller]
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no connection has failed");
        }
        self.done.load(Ordering::Relaxed)
    }
}

fn ask(addr: SocketAddr) {
    let mut stream = patient(TcpStream::connect(addr).expect("no client is refused"));
    stream.write_all(b"question").expect("no client is reset");
    stream.shutdown(Shutdown::Write).expect("no client is reset");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("no client is reset");
    assert_eq!(answer, LINE, "the answer is whole");
}

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
    std::fs::remove_dir_all(&folder).expect("it is ours");
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
fn a_connection_from_before_the_restart_ends_with_the_old_process() {
    let mut server = Server::start(env!("CARGO_BIN_EXE_finale"), &["--grace", "1h"]);
    let mut old = patient(TcpStream::connect(server.addr).expect("it listens"));
    old.write_all(b"a question that takes its time").expect("connected");
    ask(server.addr);
    server.restart();
    ask(server.addr);
    assert!(server.child.try_wait().expect("it is ours").is_none(), "it still has a client");
    old.shutdown(Shutdown::Write).expect("connected");
    let mut answer = Vec::new();
    old.read_to_end(&mut answer).expect("no reset");
    assert_eq!(answer, LINE);
    assert!(server.child.wait().expect("it can be waited for").success(), "now it has gone");
}

/// A server from its own copy of the program in its own folder. The copy is then replaced by this
/// script.
fn upgraded_to(script: &str, folder: &str, args: &[&str]) -> (Server, PathBuf) {
    let folder = std::env::temp_dir().join(format!("finale-{folder}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a new folder");
    let program = folder.join("finale");
    shell(r#"cp "$1" "$2""#, &[env!("CARGO_BIN_EXE_finale"), program.to_str().expect("text")]);
    let server = Server::start(program.to_str().expect("text"), args);
    std::fs::remove_file(&program).expect("it is there");
    shell(r#"printf %s "$1" > "$2" && chmod +x "$2""#, &[script, program.to_str().expect("text")]);
    (server, folder)
}

/// Writes a program in a process of its own. A child that another test starts at the same time
/// would inherit our descriptor, and the program could not be run while it has it ("Text file
/// busy").
fn shell(line: &str, args: &[&str]) {
    let status = std::process::Command::new("sh").args(["-c", line, "sh"]).args(args).status().expect("a shell");
    assert!(status.success(), "{line}");
}

#[test]
fn a_server_that_is_stopped_while_the_new_process_starts_stops_that_too() {
    let (mut server, folder) =
        upgraded_to("#!/bin/sh\necho $NOTIFY_SOCKET >&2\nexec sleep 1000\n", "restart-and-stop", &[]);
    signal(server.successor, Signal::HUP);
    assert!(server.line().starts_with("finale: restarting: starting /"));
    let notify = server.line();
    let notify = std::path::Path::new(notify.trim_end());
    assert!(notify.exists(), "{notify:?}");
    signal(server.successor, Signal::TERM);
    assert_eq!(server.line(), "finale: not restarted: this process was stopped, and stops the new one, too\n");
    assert!(server.child.wait().expect("it can be waited for").success());
    let mut rest = String::new();
    server.stderr.read_to_string(&mut rest).expect("it is text");
    assert_eq!(rest, "", "no process has this stderr any more");
    assert!(!notify.exists(), "nothing is left over");
    std::fs::remove_dir_all(&folder).expect("it is ours");
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
    std::fs::remove_file(&program).expect("it is there");
    signal(server.successor, Signal::HUP);
    server.line();
    let line = server.line();
    assert!(
        line.starts_with("finale: not restarted, this process continues to serve: /") && line.contains("No such file"),
        "{line}"
    );
    ask(server.addr);
    std::fs::remove_dir_all(&folder).expect("it is ours");
}

/// A server with these descriptors, passed as a service manager does it.
fn with_sockets(sockets: Vec<OwnedFd>) -> std::process::Command {
    let mut command = command(&["serve", "answer"]);
    command.env("LISTEN_FDS", sockets.len().to_string());
    let mappings = sockets.into_iter().zip(3..).map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
    command.fd_mappings(mappings.collect()).expect("no two are the same");
    command
}

#[test]
fn sockets_that_are_passed_are_served_whatever_their_kind() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = tcp.local_addr().expect("bound");
    let path = std::env::temp_dir().join(format!("finale-inherited-{}", std::process::id()));
    let unix = UnixListener::bind(&path).expect("a new file");
    let mut child = with_sockets(vec![tcp.into(), unix.into()]).spawn().expect("it starts");
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
    assert_eq!(finish(child).code, Some(0));
    assert!(path.exists(), "the file is its manager's");
    std::fs::remove_file(&path).expect("it is there");
}

#[test]
fn a_descriptor_that_is_no_listener_is_refused_in_one_line() {
    let file: OwnedFd = std::fs::File::open("/dev/null").expect("it is there").into();
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
