//! An early answer to a large upload: by a server that closes over unread bytes, and by finale.

use std::time::Duration;

use finale::sim::{Network, Script};
use finale::{ConnectOptions, Event, ListenOptions, Reactor};

const HEADER: &[u8] = &[b'h'; 100];
const BODY: &[u8] = &[b'b'; 50_000];
const ANSWER: &[u8] = &[b'a'; 1_000_000];
const MOMENT: Duration = Duration::from_millis(100);

pub(crate) fn main() -> Result<(), finale::Error> {
    usual_close()?;
    end_and_discard()
}

/// The server is a script that reads the header, answers, and calls close(2). The client is finale.
fn usual_close() -> Result<(), finale::Error> {
    let network = Network::new(1);
    let server = network.peer([10, 0, 0, 1].into()).listen(([10, 0, 0, 1], 80).into()).expect("a free port");
    let script = Script::new().receive(100).stop_reading().wait(2 * MOMENT).send(ANSWER).close();
    let _play = server.play(script);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 2].into()));
    let client = reactor.connect("10.0.0.1:80", ConnectOptions::default())?;
    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Ready => {
                socket.write(HEADER)?;
                reactor.set_timer(MOMENT);
            }
            Event::Timer(_) => {
                if let Some(mut socket) = reactor.socket(client) {
                    socket.write(BODY)?;
                }
            }
            Event::Close(ending) => println!("close(2): the client gets\n    {ending}"),
            _ => {}
        }
    }
    Ok(())
}

/// The client is a script, and the server is finale: it answers, ends, and drops what still arrives.
fn end_and_discard() -> Result<(), finale::Error> {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let listener = reactor.listen("10.0.0.1:80", ListenOptions::default())?;
    let script = Script::new().send(HEADER).wait(MOMENT).send(BODY).receive_end().finish();
    let client = network.peer([10, 0, 0, 2].into()).play(listener.addr, script).expect("a route");
    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Data(_) => {
                socket.write(ANSWER)?;
                socket.end();
                socket.discard();
            }
            Event::Close(ending) => {
                println!(
                    "end and discard: the client gets {} bytes, and the server\n    {ending}",
                    client.received().len()
                );
                reactor.close_listener(listener.id)?;
            }
            _ => {}
        }
    }
    Ok(())
}
