//! What every server must do. Each check starts the server, and passes if it was not built.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use finale_load::Summary;
use finale_load::answer::{LINE, PIECE_BYTES};
use finale_load::echo::Echo;
use finale_load::half_close::{First, HalfClose};

use crate::running::{Peer, Running, reset};

/// Sizes around a line, a piece, and what the kernel takes at once.
const SIZES: &[u64] = &[0, 1, 64, 65, 16 << 10, PIECE_BYTES as u64 + 1, 1 << 20];
/// More than a kernel holds of one connection, so a server that has no back-pressure has to hold
/// the rest itself.
const MUCH_BYTES: usize = 128 << 20;
/// What a server may need in addition to its memory at the start.
const ROOM_BYTES: u64 = 32 << 20;

fn load(server: &Running, first: First, request: usize, answer: u64) -> HalfClose {
    HalfClose { addr: server.addr, connections: 8, in_flight: 4, request, answer, first }
}

#[track_caller]
fn all_well(summary: &Summary) {
    assert_eq!(summary.failed, 0, "{summary}: {:?}", summary.why);
}

fn number(value: u64) -> String {
    value.to_string()
}

pub(crate) fn answers(peer: Peer) {
    for &answer in SIZES {
        let Some(server) = peer.start(&["answer", &number(answer)]) else { return };
        for request in [0, 64, 1 << 20] {
            all_well(&load(&server, First::Client, request, answer).run());
        }
    }
}

pub(crate) fn finishes_first(peer: Peer) {
    for &answer in SIZES {
        for request in [0, 64, 100_000] {
            let Some(server) = peer.start(&["first", &number(request), &number(answer)]) else { return };
            all_well(&load(&server, First::Server, request as usize, answer).run());
        }
    }
}

pub(crate) fn echoes(peer: Peer) {
    let Some(server) = peer.start(&["echo"]) else { return };
    for bytes in [1, 64, 4096, PIECE_BYTES] {
        all_well(&Echo { addr: server.addr, connections: 8, rounds: 10, bytes }.run());
    }
}

pub(crate) fn two_hundred_at_once(peer: Peer) {
    let Some(server) = peer.start(&["answer", "64"]) else { return };
    let many = HalfClose { connections: 600, in_flight: 200, ..load(&server, First::Client, 64, 64) };
    all_well(&many.run());
    let Some(server) = peer.start(&["first", "64", "16384"]) else { return };
    let many = HalfClose { connections: 600, in_flight: 200, ..load(&server, First::Server, 64, 16384) };
    all_well(&many.run());
    let Some(server) = peer.start(&["echo"]) else { return };
    all_well(&Echo { addr: server.addr, connections: 200, rounds: 5, bytes: 1000 }.run());
}

/// The second half arrives after others were served, if the server can serve two at a time.
pub(crate) fn half_a_request(peer: Peer) {
    let Some(server) = peer.start(&["answer", "64"]) else { return };
    let mut slow = server.connect();
    slow.write_all(&[b'q'; 32]).expect("sent");
    if !peer.one_at_a_time {
        all_well(&load(&server, First::Client, 64, 64).run());
    }
    slow.write_all(&[b'q'; 32]).expect("sent");
    slow.shutdown(Shutdown::Write).expect("finished");
    assert_eq!(rest_of(slow), LINE);

    let Some(server) = peer.start(&["first", "64", "64"]) else { return };
    let mut slow = server.connect();
    slow.write_all(&[b'q'; 32]).expect("sent");
    if !peer.one_at_a_time {
        all_well(&load(&server, First::Server, 64, 64).run());
    }
    slow.write_all(&[b'q'; 32]).expect("sent");
    assert_eq!(rest_of(slow), LINE);

    let mut incomplete = server.connect();
    incomplete.write_all(&[b'q'; 63]).expect("sent");
    incomplete.shutdown(Shutdown::Write).expect("finished");
    assert_eq!(rest_of(incomplete), b"", "an answer to a request that is not whole");
    all_well(&load(&server, First::Server, 64, 64).run());
}

fn rest_of(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("a clean end");
    bytes
}

/// At every point that a client can see: connected, within its request, after it, within the
/// answer.
pub(crate) fn resets(peer: Peer) {
    let modes: [(&[&str], First); 2] =
        [(&["answer", "1048576"], First::Client), (&["first", "64", "1048576"], First::Server)];
    for (args, first) in modes {
        let Some(server) = peer.start(args) else { return };
        for round in 0..8 {
            reset(server.connect());
            reset(asked(&server, 32));
            reset(asked(&server, 64));
            let mut finished = asked(&server, 64);
            finished.shutdown(Shutdown::Write).expect("finished");
            if round % 2 == 0 {
                finished.read_exact(&mut [0; 1000]).expect("the beginning of an answer");
            }
            reset(finished);
        }
        all_well(&load(&server, first, 64, 1 << 20).run());
    }
    let Some(server) = peer.start(&["echo"]) else { return };
    for _round in 0..8 {
        reset(server.connect());
        reset(asked(&server, 100_000));
    }
    all_well(&Echo { addr: server.addr, connections: 8, rounds: 3, bytes: 64 }.run());
}

fn asked(server: &Running, bytes: usize) -> TcpStream {
    let mut stream = server.connect();
    stream.write_all(&vec![b'q'; bytes]).expect("sent");
    stream
}

pub(crate) fn long_answers_from_little_memory(peer: Peer) {
    let Some(server) = peer.start(&["answer", &number(MUCH_BYTES as u64)]) else { return };
    let before = server.most_memory_bytes();
    let load = load(&server, First::Client, 64, MUCH_BYTES as u64);
    all_well(&HalfClose { connections: 2, in_flight: 2, ..load }.run());
    let grown = server.most_memory_bytes().saturating_sub(before);
    assert!(grown < ROOM_BYTES, "it took {grown} bytes more for an answer of {MUCH_BYTES}");
}

/// The client writes until it is stuck (or, if the server takes everything, until all is written)
/// before it reads.
pub(crate) fn back_pressure(peer: Peer) {
    let Some(server) = peer.start(&["echo"]) else { return };
    let before = server.most_memory_bytes();
    let stream = server.connect();
    let sent = (0..=250).collect::<Vec<u8>>().repeat(MUCH_BYTES / 251);
    stream.set_write_timeout(Some(Duration::from_millis(300))).expect("set");
    let stuck_at = write_until_stuck(&stream, &sent);
    let grown = server.most_memory_bytes().saturating_sub(before);
    assert!(grown < ROOM_BYTES, "it took {grown} bytes more for a client that does not read");
    stream.set_write_timeout(None).expect("set");
    let received = thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(&sent[stuck_at..]).expect("sent");
            stream.shutdown(Shutdown::Write).expect("finished");
        });
        rest_of(stream.try_clone().expect("a second handle"))
    });
    assert!(received == sent, "{} bytes came back of {}, or other ones", received.len(), sent.len());
}

fn write_until_stuck(mut stream: &TcpStream, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // The kernel does not restart a call with a time limit.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error}"),
        }
    }
    written
}

pub(crate) fn ends_when_told(peer: Peer) {
    let Some(server) = peer.start(&["answer", "64"]) else { return };
    all_well(&load(&server, First::Client, 64, 64).run());
    let addr: SocketAddr = server.addr;
    server.terminate();
    let refused = TcpStream::connect(addr).expect_err("nothing listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

pub(crate) fn refuses_a_wrong_command_line(peer: Peer) {
    let Some(path) = peer.path() else { return };
    for args in ["", "answer", "answer -1", "answer 64 64", "first 64", "echo 64", "discard"] {
        let mut command = Command::new(&path);
        command.args(args.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null());
        assert_eq!(command.status().expect("it ran").code(), Some(2), "{args:?}");
    }
}
