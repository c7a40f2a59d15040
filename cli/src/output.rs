//! What the commands print: on stdout a result, on stderr errors and notices. And stdin.
//!
//! Invariants: nothing is lost, also if a descriptor has O_NONBLOCK, which another program on the
//! same terminal or pipe may have set: a call waits until it can do something, or until a limit of
//! the command (`limited`). A line on stderr begins at
//! the beginning of a line of the terminal, also next to data on stdout.
//!
//! Styles are always written; they are removed if `--color` or the terminal requires it.

use std::fmt;
use std::io::{self, IsTerminal as _, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anstream::{AutoStream, ColorChoice, adapter::strip_str};
use anstyle::{AnsiColor, Style};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::errors::Error;
use crate::{limited, log_queue};

/// Headings.
pub(crate) const HEADING: Style = Style::new().bold();
/// A result that is as it should be.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// A failure.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();

/// Stdin, without a buffer.
pub(crate) struct Stdin;

/// Stdout, without a buffer.
pub(crate) struct Stdout;

/// Stderr, without a buffer; in a server, the queue of its log. What is written begins a new line.
pub(crate) struct Stderr;

/// What a line of the log begins with, if it is not `finale`.
static NAME: OnceLock<String> = OnceLock::new();

/// Whether the last byte on the terminal belongs to a line of stdout that has not ended.
static LINE_IS_OPEN: AtomicBool = AtomicBool::new(false);

impl Read for Stdin {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        waiting(stdin.as_fd(), PollFlags::IN, || rustix::io::read(&stdin, &mut *bytes))
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match limited::get() {
            Some(limited) => limited.write_stdout(bytes),
            None => write_to(io::stdout().as_fd(), bytes),
        }?;
        if let Some(last) = bytes[..written].last() {
            LINE_IS_OPEN.store(*last != b'\n', Ordering::Relaxed);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if log_queue::push(bytes) { Ok(bytes.len()) } else { write_stderr(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes to stderr itself, and waits for its reader.
pub(crate) fn write_stderr(bytes: &[u8]) -> io::Result<usize> {
    let write = |bytes: &[u8]| match limited::get() {
        Some(limited) => limited.write_stderr(bytes),
        None => write_to(io::stderr().as_fd(), bytes),
    };
    if LINE_IS_OPEN.swap(false, Ordering::Relaxed) && io::stdout().is_terminal() && io::stderr().is_terminal() {
        write(b"\n")?;
    }
    write(bytes)
}

/// write(2), which waits for room also if the descriptor has O_NONBLOCK.
fn write_to(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    waiting(fd, PollFlags::OUT, || rustix::io::write(fd, bytes))
}

/// Repeats a call until the descriptor can do it.
fn waiting(
    fd: BorrowedFd<'_>,
    readiness: PollFlags,
    mut call: impl FnMut() -> rustix::io::Result<usize>,
) -> io::Result<usize> {
    loop {
        match call() {
            Err(Errno::AGAIN) => match poll(&mut [PollFd::from_borrowed_fd(fd, readiness)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            },
            Err(Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
}

/// Prints this on stdout at once.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    match AutoStream::choice(&io::stdout()) {
        ColorChoice::Never => print_bytes(strip_str(text).to_string().as_bytes()),
        _ => print_bytes(text.as_bytes()),
    }
}

/// Prints these bytes on stdout as they are.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Error> {
    Stdout.write_all(bytes).map_err(Error::Stdout)
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
    let line = format!("{line}\n");
    let _ = match AutoStream::choice(&io::stderr()) {
        ColorChoice::Never => Stderr.write_all(strip_str(&line).to_string().as_bytes()),
        _ => Stderr.write_all(line.as_bytes()),
    };
}

/// From now on each line of the log names the process: during a restart two write to one log.
pub(crate) fn name_process() {
    let _ = NAME.set(format!("finale[{}]", std::process::id()));
}

/// What a line on stderr begins with.
pub(crate) fn name() -> &'static str {
    NAME.get().map_or("finale", String::as_str)
}

/// Prints one line on stderr that reports an error. An address, a file name or a peer's text in it
/// does not begin another line, nor change the terminal.
pub(crate) fn error(line: fmt::Arguments<'_>) {
    say(format_args!("{BAD}{}:{BAD:#} {}", name(), printable(&line.to_string())));
}

/// The text with control characters as a string of Rust has them.
pub(crate) fn printable(text: &str) -> String {
    let escaped = |one: char| if one.is_control() { one.escape_default().to_string() } else { one.to_string() };
    text.chars().map(escaped).collect()
}

/// The result of a command that has also printed something. Its own failure decides the exit code,
/// and what could not be printed is reported next to it.
pub(crate) fn result_of_both(result: Result<(), Error>, printed: Result<(), Error>) -> Result<(), Error> {
    match (result, reader_may_leave(printed)) {
        (Err(failure), Err(lost)) => {
            error(format_args!("{lost}"));
            Err(failure)
        }
        (result, printed) => result.and(printed),
    }
}

/// How many characters fit on a line of stdout: 100 if it is not a terminal.
pub(crate) fn width() -> usize {
    width_of(io::stdout().as_fd())
}

/// The same of stderr.
pub(crate) fn stderr_width() -> usize {
    width_of(io::stderr().as_fd())
}

fn width_of(fd: BorrowedFd<'_>) -> usize {
    let columns = rustix::termios::tcgetwinsize(fd).ok().map(|size| usize::from(size.ws_col));
    columns.filter(|columns| *columns >= 60).unwrap_or(100)
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
    fn a_line_has_no_control_characters() {
        assert_eq!(printable("a\nb\r\x1b[31m\u{85} ü"), "a\\nb\\r\\u{1b}[31m\\u{85} ü");
    }

    #[test]
    fn numbers_are_grouped_and_nouns_agree_with_them() {
        let groups = [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")];
        assert!({ groups }.into_iter().all(|(number, text)| thousands(number) == text));
        let counts = [0, 1, 2_000].map(|number| count(number, "connection"));
        assert_eq!(counts, ["0 connections", "1 connection", "2,000 connections"]);
    }
}
