//! Parts of requests: where one is cut, and how one is sent slowly.

/// A part of a request that is sent, and then nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) stage: Stage,
    pub(super) sent: Vec<u8>,
    /// What could follow, and does not complete the request.
    pub(super) next: Vec<u8>,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Head,
    Body,
}

/// The announced length of a body that never comes.
const BODY: usize = 100_000;

/// The lines of an HTTP/1 request: its first line, and the other lines of its head without the
/// empty one. `None`: it is something else.
struct Http<'a> {
    line: &'a [u8],
    headers: &'a [u8],
}

fn http(request: &[u8]) -> Option<Http<'_>> {
    let line_end = request.windows(2).position(|pair| pair == b"\r\n")?;
    let head_end = request.windows(4).position(|end| end == b"\r\n\r\n")?;
    let line = &request[..line_end];
    let version = &line[line.len().checked_sub(8)?..];
    version
        .starts_with(b"HTTP/1.")
        .then(|| Http { line, headers: &request[line_end + 2..(head_end + 2).max(line_end + 2)] })
}

/// Whether a request is one of HTTP/1: a request line, and an empty line after it and its headers,
/// all ended by CR LF (RFC 9112, section 2.1).
#[must_use]
pub fn is_http(request: &[u8]) -> bool {
    http(request).is_some()
}

/// The head of a POST to the same place, with a body to come.
fn post(http: &Http<'_>) -> Vec<u8> {
    let target = http.line.split(|byte| *byte == b' ').nth(1).unwrap_or(b"/");
    let host = http.headers.split(|byte| *byte == b'\n').find(|line| line.to_ascii_lowercase().starts_with(b"host:"));
    let host = host.map_or(&b"Host: probe"[..], |line| line.trim_ascii_end());
    let length = format!("\r\nContent-Type: application/octet-stream\r\nContent-Length: {BODY}\r\n\r\n");
    [b"POST ", target, b" HTTP/1.1\r\n", host, length.as_bytes()].concat()
}

/// Where a request can stop.
pub(super) fn parts(request: &[u8]) -> Vec<Part> {
    let part = |name, stage, sent: &[u8], next: &[u8]| Part { name, stage, sent: sent.to_vec(), next: next.to_vec() };
    let Some(http) = http(request) else {
        let half = request.len() / 2;
        // With the next byte it must not be complete.
        if half == 0 || half + 1 >= request.len() {
            return Vec::new();
        }
        return vec![part("half a request", Stage::Head, &request[..half], &request[half..=half])];
    };
    let half = http.line.len() / 2;
    let head = [http.line, b"\r\n", http.headers].concat();
    vec![
        part("half the first line", Stage::Head, &http.line[..half], &http.line[half..=half]),
        part("first line without its end", Stage::Head, http.line, b"\r"),
        part("head without its end", Stage::Head, &head, b"X"),
        part("body without its end", Stage::Body, &[&post(&http)[..], b"x"].concat(), b"x"),
    ]
}

/// A request that is sent in pieces, for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slow {
    pub(super) name: &'static str,
    pub(super) stage: Stage,
    pub(super) first: Vec<u8>,
    pub(super) piece: &'static [u8],
}

/// How a request can be sent slowly. None: it is no text, and a piece of it would need to be made.
pub(super) fn slow(request: &[u8]) -> Vec<Slow> {
    let Some(http) = http(request) else {
        let is_text = request.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n'));
        let first = request[..request.len() / 2].to_vec();
        if !is_text || first.is_empty() || first.contains(&b'\n') {
            return Vec::new();
        }
        return vec![Slow { name: "a request, a byte each time", stage: Stage::Head, first, piece: b"a" }];
    };
    let head = [http.line, b"\r\n", http.headers].concat();
    vec![
        Slow {
            name: "a head, a byte each time",
            stage: Stage::Head,
            first: [&head[..], b"X-Slow: "].concat(),
            piece: b"a",
        },
        Slow { name: "a head, a line each time", stage: Stage::Head, first: head, piece: b"X-Slow: a\r\n" },
        Slow {
            name: "a body, a byte each time",
            stage: Stage::Body,
            first: [&post(&http)[..], b"x"].concat(),
            piece: b"x",
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    #[test]
    fn no_part_of_a_request_is_complete_and_its_next_byte_completes_nothing() {
        for part in parts(GET).iter().filter(|part| part.stage == Stage::Head) {
            let sent = [&part.sent[..], &part.next].concat();
            assert!(!sent.windows(4).any(|end| end == b"\r\n\r\n"), "{}", part.name);
        }
        assert_eq!(parts(GET)[2].sent, b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        assert!(parts(b"NOOP\r\n").iter().all(|part| part.sent == b"NOO" && part.next == b"P"));
        assert_eq!(parts(b"a\n"), []);
    }

    #[test]
    fn a_body_goes_to_the_place_and_host_of_the_request() {
        let parts = parts(GET);
        let body = parts.last().expect("there is one");
        assert!(body.sent.starts_with(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Type"), "{body:?}");
        assert!(body.sent.ends_with(b"\r\n\r\nx"));
    }

    #[test]
    fn a_head_without_headers_is_http_too() {
        assert_eq!(parts(b"GET / HTTP/1.0\r\n\r\n")[2].sent, b"GET / HTTP/1.0\r\n");
        assert!(parts(b"GET / HTTP/1.0\r\n\r\n")[3].sent.starts_with(b"POST / HTTP/1.1\r\nHost: probe\r\n"));
    }

    #[test]
    fn requests_that_are_no_text_are_not_sent_slowly() {
        assert_eq!(slow(b"\x00\x01\x02\x03"), []);
        assert_eq!(slow(b"a\nb\n"), []);
        assert_eq!(slow(b"NOOP\r\n").len(), 1);
        assert_eq!(slow(GET).len(), 3);
    }
}
