//! What a SIGHUP means: a request to restart, or the end of the terminal that the server was
//! started in.

use std::fs::File;

use rustix::io::Errno;
use rustix::process::{getpid, getsid};

/// Whether this process has a controlling terminal. Only these errors mean that it has none, or
/// one that was closed (tty(4)): there may be no descriptor left to open it.
fn is_present() -> bool {
    let none = [Errno::NXIO, Errno::IO, Errno::NOENT].map(Errno::raw_os_error);
    !File::open("/dev/tty").is_err_and(|error| error.raw_os_error().is_some_and(|code| none.contains(&code)))
}

/// The controlling terminal at the start of the process.
#[derive(Debug)]
pub(super) struct Terminal {
    was_present: bool,
}

impl Terminal {
    pub(super) fn at_start() -> Self {
        Self { was_present: is_present() }
    }

    /// Whether it is closed with the end of this process, which leads its session (setsid(2)).
    pub(super) fn ends_with_us(&self) -> bool {
        self.was_present && getsid(None).is_ok_and(|leader| leader == getpid())
    }

    /// Whether it has been closed since. The kernel takes the terminal from all processes of the
    /// session before it sends SIGHUP (setsid(2), tty(4)). The sender proves nothing: a shell
    /// sends its own SIGHUP to its jobs.
    pub(super) fn was_closed(&self) -> bool {
        self.was_present && !is_present()
    }
}
