//! The lifecycle as text, printed from the table that the reactor uses.

use std::fmt::Write as _;

use super::{Cell, Emits, Input, State, step};

/// The forms in which the lifecycle can be printed.
///
/// ```
/// use finale::lifecycle::{Format, View, print};
/// assert!(print(Format::Mermaid, View::All).contains("stateDiagram"));
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

/// The part of the lifecycle that is printed.
///
/// ```
/// use finale::lifecycle::{State, View};
/// assert!(!View::Server.states().contains(&State::Connecting));
/// assert_eq!(View::All.states(), State::ALL);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum View {
    /// All of it.
    All,
    /// That of a socket that connects.
    Client,
    /// That of a socket that was accepted.
    Server,
}

impl View {
    /// Whether this input belongs to it.
    #[must_use]
    pub const fn has(self, input: Input) -> bool {
        match self {
            Self::All => true,
            Self::Client => !matches!(input, Input::Accepted),
            Self::Server => !matches!(input, Input::LookupStarted | Input::Resolved),
        }
    }

    /// The states that its inputs reach, in the order of [`State::ALL`].
    #[must_use]
    pub fn states(self) -> Vec<State> {
        let mut reached = [false; State::ALL.len()];
        reached[State::Created as usize] = true;
        // Each pass reaches a state more, or is the last.
        for _ in State::ALL {
            for &state in State::ALL.iter().filter(|&&state| reached[state as usize]).collect::<Vec<_>>() {
                arrows(state).filter(|arrow| self.has(arrow.0)).for_each(|(_, next, _)| reached[next as usize] = true);
            }
        }
        State::ALL.iter().copied().filter(|&state| reached[state as usize]).collect()
    }
}

/// A part of the lifecycle in one form.
///
/// ```
/// use finale::lifecycle::{Format, View, print};
/// assert!(print(Format::Text, View::All).contains("Closing"));
/// ```
#[must_use]
pub fn print(format: Format, view: View) -> String {
    match format {
        Format::Text => view.states().into_iter().map(|state| paragraph(state, view)).collect::<Vec<_>>().join("\n"),
        Format::Mermaid => mermaid(view),
        Format::Dot => dot(view),
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

fn paragraph(state: State, view: View) -> String {
    let mut out = format!("{:<13} RFC 9293: {}\n", state.name(), state.rfc9293().join(", "));
    for (input, next, emits) in arrows(state).filter(|arrow| view.has(arrow.0)) {
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

/// The arrows between two states as one, which a diagram draws as one line.
fn joined(view: View) -> Vec<(State, State, Vec<Arrow>)> {
    let mut joined: Vec<(State, State, Vec<Arrow>)> = Vec::new();
    for state in view.states() {
        for arrow in arrows(state).filter(|arrow| view.has(arrow.0)) {
            match joined.iter_mut().find(|(from, to, _)| (*from, *to) == (state, arrow.1)) {
                Some((_, _, arrows)) => arrows.push(arrow),
                None => joined.push((state, arrow.1, vec![arrow])),
            }
        }
    }
    joined
}

/// The label of joined arrows: a line for each.
fn label(arrows: &[Arrow], line: &str) -> String {
    arrows.iter().map(|(input, _, emits)| with_events(input.name(), " / ", emits)).collect::<Vec<_>>().join(line)
}

fn mermaid(view: View) -> String {
    let mut out = "stateDiagram-v2\n    [*] --> Created\n".to_owned();
    for state in view.states() {
        let _ = writeln!(out, "    {state} : {state}<br/>{}", state.rfc9293().join(", "));
    }
    for (from, to, arrows) in joined(view) {
        let _ = writeln!(out, "    {from} --> {to} : {}", label(&arrows, "<br/>"));
    }
    out + "    Closed --> [*]\n"
}

fn dot(view: View) -> String {
    let mut out = "digraph lifecycle {\n    node [shape=box, style=rounded, fontname=\"sans-serif\"];\n    \
                   edge [fontname=\"sans-serif\", fontsize=10];\n"
        .to_owned();
    for state in view.states() {
        let _ = writeln!(out, "    {state} [label=\"{state}\\n{}\"];", state.rfc9293().join(", "));
    }
    let endings = view.states().into_iter().filter(|state| state.is_final() && *state != State::Closed);
    let endings: String = endings.map(|state| format!(" {state};")).collect();
    let _ = writeln!(out, "    {{ rank=same;{endings} }}");
    for (from, to, arrows) in joined(view) {
        let style = match () {
            () if arrows.iter().all(|arrow| arrow.0.is_failure()) => ", style=dashed, color=firebrick",
            () if arrows.iter().all(|arrow| arrow.0.is_call()) => ", color=blue",
            () => "",
        };
        let _ = writeln!(out, "    {from} -> {to} [label=\"{}\"{style}];", label(&arrows, "\\n"));
    }
    out + "}\n"
}
