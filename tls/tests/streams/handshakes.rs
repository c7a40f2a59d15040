//! What a handshake negotiates, and what the program learns of it.

use std::sync::{Arc, Mutex};

use finale::lifecycle::State;
use finale::{ConnectOptions, Event, ListenOptions, Stream};
use finale_tls::TlsSocket;
use finale_tls::rustls::client::Resumption;
use finale_tls::rustls::crypto::ring::{Ticketer, kx_group};
use finale_tls::rustls::server::ServerSessionMemoryCache;
use finale_tls::rustls::{KeyLog, ProtocolVersion};

use crate::scene::{Configs, Peer, Scene};

/// What the program learns at `ready`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Learned {
    alpn: Option<String>,
    server_name: Option<String>,
    certificate: Option<Vec<u8>>,
    is_resumed: bool,
    version: Option<ProtocolVersion>,
}

impl Learned {
    fn of(socket: &TlsSocket<'_>) -> Self {
        let handshake = socket.handshake().expect("it is done");
        assert!(handshake.cipher_suite().is_some());
        Self {
            alpn: handshake.alpn().map(|name| String::from_utf8_lossy(name).into_owned()),
            server_name: handshake.server_name().map(str::to_owned),
            certificate: handshake.peer_certificates().map(|chain| chain[0].to_vec()),
            is_resumed: handshake.is_resumed(),
            version: handshake.version(),
        }
    }
}

/// Plays a handshake up to `ready`, and ends the stream.
fn learn(scene: &mut Scene, peer: &mut Peer) -> Learned {
    let mut learned = None;
    let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| match event {
        Event::Connection | Event::Connect => assert!(socket.handshake().is_none() && socket.is_tls()),
        Event::Ready => {
            learned = Some(Learned::of(socket));
            assert_eq!(socket.state(), State::Open);
            socket.end();
        }
        _ => {}
    };
    scene.play(peer, &mut program);
    peer.close_notify();
    peer.fin();
    scene.play(peer, &mut program);
    assert!(scene.last().starts_with("close: clean"), "{:?}", scene.seen);
    learned.expect("a handshake")
}

#[test]
fn both_roles_learn_what_was_negotiated() {
    for (version, mut configs) in
        [(ProtocolVersion::TLSv1_3, Configs::tls13()), (ProtocolVersion::TLSv1_2, Configs::tls12())]
    {
        configs.server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        configs.client.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (mut scene, mut peer) = Scene::server(&configs, ListenOptions::default());
        let learned = learn(&mut scene, &mut peer);
        let alpn = Some("http/1.1".to_owned());
        assert_eq!(
            learned,
            Learned {
                alpn: alpn.clone(),
                server_name: Some("localhost".to_owned()),
                version: Some(version),
                ..Learned::default()
            }
        );
        assert_eq!(peer.tls.alpn_protocol(), Some(&b"http/1.1"[..]));
        let (mut scene, _, mut peer) = Scene::client(&configs, ConnectOptions::default());
        let learned = learn(&mut scene, &mut peer);
        assert_eq!((learned.alpn, learned.version, learned.server_name), (alpn, Some(version), None));
        assert!(learned.certificate.is_some());
    }
}

#[test]
fn sessions_are_resumed_where_the_configuration_says_so() {
    for mut configs in [Configs::tls13(), Configs::tls12()] {
        for has_tickets in [true, false] {
            configs.server.session_storage = ServerSessionMemoryCache::new(10);
            configs.server.send_tls13_tickets = 2;
            if has_tickets {
                configs.server.ticketer = Ticketer::new().expect("random bytes");
            }
            configs.client.resumption = Resumption::in_memory_sessions(10);
            let (mut scene, mut peer) = Scene::server(&configs, ListenOptions::default());
            let mut known = Vec::new();
            for number in 0..3 {
                let learned = learn(&mut scene, &mut peer);
                known.push((learned.is_resumed, learned.server_name));
                if number < 2 {
                    peer = scene.another(&configs);
                }
            }
            let name = Some("localhost".to_owned());
            assert_eq!(known, [(false, name.clone()), (true, name.clone()), (true, name)]);
            assert_eq!((scene.tls.metrics().handshakes, scene.tls.metrics().resumed), (3, 2));
        }
    }
}

#[test]
fn a_second_configuration_of_a_listener_is_for_new_connections() {
    let (old, new) = (Configs::tls13(), Configs::tls13());
    let (mut scene, mut peer) = Scene::server(&old, ListenOptions::default());
    let mut echo = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
        if let Event::Data(bytes) = event {
            socket.write(bytes).expect("room");
        }
    };
    scene.play(&mut peer, &mut echo);
    let listener = scene.listener.expect("it listens");
    scene.tls.accept_on(listener, &Arc::new(new.server.clone())).expect("a good configuration");
    let mut second = scene.another(&new);
    scene.play(&mut second, &mut echo);
    peer.write(b"old");
    scene.play(&mut peer, &mut echo);
    second.write(b"new");
    scene.play(&mut second, &mut echo);
    assert_eq!((&peer.data[..], &second.data[..]), (&b"old"[..], &b"new"[..]));
    let mut third = scene.another(&old);
    scene.play(&mut third, &mut echo);
    assert!(third.error.is_some_and(|error| error.contains("certificate")));
}

#[test]
fn the_server_name_of_one_client_is_never_that_of_another() {
    // The first client has to repeat its first message, for another group.
    let mut configs = Configs::tls13().with_groups(&[kx_group::X25519], &[kx_group::SECP256R1, kx_group::X25519]);
    let (mut scene, mut peer) = Scene::server(&configs, ListenOptions::default());
    let mut names = Vec::new();
    let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
        if matches!(event, Event::Ready) {
            names.push(Learned::of(socket).server_name);
        }
    };
    scene.play(&mut peer, &mut program);
    configs.client.enable_sni = false;
    let mut second = scene.another(&configs);
    let bytes = second.output();
    scene.drip(&mut second, &bytes, 1, &mut program);
    scene.play(&mut second, &mut program);
    assert_eq!(names, [Some("localhost".to_owned()), None]);
}

/// Collects the lines of a key log.
#[derive(Debug, Default)]
struct Lines(Mutex<Vec<String>>);

impl KeyLog for Lines {
    fn log(&self, label: &str, _random: &[u8], _secret: &[u8]) {
        self.0.lock().expect("no panic").push(label.to_owned());
    }
}

#[test]
fn keys_are_logged_where_the_configuration_says_so() {
    let lines = Arc::new(Lines::default());
    let mut configs = Configs::tls13();
    configs.server.key_log = Arc::clone(&lines) as Arc<dyn KeyLog>;
    let (mut scene, mut peer) = Scene::server(&configs, ListenOptions::default());
    learn(&mut scene, &mut peer);
    let lines = lines.0.lock().expect("no panic");
    for label in ["CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_TRAFFIC_SECRET_0", "EXPORTER_SECRET"] {
        assert!(lines.iter().any(|line| line == label), "{label}: {lines:?}");
    }
}

#[test]
fn the_state_is_that_of_the_stream() {
    for ends_first in [true, false] {
        let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
        let mut states = Vec::new();
        let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
            states.push((event.to_string().split([',', ':']).next().unwrap_or_default().to_owned(), socket.state()));
            let is_time = if ends_first { matches!(event, Event::Ready) } else { matches!(event, Event::End) };
            if is_time {
                socket.end();
            }
        };
        scene.play(&mut peer, &mut program);
        peer.write(b"request");
        scene.play(&mut peer, &mut program);
        peer.close_notify();
        scene.play(&mut peer, &mut program);
        peer.fin();
        scene.play(&mut peer, &mut program);
        let states: Vec<(&str, State)> = states.iter().map(|(event, state)| (event.as_str(), *state)).collect();
        let (data, end) =
            if ends_first { (State::LocalFinished, State::Closing) } else { (State::Open, State::PeerFinished) };
        assert_eq!(
            states,
            [
                ("connection", State::Connecting),
                ("ready", State::Open),
                ("data", data),
                ("end", end),
                ("close", State::Closed)
            ]
        );
    }
}

#[test]
fn a_socket_without_tls_passes_through() {
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
    let plain = scene.reactor.listen("10.0.0.1:80", ListenOptions::default()).expect("a free port");
    let client = scene.network.peer([10, 0, 0, 9].into()).connect(plain.addr).expect("begun");
    client.send(b"plain");
    client.finish();
    let mut echo = |socket: &mut TlsSocket<'_>, event: Event<'_>| match event {
        Event::Data(bytes) => drop(socket.write(bytes)),
        Event::End => socket.end(),
        _ => {}
    };
    scene.play(&mut peer, &mut echo);
    peer.write(b"secret");
    scene.play(&mut peer, &mut echo);
    assert_eq!((&client.read()[..], &peer.data[..]), (&b"plain"[..], &b"secret"[..]));
    assert!(client.has_fin());
}
