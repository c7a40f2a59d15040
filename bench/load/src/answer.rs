//! The bytes of an answer: one line of 64 bytes, over and over, the same from every server.

/// What `finale serve answer` repeats.
pub const LINE: &[u8; 64] = b"finale: 64 bytes that say nothing but that the answer is whole.\n";
/// The most that goes into one write, or comes out of one read: 64 KiB stay in a core's own cache,
/// and are enough to make the price of a call small compared with its bytes.
pub const PIECE_BYTES: usize = 64 << 10;

/// One line longer than a piece, so that a whole piece can start in the middle of a line.
static LINES: [u8; PIECE_BYTES + LINE.len()] = lines();

const fn lines() -> [u8; PIECE_BYTES + LINE.len()] {
    let mut lines = [0; PIECE_BYTES + LINE.len()];
    let mut at = 0;
    while at < lines.len() {
        lines[at] = LINE[at % LINE.len()];
        at += 1;
    }
    lines
}

/// The bytes that follow when `sent` of `total` are gone: up to a piece, nothing at the end.
#[must_use]
pub fn piece(sent: u64, total: u64) -> &'static [u8] {
    let from = (sent % LINE.len() as u64) as usize;
    let left = total.saturating_sub(sent).min(PIECE_BYTES as u64) as usize;
    &LINES[from..from + left]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_the_one_that_finale_serve_repeats() {
        let theirs = include_str!("../../../cli/src/serve/service.rs");
        let ours = format!("b\"{}\"", LINE.escape_ascii());
        assert!(theirs.contains(&ours), "{ours}");
    }

    #[test]
    fn pieces_of_any_length_make_up_the_repeated_line() {
        let total = 3 * PIECE_BYTES as u64 + 17;
        for step in [1, 63, 64, 65, 4096, PIECE_BYTES] {
            let mut made = Vec::new();
            while !piece(made.len() as u64, total).is_empty() {
                let piece = piece(made.len() as u64, total);
                made.extend_from_slice(&piece[..piece.len().min(step)]);
            }
            assert_eq!(made.len() as u64, total);
            assert!(made.chunks(LINE.len()).all(|line| LINE.starts_with(line)), "in steps of {step}");
        }
    }
}
