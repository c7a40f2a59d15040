//! What can happen in a composed state: the callers, the reactors, the timers, the wires and the
//! faults, one step each.
//!
//! Invariant: a condition here is about kernels and callers ("bytes are unread", "the caller has
//! ended") and, where the reactor decides by state, uses the methods of [`State`]. Only the table
//! decides where a step leads.

use finale::lifecycle::{Cell, Emits, Input, State};

use crate::world::*;

/// The actor of a step. The two sides' steps of one kind follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Actor {
    /// The program runs: what its reactor does then.
    Reactor = 0,
    /// The caller writes or ends.
    Caller = 2,
    /// The caller destroys, or a listener is closed.
    Destroyer = 4,
    /// A timer of finale.
    Timer = 6,
    /// A packet of this side arrives.
    Wire = 8,
    /// The kernel gives up by itself: retransmissions, keep-alive, a lost route.
    Fault = 10,
}

/// One kind of step of one side, as a bit.
pub(crate) const fn bit(actor: Actor, side: usize) -> u16 {
    1 << (actor as u16 + side as u16)
}

/// One kind of step of both sides.
pub(crate) const fn both(actor: Actor) -> u16 {
    bit(actor, 0) | bit(actor, 1)
}

/// A step: its actor, its side, its input, and the state that it leads to.
pub(crate) struct Move {
    pub(crate) actor: Actor,
    pub(crate) side: usize,
    /// The input given to the table, if it was one.
    pub(crate) input: Option<Input>,
    pub(crate) to: Composed,
}

pub(crate) type Table = dyn Fn(State, Input) -> Cell;

/// A promise that is broken.
#[derive(Debug)]
pub(crate) struct Violation(pub(crate) String);

/// Collects the steps that leave one composed state.
pub(crate) struct Moves<'a> {
    pub(crate) from: Composed,
    pub(crate) table: &'a Table,
    /// Cells of the table that were taken.
    pub(crate) taken: &'a mut [[bool; Input::ALL.len()]; State::ALL.len()],
    pub(crate) found: Vec<Move>,
    pub(crate) broken: Option<Violation>,
}

impl Moves<'_> {
    pub(crate) fn collect(&mut self) {
        for side in [CLIENT, SERVER] {
            self.wire(side);
            let it = self.from.sides[side];
            match it.state {
                State::Created if side == SERVER => self.accept(),
                State::Created | State::Resolving => self.begin(it.state),
                State::Connecting => self.connect(),
                state if state.is_connected() => {
                    self.read(side);
                    self.write(side);
                    self.finish(side);
                    self.watch(side);
                }
                State::Closed => {}
                _ => self.give(Actor::Reactor, side, Input::CloseDue, |_| {}),
            }
            self.call(side);
        }
    }

    /// A step without an input.
    fn step(&mut self, actor: Actor, side: usize, change: impl FnOnce(&mut Composed)) {
        let mut to = self.from;
        change(&mut to);
        self.found.push(Move { actor, side, input: None, to });
    }

    /// A step that gives an input to the table. `change` is what else happens, before the state
    /// changes.
    fn give(&mut self, actor: Actor, side: usize, input: Input, change: impl FnOnce(&mut Composed)) {
        let mut to = self.from;
        change(&mut to);
        let it = &mut to.sides[side];
        match (self.table)(it.state, input) {
            Cell::Go(next, emits) => {
                self.taken[it.state as usize][input as usize] = true;
                it.state = next;
                let wrong = emits.iter().find_map(|emits| it.emit(side, *emits).err());
                let wrong = wrong.or_else(|| dishonest(&to, side, input).map(str::to_owned));
                let it = &mut to.sides[side];
                it.forget_what_no_longer_matters();
                if let Some(wrong) = wrong {
                    self.broken.get_or_insert(Violation(format!(
                        "{} × {input:?}: {wrong}",
                        self.from.sides[side].state.name()
                    )));
                }
            }
            Cell::Deferred | Cell::Ignored => {}
            Cell::Impossible => {
                let state = it.state.name();
                self.broken.get_or_insert(Violation(format!(
                    "{state} × {input:?} can occur, and the table calls it impossible"
                )));
            }
        }
        self.found.push(Move { actor, side, input: Some(input), to });
    }

    // --- the network ---

    fn wire(&mut self, side: usize) {
        if self.from.clone().deliver(side) {
            self.step(Actor::Wire, side, |to| {
                to.deliver(side);
            });
        }
        if side == CLIENT && self.from.wires[CLIENT].has(Packet::Syn) {
            self.step(Actor::Wire, CLIENT, |to| {
                to.refuse();
            });
        }
        if matches!(self.from.sides[side].kernel, Kernel::SynSent | Kernel::Open) && !self.from.sides[side].is_done() {
            self.step(Actor::Fault, side, |to| to.sides[side].die());
        }
    }

    // --- before the connection ---

    fn begin(&mut self, state: State) {
        if state == State::Created {
            self.give(Actor::Reactor, CLIENT, Input::LookupStarted, |_| {});
        } else {
            self.give(Actor::Reactor, CLIENT, Input::LookupFailed, |to| to.reset(CLIENT));
        }
        self.give(Actor::Reactor, CLIENT, Input::Resolved, |_| {});
        self.give(Actor::Timer, CLIENT, Input::Expired, |to| to.reset(CLIENT));
    }

    /// The first address never answers or is refused; the second is the server's.
    fn connect(&mut self) {
        let it = self.from.sides[CLIENT];
        match it.kernel {
            Kernel::Idle if !it.has(SECOND) => {
                self.give(Actor::Reactor, CLIENT, Input::NextAddress, |to| to.sides[CLIENT].set(SECOND));
                self.give(Actor::Timer, CLIENT, Input::NextAddress, |to| to.sides[CLIENT].set(SECOND));
            }
            Kernel::Idle => {
                self.step(Actor::Reactor, CLIENT, |to| {
                    to.sides[CLIENT].kernel = Kernel::SynSent;
                    to.wires[CLIENT].push(Packet::Syn);
                });
                // connect(2) itself may fail.
                self.give(Actor::Reactor, CLIENT, Input::NextAddress, |to| to.reset(CLIENT));
            }
            Kernel::Open => self.give(Actor::Reactor, CLIENT, Input::Established, |_| {}),
            Kernel::Dead => self.give(Actor::Reactor, CLIENT, Input::NextAddress, |to| to.reset(CLIENT)),
            // No address is left; the first failure determines which of these inputs it is.
            Kernel::Gone => {
                self.give(Actor::Reactor, CLIENT, Input::ConnectFailed, |_| {});
                self.give(Actor::Reactor, CLIENT, Input::Reset, |_| {});
            }
            Kernel::SynSent | Kernel::SynReceived | Kernel::Orphan => {}
        }
        self.give(Actor::Timer, CLIENT, Input::Expired, |to| to.reset(CLIENT));
    }

    /// A connection that died in the queue is accepted like any other.
    fn accept(&mut self) {
        let it = self.from.sides[SERVER];
        if matches!(it.kernel, Kernel::Open | Kernel::Dead) {
            self.give(Actor::Reactor, SERVER, Input::Accepted, |_| {});
        }
        if matches!(it.kernel, Kernel::SynReceived | Kernel::Open | Kernel::Dead) {
            self.step(Actor::Destroyer, SERVER, |to| to.reset(SERVER));
        }
    }

    // --- an established connection ---

    /// Bytes first; then the FIN, which hides an error after it; then the error. It may be noticed
    /// before, by a flag or by a failed write: then it is delivered when nothing is left to read.
    fn read(&mut self, side: usize) {
        let it = self.from.sides[side];
        let is_broken = it.state == State::Broken;
        if it.state == State::Lingering && it.has(UNREAD) {
            self.step(Actor::Reactor, side, |to| to.sides[side].clear(UNREAD));
        } else if it.state.can_read() && it.has(UNREAD) {
            self.give(Actor::Reactor, side, Input::Data, |to| to.sides[side].clear(UNREAD | IDLE_TOLD));
        } else if it.state.can_read() && it.has(FIN_IN) && !is_broken {
            self.give(Actor::Reactor, side, Input::Fin, |to| to.sides[side].clear(IDLE_TOLD | NOTICED));
        } else if it.has(ERROR) || is_broken {
            self.give(Actor::Reactor, side, Input::Reset, |to| to.reset(side));
        }
        if it.has(ERROR) && it.state.can_read() && !is_broken {
            self.give(Actor::Reactor, side, Input::ErrorSeen, |to| to.sides[side].clear(ERROR | NOTICED));
        }
        if is_broken && it.has(QUEUED) {
            self.give(Actor::Reactor, side, Input::Drained, |to| to.sides[side].clear(QUEUED));
        }
    }

    fn write(&mut self, side: usize) {
        let it = self.from.sides[side];
        if !it.state.can_send() {
            return;
        }
        if it.has(END) && !it.state.is_flushing() {
            self.give(Actor::Reactor, side, Input::EndCalled, |_| {});
        }
        if it.has(QUEUED) && self.from.has_window(side) {
            self.give(Actor::Reactor, side, Input::Drained, |to| {
                to.sides[side].clear(QUEUED | IDLE_TOLD);
                to.wires[side].push(Packet::Data);
            });
        }
    }

    fn finish(&mut self, side: usize) {
        let it = self.from.sides[side];
        let (hand_off, alive) = (it.has(HAND_OFF), it.kernel == Kernel::Open);
        let flushed = it.state.is_flushing() && !it.has(QUEUED) && alive;
        let both = matches!(it.state, State::LastFlush | State::Closing);
        if hand_off && both && (flushed || it.state == State::Closing) {
            self.give(Actor::Reactor, side, Input::LeftToKernel, |to| to.close(side));
        } else if flushed {
            self.give(Actor::Reactor, side, Input::FinSent, |to| {
                to.sides[side].set(FIN_SENT);
                to.wires[side].push(Packet::Fin);
            });
        } else if it.state == State::Closing && it.is_done() && alive {
            self.give(Actor::Reactor, side, Input::Acknowledged, |to| to.close(side));
        }
    }

    /// The early notice and the timers.
    fn watch(&mut self, side: usize) {
        let it = self.from.sides[side];
        let gone = it.has(FIN_IN) || it.kernel == Kernel::Dead;
        if it.state.can_read() && gone && !it.has(NOTICED) {
            self.give(Actor::Reactor, side, Input::PeerEnded, |to| to.sides[side].set(NOTICED));
        }
        if it.state != State::Closing && !it.has(IDLE_TOLD) {
            self.give(Actor::Timer, side, Input::Idle, |to| to.sides[side].set(IDLE_TOLD));
        }
        // An open connection has no limit while both sides may continue.
        if it.state != State::Open || gone {
            self.give(Actor::Timer, side, Input::Expired, |to| to.reset(side));
        }
    }

    /// The caller may do anything at any time after the socket's first event, or after `connect`.
    fn call(&mut self, side: usize) {
        let it = self.from.sides[side];
        if side == SERVER && it.is_unborn() {
            return;
        }
        let open = !it.state.is_final();
        if open && !it.has(END) && !it.has(QUEUED) {
            self.step(Actor::Caller, side, |to| to.sides[side].set(QUEUED));
        }
        if !it.has(END) {
            self.give(Actor::Caller, side, Input::EndCalled, |to| to.sides[side].set(if open { END } else { 0 }));
        }
        if it.state == State::LocalFinished {
            self.give(Actor::Caller, side, Input::DiscardCalled, |_| {});
        }
        self.give(Actor::Destroyer, side, Input::DestroyCalled, |to| {
            if open {
                to.reset(side);
            }
        });
    }
}

/// What must hold when a socket ends, and when it delivers the peer's end.
fn dishonest(to: &Composed, side: usize, input: Input) -> Option<&'static str> {
    let (it, peer) = (&to.sides[side], &to.sides[1 - side]);
    if it.state == State::Confirmed && !(it.has(FIN_IN) && peer.has(FIN_IN)) {
        return Some("confirmed, and a kernel lacks the other's FIN");
    }
    if it.state == State::Confirmed && to.wires[side].has(Packet::Data) {
        return Some("confirmed, and bytes are still under way");
    }
    if it.state == State::HandedOff && !it.has(FIN_IN) {
        return Some("handed off before the peer had finished");
    }
    if input == Input::Fin && !peer.has(FIN_SENT) {
        return Some("end, and the peer has not finished");
    }
    (it.state.is_final() && !matches!(it.kernel, Kernel::Gone | Kernel::Orphan))
        .then_some("over with an open descriptor")
}

impl Side {
    /// Fewer states to distinguish.
    fn forget_what_no_longer_matters(&mut self) {
        if self.state.is_connected() {
            self.clear(SECOND);
        }
        if self.state != State::Open {
            // That `timeout` is delivered once is remembered while both halves are open; elsewhere
            // it may be repeated.
            self.clear(IDLE_TOLD);
        }
        if self.state.is_final() {
            self.clear(END | SECOND | QUEUED | IDLE_TOLD | NOTICED);
        }
    }

    /// The grammar of events, as an independent judge.
    fn emit(&mut self, side: usize, emits: Emits) -> Result<(), String> {
        let (stage, client) = (self.stage, side == CLIENT);
        let next = match (emits, stage) {
            (Emits::Lookup | Emits::Connect, Stage::Before) if client => Stage::Before,
            (Emits::Ready, Stage::Before) if client => Stage::Flow,
            (Emits::Connection, Stage::Before) if !client => Stage::Flow,
            (Emits::Data | Emits::PeerEnded, Stage::Flow) => Stage::Flow,
            (Emits::Drain | Emits::Timeout, Stage::Flow | Stage::Ended) => stage,
            (Emits::End, Stage::Flow) => Stage::Ended,
            (Emits::Error, Stage::Before | Stage::Flow | Stage::Ended) => Stage::Failed,
            (Emits::Close, Stage::Before | Stage::Flow | Stage::Ended | Stage::Failed) => Stage::Closed,
            _ => return Err(format!("{} after {stage:?} is no word of the language", emits.name())),
        };
        self.stage = next;
        Ok(())
    }
}
