//! The grammar of the events of one socket.
//!
//! Invariant: this does not use the table of the lifecycle. Two independent descriptions of the
//! grammar must agree.

use crate::event::{Ending, EndingKind, Event, FirstFin, PeerEnd};
use crate::socket::Socket;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// At most `lookup` was delivered.
    Before,
    /// `connect` was delivered, and `ready` must follow.
    Connect,
    Flow,
    /// After `end`: no `data`.
    Ended,
    /// After `error`: only `close`.
    Failed,
    Closed,
}

/// Checks the events of one socket against the grammar in [`Event`](crate::Event) and against what
/// the socket itself reports.
///
/// Pass it every event of the socket, in order.
///
/// ```
/// use finale::SocketMap;
/// use finale::check::EventGrammar;
/// use finale::sim::{Network, Script};
/// use finale::{Event, ListenOptions, Reactor};
///
/// let network = Network::new(1);
/// let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
/// let listener = reactor.listen("10.0.0.1:80", ListenOptions::default())?;
/// network.peer([10, 0, 0, 2].into()).play(listener.addr, Script::new().send(b"x").reset()).expect("a route");
///
/// let mut grammars = SocketMap::new();
/// while let Some((socket, event)) = reactor.next()? {
///     if event.is_socket_event() {
///         let id = socket.id();
///         if grammars.get(id).is_none() {
///             grammars.insert(id, EventGrammar::new(&socket));
///         }
///         let grammar: &mut EventGrammar = grammars.get_mut(id).expect("it was just inserted");
///         grammar.check(&socket, &event).expect("an event that the grammar allows");
///         if grammar.is_closed() {
///             reactor.close_listener(listener.id)?;
///         }
///     }
/// }
/// # Ok::<(), finale::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct EventGrammar {
    stage: Stage,
    is_client: bool,
    connected: bool,
    ended: bool,
    noticed: Option<PeerEnd>,
    bytes: u64,
}

impl EventGrammar {
    /// For a socket that has delivered no event yet.
    #[must_use]
    pub fn new(socket: &Socket<'_>) -> Self {
        let is_client = socket.listener().is_none();
        Self { stage: Stage::Before, is_client, connected: false, ended: false, noticed: None, bytes: 0 }
    }

    /// Whether `ready` or `connection` was delivered.
    pub(crate) const fn was_connected(&self) -> bool {
        self.connected
    }

    /// Whether `close` was delivered.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.stage, Stage::Closed)
    }

    /// Checks the next event.
    ///
    /// # Errors
    /// What is wrong with the event, in one line.
    pub fn check(&mut self, socket: &Socket<'_>, event: &Event<'_>) -> Result<(), String> {
        let before = self.stage;
        let next = self.next_stage(socket, event);
        next.map(|stage| self.stage = stage).map_err(|wrong| {
            format!("{}: {event:?} after {before:?}: {wrong}", socket.id()).chars().take(600).collect()
        })
    }

    fn next_stage(&mut self, socket: &Socket<'_>, event: &Event<'_>) -> Result<Stage, &'static str> {
        let flowing = self.stage == Stage::Flow;
        let connected = flowing || self.stage == Stage::Ended;
        let check = |holds: bool, stage, wrong| if holds { Ok(stage) } else { Err(wrong) };
        self.connected |= matches!(event, Event::Ready | Event::Connection);
        match event {
            Event::Lookup(_) => check(self.stage == Stage::Before && self.is_client, Stage::Before, "too late"),
            Event::Connect => check(self.stage == Stage::Before && self.is_client, Stage::Connect, "too late"),
            Event::Ready => check(self.stage == Stage::Connect, Stage::Flow, "ready follows connect"),
            Event::Connection => check(self.stage == Stage::Before && !self.is_client, Stage::Flow, "it comes first"),
            Event::Data(bytes) => {
                self.bytes += bytes.len() as u64;
                let counted = self.bytes <= socket.bytes_read() && !bytes.is_empty();
                check(flowing && counted && !socket.is_paused(), Stage::Flow, "no data after end or while paused")
            }
            Event::Filled | Event::Spliced(_) => {
                check(flowing && !socket.is_paused(), Stage::Flow, "no data after end or while paused")
            }
            Event::Drain => {
                let low = socket.settings().map_or(0, |settings| settings.low_water_bytes);
                check(connected && socket.queued_bytes() <= low, self.stage, "drain means down to the low-water mark")
            }
            Event::Timeout => check(connected, self.stage, "not connected"),
            Event::PeerEnded(how) => {
                // A reset may follow a FIN.
                let first = self.noticed.is_none_or(|before| before == PeerEnd::Fin && *how == PeerEnd::Reset);
                self.noticed = Some(*how);
                check(flowing && first && socket.peer_ended(), Stage::Flow, "once, before end")
            }
            Event::End => {
                self.ended = true;
                check(flowing && socket.peer_ended() && !socket.is_paused(), Stage::Ended, "end comes once")
            }
            Event::Error(failure) => {
                let lines = failure.to_string().lines().count();
                let open = connected || (self.stage == Stage::Before && self.is_client);
                check(open && lines == 1, Stage::Failed, "at most one error, in one line")
            }
            Event::Close(ending) => self.check_close(ending),
            Event::Timer(_)
            | Event::Woken
            | Event::AcceptFailed(..)
            | Event::Overflow(..)
            | Event::ListenerClosed(_) => Err("not an event of a socket"),
        }
    }

    /// Checks the report against the events before it.
    fn check_close(&self, ending: &Ending) -> Result<Stage, &'static str> {
        let has_finished = self.ended || self.noticed == Some(PeerEnd::Fin);
        let holds = [
            (self.stage != Stage::Closed, "close comes once"),
            (self.stage != Stage::Connect, "ready follows connect"),
            (ending.had_error() == (self.stage == Stage::Failed), "had_error means that an error was delivered"),
            (!ending.is_clean() || self.ended, "clean without the peer's end"),
            (!ending.is_clean() || ending.bytes_unsent == 0, "clean with bytes unsent"),
            (!ending.is_clean() || ending.first_fin != FirstFin::Neither, "clean and neither end finished"),
            (
                !has_finished || ending.first_fin != FirstFin::Neither,
                "the peer's end was delivered, and neither finished",
            ),
            (ending.is_acknowledged() == (ending.kind == EndingKind::Confirmed), "acknowledged means confirmed"),
            (ending.bytes_read >= self.bytes, "fewer bytes read than delivered"),
            (ending.to_string().lines().count() == 1, "the report is one line"),
        ];
        holds.iter().find(|(holds, _)| !holds).map_or(Ok(Stage::Closed), |(_, wrong)| Err(*wrong))
    }
}
