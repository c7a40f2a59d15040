//! A pool that is used in a way that its author did not intend: with another reactor, without all
//! events, with limits that leave no time, with options that contradict each other.

use finale::{Event, Pool, PoolEvent, PoolOptions, PoolReply, Reactor, Ticket};

use super::pool_scene::{Scene, ms};

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
        scene.accepted().into_iter().for_each(finale::sim::PeerSocket::close);
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
