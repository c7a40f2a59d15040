//! Records that no TLS library would send: made by hand with the keys of a connection.

use finale_tls::rustls::{Connection, ConnectionTrafficSecrets};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const DATA: u8 = 23;

/// Makes the next records of one side of a connection with ChaCha20-Poly1305.
pub(crate) struct Forger {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    is_tls13: bool,
}

impl Forger {
    /// Continues as `connection`, which has nothing to send.
    pub(crate) fn new(connection: Connection, is_tls13: bool) -> Self {
        let secrets = match connection {
            Connection::Client(connection) => connection.dangerous_extract_secrets(),
            Connection::Server(connection) => connection.dangerous_extract_secrets(),
        };
        let (sequence, secrets) = secrets.expect("extraction is switched on").tx;
        let ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } = secrets else { panic!("another cipher") };
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_ref()).expect("a key");
        let iv = iv.as_ref().try_into().expect("12 bytes");
        Self { key: LessSafeKey::new(key), iv, sequence, is_tls13 }
    }

    /// A record of this type.
    pub(crate) fn record(&mut self, kind: u8, plain: &[u8]) -> Vec<u8> {
        let mut nonce = self.iv;
        nonce.iter_mut().rev().zip(self.sequence.to_le_bytes()).for_each(|(to, byte)| *to ^= byte);
        let mut sealed = plain.to_vec();
        let (header, aad) = if self.is_tls13 {
            sealed.push(kind);
            let header = header(DATA, sealed.len() + 16);
            (header, header.to_vec())
        } else {
            let aad = [&self.sequence.to_be_bytes()[..], &header(kind, plain.len())].concat();
            (header(kind, plain.len() + 16), aad)
        };
        self.sequence += 1;
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut sealed).expect("it is short");
        [&header[..], &sealed].concat()
    }
}

/// Type, version and length of a record.
pub(crate) fn header(kind: u8, length: usize) -> [u8; 5] {
    let [high, low] = u16::try_from(length).expect("a short record").to_be_bytes();
    [kind, 3, 3, high, low]
}

/// A record without encryption.
pub(crate) fn plain(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&header(kind, bytes.len())[..], bytes].concat()
}
