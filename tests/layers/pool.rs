//! A pool of connections, on the simulated network: what it leases, what it discards, and how it
//! handles a server that is down.

use std::time::Duration;

use finale::sim::PeerSocket;
use finale::{ConnectOptions, Error, Event, Pool, PoolEvent, PoolOptions, PoolReply, RetrySafety, Socket, SocketId};

use super::pool_scene::{SECOND, SERVER, Scene, THERE, ms};

#[test]
fn sockets_are_connected_ahead_and_lent_in_the_order_of_asking() {
    let mut scene = Scene::new(PoolOptions::default().size(2));
    scene.run(ms(10));
    assert_eq!((scene.accepted().len(), scene.stats().ready), (2, 2));
    let tickets: Vec<_> = (0..3).map(|_| scene.ask()).collect();
    scene.run(ms(10));
    let granted: Vec<_> = scene.grants.iter().map(|(ticket, _)| *ticket).collect();
    assert_eq!(granted, tickets[..2], "the third waits");
    let Some((_, PoolReply::Leased(first))) = scene.grants.first().copied() else { panic!("a socket") };
    scene.give_back(first);
    scene.run(ms(10));
    assert_eq!(scene.grants.last(), Some(&(tickets[2], PoolReply::Leased(first))));
    assert_eq!((scene.stats().leased, scene.stats().started, scene.stats().waiting), (2, 2, 0));
    assert_eq!((scene.stats().requested, scene.stats().granted), (3, 3));
}

#[test]
fn what_a_lent_socket_tells_is_for_who_has_it() {
    let mut scene = Scene::new(PoolOptions::default().size(1));
    scene.run(ms(10));
    let server = scene.accepted();
    let id = scene.lend();
    scene.write(id, b"question");
    scene.run(ms(10));
    assert_eq!(server[0].read(), b"question");
    server[0].send(b"answer");
    scene.run(ms(10));
    assert_eq!(scene.told, ["Data([97, 110, 115, 119, 101, 114])"]);
    scene.give_back(id);
    assert_eq!(scene.lend(), id, "the same one again");
}

#[test]
fn a_ready_socket_that_ends_resets_or_speaks_unasked_is_replaced_at_once() {
    let spoil: [fn(PeerSocket); 3] = [|peer| peer.finish(), PeerSocket::reset, |peer| peer.send(b"421 go away")];
    for spoil in spoil {
        let mut scene = Scene::new(PoolOptions::default().size(1));
        scene.run(ms(10));
        spoil(scene.accepted().remove(0));
        scene.run(ms(3));
        assert_eq!((scene.stats().lost_unused, scene.stats().ready), (1, 0));
        scene.lend();
        assert_eq!((scene.accepted().len(), scene.stats().leased), (1, 1), "a new one");
        assert_eq!((scene.stats().lost_unused, scene.stats().started, scene.stats().failed), (1, 2, 0));
    }
}

#[test]
fn an_end_that_is_known_and_not_told_yet_is_nobodys_socket() {
    let mut scene = Scene::new(PoolOptions::default().size(1));
    scene.run(ms(10));
    let server = scene.accepted();
    server[0].finish();
    let ticket = scene.ask();
    scene.network.advance(ms(5));
    // The FIN has arrived, and the reactor has not looked: the pool does, when it leases.
    let old = scene.reactor.sockets().iter().next().expect("one is ready").id;
    scene.run(ms(20));
    let Some((granted, PoolReply::Leased(id))) = scene.grants.first().copied() else { panic!("a socket") };
    assert_eq!(granted, ticket);
    assert!(id != old && scene.told.is_empty(), "another one is leased, and it has not ended");
    assert_eq!((scene.stats().leased, scene.stats().started, scene.stats().lost_unused), (1, 2, 1));
}

/// Both end at one moment. When the first end is delivered, the end of the second is known, and it
/// must not be leased.
#[test]
fn a_ready_socket_whose_end_is_known_is_skipped_and_leaves_nothing() {
    let mut scene = Scene::new(PoolOptions::default().size(2));
    scene.run(ms(10));
    let server = scene.accepted();
    server.iter().for_each(PeerSocket::finish);
    let until = scene.network.now() + ms(50);
    let mut ended = 0;
    while ended == 0 {
        let (mut socket, event) = scene.reactor.next_before(until).expect("it continues").expect("an end");
        ended += u32::from(event == Event::End);
        assert_eq!(scene.pool.handle(&mut socket, &event), PoolEvent::Internal);
    }
    scene.ask();
    scene.run(ms(50));
    let Some((_, PoolReply::Leased(id))) = scene.grants.first().copied() else { panic!("a new socket") };
    assert!(scene.told.is_empty() && scene.reactor.socket(id).is_some_and(|socket| !socket.peer_ended()));
    server.into_iter().for_each(PeerSocket::close);
    scene.run(ms(50));
    assert_eq!((scene.reactor.len(), scene.stats().lost_unused), (2, 2), "{}", scene.reactor.sockets());
}

#[test]
fn a_server_that_is_down_is_tried_less_and_less_often_and_by_one_at_a_time() {
    let mut scene = Scene::new(PoolOptions::default().size(4).back_off(ms(100), SECOND));
    scene.go_down();
    scene.run(ms(5));
    assert_eq!((scene.stats().started, scene.stats().failed), (4, 4), "the first four");
    scene.run(ms(400));
    let early = scene.stats().started;
    assert!((5..=8).contains(&early), "{early}");
    scene.run(60 * SECOND);
    let late = scene.stats().started - early;
    assert!((60..=121).contains(&late), "every half to one second: {late}");
    let (polls, before) = (scene.network.calls(), scene.stats().started);
    scene.run(10 * SECOND);
    let tries = scene.stats().started - before;
    assert!(scene.network.calls() - polls < 20 * tries, "it sleeps between the tries");
    scene.listener = Some(scene.peer.listen(SERVER).expect("a free port"));
    scene.run(2 * SECOND);
    assert_eq!((scene.stats().ready, scene.accepted().len()), (4, 4), "all are there again");
}

#[test]
fn two_pools_do_not_come_back_at_one_moment() {
    let tries = |seed: u64| {
        let mut scene = Scene::new(PoolOptions::default().size(1));
        scene.pool =
            Pool::new(SERVER, ConnectOptions::default(), PoolOptions::default().size(1).seed(seed)).expect("good");
        scene.go_down();
        let mut times = Vec::new();
        for _ in 0..5_000 {
            let before = scene.stats().started;
            scene.run(ms(1));
            if scene.stats().started > before {
                times.push(scene.network.elapsed());
            }
        }
        times
    };
    assert_ne!(tries(1)[1..], tries(2)[1..]);
    assert_eq!(tries(1), tries(1), "one seed, one way");
}

#[test]
fn a_server_that_takes_connections_and_drops_them_is_down_as_well() {
    let mut scene = Scene::new(PoolOptions::default().size(2).back_off(ms(100), SECOND));
    for _ in 0..10_000 {
        scene.run(ms(1));
        scene.accepted().into_iter().for_each(PeerSocket::reset);
    }
    let begun = scene.stats().started;
    assert!((10..60).contains(&begun), "{begun} in ten seconds");
}

/// The same when each is leased as soon as it is ready: being leased proves nothing.
#[test]
fn a_server_that_drops_connections_in_use_without_a_word_is_down_as_well() {
    for is_read in [false, true] {
        let mut scene = Scene::new(PoolOptions::default().size(2).back_off(ms(100), SECOND));
        scene.ask();
        let mut served = Vec::new();
        for _ in 0..10_000 {
            scene.run(ms(1));
            for (_, grant) in std::mem::take(&mut scene.grants) {
                let PoolReply::Leased(id) = grant else { panic!("{grant:?}") };
                if let Some(mut socket) = scene.reactor.socket(id) {
                    let _ = socket.write(b"question");
                }
            }
            for _ in std::mem::take(&mut scene.lost) {
                scene.ask();
            }
            served.extend(scene.accepted());
            let (over, wait) = served.into_iter().partition(|peer| !is_read || peer.unread_bytes() > 0);
            let over: Vec<PeerSocket> = over;
            served = wait;
            for peer in over {
                let _ = peer.read();
                peer.reset();
            }
        }
        let begun = scene.stats().started;
        assert!((8..60).contains(&begun), "{begun} in ten seconds");
    }
}

/// It reads the request, and finishes without an answer; whether its socket is given back or
/// discarded.
#[test]
fn a_server_that_answers_nothing_is_down_as_well() {
    for is_thrown_out in [false, true] {
        let mut scene = Scene::new(PoolOptions::default().size(2).back_off(ms(100), SECOND));
        scene.ask();
        let (mut served, mut lent): (Vec<PeerSocket>, Vec<SocketId>) = (Vec::new(), Vec::new());
        for _ in 0..10_000 {
            scene.run(ms(1));
            for (_, grant) in std::mem::take(&mut scene.grants) {
                let PoolReply::Leased(id) = grant else { panic!("{grant:?}") };
                scene.write(id, b"question");
                lent.push(id);
            }
            if std::mem::take(&mut scene.told).iter().any(|told| told == "End") {
                let id = lent.pop().expect("lent");
                match is_thrown_out {
                    true => assert_eq!(scene.discard(id), Some(RetrySafety::IfIdempotent)),
                    false => scene.give_back(id),
                }
                scene.ask();
            }
            served.extend(scene.accepted());
            for peer in served.iter().filter(|peer| peer.unread_bytes() > 0) {
                let _ = peer.read();
                peer.finish();
            }
        }
        let begun = scene.stats().started;
        assert!((8..60).contains(&begun), "{begun} in ten seconds");
    }
}

/// A server that closes a connection after its answers is not one that drops it at once.
#[test]
fn a_connection_that_has_served_counts_as_no_failure_when_it_is_dropped() {
    let mut scene = Scene::new(PoolOptions::default().size(2).back_off(10 * SECOND, 10 * SECOND));
    scene.run(ms(10));
    let leased = [scene.lend(), scene.lend()];
    leased.iter().for_each(|id| scene.write(*id, b"question"));
    scene.run(ms(10));
    let server = scene.accepted();
    server.iter().for_each(|peer| peer.send(b"answer"));
    scene.run(ms(10));
    leased.iter().for_each(|id| scene.give_back(*id));
    server.into_iter().for_each(PeerSocket::reset);
    scene.run(ms(10));
    assert_eq!(scene.stats().lost_unused, 2);
    // One that has not served: with the others it would be a third failure of a pool of two.
    let fresh = scene.lend();
    scene.give_back(fresh);
    scene.accepted().into_iter().for_each(PeerSocket::reset);
    scene.run(ms(10));
    scene.lend();
}

#[test]
fn connections_that_are_dropped_together_are_one_failure() {
    let mut scene = Scene::new(PoolOptions::default().size(8).back_off(ms(10), 30 * SECOND));
    for _ in 0..2 {
        scene.run(ms(100));
        let server = scene.accepted();
        assert_eq!(server.len(), 8);
        server.into_iter().for_each(PeerSocket::reset);
    }
    scene.run(ms(15));
    assert!(!scene.accepted().is_empty(), "it was tried again after the first back-off");
}

/// A server that is being replaced: it serves the connections that it has, and refuses new ones.
#[test]
fn answers_on_an_old_connection_say_nothing_about_new_ones() {
    let mut scene = Scene::new(PoolOptions::default().size(2).back_off(ms(500), 10 * SECOND));
    scene.run(ms(10));
    let mut server = scene.accepted();
    scene.go_down();
    server.remove(0).reset();
    scene.run(ms(10));
    for _ in 0..300 {
        let id = scene.lend();
        scene.write(id, b"question");
        server[0].send(b"answer");
        scene.run(ms(5));
        scene.give_back(id);
    }
    let failed = scene.stats().failed;
    assert!((2..=8).contains(&failed), "{failed} in some five seconds");
    scene.listener = Some(scene.peer.listen(SERVER).expect("a free port"));
    scene.run(10 * SECOND);
    assert_eq!(scene.stats().ready, 2, "it is found again");
}

#[test]
fn a_back_off_for_ever_is_none_that_panics_or_none_at_all() {
    for (first, most) in [(Duration::MAX, Duration::MAX), (SECOND, Duration::MAX), (Duration::ZERO, Duration::ZERO)] {
        let mut scene = Scene::new(PoolOptions::default().size(1).back_off(first, most));
        scene.go_down();
        for _ in 0..50 {
            scene.run(ms(20));
        }
        let begun = scene.stats().started;
        assert!(if first.is_zero() { begun > 10 } else { begun <= 3 }, "{first:?}: {begun}");
    }
}

#[test]
fn a_back_off_of_many_days_is_not_cut_short() {
    let days = |days| SECOND * 86_400 * days;
    let mut scene = Scene::new(PoolOptions::default().size(1).back_off(days(300), days(300)));
    scene.go_down();
    scene.run(days(1));
    let begun = scene.stats().started;
    scene.run(days(140));
    assert_eq!(scene.stats().started, begun);
}

#[test]
fn a_pool_that_is_whole_again_after_drops_sleeps() {
    let mut scene = Scene::new(PoolOptions::default().size(2).max_idle(None).max_age(None));
    for _ in 0..400 {
        scene.run(ms(1));
        scene.accepted().into_iter().for_each(PeerSocket::reset);
    }
    scene.run(5 * SECOND);
    let _kept = scene.accepted();
    assert_eq!(scene.stats().ready, 2);
    let calls = scene.network.calls();
    scene.run(60 * SECOND);
    assert!(scene.network.calls() - calls < 10, "{} calls in a minute", scene.network.calls() - calls);
}

#[test]
fn a_server_that_drops_sockets_that_were_unused_for_a_while_is_not_down() {
    let mut scene = Scene::new(PoolOptions::default().size(1).max_idle(None));
    for round in 1..=20 {
        scene.run(5 * SECOND);
        scene.accepted().into_iter().for_each(PeerSocket::close);
        // The first back-off is an upper limit for this.
        scene.run(ms(110));
        assert_eq!((scene.stats().ready, scene.stats().started), (1, round + 1), "replaced");
    }
}

#[test]
fn whoever_has_waited_too_long_or_comes_to_a_crowd_is_told_so() {
    let options = PoolOptions::default().size(1).wait_limit(SECOND).max_waiting(2);
    let mut scene = Scene::new(options);
    scene.go_down();
    let tickets: Vec<_> = (0..3).map(|_| scene.ask()).collect();
    scene.run(ms(999));
    assert_eq!(scene.grants, [(tickets[2], PoolReply::QueueFull)]);
    scene.run(ms(2));
    assert_eq!(scene.grants[1..], [(tickets[0], PoolReply::TimedOut), (tickets[1], PoolReply::TimedOut)]);
    let cancelled = scene.ask();
    assert!(scene.pool.cancel(cancelled) && !scene.pool.cancel(cancelled));
    scene.run(2 * SECOND);
    assert_eq!((scene.grants.len(), scene.stats().refused), (3, 3));
}

#[test]
fn sockets_that_are_too_old_or_unused_for_too_long_are_ended_and_replaced() {
    for options in [PoolOptions::default().max_age(5 * SECOND), PoolOptions::default().max_idle(5 * SECOND)] {
        let mut scene = Scene::new(options.size(1));
        scene.run(ms(10));
        let server = scene.accepted();
        // A random part of the limit, and never less than half of it.
        scene.run(5 * SECOND / 2 - ms(20));
        assert_eq!((scene.stats().expired, scene.stats().ready), (0, 1));
        scene.run(5 * SECOND / 2 + ms(20));
        assert_eq!((scene.stats().expired, scene.stats().ready, scene.stats().started), (1, 1, 2));
        assert!(server[0].has_fin() && !server[0].is_reset(), "in good order");
        server.into_iter().for_each(PeerSocket::close);
        scene.run(ms(100));
        assert_eq!(scene.reactor.len(), 1);
    }
}

#[test]
fn a_socket_in_use_is_not_too_old_until_it_is_given_back() {
    let mut scene = Scene::new(PoolOptions::default().size(1).max_age(SECOND));
    scene.run(ms(10));
    let _server = scene.accepted();
    let id = scene.lend();
    scene.run(10 * SECOND);
    assert_eq!(scene.stats().expired, 0);
    scene.give_back(id);
    scene.run(ms(10));
    assert_eq!((scene.stats().expired, scene.stats().started), (1, 2));
}

#[test]
fn what_cannot_serve_the_next_request_is_not_taken_back() {
    let mut scene = Scene::new(PoolOptions::default().size(1));
    scene.network.set_buffers(10, 10);
    scene.run(ms(10));
    let _server = scene.accepted();
    let id = scene.lend();
    scene.write(id, &[0; 10_000]);
    scene.run(ms(10));
    scene.give_back(id);
    scene.run(ms(10));
    assert_ne!(scene.lend(), id, "bytes of the last request still wait there");
    let id = {
        scene.network.set_buffers(1000, 1000);
        let mut scene = Scene::new(PoolOptions::default().size(1));
        scene.run(ms(10));
        let id = scene.lend();
        scene.reactor.socket(id).expect("it lives").end();
        scene.give_back(id);
        scene.run(ms(10));
        (id, scene.lend())
    };
    assert_ne!(id.0, id.1, "it has ended");
    for spoil in [|mut socket: Socket<'_>| socket.destroy(), |mut socket: Socket<'_>| socket.discard()] {
        let mut scene = Scene::new(PoolOptions::default().size(1));
        scene.run(ms(10));
        let id = scene.lend();
        spoil(scene.reactor.socket(id).expect("it lives"));
        scene.give_back(id);
        scene.run(ms(10));
        assert_ne!(scene.lend(), id, "the next one would never have its answer there");
    }
}

#[test]
fn the_ending_says_whether_a_request_may_be_repeated() {
    let lose = |request: &[u8], answer: &[u8]| {
        let mut scene = Scene::new(PoolOptions::default().size(1));
        scene.run(ms(10));
        let mut server = scene.accepted();
        // Another request before it, which must not count.
        let id = scene.lend();
        scene.write(id, b"before");
        scene.run(ms(10));
        server[0].send(b"before");
        scene.run(ms(10));
        scene.give_back(id);
        let id = scene.lend();
        scene.write(id, request);
        scene.run(ms(10));
        server[0].send(answer);
        scene.run(ms(10));
        server.remove(0).reset();
        scene.run(ms(110));
        assert_eq!((scene.stats().lost_leased, scene.stats().ready), (1, 1), "and replaced");
        scene.lost[..].to_vec()
    };
    assert_eq!(lose(b"", b""), [RetrySafety::Safe]);
    assert_eq!(lose(b"request", b""), [RetrySafety::IfIdempotent]);
    assert_eq!(lose(b"request", b"half an ans"), [RetrySafety::Unsafe]);
}

#[test]
fn a_lent_socket_that_is_thrown_out_is_replaced() {
    let mut scene = Scene::new(PoolOptions::default().size(1));
    scene.run(ms(10));
    let server = scene.accepted();
    let id = scene.lend();
    assert_eq!(scene.discard(id), Some(RetrySafety::Safe));
    scene.run(ms(10));
    assert!(server[0].is_reset() && scene.stats().ready == 1 && scene.stats().lost_leased == 0);
}

#[test]
fn a_lent_socket_that_is_given_away_is_the_borrowers_and_another_is_opened() {
    let mut scene = Scene::new(PoolOptions::default().size(1));
    scene.run(ms(10));
    let server = scene.accepted();
    let id = scene.lend();
    scene.pool.detach(scene.ticket(id), &mut scene.reactor.context());
    scene.run(ms(10));
    assert_eq!((scene.stats().leased, scene.stats().ready, scene.stats().started), (0, 1, 2));
    server[0].send(b"for the borrower");
    let until = scene.network.now() + ms(10);
    let mut heard = 0;
    while let Some((mut socket, event)) = scene.reactor.next_before(until).expect("it continues") {
        assert_eq!(scene.pool.handle(&mut socket, &event), PoolEvent::Foreign, "{event:?}");
        heard += 1;
    }
    assert_eq!(heard, 1);
}

#[test]
fn a_closed_pool_ends_its_sockets_refuses_who_waits_and_leaves_nothing() {
    let mut scene = Scene::new(PoolOptions::default().size(2));
    scene.run(ms(10));
    let server = scene.accepted();
    let id = scene.lend();
    let _second = scene.lend();
    let waits = scene.ask();
    scene.pool.close(&mut scene.reactor.context());
    let late = scene.ask();
    scene.run(ms(10));
    assert_eq!(scene.grants, [(waits, PoolReply::Closed), (late, PoolReply::Closed)]);
    for id in [id, _second] {
        scene.give_back(id);
    }
    server.into_iter().for_each(PeerSocket::close);
    scene.run(SECOND);
    assert_eq!((scene.reactor.len(), scene.network.descriptors()), (0, 0));
    assert!(scene.reactor.next().expect("it ends").is_none(), "no timer is left");
}

#[test]
fn a_closed_pool_waits_for_no_handshake() {
    let mut scene = Scene::new(PoolOptions::default().size(2));
    scene.network.set_reach(THERE, finale::sim::Reach::BlackHole);
    scene.run(ms(10));
    assert_eq!(scene.stats().opening, 2);
    scene.pool.close(&mut scene.reactor.context());
    scene.run(ms(10));
    assert_eq!((scene.reactor.len(), scene.stats().opening), (0, 0));
}

#[test]
fn bad_options_are_refused_before_anything_is_opened() {
    let refused = Pool::new(SERVER, ConnectOptions::default().high_water_mark(0), PoolOptions::default());
    assert!(matches!(refused, Err(Error::InvalidOption(_))));
    assert!(matches!(
        Pool::new("nowhere", ConnectOptions::default(), PoolOptions::default()),
        Err(Error::InvalidAddress(_))
    ));
}

#[test]
fn events_of_others_are_not_the_pools() {
    let mut scene = Scene::new(PoolOptions::default().size(1));
    scene.run(ms(10));
    let other = scene.reactor.connect(SERVER, ConnectOptions::default()).expect("begun");
    let timer = scene.reactor.set_timer(ms(1));
    while let Some((mut socket, event)) = scene.reactor.next_before(scene.network.now() + ms(5)).expect("it continues")
    {
        let handled = scene.pool.handle(&mut socket, &event);
        let others = socket.id() == other || event == Event::Timer(timer);
        assert_eq!(handled == PoolEvent::Foreign, others, "{event:?}");
    }
}
