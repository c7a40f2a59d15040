//! A `finale serve` whose stderr is read line by line, clients that half-close, and programs that
//! take its place.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crate::common::{command, patient};
use command_fds::{CommandFdExt as _, FdMapping};
use rustix::process::{Pid, Signal, kill_process};

pub(crate) const LINE: &[u8; 64] = b"finale: 64 bytes that say nothing but that the answer is whole.\n";

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).expect("a pid is an i32")).expect("a pid is not zero")
}

pub(crate) fn signal(process: u32, signal: Signal) {
    kill_process(pid(process), signal).expect("it runs");
}

/// Whether there is no such process any more.
pub(crate) fn is_gone(process: u32) -> bool {
    kill_process(pid(process), Signal::CHILD).is_err()
}

/// A server whose stderr is read line by line. When this is dropped the last successor is stopped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) stderr: BufReader<ChildStderr>,
    pub(crate) addr: SocketAddr,
    /// The process that serves.
    pub(crate) successor: u32,
}

impl Server {
    pub(crate) fn start(program: &str, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(["serve", "answer", "--listen", "127.0.0.1:0"]).args(args);
        Self::spawn(&mut command)
    }

    /// What this command starts.
    #[track_caller]
    pub(crate) fn spawn(command: &mut Command) -> Self {
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
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).expect("it is text");
        line
    }

    /// Reads lines until one contains this, and returns that line.
    #[track_caller]
    pub(crate) fn line_with(&mut self, text: &str) -> String {
        loop {
            let line = self.line();
            assert_ne!(line, "", "stderr ended without a line with {text:?}");
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Stops the process that serves, waits until all have ended, and returns the rest of stderr.
    #[track_caller]
    pub(crate) fn stop(mut self) -> String {
        signal(self.successor, Signal::TERM);
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).expect("it is text");
        assert!(self.child.wait().expect("it is ours").success());
        self.successor = self.child.id();
        rest
    }

    /// Makes the process that serves start its successor, and returns the line that reports it. All
    /// share one stderr.
    #[track_caller]
    pub(crate) fn restart(&mut self) -> String {
        signal(self.successor, Signal::HUP);
        let line = self.line_with("restart");
        assert!(line.contains(": restarting: starting /"), "{line}");
        self.successor_line()
    }

    /// Waits until a successor serves, and returns the line that reports it.
    #[track_caller]
    pub(crate) fn successor_line(&mut self) -> String {
        let line = self.line_with(": process ");
        let pid = line.split_once(": process ").and_then(|(_, rest)| rest.split(' ').next());
        self.successor = pid.and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("no successor: {line}"));
        line
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.successor == self.child.id() {
            let _ = self.child.kill();
        } else {
            let _ = kill_process(pid(self.successor), Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Half-closing connections, one after the other, until it is stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn on(addr: SocketAddr) -> Self {
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
    pub(crate) fn go_on(&self, count: u64) {
        let until = self.done.load(Ordering::Relaxed) + count;
        while self.done.load(Ordering::Relaxed) < until && !self.threads.iter().any(JoinHandle::is_finished) {
            thread::yield_now();
        }
    }

    #[track_caller]
    pub(crate) fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no connection has failed");
        }
        self.done.load(Ordering::Relaxed)
    }
}

pub(crate) fn ask(addr: SocketAddr) {
    let mut stream = patient(TcpStream::connect(addr).expect("no client is refused"));
    stream.write_all(b"question").expect("no client is reset");
    stream.shutdown(Shutdown::Write).expect("no client is reset");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("no client is reset");
    assert_eq!(answer, LINE, "the answer is whole");
}

/// A server from its own copy of the program in its own folder. The copy is then replaced by this
/// script.
pub(crate) fn upgraded_to(script: &str, folder: &str, args: &[&str]) -> (Server, PathBuf) {
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
pub(crate) fn shell(line: &str, args: &[&str]) {
    let status = Command::new("sh").args(["-c", line, "sh"]).args(args).status().expect("a shell");
    assert!(status.success(), "{line}");
}

/// A server with these descriptors, passed as a service manager does it.
pub(crate) fn with_sockets(sockets: Vec<OwnedFd>) -> Command {
    pass(command(&["serve", "answer"]), sockets)
}

/// This command with these descriptors.
pub(crate) fn pass(mut command: Command, sockets: Vec<OwnedFd>) -> Command {
    command.env("LISTEN_FDS", sockets.len().to_string());
    let mappings = sockets.into_iter().zip(3..).map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
    command.fd_mappings(mappings.collect()).expect("no two are the same");
    command
}
