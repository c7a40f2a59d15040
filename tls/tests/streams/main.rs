//! TLS streams on the simulated network: the order of events, and every ending.

mod endings;
mod scene;
