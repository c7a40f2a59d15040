//! Servers of HTTP that answer early, late, or with unread input; and correct ones that look so.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use finale_probe::Verdict;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::correct::{ANSWER, linger, read_head};
use crate::keeper::{Server, each};
use crate::kept;

pub(crate) const SERVERS: &[Server] = &[
    Server {
        name: "answers-500-at-fin",
        about: "answers 500 to a client that has ended, where others get 200",
        found_by: &[("half-close", Verdict::Fail)],
        run: |listener| each(&listener, answers_500_at_fin),
        probed: |_| {},
    },
    Server {
        name: "drops-slow-at-fin",
        about: "drops a slow answer if the client ends meanwhile; fast ones are ready before",
        found_by: &[("half-close", Verdict::Fail)],
        run: |listener| each(&listener, drops_slow_at_fin),
        probed: |options| options.slow_request = Some(b"GET /slow HTTP/1.1\r\nHost: zoo\r\n\r\n".to_vec()),
    },
    Server {
        name: "answers-first-line",
        about: "answers the first line, and closes without reading the rest of the head if that comes later",
        found_by: &[("late-input", Verdict::Fail)],
        run: |listener| each(&listener, answers_first_segment),
        probed: |_| {},
    },
    Server {
        name: "unread-at-close",
        about: "closes right after its answer, though another request may already be there",
        found_by: &[("late-input", Verdict::Fail)],
        run: |listener| each(&listener, closes_at_once),
        probed: |options| options.request = KEEP_ALIVE.to_vec(),
    },
    Server {
        name: "told-unread-at-close",
        about: "the same, for a client that has announced that it sends no other request",
        found_by: &[("late-input", Verdict::Warn)],
        run: |listener| each(&listener, closes_at_once),
        probed: |_| {},
    },
    Server {
        name: "refuses-and-closes",
        about: "refuses an upload, and closes with the body unread",
        found_by: &[("early-answer", Verdict::Fail)],
        run: |listener| each(&listener, |client| refuses(client, drop)),
        probed: |_| {},
    },
    Server {
        name: "drains-256k",
        about: "refuses an upload, reads 256 KiB more, and closes then",
        found_by: &[("early-answer", Verdict::Warn)],
        run: |listener| each(&listener, |client| refuses(client, drains_a_bit)),
        probed: |_| {},
    },
    Server {
        name: "refuses-and-waits",
        about: "correct: refuses an upload, keeps the connection, and waits for the announced rest",
        found_by: &[],
        run: |listener| each(&listener, |client| refuses(client, waits)),
        probed: |_| {},
    },
    Server {
        name: "refuses-and-drains",
        about: "correct: refuses an upload, ends its side, and reads until the client's FIN",
        found_by: &[],
        run: |listener| each(&listener, |client| refuses(client, linger)),
        probed: |_| {},
    },
    Server {
        name: "refuses-and-reads-1-s",
        about: "correct: refuses an upload, ends its side, reads for 1 s, and closes then whatever comes",
        found_by: &[],
        run: |listener| each(&listener, |client| refuses(client, reads_for_a_second)),
        probed: |_| {},
    },
    Server {
        name: "reads-the-body",
        about: "correct: reads the whole upload before it answers",
        found_by: &[],
        run: |listener| each(&listener, reads_the_body),
        probed: |_| {},
    },
    Server {
        name: "thinks",
        about: "correct: needs 30 ms for each answer",
        found_by: &[],
        run: |listener| each(&listener, thinks),
        probed: |_| {},
    },
    Server {
        name: "keeps-open",
        about: "correct: takes several requests per connection, and ends it after an idle second",
        found_by: &[],
        run: |listener| each(&listener, keeps_open),
        probed: |options| options.request = KEEP_ALIVE.to_vec(),
    },
];

const KEEP_ALIVE: &[u8] = b"GET / HTTP/1.1\r\nHost: zoo\r\n\r\n";
const REFUSAL: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo big\n";
const BROKEN: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Whether the client has ended, or does within this time.
fn has_ended(client: &TcpStream, time: Duration) -> bool {
    let time = Timespec::try_from(time).expect("it is short");
    poll(&mut [PollFd::new(client, PollFlags::RDHUP)], Some(&time)).is_ok_and(|gone| gone > 0)
}

fn answers_500_at_fin(mut client: TcpStream) {
    if read_head(&mut client).is_some() {
        let ended = has_ended(&client, Duration::from_millis(1));
        let _ = client.write_all(if ended { BROKEN } else { ANSWER });
        linger(client);
    }
}

fn drops_slow_at_fin(mut client: TcpStream) {
    let Some(head) = read_head(&mut client) else { return };
    if head.starts_with(b"GET /slow") && has_ended(&client, Duration::from_millis(300)) {
        return;
    }
    let _ = client.write_all(ANSWER);
    linger(client);
}

fn answers_first_segment(mut client: TcpStream) {
    let (mut head, mut some) = (Vec::new(), [0; 4096]);
    while !head.contains(&b'\n') {
        match client.read(&mut some) {
            Ok(bytes @ 1..) => head.extend_from_slice(&some[..bytes]),
            _ => return,
        }
    }
    let _ = client.write_all(ANSWER);
}

fn closes_at_once(mut client: TcpStream) {
    if read_head(&mut client).is_some() {
        let _ = client.write_all(ANSWER);
    }
}

/// Answers as the correct servers do; but an upload is refused, and the connection ended so.
fn refuses(mut client: TcpStream, end: fn(TcpStream)) {
    let _ = client.set_read_timeout(Some(Duration::from_secs(3)));
    let Some(head) = read_head(&mut client) else { return };
    if head.starts_with(b"POST ") {
        let _ = client.write_all(REFUSAL);
        end(client);
    } else {
        let _ = client.write_all(ANSWER);
        linger(client);
    }
}

fn drains_a_bit(mut client: TcpStream) {
    let _ = client.shutdown(Shutdown::Write);
    let (mut left, mut some) = (256 * 1024_usize, [0; 4096]);
    while left > 0 {
        match client.read(&mut some) {
            Ok(bytes @ 1..) => left = left.saturating_sub(bytes),
            _ => return,
        }
    }
}

fn waits(mut client: TcpStream) {
    while matches!(client.read(&mut [0; 65_536]), Ok(1..)) {}
}

fn reads_for_a_second(mut client: TcpStream) {
    let _ = client.shutdown(Shutdown::Write);
    let _ = client.set_read_timeout(Some(Duration::from_millis(50)));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        match client.read(&mut [0; 65_536]) {
            Ok(0) => return,
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return,
            Ok(_) | Err(_) => {}
        }
    }
}

fn reads_the_body(mut client: TcpStream) {
    let _ = client.set_read_timeout(Some(Duration::from_secs(3)));
    let Some(head) = read_head(&mut client) else { return };
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = head.split("Content-Length: ").nth(1).and_then(|value| value.split("\r\n").next());
    let mut left: usize = length.and_then(|value| value.parse().ok()).unwrap_or(0);
    let mut some = [0; 65_536];
    while left > 0 {
        match client.read(&mut some) {
            Ok(bytes @ 1..) => left = left.saturating_sub(bytes),
            _ => return,
        }
    }
    let _ = client.write_all(ANSWER);
    linger(client);
}

fn thinks(mut client: TcpStream) {
    let _ = client.set_read_timeout(Some(Duration::from_secs(1)));
    if read_head(&mut client).is_some() {
        // Work, and no wait for an event.
        thread::park_timeout(Duration::from_millis(30));
        let _ = client.write_all(ANSWER);
        linger(client);
    }
}

fn keeps_open(mut client: TcpStream) {
    let _ = client.set_read_timeout(Some(Duration::from_secs(1)));
    while let Some(head) = read_head(&mut client) {
        let is_upload = head.starts_with(b"POST ");
        if is_upload {
            let _ = client.write_all(REFUSAL);
        }
        if is_upload || !kept::answer(&mut client, &head) {
            break;
        }
    }
    linger(client);
}
