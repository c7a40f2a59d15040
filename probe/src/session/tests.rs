//! What the calls of a session promise.

use std::net::TcpListener;

use super::{Open, Session};
use crate::engine::Real;
use crate::held::Held;
use crate::options::Options;

/// A session with a server that accepts when the test does.
fn session() -> (TcpListener, Session) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let mut session = Session::new(Box::new(Real::new().expect("a reactor")), addr, Options::new("hello\n"));
    session.can_be_deaf = true;
    (listener, session)
}

#[test]
fn a_client_that_is_deafened_directly_after_it_has_sent_has_nothing_to_repeat() {
    let (_listener, mut session) = session();
    let client = session.open(&Open::default()).expect("it connects");
    session.send(client, b"half of a requ");
    assert!(session.deafen(client).expect("the machine works"));
    assert!(session.is_acked(client));
}

#[test]
fn a_byte_shows_whether_a_deaf_client_is_still_held() {
    let (listener, mut session) = session();
    let clients = session.open_all(2, &Open::default()).expect("they connect");
    for client in &clients {
        assert!(session.deafen(*client).expect("the machine works"));
    }
    drop(listener.accept().expect("the first"));
    let _held = listener.accept().expect("the second");
    for client in &clients {
        session.hear(*client);
    }
    assert_eq!(session.ask_with_byte(&clients, b"x").expect("the machine works"), [Held::Gone, Held::Held]);
}
