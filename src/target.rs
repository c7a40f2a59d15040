//! An address to connect to or to listen on, or a host name with a port.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use rustix::io::Errno;

use crate::unix_addr::UnixAddr;

/// An address or a host name, with a port. Made from text (`"example.org:80"`, `"127.0.0.1:80"`,
/// `"[::1]:80"`), from a [`SocketAddr`] or a list of them, from a pair of address or name and port,
/// or from a [`UnixAddr`] (`"unix:/run/app.sock"`).
///
/// A link-local address needs its interface, by name or number: `"[fe80::1%eth0]:80"`. The name is
/// replaced by the number here; the target does not follow an interface that is created again with
/// another number.
///
/// ```
/// use finale::Target;
/// let target: Target = "localhost:7000".try_into()?;
/// assert_eq!(target.to_string(), "localhost:7000");
/// assert!(Target::try_from("localhost").is_err());
/// # Ok::<(), finale::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// An IP address.
    Addr(SocketAddr),
    /// Several addresses of one host, which race each other in this order
    /// ([`ConnectOptions::attempt_delay`](crate::ConnectOptions::attempt_delay)).
    Addrs(Box<[SocketAddr]>),
    /// A name for the resolver.
    Name {
        /// The host's name.
        host: Box<str>,
        /// The port.
        port: u16,
    },
    /// A Unix domain socket: `"unix:/run/app.sock"`, `"unix:@name"`.
    Unix(UnixAddr),
}

impl Target {
    /// The IP address, if it is just one.
    pub(crate) const fn addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Addr(addr) => Some(*addr),
            Self::Addrs(_) | Self::Name { .. } | Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Self {
        Self::Addr(addr)
    }
}

impl From<Vec<SocketAddr>> for Target {
    fn from(addrs: Vec<SocketAddr>) -> Self {
        Self::Addrs(addrs.into())
    }
}

impl From<&[SocketAddr]> for Target {
    fn from(addrs: &[SocketAddr]) -> Self {
        Self::Addrs(addrs.into())
    }
}

impl From<(IpAddr, u16)> for Target {
    fn from((ip, port): (IpAddr, u16)) -> Self {
        Self::Addr(SocketAddr::new(ip, port))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Addrs(addrs) => {
                let addrs: Vec<_> = addrs.iter().map(SocketAddr::to_string).collect();
                f.write_str(&addrs.join(","))
            }
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(addr) => addr.fmt(f),
        }
    }
}

/// The address that a [`Listener`](crate::Listener) is bound to. It can be printed, compared with a
/// [`SocketAddr`], and passed to [`Reactor::connect`](crate::Reactor::connect) and to
/// [`TcpStream::connect`](std::net::TcpStream::connect).
///
/// ```
/// use finale::{ListenOptions, Reactor};
/// let mut reactor = Reactor::new()?;
/// let listener = reactor.listen("127.0.0.1:0", ListenOptions::default())?;
/// let port = listener.addr.port().expect("it has an IP address");
/// assert_eq!(listener.addr.to_string(), format!("127.0.0.1:{port}"));
/// # Ok::<(), finale::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BoundAddr {
    /// An IP address, with the port that the kernel chose for port 0.
    Ip(SocketAddr),
    /// A Unix domain socket. Its path or name is not repeated here.
    Unix,
}

impl BoundAddr {
    /// The IP address with its port; `None` for a Unix domain socket.
    #[must_use]
    pub const fn ip(self) -> Option<SocketAddr> {
        match self {
            Self::Ip(addr) => Some(addr),
            Self::Unix => None,
        }
    }

    /// The port; `None` for a Unix domain socket.
    #[must_use]
    pub const fn port(self) -> Option<u16> {
        match self {
            Self::Ip(addr) => Some(addr.port()),
            Self::Unix => None,
        }
    }
}

impl From<SocketAddr> for BoundAddr {
    fn from(addr: SocketAddr) -> Self {
        Self::Ip(addr)
    }
}

impl PartialEq<SocketAddr> for BoundAddr {
    fn eq(&self, other: &SocketAddr) -> bool {
        self.ip() == Some(*other)
    }
}

/// Fails for a Unix domain socket.
impl ToSocketAddrs for BoundAddr {
    type Iter = std::option::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        self.ip().ok_or(Errno::AFNOSUPPORT)?.to_socket_addrs()
    }
}

impl fmt::Display for BoundAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => addr.fmt(f),
            Self::Unix => f.write_str("a Unix domain socket"),
        }
    }
}
