//! Unix domain sockets of the real operating system: how they are opened, and a listener's file.
//!
//! Invariant: only a file that our own bind(2) has made is removed, except by `replace_stale`.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::PathBuf;

use rustix::io::Errno;
use socket2::{Domain, Socket};

use super::tcp::{self, is};
use crate::options::{ListenOptions, SystemOptions};
use crate::unix_addr::UnixAddr;

/// The file of a listener. It is removed with the listener, if it is still the same.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    file: fs::Metadata,
}

impl SocketFile {
    fn made_at(path: PathBuf) -> io::Result<Self> {
        Ok(Self { file: fs::symlink_metadata(&path)?, path })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let same = |file: fs::Metadata| (file.dev(), file.ino()) == (self.file.dev(), self.file.ino());
        if fs::symlink_metadata(&self.path).is_ok_and(same)
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("the socket file {} can't be removed: {error}", self.path.display());
        }
    }
}

/// A listening socket, and its file.
pub(super) fn listen(addr: &UnixAddr, options: &ListenOptions) -> io::Result<(Socket, Option<SocketFile>)> {
    let name = addr.name()?;
    // The program may change its directory.
    let path = addr.file().map(std::path::absolute).transpose()?;
    let socket = tcp::open(Domain::UNIX, &options.system)?;
    match socket.bind(&name) {
        Err(error) if is(&error, Errno::ADDRINUSE) && options.replace_stale => {
            remove_stale(addr, &options.system, error)?;
            socket.bind(&name)?;
        }
        bound => bound?,
    }
    // From here on the file is ours, and is removed if anything fails.
    let file = path.map(SocketFile::made_at).transpose()?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok((socket, file))
}

/// Returns a connected socket. The system connects it at once or not at all; EAGAIN (`WouldBlock`)
/// means that the listener's queue is full. `register` is called before connect(2): if it fails, no
/// connection was begun.
pub(super) fn connect(
    addr: &UnixAddr,
    options: &SystemOptions,
    register: impl Fn(&Socket) -> io::Result<()>,
) -> io::Result<Socket> {
    let socket = tcp::open(Domain::UNIX, options)?;
    register(&socket)?;
    socket.connect(&addr.name()?)?;
    Ok(socket)
}

/// Removes a socket file without a listener; any other file is in use. The probe does not block: if
/// the queue is full, there is a listener. Its owner may remove the file at any time.
fn remove_stale(addr: &UnixAddr, options: &SystemOptions, in_use: io::Error) -> io::Result<()> {
    let Some(path) = addr.file() else { return Err(in_use) };
    let gone = |error: io::Error| if is(&error, Errno::NOENT) { Ok(()) } else { Err(error) };
    match fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => {}
        Ok(_) => return Err(in_use),
        Err(error) => return gone(error),
    }
    match connect(addr, options, |_| Ok(())) {
        Err(error) if is(&error, Errno::CONNREFUSED) => fs::remove_file(path).or_else(gone),
        Err(error) if is(&error, Errno::NOENT) => Ok(()),
        _ => Err(in_use),
    }
}

#[cfg(test)]
mod tests;
