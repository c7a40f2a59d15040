//! The ladder as text: two columns, and the packets between them.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::ladder::{Ladder, Row, RowKind, time_of};
use super::script::Side;

/// The widths of the times, and of the packets between the columns: of a narrow ladder, the columns
/// keep theirs.
const TIME: usize = 13;
const WIRE: usize = 22;
const NARROWEST: usize = 16;

/// The ladder, for lines of this many characters.
pub(crate) fn text(ladder: &Ladder, width: usize) -> String {
    let room = width.saturating_sub(TIME + 2);
    let wire = WIRE.min(room.saturating_sub(2 * NARROWEST));
    // Where only one side is seen, it has the whole width.
    let alone = if let [end] = &ladder.sides[..] { Some(end.side) } else { None };
    let column = if alone.is_some() { room } else { room.saturating_sub(wire) / 2 }.max(NARROWEST);
    let mut out = textwrap::fill(&ladder.title, width) + "\n\n";
    let _ = match alone {
        Some(side) => writeln!(out, "{:>TIME$}  {}", "time", side.name()),
        None => writeln!(out, "{:>TIME$}  {:<column$}{:^wire$}server", "time", "client", ""),
    };
    if ladder.lost > 0 {
        let _ = writeln!(out, "{:>TIME$}  {} earlier rows were not kept", "", ladder.lost);
    }
    let mut time = String::new();
    for row in &ladder.rows {
        let now = time_of(row.at_us);
        let shown = if now == time { "" } else { &now };
        let indent = if alone.is_none() && row.side == Side::Server { column + wire } else { 0 };
        draw(&mut out, ladder, row, shown, (column, wire, indent));
        time.clone_from(&now);
    }
    out.push('\n');
    for end in &ladder.sides {
        out += &textwrap::fill(&(end.text() + "\n"), width);
    }
    out
}

fn draw(out: &mut String, ladder: &Ladder, row: &Row, time: &str, (column, wire, indent): (usize, usize, usize)) {
    let style = style(row);
    if let RowKind::Packet { text, arrives_us } = &row.what {
        let arrow = arrow(text, arrives_us.is_none(), row.side);
        // The columns are empty next to it.
        let before = (2 * column + wire).saturating_sub(arrow.len()) / 2;
        let _ = writeln!(out, "{time:>TIME$}  {:<before$}{style}{arrow}{style:#}", "");
        return;
    }
    // A line that is too long continues below, without a time.
    for (at, piece) in wrapped(&ladder.text_of(row), column).iter().enumerate() {
        let time = if at == 0 { time } else { "" };
        let _ = writeln!(out, "{time:>TIME$}  {:indent$}{style}{piece}{style:#}", "");
    }
}

fn wrapped(text: &str, column: usize) -> Vec<String> {
    let options = textwrap::Options::new(column).subsequent_indent("  ");
    textwrap::wrap(text, options).into_iter().map(std::borrow::Cow::into_owned).collect()
}

/// A packet on its way, with its text in the middle of the arrow.
fn arrow(text: &str, is_lost: bool, sender: Side) -> String {
    let line = "-".repeat((WIRE - 4).saturating_sub(text.len() + 2) / 2);
    match (sender, is_lost) {
        (Side::Client, false) => format!("{line} {text} {line}>"),
        (Side::Client, true) => format!("{line} {text} x"),
        (Side::Server, false) => format!("<{line} {text} {line}"),
        (Side::Server, true) => format!("x {text} {line}"),
    }
}

const fn style(row: &Row) -> Style {
    match row.what {
        RowKind::Action { .. } => AnsiColor::Blue.on_default().bold(),
        RowKind::Call { error: Some(_), .. } => AnsiColor::Red.on_default(),
        RowKind::Call { .. } => Style::new(),
        RowKind::Step { .. } => AnsiColor::Green.on_default(),
        RowKind::Kernel { .. } => Style::new().dimmed(),
        RowKind::Packet { .. } => AnsiColor::Cyan.on_default(),
        RowKind::Ending { .. } => Style::new().bold(),
        RowKind::Note { .. } => AnsiColor::Yellow.on_default(),
    }
}
