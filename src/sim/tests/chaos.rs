//! Random calls in random order, under all faults. Nothing may panic, and nothing may stay open.

use super::*;

const SLOTS: u64 = 6;

#[test]
fn whatever_is_called_in_whatever_order_leaves_nothing_behind() {
    for seed in 0..500 {
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let network = Network::new(seed);
        network.set_buffers(1 + rng.below(3000) as usize, 1 + rng.below(3000) as usize);
        network.set_faults(Faults::random(&mut rng));
        let mut hosts = [network.host(SERVER), network.host(CLIENT)];
        let mut peers = Vec::new();
        hosts[0].listen(0, AT, &ListenOptions::default().backlog(2)).expect("free");
        for _ in 0..300 {
            let which = rng.below(2) as usize;
            call(&network, &mut hosts[which], &mut rng);
            script(&network, &mut peers, &mut rng);
        }
        network.heal(CLIENT);
        drop(hosts);
        peers.drain(..).for_each(PeerSocket::reset);
        network.advance(Duration::from_secs(3600));
        assert_eq!((network.open_connections(), network.descriptors()), (0, 0), "seed {seed}");
        assert_eq!(network.next_event(), None, "seed {seed}");
    }
}

/// Makes one call; the results are not checked, for any may be right.
fn call(network: &Network, host: &mut Host, rng: &mut Rng) {
    let slot = rng.below(SLOTS) as u32;
    let token = Token { index: slot, generation: 1 };
    let mut buffer = [0; 700];
    let options = match rng.below(3) {
        0 => ConnectOptions::default().keep_alive(KeepAlive { idle: SECOND, interval: SECOND, count: 2 }),
        1 => ConnectOptions::default().user_timeout(SECOND),
        _ => ConnectOptions::default(),
    };
    let free = host.local_addr(slot).is_err();
    match rng.below(16) {
        0 | 1 if free => drop(host.connect(slot, token, AT, &options.system, None)),
        2 | 3 if free => drop(host.accept(0, slot)),
        4 => drop(host.register(slot, token)),
        5..=7 => drop(host.send(slot, &buffer, rng.chance(0.1))),
        8..=10 => drop(host.recv(slot, &mut buffer)),
        11 => drop(host.finish(slot)),
        12 if rng.chance(0.3) => host.close(slot),
        13 if rng.chance(0.3) => host.reset(slot),
        14 if rng.chance(0.05) => host.unlisten(0),
        14 => drop(host.take_error(slot)),
        _ => {
            let wait = Duration::from_micros(rng.below(50_000));
            host.poll(host.now(), Some(wait), &mut |_, _| ()).expect("a wait with an end is no deadlock");
        }
    }
    match rng.below(200) {
        0 => network.vanish(CLIENT),
        1 => network.forget(CLIENT),
        2..=9 => network.heal(CLIENT),
        _ => {}
    }
}

fn script(network: &Network, peers: &mut Vec<PeerSocket>, rng: &mut Rng) {
    if rng.chance(0.03) {
        peers.extend(network.peer(CLIENT).connect(AT));
    }
    if peers.is_empty() {
        return;
    }
    let index = rng.below(peers.len() as u64) as usize;
    match rng.below(12) {
        0 | 1 => peers[index].send(&[9; 500]),
        2 => peers[index].finish(),
        3..=5 => drop(peers[index].read()),
        6 => peers[index].send_urgent(),
        7 if rng.chance(0.3) => peers.swap_remove(index).close(),
        8 if rng.chance(0.3) => peers.swap_remove(index).reset(),
        _ => {}
    }
}
