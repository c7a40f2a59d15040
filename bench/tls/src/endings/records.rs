//! Records of TLS 1.3 by hand: after the handshake the keys are taken from rustls, so that a peer
//! can send what no library would send.

use std::io::{self, Read};

use finale_load::pinned::wrong;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};

use crate::config::other;

/// The types of a record's content.
pub(super) const ALERT: u8 = 21;
pub(super) const DATA: u8 = 23;

const HEADER_BYTES: usize = 5;
const TAG_BYTES: usize = 16;

/// The keys of one direction.
struct Direction {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Direction {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> io::Result<Self> {
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
            return Err(wrong("another cipher suite".to_owned()));
        };
        let key = UnboundKey::new(&AES_128_GCM, key.as_ref()).map_err(other)?;
        let iv = iv.as_ref().try_into().map_err(other)?;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence })
    }

    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Both directions of a connection.
pub(super) struct Records {
    tx: Direction,
    rx: Direction,
}

impl Records {
    pub(super) fn new(secrets: ExtractedSecrets) -> io::Result<Self> {
        Ok(Self { tx: Direction::new(secrets.tx)?, rx: Direction::new(secrets.rx)? })
    }

    /// A record as it is sent.
    pub(super) fn seal(&mut self, kind: u8, content: &[u8]) -> io::Result<Vec<u8>> {
        let mut inner = content.to_vec();
        inner.push(kind);
        let length = ((inner.len() + TAG_BYTES) as u16).to_be_bytes();
        let header = [DATA, 3, 3, length[0], length[1]];
        let nonce = self.tx.next_nonce();
        self.tx.key.seal_in_place_append_tag(nonce, Aad::from(header), &mut inner).map_err(other)?;
        Ok([&header[..], &inner].concat())
    }

    /// The type and the content of a record that was received.
    pub(super) fn open(&mut self, record: &[u8]) -> io::Result<(u8, Vec<u8>)> {
        let (header, body) = record.split_at(HEADER_BYTES);
        if header[0] != DATA {
            // A change_cipher_spec, or an alert that is not encrypted.
            return Ok((header[0], body.to_vec()));
        }
        let mut body = body.to_vec();
        let nonce = self.rx.next_nonce();
        let plain = self.rx.key.open_in_place(nonce, Aad::from(header), &mut body).map_err(other)?;
        let end = plain.iter().rposition(|byte| *byte != 0).ok_or_else(|| wrong("a record without type".to_owned()))?;
        Ok((plain[end], plain[..end].to_vec()))
    }
}

/// One whole record; `None` at the end.
pub(super) fn read(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut record = vec![0; HEADER_BYTES];
    let mut filled = 0;
    while filled < record.len() {
        match stream.read(&mut record[filled..])? {
            0 => return Ok(None),
            read => filled += read,
        }
        if filled == HEADER_BYTES {
            let length = u16::from_be_bytes([record[3], record[4]]);
            record.resize(HEADER_BYTES + usize::from(length), 0);
        }
    }
    Ok(Some(record))
}
