//! What the kernel knows of a connection and no call on its descriptor says in safe code: whether the peer still takes what was sent.
//!
//! A program may ask for its own network's sockets over netlink (sock_diag(7)), one question and one answer a connection. Asked only
//! when a limit has run out, so it costs nothing where none does.
//!
//! Invariant: an answer that does not come, or can't be read, is no answer; nothing waits for it.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

/// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h: the kind of the question, and of its answer.
const BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
/// `INET_DIAG_INFO` of linux/inet_diag.h: the answer has a `tcp_info` in it.
const INFO: u16 = 2;
/// `TCP_RTO_MAX` of net/tcp.h.
const LONGEST_RTO_MS: u32 = 120_000;
/// Lengths of `nlmsghdr` and `inet_diag_msg`, behind which attributes stand.
const HEADER: usize = 16;
const MESSAGE: usize = 72;

/// The way to the kernel, once it was needed.
#[derive(Debug, Default)]
pub(super) struct Diag {
    socket: Option<OwnedFd>,
    /// Numbers the questions, so that no answer is taken for another's.
    asked: u32,
}

impl Diag {
    /// How long ago the peer's kernel has last taken something of ours; `None` if the kernel does not say.
    pub(super) fn time_since_acked(&mut self, local: SocketAddr, peer: SocketAddr) -> Option<Duration> {
        if self.socket.is_none() {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let opened = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG));
            self.socket = opened.inspect_err(|errno| log::debug!("no socket to ask the kernel with: {errno}")).ok();
        }
        let socket = self.socket.as_ref()?;
        self.asked = self.asked.wrapping_add(1);
        send(socket, &question(self.asked, local, peer)?, SendFlags::empty()).ok()?;
        // It is there when the question is sent; one that came late before it is another's.
        let mut buffer = [0; 2048];
        loop {
            let (_, length) = recv(socket, &mut buffer, RecvFlags::empty()).ok()?;
            let answer = buffer.get(..length)?;
            if word(answer, 8)? == self.asked {
                return read(answer, local.port(), peer.port());
            }
        }
    }
}

/// An `nlmsghdr` and an `inet_diag_req_v2`.
fn question(number: u32, local: SocketAddr, peer: SocketAddr) -> Option<Vec<u8>> {
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let scope = if let SocketAddr::V6(local) = local { local.scope_id() } else { 0 };
    let mut body = vec![u8::try_from(family.as_raw()).ok()?, 6, 1 << (INFO - 1), 0];
    body.extend(u32::MAX.to_ne_bytes()); // In whatever state.
    body.extend(local.port().to_be_bytes());
    body.extend(peer.port().to_be_bytes());
    body.extend(sixteen(local.ip()));
    body.extend(sixteen(peer.ip()));
    body.extend(scope.to_ne_bytes());
    body.extend([u8::MAX; 8]); // INET_DIAG_NOCOOKIE: the addresses are enough.
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(u32::try_from(HEADER + body.len()).ok()?.to_ne_bytes());
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend(number.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(body);
    Some(message)
}

fn sixteen(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The four bytes from here on as a number.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn read(answer: &[u8], local: u16, peer: u16) -> Option<Duration> {
    if half(answer, 4)? != BY_FAMILY {
        return None; // An error: no such connection.
    }
    let message = answer.get(HEADER..)?;
    // Where there is none, a listener on the same port may answer.
    let ports = [half(message, 4)?, half(message, 6)?].map(u16::from_be);
    if ports != [local, peer] {
        return None;
    }
    let mut attributes = message.get(MESSAGE..)?;
    while half(attributes, 2)? != INFO {
        attributes = attributes.get(usize::from(half(attributes, 0)?.max(4)).next_multiple_of(4)..)?;
    }
    taken(attributes.get(4..)?)
}

/// From a `tcp_info` (linux/tcp.h), which has no such time. An acknowledgement proves nothing: a peer that takes nothing answers window
/// probes, and sends bytes of its own. But
///
/// - what is repeated was not taken since it was first sent: the times between are known;
/// - where bytes wait, whatever the peer takes makes room for the next to be sent;
/// - what is on its way, and not repeated yet, is acknowledged piece by piece;
/// - if all is acknowledged, the last of it was taken after it was sent.
fn taken(info: &[u8]) -> Option<Duration> {
    let repeats = u32::from(*info.get(2)?.min(&31));
    let rto_ms = word(info, 8)? / 1000;
    let (on_its_way, unsent) = (word(info, 24)?, word(info, 144)?);
    let (sent_ago_ms, acknowledged_ago_ms) = (word(info, 44)?, word(info, 56)?);
    let ms = if repeats > 0 {
        // The time to the next repeat has doubled each time, and the last of them is running. From a fifth of a second it takes ten times to
        // come to two minutes, where it stays.
        let stayed = if rto_ms >= LONGEST_RTO_MS { repeats.saturating_sub(10) } else { 0 };
        let repeating = (rto_ms - (rto_ms >> repeats)).saturating_add(stayed.saturating_mul(rto_ms));
        sent_ago_ms.saturating_add(repeating).max(acknowledged_ago_ms)
    } else if on_its_way > 0 && unsent == 0 {
        sent_ago_ms.min(acknowledged_ago_ms)
    } else {
        sent_ago_ms
    };
    // The kernel counts in ticks of up to 10 ms: rather a little less ago, so that no limit is early.
    Some(Duration::from_millis(u64::from(ms).saturating_sub(10)))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// The two ends of a connection, where the machine has this address.
    fn pair(ip: &str) -> Option<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind((ip, 0)).ok()?;
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        Some((client, listener.accept().expect("it has come").0))
    }

    fn ask(diag: &mut Diag, stream: &TcpStream) -> Option<Duration> {
        diag.time_since_acked(stream.local_addr().expect("connected"), stream.peer_addr().expect("connected"))
    }

    #[test]
    fn the_kernel_says_when_the_peer_has_last_taken_something() {
        let mut diag = Diag::default();
        for ip in ["127.0.0.1", "::1"] {
            let Some((client, mut server)) = pair(ip) else {
                println!("skipped: no {ip} here");
                continue;
            };
            server.set_nonblocking(true).expect("a socket");
            while server.write(&[b'x'; 65536]).is_ok() {}
            if ask(&mut diag, &server).is_none() {
                println!("skipped: this kernel does not say (sock_diag)");
                return;
            }
            let wait = Duration::from_millis(50);
            while ask(&mut diag, &server).expect("it says") < wait {}
            let before = crate::net::os::clock_base();
            std::io::copy(&mut std::io::Read::take(&client, 2_000_000), &mut std::io::sink()).expect("bytes");
            assert!(ask(&mut diag, &server).expect("it says") <= before.elapsed(), "some were taken");
        }
    }

    #[test]
    fn a_connection_that_is_none_has_nothing_to_say_nor_has_a_listener_on_its_port() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(Diag::default().time_since_acked(listener.local_addr().expect("bound"), addr(1)), None);
        assert_eq!(Diag::default().time_since_acked(addr(1), addr(2)), None);
        assert_eq!(read(&[0; 10], 1, 2), None);
        assert_eq!(taken(&[0; 100]), None);
    }

    /// What a `tcp_info` with these times says, in ms.
    fn said(repeats: u8, rto_ms: u32, on_its_way: u32, unsent: u32, sent_ago: u32, acknowledged_ago: u32) -> u128 {
        let mut info = [0; 160];
        info[2] = repeats;
        let words = [(8, rto_ms * 1000), (24, on_its_way), (144, unsent), (44, sent_ago), (56, acknowledged_ago)];
        for (at, word) in words {
            info[at..at + 4].copy_from_slice(&u32::to_ne_bytes(word));
        }
        taken(&info).expect("it is whole").as_millis()
    }

    #[test]
    fn an_acknowledgement_alone_is_no_progress() {
        assert_eq!(said(0, 200, 0, 9, 5010, 20), 5000, "a window probe is answered, and nothing is taken");
        assert_eq!(said(7, 25_600, 1, 9, 4610, 30_010), 30_000, "bytes are repeated, and nobody answers");
        assert_eq!(said(7, 25_600, 1, 0, 4610, 20), 30_000, "they are repeated, and only the peer's own bytes come");
        assert_eq!(said(0, 60_000, 1, 0, 5010, 20), 10, "all are on their way, and taken piece by piece");
        assert_eq!(said(0, 200, 1, 9, 20, 5010), 10, "there was room for more");
        assert_eq!(said(0, 200, 0, 0, 5010, 20), 5000, "all were taken, no earlier than they were sent");
        assert_eq!(said(0, 200, 0, 0, 0, 0), 0);
        assert_eq!(
            said(10, 120_000, 1, 0, 95_400, 300_000),
            299_990,
            "the time between repeats does not grow for ever"
        );
        assert_eq!(said(13, 120_000, 1, 0, 100_000, 20), 100_000 + 120_000 - 14 + 3 * 120_000 - 10);
        assert_eq!(
            said(255, u32::MAX / 1000, 1, 0, 0, 0),
            said(31, u32::MAX / 1000, 1, 0, 0, 0),
            "and nothing overflows"
        );
    }
}
