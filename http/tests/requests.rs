//! What the parser takes for a request, and what it refuses.

use finale_http::{BodyLength, Limits, Parser, Part, RequestError};
use proptest::prelude::*;

/// Everything that the parser finds in these pieces, up to the first request that it refuses.
fn parts<'a>(limits: Limits, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Part>, Option<RequestError>) {
    let (mut parser, mut parts) = (Parser::new(limits), Vec::new());
    for piece in pieces {
        parser.push(piece);
        loop {
            match parser.next() {
                Ok(Some(part)) => parts.push(part),
                Ok(None) => break,
                Err(error) => return (parts, Some(error)),
            }
        }
    }
    (parts, None)
}

#[track_caller]
fn status(request: &str) -> u16 {
    parts(Limits::default(), [request.as_bytes()].into_iter()).1.map_or(200, RequestError::status)
}

fn head_of(request: &str) -> finale_http::Head {
    match parts(Limits::default(), [request.as_bytes()].into_iter()).0.into_iter().next() {
        Some(Part::Head(head)) => head,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_two_servers_could_read_differently_is_refused() {
    for headers in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length:\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length : 5\r\n",
        " Content-Length: 5\r\n",
        "Content-Length: 5\n",
        "Content-Length: 5\r\r\n",
        "A: b\r\n folded\r\n",
        "A: b\0\r\n",
        "Host: y\r\n",
    ] {
        assert_eq!(status(&format!("POST / HTTP/1.1\r\nHost: x\r\n{headers}\r\nhello")), 400, "{headers:?}");
    }
    for (coding, expected) in [
        ("chunked, chunked", 501),
        ("gzip, chunked", 501),
        ("identity", 501),
        ("chunked\r\nTransfer-Encoding: chunked", 501),
        ("xchunked", 501),
        ("\x0bchunked", 400),
        ("chunked", 200),
        ("CHUNKED", 200),
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n");
        assert_eq!(status(&request), expected, "{coding:?}");
    }
    assert_eq!(status("POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400);
}

#[test]
fn zeros_before_the_sizes_of_chunks_are_limited_like_extensions() {
    let limits = Limits { head_bytes: 1000, ..Limits::default() };
    for (zeros, is_well) in [(50, true), (500, false)] {
        let mut parser = Parser::new(limits);
        parser.push(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunk = format!("{}1\r\nx\r\n", "0".repeat(zeros));
        parser.push(format!("{}0\r\n\r\n", chunk.repeat(10)).as_bytes());
        let outcome = std::iter::from_fn(|| parser.next().transpose()).find(Result::is_err);
        assert_eq!(outcome, (!is_well).then_some(Err(RequestError::HeadTooLong)), "{zeros}");
    }
}

#[test]
fn a_chunk_has_a_size_in_hexadecimal_digits_and_ends_where_it_says() {
    for (body, expected) in [
        ("5\r\nhello\r\n0\r\n\r\n", 200),
        ("5;a=b\r\nhello\r\n0\r\nTrailer: x\r\n\r\n", 200),
        ("000005\r\nhello\r\n0\r\n\r\n", 200),
        ("-5\r\nhello\r\n", 400),
        ("0x5\r\nhello\r\n", 400),
        ("5 \r\nhello\r\n", 400),
        (" 5\r\nhello\r\n", 400),
        ("\r\nhello\r\n", 400),
        ("5\nhello\r\n", 400),
        ("4\r\nhello\r\n", 400),
        ("fffffffffffffffff\r\nhello\r\n", 400),
        ("ffffffffffffffff\r\nhello\r\n", 413),
        ("0\r\nTrailer : x\r\n\r\n", 400),
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        assert_eq!(status(&request), expected, "{body:?}");
    }
}

#[test]
fn every_limit_has_its_status() {
    let long = "a".repeat(20_000);
    assert_eq!(status(&format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n")), 414);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: x\r\nA: {long}\r\n\r\n")), 431);
    let many = "A: b\r\n".repeat(64);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n")), 431);
    assert_eq!(status("GET / HTTP/2.0\r\nHost: x\r\n\r\n"), 505);
    assert_eq!(status("GET /\u{e4} HTTP/1.1\r\nHost: x\r\n\r\n"), 400, "a target is ASCII");
    assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status("GET / HTTP/1.0\r\n\r\n"), 200);
    assert_eq!(status("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n"), 413);
    assert_eq!(status("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n"), 413);
    assert_eq!(status("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n"), 200);
}

#[test]
fn a_server_sees_the_head_before_it_decides_how_long_the_body_may_be() {
    let mut parser = Parser::default();
    parser.push(b"PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n");
    assert!(matches!(parser.next(), Ok(Some(Part::Head(_)))));
    parser.limit_body(10);
    assert_eq!(parser.next(), Err(RequestError::BodyTooLong), "and not 100 Continue");

    let mut parser = Parser::default();
    parser.push(b"PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert!(matches!(parser.next(), Ok(Some(Part::Head(_)))));
    parser.limit_body(10);
    assert_eq!(parser.next(), Ok(Some(Part::Expectation)));
    parser.push(b"6\r\nhello \r\n");
    assert_eq!(parser.next(), Ok(None));
    parser.push(b"5\r\n");
    assert_eq!(parser.next(), Err(RequestError::BodyTooLong), "before the chunk is there");
}

#[test]
fn another_protocol_is_refused_after_its_first_line() {
    assert_eq!(status("SSH-2.0-x\r\n"), 400);
    assert_eq!(status("GET /\r\n"), 400);
    assert_eq!(status("GET / HTTP/2.0\r\n"), 505);
    assert_eq!(status("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
    assert_eq!(status("GET / HTTP/1.1\r\n"), 200);
}

#[test]
fn a_target_has_a_path_and_a_query_in_every_form() {
    for (target, path, query) in [
        ("/", "/", ""),
        ("/a/b?c=d?e", "/a/b", "c=d?e"),
        ("/?", "/", ""),
        ("http://x/a?b", "/a", "b"),
        ("HTTPS://x:1?b", "/", "b"),
        ("http://x", "/", ""),
        ("*", "*", ""),
    ] {
        let head = head_of(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!((head.path(), head.query()), (path, query), "{target}");
    }
    for target in ["a", "ftp://x/a", "http:///a", "http://x@y/", "x:443"] {
        assert_eq!(status(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")), 400, "{target}");
    }
}

#[test]
fn a_connection_is_kept_as_the_version_and_the_header_say() {
    for (version, header, keeps) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x, Close\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
    ] {
        let head = head_of(&format!("GET / HTTP/{version}\r\nHost: x\r\n{header}\r\n"));
        assert_eq!((head.keep_alive(), head.length()), (keeps, BodyLength::Bytes(0)), "{version} {header}");
    }
}

/// Fragments that make a request, or break one.
fn fragment() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "PUT /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
        "GET http://a/b?c HTTP/1.0\r\n",
        "Host: a\r\n",
        "Content-Length: 30\r\n",
        "Transfer-Encoding: chunked\r\n",
        " folded\r\n",
        "\r\n",
        "3;x=y\r\nabc\r\n",
        "0\r\n",
        "ffffffffffffffff\r\n",
        "hello",
        "\n",
        "\r",
        "\0",
        "é",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_mean_the_same_wherever_they_are_cut(
        fragments in prop::collection::vec(fragment(), 1..8),
        cuts in prop::collection::vec(0.0..1.0, 0..5),
    ) {
        let input = fragments.concat().into_bytes();
        let limits = Limits { head_bytes: 120, body_bytes: 20 };
        let whole = parts(limits, [input.as_slice()].into_iter());
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| (cut * input.len() as f64) as usize).collect();
        cuts.sort_unstable();
        let ends = cuts.iter().copied().chain([input.len()]);
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        let pieces: Vec<&[u8]> = starts.zip(ends).map(|(start, end)| &input[start..end]).collect();
        prop_assert_eq!(&parts(limits, pieces.into_iter()), &whole);
        prop_assert_eq!(&parts(limits, input.chunks(1)), &whole);
    }
}
