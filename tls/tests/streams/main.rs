//! TLS streams on the simulated network: the order of events, and every ending.

mod arbitrary;
mod bounds;
mod constant;
mod cuts;
mod endings;
mod failures;
mod floods;
mod forge;
mod handshakes;
mod order;
mod pauses;
mod scene;
mod stops;
mod writes;
