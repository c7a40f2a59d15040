//! Many pools of one server: they don't connect at the same moment.

use std::collections::BTreeMap;
use std::time::Duration;

use finale::sim::{Host, Network, PeerListener, PeerSocket};
use finale::{ConnectOptions, Pool, PoolEvent, PoolOptions, Reactor};

use super::pool_scene::{HERE, SECOND, SERVER, THERE, ms};

/// Fifty clients with a pool of four each. They started together, and request nothing.
struct Herd {
    network: Network,
    listener: PeerListener,
    reactor: Reactor<Host>,
    pools: Vec<Pool>,
    /// The server's ends, while they are open.
    server: Vec<PeerSocket>,
    /// Connections accepted in each tenth of a second.
    accepted: BTreeMap<u128, usize>,
    /// Moments at which a pool had no socket ready.
    unready: usize,
}

const POOLS: usize = 50;
const EACH: usize = 4;

impl Herd {
    fn new(seed: u64, options: PoolOptions) -> Self {
        let network = Network::new(seed);
        let listener = network.peer(THERE).listen(SERVER).expect("a free port");
        let mut reactor = Reactor::with_net(network.host(HERE));
        let options = options.size(EACH);
        let pool = |_| Pool::new(SERVER, ConnectOptions::default(), options.clone()).expect("good options");
        let mut pools: Vec<Pool> = (0..POOLS).map(pool).collect();
        pools.iter_mut().for_each(|pool| pool.open(&mut reactor.context()));
        let mut herd =
            Self { network, listener, reactor, pools, server: Vec::new(), accepted: BTreeMap::new(), unready: 0 };
        herd.run(ms(50));
        assert_eq!((herd.server.len(), herd.unready), (POOLS * EACH, 1), "all together, at first");
        (herd.unready, herd.accepted) = (0, BTreeMap::new());
        herd
    }

    fn run(&mut self, time: Duration) {
        let until = self.network.now() + time;
        let mut is_ready = true;
        while let Some((mut socket, event)) = self.reactor.next_before(until).expect("it continues") {
            let handle = |pool: &mut Pool| pool.handle(&mut socket, &event) != PoolEvent::Foreign;
            assert!(self.pools.iter_mut().any(handle), "{event:?} is a pool's");
            let now_ready = self.pools.iter().all(|pool| pool.stats().ready > 0);
            self.unready += usize::from(is_ready && !now_ready);
            is_ready = now_ready;
            self.serve();
        }
        self.serve();
        let ready: usize = self.pools.iter().map(|pool| pool.stats().ready).sum();
        assert!(ready > POOLS * EACH * 9 / 10, "{ready} are ready");
    }

    fn serve(&mut self) {
        let new: Vec<_> = std::iter::from_fn(|| self.listener.accept()).collect();
        *self.accepted.entry(self.network.elapsed().as_millis() / 100).or_default() += new.len();
        self.server.extend(new);
        // The server finishes when a client does.
        for peer in self.server.extract_if(.., |peer| peer.has_fin()) {
            peer.close();
        }
    }

    /// The tenth of a second in which most were accepted.
    fn busiest(&self) -> usize {
        self.accepted.values().copied().max().unwrap_or(0)
    }
}

/// Without a spread all two hundred are replaced in one tenth of a second.
#[test]
fn sockets_that_were_opened_together_do_not_expire_together() {
    for options in [PoolOptions::default().max_age(2 * SECOND), PoolOptions::default().max_idle(2 * SECOND)] {
        let mut herd = Herd::new(3, options);
        herd.run(10 * SECOND);
        let (sum, busiest) = (herd.accepted.values().sum::<usize>(), herd.busiest());
        assert!((1000..2200).contains(&sum), "each lives one to two seconds: {sum}");
        assert!(busiest < 45, "{busiest} of 200 at once: {:?}", herd.accepted);
        assert_eq!(herd.unready, 0, "a pool never loses all its sockets at the same moment");
    }
}

#[test]
fn the_clients_of_a_server_that_is_restarted_do_not_return_at_the_same_moment() {
    let mut herd = Herd::new(3, PoolOptions::default().back_off(SECOND, 10 * SECOND));
    for peer in herd.server.drain(..) {
        peer.close();
    }
    herd.run(6 * SECOND);
    let (sum, busiest) = (herd.accepted.values().sum::<usize>(), herd.busiest());
    assert_eq!(sum, POOLS * EACH, "all return");
    assert!(busiest < 30, "{busiest} of 200 at once: {:?}", herd.accepted);
}

/// No seed is set: it comes from the network.
#[test]
fn a_simulated_run_is_the_same_each_time_and_its_pools_differ() {
    let run = |seed: u64| {
        let mut herd = Herd::new(seed, PoolOptions::default().max_idle(2 * SECOND));
        herd.run(5 * SECOND);
        herd.accepted
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}
