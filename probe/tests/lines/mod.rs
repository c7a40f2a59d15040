//! A server of lines that answers each with `hello`, for ever.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use finale_probe::{Framing, Options};

pub(crate) fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    thread::spawn(move || listener.incoming().flatten().for_each(|client| drop(thread::spawn(|| answer(client)))));
    addr
}

/// For a probe of it.
pub(crate) fn options() -> Options {
    let mut options = Options::new("hello\n");
    options.framing = Framing::Until(b"\n".to_vec());
    options
}

fn answer(mut client: TcpStream) {
    let lines = BufReader::new(client.try_clone().expect("there is a descriptor")).lines();
    for _ in lines.map_while(Result::ok) {
        let _ = client.write_all(b"hello\n");
    }
}
