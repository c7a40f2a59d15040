//! Timers on the real clock: never early, delivered once, and nothing is half-closed for ever.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use finale::{ConnectOptions, ConnectionErrorKind, EndingKind, Event, ListenOptions, TimerId};
use support::{PATIENCE, Transcript, What, dial, dial_narrow, ms, reset, work_for};

fn idle(limit: Duration) -> ListenOptions {
    ListenOptions::default().idle_timeout(limit)
}

/// The peer finds a reset, perhaps after some bytes.
fn finds_a_reset(mut peer: TcpStream) {
    let read = peer.read_to_end(&mut Vec::new());
    assert_eq!(read.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
}

/// Random numbers from a seed that is printed, so that a failure can be replayed.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64 | 1);
        println!("seed {seed}");
        Self(seed)
    }

    /// xorshift64
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

// --- idle ---

/// Promise: `timeout` is delivered once, not early, and closes nothing; traffic starts the time
/// again.
#[test]
fn a_silence_is_told_once() {
    let mut silent_since = Instant::now();
    let (mut story, socket, mut peer) = Transcript::pair(idle(ms(40)));
    for _ in 0..2 {
        story.expect(socket, What::Timeout);
        assert!(silent_since.elapsed() >= ms(40), "after {:?}", silent_since.elapsed());
        story.silence(ms(100));
        silent_since = Instant::now();
        peer.write_all(b"ping").expect("connected");
        story.data(socket, 4);
    }
    story.expect(socket, What::Timeout);
    silent_since = Instant::now();
    story.socket(socket).write(b"pong").expect("connected");
    story.expect(socket, What::Timeout);
    assert!(silent_since.elapsed() >= ms(40), "our own bytes are traffic too");
    reset(peer);
    story.error(socket);
    story.close(socket);
    story.rest();
}

/// Promise: `set_idle_timeout` counts from the call, also after a slow handler (TM02), and can be
/// switched off.
#[test]
fn an_idle_time_counts_from_the_call_that_set_it() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    peer.write_all(b"work").expect("connected");
    story.data(socket, 4);
    work_for(ms(60));
    let set = Instant::now();
    story.socket(socket).set_idle_timeout(ms(25));
    story.expect(socket, What::Timeout);
    assert!(set.elapsed() >= ms(25), "after {:?}", set.elapsed());
    let set = Instant::now();
    story.socket(socket).set_idle_timeout(ms(25));
    story.expect(socket, What::Timeout);
    assert!(set.elapsed() >= ms(25), "after {:?}", set.elapsed());
    story.socket(socket).set_idle_timeout(None);
    story.silence(ms(60));
    story.socket(socket).destroy();
    story.close(socket);
    story.rest();
}

/// Promise: never early, whatever the length and the moment (TM01).
#[test]
fn an_idle_time_is_never_early() {
    let (mut story, socket, _peer) = Transcript::pair(ListenOptions::default());
    let mut random = Random::new();
    for _ in 0..100 {
        let length = Duration::from_nanos(random.below(4_000_000));
        work_for(Duration::from_nanos(random.below(1_000_000)));
        let set = Instant::now();
        story.socket(socket).set_idle_timeout(length);
        story.expect(socket, What::Timeout);
        assert!(set.elapsed() >= length, "{length:?} were over after {:?}", set.elapsed());
    }
    story.socket(socket).destroy();
    story.close(socket);
    story.rest();
}

/// Promise: bytes that arrived by the deadline are read first: `data`, and no `timeout` (TM08,
/// TM10); also if they are more than one turn reads.
#[test]
fn bytes_that_are_there_when_the_deadline_is_seen_win() {
    let (mut story, socket, mut peer) = Transcript::pair(idle(ms(20)).receive_buffer_size(1 << 20));
    story.turn();
    for bytes in [12, 300_000, 12, 300_000] {
        work_for(ms(25));
        peer.write_all(&vec![1; bytes]).expect("connected");
        let mut got = 0;
        while got < bytes {
            let What::Data(more) = story.next(socket) else { panic!("timeout is delivered while bytes wait") };
            got += more.len();
            work_for(ms(25));
        }
        story.turn();
    }
    story.expect(socket, What::Timeout);
    story.socket(socket).destroy();
    story.close(socket);
    story.rest();
}

/// Promise: a destroyed socket delivers nothing but `close`, although its own timer is due in the
/// same turn (TM07).
#[test]
fn a_socket_destroyed_in_its_neighbours_timeout_tells_only_close() {
    let (mut story, first, peer) = Transcript::pair(idle(ms(30)));
    let mut sockets = vec![first];
    let mut peers = vec![peer];
    for _ in 0..9 {
        peers.push(dial(peers[0].peer_addr().expect("connected")));
        sockets.push(story.connection());
    }
    story.turn();
    work_for(ms(40));
    story.until(|socket, event| {
        assert_eq!(*event, Event::Timeout);
        for &neighbour in &sockets {
            socket.get(neighbour).expect("it lives").destroy();
        }
        true
    });
    for &socket in &sockets {
        assert_eq!(story.close(socket).kind, EndingKind::Destroyed);
    }
    story.rest();
}

/// Promise: a queue that moves is traffic, although no byte arrives; one that does not move is a
/// silence (TM09).
#[test]
fn a_slow_download_is_not_idle_until_it_stands() {
    let mut story = Transcript::new();
    // Longer than a busy machine may delay this thread.
    let addr = story.listen(idle(ms(2000)).send_buffer_size(16 * 1024));
    let mut peer = dial_narrow(addr);
    peer.set_nonblocking(true).expect("a socket");
    let socket = story.connection();
    story.socket(socket).write(&vec![0; 4 << 20]).expect("below the limit");
    let mut moved = (0, Instant::now());
    let began = Instant::now();
    let mut chunk = vec![0; 64 * 1024];
    while began.elapsed() < ms(900) {
        // Non-blocking: what comes next may wait for a turn of ours.
        let _ = peer.read(&mut chunk);
        let now = Instant::now();
        story.turn();
        let queued_bytes = story.socket(socket).queued_bytes();
        if queued_bytes != moved.0 {
            moved = (queued_bytes, now);
        }
        work_for(ms(10));
    }
    assert!(moved.0 > 0, "the download is still going on");
    story.expect(socket, What::Timeout);
    assert!(moved.1.elapsed() >= ms(2000), "{:?} after the last byte", moved.1.elapsed());
    story.socket(socket).destroy();
    story.close(socket);
    story.rest();
}

// --- half-closed ---

/// Promise: no connection is half-closed for ever if we don't end.
#[test]
fn a_socket_that_we_do_not_end_is_ended_by_its_timer() {
    let (mut story, socket, peer) = Transcript::pair(ListenOptions::default().half_closed_timeout(ms(60)));
    story.silence(ms(100));
    peer.shutdown(Shutdown::Write).expect("connected");
    let since = Instant::now();
    story.expect(socket, What::End);
    assert_eq!(story.error(socket).kind, ConnectionErrorKind::TimedOut(finale::TimeoutKind::HalfClosed));
    assert!(since.elapsed() >= ms(60), "after {:?}", since.elapsed());
    story.close(socket);
    finds_a_reset(peer);
    story.rest();
}

/// Promise: no connection is half-closed for ever if the peer does not end. Its bytes restart the
/// time.
#[test]
fn a_socket_whose_peer_does_not_end_is_ended_by_its_timer() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default().half_closed_timeout(ms(300)));
    story.socket(socket).end();
    let mut since = Instant::now();
    for _ in 0..4 {
        story.run_for(ms(100), |_, event| panic!("{event:?}"));
        since = Instant::now();
        peer.write_all(b".").expect("connected");
        story.data(socket, 1);
    }
    assert_eq!(story.error(socket).kind, ConnectionErrorKind::TimedOut(finale::TimeoutKind::HalfClosed));
    assert!(since.elapsed() >= ms(300), "after {:?}", since.elapsed());
    story.close(socket);
    story.rest();
}

// --- the close timeout ---

/// Promise: after `end()` and `discard()` the peer has the close timeout in total; sending a few
/// bytes now and then does not postpone it (OV02).
#[test]
fn a_peer_that_drips_into_the_bin_is_ended_all_the_same() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default().close_timeout(ms(150)));
    peer.set_nonblocking(true).expect("a socket");
    story.socket(socket).write(b"answer").expect("room");
    let since = Instant::now();
    story.socket(socket).end();
    story.socket(socket).discard();
    let (mut drips, mut failed_after, mut ending) = (0, None, None);
    while ending.is_none() {
        story.run_for(ms(10), |_, event| match event {
            Event::Error(failure) => {
                assert_eq!(failure.kind, ConnectionErrorKind::TimedOut(finale::TimeoutKind::Close));
                failed_after = Some(since.elapsed());
            }
            Event::Close(told) => ending = Some((*told).clone()),
            other => panic!("{other:?}"),
        });
        assert!(since.elapsed() < PATIENCE, "dripping puts the end off");
        drips += u32::from(peer.write(b".").is_ok());
    }
    let failed_after = failed_after.expect("error comes before close");
    assert!(failed_after >= ms(150) && drips > 0, "after {failed_after:?}");
    assert!(ending.is_some_and(|ending| ending.bytes_read > 0 && !ending.is_clean()));
    story.rest();
}

/// Promise: a peer that never reads can't postpone our end for ever, and the report counts what was
/// never sent.
#[test]
fn a_peer_that_never_reads_is_ended_by_the_linger_timer() {
    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default().send_buffer_size(64 * 1024).close_timeout(ms(100)));
    let peer = dial_narrow(addr);
    let socket = story.connection();
    story.socket(socket).write(&vec![0; 8 << 20]).expect("below the limit");
    let since = Instant::now();
    story.socket(socket).end();
    assert_eq!(story.error(socket).kind, ConnectionErrorKind::TimedOut(finale::TimeoutKind::Close));
    assert!(since.elapsed() >= ms(100), "after {:?}", since.elapsed());
    let ending = story.close(socket);
    assert!(ending.bytes_unsent > 0);
    finds_a_reset(peer);
    story.rest();
}

/// Promise: the close timeout counts from `end()`, however long nothing has moved before.
#[test]
fn the_linger_time_counts_from_our_end() {
    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default().send_buffer_size(64 * 1024).close_timeout(ms(100)));
    let peer = dial_narrow(addr);
    let socket = story.connection();
    story.socket(socket).write(&vec![0; 8 << 20]).expect("below the limit");
    story.silence(ms(200));
    let since = Instant::now();
    story.socket(socket).end();
    assert_eq!(story.error(socket).kind, ConnectionErrorKind::TimedOut(finale::TimeoutKind::Close));
    assert!(since.elapsed() >= ms(100), "after {:?}", since.elapsed());
    story.close(socket);
    finds_a_reset(peer);
    story.rest();
}

// --- connecting ---

/// Promise: a handshake that is never answered ends by its timer, not before (CN02, CN10).
#[test]
fn a_handshake_without_an_answer_ends_by_its_timer() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a descriptor");
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    socket.listen(1).expect("bound");
    let full = TcpListener::from(socket).local_addr();
    assert!(full.is_ok(), "the listener is closed again here");

    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a descriptor");
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    socket.listen(1).expect("bound");
    let listener = TcpListener::from(socket);
    let addr = listener.local_addr().expect("bound");
    let mut story = Transcript::new();
    let began = Instant::now();
    let options = ConnectOptions::default().connect_timeout(ms(150));
    let clients: Vec<_> = (0..6).map(|_| story.reactor.connect(addr, options.clone()).expect("an address")).collect();
    let mut timed_out = 0;
    for &client in &clients {
        assert!(matches!(story.next(client), What::Lookup(_)));
        match story.next(client) {
            What::Connect => {
                story.expect(client, What::Ready);
                story.socket(client).destroy();
            }
            What::Error(failure) => {
                assert_eq!(failure.kind, ConnectionErrorKind::TimedOut(finale::TimeoutKind::Connect));
                assert_eq!(failure.attempts.len(), 1, "the attempt under way is named");
                assert!(began.elapsed() >= ms(150), "after {:?}", began.elapsed());
                timed_out += 1;
            }
            other => panic!("{other:?}"),
        }
        story.close(client);
    }
    assert!(timed_out > 0, "a queue of one is full after two");
    story.rest();
}

// --- free-standing timers ---

/// Promise: never early, delivered once each, in the order of their deadlines.
#[test]
fn free_timers_fire_once_in_order_and_never_early() {
    let mut story = Transcript::new();
    let mut random = Random::new();
    // The moments between which each is due: the call itself may be delayed.
    let mut due: HashMap<TimerId, (Instant, Instant)> = HashMap::new();
    for _ in 0..500 {
        let length = Duration::from_nanos(random.below(120_000_000));
        let before = Instant::now();
        let id = story.reactor.set_timer(length);
        due.insert(id, (before + length, Instant::now() + length));
    }
    let mut last = Instant::now();
    for _ in 0..500 {
        let What::Timer(id) = story.next_of_none() else { panic!("only timers are set") };
        let (earliest, latest) = due.remove(&id).expect("it was set and has not fired");
        assert!(earliest <= Instant::now(), "{:?} early", earliest - Instant::now());
        assert!(latest + ms(2) > last, "out of order by more than a tick");
        last = last.max(earliest);
    }
    story.rest();
}

/// Promise: a timer counts from the call, also after a slow handler.
#[test]
fn a_free_timer_counts_from_the_call() {
    let mut story = Transcript::new();
    story.reactor.set_timer(Duration::ZERO);
    story.next_of_none();
    work_for(ms(40));
    let set = Instant::now();
    story.reactor.set_timer(ms(10));
    story.next_of_none();
    assert!(set.elapsed() >= ms(10), "after {:?}", set.elapsed());
    story.rest();
}

/// Promise: zero fires in the next turn, and a handler that sets zero again and again starves no
/// socket (TM04).
#[test]
fn a_timer_of_zero_fires_at_once_and_starves_nobody() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    story.reactor.set_timer(Duration::ZERO);
    peer.write_all(b"served").expect("connected");
    let mut fired = 0;
    loop {
        match story.reactor.next_before(Instant::now() + PATIENCE).expect("never fails") {
            Some((_, Event::Timer(_))) => {
                fired += 1;
                story.reactor.set_timer(Duration::ZERO);
            }
            Some((_, Event::Data(_))) => break,
            other => panic!("{other:?}"),
        }
        assert!(fired < 1000, "the socket waits for its turn");
    }
    story.next_of_none();
    story.socket(socket).destroy();
    story.close(socket);
    story.rest();
}

/// Promise: an enormous time never fires, does not overflow, and does not hide a nearer one (TM05).
#[test]
fn an_enormous_timer_never_fires() {
    let mut story = Transcript::new();
    let enormous = [Duration::MAX, Duration::from_millis(u64::MAX), Duration::from_secs(1 << 32), ms(1 << 32)];
    let timers = enormous.map(|length| story.reactor.set_timer(length));
    let next = story.reactor.next_deadline();
    assert!(next.is_none_or(|at| at > Instant::now()), "nothing is due");
    story.silence(ms(50));
    let near = story.reactor.set_timer(ms(20));
    let at = story.reactor.next_deadline().expect("a timer is running");
    assert!(at <= Instant::now() + ms(22), "in {:?}", at - Instant::now());
    assert_eq!(story.next_of_none(), What::Timer(near));
    for timer in timers {
        assert!(story.reactor.cancel_timer(timer));
    }
    story.turn();
    assert_eq!(story.reactor.next_deadline(), None);
    story.rest();
}

/// Promise: the same for a socket's timers.
#[test]
fn an_enormous_idle_time_never_fires() {
    let forever = Some(Duration::MAX);
    let options = ListenOptions::default().idle_timeout(forever).half_closed_timeout(forever).close_timeout(forever);
    let (mut story, socket, peer) = Transcript::pair(options);
    story.silence(ms(20));
    story.socket(socket).set_idle_timeout(Duration::from_millis(u64::MAX));
    drop(peer);
    story.expect(socket, What::End);
    story.silence(ms(50));
    story.socket(socket).end();
    assert!(story.close(socket).is_acknowledged());
    story.rest();
}

/// Promise: a cancelled timer does not fire; a stale id cancels nothing, although its slot was
/// reused.
#[test]
fn a_stale_timer_id_cancels_nothing() {
    let mut story = Transcript::new();
    let cancelled = story.reactor.set_timer(ms(10));
    assert!(story.reactor.cancel_timer(cancelled));
    assert!(!story.reactor.cancel_timer(cancelled));
    let other = story.reactor.set_timer(ms(20));
    assert!(!story.reactor.cancel_timer(cancelled));
    assert_eq!(story.next_of_none(), What::Timer(other));
    assert!(!story.reactor.cancel_timer(other), "it has fired");
    let kept = story.reactor.set_timer(ms(10));
    assert!(!story.reactor.cancel_timer(other));
    assert_eq!(story.next_of_none(), What::Timer(kept));
    story.rest();
}

/// Promise: a timer may cancel others that are due at the same moment (TM07).
#[test]
fn a_timer_may_cancel_those_that_are_due_with_it() {
    let mut story = Transcript::new();
    let timers: Vec<_> = (0..50).map(|_| story.reactor.set_timer(ms(5))).collect();
    work_for(ms(10));
    let What::Timer(fired) = story.next_of_none() else { panic!("only timers are set") };
    for &timer in &timers {
        assert_eq!(story.reactor.cancel_timer(timer), timer != fired);
    }
    story.rest();
}

/// Promise: a wait shorter than a millisecond does not spin (TM03).
#[test]
fn waiting_for_a_timer_is_asleep() {
    let mut story = Transcript::new();
    story.reactor.set_timer(ms(200));
    let before = support::cpu_time();
    story.next_of_none();
    assert!(support::cpu_time() - before < ms(50));
    story.rest();
}
