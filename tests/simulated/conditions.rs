//! What a case of `finale::check::Endings` does to its peers: which of them is cut and how, when the
//! network conditions apply, and what comes after the cut.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use super::handlers::{addr, broken, echo, good, hello, patient_listen};
use finale::check::{CaseResult, Cut, CutPoint, Endings, Program, Rule};
use finale::sim::{Host, Script};
use finale::{
    Backpressure, ConnectOptions, ConnectionErrorKind, EndingKind, Error, Event, Reactor, Socket, SocketId, TimeoutKind,
};

const WEB: &str = "10.0.0.1:80";
const BACKEND: &str = "10.0.0.2:7";

/// Echoes, and counts the pieces in which the second client's bytes arrive.
#[derive(Default)]
struct Pieces {
    of_second: Option<u32>,
}

impl Program for Pieces {
    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        if let (Event::Data(_), Some(pieces)) = (event, &mut self.of_second) {
            *pieces += 1;
        }
        echo(socket, event);
    }

    fn forget(&mut self) {
        self.of_second = Some(0);
    }

    fn at_rest(&self, found: &CaseResult) -> Result<(), String> {
        match self.of_second {
            // Tight buffers, which are no fault, have room for a byte.
            Some(pieces) if pieces != 1 && found.case.conditions != 1 => Err(format!("{pieces} pieces")),
            _ => Ok(()),
        }
    }
}

#[test]
fn a_second_client_has_no_faults_whatever_the_conditions_of_the_case() {
    // Shorter than the buffers of random conditions, so that only a fault can split it.
    let script = Script::new().send(b"abc").receive(3).finish().receive_end();
    good(&Endings::of_a_server(patient_listen(), script).conditions(40), Pieces::default);
}

/// How the connection of a client to a server in this case failed.
fn failure(found: &CaseResult) -> Option<ConnectionErrorKind> {
    match &found.ending.as_ref()?.kind {
        EndingKind::Failed(error) => Some(error.kind),
        _ => None,
    }
}

#[test]
fn a_server_that_can_not_be_reached_refuses_or_does_not_answer() {
    let asks = |socket: &mut Socket<'_>, event: Event<'_>| {
        if event == Event::Ready {
            let _ = socket.write(b"time?");
            socket.end();
        }
    };
    let unreached = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&unreached);
    let clock = Script::new().receive(5).send(b"12:00").receive_end().finish();
    let limit = ConnectOptions::default().connect_timeout(Duration::from_secs(3)).deadline(Duration::from_secs(60));
    let endings = Endings::of_a_client(limit, clock).conditions(0).holds(move |found| {
        if found.case.point == CutPoint::Connecting {
            seen.borrow_mut().push((found.case.cut, failure(found)));
        }
        Ok(())
    });
    good(&endings, || asks);
    let refused = (Cut::Reset, Some(ConnectionErrorKind::Refused));
    let unanswered = (Cut::Vanish, Some(ConnectionErrorKind::TimedOut(TimeoutKind::Connect)));
    assert_eq!(unreached.take(), [refused, unanswered]);
}

#[test]
fn a_peer_that_is_cut_has_received_exactly_the_bytes_before_the_cut() {
    let script = Script::new().send(b"hello").receive(100).finish().receive_end();
    let twenty_times = |socket: &mut Socket<'_>, event: Event<'_>| match event {
        Event::Data(bytes) => bytes.iter().for_each(|byte| drop(socket.write(&[*byte; 20]))),
        event => echo(socket, event),
    };
    let endings = Endings::of_a_server(patient_listen(), script).conditions(3).holds(|found| match found.case {
        case if case.cut == Cut::Delay || case.cut == Cut::Fin => Ok(()),
        case => match case.point {
            CutPoint::Received(bytes) if bytes != found.received.len() as u64 => {
                Err(format!("{} received", found.received.len()))
            }
            CutPoint::Sent(bytes) if bytes != found.sent.len() as u64 => Err(format!("{} sent", found.sent.len())),
            _ => Ok(()),
        },
    });
    good(&endings, || twenty_times);
}

/// Notes the machines of its clients.
struct Guests(Rc<RefCell<BTreeSet<IpAddr>>>);

impl Program for Guests {
    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        if event == Event::Connection {
            self.0.borrow_mut().extend(socket.peer_addr().map(|addr| addr.ip()));
        }
        echo(socket, event);
    }
}

#[test]
fn each_client_has_a_machine_of_its_own() {
    let machines = Rc::new(RefCell::new(BTreeSet::new()));
    let endings = Endings::of_a_server(patient_listen(), hello());
    let endings = endings.client(Endings::SERVER, hello()).client(Endings::SERVER, hello()).conditions(0);
    good(&endings, || Guests(Rc::clone(&machines)));
    let expected = ["10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.2.0"].map(|ip| ip.parse::<IpAddr>().expect("an address"));
    assert_eq!(machines.take(), BTreeSet::from(expected));
}

#[test]
#[should_panic(expected = "10.0.1.9 is the machine of another peer")]
fn a_server_on_the_machine_of_a_client_is_refused() {
    drop(Endings::of_a_program().server(addr("10.0.1.9:7"), hello()));
}

#[test]
#[should_panic(expected = "10.0.2.0 is the machine of another peer")]
fn a_server_on_the_machine_of_the_second_client_is_refused() {
    drop(Endings::of_a_program().server(addr("10.0.2.0:7"), hello()));
}

#[test]
#[should_panic(expected = "10.0.0.1 is the machine of another peer")]
fn a_server_on_the_machine_of_the_program_is_refused() {
    drop(Endings::of_a_program().server(addr("10.0.0.1:7"), hello()));
}

#[test]
#[should_panic(expected = "the program listens on 10.0.0.1")]
fn a_client_of_another_machine_is_refused() {
    drop(Endings::of_a_program().client(addr(BACKEND), hello()));
}

#[test]
fn a_hundred_peers_are_enough() {
    let clients = |count| (0..count).fold(Endings::of_a_program(), |all, _| all.client(addr(WEB), hello()));
    drop(clients(100));
    assert!(std::panic::catch_unwind(|| drop(clients(101))).is_err());
}

/// Talks to itself on a connection of its own, for ever.
struct Chatter;

impl Program for Chatter {
    fn begin(&mut self, reactor: &mut Reactor<Host>) -> Result<(), Error> {
        reactor.listen(WEB, patient_listen())?;
        reactor.connect(WEB, ConnectOptions::default()).map(drop)
    }

    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        match event {
            Event::Ready => drop(socket.write(b"again")),
            event => echo(socket, event),
        }
    }
}

#[test]
fn two_ends_that_answer_each_other_for_ever_are_found() {
    let (_, rule, what) = broken(&Endings::of_a_program().client(addr(WEB), hello()), || Chatter);
    assert_eq!(rule, Rule::Progress);
    assert!(what.starts_with("no end: "), "{what}");
}

#[test]
fn a_peer_to_which_no_connection_is_made_is_named() {
    let nothing = |_: &mut Socket<'_>, _: Event<'_>| {};
    let (_, rule, what) = broken(&Endings::of_a_program().server(addr(BACKEND), Script::new().finish()), || nothing);
    let server = "no connection was established with the server 10.0.0.2:7; does the program connect to it?";
    assert_eq!((rule, &*what), (Rule::Progress, server));
    let (_, rule, what) = broken(&Endings::of_a_program().client(addr(WEB), Script::new().finish()), || nothing);
    let client = "no connection was established with the client of 10.0.0.1:80; does the program listen there?";
    assert_eq!((rule, &*what), (Rule::Progress, client));
}

/// What a program can notice of the conditions in one case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Noticed {
    conditions: u64,
    /// The pieces in which three bytes arrived.
    pieces: u32,
    /// The writes that filled a queue.
    full: u32,
    /// The bytes that waited while the peer read nothing.
    queued: usize,
}

/// Answers three bytes with a thousand, in ten writes, and notes what it notices.
struct Watchful {
    now: Noticed,
    noticed: Rc<RefCell<Vec<Noticed>>>,
    client: Option<SocketId>,
}

impl Watchful {
    fn new(noticed: &Rc<RefCell<Vec<Noticed>>>) -> Self {
        let now = Noticed { conditions: 0, pieces: 0, full: 0, queued: 0 };
        Self { now, noticed: Rc::clone(noticed), client: None }
    }
}

impl Program for Watchful {
    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        match event {
            Event::Data(_) => {
                self.now.pieces += 1;
                if socket.bytes_read() == 3 {
                    let writes = (0..10).map(|_| socket.write(&[b'x'; 100]));
                    self.now.full = writes.filter(|room| *room == Ok(Backpressure::Full)).count() as u32;
                    self.client = Some(socket.id());
                    socket.set_timer(Duration::from_millis(500));
                }
            }
            Event::Timer(_) => {
                let client = self.client.and_then(|client| socket.get(client));
                self.now.queued = client.map_or(0, |client| client.queued_bytes());
            }
            event => echo(socket, event),
        }
    }

    fn at_rest(&self, found: &CaseResult) -> Result<(), String> {
        self.noticed.borrow_mut().push(Noticed { conditions: found.case.conditions, ..self.now });
        Ok(())
    }
}

/// What is noticed of each of twenty conditions, of a case in which nothing is cut.
fn noticed(endings: Endings) -> Vec<Noticed> {
    let noticed = Rc::new(RefCell::new(Vec::new()));
    good(&endings.cuts(&[]).conditions(20).no_second_client(), || Watchful::new(&noticed));
    let mut noticed = noticed.take();
    noticed.dedup_by_key(|noticed| noticed.conditions);
    noticed
}

#[test]
fn conditions_split_what_arrives_and_make_buffers_and_marks_small() {
    let reads_late = Script::new().stop_reading().send(b"get").wait(Duration::from_secs(1)).read_on();
    let script = reads_late.receive(1000).finish().receive_end();
    let endings = || Endings::of_a_server(patient_listen(), script.clone());
    let all = noticed(endings());
    let of = |number| all.iter().find(move |noticed| noticed.conditions == number).expect("each condition");
    assert_eq!(*of(0), Noticed { conditions: 0, pieces: 1, full: 0, queued: 0 });
    let tight = of(1);
    assert!(tight.full == 10 && tight.queued > 950, "{tight:?}");
    let random = || (2..=20).map(of);
    assert!(random().all(|noticed| noticed.full > 0), "small marks");
    assert!(random().any(|noticed| noticed.queued > 0), "small buffers");
    assert!(random().any(|noticed| noticed.pieces > 1), "short reads");

    let kept = noticed(endings().keep_marks());
    assert!(kept.iter().all(|noticed| noticed.full == 0) && kept.iter().any(|noticed| noticed.pieces > 1));
}

#[test]
fn conditions_are_over_long_before_a_second() {
    let script = (0..10).fold(Script::new(), |script, _| script.send(b"x").receive(1)).finish().receive_end();
    let endings = Endings::of_a_server(patient_listen(), script).cuts(&[]).conditions(100);
    good(&endings.max_lifetime(Duration::from_millis(500)), || echo);
}

/// Answers three bytes, and a shorter request at its end: right or by the pieces that it came in.
fn answers(by_pieces: bool) -> impl FnMut(&mut Socket<'_>, Event<'_>) {
    let mut pieces = 0;
    move |socket, event| match event {
        Event::Connection => pieces = 0,
        Event::Data(_) => {
            pieces += 1;
            if socket.bytes_read() == 3 {
                let _ = socket.write(b"yes");
            }
        }
        Event::End => {
            if socket.bytes_read() < 3 {
                let _ = socket.write(if by_pieces && pieces > 1 { b"??" } else { b"?" });
            }
            socket.end();
        }
        Event::Timeout => socket.destroy(),
        _ => {}
    }
}

#[test]
fn an_answer_to_a_part_of_a_request_that_depends_on_its_pieces_is_found() {
    let script = Script::new().send(b"get").receive(3).finish().receive_end();
    let endings = || Endings::of_a_server(patient_listen(), script.clone()).conditions(20);
    good(&endings(), || answers(false));
    let (case, rule, what) = broken(&endings(), || answers(true));
    assert_eq!((case.cut, case.point, rule), (Cut::Fin, CutPoint::Sent(2), Rule::SameAnswer));
    assert_eq!(what, "the same bytes got 2 bytes \"??\", and without network conditions 1 byte \"?\"");
    // Without a comparison of bytes it is right.
    good(&endings().stateful(), || answers(true));
}

/// Sets a timer for each byte, as a program does that gives each its own limit.
struct Meticulous;

impl Program for Meticulous {
    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        match event {
            Event::Data(_) => drop(socket.set_timer(Duration::from_millis(1))),
            Event::Timer(_) => {}
            event => echo(socket, event),
        }
    }
}

#[test]
fn an_upload_of_two_events_for_each_byte_is_not_a_conversation_without_end() {
    let upload = Script::new().send(&[b'x'; 60_000]).finish().receive_end();
    good(&Endings::of_a_server(patient_listen(), upload).cuts(&[]).conditions(0), || Meticulous);
}

/// Destroys every client when the connection of one fails.
#[derive(Default)]
struct AllOrNone(Vec<SocketId>);

impl Program for AllOrNone {
    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        match event {
            Event::Connection => self.0.push(socket.id()),
            Event::Error(_) => {
                for id in self.0.drain(..) {
                    if let Some(mut other) = socket.get(id) {
                        other.destroy();
                    }
                }
            }
            event => echo(socket, event),
        }
    }
}

#[test]
fn a_cut_client_that_ends_another_one_is_found() {
    let slow = Script::new().send(b"hi").wait(Duration::from_secs(1)).receive(2).finish().receive_end();
    let endings = Endings::of_a_server(patient_listen(), hello()).client(Endings::SERVER, slow);
    let (case, rule, what) = broken(&endings, AllOrNone::default);
    assert_eq!((case.peer, case.cut, rule), (0, Cut::Close, Rule::Isolation), "{what}");
    assert_eq!(what, "peer 1, which was not cut: peer 1 never got past \"receive the end\"");
}

#[test]
fn an_answer_that_ends_differently_is_reported_with_both_endings() {
    let mut pieces = 0;
    let impatient = move |socket: &mut Socket<'_>, event: Event<'_>| match event {
        Event::Connection => pieces = 0,
        Event::End if pieces > 1 => socket.destroy(),
        event => {
            pieces += u32::from(matches!(event, Event::Data(_)));
            echo(socket, event);
        }
    };
    let (_, rule, what) = broken(&Endings::of_a_server(patient_listen(), hello()), || impatient);
    assert_eq!(rule, Rule::SameAnswer);
    let (found, whole) = what.split_once("; and without a cut: ").expect("both");
    assert!(found.starts_with("the connection ended differently: \"destroyed by us"), "{what}");
    assert!(found.ends_with(", and the peer received no FIN"), "{what}");
    assert!(whole.starts_with("\"clean and acknowledged"), "{what}");
    assert!(whole.ends_with(", and the peer received our FIN"), "{what}");
}

#[test]
fn a_report_quotes_at_most_forty_bytes() {
    for (bytes, more) in [(40, ""), (41, "...")] {
        let whole = move |socket: &mut Socket<'_>, event: Event<'_>| match event {
            Event::Data(b"hello") => drop(socket.write(&vec![b'x'; bytes])),
            Event::Data(b"h") => drop(socket.write(&vec![b'y'; bytes])),
            Event::Data(_) => {}
            event => echo(socket, event),
        };
        let script = Script::new().send(b"hello").receive(bytes as u64).finish().receive_end();
        let (_, _, what) = broken(&Endings::of_a_server(patient_listen(), script), || whole);
        let quoted = |letter: &str| format!("{bytes} bytes \"{}{more}\"", letter.repeat(40));
        assert_eq!(what, format!("the peer received {}, and without a cut {}", quoted("y"), quoted("x")));
    }
}
