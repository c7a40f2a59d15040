//! One program with its reactor, and all that it knows of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use finale::lifecycle::State;
use finale::sim::{Host, Network};
use finale::{
    ConnectOptions, Error, Event, ListenOptions, ListenerId, Reactor, Socket, SocketId, SocketMap, Sockets, Target,
    TimerId, Waker,
};

use super::Verdict;
use super::judge::{Known, Rules, check, stands_for_none};
use super::op::{Call, MapCall, Setting, Who};

/// EDEADLK: nothing on the simulated network could ever end this wait.
const DEADLOCK: i32 = 35;

pub(crate) struct Program {
    pub(crate) reactor: Reactor<Host>,
    pub(crate) seen: Seen,
    pub(crate) remotes: Vec<Waker>,
    map: SocketMap<u64>,
    /// The last value that was inserted under each id, and not removed.
    kept: BTreeMap<SocketId, u64>,
    /// Those of them that were not replaced.
    placed: BTreeSet<SocketId>,
    puts: u64,
}

/// What a program remembers of events and calls.
#[derive(Default)]
pub(crate) struct Seen {
    known: BTreeMap<SocketId, Known>,
    /// Every id that was seen, in order.
    ids: Vec<SocketId>,
    pub(crate) listeners: Vec<Listening>,
    /// When each timer is due, and whether it still runs.
    pub(crate) timers: BTreeMap<TimerId, (Instant, bool)>,
    /// A wake is still pending.
    woken: bool,
    /// A close that was just delivered as acknowledged: the peer, and how many bytes it must have.
    pub(crate) confirmed: Option<(SocketAddr, u64)>,
    /// Its close was delivered, and `next` was not called since.
    leaving: Option<SocketId>,
}

pub(crate) struct Listening {
    id: ListenerId,
    rules: Rules,
    pub(crate) addr: SocketAddr,
    pub(crate) is_open: bool,
}

/// What can be observed of a reactor without taking events.
#[derive(PartialEq)]
pub(crate) struct Snapshot {
    sockets: Sockets,
    deadline: Option<Instant>,
    descriptors: usize,
}

impl Program {
    pub(crate) fn new(host: Host) -> Self {
        Self {
            reactor: Reactor::with_net(host),
            seen: Seen::default(),
            remotes: Vec::new(),
            map: SocketMap::new(),
            kept: BTreeMap::new(),
            placed: BTreeSet::new(),
            puts: 0,
        }
    }

    pub(crate) fn snapshot(&mut self, network: &Network) -> Snapshot {
        Snapshot {
            sockets: self.reactor.sockets(),
            deadline: self.reactor.next_deadline(),
            descriptors: network.descriptors(),
        }
    }

    pub(crate) const fn has_leaving(&self) -> bool {
        self.seen.leaving.is_some()
    }

    pub(crate) fn ids(&self) -> Vec<SocketId> {
        self.seen.ids.clone()
    }

    pub(crate) fn find(&self, who: Who, foreign: &[SocketId]) -> Option<SocketId> {
        let (ids, n) = match who {
            Who::Live(n) => (self.seen.live(), n),
            Who::Any(n) => (self.ids(), n),
            Who::Foreign(n) => (foreign.to_vec(), n),
        };
        ids.iter().rev().nth(n % ids.len().max(1)).copied()
    }

    /// What must hold between any two calls.
    pub(crate) fn check(&mut self) -> Verdict {
        let live = self.seen.live().len();
        check(self.reactor.len() == live, "len counts those that have not delivered close")?;
        check(self.reactor.is_empty() == (live == 0), "empty means none")?;
        let sockets = self.reactor.sockets();
        check(sockets.len() == live + usize::from(self.seen.leaving.is_some()), "sockets lists them all")?;
        check(sockets.to_string().lines().count() == sockets.len() + 1, "a line for each, and a heading")?;
        for id in self.seen.ids.iter().rev().take(12) {
            let there = self.seen.is_there(*id);
            let found = self.reactor.socket(*id).map(|socket| socket.id());
            check(found == there.then_some(*id), "an id finds its socket while it lives, and only then")?;
            check(there || self.reactor.local_addr(*id).is_none(), "a stale id has no address")?;
        }
        check(self.map.len() == self.map.iter().count(), "the map counts what it has")?;
        check(self.map.is_empty() == self.map.iter().next().is_none(), "empty means none")
    }

    /// The peers of connections that were accepted and that we have not ended.
    pub(crate) fn peers_before_our_end(&mut self) -> Vec<SocketAddr> {
        let sockets: Vec<SocketId> = self.reactor.sockets().iter().map(|socket| socket.id).collect();
        let peer = |id| {
            let socket = self.reactor.socket(id)?;
            let before = !socket.end_called() && socket.state().is_connected() && socket.listener().is_some();
            socket.peer_addr().filter(|_| before)
        };
        sockets.into_iter().filter_map(peer).collect()
    }

    // --- events ---

    /// Takes one event. `None`: the time is up, or nothing is left.
    pub(crate) fn pull(
        &mut self,
        network: &Network,
        until: Option<Instant>,
        answer: Option<(&Call, Option<SocketId>)>,
    ) -> Result<Option<String>, String> {
        self.seen.leaving = None;
        let pulled = match until {
            Some(until) => self.reactor.next_before(until),
            None => self.reactor.next(),
        };
        match pulled {
            Err(Error::System { source, .. }) if source.raw() == DEADLOCK => Ok(None),
            Err(error) => Err(format!("no event but {error}")),
            Ok(None) => {
                self.silence(network, until)?;
                Ok(None)
            }
            Ok(Some((mut socket, event))) => {
                let line = format!("{} {}", socket.id(), in_words(&event));
                self.seen.told(&mut socket, &event, network.now())?;
                let Some((call, other)) = answer else { return Ok(Some(line)) };
                let answered = self.seen.ask(&mut socket, call, other)?;
                Ok(Some(format!("{line}; {call:?}: {answered}")))
            }
        }
    }

    /// No event is pending now.
    fn silence(&mut self, network: &Network, until: Option<Instant>) -> Verdict {
        let now = network.now();
        let early = until.is_none_or(|until| now < until);
        let left = !self.seen.live().is_empty()
            || self.seen.listeners.iter().any(|listener| listener.is_open)
            || self.seen.timers.values().any(|timer| timer.1)
            || !self.remotes.is_empty();
        check(!early || !left, "no event though something is left and the time is not up")?;
        check(!self.seen.woken, "a wake was lost")?;
        for socket in &self.reactor.sockets() {
            let half_open = self.seen.known.get(&socket.id).is_some_and(Known::may_be_half_open);
            check(half_open || socket.state != State::PeerFinished, "without half-open our side ends by itself")?;
        }
        let overdue = |(due, running): &(Instant, bool)| *running && *due + Duration::from_millis(1) <= now;
        check(!self.seen.timers.values().any(overdue), "a timer is overdue")
    }

    // --- calls ---

    pub(crate) fn ask(&mut self, id: SocketId, call: &Call, other: Option<SocketId>) -> Result<String, String> {
        let there = self.seen.is_there(id);
        let Some(mut socket) = self.reactor.socket(id) else {
            return if there { Err(format!("{id} lives and is not found")) } else { Ok("not found".into()) };
        };
        check(there, &format!("{id} is stale and finds {socket:?}"))?;
        self.seen.ask(&mut socket, call, other)
    }

    pub(crate) fn listen(&mut self, network: &Network, addr: &str, settings: &[Setting]) -> Result<String, String> {
        let before = self.snapshot(network);
        let rules = Rules::of(settings, false);
        let options = settings.iter().fold(ListenOptions::default(), |options, setting| setting.listen(options));
        match self.reactor.listen(addr, options) {
            Ok(listener) => {
                check(rules.refusal().is_none(), "an option that can't be was taken")?;
                let bound = listener.addr.ip().expect("the network has IP addresses only");
                check(bound.port() != 0, "the port is chosen")?;
                check(self.seen.listeners.iter().all(|other| other.id != listener.id), "a listener's id came twice")?;
                self.seen.listeners.push(Listening { id: listener.id, rules, addr: bound, is_open: true });
                Ok(format!("{} at {}", listener.id, listener.addr))
            }
            Err(error) => {
                let good = addr.parse::<SocketAddr>().is_ok();
                let expected = match (good, rules.refusal()) {
                    (false, _) => matches!(error, Error::InvalidAddress(_)),
                    (true, Some(refusal)) => error == refusal,
                    (true, None) => matches!(error, Error::Listen { .. }),
                };
                check(expected, &format!("listen answered {error:?}"))?;
                check(self.snapshot(network) == before, "a refused call changes nothing")?;
                Ok(error.to_string())
            }
        }
    }

    pub(crate) fn close_listener(&mut self, network: &Network, which: usize) -> Result<String, String> {
        let count = self.seen.listeners.len().max(1);
        let Some(listener) = self.seen.listeners.iter_mut().rev().nth(which % count) else {
            return Ok("none".into());
        };
        let (id, was_open) = (listener.id, std::mem::replace(&mut listener.is_open, false));
        let before = self.snapshot(network);
        let closed = self.reactor.close_listener(id);
        check(closed == if was_open { Ok(()) } else { Err(Error::Gone) }, "closed once")?;
        check(was_open || self.snapshot(network) == before, "a refused call changes nothing")?;
        Ok(format!("{closed:?}"))
    }

    pub(crate) fn connect(
        &mut self,
        network: &Network,
        to: Result<Target, Error>,
        settings: &[Setting],
    ) -> Result<String, String> {
        let before = self.snapshot(network);
        let rules = Rules::of(settings, true);
        let options = settings.iter().fold(ConnectOptions::default(), |options, setting| setting.connect(options));
        let refusal = to.as_ref().err().cloned().or_else(|| rules.refusal());
        let begun = match to {
            Ok(target) => self.reactor.connect(target, options),
            Err(error) => Err(error),
        };
        match begun {
            Ok(id) => {
                check(refusal.is_none(), "what can't be was taken")?;
                let socket = self.reactor.socket(id).ok_or("a new socket is not found")?;
                check(!self.seen.known.contains_key(&id), "an id names a second socket")?;
                self.seen.known.insert(id, Known::new(&socket, rules)?);
                self.seen.ids.push(id);
                Ok(id.to_string())
            }
            Err(error) => {
                check(Some(&error) == refusal.as_ref(), &format!("connect answered {error:?}"))?;
                check(self.snapshot(network) == before, "a refused call changes nothing")?;
                Ok(error.to_string())
            }
        }
    }

    pub(crate) fn set_timer(&mut self, network: &Network, after: Duration) -> Result<String, String> {
        let id = self.reactor.set_timer(after);
        let due = network.now().checked_add(after).unwrap_or(network.now() + Duration::from_secs(u64::MAX >> 8));
        check(self.seen.timers.insert(id, (due, true)).is_none(), "a timer's id came twice")?;
        Ok(id.to_string())
    }

    pub(crate) fn cancel_timer(&mut self, id: TimerId) -> Verdict {
        let running = self.seen.timers.get_mut(&id).is_some_and(|timer| std::mem::replace(&mut timer.1, false));
        check(self.reactor.cancel_timer(id) == running, "cancelled while it ran")
    }

    pub(crate) fn wake(&mut self, which: usize) -> Verdict {
        let count = self.remotes.len().max(1);
        let Some(remote) = self.remotes.get(which % count) else { return Ok(()) };
        self.seen.woken = true;
        check(remote.wake().is_ok(), "the reactor lives")
    }

    // --- the side table ---

    pub(crate) fn map(&mut self, id: SocketId, call: MapCall) -> Verdict {
        self.puts += 1;
        let held = self.kept.get(&id).copied();
        // Whether it has a slot is known from the last time that it was inserted.
        let newer = |other: &SocketId| other.index() == id.index() && *other > id && self.placed.contains(other);
        let has_newer = self.kept.keys().any(newer);
        let found = self.map.get(id).copied();
        check(found.is_none() || found == held, "another's value")?;
        check(found == held || !self.placed.contains(&id), "a value that has its place was driven out")?;
        if matches!(call, MapCall::Remove) || (matches!(call, MapCall::OrDefault) && found.is_some()) {
            // It stays where it is, or is removed.
        } else if has_newer {
            self.placed.remove(&id);
        } else {
            self.placed.retain(|other| other.index() != id.index());
            self.placed.insert(id);
        }
        match call {
            MapCall::Insert => {
                check(self.map.insert(id, self.puts) == found, "insert answers with the old value")?;
                self.kept.insert(id, self.puts);
            }
            MapCall::Remove => {
                check(self.map.remove(id) == found, "remove answers with the value")?;
                self.kept.remove(&id);
                self.placed.remove(&id);
            }
            MapCall::OrDefault => {
                let value = self.map.or_default(id);
                check(*value == found.unwrap_or(0), "the value, or the default")?;
                *value = self.puts;
                self.kept.insert(id, self.puts);
            }
        }
        let now = self.map.get_mut(id).copied();
        check(now == self.kept.get(&id).copied(), "what was just done can be seen")
    }
}

impl Seen {
    pub(crate) fn live(&self) -> Vec<SocketId> {
        self.known.iter().filter(|(_, known)| !known.closed).map(|(id, _)| *id).collect()
    }

    /// Whether the id must find its socket.
    fn is_there(&self, id: SocketId) -> bool {
        self.known.get(&id).is_some_and(|known| !known.closed) || self.leaving == Some(id)
    }

    /// Checks an event.
    fn told(&mut self, socket: &mut Socket<'_>, event: &Event<'_>, now: Instant) -> Verdict {
        let id = socket.id();
        match event {
            Event::Timer(timer) => {
                let (due, running) = self.timers.get_mut(timer).ok_or("a timer that was not set")?;
                check(std::mem::replace(running, false), "a timer fired twice, or was cancelled")?;
                check(now >= *due, "a timer was early")?;
                return stands_for_none(socket);
            }
            Event::Woken => {
                check(std::mem::replace(&mut self.woken, false), "no waker was used")?;
                return stands_for_none(socket);
            }
            Event::AcceptFailed(id, _) => {
                let open = self.listeners.iter().any(|listener| listener.id == *id && listener.is_open);
                check(open, "a listener that is closed")?;
                return stands_for_none(socket);
            }
            Event::Connection => {
                let listener = self.listeners.iter().find(|listener| Some(listener.id) == socket.listener());
                let listener = listener.ok_or("a listener that was not opened")?;
                check(listener.is_open, "a listener that is closed accepts")?;
                let new = Known::new(socket, listener.rules.clone())?;
                check(self.known.insert(id, new).is_none(), "an id names a second socket")?;
                self.ids.push(id);
            }
            _ => {}
        }
        let it = self.known.get_mut(&id).ok_or("an event of an unknown socket")?;
        it.told(socket, event)?;
        if it.closed {
            self.leaving = Some(id);
        }
        if let Event::Close(ending) = event {
            let peer = ending.peer.filter(|_| ending.is_acknowledged());
            self.confirmed = peer.map(|peer| (peer, ending.bytes_written));
        }
        Ok(())
    }

    /// Makes a call on a socket, or on another through it.
    fn ask(&mut self, socket: &mut Socket<'_>, call: &Call, other: Option<SocketId>) -> Result<String, String> {
        if let (Call::Get(_, inner), Some(other)) = (call, other) {
            let there = self.is_there(other);
            return match (socket.get(other), self.known.get_mut(&other)) {
                (Some(mut found), Some(it)) if there => it.ask(&mut found, inner),
                (None, _) if !there => Ok("not found".into()),
                (found, _) => Err(format!("{other} finds {found:?} through another")),
            };
        }
        match self.known.get_mut(&socket.id()) {
            Some(it) => it.ask(socket, call),
            None => stands_for_none(socket).map(|()| String::new()),
        }
    }
}

/// The event, with its bytes counted.
fn in_words(event: &Event<'_>) -> String {
    match event {
        Event::Data(bytes) => format!("Data({} bytes)", bytes.len()),
        event => format!("{event:?}"),
    }
}
