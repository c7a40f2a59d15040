//! Why a command failed. Each error is printed as one line: what failed, why, and what to do.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::os::unix::fs::FileTypeExt as _;

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
    Failed { failed: u64, finished: u64, first: String },
    /// A signal ended a load.
    Interrupted { finished: u64 },
    /// A load needs more descriptors than the process may have.
    Descriptors { in_flight: usize, needed: u64, allowed: u64 },
    /// Arguments that exclude each other, or an environment that they don't fit.
    Usage(Cow<'static, str>),
    /// The CPU time of this process can't be read.
    Process { pid: u32, source: io::Error },
    /// The lesson failed in another way.
    Lesson(Box<dyn std::error::Error>),
    /// A scene of a lesson did not go as it was written.
    Scene(&'static str),
    /// A simulated run broke a rule.
    Broken { seed: u64, broken: String },
    /// The connection did not end clean, and its ending was printed already.
    Reported,
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

    /// Whether the command line is wrong: exit code 2.
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
            Self::Failed { failed, finished, first } => {
                let plural = if *finished == 1 { "" } else { "s" };
                write!(f, "{failed} of {finished} connection{plural} failed; the first failure: {first}")
            }
            Self::Interrupted { finished } => {
                let plural = if *finished == 1 { " was" } else { "s were" };
                write!(f, "interrupted by a signal; {finished} connection{plural} measured")
            }
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
            Self::Process { pid, source } => write!(f, "--server-pid {pid}: can't read its CPU time: {source}"),
            Self::Reported => f.write_str("the connection did not end clean"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Reactor(source) | Self::Listen { source, .. } | Self::Connect { source, .. } => Some(source),
            Self::Stdout(source) | Self::Io { source, .. } | Self::Process { source, .. } => Some(source),
            Self::Lesson(source) => Some(source.as_ref()),
            Self::Scene(_) | Self::Usage(_) | Self::Reported => None,
            Self::Broken { .. } | Self::Failed { .. } | Self::Interrupted { .. } | Self::Descriptors { .. } => None,
        }
    }
}
