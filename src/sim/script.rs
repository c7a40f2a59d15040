//! What a peer does by itself while time passes: a list of steps such as connect, send, wait,
//! finish and reset.
//!
//! Invariant: a script is a plain value. `play` plays it.

use std::sync::Arc;
use std::time::Duration;

use super::time::nanos;
use crate::event::Bytes;

/// A flood writes at most once in this time, in nanoseconds. Without a pause the clock would not
/// advance on a network without latency.
pub(super) const PACE: u64 = 10_000;

/// A flood counts as at most this many writes, and what is waited for as at most this many bytes.
const MANY: u64 = 100_000_000;

/// The steps of a scripted peer.
///
/// ```
/// use std::time::Duration;
/// use finale::sim::Script;
/// let rude = Script::new().send(b"GET").wait(Duration::from_secs(1)).finish().receive(2).reset();
/// assert_eq!(rude.to_string(), "send 3 bytes, wait 1s, finish, receive 2 bytes, reset");
/// ```
///
/// A peer that sends without a pause and reads nothing. The server answers, calls `end`, and
/// discards the rest. The close timeout ends the connection, however much still arrives.
///
/// ```
/// use std::time::Duration;
/// use finale::sim::{Network, Script};
/// use finale::{Event, ListenOptions, Reactor};
///
/// let network = Network::new(1);
/// let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
/// let limits = ListenOptions::default().close_timeout(Duration::from_secs(2));
/// let listener = reactor.listen("10.0.0.1:80", limits)?;
/// let flood = Script::new().stop_reading().flood(b"junk", Duration::from_secs(60));
/// network.peer([10, 0, 0, 2].into()).play(listener.addr, flood).expect("there is a route");
///
/// while let Some((mut socket, event)) = reactor.next()? {
///     match event {
///         Event::Connection => {
///             socket.write(b"too much")?;
///             socket.end();
///             socket.discard();
///         }
///         Event::Close(ending) => {
///             assert!(ending.had_error() && ending.bytes_read > 1_000_000, "{ending}");
///             reactor.close_listener(listener.id)?;
///         }
///         _ => {}
///     }
/// }
/// assert_eq!(network.elapsed().as_secs(), 2);
/// # Ok::<(), finale::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    pub(crate) steps: Vec<Step>,
}

/// One step of a [`Script`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Send(Vec<u8>),
    Drip {
        bytes: Arc<[u8]>,
        every: Duration,
    },
    Flood {
        bytes: Arc<[u8]>,
        time: Duration,
    },
    Urgent,
    Wait(Duration),
    Receive(u64),
    /// Waits until this many bytes have arrived in all, without reading them.
    AwaitUnread(u64),
    ReceiveEnd,
    StopReading,
    Sip {
        bytes: u64,
        every: Duration,
    },
    ReadOn,
    Finish,
    Close,
    Reset,
    Vanish,
}

impl Script {
    /// Connects or accepts, reads what arrives, and never ends.
    #[must_use]
    pub const fn new() -> Self {
        Self { steps: Vec::new() }
    }

    /// The number of bytes that are sent and waited for. A flood counts as its number of writes.
    pub(crate) fn bytes(&self) -> u64 {
        let flood = |step: &Step| if let Step::Flood { time, .. } = step { (nanos(*time) / PACE).min(MANY) } else { 0 };
        let (sent, received) = self.bytes_each_way();
        sent + received.min(MANY) + self.steps.iter().map(flood).sum::<u64>()
    }

    /// The bytes that are sent, without those of floods, and the bytes that are waited for.
    pub(crate) fn bytes_each_way(&self) -> (u64, u64) {
        let received = |step: &Step| if let Step::Receive(bytes) = step { *bytes } else { 0 };
        let sent = self.steps.iter().filter_map(Step::written).map(|bytes| bytes.len() as u64).sum();
        (sent, self.steps.iter().map(received).fold(0, u64::saturating_add))
    }

    /// Whether it sends a FIN. close(2) over unread bytes sends RST instead.
    pub(crate) fn finishes(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Finish | Step::Close))
    }

    /// Whether it closes or resets the connection.
    pub(crate) fn closes(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Close | Step::Reset))
    }

    fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Writes these bytes. They leave as the window allows.
    #[must_use]
    pub fn send(self, bytes: &[u8]) -> Self {
        self.then(Step::Send(bytes.to_vec()))
    }

    /// Writes these bytes one at a time, with this interval, as a client does that holds a server
    /// up on purpose.
    #[must_use]
    pub fn drip(self, bytes: &[u8], every: Duration) -> Self {
        self.then(Step::Drip { bytes: bytes.into(), every })
    }

    /// Writes these bytes repeatedly for this long (`Duration::MAX`: until the connection is over),
    /// as fast as the window allows. It fills its send buffer whenever there is room, at most once
    /// in 10 µs. [`Play::sent`](super::Play::sent) leaves these bytes out.
    ///
    /// A program whose calls cost nothing reads everything before any time passes, and has a pause
    /// after each window. With a [cost](super::Network::set_call_cost) it finds more bytes at each
    /// read.
    #[must_use]
    pub fn flood(self, bytes: &[u8], time: Duration) -> Self {
        self.then(Step::Flood { bytes: bytes.into(), time })
    }

    /// Marks the position after all sent bytes as urgent; see
    /// [`PeerSocket::send_urgent`](super::PeerSocket::send_urgent).
    #[must_use]
    pub fn send_urgent(self) -> Self {
        self.then(Step::Urgent)
    }

    /// Waits for this time.
    #[must_use]
    pub fn wait(self, time: Duration) -> Self {
        self.then(Step::Wait(time))
    }

    /// Waits until this many more bytes are received, or nothing can arrive any more.
    #[must_use]
    pub fn receive(self, bytes: u64) -> Self {
        self.then(Step::Receive(bytes))
    }

    /// Waits until the other end has finished, or the connection is broken.
    #[must_use]
    pub fn receive_end(self) -> Self {
        self.then(Step::ReceiveEnd)
    }

    /// Reads nothing from here on: the window closes when the receive buffer is full.
    #[must_use]
    pub fn stop_reading(self) -> Self {
        self.then(Step::StopReading)
    }

    /// Reads at most this many bytes per interval from here on: a slow reader. The window is closed
    /// most of the time once the receive buffer is full.
    #[must_use]
    pub fn sip(self, bytes: u64, every: Duration) -> Self {
        self.then(Step::Sip { bytes, every })
    }

    /// Reads everything from here on.
    #[must_use]
    pub fn read_on(self) -> Self {
        self.then(Step::ReadOn)
    }

    /// Sends FIN after all sent bytes, and continues to read.
    #[must_use]
    pub fn finish(self) -> Self {
        self.then(Step::Finish)
    }

    /// close(2): sends FIN if everything was read and RST otherwise, and answers later bytes with
    /// RST.
    #[must_use]
    pub fn close(self) -> Self {
        self.then(Step::Close)
    }

    /// Sends RST.
    #[must_use]
    pub fn reset(self) -> Self {
        self.then(Step::Reset)
    }

    /// The machine disappears, with everything that is in flight from and to it. No packet reports
    /// it.
    #[must_use]
    pub fn vanish(self) -> Self {
        self.then(Step::Vanish)
    }
}

impl Step {
    /// What it writes, if it can be cut at each byte.
    pub(crate) fn written(&self) -> Option<&[u8]> {
        match self {
            Self::Send(bytes) => Some(bytes),
            Self::Drip { bytes, .. } => Some(bytes),
            Self::Flood { .. } | Self::Urgent | Self::Wait(_) | Self::Receive(_) | Self::AwaitUnread(_) => None,
            Self::ReceiveEnd => None,
            Self::StopReading | Self::Sip { .. } | Self::ReadOn => None,
            Self::Finish | Self::Close | Self::Reset | Self::Vanish => None,
        }
    }

    /// Whether it waits. Such a step has no line of its own in a transcript.
    pub(crate) const fn takes_time(&self) -> bool {
        match self {
            Self::Wait(_) | Self::Receive(_) | Self::AwaitUnread(_) | Self::ReceiveEnd => true,
            Self::Drip { .. } | Self::Flood { .. } => true,
            Self::Send(_) | Self::Urgent | Self::StopReading | Self::Sip { .. } | Self::ReadOn => false,
            Self::Finish | Self::Close | Self::Reset | Self::Vanish => false,
        }
    }

    /// The same step with these bytes.
    pub(crate) fn with(&self, bytes: &[u8]) -> Self {
        if let Self::Drip { every, .. } = self {
            Self::Drip { bytes: bytes.into(), every: *every }
        } else {
            Self::Send(bytes.to_vec())
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Send(bytes) => write!(f, "send {}", Bytes(bytes.len() as u64)),
            Self::Drip { bytes, every } => write!(f, "drip {}, one each {every:?}", Bytes(bytes.len() as u64)),
            Self::Flood { time: Duration::MAX, .. } => f.write_str("flood for ever"),
            Self::Flood { time, .. } => write!(f, "flood for {time:?}"),
            Self::Urgent => f.write_str("send an urgent byte"),
            Self::Wait(time) => write!(f, "wait {time:?}"),
            Self::Receive(bytes) => write!(f, "receive {}", Bytes(*bytes)),
            Self::AwaitUnread(bytes) => write!(f, "leave {} unread", Bytes(*bytes)),
            Self::ReceiveEnd => f.write_str("receive the end"),
            Self::StopReading => f.write_str("stop reading"),
            Self::Sip { bytes, every } => write!(f, "read {} each {every:?}", Bytes(*bytes)),
            Self::ReadOn => f.write_str("read on"),
            Self::Finish => f.write_str("finish"),
            Self::Close => f.write_str("close"),
            Self::Reset => f.write_str("reset"),
            Self::Vanish => f.write_str("vanish"),
        }
    }
}

impl std::fmt::Display for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, step) in self.steps.iter().enumerate() {
            write!(f, "{}{step}", if number > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}
