use std::collections::VecDeque;

use super::*;
use crate::sim::Rng;

/// Two lists over the same entries, next to what they should hold.
struct Pair {
    entries: Vec<Entry>,
    lists: [(List, VecDeque<u32>); 2],
}

impl Pair {
    fn check(&self) {
        for (list, model) in &self.lists {
            assert_eq!(list.len(), model.len());
            assert_eq!(list.head(), model.front().copied().unwrap_or(NIL));
            let (mut at, mut walked) = (list.head(), VecDeque::new());
            while at != NIL {
                walked.push_back(at);
                at = self.entries[at as usize].link;
            }
            assert_eq!(&walked, model);
        }
    }

    fn push(&mut self, which: usize, slot: u32, front: bool) {
        let (list, model) = &mut self.lists[which];
        if front {
            list.push_front(&mut self.entries, slot);
            model.push_front(slot);
        } else {
            list.push_back(&mut self.entries, slot);
            model.push_back(slot);
        }
    }

    fn pop(&mut self, which: usize) -> Option<u32> {
        let (list, model) = &mut self.lists[which];
        let slot = list.pop_front(&mut self.entries);
        assert_eq!(slot, model.pop_front());
        slot
    }

    /// Hangs the second list behind the first.
    fn append(&mut self) {
        let [(list, model), (other, other_model)] = &mut self.lists;
        list.append(&mut self.entries, std::mem::replace(other, List::new()));
        model.append(other_model);
    }
}

#[test]
fn whatever_is_pushed_popped_and_appended_comes_out_in_order() {
    const COUNT: u32 = 6;
    let entries = (0..COUNT).map(|_| Entry::free()).collect();
    let mut pair = Pair { entries, lists: [(List::new(), VecDeque::new()), (List::new(), VecDeque::new())] };
    let mut idle: Vec<u32> = (0..COUNT).collect();
    let mut rng = Rng::new(1);
    for _ in 0..5_000 {
        let which = rng.below(2) as usize;
        match rng.below(10) {
            0 => pair.append(),
            1..=4 => idle.extend(pair.pop(which)),
            _ => {
                if let Some(slot) = idle.pop() {
                    pair.push(which, slot, rng.chance(0.3));
                }
            }
        }
        pair.check();
    }
}
