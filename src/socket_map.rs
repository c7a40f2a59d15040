//! The caller's own data, by socket.

use crate::id::SocketId;

/// A side table: a value for each socket that has one, found by its id without hashing.
///
/// Take the value out at `close`. A value that was forgotten is dropped when its place goes to another socket, so a
/// forgetful program does not leak without bound; a stale id never finds another socket's value.
///
/// ```
/// use finale::{Event, Reactor, SocketMap};
/// # fn main() -> Result<(), finale::Error> {
/// let mut reactor = Reactor::new()?;
/// let mut requests: SocketMap<Vec<u8>> = SocketMap::new();
/// while let Some((mut socket, event)) = reactor.next()? {
///     match event {
///         Event::Data(bytes) => requests.or_default(socket.id()).extend_from_slice(bytes),
///         Event::End => {
///             let request = requests.remove(socket.id()).unwrap_or_default();
///             socket.write(&request)?;
///             socket.end();
///         }
///         Event::Close(_) => drop(requests.remove(socket.id())),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SocketMap<T> {
    places: Vec<Option<(u32, T)>>,
    len: usize,
}

impl<T> Default for SocketMap<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> SocketMap<T> {
    /// An empty map; nothing is allocated.
    #[must_use]
    pub const fn new() -> Self {
        Self { places: Vec::new(), len: 0 }
    }

    /// How many sockets have a value.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no socket has a value.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a value in and returns the one that this very socket had.
    pub fn insert(&mut self, id: SocketId, value: T) -> Option<T> {
        let index = id.index() as usize;
        if self.places.len() <= index {
            self.places.resize_with(index + 1, || None);
        }
        match self.places[index].replace((id.generation(), value)) {
            None => {
                self.len += 1;
                None
            }
            Some((generation, old)) => (generation == id.generation()).then_some(old),
        }
    }

    /// The socket's value.
    #[must_use]
    pub fn get(&self, id: SocketId) -> Option<&T> {
        match self.places.get(id.index() as usize)? {
            Some((generation, value)) if *generation == id.generation() => Some(value),
            _ => None,
        }
    }

    /// The socket's value, to be changed.
    pub fn get_mut(&mut self, id: SocketId) -> Option<&mut T> {
        match self.places.get_mut(id.index() as usize)? {
            Some((generation, value)) if *generation == id.generation() => Some(value),
            _ => None,
        }
    }

    /// Takes the socket's value out.
    pub fn remove(&mut self, id: SocketId) -> Option<T> {
        self.get(id)?;
        self.len -= 1;
        self.places.get_mut(id.index() as usize)?.take().map(|(_, value)| value)
    }

    /// Every value with its socket.
    pub fn iter(&self) -> impl Iterator<Item = (SocketId, &T)> {
        let places = self.places.iter().zip(0..);
        places.filter_map(|(place, index)| {
            place.as_ref().map(|(generation, value)| (SocketId::new(index, *generation), value))
        })
    }
}

impl<T: Default> SocketMap<T> {
    /// The socket's value; a default one is put in if it has none.
    pub fn or_default(&mut self, id: SocketId) -> &mut T {
        if self.get(id).is_none() {
            self.insert(id, T::default());
        }
        self.get_mut(id).expect("it was there or has just been put in")
    }
}
