//! The ladder: what happened on the client's side, on the server's side, and between them, with
//! times.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use finale::lifecycle::State;
use finale::sim::{PacketKind, SentPacket};
use finale::trace::{Call, KernelView, Record, What};
use finale::{Ending, SocketId, SocketInfo};
use serde::Serialize;

use super::script::{Action, Script, Side};
use super::text::text;
use crate::output::{self, printable};

/// A run as rows. The names are stable: programs read them.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Ladder {
    /// What was run.
    pub(crate) title: String,
    pub(crate) rows: Vec<Row>,
    /// Rows that were not kept, since there were too many.
    pub(crate) lost: u64,
    pub(crate) sides: Vec<SideEnd>,
    /// The steps of the script, and when each begins and is over.
    pub(crate) steps: Vec<Step>,
    /// What changed on a side, for a page that shows it at any time.
    pub(crate) moments: Vec<Moment>,
    /// When the run was over.
    pub(crate) end_us: u64,
    /// A side has several connections.
    #[serde(skip)]
    pub(crate) has_several: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) at_us: u64,
    pub(crate) until_us: u64,
    pub(crate) text: String,
}

impl Step {
    pub(crate) fn all(script: &Script) -> Vec<Self> {
        let text = |step: &[Action]| step.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + ");
        let times = script.times();
        let steps = script.0.iter().zip(times.windows(2));
        steps.map(|(step, of)| Self { at_us: micros(of[0]), until_us: micros(of[1]), text: text(step) }).collect()
    }
}

/// One side from a row on.
#[derive(Debug, Serialize)]
pub(crate) struct Moment {
    /// How many rows were there, with those that were not kept.
    pub(crate) rows: u64,
    pub(crate) at_us: u64,
    pub(crate) side: Side,
    #[serde(flatten)]
    pub(crate) now: SideNow,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SideNow {
    /// As `finale states` prints it.
    pub(crate) state: &'static str,
    /// Whether its program runs.
    pub(crate) program: &'static str,
    pub(crate) is_paused: bool,
    /// Bytes that wait for the kernel, and those that moved.
    pub(crate) queued: u64,
    pub(crate) read: u64,
    pub(crate) written: u64,
    /// The nearest timer of the socket, and when it is due.
    pub(crate) timer: Option<&'static str>,
    pub(crate) timer_at_us: Option<u64>,
    pub(crate) kernel: Option<KernelNow>,
}

impl Default for SideNow {
    fn default() -> Self {
        let state = State::Created.name();
        let (queued, read, written) = (0, 0, 0);
        let (timer, timer_at_us, kernel) = (None, None, None);
        Self { state, program: "runs", is_paused: false, queued, read, written, timer, timer_at_us, kernel }
    }
}

/// The length of TIME-WAIT on Linux.
const TIME_WAIT: Duration = Duration::from_secs(60);

impl SideNow {
    /// What a row says of its side. Returns whether that changes anything.
    pub(crate) fn change(&mut self, row: &Row) -> bool {
        match row.what {
            RowKind::Step { to, .. } => self.state = to,
            RowKind::Kernel { state, unread, unacked } => {
                let until_us = (state == "TIME-WAIT").then(|| row.at_us + micros(TIME_WAIT));
                self.kernel = Some(KernelNow { state, unread, unacked, until_us });
            }
            // TIME-WAIT acknowledges what is repeated, and begins again.
            RowKind::Packet { .. } => {
                let Some(until_us) = self.kernel.as_mut().and_then(|kernel| kernel.until_us.as_mut()) else {
                    return false;
                };
                let again = row.at_us + micros(TIME_WAIT);
                return std::mem::replace(until_us, again) != again;
            }
            _ => return false,
        }
        true
    }

    /// The same side, with what its program could see of the socket now.
    pub(crate) fn of_socket(&self, id: Option<SocketId>, sockets: &[SocketInfo], elapsed_ms: u64) -> Self {
        let mut now = Self { timer: None, timer_at_us: None, ..self.clone() };
        if let Some(socket) = sockets.iter().find(|socket| Some(socket.id) == id) {
            (now.read, now.written) = (socket.bytes_read, socket.bytes_written);
            (now.queued, now.is_paused) = (socket.queued_bytes as u64, socket.is_paused);
            now.timer = socket.timer;
            now.timer_at_us = socket.timer_ms.map(|ms| (elapsed_ms + ms) * 1000);
        }
        now
    }
}

/// What the kernel says of the connection, as ss(8) would print it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct KernelNow {
    pub(crate) state: &'static str,
    pub(crate) unread: u32,
    pub(crate) unacked: u32,
    /// The end of TIME-WAIT.
    pub(crate) until_us: Option<u64>,
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
        match (self.ending.as_deref(), self.state == State::Closed.name()) {
            (None, true) => format!("{}: {}", self.side.name(), self.state),
            (ending, _) => format!("{}: {}, {}", self.side.name(), self.state, ending.unwrap_or("not over")),
        }
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
    /// The row in words, in its column.
    pub(crate) line: String,
    #[serde(flatten)]
    pub(crate) what: RowKind,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum RowKind {
    /// A call of the program on finale, or what was done to the machine or the network.
    Action { text: String },
    /// A system call.
    Call { name: &'static str, bytes: u64, peer: Option<String>, error: Option<String> },
    /// A transition of the lifecycle, with the events that it delivers.
    Step { from: &'static str, input: &'static str, to: &'static str, events: Vec<&'static str> },
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
        Self { at_us: micros(at), side, connection: None, line: line(&what), what }
    }

    /// What the packet of this row has come to is known.
    pub(super) fn lose_packet(&mut self) {
        if let RowKind::Packet { arrives_us, .. } = &mut self.what {
            *arrives_us = None;
            self.line = line(&self.what);
        }
    }

    /// What a recorder of this side has recorded of a connection in this state.
    pub(crate) fn of_record(record: &Record, begun: Instant, side: Side, state: &str) -> Self {
        let mut line = record.what.to_string();
        if let (What::Call { call: Call::Recv, bytes: 0, error: None, .. }, "Broken") = (&record.what, state) {
            // It may be that no FIN came: recv(2) returns 0 also after an error that was taken.
            "recv 0: the end after the error".clone_into(&mut line);
        }
        let what = match &record.what {
            What::Call { call, bytes, peer, error } => {
                let error = error.map(|error| std::io::Error::from(error).to_string());
                let peer = peer.map(|peer| peer.to_string());
                RowKind::Call { name: call.name(), bytes: *bytes, peer, error }
            }
            What::Step { from, input, to, events } => RowKind::Step {
                from: from.name(),
                input: input.name(),
                to: to.name(),
                events: events.iter().map(|event| event.name()).collect(),
            },
            What::Kernel(view) => RowKind::from(*view),
            // And what a newer library records.
            _ => RowKind::Note { text: line.clone() },
        };
        let at_us = micros(record.at.saturating_duration_since(begun));
        Self { at_us, side, connection: Some(record.connection), line, what }
    }

    /// All records, in their order, each of its connection's side.
    pub(super) fn of_records(records: &[Record], begun: Instant, side: impl Fn(&Record) -> Side) -> Vec<Self> {
        let mut states = BTreeMap::new();
        let row = |record: &Record| {
            let state = states.entry(record.connection).or_insert(State::Created.name());
            let row = Self::of_record(record, begun, side(record), state);
            if let RowKind::Step { to, .. } = row.what {
                *state = to;
            }
            row
        };
        records.iter().map(row).collect()
    }

    /// A packet that a side has sent, with this before its words.
    pub(super) fn of_packet(packet: &SentPacket, side: Side, label: &str) -> Self {
        let text = match &packet.kind {
            PacketKind::Segment { bytes: 0, fin: false, probe: false, .. } => "ACK".to_owned(),
            PacketKind::Segment { bytes: 0, fin: false, .. } => "probe".to_owned(),
            PacketKind::Segment { bytes: 0, fin: true, .. } => "FIN".to_owned(),
            PacketKind::Segment { bytes, fin: false, .. } => bytes_of(*bytes as u64),
            PacketKind::Segment { bytes, .. } => format!("{} + FIN", bytes_of(*bytes as u64)),
            other => other.to_string(),
        };
        let text = format!("{label}{text}");
        Self::new(packet.sent, side, RowKind::Packet { text, arrives_us: packet.arrives.map(micros) })
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

/// The row in words, in its column. Calls and steps are records, which have words of their own.
fn line(what: &RowKind) -> String {
    match what {
        RowKind::Action { text } => format!("> {text}"),
        RowKind::Kernel { state, unread, unacked } => {
            What::Kernel(KernelView { state, unread: *unread, unacked: *unacked }).to_string()
        }
        RowKind::Packet { text, arrives_us: None } => format!("{text} (lost)"),
        RowKind::Packet { text, .. } | RowKind::Note { text } => text.clone(),
        RowKind::Ending { text } => format!("ended {text}"),
        RowKind::Call { name: text, .. } | RowKind::Step { input: text, .. } => (*text).to_owned(),
    }
}

impl Ladder {
    /// The row in words. If a side has tried several addresses, with the number of its connection.
    pub(crate) fn text_of(&self, row: &Row) -> String {
        match row.connection {
            Some(number) if self.has_several => format!("#{number} {}", row.line),
            _ => row.line.clone(),
        }
    }

    /// That of a connection on a real network, of which only this side is seen. If earlier records
    /// are missing, [`lost`](Self::lost) is still to be set.
    pub(crate) fn of_one_side(side: Side, title: &str, records: &[Record], begun: Instant, ending: &Ending) -> Self {
        let mut ladder = Self::of_records(side, title, records, begun);
        let at = Duration::from_micros(ladder.end_us);
        ladder.rows.push(Row::new(at, side, RowKind::Ending { text: ending.to_string() }));
        ladder.sides = vec![SideEnd { side, state: State::Closed.name(), ending: Some(ending.to_string()) }];
        ladder
    }

    /// The same of a connection whose ending is not known.
    pub(crate) fn of_records(side: Side, title: &str, records: &[Record], begun: Instant) -> Self {
        let at = records.last().map_or(Duration::ZERO, |last| last.at.saturating_duration_since(begun));
        let state = records.iter().rev().find_map(|record| match record.what {
            What::Step { to, .. } => Some(to),
            _ => None,
        });
        Self {
            // It may be an argument, and a text of the terminal.
            title: printable(title),
            rows: Row::of_records(records, begun, |_| side),
            sides: vec![SideEnd { side, state: state.unwrap_or(State::Created).name(), ending: None }],
            end_us: micros(at),
            // The number of a single one says nothing: a server counts all that it records.
            has_several: records.windows(2).any(|pair| pair[0].connection != pair[1].connection),
            ..Self::default()
        }
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

pub(crate) fn micros(time: Duration) -> u64 {
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
