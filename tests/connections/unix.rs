//! Unix domain sockets: the same events as over TCP, without addresses and without a reset. Each
//! scene is played on a real kernel and in the simulated network, with the same events.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use finale::net::Net;
use finale::sim::Network;
use finale::{
    AddressError, CloseMode, ConnectOptions, ConnectionErrorKind, EndingKind, Error, Event, ListenOptions,
    OverflowPolicy, Reactor, Socket, SocketId, Target, UnixAddr,
};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send, sendmsg};
use support::PATIENCE;
use support::scene::HERE;

/// A folder of the test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("finale-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a new folder");
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("socket")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Both ends in one reactor: what each event does, and the transcript, `c` for the client's and `s`
/// for the server's lines.
fn story<N: Net>(
    reactor: &mut Reactor<N>,
    listen: ListenOptions,
    act: impl Fn(&mut Socket<'_>, &Event<'_>, bool),
) -> Vec<String> {
    let folder = Folder::new();
    let addr = UnixAddr::path(folder.file());
    let listener = reactor.listen(addr.clone(), listen).expect("a new name").id;
    let client = reactor.connect(addr, ConnectOptions::default()).expect("begun");
    let mut lines = Vec::new();
    let mut live = 1;
    while live > 0 {
        let until = reactor.net().now() + PATIENCE;
        let (mut socket, event) = reactor.next_before(until).expect("it continues").expect("something happens");
        let is_client = socket.id() == client;
        live += usize::from(matches!(event, Event::Connection));
        live -= usize::from(matches!(event, Event::Close(_)));
        assert_eq!(socket.peer_addr(), None, "it has no address");
        lines.push(format!("{} {}", if is_client { "c" } else { "s" }, words(&event)));
        act(&mut socket, &event, is_client);
    }
    reactor.close_listener(listener).expect("open");
    assert!(reactor.next().expect("it continues").is_none(), "nothing is left");
    lines
}

fn words(event: &Event<'_>) -> String {
    match event {
        Event::Data(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Event::Close(ending) => format!("close: {ending}"),
        Event::Error(failure) => format!("error: {failure}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// The transcript on a real kernel, which must be that of the simulated network too, for either
/// side. The order between the sides may differ: a program that another test starts has copies of
/// the descriptors until its exec, and so delays a close(2).
#[track_caller]
fn told(listen: &ListenOptions, act: impl Fn(&mut Socket<'_>, &Event<'_>, bool)) -> Vec<String> {
    let real = story(&mut Reactor::new().expect("a machine with epoll"), listen.clone(), &act);
    let network = Network::new(3);
    let simulated = story(&mut Reactor::with_net(network.host(HERE)), listen.clone(), &act);
    let by_side = |lines: &[String]| {
        let mut lines = lines.to_vec();
        lines.sort_by_key(|line| line.chars().next());
        lines
    };
    assert_eq!(by_side(&real), by_side(&simulated));
    assert_eq!(network.descriptors(), 0);
    real
}

fn write(socket: &mut Socket<'_>, bytes: &[u8]) {
    socket.write(bytes).expect("open for writing");
}

#[test]
fn a_half_closing_conversation_tells_what_it_tells_over_tcp_but_no_lookup() {
    let lines = told(&ListenOptions::default(), |socket, event, is_client| match (event, is_client) {
        (Event::Ready, true) => {
            write(socket, b"question");
            socket.end();
        }
        (Event::End, false) => {
            write(socket, b"answer");
            socket.end();
        }
        _ => {}
    });
    let close = |who: &str, first: &str, read: u32, written: u32| {
        format!("{who} close: clean and acknowledged; {first}; {read} bytes read, {written} written")
    };
    let expected = ["c connect", "c ready", "s connection", "s question", "s end", "c answer", "c end"];
    assert_eq!(lines[..7], expected);
    let mut closes = lines[7..].to_vec();
    closes.sort();
    assert_eq!(closes, [close("c", "we finished first", 6, 8), close("s", "the peer finished first", 8, 6)]);
}

#[test]
fn hand_off_ends_it_as_well() {
    let lines = told(&ListenOptions::default().close_mode(CloseMode::HandOff), |socket, event, is_client| {
        match (event, is_client) {
            (Event::Ready, true) => socket.end(),
            (Event::End, false) => {
                write(socket, b"answer");
                socket.end();
            }
            _ => {}
        }
    });
    assert!(lines.iter().any(|line| line.starts_with("s close: clean, handed off")), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("c close: clean and acknowledged")), "{lines:?}");
}

#[test]
fn what_is_destroyed_looks_like_an_end_to_its_peer() {
    let lines = told(&ListenOptions::default(), |socket, event, is_client| match (event, is_client) {
        (Event::Connection, false) => write(socket, b"half an ans"),
        (Event::Data(_), true) => socket.destroy(),
        (Event::End, false) => socket.end(),
        _ => {}
    });
    let destroyed = "c close: destroyed by us; neither side finished; 11 bytes read, 0 written".to_owned();
    assert!(lines.contains(&destroyed) && lines.contains(&"s end".to_owned()), "{lines:?}");
}

#[test]
fn a_close_with_something_unread_is_a_reset() {
    let lines = told(&ListenOptions::default(), |socket, event, is_client| match (event, is_client) {
        (Event::Connection, false) => write(socket, b"never read"),
        (Event::Ready, true) => socket.pause(),
        (Event::Timeout, true) => socket.destroy(),
        _ => {
            if is_client && matches!(event, Event::Connect) {
                socket.set_idle_timeout(Duration::from_millis(20));
            }
        }
    });
    assert!(lines.contains(&"s error: reset by the peer".to_owned()), "{lines:?}");
}

/// In pieces that differ between the networks.
#[test]
fn megabytes_pass_both_ways_under_back_pressure() {
    const MUCH: usize = 3 << 20;
    let act = |socket: &mut Socket<'_>, event: &Event<'_>, _: bool| match event {
        Event::Ready | Event::Connection => {
            write(socket, &vec![b'x'; MUCH]);
            socket.end();
        }
        Event::Close(ending) => assert_eq!((ending.bytes_read, ending.bytes_written), (MUCH as u64, MUCH as u64)),
        _ => {}
    };
    let real = story(&mut Reactor::new().expect("a machine with epoll"), ListenOptions::default(), act);
    let simulated = story(&mut Reactor::with_net(Network::new(3).host(HERE)), ListenOptions::default(), act);
    for lines in [real, simulated] {
        assert_eq!(lines.iter().filter(|line| line.contains("close: clean and acknowledged")).count(), 2);
    }
}

/// How a client fails, by its cause.
fn cause_of(reactor: &mut Reactor<impl Net>, target: UnixAddr) -> ConnectionErrorKind {
    let id = reactor.connect(target, ConnectOptions::default()).expect("begun");
    loop {
        let (socket, event) = reactor.next().expect("it continues").expect("it ends");
        if let (true, Event::Close(ending)) = (socket.id() == id, event) {
            let EndingKind::Failed(failure) = &ending.kind else { panic!("{ending}") };
            return failure.kind;
        }
    }
}

#[test]
fn a_name_at_which_nobody_listens_refuses() {
    let folder = Folder::new();
    let mut real = Reactor::new().expect("a machine with epoll");
    assert_eq!(cause_of(&mut real, UnixAddr::path(folder.file())), ConnectionErrorKind::Refused, "there is no file");
    drop(UnixListener::bind(folder.file()).expect("a new file"));
    assert_eq!(
        cause_of(&mut real, UnixAddr::path(folder.file())),
        ConnectionErrorKind::Refused,
        "nothing listens there any more"
    );
    let mut simulated = Reactor::with_net(Network::new(1).host(HERE));
    assert_eq!(cause_of(&mut simulated, UnixAddr::path("/nothing")), ConnectionErrorKind::Refused);
    assert_eq!(cause_of(&mut simulated, UnixAddr::abstract_name("nothing")), ConnectionErrorKind::Refused);
}

#[test]
fn the_file_goes_with_the_listener_and_a_stale_one_only_when_asked() {
    let folder = Folder::new();
    let mut reactor = Reactor::new().expect("a machine with epoll");
    let addr = || UnixAddr::path(folder.file());
    let listener = reactor.listen(addr(), ListenOptions::default()).expect("a new file").id;
    assert!(folder.file().exists());
    reactor.close_listener(listener).expect("open");
    assert!(!folder.file().exists(), "it has gone with its listener");

    drop(UnixListener::bind(folder.file()).expect("a new file"));
    let refused = reactor.listen(addr(), ListenOptions::default()).expect_err("the file is there");
    assert!(matches!(refused, Error::Listen { .. }), "{refused}");
    assert!(refused.to_string().contains("Address already in use"), "{refused}");
    reactor.listen(addr(), ListenOptions::default().replace_stale(true)).expect("nothing listens there");
    let refused = reactor.listen(addr(), ListenOptions::default().replace_stale(true));
    assert!(refused.is_err(), "we listen there");
    drop(reactor);
    assert!(!folder.file().exists(), "it goes with the reactor, too");
}

#[test]
fn a_file_that_is_no_socket_or_another_servers_is_never_removed() {
    let folder = Folder::new();
    let mut reactor = Reactor::new().expect("a machine with epoll");
    std::fs::write(folder.file(), b"precious").expect("a new file");
    let refused = reactor.listen(UnixAddr::path(folder.file()), ListenOptions::default().replace_stale(true));
    assert!(refused.is_err(), "no socket");
    assert_eq!(std::fs::read(folder.file()).expect("it is there"), b"precious");
    std::fs::remove_file(folder.file()).expect("it is there");

    let listener = reactor.listen(UnixAddr::path(folder.file()), ListenOptions::default()).expect("a new file").id;
    std::fs::remove_file(folder.file()).expect("another process has removed it");
    let _other = UnixListener::bind(folder.file()).expect("and taken its place");
    reactor.close_listener(listener).expect("open");
    assert!(folder.file().exists(), "the other's");
}

#[test]
fn an_abstract_name_is_no_file_and_free_again_at_once() {
    let name = format!("finale-test-{}", std::process::id());
    let mut reactor = Reactor::new().expect("a machine with epoll");
    for _ in 0..2 {
        let listener =
            reactor.listen(UnixAddr::abstract_name(&name), ListenOptions::default()).expect("a free name").id;
        let id = reactor.connect(format!("unix:@{name}"), ConnectOptions::default()).expect("an address");
        loop {
            let (socket, event) = reactor.next().expect("it continues").expect("it connects");
            if (socket.id(), event) == (id, Event::Ready) {
                break;
            }
        }
        reactor.socket(id).expect("it lives").destroy();
        reactor.close_listener(listener).expect("open");
    }
}

#[test]
fn addresses_are_read_as_people_write_them() {
    let unix = |text: &str| Target::try_from(text).map(|target| target.to_string());
    for text in ["unix:/run/app.sock", "unix:@name", "unix:relative"] {
        assert_eq!(unix(text), Ok(text.to_owned()));
    }
    for text in ["unix:", "unix:@"] {
        assert!(unix(text).is_err(), "{text}");
    }
    let mut reactor = Reactor::new().expect("a machine with epoll");
    let long = UnixAddr::path("/tmp/".to_owned() + &"x".repeat(200));
    let refused = reactor.listen(long.clone(), ListenOptions::default()).expect_err("it is too long");
    assert_eq!(refused, Error::InvalidAddress(AddressError::InvalidPath));
    let refused = reactor.listen(Target::Unix(long), ListenOptions::default()).expect_err("it is too long");
    assert!(refused.to_string().contains("File name too long"), "{refused}");
}

#[test]
fn a_blocking_client_of_another_process_is_served() {
    use std::io::{Read as _, Write as _};
    let folder = Folder::new();
    let mut reactor = Reactor::new().expect("a machine with epoll");
    reactor.listen(UnixAddr::path(folder.file()), ListenOptions::default()).expect("a new file");
    let mut client = UnixStream::connect(folder.file()).expect("it listens");
    client.write_all(b"question").expect("connected");
    client.shutdown(std::net::Shutdown::Write).expect("connected");
    let mut server: Option<SocketId> = None;
    loop {
        let (mut socket, event) = reactor.next().expect("it continues").expect("it is served");
        match event {
            Event::Connection => server = Some(socket.id()),
            Event::End => {
                write(&mut socket, b"answer");
                socket.end();
            }
            Event::Close(ending) => {
                assert_eq!((Some(socket.id()), &ending.kind), (server, &EndingKind::Confirmed));
                break;
            }
            _ => {}
        }
    }
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("no reset");
    assert_eq!(answer, "answer");
}

#[test]
fn a_client_too_many_is_dropped_without_an_address() {
    let mut reactor = Reactor::with_net(Network::new(1).host(HERE));
    let options = ListenOptions::default().max_connections(0).overflow_policy(OverflowPolicy::Reset);
    let listener = reactor.listen(UnixAddr::path("/name"), options).expect("a new name").id;
    reactor.connect(UnixAddr::path("/name"), ConnectOptions::default()).expect("begun");
    loop {
        let (_, event) = reactor.next().expect("it continues").expect("it is dropped");
        if let Event::Overflow(whose, addr) = event {
            assert_eq!((whose, addr), (listener, None));
            break;
        }
    }
}

/// Sends seven letters such that one read does not take them all, though it has room.
type Split = fn(&UnixStream);

/// A descriptor with the first letter.
fn with_a_descriptor(peer: &UnixStream) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [peer.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let sent = sendmsg(peer, &[IoSlice::new(b"a")], &mut control, SendFlags::empty());
    assert_eq!(sent, Ok(1));
    send(peer, b"bcdefg", SendFlags::empty()).expect("connected");
}

/// Another process sends the rest. With SO_PASSCRED a read does not mix what two processes sent.
fn from_two_processes(peer: &UnixStream) {
    send(peer, b"abc", SendFlags::empty()).expect("connected");
    let copy = OwnedFd::from(peer.try_clone().expect("a descriptor"));
    let other = Command::new("printf").arg("defg").stdout(copy).status();
    assert!(other.expect("a machine with printf").success());
}

/// An urgent byte between the letters, which is not part of the stream.
fn with_an_urgent_byte(peer: &UnixStream) {
    send(peer, b"abc", SendFlags::empty()).expect("connected");
    match send(peer, b"!", SendFlags::OOB) {
        Err(Errno::OPNOTSUPP) => println!("skipped: this kernel has no MSG_OOB for Unix domain sockets"),
        sent => assert_eq!(sent, Ok(1)),
    }
    send(peer, b"defg", SendFlags::empty()).expect("connected");
}

/// Nothing moves on the connection, and the peer sends everything while the loop does not run.
#[track_caller]
fn check_arrival(mut reactor: Reactor, peer: &UnixStream, split: Split) {
    while reactor.next_before(Instant::now() + Duration::from_millis(30)).expect("it continues").is_some() {}
    for round in 1..=3 {
        split(peer);
        let mut letters = Vec::new();
        while letters.len() < 7 {
            let next = reactor.next_before(Instant::now() + PATIENCE / 4).expect("it continues");
            match next.map(|(_, event)| event) {
                Some(Event::Data(bytes)) => letters.extend_from_slice(bytes),
                other => panic!("round {round}: {other:?} after {:?}", String::from_utf8_lossy(&letters)),
            }
        }
        assert_eq!(letters, b"abcdefg");
    }
}

/// A server whose clients send their credentials, and a client.
fn with_credentials(folder: &Folder) -> (Reactor, UnixStream) {
    let listener = UnixListener::bind(folder.file()).expect("a new file");
    socket2::SockRef::from(&listener).set_passcred(true).expect("Linux has SO_PASSCRED");
    let mut reactor = Reactor::new().expect("a machine with epoll");
    reactor.adopt(listener, ListenOptions::default()).expect("it listens");
    let peer = UnixStream::connect(folder.file()).expect("it listens");
    (reactor, peer)
}

#[test]
fn a_server_reads_everything_of_a_client_whose_messages_split_the_stream() {
    for split in [with_a_descriptor, from_two_processes, with_an_urgent_byte] {
        let folder = Folder::new();
        let (reactor, peer) = with_credentials(&folder);
        check_arrival(reactor, &peer, split);
    }
}

/// The same into a buffer of the program, or into kernel pipes that it does not pass on.
#[test]
fn a_buffer_or_a_kernel_pipe_gets_everything_of_a_client_whose_messages_split_the_stream() {
    type Begin = fn(&mut Socket<'_>);
    let begins: [Begin; 2] = [|socket| socket.fill(Vec::new(), 7).expect("open"), |socket| socket.splice_next()];
    for (split, begin) in [with_a_descriptor as Split, from_two_processes, with_an_urgent_byte]
        .into_iter()
        .flat_map(|split| begins.map(|begin| (split, begin)))
    {
        let folder = Folder::new();
        let (mut reactor, peer) = with_credentials(&folder);
        let (socket, _) = reactor.next().expect("it continues").expect("a client comes");
        let id = socket.id();
        for round in 1..=3 {
            begin(&mut reactor.socket(id).expect("it lives"));
            // Nothing moves, and the peer sends everything while the loop does not run.
            assert!(reactor.next_before(Instant::now() + Duration::from_millis(30)).expect("it continues").is_none());
            split(&peer);
            let mut letters = Vec::new();
            while letters.len() < 7 {
                let next = reactor.next_before(Instant::now() + PATIENCE / 4).expect("it continues");
                let Some((mut socket, event)) = next else { panic!("round {round}: nothing after {letters:?}") };
                match event {
                    Event::Data(bytes) => letters.extend_from_slice(bytes),
                    Event::Filled => letters.extend(socket.take_filled().expect("it is full")),
                    _ => {}
                }
            }
            assert_eq!(letters, b"abcdefg");
        }
    }
}

#[test]
fn a_client_reads_everything_of_a_server_whose_messages_split_the_stream() {
    for split in [with_a_descriptor, with_an_urgent_byte] {
        let folder = Folder::new();
        let listener = UnixListener::bind(folder.file()).expect("a new file");
        let mut reactor = Reactor::new().expect("a machine with epoll");
        reactor.connect(UnixAddr::path(folder.file()), ConnectOptions::default()).expect("an address");
        while !matches!(reactor.next().expect("it continues"), Some((_, Event::Ready))) {}
        let (peer, _) = listener.accept().expect("connected");
        check_arrival(reactor, &peer, split);
    }
}
