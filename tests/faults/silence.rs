//! Silence: the rows SI01 and following of docs/faults.md.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use finale::sim::Reach;
use finale::{ConnectOptions, ConnectionErrorKind, EndingKind, KeepAlive, ListenOptions, TimeoutKind};

use support::alone::{alone_in_a_network, shell};
use support::scene::{Scene, THERE};
use support::{Transcript, What, dial, dial_narrow, ms};

const SECOND: Duration = Duration::from_secs(1);

fn probes(count: u32) -> KeepAlive {
    KeepAlive { idle: SECOND, interval: SECOND, count }
}

/// A process that holds the peer's end of a connection, stopped. It ends with the test.
struct Frozen(Child);

impl Frozen {
    fn new(peer: TcpStream) -> Self {
        let child = Command::new("sleep").arg("600").stdin(Stdio::from(OwnedFd::from(peer))).spawn().expect("sleep");
        shell(&format!("kill -STOP {}", child.id()));
        Self(child)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// From now on nothing passes between the two ends, neither way.
fn cut(port: u16) {
    shell("nft add table ip cut && nft 'add chain ip cut in { type filter hook input priority 0; }'");
    shell(&format!("nft add rule ip cut in tcp sport {port} drop && nft add rule ip cut in tcp dport {port} drop"));
}

fn heal() {
    shell("nft delete table ip cut");
}

/// SI01: a peer whose program is frozen while its kernel answers: keep-alive finds nothing, the
/// idle time does.
#[test]
fn a_frozen_peer_is_found_by_the_idle_time_and_not_by_keep_alive() {
    let options = || ListenOptions::default().keep_alive(probes(1)).idle_timeout(5 * SECOND);
    let (mut scene, _peer) = Scene::served(options());
    scene.run(60 * SECOND);
    assert_eq!(scene.story, ["timeout"]);
}

/// SI01: the same with SIGSTOP. Without an answer keep-alive would end the connection after two
/// seconds.
#[test]
fn a_stopped_process_is_found_by_the_idle_time_and_not_by_keep_alive() {
    let options = ListenOptions::default().keep_alive(probes(1)).idle_timeout(ms(2500));
    let (mut story, socket, peer) = Transcript::pair(options);
    let _frozen = Frozen::new(peer);
    story.expect(socket, What::Timeout);
    story.socket(socket).destroy();
    story.close(socket);
    story.rest();
}

/// SI02: a peer that was frozen after its FIN still confirms our close: its kernel does.
#[test]
fn a_frozen_peer_confirms_our_close() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.finish();
    scene.expect(&["end"]); // From here on the script does nothing.
    scene.with(|socket| {
        socket.write(b"answer").expect("open");
        socket.end();
    });
    scene.expect(&["close"]);
    assert_eq!((scene.how(), peer.unread_bytes()), (&EndingKind::Confirmed, 6));

    let (mut story, socket, peer) = Transcript::pair(ListenOptions::default());
    peer.shutdown(Shutdown::Write).expect("connected");
    let _frozen = Frozen::new(peer);
    story.expect(socket, What::End);
    story.socket(socket).write(b"answer").expect("open");
    story.socket(socket).end();
    assert_eq!(story.close(socket).kind, EndingKind::Confirmed);
    story.rest();
}

/// SI03: a machine that is gone, with nothing in flight, and no keep-alive: only the idle time
/// detects it.
#[test]
fn a_machine_that_is_gone_is_a_silence_without_keep_alive() {
    let (mut scene, _peer) = Scene::served(ListenOptions::default().idle_timeout(10 * SECOND));
    scene.network.vanish(THERE);
    scene.run(10_000 * SECOND);
    assert_eq!(scene.story, ["timeout"]);
}

/// SI03: with packets dropped both ways: keep-alive detects it within its times, and without it the
/// idle time does.
#[test]
fn a_dropped_path_is_found_by_keep_alive_or_by_the_idle_time() {
    alone_in_a_network("silence::a_dropped_path_is_found_by_keep_alive_or_by_the_idle_time", || {
        let mut story = Transcript::new();
        let began = Instant::now();
        let probed = story.listen(ListenOptions::default().keep_alive(probes(2)));
        let idle = story.listen(ListenOptions::default().idle_timeout(SECOND));
        let _peers = [dial(probed), dial(idle)];
        let sockets = [story.connection(), story.connection()];
        let by_port = |story: &mut Transcript, id| story.socket(id).listener();
        let (probed_socket, idle_socket) = match by_port(&mut story, sockets[0]) < by_port(&mut story, sockets[1]) {
            true => (sockets[0], sockets[1]),
            false => (sockets[1], sockets[0]),
        };
        cut(probed.port());
        cut_more(idle.port());
        story.expect(idle_socket, What::Timeout);
        assert_eq!(story.error(probed_socket).kind, ConnectionErrorKind::TimedOut(TimeoutKind::Kernel));
        assert!(began.elapsed() >= 2 * SECOND, "after {:?}", began.elapsed());
        story.close(probed_socket);
        story.socket(idle_socket).destroy();
        story.close(idle_socket);
        story.rest();
    });
}

fn cut_more(port: u16) {
    shell(&format!("nft add rule ip cut in tcp sport {port} drop && nft add rule ip cut in tcp dport {port} drop"));
}

/// SI04: a machine that is gone, with bytes in flight: TCP_USER_TIMEOUT ends it; keep-alive, which
/// does not run while something is unacknowledged, takes much longer than its times.
#[test]
fn a_machine_that_is_gone_with_bytes_in_flight_is_found_by_the_user_timeout() {
    let (mut scene, _peer) = Scene::served(ListenOptions::default().user_timeout(ms(1500)));
    scene.network.vanish(THERE);
    scene.with(|socket| drop(socket.write(b"hello?")));
    scene.run(ms(1499));
    assert!(scene.story.is_empty(), "not early: {:?}", scene.story);
    scene.expect(&["error timed out: the peer's kernel no longer answers", "close"]);
    assert!(!scene.ending.expect("delivered").is_acknowledged());

    let (mut scene, _peer) = Scene::served(ListenOptions::default().keep_alive(probes(2)));
    scene.network.vanish(THERE);
    scene.with(|socket| drop(socket.write(b"hello?")));
    scene.run(60 * SECOND);
    assert!(scene.story.is_empty(), "{:?}", scene.story);
}

/// SI04: the same with packets dropped.
#[test]
fn a_dropped_path_with_bytes_in_flight_is_found_by_the_user_timeout() {
    alone_in_a_network("silence::a_dropped_path_with_bytes_in_flight_is_found_by_the_user_timeout", || {
        let (mut story, socket, peer) = Transcript::pair(ListenOptions::default().user_timeout(SECOND));
        let probed = story.listen(ListenOptions::default().keep_alive(probes(2)));
        let _probed_peer = dial(probed);
        let probed_socket = story.connection();
        cut(peer.peer_addr().expect("connected").port());
        cut_more(probed.port());
        let began = Instant::now();
        for id in [socket, probed_socket] {
            story.socket(id).write(b"hello?").expect("open");
        }
        assert_eq!(story.error(socket).kind, ConnectionErrorKind::TimedOut(TimeoutKind::Kernel));
        assert!(began.elapsed() >= ms(900), "after {:?}", began.elapsed());
        assert!(!story.close(socket).is_acknowledged());
        story.silence(4 * SECOND - began.elapsed());
        story.socket(probed_socket).destroy();
        story.close(probed_socket);
        story.rest();
    });
}

/// SI05: TCP_USER_TIMEOUT takes a live peer that does not read for dead, although its kernel
/// answers every probe: the option's documentation says so, and the report counts bytes that could
/// never be sent.
#[test]
fn the_user_timeout_ends_a_peer_that_is_only_slow() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().user_timeout(ms(1500)));
    scene.with(|socket| drop(socket.write(&vec![1; 1 << 20])));
    scene.run(3 * SECOND);
    assert_eq!(scene.story, ["error timed out: the peer's kernel no longer answers", "close"]);
    let ending = scene.ending.as_ref().expect("delivered");
    assert!(ending.bytes_unsent > 0 && !ending.is_acknowledged());
    assert!(peer.unread_bytes() > 0);

    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default().user_timeout(SECOND).send_buffer_size(64 * 1024));
    let _peer = dial_narrow(addr);
    let socket = story.connection();
    story.socket(socket).write(&vec![1; 1 << 20]).expect("below the limit");
    assert_eq!(story.error(socket).kind, ConnectionErrorKind::TimedOut(TimeoutKind::Kernel));
    let ending = story.close(socket);
    assert!(ending.bytes_unsent > 0 && !ending.is_acknowledged());
    story.rest();
    let source = include_str!("../../src/options/setters.rs");
    assert!(source.contains("TCP_USER_TIMEOUT: how long sent bytes may stay unacknowledged, a closed window"));
}

/// SI06: the path heals before the idle time is over: no `timeout` is delivered, nothing is lost,
/// and what the peer's kernel repeats is one sign of life: the next silence counts from there.
#[test]
fn a_path_that_heals_in_time_leaves_no_trace() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().idle_timeout(8 * SECOND));
    scene.network.vanish(THERE);
    peer.send(b"lost, and repeated");
    scene.run(6 * SECOND);
    scene.network.heal(THERE);
    scene.run(ms(900));
    assert_eq!(std::mem::take(&mut scene.story), ["data lost, and repeated"]);
    scene.run(7 * SECOND);
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    scene.run(20 * SECOND);
    assert_eq!(scene.story, ["timeout"]);
}

/// SI06: the same with packets dropped for most of the idle time.
#[test]
fn a_dropped_path_that_heals_in_time_leaves_no_trace() {
    alone_in_a_network("silence::a_dropped_path_that_heals_in_time_leaves_no_trace", || {
        let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
        story.turn();
        cut(peer.peer_addr().expect("connected").port());
        // Repeated some 0.2, 0.6, 1.4 and 3.0 s later.
        peer.write_all(b"lost, and repeated").expect("connected");
        story.socket(socket).set_idle_timeout(ms(4000));
        story.silence(ms(2000));
        heal();
        assert_eq!(story.data(socket, 18), b"lost, and repeated");
        story.silence(ms(100));
        drop(peer);
        story.expect(socket, What::End);
        story.socket(socket).end();
        assert!(story.close(socket).is_acknowledged());
        story.rest();
    });
}

/// SI07: a neighbour that does not answer is unreachable for new connections; an established
/// connection learns only from timers that a link is down.
#[test]
fn a_lost_neighbour_fails_a_connect_and_silences_a_connection() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().idle_timeout(2 * SECOND));
    scene.network.vanish(THERE);
    scene.run(10 * SECOND);
    assert_eq!(std::mem::take(&mut scene.story), ["timeout"]);
    scene.network.heal(THERE);
    peer.send(b"back");
    scene.expect(&["data back"]);

    let mut scene = Scene::new();
    scene.network.set_reach(THERE, Reach::Unreachable);
    scene.reactor.connect((THERE, 80), ConnectOptions::default()).expect("a good target");
    scene.run(10 * SECOND);
    assert_eq!(scene.cause(), ConnectionErrorKind::Unreachable);
}

/// SI07: the same with a link whose other end does not answer, and with loopback taken down.
#[test]
fn a_lost_link_fails_a_connect_and_silences_a_connection() {
    alone_in_a_network("silence::a_lost_link_fails_a_connect_and_silences_a_connection", || {
        let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default().idle_timeout(ms(300)));
        shell("ip link set lo down");
        story.expect(socket, What::Timeout);
        story.silence(ms(300));
        shell("ip link set lo up");
        peer.write_all(b"back").expect("connected");
        story.data(socket, 4);
        story.socket(socket).destroy();
        story.close(socket);

        let cable = "ip link add left type veth peer name right && ip addr add 10.9.0.1/24 dev left";
        shell(&format!("{cable} && ip link set left up && ip link set right up"));
        let client = story.reactor.connect("10.9.0.2:9", ConnectOptions::default()).expect("an address");
        assert!(matches!(story.next(client), What::Lookup(_)));
        assert_eq!(story.error(client).kind, ConnectionErrorKind::Unreachable);
        story.close(client);
        story.rest();
        assert!(peer.read(&mut [0]).is_err(), "reset");
    });
}

/// SI08: TCP_USER_TIMEOUT is no idle time: with nothing in flight it never ends a connection,
/// whatever happened to the peer.
#[test]
fn the_user_timeout_is_no_idle_time() {
    let (mut scene, _peer) = Scene::served(ListenOptions::default().user_timeout(SECOND));
    scene.network.vanish(THERE);
    scene.run(10_000 * SECOND);
    assert!(scene.story.is_empty(), "{:?}", scene.story);
}

/// SI08: the same with packets dropped.
#[test]
fn the_user_timeout_of_a_dropped_path_is_no_idle_time() {
    alone_in_a_network("silence::the_user_timeout_of_a_dropped_path_is_no_idle_time", || {
        let (mut story, socket, peer) = Transcript::pair(ListenOptions::default().user_timeout(ms(500)));
        cut(peer.peer_addr().expect("connected").port());
        story.silence(ms(2000));
        story.socket(socket).destroy();
        story.close(socket);
        story.rest();
    });
}
