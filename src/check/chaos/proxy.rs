//! How proxies and pools of ours begin, and how they connect to the servers behind them.

use super::draw;
use super::plan::{Borrowers, Kind, PoolPlan, Proxy};
use super::pools::Lending;
use super::run::{Run, What};
use super::run_state::{Acted, Door};
use super::socket_model::{Program, Side};
use super::topology::Way;
use crate::check::{Rule, Violation};
use crate::id::SocketId;
use crate::pool::Pool;

impl Run {
    pub(super) fn begin_proxy(&mut self, number: usize, proxy: &Proxy) {
        if !self.begin_behind(number, proxy) {
            return;
        }
        // There a reset looks like an end.
        let is_unix = |way: Way| matches!(way, Way::Unix { .. });
        self.book.conversations[number].may_cut = is_unix(proxy.way) || is_unix(self.book.plan.ways[number]);
        // Without a server it is not read.
        let waits = proxy.pool.is_some();
        let options = draw::listen(&mut self.book.rng, &self.book.plan).deadline(None).start_paused(waits);
        let options = match self.low_high_water() {
            Some(bytes) => options.low_water_mark(0).high_water_mark(bytes),
            None => options,
        };
        let Some(door) = self.open_door(number, self.book.plan.ways[number], options) else { return };
        let target = door.target.clone();
        self.book.conversations[number].listener = Some(door);
        if let Some(pool) = &proxy.pool {
            self.open_pool(0, number, pool);
        }
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
            // A pool has several connections.
            let count = if proxy.pool.is_some() { 4 } else { 1 };
            let plays: Vec<_> = (0..count).map(|_| listener.play(self.playable(proxy.way, script))).collect();
            let conversation = &mut self.book.conversations[number];
            conversation.plays.extend(plays.into_iter().map(|play| Acted { play, is_client: false }));
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
    pub(super) fn connect_behind(&mut self, host: usize, front: SocketId) -> Result<(), Violation> {
        let options = draw::connect(&mut self.book.rng, &self.book.plan).deadline(None).total_deadline(None);
        let options = match self.low_high_water() {
            Some(bytes) => options.low_water_mark(0).high_water_mark(bytes),
            None => options,
        };
        let side = self.book.sides.iter().find(|side| side.host as usize == host && side.id == front);
        let Some(number) = side.map(|side| side.stream.0) else { return Ok(()) };
        if matches!(&self.book.plan.conversations[number], Kind::Proxy(Proxy { pool: Some(_), .. })) {
            self.ask(number, Some(front));
            return Ok(());
        }
        let Some(reactor) = &mut self.reactors[host] else { return Ok(()) };
        let Some(target) = self.book.conversations[number].behind.clone() else { return Ok(()) };
        let refused = |error| Violation::new(Rule::Progress, format!("a proxy can't connect: {error}"));
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

    /// Programs that borrow from a pool, and the server that it connects to.
    pub(super) fn begin_pool(&mut self, number: usize, borrowers: &Borrowers) {
        let (host, way) = (self.clients_host(), self.book.plan.ways[number]);
        if borrowers.servers.is_empty() {
            let options = draw::listen(&mut self.book.rng, &self.book.plan);
            let Some(door) = self.open_door(number, way, options) else { return };
            let conversation = &mut self.book.conversations[number];
            (conversation.behind, conversation.backend) = (Some(door.target.clone()), Some(door));
        } else {
            let Some((listener, target)) = self.peer_listens(number, way, host) else { return };
            let scripts = borrowers.servers.iter().map(|script| self.playable(way, script));
            let plays: Vec<_> = scripts.map(|script| listener.play(script)).collect();
            let conversation = &mut self.book.conversations[number];
            conversation.plays.extend(plays.into_iter().map(|play| Acted { play, is_client: false }));
            (conversation.peer, conversation.behind) = (Some(listener), Some(target));
        }
        self.open_pool(host, number, &borrowers.pool);
        for after in &borrowers.asks {
            self.set_task(*after, What::Ask(number));
        }
    }

    fn open_pool(&mut self, host: usize, number: usize, plan: &PoolPlan) {
        let connect = draw::connect(&mut self.book.rng, &self.book.plan).total_deadline(None);
        let Some(target) = self.book.conversations[number].behind.clone() else { return };
        let Ok(pool) = Pool::new(target, connect, plan.options.clone()) else { return };
        let wait_limit = plan.wait_limit.map(|limit| limit.as_nanos() as u64);
        self.book.lendings.push(Lending::new((host, number), pool, plan.size, wait_limit, plan.max_waiting));
    }
}
