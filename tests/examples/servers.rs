//! The servers of the guides.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use finale::check::{CaseResult, Cut, Endings, Program as Checked};
use finale::sim::{Network, Script};
use finale::{Event, ListenOptions, Reactor, Socket, StopOptions};

use super::lines::{LINE_BYTES, Lines, options};
use super::primes;
use super::program::{Program, printed};

impl Checked for Lines {
    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        Self::handle(self, socket, event);
    }

    fn at_rest(&self, _found: &CaseResult) -> Result<(), String> {
        if self.clients.is_empty() { Ok(()) } else { Err("a partial line is left".into()) }
    }
}

#[test]
fn the_line_server_survives_every_ending() {
    let polite = Script::new().send(b"hello\nyou\n").receive(10).finish().receive_end();
    let endings = Endings::of_a_server(options(ListenOptions::default()), polite).conditions(2).holds(|found| {
        let complete = found.sent.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let expected = found.sent[..complete].to_ascii_uppercase();
        if expected.starts_with(&found.received) { Ok(()) } else { Err("an incomplete line got an answer".into()) }
    });
    let report = endings.run(Lines::default);
    assert!(report.violation().is_none(), "{report}");
}

/// The line server without its end: the bug behind a CLOSE-WAIT that stays.
#[derive(Default)]
struct NeverEnds(Lines);

impl Checked for NeverEnds {
    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        if event != Event::End {
            self.0.handle(socket, event);
        }
    }
}

/// The idle timeout would hide it: it ends such a connection, too, and a minute is allowed.
#[test]
fn a_missing_end_is_found_by_a_lifetime_below_the_idle_timeout() {
    let endings = || {
        let polite = Script::new().send(b"hello\nyou\n").receive(10).finish().receive_end();
        let cuts = [Cut::Delay, Cut::Fin, Cut::Close, Cut::Reset];
        let limits = options(ListenOptions::default());
        Endings::of_a_server(limits, polite).cuts(&cuts).max_lifetime(Duration::from_secs(20))
    };
    let report = endings().run(Lines::default);
    assert!(report.violation().is_none(), "{report}");
    let report = endings().run(NeverEnds::default);
    let text = report.to_string();
    assert!(report.violation().is_some() && text.contains("did not end within 20s"), "{text}");
    assert!(text.contains("PeerFinished"), "{text}");
}

/// Runs the line server with one client until its connection is closed. Returns what the client
/// received, how the connection ended, and after what time.
fn with_a_client(script: Script) -> (Vec<u8>, String, Duration) {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let listener = reactor.listen("10.0.0.1:80", options(ListenOptions::default())).expect("a free port");
    let client = network.peer([10, 0, 0, 2].into()).play(listener.addr, script).expect("begun");
    let mut lines = Lines::default();
    while let Some((mut socket, event)) = reactor.next().expect("it continues") {
        assert!(socket.queued_bytes() <= 256 * 1024 + LINE_BYTES, "the queue is bounded");
        lines.handle(&mut socket, event);
        if let Event::Close(ending) = event {
            return (client.received(), ending.to_string(), network.elapsed());
        }
    }
    panic!("no close");
}

#[test]
fn the_line_server_refuses_long_lines_and_slow_ones_and_bounds_its_queue() {
    let long = Script::new().send(&[b'x'; 2 * LINE_BYTES]).receive_end().finish();
    let (received, ending, _) = with_a_client(long);
    assert_eq!(received, b"line too long\n");
    assert!(ending.starts_with("clean"), "{ending}");

    let (_, ending, time) = with_a_client(Script::new().drip(&[b'x'; 100], Duration::from_secs(1)));
    assert!(ending.contains("deadline"), "{ending}");
    assert!((10..=12).contains(&time.as_secs()), "{time:?}");

    // Each of these moves a byte now and then, for ever; the last also after we have left it.
    let sips = Script::new().send(&b"x\n".repeat(1_000_000)).sip(1000, TEN_SECONDS);
    let mut refused = b"x\n".repeat(275_000);
    refused.extend([b'x'; 2 * LINE_BYTES]);
    let refused = Script::new().send(&refused).sip(1000, TEN_SECONDS);
    for holder in [Script::new().drip(&b"yes\n".repeat(10_000), TEN_SECONDS / 5), sips, refused] {
        let (_, ending, time) = with_a_client(holder);
        assert!(ending.contains("deadline"), "{ending}");
        assert!((3600..=3601).contains(&time.as_secs()), "{time:?}");
    }

    let flood = Script::new().stop_reading().flood(b"a line of some length\n", Duration::MAX);
    let (_, ending, _) = with_a_client(flood);
    assert!(ending.contains("took nothing"), "{ending}");
}

/// Between two signs of life.
const TEN_SECONDS: Duration = Duration::from_secs(10);

/// The grace of a stop is over, and a further line arrives.
#[test]
fn the_line_server_does_not_reset_a_client_whose_line_comes_after_the_end() {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let listener = reactor.listen("10.0.0.1:80", options(ListenOptions::default())).expect("a free port");
    let late = Script::new().send(b"early\n").receive(6).receive_end().send(b"late\n").finish();
    let client = network.peer([10, 0, 0, 2].into()).play(listener.addr, late).expect("begun");
    let mut lines = Lines::default();
    while let Some((mut socket, event)) = reactor.next().expect("it continues") {
        lines.handle(&mut socket, event);
        match event {
            Event::Data(b"early\n") => {
                reactor.stop_listener(listener.id, StopOptions::default()).expect("it listens");
            }
            Event::Close(ending) => assert!(ending.to_string().starts_with("clean and acknowledged"), "{ending}"),
            _ => {}
        }
    }
    assert_eq!((client.received(), client.undone()), (b"EARLY\n".to_vec(), None));
    assert!(!client.is_reset() && lines.clients.is_empty());
}

/// Half a line is a request that has begun: the grace of a stop does not end its connection.
#[test]
fn a_client_with_half_a_line_does_not_hold_up_a_stop_until_its_limit() {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let listener = reactor.listen("10.0.0.1:80", primes::options(ListenOptions::default())).expect("a free port");
    let (jobs, queue) = sync_channel(1);
    let half =
        Script::new().send(b"10\n1").receive(2).send(b"0").wait(TEN_SECONDS / 2).drip(&[b'1'; 20], TEN_SECONDS / 10);
    let client = network.peer([10, 0, 0, 2].into()).play(listener.addr, half).expect("begun");
    let mut primes = primes::Primes::new(jobs);
    let mut stopped = None;
    while let Some((mut socket, event)) = reactor.next().expect("it continues") {
        primes.handle(&mut socket, event);
        if let Ok(job) = queue.try_recv() {
            primes.answer(&mut socket, primes::count_primes(job.below));
        }
        if event == Event::Data(b"0") {
            reactor.stop_listener(listener.id, StopOptions::default()).expect("it listens");
            stopped = Some(network.elapsed());
        }
    }
    assert_eq!(client.received(), b"4\n", "the whole line has its answer");
    let held = network.elapsed() - stopped.expect("half a line");
    assert!(held > TEN_SECONDS / 2 && held <= TEN_SECONDS, "{held:?}");
}

#[test]
fn the_simulated_example_runs_on_a_virtual_clock() {
    let text = printed("simulated", &[], "");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("after 7ms: clean and acknowledged"), "{text}");
    assert!(lines[1].starts_with("after 10.003s: error: timed out: not done by its deadline"), "{text}");
}

#[test]
fn the_server_of_the_readme_answers_and_refuses_what_is_too_long() {
    let mut server = Program::start("upper", &["127.0.0.1:0"]);
    assert_eq!(server.exchange(b"hello").expect("an answer"), b"HELLO");
    assert!(server.line().contains("clean and acknowledged; the peer finished first"));
    assert_eq!(server.exchange(&[b'x'; 65_536]).expect("an answer").len(), 65_536);
    assert!(server.line().contains("clean and acknowledged"));
    let mut stream = server.connect();
    let refused = stream.write_all(&[b'x'; 1_000_000]).and_then(|()| stream.read_exact(&mut [0]));
    assert!(refused.is_err(), "it is reset");
    assert!(server.line().contains("destroyed by us"));
    assert_eq!(server.exchange(b"still here").expect("an answer"), b"STILL HERE");
}

#[test]
fn a_stop_lets_a_busy_client_have_its_answer_and_ends_an_idle_one() {
    let mut server = Program::start("stop", &["127.0.0.1:0", "50"]);
    let answers = server.exchange(b"10\nten\n18446744073709551615\n100\n").expect("answers");
    assert_eq!(answers, b"4\nnot a number\ntoo large a number\n25\n");
    assert!(server.line().contains("clean and acknowledged"));

    let (mut idle, mut busy) = (server.connect(), server.connect());
    idle.write_all(b"10\n").expect("open");
    idle.read_exact(&mut [0; 2]).expect("an answer");
    // The second line is unread when the server stops, and is answered too.
    busy.write_all(b"1000000\n10\n").expect("open");
    server.terminate();
    assert_eq!(server.line(), "stopping\n");
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).expect("our end comes in order");
    assert!(rest.is_empty());
    // A line after our end gets no answer, and no reset either.
    idle.write_all(b"10\n").expect("open");
    drop(idle);
    assert!(server.line().contains("clean"), "the idle one ended by the grace, which is 50 ms");
    let mut answers = Vec::new();
    busy.read_to_end(&mut answers).expect("answered, and ended by the grace");
    assert_eq!(answers, b"78498\n4\n");
    busy.shutdown(Shutdown::Write).expect("open");
    assert!(server.child.wait().expect("it ends").success());
}
