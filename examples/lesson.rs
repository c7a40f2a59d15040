//! The lesson on the socket lifecycle: three experiments, each a conversation of a client with a
//! server in one loop. Run it: `cargo run --release --example lesson`.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::IpAddr;
use std::time::Duration;

use finale::trace::Recorder;
use finale::{ConnectOptions, Event, KeepAlive, ListenOptions};

type Done = Result<(), Box<dyn Error>>;

/// The whole lesson. The recorder sees what the reactors do; without one, a reactor is
/// `Reactor::new()`.
pub fn lesson(out: &mut impl Write, recorder: &Recorder) -> Done {
    socket_lifecycle(out, recorder)?;
    half_close(out, recorder)?;
    dead_connections(out, recorder)?;
    writeln!(out, "\nDone")?;
    Ok(())
}

/// One side of the first experiment: prints each event and remembers its name.
struct Side(&'static str, Vec<&'static str>);

impl Side {
    fn log(&mut self, out: &mut impl Write, event: &'static str, detail: impl Display) -> io::Result<()> {
        self.1.push(event);
        let colon = if detail.to_string().is_empty() { "" } else { ": " };
        writeln!(out, "[{}] {event}{colon}{detail}", self.0)
    }
}

/// Every event of both sides, in the order in which a connection lives.
fn socket_lifecycle(out: &mut impl Write, recorder: &Recorder) -> Done {
    writeln!(out, "=== Socket Lifecycle Events ===\n")?;
    let mut reactor = recorder.reactor()?;
    let listener = reactor.listen("127.0.0.1:0", ListenOptions::default())?;
    let client = reactor.connect(listener.addr, ConnectOptions::default())?;
    let (mut client_side, mut server_side) = (Side("client", vec![]), Side("server-socket", vec![]));

    while let Some((mut socket, event)) = reactor.next()? {
        let is_client = socket.id() == client;
        let side = if is_client { &mut client_side } else { &mut server_side };
        match event {
            Event::Lookup(ip) => side.log(out, "lookup", format!("{ip} (IPv{})", version(ip)))?,
            Event::Connect => side.log(out, "connect", "")?,
            Event::Ready => {
                side.log(out, "ready", "")?;
                socket.write(b"Hello from client\n")?;
                reactor.set_timer(Duration::from_millis(50));
            }
            Event::Connection => {
                let peer = socket.peer_addr().ok_or("accept gave no address")?;
                side.log(out, "connection", format!("from {peer}"))?;
            }
            Event::Data(bytes) => side.log(out, "data", format!("{:?}", text(bytes)))?,
            Event::End if is_client => side.log(out, "end", "server finished sending")?,
            Event::End => {
                side.log(out, "end", "client finished sending")?;
                socket.write(b"Server's final message\n")?; // Half-close: we can still send!
                socket.end(); // Now we're done too.
            }
            Event::Timer(_) => reactor.socket(client).ok_or("the client is gone")?.end(), // "I'm done sending."
            Event::Error(failure) => side.log(out, "error", failure)?,
            Event::Close(ending) => {
                side.log(out, "close", format!("hadError={}", ending.had_error()))?;
                if is_client {
                    reactor.close_listener(listener.id)?; // Now nothing is left, and the loop ends.
                }
            }
            _ => {}
        }
    }

    writeln!(out, "\n=== Event Summary ===\n")?;
    writeln!(out, "Client events: {}", client_side.1.join(" → "))?;
    writeln!(out, "Server events: {}", server_side.1.join(" → "))?;
    Ok(())
}

/// Send a request, say "done sending", read the answer.
fn half_close(out: &mut impl Write, recorder: &Recorder) -> Done {
    writeln!(out, "\n=== Half-Close Demonstration ===\n")?;
    let mut reactor = recorder.reactor()?;
    let listener = reactor.listen("127.0.0.1:0", ListenOptions::default())?;
    let client = reactor.connect(listener.addr, ConnectOptions::default())?;
    let (mut request, mut response) = (Vec::new(), Vec::new());

    while let Some((mut socket, event)) = reactor.next()? {
        match (socket.id() == client, event) {
            (true, Event::Ready) => {
                socket.write(b"hello ")?;
                socket.write(b"world")?;
                socket.end(); // Signal "done sending".
            }
            (false, Event::Data(bytes)) => request.extend_from_slice(bytes),
            (false, Event::End) => {
                writeln!(out, "[server2] Full request received: {:?}", text(&request))?;
                socket.write(format!("Processed: {}", text(&request).to_uppercase()).as_bytes())?;
                socket.end();
            }
            (true, Event::Data(bytes)) => response.extend_from_slice(bytes), // Still possible after end().
            (true, Event::End) => writeln!(out, "[client2] Response: {}", text(&response))?,
            (true, Event::Close(_)) => reactor.close_listener(listener.id)?,
            _ => {}
        }
    }
    Ok(())
}

/// A timer detects a silent peer; keep-alive detects a machine that is lost.
fn dead_connections(out: &mut impl Write, recorder: &Recorder) -> Done {
    writeln!(out, "\n=== Detecting Dead Connections ===\n")?;
    let mut reactor = recorder.reactor()?;
    let options = ListenOptions::default()
        .keep_alive(KeepAlive::after(Duration::from_secs(1)))
        .idle_timeout(Duration::from_secs(2));
    let listener = reactor.listen("127.0.0.1:0", options)?;
    let client = reactor.connect(listener.addr, ConnectOptions::default())?;

    while let Some((mut socket, event)) = reactor.next()? {
        match (socket.id() == client, event) {
            (true, Event::Ready) => {
                socket.write(b"ping\n")?;
                reactor.set_timer(Duration::from_millis(100));
            }
            (false, Event::Data(bytes)) => {
                writeln!(out, "[server3] Data: {}", text(bytes))?;
                socket.write(b"OK\n")?;
            }
            (true, Event::Data(bytes)) => writeln!(out, "[client3] Received: {}", text(bytes))?,
            (_, Event::Timer(_)) => writeln!(out, "[client3] Waiting for server timeout...")?,
            (false, Event::Timeout) => {
                writeln!(out, "[server3] Socket timed out (no data for 2s)")?;
                socket.write(b"Timeout: closing connection\n")?;
                socket.end();
            }
            (true, Event::End) => socket.end(),
            (false, Event::Close(_)) => writeln!(out, "[server3] Connection closed")?,
            (true, Event::Close(_)) => reactor.close_listener(listener.id)?,
            _ => {}
        }
    }
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn version(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 4 } else { 6 }
}

#[allow(dead_code, reason = "the command shares this file")]
fn main() -> Done {
    lesson(&mut io::stdout(), &Recorder::new(0))
}
