//! finale-tls as its page shows it: one loop, and the events of the streams.
//!
//! Fair, because everything has its default: the limit on the time of a handshake, and the bounds of
//! the queues. With `confirmed`, the default of finale, a connection is closed when the client has
//! acknowledged all; the other servers do not wait for that.

use std::io;
use std::sync::Arc;

use ::finale::{Backpressure, CloseMode, Event, ListenOptions, Reactor, SocketMap, Stream as _};
use finale_tls::{Tls, TlsSocket};
use rustls::ServerConfig;

use crate::config::other;
use crate::service::Service;

pub(super) fn run(listener: std::net::TcpListener, config: &Arc<ServerConfig>, mode: CloseMode) -> io::Result<()> {
    let mut reactor = Reactor::new().map_err(other)?;
    let listener = reactor.adopt(listener, ListenOptions::default().close_mode(mode)).map_err(other)?;
    let mut tls = Tls::new();
    tls.accept_on(listener.id, config).map_err(other)?;
    let mut services = SocketMap::new();
    while let Some((mut socket, event)) = reactor.next().map_err(other)? {
        let mut events = tls.handle(&mut socket, event);
        while let Some((mut socket, event)) = events.next() {
            match event {
                Event::Data(bytes) => {
                    let service: &mut Service = services.or_default(socket.id());
                    service.receive(bytes);
                    send(&mut socket, service);
                }
                Event::Drain => {
                    let service = services.or_default(socket.id());
                    send(&mut socket, service);
                }
                Event::End => socket.end(),
                Event::Close(_) => drop(services.remove(socket.id())),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Sends until the queue is full.
fn send(socket: &mut TlsSocket<'_>, service: &mut Service) {
    while !service.piece().is_empty() {
        let piece = service.piece();
        let Ok(room) = socket.write(piece) else { return };
        service.sent(piece.len());
        if room == Backpressure::Full {
            return;
        }
    }
}
