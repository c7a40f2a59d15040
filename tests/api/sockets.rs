//! What `Reactor::sockets` and `Reactor::metrics` say at any moment: also before the next call of
//! `next`.

use std::time::Duration;

use finale::{Event, ListenOptions, SocketInfo};
use support::scene::Scene;

const SECOND: Duration = Duration::from_secs(1);

fn row(scene: &Scene) -> SocketInfo {
    scene.reactor.sockets().iter().next().expect("it lives").clone()
}

#[test]
fn the_timer_of_a_socket_counts_down_while_the_reactor_is_not_called() {
    let (mut scene, peer) = Scene::served(ListenOptions::default().idle_timeout(10 * SECOND));
    let before = row(&scene);
    assert_eq!(before.timer, Some("idle timeout"));
    scene.network.advance(3 * SECOND);
    let left = before.timer_ms.expect("it has one") - 3_000;
    assert_eq!(row(&scene).timer_ms, Some(left));
    peer.send(b"hello");
    scene.network.advance(SECOND);
    assert_eq!(row(&scene).timer_ms, Some(left - 1_000), "nothing was read so far");
    let until = scene.network.now();
    let (_, event) = scene.reactor.next_before(until).expect("it can wait").expect("it has arrived");
    assert_eq!(event, Event::Data(b"hello"));
    assert_eq!(row(&scene).timer_ms, Some(10_000), "also while the program handles the event");
    scene.network.advance(20 * SECOND);
    assert_eq!(row(&scene).timer_ms, Some(10_000), "it counts from the next call");
}

#[test]
fn a_socket_is_paused_for_either_reason() {
    let (mut scene, _peer) = Scene::served(ListenOptions::default());
    assert!(!row(&scene).is_paused);
    scene.with(|socket| socket.hold());
    assert!(row(&scene).is_paused && scene.reactor.sockets().to_string().contains("Open*"));
    scene.with(|socket| socket.release());
    assert!(!row(&scene).is_paused);
    scene.with(|socket| socket.pause());
    assert!(row(&scene).is_paused);
}

#[test]
fn a_socket_whose_close_is_delivered_is_live_no_more() {
    let (mut scene, peer) = Scene::served(ListenOptions::default());
    peer.reset();
    let until = scene.network.now() + SECOND;
    loop {
        let (_, event) = scene.reactor.next_before(until).expect("it can wait").expect("its close comes");
        let is_over = matches!(event, Event::Close(_));
        let metrics = scene.reactor.metrics();
        assert_eq!((metrics.live(), scene.reactor.len()), (usize::from(!is_over), usize::from(!is_over)));
        if is_over {
            return;
        }
    }
}
