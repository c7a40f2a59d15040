//! An answer that takes a second, to a client that has finished sending.

use std::time::Duration;

use finale::sim::{Network, Script};
use finale::{Event, ListenOptions, Reactor};

pub(crate) fn main() -> Result<(), finale::Error> {
    serve("allow_half_open(true), the default", true)?;
    serve("allow_half_open(false), as in Node", false)
}

fn serve(title: &str, allow: bool) -> Result<(), finale::Error> {
    println!("{title}");
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let listener = reactor.listen("10.0.0.1:80", ListenOptions::default().allow_half_open(allow))?;
    let script = Script::new().send(b"request").finish().receive_end();
    let client = network.peer([10, 0, 0, 2].into()).play(listener.addr, script).expect("a route");

    let mut asked = None;
    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Data(_) => {
                asked = Some(socket.id());
                socket.set_timer(Duration::from_secs(1)); // The work that the answer needs.
            }
            Event::Timer(_) => match asked.and_then(|id| reactor.socket(id)) {
                Some(mut socket) => {
                    socket.write(b"answer")?;
                    socket.end();
                }
                None => println!("    the answer is ready, and its connection is over"),
            },
            Event::Close(ending) => {
                println!("    {ending}");
                reactor.close_listener(listener.id)?;
            }
            _ => {}
        }
    }
    println!("    the client has received {:?}", String::from_utf8_lossy(&client.received()));
    Ok(())
}
