//! Scripted peers on Unix domain sockets.

use super::*;
use crate::net::UnixAddr;
use crate::sim::Script;

#[test]
fn a_script_connects_to_a_host_of_its_machine_without_a_way_that_takes_time() {
    let network = Network::new(1);
    let mut host = network.host(SERVER);
    let addr = UnixAddr::abstract_name("app");
    host.listen_unix(0, &addr, &ListenOptions::default()).expect("a new name");
    let script = Script::new().send(b"hello").finish().receive_end().close();
    let play = network.peer(SERVER).play_unix(&addr, script).expect("a peer listens");
    assert_eq!(play.local_addr(), None);
    assert_eq!(news(&mut host, Duration::ZERO), [(LISTENER, flags("in"))]);
    assert_eq!(host.accept(0, 0).expect("one waits"), None, "it has no address");
    host.register(0, TOKEN).expect("there is room");
    assert_eq!(edge(&mut host, Duration::ZERO), flags("in out rdhup"));
    assert_eq!(read(&mut host), Ok(b"hello".to_vec()));
    host.finish(0).expect("open");
    host.close(0);
    assert!(play.has_end() && network.elapsed() == Duration::ZERO);
    network.advance(MS);
    assert_eq!(network.kernel_views(SERVER), [], "without TIME-WAIT");
    let elsewhere = network.peer(CLIENT).connect_unix(&addr).expect_err("another machine has other names");
    assert_eq!(elsewhere.kind(), io::ErrorKind::ConnectionRefused);
    let missing = network.peer(SERVER).connect_unix(&UnixAddr::path("/run/none")).expect_err("there is no such file");
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_full_queue_refuses_hosts_and_scripts_until_somebody_is_accepted() {
    let network = Network::new(1);
    let addr = UnixAddr::path("/run/app.sock");
    let peer = network.peer(SERVER);
    let listener = peer.listen_unix(&addr, &ListenOptions::default().backlog(1)).expect("a new name");
    assert_eq!(listener.addr(), None);
    let waiting: Vec<PeerSocket> = (0..2).map(|_| peer.connect_unix(&addr).expect("room")).collect();
    assert_eq!(peer.connect_unix(&addr).expect_err("full").kind(), io::ErrorKind::WouldBlock);
    let mut host = network.host(SERVER);
    assert_eq!(failed(host.connect_unix(0, TOKEN, &addr, &SystemOptions::default())), Errno::AGAIN);
    assert_eq!(network.fault_counts().count(crate::sim::Fault::QueueOverflows), 2);
    assert!(waiting.iter().all(|socket| socket.is_connected() && socket.local_addr().is_none()));
    listener.accept().expect("two wait");
    host.connect_unix(0, TOKEN, &addr, &SystemOptions::default()).expect("there is room");
    assert!(host.connected(0).expect("connected at once"));
}

#[test]
fn names_use_up_no_ports() {
    let network = Network::new(1);
    network.set_ports(5000..=5000);
    let (mut host, peer) = (network.host(SERVER), network.peer(SERVER));
    for place in 0..3 {
        let addr = UnixAddr::abstract_name(format!("{place}"));
        host.listen_unix(place, &addr, &ListenOptions::default()).expect("a new name");
        peer.connect_unix(&addr).expect("no port is needed");
    }
    let tcp = host.listen(3, SocketAddr::new(SERVER, 0), &ListenOptions::default()).expect("the only port is free");
    assert_eq!(tcp.port(), 5000);
}

/// A host that has accepted a script's connection: slot 0, registered, its first edges taken.
fn accepted_unix() -> (Network, Host, PeerSocket) {
    let network = Network::new(1);
    network.set_buffers(1_000, 100);
    let mut host = network.host(SERVER);
    let addr = UnixAddr::abstract_name("app");
    host.listen_unix(0, &addr, &ListenOptions::default()).expect("a new name");
    let peer = network.peer(SERVER).connect_unix(&addr).expect("it listens");
    host.accept(0, 0).expect("one waits");
    host.register(0, TOKEN).expect("there is room");
    assert_eq!(news(&mut host, Duration::ZERO), [(TOKEN, flags("out"))]);
    (network, host, peer)
}

/// As on Linux 6.18: SHUTDOWN_MASK on the other end, and ECONNRESET if its bytes were not read.
#[test]
fn a_peer_that_closes_hangs_up_at_once() {
    let (network, mut host, peer) = accepted_unix();
    peer.send(&[7; 300]);
    peer.close();
    assert_eq!(edge(&mut host, Duration::ZERO), flags("in out rdhup hup"));
    assert_eq!(failed(host.send(0, b"x", false)), Errno::PIPE);
    host.finish(0).expect("shutdown(2) succeeds");
    assert_eq!(edge(&mut host, Duration::ZERO), flags("in out rdhup hup"));
    assert!(host.acknowledged(0).expect("no error"));
    assert_eq!((read(&mut host), read(&mut host)), (Ok(vec![7; 300]), Ok(vec![])));
    host.close(0);
    assert_eq!(network.open_connections(), 0);
}

#[test]
fn a_peer_that_closes_and_has_not_read_everything_resets_after_its_last_byte() {
    let (network, mut host, peer) = accepted_unix();
    host.send(0, b"unread", false).expect("room");
    peer.send(b"answer");
    peer.finish();
    assert_eq!(edge(&mut host, Duration::ZERO), flags("in out rdhup"));
    peer.close();
    assert_eq!(edge(&mut host, Duration::ZERO), flags("in out rdhup hup err"));
    assert_eq!(failed(host.send(0, b"x", false)), Errno::PIPE);
    assert_eq!((read(&mut host), read(&mut host)), (Ok(b"answer".to_vec()), Err(Errno::CONNRESET)));
    assert_eq!((read(&mut host), host.take_error(0).is_none()), (Ok(vec![]), true));
    host.close(0);
    assert_eq!(network.open_connections(), 0);
}

#[test]
fn a_client_that_was_never_accepted_is_reset_with_its_listener() {
    let network = Network::new(1);
    let (mut host, peer) = (network.host(SERVER), network.peer(SERVER));
    let addr = UnixAddr::abstract_name("app");
    let listener = peer.listen_unix(&addr, &ListenOptions::default()).expect("a new name");
    host.connect_unix(0, TOKEN, &addr, &SystemOptions::default()).expect("it listens");
    assert_eq!(edge(&mut host, Duration::ZERO), flags("out"));
    listener.close();
    assert_eq!(edge(&mut host, Duration::ZERO), flags("in out rdhup hup err"));
    assert_eq!(failed(host.send(0, b"x", false)), Errno::PIPE);
    assert_eq!((read(&mut host), read(&mut host)), (Err(Errno::CONNRESET), Ok(vec![])));
}

/// As on Linux 6.18: RCV_SHUTDOWN on the other end, whose queue has everything already.
#[test]
fn a_shutdown_is_noticed_at_once_whatever_is_unread() {
    let (network, mut host, peer) = accepted_unix();
    peer.send(&[7; 300]);
    peer.finish();
    assert_eq!(edge(&mut host, Duration::ZERO), flags("in out rdhup"));
    host.finish(0).expect("open");
    assert_eq!(edge(&mut host, Duration::ZERO), flags("in out rdhup hup"));
    assert_eq!((read(&mut host), read(&mut host)), (Ok(vec![7; 300]), Ok(vec![])));
    peer.close();
    host.close(0);
    assert_eq!(network.open_connections(), 0);
}

#[test]
fn what_a_peer_has_in_its_queue_stays_acknowledged_when_it_closes() {
    let (network, mut host, peer) = accepted_unix();
    host.send(0, b"answer", false).expect("room");
    peer.finish();
    host.finish(0).expect("open");
    assert!(host.acknowledged(0).expect("no error"));
    peer.close();
    let kernel = network.truth(0, 0).kernel;
    assert_eq!((kernel.acked, kernel.fin_acked, kernel.died), (6, true, true));
}

/// As on Linux 6.18 (unix_writable). A TCP socket needs a third.
#[test]
fn a_writer_is_woken_when_three_quarters_of_its_buffer_are_free() {
    let (_network, mut host, peer) = accepted_unix();
    let (mut sent, mut taken) = (0, 0);
    while let Ok(bytes) = host.send(0, &[7; 100], false) {
        sent += bytes;
    }
    while !edge(&mut host, Duration::ZERO).writable {
        assert!(taken < sent, "the queue is empty");
        taken += peer.read().len();
    }
    assert!(sent - taken <= 250 + 100, "{taken} of {sent} were taken, and 100 are in the peer's buffer");
}

/// `ss -K` has no effect on it.
#[test]
fn it_is_not_aborted_from_outside() {
    let (network, mut host, peer) = accepted_unix();
    peer.send(&[7; 300]);
    let (local, remote) = network.endpoints(0, 0).expect("connected");
    assert!(!network.abort(local, remote) && !network.abort(remote, local));
    peer.close();
    assert_eq!((read(&mut host), read(&mut host)), (Ok(vec![7; 300]), Ok(vec![])));
    host.close(0);
}
