//! `finale serve --trace`: the ladders of connections that have ended, in the log.
//!
//! Invariant: a bounded number of connections per second, and at a time, is recorded, of each a
//! bounded number of rows is kept and printed, and the others pay for neither.

use std::fmt;

use finale::trace::{Call, Recorder, What};
use finale::{Ending, SocketId};

use crate::trace::{Ladder, Side};

/// The rows that are printed of one connection: the newest.
const ROWS: usize = 60;
/// The rows that are kept per recorded connection and second: those of connections that live for
/// some seconds, too.
const KEPT: usize = 500;
/// The width of a line.
const WIDTH: usize = 100;

/// What a reactor of the server records.
pub(super) fn recorder(per_second: Option<u32>) -> Recorder {
    let connections = per_second.unwrap_or(0);
    Recorder::new(KEPT * connections as usize).per_second(connections)
}

/// Prints the ladder of a connection that has ended, if it was recorded.
pub(super) fn print(recorder: &Recorder, id: SocketId, client: impl fmt::Display, ending: &Ending) {
    let mut records = recorder.records_of(id);
    let Some(first) = records.first() else { return };
    let begun = first.at;
    // Times and numbers of rows can count only from what is there.
    let is_whole = matches!(first.what, What::Call { call: Call::Accept, .. });
    let title = if is_whole { client.to_string() } else { format!("{client}, from its oldest row that was kept") };
    let excess = records.len().saturating_sub(ROWS);
    records.drain(..excess);
    let ladder = Ladder::of_one_side(Side::Server, &title, &records, begun, ending);
    let text = Ladder { lost: excess as u64, ..ladder }.text(WIDTH);
    // A logger adds no style to a message, and removes none.
    log::info!("{}", anstream::adapter::strip_str(text.trim_end()));
}
