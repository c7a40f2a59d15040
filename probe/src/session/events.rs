//! What the events of the reactor change in what is known of a client, with TLS or without.

use std::time::Instant;

use finale::{Event, Stream as _};
use finale_tls::TlsSocket;

use super::{Broken, Entry, Session};
use crate::client::{Stage, is_own};
use crate::options::Options;

impl Session {
    /// Handles the events until `until`; at least those that are due.
    pub(super) fn pump(&mut self, until: Instant) -> Result<(), Broken> {
        let own = |error: finale::Error| Broken::Own(error.to_string());
        let now = self.engine.now();
        let Some((mut socket, event)) = self.engine.next_before(until).map_err(own)? else {
            if self.engine.now() < until {
                // Nothing is open that could happen.
                self.engine.wake_at(until);
            }
            return Ok(());
        };
        let find = |id| self.by_socket.get(id).copied();
        let more = matches!(event, Event::Data(_)) && socket.has_unread();
        let (id, mut had_fin) = (socket.id(), false);
        let entry = find(id).and_then(|client| self.clients.get_mut(&client));
        if let Some(entry) = entry {
            had_fin = entry.seen.fin.is_some();
            if matches!(event, Event::Ready) {
                let took = now.saturating_duration_since(entry.seen.opened);
                self.round_trip = Some(self.round_trip.map_or(took, |shortest| shortest.min(took)));
            }
            if entry.seen.tls.is_some() {
                entry.seen.note_tcp(socket.now(), &event);
            }
        }
        let mut lacks = None;
        let mut events = self.tls.handle(&mut socket, event);
        while let Some((mut socket, event)) = events.next() {
            let entry = find(socket.id()).and_then(|client| self.clients.get_mut(&client));
            if let Some(entry) = entry {
                // One that has ended itself needs no connection any more.
                lacks = lacks.or_else(|| entry.seen.ended.is_none().then(|| lack(&event)).flatten());
                entry.on_event(&mut socket, event, more, &self.options);
            }
        }
        drop(events);
        if let Some(entry) = find(id).and_then(|client| self.clients.get_mut(&client))
            && entry.seen.fin.is_some()
            && !had_fin
        {
            // Its FIN says what of ours had arrived before it left.
            entry.seen.unacked_at_fin = self.engine.kernel_view(id).map(|view| view.unacked);
        }
        lacks.map_or(Ok(()), |what| Err(Broken::Own(format!("this machine can open no further connection: {what}"))))
    }
}

impl Entry {
    /// An event of its stream.
    fn on_event(&mut self, socket: &mut TlsSocket<'_>, event: Event<'_>, more: bool, options: &Options) {
        if matches!(event, Event::Data(_)) && self.is_sipping {
            self.is_sipping = false;
            socket.pause();
        }
        if matches!(event, Event::Ready) {
            self.seen.stage = match (self.open.bare, options.server_first, options.preface.is_empty()) {
                (false, true, _) => Stage::Greeting,
                (false, false, false) => Stage::Preface,
                _ => Stage::Ready,
            };
            if self.seen.stage == Stage::Preface {
                let _ = socket.write(&options.preface);
            }
        }
        let now = socket.socket().now();
        let Some(tls) = &mut self.seen.tls else { return self.seen.note(now, event, more) };
        if let (Event::Ready, Some(handshake)) = (&event, socket.handshake()) {
            tls.negotiated(handshake);
        }
        self.seen.note_tls(now, event, more);
    }
}

/// What this machine lacks for a connection.
fn lack(event: &Event<'_>) -> Option<String> {
    match event {
        Event::Error(error) if is_own(error.kind) => Some(error.to_string()),
        _ => None,
    }
}
