//! How servers of the zoo read with a deadline.

use std::io::Read as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How a read of a head ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Complete,
    /// The client has ended or failed.
    Ended,
    Expired,
}

/// The end of a request's head.
pub(crate) const HEAD: &[u8] = b"\r\n\r\n";

/// Reads until the bytes end with `end`. Before each byte `deadline` says until when it may come.
pub(crate) fn read_until(
    client: &mut TcpStream,
    end: &[u8],
    mut deadline: impl FnMut(&[u8]) -> Option<Instant>,
) -> (Read, Vec<u8>) {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(end) {
        let left = deadline(&bytes).map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) || client.set_read_timeout(left).is_err() {
            return (Read::Expired, bytes);
        }
        match client.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            Ok(_) => return (Read::Ended, bytes),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                return (Read::Expired, bytes);
            }
            Err(_) => return (Read::Ended, bytes),
        }
    }
    (Read::Complete, bytes)
}

/// The same with one deadline for all bytes: as it should be.
pub(crate) fn read_within(client: &mut TcpStream, end: &[u8], limit: Duration) -> (Read, Vec<u8>) {
    let deadline = Instant::now() + limit;
    read_until(client, end, |_| Some(deadline))
}
