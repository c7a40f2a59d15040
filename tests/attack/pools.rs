//! Pools whose sockets fill buffers and have kernel pipes, pools that are dropped, and reactors that are
//! given up, with ids of another one.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use finale::sim::{Host, Network, PeerSocket};
use finale::{ConnectOptions, Event, ListenOptions, Pipes, Pool, PoolEvent, PoolOptions, PoolReply, Reactor, SocketId};

use support::scene::{HERE, THERE};
use support::{Transcript, descriptors, dial, ms, work_for};

const SECOND: Duration = Duration::from_secs(1);

const SERVER: SocketAddr = SocketAddr::new(THERE, 80);

/// Bytes in a kernel pipe have arrived and were not read: they are no answer of the next request.
#[test]
fn bytes_in_a_kernel_pipe_or_a_buffer_are_not_leased_to_the_next_request() {
    for fills in [false, true] {
        let network = Network::new(11);
        let mut reactor = Reactor::with_net(network.host(HERE));
        let server = network.peer(THERE).listen(SERVER).expect("a free port");
        let mut pool = Pool::new(SERVER, ConnectOptions::default(), PoolOptions::default().size(1)).expect("options");
        let tickets = [(); 2].map(|()| pool.request(&mut reactor.context()));
        let (mut leased, mut servers, mut wrong): (Vec<SocketId>, Vec<PeerSocket>, _) = (Vec::new(), Vec::new(), None);
        for _ in 0..20 {
            let until = network.now() + SECOND;
            loop {
                while let Some((_, reply)) = pool.next_reply(&mut reactor.context()) {
                    let PoolReply::Leased(id) = reply else { panic!("{reply:?}") };
                    leased.push(id);
                    let mut socket = reactor.socket(id).expect("it lives");
                    socket.write(b"question").expect("open");
                    if leased.len() == 1 {
                        match fills {
                            true => socket.fill(Vec::new(), 100).expect("it can be read"),
                            false => socket.splice_next(),
                        }
                    }
                }
                let Some((mut socket, event)) = reactor.next_before(until).expect("it continues") else { break };
                let pooled = pool.handle(&mut socket, &event);
                match (pooled, event) {
                    (PoolEvent::Leased(ticket), Event::Spliced(_)) => {
                        assert!(socket.has_unread(), "it was not delivered");
                        pool.give_back(ticket, &mut socket.context());
                    }
                    (PoolEvent::Leased(ticket), Event::Data(bytes)) if ticket == tickets[1] => {
                        wrong = Some(String::from_utf8_lossy(bytes).into_owned());
                    }
                    _ => {}
                }
            }
            servers.extend(std::iter::from_fn(|| server.accept()));
            if let Some(first) = servers.first().filter(|_| leased.len() == 1) {
                first.send(b"the first answer");
            }
            if fills && leased.len() == 1 && !servers.is_empty() {
                let mut socket = reactor.socket(leased[0]).expect("it lives");
                if socket.bytes_read() > 0 {
                    assert!(socket.is_filling(), "it was not delivered");
                    pool.give_back(tickets[0], &mut socket.context());
                }
            }
        }
        assert_eq!((leased.len(), wrong), (2, None), "fills: {fills}");
    }
}

/// What a pool that is dropped leaves to its reactor: sockets with a part of a buffer, with bytes
/// in a kernel pipe, with a queue, paused, and one that is not connected.
#[test]
fn a_dropped_pool_leaves_nothing_whatever_its_sockets_do() {
    type Act = fn(&mut finale::Socket<'_>);
    let acts: [Act; 6] = [
        |socket| socket.fill(Vec::new(), 1_000).expect("it can be read"),
        |socket| socket.splice_next(),
        |socket| _ = socket.write_owned(vec![0; 1 << 20]).expect("open"),
        |socket| socket.pause(),
        |socket| {
            socket.splice_next();
            socket.hold();
        },
        |_| (),
    ];
    for act in acts {
        for is_in_handler in [false, true] {
            let network = Network::new(11);
            network.set_buffers(64 * 1024, 64 * 1024);
            let mut reactor = Reactor::with_net(network.host(HERE));
            let server = network.peer(THERE).listen(SERVER).expect("a free port");
            let options = PoolOptions::default().size(4);
            let pool = Pool::new(SERVER, ConnectOptions::default(), options).expect("options");
            let (mut pool, mut servers) = (Some(pool), Vec::new());
            if let Some(pool) = &mut pool {
                (0..3).for_each(|_| _ = pool.request(&mut reactor.context()));
            }
            let mut leased = Vec::new();
            for turn in 0..3 {
                let until = network.now() + SECOND;
                loop {
                    while let Some(Some((_, PoolReply::Leased(id)))) =
                        pool.as_mut().map(|pool| pool.next_reply(&mut reactor.context()))
                    {
                        act(&mut reactor.socket(id).expect("it lives"));
                        leased.push(id);
                    }
                    let Some((mut socket, event)) = reactor.next_before(until).expect("it continues") else { break };
                    if let Some(pool) = &mut pool {
                        pool.handle(&mut socket, &event);
                    }
                    if is_in_handler && turn == 1 && matches!(event, Event::Data(_) | Event::Spliced(_)) {
                        pool = None;
                    }
                }
                servers.extend(std::iter::from_fn(|| server.accept()));
                servers.iter().for_each(|server: &PeerSocket| server.send(b"some bytes"));
            }
            drop(pool);
            let until = network.now() + SECOND;
            while reactor.next_before(until).expect("it continues").is_some() {}
            let left: Vec<_> = reactor.sockets().iter().map(|socket| socket.id).collect();
            assert!(left.iter().all(|id| !leased.contains(id)), "leased ones are reset: {}", reactor.sockets());
            drop(servers);
            let until = network.now() + 60 * SECOND;
            while reactor.next_before(until).expect("it continues").is_some() {}
            assert!(reactor.is_empty(), "{}", reactor.sockets());
            assert_eq!(reactor.next_deadline(), None);
        }
    }
}

#[test]
fn a_pool_that_another_thread_drops_wakes_a_reactor_that_waits_without_a_limit() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = server.local_addr().expect("bound");
    let mut reactor = Reactor::new().expect("epoll");
    let mut pool = Pool::new(addr, ConnectOptions::default(), PoolOptions::default().size(2)).expect("options");
    pool.request(&mut reactor.context());
    let mut leased = None;
    while leased.is_none() {
        let (mut socket, event) = reactor.next().expect("it continues").expect("it connects");
        pool.handle(&mut socket, &event);
        leased = pool.next_reply(&mut socket.context());
    }
    let other = std::thread::spawn(move || {
        work_for(ms(50));
        drop(pool);
        work_for(ms(50));
        drop(server);
    });
    while let Some((mut socket, event)) = reactor.next().expect("it continues") {
        if let Event::End = event {
            socket.end();
        }
    }
    assert!(reactor.is_empty());
    other.join().expect("no panic");
}

#[test]
fn a_pool_and_pipes_of_another_reactor_open_change_and_end_nothing_here() {
    let network = Network::new(1);
    let mut reactors = [HERE, THERE].map(|ip| Reactor::with_net(network.host(ip)));
    let [here, there] = &mut reactors;
    let ids = [&mut *here, &mut *there].map(|reactor| {
        let listener = reactor.listen("0.0.0.0:80", ListenOptions::default());
        drop(listener);
        [(); 2].map(|()| reactor.connect(SERVER, ConnectOptions::default()).expect("an address"))
    });
    let mut pipes = Pipes::new();
    for (one, other) in [(ids[0][0], ids[1][0]), (ids[1][0], ids[0][0]), (ids[1][0], ids[1][1])] {
        assert!(pipes.join(&mut here.context(), one, other).is_err());
        assert!(pipes.pipe(&mut here.context(), one, other).is_err());
    }
    assert!(ids.iter().flatten().all(|id| pipes.sink_of(*id).is_none() && pipes.source_of(*id).is_none()));
    let mut socket = here.socket(ids[0][0]).expect("its own");
    assert!(socket.forward(ids[1][0]).is_err() && socket.get(ids[1][0]).is_none());
    let mut context = socket.context();
    assert!(context.socket(ids[1][0]).is_none() && context.socket(ids[0][1]).is_some());
    let timer = there.set_timer(SECOND);
    assert!(!here.context().cancel_timer(timer) && there.context().cancel_timer(timer));
    let mut pool = Pool::new(SERVER, ConnectOptions::default(), PoolOptions::default()).expect("options");
    let ticket = pool.request(&mut there.context());
    let before = here.len();
    pool.open(&mut here.context());
    assert!(pool.next_reply(&mut here.context()).is_none());
    pool.give_back(ticket, &mut here.context());
    assert_eq!(pool.discard(ticket, &mut here.context()), None);
    pool.close(&mut here.context());
    assert_eq!(here.len(), before);
    let of_there = there.len();
    drop(pool);
    let run =
        |reactor: &mut Reactor<Host>| while reactor.next_before(network.now()).expect("it continues").is_some() {};
    run(here);
    assert_eq!(here.len(), before);
    run(there);
    assert!(there.len() < of_there);
}

#[test]
fn an_abandoned_reactor_leaves_no_descriptor() {
    support::alone::alone("pools::an_abandoned_reactor_leaves_no_descriptor", || {
        let open = descriptors();
        for is_abandoned in [false, true] {
            let mut story = Transcript::new();
            let addr = story.listen(ListenOptions::default());
            let peers = [(); 3].map(|()| dial(addr));
            let ids = [(); 3].map(|()| story.connection());
            story.socket(ids[0]).fill(Vec::new(), 1_000_000).expect("it can be read");
            story.socket(ids[1]).splice_next();
            let [first, second, third] = &peers;
            for mut peer in [first, second, third] {
                std::io::Write::write_all(&mut peer, &[b'x'; 50_000]).expect("connected");
            }
            story.until(|socket, event| match event {
                Event::Spliced(_) => {
                    socket.forward(ids[2]).expect("it is open");
                    socket.context().set_timer(SECOND);
                    true
                }
                _ => false,
            });
            let Transcript { reactor, .. } = story;
            match is_abandoned {
                true => reactor.abandon(),
                false => drop(reactor),
            }
            drop(peers);
            assert_eq!(descriptors(), open);
        }
    });
}
