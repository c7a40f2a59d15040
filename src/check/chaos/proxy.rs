//! Opens proxies and pools, and their connections to the servers.

use super::draw;
use super::plan::{Kind, PoolPlan, PoolUsers, Proxy};
use super::pools::PoolModel;
use super::run::{Run, TaskKind};
use super::run_state::{OpenListener, ScriptedPeer};
use super::socket_model::{Driver, SocketModel};
use super::topology::Transport;
use crate::check::{Rule, Violation};
use crate::id::SocketId;
use crate::pool::Pool;

impl Run {
    pub(super) fn begin_proxy(&mut self, number: usize, proxy: &Proxy) {
        if !self.open_backend(number, proxy) {
            return;
        }
        // On a Unix domain socket a reset looks like a FIN.
        let is_unix = |transport: Transport| matches!(transport, Transport::Unix { .. });
        self.state.conversations[number].may_cut =
            is_unix(proxy.transport) || is_unix(self.state.plan.transports[number]);
        // It is not read before it has a server.
        let waits = proxy.pool.is_some();
        let options = draw::listen(&mut self.state.rng, &self.state.plan).deadline(None).start_paused(waits);
        let options = match self.low_high_water() {
            Some(bytes) => options.low_water_mark(0).high_water_mark(bytes),
            None => options,
        };
        let Some(opened) = self.open_listener(number, self.state.plan.transports[number], options) else { return };
        let target = opened.target.clone();
        self.state.conversations[number].listener = Some(opened);
        if let Some(pool) = &proxy.pool {
            self.open_pool(0, number, pool);
        }
        match &proxy.client {
            Some(script) => self.peer_connects(number, &target, script),
            None => self.connect(number, target),
        }
    }

    /// Opens the server of a proxy. Returns whether that worked.
    fn open_backend(&mut self, number: usize, proxy: &Proxy) -> bool {
        // For a port and a path of its own.
        let index = number + 50;
        if let Some(script) = &proxy.server {
            let Some((listener, target)) = self.peer_listens(index, proxy.transport, 0) else { return false };
            let count = if proxy.pool.is_some() { 4 } else { 1 };
            let plays: Vec<_> = (0..count).map(|_| listener.play(self.playable(proxy.transport, script))).collect();
            let conversation = &mut self.state.conversations[number];
            conversation.scripted_peers.extend(plays.into_iter().map(|play| ScriptedPeer { play, is_client: false }));
            (conversation.peer, conversation.backend_target) = (Some(listener), Some(target));
            return true;
        }
        let options = draw::listen(&mut self.state.rng, &self.state.plan);
        let Some(opened) = self.open_listener(index, proxy.transport, options) else { return false };
        let OpenListener { target, .. } = opened.clone();
        let conversation = &mut self.state.conversations[number];
        (conversation.backend, conversation.backend_target) = (Some(opened), Some(target));
        true
    }

    /// A high-water mark that is often low enough to pause the source.
    fn low_high_water(&mut self) -> Option<usize> {
        let bytes = 1 + self.state.rng.below(100) as usize;
        Some(bytes).filter(|_| self.state.rng.chance(0.6))
    }

    /// For a new client of a proxy: connects to the server, and joins the two.
    pub(super) fn connect_backend(&mut self, host: usize, front: SocketId) -> Result<(), Violation> {
        let options = draw::connect(&mut self.state.rng, &self.state.plan).deadline(None).total_deadline(None);
        let options = match self.low_high_water() {
            Some(bytes) => options.low_water_mark(0).high_water_mark(bytes),
            None => options,
        };
        let model = self.state.models.iter().find(|model| model.host as usize == host && model.id == front);
        let Some(number) = model.map(|model| model.stream.0) else { return Ok(()) };
        if matches!(&self.state.plan.conversations[number], Kind::Proxy(Proxy { pool: Some(_), .. })) {
            self.request_socket(number, Some(front));
            return Ok(());
        }
        let Some(reactor) = &mut self.reactors[host] else { return Ok(()) };
        let Some(target) = self.state.conversations[number].backend_target.clone() else { return Ok(()) };
        let refused = |error| Violation::new(Rule::Progress, format!("a proxy can't connect: {error}"));
        let addrs = self.state.network.addresses(&target);
        let back = reactor.connect(target, options).map_err(refused)?;
        let now = self.state.now();
        if let Some(socket) = reactor.socket(back) {
            let mut model = SocketModel::new(host as u32, (number, true), &socket, now);
            (model.driver, model.addrs) = (Driver::Piped, addrs);
            self.state.conversations[number].may_cut |= !socket.allows_half_open();
            self.state.models.push(model);
        }
        self.state.pipes.join(&mut reactor.context(), front, back).expect("Unix sinks are permitted");
        Ok(())
    }

    /// Opens a pool and its server, and sets the times of the requests.
    pub(super) fn begin_pool(&mut self, number: usize, users: &PoolUsers) {
        let (host, transport) = (self.clients_host(), self.state.plan.transports[number]);
        if users.servers.is_empty() {
            let options = draw::listen(&mut self.state.rng, &self.state.plan);
            let Some(opened) = self.open_listener(number, transport, options) else { return };
            let conversation = &mut self.state.conversations[number];
            (conversation.backend_target, conversation.backend) = (Some(opened.target.clone()), Some(opened));
        } else {
            let Some((listener, target)) = self.peer_listens(number, transport, host) else { return };
            let scripts = users.servers.iter().map(|script| self.playable(transport, script));
            let plays: Vec<_> = scripts.map(|script| listener.play(script)).collect();
            let conversation = &mut self.state.conversations[number];
            conversation.scripted_peers.extend(plays.into_iter().map(|play| ScriptedPeer { play, is_client: false }));
            (conversation.peer, conversation.backend_target) = (Some(listener), Some(target));
        }
        self.open_pool(host, number, &users.pool);
        for after in &users.request_times {
            self.set_task(*after, TaskKind::RequestSocket(number));
        }
    }

    fn open_pool(&mut self, host: usize, number: usize, plan: &PoolPlan) {
        let connect = draw::connect(&mut self.state.rng, &self.state.plan).total_deadline(None);
        let Some(target) = self.state.conversations[number].backend_target.clone() else { return };
        let Ok(pool) = Pool::new(target, connect, plan.options.clone()) else { return };
        let wait_limit = plan.wait_limit.map(|limit| limit.as_nanos() as u64);
        self.state.pool_models.push(PoolModel::new((host, number), pool, plan.size, wait_limit, plan.max_waiting));
    }
}
