//! The people in the chat, and the lines that they send to each other.
//!
//! Invariant: what one client does costs no other client its connection. The rules:
//!
//! - A client may fill the others' screens with 16 KiB at once, and then with 16 KiB per second.
//!   While it has sent more, it is not read, and TCP slows it down.
//! - A client that takes less than the others send misses lines, and learns how many. At most 32
//!   KiB and one line wait for it. The others do not wait.
//! - A client that takes nothing at all for 30 s while lines wait is disconnected.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use finale::{Backpressure, Context, Event, ListenOptions, Socket, SocketId, SocketMap, TimerId};

/// A longer line is refused.
const LINE_BYTES: usize = 1024;
/// Longer names are cut: a name is sent with each line.
const NAME_CHARS: usize = 32;
/// What a client may send to the others at once, counted as they receive it. It is less than may
/// wait for a client, so one that reads misses nothing of a single sender.
const BURST_BYTES: usize = 16 * 1024;
/// What it may send per second after that.
const BYTES_PER_SECOND: usize = 16 * 1024;
/// Each line is written to each client, so the cost grows with the square of their number.
const PEOPLE: usize = 1000;

/// The options of the chat's listener.
pub(crate) fn options() -> ListenOptions {
    ListenOptions::default()
        .max_connections(PEOPLE)
        .high_water_mark(32 * 1024)
        .write_timeout(Duration::from_secs(30))
        .idle_timeout(Duration::from_secs(600))
}

/// The people in the chat.
#[derive(Debug, Default)]
pub(crate) struct Chat {
    pub(crate) people: SocketMap<Person>,
    /// Who is read again at which timer.
    slowed: HashMap<TimerId, SocketId>,
    is_closed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Person {
    /// The first line that it sends.
    name: Option<String>,
    /// What it has sent and the others have not got yet.
    input: Vec<u8>,
    sent: Allowance,
    /// More lines would not fit into its queue.
    is_full: bool,
    /// How many lines it has missed since.
    missed: usize,
}

/// How much of its burst a client has used: a bucket that fills with what it sends, and leaks.
#[derive(Debug, Default)]
struct Allowance {
    used_bytes: usize,
    since: Option<Instant>,
}

impl Allowance {
    fn spend(&mut self, bytes: usize) {
        self.used_bytes += bytes;
    }

    /// How long it must not send.
    fn wait(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.since.replace(now).unwrap_or(now));
        let leaked = passed.as_secs_f64() * BYTES_PER_SECOND as f64;
        self.used_bytes = self.used_bytes.saturating_sub(leaked as usize);
        let over = self.used_bytes.checked_sub(BURST_BYTES)?;
        // At least a fourth of the burst at a time, so that a flood needs few timers.
        Some(Duration::from_secs_f64((over + BURST_BYTES / 4) as f64 / BYTES_PER_SECOND as f64))
    }
}

impl Chat {
    pub(crate) fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        match event {
            Event::Connection if self.is_closed => socket.end(),
            Event::Connection => {
                self.people.insert(socket.id(), Person::default());
                tell(socket, "who are you?\n");
            }
            Event::Data(bytes) => {
                if let Some(person) = self.people.get_mut(socket.id()) {
                    person.input.extend_from_slice(bytes);
                    self.hear(socket);
                }
            }
            Event::Timer(id) => {
                let slowed = self.slowed.remove(&id);
                if let Some(mut socket) = slowed.and_then(|id| socket.get(id)) {
                    socket.resume();
                    self.hear(&mut socket);
                }
            }
            Event::Drain => self.catch_up(socket),
            Event::End => {
                tell(socket, "bye\n");
                socket.end();
            }
            Event::Timeout => socket.destroy(),
            Event::Close(_) => self.leave(socket),
            _ => {}
        }
    }

    /// Ends the chat for everybody.
    pub(crate) fn close(&mut self, context: &mut Context<'_>) {
        self.is_closed = true;
        for (id, _) in self.people.iter() {
            if let Some(mut socket) = context.socket(id) {
                tell(&mut socket, "* the chat has ended\n");
                socket.end();
                socket.discard();
            }
        }
        self.people = SocketMap::new();
    }

    /// Passes on the lines of a client, as many as it may send now.
    fn hear(&mut self, socket: &mut Socket<'_>) {
        let mut taken = 0;
        while let Some(person) = self.people.get_mut(socket.id()) {
            if let Some(wait) = person.sent.wait(socket.now()) {
                // The rest waits here, and what follows in the kernel and at the client.
                person.input.drain(..taken);
                socket.pause();
                self.slowed.insert(socket.set_timer(wait), socket.id());
                return;
            }
            let rest = &person.input[taken..];
            let end = rest.iter().position(|byte| *byte == b'\n');
            if end.unwrap_or(rest.len()) > LINE_BYTES {
                tell(socket, "that is no line\n");
                self.leave(socket);
                socket.end();
                // What it still sends is dropped. Our line reaches it.
                return socket.discard();
            }
            let Some(end) = end else {
                person.input.drain(..taken);
                return;
            };
            taken += end + 1;
            let words = String::from_utf8_lossy(&rest[..end]).replace(char::is_control, "");
            let line = match &person.name {
                Some(name) => format!("{name}: {words}\n"),
                None => {
                    let name: String = words.chars().take(NAME_CHARS).collect();
                    format!("* {} has come\n", person.name.insert(name))
                }
            };
            person.sent.spend(line.len());
            self.tell_others(socket, &line);
        }
    }

    fn leave(&mut self, socket: &mut Socket<'_>) {
        if let Some(Person { name: Some(name), .. }) = self.people.remove(socket.id()) {
            self.tell_others(socket, &format!("* {name} has left\n"));
        }
    }

    fn tell_others(&mut self, socket: &mut Socket<'_>, line: &str) {
        let own = socket.id();
        for (id, person) in self.people.iter_mut().filter(|(id, _)| *id != own) {
            if person.is_full {
                person.missed += 1;
            } else if let Some(mut other) = socket.get(id) {
                person.is_full = tell(&mut other, line);
            }
        }
    }

    /// A client has taken everything that waited for it.
    fn catch_up(&mut self, socket: &mut Socket<'_>) {
        let Some(person) = self.people.get_mut(socket.id()) else { return };
        person.is_full = match std::mem::take(&mut person.missed) {
            0 => false,
            missed => tell(socket, &format!("* you have missed {missed} lines\n")),
        };
    }
}

/// Sends a line, unless our side has ended. Returns whether no further one fits.
fn tell(socket: &mut Socket<'_>, line: &str) -> bool {
    if socket.end_called() {
        return false;
    }
    match socket.write(line.as_bytes()) {
        Ok(room) => room == Backpressure::Full,
        Err(_) => {
            socket.destroy();
            false
        }
    }
}
