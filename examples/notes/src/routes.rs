//! Which request means what.

use finale_http::{BodyLength, Head};

use crate::database::Work;
use crate::options::Options;
use crate::reply::Reply;
use crate::schema::Draft;

/// The longest note, as JSON.
const NOTE_BYTES: u64 = 64 * 1024;
/// The longest title, in characters.
const TITLE: usize = 200;
const JSON: &str = "application/json";
/// The kind of an attachment that has none, or a strange one.
const BYTES: &str = "application/octet-stream";

/// What a request is for, as its head shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Page,
    Style,
    Script,
    Health,
    Metrics,
    /// The changes after this one.
    Events(Option<i64>),
    List(i64),
    Create,
    Read(i64),
    Replace(i64),
    Delete(i64),
    Attachment(i64),
    Attach(i64, String),
}

/// What answers a request.
#[derive(Debug)]
pub(crate) enum Next {
    Reply(Reply),
    Work(Work),
    /// The numbers of the reactor are needed.
    Metrics,
}

impl Route {
    /// The route of a request, or why it is refused. Nothing of its body was read yet.
    pub(crate) fn find(head: &Head, options: &Options) -> Result<Self, Reply> {
        let path: Vec<&str> = head.path().split('/').skip(1).collect();
        let method = match head.method() {
            "HEAD" => "GET",
            method => method,
        };
        let (route, allowed) = match path[..] {
            [""] => (Some(Self::Page), "GET, HEAD"),
            ["page.css"] => (Some(Self::Style), "GET, HEAD"),
            ["page.js"] => (Some(Self::Script), "GET, HEAD"),
            ["health"] => (Some(Self::Health), "GET, HEAD"),
            ["metrics"] => (Some(Self::Metrics), "GET, HEAD"),
            ["events"] => (Some(Self::Events(last_event(head)?)), "GET"),
            ["api", "notes"] => match method {
                "POST" => (Some(Self::Create), "GET, HEAD, POST"),
                _ => (Some(Self::List(before(head)?)), "GET, HEAD, POST"),
            },
            ["api", "notes", id] => {
                let route = number(id).map(|id| match method {
                    "PUT" => Self::Replace(id),
                    "DELETE" => Self::Delete(id),
                    _ => Self::Read(id),
                });
                (route, "GET, HEAD, PUT, DELETE")
            }
            ["api", "notes", id, "attachment"] => {
                let route = number(id).map(|id| match method {
                    "PUT" => Self::Attach(id, kind(head)),
                    _ => Self::Attachment(id),
                });
                (route, "GET, HEAD, PUT")
            }
            _ => (None, ""),
        };
        let route = route.ok_or_else(|| Reply::error(404, "there is nothing at this path"))?;
        if !allowed.split(", ").any(|allowed| allowed == head.method()) {
            return Err(Reply::error(405, "this path does not allow the method").with("Allow", allowed));
        }
        route.check_body(head, options)?;
        Ok(route)
    }

    /// The longest body.
    pub(crate) const fn body_limit(&self, options: &Options) -> u64 {
        match self {
            Self::Create | Self::Replace(_) => NOTE_BYTES,
            Self::Attach(..) => options.max_attachment as u64,
            _ => 0,
        }
    }

    /// Its body or its answer needs much memory.
    pub(crate) const fn is_heavy(&self) -> bool {
        matches!(self, Self::Attach(..) | Self::Attachment(_))
    }

    fn check_body(&self, head: &Head, options: &Options) -> Result<(), Reply> {
        let limit = self.body_limit(options);
        if let BodyLength::Bytes(bytes) = head.length()
            && bytes > limit
        {
            return Err(Reply::error(413, format_args!("the body has {bytes} bytes, the limit is {limit}")));
        }
        // Browsers send no such request for a page of another origin without asking first.
        let is_json = kind(head).eq_ignore_ascii_case(JSON);
        if matches!(self, Self::Create | Self::Replace(_)) && !is_json {
            return Err(Reply::error(415, format_args!("a note is sent as {JSON}")));
        }
        Ok(())
    }

    /// What answers it, now that its body is complete.
    pub(crate) fn begin(&self, body: Vec<u8>) -> Next {
        let work = match self {
            Self::Page => return Next::Reply(Reply::file("text/html; charset=utf-8", include_str!("page.html"))),
            Self::Style => return Next::Reply(Reply::file("text/css; charset=utf-8", include_str!("page.css"))),
            Self::Script => return Next::Reply(Reply::file("text/javascript; charset=utf-8", include_str!("page.js"))),
            Self::Health => return Next::Reply(Reply::json(200, &serde_json::json!({ "status": "ok" }))),
            Self::Metrics => return Next::Metrics,
            Self::Events(after) => Work::Follow(*after),
            Self::List(before) => Work::List { before: *before },
            Self::Read(id) => Work::Read(*id),
            Self::Delete(id) => Work::Delete(*id),
            Self::Attachment(id) => Work::Attachment(*id),
            Self::Attach(id, kind) => Work::Attach(*id, kind.clone(), body),
            Self::Create | Self::Replace(_) => match (draft(&body), self) {
                (Err(reply), _) => return Next::Reply(reply),
                (Ok(draft), Self::Replace(id)) => Work::Replace(*id, draft),
                (Ok(draft), _) => Work::Create(draft),
            },
        };
        Next::Work(work)
    }
}

/// The note in a body.
fn draft(body: &[u8]) -> Result<Draft, Reply> {
    let draft: Draft = serde_json::from_slice(body).map_err(|error| Reply::error(400, error))?;
    if draft.title.trim().is_empty() || draft.title.chars().count() > TITLE {
        return Err(Reply::error(422, format_args!("a title has 1 to {TITLE} characters")));
    }
    Ok(draft)
}

/// An id, or the number of a change, in its only form.
fn number(text: &str) -> Option<i64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_number)
}

/// Where a page of the list begins.
fn before(head: &Head) -> Result<i64, Reply> {
    let mut query = form_urlencoded::parse(head.query().as_bytes());
    let Some((_, before)) = query.find(|(name, _)| name == "before") else { return Ok(i64::MAX) };
    number(&before).ok_or_else(|| Reply::error(400, "before is the id of a note"))
}

/// Browsers send the number of the last event that they have received when they connect again.
fn last_event(head: &Head) -> Result<Option<i64>, Reply> {
    let Some(text) = head.value("last-event-id") else { return Ok(None) };
    number(text).map(Some).ok_or_else(|| Reply::error(400, "Last-Event-ID is the number of a change"))
}

/// The media type of a body, without parameters.
fn kind(head: &Head) -> String {
    let kind = head.value("content-type").and_then(|kind| kind.split(';').next()).unwrap_or(BYTES).trim();
    let is_token = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    let is_kind = kind.len() <= 100 && kind.split_once('/').is_some_and(|(a, b)| is_token(a) && is_token(b));
    if is_kind { kind.to_owned() } else { BYTES.to_owned() }
}
