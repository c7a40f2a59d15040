//! A packet as the network records it, for people.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::world::{Packet, Segment, What};

/// A packet that was sent on a simulated network. Its `Display` is one line.
///
/// ```
/// use finale::sim::{Network, PacketKind};
/// let network = Network::new(1);
/// network.record();
/// let client = network.peer([10, 0, 0, 2].into()).connect(std::net::SocketAddr::from(([10, 0, 0, 1], 80)))?;
/// let packets = network.take_packets();
/// assert_eq!((packets.len(), &packets[0].kind), (1, &PacketKind::Syn));
/// # drop(client);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SentPacket {
    /// When it was sent, since the network began.
    pub sent: Duration,
    /// When it arrives, unless its target vanishes meanwhile. `None`: it is lost.
    pub arrives: Option<Duration>,
    /// Its sender.
    pub source: SocketAddr,
    /// Its receiver.
    pub target: SocketAddr,
    /// What kind of packet it is.
    pub kind: PacketKind,
    /// Its place among the records of [`Network::trace`](super::Network::trace): the number of the
    /// first record after it.
    pub next_record: u64,
}

/// What a packet of a simulated network is.
///
/// ```
/// assert_eq!(finale::sim::PacketKind::SynAck.to_string(), "SYN-ACK");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PacketKind {
    /// The first packet of a handshake.
    Syn,
    /// The second one.
    SynAck,
    /// Bytes, a FIN, an acknowledgement, or several of these.
    Segment {
        /// The number of the first byte in its stream, counted from 0.
        position: u64,
        /// How many bytes. 0 with no FIN: an acknowledgement only.
        bytes: usize,
        /// Whether the stream ends with it.
        fin: bool,
        /// The bytes, and the FIN, of the other direction that have arrived.
        acked: u64,
        /// Up to where the other side may send.
        window_end: u64,
        /// It marks urgent data.
        urgent: bool,
        /// It asks whether there is room, or whether the other side is still there.
        probe: bool,
    },
    /// A reset.
    Reset,
    /// ICMP: the target can't be reached.
    Unreachable,
}

impl fmt::Display for PacketKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syn => f.write_str("SYN"),
            Self::SynAck => f.write_str("SYN-ACK"),
            Self::Reset => f.write_str("RST"),
            Self::Unreachable => f.write_str("ICMP unreachable"),
            Self::Segment { position, bytes, fin, acked, window_end, urgent, probe } => {
                let fin = if *fin { ", FIN" } else { "" };
                let urgent = if *urgent { ", URG" } else { "" };
                let probe = if *probe { ", probe" } else { "" };
                write!(f, "{bytes} bytes at {position}{fin}{urgent}{probe}, ACK {acked}, window to {window_end}")
            }
        }
    }
}

impl fmt::Display for SentPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, arrives, source, target, kind, next_record: _ } = self;
        let fate = if arrives.is_none() { " (lost)" } else { "" };
        write!(f, "{}.{:06} s  {source} > {target}  {kind}{fate}", sent.as_secs(), sent.subsec_micros())
    }
}

impl SentPacket {
    pub(super) fn of(packet: &Packet, sent: u64, arrives: Option<u64>, next_record: u64) -> Self {
        let kind = match &packet.what {
            What::Syn { .. } => PacketKind::Syn,
            What::SynAck { .. } => PacketKind::SynAck,
            What::Reset => PacketKind::Reset,
            What::Unreachable(_) => PacketKind::Unreachable,
            What::Segment(Segment { position, bytes, fin, acked, window_end, urgent, probe }) => PacketKind::Segment {
                position: *position,
                bytes: bytes.len(),
                fin: *fin,
                acked: *acked,
                window_end: *window_end,
                urgent: urgent.is_some(),
                probe: *probe,
            },
        };
        let (sent, arrives) = (Duration::from_nanos(sent), arrives.map(Duration::from_nanos));
        Self { sent, arrives, source: packet.source, target: packet.target, kind, next_record }
    }
}
