//! Kernel pipes of the simulated network.
//!
//! Invariant: what a pipe gets and gives is drawn like a read and a write.

use std::io;

use rustix::io::Errno;

use super::host::{BareHost, FILL};
use crate::kernel_pipe::KernelPipe;

impl BareHost {
    /// Moves nothing if that is the fault, or before an urgent byte, as Linux; or less than there
    /// is, as if the pipe were full of small pieces.
    pub(super) fn fill_pipe(&self, slot: u32, pipe: &mut Option<Box<KernelPipe>>, limit: usize) -> io::Result<usize> {
        let (mut world, id) = self.on_with_memory(slot, FILL)?;
        let short_read = world.faults.short_read;
        let end = world.ends.get(id).ok_or(Errno::BADF)?;
        let (there, is_split) = (end.incoming.len().min(limit), end.urgent_in.is_some());
        if there == 0 || is_split || world.rng.chance(short_read / 2.0) {
            return Ok(0);
        }
        let room = if world.rng.chance(short_read) { 1 + world.rng.below(there as u64) as usize } else { there };
        let mut bytes = vec![0; room];
        let count = self.read(&mut world, slot, id, &mut bytes)?;
        bytes.truncate(count);
        *pipe = Some(Box::new(KernelPipe::in_memory(bytes)));
        Ok(count)
    }

    /// Refuses if that is the fault.
    pub(super) fn empty_pipe(&self, slot: u32, pipe: &mut KernelPipe, limit: usize, more: bool) -> io::Result<usize> {
        let (mut world, id) = self.on_with_memory(slot, 2)?;
        let short_write = world.faults.short_write;
        if world.rng.chance(short_write / 4.0) {
            return Err(Errno::INVAL.into());
        }
        let sent = self.transmit(&mut world, slot, id, &pipe.memory()[..limit], more)?;
        pipe.drain(sent);
        Ok(sent)
    }
}
