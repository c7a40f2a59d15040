//! Servers whose deadlines are missing, early, late, or in the way of others.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use finale_probe::{Options, Verdict};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::TcpRepair;
use socket2::SockRef;

use crate::correct::{ANSWER, linger, read_head};
use crate::keeper::{Server, each};
use crate::kept::KEPT;
use crate::punctual::{big_answer, big_request, keep_alive};
use crate::reading::{HEAD, Read, read_until, read_within};

/// The deadline of these servers, and their claim.
const LIMIT: Duration = Duration::from_millis(400);

/// A longer one, where the client must be in time, on a busy machine, too.
const RENEWED: Duration = Duration::from_secs(1);

fn claims_renewed(options: &mut Options) {
    (options.claims.header, options.claims.body) = (Some(RENEWED), Some(RENEWED));
    options.late = Duration::from_secs(2);
}

fn claims_header(options: &mut Options) {
    options.claims.header = Some(LIMIT);
    options.late = Duration::from_secs(2);
}

fn claims_idle(options: &mut Options) {
    keep_alive(options);
    options.claims.idle = Some(LIMIT);
    options.late = Duration::from_secs(2);
}

pub(crate) const SERVERS: &[Server] = &[
    Server {
        name: "never-expires",
        about: "claims a deadline for request heads, and has none",
        found_by: &[("connect-only", Verdict::Fail), ("half-request", Verdict::Fail), ("drip-request", Verdict::Fail)],
        run: |listener| each(&listener, |client| serve_head(client, |_, _| None)),
        probed: claims_header,
    },
    Server {
        name: "expires-early",
        about: "claims a deadline of 1.5 s for request heads, and ends them after 0.4 s",
        found_by: &[("connect-only", Verdict::Fail), ("half-request", Verdict::Fail)],
        run: |listener| each(&listener, |client| serve_head(client, |begun, _| Some(begun + LIMIT))),
        probed: |options| options.claims.header = Some(Duration::from_millis(1_500)),
    },
    Server {
        name: "timer-from-line",
        about: "starts the deadline of a head only when its first line is complete",
        found_by: &[("connect-only", Verdict::Fail), ("half-request", Verdict::Fail)],
        run: |listener| each(&listener, timer_from_line),
        probed: claims_header,
    },
    Server {
        name: "renews-by-byte",
        about: "renews the deadline of a head with each byte",
        found_by: &[("drip-request", Verdict::Fail)],
        run: |listener| each(&listener, |client| serve_head(client, |_, _| Some(Instant::now() + RENEWED))),
        probed: claims_renewed,
    },
    Server {
        name: "renews-unclaimed",
        about: "the same, and nothing is claimed",
        found_by: &[("drip-request", Verdict::Warn)],
        run: |listener| each(&listener, |client| serve_head(client, |_, _| Some(Instant::now() + RENEWED))),
        probed: |_| {},
    },
    Server {
        name: "renews-by-line",
        about: "renews the deadline of a head with each of its lines",
        found_by: &[("drip-request", Verdict::Fail)],
        run: |listener| each(&listener, renews_by_line),
        probed: claims_renewed,
    },
    Server {
        name: "renews-by-body-byte",
        about: "renews the deadline of a body with each byte",
        found_by: &[("drip-request", Verdict::Fail)],
        run: |listener| each(&listener, renews_by_body_byte),
        probed: claims_renewed,
    },
    Server {
        name: "expires-on-data",
        about: "looks at its clock only when data arrives",
        found_by: &[("connect-only", Verdict::Warn), ("half-request", Verdict::Warn)],
        run: |listener| each(&listener, expires_on_data),
        probed: |_| {},
    },
    Server {
        name: "expires-on-data-claim",
        about: "the same, and claims a deadline",
        found_by: &[("connect-only", Verdict::Fail), ("half-request", Verdict::Fail)],
        run: |listener| each(&listener, expires_on_data),
        probed: claims_header,
    },
    Server {
        name: "resets-last-words",
        about: "sends 408 at its deadline while a part of the request is unread, so that a reset follows",
        found_by: &[("half-request", Verdict::Warn)],
        run: |listener| each(&listener, resets_last_words),
        probed: |_| {},
    },
    Server {
        name: "blocks-on-silence",
        about: "serves one client after the other, and waits for the request of a silent one",
        found_by: &[("connect-only", Verdict::Fail)],
        run: |listener| one_by_one(&listener, |client| serve_head(client, |_, _| None)),
        // A busy machine makes the healthy client patient.
        probed: |options| options.timeout = Duration::from_secs(5),
    },
    Server {
        name: "never-reaps",
        about: "claims an idle deadline, and has none",
        found_by: &[("idle", Verdict::Fail)],
        run: |listener| each(&listener, |client| keeps(client, None, KEPT)),
        probed: claims_idle,
    },
    Server {
        name: "reaps-early",
        about: "claims an idle deadline of 1.5 s, and ends connections after 0.4 s",
        found_by: &[("idle", Verdict::Fail)],
        run: |listener| each(&listener, |client| keeps(client, Some(LIMIT), KEPT)),
        probed: |options| {
            keep_alive(options);
            options.claims.idle = Some(Duration::from_millis(1_500));
        },
    },
    Server {
        name: "breaks-its-word",
        about: "announces that a connection is kept for 5 s, and ends it after 0.4 s",
        found_by: &[("idle", Verdict::Warn)],
        run: |listener| each(&listener, |client| keeps(client, Some(LIMIT), ANNOUNCED)),
        probed: keep_alive,
    },
    Server {
        name: "holds-close-wait",
        about: "does not close when a client has ended, although it has an idle deadline",
        found_by: &[("half-closed-hold", Verdict::Fail)],
        run: |listener| each(&listener, holds_close_wait),
        probed: claims_idle,
    },
    Server {
        name: "holds-unclaimed",
        about: "the same, and no idle deadline is known",
        found_by: &[("half-closed-hold", Verdict::Warn)],
        run: |listener| each(&listener, holds_close_wait),
        probed: keep_alive,
    },
    Server {
        name: "waits-for-reader",
        about: "claims to give up on a client that does not read, and waits for ever",
        found_by: &[("never-read", Verdict::Fail)],
        run: |listener| each(&listener, waits_for_reader),
        probed: |options| {
            big_request(options);
            options.claims.send = Some(LIMIT);
            options.late = Duration::from_secs(2);
        },
    },
    Server {
        name: "blocks-on-reader",
        about: "writes on the thread that accepts, so that one client that does not read stops it",
        found_by: &[("never-read", Verdict::Fail)],
        run: |listener| one_by_one(&listener, waits_for_reader),
        probed: |options| {
            big_request(options);
            options.timeout = Duration::from_secs(5);
        },
    },
    Server {
        name: "forgets",
        about: "forgets an idle connection without FIN or reset, as a machine does that lost its power",
        found_by: &[("silent-forget", Verdict::Fail)],
        run: |listener| each(&listener, forgets),
        probed: keep_alive,
    },
];

/// An answer after which the connection is said to be kept for five seconds.
const ANNOUNCED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: timeout=5\r\n\r\nhello";

fn one_by_one(listener: &TcpListener, serve: fn(TcpStream)) {
    for client in listener.incoming().flatten() {
        serve(client);
    }
}

/// Serves one request. `deadline` has the begin of the connection, and what has arrived.
fn serve_head(mut client: TcpStream, deadline: fn(Instant, &[u8]) -> Option<Instant>) {
    let begun = Instant::now();
    if read_until(&mut client, HEAD, |bytes| deadline(begun, bytes)).0 == Read::Complete {
        answer(client);
    }
}

/// Lingers for a while only: these servers have one fault each.
fn answer(mut client: TcpStream) {
    let _ = client.set_read_timeout(Some(LIMIT));
    let _ = client.write_all(ANSWER);
    linger(client);
}

fn timer_from_line(mut client: TcpStream) {
    let mut since = None;
    let deadline = |bytes: &[u8]| {
        if bytes.contains(&b'\n') {
            since.get_or_insert_with(Instant::now);
        }
        since.map(|since| since + LIMIT)
    };
    if read_until(&mut client, HEAD, deadline).0 == Read::Complete {
        answer(client);
    }
}

fn renews_by_line(mut client: TcpStream) {
    let mut since = Instant::now();
    let deadline = |bytes: &[u8]| {
        if bytes.ends_with(b"\n") {
            since = Instant::now();
        }
        Some(since + RENEWED)
    };
    if read_until(&mut client, HEAD, deadline).0 == Read::Complete {
        answer(client);
    }
}

fn renews_by_body_byte(mut client: TcpStream) {
    let (read, head) = read_within(&mut client, HEAD, RENEWED);
    if read != Read::Complete {
        return;
    }
    if head.starts_with(b"POST") {
        let _ = read_until(&mut client, b"the end", |_| Some(Instant::now() + RENEWED));
    } else {
        answer(client);
    }
}

fn expires_on_data(mut client: TcpStream) {
    let begun = Instant::now();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(HEAD) {
        if !matches!(client.read(&mut byte), Ok(1)) || begun.elapsed() > LIMIT {
            return;
        }
        head.push(byte[0]);
    }
    answer(client);
}

/// Reads the head only when it has arrived, and closes with it unread.
fn resets_last_words(mut client: TcpStream) {
    let deadline = Instant::now() + LIMIT;
    let (read, _) = read_until(&mut client, b" ", |_| Some(deadline));
    if read == Read::Complete {
        let mut looked = [0; 1024];
        while !matches!(client.peek(&mut looked), Ok(bytes) if looked[..bytes].ends_with(HEAD)) {
            if Instant::now() > deadline {
                let _ = client.write_all(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n");
                return;
            }
            thread::yield_now();
        }
        let _ = read_head(&mut client);
        answer(client);
    }
}

/// A connection for several requests.
fn keeps(mut client: TcpStream, idle: Option<Duration>, answer: &[u8]) {
    loop {
        let deadline = idle.map(|idle| Instant::now() + idle);
        if read_until(&mut client, HEAD, |_| deadline).0 != Read::Complete || client.write_all(answer).is_err() {
            return;
        }
    }
}

fn holds_close_wait(mut client: TcpStream) {
    loop {
        match read_within(&mut client, HEAD, LIMIT).0 {
            Read::Complete if client.write_all(KEPT).is_ok() => {}
            // For ever, but without a thread.
            Read::Ended => return std::mem::forget(client),
            Read::Complete | Read::Expired => return,
        }
    }
}

fn waits_for_reader(mut client: TcpStream) {
    let (read, head) = read_within(&mut client, HEAD, LIMIT);
    if read != Read::Complete {
        return;
    }
    if head.starts_with(b"GET /big ") {
        let _ = client.write_all(&big_answer());
        let _ = client.set_read_timeout(Some(LIMIT));
        linger(client);
    } else {
        answer(client);
    }
}

/// Two ways to forget. A socket that is bound to another device gets and sends no packet of this
/// one, and needs no privilege; a socket in repair mode is closed without a packet, and needs
/// CAP_NET_ADMIN.
fn forgets(mut client: TcpStream) {
    loop {
        match read_within(&mut client, HEAD, LIMIT).0 {
            Read::Complete if client.write_all(KEPT).is_ok() => {}
            Read::Complete | Read::Ended => return,
            Read::Expired => break,
        }
    }
    let devices = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut names = devices.map(|device| device.file_name()).filter(|name| name != "lo");
    if names.any(|name| SockRef::from(&client).bind_device(Some(name.as_encoded_bytes())).is_ok()) {
        std::mem::forget(client);
    } else if let Err(error) = setsockopt(&client, TcpRepair, &1) {
        eprintln!("no way to forget a connection here: no second device, no TCP_REPAIR ({error})");
    }
}
