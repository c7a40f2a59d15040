//! Checks the table's invariants. A simulation runs them after every event.
//!
//! Invariant: the checks change nothing.

use super::entry::{Flags, NIL};
use super::{Extra, Table};
use crate::lifecycle::State;
use crate::wheel::Nodes as _;

/// A socket that is in no list, and what it waits for.
pub(crate) struct Waits {
    pub(crate) slot: u32,
    pub(crate) state: State,
    /// It reads nothing: the caller has paused it.
    pub(crate) paused: bool,
    /// Room to write.
    pub(crate) room: bool,
}

impl Table {
    /// The first broken rule, in words.
    pub(crate) fn audit(&mut self) -> Result<(), String> {
        let used: Vec<u32> = self.slots().collect();
        let of_used = |is: &dyn Fn(u32) -> bool| used.iter().filter(|slot| is(**slot)).count();
        let counts = [
            ("slots are used", of_used(&|_| true), self.len()),
            ("sockets have no listener", of_used(&|slot| self.settings_of(slot).listener.is_none()), self.outgoing),
            ("sockets have an extra", of_used(&|slot| self.entry(slot).extra != NIL), self.extras.len()),
            ("peers are IPv6", of_used(&|slot| self.entry(slot).flags.has(Flags::IPV6)), self.extras.ipv6_peers.len()),
        ];
        if let Some((what, found, kept)) = counts.iter().find(|(_, found, kept)| found != kept) {
            return Err(format!("{found} {what}, and {kept} are counted"));
        }
        for (slot, entry) in self.entries.iter().filter(|(_, entry)| !entry.is_socket()) {
            if entry.extra != NIL || entry.flags != Flags::NONE || entry.timer.is_filed() {
                return Err(format!("slot {slot} is reserved, and has something of a socket: {entry:?}"));
            }
        }
        let mut listed: Vec<u32> = self.ready.iter().chain(&self.later).chain(&self.closes).copied().collect();
        listed.sort_unstable();
        let queued: Vec<u32> = used.iter().copied().filter(|slot| self.entry(*slot).flags.has(Flags::QUEUED)).collect();
        if listed != queued {
            return Err(format!("the sockets {queued:?} are marked as queued, and {listed:?} are in a list"));
        }
        for &slot in &used {
            let queue = self.extra(slot).map_or(Ok(()), |extra| extra.queue.audit());
            queue.map_err(|rule| format!("socket {slot}: {rule}"))?;
            let fills = self.entry(slot).flags.has(Flags::FILL);
            if !fills && self.extra(slot).is_some_and(|extra| extra.spliced.is_some()) {
                return Err(format!("socket {slot} has bytes in a pipe, and will not deliver them"));
            }
        }
        if self.at_hand == NIL && !self.extras.at_hand_bytes.is_empty() {
            return Err("bytes were written to a socket that is not at hand".to_owned());
        }
        Ok(())
    }

    /// Whether the timer of a socket is filed for its deadline, or earlier. One that is queued may
    /// have a timer left, and times that begin to count after its step.
    pub(crate) fn audit_timer(&mut self, slot: u32) -> Result<(), String> {
        if self.unfiled.contains(&slot) {
            return Ok(());
        }
        let deadline = self.deadline(slot);
        let filed = self.entries.node(slot).due();
        let is_queued = self.entry(slot).flags.has(Flags::QUEUED);
        let begun = is_queued || !self.extra(slot).is_some_and(Extra::has_relative);
        match (deadline, filed) {
            (None, None) if begun => Ok(()),
            (None, Some(_)) if is_queued => Ok(()),
            (Some((due, _)), Some(filed)) if begun && filed <= due => Ok(()),
            (deadline, filed) => Err(format!("its deadline is {deadline:?}, and its timer is filed for {filed:?}")),
        }
    }
}

#[cfg(test)]
mod tests;
