//! An idle stream holds no buffers, whatever it has carried.

use std::fs;
use std::time::Duration;

use finale::{ConnectOptions, Event, ListenOptions, Reactor, SocketId, SocketMap, Stream, Streams};
use finale_tls::Tls;

/// Pairs of streams: client and server are in this process.
const PAIRS: usize = 110;

/// What each pair carries in each direction: large writes, and small ones.
const LARGE: usize = 100_000;
const SMALL: usize = 1000;

/// The memory of this process, in bytes.
fn resident() -> usize {
    let text = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the memory");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

/// All pairs, in one reactor.
struct Pairs {
    reactor: Reactor,
    tls: Tls,
    clients: Vec<SocketId>,
    received: SocketMap<usize>,
    ready: usize,
}

impl Pairs {
    fn open() -> Self {
        let folder = std::env::temp_dir().join(format!("finale-memory-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        fs::write(&certificate, made.cert.pem()).expect("written");
        fs::write(&key, made.signing_key.serialize_pem()).expect("written");
        let (server, client) = (finale_tls::server_config(&certificate, &key), finale_tls::client_config(&certificate));
        let _ = fs::remove_dir_all(&folder);
        let (server, client) = (server.expect("good files"), client.expect("a good file"));

        let (mut reactor, mut tls) = (Reactor::new().expect("a reactor"), Tls::new());
        let listener = reactor.listen("127.0.0.1:0", ListenOptions::default()).expect("a free port");
        tls.accept_on(listener.id, &server).expect("a good configuration");
        let addr = listener.addr.ip().expect("TCP");
        let mut pairs = Self { reactor, tls, clients: Vec::new(), received: SocketMap::new(), ready: 0 };
        for _ in 0..PAIRS {
            let (name, options) = ("localhost".try_into().expect("a name"), ConnectOptions::default());
            let mut context = pairs.reactor.context();
            pairs.clients.push(pairs.tls.connect(&mut context, addr, options, &client, name).expect("begun"));
            // One after the other, so that the backlog has room.
            let ready = pairs.ready;
            pairs.until(|pairs| pairs.ready == ready + 2);
        }
        pairs
    }

    /// Runs until `done`: servers echo, clients count.
    fn until(&mut self, done: impl Fn(&Self) -> bool) {
        let limit = self.reactor.context().now() + Duration::from_secs(60);
        while !done(self) {
            let (mut socket, event) =
                self.reactor.next_before(limit).expect("it continues").expect("it takes too long");
            let mut events = self.tls.handle(&mut socket, event);
            while let Some((mut socket, event)) = events.next() {
                match event {
                    Event::Ready => self.ready += 1,
                    Event::Data(bytes) if socket.socket().listener().is_some() => {
                        socket.write(bytes).expect("room");
                    }
                    Event::Data(bytes) => *self.received.or_default(socket.id()) += bytes.len(),
                    _ => {}
                }
            }
        }
    }

    /// One pair carries much.
    fn exchange(&mut self, client: SocketId) {
        let mut context = self.tls.context(self.reactor.context());
        let mut socket = context.stream(client).expect("it is open");
        socket.write(&vec![1; LARGE]).expect("room");
        for _ in 0..SMALL {
            socket.write(b"x").expect("room");
        }
        self.until(|pairs| pairs.received.get(client).is_some_and(|count| *count == LARGE + SMALL));
        self.received.remove(client);
    }
}

#[test]
fn an_idle_stream_holds_no_buffers() {
    let mut pairs = Pairs::open();
    // What all streams share grows in the first exchanges.
    let clients = pairs.clients.clone();
    let (first, others) = clients.split_at(10);
    first.iter().for_each(|client| pairs.exchange(*client));
    let before = resident();
    others.iter().for_each(|client| pairs.exchange(*client));
    let grown = resident().saturating_sub(before) / others.len();
    println!("{grown} bytes per pair of streams");
    assert!(grown < 2 * 1024, "{grown} bytes per pair of streams");
}
