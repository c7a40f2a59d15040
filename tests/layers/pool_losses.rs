//! What a pool does with sockets that are lost: how it ends and counts them, and when it replaces
//! them.

use std::time::Duration;

use finale::sim::PeerSocket;
use finale::{ConnectOptions, Event, PoolEvent, PoolOptions};

use super::pool_scene::{SECOND, SERVER, Scene, ms};

/// A pool of eight that has lost all its sockets, ready or leased, at the same moment.
fn that_has_lost_eight(is_leased: bool, first: Duration) -> Scene {
    let mut scene = Scene::new(PoolOptions::default().size(8).back_off(first, first));
    scene.run(ms(10));
    if is_leased {
        (0..8).for_each(|_| _ = scene.ask());
        scene.run(ms(10));
        assert_eq!(scene.stats().leased, 8);
        scene.grants.clear();
    }
    scene.accepted().into_iter().for_each(PeerSocket::reset);
    scene.run(ms(3));
    assert_eq!((scene.stats().lost_unused, scene.stats().lost_leased), if is_leased { (0, 8) } else { (8, 0) });
    assert_eq!((scene.stats().started, scene.reactor.len()), (8, 0), "none is replaced at once");
    scene
}

#[test]
fn lost_sockets_are_replaced_one_after_another_after_random_times() {
    for is_leased in [false, true] {
        let mut scene = that_has_lost_eight(is_leased, SECOND);
        let mut times = vec![scene.network.elapsed()];
        while scene.stats().started < 16 {
            let before = scene.stats().started;
            scene.run(ms(1));
            times.extend((before..scene.stats().started).map(|_| scene.network.elapsed()));
        }
        let pauses: Vec<_> = times.windows(2).map(|times| times[1] - times[0]).collect();
        let (least, most) = (pauses.iter().min(), pauses.iter().max());
        assert!(least < Some(&(SECOND / 3)) && most > Some(&(SECOND / 2)), "{pauses:?}");
        assert!(most < Some(&(SECOND + ms(2))), "{pauses:?}");
    }
}

#[test]
fn a_request_that_waits_gets_one_socket_at_once_and_the_others_are_replaced_later() {
    for is_leased in [false, true] {
        let mut scene = that_has_lost_eight(is_leased, 60 * SECOND);
        let ticket = scene.ask();
        scene.run(ms(10));
        assert_eq!(scene.grants.pop().map(|(granted, _)| granted), Some(ticket));
        assert_eq!((scene.stats().started, scene.stats().leased), (9, 1));
    }
}

/// The clients of a server that was restarted would all replace their sockets at the next request.
#[test]
fn a_request_for_which_a_socket_is_ready_replaces_no_lost_socket_at_once() {
    let mut scene = Scene::new(PoolOptions::default().size(4).back_off(60 * SECOND, 60 * SECOND));
    scene.run(ms(10));
    let mut server = scene.accepted();
    server.drain(1..).for_each(PeerSocket::reset);
    scene.run(ms(10));
    for _ in 0..10 {
        let id = scene.lend();
        scene.write(id, b"question");
        server[0].send(b"answer");
        scene.run(ms(10));
        scene.give_back(id);
    }
    assert_eq!((scene.stats().granted, scene.stats().started), (10, 4), "none was replaced");
}

/// A time that was waited for is over with the replacement.
#[test]
fn each_loss_is_replaced_after_a_time_of_its_own() {
    let mut scene = Scene::new(PoolOptions::default().size(1).back_off(10 * SECOND, 10 * SECOND));
    for round in 1..=5 {
        scene.run(15 * SECOND);
        assert_eq!(scene.stats().ready, 1);
        scene.accepted().into_iter().for_each(PeerSocket::reset);
        scene.run(ms(3));
        assert_eq!((scene.stats().lost_unused, scene.stats().started), (round, round), "not at once");
    }
}

/// A server that ends is answered in order. After bytes without a request the rest of the stream is
/// of no use.
#[test]
fn an_unused_socket_is_ended_in_order_unless_its_server_speaks() {
    for is_reset in [false, true] {
        let mut scene = Scene::new(PoolOptions::default().size(1));
        scene.run(ms(10));
        let server = scene.accepted().remove(0);
        match is_reset {
            true => server.send(b"421 go away"),
            false => server.finish(),
        }
        scene.run(ms(10));
        assert_eq!((server.is_reset(), server.has_fin()), (is_reset, !is_reset));
    }
}

#[test]
fn a_ready_socket_that_the_program_destroys_is_lost_and_replaced() {
    let mut scene = Scene::new(PoolOptions::default().size(1));
    scene.run(ms(10));
    let id = scene.reactor.sockets().iter().next().expect("one is ready").id;
    scene.reactor.socket(id).expect("it lives").destroy();
    scene.run(ms(1));
    assert_eq!((scene.stats().lost_unused, scene.stats().started), (1, 1), "not at once");
    scene.run(ms(110));
    assert_eq!((scene.stats().ready, scene.stats().started), (1, 2));
}

#[test]
fn sockets_that_a_closed_pool_ends_count_as_neither_lost_nor_expired() {
    let mut scene = Scene::new(PoolOptions::default().size(2));
    scene.run(ms(10));
    scene.pool.close(&mut scene.reactor.context());
    scene.accepted().into_iter().for_each(PeerSocket::close);
    scene.run(SECOND);
    let stats = scene.stats();
    assert_eq!((stats.expired, stats.lost_unused, stats.ready, stats.leaving), (0, 0, 0, 0));
    assert!(scene.reactor.is_empty());
}

/// A proxy that gives its connections back.
#[test]
fn an_answer_that_was_spliced_is_an_answer() {
    let mut scene = Scene::new(PoolOptions::default().size(1));
    scene.run(ms(10));
    let server = scene.accepted().remove(0);
    let sink = scene.reactor.connect(SERVER, ConnectOptions::default()).expect("begun");
    scene.run(ms(10));
    let id = scene.lend();
    scene.write(id, b"question");
    scene.run(ms(10));
    scene.reactor.socket(id).expect("it lives").splice_next();
    server.send(&[b'x'; 20_000]);
    let until = scene.network.now() + ms(10);
    let mut spliced = 0;
    while let Some((mut socket, event)) = scene.reactor.next_before(until).expect("it continues") {
        let handled = scene.pool.handle(&mut socket, &event);
        if let Event::Spliced(bytes) = event {
            assert_eq!(handled, PoolEvent::Leased(scene.tickets[&id]));
            spliced += bytes;
            socket.forward(sink).expect("room");
        }
    }
    assert_eq!(spliced, 20_000);
    scene.give_back(id);
    assert_eq!((scene.stats().ready, scene.stats().leaving), (1, 0), "it has served");
}
