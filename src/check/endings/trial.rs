//! One case, run: a reactor with the handler, a scripted peer, and the rules.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::{Case, Endings, Found, Protocol, Role};
use crate::check::{Broken, Column, Life, Rule, Story, must, note};
use crate::event::{Ending, Event};
use crate::id::SocketId;
use crate::options::{Connect, Listen};
use crate::reactor::Reactor;
use crate::sim::{Faults, Host, Network, Play, Rng};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const AWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const PORT: u16 = 7;

/// Events of one case after which a handler and its peer talk for ever.
const EVENTS: u32 = 1_000_000;

struct Trial {
    network: Network,
    reactor: Reactor<Host>,
    play: Play,
    lives: Vec<(SocketId, Life)>,
    /// How the first socket ended, which the peer talks to.
    ending: Option<Ending>,
    /// The handler's column.
    column: Column,
    story: Option<Story>,
}

impl Endings {
    /// Runs a case, and writes its story down if there is a place for it.
    pub(super) fn trial<P: Protocol>(
        &self,
        case: Case,
        make: &impl Fn() -> P,
        story: Option<&mut Story>,
    ) -> Result<Found, Broken> {
        let (mut trial, sent) = self.begin(case, story.is_some())?;
        let run = catch_unwind(AssertUnwindSafe(|| trial.go(&mut make(), self.patience)));
        if let (Some(story), Some(told)) = (story, trial.whole_story()) {
            *story = told;
        }
        let ending = run
            .unwrap_or_else(|panic| Err(Broken::new(Rule::Own, format!("the handler panicked: {}", said(&*panic)))))?;
        let (play, case) = (&trial.play, case);
        let (received, peer_got_end, peer_died) = (play.received(), play.has_end(), play.is_reset());
        Ok(Found { case, sent, received, peer_got_end, peer_died, ending })
    }

    fn begin(&self, case: Case, is_told: bool) -> Result<(Trial, Vec<u8>), Broken> {
        let network = Network::new(case.seed);
        if case.weather > 0 {
            let mut rng = Rng::new(case.seed);
            network.set_faults(Faults::random(&mut rng).harmless());
            network.set_buffers(1 + rng.below(500) as usize, 1 + rng.below(500) as usize);
        }
        let mut reactor = Reactor::with_net(network.host(HOME));
        let peer = network.peer(AWAY);
        let (script, sent) = case.script(&self.script);
        // One byte in the window: what the peer receives can be cut at each.
        let window = case.needs_a_small_window().then_some(1);
        let began = match &self.role {
            Role::Server(options) => {
                reactor.listen((HOME, PORT), (**options).clone()).map_err(|error| error.to_string()).and_then(|_| {
                    let options = window.map_or(Connect::default(), |bytes| Connect::default().receive_buffer(bytes));
                    let to = SocketAddr::new(HOME, PORT);
                    peer.play_with(to, &options, script).map_err(|error| error.to_string())
                })
            }
            Role::Client(options) => {
                let own = window.map_or(Listen::default(), |bytes| Listen::default().receive_buffer(bytes));
                let at = SocketAddr::new(AWAY, PORT);
                peer.listen_with(at, &own).map_err(|error| error.to_string()).and_then(|listener| {
                    let play = listener.play(script);
                    reactor.connect(at, (**options).clone()).map(|_| play).map_err(|error| error.to_string())
                })
            }
        };
        let play = began.map_err(|wrong| Broken::new(Rule::Progress, wrong))?;
        let column = if matches!(self.role, Role::Server(_)) { Column::Server } else { Column::Client };
        let story = is_told.then(Story::new);
        Ok((Trial { network, reactor, play, lives: Vec::new(), ending: None, column, story }, sent))
    }
}

impl Trial {
    /// Up to the end of everything. The report of the socket that the peer talks to.
    fn go<P: Protocol>(&mut self, handler: &mut P, patience: Duration) -> Result<Option<Ending>, Broken> {
        let until = self.network.now() + patience;
        for _ in 0..EVENTS {
            if !self.step(handler, until)? {
                break;
            }
        }
        let held = || format!("a connection never ended:\n{}", self.reactor.sockets());
        must(self.reactor.is_empty(), Rule::Progress, held)?;
        let listeners = self.reactor.listener_ids();
        listeners.into_iter().for_each(|id| drop(self.reactor.close_listener(id)));
        must(self.network.descriptors() == 0, Rule::Resources, || "a descriptor is left".to_owned())?;
        handler.at_rest().map_err(|wrong| Broken::new(Rule::Own, wrong))?;
        Ok(self.ending.clone())
    }

    /// One event. Answers whether there may be another.
    fn step<P: Protocol>(&mut self, handler: &mut P, until: std::time::Instant) -> Result<bool, Broken> {
        let elapsed = self.network.elapsed();
        let next = self.reactor.next_before(until);
        let told = next.map_err(|error| Broken::new(Rule::Progress, format!("the network stands still: {error}")))?;
        let Some((mut socket, event)) = told else { return Ok(false) };
        let id = socket.id();
        if id != SocketId::NONE {
            let place = self.lives.iter().position(|(known, _)| *known == id).unwrap_or_else(|| {
                self.lives.push((id, Life::of(&socket)));
                self.lives.len() - 1
            });
            let judged = self.lives[place].1.tell(&socket, &event);
            judged.map_err(|wrong| Broken::new(Rule::Language, wrong))?;
            if let Event::Close(ending) = &event {
                self.ending.get_or_insert_with(|| ending.clone());
            }
        }
        let is_close = matches!(event, Event::Close(_));
        let elapsed = elapsed.max(self.network.elapsed());
        match &mut self.story {
            Some(story) => note(story, elapsed, self.column, "", &mut socket, event, |socket, event| {
                handler.handle(socket, event);
            }),
            None => handler.handle(&mut socket, event),
        }
        if is_close {
            // The conversation is over: nobody else will come.
            let listeners = self.reactor.listener_ids();
            listeners.into_iter().for_each(|id| drop(self.reactor.close_listener(id)));
        }
        self.reactor.audit().map_err(|wrong| Broken::new(Rule::Progress, wrong))?;
        Ok(true)
    }

    /// Both columns, once.
    fn whole_story(&mut self) -> Option<Story> {
        let mut story = self.story.take()?;
        let other = if self.column == Column::Server { Column::Client } else { Column::Server };
        for (at, line) in self.play.story() {
            story.tell(at, other, line);
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
