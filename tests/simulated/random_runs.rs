//! The shipped reactor on the simulated network: the lesson's conversation, and random programs
//! under random faults.
//!
//! `FINALE_SEEDS=0..100000` runs more seeds; `finale sim --replay SEED` prints the transcript of
//! one.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use finale::check::chaos;
use finale::lifecycle::{Coverage, Input, State};
use finale::sim::{Fault, Network};
use finale::{ConnectOptions, Event, ListenOptions, Reactor};

fn name(event: &Event<'_>) -> &'static str {
    match event {
        Event::Lookup(_) => "lookup",
        Event::Connect => "connect",
        Event::Ready => "ready",
        Event::Connection => "connection",
        Event::Data(_) => "data",
        Event::End => "end",
        Event::Error(_) => "error",
        Event::Close(_) => "close",
        _ => "other",
    }
}

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[test]
fn the_lessons_conversation_has_the_same_story_on_the_simulated_network() -> Result<(), finale::Error> {
    let network = Network::new(1);
    network.set_latency(Duration::ZERO);
    let mut reactor = Reactor::with_net(network.host(HOME));
    let listener = reactor.listen((HOME, 0), ListenOptions::default())?;
    let client = reactor.connect(listener.addr, ConnectOptions::default())?;
    let mut story = Vec::new();
    while let Some((mut socket, event)) = reactor.next()? {
        let who = if socket.id() == client { "client" } else { "server" };
        if !matches!(event, Event::Timer(_)) {
            story.push(format!("{who} {}", name(&event)));
        }
        match event {
            Event::Ready => {
                socket.write(b"Hello from client\n")?;
                reactor.set_timer(Duration::from_millis(50));
            }
            Event::Timer(_) => reactor.socket(client).expect("the client lives").end(),
            Event::End if who == "server" => {
                socket.write(b"Server's final message\n")?;
                socket.end();
            }
            Event::Close(ending) => {
                assert!(ending.is_acknowledged(), "{ending}");
                if who == "client" {
                    reactor.close_listener(listener.id)?;
                }
            }
            _ => {}
        }
    }
    let expected = [
        "client lookup",
        "client connect",
        "client ready",
        "server connection",
        "server data",
        "server end",
        "client data",
        "client end",
        "server close",
        "client close",
    ];
    assert_eq!(story, expected);
    assert_eq!(network.elapsed(), Duration::from_millis(50), "nothing waited for anything else");
    Ok(())
}

/// Seeds of every test run.
fn seeds() -> std::ops::Range<u64> {
    let range = std::env::var("FINALE_SEEDS").unwrap_or_else(|_| "0..2000".into());
    let (from, to) = range.split_once("..").expect("FINALE_SEEDS is FROM..TO");
    from.parse().expect("a number")..to.parse().expect("a number")
}

/// Runs one seed; a broken rule fails the test with the transcript.
fn run(seed: u64, preferred: Option<Fault>) -> chaos::Outcome {
    let outcome = chaos::run(seed, preferred);
    if let Some(violation) = &outcome.violation {
        let fault = preferred.map_or(String::new(), |fault| format!(" --fault {}", fault.name()));
        let (_, transcript) = chaos::run_with_transcript(seed, preferred);
        panic!("seed {seed} broke {violation}\n{transcript}\nagain: finale sim --replay {seed}{fault}");
    }
    outcome
}

/// Transitions that no run can take, and why.
const NEVER: [(State, Input, &str); 1] = [(
    State::Created,
    Input::Expired,
    "a new socket is begun in the turn after, before any timer; only a real clock can pass its limit in between",
)];

/// Transitions that the seeds of a quick test don't take, each with a seed that does. Another one is
/// found by `FINALE_SEEDS=0..100000`, which names it.
const RARE: [(State, Input, u64); 3] = [
    (State::Resolving, Input::DestroyCalled, 3750),
    (State::Flushing, Input::Reset, 4180),
    (State::LastFlush, Input::DestroyCalled, 4267),
];

#[test]
fn whatever_happens_every_socket_lives_by_the_rules_and_every_transition_is_taken() {
    let mut coverage = Coverage::default();
    let mut rare_in = [None; RARE.len()];
    for seed in seeds() {
        let outcome = run(seed, None);
        for ((state, input, _), found) in RARE.iter().zip(&mut rare_in) {
            *found = found.or_else(|| (outcome.coverage.count(*state, *input) > 0).then_some(seed));
        }
        coverage.add(&outcome.coverage);
    }
    for ((state, input, seed), found) in RARE.into_iter().zip(rare_in) {
        let rare = run(seed, None).coverage;
        assert!(
            rare.count(state, input) > 0,
            "seed {seed} does not take {state:?} x {input:?}; one that does: {found:?}"
        );
        coverage.add(&rare);
    }
    let is_possible = |state, input| NEVER.iter().all(|never| (never.0, never.1) != (state, input));
    let mut missing = Coverage::of_the_table(true).filter(|&(state, input)| is_possible(state, input));
    let missing = missing.find(|(state, input)| coverage.count(*state, *input) == 0);
    assert_eq!(missing, None, "never taken");
}

#[test]
fn a_limit_that_is_due_while_a_read_lacks_memory_leaves_no_bytes_of_a_dead_connection() {
    run(315_663, None);
}

#[test]
fn the_timer_of_a_dropped_pool_does_not_fire_in_the_same_turn() {
    run(775_106, None);
}

#[test]
fn a_side_without_a_source_whose_last_bytes_are_sent_is_destroyed_before_its_own_source_continues() {
    run(454_315, None);
}

#[test]
fn what_fills_the_queue_of_a_dead_connection_again_is_drained_after_the_notice() {
    run(50_764, None);
}

#[test]
fn what_the_attempts_of_a_race_report_is_not_the_end_of_the_connection() {
    run(839_239, None);
    run(859_999, None);
}

#[test]
fn a_late_flag_of_a_closed_attempt_is_no_fin_of_the_winners_peer() {
    run(260_282, None);
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in 0..200 {
        let (one, story) = chaos::run_with_transcript(seed, None);
        let (other, again) = chaos::run_with_transcript(seed, None);
        assert_eq!((one.digest, story), (other.digest, again), "seed {seed}");
    }
    assert_ne!(chaos::run(1, None).digest, chaos::run(2, None).digest, "and another another");
}

#[test]
fn every_fault_of_the_catalogue_that_can_be_played_strikes_when_it_is_favoured() {
    for &fault in Fault::ALL {
        let struck = (0..3000).any(|seed| run(seed, Some(fault)).faults.count(fault) > 0);
        assert!(struck, "{} ({}) did not strike", fault.name(), fault.id());
    }
}
