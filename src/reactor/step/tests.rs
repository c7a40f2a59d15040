use std::cell::RefCell;

use rustix::io::Errno;

use super::*;
use crate::error::LookupErrorKind;
use crate::event::Event;
use crate::options::ListenOptions;
use crate::sim::Network;

#[test]
fn a_call_is_made_again_if_it_was_interrupted_and_its_error_says_what_becomes_of_it() {
    let outcome = |errno: Errno| {
        let mut calls = 0;
        let outcome = call(|| {
            calls += 1;
            if calls == 1 { Err(Errno::INTR) } else { Err::<(), _>(errno) }.map_err(io::Error::from)
        });
        assert_eq!(calls, 2, "{errno:?}");
        outcome
    };
    assert!(matches!(outcome(Errno::AGAIN), Outcome::WouldBlock));
    for errno in [Errno::NOBUFS, Errno::NOMEM, Errno::NOSPC] {
        assert!(matches!(outcome(errno), Outcome::Retry), "{errno:?} passes");
    }
    for errno in [Errno::CONNRESET, Errno::PIPE, Errno::TIMEDOUT, Errno::MFILE] {
        assert!(matches!(outcome(errno), Outcome::Failed(error) if Errno::from_io_error(&error) == Some(errno)));
    }
    assert!(matches!(call(|| Ok(7)), Outcome::Done(7)));
}

#[test]
fn a_failure_is_a_reset_a_timer_that_ran_out_or_what_it_is_in_its_state() {
    for (state, otherwise) in [(State::Open, Input::Reset), (State::Connecting, Input::ConnectFailed)] {
        assert_eq!(input_for(ConnectionErrorKind::Reset, state), Input::Reset);
        assert_eq!(input_for(ConnectionErrorKind::TimedOut(TimeoutKind::Connect), state), Input::Expired);
        for cause in [
            ConnectionErrorKind::Refused,
            ConnectionErrorKind::Unreachable,
            ConnectionErrorKind::Aborted,
            ConnectionErrorKind::System,
        ] {
            assert_eq!(input_for(cause, state), otherwise, "{cause:?}");
        }
    }
    assert_eq!(
        input_for(ConnectionErrorKind::Lookup(LookupErrorKind::NotFound), State::Resolving),
        Input::LookupFailed
    );
}

#[test]
fn a_reset_that_is_found_instead_of_an_end_at_a_limit_is_the_cause() {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let listener = reactor.listen("10.0.0.1:80", ListenOptions::default()).expect("the port is free");
    let peer = network.peer([10, 0, 0, 2].into()).connect(listener.addr).expect("there is a route");
    let (mut socket, _) = reactor.next().expect("the net waits").expect("a connection");
    let slot = socket.id().index();
    socket.end();
    let until = network.now() + Duration::from_millis(10);
    while reactor.next_before(until).expect("the net waits").is_some() {}
    peer.reset();
    network.advance(Duration::from_millis(10));
    // One poll has reported a FIN, and the reset has come after it.
    reactor.table.wake_with(slot, Flags::READABLE | Flags::READ_CLOSED);
    assert!(reactor.at(slot).ends_by_itself());
    let (_, event) = reactor.next().expect("the net waits").expect("an error");
    assert!(matches!(event, Event::Error(error) if error.kind == ConnectionErrorKind::Reset), "{event:?}");
}

thread_local! {
    /// The log lines of this thread, if it records them.
    static LOG: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// A logger that records the lines of the threads that want them.
struct Listening;

impl log::Log for Listening {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        LOG.with_borrow(Option::is_some)
    }

    fn log(&self, record: &log::Record<'_>) {
        LOG.with_borrow_mut(|lines| lines.as_mut().map(|lines| lines.push(record.args().to_string())));
    }

    fn flush(&self) {}
}

#[test]
fn each_transition_is_a_line_in_the_log_with_the_events_that_it_emits() {
    log::set_logger(&Listening).expect("no other test sets one");
    log::set_max_level(log::LevelFilter::Debug);
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let listener = reactor.listen("10.0.0.1:80", ListenOptions::default()).expect("the port is free");
    let peer = network.peer([10, 0, 0, 2].into()).connect(listener.addr).expect("there is a route");
    let name = format!("socket 0.1 server {}", peer.local_addr().expect("it is bound"));
    peer.finish();
    LOG.set(Some(Vec::new()));
    while let Some((mut socket, event)) = reactor.next().expect("the net waits") {
        if event == Event::End {
            socket.end();
        } else if let Event::Close(_) = event {
            reactor.close_listener(listener.id).expect("it is open");
        }
    }
    let expected = [
        (3, "Created -- Accepted -> Open [connection]"),
        (3, "Open -- Fin -> PeerFinished [end]"),
        (3, "PeerFinished -- EndCalled -> LastFlush []"),
        (3, "LastFlush -- FinSent -> Closing []"),
        (5, "Closing -- Acknowledged -> Confirmed []"),
        (5, "Confirmed -- CloseDue -> Closed [close]"),
    ];
    // The handshake takes three packets of 1 ms each; an acknowledgement comes after two.
    let expected = expected.map(|(ms, line)| format!("{ms}.000 ms {name}: {line} 0 read, 0 written"));
    assert_eq!(LOG.take().unwrap_or_default(), expected);
}
