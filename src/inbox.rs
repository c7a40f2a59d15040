//! Messages into a reactor from other threads.
//!
//! Invariant: a message is in the queue before the reactor is woken for it, so a program that
//! empties the inbox at each `woken` misses none.

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::net::Net;
use crate::reactor::{Reactor, Waker};

/// The receiving end of a bounded queue into a reactor ([`Reactor::inbox`](crate::Reactor::inbox)).
/// Its owner takes the messages at [`Event::Woken`](crate::Event::Woken).
///
/// ```
/// use finale::{Event, Inbox};
/// fn on_event(event: Event<'_>, inbox: &mut Inbox<String>) {
///     if event == Event::Woken {
///         while let Some(message) = inbox.take() {
///             println!("{message}");
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Inbox<M> {
    messages: Receiver<M>,
}

/// The sending end, for other threads.
///
/// Wakes are merged: any number of messages between two turns costs one system call.
///
/// While a sender exists, [`Reactor::next`](crate::Reactor::next) waits.
///
/// ```
/// use finale::{Reactor, SendError};
/// let reactor = Reactor::new()?;
/// let (sender, _inbox) = reactor.inbox(1);
/// assert_eq!(sender.send("first"), Ok(()));
/// assert_eq!(sender.send("second"), Err(SendError::Full("second")));
/// # Ok::<(), finale::Error>(())
/// ```
#[doc(alias = "mpsc")]
#[doc(alias = "channel")]
pub struct Sender<M> {
    messages: SyncSender<M>,
    remote: Waker,
}

/// Why a message was not queued. Contains the message.
///
/// ```
/// use finale::{SendError, Sender};
/// fn send(sender: &Sender<String>, message: String) {
///     match sender.send(message) {
///         Ok(()) => {}
///         Err(SendError::Full(message)) => println!("try again later: {message}"),
///         Err(SendError::Gone(_)) => println!("the reactor reads no more messages"),
///     }
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendError<M> {
    /// The queue is at its capacity: the reactor takes messages more slowly than they are sent.
    Full(M),
    /// The inbox was dropped, or its reactor.
    Gone(M),
}

impl<N: Net> Reactor<N> {
    /// Creates a queue for at most `capacity` messages from other threads. A message is whatever
    /// the program needs: an answer that was computed elsewhere, the id of a connection to close,
    /// or bytes for every client. The memory for all of them is allocated at once.
    ///
    /// # Panics
    /// If `capacity` is 0, or if this many messages don't fit into the address space.
    ///
    /// ```
    /// use finale::{Event, Reactor};
    /// # fn main() -> Result<(), finale::Error> {
    /// let mut reactor = Reactor::new()?;
    /// let (sender, mut inbox) = reactor.inbox(100);
    /// let thread = std::thread::spawn(move || (1..=3).try_for_each(|number| sender.send(number)));
    /// let mut sum = 0;
    /// while let Some((_, event)) = reactor.next()? {
    ///     if event == Event::Woken {
    ///         sum += std::iter::from_fn(|| inbox.take()).sum::<i32>();
    ///     }
    /// }
    /// assert_eq!(sum, 6);
    /// thread.join().unwrap().unwrap();
    /// # Ok(())
    /// # }
    /// ```
    pub fn inbox<M>(&self, capacity: usize) -> (Sender<M>, Inbox<M>) {
        assert!(capacity > 0, "an inbox needs room for a message");
        let (sender, messages) = sync_channel(capacity);
        (Sender { messages: sender, remote: self.waker() }, Inbox { messages })
    }
}

impl<M> Inbox<M> {
    /// The next message, if there is one. Take all of them at each
    /// [`Event::Woken`](crate::Event::Woken): the next one is delivered only after another message
    /// was sent.
    pub fn take(&mut self) -> Option<M> {
        self.messages.try_recv().ok()
    }
}

impl<M> Sender<M> {
    /// Queues a message and wakes the reactor, without waiting.
    ///
    /// # Errors
    /// [`SendError::Full`] and [`SendError::Gone`] return the message.
    pub fn send(&self, message: M) -> Result<(), SendError<M>> {
        if self.remote.is_gone() {
            return Err(SendError::Gone(message));
        }
        let sent = self.messages.try_send(message).map_err(|refused| match refused {
            TrySendError::Full(message) => SendError::Full(message),
            TrySendError::Disconnected(message) => SendError::Gone(message),
        });
        // It also wakes for a full queue: the program may have overlooked a wake. If the reactor
        // was dropped just now, the message is lost, as if that had happened a moment later.
        let _ = self.remote.wake();
        sent
    }
}

impl<M> Clone for Sender<M> {
    fn clone(&self) -> Self {
        Self { messages: self.messages.clone(), remote: self.remote.clone() }
    }
}

impl<M> fmt::Debug for Sender<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("remote", &self.remote).finish_non_exhaustive()
    }
}

impl<M> fmt::Debug for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Gone(_) => "Gone(..)",
        })
    }
}

impl<M> fmt::Display for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the inbox is full: its reactor is too slow",
            Self::Gone(_) => "the inbox is gone: no reactor takes its messages any more",
        })
    }
}

impl<M> std::error::Error for SendError<M> {}
