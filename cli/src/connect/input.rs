//! Stdin, passed on to the socket.

use std::io::{self, IsTerminal as _, Stdin};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use finale::{Backpressure, Stream, Waker};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::errors::Error;
use crate::interrupt::without_signals;

/// 64 KiB per read: the whole content of a pipe on Linux.
const CHUNK_BYTES: usize = 64 << 10;
/// Two chunks: one is sent while the next one is read.
const CHUNKS: usize = 2;

/// The thread that reads stdin notices its end within this time.
const NOTICE: Duration = Duration::from_millis(100);
const NO_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// What the thread that reads stdin has found.
enum Found {
    Bytes(Vec<u8>),
    /// Nothing more at the moment.
    Pause,
    Error(io::Error),
}

/// Chunks of stdin, read as fast as the socket takes them.
pub(super) struct Input {
    found: Receiver<Found>,
    queue: Backpressure,
    half_close: bool,
    is_terminal: bool,
    /// Stdin has nothing more at the moment.
    pauses: bool,
    peer_has_finished: bool,
}

impl Input {
    /// Reading stdin blocks, so a thread does it. It is not joined: only the end of the program
    /// interrupts it.
    pub(super) fn open(half_close: bool, remote: Waker) -> Self {
        let (sender, found) = sync_channel(CHUNKS);
        // Once it is closed it no longer counts as a terminal.
        let is_terminal = io::stdin().is_terminal();
        let read = move || {
            read_stdin(sender, &remote, is_terminal);
            // The sender is dropped before this wake, so the reactor finds the end of stdin.
            let _ = remote.wake();
        };
        without_signals(|| thread::spawn(read));
        Self { found, queue: Backpressure::Room, half_close, is_terminal, pauses: false, peer_has_finished: false }
    }

    /// The queue of the socket has room again.
    pub(super) fn drained(&mut self, socket: &mut impl Stream) -> Result<bool, Error> {
        self.queue = Backpressure::Room;
        self.send(socket)
    }

    /// The peer has finished. It may still read.
    pub(super) fn peer_finished(&mut self, socket: &mut impl Stream) -> Result<bool, Error> {
        self.peer_has_finished = true;
        self.send(socket)
    }

    /// Writes what was read, until the queue is full. Returns whether it is time to end our side.
    pub(super) fn send(&mut self, socket: &mut impl Stream) -> Result<bool, Error> {
        while self.queue == Backpressure::Room && !socket.end_called() {
            match self.found.try_recv() {
                Ok(Found::Bytes(bytes)) => {
                    self.pauses = false;
                    self.queue = socket.write_owned(bytes)?;
                }
                Ok(Found::Pause) => self.pauses = true,
                Ok(Found::Error(source)) => return Err(Error::io("read stdin", source)),
                Err(TryRecvError::Empty) => return Ok(self.pauses && self.ends_at_a_pause()),
                Err(TryRecvError::Disconnected) => return Ok(self.half_close || self.peer_has_finished),
            }
        }
        Ok(false)
    }

    /// After the peer's end a person expects the prompt of the shell, while the end of a file or of
    /// another program's output comes by itself.
    const fn ends_at_a_pause(&self) -> bool {
        self.peer_has_finished && (self.is_terminal || !self.half_close)
    }

    /// Whether bytes of stdin, or an error, have not gone to the socket. Where stdin has not ended,
    /// another program may be about to write: that counts, too. What a person may type does not.
    pub(super) fn is_left(&self) -> bool {
        loop {
            match self.found.recv_timeout(NOTICE) {
                Ok(Found::Pause) => {}
                Ok(Found::Bytes(_) | Found::Error(_)) => return true,
                Err(RecvTimeoutError::Timeout) => return !self.is_terminal,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}

/// Passes stdin on in chunks until it ends or the receiver is gone. It takes the sender, whose drop
/// means the end of stdin.
fn read_stdin(sender: SyncSender<Found>, remote: &Waker, is_terminal: bool) {
    let pass_on = |found| sender.send(found).is_ok() && remote.wake().is_ok();
    let fail = |errno: Errno| {
        pass_on(Found::Error(errno.into()));
    };
    let stdin = io::stdin();
    let wait = |limit: Option<&Timespec>| poll(&mut [PollFd::new(&stdin, PollFlags::IN)], limit);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        // Read only when there is something: the descriptor may have O_NONBLOCK.
        if wait(Some(&NO_TIME)) == Ok(0) && !pass_on(Found::Pause) {
            return;
        }
        match wait(None).and_then(|_ready| rustix::io::read(&stdin, &mut buffer)) {
            // A terminal that was closed reads as an end. It is none that a person has typed.
            Ok(0) if is_terminal && has_hung_up(&stdin) => return fail(Errno::IO),
            Ok(0) => return,
            Ok(count) if pass_on(Found::Bytes(buffer[..count].to_vec())) => {}
            Ok(_) => return,
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return fail(errno),
        }
    }
}

fn has_hung_up(stdin: &Stdin) -> bool {
    let mut fds = [PollFd::new(stdin, PollFlags::IN)];
    poll(&mut fds, Some(&NO_TIME)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_and_not_sent_is_left() {
        let (sender, found) = sync_channel(CHUNKS);
        let queue = Backpressure::Room;
        let mut input =
            Input { found, queue, half_close: false, is_terminal: true, pauses: true, peer_has_finished: true };
        let read = |found| sender.send(found).expect("there is room");
        read(Found::Pause);
        assert!(!input.is_left(), "a pause at a terminal is no input");
        read(Found::Bytes(b"late".to_vec()));
        assert!(input.is_left());
        read(Found::Error(Errno::IO.into()));
        assert!(input.is_left(), "what was not read is unknown");
        input.is_terminal = false;
        assert!(input.is_left(), "a program may write more");
        drop(sender);
        assert!(!input.is_left(), "stdin has ended");
    }
}
