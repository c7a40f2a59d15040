//! One state: as an object for other programs, as text, and as a part of a page.

use std::fmt::Write as _;

use finale::lifecycle::{Cell, Input, State, View, step};
use serde::Serialize;

use crate::html::escape;

/// One state. The names are stable: programs read them.
#[derive(Serialize)]
pub(super) struct StateObject {
    state: &'static str,
    meaning: &'static str,
    rfc9293: &'static [&'static str],
    transitions: Vec<Transition>,
    limits: &'static [&'static str],
    deferred: Vec<&'static str>,
    ignored: Vec<&'static str>,
}

#[derive(Serialize)]
struct Transition {
    input: &'static str,
    meaning: &'static str,
    next: &'static str,
    emits: Vec<&'static str>,
}

impl StateObject {
    pub(super) fn of(state: State, view: View) -> Self {
        let (mut transitions, mut deferred, mut ignored) = (Vec::new(), Vec::new(), Vec::new());
        for input in Input::ALL.iter().filter(|input| view.has(**input)) {
            match step(state, *input) {
                Cell::Go(next, emits) => transitions.push(Transition {
                    input: input.name(),
                    meaning: input.meaning(),
                    next: next.name(),
                    emits: emits.iter().map(|event| event.name()).collect(),
                }),
                Cell::Deferred => deferred.push(input.name()),
                Cell::Ignored => ignored.push(input.name()),
                Cell::Impossible => {}
            }
        }
        let (rfc9293, limits, meaning) = (state.rfc9293(), limits(state), state.meaning());
        Self { state: state.name(), meaning, rfc9293, transitions, limits, deferred, ignored }
    }

    pub(super) fn text(&self) -> String {
        let mut out = format!("{}: {}\n\n", self.state, plain(self.meaning));
        let _ = writeln!(out, "The kernel's state (RFC 9293): {}", self.rfc9293.join(", "));
        let none = || "none".to_owned();
        let limits = if self.limits.is_empty() { none() } else { self.limits.join("\n  ") };
        let _ = write!(out, "Limits:{}{limits}\n\n", if self.limits.is_empty() { " " } else { "\n  " });
        for to in &self.transitions {
            let emits = if to.emits.is_empty() { String::new() } else { format!("  emits {}", to.emits.join(" ")) };
            let arrow = format!("{:<14} -> {:<13}{emits}", to.input, to.next);
            let _ = writeln!(out, "{}\n    {}", arrow.trim_end(), plain(to.meaning));
        }
        for (inputs, words) in [(&self.deferred, "Takes up later"), (&self.ignored, "Ignores")] {
            if !inputs.is_empty() {
                let _ = writeln!(out, "{words}: {}", inputs.join(", "));
            }
        }
        out
    }

    pub(super) fn html(&self) -> String {
        let row = |to: &Transition| {
            format!("<tr><td>{}<td>{}<td>{}<td>{}\n", to.input, to.next, to.emits.join(" "), escape(&plain(to.meaning)))
        };
        let rows: String = self.transitions.iter().map(row).collect();
        let limits = if self.limits.is_empty() { "none".to_owned() } else { self.limits.join("; ") };
        let state = self.state;
        format!(
            "<h3 id=\"{state}\">{state}</h3>\n<p>{} RFC 9293: {}. Limits: {limits}.</p>\n\
             <table><tr><th>Input<th>Next state<th>Events<th>Meaning\n{rows}</table>\n",
            escape(&plain(self.meaning)),
            self.rfc9293.join(", "),
        )
    }
}

/// Documentation without its marks of code.
pub(super) fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// The options that limit the time in a state, and what each does.
const fn limits(state: State) -> &'static [&'static str] {
    match state {
        State::Created | State::Resolving | State::Connecting => &["connect_timeout", "total_deadline"],
        State::Open => &[
            "idle_timeout (an event; the caller decides)",
            "write_timeout (while bytes wait)",
            "half_closed_timeout and ending_timeout (once the peer has finished behind a pause)",
            "deadline",
        ],
        State::Flushing | State::LastFlush => {
            &["close_timeout", "ending_timeout", "idle_timeout (an event)", "deadline"]
        }
        State::LocalFinished | State::Broken => {
            &["half_closed_timeout", "ending_timeout", "idle_timeout (an event)", "deadline"]
        }
        State::PeerFinished => &[
            "half_closed_timeout",
            "write_timeout (while bytes wait)",
            "ending_timeout",
            "idle_timeout (an event)",
            "deadline",
        ],
        State::Lingering | State::Closing => &["close_timeout", "ending_timeout", "deadline"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_limits_if_it_can_expire_and_an_idle_time_if_it_can_be_idle() {
        for &state in State::ALL {
            let goes = |input| matches!(step(state, input), Cell::Go(..));
            assert_eq!(!limits(state).is_empty(), goes(Input::Expired), "{state}");
            let has_idle_time = limits(state).iter().any(|limit| limit.starts_with("idle_timeout"));
            assert_eq!(has_idle_time, goes(Input::Idle), "{state}");
        }
    }
}
