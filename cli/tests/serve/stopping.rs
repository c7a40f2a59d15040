//! How `finale serve` stops, who may share its port, and what its sockets are set to.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{self, patient, run};
use crate::harness::{LINE, Server, ask, pass, signal, with_sockets};
use rustix::process::Signal;
use socket2::SockRef;

#[test]
fn with_a_drain_delay_a_stopped_server_accepts_until_a_second_signal() {
    let mut server = Server::start(env!("CARGO_BIN_EXE_finale"), &["-v", "--drain-delay", "1h", "--grace", "1h"]);
    let addr = server.addr;
    signal(server.successor, Signal::TERM);
    server.line_with("accepting until then");
    for _ in 0..10 {
        ask(addr);
    }
    let mut idle = patient(TcpStream::connect(addr).expect("it listens"));
    ask(addr);
    server.stop();
    let error = idle.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    TcpStream::connect(addr).expect_err("it listens no more");
}

/// All its descriptors are in use, so clients wait. They are accepted as others end.
#[cfg(target_os = "linux")]
#[test]
fn a_stop_accepts_the_clients_that_wait() {
    let limited = "ulimit -n 40; exec \"$0\" serve answer -v --grace 1h --listen 127.0.0.1:0";
    let mut server = Server::spawn(Command::new("sh").args(["-c", limited, env!("CARGO_BIN_EXE_finale")]));
    let idle: Vec<_> = (0..60).map(|_| TcpStream::connect(server.addr).expect("it has a queue")).collect();
    server.line_with("accept failed");
    let mut last = patient(TcpStream::connect(server.addr).expect("it has a queue"));
    last.write_all(b"question").and_then(|()| last.shutdown(Shutdown::Write)).expect("connected");
    signal(server.successor, Signal::TERM);
    server.line_with("waiting for ");
    drop(idle);
    let mut answer = Vec::new();
    last.read_to_end(&mut answer).expect("no reset");
    assert_eq!(answer, LINE);
    assert!(server.child.wait().expect("it is ours").success());
}

/// The shard without the client that stays has ended.
#[cfg(target_os = "linux")]
#[test]
fn the_metrics_of_a_server_that_stops_have_the_shards_that_have_ended() {
    let args = ["--shards", "2", "--grace", "1h", "--json"];
    let mut server = Server::start(env!("CARGO_BIN_EXE_finale"), &args);
    (0..40).for_each(|_| ask(server.addr));
    let mut last = patient(TcpStream::connect(server.addr).expect("it listens"));
    last.write_all(b"a question that takes its time").expect("connected");
    signal(server.successor, Signal::TERM);
    let tasks = format!("/proc/{}/task", server.child.id());
    let is_shard = |task: PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.contains("shard"));
    let shards =
        || fs::read_dir(&tasks).expect("it runs").filter(|task| is_shard(task.as_ref().expect("it runs").path()));
    while shards().count() > 1 {
        std::thread::yield_now();
    }
    signal(server.successor, Signal::USR1);
    let metrics: serde_json::Value = serde_json::from_str(&server.line()).expect("a line of JSON");
    let counts = ["accepted", "confirmed", "listeners"].map(|name| metrics[name].as_u64());
    assert_eq!(counts, [Some(41), Some(40), Some(1)], "{metrics}");
    drop(last);
    assert!(server.child.wait().expect("it is ours").success());
}

#[test]
fn after_the_drain_delay_the_server_accepts_no_more() {
    let server = common::Server::start(&["answer", "--drain-delay", "50ms", "--grace", "1h"]);
    let mut old = server.connect();
    old.write_all(b"a question").expect("connected");
    let begun = Instant::now();
    server.signal(Signal::TERM);
    server.wait_until_closed();
    assert!(begun.elapsed() >= Duration::from_millis(50), "it closed early");
    old.shutdown(Shutdown::Write).expect("connected");
    let mut answer = Vec::new();
    old.read_to_end(&mut answer).expect("no reset");
    assert_eq!(answer, LINE);
    assert_eq!(server.finish(), (Some(0), String::new()));
}

#[test]
fn idle_clients_get_a_fin_within_the_grace_and_not_all_at_once() {
    const GRACE: Duration = Duration::from_secs(2);
    let server = common::Server::start(&["echo", "--grace", "2s"]);
    let mut clients: Vec<_> = (0..32).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.write_all(b"hello").expect("connected");
        client.read_exact(&mut [0; 5]).expect("an echo");
    }
    let begun = Instant::now();
    server.signal(Signal::TERM);
    let ends = clients.iter_mut().map(|client| {
        assert_eq!(client.read(&mut [0]).expect("no reset"), 0);
        begun.elapsed()
    });
    let ends: Vec<_> = ends.collect();
    assert!(ends[0] >= GRACE / 2, "{ends:?}");
    assert!(ends[31] - ends[0] >= GRACE / 8, "{ends:?}");
    drop(clients);
    assert_eq!(server.finish(), (Some(0), String::new()));
}

#[test]
fn a_second_server_on_a_port_is_refused_however_many_shards_either_has() {
    for (first, second) in [("1", "2"), ("2", "1"), ("2", "2")] {
        let server = common::Server::start(&["answer", "--shards", first]);
        let addr = server.addr.to_string();
        run(&["serve", "echo", "--shards", second, "--listen", &addr]).refused_with(1, "in use");
        run(&["serve", "echo", "--shards", second, "--listen", &addr, "--defer-accept", "1s"])
            .refused_with(1, "in use");
        server.stop_quietly();
    }
    // It would have to be a request of both.
    let server = common::Server::start(&["answer"]);
    run(&["serve", "echo", "--reuse-port", "--listen", &server.addr.to_string()]).refused_with(1, "in use");
    server.stop_quietly();
}

#[test]
fn servers_that_share_their_port_by_request_may_have_shards() {
    let first = common::Server::start(&["answer", "--shards", "2", "--reuse-port"]);
    let args = ["serve", "answer", "--shards", "2", "--reuse-port", "--listen", &first.addr.to_string()];
    let mut command = Command::new(env!("CARGO_BIN_EXE_finale"));
    let second = Server::spawn(command.args(args));
    assert_eq!(second.addr, first.addr);
    first.stop_quietly();
    ask(second.addr);
}

/// A listener passes its settings on to the connections that it accepts.
#[cfg(target_os = "linux")]
#[test]
fn lost_clients_are_noticed_by_keep_alive_and_by_the_user_timeout() {
    let minute = Duration::from_secs(60);
    for (args, keep_alive, user_timeout) in [
        (&[][..], Some(minute), None),
        (&["--keep-alive", "5s"], Some(minute / 12), None),
        (&["--keep-alive", "0s", "--user-timeout", "7s"], None, Some(Duration::from_secs(7))),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let copy = listener.try_clone().expect("a descriptor is free");
        let server = Server::spawn(with_sockets(vec![listener.into()]).args(args));
        let socket = SockRef::from(&copy);
        let idle = socket.keepalive().expect("set").then(|| socket.tcp_keepalive_time().expect("set"));
        assert_eq!(idle, keep_alive, "{args:?}");
        assert_eq!(socket.tcp_user_timeout().expect("set"), user_timeout, "{args:?}");
        server.stop();
    }
}

#[test]
fn passed_descriptors_must_be_listening_sockets_and_their_number_a_number() {
    let listener = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (first, unix) = (listener(), std::os::unix::net::UnixDatagram::unbound().expect("a socket"));
    let connected = TcpStream::connect(first.local_addr().expect("bound")).expect("it listens");
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    bound.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let wrong: [OwnedFd; 4] = [connected.into(), bound.into(), udp.into(), unix.into()];
    for wrong in wrong {
        let mut command = with_sockets(vec![listener().into(), wrong]);
        let outcome = common::finish(command.spawn().expect("it starts"));
        outcome.refused_with(2, "descriptor 4 is not a listening stream socket");
    }
    for (variable, value) in [("LISTEN_FDS", "two"), ("LISTEN_FDS", "-1"), ("LISTEN_PID", "me")] {
        let mut command = pass(common::command(&["serve", "answer"]), vec![listener().into()]);
        let outcome = common::finish(command.env(variable, value).spawn().expect("it starts"));
        outcome.refused_with(2, &format!("{variable}={value}"));
    }
}
