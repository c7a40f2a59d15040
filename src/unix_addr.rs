//! The address of a Unix domain socket: a path, or on Linux an abstract name.
//!

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use socket2::SockAddr;

/// The address of a Unix domain socket (unix(7)). As the text of a [`Target`](crate::Target) it is
/// `unix:/run/app.sock`, or `unix:@name` for an abstract name.
///
/// ```
/// use finale::UnixAddr;
/// assert_eq!(UnixAddr::path("/run/app.sock").to_string(), "unix:/run/app.sock");
/// assert_eq!(UnixAddr::abstract_name("app").to_string(), "unix:@app");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnixAddr {
    path: PathBuf,
}

impl UnixAddr {
    /// A file. Listening and connecting fail for an empty path, for one with a zero byte, and for
    /// one that is longer than the system allows (107 bytes on Linux).
    #[must_use]
    pub fn path(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned() }
    }

    /// A name without a file, of up to 107 bytes. It is free again when its last socket is closed.
    /// Linux only: elsewhere the system refuses it.
    #[must_use]
    pub fn abstract_name(name: impl AsRef<[u8]>) -> Self {
        let mut bytes = vec![0];
        bytes.extend_from_slice(name.as_ref());
        Self { path: OsStr::from_bytes(&bytes).into() }
    }

    /// From the text after `unix:`.
    pub(crate) fn from_text(text: &str) -> Self {
        text.strip_prefix('@').map_or_else(|| Self::path(text), Self::abstract_name)
    }

    /// The address for a system call. For an empty path the kernel would choose a name; socket2
    /// cuts a path at a zero byte, and has no error number for one that is too long.
    pub(crate) fn name(&self) -> Result<SockAddr, Errno> {
        match self.path.as_os_str().as_bytes() {
            [] | [0] => Err(Errno::NOENT),
            path if self.file().is_some() && path.contains(&0) => Err(Errno::INVAL),
            _ => SockAddr::unix(&self.path).map_err(|_too_long| Errno::NAMETOOLONG),
        }
    }

    /// The path of the file, unless it is an abstract name.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        let is_abstract = self.path.as_os_str().as_bytes().first() == Some(&0);
        (!is_abstract).then_some(&*self.path)
    }
}

impl From<&Path> for UnixAddr {
    fn from(path: &Path) -> Self {
        Self::path(path)
    }
}

impl From<PathBuf> for UnixAddr {
    fn from(path: PathBuf) -> Self {
        Self { path }
    }
}

impl fmt::Display for UnixAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.file() {
            Some(path) => write!(f, "unix:{}", path.display()),
            None => write!(f, "unix:@{}", String::from_utf8_lossy(&self.path.as_os_str().as_bytes()[1..])),
        }
    }
}
