//! Slow readers where the kernel does not report when they last took bytes: on a faulty net that
//! hides it, and on real Unix domain sockets. A peer that takes bytes is not cut off, and one that
//! takes none is.

use std::io::{ErrorKind, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use finale::sim::{Network, PeerSocket};
use finale::{ConnectionErrorKind, Event, ListenOptions, SocketId, TimeoutKind, UnixAddr};

use rustix::io::Errno;
use support::faulty::{Faulty, FaultyNet, faulty_on};
use support::scene::Scene;
use support::{PATIENCE, Transcript, ms};

const SECOND: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(3);
/// What our kernel holds, while the peer's takes 1000 bytes at once.
const HELD: usize = 50_000;

fn served(options: ListenOptions) -> (Scene<FaultyNet>, PeerSocket) {
    let (scene, peer, faulty) = known(options);
    faulty.hide_acks();
    (scene, peer)
}

/// The kernel reports when the peer last took bytes.
fn known(options: ListenOptions) -> (Scene<FaultyNet>, PeerSocket, Faulty) {
    let network = Network::new(7);
    network.set_buffers(HELD, 1000);
    let (mut scene, faulty) = faulty_on(network);
    let peer = scene.serve(options);
    (scene, peer, faulty)
}

fn write(scene: &mut Scene<FaultyNet>, bytes: usize) {
    scene.with(|socket| {
        socket.write(&vec![b'x'; bytes]).expect("open");
    });
}

/// The peer reads what it has once a second.
fn read_slowly(scene: &mut Scene<FaultyNet>, peer: &PeerSocket, seconds: usize) -> usize {
    let read_after = |_| {
        let until = scene.network.now() + SECOND;
        scene.run(SECOND);
        // A reactor without connections does not wait, but its kernel still sends what it holds.
        scene.network.advance(until.saturating_duration_since(scene.network.now()));
        peer.read().len()
    };
    (0..seconds).map(read_after).sum()
}

// --- bytes wait in our queue ---

/// The kernel's own edge comes when a third of its buffer is free: that takes 17 seconds.
#[test]
fn a_queue_that_a_slow_reader_empties_meets_no_write_timeout() {
    let (mut scene, peer) = served(ListenOptions::default().write_timeout(LIMIT));
    write(&mut scene, 2 * HELD);
    assert_eq!(read_slowly(&mut scene, &peer, 120), 2 * HELD);
    assert!(scene.story.is_empty(), "{:?}", scene.story);
}

#[test]
fn a_flush_to_a_slow_reader_meets_no_close_timeout_while_our_queue_is_emptied() {
    let (mut scene, peer) = served(ListenOptions::default().close_timeout(LIMIT));
    write(&mut scene, 2 * HELD);
    scene.with(|socket| socket.end());
    assert_eq!(read_slowly(&mut scene, &peer, 120), 2 * HELD);
    assert!(peer.has_fin() && !peer.is_reset());
}

#[test]
fn a_last_flush_to_a_slow_reader_loses_nothing() {
    let (mut scene, peer) = served(ListenOptions::default().close_timeout(LIMIT));
    peer.finish();
    scene.expect(&["end"]);
    write(&mut scene, 2 * HELD);
    scene.with(|socket| socket.end());
    assert_eq!(read_slowly(&mut scene, &peer, 120), 2 * HELD);
    assert!(peer.has_fin() && !peer.is_reset());
    scene.story.retain(|line| line != "close");
    assert!(scene.story.is_empty(), "{:?}", scene.story);
}

#[test]
fn a_half_closed_connection_with_a_slow_reader_goes_on_while_our_queue_is_emptied() {
    let (mut scene, peer) = served(ListenOptions::default().half_closed_timeout(LIMIT));
    peer.finish();
    scene.expect(&["end"]);
    write(&mut scene, 2 * HELD);
    let read = read_slowly(&mut scene, &peer, 40);
    assert!(scene.story.is_empty(), "after {read} bytes: {:?}", scene.story);
    scene.with(|socket| assert!(socket.queued_bytes() > 0, "the kernel does not hold all of it yet"));
}

/// A repeated write that takes nothing restarts no limit.
#[test]
fn a_reader_that_stops_is_given_up_at_the_limit() {
    let (waiting, flushing) =
        (ListenOptions::default().write_timeout(LIMIT), ListenOptions::default().close_timeout(LIMIT));
    for (options, ends, timer) in [(waiting, false, TimeoutKind::Write), (flushing, true, TimeoutKind::Close)] {
        let (mut scene, peer) = served(options);
        write(&mut scene, 2 * HELD);
        scene.with(|socket| {
            if ends {
                socket.end();
            }
        });
        read_slowly(&mut scene, &peer, 10);
        // The last progress was up to one limit ago, and the whole limit may follow after that was
        // found.
        scene.run(2 * LIMIT + ms(50));
        assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(timer));
    }
}

// --- everything is with the kernel ---

#[test]
fn a_lingering_close_leaves_a_slow_reader_to_the_kernel() {
    let (mut scene, peer) = served(ListenOptions::default().close_timeout(LIMIT));
    write(&mut scene, HELD);
    scene.with(|socket| {
        socket.end();
        socket.discard();
    });
    assert_eq!(read_slowly(&mut scene, &peer, 60), HELD);
    assert!(peer.has_fin() && !peer.is_reset());
    assert!(scene.reactor.is_empty(), "the limit has ended it here:\n{}", scene.reactor.sockets());
    assert_eq!(scene.network.descriptors(), 0);
}

#[test]
fn a_close_that_is_not_acknowledged_leaves_a_slow_reader_to_the_kernel() {
    let (mut scene, peer) = served(ListenOptions::default().close_timeout(LIMIT));
    peer.finish();
    scene.expect(&["end"]);
    write(&mut scene, HELD);
    scene.with(|socket| socket.end());
    assert_eq!(read_slowly(&mut scene, &peer, 60), HELD);
    assert!(peer.has_fin() && !peer.is_reset());
    assert!(scene.reactor.is_empty(), "the limit has ended it here:\n{}", scene.reactor.sockets());
    assert_eq!(scene.network.descriptors(), 0);
}

#[test]
fn a_half_closed_connection_whose_limit_strikes_leaves_a_slow_reader_to_the_kernel() {
    let (mut scene, peer) = served(ListenOptions::default().half_closed_timeout(LIMIT));
    write(&mut scene, HELD);
    scene.with(|socket| socket.end());
    assert_eq!(read_slowly(&mut scene, &peer, 60), HELD);
    assert!(peer.has_fin() && !peer.is_reset());
    assert!(scene.reactor.is_empty(), "the limit has ended it here:\n{}", scene.reactor.sockets());
}

/// What the program has not read must not turn the close(2) into a reset.
#[test]
fn a_slow_reader_whose_own_bytes_are_unread_is_left_to_the_kernel() {
    let (mut scene, peer) = served(ListenOptions::default().half_closed_timeout(LIMIT));
    scene.with(|socket| socket.pause());
    peer.send(b"more than was asked for");
    write(&mut scene, HELD);
    scene.with(|socket| socket.end());
    assert_eq!(read_slowly(&mut scene, &peer, 60), HELD);
    assert!(peer.has_fin() && !peer.is_reset());
    assert!(scene.reactor.is_empty(), "the limit has ended it here:\n{}", scene.reactor.sockets());
}

// --- the kernel lacks memory for the query ---

#[test]
fn a_query_without_memory_resets_no_slow_reader() {
    for lasts in [false, true] {
        let (mut scene, peer, faulty) = known(ListenOptions::default().half_closed_timeout(LIMIT));
        write(&mut scene, HELD);
        scene.with(|socket| socket.end());
        match lasts {
            true => faulty.always("time_since_acked", Errno::NOBUFS),
            false => faulty.once("time_since_acked", Errno::NOMEM),
        }
        assert_eq!(read_slowly(&mut scene, &peer, 51), HELD, "{lasts}");
        assert!(peer.has_fin() && !peer.is_reset(), "{lasts}");
        // The limit waits for one repetition.
        assert_eq!(faulty.failures("time_since_acked"), if lasts { 2 } else { 1 });
    }
}

#[test]
fn a_query_without_memory_makes_no_slow_reader_idle() {
    let (mut scene, peer, faulty) = known(ListenOptions::default().idle_timeout(LIMIT));
    write(&mut scene, HELD);
    faulty.once("time_since_acked", Errno::NOBUFS);
    read_slowly(&mut scene, &peer, 20);
    assert_eq!(faulty.failures("time_since_acked"), 1);
    assert!(scene.story.is_empty(), "{:?}", scene.story);
}

// --- on real Unix domain sockets ---

const REAL_LIMIT: Duration = ms(200);
/// What a read takes of it in each step of 20 ms. The kernel's edge is reported when three quarters
/// of its buffer are free.
const SIP: usize = 16 * 1024;
/// More than the kernel holds.
const ANSWER: usize = 640 * 1024;

fn unix_served(options: ListenOptions) -> (Transcript, SocketId, UnixStream) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("finale-slow-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let mut story = Transcript::new();
    let listener = story.reactor.listen(UnixAddr::abstract_name(&name), options).expect("a new name").id;
    let peer = UnixStream::connect_addr(&SocketAddr::from_abstract_name(&name).expect("short")).expect("it listens");
    peer.set_nonblocking(true).expect("a socket");
    let socket = story.connection();
    story.reactor.close_listener(listener).expect("open");
    (story, socket, peer)
}

/// The peer reads a little every 20 ms, up to the end. Returns how much it has read.
#[track_caller]
fn sip(story: &mut Transcript, peer: &mut UnixStream) -> usize {
    let (began, mut all, mut buffer) = (Instant::now(), 0, vec![0; SIP]);
    while began.elapsed() < PATIENCE {
        story.run_for(ms(20), |_, _| ());
        match peer.read(&mut buffer) {
            Ok(0) => return all,
            Ok(bytes) => all += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("after {all} bytes: {error}"),
        }
    }
    panic!("no end after {all} bytes");
}

#[test]
fn a_slow_reader_of_a_unix_socket_gets_its_whole_answer_through_the_close_timeout() {
    let (mut story, socket, mut peer) =
        unix_served(ListenOptions::default().close_timeout(REAL_LIMIT).send_buffer_size(1 << 18));
    story.socket(socket).write_owned(vec![b'x'; ANSWER]).expect("below the limit");
    story.socket(socket).end();
    assert_eq!(sip(&mut story, &mut peer), ANSWER);
}

#[test]
fn a_slow_reader_of_a_unix_socket_gets_its_whole_answer_through_the_write_timeout() {
    let options = ListenOptions::default().write_timeout(REAL_LIMIT).send_buffer_size(1 << 18);
    let (mut story, socket, mut peer) = unix_served(options);
    story.socket(socket).write_owned(vec![b'x'; ANSWER]).expect("below the limit");
    // The queue is empty before the limit of the lingering close begins to count.
    let (mut all, mut buffer, began) = (0, vec![0; SIP], Instant::now());
    while story.reactor.socket(socket).expect("it lives").queued_bytes() > 0 {
        assert!(began.elapsed() < PATIENCE, "after {all} bytes it stands still");
        story.run_for(ms(20), |_, event| assert_eq!(*event, Event::Drain));
        all += peer.read(&mut buffer).unwrap_or(0);
    }
    story.socket(socket).end();
    assert_eq!(all + sip(&mut story, &mut peer), ANSWER);
}

#[test]
fn a_slow_reader_of_a_unix_socket_gets_what_the_kernel_holds_after_the_close_timeout() {
    let (mut story, socket, mut peer) = unix_served(ListenOptions::default().close_timeout(ms(50)));
    story.socket(socket).write(&[b'x'; 100_000]).expect("open");
    story.socket(socket).end();
    story.socket(socket).discard();
    assert_eq!(sip(&mut story, &mut peer), 100_000);
}

/// On a real Unix domain socket a peer that takes nothing is reset at the limit.
#[test]
fn a_reader_of_a_unix_socket_that_stops_is_given_up_at_the_limit() {
    let (mut story, socket, _peer) = unix_served(ListenOptions::default().close_timeout(REAL_LIMIT));
    story.socket(socket).write_owned(vec![b'x'; 4 << 20]).expect("below the limit");
    story.socket(socket).end();
    let ended = Instant::now();
    assert_eq!(story.error(socket).kind, ConnectionErrorKind::TimedOut(TimeoutKind::Close));
    assert!((REAL_LIMIT..3 * REAL_LIMIT).contains(&ended.elapsed()), "after {:?}", ended.elapsed());
    let ending = story.close(socket);
    assert!(ending.bytes_unsent > 0, "{ending}");
}
