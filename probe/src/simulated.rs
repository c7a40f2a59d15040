//! Probing a server on finale's simulated network, in virtual time.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use finale::sim::{Host, Network};
use finale::trace::{KernelView, Recorder, Traced};
use finale::{ConnectOptions, Context, Error, Event, Reactor, Socket, SocketId};

use crate::engine::{Engine, RECORDS};
use crate::options::Options;
use crate::report::Report;
use crate::run::{ProbeError, Progress, probe_with};

/// Probes a server on a simulated network, from a machine of its own. The server is a script
/// ([`PeerListener::play_each`](finale::sim::PeerListener::play_each)): nothing runs beside the
/// probe but the network. Minutes of virtual time take moments, and each run is the same.
///
/// # Errors
/// [`ProbeError`] if there is nothing that could be judged.
///
/// ```
/// use finale::sim::{Network, Script};
/// use finale_probe::{Options, Verdict, probe_simulated};
/// let network = Network::new(1);
/// let server = network.peer([10, 0, 0, 1].into()).listen("10.0.0.1:80".parse().unwrap()).expect("a free port");
/// server.play_each(Script::new().receive(6).send(b"hello\n").finish().receive_end());
/// let mut options = Options::new("hello\n");
/// options.cases = vec!["half-close".to_owned()];
/// let report = probe_simulated(&network, [10, 0, 0, 2].into(), "10.0.0.1:80".parse().unwrap(), &options, |_| {})?;
/// assert_eq!(report.cases[0].verdict, Verdict::Pass);
/// # Ok::<(), finale_probe::ProbeError>(())
/// ```
pub fn probe_simulated(
    network: &Network,
    client: IpAddr,
    server: SocketAddr,
    options: &Options,
    progress: impl FnMut(Progress<'_>),
) -> Result<Report, ProbeError> {
    let engine = || Ok(Box::new(Simulated::new(network, client)) as Box<dyn Engine>);
    probe_with(&server.to_string(), &[server], options, engine, progress)
}

/// A machine of the simulated network.
struct Simulated {
    network: Network,
    reactor: Reactor<Traced<Host>>,
    recorder: Recorder,
}

/// A server whose packets have passed no router: above this it is not heard.
const TTL: u8 = 64;

impl Simulated {
    fn new(network: &Network, client: IpAddr) -> Self {
        let recorder = Recorder::new(RECORDS);
        // The recorder of the network stays the program's.
        let reactor = Reactor::with_net(recorder.around(network.host(client)));
        Self { network: network.clone(), reactor, recorder }
    }
}

impl Engine for Simulated {
    fn now(&self) -> Instant {
        self.network.now()
    }

    fn connect(&mut self, target: SocketAddr, options: ConnectOptions) -> Result<SocketId, Error> {
        self.reactor.connect(target, options)
    }

    fn next_before(&mut self, deadline: Instant) -> Result<Option<(Socket<'_>, Event<'_>)>, Error> {
        self.reactor.next_before(deadline)
    }

    fn socket(&mut self, id: SocketId) -> Option<Socket<'_>> {
        self.reactor.socket(id)
    }

    fn context(&mut self) -> Context<'_> {
        self.reactor.context()
    }

    fn kernel_view(&mut self, id: SocketId) -> Option<KernelView> {
        self.reactor.kernel_view(id)
    }

    fn set_min_ttl(&mut self, id: SocketId, peer: SocketAddr, ttl: u8) -> io::Result<()> {
        let local = self.reactor.local_addr(id).ok_or(io::ErrorKind::NotConnected)?;
        match self.network.set_deaf(local, peer, ttl > TTL) {
            true => Ok(()),
            false => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// No time passes while a program turns.
    fn shortest_wait(&self) -> Duration {
        Duration::ZERO
    }

    fn wake_at(&mut self, time: Instant) {
        // There is nothing that a timer could be late for.
        self.network.advance(time.saturating_duration_since(self.network.now()));
    }

    fn recorder(&self) -> &Recorder {
        &self.recorder
    }
}
