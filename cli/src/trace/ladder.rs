//! The ladder: what happened on the client's side, on the server's side, and between them, with
//! times.

use std::time::{Duration, Instant};

use finale::Ending;
use finale::lifecycle::State;
use finale::sim::{PacketKind, SentPacket};
use finale::trace::{KernelView, Record, What};
use serde::Serialize;

use super::script::Side;
use super::text::text;
use crate::output::{self, printable};

/// A run as rows. The names are stable: programs read them.
#[derive(Debug, Serialize)]
pub(crate) struct Ladder {
    /// What was run.
    pub(crate) title: String,
    pub(crate) rows: Vec<Row>,
    /// Rows that were not kept, since there were too many.
    pub(crate) lost: u64,
    pub(crate) sides: Vec<SideEnd>,
    /// A side has several connections.
    #[serde(skip)]
    pub(crate) has_several: bool,
}

/// How one side stands at the end.
#[derive(Debug, Serialize)]
pub(crate) struct SideEnd {
    pub(crate) side: Side,
    /// As `finale states` prints it.
    pub(crate) state: &'static str,
    /// How the connection ended, if it did.
    pub(crate) ending: Option<String>,
}

impl SideEnd {
    /// In words.
    pub(super) fn text(&self) -> String {
        let ending = self.ending.as_deref().unwrap_or("not over");
        format!("{}: {}, {ending}", self.side.name(), self.state)
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// Since the run began.
    pub(crate) at_us: u64,
    /// The sender's, for a packet.
    pub(crate) side: Side,
    /// Each address that a client tries is a connection. `None` for what is not recorded of one.
    pub(crate) connection: Option<u64>,
    #[serde(flatten)]
    pub(crate) what: RowKind,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum RowKind {
    /// A call of the program on finale, or what was done to the machine or the network.
    Action { text: String },
    /// A system call.
    Call {
        name: &'static str,
        bytes: u64,
        peer: Option<String>,
        error: Option<String>,
        #[serde(skip)]
        text: String,
    },
    /// A transition of the lifecycle, with the events that it delivers.
    Step {
        from: &'static str,
        input: &'static str,
        to: &'static str,
        events: Vec<&'static str>,
        #[serde(skip)]
        text: String,
    },
    /// What the kernel says of its connection.
    Kernel { state: &'static str, unread: u32, unacked: u32 },
    /// A packet. `None`: it is lost.
    Packet { text: String, arrives_us: Option<u64> },
    /// The report with which a connection ended.
    Ending { text: String },
    /// Anything else that is worth a line.
    Note { text: String },
}

impl From<KernelView> for RowKind {
    fn from(KernelView { state, unread, unacked }: KernelView) -> Self {
        Self::Kernel { state, unread, unacked }
    }
}

impl Row {
    pub(crate) fn new(at: Duration, side: Side, what: RowKind) -> Self {
        Self { at_us: micros(at), side, connection: None, what }
    }

    /// What a recorder of this side has recorded.
    pub(crate) fn of_record(record: &Record, begun: Instant, side: Side) -> Self {
        let text = record.what.to_string();
        let what = match &record.what {
            What::Call { call, bytes, peer, error } => {
                let error = error.map(|error| std::io::Error::from(error).to_string());
                let peer = peer.map(|peer| peer.to_string());
                RowKind::Call { name: call.name(), bytes: *bytes, peer, error, text }
            }
            What::Step { from, input, to, events } => RowKind::Step {
                from: from.name(),
                input: input.name(),
                to: to.name(),
                events: events.iter().map(|event| event.name()).collect(),
                text,
            },
            What::Kernel(view) => RowKind::from(*view),
            // And what a newer library records.
            _ => RowKind::Note { text },
        };
        let row = Self::new(record.at.saturating_duration_since(begun), side, what);
        Self { connection: Some(record.connection), ..row }
    }

    /// A packet that a side has sent.
    pub(crate) fn of_packet(packet: &SentPacket, side: Side) -> Self {
        let text = match &packet.kind {
            PacketKind::Segment { bytes: 0, fin: false, probe: false, .. } => "ACK".to_owned(),
            PacketKind::Segment { bytes: 0, fin: false, .. } => "probe".to_owned(),
            PacketKind::Segment { bytes: 0, fin: true, .. } => "FIN".to_owned(),
            PacketKind::Segment { bytes, fin: false, .. } => bytes_of(*bytes as u64),
            PacketKind::Segment { bytes, .. } => format!("{} + FIN", bytes_of(*bytes as u64)),
            other => other.to_string(),
        };
        Self::new(packet.sent, side, RowKind::Packet { text, arrives_us: packet.arrives.map(micros) })
    }

    /// The row in words, in its column.
    pub(crate) fn text(&self) -> String {
        match &self.what {
            RowKind::Action { text } => format!("> {text}"),
            RowKind::Kernel { state, unread, unacked } => {
                What::Kernel(KernelView { state, unread: *unread, unacked: *unacked }).to_string()
            }
            RowKind::Packet { text, arrives_us: None } => format!("{text} (lost)"),
            RowKind::Call { text, .. }
            | RowKind::Step { text, .. }
            | RowKind::Packet { text, .. }
            | RowKind::Note { text } => text.clone(),
            RowKind::Ending { text } => format!("ended {text}"),
        }
    }

    /// The word for its style.
    pub(crate) const fn class(&self) -> &'static str {
        match &self.what {
            RowKind::Action { .. } => "action",
            RowKind::Call { error: None, .. } => "call",
            RowKind::Call { .. } => "error",
            RowKind::Step { .. } => "step",
            RowKind::Kernel { .. } => "kernel",
            RowKind::Packet { .. } => "packet",
            RowKind::Ending { .. } => "ending",
            RowKind::Note { .. } => "note",
        }
    }
}

impl Ladder {
    /// The row in words. If a side has tried several addresses, with the number of its connection.
    pub(crate) fn text_of(&self, row: &Row) -> String {
        match row.connection {
            Some(number) if self.has_several => format!("#{number} {}", row.text()),
            _ => row.text(),
        }
    }

    /// That of a connection on a real network, of which only this side is seen. If earlier records
    /// are missing, [`lost`](Self::lost) is still to be set.
    pub(crate) fn of_one_side(side: Side, title: &str, records: &[Record], begun: Instant, ending: &Ending) -> Self {
        let mut rows: Vec<_> = records.iter().map(|record| Row::of_record(record, begun, side)).collect();
        // The title may be an argument, and a text of the terminal.
        let title = printable(title);
        let at = records.last().map_or(Duration::ZERO, |last| last.at.saturating_duration_since(begun));
        rows.push(Row::new(at, side, RowKind::Ending { text: ending.to_string() }));
        let end = SideEnd { side, state: State::Closed.name(), ending: Some(ending.to_string()) };
        let has_several = records.iter().any(|record| record.connection > 0);
        Self { title, rows, lost: 0, sides: vec![end], has_several }
    }

    /// The text on stderr: stdout has the output of the program.
    pub(crate) fn say(&self) {
        output::say(format_args!("{}", self.text(output::stderr_width()).trim_end()));
    }

    /// For lines of this many characters.
    pub(crate) fn text(&self, width: usize) -> String {
        text(self, width)
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Milliseconds up to a minute, then seconds.
pub(super) fn time_of(micros: u64) -> String {
    match micros {
        0..60_000_000 => format!("{}.{:03} ms", micros / 1000, micros % 1000),
        _ => format!("{}.{:03} s", micros / 1_000_000, micros / 1000 % 1000),
    }
}

fn bytes_of(bytes: u64) -> String {
    if bytes == 1 { "1 byte".to_owned() } else { format!("{bytes} bytes") }
}
