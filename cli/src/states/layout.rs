//! Where each state and each arrow of the diagram is.
//!
//! The main path is straight: a server's connection goes from `Created` down to `Closed`. A
//! client's beginning is on its left. Below `Open` are the two half-closed branches, ours on the
//! left and the peer's on the right, and below them the endings in a row. What can happen in every
//! state of a group is one arrow from the frame around the group.
//!
//! Units are those of the picture. A pair of states that has no route here gets a straight line.

use finale::lifecycle::State;

/// A place in the picture.
pub(super) type Point = (i32, i32);

/// Half of a box's width and height.
pub(super) const HALF: Point = (90, 28);
/// The picture's width and height.
pub(super) const SIZE: Point = (1470, 1340);

/// Columns: the rail of failed beginnings, broken, our side, the main path, the peer's side.
const RAIL: i32 = 30;
const BROKEN: i32 = 165;
const OURS: i32 = 435;
const MAIN: i32 = 690;
const THEIRS: i32 = 945;
const TIMED_OUT: i32 = 1150;
const RESET_BY_US: i32 = 1345;
/// The row of the endings.
const ENDINGS: i32 = 1150;

/// The middle of a state's box. A state that has none is placed in a corner, where a test finds it.
pub(super) const fn place(state: State) -> Point {
    match state {
        State::Created => (MAIN, 60),
        State::Resolving => (OURS, 160),
        State::Connecting => (OURS, 280),
        State::Open => (MAIN, 400),
        State::Flushing => (OURS, 550),
        State::LocalFinished => (OURS, 700),
        State::Lingering => (OURS, 840),
        State::PeerFinished => (THEIRS, 550),
        State::LastFlush => (THEIRS, 700),
        State::Closing => (MAIN, 970),
        State::Broken => (BROKEN, 700),
        State::NotConnected => (110, ENDINGS),
        State::ResetByPeer => (OURS, ENDINGS),
        State::Confirmed => (MAIN, ENDINGS),
        State::HandedOff => (THEIRS, ENDINGS),
        State::TimedOut => (TIMED_OUT, ENDINGS),
        State::ResetByUs => (RESET_BY_US, ENDINGS),
        State::Closed => (MAIN, 1280),
        _ => (SIZE.0 - HALF.0, SIZE.1 - HALF.1),
    }
}

/// A rectangle around a group of states, and what a reader should know of it.
pub(super) struct Frame {
    pub(super) from: Point,
    pub(super) to: Point,
    pub(super) title: &'static str,
    pub(super) has: fn(State) -> bool,
}

pub(super) const FRAMES: [Frame; 2] = [
    Frame {
        from: (12, 20),
        to: (1458, 1052),
        title: "an arrow from this frame: in every state that is not over",
        has: |state| !state.is_final(),
    },
    Frame {
        from: (50, 226),
        to: (1215, 1028),
        title: "an arrow from this frame: in every state in it",
        has: |state| state.is_connected() || matches!(state, State::Connecting),
    },
];

/// Where the text of a label is in relation to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Middle,
    Right,
}

/// The line of an arrow, and the place of its label.
pub(super) struct Route {
    pub(super) points: Vec<Point>,
    pub(super) label: Point,
    pub(super) side: Side,
}

fn route(points: &[Point], label: Point, side: Side) -> Route {
    Route { points: points.to_vec(), label, side }
}

/// The arrow from one state to another.
pub(super) fn between(from: State, to: State) -> Route {
    use State::{
        Broken, Closed, Closing, Confirmed, Connecting, Created, Flushing, HandedOff, LastFlush, Lingering,
        LocalFinished, NotConnected, Open, PeerFinished, Resolving,
    };
    let (left, right, top, bottom) = (OURS - HALF.0, OURS + HALF.0, ENDINGS - HALF.1, ENDINGS + HALF.1);
    match (from, to) {
        (Created, Open) => route(&[(MAIN, 88), (MAIN, 372)], (MAIN + 8, 200), Side::Right),
        (Created, Resolving) => route(&[(600, 60), (OURS, 60), (OURS, 132)], (520, 52), Side::Middle),
        (Created, Connecting) => route(&[(640, 88), (640, 270), (right, 270)], (632, 125), Side::Left),
        (Resolving, Connecting) => route(&[(OURS, 188), (OURS, 252)], (OURS + 8, 212), Side::Right),
        (Connecting, Open) => route(&[(right, 292), (650, 292), (650, 372)], (642, 345), Side::Left),
        (Resolving, NotConnected) => route(&[(left, 160), (RAIL, 160), (RAIL, top)], (190, 152), Side::Middle),
        (Connecting, NotConnected) => route(&[(left, 280), (RAIL, 280), (RAIL, top)], (190, 272), Side::Middle),
        (Open, Flushing) => route(&[(600, 412), (OURS, 412), (OURS, 522)], (520, 430), Side::Middle),
        (Open, PeerFinished) => route(&[(780, 400), (THEIRS, 400), (THEIRS, 522)], (862, 392), Side::Middle),
        (Open, Broken) => route(&[(600, 388), (BROKEN, 388), (BROKEN, 672)], (300, 380), Side::Middle),
        (Flushing, Broken) => route(&[(left, 550), (270, 550), (270, 700), (255, 700)], (308, 542), Side::Middle),
        (LocalFinished, Broken) => route(&[(left, 700), (255, 700)], (308, 692), Side::Middle),
        (Lingering, Broken) => route(&[(left, 840), (270, 840), (270, 700), (255, 700)], (308, 832), Side::Middle),
        (Flushing, LocalFinished) => route(&[(OURS, 578), (OURS, 672)], (OURS - 8, 630), Side::Left),
        (Flushing, LastFlush) => route(&[(485, 578), (485, 622), (895, 622), (895, 672)], (MAIN, 614), Side::Middle),
        (LocalFinished, Lingering) => route(&[(OURS, 728), (OURS, 812)], (OURS - 8, 775), Side::Left),
        (LocalFinished, Closing) => route(&[(right, 720), (650, 720), (650, 942)], (642, 830), Side::Left),
        (Lingering, Closing) => route(&[(OURS, 868), (OURS, 970), (600, 970)], (520, 962), Side::Middle),
        (PeerFinished, LastFlush) => route(&[(THEIRS, 578), (THEIRS, 672)], (THEIRS + 8, 630), Side::Right),
        (LastFlush, Closing) => route(&[(855, 712), (730, 712), (730, 942)], (792, 704), Side::Middle),
        (LastFlush, HandedOff) => route(&[(THEIRS, 728), (THEIRS, top)], (THEIRS + 8, 830), Side::Right),
        (Closing, HandedOff) => route(&[(780, 970), (895, 970), (895, top)], (838, 962), Side::Middle),
        (Closing, Confirmed) => route(&[(MAIN, 998), (MAIN, top)], (MAIN + 8, 1090), Side::Right),
        (ending, Closed) if ending.is_final() => {
            let x = place(ending).0;
            route(&[(x, bottom), (x, 1214), (MAIN, 1214), (MAIN, 1252)], (MAIN + 8, 1238), Side::Right)
        }
        _ => straight(place(from), place(to)),
    }
}

/// Below the frame, above the ending.
pub(super) fn from_frame(frame: &Frame, to: State) -> Route {
    let (x, y) = place(to);
    route(&[(x, frame.to.1), (x, y - HALF.1)], (x + 8, 1090), Side::Right)
}

fn straight(from: Point, to: Point) -> Route {
    let middle = (i32::midpoint(from.0, to.0), i32::midpoint(from.1, to.1));
    route(&[from, to], middle, Side::Middle)
}

/// The loop at a state, and the place of its label.
pub(super) fn at(state: State) -> Route {
    let (x, y) = place(state);
    let below = |x: i32| {
        let bottom = y + HALF.1;
        [(x - 9, bottom), (x - 9, bottom + 14), (x + 9, bottom + 14), (x + 9, bottom)]
    };
    match state {
        State::Open | State::Broken => route(&below(x), (x, y + 58), Side::Middle),
        State::Connecting => route(&below(x - 60), (x - 75, y + 45), Side::Left),
        State::Lingering => route(&below(x + 30), (x + 45, y + 45), Side::Right),
        _ => {
            let right = x + HALF.0;
            let points = [(right, y - 16), (right + 14, y - 16), (right + 14, y + 2), (right, y + 2)];
            route(&points, (right + 20, y - 14), Side::Right)
        }
    }
}
