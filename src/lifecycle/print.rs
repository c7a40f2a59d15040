//! The lifecycle as text, printed from the very table that runs.

use std::fmt::Write as _;

use super::{Cell, Emits, Input, State, step};

/// The forms in which the lifecycle can be printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Format {
    /// For reading in a terminal.
    Text,
    /// A state diagram for Mermaid.
    Mermaid,
    /// A graph for Graphviz.
    Dot,
}

/// The whole lifecycle in one form.
///
/// ```
/// let text = finale::lifecycle::print(finale::lifecycle::Format::Text);
/// assert!(text.contains("Closing"));
/// ```
#[must_use]
pub fn print(format: Format) -> String {
    match format {
        Format::Text => text(),
        Format::Mermaid => mermaid(),
        Format::Dot => dot(),
    }
}

impl Emits {
    /// The event's name, as the documentation writes it.
    #[must_use]
    pub const fn event(self) -> &'static str {
        match self {
            Emits::Lookup => "lookup",
            Emits::Connect => "connect",
            Emits::Ready => "ready",
            Emits::Connection => "connection",
            Emits::Data => "data",
            Emits::Drain => "drain",
            Emits::Timeout => "timeout",
            Emits::PeerEnded => "peer-ended",
            Emits::End => "end",
            Emits::Error => "error",
            Emits::Close => "close",
        }
    }
}

/// One arrow: input, next state, events.
type Arrow = (Input, State, &'static [Emits]);

/// The arrows that leave a state, in the order of the inputs.
pub(super) fn arrows(state: State) -> impl Iterator<Item = Arrow> {
    Input::ALL.iter().filter_map(move |&input| match step(state, input) {
        Cell::Go(next, emits) => Some((input, next, emits)),
        Cell::Deferred | Cell::Ignored | Cell::Impossible => None,
    })
}

/// The events of an arrow, in one piece of text.
pub(crate) fn events(emits: &[Emits]) -> String {
    emits.iter().map(|emits| emits.event()).collect::<Vec<_>>().join(" ")
}

fn text() -> String {
    let mut out = String::new();
    for &state in State::ALL {
        let _ = writeln!(out, "{:<13} RFC 9293: {}", state.name(), state.rfc9293().join(", "));
        for (input, next, emits) in arrows(state) {
            let emits = if emits.is_empty() { String::new() } else { format!("  emits {}", events(emits)) };
            let line = format!("  {:<14} -> {:<13}{emits}", input.name(), next.name());
            let _ = writeln!(out, "{}", line.trim_end());
        }
        for (cell, words) in [(Cell::Deferred, "takes up later"), (Cell::Ignored, "ignores")] {
            let inputs: Vec<_> = Input::ALL.iter().filter(|&&i| step(state, i) == cell).map(|i| i.name()).collect();
            if !inputs.is_empty() {
                let _ = writeln!(out, "  {words}: {}", inputs.join(", "));
            }
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn mermaid() -> String {
    let mut out = String::from("stateDiagram-v2\n    [*] --> Created\n");
    for &state in State::ALL {
        let _ = writeln!(out, "    {} : {}<br/>{}", state.name(), state.name(), state.rfc9293().join(", "));
    }
    for &state in State::ALL {
        for (input, next, emits) in arrows(state) {
            let emits = if emits.is_empty() { String::new() } else { format!(" / {}", events(emits)) };
            let _ = writeln!(out, "    {} --> {} : {}{emits}", state.name(), next.name(), input.name());
        }
    }
    out.push_str("    Closed --> [*]\n");
    out
}

fn dot() -> String {
    let mut out = String::from("digraph lifecycle {\n    node [shape=box, style=rounded];\n");
    for &state in State::ALL {
        let _ = writeln!(out, "    {} [label=\"{}\\n{}\"];", state.name(), state.name(), state.rfc9293().join(", "));
    }
    for &state in State::ALL {
        for (input, next, emits) in arrows(state) {
            let emits = if emits.is_empty() { String::new() } else { format!("\\n{}", events(emits)) };
            let _ = writeln!(out, "    {} -> {} [label=\"{}{emits}\"];", state.name(), next.name(), input.name());
        }
    }
    out.push_str("}\n");
    out
}
