//! Four ways to end a connection after an answer, and what the client gets.

use finale::sim::{Network, Script};
use finale::{CloseMode, Event, ListenOptions, Reactor, Socket};

pub(crate) fn main() -> Result<(), finale::Error> {
    let confirmed = ListenOptions::default();
    let hand_off = ListenOptions::default().close_mode(CloseMode::HandOff);
    answer("end", confirmed.clone(), |socket| socket.end())?;
    answer("end, with CloseMode::HandOff", hand_off, |socket| socket.end())?;
    answer("end and discard", confirmed.clone(), |socket| {
        socket.end();
        socket.discard();
    })?;
    answer("destroy", confirmed, |socket| socket.destroy())
}

fn answer(way: &str, options: ListenOptions, leave: fn(&mut Socket<'_>)) -> Result<(), finale::Error> {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let listener = reactor.listen("10.0.0.1:80", options)?;
    // The client still sends while the answer comes.
    let script = Script::new().send(&[b'x'; 1000]).receive(6).send(&[b'x'; 1000]).receive_end().finish();
    let client = network.peer([10, 0, 0, 2].into()).play(listener.addr, script).expect("a route");

    let mut has_answered = false;
    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Data(_) if !has_answered => {
                has_answered = true;
                socket.write(b"answer")?;
                leave(&mut socket);
            }
            Event::Close(ending) => {
                println!("{way}\n    server: {ending}");
                reactor.close_listener(listener.id)?;
            }
            _ => {}
        }
    }
    network.advance(std::time::Duration::from_secs(1)); // Until the last packet has arrived.
    let end = if client.is_reset() { "a reset" } else { "the server's FIN" };
    println!("    client: {} bytes, and then {end}", client.received().len());
    Ok(())
}
