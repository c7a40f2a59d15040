//! Threads and wake-up: the rows TH01 and following of docs/faults.md.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use finale::sim::{Host, Network};
use finale::{ConnectOptions, Error, Event, ListenOptions, Reactor};

use support::scene::{HERE, Scene};
use support::{PATIENCE, ms};

/// A conversation on one machine, with a wake from the handler of event number `wake_at`. Returns
/// the names of the events.
fn conversation(wake_at: usize) -> Vec<&'static str> {
    let network = Network::new(7);
    let mut reactor = Reactor::with_net(network.host(HERE));
    let listener = reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let client = reactor.connect(listener.addr, ConnectOptions::default()).expect("an address");
    reactor.set_timer(ms(2));
    let remote = reactor.waker();
    let mut told = Vec::new();
    let until = network.now() + Duration::from_secs(60);
    while let Some((mut socket, event)) = reactor.next_before(until).expect("it continues") {
        told.push(match event {
            Event::Woken => "woken",
            Event::Timer(_) => "timer",
            Event::Ready => {
                drop(socket.write(b"question"));
                "ready"
            }
            Event::Data(_) if socket.id() != client => {
                drop(socket.write(b"answer"));
                socket.end();
                "question"
            }
            Event::End if socket.id() == client => {
                socket.end();
                "end"
            }
            Event::Close(_) => "close",
            _ => "other",
        });
        if told.len() - 1 == wake_at {
            remote.wake().expect("the reactor lives");
        }
    }
    told
}

/// TH01: a wake at every step of a turn, in each phase: `woken` is delivered once, at the latest in
/// the turn after it, and changes nothing else.
#[test]
fn a_wake_at_any_step_of_a_turn_is_told_once() {
    let undisturbed = conversation(usize::MAX);
    assert_eq!(undisturbed.iter().filter(|what| **what == "close").count(), 2);
    for step in 0..undisturbed.len() {
        let mut told = conversation(step);
        let place = told.iter().position(|what| *what == "woken").expect("never lost");
        assert!((step + 1..=step + 4).contains(&place), "{step}: {told:?}");
        told.remove(place);
        assert_eq!(told, undisturbed, "woken twice, or something else was changed: {step}");
    }
}

fn idle() -> (Network, Reactor<Host>) {
    let network = Network::new(7);
    let reactor = Reactor::with_net(network.host(HERE));
    (network, reactor)
}

/// TH02: a thousand wakes between two turns are one event; and endless wakes keep neither a socket
/// nor a timer waiting.
#[test]
fn wakes_are_merged_and_starve_nobody() {
    let (network, mut reactor) = idle();
    let remote = reactor.waker();
    (0..1000).for_each(|_| remote.wake().expect("the reactor lives"));
    assert!(matches!(reactor.next(), Ok(Some((_, Event::Woken)))));
    assert!(reactor.next_before(network.now() + ms(1000)).expect("it continues").is_none(), "delivered once");

    let (mut scene, peer) = Scene::served(ListenOptions::default());
    let remote = scene.reactor.waker();
    remote.wake().expect("the reactor lives");
    scene.reactor.set_timer(Duration::ZERO);
    peer.send(b"served");
    scene.network.advance(ms(10));
    let (mut woken, mut data, mut timer) = (0, false, false);
    while !(data && timer) {
        match scene.reactor.next().expect("it continues").expect("there is work").1 {
            Event::Woken => {
                woken += 1;
                remote.wake().expect("the reactor lives");
            }
            Event::Data(_) => data = true,
            Event::Timer(_) => timer = true,
            other => panic!("{other:?}"),
        }
        assert!(woken <= 3, "the others wait");
    }
}

/// TH02: a thousand commands from another thread, a wake for each: every command is carried out,
/// whichever wakes are merged.
#[test]
fn every_command_is_carried_out_whatever_wakes_are_merged() {
    let mut reactor = Reactor::new().expect("a machine with epoll");
    let (command, commands) = channel();
    let remote = reactor.waker();
    let commander = thread::spawn(move || {
        for number in 0..1000 {
            command.send(number).expect("the loop lives");
            remote.wake().expect("the reactor lives");
        }
    });
    let mut done = Vec::new();
    while let Some((_, event)) = reactor.next_before(std::time::Instant::now() + PATIENCE).expect("never fails") {
        assert_eq!(event, Event::Woken);
        done.extend(commands.try_iter());
    }
    commander.join().expect("no panic");
    assert!(done.iter().copied().eq(0..1000), "{} were carried out", done.len());
}

/// TH03: dropping the last waker lets `next` return `None`; a command to a reactor that is gone is
/// an error value; either may be dropped first.
#[test]
fn a_handle_and_its_reactor_may_go_in_any_order() {
    let (network, mut reactor) = idle();
    let (remote, second) = (reactor.waker(), reactor.waker());
    drop(remote);
    assert!(reactor.next_before(network.now() + ms(10)).expect("it continues").is_none());
    assert_eq!(second.wake(), Ok(()));
    assert!(matches!(reactor.next(), Ok(Some((_, Event::Woken)))));
    drop(second);
    assert!(reactor.next().expect("it continues").is_none(), "nothing is left");

    let (_network, reactor) = idle();
    let orphan = reactor.waker();
    drop(reactor);
    assert_eq!(orphan.wake(), Err(Error::ReactorGone));
    assert_eq!(orphan.clone().wake(), Err(Error::ReactorGone));
}

/// TH03: the reactor is dropped while another thread holds a waker and sleeps: its next wake is an
/// error value.
#[test]
fn a_thread_that_wakes_a_reactor_that_is_gone_is_told() {
    let reactor = Reactor::new().expect("a machine with epoll");
    let remote = reactor.waker();
    let (gone, is_gone) = channel::<()>();
    let thread = thread::spawn(move || {
        is_gone.recv_timeout(PATIENCE).expect_err("the sender is dropped");
        remote.wake()
    });
    drop(reactor);
    drop(gone);
    assert_eq!(thread.join().expect("no panic"), Err(Error::ReactorGone));
}
