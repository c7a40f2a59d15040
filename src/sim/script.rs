//! What a peer does by itself while time passes, as a list of steps: connect, send this, wait,
//! finish, then reset.
//!
//! Invariant: a script is a plain value. How it is played is in `play`.

use std::sync::Arc;
use std::time::Duration;

use super::time::nanos;

/// A flood writes at most once in this time, in nanoseconds: otherwise the clock would stand still
/// on a network without latency.
pub(super) const PACE: u64 = 10_000;

/// More writes of a flood are not counted.
const MANY: u64 = 100_000_000;

/// What a scripted peer does, step by step.
///
/// ```
/// use std::time::Duration;
/// use finale::sim::Script;
/// let rude = Script::new().send(b"GET").wait(Duration::from_secs(1)).finish().receive(2).reset();
/// assert_eq!(rude.to_string(), "send 3 bytes, wait 1s, finish, receive 2 bytes, reset");
/// ```
///
/// A peer that writes without a pause and takes nothing, against a server that closes such
/// connections in good order: the answer, our FIN, and the rest into the bin. The close timeout
/// ends it, however much still comes.
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
    /// Waits until the connection has brought so many bytes in all, without reading them.
    Gather(u64),
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
    /// Connects, or accepts, and nothing more: reads what comes, and never ends.
    #[must_use]
    pub const fn new() -> Self {
        Self { steps: Vec::new() }
    }

    /// Bytes that are sent and waited for; of a flood as many as it has writes at most.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes = |step: &Step| match step {
            Step::Send(bytes) => bytes.len() as u64,
            Step::Drip { bytes, .. } => bytes.len() as u64,
            Step::Flood { time, .. } => (nanos(*time) / PACE).min(MANY),
            Step::Receive(bytes) => *bytes,
            Step::Urgent | Step::Wait(_) | Step::Gather(_) | Step::ReceiveEnd | Step::StopReading => 0,
            Step::Sip { .. } => 0,
            Step::ReadOn | Step::Finish | Step::Close | Step::Reset | Step::Vanish => 0,
        };
        self.steps.iter().map(bytes).sum()
    }

    fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Writes these bytes, all of them: they leave as the window lets them.
    #[must_use]
    pub fn send(self, bytes: &[u8]) -> Self {
        self.then(Step::Send(bytes.to_vec()))
    }

    /// Writes these bytes one at a time, each so much time after the one before, as a client does
    /// that holds a server up on purpose.
    #[must_use]
    pub fn drip(self, bytes: &[u8], every: Duration) -> Self {
        self.then(Step::Drip { bytes: bytes.into(), every })
    }

    /// Writes these bytes again and again for this long (`Duration::MAX`: until the connection is
    /// over), as fast as the window lets them leave, whatever else happens: a peer that sends
    /// without a pause. It fills its send buffer whenever there is room, at most once in 10 µs.
    /// [`Play::sent`](super::Play::sent) leaves these bytes out.
    ///
    /// A program whose calls cost nothing reads all that has come before any time passes, and has a
    /// pause after each window. With a [cost](super::Network::set_call_cost) it finds more whenever
    /// it looks.
    #[must_use]
    pub fn flood(self, bytes: &[u8], time: Duration) -> Self {
        self.then(Step::Flood { bytes: bytes.into(), time })
    }

    /// Marks the place behind all that was sent as urgent, see
    /// [`PeerSocket::send_urgent`](super::PeerSocket::send_urgent).
    #[must_use]
    pub fn send_urgent(self) -> Self {
        self.then(Step::Urgent)
    }

    /// Lets this much time pass.
    #[must_use]
    pub fn wait(self, time: Duration) -> Self {
        self.then(Step::Wait(time))
    }

    /// Waits until so many bytes more have been received, or nothing can come any more.
    #[must_use]
    pub fn receive(self, bytes: u64) -> Self {
        self.then(Step::Receive(bytes))
    }

    /// Waits until the other end has finished, or is gone.
    #[must_use]
    pub fn receive_end(self) -> Self {
        self.then(Step::ReceiveEnd)
    }

    /// From here on reads nothing: the window closes when the receive buffer is full.
    #[must_use]
    pub fn stop_reading(self) -> Self {
        self.then(Step::StopReading)
    }

    /// From here on reads at most so many bytes in each such time: a reader that is slow, and
    /// alive. The window is shut most of the time, once the receive buffer is full.
    #[must_use]
    pub fn sip(self, bytes: u64, every: Duration) -> Self {
        self.then(Step::Sip { bytes, every })
    }

    /// Reads again, all that comes.
    #[must_use]
    pub fn read_on(self) -> Self {
        self.then(Step::ReadOn)
    }

    /// Sends FIN behind everything sent, and goes on reading.
    #[must_use]
    pub fn finish(self) -> Self {
        self.then(Step::Finish)
    }

    /// close(2): FIN if everything that came was read, RST if not, and RST to what comes later.
    #[must_use]
    pub fn close(self) -> Self {
        self.then(Step::Close)
    }

    /// RST.
    #[must_use]
    pub fn reset(self) -> Self {
        self.then(Step::Reset)
    }

    /// The machine disappears, with everything that is in flight from and to it: nobody is told.
    #[must_use]
    pub fn vanish(self) -> Self {
        self.then(Step::Vanish)
    }
}

impl Step {
    /// What it writes, if that can be cut at each byte.
    pub(crate) fn written(&self) -> Option<&[u8]> {
        match self {
            Self::Send(bytes) => Some(bytes),
            Self::Drip { bytes, .. } => Some(bytes),
            Self::Flood { .. } | Self::Urgent | Self::Wait(_) | Self::Receive(_) | Self::Gather(_) => None,
            Self::ReceiveEnd => None,
            Self::StopReading | Self::Sip { .. } | Self::ReadOn => None,
            Self::Finish | Self::Close | Self::Reset | Self::Vanish => None,
        }
    }

    /// Whether it waits for something: it has no line of its own in a transcript.
    pub(crate) const fn takes_time(&self) -> bool {
        match self {
            Self::Wait(_) | Self::Receive(_) | Self::Gather(_) | Self::ReceiveEnd => true,
            Self::Drip { .. } | Self::Flood { .. } => true,
            Self::Send(_) | Self::Urgent | Self::StopReading | Self::Sip { .. } | Self::ReadOn => false,
            Self::Finish | Self::Close | Self::Reset | Self::Vanish => false,
        }
    }

    /// The same with these bytes to write.
    pub(crate) fn with(&self, bytes: &[u8]) -> Self {
        if let Self::Drip { every, .. } = self {
            Self::Drip { bytes: bytes.into(), every: *every }
        } else {
            Self::Send(bytes.to_vec())
        }
    }
}

/// A number of bytes, in words.
pub(crate) fn count(bytes: u64) -> String {
    if bytes == 1 { "1 byte".to_owned() } else { format!("{bytes} bytes") }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Send(bytes) => write!(f, "send {}", count(bytes.len() as u64)),
            Self::Drip { bytes, every } => write!(f, "drip {}, one each {every:?}", count(bytes.len() as u64)),
            Self::Flood { time: Duration::MAX, .. } => f.write_str("flood for ever"),
            Self::Flood { time, .. } => write!(f, "flood for {time:?}"),
            Self::Urgent => f.write_str("send an urgent byte"),
            Self::Wait(time) => write!(f, "wait {time:?}"),
            Self::Receive(bytes) => write!(f, "receive {}", count(*bytes)),
            Self::Gather(bytes) => write!(f, "leave {} unread", count(*bytes)),
            Self::ReceiveEnd => f.write_str("receive the end"),
            Self::StopReading => f.write_str("stop reading"),
            Self::Sip { bytes, every } => write!(f, "read {} each {every:?}", count(*bytes)),
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
