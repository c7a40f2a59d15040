//! What `finale::check::Endings` must not blame a right program for, and what it must not overlook.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::handlers::{addr, broken, echo, good, hello, patient_listen};
use finale::check::{CaseResult, Cut, CutPoint, Endings, Program, Rule};
use finale::sim::{Host, Script};
use finale::{
    Backpressure, ConnectOptions, Error, Event, ListenOptions, Reactor, Socket, SocketId, SocketMap, TimerId,
};

const WEB: &str = "10.0.0.1:80";
const BACKEND: &str = "10.0.0.2:7";

/// Answers a request of three bytes in two halves, the second one later.
struct TwoHalves {
    takes_end_for_close: bool,
    timers: Vec<(TimerId, SocketId)>,
    half_done: SocketMap<bool>,
}

impl TwoHalves {
    fn new(takes_end_for_close: bool) -> Self {
        Self { takes_end_for_close, timers: Vec::new(), half_done: SocketMap::new() }
    }
}

impl Program for TwoHalves {
    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        let id = socket.id();
        match event {
            Event::Data(_) if socket.bytes_read() == 3 => {
                let _ = socket.write(b"head");
                self.half_done.insert(id, true);
                self.timers.push((socket.set_timer(Duration::from_millis(5)), id));
            }
            Event::Timer(timer) => {
                for (_, id) in self.timers.extract_if(.., |(known, _)| *known == timer) {
                    let is_waiting = self.half_done.remove(id).unwrap_or(false);
                    if let Some(mut socket) = socket.get(id).filter(|_| is_waiting) {
                        let _ = socket.write(b"body");
                        socket.end();
                    }
                }
            }
            Event::End => {
                if self.takes_end_for_close {
                    self.half_done.remove(id);
                }
                if self.half_done.get(id).is_none() {
                    socket.end();
                }
            }
            Event::Timeout => socket.destroy(),
            Event::Close(_) => drop(self.half_done.remove(id)),
            _ => {}
        }
    }
}

#[test]
fn a_half_close_in_the_middle_of_an_answer_that_is_taken_for_a_close_is_found() {
    let script = Script::new().send(b"get").receive(8).finish().receive_end();
    let endings = Endings::of_a_server(patient_listen(), script);
    good(&endings, || TwoHalves::new(false));
    let (case, rule, what) = broken(&endings.cuts(&[Cut::Fin]).conditions(0), || TwoHalves::new(true));
    assert_eq!(rule, Rule::SameAnswer, "{what}");
    assert!(matches!(case.point, CutPoint::Sent(3) | CutPoint::Received(_)), "{case}");
}

#[test]
fn a_peer_that_closes_by_itself_need_not_receive_our_fin() {
    let one_answer = || {
        |socket: &mut Socket<'_>, event: Event<'_>| match event {
            Event::Data(_) if socket.bytes_read() == 3 => {
                let _ = socket.write(b"yes");
                socket.end();
            }
            Event::End => socket.end(),
            Event::Timeout => socket.destroy(),
            _ => {}
        }
    };
    let script = Script::new().send(b"get").receive(3).close();
    good(&Endings::of_a_server(patient_listen(), script).conditions(4), one_answer);
}

/// Ticks for ever, and answers meanwhile.
struct Ticking;

impl Program for Ticking {
    fn begin(&mut self, reactor: &mut Reactor<Host>) -> Result<(), Error> {
        reactor.set_timer(Duration::from_millis(10));
        reactor.listen(WEB, ListenOptions::default().idle_timeout(Duration::from_secs(600))).map(drop)
    }

    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        match event {
            Event::Timer(_) => drop(socket.set_timer(Duration::from_millis(10))),
            event => echo(socket, event),
        }
    }
}

#[test]
fn a_timer_that_is_set_again_for_ever_is_not_a_conversation_without_end() {
    let endings = Endings::of_a_program().client(addr(WEB), hello()).cuts(&[Cut::Silence]).conditions(0);
    good(&endings, || Ticking);
}

/// Ticks for ever, has a connection to itself, and notes when its clients come.
struct Busy {
    begun: Option<Instant>,
    bus: Option<SocketId>,
    clients: Rc<RefCell<Vec<Duration>>>,
}

impl Program for Busy {
    fn begin(&mut self, reactor: &mut Reactor<Host>) -> Result<(), Error> {
        self.begun = Some(reactor.now());
        reactor.listen("unix:@bus", ListenOptions::default())?;
        self.bus = Some(reactor.connect("unix:@bus", ConnectOptions::default())?);
        Ticking.begin(reactor)
    }

    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        let now = socket.now();
        if event == Event::Connection && socket.peer_addr().is_some() {
            self.clients.borrow_mut().extend(self.begun.map(|begun| now - begun));
        }
        Ticking.handle(socket, event);
    }

    fn stop(&mut self, reactor: &mut Reactor<Host>) {
        if let Some(mut bus) = self.bus.and_then(|id| reactor.socket(id)) {
            bus.end();
        }
    }
}

#[test]
fn the_second_client_comes_when_the_first_is_closed_whatever_else_the_program_does() {
    let clients = Rc::new(RefCell::new(Vec::new()));
    let endings = Endings::of_a_program().client(addr(WEB), hello()).cuts(&[]).conditions(0);
    good(&endings, || Busy { begun: None, bus: None, clients: Rc::clone(&clients) });
    let clients = clients.take();
    // The conversation without a cut, which says where there are bytes, and two cases.
    assert_eq!(clients.len(), 2 * 3);
    assert!(clients.iter().all(|time| *time < Duration::from_secs(60)), "{clients:?}");
}

/// Has a limit that late packets can use up.
struct Hurried {
    answered: u64,
}

impl Program for Hurried {
    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        if let Event::Data(bytes) = event {
            self.answered += bytes.len() as u64;
        }
        echo(socket, event);
    }

    fn at_rest(&self, found: &CaseResult) -> Result<(), String> {
        let is_whole = self.answered >= 200 || !found.case.is_harmless();
        is_whole.then_some(()).ok_or_else(|| format!("harmless, and {} bytes", self.answered))
    }
}

#[test]
fn a_limit_that_late_packets_use_up_is_no_violation_of_the_tests_own_rules() {
    let script = Script::new().send(&[b'x'; 200]).receive(200).finish().receive_end();
    let listen = ListenOptions::default().deadline(Duration::from_millis(50));
    let endings = Endings::of_a_server(listen, script).cuts(&[Cut::Delay]).conditions(30).at_most(4_000);
    let endings = endings.holds(|found| match found.received.len() {
        200 => Ok(()),
        len if found.case.is_harmless() => Err(format!("harmless, and {len} bytes")),
        _ => Ok(()),
    });
    good(&endings, || Hurried { answered: 0 });
}

/// Leaves a connection whose lookup hangs.
struct Hanging;

impl Program for Hanging {
    fn begin(&mut self, reactor: &mut Reactor<Host>) -> Result<(), Error> {
        reactor.connect("hang.example:80", ConnectOptions::default().connect_timeout(None))?;
        reactor.listen(WEB, patient_listen()).map(drop)
    }

    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        echo(socket, event);
    }
}

#[test]
fn a_connection_that_has_had_no_event_is_left_too() {
    let endings = Endings::of_a_program().client(addr(WEB), hello());
    let (_, rule, what) = broken(&endings.network(|network| network.name_hangs("hang.example")), || Hanging);
    assert_eq!(rule, Rule::Progress);
    assert!(what.contains("after the stop"), "{what}");
}

/// Has a connection to itself, until it is stopped.
#[derive(Default)]
struct Bus(Option<SocketId>);

impl Program for Bus {
    fn begin(&mut self, reactor: &mut Reactor<Host>) -> Result<(), Error> {
        reactor.listen(WEB, patient_listen())?;
        reactor.listen("unix:@bus", ListenOptions::default())?;
        self.0 = Some(reactor.connect("unix:@bus", ConnectOptions::default())?);
        Ok(())
    }

    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        if matches!(event, Event::Close(_)) && Some(socket.id()) == self.0 {
            self.0 = None;
        }
        echo(socket, event);
    }

    fn stop(&mut self, reactor: &mut Reactor<Host>) {
        if let Some(mut bus) = self.0.and_then(|id| reactor.socket(id)) {
            bus.end();
        }
    }

    fn at_rest(&self, _: &CaseResult) -> Result<(), String> {
        self.0.is_none().then_some(()).ok_or_else(|| "the bus is open".to_owned())
    }
}

#[test]
fn a_connection_of_the_program_to_itself_may_last_until_the_stop() {
    good(&Endings::of_a_program().client(addr(WEB), hello()), Bus::default);
}

/// Asks on two connections to one server, and does not resume the first one for 200 seconds.
#[derive(Default)]
struct Sleepy(Option<SocketId>);

impl Program for Sleepy {
    fn begin(&mut self, reactor: &mut Reactor<Host>) -> Result<(), Error> {
        self.0 = Some(reactor.connect(BACKEND, ConnectOptions::default())?);
        reactor.connect(BACKEND, ConnectOptions::default()).map(drop)
    }

    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        match event {
            Event::Connect => {
                let _ = socket.write(b"ask");
                if Some(socket.id()) == self.0 {
                    socket.pause();
                    socket.set_timer(Duration::from_secs(200));
                }
            }
            Event::Timer(_) => {
                if let Some(mut first) = self.0.and_then(|first| socket.get(first)) {
                    first.resume();
                }
            }
            Event::Data(_) | Event::End => socket.end(),
            _ => {}
        }
    }
}

#[test]
fn a_second_connection_to_a_server_does_not_hide_the_one_that_was_cut() {
    let script = Script::new().receive(3).send(b"yes").receive_end().finish();
    let endings = Endings::of_a_program().server(addr(BACKEND), script).cuts(&[Cut::Reset]).conditions(0);
    let (_, rule, what) = broken(&endings, Sleepy::default);
    assert_eq!(rule, Rule::Progress);
    assert!(what.starts_with("the peer reset, and its connection was closed 200"), "{what}");
}

#[test]
fn an_answer_up_to_the_end_is_counted_by_what_arrives() {
    let script = Script::new().send(b"get").receive_end().finish();
    let listen = ListenOptions::default().deadline(Duration::from_secs(1));
    let long_answer = || {
        |socket: &mut Socket<'_>, event: Event<'_>| match event {
            Event::Data(_) if socket.bytes_read() == 3 => {
                let _ = socket.write(&[b'x'; 100_000]);
                socket.end();
            }
            Event::End => socket.end(),
            Event::Timeout => socket.destroy(),
            _ => {}
        }
    };
    let endings = |script| Endings::of_a_server(listen.clone(), script);
    good(&endings(script).at_most(20), long_answer);
    let greeting = || {
        |socket: &mut Socket<'_>, event: Event<'_>| {
            if event == Event::Connection {
                let _ = socket.write(&[b'x'; 100_000]);
                socket.end();
            }
        }
    };
    good(&endings(Script::new().receive_end().finish()).cuts(&[]), greeting);
}

#[test]
fn a_run_without_a_case_does_not_say_that_every_rule_was_kept() {
    let endings = Endings::of_a_server(patient_listen(), hello()).at_most_for(Duration::ZERO);
    let report = endings.conditions(16_777_215).run(|| echo).to_string();
    assert!(report.starts_with("none of "), "{report}");
}

#[test]
#[should_panic(expected = "at most 16,777,215 network conditions")]
fn more_conditions_than_a_seed_can_name_are_refused() {
    drop(Endings::of_a_server(patient_listen(), hello()).conditions(1 << 24));
}

#[test]
#[should_panic(expected = "10.0.0.2 is the machine of another peer")]
fn two_servers_on_one_machine_are_refused() {
    drop(Endings::of_a_program().server(addr(BACKEND), hello()).server(addr("10.0.0.2:8"), hello()));
}

/// Forgets to remove what it keeps of a client whose connection failed.
#[derive(Default)]
struct Leaky(SocketMap<u64>);

impl Program for Leaky {
    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        match event {
            Event::Data(bytes) => *self.0.or_default(socket.id()) += bytes.len() as u64,
            Event::Close(ending) if !ending.had_error() => drop(self.0.remove(socket.id())),
            _ => {}
        }
        echo(socket, event);
    }

    fn at_rest(&self, _: &CaseResult) -> Result<(), String> {
        self.0.is_empty().then_some(()).ok_or_else(|| "a count is left".to_owned())
    }
}

#[test]
fn what_is_left_of_a_client_is_found_though_the_next_one_has_its_slot() {
    let (case, _, what) = broken(&Endings::of_a_server(patient_listen(), hello()), Leaky::default);
    assert_eq!((case.cut, &*what), (Cut::Close, "a count is left"));
}

/// Checks at rest what its client has received.
struct Strict;

impl Program for Strict {
    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        echo(socket, event);
    }

    fn at_rest(&self, found: &CaseResult) -> Result<(), String> {
        let is_whole = !found.case.is_harmless() || (found.peer_got_end && found.received == found.sent);
        is_whole.then_some(()).ok_or_else(|| format!("no end yet, or {} bytes", found.received.len()))
    }
}

#[test]
fn a_client_that_reads_late_has_read_all_when_the_program_is_at_rest() {
    let late = Duration::from_secs(1);
    let script = Script::new().send(b"hello\n").finish().stop_reading().wait(late).read_on().receive(6).receive_end();
    good(&Endings::of_a_server(patient_listen(), script), || Strict);
}

/// Echoes up to a limit that it keeps with a timer of its own.
#[derive(Default)]
struct OwnLimit(Vec<(TimerId, SocketId)>);

impl Program for OwnLimit {
    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        match event {
            Event::Connection => self.0.push((socket.set_timer(Duration::from_millis(20)), socket.id())),
            Event::Timer(timer) => {
                for (_, id) in self.0.extract_if(.., |(known, _)| *known == timer) {
                    if let Some(mut late) = socket.get(id) {
                        late.destroy();
                    }
                }
            }
            event => echo(socket, event),
        }
    }

    fn at_rest(&self, found: &CaseResult) -> Result<(), String> {
        // At the end a timer may run, but not at rest before the second client.
        let is_end = found.second.is_some();
        (is_end || self.0.is_empty()).then_some(()).ok_or_else(|| format!("{} timers run", self.0.len()))
    }
}

#[test]
fn a_limit_of_the_programs_own_that_late_readiness_uses_up_is_no_violation() {
    let script = Script::new().send(b"hello finale").receive(12).finish().receive_end();
    good(&Endings::of_a_server(patient_listen(), script).conditions(20), OwnLimit::default);
}

/// Sends a request and waits for the answer. A server that has finished is taken for one that is
/// gone, or not.
fn asks(takes_end_for_close: bool) -> impl FnMut(&mut Socket<'_>, Event<'_>) {
    move |socket, event| match event {
        Event::Ready => drop(socket.write(b"ask")),
        Event::Data(_) if socket.bytes_read() == 3 => {
            // The rest of its work comes later.
            socket.set_idle_timeout(Duration::from_millis(100));
        }
        Event::End if takes_end_for_close => socket.destroy(),
        Event::End | Event::Timeout => socket.end(),
        _ => {}
    }
}

#[test]
fn a_client_must_end_in_order_with_a_server_that_finishes_after_it_has_received_everything() {
    let script = Script::new().receive(3).send(b"yes").receive_end().finish();
    let endings = Endings::of_a_client(ConnectOptions::default(), script).cuts(&[Cut::Fin]);
    good(&endings, || asks(false));
    let (case, rule, what) = broken(&endings, || asks(true));
    assert_eq!((case.point, rule), (CutPoint::Sent(3), Rule::SameAnswer), "{what}");
}

/// Sends a hundred bytes, and gives up a server that finishes before it has them.
fn uploads() -> impl FnMut(&mut Socket<'_>, Event<'_>) {
    let mut left = 100;
    move |socket, event| {
        if event == Event::End {
            left = 0;
            return socket.end();
        }
        while left > 0 && matches!(event, Event::Ready | Event::Drain) {
            left -= 1;
            if let Ok(Backpressure::Full) = socket.write(b"x") {
                return;
            }
        }
        if left == 0 && matches!(event, Event::Ready | Event::Drain) {
            socket.end();
        }
    }
}

#[test]
fn a_client_may_give_up_a_server_that_finishes_before_it_has_received_everything() {
    let script = Script::new().send(b"220\n").receive(100).receive_end().finish();
    let listen = ConnectOptions::default().idle_timeout(Duration::from_secs(5)).deadline(Duration::from_secs(60));
    good(&Endings::of_a_client(listen, script).cuts(&[Cut::Fin]), uploads);
}
