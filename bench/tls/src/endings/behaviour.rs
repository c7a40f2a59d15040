//! What the peers do: each behaviour is a few lines that say what is sent, and how it ends.

use std::io;
use std::time::Duration;

use super::peer::{LATER, Peer};

/// What each client sends.
pub(super) const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
/// What is looked for in what a program has received.
pub(super) const HALVES: [&str; 2] = ["the first half, ", "the second half\n"];
/// Both halves.
pub(super) const ANSWER: &str = "the first half, the second half\n";
/// An answer that lasts to the end of the stream begins with this.
const HEAD: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
/// One with a length.
const HEAD_WITH_LENGTH: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 32\r\n\r\n";
/// How long a peer that waits for a program to end waits.
const PATIENCE: Duration = Duration::from_secs(6);
/// The same for a program that waits for the handshake.
const LONG_PATIENCE: Duration = Duration::from_secs(12);

/// The certificate of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certificate {
    /// The one that the client trusts.
    Trusted,
    /// Signed by itself, and not trusted.
    Unknown,
    /// Trusted, but it has expired.
    Expired,
    /// Trusted, but for another name.
    OtherName,
}

/// How much of the answer can arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Nothing,
    Half,
    Whole,
}

/// One behaviour.
#[derive(Clone, Copy)]
pub(super) struct Behaviour {
    /// Its words on the page.
    pub(super) words: &'static str,
    pub(super) sent: Sent,
    pub(super) certificate: Certificate,
    /// The program is asked to end its direction first, and to read the answer afterwards.
    pub(super) half_close: bool,
    /// How long the peer waits for the program's own end.
    pub(super) patience: Duration,
    pub(super) play: fn(&mut Peer) -> io::Result<()>,
}

impl Behaviour {
    const fn new(words: &'static str, sent: Sent, play: fn(&mut Peer) -> io::Result<()>) -> Self {
        let certificate = Certificate::Trusted;
        Self { words, sent, certificate, half_close: false, patience: PATIENCE, play }
    }

    const fn with(self, certificate: Certificate) -> Self {
        Self { certificate, ..self }
    }

    const fn half_closing(self) -> Self {
        Self { half_close: true, ..self }
    }

    const fn patient(self) -> Self {
        Self { patience: LONG_PATIENCE, ..self }
    }
}

/// The handshake, and the request.
fn greet(peer: &mut Peer) -> io::Result<()> {
    peer.handshake()?;
    peer.until(b"\r\n\r\n")
}

fn whole(peer: &mut Peer) -> io::Result<()> {
    greet(peer)?;
    peer.data(format!("{HEAD}{ANSWER}").as_bytes())
}

fn whole_and_close_notify(peer: &mut Peer) -> io::Result<()> {
    greet(peer)?;
    peer.data_and_close_notify(format!("{HEAD}{ANSWER}").as_bytes())
}

fn half(peer: &mut Peer) -> io::Result<()> {
    greet(peer)?;
    peer.data(format!("{HEAD}{}", HALVES[0]).as_bytes())
}

fn half_and_half_a_record(peer: &mut Peer) -> io::Result<()> {
    half(peer)?;
    peer.half_record(HALVES[1].as_bytes())
}

fn with_length(peer: &mut Peer, body: &str) -> io::Result<()> {
    greet(peer)?;
    peer.data(format!("{HEAD_WITH_LENGTH}{body}").as_bytes())
}

fn close_notify_and_fin(peer: &mut Peer) -> io::Result<()> {
    peer.data_and_close_notify(b"")?;
    peer.fin()
}

/// What a server does to a client.
pub(super) const SERVERS: &[Behaviour] = &[
    Behaviour::new("close_notify and FIN", Sent::Whole, |peer| {
        whole_and_close_notify(peer)?;
        peer.fin()
    }),
    Behaviour::new("close_notify, FIN 100 ms later", Sent::Whole, |peer| {
        whole_and_close_notify(peer)?;
        peer.watch(LATER)?;
        peer.fin()
    }),
    Behaviour::new("close_notify, and TCP stays open", Sent::Whole, whole_and_close_notify),
    Behaviour::new("the whole answer, FIN without close_notify", Sent::Whole, |peer| {
        whole(peer)?;
        peer.fin()
    }),
    Behaviour::new("half of the answer, FIN between two records", Sent::Half, |peer| {
        half(peer)?;
        peer.fin()
    }),
    Behaviour::new("half of the answer, FIN within a record", Sent::Half, |peer| {
        half_and_half_a_record(peer)?;
        peer.fin()
    }),
    Behaviour::new("FIN within the handshake", Sent::Nothing, |peer| {
        peer.half_handshake()?;
        peer.fin()
    }),
    Behaviour::new("the whole answer, RST 100 ms later", Sent::Whole, |peer| {
        whole(peer)?;
        peer.watch(LATER)?;
        peer.reset()
    }),
    Behaviour::new("the whole answer, RST at once", Sent::Whole, |peer| {
        whole(peer)?;
        peer.reset()
    }),
    Behaviour::new("half of the answer, RST within a record", Sent::Half, |peer| {
        half_and_half_a_record(peer)?;
        peer.watch(LATER)?;
        peer.reset()
    }),
    Behaviour::new("RST within the handshake", Sent::Nothing, |peer| {
        peer.half_handshake()?;
        peer.watch(LATER)?;
        peer.reset()
    }),
    Behaviour::new("close_notify, RST at once", Sent::Whole, |peer| {
        whole_and_close_notify(peer)?;
        peer.reset()
    }),
    Behaviour::new("half of the answer, fatal alert internal_error, FIN", Sent::Half, |peer| {
        greet(peer)?;
        peer.data_and_internal_error(format!("{HEAD}{}", HALVES[0]).as_bytes())?;
        peer.fin()
    }),
    Behaviour::new("half of the answer, then a record with a changed byte", Sent::Half, |peer| {
        greet(peer)?;
        peer.data_and_damaged(format!("{HEAD}{}", HALVES[0]).as_bytes(), HALVES[1].as_bytes())
    }),
    Behaviour::new("half of the answer, close_notify, the other half, FIN", Sent::Half, |peer| {
        greet(peer)?;
        peer.data_and_close_notify(format!("{HEAD}{}", HALVES[0]).as_bytes())?;
        peer.data(HALVES[1].as_bytes())?;
        peer.fin()
    }),
    Behaviour::new("the client ends first; the answer after that, close_notify, FIN", Sent::Whole, |peer| {
        greet(peer)?;
        peer.until_end()?;
        peer.data_and_close_notify(format!("{HEAD}{ANSWER}").as_bytes())?;
        peer.fin()
    })
    .half_closing(),
    Behaviour::new("silence within the handshake", Sent::Nothing, Peer::half_handshake).patient(),
    Behaviour::new("a certificate signed by itself", Sent::Nothing, Peer::handshake).with(Certificate::Unknown),
    Behaviour::new("an expired certificate", Sent::Nothing, Peer::handshake).with(Certificate::Expired),
    Behaviour::new("a certificate for another name", Sent::Nothing, Peer::handshake).with(Certificate::OtherName),
];

/// What a server does to a client of HTTP.
pub(super) const HTTP: &[Behaviour] = &[
    Behaviour::new("no length: close_notify and FIN", Sent::Whole, |peer| {
        whole_and_close_notify(peer)?;
        peer.fin()
    }),
    Behaviour::new("no length: the whole answer, FIN without close_notify", Sent::Whole, |peer| {
        whole(peer)?;
        peer.fin()
    }),
    Behaviour::new("no length: half of the answer, FIN without close_notify", Sent::Half, |peer| {
        half(peer)?;
        peer.fin()
    }),
    Behaviour::new("no length: half of the answer, RST 100 ms later", Sent::Half, |peer| {
        half(peer)?;
        peer.watch(LATER)?;
        peer.reset()
    }),
    Behaviour::new("Content-Length: the whole answer, FIN without close_notify", Sent::Whole, |peer| {
        with_length(peer, ANSWER)?;
        peer.fin()
    }),
    Behaviour::new("Content-Length: half of the answer, FIN without close_notify", Sent::Half, |peer| {
        with_length(peer, HALVES[0])?;
        peer.fin()
    }),
    Behaviour::new("Content-Length: half of the answer, close_notify and FIN", Sent::Half, |peer| {
        with_length(peer, HALVES[0])?;
        close_notify_and_fin(peer)
    }),
];

/// The handshake, and the first half of what a client has to say.
fn begin(peer: &mut Peer) -> io::Result<()> {
    peer.handshake()?;
    peer.data(HALVES[0].as_bytes())
}

/// The handshake, and all that a client has to say.
fn say(peer: &mut Peer) -> io::Result<()> {
    peer.handshake()?;
    peer.data(ANSWER.as_bytes())
}

fn say_and_close_notify(peer: &mut Peer) -> io::Result<()> {
    peer.handshake()?;
    peer.data_and_close_notify(ANSWER.as_bytes())
}

/// What a client does to a server.
pub(super) const CLIENTS: &[Behaviour] = &[
    Behaviour::new("close_notify and FIN", Sent::Whole, |peer| {
        say_and_close_notify(peer)?;
        peer.fin()
    }),
    Behaviour::new("close_notify, and TCP stays open (half-close)", Sent::Whole, say_and_close_notify),
    Behaviour::new("everything, FIN without close_notify", Sent::Whole, |peer| {
        say(peer)?;
        peer.fin()
    }),
    Behaviour::new("half of it, FIN within a record", Sent::Half, |peer| {
        begin(peer)?;
        peer.half_record(HALVES[1].as_bytes())?;
        peer.fin()
    }),
    Behaviour::new("FIN within the handshake", Sent::Nothing, |peer| {
        peer.half_handshake()?;
        peer.fin()
    }),
    Behaviour::new("everything, RST 100 ms later", Sent::Whole, |peer| {
        say(peer)?;
        peer.watch(LATER)?;
        peer.reset()
    }),
    Behaviour::new("half of it, RST within a record", Sent::Half, |peer| {
        begin(peer)?;
        peer.half_record(HALVES[1].as_bytes())?;
        peer.watch(LATER)?;
        peer.reset()
    }),
    Behaviour::new("RST within the handshake", Sent::Nothing, |peer| {
        peer.half_handshake()?;
        peer.watch(LATER)?;
        peer.reset()
    }),
    Behaviour::new("close_notify, RST at once", Sent::Whole, |peer| {
        say_and_close_notify(peer)?;
        peer.reset()
    }),
    Behaviour::new("half of it, fatal alert internal_error, FIN", Sent::Half, |peer| {
        peer.handshake()?;
        peer.data_and_internal_error(HALVES[0].as_bytes())?;
        peer.fin()
    }),
    Behaviour::new("half of it, then a record with a changed byte", Sent::Half, |peer| {
        peer.handshake()?;
        peer.data_and_damaged(HALVES[0].as_bytes(), HALVES[1].as_bytes())
    }),
    Behaviour::new("silence within the handshake", Sent::Nothing, Peer::half_handshake).patient(),
];
