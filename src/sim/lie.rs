//! A network that breaks its own contract, in one way: only to see that the judge of random runs
//! notices.
//!
//! Invariant: a lie is told to the reactor, and the truth stays what it is. Not in any build but
//! that of the tests.

use rustix::io::Errno;

use super::host::Host;
use super::world::World;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lie {
    /// A byte that was read is another.
    WrongByte,
    /// A read with nothing there says that the peer has finished.
    EndFromNowhere,
    /// Our FIN is acknowledged as soon as anybody asks.
    AcknowledgedTooSoon,
    /// A write fails, and nothing was wrong.
    ErrorFromNowhere,
    /// No connection tells any news.
    EdgeForgotten,
    /// What is closed is still open.
    DescriptorKept,
    /// The clock runs one per cent fast.
    FastClock,
    /// A wait brings nothing, and at once.
    WaitForNothing,
    /// The clock is read after a stall, and not before it: readiness seems complete up to then.
    LateClock,
}

impl World {
    pub(super) fn lies(&self, lie: Lie) -> bool {
        self.lie == Some(lie)
    }
}

impl Host {
    /// What a read says, if that is a lie.
    pub(super) fn lie_of_read(&self, answer: Result<usize, Errno>, buffer: &mut [u8]) -> Result<usize, Errno> {
        match answer {
            Ok(read) if read > 0 && self.lies(Lie::WrongByte) => {
                buffer[0] ^= 1;
                Ok(read)
            }
            Err(Errno::WOULDBLOCK) if self.lies(Lie::EndFromNowhere) => Ok(0),
            answer => answer,
        }
    }
}
