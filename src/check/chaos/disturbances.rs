//! Changes of the network and of the listeners at a drawn time, whatever the programs do.

use std::time::Duration;

use super::plan::Disturbance;
use super::run::Run;
use super::run_state::OpenListener;
use super::stop::StopTimes;
use crate::options::StopOptions;

impl Run {
    pub(super) fn disturb(&mut self, disturbance: Disturbance) {
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
                self.stop_one(grace, limit);
                "a listener stops"
            }
            Disturbance::Abort => {
                self.abort_one();
                "a connection is aborted from outside"
            }
        };
        self.state.note_both(text);
    }

    /// The first listener stops, and with it its sockets.
    fn stop_one(&mut self, grace: Option<Duration>, limit: Option<Duration>) {
        let at = self.state.now();
        let mut listeners = self.state.conversations.iter().filter_map(|conversation| conversation.listener.clone());
        let Some(OpenListener { host, id, .. }) = listeners.next() else { return };
        let Some(reactor) = &mut self.reactors[host] else { return };
        let spread = self.state.plan.spread;
        if reactor.stop_listener(id, StopOptions::default().grace(grace).spread(spread).limit(limit)).is_err() {
            return; // It is stopped already.
        }
        let nanos = |time: Duration| time.as_nanos() as u64;
        let stop = StopTimes { at, grace: grace.map(nanos), spread: nanos(spread), limit: limit.map(nanos) };
        self.state.stops.push((id, stop));
        // It may end a proxy's socket whose source has not ended.
        self.state.conversations.iter_mut().for_each(|conversation| conversation.may_cut = true);
        for model in self.state.models.iter_mut().filter(|model| model.listener == Some(id)) {
            model.stop = Some(stop);
        }
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
