//! A server that runs for the time of a test.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use socket2::SockRef;

/// Far more than anything here takes; without it a silent server would stop the test for ever.
const LIMIT: Duration = Duration::from_secs(60);

/// One of the servers that are compared.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Built by cargo along with the test; the others are built by the script `build`, where that is possible.
    pub(crate) program: Option<&'static str>,
    /// Whether a silent client keeps the others waiting.
    pub(crate) one_at_a_time: bool,
}

impl Peer {
    /// Where its program is, if it was built.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers").join(self.name);
        self.program.map(PathBuf::from).or_else(|| built.exists().then_some(built))
    }

    /// Starts it with these arguments; nothing if it was not built.
    pub(crate) fn start(&self, args: &[&str]) -> Option<Running> {
        self.path().map(|path| Running::start(&path, args))
    }
}

pub(crate) struct Running {
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl Running {
    fn start(path: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(path).args(args).stdout(Stdio::piped()).spawn().expect("the peer starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a first line");
        let addr = line.trim_end().strip_prefix("listening on ").and_then(|addr| addr.parse().ok());
        Self { child, addr: addr.unwrap_or_else(|| panic!("{}: first line {line:?}", path.display())) }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).expect("connected");
        stream.set_read_timeout(Some(LIMIT)).expect("set");
        stream.set_write_timeout(Some(LIMIT)).expect("set");
        stream
    }

    /// The most memory that it has held so far.
    pub(crate) fn most_memory_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line for the peak");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Signals it to end, and waits until it has.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("signalled");
        self.child.wait().expect("it ended")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Closes with a reset instead of a FIN.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("set");
    drop(stream);
}
