//! One run: its reactors, its peers, its weather, from the first event to the last close.

use std::time::Duration;

use super::limits::{self, Clock};
use super::pipes;
use super::plan::{Kind, Plan, Weather};
use super::run_state::{Book, Conversation, Door, Todo};
use super::socket_model::{Program, Wish};
use super::stop;
use crate::check::{Rule, Transcript, Violation, must, stuck};
use crate::id::{ListenerId, SocketId, TimerId};
use crate::options::{OverflowPolicy, StopOptions};
use crate::pipe::Pipes;
use crate::reactor::Reactor;
use crate::sim::{Fault, Faults, Host, Network, Rng};

/// Events after which a run has not come to its end though its faults are over.
const EVENTS: u64 = 200_000;
/// From the time at which everything heals to the call to all to end: longer than any limit of a
/// socket.
const LAST_CALL: Duration = Duration::from_secs(60);
/// A run that has not ended by then never will: a peer that takes a byte in a tenth of a second has
/// a megabyte after a day.
const LONGEST: Duration = Duration::from_secs(48 * 60 * 60);
/// Turns of all reactors in a row, at one time, in which nothing was told.
const QUIET_TURNS: u32 = 1_000;

/// A timer of no socket, and what for.
struct Task {
    host: usize,
    id: TimerId,
    due: u64,
    what: What,
}

pub(super) enum What {
    Resume(SocketId),
    /// Room in the full queue of a conversation's server.
    Room(usize),
    /// Somebody asks for a socket of a conversation's pool.
    Ask(usize),
    Weather(Weather),
    /// To look whether a limit has passed, in a run whose sockets may tell nothing for long.
    Look(Duration),
    Heal,
    LastCall,
}

pub(super) struct Run {
    pub(super) reactors: [Option<Reactor<Host>>; 2],
    pub(super) book: Book,
    tasks: Vec<Task>,
    is_healed: bool,
    whose_turn: usize,
}

impl Run {
    pub(super) fn new(seed: u64, favoured: Option<Fault>, is_told: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng, favoured);
        let network = Network::new(seed);
        network.set_latency(plan.latency);
        network.set_buffers(plan.buffers.0, plan.buffers.1);
        network.set_faults(plan.faults);
        network.set_call_cost(plan.costs.call);
        if plan.few_ports {
            network.set_ports(40_000..=40_001);
        }
        let reactors = super::begin::reactors(&network, &plan);
        let book = Book {
            rng,
            is_called: false,
            plan,
            network,
            conversations: Vec::new(),
            limits: Vec::new(),
            stops: Vec::new(),
            sides: Vec::new(),
            pipes: Pipes::new(),
            lendings: Vec::new(),
            gone: Vec::new(),
            written: Vec::new(),
            events: 0,
            sockets: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            story: is_told.then(Transcript::new),
        };
        Self { reactors, book, tasks: Vec::new(), is_healed: false, whose_turn: 0 }
    }

    /// Everything that is there from the start.
    pub(super) fn begin_all(&mut self) {
        for number in 0..self.book.plan.conversations.len() {
            let kind = self.book.plan.conversations[number].clone();
            self.book.conversations.push(Conversation::default());
            self.begin(number, &kind);
        }
        self.set_task(self.book.plan.heal_after, What::Heal);
        for (after, weather) in self.book.plan.weather.clone() {
            self.set_task(after, What::Weather(weather));
        }
        if let Some(flood) = self.book.plan.flood {
            self.set_task(flood / 20, What::Look(flood / 20));
        }
    }

    pub(super) fn set_task(&mut self, after: Duration, what: What) {
        let due = self.book.now().saturating_add(after.as_nanos() as u64);
        let Some(host) = self.reactors.iter().position(Option::is_some) else { return };
        let Some(reactor) = &mut self.reactors[host] else { return };
        let id = reactor.set_timer(after);
        self.tasks.push(Task { host, id, due, what });
    }

    pub(super) fn go(&mut self) -> Result<(), Violation> {
        while self.step()? {
            let (events, elapsed) = (self.book.events, self.book.network.elapsed());
            let goes_on = events < EVENTS && elapsed < LONGEST;
            must(goes_on, Rule::Progress, || {
                format!("no end in sight after {events} events and {elapsed:?}:\n{}", self.table())
            })?;
            if self.book.plan.drop_after == Some(events) {
                self.drop_one()?;
            }
            self.audit()?;
            self.close_listeners_when_done();
        }
        self.check_the_end()
    }

    /// One event, of whichever reactor has one. Answers whether there may be another.
    fn step(&mut self) -> Result<bool, Violation> {
        if self.is_over() {
            return Ok(false);
        }
        self.tend(0)?;
        self.tend(1)?;
        if let [Some(reactor), None] | [None, Some(reactor)] = &mut self.reactors {
            let host = reactor.net().index();
            let told = reactor.next().map_err(|error| stuck(&error));
            let Some((socket, event)) = told? else {
                return Err(Violation::new(
                    Rule::Progress,
                    "the reactor has nothing left, and some events were not delivered",
                ));
            };
            let todo = self.book.handle(host, socket, event)?;
            return self.obey(host as usize, todo).map(|()| self.spend());
        }
        let (mut quiet, mut seen) = (0, self.seen());
        while quiet < QUIET_TURNS && self.book.network.elapsed() < LONGEST {
            quiet = if seen == self.seen() { quiet + 1 } else { 0 };
            seen = self.seen();
            self.whose_turn = 1 - self.whose_turn;
            let host = self.whose_turn;
            let now = self.book.network.now();
            let Some(reactor) = &mut self.reactors[host] else { continue };
            let told = reactor.next_before(now).map_err(|error| stuck(&error))?;
            if let Some((socket, event)) = told {
                let todo = self.book.handle(host as u32, socket, event)?;
                return self.obey(host, todo).map(|()| self.spend());
            }
            if host == 0 && !self.let_time_pass(quiet)? {
                return Ok(!self.is_over());
            }
        }
        Err(Violation::new(Rule::NoSpin, format!("turn after turn for nothing:\n{}", self.table())))
    }

    /// The time that has passed without anybody working, and what has happened: if neither changes,
    /// turns are for nothing.
    fn seen(&self) -> (Duration, u64) {
        let network = &self.book.network;
        (network.elapsed() - network.busy(), network.happenings())
    }

    /// What the program did with an event takes its time. Answers that there may be another.
    fn spend(&self) -> bool {
        self.book.network.spend(self.book.plan.costs.handler);
        true
    }

    /// With several reactors nobody's wait moves the clock. Answers whether somebody has work, or
    /// time has passed.
    fn let_time_pass(&mut self, quiet: u32) -> Result<bool, Violation> {
        let network = &self.book.network;
        // Two turns of each take in what news there is.
        let next = if quiet < 2 * 2 { network.next_event() } else { network.next_happening() };
        let deadlines = self.reactors.iter_mut().flatten().map(Reactor::next_deadline);
        let due = deadlines.chain([next]).flatten().min();
        let Some(due) = due else {
            return match self.is_over() {
                true => Ok(false),
                false => Err(Violation::new(Rule::Progress, format!("it stands still:\n{}", self.table()))),
            };
        };
        network.advance(due.saturating_duration_since(network.now()));
        Ok(true)
    }

    /// Everybody who can go on is about to.
    fn audit(&mut self) -> Result<(), Violation> {
        for reactor in self.reactors.iter_mut().flatten() {
            reactor.audit().map_err(|wrong| Violation::new(Rule::Progress, wrong))?;
            let host = reactor.net().index();
            for waits in reactor.waiting() {
                let overlooked = self.book.network.overlooked(host, &waits);
                must(overlooked.is_none(), Rule::Progress, || {
                    format!("socket {} waits, and has {}", waits.slot, overlooked.unwrap_or_default())
                })?;
            }
        }
        self.audit_pipes()?;
        self.audit_limits()
    }

    /// No limit of any socket has passed, whatever kept its reactor busy meanwhile.
    fn audit_limits(&mut self) -> Result<(), Violation> {
        let Self { reactors, book, .. } = self;
        for place in 0..book.sides.len() {
            let side = &book.sides[place];
            let socket = reactors[side.host as usize].as_mut().and_then(|reactor| reactor.socket(side.id));
            let Some(socket) = socket else { continue };
            let (truth, clock) = (book.truth(side), book.clock(side.host));
            stop::note(&mut book.sides[place], &socket, &truth, clock)?;
            let overdue = limits::overdue(&book.sides[place], &socket, &truth, clock);
            must(overdue.is_none(), Rule::Timers, || format!("{socket:?} lives, and {}", overdue.unwrap_or_default()))?;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let is_open = |it: &Conversation| it.listener.is_some() || it.backend.is_some();
        let listening = self.book.conversations.iter().any(is_open);
        let stopping = self.reactors.iter().flatten().any(|reactor| !reactor.listener_ids().is_empty());
        self.book.sides.is_empty() && self.tasks.is_empty() && !listening && !stopping
    }

    /// Everything that lives, to be read by people.
    pub(super) fn table(&self) -> String {
        self.reactors.iter().flatten().map(|reactor| reactor.sockets().to_string()).collect()
    }

    fn obey(&mut self, host: usize, todo: Todo) -> Result<(), Violation> {
        match todo {
            Todo::Nothing | Todo::Wish(_, Wish::Nothing) => Ok(()),
            Todo::Timer(id) => self.timer(host, id),
            Todo::Wish(id, Wish::ResumeAfter(time)) => {
                let Some(reactor) = &mut self.reactors[host] else { return Ok(()) };
                let timer = reactor.set_timer(time);
                let due = self.book.now() + time.as_nanos() as u64;
                self.tasks.push(Task { host, id: timer, due, what: What::Resume(id) });
                Ok(())
            }
            Todo::Wish(_, Wish::Wake) => {
                let Some(reactor) = &mut self.reactors[host] else { return Ok(()) };
                let remote = reactor.waker();
                let woken = remote.wake().and_then(|()| remote.wake());
                self.book.network.mark(Fault::WakesMerged);
                must(woken.is_ok(), Rule::Progress, || "a wake was refused".to_owned())
            }
            Todo::Wish(_, Wish::Meddle) => self.meddle(host),
            Todo::Wish(front, Wish::Backend) => self.connect_behind(host, front),
        }
    }

    /// Looks for sockets that are gone, and resumes or destroys those that live.
    fn meddle(&mut self, host: usize) -> Result<(), Violation> {
        let Some(reactor) = &mut self.reactors[host] else { return Ok(()) };
        let stale = self.book.gone.iter().filter(|(whose, _)| *whose as usize == host);
        for (_, id) in stale {
            self.book.network.mark(Fault::StaleId);
            must(reactor.socket(*id).is_none(), Rule::Identity, || format!("{id} is gone, and was found"))?;
        }
        if self.book.events.is_multiple_of(2) && !self.is_healed {
            let stops = &self.book.stops;
            let is_open = |id: &ListenerId| stops.iter().all(|(stopping, _)| stopping != id);
            for id in reactor.listener_ids().into_iter().filter(is_open) {
                must(reactor.pause_accepting(id).is_ok(), Rule::Identity, || {
                    format!("{id} is open, and was not found")
                })?;
            }
        }
        let (mut destroyed, now) = (Vec::new(), self.book.now());
        let own = self.book.sides.iter_mut().filter(|side| side.host as usize == host);
        for side in own {
            let Some(mut socket) = reactor.socket(side.id) else {
                return Err(Violation::new(Rule::Identity, format!("{} lives, and was not found", side.id)));
            };
            if self.book.rng.chance(0.3) {
                side.destroy(&mut socket);
                destroyed.push(side.label());
            } else if side.program == Program::Random {
                socket.resume();
                side.look_paused(&socket, now);
            }
        }
        for label in destroyed {
            self.book.note_line(label, "  destroys, in another's event".to_owned());
        }
        Ok(())
    }

    fn timer(&mut self, host: usize, id: TimerId) -> Result<(), Violation> {
        let place = self.tasks.iter().position(|task| task.host == host && task.id == id);
        let Some(place) = place else {
            return Err(Violation::new(Rule::Identity, format!("{id} is no timer of ours")));
        };
        let task = self.tasks.swap_remove(place);
        let Clock { now, late, .. } = self.book.clock(host as u32);
        must(now >= task.due, Rule::Timers, || format!("{id} was {} ns early", task.due - now))?;
        must(now < task.due + late, Rule::Timers, || format!("{id} was {} ns late", now - task.due))?;
        match task.what {
            What::Resume(socket) => {
                if let Some(mut socket) = self.reactors[host].as_mut().and_then(|reactor| reactor.socket(socket)) {
                    let id = socket.id();
                    let side = self.book.sides.iter_mut().find(|side| side.host as usize == host && side.id == id);
                    socket.resume();
                    side.into_iter().for_each(|side| side.look_paused(&socket, now));
                }
            }
            What::Room(number) => self.make_room(number),
            What::Ask(number) if !self.book.is_called => self.ask(number, None),
            What::Ask(_) => {}
            What::Weather(weather) => self.weather(weather),
            What::Look(again) if !self.is_healed => self.set_task(again, What::Look(again)),
            What::Look(_) => {}
            What::Heal => self.heal(),
            What::LastCall => self.last_call()?,
        }
        Ok(())
    }

    fn heal(&mut self) {
        self.book.network.set_faults(Faults::none());
        self.book.network.heal(self.book.plan.machines.away);
        for reactor in self.reactors.iter_mut().flatten() {
            for id in reactor.listener_ids() {
                // One that is stopping accepts whoever waits.
                let _ = reactor.resume_accepting(id);
            }
        }
        self.book.weather("the faults are over");
        self.is_healed = true;
        self.set_task(LAST_CALL, What::LastCall);
    }

    /// All end.
    fn last_call(&mut self) -> Result<(), Violation> {
        self.book.weather("all are called to end");
        let waiting = self.book.network.waiting();
        let may_wait = self.book.limits.iter().any(|(_, (_, excess))| *excess != OverflowPolicy::Reset);
        // A pool may have just begun another connection.
        let may_wait = may_wait || !self.book.lendings.is_empty();
        must(waiting == 0 || may_wait, Rule::Progress, || format!("{waiting} connections still wait to be accepted"))?;
        self.close_pools();
        self.note_who_must_end_well();
        self.book.is_called = true;
        let now = self.book.now();
        let Self { reactors, book, .. } = self;
        for (host, reactor) in reactors.iter_mut().enumerate() {
            let Some(reactor) = reactor else { continue };
            for side in book.sides.iter_mut().filter(|side| side.host as usize == host) {
                let Some(mut socket) = reactor.socket(side.id) else { continue };
                match side.program {
                    Program::Random | Program::Lent => {}
                    Program::Piped => {
                        pipes::call(side, &mut socket, now);
                        continue;
                    }
                    Program::Pooled => continue,
                }
                let lost = side.owes_drain && socket.queued_bytes() == 0;
                must(!lost, Rule::Progress, || format!("{}: a drain was lost", side.id))?;
                socket.resume();
                side.look_paused(&socket, now);
                side.end(&mut socket, now);
            }
        }
        Ok(())
    }

    /// Two connected sockets of ours, both open, with limits that a healthy network keeps.
    fn note_who_must_end_well(&mut self) {
        let Self { reactors, book, .. } = self;
        for number in 0..book.conversations.len() {
            if matches!(book.plan.conversations[number], Kind::Proxy(_) | Kind::Pool(_)) {
                continue;
            }
            let fine = book.sides.iter().filter(|side| {
                let reactor = reactors[side.host as usize].as_mut();
                side.stream.0 == number
                    && reactor.and_then(|reactor| reactor.socket(side.id)).is_some_and(|socket| side.is_fine(&socket))
            });
            book.conversations[number].must_end_well = fine.count() == 2;
        }
    }

    /// The timers of a reactor that is gone are set on the other; those of its sockets went with
    /// it.
    pub(super) fn move_tasks(&mut self, host: usize) {
        let now = self.book.now();
        let (gone, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.tasks).into_iter().partition(|task| task.host == host);
        self.tasks = kept;
        for task in gone {
            match task.what {
                What::Resume(_) => {}
                What::Room(_) | What::Ask(_) | What::Weather(_) | What::Look(_) | What::Heal | What::LastCall => {
                    self.set_task(Duration::from_nanos(task.due.saturating_sub(now)), task.what);
                }
            }
        }
    }

    fn close_listeners_when_done(&mut self) {
        // A pool may still open a connection.
        let may_connect = !self.book.is_called && !self.book.lendings.is_empty();
        if !self.is_healed || may_connect || !self.book.sides.is_empty() || self.book.network.waiting() > 0 {
            return;
        }
        for conversation in &mut self.book.conversations {
            for Door { host, id, .. } in
                [conversation.listener.take(), conversation.backend.take()].into_iter().flatten()
            {
                let Some(reactor) = &mut self.reactors[host] else { continue };
                // Who shared it may have closed it. Closed or stopped, as the number says.
                let _ = match id.index() % 2 {
                    0 => reactor.close_listener(id),
                    _ => reactor.stop_listener(id, StopOptions::default()),
                };
            }
        }
    }
}
