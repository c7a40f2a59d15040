#![allow(clippy::wildcard_enum_match_arm, reason = "a test names what it looks for")]

use std::time::Duration;

use super::{Call, Record, Recorder, What};
use crate::lifecycle::{Input, State};
use crate::sim::{Network, Script};
use crate::{Event, ListenOptions, Reactor};

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
        What::Call { call, bytes, error: None } => Some((call, bytes)),
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
            "CLOSE-WAIT Recv-Q 1 Send-Q 0",
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
    // Where nothing is kept, the kernel is not queried.
    let (nothing, is_kernel) = (Recorder::new(0), |record: &&Record| matches!(record.what, What::Kernel(_)));
    let queried = whole.iter().filter(is_kernel).count();
    assert_eq!((answer(&nothing).len(), nothing.lost()), (0, (whole.len() - queried) as u64));
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
