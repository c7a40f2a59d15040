//! A kernel that lacks memory for a moment (ENOBUFS, ENOMEM): the call is repeated after a pause,
//! nothing is lost, and the limits continue to count. On a faulty net, since a test can't make a
//! real kernel fail.

use std::time::Duration;

use finale::net::Readiness;
use finale::sim::{Network, PeerSocket};
use finale::{
    ConnectOptions, ConnectionErrorKind, EndingKind, Event, FirstFin, ListenOptions, LookupErrorKind, TimeoutKind,
};
use rustix::io::Errno;

use support::faulty::{Faulty, FaultyNet, faulty_on, faulty_registered, faulty_served};
use support::scene::{Scene, THERE};
use support::{ms, pattern};

const SECOND: Duration = Duration::from_secs(1);
const SHORTAGES: [Errno; 2] = [Errno::NOBUFS, Errno::NOMEM];
/// How long a lasting shortage lasts.
const WHILE: Duration = Duration::from_secs(3);
/// At most one try per millisecond.
const TRIES: usize = 3001;

/// Plays the scene with a shortage that fails one call, and with one that lasts for a while. `act`
/// is what the program and its peer do at the beginning of the shortage, and `check` examines the
/// result two seconds after its end.
fn with_shortages(
    call: &'static str,
    options: &ListenOptions,
    act: impl Fn(&mut Scene<FaultyNet>, &PeerSocket),
    check: impl Fn(&mut Scene<FaultyNet>, &PeerSocket),
) {
    for errno in SHORTAGES {
        let (mut scene, peer, faulty) = faulty_served(options.clone());
        faulty.once(call, errno);
        act(&mut scene, &peer);
        scene.run(2 * SECOND);
        assert_eq!(faulty.failures(call), 1, "{call} was tried, and failed once");
        check(&mut scene, &peer);

        let (mut scene, peer, faulty) = faulty_served(options.clone());
        faulty.always(call, errno);
        act(&mut scene, &peer);
        scene.run(WHILE);
        assert!(scene.story.is_empty(), "{call} fails with {errno:?} for a while: {:?}", scene.story);
        tries_in_moderation(&faulty, call);
        faulty.heal();
        scene.run(2 * SECOND);
        check(&mut scene, &peer);
    }
}

/// It is tried more than once, and with pauses.
fn tries_in_moderation(faulty: &Faulty, call: &str) {
    let tries = faulty.failures(call);
    assert!((2..=TRIES).contains(&tries), "{call} was tried {tries} times in {WHILE:?}");
}

#[test]
fn a_send_without_memory_is_tried_again_and_loses_nothing() {
    let answer = pattern(50_000);
    let act = |scene: &mut Scene<FaultyNet>, _: &PeerSocket| scene.with(|socket| drop(socket.write(&answer)));
    with_shortages("send", &ListenOptions::default(), act, |scene, peer| {
        assert!(peer.read() == answer, "the peer has the whole answer, in order");
        assert!(scene.story.is_empty(), "{:?}", scene.story);
    });
}

#[test]
fn a_send_of_several_pieces_without_memory_is_tried_again_and_loses_nothing() {
    let answer = pattern(50_000);
    let act = |scene: &mut Scene<FaultyNet>, _: &PeerSocket| {
        scene.with(|socket| {
            for piece in answer.chunks(10_000) {
                socket.write_owned(piece.to_vec()).expect("open");
            }
            socket.end();
        });
    };
    with_shortages("send", &ListenOptions::default(), act, |scene, peer| {
        assert!(peer.read() == answer && peer.has_fin(), "the peer has the whole answer, in order, and its end");
        assert!(scene.story.is_empty(), "{:?}", scene.story);
    });
}

/// The edge for the bytes was reported already, and there is no other.
#[test]
fn a_read_without_memory_is_tried_again_and_loses_nothing() {
    let act = |_: &mut Scene<FaultyNet>, peer: &PeerSocket| peer.send(b"only once");
    with_shortages("recv", &ListenOptions::default(), act, |scene, _| assert_eq!(scene.story, ["data only once"]));
}

#[test]
fn a_read_of_the_end_without_memory_is_tried_again() {
    let act = |_: &mut Scene<FaultyNet>, peer: &PeerSocket| peer.finish();
    with_shortages("recv", &ListenOptions::default(), act, |scene, _| assert_eq!(scene.story, ["end"]));
}

#[test]
fn a_discarding_read_without_memory_is_tried_again() {
    let act = |scene: &mut Scene<FaultyNet>, peer: &PeerSocket| {
        scene.with(|socket| {
            socket.end();
            socket.discard();
        });
        peer.send(b"for the bin");
        peer.finish();
    };
    with_shortages("recv", &ListenOptions::default(), act, |scene, _| {
        assert_eq!(scene.story, ["end", "close"]);
        assert_eq!(scene.how(), &EndingKind::Confirmed);
    });
}

#[test]
fn an_end_without_memory_is_tried_again() {
    let act = |scene: &mut Scene<FaultyNet>, _: &PeerSocket| {
        scene.with(|socket| {
            socket.write(b"answer").expect("open");
            socket.end();
        });
    };
    with_shortages("finish", &ListenOptions::default(), act, |scene, peer| {
        assert_eq!((peer.read(), peer.has_fin()), (b"answer".to_vec(), true));
        assert!(scene.story.is_empty() && !peer.is_reset(), "{:?}", scene.story);
    });
}

#[test]
fn a_last_end_without_memory_is_tried_again() {
    let act = |scene: &mut Scene<FaultyNet>, _: &PeerSocket| scene.with(|socket| drop(socket.write(b"answer")));
    let options = ListenOptions::default().allow_half_open(false);
    let finish = |scene: &mut Scene<FaultyNet>, peer: &PeerSocket| {
        act(scene, peer);
        peer.finish();
        scene.run(ms(2));
        assert_eq!(std::mem::take(&mut scene.story), ["end"]);
    };
    with_shortages("finish", &options, finish, |scene, peer| {
        assert_eq!((peer.read(), peer.has_fin()), (b"answer".to_vec(), true));
        assert_eq!(scene.story, ["close"]);
        assert_eq!(scene.how(), &EndingKind::Confirmed);
    });
}

#[test]
fn a_query_for_the_last_acknowledgement_without_memory_is_made_again() {
    let act = |scene: &mut Scene<FaultyNet>, peer: &PeerSocket| {
        peer.finish();
        scene.run(ms(2));
        assert_eq!(std::mem::take(&mut scene.story), ["end"]);
        scene.with(|socket| socket.end());
    };
    with_shortages("acknowledged", &ListenOptions::default(), act, |scene, _| {
        assert_eq!(scene.story, ["close"]);
        assert_eq!(scene.how(), &EndingKind::Confirmed);
    });
}

/// Each failed read is followed by its own pause, and nothing reports room to write.
#[test]
fn reads_without_memory_do_not_put_off_a_write_that_is_tried_again() {
    let (mut scene, peer, faulty) = faulty_served(ListenOptions::default());
    faulty.always("recv", Errno::NOBUFS);
    faulty.once("send", Errno::NOBUFS);
    scene.with(|socket| drop(socket.write(b"answer")));
    let slot = scene.socket.expect("accepted").index();
    for _ in 0..100 {
        scene.reactor.net().make_up(slot, Readiness { readable: true, ..Readiness::default() });
        scene.run(ms(10));
    }
    assert_eq!((faulty.failures("send"), peer.read()), (1, b"answer".to_vec()));
}

/// A connection that was accepted is registered when it has to wait for the first time.
#[test]
fn a_registration_without_memory_is_tried_again() {
    for errno in SHORTAGES {
        for lasts in [false, true] {
            let (mut scene, faulty) = faulty_on(Network::new(7));
            if lasts {
                faulty.always("register", errno);
            } else {
                faulty.once("register", errno);
            }
            let peer = scene.serve(ListenOptions::default());
            scene.run(WHILE - SECOND);
            assert!(scene.story.is_empty(), "{errno:?}: {:?}", scene.story);
            if lasts {
                tries_in_moderation(&faulty, "register");
            }
            faulty.heal();
            peer.send(b"hello");
            scene.run(2 * SECOND);
            assert_eq!(scene.story, ["data hello"], "{errno:?}");
        }
    }
}

#[test]
fn a_body_that_is_half_read_comes_before_the_error_of_a_connection_that_can_not_be_watched() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    faulty.always("register", Errno::NOSPC);
    let peer = scene.serve(ListenOptions::default());
    peer.send(b"half");
    scene.with(|socket| socket.fill(Vec::new(), 10).expect("it can be read"));
    scene.run(ms(500));
    assert!(scene.story.is_empty(), "{:?}", scene.story);
    faulty.always("register", Errno::PERM);
    scene.run(SECOND);
    assert_eq!(scene.story[0], "filled");
    assert!(scene.story[1].starts_with("error") && scene.story[2] == "close", "{:?}", scene.story);
    assert_eq!(scene.story.len(), 3);
}

#[test]
fn bytes_that_the_kernel_moves_without_memory_are_tried_again_and_none_is_lost() {
    let forward = |scene: &mut Scene<FaultyNet>, peer: &PeerSocket| {
        peer.send(b"hello");
        scene.with(|socket| socket.splice_next());
    };
    with_shortages("splice_in", &ListenOptions::default(), forward, |scene, peer| {
        assert_eq!(scene.story, ["spliced(5)", "data hello"], "it was not passed on");
        scene.story.clear();
        peer.send(b" again");
        scene.run(SECOND);
        assert_eq!(scene.story, ["data  again"]);
    });
}

/// A paused socket is checked without reading when an error flag arrives.
#[test]
fn a_peek_without_memory_is_no_error_of_the_connection() {
    for errno in SHORTAGES {
        let (mut scene, peer, faulty) = faulty_served(ListenOptions::default().start_paused(true));
        peer.send(b"hello");
        scene.run(SECOND);
        let slot = scene.socket.expect("accepted").index();
        scene.reactor.net().make_up(slot, Readiness { error: true, readable: true, ..Readiness::default() });
        faulty.always("peek", errno);
        scene.run(WHILE);
        assert!(scene.story.is_empty(), "{errno:?}: {:?}", scene.story);
        faulty.heal();
        scene.with(|socket| socket.resume());
        scene.run(2 * SECOND);
        assert_eq!(scene.story, ["data hello"], "{errno:?}");
    }
}

/// A dead connection that the program does not read gets no more readiness, and may have no limit.
#[test]
fn a_peek_without_memory_at_a_dead_and_paused_connection_is_made_again() {
    for errno in SHORTAGES {
        let options = ListenOptions::default().start_paused(true).half_closed_timeout(None).ending_timeout(None);
        let (mut scene, peer, faulty) = faulty_served(options);
        faulty.once("peek", errno);
        peer.reset();
        scene.run(SECOND);
        assert_eq!(faulty.failures("peek"), 1);
        assert_eq!(scene.story, ["error reset by the peer", "close"], "{errno:?}");
    }
}

/// The notice waits until it is known that bytes are unread.
#[test]
fn a_notice_of_a_reset_over_unread_bytes_comes_when_a_peek_has_found_them() {
    for errno in SHORTAGES {
        let (mut scene, peer, faulty) = faulty_served(ListenOptions::default().start_paused(true));
        peer.send(b"unread");
        scene.run(SECOND);
        faulty.always("peek", errno);
        peer.reset();
        scene.run(WHILE);
        assert!(scene.story.is_empty(), "{errno:?}: {:?}", scene.story);
        tries_in_moderation(&faulty, "peek");
        faulty.heal();
        scene.expect(&["peerended(reset)"]);
        scene.with(|socket| socket.resume());
        scene.expect(&["data unread", "error reset by the peer", "close"]);
    }
}

/// The reactor peeks to find out whose FIN is first.
#[test]
fn a_peek_before_our_fin_without_memory_is_no_error_of_the_connection() {
    for errno in SHORTAGES {
        let (mut scene, peer, faulty) = faulty_served(ListenOptions::default().start_paused(true));
        peer.send(b"unread");
        scene.run(SECOND);
        faulty.once("peek", errno);
        scene.with(|socket| {
            socket.write(b"answer").expect("open");
            socket.end();
        });
        scene.run(SECOND);
        assert_eq!((peer.read(), peer.has_fin()), (b"answer".to_vec(), true));
        assert!(scene.story.is_empty() && !peer.is_reset(), "{errno:?}: {:?}", scene.story);
    }
}

#[test]
fn a_connect_without_memory_is_tried_again() {
    for errno in SHORTAGES {
        for lasts in [false, true] {
            let (mut scene, faulty) = faulty_on(Network::new(7));
            let listener = scene.peer.listen((THERE, 80).into()).expect("a free port");
            if lasts {
                faulty.always("connect", errno);
            } else {
                faulty.once("connect", errno);
            }
            let id = scene.reactor.connect((THERE, 80), ConnectOptions::default()).expect("an address");
            scene.reactor.socket(id).expect("begun").write(b"hello").expect("it waits");
            if lasts {
                scene.run(WHILE);
                assert_eq!(scene.story, ["lookup 10.0.0.2"], "{errno:?}");
                tries_in_moderation(&faulty, "connect");
                faulty.heal();
            }
            scene.run(2 * SECOND);
            assert_eq!(scene.story, ["lookup 10.0.0.2", "connect", "ready"], "{errno:?}");
            assert_eq!(listener.accept().expect("connected").read(), b"hello");
        }
    }
}

#[test]
fn a_connect_without_memory_has_its_connect_timeout_and_no_more() {
    for errno in SHORTAGES {
        let (mut scene, faulty) = faulty_on(Network::new(7));
        faulty.always("connect", errno);
        let begun = scene.network.now();
        scene.reactor.connect((THERE, 80), ConnectOptions::default().connect_timeout(5 * SECOND)).expect("an address");
        while scene.ending.is_none() && scene.network.now() - begun < 60 * SECOND {
            scene.run(ms(10));
        }
        let after = scene.network.now() - begun;
        assert!((5 * SECOND..6 * SECOND).contains(&after), "{errno:?}: {:?} after {after:?}", scene.story);
        scene.story.clear();
        scene.rest();
    }
}

#[test]
fn a_socket_that_is_destroyed_between_two_tries_is_over_at_once() {
    for call in ["send", "finish", "recv"] {
        let (mut scene, peer, faulty) = faulty_served(ListenOptions::default());
        faulty.always(call, Errno::NOBUFS);
        peer.send(b"question");
        scene.with(|socket| {
            socket.write(b"answer").expect("open");
            socket.end();
        });
        scene.run(SECOND);
        assert!(scene.story.iter().all(|line| line.starts_with("data")), "{call}: {:?}", scene.story);
        scene.story.clear();
        scene.with(|socket| socket.destroy());
        scene.run(ms(10));
        assert_eq!(scene.story, ["close"], "{call}");
        scene.network.advance(SECOND);
        assert!(peer.is_reset());
        scene.story.clear();
        scene.rest();
    }
}

/// For the limits, a shortage that does not end is like a peer that takes nothing.
#[test]
fn the_limits_go_on_counting_while_a_call_fails() {
    let writing = ListenOptions::default().write_timeout(5 * SECOND);
    let flushing = ListenOptions::default().close_timeout(5 * SECOND);
    let deadline = ListenOptions::default().deadline(5 * SECOND);
    let half_closed = ListenOptions::default().half_closed_timeout(5 * SECOND);
    for (call, options, timer) in [
        ("send", writing, TimeoutKind::Write),
        ("finish", flushing, TimeoutKind::Close),
        ("recv", deadline, TimeoutKind::Deadline),
        ("recv", half_closed, TimeoutKind::HalfClosed),
    ] {
        let (mut scene, peer, faulty) = faulty_served(options);
        faulty.always(call, Errno::NOMEM);
        let begun = scene.network.now();
        scene.with(|socket| {
            socket.write(b"answer").expect("open");
            if matches!(timer, TimeoutKind::Close | TimeoutKind::HalfClosed) {
                socket.end();
            }
        });
        peer.send(b"question");
        while scene.ending.is_none() && scene.network.now() - begun < 60 * SECOND {
            scene.run(ms(10));
        }
        // The deadline counts from the connection, a second earlier.
        let after = scene.network.now() - begun;
        assert!((4 * SECOND..6 * SECOND).contains(&after), "{call}: {:?} after {after:?}", scene.story);
        assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(timer), "{call}");
    }
}

/// It has sent before the limit; only the pause before the next try lasts longer, or a slow handler
/// before the first.
#[test]
fn a_peer_is_not_silent_while_a_read_lacks_memory() {
    for (is_half_closed, handler) in [(false, 0), (true, 0), (false, 60), (true, 60)] {
        let options = ListenOptions::default().half_closed_timeout(ms(100));
        let (mut scene, peer, faulty) = faulty_served(options);
        scene.with(|socket| match is_half_closed {
            true => socket.end(),
            false => socket.set_idle_timeout(ms(100)),
        });
        scene.run(ms(90));
        faulty.once("recv", Errno::NOMEM);
        peer.send(b"in time");
        scene.network.spend(ms(handler));
        scene.run(ms(60));
        assert_eq!(faulty.failures("recv"), 1, "it was tried, and failed once");
        assert_eq!(scene.story, ["data in time"]);
        scene.run(SECOND);
        let silence = if is_half_closed { "error" } else { "timeout" };
        assert!(scene.story[1].starts_with(silence), "then it is: {:?}", scene.story);
    }
}

/// The acknowledgement has come before the limit; only the pause before the next query lasts longer.
#[test]
fn an_acknowledgement_that_came_in_time_confirms_the_close_though_its_query_lacks_memory() {
    let (mut scene, peer, faulty) = faulty_served(ListenOptions::default().close_timeout(ms(100)));
    peer.finish();
    scene.expect(&["end"]);
    scene.network.set_latency(ms(45));
    scene.with(|socket| socket.end());
    scene.run(ms(80));
    faulty.once("acknowledged", Errno::NOBUFS);
    scene.run(ms(100));
    assert_eq!(faulty.failures("acknowledged"), 1, "it was queried, and that failed once");
    assert_eq!(scene.how(), &EndingKind::Confirmed);
}

/// The peer has made room before the limit, which the write at the limit finds out: it is repeated.
#[test]
fn a_peer_that_makes_room_is_not_given_up_because_the_next_write_lacks_memory() {
    let network = Network::new(7);
    // Our kernel reports no room for a thousand bytes.
    network.set_buffers(50_000, 1000);
    let (mut scene, faulty) = faulty_on(network);
    faulty.hide_acks();
    let peer = scene.serve(ListenOptions::default().write_timeout(ms(100)));
    scene.with(|socket| drop(socket.write(&pattern(100_000))));
    scene.run(ms(90));
    assert_eq!(peer.read().len(), 1000);
    faulty.once("send", Errno::NOBUFS);
    scene.run(ms(60));
    assert_eq!(faulty.failures("send"), 1, "it was tried, and failed once");
    assert!(scene.story.is_empty(), "{:?}", scene.story);
}

#[test]
fn a_read_that_lacked_memory_makes_no_reset_of_the_peers_end() {
    let (mut scene, peer, faulty) = faulty_served(ListenOptions::default());
    faulty.once("recv", Errno::NOBUFS);
    peer.send(b"last words");
    peer.finish();
    scene.network.advance(ms(1));
    let (mut socket, event) = scene.reactor.next().expect("it continues").expect("bytes");
    assert_eq!(event, Event::Data(b"last words"));
    socket.destroy();
    scene.run(ms(10));
    assert_eq!(scene.ending.as_ref().map(|ending| ending.first_fin), Some(FirstFin::Peer));
}

/// Linux returns the error of an ICMP message to a program that queries SO_ERROR, though the
/// connection continues.
#[test]
fn a_connection_is_not_queried_for_an_error_because_a_call_lacked_memory() {
    let (mut scene, peer, faulty) = faulty_registered(ListenOptions::default());
    peer.finish();
    scene.expect(&["end"]);
    faulty.once("send", Errno::NOBUFS);
    faulty.always("take_error", Errno::HOSTUNREACH);
    scene.with(|socket| {
        socket.write(b"answer").expect("open");
        socket.end();
    });
    scene.run(ms(100));
    assert_eq!((faulty.failures("send"), &*peer.read()), (1, &b"answer"[..]));
    assert_eq!(scene.how(), &EndingKind::Confirmed);
}

/// A limit waits for one repetition, and not for the next.
#[test]
fn a_limit_is_not_put_off_by_a_read_that_lacks_memory_again_and_again() {
    let (mut scene, peer, faulty) = faulty_served(ListenOptions::default().half_closed_timeout(ms(100)));
    scene.with(|socket| socket.end());
    faulty.always("recv", Errno::NOMEM);
    peer.send(b"in time");
    let begun = scene.network.now();
    while scene.ending.is_none() && scene.network.now() - begun < SECOND {
        scene.run(ms(1));
    }
    let after = scene.network.now() - begun;
    assert!((ms(100)..=ms(122)).contains(&after), "{after:?}: {:?}", scene.story);
    assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::HalfClosed));
}

/// After the peer's end there is nothing to read, so a write that fails ends the connection at
/// once, and the queued bytes are not tried again.
#[test]
fn a_write_that_fails_after_the_peers_end_ends_it() {
    let (mut scene, peer, faulty) = faulty_served(ListenOptions::default());
    peer.finish();
    scene.expect(&["end"]);
    faulty.always("send", Errno::PIPE);
    scene.with(|socket| {
        drop(socket.write_owned(pattern(50_000)));
        socket.end();
    });
    scene.run(SECOND);
    assert_eq!(scene.cause(), ConnectionErrorKind::Reset);
    assert_eq!(faulty.failures("send"), 1);
    assert_eq!(scene.ending.as_ref().map(|ending| ending.bytes_unsent), Some(50_000));
}

/// There is no thread for it (pthread_create(3), EAGAIN).
#[test]
fn a_lookup_that_can_not_begin_is_tried_again_until_the_connect_timeout() {
    for lasts in [false, true] {
        let (mut scene, faulty) = faulty_on(Network::new(7));
        scene.network.name("backend", vec![THERE]);
        let _listener = scene.peer.listen((THERE, 80).into()).expect("free");
        match lasts {
            true => faulty.always("lookup", Errno::AGAIN),
            false => faulty.once("lookup", Errno::AGAIN),
        }
        scene.reactor.connect("backend:80", ConnectOptions::default().connect_timeout(WHILE)).expect("a good target");
        scene.run(2 * WHILE);
        if lasts {
            tries_in_moderation(&faulty, "lookup");
            assert_eq!(scene.cause(), ConnectionErrorKind::TimedOut(TimeoutKind::Connect));
        } else {
            assert_eq!(scene.story, ["lookup 10.0.0.2", "connect", "ready"]);
        }
    }
}

#[test]
fn a_lookup_for_which_no_thread_may_be_started_fails_at_once() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    faulty.always("lookup", Errno::PERM);
    scene.reactor.connect("backend:80", ConnectOptions::default().connect_timeout(None)).expect("a good target");
    scene.run(ms(10));
    assert_eq!(scene.cause(), ConnectionErrorKind::Lookup(LookupErrorKind::Failed));
}
