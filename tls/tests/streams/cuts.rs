//! Conversations that are cut at every byte, of the handshake and of the stream, in every way.
//!
//! Nothing is random here (`constant.rs`), so that a recorded conversation can be played again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use finale::check::{CaseResult, CutPoint, Endings, Program, Report};
use finale::sim::{Host, Script};
use finale::{ConnectOptions, Error, Event, ListenOptions, Reactor, Socket, SocketId, Stream};
use finale_tls::rustls::{SupportedProtocolVersion, version};
use finale_tls::{Tls, TlsSocket};

use crate::constant::configs;
use crate::scene::{Configs, Scene};

const REQUEST: &[u8] = b"a request";
const ANSWER: &[u8] = b"the whole answer";

/// The flights of one conversation, in which finale is the server or the client.
struct Recorded {
    flights: Vec<Vec<u8>>,
    /// How many bytes the peer sends.
    sent: usize,
}

/// Works at the end of the peer's stream and never before.
fn work(
    done: &mut Vec<Vec<u8>>,
    streams: &mut HashMap<SocketId, Vec<u8>>,
    socket: &mut TlsSocket<'_>,
    event: Event<'_>,
    is_client: bool,
) {
    match event {
        Event::Ready if is_client => {
            socket.write(REQUEST).expect("room");
            socket.end();
        }
        Event::Data(bytes) => streams.entry(socket.id()).or_default().extend_from_slice(bytes),
        Event::End => {
            done.push(streams.remove(&socket.id()).unwrap_or_default());
            if !is_client {
                socket.write(ANSWER).expect("room");
                socket.end();
            }
        }
        Event::Timeout => socket.destroy(),
        Event::Close(_) => drop(streams.remove(&socket.id())),
        _ => {}
    }
}

fn record(configs: &Configs, is_client: bool) -> Recorded {
    let (mut done, mut streams) = (Vec::new(), HashMap::new());
    let mut program =
        |socket: &mut TlsSocket<'_>, event: Event<'_>| work(&mut done, &mut streams, socket, event, is_client);
    let (mut scene, mut peer) = if is_client {
        let (scene, _, peer) = Scene::client(configs, ConnectOptions::default());
        (scene, peer)
    } else {
        Scene::server(configs, ListenOptions::default())
    };
    // One flight of each side in turn: the peer's is sent after the program's has arrived.
    let mut flights = Vec::new();
    let mut has_written = false;
    while !peer.has_close_notify || !has_written {
        let mut flight = peer.output();
        let is_time = if is_client { peer.has_close_notify } else { !peer.tls.is_handshaking() };
        if is_time && !has_written {
            flight.extend(peer.records(if is_client { ANSWER } else { REQUEST }));
            flight.extend(peer.close_record());
            has_written = true;
        }
        peer.raw(&flight);
        if !flight.is_empty() {
            flights.push(flight);
        }
        scene.step(Duration::from_millis(5), &mut program);
        let received = peer.read();
        if !received.is_empty() {
            flights.push(received);
        }
        assert!(flights.len() < 20, "it ends");
    }
    let skipped = usize::from(is_client);
    let sent = flights.iter().skip(skipped).step_by(2).map(Vec::len).sum();
    scene.step(Duration::from_millis(5), &mut program);
    assert_eq!(done, [if is_client { ANSWER } else { REQUEST }]);
    Recorded { flights, sent }
}

/// The peer's side of a conversation.
fn script(recorded: &Recorded, is_client: bool) -> Script {
    let mut script = Script::new();
    for (number, flight) in recorded.flights.iter().enumerate() {
        script = if (number % 2 == 0) == is_client { script.receive(flight.len() as u64) } else { script.send(flight) };
    }
    script.finish().receive_end()
}

/// What one run has found: the work that was done.
#[derive(Default)]
struct Run {
    tls: Tls,
    streams: HashMap<SocketId, Vec<u8>>,
    done: Vec<Vec<u8>>,
    configs: Option<Configs>,
    is_client: bool,
    sent: usize,
}

impl Program for Run {
    fn begin(&mut self, reactor: &mut Reactor<Host>) -> Result<(), Error> {
        if self.is_client {
            let config = Arc::new(self.configs.as_ref().expect("known").client.clone());
            let name = "localhost".try_into().expect("a name");
            let options = ConnectOptions::default().idle_timeout(Duration::from_secs(20));
            self.tls.connect(&mut reactor.context(), "10.0.0.2:443", options, &config, name).expect("begun");
        }
        Ok(())
    }

    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        let Self { tls, streams, done, configs, is_client, .. } = self;
        if let (Event::Connection, Some(listener), Some(configs)) = (event, socket.listener(), configs) {
            tls.accept_on(listener, &Arc::new(configs.server.clone())).expect("a good configuration");
        }
        let mut events = tls.handle(socket, event);
        while let Some((mut socket, event)) = events.next() {
            work(done, streams, &mut socket, event, *is_client);
        }
    }

    fn at_rest(&self, found: &CaseResult) -> Result<(), String> {
        let whole = usize::from(found.sent.len() == self.sent) + usize::from(found.second.is_some());
        let expected = if self.is_client { ANSWER } else { REQUEST };
        if self.done.len() > whole || self.done.iter().any(|done| done != expected) {
            return Err(format!("{} of {} bytes were sent, and it did {:?}", found.sent.len(), self.sent, self.done));
        }
        let (sessions, streams) = (self.tls.len(), self.streams.len());
        if sessions + streams == 0 {
            Ok(())
        } else {
            Err(format!("{sessions} sessions and {streams} streams are left"))
        }
    }
}

fn run(version: &'static SupportedProtocolVersion, is_client: bool, at_most: u64) -> Report {
    let configs = configs(version);
    let recorded = record(&configs, is_client);
    let script = script(&recorded, is_client);
    let endings = if is_client {
        Endings::of_a_program().server("10.0.0.2:443".parse().expect("an address"), script).no_second_client()
    } else {
        let listen = ListenOptions::default().idle_timeout(Duration::from_secs(20));
        Endings::of_a_server(listen, script)
    };
    let whole = Rc::new(RefCell::new(0));
    let count = Rc::clone(&whole);
    let report = endings
        .at_most(at_most)
        .holds(move |found| {
            *count.borrow_mut() += u32::from(found.case.point == CutPoint::Nowhere);
            Ok(())
        })
        .run(|| Run { configs: Some(configs.clone()), is_client, sent: recorded.sent, ..Run::default() });
    println!("{} of {} cases", report.cases(), report.total());
    assert!(report.violation().is_none(), "{report}");
    assert!(*whole.borrow() > 0, "it was also played without a cut");
    report
}

/// How many cases of each conversation `cargo test` runs. With `FINALE_CUTS=all`, as `.ci/run` sets
/// it, it runs all of them.
fn at_most() -> u64 {
    if std::env::var("FINALE_CUTS").is_ok_and(|value| value == "all") { u64::MAX } else { 1000 }
}

#[test]
fn a_server_never_works_on_a_stream_that_was_cut_with_tls_1_3() {
    run(&version::TLS13, false, at_most());
}

#[test]
fn a_server_never_works_on_a_stream_that_was_cut_with_tls_1_2() {
    run(&version::TLS12, false, at_most());
}

#[test]
fn a_client_never_works_on_a_stream_that_was_cut_with_tls_1_3() {
    run(&version::TLS13, true, at_most());
}

#[test]
fn a_client_never_works_on_a_stream_that_was_cut_with_tls_1_2() {
    run(&version::TLS12, true, at_most());
}
