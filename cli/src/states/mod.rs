//! `finale states`: the lifecycle of a socket, from the table that runs.

mod kernel;
mod layout;
mod object;
mod svg;
mod walk;

use clap::ValueEnum;
use finale::lifecycle::{self, State, View, step};

use crate::errors::Error;
use crate::{html, output};
use object::StateObject;

/// The lifecycle of a socket: its states, inputs and events
///
/// It is printed from the table that the library runs.
///
/// Names of states and inputs are written as they are printed, or in another case and with hyphens:
/// PeerFinished, peer-finished.
#[derive(Debug, clap::Args)]
pub(crate) struct StatesOptions {
    /// Print one state: what it means, its states in RFC 9293, its transitions and its limits
    #[arg(value_name = "STATE", conflicts_with_all = ["view", "walk"])]
    state: Option<String>,
    /// The form in which to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The side whose lifecycle is printed
    #[arg(long, value_enum, default_value_t = Side::All)]
    view: Side,
    /// Print a path through the table: inputs, separated by commas, from Created or from the state
    /// that is named first: `accepted, data, fin, end-called`. Next to each state is what the kernel
    /// says then (RFC 9293), if a FIN arrives only where the path has it
    #[arg(long, value_name = "INPUTS", conflicts_with = "view")]
    walk: Option<String>,
    /// The same as --format json: an array with an object per state, its name, meaning, states in
    /// RFC 9293, transitions, limits, and the inputs that it defers or ignores; with --walk an
    /// object per step
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text for a terminal
    Text,
    /// A picture
    Svg,
    /// A page with the picture, and each state in words
    Html,
    /// JSON on one line
    Json,
    /// A state diagram for Mermaid
    Mermaid,
    /// A graph for Graphviz
    Dot,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Side {
    /// Both
    All,
    /// That of a socket that connects
    Client,
    /// That of a socket that was accepted
    Server,
}

impl From<Side> for View {
    fn from(side: Side) -> Self {
        match side {
            Side::All => Self::All,
            Side::Client => Self::Client,
            Side::Server => Self::Server,
        }
    }
}

/// The style of the pictures.
pub(crate) use svg::STYLE;

/// Every state, in words.
pub(crate) fn objects() -> impl serde::Serialize {
    View::All.states().into_iter().map(|state| StateObject::of(state, View::All)).collect::<Vec<_>>()
}

/// The picture of one side.
pub(crate) fn picture(view: View) -> String {
    svg::svg(view, step)
}

/// Prints it.
pub(crate) fn run(options: &StatesOptions) -> Result<(), Error> {
    let format = if options.json { Format::Json } else { options.format };
    if let Some(inputs) = &options.walk {
        let steps = walk::walk(inputs)?;
        return match format {
            Format::Text => output::print(&walk::text(&steps)),
            Format::Json => output::print_json(&steps),
            Format::Svg | Format::Html | Format::Mermaid | Format::Dot => {
                Err(Error::usage("--walk prints text or json; leave --format out"))
            }
        };
    }
    if let Some(name) = &options.state {
        let state = named(State::ALL, name, |state| state.name()).ok_or_else(|| unknown(name))?;
        let object = StateObject::of(state, View::All);
        return match format {
            Format::Text => output::print(&object.text()),
            Format::Json => output::print_json(&object),
            Format::Svg | Format::Html | Format::Mermaid | Format::Dot => {
                Err(Error::usage("one state is printed as text or json; leave --format out"))
            }
        };
    }
    let view = View::from(options.view);
    let objects = || view.states().into_iter().map(|state| StateObject::of(state, view)).collect::<Vec<_>>();
    match format {
        Format::Text => output::print(&lifecycle::print(lifecycle::Format::Text, view)),
        Format::Svg => output::print(&picture(view)),
        Format::Html => output::print(&page(view, &objects())),
        Format::Json => output::print_json(&objects()),
        Format::Mermaid => output::print(&lifecycle::print(lifecycle::Format::Mermaid, view)),
        Format::Dot => output::print(&lifecycle::print(lifecycle::Format::Dot, view)),
    }
}

/// The item with this name, whatever its case and hyphens.
fn named<T: Copy>(all: &[T], name: &str, name_of: impl Fn(T) -> &'static str) -> Option<T> {
    let plain = |name: &str| name.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    all.iter().copied().find(|&item| plain(name_of(item)) == plain(name))
}

/// The name may be one of the kernel's, which a reader knows from ss(8).
fn unknown(name: &str) -> Error {
    let names: Vec<_> = State::ALL.iter().map(|state| state.name()).collect();
    let has = |state: &&State| named(state.rfc9293(), name, |rfc9293| rfc9293).is_some();
    let own: Vec<_> = State::ALL.iter().filter(has).map(|state| state.name()).collect();
    if !own.is_empty() {
        let own = own.join(", ");
        return Error::usage(format!("{name:?} is a state of the kernel; a socket of finale is then in {own}"));
    }
    Error::usage(format!("{name:?} is not a state; the states are {}", names.join(", ")))
}

fn page(view: View, objects: &[StateObject]) -> String {
    let states: String = objects.iter().map(|object| object.html()).collect();
    let title = "The lifecycle of a socket";
    let picture = picture(view);
    let body = format!("<h1>{title}</h1>\n<figure>\n{picture}</figure>\n<h2>Each state</h2>\n{states}");
    html::page(title, include_str!("page.css"), &body)
}
