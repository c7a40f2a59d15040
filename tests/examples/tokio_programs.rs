//! The examples next to and inside a tokio runtime.

use std::time::Duration;

use finale::{ConnectOptions, Event, Pool, Reactor};

use super::bridge::{Client, Failed};
use super::program::{Program, printed};

#[test]
fn a_reactor_and_what_crosses_threads_is_send() {
    fn is_send<T: Send>() {}
    is_send::<Reactor>();
    is_send::<Pool>();
    is_send::<finale::Waker>();
    is_send::<finale::Inbox<Vec<u8>>>();
    is_send::<finale::Sender<Vec<u8>>>();
    is_send::<Client>();
}

#[test]
fn tasks_get_their_answers_from_a_reactor_on_its_own_thread() {
    let server = Program::start("lines", &["127.0.0.1:0"]);
    let addr = server.addr.to_string();
    let lines: Vec<String> = (0..50).map(|number| format!("line {number}")).collect();
    let args: Vec<&str> = std::iter::once(addr.as_str()).chain(lines.iter().map(String::as_str)).collect();
    let expected: String = lines.iter().map(|line| format!("{line}: {}\n", line.to_uppercase())).collect();
    assert_eq!(printed("beside_tokio", &args, ""), expected);
}

#[tokio::test]
async fn a_full_inbox_refuses_at_once_and_a_reactor_that_is_gone_too() {
    let reactor = Reactor::new().expect("a reactor");
    let (sender, inbox) = reactor.inbox(1);
    let client = Client::with(sender);
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.request("first".into()).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(client.request("second".into()).await, Err(Failed::Busy));
    drop((inbox, reactor));
    assert_eq!(first.await.expect("no panic"), Err(Failed::Gone));
    assert_eq!(client.request("third".into()).await, Err(Failed::Gone));
}

/// The server is slow to accept: a second request waits for the pool's connections. It is cancelled
/// meanwhile, and the server never gets it.
#[tokio::test]
async fn a_request_that_is_cancelled_before_it_was_sent_is_never_sent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("bound").to_string();
    let (client, thread) = Client::start(&addr, 10).expect("a reactor");
    let mut busy = Vec::new();
    for number in 0..4 {
        let client = client.clone();
        busy.push(tokio::spawn(async move { client.request(format!("busy {number}")).await }));
    }
    use tokio::io::AsyncReadExt as _;
    use tokio::io::AsyncWriteExt as _;
    let mut streams = Vec::new();
    for _ in 0..4 {
        let (mut stream, _) = listener.accept().await.expect("the pool connects");
        stream.read_exact(&mut [0; 7]).await.expect("a request");
        streams.push(stream);
    }
    // All four connections are lent.
    assert!(tokio::time::timeout(Duration::from_millis(20), client.request("cancelled".into())).await.is_err());
    for stream in &mut streams {
        stream.write_all(b"done\n").await.expect("open");
    }
    for task in busy {
        assert_eq!(task.await.expect("no panic"), Ok("done".into()));
    }
    client.close().expect("room");
    drop(client);
    for mut stream in streams {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("a clean end");
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }
    thread.join().expect("no panic").expect("no error");
}

#[test]
fn a_reactor_inside_a_runtime_serves_many_clients_at_once_and_leaves_time_for_tasks() {
    let mut server = Program::start("inside_tokio", &["127.0.0.1:0"]);
    let mut reactor = Reactor::new().expect("a reactor");
    for _ in 0..200 {
        let id = reactor.connect(server.addr, ConnectOptions::default()).expect("begun");
        let mut socket = reactor.socket(id).expect("begun");
        socket.write(b"hello\n").expect("room");
        socket.end();
    }
    let mut closed = 0;
    while let Some((_, event)) = reactor.next().expect("it continues") {
        match event {
            Event::Data(bytes) => assert_eq!(bytes, b"HELLO\n"),
            Event::Close(ending) => {
                assert!(ending.is_acknowledged(), "{ending}");
                closed += 1;
            }
            _ => {}
        }
    }
    assert_eq!(closed, 200);
    while server.line() != "200 connections have ended\n" {}
}

/// The deadline of a line is 10 s: only the reactor's own deadline can end the wait of the runtime.
#[test]
fn a_deadline_of_the_reactor_wakes_the_runtime() {
    let mut server = Program::start("inside_tokio", &["127.0.0.1:0"]);
    let stream = server.connect();
    std::io::Write::write_all(&mut &stream, b"hel").expect("open");
    assert_eq!(server.line(), "1 connections have ended\n");
    let reset = std::io::Read::read_exact(&mut &stream, &mut [0]).expect_err("no answer");
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
}
