//! Servers with an answer of 8 MiB, and what they do with a client that reads it slowly.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use finale_probe::Verdict;
use socket2::SockRef;

use crate::correct::{ANSWER, linger, read_head};
use crate::keeper::{Server, each};
use crate::punctual::big_request;

pub(crate) const SERVERS: &[Server] = &[
    Server {
        name: "sends-bulk",
        about: "correct: sends 8 MiB, however slowly they are read",
        found_by: &[],
        run: |listener| each(&listener, |client| serve(client, sends_all)),
        probed: big_request,
    },
    Server {
        name: "stops-at-would-block",
        about: "takes a full buffer for an error: it finishes where the buffer was full",
        found_by: &[("slow-reader", Verdict::Fail)],
        run: |listener| each(&listener, |client| serve(client, stops_at_would_block)),
        probed: big_request,
    },
    Server {
        name: "stalls-at-would-block",
        about: "stops for ever after a full buffer, since it does not wait until the socket is writable",
        found_by: &[("slow-reader", Verdict::Fail)],
        run: |listener| each(&listener, |client| serve(client, stalls_at_would_block)),
        probed: big_request,
    },
    Server {
        name: "frames-a-cut-as-complete",
        about: "cuts an answer that takes 900 ms, and ends its chunks as if it were complete",
        found_by: &[("slow-reader", Verdict::Fail)],
        run: |listener| each(&listener, |client| serve(client, frames_a_cut)),
        probed: big_request,
    },
    Server {
        name: "policy-resets-slow-readers",
        about: "resets a client that takes nothing for 500 ms, as a stated limit",
        found_by: &[("slow-reader", Verdict::Warn)],
        run: |listener| each(&listener, |client| serve(client, resets_slow_readers)),
        probed: big_request,
    },
    Server {
        name: "unread-after-bulk",
        about: "closes right after its last write of a big answer, with unread input and megabytes in its kernel",
        found_by: &[("late-input", Verdict::Fail)],
        run: |listener| each(&listener, closes_after_bulk),
        probed: |options| {
            big_request(options);
            options.request = b"GET / HTTP/1.1\r\nHost: zoo\r\n\r\n".to_vec();
        },
    },
];

const SIZE: usize = 8 * 1024 * 1024;
const PIECE: usize = 64 * 1024;
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 8388608\r\nConnection: close\r\n\r\n";
const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";

/// Answers `/big` so, and all else as the correct servers do.
fn serve(mut client: TcpStream, big: fn(TcpStream)) {
    let _ = client.set_read_timeout(Some(Duration::from_secs(3)));
    match read_head(&mut client) {
        Some(head) if head.starts_with(b"GET /big") => big(client),
        Some(_) => {
            let _ = client.write_all(ANSWER);
            linger(client);
        }
        None => {}
    }
}

fn sends_all(mut client: TcpStream) {
    let _ = client.write_all(HEAD);
    for _ in 0..SIZE / PIECE {
        if client.write_all(&[b'x'; PIECE]).is_err() {
            return;
        }
    }
    linger(client);
}

/// Returns whether everything was sent.
fn sends_until_would_block(client: &mut TcpStream) -> bool {
    let _ = client.write_all(HEAD);
    let _ = client.set_nonblocking(true);
    let mut left = SIZE;
    while left > 0 {
        match client.write(&[b'x'; PIECE][..left.min(PIECE)]) {
            Ok(bytes) => left -= bytes,
            Err(_) => break,
        }
    }
    let _ = client.set_nonblocking(false);
    left == 0
}

fn stops_at_would_block(mut client: TcpStream) {
    sends_until_would_block(&mut client);
    linger(client);
}

fn stalls_at_would_block(mut client: TcpStream) {
    let is_done = sends_until_would_block(&mut client);
    let _ = client.set_read_timeout(None);
    while !is_done && matches!(client.read(&mut [0; 4096]), Ok(1..)) {}
    linger(client);
}

fn frames_a_cut(mut client: TcpStream) {
    let begun = Instant::now();
    let _ = client.write_all(CHUNKED);
    for _ in 0..SIZE / PIECE {
        if begun.elapsed() > Duration::from_millis(900) {
            break;
        }
        let _ = client.write_all(format!("{PIECE:x}\r\n").as_bytes());
        let _ = client.write_all(&[b'x'; PIECE]);
        let _ = client.write_all(b"\r\n");
    }
    let _ = client.write_all(b"0\r\n\r\n");
    linger(client);
}

fn resets_slow_readers(mut client: TcpStream) {
    let _ = client.write_all(HEAD);
    // A call that has sent a part counts as a success, so the limit strikes after twice this time.
    let _ = client.set_write_timeout(Some(Duration::from_millis(250)));
    for _ in 0..SIZE / PIECE {
        if let Err(error) = client.write_all(&[b'x'; PIECE]) {
            if error.kind() == ErrorKind::WouldBlock {
                let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
            }
            return;
        }
    }
    linger(client);
}

/// Reads one segment, and nothing that comes later.
fn closes_after_bulk(mut client: TcpStream) {
    let mut some = [0; 4096];
    let Ok(bytes @ 1..) = client.read(&mut some) else { return };
    if !some[..bytes].starts_with(b"GET /big") {
        let _ = client.write_all(ANSWER);
        return linger(client);
    }
    let _ = client.write_all(HEAD);
    for _ in 0..SIZE / PIECE {
        if client.write_all(&[b'x'; PIECE]).is_err() {
            return;
        }
    }
}
