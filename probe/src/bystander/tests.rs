//! A client that only connects is held by servers that wait for it, and others are harmed or not.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::Bystander;
use crate::baseline::Baseline;
use crate::engine::Real;
use crate::options::Options;
use crate::report::BystanderReport;
use crate::session::{Open, Session};

/// Answers a line, and reads until the client's FIN.
fn serve(mut client: TcpStream) {
    let mut byte = [0];
    while client.read(&mut byte).is_ok_and(|read| read > 0) {
        if byte[0] == b'\n' {
            let _ = client.write_all(b"hello\n");
            let _ = client.shutdown(Shutdown::Write);
        }
    }
}

/// What healthy clients see while one client is connected and silent for two seconds.
fn while_one_is_silent(run: fn(TcpListener)) -> BystanderReport {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    thread::spawn(move || run(listener));
    let mut options = Options::new("hello\n");
    options.timeout = Duration::from_secs(4);
    let mut session = Session::new(Box::new(Real::new().expect("a reactor")), addr, options);
    let baseline = Baseline::measure(&mut session).expect("it answers");
    session.baseline = Some(baseline);
    Bystander::begin(&mut session);
    session.open(&Open::default()).expect("it connects");
    session.wait(Duration::from_secs(3)).expect("the machine works");
    session.end_all().expect("the machine works");
    Bystander::end(&mut session).expect("the machine works")
}

fn inline(listener: TcpListener) {
    listener.incoming().flatten().for_each(serve);
}

fn handshakes_inline(listener: TcpListener) {
    for client in listener.incoming().flatten() {
        let _ = client.peek(&mut [0]);
        thread::spawn(move || serve(client));
    }
}

fn inline_with_a_deadline(listener: TcpListener) {
    for client in listener.incoming().flatten() {
        let _ = client.set_read_timeout(Some(Duration::from_millis(100)));
        serve(client);
    }
}

fn thread_for_each(listener: TcpListener) {
    for client in listener.incoming().flatten() {
        thread::spawn(move || serve(client));
    }
}

#[test]
fn a_silent_client_that_blocks_the_thread_that_accepts_harms_others() {
    for run in [inline, handshakes_inline] {
        let report = while_one_is_silent(run);
        assert!(report.late > 0 && report.is_harmed() && report.is_doubtful(), "{report:?}");
        assert!(report.recovered_ms.is_some(), "{report:?}");
    }
}

#[test]
fn a_silent_client_does_no_harm_where_it_has_a_deadline_or_a_thread() {
    for run in [inline_with_a_deadline, thread_for_each] {
        let report = while_one_is_silent(run);
        assert!(!report.is_harmed() && report.served > 5, "{report:?}");
    }
}

#[test]
fn a_server_that_has_ended_is_refused_and_not_late() {
    let report = while_one_is_silent(|listener| {
        for client in listener.incoming().flatten().take(3) {
            serve(client);
        }
    });
    assert!(report.failed > 0 && report.recovered_ms.is_none() && !report.is_doubtful(), "{report:?}");
    assert!(report.harm.as_deref().is_some_and(|harm| harm.contains("refused")), "{report:?}");
}
