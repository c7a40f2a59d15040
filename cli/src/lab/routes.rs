//! What each path answers.

use std::borrow::Cow;

use finale::lifecycle::View;
use finale::{Inbox, Reactor, SocketId};

use super::http::{Answer, Request};
use super::load::{Load, Plan};
use super::workers::{Answered, Workers};
use super::{compare, real, rust_test, scenarios};
use crate::errors::Error;
use crate::states;
use crate::trace::{self, Script};

/// Simulated runs take milliseconds, real ones seconds.
const RUNS: (usize, usize) = (2, 24);
const REAL_RUNS: (usize, usize) = (4, 4);

/// Whether the answer is there.
pub(super) enum Reply {
    Now(Answer),
    /// A thread works on it.
    Later,
}

pub(super) struct Routes {
    runs: Workers,
    real_runs: Workers,
    load: Load,
    /// As JSON.
    scenarios: Vec<u8>,
}

impl Routes {
    pub(super) fn new(reactor: &Reactor) -> Result<(Self, Inbox<Answered>), Error> {
        let (sender, answers) = reactor.inbox(RUNS.0 + RUNS.1 + REAL_RUNS.0 + REAL_RUNS.1);
        let routes = Self {
            runs: Workers::start(RUNS.0, RUNS.1, &sender)?,
            real_runs: Workers::start(REAL_RUNS.0, REAL_RUNS.1, &sender)?,
            load: Load::default(),
            scenarios: scenarios::json()?,
        };
        Ok((routes, answers))
    }

    pub(super) fn stop(&self) {
        self.load.stop();
    }

    /// The reply to a request of this connection.
    pub(super) fn reply(&self, id: SocketId, request: &Request) -> Reply {
        let query = |name| value(&request.query, name);
        Reply::Now(match (request.is_post, request.path.as_str()) {
            (false, "/") => Answer::ok("text/html; charset=utf-8", include_str!("lab.html")),
            (false, "/lab.css") => Answer::ok("text/css; charset=utf-8", style()),
            (false, "/lab.js") => Answer::ok("text/javascript; charset=utf-8", include_str!("lab.js")),
            (false, "/favicon.ico") => Answer { status: "204 No Content", kind: "image/x-icon", body: Vec::new() },
            (false, "/api/scenarios") => Answer::ok("application/json", self.scenarios.clone()),
            (false, "/api/states") => match query("view").as_deref() {
                Some("client") => Answer::ok("image/svg+xml", bare(View::Client)),
                Some("server") => Answer::ok("image/svg+xml", bare(View::Server)),
                None => Answer::json(&states::objects()),
                Some(_) => Answer::failed("400 Bad Request", "view is client or server"),
            },
            (false, "/api/run") => return self.run(&self.runs, id, query("script"), simulated),
            (false, "/api/test") => return self.run(&self.runs, id, query("script"), test),
            (false, "/api/real") => return self.run(&self.real_runs, id, query("script"), both),
            (false, "/api/load") => Answer::json(&self.load.view()),
            (true, "/api/load") => match Plan::parse(query) {
                Ok(plan) => self.load.start(plan),
                Err(why) => Answer::failed("400 Bad Request", why),
            },
            (true, "/api/load/stop") => {
                self.load.stop();
                Answer::json(&self.load.view())
            }
            (true, _) => Answer::failed("405 Method Not Allowed", "this is no place to POST to"),
            (false, _) => Answer::failed("404 Not Found", "there is no such page"),
        })
    }

    fn run(
        &self,
        workers: &Workers,
        id: SocketId,
        script: Option<Cow<'_, str>>,
        job: fn(&Script) -> Result<Answer, Error>,
    ) -> Reply {
        let Some(script) = script else {
            return Reply::Now(Answer::failed("400 Bad Request", "script is missing: ?script=client+connect"));
        };
        let script = script.into_owned();
        let refused = |error: Error| Answer::failed("400 Bad Request", error.to_string());
        let work = move || Script::parse(&script).and_then(|script| job(&script)).unwrap_or_else(refused);
        match workers.take(id, work) {
            Ok(()) => Reply::Later,
            Err(answer) => Reply::Now(answer),
        }
    }
}

/// The picture of a side without its style, which is in the page's: the page allows no other.
fn bare(view: View) -> String {
    states::picture(view).replace(&format!("<style>\n{}</style>\n", states::STYLE), "")
}

/// The page's, and those of the pictures in it: the page allows no style elements.
fn style() -> String {
    format!("{}{}", include_str!("lab.css"), states::STYLE)
}

fn simulated(script: &Script) -> Result<Answer, Error> {
    Ok(Answer::json(&trace::simulated(script)?))
}

fn test(script: &Script) -> Result<Answer, Error> {
    Ok(Answer::ok("text/plain; charset=utf-8", rust_test::of(script)?))
}

fn both(script: &Script) -> Result<Answer, Error> {
    let real = real::run(script)?;
    Ok(Answer::json(&compare::Compared::of(trace::simulated(script)?, real)))
}

/// The first value of this name in a query.
fn value<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    form_urlencoded::parse(query.as_bytes()).find(|(known, _)| known == name).map(|(_, value)| value)
}
