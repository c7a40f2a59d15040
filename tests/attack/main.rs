//! Attacks on the core: peers that flood, die, send a few bytes at a time or take nothing, a kernel
//! that lacks memory or can't be queried, a process that is stopped, ids of other reactors. Each is
//! played on the simulated network if possible, and on the real one if Linux lets a test do so.

mod bounds;
mod calls;
mod clocks;
mod dead_peers;
mod early;
mod errors;
mod filling;
mod first_fin;
mod floods;
mod ids;
mod kernel_pipes;
mod layers;
mod notices;
mod pools;
mod producers;
mod races;
mod random_pipes;
mod real_floods;
mod real_pipes;
mod settings;
mod shortages;
mod slow_readers;
mod stalls;
mod stops;
mod turns;
mod unix;
