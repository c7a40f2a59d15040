//! A server as a child process on one core, for the small comparisons.

use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running server that has printed where it listens. It ends with this value.
#[derive(Debug)]
pub struct Pinned {
    process: Child,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Pinned {
    /// Starts it on the first core.
    ///
    /// # Errors
    /// If it can't be started, or its first line is not `listening on ADDRESS`.
    pub fn start<S: AsRef<std::ffi::OsStr>>(
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
    ) -> io::Result<Self> {
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(program).args(arguments).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut line)?;
        let addr = line.trim_end().strip_prefix("listening on ").and_then(|addr| addr.parse().ok());
        let addr = addr.ok_or_else(|| wrong(format!("{} printed {line:?}", program.display())))?;
        Ok(Self { process, addr })
    }

    /// The number of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ends it with SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// If there is no such process, or it can't be waited for.
    pub fn terminate(mut self) -> io::Result<()> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.process), rustix::process::Signal::TERM)?;
        self.process.wait().map(drop)
    }

    /// The CPU time of all its threads.
    ///
    /// # Errors
    /// If the kernel does not count it.
    pub fn cpu_ns(&self) -> io::Result<u64> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process.id()))?;
        let time = |thread: io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            let time = stat.split(' ').next().and_then(|time| time.parse::<u64>().ok());
            time.ok_or_else(|| wrong(format!("the kernel counts no time: {stat:?}")))
        };
        threads.map(time).sum()
    }
}

/// An answer that is not as it should be.
#[must_use]
pub fn wrong(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The middle value; NaN of none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
