//! Restarting `serve` without refusing anybody: the new process gets our listening sockets, and we
//! go when it serves.
//!
//! Invariant: at every moment somebody accepts, or will: connections wait in the queue of the
//! shared sockets meanwhile. If the new process does not come up, nothing has changed.
//!
//! The two protocols are systemd's: descriptors from 3 up, counted in LISTEN_FDS
//! (sd_listen_fds(3)), and a datagram to NOTIFY_SOCKET from who is ready (sd_notify(3)). LISTEN_PID
//! is left out: only the child itself could fill it in. What they have no word for is a socket file
//! that is ours to remove: [`SOCKET_FILE`] names it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt as _, FdMapping};
use finale::Waker;
use rustix::process::Signal;

/// A new process that is not ready by then has hung.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often we look whether it has died.
const LOOK: Duration = Duration::from_millis(100);
/// The first descriptor that is handed over (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;

/// The variable that names the socket file which is the new process's to remove, once it serves.
pub(crate) const SOCKET_FILE: &str = "FINALE_SOCKET_FILE";

/// What the new process gets.
pub(crate) struct Legacy {
    /// Copies of our listening sockets.
    pub(crate) sockets: Vec<OwnedFd>,
    /// The socket file that is ours to remove.
    pub(crate) file: Option<PathBuf>,
}

/// A new process on its way.
pub(crate) struct Handover {
    child: Arc<Mutex<Child>>,
    outcome: Receiver<Result<u32, String>>,
    _file: NotifyFile,
}

impl Handover {
    /// Starts the program at `path` again, with our own arguments. The reactor is woken when the
    /// new process serves or has failed.
    pub(crate) fn begin(path: &Path, sockets: Legacy, remote: Waker) -> io::Result<Self> {
        let Legacy { sockets, file: socket_file } = sockets;
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
        // The descriptors go with the command.
        drop(command);
        let (sender, outcome) = channel();
        let watched = Arc::clone(&child);
        thread::spawn(move || {
            let _ = sender.send(ready.wait(&watched));
            let _ = remote.wake();
        });
        Ok(Self { child, outcome, _file: file })
    }

    /// We are told to go before the new process has taken our place: it goes, too.
    pub(crate) fn give_up(self) {
        let mut child = lock(&self.child);
        // One that has ended, and was waited for, has given its number back.
        if let Ok(None) = child.try_wait() {
            let told = rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM);
            log::info!("the new process {} is ended, too: {told:?}", child.id());
        }
    }

    /// What became of it: its process, or why there is none. `None` if that is not known yet.
    pub(crate) fn outcome(&self) -> Option<Result<u32, String>> {
        match self.outcome.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err("nobody waits for it any more".to_owned())),
        }
    }
}

/// Held for a look or a signal, never for a wait.
fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the new process says that it serves.
struct Ready {
    socket: UnixDatagram,
}

/// Removed with the handover, not with the thread that waits: a process that is stopped may exit
/// before that thread ends.
struct NotifyFile {
    path: PathBuf,
}

impl Ready {
    fn new() -> io::Result<(Self, NotifyFile)> {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos());
        let path = std::env::temp_dir().join(format!("finale-{}-{now}.notify", std::process::id()));
        let socket = UnixDatagram::bind(&path)?;
        let file = NotifyFile { path };
        socket.set_read_timeout(Some(LOOK))?;
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
                return Err(format!("it ended before it was ready: {status}"));
            }
            if began.elapsed() > PATIENCE {
                let mut child = lock(child);
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it was not ready within {} s", PATIENCE.as_secs()));
            }
        }
    }
}

impl Drop for NotifyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
