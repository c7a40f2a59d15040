//! The composed state: two sockets, their kernels, and what is on the wire between them.
//!
//! Invariant: this is a model of the *network*, not of the lifecycle. A kernel here decides what
//! can occur; the effect on a socket is never written here, but taken from the table.

use finale::lifecycle::State;

pub(crate) const CLIENT: usize = 0;
pub(crate) const SERVER: usize = 1;

/// The state of the connection in a side's kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kernel {
    /// No call was made.
    Idle,
    SynSent,
    SynReceived,
    /// ESTABLISHED to LAST-ACK and TIME-WAIT: the flags distinguish them.
    Open,
    /// Reset or given up, with the descriptor still open.
    Dead,
    /// The descriptor is closed; the kernel delivers the rest alone.
    Orphan,
    /// It does not know the connection, and answers everything with an RST.
    Gone,
}

/// The events of one socket so far, as far as the grammar distinguishes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    Before,
    Flow,
    Ended,
    Failed,
    Closed,
}

/// A packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Packet {
    Syn = 1,
    SynAck,
    Ack,
    Data,
    Fin,
    FinAck,
    Rst,
}

const PACKETS: [Packet; 7] =
    [Packet::Syn, Packet::SynAck, Packet::Ack, Packet::Data, Packet::Fin, Packet::FinAck, Packet::Rst];

/// One direction: packets in order, the next to arrive in the lowest three bits.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wire(u16);

impl Wire {
    pub(crate) fn packets(self) -> impl Iterator<Item = Packet> {
        (0..5)
            .map(move |at| self.0 >> (3 * at) & 7)
            .take_while(|bits| *bits != 0)
            .map(|bits| PACKETS[bits as usize - 1])
    }

    pub(crate) fn has(self, packet: Packet) -> bool {
        self.packets().any(|other| other == packet)
    }

    /// A second RST has no effect.
    pub(crate) fn push(&mut self, packet: Packet) {
        if packet == Packet::Rst && self.has(Packet::Rst) {
            return;
        }
        let length = self.packets().count();
        assert!(length < 5, "no protocol has so many packets under way with a window of one");
        self.0 |= (packet as u16) << (3 * length);
    }

    pub(crate) fn pop(&mut self) -> Option<Packet> {
        let first = self.packets().next();
        self.0 >>= 3;
        first
    }
}

/// Bytes wait in our kernel to be read. One piece of data is the whole window.
pub(crate) const UNREAD: u16 = 1 << 0;
/// Bytes wait in the write queue, and `write` has returned that it is full.
pub(crate) const QUEUED: u16 = 1 << 1;
/// The peer's FIN has arrived at our kernel.
pub(crate) const FIN_IN: u16 = 1 << 2;
/// The program has sent our FIN.
pub(crate) const FIN_SENT: u16 = 1 << 3;
/// The peer's kernel has acknowledged our FIN.
pub(crate) const FIN_ACKED: u16 = 1 << 4;
/// An error of the kernel waits to be taken.
pub(crate) const ERROR: u16 = 1 << 5;
/// The caller has ended.
pub(crate) const END: u16 = 1 << 6;
/// `peer-ended` was delivered.
pub(crate) const NOTICED: u16 = 1 << 7;
/// `timeout` was delivered for the present silence.
pub(crate) const IDLE_TOLD: u16 = 1 << 8;
/// The side closes by hand-off.
pub(crate) const HAND_OFF: u16 = 1 << 9;
/// The first address has failed; the second is the server's.
pub(crate) const SECOND: u16 = 1 << 10;

const NAMES: [&str; 11] = [
    "unread",
    "queued",
    "fin-in",
    "fin-sent",
    "fin-acked",
    "error",
    "end",
    "noticed",
    "idle-told",
    "hand-off",
    "second",
];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Side {
    pub(crate) state: State,
    pub(crate) stage: Stage,
    pub(crate) kernel: Kernel,
    flags: u16,
}

impl Side {
    pub(crate) const fn new(hand_off: bool) -> Self {
        let flags = if hand_off { HAND_OFF } else { 0 };
        Self { state: State::Created, stage: Stage::Before, kernel: Kernel::Idle, flags }
    }

    pub(crate) const fn has(&self, any: u16) -> bool {
        self.flags & any != 0
    }

    pub(crate) fn set(&mut self, flags: u16) {
        self.flags |= flags;
    }

    pub(crate) fn clear(&mut self, flags: u16) {
        self.flags &= !flags;
    }

    /// Both FINs exchanged and ours acknowledged.
    pub(crate) const fn is_done(&self) -> bool {
        self.has(FIN_IN) && self.has(FIN_ACKED)
    }

    /// Nothing more can be delivered: `close` was, or there was never anything to accept.
    pub(crate) fn is_over(&self) -> bool {
        self.state == State::Closed || (self.is_unborn() && matches!(self.kernel, Kernel::Idle | Kernel::Gone))
    }

    pub(crate) fn is_unborn(&self) -> bool {
        self.state == State::Created && self.stage == Stage::Before
    }

    fn packed(&self) -> u64 {
        (self.state as u64) << 24 | (self.stage as u64) << 20 | (self.kernel as u64) << 16 | u64::from(self.flags)
    }
}

impl std::fmt::Debug for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}/{:?}", self.state, self.kernel)?;
        NAMES.iter().enumerate().filter(|(bit, _)| self.has(1 << bit)).try_for_each(|(_, name)| write!(f, " {name}"))
    }
}

/// Everything that the search distinguishes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Composed {
    pub(crate) sides: [Side; 2],
    /// What each side has sent and the other's kernel has not received.
    pub(crate) wires: [Wire; 2],
}

impl Composed {
    pub(crate) fn new(hand_off: [bool; 2]) -> Self {
        Self { sides: hand_off.map(Side::new), wires: [Wire::default(); 2] }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.sides.iter().all(Side::is_over)
    }

    /// The state as one number, for the set of states seen.
    pub(crate) fn packed(&self) -> u128 {
        let wires = u64::from(self.wires[0].0) << 16 | u64::from(self.wires[1].0);
        u128::from(self.sides[0].packed()) << 64 | u128::from(self.sides[1].packed()) << 32 | u128::from(wires)
    }
}

impl std::fmt::Debug for Composed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let wire = |wire: Wire| wire.packets().map(|packet| format!("{packet:?} ")).collect::<String>();
        let [client, server] = self.sides;
        write!(f, "client {client:?} | {}-> | <- {}| server {server:?}", wire(self.wires[0]), wire(self.wires[1]))
    }
}

/// What the kernels do.
impl Composed {
    /// The next packet of this side's wire arrives at the other side's kernel. `false` if there is
    /// none.
    pub(crate) fn deliver(&mut self, from: usize) -> bool {
        let Some(packet) = self.wires[from].pop() else { return false };
        let (side, back) = (&mut self.sides[1 - from], &mut self.wires[1 - from]);
        match (packet, side.kernel) {
            (Packet::Syn, _) => {
                side.kernel = Kernel::SynReceived;
                back.push(Packet::SynAck);
            }
            (Packet::SynAck, Kernel::SynSent) => {
                side.kernel = Kernel::Open;
                back.push(Packet::Ack);
            }
            (Packet::Ack, Kernel::SynReceived) => side.kernel = Kernel::Open,
            (Packet::Data, Kernel::Open) => side.set(UNREAD),
            (Packet::Data, Kernel::Orphan) => {
                side.forget();
                back.push(Packet::Rst);
            }
            (Packet::Fin, Kernel::Open | Kernel::Orphan) => {
                side.set(FIN_IN);
                back.push(Packet::FinAck);
                side.settle();
            }
            (Packet::FinAck, Kernel::Open | Kernel::Orphan) => {
                side.set(FIN_ACKED);
                side.settle();
            }
            (Packet::Rst, Kernel::Open) if side.is_done() => {}
            (Packet::Rst, Kernel::SynSent | Kernel::Open) => side.die(),
            (Packet::Rst, Kernel::SynReceived | Kernel::Orphan) => side.forget(),
            (Packet::FinAck | Packet::Rst, _) => {}
            (Packet::SynAck | Packet::Ack | Packet::Data | Packet::Fin, _) => back.push(Packet::Rst),
        }
        true
    }

    /// The SYN finds no listener.
    pub(crate) fn refuse(&mut self) -> bool {
        let refused = self.wires[CLIENT].pop() == Some(Packet::Syn);
        self.wires[SERVER].push(Packet::Rst);
        refused
    }

    /// Whether a piece of data may be sent: a kernel that still takes any has room for one.
    pub(crate) fn has_window(&self, side: usize) -> bool {
        let peer = &self.sides[1 - side];
        let is_full = peer.kernel == Kernel::Open && peer.has(UNREAD);
        !is_full && !self.wires[side].has(Packet::Data)
    }

    /// Closing with a linger time of zero: an RST, unless both FINs were sent already.
    pub(crate) fn reset(&mut self, side: usize) {
        let it = &mut self.sides[side];
        let both = it.has(FIN_SENT) && it.has(FIN_IN);
        let known = matches!(it.kernel, Kernel::Open | Kernel::SynReceived);
        it.forget();
        if known && !both {
            self.wires[side].push(Packet::Rst);
        }
    }

    /// close(2) with everything read: a FIN, if it was not sent.
    pub(crate) fn close(&mut self, side: usize) {
        let it = &mut self.sides[side];
        if it.kernel != Kernel::Open {
            return it.forget();
        }
        it.kernel = Kernel::Orphan;
        if !it.has(FIN_SENT) {
            it.set(FIN_SENT);
            self.wires[side].push(Packet::Fin);
        }
        self.sides[side].settle();
    }
}

impl Side {
    /// The kernel gives the connection up, or receives an RST; what has arrived can still be read.
    pub(crate) fn die(&mut self) {
        self.kernel = Kernel::Dead;
        self.set(ERROR);
        self.clear(FIN_ACKED);
    }

    /// The descriptor is closed and nothing is left to deliver. What was exchanged is still
    /// recorded.
    pub(crate) fn forget(&mut self) {
        self.kernel = Kernel::Gone;
        self.clear(UNREAD | QUEUED | FIN_ACKED | ERROR | NOTICED | IDLE_TOLD);
    }

    fn settle(&mut self) {
        if self.kernel == Kernel::Orphan && self.is_done() {
            self.forget();
        }
    }
}
