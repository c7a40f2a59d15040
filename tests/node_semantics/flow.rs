//! Flow: queues, pauses, counts.

use finale::{Backpressure, ConnectOptions, Error, Event, ListenOptions};

use super::{Pair, SECOND, Who, idle, ms, write};
use support::scene::Scene;

/// A served socket whose kernel takes a thousand bytes, and whose peer does not read.
fn narrow(options: ListenOptions) -> (Scene, finale::sim::PeerSocket) {
    let mut scene = Scene::new();
    scene.network.set_buffers(1000, 1000);
    let peer = scene.serve(options);
    (scene, peer)
}

/// N61: the mark is the queue's, and settable.
#[test]
fn n61_write_says_full_when_the_queue_reaches_the_mark() {
    let (mut scene, _peer) = narrow(ListenOptions::default().high_water_mark(10));
    scene.with(|socket| {
        assert_eq!(socket.write(b"123456789"), Ok(Backpressure::Room));
        assert_eq!(socket.write(b"0"), Ok(Backpressure::Full));
    });
}

/// N62: never without "full" before, and not after `end()`.
#[test]
fn n62_drain_comes_once_when_the_queue_has_emptied() {
    let (mut scene, _peer) = narrow(ListenOptions::default().high_water_mark(10));
    scene.with(|socket| {
        for _ in 0..3 {
            assert_eq!(socket.write(b"ten bytes!"), Ok(Backpressure::Full));
        }
    });
    scene.expect(&["drain"]);
    scene.with(|socket| write(socket, b"few"));
    scene.expect(&[]);
    scene.with(|socket| {
        write(socket, b"ten bytes, and the end");
        socket.end();
    });
    scene.expect(&[]);
}

/// N63: Node takes it without a limit.
#[test]
fn n63_writing_on_after_full_meets_a_hard_limit() {
    let (mut scene, peer) = narrow(ListenOptions::default().high_water_mark(10).write_limit(20));
    scene.with(|socket| {
        write(socket, &[0; 3000]);
        assert_eq!(socket.write(b"x"), Err(Error::QueueFull { queued_bytes: 3000, limit_bytes: 20 }));
    });
    scene.run(SECOND);
    let mut left = 0;
    scene.with(|socket| left = socket.queued_bytes());
    assert!((1..3000).contains(&left), "it falls with each partial send: {left}");
    drop(peer);
}

/// N64: bytes that the kernel took and bytes that were never sent are two counts, and both are in
/// the report.
#[test]
fn n64_bytes_written_are_those_that_the_kernel_took() {
    let (mut scene, peer) = narrow(ListenOptions::default());
    peer.send(b"12345");
    scene.with(|socket| write(socket, &[0; 5000]));
    scene.run(SECOND);
    let (mut written, mut read) = (0, 0);
    scene.with(|socket| (written, read) = (socket.bytes_written(), socket.bytes_read()));
    assert!((1000..5000).contains(&written) && read == 5, "{written} written, {read} read");
    scene.with(|socket| socket.destroy());
    scene.run(SECOND);
    let ending = scene.ending.expect("delivered");
    assert_eq!((ending.bytes_read, ending.bytes_written, ending.bytes_unsent), (5, written, 5000 - written));
}

/// N65: nothing is sent before the caller's event is handled.
#[test]
fn n65_two_writes_and_an_end_leave_in_one_segment() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.network.record();
    scene.with(|socket| {
        write(socket, b"one, ");
        write(socket, b"two");
        socket.end();
    });
    scene.run(SECOND);
    let packets = scene.network.take_transcript();
    let ours: Vec<_> = packets.iter().filter(|line| line.contains("FIN")).collect();
    assert!(ours.len() == 1 && ours[0].contains("8 bytes"), "{packets:#?}");
    assert_eq!(peer.read(), b"one, two");
}

/// N66: no further read.
#[test]
fn n66_after_pause_in_data_nothing_is_read() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.send(b"first");
    scene.expect(&["data first"]);
    scene.with(|socket| socket.pause());
    peer.send(b"second");
    scene.expect(&[]);
    let mut read = 0;
    scene.with(|socket| read = socket.bytes_read());
    assert_eq!(read, 5, "not even ahead");
    scene.with(|socket| socket.resume());
    scene.expect(&["data second"]);
}

/// N68: Node delivers it while paused. Here it is known, and delivered when reading continues.
#[test]
fn n68_paused_with_a_fin_and_nothing_unread_the_end_waits_but_is_known() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().start_paused(true));
    peer.finish();
    scene.expect(&[]);
    scene.with(|socket| {
        assert!(socket.peer_ended());
        socket.resume();
    });
    scene.expect(&["end"]);
}

/// N69: `pauseOnConnect`.
#[test]
fn n69_a_socket_may_begin_paused() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().start_paused(true));
    peer.send(b"wait");
    scene.expect(&[]);
    let mut read = 1;
    scene.with(|socket| read = socket.bytes_read());
    assert_eq!(read, 0);
}

/// N81: no `ref` and `unref`: a program ends when its work has ended.
#[test]
fn n81_when_nothing_is_left_next_says_so() {
    let mut pair = Pair::new(ListenOptions::default(), ConnectOptions::default());
    pair.run(SECOND, |who, socket, event| {
        if matches!((who, event), (Who::C, Event::Ready) | (Who::S, Event::End)) {
            socket.end();
        }
    });
    pair.run(ms(1), idle);
    let ids: Vec<_> = pair.lines.iter().filter(|line| line.ends_with("close")).collect();
    assert_eq!(ids.len(), 2);
    assert!(pair.reactor.next_before(pair.network.now()).expect("it continues").is_none());
}
