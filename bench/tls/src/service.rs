//! The protocol that all servers share, and nothing of the network.
//!
//! A client sends one command at a time and waits for its answer: `p` is answered by one byte; `d`
//! and eight bytes with a number N (big-endian) by N bytes; `u`, N and N bytes by one byte. After
//! the client's close_notify the server sends its own and closes.

/// The size of one write of each server and client.
pub const PIECE_BYTES: usize = 64 * 1024;

static PIECE: [u8; PIECE_BYTES] = [0x5a; PIECE_BYTES];

/// What one connection has received and still owes.
#[derive(Debug, Default)]
pub struct Service {
    header: [u8; 9],
    filled: u8,
    /// Bytes of an upload that have not arrived.
    upload: u64,
    /// Bytes of an answer that were not sent.
    pending: u64,
}

impl Service {
    /// Takes what the client has sent.
    pub fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.upload > 0 {
                let taken = self.upload.min(bytes.len() as u64);
                self.upload -= taken;
                self.pending += u64::from(self.upload == 0);
                bytes = &bytes[taken as usize..];
                continue;
            }
            self.header[usize::from(self.filled)] = bytes[0];
            self.filled += 1;
            bytes = &bytes[1..];
            self.command();
        }
    }

    fn command(&mut self) {
        let number = u64::from_be_bytes(self.header[1..].try_into().expect("eight bytes"));
        match (self.header[0], self.filled) {
            (b'p', _) => self.pending += 1,
            (b'd', 9) => self.pending += number,
            (b'u', 9) => {
                self.upload = number;
                self.pending += u64::from(number == 0);
            }
            (b'd' | b'u', _) => return,
            // A byte that is no command is ignored.
            _ => {}
        }
        self.filled = 0;
    }

    /// What is to be sent next, at most `PIECE_BYTES`; empty if nothing is.
    #[must_use]
    pub fn piece(&self) -> &'static [u8] {
        &PIECE[..self.pending.min(PIECE_BYTES as u64) as usize]
    }

    /// This many bytes of the piece were taken by the TLS session.
    pub fn sent(&mut self, bytes: usize) {
        self.pending -= bytes as u64;
    }
}

/// A command with a number, as a client sends it.
#[must_use]
pub fn command(kind: u8, number: u64) -> [u8; 9] {
    let mut bytes = [kind; 9];
    bytes[1..].copy_from_slice(&number.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_understood_however_they_are_cut() {
        let mut conversation = b"p".to_vec();
        conversation.extend(command(b'd', 100_000));
        conversation.extend(command(b'u', 3));
        conversation.extend(b"xyzp");
        for size in 1..=conversation.len() {
            let mut service = Service::default();
            conversation.chunks(size).for_each(|chunk| service.receive(chunk));
            let mut sent = 0;
            while !service.piece().is_empty() {
                sent += service.piece().len();
                service.sent(service.piece().len());
            }
            assert_eq!(sent, 1 + 100_000 + 1 + 1, "cut every {size} bytes");
        }
    }
}
