use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::*;
use crate::error::ConnectionErrorKind;
use crate::id::{ListenerId, TimerId};

fn ending(how: EndingKind, first: FirstFin) -> Ending {
    let peer = Some(SocketAddr::from(([127, 0, 0, 1], 80)));
    Ending { kind: how, first_fin: first, peer, bytes_read: 12, bytes_written: 34, bytes_unsent: 0 }
}

fn failed() -> EndingKind {
    EndingKind::Failed(ConnectionError::of(ConnectionErrorKind::Reset))
}

#[test]
fn an_ending_answers_each_question_from_how_it_ended() {
    for (how, had_error, clean, acknowledged) in [
        (EndingKind::Confirmed, false, true, true),
        (EndingKind::HandedOff, false, true, false),
        (EndingKind::Destroyed, false, false, false),
        (failed(), true, false, false),
    ] {
        let ending = ending(how, FirstFin::Peer);
        assert_eq!(
            (ending.had_error(), ending.is_clean(), ending.is_acknowledged()),
            (had_error, clean, acknowledged),
            "{ending}"
        );
    }
}

#[test]
fn time_wait_stays_with_whoever_finished_first_unless_there_was_a_reset() {
    for first in [FirstFin::Neither, FirstFin::Local, FirstFin::Peer, FirstFin::Both, FirstFin::Unknown] {
        assert_eq!(ending(EndingKind::Confirmed, first).time_wait(), first);
        assert_eq!(ending(EndingKind::HandedOff, first).time_wait(), first);
        assert_eq!(ending(EndingKind::Destroyed, first).time_wait(), FirstFin::Neither);
        assert_eq!(ending(failed(), first).time_wait(), FirstFin::Neither);
        let of_a_unix_socket = Ending { peer: None, ..ending(EndingKind::Confirmed, first) };
        assert_eq!(of_a_unix_socket.time_wait(), FirstFin::Neither);
    }
}

#[test]
fn an_ending_is_one_line_that_tells_all_of_it() {
    let mut seen = BTreeSet::new();
    for how in [EndingKind::Confirmed, EndingKind::HandedOff, EndingKind::Destroyed, failed()] {
        for first in [FirstFin::Neither, FirstFin::Local, FirstFin::Peer, FirstFin::Both, FirstFin::Unknown] {
            let ending = ending(how.clone(), first);
            let line = ending.to_string();
            assert!(line.contains("12 bytes read, 34 written") && !line.contains('\n'), "{line}");
            let claims = ending.is_clean() && matches!(first, FirstFin::Local | FirstFin::Peer | FirstFin::Both);
            assert_eq!(line.contains("TIME_WAIT"), claims, "{line}");
            assert_eq!(line.contains("both finished, in"), ending.is_clean() && first == FirstFin::Unknown, "{line}");
            assert!(seen.insert(line.clone()), "two endings read the same: {line}");
        }
    }
}

#[test]
fn an_ending_that_is_not_clean_is_an_error_with_what_it_failed_of_as_its_source() {
    use std::error::Error as _;
    for how in [EndingKind::Confirmed, EndingKind::HandedOff] {
        let ending = ending(how, FirstFin::Local);
        assert_eq!(ending.clone().into_result(), Ok(ending));
    }
    let destroyed = ending(EndingKind::Destroyed, FirstFin::Local).into_result().expect_err("not clean");
    assert!(destroyed.source().is_none());
    let error = std::io::Error::from_raw_os_error(104);
    let failed = ending(EndingKind::Failed(ConnectionError::from_os(&error)), FirstFin::Local)
        .into_result()
        .expect_err("not clean");
    let failure = failed.source().expect("the failure");
    assert_eq!(failure.to_string(), "reset by the peer");
    assert_eq!(failure.source().expect("the system's").to_string(), error.to_string());
}

#[test]
fn bytes_that_were_never_sent_are_told_only_if_there_are_any() {
    let mut ending = ending(EndingKind::Destroyed, FirstFin::Neither);
    assert!(!ending.to_string().contains("never sent"), "{ending}");
    ending.bytes_unsent = 1;
    assert!(ending.to_string().ends_with(", 1 never sent"), "{ending}");
}

/// The kinds of events in `Display` are the words of the grammar.
#[test]
fn an_event_is_written_with_its_name_in_the_grammar() {
    let addr = SocketAddr::from(([10, 0, 0, 1], 80));
    let refused = ConnectionError::of(ConnectionErrorKind::Refused);
    let ended = ending(EndingKind::Confirmed, FirstFin::Local);
    for (event, expected) in [
        (Event::Lookup(addr.ip()), "lookup 10.0.0.1"),
        (Event::Connect, "connect"),
        (Event::Ready, "ready"),
        (Event::Connection, "connection"),
        (Event::Data(b"x"), "data, 1 byte"),
        (Event::Data(b"xy"), "data, 2 bytes"),
        (Event::Drain, "drain"),
        (Event::Timeout, "timeout"),
        (Event::PeerEnded(PeerEnd::Fin), "peer-ended"),
        (Event::PeerEnded(PeerEnd::Reset), "peer-ended by a reset"),
        (Event::End, "end"),
        (Event::Error(&refused), &format!("error: {refused}")),
        (Event::Close(&ended), &format!("close: {ended}")),
        (Event::Timer(TimerId::new(0, 3, 7)), "timer 3.7 fired"),
        (Event::Woken, "woken"),
        (Event::Overflow(ListenerId::new(0, 0, 1), Some(&addr)), "listener 0.1 is full: 10.0.0.1:80 refused"),
        (Event::Overflow(ListenerId::new(0, 0, 1), None), "listener 0.1 is full: a client refused"),
        (Event::ListenerClosed(ListenerId::new(0, 0, 1)), "listener 0.1 closed"),
    ] {
        assert_eq!(event.to_string(), expected);
    }
}
