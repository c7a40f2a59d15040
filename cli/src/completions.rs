//! `finale completions`: a script with which a shell completes the command.

use clap::Command;
use clap_complete::Shell;

use crate::errors::Error;
use crate::output;

/// Print a completion script for a shell
///
/// For bash: finale completions bash > ~/.local/share/bash-completion/completions/finale
///
/// For zsh: finale completions zsh > DIR/_finale, where DIR is in $fpath
///
/// For fish: finale completions fish > ~/.config/fish/completions/finale.fish
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsOptions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script for this command.
pub(crate) fn run(options: &CompletionsOptions, command: &Command) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut without_hidden(command), command.get_name(), &mut script);
    output::print_bytes(&script)
}

/// The command without its hidden parts, which clap_complete would complete.
fn without_hidden(command: &Command) -> Command {
    let subcommands = command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set());
    let visible = Command::new(command.get_name().to_owned())
        .args(command.get_arguments().filter(|arg| !arg.is_hide_set()))
        .subcommands(subcommands.map(without_hidden));
    match command.get_about() {
        Some(about) => visible.about(about.clone()),
        None => visible,
    }
}
