//! Five handlers with a mistake each, and one without. `Endings` runs each against every ending at
//! every byte of one conversation, and says which rule is broken first.

use std::time::Duration;

use finale::check::Endings;
use finale::sim::Script;
use finale::{Event, ListenOptions, Socket};

type Handler = fn(&mut Socket<'_>, Event<'_>);

/// Takes one piece of data for the whole request.
fn one_piece(socket: &mut Socket<'_>, event: Event<'_>) {
    match event {
        Event::Data(bytes) if bytes.ends_with(b"\n") => answer(socket, bytes.len()),
        Event::Timeout => socket.destroy(),
        Event::End => socket.end(),
        _ => {}
    }
}

/// Answers, and then destroys instead of ending.
fn destroys(socket: &mut Socket<'_>, event: Event<'_>) {
    match event {
        Event::Data(_) if socket.bytes_read() == REQUEST.len() as u64 => drop(socket.write(b"7")),
        Event::End | Event::Timeout => socket.destroy(),
        _ => {}
    }
}

/// Does nothing at `end`, and waits for the peer to close.
fn never_ends(socket: &mut Socket<'_>, event: Event<'_>) {
    match event {
        Event::Data(_) if socket.bytes_read() == REQUEST.len() as u64 => drop(socket.write(b"7")),
        Event::Timeout => socket.destroy(),
        _ => {}
    }
}

/// Ignores `timeout`.
fn waits_for_ever(socket: &mut Socket<'_>, event: Event<'_>) {
    match event {
        Event::Data(_) if socket.bytes_read() == REQUEST.len() as u64 => answer(socket, REQUEST.len()),
        Event::End => socket.end(),
        _ => {}
    }
}

/// Takes `end` for a complete request.
fn end_is_complete(socket: &mut Socket<'_>, event: Event<'_>) {
    match event {
        Event::End => answer(socket, 7),
        Event::Timeout => socket.destroy(),
        _ => {}
    }
}

/// Without a mistake.
fn right(socket: &mut Socket<'_>, event: Event<'_>) {
    match event {
        Event::Data(_) if socket.bytes_read() == REQUEST.len() as u64 => answer(socket, REQUEST.len()),
        Event::End => socket.end(),
        Event::Timeout => socket.destroy(),
        _ => {}
    }
}

/// The answer is the length of the request.
fn answer(socket: &mut Socket<'_>, length: usize) {
    let _ = socket.write(length.to_string().as_bytes());
    socket.end();
}

const REQUEST: &[u8] = b"length\n";
const PROGRAMS: [(&str, Handler); 6] = [
    ("one_piece", one_piece),
    ("destroys", destroys),
    ("never_ends", never_ends),
    ("waits_for_ever", waits_for_ever),
    ("end_is_complete", end_is_complete),
    ("right", right),
];

pub(crate) fn main() -> Result<(), finale::Error> {
    let polite = Script::new().send(REQUEST).finish().receive(1).receive_end();
    let listen = ListenOptions::default().idle_timeout(Duration::from_secs(5));
    let endings = Endings::of_a_server(listen, polite).holds(|found| {
        let is_cut = found.sent.len() < REQUEST.len();
        if is_cut && !found.received.is_empty() { Err("a request that was cut got an answer".into()) } else { Ok(()) }
    });
    for (name, program) in PROGRAMS {
        let report = endings.run(|| program).to_string();
        println!("{name}:\n    {}", report.lines().next().unwrap_or_default());
    }
    Ok(())
}
