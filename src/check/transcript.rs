//! A transcript for people: two columns, the client's and the server's, with times.
//!
//! Invariant: lines with the same time keep the order in which they were added.

use std::fmt;
use std::time::Duration;

use crate::event::{Bytes, Event};
use crate::socket::Socket;

/// The column of a line.
///
/// ```
/// use std::time::Duration;
/// use finale::check::{Column, Transcript};
/// let mut transcript = Transcript::new();
/// transcript.add(Duration::from_millis(1), Column::Client, "connect");
/// transcript.add(Duration::from_millis(2), Column::Server, "connection");
/// assert_eq!(transcript.to_string().lines().count(), 4); // With the two lines at the top.
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Column {
    /// On the left.
    Client,
    /// On the right.
    Server,
    /// Across both columns: network conditions.
    Both,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    at: Duration,
    column: Column,
    text: String,
}

/// A transcript in two columns, which `Display` prints.
///
/// ```
/// use finale::check::Endings;
/// use finale::sim::Script;
/// use finale::{Event, ListenOptions, Socket};
///
/// let server = |socket: &mut Socket<'_>, event: Event<'_>| {
///     if matches!(event, Event::End) {
///         socket.end();
///     }
/// };
/// let script = Script::new().send(b"x").finish().receive_end();
/// // Seed 0 is the whole conversation, undisturbed.
/// let report = Endings::of_a_server(ListenOptions::default(), script).replay(0, || server);
/// println!("{}", report.transcript());
/// # assert!(!report.transcript().is_empty());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transcript {
    lines: Vec<Line>,
}

/// The number of lines that `Display` prints at the beginning and at the end of a long transcript.
const SHOWN: usize = 150;

/// The width of a column, in characters.
const WIDTH: usize = 52;

impl Transcript {
    /// An empty transcript.
    #[must_use]
    pub const fn new() -> Self {
        Self { lines: Vec::new() }
    }

    /// Adds a line, with its time since the network began.
    pub fn add(&mut self, at: Duration, column: Column, text: impl Into<String>) {
        self.lines.push(Line { at, column, text: text.into() });
    }

    /// Whether it has no line.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Sorts the lines by time.
    pub fn sort(&mut self) {
        self.lines.sort_by_key(|line| line.at);
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>14}  {:<WIDTH$} | server", "time", "client")?;
        writeln!(f, "{:>14}  {:-<WIDTH$}-+-{:-<WIDTH$}", "", "", "")?;
        // A run that does not end has too many lines to read.
        let skipped = self.lines.len().saturating_sub(2 * SHOWN);
        for (number, line) in self.lines.iter().enumerate() {
            if skipped > 0 && (SHOWN..SHOWN + skipped).contains(&number) {
                if number == SHOWN {
                    writeln!(f, "{:>14}  ... and {skipped} more lines ...", "")?;
                }
                continue;
            }
            let millis = format!("{:.3} ms", line.at.as_nanos() as f64 / 1e6);
            let mut time = millis.as_str();
            for piece in wrap(&line.text) {
                match line.column {
                    Column::Client => writeln!(f, "{time:>14}  {piece:<WIDTH$} |")?,
                    Column::Server => writeln!(f, "{time:>14}  {:<WIDTH$} | {piece}", "")?,
                    Column::Both => writeln!(f, "{time:>14}  ~ {piece}")?,
                }
                time = "";
            }
        }
        Ok(())
    }
}

/// Adds an event, and then what the handler does with it, as far as the state of the socket shows
/// it.
pub(crate) fn record<R>(
    transcript: &mut Transcript,
    at: Duration,
    column: Column,
    prefix: &str,
    socket: &mut Socket<'_>,
    event: Event<'_>,
    handle: impl FnOnce(&mut Socket<'_>, Event<'_>) -> R,
) -> R {
    transcript.add(at, column, format!("{prefix}{event}"));
    let queued = socket.queued_bytes();
    let before = (socket.end_called(), socket.is_paused(), socket.destroy_called());
    let result = handle(socket, event);
    let mut did = |text: String| transcript.add(at, column, format!("  {prefix}{text}"));
    if socket.queued_bytes() > queued {
        did(format!("writes {}", Bytes((socket.queued_bytes() - queued) as u64)));
    }
    let after = (socket.end_called(), socket.is_paused(), socket.destroy_called());
    for (was, is, text) in [
        (before.0, after.0, "ends"),
        (before.1, after.1, "pauses"),
        (after.1, before.1, "resumes"),
        (before.2, after.2, "destroys"),
    ] {
        if is && !was {
            did(text.to_owned());
        }
    }
    result
}

/// Wraps a text at the width of a column, between words where possible.
fn wrap(text: &str) -> Vec<String> {
    let indent = text.len() - text.trim_start().len();
    let mut pieces = vec![" ".repeat(indent)];
    for word in text.split_whitespace() {
        let last = pieces.last_mut().expect("there is one from the start on");
        if last.trim().is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= WIDTH {
            last.push(' ');
            last.push_str(word);
        } else {
            pieces.push(format!("{}{word}", " ".repeat(indent + 2)));
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_is_two_columns_with_times() {
        let mut transcript = Transcript::new();
        transcript.add(Duration::from_micros(2500), Column::Server, "connection");
        transcript.add(Duration::ZERO, Column::Client, "connect");
        transcript.add(Duration::from_millis(3), Column::Both, "the peer vanishes");
        transcript.sort();
        let page = transcript.to_string();
        let lines: Vec<&str> = page.lines().skip(2).collect();
        assert!(lines[0].trim_start().starts_with("0.000 ms  connect ") && lines[0].ends_with('|'), "{page}");
        assert!(lines[1].contains("2.500 ms") && lines[1].ends_with("| connection"), "{page}");
        assert!(lines[2].ends_with("~ the peer vanishes"), "{page}");
    }

    #[test]
    fn a_long_line_goes_on_below_without_a_time() {
        let mut transcript = Transcript::new();
        transcript.add(Duration::ZERO, Column::Client, "word ".repeat(30));
        assert_eq!(transcript.to_string().lines().filter(|line| line.contains("ms")).count(), 1);
        assert!(transcript.to_string().lines().all(|line| line.chars().count() <= 14 + 2 + WIDTH + 3 + WIDTH));
    }
}
