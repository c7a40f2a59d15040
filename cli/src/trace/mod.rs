//! `finale trace`: the ladder of a connection.

mod ladder;
mod legend;
mod script;
mod setting;
mod simulated;
mod sources;
mod svg;
mod text;

use clap::ValueEnum;
use finale::sim::Fault;

use crate::errors::Error;
use crate::output;
use crate::values;
pub(crate) use ladder::{Ladder, Moment, Row, RowKind, SideEnd, SideNow, Step, micros};
pub(crate) use script::{Action, Script, Side, Verb};
pub(crate) use setting::{connect_options, listen_options};
pub(crate) use simulated::{ROWS, apply, run as simulated};

/// The ladder of a connection: what each side does, what its kernel says, and the packets
///
/// A script says what the two sides do, on the simulated network and its virtual clock: `client
/// connect; client write 5; client end; server write 100; server end`. A step takes 10 ms, or the
/// time of its `wait 1m`, and a plus joins what happens at the same time. Verbs of a side: connect,
/// write N, end, destroy, pause, resume, discard; close (close(2) at once, as a program without
/// finale); fork (a child has a copy of the descriptor); freeze and thaw (SIGSTOP and SIGCONT);
/// crash (its program dies); vanish (its machine loses power); reboot (it is back at once); and
/// before the connection `server set idle-timeout 30s`. `network cut`, `restore`, `delay 50ms`,
/// `lose client` (its next packet), `hold` and `release`.
#[derive(Debug, clap::Args)]
pub(crate) struct TraceOptions {
    /// What happens
    #[arg(value_name = "SCRIPT", required_unless_present = "seed")]
    script: Option<String>,
    /// Instead of a script, a random run of `finale sim`: all its connections, with the packets by
    /// the port of their client. Of a long run, the last 10000 rows. The exit code is 1 if it breaks
    /// a rule
    #[arg(long, value_name = "SEED", conflicts_with = "script", value_parser = values::number::<u64>(0..=u64::MAX))]
    #[arg(allow_hyphen_values = true)]
    seed: Option<u64>,
    /// The fault that the run of --seed prefers, as for `finale sim --fault`
    #[arg(long, value_name = "NAME", conflicts_with = "script", requires = "seed", value_parser = fault)]
    fault: Option<Fault>,
    /// The form in which to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The same as --format json: an object with the rows, and how each side has ended
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// The width of the text, in characters [default: that of the terminal, or 100]
    #[arg(long, value_name = "N", value_parser = values::number::<u16>(60..=1000), allow_hyphen_values = true)]
    width: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text for a terminal
    Text,
    /// A picture
    Svg,
    /// A page with the picture
    Html,
    /// JSON on one line
    Json,
}

/// Runs the script or the seed, and prints its ladder.
pub(crate) fn run(options: &TraceOptions) -> Result<(), Error> {
    let (ladder, result) = match (&options.script, options.seed) {
        (None, Some(seed)) => sources::of_seed(seed, options.fault),
        (script, _) => (simulated(&Script::parse(script.as_deref().unwrap_or_default())?)?, Ok(())),
    };
    let format = if options.json { Format::Json } else { options.format };
    output::result_of_both(result, print(&ladder, format, options.width))
}

fn fault(text: &str) -> Result<Fault, String> {
    text.parse().map_err(|_unknown| "there is no such fault; `finale sim --fault list` prints all".to_owned())
}

fn print(ladder: &Ladder, format: Format, width: Option<u16>) -> Result<(), Error> {
    match format {
        Format::Text => output::print(&ladder.text(width.map_or_else(output::width, usize::from))),
        Format::Svg => output::print(&svg::svg(ladder)),
        Format::Html => output::print(&svg::html(ladder)),
        Format::Json => output::print_json(ladder),
    }
}
