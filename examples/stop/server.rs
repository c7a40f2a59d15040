//! The handler: it passes each line on as a job, and pauses its socket until the answer is there.

use std::sync::mpsc::SyncSender;
use std::time::Duration;

use finale::{Event, ListenOptions, Socket, SocketId, SocketMap};

const LINE_BYTES: usize = 64;
/// A line must be complete this long after its first byte. A stop would wait for the rest.
const LINE_TIME: Duration = Duration::from_secs(10);

pub(crate) fn options(options: ListenOptions) -> ListenOptions {
    options.max_connections(1000).idle_timeout(Duration::from_secs(60))
}

/// What a client may ask for with one line: some seconds of work. More would hold a thread for as
/// long as the client likes.
const BELOW_AT_MOST: u64 = 5_000_000;

/// How many primes are below a number?
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    pub(crate) socket: SocketId,
    pub(crate) below: u64,
}

/// By trial division: it is meant to take time.
pub(crate) fn count_primes(below: u64) -> u64 {
    let is_prime = |n: &u64| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    (2..below).filter(is_prime).count() as u64
}

#[derive(Debug, Default)]
struct Client {
    /// Lines that have no answer yet, the one at work excluded.
    input: Vec<u8>,
    is_busy: bool,
    /// A deadline runs for the rest of a line.
    is_partial: bool,
    has_ended: bool,
}

pub(crate) struct Primes {
    jobs: SyncSender<Job>,
    clients: SocketMap<Client>,
}

impl Primes {
    pub(crate) fn new(jobs: SyncSender<Job>) -> Self {
        Self { jobs, clients: SocketMap::new() }
    }

    pub(crate) fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        match event {
            // After our end, which a stop brings, there is no answer any more: `write` would fail, and a
            // reset could destroy the last one.
            Event::Data(bytes) if !socket.end_called() => {
                self.clients.or_default(socket.id()).input.extend_from_slice(bytes);
                self.next_line(socket);
            }
            Event::End => {
                self.clients.or_default(socket.id()).has_ended = true;
                self.next_line(socket);
            }
            // A busy client is silent because it waits for us.
            Event::Timeout if !socket.is_paused() => socket.destroy(),
            Event::Close(_) => drop(self.clients.remove(socket.id())),
            _ => {}
        }
    }

    /// The result of a job.
    pub(crate) fn answer(&mut self, socket: &mut Socket<'_>, count: u64) {
        self.clients.or_default(socket.id()).is_busy = false;
        socket.resume();
        if write(socket, &format!("{count}\n")) {
            self.next_line(socket);
        }
    }

    /// Begins the next job, unless one is at work: answers keep the order of the lines.
    fn next_line(&mut self, socket: &mut Socket<'_>) {
        let client = self.clients.or_default(socket.id());
        let mut taken = 0;
        while !client.is_busy
            && let Some(length) = client.input[taken..].iter().position(|byte| *byte == b'\n')
        {
            let line = &client.input[taken..taken + length];
            taken += length + 1;
            if std::mem::take(&mut client.is_partial) {
                socket.set_deadline(None);
            }
            let below = std::str::from_utf8(line).ok().and_then(|line| line.trim().parse().ok());
            let job = below.map(|below| Job { socket: socket.id(), below });
            let goes_on = match job {
                None => write(socket, "not a number\n"),
                Some(Job { below, .. }) if below > BELOW_AT_MOST => write(socket, "too large a number\n"),
                Some(job) if self.jobs.try_send(job).is_err() => write(socket, "too many jobs\n"),
                Some(_) => {
                    // Paused means busy: nothing more is read, and the grace of a stop waits.
                    socket.pause();
                    client.is_busy = true;
                    true
                }
            };
            if !goes_on {
                return;
            }
        }
        client.input.drain(..taken);
        if client.has_ended && !client.is_busy {
            socket.end(); // Everything is answered.
        } else if !client.is_busy && client.input.len() > LINE_BYTES {
            socket.destroy(); // Not a line of this protocol.
        } else if !client.is_busy && !client.input.is_empty() && !client.is_partial {
            client.is_partial = true;
            socket.set_deadline(LINE_TIME);
        }
    }
}

/// Returns whether the connection can continue.
fn write(socket: &mut Socket<'_>, answer: &str) -> bool {
    let is_written = socket.write(answer.as_bytes()).is_ok();
    if !is_written {
        socket.destroy();
    }
    is_written
}
