//! Closing: the rows CL01 and following of docs/faults.md.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use finale::sim::Faults;
use finale::{CloseMode, ConnectionErrorKind, EndingKind, FirstFin, ListenOptions, TimeoutKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use support::alone::{alone_in_a_network, shell};
use support::scene::{Scene, THERE};
use support::{PATIENCE, Transcript, Way, What, dial_narrow, held_back, ms, reset};

const SECOND: Duration = Duration::from_secs(1);

/// CL02: both sides have finished and epoll reports HUP, while our kernel still has megabytes for a
/// peer that does not read.
#[test]
fn a_hang_up_with_megabytes_unsent_is_no_close() {
    let options =
        ListenOptions::default().send_buffer_size(4 << 20).receive_buffer_size(1000).close_timeout(3 * SECOND);
    let (mut scene, peer) = Scene::served(options);
    scene.with(|socket| {
        socket.write(&vec![1; 3 << 20]).expect("below the limit");
        socket.end();
    });
    peer.finish();
    scene.run(2 * SECOND);
    assert_eq!(std::mem::take(&mut scene.story), ["end"]);
    scene.with(|socket| assert_eq!((socket.queued_bytes(), socket.bytes_written()), (0, 3 << 20)));
    scene.run(2 * SECOND);
    assert_eq!(scene.story, ["error timed out: the end was not completed in time", "close"]);
    let ending = scene.ending.as_ref().expect("delivered");
    assert!(!ending.is_acknowledged());
    assert_eq!((ending.bytes_written, ending.bytes_unsent), (3 << 20, 0));
    scene.network.advance(SECOND);
    assert!(peer.is_reset(), "what it has not got can't pass for the whole");
}

/// CL02: the same on a real kernel, with as much as its buffers hold.
#[test]
fn a_hang_up_with_bytes_unsent_is_no_close() {
    let mut story = Transcript::new();
    let addr = story.listen(ListenOptions::default().send_buffer_size(400 * 1024).close_timeout(ms(300)));
    let mut peer = dial_narrow(addr);
    let socket = story.connection();
    story.socket(socket).write(&[1; 120 * 1024]).expect("below the limit");
    story.socket(socket).end();
    story.turn();
    assert_eq!(story.socket(socket).queued_bytes(), 0, "our kernel has it all");
    peer.shutdown(Shutdown::Write).expect("connected");
    story.expect(socket, What::End);
    assert_eq!(story.error(socket).kind, ConnectionErrorKind::TimedOut(TimeoutKind::Close));
    let ending = story.close(socket);
    assert!(!ending.is_acknowledged());
    assert_eq!((ending.bytes_written, ending.bytes_unsent), (120 * 1024, 0));
    // Not before it has arrived: another test that starts a process holds our socket open for a
    // moment, and reading would let the rest through.
    let mut news = [PollFd::new(&peer, PollFlags::empty())];
    let patience = Timespec::try_from(PATIENCE).expect("it fits");
    assert_eq!(poll(&mut news, Some(&patience)), Ok(1), "the reset comes");
    let mut got = Vec::new();
    let read = peer.read_to_end(&mut got);
    assert_eq!(read.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    assert!(got.len() < 120 * 1024);
    story.rest();
}

/// CL03: we have finished, and the peer's answer and FIN come in one readiness, with a HUP: the
/// answer is read first.
#[test]
fn an_answer_with_the_fin_behind_it_is_told_before_the_close() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.with(|socket| socket.end());
    scene.expect(&[]);
    peer.send(b"answer");
    peer.finish();
    scene.network.advance(SECOND); // Both have arrived before the reactor looks.
    scene.expect(&["data answer", "end", "close"]);
    assert_eq!(scene.how(), &EndingKind::Confirmed);

    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default());
    story.socket(socket).end();
    story.turn();
    peer.write_all(b"answer").expect("connected");
    drop(peer);
    assert_eq!(story.until_end(socket), b"answer");
    let ending = story.close(socket);
    assert_eq!((ending.kind, ending.first_fin), (EndingKind::Confirmed, FirstFin::Local));
    story.rest();
}

/// CL04: our kernel gives up on the acknowledgement of our FIN; its state closed alone proves
/// nothing.
#[test]
fn a_fin_that_the_kernel_gives_up_is_a_failure() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().user_timeout(SECOND));
    scene.answer_into_the_void(&peer);
    scene.run(2 * SECOND);
    assert_eq!(scene.story, ["error timed out: the peer's kernel no longer answers", "close"]);
    assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::Kernel));
    assert!(!scene.ending.expect("delivered").is_acknowledged());
}

/// CL05: a reset instead of the last acknowledgement.
#[test]
fn a_reset_in_place_of_the_last_acknowledgement_is_an_error() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    scene.answer_into_the_void(&peer);
    scene.expect(&[]);
    peer.reset();
    scene.network.heal(THERE);
    scene.run(5 * SECOND);
    assert_eq!(scene.story, ["error reset by the peer", "close"]);
    assert!(!scene.ending.expect("delivered").is_acknowledged());
}

/// CL06: an answer that was sent before the request was read survives, since nothing is closed
/// while bytes are unread.
#[test]
fn an_early_answer_reaches_a_peer_that_is_still_sending() {
    for close in [CloseMode::Confirmed, CloseMode::HandOff] {
        for discard in [false, true] {
            let (mut scene, peer) = Scene::served(ListenOptions::default().close_mode(close));
            peer.send(&[b'q'; 100_000]);
            scene.network.advance(SECOND);
            scene.with(|socket| {
                socket.write(&[b'a'; 100_000]).expect("open");
                socket.end();
                if discard {
                    socket.discard();
                }
            });
            scene.run(SECOND);
            peer.send(&[b'q'; 100_000]); // It continues although our FIN has arrived.
            scene.run(SECOND);
            assert_eq!((peer.read().len(), peer.has_fin(), peer.is_reset()), (100_000, true, false));
            peer.finish();
            scene.run(SECOND);
            let ending = scene.ending.as_ref().expect("delivered");
            assert!(ending.is_clean() && ending.bytes_read == 200_000, "{ending}");
            assert!(!peer.is_reset());
        }
    }
}

/// CL07: a FIN, followed by the reset for bytes that the peer left unread: readers see a clean end,
/// and finale still queries the error.
#[test]
fn a_fin_with_a_reset_behind_it_is_end_and_error() {
    for looked_between in [false, true] {
        let (mut scene, peer) = Scene::served(ListenOptions::default());
        scene.with(|socket| drop(socket.write(b"never read")));
        scene.expect(&[]);
        peer.send(b"bye");
        peer.finish();
        if looked_between {
            scene.expect(&["data bye", "end"]);
        }
        peer.close();
        scene.network.advance(SECOND);
        let rest = ["data bye", "end", "error reset by the peer", "close"];
        scene.expect(if looked_between { &rest[2..] } else { &rest });
        assert!(!scene.ending.expect("delivered").is_acknowledged());
    }
}

/// CL08: the peer's kernel has taken our bytes, and its program ends without reading them: clean
/// and acknowledged. TCP can't report more, and the documentation of `EndingKind::Confirmed` says
/// so.
#[test]
fn bytes_that_were_acknowledged_and_never_read_are_a_clean_ending() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.finish();
    scene.expect(&["end"]);
    scene.with(|socket| {
        socket.write(b"answer").expect("open");
        socket.end();
    });
    scene.expect(&["close"]);
    assert_eq!((scene.how(), peer.unread_bytes()), (&EndingKind::Confirmed, 6));
    peer.close();
    scene.expect(&[]);

    let (mut story, socket, peer) = Transcript::pair(ListenOptions::default());
    peer.shutdown(Shutdown::Write).expect("connected");
    story.expect(socket, What::End);
    story.socket(socket).write(b"answer").expect("open");
    story.socket(socket).end();
    story.turn();
    drop(peer);
    assert!(story.close(socket).is_acknowledged());
    story.rest();
    let source = fs::read_to_string(root().join("src/event.rs")).expect("UTF-8");
    assert!(source.contains("Whether the peer's *program* has read them is unknown to TCP"));
}

/// CL09: a child process that was started while the connection was open holds no copy of it: our
/// close is the last one, and the FIN of a hand-off close is sent at once.
#[test]
fn no_child_process_holds_a_connection_open() {
    let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default().close_mode(CloseMode::HandOff));
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat");
    peer.shutdown(Shutdown::Write).expect("connected");
    story.expect(socket, What::End);
    story.socket(socket).end();
    assert_eq!(story.close(socket).kind, EndingKind::HandedOff);
    assert_eq!(peer.read(&mut [0; 10]).expect("our FIN, in good time"), 0);
    assert_eq!(child.try_wait().expect("ours"), None, "the child has lived through it");
    drop(child.stdin.take());
    child.wait().expect("ours");
    story.rest();
}

/// CL10: no close blocks in the call, whatever the kernel still has to deliver: SO_LINGER is used
/// only with a time of zero.
#[test]
fn no_close_blocks_the_loop_over_a_full_kernel_queue() {
    for close in [CloseMode::HandOff, CloseMode::Confirmed] {
        let mut story = Transcript::new();
        let addr = story.listen(ListenOptions::default().send_buffer_size(400 * 1024).close_mode(close));
        let peer = dial_narrow(addr);
        let socket = story.connection();
        peer.shutdown(Shutdown::Write).expect("connected");
        story.expect(socket, What::End);
        story.socket(socket).write(&[1; 120 * 1024]).expect("below the limit");
        if close == CloseMode::HandOff {
            story.socket(socket).end();
        } else {
            story.turn();
            story.socket(socket).destroy();
        }
        let began = Instant::now();
        story.close(socket);
        assert!(began.elapsed() < ms(900), "{:?} in close(2)", began.elapsed());
        drop(peer);
        story.rest();
    }
    let source = fs::read_to_string(root().join("src/net/os.rs")).expect("UTF-8");
    let times: Vec<&str> = source.split("set_linger(").skip(1).collect();
    assert!(
        !times.is_empty()
            && times.iter().all(|time| time.starts_with("None)") || time.starts_with("Some(Duration::ZERO)"))
    );
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// CL11: a hand-off close is delivered when both sides have finished, never before: no orphan waits
/// for the peer's FIN, so it can't be forgotten and reset, however late that FIN is.
#[test]
fn a_late_fin_finds_the_connection_of_a_hand_off_close_still_there() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().close_mode(CloseMode::HandOff));
    scene.with(|socket| socket.end());
    scene.expect(&[]);
    scene.run(100 * SECOND); // An orphan is forgotten after a minute.
    peer.send(b"late");
    peer.finish();
    scene.expect(&["data late", "end", "close"]);
    assert!(!peer.is_reset() && scene.how() == &EndingKind::HandedOff);
}

/// CL11: the same where the kernel forgets orphans after one second.
#[test]
fn a_late_fin_is_not_answered_with_a_reset() {
    alone_in_a_network("closing::a_late_fin_is_not_answered_with_a_reset", || {
        shell("sysctl -qw net.ipv4.tcp_fin_timeout=1");
        let (mut story, socket, mut peer) = Transcript::pair(ListenOptions::default().close_mode(CloseMode::HandOff));
        story.socket(socket).end();
        story.silence(ms(2500));
        peer.write_all(b"late").expect("connected");
        peer.shutdown(Shutdown::Write).expect("connected");
        assert_eq!(story.until_end(socket), b"late");
        assert_eq!(story.close(socket).kind, EndingKind::HandedOff);
        assert_eq!(peer.read(&mut [0; 10]).expect("no reset"), 0);
        story.rest();
    });
}

/// CL12: `destroy()` discards what is in flight; the report contains how much was never sent, and
/// claims nothing about the rest. Once both FINs are acknowledged there is nothing to discard.
#[test]
fn destroy_discards_and_claims_nothing() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().send_buffer_size(100_000));
    scene.with(|socket| drop(socket.write(&vec![1; 1 << 20])));
    scene.expect(&[]);
    scene.with(|socket| socket.destroy());
    scene.expect(&["close"]);
    let ending = scene.ending.as_ref().expect("delivered");
    assert_eq!((&ending.kind, ending.is_acknowledged()), (&EndingKind::Destroyed, false));
    assert!(ending.bytes_written >= 100_000 && ending.bytes_unsent > 0);
    assert_eq!(ending.bytes_written + ending.bytes_unsent, 1 << 20);
    scene.network.advance(SECOND);
    assert!(peer.is_reset() && (peer.read().len() as u64) < 1 << 20);

    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.finish();
    scene.expect(&["end"]);
    scene.with(|socket| socket.end());
    scene.network.record();
    scene.expect(&["close"]);
    let id = scene.socket.expect("delivered");
    scene.reactor.socket(id).into_iter().for_each(|mut socket| socket.destroy());
    scene.network.advance(SECOND);
    assert!(!scene.network.take_transcript().iter().any(|line| line.contains("RST")) && !peer.is_reset());
}

/// CL13: the peer's reset has arrived before our shutdown(2), which fails with ENOTCONN: delivered
/// as the reset that it is, once; also when its readiness is late and our call is what finds it.
#[test]
fn a_shutdown_that_fails_is_told_as_the_reset_that_it_is() {
    for late_edge in [0.0, 1.0] {
        for write in [&b""[..], b"last words"] {
            let (mut scene, peer) = Scene::served(ListenOptions::default());
            scene.expect(&[]);
            scene.network.set_faults(Faults { late_edge, ..Faults::none() });
            peer.reset();
            scene.network.advance(ms(1));
            scene.with(|socket| {
                drop(socket.write(write));
                socket.end();
            });
            scene.expect(&["error reset by the peer", "close"]);
            assert_eq!(scene.cause(), ConnectionErrorKind::Reset);
        }
    }
    for write in [&b""[..], b"last words"] {
        let (mut story, socket, peer) = Transcript::pair(ListenOptions::default());
        reset(peer);
        story.socket(socket).write(write).expect("the reset is not known yet");
        story.socket(socket).end();
        assert_eq!(story.error(socket).kind, ConnectionErrorKind::Reset);
        assert!(story.close(socket).had_error());
        story.rest();
    }
}

/// CL14: after `end()` the close timeout applies, and a longer idle time does not postpone it.
#[test]
fn the_linger_time_rules_from_our_end_on_and_not_the_idle_time() {
    let options = || ListenOptions::default().idle_timeout(120 * SECOND);
    let (mut scene, peer) = Scene::served(options().close_timeout(3 * SECOND));
    peer.finish();
    scene.expect(&["end"]);
    scene.network.vanish(THERE);
    scene.with(|socket| socket.end());
    scene.run(2999 * ms(1));
    assert!(scene.story.is_empty(), "not early: {:?}", scene.story);
    scene.expect(&["error timed out: the end was not completed in time", "close"]);
}

/// CL14: the same with packets dropped, on their way to the peer or on their way back.
#[test]
fn the_linger_time_ends_a_close_that_nobody_acknowledges() {
    alone_in_a_network("closing::the_linger_time_ends_a_close_that_nobody_acknowledges", || {
        for way in [Way::ToPeer, Way::FromPeer] {
            let options = ListenOptions::default().idle_timeout(120 * SECOND).close_timeout(ms(200));
            let began = Instant::now();
            let (mut story, socket, _peer) = held_back(options, way);
            assert_eq!(story.error(socket).kind, ConnectionErrorKind::TimedOut(TimeoutKind::Close));
            assert!(began.elapsed() >= ms(200), "after {:?}", began.elapsed());
            assert!(!story.close(socket).is_acknowledged());
            story.rest();
            shell("nft delete table ip held");
        }
    });
}
