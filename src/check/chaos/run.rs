//! One run, from the first event to the last close.

use std::time::Duration;

use super::limits::{self, Clock};
use super::pipes;
use super::plan::{Disturbance, Kind, Plan};
use super::run_state::{Conversation, FollowUp, OpenListener, RunState, Wakes};
use super::socket_model::{Command, Driver};
use super::stop;
use crate::check::{Rule, Transcript, Violation, must, stuck};
use crate::id::{ListenerId, SocketId, TimerId};
use crate::lifecycle::State;
use crate::options::{OverflowPolicy, StopOptions};
use crate::pipe::Pipes;
use crate::reactor::Reactor;
use crate::sim::{Fault, Faults, Host, Network, Rng};
use crate::trace::Recorder;

/// A run that has not ended after this many events never will.
const EVENTS: u64 = 200_000;
/// From the end of the faults to `end` on all sockets: longer than any limit of a socket.
const END_ALL_AFTER: Duration = Duration::from_secs(60);
/// A run that has not ended by then never will: a peer that reads ten bytes per second reads a
/// megabyte in a day.
const LONGEST: Duration = Duration::from_secs(48 * 60 * 60);
/// Turns of all reactors in a row without an event and without progress of the clock.
const QUIET_TURNS: u32 = 1_000;

/// A timer of the run, and what it is for.
struct Task {
    host: usize,
    id: TimerId,
    due: u64,
    kind: TaskKind,
}

pub(super) enum TaskKind {
    Resume(SocketId),
    /// Room in the full queue of a conversation's server.
    MakeRoom(usize),
    /// A request to the pool of a conversation.
    RequestSocket(usize),
    Disturb(Disturbance),
    /// Checks the limits, in a run whose sockets may deliver no event for long.
    CheckLimits(Duration),
    Heal,
    EndAll,
}

pub(super) struct Run {
    pub(super) reactors: [Option<Reactor<Host>>; 2],
    pub(super) state: RunState,
    tasks: Vec<Task>,
    is_healed: bool,
    turn_of: usize,
}

impl Run {
    pub(super) fn new(seed: u64, preferred: Option<Fault>, is_recorded: bool, recorder: Option<&Recorder>) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng, preferred);
        let network = Network::new(seed);
        network.set_latency(plan.latency);
        network.set_buffers(plan.buffers.0, plan.buffers.1);
        network.set_faults(plan.faults);
        network.set_call_cost(plan.costs.call);
        if plan.few_ports {
            network.set_ports(40_000..=40_001);
        }
        if let Some(recorder) = recorder {
            network.record();
            network.trace(recorder);
        }
        let reactors = super::begin::reactors(&network, &plan);
        // Reads are rarely large enough to be moved in the kernel otherwise.
        let pipes = Pipes::new().allow_unix_sinks(true);
        let state = RunState {
            rng,
            end_requested: false,
            dropped_at: 0,
            plan,
            network,
            conversations: Vec::new(),
            limits: Vec::new(),
            stops: Vec::new(),
            paused: Vec::new(),
            models: Vec::new(),
            pipes: if seed.is_multiple_of(4) { pipes } else { pipes.always_splicing() },
            pool_models: Vec::new(),
            wakes: [Wakes::default(); 2],
            accept_failures: 0,
            shortages: Vec::new(),
            closed_ids: Vec::new(),
            written: Vec::new(),
            events: 0,
            sockets: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            transcript: is_recorded.then(Transcript::new),
        };
        Self { reactors, state, tasks: Vec::new(), is_healed: false, turn_of: 0 }
    }

    /// Begins all conversations, and sets the timers of the run.
    pub(super) fn begin_all(&mut self) {
        for number in 0..self.state.plan.conversations.len() {
            let kind = self.state.plan.conversations[number].clone();
            self.state.conversations.push(Conversation::default());
            self.begin(number, &kind);
        }
        self.set_task(self.state.plan.heal_after, TaskKind::Heal);
        for (after, disturbance) in self.state.plan.disturbances.clone() {
            self.set_task(after, TaskKind::Disturb(disturbance));
        }
        if let Some(flood) = self.state.plan.flood {
            self.set_task(flood / 20, TaskKind::CheckLimits(flood / 20));
        }
    }

    pub(super) fn set_task(&mut self, after: Duration, kind: TaskKind) {
        let due = self.state.now().saturating_add(after.as_nanos() as u64);
        let Some(host) = self.reactors.iter().position(Option::is_some) else { return };
        let Some(reactor) = &mut self.reactors[host] else { return };
        let id = reactor.set_timer(after);
        self.tasks.push(Task { host, id, due, kind });
    }

    pub(super) fn go(&mut self) -> Result<(), Violation> {
        while self.step()? {
            let (events, elapsed) = (self.state.events, self.state.network.elapsed());
            let may_continue = events < EVENTS && elapsed < LONGEST;
            must(may_continue, Rule::Progress, || {
                format!("no end after {events} events and {elapsed:?}:\n{}", self.table())
            })?;
            if self.state.plan.drop_after == Some(events) {
                self.drop_one()?;
            }
            self.audit()?;
            self.close_listeners_when_done();
        }
        self.check_the_end()
    }

    /// One event of any reactor. Returns whether there may be another.
    fn step(&mut self) -> Result<bool, Violation> {
        if self.is_over() {
            return Ok(false);
        }
        self.update_pools(0)?;
        self.update_pools(1)?;
        if let [Some(reactor), None] | [None, Some(reactor)] = &mut self.reactors {
            let host = reactor.net().index();
            let next = reactor.next().map_err(|error| stuck(&error));
            let Some((socket, event)) = next? else {
                return Err(Violation::new(
                    Rule::Progress,
                    "the reactor has nothing left, and some events were not delivered",
                ));
            };
            let follow_up = self.state.handle(host, socket, event)?;
            return self.perform(host as usize, follow_up).map(|()| self.spend());
        }
        let (mut quiet, mut seen) = (0, self.progress());
        while quiet < QUIET_TURNS && self.state.network.elapsed() < LONGEST {
            quiet = if seen == self.progress() { quiet + 1 } else { 0 };
            seen = self.progress();
            self.turn_of = 1 - self.turn_of;
            let host = self.turn_of;
            let now = self.state.network.now();
            let Some(reactor) = &mut self.reactors[host] else { continue };
            let next = reactor.next_before(now).map_err(|error| stuck(&error))?;
            if let Some((socket, event)) = next {
                let follow_up = self.state.handle(host as u32, socket, event)?;
                return self.perform(host, follow_up).map(|()| self.spend());
            }
            if host == 0 && !self.advance_clock(quiet)? {
                return Ok(!self.is_over());
            }
        }
        Err(Violation::new(Rule::NoSpin, format!("turns without work:\n{}", self.table())))
    }

    /// The time that passed without calls and handlers, and the count of what happened: if neither
    /// changes, a turn had no use.
    fn progress(&self) -> (Duration, u64) {
        let network = &self.state.network;
        (network.elapsed() - network.busy(), network.happenings())
    }

    /// The time that the program takes for an event. Returns that there may be another.
    fn spend(&self) -> bool {
        self.state.network.spend(self.state.plan.costs.handler);
        true
    }

    /// With several reactors, no wait of one advances the clock. Returns whether time has passed or
    /// a reactor has work.
    fn advance_clock(&mut self, quiet: u32) -> Result<bool, Violation> {
        let network = &self.state.network;
        // Two turns of each take in all readiness.
        let next = if quiet < 2 * 2 { network.next_event() } else { network.next_happening() };
        let deadlines = self.reactors.iter_mut().flatten().map(Reactor::next_deadline);
        let due = deadlines.chain([next]).flatten().min();
        let Some(due) = due else {
            return match self.is_over() {
                true => Ok(false),
                false => Err(Violation::new(Rule::Progress, format!("nothing can happen any more:\n{}", self.table()))),
            };
        };
        network.advance(due.saturating_duration_since(network.now()));
        Ok(true)
    }

    /// Every socket that can make progress is about to.
    fn audit(&mut self) -> Result<(), Violation> {
        self.observe_pooled(0);
        self.observe_pooled(1);
        for reactor in self.reactors.iter_mut().flatten() {
            reactor.audit().map_err(|wrong| Violation::new(Rule::Progress, wrong))?;
            let host = reactor.net().index();
            for waits in reactor.waiting() {
                let overlooked = self.state.network.overlooked(host, &waits);
                must(overlooked.is_none(), Rule::Progress, || {
                    format!("the socket in slot {} waits, and has {}", waits.slot, overlooked.unwrap_or_default())
                })?;
            }
        }
        self.audit_pipes()?;
        self.audit_limits()
    }

    /// No limit of any socket is overdue, whatever its reactor is busy with.
    fn audit_limits(&mut self) -> Result<(), Violation> {
        let Self { reactors, state, .. } = self;
        for index in 0..state.models.len() {
            let model = &state.models[index];
            let socket = reactors[model.host as usize].as_mut().and_then(|reactor| reactor.socket(model.id));
            let Some(socket) = socket else { continue };
            let (truth, clock) = (state.truth(model), state.clock(model.host));
            let knows_fin = socket.peer_ended() && truth.kernel.peer_finished && !socket.state().is_final();
            state.models[index].knows_fin |= knows_fin;
            stop::update(&mut state.models[index], &socket, &truth, clock)?;
            let overdue = limits::overdue(&state.models[index], &socket, &truth, clock);
            must(overdue.is_none(), Rule::Timers, || {
                format!("{socket:?} is open, and {}", overdue.unwrap_or_default())
            })?;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let is_open = |it: &Conversation| it.listener.is_some() || it.backend.is_some();
        let listening = self.state.conversations.iter().any(is_open);
        let stopping = self.reactors.iter().flatten().any(|reactor| !reactor.listener_ids().is_empty());
        self.state.models.is_empty() && self.tasks.is_empty() && !listening && !stopping
    }

    /// All open sockets, for messages.
    pub(super) fn table(&self) -> String {
        self.reactors.iter().flatten().map(|reactor| reactor.sockets().to_string()).collect()
    }

    fn perform(&mut self, host: usize, follow_up: FollowUp) -> Result<(), Violation> {
        match follow_up {
            FollowUp::Nothing | FollowUp::Command(_, Command::Nothing) => Ok(()),
            FollowUp::Timer(id) => self.timer(host, id),
            FollowUp::Command(id, Command::ResumeAfter(time)) => {
                let Some(reactor) = &mut self.reactors[host] else { return Ok(()) };
                let timer = reactor.set_timer(time);
                let due = self.state.now() + time.as_nanos() as u64;
                self.tasks.push(Task { host, id: timer, due, kind: TaskKind::Resume(id) });
                Ok(())
            }
            FollowUp::Command(_, Command::Wake) => {
                let Some(reactor) = &mut self.reactors[host] else { return Ok(()) };
                let waker = reactor.waker();
                let woken = waker.wake().and_then(|()| waker.wake());
                self.state.wakes[host].call();
                self.state.network.mark(Fault::WakesMerged);
                must(woken.is_ok(), Rule::Progress, || "a wake was refused".to_owned())
            }
            FollowUp::Command(_, Command::TouchOthers) => self.touch_others(host),
            FollowUp::Command(front, Command::ConnectBackend) => self.connect_backend(host, front),
        }
    }

    /// Looks up closed ids, and resumes or destroys open sockets.
    fn touch_others(&mut self, host: usize) -> Result<(), Violation> {
        let Some(reactor) = &mut self.reactors[host] else { return Ok(()) };
        let stale = self.state.closed_ids.iter().filter(|(owner, _)| *owner as usize == host);
        for (_, id) in stale {
            self.state.network.mark(Fault::StaleId);
            must(reactor.socket(*id).is_none(), Rule::Identity, || format!("{id} is closed, and was found"))?;
        }
        if self.state.events.is_multiple_of(2) && !self.is_healed {
            let stops = &self.state.stops;
            let is_open = |id: &ListenerId| stops.iter().all(|(stopping, _)| stopping != id);
            for id in reactor.listener_ids().into_iter().filter(is_open) {
                must(reactor.pause_accepting(id).is_ok(), Rule::Identity, || {
                    format!("{id} is open, and was not found")
                })?;
                self.state.paused.push(id);
            }
        }
        let (mut destroyed, now) = (Vec::new(), self.state.now());
        let own = self.state.models.iter_mut().filter(|model| model.host as usize == host);
        for model in own {
            let Some(mut socket) = reactor.socket(model.id) else {
                return Err(Violation::new(Rule::Identity, format!("{} is open, and was not found", model.id)));
            };
            if self.state.rng.chance(0.3) {
                model.destroy(&mut socket);
                destroyed.push(model.label());
            } else if model.driver == Driver::Random {
                socket.resume();
                model.update_paused(&socket, now);
            }
        }
        for label in destroyed {
            self.state.note_line(label, "  destroys, in another's event".to_owned());
        }
        Ok(())
    }

    fn timer(&mut self, host: usize, id: TimerId) -> Result<(), Violation> {
        let index = self.tasks.iter().position(|task| task.host == host && task.id == id);
        let Some(index) = index else {
            return Err(Violation::new(Rule::Identity, format!("{id} is an unknown timer")));
        };
        let task = self.tasks.swap_remove(index);
        let Clock { now, late, .. } = self.state.clock(host as u32);
        must(now >= task.due, Rule::Timers, || format!("{id} was {} ns early", task.due - now))?;
        must(now < task.due + late, Rule::Timers, || format!("{id} was {} ns late", now - task.due))?;
        match task.kind {
            TaskKind::Resume(socket) => {
                if let Some(mut socket) = self.reactors[host].as_mut().and_then(|reactor| reactor.socket(socket)) {
                    let id = socket.id();
                    let model =
                        self.state.models.iter_mut().find(|model| model.host as usize == host && model.id == id);
                    socket.resume();
                    model.into_iter().for_each(|model| model.update_paused(&socket, now));
                }
            }
            TaskKind::MakeRoom(number) => self.make_room(number),
            TaskKind::RequestSocket(number) if !self.state.end_requested => self.request_socket(number, None),
            TaskKind::RequestSocket(_) => {}
            TaskKind::Disturb(disturbance) => self.disturb(disturbance)?,
            TaskKind::CheckLimits(again) if !self.is_healed => self.set_task(again, TaskKind::CheckLimits(again)),
            TaskKind::CheckLimits(_) => {}
            TaskKind::Heal => self.heal(),
            TaskKind::EndAll => self.end_all()?,
        }
        Ok(())
    }

    fn heal(&mut self) {
        self.state.network.set_faults(Faults::none());
        self.state.network.heal(self.state.plan.machines.peers);
        for reactor in self.reactors.iter_mut().flatten() {
            for id in reactor.listener_ids() {
                // A stopping listener accepts in any case.
                let _ = reactor.resume_accepting(id);
            }
        }
        self.state.paused.clear();
        self.state.note_both("the faults are over");
        self.is_healed = true;
        self.set_task(END_ALL_AFTER, TaskKind::EndAll);
    }

    /// Calls `end` on all sockets.
    fn end_all(&mut self) -> Result<(), Violation> {
        self.state.note_both("end is called on all sockets");
        let waiting = self.state.network.waiting();
        let may_wait = self.state.limits.iter().any(|(_, (_, policy))| *policy != OverflowPolicy::Reset);
        // A pool may have just started another connection.
        let may_wait = may_wait || !self.state.pool_models.is_empty();
        must(waiting == 0 || may_wait, Rule::Progress, || format!("{waiting} connections still wait to be accepted"))?;
        self.end_pools();
        self.note_expected_clean_ends();
        self.state.end_requested = true;
        let now = self.state.now();
        let Self { reactors, state, .. } = self;
        for (host, reactor) in reactors.iter_mut().enumerate() {
            let Some(reactor) = reactor else { continue };
            for model in state.models.iter_mut().filter(|model| model.host as usize == host) {
                let Some(mut socket) = reactor.socket(model.id) else { continue };
                match model.driver {
                    Driver::Random | Driver::Leased => {}
                    Driver::Piped => {
                        pipes::end_when_idle(model, &mut socket, now);
                        continue;
                    }
                    Driver::Pooled | Driver::Orphaned => continue,
                }
                let is_dead = socket.state() == State::Broken;
                let lost = model.drain_pending && socket.queued_bytes() == 0 && !is_dead;
                must(!lost, Rule::Progress, || format!("{}: a drain was lost", model.id))?;
                socket.resume();
                model.update_paused(&socket, now);
                model.end(&mut socket, now);
            }
        }
        Ok(())
    }

    /// Notes the conversations that must end cleanly: both ends are open, and have no short limit.
    fn note_expected_clean_ends(&mut self) {
        let Self { reactors, state, .. } = self;
        for number in 0..state.conversations.len() {
            if matches!(state.plan.conversations[number], Kind::Proxy(_) | Kind::Pool(_)) {
                continue;
            }
            let fine = state.models.iter().filter(|model| {
                let reactor = reactors[model.host as usize].as_mut();
                model.stream.0 == number
                    && reactor
                        .and_then(|reactor| reactor.socket(model.id))
                        .is_some_and(|socket| model.can_end_cleanly(&socket))
            });
            state.conversations[number].must_end_cleanly = fine.count() == 2;
        }
    }

    /// Sets the timers of a dropped reactor on the other one, except those for its sockets.
    pub(super) fn move_tasks(&mut self, host: usize) {
        let now = self.state.now();
        let (moved, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.tasks).into_iter().partition(|task| task.host == host);
        self.tasks = kept;
        for task in moved {
            match task.kind {
                TaskKind::Resume(_) => {}
                TaskKind::MakeRoom(_)
                | TaskKind::RequestSocket(_)
                | TaskKind::Disturb(_)
                | TaskKind::CheckLimits(_)
                | TaskKind::Heal
                | TaskKind::EndAll => {
                    self.set_task(Duration::from_nanos(task.due.saturating_sub(now)), task.kind);
                }
            }
        }
    }

    fn close_listeners_when_done(&mut self) {
        // A pool may still open a connection.
        let may_connect = !self.state.end_requested && !self.state.pool_models.is_empty();
        if !self.is_healed || may_connect || !self.state.models.is_empty() || self.state.network.waiting() > 0 {
            return;
        }
        for conversation in &mut self.state.conversations {
            for OpenListener { host, id, .. } in
                [conversation.listener.take(), conversation.backend.take()].into_iter().flatten()
            {
                let Some(reactor) = &mut self.reactors[host] else { continue };
                // A conversation that shared it may have closed it. The number decides between
                // close and stop.
                let _ = match id.index() % 2 {
                    0 => reactor.close_listener(id),
                    _ => reactor.stop_listener(id, StopOptions::default()),
                };
            }
        }
    }
}
