//! Shards on real sockets, each with its own sessions.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use finale::{BoundAddr, Error, Event, ListenOptions, Shard, Shards, StopOptions, Stream};
use finale_tls::Tls;
use finale_tls::rustls::{ClientConnection, ServerConfig, StreamOwned};

use crate::ends::Configs;

fn echo(mut shard: Shard, config: &Arc<ServerConfig>) -> Result<(), Error> {
    let mut tls = Tls::new();
    for listener in shard.reactor().listener_ids() {
        tls.accept_on(listener, config).expect("a good configuration");
    }
    while let Some((mut socket, event)) = shard.next()? {
        let mut events = tls.handle(&mut socket, event);
        while let Some((mut socket, event)) = events.next() {
            match event {
                Event::Data(bytes) => drop(socket.write(bytes)?),
                Event::End => socket.end(),
                _ => {}
            }
        }
    }
    assert!(tls.is_empty());
    Ok(())
}

fn connect(addr: SocketAddr, configs: &Configs) -> StreamOwned<ClientConnection, TcpStream> {
    let name = "localhost".try_into().expect("a name");
    let tls = ClientConnection::new(Arc::clone(&configs.client), name).expect("a good configuration");
    StreamOwned::new(tls, TcpStream::connect(addr).expect("it listens"))
}

#[test]
fn shards_serve_tls_and_a_stop_ends_their_streams_with_close_notify() {
    let configs = Configs::new(2);
    let config = Arc::clone(&configs.server);
    let program = move |shard| echo(shard, &config);
    let (shards, addr) = Shards::start(2, "127.0.0.1:0", ListenOptions::default(), program).expect("a free port");
    let BoundAddr::Ip(addr) = addr else { panic!("{addr}") };
    let mut clients: Vec<_> = (0..20).map(|_| connect(addr, &configs)).collect();
    for client in &mut clients {
        client.write_all(b"hello").expect("it is connected");
        let mut answer = [0; 5];
        client.read_exact(&mut answer).expect("it is answered");
        assert_eq!(&answer, b"hello");
    }
    shards.stopper().stop(StopOptions::default());
    for client in &mut clients {
        // rustls returns 0 after close_notify, and an error after a FIN without it.
        assert_eq!(client.read(&mut [0]).expect("close_notify"), 0);
        client.conn.send_close_notify();
        client.flush().expect("it is connected");
    }
    drop(clients);
    shards.join().expect("no shard has failed");
}
