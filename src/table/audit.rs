//! Whether the table keeps its own rules: what a simulation asks after every event.
//!
//! Invariant: looking changes nothing.

use super::entry::Flags;
use super::list::List;
use super::{Table, entry::NIL};
use crate::wheel::Nodes as _;

/// What a socket that is in no list waits for.
pub(crate) struct Waits {
    pub(crate) slot: u32,
    /// Bytes, an end, an error.
    pub(crate) input: bool,
    /// Nothing but to hear that the connection is dead: the caller has paused it.
    pub(crate) paused: bool,
    /// Room to write.
    pub(crate) room: bool,
    /// What becomes of its handshake.
    pub(crate) handshake: bool,
    /// The end of a connection that reads no more: the last acknowledgement, or a death.
    pub(crate) verdict: bool,
}

impl Table {
    /// The first rule that is broken, in words.
    pub(crate) fn audit(&mut self) -> Result<(), String> {
        let used: Vec<u32> = self.slots().collect();
        if used.len() != self.len {
            return Err(format!("{} places are used and {} are counted", used.len(), self.len));
        }
        // None is retired: that takes four billion connections.
        let counted = self.len + self.reserved + self.free.len();
        if counted != self.entries.0.len() {
            return Err(format!("{counted} places are counted, and there are {}", self.entries.0.len()));
        }
        let outgoing = used.iter().filter(|&&slot| self.settings_of(slot).listener.is_none()).count();
        if outgoing != self.outgoing {
            return Err(format!("{outgoing} sockets have no listener, and {} are counted", self.outgoing));
        }
        let mut listed = vec![false; self.entries.0.len()];
        for (name, list) in [("ready", &self.ready), ("later", &self.later), ("closes", &self.closes)] {
            self.walk(name, list, &mut listed)?;
        }
        for slot in 0..listed.len() as u32 {
            let (is_listed, queued) = (listed[slot as usize], self.entry(slot).flags.has(Flags::QUEUED));
            if is_listed != queued {
                return Err(format!("socket {slot} is queued: {queued}, and in a list: {is_listed}"));
            }
            if !self.entry(slot).is_used() && self.entries.node(slot).is_filed() {
                return Err(format!("place {slot} is free and has a timer"));
            }
        }
        let extras = used.iter().filter(|&&slot| self.entry(slot).extra != NIL).count();
        if extras != self.extras.len() {
            return Err(format!("{extras} sockets have an extra, and {} extras are kept", self.extras.len()));
        }
        for &slot in &used {
            let queue = self.extra(slot).map_or(Ok(()), |extra| extra.queue.audit());
            queue.map_err(|rule| format!("socket {slot}: {rule}"))?;
        }
        let ipv6 = used.iter().filter(|&&slot| self.entry(slot).flags.has(Flags::IPV6)).count();
        if ipv6 != self.ipv6_peers.len() {
            return Err(format!("{ipv6} sockets have an IPv6 peer, and {} are kept", self.ipv6_peers.len()));
        }
        Ok(())
    }

    /// Each member of the list is used, queued, and in no other.
    fn walk(&self, name: &str, list: &List, listed: &mut [bool]) -> Result<(), String> {
        let (mut slot, mut length) = (list.head(), 0);
        while slot != NIL {
            if !self.entry(slot).is_used() || std::mem::replace(&mut listed[slot as usize], true) {
                return Err(format!("the list {name} has place {slot}, which is free or listed twice"));
            }
            length += 1;
            slot = self.entry(slot).link();
        }
        if length != list.len() {
            Err(format!("the list {name} has {length} of {} members", list.len()))
        } else {
            Ok(())
        }
    }

    /// Whether the timer of a socket that has nothing to do is filed as its deadline says: lazily, so perhaps earlier.
    pub(crate) fn audit_timer(&mut self, slot: u32) -> Result<(), String> {
        let deadline = self.deadline(slot);
        let filed = self.entries.node(slot).due();
        match (deadline, filed) {
            (None, None) => Ok(()),
            (Some((due, _)), Some(filed)) if filed <= due => Ok(()),
            (deadline, filed) => Err(format!("its deadline is {deadline:?}, and its timer is filed for {filed:?}")),
        }
    }
}

#[cfg(test)]
mod tests;
