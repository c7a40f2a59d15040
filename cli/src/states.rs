//! `finale states`: the lifecycle of a socket, from the table that runs.

use clap::ValueEnum;
use finale::lifecycle::{self, Cell, Input, State, step};
use serde::Serialize;

use crate::errors::Error;
use crate::output;

/// The lifecycle of a socket: its states, inputs and events
///
/// It is printed from the table that the library runs.
#[derive(Debug, clap::Args)]
pub(crate) struct StatesOptions {
    /// The form in which to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Print one JSON array with an object per state: its name, its states in RFC 9293, its
    /// transitions, and the inputs that it defers or ignores
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Text for a terminal
    Text,
    /// A state diagram for Mermaid
    Mermaid,
    /// A graph for Graphviz
    Dot,
}

impl From<Format> for lifecycle::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Text => Self::Text,
            Format::Mermaid => Self::Mermaid,
            Format::Dot => Self::Dot,
        }
    }
}

/// Prints it.
pub(crate) fn run(options: &StatesOptions) -> Result<(), Error> {
    if options.json {
        return output::print_json(&State::ALL.iter().map(|&state| StateObject::of(state)).collect::<Vec<_>>());
    }
    output::print(&lifecycle::print(options.format.into()))
}

/// One state. The names are stable: programs read them.
#[derive(Serialize)]
struct StateObject {
    state: &'static str,
    rfc9293: &'static [&'static str],
    transitions: Vec<Transition>,
    deferred: Vec<&'static str>,
    ignored: Vec<&'static str>,
}

#[derive(Serialize)]
struct Transition {
    input: &'static str,
    next: &'static str,
    emits: Vec<&'static str>,
}

impl StateObject {
    fn of(state: State) -> Self {
        let (mut transitions, mut deferred, mut ignored) = (Vec::new(), Vec::new(), Vec::new());
        for input in Input::ALL {
            match step(state, *input) {
                Cell::Go(next, emits) => transitions.push(Transition {
                    input: input.name(),
                    next: next.name(),
                    emits: emits.iter().map(|event| event.name()).collect(),
                }),
                Cell::Deferred => deferred.push(input.name()),
                Cell::Ignored => ignored.push(input.name()),
                Cell::Impossible => {}
            }
        }
        Self { state: state.name(), rfc9293: state.rfc9293(), transitions, deferred, ignored }
    }
}
