//! The service manager that has started the server, by the protocol of sd_notify(3).
//!
//! Invariant: a manager that does not read delays the server by at most a second, until it reads
//! again. A message that can't be sent is a warning.

use std::cell::Cell;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use socket2::{SockAddr, Socket, Type};

/// Where the messages of a service go.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// The queue of the manager's socket may be full for a moment.
const SEND: Duration = Duration::from_secs(1);
/// The shortest time that the kernel knows: no time at all means no limit.
const AT_ONCE: Duration = Duration::from_millis(1);

/// The manager, if NOTIFY_SOCKET names one.
#[derive(Debug)]
pub(super) struct Manager {
    /// One or more kinds of socket to try.
    target: Option<(SockAddr, &'static [Type])>,
    /// It did not read the last message in time.
    is_stuck: Cell<bool>,
}

impl Manager {
    /// Reads NOTIFY_SOCKET.
    pub(super) fn from_env() -> Self {
        let Some(name) = env::var_os(VARIABLE).filter(|name| !name.is_empty()) else { return Self::new(None) };
        let target = target(&name)
            .map_err(|error| log::warn!("NOTIFY_SOCKET={}: {error}; nothing is sent to it", name.display()));
        Self::new(target.ok())
    }

    pub(super) const fn new(target: Option<(SockAddr, &'static [Type])>) -> Self {
        Self { target, is_stuck: Cell::new(false) }
    }

    /// Whether a manager listens for messages.
    pub(super) const fn is_present(&self) -> bool {
        self.target.is_some()
    }

    /// It serves.
    pub(super) fn ready(&self) {
        self.send("READY=1");
    }

    /// A restart begins. [`ready`](Self::ready) or [`passed_on`](Self::passed_on) ends it.
    pub(super) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// Another process is the service from now on. To be sent before this one ends: the end of the
    /// main process is the end of the service.
    pub(super) fn passed_on(&self, pid: u32) {
        self.send(&format!("MAINPID={pid}\nREADY=1"));
    }

    /// The service stops.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, message: &str) {
        let Some((addr, kinds)) = &self.target else { return };
        let sent = send(addr, kinds, message.as_bytes(), self.limit());
        self.is_stuck.set(sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
        if let Err(error) = sent {
            log::warn!("can't send {} to NOTIFY_SOCKET: {error}", message.replace('\n', " "));
        }
    }

    /// How long to wait for room in its queue.
    const fn limit(&self) -> Duration {
        if self.is_stuck.get() { AT_ONCE } else { SEND }
    }
}

fn send(addr: &SockAddr, kinds: &[Type], message: &[u8], limit: Duration) -> io::Result<()> {
    let connect = |kind: &Type| {
        let socket = Socket::new(addr.domain(), *kind, None)?;
        socket.set_write_timeout(Some(limit))?;
        socket.connect(addr)?;
        Ok(socket)
    };
    let mut sockets = kinds.iter().map(connect);
    let first = sockets.next().unwrap_or_else(|| Err(io::ErrorKind::Unsupported.into()));
    // The first error is of the usual kind of socket.
    let socket = first.or_else(|error: io::Error| sockets.find_map(Result::ok).ok_or(error))?;
    send_whole(message.len(), || socket.send(message))
}

/// Tries again after a signal: a socket with a timeout is not restarted by the kernel (signal(7)).
fn send_whole(length: usize, mut send: impl FnMut() -> io::Result<usize>) -> io::Result<()> {
    loop {
        match send() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(sent) if sent != length => return Err(io::ErrorKind::WriteZero.into()),
            result => return result.map(drop),
        }
    }
}

/// The forms of the variable: a path, `@` and an abstract name, or a vsock address of the host of a
/// virtual machine.
fn target(name: &OsStr) -> io::Result<(SockAddr, &'static [Type])> {
    let bytes = name.as_bytes();
    if bytes.starts_with(b"/") {
        return Ok((SockAddr::unix(name)?, &[Type::DGRAM]));
    }
    if let Some(abstract_name) = bytes.strip_prefix(b"@") {
        let name = [b"\0", abstract_name].concat();
        return Ok((SockAddr::unix(OsStr::from_bytes(&name))?, &[Type::DGRAM]));
    }
    let text = name.to_str().unwrap_or_default();
    vsock(text).ok_or_else(|| io::Error::other("neither a path, nor @NAME, nor vsock:CID:PORT"))
}

/// `vsock:CID:PORT` or, with the kind of socket, `vsock-stream:CID:PORT`.
#[cfg(target_os = "linux")]
fn vsock(text: &str) -> Option<(SockAddr, &'static [Type])> {
    let (kind, addr) = text.split_once(':')?;
    let kinds: &[Type] = match kind {
        // Not every hypervisor has datagrams.
        "vsock" => &[Type::DGRAM, Type::SEQPACKET, Type::STREAM],
        "vsock-dgram" => &[Type::DGRAM],
        "vsock-seqpacket" => &[Type::SEQPACKET],
        "vsock-stream" => &[Type::STREAM],
        _ => return None,
    };
    let (cid, port) = addr.split_once(':')?;
    Some((SockAddr::vsock(cid.parse().ok()?, port.parse().ok()?), kinds))
}

/// Only Linux has it.
#[cfg(not(target_os = "linux"))]
fn vsock(_: &str) -> Option<(SockAddr, &'static [Type])> {
    None
}

#[cfg(test)]
mod tests {
    use socket2::Domain;

    use super::*;

    #[test]
    fn a_message_is_sent_again_after_a_signal_and_must_be_sent_whole() {
        let mut results = [Err(io::ErrorKind::Interrupted.into()), Ok(7)].into_iter();
        assert!(send_whole(7, || results.next().expect("it was sent")).is_ok());
        assert_eq!(send_whole(7, || Ok(6)).map_err(|error| error.kind()), Err(io::ErrorKind::WriteZero));
        let full = || Err(io::ErrorKind::WouldBlock.into());
        assert_eq!(send_whole(7, full).map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
    }

    #[test]
    fn a_manager_that_does_not_read_is_waited_for_once_until_it_reads_again() {
        let path = std::env::temp_dir().join(format!("finale-manager-stuck-{}", std::process::id()));
        let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("a new file");
        let manager = Manager::new(target(path.as_os_str()).ok());
        socket.set_nonblocking(true).expect("open");
        let sender = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
        sender.set_nonblocking(true).expect("open");
        while sender.send_to(b"X=1", &path).is_ok() {}
        for _ in 0..2 {
            manager.ready();
            assert_eq!(manager.limit(), AT_ONCE);
        }
        while socket.recv(&mut [0; 100]).is_ok() {}
        manager.stopping();
        assert_eq!(manager.limit(), SEND);
        assert_eq!(socket.recv(&mut [0; 100]).expect("a message"), b"STOPPING=1".len());
        std::fs::remove_file(path).expect("it is there");
    }

    #[test]
    fn every_form_of_the_variable_is_read_and_others_are_refused() {
        let kind = |name: &str| target(OsStr::new(name)).map(|(addr, kinds)| (addr.domain(), kinds.len()));
        assert_eq!(kind("/run/notify").expect("a path"), (Domain::UNIX, 1));
        let (abstract_name, _) = target(OsStr::new("@notify")).expect("an abstract name");
        assert_eq!(abstract_name.as_abstract_namespace(), Some(&b"notify"[..]));
        if cfg!(target_os = "linux") {
            assert_eq!(kind("vsock:2:1234").expect("vsock").1, 3);
            for (prefix, expected) in [("stream", Type::STREAM), ("dgram", Type::DGRAM), ("seqpacket", Type::SEQPACKET)]
            {
                let (addr, kinds) = target(OsStr::new(&format!("vsock-{prefix}:2:1234"))).expect("vsock");
                assert_eq!((addr.as_vsock_address(), kinds), (Some((2, 1234)), &[expected][..]));
            }
        }
        for wrong in ["notify", "vsock:2", "vsock:x:1", "vsock-raw:2:1", "vsock:2:1:3", "./notify"] {
            assert!(kind(wrong).is_err(), "{wrong}");
        }
        assert!(kind(&format!("/{}", "x".repeat(200))).is_err(), "a path that no socket can have");
    }
}
