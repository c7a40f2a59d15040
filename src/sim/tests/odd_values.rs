//! The largest, the smallest and meaningless numbers: nothing hangs, and nothing panics.

use super::*;
use crate::net::{Readiness, UnixAddr};
use crate::sim::{Play, Script};

const NEVER: Duration = Duration::MAX;

/// A client sends five bytes and finishes, and the host sends them back. Returns what came back;
/// under odd conditions every call may fail.
fn exchange(network: &Network, host: &mut Host, slot: u32) -> Vec<u8> {
    let Ok(peer) = network.peer(CLIENT).connect(AT) else { return Vec::new() };
    peer.send(b"hello");
    peer.finish();
    network.advance(SECOND);
    if host.accept(0, slot).is_ok() {
        let _ = host.register(slot, Token { index: slot, generation: 1 });
        let mut buffer = [0; 10];
        let read = host.recv(slot, &mut buffer).map_or(0, |read| read.bytes);
        let _ = host.send(slot, &buffer[..read], false);
        let _ = host.finish(slot);
    }
    for wait in [Some(Duration::ZERO), Some(SECOND), Some(NEVER), None] {
        let _ = host.poll(host.now(), wait, &mut |_, _| {});
    }
    network.advance(SECOND);
    let answer = peer.read();
    host.close(slot);
    peer.close();
    network.advance(SECOND);
    answer
}

type Setting = fn(&Network);

const SETTINGS: &[(&str, Setting)] = &[
    ("buffers without a byte", |network| network.set_buffers(0, 0)),
    ("the largest buffers", |network| network.set_buffers(usize::MAX, usize::MAX)),
    ("no latency", |network| network.set_latency(Duration::ZERO)),
    ("an endless latency", |network| network.set_latency(NEVER)),
    ("an endless delay", |network| network.set_delay(CLIENT, NEVER)),
    ("everything is endless", |network| {
        network.set_latency(NEVER);
        network.set_delay(CLIENT, NEVER);
        network.hold_until(network.now() + Duration::from_secs(1 << 40));
    }),
    ("held for ever", |network| network.hold_until(network.now() + Duration::from_secs(1 << 40))),
    ("every packet is lost", |network| network.lose_next(CLIENT, u64::MAX)),
    ("no ports", |network| network.set_ports(RangeInclusive::new(2, 1))),
    ("port 0", |network| network.set_ports(0..=0)),
    ("the last port", |network| network.set_ports(u16::MAX..=u16::MAX)),
    ("an endless wait", |network| network.advance(NEVER)),
    ("two endless waits", |network| (0..2).for_each(|_| network.advance(NEVER))),
    ("an endless handler", |network| network.spend(NEVER)),
    ("endless calls", |network| network.set_call_cost(NEVER)),
];

/// All faults at once.
fn all_faults(chance: f64, time: Duration) -> Faults {
    Faults {
        spurious: chance,
        late_edge: chance,
        split_edge: chance,
        small_batch: chance,
        stale_news: chance,
        interrupted: chance,
        old_clock: chance,
        stall: chance,
        short_read: chance,
        short_write: chance,
        jitter: time,
        reset_overtakes: chance,
        accept_exhausted: chance,
        accept_aborted: chance,
        connect_exhausted: chance,
        register_exhausted: chance,
        no_memory: chance,
        lookup_delay: time,
        lookup_failure: chance,
    }
}

/// Applies the setting on an open connection and undoes it: then another connection works.
fn check(name: &str, set: &dyn Fn(&Network)) {
    let network = Network::new(1);
    let mut host = network.host(SERVER);
    host.listen(0, AT, &ListenOptions::default()).expect("the port is free");
    let open = network.peer(CLIENT).connect(AT).expect("a route");
    network.advance(SECOND);
    host.accept(0, 0).expect("one waits");
    host.register(0, TOKEN).expect("there is room");
    set(&network);
    open.send(b"on an open connection");
    let _ = host.send(0, &[1; 100_000], false);
    exchange(&network, &mut host, 1);
    host.reset(0);
    open.close();
    network.set_buffers(1_000, 1_000);
    network.set_latency(Duration::ZERO);
    network.set_delay(CLIENT, Duration::ZERO);
    network.hold_until(network.now());
    network.lose_next(CLIENT, 0);
    network.set_ports(1000..=2000);
    network.set_call_cost(Duration::ZERO);
    network.set_faults(Faults::none());
    // What could not be accepted waits in the queue.
    while host.accept(0, 1).is_ok() {
        host.reset(1);
    }
    assert_eq!(exchange(&network, &mut host, 2), b"hello", "{name}");
    assert!(network.busy() <= network.elapsed(), "{name}");
}

#[test]
fn after_any_setting_the_usual_ones_work_again() {
    let faults = [f64::NAN, -1.0, f64::NEG_INFINITY, f64::INFINITY, 1.0, 2.0, f64::MIN_POSITIVE]
        .into_iter()
        .flat_map(|chance| [(chance, Duration::ZERO), (chance, NEVER)]);
    for (name, set) in SETTINGS {
        check(name, set);
    }
    for (chance, time) in faults {
        check(&format!("{chance} and {time:?}"), &|network| network.set_faults(all_faults(chance, time)));
    }
}

#[test]
fn scripts_with_odd_numbers_do_what_they_can() {
    let new = Script::new;
    // The bytes that it has received of five, and whether it is over after the end.
    let scripts = [
        (new().sip(0, Duration::ZERO), 0, true),
        (new().sip(0, SECOND), 0, true),
        (new().sip(0, NEVER), 0, true),
        (new().sip(1, Duration::ZERO), 5, true),
        (new().sip(1, NEVER), 1, true),
        (new().sip(u64::MAX, NEVER), 5, true),
        (new().receive(0), 5, true),
        (new().receive(u64::MAX), 5, true),
        (new().receive(5).receive(u64::MAX), 5, true),
        (new().receive(5).receive(u64::MAX).receive(u64::MAX), 5, true),
        (new().wait(Duration::ZERO), 5, true),
        (new().wait(NEVER), 5, false),
        (new().drip(b"", NEVER), 5, true),
        (new().drip(b"ab", Duration::ZERO), 5, true),
        (new().drip(b"ab", NEVER), 5, false),
        (new().flood(b"", Duration::ZERO), 5, true),
        (new().flood(b"", NEVER), 5, false),
        (new().flood(b"ab", Duration::ZERO), 5, true),
        (new().flood(b"ab", NEVER), 5, false),
        (new().send(b"").send_urgent(), 5, true),
    ];
    for (script, received, is_over) in scripts {
        assert!(script.bytes() < 1 << 40 && script.bytes_each_way().0 < 3);
        let network = Network::new(1);
        let mut host = network.host(SERVER);
        host.listen(0, AT, &ListenOptions::default()).expect("the port is free");
        let unix = UnixAddr::abstract_name("odd");
        host.listen_unix(1, &unix, &ListenOptions::default()).expect("a new name");
        let plays = [
            network.peer(CLIENT).play(AT, script.clone()).expect("a route"),
            network.peer(SERVER).play_unix(&unix, script.clone()).expect("it listens"),
        ];
        network.advance(SECOND);
        for (listener, play) in (0..).zip(plays) {
            host.accept(listener, listener).expect("one waits");
            host.send(listener, b"12345", false).expect("room");
            host.finish(listener).expect("open");
            let found = |play: &Play| (play.received().len(), play.is_over());
            network.advance(SECOND);
            assert_eq!(found(&play), (received, is_over), "{script}");
        }
    }
}

#[test]
fn no_option_of_a_peers_socket_is_too_odd() {
    for (time, number) in [(Duration::ZERO, 0), (NEVER, usize::MAX)] {
        let times = KeepAlive { idle: time, interval: time, count: number as u32 };
        let options = ConnectOptions::default().keep_alive(times).user_timeout(time);
        let options = options.send_buffer_size(number).receive_buffer_size(number);
        let network = Network::new(1);
        let listener = network.peer(SERVER).listen(AT).expect("the port is free");
        let client = network.peer(CLIENT).connect_with(AT, &options).expect("a route");
        client.send(b"hello");
        network.advance(SECOND);
        network.vanish(CLIENT);
        network.advance(SECOND * 1_000);
        assert_eq!(listener.accept().map(|accepted| accepted.read()).is_some(), time == NEVER);
    }
}

#[test]
fn readiness_is_made_up_only_for_a_slot_that_is_in_use() {
    let (_network, host, _peer) = accepted(&ListenOptions::default());
    assert!(!host.make_up(u32::MAX, Readiness::default()));
}
