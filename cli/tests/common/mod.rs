//! Runs the binary for the tests. Nothing here sleeps; what could hang is cut off after
//! [`PATIENCE`].
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod certificates;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Much more than a loaded machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_finale"));
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a line of the shell, in which $FINALE is the program.
#[track_caller]
pub(crate) fn shell(line: &str) -> Outcome {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env("FINALE", env!("CARGO_BIN_EXE_finale")).env_remove("RUST_LOG").stdin(Stdio::null());
    finish(shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("there is a shell"))
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) fn last_line(&self) -> &str {
        self.stderr.lines().last().unwrap_or_default()
    }

    /// A refusal: nothing on stdout, one line on stderr.
    #[track_caller]
    pub(crate) fn refused_with(&self, code: i32, word: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(self.stderr.starts_with("finale: ") && self.stderr.contains(word), "{word}: {self:?}");
    }
}

/// Runs it with this on stdin and waits for it.
#[track_caller]
pub(crate) fn run_with(args: &[&str], stdin: Vec<u8>) -> Outcome {
    let mut child = command(args).stdin(Stdio::piped()).spawn().expect("it starts");
    let mut input = child.stdin.take().expect("stdin is a pipe");
    thread::spawn(move || {
        // The program may end before it has read everything.
        let _ = input.write_all(&stdin);
    });
    finish(child)
}

#[track_caller]
pub(crate) fn run(args: &[&str]) -> Outcome {
    finish(command(args).spawn().expect("it starts"))
}

#[track_caller]
pub(crate) fn finish(mut child: Child) -> Outcome {
    let pid = pid(&child);
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = patiently(pid, move || child.wait().expect("it can be waited for"));
    Outcome {
        code: status.code(),
        stdout: stdout.join().expect("stdout is text"),
        stderr: stderr.join().expect("stderr is text"),
    }
}

fn collect(stream: Option<impl std::io::Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut stream) = stream {
            stream.read_to_string(&mut text).expect("it is text");
        }
        text
    })
}

pub(crate) fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a pid is an i32")).expect("a pid is not zero")
}

/// Waits for a child, and kills it when that takes too long.
#[track_caller]
fn patiently(pid: Pid, wait: impl FnOnce() -> ExitStatus + Send + 'static) -> ExitStatus {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let _ = sender.send(wait());
    });
    match receiver.recv_timeout(PATIENCE) {
        Ok(status) => status,
        Err(RecvTimeoutError::Timeout) => {
            let _ = kill_process(pid, Signal::KILL);
            panic!("it did not end within {PATIENCE:?}");
        }
        Err(RecvTimeoutError::Disconnected) => panic!("it could not be waited for"),
    }
}

/// A running `finale serve`, killed when dropped.
pub(crate) struct Server {
    child: Option<Child>,
    pub(crate) addr: SocketAddr,
    stderr: Option<JoinHandle<String>>,
}

impl Server {
    /// On a free port.
    #[track_caller]
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut child = command(&["serve", "--listen", "127.0.0.1:0"]).args(args).spawn().expect("it starts");
        let stderr = collect(child.stderr.take());
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
        let addr = line.strip_prefix("listening on ").and_then(|addr| addr.trim_end().parse().ok());
        Self { child: Some(child), addr: addr.expect("the line ends with the address"), stderr: Some(stderr) }
    }

    #[track_caller]
    pub(crate) fn connect(&self) -> TcpStream {
        patient(TcpStream::connect(self.addr).expect("it listens"))
    }

    #[track_caller]
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(pid(child), signal).expect("it runs");
    }

    /// Tries until no process listens any more.
    #[track_caller]
    pub(crate) fn wait_until_closed(&self) {
        let begun = std::time::Instant::now();
        while TcpStream::connect(self.addr).is_ok() {
            assert!(begun.elapsed() < PATIENCE, "it still listens");
            thread::yield_now();
        }
    }

    /// Waits for its end: exit code and stderr.
    #[track_caller]
    pub(crate) fn finish(mut self) -> (Option<i32>, String) {
        let mut child = self.child.take().expect("it runs");
        let status = patiently(pid(&child), move || child.wait().expect("it can be waited for"));
        let stderr = self.stderr.take().expect("taken once").join().expect("stderr is text");
        (status.code(), stderr)
    }

    /// Stops it, and expects that it printed nothing on stderr.
    #[track_caller]
    pub(crate) fn stop_quietly(self) {
        self.signal(Signal::TERM);
        assert_eq!(self.finish(), (Some(0), String::new()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A stream whose calls fail after [`PATIENCE`] instead of hanging.
pub(crate) fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
    stream.set_write_timeout(Some(PATIENCE)).expect("the time is not zero");
    stream
}

/// Closing it will send a reset.
pub(crate) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("linger can be set");
    drop(stream);
}
