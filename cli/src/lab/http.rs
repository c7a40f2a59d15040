//! The HTTP server of the lab: one request per connection.
//!
//! Invariant: a request is refused before it does anything if a page of another origin can have sent
//! it: by its `Host`, its `Origin`, or what the browser says of its site.

use std::net::SocketAddr;

use finale::{Event, Socket, SocketMap};
use finale_http::{Head, Limits, Parser, Part};

use super::SILENCE;
use super::routes::{Reply, Routes};
use super::workers::Answered;

/// A longer head is refused. A link with a script has some hundred bytes, and at most 16 KiB.
const MOST_HEAD: usize = 24 * 1024;

/// The page has its own three files, and no others.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What is sent back.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn ok(kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, kind, body: body.into() }
    }

    /// A failure, in words.
    pub(super) fn failed(status: u16, why: impl Into<String>) -> Self {
        let body = serde_json::json!({ "error": why.into() }).to_string().into_bytes();
        Self { status, kind: "application/json", body }
    }

    pub(super) fn json(value: &impl serde::Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::ok("application/json", body),
            Err(error) => Self::failed(500, error.to_string()),
        }
    }
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) is_post: bool,
    pub(super) path: String,
    pub(super) query: String,
}

#[derive(Debug)]
struct Connection {
    parser: Parser,
    /// The request is complete: what else arrives is dropped.
    is_asked: bool,
    /// HEAD: the answer has no body.
    is_head: bool,
}

impl Default for Connection {
    fn default() -> Self {
        let parser = Parser::new(Limits { head_bytes: MOST_HEAD, ..Limits::default() });
        Self { parser, is_asked: false, is_head: false }
    }
}

pub(super) struct Server {
    /// The values of `Host` that name us.
    names: Vec<String>,
    routes: Routes,
    connections: SocketMap<Connection>,
}

impl Server {
    pub(super) fn new(addr: SocketAddr, routes: Routes) -> Self {
        let port = addr.port();
        let mut names: Vec<_> = ["127.0.0.1", "localhost", "[::1]"].map(|name| format!("{name}:{port}")).into();
        names.push(addr.to_string());
        // Browsers leave out the port of http.
        let bare = names.iter().filter_map(|name| name.strip_suffix(":80").map(str::to_owned)).collect::<Vec<_>>();
        names.extend(bare);
        Self { names, routes, connections: SocketMap::new() }
    }

    pub(super) fn stop(&mut self) {
        self.routes.stop();
    }

    /// The next answer that took time.
    pub(super) fn take_answer(&mut self) -> Option<Answered> {
        self.routes.take_answer()
    }

    /// One event of a connection.
    pub(super) fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        let connection = match event {
            Event::Data(_) | Event::End | Event::Timeout => self.connections.or_default(socket.id()),
            Event::Close(_) => return drop(self.connections.remove(socket.id())),
            _ => return,
        };
        match event {
            Event::Data(bytes) if !connection.is_asked => {
                connection.parser.push(bytes);
                match self.request(socket) {
                    Ok(None) => {}
                    Ok(Some(request)) => match self.routes.reply(socket.id(), &request) {
                        Reply::Now(answer) => self.answer(socket, &answer),
                        // It is the lab that is silent now.
                        Reply::Later => socket.set_idle_timeout(None),
                    },
                    Err(answer) => self.answer(socket, &answer),
                }
            }
            // It has left before it has asked.
            Event::End if !connection.is_asked => socket.end(),
            Event::Timeout => socket.destroy(),
            _ => {}
        }
    }

    /// The request, if it is complete and its sender is one of our pages. A body is never read.
    fn request(&mut self, socket: &Socket<'_>) -> Result<Option<Request>, Answer> {
        let connection = self.connections.or_default(socket.id());
        let head = match connection.parser.next() {
            Ok(Some(Part::Head(head))) => head,
            Ok(_) => return Ok(None),
            Err(error) => return Err(Answer::failed(error.status(), error.to_string())),
        };
        *connection = Connection { is_asked: true, is_head: head.method() == "HEAD", ..Connection::default() };
        check(&head, &self.names).map(Some)
    }

    /// Sends the answer, ends, and drops what still arrives, so that our close does not reset it.
    pub(super) fn answer(&mut self, socket: &mut Socket<'_>, answer: &Answer) {
        let connection = self.connections.or_default(socket.id());
        connection.is_asked = true;
        let mut head = finale_http::Answer::new(answer.status);
        // An answer with this status has neither.
        if answer.status != 204 {
            head = head.header("Content-Type", answer.kind).length(answer.body.len() as u64);
        }
        let head = head
            .close()
            .header("Cache-Control", "no-store")
            .header("Content-Security-Policy", POLICY)
            .header("X-Content-Type-Options", "nosniff")
            .header("Cross-Origin-Resource-Policy", "same-origin")
            .header("Referrer-Policy", "no-referrer")
            .into_bytes();
        let body: &[u8] = if connection.is_head { &[] } else { &answer.body };
        socket.set_idle_timeout(Some(SILENCE));
        // A client that has left is no failure of ours.
        let _ = socket.write_parts(&[&head, body]);
        socket.end();
        socket.discard();
    }
}

/// The request, unless a page of another origin can have sent it.
fn check(head: &Head, names: &[String]) -> Result<Request, Answer> {
    if !matches!(head.method(), "GET" | "HEAD" | "POST") {
        return Err(Answer::failed(405, "only GET, HEAD and POST"));
    }
    let all = |name: &str| head.values(name).map(|value| std::str::from_utf8(value).unwrap_or("?")).collect::<Vec<_>>();
    let is_ours = |host: &str| names.iter().any(|name| name.eq_ignore_ascii_case(host));
    match &all("host")[..] {
        [host] if is_ours(host) => {}
        [_] => return Err(Answer::failed(421, "this Host is not the lab's")),
        _ => return Err(Answer::failed(400, "a request has one Host")),
    }
    let origin = all("origin");
    if !origin.iter().all(|origin| origin.strip_prefix("http://").is_some_and(is_ours)) {
        return Err(Answer::failed(403, "this page is not the lab's"));
    }
    let (path, query) = (head.path().to_owned(), head.query().to_owned());
    if path.starts_with("/api/") && all("sec-fetch-site").iter().any(|site| !matches!(*site, "same-origin" | "none")) {
        return Err(Answer::failed(403, "this page is not the lab's"));
    }
    let is_post = head.method() == "POST";
    if is_post && (origin.is_empty() || !head.length().is_empty()) {
        return Err(Answer::failed(403, "a POST has an Origin and no body"));
    }
    Ok(Request { is_post, path, query })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<Request, u16> {
        let mut parser = Parser::default();
        parser.push(text.as_bytes());
        let head = match parser.next() {
            Ok(Some(Part::Head(head))) => head,
            Ok(other) => panic!("{other:?}"),
            Err(error) => return Err(error.status()),
        };
        check(&head, &["127.0.0.1:7007".to_owned(), "localhost:7007".to_owned()]).map_err(|answer| answer.status)
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let ours = "GET /api/run?script=x HTTP/1.1\r\nHost: localhost:7007\r\n";
        let asked = Request { is_post: false, path: "/api/run".to_owned(), query: "script=x".to_owned() };
        assert_eq!(checked(&format!("{ours}\r\n")), Ok(asked.clone()));
        assert_eq!(checked(&format!("{ours}Origin: http://127.0.0.1:7007\r\n\r\n")), Ok(asked.clone()));
        assert_eq!(checked(&format!("{ours}Sec-Fetch-Site: same-origin\r\n\r\n")), Ok(asked));
        for header in ["Origin: http://evil.example", "Origin: null", "Origin: https://localhost:7007"] {
            assert_eq!(checked(&format!("{ours}{header}\r\n\r\n")), Err(403), "{header}");
        }
        assert_eq!(checked(&format!("{ours}Sec-Fetch-Site: cross-site\r\n\r\n")), Err(403));
        let link = "GET / HTTP/1.1\r\nHost: localhost:7007\r\nSec-Fetch-Site: cross-site\r\n\r\n";
        assert!(checked(link).is_ok(), "a link from elsewhere opens the page");
    }

    #[test]
    fn a_name_that_points_here_is_not_enough() {
        for host in ["evil.example:7007", "127.0.0.1:80", "localhost", "127.0.0.1.evil.example:7007"] {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(checked(&text), Err(421), "{host}");
        }
        assert_eq!(checked("GET / HTTP/1.1\r\n\r\n"), Err(400));
        assert_eq!(checked("GET / HTTP/1.1\r\nHost: 127.0.0.1:7007.evil.example\r\n\r\n"), Err(400));
        let two = "GET / HTTP/1.1\r\nHost: localhost:7007\r\nHost: localhost:7007\r\n\r\n";
        assert_eq!(checked(two), Err(400));
    }

    #[test]
    fn a_post_has_an_origin_and_no_body() {
        let post = "POST /api/load HTTP/1.1\r\nHost: localhost:7007\r\n";
        assert_eq!(checked(&format!("{post}\r\n")), Err(403));
        let ours = "Origin: http://localhost:7007\r\n";
        assert!(checked(&format!("{post}{ours}\r\n")).is_ok());
        assert_eq!(checked(&format!("{post}{ours}Content-Length: 5\r\n\r\n")), Err(403));
        assert_eq!(checked(&format!("{post}{ours}Transfer-Encoding: chunked\r\n\r\n")), Err(403));
        assert_eq!(checked("DELETE / HTTP/1.1\r\nHost: localhost:7007\r\n\r\n"), Err(405));
    }
}
