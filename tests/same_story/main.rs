//! The simulated network gives the same events as Linux. Each script is played twice: by a reactor
//! and a scripted peer on the simulated network, and by the same reactor and a socket of the
//! machine on loopback. The events, the endings, and what the peer sees are compared each time when
//! everything has settled. `docs/simulation.md` lists what is left out, and why.
//!
//! More seeds: `FINALE_SEEDS=0..20000 cargo test --test same_story`.

mod play;
mod remote;
mod script;
mod scripts;

use std::ops::Range;
use std::time::Duration;

use finale::Reactor;
use finale::sim::Network;

use play::{Settled, play};
use remote::{LOOPBACK, RealPeer, SimulatedPeer};
use script::{Script, random};

/// Linux on a busy machine can be late with a packet, even on loopback; it does not differ twice in
/// the same way.
const TRIES: usize = 5;

/// Differences after which a test gives up: each takes all its tries.
const SHOWN: usize = 5;

/// The random scripts of a run without FINALE_SEEDS.
const SEEDS: Range<u64> = 0..400;

fn simulated(script: &Script) -> Vec<Settled> {
    let network = Network::new(1);
    network.set_latency(Duration::ZERO);
    play(Reactor::with_net(network.host(LOOPBACK)), SimulatedPeer::new(&network), script, None)
}

fn on_linux(script: &Script, expected: &[Settled]) -> Vec<Settled> {
    play(Reactor::new().expect("a machine with epoll"), RealPeer::default(), script, Some(expected))
}

/// Plays a script on both networks. Returns the difference, if there is one that stays, and how
/// often the script was played on Linux.
fn compare(script: &Script) -> (Option<String>, usize) {
    let expected = simulated(script);
    let mut tries = 0;
    loop {
        let story = on_linux(script, &expected);
        tries += 1;
        if story == expected {
            return (None, tries);
        }
        if tries == TRIES {
            return (Some(columns(script, &story, &expected)), tries);
        }
    }
}

/// The two transcripts, from where they differ.
fn columns(script: &Script, linux: &[Settled], simulated: &[Settled]) -> String {
    let mut text = format!("{}: {:?} {:?}\n", script.name, script.role, script.options);
    let nothing = Settled { after: String::new(), told: vec![], state: String::new(), peer: Default::default() };
    for at in 0..linux.len().max(simulated.len()) {
        let (one, other) = (linux.get(at).unwrap_or(&nothing), simulated.get(at).unwrap_or(&nothing));
        text += &format!("  {}\n", if one.after.is_empty() { &other.after } else { &one.after });
        if one != other {
            for (name, it) in [("Linux", one), ("simulated", other)] {
                text += &format!("    {name}: {}; {:?}\n", it.state, it.peer);
                text.extend(it.told.iter().map(|line| format!("        {line}\n")));
            }
            return text;
        }
    }
    text
}

fn compare_all(scripts: impl Iterator<Item = Script>) {
    let (mut bad, mut count, mut repeated) = (Vec::new(), 0, 0);
    for script in scripts {
        let (difference, tries) = compare(&script);
        bad.extend(difference);
        count += 1;
        repeated += tries - 1;
        if bad.len() == SHOWN {
            break;
        }
    }
    println!("{count} scripts, {repeated} repeated on Linux");
    assert!(bad.is_empty(), "{} of {count} scripts differ:\n{}", bad.len(), bad.join("\n"));
}

#[test]
fn every_kind_of_ending_is_told_alike_on_both_networks() {
    let scripts = scripts::all();
    assert!(scripts.len() >= 40);
    compare_all(scripts.into_iter());
}

#[test]
fn random_scripts_are_told_alike_on_both_networks() {
    let seeds = std::env::var("FINALE_SEEDS").map_or(SEEDS, |text| {
        let parsed = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
        parsed.expect("FINALE_SEEDS=A..B")
    });
    println!("seeds {seeds:?}");
    compare_all(seeds.map(random));
}
