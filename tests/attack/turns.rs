//! What waits for its turn in the loop delays neither a deadline nor what the system has already
//! reported.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use finale::net::Net;
use finale::sim::{Network, PeerSocket, Reach};
use finale::{
    ConnectOptions, ConnectionErrorKind, EndingKind, Event, ListenOptions, Socket, SocketId, StopOptions, TimeoutKind,
    TimerId, UnixAddr,
};
use rustix::io::Errno;

use support::faulty::faulty_on;
use support::ms;
use support::scene::{HERE, Scene, THERE};

/// How long a handler takes.
const HANDLER: Duration = ms(1);
/// The steps up to two looks at the clock, and those of connections that are accepted meanwhile.
const LATE: Duration = ms(60);
/// The close timeout of a socket that waits after a hundred others.
const LINGER: Duration = ms(2000);

/// A listener, and this many connections to it.
fn crowd(scene: &mut Scene, count: usize, options: ListenOptions) -> Vec<PeerSocket> {
    scene.network.set_latency(Duration::from_micros(10));
    let listener = scene.reactor.listen((HERE, 80), options.backlog(2000)).expect("a free port");
    let peers = (0..count).map(|_| scene.peer.connect(listener.addr).expect("begun")).collect();
    scene.run(ms(500));
    peers
}

/// Runs for this long, or until `handle` returns a value. A handler takes a millisecond. `handle`
/// gets the time before that, the socket and the event.
fn with_slow_handlers<N: Net, T>(
    scene: &mut Scene<N>,
    time: Duration,
    mut handle: impl FnMut(Instant, &mut Socket<'_>, &Event<'_>) -> Option<T>,
) -> Option<T> {
    let end = scene.network.now() + time;
    while let Some((mut socket, event)) = scene.reactor.next_before(end).expect("it continues") {
        let found = handle(scene.network.now(), &mut socket, &event);
        if found.is_some() {
            return found;
        }
        scene.network.spend(HANDLER);
    }
    None
}

/// How a socket ends for which its peer does the last thing, `act`, shortly before the close timeout,
/// while slow handlers serve all of the crowd.
fn ending_behind(scene: &mut Scene, crowd: &[PeerSocket], id: SocketId, act: impl FnOnce()) -> Option<EndingKind> {
    let begun = scene.network.now();
    scene.run(LINGER - ms(22));
    crowd.iter().for_each(|peer| peer.send(b"x"));
    act();
    scene.network.advance(ms(12));
    assert!(scene.network.now() < begun + LINGER);
    with_slow_handlers(scene, LINGER, |_, socket, event| match event {
        Event::Close(ending) if socket.id() == id => Some(ending.kind.clone()),
        _ => None,
    })
}

/// How late a timer is, with an `act` and a slow handler for each event.
fn lateness(scene: &mut Scene<impl Net>, due_in: Duration, mut act: impl FnMut()) -> Duration {
    let due = scene.network.now() + due_in;
    let timer = scene.reactor.set_timer(due_in);
    let late = with_slow_handlers(scene, due_in + ms(60_000), |now, _, event| {
        if *event == Event::Timer(timer) {
            return Some(now - due);
        }
        act();
        None
    });
    late.expect("the timer comes")
}

#[test]
fn a_peer_that_drips_a_byte_for_each_handler_puts_no_timer_off() {
    for others in [0, 100, 1000] {
        let mut scene = Scene::new();
        let peers = crowd(&mut scene, others, ListenOptions::default());
        // It has not waited for readiness, and is not registered.
        let addr = SocketAddr::new(HERE, 80);
        let drip = scene.peer.connect(addr).expect("begun");
        drip.send(b"xxxxxxxx");
        peers.iter().for_each(|peer| peer.send(b"x"));
        let late = lateness(&mut scene, ms(50), || drip.send(b"x"));
        assert!(late <= LATE, "{late:?} with {others} others");
    }
}

#[test]
fn a_client_of_a_unix_socket_that_drips_puts_no_timer_off() {
    let mut scene = Scene::new();
    let addr = UnixAddr::path("/run/app.sock");
    scene.reactor.listen(addr.clone(), ListenOptions::default()).expect("free");
    let local = scene.network.peer(HERE);
    let peers: Vec<_> = (0..101).map(|_| local.connect_unix(&addr).expect("room")).collect();
    scene.run(ms(100));
    peers.iter().for_each(|peer| peer.send(b"x"));
    scene.network.advance(ms(2));
    let late = lateness(&mut scene, ms(50), || peers[0].send(b"x"));
    assert!(late <= LATE, "{late:?}");
}

#[test]
fn a_thousand_closes_at_once_put_no_timer_off() {
    let mut scene = Scene::new();
    let count = 1000;
    crowd(&mut scene, count, ListenOptions::default()).into_iter().for_each(PeerSocket::reset);
    let (mut timer, mut closes): (Option<(TimerId, _)>, usize) = (None, 0);
    let end = scene.network.now() + ms(60_000);
    let mut late = None;
    while let Some((_, event)) = scene.reactor.next_before(end).expect("it continues") {
        if let (Event::Timer(fired), Some((set, due))) = (event, timer)
            && fired == set
        {
            late = Some(scene.network.now() - due);
        }
        let is_close = matches!(event, Event::Close(_));
        closes += usize::from(is_close);
        scene.network.spend(HANDLER);
        if is_close && timer.is_none() {
            timer = Some((scene.reactor.set_timer(ms(10)), scene.network.now() + ms(10)));
        }
    }
    assert!(late.is_some_and(|late| late <= LATE), "{late:?}");
    assert_eq!(closes, count, "and each of them comes");
}

/// A deadline and an idle time of a socket that has no input, and the limit of a new one.
#[test]
fn a_limit_counts_from_the_next_call_though_its_socket_is_queued_behind_others() {
    const LIMIT: Duration = ms(100);
    type Set = fn(&mut Socket<'_>, SocketId) -> SocketId;
    let deadline: Set = |socket, id| {
        socket.get(id).expect("it lives").set_deadline(LIMIT);
        id
    };
    let idle: Set = |socket, id| {
        socket.get(id).expect("it lives").set_idle_timeout(LIMIT);
        id
    };
    let connect: Set = |socket, _| {
        let nowhere = SocketAddr::from(([10, 0, 0, 3], 80));
        socket.connect(nowhere, ConnectOptions::default().connect_timeout(LIMIT)).expect("an address")
    };
    for set in [deadline, idle, connect] {
        let mut scene = Scene::new();
        scene.network.vanish(IpAddr::from([10, 0, 0, 3]));
        let peers = crowd(&mut scene, 1000, ListenOptions::default());
        let silent = *scene.stories.keys().nth(900).expect("there are a thousand");
        peers.iter().enumerate().filter(|(at, _)| *at != 900).for_each(|(_, peer)| peer.send(b"x"));
        scene.network.advance(ms(10));
        let mut begun = None;
        let late = with_slow_handlers(&mut scene, ms(5000), |now, socket, event| match begun {
            None if matches!(event, Event::Data(_)) => {
                begun = Some((now, set(socket, silent)));
                None
            }
            Some((begun, id)) if socket.id() == id && matches!(event, Event::Error(_) | Event::Timeout) => {
                Some(now - begun - LIMIT)
            }
            _ => None,
        });
        assert!(late.is_some_and(|late| late <= LATE), "{late:?}");
    }
}

/// Its unread bytes postpone the idle time, which is due first, and not the deadline behind it.
#[test]
fn a_deadline_strikes_a_queued_socket_in_time_though_input_postpones_its_idle_time() {
    const DEADLINE: Duration = ms(300);
    let mut scene = Scene::new();
    let peers = crowd(&mut scene, 1000, ListenOptions::default());
    let last = *scene.stories.keys().nth(900).expect("there are a thousand");
    peers.iter().for_each(|peer| peer.send(b"x"));
    scene.network.advance(ms(10));
    let mut begun = None;
    let late = with_slow_handlers(&mut scene, ms(5000), |now, socket, event| {
        if begun.is_none() {
            begun = Some(now);
            let mut last = socket.get(last).expect("it lives");
            last.set_idle_timeout(ms(100));
            last.set_deadline(DEADLINE);
        }
        let is_over = socket.id() == last && matches!(event, Event::Error(_));
        begun.filter(|_| is_over).map(|begun| now - begun - DEADLINE)
    });
    assert!(late.is_some_and(|late| late <= LATE), "{late:?}");
}

/// A client connects during each handler, and a thousand sockets are ready. Two looks at the clock
/// are 16 handlers apart at most, and 16 clients are accepted after the second.
#[test]
fn a_busy_listener_gives_ready_sockets_no_more_steps_once_a_timer_is_due() {
    for due_in in 50..66 {
        let mut scene = Scene::new();
        let peers = crowd(&mut scene, 1000, ListenOptions::default());
        peers.iter().for_each(|peer| peer.send(b"x"));
        let (addr, mut clients) = (SocketAddr::new(HERE, 80), Vec::new());
        let local = scene.network.peer(THERE);
        let late = lateness(&mut scene, ms(due_in), || clients.push(local.connect(addr).expect("begun")));
        assert!(late <= ms(33), "{late:?}, {due_in}");
    }
}

/// The same after a second in which the listener has always had clients: it accepts 16 at once, after
/// the second look and after the next poll.
#[test]
fn a_flood_of_clients_delays_a_timer_by_two_batches() {
    for due_in in 50..66 {
        let mut scene = Scene::new();
        let peers = crowd(&mut scene, 1000, ListenOptions::default());
        let (addr, mut clients) = (SocketAddr::new(HERE, 80), Vec::new());
        let local = scene.network.peer(THERE);
        let mut connect = || clients.push(local.connect(addr).expect("begun"));
        (0..100).for_each(|_| connect());
        let grown = scene.network.now() + ms(1000);
        with_slow_handlers(&mut scene, ms(2000), |now, _, _| {
            connect();
            (now >= grown).then_some(())
        });
        peers.iter().for_each(|peer| peer.send(b"x"));
        let late = lateness(&mut scene, ms(due_in), &mut connect);
        assert!(late <= ms(66), "{late:?}, {due_in}");
    }
}

/// Each address is an event, and a name can have thousands.
#[test]
fn a_name_with_many_addresses_puts_no_timer_off() {
    let mut scene = Scene::new();
    let addrs: Vec<SocketAddr> = (1..=1000).map(|port| SocketAddr::new(THERE, port)).collect();
    scene.reactor.connect(addrs, ConnectOptions::default()).expect("good addresses");
    let late = lateness(&mut scene, ms(50), || ());
    assert!(late <= LATE, "{late:?}");
}

#[test]
fn a_name_with_many_addresses_puts_no_other_socket_off() {
    let mut scene = Scene::new();
    let peers = crowd(&mut scene, 1, ListenOptions::default());
    let addrs: Vec<SocketAddr> = (1..=1000).map(|port| SocketAddr::new(THERE, port)).collect();
    peers[0].send(b"x");
    scene.network.advance(ms(1));
    scene.reactor.connect(addrs, ConnectOptions::default()).expect("good addresses");
    let began = scene.network.now();
    let data = with_slow_handlers(&mut scene, ms(5000), |now, _, event| matches!(event, Event::Data(_)).then_some(now));
    assert!(data.expect("it has arrived") - began <= LATE);
}

/// The network is down: no attempt to connect can be begun.
#[test]
fn a_name_with_many_addresses_that_can_not_be_reached_puts_no_timer_off() {
    let mut scene = Scene::new();
    scene.network.set_reach(THERE, Reach::NoRoute);
    let addrs: Vec<SocketAddr> = (1..=4000).map(|port| SocketAddr::new(THERE, port)).collect();
    scene.reactor.connect(addrs, ConnectOptions::default()).expect("good addresses");
    for _ in 0..4000 {
        let (_, event) = scene.reactor.next().expect("it continues").expect("an address");
        assert!(matches!(event, Event::Lookup(_)), "{event:?}");
    }
    scene.network.set_call_cost(Duration::from_micros(100));
    let (due, timer) = (scene.network.now() + ms(20), scene.reactor.set_timer(ms(20)));
    let (_, event) = scene.reactor.next().expect("it continues").expect("a timer");
    assert_eq!(event, Event::Timer(timer));
    let late = scene.network.now() - due;
    assert!(late <= LATE, "{late:?}");
}

#[test]
fn many_listeners_without_a_descriptor_put_no_timer_off() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    let _clients: Vec<PeerSocket> = (1..=200)
        .map(|port| {
            scene.reactor.listen((HERE, port), ListenOptions::default()).expect("a free port");
            scene.peer.connect(SocketAddr::new(HERE, port)).expect("begun")
        })
        .collect();
    faulty.always("accept", Errno::MFILE);
    scene.network.advance(ms(100));
    let late = lateness(&mut scene, ms(5), || ());
    assert!(late <= LATE, "{late:?}");
}

/// The last acknowledgement has arrived before the limit, and its socket waits after a hundred
/// others.
#[test]
fn an_acknowledgement_that_came_in_time_confirms_the_close_though_its_socket_was_queued() {
    let mut scene = Scene::new();
    let peers = crowd(&mut scene, 100, ListenOptions::default().close_timeout(LINGER));
    let far = IpAddr::from([10, 0, 0, 3]);
    let client = scene.network.peer(far).connect(SocketAddr::new(HERE, 80)).expect("begun");
    scene.run(ms(100));
    let id = scene.socket.expect("accepted");
    client.finish();
    scene.run(ms(10));
    scene.network.set_delay(far, ms(990));
    scene.with(|socket| socket.end());
    assert_eq!(ending_behind(&mut scene, &peers, id, || {}), Some(EndingKind::Confirmed));
}

#[test]
fn a_reset_before_the_limit_of_a_stop_is_reported_though_one_poll_finds_both() {
    let mut scene = Scene::new();
    let peers = crowd(&mut scene, 1, ListenOptions::default());
    let listener = scene.reactor.listen((HERE, 81), ListenOptions::default()).expect("a free port");
    let client = scene.peer.connect(listener.addr).expect("begun");
    scene.run(ms(100));
    let stop = StopOptions::default().grace(None).limit(ms(500));
    scene.reactor.stop_listener(listener.id, stop).expect("open");
    scene.run(ms(400));
    client.reset();
    // A slow handler: the reset arrives shortly after it has begun.
    scene.network.advance(ms(150));
    scene.run(ms(100));
    let how = scene.ending.as_ref().map(|ending| &ending.kind);
    assert!(matches!(how, Some(EndingKind::Failed(failure)) if failure.kind == ConnectionErrorKind::Reset), "{how:?}");
    drop(peers);
}

/// The peer has finished before the limit, and its socket waits after a hundred others.
#[test]
fn an_end_that_came_in_time_ends_a_lingering_close_though_its_socket_was_queued() {
    let mut scene = Scene::new();
    let peers = crowd(&mut scene, 100, ListenOptions::default().close_timeout(LINGER));
    let client = scene.peer.connect(SocketAddr::new(HERE, 80)).expect("begun");
    scene.run(ms(100));
    let id = scene.socket.expect("accepted");
    scene.with(|socket| {
        socket.end();
        socket.discard();
    });
    let how = ending_behind(&mut scene, &peers, id, || {
        client.send(b"what is dropped");
        client.finish();
    });
    assert_eq!(how, Some(EndingKind::Confirmed));
}

#[test]
fn an_end_before_the_limit_of_a_stop_is_read_though_one_poll_finds_both() {
    let mut scene = Scene::new();
    let listener = scene.reactor.listen((HERE, 81), ListenOptions::default()).expect("a free port");
    let client = scene.peer.connect(listener.addr).expect("begun");
    scene.run(ms(100));
    let stop = StopOptions::default().grace(ms(100)).limit(ms(500));
    scene.reactor.stop_listener(listener.id, stop).expect("open");
    scene.run(ms(400));
    assert!(client.has_fin(), "the grace is over");
    client.finish();
    // A slow handler: the end arrives shortly after it has begun.
    scene.network.advance(ms(150));
    scene.run(ms(100));
    assert_eq!(scene.how(), &EndingKind::Confirmed);
}

/// The last events of a socket that has ended, whose peer finishes shortly before the limit of a
/// stop. It is behind a hundred others: the turn is left before it has a step. `begin` and `handle`
/// are what the program does at first and at each event.
fn stopped_behind(
    options: ListenOptions,
    begin: impl FnOnce(&mut Scene, &PeerSocket),
    mut handle: impl FnMut(&mut Socket<'_>, SocketId),
) -> (Vec<String>, EndingKind) {
    let mut scene = Scene::new();
    let peers = crowd(&mut scene, 100, ListenOptions::default());
    let listener = scene.reactor.listen((HERE, 81), options).expect("a free port");
    let client = scene.peer.connect(listener.addr).expect("begun");
    scene.run(ms(100));
    let id = scene.socket.expect("accepted");
    begin(&mut scene, &client);
    scene.with(|socket| socket.end());
    scene.reactor.stop_listener(listener.id, StopOptions::default().grace(None).limit(ms(500))).expect("open");
    scene.run(ms(480));
    assert!(client.has_fin());
    peers.iter().for_each(|peer| peer.send(b"x"));
    client.finish();
    scene.network.advance(ms(5));
    let mut story = Vec::new();
    let how = with_slow_handlers(&mut scene, ms(1000), |_, socket, event| {
        match event {
            Event::Close(ending) if socket.id() == id => return Some(ending.kind.clone()),
            _ if socket.id() == id => story.push(format!("{event:?}")),
            _ => handle(socket, id),
        }
        None
    });
    (story, how.expect("it is closed"))
}

#[test]
fn an_end_before_the_limit_of_a_stop_is_read_though_its_socket_was_queued() {
    let story = stopped_behind(ListenOptions::default(), |_, _| (), |_, _| ());
    assert_eq!(story, (vec!["End".to_owned()], EndingKind::Confirmed));
}

#[test]
fn the_notice_of_an_end_precedes_it_though_the_limit_of_a_stop_has_found_it() {
    let story = stopped_behind(ListenOptions::default().notify_peer_ended(true), |_, _| (), |_, _| ());
    assert_eq!(story, (vec!["PeerEnded(Fin)".to_owned(), "End".to_owned()], EndingKind::Confirmed));
}

/// The FINs cross, and one poll finds the peer's and a deadline that has passed.
#[test]
fn the_notice_of_an_end_says_so_though_a_deadline_that_has_passed_has_found_it() {
    let mut scene = Scene::new();
    let peers = crowd(&mut scene, 100, ListenOptions::default().notify_peer_ended(true));
    let far = IpAddr::from([10, 0, 0, 3]);
    scene.network.set_delay(far, ms(100));
    let client = scene.network.peer(far).connect(SocketAddr::new(HERE, 80)).expect("begun");
    scene.run(ms(500));
    let id = scene.socket.expect("accepted");
    client.finish();
    scene.run(ms(80));
    scene.with(|socket| {
        socket.set_deadline(ms(25));
        socket.end();
    });
    scene.run(ms(5));
    peers.iter().for_each(|peer| peer.send(b"x"));
    scene.network.advance(ms(30));
    let mut story = Vec::new();
    with_slow_handlers(&mut scene, ms(1000), |_, socket, event| {
        if socket.id() == id {
            story.push(format!("{event:?}"));
        }
        matches!(event, Event::Close(ending) if socket.id() == id).then_some(())
    });
    assert_eq!(story[..2], ["PeerEnded(Fin)", "End"], "{story:?}");
    assert!(story[2].contains("TimedOut(Deadline)"), "{story:?}");
}

#[test]
fn a_socket_that_was_destroyed_before_the_limit_of_a_stop_is_destroyed() {
    let destroy = |socket: &mut Socket<'_>, id| socket.get(id).into_iter().for_each(|mut socket| socket.destroy());
    assert_eq!(stopped_behind(ListenOptions::default(), |_, _| (), destroy), (vec![], EndingKind::Destroyed));
}

/// A clean end would look as if the buffer had never had anything.
#[test]
fn a_buffer_that_is_filled_in_part_is_not_lost_at_a_clean_end_that_the_limit_of_a_stop_has_found() {
    let fill = |scene: &mut Scene, client: &PeerSocket| {
        scene.with(|socket| socket.fill(Vec::new(), 99).expect("open"));
        client.send(b"abc");
        scene.run(ms(100));
    };
    let (story, how) = stopped_behind(ListenOptions::default(), fill, |_, _| ());
    assert!(story.contains(&"Filled".to_owned()) || how == EndingKind::Destroyed, "{story:?}, {how:?}");
}

/// The limit of the stop has found the reset, the turn was left for a timer before the error was
/// delivered, and a second stop strikes at once.
#[test]
fn a_reset_that_a_stop_has_found_is_reported_though_a_second_stop_destroys_what_is_left() {
    let mut scene = Scene::new();
    let peers = crowd(&mut scene, 100, ListenOptions::default());
    let listener = scene.reactor.listen((HERE, 81), ListenOptions::default().start_paused(true)).expect("a free port");
    let client = scene.peer.connect(listener.addr).expect("begun");
    scene.run(ms(100));
    let id = scene.socket.expect("accepted");
    scene.reactor.stop_listener(listener.id, StopOptions::default().grace(None).limit(ms(500))).expect("open");
    scene.run(ms(400));
    peers.iter().for_each(|peer| peer.send(b"x"));
    client.reset();
    scene.network.advance(ms(150));
    let timer = scene.reactor.set_timer(ms(1));
    let mut story = Vec::new();
    let end = scene.network.now() + ms(1000);
    while let Some((socket, event)) = scene.reactor.next_before(end).expect("it continues") {
        if socket.id() == id {
            story.push(event.to_string());
        }
        if event == Event::Timer(timer) {
            assert!(story.is_empty(), "its turn has not come yet: {story:?}");
            let now = StopOptions::default().limit(Duration::ZERO);
            scene.reactor.stop_listener(listener.id, now).expect("its socket lives");
        }
        scene.network.spend(HANDLER);
    }
    let [error, close] = &*story else { panic!("{story:?}") };
    assert!(error.starts_with("error: reset") && close.starts_with("close: error: reset"), "{story:?}");
}

#[test]
fn a_broken_connection_that_is_paused_with_its_last_bytes_reports_its_error_at_once() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().start_paused(true));
    peer.send(b"unread");
    scene.expect(&[]);
    peer.reset();
    scene.expect(&["peerended(reset)"]);
    scene.with(|socket| socket.resume());
    let (begun, mut error) = (scene.network.now(), None);
    while let Some((mut socket, event)) = scene.reactor.next_before(begun + ms(3_600_000)).expect("it continues") {
        match event {
            Event::Data(_) => socket.pause(),
            Event::Error(failure) => error = Some((failure.kind, scene.network.now() - begun)),
            _ => {}
        }
    }
    assert!(matches!(error, Some((ConnectionErrorKind::Reset, after)) if after <= ms(1)), "{error:?}");
}

#[test]
fn a_paused_connection_that_epoll_has_no_room_for_learns_of_its_reset() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    faulty.always("register", Errno::NOSPC);
    let peer = scene.serve(ListenOptions::default().start_paused(true));
    scene.run(ms(100));
    peer.reset();
    scene.run(ms(100));
    assert_eq!(scene.cause(), ConnectionErrorKind::Reset);
}

#[test]
fn a_listener_that_epoll_has_no_room_for_reports_it_once_and_accepts_after_a_pause() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    scene.reactor.pause_accepting(listener.id).expect("open");
    let mut clients = vec![scene.peer.connect(listener.addr).expect("begun")];
    scene.run(ms(10));
    faulty.always("set_accepting", Errno::NOSPC);
    scene.reactor.resume_accepting(listener.id).expect("open");
    scene.run(ms(1000));
    assert!(faulty.failures("set_accepting") > 5, "it is tried again, and not without a pause");
    assert!(faulty.failures("set_accepting") < 15, "{}", faulty.failures("set_accepting"));
    clients.push(scene.peer.connect(listener.addr).expect("begun"));
    scene.run(ms(200));
    let [first, error, second] = &*scene.story else { panic!("{:?}", scene.story) };
    assert_eq!([first, second], ["connection"; 2]);
    assert!(error.starts_with("rests ") && error.contains("28"), "{error}");
    faulty.heal();
    scene.run(ms(200));
    clients.push(scene.peer.connect(listener.addr).expect("begun"));
    scene.run(ms(30));
    assert_eq!(scene.story.len(), 4, "it is watched again");
}

#[test]
fn a_limit_that_strikes_a_queued_socket_names_itself() {
    let mut scene = Scene::new();
    let peers = crowd(&mut scene, 100, ListenOptions::default().deadline(ms(1000)));
    let ids: Vec<SocketId> = scene.stories.keys().copied().collect();
    peers.iter().for_each(|peer| peer.send(b"x"));
    let mut causes = Vec::new();
    let _: Option<()> = with_slow_handlers(&mut scene, ms(2000), |_, _, event| {
        if let Event::Error(failure) = event {
            causes.push(failure.kind);
        }
        None
    });
    assert_eq!(causes, vec![ConnectionErrorKind::TimedOut(TimeoutKind::Deadline); ids.len()]);
}

/// A loop that watches the reactor's descriptor does not sleep while the last turn has left an
/// event.
#[test]
fn a_turn_that_is_under_way_is_due_at_once_though_no_socket_is_at_hand() {
    let (mut scene, faulty) = faulty_on(Network::new(7));
    faulty.always("accept", Errno::MFILE);
    let listener = scene.reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let _client = scene.peer.connect(listener.addr).expect("begun");
    let remote = scene.reactor.waker();
    scene.network.advance(ms(10));
    remote.wake().expect("it lives");
    let now = scene.network.now();
    let (_, event) = scene.reactor.next_before(now).expect("it continues").expect("the listener can't accept");
    assert!(matches!(event, Event::AcceptFailed(..)), "{event:?}");
    assert!(scene.reactor.next_deadline().is_some_and(|due| due <= now), "the wake is not delivered yet");
    let (_, event) = scene.reactor.next_before(now).expect("it continues").expect("the wake");
    assert_eq!(event, Event::Woken);
}

/// The process was stopped meanwhile, and a hundred sockets are ready: the limit strikes first.
#[test]
fn addresses_that_were_found_are_not_delivered_after_the_connect_timeout() {
    let mut scene = Scene::new();
    let peers = crowd(&mut scene, 100, ListenOptions::default());
    scene.network.name("host.example", vec![THERE, IpAddr::from([10, 0, 0, 3])]);
    let options = ConnectOptions::default().connect_timeout(ms(500));
    let id = scene.reactor.connect(("host.example", 80), options).expect("a name");
    let now = scene.network.now();
    assert!(scene.reactor.next_before(now).expect("it continues").is_none(), "the lookup begins");
    peers.iter().for_each(|peer| peer.send(b"x"));
    scene.network.advance(ms(1000));
    scene.run(ms(1000));
    assert!(matches!(&*scene.stories[&id], [error, close] if error.starts_with("error timed out") && close == "close"));
}
