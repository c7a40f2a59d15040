//! Correct servers whose answers are unusual.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use crate::correct::{linger, read_head};
use crate::keeper::{Server, each};

pub(crate) const SERVERS: &[Server] = &[
    Server {
        name: "answers-head",
        about: "correct: the answer to HEAD declares a length, and has no body",
        found_by: &[],
        run: |listener| {
            each(&listener, |client| {
                answers(client, |head, _| [DECLARED, if head.starts_with(b"HEAD") { &[] } else { &BODY[..] }].concat())
            })
        },
        probed: |options| options.request = b"HEAD / HTTP/1.1\r\nHost: zoo\r\nConnection: close\r\n\r\n".to_vec(),
    },
    Server {
        name: "sends-trailers",
        about: "correct: its chunks are followed by a trailer",
        found_by: &[],
        run: |listener| {
            each(&listener, |client| answers(client, |_, _| [CHUNKED, b"5\r\nhello\r\n0\r\nX-A: b\r\n\r\n"].concat()))
        },
        probed: |_| {},
    },
    Server {
        name: "sends-early-hints",
        about: "correct: 103 precedes its answer",
        found_by: &[],
        run: |listener| each(&listener, |client| answers(client, |_, _| [HINTS, DECLARED, &BODY].concat())),
        probed: |_| {},
    },
    Server {
        name: "varies-in-chunks",
        about: "correct: answers in chunks, each time of another length",
        found_by: &[],
        run: |listener| {
            each(&listener, |client| {
                answers(client, |_, id| [CHUNKED, format!("{:x}\r\n{id}\r\n0\r\n\r\n", id.len()).as_bytes()].concat())
            });
        },
        probed: |_| {},
    },
    Server {
        name: "varies-until-fin",
        about: "correct: its answers declare no length, and each has another one",
        found_by: &[],
        run: |listener| each(&listener, |client| answers(client, |_, id| [UNTIL_FIN, id.as_bytes(), b"\n"].concat())),
        probed: |_| {},
    },
];

const DECLARED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n";
const BODY: [u8; 1000] = [b'x'; 1000];
const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
const UNTIL_FIN: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nid=";

/// One answer per connection, which can depend on an id. Some clients get a shorter one.
fn answers(mut client: TcpStream, answer: impl FnOnce(&[u8], &str) -> Vec<u8>) {
    let _ = client.set_read_timeout(Some(Duration::from_secs(1)));
    let Some(head) = read_head(&mut client) else { return };
    let is_odd = client.peer_addr().is_ok_and(|addr| addr.port() / 2 % 4 == 0);
    let _ = client.write_all(&answer(&head, if is_odd { "7" } else { "7777" }));
    linger(client);
}
