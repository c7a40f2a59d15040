//! Arbitrary peers and programs: what the bytes of a script mean is drawn from the bytes, so that
//! `fuzz/` can guide them by coverage.
//!
//! Whatever happens, nothing panics, `data` is a prefix of what the peer has encrypted, `end` comes
//! after the peer's own close_notify and never otherwise, and each connection closes with an ending that
//! fits its events.

use std::cell::OnceCell;
use std::time::Duration;

use finale::{ConnectOptions, Event, ListenOptions, SocketId, Stream, Streams};
use finale_tls::TlsSocket;
use finale_tls::rustls::version;
use proptest::prelude::*;

use crate::constant::configs;
use crate::forge::{ALERT, DATA, Forger, plain};
use crate::scene::{Configs, Peer, Scene};

/// At most this many operations: two shorter scripts replace a longer one.
const OPERATIONS: usize = 60;

thread_local! {
    static CONFIGS: OnceCell<[Configs; 2]> = const { OnceCell::new() };
}

/// The bytes that are left of a script. Without any, each choice is 0.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { usize::from(self.byte()) % bound }
    }

    fn take(&mut self) -> &'a [u8] {
        let count = self.below(64).min(self.0.len());
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }
}

/// What the program has seen, and what the peer has done.
#[derive(Default)]
struct Story {
    id: Option<SocketId>,
    seen: Vec<String>,
    data: Vec<u8>,
    /// Plaintext that the peer has encrypted.
    encrypted: Vec<u8>,
    has_closed: bool,
    /// By the program.
    is_destroyed: bool,
    /// What the program does in its next events.
    reactions: Vec<u8>,
}

impl Story {
    /// A call of the program.
    fn call(&mut self, socket: &mut TlsSocket<'_>, byte: u8) {
        self.is_destroyed |= call(socket, byte);
    }

    /// The rules of events, for each.
    fn check(&mut self, socket: &TlsSocket<'_>, event: Event<'_>) {
        let text = event.to_string();
        let name = text.split([',', ':', ' ']).next().unwrap_or_default().to_owned();
        let has = |name: &str| self.seen.iter().any(|seen| seen == name);
        assert!(!has("close"), "{name} after close: {:?}", self.seen);
        let is_over = self.is_destroyed || has("error");
        assert!(!is_over || matches!(event, Event::Close(_)), "{name}: {:?}", self.seen);
        match event {
            Event::Data(bytes) => {
                assert!(has("ready") && !has("end") && !has("error") && !bytes.is_empty(), "{:?}", self.seen);
                self.data.extend_from_slice(bytes);
                assert!(self.encrypted.starts_with(&self.data), "it was never sent: {:?}", self.data);
                assert!(socket.bytes_read() >= self.data.len() as u64);
            }
            Event::End => {
                assert!(has("ready") && !has("end") && !has("error") && self.has_closed, "{:?}", self.seen);
            }
            Event::Ready | Event::Error(_) => assert!(!has(&name), "{name} twice: {:?}", self.seen),
            Event::Close(ending) => {
                assert_eq!(ending.had_error(), has("error"), "{ending}, {:?}", self.seen);
                assert!(!ending.is_clean() || (has("end") && ending.bytes_unsent == 0), "{ending}, {:?}", self.seen);
                assert!(ending.bytes_read >= self.data.len() as u64, "{ending}, {:?}", self.seen);
            }
            _ => {}
        }
        self.id = Some(socket.id());
        self.seen.push(name);
    }
}

/// A call of the program. Returns whether it has destroyed the socket.
fn call(socket: &mut TlsSocket<'_>, byte: u8) -> bool {
    let before = socket.queued_bytes();
    match byte % 12 {
        0 => socket.pause(),
        1 => socket.resume(),
        2 => socket.hold(),
        3 => socket.release(),
        4 => drop(socket.write(b"answer")),
        5 => drop(socket.write(&[1; 20_000])),
        6 => drop(socket.write_parts(&[b"a", &[2; 17_000], b"", b"c"])),
        7 => socket.end(),
        8 if byte > 200 => socket.destroy(),
        9 if byte > 128 => socket.discard(),
        10 => drop(socket.request_drain()),
        _ => {}
    }
    // The limit, and one write that was begun below it, with what encryption adds. After `end` the
    // socket may have no limit: only close_notify follows.
    let limit = socket.socket().write_limit().saturating_add(40_000);
    assert!(socket.queued_bytes() <= limit.min(before + 40_000), "{before} bytes, then {}", socket.queued_bytes());
    byte % 12 == 8 && byte > 200
}

fn react(story: &mut Story, socket: &mut TlsSocket<'_>, event: Event<'_>) {
    if !event.is_socket_event() {
        return; // Its listener is closed.
    }
    story.check(socket, event);
    if matches!(event, Event::Timeout) {
        socket.destroy();
        story.is_destroyed = true;
    }
    if let Some(byte) = story.reactions.pop() {
        story.call(socket, byte);
    }
}

/// A record of any type and content, with the right keys.
fn forge(bytes: &mut Bytes<'_>, forger: &mut Forger, peer: &mut Peer, story: &mut Story) {
    let kind = 20 + bytes.byte() % 5;
    let content = bytes.take();
    story.has_closed |= kind == ALERT && content.len() == 2 && content[1] == 0;
    if kind == DATA {
        story.encrypted.extend_from_slice(content);
    }
    let record = forger.record(kind, content);
    peer.raw(&record);
}

/// A reset of the peer, or a stop of the listener.
fn cut_or_stop(scene: &mut Scene, peer: &mut Peer, byte: u8) {
    match byte {
        201.. => peer.reset(),
        0..20 if scene.listener.is_some() => {
            scene.stop();
            scene.listener = None;
        }
        _ => {}
    }
}

fn change_a_byte(mut out: Vec<u8>, bytes: &mut Bytes<'_>) -> Vec<u8> {
    let at = bytes.below(out.len());
    if let Some(byte) = out.get_mut(at) {
        *byte ^= bytes.byte();
    }
    out
}

/// One operation of the peer, the program or the time.
fn operate(
    bytes: &mut Bytes<'_>,
    (scene, peer, forger, story): (&mut Scene, &mut Peer, &mut Option<Forger>, &mut Story),
) {
    match bytes.below(16) {
        0 => peer.raw(bytes.take()),
        1 => peer.raw(&plain(20 + bytes.byte() % 5, bytes.take())),
        2 | 3 => {
            let out = peer.output();
            peer.raw(&out);
        }
        4 => {
            let out = change_a_byte(peer.output(), bytes);
            peer.raw(&out);
        }
        5 => {
            let out = peer.output();
            let size = bytes.below(255) + 1;
            scene.drip(peer, &out, size, &mut |socket, event| react(story, socket, event));
        }
        6 | 7 if forger.is_none() && peer.error.is_none() && !story.has_closed && !peer.tls.is_handshaking() => {
            let sent = bytes.take();
            story.encrypted.extend_from_slice(sent);
            peer.write(sent);
        }
        8 if forger.is_none() && peer.error.is_none() => {
            story.has_closed = true;
            peer.close_notify();
        }
        9 if bytes.byte() > 128 => peer.fin(),
        10 => cut_or_stop(scene, peer, bytes.byte()),
        11 => {
            let time = Duration::from_millis(1 << bytes.below(14));
            scene.step(time, &mut |socket, event| react(story, socket, event));
        }
        12 => story.reactions.push(bytes.byte()),
        13 => {
            let byte = bytes.byte();
            let mut context = scene.tls.context(scene.reactor.context());
            if let Some(mut socket) = story.id.and_then(|id| context.stream(id)) {
                story.call(&mut socket, byte);
            }
        }
        14 if forger.is_none() && !peer.tls.is_handshaking() && peer.error.is_none() => {
            let out = peer.output();
            peer.raw(&out);
            *forger = Some(peer.forger());
        }
        _ => {
            if let Some(forger) = forger {
                forge(bytes, forger, peer, story);
            }
        }
    }
}

/// Plays a script.
pub(crate) fn play(script: &[u8]) {
    let mut bytes = Bytes(script);
    let first = bytes.byte();
    let configs = CONFIGS.with(|known| {
        let made = known.get_or_init(|| [configs(&version::TLS13), configs(&version::TLS12)]);
        made[usize::from(first & 1)].clone()
    });
    let limit = Duration::from_secs(30);
    let (mut scene, mut peer) = if first & 2 == 0 {
        let options = ListenOptions::default().idle_timeout(limit).allow_half_open(first & 4 == 0);
        let options =
            if first & 8 == 0 { options } else { options.high_water_mark(1).low_water_mark(0).write_limit(50) };
        Scene::server(&configs, options.start_paused(first & 16 != 0))
    } else {
        let options = ConnectOptions::default().idle_timeout(limit).allow_half_open(first & 4 == 0);
        let (scene, _, peer) = Scene::client(&configs, options);
        (scene, peer)
    };
    let (mut forger, mut story) = (None, Story::default());
    if first & 32 == 0 {
        // Most of what can happen needs a handshake.
        for _ in 0..4 {
            scene.step(Duration::from_millis(5), &mut |socket, event| react(&mut story, socket, event));
            peer.turn();
        }
    }
    for _ in 0..OPERATIONS {
        operate(&mut bytes, (&mut scene, &mut peer, &mut forger, &mut story));
        scene.step(Duration::from_millis(1), &mut |socket, event| react(&mut story, socket, event));
        if forger.is_none() {
            let _ = peer.read();
        }
        if bytes.0.is_empty() {
            break;
        }
    }
    // The peer leaves, and everything ends.
    peer.fin();
    scene.step(Duration::from_secs(600), &mut |socket, event| react(&mut story, socket, event));
    if let Some(socket) = peer.socket.take() {
        socket.close();
    }
    scene.step(Duration::from_secs(600), &mut |socket, event| react(&mut story, socket, event));
    assert!(scene.tls.is_empty(), "a session is left: {:?}", story.seen);
    assert!(story.seen.last().is_none_or(|last| last == "close"), "{:?}", story.seen);
}

proptest! {
    // PROPTEST_CASES sets their number.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_peer_and_program_do_the_rules_hold(script in proptest::collection::vec(any::<u8>(), 1..300)) {
        play(&script);
    }
}
