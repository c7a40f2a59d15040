//! A table whose slots are reused under a new generation.
//!
//! Invariant: an [`Id`] finds the thing that it was created for, or nothing. The table does not
//! depend on what it contains.

/// Names a thing in an [`Arena`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Id {
    index: u32,
    generation: u32,
}

struct Place<T> {
    generation: u32,
    thing: Option<T>,
}

pub(super) struct Arena<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> Arena<T> {
    pub(super) const fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    pub(super) fn insert(&mut self, thing: T) -> Id {
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.thing = Some(thing);
            return Id { index, generation: place.generation };
        }
        let index = u32::try_from(self.places.len()).expect("a simulated network has fewer than 2^32 sockets");
        self.places.push(Place { generation: 0, thing: Some(thing) });
        Id { index, generation: 0 }
    }

    pub(super) fn get(&self, id: Id) -> Option<&T> {
        self.places.get(id.index as usize).filter(|place| place.generation == id.generation)?.thing.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        self.places.get_mut(id.index as usize).filter(|place| place.generation == id.generation)?.thing.as_mut()
    }

    pub(super) fn remove(&mut self, id: Id) -> Option<T> {
        let place = self.places.get_mut(id.index as usize).filter(|place| place.generation == id.generation)?;
        let thing = place.thing.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(id.index);
        Some(thing)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.places.iter_mut().filter_map(|place| place.thing.as_mut())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.places.iter().enumerate().filter_map(|(index, place)| {
            let id = Id { index: index as u32, generation: place.generation };
            place.thing.as_ref().map(|thing| (id, thing))
        })
    }
}

/// Sets a place of a list, which grows for that.
pub(super) fn place(places: &mut Vec<Option<Id>>, index: u32, id: Id) {
    let index = index as usize;
    if places.len() <= index {
        places.resize(index + 1, None);
    }
    places[index] = Some(id);
}
