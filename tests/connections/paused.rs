//! FIN, reset and back-pressure on a paused socket: the peer's end is known without reading.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use finale::{ConnectionErrorKind, Event, ListenOptions, SocketId, TimeoutKind};
use support::{PATIENCE, Transcript, What, ms, pattern, reset};

fn paused() -> ListenOptions {
    ListenOptions::default().start_paused(true)
}

/// Promise: a paused socket gets a notice of the peer's FIN at once, once, without reading; `data`
/// and `end` are delivered in order when it resumes (RD06, RY06).
#[test]
fn their_fin_is_known_while_paused_and_told_in_order_after_resume() {
    let (mut story, socket, mut peer) = Transcript::pair(paused().notify_peer_ended(true));
    story.silence(ms(20));
    assert!(!story.socket(socket).peer_ended());
    peer.write_all(b"abc").expect("room");
    story.silence(ms(20));
    assert!(!story.socket(socket).peer_ended());
    peer.shutdown(Shutdown::Write).expect("connected");
    story.expect(socket, What::PeerEnded);
    assert!(story.socket(socket).peer_ended());
    assert_eq!(story.socket(socket).bytes_read(), 0);
    story.silence(ms(50));
    story.socket(socket).resume();
    assert_eq!(story.data(socket, 3), b"abc");
    story.expect(socket, What::End);
    story.silence(ms(20));
    story.socket(socket).end();
    assert!(story.close(socket).is_acknowledged());
    story.rest();
}

/// Promise: the notice is opt-in; the knowledge is not.
#[test]
fn without_early_notice_their_fin_is_known_and_not_told() {
    let (mut story, socket, peer) = Transcript::pair(paused());
    drop(peer);
    story.silence(ms(50));
    assert!(story.socket(socket).peer_ended());
    story.socket(socket).resume();
    story.expect(socket, What::End);
    story.socket(socket).end();
    story.close(socket);
    story.rest();
}

/// Promise: a socket that reads gets the notice early too, before the bytes that are still unread.
#[test]
fn the_early_notice_precedes_data_and_end() {
    let (mut story, socket, mut peer) =
        Transcript::pair(ListenOptions::default().notify_peer_ended(true).receive_buffer_size(1 << 20));
    story.turn();
    peer.write_all(&vec![1; 300_000]).expect("room");
    peer.shutdown(Shutdown::Write).expect("connected");
    story.expect(socket, What::PeerEnded);
    story.data(socket, 300_000);
    story.expect(socket, What::End);
    story.socket(socket).end();
    story.close(socket);
    story.rest();
}

/// Promise: a reset with nothing unread is delivered at once, paused or not.
#[test]
fn a_reset_with_nothing_unread_is_told_while_paused() {
    let (mut story, socket, peer) = Transcript::pair(paused());
    story.turn();
    reset(peer);
    assert_eq!(story.error(socket).kind, ConnectionErrorKind::Reset);
    assert!(story.close(socket).had_error());
    story.rest();
}

/// Promise: the same if it arrived before the socket was ever examined.
#[test]
fn a_reset_before_the_first_look_is_told_while_paused() {
    let (mut story, socket, peer) = Transcript::pair(paused());
    reset(peer);
    assert_eq!(story.error(socket).kind, ConnectionErrorKind::Reset);
    story.close(socket);
    story.rest();
}

/// Nothing is delivered while it is paused; after `resume` the bytes are delivered, and then the
/// reset.
#[track_caller]
fn resumes_to_the_bytes_and_the_reset(mut story: Transcript, socket: SocketId) {
    story.silence(ms(50));
    story.socket(socket).resume();
    assert_eq!(story.data(socket, 3), b"abc");
    assert_eq!(story.error(socket).kind, ConnectionErrorKind::Reset);
    story.close(socket);
    story.rest();
}

/// Promise: a reset after unread bytes is known at once. The bytes are not lost: they are delivered
/// first, on resume.
#[test]
fn a_reset_behind_unread_bytes_waits_for_resume() {
    let (mut story, socket, mut peer) = Transcript::pair(paused().notify_peer_ended(true));
    story.turn();
    peer.write_all(b"abc").expect("room");
    reset(peer);
    story.expect(socket, What::PeerEnded);
    assert!(story.socket(socket).peer_ended());
    resumes_to_the_bytes_and_the_reset(story, socket);
}

/// Promise: a write that fails while paused does not lose them either.
#[test]
fn a_write_that_fails_while_paused_keeps_the_unread_bytes() {
    let (mut story, socket, mut peer) = Transcript::pair(paused());
    story.turn();
    peer.write_all(b"abc").expect("room");
    reset(peer);
    story.socket(socket).write(b"into the void").expect("the reset is not known yet");
    story.expect(socket, What::PeerEnded);
    resumes_to_the_bytes_and_the_reset(story, socket);
}

/// Promise: a paused socket whose peer has finished does not stay in CLOSE-WAIT for ever.
#[test]
fn a_paused_socket_whose_peer_is_gone_is_ended_by_its_timer() {
    let (mut story, socket, mut peer) = Transcript::pair(paused().half_closed_timeout(ms(60)));
    peer.write_all(b"never read").expect("room");
    story.silence(ms(100));
    let left = Instant::now();
    peer.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(story.error(socket).kind, ConnectionErrorKind::TimedOut(TimeoutKind::HalfClosed));
    assert!(left.elapsed() >= ms(60), "after {:?}", left.elapsed());
    story.close(socket);
    assert_eq!(peer.read_exact(&mut [0]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    story.rest();
}

/// Promise: only bytes restart that time, not calls of ours that move none.
#[test]
fn calls_that_move_no_byte_do_not_put_the_end_off() {
    let (mut story, socket, peer) = Transcript::pair(paused().half_closed_timeout(ms(100)));
    story.turn();
    let left = Instant::now();
    peer.shutdown(Shutdown::Write).expect("connected");
    let mut cause = None;
    while cause.is_none() {
        story.socket(socket).set_nodelay(true);
        story.run_for(ms(10), |_, event| {
            if let Event::Error(failure) = event {
                cause = Some(failure.kind);
            }
        });
        assert!(left.elapsed() < PATIENCE / 2, "put off again and again");
    }
    assert_eq!(cause, Some(ConnectionErrorKind::TimedOut(TimeoutKind::HalfClosed)));
    assert!(left.elapsed() >= ms(100), "after {:?}", left.elapsed());
    if !story.reactor.is_empty() {
        story.close(socket);
    }
    story.rest();
}

/// Fills a peer's path to us until nothing more fits; returns how much was sent.
fn fill(peer: &mut TcpStream) -> usize {
    let bytes = pattern(64 * 1024 * 1024);
    peer.set_nonblocking(true).expect("a socket");
    let mut sent = 0;
    loop {
        match peer.write(&bytes[sent..]) {
            Ok(more) => sent += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    peer.set_nonblocking(false).expect("a socket");
    sent
}

/// Promise: `pause()` is back-pressure: nothing is read, so the peer can send no more than the
/// kernels hold.
#[test]
fn nothing_is_read_while_paused() {
    let (mut story, socket, mut peer) = Transcript::pair(paused());
    let sent = fill(&mut peer);
    story.silence(ms(50));
    assert_eq!(story.socket(socket).bytes_read(), 0);
    assert!(story.socket(socket).is_paused());
    story.socket(socket).resume();
    assert!(story.data(socket, sent) == pattern(sent));
    drop(peer);
    story.expect(socket, What::End);
    story.socket(socket).end();
    story.close(socket);
    story.rest();
}

/// Promise: a pause takes effect with the very next event, in the middle of a stream, and loses no
/// edge.
#[test]
fn pausing_in_the_middle_of_a_stream_loses_nothing() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    let sent = fill(&mut peer);
    drop(peer);
    let mut got = Vec::new();
    let mut rounds = 0;
    while got.len() < sent {
        story.until(|socket, event| {
            let Event::Data(bytes) = event else { panic!("{event:?} after {} of {sent} bytes", got.len()) };
            got.extend_from_slice(bytes);
            socket.pause();
            true
        });
        if rounds < 5 {
            story.silence(ms(5));
        }
        rounds += 1;
        story.socket(socket).resume();
    }
    assert!(got == pattern(sent));
    story.expect(socket, What::End);
    story.socket(socket).end();
    assert!(story.close(socket).is_acknowledged());
    story.rest();
}

/// Promise: `end()` works while paused, and `close` still waits until the peer's `end` was
/// delivered.
#[test]
fn a_paused_socket_can_end() {
    let (mut story, socket, mut peer) = Transcript::pair(paused());
    peer.write_all(b"abc").expect("room");
    story.socket(socket).write(b"bye").expect("room");
    story.socket(socket).end();
    story.turn();
    let mut got = Vec::new();
    peer.read_to_end(&mut got).expect("clean");
    assert_eq!(got, b"bye");
    drop(peer);
    story.silence(ms(30));
    story.socket(socket).resume();
    assert_eq!(story.until_end(socket), b"abc");
    assert!(story.close(socket).is_acknowledged());
    story.rest();
}
