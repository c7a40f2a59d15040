//! Server-sent events: clients that follow the changes.
//!
//! Invariant: a client gets every change once and in order, or an event that says that it has to
//! load everything again.

use finale::{SocketId, SocketMap, Stream as _};
use finale_http::{LAST_CHUNK, chunk};

use crate::Sock;
use crate::database::Following;
use crate::schema::Change;

/// Clients that follow at a time. Further ones get 503.
const CLIENTS: usize = 500;
/// A client that has not taken this many bytes is dropped. It connects again, and continues after
/// the last event that it has received.
const QUEUED: usize = 64 * 1024;
/// Ticks between two heartbeats, so that proxies don't take a quiet connection for a dead one.
const HEARTBEAT: u32 = 10;
/// Where more was missed than is remembered.
const RESET: &str = "event: reset\ndata: {}\n\n";
/// Clients come back a second after the end, spread by their own clocks.
const BYE: &str = "event: bye\nretry: 1000\ndata: {}\n\n";

#[derive(Debug)]
struct Client {
    /// The last change that was sent.
    last: i64,
    /// HTTP/1.0 has no chunks.
    is_chunked: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Events {
    clients: SocketMap<Client>,
    ticks: u32,
    /// Clients that did not take their events.
    pub(crate) dropped: u64,
}

impl Events {
    pub(crate) fn has_room(&self) -> bool {
        self.clients.len() < CLIENTS
    }

    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    /// A client whose head was sent.
    pub(crate) fn add(&mut self, socket: &mut Sock<'_>, following: Following, is_chunked: bool) {
        self.clients.insert(socket.id(), Client { last: following.last, is_chunked });
        // The first event gives the client a number to come back with.
        let hello = format!("id: {}\nevent: hello\ndata: {{}}\n\n", following.last);
        let text = match following.missed {
            Some(missed) => missed.iter().map(event).collect::<String>() + &hello,
            None => RESET.to_owned() + &hello,
        };
        self.send(socket, &text);
    }

    pub(crate) fn remove(&mut self, id: SocketId) -> bool {
        self.clients.remove(id).is_some()
    }

    /// Sends changes to all clients. Some may have got the first ones already.
    pub(crate) fn publish(&mut self, any: &mut Sock<'_>, changes: &[Change]) {
        let texts: Vec<(i64, String)> = changes.iter().map(|change| (change.number, event(change))).collect();
        let ids: Vec<SocketId> = self.clients.iter().map(|(id, _)| id).collect();
        for id in ids {
            let (Some(client), Some(mut socket)) = (self.clients.get_mut(id), any.get(id)) else { continue };
            let last = client.last;
            client.last = texts.last().map_or(last, |(number, _)| last.max(*number));
            let new = texts.iter().filter(|(number, _)| *number > last);
            let has_gap = new.clone().next().is_some_and(|(number, _)| *number != last + 1);
            let start = if has_gap { RESET } else { "" };
            let text = new.fold(start.to_owned(), |text, (_, event)| text + event);
            if !text.is_empty() {
                self.send(&mut socket, &text);
            }
        }
    }

    /// Once per tick: sends a heartbeat now and then.
    pub(crate) fn tick(&mut self, any: &mut Sock<'_>) {
        self.ticks += 1;
        if self.ticks.is_multiple_of(HEARTBEAT) {
            self.send_to_all(any, ":\n\n");
        }
    }

    /// The last event, and the end: the clients come back, to the process that serves then.
    pub(crate) fn end_all(&mut self, any: &mut Sock<'_>) {
        self.send_to_all(any, BYE);
        for (id, client) in std::mem::take(&mut self.clients).iter() {
            let Some(mut socket) = any.get(id) else { continue };
            if client.is_chunked {
                let _ = socket.write(LAST_CHUNK);
            }
            socket.end();
            socket.discard();
        }
    }

    fn send_to_all(&mut self, any: &mut Sock<'_>, text: &str) {
        let ids: Vec<SocketId> = self.clients.iter().map(|(id, _)| id).collect();
        for id in ids {
            if let Some(mut socket) = any.get(id) {
                self.send(&mut socket, text);
            }
        }
    }

    fn send(&mut self, socket: &mut Sock<'_>, text: &str) {
        let Some(client) = self.clients.get(socket.id()) else { return };
        let is_slow = socket.queued_bytes() + text.len() > QUEUED;
        let chunk = if client.is_chunked { chunk(text.as_bytes()) } else { text.as_bytes().to_vec() };
        if is_slow || socket.write(&chunk).is_err() {
            self.dropped += u64::from(is_slow);
            self.clients.remove(socket.id());
            socket.destroy();
        }
    }
}

fn event(change: &Change) -> String {
    let Change { number, kind, note } = change;
    format!("id: {number}\nevent: {kind}\ndata: {{\"note\":{note}}}\n\n")
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use finale::sim::Network;
    use finale::{Event, ListenOptions, Reactor};
    use finale_tls::Tls;

    use super::*;

    fn change(number: i64) -> Change {
        Change { number, kind: "changed".to_owned(), note: 1 }
    }

    /// Runs with one follower: each `Event::Timer` publishes these changes, until the follower is
    /// gone or there are no more. Returns what it has received if it reads, and the followers.
    fn follow(last: i64, changes: &[Vec<Change>], reads: bool) -> (String, Events) {
        let network = Network::new(1);
        let [here, there] = [1, 2].map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)));
        let mut reactor = Reactor::with_net(network.host(here));
        let listener = reactor.listen((here, 80), ListenOptions::default()).expect("a free port");
        let client = network.peer(there).connect(listener.addr).expect("begun");
        let (mut tls, mut events, mut changes) = (Tls::new(), Events::default(), changes.iter());
        let mut received = Vec::new();
        while let Some((mut socket, event)) = reactor.next().expect("it continues") {
            let mut translated = tls.handle(&mut socket, event);
            while let Some((mut socket, event)) = translated.next() {
                match event {
                    Event::Connection => {
                        let following = Following { missed: Some(Vec::new()), last };
                        events.add(&mut socket, following, false);
                        socket.socket().set_timer(Duration::from_millis(1));
                    }
                    Event::Timer(_) => {
                        let Some(changes) = changes.next() else {
                            return (String::from_utf8(received).expect("text"), events);
                        };
                        events.publish(&mut socket, changes);
                        socket.socket().set_timer(Duration::from_millis(1));
                    }
                    _ => {}
                }
            }
            if reads {
                received.extend(client.read());
            }
        }
        (String::from_utf8(received).expect("text"), events)
    }

    #[test]
    fn changes_that_a_follower_has_are_not_repeated_and_a_gap_is_reported() {
        let batches = [vec![change(6), change(7)], vec![change(7), change(8)], vec![change(10)], vec![], vec![]];
        let (text, events) = follow(6, &batches, true);
        let names: Vec<&str> = text.lines().filter(|line| line.starts_with("id") || *line == RESET_LINE).collect();
        assert_eq!(names, ["id: 6", "id: 7", "id: 8", RESET_LINE, "id: 10"]);
        assert_eq!((events.len(), events.dropped), (1, 0));
    }

    const RESET_LINE: &str = "event: reset";

    #[test]
    fn a_follower_that_does_not_read_is_dropped_at_a_bound() {
        let batches: Vec<Vec<Change>> = (1..100_000).map(|number| vec![change(number)]).collect();
        let (_, events) = follow(0, &batches, false);
        assert_eq!((events.len(), events.dropped), (0, 1));
        let (_, events) = follow(0, &batches[..20_000], true);
        assert_eq!((events.len(), events.dropped), (1, 0), "one that reads is not");
    }
}
