//! Half-close: the rows HC01 and following of docs/faults.md.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use finale::sim::Network;
use finale::{ConnectOptions, ConnectionErrorKind, EndingKind, Event, FirstFin, ListenOptions, TimeoutKind};

use support::alone::{alone_in_a_network, alone_with_connections, shell};
use support::faulty::faulty_registered;
use support::scene::{HERE, Scene, THERE};
use support::{Transcript, What, descriptors, dial, ms};

const SECOND: Duration = Duration::from_secs(1);

/// HC01: the peer finishes and we answer later: the answer arrives, then our FIN.
#[test]
fn an_answer_after_their_fin_arrives_before_ours() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.send(b"request");
    peer.finish();
    scene.expect(&["data request", "end"]);
    scene.with(|socket| drop(socket.write(b"answer")));
    scene.expect(&[]);
    assert_eq!((peer.read(), peer.has_fin(), peer.is_reset()), (b"answer".to_vec(), false, false));
    scene.with(|socket| {
        drop(socket.write(b", and more"));
        socket.end();
    });
    scene.expect(&["close"]);
    assert_eq!((peer.read(), peer.has_fin()), (b", and more".to_vec(), true));
    assert_eq!(
        (scene.how(), scene.ending.as_ref().map(|ending| ending.first_fin)),
        (&EndingKind::Confirmed, Some(FirstFin::Peer))
    );
    scene.rest();
}

/// HC01: the same on real sockets.
#[test]
fn a_real_answer_after_their_fin_arrives_before_ours() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    peer.write_all(b"request").expect("room");
    peer.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(story.until_end(socket), b"request");
    story.silence(ms(100));
    story.socket(socket).write(b"answer").expect("half-open");
    story.turn();
    let mut answer = [0; 6];
    peer.read_exact(&mut answer).expect("the connection lives");
    peer.set_nonblocking(true).expect("a socket");
    assert!(peer.peek(&mut [0]).is_err(), "our FIN has not come");
    peer.set_nonblocking(false).expect("a socket");
    story.socket(socket).write(b", and more").expect("half-open");
    story.socket(socket).end();
    assert!(story.close(socket).is_acknowledged());
    let mut rest = Vec::new();
    peer.read_to_end(&mut rest).expect("clean");
    assert_eq!((&answer, rest.as_slice()), (b"answer", &b", and more"[..]));
    story.rest();
}

/// HC02: the peer's FIN while our queue is full: we sleep until there is room, and then write.
#[test]
fn their_fin_with_our_queue_full_is_no_reason_to_stop_or_to_spin() {
    let (mut scene, peer, faulty) =
        faulty_registered(ListenOptions::default().send_buffer_size(1000).close_timeout(None));
    scene.with(|socket| drop(socket.write(&vec![b'a'; 200_000])));
    peer.finish();
    scene.expect(&["end"]);
    faulty.take_log();
    scene.run(60 * SECOND);
    let log = faulty.take_log();
    // The timer of the half-closed socket is examined a few times on its way through the wheel.
    assert!(log.len() <= 10 && log.iter().all(|call| *call == "poll") && scene.story.is_empty(), "asleep: {log:?}");
    let mut got = 0;
    for _ in 0..1000 {
        got += peer.read().len();
        scene.run(ms(2));
    }
    assert_eq!(std::mem::take(&mut scene.story), ["drain"]);
    scene.with(|socket| socket.end());
    scene.run(SECOND);
    got += peer.read().len();
    assert_eq!((got, peer.has_fin(), scene.how()), (200_000, true, &EndingKind::Confirmed));
}

/// HC03: we finish first and ten megabytes follow: all are delivered, without a `timeout`; then
/// `end`, then `close`.
#[test]
fn much_input_after_our_end_is_told_and_is_no_silence() {
    let options = ListenOptions::default().idle_timeout(2 * SECOND).half_closed_timeout(3 * SECOND);
    let (mut scene, peer) = Scene::served(options);
    scene.with(|socket| socket.end());
    for _ in 0..100 {
        peer.send(&[b'x'; 100_000]);
        scene.run(SECOND);
    }
    peer.finish();
    scene.run(SECOND);
    assert_eq!(scene.story.split_off(scene.story.len() - 2), ["end", "close"]);
    assert!(scene.story.iter().all(|line| line.starts_with("data ")), "a timeout was delivered");
    let ending = scene.ending.take().expect("delivered");
    assert!(ending.is_acknowledged() && ending.bytes_read == 10_000_000, "{ending}");
    scene.story.clear();
    scene.rest();
}

/// HC04: ten thousand peers that never finish: each is ended by its timer, and nothing grows.
#[test]
fn ten_thousand_half_closed_connections_need_no_more_than_one_batch() {
    let mut scene = Scene::new();
    let options = ListenOptions::default().half_closed_timeout(SECOND);
    let listener = scene.reactor.listen((HERE, 80), options).expect("a free port");
    for _ in 0..20 {
        let peers: Vec<_> = (0..500).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
        scene.run(ms(100));
        for info in &scene.reactor.sockets() {
            scene.reactor.socket(info.id).expect("it lives").end();
        }
        assert!(scene.reactor.len() == 500 && scene.network.descriptors() == 501);
        scene.run(2 * SECOND);
        assert_eq!(scene.story.iter().filter(|line| *line == "close").count(), 500);
        assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::HalfClosed));
        scene.story.clear();
        peers.into_iter().for_each(finale::sim::PeerSocket::reset);
    }
    assert!(scene.stories.keys().all(|id| id.index() <= 501), "places are used again");
    scene.reactor.close_listener(listener.id).expect("open");
    scene.rest();
}

/// HC04: a thousand on real sockets, in both positions.
#[test]
fn a_thousand_real_half_closed_connections_leave_no_descriptor() {
    alone_with_connections(
        "half_close::a_thousand_real_half_closed_connections_leave_no_descriptor",
        1_000,
        100,
        |count| {
            let mut story = Transcript::new();
            let addr = story.listen(ListenOptions::default().half_closed_timeout(ms(50)));
            let before = descriptors();
            for _ in 0..count / 100 {
                let peers: Vec<TcpStream> = (0..100).map(|_| dial(addr)).collect();
                for peer in &peers[..50] {
                    peer.shutdown(Shutdown::Write).expect("connected");
                }
                let (mut closed, mut seen) = (0, 0);
                story.until(|socket, event| {
                    match event {
                        Event::Connection => {
                            seen += 1;
                            if seen > 50 {
                                socket.end();
                            }
                        }
                        Event::Close(ending) => {
                            assert!(ending.had_error(), "{ending}");
                            closed += 1;
                        }
                        _ => {}
                    }
                    closed == 100
                });
            }
            assert_eq!(descriptors(), before);
            story.rest();
        },
    );
}

/// HC05: `end()` with a megabyte queued: the FIN follows the last byte.
#[test]
fn our_fin_comes_behind_everything_queued() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().send_buffer_size(10_000));
    scene.with(|socket| {
        drop(socket.write(&vec![b'a'; 1 << 20]));
        socket.end();
    });
    let mut got = 0;
    for _ in 0..1000 {
        scene.run(ms(1));
        assert!(!peer.has_fin() || got + peer.unread_bytes() == 1 << 20, "the FIN came with {got} bytes read");
        got += peer.read().len();
    }
    scene.run(ms(5));
    assert!(got == 1 << 20 && peer.has_fin());
    peer.close();
    scene.expect(&["end", "close"]);
    assert_eq!(scene.ending.take().expect("delivered").bytes_unsent, 0);
    scene.rest();
}

/// HC06: a shutdown for reading looks like the peer's FIN, with bytes still to come. We never do
/// it: no line of the library shuts down another direction than writing.
#[test]
fn only_the_writing_side_is_ever_shut_down() {
    let os = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/net/os.rs")).expect("the real net");
    let asked: Vec<&str> = os.split("Shutdown::").skip(1).collect();
    assert!(!asked.is_empty() && asked.iter().all(|rest| rest.starts_with("Write")), "{}", asked.len());
    // After it the peer's bytes are read as before.
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    story.socket(socket).end();
    story.turn();
    peer.write_all(b"still heard").expect("connected");
    assert_eq!(story.data(socket, 11), b"still heard");
    drop(peer);
    story.expect(socket, What::End);
    story.close(socket);
    story.rest();
}

/// HC07: half-open not allowed, and the peer's FIN arrives while our answer is queued: it is
/// flushed, then our FIN. Allowed, our side stays open.
#[test]
fn half_open_has_an_effect_in_both_positions() {
    for allowed in [false, true] {
        let options = ListenOptions::default().send_buffer_size(1000).allow_half_open(allowed);
        let (mut scene, peer) = Scene::served(options);
        scene.with(|socket| drop(socket.write(&vec![b'a'; 300_000])));
        peer.finish();
        scene.expect(&["end"]);
        let mut got = 0;
        for _ in 0..2000 {
            got += peer.read().len();
            scene.run(ms(1));
        }
        assert_eq!(got, 300_000);
        assert_eq!(peer.has_fin(), !allowed);
        if allowed {
            assert_eq!(std::mem::take(&mut scene.story), ["drain"]);
            scene.with(|socket| socket.end());
            scene.run(SECOND);
        }
        assert_eq!(std::mem::take(&mut scene.story), ["close"]);
        assert_eq!((scene.how(), peer.has_fin()), (&EndingKind::Confirmed, true));
        scene.rest();
    }
}

/// HC08: FINs that cross, with a reactor on both sides: one `end` and one `close` each, clean, and
/// both reports contain the crossing.
#[test]
fn crossing_fins_are_told_as_such_on_both_sides() {
    let network = Network::new(7);
    let mut server = Scene::on(network.clone(), network.host(HERE));
    let mut client = Scene::on(network.clone(), network.host(THERE));
    let listener = server.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    client.reactor.connect(listener.addr, ConnectOptions::default()).expect("a good target");
    for _ in 0..20 {
        client.run(ms(1));
        server.run(ms(1));
    }
    server.reactor.close_listener(listener.id).expect("open");
    client.with(|socket| socket.end());
    server.with(|socket| socket.end());
    for _ in 0..20 {
        client.run(Duration::ZERO);
        server.run(Duration::ZERO);
        network.advance(ms(1));
    }
    for (scene, before) in [(&mut client, 3), (&mut server, 1)] {
        assert_eq!(scene.story.split_off(before), ["end", "close"]);
        assert_eq!(
            (scene.how(), scene.ending.as_ref().map(|e| e.first_fin)),
            (&EndingKind::Confirmed, Some(FirstFin::Both))
        );
    }
    assert_eq!(network.descriptors(), 0);
}

/// HC08: on a real kernel: a filter holds both FINs back, so that each is sent before the other
/// arrives.
#[test]
fn real_crossing_fins_are_told_as_such_on_both_sides() {
    alone_in_a_network("half_close::real_crossing_fins_are_told_as_such_on_both_sides", || {
        let mut story = Transcript::new();
        let addr = story.listen(ListenOptions::default());
        let client = story.reactor.connect(addr, ConnectOptions::default()).expect("an address");
        story.connected(client);
        let server = story.connection();
        story.turn();
        shell("nft add table ip held && nft 'add chain ip held in { type filter hook input priority 0; }'");
        shell("nft 'add rule ip held in tcp flags & fin == fin drop'");
        story.socket(client).end();
        story.socket(server).end();
        story.turn();
        shell("nft delete table ip held");
        let firsts = [client, server].map(|side| {
            story.expect(side, What::End);
            let ending = story.close(side);
            assert!(ending.is_acknowledged(), "{ending}");
            ending.first_fin
        });
        // Whether a side sees the crossing depends on what is repeated first; that the peer was
        // first is never true.
        assert!(firsts.iter().all(|first| matches!(first, FirstFin::Local | FirstFin::Both)), "{firsts:?}");
        story.rest();
    });
}
