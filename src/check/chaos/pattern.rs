//! The bytes of a stream. Each is known from its offset, so that a lost, doubled or invented byte
//! is found.

use std::sync::LazyLock;

/// Prime, so that no buffer size divides it.
pub(super) const PERIOD: usize = 65_521;

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut rng = crate::sim::Rng::new(0);
    (0..PERIOD).map(|_| rng.next_u64() as u8).collect()
});

/// A stream: the conversation, and whether the client writes it.
pub(super) type Stream = (usize, bool);

fn start(stream: Stream, at: u64) -> usize {
    ((at + 9_973 * (2 * stream.0 as u64 + u64::from(stream.1))) % PERIOD as u64) as usize
}

/// This many bytes of a stream from an offset.
pub(super) fn bytes(stream: Stream, at: u64, count: u64) -> Vec<u8> {
    let (mut from, mut bytes) = (start(stream, at), Vec::with_capacity(count as usize));
    while (bytes.len() as u64) < count {
        let piece = (PERIOD - from).min(count as usize - bytes.len());
        bytes.extend_from_slice(&BYTES[from..from + piece]);
        from = 0;
    }
    bytes
}

/// The offset of the first byte that is not the stream's.
pub(super) fn mismatch(stream: Stream, at: u64, mut bytes: &[u8]) -> Option<u64> {
    let (mut from, mut offset) = (start(stream, at), at);
    while !bytes.is_empty() {
        let piece = (PERIOD - from).min(bytes.len());
        if bytes[..piece] != BYTES[from..from + piece] {
            return bytes[..piece]
                .iter()
                .zip(&BYTES[from..])
                .position(|(got, want)| got != want)
                .map(|n| offset + n as u64);
        }
        (bytes, offset, from) = (&bytes[piece..], offset + piece as u64, 0);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_told_from_itself_shifted_and_from_others() {
        let stream = (1, true);
        let all = bytes(stream, 0, 200_000);
        assert_eq!(mismatch(stream, 0, &all), None);
        assert_eq!(bytes(stream, 65_000, 2_000), all[65_000..67_000]);
        assert!(mismatch(stream, 1, &all).is_some_and(|offset| offset < 20));
        assert!(mismatch((1, false), 0, &all).is_some_and(|offset| offset < 20));
        let mut broken = all;
        broken[123_456] ^= 1;
        assert_eq!(mismatch(stream, 0, &broken), Some(123_456));
    }
}
