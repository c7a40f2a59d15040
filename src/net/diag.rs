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
    /// How long ago the peer's kernel has last taken something of what ours holds; `None` if ours holds nothing, or does not say.
    pub(super) fn taken_ago(&mut self, local: SocketAddr, peer: SocketAddr) -> Option<Duration> {
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
                return read(answer);
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

fn read(answer: &[u8]) -> Option<Duration> {
    if half(answer, 4)? != BY_FAMILY {
        return None; // An error: no such connection.
    }
    let message = answer.get(HEADER..)?;
    let unacknowledged = word(message, 60)?; // `idiag_wqueue`
    if unacknowledged == 0 {
        return None;
    }
    let mut attributes = message.get(MESSAGE..)?;
    while half(attributes, 2)? != INFO {
        attributes = attributes.get(usize::from(half(attributes, 0)?.max(4)).next_multiple_of(4)..)?;
    }
    taken(attributes.get(4..)?)
}

/// Of a `tcp_info` (linux/tcp.h). Acknowledgements come also from a peer that takes nothing, as answers to window probes; but
/// where bytes wait, whatever it takes makes room for the next to be sent, and to a peer that is gone they are sent in vain.
fn taken(info: &[u8]) -> Option<Duration> {
    let (sent_ago_ms, acknowledged_ago_ms, unsent) = (word(info, 44)?, word(info, 56)?, word(info, 144)?);
    let ms = if unsent > 0 { sent_ago_ms.max(acknowledged_ago_ms) } else { acknowledged_ago_ms };
    // The kernel counts in ticks of up to 10 ms: rather a little less ago, so that no limit is early.
    Some(Duration::from_millis(u64::from(ms).saturating_sub(10)))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// The two ends of a connection.
    fn pair(ip: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((ip, 0)).expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        (client, listener.accept().expect("it has come").0)
    }

    fn ask(diag: &mut Diag, stream: &TcpStream) -> Option<Duration> {
        diag.taken_ago(stream.local_addr().expect("connected"), stream.peer_addr().expect("connected"))
    }

    #[test]
    fn what_the_kernel_still_holds_was_taken_some_time_ago_and_what_it_does_not_hold_never() {
        let mut diag = Diag::default();
        for ip in ["127.0.0.1", "::1"] {
            let (client, mut server) = pair(ip);
            assert_eq!(ask(&mut diag, &server), None, "nothing was sent");
            server.set_nonblocking(true).expect("a socket");
            while server.write(&[b'x'; 65536]).is_ok() {}
            if ask(&mut diag, &server).is_none() && ip == "127.0.0.1" {
                println!("skipped: this kernel does not say (sock_diag)");
                return;
            }
            let wait = Duration::from_millis(50);
            while ask(&mut diag, &server).expect("it holds some") < wait {}
            let before = crate::net::os::clock_base();
            std::io::copy(&mut std::io::Read::take(&client, 2_000_000), &mut std::io::sink()).expect("bytes");
            assert!(ask(&mut diag, &server).is_none_or(|ago| ago <= before.elapsed()), "some were taken");
        }
    }

    #[test]
    fn a_connection_that_is_none_has_nothing_to_say() {
        let addr = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(Diag::default().taken_ago(addr(1), addr(2)), None);
        assert_eq!(read(&[0; 10]), None);
        assert_eq!(taken(&[0; 100]), None);
    }

    #[test]
    fn an_acknowledgement_is_no_progress_where_bytes_wait() {
        let info = |sent: u32, acknowledged: u32, unsent: u32| {
            let mut info = [0; 160];
            info[44..48].copy_from_slice(&sent.to_ne_bytes());
            info[56..60].copy_from_slice(&acknowledged.to_ne_bytes());
            info[144..148].copy_from_slice(&unsent.to_ne_bytes());
            taken(&info).expect("it is whole").as_millis()
        };
        assert_eq!(info(5010, 20, 1), 5000, "a window probe is answered, and nothing is taken");
        assert_eq!(info(20, 5010, 1), 5000, "bytes are repeated, and nobody answers");
        assert_eq!(info(5010, 20, 0), 10, "all are on their way");
        assert_eq!(info(0, 0, 0), 0);
    }
}
