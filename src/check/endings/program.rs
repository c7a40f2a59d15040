//! The program under test.

use crate::error::Error;
use crate::event::Event;
use crate::reactor::Reactor;
use crate::sim::Host;
use crate::socket::Socket;

use super::CaseResult;

/// A program that [`Endings`](super::Endings) runs. Any closure over a socket and an event is one.
/// Implement `begin` and `stop` for a program that opens more than the sockets that it gets.
///
/// ```
/// use finale::check::{Endings, CaseResult, Program};
/// use finale::sim::Script;
/// use finale::{Event, ListenOptions, Socket, SocketMap};
///
/// /// An echo that counts the bytes of each client.
/// #[derive(Default)]
/// struct Echo {
///     counts: SocketMap<usize>,
/// }
///
/// impl Program for Echo {
///     fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
///         match event {
///             Event::Data(bytes) => {
///                 *self.counts.or_default(socket.id()) += bytes.len();
///                 let _ = socket.write(bytes);
///             }
///             Event::End => socket.end(),
///             Event::Close(_) => drop(self.counts.remove(socket.id())),
///             _ => {}
///         }
///     }
///
///     fn at_rest(&self, _: &CaseResult) -> Result<(), String> {
///         if self.counts.is_empty() { Ok(()) } else { Err("a count is left".to_owned()) }
///     }
/// }
///
/// let listen = ListenOptions::default().deadline(std::time::Duration::from_secs(60));
/// let script = Script::new().send(b"hi").receive(2).finish().receive_end();
/// let report = Endings::of_a_server(listen, script).run(Echo::default);
/// assert!(report.violation().is_none(), "{report}");
/// ```
pub trait Program {
    /// Runs once, before any event: opens listeners, connections, timers, inboxes and pools. A
    /// program of [`Endings::of_a_server`](super::Endings::of_a_server) and
    /// [`of_a_client`](super::Endings::of_a_client) has its listener or connection already. By
    /// default it does nothing.
    ///
    /// # Errors
    /// An error fails the case.
    fn begin(&mut self, reactor: &mut Reactor<Host>) -> Result<(), Error> {
        let _ = reactor;
        Ok(())
    }

    /// Handles one event, as [`Reactor::next`](crate::Reactor::next) returns it: of sockets,
    /// timers, inboxes and listeners.
    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>);

    /// The first client is closed, and a second one will come. Clears what a server remembers, such
    /// as the contents of a store, so that the answers can be compared. By default it does nothing.
    fn forget(&mut self) {}

    /// All clients are closed. Closes what the program holds open, such as a pool. Listeners are
    /// closed after it. By default it does nothing.
    fn stop(&mut self, reactor: &mut Reactor<Host>) {
        let _ = reactor;
    }

    /// What must hold when all sockets have delivered `close`: for example that no entry of a closed
    /// socket is left, or that each request has a result. By default nothing. It is called at the
    /// end, when a timer may still run, and before the second client if no socket, no timer and no
    /// step of a peer is left then.
    ///
    /// # Errors
    /// What does not hold, in one line.
    fn at_rest(&self, found: &CaseResult) -> Result<(), String> {
        let _ = found;
        Ok(())
    }
}

impl<F: FnMut(&mut Socket<'_>, Event<'_>)> Program for F {
    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        self(socket, event);
    }
}
