//! The proxy of the page of `Pipes`, with every default: `bulk-finale LISTEN BACKEND`.

use finale::{ConnectOptions, Event, ListenOptions, Pipes, Reactor};

fn main() -> Result<(), finale::Error> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [front, back] = words.as_slice() else {
        eprintln!("usage: bulk-finale LISTEN BACKEND");
        std::process::exit(2)
    };
    let mut reactor = Reactor::new()?;
    let listener = reactor.listen(front, ListenOptions::default())?;
    println!("listening on {}", listener.addr);
    let mut pipes = Pipes::new();
    while let Some((mut socket, event)) = reactor.next()? {
        if pipes.handle(&mut socket, &event) {
            continue;
        }
        if let Event::Connection = event {
            let client = socket.id();
            let backend = reactor.connect(back, ConnectOptions::default())?;
            pipes.join(&mut reactor.context(), client, backend)?;
        }
    }
    Ok(())
}
