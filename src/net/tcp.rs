//! Stream sockets of the real operating system, their options, and the beginning of a handshake.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

use crate::options::{KeepAlive, SystemOptions};

/// How many ports are tried for a connection from a local address without a port.
const PORTS: usize = 32;

/// A socket whose handshake has begun. `register` is called before connect(2): if it fails, no
/// connection was begun. Until then epoll has it as writable and hung up, but tests that again in
/// epoll_wait(2).
///
/// bind(2) with port 0 takes a port for all destinations, and takes milliseconds when few are left.
/// The option that prevents this, IP_BIND_ADDRESS_NO_PORT, can't be set in safe code. So the port
/// is chosen here: SO_REUSEADDR allows one that other connections have, and connect(2) refuses it
/// only if one of them has the same destination.
pub(super) fn connect(
    addr: SocketAddr,
    options: &SystemOptions,
    local: Option<SocketAddr>,
    register: impl Fn(&Socket) -> io::Result<()>,
) -> io::Result<Socket> {
    let begin = |local: Option<&SockAddr>| begin(addr, options, local, &register);
    let Some(local) = local else { return begin(None) };
    let mut probes = Vec::new();
    while local.port() == 0 && probes.len() < PORTS {
        let Ok((probe, chosen)) = port(local) else { break };
        // Kept, so that the next probe gets another port.
        probes.push(probe);
        match begin(Some(&chosen)) {
            Err(error) if is(&error, Errno::ADDRINUSE) || is(&error, Errno::ADDRNOTAVAIL) => {}
            // The probes have taken the last descriptors.
            Err(error) if is(&error, Errno::MFILE) || is(&error, Errno::NFILE) => break,
            begun => return begun,
        }
    }
    drop(probes);
    begin(Some(&local.into()))
}

pub(super) fn is(error: &io::Error, errno: Errno) -> bool {
    Errno::from_io_error(error) == Some(errno)
}

/// A random port of the range for outgoing connections: the kernel chooses it for a UDP socket.
fn port(local: SocketAddr) -> io::Result<(Socket, SockAddr)> {
    let probe = Socket::new(Domain::for_address(local), Type::DGRAM, None)?;
    probe.bind(&local.into())?;
    let chosen = probe.local_addr()?;
    Ok((probe, chosen))
}

fn begin(
    addr: SocketAddr,
    options: &SystemOptions,
    local: Option<&SockAddr>,
    register: impl Fn(&Socket) -> io::Result<()>,
) -> io::Result<Socket> {
    let socket = open(Domain::for_address(addr), options)?;
    if let Some(local) = local {
        // Connections can share a port, and use it again while an earlier one is in TIME_WAIT.
        socket.set_reuse_address(true)?;
        // The port is privileged. From connect(2) EACCES means a filter or a route.
        let no_permission = |error| if is(&error, Errno::ACCESS) { Errno::ADDRNOTAVAIL.into() } else { error };
        socket.bind(local).map_err(no_permission)?;
    }
    register(&socket)?;
    match socket.connect(&addr.into()) {
        Err(error) if !is(&error, Errno::INPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// A stream socket, non-blocking and close-on-exec, with its options.
pub(super) fn open(domain: Domain, options: &SystemOptions) -> io::Result<Socket> {
    #[cfg(target_os = "linux")]
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), None)?;
    #[cfg(not(target_os = "linux"))]
    let socket = Socket::new(domain, Type::STREAM, None)?;
    #[cfg(not(target_os = "linux"))]
    socket.set_nonblocking(true)?;
    prepare(&socket, domain, options)?;
    Ok(socket)
}

pub(super) fn prepare(socket: &Socket, domain: Domain, options: &SystemOptions) -> io::Result<()> {
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    if domain == Domain::UNIX {
        return Ok(());
    }
    if options.nodelay {
        socket.set_tcp_nodelay(true)?;
    }
    let user_timeout = options.user_timeout.filter(|_| cfg!(target_os = "linux"));
    let user_timeout = user_timeout.and_then(crate::options::millis).map(Duration::from_millis);
    if let Some(times) = options.keep_alive {
        // Linux counts no probes if there is a user timeout (tcp(7)): one system call less.
        let times = if user_timeout.is_some() { probe_times(times) } else { keep_alive(times) };
        socket.set_tcp_keepalive(&times)?;
    }
    #[cfg(target_os = "linux")]
    if user_timeout.is_some() {
        socket.set_tcp_user_timeout(user_timeout)?;
    }
    Ok(())
}

pub(super) fn keep_alive(times: KeepAlive) -> TcpKeepalive {
    probe_times(times).with_retries(times.count)
}

/// Times in the kernel's unit: whole seconds, rounded up, at least one.
fn probe_times(times: KeepAlive) -> TcpKeepalive {
    let seconds = |time: Duration| Duration::from_secs((time.as_nanos().div_ceil(1_000_000_000) as u64).max(1));
    TcpKeepalive::new().with_time(seconds(times.idle)).with_interval(seconds(times.interval))
}

#[cfg(test)]
mod tests;
