//! A TCP proxy that changes nothing: half-closes, resets and back-pressure pass through in both directions.
//! Run it: `cargo run --release --example proxy -- 127.0.0.1:7001 127.0.0.1:7000`.

use finale::{Connect, Event, Listen, Pipes, Reactor, Target};

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
    let mut pipes = Pipes::new();

    while let Some((mut socket, event)) = reactor.next()? {
        if pipes.handle(&mut socket, &event) {
            continue;
        }
        match event {
            Event::Connection => {
                let client = socket.id();
                let backend = reactor.connect(back.clone(), Connect::default())?;
                pipes.join(client, backend);
            }
            Event::Close(ending) => println!("{}: {ending}", socket.id()),
            _ => {}
        }
    }
    Ok(())
}
