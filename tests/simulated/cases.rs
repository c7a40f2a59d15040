//! Which cases `finale::check::Endings` runs, in which order, under which conditions, and whether
//! what a report says of them is true.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use super::handlers::{addr, broken, echo, good, hello, patient_listen};
use finale::check::{Case, CaseResult, Cut, CutPoint, Endings, Program, Rule};
use finale::sim::{Host, Script};
use finale::{Backpressure, ConnectOptions, Error, Event, ListenOptions, Reactor, Socket};

/// Notes every case of these endings that is run.
fn noted(endings: Endings) -> (Endings, Rc<RefCell<Vec<Case>>>) {
    let cases = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&cases);
    let endings = endings.holds(move |found| {
        seen.borrow_mut().push(found.case);
        Ok(())
    });
    (endings, cases)
}

fn two_clients() -> Endings {
    let other = Script::new().send(b"bye").receive(3).finish().receive_end();
    Endings::of_a_server(patient_listen(), hello()).client(Endings::SERVER, other)
}

/// The cases of [`two_clients`]: whole and byte by byte, and each cut after every byte either way.
const TWO_CLIENTS: u64 = (2 + 6 * (6 + 6)) + (2 + 6 * (4 + 4));

#[test]
fn every_case_is_run_once_the_mildest_first_and_again_by_its_seed() {
    let (endings, cases) = noted(two_clients());
    let report = endings.run(|| echo);
    assert_eq!((report.cases(), report.total()), (TWO_CLIENTS * 3, TWO_CLIENTS * 3));
    assert_eq!(report.to_string(), "372 endings, and every rule was kept");

    let cases = cases.take();
    let seeds: HashSet<u64> = cases.iter().map(Case::seed).collect();
    assert_eq!((cases.len(), seeds.len()), (372, 372));
    let hardness = |case: &Case| {
        let is_cut = !matches!(case.point, CutPoint::Nowhere | CutPoint::ByteByByte);
        (case.conditions, case.peer, is_cut, Cut::ALL.iter().position(|cut| *cut == case.cut))
    };
    assert!(cases.is_sorted_by_key(hardness), "{cases:?}");

    for case in cases {
        let is_cut = !matches!(case.point, CutPoint::Nowhere | CutPoint::ByteByByte);
        assert_eq!(case.is_harmless(), !is_cut || case.cut == Cut::Delay, "{case}");
        let (endings, again) = noted(two_clients());
        let report = endings.replay(case.seed(), || echo);
        assert_eq!((report.cases(), report.violation(), again.take()), (1, None, vec![case]));
        assert!(!report.transcript().is_empty(), "{case}");
    }
}

/// The panic of a replay of this seed.
fn refused(seed: u64) -> String {
    let replay = std::panic::AssertUnwindSafe(|| two_clients().replay(seed, || echo));
    let panic = std::panic::catch_unwind(replay).expect_err("it is no case");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn a_seed_of_no_case_is_not_replayed() {
    let wrong = "is no case of this conversation: it is of another one, or of this one before it changed";
    // No cut, no point, and the third of two peers; and the byte after the last of five.
    for seed in [u64::MAX, 99_999_999_999, 12 << 28, 15 << 24, 2 << 56, 2 << 24 | 6] {
        assert_eq!(refused(seed), format!("seed {seed} {wrong}"));
    }
    // Of the second peer, whose conversation is shorter.
    assert!(!refused(1 << 56 | 2 << 24 | 4).is_empty());
    // A cut and conditions that a run leaves out are cases too.
    let few = two_clients().cuts(&[]).conditions(0);
    assert_eq!(few.replay(7 << 32 | 3 << 28 | 2 << 24 | 5, || echo).violation(), None);
}

#[test]
fn a_byte_that_a_seed_has_no_room_for_is_not_cut_at() {
    let upload = Script::new().send(&vec![0; 17 << 20]).finish().receive_end();
    let endings = Endings::of_a_server(patient_listen(), upload).cuts(&[Cut::Reset]).conditions(0);
    let takes = |socket: &mut Socket<'_>, event: Event<'_>| {
        if event == Event::End {
            socket.end();
        }
    };
    let report = endings.at_most(1).run(|| takes);
    // Whole, byte by byte, before each of the first 2^24 bytes that are sent, and before the FIN.
    assert_eq!((report.violation(), report.cases(), report.total()), (None, 1, 2 + (1 << 24) + 1));
}

/// Set in a process that this test has started.
const INSIDE: &str = "FINALE_TEST_QUIET";

#[test]
fn a_short_run_prints_nothing() {
    if std::env::var_os(INSIDE).is_some() {
        good(&two_clients(), || echo);
        return;
    }
    let mut again = std::process::Command::new(std::env::current_exe().expect("a test knows its own program"));
    again.args(["--exact", "cases::a_short_run_prints_nothing", "--nocapture"]).env(INSIDE, "1");
    let output = again.output().expect("it runs");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn endings_print_their_conversation() {
    let text = format!("{:?}", two_clients());
    for part in ["Server", "Client(10.0.0.1:7)", "Receive(3)", "Vanish", "2 conditions", "3600s"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_bound_on_the_time_leaves_out_nothing_if_the_time_is_enough() {
    let (endings, cases) = noted(two_clients().at_most_for(Duration::from_secs(3600)));
    assert_eq!(good(&endings, || echo), TWO_CLIENTS * 3);
    let cases = cases.take();
    assert_eq!(cases.iter().collect::<HashSet<_>>().len(), 372);
    // Whatever the time is: what was run until then is spread over conditions, peers and cuts.
    let begun = &cases[..60];
    for conditions in 0..3 {
        for peer in 0..2 {
            let of_peer = begun.iter().filter(|case| (case.conditions, case.peer) == (conditions, peer)).count();
            assert!((6..=14).contains(&of_peer), "{conditions}, {peer}: {of_peer} of 60");
        }
    }
    for cut in Cut::ALL {
        let of_cut = begun.iter().filter(|case| case.cut == *cut).count();
        assert!((6..=14).contains(&of_cut), "{cut}: {of_cut} of 60");
    }

    // With a bound on the number as well, both hold.
    let (endings, cases) = noted(two_clients().at_most(60).at_most_for(Duration::from_secs(3600)));
    assert_eq!((good(&endings, || echo), cases.take()), (60, begun.to_vec()));
}

#[test]
fn a_bound_above_the_number_of_cases_is_none() {
    let report = two_clients().conditions(0).at_most(TWO_CLIENTS).run(|| echo);
    assert_eq!(report.to_string(), "124 endings, and every rule was kept");
    let report = two_clients().conditions(0).at_most(u64::MAX).run(|| echo);
    assert_eq!((report.cases(), report.total()), (TWO_CLIENTS, TWO_CLIENTS));
    let report = two_clients().conditions(0).at_most(TWO_CLIENTS - 1).run(|| echo);
    assert_eq!(report.to_string(), "123 of 124 endings, evenly spread, and every rule was kept");
}

#[test]
fn a_report_counts_the_cases_up_to_the_violation_and_names_its_seed() {
    let seen = Rc::new(RefCell::new(0));
    let counted = Rc::clone(&seen);
    let endings = Endings::of_a_server(patient_listen(), hello()).holds(move |found| {
        *counted.borrow_mut() += 1;
        match (found.case.point, found.case.cut) {
            (CutPoint::Received(3), Cut::Reset) => Err("the third byte".to_owned()),
            _ => Ok(()),
        }
    });
    let report = endings.run(|| echo);
    let (case, violation) = report.violation().expect("a violation");
    assert_eq!((case.point, case.cut, case.conditions), (CutPoint::Received(3), Cut::Reset, 0));
    // Two without a cut, three milder cuts, six bytes that are sent, and bytes 0 to 3.
    assert_eq!((report.cases(), report.total(), *seen.borrow()), (2 + 3 * 12 + 6 + 4, 222, 48));
    let text = report.to_string();
    let seed = case.seed();
    let found = "found after 48 endings; again with seed";
    assert!(text.starts_with(&format!("{case}: {violation}\n{found} {seed} (`Endings::replay`)\n\n")), "{text}");
    assert!(text.contains(&format!("\n\n{}", report.transcript())), "{text}");

    let first = Endings::of_a_server(patient_listen(), hello()).holds(|_| Err("never right".to_owned())).run(|| echo);
    assert!(first.to_string().contains("\nfound after 1 ending; again with seed 0 (`Endings::replay`)\n"), "{first}");
}

/// The calls, the states and the kernel of the program's side, as `finale trace` prints them.
#[test]
fn a_report_prints_what_the_programs_reactor_did_in_the_case() {
    let wrong = |found: &CaseResult| match (found.case.point, found.case.cut) {
        (CutPoint::Received(3), Cut::Reset) => Err("the third byte".to_owned()),
        _ => Ok(()),
    };
    let report = Endings::of_a_server(patient_listen(), hello()).holds(wrong).run(|| echo);
    let text = report.to_string();
    let (_, ladder) = text.split_once("\nWhat the program's reactor did, by connection:\n").expect("a ladder");
    for part in [": accept 10.0.1.1:", ": recv 5 bytes", "reset by peer", "Reset: Open -> ResetByPeer, event error"] {
        assert!(ladder.contains(part), "{part}: {text}");
    }
    assert!(ladder.contains("#1 ") && ladder.lines().count() == report.records().len(), "the second client: {text}");
    let again =
        Endings::of_a_server(patient_listen(), hello()).replay(report.violation().expect("one").0.seed(), || echo);
    let lines = |report: &finale::check::Report| {
        report.records().iter().map(|(at, record)| format!("{at:?} {}", record.what)).collect::<Vec<_>>()
    };
    assert_eq!(lines(&again), lines(&report), "the run is the same each time");
    let kept = Endings::of_a_server(patient_listen(), hello()).run(|| echo);
    assert!(kept.records().is_empty(), "no case was recorded");
}

#[test]
fn of_a_case_without_end_the_newest_records_are_printed() {
    let again_and_again = |socket: &mut Socket<'_>, event: Event<'_>| {
        if matches!(event, Event::Connection | Event::Drain) {
            let _ = socket.write(&[b'x'; 100]);
            socket.request_drain();
        }
    };
    let script = Script::new().send(b"x").receive_end().finish();
    let report = Endings::of_a_server(ListenOptions::default(), script).run(|| again_and_again);
    let text = report.to_string();
    assert_eq!(report.records().len(), 200, "{text}");
    let first = report.records()[0].1.number;
    assert!(first > 0 && text.contains(&format!("... {first} earlier records ...")), "{text}");
}

#[test]
fn a_transcript_names_its_peers_if_there_are_several() {
    let wrong = |found: &CaseResult| if found.case.peer == 1 { Err("the other".to_owned()) } else { Ok(()) };
    let report = two_clients().holds(wrong).run(|| echo);
    let text = report.transcript().to_string();
    let peers: String = text.lines().filter_map(|line| line.split_once('|')).map(|(left, _)| left).collect();
    for line in ["peer 0: send 5 bytes", "peer 1: send 3 bytes", "second peer: send 3 bytes"] {
        assert!(peers.contains(line), "{line}: {text}");
    }
    let columns = text.lines().next().and_then(|line| line.split_once('|')).expect("two columns");
    assert!(columns.0.ends_with(char::is_whitespace) && columns.0.contains("client"), "{text}");
    assert_eq!(columns.1.trim(), "server", "{text}");
    assert!(report.to_string().starts_with("nothing is cut: "), "{report}");

    let report = Endings::of_a_server(patient_listen(), hello()).replay(0, || echo);
    let text = report.transcript().to_string();
    assert!(text.contains("second peer: send 5 bytes") && !text.contains("peer 0"), "{text}");
}

/// An echo without its answer to one event.
fn without(left_out: fn(&Event<'_>) -> bool) -> impl Fn(&mut Socket<'_>, Event<'_>) {
    move |socket, event| {
        if !left_out(&event) {
            echo(socket, event);
        }
    }
}

/// What is wrong with a program whose connection stays open.
#[track_caller]
fn stays_open<P: Program>(endings: &Endings, make: impl Fn() -> P, why: &str) {
    let (_, rule, what) = broken(endings, make);
    let (first, table) = what.split_once('\n').expect("a table");
    assert!(rule == Rule::Progress && first.ends_with(&format!(" ({why})")), "{what}");
    assert_eq!(table.contains("Open*"), table.ends_with("\n* paused or held\n"), "{what}");
}

#[test]
fn a_report_names_what_a_connection_that_stays_open_waits_for() {
    let hello_to = |listen| Endings::of_a_server(listen, hello());
    let pauses = |socket: &mut Socket<'_>, event: Event<'_>| match event {
        Event::Data(bytes) if socket.write(bytes) == Ok(Backpressure::Full) => socket.pause(),
        Event::End => socket.end(),
        _ => {}
    };
    let long = Script::new().send(&[b'x'; 300]).receive(300).finish().receive_end();
    let paused = "socket 0.1 is paused with nothing queued, and the program has not resumed it";
    stays_open(&Endings::of_a_server(patient_listen(), long).cuts(&[]), || pauses, paused);

    let soon = hello_to(ListenOptions::default()).max_lifetime(Duration::from_secs(5));
    let finished = "the peer of socket 0.1 has finished, and the program has not called `end`";
    stays_open(&soon, || without(|event| *event == Event::End), finished);

    let silent = hello_to(patient_listen()).cuts(&[Cut::Silence]);
    let idle = "socket 0.1 has delivered `timeout`, and the program has not ended it";
    stays_open(&silent, || without(|event| *event == Event::Timeout), idle);

    let too_long = Script::new().send(b"hello").receive(6).finish();
    let receive = "a peer never got past \"receive 6 bytes\"";
    stays_open(&Endings::of_a_server(ListenOptions::default(), too_long), || echo, receive);
}

/// Has a connection to itself that it pauses for ever.
struct Sleeper;

impl Program for Sleeper {
    fn begin(&mut self, reactor: &mut Reactor<Host>) -> Result<(), Error> {
        reactor.listen("10.0.0.1:80", patient_listen())?;
        reactor.listen("unix:@bus", ListenOptions::default())?;
        reactor.connect("unix:@bus", ConnectOptions::default()).map(drop)
    }

    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        match event {
            Event::Ready => socket.pause(),
            event => echo(socket, event),
        }
    }
}

#[test]
fn a_report_names_what_a_connection_that_is_left_after_the_stop_waits_for() {
    let (_, rule, what) = broken(&Endings::of_a_program().client(addr("10.0.0.1:80"), hello()), || Sleeper);
    let left = "a connection did not end within 3600s after the stop (socket 0.1 is paused with nothing queued,";
    assert!(rule == Rule::Progress && what.starts_with(left), "{what}");
}

#[test]
#[should_panic(expected = "peer 0 (\"send 2 bytes, receive 2 bytes\") does not finish, so its connection can't end \
                           cleanly: add `.finish()`")]
fn a_script_that_does_not_finish_is_refused() {
    drop(Endings::of_a_server(patient_listen(), Script::new().send(b"hi").receive(2)).run(|| echo));
}

#[test]
fn a_report_names_an_idle_timeout_of_the_conversation_without_a_cut() {
    let too_long = || Script::new().send(b"hello").receive(6).finish().receive_end();
    let endings = Endings::of_a_server(patient_listen(), too_long());
    let hint = "; without a cut an idle timeout expired after 5.0s: each side waited for the other";
    let (case, rule, what) = broken(&endings, || echo);
    assert_eq!((case.seed(), rule), (0, Rule::Progress));
    assert!(what.starts_with("the peer never got past \"receive 6 bytes\"") && what.ends_with(hint), "{what}");

    // Its last words at the timeout are the sixth byte.
    let last_words = |socket: &mut Socket<'_>, event: Event<'_>| match event {
        Event::Timeout => {
            let _ = socket.write(b"!");
            socket.end();
        }
        event => echo(socket, event),
    };
    let (_, rule, what) = broken(&endings, || last_words);
    assert!(rule == Rule::SameAnswer && what.ends_with(hint), "{what}");
}

/// Answers with the number of pieces so far, of all clients.
fn counts() -> impl FnMut(&mut Socket<'_>, Event<'_>) {
    let mut pieces = 0;
    move |socket, event| match event {
        Event::Data(_) => {
            pieces += 1;
            let _ = socket.write(format!("{pieces}").as_bytes());
        }
        event => echo(socket, event),
    }
}

#[test]
fn a_report_of_a_program_that_remembers_names_what_to_do() {
    let script = || Script::new().send(b"x").receive(1).finish().receive_end();
    let endings = || Endings::of_a_server(patient_listen(), script());
    let (_, rule, what) = broken(&endings(), counts);
    assert!(rule == Rule::Isolation && what.contains("see `Program::forget`, `Endings::stateful`"), "{what}");

    let both = endings().client(Endings::SERVER, script()).cuts(&[Cut::Reset]).conditions(0).no_second_client();
    let (_, rule, what) = broken(&both, counts);
    assert!(rule == Rule::Isolation && what.starts_with("peer 1, which was not cut, received"), "{what}");
    assert!(what.ends_with("on purpose, see `Endings::stateful`"), "{what}");
}
