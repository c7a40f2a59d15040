//! What is known of a run beside its reactors: who talks to whom, what was told, what is still
//! owed.

use super::limits::Clock;
use super::plan::{Kind, Plan};
use super::pools::PoolModel;
use super::rules::check_event;
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

/// A listener of ours.
#[derive(Clone)]
pub(super) struct OpenListener {
    /// Whose reactor has it.
    pub(super) host: usize,
    pub(super) id: ListenerId,
    pub(super) target: Target,
}

/// A scripted peer.
pub(super) struct ScriptedPeer {
    pub(super) play: Play,
    pub(super) is_client: bool,
}

/// What was written to somebody, on a connection that has told `close`.
pub(super) struct Written {
    endpoints: Endpoints,
    pub(super) bytes: u64,
    pub(super) how: EndingKind,
}

/// A conversation: sides are numbered client 0, server 1.
#[derive(Default)]
pub(super) struct Conversation {
    pub(super) listener: Option<OpenListener>,
    /// Of the server of ours behind a proxy.
    pub(super) backend: Option<OpenListener>,
    /// Where a proxy connects to.
    pub(super) backend_target: Option<Target>,
    pub(super) scripted_peers: Vec<ScriptedPeer>,
    /// Kept, so that what waits there is not forgotten.
    pub(super) peer: Option<PeerListener>,
    pub(super) race_listeners: Vec<PeerListener>,
    pub(super) endings: [Option<Ending>; 2],
    /// Both sides were called to end, with nothing against it.
    pub(super) must_end_cleanly: bool,
    /// A proxy of it may cut what is said on the one side, and the other side sees an end in good
    /// order.
    pub(super) may_cut: bool,
    /// A reactor was dropped in the middle of it.
    pub(super) is_dropped: bool,
}

pub(super) struct RunState {
    pub(super) rng: Rng,
    /// All were called to end: from now on no program does anything.
    pub(super) end_requested: bool,
    pub(super) plan: Plan,
    pub(super) network: Network,
    pub(super) conversations: Vec<Conversation>,
    /// Listeners that may have so many connections at the most, and what becomes of the next.
    pub(super) limits: Vec<(ListenerId, (usize, OverflowPolicy))>,
    /// Listeners that stop.
    pub(super) stops: Vec<(ListenerId, StopTimes)>,
    pub(super) models: Vec<SocketModel>,
    pub(super) pipes: Pipes,
    pub(super) pool_models: Vec<PoolModel>,
    /// Sockets that have told `close`, by reactor; and what they have written.
    pub(super) closed_ids: Vec<(u32, SocketId)>,
    pub(super) written: Vec<Written>,
    pub(super) events: u64,
    pub(super) sockets: u64,
    pub(super) digest: u64,
    pub(super) transcript: Option<Transcript>,
}

/// What an event asks of the run.
pub(super) enum FollowUp {
    Nothing,
    Command(SocketId, Command),
    Timer(TimerId),
}

impl Written {
    /// Whether the connection was this one, seen from the other side.
    pub(super) fn was_to(&self, (their, our): Endpoints) -> bool {
        self.endpoints == (our, their)
    }
}

impl RunState {
    pub(super) fn now(&self) -> u64 {
        self.network.elapsed().as_nanos() as u64
    }

    /// The time as the rules for a reactor look at it.
    pub(super) fn clock(&self, host: u32) -> Clock {
        Clock::of(&self.network, host, &self.plan.faults)
    }

    /// What really happened to a side's socket.
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

    /// One event of one reactor.
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
        if let Event::Timer(timer) = event {
            let is_pools = self.is_pools(host, &mut socket, &event);
            return Ok(if is_pools { FollowUp::Nothing } else { FollowUp::Timer(timer) });
        }
        self.check_listener(&event)?;
        if matches!(event, Event::Woken | Event::AcceptFailed(..) | Event::Overflow(..) | Event::ListenerClosed(_)) {
            let text = event.to_string();
            self.note_both(&text);
            return Ok(FollowUp::Nothing);
        }
        if matches!(event, Event::Connection) {
            self.accepted(host, &socket)?;
        }
        let slot = id.index();
        let index = self.models.iter().position(|model| model.host == host && model.id == id);
        let Some(index) = index else {
            return Err(Violation::new(Rule::Identity, format!("{id} has {event}, and is unknown or has had close")));
        };
        let mut model = self.models.swap_remove(index);
        // The program takes the buffer at once: from here on it is data like any other.
        let filled = socket.take_filled();
        if matches!(event, Event::Filled) && filled.is_none() {
            return Err(Violation::new(Rule::Bytes, "a buffer is filled, and is not there"));
        }
        let event = filled.as_deref().map_or(event, Event::Data);
        model.fills &= filled.is_none();
        let (truth, clock) = (self.truth(&model), self.clock(host));
        model.endpoints = model.endpoints.or_else(|| self.network.endpoints(host, slot));
        if model.driver == Driver::Piped {
            model.drain_pending = matches!(event, Event::Drain);
            if !matches!(event, Event::Connection) {
                self.check_between_events(&mut model, &socket)?;
            }
        }
        if let Err(violation) = check_event(&mut model, &socket, &event, &truth, clock) {
            self.note_violation(&model, &event);
            return Err(violation);
        }
        if let Event::Close(ending) = event {
            match model.driver {
                Driver::Random => {}
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

    /// What a listener reports of its sockets.
    fn check_listener(&self, event: &Event<'_>) -> Result<(), Violation> {
        if let Event::Overflow(listener, _) = *event {
            let full = self.limits.contains(&(listener, (self.live_of(listener), OverflowPolicy::Reset)));
            must(full, Rule::Progress, || format!("{listener} has dropped a client, and was not full"))?;
        }
        if let Event::ListenerClosed(listener) = *event {
            let live = self.live_of(listener);
            must(live == 0, Rule::Progress, || format!("{listener} is closed, and {live} of its sockets live"))?;
        }
        Ok(())
    }

    /// The program's part, told if the run is told.
    fn act(
        &mut self,
        model: &mut SocketModel,
        socket: &mut Socket<'_>,
        event: Event<'_>,
    ) -> Result<Command, Violation> {
        let at = self.network.elapsed();
        let (column, who) = self.column(model.label());
        match model.driver {
            Driver::Random => {}
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
                // It had to wait until others were called to end.
                socket.resume();
                model.update_paused(socket, self.now());
                model.end(socket, self.now());
            }
            return Ok(Command::Nothing);
        }
        let now = self.now();
        let mut context = ActContext { rng: &mut self.rng, network: &self.network, plan: &self.plan, now };
        let command = match &mut self.transcript {
            Some(transcript) => record(transcript, at, column, &who, socket, event, |socket, event| {
                model.act(socket, &event, &mut context)
            }),
            None => model.act(socket, &event, &mut context),
        };
        if model.driver == Driver::Leased {
            self.perhaps_return(model, socket);
        }
        command
    }

    fn accepted(&mut self, host: u32, socket: &Socket<'_>) -> Result<(), Violation> {
        let listener = socket.listener();
        // Several may share a listener: a script is known by its place.
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
            return Err(Violation::new(Rule::Identity, "a connection of no listener of ours"));
        };
        let id = socket.id();
        must(endpoints.is_some(), Rule::Identity, || format!("{id} is a connection that nobody has"))?;
        must(!self.closed_ids.contains(&(host, id)), Rule::Identity, || format!("{id} names a second socket"))?;
        let mut model = SocketModel::new(host, (number, false), socket, self.now());
        let is_proxy = matches!(self.plan.conversations[number], Kind::Proxy(_));
        if is_proxy && !is_here(&self.conversations[number].backend) {
            model.driver = Driver::Piped;
            self.conversations[number].may_cut |= !socket.allows_half_open();
        }
        model.stop = self.stops.iter().find(|(id, _)| Some(*id) == listener).map(|(_, stop)| *stop);
        self.models.push(model);
        let Some((listener, (most, policy))) = self.limits.iter().find(|(id, _)| Some(*id) == listener) else {
            return must(!socket.is_overflow(), Rule::Language, || format!("{id} is beyond a limit that is none"));
        };
        let over = self.models.iter().filter(|model| model.listener == Some(*listener) && model.is_overflow).count();
        let regular = self.live_of(*listener) - over;
        let admitted = if let OverflowPolicy::Admit(more) = policy { *more } else { 0 };
        let holds = regular <= *most && over <= admitted && (!socket.is_overflow() || regular == *most);
        must(holds, Rule::Progress, || format!("{id} is one too many: {regular} of {most} and {over}, {policy:?}"))
    }

    /// Connections of a listener that have not told `close`.
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

    /// Folds an event into the number that stands for the whole story (FNV-1a).
    fn digest_event(&mut self, host: u32, id: SocketId, event: &Event<'_>) {
        let now = self.now();
        let mut fold = |byte: u64| self.digest = (self.digest ^ byte).wrapping_mul(0x0100_0000_01b3);
        event.to_string().bytes().for_each(|byte| fold(u64::from(byte)));
        [u64::from(host), u64::from(id.index()), u64::from(id.generation())].into_iter().for_each(&mut fold);
        fold(now);
    }

    /// Where a side's lines stand, and its conversation's number if there are several.
    fn column(&self, Label { stream, driver }: Label) -> (Column, String) {
        let several = self.conversations.len() > 1;
        let number = if several { format!("#{} ", stream.0 + 1) } else { String::new() };
        let driver_name = match driver {
            Driver::Random => "",
            Driver::Piped => "proxy: ",
            Driver::Pooled => "pool: ",
            Driver::Leased => "lent: ",
        };
        (if stream.1 { Column::Client } else { Column::Server }, number + driver_name)
    }

    pub(super) fn note_line(&mut self, label: Label, text: String) {
        let (at, (column, who)) = (self.network.elapsed(), self.column(label));
        if let Some(transcript) = &mut self.transcript {
            transcript.add(at, column, format!("{who}{text}"));
        }
    }

    fn note_violation(&mut self, model: &SocketModel, event: &Event<'_>) {
        let text = format!("{event} <-- here");
        self.note_line(model.label(), text);
    }

    /// The story with the peers' part in it, once.
    pub(super) fn whole_transcript(&mut self) -> Transcript {
        let Some(mut transcript) = self.transcript.take() else { return Transcript::new() };
        for number in 0..self.conversations.len() {
            let conversation = &self.conversations[number];
            for ScriptedPeer { play, is_client } in &conversation.scripted_peers {
                let (column, who) = self.column(Label { stream: (number, *is_client), driver: Driver::Random });
                for (at, line) in play.transcript() {
                    transcript.add(at, column, format!("{who}{line}"));
                }
            }
        }
        transcript.sort();
        transcript
    }
}
