//! Calls that are mistakes. Each is refused with a value, and the connection continues.

use finale::sim::{Network, Script};
use finale::{ConnectOptions, Event, ListenOptions, Reactor, SocketId};

pub(crate) fn main() -> Result<(), finale::Error> {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let options = ListenOptions::default().high_water_mark(1000).write_limit(1000);
    let listener = reactor.listen("10.0.0.1:80", options)?;
    let script = Script::new().send(b"request").receive(1000).finish().receive_end();
    let client = network.peer([10, 0, 0, 2].into()).play(listener.addr, script).expect("a route");

    let mut closed: Option<SocketId> = None;
    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Data(_) => {
                println!("an answer:      {:?}", socket.write(&[b'a'; 1000]));
                println!("more:           {:?}", socket.write(b"more"));
                socket.end();
                println!("after end:      {:?}", socket.write(b"more"));
            }
            Event::Close(ending) => {
                println!("close:          {ending}");
                println!("in close:       {:?}", socket.write(b"more"));
                closed = Some(socket.id());
                socket.set_timer(std::time::Duration::from_secs(1));
            }
            Event::Timer(_) => {
                let found = closed.and_then(|id| reactor.socket(id)).is_some();
                println!("an old id:      finds {}", if found { "a socket" } else { "nothing" });
                reactor.close_listener(listener.id)?;
            }
            _ => {}
        }
    }
    println!("a bad address:  {}", reactor.connect("10.0.0.2", ConnectOptions::default()).expect_err("no port"));
    println!("the client has: {} bytes", client.received().len());
    Ok(())
}
