//! The calls of a script, and how they are drawn: from a property test's numbers or from a fuzzer's
//! bytes.

use std::time::Duration;

use finale::{CloseMode, ConnectOptions, KeepAlive, ListenOptions};

/// The source of a script's numbers.
pub trait Dice {
    /// A number below `bound`, which is not 0. Zero is the simplest choice everywhere, so that
    /// shrinking tends to it.
    fn below(&mut self, bound: u32) -> u32;

    fn chance(&mut self, one_in: u32) -> bool {
        self.below(one_in) == one_in - 1
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u32) as usize].clone()
    }
}

/// Which of the two programs.
pub type At = usize;

/// A socket: one of all that are known, counted from the latest.
#[derive(Debug, Clone, Copy)]
pub enum Who {
    /// One that has not delivered `close`.
    Live(usize),
    /// One that may have delivered `close`.
    Any(usize),
    /// One of the other reactor, or of one that was dropped.
    Foreign(usize),
}

/// A call on a socket.
#[derive(Debug, Clone)]
pub enum Call {
    Look,
    Write(usize),
    /// The same with bytes that are given away.
    WriteOwned(usize),
    End,
    WriteAndEnd(usize),
    Pause,
    Resume,
    Discard,
    Destroy,
    SetTimeout(Option<Duration>),
    SetClose(CloseMode),
    SetNodelay(bool),
    SetKeepAlive(Option<KeepAlive>),
    /// Gets another socket through this one, and makes this call on it.
    Get(Who, Box<Call>),
}

/// A call on the caller's side table.
#[derive(Debug, Clone, Copy)]
pub enum MapCall {
    Insert,
    Remove,
    OrDefault,
}

/// What the program on the other machine does.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    Read,
    Send(usize),
    Finish,
    Urgent,
    Close,
    Reset,
}

#[derive(Debug, Clone)]
pub enum Op {
    /// Handles up to this many events until the time is up; each is answered while it is borrowed.
    Run {
        at: At,
        time: Duration,
        events: usize,
        answer: Option<Call>,
    },
    /// Both programs run and the peer reads, again and again.
    Converse {
        rounds: usize,
        answer: Option<Call>,
    },
    /// `next_before` with a time that has passed.
    RunInThePast {
        at: At,
    },
    /// `next`, which may find that nothing can ever happen.
    Next {
        at: At,
    },
    Listen {
        at: At,
        addr: &'static str,
        settings: Vec<Setting>,
    },
    CloseListener {
        at: At,
        which: usize,
    },
    Connect {
        at: At,
        to: To,
        settings: Vec<Setting>,
    },
    Socket {
        at: At,
        who: Who,
        call: Call,
    },
    LocalAddr {
        at: At,
        who: Who,
    },
    Map {
        at: At,
        calls: Vec<(Who, MapCall)>,
    },
    SetTimer {
        at: At,
        after: Duration,
    },
    CancelTimer {
        at: At,
        which: usize,
        foreign: bool,
    },
    Remote {
        at: At,
    },
    Wake {
        at: At,
        which: usize,
    },
    DropRemote {
        at: At,
        which: usize,
    },
    /// Drops the reactor, and replaces it by another.
    Restart {
        at: At,
    },
    PeerConnects {
        to: usize,
    },
    PeerAccepts,
    Peer {
        which: usize,
        act: Act,
    },
    Weather(Weather),
}

/// The target of a connection.
#[derive(Debug, Clone)]
pub enum To {
    /// The peer's listener.
    Peer,
    /// A listener of our programs.
    Ours(usize),
    Text(String),
    Pair(&'static str, u16),
}

#[derive(Debug, Clone, Copy)]
pub enum Weather {
    Advance(Duration),
    Faults(u16),
    Latency(Duration),
    Buffers(usize, usize),
    Ports(u16),
    Vanish,
    Heal,
    Forget,
    Abort { at: At, who: Who },
    Reach(finale::sim::Reach),
}

/// One option, as it is set.
#[derive(Debug, Clone, Copy)]
pub enum Setting {
    Idle(Option<Duration>),
    HalfClosed(Option<Duration>),
    Linger(Option<Duration>),
    ConnectTimeout(Option<Duration>),
    HighWater(usize),
    WriteLimit(usize),
    Close(CloseMode),
    HalfOpen(bool),
    EarlyNotice(bool),
    Paused(bool),
    Nodelay(bool),
    KeepAlive(KeepAlive),
    UserTimeout(Duration),
    SendBuffer(usize),
    ReceiveBuffer(usize),
    Backlog(u32),
    ReusePort(bool),
    Ipv6Only(bool),
    LocalAddr(&'static str),
}

impl Setting {
    pub fn listen(self, options: ListenOptions) -> ListenOptions {
        match self {
            Self::Idle(limit) => options.idle_timeout(limit),
            Self::HalfClosed(limit) => options.half_closed_timeout(limit),
            Self::Linger(limit) => options.close_timeout(limit),
            Self::HighWater(bytes) => options.high_water_mark(bytes),
            Self::WriteLimit(bytes) => options.write_limit(bytes),
            Self::Close(close) => options.close_mode(close),
            Self::HalfOpen(on) => options.allow_half_open(on),
            Self::EarlyNotice(on) => options.notify_peer_ended(on),
            Self::Paused(on) => options.start_paused(on),
            Self::Nodelay(on) => options.nodelay(on),
            Self::KeepAlive(times) => options.keep_alive(times),
            Self::UserTimeout(limit) => options.user_timeout(limit),
            Self::SendBuffer(bytes) => options.send_buffer_size(bytes),
            Self::ReceiveBuffer(bytes) => options.receive_buffer_size(bytes),
            Self::Backlog(connections) => options.backlog(connections),
            Self::ReusePort(on) => options.reuse_port(on),
            Self::Ipv6Only(on) => options.ipv6_only(on),
            Self::ConnectTimeout(_) | Self::LocalAddr(_) => options,
        }
    }

    pub fn connect(self, options: ConnectOptions) -> ConnectOptions {
        match self {
            Self::Idle(limit) => options.idle_timeout(limit),
            Self::HalfClosed(limit) => options.half_closed_timeout(limit),
            Self::Linger(limit) => options.close_timeout(limit),
            Self::ConnectTimeout(limit) => options.connect_timeout(limit),
            Self::HighWater(bytes) => options.high_water_mark(bytes),
            Self::WriteLimit(bytes) => options.write_limit(bytes),
            Self::Close(close) => options.close_mode(close),
            Self::HalfOpen(on) => options.allow_half_open(on),
            Self::EarlyNotice(on) => options.notify_peer_ended(on),
            Self::Paused(on) => options.start_paused(on),
            Self::Nodelay(on) => options.nodelay(on),
            Self::KeepAlive(times) => options.keep_alive(times),
            Self::UserTimeout(limit) => options.user_timeout(limit),
            Self::SendBuffer(bytes) => options.send_buffer_size(bytes),
            Self::ReceiveBuffer(bytes) => options.receive_buffer_size(bytes),
            Self::LocalAddr(addr) => options.local_addr(addr.parse().expect("an address")),
            Self::Backlog(_) | Self::ReusePort(_) | Self::Ipv6Only(_) => options,
        }
    }
}
