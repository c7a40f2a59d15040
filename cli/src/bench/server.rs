//! A server of our own: `finale serve` as a child process.
//!
//! Invariant: it is asked to end and waited for when this is dropped, on every path; and it ends by
//! itself when we are killed.

use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::trouble::Trouble;

/// It runs, and listens.
pub(super) struct Server {
    child: Child,
    /// Held open: it may want to say more.
    _stdout: BufReader<ChildStdout>,
    pub(super) addr: SocketAddr,
}

impl Server {
    /// `finale serve` with these arguments, on a free port.
    pub(super) fn start(arguments: &[String]) -> Result<Self, Trouble> {
        let trouble = |source| Trouble::io("start the server", source);
        let program = std::env::current_exe().map_err(trouble)?;
        let mut child = Command::new(program)
            .arg("serve")
            .args(arguments)
            .args(["--listen", "127.0.0.1:0", "--grace", "0s", "--parent", &std::process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Ctrl-C is for us: the server goes on until the connections in flight are dealt with.
            .process_group(0)
            .spawn()
            .map_err(trouble)?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or_else(|| trouble(io::ErrorKind::BrokenPipe.into()))?);
        let mut line = String::new();
        let read = stdout.read_line(&mut line);
        let addr = line.strip_prefix("listening on ").and_then(|addr| addr.trim_end().parse().ok());
        let server = Self { child, _stdout: stdout, addr: addr.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))) };
        // It has said why on stderr, and is waited for when it is dropped.
        match (read, addr) {
            (Ok(_), Some(_)) => Ok(server),
            (Ok(_), None) => Err(trouble(io::Error::other("it ended without a word of where it listens"))),
            (Err(error), _) => Err(trouble(error)),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A child that was not waited for keeps its number, so that nobody else is asked to end.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
