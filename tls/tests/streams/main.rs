//! TLS streams on the simulated network: the order of events, and every ending.

mod endings;
mod order;
mod pauses;
mod scene;
mod writes;
