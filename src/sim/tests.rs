//! The network, called directly through [`Net`], as a kernel is: without a reactor.

mod chaos;
mod cost;
mod ending;
mod odd_values;
mod one_end;
mod opening;
mod parity;
mod pieces;
mod play;
mod stream;
mod time;
mod time_wait;
mod unix;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use rustix::io::Errno;

use super::{Faults, Host, Network, PeerSocket, Reach, Rng};
use crate::error::LookupErrorKind;
use crate::net::{Net, Readiness, Token};
use crate::options::{ConnectOptions, KeepAlive, ListenOptions, SystemOptions};

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const AT: SocketAddr = SocketAddr::new(SERVER, 7000);
const LISTENER: Token = Token { index: 0, generation: 0 };
const TOKEN: Token = Token { index: 0, generation: 1 };
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A host that listens, and the peer that has connected to it: slot 0, registered, its first edge
/// taken.
fn accepted(options: &ListenOptions) -> (Network, Host, PeerSocket) {
    let network = Network::new(1);
    let mut host = network.host(SERVER);
    host.listen(0, AT, options).expect("the port is free");
    let peer = network.peer(CLIENT).connect(AT).expect("there is a route");
    assert_eq!(news(&mut host, SECOND), [(LISTENER, flags("in"))]);
    host.accept(0, 0).expect("one waits");
    host.register(0, TOKEN).expect("there is room");
    assert_eq!(news(&mut host, Duration::ZERO), [(TOKEN, flags("out"))]);
    (network, host, peer)
}

/// What a wait reports.
fn news(host: &mut Host, wait: Duration) -> Vec<(Token, Readiness)> {
    let mut all = Vec::new();
    host.poll(host.now(), Some(wait), &mut |token, readiness| all.push((token, readiness))).expect("the net can wait");
    all
}

/// What a wait reports for the connection in slot 0; no readiness is written as no flags.
#[track_caller]
fn edge(host: &mut Host, wait: Duration) -> Readiness {
    match news(host, wait).as_slice() {
        [] => Readiness::default(),
        [(TOKEN, readiness)] => *readiness,
        other => panic!("one piece of news was expected: {other:?}"),
    }
}

/// Flags in epoll's words: in, out, rdhup, hup, err.
fn flags(words: &str) -> Readiness {
    let has = |word| words.split(' ').any(|other| other == word);
    Readiness {
        readable: has("in"),
        writable: has("out"),
        read_closed: has("rdhup"),
        write_closed: has("hup"),
        error: has("err"),
    }
}

fn read(host: &mut Host) -> Result<Vec<u8>, Errno> {
    let mut buffer = [0; 4096];
    let read = host.recv(0, &mut buffer).map_err(|error| errno(&error))?;
    Ok(buffer[..read.bytes].to_vec())
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).expect("the kernel's errors have a number")
}

fn failed<T: std::fmt::Debug>(result: io::Result<T>) -> Errno {
    errno(&result.expect_err("this should have failed"))
}
