//! Correct servers.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::keeper::{Server, each};

pub(crate) const SERVERS: &[Server] = &[Server {
    name: "closes-each",
    about: "correct: one answer per connection, then its FIN, and it reads on until the client's",
    found_by: &[],
    run: |listener| each(&listener, closes_each),
    probed: |_| {},
}];

/// The answer to a request of the zoo.
pub(crate) const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";

/// Reads up to the end of a request's head; empty if the client has ended before. The read timeout
/// of the socket is one for the whole head here, since a timeout that each byte renews can be
/// outlived for ever.
pub(crate) fn head(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let limit = client.read_timeout()?;
    let deadline = limit.map(|limit| Instant::now() + limit);
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        client.set_read_timeout(left)?;
        match client.read(&mut byte)? {
            0 => return Ok(Vec::new()),
            _ => head.push(byte[0]),
        }
    }
    client.set_read_timeout(limit)?;
    Ok(head)
}

/// The same; `None`: the client has ended or failed before, or the time is over.
pub(crate) fn read_head(client: &mut TcpStream) -> Option<Vec<u8>> {
    let limit = client.read_timeout().ok()?;
    let head = head(client).ok().filter(|head| !head.is_empty());
    let _ = client.set_read_timeout(limit);
    head
}

fn closes_each(mut client: TcpStream) {
    let _ = client.set_read_timeout(Some(Duration::from_secs(1)));
    if read_head(&mut client).is_none() {
        return;
    }
    let _ = client.write_all(ANSWER);
    linger(client);
}

/// Finishes, and reads what still comes: a close with unread bytes would reset the answer.
pub(crate) fn linger(mut client: TcpStream) {
    let _ = client.shutdown(Shutdown::Write);
    while matches!(client.read(&mut [0; 4096]), Ok(1..)) {}
}
