//! A reactor without its type parameter, and what the probe needs of a network besides: the cases
//! are the same on the operating system and on a simulated network.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use finale::trace::{KernelView, Recorder};
use finale::{ConnectOptions, Context, Error, Event, RecordedReactor, Socket, SocketId};

use crate::sockopt;

/// What the session does with a reactor.
pub(crate) trait Engine {
    fn now(&self) -> Instant;
    fn connect(&mut self, target: SocketAddr, options: ConnectOptions) -> Result<SocketId, Error>;
    /// The next event, until `deadline`.
    fn next_before(&mut self, deadline: Instant) -> Result<Option<(Socket<'_>, Event<'_>)>, Error>;
    fn socket(&mut self, id: SocketId) -> Option<Socket<'_>>;
    fn context(&mut self) -> Context<'_>;
    fn kernel_view(&mut self, id: SocketId) -> Option<KernelView>;
    /// Since when no acknowledgement has arrived, if the kernel says it.
    fn since_last_ack(&self, _id: SocketId) -> Option<Duration> {
        None
    }
    /// SO_RCVBUF of an open connection, where that is possible.
    fn set_receive_buffer(&mut self, _id: SocketId, _bytes: usize) {}
    /// Whether the kernel drops what arrives with a TTL below this; 0 drops nothing, 255 almost
    /// all.
    fn set_min_ttl(&mut self, id: SocketId, peer: SocketAddr, ttl: u8) -> io::Result<()>;
    /// A wait that is shorter is not left to the network: the session turns without waiting.
    fn shortest_wait(&self) -> Duration;
    /// A timer, so that a wait on a network without other events ends.
    fn wake_at(&mut self, time: Instant);
    fn recorder(&self) -> &Recorder;
}

/// The operating system.
pub(crate) struct Real {
    reactor: RecordedReactor,
    recorder: Recorder,
}

/// Lines that the recorder keeps: those of a case with its bystanders.
pub(crate) const RECORDS: usize = 20_000;
/// The system rounds waits up to milliseconds.
const SHORT: Duration = Duration::from_micros(1_500);

impl Real {
    pub(crate) fn new() -> Result<Self, Error> {
        let recorder = Recorder::new(RECORDS);
        Ok(Self { reactor: recorder.reactor()?, recorder })
    }
}

impl Engine for Real {
    fn now(&self) -> Instant {
        self.reactor.now()
    }

    fn connect(&mut self, target: SocketAddr, options: ConnectOptions) -> Result<SocketId, Error> {
        self.reactor.connect(target, options)
    }

    fn next_before(&mut self, deadline: Instant) -> Result<Option<(Socket<'_>, Event<'_>)>, Error> {
        self.reactor.next_before(deadline)
    }

    fn socket(&mut self, id: SocketId) -> Option<Socket<'_>> {
        self.reactor.socket(id)
    }

    fn context(&mut self) -> Context<'_> {
        self.reactor.context()
    }

    fn kernel_view(&mut self, id: SocketId) -> Option<KernelView> {
        self.reactor.kernel_view(id)
    }

    fn since_last_ack(&self, id: SocketId) -> Option<Duration> {
        self.reactor.descriptor(id).and_then(sockopt::since_last_ack)
    }

    fn set_receive_buffer(&mut self, id: SocketId, bytes: usize) {
        if let Some(descriptor) = self.reactor.descriptor(id) {
            // A refusal costs only time.
            let _ = sockopt::set_receive_buffer(descriptor, bytes);
        }
    }

    fn set_min_ttl(&mut self, id: SocketId, peer: SocketAddr, ttl: u8) -> io::Result<()> {
        let descriptor = self.reactor.descriptor(id).ok_or(io::ErrorKind::NotConnected)?;
        sockopt::set_min_ttl(descriptor, peer.ip(), ttl)
    }

    fn shortest_wait(&self) -> Duration {
        SHORT
    }

    fn wake_at(&mut self, time: Instant) {
        let after = time.saturating_duration_since(self.reactor.now());
        let _ = self.reactor.set_timer(after.max(Duration::from_millis(1)));
    }

    fn recorder(&self) -> &Recorder {
        &self.recorder
    }
}
