//! `finale serve` against clients that end well, badly, or not at all.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::thread;

use crate::common::{Server, patient, reset, run};
use crate::harness;
use rustix::process::Signal;

const SERVICES: [&str; 4] = ["upper", "answer", "echo", "discard"];
const LINE: &[u8] = b"finale: 64 bytes that say nothing but that the answer is whole.\n";

/// Sends this, ends, and reads to the server's FIN.
#[track_caller]
fn ask(server: &Server, request: &[u8]) -> Vec<u8> {
    let mut client = server.connect();
    client.write_all(request).expect("the server reads");
    client.shutdown(Shutdown::Write).expect("still connected");
    answer_of(client)
}

#[track_caller]
fn answer_of(mut client: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("the answer ends without an error");
    answer
}

#[track_caller]
fn expect_reset(mut client: TcpStream) {
    let error = client.read_exact(&mut [0]).expect_err("a reset is no end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// A pattern without a period, so that lost or swapped pieces are detected.
fn noise(length: usize) -> Vec<u8> {
    (0..length as u64).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

#[test]
fn upper_answers_a_half_closing_client() {
    for close in ["confirmed", "hand-off"] {
        let server = Server::start(&["upper", "--close", close]);
        assert_eq!(ask(&server, b"  hello world\n"), b"Processed: HELLO WORLD");
        assert_eq!(ask(&server, "stra\u{df}e".as_bytes()), b"Processed: STRASSE");
        assert_eq!(ask(&server, b""), b"Processed: ");
        server.stop_quietly();
    }
}

#[test]
fn upper_takes_bytes_that_are_not_text() {
    let server = Server::start(&["upper"]);
    assert_eq!(ask(&server, b"a\xff\0b"), "Processed: A\u{fffd}\0B".as_bytes());
    server.stop_quietly();
}

#[test]
fn upper_takes_a_request_of_a_mebibyte_and_resets_a_longer_one() {
    let server = Server::start(&["upper"]);
    let whole = vec![b'x'; 1 << 20];
    assert_eq!(ask(&server, &whole).len(), "Processed: ".len() + whole.len());

    let mut client = server.connect();
    // The reset may arrive while we still write.
    let written = client.write_all(&whole).and_then(|()| client.write_all(b"y"));
    match written {
        Ok(()) => expect_reset(client),
        Err(error) => assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}"),
    }
    assert_eq!(ask(&server, b"next"), b"Processed: NEXT");
    server.signal(Signal::TERM);
    let (code, stderr) = server.finish();
    assert_eq!(code, Some(0));
    assert!(stderr.lines().count() == 1 && stderr.contains("1048576 bytes"), "{stderr}");
}

#[test]
fn answer_sends_64_bytes_by_default_and_none_on_request() {
    let server = Server::start(&["answer"]);
    assert_eq!(ask(&server, b"anything"), LINE);
    server.stop_quietly();
    let server = Server::start(&["answer", "--bytes", "0"]);
    assert_eq!(ask(&server, b"anything"), b"");
    server.stop_quietly();
}

#[test]
fn a_large_answer_arrives_to_the_byte() {
    // What the queue holds, and many times what the queue and both kernels hold, which is not a
    // multiple of a line.
    for bytes in [512 << 10, (48 << 20) + 7] {
        let server = Server::start(&["answer", "--bytes", &bytes.to_string()]);
        let answer = ask(&server, &noise(100_000));
        assert_eq!(answer.len(), bytes);
        assert!(answer.chunks(LINE.len()).all(|line| line == &LINE[..line.len()]));
        server.stop_quietly();
    }
}

#[test]
fn echo_returns_everything_in_order_and_ends_after_the_client() {
    let server = Server::start(&["echo"]);
    let sent = noise(8 << 20);
    let client = server.connect();
    let mut writer = client.try_clone().expect("a descriptor is free");
    let copy = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&copy).expect("the server reads");
        writer.shutdown(Shutdown::Write).expect("still connected");
    });
    assert!(answer_of(client) == sent, "what came back is not what was sent");
    writing.join().expect("the writer ends");
    server.stop_quietly();
}

#[test]
fn echo_waits_for_a_client_that_writes_first_and_reads_later() {
    let server = Server::start(&["echo"]);
    let mut client = server.connect();
    // Until our kernel takes no more: the server has stopped reading, since we don't take what it
    // returns.
    client.set_nonblocking(true).expect("it can be set");
    let piece = noise(64 << 10);
    let mut sent = Vec::new();
    let mut blocked = 0;
    while blocked < 1000 {
        match client.write(&piece) {
            Ok(count) => {
                sent.extend_from_slice(&piece[..count]);
                blocked = 0;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                blocked += 1;
                thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
        assert!(sent.len() < 256 << 20, "the server takes everything: no back-pressure");
    }
    client.set_nonblocking(false).expect("it can be set");
    client.shutdown(Shutdown::Write).expect("still connected");
    assert!(answer_of(client) == sent, "what came back is not what was sent");
    server.stop_quietly();
}

#[test]
fn discard_reads_everything_and_ends() {
    let server = Server::start(&["discard"]);
    assert_eq!(ask(&server, &noise(4 << 20)), b"");
    server.stop_quietly();
}

#[test]
fn clients_that_reset_do_not_disturb_the_others() {
    for service in SERVICES {
        let server = Server::start(&[service]);
        let patient = server.connect();
        for round in 0..20 {
            let mut client = server.connect();
            if round % 2 == 0 {
                client.write_all(b"and then").expect("the server reads");
            }
            reset(client);
        }
        let mut large = server.connect();
        large.write_all(&noise(100_000)).expect("the server reads");
        reset(large);
        patient.shutdown(Shutdown::Write).expect("still connected");
        let answer = answer_of(patient);
        let expected: &[u8] = match service {
            "upper" => b"Processed: ",
            "answer" => LINE,
            _ => b"",
        };
        assert_eq!(answer, expected, "{service}");
        server.stop_quietly();
    }
}

#[test]
fn a_client_that_resets_in_the_middle_of_a_large_answer_is_forgotten() {
    let server = Server::start(&["answer", "--bytes", "1GiB"]);
    for _ in 0..3 {
        let mut client = server.connect();
        client.shutdown(Shutdown::Write).expect("still connected");
        client.read_exact(&mut [0; 100_000]).expect("the answer begins");
        reset(client);
    }
    server.stop_quietly();
}

#[test]
fn a_silent_client_is_reset_after_the_idle_time() {
    for service in SERVICES {
        let server = Server::start(&[service, "--idle-timeout", "50ms"]);
        expect_reset(server.connect());
        server.stop_quietly();
    }
}

#[test]
fn after_a_signal_live_connections_may_end_and_the_server_does_not_wait_for_the_grace_time() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Server::start(&["echo", "--grace", "1h"]);
        let mut client = server.connect();
        let mut back = [0; 6];
        client.write_all(b"before").expect("the server reads");
        client.read_exact(&mut back).expect("the server answers");
        server.signal(signal);
        server.wait_until_closed();
        client.write_all(b"after!").expect("the server still reads");
        client.read_exact(&mut back).expect("the server still answers");
        assert_eq!(&back, b"after!");
        client.shutdown(Shutdown::Write).expect("still connected");
        assert_eq!(answer_of(client), b"");
        assert_eq!(server.finish(), (Some(0), String::new()));
    }
}

#[test]
fn after_the_grace_time_the_rest_is_reset() {
    let server = Server::start(&["upper", "--grace", "50ms"]);
    let mut clients: Vec<_> = (0..10).map(|_| server.connect()).collect();
    // Clients that have sent nothing would get a FIN before.
    clients.iter_mut().for_each(|client| client.write_all(b"a request").expect("connected"));
    assert_eq!(ask(&server, b"all accepted"), b"Processed: ALL ACCEPTED");
    server.signal(Signal::TERM);
    clients.into_iter().for_each(expect_reset);
    assert_eq!(server.finish(), (Some(0), String::new()));
}

#[test]
fn a_second_signal_resets_at_once() {
    let server = Server::start(&["discard", "--grace", "1h"]);
    let client = server.connect();
    assert_eq!(ask(&server, b"accepted"), b"");
    server.signal(Signal::INT);
    server.wait_until_closed();
    server.signal(Signal::INT);
    expect_reset(client);
    assert_eq!(server.finish(), (Some(0), String::new()));
}

#[test]
fn after_this_many_bytes_answer_answers_and_finishes_first() {
    let whole = "200000"; // More than may be queued at once, so that the answer continues after a drain.
    for (after, request) in [("0", &b""[..]), ("5", b"hello"), ("5", b"hello and more")] {
        let server = Server::start(&["answer", "--bytes", whole, "--after", after]);
        let mut client = server.connect();
        client.write_all(request).expect("the server reads");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("the answer ends without an error, though we have not finished");
        assert_eq!(answer, LINE.repeat(200_000 / 64), "{after}");
        client.write_all(b"late").expect("the server reads on");
        client.shutdown(Shutdown::Write).expect("half-closed");
        server.stop_quietly();
    }
}

#[test]
fn bytes_that_arrive_during_the_answer_or_after_it_get_no_other() {
    let bytes = (48 << 20) + 7;
    let server = Server::start(&["answer", "-v", "--after", "5", "--bytes", &bytes.to_string()]);
    let mut client = server.connect();
    client.write_all(b"hello").expect("the server reads");
    client.read_exact(&mut [0; 64]).expect("the answer begins");
    client.write_all(b"more than that").expect("the server reads on");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("the answer ends without an error");
    assert_eq!(64 + answer.len(), bytes);
    client.write_all(b"late").expect("the server reads on");
    client.shutdown(Shutdown::Write).expect("half-closed");
    server.signal(Signal::TERM);
    let (code, stderr) = server.finish();
    assert!(code == Some(0) && stderr.contains("clean"), "{stderr}");
}

/// The queue of each client is bounded: all pieces of such answers would not fit into memory.
#[cfg(target_os = "linux")]
#[test]
fn the_largest_answers_begin_at_once_and_need_little_memory() {
    let limited = "ulimit -v 1000000; exec \"$0\" serve answer --bytes 1TiB --listen 127.0.0.1:0";
    let server = harness::Server::spawn(Command::new("sh").args(["-c", limited, env!("CARGO_BIN_EXE_finale")]));
    for _ in 0..3 {
        let mut client = patient(TcpStream::connect(server.addr).expect("it listens"));
        client.shutdown(Shutdown::Write).expect("still connected");
        client.read_exact(&mut [0; 100_000]).expect("the answer begins");
        reset(client);
    }
    assert_eq!(server.stop(), "");
}

/// `--parent` names the process that has started it.
#[cfg(target_os = "linux")]
#[test]
fn a_server_that_belongs_to_a_process_ends_with_it() {
    let line = "\"$0\" serve answer --listen 127.0.0.1:0 --parent $$ & wait";
    let mut command = Command::new("sh");
    command.args(["-c", line, env!("CARGO_BIN_EXE_finale")]);
    let mut server = harness::Server::spawn(&mut command);
    harness::ask(server.addr);
    server.child.kill().expect("it waits for the server");
    assert_eq!(server.line(), "", "no process has this stderr any more");
    let outcome = run(&["serve", "answer", "--listen", "127.0.0.1:0", "--parent", "1"]);
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (Some(0), "", ""), "it has ended");
}

#[test]
fn a_request_that_is_cut_short_gets_no_answer() {
    let server = Server::start(&["answer", "--after", "5"]);
    assert_eq!(ask(&server, b"hell"), b"");
    assert_eq!(ask(&server, b"hello"), LINE);
    server.stop_quietly();
    let never = ["serve", "answer", "--defer-accept", "1s", "--after", "0"];
    run(&never).refused_with(2, "--defer-accept waits for the client's first bytes");
}

/// The silent client came first. If it were accepted, it would hold the server for the grace time.
#[test]
fn with_defer_accept_a_client_that_has_sent_nothing_is_no_connection_yet() {
    let server = Server::start(&["answer", "--defer-accept", "30s", "--grace", "1h"]);
    let _silent = server.connect();
    assert_eq!(ask(&server, b"hello"), LINE);
    server.stop_quietly();
}

#[test]
fn a_server_without_connections_stops_at_once() {
    Server::start(&["echo", "--grace", "1h"]).stop_quietly();
}

#[test]
fn a_port_in_use_is_reported_in_one_line() {
    let server = Server::start(&["echo"]);
    let addr = server.addr.to_string();
    let outcome = run(&["serve", "echo", "--listen", &addr]);
    outcome.refused_with(1, &format!("can't listen on {addr}"));
    assert!(outcome.stderr.contains("in use") && outcome.stderr.contains("--listen"), "{outcome:?}");
    server.stop_quietly();
}

#[test]
fn an_address_that_is_not_ours_is_reported_in_one_line() {
    run(&["serve", "echo", "--listen", "127.0.0.1"]).refused_with(2, "no port");
    run(&["serve", "echo", "--listen", "127.0.0.1:99999"]).refused_with(2, "0 to 65535");
    run(&["serve", "echo", "--listen", "localhost:0"]).refused_with(2, "one address");
    // TEST-NET-1 (RFC 5737): no host has this address.
    run(&["serve", "echo", "--listen", "192.0.2.1:0"]).refused_with(1, "can't listen on 192.0.2.1:0");
}
