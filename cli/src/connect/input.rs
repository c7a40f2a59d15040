//! Stdin, passed on to the socket.

use std::io::{self, Read as _};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;

use finale::{Backpressure, Socket, Waker};

use crate::errors::Error;

/// 64 KiB per read: the whole content of a pipe on Linux.
const CHUNK_BYTES: usize = 64 << 10;
/// Two chunks: one is sent while the next one is read.
const CHUNKS: usize = 2;

/// Chunks of stdin, read as fast as the socket takes them.
pub(super) struct Input {
    chunks: Receiver<io::Result<Vec<u8>>>,
    half_close: bool,
    queue: Backpressure,
}

impl Input {
    /// Reading stdin blocks, so a thread does it. It is not joined: only the end of the program
    /// interrupts it.
    pub(super) fn open(half_close: bool, remote: Waker) -> Self {
        let (sender, chunks) = sync_channel(CHUNKS);
        thread::spawn(move || {
            read_stdin(sender, &remote);
            // The sender is dropped before this wake, so the reactor finds the end of stdin.
            let _ = remote.wake();
        });
        Self { chunks, half_close, queue: Backpressure::Room }
    }

    /// The queue of the socket has room again.
    pub(super) fn drained(&mut self, socket: &mut Socket<'_>) -> Result<(), Error> {
        self.queue = Backpressure::Room;
        self.send(socket)
    }

    /// Writes what was read, until the queue is full.
    pub(super) fn send(&mut self, socket: &mut Socket<'_>) -> Result<(), Error> {
        while self.queue == Backpressure::Room && !socket.end_called() {
            match self.chunks.try_recv() {
                Ok(Ok(bytes)) => self.queue = socket.write(&bytes)?,
                Ok(Err(source)) => return Err(Error::io("read stdin", source)),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => {
                    if self.half_close {
                        socket.end();
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Passes stdin on in chunks until it ends or the receiver is gone. It takes the sender, whose drop
/// means the end of stdin.
fn read_stdin(chunks: SyncSender<io::Result<Vec<u8>>>, remote: &Waker) {
    let mut stdin = io::stdin().lock();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let chunk = match stdin.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => Ok(buffer[..count].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = chunk.is_err();
        if chunks.send(chunk).is_err() || remote.wake().is_err() || failed {
            return;
        }
    }
}
