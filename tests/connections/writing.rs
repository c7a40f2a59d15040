//! Writing: short writes are the normal case, and the queue reports when it is full and when it has
//! drained.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use finale::{Backpressure, Error, Event, ListenOptions};
use support::{PATIENCE, Transcript, What, dial_narrow, ms, pattern, work_for};

/// Promise: whatever the kernel takes at a time, the peer gets the exact bytes (WR01, WR02).
#[test]
fn a_large_answer_through_the_smallest_buffers_arrives_to_the_byte() {
    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default().send_buffer_size(1));
    let mut peer = dial_narrow(addr);
    let socket = story.connection();
    let answer = pattern(1 << 20);
    story.socket(socket).write(&answer).expect("below the limit");
    story.socket(socket).end();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        peer.read_to_end(&mut bytes).expect("a clean end");
        bytes
    });
    let ending = story.after_end_of(socket);
    assert!(ending.is_acknowledged() && ending.bytes_written == 1 << 20, "{ending}");
    assert!(reader.join().expect("no panic") == answer, "not the same bytes");
    story.rest();
}

/// Promise: what is written in one handler is sent together, in order.
#[test]
fn several_writes_and_an_end_in_one_handler_arrive_in_order() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    let mut view = story.socket(socket);
    for part in [&b"one "[..], b"", b"two ", b"three"] {
        assert_eq!(view.write(part), Ok(Backpressure::Room));
    }
    assert_eq!(view.queued_bytes(), 13, "nothing is sent before the next call");
    view.end();
    assert_eq!(view.bytes_written(), 0);
    story.turn();
    let mut bytes = Vec::new();
    peer.read_to_end(&mut bytes).expect("a clean end");
    assert_eq!(bytes, b"one two three");
    drop(peer);
    assert!(story.after_end_of(socket).is_acknowledged());
    story.rest();
}

/// Promise: `drain` is delivered once, when the queue is empty, and only after it was full.
#[test]
fn drain_is_told_once_and_only_after_full() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default().high_water_mark(1000));
    assert_eq!(story.socket(socket).write(&[0; 999]), Ok(Backpressure::Room));
    story.turn();
    story.silence(support::ms(20));
    let mut view = story.socket(socket);
    assert_eq!(view.write(&[0; 1000]), Ok(Backpressure::Full));
    assert_eq!(view.write(&[0; 1]), Ok(Backpressure::Full), "more is accepted up to the limit");
    story.expect(socket, What::Drain);
    story.silence(support::ms(20));
    assert_eq!(story.socket(socket).bytes_written(), 2000);
    assert_eq!(story.socket(socket).write(b"last"), Ok(Backpressure::Room));
    story.socket(socket).end();
    story.turn();
    let mut bytes = Vec::new();
    peer.read_to_end(&mut bytes).expect("a clean end");
    assert_eq!(bytes.len(), 2004);
    drop(peer);
    story.after_end_of(socket);
    story.rest();
}

/// Promise: a refused write changes nothing.
#[test]
fn a_write_at_the_limit_is_refused_and_changes_nothing() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default().high_water_mark(10).write_limit(100));
    let mut view = story.socket(socket);
    assert_eq!(view.write(&[1; 150]), Ok(Backpressure::Full), "one write may go beyond it");
    assert_eq!(view.write(&[2; 1]), Err(Error::QueueFull { queued_bytes: 150, limit_bytes: 100 }));
    assert_eq!(view.write(&[]), Ok(Backpressure::Full), "nothing is always accepted");
    assert_eq!(view.queued_bytes(), 150);
    story.expect(socket, What::Drain);
    assert_eq!(story.socket(socket).write(&[3; 5]), Ok(Backpressure::Room));
    story.socket(socket).end();
    story.turn();
    let mut bytes = Vec::new();
    peer.read_to_end(&mut bytes).expect("a clean end");
    assert_eq!(bytes, [&[1; 150][..], &[3; 5]].concat());
    drop(peer);
    story.after_end_of(socket);
    story.rest();
}

/// Promise: with back-pressure the queue stays bounded, and 50 MiB are returned to the byte (WR03).
#[test]
fn an_echo_of_50_mib_keeps_its_queue_bounded() {
    let (mut story, _, peer) = Transcript::pair(ListenOptions::default());
    let sent = pattern(50 << 20);
    let (mut writer, mut reader) = (peer.try_clone().expect("a descriptor"), peer);
    let outgoing = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&outgoing).expect("it is read");
        writer.shutdown(Shutdown::Write).expect("connected");
    });
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).expect("a clean end");
        bytes
    });
    let mut largest_queue = 0;
    let mut clean = None;
    story.until(|view, event| {
        match event {
            Event::Data(bytes) => {
                if view.write(bytes) == Ok(Backpressure::Full) {
                    view.pause();
                }
                largest_queue = largest_queue.max(view.queued_bytes());
            }
            Event::Drain => view.resume(),
            Event::End => view.end(),
            Event::Close(ending) => clean = Some(ending.is_acknowledged()),
            _ => {}
        }
        clean.is_some()
    });
    assert_eq!(clean, Some(true));
    assert!(reading.join().expect("no panic") == sent, "not the same bytes");
    writing.join().expect("no panic");
    assert!(largest_queue < 256 * 1024, "{largest_queue} bytes queued");
    story.rest();
    assert_eq!(story.lives(), 1);
}

/// Promise: queued bytes are sent when there is room although the peer never stops sending, and
/// although the socket was never registered: since it was accepted its input alone has kept it in
/// the ready list (RD05, HC02).
#[test]
fn a_peer_that_never_stops_sending_gets_its_answer() {
    let (mut story, socket, peer) =
        Transcript::pair(ListenOptions::default().receive_buffer_size(1 << 20).send_buffer_size(32 * 1024));
    let answer = pattern(1 << 20);
    story.socket(socket).write(&answer).expect("below the limit");
    let (mut sender, mut reader) = (peer.try_clone().expect("a descriptor"), peer);
    sender.write_all(&[7; 512 * 1024]).expect("room");
    let answered = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&answered);
    let sending = std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            sender.write_all(&[7; 256 * 1024])?;
        }
        sender.shutdown(Shutdown::Write)
    });
    let reading = std::thread::spawn(move || {
        let mut bytes = vec![0; 1 << 20];
        let read = reader.read_exact(&mut bytes).map(|()| bytes);
        answered.store(true, Ordering::Relaxed);
        read
    });
    let began = Instant::now();
    story.until(|_, event| {
        // Slower than the peer, so that there is always more.
        work_for(ms(1));
        assert!(began.elapsed() < PATIENCE / 2, "the answer waits for the peer to stop");
        *event == Event::End
    });
    assert!(reading.join().expect("no panic").expect("the answer arrives") == answer);
    sending.join().expect("no panic").expect("it is read");
    story.socket(socket).end();
    assert!(story.close(socket).is_acknowledged());
    story.rest();
}

/// Promise: an urgent byte in the stream, which splits it without a new edge, stalls no reader
/// (RD03).
#[test]
fn an_urgent_byte_does_not_hold_up_what_follows_it() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    story.turn();
    for _ in 0..20 {
        peer.write_all(b"abc").expect("room");
        socket2::SockRef::from(&peer).send_out_of_band(b"X").expect("room");
        peer.write_all(b"def").expect("room");
        assert_eq!(story.data(socket, 6), b"abcdef", "an urgent byte is not part of the stream");
    }
    drop(peer);
    story.expect(socket, What::End);
    story.socket(socket).end();
    story.close(socket);
    story.rest();
}
