//! How many bytes of plaintext the kernel has taken, when it has taken this many of ciphertext.
//!
//! Invariant: entries are in order. A write whose ciphertext the kernel has taken has no entry.

use std::collections::VecDeque;

/// How many writes can wait by themselves. Later ones count together, so that many small writes cost
/// little.
const MAX_WRITES: usize = 256;

#[derive(Debug)]
struct Write {
    /// Where its ciphertext begins and ends.
    start: u64,
    end: u64,
    /// All plaintext up to and with it.
    plaintext: u64,
}

/// An empty list keeps memory for this many.
const KEPT_WRITES: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    writes: VecDeque<Write>,
    /// All ciphertext, including handshake and alerts.
    ciphertext: u64,
    /// All plaintext.
    plaintext: u64,
    /// The plaintext of the writes that were taken.
    taken: u64,
}

impl Ledger {
    /// The kernel has taken `taken` bytes of ciphertext until now.
    pub(crate) fn settle(&mut self, taken: u64) {
        while let Some(write) = self.writes.front()
            && write.end <= taken
        {
            self.taken = write.plaintext;
            self.writes.pop_front();
        }
        if self.writes.is_empty() && self.writes.capacity() > KEPT_WRITES {
            self.writes = VecDeque::new();
        }
    }

    /// Notes a write. The kernel has taken `taken` bytes of ciphertext until now.
    pub(crate) fn note(&mut self, ciphertext: usize, plaintext: usize, taken: u64) {
        self.settle(taken);
        let mut start = self.ciphertext;
        self.ciphertext += ciphertext as u64;
        self.plaintext += plaintext as u64;
        if plaintext > 0 {
            if self.writes.len() == MAX_WRITES {
                start = self.writes.pop_back().map_or(start, |write| write.start);
            }
            self.writes.push_back(Write { start, end: self.ciphertext, plaintext: self.plaintext });
        }
    }

    /// The plaintext that was written.
    pub(crate) const fn total(&self) -> u64 {
        self.plaintext
    }

    /// How much of it the kernel has, if it has taken `taken` bytes of ciphertext. A part of a write
    /// counts in proportion: the peer can have decrypted some of it.
    pub(crate) fn taken(&self, taken: u64) -> u64 {
        let next = self.writes.partition_point(|write| write.end <= taken);
        let before = next.checked_sub(1).and_then(|last| self.writes.get(last));
        let whole = before.map_or(self.taken, |write| write.plaintext);
        let part = self.writes.get(next).map_or(0, |write| {
            let all = u128::from(write.end - write.start);
            let product = u128::from(taken.saturating_sub(write.start)) * u128::from(write.plaintext - whole);
            u64::try_from(product / all).unwrap_or(0)
        });
        whole + part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_the_kernel_has_in_part_counts_in_proportion() {
        let mut ledger = Ledger::default();
        ledger.note(1000, 0, 0); // A handshake.
        ledger.note(122, 100, 1000);
        ledger.note(72, 50, 1000);
        for (taken, plaintext) in [(999, 0), (1000, 0), (1061, 50), (1121, 99), (1122, 100), (1193, 149), (1194, 150)] {
            assert_eq!(ledger.taken(taken), plaintext, "{taken} bytes");
        }
        ledger.note(24, 0, 1122);
        assert_eq!((ledger.taken(1122), ledger.taken(1194), ledger.total()), (100, 150, 150));
        ledger.note(24, 2, 1218);
        assert_eq!((ledger.taken(1218), ledger.taken(1242)), (150, 152));
    }
}
