//! The request, and the answer that is expected. Pure.
//!
//! Invariant: a piece of an answer is compared in place, by its offset in the answer. Nothing is
//! collected.

use crate::serve::LINE;

/// What requests repeat: text for `upper`, without spaces, which it would trim.
const REQUEST: &[u8; 64] = b"finale-bench/0123456789/abcdefghijklmnopqrstuvwxyz/ABCDEFGHIJKLM";
/// 64 KiB, for one write or one read. A multiple of the repeated line.
const PIECE_BYTES: usize = 64 << 10;

/// Where an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// `serve answer`: its line, over and over.
    Line,
    /// `serve echo`: the request.
    Echo,
    /// `serve upper`: a few words and the request in upper case.
    Upper,
    /// Another server: only the length is known.
    Unknown,
}

/// A piece of a request. Longer requests repeat it.
pub(super) fn request_piece() -> Vec<u8> {
    REQUEST.repeat(PIECE_BYTES / REQUEST.len())
}

/// The expected answer.
#[derive(Debug)]
pub(super) struct Expected {
    bytes: u64,
    prefix: &'static [u8],
    /// What is repeated after the prefix. Longer than a piece by one line, so that a piece can
    /// begin anywhere in the line. Empty if any content is right.
    repeated: Vec<u8>,
}

impl Expected {
    pub(super) fn new(source: Source, bytes: u64) -> Self {
        let (prefix, line): (&[u8], _) = match source {
            Source::Line => (b"", *LINE),
            Source::Echo => (b"", *REQUEST),
            Source::Upper => (b"Processed: ", REQUEST.map(|byte| byte.to_ascii_uppercase())),
            Source::Unknown => return Self { bytes, prefix: b"", repeated: Vec::new() },
        };
        let bytes = bytes + prefix.len() as u64;
        Self { bytes, prefix, repeated: line.repeat(PIECE_BYTES / line.len() + 1) }
    }

    /// Whether more than its length is known.
    pub(super) const fn is_known(&self) -> bool {
        !self.repeated.is_empty()
    }

    /// How long the whole answer is.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the answer has this piece at this offset. Bytes after its end are detected by its
    /// length.
    pub(super) fn has(&self, offset: u64, piece: &[u8]) -> bool {
        if self.repeated.is_empty() {
            return true;
        }
        let prefix = usize::try_from(offset).ok().and_then(|offset| self.prefix.get(offset..)).unwrap_or_default();
        let (head, rest) = piece.split_at(prefix.len().min(piece.len()));
        let repeated_from = (offset + head.len() as u64).saturating_sub(self.prefix.len() as u64);
        let from = (repeated_from % REQUEST.len() as u64) as usize;
        let mut chunks = rest.chunks(PIECE_BYTES);
        prefix.starts_with(head) && chunks.all(|chunk| *chunk == self.repeated[from..from + chunk.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_right_however_it_is_cut_and_wrong_where_a_byte_is_changed() {
        for source in [Source::Line, Source::Echo, Source::Upper] {
            let expected = Expected::new(source, 200_000);
            let line: Vec<u8> = match source {
                Source::Line | Source::Unknown => LINE.to_vec(),
                Source::Echo => REQUEST.to_vec(),
                Source::Upper => REQUEST.to_ascii_uppercase(),
            };
            let mut whole = if source == Source::Upper { b"Processed: ".to_vec() } else { Vec::new() };
            whole.extend(line.iter().cycle().take(200_000));
            assert_eq!(expected.bytes(), whole.len() as u64);
            for size in [1, 7, 64, 65, 65_536, 200_011] {
                let pieces = whole.chunks(size).scan(0, |place, piece| {
                    *place += piece.len() as u64;
                    Some((*place - piece.len() as u64, piece))
                });
                assert!({ pieces }.all(|(place, piece)| expected.has(place, piece)), "{source:?} by {size}");
            }
            for at in [0, 10, 11, 63, 64, 65_536, 199_999] {
                let mut wrong = whole.clone();
                wrong[at] ^= 1;
                assert!(!expected.has(0, &wrong), "{source:?} at {at}");
            }
            assert!(!expected.has(0, &whole[1..]), "a byte is missing");
        }
    }

    #[test]
    fn of_the_answer_of_another_server_only_the_length_is_known() {
        let expected = Expected::new(Source::Unknown, 5);
        assert!(expected.has(0, b"hello") && expected.bytes() == 5);
    }

    #[test]
    fn a_request_is_text_that_upper_does_not_trim() {
        let piece = request_piece();
        assert_eq!(piece.len(), PIECE_BYTES);
        assert!(piece.iter().all(u8::is_ascii_graphic));
    }
}
