//! The process that takes the place of this one at a restart: its start, and the wait until it
//! serves.
//!
//! Invariant: it serves, or it is gone. A process that fails, hangs, or whose predecessor is
//! stopped meanwhile is ended, by SIGKILL if SIGTERM does not do it.

use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt as _, FdMapping};
use finale::Waker;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::inherit::{ENDED, FIRST, READY, READY_LINE, SOCKET_FILE};
use super::sockets::Sockets;

/// A new process that is not ready by then has hung.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Between SIGTERM and SIGKILL.
const KILL: Duration = Duration::from_secs(1);
/// How often to check whether it has died, or has to.
const CHECK: Duration = Duration::from_millis(50);
/// Between attempts to start it without enough descriptors.
const TRY: Duration = Duration::from_millis(10);
/// The pipe by which the standard library learns whether a program was started, and a reserve of one.
const SPARE: usize = 3;

/// The path by which this process was started: an upgrade may have put another file there, or
/// have changed a symbolic link on the way.
///
/// # Errors
/// If it has none, as a program that was started from a descriptor.
pub(super) fn own_path() -> Result<PathBuf, String> {
    let path = invoked_path().map_err(|error| format!("the path of this program can't be found: {error}"))?;
    if path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd") {
        return Err("this program was started from a descriptor and has no path".to_owned());
    }
    Ok(path)
}

#[cfg(target_os = "linux")]
fn invoked_path() -> io::Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    // AT_EXECFN of getauxval(3): the argument of execve(2), with the links in it.
    let path = std::ffi::OsStr::from_bytes(rustix::param::linux_execfn().to_bytes());
    std::path::absolute(path)
}

#[cfg(not(target_os = "linux"))]
fn invoked_path() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// The descriptors of a new process, opened in advance: a restart must also work for a server that
/// has no descriptor left, perhaps to get another limit.
pub(super) struct Reserve {
    sockets: Vec<OwnedFd>,
    ready: (UnixStream, UnixStream),
    spare: Vec<UnixStream>,
}

impl Reserve {
    pub(super) fn new(sockets: &Sockets) -> io::Result<Self> {
        let (sockets, ready) = (sockets.copies()?, UnixStream::pair()?);
        // Each descriptor of the new process may have to be moved to another number.
        let spare = (0..sockets.len() + SPARE).map(|_| ready.0.try_clone()).collect::<Result<_, _>>()?;
        Ok(Self { sockets, ready, spare })
    }
}

/// A new process that is starting.
pub(super) struct Successor {
    outcome: Receiver<Result<u32, String>>,
    fate: Arc<Fate>,
    thread: JoinHandle<()>,
}

/// Whether the new process serves or is stopped: what comes first decides, for both threads.
#[derive(Default)]
struct Fate(AtomicU8);

impl Fate {
    const OPEN: u8 = 0;
    const SERVES: u8 = 1;
    const STOPPED: u8 = 2;

    /// Returns whether this is its fate by now.
    fn decide(&self, fate: u8) -> bool {
        let before = self.0.compare_exchange(Self::OPEN, fate, Ordering::Relaxed, Ordering::Relaxed);
        before.err().is_none_or(|before| before == fate)
    }
}

impl Successor {
    /// Starts the program at `path` with the arguments of this process. The reactor is woken when
    /// the new process serves or has failed.
    pub(super) fn start(path: &Path, sockets: &Sockets, reserve: Reserve, waker: Waker) -> io::Result<Self> {
        let Reserve { sockets: copies, ready: (ours, theirs), spare } = reserve;
        let count = copies.len() + 1;
        let mut command = Command::new(path);
        command.args(std::env::args_os().skip(1));
        // NOTIFY_SOCKET stays: it is the manager's, and the new process will be its service.
        command.env_remove("LISTEN_PID").env_remove("LISTEN_FDS_FIRST_FD").env("LISTEN_FDS", count.to_string());
        command.env("LISTEN_FDNAMES", format!("{}{READY}", "finale:".repeat(copies.len())));
        match sockets.file() {
            Some(file) => command.env(SOCKET_FILE, file.to_variable()),
            None => command.env_remove(SOCKET_FILE),
        };
        let passed = copies.into_iter().chain([theirs.into()]).zip(FIRST..);
        let mappings = passed.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
        command.fd_mappings(mappings).map_err(io::Error::other)?;
        ours.set_read_timeout(Some(CHECK))?;
        let (sender, outcome) = channel();
        let fate = Arc::new(Fate::default());
        let (path, shared) = (path.to_owned(), Arc::clone(&fate));
        let thread = thread::Builder::new().name("successor".to_owned()).spawn(move || {
            drop(spare);
            let started = start(|| command.spawn()).map_err(|error| format!("{}: {error}", path.display()));
            // This closes the copies of the descriptors.
            drop(command);
            let watched = |child| Watch::new(child, ours, shared).run();
            let _ = sender.send(started.and_then(watched));
            let _ = waker.wake();
        })?;
        Ok(Self { outcome, fate, thread })
    }

    /// A new process that serves already, without that anything has looked.
    #[cfg(test)]
    pub(super) fn that_serves(pid: u32) -> Self {
        let ((sender, outcome), fate) = (channel(), Arc::new(Fate::default()));
        assert!(fate.decide(Fate::SERVES));
        sender.send(Ok(pid)).expect("it is received");
        Self { outcome, fate, thread: thread::spawn(|| ()) }
    }

    /// Its process id, or why it failed. `None` while it is starting.
    pub(super) fn outcome(&self) -> Option<Result<u32, String>> {
        match self.outcome.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err("the thread that waits for it has failed".to_owned())),
        }
    }

    /// Ends it, and returns the thread that waits for its end; or its process id, if it serves
    /// already.
    pub(super) fn stop(self) -> Result<JoinHandle<()>, u32> {
        if self.fate.decide(Fate::STOPPED) {
            return Ok(self.thread);
        }
        match self.outcome.recv() {
            Ok(Ok(pid)) => Err(pid),
            _ => Ok(self.thread),
        }
    }
}

/// A client that is accepted just now may take the descriptors that this needs.
fn start<T>(mut spawn: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..100 {
        match spawn() {
            Err(error) if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => thread::park_timeout(TRY),
            result => return result,
        }
    }
    spawn()
}

/// The wait for a new process.
struct Watch {
    child: Child,
    /// One byte more than its line has: a longer line is another one.
    stream: io::Take<UnixStream>,
    read: Vec<u8>,
    fate: Arc<Fate>,
    begun: Instant,
}

impl Watch {
    fn new(child: Child, stream: UnixStream, fate: Arc<Fate>) -> Self {
        let stream = stream.take(READY_LINE.len() as u64 + 1);
        Self { child, stream, read: Vec::new(), fate, begun: Instant::now() }
    }

    fn run(&mut self) -> Result<u32, String> {
        loop {
            if self.is_ready() && self.fate.decide(Fate::SERVES) {
                return Ok(self.child.id());
            }
            if let Some(status) = self.ended() {
                return Err(format!("the new process ended before it was ready: {status}"));
            }
            if self.fate.0.load(Ordering::Relaxed) == Fate::STOPPED {
                return self.end("this process was stopped, and has stopped the new one, too".to_owned());
            }
            if self.begun.elapsed() > READY_LIMIT {
                return self.end(format!("the new process was not ready within {} s", READY_LIMIT.as_secs()));
            }
        }
    }

    /// Ends the new process. One that serves by now stops with its clients, as after any SIGTERM.
    fn end(&mut self, why: String) -> Result<u32, String> {
        // Before the signal: if it has just become ready, it must not remove our socket file.
        let _ = self.stream.get_ref().write_all(ENDED);
        // The number of a child that was not waited for is its own.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let begun = Instant::now();
        while self.ended().is_none() && !self.is_ready() {
            if begun.elapsed() > KILL {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        Err(why)
    }

    /// Waits a little for its line. A process that closes the stream may still end by itself.
    fn is_ready(&mut self) -> bool {
        let mut buffer = [0; 64];
        match self.stream.read(&mut buffer) {
            Ok(0) => thread::park_timeout(CHECK),
            Ok(bytes) => self.read.extend_from_slice(&buffer[..bytes]),
            Err(_) => {} // Nothing has arrived within `CHECK`.
        }
        self.read == READY_LINE
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn of_a_new_process_that_serves_and_a_stop_what_comes_first_decides() {
        for (first, second) in [(Fate::SERVES, Fate::STOPPED), (Fate::STOPPED, Fate::SERVES)] {
            let fate = Fate::default();
            assert!(fate.decide(first));
            assert!(!fate.decide(second), "it is decided");
            assert!(fate.decide(first), "by this one");
        }
    }

    #[test]
    fn only_a_lack_of_descriptors_is_waited_for() {
        for (error, tries) in [(Errno::MFILE, 3), (Errno::NOENT, 1)] {
            let mut count = 0;
            let result = start(|| {
                count += 1;
                if count < 3 { Err(error.into()) } else { Ok(()) }
            });
            assert_eq!((result.is_ok(), count), (tries == 3, tries), "{error}");
        }
    }

    /// The main thread is stopped before it has seen that the new process serves.
    #[test]
    fn a_new_process_that_serves_already_is_not_stopped() {
        assert_eq!(Successor::that_serves(23).stop().err(), Some(23));
    }

    #[test]
    fn a_new_process_that_hangs_is_ended_at_the_limit() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        ours.set_read_timeout(Some(CHECK)).expect("the time is not zero");
        let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().expect("it starts");
        let mut watch = Watch::new(child, ours, Arc::default());
        watch.begun = Instant::now().checked_sub(READY_LIMIT).expect("the machine runs for longer");
        assert_eq!(watch.run(), Err("the new process was not ready within 30 s".to_owned()));
        assert!(watch.ended().is_some());
        drop(watch);
        let mut received = Vec::new();
        theirs.read_to_end(&mut received).expect("nothing is left unread");
        assert_eq!(received, ENDED);
    }
}
