//! SIGHUP to a `finale serve` that has a controlling terminal.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command};

use crate::harness::{Server, ask, signal};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// A program whose controlling terminal is one of a pair, and which leads its session
/// (`setsid --ctty`).
struct Session {
    child: Child,
    terminal: BufReader<File>,
}

impl Session {
    fn start(program: &[&str]) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&terminal).and_then(|()| unlockpt(&terminal)).expect("it is ours");
        let name = ptsname(&terminal, Vec::new()).expect("it has a name").into_string().expect("text");
        let end = || fs::OpenOptions::new().read(true).write(true).open(&name).expect("it is open");
        let mut command = Command::new("setsid");
        command.arg("--ctty").args(program).stdin(end()).stdout(end()).stderr(end());
        let child = command.env_remove("RUST_LOG").env("NO_COLOR", "1").spawn().expect("setsid is there");
        Self { child, terminal: BufReader::new(File::from(terminal)) }
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.terminal.read_line(&mut line).expect("it is text");
        line.trim_end().to_owned()
    }

    #[track_caller]
    fn close_and_expect_the_end(mut self) {
        drop(self.terminal);
        assert!(self.child.wait().expect("it is ours").success());
    }
}

/// Where the server listens.
fn address(line: &str) -> Option<SocketAddr> {
    line.strip_prefix("listening on ")?.parse().ok()
}

const SERVER: [&str; 5] = [env!("CARGO_BIN_EXE_finale"), "serve", "answer", "--listen", "127.0.0.1:0"];

#[test]
fn a_server_whose_terminal_is_closed_ends() {
    let mut session = Session::start(&SERVER);
    assert!(address(&session.line()).is_some());
    session.close_and_expect_the_end();
}

#[test]
fn a_server_that_leads_the_session_of_its_terminal_is_not_restarted() {
    let mut session = Session::start(&SERVER);
    let addr = address(&session.line()).expect("an address");
    signal(session.child.id(), Signal::HUP);
    let line = session.line();
    assert!(line.starts_with("finale: not restarted") && line.contains("its terminal"), "{line}");
    ask(addr);
    session.close_and_expect_the_end();
}

/// The shell leads the session, prints the number of the server, and lasts until the end of the
/// terminal.
#[test]
fn a_server_that_a_shell_of_the_terminal_has_started_is_restarted() {
    let line = "trap 'exit 0' HUP; \"$@\" & echo $!; cat";
    let mut session = Session::start(&[&["sh", "-c", line, "sh"], &SERVER[..]].concat());
    // In either order.
    let lines = [session.line(), session.line()];
    let server = lines.iter().find_map(|line| line.parse().ok()).expect("a number");
    let addr = lines.iter().find_map(|line| address(line)).expect("an address");
    signal(server, Signal::HUP);
    // The new process prints its address, too.
    let mut report = || {
        let line = session.line();
        if line.starts_with("listening on ") { session.line() } else { line }
    };
    let line = report();
    assert!(line.starts_with("finale: restarting: starting /"), "{line}");
    let line = report();
    assert!(line.ends_with(" serves; 0 connections left to this process"), "{line}");
    ask(addr);
    session.close_and_expect_the_end();
}

#[test]
fn a_server_that_leads_a_session_without_a_terminal_is_restarted() {
    let mut server = Server::spawn(Command::new("setsid").args(SERVER));
    server.restart();
    ask(server.addr);
    server.stop();
}
