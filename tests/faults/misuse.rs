//! Misuse of the interface: the rows AP01 and following of docs/faults.md.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use finale::lifecycle::State;
use finale::sim::Reach;
use finale::{ConnectOptions, EndingKind, Error, Event, ListenOptions, Socket, SocketId};

use support::alone::alone;
use support::scene::{HERE, Scene, THERE};
use support::{PATIENCE, Transcript, descriptors, dial, ms};

const SECOND: Duration = Duration::from_secs(1);

/// Runs for a second; returns the endings that were delivered.
fn drain(scene: &mut Scene) -> Vec<finale::Ending> {
    let until = scene.network.now() + SECOND;
    let mut endings = Vec::new();
    while let Some((_, event)) = scene.reactor.next_before(until).expect("it continues") {
        endings.extend(if let Event::Close(ending) = event { Some(ending.clone()) } else { None });
    }
    endings
}

fn refuses_to_write(socket: &mut Socket<'_>) {
    let queued_bytes = socket.queued_bytes();
    assert_eq!(socket.write(b"late"), Err(Error::WriteAfterEnd), "in {:?}", socket.state());
    assert_eq!(socket.write(b""), Err(Error::WriteAfterEnd));
    assert_eq!(socket.queued_bytes(), queued_bytes, "a refused call changes nothing");
    socket.end();
}

/// AP01: a write after `end()`, and a second `end()`, in every state from created to closing: the
/// write is refused at once, and the connection continues to its clean end with what was written
/// before.
#[test]
fn a_write_after_our_end_is_refused_in_every_state() {
    let mut scene = Scene::new();
    scene.network.name("service", vec![THERE]);
    let listener = scene.peer.listen(SocketAddr::new(THERE, 80)).expect("a free port");
    let id = scene.reactor.connect("service:80", ConnectOptions::default()).expect("a good target");
    let mut states = HashSet::new();
    let mut socket = scene.reactor.socket(id).expect("it was just made");
    socket.write(b"before").expect("it waits for the connection");
    socket.end();
    let mut peer = None;
    for _ in 0..40 {
        scene.run(Duration::from_micros(500));
        peer = peer.or_else(|| listener.accept());
        if let Some(mut socket) = scene.reactor.socket(id) {
            states.insert(socket.state());
            refuses_to_write(&mut socket);
        }
    }
    let peer = peer.expect("the handshake is done");
    assert_eq!((peer.read(), peer.has_fin()), (b"before".to_vec(), true));
    peer.finish();
    scene.run(SECOND);
    assert_eq!(scene.story, ["lookup 10.0.0.2", "connect", "ready", "end", "close"]);
    assert!([State::Resolving, State::Connecting, State::LocalFinished].iter().all(|state| states.contains(state)));

    // The peer's FIN first, and our queue full: the remaining states.
    let (mut scene, peer) = Scene::served(ListenOptions::default().close_timeout(None));
    scene.with(|socket| {
        socket.write(&vec![1; 1 << 20]).expect("below the limit");
        socket.end();
        refuses_to_write(socket);
    });
    scene.expect(&[]);
    scene.with(|socket| {
        assert_eq!(socket.state(), State::Flushing);
        refuses_to_write(socket);
    });
    peer.finish();
    scene.expect(&["end"]);
    scene.with(|socket| {
        assert_eq!(socket.state(), State::LastFlush);
        refuses_to_write(socket);
    });
    scene.network.vanish(HERE);
    let mut got = peer.read().len();
    scene.network.heal(HERE);
    while scene.ending.is_none() {
        scene.run(ms(1));
        got += peer.read().len();
        if let Some(mut socket) = scene.socket.and_then(|id| scene.reactor.socket(id)) {
            states.insert(socket.state());
            refuses_to_write(&mut socket);
        }
    }
    assert_eq!((scene.how(), got), (&EndingKind::Confirmed, 1 << 20));
    assert!(states.contains(&State::Closing));
}

/// A scene in which a socket delivers every possible event before its end. Destroys it in the event
/// with this name, and returns the events from there on.
fn destroyed_in(name: &str, is_client: bool) -> Vec<String> {
    let mut scene = Scene::new();
    let options = ListenOptions::default().high_water_mark(10).notify_peer_ended(true).idle_timeout(SECOND);
    let listener = scene.reactor.listen((HERE, 80), options).expect("a free port");
    let far = scene.peer.listen(SocketAddr::new(THERE, 80)).expect("a free port");
    let peer = if is_client {
        // With two addresses a second `lookup` is pending when the first is delivered.
        scene.network.name("service", vec![THERE, HERE]);
        scene.reactor.connect("service:80", ConnectOptions::default()).expect("a good target");
        None
    } else {
        Some(scene.peer.connect(listener.addr).expect("begun"))
    };
    let (mut told, mut destroyed) = (Vec::new(), false);
    let until = scene.network.now() + 10 * SECOND;
    while let Some((mut socket, event)) = scene.reactor.next_before(until).expect("it continues") {
        let what = format!("{event:?}").split(['(', ' ']).next().unwrap_or_default().to_lowercase();
        if event == Event::Connection {
            drop(socket.write(&[1; 100]));
        }
        if event == Event::Timeout
            && let Some(peer) = &peer
        {
            // Everything has arrived before the next event, and more than one of them delivers
            // events.
            peer.send(&[2; 100_000]);
            peer.finish();
            scene.network.advance(ms(10));
        }
        if destroyed {
            told.push(what);
        } else if what == name {
            socket.destroy();
            assert_eq!(socket.write(b"late"), Err(Error::Gone));
            destroyed = true;
        }
    }
    far.close();
    assert!(destroyed, "{name} was never delivered");
    told
}

/// AP02: `destroy()` in each event, with bytes and a FIN still queued after it: the next event is
/// `close`, and only the `ready` that belongs to a `connect` is delivered between.
#[test]
fn destroy_in_any_event_is_followed_by_close_alone() {
    for name in ["connection", "drain", "timeout", "peerended", "data", "end"] {
        assert_eq!(destroyed_in(name, false), ["close"], "{name}");
    }
    for (name, rest) in [("lookup", &["close"][..]), ("connect", &["ready", "close"]), ("ready", &["close"])] {
        assert_eq!(destroyed_in(name, true), rest, "{name}");
    }
}

/// AP02: in `error` and in `close` it is too late, and changes nothing.
#[test]
fn destroy_in_error_and_close_changes_nothing() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.expect(&[]);
    peer.reset();
    let until = scene.network.now() + SECOND;
    let mut told = Vec::new();
    while let Some((mut socket, event)) = scene.reactor.next_before(until).expect("it continues") {
        socket.destroy();
        socket.end();
        told.push(match event {
            Event::Error(_) => "error",
            Event::Close(ending) => {
                assert!(ending.had_error(), "{ending}");
                "close"
            }
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(told, ["error", "close"]);
}

/// AP03: an id is kept while a thousand others use its slot in turn: it finds nothing, and none of
/// them equals it.
#[test]
fn a_stale_id_never_finds_one_of_a_thousand_others() {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let mut seen: HashSet<SocketId> = HashSet::new();
    let mut first = None;
    for _ in 0..1001 {
        let _peer = scene.peer.connect(listener.addr).expect("begun");
        scene.run(ms(10));
        assert_eq!(std::mem::take(&mut scene.story), ["connection"]);
        let id = scene.socket.expect("delivered");
        let old = *first.get_or_insert(id);
        assert_eq!(id.index(), old.index(), "the place is used again");
        assert!(seen.insert(id), "the id is not");
        assert_eq!(scene.reactor.socket(old).is_some(), id == old);
        assert_eq!(scene.reactor.local_addr(old).is_some(), id == old);
        scene.with(|socket| socket.destroy());
        scene.run(ms(10));
        assert_eq!(std::mem::take(&mut scene.story), ["close"]);
    }
}

/// AP04: `end()` in `connection`, before anything is read: the last bytes and the FIN arrive, and
/// the request that was in flight does not turn them into a reset.
#[test]
fn a_goodbye_at_once_is_not_destroyed_by_a_request_in_flight() {
    for request in [10, 100_000] {
        let mut scene = Scene::new();
        let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
        let peer = scene.peer.connect(listener.addr).expect("begun");
        peer.send(&vec![b'q'; request]);
        let until = scene.network.now() + SECOND;
        let mut read = 0;
        while let Some((mut socket, event)) = scene.reactor.next_before(until).expect("it continues") {
            match event {
                Event::Connection => {
                    socket.write(b"goodbye").expect("open");
                    socket.end();
                }
                Event::Data(bytes) => read += bytes.len(),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((peer.read(), peer.has_fin(), peer.is_reset()), (b"goodbye".to_vec(), true, false));
        assert_eq!(read, request);
        peer.finish();
        let ending = drain(&mut scene).pop().expect("close was delivered");
        assert!(ending.is_acknowledged(), "{ending}");
    }
}

/// AP05: a reactor is dropped with sockets in every state, queues, timers, a waker and a listener:
/// nothing stays open, and every peer that was connected sees a reset.
#[test]
fn a_dropped_reactor_leaves_nothing_open() {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let peers: Vec<_> = (0..5).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    let mut ids = Vec::new();
    let until = scene.network.now() + SECOND;
    while let Some((socket, event)) = scene.reactor.next_before(until).expect("it continues") {
        assert_eq!(event, Event::Connection);
        ids.push(socket.id());
    }
    peers[1].finish();
    peers[4].finish();
    let act = |scene: &mut Scene, place: usize, act: fn(&mut Socket<'_>)| {
        act(&mut scene.reactor.socket(ids[place]).expect("it lives"));
    };
    act(&mut scene, 2, |socket| drop(socket.write(&vec![1; 1 << 20])));
    act(&mut scene, 3, |socket| socket.end());
    drain(&mut scene);
    act(&mut scene, 4, |socket| {
        drop(socket.write(&vec![1; 1 << 20]));
        socket.end();
    });
    let black: SocketAddr = "10.0.0.9:80".parse().expect("an address");
    scene.network.set_reach(black.ip(), Reach::BlackHole);
    scene.network.name_hangs("silence");
    scene.reactor.connect(black, ConnectOptions::default()).expect("an address");
    scene.reactor.connect("silence:80", ConnectOptions::default()).expect("an address");
    scene.reactor.set_timer(10 * SECOND);
    drain(&mut scene);
    scene.reactor.connect(black, ConnectOptions::default()).expect("not even begun");
    let remote = scene.reactor.waker();
    drop(scene.reactor);
    assert_eq!(scene.network.descriptors(), 0);
    assert_eq!(remote.wake(), Err(Error::ReactorGone));
    scene.network.advance(SECOND);
    assert!(peers.iter().all(finale::sim::PeerSocket::is_reset));
    peers.into_iter().for_each(finale::sim::PeerSocket::reset);
    scene.network.advance(200 * SECOND);
    assert_eq!(scene.network.open_connections(), 0);
}

/// AP05: the same in a process of its own, whose descriptors are counted.
#[test]
fn a_dropped_reactor_gives_every_descriptor_back() {
    alone("misuse::a_dropped_reactor_gives_every_descriptor_back", || {
        let before = descriptors();
        let mut story = Transcript::new();
        let addr = story.listen(ListenOptions::default());
        let mut peers = [dial(addr), dial(addr), dial(addr)];
        let ids = [story.connection(), story.connection(), story.connection()];
        story.socket(ids[0]).write(&vec![0; 8 << 20]).expect("below the limit");
        story.socket(ids[1]).end();
        let connecting = story.reactor.connect("192.0.2.1:9", ConnectOptions::default());
        assert!(connecting.is_ok());
        story.reactor.set_timer(PATIENCE);
        peers[2].write_all(b"unread").expect("connected");
        let _handle = story.reactor.waker();
        drop(story);
        for mut peer in peers {
            let read = peer.read_to_end(&mut Vec::new());
            assert_eq!(read.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
        }
        assert_eq!(descriptors(), before + 1, "what is left is the waker that the handle holds");
    });
}
