//! The store on finale. A value is read by `fill` into the memory in which it stays, and sent from
//! there. `values-finale RECEIVE_BYTES` chooses the receive buffer: with a small one, the largest
//! part of a value is read by `fill`, and not copied.

use std::collections::HashMap;
use std::sync::Arc;

use finale::{Backpressure, Buffer, Event, ListenOptions, Reactor, Socket, SocketMap};
use finale_peers::server::{announce, listen};
use finale_values::{Command, LINE_BYTES};

/// Room for several answers of the largest value that is measured.
const HIGH_WATER_BYTES: usize = 1 << 20;

#[derive(Default)]
struct Store {
    values: HashMap<Vec<u8>, Arc<Vec<u8>>>,
    clients: SocketMap<Client>,
}

#[derive(Default)]
struct Client {
    /// The incomplete line.
    line: Vec<u8>,
    /// The name and the length of the value that is being read.
    expected: (Vec<u8>, usize),
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = listen()?;
    announce(&listener)?;
    let mut reactor = Reactor::new()?;
    if let Some(bytes) = std::env::args().nth(1) {
        reactor.set_receive_buffer(bytes.parse()?)?;
    }
    reactor.adopt(listener, ListenOptions::default().high_water_mark(HIGH_WATER_BYTES))?;
    let mut store = Store::default();
    while let Some((mut socket, event)) = reactor.next()? {
        let mut can_continue = Some(());
        match event {
            Event::Data(bytes) => can_continue = store.received(&mut socket, bytes),
            Event::Filled => can_continue = socket.take_filled().and_then(|value| store.keep(&mut socket, value)),
            Event::Drain => socket.resume(),
            Event::End => socket.end(),
            Event::Close(_) => drop(store.clients.remove(socket.id())),
            _ => {}
        }
        if can_continue.is_none() {
            socket.destroy();
        }
    }
    Ok(())
}

impl Store {
    /// Handles the commands in `bytes`. `None`: the connection can't continue.
    fn received(&mut self, socket: &mut Socket<'_>, mut bytes: &[u8]) -> Option<()> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            bytes = &rest[1..];
            let client = self.clients.or_default(socket.id());
            client.line.extend_from_slice(line);
            let line = std::mem::take(&mut client.line);
            match Command::parse(&line)? {
                Command::Get { name } => self.answer(socket, name)?,
                Command::Set { name, bytes: len } => {
                    client.expected = (name.to_vec(), len);
                    let (first, rest) = bytes.split_at(len.min(bytes.len()));
                    bytes = rest;
                    let mut value = Vec::with_capacity(len);
                    value.extend_from_slice(first);
                    if let Err(complete) = socket.fill(value, len) {
                        self.keep(socket, complete)?;
                    }
                }
            }
        }
        let line = &mut self.clients.or_default(socket.id()).line;
        line.extend_from_slice(bytes);
        (line.len() <= LINE_BYTES).then_some(())
    }

    fn answer(&self, socket: &mut Socket<'_>, name: &[u8]) -> Option<()> {
        let value = self.values.get(name)?;
        let head = format!("{}\n", value.len()).into_bytes();
        sent(socket, |socket| socket.write_owned_parts([head.into(), Buffer::shared(value, ..)]))
    }

    fn keep(&mut self, socket: &mut Socket<'_>, value: Vec<u8>) -> Option<()> {
        let (name, len) = std::mem::take(&mut self.clients.or_default(socket.id()).expected);
        // A client that ends before its value is complete stores nothing.
        (value.len() == len).then_some(())?;
        self.values.insert(name, Arc::new(value));
        sent(socket, |socket| socket.write(b"OK\n"))
    }
}

/// Writes, and reads no more commands while the client does not read.
fn sent(
    socket: &mut Socket<'_>,
    write: impl FnOnce(&mut Socket<'_>) -> Result<Backpressure, finale::Error>,
) -> Option<()> {
    if write(socket).ok()? == Backpressure::Full {
        socket.pause();
    }
    Some(())
}
