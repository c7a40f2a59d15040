//! Changes of the network and of the listeners at a drawn time, whatever the programs do.

use std::time::Duration;

use super::plan::Disturbance;
use super::run::Run;
use super::run_state::OpenListener;
use super::stop::StopTimes;
use crate::check::{Rule, Violation, must};
use crate::options::StopOptions;
use crate::sim::Fault;

impl Run {
    pub(super) fn disturb(&mut self, disturbance: Disturbance) -> Result<(), Violation> {
        let (network, peers) = (&self.state.network, self.state.plan.machines.peers);
        let text = match disturbance {
            Disturbance::Vanish => {
                network.vanish(peers);
                "the peers' machine vanishes"
            }
            Disturbance::Return => {
                network.heal(peers);
                "the peers' machine is back"
            }
            Disturbance::Forget => {
                network.forget(peers);
                "the peers' machine forgets its connections"
            }
            Disturbance::Stop { grace, limit } => {
                self.stop_one(grace, limit)?;
                "a listener stops"
            }
            Disturbance::Abort => {
                self.abort_one();
                "a connection is aborted from outside"
            }
        };
        self.state.note_both(text);
        Ok(())
    }

    /// The first listener stops, and with it its sockets.
    fn stop_one(&mut self, grace: Option<Duration>, limit: Option<Duration>) -> Result<(), Violation> {
        let at = self.state.now();
        let mut listeners = self.state.conversations.iter().filter_map(|conversation| conversation.listener.clone());
        let Some(OpenListener { host, id, .. }) = listeners.next() else { return Ok(()) };
        let Some(reactor) = &mut self.reactors[host] else { return Ok(()) };
        let spread = self.state.plan.spread;
        let lost = self.state.network.count(Fault::ListenerClosedWithQueue);
        if reactor.stop_listener(id, StopOptions::default().grace(grace).spread(spread).limit(limit)).is_err() {
            return Ok(()); // It is stopped already.
        }
        let is_kept = self.state.network.count(Fault::ListenerClosedWithQueue) == lost;
        must(is_kept, Rule::Progress, || format!("the stop of {id} has reset the clients that waited"))?;
        self.state.paused.retain(|paused| *paused != id);
        let nanos = |time: Duration| time.as_nanos() as u64;
        let stop = StopTimes { at, grace: grace.map(nanos), spread: nanos(spread), limit: limit.map(nanos) };
        self.state.stops.push((id, stop));
        // It may end a proxy's socket whose source has not ended.
        self.state.conversations.iter_mut().for_each(|conversation| conversation.may_cut = true);
        for model in self.state.models.iter_mut().filter(|model| model.listener == Some(id)) {
            model.stop = Some(stop);
        }
        Ok(())
    }

    fn abort_one(&mut self) {
        for model in &self.state.models {
            let Some(reactor) = &mut self.reactors[model.host as usize] else { continue };
            let remote = reactor.socket(model.id).and_then(|socket| socket.peer_addr());
            let (Some(local), Some(remote)) = (reactor.local_addr(model.id), remote) else { continue };
            if self.state.network.abort(local, remote) {
                return;
            }
        }
    }
}
