//! The limits of this machine, which must not be taken for those of the server.

use nix::sys::resource::{Resource, getrlimit};

/// So many connections the probe may open at once: half of what the process may have, since the
/// program around it has descriptors, too.
pub(crate) fn spare_descriptors() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(FEW, |(soft, _)| usize::try_from(soft / 2).unwrap_or(usize::MAX))
}

/// What every system allows.
const FEW: usize = 100;
