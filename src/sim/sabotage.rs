//! Sabotage: a network that breaks its own contract in one way, to check that the rules of random
//! runs find it.
//!
//! Invariant: the reactor gets false results, and the recorded truth stays correct. This is only in
//! the build of the tests.

use rustix::io::Errno;

use super::host::BareHost;
use super::world::World;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sabotage {
    /// A byte that was read is changed.
    WrongByte,
    /// A read without bytes returns that the peer has finished.
    EndFromNowhere,
    /// Our FIN counts as acknowledged at the first query.
    AcknowledgedTooSoon,
    /// A write fails without a reason.
    ErrorFromNowhere,
    /// No connection reports readiness.
    EdgeForgotten,
    /// What is closed is still open.
    DescriptorKept,
    /// After our FIN a reset only closes.
    ResetForgotten,
    /// The clock runs one per cent fast.
    FastClock,
    /// A wait returns at once, without a result.
    WaitForNothing,
    /// The clock is read after a stall, and not before it: readiness seems complete up to then.
    LateClock,
}

impl World {
    pub(super) fn is_sabotaged(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }
}

impl BareHost {
    /// The result of a read, falsified if that is the sabotage.
    pub(super) fn sabotage_read(&self, answer: Result<usize, Errno>, buffer: &mut [u8]) -> Result<usize, Errno> {
        match answer {
            Ok(read) if read > 0 && self.is_sabotaged(Sabotage::WrongByte) => {
                buffer[0] ^= 1;
                Ok(read)
            }
            Err(Errno::WOULDBLOCK) if self.is_sabotaged(Sabotage::EndFromNowhere) => Ok(0),
            answer => answer,
        }
    }
}
