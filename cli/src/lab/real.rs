//! A script on two real sockets of this machine: two reactors, each on a thread of its own, and the
//! kernel between them.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use finale::lifecycle::State;
use finale::net::os::Os;
use finale::trace::{Recorder, Traced};
use finale::{ConnectOptions, Event, ListenOptions, Reactor, SocketId, Waker};

use crate::errors::Error;
use crate::trace::{
    Action, Ladder, Moment, ROWS, Row, RowKind, Script, Side, SideEnd, SideNow, Step, Verb, apply, connect_options,
    listen_options, micros,
};

/// Longer scripts are for virtual time.
const LONGEST: Duration = Duration::from_secs(10);
/// How long it waits for both sides to end.
const PATIENCE: Duration = Duration::from_secs(3);
/// What is recorded of a side between two looks at its record.
const RECORDS: usize = 2_000;

/// What a side does next.
enum Order {
    Do(Verb),
    /// The run is over.
    Stop,
}

/// One side, on a thread of its own.
struct Worker {
    side: Side,
    begun: Instant,
    recorder: Recorder,
    /// `None`: its program has died.
    reactor: Option<Reactor<Traced<Os>>>,
    orders: Receiver<Order>,
    connect: (SocketAddr, ConnectOptions),
    socket: Option<SocketId>,
    ending: Option<String>,
    rows: VecDeque<Row>,
    /// Rows that were not kept.
    lost: u64,
    next: u64,
    moments: VecDeque<Moment>,
    now: SideNow,
    /// The controller waits for it.
    over: Sender<Side>,
}

/// The controller's end of a side.
struct Handle {
    orders: Sender<Order>,
    waker: Waker,
    thread: JoinHandle<Result<Worker, finale::Error>>,
}

/// Runs the script in real time, and waits for the end of the connection.
///
/// # Errors
/// If the script does what a real machine can't do to itself, or takes too long.
pub(super) fn run(script: &Script) -> Result<Ladder, Error> {
    check(script)?;
    let (over, ends) = channel();
    let (handles, begun) = start(script, &over)?;
    for (step, at) in script.0.iter().zip(script.times()) {
        // A side that has ended early does not shorten the script.
        wait_until(begun + at);
        for action in step {
            if let Action::Of(side, verb) = *action {
                handles[side as usize].send(Order::Do(verb));
            }
        }
    }
    let until = Instant::now() + PATIENCE;
    for _ in Side::BOTH {
        // A timeout: this side does not end.
        let _ = ends.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
    handles.iter().for_each(|handle| handle.send(Order::Stop));
    let mut workers = Vec::new();
    for handle in handles {
        let ended = handle.thread.join().map_err(|_| Error::Scene("a side of the real run panicked"))?;
        workers.push(ended?);
    }
    Ok(ladder(script, workers, begun))
}

/// Waits by a timed receive from a channel to which no thread sends.
fn wait_until(until: Instant) {
    let (_open, never) = channel::<()>();
    let _ = never.recv_timeout(until.saturating_duration_since(Instant::now()));
}

/// # Errors
/// If the script does what a real machine can't do to itself, or takes too long.
pub(super) fn check(script: &Script) -> Result<(), Error> {
    let possible = |action: &&Action| match action {
        Action::Wait(_) => true,
        Action::Of(_, verb) => !matches!(verb, Verb::Fork | Verb::Vanish | Verb::Reboot),
        _ => false,
    };
    if let Some(action) = script.0.iter().flatten().find(|action| !possible(action)) {
        return Err(Error::usage(format!("real sockets of one machine can't do this: {action}")));
    }
    let takes = script.times().last().copied().unwrap_or_default();
    if takes > LONGEST {
        let (takes, most) = (takes.as_secs(), LONGEST.as_secs());
        return Err(Error::usage(format!("the script takes {takes} s; a real run takes {most} s at most")));
    }
    Ok(())
}

impl Handle {
    fn send(&self, order: Order) {
        // A side that has failed says so when it is joined.
        let _ = self.orders.send(order);
        let _ = self.waker.wake();
    }
}

fn start(script: &Script, over: &Sender<Side>) -> Result<([Handle; 2], Instant), Error> {
    let recorders = Side::BOTH.map(|_| Recorder::new(RECORDS));
    let (client, mut server) = (recorders[0].reactor()?, recorders[1].reactor()?);
    let options = listen_options(ListenOptions::default(), &script.settings(Side::Server));
    let listener = server.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), options)?;
    let target = listener.addr.ip().ok_or(Error::Scene("the server has no address"))?;
    let options = connect_options(ConnectOptions::default(), &script.settings(Side::Client));
    let begun = Instant::now();
    let [client_recorder, server_recorder] = recorders;
    let spawn = |side, reactor: Reactor<Traced<Os>>, recorder| {
        let (orders, receiver) = channel();
        let waker = reactor.waker();
        let worker = Worker {
            side,
            begun,
            recorder,
            reactor: Some(reactor),
            orders: receiver,
            connect: (target, options.clone()),
            socket: None,
            ending: None,
            rows: VecDeque::new(),
            lost: 0,
            next: 0,
            moments: VecDeque::new(),
            now: SideNow::default(),
            over: over.clone(),
        };
        let thread = thread::Builder::new().name(side.name().to_owned()).spawn(move || worker.work());
        let thread = thread.map_err(|source| Error::io("start a thread", source))?;
        Ok::<_, Error>(Handle { orders, waker, thread })
    };
    let client = spawn(Side::Client, client, client_recorder)?;
    let server = spawn(Side::Server, server, server_recorder)?;
    Ok(([client, server], begun))
}

impl Worker {
    fn work(mut self) -> Result<Self, finale::Error> {
        while let Some(mut reactor) = self.reactor.take() {
            let event = match reactor.next()? {
                Some((_, Event::Woken)) | None => None,
                Some((socket, Event::Connection)) => {
                    self.socket.get_or_insert(socket.id());
                    None
                }
                Some((socket, Event::Close(report))) if self.socket == Some(socket.id()) => Some(report.to_string()),
                Some(_) => None,
            };
            self.look(&reactor);
            if let Some(text) = event {
                self.add(RowKind::Ending { text: text.clone() });
                self.end(text);
            }
            self.reactor = Some(reactor);
            if !self.obey()? {
                break;
            }
        }
        Ok(self)
    }

    fn end(&mut self, ending: String) {
        if self.ending.is_none() {
            self.ending = Some(ending);
            // The controller may have given up.
            let _ = self.over.send(self.side);
        }
    }

    /// Carries out all orders. Returns whether it continues.
    fn obey(&mut self) -> Result<bool, finale::Error> {
        let mut is_frozen = false;
        loop {
            let order = match is_frozen {
                false => self.orders.try_recv(),
                // SIGSTOP: nothing runs until SIGCONT.
                true => self.orders.recv().map_err(|_| TryRecvError::Disconnected),
            };
            match order {
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) | Ok(Order::Stop) => return Ok(false),
                Ok(Order::Do(Verb::Set(_))) => {}
                Ok(Order::Do(verb)) => {
                    self.add(RowKind::Action { text: verb.to_string() });
                    is_frozen = match verb {
                        Verb::Freeze => true,
                        Verb::Thaw => false,
                        _ => is_frozen,
                    };
                    self.call(verb)?;
                    if self.reactor.is_none() {
                        return Ok(false);
                    }
                }
            }
        }
    }

    fn call(&mut self, verb: Verb) -> Result<(), finale::Error> {
        let Some(reactor) = &mut self.reactor else { return Ok(()) };
        match verb {
            Verb::Connect => self.socket = Some(reactor.connect(self.connect.0, self.connect.1.clone())?),
            Verb::Close | Verb::Crash => {
                // The kernel closes the descriptors of a program that dies.
                self.reactor.take().into_iter().for_each(Reactor::abandon);
                self.now.program = "over";
                let why = if verb == Verb::Close { "its program called close(2)" } else { "its program died" };
                self.end(why.to_owned());
                self.note_moment(micros(self.begun.elapsed()));
            }
            verb => {
                if let Some(socket) = self.socket.and_then(|id| reactor.socket(id))
                    && let Err(error) = apply(socket, verb)
                {
                    self.add(RowKind::Note { text: format!("write: {error}") });
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, what: RowKind) {
        self.keep(Row::new(self.begun.elapsed(), self.side, what));
    }

    fn keep(&mut self, row: Row) {
        if self.rows.len() == ROWS {
            self.rows.pop_front();
            self.lost += 1;
        }
        self.rows.push_back(row);
    }

    /// Takes what was recorded, and looks at the socket as its program could.
    fn look(&mut self, reactor: &Reactor<Traced<Os>>) {
        for record in self.recorder.since(self.next) {
            self.lost += record.number - self.next;
            self.next = record.number + 1;
            let row = Row::of_record(&record, self.begun, self.side, self.now.state);
            let changes = self.now.change(&row);
            let at_us = row.at_us;
            self.keep(row);
            if changes {
                self.note_moment(at_us);
            }
        }
        // The kernel is asked after a call, and a closed socket makes none.
        if self.now.state == State::Closed.name() {
            self.now.kernel = self.now.kernel.filter(|kernel| kernel.until_us.is_some());
        }
        let elapsed_ms = micros(self.begun.elapsed()) / 1000;
        let now = self.now.of_socket(self.socket, &reactor.sockets(), elapsed_ms);
        if now != self.now {
            self.now = now;
            self.note_moment(micros(self.begun.elapsed()));
        }
    }

    /// What is shown of a real run is its end, so old moments are not missed.
    fn note_moment(&mut self, at_us: u64) {
        if self.moments.len() == ROWS {
            self.moments.pop_front();
        }
        self.moments.push_back(Moment { rows: 0, at_us, side: self.side, now: self.now.clone() });
    }
}

/// Both sides in the order of time.
fn ladder(script: &Script, workers: Vec<Worker>, begun: Instant) -> Ladder {
    let mut ladder = Ladder { title: script.to_string(), end_us: micros(begun.elapsed()), ..Ladder::default() };
    ladder.steps = Step::all(script);
    for worker in workers {
        ladder.lost += worker.lost;
        ladder.sides.push(SideEnd { side: worker.side, state: worker.now.state, ending: worker.ending });
        ladder.rows.extend(worker.rows);
        ladder.moments.extend(worker.moments);
    }
    ladder.rows.sort_by_key(|row| row.at_us);
    let dropped = ladder.rows.len().saturating_sub(ROWS);
    ladder.rows.drain(..dropped);
    ladder.lost += dropped as u64;
    ladder.moments.sort_by_key(|moment| moment.at_us);
    for moment in &mut ladder.moments {
        moment.rows = ladder.lost + ladder.rows.partition_point(|row| row.at_us <= moment.at_us) as u64;
    }
    ladder
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real(text: &str) -> Result<Ladder, Error> {
        run(&Script::parse(text).expect("it is a script"))
    }

    #[test]
    fn a_script_runs_on_two_real_sockets_to_its_end() {
        let ladder = real("client connect; client write 5; client end; server write 7; server end").expect("it runs");
        for (end, bytes) in ladder.sides.iter().zip(["7 bytes read, 5 written", "5 bytes read, 7 written"]) {
            let ending = end.ending.as_deref().expect("it is over");
            assert!(ending.starts_with("clean and acknowledged") && ending.contains(bytes), "{ending}");
        }
        assert!(ladder.rows.is_sorted_by_key(|row| row.at_us) && ladder.steps.len() == 5);
        assert!(ladder.rows.iter().any(|row| row.line == "shutdown(SHUT_WR)"));
    }

    #[test]
    fn a_crash_over_unread_bytes_resets_the_real_connection_too() {
        // On a busy machine the bytes may arrive later, and a crash without them is a FIN.
        let endings = [0, 50, 500, 5000].iter().map(|ms| {
            let script = format!("client connect; server pause; client write 5; wait {ms}ms; server crash");
            let ladder = real(&script).expect("it runs");
            ladder.sides[0].ending.clone().unwrap_or_default()
        });
        let mut seen = endings.inspect(|client| println!("{client}"));
        assert!(seen.any(|client| client.starts_with("error: reset by the peer")));
    }

    #[test]
    fn of_a_long_real_run_the_newest_rows_are_kept_and_the_others_are_counted() {
        let short = real("client connect; client write 1MiB; client end; server end").expect("it runs");
        assert_eq!((short.lost, short.steps.len()), (0, 4));
        let small = "client set send-buffer 1KiB; server set receive-buffer 1KiB; client connect; ";
        let long = real(&format!("{small}{}server end", "client write 1MiB; ".repeat(60))).expect("it runs");
        assert!(long.lost > 0 && long.rows.len() == ROWS, "{} lost, {} kept", long.lost, long.rows.len());
        assert!(long.moments.len() <= 2 * ROWS, "{}", long.moments.len());
    }

    #[test]
    fn a_program_that_dies_or_closes_without_unread_bytes_sends_a_fin() {
        for verb in ["crash", "close"] {
            let ladder = real(&format!("client connect; wait 20ms; server {verb}; client end")).expect("it runs");
            let client = ladder.sides[0].ending.as_deref().unwrap_or_default();
            assert!(client.starts_with("clean") && client.contains("the peer finished first"), "{verb}: {client}");
        }
    }

    #[test]
    fn a_frozen_program_reads_after_it_runs_again() {
        let script = "client connect; wait 50ms; server freeze; client write 5; client end; server thaw; server end";
        let ladder = real(script).expect("it runs");
        assert!(ladder.sides.iter().all(|end| end.ending.as_deref().is_some_and(|text| text.starts_with("clean"))));
    }

    #[test]
    fn what_a_real_machine_cannot_do_to_itself_is_refused() {
        for (script, part) in [
            ("client connect; network cut", "can't do this: network cut"),
            ("client connect; server vanish", "can't do this: server vanish"),
            ("client connect; wait 1m", "takes 60 s"),
        ] {
            let error = real(script).expect_err(script);
            assert!(error.is_usage() && error.to_string().contains(part), "{error}");
        }
    }
}
