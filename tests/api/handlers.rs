//! What a handler can do with the whole reactor from the one socket that it gets: connect, set and
//! cancel timers, read the clock, query its own address. On the machine's network and on the
//! simulated one.

use std::time::Duration;

use finale::net::Net;
use finale::sim::Network;
use finale::{
    BoundAddr, ConnectOptions, Context, Event, ListenOptions, Pipes, Reactor, Socket, SocketId, SocketMap, TimerId,
};

/// A forwarder whose whole program is this handler. It limits the time in which the client's
/// backend has to answer.
struct Forwarder {
    front: BoundAddr,
    backend: BoundAddr,
    pipes: Pipes,
    timers: SocketMap<(TimerId, SocketId)>,
    fired: Vec<TimerId>,
    log: Vec<String>,
}

impl Forwarder {
    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        if self.pipes.handle(socket, &event) {
            return;
        }
        match event {
            Event::Connection if socket.local_addr() == self.front.ip() => {
                let before = socket.now();
                let backend = socket.connect(self.backend, ConnectOptions::default()).expect("good options");
                assert!(socket.get(backend).is_some_and(|backend| backend.local_addr().is_none()), "not connected yet");
                let client = socket.id();
                self.pipes.join(&mut socket.context(), client, backend).expect("TCP");
                let timer = socket.set_timer(Duration::from_millis(20));
                self.timers.insert(socket.id(), (timer, backend));
                assert!(socket.now() >= before);
            }
            Event::Timer(id) => {
                self.fired.push(id);
                // Its socket is a placeholder, and still gives access to the others.
                assert_eq!((socket.peer_addr(), socket.local_addr()), (None, None));
                for (client, (timer, backend)) in self.timers.iter() {
                    if *timer == id {
                        socket.get(client).expect("it waits").write(b"too late").expect("it lives");
                        socket.get(*backend).expect("it waits").destroy();
                    }
                }
            }
            Event::Close(_) => {
                if let Some((timer, _)) = self.timers.remove(socket.id()) {
                    self.log.push(format!("stopped: {}", socket.cancel_timer(timer)));
                }
            }
            _ => {}
        }
    }
}

/// A client sends a request to a backend that answers or stays silent; all are in one reactor.
fn ask<N: Net>(mut reactor: Reactor<N>, ip: &str, answers: bool) -> (Vec<u8>, Forwarder) {
    let front = reactor.listen(format!("{ip}:0"), ListenOptions::default()).expect("a port");
    let back = reactor.listen(format!("{ip}:0"), ListenOptions::default()).expect("a port");
    let client = reactor.connect(front.addr, ConnectOptions::default()).expect("good options");
    let mut answer = Vec::new();
    let mut forwarder = Forwarder {
        front: front.addr,
        backend: back.addr,
        pipes: Pipes::new(),
        timers: SocketMap::new(),
        fired: Vec::new(),
        log: Vec::new(),
    };
    while let Some((mut socket, event)) = reactor.next().expect("a net that can wait") {
        match event {
            Event::Ready if socket.id() == client => drop(socket.write(b"ping").expect("it lives")),
            Event::Data(bytes) if socket.id() == client => {
                answer.extend_from_slice(bytes);
                socket.end();
            }
            Event::Data(b"ping") if socket.listener() == Some(back.id) => {
                assert_eq!(socket.local_addr(), back.addr.ip());
                if answers {
                    socket.write(b"pong").expect("it lives");
                }
            }
            Event::End if socket.listener() == Some(back.id) => socket.end(),
            Event::Close(_) if socket.id() == client => {
                reactor.close_listener(front.id).expect("it is open");
                reactor.close_listener(back.id).expect("it is open");
            }
            event => forwarder.handle(&mut socket, event),
        }
    }
    (answer, forwarder)
}

fn on_both_networks(check: impl Fn(&dyn Fn(bool) -> (Vec<u8>, Forwarder))) {
    check(&|answers| ask(Reactor::new().expect("a machine with epoll"), "127.0.0.1", answers));
    check(&|answers| {
        let network = Network::new(1);
        ask(Reactor::with_net(network.host([10, 0, 0, 1].into())), "10.0.0.1", answers)
    });
}

#[test]
fn a_handler_connects_to_a_backend_and_stops_the_timer_that_it_has_set() {
    on_both_networks(|ask| {
        let (answer, forwarder) = ask(true);
        assert_eq!(answer, b"pong");
        assert_eq!(forwarder.log, ["stopped: true"]);
        assert_eq!(forwarder.fired, [], "a stopped timer has no event");
    });
}

#[test]
fn a_timer_that_a_handler_has_set_fires_and_its_handler_reaches_the_other_sockets() {
    on_both_networks(|ask| {
        let (answer, forwarder) = ask(false);
        assert_eq!(answer, b"too late");
        assert_eq!(forwarder.fired.len(), 1);
        assert_eq!(forwarder.log, ["stopped: false"]);
    });
}

#[test]
fn a_handler_refuses_an_address_and_options_that_are_none_and_nothing_is_left_of_the_call() {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let timer = reactor.set_timer(Duration::from_millis(1));
    while let Some((mut socket, event)) = reactor.next().expect("a net that can wait") {
        assert_eq!(event, Event::Timer(timer));
        assert!(socket.connect("nowhere", ConnectOptions::default()).is_err());
        assert!(socket.connect("10.0.0.2:80", ConnectOptions::default().high_water_mark(0)).is_err());
    }
    assert_eq!((reactor.len(), reactor.metrics().connects), (0, 0));
}

#[test]
fn what_a_handler_sets_is_the_reactors_own() {
    fn set(mut context: Context<'_>) -> (TimerId, SocketId) {
        let timer = context.set_timer(Duration::from_secs(1));
        let id = context.connect("10.0.0.2:80", ConnectOptions::default()).expect("good options");
        context.socket(id).expect("it lives").write(b"early").expect("it waits for the connection");
        (timer, id)
    }
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let (timer, id) = set(reactor.context());
    assert_eq!(reactor.socket(id).map(|socket| socket.queued_bytes()), Some(5));
    assert!(reactor.context().now() == network.now() && reactor.cancel_timer(timer) && !reactor.cancel_timer(timer));
    assert_eq!(reactor.metrics().connects, 1);
}
