//! How many clients there are descriptors for. A proxy that accepts more has none left for their
//! backends, and then fails them all.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The client's socket and the backend's.
const PER_CLIENT: usize = 2;
/// Standard streams, epoll, the wakers, the listener, lookups of names, and a margin.
const OTHERS: usize = 16;

/// The most clients at a time, if this many connections are kept ready. Raises the limit of
/// descriptors as far as the system allows.
pub(crate) fn clients(ready: usize) -> Result<usize, String> {
    let limit = getrlimit(Resource::Nofile);
    // If it can't be raised, the present one holds.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    // The reactor moves bytes in kernel pipes, which have at most a sixteenth of the descriptors.
    let needed = ready.saturating_add(OTHERS).saturating_add((limit / 16).min(128));
    match limit.saturating_sub(needed) / PER_CLIENT {
        0 => Err(format!(
            "{limit} descriptors are too few: it needs {}; raise the limit (ulimit -n) or lower --ahead",
            needed.saturating_add(PER_CLIENT)
        )),
        clients => Ok(clients),
    }
}
