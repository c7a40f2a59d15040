//! Ids of another reactor find nothing here, cancel nothing and close nothing.

use std::net::{SocketAddr, TcpStream};

use finale::{Error, Event, ListenOptions, Listener, Pipes, Reactor, SocketId, SocketMap, StopOptions, TimerId};

use support::{PATIENCE, Transcript, dial, ms};

/// A reactor with one of each: a listener, a connection and a timer.
struct Own {
    story: Transcript,
    listener: Listener,
    socket: SocketId,
    timer: TimerId,
    _peer: TcpStream,
}

impl Own {
    fn new() -> Self {
        let mut story = Transcript::new();
        let listener = story.reactor.listen("127.0.0.1:0", ListenOptions::default()).expect("a free port");
        let peer = dial(listener.addr);
        let socket = story.connection();
        let timer = story.reactor.set_timer(PATIENCE);
        Self { story, listener, socket, timer, _peer: peer }
    }

    fn reactor(&mut self) -> &mut Reactor {
        &mut self.story.reactor
    }

    /// Whether a client that connects now is accepted.
    fn accepts(&mut self) -> bool {
        let _peer = dial(self.listener.addr);
        let mut accepted = false;
        self.story.run_for(ms(50), |_, event| accepted |= *event == Event::Connection);
        accepted
    }
}

fn two() -> (Own, Own) {
    (Own::new(), Own::new())
}

#[test]
fn a_socket_of_another_reactor_is_not_found() {
    let (mut here, mut there) = two();
    let (own, other) = (here.socket, there.socket);
    assert_ne!(own, other);
    assert!(here.reactor().socket(other).is_none() && there.reactor().socket(own).is_none());
    assert_eq!(here.reactor().local_addr(other), None);
    let mut socket = here.reactor().socket(own).expect("its own");
    assert!(socket.get(other).is_none(), "nor from another socket");
    assert_eq!(socket.get(own).map(|socket| socket.id()), Some(own));
    assert!(here.reactor().local_addr(own).is_some());
}

#[test]
fn a_socket_of_another_reactor_is_not_found_in_a_handler() {
    let (mut here, there) = two();
    here.reactor().set_timer(ms(0));
    here.story.until(|socket, event| {
        assert!(matches!(event, Event::Timer(_)), "{event:?}");
        assert!(socket.get(there.socket).is_none(), "nor from the socket that stands for none");
        true
    });
}

#[test]
fn a_socket_of_another_reactor_has_no_value_in_a_map() {
    let (here, there) = two();
    let mut map = SocketMap::new();
    map.insert(here.socket, "here");
    assert_eq!(map.get(there.socket), None);
    assert_eq!(map.get_mut(there.socket), None);
    assert_eq!(map.remove(there.socket), None);
    assert_eq!((map.get(here.socket), map.len()), (Some(&"here"), 1));
    assert_eq!(map.insert(there.socket, "there"), None, "the value of another socket does not come out");
    assert_ne!(map.get(here.socket), Some(&"there"));
    assert_ne!(map.get(there.socket), Some(&"here"));
}

#[test]
fn a_socket_of_another_reactor_is_in_no_pipe() {
    let (mut here, there) = two();
    let addr = here.listener.addr;
    let _peer = dial(addr);
    let second = here.story.connection();
    let mut pipes = Pipes::new();
    pipes.join(&mut here.story.reactor.context(), here.socket, second).expect("TCP");
    assert_eq!((pipes.sink_of(there.socket), pipes.source_of(there.socket)), (None, None));
    pipes.unpipe(there.socket);
    assert_eq!(pipes.sink_of(here.socket), Some(second));
}

#[test]
fn a_timer_of_another_reactor_is_not_cancelled() {
    let (mut here, mut there) = two();
    let (own, other) = (here.timer, there.timer);
    assert_ne!(own, other);
    assert!(!here.reactor().cancel_timer(other));
    assert!(there.reactor().cancel_timer(other), "it was still running there");
    assert!(here.reactor().cancel_timer(own), "and so was its own here");
}

#[test]
fn a_listener_of_another_reactor_is_not_closed() {
    let (mut here, there) = two();
    let other = there.listener.id;
    assert_ne!(here.listener.id, other);
    assert_eq!(here.reactor().close_listener(other), Err(Error::Gone));
    assert!(here.accepts());
}

#[test]
fn a_listener_of_another_reactor_is_not_stopped() {
    let (mut here, there) = two();
    let stop = StopOptions::default().limit(ms(0));
    assert_eq!(here.reactor().stop_listener(there.listener.id, stop), Err(Error::Gone));
    assert!(here.accepts());
    let own = here.socket;
    assert!(here.reactor().socket(own).is_some(), "its connections continue");
}

#[test]
fn a_listener_of_another_reactor_is_neither_paused_nor_resumed() {
    let (mut here, there) = two();
    let (own, other) = (here.listener.id, there.listener.id);
    assert_eq!(here.reactor().pause_accepting(other), Err(Error::Gone));
    assert!(here.accepts());
    here.reactor().pause_accepting(own).expect("open");
    assert_eq!(here.reactor().resume_accepting(other), Err(Error::Gone));
    assert!(!here.accepts());
}

/// A program that replaces its reactor may still hold ids of the first one.
#[test]
fn the_ids_of_a_reactor_that_is_gone_find_nothing_in_the_next() {
    let Own { story, listener, socket, timer, _peer } = Own::new();
    drop(story);
    let mut next = Own::new();
    assert!(next.reactor().socket(socket).is_none());
    assert!(!next.reactor().cancel_timer(timer));
    assert_eq!(next.reactor().close_listener(listener.id), Err(Error::Gone));
}

/// The same on the simulated network, and between the two networks.
#[test]
fn an_id_of_a_simulated_reactor_finds_nothing_in_another() {
    let network = finale::sim::Network::new(1);
    let mut reactors = ["10.0.0.1:80", "10.0.0.2:80"].map(|addr| {
        let ip = addr.parse::<SocketAddr>().expect("an address").ip();
        let mut reactor = Reactor::with_net(network.host(ip));
        let listener = reactor.listen(addr, ListenOptions::default()).expect("a free port");
        let client = reactor.connect(listener.addr, finale::ConnectOptions::default()).expect("an address");
        let timer = reactor.set_timer(PATIENCE);
        (reactor, listener.id, client, timer)
    });
    let real = Own::new();
    for (at, other) in [(0, 1), (1, 0)] {
        let (_, listener, client, timer) = reactors[other];
        for (listener, client, timer) in [(listener, client, timer), (real.listener.id, real.socket, real.timer)] {
            let reactor = &mut reactors[at].0;
            assert!(reactor.socket(client).is_none());
            assert!(!reactor.cancel_timer(timer));
            assert_eq!(reactor.close_listener(listener), Err(Error::Gone));
        }
    }
}
