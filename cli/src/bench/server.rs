//! A server of our own: `finale serve` as a child process.
//!
//! Invariant: when this is dropped the server gets SIGTERM and is waited for, on every path. If we
//! are killed, it ends by itself.

use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::errors::Error;

/// A server that runs and listens.
pub(super) struct Server {
    child: Child,
    /// Held open, since the server may print more.
    _stdout: BufReader<ChildStdout>,
    pub(super) addr: SocketAddr,
}

impl Server {
    /// `finale serve` with these arguments, on a free port.
    pub(super) fn start(arguments: &[String]) -> Result<Self, Error> {
        let failed = |source| Error::io("start the server", source);
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
            .arg("serve")
            .args(arguments)
            .args(["--listen", "127.0.0.1:0", "--grace", "0s", "--parent", &std::process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Ctrl-C must not reach the server: it serves until the connections in flight have
            // closed.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?);
        let mut line = String::new();
        let read = stdout.read_line(&mut line);
        let addr = line.strip_prefix("listening on ").and_then(|addr| addr.trim_end().parse().ok());
        let server = Self { child, _stdout: stdout, addr: addr.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))) };
        // If it failed it has printed why on stderr. It is waited for when it is dropped.
        match (read, addr) {
            (Ok(_), Some(_)) => Ok(server),
            (Ok(_), None) => Err(failed(io::Error::other("it ended without printing its address"))),
            (Err(error), _) => Err(failed(error)),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A child that was not waited for keeps its number, so no other process gets the signal.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
