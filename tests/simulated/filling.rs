//! Large bodies: read into a buffer of the program, and written in parts that stay together.

use std::time::Duration;

use finale::sim::{Network, Script};
use finale::{
    Backpressure, Buffer, ConnectionErrorKind, EndingKind, Error, Event, ListenOptions, PeerEnd, Reactor, Socket,
    TimeoutKind, UnixAddr,
};

/// What a server with this handler gets from a scripted client, as lines.
fn serve(script: Script, options: ListenOptions, mut handle: impl FnMut(&mut Socket<'_>, &Event<'_>)) -> Vec<String> {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let listener = reactor.listen("10.0.0.1:80", options).expect("a free port");
    let _play = network.peer([10, 0, 0, 2].into()).play(listener.addr, script).expect("a way");
    let mut lines = Vec::new();
    while let Some((mut socket, event)) = reactor.next().expect("a net that can wait") {
        let is_close = matches!(event, Event::Close(_));
        handle(&mut socket, &event);
        match event {
            Event::Filled => {
                let buffer = socket.take_filled().expect("it was filled");
                assert_eq!(socket.take_filled(), None, "it is taken once");
                lines.push(format!("filled {}", String::from_utf8_lossy(&buffer)));
            }
            Event::Data(bytes) => lines.push(format!("data {}", String::from_utf8_lossy(bytes))),
            Event::Error(error) => lines.push(format!("error {}", error.kind)),
            Event::End => lines.push("end".to_owned()),
            Event::PeerEnded(how) => lines.push(format!("{how:?}")),
            _ => {}
        }
        if is_close {
            reactor.close_listener(listener.id).expect("it is open");
        }
    }
    lines
}

/// Requests a body of this many bytes when the first have arrived, which may be its beginning.
fn body_after_head(len: usize) -> impl FnMut(&mut Socket<'_>, &Event<'_>) {
    move |socket, event| match event {
        Event::Data(bytes) if bytes.starts_with(b"head:") => drop(socket.fill(bytes[5..].to_vec(), len)),
        Event::End => socket.end(),
        _ => {}
    }
}

#[test]
fn a_body_in_pieces_comes_as_one_with_what_the_program_had_of_it_and_what_follows_is_data() {
    let script = Script::new()
        .drip(b"head:ab", Duration::ZERO)
        .wait(Duration::from_millis(5))
        .drip(b"cdefgh", Duration::from_millis(1));
    let lines = serve(script.send(b"next").finish(), ListenOptions::default(), body_after_head(6));
    assert_eq!(lines[1], "filled abcdef");
    assert_eq!(lines[2..].iter().filter_map(|line| line.strip_prefix("data ")).collect::<String>(), "ghnext");
    assert_eq!(lines.last().map(String::as_str), Some("end"));
}

#[test]
fn a_peer_that_ends_or_resets_in_the_body_leaves_what_came_of_it_before_the_end_or_the_error() {
    let head =
        || Script::new().send(b"head:").wait(Duration::from_millis(5)).send(b"abc").wait(Duration::from_millis(5));
    let lines = serve(head().finish().receive_end(), ListenOptions::default(), body_after_head(6));
    assert_eq!(lines, ["data head:", "filled abc", "end"]);
    let lines = serve(head().reset(), ListenOptions::default(), body_after_head(6));
    assert_eq!(lines, ["data head:", "filled abc", "error reset by the peer"]);
    let nothing = Script::new().send(b"head:").wait(Duration::from_millis(5));
    let lines = serve(nothing.finish().receive_end(), ListenOptions::default(), body_after_head(6));
    assert_eq!(lines, ["data head:", "end"], "nothing came of it, so nothing is filled");
}

#[test]
fn a_paused_socket_keeps_the_half_of_a_body_for_after_resume_and_says_that_the_peer_has_reset() {
    let script =
        Script::new().send(b"head:").wait(Duration::from_millis(5)).send(b"abc").wait(Duration::from_millis(5));
    let mut body = body_after_head(6);
    let mut timer = None;
    let lines = serve(script.reset(), ListenOptions::default(), |socket, event| {
        body(socket, event);
        match event {
            Event::Data(_) => timer = Some((socket.id(), socket.set_timer(Duration::from_millis(7)))),
            Event::Timer(_) => {
                let id = timer.expect("set before").0;
                socket.get(id).expect("it lives").pause();
            }
            Event::PeerEnded(PeerEnd::Reset) => socket.resume(),
            _ => {}
        }
    });
    assert_eq!(lines, ["data head:", "Reset", "filled abc", "error reset by the peer"]);
}

#[test]
fn nothing_is_read_ahead_of_a_body_that_is_there_already_and_none_is_asked_of_a_dead_or_discarding_socket() {
    let script = Script::new().send(b"head:abcdef").wait(Duration::from_millis(5)).send(b"more").finish().receive_end();
    let lines = serve(script, ListenOptions::default(), body_after_head(6));
    assert_eq!(lines, ["data head:abcdef", "data more", "end"]);
    let script = Script::new().send(b"head:").wait(Duration::from_millis(5)).send(b"abc").finish().receive_end();
    let mut body = body_after_head(6);
    let lines = serve(script, ListenOptions::default(), |socket, event| {
        body(socket, event);
        if matches!(event, Event::Data(_)) {
            socket.discard();
        }
    });
    assert_eq!(lines, ["data head:", "end"]);
}

#[test]
fn limits_rule_while_a_body_is_read() {
    let drip = Script::new().send(b"head:").drip(&[b'x'; 400], Duration::from_millis(10));
    let options = ListenOptions::default().deadline(Duration::from_millis(500));
    let lines = serve(drip, options, body_after_head(1_000));
    let expected = format!("error {}", ConnectionErrorKind::TimedOut(TimeoutKind::Deadline));
    assert_eq!(lines, ["data head:x".to_owned(), expected], "the half of a body is dropped");
}

#[test]
fn several_parts_are_written_all_or_none_also_around_a_value_of_the_limits_size() {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let options = ListenOptions::default().high_water_mark(100).write_limit(1_000);
    let listener = reactor.listen("10.0.0.1:80", options).expect("a free port");
    let play =
        network.peer([10, 0, 0, 2].into()).play(listener.addr, Script::new().receive_end().finish()).expect("a way");
    let value = vec![b'v'; 1_000];
    while let Some((mut socket, event)) = reactor.next().expect("a net that can wait") {
        match event {
            Event::Connection => {
                assert_eq!(socket.write_parts(&[]), Ok(Backpressure::Room));
                assert_eq!(socket.write_parts(&[b"<", &value, b">"]), Ok(Backpressure::Full));
                assert_eq!(socket.queued_bytes(), 1_002);
                let refused = socket.write_parts(&[b"<", b"x", b">"]);
                assert_eq!(refused, Err(Error::QueueFull { queued_bytes: 1_002, limit_bytes: 1_000 }));
                let refused = socket.write_owned_parts([Buffer::from(value.clone()), Buffer::from(value.clone())]);
                assert!(matches!(refused, Err(Error::QueueFull { .. })) && socket.queued_bytes() == 1_002);
            }
            Event::Drain => {
                let written =
                    socket.write_owned_parts([Buffer::from("["), Buffer::from(vec![b'w'; 5_000]), Buffer::from("]")]);
                assert_eq!(written, Ok(Backpressure::Full));
                socket.end();
                assert_eq!(socket.write_parts(&[b"late"]), Err(Error::WriteAfterEnd));
            }
            Event::Close(ending) => {
                assert_eq!(ending.kind, EndingKind::Confirmed);
                reactor.close_listener(listener.id).expect("it is open");
            }
            _ => {}
        }
    }
    let expected = [b"<".as_slice(), &value, b">[", &[b'w'; 5_000], b"]"].concat();
    assert_eq!(play.received(), expected);
}

#[test]
fn the_receive_buffer_has_the_size_that_is_asked_for() {
    for (bytes, longest) in [(1, 1), (10, 10), (1 << 20, 100)] {
        let network = Network::new(1);
        let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
        reactor.set_receive_buffer(bytes).expect("a size that exists");
        let listener = reactor.listen("10.0.0.1:80", ListenOptions::default()).expect("a free port");
        let script = Script::new().send(&[b'x'; 100]).finish().receive_end();
        let _play = network.peer([10, 0, 0, 2].into()).play(listener.addr, script).expect("a way");
        let (mut read, mut most) = (0, 0);
        while let Some((mut socket, event)) = reactor.next().expect("a net that can wait") {
            match event {
                Event::Data(bytes) => (read, most) = (read + bytes.len(), most.max(bytes.len())),
                Event::End => socket.end(),
                Event::Close(_) => reactor.close_listener(listener.id).expect("it is open"),
                _ => {}
            }
        }
        assert_eq!((read, most), (100, longest));
    }
    let mut reactor = Reactor::new().expect("a machine with epoll");
    assert!(reactor.set_receive_buffer(0).is_err() && reactor.set_receive_buffer((1 << 30) + 1).is_err());
}

#[test]
fn the_bytes_that_the_program_had_of_a_body_come_back_when_the_peer_ends_without_more() {
    let script = Script::new().send(b"head:ab").wait(Duration::from_millis(5)).finish().receive_end();
    let lines = serve(script, ListenOptions::default(), body_after_head(6));
    assert_eq!(lines, ["data head:ab", "filled ab", "end"]);
}

#[test]
fn nothing_is_held_for_a_body_of_which_nothing_can_come() {
    let head = || Script::new().send(b"head:").wait(Duration::from_millis(5)).finish().receive_end();
    serve(head(), ListenOptions::default(), |socket, event| {
        if let Event::End = event {
            let _ = socket.fill(Vec::new(), 1 << 40);
            assert!(!socket.is_filling(), "the peer has ended");
            socket.end();
        }
    });
    serve(head(), ListenOptions::default(), |socket, event| match event {
        Event::Data(_) => {
            let _ = socket.fill(Vec::new(), 100);
            assert!(socket.is_filling());
            socket.discard();
            assert!(!socket.is_filling());
            assert_eq!(socket.fill(Vec::new(), 100), Err(Vec::new()), "what is read is dropped");
        }
        Event::End => socket.end(),
        _ => {}
    });
}

#[test]
fn a_dead_paused_socket_whose_half_body_is_given_up_fails_at_once() {
    let head = Script::new().send(b"head:").wait(Duration::from_millis(5));
    let script = head.send(b"abc").wait(Duration::from_millis(5)).reset();
    let (mut id, mut reset_at) = (None, None);
    let lines = serve(script, ListenOptions::default(), |socket, event| match event {
        Event::Data(_) => {
            id = Some(socket.id());
            let _ = socket.fill(Vec::new(), 6);
            socket.set_timer(Duration::from_millis(7));
        }
        Event::Timer(_) => socket.get(id.expect("set before")).expect("it lives").pause(),
        Event::PeerEnded(PeerEnd::Reset) => {
            reset_at = Some(socket.now());
            socket.fill(Vec::new(), 9).expect("bytes are unread");
        }
        // Not only when a limit expires.
        Event::Error(_) => assert_eq!(reset_at, Some(socket.now())),
        _ => {}
    });
    assert_eq!(lines, ["data head:", "Reset", "error reset by the peer"]);
}

#[test]
fn a_body_that_ends_early_has_no_bytes_that_did_not_come_whatever_room_its_buffer_has() {
    for capacity in [0, 6, 100] {
        let head = Script::new().send(b"head:").wait(Duration::from_millis(5)).send(b"abc");
        let lines = serve(head.finish().receive_end(), ListenOptions::default(), |socket, event| match event {
            Event::Data(_) => socket.fill(Vec::with_capacity(capacity), 6).expect("more comes"),
            Event::End => socket.end(),
            _ => {}
        });
        assert_eq!(lines, ["data head:", "filled abc", "end"], "a buffer of {capacity}");
    }
}

#[test]
fn a_filled_buffer_that_is_not_taken_is_dropped() {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let listener = reactor.listen("10.0.0.1:80", ListenOptions::default()).expect("a free port");
    let script = Script::new().send(b"abc").wait(Duration::from_millis(5)).send(b"more").finish().receive_end();
    let _play = network.peer([10, 0, 0, 2].into()).play(listener.addr, script).expect("a way");
    let mut lines = Vec::new();
    while let Some((mut socket, event)) = reactor.next().expect("a net that can wait") {
        match event {
            Event::Connection => socket.fill(Vec::new(), 3).expect("it can be read"),
            Event::Filled => {}
            Event::Data(_) => assert_eq!(socket.take_filled(), None, "it is too late"),
            Event::End => socket.end(),
            _ => {}
        }
        lines.push(event.to_string());
        if lines.len() == 5 {
            reactor.close_listener(listener.id).expect("it is open");
        }
    }
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert_eq!((lines[1].as_str(), lines[2].as_str()), ("data, in a buffer of the program", "data, 4 bytes"));
}

/// A read into the buffer of a program takes no more than another, and the other sockets are served
/// before the next.
#[test]
fn a_body_of_many_reads_comes_whole_and_does_not_hold_up_other_sockets() {
    const BODY: usize = 1_000_000;
    let network = Network::new(1);
    network.set_buffers(2 * BODY, 2 * BODY);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let listener = reactor.listen("10.0.0.1:80", ListenOptions::default()).expect("a free port");
    let client = || network.peer([10, 0, 0, 2].into()).connect(listener.addr).expect("begun");
    let clients = [client(), client()];
    let mut ids = Vec::new();
    while ids.len() < 2 {
        let (socket, event) = reactor.next().expect("a net that can wait").expect("a client comes");
        assert_eq!(event, Event::Connection);
        ids.push(socket.id());
    }
    let turn_over = |reactor: &mut Reactor<_>| reactor.next_before(network.now()).map(|next| next.is_none());
    assert!(turn_over(&mut reactor).expect("a net that can wait"));
    let body: Vec<u8> = (0..BODY as u32).map(|at| (at % 251) as u8).collect();
    reactor.socket(ids[0]).expect("it lives").fill(Vec::new(), BODY).expect("it can be read");
    clients[0].send(&body);
    clients[1].send(b"short");
    network.advance(Duration::from_secs(1));
    let mut lines = Vec::new();
    while lines.len() < 2 {
        let (mut socket, event) = reactor.next().expect("a net that can wait").expect("both come");
        if event == Event::Filled {
            assert!(socket.take_filled().is_some_and(|filled| filled == body));
        }
        lines.push((socket.id(), event.to_string()));
    }
    assert_eq!((lines[0].0, lines[1].0), (ids[1], ids[0]), "{lines:?}");
}

/// On a real Unix socket: the send has failed, and the next read fails with another error.
#[test]
fn a_second_error_of_a_connection_that_fills_changes_neither_its_bytes_nor_its_first_error() {
    use std::io::Write as _;
    let path = std::env::temp_dir().join(format!("finale-filling-{}.sock", std::process::id()));
    let mut reactor = Reactor::new().expect("a machine with epoll");
    reactor.listen(UnixAddr::path(&path), ListenOptions::default().replace_stale(true)).expect("a free name");
    let mut client = std::os::unix::net::UnixStream::connect(&path).expect("it listens");
    let mut id = None;
    while id.is_none() {
        let (mut socket, event) = reactor.next().expect("it can wait").expect("a client comes");
        if event == Event::Connection {
            id = Some(socket.id());
            let _ = socket.fill(Vec::new(), 100);
            socket.write(b"hello").expect("it lives");
        }
    }
    for _turn in 0..3 {
        assert!(reactor.next_before(std::time::Instant::now()).expect("it can wait").is_none());
    }
    client.write_all(b"abc").expect("it is open");
    drop(client); // With "hello" unread.
    reactor.socket(id.expect("set above")).expect("it lives").write(b"more").expect("it lives");
    let mut lines = Vec::new();
    while !lines.last().is_some_and(|line: &String| line.starts_with("close")) {
        let (mut socket, event) = reactor.next().expect("it can wait").expect("its close comes");
        lines.push(event.to_string());
        if event == Event::Filled {
            assert_eq!(socket.take_filled().as_deref(), Some(b"abc".as_slice()));
        }
    }
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("data") && lines[1].starts_with("error"), "{lines:?}");
}
