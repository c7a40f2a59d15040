//! Servers of a protocol of lines that end a client by their own decision, while it sends.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use finale_probe::{Options, Verdict};

use crate::correct::linger;
use crate::keeper::{Server, each};

pub(crate) const SERVERS: &[Server] = &[
    Server {
        name: "kicks-with-a-word",
        about: "correct: ends each client after 600 ms with a last message, and reads until the client's FIN",
        found_by: &[],
        run: |listener| each(&listener, |client| kicks(client, linger)),
        probed: with_lines,
    },
    Server {
        name: "kicks-and-closes",
        about: "ends each client after 600 ms with a last message, and closes at once",
        found_by: &[("farewell-while-talking", Verdict::Fail)],
        run: |listener| each(&listener, |client| kicks(client, drop)),
        probed: with_lines,
    },
    Server {
        name: "refuses-lines",
        about: "refuses a long upload of a protocol that is not HTTP, and closes with it unread",
        found_by: &[("early-answer", Verdict::Fail)],
        run: |listener| each(&listener, refuses_lines),
        probed: |options| {
            with_lines(options);
            options.upload = Some(b"store 28000000\n".to_vec());
        },
    },
];

fn with_lines(options: &mut Options) {
    options.request = b"hello\n".to_vec();
}

/// Welcomes each line.
fn kicks(mut client: TcpStream, end: fn(TcpStream)) {
    let begun = Instant::now();
    let mut some = [0; 4096];
    loop {
        let left = Duration::from_millis(600).saturating_sub(begun.elapsed());
        if left.is_zero() {
            let _ = client.write_all(b"goodbye: you have talked enough\n");
            let _ = client.set_read_timeout(Some(Duration::from_secs(1)));
            return end(client);
        }
        let _ = client.set_read_timeout(Some(left));
        match client.read(&mut some) {
            Ok(0) => return linger(client),
            Ok(bytes) => {
                for _ in some[..bytes].iter().filter(|byte| **byte == b'\n') {
                    let _ = client.write_all(b"welcome\n");
                }
            }
            Err(_) => {}
        }
    }
}

fn refuses_lines(mut client: TcpStream) {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while matches!(client.read(&mut byte), Ok(1)) {
        line.push(byte[0]);
        if byte != *b"\n" {
            continue;
        }
        if line.starts_with(b"store") {
            let _ = client.write_all(b"too big\n");
            return;
        }
        let _ = client.write_all(b"welcome\n");
        line.clear();
    }
}
