//! A pool that is used in a way that its author did not intend: with another reactor, without all
//! events, with limits that leave no time, with options that contradict each other.

use std::time::Duration;

use finale::sim::PeerSocket;
use finale::{ConnectOptions, Event, Pool, PoolEvent, PoolOptions, PoolReply, Reactor, Ticket};

use super::pool_scene::{SECOND, SERVER, Scene, ms};

/// Every call with a context: none opens, leases or ends anything in another reactor, and the next
/// call with the right one continues.
#[test]
fn a_pool_does_nothing_in_another_reactor() {
    type Call = fn(&mut Pool, Ticket, &mut finale::Context<'_>);
    let calls: [Call; 6] = [
        |pool, _, context| _ = pool.request(context),
        |pool, _, context| assert_eq!(pool.next_reply(context), None),
        |pool, _, context| pool.open(context),
        |pool, lease, context| pool.give_back(lease, context),
        |pool, lease, context| pool.detach(lease, context),
        |pool, lease, context| assert_eq!(pool.discard(lease, context), None),
    ];
    for (number, call) in calls.into_iter().enumerate() {
        let mut scene = Scene::new(PoolOptions::default().size(2));
        let mut other = Reactor::with_net(scene.network.host([10, 0, 0, 3].into()));
        scene.run(ms(10));
        let leased = scene.lend();
        let ticket = scene.ask();
        let lease = scene.ticket(leased);
        // A third socket is missing for the pool, so each call has something to do.
        assert!(scene.pool.cancel(ticket));
        scene.ask();
        call(&mut scene.pool, lease, &mut other.context());
        let timer = other.set_timer(ms(1));
        let (mut socket, event) = other.next().expect("it continues").expect("a timer");
        assert_eq!((scene.pool.handle(&mut socket, &event), event), (PoolEvent::Foreign, Event::Timer(timer)));
        assert!(other.next().expect("it ends").is_none(), "call {number} has left nothing in it");
        scene.run(ms(10));
        assert_eq!((scene.stats().leased, scene.stats().lost_unused, scene.reactor.len()), (2, 0, 2), "call {number}");
        scene.give_back(leased);
        scene.drop_pool();
        scene.accepted().into_iter().for_each(PeerSocket::close);
        scene.run(ms(100));
        assert!(scene.reactor.is_empty(), "call {number}: {}", scene.reactor.sockets());
    }
}

/// The program has handled the `close` of a leased socket itself.
#[test]
fn a_lease_whose_end_was_not_passed_to_the_pool_holds_no_place() {
    for is_discarded in [false, true] {
        let mut scene = Scene::new(PoolOptions::default().size(1));
        scene.run(ms(10));
        let id = scene.lend();
        scene.accepted().remove(0).reset();
        while !matches!(scene.reactor.next().expect("it continues").expect("a close").1, Event::Close(_)) {}
        assert!(scene.reactor.next_before(scene.network.now()).expect("it continues").is_none());
        match is_discarded {
            true => assert_eq!(scene.discard(id), None),
            false => scene.give_back(id),
        }
        let ticket = scene.ask();
        scene.run(ms(10));
        assert!(
            matches!(scene.grants[..], [(granted, PoolReply::Leased(_))] if granted == ticket),
            "{:?}",
            scene.stats()
        );
    }
}

/// Such a limit ended each socket before it could be leased, and connected again at once.
#[test]
fn a_limit_that_leaves_no_time_neither_starves_requests_nor_floods_the_server() {
    for limit in [Duration::ZERO, Duration::from_nanos(1), ms(1)] {
        for options in [PoolOptions::default().max_age(limit), PoolOptions::default().max_idle(limit)] {
            let options = options.size(1);
            Scene::new(options.clone()).lend();
            let mut scene = Scene::new(options);
            for _ in 0..100 {
                scene.run(ms(10));
                scene.accepted().into_iter().for_each(PeerSocket::close);
            }
            assert!(scene.stats().started <= 25, "{} connections in a second", scene.stats().started);
        }
    }
}

/// A request for which a socket is ready does not wait, whenever its reply is taken.
#[test]
fn a_request_that_may_not_wait_gets_a_ready_socket() {
    for (limit, late) in [(Duration::ZERO, Duration::ZERO), (Duration::ZERO, SECOND), (ms(100), SECOND)] {
        let mut scene = Scene::new(PoolOptions::default().size(2).wait_limit(limit));
        scene.run(ms(10));
        let tickets: Vec<_> = (0..4).map(|_| scene.ask()).collect();
        scene.network.advance(late);
        scene.run(SECOND);
        // Two have waited, and are refused.
        let mut replies = scene.grants.clone();
        replies.sort_by_key(|(ticket, _)| *ticket);
        assert!(replies.iter().map(|(ticket, _)| *ticket).eq(tickets), "{limit:?}: {replies:?}");
        assert!(replies[..2].iter().all(|(_, reply)| matches!(reply, PoolReply::Leased(_))), "{limit:?}: {replies:?}");
        assert!(replies[2..].iter().all(|(_, reply)| *reply == PoolReply::TimedOut), "{limit:?}: {replies:?}");
    }
}

/// The sockets of all of them are lost at the same moment.
#[test]
fn requests_that_are_refused_together_are_refused_in_their_order() {
    let mut scene = Scene::new(PoolOptions::default().size(3).max_waiting(0));
    scene.run(ms(10));
    let tickets: Vec<_> = (0..3).map(|_| scene.ask()).collect();
    scene.accepted().into_iter().for_each(PeerSocket::reset);
    scene.network.advance(ms(5));
    scene.take_replies();
    assert!(scene.grants.iter().copied().eq(tickets.into_iter().map(|ticket| (ticket, PoolReply::QueueFull))));
}

/// A paused socket can't be leased, so each one was ended and replaced.
#[test]
fn a_pool_reads_its_sockets_also_with_options_that_start_paused() {
    let mut scene = Scene::with(PoolOptions::default().size(1), ConnectOptions::default().start_paused(true));
    scene.lend();
    assert_eq!((scene.stats().started, scene.stats().lost_unused), (1, 0));
}

/// A proxy uses each connection once, so its pool sees no answer on any of them. The back-off after
/// a restart lasted for ever: each later failure doubled the delay.
#[test]
fn a_back_off_is_over_when_connections_last_also_if_each_is_detached() {
    let mut scene = Scene::new(PoolOptions::default().size(2).back_off(SECOND, 60 * SECOND));
    for _ in 0..400 {
        scene.run(ms(10));
        scene.accepted().into_iter().for_each(PeerSocket::reset);
    }
    let mut kept = Vec::new();
    let detach = |scene: &mut Scene| {
        let id = scene.lend();
        scene.pool.detach(scene.ticket(id), &mut scene.reactor.context());
    };
    for round in 0..8 {
        scene.run(20 * SECOND);
        kept.extend(scene.accepted());
        assert_eq!(scene.stats().ready, 2, "round {round}");
        detach(&mut scene);
        scene.run(2 * SECOND);
        kept.extend(scene.accepted());
        // The server refuses a connection, and is there again.
        scene.go_down();
        detach(&mut scene);
        scene.run(ms(10));
        assert_eq!(scene.stats().failed, round + 1);
        scene.listener = Some(scene.peer.listen(SERVER).expect("a free port"));
        scene.run(SECOND + ms(10));
        assert_eq!(scene.stats().ready, 2, "round {round}: after the first delay");
    }
}

/// The same for a pool that does nothing in between: it finds out when the connection is lost.
#[test]
fn a_back_off_is_over_when_the_only_connection_has_lasted() {
    let options = PoolOptions::default().size(1).max_idle(None).max_age(None);
    let mut scene = Scene::new(options.back_off(SECOND, 60 * SECOND));
    for _ in 0..400 {
        scene.run(ms(10));
        scene.accepted().into_iter().for_each(PeerSocket::reset);
    }
    for round in 0..8 {
        scene.run(20 * SECOND);
        let server = scene.accepted().pop();
        scene.go_down();
        server.expect("it is connected").reset();
        scene.run(SECOND);
        scene.listener = Some(scene.peer.listen(SERVER).expect("a free port"));
        scene.run(2 * SECOND);
        assert_eq!(scene.stats().ready, 1, "round {round}: {:?}", scene.stats());
    }
}

/// The longest delay counts for the first one, too.
#[test]
fn a_first_delay_that_is_longer_than_the_longest_is_shortened_to_it() {
    let mut scene = Scene::new(PoolOptions::default().size(2).back_off(3600 * SECOND, ms(100)));
    scene.run(ms(10));
    scene.accepted().into_iter().for_each(PeerSocket::reset);
    scene.run(ms(250));
    assert_eq!((scene.stats().ready, scene.accepted().len()), (2, 2), "both are replaced");
}

/// A program can make many calls before the next turn, in which the place becomes free.
#[test]
fn a_place_for_one_socket_costs_one_that_is_ending() {
    let mut scene = Scene::new(PoolOptions::default().size(4).max_idle(ms(200)));
    let mut kept = Vec::new();
    while (scene.stats().leaving, scene.stats().ready) != (4, 4) {
        scene.run(ms(10));
        kept.extend(scene.accepted());
    }
    let is_reset = |kept: &[PeerSocket]| kept.iter().filter(|peer| peer.is_reset()).count();
    let (id, before) = (scene.lend(), is_reset(&kept));
    let ask_and_cancel = |scene: &mut Scene| {
        let ticket = scene.ask();
        scene.pool.cancel(ticket);
    };
    // What is thrown out makes room itself; what is detached does not belong to the pool.
    assert_eq!(scene.discard(id), Some(finale::RetrySafety::Safe));
    (0..5).for_each(|_| ask_and_cancel(&mut scene));
    scene.run(ms(5));
    assert_eq!((is_reset(&kept) - before, scene.stats().ready), (1, 4), "what was thrown out");
    kept.extend(scene.accepted());
    // A socket that is ending and can't be reset is missing as well.
    let (id, before) = (scene.lend(), is_reset(&kept));
    scene.write(id, b"log line");
    scene.give_back(id);
    (0..5).for_each(|_| ask_and_cancel(&mut scene));
    scene.run(ms(5));
    assert_eq!((is_reset(&kept) - before, scene.stats().ready), (1, 4), "one for one");
}
