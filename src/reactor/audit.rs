//! Checks the reactor's invariants. A simulation runs them after every event.
//!
//! Invariant: the checks change nothing. The most important rule: a socket that needs a step is in
//! a list, and any other waits for readiness that will be reported, or for a timer. The function
//! that puts a socket into a list also decides what it needs.

use super::Reactor;
use crate::lifecycle::State;
use crate::net::Net;
use crate::table::Waits;
use crate::table::entry::{Entry, Flags, Next};

impl<N: Net> Reactor<N> {
    /// The first broken rule, in words. The socket at hand is left out: it was not put aside yet.
    pub(crate) fn audit(&mut self) -> Result<(), String> {
        self.table.audit()?;
        let mut slots: Vec<u32> = self.table.slots().flat_map(|slot| self.reserved_slots(slot)).collect();
        slots.sort_unstable();
        let reserved = self.table.entries.iter().filter(|(_, entry)| !entry.is_socket());
        let reserved: Vec<u32> = reserved.map(|(slot, _)| slot as u32).collect();
        if slots != reserved {
            return Err(format!("attempts have the slots {slots:?}, and {reserved:?} are reserved"));
        }
        for slot in self.table.slots().filter(|slot| *slot != self.table.at_hand).collect::<Vec<_>>() {
            self.audit_socket(slot).map_err(|broken| {
                let entry = self.table.entry(slot);
                format!("{} in {:?}, {:?}: {broken}", self.table.id(slot), entry.state, entry.flags)
            })?;
        }
        Ok(())
    }

    fn audit_socket(&mut self, slot: u32) -> Result<(), String> {
        let (entry, settings, extra) = self.table.parts(slot);
        let (state, flags, next) = (entry.state, entry.flags, entry.next(settings, extra));
        let has_retry = extra.is_some_and(|extra| extra.retry_at.is_some());
        let watched = flags.has(Flags::REGISTERED) || has_retry || !state.is_connected() || state == State::Broken;
        let is_queued = flags.has(Flags::QUEUED);
        let needs_none = watched || flags.has(Flags::SOON) || (is_queued && entry.is_busy());
        if !is_queued && next != Next::Wait {
            Err(format!("it needs {next:?} and is in no list"))
        } else if !needs_none {
            Err("it needs readiness and is not registered".to_owned())
        } else {
            self.table.audit_timer(slot)
        }
    }

    fn owes_output(&self, slot: u32) -> bool {
        self.table.entry(slot).owes_output(self.table.queued_bytes(slot) > 0)
    }

    /// What each socket that is in no list waits for: readiness that the net must report.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Waits> + '_ {
        self.table.slots().filter(|slot| self.table.at_hand != *slot).filter_map(|slot| {
            let (&Entry { state, flags, .. }, _, extra) = self.table.parts(slot);
            let waits = !flags.has(Flags::QUEUED) && extra.is_none_or(|extra| extra.retry_at.is_none());
            waits.then(|| Waits { slot, state, paused: flags.has(Flags::STOPPED), room: self.owes_output(slot) })
        })
    }

    /// What is left when everything should be over; `None` if nothing is left.
    pub(crate) fn left_over(&mut self) -> Option<String> {
        let counts = [
            ("sockets", self.table.len()),
            ("reserved slots", self.table.reserved),
            ("listeners", self.listener_ids().len()),
            ("timers", usize::from(!self.table.timers.is_empty()) + usize::from(!self.table.wheel.is_empty())),
            ("extras", self.table.extras.len()),
            ("settings", self.table.settings.len()),
        ];
        let left = counts.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{count} {what}"));
        let left = left.collect::<Vec<_>>().join(", ");
        (!left.is_empty()).then_some(left)
    }
}

#[cfg(test)]
mod tests;
