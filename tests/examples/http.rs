//! HTTP/1.1.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpStream};
use std::time::Duration;

use finale::check::{CaseResult, Endings, Program as Checked};
use finale::sim::{Network, Script};
use finale::{Event, ListenOptions, Reactor, Socket};

use super::program::{Program, client};
use super::server::{self, Http};

impl Checked for Http {
    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        Self::handle(self, socket, event);
    }
}

const LINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 33\r\n\r\nfinale: every ending, on purpose\n";

/// The undisturbed answer to this for a client that then finishes; and every ending of it. Each may
/// return only a part of that answer, or a timeout or a refusal of a request that was cut off.
#[track_caller]
fn every_ending(request: &str, answer: &str) {
    let (request, whole) = (request.as_bytes(), answer.as_bytes().to_vec());
    let polite = Script::new().send(request).receive(whole.len() as u64).finish().receive_end();
    let holds = move |found: &CaseResult| {
        let refused = |status: &str| {
            let text = String::from_utf8_lossy(&found.received).into_owned();
            let refusal = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            text.strip_suffix(&refusal).is_some_and(|before| whole.starts_with(before.as_bytes()))
        };
        if whole.starts_with(&found.received) || refused("408 Request Timeout") {
            Ok(())
        } else {
            Err(format!("the client received {:?}", String::from_utf8_lossy(&found.received)))
        }
    };
    let endings = Endings::of_a_server(server::options(ListenOptions::default()), polite).conditions(1).holds(holds);
    let report = endings.run(Http::default);
    assert!(report.violation().is_none(), "{report}");
    assert!(report.cases() > 100, "{}", report.cases());
}

#[test]
fn a_request_and_its_answer_survive_every_ending() {
    every_ending("GET / HTTP/1.1\r\nHost: x\r\n\r\n", LINE);
}

#[test]
fn requests_in_a_row_are_answered_in_their_order_at_every_ending() {
    let missing = "HTTP/1.1 404 Not Found\r\nContent-Length: 13\r\n\r\nnothing here\n";
    every_ending("GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /x HTTP/1.1\r\nHost: x\r\n\r\n", &format!("{LINE}{missing}"));
}

#[test]
fn a_body_comes_back_whole_or_not_at_all_at_every_ending() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello again";
    every_ending("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello again", answer);
    let chunked = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5;x=y\r\nagain\r\n0\r\nA: b\r\n\r\n";
    every_ending(chunked, answer);
    let expects = "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\nhello again";
    every_ending(expects, &format!("HTTP/1.1 100 Continue\r\n\r\n{answer}"));
}

#[test]
fn an_answer_of_many_pieces_survives_every_ending() {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n{}", ".".repeat(70));
    every_ending("GET /bytes/70 HTTP/1.1\r\nHost: x\r\n\r\n", &answer);
}

/// A body that the server does not want is refused before it arrives, and the refusal arrives
/// although the body continues.
#[test]
fn an_early_refusal_survives_every_ending_and_the_rest_of_the_body() {
    let refusal = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let request = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\nthe body goes on and on";
    let polite = Script::new().send(request).receive(refusal.len() as u64).receive_end().send(&[b'!'; 300]).finish();
    let report = Endings::of_a_server(server::options(ListenOptions::default()), polite).run(Http::default);
    assert!(report.violation().is_none(), "{report}");
}

#[test]
fn what_is_no_request_is_refused_at_once_and_what_drips_in_time() {
    let serve = |input: &[u8]| {
        let script = Script::new().send(input).receive_end().finish();
        let endings = Endings::of_a_server(server::options(ListenOptions::default()), script).cuts(&[]);
        let received = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let seen = std::rc::Rc::clone(&received);
        let report = endings
            .holds(move |found| {
                *seen.borrow_mut() = found.received.clone();
                Ok(())
            })
            .run(Http::default);
        assert!(report.violation().is_none(), "{report}");
        let text = String::from_utf8(received.borrow().clone()).expect("text");
        text.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(serve(b"hello there\r\n\r\n"), "HTTP/1.1 400 Bad Request");
    assert_eq!(
        serve(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        "HTTP/1.1 400 Bad Request"
    );
    assert_eq!(
        serve(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
        "HTTP/1.1 400 Bad Request"
    );
    assert_eq!(
        serve(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n"),
        "HTTP/1.1 501 Not Implemented"
    );
    let two = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n";
    assert_eq!(serve(two.as_bytes()), "HTTP/1.1 501 Not Implemented");
    assert_eq!(serve(b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), "HTTP/1.1 400 Bad Request");
    assert_eq!(serve(b"DELETE / HTTP/1.0\r\n\r\n"), "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(serve(b"GET / HTT"), "HTTP/1.1 408 Request Timeout");
}

/// The keep-alive race: a request that is in flight when the server ends an idle connection gets an
/// end and no reset, so that the client knows that the server has not acted on it.
#[test]
fn a_request_that_crosses_our_end_gets_no_answer_and_no_reset() {
    let [here, there] = [1, 2].map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)));
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host(here));
    let listener = reactor.listen((here, 80), server::options(ListenOptions::default())).expect("a free port");
    let (mut http, mut end_called, mut ending) = (Http::default(), false, None);
    let mut run = |time: Duration| {
        let until = network.now() + time;
        while let Some((mut socket, event)) = reactor.next_before(until).expect("it continues") {
            http.handle(&mut socket, event);
            end_called |= socket.end_called();
            if let Event::Close(told) = event {
                ending = Some(told.to_string());
            }
        }
        (end_called, ending.clone())
    };
    let client = network.peer(there).connect(listener.addr).expect("begun");
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    run(Duration::from_millis(10));
    assert_eq!(client.read(), LINE.as_bytes());
    while !run(Duration::from_millis(1)).0 {}
    assert!(!client.has_fin(), "it does not know yet");
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    client.finish();
    let (_, ending) = run(Duration::from_secs(1));
    assert!(client.read().is_empty() && client.has_fin() && !client.is_reset());
    assert!(ending.expect("it is over").starts_with("clean and acknowledged"));
}

/// A client that sends request after request and reads nothing costs what a queue may hold and the
/// answers to one read, and gets every answer when it reads.
#[test]
fn who_asks_without_reading_is_not_read_either_and_gets_every_answer() {
    const REQUESTS: usize = 20_000;
    let [here, there] = [1, 2].map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)));
    let network = Network::new(1);
    network.set_buffers(16 << 10, 16 << 10);
    let mut reactor = Reactor::with_net(network.host(here));
    let options = server::options(ListenOptions::default()).high_water_mark(1024);
    let listener = reactor.listen((here, 80), options).expect("a free port");
    let (mut http, mut ending, mut most) = (Http::default(), None, 0);
    let client = network.peer(there).connect(listener.addr).expect("begun");
    client.send(&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(REQUESTS));
    client.finish();
    let mut received = 0;
    for round in 0.. {
        let until = network.now() + Duration::from_millis(10);
        while let Some((mut socket, event)) = reactor.next_before(until).expect("it continues") {
            http.handle(&mut socket, event);
            most = most.max(socket.queued_bytes());
            if let Event::Close(told) = event {
                ending = Some(told.to_string());
            }
        }
        // It reads nothing in the first second.
        received += if round < 100 { 0 } else { client.read().len() };
        if ending.is_some() {
            break;
        }
    }
    assert_eq!(received, REQUESTS * LINE.len());
    assert!(ending.expect("it is over").starts_with("clean and acknowledged"));
    assert!(most <= 1024 + LINE.len(), "{most} bytes of answers waited");
}

#[test]
fn a_client_that_sends_only_empty_lines_is_ended_by_the_deadline_of_a_request() {
    let [here, there] = [1, 2].map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)));
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host(here));
    let listener = reactor.listen((here, 80), server::options(ListenOptions::default())).expect("a free port");
    let client = network.peer(there).connect(listener.addr).expect("begun");
    let (mut http, mut ended) = (Http::default(), false);
    for second in 1.. {
        client.send(b"\r\n");
        while let Some((mut socket, event)) =
            reactor.next_before(network.now() + Duration::from_secs(1)).expect("it runs")
        {
            http.handle(&mut socket, event);
            ended |= matches!(event, Event::Close(_));
        }
        if ended {
            assert!((30..=32).contains(&second), "after {second} s");
            return;
        }
        assert!(second < 60, "it holds its place");
    }
}

fn http() -> Program {
    Program::start("http", &["127.0.0.1:0"])
}

#[test]
fn curl_gets_its_answers_on_one_connection_and_a_refusal_in_the_middle_of_its_body() {
    let program = http();
    let url = |path: &str| format!("http://{}{path}", program.addr);
    let nowhere = ["-o", "/dev/null", "-o", "/dev/null"];
    let twice = ["-sS", "-w", "%{http_code} %{num_connects} ", &url("/"), &url("/bytes/100000")];
    let Some(twice) = client("curl", &[twice.as_slice(), &nowhere].concat()) else { return };
    assert_eq!(String::from_utf8_lossy(&twice.stdout), "200 1 200 0 ", "{:?}", String::from_utf8_lossy(&twice.stderr));
    let body = std::env::temp_dir().join(format!("finale-http-{}", std::process::id()));
    std::fs::write(&body, vec![b'x'; 8 << 20]).expect("room");
    let data = format!("@{}", body.display());
    let refused = ["-sS", "-w", "%{http_code}", "-H", "Expect:", "--data-binary", &data, &url("/echo")];
    let refused = client("curl", &refused).expect("it was here");
    assert_eq!(String::from_utf8_lossy(&refused.stdout), "413", "{refused:?}");
    std::fs::remove_file(&body).expect("it is ours");
}

#[test]
fn nodes_fetch_gets_its_body_back() {
    let program = http();
    let script = format!(
        "fetch('http://{}/echo',{{method:'POST',body:'x'.repeat(200000)}}).then(r=>r.text()).then(t=>console.log(t.length))",
        program.addr
    );
    if let Some(output) = client("node", &["-e", &script]) {
        assert_eq!(String::from_utf8_lossy(&output.stdout), "200000\n", "{output:?}");
    }
}

#[test]
fn a_head_without_end_is_refused_and_the_refusal_arrives() {
    let program = http();
    let mut stream = TcpStream::connect(program.addr).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
    stream.write_all(b"GET / HTTP/1.1\r\n").expect("open");
    for _ in 0..1000 {
        stream
            .write_all(b"X: a header that is one of a great many, and has no end\r\n")
            .expect("it is read into the bin");
    }
    stream.shutdown(Shutdown::Write).expect("open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("no reset");
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

/// 128 KiB is the high-water mark: the queue is full with the last byte of the answer, and nothing
/// is left to wait for.
#[test]
fn a_last_answer_that_fills_the_queue_is_followed_by_the_end_at_once() {
    for bytes in [96, 127, 128, 129, 160].map(|kib| kib * 1024) {
        let program = http();
        let mut stream = TcpStream::connect(program.addr).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("less than the idle time");
        stream
            .write_all(format!("GET /bytes/{bytes} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .expect("open");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the end");
        assert!(answer.len() > bytes);
    }
}

/// Stopped in the middle of an answer: the client gets all of it, and the program ends with
/// success.
#[test]
fn a_stop_lets_everybody_have_their_answer() {
    let mut program = http();
    let mut stream = TcpStream::connect(program.addr).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
    stream.write_all(b"GET /bytes/5000000 HTTP/1.1\r\nHost: x\r\n\r\n").expect("open");
    let mut start = [0; 100];
    stream.read_exact(&mut start).expect("the answer begins");
    program.terminate();
    let mut rest = Vec::new();
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n".len() + 5_000_000;
    stream.read_to_end(&mut rest).expect("no reset");
    assert_eq!(start.len() + rest.len(), whole);
    stream.shutdown(Shutdown::Write).expect("open");
    assert!(program.line().contains("clean and acknowledged"), "and says so");
    assert!(program.child.wait().expect("it ends").success());
}
