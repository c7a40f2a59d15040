//! Servers that keep connections: correct ones, and ones with a fault in what comes after the first
//! request.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use finale_probe::Verdict;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::correct::{ANSWER, linger, read_head};
use crate::keeper::{Server, each};

pub(crate) const SERVERS: &[Server] = &[
    Server {
        name: "keeps",
        about: "correct: keeps connections, answers in order, reads bodies, announces its ends",
        found_by: &[],
        run: |listener| each(&listener, keeps),
        probed: |_| {},
    },
    Server {
        name: "http-1-0",
        about: "correct: one answer per connection, and its FIN is its length",
        found_by: &[],
        run: |listener| each(&listener, http_1_0),
        probed: |_| {},
    },
    Server {
        name: "refuses-pipelining",
        about: "correct: an answer announces the close if more than its request has arrived",
        found_by: &[],
        run: |listener| each(&listener, refuses_pipelining),
        probed: |_| {},
    },
    Server {
        name: "idle-exact",
        about: "correct: an idle connection ends after 300 ms, to the millisecond, with a FIN",
        found_by: &[],
        run: |listener| each(&listener, |client| idle_exact(client, false)),
        probed: |_| {},
    },
    Server {
        name: "answers-first-only",
        about: "takes what one read(2) returns for one request",
        found_by: &[("pipeline", Verdict::Fail)],
        run: |listener| each(&listener, answers_first_only),
        probed: |_| {},
    },
    Server {
        name: "drops-queue-at-fin",
        about: "answers the request that it works on when the client's FIN arrives, and none after it",
        found_by: &[("pipeline-fin", Verdict::Fail)],
        run: |listener| each(&listener, drops_queue_at_fin),
        probed: |_| {},
    },
    Server {
        name: "waits-for-next",
        about: "reads all that is there before it answers, also a request that is not complete",
        found_by: &[("request-plus-partial", Verdict::Fail)],
        run: |listener| each(&listener, waits_for_next),
        probed: |_| {},
    },
    Server {
        name: "unread-after-error",
        about: "keeps a connection after an error, and reads it no more",
        found_by: &[("reuse-after-error", Verdict::Fail)],
        run: |listener| each(&listener, unread_after_error),
        probed: |_| {},
    },
    Server {
        name: "body-is-request",
        about: "refuses a request without a look at its body, and reads the body as the next request",
        found_by: &[("reuse-after-error", Verdict::Fail)],
        run: |listener| each(&listener, body_is_request),
        probed: |_| {},
    },
    Server {
        name: "two-workers",
        about: "a connection that is kept keeps one of its two workers",
        found_by: &[("greedy-keepalive", Verdict::Fail)],
        run: two_workers,
        probed: |_| {},
    },
    Server {
        name: "expires-with-request",
        about: "its idle timer is not stopped by a request: one in the last 25 ms is read and not answered",
        found_by: &[("keep-alive-race", Verdict::Fail)],
        run: |listener| each(&listener, |client| idle_exact(client, true)),
        probed: |_| {},
    },
    Server {
        name: "resets-each-500th",
        about: "replaces its worker after 500 requests, and resets the connection instead of the answer",
        found_by: &[("recycle", Verdict::Fail)],
        run: |listener| each(&listener, resets_each_500th),
        probed: |_| {},
    },
];

/// An answer after which the connection is kept.
pub(crate) const KEPT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const REFUSED: &[u8] = b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n";
const BAD: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// What a request is, by its head.
pub(crate) enum Request {
    Get,
    /// The last one of its connection.
    LastGet,
    /// Another method, with a body of this length.
    Body(u64),
    Bad,
}

pub(crate) fn parse(head: &[u8]) -> Request {
    let head = String::from_utf8_lossy(head);
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map(str::parse);
    match length {
        None if head.contains("Connection: close") => Request::LastGet,
        None if head.starts_with("GET ") => Request::Get,
        Some(Ok(length)) => Request::Body(length),
        Some(Err(_)) | None => Request::Bad,
    }
}

/// Whether something is there to be read within this time: bytes, or the client's end.
pub(crate) fn is_readable(client: &TcpStream, within: Duration) -> bool {
    is_seen(client, PollFlags::IN | PollFlags::RDHUP, within)
}

fn is_seen(client: &TcpStream, what: PollFlags, within: Duration) -> bool {
    let within = Timespec::try_from(within).expect("it is short");
    poll(&mut [PollFd::new(client, what)], Some(&within)).is_ok_and(|ready| ready > 0)
}

/// Answers a request. Returns whether the connection is kept.
pub(crate) fn answer(client: &mut TcpStream, head: &[u8]) -> bool {
    let (bytes, is_kept) = match parse(head) {
        Request::Get => (KEPT, true),
        Request::LastGet => (ANSWER, false),
        Request::Body(length) => {
            let mut body = vec![0; usize::try_from(length.min(1 << 20)).unwrap_or_default()];
            (REFUSED, client.read_exact(&mut body).is_ok())
        }
        Request::Bad => (BAD, false),
    };
    client.write_all(bytes).is_ok() && is_kept
}

fn keeps(mut client: TcpStream) {
    while let Some(head) = read_head(&mut client) {
        if !answer(&mut client, &head) {
            break;
        }
    }
    linger(client);
}

fn http_1_0(mut client: TcpStream) {
    if read_head(&mut client).is_some() {
        let _ = client.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello");
    }
    linger(client);
}

fn refuses_pipelining(mut client: TcpStream) {
    while let Some(head) = read_head(&mut client) {
        let has_more = is_seen(&client, PollFlags::IN, Duration::ZERO);
        let head = if has_more { b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec() } else { head };
        if !answer(&mut client, &head) {
            break;
        }
    }
    linger(client);
}

const IDLE: Duration = Duration::from_millis(300);
const LAST_MOMENT: Duration = Duration::from_millis(25);

/// `drops`: a request of the last moment is read, and the connection ends as if it was not.
fn idle_exact(mut client: TcpStream, drops: bool) {
    loop {
        let begun = Instant::now();
        if !is_readable(&client, IDLE) {
            break;
        }
        let left = IDLE.saturating_sub(begun.elapsed());
        let Some(head) = read_head(&mut client) else { break };
        if drops && left < LAST_MOMENT {
            let _ = is_seen(&client, PollFlags::RDHUP, left);
            break;
        }
        if !answer(&mut client, &head) {
            break;
        }
    }
    linger(client);
}

fn answers_first_only(mut client: TcpStream) {
    let mut bytes = [0; 4096];
    while let Ok(length @ 1..) = client.read(&mut bytes) {
        if !answer(&mut client, &bytes[..length]) {
            break;
        }
    }
    linger(client);
}

fn drops_queue_at_fin(mut client: TcpStream) {
    while let Some(head) = read_head(&mut client) {
        if !answer(&mut client, &head) || is_seen(&client, PollFlags::RDHUP, Duration::from_millis(1)) {
            // What is queued is read, and not answered.
            break;
        }
    }
    linger(client);
}

fn waits_for_next(mut client: TcpStream) {
    'connection: while let Some(head) = read_head(&mut client) {
        let mut heads = vec![head];
        while is_seen(&client, PollFlags::IN, Duration::ZERO) {
            let Some(head) = read_head(&mut client) else { break };
            heads.push(head);
        }
        for head in heads {
            if !answer(&mut client, &head) {
                break 'connection;
            }
        }
    }
    linger(client);
}

fn unread_after_error(mut client: TcpStream) {
    while let Some(head) = read_head(&mut client) {
        if let Request::Bad = parse(&head) {
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            let _ = is_seen(&client, PollFlags::RDHUP, Duration::from_secs(60));
            break;
        }
        if !answer(&mut client, &head) {
            break;
        }
    }
    linger(client);
}

fn body_is_request(mut client: TcpStream) {
    while let Some(head) = read_head(&mut client) {
        let is_kept = match parse(&head) {
            Request::Body(_) => client.write_all(REFUSED).is_ok(),
            _ => answer(&mut client, &head),
        };
        if !is_kept {
            break;
        }
    }
    linger(client);
}

fn two_workers(listener: TcpListener) {
    let other = listener.try_clone().expect("there is a descriptor");
    thread::spawn(move || other.incoming().flatten().for_each(keeps));
    listener.incoming().flatten().for_each(keeps);
}

fn resets_each_500th(mut client: TcpStream) {
    static SERVED: AtomicU32 = AtomicU32::new(0);
    while let Some(head) = read_head(&mut client) {
        if SERVED.fetch_add(1, Ordering::Relaxed) % 500 == 499 {
            let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
            return;
        }
        if !answer(&mut client, &head) {
            break;
        }
    }
    linger(client);
}
