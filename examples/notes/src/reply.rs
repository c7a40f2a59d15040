//! Answers as the routes make them.

use std::borrow::Cow;
use std::fmt::Display;

use finale_http::Answer;
use rusqlite::ErrorCode;

use crate::database::Outcome;

/// The page has its own files, and no others. No other page can show it in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// An attachment is never shown as a page of this origin.
const ATTACHMENT_POLICY: &str = "default-src 'none'; sandbox";
/// How long a client should wait if there is no room for its request.
const RETRY_SECONDS: u32 = 1;

/// An answer without what depends on its connection.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    kind: String,
    headers: Vec<(&'static str, String)>,
    pub(crate) body: Cow<'static, [u8]>,
}

impl Reply {
    pub(crate) fn new(status: u16, kind: &str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        Self { status, kind: kind.to_owned(), headers: Vec::new(), body: body.into() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Display) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// A page, or what belongs to it.
    pub(crate) fn file(kind: &str, body: &'static str) -> Self {
        Self::new(200, kind, body.as_bytes()).with("Content-Security-Policy", POLICY).with("Cache-Control", "no-cache")
    }

    pub(crate) fn json(status: u16, value: &impl serde::Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::new(status, "application/json", body).with("Cache-Control", "no-store"),
            Err(error) => Self::error(500, error),
        }
    }

    /// An error in words: every error has this one form.
    pub(crate) fn error(status: u16, why: impl Display) -> Self {
        let reply = Self::json(status, &serde_json::json!({ "error": why.to_string() }));
        if status == 503 { reply.with("Retry-After", RETRY_SECONDS) } else { reply }
    }

    /// There is no room for a request just now.
    pub(crate) fn busy() -> Self {
        Self::error(503, "the service is busy; try again")
    }

    /// The head, up to what depends on the connection.
    pub(crate) fn head(&self) -> Answer {
        let mut answer = Answer::new(self.status).header("X-Content-Type-Options", "nosniff");
        // An answer with this status has neither.
        if self.status != 204 {
            answer = answer.header("Content-Type", &self.kind).length(self.body.len() as u64);
        }
        self.headers.iter().fold(answer, |answer, (name, value)| answer.header(name, value))
    }
}

impl From<Outcome> for Reply {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Page(page) => Self::json(200, &page),
            Outcome::Note(note) => Self::json(200, &note),
            Outcome::Created(note) => Self::json(201, &note).with("Location", format_args!("/api/notes/{}", note.id)),
            Outcome::Attachment(kind, bytes) => Self::new(200, &kind, bytes)
                .with("Content-Disposition", "attachment")
                .with("Content-Security-Policy", ATTACHMENT_POLICY)
                .with("Cache-Control", "no-store"),
            Outcome::Done | Outcome::Following(_) => Self::new(204, "", &[][..]),
            Outcome::NotFound => Self::error(404, "there is no such note"),
            Outcome::Failed(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::busy(),
            Outcome::Failed(ErrorCode::DiskFull) => Self::error(507, "the disk is full"),
            Outcome::Failed(code) => Self::error(500, format_args!("the database has failed: {code:?}")),
        }
    }
}
