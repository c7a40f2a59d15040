//! Ids of sockets, listeners and timers.
//!
//! Invariant: an id names one thing. It consists of a slot in a table, the generation of that slot,
//! and the number of the reactor, so that it finds nothing in another reactor of the process. Each
//! reactor numbers its own ids. An id is repeated after 2^32 others at the earliest, and only in
//! the same slot.
//!
//! This module does not depend on what an id names.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

/// Declares an id type; all three work alike.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $word:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name {
            reactor: u32,
            index: u32,
            generation: u32,
        }

        impl $name {
            /// An id that names nothing. Generation 0 is never assigned.
            #[allow(dead_code, reason = "each kind of id has it")]
            pub(crate) const NONE: Self = Self::new(u32::MAX, u32::MAX, 0);

            pub(crate) const fn new(reactor: u32, index: u32, generation: u32) -> Self {
                Self { reactor, index, generation }
            }

            /// The slot in its table. Slots are reused; the whole id is not.
            #[must_use]
            pub const fn index(self) -> u32 {
                self.index
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.index {
                    u32::MAX => f.write_str(concat!("no ", $word)),
                    index => write!(f, concat!($word, " {}.{}"), index, self.generation),
                }
            }
        }

        /// Serialized as its `Display`, so that it can be found in the log.
        #[cfg(feature = "serde")]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id! {
    /// Names one connection, from the call of `connect` (or its `connection` event) to its `close`.
    /// It is never reused for another connection, and a stale id finds nothing.
    ///
    /// ```
    /// use finale::{ConnectOptions, Reactor};
    /// let mut reactor = Reactor::new()?;
    /// let id = reactor.connect("127.0.0.1:7000", ConnectOptions::default())?;
    /// assert!(reactor.socket(id).is_some_and(|socket| socket.id() == id));
    /// # Ok::<(), finale::Error>(())
    /// ```
    SocketId, "socket"
}

id! {
    /// Names one listener.
    ///
    /// ```
    /// use finale::{ListenOptions, Reactor};
    /// let mut reactor = Reactor::new()?;
    /// let id = reactor.listen("127.0.0.1:0", ListenOptions::default())?.id;
    /// reactor.pause_accepting(id)?;
    /// reactor.close_listener(id)?;
    /// # Ok::<(), finale::Error>(())
    /// ```
    ListenerId, "listener"
}

id! {
    /// Names one free-standing timer.
    ///
    /// ```
    /// use finale::{Event, Reactor};
    /// use std::time::Duration;
    /// let mut reactor = Reactor::new()?;
    /// let id = reactor.set_timer(Duration::from_millis(1));
    /// assert!(matches!(reactor.next()?, Some((_, Event::Timer(fired))) if fired == id));
    /// # Ok::<(), finale::Error>(())
    /// ```
    TimerId, "timer"
}

impl SocketId {
    pub(crate) const fn reactor(self) -> u32 {
        self.reactor
    }

    pub(crate) const fn generation(self) -> u32 {
        self.generation
    }
}

/// A number for a new reactor.
pub(crate) fn new_reactor() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{ListenerId, SocketId, TimerId};

    #[test]
    fn an_id_is_written_as_what_it_names_with_its_slot_and_its_generation() {
        assert_eq!(SocketId::new(1, 3, 7).to_string(), "socket 3.7");
        assert_eq!(ListenerId::new(1, 0, 1).to_string(), "listener 0.1");
        assert_eq!(format!("{:?}", TimerId::new(1, 8, 2)), "timer 8.2");
    }

    #[test]
    fn two_ids_are_the_same_only_if_reactor_slot_and_generation_are() {
        let ids = [(0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 1, 1)]
            .map(|(reactor, index, generation)| SocketId::new(reactor, index, generation));
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 4);
        assert_eq!((ids[3].reactor(), ids[1].index(), ids[1].generation()), (1, 1, 0));
        assert!(!ids.contains(&SocketId::NONE) && super::new_reactor() != super::new_reactor());
    }
}
