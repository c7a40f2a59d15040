//! The people in the chat, and the lines that they send to each other.

use std::time::Duration;

use finale::{Event, ListenOptions, Socket, SocketId, SocketMap};

/// A longer line is refused.
const LINE_BYTES: usize = 1024;

/// The options of the chat's listener: at most 64 KiB wait for a client that reads nothing.
pub(crate) fn options() -> ListenOptions {
    ListenOptions::default().high_water_mark(32 * 1024).write_limit(64 * 1024).idle_timeout(Duration::from_secs(600))
}

/// The people in the chat.
#[derive(Debug, Default)]
pub(crate) struct Chat {
    pub(crate) people: SocketMap<Person>,
}

#[derive(Debug, Default)]
pub(crate) struct Person {
    /// The first line that it sends.
    name: Option<String>,
    /// The bytes of the next line so far.
    line: Vec<u8>,
}

impl Chat {
    pub(crate) fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        match event {
            Event::Connection => {
                self.people.insert(socket.id(), Person::default());
                tell(socket, "who are you?\n");
            }
            Event::Data(bytes) => bytes.iter().for_each(|byte| self.hear(socket, *byte)),
            Event::End => {
                tell(socket, "bye\n");
                socket.end();
            }
            Event::Timeout => socket.destroy(),
            Event::Close(_) => {
                if let Some(Person { name: Some(name), .. }) = self.people.remove(socket.id()) {
                    self.tell_others(socket, &format!("* {name} has left\n"));
                }
            }
            _ => {}
        }
    }

    fn hear(&mut self, socket: &mut Socket<'_>, byte: u8) {
        let Some(person) = self.people.get_mut(socket.id()) else { return };
        if byte != b'\n' {
            person.line.push(byte);
            if person.line.len() > LINE_BYTES {
                tell(socket, "that is no line\n");
                // What it still sends is dropped. Our line reaches it.
                self.leave(socket);
            }
            return;
        }
        let words = String::from_utf8_lossy(&std::mem::take(&mut person.line)).replace(char::is_control, "");
        let told = match &person.name {
            Some(name) => format!("{name}: {words}\n"),
            None => {
                person.name = Some(words.clone());
                format!("* {words} has come\n")
            }
        };
        self.tell_others(socket, &told);
    }

    fn leave(&mut self, socket: &mut Socket<'_>) {
        if let Some(Person { name: Some(name), .. }) = self.people.remove(socket.id()) {
            self.tell_others(socket, &format!("* {name} has left\n"));
        }
        socket.end();
        socket.discard();
    }

    fn tell_others(&self, socket: &mut Socket<'_>, words: &str) {
        let own = socket.id();
        let others: Vec<SocketId> = self.people.iter().map(|(id, _)| id).filter(|id| *id != own).collect();
        for id in others {
            if let Some(mut other) = socket.get(id) {
                tell(&mut other, words);
            }
        }
    }
}

/// Sends a line, unless our side has ended. A client that takes nothing is reset, and its `close`
/// informs the others.
fn tell(socket: &mut Socket<'_>, words: &str) {
    if !socket.end_called() && socket.write(words.as_bytes()).is_err() {
        socket.destroy();
    }
}
