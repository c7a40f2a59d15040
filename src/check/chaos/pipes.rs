//! The program of a proxy's sockets: what a pipe does, and whether it keeps its promises.
//!
//! Invariant: the proxy does nothing to its sockets that [`Pipes`](crate::Pipes) does not do, but
//! to destroy one that was silent for too long.

use std::time::Duration;

use super::run::Run;
use super::run_state::Book;
use super::socket_model::{Program, Side, Wish};
use super::stop;
use crate::check::{Rule, Violation, must};
use crate::event::{Ending, Event};
use crate::id::SocketId;
use crate::lifecycle::State;
use crate::socket::Socket;

/// What is owed to a socket whose other side is gone must have left by then, in nanoseconds.
const DOOMED: u64 = 30_000_000_000;

/// The other side of a pipe, before it was shown an event.
struct Before {
    id: SocketId,
    state: State,
    end_called: bool,
    queued: usize,
    /// It takes what is written to it.
    takes: bool,
}

impl Before {
    fn of(other: &Socket<'_>, had_error: bool) -> Self {
        let state = other.state();
        // To its program a socket lives until it is told otherwise.
        let takes = !other.destroy_called() && !other.end_called() && !had_error;
        Self { id: other.id(), state, end_called: other.end_called(), queued: other.queued_bytes(), takes }
    }
}

impl Book {
    /// What the proxy does in one event of one of its sockets.
    pub(super) fn piped(
        &mut self,
        side: &mut Side,
        socket: &mut Socket<'_>,
        event: &Event<'_>,
    ) -> Result<Wish, Violation> {
        self.note_line(side.label(), event.to_string());
        let other = self.pipes.sink_of(side.id);
        let place = other.and_then(|id| self.sides.iter().position(|its| its.host == side.host && its.id == id));
        let mut before = None;
        if let (Some(place), Some(other)) = (place, other.and_then(|id| socket.get(id))) {
            let mut its = self.sides.swap_remove(place);
            before = Some(Before::of(&other, its.had_error));
            let seen = self.look_before(&mut its, &other);
            self.sides.push(its);
            seen?;
        }
        let is_passed_on = self.pipes.handle(socket, event);
        must(is_passed_on || !matches!(event, Event::Data(_)), Rule::Bytes, || "data, and no pipe took it".to_owned())?;
        self.observe(side, socket);
        side.ends_by_itself(socket, event, self.now());
        if let (Some(mut its), Some(before)) = (before.as_ref().and_then(|_| self.sides.pop()), before) {
            let judged = self.judge_other(side, socket, event, &mut its, &before);
            self.sides.push(its);
            judged?;
        }
        match event {
            Event::Timeout if self.is_called || self.rng.chance(0.5) => side.destroy(socket),
            Event::Connection if self.is_called => side.destroy(socket),
            Event::Connection => return Ok(Wish::Backend),
            _ => {}
        }
        Ok(Wish::Nothing)
    }

    /// What the pipe has done to the other side: passed on what came, and nothing else.
    fn judge_other(
        &mut self,
        side: &Side,
        socket: &mut Socket<'_>,
        event: &Event<'_>,
        its: &mut Side,
        before: &Before,
    ) -> Result<(), Violation> {
        let Some(other) = socket.get(before.id) else { return Ok(()) };
        let had_ended = its.end_called;
        if let Event::Data(bytes) = event
            && before.takes
        {
            its.written += bytes.len() as u64;
            its.queued_from = if before.queued == 0 { self.now() } else { its.queued_from };
        }
        self.observe(its, &other);
        let end_called = its.end_called && !had_ended;
        must(!end_called || matches!(event, Event::End), Rule::HonestClose, || {
            format!("{event}, and the pipe ends {}", before.id)
        })?;
        match event {
            Event::Data(_) if before.takes && !other.state().is_final() => {
                let queued = other.queued_bytes();
                let count = other.bytes_written() + queued as u64;
                // A broken socket's queue is void; how much it was its ending says.
                let is_all = count == its.written || (other.state() == State::Broken && count < its.written);
                must(is_all && its.written == side.read, Rule::Bytes, || {
                    format!("{count} bytes were passed on, of {} that were read", side.read)
                })?;
                let high_water = other.settings().map_or(0, |settings| settings.high_water_bytes);
                must(queued < high_water || side.is_paused, Rule::Progress, || {
                    format!("{queued} bytes wait behind a high-water mark of {high_water}, and it reads on")
                })
            }
            Event::Data(_) => must(!before.end_called || side.destroy_called, Rule::Bytes, || {
                format!("{} takes nothing any more, and what came for it is lost", before.id)
            }),
            Event::Drain => must(!its.is_paused || its.destroy_called || its.had_error, Rule::Progress, || {
                format!("there is room, and {} is still held back", before.id)
            }),
            Event::End => must(!before.takes || its.end_called || its.destroy_called, Rule::Progress, || {
                format!("the end was not carried to {}", before.id)
            }),
            Event::Close(ending) => self.judge_left(its, ending, before, &other),
            _ => Ok(()),
        }
    }

    /// One side is over: who is left with nobody goes as soon as what it is owed has left.
    fn judge_left(
        &self,
        its: &mut Side,
        ending: &Ending,
        before: &Before,
        other: &Socket<'_>,
    ) -> Result<(), Violation> {
        let state = before.state;
        let has_said_all = state.is_final() || (state.is_connected() && !state.can_read());
        if its.destroy_called || state.is_final() || its.had_error || (ending.is_clean() && has_said_all) {
            return Ok(());
        }
        if ending.is_clean() && before.end_called {
            return must(its.discards, Rule::Progress, || format!("{} is left, and still reads", before.id));
        }
        if state == State::Broken {
            // Its own error is due, as soon as what it has brought is read.
            return must(its.discards && !its.is_paused, Rule::Progress, || {
                format!("{} is left, and dead, and not read", before.id)
            });
        }
        let is_owed = other.queued_bytes() > 0 || before.end_called;
        must(is_owed, Rule::Progress, || format!("{} is left with nothing, and lives", before.id))?;
        must(!its.is_paused, Rule::Progress, || format!("{} is left, and held back for nobody", before.id))?;
        if state.is_connected() {
            its.deadline = Some(self.now() + DOOMED);
        }
        Ok(())
    }

    /// Notes what has become of a proxy's socket between two events: nothing, unless its listener
    /// stops.
    pub(super) fn look_before(&mut self, side: &mut Side, socket: &Socket<'_>) -> Result<(), Violation> {
        let had_ended = side.end_called;
        // The end of a stop counts from its FIN.
        stop::note(side, socket, &self.truth(side), self.clock(side.host))?;
        self.observe(side, socket);
        let well = !side.end_called || had_ended || side.stop.is_some();
        must(well, Rule::HonestClose, || format!("{socket:?} is ended, and nobody has ended it"))
    }

    /// Notes what was done to a socket by somebody else than its side.
    pub(super) fn observe(&mut self, side: &mut Side, socket: &Socket<'_>) {
        for what in side.observe(socket, self.now()) {
            self.note_line(side.label(), format!("  {what}"));
        }
    }
}

impl Run {
    /// Nothing was done to a proxy's sockets between two events, and none waits for room where
    /// there is room.
    pub(super) fn audit_pipes(&mut self) -> Result<(), Violation> {
        for place in 0..self.book.sides.len() {
            let side = &self.book.sides[place];
            let Some(reactor) = self.reactors[side.host as usize].as_mut().filter(|_| side.program == Program::Piped)
            else {
                continue;
            };
            let Some(socket) = reactor.socket(side.id) else { continue };
            look_after(&mut self.book, place, &socket)?;
            let side = &self.book.sides[place];
            let (host, sink) = (side.host, self.book.pipes.sink_of(side.id).filter(|_| side.is_paused));
            let Some(sink) = sink.and_then(|id| reactor.socket(id)) else { continue };
            let (truth, clock) = (self.book.network.truth(host, sink.id().index()), self.book.clock(host));
            let has_room = sink.state().can_send() && !sink.end_called() && sink.queued_bytes() == 0;
            let is_stuck = has_room && clock.now > truth.sent_at.max(truth.failed_at) + clock.late;
            must(!is_stuck, Rule::Progress, || format!("{} waits for {sink:?}, which has room", side.id))?;
        }
        Ok(())
    }
}

fn look_after(book: &mut Book, place: usize, socket: &Socket<'_>) -> Result<(), Violation> {
    let mut side = book.sides.swap_remove(place);
    let seen = book.look_before(&mut side, socket);
    book.sides.push(side);
    let last = book.sides.len() - 1;
    book.sides.swap(place, last);
    seen
}

/// A pipe whose ends say nothing more is over soon: what a silence means is the proxy's to say.
pub(super) fn call(side: &mut Side, socket: &mut Socket<'_>, now: u64) {
    if side.stop.is_some() {
        // Its silences are told no more.
        return side.destroy(socket);
    }
    socket.set_idle_timeout(Duration::from_secs(1));
    (side.silent_from, side.told_silence) = (now, None);
}
