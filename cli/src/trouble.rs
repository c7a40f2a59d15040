//! Why a command could not do its work, in one line for the user.

use std::fmt;
use std::io::{self, Write as _};

/// What went wrong. Its `Display` says what, why, and what to do about it, on one line.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The reactor refused a call.
    Reactor(finale::Error),
    /// The server's address can't be listened on.
    Listen { addr: String, source: finale::Error },
    /// The client's address is none.
    Connect { target: String, source: finale::Error },
    /// The bytes have nowhere to go.
    Stdout(io::Error),
    /// The system refused something else.
    Io { to: &'static str, source: io::Error },
    /// Connections of a load failed; what the first failure looked like.
    Failed { failed: u64, finished: u64, first: String },
    /// A signal ended a load.
    Interrupted { finished: u64 },
    /// More connections at a time than the process may have descriptors.
    Descriptors { in_flight: usize, needed: u64, allowed: u64 },
    /// Arguments that don't go together.
    Usage(&'static str),
    /// The process that was named has no time that could be read.
    Process { pid: u32, why: io::Error },
    /// The lesson failed in another way.
    Lesson(Box<dyn std::error::Error>),
    /// A scene of the lesson came out differently than written.
    Scene(&'static str),
    /// A simulated run broke a rule.
    Broken { seed: u64, broken: String },
    /// The connection did not end well, and the user was told so by its ending.
    Told,
}

impl Trouble {
    /// The system's refusal, with what was to be done: "can't {to}".
    pub(crate) const fn io(to: &'static str, source: io::Error) -> Self {
        Self::Io { to, source }
    }

    /// The lesson, as a short example, puts all its errors into one box; here they come apart
    /// again.
    pub(crate) fn from_lesson(error: Box<dyn std::error::Error>) -> Self {
        match error.downcast::<io::Error>() {
            Ok(error) => Self::Stdout(*error),
            Err(error) => match error.downcast::<finale::Error>() {
                Ok(error) => Self::Reactor(*error),
                Err(error) => Self::Lesson(error),
            },
        }
    }

    /// Says it on stderr.
    pub(crate) fn tell(&self) {
        match self {
            Self::Told => {}
            _ if self.is_usage() => say(format_args!("finale: {self}; see {}", crate::args::help())),
            _ => say(format_args!("finale: {self}")),
        }
    }

    /// Whether the command line is to blame: exit code 2.
    pub(crate) const fn is_usage(&self) -> bool {
        use finale::Error::{InvalidAddress, InvalidOption};
        matches!(
            self,
            Self::Usage(_)
                | Self::Process { .. }
                | Self::Listen { source: InvalidAddress(_) | InvalidOption(_), .. }
                | Self::Connect { source: InvalidAddress(_) | InvalidOption(_), .. }
        )
    }
}

/// One line on stderr. Unlike `eprintln!` it doesn't panic when nobody reads there.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

impl From<finale::Error> for Trouble {
    fn from(error: finale::Error) -> Self {
        Self::Reactor(error)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reactor(error) => error.fmt(f),
            Self::Failed { failed, finished, first } => {
                write!(f, "{failed} of {finished} connections failed; the first: {first}")
            }
            Self::Interrupted { finished } => write!(f, "interrupted; {finished} connections were measured"),
            Self::Descriptors { in_flight, needed, allowed } => write!(
                f,
                "--in-flight {in_flight} needs {needed} descriptors and {allowed} are allowed; take fewer, or raise the limit \
                 with ulimit -Hn"
            ),
            Self::Broken { seed, broken } => write!(f, "seed {seed} broke {broken}"),
            Self::Listen { source: source @ finale::Error::ListenUnix { addr, .. }, .. } => {
                let is_socket = |meta: std::fs::Metadata| std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type());
                let is_there = addr.file().and_then(|path| std::fs::metadata(path).ok()).is_some_and(is_socket);
                write!(f, "{source}{}", if is_there { "; if no server uses that file any more, remove it" } else { "" })
            }
            Self::Listen { source: source @ finale::Error::Listen { .. }, .. } => {
                write!(f, "{source}; choose another address with --listen ADDR, port 0 takes any free port")
            }
            Self::Listen { addr: text, source } | Self::Connect { target: text, source } => {
                write!(f, "'{text}': {source}")
            }
            Self::Stdout(error) => write!(f, "can't write to stdout: {error}"),
            Self::Io { to, source } => write!(f, "can't {to}: {source}"),
            Self::Lesson(error) => write!(f, "the lesson failed: {error}"),
            Self::Scene(what) | Self::Usage(what) => f.write_str(what),
            Self::Process { pid, why } => write!(f, "--server-pid {pid}: its CPU time can't be read: {why}"),
            Self::Told => f.write_str("the connection did not end cleanly"),
        }
    }
}

impl std::error::Error for Trouble {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Reactor(source) | Self::Listen { source, .. } | Self::Connect { source, .. } => Some(source),
            Self::Stdout(source) | Self::Io { source, .. } => Some(source),
            Self::Lesson(source) => Some(source.as_ref()),
            Self::Scene(_) | Self::Usage(_) | Self::Told => None,
            Self::Process { why, .. } => Some(why),
            Self::Broken { .. } | Self::Failed { .. } | Self::Interrupted { .. } | Self::Descriptors { .. } => None,
        }
    }
}
