//! What a SIGHUP means: a request to restart, or the end of the terminal that the server was
//! started in.

use std::fs::File;

/// Whether this process has a controlling terminal.
fn is_present() -> bool {
    File::open("/dev/tty").is_ok()
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

    /// Whether it has been closed since. The kernel takes the terminal from all processes of the
    /// session before it sends SIGHUP (setsid(2), tty(4)). The sender proves nothing: a shell
    /// sends its own SIGHUP to its jobs.
    pub(super) fn was_closed(&self) -> bool {
        self.was_present && !is_present()
    }
}

/// Whether SIGHUP was ignored at the start, as nohup(1) does it: then it stays ignored.
#[cfg(target_os = "linux")]
pub(super) fn hang_up_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal_hook::consts::SIGHUP - 1) & 1 == 1)
}

/// Safe code has no way to find it here.
#[cfg(not(target_os = "linux"))]
pub(super) const fn hang_up_is_ignored() -> bool {
    false
}
