//! What `serve` listens on: sockets that it opens, or that whoever has started it has handed over.
//!
//! Invariant: every socket is kept here as well as in the reactor, to be handed over in turn; and a
//! socket file that we have made is removed by the last of us who serves: an heir removes it once
//! it has taken over, and who has handed it over does not.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use finale::{Error, ListenOptions, OsError, Reactor, Target, UnixAddr};
use listenfd::ListenFd;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::defer_accept;
use crate::handover::{Legacy, SOCKET_FILE};
use crate::serve::Serve;
use crate::trouble::Trouble;

/// As many as may wait at finale's own listeners.
const BACKLOG: i32 = 4096;

enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The listening sockets.
pub(crate) struct Sockets {
    sockets: Vec<Listening>,
    /// The file that is ours to remove.
    file: Option<PathBuf>,
    /// The same, once we serve: until then it is whose heir we are.
    file_to_come: Option<PathBuf>,
    inherited: bool,
}

impl Sockets {
    /// Those that were handed over, else the one that `--listen` says.
    pub(crate) fn open(options: &Serve) -> Result<Self, Trouble> {
        let mut handed_over = ListenFd::from_env();
        if handed_over.len() > 0 {
            return Self::inherit(&mut handed_over);
        }
        let trouble = |source| Trouble::Listen { addr: options.listen.clone(), source };
        match Target::try_from(options.listen.as_str()).map_err(trouble)? {
            Target::Unix(addr) => {
                let refused =
                    |error: &io::Error| trouble(Error::ListenUnix { addr: addr.clone(), source: error.into() });
                let socket = open_unix(&addr).map_err(|error| refused(&error))?;
                Ok(Self {
                    sockets: vec![Listening::Unix(socket)],
                    file: addr.file().map(Into::into),
                    file_to_come: None,
                    inherited: false,
                })
            }
            Target::Addr(addr) => {
                let refused = |error: &io::Error| trouble(Error::Listen { addr, source: OsError::from(error) });
                let mut sockets = vec![open_tcp(addr, options).map_err(|error| refused(&error))?];
                // Port 0 is chosen once.
                let addr = sockets[0].local_addr().map_err(|error| refused(&error))?;
                for _ in 1..options.shards {
                    sockets.push(open_tcp(addr, options).map_err(|error| refused(&error))?);
                }
                let sockets = sockets.into_iter().map(Listening::Tcp).collect();
                Ok(Self { sockets, file: None, file_to_come: None, inherited: false })
            }
            _ => Err(trouble(Error::InvalidAddress(finale::AddressError::NotAnIp))),
        }
    }

    fn inherit(handed_over: &mut ListenFd) -> Result<Self, Trouble> {
        let mut sockets = Vec::new();
        for place in 0..handed_over.len() {
            let tcp = handed_over.take_tcp_listener(place);
            let socket = match tcp {
                Ok(socket) => socket.map(Listening::Tcp),
                Err(_) => handed_over
                    .take_unix_listener(place)
                    .map_err(|_why| {
                        Trouble::Usage("LISTEN_FDS: a descriptor that was handed over is no listening stream socket")
                    })?
                    .map(Listening::Unix),
            };
            sockets.extend(socket);
        }
        if sockets.is_empty() {
            return Err(Trouble::Usage("LISTEN_FDS says that sockets were handed over, and there are none"));
        }
        let file_to_come = std::env::var_os(SOCKET_FILE).map(PathBuf::from);
        Ok(Self { sockets, file: None, file_to_come, inherited: true })
    }

    /// Whether somebody has handed them over.
    pub(crate) const fn are_inherited(&self) -> bool {
        self.inherited
    }

    /// Has each reactor listen on its share of them; where there are fewer sockets than reactors,
    /// some share one. Answers in words where they listen.
    pub(crate) fn listen(&self, reactors: &mut [Reactor], options: &ListenOptions) -> Result<Vec<String>, Trouble> {
        let count = reactors.len();
        let mut places: Vec<String> = Vec::new();
        for place in 0..self.sockets.len().max(count) {
            let socket = &self.sockets[place % self.sockets.len()];
            let text = listen_on(socket, &mut reactors[place % count], options)?;
            if !places.contains(&text) {
                places.push(text);
            }
        }
        Ok(places)
    }

    /// We serve: what was handed over is ours.
    pub(crate) fn take_over(&mut self) {
        self.file = self.file.take().or(self.file_to_come.take());
    }

    /// Copies of all of them, for another process.
    pub(crate) fn legacy(&self) -> io::Result<Legacy> {
        let copy = |socket: &Listening| match socket {
            Listening::Tcp(socket) => socket.try_clone().map(OwnedFd::from),
            Listening::Unix(socket) => socket.try_clone().map(OwnedFd::from),
        };
        let sockets = self.sockets.iter().map(copy).collect::<io::Result<_>>()?;
        Ok(Legacy { sockets, file: self.file.clone() })
    }

    /// Nobody listens any more: our copies would keep clients coming, whom nobody accepts.
    pub(crate) fn close(&mut self) {
        self.sockets.clear();
        if let Some(file) = self.file.take()
            && let Err(error) = std::fs::remove_file(&file)
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!("the socket file {} can't be removed: {error}", file.display());
        }
    }

    /// Somebody else listens on them now.
    pub(crate) fn detach(&mut self) {
        self.sockets.clear();
        self.file = None;
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.close();
    }
}

fn listen_on(socket: &Listening, reactor: &mut Reactor, options: &ListenOptions) -> Result<String, Trouble> {
    let copied = |error| Trouble::io("copy a descriptor", error);
    Ok(match socket {
        Listening::Tcp(socket) => {
            reactor.listen_on(socket.try_clone().map_err(copied)?, options.clone())?.addr.to_string()
        }
        Listening::Unix(socket) => {
            let name = name_of(&socket.local_addr().map_err(copied)?);
            reactor.listen_on_unix(socket.try_clone().map_err(copied)?, options.clone())?;
            name.map_or_else(|| "unix:(no name)".to_owned(), |name| name.to_string())
        }
    })
}

fn name_of(addr: &std::os::unix::net::SocketAddr) -> Option<UnixAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = std::os::linux::net::SocketAddrExt::as_abstract_name(addr) {
        return Some(UnixAddr::abstract_name(name));
    }
    addr.as_pathname().map(UnixAddr::path)
}

fn open_tcp(addr: SocketAddr, options: &Serve) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.reuse_port || options.shards > 1)?;
    if let Some(wait) = options.defer_accept {
        defer_accept::set(&socket, wait)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn open_unix(addr: &UnixAddr) -> io::Result<UnixListener> {
    let name = match addr.file() {
        Some(path) => SockAddr::unix(path),
        None => SockAddr::unix(addr.to_string().replacen("unix:@", "\0", 1)),
    };
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&name?)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
