//! What a pool does with an event.

use super::member::{Age, Member, leave};
use super::{Pool, PoolEvent};
use crate::error::ConnectionError;
use crate::event::{Ending, EndingKind, Event};
use crate::id::SocketId;
use crate::stream::Stream;

impl Pool {
    pub(super) fn sees(&mut self, socket: &mut impl Stream, event: &Event<'_>) -> PoolEvent {
        if let Event::Timer(id) = event {
            let ours = self.timer.is_some_and(|(own, _)| own == *id);
            if ours {
                (self.timer, self.looks_again, self.is_changed) = (None, false, true);
            }
            return if ours { PoolEvent::Internal } else { PoolEvent::Foreign };
        }
        let id = socket.id();
        let Some(member) = self.members.get_mut(id) else { return PoolEvent::Foreign };
        if let Event::Close(ending) = event {
            return self.closed(id, ending);
        }
        match member {
            Member::Leased(lease) => {
                if matches!(event, Event::Data(_) | Event::Filled | Event::Spliced(_)) {
                    lease.has_read(socket);
                }
                return PoolEvent::Leased(lease.ticket);
            }
            Member::Opening if *event == Event::Ready => {
                self.back_off.has_connected();
                self.last_error = None;
                // Deadlines are for requests, and this one may stay unused for long.
                socket.socket().set_deadline(None);
                self.put(id, Some(Member::Ready(Age::default())));
            }
            // The handshake of a layer has failed, and its socket may need some time to close.
            Member::Opening if !socket.state().is_final() => {
                if let Event::Error(error) = event {
                    self.opening_failed(Some(error));
                    self.put(id, Some(Member::Spent));
                }
            }
            Member::Ready(_) => self.unused(socket, event),
            Member::Opening | Member::Leaving | Member::Spent => {}
        }
        PoolEvent::Internal
    }

    /// An event of a ready socket.
    fn unused(&mut self, socket: &mut impl Stream, event: &Event<'_>) {
        match event {
            Event::End | Event::PeerEnded(_) => {
                self.ready_was_lost(socket.id());
                leave(socket);
            }
            // Bytes without a request: the next request would take them for its answer.
            Event::Data(_) | Event::Filled | Event::Spliced(_) => {
                self.ready_was_lost(socket.id());
                socket.destroy();
            }
            Event::Error(_) => self.ready_was_lost(socket.id()),
            Event::Lookup(_)
            | Event::Connect
            | Event::Ready
            | Event::Connection
            | Event::Drain
            | Event::Timeout
            | Event::Close(_)
            | Event::Timer(_)
            | Event::Woken
            | Event::AcceptFailed(..)
            | Event::Overflow(..)
            | Event::ListenerClosed(_) => {}
        }
    }

    fn closed(&mut self, id: SocketId, ending: &Ending) -> PoolEvent {
        let member = self.members.get(id).copied();
        if let Some(Member::Ready(_)) = member {
            self.ready_was_lost(id); // The program has destroyed it.
        }
        self.put(id, None);
        match member {
            Some(Member::Opening) => {
                let error = if let EndingKind::Failed(error) = &ending.kind { Some(error) } else { None };
                self.opening_failed(error);
            }
            Some(Member::Leased(lease)) => {
                self.stats.lost_leased += 1;
                self.back_off.was_lost();
                self.lease_is_over(&lease, ending.bytes_read, false);
                return PoolEvent::Lost(lease.ticket, lease.retry_safety(ending.bytes_read, ending.bytes_written));
            }
            Some(Member::Ready(_) | Member::Leaving | Member::Spent) | None => {}
        }
        PoolEvent::Internal
    }

    fn opening_failed(&mut self, error: Option<&ConnectionError>) {
        self.stats.failed += 1;
        self.back_off.has_failed();
        if let Some(error) = error {
            self.last_error = Some(error.clone());
        }
    }

    /// A ready socket can't be leased any more.
    pub(super) fn ready_was_lost(&mut self, id: SocketId) {
        self.stats.lost_unused += 1;
        self.back_off.was_lost();
        if let Some(Member::Ready(age)) = self.members.get(id)
            && !age.has_served
        {
            self.back_off.was_lost_unserved(age.established.since);
        }
        self.put(id, Some(Member::Spent));
    }
}
