//! What a pool does after each change: it opens missing sockets, ends old ones, and sets its timer.
//!
//! Invariant: at most `size` sockets are opening, ready or leased. With those that are ending they
//! are at most twice as many; one that was ended while it was unused makes room for the next one.

use std::sync::Arc;
use std::time::Instant;

use super::member::{Member, leave};
use super::{Pool, PoolReply, Waiting};
use crate::id::SocketId;
use crate::rng::Rng;
use crate::stream::{Stream as _, Streams};

impl Pool {
    /// Does what is due.
    pub(super) fn keep_up(&mut self, context: &mut impl Streams) {
        if self.shared.is_none() {
            self.shared = Some(Arc::clone(context.context().shared()));
            self.dice = Rng::new(self.options.seed.unwrap_or_else(|| context.context().seed()));
        }
        let now = context.context().now();
        self.back_off.count(now, self.options.size, &mut self.dice);
        self.expire(context, now);
        self.refuse_late(now);
        while self.wants_another(now) {
            if self.used() + self.stats.leaving >= self.options.size.saturating_mul(2) {
                self.reset_spent(context);
                break;
            }
            // The options were checked when the pool was made.
            let Ok(id) = context.connect(self.target.clone(), self.connect.clone()) else { break };
            self.put(id, Some(Member::Opening));
            self.stats.started += 1;
            self.back_off.has_opened(now, self.used() >= self.options.size, &mut self.dice);
        }
        if self.is_closed {
            self.give_up_opening(context);
        }
        self.set_timer(context, now);
        self.is_changed = false;
    }

    /// Sockets that are of use, or will be.
    const fn used(&self) -> usize {
        self.stats.opening + self.stats.ready + self.stats.leased
    }

    const fn is_incomplete(&self) -> bool {
        !self.is_closed && self.used() < self.options.size
    }

    fn wants_another(&self, now: Instant) -> bool {
        // A request for which a socket is ready does not wait.
        let waiting = self.waiting.len().saturating_sub(self.ready.len());
        self.is_incomplete() && self.back_off.may_open(now, self.stats.opening, waiting)
    }

    /// Too many are ending: makes room by the next turn, unless one that was reset makes it anyway. A
    /// server that does not finish must not keep the pool from replacing what it has ended.
    fn reset_spent(&self, context: &mut impl Streams) {
        let mut spent = None;
        for (id, member) in self.members.iter() {
            let is_spent = match member {
                Member::Spent => true,
                Member::Leaving => false,
                Member::Opening | Member::Ready(_) | Member::Leased(_) => continue,
            };
            match context.stream(id) {
                Some(socket) if socket.destroy_called() => return,
                Some(_) if is_spent => spent = spent.or(Some(id)),
                Some(_) | None => {}
            }
        }
        if let Some(mut socket) = spent.and_then(|id| context.stream(id)) {
            socket.destroy();
        }
    }

    /// Ends sockets that are too old, or unused for too long.
    fn expire(&mut self, context: &mut impl Streams, now: Instant) {
        for index in (0..self.ready.len()).rev() {
            let id = self.ready[index];
            let Some(Member::Ready(age)) = self.members.get_mut(id) else { continue };
            age.established.start(now, self.options.max_age, &mut self.dice);
            age.unused.start(now, self.options.max_idle, &mut self.dice);
            self.back_off.is_ready(now, age.established.since);
            if self.is_closed || age.established.is_over(now) || age.unused.is_over(now) {
                self.stats.expired += u64::from(!self.is_closed);
                self.put(id, Some(Member::Spent));
                if let Some(mut socket) = context.stream(id) {
                    leave(&mut socket);
                }
            }
        }
    }

    /// Refuses requests that have waited for too long, and those that are too many. A request for
    /// which a socket is ready does not wait.
    fn refuse_late(&mut self, now: Instant) {
        let first = self.ready.len().min(self.waiting.len());
        let is_late = |waiting: &&Waiting| waiting.until.is_some_and(|until| until <= now);
        let late = self.waiting.range(first..).take_while(is_late).count();
        self.refuse(first..first + late, PoolReply::TimedOut);
        let most = self.options.max_waiting.saturating_add(self.ready.len());
        self.refuse(most.min(self.waiting.len())..self.waiting.len(), PoolReply::QueueFull);
    }

    /// A closed pool completes no connection attempt.
    fn give_up_opening(&mut self, context: &mut impl Streams) {
        let is_opening = |(id, member): (SocketId, &Member)| matches!(member, Member::Opening).then_some(id);
        let opening: Vec<SocketId> = self.members.iter().filter_map(is_opening).collect();
        for id in opening {
            self.put(id, Some(Member::Spent));
            if let Some(mut socket) = context.stream(id) {
                socket.destroy();
            }
        }
    }

    /// Sets a timer for the next time at which something has to be done.
    fn set_timer(&mut self, context: &mut impl Streams, now: Instant) {
        let old = |id: &SocketId| {
            let Some(Member::Ready(age)) = self.members.get(*id) else { return None };
            [age.established.until, age.unused.until].into_iter().flatten().min()
        };
        let waits = self.waiting.get(self.ready.len()).and_then(|waiting| waiting.until);
        let opens = Some(self.stats.opening).filter(|_| self.is_incomplete());
        let opens = opens.and_then(|opening| self.back_off.changes_at(now, opening));
        let again = self.looks_again.then_some(now);
        let due = self.ready.iter().filter_map(old).chain(waits).chain(opens).chain(again).min();
        if due == self.timer.map(|(_, at)| at) {
            return;
        }
        if let Some((id, _)) = self.timer.take() {
            context.context().cancel_timer(id);
        }
        self.timer = due.map(|at| (context.context().set_timer(at.saturating_duration_since(now)), at));
    }
}
