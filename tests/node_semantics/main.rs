//! The behaviours of Node's `net`, row by row (docs/node.md): what a finale socket does in each
//! situation. A test's doc comment begins with its row. On the simulated network, where time and
//! endings are exact.

mod connecting;
mod destroying;
mod ends;
mod flow;
mod orders;
mod resets;
mod servers;
mod states;
mod timeouts;
mod unix;

use std::net::SocketAddr;
use std::time::Duration;

use finale::sim::{Host, Network};
use finale::{ConnectOptions, Ending, Event, ListenOptions, Reactor, Socket, SocketId};
use support::scene::{HERE, THERE};

const SECOND: Duration = Duration::from_secs(1);
/// Where scripted peers listen.
const AT: SocketAddr = SocketAddr::new(THERE, 80);

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A client C and a server S in one reactor, and their events: `C` or `S` in front of each line.
struct Pair {
    network: Network,
    reactor: Reactor<Host>,
    client: SocketId,
    server: Option<SocketId>,
    lines: Vec<String>,
    endings: Vec<(char, Ending)>,
}

/// The side that a line belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    C,
    S,
}

impl Pair {
    fn new(listen: ListenOptions, connect: ConnectOptions) -> Self {
        let network = Network::new(11);
        let mut reactor = Reactor::with_net(network.host(HERE));
        let listener = reactor.listen((HERE, 80), listen).expect("a free port");
        let client = reactor.connect(listener.addr, connect).expect("a good target");
        Self { network, reactor, client, server: None, lines: Vec::new(), endings: Vec::new() }
    }

    /// Runs for this long. `act` handles every event.
    fn run(&mut self, time: Duration, mut act: impl FnMut(Who, &mut Socket<'_>, &Event<'_>)) -> &mut Self {
        let until = self.network.now() + time;
        while let Some((mut socket, event)) = self.reactor.next_before(until).expect("it continues") {
            let who = if socket.id() == self.client { Who::C } else { Who::S };
            if let Event::Connection = event {
                self.server = Some(socket.id());
            }
            if let Event::Close(ending) = event {
                self.endings.push((format!("{who:?}").chars().next().expect("a letter"), ending.clone()));
            }
            self.lines.push(format!("{who:?} {}", words(&event)));
            act(who, &mut socket, &event);
        }
        self
    }

    /// The lines of one of the two.
    fn of(&self, who: Who) -> Vec<&str> {
        let prefix = format!("{who:?} ");
        self.lines.iter().filter_map(|line| line.strip_prefix(&prefix)).collect()
    }

    fn ending(&self, who: Who) -> &Ending {
        let letter = format!("{who:?}").chars().next().expect("a letter");
        &self.endings.iter().find(|(whose, _)| *whose == letter).expect("it has closed").1
    }

    fn server(&mut self) -> Socket<'_> {
        self.reactor.socket(self.server.expect("accepted")).expect("it lives")
    }

    fn client(&mut self) -> Socket<'_> {
        self.reactor.socket(self.client).expect("it lives")
    }
}

/// Does nothing in any event.
fn idle(_: Who, _: &mut Socket<'_>, _: &Event<'_>) {}

fn words(event: &Event<'_>) -> String {
    match event {
        Event::Data(bytes) => format!("data {}", String::from_utf8_lossy(bytes)),
        Event::Lookup(ip) => format!("lookup {ip}"),
        Event::Error(failure) => format!("error {failure}"),
        Event::Close(_) => "close".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn write(socket: &mut Socket<'_>, bytes: &[u8]) {
    socket.write(bytes).expect("open for writing");
}
