//! How a reactor is made, and how it returns its events.

use std::time::Instant;

use super::listeners::Listeners;
use super::turn::Turn;
use super::{RECEIVE_BYTES, Reactor, system};
use crate::error::{ConnectionError, ConnectionErrorKind, Error, OsError};
use crate::event::{Ending, Event};
use crate::id::{ListenerId, TimerId};
use crate::metrics::Counts;
use crate::net::Net;
use crate::net::os::Os;
use crate::socket::Socket;
use crate::table::Table;
use crate::table::entry::NIL;
use crate::table::shared::Shared;
use crate::ticks::Epoch;
use crate::trace::{Recorder, Traced};

impl Reactor {
    /// A reactor on the real operating system.
    ///
    /// # Errors
    /// [`Error::System`] if the system has no descriptor for epoll or for the waker.
    pub fn new() -> Result<Self, Error> {
        Self::on(|os| os)
    }
}

/// A reactor whose connections a [`Recorder`] records. What works with both kinds is generic.
///
/// ```
/// use finale::net::Net;
/// use finale::trace::Recorder;
/// use finale::{Reactor, RecordedReactor};
/// fn live<N: Net>(reactor: &Reactor<N>) -> usize {
///     reactor.len()
/// }
/// let recorded: RecordedReactor = Recorder::new(1_000).reactor()?;
/// assert_eq!((live(&recorded), live(&Reactor::new()?)), (0, 0));
/// # Ok::<(), finale::Error>(())
/// ```
pub type RecordedReactor = Reactor<Traced<Os>>;

impl Recorder {
    /// A reactor whose connections are recorded.
    ///
    /// # Errors
    /// As [`Reactor::new`].
    pub fn reactor(&self) -> Result<RecordedReactor, Error> {
        Reactor::on(|os| self.around(os))
    }
}

impl<N: Net> Reactor<N> {
    /// On the real network, or on what is made of it.
    fn on(net: impl FnOnce(Os) -> N) -> Result<Self, Error> {
        Os::new().map(net).map(Self::with_net).map_err(|error| system("epoll_create", &error))
    }

    /// A reactor on this net.
    pub fn with_net(net: N) -> Self {
        let reactor = crate::id::new_reactor();
        Self {
            table: Table::new(reactor, Epoch(net.now()), Shared::new(net.waker())),
            net,
            listeners: Listeners::new(reactor),
            buffer: vec![0; RECEIVE_BYTES].into_boxed_slice(),
            ending: Ending::none(),
            failure: ConnectionError::of(ConnectionErrorKind::System),
            dropped: None,
            accept_error: OsError::from_raw(0),
            fired: TimerId::NONE,
            closed_listener: ListenerId::NONE,
            counts: Counts::default(),
            turn: Turn::default(),
            cant_wait: None,
        }
    }

    /// Waits for the next event and returns it with its socket. Returns `None` when nothing is left
    /// that could produce an event: no socket, no listener, no timer, no
    /// [`Waker`](super::Waker).
    ///
    /// Calls on sockets since the last event take effect first.
    ///
    /// # Errors
    /// [`Error::System`] if the system can't wait for events at all. Errors of a connection are
    /// events. On a simulated network, EDEADLK means that sockets are live, or that a timer never
    /// comes, but nothing can happen any more: a real program would wait for ever. Usually a limit
    /// is missing, or a listener is still open.
    #[doc(alias = "poll")]
    #[doc(alias = "uv_run")]
    #[doc(alias = "epoll_wait")]
    #[allow(clippy::should_implement_trait, reason = "an Iterator can't lend")]
    #[inline(always)]
    pub fn next(&mut self) -> Result<Option<(Socket<'_>, Event<'_>)>, Error> {
        match self.advance(None) {
            Some(emit) => Ok(Some(self.present(emit))),
            None => self.no_event(),
        }
    }

    /// Like [`next`](Reactor::next), but waits at most until `deadline`. `None` means that nothing
    /// is left or that the deadline has passed. The clock is the net's:
    /// `sim::Network::now` on a simulated one. With a deadline in the past,
    /// it still does one turn of the work that needs no waiting. While events come without a pause,
    /// each call returns one, so a program with its own deadline has to check the clock.
    ///
    /// # Errors
    /// As for `next`.
    pub fn next_before(&mut self, deadline: Instant) -> Result<Option<(Socket<'_>, Event<'_>)>, Error> {
        match self.advance(Some(deadline)) {
            Some(emit) => Ok(Some(self.present(emit))),
            None => self.no_event(),
        }
    }

    /// Why there was no event: an error if the system can't wait, otherwise `None`.
    #[cold]
    fn no_event(&mut self) -> Result<Option<(Socket<'_>, Event<'_>)>, Error> {
        self.cant_wait.take().map_or(Ok(None), Err)
    }

    /// When [`next_before`](Reactor::next_before) must be called at the latest, with or without
    /// readiness: a time in the past if work is pending, `None` if only readiness can bring an
    /// event.
    #[doc(alias = "uv_backend_timeout")]
    pub fn next_deadline(&mut self) -> Option<Instant> {
        if self.has_work() || self.table.at_hand != NIL || self.turn.is_under_way() {
            return Some(self.table.epoch.0);
        }
        self.look_at_clock();
        let due = self.next_due()?;
        self.table.epoch.at(due)
    }
}
