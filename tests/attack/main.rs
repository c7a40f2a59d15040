//! Attacks on the core: peers that flood, die, drip or take nothing, a kernel that is short of
//! memory or can't be queried, a process that stands still, ids from elsewhere. Each is played on
//! the simulated network where it can be, and on the real one where Linux lets a test do so.

mod bounds;
mod clocks;
mod dead_peers;
mod early;
mod errors;
mod faulty;
mod first_fin;
mod floods;
mod ids;
mod notices;
mod races;
mod real_floods;
mod settings;
mod shortages;
mod slow_readers;
mod stalls;
mod stops;
mod turns;
mod unix;
