//! What is known of a run beside its reactors: who talks to whom, what was told, what is still
//! owed.

use super::limits::Clock;
use super::plan::{Kind, Plan};
use super::pools::Lending;
use super::rules::judge;
use super::socket_model::{Dice, Label, Program, Side, Wish};
use super::stop::Stopping;
use crate::check::{Column, Rule, Transcript, Violation, must, note};
use crate::error::{ConnectionErrorKind, TimeoutKind};
use crate::event::{Ending, EndingKind, Event};
use crate::id::{ListenerId, SocketId, TimerId};
use crate::options::OverflowPolicy;
use crate::pipe::Pipes;
use crate::sim::truth::Truth;
use crate::sim::{Fault, Network, PeerListener, Places, Play, Rng};
use crate::socket::Socket;
use crate::target::Target;

/// A listener of ours.
#[derive(Clone)]
pub(super) struct Door {
    /// Whose reactor has it.
    pub(super) host: usize,
    pub(super) id: ListenerId,
    pub(super) target: Target,
}

/// A scripted peer.
pub(super) struct Acted {
    pub(super) play: Play,
    pub(super) is_client: bool,
}

/// What was written to somebody, on a connection that has told `close`.
pub(super) struct Written {
    places: Places,
    pub(super) bytes: u64,
    pub(super) how: EndingKind,
}

/// A conversation: sides are numbered client 0, server 1.
#[derive(Default)]
pub(super) struct Conversation {
    pub(super) listener: Option<Door>,
    /// Of the server of ours behind a proxy.
    pub(super) backend: Option<Door>,
    /// Where a proxy connects to.
    pub(super) behind: Option<Target>,
    pub(super) plays: Vec<Acted>,
    /// Kept, so that what waits there is not forgotten.
    pub(super) peer: Option<PeerListener>,
    pub(super) runners: Vec<PeerListener>,
    pub(super) endings: [Option<Ending>; 2],
    /// Both sides were called to end, with nothing against it.
    pub(super) must_end_well: bool,
    /// A proxy of it may cut what is said on the one side, and the other side sees an end in good
    /// order.
    pub(super) may_cut: bool,
    /// A reactor was dropped in the middle of it.
    pub(super) is_dropped: bool,
}

pub(super) struct Book {
    pub(super) rng: Rng,
    /// All were called to end: from now on no program does anything.
    pub(super) is_called: bool,
    pub(super) plan: Plan,
    pub(super) network: Network,
    pub(super) conversations: Vec<Conversation>,
    /// Listeners that may have so many connections at the most, and what becomes of the next.
    pub(super) limits: Vec<(ListenerId, (usize, OverflowPolicy))>,
    /// Listeners that stop.
    pub(super) stops: Vec<(ListenerId, Stopping)>,
    pub(super) sides: Vec<Side>,
    pub(super) pipes: Pipes,
    pub(super) lendings: Vec<Lending>,
    /// Sockets that have told `close`, by reactor; and what they have written.
    pub(super) gone: Vec<(u32, SocketId)>,
    pub(super) written: Vec<Written>,
    pub(super) events: u64,
    pub(super) sockets: u64,
    pub(super) digest: u64,
    pub(super) story: Option<Transcript>,
}

/// What an event asks of the run.
pub(super) enum Todo {
    Nothing,
    Wish(SocketId, Wish),
    Timer(TimerId),
}

impl Written {
    /// Whether the connection was this one, seen from the other side.
    pub(super) fn was_to(&self, (their, our): Places) -> bool {
        self.places == (our, their)
    }
}

impl Book {
    pub(super) fn now(&self) -> u64 {
        self.network.elapsed().as_nanos() as u64
    }

    /// The time as the rules for a reactor look at it.
    pub(super) fn clock(&self, host: u32) -> Clock {
        Clock::of(&self.network, host, &self.plan.faults)
    }

    /// What really happened to a side's socket.
    pub(super) fn truth(&self, side: &Side) -> Truth {
        let truth = self.network.truth(side.host, side.id.index());
        let is_its_own = side.listener.is_some() || truth.is_of(side.id.generation());
        if is_its_own { truth } else { Truth::default() }
    }

    pub(super) fn weather(&mut self, text: &str) {
        let at = self.network.elapsed();
        if let Some(story) = &mut self.story {
            story.tell(at, Column::Both, text);
        }
    }

    /// One event of one reactor.
    pub(super) fn handle(&mut self, host: u32, mut socket: Socket<'_>, event: Event<'_>) -> Result<Todo, Violation> {
        self.events += 1;
        self.network.told();
        let id = socket.id();
        self.digest_event(host, id, &event);
        if let Event::Timer(timer) = event {
            let is_pools = self.is_pools(host, &mut socket, &event);
            return Ok(if is_pools { Todo::Nothing } else { Todo::Timer(timer) });
        }
        self.judge_listener(&event)?;
        if matches!(event, Event::Woken | Event::AcceptFailed(..) | Event::Overflow(..) | Event::ListenerClosed(_)) {
            let text = event.to_string();
            self.weather(&text);
            return Ok(Todo::Nothing);
        }
        if matches!(event, Event::Connection) {
            self.accepted(host, &socket)?;
        }
        let slot = id.index();
        let place = self.sides.iter().position(|side| side.host == host && side.id == id);
        let Some(place) = place else {
            return Err(Violation::new(Rule::Identity, format!("{id} has {event}, and is unknown or has had close")));
        };
        let mut side = self.sides.swap_remove(place);
        // The program takes the buffer at once: from here on it is data like any other.
        let filled = socket.take_filled();
        if matches!(event, Event::Filled) && filled.is_none() {
            return Err(Violation::new(Rule::Bytes, "a buffer is filled, and is not there"));
        }
        let event = filled.as_deref().map_or(event, Event::Data);
        side.fills &= filled.is_none();
        let (truth, clock) = (self.truth(&side), self.clock(host));
        side.places = side.places.or_else(|| self.network.places(host, slot));
        if side.program == Program::Piped {
            side.owes_drain = matches!(event, Event::Drain);
            if !matches!(event, Event::Connection) {
                self.look_before(&mut side, &socket)?;
            }
        }
        if let Err(broken) = judge(&mut side, &socket, &event, &truth, clock) {
            self.note_broken(&side, &event);
            return Err(broken);
        }
        if let Event::Close(ending) = event {
            match side.program {
                Program::Random => {}
                Program::Piped => _ = self.piped(&mut side, &mut socket, &event)?,
                Program::Pooled | Program::Lent => _ = self.pooled(&mut side, &mut socket, &event)?,
            }
            self.note_line(side.label(), format!("close: {ending}"));
            self.closed(side, ending.clone());
            return Ok(Todo::Nothing);
        }
        self.mark_timers(&event);
        let wish = self.act(&mut side, &mut socket, event);
        self.mark_pauses(&side, &socket);
        self.sides.push(side);
        Ok(Todo::Wish(id, wish?))
    }

    /// What a listener reports of its sockets.
    fn judge_listener(&self, event: &Event<'_>) -> Result<(), Violation> {
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
    fn act(&mut self, side: &mut Side, socket: &mut Socket<'_>, event: Event<'_>) -> Result<Wish, Violation> {
        let at = self.network.elapsed();
        let (column, who) = self.column(side.label());
        match side.program {
            Program::Random => {}
            Program::Piped => return self.piped(side, socket, &event),
            Program::Pooled | Program::Lent => {
                if side.program == Program::Pooled {
                    self.note_line(side.label(), event.to_string());
                }
                if !self.pooled(side, socket, &event)? {
                    return Ok(Wish::Nothing);
                }
            }
        }
        if self.is_called {
            self.note_line(side.label(), event.to_string());
            if matches!(event, Event::Connection) {
                // It had to wait until others were called to end.
                socket.resume();
                side.look_paused(socket, self.now());
                side.end(socket, self.now());
            }
            return Ok(Wish::Nothing);
        }
        let now = self.now();
        let mut dice = Dice { rng: &mut self.rng, network: &self.network, plan: &self.plan, now };
        let wish = match &mut self.story {
            Some(story) => {
                note(story, at, column, &who, socket, event, |socket, event| side.act(socket, &event, &mut dice))
            }
            None => side.act(socket, &event, &mut dice),
        };
        if side.program == Program::Lent {
            self.perhaps_return(side, socket);
        }
        wish
    }

    fn accepted(&mut self, host: u32, socket: &Socket<'_>) -> Result<(), Violation> {
        let listener = socket.listener();
        // Several may share a listener: a script is known by its place.
        let places = self.network.places(host, socket.id().index());
        let is_its_own = |acted: &Acted| acted.is_client && acted.play.places() == places.map(|(us, them)| (them, us));
        let known = |conversation: &Conversation| match conversation.plays.iter().any(|acted| acted.is_client) {
            true => conversation.plays.iter().any(is_its_own),
            false => !self.conversations.iter().flat_map(|other| &other.plays).any(is_its_own),
        };
        let is_here = |door: &Option<Door>| {
            door.as_ref().is_some_and(|door| door.host as u32 == host && Some(door.id) == listener)
        };
        let found = self.conversations.iter().position(|conversation| {
            is_here(&conversation.backend) || (is_here(&conversation.listener) && known(conversation))
        });
        let Some(number) = found else {
            return Err(Violation::new(Rule::Identity, "a connection of no listener of ours"));
        };
        let id = socket.id();
        must(places.is_some(), Rule::Identity, || format!("{id} is a connection that nobody has"))?;
        must(!self.gone.contains(&(host, id)), Rule::Identity, || format!("{id} names a second socket"))?;
        let mut side = Side::new(host, (number, false), socket, self.now());
        let is_proxy = matches!(self.plan.conversations[number], Kind::Proxy(_));
        if is_proxy && !is_here(&self.conversations[number].backend) {
            side.program = Program::Piped;
            self.conversations[number].may_cut |= !socket.allows_half_open();
        }
        side.stop = self.stops.iter().find(|(id, _)| Some(*id) == listener).map(|(_, stop)| *stop);
        self.sides.push(side);
        let Some((listener, (most, policy))) = self.limits.iter().find(|(id, _)| Some(*id) == listener) else {
            return must(!socket.is_overflow(), Rule::Language, || format!("{id} is beyond a limit that is none"));
        };
        let over = self.sides.iter().filter(|side| side.listener == Some(*listener) && side.is_overflow).count();
        let regular = self.live_of(*listener) - over;
        let admitted = if let OverflowPolicy::Admit(more) = policy { *more } else { 0 };
        let holds = regular <= *most && over <= admitted && (!socket.is_overflow() || regular == *most);
        must(holds, Rule::Progress, || format!("{id} is one too many: {regular} of {most} and {over}, {policy:?}"))
    }

    /// Connections of a listener that have not told `close`.
    fn live_of(&self, listener: ListenerId) -> usize {
        self.sides.iter().filter(|side| side.listener == Some(listener)).count()
    }

    fn closed(&mut self, side: Side, ending: Ending) {
        let never_accepts = matches!(self.plan.conversations[side.stream.0], Kind::PeerServer(None));
        if never_accepts && side.read == 0 && side.life.was_connected() {
            self.network.mark(Fault::NeverAccepted);
        }
        self.sockets += 1;
        let conversation = &mut self.conversations[side.stream.0];
        let place = usize::from(!side.stream.1);
        let written = |places| Written { places, bytes: side.written, how: ending.kind.clone() };
        self.written.extend(side.places.map(written));
        let is_pair = match &self.plan.conversations[side.stream.0] {
            Kind::Proxy(proxy) => proxy.pool.is_none(),
            Kind::Pool(_) => false,
            _ => true,
        };
        if side.program == Program::Random && is_pair {
            conversation.endings[place] = Some(ending);
        }
        self.gone.push((side.host, side.id));
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

    fn mark_pauses(&self, side: &Side, socket: &Socket<'_>) {
        if socket.is_paused() && socket.peer_ended() {
            self.network.mark(Fault::PausedWithEndWaiting);
            if !side.had_end {
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
    fn column(&self, Label { stream, program }: Label) -> (Column, String) {
        let several = self.conversations.len() > 1;
        let number = if several { format!("#{} ", stream.0 + 1) } else { String::new() };
        let what = match program {
            Program::Random => "",
            Program::Piped => "proxy: ",
            Program::Pooled => "pool: ",
            Program::Lent => "lent: ",
        };
        (if stream.1 { Column::Client } else { Column::Server }, number + what)
    }

    pub(super) fn note_line(&mut self, label: Label, text: String) {
        let (at, (column, who)) = (self.network.elapsed(), self.column(label));
        if let Some(story) = &mut self.story {
            story.tell(at, column, format!("{who}{text}"));
        }
    }

    fn note_broken(&mut self, side: &Side, event: &Event<'_>) {
        let text = format!("{event} <-- here");
        self.note_line(side.label(), text);
    }

    /// The story with the peers' part in it, once.
    pub(super) fn whole_story(&mut self) -> Transcript {
        let Some(mut story) = self.story.take() else { return Transcript::new() };
        for number in 0..self.conversations.len() {
            let conversation = &self.conversations[number];
            for Acted { play, is_client } in &conversation.plays {
                let (column, who) = self.column(Label { stream: (number, *is_client), program: Program::Random });
                for (at, line) in play.transcript() {
                    story.tell(at, column, format!("{who}{line}"));
                }
            }
        }
        story.sort();
        story
    }
}
