#![allow(clippy::wildcard_enum_match_arm, reason = "a test names what it looks for")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::{Call, Record, Recorder, What};
use crate::lifecycle::{Input, State};
use crate::net::Net;
use crate::sim::{Network, Reach, Script};
use crate::{ConnectOptions, Event, ListenOptions, Reactor};

/// A server that answers at the client's FIN, on the simulated network.
fn answer(recorder: &Recorder) -> Vec<Record> {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(recorder.around(network.host([10, 0, 0, 1].into())));
    let listener = reactor.listen("10.0.0.1:80", ListenOptions::default()).expect("a free port");
    let script = Script::new().send(b"question").finish().receive_end();
    network.peer([10, 0, 0, 2].into()).play(listener.addr, script).expect("a route");
    while let Some((mut socket, event)) = reactor.next().expect("it never fails") {
        match event {
            Event::End => {
                socket.write(b"answer").expect("open");
                socket.end();
            }
            Event::Close(_) => reactor.close_listener(listener.id).expect("it is open"),
            _ => {}
        }
    }
    recorder.records()
}

#[test]
fn a_record_has_the_calls_the_transitions_and_what_the_kernel_says() {
    let records = answer(&Recorder::new(1000));
    let call = |record: &Record| match record.what {
        What::Call { call, bytes, error: None, .. } => Some((call, bytes)),
        _ => None,
    };
    let calls: Vec<_> = records.iter().filter_map(call).collect();
    let expected =
        [(Call::Accept, 0), (Call::Recv, 8), (Call::Recv, 0), (Call::Send, 6), (Call::Shutdown, 0), (Call::Close, 0)];
    assert_eq!(calls, expected);
    let step = |record: &Record| match record.what {
        What::Step { input, to, .. } => Some((input, to)),
        _ => None,
    };
    let steps: Vec<_> = records.iter().filter_map(step).collect();
    assert_eq!(
        steps[..3],
        [(Input::Accepted, State::Open), (Input::Data, State::Open), (Input::Fin, State::PeerFinished)]
    );
    assert_eq!(steps.last(), Some(&(Input::CloseDue, State::Closed)));
    let kernel = |record: &Record| match record.what {
        What::Kernel(view) => Some(view.to_string()),
        _ => None,
    };
    let kernel: Vec<_> = records.iter().filter_map(kernel).collect();
    assert_eq!(
        kernel,
        [
            "CLOSE-WAIT Recv-Q 9 Send-Q 0",
            "CLOSE-WAIT Recv-Q 0 Send-Q 0",
            "CLOSE-WAIT Recv-Q 0 Send-Q 6",
            "LAST-ACK Recv-Q 0 Send-Q 7"
        ]
    );
    assert!(records.iter().zip(0..).all(|(record, number)| record.number == number && record.connection == 0));
    assert!(records.windows(2).all(|pair| pair[0].at <= pair[1].at));
}

#[test]
fn a_full_record_keeps_the_newest_lines_and_counts_the_others() {
    let whole = answer(&Recorder::new(1000));
    let recorder = Recorder::new(3);
    let kept = answer(&recorder);
    let newest = &whole[whole.len() - 3..];
    assert!(kept.iter().zip(newest).all(|(kept, whole)| (kept.number, &kept.what) == (whole.number, &whole.what)));
    assert_eq!((kept.len(), recorder.lost()), (3, whole.len() as u64 - 3));
    assert_eq!(recorder.since(kept[2].number), kept[2..]);
    assert_eq!(recorder.since(u64::MAX), []);
    let nothing = Recorder::new(0);
    assert_eq!((answer(&nothing).len(), nothing.lost()), (0, 0));
    nothing.note(whole[0].at, 0, "a note");
    assert!(format!("{nothing:?}").contains("total: 0, connections: 0,"), "nothing is done for it: {nothing:?}");
}

#[test]
fn each_connection_has_a_number_also_one_in_the_slot_of_another() {
    let (recorder, network) = (Recorder::new(1000), Network::new(1));
    let mut reactor = Reactor::with_net(recorder.around(network.host([10, 0, 0, 1].into())));
    let listener = reactor.listen("10.0.0.1:80", ListenOptions::default()).expect("a free port");
    for wait in [0, 100] {
        let script = Script::new().wait(Duration::from_millis(wait)).reset();
        network.peer([10, 0, 0, 2].into()).play(listener.addr, script).expect("a route");
    }
    let mut left = 2;
    while left > 0
        && let Some((_, event)) = reactor.next().expect("it never fails")
    {
        left -= usize::from(matches!(event, Event::Close(_)));
    }
    let records = recorder.records();
    for connection in [0, 1] {
        let own: Vec<_> = records.iter().filter(|record| record.connection == connection).collect();
        assert!(matches!(own[0].what, What::Call { call: Call::Accept, .. }), "{own:?}");
        assert!(matches!(own.last().map(|last| &last.what), Some(What::Step { to: State::Closed, .. })), "{own:?}");
    }
    assert!(records.iter().all(|record| record.connection < 2));
}

/// What the kernel says in a record.
fn views(records: &[Record]) -> Vec<String> {
    let view = |record: &Record| match record.what {
        What::Kernel(view) => Some(view.to_string()),
        _ => None,
    };
    records.iter().filter_map(view).collect()
}

/// The calls of a connection, with their errors and addresses.
fn calls(records: &[Record], connection: u64) -> Vec<String> {
    let call = |record: &Record| match &record.what {
        What::Call { call, peer, error, .. } if record.connection == connection => {
            let peer = peer.map_or_else(String::new, |peer| format!(" {}", peer.ip()));
            let error = error.map_or_else(String::new, |error| format!(": {error}"));
            Some(format!("{}{peer}{error}", call.name()))
        }
        _ => None,
    };
    records.iter().filter_map(call).collect()
}

/// A client whose program answers a FIN with its own, until it is closed.
fn until_closed<N: Net>(reactor: &mut Reactor<N>) {
    while let Some((mut socket, event)) = reactor.next().expect("it never fails") {
        match event {
            Event::End => socket.end(),
            Event::Close(_) => return,
            _ => {}
        }
    }
}

/// The bytes and the FIN have arrived before the server accepts, so nothing depends on time.
#[test]
fn the_simulated_kernel_says_what_linux_says() {
    let expected = ["CLOSE-WAIT Recv-Q 9 Send-Q 0", "CLOSE-WAIT Recv-Q 0 Send-Q 0"];
    assert_eq!(views(&answer(&Recorder::new(1000)))[..2], expected);
    let recorder = Recorder::new(1000);
    let mut reactor = recorder.reactor().expect("a reactor");
    let listener = reactor.listen("127.0.0.1:0", ListenOptions::default()).expect("a free port");
    let mut client = TcpStream::connect(listener.addr).expect("it listens");
    client.write_all(b"question").expect("connected");
    client.shutdown(Shutdown::Write).expect("connected");
    until_closed(&mut reactor);
    let on_linux = views(&recorder.records());
    assert!(on_linux.is_empty() || on_linux == expected, "{on_linux:?}");
}

/// The state that the peer's FIN leads to is in no descriptor any more.
#[test]
fn a_client_that_finishes_first_sees_its_time_wait() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let server = std::thread::spawn(move || {
        let (mut server, _) = listener.accept().expect("a client");
        server.read_to_end(&mut Vec::new()).expect("its FIN");
    });
    let recorder = Recorder::new(1000);
    let mut reactor = recorder.reactor().expect("a reactor");
    let id = reactor.connect(addr, ConnectOptions::default()).expect("a socket");
    reactor.socket(id).expect("it begins").end();
    until_closed(&mut reactor);
    server.join().expect("it has not panicked");
    let views = views(&recorder.records());
    let last = views.last().map(String::as_str);
    assert!(views.is_empty() || last == Some("TIME-WAIT Recv-Q 0 Send-Q 0"), "{views:?}");
}

#[test]
fn each_attempt_of_a_socket_is_a_connection_and_the_winner_continues() {
    let (recorder, network) = (Recorder::new(1000), Network::new(1));
    let [refuses, silent, serves] = [1, 2, 3].map(|last| std::net::SocketAddr::from(([10, 0, 0, last], 80)));
    network.vanish(silent.ip());
    let server = network.peer(serves.ip()).listen(serves).expect("a free port");
    server.play_each(Script::new().finish().receive_end());
    let mut reactor = Reactor::with_net(recorder.around(network.host([10, 0, 0, 9].into())));
    reactor.connect(vec![refuses, silent, serves], ConnectOptions::default()).expect("a socket");
    until_closed(&mut reactor);
    let records = recorder.records();
    let refused = "connect 10.0.0.1: Connection refused (os error 111)";
    assert_eq!(calls(&records, 0), ["connect 10.0.0.1", refused, "close"], "{records:#?}");
    assert_eq!(calls(&records, 1), ["connect 10.0.0.2", "reset"], "{records:#?}");
    assert_eq!(calls(&records, 2), ["connect 10.0.0.3", "recv", "shutdown", "close"], "{records:#?}");
    let after = records.iter().skip_while(|record| !matches!(record.what, What::Step { to: State::Open, .. }));
    assert!(after.clone().count() > 5 && after.clone().all(|record| record.connection == 2), "{records:#?}");
}

#[test]
fn a_close_without_a_descriptor_is_no_system_call() {
    let (recorder, network) = (Recorder::new(1000), Network::new(1));
    let mut reactor = Reactor::with_net(recorder.around(network.host([10, 0, 0, 1].into())));
    reactor.connect("nowhere:80", ConnectOptions::default()).expect("a socket");
    until_closed(&mut reactor);
    assert_eq!(calls(&recorder.records(), 0), ["lookup"]);
    reactor.connect("10.0.0.2:80", ConnectOptions::default()).expect("a socket");
    until_closed(&mut reactor);
    assert_eq!(calls(&recorder.records(), 1)[2..], ["close"], "{:?}", recorder.records());
}

/// Also the records of the calls that come before the first transition, and of attempts.
#[test]
fn each_record_of_a_socket_has_its_id() {
    let (recorder, network) = (Recorder::new(1000), Network::new(1));
    let [refuses, silent, serves] = [1, 2, 3].map(|last| std::net::SocketAddr::from(([10, 0, 0, last], 80)));
    network.vanish(silent.ip());
    let server = network.peer(serves.ip()).listen(serves).expect("a free port");
    server.play_each(Script::new().finish().receive_end());
    let mut client = Reactor::with_net(recorder.around(network.host([10, 0, 0, 9].into())));
    let id = client.connect(vec![refuses, silent, serves], ConnectOptions::default()).expect("a socket");
    until_closed(&mut client);
    recorder.note(client.now(), 2, "a note");
    for record in recorder.records() {
        let is_note = matches!(record.what, What::Note(_));
        assert_eq!(record.socket, (!is_note).then_some(id), "{record}");
    }
    let recorder = Recorder::new(1000);
    let accepted = answer(&recorder);
    assert!(accepted[0].socket.is_some_and(|first| accepted.iter().all(|record| record.socket == Some(first))));
    assert_eq!(accepted[0].to_string().split_once(": ").map(|(_, what)| what), Some("accept 10.0.0.2:32768"));
}

#[test]
fn a_record_is_printed_as_one_line() {
    let recorder = Recorder::new(1000);
    let lines: Vec<_> = answer(&recorder).iter().map(|record| record.what.to_string()).collect();
    for line in [
        "recv 8 bytes",
        "recv 0: the peer's FIN",
        "Fin: Open -> PeerFinished, event end",
        "kernel: CLOSE-WAIT, 9 unread",
        "shutdown(SHUT_WR)",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line}: {lines:?}");
    }
    let refused = What::Call {
        call: Call::Connect,
        bytes: 0,
        peer: Some(([10, 0, 0, 1], 80).into()),
        error: Some((&std::io::Error::from_raw_os_error(111)).into()),
    };
    assert_eq!(refused.to_string(), "connect 10.0.0.1:80: Connection refused (os error 111)");
}

/// Also of connections that use a slot again, and of the next second.
#[test]
fn of_the_connections_of_a_second_a_bounded_number_is_recorded() {
    let (recorder, network) = (Recorder::new(1000).per_second(2), Network::new(1));
    let mut reactor = Reactor::with_net(recorder.around(network.host([10, 0, 0, 1].into())));
    let listener = reactor.listen("10.0.0.1:80", ListenOptions::default()).expect("a free port");
    for wait in [0, 10, 20, 900, 1500, 1600, 1700] {
        let script = Script::new().send(b"x").receive_end().finish();
        let peer = network.peer([10, 0, 0, 2].into());
        network.advance(Duration::from_millis(wait).saturating_sub(network.elapsed()));
        peer.play(listener.addr, script).expect("a route");
        let mut recorded = 0;
        while let Some((mut socket, event)) = reactor.next().expect("it never fails") {
            match event {
                Event::Data(_) => socket.end(),
                Event::Close(_) => {
                    recorded = recorder.records_of(socket.id()).len();
                    break;
                }
                _ => {}
            }
        }
        assert_eq!(recorded > 0, ![20, 900, 1700].contains(&wait), "the client of {wait} ms: {recorded}");
    }
    let records = recorder.records();
    assert_eq!(records.last().map(|last| last.connection), Some(3), "only those that are recorded have numbers");
    assert!(records.iter().all(|record| record.socket.is_some()));
}

/// Its slot is used again, though no descriptor was closed.
#[test]
fn a_connection_has_a_number_of_its_own_after_an_attempt_that_could_not_be_begun() {
    let (recorder, network) = (Recorder::new(1000), Network::new(1));
    let mut reactor = Reactor::with_net(recorder.around(network.host([10, 0, 0, 1].into())));
    let hosts = [[10, 0, 0, 2].into(), [10, 0, 0, 3].into()];
    network.set_reach(hosts[0], Reach::BlackHole);
    network.set_reach(hosts[1], Reach::NoRoute);
    let options = ConnectOptions::default().attempt_delay(Duration::from_millis(20));
    reactor.connect(hosts.map(|ip| SocketAddr::new(ip, 80)).to_vec(), options).expect("addresses");
    let until = network.now() + Duration::from_millis(50);
    while reactor.next_before(until).expect("it never fails").is_some() {}
    let before = recorder.records().iter().map(|record| record.connection).max();
    let listener = reactor.listen("10.0.0.1:80", ListenOptions::default()).expect("a free port");
    let _client = network.peer([10, 0, 0, 2].into()).connect(listener.addr).expect("a route");
    let (socket, _) = reactor.next().expect("it never fails").expect("a connection");
    let first = recorder.records_of(socket.id()).first().map(|first| first.connection);
    assert!(first.is_some() && first > before, "{first:?} after {before:?}");
}

/// Otherwise the connections of a server that live for long would all be recorded one day.
#[test]
fn of_the_connections_at_a_time_a_bounded_number_is_recorded() {
    let (recorder, network) = (Recorder::new(100_000).per_second(1), Network::new(1));
    let mut reactor = Reactor::with_net(recorder.around(network.host([10, 0, 0, 1].into())));
    let listener = reactor.listen("10.0.0.1:80", ListenOptions::default()).expect("a free port");
    let recorded = || recorder.records().last().map_or(0, |last| last.connection + 1);
    let mut open = Vec::new();
    for _ in 0..103 {
        let client = network.peer([10, 0, 0, 2].into()).connect(listener.addr).expect("a route");
        while !matches!(reactor.next().expect("it never fails"), Some((_, Event::Connection))) {}
        network.advance(Duration::from_secs(1));
        open.push(client);
    }
    assert_eq!(recorded(), 100);
    open.remove(0).reset();
    while !matches!(reactor.next().expect("it never fails"), Some((_, Event::Close(_)))) {}
    let _next = network.peer([10, 0, 0, 2].into()).connect(listener.addr).expect("a route");
    while !matches!(reactor.next().expect("it never fails"), Some((_, Event::Connection))) {}
    assert_eq!(recorded(), 101, "another has its place");
}

/// So a search for those of a socket that was not recorded costs nothing.
#[test]
fn a_recorder_knows_whose_records_it_has_after_some_were_lost_too() {
    let recorder = Recorder::new(10);
    for _ in 0..3 {
        let records = answer(&recorder);
        let ring = recorder.lock();
        let own = |socket| records.iter().filter(|record| record.socket == Some(socket)).count();
        assert!(!ring.lines.is_empty() && ring.lines.iter().all(|(socket, lines)| own(*socket) == *lines));
        let known: usize = ring.lines.values().sum();
        assert_eq!(known, records.iter().filter(|record| record.socket.is_some()).count());
    }
    let recorder = Recorder::new(2);
    answer(&recorder);
    assert!(recorder.lock().lines.len() <= 2);
}
