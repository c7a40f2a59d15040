//! The lifecycle as text, printed from the table that the reactor uses.

use std::fmt::Write as _;

use super::{Cell, Emits, Input, State, step};

/// The forms in which the lifecycle can be printed.
///
/// ```
/// use finale::lifecycle::{Format, print};
/// assert!(print(Format::Mermaid).contains("stateDiagram"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Format {
    /// Text for a terminal.
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
        Format::Text => State::ALL.iter().map(|&state| paragraph(state)).collect::<Vec<_>>().join("\n"),
        Format::Mermaid => {
            let state = |name: &str, rfc9293: &str| format!("    {name} : {name}<br/>{rfc9293}\n");
            let arrow = |from: &str, to: &str, label: &str| format!("    {from} --> {to} : {label}\n");
            let all = diagram(state, arrow, " / ");
            format!("stateDiagram-v2\n    [*] --> Created\n{all}    Closed --> [*]\n")
        }
        Format::Dot => {
            let state = |name: &str, rfc9293: &str| format!("    {name} [label=\"{name}\\n{rfc9293}\"];\n");
            let arrow = |from: &str, to: &str, label: &str| format!("    {from} -> {to} [label=\"{label}\"];\n");
            let all = diagram(state, arrow, "\\n");
            format!("digraph lifecycle {{\n    node [shape=box, style=rounded];\n{all}}}\n")
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

/// The names of these events, separated by spaces.
pub(crate) fn events(emits: &[Emits]) -> String {
    emits.iter().map(|emits| emits.name()).collect::<Vec<_>>().join(" ")
}

/// A text followed by the events, if there are any.
fn with_events(text: &str, separator: &str, emits: &[Emits]) -> String {
    if emits.is_empty() { text.trim_end().to_owned() } else { format!("{text}{separator}{}", events(emits)) }
}

fn paragraph(state: State) -> String {
    let mut out = format!("{:<13} RFC 9293: {}\n", state.name(), state.rfc9293().join(", "));
    for (input, next, emits) in arrows(state) {
        let arrow = format!("  {:<14} -> {:<13}", input.name(), next.name());
        let _ = writeln!(out, "{}", with_events(&arrow, "  emits ", emits));
    }
    for (cell, words) in [(Cell::Deferred, "takes up later"), (Cell::Ignored, "ignores")] {
        let inputs: Vec<_> = Input::ALL.iter().filter(|&&i| step(state, i) == cell).map(|i| i.name()).collect();
        if !inputs.is_empty() {
            let _ = writeln!(out, "  {words}: {}", inputs.join(", "));
        }
    }
    out
}

/// All states, then all arrows, each printed by these functions.
fn diagram(node: impl Fn(&str, &str) -> String, arrow: impl Fn(&str, &str, &str) -> String, separator: &str) -> String {
    let nodes = State::ALL.iter().map(|state| node(state.name(), &state.rfc9293().join(", ")));
    let arrows = State::ALL.iter().flat_map(|&state| arrows(state).map(move |to| (state, to)));
    let arrows = arrows.map(|(state, (input, next, emits))| {
        arrow(state.name(), next.name(), &with_events(input.name(), separator, emits))
    });
    nodes.chain(arrows).collect()
}
