//! The server of the README: it answers a whole request in upper case. Run it: `cargo run --example
//! upper -- 127.0.0.1:7000`, and then `echo hello | nc -N 127.0.0.1 7000`.

use std::time::Duration;

use finale::{Event, ListenOptions, Reactor, SocketMap};

fn main() {
    if let Err(error) = run() {
        eprintln!("upper: {error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), finale::Error> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".into());
    let options = ListenOptions::default()
        .max_connections(10_000) // Further clients wait in the backlog.
        .idle_timeout(Duration::from_secs(30))
        .deadline(Duration::from_secs(300)); // A client that sends a byte now and then is never idle.
    let mut reactor = Reactor::new()?;
    println!("listening on {}", reactor.listen(addr.as_str(), options)?.addr);
    let mut requests: SocketMap<Vec<u8>> = SocketMap::new();

    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Data(bytes) => {
                let request = requests.or_default(socket.id());
                request.extend_from_slice(bytes);
                if request.len() > 64 * 1024 {
                    socket.destroy(); // Too long. The peer gets a reset.
                }
            }
            Event::End => {
                // The peer has finished sending, and can still read. This is half-close.
                let request = requests.remove(socket.id()).unwrap_or_default();
                match socket.write(&request.to_ascii_uppercase()) {
                    Ok(_) => socket.end(), // The answer and our FIN leave in one segment.
                    Err(_) => socket.destroy(),
                }
            }
            Event::Timeout => socket.destroy(),
            Event::Close(ending) => {
                requests.remove(socket.id());
                println!("{}: {ending}", socket.id());
            }
            _ => {}
        }
    }
    Ok(())
}
