//! The names of things: sockets, listeners and timers.
//!
//! Invariant: an id names one thing for ever. It is an index into a table and the generation of that place; a place
//! whose generations are used up is retired, so that no id can come to name a second thing.
//!
//! Knows nothing of what it names.

use std::fmt;

/// Declares an id type; all three work alike.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $word:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name {
            index: u32,
            generation: u32,
        }

        impl $name {
            pub(crate) const fn new(index: u32, generation: u32) -> Self {
                Self { index, generation }
            }

            /// The place in its table. Places are used again; the whole id never is.
            #[must_use]
            pub const fn index(self) -> u32 {
                self.index
            }

            pub(crate) const fn generation(self) -> u32 {
                self.generation
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($word, " {}.{}"), self.index, self.generation)
            }
        }

        /// In the words of its `Display`, so that it can be found in the log.
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
    /// Names one connection, from the call that asked for it (or its `connection` event) to its `close`, and nothing
    /// else ever after. A stale id finds nothing.
    SocketId, "socket"
}

id! {
    /// Names one listener.
    ListenerId, "listener"
}

id! {
    /// Names one free-standing timer.
    TimerId, "timer"
}

impl SocketId {
    /// The id that comes with the events of no socket. Generation 0 is never given out.
    pub(crate) const NONE: Self = Self::new(u32::MAX, 0);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{ListenerId, SocketId, TimerId};

    #[test]
    fn an_id_is_written_as_what_it_names_with_its_place_and_its_generation() {
        assert_eq!(SocketId::new(3, 7).to_string(), "socket 3.7");
        assert_eq!(ListenerId::new(0, 1).to_string(), "listener 0.1");
        assert_eq!(format!("{:?}", TimerId::new(8, 2)), "timer 8.2");
    }

    #[test]
    fn two_ids_are_the_same_only_if_place_and_generation_are() {
        let ids = [(0, 1), (1, 0), (1, 1), (u32::MAX, 0)].map(|(index, generation)| SocketId::new(index, generation));
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 4);
        assert_eq!((ids[1].index(), ids[1].generation()), (1, 0));
        assert_eq!(ids[3], SocketId::NONE);
    }
}
