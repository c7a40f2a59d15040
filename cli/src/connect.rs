//! `finale connect`: stdin to the socket, the socket to stdout, the ending on stderr.
//!
//! Invariant: memory is bounded. Stdin is read only as fast as the socket takes it, the socket only
//! as fast as stdout.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use finale::{Backpressure, Event, Reactor, Socket, Waker};

use crate::args;
use crate::trouble::{Trouble, say};

/// stdin to a socket, the socket to stdout; says on stderr how it ended
///
/// The last line on stderr says how the connection ended; the exit code is 0 only for a clean
/// ending.
///
/// Without --half-close the end of stdin ends nothing: reading goes on to the peer's FIN, and then
/// our side ends too.
#[derive(Debug, clap::Args)]
pub(crate) struct ConnectOptions {
    /// Where to connect to; an IPv6 address in brackets: [::1]:7000
    #[arg(value_name = "HOST:PORT")]
    target: String,
    /// End our side when stdin ends, and only then; go on reading to the peer's FIN (for at most 5
    /// silent minutes)
    #[arg(long)]
    half_close: bool,
    /// Reset the connection when no byte moved for so long: 250ms, 2s, 1m
    #[arg(long, value_name = "DUR", value_parser = args::time_limit, allow_hyphen_values = true)]
    idle_timeout: Option<Duration>,
    /// Tell the socket's events on stderr
    #[arg(short, long)]
    verbose: bool,
}

/// 64 KiB a read: a pipe's whole content on Linux.
const CHUNK_BYTES: usize = 64 << 10;
/// Two chunks: one is being sent while the next is read.
const CHUNKS: usize = 2;

/// Connects and stays until the connection has ended.
pub(crate) fn run(options: &ConnectOptions) -> Result<(), Trouble> {
    let mut reactor = Reactor::new()?;
    let how = finale::ConnectOptions::default().idle_timeout(options.idle_timeout);
    let id = reactor
        .connect(options.target.as_str(), how)
        .map_err(|source| Trouble::Connect { target: options.target.clone(), source })?;
    let mut input = None;
    let mut line_is_open = false;
    while let Some((mut socket, event)) = reactor.next()? {
        if options.verbose {
            tell(&event);
        }
        match event {
            // Not before: a refused connection shall not have eaten what stdin held.
            Event::Ready => input = Some(Input::open(options.half_close, reactor.waker())),
            Event::Data(bytes) => {
                line_is_open = !bytes.ends_with(b"\n");
                or_give_up(print(bytes), &mut socket);
            }
            Event::Drain => {
                if let Some(input) = &mut input {
                    input.queue = Backpressure::Room;
                    or_give_up(input.flow(&mut socket), &mut socket);
                }
            }
            Event::Woken => {
                if let (Some(input), Some(mut socket)) = (&mut input, reactor.socket(id)) {
                    or_give_up(input.flow(&mut socket), &mut socket);
                }
            }
            Event::Timeout => {
                say(format_args!("finale: {}: no byte moved for the idle time, resetting it", options.target));
                socket.destroy();
            }
            Event::End if !options.half_close => {
                if let Some(input) = &mut input {
                    or_give_up(input.flow(&mut socket), &mut socket);
                }
                socket.end();
            }
            Event::Close(ending) => {
                if line_is_open && io::stdout().is_terminal() {
                    say(format_args!("")); // So that the report has a line of its own.
                }
                say(format_args!("finale: {}: {ending}", options.target));
                return if ending.is_clean() { Ok(()) } else { Err(Trouble::Told) };
            }
            _ => {}
        }
    }
    Ok(())
}

/// A connection whose bytes are lost on our side is reset: a FIN would claim that all went well.
fn or_give_up(result: Result<(), Trouble>, socket: &mut Socket<'_>) {
    if let Err(trouble) = result {
        trouble.tell();
        socket.destroy();
    }
}

/// Blocks while stdout is full: the peer then meets our closed window, which is all the
/// back-pressure there need be.
fn print(bytes: &[u8]) -> Result<(), Trouble> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Trouble::Stdout)
}

fn tell(event: &Event<'_>) {
    match event {
        Event::Lookup(ip) => say(format_args!("lookup: {ip}")),
        Event::Connect => say(format_args!("connect")),
        Event::Ready => say(format_args!("ready")),
        Event::Data(bytes) => say(format_args!("data: {} bytes", bytes.len())),
        Event::Drain => say(format_args!("drain")),
        Event::Timeout => say(format_args!("timeout")),
        Event::End => say(format_args!("end")),
        Event::Error(failure) => say(format_args!("error: {failure}")),
        Event::Close(_) => say(format_args!("close")),
        _ => {}
    }
}

/// Stdin, on its way to the socket.
struct Input {
    chunks: Receiver<io::Result<Vec<u8>>>,
    half_close: bool,
    queue: Backpressure,
}

impl Input {
    /// Reading stdin blocks, so a thread does it. It is not joined: nothing but the program's end
    /// interrupts it.
    fn open(half_close: bool, remote: Waker) -> Self {
        let (sender, chunks) = sync_channel(CHUNKS);
        thread::spawn(move || {
            read_stdin(sender, &remote);
            // The sender is gone by now, so this wake finds the end of stdin.
            let _ = remote.wake();
        });
        Self { chunks, half_close, queue: Backpressure::Room }
    }

    /// Moves what stdin has given until the queue is full.
    fn flow(&mut self, socket: &mut Socket<'_>) -> Result<(), Trouble> {
        while self.queue == Backpressure::Room && !socket.end_called() {
            match self.chunks.try_recv() {
                Ok(Ok(bytes)) => self.queue = socket.write(&bytes)?,
                Ok(Err(source)) => return Err(Trouble::io("read stdin", source)),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => {
                    if self.half_close {
                        socket.end();
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Hands stdin on in chunks until it ends or nobody takes them. Takes the sender: its end is the
/// end of stdin.
fn read_stdin(chunks: SyncSender<io::Result<Vec<u8>>>, remote: &Waker) {
    let mut stdin = io::stdin().lock();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let chunk = match stdin.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => Ok(buffer[..count].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = chunk.is_err();
        if chunks.send(chunk).is_err() || remote.wake().is_err() || failed {
            return;
        }
    }
}
