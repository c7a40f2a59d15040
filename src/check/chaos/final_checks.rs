//! What must hold when everything is over, and when a reactor is dropped in the middle.

use super::pattern;
use super::plan::{Disturbance, Kind};
use super::run::Run;
use super::run_state::{ScriptedPeer, Written};
use crate::check::{Rule, Violation, must};
use crate::error::{ConnectionErrorKind, TimeoutKind};
use crate::event::{Ending, EndingKind};
use crate::sim::Fault;

/// Polls in a row that brought nothing, between which nothing was done and nothing told: one to
/// find that out, one more for what is told only in the turn after that (`close`), and one because
/// the first may have been asked not to wait.
const IDLE_POLLS: u32 = 3;

impl Run {
    pub(super) fn check_the_end(&mut self) -> Result<(), Violation> {
        self.update_pools(0)?;
        self.update_pools(1)?;
        let now = self.state.network.now();
        for reactor in self.reactors.iter_mut().flatten() {
            // The last event of each is looked after when it is asked for the next.
            let more = reactor.next_before(now).map(|next| next.map(|(_, event)| format!("{event:?}")));
            must(matches!(more, Ok(None)), Rule::Progress, || format!("after the end: {more:?}"))?;
            let left = reactor.left_over();
            must(left.is_none(), Rule::Resources, || format!("left over: {}", left.unwrap_or_default()))?;
            let idle = reactor.net().most_idle_polls();
            // With two, the run itself asks each again and again while the other has work.
            let asked_by_the_run = self.state.plan.two_reactors;
            must(asked_by_the_run || idle <= IDLE_POLLS, Rule::NoSpin, || {
                format!("{idle} polls in a row for nothing")
            })?;
        }
        let descriptors = self.state.network.descriptors();
        must(descriptors == 0, Rule::Resources, || format!("{descriptors} descriptors are open"))?;
        self.check_calls()?;
        for number in 0..self.state.conversations.len() {
            self.check_pair(number)?;
            self.check_plays(number)?;
        }
        Ok(())
    }

    /// Work is bounded by what happened: events, packets, and the reasons to look that faults make
    /// up.
    fn check_calls(&self) -> Result<(), Violation> {
        let network = &self.state.network;
        let (calls, happenings) = (network.calls(), network.happenings() + self.state.events);
        must(calls <= 100 + 10 * happenings, Rule::NoSpin, || {
            format!("{calls} calls for {} events and {happenings} happenings in all", self.state.events)
        })
    }

    /// Two sides of ours: what one has written the other has read, and a reset has two ends.
    fn check_pair(&self, number: usize) -> Result<(), Violation> {
        let conversation = &self.state.conversations[number];
        let [Some(client), Some(server)] = &conversation.endings else { return Ok(()) };
        let is_proxy = matches!(self.state.plan.conversations[number], Kind::Proxy(_));
        if client.is_clean() && server.is_clean() && !conversation.may_cut {
            let same = client.bytes_written == server.bytes_read && server.bytes_written == client.bytes_read;
            must(same, Rule::Bytes, || format!("client: {client}; server: {server}"))?;
        }
        // By its kernel.
        let reason = ConnectionErrorKind::TimedOut(TimeoutKind::Kernel);
        let given_up = |ending: &Ending| matches!(&ending.kind, EndingKind::Failed(failure) if failure.kind == reason);
        let well = client.is_clean() && server.is_clean();
        let excused = given_up(client) || given_up(server) || conversation.is_dropped;
        must(!conversation.must_end_cleanly || well || excused, Rule::Progress, || {
            format!("both were called to end, and nothing was against it; client: {client}; server: {server}")
        })?;
        let stormy = self.state.plan.disturbances.iter().any(|(_, disturbance)| *disturbance != Disturbance::Return);
        let is_reset = |ending: &Ending| matches!(&ending.kind, EndingKind::Failed(failure) if failure.kind == ConnectionErrorKind::Reset);
        for (one, other) in [(client, server), (server, client)] {
            let confirmed = matches!(other.kind, EndingKind::Confirmed);
            must(stormy || is_proxy || !is_reset(one) || !confirmed, Rule::Isolation, || {
                format!("one side: {one}; the other: {other}")
            })?;
        }
        Ok(())
    }

    /// A scripted peer has received what its other side has written, and nothing else; all of it,
    /// if it saw the end.
    fn check_plays(&self, number: usize) -> Result<(), Violation> {
        let conversation = &self.state.conversations[number];
        for ScriptedPeer { play, is_client } in &conversation.scripted_peers {
            let received = play.received();
            let wrong = pattern::mismatch((number, !is_client), 0, &received);
            must(wrong.is_none(), Rule::Bytes, || format!("the peer's byte {wrong:?} is not ours"))?;
            let Some(endpoints) = play.endpoints().filter(|_| !conversation.is_dropped) else { continue };
            // A port may have been used again.
            let ours = || self.state.written.iter().filter(|written| written.was_to(endpoints));
            let (most, count) = (ours().map(|written| written.bytes).max().unwrap_or(0), received.len() as u64);
            must(count <= most, Rule::Bytes, || format!("the peer received {count} bytes of {most}"))?;
            // A Unix domain socket knows no reset: what was cut looks whole there, and so does what
            // nobody has accepted.
            let is_clean = |written: &Written| matches!(written.how, EndingKind::Confirmed | EndingKind::HandedOff);
            let may_look_whole = play.is_unix() && (count == 0 || !ours().all(is_clean));
            let saw_end = play.has_end() && !play.is_reset() && !may_look_whole && ours().next().is_some();
            must(!saw_end || ours().any(|written| written.bytes == count), Rule::HonestClose, || {
                format!("the peer saw our end after {count} bytes of {most}")
            })?;
        }
        Ok(())
    }

    /// A program ends in the middle of everything.
    pub(super) fn drop_one(&mut self) -> Result<(), Violation> {
        let host = (self.state.events % 2) as usize;
        let host = if self.reactors[host].is_some() { host } else { 1 - host };
        let Some(reactor) = self.reactors[host].take() else { return Ok(()) };
        self.state.note_both(if host == 0 {
            "the servers' reactor is dropped"
        } else {
            "the clients' reactor is dropped"
        });
        if !reactor.is_empty() {
            self.state.network.mark(Fault::DroppedWithSockets);
        }
        let before = self.state.network.descriptors();
        drop(reactor);
        let state = &mut self.state;
        for model in state.models.iter().filter(|model| model.host as usize == host) {
            state.conversations[model.stream.0].is_dropped = true;
        }
        state.models.retain(|model| model.host as usize != host);
        for conversation in &mut state.conversations {
            for opened in [&mut conversation.listener, &mut conversation.backend] {
                if opened.take_if(|opened| opened.host == host).is_some() {
                    conversation.is_dropped = true;
                }
            }
        }
        state.pool_models.retain(|pool_model| pool_model.host != host);
        self.move_tasks(host);
        let alone = self.reactors.iter().all(Option::is_none);
        let left = self.state.network.descriptors();
        must(!alone || left == 0, Rule::Resources, || format!("{left} of {before} descriptors are left"))
    }
}
