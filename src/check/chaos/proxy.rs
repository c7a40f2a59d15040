//! How a proxy of ours begins, and how it connects to the server behind it.

use super::book::{Acted, Door};
use super::draw;
use super::places::Way;
use super::plan::Proxy;
use super::run::Run;
use super::side::{Program, Side};
use crate::check::{Broken, Rule};
use crate::id::SocketId;

impl Run {
    pub(super) fn begin_proxy(&mut self, number: usize, proxy: &Proxy) {
        if !self.begin_behind(number, proxy) {
            return;
        }
        // There a reset looks like an end.
        let is_unix = |way: Way| matches!(way, Way::Unix { .. });
        self.book.conversations[number].may_cut = is_unix(proxy.way) || is_unix(self.book.plan.ways[number]);
        let options = draw::listen(&mut self.book.rng, &self.book.plan).deadline(None).paused(false);
        let options = match self.low_high_water() {
            Some(bytes) => options.low_water_mark(0).high_water_mark(bytes),
            None => options,
        };
        let Some(door) = self.open_door(number, self.book.plan.ways[number], options) else { return };
        let target = door.target.clone();
        self.book.conversations[number].listener = Some(door);
        match &proxy.client {
            Some(script) => self.peer_connects(number, &target, script),
            None => self.connect(number, target),
        }
    }

    /// The server behind a proxy. Answers whether there is one.
    fn begin_behind(&mut self, number: usize, proxy: &Proxy) -> bool {
        // Names of its own.
        let place = number + 50;
        if let Some(script) = &proxy.server {
            let Some((listener, target)) = self.peer_listens(place, proxy.way, 0) else { return false };
            let play = listener.play(self.playable(proxy.way, script));
            let conversation = &mut self.book.conversations[number];
            conversation.plays.push(Acted { play, is_client: false });
            (conversation.peer, conversation.behind) = (Some(listener), Some(target));
            return true;
        }
        let options = draw::listen(&mut self.book.rng, &self.book.plan);
        let Some(door) = self.open_door(place, proxy.way, options) else { return false };
        let Door { target, .. } = door.clone();
        let conversation = &mut self.book.conversations[number];
        (conversation.backend, conversation.behind) = (Some(door), Some(target));
        true
    }

    /// Often so low that a proxy is held back.
    fn low_high_water(&mut self) -> Option<usize> {
        let bytes = 1 + self.book.rng.below(100) as usize;
        Some(bytes).filter(|_| self.book.rng.chance(0.6))
    }

    /// A client has come to a proxy: the proxy connects to the server, and joins the two.
    pub(super) fn connect_behind(&mut self, host: usize, front: SocketId) -> Result<(), Broken> {
        let options = draw::connect(&mut self.book.rng, &self.book.plan).deadline(None);
        let options = match self.low_high_water() {
            Some(bytes) => options.low_water_mark(0).high_water_mark(bytes),
            None => options,
        };
        let side = self.book.sides.iter().find(|side| side.host as usize == host && side.id == front);
        let Some((number, reactor)) = side.map(|side| side.stream.0).zip(self.reactors[host].as_mut()) else {
            return Ok(());
        };
        let Some(target) = self.book.conversations[number].behind.clone() else { return Ok(()) };
        let refused = |error| Broken::new(Rule::Progress, format!("a proxy can't connect: {error}"));
        let back = reactor.connect(target, options).map_err(refused)?;
        let now = self.book.now();
        if let Some(socket) = reactor.socket(back) {
            let mut side = Side::new(host as u32, (number, true), &socket, now);
            side.program = Program::Piped;
            self.book.conversations[number].may_cut |= !socket.allows_half_open();
            self.book.sides.push(side);
        }
        self.book.pipes.join(front, back);
        Ok(())
    }
}
