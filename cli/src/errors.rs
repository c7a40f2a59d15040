//! Why a command failed. Each error is printed as one line: what failed, why, and what to do.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::time::Duration;

/// The reasons for an exit code other than 0.
#[derive(Debug)]
pub(crate) enum Error {
    /// The reactor refused a call.
    Reactor(finale::Error),
    /// The server can't listen on this address.
    Listen { addr: String, source: finale::Error },
    /// The client can't begin to connect to this target.
    Connect { target: String, source: finale::Error },
    /// Writing to stdout failed.
    Stdout(io::Error),
    /// The system refused something else. `action` completes "can't ...".
    Io { action: Cow<'static, str>, source: io::Error },
    /// Connections of a load failed. `first` describes the first failure.
    Failed { failed: u64, finished: u64, first: String, hint: &'static str, overload: Option<Overload> },
    /// A load at a fixed rate was more than could be begun.
    Overloaded(Overload),
    /// Results of loads can't be merged.
    Merge(String),
    /// A signal ended the command. `what` describes what was done up to then.
    Interrupted { signal: Signal, what: String },
    /// A load needs more descriptors than the process may have.
    Descriptors { in_flight: usize, needed: u64, allowed: u64 },
    /// Arguments that exclude each other, or an environment that they don't fit.
    Usage(Cow<'static, str>),
    /// The server could not be probed.
    NotProbed { target: String, reason: String },
    /// Cases of a probe that an option asked for could not be tried: its command failed.
    NotTried { cases: String, reason: String },
    /// The CPU time of this process can't be read.
    Process { pid: u32, source: io::Error },
    /// The lesson failed in another way.
    Lesson(Box<dyn std::error::Error>),
    /// A scene of a lesson did not go as it was written.
    Scene(&'static str),
    /// A simulated run broke a rule.
    Broken { seed: u64, broken: String },
    /// Everything was printed already.
    Reported { exit_code: u8 },
}

/// Connections of a load that were left out, since they could not begin in time.
#[derive(Debug)]
pub(crate) struct Overload {
    pub(crate) never_begun: u64,
    pub(crate) total: u64,
    pub(crate) timeout_ms: u64,
}

impl fmt::Display for Overload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "overloaded: {} of {} connections could not begin within {} of the time at which they were due; lower \
             --rate, or raise --in-flight",
            self.never_begun,
            self.total,
            humantime::format_duration(Duration::from_millis(self.timeout_ms))
        )
    }
}

/// A signal that has ended a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signal(pub(crate) i32);

impl Signal {
    /// The exit code of a process that this signal has ended, as a shell reports it.
    pub(crate) const fn exit_code(self) -> u8 {
        128 + self.0 as u8
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(signal_hook::low_level::signal_name(self.0).unwrap_or("a signal"))
    }
}

impl Error {
    /// The system refused this. `action` completes "can't ...".
    pub(crate) fn io(action: impl Into<Cow<'static, str>>, source: io::Error) -> Self {
        Self::Io { action: action.into(), source }
    }

    /// Arguments that don't go together.
    pub(crate) fn usage(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Usage(what.into())
    }

    /// Separates the errors that the lesson, as a short example, puts into one box.
    pub(crate) fn from_lesson(error: Box<dyn std::error::Error>) -> Self {
        match error.downcast::<io::Error>() {
            Ok(error) => Self::Stdout(*error),
            Err(error) => match error.downcast::<finale::Error>() {
                Ok(error) => Self::Reactor(*error),
                Err(error) => Self::Lesson(error),
            },
        }
    }

    /// The exit code of the process.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Reported { exit_code } => *exit_code,
            Self::Interrupted { signal, .. } => signal.exit_code(),
            Self::NotProbed { .. } | Self::NotTried { .. } => 3,
            error if error.is_usage() => 2,
            _ => 1,
        }
    }

    /// Whether the command line is wrong.
    pub(crate) const fn is_usage(&self) -> bool {
        use finale::Error::{InvalidAddress, InvalidOption};
        matches!(
            self,
            Self::Usage(_)
                | Self::Process { .. }
                | Self::Reactor(InvalidOption(_))
                | Self::Listen { source: InvalidAddress(_) | InvalidOption(_), .. }
                | Self::Connect { source: InvalidAddress(_) | InvalidOption(_), .. }
        )
    }
}

impl From<finale::Error> for Error {
    fn from(error: finale::Error) -> Self {
        Self::Reactor(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reactor(error) => error.fmt(f),
            Self::Failed { failed, finished, first, hint, overload } => {
                let plural = if *finished == 1 { "" } else { "s" };
                write!(f, "{failed} of {finished} connection{plural} failed; the first failure: {first}{hint}")?;
                overload.as_ref().map_or(Ok(()), |overload| write!(f, "; and {overload}"))
            }
            Self::Overloaded(overload) => overload.fmt(f),
            Self::Merge(why) => f.write_str(why),
            Self::Interrupted { signal, what } => write!(f, "interrupted by {signal}; {what}"),
            Self::Descriptors { in_flight, needed, allowed } => write!(
                f,
                "--in-flight {in_flight} needs {needed} descriptors, and the limit is {allowed}; \
                 lower --in-flight, or raise the limit with ulimit -Hn"
            ),
            Self::Broken { seed, broken } => write!(f, "seed {seed} broke {broken}"),
            Self::Listen {
                source: source @ finale::Error::Listen { addr: finale::Target::Unix(addr), .. }, ..
            } => {
                let file = addr.file().and_then(|path| std::fs::symlink_metadata(path).ok());
                let hint = match file.map(|meta| meta.file_type().is_socket()) {
                    Some(true) => "; a server uses that file; choose another path with --listen",
                    Some(false) => "; the file at that path is no socket; choose another path with --listen",
                    None => "",
                };
                write!(f, "{source}{hint}")
            }
            Self::Listen { source: source @ finale::Error::Listen { .. }, .. } => {
                write!(f, "{source}; choose another address with --listen; port 0 takes any free port")
            }
            Self::Listen { addr: text, source } | Self::Connect { target: text, source } => {
                write!(f, "'{text}': {source}")
            }
            Self::Stdout(error) => write!(f, "can't write to stdout: {error}"),
            Self::Io { action, source } => write!(f, "can't {action}: {source}"),
            Self::Lesson(error) => write!(f, "the lesson failed: {error}"),
            Self::Scene(what) => f.write_str(what),
            Self::Usage(what) => f.write_str(what),
            Self::NotProbed { target, reason } => write!(f, "{target} could not be probed: {reason}"),
            Self::NotTried { cases, reason } => write!(f, "{cases} could not be tried: {reason}"),
            Self::Process { pid, source } => write!(f, "--server-pid {pid}: can't read its CPU time: {source}"),
            Self::Reported { exit_code } => write!(f, "exit code {exit_code}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Reactor(source) | Self::Listen { source, .. } | Self::Connect { source, .. } => Some(source),
            Self::Stdout(source) | Self::Io { source, .. } | Self::Process { source, .. } => Some(source),
            Self::Lesson(source) => Some(source.as_ref()),
            Self::Scene(_) | Self::Usage(_) | Self::Reported { .. } => None,
            Self::Broken { .. } | Self::Failed { .. } | Self::Overloaded(_) | Self::Merge(_) => None,
            Self::Interrupted { .. } | Self::Descriptors { .. } => None,
            Self::NotProbed { .. } | Self::NotTried { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    use super::*;

    #[test]
    fn a_signal_has_its_name_and_the_exit_code_of_a_shell() {
        let of = |number| (Signal(number).to_string(), Signal(number).exit_code());
        assert_eq!(of(SIGINT), ("SIGINT".to_owned(), 130));
        assert_eq!(of(SIGTERM), ("SIGTERM".to_owned(), 143));
        assert_eq!(of(SIGHUP), ("SIGHUP".to_owned(), 129));
    }

    #[test]
    fn an_error_has_the_exit_code_of_its_kind() {
        let code = |error: Error| error.exit_code();
        let interrupted = Error::Interrupted { signal: Signal(SIGTERM), what: String::new() };
        assert_eq!([code(interrupted), code(Error::Reported { exit_code: 129 })], [143, 129]);
        assert_eq!([code(Error::usage("wrong")), code(Error::Merge(String::new()))], [2, 1]);
    }
}
