//! `finale serve`: four small services, each reading to the client's FIN before it ends, on one
//! reactor or several.
//!
//! Invariant: only a signal ends it. This thread serves nobody: it waits for signals, and tells the
//! shards.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use finale::{
    CloseMode, Inbox, ListenOptions, Metrics, Reactor, Sender, Shard, ShardStopper, Shards, StopOptions, Waker,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::args;
use crate::handover::Handover;
use crate::house::{self, House};
use crate::sockets::Sockets;
use crate::trouble::{Trouble, say};

/// A server that reads to the client's FIN, answers and ends
///
/// The first line on stdout is `listening on IP:PORT`, or on `unix:PATH`. SIGINT and SIGTERM stop
/// accepting, let the live connections end for the grace time, then reset the rest and exit 0; a
/// second signal resets them at once.
///
/// SIGUSR1 prints what it has done so far, in numbers, on stderr.
///
/// SIGHUP restarts the server without refusing a client: the program at the same path is started
/// again, with the same arguments and the listening sockets. When the new process serves, the old
/// one accepts no more clients, and ends as after SIGTERM. If the new one fails, the old one serves
/// on. A service manager can pass listening sockets (LISTEN_FDS, as systemd does), which replace
/// --listen; READY=1 is sent to its NOTIFY_SOCKET.
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// What to do with a connection
    #[arg(value_enum)]
    pub(crate) service: Service,
    /// Where to listen: an IP address and a port; port 0 takes any free port. Or unix:PATH, or
    /// unix:@NAME for an abstract name
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7000")]
    pub(crate) listen: String,
    /// How much `answer` answers: 64, 16KiB, 1MiB, 1GiB; up to 1TiB
    #[arg(long, value_name = "N", default_value = "64", value_parser = args::size, allow_hyphen_values = true)]
    pub(crate) bytes: u64,
    /// `answer` answers, and finishes first, as soon as so many bytes have come (0: at once), in
    /// place of waiting for the client's FIN; to a client that finishes before, it says nothing
    #[arg(long, value_name = "N", value_parser = args::size, allow_hyphen_values = true)]
    pub(crate) after: Option<u64>,
    /// How a finished connection is closed
    #[arg(long, value_enum, default_value_t = Closing::Confirmed)]
    close: Closing,
    /// Reset a connection on which no byte moved for so long: 250ms, 2s, 1m. (A FIN instead would
    /// claim that we have said all there was to say.) Without it, silence is no reason to end
    #[arg(long, value_name = "DUR", value_parser = args::time_limit, allow_hyphen_values = true)]
    idle_timeout: Option<Duration>,
    /// Accept a connection only when its first bytes have arrived, or after this time, rounded up
    /// to seconds, and a little more (TCP_DEFER_ACCEPT). For clients that speak first
    #[arg(long, value_name = "DUR", value_parser = args::time_limit, allow_hyphen_values = true)]
    pub(crate) defer_accept: Option<Duration>,
    /// Share the port with other servers that say so too (SO_REUSEPORT): the kernel spreads the
    /// connections over them
    #[arg(long)]
    pub(crate) reuse_port: bool,
    /// So many reactors, each on a thread of its own, all on one port (SO_REUSEPORT): the kernel
    /// spreads the connections over them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256), allow_hyphen_values = true)]
    pub(crate) shards: u16,
    /// How long live connections may go on after SIGINT or SIGTERM
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = args::duration, allow_hyphen_values = true)]
    grace: Duration,
    /// End with this process, which has started us; not for people
    #[arg(long, value_name = "PID", hide = true)]
    parent: Option<i32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    /// Reads to their FIN, answers `Processed: ` and the trimmed text in upper case. Requests go up
    /// to 1 MiB; a longer one is reset, unanswered
    Upper,
    /// Reads to their FIN, then sends N bytes: a line of 64, over and over
    Answer,
    /// Sends back what comes, as fast as the client takes it
    Echo,
    /// Reads, and answers nothing
    Discard,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Closing {
    /// When their kernel has acknowledged our FIN, and so every byte
    Confirmed,
    /// At once; the kernel delivers the rest alone, and nobody learns whether it arrived
    HandOff,
}

impl From<Closing> for CloseMode {
    fn from(closing: Closing) -> Self {
        match closing {
            Closing::Confirmed => Self::Confirmed,
            Closing::HandOff => Self::HandOff,
        }
    }
}

/// Serves until a signal comes.
pub(crate) fn run(options: &Serve) -> Result<(), Trouble> {
    check(options)?;
    let mut listen = ListenOptions::default().close_mode(options.close.into()).idle_timeout(options.idle_timeout);
    if options.service == Service::Answer {
        listen = listen.high_water_mark(house::ANSWER_MARK_BYTES);
    }
    // Before anything can be replaced: an upgrade puts another file there.
    let program = std::env::current_exe().map_err(|error| Trouble::io("find our own program", error))?;
    let mut sockets = Sockets::open(options)?;
    let mut reactors = (0..options.shards).map(|_| Reactor::new()).collect::<Result<Vec<_>, _>>()?;
    let places = sockets.listen(&mut reactors, &listen)?;
    let (asks, asked): (Vec<_>, Vec<_>) = reactors.iter().map(|reactor| reactor.inbox(ASKS)).unzip();
    let mut control = Reactor::new()?;
    // Before the first line: whoever has read it may send a signal at once.
    let stops = Signalled::watch(&control, &[SIGINT, SIGTERM])?;
    let restarts = Signalled::watch(&control, &[SIGHUP])?;
    let curious = Signalled::watch(&control, &[SIGUSR1])?;
    if !lives_with(options.parent)? {
        return Ok(());
    }
    let live = Arc::new(AtomicUsize::new(0));
    let (shards, orders) = Shard::group(reactors);
    let houses = asked.into_iter().map(|asked| (House::new(options, &live), asked));
    let running = Running::start(shards.into_iter().zip(houses).collect(), &orders, &control)?;
    match announce(&places) {
        // Who has handed the sockets over knows where they are.
        Err(error) if sockets.are_inherited() => log::debug!("nobody reads where we listen: {error}"),
        told => told.map_err(Trouble::Stdout)?,
    }
    sockets.take_over();
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        log::warn!("can't tell NOTIFY_SOCKET that we serve: {error}");
    }
    let mut restart = Restart { program, sockets, signals: restarts, handover: None };
    let mut stopping = Stopping { orders, signals: stops, grace: options.grace, has_begun: false, live };
    let mut curious = Curious { signals: curious, asks };
    while !running.is_over() && control.next()?.is_some() {
        if restart.look(&control, &stopping) {
            stopping.begin();
        }
        stopping.look();
        if stopping.has_begun {
            restart.give_up();
        }
        curious.look();
    }
    restart.give_up();
    Ok(running.shards.join()?)
}

/// Numbers that are asked for and not yet told.
const ASKS: usize = 16;

/// Whether the options go together.
fn check(options: &Serve) -> Result<(), Trouble> {
    if options.after.is_some() && options.service != Service::Answer {
        return Err(Trouble::Usage("--after is for the service answer alone; the others answer what they have read"));
    }
    if options.defer_accept.is_some() && options.after == Some(0) {
        return Err(Trouble::Usage(
            "--defer-accept waits for the client's first bytes, and with --after 0 the client waits for ours",
        ));
    }
    Ok(())
}

fn announce(places: &[String]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for place in places {
        writeln!(out, "listening on {place}")?;
    }
    out.flush()
}

/// Has the end of the process that started us end us too, as a SIGTERM would. Answers whether it
/// still lives.
fn lives_with(parent: Option<i32>) -> Result<bool, Trouble> {
    let Some(parent) = parent else { return Ok(true) };
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .map_err(|errno| Trouble::io("bind the server's life to its parent's", errno.into()))?;
    // It may have ended before we asked.
    Ok(rustix::process::getppid().is_some_and(|now| now.as_raw_nonzero().get() == parent))
}

/// Counts these signals on a thread of its own, and wakes the reactor for each.
pub(crate) fn watch_signals(remote: Waker, signals: &[i32]) -> Result<Arc<AtomicUsize>, Trouble> {
    let mut signals = Signals::new(signals).map_err(|source| Trouble::io("watch for signals", source))?;
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    thread::spawn(move || {
        for _signal in signals.forever() {
            counter.fetch_add(1, Ordering::Release);
            if remote.wake().is_err() {
                return;
            }
        }
    });
    Ok(count)
}

/// Signals of a kind. Wakes are merged, so their count says how many came.
struct Signalled {
    count: Arc<AtomicUsize>,
    seen: usize,
}

impl Signalled {
    fn watch(control: &Reactor, signals: &[i32]) -> Result<Self, Trouble> {
        Ok(Self { count: watch_signals(control.waker(), signals)?, seen: 0 })
    }

    /// How many have come since the last look.
    fn new_ones(&mut self) -> usize {
        let count = self.count.load(Ordering::Acquire);
        count - std::mem::replace(&mut self.seen, count)
    }
}

/// The shards at work.
struct Running {
    shards: Shards,
    count: usize,
    ended: Arc<AtomicUsize>,
}

/// A shard and what it serves with.
type Part = (Shard, (House, Inbox<mpsc::Sender<Metrics>>));

impl Running {
    fn start(parts: Vec<Part>, orders: &ShardStopper, control: &Reactor) -> Result<Self, Trouble> {
        let (count, ended) = (parts.len(), Arc::new(AtomicUsize::new(0)));
        let (remote, ends) = (control.waker(), Arc::clone(&ended));
        let shards = Shards::run(parts, orders.clone(), move |shard, (house, asked)| {
            let _ends = Ends { ended: Arc::clone(&ends), remote: remote.clone() };
            house::run(shard, house, asked)
        })?;
        Ok(Self { shards, count, ended })
    }

    fn is_over(&self) -> bool {
        self.ended.load(Ordering::Acquire) == self.count
    }
}

/// Held by a shard's thread: says when it ends.
struct Ends {
    ended: Arc<AtomicUsize>,
    remote: Waker,
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.ended.fetch_add(1, Ordering::Release);
        let _ = self.remote.wake();
    }
}

/// The way out.
struct Stopping {
    orders: ShardStopper,
    signals: Signalled,
    grace: Duration,
    has_begun: bool,
    live: Arc<AtomicUsize>,
}

impl Stopping {
    fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Accepts nobody any more but who waits already.
    fn begin(&mut self) {
        if !std::mem::replace(&mut self.has_begun, true) {
            log::info!("stopping: {} live connections have {:?}", self.live(), self.grace);
            self.orders.stop(StopOptions::default().grace(None).limit(self.grace));
        }
    }

    fn look(&mut self) {
        let (before, new) = (self.signals.seen, self.signals.new_ones());
        if new > 0 {
            self.begin();
        }
        if new > 0 && before + new > 1 {
            self.orders.stop(StopOptions::default().grace(None).limit(Duration::ZERO));
        }
    }
}

/// Whoever wants to see numbers.
struct Curious {
    signals: Signalled,
    asks: Vec<Sender<mpsc::Sender<Metrics>>>,
}

impl Curious {
    fn look(&mut self) {
        if self.signals.new_ones() == 0 {
            return;
        }
        let (answer, answers) = mpsc::channel();
        let asked = self.asks.iter().filter(|ask| ask.send(answer.clone()).is_ok()).count();
        // A shard that ends meanwhile does not answer: its end drops the question.
        drop(answer);
        let sum = answers.iter().take(asked).reduce(|mut sum, more| {
            sum += &more;
            sum
        });
        if let Some(sum) = sum {
            say(format_args!("{sum}"));
        }
    }
}

/// Another process that is to take our place.
struct Restart {
    program: PathBuf,
    sockets: Sockets,
    signals: Signalled,
    handover: Option<Handover>,
}

impl Restart {
    /// We go, whoever has taken our place or not: nobody does from now on.
    fn give_up(&mut self) {
        if let Some(handover) = self.handover.take() {
            if let Some(Ok(pid)) = handover.outcome() {
                say(format_args!("finale: process {pid} serves"));
                return self.sockets.detach();
            }
            say(format_args!("finale: not restarted: we are to stop, and so is the new process"));
            handover.give_up();
        }
        self.sockets.close();
    }

    /// Begins a restart that was asked for, unless one is under way or we are going anyway. Answers
    /// whether somebody has taken our place.
    fn look(&mut self, control: &Reactor, stopping: &Stopping) -> bool {
        let asked = self.signals.new_ones() > 0;
        if asked && self.handover.is_none() && !stopping.has_begun {
            say(format_args!("finale: restarting: starting {}", self.program.display()));
            let legacy = self.sockets.legacy();
            match legacy.and_then(|legacy| Handover::begin(&self.program, legacy, control.waker())) {
                Ok(handover) => self.handover = Some(handover),
                Err(error) => say(format_args!("finale: not restarted: {}: {error}", self.program.display())),
            }
        }
        let Some(outcome) = self.handover.as_ref().and_then(Handover::outcome) else { return false };
        self.handover = None;
        match outcome {
            Ok(pid) => {
                say(format_args!("finale: process {pid} serves; {} connections end here", stopping.live()));
                self.sockets.detach();
                true
            }
            Err(why) => {
                say(format_args!("finale: not restarted, serving on: {why}"));
                false
            }
        }
    }
}
