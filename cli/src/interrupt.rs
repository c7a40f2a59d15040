//! SIGHUP, SIGINT and SIGTERM of a command that reports what it has done so far.
//!
//! Invariant: a signal is recorded before the main thread sees anything that follows from it. With
//! Ctrl-C in `producer | finale connect` the signal reaches both, and the end of stdin that the
//! producer's death causes must not pass for an end of the input. So no helper thread may
//! handle it, and wait for a core before it has recorded it ([`without_signals`]). The next signal ends
//! the process at once. A signal that was ignored when the command started stays ignored, as nohup(1)
//! and a shell's background jobs require.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::{SigSet, SigmaskHow, Signal as Number};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::errors::{Error, Signal};

/// Signals that end a command. As a descriptor it becomes readable at the first of them.
#[derive(Debug)]
pub(crate) struct Interrupt {
    /// The signal, or 0.
    number: Arc<AtomicUsize>,
    end: UnixStream,
}

impl Interrupt {
    /// Records signals in their handler, and makes this call on a thread of its own.
    pub(crate) fn watch(wake: impl Fn() + Send + 'static) -> Result<Self, Error> {
        let failed = |source| Error::io("watch for signals", source);
        let watched: Vec<_> = [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| !is_ignored(*signal)).collect();
        let number = Arc::new(AtomicUsize::new(0));
        for &signal in &watched {
            signal_hook::flag::register_usize(signal, Arc::clone(&number), signal as usize).map_err(failed)?;
        }
        let mut signals = Signals::new(watched).map_err(failed)?;
        let (end, held) = UnixStream::pair().map_err(failed)?;
        let handle = move || {
            let mut held = Some(held);
            for signal in signals.forever() {
                if held.is_none() {
                    let _ = emulate_default_handler(signal);
                }
                // The other end of a closed pair is readable.
                held = None;
                wake();
            }
        };
        without_signals(|| thread::spawn(handle));
        Ok(Self { number, end })
    }

    /// The signal that was sent to this process before this call, which the main thread makes. A
    /// handler runs at the latest when a call of the system returns.
    pub(crate) fn signal_by_now(&self) -> Option<Signal> {
        let _ = rustix::process::getppid();
        self.signal()
    }

    /// The signal that has arrived.
    pub(crate) fn signal(&self) -> Option<Signal> {
        match self.number.load(Ordering::Acquire) {
            0 => None,
            number => Some(Signal(number as i32)),
        }
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

/// Starts a thread that handles no signal: the main thread has recorded a signal when its next call of
/// the system returns. Another thread may take it as it begins, and wait for a core before it has.
pub(crate) fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    let watched: SigSet = [Number::SIGHUP, Number::SIGINT, Number::SIGTERM].into_iter().collect();
    // It fails only for a wrong argument.
    let before = watched.thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let started = start();
    if let Ok(before) = before {
        let _ = before.thread_set_mask();
    }
    started
}

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Whether this process ignores a signal. Where /proc does not exist, none.
pub(crate) fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & bit(signal) != 0
}
