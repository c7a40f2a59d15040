//! A client and a server in one loop. The client finishes sending, and then gets its answer.

use finale::{ConnectOptions, Event, ListenOptions, Reactor};

pub(crate) fn main() -> Result<(), finale::Error> {
    let mut reactor = Reactor::new()?;
    let listener = reactor.listen("127.0.0.1:0", ListenOptions::default())?;
    let client = reactor.connect(listener.addr, ConnectOptions::default())?;
    let (mut of_client, mut of_server) = (vec![], vec![]);

    while let Some((mut socket, event)) = reactor.next()? {
        let is_client = socket.id() == client;
        let events = if is_client { &mut of_client } else { &mut of_server };
        events.push(event.to_string());
        match event {
            Event::Ready => {
                socket.write(b"hello")?;
                socket.end(); // The client has finished sending.
            }
            Event::End if !is_client => {
                socket.write(b"HELLO, CLIENT")?; // The server has not.
                socket.end();
            }
            Event::Close(_) if is_client => reactor.close_listener(listener.id)?,
            _ => {}
        }
    }
    println!("client:\n    {}", of_client.join("\n    "));
    println!("server:\n    {}", of_server.join("\n    "));
    Ok(())
}
