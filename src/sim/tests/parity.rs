//! The simulated network against the real one, call by call: random scripts on a connection run on
//! Linux's loopback and on this network, and every result and all readiness are compared.
//! `docs/simulation.md` lists what is left out, and why.
//!
//! More scripts: `FINALE_SEEDS=0..20000 cargo test sim::tests::parity`.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::net::UnixAddr;
use crate::net::os::Os;

/// One call, on the client (0) or the accepted connection (1).
#[derive(Clone, Copy, Debug)]
enum Call {
    Send(u32, usize),
    /// In several pieces.
    SendVectored(u32, usize),
    Recv(u32, usize),
    Finish(u32),
    Close(u32),
    Reset(u32),
    TakeError(u32),
    Connected(u32),
    Acknowledged(u32),
    Peek(u32),
    Poll,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Transport {
    Tcp,
    Unix,
}

const CALLS: usize = 14;

/// The scripts that run by default: a second's work.
const SEEDS: Range<u64> = 0..300;

/// Linux on a busy machine can be late with a packet, even on loopback; it does not differ twice in
/// the same way.
const TRIES: usize = 5;

fn script(seed: u64) -> Vec<Call> {
    let mut rng = Rng::new(seed);
    let mut call = || {
        let side = rng.below(2) as u32;
        let bytes = 1 + rng.below(99) as usize;
        match rng.below(24) {
            0..=1 => Call::Send(side, bytes),
            2..=3 => Call::SendVectored(side, bytes),
            4..=7 => Call::Recv(side, bytes),
            8..=9 => Call::Finish(side),
            10 => Call::Close(side),
            11 => Call::Reset(side),
            12 => Call::TakeError(side),
            13 => Call::Connected(side),
            14 => Call::Acknowledged(side),
            15 => Call::Peek(side),
            _ => Call::Poll,
        }
    };
    (0..CALLS).map(|_| call()).collect()
}

fn answer<T: std::fmt::Debug>(result: io::Result<T>) -> String {
    result.map_or_else(|error| format!("error {:?}", error.raw_os_error()), |value| format!("{value:?}"))
}

/// What a program knows of one connection from its readiness: an edge that repeats it is not new.
/// Linux reports such edges more often (at an acknowledgement, at a window update).
#[derive(Clone, Copy, Default)]
struct Known {
    readable: bool,
    read_closed: bool,
    write_closed: bool,
    error: bool,
}

struct Player<'a> {
    net: &'a mut dyn Net,
    known: [Known; 2],
}

impl Player<'_> {
    /// Everything new about both connections, until there is no edge for a millisecond.
    fn poll(&mut self) -> String {
        let before = self.known;
        loop {
            let mut any = false;
            let known = &mut self.known;
            let news = &mut |token: Token, news: Readiness| {
                any = true;
                let Some(known) = known.get_mut(token.index as usize).filter(|_| token.generation > 0) else { return };
                known.readable |= news.readable;
                known.read_closed |= news.read_closed;
                known.write_closed |= news.write_closed;
                known.error |= news.error;
            };
            self.net.poll(self.net.now(), Some(MS), news).expect("a net can wait");
            if !any {
                break;
            }
        }
        let mut told = String::new();
        for (side, (before, now)) in before.iter().zip(&self.known).enumerate() {
            let facts = [
                (before.readable, now.readable, "in"),
                (before.read_closed, now.read_closed, "rdhup"),
                (before.write_closed, now.write_closed, "hup"),
                (before.error, now.error, "err"),
            ];
            let new =
                facts.iter().filter(|(before, now, _)| *now && !before).map(|(_, _, name)| format!("{side} {name} "));
            told.extend(new);
        }
        told
    }

    /// A short read means drained: whatever arrives later needs an edge of its own.
    fn recv(&mut self, side: u32, bytes: usize) -> String {
        let mut buffer = [0; 100];
        let result = self.net.recv(side, &mut buffer[..bytes]);
        self.known[side as usize].readable &= result.as_ref().is_ok_and(|read| !read.drained);
        answer(result.map(|read| read.bytes))
    }

    fn perform(&mut self, call: Call) -> String {
        match call {
            Call::Send(side, bytes) => answer(self.net.send(side, &vec![b'x'; bytes], false)),
            Call::SendVectored(side, bytes) => {
                let bytes = [b'x'; 100][..bytes].to_vec();
                let pieces: Vec<_> = bytes.chunks(1 + bytes.len() / 3).map(io::IoSlice::new).collect();
                answer(self.net.send_vectored(side, &pieces, false))
            }
            Call::Recv(side, bytes) => self.recv(side, bytes),
            Call::Finish(side) => answer(self.net.finish(side)),
            Call::Close(side) => {
                self.net.close(side);
                String::new()
            }
            Call::Reset(side) => {
                self.net.reset(side);
                String::new()
            }
            Call::TakeError(side) => format!("{:?}", self.net.take_error(side).map(|error| error.raw_os_error())),
            Call::Connected(side) => answer(self.net.connected(side)),
            Call::Acknowledged(side) => answer(self.net.acknowledged(side)),
            Call::Peek(side) => answer(self.net.peek(side)),
            Call::Poll => self.poll(),
        }
    }
}

/// A connection to a listener, begun over TCP or a Unix domain socket.
fn connect(net: &mut dyn Net, transport: Transport) {
    let options = (ListenOptions::default(), SystemOptions::default());
    if transport == Transport::Unix {
        static NAMES: AtomicU32 = AtomicU32::new(0);
        let number = NAMES.fetch_add(1, Ordering::Relaxed);
        let addr = UnixAddr::abstract_name(format!("finale-parity-{}-{number}", std::process::id()));
        net.listen_unix(0, &addr, &options.0).expect("a new name");
        return net.connect_unix(0, TOKEN, &addr, &options.1).expect("connected");
    }
    let any = "127.0.0.1:0".parse().expect("an address");
    let addr = net.listen(0, any, &options.0).expect("loopback has a free port");
    net.connect(0, TOKEN, addr, &options.1, None).expect("begun");
}

/// The transcript of the script on one network.
fn play(net: &mut dyn Net, transport: Transport, calls: &[Call]) -> Vec<String> {
    connect(net, transport);
    let mut listening = false;
    while !listening {
        let news = &mut |token: Token, _| listening |= token == LISTENER;
        net.poll(net.now(), Some(SECOND), news).expect("a net can wait");
    }
    net.accept(0, 1).expect("one waits");
    // A client of another test may connect to a port that was its own before.
    net.set_accepting(0, false).expect("it listens");
    net.register(1, Token { index: 1, generation: 1 }).expect("there is room");
    let mut player = Player { net, known: Default::default() };
    let mut story = vec![format!("the handshake: {}", player.poll())];
    for call in calls {
        story.push(format!("{call:?}: {}", player.perform(*call)));
    }
    story.push(format!("at last: {}", player.poll()));
    for side in [0, 1] {
        net.close(side);
    }
    net.unlisten(0);
    story
}

fn on_linux(transport: Transport, calls: &[Call]) -> Vec<String> {
    play(&mut Os::new().expect("a machine with epoll"), transport, calls)
}

fn simulated(transport: Transport, calls: &[Call]) -> Vec<String> {
    let network = Network::new(1);
    network.set_latency(Duration::ZERO);
    play(&mut network.host(IpAddr::V4(Ipv4Addr::LOCALHOST)), transport, calls)
}

/// Both transcripts next to each other, with differences marked.
fn columns(linux: &[String], simulated: &[String]) -> String {
    let line = |(linux, simulated): (&String, &String)| {
        let mark = if linux == simulated { ' ' } else { '!' };
        format!("{mark} {linux:50} | {simulated}\n")
    };
    linux.iter().zip(simulated).map(line).collect()
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("FINALE_SEEDS") else { return SEEDS };
    let parsed = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    parsed.expect("FINALE_SEEDS=A..B")
}

#[test]
fn the_simulated_network_answers_every_call_as_linux_does() {
    compare(Transport::Tcp);
}

#[test]
fn simulated_unix_domain_sockets_answer_every_call_as_those_of_linux_do() {
    compare(Transport::Unix);
}

/// More than the simulated peer's buffer has room for.
#[test]
fn a_shutdown_of_a_unix_domain_socket_overtakes_nothing_and_waits_for_nothing() {
    let mut calls = vec![Call::Send(0, 10_000); 14];
    calls.extend([Call::Finish(0), Call::Poll, Call::Send(1, 10), Call::Finish(1), Call::Poll, Call::Recv(1, 100)]);
    let difference = difference(Transport::Unix, &calls, &mut 0);
    assert!(difference.is_none(), "Linux, and simulated\n{}", difference.unwrap_or_default());
}

/// Both transcripts, if they differ. `repeated` counts further runs on Linux.
fn difference(transport: Transport, calls: &[Call], repeated: &mut usize) -> Option<String> {
    let expected = simulated(transport, calls);
    let mut story = on_linux(transport, calls);
    for _ in 1..TRIES {
        if story == expected {
            return None;
        }
        *repeated += 1;
        story = on_linux(transport, calls);
    }
    (story != expected).then(|| columns(&story, &expected))
}

fn compare(transport: Transport) {
    let (mut bad, mut repeated) = (Vec::new(), 0);
    let seeds = seeds();
    for seed in seeds.clone() {
        let difference = difference(transport, &script(seed), &mut repeated);
        bad.extend(difference.map(|columns| format!("seed {seed}: Linux, and simulated\n{columns}")));
    }
    println!("{transport:?}: {} scripts from seeds {seeds:?}, {repeated} repeated on Linux", seeds.end - seeds.start);
    bad.truncate(5);
    assert!(bad.is_empty(), "{}\nagain: FINALE_SEEDS=A..B with that seed", bad.join("\n"));
}
