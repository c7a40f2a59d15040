//! Stdout and stderr of a command that its limits and signals end also while nothing reads them.
//!
//! Invariants: no write blocks, whatever the descriptor is. Its flags stay as they are: programs that
//! have inherited it share them, and would lose what they write without O_NONBLOCK in mind.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Stat, fstat};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

/// When a pipe is writable, a write of this size does not block (`PIPE_BUF` in pipe(7)).
const PIPE_BUF: usize = 4096;
/// A socket of datagrams takes each piece as a message, which must not be too long.
const MESSAGE_BYTES: usize = 4096;

/// At the end of a run a reader of stderr that works takes a line within this time.
const LAST_LINES: Limits = Limits { idle: Some(Duration::from_millis(500)), deadline: None, stop: None };
/// Later lines don't wait for a reader that did not.
const NO_WAIT: Limits = Limits { idle: Some(Duration::ZERO), deadline: None, stop: None };

/// How long a write waits.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    /// For as long as nothing is taken.
    pub(crate) idle: Option<Duration>,
    /// Of the whole run.
    pub(crate) deadline: Option<Instant>,
    /// Readable once a signal has arrived.
    pub(crate) stop: Option<OwnedFd>,
}

static LIMITED: OnceLock<Limited> = OnceLock::new();

/// Stdout and stderr within limits.
#[derive(Debug)]
pub(crate) struct Limited {
    limits: Limits,
    stdout: Output,
    stderr: Output,
    stderr_is_unread: AtomicBool,
}

/// From now on these limits apply to whatever the process prints.
///
/// # Errors
/// If no descriptor is left.
pub(crate) fn start(limits: Limits) -> io::Result<()> {
    let (stdout, stderr) = (Output::of(io::stdout().as_fd())?, Output::of(io::stderr().as_fd())?);
    LIMITED.get_or_init(|| Limited { limits, stdout, stderr, stderr_is_unread: AtomicBool::new(false) });
    Ok(())
}

/// If the command has limits.
pub(crate) fn get() -> Option<&'static Limited> {
    LIMITED.get()
}

impl Limited {
    /// write(2) to stdout. At a limit or after a signal the error is `TimedOut`.
    pub(crate) fn write_stdout(&self, bytes: &[u8]) -> io::Result<usize> {
        self.stdout.write(bytes, &self.limits)
    }

    /// The same for stderr. Since it has the reasons for an end, it has some time after that.
    pub(crate) fn write_stderr(&self, bytes: &[u8]) -> io::Result<usize> {
        let is_late =
            |result: &io::Result<usize>| result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut);
        let is_unread = self.stderr_is_unread.load(Ordering::Relaxed);
        let mut result = self.stderr.write(bytes, if is_unread { &NO_WAIT } else { &self.limits });
        if is_late(&result) && !is_unread {
            result = self.stderr.write(bytes, &LAST_LINES);
        }
        self.stderr_is_unread.store(is_late(&result), Ordering::Relaxed);
        result
    }
}

/// How to write to a descriptor without blocking.
#[derive(Debug)]
enum Output {
    /// An open file description of our own, with O_NONBLOCK.
    Own(OwnedFd),
    /// A socket: send(2) has a flag for that.
    Socket(OwnedFd),
    /// Any other: when it is writable, it takes this many bytes.
    Other(OwnedFd, usize),
}

impl Output {
    fn of(inherited: BorrowedFd<'_>) -> io::Result<Self> {
        let stat = fstat(inherited)?;
        let copy = inherited.try_clone_to_owned()?;
        let (may_reopen, most) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Socket => return Ok(Self::Socket(copy)),
            FileType::Fifo => (true, PIPE_BUF),
            // A writable terminal has room for a byte; a newline that becomes two may still block.
            FileType::CharacterDevice if rustix::termios::isatty(&copy) => (!is_alias(&stat), 1),
            // Files and other devices don't wait for a reader. A file must not be opened again: the
            // offset and O_APPEND belong to the description.
            _ => (false, usize::MAX),
        };
        // What can't be opened again, for example a terminal of another user, is written in pieces.
        let own = may_reopen.then(|| reopen(&copy)).and_then(Result::ok);
        Ok(own.map_or(Self::Other(copy, most), Self::Own))
    }

    /// Writes some of the bytes, or fails at a limit.
    fn write(&self, bytes: &[u8], limits: &Limits) -> io::Result<usize> {
        let begun = Instant::now();
        loop {
            match self.try_write(bytes) {
                Err(Errno::AGAIN) => limits.wait_for_room(self.fd(), begun)?,
                Err(Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
    }

    fn try_write(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        let first = |most: usize| &bytes[..bytes.len().min(most)];
        match self {
            Self::Own(fd) => rustix::io::write(fd, bytes),
            Self::Socket(fd) => send(fd, first(MESSAGE_BYTES), SendFlags::DONTWAIT),
            Self::Other(fd, most) => {
                match poll(&mut [PollFd::new(fd, PollFlags::OUT)], Some(&timespec(Duration::ZERO)))? {
                    0 => Err(Errno::AGAIN),
                    _ => rustix::io::write(fd, first(*most)),
                }
            }
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(fd) | Self::Socket(fd) | Self::Other(fd, _) => fd.as_fd(),
        }
    }
}

impl Limits {
    /// Waits for room. The idle time counts from `begun`, not from this call: a descriptor can be
    /// writable and still take nothing.
    fn wait_for_room(&self, fd: BorrowedFd<'_>, begun: Instant) -> io::Result<()> {
        let idle = self.idle.map(|idle| (begun + idle, "it took nothing for the idle time"));
        let deadline = self.deadline.map(|deadline| (deadline, "it took nothing until --max-time"));
        let end = [deadline, idle].into_iter().flatten().min_by_key(|(at, _)| *at);
        let left = end.map(|(at, why)| (at.saturating_duration_since(Instant::now()), why));
        let over = |why| Err(io::Error::new(io::ErrorKind::TimedOut, why));
        if let Some((Duration::ZERO, why)) = left {
            return over(why);
        }
        let mut fds = vec![PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
        fds.extend(self.stop.as_ref().map(|stop| PollFd::new(stop, PollFlags::IN)));
        match poll(&mut fds, left.map(|(left, _)| timespec(left)).as_ref()) {
            Ok(_) if fds.get(1).is_some_and(|stop| !stop.revents().is_empty()) => over("a signal came first"),
            // After the last moment the next call fails.
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Opens a terminal or a pipe once more, for O_NONBLOCK in a description of its own.
#[cfg(target_os = "linux")]
fn reopen(fd: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    use std::os::fd::AsRawFd as _;

    use rustix::fs::{Mode, OFlags, fcntl_getfl, open};

    // Not for more than the inherited one allows.
    if !fcntl_getfl(fd)?.intersects(OFlags::WRONLY | OFlags::RDWR) {
        return Err(Errno::BADF);
    }
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    open(format!("/proc/self/fd/{}", fd.as_raw_fd()), flags, Mode::empty())
}

/// Elsewhere /dev/fd may open the same description.
#[cfg(not(target_os = "linux"))]
fn reopen(_: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    Err(Errno::NOSYS)
}

/// Whether opening this terminal again may open another one: /dev/tty, /dev/console and /dev/tty0
/// stand for the current one, and /dev/ptmx makes a new pair.
#[cfg(target_os = "linux")]
fn is_alias(stat: &Stat) -> bool {
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    major == 5 || (major == 4 && minor == 0)
}

#[cfg(not(target_os = "linux"))]
const fn is_alias(_: &Stat) -> bool {
    true
}

const fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos() as i64 }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    use rustix::fs::{OFlags, fcntl_getfl};
    use rustix::pipe::pipe;
    use rustix::pty::{OpenptFlags, openpt};

    use super::*;

    const SHORT: Duration = Duration::from_millis(1);

    fn within(idle: Duration) -> Limits {
        Limits { idle: Some(idle), ..Limits::default() }
    }

    fn of(fd: &impl AsFd) -> Output {
        Output::of(fd.as_fd()).expect("descriptors are free")
    }

    /// Writes until a limit, and returns the number of bytes.
    fn fill(output: &Output, limits: &Limits) -> usize {
        let mut sum = 0;
        loop {
            match output.write(&[b'x'; 100_000], limits) {
                Ok(count) => sum += count,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
                    return sum;
                }
            }
        }
    }

    #[test]
    fn each_sort_of_descriptor_is_written_in_its_way() {
        let (_read, write) = pipe().expect("descriptors are free");
        assert!(matches!(of(&write), Output::Own(_)));
        let (read_only, _write) = pipe().expect("descriptors are free");
        assert!(of(&read_only).write(b"x", &NO_WAIT).is_err(), "it is opened for no more than before");
        let (socket, _other) = UnixStream::pair().expect("descriptors are free");
        assert!(matches!(of(&socket), Output::Socket(_)));
        for path in ["/dev/null", "/proc/self/comm"] {
            let file = File::options().write(true).open(path).expect("it exists");
            assert!(matches!(of(&file), Output::Other(_, usize::MAX)), "{path}");
        }
        let makes_a_pair = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("there are terminals");
        assert!(matches!(of(&makes_a_pair), Output::Other(_, 1)));
    }

    #[test]
    fn a_descriptor_that_is_full_ends_a_write_and_keeps_its_flags() {
        let (_read, write) = pipe().expect("descriptors are free");
        let (socket, _other) = UnixStream::pair().expect("descriptors are free");
        let (_unread, in_pieces) = pipe().expect("descriptors are free");
        let pieces = Output::Other(in_pieces.try_clone().expect("descriptors are free"), PIPE_BUF);
        for (output, fd) in [(of(&write), write.as_fd()), (of(&socket), socket.as_fd()), (pieces, in_pieces.as_fd())] {
            assert!(fill(&output, &within(SHORT)) >= PIPE_BUF, "{output:?}");
            assert!(!fcntl_getfl(fd).expect("it is open").contains(OFlags::NONBLOCK), "{output:?}");
        }
    }

    #[test]
    fn the_first_of_limits_and_signal_ends_a_wait() {
        const LONG: Duration = Duration::from_secs(3600);
        let (_read, write) = pipe().expect("descriptors are free");
        let output = of(&write);
        fill(&output, &NO_WAIT);
        let reason = |idle, deadline, stop| {
            let limits = Limits { idle: Some(idle), deadline: Some(Instant::now() + deadline), stop };
            output.write(b"x", &limits).expect_err("it is full").to_string()
        };
        assert_eq!(reason(SHORT, LONG, None), "it took nothing for the idle time");
        assert_eq!(reason(LONG, SHORT, None), "it took nothing until --max-time");
        let (stop, other) = UnixStream::pair().expect("descriptors are free");
        drop(other);
        assert_eq!(reason(LONG, LONG, Some(stop.into())), "a signal came first");
    }

    #[test]
    fn after_a_limit_stderr_has_some_time_until_it_turns_out_to_be_unread() {
        let (read, write) = pipe().expect("descriptors are free");
        let (stdout, stderr, stderr_is_unread) = (of(&write), of(&write), AtomicBool::new(false));
        fill(&stderr, &NO_WAIT);
        let deadline = Some(Instant::now());
        let limited = Limited { limits: Limits { deadline, ..Limits::default() }, stdout, stderr, stderr_is_unread };
        let begun = Instant::now();
        limited.write_stderr(b"x").expect_err("it is full");
        assert!(Some(begun.elapsed()) >= LAST_LINES.idle);
        assert!(limited.stderr_is_unread.load(Ordering::Relaxed));
        rustix::io::read(&read, &mut [0; PIPE_BUF]).expect("it is full");
        limited.write_stderr(b"x").expect("it has room");
        assert!(!limited.stderr_is_unread.load(Ordering::Relaxed), "a reader has come back");
    }

    /// For example a terminal with room for one byte, to which a newline is written.
    #[test]
    fn the_idle_time_ends_also_for_what_is_writable_and_takes_nothing() {
        let (_read, write) = pipe().expect("descriptors are free");
        let (limits, begun) = (within(SHORT), Instant::now());
        let error = loop {
            if let Err(error) = limits.wait_for_room(write.as_fd(), begun) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
