//! `finale connect` against servers that end well, badly, or not at all.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{ChildStdout, Stdio};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::common::{Outcome, PATIENCE, Server, command, finish, patient, reset, run, run_with, shell};
use serde_json::{Value, json};

/// A server for one connection, on a free port.
pub(crate) fn server<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (String, JoinHandle<T>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let addr = listener.local_addr().expect("it is bound").to_string();
    let thread = thread::spawn(move || serve(patient(listener.accept().expect("a peer connects").0)));
    (addr, thread)
}

fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the client ends without an error");
    bytes
}

#[test]
fn the_socket_goes_to_stdout_and_a_clean_ending_is_success() {
    let (addr, server) = server(|mut stream| {
        stream.write_all(b"all there is").expect("the client reads");
        stream.shutdown(std::net::Shutdown::Write).expect("still connected");
        read_all(&mut stream)
    });
    let outcome = run(&["connect", "--no-half-close", &addr]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "all there is"));
    let ending = "clean and acknowledged; the peer finished first, TIME_WAIT is the peer's; 12 bytes read, 0 written";
    assert_eq!(outcome.stderr, format!("finale: {addr}: {ending}\n"));
    assert_eq!(server.join().expect("the server ends"), b"");
}

#[test]
fn half_close_ends_with_stdin_and_reads_the_answer() {
    // It is the default. Scripts for nc(1), or for an older version, name it.
    for option in [&[] as &[&str], &["--half-close"], &["-N"], &["--no-half-close", "-N"]] {
        let (addr, server) = server(|mut stream| {
            let request = read_all(&mut stream);
            stream.write_all(b"answer").expect("the client still reads");
            request
        });
        let outcome = run_with(&[&["connect", &addr], option].concat(), b"question".to_vec());
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "answer"), "{option:?}");
        assert!(outcome.last_line().contains("clean and acknowledged; we finished first"), "{outcome:?}");
        assert_eq!(server.join().expect("the server ends"), b"question");
    }
}

#[test]
fn a_peer_that_finishes_first_gets_all_of_stdin() {
    let length = 8 << 20;
    let path = std::env::temp_dir().join(format!("finale-stdin-{}", std::process::id()));
    std::fs::write(&path, vec![b'x'; length]).expect("it can be written");
    for option in [&[] as &[&str], &["--no-half-close"]] {
        let (addr, server) = server(|mut stream| {
            stream.shutdown(std::net::Shutdown::Write).expect("still connected");
            read_all(&mut stream).len()
        });
        let file = std::fs::File::open(&path).expect("it exists");
        let child = command(&[&["connect", &addr], option].concat()).stdin(file).spawn().expect("it starts");
        let outcome = finish(child);
        assert_eq!((outcome.code, server.join().expect("the server ends")), (Some(0), length), "{outcome:?}");
    }
    std::fs::remove_file(&path).expect("it is ours");
}

#[test]
fn a_slow_stdin_is_sent_to_its_end_to_a_peer_that_has_finished() {
    let (finished, has_finished) = channel();
    let (addr, server) = server(move |mut stream| {
        stream.shutdown(std::net::Shutdown::Write).expect("still connected");
        let mut first = [0; 5];
        stream.read_exact(&mut first).expect("the first part comes");
        let _ = finished.send(());
        [first.to_vec(), read_all(&mut stream)].concat()
    });
    let mut child = command(&["connect", &addr]).stdin(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    stdin.write_all(b"first").expect("it reads");
    has_finished.recv_timeout(PATIENCE).expect("the first part arrives");
    stdin.write_all(b", second").expect("it still reads");
    drop(stdin);
    assert_eq!((finish(child).code, server.join().expect("the server ends")), (Some(0), b"first, second".to_vec()));
}

#[test]
fn a_stdin_that_can_not_be_read_is_a_failure() {
    let (addr, server) = server(|mut stream| stream.read(&mut [0]).map_err(|error| error.kind()));
    let folder = std::fs::File::open("/").expect("it exists");
    let outcome = finish(command(&["connect", &addr]).stdin(folder).spawn().expect("it starts"));
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.starts_with("finale: can't read stdin: Is a directory"), "{outcome:?}");
    assert_eq!(server.join().expect("the server ends"), Err(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn without_half_close_the_end_of_stdin_ends_nothing() {
    let (addr, server) = server(|mut stream| {
        let mut request = [0; 8];
        stream.read_exact(&mut request).expect("the request comes");
        // The first FIN must be ours: the ending says whose it was.
        stream.shutdown(std::net::Shutdown::Write).expect("still connected");
        (request, read_all(&mut stream))
    });
    let outcome = run_with(&["connect", "--no-half-close", &addr], b"question".to_vec());
    assert_eq!(outcome.code, Some(0));
    assert!(outcome.last_line().contains("the peer finished first"), "{outcome:?}");
    assert_eq!(server.join().expect("the server ends"), (*b"question", vec![]));
}

#[test]
fn a_large_stdin_arrives_whole_at_a_server_that_answers_at_the_end() {
    let length = 32 << 20;
    let (addr, server) = server(|mut stream| read_all(&mut stream).len());
    let outcome = run_with(&["connect", &addr, "--half-close"], vec![b'x'; length]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.last_line().ends_with(&format!("0 bytes read, {length} written")), "{outcome:?}");
    assert_eq!(server.join().expect("the server ends"), length);
}

/// What the two kernels have no room for stays unread.
#[test]
fn stdin_is_read_no_faster_than_the_socket_takes_it() {
    let (reset, is_reset) = channel::<()>();
    let (addr, server) = server(move |_reads_nothing| is_reset.recv());
    let outcome = run_with(&["connect", "--json", "-w", "300ms", &addr], vec![b'x'; 64 << 20]);
    drop(reset);
    let ending: Value = serde_json::from_str(outcome.last_line()).expect("it is JSON");
    assert_eq!((outcome.code, &ending["input_left"]), (Some(1), &json!(true)), "{outcome:?}");
    assert!(ending["bytes_unsent"].as_u64() < Some(1 << 20), "{ending}");
    assert!(server.join().expect("the server ends").is_err());
}

#[test]
fn verbose_prints_the_events_in_their_order() {
    let (addr, server) = server(|mut stream| {
        stream.write_all(b"hi").expect("the client reads");
    });
    let outcome = run(&["connect", "-v", &addr]);
    let (last, events) = outcome.stderr.trim_end().rsplit_once('\n').map(|(a, b)| (b, a)).expect("several lines");
    assert_eq!(events, format!("lookup 127.0.0.1\nconnect {addr}\nready\ndata, 2 bytes\nend\nclose"));
    assert!(last.starts_with("finale: "), "{last}");
    server.join().expect("the server ends");
}

#[test]
fn trace_prints_the_calls_the_states_and_what_the_kernel_says() {
    let (addr, server) = server(|mut stream| {
        let request = read_all(&mut stream);
        stream.write_all(b"answer").expect("the client still reads");
        request
    });
    let outcome = run_with(&["connect", "--trace", &addr], b"question".to_vec());
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "answer"), "{outcome:?}");
    assert!(outcome.stderr.contains("EndCalled: Open -> Flushing"), "{outcome:?}");
    let mut rest = outcome.stderr.as_str();
    for row in [
        "connect 127.0.0.1:",
        "kernel: ESTABLISHED",
        "Established: Connecting -> Open, event connect ready",
        "send 8 bytes",
        "shutdown(SHUT_WR)",
        "recv 6 bytes",
        "recv 0: the peer's FIN",
        "Fin: LocalFinished -> Closing, event end",
        "CloseDue: Confirmed -> Closed, event close",
    ] {
        rest = rest.split_once(row).unwrap_or_else(|| panic!("no {row} in its place: {}", outcome.stderr)).1;
    }
    assert!(outcome.last_line().starts_with("finale: ") && outcome.last_line().contains("clean"), "{outcome:?}");
    server.join().expect("the server ends");
    run(&["connect", "--trace", "--json", &addr]).refused_with(2, "can't be used with");
}

#[test]
fn a_reset_is_a_failure() {
    let (addr, server) = server(|mut stream| {
        stream.write_all(b"half of").expect("the client reads");
        let mut one = [0];
        stream.read_exact(&mut one).expect("the client has read it: it answers");
        reset(stream);
    });
    let outcome = run_with(&["connect", "--no-half-close", &addr], b"!".to_vec());
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.last_line().contains("error: reset by the peer; neither side finished"), "{outcome:?}");
    server.join().expect("the server ends");
}

#[test]
fn a_silent_server_is_reset_after_the_idle_time() {
    for option in ["--idle-timeout", "--timeout", "-w"] {
        let (addr, server) = server(|mut stream| stream.read_exact(&mut [0]).map_err(|error| error.kind()));
        let outcome = run(&["connect", "--no-half-close", option, "50ms", &addr]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""));
        assert!(outcome.stderr.contains("no byte moved"), "{outcome:?}");
        assert!(outcome.last_line().contains("destroyed by us"), "{outcome:?}");
        assert_eq!(server.join().expect("the server ends"), Err(std::io::ErrorKind::ConnectionReset));
    }
}

#[test]
fn a_closed_stdout_ends_the_connection_with_a_message() {
    let (addr, server) = server(|mut stream| {
        // Until the client resets.
        while stream.write_all(&[b'x'; 64 << 10]).is_ok() {}
    });
    let mut child = command(&["connect", &addr]).stdout(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.starts_with("finale: can't write to stdout: "), "{outcome:?}");
    assert!(outcome.last_line().contains("destroyed by us"), "{outcome:?}");
    server.join().expect("the server ends");
}

/// Rust opens /dev/null there before `main`, as other programs do for their children.
#[test]
fn a_stdout_that_is_closed_from_the_start_is_dev_null() {
    let echo = Server::start(&["echo"]);
    for to in [">&-", ">/dev/null"] {
        let outcome = shell(&format!("echo y | \"$FINALE\" connect {} {to}", echo.addr));
        assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.lines().count()), (Some(0), "", 1), "{to}");
    }
}

#[test]
fn a_closed_stdout_is_one_message_also_while_stdin_has_more() {
    for _ in 0..5 {
        // It echoes, so that input is left when the output is closed.
        let echo = Server::start(&["echo"]);
        let outcome = shell(&format!("yes | \"$FINALE\" connect {} | head -n 1", echo.addr));
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.lines().count()), ("y\n", 2), "{outcome:?}");
        assert!(outcome.stderr.starts_with("finale: can't write to stdout: "), "{outcome:?}");
    }
}

#[test]
fn a_refused_connection_is_reported_in_one_line() {
    // Bound and not listening: the port is ours, and connects are refused.
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a descriptor is free");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port is free");
    let addr = socket.local_addr().ok().and_then(|addr| addr.as_socket()).expect("it is bound").to_string();
    run(&["connect", &addr]).refused_with(1, "refused: nothing listens there");
}

#[test]
fn a_name_that_does_not_exist_is_reported_in_one_line() {
    run(&["connect", "nosuchhost.invalid:1"]).refused_with(1, "nosuchhost.invalid:1: error: lookup failed");
    run(&["connect", "no\nsuch:1"]).refused_with(1, "no\\nsuch:1: error: lookup failed");
}

#[test]
fn a_wrong_address_is_reported_in_one_line() {
    run(&["connect", "localhost"]).refused_with(2, "'localhost': not an address: it has no port");
    run(&["connect", "::1"]).refused_with(2, "[::1]:PORT");
    run(&["connect", "localhost:http"]).refused_with(2, "0 to 65535");
    run(&["connect", "localhost:65536"]).refused_with(2, "0 to 65535");
    run(&["connect", ":7000"]).refused_with(2, "no host");
    run(&["connect", ""]).refused_with(2, "no port");
}

/// The ending as a program reads it.
#[track_caller]
fn ending(outcome: &Outcome) -> Value {
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    serde_json::from_str(&outcome.stderr).expect("it is JSON")
}

#[test]
fn a_clean_ending_as_json_has_every_part_of_the_text() {
    let (addr, server) = server(|mut stream| {
        let request = read_all(&mut stream);
        stream.write_all(b"answer").expect("the client still reads");
        request
    });
    let outcome = run_with(&["connect", "-N", "--json", &addr], b"question".to_vec());
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "answer"));
    let expected = json!({
        "target": addr, "clean": true, "acknowledged": true, "kind": "confirmed", "first_fin": "local", "time_wait": "local",
        "peer": addr, "bytes_read": 6, "bytes_written": 8, "bytes_unsent": 0, "input_left": false,
        "tls": null,
    });
    assert_eq!(ending(&outcome), expected);
    server.join().expect("the server ends");
}

#[test]
fn a_failed_ending_as_json_names_the_cause() {
    let (_held, unused) = finale_test_support::dead_port();
    let outcome = run(&["connect", "--json", &unused.to_string()]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""));
    let ending = ending(&outcome);
    assert_eq!((&ending["clean"], &ending["first_fin"]), (&json!(false), &json!("neither")), "{ending}");
    assert_eq!(ending["kind"]["failed"]["kind"], "refused", "{ending}");
    assert_eq!(ending["kind"]["failed"]["attempts"][0]["addr"], unused.to_string(), "{ending}");
}

#[test]
fn quiet_prints_an_ending_only_if_it_is_not_clean() {
    let (addr, clean) = server(drop);
    let outcome = run(&["connect", "-q", &addr]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    clean.join().expect("the server ends");
    let (addr, broken) = server(reset);
    run(&["connect", "--quiet", &addr]).refused_with(1, "reset by the peer");
    broken.join().expect("the server ends");
}

#[test]
fn one_byte_is_one_byte() {
    let (addr, server) = server(|mut stream| stream.write_all(b"!").expect("the client reads"));
    let outcome = run(&["connect", "-v", &addr]);
    assert!(outcome.stderr.contains("\ndata, 1 byte\n"), "{outcome:?}");
    server.join().expect("the server ends");
}

#[test]
fn max_time_ends_a_run_in_which_bytes_move() {
    let (addr, server) = server(|mut stream| while stream.write_all(b"drip").is_ok() {});
    let outcome = run(&["connect", &addr, "--max-time", "200ms"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.last_line().contains("timed out: not done by its deadline"), "{}", outcome.stderr);
    assert!(!outcome.last_line().contains("both finished"), "the peer has not: {}", outcome.stderr);
    server.join().expect("the server ends");
}

#[test]
fn max_time_ends_a_run_whose_stdout_is_full() {
    let (addr, server) = server(|mut stream| while stream.write_all(&[b'x'; 64 << 10]).is_ok() {});
    let mut child = command(&["connect", &addr, "-m", "200ms"]).spawn().expect("it starts");
    let unread = child.stdout.take();
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.starts_with("finale: can't write to stdout: it took nothing until --max-time\n"),
        "{outcome:?}"
    );
    assert!(outcome.last_line().contains("timed out: not done by its deadline"), "{outcome:?}");
    drop(unread);
    server.join().expect("the server ends");
}

/// A full stdout has until then.
#[test]
fn before_max_time_a_stdout_that_is_full_loses_nothing() {
    const BYTES: usize = 1 << 20;
    let (addr, server) = server(|mut stream| stream.write_all(&[b'x'; BYTES]).expect("the client reads"));
    let mut child = command(&["connect", &addr, "-m", "1h"]).spawn().expect("it starts");
    let mut stdout = child.stdout.take().expect("it is a pipe");
    wait_until_full(&stdout);
    let mut read = Vec::new();
    stdout.read_to_end(&mut read).expect("it is open");
    let outcome = finish(child);
    assert_eq!((outcome.code, read.len()), (Some(0), BYTES), "{outcome:?}");
    server.join().expect("the server ends");
}

/// Until this pipe has no room for another piece.
#[track_caller]
pub(crate) fn wait_until_full(pipe: &ChildStdout) {
    let begun = Instant::now();
    while rustix::io::ioctl_fionread(pipe).expect("it is a pipe") < 60_000 {
        assert!(begun.elapsed() < PATIENCE, "the pipe does not fill");
        thread::yield_now();
    }
}

#[test]
fn the_idle_time_ends_a_run_whose_stdout_is_full() {
    for options in [["-w", "200ms", "-m", "1h"], ["--idle-timeout", "200ms", "-w", "1h"]] {
        let (addr, server) = server(|mut stream| while stream.write_all(&[b'x'; 64 << 10]).is_ok() {});
        let mut child = command(&[["connect", &addr].as_slice(), &options].concat()).spawn().expect("it starts");
        let unread = child.stdout.take();
        let outcome = finish(child);
        assert_eq!(outcome.code, Some(1));
        let line = "finale: can't write to stdout: it took nothing for the idle time\n";
        assert!(outcome.stderr.starts_with(line), "{outcome:?}");
        drop(unread);
        server.join().expect("the server ends");
    }
}

#[test]
fn a_connection_that_takes_a_second_is_announced_with_its_address() {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("it can be made");
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port is free");
    listener.listen(0).expect("it can listen");
    let addr = listener.local_addr().ok().and_then(|addr| addr.as_socket()).expect("it is bound");
    let _fills_the_backlog = TcpStream::connect(addr).expect("there is room for one");
    let addr = addr.to_string();
    let line = format!("finale: {addr}: still connecting to {addr}");
    let outcome = run(&["connect", &addr, "-w", "1100ms"]);
    assert_eq!((outcome.code, outcome.stderr.lines().next()), (Some(1), Some(line.as_str())), "{outcome:?}");
    assert!(outcome.last_line().contains("timed out: not connected in time"), "{outcome:?}");
    for option in ["--quiet", "--json"] {
        let outcome = run(&["connect", &addr, "-w", "1100ms", option]);
        assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(1), 1), "{outcome:?}");
    }
}

#[test]
fn a_datagram_socket_is_no_stream_socket() {
    let path = std::env::temp_dir().join(format!("finale-datagram-{}", std::process::id()));
    let _of_a_run_that_was_killed = std::fs::remove_file(&path);
    let _socket = UnixDatagram::bind(&path).expect("the path is free");
    run(&["connect", &format!("unix:{}", path.display())]).refused_with(1, "not a stream socket");
    std::fs::remove_file(&path).expect("it is ours");
}

#[test]
fn too_few_descriptors_are_reported_in_one_line() {
    let (_held, unused) = finale_test_support::dead_port();
    let mut reasons = Vec::new();
    for limit in 5..24 {
        let outcome = shell(&format!("ulimit -n {limit} && exec \"$FINALE\" connect {unused}"));
        outcome.refused_with(1, "");
        reasons.push(outcome.stderr);
    }
    assert!(reasons[0].contains("Too many open files"), "{reasons:?}");
    assert!(reasons.last().is_some_and(|last| last.contains("refused")), "{reasons:?}");
}
