//! What each request answers.

use serde_json::json;

use crate::harness::{Notes, note, request};

#[test]
fn a_note_is_created_read_changed_listed_and_deleted() {
    let notes = Notes::new("api_note");
    let mut client = notes.client();
    let created = client.note("POST", "/api/notes", "first");
    let id = created.id();
    assert_eq!((created.status, &created.headers["location"]), (201, &format!("/api/notes/{id}")));
    let path = format!("/api/notes/{id}");
    let read = client.get(&path);
    assert_eq!((read.status, read.json()), (200, created.json()));
    assert_eq!(client.note("PUT", &path, "second").json()["title"], "second");
    let list = client.get("/api/notes").json();
    assert_eq!((list["notes"][0]["title"].as_str(), &list["next"]), (Some("second"), &json!(null)));
    client.send(request("DELETE", &path, "", ""));
    let deleted = client.answer();
    assert_eq!((deleted.status, deleted.headers.get("content-length")), (204, None));
    assert_eq!(client.get(&path).status, 404);
    assert_eq!(client.get("/api/notes").json()["notes"], json!([]));
}

#[test]
fn an_attachment_comes_back_as_it_was_sent_and_never_as_a_page() {
    let notes = Notes::new("api_attachment");
    let mut client = notes.client();
    let path = format!("/api/notes/{}/attachment", client.note("POST", "/api/notes", "with a file").id());
    assert_eq!(client.get(&path).status, 404);
    let bytes: String = (0..1_000_000).map(|place| char::from(b'a' + (place % 26) as u8)).collect();
    client.send(request("PUT", &path, "Content-Type: text/html\r\n", &bytes));
    assert_eq!(client.answer().status, 204);
    let answer = client.get(&path);
    assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, "text/html"));
    assert_eq!(answer.headers["content-disposition"], "attachment");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert!(answer.headers["content-security-policy"].contains("sandbox"));
    assert!(answer.body == bytes.as_bytes(), "{} bytes", answer.body.len());
    // In chunks, and shorter than before.
    client.send(request("PUT", &path, "Transfer-Encoding: chunked\r\n", ""));
    client.send("5\r\nhello\r\n1;a=b\r\n!\r\n0\r\n\r\n");
    assert_eq!(client.answer().status, 204);
    assert_eq!(client.get(&path).text(), "hello!");
    client.send(request("PUT", "/api/notes/999/attachment", "", "x"));
    assert_eq!(client.answer().status, 404);
}

#[test]
fn requests_in_a_row_are_answered_in_their_order_and_the_list_comes_in_pages() {
    let notes = Notes::new("api_pipeline");
    let mut client = notes.client();
    let all: String = (1..=150).map(|number| note("POST", "/api/notes", &format!("note {number}"))).collect();
    client.send(all + &request("GET", "/health", "", ""));
    for number in 1..=150 {
        let created = client.answer();
        assert_eq!((created.status, &created.json()["title"]), (201, &json!(format!("note {number}"))));
    }
    assert_eq!(client.answer().json()["status"], "ok");

    let (mut path, mut titles) = ("/api/notes".to_owned(), Vec::new());
    loop {
        let page = client.get(&path).json();
        titles.extend(page["notes"].as_array().expect("a list").iter().map(|note| note["title"].clone()));
        let Some(next) = page["next"].as_i64() else { break };
        path = format!("/api/notes?before={next}");
    }
    assert_eq!(titles, (1..=150).rev().map(|number| json!(format!("note {number}"))).collect::<Vec<_>>());
}

#[test]
fn every_error_is_json_with_its_status_and_the_connection_continues() {
    let notes = Notes::new("api_errors");
    let mut client = notes.client();
    let id = client.note("POST", "/api/notes", "a").id();
    let path = &format!("/api/notes/{id}");
    let json_type = "Content-Type: application/json\r\n";
    let long = json!({ "title": "x".repeat(201) }).to_string();
    for (method, path, headers, body, status) in [
        ("GET", "/nothing", "", "", 404),
        ("GET", "/api/notes/x", "", "", 404),
        ("GET", "/api/notes/01", "", "", 404),
        ("GET", "/api/notes/99999999999999999999", "", "", 404),
        ("DELETE", "/api/notes/7777", "", "", 404),
        ("DELETE", "/api/notes", "", "", 405),
        ("POST", path, "", "", 405),
        ("PATCH", path, "", "", 405),
        ("HEAD", "/events", "", "", 405),
        ("GET", "/api/notes?before=x", "", "", 400),
        ("GET", "/events", "Last-Event-ID: x\r\n", "", 400),
        ("POST", "/api/notes", json_type, "{", 400),
        ("POST", "/api/notes", json_type, "{\"title\":1}", 400),
        ("POST", "/api/notes", json_type, "{\"title\":\"a\",\"x\":1}", 400),
        ("POST", "/api/notes", json_type, "{\"title\":\" \"}", 422),
        ("POST", "/api/notes", json_type, &long, 422),
    ] {
        client.send(request(method, path, headers, body));
        let answer = if method == "HEAD" { client.head().expect("an answer") } else { client.answer() };
        assert_eq!(answer.status, status, "{method} {path} {body}");
        assert!(method == "HEAD" || answer.json()["error"].is_string(), "{answer:?}");
        assert_eq!(answer.headers.contains_key("allow"), status == 405, "{answer:?}");
        assert_eq!(answer.headers.get("connection"), None, "{method} {path} {body}");
    }
    assert_eq!(client.get("/health").status, 200);
}

/// A form of another page can send these kinds without asking first.
#[test]
fn a_note_from_a_form_of_another_page_is_refused() {
    let notes = Notes::new("api_forms");
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let mut client = notes.client();
        client.send(request("POST", "/api/notes", &format!("Content-Type: {kind}\r\n"), "{\"title\":\"a\"}"));
        assert_eq!(client.answer().status, 415, "{kind}");
    }
    assert_eq!(notes.client().get("/api/notes").json()["notes"], json!([]));
}

#[test]
fn the_page_is_its_own_three_files_and_allows_no_others() {
    let notes = Notes::new("api_page");
    let mut client = notes.client();
    for (path, kind) in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")] {
        let answer = client.get(path);
        assert_eq!(answer.status, 200);
        assert!(answer.headers["content-type"].starts_with(kind), "{path}");
        assert!(answer.headers["content-security-policy"].starts_with("default-src 'none'; script-src 'self';"));
        let text = answer.text();
        assert!(!text.contains("http://") && !text.contains("https://") && !text.contains(" style="), "{path}");
        client.send(request("HEAD", path, "", ""));
        let head = client.head().expect("a head");
        assert_eq!(head.headers["content-length"], answer.headers["content-length"], "{path}");
    }
    // HTTP/1.0 ends without being asked to.
    client.send("GET /health HTTP/1.0\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.headers["connection"].as_str()), (200, "close"));
    assert_eq!(client.rest(), b"");
}

#[test]
fn the_metrics_count_what_has_happened() {
    let notes = Notes::new("api_metrics");
    let mut client = notes.client();
    client.note("POST", "/api/notes", "a");
    client.get("/nothing");
    assert!((notes.metric("notes_answers_total{status=\"201\"}") - 1.0).abs() < 0.1);
    assert!((notes.metric("notes_answers_total{status=\"404\"}") - 1.0).abs() < 0.1);
    assert!(notes.metric("notes_database_seconds_count") >= 1.0);
    assert!(notes.metric("notes_connections{state=\"Open\"}") >= 2.0);
    let page = notes.client().get("/metrics").text();
    for line in page.lines() {
        let has_value = line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok());
        assert!(line.starts_with("# HELP ") || line.starts_with("# TYPE ") || has_value, "{line}");
    }
}
