//! What the optional features add: `serde`, what is told as data; `tracing`, steps and endings as events with fields. Without them
//! there is nothing here to be run: `cargo test --features serde,tracing --test features`.

#![cfg(any(feature = "serde", feature = "tracing"))]

use std::net::{IpAddr, Ipv4Addr};

use finale::sim::{Host, Network};
use finale::{ConnectOptions, Event, ListenOptions, Reactor};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// A client says `ping` and ends, and its server ends, too; each event passes through `see`. Then a client whom nobody serves.
fn conversation(mut see: impl FnMut(&Event<'_>)) -> Reactor<Host> {
    #[cfg(feature = "tracing")]
    tracing::subscribe();
    let mut reactor = Reactor::with_net(Network::new(1).host(HERE));
    let listener = reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    reactor.connect(listener.addr, ConnectOptions::default()).expect("begun");
    reactor.connect((HERE, 81), ConnectOptions::default()).expect("begun");
    let mut closes = 0;
    while let Some((mut socket, event)) = reactor.next().expect("it goes on") {
        see(&event);
        match event {
            Event::Ready => {
                socket.write(b"ping").expect("room");
                socket.end();
            }
            Event::End => socket.end(),
            Event::Close(_) => closes += 1,
            _ => {}
        }
        if closes == 3 {
            break;
        }
    }
    reactor
}

#[cfg(feature = "serde")]
mod serde {
    use finale::{ConnectionError, ConnectionErrorKind, Ending, EndingKind};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn every_event_is_data_under_its_name_in_the_grammar() {
        let mut told: Vec<Value> = Vec::new();
        conversation(|event| told.push(serde_json::to_value(event).expect("data")));
        for value in [
            json!({ "lookup": "10.0.0.1" }),
            json!("connect"),
            json!("ready"),
            json!("connection"),
            json!({ "data": b"ping" }),
            json!("end"),
            json!({ "error": { "cause": "refused", "os": 111, "attempts": [{ "addr": "10.0.0.1:81", "cause": "refused" }] } }),
        ] {
            assert!(told.contains(&value), "{value} is not among {told:#?}");
        }
    }

    #[test]
    fn an_ending_comes_back_as_it_went() {
        let mut endings: Vec<Ending> = Vec::new();
        conversation(|event| {
            if let Event::Close(ending) = event {
                endings.push((*ending).clone());
            }
        });
        assert_eq!(endings.len(), 3);
        for ending in endings {
            let text = serde_json::to_string(&ending).expect("data");
            assert_eq!(serde_json::from_str::<Ending>(&text).expect("the same data"), ending, "{text}");
        }
    }

    #[test]
    fn an_ending_names_its_parts_as_the_documentation_does() {
        let mut written = None;
        conversation(|event| {
            if let Event::Close(ending) = event
                && matches!(
                    &ending.kind,
                    EndingKind::Failed(ConnectionError { cause: ConnectionErrorKind::Refused, .. })
                )
            {
                written = serde_json::to_value(ending).ok();
            }
        });
        let failed =
            json!({ "cause": "refused", "os": 111, "attempts": [{ "addr": "10.0.0.1:81", "cause": "refused" }] });
        assert_eq!(
            written.expect("one was refused"),
            json!({
                "how": { "failed": failed }, "first": "nobody", "peer": "10.0.0.1:81",
                "bytes_read": 0, "bytes_written": 0, "bytes_unsent": 0
            })
        );
    }

    #[test]
    fn metrics_are_data_with_the_failures_by_their_words() {
        let metrics = serde_json::to_value(conversation(|_| {}).metrics()).expect("data");
        assert_eq!(metrics["confirmed"], 2);
        assert_eq!(metrics["failed"], json!({ "refused: nobody listens there": 1 }));
        assert_eq!(metrics["live"], json!({}));
    }

    #[test]
    fn an_id_is_written_as_in_the_log() {
        let mut reactor = Reactor::with_net(Network::new(1).host(HERE));
        let id = reactor.connect((HERE, 81), ConnectOptions::default()).expect("begun");
        assert_eq!(serde_json::to_value(id).expect("data"), json!(id.to_string()));
    }
}

#[cfg(feature = "tracing")]
mod tracing {
    use std::cell::RefCell;
    use std::io;
    use std::sync::Once;

    use super::*;

    thread_local! {
        /// What was written by this test: each has a thread of its own.
        static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }

    struct Lines;

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            LINES.with_borrow_mut(|lines| lines.write(bytes))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Before the first event of the process: tracing remembers for good that nobody wants an event
    /// if its first occurrence, in another test, comes at the moment in which a subscriber is
    /// added.
    pub(super) fn subscribe() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
                .with_writer(|| Lines)
                .with_ansi(false)
                .without_time()
                .finish();
            ::tracing::subscriber::set_global_default(subscriber).expect("there is no other");
        });
    }

    #[test]
    fn steps_and_endings_are_events_with_fields() {
        conversation(|_| {});
        let text = String::from_utf8(LINES.take()).expect("text");
        let has = |parts: &[&str]| text.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(
            has(&[
                "transition",
                "socket=socket 0.1",
                "from=\"Connecting\"",
                "input=\"Established\"",
                "to=\"Open\"",
                "events=\"connect ready\""
            ]),
            "{text}"
        );
        assert!(has(&["transition", "peer=10.0.0.1:80"]), "{text}");
        assert!(has(&["close", "acknowledged=true", "bytes_written=4", "ending=clean and acknowledged"]), "{text}");
        assert!(has(&["close", "had_error=true", "ending=error: refused"]), "{text}");
    }
}
