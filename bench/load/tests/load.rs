//! The load notices every way in which a server can be wrong, and holds the requested connections.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use finale_load::answer::LINE;
use finale_load::half_close::{First, HalfClose};
use socket2::{Domain, SockRef, Socket, Type};

/// A server that does this with each of its connections, for as long as the test program runs.
fn server(serve: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let addr = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            serve(stream.expect("accepted"));
        }
    });
    addr
}

/// Reads to the client's FIN, then sends this.
fn says(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer = answer.into();
    server(move |mut stream| {
        stream.read_to_end(&mut Vec::new()).expect("a clean end");
        stream.write_all(&answer).expect("sent");
    })
}

fn load(args: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_load")).args(args.split(' ')).output().expect("it ran")
}

#[track_caller]
fn expect(addr: SocketAddr, failed: u64, why: &str) {
    let load = HalfClose { addr, connections: 6, in_flight: 2, request: 10, answer: 128, first: First::Client };
    let summary = load.run();
    assert_eq!(summary.failed, failed, "{summary}");
    assert!(summary.why.as_deref().unwrap_or_default().contains(why), "{:?}", summary.why);
    assert!(summary.to_string().ends_with(&format!(" {failed} failed")), "{summary}");
}

#[test]
fn a_right_answer_is_no_failure() {
    expect(says(LINE.repeat(2)), 0, "");
}

#[test]
fn an_answer_that_is_cut_is_a_failure() {
    expect(says(LINE.repeat(2)[..127].to_vec()), 6, "the end came at 127 of 128");
    expect(says(""), 6, "the end came at 0 of 128");
}

#[test]
fn an_answer_that_is_too_long_is_a_failure() {
    expect(says(LINE.repeat(3)), 6, "more than the answer");
}

#[test]
fn one_wrong_byte_is_a_failure() {
    let mut answer = LINE.repeat(2);
    answer[100] ^= 1;
    expect(says(answer), 6, "a byte that is wrong");
}

#[test]
fn a_reset_is_a_failure() {
    let addr = server(|mut stream| {
        stream.read_to_end(&mut Vec::new()).expect("a clean end");
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("set");
    });
    expect(addr, 6, "reset");
}

#[test]
fn a_refusal_is_a_failure() {
    // Bound, so that nothing else gets the port, and without a listener.
    let held = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    expect(held.local_addr().expect("bound").as_socket().expect("of IPv4"), 6, "refused");
}

#[test]
fn the_program_exits_with_1_after_a_failure() {
    let good = load(&format!("half-close {} 3 2 64 64", says(LINE.as_slice())));
    assert_eq!(good.status.code(), Some(0));
    let bad = load(&format!("half-close {} 3 2 64 65", says(LINE.as_slice())));
    assert_eq!(bad.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&bad.stdout).trim_end().ends_with("3 failed"));
    assert_eq!(load("half-close 127.0.0.1:1 3 0 64 64").status.code(), Some(2), "nothing in flight is no load");
}

#[test]
fn an_echo_that_is_not_one_is_a_failure() {
    let addr = server(|mut stream| {
        let mut bytes = [0; 8];
        while stream.read_exact(&mut bytes).is_ok() {
            bytes[7] ^= 1;
            stream.write_all(&bytes).expect("sent");
        }
    });
    let output = load(&format!("echo {addr} 1 5 8"));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).trim_end().ends_with("1 failed"));
}

#[test]
fn idle_connections_are_held_until_stdin_ends_and_leave_with_a_fin() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let addr = listener.local_addr().expect("bound");
    let mut program = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(["idle", &addr.to_string(), "5"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it ran");
    let mut lines = BufReader::new(program.stdout.take().expect("piped")).lines();
    assert_eq!(lines.next().expect("a line").expect("UTF-8"), "holding 5");
    let held: Vec<TcpStream> = (0..5).map(|_| listener.accept().expect("accepted").0).collect();
    for stream in &held {
        stream.set_nonblocking(true).expect("set");
        let nothing = stream.peek(&mut [0]).expect_err("nothing has come");
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
        stream.set_nonblocking(false).expect("set");
    }
    drop(program.stdin.take());
    for mut stream in held {
        assert_eq!(stream.read(&mut [0]).expect("a FIN"), 0);
        stream.shutdown(Shutdown::Both).expect("ended");
    }
    assert!(lines.next().expect("a line").expect("UTF-8").ends_with(" 0 failed"));
    assert_eq!(program.wait().expect("ended").code(), Some(0));
}
