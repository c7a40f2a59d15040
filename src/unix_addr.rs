//! The address of a Unix domain socket: a path, or on Linux a name that is no file.
//!
//! Invariant: it fits into a `sockaddr_un` as far as anybody can say before the system was asked.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The address of a Unix domain socket (unix(7)). In text, as a [`Target`](crate::Target), it is `unix:/run/app.sock`, or
/// `unix:@name` for an abstract one.
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
    /// A file of the file system. Paths longer than some hundred bytes (108 on Linux, with the zero at the end) are refused by
    /// the system.
    #[must_use]
    pub fn path(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned() }
    }

    /// A name that is no file, and is free again when its last socket is closed. Linux only: elsewhere the system refuses it.
    #[must_use]
    pub fn abstract_name(name: impl AsRef<[u8]>) -> Self {
        let mut bytes = vec![0];
        bytes.extend_from_slice(name.as_ref());
        Self { path: OsStr::from_bytes(&bytes).into() }
    }

    /// From what stands behind `unix:`.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        match text.strip_prefix('@') {
            Some("") => None,
            Some(name) => Some(Self::abstract_name(name)),
            None if text.is_empty() => None,
            None => Some(Self::path(text)),
        }
    }

    /// As the system takes it: an abstract name begins with a zero.
    pub(crate) fn as_path(&self) -> &Path {
        &self.path
    }

    /// The file, if it is one.
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
