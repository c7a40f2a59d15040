//! Leases of a pool: what is leased, what ends a lease, and what a dropped pool leaves.

use std::io::Write as _;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use finale::sim::{PeerSocket, Reach};
use finale::{
    ConnectOptions, ConnectionErrorKind, Event, IdleDirection, Pool, PoolEvent, PoolOptions, PoolReply, Reactor,
    RetrySafety, Socket,
};

use super::pool_scene::{SECOND, SERVER, Scene, THERE, ms};

/// A scene with a pool of one that is connected, and the server's end of the connection.
fn of_one() -> (Scene, PeerSocket) {
    let mut scene = Scene::new(PoolOptions::default().size(1));
    scene.run(ms(10));
    let server = scene.accepted().remove(0);
    (scene, server)
}

/// What a server can do to a connection between two requests.
const SPOILS: [fn(PeerSocket); 4] = [
    |peer| peer.finish(),
    PeerSocket::reset,
    |peer| peer.send(b"421 go away"),
    |peer| {
        peer.send(b"421 go away");
        peer.close();
    },
];

/// Only the kernel knows what has happened, when the program takes the reply; also if the request
/// was made before.
#[test]
fn nothing_is_leased_that_was_lost_or_has_bytes_at_that_moment() {
    for spoil in SPOILS {
        for asks_first in [true, false] {
            let (mut scene, server) = of_one();
            let old = scene.reactor.sockets().iter().next().expect("one is ready").id;
            let early = asks_first.then(|| scene.ask());
            spoil(server);
            scene.network.advance(ms(5));
            let ticket = early.unwrap_or_else(|| scene.ask());
            scene.take_replies();
            assert!(scene.grants.is_empty(), "the ready one was lost: {:?}", scene.grants);
            scene.run(ms(10));
            let Some((granted, PoolReply::Leased(id))) = scene.grants.pop() else { panic!("a new socket") };
            assert!(granted == ticket && id != old && scene.told.is_empty());
            assert_eq!((scene.stats().lost_unused, scene.stats().leased, scene.stats().started), (1, 1, 2));
        }
    }
}

/// The same on real sockets: the look takes nothing, not even an error.
#[test]
fn a_look_at_a_socket_leaves_its_events_to_come() {
    type Spoil = fn(TcpStream);
    let spoils: [(Spoil, &str); 3] = [
        (|stream| stream.shutdown(Shutdown::Both).expect("open"), "end"),
        (|stream| socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("open"), "reset"),
        (|mut stream| stream.write_all(b"junk").expect("open"), "data"),
    ];
    for (spoil, expected) in spoils {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut reactor = Reactor::new().expect("descriptors");
        let at = listener.local_addr().expect("bound");
        let id = reactor.connect(at, ConnectOptions::default()).expect("begun");
        while reactor.next().expect("it continues").expect("it connects").1 != Event::Ready {}
        assert!(!reactor.socket(id).expect("it lives").has_unread());
        spoil(listener.accept().expect("a client").0);
        let until = Instant::now() + Duration::from_secs(20);
        while !reactor.socket(id).expect("it lives").has_unread() {
            assert!(Instant::now() < until, "nothing has arrived");
            std::thread::yield_now();
        }
        assert!(reactor.socket(id).expect("it lives").has_unread(), "nothing was taken");
        let (_, event) = reactor.next().expect("it continues").expect("an event");
        let told = match event {
            Event::Data(bytes) => String::from_utf8_lossy(bytes).replace("junk", "data"),
            Event::Error(error) if error.kind == ConnectionErrorKind::Reset => "reset".to_owned(),
            event => event.to_string(),
        };
        assert_eq!(told, expected);
    }
}

#[test]
fn a_ticket_is_good_for_one_lease_of_its_pool() {
    let (mut scene, server) = of_one();
    let id = scene.lend();
    let old = scene.ticket(id);
    scene.give_back(id);
    assert_eq!(scene.lend(), id, "another borrower has the same socket");
    let mut other = Pool::new(SERVER, ConnectOptions::default(), PoolOptions::default()).expect("good options");
    // The second one of its pool, as that of the present lease.
    let [_, foreign] = [(); 2].map(|()| other.request(&mut scene.reactor.context()));
    scene.write(id, b"question");
    scene.run(ms(10));
    for ticket in [old, foreign] {
        scene.pool.give_back(ticket, &mut scene.reactor.context());
        scene.pool.detach(ticket, &mut scene.reactor.context());
        assert_eq!(scene.pool.discard(ticket, &mut scene.reactor.context()), None);
        assert!(!scene.pool.cancel(ticket));
    }
    let late = scene.ask();
    server.send(b"answer");
    scene.run(ms(10));
    assert_eq!(scene.told, ["Data([97, 110, 115, 119, 101, 114])"], "the lease goes on");
    assert!(!scene.grants.iter().any(|(ticket, _)| *ticket == late), "nobody else gets the socket");
    scene.give_back(id);
    scene.run(ms(10));
    assert_eq!(scene.grants.last(), Some(&(late, PoolReply::Leased(id))));
}

/// A borrower gives back before its answer has arrived: the next one must not get it.
#[test]
fn a_socket_with_an_answer_outstanding_is_not_taken_back() {
    type Borrow = fn(&mut Scene, &PeerSocket, finale::SocketId);
    let question: Borrow = |scene, server, id| {
        scene.write(id, b"question");
        scene.run(ms(10));
        assert_eq!(server.read(), b"question");
    };
    let answered: Borrow = |scene, server, id| {
        scene.write(id, b"question");
        scene.run(ms(10));
        server.send(b"answer");
        scene.run(ms(10));
    };
    let second: Borrow = |scene, server, id| {
        scene.write(id, b"question");
        scene.run(ms(10));
        server.send(b"answer");
        scene.run(ms(10));
        scene.write(id, b"another");
        scene.run(ms(10));
    };
    let filled: Borrow = |scene, server, id| {
        scene.write(id, b"question");
        scene.reactor.socket(id).expect("it lives").fill(Vec::new(), 6).expect("it can read");
        scene.run(ms(10));
        server.send(b"answer");
        scene.run(ms(10));
        assert_eq!(scene.told, ["Filled"]);
    };
    let unsent: Borrow = |scene, _, id| scene.write(id, b"question");
    let unused: Borrow = |_, _, _| {};
    for (borrow, is_kept) in
        [(question, false), (answered, true), (second, false), (filled, true), (unsent, false), (unused, true)]
    {
        let (mut scene, server) = of_one();
        let id = scene.lend();
        borrow(&mut scene, &server, id);
        scene.give_back(id);
        assert_eq!((scene.stats().ready, scene.stats().leaving), if is_kept { (1, 0) } else { (0, 1) });
        scene.told.clear();
        let next = scene.lend();
        assert_eq!(next == id, is_kept);
        server.send(b"the late answer");
        scene.run(ms(10));
        assert!(is_kept || scene.told.is_empty(), "{:?} is a stranger's answer", scene.told);
        assert!(!server.is_reset(), "it is ended in order");
    }
}

/// What was written is delivered, though nothing was read.
#[test]
fn a_request_that_is_given_back_unanswered_still_leaves() {
    let (mut scene, server) = of_one();
    let id = scene.lend();
    scene.write(id, b"log line");
    scene.give_back(id);
    scene.run(ms(10));
    assert!(server.read() == b"log line" && server.has_fin());
}

/// The server finishes; the program gives up the answer and learns whether it may repeat.
#[test]
fn a_discard_says_whether_the_request_may_be_repeated() {
    for (request, answer, expected) in [
        (&b""[..], &b""[..], RetrySafety::Safe),
        (b"request", b"", RetrySafety::IfIdempotent),
        (b"request", b"half an ans", RetrySafety::Unsafe),
    ] {
        let (mut scene, server) = of_one();
        // Another request before it, which must not count.
        let id = scene.lend();
        scene.write(id, b"before");
        scene.run(ms(10));
        server.send(b"before");
        scene.run(ms(10));
        scene.give_back(id);
        assert_eq!(scene.lend(), id);
        scene.write(id, request);
        scene.run(ms(10));
        server.send(answer);
        server.finish();
        scene.run(ms(10));
        assert_eq!(scene.told.last().map(String::as_str), Some("End"));
        assert_eq!(scene.discard(id), Some(expected));
        assert_eq!(scene.discard(id), None, "once");
        scene.run(ms(10));
        assert!(scene.lost.is_empty() && scene.stats().lost_leased == 0);
    }
}

#[test]
fn use_renews_the_idle_time_and_ends_the_deadline_of_its_borrower() {
    let mut scene = Scene::new(PoolOptions::default().size(1).max_idle(ms(500)));
    scene.run(ms(10));
    let server = scene.accepted().remove(0);
    for _ in 0..30 {
        let id = scene.lend();
        scene.reactor.socket(id).expect("it lives").set_deadline(ms(150));
        scene.write(id, b"question");
        scene.run(ms(10));
        server.send(b"answer");
        scene.run(ms(10));
        scene.give_back(id);
        scene.run(ms(200));
    }
    assert_eq!((scene.stats().started, scene.stats().ready, scene.stats().expired), (1, 1, 0));
    scene.run(ms(510));
    assert_eq!(scene.stats().expired, 1, "unused for the whole time");
}

/// The idle timeout of an unused socket is not delivered to the program, and stops until it is restarted.
#[test]
fn an_idle_timeout_counts_from_the_lease_whatever_it_counts() {
    for direction in [IdleDirection::Both, IdleDirection::Read, IdleDirection::Write] {
        for unused in [ms(900), 3 * SECOND] {
            let connect = ConnectOptions::default().idle_timeout(SECOND).idle_direction(direction);
            let mut scene = Scene::with(PoolOptions::default().size(1), connect);
            scene.run(unused);
            let id = scene.lend();
            scene.write(id, b"question");
            scene.run(ms(980));
            assert!(scene.told.is_empty(), "{direction:?}, {unused:?}: {:?}", scene.told);
            scene.run(ms(50));
            assert_eq!(scene.told, ["Timeout"], "{direction:?}, {unused:?}");
        }
    }
}

/// A server that never finishes keeps what the pool has ended, and the pool continues.
#[test]
fn sockets_that_are_ending_are_bounded_and_do_not_stop_the_pool() {
    let mut scene = Scene::new(PoolOptions::default().size(4).max_idle(ms(200)));
    let (mut most, mut kept) = (0, Vec::new());
    for _ in 0..3000 {
        scene.run(ms(10));
        kept.extend(scene.accepted());
        let stats = scene.stats();
        assert_eq!(stats.opening + stats.ready + stats.leaving, scene.reactor.len());
        assert!(stats.ready > 0, "{stats:?}");
        most = most.max(scene.reactor.len());
    }
    assert_eq!(most, 8, "twice the size");
    let (reset, open): (Vec<_>, Vec<_>) = kept.into_iter().partition(PeerSocket::is_reset);
    assert!(open.len() <= 8 && reset.len() > 100, "{} and {}", open.len(), reset.len());
}

/// The same for sockets on which a borrower has written: these bytes must not be cut off.
#[test]
fn sockets_that_a_borrower_has_written_to_are_ended_in_order_and_the_next_one_waits() {
    let connect = ConnectOptions::default().close_timeout(5 * SECOND);
    let mut scene = Scene::with(PoolOptions::default().size(2).max_idle(None).wait_limit(None), connect);
    let mut kept = Vec::new();
    for number in 1..=4 {
        scene.run(ms(10));
        let id = scene.lend();
        scene.write(id, b"log line");
        scene.give_back(id);
        scene.run(ms(10));
        kept.extend(scene.accepted());
        assert_eq!((scene.stats().leaving, scene.stats().started), (number, (number + 2).min(4) as u64));
    }
    let ticket = scene.ask();
    scene.run(SECOND);
    assert_eq!((scene.reactor.len(), scene.grants.len()), (4, 0), "the request waits");
    let got: Vec<_> = kept.iter().filter(|peer| peer.read() == b"log line" && peer.has_fin()).collect();
    assert_eq!(got.len(), 4, "none was cut off");
    got[0].finish();
    scene.run(ms(10));
    assert_eq!(scene.grants.pop().map(|(granted, _)| granted), Some(ticket), "one has closed");
}

/// A program that does not wait for its answers says nothing about the server.
#[test]
fn a_server_whose_answers_are_not_waited_for_is_not_down() {
    type Borrow = fn(&mut Scene, finale::SocketId);
    let sent: Borrow = |scene, _| scene.run(ms(10));
    let unsent: Borrow = |_, _| {};
    let ended: Borrow = |scene, id| scene.reactor.socket(id).expect("it lives").end();
    for borrow in [sent, unsent, ended] {
        let mut scene = Scene::new(PoolOptions::default().size(2).back_off(10 * SECOND, 10 * SECOND));
        scene.run(ms(10));
        let mut server = Vec::new();
        for _ in 0..50 {
            let id = scene.lend();
            scene.write(id, b"question");
            borrow(&mut scene, id);
            scene.give_back(id);
            scene.run(ms(10));
            server.extend(scene.accepted());
            server.extract_if(.., |peer| peer.has_fin()).for_each(PeerSocket::close);
            scene.run(ms(10));
        }
    }
}

#[test]
fn a_pool_without_a_queue_leases_what_is_ready_and_refuses_the_rest() {
    for (max_waiting, leased, refused) in [(0, 2, 3), (1, 2, 2), (2, 2, 1), (3, 2, 0)] {
        let mut scene = Scene::new(PoolOptions::default().size(2).max_waiting(max_waiting));
        scene.run(ms(10));
        let tickets: Vec<_> = (0..5).map(|_| scene.ask()).collect();
        scene.take_replies();
        let granted = scene.grants.iter().filter(|(_, reply)| matches!(reply, PoolReply::Leased(_)));
        assert_eq!(granted.map(|(ticket, _)| *ticket).collect::<Vec<_>>(), tickets[..leased]);
        let full = scene.grants.iter().filter(|(_, reply)| *reply == PoolReply::QueueFull);
        assert_eq!(full.map(|(ticket, _)| *ticket).collect::<Vec<_>>(), tickets[5 - refused..]);
        assert_eq!(scene.stats().waiting, max_waiting);
    }
}

/// The socket that a request counted on is found to be lost, and no request may wait.
#[test]
fn a_request_that_may_not_wait_is_refused_when_its_socket_was_lost() {
    let mut scene = Scene::new(PoolOptions::default().size(1).max_waiting(0));
    scene.run(ms(10));
    let ticket = scene.ask();
    scene.accepted().remove(0).reset();
    scene.network.advance(ms(5));
    scene.take_replies();
    assert_eq!(scene.grants, [(ticket, PoolReply::QueueFull)]);
}

#[test]
fn a_request_can_be_withdrawn_until_its_reply_was_taken() {
    let (mut scene, _server) = of_one();
    let ticket = scene.ask();
    assert!(scene.pool.cancel(ticket) && !scene.pool.cancel(ticket));
    scene.run(ms(10));
    assert_eq!((scene.grants.len(), scene.stats().ready, scene.stats().leased), (0, 1, 0));
    let id = scene.lend();
    assert!(!scene.pool.cancel(scene.ticket(id)), "it is a lease");
}

#[test]
fn the_last_error_says_why_there_is_no_socket() {
    let mut scene = Scene::new(PoolOptions::default().size(1).wait_limit(SECOND));
    assert!(scene.pool.last_error().is_none());
    scene.go_down();
    let ticket = scene.ask();
    scene.run(2 * SECOND);
    assert_eq!(scene.grants, [(ticket, PoolReply::TimedOut)]);
    assert_eq!(scene.pool.last_error().map(|error| error.kind), Some(ConnectionErrorKind::Refused));
    scene.listener = Some(scene.peer.listen(SERVER).expect("a free port"));
    scene.run(60 * SECOND);
    assert!(scene.stats().ready == 1 && scene.pool.last_error().is_none());
}

#[test]
fn a_dropped_pool_leaves_nothing_open() {
    let mut scene = Scene::new(PoolOptions::default().size(3).max_idle(None).max_age(None));
    scene.run(ms(10));
    let server = scene.accepted();
    let id = scene.lend();
    scene.write(id, b"question");
    let detached = scene.lend();
    scene.network.set_reach(THERE, Reach::BlackHole);
    scene.pool.detach(scene.ticket(detached), &mut scene.reactor.context());
    scene.run(ms(10));
    let stats = scene.stats();
    assert_eq!((stats.ready, stats.leased, stats.opening), (1, 1, 1), "one of each kind, and one detached");
    scene.network.set_reach(THERE, Reach::Open);
    scene.drop_pool();
    scene.run(SECOND);
    assert_eq!(server.iter().filter(|peer| peer.is_reset()).count(), 1, "the leased one is reset");
    let ended: Vec<_> = server.iter().filter(|peer| peer.has_fin()).collect();
    assert_eq!(ended.len(), 1, "the ready one has ended in order");
    ended[0].finish();
    scene.run(SECOND);
    assert_eq!(scene.reactor.len(), 1, "the detached one: {}", scene.reactor.sockets());
}

/// A pool that waits for its server has a timer and no socket.
#[test]
fn a_dropped_pool_leaves_no_timer() {
    let mut scene = Scene::new(PoolOptions::default().size(1).back_off(60 * SECOND, 60 * SECOND));
    scene.go_down();
    scene.run(ms(10));
    assert_eq!((scene.stats().failed, scene.reactor.len()), (1, 0));
    let before = scene.network.now();
    scene.drop_pool();
    assert!(scene.reactor.next().expect("it ends").is_none() && scene.network.now() < before + SECOND);
}

/// The reactor waits for ever when its pool is dropped on another thread.
#[test]
fn a_pool_that_is_dropped_on_another_thread_wakes_its_reactor() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut reactor = Reactor::new().expect("descriptors");
    let options = PoolOptions::default().size(1).max_idle(None).max_age(None);
    let at = listener.local_addr().expect("bound");
    let mut pool = Pool::new(at, ConnectOptions::default(), options).expect("good options");
    pool.open(&mut reactor.context());
    while pool.stats().ready == 0 {
        let (mut socket, event) = reactor.next().expect("it continues").expect("it connects");
        assert_eq!(pool.handle(&mut socket, &event), PoolEvent::Internal);
    }
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        drop(pool);
        std::io::copy(&mut &stream, &mut std::io::sink()).expect("an end in order");
    });
    let until = reactor.now() + Duration::from_secs(20);
    while reactor.next_before(until).expect("it continues").is_some() {}
    assert!(reactor.is_empty() && reactor.now() < until, "{}", reactor.sockets());
    server.join().expect("no panic");
}

/// So that surplus sockets are unused for long enough to expire.
#[test]
fn the_socket_that_was_used_last_is_leased_first() {
    let mut scene = Scene::new(PoolOptions::default().size(3));
    scene.run(ms(10));
    let [first, second] = [scene.lend(), scene.lend()];
    for (last, other) in [(first, second), (second, first)] {
        scene.give_back(other);
        scene.give_back(last);
        assert_eq!([scene.lend(), scene.lend()], [last, other]);
    }
}

/// The program has changed a socket that is not leased, or one that it gives back while a request
/// waits. No step of the reactor is in between.
#[test]
fn a_socket_that_the_program_has_ended_or_stopped_is_not_leased_in_the_same_moment() {
    let spoils: [fn(&mut Socket<'_>); 5] = [
        |socket| socket.end(),
        |socket| socket.destroy(),
        |socket| socket.pause(),
        |socket| socket.discard(),
        |socket| socket.fill(Vec::new(), 6).expect("it can read"),
    ];
    for spoil in spoils {
        for is_leased in [false, true] {
            let (mut scene, _server) = of_one();
            let id = scene.lend();
            if !is_leased {
                scene.give_back(id);
            }
            let ticket = scene.ask();
            spoil(&mut scene.reactor.socket(id).expect("it lives"));
            if is_leased {
                scene.give_back(id);
            }
            scene.take_replies();
            assert_eq!(scene.grants, [], "the request waits");
            scene.run(ms(110));
            let Some((granted, PoolReply::Leased(next))) = scene.grants.pop() else { panic!("a new socket") };
            assert!(granted == ticket && next != id);
        }
    }
}

/// The program has handled the `close` itself.
#[test]
fn a_ready_socket_whose_end_was_not_passed_to_the_pool_is_replaced() {
    let (mut scene, server) = of_one();
    server.reset();
    while !matches!(scene.reactor.next().expect("it continues").expect("a close").1, Event::Close(_)) {}
    assert!(scene.reactor.next_before(scene.network.now()).expect("it continues").is_none());
    scene.lend();
    assert_eq!((scene.stats().started, scene.stats().leased, scene.reactor.len()), (2, 1, 1));
}

/// Each call that makes a socket missing opens another one: the program may wait for an event of it.
#[test]
fn a_call_that_ends_a_lease_opens_the_next_socket() {
    type Call = fn(&mut Pool, finale::Ticket, &mut finale::Context<'_>);
    let calls: [Call; 3] = [
        |pool, lease, context| pool.give_back(lease, context),
        |pool, lease, context| pool.detach(lease, context),
        |pool, lease, context| assert!(pool.discard(lease, context).is_some()),
    ];
    for call in calls {
        let (mut scene, _server) = of_one();
        let id = scene.lend();
        scene.write(id, b"question");
        call(&mut scene.pool, scene.tickets[&id], &mut scene.reactor.context());
        assert_eq!((scene.stats().started, scene.stats().opening), (2, 1));
    }
}

/// The borrower had paused it, and the rest of the answer is never read.
#[test]
fn a_paused_socket_that_is_given_back_is_read_to_its_end() {
    let (mut scene, server) = of_one();
    let id = scene.lend();
    scene.reactor.socket(id).expect("it lives").pause();
    server.send(b"what nobody reads");
    scene.run(ms(10));
    scene.give_back(id);
    scene.run(ms(10));
    assert!(server.has_fin() && !server.is_reset());
    server.close();
    scene.run(ms(10));
    assert_eq!((scene.stats().leaving, scene.reactor.socket(id).is_none()), (0, true));
}
