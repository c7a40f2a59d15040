//! What the commands print: on stdout a result, on stderr errors and notices.
//!
//! Styles are always written; the streams remove them if `--color` or the terminal requires it.

use std::fmt;
use std::io::{self, Write as _};

use anstyle::{AnsiColor, Style};

use crate::errors::Error;
use crate::stderr;

/// Headings.
pub(crate) const HEADING: Style = Style::new().bold();
/// A result that is as it should be.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// A failure.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();

/// Prints this on stdout at once.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::Stdout)
}

/// Prints these bytes on stdout as they are.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Error::Stdout)
}

/// Prints this object on stdout, on one line.
pub(crate) fn print_json(object: &impl serde::Serialize) -> Result<(), Error> {
    print(&(json(object)? + "\n"))
}

/// The object as text, on one line.
pub(crate) fn json(object: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(object).map_err(|error| Error::io("write JSON", error.into()))
}

/// Prints one line on stderr.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    stderr::write_line(&line.to_string());
}

/// Prints one line on stderr that reports an error.
pub(crate) fn error(line: fmt::Arguments<'_>) {
    say(format_args!("{BAD}finale:{BAD:#} {line}"));
}

/// `finale states | head` is no failure: the reader has what it wanted.
pub(crate) fn reader_may_leave(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Stdout(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// `1 connection`, `2,000 connections`. For nouns with a plural in -s.
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// Digits in groups of three.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_nouns_agree_with_them() {
        let groups = [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")];
        assert!({ groups }.into_iter().all(|(number, text)| thousands(number) == text));
        let counts = [0, 1, 2_000].map(|number| count(number, "connection"));
        assert_eq!(counts, ["0 connections", "1 connection", "2,000 connections"]);
    }
}
