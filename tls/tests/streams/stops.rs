//! A listener stops while something is in flight.

use std::time::Duration;

use finale::{Event, ListenOptions, Stream};
use finale_tls::TlsSocket;

use crate::scene::{Configs, Scene};

const SECOND: Duration = Duration::from_secs(1);

/// Answers a request at once, and ends when the peer has.
fn answer(socket: &mut TlsSocket<'_>, event: Event<'_>) {
    match event {
        Event::Data(_) => drop(socket.write(b"answer").expect("it can be answered")),
        Event::End => socket.end(),
        _ => {}
    }
}

#[test]
fn a_stop_waits_for_the_rest_of_a_record_that_has_begun_as_for_that_of_a_request() {
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
    scene.play(&mut peer, &mut answer);
    let record = peer.records(b"question");
    peer.raw(&record[..10]);
    scene.play(&mut peer, &mut answer);
    scene.stop();
    scene.step(SECOND * 5, &mut answer);
    peer.turn();
    assert!(!peer.has_fin, "{:?}", scene.seen);
    peer.raw(&record[10..]);
    scene.step(SECOND * 5, &mut answer);
    peer.turn();
    assert_eq!(peer.data, b"answer", "{:?}", scene.seen);
    assert!(peer.has_close_notify && peer.has_fin, "{:?}", scene.seen);
}

#[test]
fn a_stop_does_not_cut_an_answer_to_a_peer_that_has_ended() {
    for with_fin in [false, true] {
        let (mut scene, mut peer) = Scene::server(&Configs::tls13(), ListenOptions::default());
        let mut pieces = 0;
        let mut program = |socket: &mut TlsSocket<'_>, event: Event<'_>| match event {
            Event::End | Event::Timer(_) if pieces < 4 => {
                pieces += 1;
                socket.write(b"piece ").expect("it can be answered");
                socket.socket().set_timer(SECOND * 5);
            }
            _ => {}
        };
        scene.play(&mut peer, &mut program);
        peer.write(b"question");
        peer.close_notify();
        if with_fin {
            peer.fin();
        }
        scene.play(&mut peer, &mut program);
        scene.stop();
        scene.step(SECOND * 4, &mut program);
        peer.turn();
        assert!(!peer.has_close_notify && !peer.has_fin, "FIN: {with_fin}, {:?}", scene.seen);
    }
}

#[test]
fn a_timeout_is_delivered_also_after_a_stop_has_ended_our_side() {
    let options = ListenOptions::default().idle_timeout(SECOND * 3);
    let (mut scene, mut peer) = Scene::server(&Configs::tls13(), options);
    scene.play(&mut peer, &mut answer);
    scene.stop();
    scene.step(SECOND * 2, &mut answer);
    peer.turn();
    assert!(peer.has_close_notify && peer.has_fin);
    scene.step(SECOND * 4, &mut answer);
    assert_eq!(scene.last(), "timeout", "{:?}", scene.seen);
}
