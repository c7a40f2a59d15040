//! The lifecycle as a picture, drawn from the table that runs.
//!
//! Invariant: every transition of the table is in the picture, as a label of its arrow or of the
//! arrow of its frame.

use std::fmt::Write as _;

use finale::lifecycle::{Cell, Emits, Input, State, View};

use super::layout::{self, FRAMES, Frame, HALF, Point, Route, SIZE, Side};
use super::object::plain;

/// The table: the library's own, or in a test one with a change.
pub(super) type Table = fn(State, Input) -> Cell;

/// The distance of two lines of a label.
const LINE: i32 = 14;
/// A frame's title is so far from its lower left corner, on the right of the rail.
const TITLE: Point = (32, 9);
/// How many letters of a state's RFC 9293 names fit on a line.
const FIT: usize = 29;

pub(crate) const STYLE: &str = include_str!("diagram.css");

/// Why an arrow is taken: the class of its style.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Network,
    Call,
    Failure,
}

impl Kind {
    const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::Network, "network", "what arrives or is done"),
        (Self::Call, "call", "a call of the program"),
        (Self::Failure, "failure", "a failure, a reset, a limit"),
    ];

    const fn of(input: Input) -> Self {
        match input {
            _ if input.is_failure() => Self::Failure,
            _ if input.is_call() => Self::Call,
            _ => Self::Network,
        }
    }

    const fn class(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// One arrow with its label.
struct Arrow {
    route: Route,
    kind: Kind,
    /// The states that it leaves, and the one that it enters: what a page lights.
    from: Vec<State>,
    to: State,
    lines: Vec<String>,
}

/// A view of the table as SVG.
pub(super) fn svg(view: View, table: Table) -> String {
    let (states, arrows) = (view.states(), arrows(view, table));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" role=\"img\" class=\"lifecycle\" \
         aria-labelledby=\"lifecycle-title lifecycle-desc\">\n\
         <title id=\"lifecycle-title\">The lifecycle of a socket</title>\n\
         <desc id=\"lifecycle-desc\">{}</desc>\n<style>\n{STYLE}</style>\n<defs>\n",
        SIZE.0,
        SIZE.1,
        description(&arrows),
    );
    for (_, class, _) in Kind::ALL {
        let _ = writeln!(
            out,
            "<marker id=\"head-{class}\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" \
             markerHeight=\"7\" orient=\"auto\"><path class=\"head {class}\" d=\"M0 0 10 5 0 10z\"/></marker>"
        );
    }
    out += "</defs>\n";
    FRAMES.iter().for_each(|frame| draw_frame(&mut out, frame));
    draw_legend(&mut out);
    arrows.iter().for_each(|arrow| draw_line(&mut out, arrow));
    states.iter().for_each(|&state| draw_state(&mut out, state));
    // Labels last, so that no line is above a letter. A label of several arrows is drawn once.
    let mut labels: Vec<String> = Vec::new();
    for arrow in &arrows {
        let label = label(arrow);
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    out + &labels.concat() + "</svg>\n"
}

/// All arrows: what a whole frame has in common first, then the rest of each pair of states.
fn arrows(view: View, table: Table) -> Vec<Arrow> {
    let goes = |state, input| match table(state, input) {
        Cell::Go(to, emits) if view.has(input) => Some((to, emits)),
        _ => None,
    };
    let states = view.states();
    let (mut arrows, mut framed): (Vec<Arrow>, Vec<(State, Input)>) = (Vec::new(), Vec::new());
    for &input in Input::ALL {
        for frame in &FRAMES {
            let inside: Vec<State> = states.iter().copied().filter(|&state| (frame.has)(state)).collect();
            let leaving: Vec<State> = states.iter().copied().filter(|&state| goes(state, input).is_some()).collect();
            let Some((to, emits)) = inside.first().and_then(|&state| goes(state, input)) else { continue };
            if leaving == inside && inside.iter().all(|&state| goes(state, input) == Some((to, emits))) {
                framed.extend(inside.iter().map(|&state| (state, input)));
                let (route, kind) = (layout::from_frame(frame, to), Kind::of(input));
                arrows.push(Arrow { route, kind, from: inside, to, lines: vec![line(input, emits)] });
            }
        }
    }
    for &from in &states {
        for &input in Input::ALL {
            let Some((to, emits)) = goes(from, input).filter(|_| !framed.contains(&(from, input))) else { continue };
            let (line, kind) = (line(input, emits), Kind::of(input));
            match arrows.iter_mut().find(|arrow| (arrow.from.as_slice(), arrow.to) == (&[from][..], to)) {
                // A loop joins all its lines; another arrow those of its own style.
                Some(arrow) if from == to || arrow.kind == kind => arrow.lines.push(line),
                _ => {
                    let route = if from == to { layout::at(from) } else { layout::between(from, to) };
                    arrows.push(Arrow { route, kind, from: vec![from], to, lines: vec![line] });
                }
            }
        }
    }
    arrows
}

/// The text of a transition: the input, and the events that it emits.
fn line(input: Input, emits: &[Emits]) -> String {
    let events: Vec<_> = emits.iter().map(|event| event.name()).collect();
    if events.is_empty() { input.name().to_owned() } else { format!("{input} / {}", events.join(" ")) }
}

/// The arrows in words, for a reader who does not see them.
fn description(arrows: &[Arrow]) -> String {
    let sentence = |arrow: &Arrow| {
        let from: Vec<_> = arrow.from.iter().map(|state| state.name()).collect();
        format!("{} to {}: {}.", from.join(", "), arrow.to, arrow.lines.join("; "))
    };
    arrows.iter().map(sentence).collect::<Vec<_>>().join(" ")
}

fn draw_frame(out: &mut String, frame: &Frame) {
    let ((x, y), (right, bottom)) = (frame.from, frame.to);
    let _ = writeln!(
        out,
        "<rect class=\"frame\" x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"14\"/>\n\
         <text class=\"title\" x=\"{}\" y=\"{}\">{}</text>",
        right - x,
        bottom - y,
        x + TITLE.0,
        bottom - TITLE.1,
        frame.title
    );
}

fn draw_legend(out: &mut String) {
    for ((_, class, words), y) in Kind::ALL.into_iter().zip((56..).step_by(24)) {
        let _ = writeln!(
            out,
            "<path class=\"arrow {class}\" marker-end=\"url(#head-{class})\" d=\"M1180 {y}h60\"/>\n\
             <text class=\"label {class}\" x=\"1252\" y=\"{}\">{words}</text>",
            y + 4
        );
    }
    let _ = writeln!(
        out,
        "<text class=\"label\" x=\"1180\" y=\"136\">Input / event: this input delivers this event.</text>"
    );
}

fn draw_line(out: &mut String, Arrow { route, kind, from, to, .. }: &Arrow) {
    let class = kind.class();
    let from: Vec<_> = from.iter().map(|state| state.name()).collect();
    let points: Vec<_> = route.points.iter().map(|(x, y)| format!("{x} {y}")).collect();
    let _ = writeln!(
        out,
        "<path class=\"arrow {class}\" data-from=\"{}\" data-to=\"{to}\" marker-end=\"url(#head-{class})\" d=\"M{}\"/>",
        from.join(" "),
        points.join(" L")
    );
}

fn draw_state(out: &mut String, state: State) {
    let (x, y) = layout::place(state);
    let rfc9293 = lines_of(state);
    let kind = if state.is_final() { "over" } else { "live" };
    let _ = writeln!(
        out,
        "<g class=\"state {kind}\" data-name=\"{state}\"><title>{state}: {}</title>\
         <rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"9\"/>\
         <text class=\"name\" x=\"{x}\" y=\"{}\">{state}</text>",
        plain(state.meaning()),
        x - HALF.0,
        y - HALF.1,
        2 * HALF.0,
        2 * HALF.1,
        y - if rfc9293.len() > 1 { 9 } else { 4 },
    );
    let first = y + if rfc9293.len() > 1 { 6 } else { 14 };
    for (text, y) in rfc9293.iter().zip((first..).step_by(13)) {
        let _ = write!(out, "<text class=\"rfc\" x=\"{x}\" y=\"{y}\">{text}</text>");
    }
    out.push_str("</g>\n");
}

/// The names of RFC 9293, on as many lines as they need.
fn lines_of(state: State) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for name in state.rfc9293() {
        match lines.last_mut() {
            Some(line) if line.len() + name.len() + 2 <= FIT => *line = format!("{line}, {name}"),
            Some(line) => {
                line.push(',');
                lines.push((*name).to_owned());
            }
            None => lines.push((*name).to_owned()),
        }
    }
    lines
}

fn label(Arrow { route, kind, lines, .. }: &Arrow) -> String {
    let ((x, y), anchor) = (route.label, anchor(route.side));
    let text = |(line, y): (&String, i32)| {
        format!("<text class=\"label {}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{line}</text>\n", kind.class())
    };
    lines.iter().zip((y..).step_by(LINE as usize)).map(text).collect()
}

const fn anchor(side: Side) -> &'static str {
    match side {
        Side::Left => "end",
        Side::Middle => "middle",
        Side::Right => "start",
    }
}

#[cfg(test)]
mod tests {
    use finale::lifecycle::step;

    use super::*;

    /// Corners: left, top, right, bottom.
    type Area = (i32, i32, i32, i32);

    fn overlap(one: Area, other: Area) -> bool {
        one.0 < other.2 && other.0 < one.2 && one.1 < other.3 && other.1 < one.3
    }

    fn area_of_state(state: State) -> Area {
        let (x, y) = layout::place(state);
        (x - HALF.0, y - HALF.1, x + HALF.0, y + HALF.1)
    }

    /// A letter of a label is at most so wide, on average.
    fn area_of_label(arrow: &Arrow) -> Area {
        let width = arrow.lines.iter().map(String::len).max().unwrap_or(0) as i32 * 66 / 10;
        let (x, y) = arrow.route.label;
        let left = match arrow.route.side {
            Side::Left => x - width,
            Side::Middle => x - width / 2,
            Side::Right => x,
        };
        (left, y - 10, left + width, y + 3 + LINE * (arrow.lines.len() as i32 - 1))
    }

    /// The parts of a line, without its ends, which touch their states.
    fn areas_of_line(points: &[Point]) -> Vec<Area> {
        let part = |pair: &[Point]| {
            let ((x1, y1), (x2, y2)) = (pair[0], pair[1]);
            (x1.min(x2), y1.min(y2), x1.max(x2) + 1, y1.max(y2) + 1)
        };
        points.windows(2).map(part).collect()
    }

    #[test]
    fn nothing_in_the_picture_overlaps() {
        for view in [View::All, View::Client, View::Server] {
            let (states, arrows) = (view.states(), arrows(view, step));
            for (at, &state) in states.iter().enumerate() {
                let area = area_of_state(state);
                assert!(area.0 > 0 && area.1 > 0 && area.2 < SIZE.0 && area.3 < SIZE.1, "{state}");
                assert!(states[..at].iter().all(|&other| !overlap(area, area_of_state(other))), "{state}");
            }
            for (at, arrow) in arrows.iter().enumerate() {
                let label = area_of_label(arrow);
                let words = format!("{view:?} {:?} to {}: {:?} {label:?}", arrow.from, arrow.to, arrow.lines);
                assert!(label.0 > 0 && label.2 < SIZE.0, "{words}");
                assert!(states.iter().all(|&state| !overlap(label, area_of_state(state))), "{words} and a state");
                for other in &arrows[..at] {
                    let is_same = other.route.label == arrow.route.label && other.lines == arrow.lines;
                    assert!(is_same || !overlap(label, area_of_label(other)), "{words} and {:?}", other.lines);
                }
                for other in &arrows {
                    let crosses = |area: &Area| overlap(label, *area);
                    assert!(
                        !areas_of_line(&other.route.points).iter().any(crosses),
                        "{words} and a line to {}",
                        other.to
                    );
                }
                for frame in &FRAMES {
                    let (x, y) = (frame.from.0 + TITLE.0, frame.to.1 - TITLE.1);
                    let title = (x, y - 10, x + frame.title.len() as i32 * 6, y + 3);
                    let crosses = |area: &Area| overlap(title, *area);
                    assert!(!areas_of_line(&arrow.route.points).iter().any(crosses), "{words} and a title");
                }
                for &state in states.iter().filter(|state| **state != arrow.to && !arrow.from.contains(state)) {
                    let crosses = |area: &Area| overlap(area_of_state(state), *area);
                    assert!(!areas_of_line(&arrow.route.points).iter().any(crosses), "{words} crosses {state}");
                }
            }
        }
    }

    #[test]
    fn every_transition_of_the_table_is_in_the_picture() {
        let arrows = arrows(View::All, step);
        for &state in State::ALL {
            for &input in Input::ALL {
                let Cell::Go(to, emits) = step(state, input) else { continue };
                let has = |arrow: &&Arrow| {
                    arrow.from.contains(&state) && arrow.to == to && arrow.lines.contains(&line(input, emits))
                };
                assert_eq!(arrows.iter().filter(has).count(), 1, "{state} {input}");
            }
        }
    }

    /// The row of `PeerFinished` without its input `EndCalled`, and with another state after it.
    #[test]
    fn the_picture_changes_with_a_row_of_the_table() {
        const fn without(state: State, input: Input) -> Cell {
            match (state, input) {
                (State::PeerFinished, Input::EndCalled) => Cell::Impossible,
                _ => step(state, input),
            }
        }
        const fn elsewhere(state: State, input: Input) -> Cell {
            match (state, input) {
                (State::PeerFinished, Input::EndCalled) => Cell::Go(State::Closing, &[]),
                _ => step(state, input),
            }
        }
        /// Not in every state of the frame any more.
        const fn one_less(state: State, input: Input) -> Cell {
            match (state, input) {
                (State::Lingering, Input::Reset) => Cell::Impossible,
                _ => step(state, input),
            }
        }
        let leaves = "data-from=\"PeerFinished\" data-to=";
        let picture = svg(View::All, step);
        assert!(picture.contains(&format!("{leaves}\"LastFlush\"")));
        assert!(!svg(View::All, without).contains(&format!("{leaves}\"LastFlush\"")));
        assert!(svg(View::All, elsewhere).contains(&format!("{leaves}\"Closing\"")));
        assert!(!picture.contains("data-from=\"Closing\" data-to=\"ResetByPeer\""));
        let changed = svg(View::All, one_less);
        assert!(changed.contains("data-from=\"Closing\" data-to=\"ResetByPeer\""));
        assert!(!changed.contains("data-from=\"Lingering\" data-to=\"ResetByPeer\""));
    }
}
