//! What happens to everybody at some time, whatever their programs do.

use std::time::Duration;

use super::plan::Weather;
use super::run::Run;
use super::run_state::Door;
use super::stop::Stopping;
use crate::options::StopOptions;

impl Run {
    pub(super) fn weather(&mut self, weather: Weather) {
        let (network, away) = (&self.book.network, self.book.plan.machines.away);
        let text = match weather {
            Weather::Vanish => {
                network.vanish(away);
                "the peers' machine vanishes"
            }
            Weather::Return => {
                network.heal(away);
                "the peers' machine is back"
            }
            Weather::Forget => {
                network.forget(away);
                "the peers' machine forgets its connections"
            }
            Weather::Stop { grace, limit } => {
                self.stop_one(grace, limit);
                "a listener stops"
            }
            Weather::Abort => {
                self.abort_one();
                "a connection is ended from outside"
            }
        };
        self.book.weather(text);
    }

    /// The first listener of ours stops, and with it its sockets.
    fn stop_one(&mut self, grace: Option<Duration>, limit: Option<Duration>) {
        let at = self.book.now();
        let mut doors = self.book.conversations.iter().filter_map(|conversation| conversation.listener.clone());
        let Some(Door { host, id, .. }) = doors.next() else { return };
        let Some(reactor) = &mut self.reactors[host] else { return };
        if reactor.stop_listener(id, StopOptions::default().grace(grace).limit(limit)).is_err() {
            return; // It has stopped already.
        }
        let nanos = |time: Duration| time.as_nanos() as u64;
        let stop = Stopping { at, grace: grace.map(nanos), limit: limit.map(nanos) };
        self.book.stops.push((id, stop));
        // A proxy's socket may be ended by it, though its source is not.
        self.book.conversations.iter_mut().for_each(|conversation| conversation.may_cut = true);
        for side in self.book.sides.iter_mut().filter(|side| side.listener == Some(id)) {
            side.stop = Some(stop);
        }
    }

    fn abort_one(&mut self) {
        for side in &self.book.sides {
            let Some(reactor) = &mut self.reactors[side.host as usize] else { continue };
            let remote = reactor.socket(side.id).and_then(|socket| socket.peer_addr());
            let (Some(local), Some(remote)) = (reactor.local_addr(side.id), remote) else { continue };
            if self.book.network.abort(local, remote) {
                return;
            }
        }
    }
}
