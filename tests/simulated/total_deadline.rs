//! One deadline from the call of `connect` to the answer, whatever the connection is doing
//! meanwhile.

use std::time::Duration;

use finale::sim::{Network, Reach, Script};
use finale::{ConnectOptions, ConnectionErrorKind, EndingKind, Event, LookupErrorKind, Reactor, TimeoutKind};

const HERE: [u8; 4] = [10, 0, 0, 1];
const THERE: [u8; 4] = [10, 0, 0, 2];

/// How one connection to `host` ends, and when, in milliseconds after the call of `connect`.
fn ends(
    network: &Network,
    host: &str,
    options: ConnectOptions,
    on_event: impl Fn(&mut finale::Socket<'_>, Event<'_>),
) -> (EndingKind, u64) {
    let mut reactor = Reactor::with_net(network.host(HERE.into()));
    reactor.set_timer(Duration::from_micros(300));
    assert!(matches!(reactor.next(), Ok(Some((_, Event::Timer(_))))), "the call is not at a whole tick");
    let before = network.now();
    let id = reactor.connect(host, options).expect("good options");
    on_event(&mut reactor.socket(id).expect("it lives"), Event::Woken);
    let mut end = None;
    while let Some((mut socket, event)) = reactor.next().expect("the network can wait") {
        if let Event::Close(ending) = event {
            end = Some((ending.kind.clone(), (network.now() - before).as_millis() as u64));
        }
        on_event(&mut socket, event);
    }
    end.expect("each socket closes")
}

fn is_deadline(how: &EndingKind) -> bool {
    matches!(how, EndingKind::Failed(failure) if failure.kind == ConnectionErrorKind::TimedOut(TimeoutKind::Deadline))
}

/// A lookup without an answer, a handshake without one, a server that stays silent, one that sends
/// without a pause.
fn each_phase(mut check: impl FnMut(&Network, &str, &str)) {
    for phase in ["lookup", "handshake", "silence", "flood"] {
        let network = Network::new(1);
        let host = match phase {
            "lookup" => {
                network.name_hangs("slow.example");
                "slow.example:80"
            }
            _ => "10.0.0.2:80",
        };
        if phase == "handshake" {
            network.set_reach(THERE.into(), Reach::BlackHole);
        }
        let listener =
            network.peer(THERE.into()).listen("10.0.0.2:80".parse().expect("an address")).expect("a free port");
        match phase {
            "silence" => drop(listener.play(Script::new().wait(Duration::from_secs(60)))),
            "flood" => {
                let drip = |script: Script, _| script.send(b"x").wait(Duration::from_millis(1));
                drop(listener.play((0..2000).fold(Script::new(), drip)));
            }
            _ => {}
        }
        check(&network, host, phase);
    }
}

#[test]
fn the_total_deadline_ends_a_connection_at_its_time_in_each_phase() {
    each_phase(|network, host, phase| {
        let options = ConnectOptions::default().total_deadline(Duration::from_millis(700));
        let (how, after_ms) = ends(network, host, options, |_, _| {});
        assert!(is_deadline(&how), "{phase}: {how:?}");
        assert!((700..=702).contains(&after_ms), "{phase}: after {after_ms} ms");
    });
}

#[test]
fn a_deadline_that_is_set_while_connecting_counts_from_its_call() {
    each_phase(|network, host, phase| {
        let options =
            ConnectOptions::default().total_deadline(Duration::from_millis(10)).deadline(Duration::from_millis(20));
        let (how, after_ms) = ends(network, host, options, |socket, event| {
            if event == Event::Woken {
                socket.set_deadline(Duration::from_millis(500));
            }
        });
        assert!(is_deadline(&how), "{phase}: {how:?}");
        assert!((500..=502).contains(&after_ms), "{phase}: after {after_ms} ms");
    });
}

#[test]
fn with_both_deadlines_the_earlier_ends_the_connection() {
    // The handshake takes 2 ms: one counts from the call, the other from its end.
    for (total_ms, own_ms, expected_ms) in [(700, 300, 302), (300, 700, 300), (301, 298, 300)] {
        let network = Network::new(1);
        let _kept = network.peer(THERE.into()).listen("10.0.0.2:80".parse().expect("an address")).expect("a free port");
        let options = ConnectOptions::default()
            .total_deadline(Duration::from_millis(total_ms))
            .deadline(Duration::from_millis(own_ms));
        let (how, after_ms) = ends(&network, "10.0.0.2:80", options, |_, _| {});
        assert!(is_deadline(&how), "{how:?}");
        assert!((expected_ms..=expected_ms + 1).contains(&after_ms), "{total_ms}, {own_ms}: after {after_ms} ms");
    }
}

#[test]
fn a_deadline_that_is_removed_while_connecting_is_that_of_no_option() {
    let network = Network::new(1);
    let script = Script::new().wait(Duration::from_secs(2)).finish();
    let _play = network
        .peer(THERE.into())
        .listen("10.0.0.2:80".parse().expect("an address"))
        .expect("a free port")
        .play(script);
    let limit = Some(Duration::from_millis(50));
    let (how, _) = ends(
        &network,
        "10.0.0.2:80",
        ConnectOptions::default().total_deadline(limit).deadline(limit),
        |socket, event| match event {
            Event::Woken => socket.set_deadline(None),
            Event::End => socket.end(),
            _ => {}
        },
    );
    assert_eq!(how, EndingKind::Confirmed);
}

#[test]
fn a_resolver_that_blocks_holds_up_neither_destroy_nor_the_drop_of_the_reactor() {
    let (answer, question) = std::sync::mpsc::channel::<()>();
    let question = std::sync::Mutex::new(question);
    let mut reactor = Reactor::new().expect("a machine with epoll");
    reactor.set_resolver(move |_, _| {
        let _ = question.lock().expect("one thread panics for all").recv();
        Err(LookupErrorKind::NotFound)
    });
    let first = reactor.connect("slow.example:80", ConnectOptions::default()).expect("good options");
    reactor.connect("slower.example:80", ConnectOptions::default()).expect("good options");
    let timer = reactor.set_timer(Duration::from_millis(10));
    loop {
        let (mut socket, event) = reactor.next().expect("it can wait").expect("sockets live");
        match event {
            Event::Timer(id) if id == timer => socket.get(first).expect("it is looked up").destroy(),
            Event::Close(ending) => {
                assert_eq!((socket.id(), &ending.kind), (first, &EndingKind::Destroyed));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    drop(reactor); // With a lookup that has no answer.
    drop(answer);
}

#[test]
fn the_total_deadline_counts_from_the_call_also_if_the_handler_goes_on_for_long() {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host(HERE.into()));
    let _kept = network.peer(THERE.into()).listen("10.0.0.2:80".parse().expect("an address")).expect("a free port");
    let before = network.now();
    let options = ConnectOptions::default().total_deadline(Duration::from_millis(500));
    reactor.connect("10.0.0.2:80", options).expect("good options");
    network.advance(Duration::from_millis(300));
    while let Some((_, event)) = reactor.next().expect("the network can wait") {
        if let Event::Close(_) = event {
            assert!((500..=502).contains(&(network.now() - before).as_millis()));
        }
    }
}
