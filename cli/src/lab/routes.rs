//! What each path answers.

use std::borrow::Cow;

use finale::lifecycle::View;
use finale::{Inbox, Reactor, SocketId};

use super::http::{Answer, Request};
use super::load::{Load, Plan};
use super::workers::{Answered, Workers};
use super::{compare, real, rust_test, scenarios, workers};
use crate::errors::Error;
use crate::states;
use crate::trace::{self, Script};

/// Simulated runs take milliseconds, real ones seconds.
const RUNS: (usize, usize) = (2, 24);
const REAL_RUNS: (usize, usize) = (4, 4);
/// Those that were not answered yet.
const MOST_JOBS: usize = RUNS.0 + RUNS.1 + REAL_RUNS.0 + REAL_RUNS.1;

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
    answers: Inbox<Answered>,
    /// Jobs whose answers were not taken yet. The inbox has room for all of them.
    pending: usize,
    /// As JSON.
    scenarios: Vec<u8>,
}

impl Routes {
    pub(super) fn new(reactor: &Reactor) -> Result<Self, Error> {
        let (sender, answers) = reactor.inbox(MOST_JOBS);
        Ok(Self {
            runs: Workers::start(RUNS.0, RUNS.1, &sender)?,
            real_runs: Workers::start(REAL_RUNS.0, REAL_RUNS.1, &sender)?,
            load: Load::default(),
            answers,
            pending: 0,
            scenarios: scenarios::json()?,
        })
    }

    pub(super) fn stop(&self) {
        self.load.stop();
    }

    /// The next answer of a thread.
    pub(super) fn take_answer(&mut self) -> Option<Answered> {
        let answer = self.answers.take()?;
        self.pending -= 1;
        Some(answer)
    }

    /// The reply to a request of this connection.
    pub(super) fn reply(&mut self, id: SocketId, request: &Request) -> Reply {
        let query = |name| value(&request.query, name);
        Reply::Now(match (request.is_post, request.path.as_str()) {
            (false, "/") => Answer::ok("text/html; charset=utf-8", include_str!("lab.html")),
            (false, "/lab.css") => Answer::ok("text/css; charset=utf-8", style()),
            (false, "/lab.js") => Answer::ok("text/javascript; charset=utf-8", include_str!("lab.js")),
            (false, "/favicon.ico") => Answer { status: 204, kind: "image/x-icon", body: Vec::new() },
            (false, "/api/scenarios") => Answer::ok("application/json", self.scenarios.clone()),
            (false, "/api/states") => match query("view").as_deref() {
                Some("client") => Answer::ok("image/svg+xml", bare(View::Client)),
                Some("server") => Answer::ok("image/svg+xml", bare(View::Server)),
                None => Answer::json(&states::objects()),
                Some(_) => Answer::failed(400, "view is client or server"),
            },
            (false, "/api/run") => return self.run(id, query("script"), simulated, |routes| &routes.runs),
            (false, "/api/test") => return self.run(id, query("script"), test, |routes| &routes.runs),
            (false, "/api/real") => return self.run(id, query("script"), both, |routes| &routes.real_runs),
            (false, "/api/load") => Answer::json(&self.load.view()),
            (true, "/api/load") => match Plan::parse(query) {
                Ok(plan) => self.load.start(plan),
                Err(why) => Answer::failed(400, why),
            },
            (true, "/api/load/stop") => {
                self.load.stop();
                Answer::json(&self.load.view())
            }
            (true, _) => Answer::failed(405, "this is no place to POST to"),
            (false, _) => Answer::failed(404, "there is no such page"),
        })
    }

    fn run(
        &mut self,
        id: SocketId,
        script: Option<Cow<'_, str>>,
        job: fn(&Script) -> Result<Answer, Error>,
        workers: fn(&Self) -> &Workers,
    ) -> Reply {
        let Some(script) = script else {
            return Reply::Now(Answer::failed(400, "script is missing: ?script=client+connect"));
        };
        let script = script.into_owned();
        let refused = |error: Error| Answer::failed(400, error.to_string());
        let work = move || Script::parse(&script).and_then(|script| job(&script)).unwrap_or_else(refused);
        if self.pending == MOST_JOBS {
            return Reply::Now(workers::busy());
        }
        match workers(self).take(id, work) {
            Ok(()) => {
                self.pending += 1;
                Reply::Later
            }
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
    // What can't be simulated is refused before the real run takes its seconds.
    real::check(script)?;
    let simulated = trace::simulated(script)?;
    Ok(Answer::json(&compare::Compared::of(simulated, real::run(script)?)))
}

/// The first value of this name in a query.
fn value<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    form_urlencoded::parse(query.as_bytes()).find(|(known, _)| known == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_is_lost_while_the_reactor_is_busy() {
        let mut reactor = Reactor::new().expect("a reactor");
        let mut routes = Routes::new(&reactor).expect("its threads start");
        let limits = finale::ListenOptions::default();
        let id = {
            let listener = reactor.listen("127.0.0.1:0", limits).expect("it listens");
            let target = listener.addr.ip().expect("an address");
            reactor.connect(target, finale::ConnectOptions::default()).expect("it connects")
        };
        let request =
            Request { is_post: false, path: "/api/run".to_owned(), query: "script=client+connect".to_owned() };
        let mut later = 0;
        // Nothing takes the answers meanwhile. With a limit, the rest is refused.
        for _ in 0..100_000 {
            later += usize::from(matches!(routes.reply(id, &request), Reply::Later));
        }
        assert_eq!(later, MOST_JOBS);
        let mut taken = 0;
        let guard = std::time::Instant::now();
        while taken < later {
            taken += usize::from(routes.take_answer().is_some());
            assert!(guard.elapsed().as_secs() < 60, "{taken} of {later} answers");
            std::thread::yield_now();
        }
        assert!(matches!(routes.reply(id, &request), Reply::Later), "there is room again");
    }
}
