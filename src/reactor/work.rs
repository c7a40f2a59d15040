//! What one socket does when its turn comes: tell what it owes, obey the caller, write, read, ask for the verdict.
//!
//! Invariant: an error of the system is taken once and decides; bytes that arrived before it are told before it.

use std::io::{self, IoSlice};

use super::Reactor;
use super::tell::{Told, What};
use crate::error::{Cause, Failure};
use crate::lifecycle::{Input, State, Tell};
use crate::net::{Net, Received, Token, Unread};
use crate::options::{Close, Idle};
use crate::table::entry::{Flags, NIL};
use crate::table::extra::{Deadline, Extra};
use crate::table::queue::{PIECES, WriteQueue};

/// Bytes that one socket hands to the kernel in one turn at the most, so that a peer as fast as we are does not keep the
/// loop to itself.
const SEND_QUANTUM_BYTES: usize = 1024 * 1024;

/// The shape of every system call here.
enum Outcome<T> {
    Done(T),
    WouldBlock,
    Failed(io::Error),
}

/// Repeats an interrupted call, once and for all.
fn call<T>(mut call: impl FnMut() -> io::Result<T>) -> Outcome<T> {
    loop {
        return match call() {
            Ok(done) => Outcome::Done(done),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Outcome::WouldBlock,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Outcome::Failed(error),
        };
    }
}

/// Sends what waits in several pieces, as much of it as one call takes. `last`: our FIN follows the last byte.
#[inline(never)]
fn send_pieces(net: &mut impl Net, slot: u32, queue: &WriteQueue, quantum: usize, last: bool) -> Outcome<usize> {
    let mut pieces = [IoSlice::new(&[]); PIECES];
    let (count, bytes) = queue.gather(&mut pieces, quantum);
    let more = last && bytes == queue.len();
    match &pieces[..count] {
        [piece] => call(|| net.send(slot, piece, more)),
        pieces => call(|| net.send_vectored(slot, pieces, more)),
    }
}

/// What an error of the system is to the lifecycle: a reset, a timer that ran out, or whatever else it is where it came up.
pub(super) fn input_for(cause: Cause, otherwise: Input) -> Input {
    if cause == Cause::Reset {
        Input::Reset
    } else if matches!(cause, Cause::TimedOut(_)) {
        Input::Expired
    } else {
        otherwise
    }
}

impl<N: Net> Reactor<N> {
    pub(super) fn token(&self, slot: u32) -> Token {
        Token { index: slot, generation: self.table.entry(slot).generation }
    }

    /// One step of the lifecycle. The net may watch; the real one doesn't.
    #[inline]
    pub(super) fn apply(&mut self, slot: u32, input: Input) {
        let from = self.table.apply(slot, input);
        self.net.stepped(from, input);
    }

    /// One socket's step, up to its first event.
    #[inline]
    pub(super) fn work(&mut self, slot: u32) -> Option<Told> {
        let entry = self.table.entry(slot);
        if entry.state.is_connected() && entry.flags.owed().is_none() && !entry.flags.has(Flags::DESTROY) {
            return self.exchange(slot);
        }
        self.work_apart(slot)
    }

    /// The step of a socket that does not exchange bytes now: it owes an event, is on its way to be connected, or is over.
    #[inline(never)]
    fn work_apart(&mut self, slot: u32) -> Option<Told> {
        if self.table.entry(slot).flags.has(Flags::DESTROY) {
            return self.destroy(slot);
        }
        if let Some(told) = self.tell_owed(slot) {
            return Some(told);
        }
        match self.table.entry(slot).state {
            State::Created => self.begin(slot),
            State::Connecting => self.go_on_connecting(slot),
            State::Resolving
            | State::Open
            | State::Flushing
            | State::Finished
            | State::Ended
            | State::LastFlush
            | State::Closing
            | State::Confirmed
            | State::HandedOff
            | State::ResetByPeer
            | State::ResetByUs
            | State::TimedOut
            | State::NotConnected
            | State::Closed => {}
        }
        self.tell_owed(slot)
    }

    /// Both directions of an established connection: output first, so that an answer does not wait behind more input.
    #[inline]
    fn exchange(&mut self, slot: u32) -> Option<Told> {
        let entry = self.table.entry(slot);
        let (flags, state) = (entry.flags, entry.state);
        if flags.has(Flags::END) && matches!(state, State::Open | State::Ended) {
            self.apply(slot, Input::EndCalled);
        }
        if flags.has(Flags::LOOK | Flags::BROKEN) || (flags.has(Flags::READ_CLOSED) && state.can_read()) {
            self.look(slot);
        }
        let entry = self.table.entry(slot);
        if entry.extra != NIL || entry.state.is_flushing() {
            self.write(slot);
        }
        let entry = self.table.entry(slot);
        if entry.flags.owed().is_none() && entry.has_input() {
            return self.read(slot);
        }
        self.tell_owed(slot)
    }

    /// After a step, or when the caller has handled an event: has the socket looked at again if it has more to do, and
    /// makes sure that news of it will come if it has not.
    #[inline]
    pub(super) fn settle(&mut self, slot: u32) {
        let entry = self.table.entry(slot);
        let (flags, state) = (entry.flags, entry.state);
        if flags.owed().is_some() {
            return self.table.push_ready_front(slot);
        }
        if state == State::Ended && !flags.has(Flags::END) && !self.table.settings_of(slot).half_open {
            // The caller had its chance to answer while it handled `end`.
            self.table.entry_mut(slot).flags.set(Flags::END, true);
            return self.table.push_ready(slot);
        }
        if state.is_final() {
            return self.table.push_close(slot);
        }
        if flags.has(Flags::QUEUED) {
            return;
        }
        if entry.has_input() && !flags.has(Flags::DESTROY | Flags::END) {
            return self.table.push_later(slot);
        }
        self.rest_or_go_on(slot);
    }

    /// A socket that is in no queue: into one, if there is more to do, or it rests, watched.
    #[inline(never)]
    fn rest_or_go_on(&mut self, slot: u32) {
        let entry = self.table.entry(slot);
        let untried = entry.state == State::Connecting && !entry.flags.has(Flags::ATTEMPT);
        // An `end()` from before the connection was there.
        let owes_end = entry.flags.has(Flags::END) && matches!(entry.state, State::Open | State::Ended);
        // Asked for between `connect` and `ready`: nothing has been exchanged since.
        let wishes = entry.state.is_connected() && self.table.extra(slot).is_some_and(Extra::has_wishes);
        if entry.flags.has(Flags::DESTROY) || untried || owes_end || wishes {
            return self.table.push_ready(slot);
        }
        if entry.has_input() || entry.has_verdict() || self.has_output(slot) {
            return self.table.push_later(slot);
        }
        self.table.tidy_extra(slot);
        self.register(slot);
        self.arm(slot);
    }

    /// Whether a write is owed that can be made now.
    pub(super) fn has_output(&self, slot: u32) -> bool {
        self.table.entry(slot).flags.has(Flags::WRITABLE) && self.owes_output(slot)
    }

    /// Whether a write is owed, as soon as there is room.
    pub(super) fn owes_output(&self, slot: u32) -> bool {
        let entry = self.table.entry(slot);
        entry.state.can_send()
            && !entry.flags.has(Flags::BROKEN)
            && (entry.state.is_flushing() || self.table.queued_bytes(slot) > 0)
    }

    /// Registers a connection that has to wait for news: many never have to.
    #[inline(never)]
    fn register(&mut self, slot: u32) {
        let entry = self.table.entry(slot);
        if entry.flags.has(Flags::REGISTERED | Flags::BROKEN) || !entry.state.is_connected() {
            return;
        }
        let token = self.token(slot);
        match self.net.register(slot, token) {
            Ok(()) => self.table.entry_mut(slot).flags.set(Flags::REGISTERED, true),
            Err(error) => {
                // Nobody can watch it: that says nothing of the peer.
                self.keep_failure(slot, &error, Flags::NONE);
                self.table.push_ready(slot);
            }
        }
    }

    /// Files the socket's timers, counted from now if bytes have moved.
    #[inline(never)]
    fn arm(&mut self, slot: u32) {
        let entry = self.table.entry_mut(slot);
        let touched = entry.flags.replace(Flags::TOUCHED, false) && entry.state.is_connected();
        if entry.flags.replace(Flags::MOVED, false) {
            entry.flags.set(Flags::IDLE_TOLD, false);
        }
        if !touched || !self.table.has_timer(slot) {
            return self.table.refile(slot);
        }
        // The clock again: the turn's own reading may be older than the bytes, and the timer would be early.
        let now = self.tick_after(self.net.now());
        self.table.arm(slot, now);
    }

    /// The caller's deadline counts from now.
    fn begin_deadline(&mut self, slot: u32) {
        let now = self.tick_after(self.net.now());
        self.table.begin_deadline(slot, now);
    }

    /// A connection is there: the deadline that its options give it counts from now.
    pub(super) fn give_deadline(&mut self, slot: u32) {
        if let Some(ms) = self.table.settings_of(slot).deadline_ms {
            self.table.extra_mut(slot).deadline = Some(Deadline::In(ms));
        }
        self.begin_deadline(slot);
    }

    fn touch(&mut self, slot: u32) {
        self.table.entry_mut(slot).flags.set(Flags::TOUCHED, true);
    }

    // --- the ends ---

    /// Its descriptor is closed: no timer outlives the connection, and a listener may be waiting for the descriptor.
    #[inline]
    fn over(&mut self, slot: u32, input: Input) {
        self.freed();
        self.table.disarm(slot);
        self.apply(slot, input);
    }

    /// The caller has destroyed the socket.
    #[inline(never)]
    fn destroy(&mut self, slot: u32) -> Option<Told> {
        self.silence(slot);
        if let Some(told) = self.tell_owed(slot) {
            return Some(told);
        }
        if self.table.entry(slot).state.is_final() {
            // It had failed already, and nobody had been told.
            self.apply(slot, Input::DestroyCalled);
        } else {
            self.give_up_connecting(slot);
            self.net.reset(slot);
            self.over(slot, Input::DestroyCalled);
        }
        None
    }

    /// The connection is over with an error, which will be told.
    #[inline(never)]
    pub(super) fn fail(&mut self, slot: u32, mut failure: Failure, input: Input) {
        failure.attempts = self.attempts(slot, failure.cause);
        // If the peer is still there it learns so at once; a close would look like an orderly end to it.
        self.net.reset(slot);
        self.table.extra_mut(slot).failure.get_or_insert(failure);
        self.table.entry_mut(slot).flags.paid(Tell::Lookup);
        self.over(slot, input);
    }

    /// The same, for an error that the system has told of an established connection.
    #[inline(never)]
    pub(super) fn fail_with(&mut self, slot: u32, error: &io::Error) {
        let failure = Failure::from_os(error);
        let input = input_for(failure.cause, Input::Reset);
        self.fail(slot, failure, input);
    }

    /// The same, for the error of a failed write, when there is nothing left to read.
    #[inline(never)]
    pub(super) fn fail_broken(&mut self, slot: u32) {
        let failure = self.failure(slot);
        let input = input_for(failure.cause, Input::Reset);
        self.fail(slot, failure, input);
    }

    /// A write failed: the peer is gone.
    #[inline(never)]
    fn broken(&mut self, slot: u32, error: &io::Error) {
        self.keep_failure(slot, error, Flags::READ_CLOSED | Flags::TOUCHED);
    }

    /// The connection has failed, and what can still be read comes first. `known` is what that says beside.
    #[inline(never)]
    fn keep_failure(&mut self, slot: u32, error: &io::Error, known: Flags) {
        self.table.extra_mut(slot).failure.get_or_insert(Failure::from_os(error));
        let flags = &mut self.table.entry_mut(slot).flags;
        flags.set(Flags::BROKEN | Flags::READABLE | known, true);
        if !self.table.entry(slot).state.can_read() {
            self.fail_broken(slot);
        } else if self.table.entry(slot).flags.has(Flags::PAUSED) {
            self.look_paused(slot);
        }
    }

    /// A descriptor is free again.
    #[inline]
    pub(super) fn freed(&mut self) {
        self.listeners.retry();
    }

    /// Looks into a hang-up, an error flag, or the peer's end, where reading does not do it by itself.
    #[inline(never)]
    fn look(&mut self, slot: u32) {
        let entry = self.table.entry(slot);
        let (state, flags) = (entry.state, entry.flags);
        if state.can_read() {
            if flags.has(Flags::READ_CLOSED) && !flags.has(Flags::NOTICED) && self.table.settings_of(slot).early_notice
            {
                self.table.entry_mut(slot).flags.set(Flags::NOTICED, true);
                self.apply(slot, Input::PeerEnded);
            }
            if flags.has(Flags::PAUSED) {
                self.look_paused(slot);
            }
            return;
        }
        if !flags.has(Flags::LOOK) {
            return;
        }
        self.table.entry_mut(slot).flags.set(Flags::LOOK, false);
        if state == State::Closing {
            self.confirm(slot);
        } else if let Some(error) = self.net.take_error(slot) {
            self.fail_with(slot, &error);
        }
    }

    /// A paused socket's connection may be dead. With bytes unread that waits for `resume`; without, it is told at once.
    #[inline(never)]
    fn look_paused(&mut self, slot: u32) {
        let flags = self.table.entry(slot).flags;
        if !flags.has(Flags::LOOK | Flags::BROKEN) {
            return;
        }
        match call(|| self.net.peek(slot)) {
            Outcome::Failed(error) => self.fail_with(slot, &error),
            Outcome::Done(Unread::Nothing | Unread::End) if flags.has(Flags::BROKEN) => self.fail_broken(slot),
            Outcome::Done(_) | Outcome::WouldBlock => {}
        }
    }

    // --- writing ---

    /// Sends what is queued, and our FIN behind it if the caller has ended.
    fn write(&mut self, slot: u32) {
        if !self.table.entry(slot).state.is_connected() {
            return;
        }
        self.set_options(slot);
        let mut quantum = SEND_QUANTUM_BYTES;
        while self.has_output(slot) {
            let last = self.table.entry(slot).state.is_flushing();
            let Some(extra) = self.table.extra(slot).filter(|extra| extra.queue.len() > 0) else {
                return self.finish(slot);
            };
            if quantum == 0 {
                return;
            }
            let outcome = if let Some(pending) = extra.queue.single() {
                let bytes = &pending[..pending.len().min(quantum)];
                let more = last && bytes.len() == pending.len();
                call(|| self.net.send(slot, bytes, more))
            } else {
                send_pieces(&mut self.net, slot, &extra.queue, quantum, last)
            };
            match outcome {
                Outcome::Done(sent) => {
                    quantum -= sent;
                    self.sent(slot, sent);
                }
                Outcome::WouldBlock => {
                    self.table.entry_mut(slot).flags.set(Flags::WRITABLE, false);
                    // Room is told only to who watches; a socket that always has input would never come to it.
                    self.register(slot);
                }
                Outcome::Failed(error) => self.broken(slot, &error),
            }
        }
    }

    fn sent(&mut self, slot: u32, bytes: usize) {
        let moved = self.table.breaks_silence(slot, Idle::Write);
        let extra = self.table.sent(slot, bytes);
        (extra.flushed, extra.limit_from) = (None, None);
        let left = extra.queue.len();
        let entry = self.table.entry_mut(slot);
        entry.bytes_written += bytes as u64;
        entry.set_heard_last(false);
        entry.flags.set(if moved { Flags::TOUCHED | Flags::MOVED } else { Flags::TOUCHED }, true);
        if entry.flags.has(Flags::FULL) && left <= self.table.settings_of(slot).low_water_bytes {
            self.table.entry_mut(slot).flags.set(Flags::FULL, false);
            self.apply(slot, Input::Drained);
        }
        if left == 0 {
            // At once: the next answer, of whichever socket, finds the same buffer still in the processor's cache.
            self.table.tidy_extra(slot);
        }
    }

    /// Everything is with the kernel: our FIN, or close(2) in its place.
    fn finish(&mut self, slot: u32) {
        let entry = self.table.entry(slot);
        if entry.state == State::LastFlush && self.table.settings_of(slot).close == Close::HandOff {
            self.table.entry_mut(slot).flags.set(Flags::PEER_FIRST, true);
            return self.leave_to_kernel(slot);
        }
        let first = match self.who_is_first(slot) {
            Ok(first) => first,
            Err(error) => return self.broken(slot, &error),
        };
        match call(|| self.net.finish(slot)) {
            Outcome::Done(()) | Outcome::WouldBlock => {
                self.table.entry_mut(slot).flags.set(first, true);
                self.touch(slot);
                self.apply(slot, Input::FinSent);
                if self.table.entry(slot).state == State::Closing {
                    self.confirm(slot);
                }
            }
            Outcome::Failed(error) => {
                // ENOTCONN says only that it is over; what it died of may still wait to be asked for.
                let error = self.net.take_error(slot).unwrap_or(error);
                self.broken(slot, &error);
            }
        }
    }

    /// Whose FIN is first, if ours leaves now. What waits unread may be the peer's FIN, or have it behind it: then nobody
    /// can say.
    fn who_is_first(&mut self, slot: u32) -> io::Result<Flags> {
        let flags = self.table.entry(slot).flags;
        if flags.has(Flags::READ_CLOSED) {
            return Ok(Flags::PEER_FIRST);
        }
        if !flags.has(Flags::READABLE) {
            return Ok(Flags::US_FIRST);
        }
        match call(|| self.net.peek(slot)) {
            Outcome::Done(Unread::End) => Ok(Flags::PEER_FIRST),
            Outcome::Done(Unread::Nothing) | Outcome::WouldBlock => Ok(Flags::US_FIRST),
            Outcome::Done(Unread::Bytes) => Ok(Flags::NONE),
            Outcome::Failed(error) => Err(error),
        }
    }

    /// Both sides have finished: whether the peer's kernel has acknowledged that.
    fn confirm(&mut self, slot: u32) {
        if self.table.settings_of(slot).close == Close::HandOff {
            return self.leave_to_kernel(slot);
        }
        match call(|| self.net.acknowledged(slot)) {
            Outcome::Done(true) => {
                self.net.close(slot);
                self.over(slot, Input::Acknowledged);
            }
            Outcome::Done(false) | Outcome::WouldBlock => {}
            Outcome::Failed(error) => self.fail_with(slot, &error),
        }
    }

    fn leave_to_kernel(&mut self, slot: u32) {
        self.net.close(slot);
        self.over(slot, Input::LeftToKernel);
    }

    /// Sets what the caller has changed of the system's options. The values were checked before; a connection that is
    /// dying may refuse them all the same, and will say so itself.
    fn set_options(&mut self, slot: u32) {
        let Some(extra) = self.table.extra(slot) else { return };
        if !extra.has_wishes() {
            return;
        }
        self.begin_deadline(slot);
        let extra = self.table.extra_mut(slot);
        let (nodelay, keep_alive) = (extra.nodelay.take(), extra.keep_alive.take());
        let nodelay = nodelay.map_or(Ok(()), |on| self.net.set_nodelay(slot, on));
        let keep_alive = keep_alive.map_or(Ok(()), |times| self.net.set_keep_alive(slot, times));
        if let Err(error) = nodelay.and(keep_alive) {
            log::warn!("{}: an option could not be set: {error}", self.table.id(slot));
        }
    }

    // --- reading ---

    /// One read at the most that tells something.
    fn read(&mut self, slot: u32) -> Option<Told> {
        match call(|| self.net.recv(slot, &mut self.buffer)) {
            Outcome::Done(Received { bytes: 0, .. }) => self.read_end(slot),
            Outcome::Done(received) => return self.received(slot, received),
            Outcome::WouldBlock => {
                // Nothing there: if a flag said that the peer is gone, it had no reason.
                self.table.entry_mut(slot).flags.set(Flags::READABLE | Flags::READ_CLOSED | Flags::LOOK, false);
                if self.table.entry(slot).flags.has(Flags::BROKEN) {
                    self.fail_broken(slot);
                }
            }
            Outcome::Failed(error) => self.fail_with(slot, &error),
        }
        self.tell_owed(slot)
    }

    fn received(&mut self, slot: u32, Received { bytes, drained }: Received) -> Option<Told> {
        let full = bytes == self.buffer.len();
        let moved = self.table.breaks_silence(slot, Idle::Read);
        let entry = self.table.entry_mut(slot);
        entry.bytes_read += bytes as u64;
        entry.set_heard_last(true);
        // Drained, with these exceptions: nobody watches yet, so the edge for what comes next would be missed; the
        // zero-length read or the error is still owed.
        let owed = Flags::READ_CLOSED | Flags::LOOK | Flags::BROKEN;
        if drained && entry.flags.has(Flags::REGISTERED) && !entry.flags.has(owed) {
            entry.flags.set(Flags::READABLE, false);
        }
        if !full && entry.flags.has(Flags::READABLE) {
            // One short call more settles it: in this turn, so that an end is told with the data it came with. A full
            // buffer waits for the next turn, behind the others.
            self.table.push_ready(slot);
        }
        let entry = self.table.entry_mut(slot);
        if !entry.is_lingering() {
            entry.flags.set(if moved { Flags::TOUCHED | Flags::MOVED } else { Flags::TOUCHED }, true);
            self.table.renew_limit(slot);
        }
        if self.table.entry(slot).flags.has(Flags::DISCARD) {
            return None;
        }
        self.apply(slot, Input::Data);
        self.table.entry_mut(slot).flags.paid(Tell::Data);
        Some(self.tell(slot, What::Data(bytes as u32)))
    }

    /// A read has returned zero. Behind an error that was taken already it means nothing; otherwise it is the peer's FIN.
    fn read_end(&mut self, slot: u32) {
        let entry = self.table.entry_mut(slot);
        entry.flags.set(Flags::READABLE, false);
        if entry.flags.has(Flags::BROKEN) {
            return self.fail_broken(slot);
        }
        if entry.state != State::Finished {
            entry.flags.set(Flags::PEER_FIRST, true);
        }
        entry.flags.set(Flags::READ_CLOSED, true);
        if self.table.breaks_silence(slot, Idle::Read) {
            self.table.entry_mut(slot).flags.set(Flags::MOVED, true);
        }
        self.apply(slot, Input::Fin);
        if self.table.entry(slot).state == State::Closing {
            self.confirm(slot);
            // Their FIN came without acknowledging ours: the two crossed.
            let entry = self.table.entry_mut(slot);
            if entry.state == State::Closing && entry.flags.has(Flags::US_FIRST) {
                entry.flags.set(Flags::PEER_FIRST, true);
            }
        }
    }
}
