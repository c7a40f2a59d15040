//! The caller's own data for each socket.

use crate::id::SocketId;

/// A side table: a value for each socket that has one, found by its id without hashing.
///
/// Remove the value at `close`. A value that was not removed is dropped when a later socket of its
/// slot gets a value, so memory is bounded even then; a stale id never finds another socket's
/// value. Sockets of several reactors can share a map. A reactor that is dropped delivers no
/// `close`: remove the values of its sockets too.
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
    /// One for each reactor whose sockets have values: most maps have one.
    tables: Vec<Table<T>>,
    /// The value of an id without a slot: a placeholder's id, or a stale one whose slot has a newer
    /// socket's value. There is only one.
    homeless: Option<(SocketId, T)>,
}

/// The values of one reactor's sockets: by slot, each with its generation.
#[derive(Debug, Clone)]
struct Table<T> {
    reactor: u32,
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
        Self { tables: Vec::new(), homeless: None }
    }

    /// How many sockets have a value.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tables.iter().map(|table| table.len).sum()
    }

    /// Whether no socket has a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Inserts a value and returns the previous value of the same socket. A stale id never replaces
    /// a live socket's value: among ids without a slot only the last one's value is kept, and it is
    /// not counted.
    pub fn insert(&mut self, id: SocketId, value: T) -> Option<T> {
        // It may have had no slot until now.
        let homeless = self.homeless.take_if(|(other, _)| *other == id).map(|(_, value)| value);
        if id == SocketId::NONE {
            self.homeless = Some((id, value));
            return homeless;
        }
        let table = Table::of(&mut self.tables, id.reactor());
        let index = id.index() as usize;
        if table.places.len() <= index {
            table.places.resize_with(index + 1, || None);
        }
        let place = &mut table.places[index];
        if place.as_ref().is_some_and(|(generation, _)| *generation > id.generation()) {
            self.homeless = Some((id, value));
            return homeless;
        }
        match place.replace((id.generation(), value)) {
            None => {
                table.len += 1;
                homeless
            }
            Some((generation, old)) => (generation == id.generation()).then_some(old).or(homeless),
        }
    }

    /// The socket's value.
    #[must_use]
    pub fn get(&self, id: SocketId) -> Option<&T> {
        let table = self.tables.iter().find(|table| table.reactor == id.reactor());
        match table.and_then(|table| table.places.get(id.index() as usize)) {
            Some(Some((generation, value))) if *generation == id.generation() => Some(value),
            _ => self.homeless.as_ref().filter(|(other, _)| *other == id).map(|(_, value)| value),
        }
    }

    /// The socket's value, mutable.
    pub fn get_mut(&mut self, id: SocketId) -> Option<&mut T> {
        let table = self.tables.iter_mut().find(|table| table.reactor == id.reactor());
        match table.and_then(|table| table.places.get_mut(id.index() as usize)) {
            Some(Some((generation, value))) if *generation == id.generation() => Some(value),
            _ => self.homeless.as_mut().filter(|(other, _)| *other == id).map(|(_, value)| value),
        }
    }

    /// Removes the socket's value and returns it.
    pub fn remove(&mut self, id: SocketId) -> Option<T> {
        if let Some(table) = self.tables.iter_mut().find(|table| table.reactor == id.reactor())
            && let Some(place) = table.places.get_mut(id.index() as usize)
            && let Some((_, value)) = place.take_if(|(generation, _)| *generation == id.generation())
        {
            table.len -= 1;
            return Some(value);
        }
        self.homeless.take_if(|(other, _)| *other == id).map(|(_, value)| value)
    }

    /// Every value that has a slot, with its socket.
    pub fn iter(&self) -> impl Iterator<Item = (SocketId, &T)> {
        self.tables.iter().flat_map(|table| {
            let places = table.places.iter().zip(0..);
            places.filter_map(|(place, index)| {
                let (generation, value) = place.as_ref()?;
                Some((SocketId::new(table.reactor, index, *generation), value))
            })
        })
    }

    /// The same, to change the values.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (SocketId, &mut T)> {
        self.tables.iter_mut().flat_map(|table| {
            let reactor = table.reactor;
            let places = table.places.iter_mut().zip(0..);
            places.filter_map(move |(place, index)| {
                let (generation, value) = place.as_mut()?;
                Some((SocketId::new(reactor, index, *generation), value))
            })
        })
    }
}

impl<T> Table<T> {
    /// The table of this reactor. An empty one is reused, so that there are never more tables than
    /// reactors that had values at the same time.
    fn of(tables: &mut Vec<Self>, reactor: u32) -> &mut Self {
        let index = tables.iter().position(|table| table.reactor == reactor);
        let index = index.or_else(|| tables.iter().position(|table| table.len == 0)).unwrap_or(tables.len());
        if index == tables.len() {
            tables.push(Self { reactor, places: Vec::new(), len: 0 });
        }
        tables[index].reactor = reactor;
        &mut tables[index]
    }
}

impl<T: Default> SocketMap<T> {
    /// The socket's value; a default one is inserted if it has none.
    pub fn or_default(&mut self, id: SocketId) -> &mut T {
        if self.get(id).is_none() {
            self.insert(id, T::default());
        }
        self.get_mut(id).expect("it was there or has just been put in")
    }
}

#[cfg(test)]
mod tests {
    use super::{SocketId, SocketMap};

    /// An id of the reactor that most of the tests use.
    const fn id(index: u32, generation: u32) -> SocketId {
        SocketId::new(1, index, generation)
    }

    #[test]
    fn a_stale_id_finds_nothing_and_drives_nothing_out() {
        let (old, new) = (id(3, 1), id(3, 2));
        let mut map = SocketMap::new();
        map.insert(old, "old");
        assert_eq!(map.insert(new, "new"), None, "a forgotten value is dropped, not handed to another socket");
        assert_eq!((map.get(old), map.get(new), map.len()), (None, Some(&"new"), 1));
        map.insert(old, "late");
        assert_eq!((map.get(new), map.len()), (Some(&"new"), 1));
        assert_eq!((map.remove(old), map.remove(old), map.remove(new)), (Some("late"), None, Some("new")));
        assert!(map.is_empty());
    }

    #[test]
    fn an_id_of_another_reactor_finds_nothing_and_drives_nothing_out_however_new_it_is() {
        let (ours, theirs) = (SocketId::new(1, 3, 5), SocketId::new(2, 3, 9));
        let mut map = SocketMap::new();
        map.insert(ours, "ours");
        assert_eq!((map.get(theirs).copied(), map.remove(theirs)), (None, None));
        assert_eq!(map.get_mut(theirs), None);
        assert_eq!((map.insert(theirs, "theirs"), map.len()), (None, 2));
        assert_eq!((map.get(ours), map.get(theirs)), (Some(&"ours"), Some(&"theirs")));
        assert_eq!((map.remove(theirs), map.remove(ours)), (Some("theirs"), Some("ours")));
        assert_eq!((map.insert(theirs, "alone"), map.len()), (None, 1));
    }

    #[test]
    fn the_sockets_of_each_reactor_keep_their_values_whoever_else_has_the_slot() {
        let mut map = SocketMap::new();
        let ids =
            || [1, 2].into_iter().flat_map(|reactor| (0..3).map(move |slot| SocketId::new(reactor, slot, 7 - slot)));
        for id in ids() {
            assert_eq!(map.insert(id, id), None);
        }
        assert!(ids().all(|id| map.get(id) == Some(&id)) && map.len() == 6);
        assert!(map.iter().map(|(id, value)| (id, *value)).eq(ids().map(|id| (id, id))));
        assert!(map.iter_mut().map(|(id, value)| (id, *value)).eq(ids().map(|id| (id, id))));
        assert!(ids().all(|id| map.remove(id) == Some(id)) && map.is_empty());
    }

    #[test]
    fn many_reactors_one_after_the_other_need_one_table() {
        let mut map = SocketMap::new();
        for reactor in 0..100 {
            map.insert(SocketId::new(reactor, 0, 1), reactor);
            assert_eq!(map.get(SocketId::new(reactor + 1, 0, 1)), None);
            assert_eq!(map.remove(SocketId::new(reactor, 0, 1)), Some(reactor));
        }
        assert_eq!(map.tables.len(), 1);
        map.insert(SocketId::new(7, 3, 1), 7);
        assert_eq!((map.insert(SocketId::new(8, 0, 1), 8), map.len(), map.tables.len()), (None, 2, 2));
    }

    #[test]
    fn a_value_without_a_place_is_replaced_when_its_slot_is_free_again() {
        let (old, new) = (id(3, 1), id(3, 2));
        let mut map = SocketMap::new();
        map.insert(new, "new");
        map.insert(old, "first");
        map.remove(new);
        assert_eq!(map.insert(old, "second"), Some("first"));
        assert_eq!((map.remove(old), map.get(old)), (Some("second"), None));
    }

    #[test]
    fn the_id_of_no_socket_costs_no_table() {
        let mut map: SocketMap<u8> = SocketMap::new();
        *map.or_default(SocketId::NONE) += 1;
        assert_eq!((map.get(SocketId::NONE), map.len(), map.tables.len()), (Some(&1), 0, 0));
    }

    #[test]
    fn a_value_is_found_changed_replaced_and_taken_out_by_its_own_id_alone() {
        let ids: Vec<SocketId> = (0..5).map(|index| id(index, 7)).collect();
        let mut map = SocketMap::new();
        for (&id, value) in ids.iter().zip(10..15).rev() {
            assert_eq!(map.insert(id, value), None);
        }
        *map.get_mut(ids[2]).expect("it is there") += 100;
        assert_eq!((map.insert(ids[3], 200), map.get(ids[2])), (Some(13), Some(&112)));
        let all = map.iter().map(|(id, value)| (id, *value));
        assert!(all.eq(ids.iter().copied().zip([10, 11, 112, 200, 14])), "in the order of the slots");
        assert_eq!((map.remove(ids[1]), map.remove(ids[1]), map.get_mut(ids[1])), (Some(11), None, None));
        assert_eq!((map.len(), map.is_empty(), map.iter().count()), (4, false, 4));
        for other in [id(2, 6), id(2, 8), id(9, 7), SocketId::new(0, 2, 7)] {
            assert_eq!((map.get_mut(other).copied(), map.get(other).copied(), map.remove(other)), (None, None, None));
        }
        assert_eq!(map.len(), 4);
    }

    #[test]
    fn of_all_ids_without_a_place_only_the_last_ones_value_is_kept() {
        let (old, older, new) = (id(0, 2), id(0, 1), id(0, 3));
        let mut map = SocketMap::new();
        map.insert(new, 0);
        assert_eq!((map.insert(old, 1), map.insert(old, 2)), (None, Some(1)), "its own value comes back");
        *map.get_mut(old).expect("it is there") += 5;
        assert_eq!((map.get_mut(older).copied(), map.get(older), map.get(old)), (None, None, Some(&7)));
        assert_eq!(map.insert(older, 3), None, "another id's value does not");
        assert_eq!((map.get(old), map.get(older), map.get(SocketId::NONE)), (None, Some(&3), None));
        assert_eq!((map.remove(old), map.len(), map.iter().count()), (None, 1, 1), "it is not counted");
        assert_eq!((map.remove(older), map.remove(older), map.get(new)), (Some(3), None, Some(&0)));
    }

    #[test]
    fn a_default_value_is_put_in_once() {
        let (one, other) = (id(1, 1), id(0, 1));
        let mut map: SocketMap<Vec<u8>> = SocketMap::default();
        map.or_default(one).push(1);
        map.or_default(one).push(2);
        map.or_default(other).push(3);
        assert_eq!((map.get(one), map.get(other), map.len()), (Some(&vec![1, 2]), Some(&vec![3]), 2));
    }
}
