//! The sockets on which `serve` listens: its own, or those that its parent passed.
//!
//! Invariant: every socket is kept here as well as in the reactor, so that it can be passed to the
//! next process. A socket file is removed by the last process that serves it: a new process removes
//! it once it has taken over, and the old process no longer does.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use finale::{BoundAddr, ListenOptions, OsError, Reactor, Target, UnixAddr};
use listenfd::ListenFd;
use socket2::{Domain, SockAddr, Socket, Type};

use super::defer_accept;
use super::options::ServeOptions;
use crate::errors::Error;

/// The backlog, as long as that of finale's own listeners.
const BACKLOG: i32 = 4096;

/// The variable that names the socket file that the new process has to remove, once it serves.
pub(super) const SOCKET_FILE: &str = "FINALE_SOCKET_FILE";

/// What the new process gets.
pub(super) struct Inheritance {
    /// Copies of our listening sockets.
    pub(super) sockets: Vec<OwnedFd>,
    /// The socket file that we would have to remove.
    pub(super) file: Option<PathBuf>,
}

/// The listening sockets.
pub(super) struct Sockets {
    sockets: Vec<Socket>,
    /// The file that we have to remove.
    file: Option<PathBuf>,
    /// The same, once we serve: until then it belongs to the process that has started us.
    inherited_file: Option<PathBuf>,
    inherited: bool,
}

impl Sockets {
    /// The sockets that were passed, or otherwise one for `--listen`.
    pub(super) fn open(options: &ServeOptions) -> Result<Self, Error> {
        let mut passed = ListenFd::from_env();
        if passed.len() > 0 {
            return Self::inherit(&mut passed);
        }
        let error = |source| Error::Listen { addr: options.listen.clone(), source };
        let target = Target::try_from(options.listen.as_str()).map_err(error)?;
        let file = if let Target::Unix(addr) = &target { addr.file().map(Into::into) } else { None };
        let opened = match &target {
            Target::Unix(addr) => open_unix(addr).map(|socket| vec![socket]),
            Target::Addr(addr) => open_shards(*addr, options),
            _ => return Err(error(finale::Error::InvalidAddress(finale::AddressError::NotAnAddress))),
        };
        let refused = |why| error(finale::Error::Listen { addr: target, source: OsError::from(&why) });
        Ok(Self { sockets: opened.map_err(refused)?, file, inherited_file: None, inherited: false })
    }

    fn inherit(passed: &mut ListenFd) -> Result<Self, Error> {
        let mut sockets = Vec::new();
        for slot in 0..passed.len() {
            let socket = match passed.take_tcp_listener(slot) {
                Ok(socket) => socket.map(Socket::from),
                Err(_) => passed
                    .take_unix_listener(slot)
                    .map_err(|_why| {
                        Error::usage(format!(
                            "LISTEN_FDS: descriptor {} is not a listening stream socket; pass listening sockets only",
                            slot + 3
                        ))
                    })?
                    .map(Socket::from),
            };
            sockets.extend(socket);
        }
        if sockets.is_empty() {
            return Err(Error::usage("LISTEN_FDS: no socket was passed; unset the variable or pass listening sockets"));
        }
        let inherited_file = std::env::var_os(SOCKET_FILE).map(PathBuf::from);
        Ok(Self { sockets, file: None, inherited_file, inherited: true })
    }

    /// Whether the parent has passed them.
    pub(super) const fn are_inherited(&self) -> bool {
        self.inherited
    }

    /// Gives each reactor its share of the sockets. With fewer sockets than reactors, some reactors
    /// share one. Returns the addresses as text.
    pub(super) fn listen(&self, reactors: &mut [Reactor], options: &ListenOptions) -> Result<Vec<String>, Error> {
        let count = reactors.len();
        let mut addresses: Vec<String> = Vec::new();
        for slot in 0..self.sockets.len().max(count) {
            let socket = &self.sockets[slot % self.sockets.len()];
            let address = listen_on(socket, &mut reactors[slot % count], options)?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }

    /// This process serves: it has to remove the inherited socket file.
    pub(super) fn take_over(&mut self) {
        self.file = self.file.take().or(self.inherited_file.take());
    }

    /// Copies of all of them, for another process.
    pub(super) fn inheritance(&self) -> io::Result<Inheritance> {
        let copy = |socket: &Socket| socket.try_clone().map(OwnedFd::from);
        let sockets = self.sockets.iter().map(copy).collect::<io::Result<_>>()?;
        Ok(Inheritance { sockets, file: self.file.clone() })
    }

    /// Closes our copies, and removes the socket file. As long as a copy is open, clients connect
    /// and are never accepted.
    pub(super) fn close(&mut self) {
        self.sockets.clear();
        if let Some(file) = self.file.take()
            && let Err(error) = std::fs::remove_file(&file)
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!("can't remove the socket file {}: {error}", file.display());
        }
    }

    /// Another process listens on them now, and has to remove the socket file.
    pub(super) fn detach(&mut self) {
        self.sockets.clear();
        self.file = None;
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.close();
    }
}

fn listen_on(socket: &Socket, reactor: &mut Reactor, options: &ListenOptions) -> Result<String, Error> {
    let copied = |error| Error::io("copy a descriptor", error);
    let name = name_of(&socket.local_addr().map_err(copied)?);
    let listener = reactor.adopt(socket.try_clone().map_err(copied)?, options.clone())?;
    Ok(match (listener.addr, name) {
        (BoundAddr::Unix, Some(name)) => name.to_string(),
        (BoundAddr::Unix, None) => "unix:(no name)".to_owned(),
        (addr, _) => addr.to_string(),
    })
}

fn name_of(addr: &SockAddr) -> Option<UnixAddr> {
    addr.as_abstract_namespace().map(UnixAddr::abstract_name).or_else(|| addr.as_pathname().map(UnixAddr::path))
}

/// One socket for each shard. All share the port that was chosen for port 0.
fn open_shards(addr: SocketAddr, options: &ServeOptions) -> io::Result<Vec<Socket>> {
    let mut sockets = vec![open_tcp(addr, options)?];
    let addr = sockets[0].local_addr()?.as_socket().unwrap_or(addr);
    for _ in 1..options.shards {
        sockets.push(open_tcp(addr, options)?);
    }
    Ok(sockets)
}

fn open_tcp(addr: SocketAddr, options: &ServeOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.reuse_port || options.shards > 1)?;
    if let Some(wait) = options.defer_accept {
        defer_accept::set(&socket, wait)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn open_unix(addr: &UnixAddr) -> io::Result<Socket> {
    let name = match addr.file() {
        Some(path) => SockAddr::unix(path),
        None => SockAddr::unix(addr.to_string().replacen("unix:@", "\0", 1)),
    };
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&name?)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}
