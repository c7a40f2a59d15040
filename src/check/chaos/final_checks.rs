//! What must hold at the end of a run, and when a reactor is dropped during it.

use super::pattern;
use super::plan::{Disturbance, Kind};
use super::run::Run;
use super::run_state::{ScriptedPeer, Written};
use crate::check::{Rule, Violation, must};
use crate::error::{ConnectionErrorKind, TimeoutKind};
use crate::event::{Ending, EndingKind};
use crate::sim::Fault;

/// Polls in a row without readiness, an event or a call between them: one to find that out, another
/// for `close`, which is delivered in the next turn, and one since the first may have a timeout of
/// zero.
const IDLE_POLLS: u32 = 3;

impl Run {
    pub(super) fn check_the_end(&mut self) -> Result<(), Violation> {
        self.update_pools(0)?;
        self.update_pools(1)?;
        let now = self.state.network.now();
        for (reactor, wakes) in self.reactors.iter_mut().zip(self.state.wakes) {
            let Some(reactor) = reactor else { continue };
            must(!wakes.is_pending, Rule::Progress, || "a wake was lost".to_owned())?;
            // A reactor finishes the handling of an event in the next call of `next`.
            let more = reactor.next_before(now).map(|next| next.map(|(_, event)| format!("{event:?}")));
            must(matches!(more, Ok(None)), Rule::Progress, || format!("after the end: {more:?}"))?;
            let left = reactor.left_over();
            must(left.is_none(), Rule::Resources, || format!("left over: {}", left.unwrap_or_default()))?;
            let idle = reactor.net().most_idle_polls();
            // With two reactors the run itself polls each while the other has work.
            let asked_by_the_run = self.state.plan.two_reactors;
            must(asked_by_the_run || idle <= IDLE_POLLS, Rule::NoSpin, || {
                format!("{idle} polls in a row without a result")
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

    /// The number of system calls is bounded by what happened: events, packets, bytes that were read,
    /// and the readiness that faults invent.
    fn check_calls(&self) -> Result<(), Violation> {
        let network = &self.state.network;
        let (calls, happenings) = (network.calls(), network.happenings() + self.state.events);
        must(calls <= 100 + 10 * happenings, Rule::NoSpin, || {
            format!("{calls} calls for {} events and {happenings} occurrences in all", self.state.events)
        })
    }

    /// Two sockets on finale: each has read what the other wrote, and a reset concerns both.
    fn check_pair(&self, number: usize) -> Result<(), Violation> {
        let conversation = &self.state.conversations[number];
        let [Some(client), Some(server)] = &conversation.endings else { return Ok(()) };
        let is_proxy = matches!(self.state.plan.conversations[number], Kind::Proxy(_));
        if client.is_clean() && server.is_clean() && !conversation.may_cut {
            let same = client.bytes_written == server.bytes_read && server.bytes_written == client.bytes_read;
            must(same, Rule::Bytes, || format!("client: {client}; server: {server}"))?;
        }
        // The kernel's own limit.
        let reason = ConnectionErrorKind::TimedOut(TimeoutKind::Kernel);
        let given_up = |ending: &Ending| matches!(&ending.kind, EndingKind::Failed(failure) if failure.kind == reason);
        let well = client.is_clean() && server.is_clean();
        let excused = given_up(client) || given_up(server) || conversation.is_dropped;
        must(!conversation.must_end_cleanly || well || excused, Rule::Progress, || {
            format!(
                "end was called at both ends, and nothing prevented a clean end; client: {client}; server: {server}"
            )
        })?;
        let stormy = self.state.plan.disturbances.iter().any(|(_, disturbance)| *disturbance != Disturbance::Return);
        let is_reset = |ending: &Ending| matches!(&ending.kind, EndingKind::Failed(failure) if failure.kind == ConnectionErrorKind::Reset);
        for (one, other) in [(client, server), (server, client)] {
            let confirmed = matches!(other.kind, EndingKind::Confirmed);
            must(stormy || is_proxy || !is_reset(one) || !confirmed, Rule::Isolation, || {
                format!("one end: {one}; the other: {other}")
            })?;
        }
        Ok(())
    }

    /// A scripted peer has received what was written to it and nothing else, and all of it if it
    /// received our FIN.
    fn check_plays(&self, number: usize) -> Result<(), Violation> {
        let conversation = &self.state.conversations[number];
        for ScriptedPeer { play, is_client } in &conversation.scripted_peers {
            let received = play.received();
            let wrong = pattern::mismatch((number, !is_client), 0, &received);
            must(wrong.is_none(), Rule::Bytes, || format!("byte {wrong:?} that the peer received was not written"))?;
            let Some(endpoints) = play.endpoints().filter(|_| !conversation.is_dropped) else { continue };
            // A port may have been used twice.
            let ours = || self.state.written.iter().filter(|written| written.was_to(endpoints));
            let (most, count) = (ours().map(|written| written.bytes).max().unwrap_or(0), received.len() as u64);
            must(count <= most, Rule::Bytes, || format!("the peer received {count} bytes of {most}"))?;
            // A Unix domain socket has no reset: a cut stream looks complete there, and so does a
            // connection that was never accepted.
            let is_clean = |written: &Written| matches!(written.how, EndingKind::Confirmed | EndingKind::HandedOff);
            let may_look_whole = play.is_unix() && (count == 0 || !ours().all(is_clean));
            // An attempt that has lost its race, and a client that was not wanted, are reset.
            let saw_end = play.has_end() && !play.is_reset() && !may_look_whole;
            must(!saw_end || ours().any(|written| written.bytes == count), Rule::HonestClose, || {
                format!("the peer received our FIN after {count} bytes of {most}")
            })?;
        }
        Ok(())
    }

    /// Drops a reactor during the run, as a program that ends does.
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
