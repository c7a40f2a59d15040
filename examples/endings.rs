//! Three servers of one protocol, each tested against every ending at every byte. Two are wrong, in
//! ways that ordinary tests don't find, and one is right. Run it: `cargo run --example endings`.
//!
//! The protocol: a length byte and a name of that length; the answer is `hello NAME`. A FIN after
//! the request is allowed.

use std::io::{self, Write as _};
use std::time::Duration;

use finale::check::{CaseResult, Endings, Program, Report};
use finale::sim::Script;
use finale::{Event, ListenOptions, Socket};

/// Wrong: it assumes that a request arrives in one piece.
fn one_piece(socket: &mut Socket<'_>, event: Event<'_>) {
    match event {
        Event::Data([length, name @ ..]) if name.len() >= usize::from(*length) => {
            let _ = socket.write(&[b"hello ", &name[..usize::from(*length)]].concat());
            socket.end();
        }
        Event::Timeout => socket.destroy(),
        _ => {}
    }
}

/// Puts the pieces together.
#[derive(Default)]
struct Greeter {
    request: Vec<u8>,
    /// Wrong if set: it treats a peer that has finished sending as one that has gone.
    end_is_close: bool,
    open: bool,
}

impl Program for Greeter {
    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        match event {
            Event::Connection => self.open = true,
            Event::Data(bytes) => {
                self.request.extend_from_slice(bytes);
                if let [length, name @ ..] = &self.request[..]
                    && name.len() >= usize::from(*length)
                    && !socket.end_called()
                {
                    let _ = socket.write(&[b"hello ", &name[..usize::from(*length)]].concat());
                    socket.end();
                }
            }
            Event::End if self.end_is_close => socket.destroy(),
            // A request that was cut off gets no answer, only an end.
            Event::End => socket.end(),
            Event::Timeout => socket.destroy(),
            Event::Close(_) => *self = Self { end_is_close: self.end_is_close, ..Self::default() },
            _ => {}
        }
    }

    fn at_rest(&self, _found: &CaseResult) -> Result<(), String> {
        if self.open || !self.request.is_empty() { Err("something is left of a connection".into()) } else { Ok(()) }
    }
}

/// The conversation that goes well, and what must hold wherever it is cut.
fn endings() -> Endings {
    let polite = Script::new().send(b"\x06finale").receive(12).receive_end().finish();
    let listen = ListenOptions::default().idle_timeout(Duration::from_secs(5));
    Endings::of_a_server(listen, polite).holds(|found| {
        let cut_off = found.sent.len() < 7;
        if cut_off && !found.received.is_empty() { Err("half a request got an answer".into()) } else { Ok(()) }
    })
}

fn main() -> io::Result<()> {
    // `println!` would panic when the reader has left, as `head` does.
    let show = |title: &str, report: Report| writeln!(io::stdout(), "=== {title}\n{report}\n");
    show("a server that believes in whole pieces", endings().run(|| one_piece))?;
    show("a server that takes end for close", endings().run(|| Greeter { end_is_close: true, ..Greeter::default() }))?;
    show("a server that is right", endings().run(Greeter::default))
}
