//! One case, run: a reactor with the handler, a scripted peer, and the rules.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::{Case, Cut, Endings, Found, Place, Protocol, Role};
use crate::check::{Column, EventGrammar, Rule, Transcript, Violation, must, note, stuck};
use crate::event::{Ending, Event};
use crate::id::SocketId;
use crate::options::{ConnectOptions, ListenOptions};
use crate::reactor::{Listener, Reactor};
use crate::sim::{Faults, Host, Network, Play, Reach, Rng, Script};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const AWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const PORT: u16 = 7;

/// Another machine, for the peer that comes after the cut.
const LATER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3));

/// A hundred years: longer is for ever to a simulated network too.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);
/// Longer than any packet is on its way, and some repetitions of a lost one.
const ON_ITS_WAY: Duration = Duration::from_secs(20);

/// Events of one case after which a handler and its peer talk for ever.
const EVENTS: u64 = 50_000;
/// And so many more for each byte of the conversation: with one byte in the window each is an event
/// or two.
const EVENTS_PER_BYTE: u64 = 20;

struct Trial {
    network: Network,
    reactor: Reactor<Host>,
    /// The handler's listener, if it is a server.
    listener: Option<Listener>,
    /// The peer that is cut; `None` if there is nobody to connect to.
    play: Option<Play>,
    /// The peer after it, and what it plays.
    second: Option<Play>,
    whole: Script,
    lives: Vec<(SocketId, EventGrammar)>,
    /// How the first socket ended, which the first peer talks to.
    ending: Option<Ending>,
    /// How the second peer's did.
    second_ending: Option<Ending>,
    /// By when the present connection must be over.
    until: Instant,
    patience: Duration,
    /// The handler's column.
    column: Column,
    story: Option<Transcript>,
}

impl Endings {
    /// Runs a case, and writes its story down if there is a place for it.
    pub(super) fn trial<P: Protocol>(
        &self,
        case: Case,
        make: &impl Fn() -> P,
        story: Option<&mut Transcript>,
    ) -> Result<Found, Violation> {
        let mut trial = self.begin(case, story.is_some())?;
        let run = catch_unwind(AssertUnwindSafe(|| {
            let mut handler = make();
            trial.go(&mut handler)?;
            let found = trial.found(case);
            handler.at_rest(&found).map_err(|wrong| Violation::new(Rule::Own, wrong))?;
            Ok(found)
        }));
        if let (Some(story), Some(told)) = (story, trial.whole_story()) {
            *story = told;
        }
        run.unwrap_or_else(|panic| Err(Violation::new(Rule::Own, format!("the handler panicked: {}", said(&*panic)))))
    }

    fn begin(&self, case: Case, is_told: bool) -> Result<Trial, Violation> {
        let network = Network::new(case.seed());
        if case.weather > 0 {
            let mut rng = Rng::new(case.weather);
            // With one byte in the window a whole second passes for a few dozen bytes, if each
            // waits for its packet.
            let mut faults = Faults::random(&mut rng).harmless();
            let most = if case.needs_a_small_window() { Duration::ZERO } else { Duration::from_millis(5) };
            faults.jitter = faults.jitter.min(most);
            network.set_faults(faults);
            network.set_buffers(1 + rng.below(500) as usize, 1 + rng.below(500) as usize);
        }
        let script = case.script(&self.script);
        let is_server = matches!(self.role, Role::Server(_));
        let now = network.now();
        let mut trial = Trial {
            reactor: Reactor::with_net(network.host(HOME)),
            network,
            listener: None,
            play: None,
            second: None,
            whole: self.script.clone(),
            lives: Vec::new(),
            ending: None,
            second_ending: None,
            until: now,
            patience: self.patience.min(FOR_EVER),
            column: if is_server { Column::Server } else { Column::Client },
            story: is_told.then(Transcript::new),
        };
        let began = trial.meet(&self.role, case, script);
        began.map_err(|wrong| Violation::new(Rule::Progress, format!("it can't begin: {wrong}")))?;
        Ok(trial)
    }
}

impl Trial {
    /// Brings the handler's side and the peer together.
    fn meet(&mut self, role: &Role, case: Case, script: Script) -> Result<(), Box<dyn std::error::Error>> {
        let peer = self.network.peer(AWAY);
        // One byte in the window: what the peer receives can be cut at each.
        let window = case.needs_a_small_window().then_some(1);
        match role {
            Role::Server(options) => {
                let listener = self.reactor.listen((HOME, PORT), (**options).clone())?;
                let options = window
                    .map_or(ConnectOptions::default(), |bytes| ConnectOptions::default().receive_buffer_size(bytes));
                self.play = Some(peer.play_with(listener.addr, &options, script)?);
                self.listener = Some(listener);
            }
            Role::Client(options) => {
                let at = SocketAddr::new(AWAY, PORT);
                if case.place != Place::Connecting {
                    let own = window
                        .map_or(ListenOptions::default(), |bytes| ListenOptions::default().receive_buffer_size(bytes));
                    self.play = Some(peer.listen_with(at, &own)?.play(script));
                } else if case.cut == Cut::Vanish {
                    self.network.set_reach(AWAY, Reach::BlackHole);
                }
                self.reactor.connect(at, (**options).clone())?;
            }
        }
        Ok(())
    }

    /// Up to the end of everything.
    fn go<P: Protocol>(&mut self, handler: &mut P) -> Result<(), Violation> {
        self.until = self.network.now() + self.patience;
        let most = EVENTS + EVENTS_PER_BYTE * self.whole.bytes();
        let mut events = 0;
        while self.step(handler)? {
            events += 1;
            must(events < most, Rule::Progress, || {
                format!("they talk for ever: {events} events in {:?}", self.network.elapsed())
            })?;
        }
        must(self.reactor.is_empty(), Rule::Progress, || {
            let table = self.reactor.sockets();
            format!(
                "a connection did not end within {:?} (a silent peer needs an idle timeout)\n{table}",
                self.patience
            )
        })?;
        self.nobody_else_will_come();
        must(self.network.descriptors() == 0, Rule::Resources, || "a descriptor is left".to_owned())?;
        // What is still on its way is the peer's to see, though we are done.
        self.network.advance(ON_ITS_WAY);
        Ok(())
    }

    fn found(&self, case: Case) -> Found {
        let play = self.play.as_ref();
        Found {
            case,
            sent: play.map(Play::sent).unwrap_or_default(),
            received: play.map(Play::received).unwrap_or_default(),
            peer_got_end: play.is_some_and(Play::has_end),
            peer_died: play.is_some_and(Play::is_reset),
            second: self.second.as_ref().map(Play::received),
            second_wrong: self.second_wrong(),
            undone: play.and_then(Play::undone),
            ending: self.ending.clone(),
        }
    }

    /// One event. Answers whether there may be another.
    fn step<P: Protocol>(&mut self, handler: &mut P) -> Result<bool, Violation> {
        let told = self.reactor.next_before(self.until);
        let told = told.map_err(|error| stuck(&error))?;
        let Some((mut socket, event)) = told else { return Ok(false) };
        let id = socket.id();
        if id != SocketId::NONE {
            let place = self.lives.iter().position(|(known, _)| *known == id).unwrap_or_else(|| {
                self.lives.push((id, EventGrammar::new(&socket)));
                self.lives.len() - 1
            });
            let judged = self.lives[place].1.tell(&socket, &event);
            judged.map_err(|wrong| Violation::new(Rule::Language, wrong))?;
        }
        let ending = if let Event::Close(ending) = event { Some(ending.clone()) } else { None };
        let at = self.network.elapsed();
        match &mut self.story {
            Some(story) => note(story, at, self.column, "", &mut socket, event, |socket, event| {
                handler.handle(socket, event);
            }),
            None => handler.handle(&mut socket, event),
        }
        if let Some(ending) = ending {
            self.closed(ending);
        }
        self.reactor.audit().map_err(|wrong| Violation::new(Rule::Progress, wrong))?;
        let overlooked = self.reactor.waiting().find_map(|waits| self.network.overlooked(0, &waits));
        must(overlooked.is_none(), Rule::Progress, || format!("it waits, and has {}", overlooked.unwrap_or_default()))?;
        Ok(true)
    }

    /// The first peer's connection is over: a second peer comes, and after it nobody.
    fn closed(&mut self, ending: Ending) {
        if self.ending.is_some() {
            self.second_ending.get_or_insert(ending);
            return self.nobody_else_will_come();
        }
        self.ending = Some(ending);
        if let Some(listener) = self.listener {
            self.network.set_faults(Faults::none());
            self.until = self.network.now() + self.patience;
            self.second = self.network.peer(LATER).play(listener.addr, self.whole.clone()).ok();
        }
    }

    /// What went wrong with the second peer, beside its bytes.
    fn second_wrong(&self) -> Option<String> {
        let play = self.second.as_ref()?;
        if let Some(step) = play.undone() {
            return Some(format!("a second peer never got past \"{step}\""));
        }
        let ending = self.second_ending.as_ref().filter(|ending| !ending.is_clean());
        ending.map(|ending| format!("a second peer's connection did not end in good order: \"{ending}\""))
    }

    fn nobody_else_will_come(&mut self) {
        if let Some(listener) = self.listener.take() {
            // It is open: only here it is closed.
            let _ = self.reactor.close_listener(listener.id);
        }
    }

    /// Both columns, once.
    fn whole_story(&mut self) -> Option<Transcript> {
        let mut story = self.story.take()?;
        let other = if self.column == Column::Server { Column::Client } else { Column::Server };
        for (play, who) in [(&self.play, ""), (&self.second, "second peer: ")] {
            for (at, line) in play.iter().flat_map(Play::transcript) {
                story.tell(at, other, format!("{who}{line}"));
            }
        }
        story.sort();
        Some(story)
    }
}

/// What a panic has said.
pub(crate) fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no message").to_owned()
}
