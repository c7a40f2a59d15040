//! The ladder as text: two columns, and the packets between them.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::ladder::{Ladder, Row, RowKind};
use super::script::Side;

/// The widths of the times, and of the packets between the columns.
const TIME: usize = 13;
const WIRE: usize = 22;
/// A column that is narrower is no column.
const NARROWEST: usize = 16;

/// The ladder, for lines of this many characters.
pub(crate) fn text(ladder: &Ladder, width: usize) -> String {
    // Where only one side is seen, it has the whole width.
    let is_alone = ladder.sides.len() == 1;
    let column = if is_alone { width.saturating_sub(TIME + 2) } else { width.saturating_sub(TIME + 2 + WIRE) / 2 };
    let column = column.max(NARROWEST);
    let mut out = format!("{}\n\n{:>TIME$}  ", ladder.title, "time");
    let _ = match is_alone {
        true => writeln!(out, "client"),
        false => writeln!(out, "{:<column$}{:^WIRE$}server", "client", ""),
    };
    let mut time = String::new();
    for row in &ladder.rows {
        let now = time_of(row.at_us);
        let shown = if now == time { "" } else { &now };
        draw(&mut out, row, shown, column);
        time.clone_from(&now);
    }
    if ladder.lost > 0 {
        let _ = writeln!(out, "{:>TIME$}  {} more rows were not kept", "", ladder.lost);
    }
    out.push('\n');
    for end in &ladder.sides {
        let ending = end.ending.as_deref().unwrap_or("not over");
        let _ = writeln!(out, "{}: {}, {ending}", end.side.name(), end.state);
    }
    out
}

fn draw(out: &mut String, row: &Row, time: &str, column: usize) {
    let style = style(row);
    if let RowKind::Packet { text, arrives_us } = &row.what {
        let arrow = arrow(text, arrives_us.is_none(), row.side);
        let _ = writeln!(out, "{time:>TIME$}  {:<column$}{style}{arrow:^WIRE$}{style:#}", "");
        return;
    }
    // A line that is too long continues below, without a time.
    for (at, piece) in wrapped(&row.text(), column).iter().enumerate() {
        let time = if at == 0 { time } else { "" };
        match row.side {
            Side::Client => {
                let _ = writeln!(out, "{time:>TIME$}  {style}{piece}{style:#}");
            }
            Side::Server => {
                let _ = writeln!(out, "{time:>TIME$}  {:<column$}{:^WIRE$}{style}{piece}{style:#}", "", "");
            }
        }
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

/// Milliseconds up to a minute, then seconds.
fn time_of(micros: u64) -> String {
    match micros {
        0..60_000_000 => format!("{}.{:03} ms", micros / 1000, micros % 1000),
        _ => format!("{}.{:03} s", micros / 1_000_000, micros / 1000 % 1000),
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
