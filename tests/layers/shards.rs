//! Several reactors on one port, and messages into a reactor: on threads, and on the simulated
//! network.

use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use finale::sim::{Host, Network};
use finale::{
    BoundAddr, Error, Event, ListenOptions, Reactor, SendError, Shard, ShardEnd, Shards, Socket, StopOptions,
};
use support::own_ip;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const ANY_PORT: &str = "127.0.0.1:0";

/// Sends back what arrives, and ends when the client does.
fn echo(socket: &mut Socket<'_>, event: &Event<'_>) {
    match event {
        Event::Data(bytes) => drop(socket.write(bytes)),
        Event::End => socket.end(),
        _ => {}
    }
}

fn serve(mut shard: Shard) -> Result<(), Error> {
    while let Some((mut socket, event)) = shard.next()? {
        echo(&mut socket, &event);
    }
    Ok(())
}

fn ask(addr: BoundAddr) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    stream.write_all(b"hello").expect("open");
    stream.shutdown(Shutdown::Write).expect("open");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    answer
}

#[test]
fn all_shards_serve_one_port_and_end_together_when_told() {
    let served = Arc::new(Mutex::new([0, 0]));
    let (sums, threads) = (Arc::clone(&served), Arc::new(Mutex::new(Vec::new())));
    let names = Arc::clone(&threads);
    let (shards, addr) = Shards::start(2, (own_ip(), 0), ListenOptions::default(), move |mut shard| {
        names.lock().expect("whole").push(thread::current().name().map(str::to_owned));
        while let Some((mut socket, event)) = shard.next()? {
            echo(&mut socket, &event);
            if let Event::Close(ending) = event {
                assert!(ending.is_acknowledged(), "{ending}");
                sums.lock().expect("whole")[shard.index()] += 1;
            }
        }
        Ok(())
    })
    .expect("two reactors");
    for _ in 0..100 {
        assert_eq!(ask(addr), b"hello");
    }
    shards.stopper().stop(StopOptions::default());
    shards.join().expect("both end well");
    let served = *served.lock().expect("whole");
    assert_eq!(served.iter().sum::<i32>(), 100);
    assert!(served.iter().all(|count| *count > 10), "the kernel spreads them: {served:?}");
    let mut names = threads.lock().expect("whole").clone();
    names.sort();
    assert_eq!(names, ["finale-shard-0", "finale-shard-1"].map(|name| Some(name.to_owned())));
    assert!(TcpStream::connect(addr).is_err(), "nothing listens any more");
}

#[test]
fn who_is_being_served_is_served_to_the_end() {
    let (shards, addr) = Shards::start(2, ANY_PORT, ListenOptions::default(), serve).expect("two reactors");
    let mut client = TcpStream::connect(addr).expect("it listens");
    client.write_all(b"first ").expect("open");
    let mut first = [0; 6];
    client.read_exact(&mut first).expect("an echo");
    client.write_all(b"second").expect("open");
    shards.stopper().stop(StopOptions::default().grace(None));
    client.shutdown(Shutdown::Write).expect("open");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("no reset");
    assert_eq!(rest, b"second");
    shards.join().expect("both end well");
}

#[test]
fn a_program_that_fails_stops_the_others_and_its_error_comes_up() {
    let (shards, _) = Shards::start(3, ANY_PORT, ListenOptions::default(), |shard| match shard.index() {
        1 => Err(Error::WriteAfterEnd),
        _ => serve(shard),
    })
    .expect("three reactors");
    assert_eq!(shards.join(), Err(Error::WriteAfterEnd));
}

#[test]
fn a_program_that_panics_stops_the_others_and_its_panic_comes_up() {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let (shards, _) = Shards::start(3, ANY_PORT, ListenOptions::default(), move |shard| {
        assert!(shard.index() != 2, "the third falls");
        serve(shard)?;
        count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    })
    .expect("three reactors");
    let panic = catch_unwind(AssertUnwindSafe(|| shards.join())).expect_err("it comes up");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"the third falls"));
    assert_eq!(ended.load(Ordering::Relaxed), 2, "the others ended first, in good order");
}

/// One shard ends in each of three ways while another serves a client.
#[test]
fn the_end_of_a_shard_is_known_at_once_and_the_others_continue_until_the_program_stops_them() {
    let (to_fall, fall) = channel::<&str>();
    let fall = Mutex::new(fall);
    let (mut shards, addr) = Shards::start(4, ANY_PORT, ListenOptions::default(), move |shard| {
        if shard.index() > 0 {
            match fall.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv() {
                Ok("panics") => panic!("a mistake"),
                Ok("fails") => return Err(Error::WriteAfterEnd),
                _ => return Ok(()),
            }
        }
        serve(shard)
    })
    .expect("four reactors");
    // The kernel chooses a shard; only the first one answers.
    let mut client = loop {
        let mut client = TcpStream::connect(addr).expect("it listens");
        client.set_read_timeout(Some(Duration::from_millis(100))).expect("a limit");
        client.write_all(b"hello").expect("open");
        if client.read_exact(&mut [0; 5]).is_ok() {
            break client;
        }
    };
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    assert!(shards.try_wait().is_none(), "all run");
    let mut ends = Vec::new();
    for way in ["panics", "fails", "returns"] {
        to_fall.send(way).expect("a shard waits for it");
        // A stop would take a second, the grace for the client, and thirty if it is busy.
        let (index, end) = shards.wait().expect("one ends");
        assert!((1..4).contains(&index));
        ends.push(end.to_string());
        client.write_all(b"hello").expect("open");
        client.read_exact(&mut [0; 5]).expect("the first shard serves it");
    }
    assert_eq!(ends, ["has panicked: a mistake", &format!("has failed: {}", Error::WriteAfterEnd), "has ended"]);
    assert!(!shards.stopper().is_stopping() && shards.try_wait().is_none());
    shards.stopper().stop(StopOptions::default());
    client.shutdown(Shutdown::Write).expect("open");
    assert!(matches!(shards.wait(), Some((0, ShardEnd::Returned))));
    assert!(shards.wait().is_none(), "all results were returned");
}

/// Also one that has ended before the call.
#[test]
fn a_reactor_of_another_thread_is_woken_at_the_end_of_each_shard() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let (mut shards, _) = Shards::start(2, ANY_PORT, ListenOptions::default(), move |shard| {
        if shard.index() == 1 {
            let _ = wait.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv();
        }
        Ok(())
    })
    .expect("two reactors");
    let mut control = Reactor::new().expect("a reactor");
    let mut ends = Vec::new();
    shards.wake_at_end(control.waker());
    for (count, go) in [(1, None), (2, Some(go))] {
        drop(go);
        while ends.len() < count {
            let (_, event) = control.next().expect("it waits").expect("a waker is left");
            assert_eq!(event, Event::Woken);
            while let Some((index, _)) = shards.try_wait() {
                ends.push(index);
            }
        }
    }
    assert_eq!(ends, [0, 1]);
}

#[test]
fn an_error_that_was_waited_for_does_not_come_up_again() {
    let (mut shards, _) = Shards::start(2, ANY_PORT, ListenOptions::default(), |shard| match shard.index() {
        1 => Err(Error::WriteAfterEnd),
        _ => serve(shard),
    })
    .expect("two reactors");
    assert!(matches!(shards.wait(), Some((1, ShardEnd::Failed(Error::WriteAfterEnd)))));
    assert!(!shards.stopper().is_stopping(), "the other one continues");
    shards.stopper().stop(StopOptions::default());
    assert_eq!(shards.join(), Ok(()));
}

/// The program has taken the wake, and not the messages.
#[test]
fn a_message_that_finds_the_inbox_full_wakes_the_reactor_again() {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host(HERE));
    let (sender, mut inbox) = reactor.inbox(1);
    sender.send("one").expect("room");
    let (_, event) = reactor.next().expect("it continues").expect("a wake");
    assert_eq!(event, Event::Woken);
    assert!(reactor.next_before(network.now()).expect("it continues").is_none(), "one wake, one event");
    assert_eq!(sender.send("two"), Err(SendError::Full("two")));
    let (_, event) = reactor.next_before(network.now()).expect("it continues").expect("another wake");
    assert_eq!((event, inbox.take()), (Event::Woken, Some("one")));
}

#[test]
fn dropping_the_shards_stops_them_and_waits() {
    let (shards, addr) = Shards::start(2, ANY_PORT, ListenOptions::default(), serve).expect("two reactors");
    assert_eq!(ask(addr), b"hello");
    drop(shards);
    assert!(TcpStream::connect(addr).is_err(), "nothing listens any more");
}

#[test]
fn an_address_in_use_leaves_nothing_running() {
    let taken = std::net::TcpListener::bind(ANY_PORT).expect("a free port");
    let addr = taken.local_addr().expect("bound");
    let refused = Shards::start(2, addr, ListenOptions::default(), |_| panic!("nothing runs"));
    assert!(matches!(refused, Err(Error::Listen { .. })));
}

/// Two shards on a simulated machine, and a client of twenty connections on another.
/// Otherwise a second program, started by mistake, would get some of the clients of the first.
#[test]
fn the_port_of_shards_is_theirs_unless_they_share_it_by_request() {
    let start = |addr, options| Shards::start(2, addr, options, serve);
    let (shards, addr) = start(ANY_PORT.to_owned(), ListenOptions::default()).expect("a free port");
    for second in [ListenOptions::default(), ListenOptions::default().reuse_port(true)] {
        let refused = start(addr.to_string(), second.clone()).map(|(_, addr)| addr);
        // The kernel lets a program of the same user join the group, if it asks for that.
        assert_eq!(refused.is_err(), second == ListenOptions::default(), "{refused:?}");
    }
    drop(shards);
    let shared = ListenOptions::default().reuse_port(true);
    let (first, addr) = start(ANY_PORT.to_owned(), shared.clone()).expect("a free port");
    let (second, same) = start(addr.to_string(), shared).expect("a shared port");
    assert_eq!(addr, same);
    drop((first, second));

    let network = Network::new(3);
    let open = |options| {
        let reactors = vec![Reactor::with_net(network.host(HERE)), Reactor::with_net(network.host(HERE))];
        Shard::open(reactors, (HERE, 80), options)
    };
    let _shards = open(ListenOptions::default()).expect("a free port");
    open(ListenOptions::default()).expect_err("the port is taken");
}

#[test]
fn the_same_program_runs_on_the_simulated_network() {
    let network = Network::new(3);
    let reactors = vec![Reactor::with_net(network.host(HERE)), Reactor::with_net(network.host(HERE))];
    let (mut shards, orders, addr) = Shard::open(reactors, (HERE, 80), ListenOptions::default()).expect("a free port");
    let clients: Vec<_> = (0..20).map(|_| network.peer(THERE).connect(addr).expect("begun")).collect();
    let closes = [Cell::new(0), Cell::new(0)];
    let run = |shards: &mut Vec<Shard<Host>>, time: Duration| {
        let until = network.now() + time;
        while network.now() < until {
            for shard in shards.iter_mut() {
                while let Some((mut socket, event)) = shard.next_before(network.now()).expect("it continues") {
                    echo(&mut socket, &event);
                    if matches!(event, Event::Close(_)) {
                        closes[shard.index()].set(closes[shard.index()].get() + 1);
                    }
                }
            }
            network.advance(Duration::from_millis(1));
        }
    };
    run(&mut shards, Duration::from_millis(20));
    clients.iter().for_each(|client| client.send(b"hello"));
    run(&mut shards, Duration::from_millis(20));
    orders.stop(StopOptions::default());
    clients.iter().for_each(|client| client.finish());
    run(&mut shards, Duration::from_millis(100));
    assert!(clients.iter().all(|client| client.read() == b"hello"));
    assert_eq!(closes.iter().map(Cell::get).sum::<i32>(), 20);
    assert!(closes.iter().all(|count| count.get() > 0), "{closes:?}");
    assert!(shards.iter_mut().all(Shard::is_over));
}

/// A stop and a listener that is opened meanwhile may cross.
#[test]
fn a_listener_that_is_opened_after_the_order_is_stopped_as_well() {
    let network = Network::new(3);
    let reactors = vec![Reactor::with_net(network.host(HERE))];
    let (mut shards, orders, _) = Shard::open(reactors, (HERE, 80), ListenOptions::default()).expect("a free port");
    let mut shard = shards.remove(0);
    orders.stop(StopOptions::default());
    let until = network.now() + Duration::from_secs(60);
    assert!(shard.next_before(until).expect("it continues").is_some(), "the order");
    shard.reactor().listen((HERE, 81), ListenOptions::default()).expect("a free port");
    while shard.next_before(until).expect("it continues").is_some() {}
    assert!(shard.is_over());
}

#[test]
fn an_inbox_holds_so_many_messages_and_gives_the_next_one_back() {
    let mut reactor = Reactor::with_net(Network::new(1).host(HERE));
    let (sender, mut inbox) = reactor.inbox(2);
    assert_eq!((sender.send("one"), sender.send("two")), (Ok(()), Ok(())));
    assert_eq!(sender.send("three"), Err(SendError::Full("three")));
    let (_, event) = reactor.next().expect("it continues").expect("a wake");
    assert_eq!(event, Event::Woken);
    assert_eq!((inbox.take(), inbox.take(), inbox.take()), (Some("one"), Some("two"), None));
    sender.send("four").expect("room");
    drop(inbox);
    assert_eq!(sender.send("five"), Err(SendError::Gone("five")));
    let (sender, _inbox) = reactor.inbox(2);
    drop(reactor);
    assert_eq!(sender.send("six"), Err(SendError::Gone("six")), "the inbox is gone");
    // A message may be of any type, so neither form prints it.
    for (error, shown, hint) in
        [(SendError::Full(()), "Full(..)", "its reactor is too slow"), (SendError::Gone(()), "Gone(..)", "is gone")]
    {
        assert_eq!(format!("{error:?}"), shown);
        assert!(error.to_string().contains(hint), "{error}");
    }
    assert!(format!("{sender:?}").starts_with("Sender"));
}

/// A listener that the program has opened itself is stopped with the others, and the program can
/// end a client that continues to send requests.
#[test]
fn an_order_to_stop_is_for_every_listener_of_a_shard_and_its_program_hears_of_it() {
    let network = Network::new(3);
    let (mut shards, orders, _) =
        Shard::open(vec![Reactor::with_net(network.host(HERE))], (HERE, 80), ListenOptions::default())
            .expect("a free port");
    let mut shard = shards.remove(0);
    let own = shard.reactor().listen((HERE, 81), ListenOptions::default()).expect("a free port");
    let client = network.peer(THERE).connect(own.addr).expect("begun");
    let run = |shard: &mut Shard<Host>| {
        let until = network.now() + Duration::from_millis(100);
        let mut has_heard = false;
        while let Some((mut socket, event)) = shard.next_before(until).expect("it continues") {
            echo(&mut socket, &event);
            has_heard |= event == Event::Woken;
        }
        has_heard && shard.is_stopping()
    };
    client.send(b"hello");
    assert!(!run(&mut shard));
    orders.stop(StopOptions::default());
    assert!(run(&mut shard));
    assert!(
        network.peer(THERE).connect(own.addr).is_ok_and(|late| {
            run(&mut shard);
            late.is_reset()
        }),
        "nothing listens"
    );
    client.finish();
    run(&mut shard);
    assert!(client.read() == b"hello" && client.has_fin());
    assert!(shard.is_over());
}

/// A shard of one listener on the simulated network, and two clients: one is idle, and the other
/// sends a byte in each step of 100 ms.
fn stopping_shard(stops: &[StopOptions]) -> (Vec<finale::sim::PeerSocket>, Vec<Duration>) {
    const STEP: Duration = Duration::from_millis(100);
    let network = Network::new(3);
    let reactors = vec![Reactor::with_net(network.host(HERE))];
    let (mut shards, stopper, addr) = Shard::open(reactors, (HERE, 80), ListenOptions::default()).expect("a free port");
    let clients: Vec<_> = (0..2).map(|_| network.peer(THERE).connect(addr).expect("begun")).collect();
    let mut stops = stops.iter().copied();
    let mut ended = vec![Duration::ZERO; 2];
    for _ in 0..40 {
        let until = network.now() + STEP;
        while let Some((mut socket, event)) = shards[0].next_before(until).expect("it continues") {
            echo(&mut socket, &event);
        }
        // A shard that is over waits no longer.
        network.advance(until.saturating_duration_since(network.now()));
        if let Some(stop) = stops.next() {
            stopper.stop(stop);
        }
        clients[1].send(b"x");
        for (client, ended) in clients.iter().zip(&mut ended) {
            *ended += if client.has_fin() || client.is_reset() { Duration::ZERO } else { STEP };
        }
    }
    (clients, ended)
}

#[test]
fn the_grace_of_a_shard_counts_from_the_stop_however_many_events_follow() {
    let (clients, ended) = stopping_shard(&[StopOptions::default().limit(None)]);
    assert!(clients[0].has_fin() && !clients[1].has_fin(), "the idle one has ended");
    assert!((Duration::from_millis(1000)..=Duration::from_millis(1300)).contains(&ended[0]), "{ended:?}");
}

#[test]
fn a_second_stop_of_shards_replaces_the_first() {
    let slow = StopOptions::default().grace(None).limit(None);
    let (clients, ended) = stopping_shard(&[slow, slow, slow.limit(Duration::ZERO)]);
    assert!(clients.iter().all(finale::sim::PeerSocket::is_reset), "{ended:?}");
    assert!(ended.iter().all(|ended| *ended <= Duration::from_millis(500)), "{ended:?}");
}

#[test]
fn a_thousand_messages_from_each_of_four_threads_come_in_their_order_with_fewer_wakes() {
    let mut reactor = Reactor::new().expect("descriptors");
    let (sender, mut inbox) = reactor.inbox(64);
    let threads: Vec<_> = (0..4)
        .map(|whose| {
            let sender = sender.clone();
            thread::spawn(move || {
                for number in 0..1000 {
                    let mut message = (whose, number);
                    while let Err(SendError::Full(back)) = sender.send(message) {
                        message = back;
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    drop(sender);
    let (mut next, mut wakes) = ([0; 4], 0);
    while let Some((_, event)) = reactor.next().expect("it continues") {
        assert_eq!(event, Event::Woken);
        wakes += 1;
        while let Some((whose, number)) = inbox.take() {
            assert_eq!(number, next[whose as usize], "of thread {whose}");
            next[whose as usize] += 1;
        }
    }
    assert_eq!(next, [1000; 4]);
    assert!(wakes > 0);
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

#[test]
fn a_message_wakes_a_reactor_that_waits_for_ever() {
    let mut reactor = Reactor::new().expect("descriptors");
    let (sender, mut inbox) = reactor.inbox(1);
    let (ready, is_ready) = channel();
    let thread = thread::spawn(move || {
        is_ready.recv().expect("delivered");
        sender.send(7).expect("room");
    });
    ready.send(()).expect("it waits");
    let (_, event) = reactor.next().expect("it continues").expect("a wake");
    assert_eq!((event, inbox.take()), (Event::Woken, Some(7)));
    assert!(reactor.next().expect("it continues").is_none(), "no sender is left");
    thread.join().expect("no panic");
}
