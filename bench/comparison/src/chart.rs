//! The chart: one row for each server, a dot at the median ratio, a thick line over the quartiles,
//! a thin one over all rounds.

use anyhow::{Result, anyhow};
use plotters::backend::{DrawingBackend as _, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, FontStyle, IntoFont as _, RGBColor, TextStyle};

use crate::plan::Part;
use crate::raw::{Experiment, Raw};
use crate::roster::{self, BLOCKING};
use crate::stats::Spread;

const WIDTH: i32 = 920;
/// Where the names end and ratio 0 is, and where the scale ends and the figures begin.
const LEFT: i32 = 262;
const RIGHT: i32 = 760;
const TOP: i32 = 96;
const ROW: i32 = 34;
const BOTTOM: i32 = 78;

/// A colour of the chart: on a light page, and on a dark one.
struct Ink {
    light: (u8, u8, u8),
    dark: &'static str,
}

const PAPER: Ink = Ink { light: (255, 255, 255), dark: "#0D1117" };
const TEXT: Ink = Ink { light: (31, 35, 40), dark: "#E6EDF3" };
const QUIET: Ink = Ink { light: (89, 99, 110), dark: "#9DA7B1" };
const GRID: Ink = Ink { light: (222, 228, 234), dark: "#262C36" };
const BAND: Ink = Ink { light: (238, 245, 254), dark: "#121D2F" };
const OURS: Ink = Ink { light: (9, 105, 218), dark: "#58A6FF" };
const OTHERS: Ink = Ink { light: (110, 119, 129), dark: "#A4ADB6" };
const ONE: Ink = Ink { light: (191, 135, 0), dark: "#D29922" };
const INKS: &[&Ink] = &[&PAPER, &TEXT, &QUIET, &GRID, &BAND, &OURS, &OTHERS, &ONE];

impl Ink {
    const fn color(&self) -> RGBColor {
        RGBColor(self.light.0, self.light.1, self.light.2)
    }

    /// As it is written into the file.
    fn hex(&self) -> String {
        let (red, green, blue) = self.light;
        format!("#{red:02X}{green:02X}{blue:02X}")
    }
}

/// A row of the chart.
struct Line {
    label: String,
    ours: bool,
    spread: Spread,
}

/// The chart as SVG, or nothing if the main experiment or its reference is missing.
pub(crate) fn chart(raw: &Raw) -> Result<Option<String>> {
    let Some(main) = raw.experiment(Part::Main.id()) else { return Ok(None) };
    let lines = lines(main);
    if lines.is_empty() {
        return Ok(None);
    }
    let scale = Scale::of(&lines);
    let height = TOP + ROW * lines.len() as i32 + BOTTOM;
    let mut svg = String::new();
    {
        let mut pen = Pen { backend: SVGBackend::with_string(&mut svg, (WIDTH as u32, height as u32)) };
        pen.rect((0, 0), (WIDTH, height), &PAPER)?;
        for (number, _) in lines.iter().enumerate().filter(|(_, line)| line.ours) {
            let top = TOP + ROW * number as i32;
            pen.rect((12, top + 2), (WIDTH - 12, top + ROW - 2), &BAND)?;
        }
        head(&mut pen, main, &lines)?;
        grid(&mut pen, &scale, height)?;
        if let Some(words) = absent(main) {
            pen.words(&words, (LEFT, height - 16), 12, HPos::Left, &TEXT, true)?;
        }
        for (number, line) in lines.iter().enumerate() {
            pen.line_of(line, &scale, TOP + ROW * number as i32 + ROW / 2)?;
        }
        pen.backend.present().map_err(|error| anyhow!("{error}"))?;
    }
    Ok(Some(in_both_lights(&svg)))
}

/// Against the blocking loop, cheapest first.
fn lines(main: &Experiment) -> Vec<Line> {
    let line = |name: &str| {
        let spread = main.cpu_ratio(name, BLOCKING)?;
        Some(Line { label: plain(name), ours: roster::is_finale(name), spread })
    };
    let mut lines: Vec<Line> = main.rows.iter().filter_map(|row| line(&row.name)).collect();
    lines.sort_by(|a, b| a.spread.median.total_cmp(&b.spread.median));
    lines
}

/// From 0, so that lengths can be compared, to a little beyond the largest; but not so far that one
/// server flattens all.
struct Scale {
    end: f64,
    step: f64,
}

impl Scale {
    /// The maximum of the scale. A larger value is an arrow at its end, with the figure next to it.
    const LIMIT: f64 = 2.25;

    fn of(lines: &[Line]) -> Self {
        let largest = lines.iter().map(|line| line.spread.max).fold(1.0, f64::max);
        let step = 0.25;
        Self { end: ((largest / step).ceil() * step).min(Self::LIMIT), step }
    }

    fn x(&self, ratio: f64) -> i32 {
        LEFT + (f64::from(RIGHT - LEFT) * (ratio / self.end).min(1.0)).round() as i32
    }
}

fn head(pen: &mut Pen, main: &Experiment, lines: &[Line]) -> Result<()> {
    let rounds = lines.iter().map(|line| line.spread.rounds).max().unwrap_or(0);
    pen.words("What a half-closing connection costs the server", (24, 32), 21, HPos::Left, &TEXT, true)?;
    let under = format!("CPU time per connection, blocking loop in C = 1; {rounds} interleaved rounds, {}", main.title);
    pen.words(&under, (24, 58), 14, HPos::Left, &QUIET, false)?;
    pen.words("median (quartiles)", (WIDTH - 24, TOP - 14), 12, HPos::Right, &QUIET, false)
}

fn grid(pen: &mut Pen, scale: &Scale, height: i32) -> Result<()> {
    let bottom = height - BOTTOM + 4;
    let steps = (scale.end / scale.step).round() as i32;
    for step in 0..=steps {
        let ratio = f64::from(step) * scale.step;
        let x = scale.x(ratio);
        let one = (ratio - 1.0).abs() < 1e-9;
        pen.stroke((x, TOP - 4), (x, bottom), if one { &ONE } else { &GRID }, if one { 2 } else { 1 })?;
        let ink = if one { &ONE } else { &QUIET };
        pen.words(&format!("{ratio:.2}"), (x, bottom + 14), 12, HPos::Center, ink, one)?;
    }
    let key = "dot: median · thick line: quartiles · thin line: all rounds · arrow: beyond the scale · further left is cheaper";
    pen.words(key, (LEFT, bottom + 40), 12, HPos::Left, &QUIET, false)
}

/// A server that has failed has no ratio; it must not look as if it had not taken part.
fn absent(main: &Experiment) -> Option<String> {
    let failed = main.rows.iter().filter(|row| row.failure.is_some());
    let names: Vec<String> = failed.map(|row| plain(&row.name)).collect();
    (!names.is_empty()).then(|| format!("failed, and so not shown: {}", names.join(", ")))
}

/// A label without the stress that it has in a table.
fn plain(name: &str) -> String {
    roster::label(name).replace("**", "")
}

/// Plotters' SVG writer, with the few strokes that this chart needs.
struct Pen<'a> {
    backend: SVGBackend<'a>,
}

impl Pen<'_> {
    fn rect(&mut self, from: (i32, i32), to: (i32, i32), ink: &Ink) -> Result<()> {
        self.backend.draw_rect(from, to, &ink.color(), true).map_err(|error| anyhow!("{error}"))
    }

    fn stroke(&mut self, from: (i32, i32), to: (i32, i32), ink: &Ink, width: u32) -> Result<()> {
        self.backend.draw_line(from, to, &ink.color().stroke_width(width)).map_err(|error| anyhow!("{error}"))
    }

    fn words(&mut self, words: &str, at: (i32, i32), size: i32, side: HPos, ink: &Ink, bold: bool) -> Result<()> {
        let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
        let font = ("sans-serif", f64::from(size)).into_font().style(style);
        let color = ink.color();
        let style = TextStyle::from(font).color(&color).pos(Pos::new(side, VPos::Center));
        self.backend.draw_text(words, &style, at).map_err(|error| anyhow!("{error}"))
    }

    fn line_of(&mut self, line: &Line, scale: &Scale, y: i32) -> Result<()> {
        let (ink, spread) = (if line.ours { &OURS } else { &OTHERS }, &line.spread);
        self.words(&line.label, (LEFT - 18, y), 14, HPos::Right, &TEXT, line.ours)?;
        let figures = format!("{:.2} ({:.2}–{:.2})", spread.median, spread.lower, spread.upper);
        self.words(&figures, (WIDTH - 24, y), 13, HPos::Right, if line.ours { &OURS } else { &TEXT }, line.ours)?;
        if spread.median > scale.end {
            self.stroke((RIGHT - 26, y), (RIGHT, y), ink, 2)?;
            self.stroke((RIGHT - 7, y - 5), (RIGHT, y), ink, 2)?;
            return self.stroke((RIGHT - 7, y + 5), (RIGHT, y), ink, 2);
        }
        self.stroke((scale.x(spread.min), y), (scale.x(spread.max), y), ink, 1)?;
        for end in [spread.min, spread.max] {
            self.stroke((scale.x(end), y - 4), (scale.x(end), y + 4), ink, 1)?;
        }
        self.stroke((scale.x(spread.lower), y), (scale.x(spread.upper), y), ink, 5)?;
        let center = (scale.x(spread.median), y);
        for (radius, ink) in [(6, &PAPER), (5, ink)] {
            self.backend.draw_circle(center, radius, &ink.color(), true).map_err(|error| anyhow!("{error}"))?;
        }
        Ok(())
    }
}

/// A style sheet that exchanges the colours on a dark page, and a title for screen readers.
fn in_both_lights(svg: &str) -> String {
    let rule = |ink: &&Ink| {
        let (light, dark) = (ink.hex(), ink.dark);
        format!("[fill=\"{light}\"]{{fill:{dark}}}[stroke=\"{light}\"]{{stroke:{dark}}}")
    };
    let rules: String = INKS.iter().map(rule).collect();
    let style = format!(
        "<title>CPU time per half-closing connection, each server against a blocking loop in C</title>\n\
         <style>text{{font-family:-apple-system,'Segoe UI','Noto Sans','DejaVu Sans',Helvetica,Arial,sans-serif}}\
         @media (prefers-color-scheme:dark){{{rules}}}</style>\n"
    );
    let inside = svg.find("<svg").and_then(|at| Some(at + svg[at..].find('>')? + 1)).unwrap_or(0);
    format!("{}\n{style}{}", &svg[..inside], svg[inside..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::tests::{experiment, row};

    fn raw() -> Raw {
        let rows =
            vec![row(BLOCKING, &[40.0, 44.0]), row(roster::HAND_OFF, &[32.0, 36.0]), row(roster::TOKIO, &[48.0, 56.0])];
        Raw { experiments: vec![experiment("main", rows)], ..Raw::default() }
    }

    #[test]
    fn every_server_is_in_the_chart_with_its_median() {
        let svg = chart(&raw()).unwrap().unwrap();
        for words in
            ["finale, hand-off", "C, blocking loop", "tokio, current_thread", "0.81 (0.80–0.81)", "1.00 (1.00–1.00)"]
        {
            assert!(svg.contains(words), "{words} is missing:\n{svg}");
        }
    }

    #[test]
    fn a_server_that_failed_is_named_below() {
        let mut raw = raw();
        raw.experiments[0].rows[2].failure = Some("3 failed".into());
        let svg = chart(&raw).unwrap().unwrap();
        assert!(svg.contains("failed, and so not shown: tokio, current_thread"), "{svg}");
    }

    #[test]
    fn every_colour_that_is_drawn_has_one_for_dark_pages() {
        let svg = chart(&raw()).unwrap().unwrap();
        let (style, drawing) = svg.split_once("</style>").unwrap();
        for attribute in ["fill=\"#", "stroke=\"#"] {
            for color in drawing.split(attribute).skip(1).map(|rest| &rest[..6]) {
                assert!(style.contains(&format!("[{attribute}{color}\"]")), "{color}");
            }
        }
        assert!(style.contains("prefers-color-scheme:dark"));
    }

    #[test]
    fn the_scale_begins_at_0_and_holds_every_round_up_to_its_limit() {
        let line = |max| Line {
            label: String::new(),
            ours: false,
            spread: Spread { min: 0.5, lower: 0.6, median: 0.7, upper: 0.8, max, rounds: 2 },
        };
        for max in [0.9, 1.3, 2.9, 7.0] {
            let scale = Scale::of(&[line(max)]);
            assert_eq!(scale.x(0.0), LEFT);
            assert!(scale.x(max) <= RIGHT && scale.x(1.0) <= RIGHT);
        }
    }

    #[test]
    fn without_the_reference_there_is_no_chart() {
        assert!(chart(&Raw::default()).unwrap().is_none());
        let alone = Raw { experiments: vec![experiment("main", vec![row(roster::TOKIO, &[1.0])])], ..Raw::default() };
        assert!(chart(&alone).unwrap().is_none());
    }
}
