//! Correct servers with deadlines, some of which look suspicious.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use finale_probe::{Framing, Options};
use socket2::SockRef;

use crate::correct::{ANSWER, linger};
use crate::keeper::{Server, each};
use crate::kept;
use crate::reading::{HEAD, Read, read_until, read_within};

const LIMIT: Duration = Duration::from_millis(500);
/// For a client that does not read. It is longer, since the window of one that reads steadily can
/// open once in a second: Linux waits until a sixteenth of the buffer is free.
const UNREAD: Duration = Duration::from_secs(2);

pub(crate) const SERVERS: &[Server] = &[
    Server {
        name: "says-408",
        about: "correct: says 408 at its deadline for a head, and then ends",
        found_by: &[],
        run: |listener| each(&listener, says_408),
        probed: claims,
    },
    Server {
        name: "greets",
        about: "correct: speaks first, one line for each, and says 421 at its deadline",
        found_by: &[],
        run: |listener| each(&listener, greets),
        probed: |options| {
            options.request = b"NOOP\r\n".to_vec();
            options.server_first = true;
            options.framing = Framing::Until(b"\r\n".to_vec());
            claims(options);
        },
    },
    Server {
        name: "punctual",
        about: "correct: keeps connections, and ends idle ones exactly when it says so",
        found_by: &[],
        run: |listener| each(&listener, |client| keeps(client, |since| since + LIMIT)),
        probed: |options| {
            keep_alive(options);
            claims(options);
        },
    },
    Server {
        name: "keeps-for-ever",
        about: "correct: has no deadline, and claims none",
        found_by: &[],
        run: |listener| each(&listener, |client| keeps(client, |since| since + Duration::from_secs(3_600))),
        probed: keep_alive,
    },
    Server {
        name: "sweeps",
        about: "correct: looks for expired connections each second, so they end up to a second late",
        found_by: &[],
        run: |listener| each(&listener, |client| keeps(client, |since| next_sweep(since + LIMIT))),
        probed: |options| {
            keep_alive(options);
            claims(options);
        },
    },
    Server {
        name: "sheds-idle",
        about: "correct: under load it ends idle connections early",
        found_by: &[],
        run: sheds_idle,
        probed: |options| {
            keep_alive(options);
            options.claims.idle = Some(2 * LIMIT);
            options.late = Duration::from_secs(3);
        },
    },
    Server {
        name: "echoes",
        about: "correct: sends back what arrives, and resets a connection on which nothing moves",
        found_by: &[],
        run: |listener| each(&listener, echoes),
        probed: |options| {
            options.request = b"hello\n".to_vec();
            options.framing = Framing::Bytes(6);
            options.claims.idle = Some(LIMIT);
            options.late = Duration::from_secs(3);
        },
    },
    Server {
        name: "gives-up-on-reader",
        about: "correct: resets a client that does not read",
        found_by: &[],
        run: |listener| each(&listener, |client| sends(client, true)),
        probed: |options| {
            big_request(options);
            claims(options);
            options.claims.send = Some(UNREAD);
            // The time of a write(2) begins again after each part that was taken.
            options.late = UNREAD * 4;
        },
    },
    Server {
        name: "leaves-rest-to-kernel",
        about: "correct: closes when a client does not read, and its kernel keeps the rest",
        found_by: &[],
        run: |listener| each(&listener, |client| sends(client, false)),
        probed: big_request,
    },
];

/// All its deadlines are claimed, and a busy machine may be late.
fn claims(options: &mut Options) {
    (options.claims.header, options.claims.idle) = (Some(LIMIT), Some(LIMIT));
    options.late = Duration::from_secs(3);
}

/// A request after which the connection is kept.
pub(crate) fn keep_alive(options: &mut Options) {
    options.request = b"GET / HTTP/1.1\r\nHost: zoo\r\n\r\n".to_vec();
}

pub(crate) fn big_request(options: &mut Options) {
    options.big_request = Some(b"GET /big HTTP/1.1\r\nHost: zoo\r\n\r\n".to_vec());
}

/// More than kernels take without a reader.
pub(crate) fn big_answer() -> Vec<u8> {
    const BYTES: usize = 12 << 20;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), &vec![b'x'; BYTES]].concat()
}

fn says_408(mut client: TcpStream) {
    match read_within(&mut client, HEAD, LIMIT).0 {
        Read::Complete => _ = client.write_all(ANSWER),
        Read::Expired => _ = client.write_all(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"),
        Read::Ended => return,
    }
    let _ = client.set_read_timeout(Some(LIMIT));
    linger(client);
}

fn greets(mut client: TcpStream) {
    let _ = client.write_all(b"220 zoo\r\n");
    loop {
        match read_within(&mut client, b"\r\n", LIMIT) {
            (Read::Complete, line) if line == b"NOOP\r\n" => _ = client.write_all(b"250 OK\r\n"),
            (Read::Complete, _) => _ = client.write_all(b"500 unknown\r\n"),
            (Read::Expired, _) => {
                let _ = client.write_all(b"421 zoo was kept waiting\r\n");
                break;
            }
            (Read::Ended, _) => return,
        }
    }
    let _ = client.set_read_timeout(Some(LIMIT));
    linger(client);
}

fn echoes(mut client: TcpStream) {
    let _ = client.set_read_timeout(Some(LIMIT));
    let mut bytes = [0; 4096];
    loop {
        match client.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) if client.write_all(&bytes[..count]).is_ok() => {}
            // A FIN would claim that the answer is complete.
            Ok(_) | Err(_) => {
                let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
                return;
            }
        }
    }
}

/// A connection for several requests, each with a deadline.
fn keeps(mut client: TcpStream, deadline: fn(Instant) -> Instant) {
    loop {
        let deadline = deadline(Instant::now());
        let (read, head) = read_until(&mut client, HEAD, |_| Some(deadline));
        let _ = client.set_read_timeout(Some(LIMIT));
        if read != Read::Complete || !kept::answer(&mut client, &head) {
            break;
        }
    }
    linger(client);
}

/// The first whole second after this moment, since the process began to count.
fn next_sweep(moment: Instant) -> Instant {
    static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let begun = *BEGUN.get_or_init(Instant::now);
    begun + Duration::from_secs((moment - begun).as_secs() + 1)
}

/// Idle connections end after a second, or at once while there are many.
fn sheds_idle(listener: TcpListener) {
    const MANY: usize = 3;
    const LOOK: Duration = Duration::from_millis(20);
    let open = Arc::new(AtomicUsize::new(0));
    for mut client in listener.incoming().flatten() {
        let open = Arc::clone(&open);
        thread::spawn(move || {
            open.fetch_add(1, Ordering::Relaxed);
            let mut since = Instant::now();
            let mut is_idle = false;
            loop {
                let _ = client.set_read_timeout(Some(LOOK));
                match client.peek(&mut [0]) {
                    Ok(1..) => {
                        let (read, head) = read_within(&mut client, HEAD, LIMIT);
                        let _ = client.set_read_timeout(Some(LIMIT));
                        if read != Read::Complete || !kept::answer(&mut client, &head) {
                            break;
                        }
                        (since, is_idle) = (Instant::now(), true);
                    }
                    Ok(_) => break,
                    Err(_) if is_idle && open.load(Ordering::Relaxed) > MANY => break,
                    Err(_) if since.elapsed() >= 2 * LIMIT => break,
                    Err(_) => {}
                }
            }
            open.fetch_sub(1, Ordering::Relaxed);
            linger(client);
        });
    }
}

/// Sends, and gives up on a client that takes nothing for a while: with a reset, or by a close.
fn sends(mut client: TcpStream, resets: bool) {
    let (read, head) = read_within(&mut client, HEAD, LIMIT);
    if read != Read::Complete {
        return;
    }
    let _ = client.set_write_timeout(Some(UNREAD));
    let is_big = head.starts_with(b"GET /big ");
    let sent = if is_big { client.write_all(&big_answer()) } else { client.write_all(ANSWER) };
    let _ = client.set_read_timeout(Some(LIMIT));
    match sent {
        Ok(()) => linger(client),
        Err(_) if resets => _ = SockRef::from(&client).set_linger(Some(Duration::ZERO)),
        Err(_) => {}
    }
}
