//! `finale man`: the manual pages, made from the help texts.

use clap::Command;
use clap_mangen::Man;

use crate::errors::Error;
use crate::output;

/// Print a manual page in roff
///
/// To read it: finale man serve | man -l -
///
/// To install it: finale man > DIR/man1/finale.1, where DIR is in the path of man
#[derive(Debug, clap::Args)]
pub(crate) struct ManOptions {
    /// The subcommand, as `serve` or `lesson pool` [default: the whole command]
    #[arg(value_name = "COMMAND")]
    path: Vec<String>,
}

/// Prints the page of this command, or of one of its subcommands.
pub(crate) fn run(options: &ManOptions, mut command: Command) -> Result<(), Error> {
    // This sets the names of subcommands, as finale-serve.
    command.build();
    let mut page = &command;
    for name in &options.path {
        page = page.find_subcommand(name).filter(|found| !found.is_hide_set()).ok_or_else(|| {
            let visible = page.get_subcommands().filter(|subcommand| !subcommand.is_hide_set());
            let names = visible.map(Command::get_name).filter(|name| *name != "help");
            let names = names.collect::<Vec<_>>().join(", ");
            let of = page.get_bin_name().unwrap_or("finale");
            Error::usage(match names.is_empty() {
                true => format!("'{name}': {of} has no subcommands"),
                false => format!("'{name}' is not a subcommand of {of}; choose from {names}"),
            })
        })?;
    }
    let source = format!("finale {}", command.get_version().unwrap_or_default());
    let page = Man::new(page.clone()).source(source);
    let mut text = Vec::new();
    page.render(&mut text).map_err(|error| Error::io("make the manual page", error))?;
    output::print_bytes(&text)
}
