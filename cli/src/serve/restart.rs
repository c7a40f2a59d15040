//! SIGHUP: restarting `serve` without refusing a client. The new process gets copies of the
//! listening sockets, and the old one stops when the new one serves.
//!
//! Invariant: at every moment some process accepts, or will. Until then connections wait in the
//! queue of the shared sockets. If the new process does not start, nothing has changed.
//!
//! The two protocols are systemd's: descriptors from 3 up, counted in LISTEN_FDS
//! (sd_listen_fds(3)), and a datagram to NOTIFY_SOCKET from a process that is ready (sd_notify(3)).
//! LISTEN_PID is left out: only the child itself could set it. These protocols have no variable for
//! a socket file that the new process has to remove: [`SOCKET_FILE`] names it.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt as _, FdMapping};
use finale::{Reactor, Waker};
use rustix::process::Signal;

use super::sockets::{Inheritance, SOCKET_FILE, Sockets};
use crate::output::{self, count};
use crate::signals::SignalCount;

/// A new process that is not ready by then has hung.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How often to check whether it has died.
const CHECK: Duration = Duration::from_millis(100);
/// The first descriptor that is passed (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;

/// Restarts on request.
pub(super) struct Restart {
    program: PathBuf,
    sockets: Sockets,
    signals: SignalCount,
    successor: Option<Successor>,
    quiet: bool,
}

/// Whether a new process serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restarted {
    Yes,
    NotYet,
}

impl Restart {
    pub(super) const fn new(program: PathBuf, sockets: Sockets, signals: SignalCount, quiet: bool) -> Self {
        Self { program, sockets, signals, successor: None, quiet }
    }

    /// Starts the new process if a signal has arrived, unless one is starting already. `live`
    /// counts the connections of this process.
    pub(super) fn check(&mut self, control: &Reactor, live: usize) -> Restarted {
        if self.signals.take_new() > 0 && self.successor.is_none() {
            self.begin(control);
        }
        let Some(outcome) = self.successor.as_ref().and_then(Successor::outcome) else { return Restarted::NotYet };
        self.successor = None;
        match outcome {
            Ok(pid) => {
                let live = count(live as u64, "connection");
                self.say(&format!("process {pid} serves; {live} left to this process"));
                self.sockets.detach();
                Restarted::Yes
            }
            Err(why) => {
                output::error(format_args!("not restarted, this process continues to serve: {why}"));
                Restarted::NotYet
            }
        }
    }

    fn begin(&mut self, control: &Reactor) {
        self.say(&format!("restarting: starting {}", self.program.display()));
        let inheritance = self.sockets.inheritance();
        match inheritance.and_then(|sockets| Successor::start(&self.program, sockets, control.waker())) {
            Ok(successor) => self.successor = Some(successor),
            Err(error) => {
                let program = self.program.display();
                output::error(format_args!("not restarted, this process continues to serve: {program}: {error}"));
            }
        }
    }

    /// The server stops. If the new process serves already it stays; if it is still starting it
    /// stops, too.
    pub(super) fn give_up(&mut self) {
        if let Some(successor) = self.successor.take() {
            if let Some(Ok(pid)) = successor.outcome() {
                self.say(&format!("process {pid} serves"));
                return self.sockets.detach();
            }
            self.say("not restarted: this process was stopped, and stops the new one, too");
            successor.stop();
        }
        self.sockets.close();
    }

    /// A line about a restart that goes well.
    fn say(&self, line: &str) {
        if !self.quiet {
            output::say(format_args!("finale: {line}"));
        }
    }
}

/// A new process that is starting.
struct Successor {
    child: Arc<Mutex<Child>>,
    outcome: Receiver<Result<u32, String>>,
    _file: NotifyFile,
}

impl Successor {
    /// Starts the program at `path` with the arguments of this process. The reactor is woken when
    /// the new process serves or has failed.
    fn start(path: &Path, sockets: Inheritance, remote: Waker) -> io::Result<Self> {
        let Inheritance { sockets, file: socket_file } = sockets;
        let (ready, file) = Ready::new()?;
        let count = sockets.len();
        let mappings = sockets.into_iter().zip(FIRST..).map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
        let mut command = Command::new(path);
        command.args(std::env::args_os().skip(1)).env_remove("LISTEN_PID").env_remove("LISTEN_FDNAMES");
        command.env("LISTEN_FDS", count.to_string()).env("NOTIFY_SOCKET", &file.path);
        match socket_file {
            Some(file) => command.env(SOCKET_FILE, file),
            None => command.env_remove(SOCKET_FILE),
        };
        command.fd_mappings(mappings.collect()).map_err(io::Error::other)?;
        let child = Arc::new(Mutex::new(command.spawn()?));
        // This closes the copies of the descriptors.
        drop(command);
        let (sender, outcome) = channel();
        let watched = Arc::clone(&child);
        thread::spawn(move || {
            let _ = sender.send(ready.wait(&watched));
            let _ = remote.wake();
        });
        Ok(Self { child, outcome, _file: file })
    }

    /// Stops the new process before it serves.
    fn stop(self) {
        let mut child = lock(&self.child);
        // The number of a child that was waited for may belong to another process.
        if let Ok(None) = child.try_wait() {
            let sent = rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM);
            log::info!("SIGTERM was sent to the new process {}: {sent:?}", child.id());
        }
    }

    /// Its process id, or why it failed. `None` while it is starting.
    fn outcome(&self) -> Option<Result<u32, String>> {
        match self.outcome.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err("the thread that waits for it has failed".to_owned())),
        }
    }
}

/// Held for a check or a signal, never for a wait.
fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The socket on which the new process reports that it serves.
struct Ready {
    socket: UnixDatagram,
}

/// Removed with the [`Successor`], not with the thread that waits: a process that is stopped may
/// exit before that thread ends.
struct NotifyFile {
    path: PathBuf,
}

impl Ready {
    fn new() -> io::Result<(Self, NotifyFile)> {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos());
        let path = std::env::temp_dir().join(format!("finale-{}-{now}.notify", std::process::id()));
        let socket = UnixDatagram::bind(&path)?;
        let file = NotifyFile { path };
        socket.set_read_timeout(Some(CHECK))?;
        Ok((Self { socket }, file))
    }

    fn wait(&self, child: &Mutex<Child>) -> Result<u32, String> {
        let began = Instant::now();
        let mut buffer = [0; 256];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(bytes) if buffer[..bytes].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") => {
                    return Ok(lock(child).id());
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.to_string()),
            }
            if let Ok(Some(status)) = lock(child).try_wait() {
                return Err(format!("the new process ended before it was ready: {status}"));
            }
            if began.elapsed() > READY_LIMIT {
                let mut child = lock(child);
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("the new process was not ready within {} s", READY_LIMIT.as_secs()));
            }
        }
    }
}

impl Drop for NotifyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
