//! What the optional features add: `serde`, events as data; `tracing`, transitions and endings as
//! events with fields. `tracing` changes no line of `log`: the module `lines` runs with and without.
//!
//! A logger and a subscriber are set for a whole process, so such a test has its own process. Two
//! facts also last as long as a process: that a subscriber was ever set, after which tracing passes
//! no event to `log`; and that no subscriber wanted the first occurrence of an event.
//!
//! Run with: `cargo test --features serde,tracing --test api features::`.

use std::net::{IpAddr, Ipv4Addr};

use finale::sim::{Host, Network};
use finale::{ConnectOptions, Event, ListenOptions, Reactor};
use support::alone::alone;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// A client sends `ping` and ends, and then its server ends. A second client is refused. Each event
/// passes through `see`.
fn conversation(mut see: impl FnMut(&Event<'_>)) -> Reactor<Host> {
    let mut reactor = Reactor::with_net(Network::new(1).host(HERE));
    let listener = reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    reactor.connect(listener.addr, ConnectOptions::default()).expect("begun");
    reactor.connect((HERE, 81), ConnectOptions::default()).expect("begun");
    let mut closes = 0;
    while let Some((mut socket, event)) = reactor.next().expect("it continues") {
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
            json!({ "error": { "kind": "refused", "os": 111, "attempts": [{ "addr": "10.0.0.1:81", "kind": "refused" }] } }),
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
                    EndingKind::Failed(ConnectionError { kind: ConnectionErrorKind::Refused, .. })
                )
            {
                written = serde_json::to_value(ending).ok();
            }
        });
        let failed =
            json!({ "kind": "refused", "os": 111, "attempts": [{ "addr": "10.0.0.1:81", "kind": "refused" }] });
        assert_eq!(
            written.expect("one was refused"),
            json!({
                "kind": { "failed": failed }, "first_fin": "neither", "peer": "10.0.0.1:81",
                "bytes_read": 0, "bytes_written": 0, "bytes_unsent": 0
            })
        );
    }

    #[test]
    fn metrics_are_data_with_the_failures_by_their_words() {
        let metrics = serde_json::to_value(conversation(|_| {}).metrics()).expect("data");
        assert_eq!(metrics["confirmed"], 2);
        assert_eq!(metrics["failed"], json!({ "refused: nothing listens there": 1 }));
        assert_eq!(metrics["live"], json!({}));
    }

    #[test]
    fn an_id_is_written_as_in_the_log() {
        let mut reactor = Reactor::with_net(Network::new(1).host(HERE));
        let id = reactor.connect((HERE, 81), ConnectOptions::default()).expect("begun");
        assert_eq!(serde_json::to_value(id).expect("data"), json!(id.to_string()));
    }
}

/// The transitions of a conversation as lines of `log`, with and without the feature `tracing`.
mod lines {
    use std::sync::Mutex;

    use super::*;

    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

    /// A logger that records what it gets.
    struct Keep;

    impl log::Log for Keep {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            LINES.lock().expect("no panic").push(format!("{} {}", record.target(), record.args()));
        }

        fn flush(&self) {}
    }

    pub(super) fn keep() {
        log::set_logger(&Keep).expect("there is no other");
        log::set_max_level(log::LevelFilter::Debug);
    }

    /// For all sockets.
    pub(super) const TRANSITIONS: usize = 18;

    /// For the client that is refused.
    const REFUSED: [&str; 4] = [
        "socket 1.2 client 10.0.0.1:81: Created -- Resolved -> Connecting [lookup] 0 read, 0 written",
        "socket 1.2 client 10.0.0.1:81: Connecting -- NextAddress -> Connecting [] 0 read, 0 written",
        "socket 1.2 client 10.0.0.1:81: Connecting -- ConnectFailed -> NotConnected [error] 0 read, 0 written",
        "socket 1.2 client 10.0.0.1:81: NotConnected -- CloseDue -> Closed [close] 0 read, 0 written",
    ];

    /// Each transition occurs once, and nothing else.
    #[track_caller]
    pub(super) fn expect() {
        let lines = LINES.lock().expect("no panic").clone();
        assert_eq!(lines.len(), TRANSITIONS, "{lines:#?}");
        assert!(lines.iter().all(|line| line.contains(" -- ")), "{lines:#?}");
        let parts = lines.iter().map(|line| line.split_once(" ms ").expect("a time"));
        let (times, rest): (Vec<_>, Vec<_>) = parts.unzip();
        assert!(times.iter().all(|time| time.starts_with("finale::report ")), "{lines:#?}");
        let refused: Vec<_> = rest.into_iter().filter(|line| line.contains("socket 1.2 ")).collect();
        assert_eq!(refused, REFUSED);
    }

    #[test]
    fn a_program_with_a_logger_gets_one_line_per_transition_with_and_without_tracing() {
        alone("features::lines::a_program_with_a_logger_gets_one_line_per_transition_with_and_without_tracing", || {
            keep();
            conversation(|_| {});
            expect();
        });
    }
}

#[cfg(feature = "tracing")]
mod tracing {
    use std::io;
    use std::sync::Mutex;

    use tracing_subscriber::filter::LevelFilter;
    use tracing_subscriber::util::SubscriberInitExt as _;

    use super::*;

    static EVENTS: Mutex<Vec<u8>> = Mutex::new(Vec::new());

    struct Keep;

    impl io::Write for Keep {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            EVENTS.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A subscriber that records what it gets, as one line of text per event.
    fn subscriber(level: LevelFilter) -> impl ::tracing::Subscriber + Send + Sync {
        tracing_subscriber::fmt().with_max_level(level).with_writer(|| Keep).with_ansi(false).without_time().finish()
    }

    fn events() -> String {
        String::from_utf8(EVENTS.lock().expect("no panic").clone()).expect("text")
    }

    /// Each transition and each ending occurs once.
    #[track_caller]
    fn expect_events() {
        let text = events();
        let count = |name: &str| text.lines().filter(|line| line.contains(name)).count();
        assert_eq!(count(" finale::report: transition "), lines::TRANSITIONS, "{text}");
        assert_eq!(count(" finale::report: close "), 3, "{text}");
        assert_eq!(text.lines().count(), lines::TRANSITIONS + 3, "{text}");
    }

    #[test]
    fn transitions_and_endings_are_events_with_fields() {
        alone("features::tracing::transitions_and_endings_are_events_with_fields", || {
            ::tracing::subscriber::set_global_default(subscriber(LevelFilter::DEBUG)).expect("there is no other");
            conversation(|_| {});
            expect_events();
            let text = events();
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
        });
    }

    #[test]
    fn a_logger_and_a_subscriber_get_all_both() {
        alone("features::tracing::a_logger_and_a_subscriber_get_all_both", || {
            lines::keep();
            ::tracing::subscriber::set_global_default(subscriber(LevelFilter::DEBUG)).expect("there is no other");
            conversation(|_| {});
            lines::expect();
            expect_events();
        });
    }

    #[test]
    fn a_subscriber_of_higher_levels_takes_no_line_from_the_logger() {
        alone("features::tracing::a_subscriber_of_higher_levels_takes_no_line_from_the_logger", || {
            lines::keep();
            ::tracing::subscriber::set_global_default(subscriber(LevelFilter::INFO)).expect("there is no other");
            conversation(|_| {});
            lines::expect();
            assert_eq!(events(), "");
        });
    }

    #[test]
    fn a_subscriber_that_also_gets_the_lines_of_log_gets_each_transition_once() {
        alone("features::tracing::a_subscriber_that_also_gets_the_lines_of_log_gets_each_transition_once", || {
            // This also makes the subscriber's LogTracer the logger.
            subscriber(LevelFilter::DEBUG).init();
            log::debug!(target: "a_program", "passed on");
            assert!(events().contains("passed on"));
            EVENTS.lock().expect("no panic").clear();
            conversation(|_| {});
            expect_events();
        });
    }
}
