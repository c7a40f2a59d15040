//! What the tests of `finale::check::Endings` have in common.

use std::net::SocketAddr;
use std::time::Duration;

use finale::check::{Case, Endings, Program, Rule};
use finale::sim::Script;
use finale::{Event, ListenOptions, Socket};

pub(crate) fn patient_listen() -> ListenOptions {
    ListenOptions::default().idle_timeout(Duration::from_secs(5))
}

pub(crate) fn hello() -> Script {
    Script::new().send(b"hello").receive(5).finish().receive_end()
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Echoes everything, until the peer ends.
pub(crate) fn echo(socket: &mut Socket<'_>, event: Event<'_>) {
    match event {
        Event::Data(bytes) => drop(socket.write(bytes)),
        Event::End => socket.end(),
        Event::Timeout => socket.destroy(),
        _ => {}
    }
}

/// Runs a program that keeps every rule. Returns the number of cases.
#[track_caller]
pub(crate) fn good<P: Program>(endings: &Endings, make: impl Fn() -> P) -> u64 {
    let report = endings.run(make);
    assert!(report.violation().is_none() && report.cases() > 1, "{report}");
    report.cases()
}

/// The case, the rule and what is wrong: of a program that is found, and found again by its seed.
#[track_caller]
pub(crate) fn broken<P: Program>(endings: &Endings, make: impl Fn() -> P) -> (Case, Rule, String) {
    let report = endings.run(&make);
    let (case, violation) = report.violation().unwrap_or_else(|| panic!("nothing was found: {report}"));
    let again = endings.replay(case.seed(), &make);
    assert_eq!(again.violation(), Some((case, violation)), "the seed finds it again");
    assert_eq!(again.transcript(), report.transcript(), "with the same transcript");
    (case, violation.rule, violation.what.clone())
}

/// Echoes pieces of five bytes, and collects them in one buffer for all connections.
pub(crate) fn one_buffer(clears_at_close: bool) -> impl FnMut(&mut Socket<'_>, Event<'_>) {
    let mut line = Vec::new();
    move |socket, event| match event {
        Event::Data(bytes) => {
            line.extend_from_slice(bytes);
            if line.len() >= 5 {
                let _ = socket.write(&line);
                line.clear();
            }
        }
        Event::End => socket.end(),
        Event::Timeout => socket.destroy(),
        Event::Close(_) if clears_at_close => line.clear(),
        _ => {}
    }
}
