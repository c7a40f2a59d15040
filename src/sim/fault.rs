//! The faults of docs/faults.md that this network can play, and how often each was played.
//!
//! Invariant: a fault is counted only where its situation arises in the simulated kernel, whatever
//! has caused it: a count is about what happened, not about what was requested. What only a program
//! can do to itself (misuse, pausing) is counted by the program that does it, see `check`.

use std::fmt;

macro_rules! rows {
    ($($variant:ident = $id:literal $name:literal),+ $(,)?) => {
        /// A fault of the catalogue in `docs/faults.md` that can be played in the simulated
        /// network.
        ///
        /// ```
        /// use finale::sim::Fault;
        /// assert_eq!(Fault::SynLost.id(), "CN02");
        /// assert_eq!(Fault::SynLost.name(), "syn-lost");
        /// ```
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Fault { $(#[doc = concat!($id, ": ", $name, ".")] $variant),+ }

        impl Fault {
            /// Every fault, in the order of the catalogue.
            pub const ALL: &'static [Fault] = &[$(Fault::$variant),+];

            /// Its id in the catalogue.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self { $(Fault::$variant => $id),+ }
            }

            /// Its name, in small letters and hyphens.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Fault::$variant => $name),+ }
            }
        }
    };
}

rows! {
    Refused = "CN01" "nobody-listens",
    SynLost = "CN02" "syn-lost",
    IcmpRefusal = "CN03" "icmp-refusal",
    ConnectCallFails = "CN05" "connect-call-fails",
    SpuriousInHandshake = "CN06" "spurious-in-handshake",
    EndedBeforeLooked = "CN08" "ended-before-looked",
    ResetBeforeLooked = "CN09" "reset-before-looked",
    NeverAccepted = "CN10" "never-accepted",
    EndedBeforeConnected = "CN11" "ended-before-connected",
    AcceptExhausted = "AC01" "accept-exhausted",
    ResetBeforeAccept = "AC04" "reset-before-accept",
    AcceptAborted = "AC05" "accept-aborted",
    OneEdgeManyClients = "AC07" "one-edge-many-clients",
    NotRegistrable = "AC08" "not-registrable",
    ListenerClosedWithQueue = "AC09" "listener-closed-with-queue",
    DataWithFin = "RD01" "data-with-fin",
    ShortReadBeforeFin = "RD02" "short-read-before-fin",
    UrgentSplits = "RD03" "urgent-splits",
    QuantumUsedUp = "RD04" "quantum-used-up",
    Floods = "RD05" "peer-floods",
    PausedWithEndWaiting = "RD06" "paused-with-end-waiting",
    ShortWrite = "WR01" "short-write",
    WouldBlockThenRoom = "WR02" "would-block-then-room",
    WriteIntoClosed = "WR05" "write-into-closed",
    WriteErrorWithInput = "WR06" "write-error-with-input",
    WriteAfterTheirFin = "HC01" "write-after-their-fin",
    FinWhileBufferFull = "HC02" "fin-while-buffer-full",
    InputAfterOurFin = "HC03" "input-after-our-fin",
    HalfClosedForEver = "HC04" "half-closed-for-ever",
    EndWithDataQueued = "HC05" "end-with-data-queued",
    HalfOpenNotAllowed = "HC07" "half-open-not-allowed",
    FinsCross = "HC08" "fins-cross",
    HangUpBeforeAck = "CL01" "hang-up-before-ack",
    HangUpWithDataUnsent = "CL02" "hang-up-with-data-unsent",
    HangUpWithInputUnread = "CL03" "hang-up-with-input-unread",
    FinNeverAcked = "CL04" "fin-never-acked",
    ResetForLastAck = "CL05" "reset-for-last-ack",
    ClosedWithInputUnread = "CL06" "closed-with-input-unread",
    FinThenReset = "CL07" "fin-then-reset",
    DestroyDiscards = "CL12" "destroy-discards",
    ShutdownFails = "CL13" "shutdown-fails",
    LingerRules = "CL14" "linger-rules",
    ResetWhenIdle = "RS01" "reset-when-idle",
    ResetBehindData = "RS02" "reset-behind-data",
    ZeroAfterError = "RS03" "zero-after-error",
    ResetSeenByWrite = "RS04" "reset-seen-by-write",
    PeerRestarted = "RS06" "peer-restarted",
    Aborted = "RS08" "aborted-from-outside",
    ResetCrossesWrite = "RS09" "reset-crosses-write",
    SilentPeer = "SI01" "silent-peer",
    KeepAliveFails = "SI03" "keep-alive-fails",
    GoneWithDataInFlight = "SI04" "gone-with-data-in-flight",
    SlowPeerKilled = "SI05" "slow-peer-killed",
    PathHeals = "SI06" "path-heals",
    EnormousTimeout = "TM05" "enormous-timeout",
    BeyondOneRotation = "TM06" "beyond-one-rotation",
    ChangedWhileFiring = "TM07" "changed-while-firing",
    Interrupted = "TM10" "interrupted-wait",
    Stalled = "TM10" "process-stands-still",
    NoDescriptorForConnect = "FD01" "no-descriptor-for-connect",
    StaleNews = "FD02" "stale-news",
    Spurious = "RY02" "spurious-readiness",
    MergedEdges = "RY03" "merged-edges",
    EdgeWhilePaused = "RY06" "edge-while-paused",
    FewSlots = "RY07" "more-ready-than-slots",
    LookupFails = "LK01" "lookup-fails",
    LookupHangs = "LK02" "lookup-hangs",
    FirstAddressDead = "LK04" "first-address-dead",
    AllAddressesFail = "LK05" "all-addresses-fail",
    Drips = "OV01" "peer-drips",
    PeerNeverReads = "OV02" "peer-never-reads",
    QueueOverflows = "OV04" "queue-overflows",
    NoLocalPort = "OV05" "no-local-port",
    WakesMerged = "TH02" "wakes-merged",
    WriteAfterEnd = "AP01" "write-after-end",
    DestroyInData = "AP02" "destroy-in-data",
    StaleId = "AP03" "stale-id",
    EndInConnection = "AP04" "end-in-connection",
    DroppedWithSockets = "AP05" "dropped-with-sockets",
}

/// How often each fault was played.
///
/// ```
/// use finale::sim::{Fault, Network};
/// let network = Network::new(1);
/// assert_eq!(network.fault_counts().count(Fault::Refused), 0);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultCounts([u64; Fault::ALL.len()]);

impl Default for FaultCounts {
    fn default() -> Self {
        Self([0; Fault::ALL.len()])
    }
}

impl FaultCounts {
    /// How often this one was played.
    #[must_use]
    pub const fn count(&self, row: Fault) -> u64 {
        self.0[row as usize]
    }

    /// Adds another count to this one.
    pub fn add(&mut self, other: &Self) {
        for (own, theirs) in self.0.iter_mut().zip(other.0) {
            *own += theirs;
        }
    }

    pub(crate) const fn mark(&mut self, row: Fault) {
        self.0[row as usize] += 1;
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The error of a text that names no [`Fault`].
///
/// ```
/// use finale::sim::{Fault, UnknownFault};
/// assert_eq!("AP05".parse(), Ok(Fault::DroppedWithSockets));
/// assert_eq!("dropped".parse::<Fault>(), Err(UnknownFault));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownFault;

impl fmt::Display for UnknownFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no fault has this name or id: see Fault::ALL")
    }
}

impl std::error::Error for UnknownFault {}

impl std::str::FromStr for Fault {
    type Err = UnknownFault;

    /// By its id or its name.
    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        let is_it = |fault: &Fault| fault.name() == text || fault.id().eq_ignore_ascii_case(text);
        Fault::ALL.iter().copied().find(is_it).ok_or(UnknownFault)
    }
}
