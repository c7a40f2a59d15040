//! Whose FIN was first: `Ending` names us only if that is true, even if the peer finished while the
//! handler worked. The report of a failure also includes a FIN that was sent.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::time::Duration;

use finale::sim::{Network, PeerSocket, Reach};
use finale::{
    CloseMode, ConnectOptions, ConnectionErrorKind, Ending, EndingKind, Event, FirstFin, ListenOptions, Reactor,
    Socket, TimeoutKind,
};
use rustix::io::Errno;

use support::faulty::{faulty_on, faulty_served, flags};
use support::scene::{HERE, Scene, THERE};
use support::{Transcript, What, ms, reset, work_for};

const SECOND: Duration = Duration::from_secs(1);

/// A conversation on the simulated network. `work` runs in the handler of the first event of this
/// name, with the peer's end; the peer's request arrives a second after the connection.
fn conversation(
    listen: ListenOptions,
    name: &str,
    work: impl FnOnce(&Network, &PeerSocket, &mut Socket<'_>),
    after: impl Fn(&PeerSocket),
) -> Ending {
    let network = Network::new(7);
    let mut reactor = Reactor::with_net(network.host(HERE));
    let listener = reactor.listen((HERE, 80), listen).expect("a free port");
    let peer = network.peer(THERE).connect(listener.addr).expect("begun");
    let (mut work, mut is_asked) = (Some(work), false);
    loop {
        let until = network.now() + SECOND;
        let Some((mut socket, event)) = reactor.next_before(until).expect("it continues") else {
            if std::mem::replace(&mut is_asked, true) {
                after(&peer);
            } else {
                peer.send(b"request");
            }
            assert!(network.elapsed() < 100 * SECOND, "it does not end");
            continue;
        };
        if let Event::Close(ending) = event {
            return ending.clone();
        }
        if format!("{event:?}").starts_with(name)
            && let Some(work) = work.take()
        {
            work(&network, &peer, &mut socket);
        }
    }
}

fn answer(socket: &mut Socket<'_>) {
    socket.write(b"answer").expect("open");
    socket.end();
}

/// The peer's FIN arrived before ours was sent: it was first, or the order was not seen.
#[track_caller]
fn is_not_ours(ending: &Ending) {
    assert!(ending.is_clean(), "{ending}");
    assert!(matches!(ending.first_fin, FirstFin::Peer | FirstFin::Unknown), "{ending}");
}

#[test]
fn a_fin_that_came_while_the_handler_worked_was_first() {
    for close in [CloseMode::Confirmed, CloseMode::HandOff] {
        let work = |network: &Network, peer: &PeerSocket, socket: &mut Socket<'_>| {
            peer.finish();
            network.advance(ms(50));
            answer(socket);
        };
        is_not_ours(&conversation(ListenOptions::default().close_mode(close), "Data", work, |_| ()));
    }
}

#[test]
fn a_fin_after_bytes_that_came_while_the_handler_worked_was_first() {
    let work = |network: &Network, peer: &PeerSocket, socket: &mut Socket<'_>| {
        peer.send(b"one thing more");
        peer.finish();
        network.advance(ms(50));
        answer(socket);
    };
    is_not_ours(&conversation(ListenOptions::default(), "Data", work, |_| ()));
}

#[test]
fn a_fin_that_came_while_a_slow_handler_accepted_was_first() {
    let work = |network: &Network, peer: &PeerSocket, socket: &mut Socket<'_>| {
        peer.send(b"request");
        peer.finish();
        network.advance(ms(50));
        answer(socket);
    };
    is_not_ours(&conversation(ListenOptions::default(), "Connection", work, |_| ()));
}

#[test]
fn a_fin_that_came_while_the_handler_of_a_timeout_worked_was_first() {
    let work = |network: &Network, peer: &PeerSocket, socket: &mut Socket<'_>| {
        peer.finish();
        network.advance(ms(50));
        answer(socket);
    };
    is_not_ours(&conversation(ListenOptions::default().idle_timeout(SECOND / 2), "Timeout", work, |_| ()));
}

#[test]
fn a_fin_of_a_server_that_came_while_its_client_worked_was_first() {
    let network = Network::new(7);
    let mut reactor = Reactor::with_net(network.host(HERE));
    let listener = network.peer(THERE).listen((THERE, 80).into()).expect("a free port");
    let id = reactor.connect((THERE, 80), ConnectOptions::default()).expect("an address");
    let mut servers = Vec::new();
    while let Some((_, event)) = reactor.next_before(network.now() + SECOND).expect("it continues") {
        assert!(!matches!(event, Event::Error(_)));
    }
    let server = listener.accept().expect("connected");
    server.send(b"a banner");
    while let Some((mut socket, event)) = reactor.next_before(network.now() + SECOND).expect("it continues") {
        match event {
            Event::Data(_) if servers.is_empty() => {
                server.finish();
                servers.push(id);
                network.advance(ms(50));
                answer(&mut socket);
            }
            Event::Close(ending) => return is_not_ours(ending),
            _ => {}
        }
    }
    panic!("it does not end");
}

#[test]
fn our_fin_is_first_if_nothing_of_the_peers_has_come() {
    let work = |network: &Network, _: &PeerSocket, socket: &mut Socket<'_>| {
        network.advance(ms(50));
        answer(socket);
    };
    let ending = conversation(ListenOptions::default(), "Data", work, PeerSocket::finish);
    assert_eq!(
        (ending.first_fin, ending.time_wait(), &ending.kind),
        (FirstFin::Local, FirstFin::Local, &EndingKind::Confirmed),
        "{ending}"
    );
}

/// Unread bytes hide whether a FIN follows them. Once they are read and nothing follows, none did.
#[test]
fn our_fin_is_first_over_unread_bytes_that_no_fin_follows() {
    for is_discarded in [false, true] {
        let work = |network: &Network, peer: &PeerSocket, socket: &mut Socket<'_>| {
            peer.send(b"unread");
            network.advance(ms(50));
            answer(socket);
            if is_discarded {
                socket.discard();
            }
        };
        let ending = conversation(ListenOptions::default(), "Connection", work, PeerSocket::finish);
        assert!(ending.is_clean(), "{ending}");
        assert_eq!(ending.first_fin, FirstFin::Local, "discarded: {is_discarded}");
    }
}

/// The same, and the two FINs cross.
#[test]
fn fins_that_cross_over_unread_bytes_are_both_first() {
    let work = |network: &Network, peer: &PeerSocket, socket: &mut Socket<'_>| {
        peer.send(b"unread");
        network.advance(ms(50));
        network.set_latency(ms(100));
        peer.finish();
        answer(socket);
    };
    let ending = conversation(ListenOptions::default(), "Connection", work, |_| ());
    assert_eq!(ending.first_fin, FirstFin::Both, "{ending}");
}

#[test]
fn fins_that_cross_are_both_first() {
    let work = |network: &Network, peer: &PeerSocket, socket: &mut Socket<'_>| {
        network.set_latency(ms(100));
        peer.finish();
        answer(socket);
    };
    let ending = conversation(ListenOptions::default(), "Data", work, |_| ());
    assert_eq!(ending.first_fin, FirstFin::Both, "{ending}");
}

// --- failures ---

fn fails(ending: &Ending) -> FirstFin {
    let EndingKind::Failed(failure) = &ending.kind else { panic!("{ending}") };
    assert!(
        matches!(
            failure.kind,
            ConnectionErrorKind::TimedOut(TimeoutKind::Deadline | TimeoutKind::HalfClosed | TimeoutKind::Close)
        ),
        "{ending}"
    );
    ending.first_fin
}

/// The handler answers before anything is read. The peer takes the answer and our FIN, and is
/// silent until the deadline.
#[test]
fn a_failure_after_our_fin_over_unread_bytes_reports_a_fin() {
    let work = |network: &Network, peer: &PeerSocket, socket: &mut Socket<'_>| {
        peer.send(b"unread");
        network.advance(ms(50));
        socket.set_deadline(10 * SECOND);
        answer(socket);
    };
    let first = fails(&conversation(ListenOptions::default(), "Connection", work, |_| ()));
    assert_eq!(first, FirstFin::Local);
}

/// The same, but the peer's FIN waits after the unread bytes, and its machine vanishes before it
/// acknowledges ours.
#[test]
fn a_failure_after_both_fins_reports_a_fin() {
    let work = |network: &Network, peer: &PeerSocket, socket: &mut Socket<'_>| {
        peer.send(b"unread");
        peer.finish();
        network.advance(ms(50));
        network.vanish(THERE);
        answer(socket);
    };
    let first = fails(&conversation(ListenOptions::default(), "Connection", work, |_| ()));
    assert!(matches!(first, FirstFin::Peer | FirstFin::Unknown), "{first:?}");
}

/// A paused program has read neither the FIN nor the reset after it. The error shows that both came.
#[test]
fn a_reset_after_a_fin_that_was_not_read_reports_the_fin() {
    let work = |network: &Network, peer: &PeerSocket, socket: &mut Socket<'_>| {
        socket.pause();
        peer.finish();
        network.advance(ms(50));
        network.forget(THERE);
        socket.write(b"answer").expect("open");
    };
    let ending = conversation(ListenOptions::default(), "Connection", work, |_| ());
    assert!(matches!(&ending.kind, EndingKind::Failed(error) if error.kind == ConnectionErrorKind::Reset), "{ending}");
    assert_eq!(ending.first_fin, FirstFin::Peer, "{ending}");
}

#[test]
fn a_failure_reports_the_fins_that_were_exchanged() {
    let deadline = |_: &Network, _: &PeerSocket, socket: &mut Socket<'_>| socket.set_deadline(10 * SECOND);
    let nobody = conversation(ListenOptions::default(), "Data", deadline, |_| ());
    assert_eq!(fails(&nobody), FirstFin::Neither, "{nobody}");
    let peer = conversation(ListenOptions::default(), "Data", deadline, PeerSocket::finish);
    assert_eq!(fails(&peer), FirstFin::Peer, "{peer}");
    let us = |_: &Network, _: &PeerSocket, socket: &mut Socket<'_>| {
        socket.set_deadline(10 * SECOND);
        answer(socket);
    };
    let us = conversation(ListenOptions::default(), "Data", us, |_| ());
    assert_eq!(fails(&us), FirstFin::Local, "{us}");
}

// --- on the real network ---

#[test]
fn a_real_fin_that_came_while_the_handler_worked_was_first() {
    for close in [CloseMode::Confirmed, CloseMode::HandOff] {
        let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default().close_mode(close));
        // It is registered, and waits.
        story.turn();
        peer.write_all(b"request").expect("connected");
        story.until(|socket, event| {
            assert!(matches!(event, Event::Data(_)), "{event:?}");
            peer.shutdown(Shutdown::Write).expect("connected");
            work_for(ms(5));
            answer(socket);
            true
        });
        story.expect(socket, What::End);
        is_not_ours(&story.close(socket));
        let mut got = Vec::new();
        peer.read_to_end(&mut got).expect("a clean end");
        assert_eq!(got, b"answer");
        story.rest();
    }
}

#[test]
fn a_real_fin_of_a_server_that_came_while_its_client_worked_was_first() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut story = Transcript::new();
    let client =
        story.reactor.connect(listener.local_addr().expect("bound"), ConnectOptions::default()).expect("an address");
    story.connected(client);
    let (mut server, _) = listener.accept().expect("connected");
    story.turn();
    server.write_all(b"a banner").expect("connected");
    story.until(|socket, event| {
        assert!(matches!(event, Event::Data(_)), "{event:?}");
        server.shutdown(Shutdown::Write).expect("connected");
        work_for(ms(5));
        answer(socket);
        true
    });
    story.expect(client, What::End);
    is_not_ours(&story.close(client));
    drop(server);
    story.rest();
}

#[test]
fn our_real_fin_is_first_if_nothing_of_the_peers_has_come() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    story.turn();
    peer.write_all(b"request").expect("connected");
    story.data(socket, 7);
    answer(&mut story.socket(socket));
    story.turn();
    let mut got = Vec::new();
    peer.read_to_end(&mut got).expect("a clean end");
    drop(peer);
    story.expect(socket, What::End);
    let ending = story.close(socket);
    assert_eq!((ending.first_fin, ending.time_wait()), (FirstFin::Local, FirstFin::Local), "{ending}");
    story.rest();
}

/// We end while a request is unread; the peer reads our end, and is silent.
#[test]
fn a_real_failure_after_our_fin_over_unread_bytes_reports_a_fin() {
    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default());
    let mut peer = support::dial(addr);
    peer.write_all(b"request").expect("connected");
    story.until(|socket, event| {
        assert_eq!(*event, Event::Connection);
        socket.set_deadline(ms(50));
        answer(socket);
        true
    });
    let mut ending = None;
    while ending.is_none() {
        story.until(|_, event| {
            if let Event::Close(told) = event {
                ending = Some((*told).clone());
            }
            true
        });
    }
    let first = fails(&ending.expect("closed"));
    assert_eq!(first, FirstFin::Local);
    drop(peer);
    story.rest();
}

// --- bytes and ends that were not read ---

#[test]
fn a_fin_in_the_middle_of_a_buffer_was_first() {
    for (is_paused, splices) in [(false, false), (true, false), (true, true)] {
        let (mut scene, peer) = Scene::served(ListenOptions::default());
        scene.with(|socket| match splices {
            true => socket.splice_next(),
            false => socket.fill(Vec::new(), 99).expect("it can be read"),
        });
        if is_paused {
            scene.with(|socket| socket.pause());
        }
        peer.send(b"half");
        scene.run(SECOND);
        peer.finish();
        scene.network.advance(SECOND);
        scene.with(|socket| {
            socket.end();
            socket.resume();
        });
        scene.run(SECOND);
        let ending = scene.ending.as_ref().expect("it is closed");
        assert!(matches!(ending.first_fin, FirstFin::Peer | FirstFin::Unknown), "{ending}");
        assert!(!is_paused || ending.is_clean(), "{ending}");
    }
}

#[test]
fn our_fin_in_the_middle_of_a_buffer_was_first() {
    for splices in [false, true] {
        let (mut scene, peer) = Scene::served(ListenOptions::default());
        scene.with(|socket| match splices {
            true => socket.splice_next(),
            false => socket.fill(Vec::new(), 99).expect("it can be read"),
        });
        scene.with(|socket| socket.pause());
        peer.send(b"half");
        scene.run(SECOND);
        scene.with(|socket| {
            socket.end();
            socket.resume();
        });
        scene.run(SECOND);
        peer.finish();
        scene.run(SECOND);
        let ending = scene.ending.as_ref().expect("it is closed");
        assert_eq!(ending.first_fin, FirstFin::Local, "{ending}");
        assert_eq!(ending.bytes_read, 4);
    }
}

/// The write finds the reset before the socket was read: its error shows that a FIN came first.
#[test]
fn a_reset_after_a_fin_that_a_write_finds_reports_the_fin() {
    for writes in [true, false] {
        let (mut scene, peer) = Scene::served(ListenOptions::default());
        scene.expect(&[]);
        peer.finish();
        scene.network.advance(ms(50));
        peer.reset();
        scene.network.advance(ms(50));
        scene.with(|socket| match writes {
            true => _ = socket.write(b"answer").expect("open"),
            false => socket.end(),
        });
        scene.run(SECOND);
        let ending = scene.ending.as_ref().expect("it is closed");
        assert_eq!(scene.cause(), ConnectionErrorKind::Reset, "{ending}");
        assert_eq!(ending.first_fin, FirstFin::Peer, "writes: {writes}; {ending}");
    }
}

#[test]
fn a_real_reset_after_a_fin_that_a_write_finds_reports_the_fin() {
    for writes in [true, false] {
        let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
        story.turn();
        peer.write_all(b"request").expect("connected");
        let mut peer = Some(peer);
        story.until(|socket, _| {
            let peer = peer.take().expect("one event");
            peer.shutdown(Shutdown::Write).expect("connected");
            reset(peer);
            work_for(ms(5));
            match writes {
                true => _ = socket.write(b"answer").expect("open"),
                false => socket.end(),
            }
            true
        });
        assert!(matches!(story.error(socket).kind, ConnectionErrorKind::Reset));
        let ending = story.close(socket);
        assert_eq!(ending.first_fin, FirstFin::Peer, "writes: {writes}; {ending}");
        story.rest();
    }
}

/// The peer's end is known: its half-closed timeout expires, and still the report says so.
#[test]
fn a_failure_over_an_end_that_was_not_read_reports_the_fin() {
    for fills in [false, true] {
        for stop in [|socket: &mut finale::Socket<'_>| socket.pause(), |socket: &mut finale::Socket<'_>| socket.hold()]
        {
            for is_destroyed in [false, true] {
                let (mut scene, peer) = Scene::served(ListenOptions::default().half_closed_timeout(5 * SECOND));
                if fills {
                    scene.with(|socket| socket.fill(Vec::new(), 99).expect("it can be read"));
                }
                peer.send(b"half");
                scene.run(SECOND);
                scene.with(stop);
                scene.run(SECOND);
                peer.finish();
                scene.run(SECOND);
                scene.with(|socket| assert!(socket.peer_ended()));
                if is_destroyed {
                    scene.with(|socket| socket.destroy());
                }
                scene.run(10 * SECOND);
                let ending = scene.ending.as_ref().expect("it is closed");
                assert_eq!(ending.first_fin, FirstFin::Peer, "{ending}");
            }
        }
    }
}

/// What is reported of an attempt to connect is no end of a peer.
#[test]
fn a_connection_that_was_not_established_has_no_fin() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    scene.network.set_reach(THERE, Reach::BlackHole);
    let id = scene.reactor.connect((THERE, 80), ConnectOptions::default()).expect("an address");
    scene.run(SECOND);
    faulty.news(0, flags("in out rdhup hup"));
    scene.reactor.socket(id).expect("it lives").destroy();
    scene.run(SECOND);
    let ending = scene.ending.as_ref().expect("it is closed");
    assert_eq!(ending.first_fin, FirstFin::Neither, "{ending}");
}

// --- a FIN that can't be sent ---

/// It could not be sent before the peer's had arrived.
#[test]
fn a_fin_that_found_no_memory_until_the_peers_had_come_was_not_first() {
    let (mut scene, peer, faulty) = faulty_served(ListenOptions::default());
    faulty.always("finish", Errno::NOBUFS);
    scene.with(|socket| socket.end());
    scene.expect(&[]);
    peer.finish();
    scene.expect(&["end"]);
    assert!(!peer.has_fin());
    faulty.heal();
    scene.expect(&["close"]);
    is_not_ours(scene.ending.as_ref().expect("closed"));
}

#[test]
fn a_fin_that_never_left_was_nobodys() {
    let (mut scene, peer, faulty) = faulty_served(ListenOptions::default());
    faulty.always("finish", Errno::NOBUFS);
    scene.with(|socket| socket.end());
    scene.expect(&[]);
    peer.reset();
    scene.expect(&["error reset by the peer", "close"]);
    assert_eq!(scene.ending.as_ref().map(|ending| ending.first_fin), Some(FirstFin::Neither));
}

#[test]
fn a_fin_that_fails_because_a_reset_has_come_was_nobodys() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.reset();
    scene.network.advance(SECOND);
    scene.with(|socket| socket.end());
    scene.expect(&["error reset by the peer", "close"]);
    assert_eq!(scene.ending.as_ref().map(|ending| ending.first_fin), Some(FirstFin::Neither));
}
