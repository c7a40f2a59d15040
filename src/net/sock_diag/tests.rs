use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};

use socket2::{Domain, Type};

use super::*;

/// The client's and the server's end of a connection, if this machine has the address. With a
/// device, the listener is bound to it.
fn pair(addr: SocketAddr, device: Option<&str>) -> Option<(TcpStream, Socket)> {
    let listener = Socket::new(Domain::for_address(addr), Type::STREAM, None).ok()?;
    listener.bind_device(device.map(str::as_bytes)).ok()?;
    listener.bind(&addr.into()).ok()?;
    listener.listen(1).expect("bound");
    let addr = listener.local_addr().expect("bound").as_socket().expect("an IP address");
    let client = TcpStream::connect(addr).expect("it listens");
    Some((client, listener.accept().expect("connected").0))
}

fn loopback() -> (TcpStream, Socket) {
    pair((Ipv4Addr::LOCALHOST, 0).into(), None).expect("every machine has loopback")
}

/// Whether this kernel gives results at all: it lists its sockets. Prints a line if not.
fn is_available() -> bool {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    // NLM_F_DUMP of linux/netlink.h.
    let flags = NLM_F_REQUEST | 0x300;
    let dump = [&REQUEST.to_ne_bytes()[..], &BY_FAMILY.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8]].concat();
    let all = [&[2, IPPROTO_TCP, 0, 0][..], &ANY_STATE, &[0; 48]].concat();
    let reply = || {
        let netlink =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::NONBLOCK, Some(netlink::SOCK_DIAG))
                .ok()?;
        send(&netlink, &[dump, all].concat(), SendFlags::empty()).ok()?;
        let mut buffer = [0; 8192];
        let (_, length) = recv(&netlink, &mut buffer, RecvFlags::empty()).ok()?;
        half(&buffer[..length], 4)
    };
    let available = reply() == Some(BY_FAMILY);
    if !available {
        println!("skipped: this kernel gives no result (sock_diag)");
    }
    drop(listener);
    available
}

/// A link-local IPv6 address of this machine, with its interface.
fn link_local() -> Option<SocketAddr> {
    let addresses = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    let line = addresses.lines().find(|line| line.starts_with("fe80"))?;
    let mut fields = line.split_whitespace();
    let ip = u128::from_str_radix(fields.next()?, 16).ok()?;
    let scope = u32::from_str_radix(fields.next()?, 16).ok()?;
    Some(std::net::SocketAddrV6::new(ip.into(), 0, 0, scope).into())
}

fn acked(sock_diag: &mut SockDiag, socket: &Socket) -> Option<Duration> {
    sock_diag.query(socket, None, time_since_acked).ok().flatten()
}

#[test]
fn the_kernel_knows_when_the_peer_last_took_bytes_on_each_kind_of_address_and_device() {
    if !is_available() {
        return;
    }
    let local = |text: &str| Some(text.parse().expect("an address"));
    let kinds = [
        ("IPv4", local("127.0.0.1:0"), None),
        ("IPv6", local("[::1]:0"), None),
        ("link-local IPv6", link_local(), None),
        ("bound to a device", local("127.0.0.1:0"), Some("lo")),
    ];
    let mut sock_diag = SockDiag::default();
    for (kind, addr, device) in kinds {
        let Some((client, mut server)) = addr.and_then(|addr| pair(addr, device)) else {
            println!("skipped: no {kind} here");
            continue;
        };
        server.set_nonblocking(true).expect("open");
        while server.write(&[b'x'; 65536]).is_ok() {}
        let wait = Duration::from_millis(50);
        while acked(&mut sock_diag, &server).expect(kind) < wait {}
        let before = crate::net::os::clock_base();
        std::io::copy(&mut std::io::Read::take(&client, 2_000_000), &mut std::io::sink()).expect("bytes");
        assert!(acked(&mut sock_diag, &server).expect(kind) <= before.elapsed(), "{kind}: some were taken");
    }
}

#[test]
fn a_listener_and_a_unix_domain_socket_get_no_result() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    assert_eq!(acked(&mut SockDiag::default(), &listener.into()), None);
    let (socket, _peer) = std::os::unix::net::UnixStream::pair().expect("a machine with Unix domain sockets");
    assert_eq!(acked(&mut SockDiag::default(), &Socket::from(std::os::fd::OwnedFd::from(socket))), None);
}

#[test]
fn a_reply_that_is_not_about_the_socket_is_no_result() {
    let read = |reply: &[u8], cookie| message(reply, cookie).map(|message| message.and_then(time_since_acked));
    assert_eq!(read(&[0; 10], [1; 8]), Ok(None));
    let mut reply = vec![0; HEADER + MESSAGE + 200];
    reply[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    reply[HEADER + MESSAGE..][..4].copy_from_slice(&[200_u16.to_ne_bytes(), INFO.to_ne_bytes()].concat());
    assert_eq!(read(&reply, [0; 8]), Ok(Some(Duration::ZERO)));
    assert_eq!(read(&reply, [1; 8]), Ok(None), "another socket's cookie");
    assert_eq!(taken(&[0; 100]), None, "an old kernel's shorter tcp_info");
    let error = |errno: Errno| {
        let mut reply = [0; HEADER + 20];
        reply[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        reply[HEADER..][..4].copy_from_slice(&(-errno.raw_os_error()).to_ne_bytes());
        read(&reply, [0; 8])
    };
    assert_eq!(error(Errno::NOENT), Ok(None), "no such connection");
    assert_eq!(error(Errno::NOMEM), Err(Errno::NOMEM), "it may have a result later");
}

/// The process inherits a connection, and its namespace has another connection with the same
/// addresses.
#[test]
fn a_socket_of_another_network_namespace_gets_no_result_though_its_addresses_exist_in_ours() {
    const TEST: &str = "a_socket_of_another_network_namespace_gets_no_result_though_its_addresses_exist_in_ours";
    if std::env::var("FINALE_TEST_ALONE").is_ok_and(|inside| inside == TEST) {
        let inherited = Socket::from(std::io::stdin().as_fd().try_clone_to_owned().expect("a descriptor"));
        let (local, peer) = (inherited.local_addr().expect("bound"), inherited.peer_addr().expect("connected"));
        let listener = TcpListener::bind(local.as_socket().expect("an IP address")).expect("free here");
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        client.bind(&peer).expect("free here");
        client.connect(&local).expect("it listens");
        let twin = Socket::from(listener.accept().expect("connected").0);
        assert!(acked(&mut SockDiag::default(), &twin).is_some());
        assert_eq!(acked(&mut SockDiag::default(), &inherited), None);
        return;
    }
    let can_unshare =
        Command::new("unshare").args(["-n", "ip", "link", "set", "lo", "up"]).stderr(Stdio::null()).status();
    if !is_available() || !can_unshare.is_ok_and(|status| status.success()) {
        println!("skipped: {TEST} needs root, unshare and ip");
        return;
    }
    let (_client, server) = loopback();
    let output = Command::new("unshare")
        .args(["-n", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("a test knows its own program"))
        .args(["--exact", &format!("net::sock_diag::tests::{TEST}"), "--nocapture"])
        .env("FINALE_TEST_ALONE", TEST)
        .stdin(std::os::fd::OwnedFd::from(server))
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn bytes_that_no_longer_fit_into_the_peers_window_are_not_taken_by_its_acknowledgements() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|byte: char| !byte.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    if [numbers.next(), numbers.next()] < [Some(6), Some(5)] || !is_available() {
        println!("skipped: Linux {release} does not count these retransmissions");
        return;
    }
    let (client, mut server) = loopback();
    socket2::SockRef::from(&client).set_recv_buffer_size(1).expect("open");
    server.set_read_timeout(Some(Duration::from_millis(20))).expect("open");
    let mut sock_diag = SockDiag::default();
    server.write_all(&[b'x'; 3000]).expect("there is room");
    while sock_diag.query(&server, None, kernel_view).ok().flatten().is_none_or(|view| view.unacked > 0) {}
    let written = crate::net::os::clock_base();
    server.write_all(&[b'x'; 3000]).expect("there is room");
    // The first of the retransmissions is one that no backoff follows.
    let unknown = Duration::from_millis(500);
    let mut elapsed = Duration::ZERO;
    while elapsed < Duration::from_millis(1500) {
        elapsed = written.elapsed();
        let ago = acked(&mut sock_diag, &server).expect("connected");
        assert!(ago + unknown > elapsed, "taken {ago:?} ago, and written {elapsed:?} ago");
        // The client sends nothing.
        assert!(std::io::Read::read(&mut server, &mut [0]).is_err());
    }
}

/// What a `tcp_info` with these times means, in ms.
fn ago(retransmits: u8, rto_ms: u32, in_flight: u32, unsent: u32, sent_ago: u32, acknowledged_ago: u32) -> u128 {
    ago_in([0, 0, retransmits, 0, 0, 0], rto_ms, in_flight, unsent, sent_ago, acknowledged_ago)
}

/// The same with the bytes at its beginning: state, congestion, retransmissions, probes, backoff, options.
fn ago_in(first: [u8; 6], rto_ms: u32, in_flight: u32, unsent: u32, sent_ago: u32, acknowledged_ago: u32) -> u128 {
    let mut info = [0; 160];
    info[..6].copy_from_slice(&first);
    let words = [(8, rto_ms * 1000), (24, in_flight), (144, unsent), (44, sent_ago), (56, acknowledged_ago)];
    for (at, word) in words {
        info[at..at + 4].copy_from_slice(&u32::to_ne_bytes(word));
    }
    taken(&info).expect("it is whole").as_millis()
}

#[test]
fn an_acknowledgement_alone_is_no_progress() {
    assert_eq!(ago(0, 200, 0, 9, 5010, 20), 5000, "window probes are acknowledged, and nothing is taken");
    assert_eq!(ago(7, 25_600, 1, 9, 4610, 30_010), 30_000, "bytes are retransmitted, and the peer is silent");
    assert_eq!(ago(7, 25_600, 1, 0, 4610, 20), 30_000, "they are retransmitted, and only the peer's own bytes come");
    assert_eq!(ago(0, 60_000, 1, 0, 5010, 20), 10, "all are in flight, and taken piece by piece");
    assert_eq!(ago(0, 200, 1, 9, 20, 5010), 10, "there was room for more");
    assert_eq!(ago(0, 200, 0, 0, 5010, 20), 5000, "all were taken, no earlier than they were sent");
    assert_eq!(ago(0, 200, 0, 0, 0, 0), 0);
    let most = ago(10, 120_000, 1, 0, 95_400, 300_000);
    assert_eq!(most, 299_990, "the time between retransmissions does not grow without limit");
    assert_eq!(ago(13, 120_000, 1, 0, 100_000, 20), 100_000 + 120_000 - 14 + 3 * 120_000 - 10);
    assert_eq!(ago(255, u32::MAX / 1000, 1, 0, 0, 0), ago(31, u32::MAX / 1000, 1, 0, 0, 0), "and nothing overflows");
}

#[test]
fn a_backoff_without_retransmissions_counts_only_where_it_is_one_of_bytes_in_flight() {
    let of_backoff =
        |congestion, options, in_flight| ago_in([1, congestion, 0, 0, 3, options], 1600, in_flight, 9, 510, 510);
    assert_eq!(of_backoff(LOSS, 7, 1), 1900, "after 200, 400 and 800 ms, and 500 ms ago");
    assert_eq!(of_backoff(0, 7, 1), 500, "it is of window probes");
    assert_eq!(of_backoff(LOSS, 7, 0), 500, "nothing is in flight");
    assert_eq!(of_backoff(LOSS, 6, 1), 500, "without timestamps it may be of an earlier loss");
    assert_eq!(ago_in([1, LOSS, 1, 0, 3, 7], 1600, 1, 9, 510, 510), 1300, "retransmissions are counted");
}

#[test]
fn the_kernels_view_has_its_state_and_both_queues() {
    if !is_available() {
        return;
    }
    let (mut client, server) = loopback();
    let view = || SockDiag::default().query(&server, None, kernel_view).ok().flatten().map(|view| view.to_string());
    assert_eq!(view().as_deref(), Some("ESTABLISHED Recv-Q 0 Send-Q 0"));
    client.write_all(b"hello").expect("connected");
    client.shutdown(std::net::Shutdown::Write).expect("connected");
    // On loopback both have arrived by now.
    assert_eq!(view().as_deref(), Some("CLOSE-WAIT Recv-Q 6 Send-Q 0"), "the FIN counts as one");
    server.shutdown(std::net::Shutdown::Write).expect("connected");
    assert_eq!(view(), None, "both FINs, and the client has acknowledged ours: it is in no table of the kernel");
}
