//! The file of a Unix domain socket: made here, replaced if no server uses it any more, and removed
//! at the end.
//!
//! Invariant: a file that is removed or replaced is a socket of which we know that no server uses
//! it: it was made here, by its device and inode, or connecting to it was refused.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, RawMode, flock};
use socket2::{Domain, SockAddr, Socket, Type};

/// A socket file that was made here, or by the process that has started us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Makes the socket listen at this path, and replaces a file that no server uses any more.
    /// `mode` are the permissions of the file.
    pub(super) fn listen(socket: &Socket, path: &Path, mode: Option<u32>, backlog: i32) -> io::Result<Self> {
        let addr = SockAddr::unix(path)?;
        // Of two servers that start together only one may find that nothing uses the file.
        let _lock = lock_folder(path);
        match bind(socket, &addr, mode) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_unused(path, &addr) => {
                log::info!("replacing {}: no server uses it any more", path.display());
                fs::remove_file(path)?;
                bind(socket, &addr, mode)?;
            }
            result => result?,
        }
        // Under the lock: until then another server would find that connecting is refused.
        socket.listen(backlog)?;
        let meta = fs::symlink_metadata(path)?;
        let path = std::path::absolute(path)?;
        Ok(Self { path, device: meta.dev(), inode: meta.ino() })
    }

    /// Removes the file, unless another one is at its path by now. The socket must be open still:
    /// then no other file has its inode.
    pub(super) fn remove(&self) {
        let _lock = lock_folder(&self.path);
        let is_ours = |meta: fs::Metadata| (meta.dev(), meta.ino()) == (self.device, self.inode);
        if !fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            return log::debug!("{} is not ours any more, and stays", self.path.display());
        }
        if let Err(error) = fs::remove_file(&self.path) {
            log::warn!("can't remove the socket file {}: {error}", self.path.display());
        }
    }

    /// As text for the next process: `DEVICE:INODE:PATH`.
    pub(super) fn to_variable(&self) -> OsString {
        let mut text = format!("{}:{}:", self.device, self.inode).into_bytes();
        text.extend_from_slice(self.path.as_os_str().as_bytes());
        OsString::from_vec(text)
    }

    /// From the text that the previous process has passed.
    pub(super) fn from_variable(text: &OsStr) -> Option<Self> {
        let mut parts = text.as_bytes().splitn(3, |byte| *byte == b':');
        let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse().ok();
        let (device, inode) = (number()?, number()?);
        let path = OsStr::from_bytes(parts.next().filter(|path| !path.is_empty())?).into();
        Some(Self { path, device, inode })
    }
}

/// The file gets its permissions as it is made: changed later, it would have others for a moment.
fn bind(socket: &Socket, addr: &SockAddr, mode: Option<u32>) -> io::Result<()> {
    let Some(mode) = mode else { return socket.bind(addr) };
    let before = rustix::process::umask(Mode::from_raw_mode((!mode & 0o777) as RawMode));
    let result = socket.bind(addr);
    rustix::process::umask(before);
    result
}

/// Whether this is the socket file of a server that has ended. A connect that does not block is
/// refused for such a file alone: a server whose queue is full lets it wait (unix(7)).
fn is_unused(path: &Path, addr: &SockAddr) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let probe = || {
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        probe.set_nonblocking(true)?;
        probe.connect(addr)
    };
    is_socket && probe().is_err_and(|error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Held until it is dropped. There is no lock if the folder can't be opened, or if a program that is
/// no server holds its lock for longer than a server does.
fn lock_folder(path: &Path) -> Option<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = File::open(folder).ok()?;
    for _ in 0..100 {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(folder),
            Err(_) => thread::park_timeout(Duration::from_millis(10)),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_for_the_next_process_names_the_file_whatever_its_path() {
        for path in ["/run/s", "/a:b/1:2:c", "/\u{fc}"] {
            let file = SocketFile { path: path.into(), device: 1, inode: 23 };
            assert_eq!(SocketFile::from_variable(&file.to_variable()), Some(file));
        }
        for wrong in ["", "/run/s", "1:2", "1:2:", "1:x:/run/s", "-1:2:/run/s"] {
            assert_eq!(SocketFile::from_variable(OsStr::new(wrong)), None, "{wrong}");
        }
    }
}
