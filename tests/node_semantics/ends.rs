//! Ending: half-close, and writes around it.

use finale::{CloseMode, ConnectOptions, EndingKind, Error, Event, ListenOptions};

use super::{Pair, SECOND, Who, idle, write};
use support::scene::Scene;

/// N25, N37: there is no socket without a connection; a stale id finds nothing.
#[test]
fn n25_a_socket_that_is_gone_takes_nothing() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    let id = scene.socket.expect("accepted");
    peer.reset();
    scene.expect(&["error reset by the peer", "close"]);
    assert!(scene.reactor.socket(id).is_none());
}

/// N34: `end()` and a hand-off close: flush, FIN, and no wait for the acknowledgement.
#[test]
fn n34_destroy_soon_is_end_with_a_hand_off() {
    let mut pair = Pair::new(ListenOptions::default().close_mode(CloseMode::HandOff), ConnectOptions::default());
    pair.run(SECOND, |who, socket, event| match (who, event) {
        (Who::C, Event::Ready) => socket.end(),
        (Who::S, Event::End) => {
            write(socket, b"everything");
            socket.end();
        }
        _ => {}
    });
    assert_eq!(pair.of(Who::C)[3..], ["data everything", "end", "close"]);
    assert_eq!(pair.ending(Who::S).kind, EndingKind::HandedOff);
}

/// N38: the default here.
#[test]
fn n38_half_open_the_server_writes_on_after_end() {
    let mut pair = Pair::new(ListenOptions::default(), ConnectOptions::default());
    pair.run(SECOND, |who, socket, event| {
        if (who, event) == (Who::C, &Event::Ready) {
            socket.end();
        }
    });
    assert_eq!(pair.of(Who::S), ["connection", "end"]);
    write(&mut pair.server(), b"still here");
    pair.server().end();
    pair.run(SECOND, idle);
    assert_eq!(pair.of(Who::C)[3..], ["data still here", "end", "close"]);
}

/// N39: Node's default, by option: our FIN comes when the queue is empty.
#[test]
fn n39_without_half_open_pending_writes_are_flushed_before_our_fin() {
    const MUCH: usize = 8 << 20;
    let mut pair = Pair::new(ListenOptions::default().allow_half_open(false), ConnectOptions::default());
    let mut got = 0;
    pair.run(10 * SECOND, |who, socket, event| match (who, event) {
        (Who::C, Event::Ready) => socket.end(),
        (Who::S, Event::Connection) => write(socket, &vec![0; MUCH]),
        (Who::C, Event::Data(bytes)) => got += bytes.len(),
        _ => {}
    });
    assert_eq!((got, pair.of(Who::C).last()), (MUCH, Some(&"close")));
    assert_eq!(pair.ending(Who::S).kind, EndingKind::Confirmed);
}

/// N40: the same chance as in Node; later it is an error value, and the connection continues.
#[test]
fn n40_without_half_open_a_write_in_the_end_event_is_delivered() {
    let mut pair = Pair::new(ListenOptions::default().allow_half_open(false), ConnectOptions::default());
    pair.run(SECOND, |who, socket, event| match (who, event) {
        (Who::C, Event::Ready) => socket.end(),
        (Who::S, Event::End) => write(socket, b"last words"),
        (Who::S, Event::Close(_)) => assert_eq!(socket.write(b"too late"), Err(Error::WriteAfterEnd)),
        _ => {}
    });
    assert_eq!(pair.of(Who::C)[3..], ["data last words", "end", "close"]);
}

/// N41: it is listed among the sockets, and the half-closed timeout ends it.
#[test]
fn n41_a_half_closed_socket_that_nobody_ends_is_seen_and_ended_by_its_time() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().half_closed_timeout(10 * SECOND));
    peer.finish();
    scene.expect(&["end"]);
    assert!(scene.reactor.sockets().to_string().contains("ENDED") || scene.reactor.sockets().len() == 1);
    scene.run(10 * SECOND);
    assert_eq!(scene.story, ["error timed out: half-closed and silent", "close"]);
}

/// N42: data is delivered unless it was paused, so `end` is always delivered.
#[test]
fn n42_a_fin_is_told_though_nobody_asked_for_data() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.send(b"never asked for");
    peer.finish();
    scene.expect(&["data never asked for", "end"]);
}

/// N43: both reports are clean.
#[test]
fn n43_when_both_end_at_once_both_get_data_end_and_close() {
    let mut pair = Pair::new(ListenOptions::default(), ConnectOptions::default());
    pair.run(SECOND, |_, socket, event| {
        if matches!(event, Event::Ready | Event::Connection) {
            write(socket, b"bye");
            socket.end();
        }
    });
    assert_eq!(pair.of(Who::C)[3..], ["data bye", "end", "close"]);
    assert_eq!(pair.of(Who::S)[1..], ["data bye", "end", "close"]);
    assert!(pair.endings.iter().all(|(_, ending)| ending.is_clean()));
}

/// N46: `close` stays the last event.
#[test]
fn n46_a_write_after_destroy_or_in_close_is_a_value() {
    let mut pair = Pair::new(ListenOptions::default(), ConnectOptions::default());
    pair.run(SECOND, |who, socket, event| match (who, event) {
        (Who::C, Event::Ready) => {
            socket.destroy();
            assert_eq!(socket.write(b"x"), Err(Error::Gone));
        }
        (_, Event::Close(_)) => assert_eq!(socket.write(b"x"), Err(Error::Gone)),
        _ => {}
    });
    assert_eq!((pair.of(Who::C).last(), pair.of(Who::S).last()), (Some(&"close"), Some(&"close")));
}

/// N47: nothing is queued, and no drain is pending.
#[test]
fn n47_an_empty_write_is_accepted_and_does_nothing() {
    let (mut scene, _peer) = Scene::served(ListenOptions::default());
    scene.with(|socket| {
        write(socket, b"");
        assert_eq!(socket.queued_bytes(), 0);
    });
    scene.expect(&[]);
}

/// N48: there is no `finish`; a confirmed close proves more than that the kernel took the bytes.
#[test]
fn n48_a_clean_close_waits_for_the_peers_acknowledgement() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.answer_into_the_void(&peer);
    scene.run(20 * SECOND);
    assert!(
        scene.story.is_empty(),
        "the kernel has taken it all, and no report claims that it arrived: {:?}",
        scene.story
    );
    scene.run(20 * SECOND);
    assert!(scene.ending.expect("delivered").had_error());
}

/// N49: our own close can't destroy the answer: reading continues until the peer's FIN.
#[test]
fn n49_after_end_reading_goes_on_so_that_the_answer_is_safe() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.send(b"the first part of a long request");
    scene.run(SECOND);
    scene.with(|socket| {
        write(socket, b"answered early");
        socket.end();
    });
    scene.story.clear();
    peer.send(b"the rest");
    scene.expect(&["data the rest"]);
    assert!(!peer.is_reset());
    assert_eq!(peer.read(), b"answered early");
    peer.finish();
    scene.expect(&["end", "close"]);
}

/// N59: without a second write.
#[test]
fn n59_a_write_to_a_peer_that_has_closed_both_ways_ends_in_a_reset() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.close();
    scene.expect(&["end"]);
    scene.with(|socket| write(socket, b"nobody there"));
    scene.expect(&["error reset by the peer", "close"]);
}
