//! What the parts of the reactor cost, one operation at a time: `cargo bench`, see
//! `benches/README.md`.
//!
//! The pure modules are private to the crate. They are compiled a second time here, from the same
//! files, under the same names; the reactor and the simulated network are measured through the
//! public API.

/// The library's folder, so that each file finds its own submodules where the library finds them.
/// What is not measured is dead here, and what is public in a library is not in a program; cargo
/// also sets `cfg(test)`, and so their tests are compiled, although they never run.
#[allow(unused, unreachable_pub, clippy::unwrap_used)]
#[path = "../../src"]
mod library {
    pub(crate) mod buffer;
    pub(crate) mod error;
    pub(crate) mod event;
    pub(crate) mod id;
    pub(crate) mod kernel_pipe;
    pub(crate) mod lifecycle;
    pub(crate) mod options;
    pub(crate) mod report;
    pub(crate) mod table;
    pub(crate) mod target;
    pub(crate) mod ticks;
    pub(crate) mod unix_addr;
    pub(crate) mod wheel;
}
// The files name each other from the root, with the names that the library's root has.
#[allow(unused_imports)]
use finale::sim;
#[allow(unused_imports)]
use library::{
    buffer, error, event, id, kernel_pipe, lifecycle, options, report, table, target, ticks, unix_addr, wheel,
};

mod bare;
mod events;
mod parts;
mod support;
mod timers;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    // Only this many events of a kind: what `benches/micro/instructions` counts.
    if let Ok(events) = std::env::var("FINALE_EVENTS") {
        let (kind, count) = events.split_once(':').expect("KIND:COUNT");
        return events::run(kind, count.parse().expect("a number"));
    }
    let mut criterion = Criterion::default()
        .with_measurement(support::CpuTime)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    timers::measure(&mut criterion);
    parts::measure(&mut criterion);
    events::measure(&mut criterion);
    criterion.final_summary();
}
