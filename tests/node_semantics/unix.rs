//! Unix domain sockets.

use std::path::PathBuf;

use finale::sim::Network;
use finale::{ConnectOptions, ConnectionErrorKind, EndingKind, Event, ListenOptions, Reactor, UnixAddr};

use support::scene::HERE;

fn path() -> PathBuf {
    std::env::temp_dir().join(format!("finale-node-{}", std::process::id()))
}

/// N99: the same events without `lookup`; no addresses; the file is removed with the listener.
#[test]
fn n99_a_unix_socket_lives_without_lookup_and_address() {
    let mut reactor = Reactor::new().expect("a machine with epoll");
    let listener = reactor.listen(UnixAddr::path(path()), ListenOptions::default()).expect("a new file").id;
    let client = reactor.connect(UnixAddr::path(path()), ConnectOptions::default()).expect("a good target");
    let mut lines = Vec::new();
    while lines.last().map(String::as_str) != Some("close") {
        let (mut socket, event) = reactor.next().expect("it continues").expect("it lives");
        assert_eq!(socket.peer_addr(), None);
        if matches!(event, Event::End) || (socket.id() == client && matches!(event, Event::Ready)) {
            socket.end();
        }
        if socket.id() == client {
            lines.push(super::words(&event));
        }
    }
    assert_eq!(lines, ["connect", "ready", "end", "close"]);
    reactor.close_listener(listener).expect("open");
    assert!(!path().exists());
}

/// N100: the kinds of TCP; a stale file is removed only on request.
#[test]
fn n100_a_missing_path_is_refused_and_any_existing_file_is_in_use() {
    let mut reactor = Reactor::with_net(Network::new(1).host(HERE));
    reactor.connect(UnixAddr::path("/missing"), ConnectOptions::default()).expect("a good target");
    let mut how = None;
    while let Some((_, event)) = reactor.next().expect("it continues") {
        if let Event::Close(ending) = event {
            how = Some(ending.kind.clone());
        }
    }
    let Some(EndingKind::Failed(failure)) = how else { panic!("{how:?}") };
    assert_eq!(failure.kind, ConnectionErrorKind::Refused);
    reactor.listen(UnixAddr::path("/taken"), ListenOptions::default()).expect("a new name");
    assert!(reactor.listen(UnixAddr::path("/taken"), ListenOptions::default()).is_err());
}
