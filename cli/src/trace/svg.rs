//! The ladder as a picture, and a page with it.

use std::fmt::Write as _;

use super::ladder::{Ladder, Row, RowKind, time_of};
use super::legend;
use super::script::Side;
use crate::html::{self, escape};

const WIDTH: i32 = 1280;
/// The lines of the two sides.
const CLIENT: i32 = 530;
const SERVER: i32 = 810;
/// The height of a row, and of what is above the first.
const ROW: i32 = 20;
const HEAD: i32 = 64;
/// The most letters of a line.
const FIT: usize = 56;

const STYLE: &str = include_str!("ladder.css");

/// The ladder as SVG.
pub(crate) fn svg(ladder: &Ladder) -> String {
    let lines: Vec<_> = ladder.rows.iter().map(|row| lines_of(ladder, row)).collect();
    // The base line of each row, and of what follows the last.
    let mut places = vec![HEAD + ROW];
    for lines in &lines {
        places.push(places.last().unwrap_or(&HEAD) + ROW * lines.len() as i32);
    }
    let end = places.last().unwrap_or(&HEAD) + ROW;
    let height = end + legend::HEIGHT;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" class=\"ladder\" role=\"img\" \
         aria-label=\"The ladder of a connection\">\n<style>\n{STYLE}</style>\n<defs>\n\
         <marker id=\"ladder-head\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" markerHeight=\"7\" \
         orient=\"auto\"><path class=\"head\" d=\"M0 0 10 5 0 10z\"/></marker>\n\
         <marker id=\"ladder-lost\" viewBox=\"0 0 10 10\" refX=\"5\" refY=\"5\" markerWidth=\"7\" markerHeight=\"7\">\
         <path class=\"cross\" d=\"M0 0 10 10M0 10 10 0\"/></marker>\n</defs>\n\
         <text class=\"side\" x=\"{CLIENT}\" y=\"36\">client</text>\
         <text class=\"side\" x=\"{SERVER}\" y=\"36\">server</text>\n\
         <path class=\"life\" d=\"M{CLIENT} 48V{end}M{SERVER} 48V{end}\"/>\n"
    );
    if ladder.lost > 0 {
        let _ =
            writeln!(out, "<text class=\"time\" x=\"8\" y=\"36\">{} earlier rows were not kept</text>", ladder.lost);
    }
    let mut before = None;
    for (at, row) in ladder.rows.iter().enumerate() {
        if before != Some(row.at_us) {
            let y = places[at];
            let _ = writeln!(out, "<text class=\"time\" x=\"8\" y=\"{y}\">{}</text>", time_of(row.at_us));
        }
        before = Some(row.at_us);
        if let RowKind::Packet { arrives_us, .. } = row.what {
            packet(&mut out, ladder, &places, at, arrives_us);
        } else {
            draw(&mut out, row, &lines[at], places[at]);
        }
    }
    legend::add(&mut out, end + ROW);
    out + "</svg>\n"
}

const PAGE_STYLE: &str = include_str!("page.css");

/// A page with the picture.
pub(crate) fn html(ladder: &Ladder) -> String {
    let title = escape(&ladder.title);
    let ends: String = ladder.sides.iter().map(|end| format!("<li>{}\n", escape(&end.text()))).collect();
    let body = format!(
        "<h1>The ladder of a connection</h1>\n<p><code>{title}</code></p>\n<figure>\n{}</figure>\n<ul>\n{ends}</ul>\n",
        svg(ladder)
    );
    html::page(&title, PAGE_STYLE, &body)
}

fn lines_of(ladder: &Ladder, row: &Row) -> Vec<String> {
    let text = ladder.text_of(row);
    textwrap::wrap(&text, FIT).into_iter().map(std::borrow::Cow::into_owned).collect()
}

fn draw(out: &mut String, row: &Row, lines: &[String], y: i32) {
    let (x, anchor) = match row.side {
        Side::Client => (CLIENT - 14, "end"),
        Side::Server => (SERVER + 14, "start"),
    };
    for (line, y) in lines.iter().zip((y..).step_by(ROW as usize)) {
        let _ = writeln!(
            out,
            "<g class=\"row {}\"><text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{}</text></g>",
            row.class(),
            escape(line)
        );
    }
}

/// An arrow from the row in which a packet was sent to the first row at the time of its arrival.
/// A lost packet does not get there.
fn packet(out: &mut String, ladder: &Ladder, places: &[i32], at: usize, arrives_us: Option<u64>) {
    let row = &ladder.rows[at];
    let (from, to) = match row.side {
        Side::Client => (CLIENT, SERVER),
        Side::Server => (SERVER, CLIENT),
    };
    let begin = places[at] - 5;
    let class = if arrives_us.is_some() { "" } else { " lost" };
    let (x, end) = match arrives_us {
        Some(time) => {
            let arrival = ladder.rows.iter().skip(at).take_while(|row| row.at_us < time).count();
            (to, places[at + arrival.max(1)] - 12)
        }
        None => (to - (to - from) / 8, begin + ROW / 2),
    };
    let head = if arrives_us.is_some() { "head" } else { "lost" };
    let _ = writeln!(
        out,
        "<g class=\"row packet{class}\"><path class=\"wire\" marker-end=\"url(#ladder-{head})\" \
         d=\"M{from} {begin}L{x} {end}\"/><text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text></g>",
        // Near its sender: the texts of two packets that cross stay apart.
        from + (x - from) / 3,
        begin + (end - begin) / 3 - 4,
        escape(&row.line)
    );
}
