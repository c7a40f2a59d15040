//! Resets: the rows RS01 and following of docs/faults.md.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use finale::sim::Faults;
use finale::{ConnectionErrorKind, Event, FirstFin, ListenOptions};

use support::alone::{alone_in_a_network, shell};
use support::scene::{HERE, Scene, THERE};
use support::{Transcript, What, ms, reset};

const SECOND: Duration = Duration::from_secs(1);

/// RS01: an idle connection is reset: delivered without any call of ours.
#[test]
fn a_reset_of_an_idle_connection_is_told_by_itself() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.run(60 * SECOND);
    peer.reset();
    scene.expect(&["error reset by the peer", "close"]);
    assert_eq!(scene.ending.as_ref().expect("delivered").first_fin, FirstFin::Neither);
}

/// RS04: whichever call meets the reset first, and whether it gets ECONNRESET or EPIPE for it: one
/// error, of one kind.
#[test]
fn a_reset_that_a_write_meets_first_is_one_error_of_one_kind() {
    let told = ["error reset by the peer", "close"];
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.expect(&[]);
    peer.reset();
    scene.network.advance(ms(100));
    scene.with(|socket| drop(socket.write(b"ECONNRESET")));
    scene.expect(&told);
    let open = scene.cause();

    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.finish();
    scene.expect(&["end"]);
    peer.reset();
    scene.network.advance(ms(100));
    scene.with(|socket| drop(socket.write(b"EPIPE")));
    scene.expect(&told);
    assert_eq!((open, scene.cause()), (ConnectionErrorKind::Reset, ConnectionErrorKind::Reset));
}

/// RS04: the same on a real kernel.
#[test]
fn a_real_reset_that_a_write_meets_first_is_one_error_of_one_kind() {
    let (mut story, socket, peer) = Transcript::pair(ListenOptions::default());
    story.turn();
    reset(peer);
    story.socket(socket).write(b"ECONNRESET").expect("the reset is not known yet");
    let open = story.error(socket);
    story.close(socket);
    story.rest();

    let (mut story, socket, peer) = Transcript::pair(ListenOptions::default());
    peer.shutdown(Shutdown::Write).expect("connected");
    story.expect(socket, What::End);
    story.turn();
    reset(peer);
    story.socket(socket).write(b"EPIPE").expect("the reset is not known yet");
    let ended = story.error(socket);
    story.close(socket);
    assert_eq!((open.kind, ended.kind), (ConnectionErrorKind::Reset, ConnectionErrorKind::Reset));
    assert_eq!(open.to_string(), ended.to_string());
    story.rest();
}

/// RS05: a process that dies is reported as its kernel's packet: FIN if everything was read, RST if
/// not. (A FIN is no proof of health: the crate's page says so.)
#[test]
fn a_crash_is_told_as_it_is_on_the_wire() {
    for unread in [false, true] {
        let (mut scene, peer) = Scene::served(ListenOptions::default());
        if unread {
            scene.with(|socket| drop(socket.write(b"unread")));
        }
        scene.expect(&[]);
        peer.close();
        scene.expect(if unread { &["error reset by the peer", "close"] } else { &["end"] });
    }
}

/// A process that holds the peer's end of a connection as its input, and does nothing with it.
fn holder(peer: std::net::TcpStream) -> Child {
    Command::new("sleep").arg("600").stdin(Stdio::from(OwnedFd::from(peer))).spawn().expect("sleep")
}

/// RS05: the same with SIGKILL.
#[test]
fn a_killed_process_is_told_as_it_is_on_the_wire() {
    for unread in [false, true] {
        let (mut story, socket, peer) = Transcript::pair(ListenOptions::default());
        let mut child = holder(peer);
        if unread {
            story.socket(socket).write(b"unread").expect("open");
        }
        story.silence(ms(20));
        child.kill().expect("it lives");
        child.wait().expect("ours");
        if unread {
            assert_eq!(story.error(socket).kind, ConnectionErrorKind::Reset);
        } else {
            story.expect(socket, What::End);
            story.silence(ms(20));
            story.socket(socket).end();
        }
        assert_eq!(story.close(socket).is_clean(), !unread);
        story.rest();
    }
}

/// RS06: the peer was restarted and remembers nothing; its RST was lost too. Only `timeout` is
/// delivered, until our next bytes are answered with a reset.
#[test]
fn a_peer_that_was_restarted_is_noticed_at_the_next_write() {
    let (mut scene, _peer) = Scene::served(ListenOptions::default().idle_timeout(10 * SECOND));
    scene.expect(&[]);
    scene.network.forget(THERE);
    scene.run(60 * SECOND);
    assert_eq!(std::mem::take(&mut scene.story), ["timeout"]);
    scene.with(|socket| drop(socket.write(b"are you there?")));
    scene.expect(&["error reset by the peer", "close"]);
    assert!(!scene.ending.expect("delivered").is_acknowledged());
}

/// RS06: the same with the RST dropped on its way.
#[test]
fn a_peer_whose_reset_was_lost_is_noticed_at_the_next_write() {
    alone_in_a_network("resets::a_peer_whose_reset_was_lost_is_noticed_at_the_next_write", || {
        let (mut story, socket, peer) = Transcript::pair(ListenOptions::default());
        shell("nft add table ip lost && nft 'add chain ip lost in { type filter hook input priority 0; }'");
        shell("nft add rule ip lost in tcp flags rst drop");
        reset(peer);
        shell("nft delete table ip lost");
        story.silence(ms(300));
        story.socket(socket).write(b"are you there?").expect("open");
        assert_eq!(story.error(socket).kind, ConnectionErrorKind::Reset);
        assert!(!story.close(socket).is_acknowledged());
        story.rest();
    });
}

/// RS07: a router complains about a live connection: SO_ERROR reports it, without a flag, and it is
/// no ending.
#[test]
fn a_network_error_on_a_living_connection_is_no_ending() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    let (here, there) = ((HERE, 80).into(), peer.local_addr().expect("open"));
    scene.expect(&[]);
    assert!(scene.network.unreachable(here, there));
    scene.expect(&[]);
    scene.with(|socket| drop(socket.write(b"still here")));
    scene.expect(&[]);
    assert_eq!(peer.read(), b"still here");
    scene.with(|socket| socket.end());
    scene.expect(&[]);
    assert!(scene.network.unreachable(here, there), "and once more while we wait for their FIN");
    peer.send(b"so am I");
    peer.finish();
    scene.expect(&["data so am I", "end", "close"]);
    assert!(scene.ending.expect("delivered").is_acknowledged());
}

/// RS07: the same once the peer has finished, when an error flag would be checked without a read.
#[test]
fn a_network_error_on_a_half_closed_connection_is_no_ending() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.finish();
    scene.expect(&["end"]);
    let (here, there) = ((HERE, 80).into(), peer.local_addr().expect("open"));
    assert!(scene.network.unreachable(here, there));
    scene.with(|socket| drop(socket.write(b"answer")));
    scene.expect(&[]);
    assert!(scene.network.unreachable(here, there));
    scene.with(|socket| socket.end());
    scene.expect(&["close"]);
    assert_eq!(peer.read(), b"answer");
    assert!(scene.ending.expect("delivered").is_acknowledged());
}

/// RS07: the same while epoll has no room for the connection, which is then looked at again and
/// again, since nothing would report its error.
#[test]
fn a_network_error_on_a_connection_that_epoll_has_no_room_for_is_no_ending() {
    let mut scene = Scene::new();
    scene.network.set_faults(Faults { register_exhausted: 1.0, ..Faults::none() });
    let peer = scene.serve(ListenOptions::default());
    scene.expect(&[]);
    assert!(scene.network.unreachable((HERE, 80).into(), peer.local_addr().expect("open")));
    scene.expect(&[]);
    peer.send(b"still here");
    scene.expect(&["data still here"]);
    peer.finish();
    scene.expect(&["end"]);
    assert!(scene.network.unreachable((HERE, 80).into(), peer.local_addr().expect("open")));
    scene.expect(&[]);
    scene.with(|socket| socket.end());
    scene.expect(&["close"]);
    assert!(scene.ending.expect("delivered").is_acknowledged());
}

/// RS07: the same with packets rejected; once the path is back, what was written arrives.
#[test]
fn a_rejected_packet_of_a_living_connection_is_no_ending() {
    alone_in_a_network("resets::a_rejected_packet_of_a_living_connection_is_no_ending", || {
        let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
        let port = peer.local_addr().expect("connected").port();
        shell("nft add table ip held && nft 'add chain ip held in { type filter hook input priority 0; }'");
        shell(&format!("nft add rule ip held in tcp dport {port} reject with icmp host-unreachable"));
        story.socket(socket).write(b"still here").expect("open");
        story.silence(ms(300));
        shell("nft delete table ip held");
        let mut got = [0; 10];
        peer.read_exact(&mut got).expect("it is repeated");
        assert_eq!(&got, b"still here");
        drop(peer);
        story.expect(socket, What::End);
        story.socket(socket).end();
        assert!(story.close(socket).is_acknowledged());
        story.rest();
    });
}

/// RS08: an administrator ends the connection from outside.
#[test]
fn a_connection_that_is_killed_from_outside_is_aborted() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.expect(&[]);
    assert!(scene.network.abort((HERE, 80).into(), peer.local_addr().expect("open")));
    scene.expect(&["error aborted by the system", "close"]);
    assert_eq!(scene.cause(), ConnectionErrorKind::Aborted);
    scene.network.advance(SECOND);
    assert!(peer.is_reset());
}

/// RS08: the same with `ss -K`, if it is available.
#[test]
fn a_connection_that_ss_kills_is_aborted() {
    alone_in_a_network("resets::a_connection_that_ss_kills_is_aborted", || {
        let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
        story.turn();
        let port = peer.local_addr().expect("connected").port();
        let killed = Command::new("ss").args(["-HKt", "dport", "=", &format!(":{port}")]).output();
        if !killed.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(&port.to_string())) {
            println!("skipped: a_connection_that_ss_kills_is_aborted needs ss and CONFIG_INET_DIAG_DESTROY");
            return;
        }
        assert_eq!(story.error(socket).kind, ConnectionErrorKind::Aborted);
        assert!(story.close(socket).had_error());
        let read = peer.read(&mut [0; 10]);
        assert_eq!(read.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
        story.rest();
    });
}

/// RS09: the peer gives an idle connection up at the very moment at which we use it again. The
/// report shows that nothing was read since and nothing acknowledged: enough to decide whether the
/// request may be repeated.
#[test]
fn a_request_that_crosses_the_peers_close_was_neither_answered_nor_acknowledged() {
    for resets in [false, true] {
        let (mut scene, peer) = Scene::served(ListenOptions::default());
        peer.send(b"old");
        scene.expect(&["data old"]);
        if resets {
            peer.reset()
        } else {
            peer.close()
        }
        scene.with(|socket| drop(socket.write(b"again")));
        scene.expect(if resets {
            &["error reset by the peer", "close"]
        } else {
            &["end", "error reset by the peer", "close"]
        });
        let ending = scene.ending.expect("delivered");
        assert!(!ending.is_acknowledged());
        assert_eq!((ending.bytes_read, ending.bytes_written + ending.bytes_unsent), (3, 5));
    }
}

/// RS09: the same on a real kernel.
#[test]
fn a_real_request_that_crosses_the_peers_close_was_neither_answered_nor_acknowledged() {
    for resets in [false, true] {
        let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
        peer.write_all(b"old").expect("connected");
        story.data(socket, 3);
        story.turn();
        if resets {
            reset(peer);
        } else {
            // Not before the FIN has arrived: another test that starts a process holds the peer's
            // socket open for a moment.
            story.socket(socket).pause();
            drop(peer);
            while !story.socket(socket).peer_ended() {
                story.turn();
            }
            story.socket(socket).resume();
        }
        story.socket(socket).write(b"again").expect("the reset is not known yet");
        let mut told = Vec::new();
        story.until(|_, event| {
            told.push(match event {
                Event::Close(ending) => {
                    assert!(!ending.is_acknowledged());
                    assert_eq!((ending.bytes_read, ending.bytes_written + ending.bytes_unsent), (3, 5));
                    "close"
                }
                Event::Error(failure) if failure.kind == ConnectionErrorKind::Reset => "reset",
                Event::End => "end",
                other => panic!("{other:?}"),
            });
            told.last() == Some(&"close")
        });
        assert_eq!(told, if resets { &["reset", "close"][..] } else { &["end", "reset", "close"] });
        story.rest();
    }
}
