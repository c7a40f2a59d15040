//! What an operator expects of every server among the examples: signals, logs, health checks,
//! errors.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;

use super::log::Log;
use super::program::{Program, output};

/// Less than the 30 s that a graceful stop may take, and far more than a forced one needs.
const AT_ONCE: Duration = Duration::from_secs(20);

/// A backend for the proxy: it echoes.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    addr
}

/// Every server, with a request that it answers.
fn each(mut test: impl FnMut(&str, &[&str], &[u8])) {
    let backend = backend().to_string();
    test("http", &["127.0.0.1:0"], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    test("chat", &["127.0.0.1:0"], b"anna\n");
    test("lines", &["127.0.0.1:0"], b"hello\n");
    test("stop", &["127.0.0.1:0"], b"10\n");
    test("socks5", &["127.0.0.1:0"], &[5, 1, 0, 4]);
    test("proxy", &["127.0.0.1:0", &backend, "--send-proxy"], b"hello");
}

/// Waits until the program accepts no more clients: its stop has begun.
fn wait_for_the_stop(program: &Program) {
    while TcpStream::connect(program.addr).is_ok() {
        std::thread::yield_now();
    }
}

#[test]
fn a_second_signal_ends_every_server_at_once_although_a_client_stays() {
    each(|name, args, request| {
        let mut program = Program::start(name, args);
        let mut client = program.connect();
        client.write_all(request).expect("open");
        client.read_exact(&mut [0]).expect("an answer");
        program.terminate();
        wait_for_the_stop(&program);
        assert!(program.child.try_wait().expect("ours").is_none(), "{name} waits for its client");
        let begun = Instant::now();
        program.terminate();
        assert!(program.child.wait().expect("it ends").success(), "{name}");
        assert!(begun.elapsed() < AT_ONCE, "{name}: {:?}", begun.elapsed());
    });
}

#[test]
fn the_proxy_prints_its_state_on_a_signal_and_continues() {
    let backend = backend().to_string();
    let mut program = Program::start("proxy", &["127.0.0.1:0", &backend]);
    let mut client = program.connect();
    client.write_all(b"hello").expect("open");
    client.read_exact(&mut [0; 5]).expect("an echo");
    program.signal(Signal::USR1);
    assert_eq!(program.line(), "clients: 1 with a backend, 0 waiting for one\n");
    let line = program.line();
    assert!(line.starts_with(&format!("{backend}: in use; 1 clients, 1 since the start; ")), "{line}");
    client.write_all(b"hello").expect("open");
    client.read_exact(&mut [0; 5]).expect("an echo");
}

/// Fills the pipe to which a program writes its log.
fn fill(pipe: impl AsFd + std::io::Write) {
    let mut pipe = pipe;
    let is_writable = |pipe: &dyn AsFd| {
        let mut polled = [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::OUT)];
        poll(&mut polled, Some(&rustix::event::Timespec::default())).expect("it works") > 0
    };
    while is_writable(&pipe) {
        // Writable means that this many bytes fit.
        pipe.write_all(&[b'.'; 4096]).expect("room");
    }
}

#[test]
fn a_log_that_is_not_read_or_whose_reader_is_gone_stops_no_server() {
    each(|name, args, request| {
        for is_gone in [false, true] {
            let (mut program, pipe) = Program::start_with_a_pipe(name, args);
            if is_gone {
                program.out = None;
            } else {
                fill(&pipe);
            }
            drop(pipe);
            for _ in 0..20 {
                let mut client = program.connect();
                client.write_all(request).expect("open");
                client.read_exact(&mut [0]).unwrap_or_else(|error| panic!("{name}: {error}"));
                socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("set");
            }
            program.terminate();
            assert!(program.child.wait().expect("it ends").success(), "{name}");
        }
    });
}

#[test]
fn connections_without_a_byte_make_no_line() {
    each(|name, args, request| {
        let mut program = Program::start(name, args);
        for is_reset in [false, true] {
            let client = program.connect();
            if is_reset {
                socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("set");
            }
        }
        let mut client = program.connect();
        client.write_all(request).expect("open");
        client.read_exact(&mut [0]).expect("an answer");
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("set");
        drop(client);
        program.terminate();
        assert!(program.child.wait().expect("it ends").success(), "{name}");
        let mut log = String::new();
        program.reader().read_to_string(&mut log).expect("text");
        // The chat logs no connection; the proxy has a line for each side.
        let most = if name == "proxy" { 2 } else { 1 };
        let lines: Vec<&str> = log.lines().filter(|line| *line != "stopping").collect();
        assert!(lines.len() <= most, "{name}: {log}");
        assert!(name == "chat" || lines[0].contains(" bytes read"), "{name}: {log}");
    });
}

#[test]
fn a_wrong_call_and_an_address_in_use_are_one_line_and_a_status() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("bound").to_string();
    let failed = |name: &str, args: &[&str], status: i32, start: &str| {
        let output = output(name, args, "");
        let error = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(status), "{name} {args:?}: {error}");
        assert!(error.starts_with(start) && error.lines().count() == 1, "{name} {args:?}: {error}");
    };
    each(|name, args, _| {
        let args: Vec<&str> = [taken.as_str()].into_iter().chain(args[1..].iter().copied()).collect();
        failed(name, &args, 1, &format!("{name}: "));
        if name != "socks5" {
            failed(name, &[], 2, &format!("usage: {name} "));
        }
        // Not UTF-8.
        let output = output(name, &[OsStr::from_bytes(b"\xff"), OsStr::new(&taken)], "");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(1 | 2)) && error.lines().count() == 1, "{name}: {error}");
    });
    for args in [
        ["--ahead", "0"],
        ["--ahead", "x"],
        ["--unknown", "1"],
        ["-x", "1"],
        ["--send-proxy", "--send-proxy-v2"],
        ["--allow-unix", "--send-proxy="],
    ] {
        failed("proxy", &["127.0.0.1:0", &taken, args[0], args[1]], 2, "usage: proxy ");
    }
    for (args, start) in [
        (["nonsense", &taken], "proxy: \"nonsense\": "),
        (["localhost:0", &taken], "proxy: \"localhost:0\": "),
        (["127.0.0.1:0", ""], "proxy: \"\": "),
        (["127.0.0.1:0", "127.0.0.1:99999"], "proxy: \"127.0.0.1:99999\": "),
        (["127.0.0.1:0", "unix:/nowhere"], "proxy: \"unix:/nowhere\": "),
        (["unix:/nowhere", &taken], "proxy: \"unix:/nowhere\": "),
    ] {
        failed("proxy", &args, 2, start);
    }
    for ahead in ["18446744073709551615", "9223372036854775807", "1000000000"] {
        failed("proxy", &["127.0.0.1:0", &taken, "--ahead", ahead], 1, "proxy: ");
    }
}

/// A reader that takes nothing until it may.
struct Stuck {
    may_go: Receiver<()>,
    written: std::sync::mpsc::Sender<Vec<u8>>,
}

impl std::io::Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.may_go.recv();
        let _ = self.written.send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_log_counts_the_lines_that_it_has_lost() {
    let ((go, may_go), (written, lines)) = (channel(), channel());
    let mut log = Log::to(std::io::LineWriter::new(Stuck { may_go, written }));
    for number in 0..10_000 {
        log.line(number);
    }
    drop(go);
    // When the queue has room again, the first line says what is missing.
    let mut text = String::new();
    let mut last = 0;
    while !text.contains("lost") {
        assert!(last < 10_000, "nothing is missing: {text}");
        text.push_str(&String::from_utf8(lines.recv().expect("it continues")).expect("text"));
        log.line(10_000 + last);
        last += 1;
    }
    drop(log);
    text.extend(lines.iter().map(|bytes| String::from_utf8(bytes).expect("text")));
    let lost: usize =
        text.lines().filter_map(|line| line.strip_suffix(" lines were lost")?.parse::<usize>().ok()).sum();
    let kept = text.lines().filter(|line| !line.contains("lost")).count();
    assert!(lost > 5000 && kept > 4000, "{lost} {kept}");
    assert_eq!(lost + kept, 10_000 + last, "each line is written or counted");
}
