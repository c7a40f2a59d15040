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
    relayed_with(client, backend, (256 * 1024, Some(IDLE)), needs_both)
}

/// With this send buffer and idle timeout.
fn relayed_with(
    client: Script,
    backend: Script,
    (send_buffer, idle): (usize, Option<Duration>),
    needs_both: bool,
) -> (Play, Play, Duration) {
    let network = Network::new(1);
    network.set_buffers(send_buffer, 8 * 1024);
    let peer = network.peer(THERE);
    let backend = peer.listen(BACKEND).expect("a free port").play(backend);
    let mut reactor = Reactor::with_net(network.host(HERE));
    let listener = reactor.listen((HERE, 80), ListenOptions::default().idle_timeout(idle)).expect("a free port");
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
                let other = socket.connect(BACKEND, ConnectOptions::default().idle_timeout(idle)).expect("an address");
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

/// With the default limits: one side has finished, and has nothing to do while the other one takes.
#[test]
fn a_side_that_has_finished_waits_for_one_that_takes_its_bytes_slowly() {
    let second = Duration::from_secs(1);
    // The end is passed on, and bytes wait in the other side, or in our kernel.
    for (bytes, rate, send_buffer) in [(100_000, 250, 16 << 10), (200_000, 500, 256 << 10)] {
        let client = Script::new().send(&vec![7; bytes]).finish().receive_end();
        let backend = Script::new().sip(rate, second).receive_end().send(b"done").finish();
        let (client, backend, lived) = relayed_with(client, backend, (send_buffer, None), true);
        assert_eq!((backend.received().len(), client.received()), (bytes, b"done".to_vec()), "upload, {lived:?}");
        assert!(!client.is_reset() && !backend.is_reset() && lived > 350 * second, "upload, {lived:?}");

        let client = Script::new().send(b"ask").sip(rate, second).receive_end().finish();
        let backend = Script::new().receive(3).send(&vec![7; bytes]).finish().receive_end();
        let (client, backend, lived) = relayed_with(client, backend, (send_buffer, None), true);
        assert_eq!(client.received().len(), bytes, "download, {lived:?}");
        assert!(!client.is_reset() && !backend.is_reset() && lived > 350 * second, "download, {lived:?}");
    }
}

#[test]
fn a_side_that_has_finished_does_not_wait_for_one_that_takes_nothing() {
    const SMALL: usize = 16 << 10;
    let minute = Duration::from_secs(60);
    // Held, with the last bytes and an end unread; passed on, with bytes that wait, or with none but
    // in our kernel; and no answer comes.
    let cases = [
        ([165_000, 160_000], SMALL, 5 * minute),
        ([100_000; 2], SMALL, minute / 2),
        ([100_000; 2], 256 << 10, 5 * minute),
        ([3; 2], SMALL, 5 * minute),
    ];
    for ([upload, download], send_buffer, limit) in cases {
        let sender = |bytes| Script::new().send(&vec![7; bytes]).finish();
        let silent = || Script::new().stop_reading();
        for (client, backend) in [(sender(upload), silent()), (silent(), sender(download))] {
            let (client, backend, lived) = relayed_with(client, backend, (send_buffer, None), true);
            assert!(client.is_reset() && backend.is_reset(), "{upload} bytes");
            // The other side may have 30 s more for what waits.
            assert!(lived >= limit && lived < limit + minute, "{upload} bytes: {lived:?}");
        }
    }
}
