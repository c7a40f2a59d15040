//! The examples do what they claim.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

/// A running example; it ends with the test.
struct Example {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    addr: SocketAddr,
}

/// Where the examples of this build are.
fn program(name: &str) -> std::path::PathBuf {
    let tests = std::env::current_exe().expect("a path");
    tests.ancestors().nth(2).expect("target/PROFILE").join("examples").join(name)
}

impl Example {
    fn start(name: &str, args: &[&str]) -> Self {
        let path = program(name);
        let mut child = Command::new(&path)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        let addr = line.trim_start_matches("listening on ").split([';', '\n']).next().expect("an address");
        Self { child, out, addr: addr.parse().unwrap_or_else(|_| panic!("no address in {line:?}")) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).expect("it listens");
        // Not a test of speed: a mistake of ours must not hang.
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        stream
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line");
        line
    }

    fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("piped")
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("set");
}

fn read_to_end(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("a clean end");
    bytes
}

#[test]
fn echo_gives_everything_back_and_says_how_it_ended() {
    let mut echo = Example::start("echo", &["127.0.0.1:0"]);
    let stream = echo.connect();
    let sent = vec![7; 3_000_000];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(&sent).expect("room comes");
            stream.shutdown(Shutdown::Write).expect("open");
        });
        assert!(read_to_end(&stream) == sent, "not the same bytes");
    });
    assert!(echo.line().contains("clean and acknowledged; the peer finished first"));
}

fn terminate(program: &Example) {
    let pid = rustix::process::Pid::from_child(&program.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
}

/// A proxy, a client connected through it, and what the backend has accepted.
fn proxied() -> (Example, TcpStream, TcpStream) {
    let backend = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = backend.local_addr().expect("bound").to_string();
    let proxy = Example::start("proxy", &["127.0.0.1:0", &addr, "--ahead", "1"]);
    let client = proxy.connect();
    let (back, _) = backend.accept().expect("the proxy connects");
    back.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    (proxy, client, back)
}

/// The same after the two have begun to talk: a backend's connection that ends before belongs to no
/// client.
fn joined() -> (Example, TcpStream, TcpStream) {
    let (proxy, client, back) = proxied();
    (&client).write_all(b"!").expect("open");
    (&back).read_exact(&mut [0]).expect("it is passed on");
    (proxy, client, back)
}

#[test]
fn the_proxy_passes_half_closes_through_in_both_directions() {
    let (_proxy, client, back) = proxied();
    (&client).write_all(b"question").expect("open");
    client.shutdown(Shutdown::Write).expect("open");
    assert_eq!(read_to_end(&back), b"question");
    (&back).write_all(b"answer after your end").expect("open");
    back.shutdown(Shutdown::Write).expect("open");
    assert_eq!(read_to_end(&client), b"answer after your end");

    let (_proxy, client, back) = joined();
    back.shutdown(Shutdown::Write).expect("open");
    assert_eq!(read_to_end(&client), b"");
    (&client).write_all(b"after your end").expect("open");
    client.shutdown(Shutdown::Write).expect("open");
    assert_eq!(read_to_end(&back), b"after your end");
}

#[test]
fn the_proxy_passes_resets_through_in_both_directions() {
    let (_proxy, client, back) = joined();
    reset(client);
    assert_eq!((&back).read_exact(&mut [0]).expect_err("a reset").kind(), ErrorKind::ConnectionReset);

    let (_proxy, client, back) = joined();
    reset(back);
    assert_eq!((&client).read_exact(&mut [0]).expect_err("a reset").kind(), ErrorKind::ConnectionReset);
}

/// A grace would end the client's stream, which looks idle. It is 1 s by default.
#[test]
fn the_proxy_that_is_stopped_does_not_end_an_answer_whose_backend_pauses() {
    let (mut proxy, client, back) = joined();
    (&back).write_all(b"a part").expect("open");
    (&client).read_exact(&mut [0; 6]).expect("it is passed on");
    terminate(&proxy);
    client.set_read_timeout(Some(Duration::from_secs(3))).expect("set");
    assert_eq!((&client).read(&mut [0]).expect_err("neither bytes nor an end").kind(), ErrorKind::WouldBlock);
    (&back).write_all(b", and the rest").expect("open");
    drop(back);
    assert_eq!(read_to_end(&client), b", and the rest");
    drop(client);
    assert!(proxy.child.wait().expect("it ends").success());
}

#[test]
fn the_proxy_passes_back_pressure_through() {
    let (_proxy, client, back) = proxied();
    client.set_nonblocking(true).expect("set");
    let mut sent = 0;
    let mut stalled_since = None;
    // The client reads nothing: the stream must stop, with a few buffers full and not with the
    // whole stream in the proxy's memory.
    while stalled_since.is_none_or(|since: std::time::Instant| since.elapsed() < Duration::from_millis(300)) {
        match (&client).write(&[1; 65_536]) {
            Ok(bytes) => (sent, stalled_since) = (sent + bytes, None),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                stalled_since.get_or_insert_with(std::time::Instant::now);
            }
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 100_000_000, "no back-pressure");
    }
    client.shutdown(Shutdown::Write).expect("open");
    assert_eq!(read_to_end(&back).len(), sent, "and nothing is lost");
}

#[test]
fn embed_serves_its_clients_and_its_own_descriptor_in_one_loop() {
    let mut embed = Example::start("embed", &[]);
    let mut client = embed.connect();
    client.write_all(b"hello").expect("open");
    assert!(embed.line().ends_with(": hello\n"));
    let mut stdin = embed.stdin();
    stdin.write_all(b"to all\n").expect("open");
    let mut bytes = [0; 7];
    client.read_exact(&mut bytes).expect("sent to every client");
    assert_eq!(&bytes, b"to all\n");
    drop(stdin);
    assert!(embed.child.wait().expect("it ends with its input").success());
    assert_eq!(client.read_exact(&mut bytes).expect_err("the reactor was dropped").kind(), ErrorKind::ConnectionReset);
}

/// Two servers are wrong, and the output names where; the third is right.
#[test]
fn endings_finds_what_is_wrong_with_two_servers_of_three() {
    let output = Command::new(program("endings")).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let parts: Vec<&str> = text.split("=== ").skip(1).collect();
    assert_eq!(parts.len(), 3, "{text}");
    assert!(parts[0].contains("the peer sends and receives byte by byte: rule \"same answer\""), "{text}");
    assert!(parts[1].contains("the peer finishes and reads on after byte 7"), "{text}");
    assert!(parts[1].contains("| server") && parts[1].contains("destroys"), "the transcript is printed: {text}");
    assert!(parts[2].contains("endings, and every rule was kept"), "{text}");
}

/// As with `endings | head`.
#[test]
fn a_reader_that_leaves_is_an_error_and_no_panic() {
    for name in ["endings", "explain"] {
        let (reader, out) = std::io::pipe().expect("descriptors");
        drop(reader);
        let output = Command::new(program(name)).stdout(out).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && !text.contains("panicked"), "{name}: {text}");
    }
}

/// A backend that answers each request, at its end, with its own name.
fn backend(name: &'static str, socket: socket2::Socket) -> String {
    socket.listen(128).expect("a port");
    let listener = TcpListener::from(socket);
    let addr = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // A spare connection that is never used ends with the proxy.
                let asked = std::io::read_to_string(&stream).unwrap_or_default();
                if !asked.is_empty() {
                    let _ = (&stream).write_all(format!("{name}: {asked}").as_bytes());
                }
            });
        }
    });
    addr.to_string()
}

/// A port without a listener, which no other process gets meanwhile.
fn port() -> (socket2::Socket, String) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let addr = socket.local_addr().expect("bound").as_socket().expect("an address").to_string();
    (socket, addr)
}

fn ask(proxy: &Example, question: &str) -> String {
    let stream = proxy.connect();
    (&stream).write_all(question.as_bytes()).expect("open");
    stream.shutdown(Shutdown::Write).expect("open");
    String::from_utf8(read_to_end(&stream)).expect("text")
}

#[test]
fn the_proxy_takes_backends_in_turn_and_leaves_out_who_is_not_there() {
    let (first, second) = (backend("first", port().0), backend("second", port().0));
    let (_kept, nobody) = port();
    let proxy = Example::start("proxy", &["127.0.0.1:0", &first, &nobody, &second]);
    let answers: Vec<_> = (0..20).map(|number| ask(&proxy, &number.to_string())).collect();
    for (number, answer) in answers.iter().enumerate() {
        assert!([format!("first: {number}"), format!("second: {number}")].contains(answer), "{answer}");
    }
    let of_first = answers.iter().filter(|answer| answer.starts_with("first")).count();
    assert!((5..=15).contains(&of_first), "{of_first} of 20");
}

#[test]
fn the_proxy_keeps_clients_waiting_for_a_backend_that_is_not_there_yet() {
    let (socket, addr) = port();
    let proxy = Example::start("proxy", &["127.0.0.1:0", &addr]);
    let client = std::thread::scope(|scope| {
        let client = scope.spawn(|| ask(&proxy, "early"));
        backend("late", socket);
        client.join().expect("no panic")
    });
    assert_eq!(client, "late: early");
}

/// How many processes listen on this port.
fn listeners(addr: SocketAddr) -> usize {
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    let port = format!(":{:04X}", addr.port());
    let listens = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        // The local address, the remote one, and the state: 0A is LISTEN.
        words.next().is_some_and(|local| local.ends_with(&port)) && words.nth(1) == Some("0A")
    };
    sockets.lines().filter(listens).count()
}

/// The port is shared, so the next proxy is ready before the old one ends. At the moment when that
/// closes its queue no client connects: the kernel would reset the clients in it, see
/// docs/proxy.md.
#[test]
fn a_proxy_that_is_replaced_is_followed_by_the_next_and_lets_everybody_finish() {
    let addr = backend("only", port().0);
    let mut old = Example::start("proxy", &["127.0.0.1:0", &addr]);
    let slow = old.connect();
    (&slow).write_all(b"slow").expect("open");
    assert_eq!(ask(&old, "before"), "only: before");
    let new = Example::start("proxy", &[&old.addr.to_string(), &addr]);
    terminate(&old);
    while listeners(old.addr) > 1 {
        std::thread::yield_now();
    }
    for number in 0..50 {
        assert_eq!(ask(&new, &number.to_string()), format!("only: {number}"));
    }
    assert!(old.child.try_wait().expect("ours").is_none(), "it still has a client");
    slow.shutdown(Shutdown::Write).expect("open");
    assert_eq!(read_to_end(&slow), b"only: slow");
    assert!(old.child.wait().expect("it ends").success());
}
