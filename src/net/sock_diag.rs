//! Queries a connection over netlink (sock_diag(7)): when did its peer last take bytes? No call on
//! its descriptor gives that in safe code. A query runs only when a limit has expired.
//!
//! Invariant: a result is about the socket in question, or there is none. The query never blocks.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};
use socket2::Socket;

use super::KernelView;

/// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h: the type of the request and of its reply.
const BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
/// `NLMSG_ERROR` of linux/netlink.h.
const ERROR: u16 = 2;
/// `INET_DIAG_INFO` of linux/inet_diag.h: the reply contains a `tcp_info`.
const INFO: u16 = 2;
/// `TCP_RTO_MAX` of net/tcp.h.
const LONGEST_RTO_MS: u32 = 120_000;
/// TCP_CA_Loss of linux/tcp.h: the retransmission timer has run out.
const LOSS: u8 = 4;
const IPPROTO_TCP: u8 = 6;
const ANY_STATE: [u8; 4] = [u8::MAX; 4];
/// The length of a request.
const REQUEST: u32 = 72;
/// Lengths of `nlmsghdr` and `inet_diag_msg`; attributes follow.
const HEADER: usize = 16;
const MESSAGE: usize = 72;
/// Where `inet_diag_msg` has the socket's cookie.
const COOKIE: usize = 44;
/// And its two queues.
const QUEUES: usize = 56;
/// The states of net/tcp_states.h, from 1 on, in the words of RFC 9293.
#[rustfmt::skip]
const STATES: [&str; 12] = [
    "ESTABLISHED", "SYN-SENT", "SYN-RECEIVED", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT", "CLOSED", "CLOSE-WAIT",
    "LAST-ACK", "LISTEN", "CLOSING", "SYN-RECEIVED",
];

/// A netlink socket, opened by the first query.
#[derive(Debug, Default)]
pub(super) struct SockDiag {
    netlink: Option<OwnedFd>,
    /// The number of the last query.
    queries: u32,
}

impl SockDiag {
    /// What `read` finds in what the kernel says of a connection. `None` if it says nothing: of a
    /// socket of another network namespace, and of a Unix domain socket. An error if it can't be
    /// queried now (ENOBUFS, ENOMEM, EMFILE), or never, as in some sandboxes. The peer is needed in
    /// SYN-SENT, and when TIME-WAIT has begun: there getpeername(2) fails.
    pub(super) fn query<T>(
        &mut self,
        socket: &Socket,
        peer: Option<SocketAddr>,
        read: fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let netlink = match self.netlink.take() {
            Some(netlink) => netlink,
            None => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG))
                    .inspect_err(|errno| log::debug!("no sock_diag socket: {errno}"))?
            }
        };
        let netlink = self.netlink.insert(netlink);
        self.queries = self.queries.wrapping_add(1);
        let Some((cookie, request)) = request(self.queries, socket, peer) else { return Ok(None) };
        send(&*netlink, &request, SendFlags::empty())?;
        // The kernel replies before send(2) returns. Another number is that of an earlier query.
        let mut buffer = [0; 2048];
        loop {
            let (_, length) = recv(&*netlink, &mut buffer, RecvFlags::empty())?;
            let reply = buffer.get(..length).unwrap_or_default();
            if word(reply, 8).is_none_or(|number| number == self.queries) {
                return Ok(message(reply, cookie)?.and_then(read));
            }
        }
    }
}

/// SO_COOKIE, as `inet_diag_sockid` holds it.
fn cookie(socket: &Socket) -> Option<[u8; 8]> {
    let cookie = socket.cookie().ok()?;
    [cookie as u32, (cookie >> 32) as u32].map(u32::to_ne_bytes).concat().try_into().ok()
}

/// The socket's cookie, with an `nlmsghdr` and an `inet_diag_req_v2`.
fn request(number: u32, socket: &Socket, peer: Option<SocketAddr>) -> Option<([u8; 8], Vec<u8>)> {
    // A listener, or a connection of another namespace, can have the same addresses.
    let cookie = cookie(socket)?;
    // A connection to an unspecified address has another peer.
    let peer = socket.peer_addr().ok().and_then(|addr| addr.as_socket()).or(peer)?;
    let local = socket.local_addr().ok()?.as_socket()?;
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // A socket bound to a device (SO_BINDTODEVICE, VRF, link-local address) is found only with that
    // device.
    let device = socket.device_index_v4().ok().flatten().map_or(0, NonZeroU32::get);
    let header = [BY_FAMILY, NLM_F_REQUEST].map(u16::to_ne_bytes).concat();
    let protocol = [u8::try_from(family.as_raw()).ok()?, IPPROTO_TCP, 1 << (INFO - 1), 0];
    let ports = [local.port(), peer.port()].map(u16::to_be_bytes).concat();
    let addrs = match (local.ip(), peer.ip()) {
        // An IPv4 peer of an IPv6 socket.
        (IpAddr::V6(local), IpAddr::V4(peer)) => [local, peer.to_ipv6_mapped()].map(|ip| sixteen(ip.into())).concat(),
        (local, peer) => [local, peer].map(sixteen).concat(),
    };
    let [length, number, device] = [REQUEST, number, device].map(u32::to_ne_bytes);
    let request = [&length, &*header, &number, &[0; 4], &protocol, &ANY_STATE, &ports, &addrs, &device, &cookie];
    Some((cookie, request.concat()))
}

fn sixteen(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()) << 96).to_be_bytes(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// The `inet_diag_msg` with its attributes. `None` for another socket, and for no such connection.
fn message(reply: &[u8], cookie: [u8; 8]) -> rustix::io::Result<Option<&[u8]>> {
    let message = reply.get(HEADER..).unwrap_or_default();
    let kind = half(reply, 4);
    if kind == Some(ERROR) {
        // An `nlmsgerr` begins with the errno, as a negative number.
        let errno = word(message, 0).filter(|errno| *errno != 0);
        let errno = errno.map(|errno| Errno::from_raw_os_error(errno.wrapping_neg() as i32));
        return errno.filter(|errno| *errno != Errno::NOENT).map_or(Ok(None), Err);
    }
    let is_own = kind == Some(BY_FAMILY) && message.get(COOKIE..COOKIE + 8) == Some(&cookie);
    Ok(is_own.then_some(message))
}

/// How long ago the peer's kernel last took bytes of ours.
pub(super) fn time_since_acked(message: &[u8]) -> Option<Duration> {
    let mut attributes = message.get(MESSAGE..)?;
    while half(attributes, 2)? != INFO {
        attributes = attributes.get(usize::from(half(attributes, 0)?.max(4)).next_multiple_of(4)..)?;
    }
    taken(attributes.get(4..)?)
}

pub(super) fn kernel_view(message: &[u8]) -> Option<KernelView> {
    let state = STATES.get(usize::from(*message.get(1)?).checked_sub(1)?)?;
    Some(KernelView { state, unread: word(message, QUEUES)?, unacked: word(message, QUEUES + 4)? })
}

/// Computed from a `tcp_info` (linux/tcp.h), which has no such time. An acknowledgement proves
/// nothing: a peer that takes nothing still acknowledges window probes, and sends bytes of its own.
/// But
///
/// - what is retransmitted was not taken since it was sent, and the times between retransmissions
///   are known (a peer that has made its window smaller than what is in flight acknowledges each
///   retransmission and takes none: Linux counts these as a backoff alone, and only since 6.5);
/// - while bytes wait to be sent, whatever the peer takes makes room for the next of them;
/// - bytes in flight that were not retransmitted are acknowledged piece by piece;
/// - if everything is acknowledged, the last byte was taken after it was sent.
fn taken(info: &[u8]) -> Option<Duration> {
    let rto_ms = word(info, 8)? / 1000;
    let (in_flight, unsent) = (word(info, 24)?, word(info, 144)?);
    let has_timestamps = info[5] & 1 == 1;
    let retransmits = match info[2] {
        // The backoff of window probes is one of other states, and one that is over is reset by the
        // next measured round trip, which needs timestamps.
        0 if info[1] == LOSS && in_flight > 0 && has_timestamps => info[4],
        retransmits => retransmits,
    };
    let retransmits = u32::from(retransmits.min(31));
    let (sent_ago_ms, acknowledged_ago_ms) = (word(info, 44)?, word(info, 56)?);
    let ms = if retransmits > 0 {
        // The time to the next retransmission doubles each time, and the last of these times is
        // running. From 200 ms it doubles ten times to reach two minutes, where it stays.
        let longest = if rto_ms >= LONGEST_RTO_MS { retransmits.saturating_sub(10) } else { 0 };
        let retransmitting = (rto_ms - (rto_ms >> retransmits)).saturating_add(longest.saturating_mul(rto_ms));
        sent_ago_ms.saturating_add(retransmitting).max(acknowledged_ago_ms)
    } else if in_flight > 0 && unsent == 0 {
        sent_ago_ms.min(acknowledged_ago_ms)
    } else {
        sent_ago_ms
    };
    // The kernel counts in ticks of up to 10 ms. A result that is too small makes no limit early.
    Some(Duration::from_millis(u64::from(ms).saturating_sub(10)))
}

#[cfg(test)]
mod tests;
