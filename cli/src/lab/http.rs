//! The HTTP server of the lab: one request per connection.
//!
//! Invariant: a request is refused before it does anything if a page of another origin can have sent
//! it: by its `Host`, its `Origin`, or what the browser says of its site.

use std::net::SocketAddr;

use finale::{Event, Socket, SocketMap};

use super::SILENCE;
use super::routes::{Reply, Routes};
use super::workers::Answered;

/// A longer head is refused. A link with a script has some hundred bytes, and at most 16 KiB.
const MOST_HEAD: usize = 24 * 1024;
const MOST_HEADERS: usize = 64;

/// What is sent back.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: &'static str,
    pub(super) kind: &'static str,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn ok(kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status: "200 OK", kind, body: body.into() }
    }

    /// A failure, in words.
    pub(super) fn failed(status: &'static str, why: impl Into<String>) -> Self {
        let body = serde_json::json!({ "error": why.into() }).to_string().into_bytes();
        Self { status, kind: "application/json", body }
    }

    pub(super) fn json(value: &impl serde::Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::ok("application/json", body),
            Err(error) => Self::failed("500 Internal Server Error", error.to_string()),
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

#[derive(Debug, Default)]
struct Connection {
    head: Vec<u8>,
    /// The request is complete: what else arrives is dropped.
    is_asked: bool,
    /// HEAD: the answer has no body.
    is_head: bool,
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
                connection.head.extend_from_slice(bytes);
                match self.parsed(socket) {
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

    /// The request, if it is complete and its sender is one of our pages.
    fn parsed(&mut self, socket: &Socket<'_>) -> Result<Option<Request>, Answer> {
        let connection = self.connections.or_default(socket.id());
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut parser = httparse::Request::new(&mut headers);
        let parsed = match parser.parse(&connection.head) {
            Ok(httparse::Status::Complete(_)) => check(&parser, &self.names).map(Some),
            Ok(httparse::Status::Partial) if connection.head.len() > MOST_HEAD => {
                Err(Answer::failed("431 Request Header Fields Too Large", "the request is too long"))
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => {
                Err(Answer::failed("431 Request Header Fields Too Large", "the request has too many headers"))
            }
            Err(error) => Err(Answer::failed("400 Bad Request", format!("not HTTP: {error}"))),
        };
        connection.is_head = parser.method == Some("HEAD");
        connection.is_asked = true;
        connection.head = Vec::new();
        parsed
    }

    /// Sends the answer, ends, and drops what still arrives, so that our close does not reset it.
    pub(super) fn answer(&mut self, socket: &mut Socket<'_>, answer: &Answer) {
        let connection = self.connections.or_default(socket.id());
        connection.is_asked = true;
        let head = format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\
             Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
             img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
             X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\n\
             Referrer-Policy: no-referrer\r\n\r\n",
            answer.status,
            answer.kind,
            answer.body.len()
        );
        let body: &[u8] = if connection.is_head { &[] } else { &answer.body };
        socket.set_idle_timeout(Some(SILENCE));
        // A client that has left is no failure of ours.
        let _ = socket.write_parts(&[head.as_bytes(), body]);
        socket.end();
        socket.discard();
    }
}

/// The request, unless a page of another origin can have sent it.
fn check(parsed: &httparse::Request<'_, '_>, names: &[String]) -> Result<Request, Answer> {
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(Answer::failed("400 Bad Request", "there is no request line"));
    };
    if !matches!(method, "GET" | "HEAD" | "POST") {
        return Err(Answer::failed("405 Method Not Allowed", "only GET, HEAD and POST"));
    }
    let all = |name: &str| {
        let named = parsed.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| std::str::from_utf8(header.value).unwrap_or("?").trim().to_owned()).collect::<Vec<_>>()
    };
    let is_ours = |host: &str| names.iter().any(|name| name.eq_ignore_ascii_case(host));
    match &all("host")[..] {
        [host] if is_ours(host) => {}
        [_] => return Err(Answer::failed("421 Misdirected Request", "this Host is not the lab's")),
        _ => return Err(Answer::failed("400 Bad Request", "a request has one Host")),
    }
    let origin = all("origin");
    if !origin.iter().all(|origin| origin.strip_prefix("http://").is_some_and(is_ours)) {
        return Err(Answer::failed("403 Forbidden", "this page is not the lab's"));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let is_api = path.starts_with("/api/");
    if is_api && all("sec-fetch-site").iter().any(|site| !matches!(site.as_str(), "same-origin" | "none")) {
        return Err(Answer::failed("403 Forbidden", "this page is not the lab's"));
    }
    let is_post = method == "POST";
    let has_body = all("content-length").iter().any(|length| length != "0") || !all("transfer-encoding").is_empty();
    if is_post && (origin.is_empty() || has_body) {
        return Err(Answer::failed("403 Forbidden", "a POST has an Origin and no body"));
    }
    Ok(Request { is_post, path: path.to_owned(), query: query.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<Request, &'static str> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut parser = httparse::Request::new(&mut headers);
        parser.parse(text.as_bytes()).expect("it is HTTP");
        check(&parser, &["127.0.0.1:7007".to_owned(), "localhost:7007".to_owned()]).map_err(|answer| answer.status)
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let ours = "GET /api/run?script=x HTTP/1.1\r\nHost: localhost:7007\r\n";
        let asked = Request { is_post: false, path: "/api/run".to_owned(), query: "script=x".to_owned() };
        assert_eq!(checked(&format!("{ours}\r\n")), Ok(asked.clone()));
        assert_eq!(checked(&format!("{ours}Origin: http://127.0.0.1:7007\r\n\r\n")), Ok(asked.clone()));
        assert_eq!(checked(&format!("{ours}Sec-Fetch-Site: same-origin\r\n\r\n")), Ok(asked));
        for header in ["Origin: http://evil.example", "Origin: null", "Origin: https://localhost:7007"] {
            assert_eq!(checked(&format!("{ours}{header}\r\n\r\n")), Err("403 Forbidden"), "{header}");
        }
        assert_eq!(checked(&format!("{ours}Sec-Fetch-Site: cross-site\r\n\r\n")), Err("403 Forbidden"));
        let link = "GET / HTTP/1.1\r\nHost: localhost:7007\r\nSec-Fetch-Site: cross-site\r\n\r\n";
        assert!(checked(link).is_ok(), "a link from elsewhere opens the page");
    }

    #[test]
    fn a_name_that_points_here_is_not_enough() {
        for host in ["evil.example:7007", "127.0.0.1:80", "localhost", "127.0.0.1:7007.evil.example"] {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(checked(&text), Err("421 Misdirected Request"), "{host}");
        }
        assert_eq!(checked("GET / HTTP/1.1\r\n\r\n"), Err("400 Bad Request"));
        let two = "GET / HTTP/1.1\r\nHost: localhost:7007\r\nHost: localhost:7007\r\n\r\n";
        assert_eq!(checked(two), Err("400 Bad Request"));
    }

    #[test]
    fn a_post_has_an_origin_and_no_body() {
        let post = "POST /api/load HTTP/1.1\r\nHost: localhost:7007\r\n";
        assert_eq!(checked(&format!("{post}\r\n")), Err("403 Forbidden"));
        let ours = "Origin: http://localhost:7007\r\n";
        assert!(checked(&format!("{post}{ours}\r\n")).is_ok());
        assert_eq!(checked(&format!("{post}{ours}Content-Length: 5\r\n\r\n")), Err("403 Forbidden"));
        assert_eq!(checked(&format!("{post}{ours}Transfer-Encoding: chunked\r\n\r\n")), Err("403 Forbidden"));
        assert_eq!(checked("DELETE / HTTP/1.1\r\nHost: localhost:7007\r\n\r\n"), Err("405 Method Not Allowed"));
    }
}
