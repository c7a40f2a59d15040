//! Writing: the rows WR01 and following of docs/faults.md.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::time::{Duration, Instant};

use finale::sim::{Faults, Network};
use finale::{Backpressure, ConnectOptions, ConnectionErrorKind, Event, ListenOptions, Reactor};
use rustix::io::Errno;

use support::alone::alone_under;
use support::faulty::{faulty_registered, flags};
use support::scene::{HERE, Scene};
use support::{PATIENCE, Transcript, What, cpu_time, dial, dial_narrow, ms, pattern, reset};

const SECOND: Duration = Duration::from_secs(1);

/// WR01: whatever a send takes, one byte included, the peer gets the exact bytes and the count is
/// exact.
#[test]
fn short_writes_of_any_length_arrive_to_the_byte() {
    for bite in [Some(1), Some(7), None] {
        let (mut scene, peer, faulty) = faulty_registered(ListenOptions::default());
        faulty.orders().bite = bite;
        if bite.is_none() {
            scene.network.set_faults(Faults { short_write: 0.9, ..Faults::none() });
        }
        let answer = pattern(10_000);
        scene.with(|socket| {
            answer.chunks(777).for_each(|part| drop(socket.write(part)));
            socket.end();
        });
        scene.run(SECOND);
        assert!(peer.read() == answer && peer.has_fin());
        assert_eq!(faulty.orders().sent.iter().map(|(bytes, _)| bytes).sum::<usize>(), 10_000);
        peer.close();
        scene.expect(&["end", "close"]);
        let ending = scene.ending.take().expect("delivered");
        assert_eq!((ending.bytes_written, ending.bytes_unsent), (10_000, 0));
        scene.rest();
    }
}

/// WR02: no room, and then room: writing continues by itself; `drain` is delivered once, when the
/// kernel has everything.
#[test]
fn drain_comes_once_when_everything_is_with_the_kernel() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().send_buffer_size(1000));
    scene.with(|socket| assert_eq!(socket.write(&vec![1; 300_000]), Ok(Backpressure::Full)));
    scene.expect(&[]);
    let mut got = 0;
    while scene.story.is_empty() {
        got += peer.read().len();
        scene.run(ms(2));
        scene.with(|socket| assert_eq!(socket.queued_bytes() == 0, socket.bytes_written() == 300_000));
        assert!(scene.network.elapsed() < 60 * SECOND, "{got} bytes");
    }
    scene.run(SECOND);
    assert_eq!((scene.story.as_slice(), got + peer.read().len()), (&["drain".to_owned()][..], 300_000));
}

/// WR02: the same on real sockets, with a peer that reads late.
#[test]
fn a_real_drain_comes_once_when_everything_is_with_the_kernel() {
    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default().send_buffer_size(32 * 1024));
    let mut peer = dial_narrow(addr);
    let socket = story.connection();
    assert_eq!(story.socket(socket).write(&pattern(1 << 20)), Ok(Backpressure::Full));
    story.silence(ms(100));
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        peer.read_to_end(&mut bytes).map(|_| bytes)
    });
    story.expect(socket, What::Drain);
    assert_eq!(story.socket(socket).bytes_written(), 1 << 20);
    story.silence(ms(50));
    story.socket(socket).end();
    story.expect(socket, What::End);
    assert!(reading.join().expect("no panic").expect("clean") == pattern(1 << 20));
    story.close(socket);
    story.rest();
}

/// Two ends of one reactor that echo this many bytes to each other with back-pressure, with a mark
/// far below the buffers. `next` passes on the next event. Returns how many events there were, and
/// how many bytes were delivered.
fn echo(round: usize, mut next: impl FnMut(&mut dyn FnMut(&mut finale::Socket<'_>, Event<'_>))) -> (u32, u64) {
    let (mut events, mut closed, mut bytes) = (0, 0, 0);
    while closed < 2 {
        next(&mut |socket, event| {
            events += 1;
            match event {
                Event::Ready => assert_eq!(socket.write(&vec![7; round]), Ok(Backpressure::Full)),
                Event::Data(more) => {
                    bytes += more.len() as u64;
                    if socket.bytes_read() > 200_000 {
                        socket.end();
                        socket.resume(); // No drain follows our end.
                    } else if socket.write(more) == Ok(Backpressure::Full) {
                        socket.pause();
                    }
                }
                Event::Drain => socket.resume(),
                Event::End => socket.end(),
                Event::Error(failure) => panic!("{failure}"),
                Event::Close(_) => closed += 1,
                _ => {}
            }
        });
    }
    (events, bytes)
}

/// WR03: room is reported only when a third of the buffer is free: nothing polls for it meanwhile,
/// and two echoing ends with marks far below that do not lock each other up.
#[test]
fn two_echoing_ends_with_low_marks_do_not_lock_each_other_up() {
    let network = Network::new(7);
    network.set_buffers(3000, 1000);
    let mut reactor = Reactor::with_net(network.host(HERE));
    let listener = reactor.listen((HERE, 80), ListenOptions::default().high_water_mark(10)).expect("a free port");
    reactor.connect(listener.addr, ConnectOptions::default().high_water_mark(10)).expect("a good target");
    let (events, bytes) = echo(3500, |handle| {
        let until = network.now() + 60 * SECOND;
        let (mut socket, event) = reactor.next_before(until).expect("it continues").expect("it is locked up");
        handle(&mut socket, event);
    });
    assert!(bytes > 200_000);
    let calls = network.calls();
    assert!(calls < u64::from(events) * 6 + 100, "{calls} calls for {events} events");
}

/// WR03: the same on real sockets.
#[test]
fn two_real_echoing_ends_with_low_marks_do_not_lock_each_other_up() {
    let mut story = Transcript::new();
    let addr =
        story.listen(ListenOptions::default().high_water_mark(10).send_buffer_size(4096).receive_buffer_size(2048));
    let options = ConnectOptions::default().high_water_mark(10).send_buffer_size(4096).receive_buffer_size(2048);
    story.reactor.connect(addr, options).expect("an address");
    let (_, bytes) = echo(4000, |handle| {
        story.until(|socket, event| {
            handle(socket, *event);
            true
        });
    });
    assert!(bytes > 200_000);
    story.rest();
}

/// WR04: writable with nothing to write: nothing is written, and the loop sleeps.
#[test]
fn writable_with_nothing_to_write_is_no_work() {
    let (mut scene, _peer, faulty) = faulty_registered(ListenOptions::default());
    for _ in 0..100 {
        faulty.news(0, flags("out"));
        scene.run(ms(1));
    }
    assert!(scene.story.is_empty() && faulty.take_log().iter().all(|call| *call == "poll"));
    scene.run(3600 * SECOND);
    assert!(faulty.take_log().len() <= 2, "asleep");
}

/// WR04: on real sockets, which are writable all the time.
#[test]
fn an_idle_socket_sleeps() {
    let (mut story, socket, _peer) = Transcript::pair(ListenOptions::default());
    story.turn();
    let before = cpu_time();
    story.silence(ms(300));
    assert!(cpu_time() - before < ms(100), "{:?} of processor time", cpu_time() - before);
    story.socket(socket).destroy();
    story.close(socket);
    story.rest();
}

/// WR05: the first write to a peer that has closed is taken, and answered with a reset: written,
/// and not acknowledged.
#[test]
fn the_first_write_into_a_closed_peer_counts_as_written_and_not_as_acknowledged() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.close();
    scene.expect(&["end"]);
    scene.with(|socket| drop(socket.write(b"one")));
    scene.expect(&["error reset by the peer", "close"]);
    let ending = scene.ending.take().expect("delivered");
    assert!(ending.had_error() && !ending.is_acknowledged(), "{ending}");
    assert_eq!((ending.bytes_written, ending.bytes_unsent), (3, 0));
    scene.rest();
}

/// WR05: the same on a real kernel.
#[test]
fn the_first_real_write_into_a_closed_peer_counts_as_written_and_not_as_acknowledged() {
    let (mut story, socket, peer) = Transcript::pair(ListenOptions::default());
    drop(peer);
    story.expect(socket, What::End);
    story.socket(socket).write(b"one").expect("open");
    assert_eq!(story.error(socket).kind, ConnectionErrorKind::Reset);
    let ending = story.close(socket);
    assert!(ending.had_error() && !ending.is_acknowledged(), "{ending}");
    assert_eq!((ending.bytes_written, ending.bytes_unsent), (3, 0));
    story.rest();
}

/// WR07: no write of ours raises SIGPIPE. The signal is blocked here, so that a raised one stays
/// pending, although Rust programs ignore it; a plain write(2) shows that it would be raised.
#[test]
fn a_write_into_a_reset_raises_no_signal() {
    alone_under(&["env", "--block-signal=PIPE"], "writing::a_write_into_a_reset_raises_no_signal", || {
        let is_raised = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").expect("Linux has it");
            let pending = status.lines().find_map(|line| line.strip_prefix("SigPnd:")).expect("a mask");
            u64::from_str_radix(pending.trim(), 16).expect("hexadecimal") >> 12 & 1 == 1
        };
        let (mut story, socket, peer) = Transcript::pair(ListenOptions::default());
        story.turn();
        peer.shutdown(Shutdown::Write).expect("connected");
        story.expect(socket, What::End);
        reset(peer);
        story.socket(socket).write(b"into the void").expect("the reset is not known yet");
        assert_eq!(story.error(socket).kind, ConnectionErrorKind::Reset);
        story.close(socket);
        assert!(!is_raised(), "our write has raised it");
        story.rest();

        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let one = dial(listener.local_addr().expect("bound"));
        drop(listener.accept().expect("connected"));
        while rustix::io::write(&one, b"x") != Err(Errno::PIPE) {}
        assert!(is_raised(), "this test sees nothing");
    });
}

/// WR08: EPIPE is a reset that a send has met, delivered once and not retried. The net also returns
/// it where macOS has EPROTOTYPE.
#[test]
fn a_send_that_races_with_a_reset_is_not_tried_again() {
    for again in [false, true] {
        let (mut scene, _peer, faulty) = faulty_registered(ListenOptions::default());
        match again {
            true => faulty.always("send", Errno::PIPE),
            false => faulty.once("send", Errno::PIPE),
        }
        scene.with(|socket| drop(socket.write(b"into the race")));
        scene.expect(&["error reset by the peer", "close"]);
        assert_eq!(faulty.count("send"), 1);
        scene.rest();
    }
}

/// WR09: what is written without an end is sent at once; more is announced only in the step in
/// which the FIN follows.
#[test]
fn only_what_the_fin_follows_is_held_back() {
    let (mut scene, peer, faulty) = faulty_registered(ListenOptions::default());
    scene.with(|socket| drop(socket.write(b"alone")));
    scene.run(ms(2));
    assert_eq!(peer.read(), b"alone");
    faulty.take_log();
    scene.with(|socket| {
        drop(socket.write(b"with the end"));
        socket.end();
    });
    scene.run(ms(2));
    assert_eq!((peer.read(), peer.has_fin()), (b"with the end".to_vec(), true));
    assert_eq!(faulty.orders().sent, [(5, false), (12, true)]);
    let log = faulty.take_log();
    let send = log.iter().position(|call| *call == "send").expect("sent");
    assert!(log[send..].iter().take_while(|call| **call != "poll").any(|call| *call == "finish"), "{log:?}");
}

/// WR09: on a real kernel, which holds such a tail back for 200 ms: the fastest of twenty single
/// writes is not held back.
#[test]
fn a_lone_write_leaves_at_once() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    let mut fastest = PATIENCE;
    for _ in 0..20 {
        story.socket(socket).write(b"alone").expect("open");
        let began = Instant::now();
        story.turn();
        peer.read_exact(&mut [0; 5]).expect("it arrives");
        fastest = fastest.min(began.elapsed());
        peer.write_all(b".").expect("connected");
        story.data(socket, 1);
    }
    assert!(fastest < ms(150), "{fastest:?}");
    story.socket(socket).destroy();
    story.close(socket);
    story.rest();
}
