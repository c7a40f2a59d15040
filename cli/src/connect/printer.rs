//! The bytes of the socket, printed on stdout.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::errors::Error;
use crate::output::Stdout;

/// When a pipe is writable, a write of this size does not block (`PIPE_BUF` in pipe(7)).
const PIECE_BYTES: usize = 4096;

/// How long stdout may take nothing. The reactor's own limits can't strike meanwhile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Of `--idle-timeout` or `--timeout`, for each piece.
    pub(super) idle: Option<Duration>,
    /// Of `--max-time`, for all.
    pub(super) deadline: Option<Instant>,
}

impl Limits {
    /// Whether the deadline has passed.
    pub(super) fn are_over(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }
}

/// Prints these bytes on stdout as they are. While stdout is full this waits, and the peer sees a
/// closed window: that is the back-pressure. The wait ends when `stop` is readable, and the rest of
/// the bytes is lost.
///
/// # Errors
/// Stdout is closed, or took nothing within the limits.
pub(super) fn print(bytes: &[u8], stop: &impl AsFd, limits: Limits) -> Result<(), Error> {
    let mut left = bytes;
    while !left.is_empty() && wait_for_room(stop, limits).map_err(Error::Stdout)? {
        let (piece, rest) = left.split_at(room().min(left.len()));
        Stdout.write_all(piece).map_err(Error::Stdout)?;
        left = rest;
    }
    Ok(())
}

/// How much a writable stdout takes without blocking, at least.
fn room() -> usize {
    let stdout = io::stdout();
    let Ok(stat) = rustix::fs::fstat(&stdout) else { return PIECE_BYTES };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => usize::MAX,
        FileType::CharacterDevice if !stdout.is_terminal() => usize::MAX,
        FileType::Fifo if rustix::io::ioctl_fionread(&stdout) == Ok(0) => pipe_bytes(),
        _ => PIECE_BYTES,
    }
}

/// What an empty pipe takes.
fn pipe_bytes() -> usize {
    #[cfg(target_os = "linux")]
    if let Ok(bytes) = rustix::pipe::fcntl_getpipe_size(io::stdout()) {
        return bytes.max(PIECE_BYTES);
    }
    PIECE_BYTES
}

/// Waits until stdout has room. Returns whether to continue.
fn wait_for_room(stop: &impl AsFd, limits: Limits) -> io::Result<bool> {
    let stdout = io::stdout();
    loop {
        let left = limits.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let is_idle = limits.idle.is_some_and(|idle| left.is_none_or(|left| idle < left));
        let limit = if is_idle { limits.idle } else { left }.map(timespec);
        let mut fds = [PollFd::new(&stdout, PollFlags::OUT), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut fds, limit.as_ref()) {
            Ok(0) => {
                let why =
                    if is_idle { "it took nothing for the idle time" } else { "it took nothing until --max-time" };
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            Ok(_) => return Ok(fds[1].revents().is_empty()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) }
}
