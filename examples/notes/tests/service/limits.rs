//! What is refused, and that its answer arrives.

use serde_json::json;

use crate::harness::{Client, Notes, folder, note, request};

/// A head with a body that is too long, and what the client sends of it.
fn upload(client: &mut Client, headers: &str, body: usize) {
    let length = "Content-Length: 100000000\r\n";
    client.send(format!("PUT /api/notes/1/attachment HTTP/1.1\r\nHost: x\r\n{length}{headers}\r\n"));
    client.send(vec![b'x'; body]);
}

#[test]
fn a_body_that_is_too_long_is_refused_at_its_head_and_the_answer_arrives() {
    let notes = Notes::new("limits_upload");
    for body in [0, 1, 100_000, 10_000_000] {
        let mut client = notes.client();
        upload(&mut client, "", body);
        let answer = client.answer();
        assert_eq!((answer.status, answer.headers["connection"].as_str()), (413, "close"));
        assert!(answer.json()["error"].as_str().expect("words").contains("1048576"), "{answer:?}");
        assert_eq!(client.rest(), b"");
        // It is still read and dropped, so that nothing resets the answer.
        client.send(vec![b'x'; 100_000]);
        client.finish();
    }
    let mut client = notes.client();
    upload(&mut client, "Expect: 100-continue\r\n", 0);
    assert_eq!(client.answer().status, 413, "and not 100");
    // In chunks the length is known late.
    let mut client = notes.client();
    client.send(request("PUT", "/api/notes/1/attachment", "Transfer-Encoding: chunked\r\n", ""));
    client.send("fffff\r\n");
    client.send(vec![b'x'; 0xfffff]);
    client.send("\r\n2\r\n");
    assert_eq!(client.answer().status, 413);
    assert_eq!(client.rest(), b"");
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it_and_then_its_answer() {
    let notes = Notes::new("limits_continue");
    let mut client = notes.client();
    client.send("POST /api/notes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n");
    client.send("Content-Length: 13\r\n\r\n");
    assert_eq!(client.head().expect("an answer").status, 100);
    client.send("{\"title\":\"a\"}");
    assert_eq!(client.answer().status, 201);
}

/// A second request is hidden in a body, for a proxy in front that finds another end of it.
#[test]
fn a_request_that_two_servers_could_read_differently_is_refused_and_nothing_of_it_is_done() {
    let notes = Notes::new("limits_smuggling");
    let hidden = note("POST", "/api/notes", "hidden");
    let length = hidden.len();
    let mut tried = Vec::new();
    for headers in [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}"),
        format!("Content-Length: {length}\r\nContent-Length: 0"),
        format!("Content-Length: 0\r\nContent-Length: {length}"),
        "Content-Length: 0, 0".to_owned(),
        "Content-Length: +0".to_owned(),
        "Transfer-Encoding: xchunked".to_owned(),
        "Transfer-Encoding: chunked, identity".to_owned(),
        "Transfer-Encoding : chunked".to_owned(),
        "Transfer-Encoding:\r\n chunked".to_owned(),
        "X: y\nTransfer-Encoding: chunked".to_owned(),
        "Host: y".to_owned(),
    ] {
        let mut client = notes.client();
        client.send(format!("POST /health HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n0\r\n\r\n{hidden}"));
        let answer = client.answer();
        assert!([400, 501].contains(&answer.status), "{headers}: {answer:?}");
        assert_eq!(client.rest(), b"", "{headers}");
        tried.push(answer.status);
    }
    assert_eq!(tried.len(), 12);
    assert_eq!(notes.client().get("/api/notes").json()["notes"], json!([]));
}

#[test]
fn what_the_database_can_not_queue_gets_503_and_the_rest_its_answer() {
    let folder = folder("limits_database");
    let notes = Notes::start(&folder, &["--max-pending", "2"]);
    let lock = rusqlite::Connection::open(folder.join("notes.db")).expect("it exists");
    lock.execute_batch("BEGIN IMMEDIATE").expect("no process writes");

    let mut waiting: Vec<Client> = (0..2).map(|_| notes.client()).collect();
    for client in &mut waiting {
        client.send(note("POST", "/api/notes", "it waits"));
    }
    while notes.metric("notes_database_pending") < 2.0 {}
    let mut refused = notes.client();
    let answer = refused.note("POST", "/api/notes", "no room");
    assert_eq!((answer.status, answer.headers["retry-after"].as_str()), (503, "1"));
    assert_eq!(refused.get("/health").status, 200, "what needs no database is answered");

    lock.execute_batch("ROLLBACK").expect("it is ours");
    for client in &mut waiting {
        assert_eq!(client.answer().status, 201);
    }
    assert_eq!(refused.note("POST", "/api/notes", "again").status, 201);
}

#[test]
fn a_client_that_pipelines_without_reading_is_not_read_either_and_gets_every_answer() {
    let notes = Notes::new("limits_pipeline");
    let mut client = notes.client();
    let path = format!("/api/notes/{}/attachment", client.note("POST", "/api/notes", "big").id());
    client.send(request("PUT", &path, "", &"x".repeat(1_000_000)));
    assert_eq!(client.answer().status, 204);
    // 200 MB of answers; the requests fit into the kernel.
    client.send(request("GET", &path, "", "").repeat(200));
    client.finish();
    // The kernel can take almost all of an answer and leave a few bytes, so any number will do.
    while notes.metric("notes_queued_bytes") == 0.0 {}
    assert!(notes.metric("notes_queued_bytes") < 2_000_000.0, "one answer at a time");
    for _ in 0..200 {
        let answer = client.answer();
        assert_eq!((answer.status, answer.body.len()), (200, 1_000_000));
    }
    assert_eq!(client.rest(), b"");
}

#[test]
fn a_client_that_leaves_in_the_middle_of_anything_harms_nothing() {
    let notes = Notes::new("limits_leaving");
    let text = note("POST", "/api/notes", "it leaves");
    for cut in 0..text.len() {
        let mut client = notes.client();
        client.send(&text[..cut]);
        client.finish();
        assert_eq!(client.rest(), b"", "no request, no answer");
    }
    // Some are gone before their answer is.
    for _ in 0..50 {
        let mut client = notes.client();
        client.send(&text);
    }
    while notes.metric("notes_requests_in_flight") > 1.0 {}
    let list = notes.client().get("/api/notes").json();
    assert!(list["notes"].as_array().expect("a list").len() <= 50);
}
