//! A running example, and a real client if there is one.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A running example; it ends with the test.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) addr: SocketAddr,
    pub(crate) out: BufReader<ChildStdout>,
}

impl Program {
    pub(crate) fn start(name: &str, args: &[&str]) -> Self {
        let tests = std::env::current_exe().expect("a path");
        let path = tests.ancestors().nth(2).expect("target/PROFILE").join("examples").join(name);
        let spawned = Command::new(&path).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        let addr = line.trim().strip_prefix("listening on ").and_then(|addr| addr.parse().ok());
        Self { child, out, addr: addr.unwrap_or_else(|| panic!("no address in {line:?}")) }
    }

    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    }

    /// The next line that it says.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line");
        line
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client's output, unless it is not installed, which is said.
pub(crate) fn client(program: &str, args: &[&str]) -> Option<std::process::Output> {
    match Command::new(program).args(args).stdin(Stdio::null()).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: no {program} here");
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}
