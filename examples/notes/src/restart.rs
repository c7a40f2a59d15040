//! The listening socket, and the restart: the next process gets a copy of the socket.
//!
//! Invariant: at every moment some process accepts, or will. Until then connections wait in the
//! queue of the shared socket. If the new process does not start, nothing has changed.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use finale::Sender;
use listenfd::ListenFd;
use socket2::{Domain, Socket, Type};

use crate::Control;

/// What the new process reports when it serves.
const READY_LINE: &[u8] = b"READY=1\n";
/// The names of the two descriptors that are passed, as sd_listen_fds(3) has them.
const NAMES: &str = "notes:notes-ready";
/// A new process that is not ready by then has hung.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// The first descriptor that is passed.
const FIRST: i32 = 3;
const BACKLOG: i32 = 4096;

/// The listening socket of this process.
#[derive(Debug)]
pub(crate) struct Listening {
    /// `None` when this process stops. While a copy is open, the kernel queues clients for it.
    socket: Option<Socket>,
    /// The process that this one replaces, until this one serves.
    predecessor: Option<UnixStream>,
    pub(crate) is_restarting: bool,
}

impl Listening {
    /// The socket that another process has passed, or a new one.
    pub(crate) fn open(addr: SocketAddr) -> io::Result<Self> {
        let mut passed = ListenFd::from_env();
        if let Some(listener) = passed.take_tcp_listener(0)? {
            let is_restart = std::env::var("LISTEN_FDNAMES").is_ok_and(|names| names == NAMES);
            // It is a stream and no listener, and is not used as one.
            let stream = if is_restart { passed.take_unix_listener(1)? } else { None };
            let predecessor = stream.map(|stream| UnixStream::from(OwnedFd::from(stream)));
            return Ok(Self { socket: Some(listener.into()), predecessor, is_restarting: false });
        }
        let open = || {
            let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&addr.into())?;
            socket.listen(BACKLOG)?;
            Ok(socket)
        };
        let socket = open().map_err(|error: io::Error| io::Error::new(error.kind(), format!("{addr}: {error}")))?;
        Ok(Self { socket: Some(socket), predecessor: None, is_restarting: false })
    }

    /// For the reactor.
    pub(crate) fn copy(&self) -> io::Result<TcpListener> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        socket.try_clone().map(TcpListener::from)
    }

    /// The reactor alone decides how long its copy is open.
    pub(crate) fn close(&mut self) {
        self.socket = None;
    }

    /// This process serves, so the other one can stop. If it has died there is nothing to do.
    pub(crate) fn report_ready(&mut self) {
        if let Some(mut stream) = self.predecessor.take() {
            let _ = stream.write_all(READY_LINE);
        }
    }

    /// Starts the program again, which may be another version of it by now. A thread waits until
    /// the new process serves or has failed, and reports that.
    pub(crate) fn restart(&mut self, sender: Sender<Control>) -> Result<(), String> {
        if self.is_restarting {
            return Err("a new process is starting already".to_owned());
        }
        let (child, stream) = self.spawn().map_err(|error| error.to_string())?;
        let watch = move || {
            // The inbox is full of signals only if nothing takes them.
            let _ = sender.send(Control::Restarted(wait(child, stream)));
        };
        std::thread::Builder::new().name("restart".to_owned()).spawn(watch).map_err(|error| error.to_string())?;
        self.is_restarting = true;
        Ok(())
    }

    fn spawn(&self) -> io::Result<(Child, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(READY_LIMIT))?;
        let program = std::env::args_os().next().unwrap_or_else(|| "notes".into());
        let mut command = Command::new(program);
        command.args(std::env::args_os().skip(1)).env_remove("LISTEN_PID");
        command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", NAMES);
        let passed = [self.copy()?.into(), theirs.into()].into_iter().zip(FIRST..);
        let mappings = passed.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
        command.fd_mappings(mappings).map_err(io::Error::other)?;
        Ok((command.spawn()?, ours))
    }
}

/// Waits for the line. A process that has not sent it is ended: two of them must not accept without
/// knowing of each other.
fn wait(mut child: Child, mut stream: UnixStream) -> Result<u32, String> {
    let mut line = [0; READY_LINE.len()];
    match stream.read_exact(&mut line) {
        Ok(()) if line == READY_LINE => Ok(child.id()),
        result => {
            let _ = child.kill();
            let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            Err(match result {
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                    format!("the new process was not ready within {} s", READY_LIMIT.as_secs())
                }
                _ => format!("the new process ended before it was ready: {status}"),
            })
        }
    }
}
