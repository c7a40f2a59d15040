//! How a program gives up two joined sockets that are silent, as the page of `Pipes` describes it. On
//! the simulated network.

use std::net::SocketAddr;
use std::time::Duration;

use finale::sim::{Network, Play, Script};
use finale::{ConnectOptions, Event, ListenOptions, Pipes, Reactor, SocketId};
use support::scene::{HERE, THERE};

const BACKEND: SocketAddr = SocketAddr::new(THERE, 90);
const IDLE: Duration = Duration::from_secs(60);

/// What a client and its backend have seen of a proxy that gives a pair up when one side is silent,
/// or only when both are, and how long the pair lived.
fn relayed(client: Script, backend: Script, needs_both: bool) -> (Play, Play, Duration) {
    let network = Network::new(1);
    network.set_buffers(256 * 1024, 8 * 1024);
    let peer = network.peer(THERE);
    let backend = peer.listen(BACKEND).expect("a free port").play(backend);
    let mut reactor = Reactor::with_net(network.host(HERE));
    let listener = reactor.listen((HERE, 80), ListenOptions::default().idle_timeout(IDLE)).expect("a free port");
    let client = peer.play(listener.addr, client).expect("a route");
    let (mut pipes, mut silent, mut closed) = (Pipes::new(), None::<SocketId>, 0);
    while closed < 2 {
        let (mut socket, event) = reactor.next().expect("it continues").expect("the listener is open");
        if pipes.handle(&mut socket, &event) {
            continue;
        }
        match event {
            Event::Connection => {
                let one = socket.id();
                let other = socket.connect(BACKEND, ConnectOptions::default().idle_timeout(IDLE)).expect("an address");
                pipes.join(&mut socket.context(), one, other).expect("TCP");
            }
            Event::Timeout if needs_both && silent.is_none_or(|first| first == socket.id()) => {
                silent = Some(socket.id());
                socket.set_idle_timeout(IDLE);
            }
            Event::Timeout => socket.destroy(),
            Event::Close(_) => closed += 1,
            _ => {}
        }
    }
    let lived = network.elapsed();
    network.advance(Duration::from_secs(1)); // The last packets arrive.
    (client, backend, lived)
}

#[test]
fn a_pair_is_not_silent_while_the_backend_takes_what_our_kernel_holds() {
    let client = || Script::new().send(&[7; 200_000]).finish().receive_end();
    let slow = || Script::new().sip(1000, Duration::from_secs(1)).receive_end().send(b"done").finish();
    let (client_saw, backend_saw, _) = relayed(client(), slow(), true);
    assert_eq!((backend_saw.received().len(), client_saw.received()), (200_000, b"done".to_vec()));
    // The client alone has been silent for a minute.
    let (client_saw, ..) = relayed(client(), slow(), false);
    assert!(client_saw.is_reset() && client_saw.received().is_empty());
}

#[test]
fn a_pair_that_is_silent_on_both_sides_is_given_up_after_its_idle_time() {
    let (client, backend, lived) = relayed(Script::new().send(b"ask"), Script::new().receive(3), true);
    assert!(client.is_reset() && backend.is_reset());
    assert!(lived >= IDLE && lived < IDLE + Duration::from_secs(1), "{lived:?}");
}
