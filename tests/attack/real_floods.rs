//! Peers that send without a pause, on the real network: plain clients that only write.

use std::collections::HashMap;
use std::io::Write;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use finale::{ConnectionErrorKind, Event, IdleDirection, ListenOptions, Socket, SocketId, TimeoutKind};

use support::{Transcript, dial, ms, work_for};

pub(crate) const LIMIT: Duration = ms(500);
/// More than any kernel holds for a peer that reads nothing.
const MUCH: usize = 12 << 20;

/// Clients that write without a pause, read nothing, and never end. They stop with the test.
pub(crate) struct Writers(Arc<AtomicBool>);

impl Writers {
    pub(crate) fn new(addr: impl ToSocketAddrs + Copy, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..count {
            let (mut client, stop) = (dial(addr), Arc::clone(&stop));
            std::thread::spawn(move || {
                let block = vec![b'x'; 1 << 20];
                while !stop.load(Ordering::Relaxed) && client.write_all(&block).is_ok() {}
            });
        }
        Self(stop)
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A receive buffer so large that each read fills its own buffer.
pub(crate) fn wide() -> ListenOptions {
    ListenOptions::default().receive_buffer_size(1 << 20)
}

/// The limit of every connection of a flood expires on time. `work`: how long the handler works
/// after each read. `cause`: the kind of its failure; `None`: its silence is an event.
#[track_caller]
pub(crate) fn strikes_in_time(
    peers: usize,
    options: ListenOptions,
    work: Duration,
    cause: Option<TimeoutKind>,
    begin: impl Fn(&mut Socket<'_>),
) {
    let mut story = Transcript::new();
    let addr = story.listen(options);
    let _writers = Writers::new(addr, peers);
    let mut begun: HashMap<SocketId, Instant> = HashMap::new();
    let mut strikes = Vec::new();
    let began = Instant::now();
    while strikes.len() < peers && began.elapsed() < 40 * LIMIT {
        story.run_for(ms(50), |socket, event| match event {
            Event::Connection => {
                begin(socket);
                begun.insert(socket.id(), Instant::now());
            }
            Event::Data(_) => work_for(work),
            Event::Timeout if cause.is_none() => {
                strikes.push(begun[&socket.id()].elapsed());
                socket.destroy();
            }
            Event::Error(failure) => {
                assert_eq!(Some(failure.kind), cause.map(ConnectionErrorKind::TimedOut));
                strikes.push(begun[&socket.id()].elapsed());
            }
            _ => {}
        });
    }
    assert_eq!(strikes.len(), peers, "not every connection was struck: {strikes:?}");
    assert!(strikes.iter().all(|after| (LIMIT..10 * LIMIT).contains(after)), "{strikes:?}");
}

fn lingering(socket: &mut Socket<'_>) {
    socket.write(b"HTTP/1.1 413 Content Too Large\r\n\r\n").expect("open");
    socket.end();
    socket.discard();
}

fn flushing(socket: &mut Socket<'_>) {
    socket.write_owned(vec![0; MUCH]).expect("open");
    socket.end();
}

fn writing(socket: &mut Socket<'_>) {
    socket.write_owned(vec![0; MUCH]).expect("open");
}

#[test]
fn a_client_that_only_writes_does_not_put_off_the_end_of_a_lingering_close() {
    strikes_in_time(1, wide().close_timeout(LIMIT), Duration::ZERO, Some(TimeoutKind::Close), lingering);
}

#[test]
fn six_clients_that_only_write_do_not_put_off_the_end_of_a_lingering_close() {
    strikes_in_time(6, wide().close_timeout(LIMIT), Duration::ZERO, Some(TimeoutKind::Close), lingering);
}

#[test]
fn a_client_that_only_writes_does_not_put_off_the_end_of_a_flush() {
    strikes_in_time(1, wide().close_timeout(LIMIT), Duration::ZERO, Some(TimeoutKind::Close), flushing);
}

#[test]
fn a_client_that_only_writes_to_a_slow_handler_does_not_put_off_the_end_of_a_flush() {
    strikes_in_time(1, wide().close_timeout(LIMIT), ms(1), Some(TimeoutKind::Close), flushing);
}

#[test]
fn six_clients_that_only_write_to_a_slow_handler_do_not_put_off_the_write_timeout() {
    strikes_in_time(6, wide().write_timeout(LIMIT), ms(1), Some(TimeoutKind::Write), writing);
}

#[test]
fn a_client_that_only_writes_does_not_put_off_the_write_timeout() {
    strikes_in_time(1, wide().write_timeout(LIMIT), Duration::ZERO, Some(TimeoutKind::Write), writing);
}

#[test]
fn a_client_that_only_writes_to_a_slow_handler_does_not_put_off_the_idle_time_of_our_own_bytes() {
    let options = wide().idle_direction(IdleDirection::Write).idle_timeout(LIMIT);
    strikes_in_time(1, options, ms(1), None, writing);
}

#[test]
fn six_clients_that_only_write_to_a_slow_handler_do_not_put_off_their_deadline() {
    strikes_in_time(6, wide().deadline(LIMIT), ms(1), Some(TimeoutKind::Deadline), |_| ());
}
