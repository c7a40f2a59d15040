//! How many bytes of plaintext the kernel has taken, when it has taken this many of ciphertext.
//!
//! Invariant: entries are in order. A write whose ciphertext the kernel has taken has no entry.

use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Sums up to and with each write: of ciphertext, of plaintext.
    writes: VecDeque<(u64, u64)>,
    /// All ciphertext, including handshake and alerts.
    ciphertext: u64,
    /// All plaintext.
    plaintext: u64,
    /// The plaintext of the writes that were taken.
    taken: u64,
}

impl Ledger {
    /// Notes a write. The kernel has taken `taken` bytes of ciphertext until now.
    pub(crate) fn note(&mut self, ciphertext: usize, plaintext: usize, taken: u64) {
        while let Some(&(end, plaintext)) = self.writes.front()
            && end <= taken
        {
            self.taken = plaintext;
            self.writes.pop_front();
        }
        self.ciphertext += ciphertext as u64;
        self.plaintext += plaintext as u64;
        if plaintext > 0 {
            self.writes.push_back((self.ciphertext, self.plaintext));
        }
    }

    /// The plaintext that was written.
    pub(crate) const fn total(&self) -> u64 {
        self.plaintext
    }

    /// How much of it the kernel has, if it has taken `taken` bytes of ciphertext. A part of a write
    /// does not count.
    pub(crate) fn taken(&self, taken: u64) -> u64 {
        let whole = self.writes.partition_point(|(end, _)| *end <= taken);
        whole.checked_sub(1).and_then(|last| self.writes.get(last)).map_or(self.taken, |(_, plaintext)| *plaintext)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_writes_that_the_kernel_has_whole_count() {
        let mut ledger = Ledger::default();
        ledger.note(1000, 0, 0); // A handshake.
        ledger.note(122, 100, 1000);
        ledger.note(72, 50, 1000);
        for (taken, plaintext) in [(1000, 0), (1121, 0), (1122, 100), (1193, 100), (1194, 150)] {
            assert_eq!(ledger.taken(taken), plaintext, "{taken} bytes");
        }
        ledger.note(24, 0, 1122);
        assert_eq!((ledger.taken(1122), ledger.taken(1194), ledger.total()), (100, 150, 150));
        ledger.note(24, 2, 1218);
        assert_eq!((ledger.taken(1218), ledger.taken(1242)), (150, 152));
    }
}
