//! Ladders of runs that are no script: a seed of `finale sim`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use finale::check::chaos;
use finale::lifecycle::Input;
use finale::sim::{Fault, PacketKind, SentPacket};
use finale::trace::{Call, Record, Recorder, What};

use super::ladder::{Ladder, Row};
use super::script::Side;
use crate::errors::Error;
use crate::output::count;

/// More than a random run has.
const RECORDS: usize = 1_000_000;
/// The rows that are kept: the newest.
const ROWS: usize = 10_000;

/// The ladder of a random run, and an error if it has broken a rule.
pub(crate) fn of_seed(seed: u64, preferred: Option<Fault>) -> (Ladder, Result<(), Error>) {
    // The rule "progress" reports a panic with its seed, so the thread that panics prints nothing.
    std::panic::set_hook(Box::new(|_| {}));
    let recorder = Recorder::new(RECORDS);
    let chaos::RecordedRun { outcome, begun, packets, .. } = chaos::run_recorded(seed, preferred, &recorder);
    let records = recorder.records();
    let side = side_of(&records);
    let mut packets = packets.iter().peekable();
    let (mut clients, mut rows) = (BTreeSet::new(), Vec::new());
    for (record, row) in records.iter().zip(Row::of_records(&records, begun, side)) {
        let is_before = |packet: &&SentPacket| {
            packet.next_record <= record.number
                && !(packet.next_record == record.number && sends(record, packet, begun))
        };
        while let Some(packet) = packets.next_if(is_before) {
            rows.push(of_packet(packet, &mut clients));
        }
        rows.push(row);
    }
    rows.extend(packets.map(|packet| of_packet(packet, &mut clients)));
    let excess = rows.len().saturating_sub(ROWS);
    let lost = recorder.lost() + rows.drain(..excess).count() as u64;
    let preferred = preferred.map_or_else(String::new, |fault| format!(" --fault {}", fault.name()));
    let title =
        format!("seed {seed}{preferred}: {}, {}", count(outcome.sockets, "socket"), count(outcome.events, "event"));
    let broken = outcome.violation.map(|violation| Error::Broken { seed, broken: violation.to_string() });
    (Ladder { title, rows, lost, has_several: true, ..Ladder::default() }, broken.map_or(Ok(()), Err))
}

impl Ladder {
    /// That of connections on a real network whose two sides are in this process.
    pub(crate) fn of_both_sides(title: String, recorder: &Recorder) -> Self {
        let records = recorder.records();
        let begun = records.first().map(|first| first.at);
        let rows = begun.map_or_else(Vec::new, |begun| Row::of_records(&records, begun, side_of(&records)));
        Self { title, rows, lost: recorder.lost(), has_several: true, ..Self::default() }
    }
}

/// The side of each record's connection: that which was accepted is a server's.
fn side_of(records: &[Record]) -> impl Fn(&Record) -> Side + use<> {
    let mut sides = BTreeMap::new();
    for record in records {
        let is_accepted =
            matches!(record.what, What::Call { call: Call::Accept, .. } | What::Step { input: Input::Accepted, .. });
        let side = sides.entry(record.connection).or_insert(Side::Client);
        if is_accepted {
            *side = Side::Server;
        }
    }
    move |record| sides.get(&record.connection).copied().unwrap_or(Side::Client)
}

/// Whether the packet was sent by the call of the record, which was recorded when it returned.
fn sends(record: &Record, packet: &SentPacket, begun: Instant) -> bool {
    let is_ack = matches!(packet.kind, PacketKind::Segment { bytes: 0, fin: false, .. });
    let may_send = matches!(
        record.what,
        What::Call { call: Call::Connect | Call::Send | Call::Shutdown | Call::Close | Call::Reset, .. }
    );
    may_send && !is_ack && begun + packet.sent == record.at
}

/// With the port of its client, which an accepted connection names, too. `clients` has the sender
/// and the target of each SYN.
fn of_packet(packet: &SentPacket, clients: &mut BTreeSet<(SocketAddr, SocketAddr)>) -> Row {
    let (source, target) = (packet.source, packet.target);
    if matches!(packet.kind, PacketKind::Syn) {
        // An earlier connection may have had the same ports, the other way round.
        clients.remove(&(target, source));
        clients.insert((source, target));
    }
    let (side, port) = match clients.contains(&(target, source)) {
        true => (Side::Server, target.port()),
        false => (Side::Client, source.port()),
    };
    Row::of_packet(packet, side, &format!("{port}: "))
}
