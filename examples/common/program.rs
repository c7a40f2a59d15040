//! What a program does at its edges: signals become events, and an error becomes a line and a
//! status.

use std::io::{self, Write as _};
use std::process::ExitCode;

use finale::net::Net;
use finale::{Inbox, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The arguments. One that is not UTF-8 is no address and no number either: it is reported with the
/// others that are wrong, while `std::env::args` panics.
pub(crate) fn args() -> impl Iterator<Item = String> {
    std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned())
}

/// The status of a program that has run, or could not. A closed stderr is no reason to panic, as
/// `eprintln!` does.
pub(crate) fn status(name: &str, result: Result<(), Box<dyn std::error::Error>>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let _ = writeln!(io::stderr(), "{name}: {error}");
    ExitCode::FAILURE
}

/// The status of a program that was called in a wrong way.
pub(crate) fn usage(text: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "usage: {text}");
    ExitCode::from(2)
}

/// What the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The first SIGTERM or SIGINT: everybody may finish.
    Gracefully,
    /// The second one: leave the loop. Dropping the reactor resets the connections that are left.
    AtOnce,
}

/// SIGTERM and SIGINT, as [`Event::Woken`](finale::Event::Woken).
pub(crate) struct StopSignals {
    inbox: Inbox<()>,
    is_stopping: bool,
}

impl StopSignals {
    /// A thread waits for signals, since a signal handler may do almost nothing.
    pub(crate) fn new<N: Net>(reactor: &Reactor<N>) -> io::Result<Self> {
        let (sender, inbox) = reactor.inbox(2);
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        std::thread::spawn(move || {
            for _ in signals.forever() {
                // A full inbox has a signal for each kind of stop already.
                let _ = sender.send(());
            }
        });
        Ok(Self { inbox, is_stopping: false })
    }

    /// Call it at each `Event::Woken`.
    pub(crate) fn take(&mut self) -> Option<Stop> {
        let mut stop = None;
        while self.inbox.take().is_some() {
            let was_stopping = std::mem::replace(&mut self.is_stopping, true);
            stop = Some(if was_stopping { Stop::AtOnce } else { Stop::Gracefully });
        }
        stop
    }
}
