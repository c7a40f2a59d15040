//! Streams that fail, and the reasons in words.

use std::sync::Arc;
use std::time::Duration;

use finale::lifecycle::State;
use finale::{
    Backpressure, ConnectOptions, ConnectionErrorKind, Event, LayerErrorKind, ListenOptions, Stream, Streams,
};
use finale_tls::rustls::crypto::ring::cipher_suite;
use finale_tls::rustls::{RootCertStore, version};
use finale_tls::{TlsFailure, TlsSocket};
use rcgen::CertificateParams;

use crate::forge::{ALERT, DATA, plain};
use crate::scene::{Configs, Peer, Scene};

/// Keeps the kind and the words of the error.
fn watch<'a>(found: &'a mut Option<(ConnectionErrorKind, String)>) -> impl FnMut(&mut TlsSocket<'_>, Event<'_>) + 'a {
    |socket, event| {
        if let Event::Error(error) = event {
            assert!(found.is_none(), "one error only");
            assert!(socket.failure().is_some());
            *found = Some((error.kind, error.to_string()));
        }
    }
}

const HANDSHAKE: ConnectionErrorKind = ConnectionErrorKind::Layer(LayerErrorKind::Handshake);
const PROTOCOL: ConnectionErrorKind = ConnectionErrorKind::Layer(LayerErrorKind::Protocol);
const TRUNCATED: ConnectionErrorKind = ConnectionErrorKind::Layer(LayerErrorKind::Truncated);

/// Plays a handshake that fails, and returns the words of both roles when finale has it.
fn reasons(configs: &Configs) -> [String; 2] {
    let mut found = [None, None];
    let (mut scene, mut peer) = Scene::server(configs, ListenOptions::default());
    scene.play(&mut peer, &mut watch(&mut found[0]));
    let (mut client, _, mut peer) = Scene::client(configs, ConnectOptions::default());
    client.play(&mut peer, &mut watch(&mut found[1]));
    // Also when the peer leaves.
    peer.fin();
    client.play(&mut peer, &mut |_, _| {});
    assert!(client.last().starts_with("close: error: the handshake failed"), "{:?}", client.seen);
    assert_eq!(client.tls.metrics().failed_handshakes, 1);
    assert!(!client.seen.iter().any(|event| event == "end" || event == "ready"), "{:?}", client.seen);
    found.map(|found| found.map(|(_, words)| words).unwrap_or_default())
}

fn with_times(year: i32, until: i32) -> Configs {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.not_before = rcgen::date_time_ymd(year, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    Configs::with(&[&version::TLS13], params)
}

#[test]
fn a_certificate_that_is_not_valid_is_explained_to_both() {
    let [server, client] = reasons(&with_times(2000, 2001));
    assert!(server.contains("certificate_expired") && server.contains("renew"), "{server}");
    assert!(client.contains("has expired"), "{client}");
    let [_, client] = reasons(&with_times(2900, 2901));
    assert!(client.contains("not valid yet"), "{client}");
    let params = CertificateParams::new(vec!["elsewhere.example".to_owned()]).expect("a name");
    let [server, client] = reasons(&Configs::with(&[&version::TLS13], params));
    assert!(server.contains("bad_certificate"), "{server}");
    assert!(client.contains("another name") && client.contains("elsewhere.example"), "{client}");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let [_, client] = reasons(&Configs::with(&[&version::TLS13], params));
    assert!(client.contains("CA:TRUE"), "{client}");
    let mut configs = Configs::tls13();
    configs.client = configs.with_roots(RootCertStore::empty());
    let [server, client] = reasons(&configs);
    assert!(server.contains("unknown_ca"), "{server}");
    assert!(client.contains("roots that we trust"), "{client}");
}

#[test]
fn nothing_in_common_is_explained_to_both() {
    let mut configs = Configs::tls13();
    configs.client = Configs::tls12().client;
    let [server, client] = reasons(&configs);
    assert!(server.contains("version"), "{server}");
    assert!(client.contains("protocol_version") && client.contains("no version of TLS in common"), "{client}");
    let mut configs = Configs::tls13();
    configs.server.alpn_protocols = vec![b"h2".to_vec()];
    configs.client.alpn_protocols = vec![b"http/1.1".to_vec()];
    let [server, client] = reasons(&configs);
    assert!(server.contains("ALPN"), "{server}");
    assert!(client.contains("no_application_protocol"), "{client}");
    let mut configs = Configs::tls13();
    configs.client = configs.with_suites(&[cipher_suite::TLS13_AES_128_GCM_SHA256]);
    let [server, client] = reasons(&configs);
    assert!(server.contains("no cipher suite"), "{server}");
    assert!(client.contains("handshake_failure"), "{client}");
}

#[test]
fn a_peer_without_tls_is_recognized() {
    for bytes in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"SSH-2.0-OpenSSH_9.6\r\n", &[0; 100], &[255; 100]] {
        for is_server in [true, false] {
            for size in [1, 1000] {
                let configs = Configs::tls13();
                let (mut scene, mut peer) = if is_server {
                    Scene::server(&configs, ListenOptions::default())
                } else {
                    let (scene, _, peer) = Scene::client(&configs, ConnectOptions::default());
                    (scene, peer)
                };
                let _ = peer.output();
                let mut found = None;
                scene.step(Duration::from_millis(5), &mut watch(&mut found));
                scene.drip(&mut peer, bytes, size, &mut watch(&mut found));
                scene.step(Duration::from_millis(50), &mut |_, _| {});
                let (kind, words) = found.expect("it fails");
                assert_eq!(kind, HANDSHAKE, "{words}");
                assert!(words.contains("does not speak TLS"), "{words}");
                let sent = peer.socket.as_ref().map(finale::sim::PeerSocket::read).unwrap_or_default();
                assert!(sent.ends_with(&plain(ALERT, &sent[sent.len() - 2..])), "an alert was sent");
                peer.fin();
                scene.play(&mut peer, &mut |_, _| {});
                assert!(scene.last().starts_with("close: error: the handshake failed") && scene.tls.is_empty());
            }
        }
    }
}

#[test]
fn a_connection_that_ends_in_the_handshake_is_interrupted() {
    // After each byte of the client's first message, and of the server's flight.
    for is_server in [true, false] {
        for is_reset in [true, false] {
            for cut in [0, 1, 5, 6, 50, 100] {
                let configs = Configs::tls13();
                let (mut scene, mut peer) = if is_server {
                    Scene::server(&configs, ListenOptions::default())
                } else {
                    let (scene, _, peer) = Scene::client(&configs, ConnectOptions::default());
                    (scene, peer)
                };
                let mut found = None;
                scene.step(Duration::from_millis(5), &mut watch(&mut found));
                let bytes = if is_server { peer.output() } else { peer.answer() };
                peer.raw(&bytes[..cut]);
                scene.step(Duration::from_millis(5), &mut watch(&mut found));
                if is_reset {
                    peer.reset();
                } else {
                    peer.fin();
                }
                scene.play(&mut peer, &mut watch(&mut found));
                let (kind, words) = found.expect("it fails");
                assert_eq!(kind, HANDSHAKE, "{words}");
                let how = if is_reset { "a reset by the peer" } else { "a FIN of the peer" };
                assert!(words.contains(how) && words.contains("before it was done"), "{words}");
                assert!(scene.last().starts_with("close: error: the handshake failed"), "{}", scene.last());
            }
        }
    }
}

#[test]
fn an_alert_of_the_peer_ends_the_stream_after_its_data() {
    for configs in [Configs::tls13(), Configs::tls12()] {
        let (mut scene, mut peer) = Scene::server(&configs, ListenOptions::default());
        let mut found = None;
        scene.play(&mut peer, &mut |_, _| {});
        let mut forger = peer.forger();
        let bytes = [forger.record(DATA, b"request"), forger.record(ALERT, &[2, 80])].concat();
        scene.drip(&mut peer, &bytes, usize::MAX, &mut watch(&mut found));
        let (kind, words) = found.expect("it fails");
        assert!(kind == PROTOCOL && words.contains("the peer sent the alert internal_error"), "{words}");
        peer.fin();
        scene.play(&mut peer, &mut |_, _| {});
        let close = "close: error: the stream is not valid";
        assert_eq!(scene.events()[..3], ["connection", "ready", "data, 7 bytes"]);
        assert!(scene.events()[3].starts_with("error: ") && scene.events().len() == 5, "{:?}", scene.seen);
        assert!(scene.last().starts_with(close), "{}", scene.last());
        assert_eq!(scene.tls.metrics().failed, 1);
    }
}

/// After the handshake a record arrives that was changed on the way.
fn changed(configs: &Configs, change: impl Fn(&mut [u8])) -> (Scene, Peer, ConnectionErrorKind, String) {
    let (mut scene, mut peer) = Scene::server(configs, ListenOptions::default());
    let mut found = None;
    scene.play(&mut peer, &mut |_, _| {});
    let good = peer.records(b"request");
    let mut bad = peer.records(b"changed");
    change(&mut bad);
    let bytes = [good, bad, peer.close_record()].concat();
    scene.drip(&mut peer, &bytes, usize::MAX, &mut watch(&mut found));
    scene.play(&mut peer, &mut |_, _| {});
    let (kind, words) = found.expect("it fails");
    (scene, peer, kind, words)
}

#[test]
fn a_record_that_was_changed_fails_the_stream_and_nothing_after_it_counts() {
    for configs in [Configs::tls13(), Configs::tls12()] {
        let last = |bytes: &mut [u8]| *bytes.last_mut().expect("a record") ^= 1;
        let (scene, peer, kind, words) = changed(&configs, last);
        assert!(kind == PROTOCOL && words.contains("bad_record_mac"), "{words}");
        assert_eq!(scene.data, b"request");
        assert!(!scene.seen.iter().any(|event| event == "end"));
        assert!(peer.error.as_deref().is_some_and(|error| error.contains("BadRecordMac")), "{:?}", peer.error);
        assert!(!peer.has_close_notify && peer.has_fin && !peer.is_reset);
        for at in [0, 1, 3] {
            let (scene, _, kind, words) = changed(&configs, |bytes| bytes[at] ^= 0x80);
            assert_eq!((kind, &scene.data[..]), (PROTOCOL, &b"request"[..]), "{words}");
        }
    }
}

#[test]
fn a_record_that_was_changed_fails_the_stream_also_after_our_own_end() {
    for configs in [Configs::tls13(), Configs::tls12()] {
        let (mut scene, mut peer) = Scene::server(&configs, ListenOptions::default());
        let mut found = None;
        scene.play(&mut peer, &mut |socket, event| {
            if matches!(event, Event::Ready) {
                socket.end();
            }
        });
        assert!(peer.has_close_notify && peer.has_fin);
        let mut bytes = peer.records(b"request");
        *bytes.last_mut().expect("a record") ^= 1;
        peer.raw(&bytes);
        scene.play(&mut peer, &mut watch(&mut found));
        let (kind, words) = found.expect("it fails");
        assert!(kind == PROTOCOL && words.contains("bad_record_mac"), "{words}");
        peer.fin();
        scene.play(&mut peer, &mut |_, _| {});
        assert!(scene.last().starts_with("close: error: the stream is not valid"), "{}", scene.last());
    }
}

#[test]
fn a_truncation_says_where_and_how() {
    for configs in [Configs::tls13(), Configs::tls12()] {
        for cut in 0..30 {
            for is_reset in [false, true] {
                let (mut scene, mut peer) = Scene::server(&configs, ListenOptions::default());
                let mut found = None;
                scene.play(&mut peer, &mut |_, _| {});
                peer.write(b"request");
                let bytes = peer.records(b"cut");
                let cut = cut % bytes.len();
                peer.raw(&bytes[..cut]);
                scene.step(Duration::from_millis(5), &mut watch(&mut found));
                if is_reset {
                    peer.reset();
                } else {
                    peer.fin();
                }
                scene.play(&mut peer, &mut watch(&mut found));
                let (kind, words) = found.expect("it fails");
                assert!(kind == TRUNCATED && words.contains("after 7 bytes"), "{words}");
                assert_eq!(words.ends_with("in the middle of a record"), cut > 0, "{words}");
                assert!(!scene.seen.iter().any(|event| event == "end"));
            }
        }
    }
}

#[test]
fn a_reset_after_both_ends_is_an_error_of_the_connection_if_an_answer_was_on_its_way() {
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
    let mut found = None;
    let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
        if matches!(event, Event::End) {
            socket.write(b"answer").expect("room");
            socket.end();
        }
        if let Event::Error(error) = event {
            found = Some((error.kind, matches!(socket.failure(), Some(TlsFailure::Connection(_)))));
        }
    };
    scene.handshake(&mut peer, &mut program);
    peer.write(b"request");
    peer.close_notify();
    scene.play(&mut peer, &mut program);
    assert!(peer.has_close_notify);
    peer.reset();
    scene.play(&mut peer, &mut program);
    assert_eq!(found, Some((ConnectionErrorKind::Reset, true)));
    assert_eq!(scene.events()[3], "end");
    assert_eq!(scene.tls.metrics().truncated, 0);
}

#[test]
fn a_slow_handshake_fails_at_its_deadline_in_both_roles() {
    for is_server in [true, false] {
        for drips in [true, false] {
            let configs = Configs::tls13();
            let (mut scene, mut peer) = if is_server {
                Scene::server(&configs, ListenOptions::default())
            } else {
                let (scene, _, peer) = Scene::client(&configs, ConnectOptions::default());
                (scene, peer)
            };
            let begun = scene.network.now();
            let mut found = None;
            let mut at = None;
            scene.step(Duration::from_millis(5), &mut |_, _| {});
            let bytes = if is_server { peer.output() } else { peer.answer() };
            for byte in bytes.iter().take(60) {
                if drips {
                    peer.raw(&[*byte]);
                }
                let network = scene.network.clone();
                scene.step(Duration::from_millis(500), &mut |socket, event| {
                    if let Event::Error(error) = event {
                        found = Some(error.kind);
                        at = Some(network.now() - begun);
                        assert!(matches!(socket.failure(), Some(TlsFailure::HandshakeTimeout)));
                    }
                });
            }
            assert_eq!(found, Some(ConnectionErrorKind::Layer(LayerErrorKind::HandshakeTimeout)));
            let at = at.expect("an error");
            assert!((9.9..10.1).contains(&at.as_secs_f64()), "{at:?}");
            assert!(scene.last().starts_with("close: error: "), "{}", scene.last());
            assert!(scene.tls.is_empty(), "{:?}", scene.seen);
            assert!(peer.socket.as_ref().is_some_and(finale::sim::PeerSocket::is_reset));
        }
    }
}

#[test]
fn the_idle_timeout_of_a_socket_ends_its_handshake() {
    let options = ListenOptions::default().idle_timeout(Duration::from_secs(2));
    let (mut scene, _peer) = Scene::server(&Configs::tls13(), options);
    scene.tls.set_handshake_timeout(None);
    let mut found = None;
    scene.step(Duration::from_secs(3), &mut watch(&mut found));
    assert_eq!(found.map(|(kind, _)| kind), Some(ConnectionErrorKind::Layer(LayerErrorKind::HandshakeTimeout)));
    assert!(scene.last().starts_with("close: error: ") && scene.tls.is_empty(), "{:?}", scene.seen);
}

#[test]
fn a_handshake_in_time_has_no_deadline_afterwards() {
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
    scene.tls.set_handshake_timeout(Duration::from_secs(1));
    scene.play(&mut peer, &mut |_, _| {});
    scene.step(Duration::from_secs(100), &mut |_, _| {});
    assert_eq!(scene.events(), ["connection", "ready"]);
}

#[test]
fn a_connection_that_is_refused_is_no_failure_of_tls() {
    let configs = Configs::tls13();
    let (mut scene, _, peer) = Scene::client(&configs, ConnectOptions::default());
    drop(peer);
    let config = Arc::new(configs.client);
    let addr: std::net::SocketAddr = "10.0.0.3:9".parse().expect("an address");
    let options = ConnectOptions::default();
    let name = "localhost".try_into().expect("a name");
    scene.tls.connect(&mut scene.reactor.context(), addr, options, &config, name).expect("begun");
    let mut found = None;
    scene.step(Duration::from_secs(60), &mut |socket, event| {
        if let Event::Error(error) = event
            && matches!(socket.failure(), Some(TlsFailure::Connection(_)))
        {
            found = Some(error.kind);
        }
    });
    assert!(found.is_some_and(|kind| !matches!(kind, ConnectionErrorKind::Layer(_))), "{:?}", scene.seen);
}

#[test]
fn a_client_without_its_certificate_learns_why() {
    let configs = Configs::tls13().with_client_auth();
    let (mut scene, mut peer) = Scene::server(&configs, ListenOptions::default());
    let mut found = None;
    scene.play(&mut peer, &mut watch(&mut found));
    let (kind, words) = found.expect("it fails");
    assert!(kind == HANDSHAKE && words.contains("certificate"), "{words}");
    // With TLS 1.3 the client's handshake is done before the server refuses it.
    let (mut scene, _, mut peer) = Scene::client(&configs, ConnectOptions::default());
    let mut found = None;
    scene.play(&mut peer, &mut watch(&mut found));
    let (kind, words) = found.expect("it fails");
    assert!(kind == PROTOCOL && words.contains("certificate_required"), "{words}");
}

#[test]
fn a_stream_that_was_cut_is_never_in_a_state_of_one_that_has_ended() {
    for when in ["error", "timer"] {
        let configs = Configs::tls13();
        let (mut scene, mut peer) = Scene::server(&configs, ListenOptions::default());
        let mut other = scene.another(&configs);
        let (mut pipes, mut ids) = (finale::Pipes::new(), Vec::new());
        let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
            match event {
                Event::Ready => ids.push(socket.id()),
                Event::Error(_) => drop(socket.socket().set_timer(Duration::ZERO)),
                _ => {}
            }
            if event.to_string().starts_with(when) {
                let state = socket.get(ids[0]).expect("it is open").state();
                let has_ended = [State::PeerFinished, State::LastFlush, State::Closing];
                assert!(!has_ended.contains(&state), "in {when}: {state}");
                // An end that was delivered before is passed on at once, and there was none.
                pipes.pipe(&mut socket.context(), ids[0], ids[1]).expect("both are open");
            }
            pipes.handle(socket, &event);
        };
        scene.handshake(&mut peer, &mut program);
        scene.play(&mut peer, &mut program);
        scene.handshake(&mut other, &mut program);
        scene.play(&mut other, &mut program);
        peer.fin();
        scene.play(&mut other, &mut program);
        assert!(!other.has_close_notify && !other.has_fin, "in {when}: {:?}", scene.seen);
    }
}

#[test]
fn a_write_after_data_that_came_with_a_failure_is_no_error_of_the_program() {
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
    let mut results = Vec::new();
    let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| {
        if matches!(event, Event::Data(_) | Event::Error(_)) {
            results.push(socket.write(b"answer"));
        }
    };
    scene.handshake(&mut peer, &mut program);
    // Data and a record that is none, in one segment.
    let mut out = peer.records(b"question");
    out.extend_from_slice(&[23, 3, 3, 0, 20]);
    out.extend_from_slice(&[0; 20]);
    peer.raw(&out);
    scene.play(&mut peer, &mut program);
    peer.fin();
    scene.play(&mut peer, &mut program);
    assert_eq!(results, [Ok(Backpressure::Room), Err(finale::Error::Gone)], "{:?}", scene.seen);
    assert!(scene.last().ends_with("8 bytes read, 0 written, 6 never sent"), "{}", scene.last());
}

#[test]
fn what_is_written_to_a_stream_with_unread_bytes_after_a_reset_is_lost_and_does_not_wait() {
    let options = ListenOptions::default().high_water_mark(1000).low_water_mark(0).write_limit(2000);
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), options);
    scene.play(&mut peer, &mut |socket, _| socket.pause());
    peer.write(b"unread");
    scene.play(&mut peer, &mut |_, _| {});
    peer.reset();
    scene.step(Duration::from_secs(1), &mut |socket, event| {
        use Backpressure::{Full, Room};
        // Each time the high-water mark is passed.
        for queue in if matches!(event, Event::PeerEnded(_)) { [Room, Full, Full, Full].as_slice() } else { &[] } {
            assert_eq!(socket.write(&[1; 900]), Ok(*queue));
            assert_eq!((socket.queued_bytes(), socket.request_drain()), (0, false));
        }
        socket.resume();
    });
    let events = scene.events();
    assert_eq!(events[2..4], ["peer-ended by a reset", "data, 6 bytes"], "{events:?}");
    assert!(scene.last().ends_with("6 bytes read, 0 written, 3600 never sent"), "{events:?}");
}

#[test]
fn an_answer_that_a_reset_after_close_notify_makes_impossible_is_an_error() {
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
    scene.play(&mut peer, &mut |socket, _| socket.pause());
    peer.write(b"question");
    peer.close_notify();
    scene.play(&mut peer, &mut |_, _| {});
    peer.reset();
    scene.step(Duration::from_secs(1), &mut |socket, event| {
        if matches!(event, Event::PeerEnded(_)) {
            socket.write(b"answer").expect("no error yet");
            socket.end();
        }
        socket.resume();
    });
    let events = scene.events();
    let last = scene.last();
    assert_eq!(events[2..events.len() - 2], ["peer-ended by a reset", "data, 8 bytes", "end"], "{events:?}");
    assert!(last.starts_with("close: error") && last.ends_with("0 written, 6 never sent"), "{events:?}");
}

#[test]
fn a_stream_that_is_destroyed_in_data_before_its_failure_counts_as_destroyed() {
    for has_close_notify in [false, true] {
        let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
        scene.handshake(&mut peer, &mut |socket, _| socket.pause());
        // It arrives with the last message of the handshake, and so before the pause.
        peer.write(b"unread");
        if has_close_notify {
            peer.close_notify();
        }
        scene.play(&mut peer, &mut |_, _| {});
        peer.reset();
        scene.step(Duration::from_secs(1), &mut |socket, event| match event {
            Event::Data(_) => {
                socket.destroy();
                assert!(socket.destroy_called());
            }
            _ => socket.resume(),
        });
        let events = scene.events();
        let is_last = events[events.len() - 2] == "data, 6 bytes";
        assert!(is_last && scene.last().starts_with("close: destroyed"), "{events:?}");
    }
}

#[test]
fn what_is_written_before_a_handshake_that_fails_is_lost_and_does_not_wait() {
    let (mut scene, id, mut peer) = Scene::client(&Configs::tls13(), ConnectOptions::default());
    scene.tls.context(scene.reactor.context()).stream(id).expect("it is open").write(&[1; 900]).expect("room");
    scene.step(Duration::from_millis(5), &mut |_, _| {});
    peer.raw(b"HTTP/1.1 400 Bad Request");
    let mut waiting = Vec::new();
    scene.play(&mut peer, &mut |socket, event| {
        if matches!(event, Event::Error(_)) {
            waiting.push(socket.queued_bytes());
        }
    });
    peer.fin();
    scene.play(&mut peer, &mut |_, _| {});
    assert_eq!(waiting, [0], "{:?}", scene.seen);
    assert!(scene.last().ends_with("0 bytes read, 0 written, 900 never sent"), "{}", scene.last());
}

#[test]
fn a_record_that_is_sent_byte_by_byte_has_a_limit_and_a_stream_of_whole_ones_has_none() {
    for is_slow in [true, false] {
        let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
        scene.play(&mut peer, &mut |_, _| {});
        let slow = peer.records(&[7; 400]);
        for (second, byte) in slow.iter().take(200).enumerate() {
            peer.raw(&[*byte]);
            if !is_slow && second == 30 {
                peer.raw(&slow[31..]);
                break;
            }
            scene.step(Duration::from_secs(1), &mut |_, _| {});
        }
        // Each write of this one ends in the middle of a record.
        for _ in 0..if is_slow { 0 } else { 30 } {
            let out = peer.records(&[7; 400]);
            let (first, rest) = out.split_at(200);
            peer.raw(first);
            scene.step(Duration::from_secs(10), &mut |_, _| {});
            peer.raw(rest);
        }
        scene.step(Duration::from_secs(100), &mut |_, _| {});
        let error = "error: the stream is not valid: a record was not complete within 60 s";
        assert_eq!(scene.seen.iter().any(|event| event == error), is_slow, "{:?}", scene.seen);
    }
}
