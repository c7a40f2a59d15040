//! `finale serve`: four small services, each reading to the client's FIN before it ends.
//!
//! Invariant: whatever one client does, the server goes on for the others; only a signal ends it.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use finale::{Close, Event, Listen, ListenerId, Queue, Reactor, Remote, Socket, SocketId, SocketMap};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::args;
use crate::handover::Handover;
use crate::sockets::Sockets;
use crate::trouble::{Trouble, say};

/// A server that reads to the client's FIN, answers and ends
///
/// The first line on stdout is `listening on IP:PORT`, or on `unix:PATH`. SIGINT and SIGTERM stop accepting, let the live
/// connections end for the grace time, then reset the rest and exit 0; a second signal resets them at once.
///
/// SIGUSR1 prints what it has done so far, in numbers, on stderr.
///
/// SIGHUP restarts the server and refuses nobody: the program at the same path is started anew, with the same arguments and our
/// listening sockets; when it serves, we accept nobody any more, and go as after SIGTERM. If it does not come up, we stay. Who has
/// started us may hand sockets over, too (LISTEN_FDS, as systemd does); they take the place of --listen, and when we
/// serve, NOTIFY_SOCKET is told so.
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// What to do with a connection
    #[arg(value_enum)]
    service: Service,
    /// Where to listen: an IP address and a port; port 0 takes any free port. Or unix:PATH, or unix:@NAME for an abstract name
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7000")]
    pub(crate) listen: String,
    /// How much `answer` answers: 64, 16KiB, 1MiB, 1GiB; up to 1TiB
    #[arg(long, value_name = "N", default_value = "64", value_parser = args::size, allow_hyphen_values = true)]
    bytes: u64,
    /// `answer` answers, and finishes first, as soon as so many bytes have come (0: at once), in place of waiting for the
    /// client's FIN; to a client that finishes before, it says nothing
    #[arg(long, value_name = "N", value_parser = args::size, allow_hyphen_values = true)]
    after: Option<u64>,
    /// How a finished connection is closed
    #[arg(long, value_enum, default_value_t = Closing::Confirmed)]
    close: Closing,
    /// Reset a connection on which no byte moved for so long: 250ms, 2s, 1m. (A FIN instead would claim that we have
    /// said all there was to say.) Without it, silence is no reason to end
    #[arg(long, value_name = "DUR", value_parser = args::time_limit, allow_hyphen_values = true)]
    idle_timeout: Option<Duration>,
    /// Have the kernel keep a connection to itself until its first bytes are there, so that nobody is woken for nothing; for so
    /// long at the most, in whole seconds, and a little more (TCP_DEFER_ACCEPT). For clients that speak first
    #[arg(long, value_name = "DUR", value_parser = args::time_limit, allow_hyphen_values = true)]
    pub(crate) defer_accept: Option<Duration>,
    /// Share the port with other servers that say so too (SO_REUSEPORT): the kernel spreads the connections over them
    #[arg(long)]
    pub(crate) reuse_port: bool,
    /// How long live connections may go on after SIGINT or SIGTERM
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = args::duration, allow_hyphen_values = true)]
    grace: Duration,
    /// End with this process, which has started us; not for people
    #[arg(long, value_name = "PID", hide = true)]
    parent: Option<i32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    /// Reads to their FIN, answers `Processed: ` and the trimmed text in upper case. Requests go up to 1 MiB; a longer
    /// one is reset, unanswered
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

impl From<Closing> for Close {
    fn from(closing: Closing) -> Self {
        match closing {
            Closing::Confirmed => Self::Confirmed,
            Closing::HandOff => Self::HandOff,
        }
    }
}

/// 1 MiB: a request is text that a person or a script made; a thousand such clients still fit into memory.
pub(crate) const REQUEST_LIMIT_BYTES: usize = 1 << 20;
/// What `answer` repeats: its length divides the usual sizes, so that a cut or a shift is seen at once.
pub(crate) const LINE: &[u8; 64] = b"finale: 64 bytes that say nothing but that the answer is whole.\n";
/// 64 KiB that stay in the processor's cache while they are sent again and again.
const PIECE_BYTES: usize = 64 << 10;
/// `answer` writes eight pieces ahead, which one system call takes. They are one and the same copy in memory.
const ANSWER_MARK_BYTES: usize = 8 * PIECE_BYTES;

/// Serves until a signal comes.
pub(crate) fn run(options: &Serve) -> Result<(), Trouble> {
    check(options)?;
    let mut reactor = Reactor::new()?;
    let mut listen = Listen::default().close(options.close.into()).idle_timeout(options.idle_timeout);
    if options.service == Service::Answer {
        listen = listen.high_water_mark(ANSWER_MARK_BYTES);
    }
    // Before anything can be replaced: an upgrade puts another file there.
    let program = std::env::current_exe().map_err(|error| Trouble::io("find our own program", error))?;
    let sockets = Sockets::open(options)?;
    let listening = sockets.listen(&mut reactor, &listen)?;
    // Before the first line: whoever has read it may send a signal at once.
    let signals = watch_signals(reactor.remote(), &[SIGINT, SIGTERM])?;
    let restarts = watch_signals(reactor.remote(), &[SIGHUP])?;
    let mut curious = (watch_signals(reactor.remote(), &[SIGUSR1])?, 0);
    if !lives_with(options.parent)? {
        return Ok(());
    }
    match announce(&listening) {
        // Who has handed the sockets over knows where they are.
        Err(error) if sockets.are_inherited() => log::debug!("nobody reads where we listen: {error}"),
        told => told.map_err(Trouble::Stdout)?,
    }
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        log::warn!("can't tell NOTIFY_SOCKET that we serve: {error}");
    }

    let mut house = House::new(options);
    let mut rests = Rests { warned: None };
    let listeners = listening.into_iter().map(|(id, _)| id).collect();
    let mut stop = Stop { listeners, signals, grace: options.grace, seen: 0, has_begun: false };
    let mut restart = Restart { program, sockets, signals: restarts, seen: 0, handover: None };
    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Woken => {
                if restart.look(&mut reactor, stop.has_begun) {
                    stop.begin(&mut reactor)?;
                }
                stop.look(&mut reactor)?;
                if stop.has_begun {
                    restart.give_up();
                }
                let asked = curious.0.load(Ordering::Acquire);
                if std::mem::replace(&mut curious.1, asked) < asked {
                    say(format_args!("{}", reactor.metrics()));
                }
            }
            Event::Timer(_) => reset_all(&mut reactor),
            Event::ListenerRests(_, error) => rests.tell(error),
            event => house.serve(&mut socket, event),
        }
        if stop.has_begun && house.live == 0 {
            break;
        }
    }
    Ok(())
}

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

fn announce(listening: &[(ListenerId, String)]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (_, addr) in listening {
        writeln!(out, "listening on {addr}")?;
    }
    out.flush()
}

/// Has the end of the process that started us end us too, as a SIGTERM would. Answers whether it still lives.
fn lives_with(parent: Option<i32>) -> Result<bool, Trouble> {
    let Some(parent) = parent else { return Ok(true) };
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .map_err(|errno| Trouble::io("bind the server's life to its parent's", errno.into()))?;
    // It may have ended before we asked.
    Ok(rustix::process::getppid().is_some_and(|now| now.as_raw_nonzero().get() == parent))
}

/// Counts these signals on a thread of its own, and wakes the reactor for each.
pub(crate) fn watch_signals(remote: Remote, signals: &[i32]) -> Result<Arc<AtomicUsize>, Trouble> {
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

/// The way out.
struct Stop {
    listeners: Vec<ListenerId>,
    /// Wakes are merged, so the count says how many signals came.
    signals: Arc<AtomicUsize>,
    grace: Duration,
    seen: usize,
    has_begun: bool,
}

impl Stop {
    /// Accepts nobody any more.
    fn begin(&mut self, reactor: &mut Reactor) -> Result<(), Trouble> {
        if std::mem::replace(&mut self.has_begun, true) {
            return Ok(());
        }
        log::info!("stopping: {} live connections have {:?}", reactor.len(), self.grace);
        for listener in &self.listeners {
            reactor.close_listener(*listener)?;
        }
        reactor.set_timer(self.grace);
        Ok(())
    }

    fn look(&mut self, reactor: &mut Reactor) -> Result<(), Trouble> {
        let count = self.signals.load(Ordering::Acquire);
        if self.seen == 0 && count > 0 {
            self.begin(reactor)?;
        }
        if count > 1 {
            reset_all(reactor);
        }
        self.seen = count;
        Ok(())
    }
}

/// Another process that is to take our place.
struct Restart {
    program: PathBuf,
    sockets: Sockets,
    signals: Arc<AtomicUsize>,
    seen: usize,
    handover: Option<Handover>,
}

impl Restart {
    /// We go, whoever has taken our place or not: nobody does from now on.
    fn give_up(&mut self) {
        if let Some(handover) = self.handover.take() {
            say(format_args!("finale: not restarted: we are to stop, and so is the new process"));
            handover.give_up();
        }
        self.sockets.close();
    }

    /// Begins a restart that was asked for, unless one is under way or we are going anyway. Answers whether somebody has taken
    /// our place.
    fn look(&mut self, reactor: &mut Reactor, is_stopping: bool) -> bool {
        let count = self.signals.load(Ordering::Acquire);
        let asked = std::mem::replace(&mut self.seen, count) < count;
        if asked && self.handover.is_none() && !is_stopping {
            say(format_args!("finale: restarting: starting {}", self.program.display()));
            let copies = self.sockets.copies();
            match copies.and_then(|copies| Handover::begin(&self.program, copies, reactor.remote())) {
                Ok(handover) => self.handover = Some(handover),
                Err(error) => say(format_args!("finale: not restarted: {}: {error}", self.program.display())),
            }
        }
        let Some(outcome) = self.handover.as_ref().and_then(Handover::outcome) else { return false };
        self.handover = None;
        match outcome {
            Ok(pid) => {
                say(format_args!("finale: process {pid} serves; {} connections end here", reactor.len()));
                self.sockets.give_away();
                true
            }
            Err(why) => {
                say(format_args!("finale: not restarted, serving on: {why}"));
                false
            }
        }
    }
}

fn reset_all(reactor: &mut Reactor) {
    let live: Vec<SocketId> = reactor.sockets().iter().map(|socket| socket.id).collect();
    for id in live {
        if let Some(mut socket) = reactor.socket(id) {
            socket.destroy();
        }
    }
}

/// A server short of descriptors takes one connection for each that ends and rests again at once, so its warnings could
/// come by the thousand: one a second is told.
struct Rests {
    warned: Option<Instant>,
}

impl Rests {
    fn tell(&mut self, error: finale::OsError) {
        let quiet = self.warned.is_some_and(|warned| warned.elapsed() < Duration::from_secs(1));
        if quiet {
            log::debug!("accepting nothing for now: accept failed: {error}");
        } else {
            log::warn!("accepting nothing for now: accept failed: {error}");
            self.warned = Some(Instant::now());
        }
    }
}

/// One service and what it remembers of its clients.
struct House {
    service: Service,
    /// Connections that have not told `close`.
    live: usize,
    answer_bytes: u64,
    /// `answer`: the bytes after which it answers, if it does not wait for the FIN.
    after_bytes: Option<u64>,
    /// `upper`: what has come so far.
    requests: SocketMap<Vec<u8>>,
    /// `answer`: bytes still to be written, of answers that are larger than what may be queued at once.
    left_bytes: SocketMap<u64>,
    /// One copy of it for all clients, and for as long as the program runs.
    piece: &'static [u8],
}

impl House {
    fn new(options: &Serve) -> Self {
        Self {
            service: options.service,
            live: 0,
            answer_bytes: options.bytes,
            after_bytes: options.after,
            requests: SocketMap::new(),
            left_bytes: SocketMap::new(),
            piece: LINE.repeat(PIECE_BYTES / LINE.len()).leak(),
        }
    }

    /// A refused write is the end of one connection, never of the server.
    fn serve(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        if let Err(error) = self.try_serve(socket, event) {
            log::debug!("{}: {error}", socket.id());
            socket.destroy();
        }
    }

    fn try_serve(&mut self, socket: &mut Socket<'_>, event: Event<'_>) -> Result<(), finale::Error> {
        let id = socket.id();
        match (self.service, event) {
            (Service::Upper, Event::Data(bytes)) => self.collect(socket, bytes),
            (Service::Upper, Event::End) => {
                let request = self.requests.remove(id).unwrap_or_default();
                socket.write(upper(&request).as_bytes())?;
                socket.end();
            }
            (Service::Answer, Event::End) if self.after_bytes.is_none() => self.answer(socket, self.answer_bytes)?,
            (Service::Answer, Event::End) => self.without_request(socket),
            (Service::Answer, Event::Data(_)) => self.answer_if_due(socket)?,
            (Service::Answer, Event::Drain) => {
                if let Some(left_bytes) = self.left_bytes.remove(id) {
                    self.answer(socket, left_bytes)?;
                }
            }
            (Service::Echo, Event::Data(bytes)) => echo(socket, bytes)?,
            (Service::Echo, Event::Drain) => socket.resume(),
            (Service::Echo | Service::Discard, Event::End) => socket.end(),
            (_, Event::Connection) => {
                self.live += 1;
                self.answer_if_due(socket)?;
            }
            (_, Event::Timeout) => {
                log::debug!("{id}: silent for too long, resetting it");
                socket.destroy();
            }
            (_, Event::Error(failure)) => log::debug!("{id}: {failure}"),
            (_, Event::Close(ending)) => {
                log::debug!("{id}: {ending}");
                self.live -= 1;
                self.requests.remove(id);
                self.left_bytes.remove(id);
            }
            _ => {}
        }
        Ok(())
    }

    fn collect(&mut self, socket: &mut Socket<'_>, bytes: &[u8]) {
        let request = self.requests.or_default(socket.id());
        if request.len() + bytes.len() <= REQUEST_LIMIT_BYTES {
            request.extend_from_slice(bytes);
            return;
        }
        log::warn!("{}: a request of more than {REQUEST_LIMIT_BYTES} bytes, resetting it", socket.id());
        self.requests.remove(socket.id());
        socket.destroy();
    }

    /// Answers a client that has said enough, if it has no answer yet.
    fn answer_if_due(&mut self, socket: &mut Socket<'_>) -> Result<(), finale::Error> {
        let enough = self.after_bytes.is_some_and(|after_bytes| socket.bytes_read() >= after_bytes);
        if enough && !self.has_begun_to_answer(socket) {
            self.answer(socket, self.answer_bytes)?;
        }
        Ok(())
    }

    /// Who has finished before its request was whole gets none.
    fn without_request(&self, socket: &mut Socket<'_>) {
        if !self.has_begun_to_answer(socket) {
            socket.end();
        }
    }

    fn has_begun_to_answer(&self, socket: &Socket<'_>) -> bool {
        socket.has_ended() || self.left_bytes.get(socket.id()).is_some()
    }

    /// Writes until the queue is full or the answer is whole. Only what is left over needs to be remembered.
    fn answer(&mut self, socket: &mut Socket<'_>, mut left_bytes: u64) -> Result<(), finale::Error> {
        while left_bytes > 0 {
            let now = usize::try_from(left_bytes).unwrap_or(usize::MAX).min(self.piece.len());
            let queue = socket.write_owned(&self.piece[..now])?;
            left_bytes -= now as u64;
            if queue == Queue::Full && left_bytes > 0 {
                self.left_bytes.insert(socket.id(), left_bytes);
                return Ok(());
            }
        }
        socket.end();
        Ok(())
    }
}

/// Reads no more while the client doesn't take what it is owed.
fn echo(socket: &mut Socket<'_>, bytes: &[u8]) -> Result<(), finale::Error> {
    if socket.write(bytes)? == Queue::Full {
        socket.pause();
    }
    Ok(())
}

fn upper(request: &[u8]) -> String {
    format!("Processed: {}", String::from_utf8_lossy(request).trim().to_uppercase())
}
