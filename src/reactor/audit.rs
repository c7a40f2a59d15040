//! Whether the reactor keeps its own rules: what a simulation asks after every event.
//!
//! Invariant: looking changes nothing. The rule that matters most: a socket with something to do is in a list, and one with
//! nothing to do waits for news that will come, or for a timer.

use super::Reactor;
use crate::lifecycle::State;
use crate::net::Net;
use crate::table::Waits;
use crate::table::entry::Flags;

impl<N: Net> Reactor<N> {
    /// The first rule that is broken, in words. The socket whose event the caller has is looked after only at the next
    /// call, and is left out.
    pub(crate) fn audit(&mut self) -> Result<(), String> {
        self.table.audit()?;
        let places = self.table.slots().map(|slot| self.places_of_racers(slot)).sum::<usize>();
        if places != self.table.reserved() {
            return Err(format!("attempts have {places} places, and {} are reserved", self.table.reserved()));
        }
        for slot in self.table.slots().collect::<Vec<_>>() {
            if self.told == Some(slot) {
                continue;
            }
            let audited = match self.table.entry(slot).flags.has(Flags::QUEUED) {
                true => self.audit_queued(slot),
                false => self.audit_resting(slot),
            };
            audited.map_err(|broken| {
                let entry = self.table.entry(slot);
                format!("{} in {:?}, {:?}: {broken}", self.table.id(slot), entry.state, entry.flags)
            })?;
        }
        Ok(())
    }

    /// What each socket that is in no list waits for: news that the net must owe.
    pub(crate) fn resting(&self) -> impl Iterator<Item = Waits> + '_ {
        let rests = |slot: &u32| self.told != Some(*slot) && !self.table.entry(*slot).flags.has(Flags::QUEUED);
        self.table.slots().filter(rests).map(|slot| {
            let entry = self.table.entry(slot);
            let (state, flags) = (entry.state, entry.flags);
            Waits {
                slot,
                input: state.can_read() && !flags.has(Flags::PAUSED),
                paused: state.can_read() && flags.has(Flags::PAUSED) && !flags.has(Flags::BROKEN),
                room: self.owes_output(slot),
                handshake: state == State::Connecting,
                verdict: state.is_connected() && !state.can_read() && !flags.has(Flags::BROKEN),
            }
        })
    }

    /// What is left when everything should be over; `None` if nothing is.
    pub(crate) fn left_over(&mut self) -> Option<String> {
        let counts = [
            ("sockets", self.table.len()),
            ("reserved places", self.table.reserved()),
            ("listeners", self.listener_ids().len()),
            ("timers", usize::from(!self.timers.is_empty()) + usize::from(!self.table.wheel.is_empty())),
            ("extras", self.table.extras.len()),
            ("settings", self.table.settings.len()),
        ];
        let left = counts.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{count} {what}"));
        let left = left.collect::<Vec<_>>().join(", ");
        (!left.is_empty()).then_some(left)
    }

    /// A socket that has something to do, which may not be all: room comes only to who watches for it.
    fn audit_queued(&self, slot: u32) -> Result<(), String> {
        let flags = self.table.entry(slot).flags;
        let blocked = self.owes_output(slot) && !flags.has(Flags::WRITABLE);
        if blocked && !flags.has(Flags::REGISTERED) {
            Err("it needs room, and nobody watches".to_owned())
        } else {
            Ok(())
        }
    }

    /// A socket that is in no list.
    fn audit_resting(&mut self, slot: u32) -> Result<(), String> {
        let entry = self.table.entry(slot);
        let (state, flags) = (entry.state, entry.flags);
        let rules = [
            (flags.owed().is_some(), "it owes an event and is in no list"),
            (flags.has(Flags::DESTROY), "it is destroyed and in no list"),
            (state.is_final(), "it owes its close and is in no list"),
            (state == State::Created, "it was begun and is in no list"),
            (state == State::Connecting && !flags.has(Flags::ATTEMPT), "no attempt is under way, and it is in no list"),
            (flags.has(Flags::END) && matches!(state, State::Open | State::Ended), "it was ended, and stays open"),
            (entry.has_input(), "it has input and is in no list"),
            (entry.has_verdict(), "it has a verdict to be asked for and is in no list"),
            (self.has_output(slot), "it has output and is in no list"),
            (state.is_connected() && !flags.has(Flags::REGISTERED | Flags::BROKEN), "nobody watches it"),
        ];
        match rules.iter().find(|(broken, _)| *broken) {
            Some((_, rule)) => Err((*rule).to_owned()),
            None => self.table.audit_timer(slot),
        }
    }
}
