//! Sockets that another process passes: a service manager, or the server that this one replaces.
//!
//! The protocol is that of sd_listen_fds(3): descriptors from 3 up, counted in LISTEN_FDS. A server
//! that is replaced passes two things more. Its last descriptor, which LISTEN_FDNAMES names
//! [`READY`], is a stream to it for [`READY_LINE`]; and [`SOCKET_FILE`] describes the socket file
//! that the new process has to remove. LISTEN_PID is left out then: only the new process itself
//! could set it.
//!
//! A server that ends the new process, since it continues or stops itself, first writes
//! [`ENDED`] to the stream: the new process may have become ready at this moment, and must leave
//! the socket file to the old one.

use std::env;
use std::ffi::OsString;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use listenfd::ListenFd;
use socket2::{SockRef, Socket};

use super::socket_file::SocketFile;
use crate::errors::Error;

/// The name of the descriptor on which a new process reports that it serves.
pub(super) const READY: &str = "finale-ready";
/// What it reports.
pub(super) const READY_LINE: &[u8] = b"READY=1\n";
/// What it gets before SIGTERM if it is ended. Any byte means this.
pub(super) const ENDED: &[u8] = b"\n";
/// The variable that describes the socket file.
pub(super) const SOCKET_FILE: &str = "FINALE_SOCKET_FILE";
/// The first descriptor that is passed (`SD_LISTEN_FDS_START`).
pub(super) const FIRST: i32 = 3;

/// What was passed.
#[derive(Debug)]
pub(super) struct Inherited {
    pub(super) sockets: Vec<Socket>,
    pub(super) predecessor: Option<Predecessor>,
}

/// The server that has started this one in its place.
#[derive(Debug)]
pub(super) struct Predecessor {
    stream: UnixStream,
    /// The socket file that this process has to remove, once it serves.
    pub(super) file: Option<SocketFile>,
}

impl Predecessor {
    /// This process serves, so the other one can stop. If it has died there is nothing to do.
    pub(super) fn ready(&mut self) {
        let _ = self.stream.write_all(READY_LINE);
    }

    /// Whether it has ended this process, and is the service still. One that has gone has not, nor
    /// has one that has written nothing before a SIGTERM, which is another's then.
    pub(super) fn has_ended_us(&self) -> bool {
        let peek = |()| SockRef::from(&self.stream).peek(&mut [MaybeUninit::uninit()]);
        self.stream.set_nonblocking(true).and_then(peek).is_ok_and(|bytes| bytes > 0)
    }
}

impl Inherited {
    /// What the environment describes, if it is for this process.
    pub(super) fn from_env() -> Result<Option<Self>, Error> {
        let Some(count) = count(env::var_os("LISTEN_FDS"), env::var_os("LISTEN_PID"))? else { return Ok(None) };
        let mut passed = ListenFd::from_env();
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let is_replacement = names.rsplit(':').next() == Some(READY);
        let predecessor = if is_replacement { Some(take_predecessor(&mut passed, count - 1)?) } else { None };
        let sockets = (0..count - usize::from(is_replacement)).map(|place| take_listener(&mut passed, place));
        let sockets = sockets.collect::<Result<Vec<_>, _>>()?;
        if sockets.is_empty() {
            return Err(Error::usage("LISTEN_FDS: no socket was passed; unset the variable or pass listening sockets"));
        }
        Ok(Some(Self { sockets, predecessor }))
    }
}

/// How many descriptors were passed to this process, if any.
fn count(fds: Option<OsString>, pid: Option<OsString>) -> Result<Option<usize>, Error> {
    let Some(fds) = fds.filter(|fds| !fds.is_empty()) else { return Ok(None) };
    let number = |text: &OsString| text.to_str().and_then(|text| text.parse::<u32>().ok());
    if let Some(pid) = pid.filter(|pid| !pid.is_empty()) {
        let number = number(&pid).ok_or_else(|| {
            let pid = pid.display();
            Error::usage(format!("LISTEN_PID={pid}: it is not the number of a process; unset the variable"))
        })?;
        if number != std::process::id() {
            log::info!("LISTEN_FDS is for process {number}, not for this one");
            return Ok(None);
        }
    }
    match number(&fds) {
        Some(0) => Ok(None),
        Some(count @ 1..=0xFFFF) => Ok(Some(count as usize)),
        _ => {
            let fds = fds.display();
            Err(Error::usage(format!("LISTEN_FDS={fds}: it is not a number of descriptors; unset the variable")))
        }
    }
}

fn take_listener(passed: &mut ListenFd, place: usize) -> Result<Socket, Error> {
    let tcp = passed.take_tcp_listener(place).ok().flatten().map(Socket::from);
    let socket = tcp.or_else(|| passed.take_unix_listener(place).ok().flatten().map(Socket::from));
    socket.filter(is_listening).ok_or_else(|| {
        Error::usage(format!(
            "LISTEN_FDS: descriptor {} is not a listening stream socket (TCP or Unix domain); pass only such sockets",
            place as i32 + FIRST
        ))
    })
}

#[cfg(not(target_vendor = "apple"))]
fn is_listening(socket: &Socket) -> bool {
    socket.is_listener().unwrap_or(false)
}

/// macOS has no SO_ACCEPTCONN that can be read: accept(2) will fail.
#[cfg(target_vendor = "apple")]
const fn is_listening(_: &Socket) -> bool {
    true
}

fn take_predecessor(passed: &mut ListenFd, place: usize) -> Result<Predecessor, Error> {
    // It is a stream and no listener, and is not used as one.
    let stream = passed.take_unix_listener(place).ok().flatten();
    let stream = stream.ok_or_else(|| Error::usage(format!("LISTEN_FDNAMES: descriptor {READY} is not a stream")))?;
    let file = env::var_os(SOCKET_FILE).as_deref().and_then(SocketFile::from_variable);
    Ok(Predecessor { stream: UnixStream::from(OwnedFd::from(stream)), file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_counted_if_they_are_for_this_process() {
        let own = std::process::id().to_string();
        let count = |fds: Option<&str>, pid: Option<&str>| count(fds.map(Into::into), pid.map(Into::into));
        for (fds, pid, expected) in [
            (None, None, None),
            (Some(""), None, None),
            (Some("0"), None, None),
            (Some("2"), None, Some(2)),
            (Some("2"), Some(""), Some(2)),
            (Some("2"), Some(own.as_str()), Some(2)),
            (Some("2"), Some("1"), None),
        ] {
            assert_eq!(count(fds, pid).expect("well formed"), expected, "{fds:?} {pid:?}");
        }
        for (fds, pid) in [("abc", None), ("-1", None), ("4000000000", None), ("2", Some("zz")), ("1.5", None)] {
            assert!(count(Some(fds), pid).is_err_and(|error| error.is_usage()), "{fds} {pid:?}");
        }
    }
}
