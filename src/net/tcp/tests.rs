use std::net::TcpListener;

use super::*;

#[test]
fn a_time_is_rounded_up_to_the_kernels_unit_and_switches_nothing_off() {
    let socket = open(Domain::IPV4, &SystemOptions::default()).expect("a socket");
    let (nano, second) = (Duration::from_nanos(1), Duration::from_secs(1));
    for (time, rounded_ms) in [(nano, 1), (Duration::from_micros(500), 1), (Duration::from_micros(1500), 2)] {
        prepare(&socket, Domain::IPV4, &SystemOptions { user_timeout: Some(time), ..SystemOptions::default() })
            .expect("valid");
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().expect("open"), Some(Duration::from_millis(rounded_ms)), "{time:?}");
        #[cfg(not(target_os = "linux"))]
        let _ = rounded_ms;
    }
    for (time, rounded) in [(Duration::ZERO, second), (nano, second), (second, second), (second + nano, 2 * second)] {
        let times = KeepAlive { idle: time, interval: time, count: 1 };
        prepare(&socket, Domain::IPV4, &SystemOptions { keep_alive: Some(times), ..SystemOptions::default() })
            .expect("valid");
        assert!(socket.keepalive().expect("open"));
        let set = [socket.tcp_keepalive_time(), socket.tcp_keepalive_interval()].map(|time| time.expect("open"));
        assert_eq!(set, [rounded; 2], "{time:?}");
    }
}

/// The number of probes then stays the kernel's, which does not use it.
#[test]
fn a_user_timeout_replaces_the_number_of_probes_and_nothing_else() {
    let times = KeepAlive { count: 3, ..KeepAlive::after(Duration::from_secs(60)) };
    let set = |user_timeout| {
        let options = SystemOptions { keep_alive: Some(times), user_timeout, ..SystemOptions::default() };
        let socket = open(Domain::IPV4, &options).expect("a socket");
        assert!(socket.keepalive().expect("open"));
        let set = [socket.tcp_keepalive_time(), socket.tcp_keepalive_interval()].map(|time| time.expect("open"));
        assert_eq!(set, [times.idle, times.interval]);
        socket.tcp_keepalive_retries().expect("open") == times.count
    };
    assert!(set(None));
    assert_eq!(set(Some(Duration::from_secs(30))), !cfg!(target_os = "linux"));
}

#[test]
fn ports_that_were_tried_are_not_tried_again() {
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let ports: Vec<(Socket, SockAddr)> = (0..PORTS).map(|_| port(local).expect("a port")).collect();
    let mut numbers: Vec<u16> = ports.iter().map(|(_, addr)| addr.as_socket().expect("IPv4").port()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), PORTS);
}

#[test]
fn a_local_port_that_was_given_is_the_one_that_is_used() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = listener.local_addr().expect("bound");
    // The kernel may assign a port that was just free to a listener of another test.
    let is_taken = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    let (socket, free) = (0..100)
        .map(|_| port(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port"))
        .find_map(|(_probe, free)| match connect(target, &SystemOptions::default(), free.as_socket(), |_| Ok(())) {
            Err(error) if is_taken(&error) => None,
            connected => Some((connected.expect("it listens"), free)),
        })
        .expect("one of many ports stays free");
    assert_eq!(socket.local_addr().expect("bound"), free);
}

/// Otherwise a connection is established and closed in each of the attempts.
#[test]
fn a_connection_that_can_not_be_registered_is_not_begun() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("open");
    let target = listener.local_addr().expect("bound");
    for local in [None, Some(SocketAddr::from(([127, 0, 0, 1], 0)))] {
        let refused = connect(target, &SystemOptions::default(), local, |_| Err(Errno::NOSPC.into()));
        assert!(is(&refused.expect_err("epoll has no room"), Errno::NOSPC));
        assert_eq!(listener.accept().expect_err("nothing was begun").kind(), io::ErrorKind::WouldBlock);
    }
}
