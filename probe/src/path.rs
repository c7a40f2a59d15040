//! The way to the server, and what this machine has for it: facts that no verdict can do without.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};

use crate::baseline::{QUIET, polite};
use crate::report::{Path, micros};
use crate::session::{Broken, Open, Session};

/// Fewer free descriptors than this are not enough for the cases.
const FEWEST: u64 = 64;
/// Steps of the search for the TTL.
const STEPS: u32 = 9;
/// An acknowledgement is late after this time and three round trips: systems delay it by up to 200
/// ms.
const ACK: Duration = Duration::from_millis(250);
/// Without a router, on one network, a handshake takes less.
const NEAR: Duration = Duration::from_millis(2);

/// How many connections this process can have: a descriptor and a port for each.
pub(crate) fn own_room() -> Result<usize, Broken> {
    let own = |error: &dyn std::fmt::Display| Broken::Own(format!("the limit of descriptors is not known: {error}"));
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| own(&error))?;
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    let free = limit.saturating_sub(open);
    if free < FEWEST {
        let reason = format!(
            "this process may open only {free} further descriptors, and the probe needs {FEWEST}: raise the limit of \
             {limit} (ulimit -n)"
        );
        return Err(Broken::Own(reason));
    }
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    Ok(usize::try_from(free.min(ports(&range))).unwrap_or(usize::MAX))
}

/// The number of ports for connections, from the two of `ip_local_port_range` (ip(7)).
fn ports(range: &str) -> u64 {
    let mut bounds = range.split_whitespace().filter_map(|bound| bound.parse::<u64>().ok());
    match (bounds.next(), bounds.next()) {
        (Some(first), Some(last)) if last >= first => last - first + 1,
        // RFC 6335 section 6: the dynamic ports.
        _ => 16_384,
    }
}

/// The way to the server: its round trip, whether deafness works on it, the TTL of its packets.
pub(crate) fn measure(session: &mut Session) -> Result<Path, Broken> {
    // What was not acknowledged was not heard: a missing answer would only show a slow server.
    let works = passes(session, 255)? == Some(false);
    session.can_be_deaf = works;
    let ttl = if works { find_ttl(session)? } else { None };
    session.hops = ttl.map(hops);
    session.clear()?;
    let _ = polite(session)?;
    let round_trip = session.round_trip.unwrap_or_default();
    let round_trip_us = micros(round_trip);
    Ok(Path { ttl, round_trip_us, can_be_deaf: works, between: between(session, ttl, round_trip) })
}

/// The TTL of the packets that arrive, by bisection: a kernel drops those with a lower one than its
/// option says (ip(7): IP_MINTTL). `None` if it is not found in [`STEPS`].
fn find_ttl(session: &mut Session) -> Result<Option<u8>, Broken> {
    // 255 was deaf.
    let (mut at_least, mut below) = (1, 255);
    for _ in 0..STEPS {
        if below - at_least == 1 {
            break;
        }
        let tried = next_ttl(at_least, below);
        match passes(session, tried)? {
            Some(true) => at_least = tried,
            Some(false) => below = tried,
            None => return Ok(None),
        }
    }
    Ok((below - at_least == 1).then_some(at_least))
}

/// What to try next. Systems send with 64, 128 or 255 (RFC 1700 names 64), and the routers on a way
/// are few: without one a search takes two or four steps.
const fn next_ttl(at_least: u8, below: u8) -> u8 {
    match (at_least, below) {
        (1, 255) => 64,
        (1, 64) => 48,
        (64, 255) => 65,
        (65, 255) => 129,
        (65, 129) => 128,
        (65, 128) => 112,
        (129, 255) => 240,
        _ => at_least + (below - at_least) / 2,
    }
}

/// Whether packets arrive on a connection that drops those with a lower TTL. The acknowledgement of
/// a request shows it: a kernel sends it soon, and the answer may take its time. `None`: there was
/// no connection.
fn passes(session: &mut Session, ttl: u8) -> Result<Option<bool>, Broken> {
    let client = session.open(&Open::default())?;
    if session.seen(client).has_ended() || !session.set_min_ttl(client, ttl) {
        return Ok(None);
    }
    let (id, request) = (session.seen(client).id, session.options.request.clone());
    session.send(client, &request);
    // The request must have left before nothing unacknowledged means something.
    session.wait(Duration::ZERO)?;
    let limit = ACK + session.round_trip.unwrap_or_default() * 3;
    let passed = session.wait_until(limit, |session| {
        session.seen(client).answer.bytes > 0 || session.engine.kernel_view(id).is_none_or(|view| view.unacked == 0)
    })?;
    session.set_min_ttl(client, 0);
    // The server repeats what was dropped, or still works: a reset now would be the first death of
    // a client, before any case of it.
    session.wait_for_answer(client, QUIET)?;
    session.leave(client)?;
    Ok(Some(passed))
}

/// The routers between, if the sender began with 64, 128 or 255.
const fn hops(ttl: u8) -> u8 {
    match ttl {
        0..=64 => 64 - ttl,
        65..=128 => 128 - ttl,
        _ => 255 - ttl,
    }
}

/// What may be between, as far as the packets show it.
fn between(session: &Session, ttl: Option<u8>, round_trip: Duration) -> Option<String> {
    if session.target.ip().to_canonical().is_loopback() {
        return None;
    }
    let time = round_trip.as_micros();
    match ttl.map(|ttl| (ttl, hops(ttl))) {
        Some((ttl, hops @ 1..)) => Some(format!(
            "{hops} routers are between (TTL {ttl}): what ends or forgets a connection may be one of them, a NAT or a \
             balancer; to be sure, probe the server from its own network"
        )),
        Some(_) if round_trip > NEAR => Some(format!(
            "no router is seen, but a handshake takes {time} us: a tunnel or a proxy may be between, and end or \
             forget connections"
        )),
        None if round_trip > NEAR => Some(format!(
            "the TTL was not found, and a handshake takes {time} us: a NAT or a balancer may be between, and end or \
             forget connections"
        )),
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::engine::Real;
    use crate::options::Options;

    /// The steps of a search on a way with this TTL, and what it finds.
    fn search(ttl: u8) -> (u32, u8) {
        let (mut at_least, mut below, mut steps) = (1, 255, 0);
        while below - at_least > 1 {
            let tried = next_ttl(at_least, below);
            steps += 1;
            if tried <= ttl { at_least = tried } else { below = tried }
        }
        (steps, at_least)
    }

    #[test]
    fn the_search_for_a_ttl_finds_each_and_takes_few_steps_for_the_usual_ones() {
        for ttl in 1..255 {
            assert_eq!(search(ttl).1, ttl);
        }
        assert_eq!((search(64).0, search(128).0), (2, 4));
        for hops in 1..16 {
            let steps = [64, 128, 255].map(|ttl| search(ttl - hops).0);
            assert!(steps.iter().all(|steps| *steps <= STEPS), "{hops} hops: {steps:?} steps");
        }
    }

    #[test]
    fn routers_are_counted_from_what_systems_begin_with() {
        assert_eq!([64, 57, 128, 115, 254, 243].map(hops), [0, 7, 0, 13, 1, 12]);
    }

    #[test]
    fn the_ports_are_those_of_the_range() {
        assert_eq!(ports("32768\t60999\n"), 28_232);
        assert_eq!(ports(""), 16_384);
    }

    #[test]
    fn a_server_whose_packets_are_heard_is_not_taken_for_one_that_only_answers_late() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        // IP_MINTTL lets its packets pass.
        listener.set_ttl(255).expect("it is an option of the socket");
        thread::spawn(move || {
            let (_kept, never) = mpsc::channel::<()>();
            for mut client in listener.incoming().flatten() {
                let _ = BufReader::new(&client).read_line(&mut String::new());
                let _ = never.recv_timeout(Duration::from_millis(400));
                let _ = client.write_all(b"hello\n");
            }
        });
        let mut session = Session::new(Box::new(Real::new().expect("a reactor")), addr, Options::new("hello\n"));
        let path = measure(&mut session).expect("it answers");
        assert!(!path.can_be_deaf);
    }

    #[test]
    fn this_process_has_room_for_connections() {
        assert!(own_room().is_ok_and(|room| room > 0));
    }
}
