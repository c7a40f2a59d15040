//! The error of a call that was refused, and the error of a connection that failed.
//!
//! There are two types, because the responsibility differs: a call returns an [`Error`], and has
//! then changed nothing. A [`ConnectionError`] happens to a connection.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::target::Target;

/// The error of a call that was refused. A refused call changes nothing; a buffer or a descriptor
/// that it was given is dropped.
///
/// ```
/// use finale::{Error, ListenOptions, Reactor};
/// let mut reactor = Reactor::new()?;
/// let first = reactor.listen("127.0.0.1:0", ListenOptions::default())?;
/// match reactor.listen(first.addr, ListenOptions::default()) {
///     Err(Error::Listen { addr, source }) => println!("{addr} is not free: {source}"),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The id is stale, or the connection is over (after `error` or `close`) or being destroyed, or
    /// the listener is closed or stopped.
    Gone,
    /// Our side has ended: by `end()`, after the grace of a stop, or with the peer's end if
    /// half-open connections are not allowed. Nothing can be written after our FIN. The connection
    /// continues.
    WriteAfterEnd,
    /// The write queue is at its limit; wait for `drain`.
    QueueFull {
        /// Bytes that wait in the queue.
        queued_bytes: usize,
        /// The limit: `write_limit` of [listeners](crate::ListenOptions::write_limit) or of
        /// outgoing connections.
        limit_bytes: usize,
    },
    /// The text is not an address.
    InvalidAddress(AddressError),
    /// The system can't use the option's value.
    InvalidOption(InvalidOption),
    /// The listener could not be opened.
    Listen {
        /// The requested address.
        addr: Target,
        /// The error of the system.
        source: OsError,
    },
    /// A call that the whole reactor depends on failed.
    System {
        /// The name of the call.
        call: &'static str,
        /// The error of the system.
        source: OsError,
    },
    /// A [pipe](crate::Pipes::pipe) into a Unix domain socket. Linux has no reset for one: its peer
    /// would take a cut stream for a whole one.
    /// [`Pipes::allow_unix_sinks`](crate::Pipes::allow_unix_sinks) permits that.
    UnixSink,
    /// The reactor that this handle belonged to no longer exists.
    ReactorGone,
}

/// What is wrong with an address.
///
/// ```
/// use finale::{AddressError, Error, Target};
/// assert_eq!(Target::try_from("localhost"), Err(Error::InvalidAddress(AddressError::NoPort)));
/// assert_eq!(Target::try_from("localhost:http"), Err(Error::InvalidAddress(AddressError::InvalidPort)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressError {
    /// There is no `:PORT` at the end, or the text is a URL.
    NoPort,
    /// The port is no number from 0 to 65535.
    InvalidPort,
    /// There is nothing before the port.
    NoHost,
    /// What is in brackets is no IPv6 address.
    NotIpv6,
    /// The interface of an IPv6 address does not exist here, as in `[fe80::1%eth9]:80`.
    NoInterface,
    /// A listener needs one address, not a host name or a list.
    NotAnAddress,
    /// The name of a Unix domain socket is empty, as after `unix:`.
    NoPath,
    /// The path or name of a Unix domain socket is longer than the system allows (107 bytes on
    /// Linux), or a path has a zero byte.
    InvalidPath,
}

/// An option whose value the system can't use, with the values that it can.
///
/// ```
/// use finale::{Error, InvalidOption, ListenOptions, Reactor};
/// let options = ListenOptions::default().send_buffer_size(0);
/// let refused = Reactor::new()?.listen("127.0.0.1:0", options);
/// assert_eq!(refused, Err(Error::InvalidOption(InvalidOption::BufferSize)));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InvalidOption {
    /// Keep-alive's idle time and interval: up to 32,767 seconds (tcp(7), `MAX_TCP_KEEPIDLE`).
    KeepAliveTime,
    /// Keep-alive's count: 1 to 127 probes (`MAX_TCP_KEEPCNT`).
    KeepAliveCount,
    /// TCP_USER_TIMEOUT: 1 ms to 24 days (`i32` milliseconds).
    UserTimeout,
    /// A buffer size: 1 byte to 1 GiB.
    BufferSize,
    /// The high-water mark is above the write limit, or zero.
    HighWaterMark,
    /// The low-water mark is not below the high one.
    LowWaterMark,
}

/// An error number of the operating system, comparable and small.
///
/// ```
/// use finale::OsError;
/// use std::io;
/// let error = OsError::from(&io::Error::from_raw_os_error(32));
/// assert_eq!(error.raw(), 32);
/// assert_eq!(io::Error::from(error).kind(), io::ErrorKind::BrokenPipe);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct OsError(i32);

impl OsError {
    /// From a raw `errno`.
    #[must_use]
    pub const fn from_raw(errno: i32) -> Self {
        Self(errno)
    }

    /// The raw `errno`; 0 if the system gave none.
    #[must_use]
    pub const fn raw(self) -> i32 {
        self.0
    }
}

impl From<&io::Error> for OsError {
    fn from(error: &io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(0))
    }
}

impl From<OsError> for io::Error {
    fn from(error: OsError) -> Self {
        match error.0 {
            0 => io::Error::other("the system gave no error number"),
            errno => io::Error::from_raw_os_error(errno),
        }
    }
}

impl fmt::Display for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from(*self))
    }
}

impl fmt::Debug for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OsError({self})")
    }
}

impl std::error::Error for OsError {}

/// For conversions that can't fail.
impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => {
                f.write_str("it is gone: the socket was destroyed or has delivered close, or the listener is closed")
            }
            Self::WriteAfterEnd => f.write_str("write after end: our FIN ends the stream"),
            Self::QueueFull { queued_bytes, limit_bytes } => {
                write!(f, "the write queue is full: {queued_bytes} of {limit_bytes} bytes wait; continue after drain")
            }
            Self::InvalidAddress(bad) => write!(f, "not an address: {bad}"),
            Self::InvalidOption(bad) => write!(f, "an option's value can't be set: {bad}"),
            Self::Listen { addr, source } => write!(f, "can't listen on {addr}: {source}"),
            // Only the simulated network returns it when it waits.
            Self::System { call, source } if source.raw() == rustix::io::Errno::DEADLK.raw_os_error() => {
                write!(
                    f,
                    "{call} would never end: sockets, listeners or timers are left, and nothing can happen any more; \
                     usually a limit is missing, such as an idle timeout, or a listener is to be closed ({source})"
                )
            }
            Self::System { call, source } => write!(f, "{call} failed: {source}"),
            Self::UnixSink => f.write_str(
                "a pipe into a Unix domain socket: it has no reset, so its peer would take a cut stream for a whole \
                 one; permit that with Pipes::allow_unix_sinks",
            ),
            Self::ReactorGone => f.write_str("the reactor of this handle no longer exists"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { source, .. } | Self::System { source, .. } => Some(source),
            Self::InvalidAddress(bad) => Some(bad),
            Self::InvalidOption(bad) => Some(bad),
            Self::Gone | Self::WriteAfterEnd | Self::QueueFull { .. } | Self::UnixSink | Self::ReactorGone => None,
        }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPort => "it has no port, or is a URL; write HOST:PORT, an IPv6 address as [::1]:PORT",
            Self::InvalidPort => "its port is not a number from 0 to 65535; write HOST:PORT, or unix:/run/app.sock",
            Self::NoHost => "it has no host before the port; write HOST:PORT",
            Self::NotIpv6 => "only an IPv6 address can be in brackets, as [::1]:80",
            Self::NoInterface => "there is no interface with the name or number after %",
            Self::NoPath => "it has no path; write unix:/run/app.sock, or unix:@name for an abstract one",
            Self::InvalidPath => {
                "its path is too long for a Unix domain socket (107 bytes on Linux), or has a zero byte"
            }
            Self::NotAnAddress => {
                "a listener needs one address, as 127.0.0.1:7000, [::1]:7000 or unix:/run/app.sock, and no host name or list"
            }
        })
    }
}

impl std::error::Error for AddressError {}

impl fmt::Display for InvalidOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeepAliveTime => "keep-alive's idle time and interval go up to 32767 seconds",
            Self::KeepAliveCount => "keep-alive's count goes from 1 to 127 probes",
            Self::UserTimeout => "TCP_USER_TIMEOUT goes from 1 ms to 24 days",
            Self::BufferSize => "a buffer has from 1 byte to 1 GiB",
            Self::HighWaterMark => "the high-water mark is at least 1 byte and at most the write limit",
            Self::LowWaterMark => "the low-water mark must be below the high-water mark",
        })
    }
}

impl std::error::Error for InvalidOption {}

/// Why a connection failed: the payload of [`Event::Error`](crate::Event::Error) and part of its
/// [`Ending`](crate::Ending).
///
/// ```
/// use finale::{ConnectionError, ConnectionErrorKind, Event};
/// fn may_try_again(event: Event) -> bool {
///     let Event::Error(ConnectionError { kind, attempts, .. }) = event else { return false };
///     for attempt in attempts {
///         eprintln!("{}: {}", attempt.addr, attempt.kind);
///     }
///     matches!(kind, ConnectionErrorKind::Refused | ConnectionErrorKind::TimedOut(_))
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ConnectionError {
    /// The kind of failure.
    pub kind: ConnectionErrorKind,
    /// The system's error number, if the failure came from the system.
    pub os: Option<OsError>,
    /// Every address that was tried, with its reason, if the connection was never established.
    /// Empty otherwise.
    pub attempts: Vec<ConnectAttempt>,
    /// The reason in words, if a layer on the connection has failed, such as TLS.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub detail: Option<Box<str>>,
}

/// One address that was tried, and why it failed.
///
/// ```
/// use finale::{ConnectAttempt, ConnectionErrorKind};
/// fn refused(attempts: &[ConnectAttempt]) -> usize {
///     attempts.iter().filter(|attempt| attempt.kind == ConnectionErrorKind::Refused).count()
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ConnectAttempt {
    /// The address.
    pub addr: SocketAddr,
    /// Why it failed.
    pub kind: ConnectionErrorKind,
}

/// The kinds of failure.
///
/// ```
/// use finale::{ConnectionErrorKind, TimeoutKind};
/// assert_eq!(ConnectionErrorKind::Reset.to_string(), "reset by the peer");
/// let timed_out = ConnectionErrorKind::TimedOut(TimeoutKind::Connect);
/// assert_eq!(timed_out.to_string(), "timed out: not connected in time");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum ConnectionErrorKind {
    /// The peer's kernel sent RST (ECONNRESET), or ours answered a send with EPIPE after one: RFC
    /// 9293 section 3.10.7.
    Reset,
    /// A timer expired.
    TimedOut(TimeoutKind),
    /// No socket listens at that address (ECONNREFUSED, of a Unix domain socket also ENOENT).
    Refused,
    /// The address can't be reached: there is no route, no such interface or address family, or a
    /// router, host or filter refused it (EHOSTUNREACH, ENETUNREACH, EACCES, EINVAL ...). For a
    /// Unix domain socket, the permissions of its file.
    Unreachable,
    /// The host name could not be resolved.
    Lookup(LookupErrorKind),
    /// No local address or port is free (EADDRNOTAVAIL, EADDRINUSE).
    NoLocalAddress,
    /// Out of descriptors, of memory, or of room in epoll (EMFILE, ENFILE, ENOBUFS, ENOMEM,
    /// ENOSPC).
    OutOfResources,
    /// The system ended the connection from outside (ECONNABORTED), for example `ss -K`.
    Aborted,
    /// Any other error of the system; [`ConnectionError::os`] has it.
    System,
    /// A layer on the connection has failed, such as TLS; [`ConnectionError::detail`] has the
    /// reason. No reactor returns it.
    Layer(LayerErrorKind),
}

/// How a layer on a connection can fail, such as TLS.
///
/// ```
/// use finale::{ConnectionErrorKind, Ending, EndingKind, LayerErrorKind};
/// fn was_cut(ending: &Ending) -> bool {
///     let EndingKind::Failed(error) = &ending.kind else { return false };
///     matches!(error.kind, ConnectionErrorKind::Layer(LayerErrorKind::Truncated))
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum LayerErrorKind {
    /// The peer's FIN, or a reset or another failure of the connection ([`ConnectionError::os`]),
    /// came before the layer's own end: bytes may be missing. In TLS that end is close_notify (RFC
    /// 8446 section 6.1).
    Truncated,
    /// The handshake of the layer failed.
    Handshake,
    /// The handshake of the layer was not done in time.
    HandshakeTimeout,
    /// What arrived is not the layer's protocol, or the peer has reported an error of ours.
    Protocol,
}

/// Why a name has no address.
///
/// ```
/// use finale::{ConnectionErrorKind, LookupErrorKind};
/// fn is_temporary(kind: ConnectionErrorKind) -> bool {
///     kind == ConnectionErrorKind::Lookup(LookupErrorKind::TryAgain)
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum LookupErrorKind {
    /// There is no such name (EAI_NONAME).
    NotFound,
    /// The resolver has no result at the moment (EAI_AGAIN).
    TryAgain,
    /// The name exists and has no address (EAI_NODATA, or an empty answer).
    NoAddress,
    /// The resolver failed in another way.
    Failed,
}

/// The timers that can end a connection.
///
/// ```
/// use finale::{ConnectionErrorKind, TimeoutKind};
/// fn is_slow_reader(kind: ConnectionErrorKind) -> bool {
///     matches!(kind, ConnectionErrorKind::TimedOut(TimeoutKind::Write | TimeoutKind::Close))
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum TimeoutKind {
    /// Ours: the connection was not established in time, all addresses included.
    Connect,
    /// Ours: half-closed, and no byte has moved for the half-closed timeout.
    HalfClosed,
    /// Ours: we have ended, and the peer did not take our bytes, acknowledge our FIN or (after
    /// `discard`) end in time.
    Close,
    /// Ours: bytes waited to be sent, and the peer's kernel took none.
    Write,
    /// Ours: the time that [`ListenOptions::deadline`](crate::ListenOptions::deadline) or
    /// [`Socket::set_deadline`](crate::Socket::set_deadline) allows has passed.
    Deadline,
    /// Ours: one side had ended, and the connection was not over within the
    /// [ending timeout](crate::ListenOptions::ending_timeout), whatever moved.
    Ending,
    /// The kernel's (ETIMEDOUT): keep-alive probes, TCP_USER_TIMEOUT or retransmissions went
    /// unanswered.
    Kernel,
}

impl ConnectionError {
    pub(crate) const fn of(kind: ConnectionErrorKind) -> Self {
        Self { kind, os: None, attempts: Vec::new(), detail: None }
    }

    /// The error of a layer on a connection, with its reason in words.
    ///
    /// ```
    /// use finale::{ConnectionError, LayerErrorKind};
    /// let error = ConnectionError::of_layer(LayerErrorKind::Truncated, "a FIN without close_notify");
    /// assert_eq!(error.to_string(), "truncated: a FIN without close_notify");
    /// ```
    #[must_use]
    pub fn of_layer(kind: LayerErrorKind, detail: impl Into<Box<str>>) -> Self {
        Self { detail: Some(detail.into()), ..Self::of(ConnectionErrorKind::Layer(kind)) }
    }

    pub(crate) fn from_os(error: &io::Error) -> Self {
        let os = OsError::from(error);
        Self {
            kind: ConnectionErrorKind::from_os(error),
            os: (os.raw() != 0).then_some(os),
            attempts: Vec::new(),
            detail: None,
        }
    }
}

impl ConnectionErrorKind {
    /// The kind of failure that an error of a socket call means. EPIPE and ENOTCONN mean a reset
    /// that a send or a shutdown noticed.
    pub(crate) fn from_os(error: &io::Error) -> Self {
        use rustix::io::Errno;
        match Errno::from_io_error(error) {
            Some(Errno::CONNRESET | Errno::PIPE | Errno::NOTCONN) => Self::Reset,
            // Of a Unix domain socket: there is no such file.
            Some(Errno::CONNREFUSED | Errno::NOENT) => Self::Refused,
            Some(
                Errno::HOSTUNREACH
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::NETDOWN
                | Errno::ACCESS
                | Errno::PERM
                | Errno::NODEV
                | Errno::AFNOSUPPORT
                | Errno::NOPROTOOPT
                | Errno::OPNOTSUPP
                | Errno::INVAL,
            ) => Self::Unreachable,
            #[cfg(target_os = "linux")]
            Some(Errno::NONET) => Self::Unreachable,
            Some(Errno::TIMEDOUT) => Self::TimedOut(TimeoutKind::Kernel),
            Some(Errno::ADDRNOTAVAIL | Errno::ADDRINUSE) => Self::NoLocalAddress,
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::NOSPC) => Self::OutOfResources,
            Some(Errno::CONNABORTED) => Self::Aborted,
            _ => Self::System,
        }
    }
}

impl fmt::Display for ConnectionErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset => f.write_str("reset by the peer"),
            Self::TimedOut(timer) => write!(f, "timed out: {timer}"),
            Self::Refused => f.write_str("refused: nothing listens there"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Lookup(cause) => write!(f, "lookup failed: {cause}"),
            Self::NoLocalAddress => f.write_str("no local address or port is free"),
            Self::OutOfResources => f.write_str("out of descriptors or memory"),
            Self::Aborted => f.write_str("aborted by the system"),
            Self::System => f.write_str("failed"),
            Self::Layer(kind) => kind.fmt(f),
        }
    }
}

impl fmt::Display for LayerErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "truncated",
            Self::Handshake => "the handshake failed",
            Self::HandshakeTimeout => "timed out: the handshake was not done in time",
            Self::Protocol => "the stream is not valid",
        })
    }
}

impl fmt::Display for LookupErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "no such name",
            Self::TryAgain => "the resolver has no result at the moment",
            Self::NoAddress => "the name has no address",
            Self::Failed => "the resolver failed",
        })
    }
}

impl fmt::Display for TimeoutKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "not connected in time",
            Self::HalfClosed => "half-closed and silent",
            Self::Close => "the end was not completed in time",
            Self::Write => "the peer took nothing for too long",
            Self::Deadline => "not done by its deadline",
            Self::Ending => "half-closed or closing for too long",
            Self::Kernel => "the peer's kernel no longer answers",
        })
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let (
            Some(os),
            ConnectionErrorKind::System | ConnectionErrorKind::Unreachable | ConnectionErrorKind::OutOfResources,
        ) = (self.os, self.kind)
        {
            write!(f, " ({os})")?;
        }
        if self.os.is_some_and(|os| os.0 == rustix::io::Errno::PROTOTYPE.raw_os_error()) {
            f.write_str(": not a stream socket")?;
        }
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        match self.attempts.as_slice() {
            [] => Ok(()),
            [only] if only.kind == self.kind => write!(f, " [{}]", only.addr),
            several => {
                for (index, attempt) in several.iter().enumerate() {
                    write!(f, "{}{}: {}", if index == 0 { " [" } else { "; " }, attempt.addr, attempt.kind)?;
                }
                f.write_str("]")
            }
        }
    }
}

impl std::error::Error for ConnectionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.os.as_ref().map(|os| os as _)
    }
}

#[cfg(test)]
mod tests;
