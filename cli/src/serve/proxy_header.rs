//! The PROXY protocol, versions 1 and 2, as haproxy.org describes it (proxy-protocol.txt): the
//! first bytes of a connection that a balancer passes on, with the client's address.

use std::net::SocketAddr;

use ppp::{v1, v2};

/// The longest line of version 1, with its end.
const LINE_BYTES: usize = 107;
const LINE_PREFIX: &[u8] = b"PROXY ";

/// A complete header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) bytes: usize,
    /// `None`: the balancer itself is the client (a health check), or it does not know the address.
    pub(super) client: Option<SocketAddr>,
}

/// A connection does not begin with a header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoHeader;

/// The header at the beginning of these bytes; `None` if more bytes are needed.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header>, NoHeader> {
    let begins = |prefix: &[u8]| bytes.iter().zip(prefix).all(|(byte, expected)| byte == expected);
    if begins(v2::PROTOCOL_PREFIX) {
        binary(bytes)
    } else if begins(LINE_PREFIX) {
        line(bytes)
    } else {
        Err(NoHeader)
    }
}

/// Version 2.
fn binary(bytes: &[u8]) -> Result<Option<Header>, NoHeader> {
    // The command LOCAL: whatever follows is skipped, and the address is the balancer's.
    if let Some(&[0x20, _, high, low]) = bytes.get(12..16) {
        let whole = 16 + usize::from(u16::from_be_bytes([high, low]));
        return Ok((bytes.len() >= whole).then_some(Header { bytes: whole, client: None }));
    }
    let header = match v2::Header::try_from(bytes) {
        Ok(header) => header,
        Err(v2::ParseError::Incomplete(_) | v2::ParseError::Partial(..)) => return Ok(None),
        Err(_) => return Err(NoHeader),
    };
    let client = match header.addresses {
        _ if header.protocol == v2::Protocol::Datagram => return Err(NoHeader),
        v2::Addresses::IPv4(pair) => Some((pair.source_address, pair.source_port).into()),
        v2::Addresses::IPv6(pair) => Some((pair.source_address, pair.source_port).into()),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    };
    Ok(Some(Header { bytes: header.header.len(), client }))
}

/// Version 1. Only a complete line is parsed: where one is cut, a field looks complete or wrong.
fn line(bytes: &[u8]) -> Result<Option<Header>, NoHeader> {
    let line = &bytes[..bytes.len().min(LINE_BYTES)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return if line.len() < LINE_BYTES { Ok(None) } else { Err(NoHeader) };
    };
    if line[..end].contains(&b'+') {
        return Err(NoHeader); // A number with a sign, which the parser accepts.
    }
    let header = v1::Header::try_from(&line[..=end]).map_err(|_| NoHeader)?;
    let client = match header.addresses {
        v1::Addresses::Tcp4(pair) => Some((pair.source_address, pair.source_port).into()),
        v1::Addresses::Tcp6(pair) => Some((pair.source_address, pair.source_port).into()),
        v1::Addresses::Unknown => None,
    };
    Ok(Some(Header { bytes: end + 1, client }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Option<SocketAddr> {
        Some(text.parse().expect("an address"))
    }

    /// Complete headers, and the client that they name.
    fn headers() -> Vec<(Vec<u8>, Option<SocketAddr>)> {
        let pairs = [("192.0.2.7:4000", "192.0.2.1:80"), ("[2001:db8::7]:4000", "[2001:db8::1]:80")];
        let mut headers = vec![
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 80\r\n".to_vec(), addr("192.0.2.7:4000")),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 4000 80\r\n".to_vec(), addr("[2001:db8::7]:4000")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\0".to_vec(), None),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\x41\0\x02ab".to_vec(), None),
            (b"PROXY UNKNOWN ffff:: ffff:: 65535 65535\r\n".to_vec(), None),
        ];
        for (client, server) in pairs {
            let pair: (SocketAddr, SocketAddr) = (addr(client).expect("some"), addr(server).expect("some"));
            for (command, named) in [(v2::Command::Proxy, addr(client)), (v2::Command::Local, None)] {
                let header = v2::Builder::with_addresses(v2::Version::Two | command, v2::Protocol::Stream, pair);
                let header = header.write_tlv(v2::Type::NoOp, b"padding").expect("it fits").build().expect("it fits");
                headers.push((header, named));
            }
        }
        headers
    }

    #[test]
    fn a_header_is_found_however_it_is_cut_and_whatever_follows_it() {
        for (header, client) in headers() {
            for cut in 0..header.len() {
                assert_eq!(parse(&header[..cut]), Ok(None), "{header:?} cut at {cut}");
            }
            for rest in [&b""[..], b"x", b"\xff\0\r\nPROXY TCP4"] {
                let bytes = [&header[..], rest].concat();
                assert_eq!(parse(&bytes), Ok(Some(Header { bytes: header.len(), client })), "{header:?}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused_at_its_first_wrong_byte() {
        let long = format!("PROXY UNKNOWN {}", "x".repeat(200));
        for wrong in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXZ",
            b"\r\n\r\n\0\r\nQUIX",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 70000\r\n",
            b"PROXY TCP4 2001:db8::7 192.0.2.1 4000 80\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 80\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 +4000 80\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c............",
            b"PROXY \r\n",
            b"PROXY \xff\xff\r\n",
            long.as_bytes(),
        ] {
            assert_eq!(parse(wrong), Err(NoHeader), "{}", String::from_utf8_lossy(wrong));
        }
    }
}
