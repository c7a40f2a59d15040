//! The address of a Unix domain socket: a path, or on Linux an abstract name.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use socket2::SockAddr;

/// The address of a Unix domain socket (unix(7)). As the text of a [`Target`](crate::Target) it is
/// `unix:/run/app.sock`, or `unix:@name` for an abstract name.
///
/// Such a connection has no reset. To its peer [`destroy`](crate::Socket::destroy) looks like an
/// end, and a proxy can't pass a failure on: see
/// [`Pipes::allow_unix_sinks`](crate::Pipes::allow_unix_sinks).
///
/// ```
/// use finale::UnixAddr;
/// assert_eq!(UnixAddr::path("/run/app.sock").to_string(), "unix:/run/app.sock");
/// assert_eq!(UnixAddr::abstract_name("app").to_string(), "unix:@app");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnixAddr(Kind);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Kind {
    File(PathBuf),
    Abstract(Vec<u8>),
}

impl UnixAddr {
    /// A file. Listening and connecting fail for an empty path, for one with a zero byte, and for
    /// one that is longer than the system allows (107 bytes on Linux).
    #[must_use]
    pub fn path(path: impl AsRef<Path>) -> Self {
        Self(Kind::File(path.as_ref().to_owned()))
    }

    /// A name without a file, of up to 107 bytes. It is free again when its last socket is closed.
    /// Linux only: elsewhere the system refuses it.
    #[must_use]
    pub fn abstract_name(name: impl AsRef<[u8]>) -> Self {
        Self(Kind::Abstract(name.as_ref().to_owned()))
    }

    /// From the text after `unix:`.
    pub(crate) fn from_text(text: &str) -> Self {
        text.strip_prefix('@').map_or_else(|| Self::path(text), Self::abstract_name)
    }

    /// The address for a system call. For an empty name the kernel would choose one; socket2 cuts a
    /// path at a zero byte, and has no error number for one that is too long.
    pub(crate) fn name(&self) -> Result<SockAddr, Errno> {
        let name = match &self.0 {
            Kind::File(path) if path.as_os_str().as_bytes().contains(&0) => return Err(Errno::INVAL),
            Kind::File(path) => path.as_os_str().as_bytes().to_owned(),
            Kind::Abstract(name) if name.is_empty() => return Err(Errno::NOENT),
            Kind::Abstract(name) => [b"\0", &**name].concat(),
        };
        if name.is_empty() {
            return Err(Errno::NOENT);
        }
        SockAddr::unix(OsStr::from_bytes(&name)).map_err(|_too_long| Errno::NAMETOOLONG)
    }

    /// The path of the file, unless it is an abstract name.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match &self.0 {
            Kind::File(path) => Some(path),
            Kind::Abstract(_) => None,
        }
    }
}

impl From<&Path> for UnixAddr {
    fn from(path: &Path) -> Self {
        Self::path(path)
    }
}

impl From<PathBuf> for UnixAddr {
    fn from(path: PathBuf) -> Self {
        Self(Kind::File(path))
    }
}

/// As the text of a [`Target`](crate::Target): `unix:./@name` for a file that begins with `@`.
impl fmt::Display for UnixAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::File(path) if path.as_os_str().as_bytes().starts_with(b"@") => {
                write!(f, "unix:./{}", path.display())
            }
            Kind::File(path) => write!(f, "unix:{}", path.display()),
            Kind::Abstract(name) => write!(f, "unix:@{}", String::from_utf8_lossy(name)),
        }
    }
}
