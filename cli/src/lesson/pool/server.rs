//! The server of the lesson: it answers lines in upper case, and breaks connections at random.
//!
//! Invariant: it reports what it does to a connection before it does it. It ends when it is
//! stopped, or when the thread that could stop it is gone.

use std::collections::BTreeMap;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use finale::sim::Rng;
use finale::{BoundAddr, Event, ListenOptions, Reactor, Sender, Socket, SocketId, SocketMap, TimerId};

use crate::errors::Error;

/// What the server does to a connection, as text.
pub(super) type Report = String;

/// How long no server listens in a restart.
pub(super) const DOWN: Duration = Duration::from_millis(250);

/// The server on its thread.
pub(super) struct Server {
    pub(super) addr: BoundAddr,
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Starts it. It restarts itself after it has answered this many requests.
    pub(super) fn start(restart_after: u32, seed: u64, reports: Sender<Report>) -> Result<Self, Error> {
        let mut reactor = Reactor::new()?;
        let listener = reactor.listen("127.0.0.1:0", ListenOptions::default())?;
        let (stop, stopped) = reactor.inbox(1);
        let addr = listener.addr;
        let mut state = State {
            dice: Rng::new(seed),
            reports,
            lines: SocketMap::new(),
            answered: 0,
            restart_after,
            listener: Some(listener),
            again: None,
            soon: BTreeMap::new(),
        };
        let thread = thread::spawn(move || {
            let mut stopped = stopped;
            // If the reactor fails, requests stay without an answer, and the lesson reports that.
            while let Ok(Some((mut socket, event))) = reactor.next() {
                match event {
                    Event::Woken if stopped.take().is_some() => return,
                    Event::Data(bytes) => {
                        let id = socket.id();
                        if state.read(&mut socket, bytes) {
                            let timer = reactor.set_timer(SOON);
                            state.soon.insert(timer, id);
                        }
                    }
                    Event::End => socket.end(),
                    Event::Close(_) => drop(state.lines.remove(socket.id())),
                    Event::Timer(timer) if state.again == Some(timer) => state.come_back(&mut reactor, addr),
                    Event::Timer(timer) => state.break_unused(&mut reactor, timer),
                    _ => {}
                }
                state.restart_if_due(&mut reactor);
            }
        });
        Ok(Self { addr, stop, thread })
    }

    pub(super) fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

struct State {
    dice: Rng,
    reports: Sender<Report>,
    /// What has arrived of an incomplete line.
    lines: SocketMap<Vec<u8>>,
    answered: u32,
    restart_after: u32,
    listener: Option<finale::Listener>,
    /// When it listens again.
    again: Option<TimerId>,
    /// Connections that it breaks shortly.
    soon: BTreeMap<TimerId, SocketId>,
}

/// Before the next request begins.
const SOON: Duration = Duration::from_millis(5);

impl State {
    fn report(&self, text: &str) {
        let _ = self.reports.send(text.to_owned());
    }

    /// Returns whether to break the connection shortly.
    fn read(&mut self, socket: &mut Socket<'_>, bytes: &[u8]) -> bool {
        let line = self.lines.or_default(socket.id());
        line.extend_from_slice(bytes);
        if !line.ends_with(b"\n") {
            return false;
        }
        let request = String::from_utf8_lossy(&std::mem::take(line)).into_owned();
        self.answer(socket, &request)
    }

    fn break_unused(&mut self, reactor: &mut Reactor, timer: TimerId) {
        let id = self.soon.remove(&timer);
        if let Some(mut socket) = id.and_then(|id| reactor.socket(id)) {
            self.report("resets a connection shortly after its answer");
            socket.destroy();
        }
    }

    fn answer(&mut self, socket: &mut Socket<'_>, request: &str) -> bool {
        let (name, answer) = (request.trim_end().to_owned(), request.to_uppercase());
        match self.dice.below(100) {
            0..12 => {
                self.report(&format!("resets the connection of {name} without an answer"));
                socket.destroy();
                return false;
            }
            12..20 => {
                self.report(&format!("finishes the connection of {name} without an answer"));
                socket.end();
                return false;
            }
            20..28 => {
                self.report(&format!("answers half of {name} and finishes the connection"));
                let _ = socket.write(&answer.as_bytes()[..answer.len() / 2]);
                socket.end();
                return false;
            }
            28..36 => {
                self.report(&format!("answers {name} and finishes the connection"));
                let _ = socket.write(answer.as_bytes());
                socket.end();
            }
            dice => {
                let _ = socket.write(answer.as_bytes());
                self.answered += 1;
                return dice >= 85;
            }
        }
        self.answered += 1;
        false
    }

    /// Resets all connections and stops listening for a while.
    fn restart_if_due(&mut self, reactor: &mut Reactor) {
        if self.answered < self.restart_after {
            return;
        }
        let Some(listener) = self.listener.take() else { return };
        self.report("is restarted: it resets all connections and stops listening");
        let _ = reactor.close_listener(listener.id);
        let live: Vec<_> = reactor.sockets().iter().map(|socket| socket.id).collect();
        for id in live {
            if let Some(mut socket) = reactor.socket(id) {
                socket.destroy();
            }
        }
        self.again = Some(reactor.set_timer(DOWN));
    }

    fn come_back(&mut self, reactor: &mut Reactor, addr: BoundAddr) {
        // It restarts once.
        (self.again, self.restart_after) = (None, u32::MAX);
        match reactor.listen(addr, ListenOptions::default()) {
            Ok(listener) => {
                self.listener = Some(listener);
                self.report("listens again");
            }
            Err(error) => self.report(&format!("can't listen again: {error}")),
        }
    }
}
