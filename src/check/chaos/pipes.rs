//! Drives and checks the sockets of a proxy.
//!
//! Invariant: the proxy does nothing to its sockets except what [`Pipes`](crate::Pipes) does, and
//! destroys some that are idle.

use std::time::Duration;

use super::run::Run;
use super::run_state::RunState;
use super::socket_model::{Command, Driver, SocketModel};
use super::stop;
use crate::check::{Rule, Violation, must};
use crate::event::{Ending, Event};
use crate::id::SocketId;
use crate::lifecycle::State;
use crate::socket::Socket;

/// The queue of a socket whose source is closed must be sent within this time, in nanoseconds.
const FLUSH_LIMIT: u64 = 30_000_000_000;

/// The sink of a pipe, before the pipe handles an event of its source.
struct SinkBefore {
    id: SocketId,
    state: State,
    end_called: bool,
    queued: usize,
    /// Whether a write to it is queued.
    accepts_writes: bool,
}

impl SinkBefore {
    fn of(other: &Socket<'_>, had_error: bool) -> Self {
        let state = other.state();
        // Until its error is delivered, a broken socket takes writes.
        let accepts_writes = !other.destroy_called() && !other.end_called() && !had_error;
        Self { id: other.id(), state, end_called: other.end_called(), queued: other.queued_bytes(), accepts_writes }
    }
}

/// How many bytes of the peer an event brings.
const fn bytes_in(event: &Event<'_>) -> Option<usize> {
    match event {
        Event::Data(bytes) => Some(bytes.len()),
        Event::Spliced(count) => Some(*count),
        _ => None,
    }
}

impl RunState {
    /// What the proxy does in one event of one of its sockets.
    pub(super) fn piped(
        &mut self,
        model: &mut SocketModel,
        socket: &mut Socket<'_>,
        event: &Event<'_>,
    ) -> Result<Command, Violation> {
        self.note_line(model.label(), event.to_string());
        let other = self.pipes.sink_of(model.id);
        let index = other.and_then(|id| self.models.iter().position(|sink| sink.host == model.host && sink.id == id));
        let mut before = None;
        if let (Some(index), Some(other)) = (index, other.and_then(|id| socket.get(id))) {
            let mut sink = self.models.swap_remove(index);
            before = Some(SinkBefore::of(&other, sink.had_error));
            let seen = self.check_between_events(&mut sink, &other);
            self.models.push(sink);
            seen?;
        }
        let is_passed_on = self.pipes.handle(socket, event);
        must(is_passed_on || bytes_in(event).is_none(), Rule::Bytes, || "data, and no pipe took them".to_owned())?;
        if let Some(bytes) = socket.spliced() {
            // The sink takes nothing any more: they are delivered once more, as data.
            model.unspliced = bytes.len() as u64;
        }
        self.observe(model, socket);
        model.note_automatic_end(socket, event, self.now());
        if let (Some(mut sink), Some(before)) = (before.as_ref().and_then(|_| self.models.pop()), before) {
            let checked = self.check_sink(model, socket, event, &mut sink, &before);
            self.models.push(sink);
            checked?;
        }
        match event {
            Event::Timeout if self.end_requested || self.rng.chance(0.5) => model.destroy(socket),
            Event::Connection if self.end_requested => model.destroy(socket),
            Event::Connection => return Ok(Command::ConnectBackend),
            _ => {}
        }
        Ok(Command::Nothing)
    }

    /// Checks what the pipe has done to the sink: passed on what came, and nothing else.
    fn check_sink(
        &mut self,
        model: &mut SocketModel,
        socket: &mut Socket<'_>,
        event: &Event<'_>,
        sink: &mut SocketModel,
        before: &SinkBefore,
    ) -> Result<(), Violation> {
        let Some(other) = socket.get(before.id) else { return Ok(()) };
        let had_ended = sink.end_called;
        if let Some(count) = bytes_in(event)
            && before.accepts_writes
        {
            sink.written += count as u64;
            sink.queued_from = if before.queued == 0 { self.now() } else { sink.queued_from };
        }
        self.observe(sink, &other);
        let end_called = sink.end_called && !had_ended;
        must(!end_called || matches!(event, Event::End), Rule::HonestClose, || {
            format!("{event}, and the pipe has ended {}", before.id)
        })?;
        match event {
            Event::Data(_) | Event::Spliced(_) if before.accepts_writes && !other.state().is_final() => {
                let queued = other.queued_bytes();
                let count = other.bytes_written() + queued as u64;
                // The queue of a broken socket is freed. Its ending says how much that was.
                let is_all = count == sink.written || (other.state() == State::Broken && count < sink.written);
                must(is_all && sink.written == model.read, Rule::Bytes, || {
                    format!("{count} bytes were passed on, of {} that were read", model.read)
                })?;
                let high_water = other.settings().map_or(0, |settings| settings.high_water_bytes);
                must(queued < high_water || model.is_paused, Rule::Progress, || {
                    format!(
                        "{queued} bytes wait, above a high-water mark of {high_water}, and the source is not paused"
                    )
                })
            }
            Event::Data(_) | Event::Spliced(_) if before.end_called && !model.destroy_called && !model.discards => {
                // What waits for the source is sent first.
                model.deadline = model.deadline.or(Some(self.now() + FLUSH_LIMIT));
                must(socket.queued_bytes() > 0 && !model.is_paused, Rule::Bytes, || {
                    format!("{} takes no bytes any more, and the data are lost", before.id)
                })
            }
            Event::Data(_) | Event::Spliced(_) => Ok(()),
            // A sink that only had to send what waits is destroyed now, and its source with its `close`.
            Event::Drain => {
                let is_over = sink.destroy_called || sink.had_error || model.destroy_called;
                must(!sink.is_paused || is_over, Rule::Progress, || {
                    format!("there is room, and {} is still paused", before.id)
                })
            }
            Event::End => {
                must(!before.accepts_writes || sink.end_called || sink.destroy_called, Rule::Progress, || {
                    format!("the end was not passed on to {}", before.id)
                })
            }
            Event::Close(ending) => self.check_sink_after_close(sink, ending, before, &other),
            _ => Ok(()),
        }
    }

    /// The source is closed: the sink ends as soon as its queue is sent.
    fn check_sink_after_close(
        &self,
        sink: &mut SocketModel,
        ending: &Ending,
        before: &SinkBefore,
        other: &Socket<'_>,
    ) -> Result<(), Violation> {
        let state = before.state;
        let sends_no_more = state.is_final() || (state.is_connected() && !state.can_read());
        if sink.destroy_called || state.is_final() || sink.had_error || (ending.is_clean() && sends_no_more) {
            return Ok(());
        }
        if ending.is_clean() && before.end_called {
            return must(sink.discards, Rule::Progress, || format!("{} lost its source, and still reads", before.id));
        }
        if state == State::Broken {
            // Its own error is due as soon as its unread bytes are read.
            return must(sink.discards && !sink.is_paused, Rule::Progress, || {
                format!("{} lost its source and is broken, and is not read", before.id)
            });
        }
        // It counts from the first bytes that came after the end of the other side. Its drain may be
        // pending.
        let since_data = sink.deadline.filter(|_| ending.is_clean());
        let has_pending = other.queued_bytes() > 0 || before.end_called || since_data.is_some();
        must(has_pending, Rule::Progress, || {
            format!("{} lost its source and has an empty queue, and is not closed", before.id)
        })?;
        must(!sink.is_paused, Rule::Progress, || format!("{} lost its source, and is still paused", before.id))?;
        if state.is_connected() {
            sink.deadline = since_data.or(Some(self.now() + FLUSH_LIMIT));
        }
        Ok(())
    }

    /// Notes what happened to a proxy's socket between two events: nothing, unless its listener
    /// stops.
    pub(super) fn check_between_events(
        &mut self,
        model: &mut SocketModel,
        socket: &Socket<'_>,
    ) -> Result<(), Violation> {
        let had_ended = model.end_called;
        // The ending timeout of a stop counts from the FIN.
        stop::update(model, socket, &self.truth(model), self.clock(model.host))?;
        self.observe(model, socket);
        let well = !model.end_called || had_ended || model.stop.is_some();
        must(well, Rule::HonestClose, || format!("{socket:?} was ended without a call of end"))
    }

    /// Notes what the run did not do to a socket itself.
    pub(super) fn observe(&mut self, model: &mut SocketModel, socket: &Socket<'_>) {
        for what in model.observe(socket, self.done_at(model)) {
            self.note_line(model.label(), format!("  {what}"));
        }
    }
}

impl Run {
    /// Nothing was done to a proxy's sockets between two events, and none is paused while its sink
    /// has room.
    pub(super) fn audit_pipes(&mut self) -> Result<(), Violation> {
        for index in 0..self.state.models.len() {
            let model = &self.state.models[index];
            let Some(reactor) = self.reactors[model.host as usize].as_mut().filter(|_| model.driver == Driver::Piped)
            else {
                continue;
            };
            let Some(socket) = reactor.socket(model.id) else { continue };
            check_piped(&mut self.state, index, &socket)?;
            let model = &self.state.models[index];
            let (host, sink) =
                (model.host, self.state.pipes.sink_of(model.id).filter(|_| model.is_paused && !model.had_error));
            let Some(sink) = sink.and_then(|id| reactor.socket(id)) else { continue };
            let (truth, clock) = (self.state.network.truth(host, sink.id().index()), self.state.clock(host));
            let has_room = sink.state().can_send() && !sink.end_called() && sink.queued_bytes() == 0;
            let is_stuck = has_room && clock.now > truth.sent_at.max(truth.failed_at) + clock.late;
            must(!is_stuck, Rule::Progress, || format!("{} waits for {sink:?}, which has room", model.id))?;
        }
        Ok(())
    }
}

fn check_piped(state: &mut RunState, index: usize, socket: &Socket<'_>) -> Result<(), Violation> {
    let mut model = state.models.swap_remove(index);
    let seen = state.check_between_events(&mut model, socket);
    state.models.push(model);
    let last = state.models.len() - 1;
    state.models.swap(index, last);
    seen
}

/// From now on a pipe without traffic ends soon: its `timeout` destroys it.
pub(super) fn end_when_idle(model: &mut SocketModel, socket: &mut Socket<'_>, now: u64) {
    if model.stop.is_some() {
        // A stopping listener delivers no `timeout`.
        return model.destroy(socket);
    }
    socket.set_idle_timeout(Duration::from_secs(1));
    (model.idle_from, model.reported_idle) = (now, None);
}
