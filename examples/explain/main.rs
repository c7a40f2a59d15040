//! What each kind of ending means, and what to do about it. It causes the endings on a simulated
//! network. Run it: `cargo run --example explain`. The guide to it: docs/guides/endings.md.

mod explain;

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use explain::explain;
use finale::sim::{Host, Network, Reach, Script};
use finale::{CloseMode, ConnectOptions, Ending, Event, ListenOptions, Reactor};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
const SECOND: Duration = Duration::from_secs(1);

fn main() {
    if let Err(error) = run() {
        eprintln!("explain: {error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let polite = || Script::new().finish().receive_end();
    for ending in [
        of_a_server(ListenOptions::default(), polite())?,
        of_a_server(ListenOptions::default().close_mode(CloseMode::HandOff), polite())?,
        of_a_server(ListenOptions::default().idle_timeout(SECOND), Script::new().stop_reading())?,
        of_a_server(ListenOptions::default(), Script::new().send(b"GET /").reset())?,
        of_a_server(ListenOptions::default().deadline(SECOND), Script::new().stop_reading())?,
        of_a_server(ListenOptions::default(), Script::new().wait(SECOND).finish().wait(SECOND / 600).vanish())?,
        of_a_client(Some(Reach::BlackHole), "10.0.0.2:80")?,
        of_a_client(None, "10.0.0.2:80")?,
        of_a_client(Some(Reach::Unreachable), "10.0.0.2:80")?,
        of_a_client(None, "nowhere.example:80")?,
    ] {
        let (meaning, advice) = explain(&ending);
        // `println!` would panic when the reader has left, as `head` does.
        writeln!(io::stdout(), "{ending}\n    It means: {meaning}.\n    Do: {advice}.")?;
    }
    Ok(())
}

/// The ending of a server's only connection. The server finishes when its client has, and resets a
/// client that is idle.
fn of_a_server(options: ListenOptions, script: Script) -> Result<Ending, finale::Error> {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host(HERE));
    let listener = reactor.listen((HERE, 80), options)?;
    let _client = network.peer(THERE).play(listener.addr, script).expect("there is a way");
    ending(&mut reactor)
}

/// The ending of a client's only connection, to an address without a listener.
fn of_a_client(reach: Option<Reach>, target: &str) -> Result<Ending, finale::Error> {
    let network = Network::new(1);
    network.name_fails("nowhere.example", finale::LookupErrorKind::NotFound);
    if let Some(reach) = reach {
        network.set_reach(THERE, reach);
    }
    let mut reactor = Reactor::with_net(network.host(HERE));
    reactor.connect(target, ConnectOptions::default().local_addr(SocketAddr::from((HERE, 0))))?;
    ending(&mut reactor)
}

fn ending(reactor: &mut Reactor<Host>) -> Result<Ending, finale::Error> {
    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::End => socket.end(),
            Event::Timeout => socket.destroy(),
            Event::Close(ending) => return Ok(ending.clone()),
            _ => {}
        }
    }
    Err(finale::Error::Gone)
}
