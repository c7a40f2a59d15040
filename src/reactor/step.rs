//! One step of one socket: take effect of the caller's calls, check errors, write, read.
//!
//! Invariant: a step changes its entry and calls the net. It touches no list, no wheel and no other
//! socket, and returns at most one event. An error of the system is taken once and is final; bytes
//! that arrived before it are delivered before it.

mod receive;
mod send;
mod splice;

use std::io;
use std::time::Duration;

use rustix::io::Errno;

use super::Reactor;
use super::emit::{Emit, EmitKind};
use crate::error::{ConnectionError, ConnectionErrorKind, TimeoutKind};
use crate::id::SocketId;
use crate::lifecycle::{self, Cell, Emits, Input, State};
use crate::net::{Net, Token, Unread};
use crate::options::Settings;
use crate::report::{self, Transition};
use crate::table::Table;
use crate::table::entry::{Entry, Flags, NIL, Next};
use crate::table::extra::{Extra, Extras};

/// The result of any system call here.
enum Outcome<T> {
    Done(T),
    WouldBlock,
    /// The system has no memory for it now (ENOBUFS, ENOMEM); the connection itself has not failed.
    Retry,
    Failed(io::Error),
}

/// Makes a call, and repeats it if it was interrupted.
#[inline(always)]
fn call<T>(mut call: impl FnMut() -> io::Result<T>) -> Outcome<T> {
    loop {
        // Compared by kind: another net may have errors without a number.
        return match call() {
            Ok(done) => Outcome::Done(done),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Outcome::WouldBlock,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if is_transient(&error) => Outcome::Retry,
            Err(error) => Outcome::Failed(error),
        };
    }
}

/// Whether the system lacks memory, or room in epoll: an error that passes.
pub(super) fn is_transient(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOBUFS | Errno::NOMEM | Errno::NOSPC))
}

const fn input_for(cause: ConnectionErrorKind, state: State) -> Input {
    match (cause, state) {
        (ConnectionErrorKind::TimedOut(_), _) => Input::Expired,
        (ConnectionErrorKind::Lookup(_), _) => Input::LookupFailed,
        (ConnectionErrorKind::Reset, _) => Input::Reset,
        (_, State::Connecting) => Input::ConnectFailed,
        // The connection is established: only these can happen before.
        _ => Input::Reset,
    }
}

/// One socket, borrowed once, and what a step of it needs.
pub(super) struct Step<'a, N: Net> {
    slot: u32,
    entry: &'a mut Entry,
    extras: &'a mut Extras,
    settings: &'a Settings,
    net: &'a mut N,
    /// The receive buffer of all sockets.
    buffer: &'a mut Box<[u8]>,
}

impl<N: Net> Reactor<N> {
    pub(super) fn token(&self, slot: u32) -> Token {
        Token { index: slot, generation: self.table.id(slot).generation() }
    }

    /// Borrows a socket for a step.
    #[inline]
    pub(super) fn at(&mut self, slot: u32) -> Step<'_, N> {
        Step::new(&mut self.table, &mut self.net, &mut self.buffer, slot)
    }

    /// One transition outside of a step; its events become pending.
    pub(super) fn apply(&mut self, slot: u32, input: Input) {
        self.at(slot).post(input);
    }

    /// One transition with one event, which is delivered at once.
    #[inline(always)]
    pub(super) fn emit(&mut self, slot: u32, input: Input, emits: Emits) -> Emit {
        let emitted = self.at(slot).apply(input);
        debug_assert_eq!(emitted, 1 << emits as u16);
        self.table.at_hand = slot;
        Emit::new(EmitKind::Of(emits), 0)
    }
}

impl<'a, N: Net> Step<'a, N> {
    #[inline(always)]
    pub(super) fn new(table: &'a mut Table, net: &'a mut N, buffer: &'a mut Box<[u8]>, slot: u32) -> Self {
        let is_at_hand = slot == table.at_hand || table.extras.at_hand_bytes.is_empty();
        debug_assert!(is_at_hand, "what was written is the socket's at hand");
        let entry = &mut table.entries[slot as usize];
        let settings = table.settings.get(entry.settings);
        Self { slot, entry, extras: &mut table.extras, settings, net, buffer }
    }

    #[inline]
    pub(super) fn is_connected(&self) -> bool {
        self.entry.state.is_connected()
    }

    /// Whether the socket needs a step in this turn, which may take `steps` more. If not, returns
    /// what it waits for.
    #[inline(always)]
    pub(super) fn needs(&self, steps: &mut usize) -> Result<(), Next> {
        match self.entry.next(self.settings, self.extras.get(self.entry.extra)) {
            Next::Deliver if !self.entry.flags.is_pending(Emits::Lookup) => Ok(()),
            // A name can have thousands of addresses, with an event for each.
            Next::Deliver if *steps == 0 => Err(Next::Now),
            Next::Deliver | Next::Now if *steps > 0 => {
                *steps -= 1;
                Ok(())
            }
            next @ (Next::Deliver | Next::Now | Next::Later | Next::Close | Next::Wait) => Err(next),
        }
    }

    /// Takes steps of a connected socket up to its next event, or until it needs none in this turn.
    #[inline(always)]
    pub(super) fn run(mut self, steps: &mut usize) -> Result<Emit, Next> {
        loop {
            self.needs(steps)?;
            if let Some(emit) = self.step() {
                return Ok(emit);
            }
        }
    }

    #[inline(always)]
    fn step(&mut self) -> Option<Emit> {
        if self.entry.flags.has(Flags::DESTROY.and(Flags::PENDING).and(Flags::READ_FIRST)) {
            return self.before_output();
        }
        self.entry.flags.set(Flags::SOON, false);
        if self.entry.has_end_due(self.settings) {
            self.entry.flags.set(Flags::END, true);
            self.post(Input::EndCalled);
        }
        if self.entry.may_have_request(self.entry.extra != NIL) {
            self.obey();
        }
        // Output first, so that an answer does not wait for more input.
        self.flush();
        if self.entry.flags.has(Flags::PENDING) {
            return self.deliver_before_read();
        }
        if self.entry.has_input() { self.read() } else { None }
    }

    /// Delivers the first of the pending events. A read follows in this turn, and before more output:
    /// a caller that writes again at each `drain` could do so for ever.
    #[inline(never)]
    fn deliver_before_read(&mut self) -> Option<Emit> {
        self.entry.flags.set(Flags::SOON | Flags::READ_FIRST, self.entry.has_input());
        self.deliver()
    }

    /// Applies `destroy`, or delivers pending events, in any state; or reads before it writes, and
    /// another step follows.
    #[inline(never)]
    pub(super) fn before_output(&mut self) -> Option<Emit> {
        if self.entry.flags.has(Flags::DESTROY) {
            return self.abort();
        }
        if self.entry.flags.has(Flags::PENDING) {
            return self.deliver();
        }
        let reads = self.entry.flags.replace(Flags::READ_FIRST, false) && self.entry.has_input();
        // The notice has to distinguish a reset from a FIN.
        if !reads || self.entry.has_error_due(self.settings) {
            return None;
        }
        self.give_notice();
        if self.entry.flags.has(Flags::PENDING) { self.deliver_before_read() } else { self.read() }
    }

    /// One transition. Returns the events that it emits.
    #[inline]
    fn apply(&mut self, input: Input) -> u16 {
        let from = self.entry.state;
        let transition = self.entry.apply(input);
        self.net.stepped(self.id(), from, input);
        if report::is_on() {
            self.log(from, input);
        }
        transition.emits
    }

    #[inline]
    const fn id(&self) -> SocketId {
        SocketId::new(self.extras.reactor, self.slot, self.entry.generation)
    }

    #[cold]
    #[inline(never)]
    fn log(&self, from: State, input: Input) {
        if let Cell::Go(to, emits) = lifecycle::step(from, input) {
            report::transition(&Transition {
                id: self.id(),
                at: self.extras.begun.map_or(Duration::ZERO, |begun| begun.elapsed(self.net.now())),
                side: if self.settings.listener.is_some() { "server" } else { "client" },
                peer: self.entry.peer(&self.extras.ipv6_peers),
                from,
                input,
                to,
                events: &lifecycle::events(emits),
                bytes_read: self.entry.bytes_read,
                bytes_written: self.entry.bytes_written,
            });
        }
    }

    /// One transition whose events become pending.
    #[inline]
    pub(super) fn post(&mut self, input: Input) {
        let emits = self.apply(input);
        self.entry.flags.post(emits);
    }

    /// Takes the first of the pending events.
    #[inline]
    fn deliver(&mut self) -> Option<Emit> {
        let emits = self.entry.flags.pending()?;
        if emits == Emits::Lookup {
            return Some(self.deliver_lookup());
        }
        self.entry.flags.take_pending(emits);
        Some(Emit::new(EmitKind::Of(emits), 0))
    }

    /// Delivers one address at a time: the event stays pending until the last.
    #[inline(never)]
    fn deliver_lookup(&mut self) -> Emit {
        let (index, count) = match self.extra_mut().connecting.as_mut() {
            Some(connecting) => {
                connecting.delivered += 1;
                (connecting.delivered - 1, connecting.addrs.len())
            }
            None => (0, 0),
        };
        if index + 1 >= count {
            self.entry.flags.take_pending(Emits::Lookup);
        }
        Emit::new(EmitKind::Of(Emits::Lookup), index as u32)
    }

    #[inline]
    fn extra(&self) -> Option<&Extra> {
        self.extras.get(self.entry.extra)
    }

    fn extra_mut(&mut self) -> &mut Extra {
        self.extras.get_or_make(&mut self.entry.extra)
    }

    fn queued_bytes(&self) -> usize {
        self.extras.at_hand_bytes.len() + self.extra().map_or(0, |extra| extra.queue.len())
    }

    // --- the caller's calls, and what the system reports ---

    /// Applies the caller's calls but `end`, and handles what the system has reported.
    #[inline(never)]
    fn obey(&mut self) {
        if let Some(extra) = self.extras.get_mut(self.entry.extra) {
            if !self.entry.flags.has(Flags::FILL) {
                // The caller has not taken the buffer.
                extra.fill = None;
            }
            if extra.has_options() {
                self.set_options();
            }
        }
        if self.entry.has_error_due(self.settings) {
            self.check_error();
        }
        self.linger();
        // The low-water mark may have been raised above the queue's length.
        self.check_drained();
        self.give_notice();
    }

    /// The early notice of the peer's end, if it is due.
    fn give_notice(&mut self) {
        if self.entry.has_notice_due(self.settings, self.extra()) {
            self.note_unread_fin();
            self.entry.flags.set(Flags::NOTICED, true);
            self.post(Input::PeerEnded);
        }
    }

    /// Our FIN was sent, and the caller has discarded what the peer still sends.
    fn linger(&mut self) {
        if self.entry.has_discard_due() {
            self.post(Input::DiscardCalled);
        }
    }

    /// Sets the system's options that the caller has changed. The values were checked before; a
    /// failing connection may refuse them anyway, and will report its own error.
    #[inline(never)]
    fn set_options(&mut self) {
        let extra = self.extras.get_or_make(&mut self.entry.extra);
        let (nodelay, keep_alive) = (extra.nodelay.take(), extra.keep_alive.take());
        let nodelay = nodelay.map_or(Ok(()), |on| self.net.set_nodelay(self.slot, on));
        let keep_alive = keep_alive.map_or(Ok(()), |times| self.net.set_keep_alive(self.slot, times));
        if let Err(error) = nodelay.and(keep_alive) {
            log::warn!("socket {}: an option could not be set: {error}", self.slot);
        }
    }

    /// Takes the system's error, if there is one. The flag alone is only a hint.
    #[inline(never)]
    pub(super) fn check_error(&mut self) {
        self.entry.flags.set(Flags::ERROR | Flags::HANGUP, false);
        if self.entry.state == State::Broken {
            self.fail_if_all_is_read();
        } else if self.entry.state == State::Closing {
            self.confirm();
        } else if let Some(error) = self.net.take_error(self.slot) {
            self.lose(&error);
        }
    }

    // --- the ends ---

    /// The caller has destroyed the socket.
    #[inline(never)]
    fn abort(&mut self) -> Option<Emit> {
        self.entry.flags.clear_pending_but_ready();
        if self.entry.flags.has(Flags::PENDING) {
            return self.deliver();
        }
        if !self.entry.state.is_final() {
            self.note_unread_fin();
            self.net.reset(self.slot);
        }
        self.post(Input::DestroyCalled);
        None
    }

    /// The connection is over with an error, which will be delivered: the first one, if it was
    /// broken before.
    #[inline(never)]
    pub(super) fn fail(&mut self, failure: ConnectionError) {
        // A live peer notices the failure at once; a close would look orderly.
        self.net.reset(self.slot);
        let cause = self.extra_mut().failure.get_or_insert(failure).kind;
        self.entry.flags.take_pending(Emits::Lookup);
        self.post(input_for(cause, self.entry.state));
    }

    /// A broken connection is over, with the error that broke it.
    pub(super) fn fail_broken(&mut self) {
        self.fail(ConnectionError::of(ConnectionErrorKind::System));
    }

    /// Events that the system has reported, and that no step has handled yet, came before a limit
    /// that expires now. Returns whether they ended the connection.
    pub(super) fn ends_by_itself(&mut self) -> bool {
        if self.is_connected() && self.entry.flags.has(Flags::ERROR | Flags::HANGUP) {
            self.check_error();
        }
        let may_end = self.entry.flags.has(Flags::READ_CLOSED) && self.entry.has_input() && !self.has_filled_part();
        if may_end && matches!(self.entry.state, State::LocalFinished | State::Lingering) {
            match call(|| self.net.peek(self.slot)) {
                Outcome::Done(Unread::End) => {
                    self.give_notice();
                    self.read_end();
                }
                Outcome::Failed(error) => self.lose(&error),
                Outcome::Retry => self.retry_later(Flags::NONE),
                Outcome::Done(Unread::Bytes | Unread::Nothing) | Outcome::WouldBlock => {}
            }
        }
        if self.entry.state == State::Broken {
            self.fail_broken();
        }
        self.entry.state.is_final()
    }

    /// A limit has expired. If our FIN is with the kernel, and the kernel does not report what the
    /// peer takes, the kernel delivers the rest alone: a reset could destroy an answer to a slow
    /// reader.
    pub(super) fn expire(&mut self, failure: ConnectionError, is_known: bool) {
        self.note_unread_fin();
        let is_sent = matches!(self.entry.state, State::LocalFinished | State::Lingering | State::Closing);
        let is_silence =
            matches!(failure.kind, ConnectionErrorKind::TimedOut(TimeoutKind::Close | TimeoutKind::HalfClosed));
        if is_sent && is_silence && !is_known && self.entry.bytes_written > 0 {
            // Both sides have finished, and a hand-off claims no more than that.
            if self.entry.state == State::Closing {
                return self.leave_to_kernel();
            }
            self.net.drop_unread(self.slot);
            self.net.close(self.slot);
        }
        self.fail(failure);
    }

    /// The system has reported an error. What only a live connection needs is dropped; bytes that
    /// arrived before can still be read, and the error follows them.
    #[inline(never)]
    pub(super) fn lose(&mut self, error: &io::Error) {
        self.note_fin_before(error);
        if !self.entry.state.can_read() {
            return self.fail(ConnectionError::from_os(error));
        }
        let extra = self.extras.get_or_make(&mut self.entry.extra);
        extra.failure.get_or_insert(ConnectionError::from_os(error));
        self.extras.void(self.entry.extra);
        self.post(Input::ErrorSeen);
        // A caller that has paused until there is room need not wait any longer.
        match self.entry.flags.has(Flags::STOPPED) {
            true => self.drained(),
            false => self.entry.flags.set(Flags::FULL, false),
        }
        // A pending notice will report how the peer has ended; a delivered one reported a FIN.
        self.entry.flags.set(Flags::NOTICED, self.entry.flags.is_pending(Emits::PeerEnded));
        self.entry.flags.set(Flags::READABLE | Flags::READ_CLOSED | Flags::SOON | Flags::GRACE, true);
        self.fail_if_all_is_read();
    }

    /// If nothing is unread, the error of a broken connection is delivered next, paused or not.
    fn fail_if_all_is_read(&mut self) {
        if self.has_filled_part() {
            return self.entry.flags.set(Flags::READABLE | Flags::SOON, true);
        }
        match call(|| self.net.peek(self.slot)) {
            Outcome::Done(Unread::Bytes) => {}
            Outcome::Retry => self.retry_later(Flags::HANGUP),
            Outcome::Done(Unread::Nothing | Unread::End) | Outcome::WouldBlock | Outcome::Failed(_) => {
                self.fail_broken();
            }
        }
    }

    /// Whether bytes in the caller's buffer or in a kernel pipe were not delivered yet.
    fn has_filled_part(&self) -> bool {
        let has = |extra: &Extra| extra.spliced.is_some() || extra.fill.as_ref().is_some_and(|fill| fill.filled > 0);
        self.entry.flags.has(Flags::FILL) && self.extra().is_some_and(has)
    }

    /// The system has no memory for a call now: it is repeated after a pause.
    #[cold]
    #[inline(never)]
    fn retry_later(&mut self, readiness: Flags) {
        self.entry.flags.set(readiness, false);
        self.extra_mut().retry_later();
    }
}

#[cfg(test)]
mod tests;
