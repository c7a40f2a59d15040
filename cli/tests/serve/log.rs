//! What `finale serve` prints on stderr, and what becomes of it if nothing reads it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use crate::common::{self, command, finish, patient};
use crate::harness::{LINE, Server, signal};
use rustix::process::Signal;

/// A client that was answered, and its address.
fn served(server: &Server) -> String {
    let mut client = patient(TcpStream::connect(server.addr).expect("it listens"));
    client.write_all(b"question").and_then(|()| client.shutdown(Shutdown::Write)).expect("connected");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("no reset");
    assert_eq!(answer, LINE);
    client.local_addr().expect("connected").to_string()
}

#[test]
fn a_verbose_server_prints_each_ending_with_its_address_and_what_a_stop_waits_for() {
    let mut server = Server::start(env!("CARGO_BIN_EXE_finale"), &["-v", "--grace", "1h"]);
    let addr = served(&server);
    let line = server.line_with(&addr);
    assert!(line.contains("clean"), "{line}");
    let mut client = patient(TcpStream::connect(server.addr).expect("it listens"));
    client.write_all(b"a long question").expect("connected");
    let addr = client.local_addr().expect("connected").to_string();
    // Accepted after that one, and gone when its ending is printed.
    let other = served(&server);
    server.line_with(&other);
    // A request for the metrics is no stop.
    signal(server.successor, Signal::USR1);
    let mut line = server.line();
    while !line.contains("late at most") {
        assert!(!line.contains("waiting"), "{line}");
        line = server.line();
    }
    signal(server.successor, Signal::TERM);
    let line = server.line_with("stopping: 1 connection");
    assert!(line.contains("3600s"), "{line}");
    server.line_with(&format!("waiting for {addr}"));
    common::reset(client);
    let line = server.line_with(&addr);
    assert!(line.contains("reset"), "{line}");
    assert!(server.child.wait().expect("it is ours").success());
}

/// Two processes write to it during a restart.
#[test]
fn each_line_of_a_verbose_server_names_its_process() {
    let mut server = Server::start(env!("CARGO_BIN_EXE_finale"), &["-v", "--grace", "1h"]);
    let old = format!("finale[{}]: ", server.child.id());
    assert!(server.restart().starts_with(&old));
    let new = format!("finale[{}]: ", server.successor);
    let of_new = format!("{new}[INFO  finale::serve");
    let mut lines = Vec::<String>::new();
    // The old process may still accept a client or two.
    while !lines.last().is_some_and(|line| line.starts_with(&of_new)) {
        let addr = served(&server);
        lines.push(server.line_with(&addr));
    }
    lines.extend(server.stop().lines().map(str::to_owned));
    assert!(lines.iter().all(|line| line.starts_with(&old) || line.starts_with(&new)), "{lines:?}");
}

#[test]
fn a_traced_server_prints_the_ladder_of_a_connection_when_it_ends() {
    let mut server = Server::start(env!("CARGO_BIN_EXE_finale"), &["--trace=10"]);
    served(&server);
    let addr = served(&server);
    let title = server.line_with(&addr);
    assert!(title.contains("INFO"), "{title}");
    let ladder: Vec<_> =
        (0..40).map(|_| server.line()).take_while(|line| !line.contains("server: Closed, clean")).collect();
    let text = ladder.concat();
    assert!(!text.contains('#'), "a single connection has no number: {text}");
    for words in ["accept ", "recv 8 bytes", "Fin: Open -> PeerFinished, event end", "shutdown(SHUT_WR)", "ended clean"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains('\u{1b}'), "a log has no colours: {text:?}");
    assert!(!server.stop().contains("clean and"), "the endings of others are not printed");
}

/// Its rows were replaced by newer ones, as those of a busy server are.
#[test]
fn a_ladder_whose_beginning_was_lost_says_from_where_its_times_count() {
    let mut server = Server::spawn(&mut command(&["serve", "echo", "--listen", "127.0.0.1:0", "--trace"]));
    let mut client = patient(TcpStream::connect(server.addr).expect("it listens"));
    for _ in 0..300 {
        client.write_all(b"x").and_then(|()| client.read_exact(&mut [0])).expect("an echo");
    }
    client.shutdown(Shutdown::Write).expect("connected");
    let lines: Vec<_> =
        std::iter::from_fn(|| Some(server.line())).take_while(|line| !line.contains("ended ")).collect();
    assert!(lines.iter().any(|line| line.contains("from its oldest row that was kept")), "{lines:?}");
    server.stop();
}

#[test]
fn of_a_long_connection_the_newest_rows_are_printed() {
    let mut command = command(&["serve", "echo", "--listen", "127.0.0.1:0", "--trace=10", "-v", "--shards", "2"]);
    let mut server = Server::spawn(&mut command);
    let mut client = patient(TcpStream::connect(server.addr).expect("it listens"));
    for _ in 0..100 {
        client.write_all(b"x").and_then(|()| client.read_exact(&mut [0])).expect("an echo");
    }
    client.shutdown(Shutdown::Write).expect("connected");
    let line = server.line_with("earlier rows were not kept");
    let count: usize = line.trim().split(' ').next().and_then(|count| count.parse().ok()).expect("a number");
    assert!(count > 200, "three rows or more for each byte: {line}");
    let rows = std::iter::from_fn(|| Some(server.line())).take_while(|line| !line.contains("ended ")).count();
    assert_eq!(rows, 60);
    server.line_with("clean and acknowledged");
    server.stop();
}

#[test]
fn a_trace_has_a_bounded_number_per_second() {
    for (args, part) in
        [(["--trace=0", "-v"], "1 to 10"), (["--trace=11", "-v"], "1 to 10"), (["--trace", "-q"], "used with")]
    {
        let refused = command(&["serve", "echo"]).args(args).output().expect("it starts");
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(2) && text.contains(part), "{args:?}: {text}");
    }
}

#[test]
fn a_stop_names_twenty_clients_and_counts_the_others() {
    for (count, more) in [(20, None), (23, Some("waiting for 3 more"))] {
        let mut server = Server::start(env!("CARGO_BIN_EXE_finale"), &["-v", "--grace", "1h"]);
        let clients: Vec<_> = (0..count).map(|_| TcpStream::connect(server.addr).expect("it listens")).collect();
        for mut client in &clients {
            client.write_all(b"a long question").expect("connected");
        }
        served(&server);
        signal(server.successor, Signal::TERM);
        server.line_with("stopping: ");
        let lines: Vec<_> = (0..20).map(|_| server.line_with("waiting for ")).collect();
        assert!(lines.iter().all(|line| line.contains("waiting for 127.0.0.1:")), "{lines:?}");
        more.into_iter().for_each(|more| drop(server.line_with(more)));
        let rest = server.stop();
        assert!(!rest.contains("waiting"), "{rest}");
    }
}

#[test]
fn an_ending_says_whether_the_last_bytes_were_confirmed() {
    for (close, expected) in [("confirmed", "clean and acknowledged"), ("hand-off", "handed off to the kernel")] {
        let mut server = Server::start(env!("CARGO_BIN_EXE_finale"), &["-v", "--close", close]);
        let addr = served(&server);
        let line = server.line_with(&addr);
        assert!(line.contains(expected), "{line}");
    }
}

/// More lines than a pipe and the queue of the log hold.
#[test]
fn a_log_that_is_not_read_stops_neither_the_service_nor_its_end() {
    let mut child = command(&["serve", "discard", "-v", "--listen", "127.0.0.1:0"]).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it is text");
    let addr: std::net::SocketAddr =
        line.trim_end().strip_prefix("listening on ").and_then(|addr| addr.parse().ok()).expect("an address");
    for _ in 0..6_000 {
        let mut client = patient(TcpStream::connect(addr).expect("it listens"));
        client.shutdown(Shutdown::Write).expect("connected");
        assert_eq!(client.read(&mut [0]).expect("no reset"), 0);
    }
    signal(child.id(), Signal::TERM);
    let mut stderr = child.stderr.take().expect("piped");
    assert_eq!(finish(child).code, Some(0));
    let mut read = Vec::new();
    stderr.read_to_end(&mut read).expect("it has ended");
    let lines = read.iter().filter(|byte| **byte == b'\n').count();
    assert!((100..6_000).contains(&lines), "{lines} lines are what the pipe held");
}

#[test]
fn a_warning_names_the_client() {
    let server = common::Server::start(&["upper"]);
    let mut client = server.connect();
    let addr = client.local_addr().expect("connected").to_string();
    // The reset may arrive while we still write.
    let _ = client.write_all(&vec![b'x'; (1 << 20) + 1]);
    let _ = client.read(&mut [0]).expect_err("a reset");
    server.signal(Signal::TERM);
    let (code, stderr) = server.finish();
    assert_eq!(code, Some(0));
    assert!(stderr.lines().count() == 1 && stderr.contains(&addr), "{stderr}");
}
