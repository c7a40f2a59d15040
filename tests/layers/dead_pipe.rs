//! Pipes whose sockets have ended, failed or closed: before they were joined, with bytes that wait,
//! and with a sink that takes the last of them. On the simulated network.

use std::time::Duration;

use finale::sim::PeerSocket;
use finale::{ConnectOptions, Error, ListenOptions, StopOptions};

use crate::pipe::Proxy;

const SECOND: Duration = Duration::from_secs(1);

/// The last bytes of a dead source fill its sink, which then is held for nothing.
#[test]
fn the_last_bytes_of_a_dead_source_are_sent_to_a_sink_that_reads_on() {
    for mark in [20_000, 60_000, 128 * 1024] {
        let small = ConnectOptions::default().high_water_mark(mark).low_water_mark(mark / 4);
        let (mut proxy, client, backend) = Proxy::joined_with(ListenOptions::default(), small);
        client.send(&[b'x'; 600_000]);
        proxy.run(SECOND);
        client.reset();
        proxy.run(SECOND);
        let got = proxy.read_all(&backend, 25);
        assert!(backend.is_reset() && proxy.reactor.is_empty());
        assert!(!proxy.closes.iter().any(|close| close.contains("never sent")), "{got} {:?}", proxy.closes);
    }
}

/// A pipe in one direction: what the program has written to the source itself waits for it.
#[test]
fn what_waits_for_a_source_is_sent_before_it_follows_its_failed_sink() {
    let (mut proxy, client, backend) = Proxy::joined();
    let [source, sink] = [0, 1].map(|at| proxy.ids()[at]);
    proxy.pipes.unpipe(source);
    proxy.pipes.pipe(&mut proxy.reactor.context(), source, sink).expect("TCP");
    proxy.reactor.socket(source).expect("it lives").write(&[b'x'; 250_000]).expect("it takes them");
    proxy.run(SECOND);
    backend.reset();
    proxy.run(SECOND);
    let got = proxy.read_all(&client, 20);
    assert!(got > 180_000 && client.is_reset(), "{got} {:?}", proxy.closes);
}

/// As in a SOCKS server whose client has finished before its tunnel exists.
#[test]
fn an_end_that_was_delivered_before_the_pipe_is_passed_on() {
    let (mut proxy, client, backend) = Proxy::joined();
    let [source, sink] = [0, 1].map(|at| proxy.ids()[at]);
    proxy.pipes.unpipe(source);
    proxy.collects = true;
    client.finish();
    proxy.run(SECOND);
    proxy.pipes.join(&mut proxy.reactor.context(), source, sink).expect("TCP");
    proxy.run(SECOND);
    assert!(backend.has_fin());
    backend.send(b"answer");
    backend.finish();
    proxy.run(SECOND);
    assert!(client.read() == b"answer" && client.has_fin() && proxy.reactor.is_empty());
}

/// An upload that the program answers itself when its backend has stored it.
#[test]
fn a_source_that_has_ended_stays_open_for_an_answer_after_its_sink_has_closed() {
    let (mut proxy, client, backend) = Proxy::joined();
    let [source, sink] = [0, 1].map(|at| proxy.ids()[at]);
    proxy.pipes.unpipe(source);
    proxy.pipes.pipe(&mut proxy.reactor.context(), source, sink).expect("TCP");
    proxy.collects = true;
    client.send(b"upload");
    client.finish();
    proxy.run(SECOND);
    assert!(backend.read() == b"upload" && backend.has_fin());
    backend.finish();
    proxy.run(SECOND);
    assert_eq!(proxy.ids(), [source], "the sink is closed");
    let mut socket = proxy.reactor.socket(source).expect("it lives");
    socket.write(b"stored").expect("half-open");
    socket.end();
    proxy.run(SECOND);
    assert!(client.read() == b"stored" && client.has_fin() && proxy.reactor.is_empty());
}

/// Its bytes would be lost, and its peer would not notice.
#[test]
fn a_source_is_reset_if_the_pipes_did_not_get_the_close_of_its_sink() {
    let (mut proxy, client, _backend) = Proxy::joined();
    let sink = proxy.ids()[1];
    proxy.reactor.socket(sink).expect("it lives").destroy();
    let until = proxy.network.now() + SECOND;
    while proxy.reactor.next_before(until).expect("it continues").is_some() {}
    client.send(b"lost");
    proxy.run(SECOND);
    assert!(client.is_reset() && proxy.reactor.is_empty());
}

#[test]
fn a_socket_that_is_closed_can_not_be_joined() {
    let (mut proxy, client, backend) = Proxy::joined();
    let [source, sink] = [0, 1].map(|at| proxy.ids()[at]);
    proxy.pipes.unpipe(source);
    client.reset();
    proxy.run(SECOND);
    let context = &mut proxy.reactor.context();
    for (one, other) in [(source, sink), (sink, source)] {
        assert_eq!(proxy.pipes.join(context, one, other), Err(Error::Gone));
        assert_eq!(proxy.pipes.pipe(context, one, other), Err(Error::Gone));
        assert_eq!((proxy.pipes.sink_of(sink), proxy.pipes.source_of(sink)), (None, None));
    }
    assert!(!backend.is_reset());
}

#[test]
fn a_source_that_was_dead_before_it_got_a_sink_that_takes_nothing_does_not_stay() {
    let forever = ListenOptions::default().half_closed_timeout(None).ending_timeout(None);
    let (mut proxy, client, backend) = Proxy::joined_with(forever, ConnectOptions::default());
    let [source, sink] = [0, 1].map(|at| proxy.ids()[at]);
    proxy.pipes.unpipe(source);
    proxy.reactor.socket(source).expect("it lives").pause();
    client.send(&[b'x'; 64 * 1024]);
    client.reset();
    proxy.run(SECOND);
    proxy.pipes.join(&mut proxy.reactor.context(), source, sink).expect("TCP");
    proxy.run(20 * SECOND);
    assert_eq!((proxy.reactor.len(), backend.is_reset()), (2, false), "it may still be resumed");
    proxy.run(15 * SECOND);
    assert_eq!((proxy.reactor.len(), backend.is_reset()), (0, true));
}

#[test]
fn a_side_that_is_unpiped_after_its_source_has_failed_is_not_reset_with_its_last_byte() {
    let (mut proxy, client, backend) = Proxy::joined();
    let sink = proxy.ids()[1];
    client.send(&[b'x'; 200_000]);
    proxy.run(SECOND);
    client.reset();
    proxy.run(SECOND);
    proxy.pipes.unpipe(sink);
    proxy.collects = true;
    assert_eq!(proxy.read_all(&backend, 20), 200_000);
    assert_eq!((proxy.reactor.len(), backend.is_reset()), (1, false));
}

/// The deadline of a dead source is the program's to replace.
#[test]
fn a_dead_source_that_is_resumed_late_is_still_passed_on() {
    let (mut proxy, client, backend) = Proxy::joined();
    let source = proxy.ids()[0];
    client.send(&[b'x'; 190_000]);
    proxy.run(SECOND);
    proxy.reactor.socket(source).expect("it lives").pause();
    client.send(&[b'x'; 60_000]);
    proxy.run(SECOND);
    client.reset();
    proxy.run(SECOND);
    proxy.reactor.socket(source).expect("it lives").set_deadline(None);
    proxy.run(60 * SECOND);
    proxy.reactor.socket(source).expect("it lives").resume();
    proxy.read_all(&backend, 20);
    assert!(backend.is_reset() && proxy.reactor.is_empty());
    assert!(!proxy.closes.iter().any(|close| close.contains("never sent")), "{:?}", proxy.closes);
}

/// A pipe does not know whether a stream is complete, and neither does the stop of a listener.
#[test]
fn a_stop_with_a_grace_ends_a_stream_whose_source_is_silent_and_one_without_waits_for_it() {
    for (stop, ends) in [(StopOptions::default(), true), (StopOptions::default().grace(None), false)] {
        let (mut proxy, client, backend) = Proxy::joined();
        backend.send(b"a part of an answer");
        proxy.run(SECOND);
        proxy.reactor.stop_listener(proxy.listener.id, stop).expect("open");
        proxy.run(5 * SECOND);
        assert_eq!((client.read().len(), client.has_fin(), client.is_reset()), (19, ends, false));
    }
}

/// Bytes wait for the source, and the program has ended the sink.
fn with_ended_sink() -> (Proxy, PeerSocket, PeerSocket) {
    let (mut proxy, client, backend) = Proxy::joined();
    backend.send(&[b'x'; 250_000]);
    proxy.run(SECOND);
    let sink = proxy.ids()[1];
    proxy.reactor.socket(sink).expect("it lives").end();
    (proxy, client, backend)
}

/// The sink has ended and is not closed, and its source sends more.
#[test]
fn what_waits_for_a_source_is_sent_before_it_follows_a_sink_that_has_ended() {
    let (mut proxy, client, backend) = with_ended_sink();
    for _ in 0..5 {
        proxy.run(SECOND);
        client.send(b"more");
    }
    assert!(backend.has_fin() && !client.is_reset(), "something still waits");
    assert!(proxy.read_all(&client, 20) > 190_000 && client.is_reset());
    proxy.run(30 * SECOND);
    assert_eq!((proxy.reactor.len(), backend.is_reset()), (0, true));
    // Nothing is read any more, and the source sends without pause.
    let (mut proxy, client, _backend) = with_ended_sink();
    for _ in 0..32 {
        client.send(b"more");
        proxy.run(SECOND);
    }
    assert!(client.is_reset(), "its time counts from the first bytes");
    // The stream for the source is complete.
    let one_sided = ConnectOptions::default().allow_half_open(false);
    let (mut proxy, client, backend) = Proxy::joined_with(ListenOptions::default(), one_sided);
    backend.send(&[b'x'; 150_000]);
    backend.finish();
    proxy.run(SECOND);
    client.send(b"more");
    proxy.run(SECOND);
    assert_eq!(proxy.read_all(&client, 20), 150_000);
    assert!(client.has_fin() && !client.is_reset());
}

#[test]
fn a_sink_that_is_full_before_it_is_piped_holds_its_source() {
    let (mut proxy, client, backend) =
        Proxy::joined_with(ListenOptions::default(), ConnectOptions::default().write_limit(200_000));
    let [source, sink] = [0, 1].map(|at| proxy.ids()[at]);
    proxy.pipes.unpipe(source);
    proxy.reactor.socket(sink).expect("it lives").write_owned(vec![b'x'; 500_000]).expect("it takes them");
    client.send(&[b'x'; 100_000]);
    proxy.pipes.join(&mut proxy.reactor.context(), source, sink).expect("TCP");
    proxy.run(SECOND);
    assert!(proxy.reactor.socket(source).expect("it lives").is_paused());
    assert_eq!(proxy.read_all(&backend, 20), 600_000);
}
