//! What the HTTP server takes for a request: the same answer wherever the request is cut, in time
//! proportional to its length, within its limits.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use finale::sim::{Network, Rng, Script};
use finale::{Event, ListenOptions, Reactor};
use finale_http::{Parser, Part, RequestError};

use super::server::{self, Http};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

/// What the server answers to a client that sends these pieces, each in a segment of its own, and
/// then finishes.
fn answer(pieces: &[&[u8]]) -> String {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host(HERE));
    let listener = reactor.listen((HERE, 80), server::options(ListenOptions::default())).expect("a free port");
    let client = network.peer(THERE).connect(listener.addr).expect("begun");
    let (mut http, mut answer, mut pieces) = (Http::default(), Vec::new(), pieces.iter());
    loop {
        match pieces.next() {
            Some(piece) => client.send(piece),
            None => client.finish(),
        }
        let until = network.now() + Duration::from_micros(500);
        while let Some((mut socket, event)) = reactor.next_before(until).expect("it continues") {
            http.handle(&mut socket, event);
            if let Event::Close(ending) = event {
                assert!(ending.is_clean(), "{ending}");
                answer.extend(client.read());
                return String::from_utf8(answer).expect("text");
            }
        }
        answer.extend(client.read());
    }
}

/// The answer, which must be the same wherever the request is cut in two, and byte by byte.
#[track_caller]
fn same_answer(request: &[u8]) -> String {
    let whole = answer(&[request]);
    let name = String::from_utf8_lossy(&request[..request.len().min(300)]).into_owned();
    // Each place in a short request, and some in a long one.
    let step = request.len() / 300 + 1;
    for place in (1..request.len()).step_by(step) {
        let cut = answer(&[&request[..place], &request[place..]]);
        assert_eq!(cut, whole, "cut after {place} bytes: {name:?}");
    }
    let bytes: Vec<&[u8]> = request.chunks(1).collect();
    assert_eq!(answer(&bytes), whole, "byte by byte: {name:?}");
    whole
}

/// The status of the only answer.
#[track_caller]
fn status(request: &str) -> u16 {
    let answer = same_answer(request.as_bytes());
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{request:?}: {answer:?}");
    answer[9..12].parse().expect("a status")
}

/// A request with these headers and this body.
fn post(headers: &str, body: &str) -> String {
    format!("POST /echo HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}")
}

#[test]
fn a_request_names_its_host_once_and_in_a_form_that_all_servers_accept() {
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400, "no host");
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400, "two hosts");
    assert_eq!(status("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), 400, "two hosts");
    assert_eq!(status("GET / HTTP/1.0\r\n\r\n"), 200, "before HTTP/1.1 there was no such header");
    assert_eq!(status("GET / HTTP/1.1\r\nHost:\r\n\r\n"), 200, "its value may be empty");
    for host in ["a:80", "a:", "[::1]:80", "[::1]", "127.0.0.1", "a-b.example"] {
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), 200, "{host}");
        assert_eq!(status(&format!("GET http://{host}/ HTTP/1.1\r\nHost: other\r\n\r\n")), 200, "{host}");
    }
    for host in ["a b", "a/b", "user@a", "a:b", "a:1:2", ":80", "a?b", "[::1", "é"] {
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), 400, "{host}");
    }
    assert_eq!(status("GET HTTP://a HTTP/1.1\r\nHost: a\r\n\r\n"), 200, "no path is the root");
    assert_eq!(status("GET http://a?query HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    assert_eq!(status("GET http://a/nothing HTTP/1.1\r\nHost: a\r\n\r\n"), 404);
    assert_eq!(status("GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    assert_eq!(status("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    assert_eq!(status("GET /?query HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    assert_eq!(status("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    assert_eq!(status("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), 505);
}

#[test]
fn what_two_servers_could_read_differently_is_refused_at_every_cut() {
    let hello = "5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(status(&post("Content-Length: 5\r\n", "hello")), 200);
    assert_eq!(status(&post("Content-Length: 005\r\n", "hello")), 200);
    for length in ["-1", "+5", "5, 5", "5 5", "0x5", "", "5;", "five"] {
        assert_eq!(status(&post(&format!("Content-Length: {length}\r\n"), "hello")), 400, "{length}");
    }
    assert_eq!(status(&post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello")), 400);
    assert_eq!(status(&post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello")), 400);
    assert_eq!(status(&post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", hello)), 400);
    assert_eq!(status(&post("Transfer-Encoding:\tCHUNKED \r\n", hello)), 200);
    for coding in ["gzip", "gzip, chunked", "chunked, chunked", "xchunked", "identity", ""] {
        assert_eq!(status(&post(&format!("Transfer-Encoding: {coding}\r\n"), hello)), 501, "{coding}");
    }
    assert_eq!(status(&post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", hello)), 501);
    assert_eq!(status(&post("Transfer-Encoding : chunked\r\n", hello)), 400, "a space before the colon");
    assert_eq!(status(&post("Transfer-Encoding:\r\n chunked\r\n", hello)), 400, "a folded line");
    assert_eq!(status(&post("X: y\r\n\tz\r\n", "")), 400, "a folded line");
    assert_eq!(status("GET / HTTP/1.1\nHost: a\n\n"), 400, "LF alone");
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\n\n"), 400, "LF alone");
    assert_eq!(status(&post("X: a\rb\r\n", "")), 400, "CR alone");
    assert_eq!(status(&post("X: a\r\r\n", "")), 400, "CR twice");
    assert_eq!(status(&post("X: a\0b\r\n", "")), 400);
    assert_eq!(status("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, "empty lines before it are skipped");
    assert_eq!(status("\x16\x03\x01 a client that speaks TLS"), 400, "at once: it sends no line");
    for body in ["0x5", "+5", "-5", "", " 5", "5 ", "5g", "5;x\n", "5\n", "fffffffffffffffff", "5\r"] {
        let body = format!("{body}\r\nhello\r\n0\r\n\r\n");
        assert_eq!(status(&post("Transfer-Encoding: chunked\r\n", &body)), 400, "{body:?}");
    }
    for body in
        ["5\r\nhelloX\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "0\r\nno colon\r\n\r\n", "0\r\n folded: x\r\n\r\n"]
    {
        assert_eq!(status(&post("Transfer-Encoding: chunked\r\n", body)), 400, "{body:?}");
    }
    let right = "5;a=b\r\nhello\r\n00001 ; c=\"d e\"\r\n!\r\n0\r\nA: b\r\nC: d\r\n\r\n";
    let answer = same_answer(post("Transfer-Encoding: chunked\r\n", right).as_bytes());
    assert!(answer.ends_with("Content-Length: 6\r\n\r\nhello!"), "{answer:?}");
}

#[test]
fn every_limit_holds_at_every_cut_and_no_number_is_too_large_to_compare() {
    let chunked = |body: &str| status(&post("Transfer-Encoding: chunked\r\n", body));
    // 16 KiB with the empty line at the end.
    let head = |bytes: usize| {
        let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
        format!("{start}{}\r\n\r\n", "y".repeat(bytes - start.len() - 4))
    };
    assert_eq!((status(&head(16_384)), status(&head(16_385))), (200, 431));
    let target = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "y".repeat(bytes));
    assert_eq!((status(&target(16_000)), status(&target(16_400))), (404, 414));
    let headers = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    assert_eq!((status(&headers(64)), status(&headers(65))), (200, 431));
    for length in ["1048577", "18446744073709551615", "18446744073709551616", "99999999999999999999999999"] {
        assert_eq!(status(&post(&format!("Content-Length: {length}\r\n"), "hello")), 413, "{length}");
    }
    assert_eq!(chunked("100001\r\n"), 413);
    for size in ["ffffc", "100000", "ffffffffffffffff", "fffffffffffffffb"] {
        assert_eq!(chunked(&format!("5\r\nhello\r\n{size}\r\nx")), 413, "{size}");
    }
    let long = "x".repeat(20_000);
    assert_eq!(chunked(&format!("5;{long}\r\nhello\r\n0\r\n\r\n")), 431, "an extension");
    assert_eq!(
        chunked(&format!("{}0\r\n\r\n", format!("1;{}\r\na\r\n", "x".repeat(1000)).repeat(20))),
        431,
        "extensions"
    );
    assert_eq!(chunked(&format!("0\r\nX: {long}\r\n\r\n")), 431, "a trailer");
    assert_eq!(chunked(&format!("0\r\n{}\r\n", "A: b\r\n".repeat(3000))), 431, "trailers");
    assert_eq!(chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "e".repeat(100))), 200);
}

#[test]
fn a_method_gets_the_answer_that_its_resource_allows() {
    let answer =
        |method: &str, path: &str| same_answer(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    let line = "finale: every ending, on purpose\n";
    assert_eq!(answer("GET", "/"), format!("HTTP/1.1 200 OK\r\nContent-Length: 33\r\n\r\n{line}"));
    assert_eq!(answer("HEAD", "/"), "HTTP/1.1 200 OK\r\nContent-Length: 33\r\n\r\n");
    assert_eq!(answer("GET", "/bytes/5"), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n.....");
    assert_eq!(answer("HEAD", "/bytes/5"), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(answer("HEAD", "/x"), "HTTP/1.1 404 Not Found\r\nContent-Length: 13\r\n\r\n");
    for path in ["/bytes/", "/bytes/+5", "/bytes/-5", "/bytes/5/", "/bytes/99999999999999999999", "/ech", "*"] {
        let answer = answer("GET", if path == "*" { "/*" } else { path });
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    let refused = |method, path, allowed: &str| {
        let head = format!("HTTP/1.1 405 Method Not Allowed\r\nAllow: {allowed}\r\nContent-Length: 9\r\n\r\n");
        let body = if method == "HEAD" { "" } else { "not that\n" };
        assert_eq!(answer(method, path), format!("{head}{body}"));
    };
    refused("POST", "/", "GET, HEAD");
    refused("DELETE", "/bytes/5", "GET, HEAD");
    refused("GET", "/echo", "POST");
    refused("HEAD", "/echo", "POST");
    assert!(answer("BREW", "/").starts_with("HTTP/1.1 501 Not Implemented\r\n"));
    assert!(answer("get", "/").starts_with("HTTP/1.1 501 Not Implemented\r\n"), "methods are case-sensitive");
}

#[test]
fn an_http_1_0_client_that_wants_to_continue_reads_that_it_may() {
    let one = "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n";
    let kept =
        "HTTP/1.1 200 OK\r\nContent-Length: 33\r\nConnection: keep-alive\r\n\r\nfinale: every ending, on purpose\n";
    assert_eq!(same_answer(one.repeat(3).as_bytes()), kept.repeat(3));
    let last = same_answer(format!("GET / HTTP/1.0\r\n\r\n{one}").as_bytes());
    assert_eq!(last, kept.replace("keep-alive", "close"), "and one that does not is read no further");
    let close =
        same_answer(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(close, kept.replace("keep-alive", "close"));
}

#[test]
fn a_client_that_waits_to_send_its_body_is_asked_for_it_once() {
    let expect = |version: &str, headers: &str, body: &str| {
        let request = format!("POST /echo HTTP/{version}\r\nHost: a\r\nExpect: 100-Continue\r\n{headers}\r\n{body}");
        let answer = same_answer(request.as_bytes());
        answer.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").map(str::to_owned).ok_or(answer)
    };
    let hello = Ok("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned());
    assert_eq!(expect("1.1", "Content-Length: 5\r\n", "hello"), hello);
    assert_eq!(expect("1.1", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), hello);
    assert!(expect("1.1", "Content-Length: 5000000\r\n", "").is_err_and(|it| it.starts_with("HTTP/1.1 413 ")));
    assert!(expect("1.1", "", "").is_err_and(|it| it.starts_with("HTTP/1.1 200 ")), "there is no body");
    assert!(expect("1.0", "Content-Length: 5\r\n", "hello").is_err_and(|it| it.starts_with("HTTP/1.1 200 ")));
}

/// Where the work grew with the square of the input, each of these would take minutes.
#[test]
fn the_cost_of_parsing_grows_with_the_input_and_not_with_its_square() {
    let begun = Instant::now();
    let in_time = || assert!(begun.elapsed() < Duration::from_secs(30), "it takes too long");

    // One body, in chunks of one byte that arrive together.
    let body = "1\r\na\r\n".repeat(400_000);
    let mut parser = Parser::default();
    parser.push(post("Transfer-Encoding: chunked\r\n", &format!("{body}0\r\n\r\n")).as_bytes());
    assert!(matches!(parser.next(), Ok(Some(Part::Head(_)))));
    assert!(matches!(parser.next(), Ok(Some(Part::Body(body))) if body.len() == 400_000));
    in_time();

    // Many requests that arrive together.
    parser.push("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(200_000).as_bytes());
    let mut requests = 0;
    while let Ok(Some(part)) = parser.next() {
        requests += u32::from(matches!(part, Part::Head(_)));
        in_time();
    }
    assert_eq!(requests, 200_000);

    // Long heads and trailers that arrive byte by byte.
    let long = "X: y\r\n".repeat(60) + &format!("Y: {}\r\n\r\n", "z".repeat(15_000));
    for _ in 0..200 {
        let mut heads = 0;
        for byte in post("Transfer-Encoding: chunked\r\n", "0\r\n").bytes().chain(long.bytes()) {
            match parser.next() {
                Ok(None) => {}
                Ok(Some(Part::Head(_))) => heads += 1,
                other => panic!("{other:?}"),
            }
            parser.push(&[byte]);
        }
        assert!(heads == 1 && matches!(parser.next(), Ok(Some(Part::Body(_)))));
        in_time();
    }
}

/// How the connection of a client with this script ends, what it receives, and when.
fn ending(script: Script) -> (String, String, Duration) {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host(HERE));
    let listener = reactor.listen((HERE, 80), server::options(ListenOptions::default())).expect("a free port");
    let client = network.peer(THERE).play(listener.addr, script).expect("begun");
    let mut http = Http::default();
    while let Some((mut socket, event)) = reactor.next().expect("it continues") {
        http.handle(&mut socket, event);
        if let Event::Close(ending) = event {
            let received = String::from_utf8(client.received()).expect("text");
            return (ending.to_string(), received, network.elapsed());
        }
    }
    panic!("no close");
}

#[test]
fn a_request_has_30_s_however_it_drips_and_silence_15_s() {
    let drip = "GET / HTTP/1.1\r\nHost: a\r\nX: a head that arrives byte by byte\r\n\r\n";
    let (how, received, time) = ending(Script::new().drip(drip.as_bytes(), Duration::from_secs(1)));
    assert!(how.contains("deadline") && received.is_empty(), "{how} {received}");
    assert!((30..=32).contains(&time.as_secs()), "{time:?}");

    let body = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{}", "x".repeat(100));
    let (head, body) = body.split_at(60);
    let script = Script::new().send(head.as_bytes()).drip(body.as_bytes(), Duration::from_secs(1));
    let (how, _, time) = ending(script);
    assert!(how.contains("deadline"), "{how}");
    assert!((30..=32).contains(&time.as_secs()), "{time:?}");

    let (how, received, time) = ending(Script::new().send(b"GET / HT").receive_end().finish());
    assert!(how.starts_with("clean") && received.starts_with("HTTP/1.1 408 "), "{how} {received}");
    assert!((15..=16).contains(&time.as_secs()), "{time:?}");
}

#[test]
fn a_client_that_never_finishes_is_let_go_30_s_after_the_idle_time() {
    let (how, received, time) = ending(Script::new().receive_end());
    assert!(received.is_empty() && how.contains("timed out"), "{how} {received}");
    assert!((45..=47).contains(&time.as_secs()), "{time:?}");
}

/// Everything that the parser finds in these pieces, up to the first request that it refuses.
fn parts<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Part>, Option<RequestError>) {
    let (mut parser, mut parts) = (Parser::default(), Vec::new());
    for piece in pieces {
        parser.push(piece);
        loop {
            match parser.next() {
                Ok(Some(part)) => parts.push(part),
                Ok(None) => break,
                Err(bad) => return (parts, Some(bad)),
            }
        }
    }
    (parts, None)
}

/// Fragments that make a request, or break one.
const FRAGMENTS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\n",
    "GET http://a/b?c HTTP/1.0\r\n",
    "Host: a\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 18446744073709551615\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Expect: 100-continue\r\n",
    "Connection: close\r\n",
    "X: y\r\n",
    " folded\r\n",
    "\r\n",
    "\r\n",
    "\r\n",
    "hello",
    "5\r\nhello\r\n",
    "0\r\n",
    "0\r\n\r\n",
    "3;x=y\r\nabc\r\n",
    "ffffffffffffffff\r\n",
    "A: b\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "é",
];

#[test]
fn any_bytes_mean_the_same_wherever_they_are_cut() {
    let (mut complete, mut refused) = (0, 0);
    for seed in 0..20_000 {
        let mut dice = Rng::new(seed);
        let mut input = Vec::new();
        // Mostly what can follow; what is left of a request is only known to the parser.
        let start =
            ["GET / HTTP/1.1\r\nHost: a\r\n", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"];
        for _ in 0..1 + dice.below(4) {
            input.extend(start[dice.below(2) as usize].bytes());
            for _ in 0..dice.below(6) {
                input.extend(FRAGMENTS[dice.below(FRAGMENTS.len() as u64) as usize].bytes());
            }
            input.extend(["\r\n", "\r\n5\r\nhello\r\n0\r\n\r\n", ""][dice.below(3) as usize].bytes());
        }
        let whole = parts([input.as_slice()].into_iter());
        let bytes = parts(input.chunks(1));
        assert_eq!(bytes, whole, "seed {seed}, byte by byte: {:?}", String::from_utf8_lossy(&input));
        let place = dice.below(input.len() as u64) as usize;
        let cut = parts([&input[..place], &input[place..]].into_iter());
        assert_eq!(cut, whole, "seed {seed}, cut after {place}: {:?}", String::from_utf8_lossy(&input));
        complete += whole.0.len();
        refused += usize::from(whole.1.is_some());
    }
    // Enough of both for this to be meaningful.
    assert!(complete > 3000 && refused > 5000 && refused < 19_000, "{complete} {refused}");
}
