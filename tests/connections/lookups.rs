//! Lookups on the resolver's threads: how many run at once, which are made, what wakes the loop, and
//! what is left of the threads.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use finale::{ConnectOptions, ConnectionErrorKind, Event, LookupErrorKind, Reactor};
use support::alone::alone;

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs until this many sockets have failed, and returns why each did.
fn failures(reactor: &mut Reactor, count: usize) -> Vec<ConnectionErrorKind> {
    let mut kinds = Vec::new();
    while kinds.len() < count {
        let until = reactor.now() + PATIENCE;
        let (_, event) = reactor.next_before(until).expect("it continues").expect("a result in time");
        if let Event::Error(error) = event {
            kinds.push(error.kind);
        }
    }
    kinds
}

fn connect(reactor: &mut Reactor, host: &str) -> finale::SocketId {
    reactor.connect((host, 80), ConnectOptions::default().connect_timeout(None)).expect("a name")
}

/// Nothing else ends its wait.
#[test]
fn a_result_wakes_a_reactor_that_waits_for_nothing_else() {
    let mut reactor = Reactor::new().expect("descriptors");
    let (waits, is_waiting) = channel::<()>();
    let is_waiting = Mutex::new(is_waiting);
    reactor.set_resolver(move |_, _| {
        let _ = is_waiting.lock().expect("whole").recv();
        Err(LookupErrorKind::NotFound)
    });
    connect(&mut reactor, "nobody");
    // The lookup has begun, and its result comes when the reactor waits.
    while reactor.next_before(reactor.now()).expect("it continues").is_some() {}
    let begun = Instant::now();
    drop(waits);
    assert_eq!(failures(&mut reactor, 1), [ConnectionErrorKind::Lookup(LookupErrorKind::NotFound)]);
    // Without a wake the result is found when the wait ends by itself.
    assert!(begun.elapsed() < PATIENCE / 2, "it took {:?}", begun.elapsed());
}

/// Each waits until all four have begun.
#[test]
fn four_lookups_run_at_once_and_a_fifth_waits_for_a_thread() {
    let mut reactor = Reactor::new().expect("descriptors");
    let state = Arc::new((Mutex::new((0, 0, 0)), Condvar::new()));
    let shared = Arc::clone(&state);
    reactor.set_resolver(move |_, _| {
        let (counts, changed) = &*shared;
        let mut now = counts.lock().expect("whole");
        let (begun, running, most) = &mut *now;
        (*begun, *running) = (*begun + 1, *running + 1);
        *most = (*most).max(*running);
        changed.notify_all();
        let (mut now, _) = changed.wait_timeout_while(now, PATIENCE, |(begun, ..)| *begun < 4).expect("whole");
        now.1 -= 1;
        Err(if now.0 >= 4 { LookupErrorKind::NotFound } else { LookupErrorKind::TryAgain })
    });
    for number in 0..12 {
        connect(&mut reactor, &format!("host{number}"));
    }
    assert_eq!(failures(&mut reactor, 12), [ConnectionErrorKind::Lookup(LookupErrorKind::NotFound); 12]);
    let (begun, running, most) = *state.0.lock().expect("whole");
    assert_eq!((begun, running, most), (12, 0, 4));
}

/// In any order: the first, the last, and one between them.
#[test]
fn only_the_lookups_of_sockets_that_are_gone_are_not_made() {
    let mut reactor = Reactor::new().expect("descriptors");
    let (open, gate) = channel::<()>();
    let (gate, hosts) = (Mutex::new(gate), Arc::new(Mutex::new(BTreeSet::new())));
    let asked = Arc::clone(&hosts);
    reactor.set_resolver(move |host, _| {
        if host == "slow" {
            let _ = gate.lock().expect("whole").recv();
        } else {
            asked.lock().expect("whole").insert(host.to_owned());
        }
        Err(LookupErrorKind::NotFound)
    });
    (0..4).for_each(|_| _ = connect(&mut reactor, "slow"));
    let ids: Vec<_> = (0..8).map(|number| connect(&mut reactor, &format!("host{number}"))).collect();
    while reactor.next_before(reactor.now()).expect("it continues").is_some() {}
    for unwanted in [7, 0, 3, 6] {
        reactor.socket(ids[unwanted]).expect("it lives").destroy();
        while reactor.next_before(reactor.now()).expect("it continues").is_some() {}
    }
    drop(open);
    failures(&mut reactor, 8);
    let hosts: Vec<String> = hosts.lock().expect("whole").iter().cloned().collect();
    assert_eq!(hosts, ["host1", "host2", "host4", "host5"]);
}

#[test]
fn the_threads_of_a_dropped_reactor_end() {
    let name = "lookups::the_threads_of_a_dropped_reactor_end";
    alone(name, || {
        let threads = || {
            let tasks = std::fs::read_dir("/proc/self/task").expect("Linux").flatten();
            let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            tasks.map(name).filter(|name| name.starts_with("finale-lookup")).count()
        };
        let mut reactor = Reactor::new().expect("descriptors");
        reactor.set_resolver(|_, port| Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]));
        (0..8).for_each(|_| _ = connect(&mut reactor, "localhost"));
        while reactor.next().expect("it continues").is_some_and(|(_, event)| !matches!(event, Event::Lookup(_))) {}
        assert!((1..=4).contains(&threads()));
        drop(reactor);
        let until = Instant::now() + PATIENCE;
        while threads() > 0 {
            assert!(Instant::now() < until, "{} threads are left", threads());
            std::thread::yield_now();
        }
    });
}
