//! What is known of one socket from outside, and what must follow from it.

use std::net::SocketAddr;

use finale::check::EventGrammar;
use finale::lifecycle::State;
use finale::{
    Backpressure, CloseMode, ConnectionErrorKind, Ending, EndingKind, Error, Event, InvalidOption, PeerEnd, Socket,
    SocketId, TimeoutKind,
};

use super::Verdict;
use super::op::{Call, Setting};

/// The options of a socket, as far as they can be observed.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    high_water: usize,
    limit: usize,
    close: CloseMode,
    half_open: bool,
    notify_peer_ended: bool,
    paused: bool,
    has_idle: bool,
    has_half_closed: bool,
    has_linger: bool,
    has_connect: bool,
    bad: Option<InvalidOption>,
}

impl Rules {
    pub(crate) fn of(settings: &[Setting], is_client: bool) -> Self {
        let mut rules = Self {
            high_water: 128 * 1024,
            limit: 16 * 1024 * 1024,
            close: CloseMode::Confirmed,
            half_open: true,
            notify_peer_ended: false,
            paused: false,
            has_idle: false,
            has_half_closed: true,
            has_linger: true,
            has_connect: true,
            bad: None,
        };
        let mut system = [None; 4];
        for &setting in settings {
            rules.take(setting, &mut system);
        }
        rules.bad = system.into_iter().flatten().next();
        if rules.high_water == 0 || rules.high_water > rules.limit {
            rules.bad = rules.bad.or(Some(InvalidOption::HighWaterMark));
        }
        rules.has_connect |= !is_client;
        rules
    }

    fn take(&mut self, setting: Setting, system: &mut [Option<InvalidOption>; 4]) {
        let bad_buffer = |bytes: usize| (bytes == 0 || bytes > 1 << 30).then_some(InvalidOption::BufferSize);
        match setting {
            // Times that milliseconds can't represent count as none.
            Setting::Idle(limit) => self.has_idle = limit.is_some_and(|limit| limit.as_secs() < u64::MAX / 1000),
            Setting::HalfClosed(limit) => {
                self.has_half_closed = limit.is_some_and(|limit| limit.as_secs() < u64::MAX / 1000);
            }
            Setting::Linger(limit) => self.has_linger = limit.is_some_and(|limit| limit.as_secs() < u64::MAX / 1000),
            Setting::ConnectTimeout(limit) => {
                self.has_connect = limit.is_some_and(|limit| limit.as_secs() < u64::MAX / 1000);
            }
            Setting::HighWater(bytes) => self.high_water = bytes,
            Setting::WriteLimit(bytes) => self.limit = bytes,
            Setting::Close(close) => self.close = close,
            Setting::HalfOpen(on) => self.half_open = on,
            Setting::EarlyNotice(on) => self.notify_peer_ended = on,
            Setting::Paused(on) => self.paused = on,
            Setting::KeepAlive(times) => system[0] = bad_times(&times),
            Setting::UserTimeout(limit) => {
                let in_range = limit.as_nanos() > 0 && limit.as_nanos().div_ceil(1_000_000) <= i32::MAX as u128;
                system[1] = (!in_range).then_some(InvalidOption::UserTimeout);
            }
            Setting::SendBuffer(bytes) => system[2] = bad_buffer(bytes),
            Setting::ReceiveBuffer(bytes) => system[3] = bad_buffer(bytes),
            Setting::Nodelay(_)
            | Setting::Backlog(_)
            | Setting::ReusePort(_)
            | Setting::Ipv6Only(_)
            | Setting::LocalAddr(_) => {}
        }
    }

    pub(crate) fn refusal(&self) -> Option<Error> {
        self.bad.map(Error::InvalidOption)
    }
}

fn bad_times(times: &finale::KeepAlive) -> Option<InvalidOption> {
    if times.idle.as_nanos() > 32_767_000_000_000 || times.interval.as_nanos() > 32_767_000_000_000 {
        return Some(InvalidOption::KeepAliveTime);
    }
    (!(1..=127).contains(&times.count)).then_some(InvalidOption::KeepAliveCount)
}

/// The byte at one position of what one side sends.
fn byte(from_client: bool, at: u64) -> u8 {
    (at.wrapping_mul(31) ^ (at >> 8)) as u8 ^ u8::from(from_client)
}

pub(crate) fn bytes(from_client: bool, from: u64, count: usize) -> Vec<u8> {
    (from..from + count as u64).map(|at| byte(from_client, at)).collect()
}

/// One socket, seen from outside.
#[derive(Debug)]
pub(crate) struct Known {
    life: EventGrammar,
    rules: Rules,
    is_client: bool,
    /// Bytes that `write` took, and bytes that were delivered as `data`.
    pub(crate) written: u64,
    read: u64,
    discards: bool,
    ended: bool,
    destroyed: bool,
    failed: bool,
    owes_drain: bool,
    owes_ready: bool,
    pub(crate) closed: bool,
}

impl Known {
    pub(crate) fn new(socket: &Socket<'_>, rules: Rules) -> Result<Self, String> {
        let is_client = socket.listener().is_none();
        check(socket.is_paused() == rules.paused, "the option says whether it begins paused")?;
        Ok(Self {
            life: EventGrammar::new(socket),
            rules,
            is_client,
            written: 0,
            read: 0,
            discards: false,
            ended: false,
            destroyed: false,
            failed: false,
            owes_drain: false,
            owes_ready: false,
            closed: false,
        })
    }

    pub(crate) const fn may_be_half_open(&self) -> bool {
        self.rules.half_open
    }

    /// Checks an event of this socket.
    pub(crate) fn told(&mut self, socket: &Socket<'_>, event: &Event<'_>) -> Verdict {
        self.life.check(socket, event)?;
        let owed_ready = std::mem::replace(&mut self.owes_ready, matches!(event, Event::Connect));
        if self.destroyed {
            let fits = matches!(event, Event::Close(_)) || (owed_ready && matches!(event, Event::Ready));
            check(fits, "after destroy nothing comes but close")?;
        }
        match event {
            Event::Data(data) => {
                check(!self.discards, "no data after discard")?;
                let same = *data == bytes(!self.is_client, self.read, data.len());
                check(same, "the bytes are not what the peer sent")?;
                self.read += data.len() as u64;
                check(socket.bytes_read() == self.read, "bytes_read counts what was delivered")
            }
            Event::Drain => {
                check(std::mem::take(&mut self.owes_drain), "a drain that was not pending")?;
                check(!self.ended, "no drain after end")
            }
            Event::Timeout => check(self.rules.has_idle, "no timeout without an idle time"),
            Event::PeerEnded(PeerEnd::Fin) => check(self.rules.notify_peer_ended, "the early notice is opt-in"),
            Event::PeerEnded(PeerEnd::Reset) => {
                check(self.rules.notify_peer_ended || socket.is_paused(), "a reset comes unasked only during a pause")
            }
            Event::End => {
                // Without half-open our side ends by itself after the event was handled.
                self.owes_drain &= self.rules.half_open;
                Ok(())
            }
            Event::Error(_) => {
                self.failed = true;
                Ok(())
            }
            Event::Close(ending) => self.over(socket, ending),
            _ => Ok(()),
        }
    }

    fn over(&mut self, socket: &Socket<'_>, ending: &Ending) -> Verdict {
        self.closed = true;
        let holds = [
            (ending.bytes_written + ending.bytes_unsent == self.written, "what was written was sent or not"),
            (self.discards || ending.bytes_read == self.read, "what was read was delivered"),
            (ending.bytes_written == socket.bytes_written(), "the socket and its report agree"),
            (ending.peer == socket.peer_addr(), "the socket and its report agree on the peer"),
            (self.destroyed == (ending.kind == EndingKind::Destroyed), "destroyed means destroyed"),
            ((ending.kind == EndingKind::HandedOff) <= (self.rules.close == CloseMode::HandOff), "handed off unasked"),
            ((ending.kind == EndingKind::Confirmed) <= (self.rules.close == CloseMode::Confirmed), "confirmed unasked"),
            (!ending.is_clean() || socket.end_called(), "clean, and our side has not ended"),
        ];
        if let Some((_, wrong)) = holds.iter().find(|(fits, _)| !fits) {
            return Err(format!("{wrong}: {ending:?}"));
        }
        let EndingKind::Failed(failure) = &ending.kind else { return Ok(()) };
        match failure.kind {
            ConnectionErrorKind::TimedOut(TimeoutKind::Connect) => check(self.is_client, "a server never connects"),
            ConnectionErrorKind::TimedOut(TimeoutKind::HalfClosed) => {
                check(self.rules.has_half_closed, "a limit that is off")
            }
            ConnectionErrorKind::TimedOut(TimeoutKind::Close) => {
                let ends = socket.end_called() && self.rules.has_linger;
                check(ends, "a linger time that is off, or not begun")
            }
            _ => Ok(()),
        }
    }

    /// Makes a call on the socket, and checks the result and that nothing else has changed.
    pub(crate) fn ask(&mut self, socket: &mut Socket<'_>, call: &Call) -> Result<String, String> {
        let living = self.is_living(socket);
        let before = Look::at(socket);
        let answer = match call {
            Call::Look | Call::Get(..) => format!("{before:?}"),
            Call::Write(count) => self.write(socket, *count, living, false)?,
            Call::WriteOwned(count) => self.write(socket, *count, living, true)?,
            Call::WriteAndEnd(count) => {
                let answer = self.write(socket, *count, living, false)?;
                self.end(socket, living)?;
                check(Look::at(socket).unmoved(&before), "a call moves nothing")?;
                return Ok(answer);
            }
            Call::End => self.end(socket, living)?,
            Call::Pause => {
                socket.pause();
                check(socket.is_paused() == (living || before.is_paused), "pause")?;
                String::new()
            }
            Call::Resume => {
                socket.resume();
                check(socket.is_paused() == (!living && before.is_paused), "resume")?;
                String::new()
            }
            Call::Discard => {
                socket.discard();
                self.discards |= living;
                check(socket.is_paused() == (!living && before.is_paused), "discard reads on")?;
                String::new()
            }
            Call::Destroy => {
                socket.destroy();
                self.destroyed |= living;
                String::new()
            }
            Call::SetTimeout(idle) => {
                socket.set_idle_timeout(*idle);
                if living {
                    self.rules.take(Setting::Idle(*idle), &mut [None; 4]);
                }
                String::new()
            }
            Call::SetClose(close) => {
                socket.set_close_mode(*close);
                if living {
                    self.rules.close = *close;
                }
                String::new()
            }
            Call::SetNodelay(on) => {
                socket.set_nodelay(*on);
                String::new()
            }
            Call::SetKeepAlive(times) => keep_alive(socket, *times, living)?,
        };
        check(socket.destroy_called() == self.destroyed, "destroyed by a call, and by nothing else")?;
        check(Look::at(socket).unmoved(&before), "a call moves nothing")?;
        Ok(answer)
    }

    /// Whether calls can still have an effect. A failure that was not delivered yet is in the
    /// caller's future.
    fn is_living(&self, socket: &Socket<'_>) -> bool {
        let failing = [State::ResetByPeer, State::TimedOut, State::NotConnected].contains(&socket.state());
        !self.destroyed && if failing { !self.failed } else { !socket.state().is_final() }
    }

    fn end(&mut self, socket: &mut Socket<'_>, living: bool) -> Result<String, String> {
        let had_ended = socket.end_called();
        socket.end();
        check(socket.end_called() == (had_ended || living), "end")?;
        self.ended |= living;
        Ok(String::new())
    }

    fn write(&mut self, socket: &mut Socket<'_>, count: usize, living: bool, owned: bool) -> Result<String, String> {
        let queued = socket.queued_bytes();
        let expected = if socket.end_called() {
            Err(Error::WriteAfterEnd)
        } else if !living {
            Err(Error::Gone)
        } else if socket.state() == State::Broken {
            Ok(Backpressure::Room)
        } else if queued >= self.rules.limit && count > 0 {
            Err(Error::QueueFull { queued_bytes: queued, limit_bytes: self.rules.limit })
        } else if queued + count >= self.rules.high_water {
            Ok(Backpressure::Full)
        } else {
            Ok(Backpressure::Room)
        };
        let bytes = bytes(self.is_client, self.written, count);
        let answer = if owned { socket.write_owned(bytes) } else { socket.write(&bytes) };
        if answer != expected {
            return Err(format!("write answered {answer:?} in place of {expected:?}"));
        }
        let taken = if answer.is_ok() { count } else { 0 };
        // Nothing is sent on a broken connection: what is written to it counts as unsent.
        let waits = if socket.state() == State::Broken { 0 } else { queued + taken };
        check(socket.queued_bytes() == waits, "the queue has what was taken")?;
        self.written += taken as u64;
        self.owes_drain |= answer == Ok(Backpressure::Full) && count > 0;
        Ok(format!("{answer:?}"))
    }
}

fn keep_alive(socket: &mut Socket<'_>, times: Option<finale::KeepAlive>, living: bool) -> Result<String, String> {
    let expected = match times.as_ref().and_then(bad_times) {
        Some(bad) => Err(Error::InvalidOption(bad)),
        None if !living => Err(Error::Gone),
        None => Ok(()),
    };
    let answer = socket.set_keep_alive(times);
    check(answer == expected, &format!("set_keep_alive answered {answer:?} in place of {expected:?}"))?;
    Ok(format!("{answer:?}"))
}

/// The view of a placeholder: every call is refused or has no effect.
pub(crate) fn stands_for_none(socket: &mut Socket<'_>) -> Verdict {
    let id = socket.id();
    socket.end();
    socket.destroy();
    socket.pause();
    socket.discard();
    socket.set_idle_timeout(None);
    socket.set_close_mode(CloseMode::HandOff);
    socket.set_nodelay(true);
    socket.set_farewell(true);
    socket.postpone_farewell();
    socket.set_answered();
    socket.set_deadline(None);
    socket.set_allow_half_open(true);
    socket.set_low_water_mark(1);
    socket.set_write_limit(1);
    socket.set_peer_finished();
    socket.discard_late();
    socket.splice_next();
    check(socket.write(b"x") == Err(Error::Gone), "a placeholder refuses a write")?;
    check(socket.fill(Vec::new(), 1).is_err() && socket.take_filled().is_none(), "a placeholder fills no buffer")?;
    check(socket.forward(id) == Err(Error::Gone) && !socket.request_drain(), "a placeholder passes on nothing")?;
    let limits = (socket.high_water_mark(), socket.write_limit());
    check(limits == (0, 0), "a placeholder has no limits")?;
    let facts = [socket.is_filling(), socket.has_unread(), socket.is_discarding(), socket.is_overflow()];
    let settings = [socket.allows_half_open(), socket.is_farewell_due(), socket.is_unix(), socket.peer_ended()];
    check(facts == [false; 4] && settings == [false; 4], "nothing is the case for a placeholder")?;
    check(socket.set_keep_alive(None) == Err(Error::Gone), "a placeholder has no keep-alive")?;
    check(socket.get(id).is_none() && !socket.end_called() && !socket.is_paused(), "a placeholder has no socket")?;
    check(Look::at(socket).queued_bytes == 0 && socket.peer_addr().is_none(), "a placeholder has no peer")
}

/// What a socket reports about itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Look {
    id: SocketId,
    state: State,
    peer: Option<SocketAddr>,
    bytes_read: u64,
    bytes_written: u64,
    queued_bytes: usize,
    is_paused: bool,
    end_called: bool,
    peer_ended: bool,
}

impl Look {
    pub(crate) fn at(socket: &Socket<'_>) -> Self {
        Self {
            id: socket.id(),
            state: socket.state(),
            peer: socket.peer_addr(),
            bytes_read: socket.bytes_read(),
            bytes_written: socket.bytes_written(),
            queued_bytes: socket.queued_bytes(),
            is_paused: socket.is_paused(),
            end_called: socket.end_called(),
            peer_ended: socket.peer_ended(),
        }
    }

    /// Calls between two events send nothing, so none of this moves.
    fn unmoved(&self, before: &Self) -> bool {
        let key = |look: &Self| (look.id, look.state, look.peer, look.bytes_read, look.bytes_written);
        key(self) == key(before) && self.peer_ended == before.peer_ended
    }
}

pub(crate) fn check(holds: bool, wrong: &str) -> Verdict {
    if holds { Ok(()) } else { Err(wrong.to_owned()) }
}
