//! How connections end, on real sockets: each test provokes the opposite of a promise (DESIGN
//! section 1).

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use finale::{
    Backpressure, CloseMode, ConnectOptions, ConnectionErrorKind, EndingKind, Error, Event, FirstFin, ListenOptions,
    Reactor, TimeoutKind,
};
use support::alone::alone_with_connections;
use support::{PATIENCE, Transcript, What, dial, dial_narrow, ms, pattern, reset};

const MIB: usize = 1024 * 1024;

fn hand_off() -> ListenOptions {
    ListenOptions::default().close_mode(CloseMode::HandOff)
}

/// What a peer reads up to the end.
fn read_all(mut peer: TcpStream) -> (Vec<u8>, Result<(), ErrorKind>) {
    let mut all = Vec::new();
    let ended = peer.read_to_end(&mut all);
    (all, ended.map(|_| ()).map_err(|error| error.kind()))
}

// --- the answer is never destroyed by our own close ---

/// A client that sends `megabytes` in any case, reads meanwhile, and returns how both went.
fn stubborn_client(addr: std::net::SocketAddr, megabytes: usize) -> (Vec<u8>, Result<(), ErrorKind>) {
    let peer = dial(addr);
    let mut sender = peer.try_clone().expect("a descriptor");
    let sending = thread::spawn(move || {
        for _ in 0..megabytes {
            sender.write_all(&vec![7; MIB])?;
        }
        sender.shutdown(Shutdown::Write)
    });
    let (answer, ended) = read_all(peer);
    let sent = sending.join().expect("no panic").map_err(|error| error.kind());
    (answer, ended.and(sent))
}

/// Answers 2 MiB and ends before the request has arrived, in `connection` or at its first bytes.
fn early_answer(options: ListenOptions, at_once: bool, discard: bool) {
    let mut story = Transcript::new();
    let addr = story.listen(options);
    let client = thread::spawn(move || stubborn_client(addr, 12));
    let answer = pattern(2 * MIB);
    let mut answered = false;
    story.until(|socket, event| {
        let now = matches!((event, at_once), (Event::Connection, true) | (Event::Data(_), false));
        if now && !std::mem::replace(&mut answered, true) {
            socket.write(&answer).expect("2 MiB are below the limit");
            socket.end();
            if discard {
                socket.discard();
            }
        }
        if let Event::Close(ending) = event {
            assert!(ending.is_clean(), "{ending}");
            assert_eq!((ending.bytes_read, ending.bytes_written), (12 * MIB as u64, 2 * MIB as u64));
            return true;
        }
        false
    });
    let (got, went) = client.join().expect("no panic");
    assert_eq!(went, Ok(()), "no reset for the client, neither reading nor writing");
    assert!(got == answer, "{} of {} bytes of the answer arrived", got.len(), answer.len());
    story.rest();
}

/// Promise: the answer is never destroyed by our own close (CL06, AP04).
#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    early_answer(ListenOptions::default(), false, false);
    early_answer(ListenOptions::default(), true, false);
}

/// Promise: the same with a lingering close.
#[test]
fn an_early_answer_survives_discarding_the_request() {
    early_answer(ListenOptions::default(), false, true);
    early_answer(ListenOptions::default(), true, true);
}

/// Promise: the same when the close is handed off.
#[test]
fn an_early_answer_survives_a_hand_off_close() {
    early_answer(hand_off(), false, false);
    early_answer(hand_off(), true, true);
}

/// Discarded bytes are counted and not delivered; `end` is delivered.
#[test]
fn discard_reads_into_the_bin() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    story.socket(socket).discard();
    story.socket(socket).end();
    peer.write_all(&[1; 100_000]).expect("room");
    story.turn();
    peer.shutdown(Shutdown::Write).expect("connected");
    story.expect(socket, What::End);
    let ending = story.close(socket);
    assert!(ending.is_acknowledged());
    assert_eq!(ending.bytes_read, 100_000);
    story.rest();
}

// --- a failed write loses nothing that can still be read ---

/// Promise: the bytes that had arrived are delivered before the error of a failed write (WR06,
/// RS04).
#[test]
fn bytes_that_arrived_are_told_before_the_error_of_a_failed_write() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    peer.write_all(b"early answer").expect("room");
    reset(peer);
    assert_eq!(story.socket(socket).write(b"into the void"), Ok(Backpressure::Room));
    assert_eq!(story.data(socket, 12), b"early answer");
    assert_eq!(story.error(socket).kind, ConnectionErrorKind::Reset);
    let ending = story.close(socket);
    assert_eq!(ending.bytes_read, 12);
    assert_eq!((ending.bytes_written, ending.bytes_unsent), (0, 13));
    story.rest();
}

/// The same for a socket that waits with a full queue when the bytes and the reset arrive.
#[test]
fn bytes_that_arrived_are_told_before_the_error_of_a_write_that_waits() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    story.socket(socket).write(&vec![0; 8 * MIB]).expect("below the limit");
    story.turn();
    assert!(story.socket(socket).queued_bytes() > 0, "the peer does not read");
    peer.write_all(&[5; 30_000]).expect("room in our kernel");
    reset(peer);
    assert_eq!(story.data(socket, 30_000), [5; 30_000]);
    assert_eq!(story.error(socket).kind, ConnectionErrorKind::Reset);
    let ending = story.close(socket);
    assert_eq!(ending.bytes_written + ending.bytes_unsent, 8 * MIB as u64);
    assert!(ending.bytes_unsent > 0);
    story.rest();
}

/// Promise: data and reset in one readiness are data, error, close, and never `end` (RS02, RS03).
#[test]
fn data_and_reset_together_are_data_error_close() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    story.turn();
    peer.write_all(b"abc").expect("room");
    reset(peer);
    assert_eq!(story.data(socket, 3), b"abc");
    assert_eq!(story.error(socket).kind, ConnectionErrorKind::Reset);
    assert!(story.close(socket).had_error());
    story.rest();
}

/// Promise: a reset after the peer's FIN is noticed without a write of ours.
#[test]
fn a_reset_after_their_fin_is_seen_without_a_write() {
    let (mut story, socket, peer) = Transcript::pair(ListenOptions::default());
    peer.shutdown(Shutdown::Write).expect("connected");
    story.expect(socket, What::End);
    story.turn();
    reset(peer);
    assert_eq!(story.error(socket).kind, ConnectionErrorKind::Reset);
    let ending = story.close(socket);
    assert_eq!(ending.first_fin, FirstFin::Peer);
    assert_eq!(ending.time_wait(), FirstFin::Neither);
    story.rest();
}

/// Promise: a FIN, then a reset for input that the peer left unread: the bytes, `end`, then the
/// reset (CL07).
#[test]
fn their_fin_and_a_reset_for_unread_input_are_data_end_error_close() {
    for looked_between in [false, true] {
        let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
        story.socket(socket).write(b"never read").expect("room");
        story.turn();
        peer.write_all(b"bye").expect("room");
        peer.shutdown(Shutdown::Write).expect("connected");
        if looked_between {
            story.turn();
        }
        drop(peer);
        assert_eq!(story.until_end(socket), b"bye");
        assert_eq!(story.error(socket).kind, ConnectionErrorKind::Reset);
        assert!(!story.close(socket).is_acknowledged());
        story.rest();
    }
}

/// Promise: an idle connection's reset is delivered without any call of ours (RS01), whichever side
/// has finished before.
#[test]
fn a_reset_is_told_in_every_state() {
    let (mut story, open, open_peer) = Transcript::pair(ListenOptions::default());
    let addr = open_peer.peer_addr().expect("connected");
    let finished_peer = dial(addr);
    let finished = story.connection();
    story.socket(finished).end();
    story.turn();
    reset(open_peer);
    reset(finished_peer);
    assert_eq!(story.error(open).kind, ConnectionErrorKind::Reset);
    assert_eq!(story.close(open).first_fin, FirstFin::Neither);
    assert_eq!(story.error(finished).kind, ConnectionErrorKind::Reset);
    assert_eq!(story.close(finished).first_fin, FirstFin::Local);
    story.rest();
}

// --- half-close ---

/// Promise: writing after `end` works; the peer's FIN while our queue is full cuts nothing off, and
/// does not spin (HC02, CL02).
#[test]
fn their_fin_while_our_queue_is_full_cuts_nothing_off() {
    let (mut story, socket, peer) = Transcript::pair(ListenOptions::default());
    let answer = pattern(8 * MIB);
    assert_eq!(story.socket(socket).write(&answer), Ok(Backpressure::Full));
    peer.shutdown(Shutdown::Write).expect("connected");
    story.expect(socket, What::End);
    let before = support::cpu_time();
    story.silence(ms(100));
    assert!(support::cpu_time() - before < ms(50), "it waits for room asleep");
    let reading = thread::spawn(move || read_all(peer));
    story.expect(socket, What::Drain);
    story.socket(socket).write(b"and more").expect("our side is open");
    story.socket(socket).end();
    let ending = story.close(socket);
    assert!(ending.is_acknowledged());
    assert_eq!((ending.first_fin, ending.time_wait()), (FirstFin::Peer, FirstFin::Peer));
    let (got, ended) = reading.join().expect("no panic");
    assert_eq!(ended, Ok(()));
    assert!(got == [&answer[..], b"and more"].concat());
    story.rest();
}

/// Promise: our FIN follows the last byte (HC05).
#[test]
fn end_with_8_mib_queued_sends_them_all_before_the_fin() {
    let (mut story, socket, peer) = Transcript::pair(ListenOptions::default());
    let answer = pattern(8 * MIB);
    story.socket(socket).write(&answer).expect("below the limit");
    story.socket(socket).end();
    let reading = thread::spawn(move || read_all(peer));
    story.expect(socket, What::End);
    let ending = story.close(socket);
    assert!(ending.is_acknowledged());
    assert_eq!((ending.bytes_written, ending.bytes_unsent, ending.first_fin), (8 * MIB as u64, 0, FirstFin::Local));
    let (got, ended) = reading.join().expect("no panic");
    assert_eq!(ended, Ok(()));
    assert!(got == answer);
    story.rest();
}

/// Promise: reading continues after `end()`, for as much as the peer sends (HC03).
#[test]
fn after_our_end_everything_that_the_peer_sends_is_told() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    story.socket(socket).end();
    let sending = thread::spawn(move || {
        peer.write_all(&pattern(10 * MIB)).expect("we read");
        peer
    });
    let got = story.data(socket, 10 * MIB);
    assert!(got == pattern(10 * MIB));
    drop(sending.join().expect("no panic"));
    story.expect(socket, What::End);
    assert!(story.close(socket).is_acknowledged());
    story.rest();
}

/// Promise: `close` is delivered after both FINs, and not after one.
#[test]
fn close_waits_for_both_fins() {
    let (mut story, socket, peer) = Transcript::pair(ListenOptions::default());
    story.socket(socket).end();
    story.silence(ms(50));
    peer.shutdown(Shutdown::Write).expect("connected");
    story.expect(socket, What::End);
    assert_eq!(story.close(socket).first_fin, FirstFin::Local);

    let peer = dial(peer.peer_addr().unwrap_or_else(|_| story.listen(ListenOptions::default())));
    let socket = story.connection();
    peer.shutdown(Shutdown::Write).expect("connected");
    story.expect(socket, What::End);
    story.silence(ms(50));
    story.socket(socket).end();
    assert_eq!(story.close(socket).first_fin, FirstFin::Peer);
    story.rest();
}

/// Promise: FINs that cross are one `end` and one clean `close` on each side (HC08).
#[test]
fn both_sides_may_end_at_once() {
    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default());
    let client = story.reactor.connect(addr, ConnectOptions::default()).expect("an address");
    story.connected(client);
    let server = story.connection();
    story.socket(client).end();
    story.socket(server).end();
    for side in [client, server] {
        story.expect(side, What::End);
        assert!(story.close(side).is_acknowledged());
    }
    story.rest();
}

/// Promise: `allow_half_open(false)` ends our side by itself after `end`, including an answer that
/// is written in `end` (HC07).
#[test]
fn without_half_open_our_side_ends_by_itself_after_the_answer() {
    for answer in [0, 8, 4 * MIB] {
        let (mut story, socket, peer) = Transcript::pair(ListenOptions::default().allow_half_open(false));
        peer.shutdown(Shutdown::Write).expect("connected");
        story.expect(socket, What::End);
        story.socket(socket).write(&pattern(answer)).expect("the handler of end may answer");
        let reading = thread::spawn(move || read_all(peer));
        assert!(story.close(socket).is_acknowledged());
        let (got, ended) = reading.join().expect("no panic");
        assert_eq!(ended, Ok(()));
        assert!(got == pattern(answer));
        story.rest();
    }
}

/// The same with an answer that was queued long before the peer's FIN.
#[test]
fn without_half_open_a_queue_is_flushed_first() {
    let (mut story, socket, peer) = Transcript::pair(ListenOptions::default().allow_half_open(false));
    story.socket(socket).write(&pattern(8 * MIB)).expect("below the limit");
    peer.shutdown(Shutdown::Write).expect("connected");
    story.expect(socket, What::End);
    story.turn();
    assert!(story.socket(socket).end_called());
    assert_eq!(story.socket(socket).write(b"late"), Err(Error::WriteAfterEnd));
    let reading = thread::spawn(move || read_all(peer));
    assert!(story.close(socket).is_acknowledged());
    assert!(reading.join().expect("no panic") == (pattern(8 * MIB), Ok(())));
    story.rest();
}

// --- hand-off ---

/// Promise: a hand-off close also delivers everything, and claims nothing (DESIGN 1).
#[test]
fn a_hand_off_close_delivers_everything_and_claims_nothing() {
    let (mut story, socket, peer) = Transcript::pair(hand_off());
    peer.shutdown(Shutdown::Write).expect("connected");
    story.expect(socket, What::End);
    story.socket(socket).write(&pattern(MIB)).expect("below the limit");
    story.socket(socket).end();
    let reading = thread::spawn(move || read_all(peer));
    let ending = story.close(socket);
    assert_eq!(ending.kind, EndingKind::HandedOff);
    assert!(ending.is_clean() && !ending.is_acknowledged());
    assert!(reading.join().expect("no panic") == (pattern(MIB), Ok(())));
    story.rest();
}

/// Promise: the close mode can be changed while the socket is live.
#[test]
fn a_socket_can_choose_the_hand_off_close_itself() {
    let (mut story, socket, peer) = Transcript::pair(ListenOptions::default());
    story.socket(socket).set_close_mode(CloseMode::HandOff);
    story.socket(socket).end();
    story.turn();
    drop(peer);
    story.expect(socket, What::End);
    assert_eq!(story.close(socket).kind, EndingKind::HandedOff);
    story.rest();
}

// --- destroy ---

/// Promise: `destroy()` resets. The peer sees it, and the report counts what was never sent (CL12).
#[test]
fn destroy_resets_and_counts_what_was_never_sent() {
    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default().send_buffer_size(64 * 1024));
    let peer = dial_narrow(addr);
    let socket = story.connection();
    story.socket(socket).write(&vec![1; 8 * MIB]).expect("below the limit");
    story.turn();
    story.socket(socket).destroy();
    let ending = story.close(socket);
    assert_eq!(ending.kind, EndingKind::Destroyed);
    assert!(ending.bytes_written > 0 && ending.bytes_unsent > 0, "{ending}");
    assert_eq!(ending.bytes_written + ending.bytes_unsent, 8 * MIB as u64);
    assert_eq!(read_all(peer).1, Err(ErrorKind::ConnectionReset));
    story.rest();
}

/// Promise: after `destroy()` the next event is `close`, whatever had arrived (AP02).
#[test]
fn destroy_in_the_middle_of_data_is_followed_by_close_alone() {
    let (mut story, socket, mut peer) =
        Transcript::pair(ListenOptions::default().notify_peer_ended(true).receive_buffer_size(MIB));
    story.turn();
    peer.write_all(&vec![1; MIB / 4]).expect("room");
    peer.shutdown(Shutdown::Write).expect("connected");
    story.expect(socket, What::PeerEnded);
    assert!(matches!(story.next(socket), What::Data(_)));
    story.socket(socket).destroy();
    assert_eq!(story.close(socket).kind, EndingKind::Destroyed);
    story.rest();
}

/// Promise: the first of two calls counts.
#[test]
fn end_and_destroy_may_be_called_twice() {
    let (mut story, socket, peer) = Transcript::pair(ListenOptions::default());
    story.socket(socket).end();
    story.socket(socket).end();
    story.turn();
    story.socket(socket).end();
    story.silence(ms(20));
    story.socket(socket).destroy();
    story.socket(socket).destroy();
    story.socket(socket).end();
    assert_eq!(story.close(socket).kind, EndingKind::Destroyed);
    assert_eq!(
        read_all(peer),
        (vec![], Ok(())),
        "our FIN came first, and ends the stream for a peer that has not written"
    );
    story.rest();
}

/// Promise: dropping a reactor resets its live connections, so that a cut stream does not look
/// complete (AP05).
#[test]
fn dropping_the_reactor_resets_every_peer() {
    let (mut story, _open, open_peer) = Transcript::pair(ListenOptions::default());
    let addr = open_peer.peer_addr().expect("connected");
    let (half_closed_peer, full_peer, queued_peer) = (dial(addr), dial(addr), dial(addr));
    let half_closed = story.connection();
    half_closed_peer.shutdown(Shutdown::Write).expect("connected");
    let full = story.connection();
    story.socket(full).write(&vec![0; 8 * MIB]).expect("below the limit");
    story.socket(full).end();
    story.expect(half_closed, What::End);
    let connecting = story.reactor.connect("192.0.2.1:9", ConnectOptions::default());
    let resolving = story.reactor.connect("nosuchhost.invalid:9", ConnectOptions::default());
    assert!(connecting.is_ok() && resolving.is_ok());
    story.reactor.set_timer(PATIENCE);
    drop(story);
    for peer in [open_peer, half_closed_peer, full_peer, queued_peer] {
        assert_eq!(read_all(peer).1, Err(ErrorKind::ConnectionReset));
    }
}

/// A program that dies ends its connections in an orderly way, except over unread bytes.
#[test]
fn abandoning_the_reactor_closes_its_descriptors_as_the_kernel_does() {
    let (mut story, _open, open_peer) = Transcript::pair(ListenOptions::default());
    let mut unread_peer = dial(open_peer.peer_addr().expect("connected"));
    let unread = story.connection();
    story.socket(unread).pause();
    unread_peer.write_all(b"unread").expect("connected");
    story.reactor.abandon();
    assert_eq!(read_all(open_peer).1, Ok(()));
    assert_eq!(read_all(unread_peer).1, Err(ErrorKind::ConnectionReset));
}

// --- misuse ---

/// Promise: `write` after `end()` returns an error at once, and the connection continues (AP01).
#[test]
fn write_after_end_is_refused_and_the_connection_lives_on() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    story.socket(socket).write(b"last").expect("room");
    story.socket(socket).end();
    assert_eq!(story.socket(socket).write(b"late"), Err(Error::WriteAfterEnd));
    story.turn();
    assert_eq!(story.socket(socket).write(b"later"), Err(Error::WriteAfterEnd));
    peer.write_all(b"still heard").expect("connected");
    assert_eq!(story.data(socket, 11), b"still heard");
    let mut got = Vec::new();
    peer.read_to_end(&mut got).expect("clean");
    assert_eq!(got, b"last");
    drop(peer);
    story.expect(socket, What::End);
    assert_eq!(story.socket(socket).write(b"latest"), Err(Error::WriteAfterEnd));
    let ending = story.close(socket);
    assert_eq!((ending.bytes_written, ending.bytes_unsent), (4, 0));
    story.rest();
}

/// Promise: a write to a socket that is destroyed or closed is refused.
#[test]
fn write_after_destroy_or_close_is_refused() {
    let (mut story, socket, peer) = Transcript::pair(ListenOptions::default());
    story.socket(socket).destroy();
    assert_eq!(story.socket(socket).write(b"late"), Err(Error::Gone));
    story.close(socket);
    let mut closed = story.socket(socket);
    assert_eq!(closed.write(b"too late"), Err(Error::Gone), "found, because its close is being handled");
    assert_eq!(closed.set_keep_alive(None), Err(Error::Gone));
    closed.end();
    closed.destroy();
    story.rest();
    drop(peer);
}

/// Promise: an id is never reused; a stale one finds nothing (AP03).
#[test]
fn a_stale_id_finds_nothing_though_its_place_is_used_again() {
    alone_with_connections("endings::a_stale_id_finds_nothing_though_its_place_is_used_again", 100, 10, |count| {
        let (mut story, socket, peer) = Transcript::pair(ListenOptions::default());
        let addr = peer.peer_addr().expect("connected");
        story.socket(socket).destroy();
        story.close(socket);
        assert!(story.reactor.socket(socket).is_some(), "its close is being handled");
        let mut seen = vec![socket];
        for _ in 0..count {
            let _peer = dial(addr);
            let next = story.connection();
            assert_eq!(next.index(), socket.index(), "the place is used again");
            assert!(!seen.contains(&next), "the id is not");
            seen.push(next);
            assert!(story.reactor.socket(socket).is_none());
            assert!(story.socket(next).get(socket).is_none());
            story.socket(next).destroy();
            story.close(next);
        }
        story.rest();
        drop(peer);
    });
}

// --- the report ---

/// Promise: `close` reports how it ended: the first FIN, bytes, address, TIME_WAIT; in one plain
/// line.
#[test]
fn the_report_says_how_it_ended() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    let peer_addr = peer.local_addr().ok();
    peer.write_all(b"12345").expect("room");
    story.data(socket, 5);
    story.socket(socket).write(b"123").expect("room");
    story.socket(socket).end();
    story.turn();
    assert!(read_all(peer) == (b"123".to_vec(), Ok(())));
    story.expect(socket, What::End);
    let ending = story.close(socket);
    assert_eq!((ending.bytes_read, ending.bytes_written, ending.bytes_unsent), (5, 3, 0));
    assert_eq!((ending.peer, ending.first_fin, ending.time_wait()), (peer_addr, FirstFin::Local, FirstFin::Local));
    assert!(!ending.had_error());
    let line = "clean and acknowledged; we finished first, TIME_WAIT is ours; 5 bytes read, 3 written";
    assert_eq!(ending.to_string(), line);
    assert!(story.socket(socket).peer_ended(), "still known while close is handled");
    story.rest();
}

/// Promise: a timer that ends a connection is named, and the peer is notified by a reset.
#[test]
fn the_report_names_the_timer() {
    let (mut story, socket, peer) = Transcript::pair(ListenOptions::default().half_closed_timeout(ms(30)));
    peer.shutdown(Shutdown::Write).expect("connected");
    story.expect(socket, What::End);
    assert_eq!(story.error(socket).kind, ConnectionErrorKind::TimedOut(TimeoutKind::HalfClosed));
    let ending = story.close(socket);
    assert!(ending.to_string().starts_with("error: timed out: half-closed and silent; the peer finished first"));
    assert_eq!(read_all(peer).1, Err(ErrorKind::ConnectionReset));
    story.rest();
}

/// Promise: `next()` returns `None` when nothing is left.
#[test]
fn the_loop_ends_with_the_last_close() {
    let mut reactor = Reactor::new().expect("a machine with epoll");
    let listener = reactor.listen("127.0.0.1:0", ListenOptions::default()).expect("a port");
    drop(dial(listener.addr));
    let mut told = Vec::new();
    while let Some((mut socket, event)) = reactor.next().expect("never fails") {
        told.push(format!("{event:?}").split('(').next().map(str::to_owned).unwrap_or_default());
        if event == Event::End {
            socket.end();
            reactor.close_listener(listener.id).expect("open");
        }
    }
    assert_eq!(told, ["Connection", "End", "Close"]);
}
