//! Server-sent events.

use std::io::BufRead as _;

use crate::harness::{Client, Notes, folder, request};

/// A client that follows the events.
struct Follower {
    client: Client,
}

impl Follower {
    /// Connects, and reads to its first number.
    fn start(notes: &Notes, last: Option<&str>) -> (Self, Vec<String>) {
        let mut client = notes.client();
        let header = last.map_or(String::new(), |last| format!("Last-Event-ID: {last}\r\n"));
        client.send(request("GET", "/events", &header, ""));
        let head = client.head().expect("an answer");
        assert_eq!((head.status, head.headers["content-type"].as_str()), (200, "text/event-stream"));
        let mut follower = Self { client };
        let mut missed = Vec::new();
        loop {
            let event = follower.next().expect("an event");
            if event.contains("event: hello") {
                missed.push(event);
                return (follower, missed);
            }
            missed.push(event);
        }
    }

    /// The next event, on one line. `None` at the end, which is a whole body and a FIN.
    fn next(&mut self) -> Option<String> {
        let mut event = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.client.stream.read_line(&mut line).expect("no reset") > 0, "the body has an end");
            let line = line.trim_end();
            let is_size = !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_hexdigit());
            match line {
                "0" => {
                    assert_eq!(self.client.rest(), b"\r\n");
                    return None;
                }
                _ if is_size || line.starts_with(':') => {}
                "" if event.is_empty() => {}
                "" => return Some(event.join(", ")),
                line => event.push(line.to_owned()),
            }
        }
    }
}

#[test]
fn a_follower_gets_each_change_once_also_those_that_it_was_away_for() {
    let notes = Notes::new("events_follow");
    let (mut follower, first) = Follower::start(&notes, None);
    assert_eq!(first, ["id: 0, event: hello, data: {}"]);
    let mut client = notes.client();
    let id = client.note("POST", "/api/notes", "a").id();
    let path = format!("/api/notes/{id}");
    client.note("PUT", &path, "b");
    let event = |number: u32, kind: &str| format!("id: {number}, event: {kind}, data: {{\"note\":{id}}}");
    assert_eq!(follower.next(), Some(event(1, "created")));
    assert_eq!(follower.next(), Some(event(2, "changed")));
    drop(follower);

    client.send(request("PUT", &format!("{path}/attachment"), "", "hello"));
    assert_eq!(client.answer().status, 204);
    let (mut follower, missed) = Follower::start(&notes, Some("1"));
    assert_eq!(missed, [event(2, "changed"), event(3, "changed"), "id: 3, event: hello, data: {}".to_owned()]);
    client.send(request("DELETE", &path, "", ""));
    assert_eq!(client.answer().status, 204);
    assert_eq!(follower.next(), Some(event(4, "deleted")));
}

#[test]
fn a_follower_with_a_number_that_is_not_remembered_has_to_load_everything_again() {
    let notes = Notes::new("events_reset");
    let (_, missed) = Follower::start(&notes, Some("7"));
    assert_eq!(missed, ["event: reset, data: {}", "id: 0, event: hello, data: {}"]);
    let mut client = notes.client();
    let id = client.note("POST", "/api/notes", "a").id();
    let changes: String = (0..1001).map(|_| crate::harness::note("PUT", &format!("/api/notes/{id}"), "b")).collect();
    client.send(changes);
    for _ in 0..1001 {
        assert_eq!(client.answer().status, 200);
    }
    let (_, missed) = Follower::start(&notes, Some("1"));
    assert_eq!(missed, ["event: reset, data: {}", "id: 1002, event: hello, data: {}"]);
    let (_, missed) = Follower::start(&notes, Some("2"));
    assert_eq!(missed.len(), 1001, "1000 changes are remembered");
}

#[test]
fn a_change_by_another_process_reaches_the_followers_and_a_stop_ends_them_with_a_last_event() {
    let folder = folder("events_processes");
    let mut notes = Notes::start(&folder, &[]);
    let other = Notes::start(&folder, &[]);
    let (mut follower, _) = Follower::start(&notes, None);
    let id = other.client().note("POST", "/api/notes", "from elsewhere").id();
    assert_eq!(follower.next(), Some(format!("id: 1, event: created, data: {{\"note\":{id}}}")));
    notes.signal(rustix::process::Signal::TERM);
    assert_eq!(follower.next(), Some("event: bye, retry: 1000, data: {}".to_owned()));
    assert_eq!(follower.next(), None);
    drop(follower);
    assert!(notes.wait().success());
}
