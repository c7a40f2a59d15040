//! The catalogue of faults (docs/faults.md), row by row: what goes wrong with connections, provoked
//! on the simulated network where it can be played, and on the real one where Linux allows it. A
//! test's doc comment begins with its row.

mod accepting;
mod bulk;
mod closing;
mod connecting;
mod descriptors;
mod half_close;
mod lookup;
mod misuse;
mod overload;
mod readiness;
mod reading;
mod resets;
mod silence;
mod timers;
mod wakeup;
mod writing;
