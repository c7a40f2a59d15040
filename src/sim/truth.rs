//! What really happened to a socket of a host: the network knows it and no program could. It is for
//! a judge.
//!
//! Invariant: only the network writes it, from what it did and not from what was requested.

use std::net::SocketAddr;

use rustix::io::Errno;

use super::Network;
use super::arena::Id;
use super::end::{FinOrder, Phase, TAKEN};
use super::world::{Source, World};
use crate::lifecycle::State;
use crate::net::{LookupAnswer, Token};
use crate::options::IdleDirection;
use crate::table::Waits;
use crate::target::Target;

/// One socket's truth, from its first call to the next socket in its slot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    /// The socket's token, as far as it was ever named: several attempts of one socket share it.
    token: Option<Token>,
    /// The errors of calls on it, except `WouldBlock`.
    pub(crate) errors: Vec<Errno>,
    /// When the last of them was returned, in nanoseconds.
    pub(crate) failed_at: u64,
    /// Bytes that the kernel has taken from the program, and given to it.
    pub(crate) sent: u64,
    pub(crate) given: u64,
    /// When the last of them moved, in nanoseconds.
    pub(crate) moved_at: u64,
    /// The last of them were the peer's.
    pub(crate) heard_last: bool,
    /// When the last of the first kind moved, and of the second.
    pub(crate) sent_at: u64,
    pub(crate) given_at: u64,
    /// What its kernel knew when the program closed it, or knows now.
    pub(crate) kernel: Kernel,
    /// How the program has closed it, and when.
    pub(crate) closed: Option<Closed>,
    pub(crate) closed_at: u64,
}

/// What a connection's own kernel knows of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// Bytes of ours that the other kernel has.
    pub(crate) acked: u64,
    /// It has our FIN too.
    pub(crate) fin_acked: bool,
    /// Our program has finished, and when.
    pub(crate) finished: bool,
    pub(crate) finished_at: u64,
    /// The peer's FIN has arrived, and since when.
    pub(crate) peer_finished: bool,
    pub(crate) fin_at: u64,
    /// Bytes of the peer that the program has not read, and since when the first of them can be.
    pub(crate) unread: usize,
    pub(crate) unread_since: Option<u64>,
    /// When the other kernel last took bytes of ours. After the connection is dead no program can
    /// query that, but it may have done so before.
    pub(crate) taken_at: u64,
    /// Its program can query that time, and its last query has not lacked memory.
    pub(crate) can_ask: bool,
    /// Whose FIN was first; and when the peer's came, or what killed the connection, in
    /// nanoseconds.
    pub(crate) fin_order: FinOrder,
    pub(crate) gone_at: u64,
    /// The program can't know whether the peer's FIN came before its own.
    pub(crate) order_hidden: bool,
    /// The other end's address.
    pub(crate) remote: Option<SocketAddr>,
    /// Reset, refused or timed out.
    pub(crate) died: bool,
}

/// How a program closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// close(2), and no RST was sent.
    Quietly,
    /// An RST was sent, or would have been if there had been a peer.
    WithReset,
}

impl Truth {
    /// Whether it is the truth of an outgoing connection of this generation: before its first call
    /// it is that of the socket that had its slot.
    pub(crate) fn is_of(&self, generation: u32) -> bool {
        self.token.is_some_and(|token| token.generation == generation)
    }

    /// When the last bytes moved that restart the idle time of this kind.
    pub(crate) fn broke_silence_at(&self, of: IdleDirection) -> u64 {
        match of {
            IdleDirection::Both => self.moved_at,
            IdleDirection::Read => self.given_at,
            IdleDirection::Write => self.sent_at,
        }
    }

    /// How many bytes have moved that restart the idle time of this kind.
    pub(crate) fn moved(&self, of: IdleDirection) -> u64 {
        match of {
            IdleDirection::Both => self.given + self.sent,
            IdleDirection::Read => self.given,
            IdleDirection::Write => self.sent,
        }
    }

    /// When the other kernel last took bytes, if that restarts the idle time of this kind.
    pub(crate) fn took_in_silence_at(&self, of: IdleDirection) -> u64 {
        if of == IdleDirection::Read { 0 } else { self.kernel.taken_at }
    }
}

impl Network {
    /// What really happened to the socket in this slot of a host, the last one if it is empty.
    pub(crate) fn truth(&self, host: u32, slot: u32) -> Truth {
        let mut world = self.world.borrow_mut();
        let kernel = world.held(host, slot).map(|id| world.kernel(id));
        let mut truth = world.truth(host, slot).clone();
        truth.kernel = kernel.unwrap_or(truth.kernel);
        truth
    }

    /// The addresses that this target has, or why its name has none. `None` for a Unix domain socket,
    /// and for a lookup that never ends.
    pub(crate) fn addresses(&self, target: &Target) -> Option<LookupAnswer> {
        match target {
            Target::Addr(addr) => Some(Ok(vec![*addr])),
            Target::Addrs(addrs) => Some(Ok(addrs.to_vec())),
            Target::Name { host, port } => self.world.borrow().known(host, *port),
            Target::Unix(_) => None,
        }
    }

    /// How often accept(2) of this listener has returned a connection, or that none waits.
    pub(crate) fn accept_answers(&self, host: u32, listener: u32) -> u64 {
        let world = self.world.borrow();
        let id = world.held_listener(host, listener);
        id.and_then(|id| world.listeners.get(id)).map_or(0, |listener| listener.answers)
    }
}

impl World {
    /// What a waiting socket could have at once, although no readiness of it is on its way.
    pub(super) fn overlooked(&self, host: u32, waits: &Waits) -> Option<&'static str> {
        let id = self.held(host, waits.slot)?;
        let end = self.ends.get(id)?;
        let rest = |source: &Source| matches!(source, Source::Rest(whose, ..) if *whose == id);
        if end.queued || self.programs[host as usize].ready.iter().any(rest) {
            return None;
        }
        let &Waits { state, paused, room, .. } = waits;
        let reads = state.can_read() && state != State::Broken;
        let (open, closed, failed) = (end.phase == Phase::Open, end.phase == Phase::Closed, end.error.is_some());
        let input = !end.incoming.is_empty() || end.peer_finished || closed;
        let overlooked = [
            (reads && paused && end.died && failed, "died"),
            (reads && !paused && input, "input, an end or an error"),
            (room && (closed || failed || (open && end.has_room())), "room to write"),
            (state == State::Connecting && (closed || open), "a result of its handshake"),
            // A Unix domain socket that is hung up has no news for a side that has read the end.
            (state.is_connected() && !state.can_read() && closed && (!end.is_unix() || failed), "an end"),
        ];
        overlooked.into_iter().find_map(|(is_so, what)| is_so.then_some(what))
    }

    /// What this connection's kernel knows.
    pub(super) fn kernel(&self, id: Id) -> Kernel {
        let Some(end) = self.ends.get(id) else { return Kernel::default() };
        Kernel {
            // What was sent over a Unix domain socket was in the peer's own queue at once, also if the
            // peer has closed since.
            acked: match end.is_unix() {
                true => end.written,
                false if end.died => 0,
                false => end.acked.min(end.written),
            },
            fin_acked: if end.is_unix() { end.finished } else { !end.died && end.is_fin_acked() },
            finished: end.finished,
            finished_at: end.finished_at,
            peer_finished: end.peer_finished,
            fin_at: end.fin_at,
            unread: end.incoming.len(),
            unread_since: end.unread_since.filter(|_| !end.incoming.is_empty()),
            // For a Unix domain socket no program can query when.
            taken_at: if end.is_unix() { 0 } else { end.taken_at },
            can_ask: end.phase == Phase::Open && !end.is_unix() && end.short & 1 << TAKEN == 0,
            fin_order: end.fin_order,
            gone_at: end.gone_at,
            order_hidden: end.order_hidden,
            remote: (!end.is_unix()).then_some(end.remote),
            died: end.died || (end.phase == Phase::Closed && !end.is_done() && !end.is_unix()),
        }
    }

    /// The truth of one slot, created if there is none. A handshake in a race has that of its
    /// socket.
    pub(super) fn truth(&mut self, host: u32, slot: u32) -> &mut Truth {
        let token = self.held(host, slot).and_then(|id| self.ends.get(id)).and_then(|end| end.token);
        let slot = token.map_or(slot, |token| token.index);
        let truths = &mut self.program(host).truths;
        let slot = slot as usize;
        if truths.len() <= slot {
            truths.resize_with(slot + 1, Truth::default);
        }
        &mut truths[slot]
    }

    /// A socket begins, unless it is another attempt of the same one.
    pub(super) fn begin_truth(&mut self, host: u32, slot: u32, token: Option<Token>) {
        let now = self.now;
        let truth = self.truth(host, slot);
        if token.is_none() || truth.token != token {
            *truth = Truth { token, moved_at: now, sent_at: now, given_at: now, ..Truth::default() };
        }
        truth.closed = None;
    }

    /// Records the result of a call.
    pub(super) fn answered<T>(&mut self, host: u32, slot: u32, answer: Result<T, Errno>) -> Result<T, Errno> {
        if let Err(error) = answer
            && error != Errno::WOULDBLOCK
        {
            let now = self.now;
            let truth = self.truth(host, slot);
            truth.errors.push(error);
            truth.failed_at = now;
        }
        answer
    }

    /// A call has moved something: the polls before it were not in vain.
    pub(super) fn progress(&mut self, host: u32) {
        let program = self.program(host);
        (program.idle_polls, program.vain_polls) = (0, 0);
    }

    /// Records how a program closes a connection, before it does.
    pub(super) fn record_close(&mut self, host: u32, slot: u32, id: Id) {
        let (kernel, now) = (self.kernel(id), self.now);
        let truth = self.truth(host, slot);
        (truth.kernel, truth.closed_at) = (kernel, now);
        self.progress(host);
    }
}
