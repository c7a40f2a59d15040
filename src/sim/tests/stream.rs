//! Bytes, windows and readiness between the beginning and the end.

use super::*;
use crate::net::Received;

#[test]
fn bytes_arrive_exactly_and_in_order_whatever_goes_wrong() {
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let network = Network::new(seed);
        let (send, receive) = (1 + rng.below(9000) as usize, 1 + rng.below(9000) as usize);
        network.set_buffers(send, receive);
        network.set_faults(Faults::random(&mut rng).harmless());
        let sent: Vec<u8> = (0..rng.below(20_000)).map(|_| rng.next_u64() as u8).collect();
        // In some runs the network is down for a while, in the middle.
        let outage = rng.chance(0.3).then(|| Duration::from_micros(rng.below(20_000)));
        let got = transfer(&network, &sent, outage);
        assert!(got == sent, "seed {seed}: {} bytes were sent, {} came, or others", sent.len(), got.len());
        assert_eq!(network.open_connections(), 0, "seed {seed}");
    }
}

/// Two slots of one host, as in the lesson: slot 0 writes and finishes, slot 1 reads and finishes.
fn transfer(network: &Network, bytes: &[u8], outage: Option<Duration>) -> Vec<u8> {
    let reader = Token { index: 1, generation: 1 };
    let mut host = network.host(SERVER);
    let mut buffer = [0; 3000];
    host.listen(0, AT, &ListenOptions::default()).expect("free");
    host.connect(0, TOKEN, AT, &SystemOptions::default(), None).expect("a route");
    let (mut rest, mut got) = (bytes, Vec::new());
    let (mut finished, mut ended, mut done) = (false, false, false);
    let mut outage = outage;
    while !done {
        let mut woken = Vec::new();
        host.poll(host.now(), Some(Duration::from_secs(200)), &mut |token, _| woken.push(token))
            .expect("something is left");
        if outage.is_some_and(|at| at < network.elapsed()) {
            outage = None;
            network.vanish(SERVER);
            network.advance(Duration::from_millis(700));
            network.heal(SERVER);
        }
        for token in woken {
            if token == LISTENER && host.accept(0, 1).is_ok() {
                host.register(1, reader).expect("room");
            } else if token == TOKEN && !finished && host.connected(0).expect("no failure") {
                rest = write_all(&mut host, rest);
                finished = rest.is_empty() && host.finish(0).is_ok();
            } else if token == reader && !ended {
                ended = read_all(&mut host, &mut buffer, &mut got);
                if ended {
                    host.finish(1).expect("no failure");
                }
            }
            done = finished && ended && host.acknowledged(0).expect("clean") && host.acknowledged(1).expect("clean");
        }
    }
    host.close(0);
    host.close(1);
    got
}

/// Writes until the buffer is full; a short write counts as full, as on Linux.
fn write_all<'a>(host: &mut Host, bytes: &'a [u8]) -> &'a [u8] {
    match bytes.is_empty() {
        true => bytes,
        false => match host.send(0, bytes, false) {
            Ok(sent) => &bytes[sent..],
            Err(error) => {
                assert_eq!(errno(&error), Errno::WOULDBLOCK);
                bytes
            }
        },
    }
}

/// Reads until a short read, which counts as drained unless the end was seen, as on Linux. Returns
/// whether it was.
fn read_all(host: &mut Host, buffer: &mut [u8], got: &mut Vec<u8>) -> bool {
    loop {
        match host.recv(1, buffer) {
            Ok(Received { bytes: 0, .. }) => return true,
            Ok(read) => got.extend_from_slice(&buffer[..read.bytes]),
            Err(error) => {
                assert_eq!(errno(&error), Errno::WOULDBLOCK);
                return false;
            }
        }
    }
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let story = |seed| {
        let network = Network::new(seed);
        network.record();
        network.set_faults(Faults::random(&mut Rng::new(seed)).harmless());
        transfer(&network, &[7; 5000], Some(3 * MS));
        network.take_transcript()
    };
    for seed in 0..20 {
        assert_eq!(story(seed), story(seed), "seed {seed}");
    }
    assert_ne!(story(1), story(2));
    let network = Network::new(0);
    network.record();
    let _socket = network.peer(CLIENT).connect(AT).expect("a route");
    assert_eq!(network.take_transcript(), ["0.000000 s  10.0.0.2:32768 > 10.0.0.1:7000  SYN"]);
}

#[test]
fn a_closed_window_stops_the_writer_until_a_third_of_its_buffer_is_free() {
    let network = Network::new(1);
    network.set_buffers(3000, 1000);
    let mut host = network.host(SERVER);
    let listener = network.peer(CLIENT).listen(SocketAddr::new(CLIENT, 9)).expect("free");
    let addr = listener.addr().expect("open");
    host.connect(0, TOKEN, addr, &SystemOptions::default(), None).expect("a route");
    assert_eq!(edge(&mut host, SECOND), flags("out"));
    assert_eq!(host.send(0, &[1; 5000], false).expect("room"), 3000);
    assert_eq!(failed(host.send(0, &[1; 5000], false)), Errno::WOULDBLOCK);
    let peer = loop {
        network.advance(MS);
        if let Some(peer) = listener.accept() {
            break peer;
        }
    };
    // The receive buffer holds 1000 of them, and the acknowledgement makes just enough room.
    assert_eq!(edge(&mut host, SECOND), flags("out"));
    assert_eq!(host.send(0, &[1; 5000], false).expect("room"), 1000);
    assert_eq!(edge(&mut host, Duration::from_secs(600)), flags(""));
    assert_eq!(peer.unread_bytes(), 1000);
    assert_eq!(peer.read().len(), 1000);
    assert_eq!(edge(&mut host, SECOND), flags("out"));
    assert_eq!(host.send(0, &[1; 5000], false).expect("room"), 1000);
}

#[test]
fn a_short_write_owes_an_edge_and_a_small_one_does_not() {
    let (_network, mut host, _peer) = accepted(&ListenOptions::default().send_buffer_size(1000));
    assert_eq!(host.send(0, &[1; 10], false).expect("room"), 10);
    assert_eq!(edge(&mut host, SECOND), flags(""));
    assert_eq!(host.send(0, &[1; 2000], false).expect("room"), 1000);
    assert_eq!(edge(&mut host, SECOND), flags("out"));
}

#[test]
fn an_urgent_byte_splits_the_stream_without_an_edge() {
    let (_network, mut host, peer) = accepted(&ListenOptions::default());
    peer.send(b"abc");
    peer.send_urgent();
    peer.send(b"def");
    assert_eq!(edge(&mut host, SECOND), flags("in out pri"));
    assert_eq!(read(&mut host), Ok(b"abc".to_vec()));
    assert_eq!(edge(&mut host, SECOND), flags(""));
    assert_eq!(read(&mut host), Ok(b"def".to_vec()));
}

#[test]
fn bytes_with_more_to_come_leave_with_the_fin_or_after_a_while() {
    let (network, mut host, peer) = accepted(&ListenOptions::default());
    network.record();
    host.send(0, b"answer", true).expect("room");
    host.finish(0).expect("open");
    network.advance(MS);
    assert_eq!(network.take_transcript().iter().filter(|line| line.contains("> 10.0.0.2")).count(), 1);
    assert_eq!((peer.read(), peer.has_fin()), (b"answer".to_vec(), true));

    let (network, mut host, peer) = accepted(&ListenOptions::default());
    host.send(0, b"forgotten", true).expect("room");
    network.advance(199 * MS);
    assert_eq!(peer.read(), b"");
    network.advance(2 * MS);
    assert_eq!(peer.read(), b"forgotten");
}

/// As Linux's tcp_sendmsg: nothing could follow what would be held back.
#[test]
fn bytes_with_more_to_come_leave_at_once_when_they_fill_the_buffer() {
    let (network, mut host, peer) = accepted(&ListenOptions::default().send_buffer_size(1000));
    assert_eq!(host.send(0, &[1; 1500], true).expect("room"), 1000);
    network.advance(2 * MS);
    assert_eq!(peer.read(), [1; 1000]);
}

#[test]
fn a_full_buffer_is_not_held_back_for_more() {
    let (network, mut host, peer) = accepted(&ListenOptions::default().send_buffer_size(1000));
    assert_eq!(host.send(0, &[1; 5000], true).expect("room"), 1000);
    network.advance(MS);
    assert_eq!(peer.read().len(), 1000);
}

#[test]
fn the_user_timeout_counts_unacknowledged_bytes_and_closed_windows_only() {
    let options = ListenOptions::default().user_timeout(3 * SECOND / 2);
    let (network, mut host, peer) = accepted(&options);
    network.vanish(CLIENT);
    assert_eq!(edge(&mut host, 60 * SECOND), flags(""), "nothing is in flight");
    let begun = network.elapsed();
    host.send(0, b"x", false).expect("room");
    assert_eq!(edge(&mut host, 60 * SECOND), flags("in out rdhup hup err"));
    assert_eq!(network.elapsed() - begun, 3 * SECOND / 2);
    drop(peer);

    let (network, mut host, peer) = accepted(&options);
    let begun = network.elapsed();
    host.send(0, &[1; 200_000], false).expect("room");
    assert_eq!(edge(&mut host, 60 * SECOND), flags("in out rdhup hup err"), "the peer lives and does not read");
    assert!(network.elapsed() - begun < 2 * SECOND);
    assert_eq!(host.take_error(0).as_ref().map(errno), Some(Errno::TIMEDOUT));
    drop(peer);
}

#[test]
fn idle_connections_cost_no_time() {
    let network = Network::new(1);
    let mut host = network.host(SERVER);
    host.listen(0, AT, &ListenOptions::default()).expect("free");
    let options = ConnectOptions::default();
    let peers: Vec<PeerSocket> =
        (0..20_000).map(|_| network.peer(CLIENT).connect_with(AT, &options).expect("a port")).collect();
    for slot in 0..20_000 {
        while host.accept(0, slot).is_err() {
            network.advance(SECOND);
        }
        host.register(slot, Token { index: slot, generation: 1 }).expect("room");
    }
    let mut edges = 0;
    while !news(&mut host, MS).iter().inspect(|_| edges += 1).collect::<Vec<_>>().is_empty() {}
    assert!(edges >= 20_000);
    network.advance(Duration::from_secs(1_000_000));
    assert_eq!(network.next_event(), None);
    drop(peers);
    drop(host);
    network.advance(Duration::from_secs(100));
    assert_eq!(network.descriptors(), 0);
}
