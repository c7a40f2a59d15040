//! Scripted peers that flood, and that send or take a few bytes at a time.

use super::*;
use crate::net::Unread;
use crate::sim::{Play, Script};

/// A host that listens and has accepted the peer that plays this script: slot 0, registered.
fn played(script: Script) -> (Network, Host, Play) {
    let network = Network::new(1);
    network.set_buffers(2_000, 1_000);
    let mut host = network.host(SERVER);
    host.listen(0, AT, &ListenOptions::default()).expect("the port is free");
    let play = network.peer(CLIENT).play(AT, script).expect("there is a route");
    assert_eq!(news(&mut host, SECOND), [(LISTENER, flags("in"))]);
    host.accept(0, 0).expect("one waits");
    host.register(0, TOKEN).expect("there is room");
    (network, host, play)
}

/// Reads all that has arrived.
fn drain(host: &mut Host) -> Vec<u8> {
    std::iter::from_fn(|| read(host).ok().filter(|bytes| !bytes.is_empty())).flatten().collect()
}

#[test]
fn a_flood_sends_as_long_as_the_window_lets_it_and_no_longer_than_its_time() {
    let (network, mut host, play) = played(Script::new().flood(b"abc", SECOND).finish());
    network.advance(10 * MS);
    let mut bytes = drain(&mut host);
    assert_eq!(bytes.len(), 1_000, "as many as the window lets through, and then it is shut");
    while network.elapsed() < 990 * MS {
        network.advance(5 * MS);
        let more = drain(&mut host);
        assert_eq!(more.len(), 1_000, "a round trip later there are as many again");
        bytes.extend(more);
    }
    assert!(bytes.chunks(3).all(|chunk| b"abc".starts_with(chunk)), "the same bytes again and again");
    assert!(!play.is_over());
    network.advance(20 * MS);
    assert!(play.is_over() && play.sent().is_empty());
    while host.peek(0).expect("it lives") != Unread::End {
        drain(&mut host);
        network.advance(5 * MS);
    }
}

#[test]
fn a_flood_is_always_there_for_a_reader_whose_calls_take_time() {
    let (network, mut host, _play) = played(Script::new().flood(b"x", Duration::MAX));
    network.set_latency(Duration::ZERO);
    network.set_call_cost(Duration::from_micros(30));
    network.advance(10 * MS);
    let mut buffer = [0; 500];
    for _ in 0..10_000 {
        let received = host.recv(0, &mut buffer).expect("there is always more");
        assert!(received.bytes > 0);
    }
    assert_eq!(network.busy(), Duration::from_micros(30) * 10_000);
}

#[test]
fn without_latency_and_costs_a_flood_still_lets_time_pass() {
    let (network, mut host, play) = played(Script::new().flood(b"x", 5 * MS));
    network.set_latency(Duration::ZERO);
    let mut reads = 0;
    while !play.is_over() {
        edge(&mut host, SECOND);
        drain(&mut host);
        reads += 1;
        assert!(reads < 1_000, "the clock stands still");
    }
    assert!(reads > 100, "{reads}");
}

#[test]
fn a_flood_that_is_reset_or_has_lost_its_window_is_over_in_its_time_and_goes_on_with_the_script() {
    let (network, mut host, play) = played(Script::new().flood(b"x", Duration::MAX).wait(MS));
    network.advance(10 * MS);
    host.reset(0);
    network.advance(10 * MS);
    assert!(play.is_over() && play.is_reset());
    let (network, _host, play) = played(Script::new().flood(b"x", SECOND).reset());
    network.advance(2 * SECOND);
    assert!(play.is_over(), "no bytes were read, and its time is still up");
    assert_eq!(network.open_connections(), 1);
}

#[test]
fn a_drip_is_one_byte_at_a_time_and_each_in_its_time() {
    let (network, mut host, play) = played(Script::new().send(b"a").drip(b"bcd", SECOND).finish());
    let at_once = network.elapsed();
    network.advance(MS);
    assert_eq!(drain(&mut host), b"ab");
    for (expected, is_over) in [(b"c", false), (b"d", true)] {
        network.advance(SECOND - 2 * MS);
        assert_eq!(drain(&mut host), b"");
        network.advance(2 * MS);
        assert_eq!(drain(&mut host), expected);
        assert_eq!(play.is_over(), is_over, "nothing is waited for after the last byte");
    }
    assert_eq!((network.elapsed() - at_once, play.sent()), (2 * SECOND + MS, b"abcd".to_vec()));
    assert_eq!(host.peek(0).expect("it lives"), Unread::End);
}

#[test]
fn a_sip_takes_so_many_bytes_in_each_time_and_the_window_is_shut_in_between() {
    let (network, mut host, play) = played(Script::new().sip(3, SECOND).wait(5 * SECOND).read_on().receive_end());
    host.send(0, &[7; 2_000], false).expect("room");
    network.advance(10 * MS);
    for sips in 1..5 {
        assert_eq!(play.received().len(), 3 * sips);
        network.advance(SECOND);
    }
    let sent = host.send(0, &[7; 2_000], false).expect("some room");
    assert!(sent < 1_100, "{sent} bytes: the receive buffer is full, and the send buffer nearly");
    host.finish(0).expect("open");
    network.advance(10 * SECOND);
    assert_eq!(play.received().len(), 2_000 + sent, "it reads on");
    assert!(play.has_end() && play.is_over());
}

#[test]
fn who_sips_reads_the_end_behind_the_last_byte() {
    let (network, mut host, play) = played(Script::new().sip(2, SECOND).receive(5).receive_end().close());
    host.send(0, b"12345", false).expect("room");
    host.finish(0).expect("open");
    network.advance(SECOND + 500 * MS);
    assert_eq!((play.received().len(), play.has_end()), (4, false));
    network.advance(SECOND);
    assert_eq!((play.received(), play.has_end(), play.undone()), (b"12345".to_vec(), true, None));
}

#[test]
fn scripts_are_told_in_words() {
    let script = Script::new().drip(b"abc", SECOND).flood(b"x", SECOND).flood(b"x", Duration::MAX).sip(1, MS).read_on();
    let words = "drip 3 bytes, one each 1s, flood for 1s, flood for ever, read 1 byte each 1ms, read on";
    assert_eq!(script.to_string(), words);
}
