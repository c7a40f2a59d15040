//! The SOCKS5 proxy, with clients that know only the standard library, and in the simulated network.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use finale::sim::{Faults, Host, Network};
use finale::{ListenOptions, Reactor, UnixAddr};
use support::PATIENCE;

use super::program::Program;
use crate::tunnels::Proxy;

/// A client that was greeted.
fn greeted(proxy: &Program) -> TcpStream {
    let mut client = TcpStream::connect(proxy.addr).expect("it listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a time");
    client.write_all(&[5, 2, 1, 0]).expect("it reads");
    assert_eq!(read(&mut client, 2), [5, 0]);
    client
}

fn read(client: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    client.read_exact(&mut bytes).expect("the proxy answers");
    bytes
}

fn rest(client: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).expect("it ends in order");
    bytes
}

fn by_ip(addr: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(v4) = addr else { panic!("loopback is IPv4 here") };
    [&[5, 1, 0, 1], &v4.ip().octets()[..], &addr.port().to_be_bytes()].concat()
}

fn by_name(host: &str, port: u16) -> Vec<u8> {
    [&[5, 1, 0, 3, host.len() as u8], host.as_bytes(), &port.to_be_bytes()].concat()
}

/// Answers one client with what it has sent until it ended, in upper case.
fn backend() -> (SocketAddr, std::thread::JoinHandle<SocketAddr>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    let serve = move || {
        let (mut socket, peer) = listener.accept().expect("a client comes");
        let request = rest(&mut socket);
        socket.write_all(&request.to_ascii_uppercase()).expect("it reads");
        peer
    };
    (addr, std::thread::spawn(serve))
}

#[test]
fn half_closes_pass_through_a_tunnel_to_an_address_and_to_a_name_also_with_bytes_that_came_early() {
    let proxy = Program::start("socks5", &["127.0.0.1:0"]);
    for (name, is_early) in [(false, false), (true, false), (false, true)] {
        let (addr, server) = backend();
        let mut client = greeted(&proxy);
        let request = if name { by_name("127.0.0.1", addr.port()) } else { by_ip(addr) };
        let early: &[u8] = if is_early { b"early " } else { b"" };
        client.write_all(&[&request, early].concat()).expect("it reads");
        let reply = read(&mut client, 10);
        assert_eq!(reply[..4], [5, 0, 0, 1]);
        client.write_all(b"question").expect("it reads");
        client.shutdown(Shutdown::Write).expect("it is open");
        assert_eq!(rest(&mut client), [early, b"question"].concat().to_ascii_uppercase());
        let peer = server.join().expect("it serves one");
        assert_eq!(reply[4..], [&[127, 0, 0, 1], &peer.port().to_be_bytes()[..]].concat(), "the proxy's own address");
    }
}

#[test]
fn a_request_that_comes_byte_by_byte_is_read_as_a_whole_one() {
    let proxy = Program::start("socks5", &["127.0.0.1:0"]);
    let (addr, server) = backend();
    let mut client = TcpStream::connect(proxy.addr).expect("it listens");
    client.set_nodelay(true).expect("open");
    let bytes = [&[5, 1, 0][..], &by_ip(addr), b"x"].concat();
    bytes.iter().for_each(|byte| client.write_all(&[*byte]).expect("it reads"));
    client.shutdown(Shutdown::Write).expect("open");
    let answer = rest(&mut client);
    assert_eq!((&answer[..4], answer.last()), (&[5, 0, 5, 0][..], Some(&b'X')));
    server.join().expect("it serves one");
}

#[test]
fn a_client_that_can_have_no_tunnel_gets_the_reason() {
    let proxy = Program::start("socks5", &["127.0.0.1:0"]);
    let (_held, unused) = support::dead_port();
    for (request, code) in [
        (by_ip(unused), 5),
        ([5, 2, 0, 1, 127, 0, 0, 1, 0, 80].to_vec(), 7),
        ([5, 1, 0, 9, 127, 0, 0, 1, 0, 80].to_vec(), 8),
        (by_name("", 80), 8),
        (by_name("\u{fffd}[", 80), 4),
        ([4, 1, 0, 1].to_vec(), 1),
    ] {
        let mut client = greeted(&proxy);
        client.write_all(&request).expect("it reads");
        assert_eq!(rest(&mut client)[..2], [5, code], "{request:?}");
    }
    let mut client = TcpStream::connect(proxy.addr).expect("it listens");
    client.write_all(&[5, 1, 2]).expect("it reads");
    assert_eq!(rest(&mut client), [5, 0xff], "no method that it has");
}

// --- on the simulated network ---

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

/// The greeting and a request for port 90 of the other machine.
const CALL: [u8; 13] = [5, 1, 0, 5, 1, 0, 1, 10, 0, 0, 2, 0, 90];

fn run(network: &Network, reactor: &mut Reactor<Host>, proxy: &mut Proxy, time: Duration) {
    let until = network.now() + time;
    while let Some((mut socket, event)) = reactor.next_before(until).expect("it continues") {
        proxy.handle(&mut socket, event);
    }
}

#[test]
fn a_client_that_resets_while_its_target_is_connected_leaves_no_connection() {
    for seed in 0..600 {
        let micros = 3_000 + seed % 30 * 100;
        let network = Network::new(seed);
        // A stall lets the connection be established between its error and its close.
        network.set_faults(Faults { stall: 0.3, ..Faults::none() });
        let (mut reactor, mut proxy) = (Reactor::with_net(network.host(HERE)), Proxy::default());
        let listener = reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
        let target = network.peer(THERE).listen(SocketAddr::new(THERE, 90)).expect("a free port");
        let client = network.peer(THERE).connect(listener.addr).expect("begun");
        client.send(&CALL);
        run(&network, &mut reactor, &mut proxy, Duration::from_micros(micros));
        client.reset();
        run(&network, &mut reactor, &mut proxy, Duration::from_secs(1));
        network.set_faults(Faults::none());
        run(&network, &mut reactor, &mut proxy, Duration::from_secs(1));
        assert!(reactor.is_empty(), "after {micros} us: {}", reactor.sockets());
        assert!(target.accept().is_none_or(|target| target.is_reset()), "after {micros} us");
    }
}

#[test]
fn a_client_of_a_unix_domain_socket_gets_no_tunnel_and_is_not_left_waiting() {
    let network = Network::new(1);
    let (mut reactor, mut proxy) = (Reactor::with_net(network.host(HERE)), Proxy::default());
    let at = UnixAddr::path("/run/socks.sock");
    reactor.listen(at.clone(), ListenOptions::default()).expect("a new name");
    let _target = network.peer(THERE).listen(SocketAddr::new(THERE, 90)).expect("a free port");
    let client = network.peer(HERE).connect_unix(&at).expect("it listens");
    client.send(&CALL);
    run(&network, &mut reactor, &mut proxy, Duration::from_secs(1));
    assert!(reactor.is_empty() && client.has_fin(), "{}", reactor.sockets());
}
