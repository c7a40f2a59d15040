//! A TCP proxy that changes nothing: half-closes, resets and back-pressure pass through in both directions.
//! Run it: `cargo run --release --example proxy -- 127.0.0.1:7001 127.0.0.1:7000`.

use finale::{Connect, Event, Listen, Queue, Reactor, Socket, SocketId, SocketMap, Target};

fn main() -> Result<(), finale::Error> {
    let mut args = std::env::args().skip(1);
    let (Some(front), Some(back)) = (args.next(), args.next()) else {
        eprintln!("usage: proxy LISTEN BACKEND, for example 127.0.0.1:7001 127.0.0.1:7000");
        std::process::exit(2);
    };
    let back: Target = back.as_str().try_into()?;
    let mut reactor = Reactor::new()?;
    let listener = reactor.listen(&front, Listen::default())?;
    println!("listening on {}", listener.addr);
    let mut partners: SocketMap<SocketId> = SocketMap::new();

    while let Some((mut socket, event)) = reactor.next()? {
        let id = socket.id();
        match event {
            Event::Connection => {
                let partner = reactor.connect(back.clone(), Connect::default())?;
                partners.insert(id, partner);
                partners.insert(partner, id);
            }
            Event::Data(bytes) => {
                // A partner that is gone already takes this socket with it, see Close.
                let Some(mut partner) = partner(&partners, &mut socket) else { continue };
                if partner.write(bytes) == Ok(Queue::Full) {
                    socket.pause(); // Back-pressure: read no faster than the partner takes it.
                }
            }
            Event::Drain => {
                if let Some(mut partner) = partner(&partners, &mut socket) {
                    partner.resume();
                }
            }
            Event::End => {
                if let Some(mut partner) = partner(&partners, &mut socket) {
                    partner.end(); // Half-close: the other direction goes on.
                }
            }
            Event::Close(ending) => {
                if !ending.is_clean()
                    && let Some(mut partner) = partner(&partners, &mut socket)
                {
                    partner.destroy(); // A reset stays a reset: a cut stream must not look whole.
                }
                partners.remove(id);
                println!("{id}: {ending}");
            }
            _ => {}
        }
    }
    Ok(())
}

/// The other side of a connection through the proxy.
fn partner<'a>(partners: &SocketMap<SocketId>, socket: &'a mut Socket<'_>) -> Option<Socket<'a>> {
    socket.get(*partners.get(socket.id())?)
}
