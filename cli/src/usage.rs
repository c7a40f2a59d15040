//! A wrong command line, reported in one line: what is wrong, and which help describes it.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ColorChoice, Command, ValueEnum as _};

use crate::output;

/// Prints help and version as clap formats them, and a mistake in one line.
pub(crate) fn report(error: &clap::Error, command: &Command, args: &[String]) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // If this write fails, there is no place left to report it.
        let _ = error.print();
        return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
    }
    let line = stray_target(error, command, args).unwrap_or_else(|| one_line(error, &choices(error, command, args)));
    output::error(format_args!("{line}; see {}", help_of(command, args)));
    ExitCode::from(2)
}

/// A server without the option that names it, which clap takes for a subcommand.
fn stray_target(error: &clap::Error, command: &Command, args: &[String]) -> Option<String> {
    let stray = error.get(ContextKind::InvalidArg).or_else(|| error.get(ContextKind::InvalidSubcommand))?;
    let [server] = names(stray)[..] else { return None };
    let has_target = innermost(command, args).0.get_arguments().any(|arg| arg.get_long() == Some("target"));
    let is_server = has_target && !server.starts_with('-') && server.contains(':');
    is_server.then(|| format!("'{server}' is no subcommand; name a server with --target {server}"))
}

/// clap's message on one line, with what to choose from, with its hints and without its usage.
fn one_line(error: &clap::Error, choices: &str) -> String {
    let invalid = error.get(ContextKind::InvalidArg).or_else(|| error.get(ContextKind::InvalidSubcommand));
    let invalid = invalid.map(names).unwrap_or_default();
    match error.kind() {
        ErrorKind::MissingRequiredArgument => return format!("missing argument: {}", invalid.join(", ")),
        ErrorKind::ArgumentConflict => {
            let others = error.get(ContextKind::PriorArg).map(names).unwrap_or_default();
            if invalid == others {
                return format!("'{}' is given more than once", invalid.join(", "));
            }
            return format!("'{}' can't be used with '{}'", invalid.join(", "), others.join("', '"));
        }
        _ => {}
    }
    let text = error.render().to_string();
    let join = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (what, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut line = join(what.trim_start_matches("error: ")).trim_end_matches(']').replace(" [", "; ");
    line += choices;
    // The hint to write `-- -5` helps only where a positional argument may begin with a hyphen.
    let hints = rest.lines().filter_map(|line| line.trim().strip_prefix("tip: "));
    for hint in hints.filter(|hint| !hint.starts_with("to pass") && !names_far_subcommands(hint, &invalid)) {
        line = format!("{line}; {}", join(hint));
    }
    line
}

/// Whether a hint names only subcommands that begin differently: clap takes `pool` for similar to
/// `foo`. All subcommands are in the line.
fn names_far_subcommands(hint: &str, invalid: &[&str]) -> bool {
    let mut names = hint.split('\'').skip(1).step_by(2);
    let is_near = |name: &str| invalid.first().is_some_and(|word| word.chars().next() == name.chars().next());
    hint.contains("similar subcommand") && !names.any(is_near)
}

/// The arguments that clap names.
fn names(value: &ContextValue) -> Vec<&str> {
    match value {
        ContextValue::String(name) => vec![name],
        ContextValue::Strings(names) => names.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The subcommands to choose from, if another one was named.
fn choices(error: &clap::Error, command: &Command, args: &[String]) -> String {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return String::new();
    }
    let (command, _) = innermost(command, args);
    let names = command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()).map(Command::get_name);
    let names: Vec<_> = names.filter(|name| *name != "help").collect();
    if names.is_empty() { String::new() } else { format!("; choose from {}", names.join(", ")) }
}

/// The command that prints the help of the subcommand that these arguments name.
pub(crate) fn help_of(command: &Command, args: &[String]) -> String {
    format!("{} --help", innermost(command, args).1)
}

/// The subcommand that these arguments name, and the words before it.
fn innermost<'a>(mut command: &'a Command, args: &[String]) -> (&'a Command, String) {
    let mut path = command.get_name().to_owned();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "help" {
            continue;
        } else if let Some(subcommand) = command.find_subcommand(arg) {
            (command, path) = (subcommand, format!("{path} {}", subcommand.get_name()));
        } else if arg == "--color" {
            args.next();
        } else if !arg.starts_with('-') {
            break;
        }
    }
    (command, path)
}

/// The value of `--color` before the arguments are parsed: clap's own pages follow it, too. A wrong
/// value is reported by the parser.
pub(crate) fn color(args: &[String]) -> ColorChoice {
    let value = args.iter().enumerate().find_map(|(at, arg)| match arg.strip_prefix("--color")? {
        "" => args.get(at + 1).map(String::as_str),
        value => value.strip_prefix('='),
    });
    value.and_then(|value| ColorChoice::from_str(value, false).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_its_option_is_explained() {
        let target = clap::Arg::new("target").long("target");
        let bench = Command::new("bench").arg(target).subcommand(Command::new("merge"));
        let bench = bench.args_conflicts_with_subcommands(true);
        let command = Command::new("finale").subcommand(bench);
        for words in [&["finale", "bench", "host:1"][..], &["finale", "bench", "--target", "a:1", "host:1"]] {
            let error = command.clone().try_get_matches_from(words).expect_err("it is wrong");
            let args: Vec<_> = words[1..].iter().map(|word| (*word).to_owned()).collect();
            let line = stray_target(&error, &command, &args).unwrap_or_default();
            assert_eq!(line, "'host:1' is no subcommand; name a server with --target host:1");
        }
    }

    #[test]
    fn the_hint_names_the_innermost_subcommand() {
        let pool = Command::new("pool");
        let command = Command::new("finale").subcommand(Command::new("lesson").subcommand(pool));
        let help = |words: &str| help_of(&command, &words.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(help("lesson pool --seed lesson"), "finale lesson pool --help");
        assert_eq!(help("--color always lesson -x pol pool"), "finale lesson --help");
        assert_eq!(help("sing lesson"), "finale --help");
        assert_eq!(help("help lesson pol"), "finale lesson --help");
    }

    #[test]
    fn the_colour_is_known_before_the_arguments_are_parsed() {
        let color = |words: &str| color(&words.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(color("serve --color never echo"), ColorChoice::Never);
        assert_eq!(color("--color=always serve"), ColorChoice::Always);
        assert_eq!(color("serve echo --color pink"), ColorChoice::Auto);
    }
}
