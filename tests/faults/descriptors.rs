//! Descriptors and memory: the rows FD01 and following of docs/faults.md.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use finale::sim::{Faults, PeerSocket};
use finale::{ConnectOptions, ConnectionErrorKind, EndingKind, ListenOptions};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use support::alone::alone;
use support::faulty::{faulty_registered, flags};
use support::scene::{HERE, Scene, THERE};
use support::{Transcript, cpu_time, dial, ms};

const SECOND: Duration = Duration::from_secs(1);

/// The numbers of all sockets.
fn sockets() -> BTreeSet<i32> {
    let list = std::fs::read_dir("/proc/self/fd").expect("Linux has it").map(|entry| entry.expect("readable"));
    let is_socket = |entry: &std::fs::DirEntry| {
        std::fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    };
    list.filter(is_socket).filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// A copy of the one socket that `begin` leaves open, as a fork or another library would have.
/// `None`, with a printed line, if the system does not allow it.
fn duplicate(begin: impl FnOnce()) -> Option<OwnedFd> {
    let before = sockets();
    begin();
    let new: Vec<i32> = sockets().difference(&before).copied().collect();
    let [fd] = new.as_slice() else { panic!("not one socket, but {new:?}") };
    let own = pidfd_open(getpid(), PidfdFlags::empty());
    match own.and_then(|own| pidfd_getfd(own, *fd, PidfdGetfdFlags::empty())) {
        Ok(copy) => Some(copy),
        Err(error) => {
            println!("skipped: no copy of a descriptor: {error}");
            None
        }
    }
}

/// FD01: out of descriptors for a connect: delivered by `next`, and the next one works.
#[test]
fn a_connect_without_a_descriptor_is_told_and_the_next_one_works() {
    let mut scene = Scene::new();
    let _listener = scene.peer.listen((THERE, 80).into()).expect("free");
    scene.network.set_faults(Faults { connect_exhausted: 1.0, ..Faults::none() });
    scene.reactor.connect((THERE, 80), ConnectOptions::default()).expect("delivered later");
    scene.run(SECOND);
    assert_eq!((scene.story[0].as_str(), scene.story[2].as_str()), ("lookup 10.0.0.2", "close"));
    assert_eq!(scene.cause(), ConnectionErrorKind::OutOfResources);
    scene.story.clear();
    scene.network.set_faults(Faults::none());
    scene.reactor.connect((THERE, 80), ConnectOptions::default()).expect("a good target");
    scene.expect(&["lookup 10.0.0.2", "connect", "ready"]);
    scene.with(|socket| socket.destroy());
    scene.expect(&["close"]);
    scene.rest();
}

/// FD02: late readiness of a closed connection whose slot was reused: the new connection is not
/// even examined.
#[test]
fn late_news_of_a_dead_connection_does_not_touch_its_successor() {
    let (mut scene, _first, faulty) = faulty_registered(ListenOptions::default());
    let first = scene.socket.expect("accepted");
    scene.with(|socket| socket.destroy());
    scene.expect(&["close"]);
    let second = scene.serve(ListenOptions::default());
    scene.expect(&[]);
    let id = scene.socket.expect("accepted");
    assert!(id != first && id.index() == first.index(), "the place is used again");
    faulty.take_log();
    faulty.news(1, flags("in out rdhup hup err"));
    scene.expect(&[]);
    assert!(faulty.take_log().iter().all(|call| *call == "poll"));
    second.send(b"mine");
    scene.expect(&["data mine"]);
    scene.with(|socket| socket.destroy());
    scene.expect(&["close"]);
    scene.rest();
}

/// FD02: the same if stale readiness is reported at every close.
#[test]
fn stale_news_at_every_close_is_told_to_nobody() {
    let mut scene = Scene::new();
    scene.network.set_faults(Faults { stale_news: 1.0, ..Faults::none() });
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    for round in 0..50 {
        let peer = scene.peer.connect(listener.addr).expect("begun");
        scene.expect(&["connection"]);
        peer.send(b"x");
        scene.expect(&["data x"]);
        assert_eq!(scene.socket.expect("delivered").index(), 0, "round {round}");
        scene.with(|socket| socket.destroy());
        // The next one exists when the stale readiness is reported.
        let next = scene.peer.connect(listener.addr).expect("begun");
        scene.expect(&["close", "connection"]);
        scene.expect(&[]);
        scene.with(|socket| socket.destroy());
        scene.expect(&["close"]);
        drop(next);
    }
    scene.reactor.close_listener(listener.id).expect("open");
    scene.rest();
}

/// FD02: on a real kernel: two sockets are ready in one batch, the first one's handler ends the
/// second, and the next client gets its number.
#[test]
fn a_number_that_is_used_again_within_a_batch_brings_nothing_of_its_predecessor() {
    let (mut story, first, mut first_peer) = Transcript::pair(ListenOptions::default());
    let addr = first_peer.peer_addr().expect("connected");
    for _ in 0..50 {
        let mut second_peer = dial(addr);
        let second = story.connection();
        story.turn();
        first_peer.write_all(b"one").expect("connected");
        second_peer.write_all(b"two").expect("connected");
        assert_eq!(story.data(first, 3), b"one");
        story.socket(second).destroy();
        let third_peer = dial(addr);
        while !matches!(story.next(second), support::What::Close(_)) {}
        let third = story.connection();
        story.turn();
        assert_eq!(story.socket(third).bytes_read(), 0);
        assert!(!story.socket(third).peer_ended());
        drop(third_peer);
        story.expect(third, support::What::End);
        story.socket(third).end();
        assert!(story.close(third).is_acknowledged());
    }
    story.socket(first).destroy();
    story.close(first);
    story.rest();
}

/// FD03: readiness of a closed descriptor, again and again: no event is delivered, and each costs
/// one poll.
#[test]
fn news_after_the_close_is_ignored() {
    let (mut scene, _peer, faulty) = faulty_registered(ListenOptions::default());
    scene.with(|socket| socket.destroy());
    scene.expect(&["close"]);
    let _timer = scene.reactor.set_timer(60 * SECOND);
    faulty.take_log();
    for _ in 0..100 {
        faulty.news(0, flags("in out rdhup hup err"));
        scene.run(ms(1));
    }
    assert!(scene.story.is_empty());
    let log = faulty.take_log();
    assert!(log.len() <= 400 && log.iter().all(|call| *call == "poll"), "{} calls", log.len());
}

/// FD03: another process holds a copy of the descriptor, so that epoll still watches what we have
/// closed.
#[test]
fn news_of_a_descriptor_that_somebody_copied_is_ignored() {
    alone("descriptors::news_of_a_descriptor_that_somebody_copied_is_ignored", || {
        let mut story = Transcript::new();
        let addr = story.listen(ListenOptions::default());
        let mut peer = dial(addr);
        let mut socket = None;
        let Some(copy) = duplicate(|| socket = Some(story.connection())) else { return };
        let socket = socket.expect("accepted");
        story.turn();
        story.socket(socket).destroy();
        story.close(socket);
        let before = cpu_time();
        for _ in 0..50 {
            peer.write_all(b"for whoever reads it").expect("the copy keeps it open");
            story.silence(ms(10));
        }
        assert!(cpu_time() - before < ms(250), "asleep in between");
        let mut bytes = [0; 20];
        std::net::TcpStream::from(copy).read_exact(&mut bytes).expect("nobody else has read it");
        assert_eq!(&bytes, b"for whoever reads it");
        story.rest();
    });
}

/// FD04: a descriptor that other code has closed: this connection fails, is closed once, and no
/// other is affected.
#[test]
fn a_descriptor_that_somebody_closed_ends_its_connection_alone() {
    for call in ["recv", "send", "finish", "register"] {
        let (mut scene, good, faulty) = faulty_registered(ListenOptions::default());
        let good_id = scene.socket.expect("accepted");
        if call == "register" {
            faulty.once(call, Errno::BADF);
        }
        let bad = scene.serve_another();
        faulty.once(call, Errno::BADF);
        match call {
            "recv" => bad.send(b"x"),
            "send" => scene.with(|socket| drop(socket.write(b"x"))),
            "finish" => scene.with(|socket| socket.end()),
            _ => {}
        }
        scene.run(SECOND);
        assert_eq!(scene.story.last().map(String::as_str), Some("close"), "{call}: {:?}", scene.story);
        assert!(
            matches!(scene.how(), EndingKind::Failed(failure) if failure.kind == ConnectionErrorKind::System),
            "{call}"
        );
        assert_eq!((faulty.count("close"), faulty.count("reset")), (0, 1), "{call}: closed once");
        scene.story.clear();
        good.send(b"undisturbed");
        scene.expect(&["data undisturbed"]);
        scene.reactor.socket(good_id).expect("it lives").destroy();
        scene.expect(&["close"]);
        drop::<PeerSocket>(good);
    }
}
