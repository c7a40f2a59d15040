//! A restart and a stop under load.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;

use crate::harness::{Address, Client, Notes, folder, note};

/// Clients under load, half of which keep their connections.
const CLIENTS: usize = 6;

/// Requests until `is_over`, each of which must be answered well.
fn load(at: &Address, keeps: bool, answered: &AtomicUsize, is_over: &AtomicBool) {
    let mut kept: Option<Client> = None;
    while !is_over.load(Ordering::Relaxed) {
        let mut client = kept.take().unwrap_or_else(|| Client::connect(at));
        let number = answered.fetch_add(1, Ordering::Relaxed);
        let answer = if number.is_multiple_of(3) {
            client.note("POST", "/api/notes", &format!("note {number}"))
        } else {
            client.get("/api/notes")
        };
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        let ends = answer.headers.get("connection").is_some_and(|value| value == "close");
        kept = (keeps && !ends).then_some(client);
    }
}

#[test]
fn a_restart_under_load_loses_no_request() {
    let mut notes = Notes::start(&folder("restart_load"), &[]);
    let (answered, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let at = notes.at.clone();
    let mut replaced = Vec::new();
    std::thread::scope(|scope| {
        let shared = (&answered, &is_over);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| (number % 2 == 0, &at))
            .map(|(keeps, at)| scope.spawn(move || load(at, keeps, shared.0, shared.1)))
            .collect();
        for _ in 0..3 {
            let before = answered.load(Ordering::Relaxed);
            replaced.push(notes.restart());
            // The new process answers, too.
            while answered.load(Ordering::Relaxed) < before + 200 && clients.iter().all(|it| !it.is_finished()) {
                std::thread::yield_now();
            }
        }
        is_over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("each request is answered");
        }
    });
    assert!(notes.wait().success(), "the first process has finished its connections");
    assert_eq!(replaced.len(), 3);
    assert!(notes.client().get("/health").status == 200, "the last one serves");
}

#[test]
fn requests_that_are_incomplete_or_wait_at_a_restart_get_their_answers_and_the_last_word() {
    let folder = folder("restart_incomplete");
    let mut notes = Notes::start(&folder, &[]);
    let text = note("POST", "/api/notes", "in two parts");
    let mut cut = notes.client();
    cut.send(&text[..text.len() / 2]);
    let lock = rusqlite::Connection::open(folder.join("notes.db")).expect("it exists");
    lock.execute_batch("BEGIN IMMEDIATE").expect("no process writes");
    let mut waiting = notes.client();
    waiting.send(&text);
    while notes.metric("notes_database_pending") < 1.0 {}
    lock.execute_batch("ROLLBACK").expect("it is ours");
    notes.restart();
    cut.send(&text[text.len() / 2..]);
    let answer = cut.answer();
    assert_eq!((answer.status, answer.headers["connection"].as_str()), (201, "close"), "by the old process");
    assert_eq!(cut.rest(), b"");
    drop(cut);
    assert_eq!(waiting.answer().status, 201);
    assert_eq!(notes.client().get("/api/notes").json()["notes"].as_array().map(Vec::len), Some(2));
    drop(waiting);
    assert!(notes.wait().success());
}

#[test]
fn a_request_that_waits_for_the_database_at_a_stop_gets_its_answer() {
    let folder = folder("restart_stop");
    let mut notes = Notes::start(&folder, &[]);
    let lock = rusqlite::Connection::open(folder.join("notes.db")).expect("it exists");
    lock.execute_batch("BEGIN IMMEDIATE").expect("no process writes");
    let mut waiting = notes.client();
    waiting.send(note("POST", "/api/notes", "it waits"));
    while notes.metric("notes_database_pending") < 1.0 {}
    notes.signal(Signal::TERM);
    notes.wait_for_line("stopping");
    lock.execute_batch("ROLLBACK").expect("it is ours");
    let answer = waiting.answer();
    assert_eq!((answer.status, answer.headers["connection"].as_str()), (201, "close"));
    assert_eq!(waiting.rest(), b"");
    drop(waiting);
    assert!(notes.wait().success());
}

#[test]
fn if_the_next_process_fails_this_one_continues_and_can_be_restarted_later() {
    let folder = folder("restart_failure");
    let mut notes = Notes::start(&folder, &[]);
    let other = rusqlite::Connection::open(folder.join("notes.db")).expect("it exists");
    other.execute_batch("PRAGMA user_version = 99").expect("no process writes");
    notes.signal(Signal::USR2);
    let line = notes.wait_for_line("not restarted");
    assert!(line.contains("ended before it was ready"), "{line}");
    assert_eq!(notes.client().note("POST", "/api/notes", "it serves").status, 201);
    other.execute_batch("PRAGMA user_version = 1").expect("no process writes");
    notes.restart();
    assert!(notes.wait().success());
    assert_eq!(notes.client().note("POST", "/api/notes", "the next one serves").status, 201);
}

#[test]
fn a_service_that_stops_refuses_new_clients_while_the_last_request_is_under_way() {
    let mut notes = Notes::start(&folder("restart_refused"), &[]);
    let text = note("POST", "/api/notes", "the last one");
    let mut last = notes.client();
    last.send(&text[..text.len() / 2]);
    notes.signal(Signal::TERM);
    notes.wait_for_line("stopping");
    // The listener closes in the next turn of the reactor.
    let is_refused = (0..1000).any(|_| Client::try_connect(&notes.at).is_err());
    assert!(is_refused, "no client waits for a process that does not accept");
    last.send(&text[text.len() / 2..]);
    assert_eq!(last.answer().status, 201);
    drop(last);
    assert!(notes.wait().success());
}

#[test]
fn an_idle_connection_is_ended_by_a_stop_and_a_second_signal_ends_all() {
    let mut notes = Notes::start(&folder("restart_idle"), &[]);
    let mut idle = notes.client();
    assert_eq!(idle.get("/health").status, 200);
    notes.signal(Signal::TERM);
    assert_eq!(idle.rest(), b"");
    drop(idle);
    assert!(notes.wait().success());

    let mut notes = Notes::start(&folder("restart_twice"), &[]);
    let mut client = notes.client();
    client.send(&note("POST", "/api/notes", "never complete")[..40]);
    notes.signal(Signal::TERM);
    notes.wait_for_line("stopping");
    notes.signal(Signal::TERM);
    assert!(notes.wait().success());
    assert!(client.try_answer().is_err(), "it was reset");
}
