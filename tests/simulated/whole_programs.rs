//! Whole programs against every ending: `finale::check::Endings` with reactors of their own,
//! servers that remember, clients that overlap, back-pressure, and bounds.

use std::time::{Duration, Instant};

use super::handlers::{addr, broken, good, hello, one_buffer, patient_listen};
use finale::check::{CaseResult, Cut, CutPoint, Endings, Program, Rule};
use finale::sim::{Host, Script};
use finale::{
    Backpressure, ConnectOptions, Error, Event, Inbox, ListenOptions, Pipes, Pool, PoolEvent, PoolOptions, PoolReply,
    Reactor, Sender, Socket, SocketMap, TimerId,
};

/// Echoes each line twenty times, and waits for room in between.
fn patient(resumes: bool) -> impl FnMut(&mut Socket<'_>, Event<'_>) {
    let (mut input, mut is_full, mut ended) = (Vec::<u8>::new(), false, false);
    move |socket, event| {
        match event {
            Event::Data(bytes) => input.extend_from_slice(bytes),
            Event::Drain => is_full = false,
            Event::End => ended = true,
            Event::Timeout => return socket.destroy(),
            Event::Close(_) => {
                (input, is_full, ended) = Default::default();
                return;
            }
            _ => return,
        }
        while !is_full && !socket.end_called() {
            let Some(end) = input.iter().position(|byte| *byte == b'\n') else { break };
            let line: Vec<u8> = input.drain(..=end).collect();
            match socket.write(&line.repeat(20)) {
                Ok(Backpressure::Full) => is_full = true,
                Ok(Backpressure::Room) => {}
                Err(_) => return socket.destroy(),
            }
        }
        if is_full {
            socket.pause();
        } else {
            if resumes {
                socket.resume();
            }
            if ended {
                socket.end();
            }
        }
    }
}

#[test]
fn a_server_that_pauses_at_full_and_never_resumes_is_found_with_the_default_marks() {
    let polite = Script::new().send(b"one\ntwo\nthree\n").receive(20 * 14).finish().receive_end();
    let endings = Endings::of_a_server(patient_listen(), polite);
    good(&endings, || patient(true));
    let (case, rule, _) = broken(&endings, || patient(false));
    assert_eq!((case.conditions, rule), (1, Rule::SameAnswer));
}

/// The loop of back-pressure that the pages recommend.
fn echo(socket: &mut Socket<'_>, event: Event<'_>) {
    match event {
        Event::Data(bytes) => {
            if let Ok(Backpressure::Full) = socket.write(bytes) {
                socket.pause();
            }
        }
        Event::Drain => socket.resume(),
        Event::End => socket.end(),
        Event::Timeout => socket.destroy(),
        _ => {}
    }
}

#[test]
fn the_recommended_loop_of_back_pressure_ends_soon_after_every_reset() {
    let polite = Script::new().send(&[b'x'; 100]).receive(100).finish().receive_end();
    good(&Endings::of_a_server(ListenOptions::default(), polite).cuts(&[Cut::Reset, Cut::Close]), || echo);
}

#[test]
fn a_paused_server_that_does_not_care_for_a_reset_is_found() {
    // It reads when its own timer fires, long after the reset.
    let mut paused = None;
    let sleepy = move |socket: &mut Socket<'_>, event: Event<'_>| match event {
        Event::Connection => {
            socket.pause();
            socket.set_timer(Duration::from_secs(200));
            paused = Some(socket.id());
        }
        Event::Timer(_) => {
            if let Some(mut socket) = paused.and_then(|id| socket.get(id)) {
                socket.resume();
            }
        }
        event => echo(socket, event),
    };
    let endings = Endings::of_a_server(ListenOptions::default(), hello()).cuts(&[Cut::Reset]);
    let (case, rule, what) = broken(&endings, || sleepy);
    assert_eq!((case.point, rule), (CutPoint::Sent(1), Rule::Progress), "{what}");
    assert!(what.starts_with("the peer reset, and its connection was closed 200.0s later"), "{what}");
    // A client that closes is not in that hurry, though its kernel answers later bytes with RST.
    good(&endings.cuts(&[Cut::Close]), || sleepy);
}

#[test]
fn a_server_that_remembers_is_accused_unless_it_forgets_or_nobody_else_comes() {
    #[derive(Default)]
    struct Counter {
        count: u32,
        can_forget: bool,
    }
    impl Program for Counter {
        fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
            match event {
                Event::Data(bytes) => {
                    for _ in bytes.iter().filter(|byte| **byte == b'\n') {
                        self.count += 1;
                        let _ = socket.write(format!("{}\n", self.count).as_bytes());
                    }
                }
                Event::End => socket.end(),
                Event::Timeout => socket.destroy(),
                _ => {}
            }
        }
        fn forget(&mut self) {
            if self.can_forget {
                self.count = 0;
            }
        }
    }
    let next = || Script::new().send(b"next\n").receive(2).finish().receive_end();
    let endings = || Endings::of_a_server(patient_listen(), next());
    let (_, rule, what) = broken(&endings(), Counter::default);
    assert_eq!(rule, Rule::Isolation, "{what}");
    good(&endings(), || Counter { can_forget: true, ..Counter::default() });
    good(&endings().no_second_client(), Counter::default);
    good(&endings().stateful(), Counter::default);
}

#[test]
fn a_buffer_that_two_clients_share_is_found_when_they_overlap() {
    // Alone it does no harm: what is left is cleared.
    let shared = || one_buffer(true);
    good(&Endings::of_a_server(patient_listen(), hello()), shared);
    let other = Script::new().send(b"12345").receive(5).finish().receive_end();
    let endings = Endings::of_a_server(patient_listen(), hello()).client(Endings::SERVER, other);
    let (_, rule, what) = broken(&endings, shared);
    assert!(matches!(rule, Rule::Isolation | Rule::SameAnswer), "{what}");
    good(&endings, || echo);
}

type Job = (finale::SocketId, Vec<u8>);

/// Takes a job from each line, has it done elsewhere, and answers when the inbox brings the result.
#[derive(Default)]
struct Worker {
    inbox: Option<(Sender<Job>, Inbox<Job>)>,
    /// Of each client: results that are on their way, and whether it has finished.
    clients: SocketMap<(u32, bool)>,
    forgets_the_end: bool,
}

impl Program for Worker {
    fn begin(&mut self, reactor: &mut Reactor<Host>) -> Result<(), Error> {
        self.inbox = Some(reactor.inbox(10));
        reactor.listen("10.0.0.1:80", patient_listen()).map(drop)
    }

    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        let Some((sender, inbox)) = &mut self.inbox else { return };
        match event {
            Event::Connection => drop(self.clients.insert(socket.id(), (0, false))),
            Event::Data(bytes) => {
                let _ = sender.send((socket.id(), bytes.to_ascii_uppercase()));
                self.clients.or_default(socket.id()).0 += 1;
            }
            Event::Woken => {
                while let Some((id, result)) = inbox.take() {
                    let Some(mut socket) = socket.get(id) else { continue };
                    let _ = socket.write(&result);
                    let (jobs, has_ended) = self.clients.or_default(id);
                    *jobs -= 1;
                    if *has_ended && *jobs == 0 {
                        socket.end();
                    }
                }
            }
            Event::End => {
                let (jobs, has_ended) = self.clients.or_default(socket.id());
                *has_ended = true;
                if *jobs == 0 || self.forgets_the_end {
                    socket.end();
                }
            }
            Event::Timeout => socket.destroy(),
            Event::Close(_) => drop(self.clients.remove(socket.id())),
            _ => {}
        }
    }

    fn at_rest(&self, _found: &CaseResult) -> Result<(), String> {
        if self.clients.is_empty() { Ok(()) } else { Err("a client is left".into()) }
    }
}

#[test]
fn a_program_with_an_inbox_is_run_against_every_ending() {
    let endings = Endings::of_a_program().client(addr("10.0.0.1:80"), hello());
    good(&endings, Worker::default);
    // The end comes with the request, and the result after it.
    let (_, rule, what) = broken(&endings, || Worker { forgets_the_end: true, ..Worker::default() });
    assert_eq!(rule, Rule::SameAnswer, "{what}");
}

/// A proxy with a connection of its own for each client, and a timer of its own.
#[derive(Default)]
struct Proxy {
    pipes: Pipes,
    timers: Vec<(TimerId, finale::SocketId)>,
    has_no_timer: bool,
    ends_truncated_streams: bool,
}

impl Program for Proxy {
    fn begin(&mut self, reactor: &mut Reactor<Host>) -> Result<(), Error> {
        reactor.listen("10.0.0.1:80", ListenOptions::default()).map(drop)
    }

    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        match event {
            Event::Connection => match socket.connect("db.internal:7", ConnectOptions::default()) {
                Ok(server) => {
                    let client = socket.id();
                    self.pipes.join(&mut socket.context(), client, server).expect("TCP");
                    if !self.has_no_timer {
                        self.timers.push((socket.set_timer(Duration::from_secs(30)), socket.id()));
                    }
                }
                Err(_) => socket.destroy(),
            },
            Event::Timer(timer) => {
                if let Some(place) = self.timers.iter().position(|(known, _)| *known == timer) {
                    let (_, id) = self.timers.swap_remove(place);
                    if let Some(mut client) = socket.get(id) {
                        client.destroy();
                    }
                }
            }
            Event::Error(_) if self.ends_truncated_streams => {
                if let Some(other) = self.pipes.sink_of(socket.id()) {
                    self.pipes.unpipe(other);
                    socket.get(other).iter_mut().for_each(Socket::end);
                    socket.get(other).iter_mut().for_each(Socket::discard);
                }
            }
            event => drop(self.pipes.handle(socket, &event)),
        }
    }
}

/// A client that says hello through the proxy, and the server that answers.
fn of_a_proxy() -> Endings {
    let server = Script::new().receive(5).send(b"HELLO").receive_end().finish();
    Endings::of_a_program()
        .client(addr("10.0.0.1:80"), hello())
        .server(addr("10.0.0.2:7"), server)
        .network(|network| network.name("db.internal", vec![addr("10.0.0.2:7").ip()]))
}

#[test]
fn a_proxy_that_ends_a_stream_whose_server_was_reset_is_found_by_what_its_client_got() {
    let endings = of_a_proxy().cuts(&[Cut::Reset]).holds(|found| {
        match found.case.peer == 1 && found.got_end_by[0] && found.received_by[0] != b"HELLO" {
            true => Err("a truncated stream looks complete".to_owned()),
            false => Ok(()),
        }
    });
    good(&endings, Proxy::default);
    let (case, rule, what) = broken(&endings, || Proxy { ends_truncated_streams: true, ..Proxy::default() });
    assert_eq!((case.peer, case.cut, rule), (1, Cut::Reset, Rule::Own), "{what}");
}

#[test]
fn a_proxy_is_run_against_every_ending_of_its_client_and_of_its_server() {
    let endings = of_a_proxy();
    let cases = good(&endings, Proxy::default);
    assert_eq!(cases, (2 * (2 + 6 * (6 + 6)) + 2) * 3);
    let (case, rule, what) = broken(&endings, || Proxy { has_no_timer: true, ..Proxy::default() });
    assert_eq!((case.cut, rule), (Cut::Silence, Rule::Progress), "{what}");
}

/// Three requests over a pool of one connection, each again if its connection was lost.
struct Requests {
    pool: Pool,
    results: usize,
    retries: bool,
}

impl Requests {
    fn new(retries: bool) -> Self {
        let options = PoolOptions::default().size(1).wait_limit(Duration::from_secs(20));
        let pool = Pool::new("10.0.0.2:7", ConnectOptions::default().connect_timeout(Duration::from_secs(2)), options);
        Self { pool: pool.expect("an address"), results: 0, retries }
    }

    fn start(&mut self, context: &mut finale::Context<'_>) {
        while let Some((_, reply)) = self.pool.next_reply(context) {
            match reply {
                PoolReply::Leased(id) => {
                    let Some(mut socket) = context.socket(id) else { continue };
                    let _ = socket.write(b"ask");
                    socket.set_deadline(Duration::from_secs(3));
                }
                _ => self.done(context),
            }
        }
    }

    fn done(&mut self, context: &mut finale::Context<'_>) {
        self.results += 1;
        if self.results == 3 {
            self.pool.close(context);
        }
    }
}

impl Program for Requests {
    fn begin(&mut self, reactor: &mut Reactor<Host>) -> Result<(), Error> {
        for _ in 0..3 {
            self.pool.request(&mut reactor.context());
        }
        self.start(&mut reactor.context());
        Ok(())
    }

    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        match self.pool.handle(socket, &event) {
            PoolEvent::Leased(ticket) => match event {
                Event::Data(_) if socket.bytes_read().is_multiple_of(3) => {
                    self.pool.give_back(ticket, &mut socket.context());
                    self.done(&mut socket.context());
                }
                // The request is lost with this connection, which is no longer the pool's.
                Event::End => {
                    self.pool.discard(ticket, &mut socket.context());
                    if self.retries {
                        self.pool.request(&mut socket.context());
                    }
                }
                _ => {}
            },
            PoolEvent::Lost(..) if self.retries => drop(self.pool.request(&mut socket.context())),
            _ => {}
        }
        self.start(&mut socket.context());
    }

    fn stop(&mut self, reactor: &mut Reactor<Host>) {
        self.pool.close(&mut reactor.context());
    }

    fn at_rest(&self, found: &CaseResult) -> Result<(), String> {
        let lost = self.results < 3 && found.case.cut != Cut::Vanish && found.case.point != CutPoint::Connecting;
        if lost { Err(format!("{} of 3 requests have a result", self.results)) } else { Ok(()) }
    }
}

#[test]
fn a_pool_is_run_against_every_ending_of_its_server() {
    let server = (0..3).fold(Script::new(), |script, _| script.receive(3).send(b"yes")).receive_end().finish();
    let endings = Endings::of_a_program().server(addr("10.0.0.2:7"), server).max_lifetime(Duration::from_secs(120));
    good(&endings, || Requests::new(true));
    let (_, rule, what) = broken(&endings, || Requests::new(false));
    assert_eq!((rule, what.ends_with("of 3 requests have a result")), (Rule::Own, true), "{what}");
}

#[test]
fn an_answer_of_two_thousand_bytes_takes_seconds() {
    let long = Script::new().send(b"get").receive(2000).finish().receive_end();
    let answer = |socket: &mut Socket<'_>, event: Event<'_>| match event {
        Event::Data(_) if socket.bytes_read() == 3 => drop(socket.write(&[b'x'; 2000])),
        Event::Data(_) => {}
        event => echo(socket, event),
    };
    let endings = || Endings::of_a_server(patient_listen(), long.clone());
    let begun = Instant::now();
    assert_eq!(good(&endings().conditions(0), || answer), 2 + 6 * (4 + 2001));
    // A guard against minutes, as it once was; seconds on a free machine.
    assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", begun.elapsed());

    let some = endings().at_most(500).run(|| answer);
    assert_eq!(some.to_string(), "500 of 36096 endings, evenly spread, and every rule was kept");
    let none = endings().at_most_for(Duration::ZERO).run(|| answer);
    assert_eq!((none.cases(), none.total()), (0, 36_096));
}

#[test]
fn a_bound_on_cases_leaves_out_no_cut_and_no_conditions() {
    let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let cases = std::rc::Rc::clone(&seen);
    let long = Script::new().send(&[b'x'; 500]).receive(500).finish().receive_end();
    let endings = Endings::of_a_server(patient_listen(), long).at_most(200).holds(move |found| {
        cases.borrow_mut().push(found.case);
        Ok(())
    });
    assert_eq!(good(&endings, || echo), 200);
    for cut in Cut::ALL {
        for conditions in 0..3 {
            let bytes = seen.borrow().iter().filter(|case| case.cut == *cut && case.conditions == conditions).count();
            assert!((8..=15).contains(&bytes), "{cut}, {conditions}: {bytes} cases");
        }
    }
}

#[test]
fn a_short_deadline_is_no_reason_for_an_alarm() {
    let strict = ListenOptions::default().deadline(Duration::from_millis(50)).idle_timeout(Duration::from_millis(20));
    for bytes in [10, 200] {
        let script = Script::new().send(&vec![b'x'; bytes]).receive(bytes as u64).finish().receive_end();
        good(&Endings::of_a_server(strict.clone(), script).conditions(3), || echo);
    }
}
