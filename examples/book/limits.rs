//! Clients that never end, and the limit that ends each.

use std::time::Duration;

use finale::sim::{Network, Script};
use finale::{Event, ListenOptions, Reactor};

const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn main() -> Result<(), finale::Error> {
    let (usual, silent) = (ListenOptions::default, Script::new);
    let strict = || usual().idle_timeout(30 * SECOND);
    serve("it sends nothing, and we destroy it at `timeout`", strict(), silent())?;
    serve("it sends a byte per second: never idle", strict().deadline(60 * SECOND), silent().drip(&[0; 9000], SECOND))?;
    serve("it reads nothing of our answer", usual().write_timeout(20 * SECOND), silent().send(b"?").stop_reading())?;
    serve("it reads nothing, and we called end", usual(), silent().send(b"!").stop_reading())?;
    serve("it has the answer and our FIN, and never finishes", usual(), silent().send(b"."))?;
    serve("the same, with a byte per minute", usual(), silent().send(b".").wait(SECOND).drip(&[0; 900], 60 * SECOND))
}

fn serve(client: &str, options: ListenOptions, script: Script) -> Result<(), finale::Error> {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let listener = reactor.listen("10.0.0.1:80", options)?;
    let _play = network.peer([10, 0, 0, 2].into()).play(listener.addr, script).expect("a route");

    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Data(b"?") => drop(socket.write(&[b'x'; 9_000_000])?),
            Event::Data(b"!") => {
                socket.write(&[b'x'; 9_000_000])?;
                socket.end();
            }
            Event::Data(b".") => {
                socket.write(b"answer")?;
                socket.end();
            }
            Event::Timeout => socket.destroy(),
            Event::Close(ending) => {
                println!("{client}:\n    after {} s: {ending}", network.elapsed().as_secs());
                reactor.close_listener(listener.id)?;
            }
            _ => {}
        }
    }
    Ok(())
}
