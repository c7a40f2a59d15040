//! Writing: short writes are the normal case, the queue tells when it is full and when it has drained.

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;

use finale::{Error, Event, Listen, Queue};
use support::{Story, What, dial_narrow, pattern};

/// Promise: whatever the kernel takes at a time, the peer gets the exact bytes (WR01, WR02).
#[test]
fn a_large_answer_through_the_smallest_buffers_arrives_to_the_byte() {
    let mut story = Story::new();
    let addr = story.listen(Listen::default().send_buffer(1));
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

/// Promise: what is written in one handler leaves together, in order.
#[test]
fn several_writes_and_an_end_in_one_handler_arrive_in_order() {
    let (mut story, socket, mut peer) = Story::pair(Listen::default());
    let mut view = story.socket(socket);
    for part in [&b"one "[..], b"", b"two ", b"three"] {
        assert_eq!(view.write(part), Ok(Queue::Room));
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

/// Promise: `drain` comes once, when the queue is empty, and only after it was full.
#[test]
fn drain_is_told_once_and_only_after_full() {
    let (mut story, socket, mut peer) = Story::pair(Listen::default().high_water_mark(1000));
    assert_eq!(story.socket(socket).write(&[0; 999]), Ok(Queue::Room));
    story.turn();
    story.silence(support::ms(20));
    let mut view = story.socket(socket);
    assert_eq!(view.write(&[0; 1000]), Ok(Queue::Full));
    assert_eq!(view.write(&[0; 1]), Ok(Queue::Full), "more is accepted up to the limit");
    story.expect(socket, What::Drain);
    story.silence(support::ms(20));
    assert_eq!(story.socket(socket).bytes_written(), 2000);
    assert_eq!(story.socket(socket).write(b"last"), Ok(Queue::Room));
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
    let (mut story, socket, mut peer) = Story::pair(Listen::default().high_water_mark(10).write_limit(100));
    let mut view = story.socket(socket);
    assert_eq!(view.write(&[1; 150]), Ok(Queue::Full), "one write may go beyond it");
    assert_eq!(view.write(&[2; 1]), Err(Error::QueueFull { queued_bytes: 150, limit_bytes: 100 }));
    assert_eq!(view.write(&[]), Ok(Queue::Full), "nothing is always accepted");
    assert_eq!(view.queued_bytes(), 150);
    story.expect(socket, What::Drain);
    assert_eq!(story.socket(socket).write(&[3; 5]), Ok(Queue::Room));
    story.socket(socket).end();
    story.turn();
    let mut bytes = Vec::new();
    peer.read_to_end(&mut bytes).expect("a clean end");
    assert_eq!(bytes, [&[1; 150][..], &[3; 5]].concat());
    drop(peer);
    story.after_end_of(socket);
    story.rest();
}

/// Promise: with back-pressure the queue stays bounded, and 50 MiB come back to the byte (WR03).
#[test]
fn an_echo_of_50_mib_keeps_its_queue_bounded() {
    let (mut story, _, peer) = Story::pair(Listen::default());
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
                if view.write(bytes) == Ok(Queue::Full) {
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
