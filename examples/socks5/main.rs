//! A SOCKS5 proxy (RFC 1928): the command CONNECT, without authentication. Run it: `cargo run
//! --example socks5 -- 127.0.0.1:1080`, and then `curl --socks5-hostname 127.0.0.1:1080 ...`.
//!
//! The whole program is one handler: it connects, reads the local address and joins the two sockets
//! in the event of either. Half-closes, resets and back-pressure pass through the tunnel.

mod proxy;

use std::time::Duration;

use finale::{KeepAlive, ListenOptions, Reactor};

fn main() {
    if let Err(error) = run() {
        eprintln!("socks5: {error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), finale::Error> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1080".into());
    let options = ListenOptions::default()
        .max_connections(1_000)
        .deadline(proxy::PATIENCE) // Until the tunnel exists.
        .keep_alive(KeepAlive::after(Duration::from_secs(60)));
    let mut reactor = Reactor::new()?;
    println!("listening on {}", reactor.listen(addr.as_str(), options)?.addr);
    let mut proxy = proxy::Proxy::default();
    while let Some((mut socket, event)) = reactor.next()? {
        if let Some(line) = proxy.handle(&mut socket, event) {
            println!("{line}");
        }
    }
    Ok(())
}
