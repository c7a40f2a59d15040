//! splice(2): from a socket into a kernel pipe, and from a kernel pipe into a socket.
//!
//! Invariant: an error of a connection is returned, since the call has taken it off the socket. Any
//! other refusal only means that the bytes are copied.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use rustix::process::{Resource, getrlimit};

use crate::kernel_pipe::{Counted, KernelPipe};

/// Pipes of one reactor, of two descriptors each. When all of them are in the queues of slow
/// sinks, further bytes are copied.
const MOST: usize = 64;

/// One pipe per this many descriptors that the process may have: a sixteenth of them, for all of its
/// reactors. Pipes save copies, and connections can't do without descriptors: stalled streams must
/// not keep out clients.
const DESCRIPTORS_PER_PIPE: u64 = 32;

/// The size that a pipe gets if the system allows it (pipe(7), `pipe-user-pages-soft`): 64
/// pieces instead of 16. A piece is at most a page, and often a TCP segment of 1,448 bytes.
const PIPE_BYTES: usize = 256 * 1024;

/// The pipes of one reactor.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    /// Has a copy in each pipe.
    counted: Arc<()>,
    /// How many the process may have, once that was checked: 0 if splice(2) can't be used.
    most_open: Option<usize>,
}

impl Pipes {
    /// Moves bytes from a socket into a pipe, which is opened if there is none. 0: nothing was
    /// moved.
    pub(super) fn fill(
        &mut self,
        socket: impl AsFd,
        pipe: &mut Option<Box<KernelPipe>>,
        limit: usize,
    ) -> io::Result<usize> {
        if pipe.is_none() {
            *pipe = self.open().map(Box::new);
        }
        let Some(pipe) = pipe.as_deref_mut() else { return Ok(0) };
        let Some((_, write)) = pipe.ends() else { return Ok(0) };
        match splice(socket, None, write, None, limit, SpliceFlags::NONBLOCK) {
            Ok(count) => {
                pipe.bytes = count;
                Ok(count)
            }
            Err(errno) if is_refusal(errno) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// A new pipe, if there are descriptors for it.
    fn open(&mut self) -> Option<KernelPipe> {
        // Once: otherwise each read of a stream that gets no pipe would make this system call.
        let most_open = *self.most_open.get_or_insert_with(|| match is_safe_from_sigpipe() {
            true => most_open(getrlimit(Resource::Nofile).current),
            false => 0,
        });
        let counted = Counted::another(&self.counted, MOST, most_open)?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // With the default size it works, too.
        let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
        Some(KernelPipe::new(read, write, counted))
    }
}

/// How many pipes a process may have, with this limit of descriptors.
fn most_open(descriptors: Option<u64>) -> usize {
    descriptors.map_or(usize::MAX, |limit| (limit / DESCRIPTORS_PER_PIPE) as usize)
}

/// Moves bytes from a pipe that has some into a socket. EINVAL: the socket can't take them so.
pub(super) fn empty(pipe: &mut KernelPipe, socket: impl AsFd, limit: usize, more: bool) -> io::Result<usize> {
    let Some((read, _)) = pipe.ends() else { return Err(Errno::INVAL.into()) };
    let flags = if more { SpliceFlags::NONBLOCK | SpliceFlags::MORE } else { SpliceFlags::NONBLOCK };
    match splice(read, None, socket, None, limit, flags) {
        // A pipe with bytes is not at its end.
        Ok(0) => Err(Errno::INVAL.into()),
        Ok(count) => {
            pipe.bytes -= count;
            Ok(count)
        }
        Err(errno) if errno != Errno::AGAIN && is_refusal(errno) => Err(Errno::INVAL.into()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether the call was refused, and nothing is known of the connection.
fn is_refusal(errno: Errno) -> bool {
    #[rustfmt::skip]
    let refusals = [
        Errno::AGAIN, Errno::INVAL, Errno::NOSYS, Errno::PERM, Errno::OPNOTSUPP, Errno::BADF, Errno::NOMEM,
        Errno::NOTCONN,
    ];
    refusals.contains(&errno)
}

/// Whether SIGPIPE does not end this process: it is ignored (as in every program whose `main`
/// is in Rust) or handled. splice(2) raises it for a socket that is dead, and has no
/// flag against that, unlike send(2).
fn is_safe_from_sigpipe() -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    survives_sigpipe(&status)
}

fn survives_sigpipe(status: &str) -> bool {
    const SIGPIPE: u64 = 1 << (13 - 1);
    let masks = status.lines().filter_map(|line| line.split_once(":\t"));
    let mut masks = masks.filter(|(name, _)| matches!(*name, "SigIgn" | "SigCgt"));
    masks.any(|(_, mask)| u64::from_str_radix(mask, 16).is_ok_and(|mask| mask & SIGPIPE != 0))
}

#[cfg(test)]
mod tests;
