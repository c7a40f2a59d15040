//! Local addresses and ports, interfaces, and inherited options, on a real kernel.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Instant;

use finale::{
    AddressError, BoundAddr, CloseMode, ConnectOptions, ConnectionErrorKind, Error, Event, ListenOptions, OsError,
    Reactor, Target, UnixAddr,
};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};
use support::alone::{alone_in_a_network_with, alone_under, shell};
use support::{PATIENCE, Transcript, What, dial_narrow, ms};

/// Connects from the IP address, this many times to each of the destinations. Returns how many
/// connections are established, and the last failure.
fn connect_from(ip: IpAddr, destinations: &[TcpListener], times: usize) -> (usize, Option<ConnectionErrorKind>) {
    let mut reactor = Reactor::new().expect("a machine with epoll");
    for destination in destinations {
        let addr = destination.local_addr().expect("bound");
        for _ in 0..times {
            reactor.connect(addr, ConnectOptions::default().local_addr(SocketAddr::new(ip, 0))).expect("an address");
        }
    }
    let (mut connected, mut failed, mut failure) = (0, 0, None);
    while connected + failed < times * destinations.len() {
        match reactor.next_before(Instant::now() + PATIENCE).expect("it continues").expect("each has its result").1 {
            Event::Ready => connected += 1,
            Event::Error(error) => (failed, failure) = (failed + 1, Some(error.kind)),
            _ => {}
        }
    }
    (connected, failure)
}

#[test]
fn a_local_address_without_a_port_takes_no_port_from_other_destinations() {
    const TEST: &str = "addresses::a_local_address_without_a_port_takes_no_port_from_other_destinations";
    alone_in_a_network_with("sysctl -w net.ipv4.ip_local_port_range='40000 40019'", TEST, || {
        shell("sysctl -w net.ipv4.ip_local_port_range='40000 40019'");
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let destinations: Vec<_> = (0..3).filter_map(|_| TcpListener::bind((ip, 0)).ok()).collect();
            if destinations.is_empty() {
                println!("skipped: no {ip} here");
                continue;
            }
            // 17 ports are left for 24 connections.
            assert_eq!(connect_from(ip, &destinations, 8), (24, None), "{ip}");
        }
    });
}

/// The last free port to a destination is found; after that the error names what is missing.
#[test]
fn all_ports_towards_one_destination_are_used_before_none_is_left() {
    const TEST: &str = "addresses::all_ports_towards_one_destination_are_used_before_none_is_left";
    alone_in_a_network_with("sysctl -w net.ipv4.ip_local_port_range='40000 40007'", TEST, || {
        shell("sysctl -w net.ipv4.ip_local_port_range='40000 40007'");
        let destination = [TcpListener::bind("127.0.0.1:50000").expect("free here")];
        let connected = connect_from(Ipv4Addr::LOCALHOST.into(), &destination, 9);
        assert_eq!(connected, (8, Some(ConnectionErrorKind::NoLocalAddress)));
    });
}

#[test]
fn a_local_port_that_this_process_may_not_use_is_none_that_is_free() {
    const TEST: &str = "addresses::a_local_port_that_this_process_may_not_use_is_none_that_is_free";
    alone_under(&["unshare", "-U"], TEST, || {
        if TcpListener::bind("127.0.0.1:1").is_ok() {
            println!("skipped: {TEST}: every port is allowed here");
            return;
        }
        let mut story = Transcript::new();
        let destination = TcpListener::bind("127.0.0.1:0").expect("a port");
        let options = ConnectOptions::default().local_addr(SocketAddr::from(([127, 0, 0, 1], 1)));
        let id = story.reactor.connect(destination.local_addr().expect("bound"), options).expect("an address");
        assert!(matches!(story.next(id), What::Lookup(_)));
        assert_eq!(story.error(id).kind, ConnectionErrorKind::NoLocalAddress);
        story.close(id);
        story.rest();
    });
}

#[test]
fn a_link_local_address_is_reached_by_the_name_and_the_number_of_its_interface() {
    const TEST: &str = "addresses::a_link_local_address_is_reached_by_the_name_and_the_number_of_its_interface";
    const VETH: &str = "ip link add va type veth peer name vb && ip link set va up && ip link set vb up \
                        && ip -6 addr add fe80::f/64 dev va nodad";
    alone_in_a_network_with(VETH, TEST, || {
        shell(VETH);
        let mut story = Transcript::new();
        let listener =
            story.reactor.listen("[fe80::f%va]:0", ListenOptions::default()).expect("an address of this machine");
        let Some(SocketAddr::V6(addr)) = listener.addr.ip() else { panic!("{}", listener.addr) };
        let (port, number) = (addr.port(), addr.scope_id());
        let targets = [
            Target::try_from(format!("[fe80::f%va]:{port}")),
            Target::try_from(format!("[fe80::f%{number}]:{port}")),
            Target::try_from(("fe80::f%va", port)),
            Target::try_from((&*format!("[fe80::f%{number}]"), port)),
        ];
        for target in targets {
            let client = story.reactor.connect(target.expect("an address"), ConnectOptions::default()).expect("begun");
            let server = story.connection();
            story.connected(client);
            for id in [client, server] {
                story.socket(id).destroy();
            }
            story.after_end_of(client);
            story.after_end_of(server);
        }
        // Only the kernel can know a number.
        let refused = story.reactor.listen("[fe80::f%99]:0", ListenOptions::default()).expect_err("no such interface");
        assert!(refused.to_string().ends_with("No such device (os error 19)"), "{refused}");
        let client = story.reactor.connect(format!("[fe80::f%99]:{port}"), ConnectOptions::default()).expect("begun");
        assert!(matches!(story.next(client), What::Lookup(_)));
        assert_eq!(story.error(client).kind, ConnectionErrorKind::Unreachable);
        story.close(client);
        let refused = story.reactor.connect("[fe80::f%vc]:80", ConnectOptions::default());
        assert_eq!(refused, Err(Error::InvalidAddress(AddressError::NoInterface)));
        story.reactor.close_listener(listener.id).expect("open");
        story.rest();
    });
}

/// With SO_LINGER close(2) waits for the peer, also on a non-blocking socket; accepted sockets
/// inherit it.
#[test]
fn a_listener_with_so_linger_does_not_block_the_loop() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    socket2::SockRef::from(&listener).set_linger(Some(PATIENCE)).expect("open");
    let mut story = Transcript::new();
    let options = ListenOptions::default().close_mode(CloseMode::HandOff);
    let listener = story.reactor.adopt(listener, options).expect("open");
    let mut peer = dial_narrow(listener.addr);
    let socket = story.connection();
    peer.write_all(b"question").expect("connected");
    peer.shutdown(std::net::Shutdown::Write).expect("connected");
    assert_eq!(story.until_end(socket), b"question");
    // More than the peer's kernel takes: our kernel keeps a part of it.
    while story.socket(socket).queued_bytes() == 0 {
        story.socket(socket).write(&[b'x'; 65_536]).expect("room");
        story.turn();
    }
    story.socket(socket).end();
    let began = Instant::now();
    // Our queue becomes empty before the kernel's.
    while story.reactor.socket(socket).is_some_and(|socket| socket.queued_bytes() > 0) {
        peer.read_exact(&mut [0; 4096]).expect("bytes");
        story.turn();
    }
    story.after_end_of(socket);
    assert!(began.elapsed() < PATIENCE / 2, "close(2) took {:?}", began.elapsed());
    story.reactor.close_listener(listener.id).expect("open");
    story.silence(ms(1));
}

/// Linux gives the accepted end of a Unix domain socket nothing of its listener's.
#[test]
fn an_accepted_unix_domain_socket_has_the_options_of_its_listener() {
    let mut reactor = Reactor::new().expect("descriptors");
    let addr = UnixAddr::abstract_name(format!("finale-options-{}", std::process::id()));
    reactor.listen(addr.clone(), ListenOptions::default().send_buffer_size(20_000)).expect("free");
    reactor.connect(addr, ConnectOptions::default()).expect("an address");
    let accepted = loop {
        let (socket, event) = reactor.next().expect("it continues").expect("a client connects");
        if event == Event::Connection {
            break socket.id();
        }
    };
    let accepted = reactor.descriptor(accepted).expect("connected");
    assert_eq!(socket2::SockRef::from(&accepted).send_buffer_size().expect("open"), 40_000, "the kernel doubles it");
}

#[test]
fn a_descriptor_is_adopted_by_the_kind_of_its_socket_and_only_if_it_listens() {
    let socket = |domain, kind| Socket::new(domain, kind, None).expect("a descriptor");
    let mut story = Transcript::new();
    let mut adopt = |fd: OwnedFd| story.reactor.adopt(fd, ListenOptions::default()).map(|listener| listener.addr);

    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = tcp.local_addr().expect("bound");
    assert_eq!(adopt(tcp.into()), Ok(BoundAddr::Ip(addr)));

    let name = SockAddr::unix(format!("\0finale-adopted-{}", std::process::id())).expect("short");
    let unix = socket(Domain::UNIX, Type::STREAM);
    unix.bind(&name).expect("a free name");
    unix.listen(1).expect("bound");
    assert_eq!(adopt(unix.into()), Ok(BoundAddr::Unix));

    let why = |errno: Errno| {
        Err(Error::System {
            call: "adopting a listening stream socket",
            source: OsError::from_raw(errno.raw_os_error()),
        })
    };
    assert_eq!(adopt(socket(Domain::IPV4, Type::STREAM).into()), why(Errno::INVAL), "it does not listen");
    assert_eq!(adopt(socket(Domain::IPV4, Type::DGRAM).into()), why(Errno::PROTOTYPE));
    assert_eq!(adopt(socket(Domain::UNIX, Type::SEQPACKET).into()), why(Errno::PROTOTYPE));
    let file = std::fs::File::open("/dev/null").expect("it is there");
    assert_eq!(adopt(file.into()), why(Errno::NOTSOCK));
}

#[test]
fn an_adopted_descriptor_becomes_close_on_exec_and_a_refused_one_is_not_changed() {
    let mut story = Transcript::new();
    let listening = OwnedFd::from(TcpListener::bind("127.0.0.1:0").expect("a port"));
    let number = listening.as_raw_fd();
    rustix::io::fcntl_setfd(&listening, rustix::io::FdFlags::empty()).expect("open");
    story.reactor.adopt(listening, ListenOptions::default()).expect("it listens");
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).expect("open");
    let bits = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
    let bits = u32::from_str_radix(bits.trim(), 8).expect("octal");
    assert_eq!(bits & 0o2_000_000, 0o2_000_000, "O_CLOEXEC: {info}");

    let other = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
    let copy = other.try_clone().expect("a descriptor");
    story.reactor.adopt(other, ListenOptions::default()).expect_err("it does not listen");
    assert!(!copy.nonblocking().expect("open"), "other processes may use it");
}
