//! Protocol handlers against every ending at every byte: what `finale::check::Endings` finds, and
//! what it does not report.

use std::time::Duration;

use super::handlers::{broken, echo, hello, one_buffer, patient_listen};
use finale::check::{CaseResult, Cut, CutPoint, Endings, Program, Rule};
use finale::sim::Script;
use finale::{ConnectOptions, Event, ListenOptions, Socket};

#[test]
fn an_echo_keeps_every_rule_at_every_ending() {
    let report = Endings::of_a_server(patient_listen(), hello()).conditions(5).run(|| echo);
    assert!(report.violation().is_none(), "{report}");
    // Whole and byte by byte, and six cuts after 0 to 5 bytes either way, each without and under
    // five network conditions.
    assert_eq!(report.cases(), (2 + 6 * (6 + 6)) * 6);
    assert!(report.transcript().is_empty());
}

#[test]
fn a_client_is_run_against_every_ending_of_its_server() {
    let ask = |socket: &mut Socket<'_>, event: Event<'_>| match event {
        Event::Ready => {
            let _ = socket.write(b"time?");
            socket.end();
            socket.set_idle_timeout(Duration::from_secs(5));
        }
        Event::Timeout => socket.destroy(),
        _ => {}
    };
    let clock = Script::new().receive(5).send(b"12:00").receive_end().finish();
    let report = Endings::of_a_client(ConnectOptions::default(), clock).run(|| ask);
    assert!(report.violation().is_none(), "{report}");
}

/// What is found for this handler.
#[track_caller]
fn found<P: Program>(endings: &Endings, make: impl Fn() -> P) -> (Rule, String) {
    let (case, rule, what) = broken(endings, make);
    (rule, format!("{case}: {what}"))
}

#[test]
fn a_handler_that_believes_in_whole_pieces_is_found() {
    let whole = |socket: &mut Socket<'_>, event: Event<'_>| match event {
        Event::Data(b"hello") => drop(socket.write(b"world")),
        Event::End => socket.end(),
        Event::Timeout => socket.destroy(),
        _ => {}
    };
    let (rule, what) = found(&Endings::of_a_server(patient_listen(), hello()), || whole);
    assert_eq!(rule, Rule::SameAnswer);
    assert!(what.starts_with("the peer sends and receives byte by byte"), "{what}");
}

#[test]
fn a_handler_that_misreads_a_piece_of_one_length_is_found_by_a_delay() {
    let picky = |socket: &mut Socket<'_>, event: Event<'_>| match event {
        Event::Data(b"hel") => drop(socket.write(b"HEL")),
        event => echo(socket, event),
    };
    let (case, rule, what) = broken(&Endings::of_a_server(patient_listen(), hello()), || picky);
    assert_eq!((case.point, case.cut, rule), (CutPoint::Sent(3), Cut::Delay, Rule::SameAnswer));
    assert_eq!(what, "the peer received 5 bytes \"HELlo\", and without a cut 5 bytes \"hello\"");
}

#[test]
fn a_handler_that_takes_end_for_close_is_found() {
    let hasty = |socket: &mut Socket<'_>, event: Event<'_>| match event {
        Event::Data(bytes) => drop(socket.write(bytes)),
        Event::End | Event::Timeout => socket.destroy(),
        _ => {}
    };
    let (rule, what) = found(&Endings::of_a_server(patient_listen(), hello()), || hasty);
    assert_eq!(rule, Rule::Progress);
    assert!(what.starts_with("nothing is cut: the peer never got past \"receive the end\""), "{what}");
}

#[test]
fn a_handler_that_takes_an_early_end_for_close_is_found() {
    // It ends first, so that the end usually arrives when all is sent: not if the peer finishes
    // with its request.
    let hasty = |socket: &mut Socket<'_>, event: Event<'_>| match event {
        Event::Data(bytes) => {
            let _ = socket.write(bytes);
            if socket.bytes_read() == 5 {
                socket.end();
            }
        }
        Event::End | Event::Timeout => socket.destroy(),
        _ => {}
    };
    let ends_last = Script::new().send(b"hello").receive(5).receive_end().finish();
    let (rule, what) = found(&Endings::of_a_server(patient_listen(), ends_last), || hasty);
    assert_eq!(rule, Rule::SameAnswer);
    assert!(what.starts_with("the peer finishes and reads on after byte 5 of what it sends"), "{what}");
}

#[test]
fn what_is_left_of_one_connection_for_the_next_is_found() {
    let (rule, what) = found(&Endings::of_a_server(patient_listen(), hello()), || one_buffer(false));
    assert_eq!(rule, Rule::Isolation);
    assert!(what.contains("a second peer received"), "{what}");
}

#[test]
fn a_handler_that_waits_for_ever_is_found() {
    let endings = Endings::of_a_server(ListenOptions::default(), hello()).cuts(&[Cut::Silence]);
    let (rule, what) = found(&endings, || echo);
    assert_eq!(rule, Rule::Progress);
    let silent =
        "falls silent after byte 0 of what it sends: a connection did not end within 3600s (a silent peer needs";
    assert!(what.contains(silent), "{what}");

    let asks = |socket: &mut Socket<'_>, event: Event<'_>| match event {
        Event::Ready => drop(socket.write(b"time?")),
        Event::End => socket.end(),
        _ => {}
    };
    let clock = Script::new().receive(5).send(b"12:00").finish().receive_end();
    let (_, what) = found(&Endings::of_a_client(ConnectOptions::default(), clock).cuts(&[Cut::Silence]), || asks);
    assert!(what.contains(silent), "{what}");
}

#[test]
fn a_handler_that_panics_is_found_with_its_words() {
    let brittle = |socket: &mut Socket<'_>, event: Event<'_>| match event {
        Event::Error(failure) => panic!("no error was foreseen: {failure}"),
        event => echo(socket, event),
    };
    let (rule, what) = found(&Endings::of_a_server(patient_listen(), hello()), || brittle);
    assert_eq!(rule, Rule::Own);
    assert!(what.contains("no error was foreseen: reset by the peer"), "{what}");
}

#[test]
fn what_a_handler_forgets_is_found() {
    #[derive(Default)]
    struct Forgetful(u32);
    impl Program for Forgetful {
        fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
            match event {
                Event::Connection => self.0 += 1,
                // It counts down at the end, which not every connection has.
                Event::End => self.0 -= 1,
                _ => {}
            }
            echo(socket, event);
        }

        fn at_rest(&self, _found: &CaseResult) -> Result<(), String> {
            if self.0 == 0 { Ok(()) } else { Err(format!("{} connections are counted", self.0)) }
        }
    }
    let (rule, what) = found(&Endings::of_a_server(patient_listen(), hello()), Forgetful::default);
    assert_eq!(rule, Rule::Own);
    assert!(what.ends_with("1 connections are counted"), "{what}");
}

#[test]
fn what_the_caller_asks_of_every_case_is_asked() {
    let endings = Endings::of_a_server(patient_listen(), hello()).holds(|found| {
        let half = found.sent.len() < 5 && !found.received.is_empty();
        if half { Err("half a request got an answer".to_owned()) } else { Ok(()) }
    });
    let (rule, what) = found(&endings, || echo);
    assert_eq!((rule, what.ends_with("half a request got an answer")), (Rule::Own, true), "{what}");
}

#[test]
fn a_conversation_that_does_not_go_well_by_itself_is_said_so() {
    let mute = |socket: &mut Socket<'_>, event: Event<'_>| {
        if matches!(event, Event::Connection) {
            socket.set_idle_timeout(None);
        }
    };
    let report = Endings::of_a_server(ListenOptions::default(), Script::new().receive(1).finish()).run(|| mute);
    let (case, broken) = report.violation().expect("it never ends");
    assert_eq!((case.to_string(), broken.rule), ("nothing is cut".to_owned(), Rule::Progress));
}

#[test]
fn a_server_that_hands_off_and_one_with_endless_patience_are_left_in_peace() {
    let hand_off = patient_listen().close_mode(finale::CloseMode::HandOff);
    let report = Endings::of_a_server(hand_off, hello()).run(|| echo);
    assert!(report.violation().is_none(), "{report}");
    let report =
        Endings::of_a_server(patient_listen(), hello()).cuts(&[Cut::Fin]).max_lifetime(Duration::MAX).run(|| echo);
    assert!(report.violation().is_none(), "{report}");
}

#[test]
fn a_server_with_a_long_answer_is_left_in_peace() {
    let long = Script::new().send(&[b'x'; 300]).receive(300).finish().receive_end();
    let report = Endings::of_a_server(patient_listen(), long).conditions(1).run(|| echo);
    assert!(report.violation().is_none(), "{report}");
}

/// Byte by byte, with an event and a timer each. It ends after all of them.
#[test]
fn a_long_conversation_with_two_events_per_byte_is_not_taken_for_one_without_end() {
    let long = Script::new().send(&[b'x'; 60_000]).finish().receive_end();
    let timed = || {
        let mut last = None;
        move |socket: &mut Socket<'_>, event: Event<'_>| match event {
            Event::Data(_) => _ = socket.set_timer(Duration::ZERO),
            Event::End => last = Some((socket.set_timer(Duration::from_millis(10)), socket.id())),
            Event::Timer(timer) => {
                let ended = last.filter(|(last, _)| *last == timer);
                ended.and_then(|(_, id)| socket.get(id)).into_iter().for_each(|mut socket| socket.end());
            }
            _ => {}
        }
    };
    let report = Endings::of_a_server(patient_listen(), long).cuts(&[]).conditions(0).run(timed);
    assert!(report.violation().is_none(), "{report}");
}

#[test]
fn a_case_says_what_the_peer_really_wrote_and_saw() {
    let endings = Endings::of_a_server(patient_listen(), hello()).cuts(&[Cut::Reset]).holds(|found| {
        let wrote = found.sent.len() as u64;
        match found.case.point {
            CutPoint::Sent(byte) if wrote != byte => Err(format!("{wrote} bytes were written")),
            CutPoint::Sent(_) if found.case.conditions == 0 && found.peer_got_end => {
                Err("a peer that resets sees no end".into())
            }
            _ => Ok(()),
        }
    });
    assert_eq!(endings.run(|| echo).violation(), None);
    // The last thing that it sends is a reset, which is still in flight when our side is done.
    let rude = |socket: &mut Socket<'_>, event: Event<'_>| match event {
        Event::Data(_) if socket.bytes_read() < 5 => socket.destroy(),
        event => echo(socket, event),
    };
    let endings = Endings::of_a_server(patient_listen(), hello()).cuts(&[Cut::Fin]).conditions(0);
    let (rule, what) =
        found(&endings.holds(|found| if found.peer_died { Err("it died".into()) } else { Ok(()) }), || rude);
    assert_eq!(rule, Rule::SameAnswer, "{what}");
}

#[test]
fn all_that_a_test_requires_and_prepares_counts_and_not_only_the_last() {
    let prepared = std::rc::Rc::new(std::cell::Cell::new(0));
    let count = std::rc::Rc::clone(&prepared);
    let endings = Endings::of_a_server(patient_listen(), hello())
        .network(move |_| count.set(count.get() + 1))
        .network(|_| {})
        .holds(|_| Err("the first".into()))
        .holds(|_| Ok(()));
    let (rule, what) = found(&endings, || echo);
    assert_eq!((rule, &*what), (Rule::Own, "nothing is cut: the first"));
    assert!(prepared.get() > 0);
}

#[test]
fn polite_peers_of_every_kind_leave_a_right_echo_in_peace() {
    let scripts = [
        Script::new().send(b"hello").receive(5).close(),
        Script::new()
            .stop_reading()
            .send(b"hello")
            .wait(Duration::from_secs(1))
            .read_on()
            .receive(5)
            .finish()
            .receive_end(),
        Script::new()
            .send(b"he")
            .receive(2)
            .wait(Duration::from_secs(6))
            .send(b"llo")
            .receive(3)
            .finish()
            .receive_end(),
    ];
    for script in scripts {
        let listen = ListenOptions::default().idle_timeout(Duration::from_secs(10));
        let report = Endings::of_a_server(listen, script.clone()).max_lifetime(Duration::from_secs(60)).run(|| echo);
        assert!(report.violation().is_none(), "{script}: {report}");
    }
    let long = Script::new().send(&[b'x'; 20_000]).receive(20_000).finish().receive_end();
    let report = Endings::of_a_server(patient_listen(), long).cuts(&[]).conditions(0).run(|| echo);
    assert!(report.violation().is_none(), "{report}");
}

#[test]
fn a_handler_that_is_good_to_its_first_peer_only_is_found() {
    let mut served = 0;
    let tired = move |socket: &mut Socket<'_>, event: Event<'_>| match event {
        Event::End if served > 0 => socket.destroy(),
        Event::Close(_) => served += 1,
        event => echo(socket, event),
    };
    let (rule, what) = found(&Endings::of_a_server(patient_listen(), hello()), || tired);
    assert_eq!(rule, Rule::Isolation);
    assert!(what.contains("a second peer never got past \"receive the end\""), "{what}");
}

#[test]
fn a_judge_that_panics_is_found_with_its_words() {
    let endings = Endings::of_a_server(patient_listen(), hello()).holds(|found| {
        assert!(found.sent.len() >= 5, "only {} bytes", found.sent.len());
        Ok(())
    });
    let (rule, what) = found(&endings, || echo);
    assert_eq!(rule, Rule::Own);
    assert!(what.contains("only 0 bytes"), "{what}");
}
