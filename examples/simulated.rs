//! A protocol on a simulated network, with a loop of its own: a server, a client that works, and
//! one whose machine is lost in the middle of a line. A minute of silence takes no time here. Run
//! it: `cargo run --example simulated`. The guide to it: docs/guides/testing.md.

#[path = "lines/server.rs"]
mod server;

use std::net::IpAddr;
use std::time::Duration;

use finale::sim::{Network, Script};
use finale::{Event, ListenOptions, Reactor};
use server::Lines;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The seed decides everything that is left to chance: the same seed repeats the run.
    let network = Network::new(1);
    let [here, works, lost]: [IpAddr; 3] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into(), [10, 0, 0, 3].into()];
    let mut reactor = Reactor::with_net(network.host(here));
    let listener = reactor.listen((here, 80), server::options(ListenOptions::default()))?;

    // Peers without a reactor. Each does what its script says, by itself.
    let polite = Script::new().send(b"hello\n").receive(6).finish().receive_end();
    let polite = network.peer(works).play(listener.addr, polite)?;
    let dies = Script::new().send(b"hel").wait(Duration::from_secs(1)).vanish();
    network.peer(lost).play(listener.addr, dies)?;

    let mut lines = Lines::default();
    let mut closed = 0;
    while closed < 2
        && let Some((mut socket, event)) = reactor.next()?
    {
        lines.handle(&mut socket, event);
        if let Event::Close(ending) = event {
            closed += 1;
            println!("after {:?}: {ending}", network.elapsed());
        }
    }
    assert_eq!(polite.received(), b"HELLO\n");
    assert!(polite.has_end() && polite.undone().is_none(), "every step was done");
    assert!(lines.clients.is_empty(), "nothing is left of either client");
    println!("{} system calls", network.calls());
    Ok(())
}
