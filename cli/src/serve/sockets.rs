//! The sockets on which `serve` listens: its own, or those that were passed.
//!
//! Invariant: every socket is kept here as well as in the reactor, so that it can be passed to the
//! next process. The last process that serves a socket file removes it: a new process does once it
//! has taken over, and the old process no longer does.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use finale::net::Net;
use finale::{BoundAddr, ListenOptions, ListenerId, OsError, Reactor, Target, UnixAddr};
use socket2::{Domain, SockAddr, Socket, Type};

use super::defer_accept;
use super::inherit::{Inherited, Predecessor};
use super::options::ServeOptions;
use super::socket_file::SocketFile;
use crate::errors::Error;

/// The backlog, as long as that of finale's own listeners.
const BACKLOG: i32 = 4096;

/// The listening sockets.
pub(super) struct Sockets {
    sockets: Vec<Socket>,
    /// The file that this process has to remove.
    file: Option<SocketFile>,
    /// Kept to the end: it may take the file back.
    predecessor: Option<Predecessor>,
    inherited: bool,
}

/// Where all reactors listen.
pub(super) struct Listening {
    /// As text, each once.
    pub(super) addresses: Vec<String>,
    /// Those of each reactor.
    pub(super) listeners: Vec<Vec<ListenerId>>,
}

impl Sockets {
    /// The sockets that were passed, or otherwise one for `--listen`.
    pub(super) fn open(options: &ServeOptions) -> Result<Self, Error> {
        if let Some(Inherited { sockets, predecessor }) = Inherited::from_env()? {
            if predecessor.is_none() {
                warn_of_options(options, &sockets);
            }
            return Ok(Self { sockets, file: None, predecessor, inherited: true });
        }
        let error = |source| Error::Listen { addr: options.listen.clone(), source };
        let target = Target::try_from(options.listen.as_str()).map_err(error)?;
        let opened = match &target {
            Target::Unix(addr) => open_unix(addr, options)?,
            Target::Addr(_) if options.unix_mode.is_some() => {
                return Err(Error::usage("--unix-mode is for --listen unix:PATH; leave it out"));
            }
            Target::Addr(addr) => open_tcp(*addr, options).map(|sockets| (sockets, None)),
            _ => return Err(error(finale::Error::InvalidAddress(finale::AddressError::NotAnAddress))),
        };
        let refused = |why| error(finale::Error::Listen { addr: target, source: OsError::from(&why) });
        let (sockets, file) = opened.map_err(refused)?;
        Ok(Self { sockets, file, predecessor: None, inherited: false })
    }

    /// Whether they were passed.
    pub(super) const fn are_inherited(&self) -> bool {
        self.inherited
    }

    /// Gives each reactor its share of the sockets. With fewer sockets than reactors, some reactors
    /// share one.
    pub(super) fn listen<N: Net>(
        &self,
        reactors: &mut [Reactor<N>],
        options: &ListenOptions,
    ) -> Result<Listening, Error> {
        let count = reactors.len();
        let mut listening = Listening { addresses: Vec::new(), listeners: vec![Vec::new(); count] };
        for slot in 0..self.sockets.len().max(count) {
            let socket = &self.sockets[slot % self.sockets.len()];
            let (address, listener) = listen_on(socket, &mut reactors[slot % count], options)?;
            listening.listeners[slot % count].push(listener);
            if !listening.addresses.contains(&address) {
                listening.addresses.push(address);
            }
        }
        Ok(listening)
    }

    /// This process serves: it has to remove the predecessor's socket file. Reports it to the
    /// predecessor, and returns whether there is one.
    pub(super) fn take_over(&mut self) -> bool {
        let Some(predecessor) = &mut self.predecessor else { return false };
        self.file = predecessor.file.take();
        predecessor.ready();
        true
    }

    /// Whether the predecessor has ended this process, although it serves: they are its own again.
    pub(super) fn are_taken_back(&self) -> bool {
        self.predecessor.as_ref().is_some_and(Predecessor::has_ended_us)
    }

    /// Copies of all of them, for another process.
    pub(super) fn copies(&self) -> io::Result<Vec<OwnedFd>> {
        self.sockets.iter().map(|socket| socket.try_clone().map(OwnedFd::from)).collect()
    }

    /// The file that this process has to remove.
    pub(super) const fn file(&self) -> Option<&SocketFile> {
        self.file.as_ref()
    }

    /// Closes our copies, and removes the socket file. As long as a copy is open, clients connect
    /// and are never accepted.
    pub(super) fn close(&mut self) {
        if let Some(file) = self.file.take()
            && !self.are_taken_back()
        {
            file.remove();
        }
        self.sockets.clear();
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

/// A service manager has opened the sockets, with options of its own.
fn warn_of_options(options: &ServeOptions, sockets: &[Socket]) {
    let given = [
        ("--defer-accept", options.defer_accept.is_some()),
        ("--reuse-port", options.reuse_port),
        ("--unix-mode", options.unix_mode.is_some()),
    ];
    for (option, _) in given.iter().filter(|(_, is_given)| *is_given) {
        log::warn!("{option} has no effect on a socket that was passed (LISTEN_FDS); set it where it is opened");
    }
    let is_unix = |socket: &Socket| socket.local_addr().is_ok_and(|addr| addr.is_unix());
    if options.user_timeout.is_some() && sockets.iter().any(is_unix) {
        log::warn!("--user-timeout has no effect on a Unix domain socket (LISTEN_FDS)");
    }
}

fn listen_on<N: Net>(
    socket: &Socket,
    reactor: &mut Reactor<N>,
    options: &ListenOptions,
) -> Result<(String, ListenerId), Error> {
    let copied = |error| Error::io("copy a descriptor", error);
    let name = name_of(&socket.local_addr().map_err(copied)?);
    let listener = reactor.adopt(socket.try_clone().map_err(copied)?, options.clone())?;
    let address = match (listener.addr, name) {
        (BoundAddr::Unix, Some(name)) => name.to_string(),
        (BoundAddr::Unix, None) => "unix:(no name)".to_owned(),
        (addr, _) => addr.to_string(),
    };
    Ok((address, listener.id))
}

fn name_of(addr: &SockAddr) -> Option<UnixAddr> {
    addr.as_abstract_namespace().map(UnixAddr::abstract_name).or_else(|| addr.as_pathname().map(UnixAddr::path))
}

/// One socket for each shard. All share the port that was chosen for port 0.
///
/// The first is bound without SO_REUSEPORT, which the kernel refuses if another socket has the
/// port, and shares it afterwards: otherwise a second server, started by mistake, would get some of
/// the clients.
fn open_tcp(addr: SocketAddr, options: &ServeOptions) -> io::Result<Vec<Socket>> {
    let mut sockets = vec![bind_tcp(addr, options.reuse_port, options)?];
    let addr = sockets[0].local_addr()?.as_socket().unwrap_or(addr);
    if options.shards > 1 {
        sockets[0].set_reuse_port(true)?;
    }
    for _ in 1..options.shards {
        sockets.push(bind_tcp(addr, true, options)?);
    }
    // After all are bound: the kernel chooses among the sockets that listen.
    sockets.iter().try_for_each(|socket| socket.listen(BACKLOG))?;
    Ok(sockets)
}

fn bind_tcp(addr: SocketAddr, reuse_port: bool, options: &ServeOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    if let Some(wait) = options.defer_accept {
        defer_accept::set(&socket, wait)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}

type Opened = io::Result<(Vec<Socket>, Option<SocketFile>)>;

fn open_unix(addr: &UnixAddr, options: &ServeOptions) -> Result<Opened, Error> {
    if options.defer_accept.is_some() || options.reuse_port || options.user_timeout.is_some() {
        return Err(Error::usage("--defer-accept, --reuse-port and --user-timeout are for TCP; leave them out"));
    }
    if addr.file().is_none() && options.unix_mode.is_some() {
        return Err(Error::usage("--unix-mode: an abstract name has no permissions; leave the option out"));
    }
    let open = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        let file = match addr.file() {
            Some(path) => Some(SocketFile::listen(&socket, Path::new(path), options.unix_mode, BACKLOG)?),
            None => {
                socket.bind(&SockAddr::unix(addr.to_string().replacen("unix:@", "\0", 1))?)?;
                socket.listen(BACKLOG)?;
                None
            }
        };
        Ok((vec![socket], file))
    };
    Ok(open())
}
