//! The state of a run apart from its reactors: the conversations, the expected state of each
//! socket, and what was reported.

use rustix::io::Errno;

use super::limits::Clock;
use super::plan::{Kind, Plan};
use super::pools::PoolModel;
use super::rules::{check_event, check_filled};
use super::socket_model::{ActContext, Command, Driver, Label, SocketModel};
use super::stop::StopTimes;
use crate::check::{Column, Rule, Transcript, Violation, must, record};
use crate::error::{ConnectionErrorKind, TimeoutKind};
use crate::event::{Ending, EndingKind, Event};
use crate::id::{ListenerId, SocketId, TimerId};
use crate::options::OverflowPolicy;
use crate::pipe::Pipes;
use crate::sim::truth::Truth;
use crate::sim::{Endpoints, Fault, Network, PeerListener, Play, Rng};
use crate::socket::Socket;
use crate::target::Target;

/// A listener on finale.
#[derive(Clone)]
pub(super) struct OpenListener {
    /// The number of its reactor.
    pub(super) host: usize,
    pub(super) id: ListenerId,
    pub(super) target: Target,
}

pub(super) struct ScriptedPeer {
    pub(super) play: Play,
    pub(super) is_client: bool,
}

/// What a socket that delivered `close` wrote.
pub(super) struct Written {
    endpoints: Endpoints,
    pub(super) bytes: u64,
    pub(super) how: EndingKind,
}

/// A conversation. Its ends have numbers: 0 is the client, 1 the server.
#[derive(Default)]
pub(super) struct Conversation {
    pub(super) listener: Option<OpenListener>,
    /// The listener of the server that a proxy connects to, if that server runs on finale.
    pub(super) backend: Option<OpenListener>,
    /// The address that a proxy or a pool connects to.
    pub(super) backend_target: Option<Target>,
    pub(super) scripted_peers: Vec<ScriptedPeer>,
    /// Kept open: dropping it would forget the connections in its queue.
    pub(super) peer: Option<PeerListener>,
    pub(super) race_listeners: Vec<PeerListener>,
    pub(super) endings: [Option<Ending>; 2],
    /// `end` was called at both ends, and no limit or fault can break the connection.
    pub(super) must_end_cleanly: bool,
    /// One end may see a clean end of a stream that was cut: a proxy hides the cut, or the
    /// transport does.
    pub(super) may_cut: bool,
    /// One of its reactors was dropped.
    pub(super) is_dropped: bool,
}

pub(super) struct RunState {
    pub(super) rng: Rng,
    /// `end` was called on all sockets: from now on the random programs do nothing.
    pub(super) end_requested: bool,
    /// When pools were dropped.
    pub(super) dropped_at: u64,
    pub(super) plan: Plan,
    pub(super) network: Network,
    pub(super) conversations: Vec<Conversation>,
    /// Listeners with a maximum of connections, and what they do with a further one.
    pub(super) limits: Vec<(ListenerId, (usize, OverflowPolicy))>,
    /// Listeners that were stopped.
    pub(super) stops: Vec<(ListenerId, StopTimes)>,
    /// Listeners that are paused.
    pub(super) paused: Vec<ListenerId>,
    pub(super) models: Vec<SocketModel>,
    pub(super) pipes: Pipes,
    pub(super) pool_models: Vec<PoolModel>,
    /// Of each reactor.
    pub(super) wakes: [Wakes; 2],
    /// How often accept(2) had failed for a shortage when the last event was delivered.
    pub(super) accept_failures: u64,
    /// Listeners that could not accept, and how often accept(2) had had an answer.
    pub(super) shortages: Vec<(ListenerId, u64)>,
    /// Ids of sockets that delivered `close`, with the number of the reactor.
    pub(super) closed_ids: Vec<(u32, SocketId)>,
    pub(super) written: Vec<Written>,
    pub(super) events: u64,
    pub(super) sockets: u64,
    pub(super) digest: u64,
    pub(super) transcript: Option<Transcript>,
}

/// The wakes of a reactor. Several may be delivered as one, and none is lost.
#[derive(Clone, Copy, Default)]
pub(super) struct Wakes {
    called: u64,
    delivered: u64,
    /// `woken` has not followed the last one.
    pub(super) is_pending: bool,
}

/// What the run does after an event.
pub(super) enum FollowUp {
    Nothing,
    Command(SocketId, Command),
    Timer(TimerId),
}

impl Wakes {
    pub(super) const fn call(&mut self) {
        (self.called, self.is_pending) = (self.called + 1, true);
    }

    fn deliver(&mut self) -> Result<(), Violation> {
        (self.delivered, self.is_pending) = (self.delivered + 1, false);
        must(self.delivered <= self.called, Rule::Cause, || "woken without a wake".to_owned())
    }
}

impl Written {
    /// Whether this was the connection, seen from the other end.
    pub(super) fn was_to(&self, (their, our): Endpoints) -> bool {
        self.endpoints == (our, their)
    }
}

impl RunState {
    pub(super) fn now(&self) -> u64 {
        self.network.elapsed().as_nanos() as u64
    }

    /// The time and the tolerances for a reactor.
    pub(super) fn clock(&self, host: u32) -> Clock {
        Clock::of(&self.network, host, &self.plan.faults)
    }

    /// What happened to a socket, as the network knows it.
    pub(super) fn truth(&self, model: &SocketModel) -> Truth {
        let truth = self.network.truth(model.host, model.id.index());
        let is_its_own = model.listener.is_some() || truth.is_of(model.id.generation());
        if is_its_own { truth } else { Truth::default() }
    }

    pub(super) fn note_both(&mut self, text: &str) {
        let at = self.network.elapsed();
        if let Some(transcript) = &mut self.transcript {
            transcript.add(at, Column::Both, text);
        }
    }

    /// Checks one event of one reactor, and acts on it.
    pub(super) fn handle(
        &mut self,
        host: u32,
        mut socket: Socket<'_>,
        event: Event<'_>,
    ) -> Result<FollowUp, Violation> {
        self.events += 1;
        self.network.told();
        let id = socket.id();
        self.digest_event(host, id, &event);
        let failures = self.network.count(Fault::AcceptExhausted);
        let can_accept = failures == std::mem::replace(&mut self.accept_failures, failures);
        if let Event::Timer(timer) = event {
            let is_pools = self.is_pools(host, &mut socket, &event);
            return Ok(if is_pools { FollowUp::Nothing } else { FollowUp::Timer(timer) });
        }
        self.check_listener(host, &event, can_accept)?;
        if matches!(event, Event::Woken) {
            self.wakes[host as usize].deliver()?;
        }
        if matches!(event, Event::Woken | Event::AcceptFailed(..) | Event::Overflow(..) | Event::ListenerClosed(_)) {
            let text = event.to_string();
            self.note_both(&text);
            return Ok(FollowUp::Nothing);
        }
        if matches!(event, Event::Connection) {
            self.accepted(host, &socket)?;
        }
        let slot = id.index();
        let mut model = self.take_model(host, id, &event)?;
        // The program takes the buffer at once. From here on it is data like any other.
        let filled = socket.take_filled();
        if matches!(event, Event::Filled) && filled.is_none() {
            return Err(Violation::new(Rule::Bytes, "`filled` without a buffer"));
        }
        let (truth, clock) = (self.truth(&model), self.clock(host));
        check_filled(&mut model, &event, filled.as_deref(), &truth)?;
        let event = filled.as_deref().map_or(event, Event::Data);
        model.endpoints = model.endpoints.or_else(|| self.network.endpoints(host, slot));
        self.note_what_was_done(&mut model, &socket, &event)?;
        if let Err(violation) = check_event(&mut model, &socket, &event, &truth, clock) {
            self.note_violation(&model, &event);
            return Err(violation);
        }
        if let Event::Close(ending) = event {
            match model.driver {
                Driver::Random | Driver::Orphaned => {}
                Driver::Piped => _ = self.piped(&mut model, &mut socket, &event)?,
                Driver::Pooled | Driver::Leased => _ = self.pooled(&mut model, &mut socket, &event)?,
            }
            self.note_line(model.label(), format!("close: {ending}"));
            self.closed(model, ending.clone());
            return Ok(FollowUp::Nothing);
        }
        self.mark_timers(&event);
        let command = self.act(&mut model, &mut socket, event);
        self.mark_pauses(&model, &socket);
        self.models.push(model);
        Ok(FollowUp::Command(id, command?))
    }

    /// Before an event: what was done to its socket since the last one.
    fn note_what_was_done(
        &mut self,
        model: &mut SocketModel,
        socket: &Socket<'_>,
        event: &Event<'_>,
    ) -> Result<(), Violation> {
        match model.driver {
            Driver::Random | Driver::Pooled | Driver::Leased => Ok(()),
            Driver::Piped => {
                model.drain_pending = matches!(event, Event::Drain);
                let is_first = matches!(event, Event::Connection);
                if is_first { Ok(()) } else { self.check_between_events(model, socket) }
            }
            Driver::Orphaned => {
                self.observe(model, socket);
                Ok(())
            }
        }
    }

    fn take_model(&mut self, host: u32, id: SocketId, event: &Event<'_>) -> Result<SocketModel, Violation> {
        let index = self.models.iter().position(|model| model.host == host && model.id == id);
        let unknown = || Violation::new(Rule::Identity, format!("{id} has {event}, and is unknown or closed"));
        index.map(|index| self.models.swap_remove(index)).ok_or_else(unknown)
    }

    /// Checks what a listener reports. `can_accept`: no call of accept(2) lacked anything since the last
    /// event.
    fn check_listener(&mut self, host: u32, event: &Event<'_>, can_accept: bool) -> Result<(), Violation> {
        if let Event::AcceptFailed(listener, error) = *event {
            let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
            let lacks = shortages.iter().any(|errno| errno.raw_os_error() == error.raw());
            must(lacks && !can_accept, Rule::Cause, || format!("{listener} can't accept: {error}, without a cause"))?;
            let shortage = (listener, self.network.accept_answers(host, listener.index()));
            let is_first = !self.shortages.contains(&shortage);
            must(is_first, Rule::Language, || format!("{listener} reports a shortage again"))?;
            self.shortages.push(shortage);
        }
        if let Event::Overflow(listener, _) = *event {
            let full = self.limits.contains(&(listener, (self.live_of(listener), OverflowPolicy::Reset)));
            must(full, Rule::Progress, || format!("{listener} reset a client, and was not full"))?;
        }
        if let Event::ListenerClosed(listener) = *event {
            let live = self.live_of(listener);
            must(live == 0, Rule::Progress, || format!("{listener} is closed, and {live} of its sockets are not"))?;
        }
        Ok(())
    }

    /// The program's reaction to an event, recorded if the run has a transcript.
    fn act(
        &mut self,
        model: &mut SocketModel,
        socket: &mut Socket<'_>,
        event: Event<'_>,
    ) -> Result<Command, Violation> {
        let at = self.network.elapsed();
        let (column, prefix) = self.column(model.label());
        match model.driver {
            Driver::Random => {}
            Driver::Orphaned => {
                self.note_line(model.label(), event.to_string());
                model.note_automatic_end(socket, &event, self.now());
                return Ok(Command::Nothing);
            }
            Driver::Piped => return self.piped(model, socket, &event),
            Driver::Pooled | Driver::Leased => {
                if model.driver == Driver::Pooled {
                    self.note_line(model.label(), event.to_string());
                }
                if !self.pooled(model, socket, &event)? {
                    return Ok(Command::Nothing);
                }
            }
        }
        if self.end_requested {
            self.note_line(model.label(), event.to_string());
            if matches!(event, Event::Connection) {
                // It was accepted after `end` was called on the others.
                socket.resume();
                model.update_paused(socket, self.now());
                model.end(socket, self.now());
            }
            return Ok(Command::Nothing);
        }
        let now = self.now();
        let mut context = ActContext { rng: &mut self.rng, network: &self.network, plan: &self.plan, now };
        let command = match &mut self.transcript {
            Some(transcript) => record(transcript, at, column, &prefix, socket, event, |socket, event| {
                model.act(socket, &event, &mut context)
            }),
            None => model.act(socket, &event, &mut context),
        };
        if model.driver == Driver::Leased {
            self.perhaps_return(model, socket)?;
        }
        command
    }

    fn accepted(&mut self, host: u32, socket: &Socket<'_>) -> Result<(), Violation> {
        let listener = socket.listener();
        // Several conversations may share a listener: the endpoints say which script this is.
        let endpoints = self.network.endpoints(host, socket.id().index());
        let is_its_own = |scripted: &ScriptedPeer| {
            scripted.is_client && scripted.play.endpoints() == endpoints.map(|(us, them)| (them, us))
        };
        let known =
            |conversation: &Conversation| match conversation.scripted_peers.iter().any(|scripted| scripted.is_client) {
                true => conversation.scripted_peers.iter().any(is_its_own),
                false => !self.conversations.iter().flat_map(|other| &other.scripted_peers).any(is_its_own),
            };
        let is_here = |opened: &Option<OpenListener>| {
            opened.as_ref().is_some_and(|opened| opened.host as u32 == host && Some(opened.id) == listener)
        };
        let found = self.conversations.iter().position(|conversation| {
            is_here(&conversation.backend) || (is_here(&conversation.listener) && known(conversation))
        });
        let Some(number) = found else {
            return Err(Violation::new(Rule::Identity, "a connection without a listener"));
        };
        let id = socket.id();
        let is_paused = listener.is_some_and(|listener| self.paused.contains(&listener));
        must(!is_paused, Rule::Language, || format!("{id} was accepted by a listener that is paused"))?;
        must(endpoints.is_some(), Rule::Identity, || format!("{id} is a connection that the network does not have"))?;
        must(!self.closed_ids.contains(&(host, id)), Rule::Identity, || format!("{id} is the id of a second socket"))?;
        let mut model = SocketModel::new(host, (number, false), socket, self.now());
        let is_proxy = matches!(self.plan.conversations[number], Kind::Proxy(_));
        if is_proxy && !is_here(&self.conversations[number].backend) {
            model.driver = Driver::Piped;
            self.conversations[number].may_cut |= !socket.allows_half_open();
        }
        model.stop = self.stops.iter().find(|(id, _)| Some(*id) == listener).map(|(_, stop)| *stop);
        self.models.push(model);
        let Some((listener, (most, policy))) = self.limits.iter().find(|(id, _)| Some(*id) == listener) else {
            return must(!socket.is_overflow(), Rule::Language, || {
                format!("{id} exceeds the limit of a listener without one")
            });
        };
        let over = self.models.iter().filter(|model| model.listener == Some(*listener) && model.is_overflow).count();
        let regular = self.live_of(*listener) - over;
        let admitted = if let OverflowPolicy::Admit(more) = policy { *more } else { 0 };
        let holds = regular <= *most && over <= admitted && (!socket.is_overflow() || regular == *most);
        must(holds, Rule::Progress, || format!("{id} exceeds the limit: {regular} of {most} and {over}, {policy:?}"))
    }

    /// Connections of a listener that have not delivered `close`.
    fn live_of(&self, listener: ListenerId) -> usize {
        self.models.iter().filter(|model| model.listener == Some(listener)).count()
    }

    fn closed(&mut self, model: SocketModel, ending: Ending) {
        let never_accepts = matches!(self.plan.conversations[model.stream.0], Kind::PeerServer(None));
        if never_accepts && model.read == 0 && model.grammar.was_connected() {
            self.network.mark(Fault::NeverAccepted);
        }
        self.sockets += 1;
        let conversation = &mut self.conversations[model.stream.0];
        let index = usize::from(!model.stream.1);
        let written = |endpoints| Written { endpoints, bytes: model.written, how: ending.kind.clone() };
        self.written.extend(model.endpoints.map(written));
        let is_pair = match &self.plan.conversations[model.stream.0] {
            Kind::Proxy(proxy) => proxy.pool.is_none(),
            Kind::Pool(_) => false,
            _ => true,
        };
        if model.driver == Driver::Random && is_pair {
            conversation.endings[index] = Some(ending);
        }
        self.closed_ids.push((model.host, model.id));
    }

    fn mark_timers(&self, event: &Event<'_>) {
        if matches!(event, Event::Timeout) {
            self.network.mark(Fault::SilentPeer);
        }
        let Event::Error(failure) = event else { return };
        if failure.kind == ConnectionErrorKind::TimedOut(TimeoutKind::HalfClosed) {
            self.network.mark(Fault::HalfClosedForEver);
        }
        if failure.kind == ConnectionErrorKind::TimedOut(TimeoutKind::Close) {
            self.network.mark(Fault::LingerRules);
        }
    }

    fn mark_pauses(&self, model: &SocketModel, socket: &Socket<'_>) {
        if socket.is_paused() && socket.peer_ended() {
            self.network.mark(Fault::PausedWithEndWaiting);
            if !model.had_end {
                self.network.mark(Fault::EdgeWhilePaused);
            }
        }
    }

    /// Adds an event to the digest (FNV-1a).
    fn digest_event(&mut self, host: u32, id: SocketId, event: &Event<'_>) {
        let now = self.now();
        let mut fold = |byte: u64| self.digest = (self.digest ^ byte).wrapping_mul(0x0100_0000_01b3);
        event.to_string().bytes().for_each(|byte| fold(u64::from(byte)));
        [u64::from(host), u64::from(id.index()), u64::from(id.generation())].into_iter().for_each(&mut fold);
        fold(now);
    }

    /// The column of a socket's lines, and their prefix: the number of the conversation if there
    /// are several, and the driver.
    fn column(&self, Label { stream, driver }: Label) -> (Column, String) {
        let several = self.conversations.len() > 1;
        let number = if several { format!("#{} ", stream.0 + 1) } else { String::new() };
        let driver_name = match driver {
            Driver::Random => "",
            Driver::Piped => "proxy: ",
            Driver::Pooled => "pool: ",
            Driver::Leased => "leased: ",
            Driver::Orphaned => "orphan: ",
        };
        (if stream.1 { Column::Client } else { Column::Server }, number + driver_name)
    }

    pub(super) fn note_line(&mut self, label: Label, text: String) {
        let (at, (column, prefix)) = (self.network.elapsed(), self.column(label));
        if let Some(transcript) = &mut self.transcript {
            transcript.add(at, column, format!("{prefix}{text}"));
        }
    }

    fn note_violation(&mut self, model: &SocketModel, event: &Event<'_>) {
        let text = format!("{event} <-- here");
        self.note_line(model.label(), text);
    }

    /// The transcript, with the lines of the scripted peers. Leaves none.
    pub(super) fn whole_transcript(&mut self) -> Transcript {
        let Some(mut transcript) = self.transcript.take() else { return Transcript::new() };
        for number in 0..self.conversations.len() {
            let conversation = &self.conversations[number];
            for ScriptedPeer { play, is_client } in &conversation.scripted_peers {
                let (column, prefix) = self.column(Label { stream: (number, *is_client), driver: Driver::Random });
                for (at, line) in play.transcript() {
                    transcript.add(at, column, format!("{prefix}{line}"));
                }
            }
        }
        transcript.sort();
        transcript
    }
}
